import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { findServerBinaries, type PrivateServer } from '../../src/postgres/private-server.ts';
import { Repository } from '../../src/postgres/repository.ts';
import { WalArchive } from '../../src/postgres/wal-archive.ts';
import { holesIn } from '../../src/postgres/wal-reach.ts';
import { type ReceiveSummary, readReceiverStatus, receiveWal } from '../../src/postgres/wal-receive.ts';
import type { PostgresClient } from '../../src/providers/postgresql/client.ts';
import { localStore } from '../../src/storage/local.ts';
import type { ObjectStore } from '../../src/storage/storage.ts';
import { ANA } from '../support/harness.ts';
import {
  describePostgres,
  type PostgresHarness,
  sql,
  startPostgresHarness,
  startTestServer,
  values,
} from '../support/postgres.ts';
import { ROOT } from '../support/source.ts';

const SOURCE = 'shop-wal';
const SLOT = 'holdfast_shop_wal';
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

describePostgres('receiving the write-ahead log', () => {
  let server: PrivateServer;
  let harness: PostgresHarness;
  let archive: WalArchive;
  let binDirectory: string;
  let spool: string;
  const children: ChildProcess[] = [];

  const archivist = () => ({ ...server.connection, user: 'archivist', password: 'archive this' });
  const at = (query: string): Promise<string[]> => values(server.connection, 'postgres', query);
  const one = async (query: string): Promise<string> => (await at(query))[0] as string;
  /** Has the server finish a segment and gives its name. */
  const finishSegment = async (): Promise<string> => {
    await sql(server.connection, 'postgres', "SELECT pg_logical_emit_message(true, 'test', 'x')");
    return one('SELECT pg_walfile_name(pg_switch_wal())');
  };
  const archived = (segment: string) => expect.poll(() => archive.has(segment), { timeout: 20_000 }).toBe(true);
  const status = () => readReceiverStatus(join(harness.stateDirectory, 'work', 'app~shop', 'wal-receiver.json'));

  /** Receives in this process until stopped, and tells what happens meanwhile. */
  const receive = () => {
    const controller = new AbortController();
    const events: string[] = [];
    let wake = (): void => {};
    const over = harness.engine.service(
      { principal: ANA, entity: 'app/shop', name: 'wal-receive', risk: 'create', audited: 'run' },
      ({ client }) =>
        (client as PostgresClient).wal.receive(controller.signal, (event) => {
          events.push(event);
          wake();
        }),
    );
    // A refusal is awaited where the test expects it.
    over.catch(() => wake());
    return {
      events,
      over,
      until: async (event: string): Promise<void> => {
        events.length = 0;
        while (!events.includes(event)) {
          await Promise.race([
            new Promise<void>((resolve) => {
              wake = resolve;
            }),
            over,
          ]);
        }
      },
      stop: (): Promise<ReceiveSummary> => {
        controller.abort();
        return over;
      },
    };
  };

  beforeAll(async () => {
    ({ directory: binDirectory } = await findServerBinaries());
    server = await startTestServer({ max_slot_wal_keep_size: '2GB' });
    await sql(
      server.connection,
      'postgres',
      'CREATE DATABASE shop',
      // No more than the guide asks for.
      "CREATE ROLE archivist LOGIN REPLICATION PASSWORD 'archive this'",
    );
    // A function belongs to its database.
    await sql(server.connection, 'shop', 'GRANT EXECUTE ON FUNCTION pg_switch_wal() TO archivist');
    spool = await mkdtemp(join(tmpdir(), 'hf-spool-'));
    harness = await startPostgresHarness({
      connection: archivist(),
      database: 'shop',
      parameters: {
        source_id: SOURCE,
        compression_level: 1,
        wal: { method: 'receive', spool, partial_every_seconds: 1, spool_limit_bytes: 16_777_216 },
      },
    });
    archive = new WalArchive(new Repository(localStore(harness.storage), SOURCE), {
      assertMayWrite: () => {},
      log: quiet,
    });
  });
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
  });
  afterAll(async () => {
    await harness?.close();
    await server?.stop();
    await rm(spool, { recursive: true, force: true });
  });

  it('loses nothing of a server under load, and stores what is finished before it ends', async () => {
    const receiver = receive();
    await receiver.until('streaming');
    const bench = async (...args: string[]): Promise<void> => {
      const { host, port, user, password } = server.connection;
      const env = {
        LC_ALL: 'C',
        PGHOST: host,
        PGPORT: String(port),
        PGUSER: user,
        PGPASSWORD: password,
        PGDATABASE: 'shop',
      };
      const child = spawn(join(binDirectory, 'pgbench'), args, { env, stdio: 'ignore' });
      expect(await new Promise((resolve) => child.once('close', resolve))).toBe(0);
    };
    await bench('-i', '-q', '-s', '3');
    await bench('-n', '-c', '4', '-T', '2');
    const last = await finishSegment();
    await archived(last);
    const summary = await receiver.stop();
    expect(summary).toMatchObject({ last_segment: last, left_in_spool: 0 });
    expect(summary.stored_segments).toBeGreaterThan(2);
    const survey = await archive.survey();
    expect(survey && holesIn(survey)).toEqual([]);
    // Byte for byte what the server wrote.
    const target = join(tmpdir(), `hf-last-${process.pid}`);
    await archive.get(last, target, { keys: {} });
    const own = join(server.directory, 'data', 'pg_wal', last);
    expect((await readFile(target)).equals(await readFile(own))).toBe(true);
    await rm(target);
    expect(await status()).toMatchObject({ state: 'stopped', alarms: [], store_failing_since: null });
  });

  it('proves itself to check-wal and get-backup-info, and refuses a second receiver', async () => {
    const receiver = receive();
    await receiver.until('streaming');
    expect(await harness.call('check-wal', { timeout_seconds: 20 })).toMatchObject({ archived: true, gaps: [] });
    const info = await harness.call('get-backup-info');
    const wal = (info.provider as JsonObject)['wal'] as JsonObject;
    expect(wal).toMatchObject({ method: 'receive', gap_segments: 0, slot: { name: SLOT, active: true } });
    expect(wal['receiver']).toMatchObject({ running: true, slot: SLOT });
    const error = await receive().over.then(
      () => undefined,
      (cause: unknown) => cause,
    );
    expect(error).toMatchObject({ code: 'INVALID_STATE', message: expect.stringMatching(/another receiver/) });
    await receiver.stop();
    expect((await harness.call('check-wal', { timeout_seconds: 1 }))['problem']).toMatch(/Run holdfast wal receive/);
    expect((await harness.call('get-backup-info'))['warnings']).toContainEqual(
      expect.stringMatching(/Nothing receives the log now/),
    );
  });

  it('keeps everything in the spool while the storage fails, says so, and catches up', async () => {
    const receiver = receive();
    await receiver.until('streaming');
    await archived(await finishSegment());
    const root = join(harness.storage, 'v1', SOURCE);
    for (const name of ['wal', 'wal-sha256']) {
      await rename(join(root, name), join(root, `${name}-away`));
      await writeFile(join(root, name), 'in the way');
    }
    const segments = [await finishSegment(), await finishSegment(), await finishSegment()];
    await receiver.until('store_failed');
    await expect.poll(async () => (await status())?.spool_files, { timeout: 20_000 }).toBeGreaterThanOrEqual(3);
    await expect
      .poll(async () => (await status())?.alarms.join(' '), { timeout: 20_000 })
      .toMatch(/more than spool_limit_bytes/);
    expect((await status())?.alarms.join(' ')).toMatch(/nothing is lost/);
    expect((await status())?.store_failing_since).not.toBeNull();
    for (const name of ['wal', 'wal-sha256']) {
      await rm(join(root, name));
      await rename(join(root, `${name}-away`), join(root, name));
    }
    for (const segment of segments) await archived(segment);
    await expect.poll(async () => (await status())?.alarms, { timeout: 20_000 }).toEqual([]);
    await receiver.stop();
  });

  it('ends though the storage hangs, and leaves in the spool what that has not taken', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'hf-hangs-'));
    const store = localStore(join(folder, 'store'));
    let hanging = (): void => {};
    const hangs = new Promise<void>((resolve) => {
      hanging = resolve;
    });
    const put: ObjectStore['put'] = (key, body, options = {}) => {
      // A whole segment, not what is stored of one that is being written.
      if (!/[0-9A-F]{24}\.zst$/.test(key)) return store.put(key, body, options);
      hanging();
      return new Promise((_, reject) => {
        options.signal?.addEventListener('abort', () => reject(options.signal?.reason), { once: true });
      });
    };
    const controller = new AbortController();
    const over = receiveWal({
      runtime: {
        now: () => new Date(),
        random: (count) => randomBytes(count),
        sleep: (ms, signal) => setTimeout(ms, undefined, { signal }),
        log: quiet,
        workDirectory: async () => folder,
        assertMayWrite: () => {},
      },
      connection: server.connection,
      archive: new WalArchive(new Repository({ ...store, put }, 'hangs'), { assertMayWrite: () => {}, log: quiet }),
      storing: { sealing: { scheme: 'none' }, level: 1 },
      binDirectory,
      slot: 'hangs',
      spool: join(folder, 'spool'),
      partialEverySeconds: 3600,
      spoolLimitBytes: 1e9,
      statusFile: join(folder, 'status.json'),
      sourceName: 'app/hangs',
      signal: controller.signal,
      drainMs: 50,
      seen: (event) => {
        if (event === 'streaming') void finishSegment();
      },
    });
    await hangs;
    controller.abort();
    expect(await over).toMatchObject({ stored_segments: 0, left_in_spool: expect.any(Number) });
    expect((await over).left_in_spool).toBeGreaterThan(0);
    expect((await readdir(join(folder, 'spool'))).some((name) => /^[0-9A-F]{24}$/.test(name))).toBe(true);
    await sql(server.connection, 'postgres', "SELECT pg_drop_replication_slot('hangs')");
    await rm(folder, { recursive: true });
  });

  it('goes on when the server ends its connection', async () => {
    const receiver = receive();
    await receiver.until('streaming');
    const again = receiver.until('streaming');
    await sql(server.connection, 'postgres', 'SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots');
    await again;
    await archived(await finishSegment());
    await receiver.stop();
  });

  it('stores the segment that is being written, and drops it for the whole one', async () => {
    const receiver = receive();
    await receiver.until('streaming');
    await sql(server.connection, 'postgres', "SELECT pg_logical_emit_message(true, 'test', 'y')");
    await receiver.until('partial');
    const current = await one('SELECT pg_walfile_name(pg_current_wal_lsn())');
    await expect.poll(() => archive.has(`${current}.partial`), { timeout: 20_000 }).toBe(true);
    const whole = await finishSegment();
    await archived(whole);
    await expect.poll(() => archive.has(`${whole}.partial`), { timeout: 20_000 }).toBe(false);
    await receiver.stop();
  });

  it('comes back after kill -9 without a loss or a duplicate, and ends what was left of it', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'hf-recv-'));
    const config = join(folder, 'holdfast.yaml');
    const { host, port, user, password } = archivist();
    await writeFile(
      config,
      JSON.stringify({
        namespace: 'app',
        shop: {
          defines: 'postgresql/server',
          ...{ host, port, user, password: '${env:PG_PASSWORD}', database: 'shop', ssl_mode: 'disable' },
          ...{ source_id: SOURCE, storage: { type: 'local', path: harness.storage }, encryption: 'none' },
          wal: { method: 'receive', spool },
        },
      }),
    );
    const start = (): ChildProcess => {
      const args = [
        join(ROOT, 'src/main.ts'),
        '--config',
        config,
        '--state-dir',
        folder,
        'wal',
        'receive',
        '--entity',
        'app/shop',
      ];
      const child = spawn(process.execPath, args, { env: { ...process.env, PG_PASSWORD: password }, stdio: 'ignore' });
      children.push(child);
      return child;
    };
    const active = () => one(`SELECT active_pid FROM pg_replication_slots WHERE slot_name = '${SLOT}'`);
    const isActive = () => expect.poll(active, { timeout: 20_000 }).not.toBe('null');
    const ended = (child: ChildProcess) => new Promise((resolve) => child.once('close', (code) => resolve(code)));
    const first = start();
    await isActive();
    await archived(await finishSegment());
    const dead = ended(first);
    first.kill('SIGKILL');
    await dead;
    const orphan = await active();
    expect(orphan).not.toBe('null');
    const meanwhile = [await finishSegment(), await finishSegment()];
    const second = start();
    for (const segment of meanwhile) await archived(segment);
    await expect.poll(active, { timeout: 20_000 }).not.toBe(orphan);
    await isActive();
    await archived(await finishSegment());
    const clean = ended(second);
    second.kill('SIGTERM');
    expect(await clean).toBe(0);
    const survey = await archive.survey();
    expect(survey && holesIn(survey)).toEqual([]);
    const left = (await readdir(spool)).filter((name) => /^[0-9A-F]{24}$/.test(name));
    expect(left.length).toBeLessThanOrEqual(1);
    await rm(folder, { recursive: true, force: true });
  });

  it('refuses another server, and an older timeline than the archive has', async () => {
    const history = join(harness.storage, 'v1', SOURCE, 'wal', '00000002');
    await archive.repository.store.put(
      `v1/${SOURCE}/wal/00000002/00000002.history`,
      chunks('1\t0/9000000\tpromoted\n'),
    );
    expect(await receive().over.catch((cause: unknown) => cause)).toMatchObject({
      code: 'INVALID_STATE',
      message: 'the server is on timeline 1, and the archive already has timeline 2',
    });
    await rm(history, { recursive: true });
    const source = JSON.parse(await readFile(join(harness.storage, 'v1', SOURCE, 'wal.json'), 'utf8')) as JsonObject;
    await writeFile(
      join(harness.storage, 'v1', SOURCE, 'wal.json'),
      JSON.stringify({ ...source, system_identifier: '42' }),
    );
    expect(await receive().over.catch((cause: unknown) => cause)).toMatchObject({ code: 'INTEGRITY_FAILED' });
  });
});

async function* chunks(text: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(text);
}
