import { chown, lchown, mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import { cleanText } from '../core/text.ts';
import { type Binaries, chooseBinaries, findBinaries } from './binaries.ts';
import { runChild, startChild } from './child.ts';
import { openSession } from './connection.ts';
import { type CopyServerOptions, copyAccount, findServerOf, startCopyServer } from './copy-server.ts';
import { damaged } from './errors.ts';
import { type PhysicalManifest, payloadOf } from './manifest.ts';
import { findProgram } from './physical.ts';
import { assertRoom } from './scratch.ts';
import { type Account, unpackTar } from './tar.ts';
import { assertKeyFits, checkStored, counted, openPayload } from './verify.ts';
import type { Work } from './work.ts';

/** Room in a scratch directory: what is in a copy, twice where several are combined into one. */
export function roomFor(chain: readonly PhysicalManifest[]): number {
  const unpacked = chain.reduce((sum, manifest) => sum + payloadOf(manifest, 'base').plain_bytes, 0);
  return chain.length === 1 ? unpacked : unpacked + Math.max(...chain.map((one) => one.server.database_size_bytes));
}

/** Gives the major version whose server alone starts on a copy. */
export function majorOf(manifest: PhysicalManifest): number {
  return Math.floor(manifest.server.version_num / 10_000);
}

/**
 * Finds pg_verifybackup for a backup: of its own version where there is one, as no other can parse its write-ahead log.
 * @throws {HoldfastError} NOT_SUPPORTED with the package to install
 */
export async function verifierOf(
  manifest: PhysicalManifest,
  binDir?: string,
): Promise<{ program: string; version: string; binaries: Binaries; exact: boolean }> {
  const found = await findBinaries(binDir);
  const exact = found.find(({ major }) => major === majorOf(manifest));
  const binaries = exact ?? chooseBinaries(found, majorOf(manifest), binDir);
  return { ...(await findProgram(binaries, 'pg_verifybackup', binDir)), binaries, exact: exact !== undefined };
}

/** An unpacked data directory that a server can be started on. */
export interface Unpacked {
  readonly data: string;
  readonly account: Account | undefined;
  /** Whether its write-ahead log has been parsed as well, which programs of its own version alone can. */
  readonly walParsed: boolean;
}

/**
 * Unpacks a physical backup, with everything that it rests on, into a directory that does not exist yet, and holds each part
 * against the list of files that the server made of it. The data directory is `data` in there, tablespaces are in
 * `tablespaces`: none of it points to the source any more, and nothing makes it follow another server.
 * @throws {HoldfastError} INTEGRITY_FAILED, QUOTA_EXCEEDED, NOT_SUPPORTED without the programs
 */
export async function unpackBackup(
  work: Work,
  /** The full backup first, the one that is wanted last. */
  chain: readonly PhysicalManifest[],
  directory: string,
  binDir?: string,
): Promise<Unpacked> {
  const wanted = chain.at(-1)!;
  const account = await copyAccount();
  const parent = dirname(directory);
  await assertRoom(parent, roomFor(chain), 'A physical backup is unpacked there.');
  // Not over what somebody else has put there.
  await mkdir(directory, { mode: 0o700 });
  await own(directory, account);
  const { program, binaries, exact } = await verifierOf(wanted, binDir);
  const verify = async (data: string, wal: boolean): Promise<void> => {
    work.progress({ message: 'Holding every file against the list of the server' });
    await runChild(program, [...(wal ? [] : ['-n']), '-q', data], programs(work, account));
  };

  const walParsed = exact && wanted.wal.included;
  const data = join(directory, 'data');
  if (chain.length === 1) {
    await unpackOne(work, wanted, data, join(directory, 'tablespaces'), account);
    await verify(data, walParsed);
  } else {
    const parts: string[] = [];
    const moves: string[] = [];
    for (const [index, manifest] of chain.entries()) {
      const part = join(directory, 'parts', String(index));
      const spaces = join(directory, 'parts', `${index}-tablespaces`);
      await own(join(directory, 'parts'), account);
      await unpackOne(work, manifest, part, spaces, account);
      await verify(part, walParsed && manifest === wanted);
      parts.push(part);
    }
    for (const { oid } of wanted.tablespaces ?? []) {
      const from = join(directory, 'parts', `${chain.length - 1}-tablespaces`, String(oid));
      moves.push(`--tablespace-mapping=${from}=${join(directory, 'tablespaces', String(oid))}`);
    }
    if (moves.length > 0) await own(join(directory, 'tablespaces'), account);
    const combiner = await findProgram(binaries, 'pg_combinebackup', binDir);
    work.progress({ message: `Combining ${chain.length} backups` });
    // The server that starts on it brings everything to the disk before it replays: once is enough.
    await runChild(combiner.program, ['--no-sync', ...moves, `--output=${data}`, ...parts], programs(work, account));
    await rm(join(directory, 'parts'), { recursive: true, force: true });
    await verify(data, walParsed);
  }
  await settle(wanted, data, join(directory, 'tablespaces'), account);
  return { data, account, walParsed };
}

async function unpackOne(
  work: Work,
  manifest: PhysicalManifest,
  data: string,
  tablespaces: string,
  account: Account | undefined,
): Promise<void> {
  await own(data, account);
  const payload = payloadOf(manifest, 'base');
  const content = counted(work, openPayload(work, manifest, payload), payload.plain_bytes, 'Unpacking the server');
  const spaces = manifest.tablespaces ?? [];
  if (spaces.length === 0) {
    await unpackTar(content, data, account);
    return;
  }
  await own(tablespaces, account);
  for (const { oid } of spaces) await own(join(tablespaces, String(oid)), account);
  await unpackTar(content, data, account, (name, inner) => {
    if (name === 'base.tar') return unpackTar(inner, data, account);
    const space = spaces.find(({ oid }) => name === `${oid}.tar`);
    return space === undefined ? undefined : unpackTar(inner, join(tablespaces, String(space.oid)), account);
  });
  for (const { oid } of spaces) {
    const link = join(data, 'pg_tblspc', String(oid));
    await symlink(join(tablespaces, String(oid)), link);
    if (account) await lchown(link, account.uid, account.gid);
  }
}

/**
 * Makes a verified copy a server of its own. As it came, `tablespace_map` leads to the files that the source works on, and
 * a copy of a standby would follow the same primary.
 */
async function settle(
  { tablespaces = [] }: PhysicalManifest,
  data: string,
  directory: string,
  account: Account | undefined,
): Promise<void> {
  for (const name of ['standby.signal', 'recovery.signal', 'recovery.conf', 'postmaster.pid', 'postmaster.opts']) {
    await rm(join(data, name), { force: true });
  }
  const map = join(data, 'tablespace_map');
  await rm(map, { force: true });
  const lines = tablespaces.map(({ oid }) => `${oid} ${join(directory, String(oid)).replace(/[\\\n\r]/g, '\\$&')}\n`);
  await writeFile(map, lines.join(''), { mode: 0o600 });
  if (account) await chown(map, account.uid, account.gid);
}

async function own(directory: string, account: Account | undefined): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  if (account) await chown(directory, account.uid, account.gid);
}

