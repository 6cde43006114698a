import { createReadStream } from 'node:fs';
import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import { cleanText } from '../core/text.ts';
import { formatBytes } from '../core/time.ts';
import { type Binaries, chooseBinaries, findBinaries } from './binaries.ts';
import { runChild, startChild } from './child.ts';
import { assertReplicates, openSession, type Session } from './connection.ts';
import { asOnlyBackup, type BackupRequest, describeSealing, describeServer } from './dump.ts';
import { damaged } from './errors.ts';
import { whileInUse } from './in-use.ts';
import { MANIFEST_SCHEMA, type Payload, type PhysicalManifest, payloadOf } from './manifest.ts';
import { storeSealed } from './pack.ts';
import { assertRoom, backupScratch } from './scratch.ts';
import { probe } from './seal.ts';
import { readServer, type ServerFacts } from './server.ts';
import { packTar, tapTar } from './tar.ts';
import { assertKeyFits, openPayload } from './verify.ts';
import { parseLsn, Segments } from './wal.ts';
import { percentOf, type Work, withPrograms } from './work.ts';
import { requireZstd } from './zstd.ts';

/** The first version whose server and programs know incremental backups. */
export const FIRST_INCREMENTAL = 17;

export interface PhysicalRequest extends BackupRequest {
  /** Of an incremental backup: finds the one that it holds only the changes since. */
  readonly findParent?: (() => Promise<PhysicalManifest>) | undefined;
  /** Where a server with tablespaces is copied to first; as large as the server. */
  readonly scratch: string;
}

export interface PhysicalFacts {
  /** `database_size_bytes` is that of all databases. */
  readonly server: ServerFacts;
  readonly binaries: Binaries;
  readonly program: string;
  /** `15.18` */
  readonly programVersion: string;
  readonly segmentSize: number;
  readonly tablespaces: readonly { readonly oid: number; readonly location: string }[];
  /** A superuser that can log in, to look at a copy with. */
  readonly superuser: string | undefined;
  readonly opens: Awaited<ReturnType<typeof probe>>;
  readonly parent: PhysicalManifest | undefined;
}

/**
 * Checks everything that can stop a physical backup, before anything is written.
 * @throws {HoldfastError} NOT_SUPPORTED, INSUFFICIENT_PERMISSIONS, INVALID_STATE, QUOTA_EXCEEDED, CONFIG_INVALID
 */
export async function preflightPhysical(
  session: Session,
  work: Work,
  request: Pick<PhysicalRequest, 'binDir' | 'sealing' | 'scratch' | 'findParent'>,
): Promise<PhysicalFacts> {
  requireZstd();
  const one = await readServer(session);
  const incremental = request.findParent !== undefined;
  if (incremental) assertKnowsIncremental(one);
  const binaries = chooseBinaries(await findBinaries(request.binDir), one.major, request.binDir);
  const { program, version } = await findProgram(binaries, 'pg_basebackup', request.binDir);
  const [row] = await session.query<Record<string, string | null>>(`
    SELECT (SELECT (rolreplication OR rolsuper)::text FROM pg_roles WHERE rolname = current_user) AS replication,
      current_setting('wal_level') AS wal_level, current_setting('max_wal_senders') AS senders,
      (SELECT setting FROM pg_settings WHERE name = 'wal_segment_size') AS segment_size,
      current_setting('summarize_wal', true) AS summarize_wal,
      (SELECT rolname::text FROM pg_roles WHERE rolsuper AND rolcanlogin ORDER BY oid LIMIT 1) AS superuser,
      (SELECT sum(CASE WHEN has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')
        THEN pg_database_size(oid) ELSE 0 END)::text FROM pg_database) AS size`);
  if (row?.['replication'] !== 'true') {
    throw new HoldfastError('INSUFFICIENT_PERMISSIONS', 'the role lacks the REPLICATION attribute', {
      hint: 'Physical backups are read as a standby reads. As a superuser run ALTER ROLE … REPLICATION for the role of this entity; a logical backup needs no such right.',
    });
  }
  if (row['wal_level'] === 'minimal') {
    throw new HoldfastError('INVALID_STATE', 'wal_level is minimal, and a server cannot be copied while it runs so', {
      retryable: false,
      hint: 'ALTER SYSTEM SET wal_level = replica, then restart the server (this setting needs it). A logical backup works as it is.',
    });
  }
  if (row['senders'] === '0') {
    throw new HoldfastError('INVALID_STATE', 'max_wal_senders is 0, and a physical backup needs one sender', {
      retryable: false,
      hint: 'ALTER SYSTEM SET max_wal_senders = 10, then restart the server (this setting needs it).',
    });
  }
  if (incremental && row['summarize_wal'] !== 'on') {
    throw new HoldfastError('INVALID_STATE', 'summarize_wal is off, and incremental backups rest on it', {
      retryable: false,
      hint: 'ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf(); no restart is needed. Then take a backup of type full: the next incremental one rests on it.',
    });
  }
  await assertReplicates(work.connection, session, work.signal);
  const tablespaces = (
    await session.query<{ oid: string; location: string }>(
      "SELECT oid::text AS oid, pg_tablespace_location(oid) AS location FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid",
    )
  ).map(({ oid, location }) => ({ oid: Number(oid), location }));
  const size = Number(row['size'] ?? 0);
  if (tablespaces.length > 0) {
    await assertRoom(request.scratch, size, 'A server with tablespaces is copied there before it is stored.');
  }
  const parent = await request.findParent?.();
  if (parent !== undefined) {
    if (parent.server.system_identifier !== one.system_identifier) {
      throw new HoldfastError('INVALID_STATE', `${parent.id} is of another server than this one`, {
        retryable: false,
        hint: 'An incremental backup rests on one of the same server. Take a backup of type full.',
      });
    }
    await assertSummarised(session, parent);
    // The list of files of the parent is sealed as the parent is.
    await assertKeyFits(work, parent);
  }
  return {
    parent,
    server: { ...one, database_size_bytes: size },
    binaries,
    program,
    programVersion: version,
    segmentSize: Number(row['segment_size'] ?? 16_777_216),
    tablespaces,
    superuser: row['superuser'] ?? undefined,
    opens: await probe(request.sealing, work.keys),
  };
}

