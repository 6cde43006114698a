import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { Plan } from '../../src/core/plan.ts';
import type { RecoveryPoint, RestoreJob } from '../../src/core/schemas.ts';
import type { ConfirmationDetails } from '../../src/engine/api.ts';
import * as tools from '../../tools/mongodb-atlas.ts';
import { type AtlasBench, DEFINES, PROJECT, startAtlas, type Trace } from '../support/atlas.ts';
import { ANA, BOSS, type Harness, startHarness } from '../support/harness.ts';

const SHOP = 'sandbox-cluster';

let atlas: AtlasBench;
let harness: Harness | undefined;
beforeEach(async () => {
  atlas = await startAtlas();
});
afterEach(async () => {
  await harness?.close();
  harness = undefined;
  await atlas.server.close();
});

const state = () => atlas.simulator.state;
const orders = (collections: readonly string[] = ['shop.orders']): JsonObject => ({
  snapshot_id: atlas.newest(),
  collections: [...collections],
});
const trace = (): Trace => ({ results: {}, handles: {}, progress: [] });
const codeOf = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => 'it ran',
    (cause: unknown) => (cause instanceof HoldfastError ? cause.code : cause),
  );
const posts = (): string[] =>
  atlas.server
    .writes()
    .filter(({ path }) => !path.includes('oauth'))
    .map(({ method, path }) => `${method} ${path.split('/').at(-1)}`);

