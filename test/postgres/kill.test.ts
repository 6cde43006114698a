import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import type { ConfirmationDetails } from '../../src/engine/api.ts';
import type { Connection } from '../../src/postgres/connection.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import { BOSS } from '../support/harness.ts';
import {
  databases,
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

describePostgres('after SIGKILL', () => {
  let server: PrivateServer;
  let connection: Connection;
  let directory: string;
  let snapshot: string;
  let alive: PostgresHarness | undefined;

  /** Runs a call in a process of its own; gives the signal that ended it. */
  const run = (orders: Partial<VictimOrders>): Promise<string | null> =>
    new Promise((resolve, reject) => {
      const all = {
        connection,
        storage: join(directory, 'store'),
        stateDirectory: join(directory, 'state'),
        ...orders,
      };
      const child = spawn(process.execPath, [script, JSON.stringify(all)], { stdio: ['ignore', 'ignore', 'pipe'] });
      let text = '';
      child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      child.once('close', (code, signal) => (code === null || code === 0 ? resolve(signal) : reject(new Error(text))));
    });
  const revive = async (): Promise<PostgresHarness> => {
    alive = await startPostgresHarness({
      connection,
      database: 'shop',
      storage: join(directory, 'store'),
      stateDirectory: join(directory, 'state'),
    });
    return alive;
  };
  /** Starts again, as the next process does, and waits until what was left is settled. */
  const resume = async (): Promise<{ harness: PostgresHarness; operation: JsonObject }> => {
    const harness = await revive();
    const [taken] = await harness.engine.resume();
    expect(taken).toBeDefined();
    await expect
      .poll(async () => (await harness.store.operation(taken!.operation_id))?.ended_at, { timeout: 20_000 })
      .toBeDefined();
    const record = await harness.store.operation(taken!.operation_id);
    return { harness, operation: record as unknown as JsonObject };
  };
  const snapshots = async (harness: PostgresHarness): Promise<JsonObject[]> =>
    (await harness.call('list-snapshots'))['snapshots'] as JsonObject[];
  const rows = (database = 'shop'): Promise<string[]> => values(connection, database, 'SELECT v FROM t ORDER BY v');

  beforeAll(async () => {
    server = await startTestServer();
    connection = server.connection;
  });
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'hf-kill-'));
    await sql(connection, 'postgres', 'CREATE DATABASE shop');
    await sql(connection, 'shop', 'CREATE TABLE t (v text PRIMARY KEY)', "INSERT INTO t VALUES ('old')");
    const harness = await revive();
    snapshot = (await harness.call('create-snapshot')).id;
    await harness.close();
    alive = undefined;
    await sql(connection, 'shop', "UPDATE t SET v = 'new'");
  });
  afterEach(async () => {
    await alive?.close();
    alive = undefined;
    await rm(directory, { recursive: true, force: true });
    for (const name of await databases(connection))
      await sql(connection, 'postgres', `DROP DATABASE "${name}" WITH (FORCE)`);
  });
  afterAll(() => server?.stop());

  it.each([
    ['before anything is written', { dieBefore: { step: 'snapshot', status: 'running' } }],
    ['in the middle of the dump', { dieAtProgress: 'dumped' }],
    ['after the manifest, before it is recorded', { dieBefore: { step: 'snapshot', status: 'succeeded' } }],
  ])('a backup is there once or not at all: killed %s', async (_, orders) => {
    expect(await run({ action: 'create-snapshot', input: {}, ...orders })).toBe('SIGKILL');
    const before = await revive();
    const visible = (await snapshots(before)).filter(({ restorable }) => restorable);
    expect(visible.length).toBeLessThanOrEqual(2);
    for (const { id } of visible) await before.call('verify-snapshot', { snapshot_id: String(id) });
    await before.close();
    const { harness, operation } = await resume();
    expect(operation['status']).toBe('succeeded');
    const after = await snapshots(harness);
    expect(after.map(({ status }) => status)).toEqual(['available', 'available']);
    expect(after.map(({ id }) => id)).toContain((operation['result'] as JsonObject)['id']);
  });

  it.each([
    ['before the temporary database is made', { dieBefore: { step: 'restore', phase: 'creating' } }, 'new'],
    ['after it is made', { dieBefore: { step: 'restore', phase: 'filling' } }, 'new'],
    ['while it is filled', { dieAtProgress: 'Restoring' }, 'new'],
    ['after it is filled', { dieBefore: { step: 'restore', phase: 'filled' } }, 'new'],
    ['before it is compared', { dieBefore: { step: 'compare', status: 'running' } }, 'new'],
    ['before the swap', { dieBefore: { step: 'swap', phase: 'swapping' } }, 'new'],
    ['after the swap, before it is recorded', { dieBefore: { step: 'swap', status: 'succeeded' } }, 'old'],
  ])('a restore in place has happened wholly or not at all: killed %s', async (_, orders, content) => {
    const input = { snapshot_id: snapshot, safety_snapshot: false };
    const asking = await revive();
    const refusal = await asking.fails('restore', input);
    const { confirmation, plan } = refusal.details as unknown as ConfirmationDetails;
    await asking.engine.approve({ confirmation: confirmation.id, by: BOSS, via: 'terminal', typedTarget: plan.target });
    await asking.close();
    expect(await run({ action: 'restore', input, token: confirmation.token, ...orders })).toBe('SIGKILL');
    // Before anybody looks after it, the database already is one or the other, and whole.
    expect(await rows()).toEqual([content]);
    const { operation, harness } = await resume();
    expect(await rows()).toEqual([content]);
    const names = await databases(connection);
    if (content === 'new') {
      expect(names).toEqual(['shop']);
      expect(operation['status']).toBe('failed');
      expect(
        await harness.call('get-restore-status').then(
          ({ status }) => status,
          () => 'none',
        ),
      ).not.toBe('running');
    } else {
      expect(operation['status']).toBe('succeeded');
      const kept = String((operation['result'] as JsonObject)['kept_as']);
      expect(names).toEqual(['shop', kept]);
      expect(await rows(kept)).toEqual(['new']);
      expect(await harness.call('get-restore-status')).toMatchObject({ status: 'succeeded', usable: true });
    }
  });

  it.each([
    ['in the middle of the safety backup', { dieAtProgress: 'dumped' }, 1],
    ['after the safety backup', { dieBefore: { step: 'recheck', status: 'running' } }, 2],
  ])('a restore in place that was killed %s leaves the database and no half backup', async (_, orders, count) => {
    const input = { snapshot_id: snapshot };
    const asking = await revive();
    const refusal = await asking.fails('restore', input);
    const { confirmation, plan } = refusal.details as unknown as ConfirmationDetails;
    await asking.engine.approve({ confirmation: confirmation.id, by: BOSS, via: 'terminal', typedTarget: plan.target });
    await asking.close();
    expect(await run({ action: 'restore', input, token: confirmation.token, ...orders })).toBe('SIGKILL');
    const { operation, harness } = await resume();
    expect(operation['status']).toBe('failed');
    expect(await rows()).toEqual(['new']);
    expect(await databases(connection)).toEqual(['shop']);
    expect((await snapshots(harness)).map(({ status }) => status)).toEqual(Array(count).fill('available'));
  });

  it.each([
    ['while it is filled', { dieAtProgress: 'Restoring' }],
    ['after it is filled', { dieBefore: { step: 'restore', status: 'succeeded' } }],
    ['before it gets its name', { dieBefore: { step: 'swap', phase: 'swapping' } }],
    ['after it has its name, before that is recorded', { dieBefore: { step: 'swap', status: 'succeeded' } }],
  ])('a restore beside the database is finished by the next process: killed %s', async (_, orders) => {
    const input = { snapshot_id: snapshot, target_database: 'copy' };
    expect(await run({ action: 'restore', input, ...orders })).toBe('SIGKILL');
    const { operation } = await resume();
    expect(operation['status']).toBe('succeeded');
    expect(await databases(connection)).toEqual(['copy', 'shop']);
    expect([await rows('copy'), await rows()]).toEqual([['old'], ['new']]);
  });

  it('a verification leaves no scratch database', async () => {
    const input = { snapshot_id: snapshot, level: 'restored' };
    expect(await run({ action: 'verify-snapshot', input, dieAtProgress: 'Restoring' })).toBe('SIGKILL');
    const { operation } = await resume();
    expect(operation['status']).toBe('succeeded');
    expect(await databases(connection)).toEqual(['shop']);
  });
});