function assertKnowsIncremental({ major, version }: ServerFacts): void {
  if (major >= FIRST_INCREMENTAL) return;
  throw new HoldfastError(
    'NOT_SUPPORTED',
    `incremental backups need PostgreSQL ${FIRST_INCREMENTAL} or newer; this server is ${cleanText(version, 40)}`,
    {
      hint: 'Use type: full, or set engine: pgbackrest for this entity: pgBackRest makes incremental backups of every version.',
    },
  );
}

/** Makes sure that the server still knows which pages have changed since the parent, as far as our role may see it. */
async function assertSummarised(session: Session, { wal, id }: PhysicalManifest): Promise<void> {
  const [row] = await session
    .query<{ reaches: boolean | null }>(
      'SELECT min(start_lsn) <= $1::pg_lsn AS reaches FROM pg_available_wal_summaries() WHERE tli = $2',
      [wal.start_lsn, wal.timeline],
    )
    .catch(() => []);
  if (row === undefined || row.reaches === true) return;
  throw new HoldfastError('INVALID_STATE', `the server no longer knows what has changed since ${id}`, {
    retryable: false,
    hint: 'Its summaries of the write-ahead log begin later (summarize_wal was off then, or wal_summary_keep_time is over). Take a backup of type full.',
  });
}

/**
 * Finds a program beside the client programs.
 * @throws {HoldfastError} NOT_SUPPORTED naming the package
 */
export async function findProgram(
  binaries: Binaries,
  name: string,
  binDir?: string,
): Promise<{ program: string; version: string }> {
  const program = join(binaries.directory, name);
  const text = await runChild(program, ['--version'], { env: { LC_ALL: 'C' } }, 4096).catch((cause) => {
    throw new HoldfastError('NOT_SUPPORTED', `${name} of PostgreSQL ${binaries.major} is not on this machine`, {
      hint: `Install postgresql-client-${binaries.major} (Debian, Ubuntu), postgresql${binaries.major}-server (Red Hat) or postgresql@${binaries.major} (Homebrew)${binDir === undefined ? '' : ', or point bin_dir at a directory that has it'}.`,
      cause,
    });
  });
  return { program, version: /\d+(\.\d+|devel|beta\d+|rc\d+)?/.exec(text)?.[0] ?? binaries.version };
}

/**
 * Takes a physical backup: `pg_basebackup`, compressed, sealed and stored while it is read, with the write-ahead log that
 * makes the copy consistent inside. It exists once its manifest does, which is the last write. After any failure nothing
 * of it is left.
 */
export async function takePhysicalBackup(work: Work, request: PhysicalRequest): Promise<PhysicalManifest> {
  const session = await openSession(work.connection, work.signal);
  try {
    const facts = await preflightPhysical(session, work, request);
    const take = () => asOnlyBackup(work, request.id, session, () => write(work, request, session, facts));
    const { parent } = facts;
    return await (parent === undefined
      ? take()
      : whileInUse(work, parent.id, `incremental backup ${request.id}`, take));
  } finally {
    await session.close();
  }
}

