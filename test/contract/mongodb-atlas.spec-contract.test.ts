import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Action } from '../../src/core/action.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { RestoreJob } from '../../src/core/schemas.ts';
import { mongodbAtlas } from '../../src/providers/mongodb-atlas/provider.ts';
import * as tools from '../../tools/mongodb-atlas.ts';
import { type AtlasBench, CANARY, type Context, DEFINES, startAtlas } from '../support/atlas.ts';
import { granted } from '../support/runtime.ts';
import { type Contract, openContract, specDirectory, specReason } from './serve.ts';

/** Every operation of the API that the adapter calls; one that is missing from the traffic was not checked. */
const USED = [
  'getGroup',
  'getGroupBackupCompliancePolicy',
  'getGroupCluster',
  'getGroupFlexCluster',
  'listGroupClusters',
  'listGroups',
  'listGroupFlexClusters',
  'getGroupClusterBackupSchedule',
  'updateGroupCluster',
  'updateGroupClusterBackupSchedule',
  'getGroupDbAccessHistoryCluster',
  'listGroupClusterBackupSnapshots',
  'listGroupClusterBackupSnapshotShardedClusters',
  'listGroupClusterBackupSnapshotDatabases',
  'getGroupClusterBackupSnapshot',
  'getGroupClusterBackupSnapshotShardedCluster',
  'takeGroupClusterBackupSnapshots',
  'deleteGroupClusterBackupSnapshot',
  'deleteGroupClusterBackupSnapshotShardedCluster',
  'listGroupClusterBackupSnapshotDatabaseCollections',
  'listGroupClusterCollectionRestoreJobs',
  'createGroupClusterCollectionRestoreJob',
  'getGroupClusterCollectionRestoreJob',
  'listGroupClusterCollectionRestoreJobCollections',
  'listGroupClusterBackupRestoreJobs',
  'getGroupClusterBackupRestoreJob',
  'createGroupClusterBackupRestoreJob',
  'listGroupFlexClusterBackupSnapshots',
  'getGroupFlexClusterBackupSnapshot',
  'listGroupFlexClusterBackupRestoreJobs',
  'getGroupFlexClusterBackupRestoreJob',
  'createGroupFlexClusterBackupRestoreJob',
];

const dateOf = (type: string): string => /^application\/vnd\.atlas\.(\d{4}-\d{2}-\d{2})\+json$/.exec(type)?.[1] ?? '';

