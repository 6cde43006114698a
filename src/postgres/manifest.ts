import { z } from 'zod';
import { HoldfastError } from '../core/errors.ts';
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
  /** `dump`, `directory`, `globals`, `inventory`, `base` or `backup_manifest`. */
  content: z.string().max(40),
  encoding: z.array(z.enum(['zstd', 'age'])),
  /** Of the age header alone: a header that was changed is told from one that is for another key. */
  header_sha256: Sha256.optional(),
});
export type Payload = z.infer<typeof Payload>;

const Lsn = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/);
const Segment = z.string().regex(/^[0-9A-F]{24}$/);

/** What every manifest holds. */
const common = {
  schema: z.literal(MANIFEST_SCHEMA),
  id: z.string().regex(ID),
  source_id: z.string().max(200),
  trigger: z.enum(['manual', 'safety', 'schedule']),
  label: z.string().max(200).optional(),
  description: z.string().max(1000).optional(),
  operation_id: z.string().max(200).optional(),
  started_at: Instant,
  /** The moment of the data; of a physical backup, the first moment that it can be recovered to. */
  snapshot_at: Instant,
  finished_at: Instant,
  duration_ms: Count,
  server: z.looseObject({
    version: z.string().max(100),
    version_num: Count,
    system_identifier: z.string().max(40).nullable(),
    in_recovery: z.boolean(),
    /** The database that was dumped; of a physical backup, the one that the entity names. */
    database: z.string().min(1).max(63),
    /** Of a physical backup, the size of all databases. */
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
  /** What this backup does not hold, in our own words. */
  warnings: z.array(z.string().max(500)).max(50),
};

const tools = { holdfast: z.string().max(60), node: z.string().max(60), zstd_level: z.number().int() };

/** A dump of one database: one stream (`logical`) or a tar of a directory written in parallel (`logical_dir`). */
const LogicalManifest = z.looseObject({
  ...common,
  kind: z.enum(['logical', 'logical_dir']),
  tools: z.looseObject({ ...tools, pg_dump: z.string().max(60) }),
  inventory: z.looseObject({
    tables: Count,
    rows_total: Count,
    fingerprint: Sha256,
    schema_sha256: Sha256,
    fingerprint_algorithm: z.string().max(60),
    /** Tables with a count only, being larger than the entity's limit. */
    counted_only: Count,
  }),
});
export type LogicalManifest = z.infer<typeof LogicalManifest>;

/** The data directory of a whole server, with the write-ahead log that makes it consistent. */
const PhysicalManifest = z.looseObject({
  ...common,
  kind: z.literal('physical'),
  /** The backup that an incremental one rests on; absent for a full one. */
  parent_id: z.string().regex(ID).optional(),
  tools: z.looseObject({ ...tools, pg_basebackup: z.string().max(60) }),
  wal: z.looseObject({
    timeline: z.number().int().positive(),
    start_lsn: Lsn,
    /** From here on the copy is consistent: no recovery target may lie before it. */
    end_lsn: Lsn,
    start_segment: Segment,
    end_segment: Segment,
    segment_size: z.number().int().positive(),
    /** Whether the segments from start to end are inside the backup, so that it can be restored without an archive. */
    included: z.boolean(),
  }),
  /** Where the server has tablespaces, `base` is a tar of tars, one for each and `base.tar`; absent without any. */
  tablespaces: z
    .array(z.object({ oid: z.number().int().positive(), location: z.string().max(1024) }))
    .max(500)
    .optional(),
});
export type PhysicalManifest = z.infer<typeof PhysicalManifest>;

/** What stands beside every backup and makes it one. It holds no names of tables and no secrets. */
export const Manifest = z.discriminatedUnion('kind', [LogicalManifest, PhysicalManifest]);
export type Manifest = z.infer<typeof Manifest>;
export type BackupKind = Manifest['kind'];

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

/** Keeps a backup from being deleted; beside the backups, so that it holds for every machine. */
export const Hold = z.looseObject({
  schema: z.literal('holdfast.pg.hold/1'),
  backup_id: z.string().regex(ID),
  reason: z.string().max(500),
  /** Who asked for it, as far as is known. */
  by: z.string().max(200).optional(),
  /** Empty where the record cannot be read. */
  held_at: z.union([Instant, z.literal('')]),
});
export type Hold = z.infer<typeof Hold>;

/** Says that a backup is being restored, verified or built upon, until a moment after which whoever said so has died. */
export const Use = z.looseObject({
  schema: z.literal('holdfast.pg.use/1'),
  backup_id: z.string().regex(ID),
  purpose: z.string().max(200),
  since: Instant,
  expires_at: Instant,
});
export type Use = z.infer<typeof Use>;

/** Makes an id from the time, the kind and six random bytes. */
export function newBackupId(now: Date, random: Uint8Array, kind: BackupKind = 'logical'): string {
  const time = now.toISOString().replace(/[-:]|\.\d+/g, '');
  const letters = [...random.subarray(0, 6)].map((byte) => '0123456789abcdefghijklmnopqrstuvwxyz'[byte % 36]).join('');
  return `${time}-${kind}-${letters}`;
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

/** Reads a record about a backup, a verification or a hold; undefined for one that is damaged or about another. */
export function parseRecord<T extends { readonly backup_id: string }>(
  schema: z.ZodType<T>,
  bytes: Uint8Array,
  id: string,
): T | undefined {
  try {
    const record = parse(schema, bytes, 'a record about this backup');
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

/** Tells whether a backup is a dump of one database. */
export function isLogical<B extends { readonly manifest: Manifest }>(
  backup: B,
): backup is B & { readonly manifest: LogicalManifest } {
  return backup.manifest.kind !== 'physical';
}

/** Tells whether a backup is a copy of a whole server. */
export function isPhysical<B extends { readonly manifest: Manifest }>(
  backup: B,
): backup is B & { readonly manifest: PhysicalManifest } {
  return backup.manifest.kind === 'physical';
}

/**
 * Gives a backup as the dump of one database.
 * @throws {HoldfastError} INVALID_PARAMETER for a copy of a whole server
 */
export function assertLogical<B extends { readonly manifest: Manifest }>(
  backup: B,
): B & { readonly manifest: LogicalManifest } {
  if (isLogical(backup)) return backup;
  throw new HoldfastError('INVALID_PARAMETER', 'this is a physical backup, a copy of the whole server', {
    hint: 'It comes back into a new data directory only; for one database use a logical backup.',
  });
}

/** What a backup is called in `type` of create-snapshot: `logical`, `full` or `incr`. */
export function typeOf(manifest: Manifest): 'logical' | 'full' | 'incr' {
  if (manifest.kind !== 'physical') return 'logical';
  return manifest.parent_id === undefined ? 'full' : 'incr';
}

/** Gives the file of a manifest with this content. */
export function payloadOf(
  manifest: Manifest,
  content: 'dump' | 'directory' | 'globals' | 'inventory' | 'base' | 'backup_manifest',
): Payload {
  const found = manifest.payload.find((payload) => payload.content === content);
  if (!found) throw damaged(`this backup has no ${content}`);
  return found;
}

/** Gives the file that holds the data itself. */
export function dataOf(manifest: Manifest): Payload {
  return payloadOf(
    manifest,
    manifest.kind === 'physical' ? 'base' : manifest.kind === 'logical_dir' ? 'directory' : 'dump',
  );
}