describe('restoring some collections of an Atlas cluster', () => {
  it('makes copies beside what there is, without touching it, and names them', async () => {
    const before = state().content(SHOP);
    const { output, plan } = await atlas.operate<RestoreJob>(tools.restoreCollections, {
      ...orders(['shop.orders']),
      databases: ['audit'],
    });
    expect(plan).not.toHaveProperty('risk');
    expect(plan).toMatchObject({ target: 'sandbox/sandbox-cluster', loses: expect.stringMatching(/^nothing/) });
    expect(output).toMatchObject({ status: 'succeeded', usable: true, percent: 100 });
    const after = state().content(SHOP);
    expect(after).toMatchObject(before);
    const added = Object.entries(after).flatMap(([database, held]) =>
      Object.keys(held)
        .map((name) => `${database}.${name}`)
        .filter((name) => before[database]?.[name.slice(database.length + 1)] === undefined),
    );
    expect(added).toHaveLength(2);
    for (const name of added) expect(name).toMatch(/_restored_[0-9a-f]{8}/);
    const made = (output.provider?.['collections'] ?? []) as { source: string; target: string; documents: number }[];
    expect(made.map(({ target }) => target).sort()).toEqual(added.sort());
    expect(made.find(({ source }) => source === 'shop.orders')).toMatchObject({ documents: 12_000 });
  });

  it('replaces collections only after a person agreed, with a safety snapshot and the way back', async () => {
    harness = await startHarness({
      modules: { own: tools },
      entities: [
        {
          key: 'my-app/db',
          defines: DEFINES,
          parameters: {
            name: SHOP,
            project_id: PROJECT,
            client_id: 'mdb_sa_id_sandbox',
            client_secret: '${env:MONGODB_ATLAS_CLIENT_SECRET}',
          },
          endpoint: atlas.server.origin,
        },
      ],
    });
    Object.assign(state(), { snapshotMs: 50, restoreMs: 50 });
    const { engine } = harness;
    const run = (action: string, input: JsonObject, token?: string) =>
      engine.call({
        principal: ANA,
        entity: 'my-app/db',
        action,
        input,
        wait: 'end',
        ...(token === undefined ? {} : { token }),
      });
    const approved = async (action: string, input: JsonObject) => {
      const refusal = (await run(action, input).catch((cause: unknown) => cause)) as HoldfastError;
      expect(refusal.code).toBe('CONFIRMATION_REQUIRED');
      const { plan, confirmation } = refusal.details as unknown as ConfirmationDetails;
      expect(plan).toMatchObject({ risk: 'overwrite', alternatives: [{ call: { action: 'restore-collections' } }] });
      expect(plan.loses).toMatch(/every document of shop\.orders in 'sandbox-cluster'.*what was written after/);
      await engine.approve({ confirmation: confirmation.id, by: BOSS, via: 'terminal', typedTarget: plan.target });
      const outcome = await run(action, input, confirmation.token);
      return outcome.kind === 'operation' ? outcome.operation : undefined;
    };
    const input = { ...orders(), write_strategy: 'OVERWRITE_EXISTING' };
    const live = state().content(SHOP);
    const done = await approved('restore-collections', input);
    expect(done?.status).toBe('succeeded');
    expect(state().content(SHOP)).toEqual({ ...live, shop: { ...live['shop'], orders: 12_000 } });
    expect(done?.undo).toMatchObject({
      action: 'restore-collections',
      input: { collections: ['shop.orders'], write_strategy: 'OVERWRITE_EXISTING', index_strategy: 'ALL_EXCEPT_TTL' },
    });
    const back = done?.undo?.['input'] as JsonObject;
    expect((await approved('restore-collections', back))?.status).toBe('succeeded');
    expect(state().content(SHOP)).toEqual(live);
  });

  it('goes to a moment, and into another cluster', async () => {
    const at = Math.floor(atlas.server.clock.now().getTime() / 1000) - 3 * 3600;
    await atlas.operate(tools.restoreCollections, {
      restore_timestamp: at,
      collections: ['shop.customers'],
      target_cluster: 'drill-target',
    });
    const [database, held] = Object.entries(state().content('drill-target'))[0]!;
    expect(database).toBe('shop');
    expect(Object.entries(held)).toEqual([[expect.stringMatching(/^customers_restored_/), 850]]);
  });

  it('fails where a collection was not restored, and tells which', async () => {
    state().unsupported.add('shop.customers');
    const work = atlas.operate(tools.restoreCollections, orders(['shop.orders', 'shop.customers']));
    await expect(work).rejects.toMatchObject({
      code: 'INVALID_STATE',
      message: '1 of 2 collections were not restored',
      details: {
        collections: [
          { source: 'shop.orders', state: 'SUCCESSFUL' },
          { source: 'shop.customers', state: 'UNSUPPORTED' },
        ],
      },
    });
    const job = state().collectionJobs[0]!;
    const status = await atlas.read<RestoreJob>(tools.getRestoreStatus, { job_id: job.id });
    expect(status).toMatchObject({
      status: 'succeeded',
      usable: false,
      provider: { not_restored: ['shop.customers'] },
    });
    state().failNext = 'restore';
    expect(await codeOf(atlas.operate(tools.restoreCollections, orders()))).toBe('INVALID_STATE');
    const { jobs } = await atlas.read<{ jobs: RestoreJob[] }>(tools.listRestoreJobs);
    expect(jobs.slice(0, 2).map(({ status, provider }) => [status, provider?.['delivery']])).toEqual([
      ['failed', 'collections'],
      ['succeeded', 'collections'],
    ]);
  });

  it.each<[string, JsonObject, string]>([
    ['nothing', { collections: undefined }, 'INVALID_PARAMETER'],
    ['a name without a database', { collections: ['orders'] }, 'INVALID_PARAMETER'],
    ['a system database', { collections: ['admin.users'] }, 'INVALID_PARAMETER'],
    ['a path', { databases: ['../shop'] }, 'INVALID_PARAMETER'],
    ['a collection twice', { databases: ['shop'] }, 'INVALID_PARAMETER'],
    ['what the snapshot does not hold', { collections: ['shop.order'] }, 'INVALID_PARAMETER'],
    ['a database that it does not hold', { databases: ['shops'] }, 'INVALID_PARAMETER'],
    ['two origins', { restore_timestamp: 1_790_000_000 }, 'INVALID_PARAMETER'],
    [
      'a moment outside of the window',
      { snapshot_id: undefined, restore_timestamp: 1_500_000_000 },
      'INVALID_PARAMETER',
    ],
    ['a Flex cluster', { target_cluster: 'flex-spare' }, 'CLUSTER_TIER_NOT_SUPPORTED'],
    ['no cluster', { target_cluster: 'no-such-cluster' }, 'RESOURCE_NOT_FOUND'],
  ])('refuses %s before anything is sent', async (_, change, code) => {
    const input = Object.fromEntries(
      Object.entries({ ...orders(), ...change }).filter(([, value]) => value !== undefined),
    ) as JsonObject;
    expect(await codeOf(atlas.planOf(tools.restoreCollections, input))).toBe(code);
    expect(posts()).toEqual([]);
  });

  it('refuses when the target changed after the plan', async () => {
    const context = await atlas.connect();
    const plan = (await atlas.planOf(tools.restoreCollections, orders(), context)) as unknown as Plan;
    state().cluster(SHOP).size = 'M30';
    await expect(atlas.step(tools.restoreCollections, 'restore', orders(), plan, context)).rejects.toMatchObject({
      code: 'INVALID_STATE',
      details: { outcome: 'not_sent' },
    });
    expect(posts()).toEqual([]);
  });

  it.each(['CREATE_NEW', 'OVERWRITE_EXISTING'])(
    'finds a %s job again whose answer was lost',
    async (write_strategy) => {
      const context = await atlas.connect();
      const input = { ...orders(), write_strategy };
      await atlas.operate(tools.restoreCollections, input);
      const plan = (await atlas.planOf(tools.restoreCollections, input, context)) as unknown as Plan;
      const seen = trace();
      expect(await atlas.recover(tools.restoreCollections, 'restore', input, plan, context, seen)).toEqual({
        state: 'not_begun',
      });
      atlas.server.fault({ kind: 'lost', method: 'POST', path: '/collectionRestoreJobs', times: 1 });
      expect(await codeOf(atlas.step(tools.restoreCollections, 'restore', input, plan, context, seen))).not.toBe(
        'it ran',
      );
      expect(await atlas.recover(tools.restoreCollections, 'restore', input, plan, context, seen)).toEqual({
        state: 'done',
        result: { job_id: state().collectionJobs.at(-1)!.id },
      });
      expect(posts()).toHaveLength(2);
      state().collectionJobs.pop();
      expect(await atlas.recover(tools.restoreCollections, 'restore', input, plan, context, seen)).toMatchObject({
        state: 'not_begun',
      });
    },
  );

  it('says what it could not look at', async () => {
    state().denied.set('GET /databases', 'USER_UNAUTHORIZED');
    const plan = await atlas.planOf(tools.restoreCollections, orders());
    expect(plan.unknowns?.join(' ')).toMatch(/whether the backup holds all that is named/);
    state().denied.set('GET /collectionRestoreJobs', 'USER_UNAUTHORIZED');
    const context = await atlas.connect();
    const seen = trace();
    await atlas.step(tools.restoreCollections, 'restore', orders(), plan as unknown as Plan, context, seen);
    seen.handles['restore'] = seen.handles['restore']!.slice(0, 1);
    const input = orders();
    expect(
      await atlas.recover(tools.restoreCollections, 'restore', input, plan as unknown as Plan, context, seen),
    ).toMatchObject({ state: 'unknown' });
  });

  it('names the collections of a database in a snapshot', async () => {
    const snapshot_id = atlas.newest();
    const found = await atlas.read<RecoveryPoint>(tools.describeSnapshot, { snapshot_id, database: 'shop' });
    expect(found.provider).toMatchObject({ databases: ['audit', 'shop'], collections: ['customers', 'orders'] });
    const none = await atlas.read<RecoveryPoint>(tools.describeSnapshot, { snapshot_id, database: 'nothing' });
    expect(none.provider).not.toHaveProperty('collections');
  });
});

