import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { chooseBinaries, findBinaries } from '../../src/postgres/binaries.ts';
import { runChild } from '../../src/postgres/child.ts';
import { type Connection, openSession, programEnvironment, type Session } from '../../src/postgres/connection.ts';
import { toProgramError } from '../../src/postgres/errors.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import {
  describePostgres,
  type PostgresHarness,
  type PostgresHarnessOptions,
  SHOP,
  sql,
  startPostgresHarness,
  startTestServer,
  values,
} from '../support/postgres.ts';

/** The running pg_dump of this process, once there is one. */
async function findDump(): Promise<number> {
  for (;;) {
    for (const name of await readdir('/proc')) {
      if (!/^\d+$/.test(name)) continue;
      const [status, command] = await Promise.all(
        ['status', 'cmdline'].map((file) => readFile(`/proc/${name}/${file}`, 'utf8').catch(() => '')),
      );
      if (command!.includes('pg_dump') && command!.includes('-Fc') && status!.includes(`PPid:\t${process.pid}\n`)) {
        return Number(name);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function filesBelow(directory: string): Promise<string[]> {
  return (await readdir(directory, { recursive: true })).filter((name) => /backups\/./.test(name));
}

describePostgres('a logical backup', () => {
  let server: PrivateServer;
  let major: number;
  let connection: Connection;
  const open: PostgresHarness[] = [];
  const harness = async (options: Partial<PostgresHarnessOptions> = {}): Promise<PostgresHarness> => {
    const started = await startPostgresHarness({ connection, database: 'shop', ...options });
    open.push(started);
    return started;
  };

  beforeAll(async () => {
    server = await startTestServer();
    major = Number.parseInt(server.version, 10);
    connection = server.connection;
    await sql(connection, 'postgres', 'CREATE DATABASE shop');
    await sql(connection, 'shop', ...SHOP);
  });
  afterEach(async () => {
    for (const each of open.splice(0)) await each.close();
  });
  afterAll(() => server?.stop());

  it('holds exactly what its inventory says while others write', async () => {
    const { call } = await harness();
    const stop = new AbortController();
    const writers = [1, 2].map(async (writer) => {
      const session = await openSession({ ...connection, database: 'shop' });
      let written = 0;
      while (!stop.signal.aborted) {
        await session.query(
          `INSERT INTO public.orders (note, amount) SELECT 'load', ${writer} FROM generate_series(1, 5)`,
        );
        await session.query(`UPDATE public.orders SET amount = amount + 1 WHERE id % 100 = ${writer}`);
        await session.query("SELECT nextval('public.tickets')");
        written += 1;
      }
      await session.close();
      return written;
    });
    await new Promise((resolve) => setTimeout(resolve, 100));
    const made = await call('create-snapshot');
    await new Promise((resolve) => setTimeout(resolve, 50));
    stop.abort();
    expect(Math.min(...(await Promise.all(writers)))).toBeGreaterThan(3);
    const verified = await call('verify-snapshot', { snapshot_id: made.id, level: 'restored' });
    const [live] = await values(connection, 'shop', 'SELECT count(*) FROM orders');
    expect(verified).toMatchObject({ passed: true, level: 'restored' });
    // What was written after the snapshot is not in it.
    expect(Number(made.provider.rows)).toBeLessThan(Number(live) + 18);
  });

  it('refuses a role that row security would hide rows from, and names the tables', async () => {
    await sql(
      connection,
      'shop',
      'CREATE TABLE secret_rows (id int)',
      'ALTER TABLE secret_rows ENABLE ROW LEVEL SECURITY',
      "CREATE ROLE reader LOGIN PASSWORD 'reader-pass'",
    );
    const reader = { ...connection, user: 'reader', password: 'reader-pass' };
    const { call, fails, storage } = await harness({ connection: reader });
    const unreadable = await fails('create-snapshot');
    expect(unreadable).toMatchObject({ code: 'INSUFFICIENT_PERMISSIONS' });
    expect(unreadable.details?.['relations']).toContain('public.orders');
    await sql(connection, 'shop', 'GRANT pg_read_all_data TO reader');
    expect(await fails('create-snapshot')).toMatchObject({
      code: 'INSUFFICIENT_PERMISSIONS',
      message: expect.stringContaining('1 large objects'),
    });
    const [oid] = await values(connection, 'shop', 'SELECT oid FROM pg_largeobject_metadata');
    await sql(connection, 'shop', `GRANT SELECT ON LARGE OBJECT ${oid} TO reader`);
    const hidden = await fails('create-snapshot');
    expect(hidden).toMatchObject({ code: 'INSUFFICIENT_PERMISSIONS', details: { relations: ['public.secret_rows'] } });
    expect(hidden.hint).toContain('BYPASSRLS');
    expect(await filesBelow(storage)).toEqual([]);
    await sql(connection, 'shop', 'ALTER ROLE reader BYPASSRLS');
    expect(await call('create-snapshot')).toMatchObject({ status: 'available' });
    await sql(connection, 'shop', 'DROP TABLE secret_rows');
  });

  it.each(['postgres://x?a=b', `-it's "two words" ünï`, 'x'.repeat(63)])(
    'works for a database called %j, and restores it under another such name',
    async (name) => {
      const quoted = `"${name.replaceAll('"', '""')}"`;
      await sql(connection, 'postgres', `CREATE DATABASE ${quoted}`);
      await sql(connection, name, 'CREATE TABLE t AS SELECT 1 AS one');
      const { call, approved } = await harness({ database: name });
      const made = await call('create-snapshot');
      const restored = await call('restore', { snapshot_id: made.id, target_database: `${name.slice(0, 55)} =2` });
      expect(restored).toMatchObject({ tables: 1, rows: 1 });
      expect(await values(connection, `${name.slice(0, 55)} =2`, 'SELECT one FROM t')).toEqual(['1']);
      await sql(connection, name, 'DROP TABLE t');
      const replaced = await approved('restore', { snapshot_id: made.id, safety_snapshot: false });
      expect(await values(connection, name, 'SELECT one FROM t')).toEqual(['1']);
      for (const database of [name, `${name.slice(0, 55)} =2`]) {
        await sql(connection, 'postgres', `DROP DATABASE "${database.replaceAll('"', '""')}"`);
      }
      await sql(connection, 'postgres', String(replaced['drop_kept_with']));
    },
  );

  it('keeps the password out of arguments, environment and work directory', async () => {
    const { call, engine, stateDirectory } = await harness();
    const blocker = await openSession({ ...connection, database: 'shop' });
    await blocker.query('BEGIN');
    await blocker.query('LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE');
    const running = call('create-snapshot');
    const pid = await findDump();
    const seen = await Promise.all(['cmdline', 'environ'].map((file) => readFile(`/proc/${pid}/${file}`, 'utf8')));
    expect(seen.join('\n')).not.toContain(connection.password);
    expect(seen[0]).not.toContain('shop');
    const passFile = /PGPASSFILE=([^\0]+)/.exec(seen[1]!)![1]!;
    expect((await stat(passFile)).mode & 0o777).toBe(0o600);
    expect((await stat(join(passFile, '..'))).mode & 0o777).toBe(0o700);
    expect(await readFile(passFile, 'utf8')).toBe(`*:*:*:*:${connection.password}\n`);
    await blocker.close();
    await running;
    await expect(stat(passFile)).rejects.toThrow('ENOENT');
    expect(JSON.stringify(engine.entities())).not.toContain(connection.password);
    expect((await readdir(stateDirectory, { recursive: true })).filter((name) => name.includes('pgpass'))).toEqual([]);
  });

  it('escapes a password for the pass file and removes the files of processes that were killed', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'hf-pass-'));
    const stale = await mkdtemp(join(directory, 'pgpass-999999999-'));
    const made = await programEnvironment({ ...connection, password: 'a:b\\c' }, directory);
    expect(await readFile(made.env['PGPASSFILE']!, 'utf8')).toBe('*:*:*:*:a\\:b\\\\c\n');
    expect(await stat(stale).catch(() => 'gone')).toBe('gone');
    await made.dispose();
    await expect(programEnvironment({ ...connection, password: 'a\nb' }, directory)).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
    });
    expect(await readdir(directory)).toEqual([]);
    await rm(directory, { recursive: true });
  });

  it('leaves nothing when pg_dump is killed, when the call is cancelled, and refuses a second one meanwhile', async () => {
    const { fails, call, storage } = await harness();
    const blocker = await openSession({ ...connection, database: 'shop' });
    const block = async (session: Session): Promise<void> => {
      await session.query('BEGIN');
      await session.query('LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE');
    };
    await block(blocker);
    const killed = fails('create-snapshot');
    const pid = await findDump();
    expect(await fails('create-snapshot')).toMatchObject({ code: 'INVALID_STATE', retryable: true });
    process.kill(pid, 'SIGKILL');
    expect(await killed).toMatchObject({ code: 'PROVIDER_UNAVAILABLE', message: expect.stringContaining('SIGKILL') });
    expect(await filesBelow(storage)).toEqual([]);

    // The killed run's session ends a moment later.
    const held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    await expect.poll(() => values(connection, 'shop', held)).toEqual(['0']);
    const controller = new AbortController();
    const cancelled = fails('create-snapshot', {}, { signal: controller.signal });
    await findDump();
    controller.abort();
    expect(await cancelled).toMatchObject({ code: 'CANCELLED' });
    await blocker.close();
    await expect.poll(() => filesBelow(storage)).toEqual([]);
    await expect
      .poll(() =>
        call('create-snapshot').then(
          (made) => made['status'],
          () => 'still locked',
        ),
      )
      .toBe('available');
  });

  it('waits for a lock for a bounded time only', async () => {
    const blocker = await openSession({ ...connection, database: 'shop' });
    await blocker.query('BEGIN');
    await blocker.query('LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE');
    const directory = await mkdtemp(join(tmpdir(), 'hf-lock-'));
    const { env, dispose } = await programEnvironment({ ...connection, database: 'shop' }, directory);
    const { pgDump } = chooseBinaries(await findBinaries(), major);
    const dump = runChild(pgDump, ['-Fc', '--lock-wait-timeout=100ms', '--no-password'], { env });
    await expect(dump).rejects.toMatchObject({ code: 'INVALID_STATE', retryable: true });
    await blocker.close();
    await dispose();
    await rm(directory, { recursive: true });
  });

  it('names both versions when the client programs are too old', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'hf-old-'));
    for (const name of ['pg_dump', 'pg_dumpall', 'pg_restore']) {
      await writeFile(join(directory, name), `#!/bin/sh\necho "${name} (PostgreSQL) 12.22"\n`);
      await chmod(join(directory, name), 0o755);
    }
    const { fails } = await harness({ parameters: { bin_dir: directory } });
    const error = await fails('create-snapshot');
    expect(error).toMatchObject({
      code: 'NOT_SUPPORTED',
      message: expect.stringMatching(new RegExp(`12\\.22.*${major} or newer`)),
    });
    expect(error.hint).toContain(`postgresql-client-${major}`);
    expect(
      toProgramError(
        'pg_dump',
        { code: 1, signal: null },
        'pg_dump: error: aborting because of server version mismatch',
      ),
    ).toMatchObject({ code: 'NOT_SUPPORTED' });
    const empty = await harness({ parameters: { bin_dir: tmpdir() } });
    expect(await empty.fails('create-snapshot')).toMatchObject({
      code: 'NOT_SUPPORTED',
      message: expect.stringContaining('no PostgreSQL client programs'),
    });
    await rm(directory, { recursive: true });
  });

  it.each([
    [{ port: 1 }, {}, 'PROVIDER_UNAVAILABLE'],
    [{}, { PG_PASSWORD: 'wrong-password' }, 'AUTHENTICATION_FAILED'],
    [{ database: 'nowhere' }, {}, 'RESOURCE_NOT_FOUND'],
    [{ ssl_mode: 'require' }, {}, 'PROVIDER_UNAVAILABLE'],
  ])('says what is wrong with %j', async (parameters, secrets, code) => {
    const { fails } = await harness({ parameters, secrets });
    const error = await fails('create-snapshot');
    expect(error.code).toBe(code);
    expect(JSON.stringify(error.toJson())).not.toContain('wrong-password');
  });

  it('stores nothing where the storage is not a directory', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'hf-file-'));
    const file = join(directory, 'file');
    await writeFile(file, '');
    const { fails } = await harness({ parameters: { storage: { type: 'local', path: file } } });
    expect(await fails('create-snapshot')).toMatchObject({ code: 'RESOURCE_NOT_FOUND' });
    await rm(directory, { recursive: true });
  });
});