function programs(work: Work, account: Account | undefined) {
  return { env: { LC_ALL: 'C', TZ: 'UTC' }, account, signal: work.signal };
}

/** Level `readable`: every part opens with our key and is, unpacked, what the server's own list of files says. */
export async function checkPhysicalReadable(
  work: Work,
  chain: readonly PhysicalManifest[],
  directory: string,
  binDir?: string,
): Promise<{ numbers: Record<string, number>; unpacked: Unpacked }> {
  let files = 0;
  let stored_bytes = 0;
  for (const manifest of chain) {
    const numbers = await checkStored(work, manifest);
    files += numbers['files'] ?? 0;
    stored_bytes += numbers['stored_bytes'] ?? 0;
    await assertKeyFits(work, manifest);
    const list = payloadOf(manifest, 'backup_manifest');
    for await (const _ of openPayload(work, manifest, list)) work.signal?.throwIfAborted();
  }
  const unpacked = await unpackBackup(work, chain, directory, binDir);
  return {
    numbers: {
      files,
      stored_bytes,
      backups: chain.length,
      plain_bytes: chain.reduce((sum, manifest) => sum + payloadOf(manifest, 'base').plain_bytes, 0),
      wal_parsed: unpacked.walParsed ? 1 : 0,
    },
    unpacked,
  };
}

