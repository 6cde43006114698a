import { spawn } from 'node:child_process';
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it, vi } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import type { Connection } from '../../src/postgres/connection.ts';
import { copyAccount, startCopyServer } from '../../src/postgres/copy-server.ts';
import { findServerBinaries, type PrivateServer } from '../../src/postgres/private-server.ts';
import { Repository, sourceIdOf } from '../../src/postgres/repository.ts';
import { WalArchive } from '../../src/postgres/wal-archive.ts';
import { localStore } from '../../src/storage/local.ts';
import {
  describePostgres,
  type PostgresHarness,
  sql,
  startPostgresHarness,
  startTestServer,
  values,
} from '../support/postgres.ts';
import type { VictimOrders } from '../support/postgres-victim.ts';
import { postgresVictim } from '../support/shared.ts';

const script = await postgresVictim();

describePostgres('a recovery that dies', () => {
  let server: PrivateServer;
  let connection: Connection;
  let root: string;
  let store: string;
  let directory: string;
  let state: string;
  let alive: PostgresHarness | undefined;

  /** Command lines of the PostgreSQL servers that run on the copy. */
  const running = async (): Promise<string[]> => {
    const found: string[] = [];
    for (const name of await readdir('/proc').catch(() => [])) {
      if (!/^\d+$/.test(name)) continue;
      const line = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
      if (line.split('\0').includes(directory)) found.push(line);
    }
    return found;
  };
  const revive = async (): Promise<PostgresHarness> => {
    alive = await startPostgresHarness({ connection, database: 'shop', storage: store, stateDirectory: state });
    return alive;
  };
  let oid: string;
  const input = (): JsonObject => ({
    target_directory: directory,
    use_latest: true,
    tablespace_map: { [oid]: `${directory}-space` },
  });

  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'hf-pitr-'));
    await chmod(root, 0o755);
    store = join(root, 'store');
    const archived = join(root, 'archived');
    await mkdir(archived);
    await chmod(archived, 0o777);
    server = await startTestServer({
      archive_mode: 'on',
      archive_command: `cp "%p" "${archived}/%f.part" && mv "${archived}/%f.part" "${archived}/%f"`,
    });
    connection = server.connection;
    await sql(connection, 'postgres', 'CREATE DATABASE shop');
    const space = join(root, 'space');
    await mkdir(space, { mode: 0o700 });
    const account = await copyAccount();
    if (account) await chown(space, account.uid, account.gid);
    await sql(
      connection,
      'shop',
      `CREATE TABLESPACE fast LOCATION '${space}'`,
      'CREATE TABLE marks (v text) TABLESPACE fast',
    );
    oid = (await values(connection, 'shop', "SELECT oid::text FROM pg_tablespace WHERE spcname = 'fast'"))[0] ?? '';
    state = join(root, 'state-0');
    const harness = await revive();
    await harness.call('create-snapshot', { type: 'full' });
    await sql(connection, 'shop', "INSERT INTO marks VALUES ('last')");
    const [segment] = await values(connection, 'shop', 'SELECT pg_walfile_name(pg_switch_wal())');
    await vi.waitFor(async () => expect(await readdir(archived)).toContain(segment), { timeout: 20_000 });
    const archive = new WalArchive(new Repository(localStore(store), sourceIdOf('app/shop')), {
      assertMayWrite: () => {},
      log: { debug() {}, info() {}, warn() {}, error() {} },
    });
    const [system = ''] = await values(connection, 'shop', 'SELECT system_identifier::text FROM pg_control_system()');
    await archive.claim({ system_identifier: system, segment_size: 16_777_216 }, 'app/shop', new Date());
    for (const name of await readdir(archived)) {
      if (/^[0-9A-F]{24}$/.test(name))
        await archive.put(join(archived, name), { sealing: { scheme: 'none' }, level: 1 });
    }
    await harness.close();
    alive = undefined;
  }, 60_000);
  let count = 0;
  beforeEach(() => {
    count += 1;
    state = join(root, `state-${count}`);
    directory = join(root, `copy-${count}`);
  });
  afterEach(async () => {
    await alive?.close();
    alive = undefined;
  });
  afterAll(async () => {
    await server?.stop();
    await rm(root, { recursive: true, force: true });
  });

  it.each([
    ['while it is unpacked', { dieAtProgress: 'Unpacking' }],
    ['while the log is replayed', { dieAtProgress: 'Replaying' }],
    ['after its promotion, before that is recorded', { dieBefore: { step: 'recover', status: 'succeeded' } }],
    ['after everything, before that is recorded', { dieBefore: { step: 'check', status: 'succeeded' } }],
  ])('is finished by the next process, with nothing left running: killed %s', async (_, orders) => {
    const all: VictimOrders = {
      connection,
      storage: store,
      stateDirectory: state,
      action: 'restore',
      input: input(),
      ...orders,
    };
    const child = spawn(process.execPath, [script, JSON.stringify(all)], { stdio: 'ignore' });
    expect(await new Promise((resolve) => child.once('close', (_code, signal) => resolve(signal)))).toBe('SIGKILL');
    const harness = await revive();
    const [taken] = await harness.engine.resume();
    await expect
      .poll(async () => (await harness.store.operation(taken!.operation_id))?.ended_at, { timeout: 30_000 })
      .toBeDefined();
    const operation = await harness.store.operation(taken!.operation_id);
    expect(operation).toMatchObject({ status: 'succeeded', result: { directory, reached: { timeline: 2 } } });
    expect(await running()).toEqual([]);
    expect((await readdir(root)).filter((name) => name.startsWith('.holdfast'))).toEqual([]);
    const copy = await startCopyServer({
      data: directory,
      binaries: await findServerBinaries(),
      account: await copyAccount(),
      superuser: 'postgres',
      database: 'shop',
    });
    try {
      await copy.ready(undefined);
      const look = 'SELECT v FROM marks';
      expect(await values(copy.connection, 'shop', look)).toEqual(['last']);
      const [place] = await values(copy.connection, 'shop', `SELECT pg_tablespace_location(${oid})`);
      expect(place).toBe(`${directory}-space`);
    } finally {
      await copy.stop();
    }
    // The live server and its tablespace are where they were.
    expect(await values(connection, 'shop', 'SELECT v FROM marks')).toEqual(['last']);
    expect(await readdir(`${directory}-space`)).toEqual(await readdir(join(root, 'space')));
  });

  it('asks where tablespaces go, and takes no place that is in use', async () => {
    const harness = await revive();
    const missing = await harness.fails('restore', { target_directory: directory, use_latest: true });
    expect(missing).toMatchObject({ code: 'INVALID_PARAMETER', hint: expect.stringContaining('tablespace_map') });
    expect(missing.details).toMatchObject({ tablespaces: [{ oid: Number(oid), location: join(root, 'space') }] });
    const used = { ...input(), tablespace_map: { [join(root, 'space')]: join(root, 'space') } };
    expect(await harness.fails('restore', used)).toMatchObject({ code: 'RESOURCE_EXISTS' });
  });

  it.each(['Unpacking', 'Replaying'])('leaves nothing when it is cancelled: %s', async (moment) => {
    const harness = await revive();
    const controller = new AbortController();
    const error = await harness.fails('restore', input(), {
      signal: controller.signal,
      onProgress: ({ message }) => {
        if (message.startsWith(moment)) controller.abort();
      },
    });
    expect(error.code).toBe('CANCELLED');
    await expect
      .poll(async () => (await harness.call('get-restore-status')).status, { timeout: 20_000 })
      .toBe('failed');
    await expect.poll(() => readdir(root), { timeout: 20_000 }).not.toContain(directory.slice(root.length + 1));
    await expect.poll(running, { timeout: 20_000 }).toEqual([]);
    const left = async () => (await readdir(root)).filter((name) => name.startsWith('.holdfast'));
    await expect.poll(left, { timeout: 20_000 }).toEqual([]);
  });
});
