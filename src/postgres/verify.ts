import { buffer } from 'node:stream/consumers';
import { HoldfastError } from '../core/errors.ts';
import { cleanText } from '../core/text.ts';
import { type Binaries, chooseBinaries, findBinaries } from './binaries.ts';
import { damaged } from './errors.ts';
import { whileInUse } from './in-use.ts';
import { assertEqual, compareInventories, type Inventory, parseInventory, summarise } from './inventory.ts';
import {
  dataOf,
  type LogicalManifest,
  type Manifest,
  type Payload,
  payloadOf,
  type Verification,
  type VerifyLevel,
} from './manifest.ts';
import type { Backup } from './repository.ts';
import { assertOpens, type ClosedFor, Tally, unseal } from './seal.ts';
import { meter, type Work } from './work.ts';

const INVENTORY_LIMIT = 512 * 1024 * 1024;

/** Gives the major version that can read a dump. */
export function readerMajor(manifest: LogicalManifest): number {
  const tool = Number.parseInt(manifest.tools.pg_dump, 10);
  return Math.max(Math.floor(manifest.server.version_num / 10_000), Number.isNaN(tool) ? 0 : tool);
}

/** Finds the client programs that read the dump of a backup, and write to a server of this major version where one is given. */
export async function readerBinaries(manifest: LogicalManifest, binDir?: string, serverMajor = 0): Promise<Binaries> {
  return chooseBinaries(await findBinaries(binDir), Math.max(readerMajor(manifest), serverMajor), binDir);
}

/**
 * Opens one file of a backup. At the end of the stream its size and hash have been held against the manifest.
 * @throws {HoldfastError} INTEGRITY_FAILED while reading, AUTHENTICATION_FAILED where no key fits
 */
export async function* openPayload(work: Work, manifest: Manifest, payload: Payload): AsyncGenerator<Uint8Array> {
  const stored = new Tally();
  const plain = new Tally();
  const source = await openStored(work, manifest, payload);
  try {
    const { signal } = work;
    for await (const chunk of plain.tap(
      unseal(stored.tap(source), payload.encoding.includes('age'), work.keys, closedFor(manifest, payload)),
    )) {
      signal?.throwIfAborted();
      yield chunk;
    }
  } finally {
    source.destroy();
  }
  if (plain.bytes !== payload.plain_bytes || plain.sha256 !== payload.plain_sha256) {
    throw damaged(`the content of ${payload.name} is not what the manifest says`);
  }
}

async function openStored(work: Work, manifest: Manifest, { name, bytes }: Payload) {
  const { store } = work.repository;
  const key = work.repository.key(manifest.id, name);
  const found = await store.head(key);
  if (!found) throw damaged(`${name} of this backup is missing`);
  // Also what stands behind the end of a stream, where its reader would never look.
  if (found.size_bytes !== bytes) throw damaged(`${name} has ${found.size_bytes} bytes instead of ${bytes}`);
  return store.get(key);
}

/**
 * Makes sure that the key of this machine opens a backup, reading only a header.
 * @throws {HoldfastError} AUTHENTICATION_FAILED for the wrong key, INTEGRITY_FAILED where the right one does not open it
 */
export async function assertKeyFits(work: Work, manifest: Manifest): Promise<void> {
  const payload = dataOf(manifest);
  const source = await openStored(work, manifest, payload);
  try {
    if (!payload.encoding.includes('age')) return;
    await assertOpens(source, work.keys, closedFor(manifest, payload));
  } finally {
    source.destroy();
  }
}

/** Gives what the manifest says of how a file is closed. */
function closedFor({ encryption }: Manifest, { header_sha256 }: Payload): ClosedFor {
  return { recipients: encryption.recipients, headerSha256: header_sha256 };
}

/** Reads the inventory of a backup and holds it against the manifest. */
export async function readStoredInventory(work: Work, manifest: LogicalManifest): Promise<Inventory> {
  const payload = payloadOf(manifest, 'inventory');
  if (payload.plain_bytes > INVENTORY_LIMIT) throw damaged('the inventory of this backup is too large to be one');
  const inventory = parseInventory((await buffer(openPayload(work, manifest, payload))).toString('utf8'));
  const { fingerprint, schema_sha256 } = summarise(inventory);
  if (fingerprint !== manifest.inventory.fingerprint || schema_sha256 !== manifest.inventory.schema_sha256) {
    throw damaged('the inventory of this backup is not what the manifest says');
  }
  return inventory;
}

