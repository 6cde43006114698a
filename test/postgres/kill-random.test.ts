import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import type { Connection } from '../../src/postgres/connection.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import { Repository, sourceIdOf } from '../../src/postgres/repository.ts';
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

// Fifty kills at moments that nobody chose: after each, what is listed as a backup is one, and the first one still is.

const storeScript = fileURLToPath(new URL('../support/s3rver-process.ts', import.meta.url));
const script = await postgresVictim();

/** Moments that look random and are the same in every run, so that a failure can be seen again. */
function* moments(seed: number, most: number): Generator<number> {
  for (let state = seed; ; ) {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    yield Math.floor((state / 2 ** 31) * most);
  }
}

describePostgres('fifty kills at any moment', () => {
  let server: PrivateServer;
  let connection: Connection;
  let directory: string;
  let storage: string;
  let first: string;
  /** How long an undisturbed backup takes, ms. */
  let whole: number;
  let alive: PostgresHarness | undefined;
  let store: StoreProcess | undefined;

  const open = async (): Promise<PostgresHarness> => {
    alive = await startPostgresHarness({
      connection,
      database: 'shop',
      storage,
      stateDirectory: join(directory, 'state'),
    });
    return alive;
  };
  const listed = async (harness: PostgresHarness): Promise<JsonObject[]> =>
    (await harness.call('list-snapshots'))['snapshots'] as JsonObject[];

  /** Every backup that the list calls restorable has all its bytes; nothing else is called so, and the first is among them. */
  const assertSound = async (harness: PostgresHarness, what: string): Promise<JsonObject[]> => {
    const snapshots = await listed(harness);
    const restorable = snapshots.filter((one) => one['restorable'] === true).map((one) => String(one['id']));
    expect(restorable, what).toContain(first);
    for (const id of restorable) await harness.call('verify-snapshot', { snapshot_id: id, level: 'stored' });
    for (const id of restorable.filter((other) => other !== first)) {
      // Kept small: what has been proven makes room.
      await new Repository(localStore(storage), sourceIdOf('app/shop')).remove(id);
    }
    return snapshots;
  };

  beforeAll(async () => {
    server = await startTestServer();
    connection = server.connection;
    directory = await mkdtemp(join(tmpdir(), 'hf-kills-'));
    storage = join(directory, 'store');
    await sql(connection, 'postgres', 'CREATE DATABASE shop');
    await sql(
      connection,
      'shop',
      'CREATE TABLE t AS SELECT i, md5(i::text) || md5((i * 7)::text) || md5((i * 13)::text) AS noise FROM generate_series(1, 60000) i',
    );
    const harness = await open();
    first = (await harness.call('create-snapshot')).id;
    const began = performance.now();
    const second = (await harness.call('create-snapshot')).id;
    whole = performance.now() - began;
    await new Repository(localStore(storage), sourceIdOf('app/shop')).remove(second);
    await harness.close();
  }, 60_000);
  afterEach(async () => {
    await alive?.close();
    alive = undefined;
    await store?.kill();
    store = undefined;
  });
  afterAll(async () => {
    await server?.stop();
    if (directory !== undefined) await rm(directory, { recursive: true, force: true });
  });

  it('of pg_dump: the call fails, says so, and leaves nothing', { timeout: 120_000 }, async () => {
    const harness = await open();
    const delays = moments(7, whole / 2);
    let killed = 0;
    for (let round = 1; round <= 20; round += 1) {
      const delay = delays.next().value as number;
      const what = `round ${round}, after ${delay} ms`;
      const call = harness.call('create-snapshot').then(
        () => undefined,
        (cause: Error) => cause as Error & { code: string },
      );
      // Its life is a part of the call only, and begins when the plan is made.
      let over = false;
      void call.then(() => {
        over = true;
      });
      while (!over && childrenNamed('pg_dump').length === 0) await new Promise((resolve) => setTimeout(resolve, 2));
      await new Promise((resolve) => setTimeout(resolve, delay));
      for (const pid of childrenNamed('pg_dump')) kill(pid);
      const failure = await call;
      if (failure !== undefined) {
        killed += 1;
        expect(failure.name, `${what}: ${failure.stack}`).toBe('HoldfastError');
        expect(
          (await listed(harness)).map(({ id }) => id),
          what,
        ).toEqual([first]);
      }
      await assertSound(harness, what);
    }
    expect(killed, 'kills that met a running pg_dump').toBeGreaterThan(4);
  });

  it('of Holdfast: the next process settles what was left', { timeout: 120_000 }, async () => {
    const delays = moments(11, whole * 1.2);
    for (let round = 1; round <= 15; round += 1) {
      const delay = delays.next().value as number;
      const what = `round ${round}, after ${delay} ms`;
      await dies({
        connection,
        storage,
        stateDirectory: join(directory, 'state'),
        action: 'create-snapshot',
        input: {},
        dieAfterMs: delay,
      });
      const harness = await open();
      const before = await assertSound(harness, what);
      expect(before.filter(({ status }) => status === 'available').length, what).toBeLessThanOrEqual(2);
      for (const { operation_id } of await harness.engine.resume()) {
        await expect
          .poll(async () => (await harness.store.operation(operation_id))?.ended_at, { timeout: 20_000 })
          .toBeDefined();
      }
      const after = await assertSound(harness, what);
      expect(
        after.every(({ status }) => status === 'available'),
        `${what}: ${JSON.stringify(after)}`,
      ).toBe(true);
      await harness.close();
      alive = undefined;
    }
  });

  it('of the store: the call fails, and the store that comes back shows whole backups only', {
    timeout: 120_000,
  }, async () => {
    const folder = join(directory, 's3');
    store = await startStore(0, folder);
    const { port } = store;
    const harness = await startPostgresHarness({
      connection,
      database: 'shop',
      stateDirectory: join(directory, 'state-s3'),
      parameters: {
        storage: {
          type: 's3',
          bucket: 'backups',
          region: 'us-east-1',
          endpoint: `http://127.0.0.1:${port}`,
          force_path_style: true,
          access_key_id: '${env:S3_KEY}',
          secret_access_key: '${env:S3_KEY}',
        },
      },
      secrets: { S3_KEY: 'S3RVER' },
    });
    alive = harness;
    const kept = (await harness.call('create-snapshot')).id;
    const delays = moments(13, whole * 1.2);
    const proven = new Set<string>();
    let failed = 0;
    for (let round = 1; round <= 15; round += 1) {
      const delay = delays.next().value as number;
      const what = `round ${round}, after ${delay} ms`;
      const call = harness.call('create-snapshot').then(
        () => undefined,
        (cause: Error) => cause,
      );
      await new Promise((resolve) => setTimeout(resolve, delay));
      await store.kill();
      const failure = await call;
      store = await startStore(port, folder);
      if (failure !== undefined) {
        failed += 1;
        expect(failure.name, `${what}: ${failure.stack}`).toBe('HoldfastError');
      }
      const snapshots = await listed(harness);
      const restorable = snapshots.filter((one) => one['restorable'] === true).map((one) => String(one['id']));
      expect(restorable, what).toContain(kept);
      for (const id of restorable.filter((one) => !proven.has(one))) {
        await harness.call('verify-snapshot', { snapshot_id: id, level: 'stored' });
        proven.add(id);
      }
    }
    await harness.call('verify-snapshot', { snapshot_id: kept, level: 'stored' });
    expect(failed, 'kills that met a running backup').toBeGreaterThan(3);
    await harness.call('restore', { snapshot_id: kept, target_database: 'from_store' });
  });

  it('leaves the first backup as good as it was', async () => {
    const harness = await open();
    await harness.call('restore', { snapshot_id: first, target_database: 'copy' });
    const sum = 'SELECT count(*) || md5(string_agg(noise, $$$$ ORDER BY i)) FROM t';
    expect(await values(connection, 'copy', sum)).toEqual(await values(connection, 'shop', sum));
  });
});

/** Runs a call in a process of its own that is killed, or ends before that. */
function dies(orders: VictimOrders): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, JSON.stringify(orders)], { stdio: ['ignore', 'ignore', 'pipe'] });
    let text = '';
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    child.once('close', (code, signal) => (signal === 'SIGKILL' || code === 0 ? resolve() : reject(new Error(text))));
  });
}

interface StoreProcess {
  readonly port: number;
  kill(): Promise<void>;
}

async function startStore(port: number, folder: string): Promise<StoreProcess> {
  const child = spawn(process.execPath, [storeScript, String(port), folder], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  return {
    port: Number(line.toString()),
    async kill() {
      const gone = once(child, 'close');
      child.kill('SIGKILL');
      await gone;
    },
  };
}

function childrenNamed(name: string): number[] {
  return execFileSync('ps', ['-A', '-o', 'pid=,ppid=,comm='], { encoding: 'utf8' })
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, parent, command]) => Number(parent) === process.pid && command === name)
    .map(([pid]) => Number(pid));
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}
