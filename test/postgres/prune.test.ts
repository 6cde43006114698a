import { spawn } from 'node:child_process';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { ConfirmationDetails } from '../../src/engine/api.ts';
import { type Connection, openSession } from '../../src/postgres/connection.ts';
import { BACKUP_LOCK } from '../../src/postgres/dump.ts';
import { timeOfId } from '../../src/postgres/manifest.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import { Repository } from '../../src/postgres/repository.ts';
import type { Host, OwnStep } from '../../src/providers/postgresql/entity.ts';
import { Retention } from '../../src/providers/postgresql/retention.ts';
import { localStore } from '../../src/storage/local.ts';
import type { ObjectStore } from '../../src/storage/storage.ts';
import { BOSS, VIEWER } from '../support/harness.ts';
import {
  describePostgres,
  type PostgresHarness,
  type PostgresHarnessOptions,
  sql,
  startPostgresHarness,
  startTestServer,
} from '../support/postgres.ts';
import type { VictimOrders } from '../support/postgres-victim.ts';

const DAY = 24 * 3600 * 1000;
const SOURCE = 'app-shop-8ebe9076';
const RETENTION = { daily: 3, weekly: 0, monthly: 0, quarterly: 0 };
const victim = fileURLToPath(new URL('../support/postgres-victim.ts', import.meta.url));

