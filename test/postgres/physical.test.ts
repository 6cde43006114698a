import { execFile, spawn } from 'node:child_process';
import { chown, mkdir, mkdtemp, open, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { type Connection, openSession, withSession } from '../../src/postgres/connection.ts';
import { unpackBackup } from '../../src/postgres/copy.ts';
import { findServerOf, startCopyServer } from '../../src/postgres/copy-server.ts';
import { toProgramError } from '../../src/postgres/errors.ts';
import { type PhysicalManifest, parseManifest } from '../../src/postgres/manifest.ts';
import { copyArguments } from '../../src/postgres/physical.ts';
import { findServerBinaries, type PrivateServer, unprivilegedAccount } from '../../src/postgres/private-server.ts';
import { Repository } from '../../src/postgres/repository.ts';
import type { Work } from '../../src/postgres/work.ts';
import { localStore } from '../../src/storage/local.ts';
import {
  describePostgres,
  type PostgresHarness,
  type PostgresHarnessOptions,
  sql,
  startPostgresHarness,
  startTestServer,
  values,
} from '../support/postgres.ts';
import type { VictimOrders } from '../support/postgres-victim.ts';

const run = promisify(execFile);
/** Long enough for a busy machine. */
const SOON = { timeout: 20_000 };
const victim = fileURLToPath(new URL('../support/postgres-victim.ts', import.meta.url));

it('asks pg_basebackup for a tar with its write-ahead log, and for changes since a list of files', () => {
  expect(copyArguments('ID')).toEqual(
    '-Ft -X fetch -c fast --manifest-checksums=SHA256 --no-password'.split(' ').concat('--label=holdfast ID'),
  );
  expect(copyArguments('ID', '/scratch/parent_manifest').at(-1)).toBe('--incremental=/scratch/parent_manifest');
});

it.each([
  ['FATAL:  no pg_hba.conf entry for replication connection from host "10.0.0.1"', 'INSUFFICIENT_PERMISSIONS'],
  ['FATAL:  number of requested standby connections exceeds max_wal_senders (currently 10)', 'QUOTA_EXCEEDED'],
  ['pg_basebackup: error: checksum error occurred', 'INTEGRITY_FAILED'],
  ['ERROR:  requested WAL segment pg_wal/000000010000000000000002 has already been removed', 'INVALID_STATE'],
  ['ERROR:  WAL summaries are required on timeline 1 from 0/2000028 to 0/4000028', 'INVALID_STATE'],
  ['pg_basebackup: error: incompatible server version 18.4', 'NOT_SUPPORTED'],
  ['pg_basebackup: error: can only write single tablespace to stdout, database has 2', 'INVALID_STATE'],
  ['pg_verifybackup: error: checksum mismatch for file "base/1/2606"', 'INTEGRITY_FAILED'],
])('reads %j as %s', (text, code) => {
  expect(toProgramError('pg_basebackup', { code: 1, signal: null }, text)).toMatchObject({ code });
});

describePostgres('a physical backup', () => {
  let server: PrivateServer;
  let connection: Connection;
  let data: string;
  let archive: string;
  let scratch: string;
  const open_: PostgresHarness[] = [];
  const directories: string[] = [];

  const harness = async (options: Partial<PostgresHarnessOptions> = {}): Promise<PostgresHarness> => {
    const parameters = { scratch_dir: scratch, ...options.parameters };
    const started = await startPostgresHarness({ connection, database: 'shop', ...options, parameters });
    open_.push(started);
    return started;
  };
  /** A directory that the account of the server may use. */
  const fresh = async (): Promise<string> => {
    const path = await mkdtemp(join(tmpdir(), 'hf-phys-'));
    directories.push(path);
    if (process.getuid?.() === 0) {
      const { uid, gid } = await unprivilegedAccount();
      await chown(path, uid, gid);
    }
    return path;
  };
  const repositoryOf = async ({ storage }: PostgresHarness): Promise<Repository> => {
    const [source] = await readdir(join(storage, 'v1'));
    return new Repository(localStore(storage), source!);
  };
  const manifestOf = async (h: PostgresHarness, id: string): Promise<PhysicalManifest> => {
    const { manifest } = await (await repositoryOf(h)).get(id);
    return manifest as PhysicalManifest;
  };
  const workOf = async (h: PostgresHarness): Promise<Work> => ({
    runtime: {
      now: () => new Date(),
      random: (count) => Buffer.alloc(count),
      assertMayWrite: () => {},
      workDirectory: () => fresh(),
      log: { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} } as never,
    },
    connection,
    repository: await repositoryOf(h),
    keys: {},
    maxRows: 0,
    progress: () => {},
  });
  /** What of backups is in a store. */
  const stored = async (storage: string): Promise<string[]> =>
    (await readdir(storage, { recursive: true })).filter((name) => /backups\/./.test(name));
  const leftovers = (): Promise<string[]> => readdir(scratch);

  beforeAll(async () => {
    server = await startTestServer({ max_replication_slots: '4' });
    connection = server.connection;
    data = join(server.directory, 'data');
    archive = await fresh();
    scratch = await fresh();
    await sql(connection, 'postgres', 'CREATE DATABASE shop');
    await sql(
      connection,
      'shop',
      'CREATE TABLE accounts (id int PRIMARY KEY, balance int)',
      'INSERT INTO accounts SELECT i, 0 FROM generate_series(1, 500) i',
      "SELECT pg_create_physical_replication_slot('standby_of_somebody')",
      // All that would do harm on a copy, or keep it from starting. Nothing of it is in force before a restart.
      "ALTER SYSTEM SET archive_mode = 'on'",
      `ALTER SYSTEM SET archive_command = 'touch ${archive}/%f'`,
      "ALTER SYSTEM SET shared_preload_libraries = 'no_such_library'",
      "ALTER SYSTEM SET listen_addresses = '*'",
      "ALTER SYSTEM SET shared_buffers = '4TB'",
    );
    // A copy of a standby would come up as a standby of the same primary.
    await writeFile(join(data, 'standby.signal'), '');
    if (process.getuid?.() === 0) {
      const { uid, gid } = await unprivilegedAccount();
      await chown(join(data, 'standby.signal'), uid, gid);
    }
  });
  afterEach(async () => {
    for (const each of open_.splice(0)) await each.close();
  });
  afterAll(async () => {
    await server?.stop();
    for (const path of directories) await rm(path, { recursive: true, force: true });
  });

  it('is the whole server at one moment while others write, and its copy is nobody else', async () => {
    const h = await harness();
    const stop = new AbortController();
    const writers = [1, 2].map(async (writer) => {
      const session = await openSession({ ...connection, database: 'shop' });
      let written = 0;
      for (; !stop.signal.aborted; written += 1) {
        await session.query('BEGIN');
        await session.query(`UPDATE public.accounts SET balance = balance - 1 WHERE id = ${(written % 200) + 1}`);
        await session.query(
          `UPDATE public.accounts SET balance = balance + 1 WHERE id = ${(written % 200) + 200 + writer}`,
        );
        await session.query('COMMIT');
      }
      await session.close();
      return written;
    });
    const made = await h.call('create-snapshot', { type: 'full', label: 'nightly' });
    stop.abort();
    expect(Math.min(...(await Promise.all(writers)))).toBeGreaterThan(3);
    expect(made).toMatchObject({ status: 'available', restorable: true, provider: { type: 'full', parent_id: null } });
    expect((await h.call('list-snapshots'))['snapshots']).toMatchObject([{ id: made.id, restorable: true }]);
    const info = await h.call('get-backup-info');
    expect(info).toMatchObject({ newest: { id: made.id }, provider: { newest_physical: made.id } });

    const manifest = await manifestOf(h, made.id);
    const { wal, payload, snapshot_at, started_at } = manifest;
    expect(payload.map(({ content }) => content)).toEqual(['base', 'backup_manifest']);
    expect(wal).toMatchObject({ timeline: 1, included: true, segment_size: 16 * 1024 * 1024 });
    expect(
      await values(
        connection,
        'shop',
        `SELECT pg_walfile_name('${wal.start_lsn}') || ' ' || pg_walfile_name('${wal.end_lsn}') || ' ' || ('${wal.end_lsn}'::pg_lsn < pg_current_wal_lsn())`,
      ),
    ).toEqual([`${wal.start_segment} ${wal.end_segment} true`]);
    expect(snapshot_at >= started_at).toBe(true);
    // The slot that kept the write-ahead log went with the session.
    expect(await values(connection, 'shop', 'SELECT slot_name FROM pg_replication_slots')).toEqual([
      'standby_of_somebody',
    ]);

    const directory = join(await fresh(), 'copy');
    const unpacked = await unpackBackup(await workOf(h), [manifest], directory);
    const binaries = await findServerOf(Number(manifest.server.version_num.toString().slice(0, 2)));
    const copy = await startCopyServer({ ...unpacked, binaries, superuser: 'postgres', database: 'shop' });
    try {
      await copy.ready(undefined);
      const [row] = await withSession(copy.connection, undefined, (session) =>
        session.query<Record<string, unknown>>(`SELECT (SELECT sum(balance)::int FROM public.accounts) AS sum,
          (SELECT count(*)::int FROM public.accounts) AS rows, (SELECT max(abs(balance)) > 0 FROM public.accounts) AS written,
          (SELECT count(*)::int FROM pg_replication_slots) AS slots, pg_is_in_recovery() AS following,
          current_setting('archive_mode') AS archiving, current_setting('listen_addresses') AS listening`),
      );
      expect(row).toEqual({
        sum: 0,
        rows: 500,
        written: true,
        slots: 0,
        following: false,
        archiving: 'off',
        listening: '',
      });
    } finally {
      await copy.stop();
    }
    expect(copy.exited()).toBe(true);
    expect(await readdir(archive)).toEqual([]);
  });

  it('is verified by hashes, by the list of the server, and by starting it; a changed byte is found', async () => {
    const h = await harness();
    const { id } = await h.call('create-snapshot', { type: 'full' });
    expect(await h.call('verify-snapshot', { snapshot_id: id, level: 'stored' })).toMatchObject({ passed: true });
    expect(await h.call('verify-snapshot', { snapshot_id: id })).toMatchObject({
      level: 'readable',
      numbers: { wal_parsed: 1, backups: 1 },
    });
    expect(await h.call('verify-snapshot', { snapshot_id: id, level: 'restored' })).toMatchObject({
      passed: true,
      numbers: { databases: 3, amcheck: 1 },
    });
    const { provider } = await h.call('describe-snapshot', { snapshot_id: id });
    expect(provider['verified_at']).toEqual(expect.any(String));
    expect(await leftovers()).toEqual([]);
    expect(await readdir(archive)).toEqual([]);

    // The commands that describe-snapshot gives do the same without us.
    const by = join(await fresh(), 'by-hand');
    const command = String(provider['without_holdfast']);
    expect(command).toMatch(/^mkdir .* && zstd -dc base\.tar\.zst \| tar -x .* && pg_verifybackup .* && pg_ctl start /);
    const folder = join(h.storage, 'v1', (await readdir(join(h.storage, 'v1')))[0]!, 'backups', id);
    const { directory } = await findServerBinaries();
    await run('sh', ['-c', command.replaceAll('NEW_DATA_DIRECTORY', by).replace(/ && pg_ctl.*/, '')], {
      cwd: folder,
      env: { PATH: `${directory}:${process.env['PATH']}` },
    });
    expect(await readFile(join(by, 'PG_VERSION'), 'utf8')).toMatch(/^\d+\n$/);
    await expect(stat(join(by, 'standby.signal'))).rejects.toThrow('ENOENT');

    const file = await open(join(folder, 'base.tar.zst'), 'r+');
    await file.write(Buffer.from([0xff, 0x00, 0xff]), 0, 3, 100_000);
    await file.close();
    for (const level of ['stored', 'restored']) {
      expect(await h.fails('verify-snapshot', { snapshot_id: id, level })).toMatchObject({ code: 'INTEGRITY_FAILED' });
    }
    expect((await h.call('list-snapshots'))['snapshots']).toMatchObject([{ status: 'damaged', restorable: false }]);
    expect(await leftovers()).toEqual([]);
  });

  it('takes a server with tablespaces over a directory, and its copy does not touch those of the source', async () => {
    const place = await fresh();
    await sql(
      connection,
      'shop',
      `CREATE TABLESPACE fast LOCATION '${place}'`,
      'CREATE TABLE elsewhere TABLESPACE fast AS SELECT generate_series(1, 1000) AS id',
    );
    const h = await harness();
    const made = await h.call('create-snapshot', { type: 'full' });
    const manifest = await manifestOf(h, made.id);
    expect(manifest.tablespaces).toMatchObject([{ location: place }]);
    expect(await leftovers()).toEqual([]);
    expect(await h.call('verify-snapshot', { snapshot_id: made.id, level: 'restored' })).toMatchObject({
      passed: true,
    });

    const directory = join(await fresh(), 'copy');
    const { data: copied } = await unpackBackup(await workOf(h), [manifest], directory);
    const { oid } = manifest.tablespaces![0]!;
    expect(await readlink(join(copied, 'pg_tblspc', String(oid)))).toBe(join(directory, 'tablespaces', String(oid)));
    expect(await readFile(join(copied, 'tablespace_map'), 'utf8')).toBe(`${oid} ${directory}/tablespaces/${oid}\n`);

    const by = join(await fresh(), 'by-hand');
    const { provider } = await h.call('describe-snapshot', { snapshot_id: made.id });
    const command = String(provider['without_holdfast'])
      .replaceAll('NEW_DATA_DIRECTORY', by)
      .replaceAll('NEW_TABLESPACES', `${by}-spaces`)
      .replaceAll('TARS', `${by}-tars`)
      .replace(/ && pg_ctl.*/, '');
    await run('sh', ['-c', command], {
      cwd: join(h.storage, 'v1', (await readdir(join(h.storage, 'v1')))[0]!, 'backups', made.id),
      env: { PATH: `${(await findServerBinaries()).directory}:${process.env['PATH']}` },
    });
    expect(await readFile(join(by, 'tablespace_map'), 'utf8')).toBe(`${oid} ${by}-spaces/${oid}\n`);
    await sql(connection, 'shop', 'DROP TABLE elsewhere', 'DROP TABLESPACE fast');
  });

  it('says what is missing before anything is written', async () => {
    await sql(connection, 'shop', "CREATE ROLE copier LOGIN PASSWORD 'copier-pass'");
    const h = await harness({ connection: { ...connection, user: 'copier', password: 'copier-pass' } });
    const lacking = await h.fails('create-snapshot', { type: 'full' });
    expect(lacking).toMatchObject({ code: 'INSUFFICIENT_PERMISSIONS' });
    expect(lacking.message).toContain('REPLICATION');
    await sql(connection, 'shop', 'ALTER ROLE copier REPLICATION');
    const hba = join(data, 'pg_hba.conf');
    const before = await readFile(hba, 'utf8');
    await writeFile(hba, `host replication copier all reject\n${before}`);
    await sql(connection, 'shop', 'SELECT pg_reload_conf()');
    await expect
      .poll(async () => (await h.fails('create-snapshot', { type: 'full' })).hint, SOON)
      .toContain('pg_hba.conf');
    await writeFile(hba, before);
    await sql(connection, 'shop', 'SELECT pg_reload_conf()');
    expect(await stored(h.storage)).toEqual([]);
    // A role with REPLICATION and nothing else is enough.
    await expect
      .poll(() => h.call('create-snapshot', { type: 'full' }).then(({ status }) => status, String), SOON)
      .toBe('available');
    expect((await h.call('create-snapshot', { type: 'full' })).provider['type']).toBe('full');
    expect(await h.fails('create-snapshot', { type: 'physical' })).toMatchObject({ code: 'INVALID_PARAMETER' });

    await sql(connection, 'shop', 'ALTER ROLE copier NOREPLICATION');
    const { warnings } = (await h.call('get-backup-info')) as unknown as { warnings: string[] };
    expect(warnings).toContainEqual(expect.stringMatching(/^A physical backup would fail now .*REPLICATION/));

    // Newer servers know incremental backups, which have tests of their own.
    if (Number.parseInt(server.version, 10) >= 17) return;
    for (const type of ['incr', 'diff']) {
      const refused = await h.fails('create-snapshot', { type });
      expect(refused).toMatchObject({
        code: 'NOT_SUPPORTED',
        message: expect.stringMatching(/17 or newer; this server is 1[3-6]/),
      });
      expect(refused.hint).toMatch(/type: full.*engine: pgbackrest/);
    }
  });

  it('leaves nothing when pg_basebackup is killed or the call is cancelled, and runs alone', async () => {
    const h = await harness();
    const [checkpointer] = await values(
      connection,
      'shop',
      "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'",
    );
    // The copy waits for a checkpoint that does not come.
    process.kill(Number(checkpointer), 'SIGSTOP');
    try {
      const killed = h.fails('create-snapshot', { type: 'full' });
      const pid = await findCopy();
      const seen = await Promise.all(['cmdline', 'environ'].map((file) => readFile(`/proc/${pid}/${file}`, 'utf8')));
      expect(seen.join('\n')).not.toContain(connection.password);
      expect(await h.fails('create-snapshot', { type: 'full' })).toMatchObject({ code: 'INVALID_STATE' });
      expect(await h.fails('create-snapshot')).toMatchObject({ code: 'INVALID_STATE' });
      process.kill(pid, 'SIGKILL');
      expect(await killed).toMatchObject({ code: 'PROVIDER_UNAVAILABLE', message: expect.stringContaining('SIGKILL') });
      expect(await stored(h.storage)).toEqual([]);
      await expect
        .poll(() => values(connection, 'shop', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), SOON)
        .toEqual(['0']);
      const controller = new AbortController();
      const cancelled = h.fails('create-snapshot', { type: 'full' }, { signal: controller.signal });
      await findCopy();
      controller.abort();
      expect(await cancelled).toMatchObject({ code: 'CANCELLED' });
      await expect.poll(() => stored(h.storage), SOON).toEqual([]);
      expect((await h.call('list-snapshots'))['snapshots']).toEqual([]);
    } finally {
      process.kill(Number(checkpointer), 'SIGCONT');
    }
  });

  it('is there once or not at all when Holdfast is killed, and a verification leaves no server behind', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'hf-kill-'));
    directories.push(directory);
    const shared = { storage: join(directory, 'store'), stateDirectory: join(directory, 'state') };
    const die = (orders: Partial<VictimOrders>): Promise<string | null> =>
      new Promise((resolve) => {
        const all = JSON.stringify({ connection, parameters: { scratch_dir: scratch }, ...shared, ...orders });
        const child = spawn(process.execPath, [victim, all], { stdio: 'ignore' });
        child.once('close', (_, signal) => resolve(signal));
      });
    const resume = async (): Promise<{ h: PostgresHarness; operation: JsonObject }> => {
      const h = await harness(shared);
      const [taken] = await h.engine.resume();
      await expect
        .poll(async () => (await h.store.operation(taken!.operation_id))?.ended_at, { timeout: 20_000 })
        .toBeDefined();
      return { h, operation: (await h.store.operation(taken!.operation_id)) as unknown as JsonObject };
    };
    expect(await die({ action: 'create-snapshot', input: { type: 'full' }, dieAtProgress: 'copied' })).toBe('SIGKILL');
    const first = await resume();
    expect(first.operation['status']).toBe('succeeded');
    const [only, ...more] = (await first.h.call('list-snapshots'))['snapshots'] as JsonObject[];
    expect([only?.['status'], more]).toEqual(['available', []]);
    await first.h.close();

    const input = { snapshot_id: String(only!['id']), level: 'restored' };
    expect(await die({ action: 'verify-snapshot', input, dieAtProgress: 'Reading every table' })).toBe('SIGKILL');
    const [left] = await leftovers();
    const pid = Number((await readFile(join(scratch, left!, 'data', 'postmaster.pid'), 'utf8')).split('\n')[0]);
    expect(process.kill(pid, 0)).toBe(true);
    const second = await resume();
    expect(second.operation['status']).toBe('succeeded');
    expect(await leftovers()).toEqual([]);
    // It has ended; the process that adopted it may take a moment to let its number go.
    const alive = (): boolean => {
      try {
        return process.kill(pid, 0);
      } catch {
        return false;
      }
    };
    await expect.poll(alive, SOON).toBe(false);
  });

  it('keeps what incremental backups rest on, and says which cannot be restored without it', async () => {
    const h = await harness();
    const { id } = await h.call('create-snapshot', { type: 'full' });
    const child = `${id.slice(0, -6)}aaaaaa`.replace(/^\d{8}/, '29991231');
    const folder = join(h.storage, 'v1', (await readdir(join(h.storage, 'v1')))[0]!, 'backups');
    const text = JSON.parse(await readFile(join(folder, id, 'manifest.json'), 'utf8')) as JsonObject;
    await mkdir(join(folder, child));
    const manifest = { ...text, id: child, parent_id: id, snapshot_at: new Date().toISOString() };
    parseManifest(Buffer.from(JSON.stringify(manifest)), child);
    await writeFile(join(folder, child, 'manifest.json'), JSON.stringify(manifest));

    expect(await h.fails('delete-snapshot', { snapshot_id: id })).toMatchObject({
      code: 'INVALID_STATE',
      hint: expect.stringContaining(child),
    });
    const { provider } = await h.call('describe-snapshot', { snapshot_id: child });
    expect(provider).toMatchObject({ type: 'incr', parent_id: id, rests_on: [id] });
    expect(provider['without_holdfast']).toContain(`pg_combinebackup -o NEW_DATA_DIRECTORY PARTS/${id} PARTS/${child}`);
    await rm(join(folder, id), { recursive: true });
    expect((await h.call('list-snapshots'))['snapshots']).toMatchObject([{ id: child, restorable: false }]);
    expect(await h.fails('verify-snapshot', { snapshot_id: child })).toMatchObject({ code: 'INTEGRITY_FAILED' });
  });

  it('finds pages that the server itself has damaged, when the copy is started', async () => {
    await sql(connection, 'shop', 'CREATE TABLE broken AS SELECT generate_series(1, 1000) AS id', 'CHECKPOINT');
    const [path] = await values(connection, 'shop', "SELECT pg_relation_filepath('broken')");
    const file = await open(join(data, path!), 'r+');
    // In the first row's header.
    await file.write(Buffer.alloc(200, 0x5a), 0, 200, 7_900);
    await file.close();
    const h = await harness();
    const { id } = await h.call('create-snapshot', { type: 'full' });
    const error = await h.fails('verify-snapshot', { snapshot_id: id, level: 'restored' });
    expect(error).toMatchObject({ code: 'INTEGRITY_FAILED', message: expect.stringContaining('pg_amcheck') });
    expect(JSON.stringify(error.details)).toContain('broken');
    await sql(connection, 'shop', 'DROP TABLE broken');
  });

  /** The running pg_basebackup of this process, once there is one. */
  async function findCopy(): Promise<number> {
    for (;;) {
      for (const name of await readdir('/proc')) {
        if (!/^\d+$/.test(name)) continue;
        const [status, command] = await Promise.all(
          ['status', 'cmdline'].map((part) => readFile(`/proc/${name}/${part}`, 'utf8').catch(() => '')),
        );
        if (command!.includes('pg_basebackup') && status!.includes(`PPid:\t${process.pid}\n`)) {
          if (!command!.includes('--version')) return Number(name);
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
});
