import { execFile, spawn } from 'node:child_process';
import { mkdtemp, readdir, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import type { Connection } from '../../src/postgres/connection.ts';
import { openSession } from '../../src/postgres/connection.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import { assertRoom, backupScratch } from '../../src/postgres/scratch.ts';
import { ANA } from '../support/harness.ts';
import {
  databases,
  describePostgres,
  type PostgresHarness,
  SHOP,
  sql,
  startPostgresHarness,
  startTestServer,
  values,
} from '../support/postgres.ts';

const run = promisify(execFile);
const victim = fileURLToPath(new URL('../support/postgres-victim.ts', import.meta.url));

describePostgres('a dump with several connections', () => {
  let server: PrivateServer;
  let connection: Connection;
  let scratch: string;
  let identity: string;
  let app: PostgresHarness;
  const parameters = async (): Promise<JsonObject> => ({
    parallel: 3,
    scratch_dir: scratch,
    include_role_passwords: true,
    encryption: { recipients: [await identityToRecipient(identity)], identity: '${env:AGE_KEY}' },
  });

  beforeAll(async () => {
    server = await startTestServer();
    connection = server.connection;
    scratch = await mkdtemp(join(tmpdir(), 'hf-scratch-'));
    identity = await generateIdentity();
    await sql(connection, 'postgres', 'CREATE DATABASE shop', "CREATE ROLE teller LOGIN PASSWORD 'teller-pass'");
    await sql(connection, 'shop', ...SHOP);
    app = await startPostgresHarness({
      connection,
      database: 'shop',
      parameters: await parameters(),
      secrets: { AGE_KEY: identity },
    });
  });
  afterAll(async () => {
    await app?.close();
    await server?.stop();
    await rm(scratch, { recursive: true, force: true });
  });

  it('is stored as one sealed tar, leaves nothing on this machine, and says all that a dump says', async () => {
    const messages: string[] = [];
    const outcome = await app.engine.call({
      principal: ANA,
      entity: 'app/shop',
      action: 'create-snapshot',
      input: {},
      wait: 'end',
      onProgress: ({ message }) => messages.push(message),
    });
    const made = (outcome as unknown as { operation: { result: { id: string; provider: JsonObject } } }).operation
      .result;
    expect(made.id).toContain('-logical_dir-');
    expect(made.provider).toMatchObject({ type: 'logical', verified_at: null });
    expect(messages.some((message) => /^Dump stored: .+ of .+, \d+ %/.test(message))).toBe(true);
    expect(await readdir(scratch)).toEqual([]);
    const described = await app.call('describe-snapshot', { snapshot_id: made.id });
    expect(described.provider['files']).toMatchObject([
      { name: 'dir.tar.zst.age', content: 'directory' },
      { name: 'globals.sql.zst.age' },
      { name: 'inventory.json.zst.age' },
    ]);
    expect(described.provider['without_holdfast']).toContain('tar -x -C DUMP && pg_restore -j 4');
  });

  it('is verified on every level, and restored beside and in place', async () => {
    const { id } = await app.call('create-snapshot');
    for (const level of ['stored', 'readable', 'restored']) {
      expect(await app.call('verify-snapshot', { snapshot_id: id, level })).toMatchObject({ passed: true });
    }
    const beside = await app.call('restore', { snapshot_id: id, target_database: 'beside' });
    expect(beside).toMatchObject({ database: 'beside', tables: 7 });
    await sql(connection, 'shop', 'DELETE FROM orders');
    const replaced = await app.approved('restore', { snapshot_id: id });
    expect(await values(connection, 'shop', 'SELECT count(*) FROM orders')).toEqual(['3000']);
    await sql(connection, 'postgres', String(replaced['drop_kept_with']), 'DROP DATABASE beside');
    expect(await readdir(scratch)).toEqual([]);
  });

  it('comes back by the stock commands that describe-snapshot writes', async () => {
    const { id } = await app.call('create-snapshot');
    const folder = await mkdtemp(join(tmpdir(), 'hf-stock-'));
    const { provider } = await app.call('describe-snapshot', { snapshot_id: id });
    const [file] = (await readdir(app.storage, { recursive: true })).filter(
      (name) => name.includes(id) && name.endsWith('dir.tar.zst.age'),
    );
    await run('sh', ['-c', `cp '${join(app.storage, file!)}' . && printf '%s' "$KEY" > KEY_FILE`], {
      cwd: folder,
      env: { ...process.env, KEY: identity },
    });
    await sql(connection, 'postgres', 'CREATE DATABASE stock');
    const command = String(provider['without_holdfast']).replace('NEW_DATABASE', 'stock');
    const { host, port, user, password } = connection;
    await run('sh', ['-c', command], {
      cwd: folder,
      env: { ...process.env, PGHOST: host, PGPORT: String(port), PGUSER: user, PGPASSWORD: password },
    });
    expect(await values(connection, 'stock', 'SELECT count(*) FROM orders')).toEqual(['3000']);
    await sql(connection, 'postgres', 'DROP DATABASE stock');
    await rm(folder, { recursive: true });
  });

  it('holds the hashes of role passwords only where the entity asks for them, and never shows them', async () => {
    const { id } = await app.call('create-snapshot');
    const plain = await startPostgresHarness({ connection, database: 'shop' });
    const other = await plain.call('create-snapshot');
    const globalsOf = async (storage: string, wanted: string, open: string): Promise<string> => {
      const [file] = (await readdir(storage, { recursive: true })).filter(
        (name) => name.includes(wanted) && name.includes('globals'),
      );
      const { stdout } = await run('sh', ['-c', open], {
        env: { ...process.env, FILE: join(storage, file!), KEY: identity },
      });
      return stdout;
    };
    const sealed = await globalsOf(app.storage, id, 'echo "$KEY" | age -d -i - "$FILE" | zstd -dc');
    expect(sealed).toMatch(/ALTER ROLE teller WITH .* PASSWORD 'SCRAM-SHA-256\$/);
    const open = await globalsOf(plain.storage, other.id, 'zstd -dc "$FILE"');
    expect(open).toContain('CREATE ROLE teller');
    expect(open).not.toContain('SCRAM');
    await plain.close();
  });

  it('refuses a disk without room, and a damaged tar, and leaves nothing behind', async () => {
    const small = await startPostgresHarness({
      connection,
      database: 'shop',
      parameters: { parallel: 2, scratch_dir: scratch },
    });
    const { id } = await small.call('create-snapshot');
    const [file] = (await readdir(small.storage, { recursive: true })).filter((name) => name.endsWith('dir.tar.zst'));
    const path = join(small.storage, file!);
    const { size } = await stat(path);
    await truncate(path, size - 1);
    expect(await small.fails('verify-snapshot', { snapshot_id: id })).toMatchObject({ code: 'INTEGRITY_FAILED' });
    expect(await readdir(scratch)).toEqual([]);
    await expect(assertRoom(join(scratch, 'sub'), 1e18, 'It is large.')).rejects.toMatchObject({
      code: 'QUOTA_EXCEEDED',
      hint: expect.stringContaining('Nothing was written'),
    });
    await rm(join(scratch, 'sub'), { recursive: true });
    await small.close();
  });

  it('removes the directory when pg_dump is stopped in the middle, and stores nothing', async () => {
    const blocker = await openSession({ ...connection, database: 'shop' });
    await blocker.query('BEGIN');
    await blocker.query('LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE');
    const stop = new AbortController();
    const running = app.fails('create-snapshot', {}, { signal: stop.signal });
    while ((await readdir(scratch)).length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    const [made] = await readdir(scratch);
    expect((await stat(join(scratch, made!))).mode & 0o777).toBe(0o700);
    expect(join(scratch, made!)).toBe(backupScratch(scratch, made!.replace('holdfast-backup-', '')));
    stop.abort();
    expect(await running).toMatchObject({ code: 'CANCELLED' });
    await blocker.close();
    // The call is over for its caller at once; what it began is taken back behind it.
    await expect.poll(() => readdir(scratch), { timeout: 20_000 }).toEqual([]);
    expect((await app.call('list-snapshots'))['snapshots']).not.toContainEqual(
      expect.objectContaining({ status: 'creating' }),
    );
  });

  it('restores single tables into a new database, partitions and definitions with them, and says what it left out', async () => {
    const { id } = await app.call('create-snapshot');
    const tables = ['public.orders', 'public.parts'];
    const restored = await app.call('restore', { snapshot_id: id, tables, target_database: 'part_of' });
    expect(restored).toMatchObject({ database: 'part_of', tables: 2, rows: 3010 });
    expect(restored['left_out']).toContain('1 large objects');
    const counts =
      "SELECT (SELECT count(*) FROM orders) || ' ' || (SELECT count(*) FROM parts) || ' ' || (SELECT count(*) FROM checked)";
    expect(await values(connection, 'part_of', counts)).toEqual(['3000 10 0']);
    await sql(connection, 'postgres', 'DROP DATABASE part_of');
    expect((await databases(connection)).sort()).toEqual(['shop']);
  });

  it('leaves nothing on this machine after SIGKILL while it is stored, verified or restored, once somebody looks', async () => {
    const kept = await mkdtemp(join(tmpdir(), 'hf-killed-'));
    const shared = { storage: join(kept, 'store'), stateDirectory: join(kept, 'state') };
    const own = { parallel: 2, scratch_dir: scratch };
    const open = () => startPostgresHarness({ connection, database: 'shop', parameters: own, ...shared });
    const first = await open();
    const { id } = await first.call('create-snapshot');
    await first.close();
    const moments = [
      ['create-snapshot', {}, 'Dump stored', 'succeeded'],
      ['verify-snapshot', { snapshot_id: id }, 'Unpacking', 'succeeded'],
      ['restore', { snapshot_id: id, target_database: 'again' }, 'Restoring the dump with', 'succeeded'],
    ] as const;
    for (const [action, input, dieAtProgress, status] of moments) {
      const orders = { connection, parameters: own, ...shared, action, input, dieAtProgress };
      const signal = await new Promise((resolve) => {
        spawn(process.execPath, [victim, JSON.stringify(orders)], { stdio: 'ignore' }).once('close', (_, end) =>
          resolve(end),
        );
      });
      expect(signal, action).toBe('SIGKILL');
      expect(await readdir(scratch), action).toHaveLength(1);
      const next = await open();
      const [taken] = await next.engine.resume();
      const record = () => next.store.operation(taken!.operation_id);
      await expect.poll(async () => (await record())?.ended_at, { timeout: 30_000 }).toBeDefined();
      expect(await record(), action).toMatchObject({ status });
      expect(await readdir(scratch), action).toEqual([]);
      await next.close();
    }
    expect(await values(connection, 'again', 'SELECT count(*) FROM orders')).toEqual(['3000']);
    await sql(connection, 'postgres', 'DROP DATABASE again');
    await rm(kept, { recursive: true });
  }, 90_000);
});

describePostgres('a restore of single tables', () => {
  let server: PrivateServer;
  let connection: Connection;
  let app: PostgresHarness;
  let id: string;
  const ODD = ['"a.b"."c""d"', '"-dash"."ünï täble"', 'public."two words"'];

  beforeAll(async () => {
    server = await startTestServer();
    connection = server.connection;
    await sql(connection, 'postgres', 'CREATE DATABASE shop');
    await sql(
      connection,
      'shop',
      'CREATE SCHEMA "a.b"',
      'CREATE SCHEMA "-dash"',
      "CREATE TYPE public.size AS ENUM ('s', 'l')",
      'CREATE SEQUENCE public.numbers START 100',
      'CREATE TABLE public.customers (id int PRIMARY KEY, name text)',
      `CREATE TABLE public."two words" (id int DEFAULT nextval('public.numbers'), size public.size)`,
      'CREATE TABLE public.orders (id int PRIMARY KEY, customer int REFERENCES public.customers, parent int REFERENCES public.orders)',
      ...ODD.slice(0, 2).map((name) => `CREATE TABLE ${name} ("x.y" int)`),
      'CREATE INDEX by_customer ON public.orders (customer)',
      "INSERT INTO public.customers VALUES (1, 'Ann')",
      'INSERT INTO public.orders VALUES (1, 1, NULL), (2, 1, 1)',
      ...ODD.slice(0, 2).map((name) => `INSERT INTO ${name} VALUES (7)`),
      `INSERT INTO public."two words" (size) VALUES ('l'), ('s'), ('s')`,
      // Side by side these two read the same in a list of pg_restore.
      'CREATE SCHEMA "x"',
      'CREATE SCHEMA "x y"',
      'CREATE TABLE "x"."y z" (a int)',
      'CREATE TABLE "x y"."z" (a int)',
    );
    app = await startPostgresHarness({ connection, database: 'shop' });
    ({ id } = await app.call('create-snapshot'));
  });
  afterAll(async () => {
    await app?.close();
    await server?.stop();
  });

  it('takes names with dots, quotes, spaces, unicode and a leading dash', async () => {
    const restored = await app.call('restore', { snapshot_id: id, tables: ODD, target_database: 'odd' });
    expect(restored).toMatchObject({ tables: 3, rows: 5 });
    for (const name of ODD.slice(0, 2))
      expect(await values(connection, 'odd', `SELECT "x.y" FROM ${name}`)).toEqual(['7']);
    expect(await values(connection, 'odd', `INSERT INTO public."two words" (size) VALUES ('l') RETURNING id`)).toEqual([
      '103',
    ]);
    expect(await values(connection, 'odd', 'SELECT count(*) FROM public.customers')).toEqual(['0']);
    await sql(connection, 'postgres', 'DROP DATABASE odd');
  });

  it('leaves out foreign keys into tables without rows, names them, and keeps the others and the indexes', async () => {
    const alone = await app.call('restore', { snapshot_id: id, tables: ['public.orders'], target_database: 'alone' });
    expect(JSON.stringify(alone['left_out'])).toContain(
      '1 foreign keys into tables without rows: public.orders orders_customer_fkey',
    );
    const keys = "SELECT string_agg(conname, ' ' ORDER BY conname) FROM pg_constraint WHERE contype = 'f'";
    expect(await values(connection, 'alone', keys)).toEqual(['orders_parent_fkey']);
    expect(
      await values(connection, 'alone', "SELECT count(*) FROM pg_indexes WHERE indexname = 'by_customer'"),
    ).toEqual(['1']);
    const both = await app.call('restore', {
      snapshot_id: id,
      tables: ['public.orders', 'public.customers'],
      target_database: 'pair',
    });
    expect(JSON.stringify(both['left_out'])).not.toContain('foreign keys');
    expect(await values(connection, 'pair', keys)).toEqual(['orders_customer_fkey orders_parent_fkey']);
    await sql(connection, 'postgres', 'DROP DATABASE alone', 'DROP DATABASE pair');
  });

  it('refuses to go over a database, unknown tables, names that are none, and tables that it cannot tell apart', async () => {
    const restore = (input: JsonObject) => app.fails('restore', { snapshot_id: id, ...input });
    const tables = ['public.orders'];
    expect(await restore({ tables })).toMatchObject({ code: 'INVALID_PARAMETER' });
    expect((await restore({ tables, target_database: 'shop' })).message).toContain('replace a database');
    const unknown = await restore({ tables: ['public.Orders', 'nosuch.t'], target_database: 'new' });
    expect(unknown).toMatchObject({ code: 'INVALID_PARAMETER', details: { tables: ['public.Orders', 'nosuch.t'] } });
    for (const name of ['orders', 'a.b.c', 'public."x', 'public.']) {
      expect((await restore({ tables: [name], target_database: 'new' })).code).toBe('INVALID_PARAMETER');
    }
    expect(await restore({ tables: ['x."y z"'], target_database: 'new' })).toMatchObject({ code: 'NOT_SUPPORTED' });
    expect(await databases(connection)).toEqual(['shop']);
  });
});