describePostgres('a prune', () => {
  let server: PrivateServer;
  let connection: Connection;
  /** A storage with one real backup, to be copied. */
  let model: string;
  let storage: string;
  let real: string;
  const open: PostgresHarness[] = [];
  let serial = 0;
  const root = (): string => join(storage, 'v1', SOURCE);

  const harness = async (options: Partial<PostgresHarnessOptions> = {}): Promise<PostgresHarness> => {
    const parameters = { retention: RETENTION, ...options.parameters };
    const started = await startPostgresHarness({ connection, database: 'shop', storage, ...options, parameters });
    open.push(started);
    return started;
  };
  const idAt = (at: Date, name: string, kind = 'logical'): string =>
    `${at.toISOString().replace(/[-:]|\.\d+/g, '')}-${kind}-${name.padStart(6, '0')}`;
  /** Puts a copy of the real backup there as one of so many days ago, changed as told. */
  const plant = async (daysAgo: number, change: JsonObject = {}, kind = 'logical'): Promise<string> => {
    // At noon of a day before that of the real one, whenever this runs.
    const at = new Date(Math.floor(timeOfId(real)!.getTime() / DAY) * DAY + DAY / 2 - daysAgo * DAY);
    serial += 1;
    const id = idAt(at, String(serial), kind);
    const from = join(root(), 'backups', real);
    const to = join(root(), 'backups', id);
    await cp(from, to, { recursive: true });
    const manifest = JSON.parse(await readFile(join(to, 'manifest.json'), 'utf8')) as JsonObject;
    const times = { started_at: at.toISOString(), snapshot_at: at.toISOString(), finished_at: at.toISOString() };
    await writeFile(join(to, 'manifest.json'), JSON.stringify({ ...manifest, id, kind, ...times, ...change }));
    return id;
  };
  const plantDays = async (first: number, last: number): Promise<string[]> => {
    const ids: string[] = [];
    for (let days = first; days <= last; days += 1) ids.push(await plant(days));
    return ids;
  };
  const ids = async (): Promise<string[]> => (await readdir(join(root(), 'backups'))).sort().reverse();
  const planOf = async ({ engine }: PostgresHarness, input: JsonObject = {}) => {
    const call = { principal: BOSS, entity: 'app/shop', action: 'prune-snapshots', input, dryRun: true };
    const outcome = await engine.call(call);
    if (outcome.kind !== 'plan') throw new Error('no plan');
    return outcome;
  };

  beforeAll(async () => {
    server = await startTestServer();
    connection = server.connection;
    await sql(connection, 'postgres', 'CREATE DATABASE shop');
    await sql(connection, 'shop', 'CREATE TABLE t AS SELECT generate_series(1, 10) AS v');
    model = await mkdtemp(join(tmpdir(), 'hf-model-'));
    const first = await startPostgresHarness({ connection, database: 'shop', storage: model });
    real = (await first.call('create-snapshot')).id;
    await first.close();
  });
  beforeEach(async () => {
    storage = await mkdtemp(join(tmpdir(), 'hf-prune-'));
    await cp(model, storage, { recursive: true });
  });
  afterEach(async () => {
    for (const each of open.splice(0)) await each.close();
    await rm(storage, { recursive: true, force: true });
  });
  afterAll(async () => {
    await server?.stop();
    if (model !== undefined) await rm(model, { recursive: true, force: true });
  });

  it('deletes what its plan named, with reasons, and nothing the second time', async () => {
    const days = await plantDays(1, 4);
    const own = await harness();
    const { plan, decision } = await planOf(own);
    expect(decision).toBe('allow');
    expect(plan).toMatchObject({
      risk: 'change',
      loses: expect.stringMatching(/^2 of 5 backups, of moments from /),
      newest_recovery_point: { id: real },
      blast_radius: { backups: 5, delete: 2, keep: 3 },
    });
    const { deleting, keeping } = plan.blast_radius as { deleting: JsonObject[]; keeping: JsonObject[] };
    expect(deleting.map(({ snapshot_id }) => snapshot_id)).toEqual(days.slice(2));
    expect(deleting[0]!['reasons']).toEqual(['newer ones have taken its place in every period']);
    expect(keeping[0]).toMatchObject({ snapshot_id: real, reasons: ['the newest', expect.stringMatching(/^daily /)] });
    // An ordinary prune under a declared retention needs no person, but an operator it does.
    expect(await own.fails('prune-snapshots', {}, { principal: VIEWER })).toMatchObject({ code: 'POLICY_DENIED' });
    const plan_hash = plan.blast_radius['plan_hash'] as string;
    const result = await own.call('prune-snapshots', { plan_hash });
    expect(result).toMatchObject({ deleted: days.slice(2), deleted_count: 2, kept_count: 3 });
    expect(result['freed_bytes']).toBe(plan.blast_radius['delete_bytes']);
    expect(await ids()).toEqual([real, ...days.slice(0, 2)]);
    expect(await own.call('prune-snapshots')).toMatchObject({ deleted: [], deleted_count: 0, freed_bytes: 0 });
    expect(await ids()).toHaveLength(3);
    await own.call('verify-snapshot', { snapshot_id: days[0]! });
  });

  it('works while the server is down', async () => {
    await plantDays(1, 4);
    const away = await harness({ connection: { ...connection, port: 1 } });
    expect(await away.call('prune-snapshots')).toMatchObject({ deleted_count: 2 });
  });

  it('waits for a person when it removes more than half, or nobody has declared a retention', async () => {
    await plantDays(1, 6);
    const sweeping = await harness();
    const before = await ids();
    expect(await sweeping.fails('prune-snapshots')).toMatchObject({
      code: 'CONFIRMATION_REQUIRED',
      details: { plan: { risk: 'delete', warnings: ['More than half of the backups, or all but one, would go.'] } },
    });
    expect(await ids()).toEqual(before);
    expect(await sweeping.approved('prune-snapshots')).toMatchObject({ deleted_count: 4 });
    const far = await plant(400);
    const undeclared = await harness({ parameters: { retention: undefined as never } });
    const { plan } = await planOf(undeclared);
    expect(plan.risk).toBe('change');
    await plant(400.01);
    expect((await planOf(undeclared)).plan).toMatchObject({
      risk: 'delete',
      warnings: [expect.stringContaining('declares no retention')],
    });
    await undeclared.approved('prune-snapshots');
    expect(await ids()).toContain(far);
  });

  it('refuses a set that has changed since it was approved, or since the dry run', async () => {
    await plantDays(1, 6);
    const own = await harness();
    const refusal = await own.fails('prune-snapshots');
    const { confirmation, plan } = refusal.details as unknown as ConfirmationDetails;
    await own.engine.approve({ confirmation: confirmation.id, by: BOSS, via: 'terminal', typedTarget: plan.target });
    await plant(7);
    const before = await ids();
    expect(await own.fails('prune-snapshots', {}, { token: confirmation.token })).toMatchObject({
      code: 'PLAN_CHANGED',
    });
    const plan_hash = plan.blast_radius['plan_hash'] as string;
    expect(await own.fails('prune-snapshots', { plan_hash })).toMatchObject({ code: 'PLAN_CHANGED' });
    expect(await ids()).toEqual(before);
  });

  it('keeps what is held; delete-snapshot refuses it too; releasing it is guarded', async () => {
    const days = await plantDays(1, 4);
    const held = days[3]!;
    const own = await harness();
    const done = await own.call('hold-snapshot', { snapshot_id: held, reason: 'audit\u202e of 2026' });
    expect(done).toMatchObject({ held: true, reason: 'audit of 2026' });
    expect(await own.fails('hold-snapshot', { snapshot_id: held, reason: 'again' })).toMatchObject({
      code: 'RESOURCE_EXISTS',
      details: { reason: 'audit of 2026', by: 'stdio:ana' },
    });
    expect(await own.fails('hold-snapshot', { snapshot_id: 'nothing', reason: 'x' })).toMatchObject({
      code: 'BACKUP_NOT_FOUND',
    });
    expect(await own.fails('delete-snapshot', { snapshot_id: held })).toMatchObject({
      code: 'INVALID_STATE',
      message: expect.stringContaining('audit of 2026'),
      hint: expect.stringContaining('release-snapshot'),
    });
    expect(await own.call('describe-snapshot', { snapshot_id: held })).toMatchObject({
      provider: { held: 'audit of 2026' },
    });
    expect(await own.call('prune-snapshots')).toMatchObject({ deleted: [days[2]] });
    expect(await own.fails('release-snapshot', { snapshot_id: days[0]! })).toMatchObject({ code: 'INVALID_STATE' });
    expect(await own.fails('release-snapshot', { snapshot_id: held })).toMatchObject({
      code: 'CONFIRMATION_REQUIRED',
      details: { plan: { risk: 'weaken', blast_radius: { next_prune: 'deletes it', held_by: 'stdio:ana' } } },
    });
    await own.approved('release-snapshot', { snapshot_id: held });
    expect(await own.call('prune-snapshots')).toMatchObject({ deleted: [held] });
  });

  it('takes a hold that cannot be read for one', async () => {
    const days = await plantDays(1, 4);
    await mkdir(join(root(), 'holds'), { recursive: true });
    await writeFile(join(root(), 'holds', `${days[3]}.json`), '{ half');
    const own = await harness();
    expect(await own.call('prune-snapshots')).toMatchObject({ deleted: [days[2]] });
  });

  it('leaves a backup that is being read, until whoever reads it must have died', async () => {
    const days = await plantDays(1, 4);
    const repository = new Repository(localStore(storage), SOURCE);
    const note = { schema: 'holdfast.pg.use/1', purpose: 'restore', since: new Date().toISOString() } as const;
    const soon = new Date(Date.now() + DAY).toISOString();
    const done = await repository.noteUse({ ...note, backup_id: days[3]!, expires_at: soon }, 'aa');
    await repository.noteUse({ ...note, backup_id: days[2]!, expires_at: note.since }, 'bb');
    const own = await harness();
    expect(await own.call('prune-snapshots')).toMatchObject({ deleted: [days[2]] });
    // A person may delete it all the same, and is told.
    expect(await own.fails('delete-snapshot', { snapshot_id: days[3]! })).toMatchObject({
      code: 'CONFIRMATION_REQUIRED',
      details: { plan: { warnings: [expect.stringContaining('It is being restored or verified now')] } },
    });
    await done();
    expect(await own.call('prune-snapshots')).toMatchObject({ deleted: [days[3]] });
  });

  it('removes what was never finished after 24 hours, unless a backup runs or nobody can say', async () => {
    const dead = idAt(new Date(Date.now() - 3 * DAY), 'dead');
    const young = idAt(new Date(Date.now() - 3600_000), 'young');
    const busy = idAt(new Date(Date.now() - 3 * DAY), 'busy');
    for (const id of [dead, young, busy]) {
      await mkdir(join(root(), 'backups', id), { recursive: true });
      await writeFile(join(root(), 'backups', id, 'payload.dump.zst'), 'half');
    }
    // What a killed writer leaves, as the store writes it.
    const part = join(root(), 'backups', dead, '.payload.dump.zst.0123456789ab.part');
    await writeFile(part, 'half');
    const old = new Date(Date.now() - 2 * DAY);
    for (const file of ['payload.dump.zst', '.payload.dump.zst.0123456789ab.part']) {
      await utimes(join(root(), 'backups', dead, file), old, old);
    }
    const own = await harness();
    // Of another database of the server, as a safety backup may be.
    const session = await openSession(connection);
    await session.query('SELECT pg_advisory_lock(hashtextextended($1, 0))', [`${BACKUP_LOCK}${SOURCE}`]);
    expect(await own.call('prune-snapshots')).toMatchObject({ unfinished_removed: 0 });
    await session.close();
    const away = await harness({ connection: { ...connection, port: 1 } });
    expect((await planOf(away)).plan.warnings).toEqual([
      expect.stringContaining('1 unfinished backups are left alone'),
    ]);
    expect(await own.call('prune-snapshots')).toMatchObject({ unfinished_removed: 1, deleted_count: 0 });
    expect(await ids()).toEqual([real, busy, young].sort().reverse());
  });

  it('deletes of the write-ahead log only what no kept base needs, and never a history file', async () => {
    const physical = (segment: string): JsonObject => ({
      tools: { holdfast: '0', node: '0', zstd_level: 3, pg_basebackup: '15' },
      payload: [{ ...PAYLOAD, name: 'base.tar.zst', content: 'base' }],
      wal: {
        timeline: 1,
        start_lsn: '0/1000000',
        end_lsn: '0/1000100',
        start_segment: segment,
        end_segment: segment,
        segment_size: 16 * 1024 * 1024,
        included: true,
      },
    });
    const bases: string[] = [];
    for (const days of [0.5, 1.5, 2.5, 3.5]) {
      bases.push(await plant(days, physical(`0000000100000000000000${50 - Math.round(days * 10)}`), 'physical'));
    }
    const line = join(root(), 'wal', '00000001');
    const sums = join(root(), 'wal-sha256', '00000001');
    await mkdir(line, { recursive: true });
    await mkdir(sums, { recursive: true });
    const kept = ['000000010000000000000025.zst', '00000001000000000000004F.zst', '00000002.history', 'stranger.txt'];
    const spent = [
      '000000010000000000000010.zst.age',
      '000000010000000000000024.zst',
      '000000010000000000000011.partial.zst',
    ];
    for (const name of [...kept, ...spent]) await writeFile(join(line, name), name);
    await writeFile(join(sums, '000000010000000000000024'), 'sum');
    const own = await harness();
    const { plan } = await planOf(own);
    expect(plan).toMatchObject({ risk: 'change', blast_radius: { delete: 1, wal_segments: 3 } });
    expect(await own.call('prune-snapshots')).toMatchObject({ deleted: [bases[3]], wal_segments_removed: 3 });
    expect((await readdir(line)).sort()).toEqual(kept.sort());
    expect(await readdir(sums).catch(() => [])).toEqual([]);
    expect(await own.call('prune-snapshots')).toMatchObject({ wal_segments_removed: 0 });
  });

  it('refuses to delete by hand what an incremental backup rests on', async () => {
    const change: JsonObject = {
      tools: { holdfast: '0', node: '0', zstd_level: 3, pg_basebackup: '17' },
      payload: [{ ...PAYLOAD, name: 'base.tar.zst', content: 'base' }],
      wal: {
        timeline: 1,
        start_lsn: '0/1',
        end_lsn: '0/2',
        start_segment: '000000010000000000000001',
        end_segment: '000000010000000000000001',
        segment_size: 16 * 1024 * 1024,
        included: true,
      },
    };
    const full = await plant(2, change, 'physical');
    const incremental = await plant(1, { ...change, parent_id: full }, 'physical');
    const own = await harness();
    expect(await own.fails('delete-snapshot', { snapshot_id: full })).toMatchObject({
      code: 'INVALID_STATE',
      hint: expect.stringContaining(incremental),
    });
  });

  it('refuses while the newest backup lies in the future', async () => {
    await plantDays(1, 4);
    const late = await plant(-1);
    const own = await harness();
    expect(await own.fails('prune-snapshots')).toMatchObject({
      code: 'INVALID_STATE',
      retryable: false,
      message: expect.stringContaining(late),
    });
    expect(await ids()).toHaveLength(6);
  });

  it('goes on when the store keeps one, says which remain, and stops when it is gone', async () => {
    const days = await plantDays(1, 8);
    const store = localStore(storage);
    const refusing = (code: 'INSUFFICIENT_PERMISSIONS' | 'PROVIDER_UNAVAILABLE', part: string): Retention => {
      const locked: ObjectStore = {
        ...store,
        delete: async (key) => {
          if (key.includes(part)) throw new HoldfastError(code, 'the object is locked');
          return store.delete(key);
        },
      };
      const runtime = { now: () => new Date(), assertMayWrite: () => {}, log: { warn: () => {} } };
      const entity = { key: 'app/shop', retention: RETENTION };
      return new Retention({ entity, runtime, repository: () => new Repository(locked, SOURCE) } as unknown as Host);
    };
    const step = {
      signal: new AbortController().signal,
      progress: () => {},
      checkpoint: async () => {},
      handle: undefined,
    } as unknown as OwnStep;
    const run = async (retention: Retention): Promise<unknown> => {
      const plan = await retention.plan(step, {});
      return retention.prune(step, plan as never).catch((cause: unknown) => cause);
    };
    const away = (await run(refusing('PROVIDER_UNAVAILABLE', days[6]!))) as HoldfastError;
    expect(away).toMatchObject({ code: 'PROVIDER_UNAVAILABLE', details: { deleted_count: 4, kept_count: 5 } });
    expect((away.details!['remaining'] as JsonObject[]).map(({ what }) => what)).toEqual([days[6], days[7]]);
    const again = await plant(5);
    const kept = (await run(refusing('INSUFFICIENT_PERMISSIONS', days[6]!))) as HoldfastError;
    expect(kept).toMatchObject({
      code: 'INSUFFICIENT_PERMISSIONS',
      hint: expect.stringContaining('object lock'),
      details: { deleted: [again, days[7]], remaining: [{ what: days[6], code: 'INSUFFICIENT_PERMISSIONS' }] },
    });
    expect(await ids()).toEqual([real, days[0], days[1], days[6]]);
  });

  it.each([
    ['without a confirmation, by the next process', 5],
    ['after one, by nobody', 8],
  ])('that was killed is in order afterwards and finished %s', async (_, count) => {
    const days = await plantDays(1, count);
    const stateDirectory = join(storage, 'state');
    const asking = await harness({ stateDirectory });
    const isGuarded = count > 5;
    let token: string | undefined;
    if (isGuarded) {
      const refusal = await asking.fails('prune-snapshots');
      const { confirmation, plan } = refusal.details as unknown as ConfirmationDetails;
      token = confirmation.token;
      await asking.engine.approve({
        confirmation: confirmation.id,
        by: BOSS,
        via: 'terminal',
        typedTarget: plan.target,
      });
    }
    await asking.close();
    open.pop();
    const orders: VictimOrders = {
      connection,
      storage,
      stateDirectory,
      action: 'prune-snapshots',
      input: {},
      parameters: { retention: RETENTION },
      dieAtProgress: `Deleting ${days[3]}`,
      ...(token === undefined ? {} : { token }),
    };
    expect(await died(orders)).toBe('SIGKILL');
    expect(await ids()).toEqual([real, ...days.filter((id) => id !== days[2])]);
    // Half deleted, as a death between the manifest and the files leaves it.
    await rm(join(root(), 'backups', days[3]!, 'manifest.json'));
    const own = await harness({ stateDirectory });
    const [taken] = await own.engine.resume();
    await expect.poll(async () => (await own.store.operation(taken!.operation_id))?.ended_at).toBeDefined();
    const record = await own.store.operation(taken!.operation_id);
    if (isGuarded) {
      // A confirmation covers one run: what is left waits for the next one.
      expect(record).toMatchObject({ status: 'failed', error: { message: expect.stringContaining('2 of 6 backups') } });
      expect(await ids()).toEqual([real, ...days.filter((id) => id !== days[2] && id !== days[3])]);
      await own.approved('prune-snapshots');
    } else {
      expect(record).toMatchObject({ status: 'succeeded', result: { deleted: days.slice(2), deleted_count: 3 } });
    }
    expect(await ids()).toEqual([real, days[0], days[1]]);
  });

  function died(orders: VictimOrders): Promise<string | null> {
    return new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [victim, JSON.stringify(orders)], { stdio: ['ignore', 'ignore', 'pipe'] });
      let text = '';
      child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      child.once('close', (code, signal) => (code === null || code === 0 ? resolve(signal) : reject(new Error(text))));
    });
  }
});

const PAYLOAD = { bytes: 1, sha256: '0'.repeat(64), plain_bytes: 1, plain_sha256: '0'.repeat(64), encoding: ['zstd'] };