/** Level `stored`: every file is there, with the size and hash of the manifest. Needs no key. */
export async function checkStored(work: Work, manifest: Manifest): Promise<Record<string, number>> {
  const whole = manifest.payload.reduce((sum, { bytes }) => sum + bytes, 0);
  const seen = meter(work, whole, 'Reading what is stored');
  let done = 0;
  for (const payload of manifest.payload) {
    const tally = new Tally();
    const source = await openStored(work, manifest, payload);
    for await (const _ of tally.tap(source, (bytes) => seen(done + bytes))) {
      work.signal?.throwIfAborted();
    }
    done += tally.bytes;
    if (tally.bytes !== payload.bytes || tally.sha256 !== payload.sha256)
      throw damaged(`${payload.name} has another SHA-256 than the manifest says`);
  }
  return { files: manifest.payload.length, stored_bytes: done };
}

/** Checks everything of a dump but the dump itself: all files as stored, our key, the inventory and the globals. */
export async function checkBesides(work: Work, manifest: LogicalManifest): Promise<Record<string, number>> {
  const numbers = await checkStored(work, manifest);
  await assertKeyFits(work, manifest);
  await readStoredInventory(work, manifest);
  const globals = manifest.payload.find(({ content }) => content === 'globals');
  if (globals) for await (const _ of openPayload(work, manifest, globals)) work.signal?.throwIfAborted();
  return numbers;
}

/** Passes bytes on and reports how far they have come. */
export async function* counted(
  work: Work,
  source: AsyncIterable<Uint8Array>,
  whole: number,
  message: string,
): AsyncGenerator<Uint8Array> {
  const seen = meter(work, whole, message);
  let done = 0;
  for await (const chunk of source) {
    done += chunk.byteLength;
    seen(done);
    yield chunk;
  }
}

/** Compares what a database holds with the inventory of a backup. */
export function compareWith(expected: Inventory, actual: Inventory): Record<string, number> {
  const comparison = compareInventories(expected, actual);
  assertEqual(comparison);
  return { tables: comparison.tables, rows: comparison.rows, notes: comparison.notes.length };
}

/**
 * Runs a check of a backup and keeps its result beside the manifest. Only proven damage is recorded as a failure: a
 * server that is away or a missing key says nothing about the backup.
 * @throws {HoldfastError} INTEGRITY_FAILED, and whatever kept the check from being made
 */
export async function verifyBackup(
  work: Work,
  backup: Backup,
  level: VerifyLevel,
  tools: Readonly<Record<string, string>>,
  check: () => Promise<Record<string, number>>,
): Promise<Verification> {
  const started = work.runtime.now();
  const record = async (passed: boolean, numbers: Record<string, number>, problem?: string): Promise<Verification> => {
    const finished = work.runtime.now();
    const verification: Verification = {
      schema: 'holdfast.pg.verify/1',
      backup_id: backup.manifest.id,
      level,
      passed,
      started_at: started.toISOString(),
      finished_at: finished.toISOString(),
      duration_ms: Math.max(0, finished.getTime() - started.getTime()),
      ...(problem === undefined ? {} : { problem }),
      numbers,
      tools: { node: process.versions.node, ...tools },
    };
    work.runtime.assertMayWrite('storing the result of a verification');
    await work.repository.addVerification(verification);
    return verification;
  };
  let numbers: Record<string, number>;
  try {
    numbers = await whileInUse(work, backup.manifest.id, `verification, level ${level}`, check);
  } catch (cause) {
    if (cause instanceof HoldfastError && cause.code === 'INTEGRITY_FAILED') {
      const details = (cause.details?.['problems'] as string[] | undefined)?.slice(0, 3) ?? [];
      await record(false, {}, cleanText([cause.message, ...details].join('; '), 400)).catch((fault) => {
        work.runtime.log.error('a failed verification could not be recorded', { reason: String(fault) });
      });
    }
    throw cause;
  }
  return record(true, numbers);
}