async function write(
  work: Work,
  request: PhysicalRequest,
  session: Session,
  facts: PhysicalFacts,
): Promise<PhysicalManifest> {
  const { repository, runtime, connection } = work;
  const { server, segmentSize, tablespaces, parent } = facts;
  const startedAt = runtime.now();
  const warnings: string[] = [];
  const source = await repository.source();
  if (source?.system_identifier && server.system_identifier && source.system_identifier !== server.system_identifier) {
    warnings.push('the server is another one than at the first backup of this source');
  }
  runtime.assertMayWrite('describing the source of backups');
  await repository.describeSource({
    layout: 'v1',
    name: request.sourceName,
    system_identifier: server.system_identifier,
    created_at: startedAt.toISOString(),
  });
  if (!(await keepWal(session, request.id))) {
    warnings.push('no replication slot was free to keep the write-ahead log during the backup');
  }

  const scratch = backupScratch(request.scratch, request.id);
  if (tablespaces.length > 0 || parent !== undefined) {
    runtime.assertMayWrite('using the scratch directory');
    await mkdir(request.scratch, { recursive: true });
    await mkdir(scratch, { mode: 0o700 });
  }
  let payload: Copied;
  try {
    payload = await withPrograms(work, connection, async (options) => {
      const list = parent && (await fetchParent(work, parent, scratch));
      const args = copyArguments(request.id, list);
      const copy = { work, request, facts, args, options, scratch };
      return tablespaces.length === 0 ? streamed(copy) : throughDirectory(copy);
    });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
  const [moment] = await session.query<{ at: string }>(
    `SELECT to_char(clock_timestamp(), 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS at`,
  );
  if (!moment) throw new HoldfastError('INTERNAL', 'the server did not tell its time');

  const finishedAt = runtime.now();
  const { sealing } = request;
  const manifest: PhysicalManifest = {
    schema: MANIFEST_SCHEMA,
    id: request.id,
    source_id: repository.sourceId,
    kind: 'physical',
    ...(parent === undefined ? {} : { parent_id: parent.id }),
    trigger: request.trigger,
    ...(request.label === undefined ? {} : { label: request.label }),
    ...(request.description === undefined ? {} : { description: request.description }),
    ...(request.operationId === undefined ? {} : { operation_id: request.operationId }),
    started_at: startedAt.toISOString(),
    snapshot_at: moment.at,
    finished_at: finishedAt.toISOString(),
    duration_ms: Math.max(0, finishedAt.getTime() - startedAt.getTime()),
    tools: {
      holdfast: request.version,
      node: process.versions.node,
      pg_basebackup: facts.programVersion,
      zstd_level: request.level,
      ...(sealing.scheme === 'age' ? { age_format: 'age-encryption.org/v1' } : {}),
    },
    server: {
      ...describeServer(server),
      ...(facts.superuser === undefined ? {} : { superuser: facts.superuser }),
    },
    payload: payload.files,
    encryption: describeSealing(sealing),
    wal: walFacts(payload.ranges, segmentSize),
    ...(tablespaces.length === 0 ? {} : { tablespaces: [...tablespaces] }),
    warnings,
  };
  work.signal?.throwIfAborted();
  runtime.assertMayWrite('storing the manifest of a backup');
  await repository.commit(manifest);
  return manifest;
}

/** The arguments of pg_basebackup, but for where it writes; `parent` is a file with the parent's list of files. */
export function copyArguments(id: string, parent?: string): string[] {
  return [
    '-Ft',
    '-X',
    'fetch',
    '-c',
    'fast',
    '--manifest-checksums=SHA256',
    '--no-password',
    `--label=holdfast ${id}`,
    ...(parent === undefined ? [] : [`--incremental=${parent}`]),
  ];
}

/**
 * Has the server keep its write-ahead log while the session lives: what was written during a long backup is fetched at its
 * end, and under load it would be recycled before. The slot goes with the session.
 */
async function keepWal(session: Session, id: string): Promise<boolean> {
  const name = `holdfast_backup_${id.slice(-6)}`;
  return session.query('SELECT pg_create_physical_replication_slot($1, true, true)', [name]).then(
    () => true,
    () => false,
  );
}

interface WalRange {
  readonly Timeline: number;
  readonly 'Start-LSN': string;
  readonly 'End-LSN': string;
}

interface Copied {
  readonly files: Payload[];
  readonly ranges: readonly WalRange[];
}

interface Copy {
  readonly work: Work;
  readonly request: PhysicalRequest;
  readonly facts: PhysicalFacts;
  readonly args: readonly string[];
  readonly options: Parameters<typeof startChild>[2];
  readonly scratch: string;
}

/** Straight from the server into the store; on its way past, the list of files is taken out of it and stored apart as well. */
async function streamed({ work, request, facts, args, options }: Copy): Promise<Copied> {
  const child = startChild(facts.program, ['-D', '-', ...args], options);
  let list: Promise<{ payload: Payload; ranges: readonly WalRange[] }> | undefined;
  const stream = tapTar(child.output(), ({ name }, content) => {
    if (name !== 'backup_manifest' || list !== undefined) return undefined;
    list = storeList(work, request, content);
    return list.then(() => {});
  });
  let base: Payload;
  try {
    base = await storeSealed(work, request.id, { name: 'base.tar', content: 'base' }, stream, {
      ...request,
      signal: work.signal,
      seen: copied(work, facts),
    });
  } catch (cause) {
    await list?.catch(() => {});
    throw cause;
  }
  if (list === undefined) throw damaged('pg_basebackup ended well and its copy has no backup_manifest');
  const { payload, ranges } = await list;
  return { files: [base, payload], ranges };
}

/** Over a directory: pg_basebackup writes one tar for each tablespace, and a pipe takes one only. */
async function throughDirectory({ work, request, facts, args, options, scratch }: Copy): Promise<Copied> {
  const directory = join(scratch, 'tars');
  work.progress({ message: 'Copying a server with tablespaces to the scratch directory' });
  await runChild(facts.program, ['-D', directory, ...args], options);
  const names = (await readdir(directory)).sort();
  const expected = ['backup_manifest', 'base.tar', ...facts.tablespaces.map(({ oid }) => `${oid}.tar`)].sort();
  if (names.join() !== expected.join()) {
    throw new HoldfastError('INVALID_STATE', 'a tablespace was made or dropped while the server was being copied', {
      hint: 'Nothing of the copy was kept. Call again.',
    });
  }
  const read = (name: string) => createReadStream(join(directory, name), { highWaterMark: 256 * 1024 });
  const { payload, ranges } = await storeList(work, request, read('backup_manifest'));
  const files = await Promise.all(
    names.map(async (name) => ({
      name,
      size: (await stat(join(directory, name))).size,
      read: () => read(name),
    })),
  );
  const base = await storeSealed(work, request.id, { name: 'base.tar', content: 'base' }, packTar(files), {
    ...request,
    signal: work.signal,
    seen: copied(work, facts),
  });
  return { files: [base, payload], ranges };
}

function copied(work: Work, { server }: PhysicalFacts): (bytes: number) => void {
  let shown = -1;
  return (bytes) => {
    const percent = percentOf(bytes, server.database_size_bytes);
    if (percent === undefined || percent === shown) return;
    shown = percent;
    work.progress({ percent, message: `${formatBytes(bytes)} copied` });
  };
}

/** Stores the list of files that pg_basebackup made, and reads from its end where the write-ahead log begins and ends. */
async function storeList(
  work: Work,
  request: PhysicalRequest,
  content: AsyncIterable<Uint8Array>,
): Promise<{ payload: Payload; ranges: readonly WalRange[] }> {
  // The list may be as long as a server has files; what we read stands behind all of them.
  let tail: Buffer = Buffer.alloc(0);
  async function* watched(): AsyncGenerator<Uint8Array> {
    for await (const chunk of content) {
      tail = Buffer.concat([tail, chunk]).subarray(-64 * 1024);
      yield chunk;
    }
  }
  const payload = await storeSealed(
    work,
    request.id,
    { name: 'backup_manifest', content: 'backup_manifest' },
    watched(),
    { ...request, signal: work.signal },
  );
  return { payload, ranges: readRanges(tail.toString('utf8')) };
}

function readRanges(text: string): readonly WalRange[] {
  const found = /"WAL-Ranges"\s*:\s*(\[[^\]]*\])/.exec(text);
  try {
    const ranges = JSON.parse(found?.[1] ?? '') as WalRange[];
    if (ranges.length > 0) return ranges;
  } catch {
    // Said below.
  }
  throw damaged('the list of files of pg_basebackup does not say which write-ahead log it needs');
}

/** A copy of a standby whose primary has changed spans several timelines; it begins on the first and ends on the last. */
function walFacts(ranges: readonly WalRange[], segmentSize: number): PhysicalManifest['wal'] {
  const ordered = ranges.toSorted((a, b) => a.Timeline - b.Timeline);
  const first = ordered[0]!;
  const last = ordered.at(-1)!;
  const segments = new Segments(segmentSize);
  const end = parseLsn(last['End-LSN']);
  return {
    timeline: last.Timeline,
    start_lsn: first['Start-LSN'],
    end_lsn: last['End-LSN'],
    start_segment: segments.name(first.Timeline, segments.of(parseLsn(first['Start-LSN']))),
    // The end is the first byte that is not needed.
    end_segment: segments.name(last.Timeline, segments.of(end > 0n ? end - 1n : 0n)),
    segment_size: segmentSize,
    included: true,
  };
}

/** Writes the parent's list of files where pg_basebackup can read it. */
async function fetchParent(work: Work, parent: PhysicalManifest, scratch: string): Promise<string> {
  const file = join(scratch, 'parent_manifest');
  await writeFile(file, openPayload(work, parent, payloadOf(parent, 'backup_manifest')), { mode: 0o600, flag: 'wx' });
  return file;
}
