import { rm } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { HoldfastError } from '../core/errors.ts';
import { type Binaries, chooseBinaries, findBinaries } from './binaries.ts';
import { runChild, startChild } from './child.ts';
import { openSession, type Session } from './connection.ts';
import { type DirectoryDump, dumpToDirectory, tarOfDump } from './directory.ts';
import { damaged } from './errors.ts';
import { type Inventory, readInventory, readSchemaText, summarise } from './inventory.ts';
import { type LogicalManifest, MANIFEST_SCHEMA, type Manifest, type Payload } from './manifest.ts';
import { storeSealed } from './pack.ts';
import { backupScratch } from './scratch.ts';
import { probe, type Sealing } from './seal.ts';
import { assertReadsEverything, readServer, type ServerFacts, USER_RELATION } from './server.ts';
import { meter, type Work, withPrograms } from './work.ts';
import { requireZstd } from './zstd.ts';

export interface BackupRequest {
  readonly id: string;
  readonly trigger: Manifest['trigger'];
  readonly label?: string | undefined;
  readonly description?: string | undefined;
  readonly operationId?: string | undefined;
  readonly sealing: Sealing;
  /** Of zstd. */
  readonly level: number;
  readonly binDir?: string | undefined;
  /** The version of Holdfast. */
  readonly version: string;
  /** Names the source for people who find its folder. */
  readonly sourceName: string;
  /** Dumps with so many connections, through a directory below this one. */
  readonly parallel?: { readonly jobs: number; readonly scratch: string } | undefined;
  /** Keeps the hashes of the passwords of roles too. */
  readonly rolePasswords?: boolean | undefined;
}

/** The advisory lock that keeps two backups of one source apart; a crash frees it. */
export const BACKUP_LOCK = 'holdfast:backup:';

/**
 * Checks everything that can stop a backup, before anything is written.
 * @throws {HoldfastError} NOT_SUPPORTED, INSUFFICIENT_PERMISSIONS, CONFIG_INVALID and what a connection can throw
 */
export async function preflightBackup(
  session: Session,
  request: Pick<BackupRequest, 'binDir' | 'sealing'>,
  work: Pick<Work, 'keys'>,
): Promise<{ server: ServerFacts; binaries: Binaries; opens: Awaited<ReturnType<typeof probe>> }> {
  requireZstd();
  const server = await readServer(session);
  const binaries = chooseBinaries(await findBinaries(request.binDir), server.major, request.binDir);
  await assertReadsEverything(session, server);
  return { server, binaries, opens: await probe(request.sealing, work.keys) };
}

/**
 * Takes a logical backup: `pg_dump`, compressed, sealed and stored while it is read, with an inventory of the same moment.
 * It exists once its manifest does, which is the last write. After any failure nothing of it is left.
 */
export async function takeLogicalBackup(work: Work, request: BackupRequest): Promise<LogicalManifest> {
  const session = await openSession(work.connection, work.signal);
  try {
    const { server, binaries } = await preflightBackup(session, request, work);
    return await asOnlyBackup(work, request.id, session, () => write(work, request, session, server, binaries));
  } finally {
    await session.close();
  }
}

/**
 * Writes a backup while holding the lock of its source in the session; after any failure nothing of it is left.
 * @throws {HoldfastError} INVALID_STATE while another backup of the source runs
 */
export async function asOnlyBackup<T>(
  { repository, runtime }: Pick<Work, 'repository' | 'runtime'>,
  id: string,
  session: Session,
  write: () => Promise<T>,
): Promise<T> {
  const [lock] = await session.query<{ free: boolean }>(
    'SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS free',
    [`${BACKUP_LOCK}${repository.sourceId}`],
  );
  if (!lock?.free) {
    throw new HoldfastError('INVALID_STATE', 'another backup of this database is running', {
      hint: 'Wait until it is over, then call again.',
    });
  }
  try {
    return await write();
  } catch (cause) {
    runtime.assertMayWrite('removing an unfinished backup');
    await repository.remove(id).catch((fault) => {
      runtime.log.warn('an unfinished backup could not be removed', { id, reason: String(fault) });
    });
    throw cause;
  }
}