describe.skipIf(specDirectory === undefined)(`MongoDB Atlas against its API description${specReason}`, () => {
  let contract: Contract;
  let atlas: AtlasBench;

  beforeAll(async () => {
    contract = await openContract({
      document: 'mongodb-atlas.openapi.json',
      beside: [/^POST \/api\/oauth\/token$/],
      // A project without a policy is answered with an empty object, which the description does not foresee.
      allow: [/^getGroupBackupCompliancePolicy: answer 200 \/ must have required property/],
      // A resource is asked for by any date from its version on, and comes back as its own version.
      mediaType: (given, declared, direction) =>
        declared.includes(given) ||
        (direction === 'request' && dateOf(given) !== '' && declared.some((type) => dateOf(type) <= dateOf(given))),
    });
    atlas = await startAtlas((simulator) => contract.wrap(simulator));
  });
  afterAll(() => atlas?.server.close());

  const refusal = (work: Promise<unknown>): Promise<string> =>
    work.then(
      () => 'none',
      (cause: { code?: string }) => cause.code ?? 'no code',
    );

  async function story(name: string, target?: string): Promise<void> {
    const context = await atlas.connect({ name });
    await atlas.read(tools.getBackupInfo, {}, context);
    await atlas.read(tools.listSnapshots, {}, context);
    const snapshot_id = atlas.newest(name);
    await atlas.read(tools.describeSnapshot, { snapshot_id }, context);
    const input = { snapshot_id, ...(target === undefined ? {} : { target_cluster: target }) };
    const { output } = await atlas.operate<RestoreJob>(tools.restore, input, { context });
    await atlas.read(tools.getRestoreStatus, { job_id: output.job_id }, context);
    await atlas.read(tools.listRestoreJobs, {}, context);
  }

  async function replace(name: string): Promise<void> {
    const context: Context = await atlas.connect({ name });
    const { output } = await atlas.operate<{ id: string }>(
      tools.createSnapshot,
      { description: 'contract' },
      { context },
    );
    await atlas.planOf(tools.removeSnapshot, { snapshot_id: output.id }, context);
    await granted(() => atlas.read(tools.removeSnapshot, { snapshot_id: output.id }, context));
  }

  it('holds for a replica set, in place and at a point in time', async () => {
    await story('sandbox-cluster');
    await replace('sandbox-cluster');
    const at = Math.floor(atlas.server.clock.now().getTime() / 1000) - 7200;
    await atlas.operate(tools.restore, { restore_timestamp: at, target_cluster: 'drill-target' }, { safety: true });
    expect(contract.faults).toEqual([]);
  });

  it('holds for a sharded cluster', async () => {
    await story('orders-sharded');
    await replace('orders-sharded');
    expect(contract.faults).toEqual([]);
  });

  it('holds for collections, from a snapshot and a moment', async () => {
    const snapshot_id = atlas.newest();
    await atlas.read(tools.describeSnapshot, { snapshot_id, database: 'shop' });
    const some = { snapshot_id, collections: ['shop.orders'], databases: ['audit'] };
    const { output } = await atlas.operate<RestoreJob>(tools.restoreCollections, some);
    await atlas.read(tools.getRestoreStatus, { job_id: output.job_id });
    const at = Math.floor(atlas.server.clock.now().getTime() / 1000) - 3600;
    const over = { restore_timestamp: at, collections: ['shop.orders'], write_strategy: 'OVERWRITE_EXISTING' };
    await atlas.operate(tools.restoreCollections, over, { safety: true });
    expect(contract.faults).toEqual([]);
  });

  it('holds for a cluster that is deleted', async () => {
    const context = await atlas.connect({ name: 'old-orders' });
    await atlas.read(tools.listSnapshots, {}, context);
    const input = { snapshot_id: atlas.newest('old-orders'), target_cluster: 'drill-target' };
    const { output } = await atlas.operate<RestoreJob>(tools.restore, input, { context });
    await atlas.read(tools.getRestoreStatus, { job_id: output.job_id }, context);
    expect(contract.faults).toEqual([]);
  });

  it('holds for Flex', async () => {
    await story('flex-notes', 'flex-spare');
    expect(contract.faults).toEqual([]);
  });

  it('holds for an API key', async () => {
    atlas.simulator.state.keys.set('abcdwxyz', CANARY);
    const context = await atlas.connect({
      client_id: null,
      client_secret: null,
      public_key: 'abcdwxyz',
      private_key: '${env:KEY}',
    });
    await atlas.operate(tools.createSnapshot, {}, { context });
    expect(contract.faults).toEqual([]);
  });

  it('holds for declared settings', async () => {
    const shop = atlas.simulator.state.cluster('sandbox-cluster');
    Object.assign(shop, { pitr: false, hour: 4, minute: 5, windowDays: 3 });
    shop.policy[1]!.retentionValue = 20;
    const declared = mongodbAtlas.entityTypes[DEFINES]!.sandbox!.parameters['backup_schedule'] as JsonObject;
    const context = await atlas.connect({
      backup_schedule: { ...declared, reference_hour_of_day: 18, reference_minute_of_hour: 0 },
    });
    const { read, write } = mongodbAtlas.settings!;
    const { findings } = await read(context);
    const own = { ...context, input: {}, progress: () => {} } as unknown as Parameters<typeof write>[0];
    for (const name of ['update-cluster', 'update-backup-schedule']) {
      await granted(() =>
        write(
          own,
          name,
          findings.filter(({ change }) => change?.write === name),
        ),
      );
    }
    expect((await read(context)).findings.filter(({ verdict }) => verdict !== 'as_declared')).toEqual([]);
    expect(contract.faults).toEqual([]);
  });

  it('holds for a look through the account', async () => {
    const { runtime, signal } = await atlas.connect();
    const access = { client_id: 'mdb_sa_id_sandbox', client_secret: { secret: 'env', name: 'ATLAS' } };
    const discovery = await mongodbAtlas.discover!({ runtime, signal, access, endpoint: atlas.server.origin });
    expect(discovery?.found).toHaveLength(atlas.simulator.state.clusters.filter(({ deleted }) => !deleted).length);
    expect(contract.faults).toEqual([]);
  });

  it('holds for refusals and odd states', async () => {
    const { state } = atlas.simulator;
    const cases: [string, Action, JsonObject][] = [
      ['free-playground', tools.getBackupInfo, {}],
      ['no-such-cluster', tools.getBackupInfo, {}],
      ['sandbox-cluster', tools.describeSnapshot, { snapshot_id: 'f'.repeat(24) }],
      ['sandbox-cluster', tools.getRestoreStatus, { job_id: 'f'.repeat(24) }],
    ];
    const codes: string[] = [];
    for (const [name, action, input] of cases) {
      codes.push(await refusal(atlas.read(action, input, await atlas.connect({ name }))));
    }
    expect(codes).toEqual([
      'CLUSTER_TIER_NOT_SUPPORTED',
      'RESOURCE_NOT_FOUND',
      'SNAPSHOT_NOT_FOUND',
      'RESOURCE_NOT_FOUND',
    ]);
    await atlas.read(tools.getBackupInfo, {}, await atlas.connect({ name: 'legacy-reports' }));
    state.projects[0]!.compliance = 'ACTIVE';
    await atlas.read(tools.getBackupInfo);
    state.denied.set('GET /clusters', 'USER_UNAUTHORIZED');
    expect(await refusal(atlas.read(tools.getBackupInfo))).toBe('INSUFFICIENT_PERMISSIONS');
    expect(contract.faults).toEqual([]);
  });

  it('has seen every operation that the adapter uses, and needed every allowance', () => {
    expect([...contract.seen].sort()).toEqual([...USED].sort());
    expect(contract.unusedAllowances()).toEqual([]);
  });
});