describe('a cluster that was deleted with its backups retained', () => {
  it('has its snapshots listed and restored onto another cluster', async () => {
    const context = await atlas.connect({ name: 'old-orders' });
    const { snapshots } = await atlas.read<{ snapshots: RecoveryPoint[] }>(tools.listSnapshots, {}, context);
    expect(snapshots).toHaveLength(2);
    const snapshot_id = snapshots[0]!.id;
    const input = { snapshot_id, target_cluster: 'drill-target' };
    const { output, plan } = await atlas.operate<RestoreJob>(tools.restore, input, { context });
    expect(plan.loses).toMatch(/ALL data in cluster 'drill-target'/);
    expect(output).toMatchObject({ status: 'succeeded', usable: true });
    expect(state().content('drill-target')).toEqual({ orders: { lines: 1_200 } });
    expect(await atlas.read(tools.getRestoreStatus, { job_id: output.job_id }, context)).toMatchObject({
      usable: true,
    });
  });

  it('is told apart from one that never was, with what it left behind', async () => {
    const read = async (name: string) =>
      (await atlas
        .read(tools.getBackupInfo, {}, await atlas.connect({ name }))
        .catch((cause: unknown) => cause)) as HoldfastError;
    expect(await read('old-orders')).toMatchObject({
      code: 'RESOURCE_NOT_FOUND',
      message: expect.stringMatching(/is deleted; its snapshots were kept/),
      hint: expect.stringMatching(/target_cluster/),
      details: { snapshots: 2 },
    });
    expect((await read('never-was')).message).toMatch(/knows no cluster/);
    const context = await atlas.connect({ name: 'old-orders' });
    expect(await codeOf(atlas.planOf(tools.restore, { snapshot_id: atlas.newest('old-orders') }, context))).toBe(
      'RESOURCE_NOT_FOUND',
    );
    const { mongodbAtlas } = await import('../../src/providers/mongodb-atlas/provider.ts');
    const options = await mongodbAtlas.recoveryOptions(context as never, undefined);
    expect(options).toHaveLength(2);
    for (const { call } of options) {
      expect(await codeOf(atlas.planOf(tools.restore, call.input as JsonObject, context))).toBe('INVALID_PARAMETER');
    }
  });
});