async function write(
  work: Work,
  request: BackupRequest,
  session: Session,
  server: ServerFacts,
  binaries: Binaries,
): Promise<LogicalManifest> {
  const { parallel } = request;
  if (parallel === undefined) return writeFrom(work, request, session, server, binaries, undefined);
  const directory = backupScratch(parallel.scratch, request.id);
  try {
    return await writeFrom(work, request, session, server, binaries, { jobs: parallel.jobs, directory });
  } finally {
    await rm(directory, { recursive: true, force: true, maxRetries: 5 });
  }
}

async function writeFrom(
  work: Work,
  request: BackupRequest,
  session: Session,
  server: ServerFacts,
  binaries: Binaries,
  directory: DirectoryDump | undefined,
): Promise<LogicalManifest> {
  const { repository, runtime, connection } = work;
  const startedAt = runtime.now();
  const warnings: string[] = [];
  const source = await repository.source();
  if (source?.system_identifier && server.system_identifier && source.system_identifier !== server.system_identifier) {
    warnings.push('the server is another one than at the first backup of this source');
  }

  const [subscriptions] = await session.query<{ count: string }>(
    'SELECT count(*)::text AS count FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())',
  );
  if (subscriptions !== undefined && subscriptions.count !== '0') {
    warnings.push(
      `${subscriptions.count} subscriptions of logical replication are left out by restores: set them up again`,
    );
  }

  const putSealed = (
    name: string,
    content: Payload['content'],
    plain: AsyncIterable<Uint8Array>,
    signal: AbortSignal | undefined,
    seen?: (bytes: number) => void,
  ): Promise<Payload> =>
    storeSealed(work, request.id, { name, content }, plain, {
      sealing: request.sealing,
      level: request.level,
      signal,
      seen,
    });

  runtime.assertMayWrite('describing the source of backups');
  await repository.describeSource({
    layout: 'v1',
    name: request.sourceName,
    system_identifier: server.system_identifier,
    created_at: startedAt.toISOString(),
  });

  // One snapshot for the dump and for the inventory: what is counted is exactly what is dumped, under any load.
  await session.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  const [exported] = await session.query<{ snapshot: string; at: string }>(
    `SELECT pg_export_snapshot() AS snapshot, to_char(clock_timestamp(), 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS at`,
  );
  if (!exported) throw new HoldfastError('INTERNAL', 'the server exported no snapshot');
  const { snapshot, at: snapshotAt } = exported;
  const payload: Payload[] = [];
  const inventory = await withPrograms(work, connection, async (options) => {
    // When one of the two fails the other must not run on.
    const stop = new AbortController();
    const signal = work.signal === undefined ? stop.signal : AbortSignal.any([work.signal, stop.signal]);
    // A statement that waits for a lock would not look at a signal.
    stop.signal.addEventListener('abort', () => void session.interrupt(), { once: true });
    const first: { cause?: unknown } = {};
    const failFast = async <T>(part: Promise<T>): Promise<T> => {
      try {
        return await part;
      } catch (cause) {
        if (!('cause' in first)) first.cause = cause;
        stop.abort();
        throw cause;
      }
    };
    const whole = await estimateDump(session, server);
    const args = [`--snapshot=${snapshot}`, '--lock-wait-timeout=30s', '--no-password'];
    const stored = failFast(
      directory === undefined
        ? putSealed(
            'payload.dump',
            'dump',
            startChild(binaries.pgDump, ['-Fc', '-Z0', ...args], { ...options, signal, pieces: true }).output(),
            signal,
            meter(work, whole, 'Data dumped'),
          )
        : (async () => {
            await dumpToDirectory(work, binaries, directory, args, { ...options, signal }, whole);
            const { tar, bytes } = await tarOfDump(directory);
            return putSealed('dir.tar', 'directory', tar, signal, meter(work, bytes, 'Dump stored'));
          })(),
    );
    const counted = failFast(
      (async (): Promise<Inventory> => {
        const found = await readInventory(session, { serverMajor: server.major, maxRows: work.maxRows, signal });
        return { ...found, ...(await readSchemaText(binaries.pgDump, { ...options, signal }, snapshot)) };
      })(),
    );
    const [stream, contents] = await Promise.allSettled([stored, counted]);
    if (stream.status === 'rejected' || contents.status === 'rejected') throw first.cause;
    if (stream.value.plain_bytes === 0) throw damaged('pg_dump ended well and gave an empty dump');
    payload.push(stream.value);
    await session.query('COMMIT');

    // Roles and tablespaces belong to the server, not to the database. Hashes of passwords stay there unless asked for.
    const readGlobals = (passwords: boolean): Promise<string> =>
      runChild(binaries.pgDumpall, ['--globals-only', ...(passwords ? [] : ['--no-role-passwords']), '--no-password'], {
        ...options,
        env: { ...options.env, PGDATABASE: 'postgres' },
      });
    const withoutPasswords = async (): Promise<string> => {
      warnings.push('the hashes of role passwords could not be read and are not in this backup: only a superuser can');
      return readGlobals(false);
    };
    const globals = await readGlobals(request.rolePasswords === true)
      .catch((cause) => {
        if (work.signal?.aborted || request.rolePasswords !== true) throw cause;
        return withoutPasswords();
      })
      .catch((cause) => {
        if (work.signal?.aborted) throw cause;
        warnings.push('roles and tablespaces (globals) could not be read and are not in this backup');
        return undefined;
      });
    if (globals !== undefined) {
      payload.push(await putSealed('globals.sql', 'globals', Readable.from([Buffer.from(globals)]), work.signal));
    }
    return contents.value;
  });

  const summary = summarise(inventory);
  if (summary.counted_only > 0) warnings.push(`${summary.counted_only} large tables were counted, not fingerprinted`);
  const text = Buffer.from(JSON.stringify(inventory));
  payload.push(await putSealed('inventory.json', 'inventory', Readable.from([text]), work.signal));

  const finishedAt = runtime.now();
  const { sealing } = request;
  const manifest: LogicalManifest = {
    schema: MANIFEST_SCHEMA,
    id: request.id,
    source_id: repository.sourceId,
    kind: directory === undefined ? 'logical' : 'logical_dir',
    trigger: request.trigger,
    ...(request.label === undefined ? {} : { label: request.label }),
    ...(request.description === undefined ? {} : { description: request.description }),
    ...(request.operationId === undefined ? {} : { operation_id: request.operationId }),
    started_at: startedAt.toISOString(),
    snapshot_at: snapshotAt,
    finished_at: finishedAt.toISOString(),
    duration_ms: Math.max(0, finishedAt.getTime() - startedAt.getTime()),
    tools: {
      holdfast: request.version,
      node: process.versions.node,
      pg_dump: binaries.version,
      zstd_level: request.level,
      ...(sealing.scheme === 'age' ? { age_format: 'age-encryption.org/v1' } : {}),
    },
    server: describeServer(server),
    payload,
    encryption: describeSealing(sealing),
    inventory: summary,
    warnings,
  };
  work.signal?.throwIfAborted();
  runtime.assertMayWrite('storing the manifest of a backup');
  await repository.commit(manifest);
  return manifest;
}