/** Level `restored`: a server starts on the copy and recovers to consistency; every database opens, every table and index is read. */
export async function checkPhysicalRestored(
  work: Work,
  chain: readonly PhysicalManifest[],
  directory: string,
  binDir?: string,
): Promise<Record<string, number>> {
  const manifest = chain.at(-1)!;
  const binaries = await findServerOf(majorOf(manifest), binDir);
  const { numbers, unpacked } = await checkPhysicalReadable(work, chain, directory, binDir);
  const superuser = manifest.server['superuser'];
  const found = await checkCopy(work, {
    ...unpacked,
    binaries,
    superuser: typeof superuser === 'string' ? superuser : 'postgres',
    database: manifest.server.database,
    // The copy is thrown away.
    settings: { fsync: 'off', full_page_writes: 'off' },
  });
  return { ...numbers, ...found };
}

/** Whoever waits for a check. */
type Watched = Pick<Work, 'signal' | 'progress'>;

/** Starts a server on a copy, opens every database of it and reads every table and index. */
export async function checkCopy(work: Watched, options: CopyServerOptions): Promise<Record<string, number>> {
  work.progress({ message: 'Starting a server on the copy' });
  const server = await startCopyServer(options);
  try {
    await server.ready(work.signal);
    const looked = await lookAround(work, server.connection);
    return { ...looked, ...(await amcheck(work, server.connection, options.binaries)) };
  } finally {
    await server.stop();
  }
}

/** Opens every database of a copy and counts what is in it. */
async function lookAround(
  work: Watched,
  connection: Parameters<typeof openSession>[0],
): Promise<{ databases: number; tables: number; indexes: number }> {
  const names = await withDatabase(work, connection, async (query) => {
    const found = await query<{ name: string }>(
      'SELECT datname::text AS name FROM pg_database WHERE datallowconn ORDER BY 1',
    );
    return found.map(({ name }) => name);
  });
  let tables = 0;
  let indexes = 0;
  for (const database of names) {
    work.progress({ message: 'Opening every database of the copy' });
    await withDatabase(work, { ...connection, database }, async (query) => {
      const [row] = await query<{ tables: string; indexes: string }>(
        "SELECT count(*) FILTER (WHERE relkind IN ('r', 'm'))::text AS tables, count(*) FILTER (WHERE relkind = 'i')::text AS indexes FROM pg_class",
      );
      tables += Number(row?.tables ?? 0);
      indexes += Number(row?.indexes ?? 0);
    });
  }
  return { databases: names.length, tables, indexes };
}

async function withDatabase<T>(
  work: Watched,
  connection: Parameters<typeof openSession>[0],
  use: (query: Awaited<ReturnType<typeof openSession>>['query']) => Promise<T>,
): Promise<T> {
  const session = await openSession(connection, work.signal);
  try {
    return await use(session.query);
  } catch (cause) {
    // A statement that only reads fails on a server of our own: the copy is what is wrong, unless we were told to stop.
    if (cause instanceof HoldfastError && cause.code === 'INVALID_STATE') {
      throw damaged('a database of the copy cannot be read', cause);
    }
    throw cause;
  } finally {
    await session.close();
  }
}

/** Reads every table and index with pg_amcheck; says so where this machine lacks it. */
async function amcheck(
  work: Watched,
  connection: Parameters<typeof openSession>[0],
  binaries: Binaries,
): Promise<{ amcheck: number }> {
  const available = await withDatabase(work, connection, (query) =>
    query("SELECT FROM pg_available_extensions WHERE name = 'amcheck'"),
  );
  const tool = await findProgram(binaries, 'pg_amcheck').catch(() => undefined);
  if (available.length === 0 || tool === undefined) return { amcheck: 0 };
  work.progress({ message: 'Reading every table and index of the copy' });
  const { host, port, user } = connection;
  const child = startChild(tool.program, ['--all', '--install-missing', '--no-password', '--jobs=2'], {
    env: { PGHOST: host, PGPORT: String(port), PGUSER: user, LC_ALL: 'C', TZ: 'UTC' },
    signal: work.signal,
  });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    if (text.length < 100_000) text += chunk;
  });
  const { code } = await child.ended;
  // 2: it has read everything and found corruption.
  if (code === 2) {
    throw new HoldfastError('INTEGRITY_FAILED', 'pg_amcheck found damaged tables or indexes in the copy', {
      hint: 'The files are what the server sent, so the server itself may be damaged: look at it with pg_amcheck too, and keep older backups.',
      details: {
        problems: text
          .split('\n')
          .filter((line) => line !== '')
          .slice(0, 20)
          .map((line) => cleanText(line, 200)),
      },
    });
  }
  await child.succeed();
  return { amcheck: 1 };
}
