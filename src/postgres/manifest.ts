import { z } from 'zod';
import { damaged } from './errors.ts';

/** The layout and the manifest that this version writes and reads. */
export const LAYOUT = 'v1';
export const MANIFEST_SCHEMA = 'holdfast.pg/1';
const MANIFEST_LIMIT = 1024 * 1024;

const FileName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/);
const Sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const Count = z.number().int().nonnegative();
const Instant = z.iso.datetime();

/** `20261120T235907Z-logical-k3f9qa`: sorts by time. */
const ID = /^(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})Z-(logical|logical_dir|physical)-[0-9a-z]{6}$/;

const Payload = z.looseObject({
  name: FileName,
  /** Stored bytes. */
  bytes: Count,
  sha256: Sha256,
  plain_bytes: Count,
  plain_sha256: Sha256,
  /** `dump`, `globals` or `inventory`. */
  content: z.string().max(40),
  encoding: z.array(z.enum(['zstd', 'age'])),
});
export type Payload = z.infer<typeof Payload>;

/** What stands beside every backup and makes it one. It holds no names of tables and no secrets. */
export const Manifest = z.looseObject({
  schema: z.literal(MANIFEST_SCHEMA),
  id: z.string().regex(ID),
  source_id: z.string().max(200),
  kind: z.literal('logical'),
  trigger: z.enum(['manual', 'safety', 'schedule']),
  label: z.string().max(200).optional(),
  description: z.string().max(1000).optional(),
  operation_id: z.string().max(200).optional(),
  started_at: Instant,
  /** The moment of the data. */
  snapshot_at: Instant,
  finished_at: Instant,
  duration_ms: Count,
  tools: z.looseObject({
    holdfast: z.string().max(60),
    node: z.string().max(60),
    pg_dump: z.string().max(60),
    zstd_level: z.number().int(),
  }),
  server: z.looseObject({
    version: z.string().max(100),
    version_num: Count,
    system_identifier: z.string().max(40).nullable(),
    in_recovery: z.boolean(),
    database: z.string().min(1).max(63),
    database_size_bytes: Count,
    encoding: z.string().max(40),
    collate: z.string().max(200),
    ctype: z.string().max(200),
    /** `c` (libc), `i` (ICU) or `b` (built in); absent before PostgreSQL 15. */
    locale_provider: z.string().max(1).optional(),
    /** The provider's own locale name, for ICU and the built-in one. */
    locale: z.string().max(200).optional(),
    extensions: z.array(z.object({ name: z.string().max(63), version: z.string().max(100) })).max(2000),
    roles_count: Count,
  }),
  payload: z.array(Payload).min(1).max(20),
  encryption: z.looseObject({
    scheme: z.enum(['age', 'none']),
    recipients: z.array(z.string().max(3000)).max(100),
    passphrase: z.boolean(),
  }),
  inventory: z.looseObject({
    tables: Count,
    rows_total: Count,
    fingerprint: Sha256,
    schema_sha256: Sha256,
    fingerprint_algorithm: z.string().max(60),
    /** Tables with a count only, being larger than the entity's limit. */
    counted_only: Count,
  }),
  /** What this backup does not hold, in our own words. */
  warnings: z.array(z.string().max(500)).max(50),
});
export type Manifest = z.infer<typeof Manifest>;

export const VERIFY_LEVELS = ['stored', 'readable', 'restored'] as const;
export type VerifyLevel = (typeof VERIFY_LEVELS)[number];

/** One verification; append-only, beside the manifest, which never changes. */
export const Verification = z.looseObject({
  schema: z.literal('holdfast.pg.verify/1'),
  backup_id: z.string().regex(ID),
  level: z.enum(VERIFY_LEVELS),
  passed: z.boolean(),
  started_at: Instant,
  finished_at: Instant,
  duration_ms: Count,
  /** What was wrong, in our own words. */
  problem: z.string().max(500).optional(),
  numbers: z.record(z.string(), z.number()),
  tools: z.record(z.string(), z.string()),
});
export type Verification = z.infer<typeof Verification>;

/** Makes an id from the time and five random bytes. */
export function newBackupId(now: Date, random: Uint8Array): string {
  const time = now.toISOString().replace(/[-:]|\.\d+/g, '');
  const letters = [...random.subarray(0, 6)].map((byte) => '0123456789abcdefghijklmnopqrstuvwxyz'[byte % 36]).join('');
  return `${time}-logical-${letters}`;
}

/** Reads the time in an id; undefined for what is no id. */
export function timeOfId(id: string): Date | undefined {
  const match = ID.exec(id);
  if (!match) return undefined;
  const [, year, month, day, hour, minute, second] = match;
  return new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
}

/**
 * Reads a manifest as untrusted input.
 * @throws {HoldfastError} INTEGRITY_FAILED
 */
export function parseManifest(bytes: Uint8Array, id: string): Manifest {
  const manifest = parse(Manifest, bytes, 'the manifest of this backup');
  if (manifest.id !== id) throw damaged('the manifest of this backup belongs to another backup');
  const names = manifest.payload.map(({ name }) => name);
  if (new Set(names).size !== names.length || names.includes('manifest.json')) {
    throw damaged('the manifest of this backup names a file twice');
  }
  return manifest;
}

/** Reads a verification record; undefined for one that is damaged, which then proves nothing. */
export function parseVerification(bytes: Uint8Array, id: string): Verification | undefined {
  try {
    const record = parse(Verification, bytes, 'a verification record');
    return record.backup_id === id ? record : undefined;
  } catch {
    return undefined;
  }
}

function parse<Schema extends z.ZodType>(schema: Schema, bytes: Uint8Array, what: string): z.output<Schema> {
  if (bytes.byteLength > MANIFEST_LIMIT) throw damaged(`${what} is larger than 1 MiB`);
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (cause) {
    throw damaged(`${what} is not JSON`, cause);
  }
  const result = schema.safeParse(value);
  if (!result.success) throw damaged(`${what} does not have the form of ${MANIFEST_SCHEMA}`, result.error);
  return result.data;
}

/** Gives the file of a manifest with this content. */
export function payloadOf(manifest: Manifest, content: 'dump' | 'globals' | 'inventory'): Payload {
  const found = manifest.payload.find((payload) => payload.content === content);
  if (!found) throw damaged(`this backup has no ${content}`);
  return found;
}