/** Gives what a manifest says of the server. */
export function describeServer(server: ServerFacts): Manifest['server'] {
  return {
    version: server.version,
    version_num: server.version_num,
    system_identifier: server.system_identifier,
    in_recovery: server.in_recovery,
    database: server.database,
    database_size_bytes: server.database_size_bytes,
    encoding: server.encoding,
    collate: server.collate,
    ctype: server.ctype,
    ...(server.locale_provider === undefined ? {} : { locale_provider: server.locale_provider }),
    ...(server.locale === undefined ? {} : { locale: server.locale }),
    extensions: server.extensions,
    roles_count: server.roles_count,
  };
}

/** Gives what a manifest says of how a backup is closed: public keys, never a secret. */
export function describeSealing(sealing: Sealing): Manifest['encryption'] {
  return {
    scheme: sealing.scheme,
    recipients: 'recipients' in sealing ? [...sealing.recipients] : [],
    passphrase: 'passphrase' in sealing,
  };
}

/** Guesses the size of a dump: tables without indexes and without the catalogues, which an empty database is full of. */
async function estimateDump(session: Session, server: ServerFacts): Promise<number> {
  const [row] = await session.query<{ bytes: string }>(`
    SELECT coalesce(sum(greatest(c.relpages, 0)::int8 + coalesce(t.relpages, 0)), 0) * current_setting('block_size')::int8 AS bytes
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
    WHERE c.relkind = 'r' AND ${USER_RELATION}`);
  const bytes = Number(row?.bytes ?? 0);
  // Tables that were never vacuumed or analysed have no pages there.
  return bytes > 0 ? bytes : server.database_size_bytes;
}
