import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import type { PlanDraft } from '../../src/core/plan.ts';
import { redisCloud } from '../../src/providers/redis-cloud/provider.ts';
import * as tools from '../../tools/redis-cloud.ts';
import {
  CARTS,
  drive,
  ESSENTIALS,
  failure,
  GLOBAL,
  LAST_GOOD,
  PRO,
  SESSIONS,
  SUBSCRIPTION,
  startWorld,
  type World,
} from '../providers/redis-cloud.support.ts';
import { granted } from '../support/runtime.ts';
import { type Contract, openContract, specDirectory, specReason } from './serve.ts';

// Known by method and path: the names of the description are misleading (its `deleteFixedDatabaseByID` updates).
const USED = [
  'getSubscriptionById',
  'getSubscriptionById_1',
  'getAllSubscriptions_1',
  'getAllSubscriptions',
  'getSubscriptionDatabaseByID',
  'getSubscriptionDatabaseByID_1',
  'getSubscriptionDatabases',
  'getFixedSubscriptionDatabases',
  'getDatabaseBackupStatus',
  'getDatabaseBackupStatus_1',
  'backupDatabase',
  'backupDatabase_1',
  'getDatabaseImportStatus',
  'getDatabaseImportStatus_1',
  'importDatabase',
  'importDatabase_1',
  'getFixedSubscriptionsPlansBySubscriptionId',
  'updateSubscription_1',
  // The update of an Essentials database, whatever its name says.
  'deleteFixedDatabaseByID',
  'updateDatabase',
  'updateCrdbLocalProperties',
  'getTaskById',
  'getAllTasks',
];

describe.skipIf(specDirectory === undefined)(`Redis Cloud against its official API description${specReason}`, () => {
  let contract: Contract;
  let world: World;

  beforeAll(async () => {
    contract = await openContract({
      document: 'redis-cloud.openapi.json',
      // Databases are described with a few of their fields only, `resource` with none.
      openAnswers: true,
      allow: [
        // The service answers with an object, {type, status, description}; the description has a bare word.
        /answer 200 (\/tasks\/\d+)?\/response\/error must be (string|equal to one of the allowed values)/,
      ],
    });
    world = await startWorld((simulator) => contract.wrap(simulator));
  });
  afterAll(async () => {
    await world?.close();
  });

  it('holds every request and every answer to it', async () => {
    const entities = [
      { defines: ESSENTIALS, parameters: CARTS },
      { defines: PRO, parameters: SESSIONS },
    ];
    for (const { defines, parameters } of entities) {
      const context = world.context(defines, parameters);
      await tools.getBackupInfo.run?.(context, {});
      const plan = (await tools.restore.plan?.(context, tools.restore.input.parse(LAST_GOOD))) as PlanDraft;
      expect(plan.facts.target).toBeDefined();
      await drive(tools.createSnapshot, context);
      await drive(tools.createSnapshot, context, { backup_path: 's3://elsewhere/backups/' });
      const { output } = await drive(tools.restore, context, LAST_GOOD, { safety: true });
      await tools.getRestoreStatus.run?.(context, { task_id: output['job_id'] });
      await tools.listSnapshots.run?.(context, {});
      // By name: the lists.
      const named = world.context(defines, { subscription_id: parameters.subscription_id, name: parameters.name });
      await tools.listSnapshots.run?.(named, {});
    }
    await tools.getBackupInfo.run?.(world.context(SUBSCRIPTION, { name: 'shop-essentials' }), {});
    await drive(tools.createSnapshot, world.context(PRO, GLOBAL), { region_name: 'eu-west-1' });
    const remote_backup = { active: true, interval: 'every-12-hours', time_utc: '14:00', storage_type: 'aws-s3' };
    const declared: [string, JsonObject][] = [
      [ESSENTIALS, { ...CARTS, data_persistence: 'none', periodic_backup_path: 's3://elsewhere/' }],
      [PRO, { ...SESSIONS, data_persistence: 'none', remote_backup: { ...remote_backup, storage_path: 's3://b/c/' } }],
      [PRO, { ...GLOBAL, data_persistence: 'none', remote_backup: { active: false } }],
      [SUBSCRIPTION, { name: 'free', support_data_persistence: true }],
    ];
    for (const [defines, parameters] of declared) {
      const context = world.context(defines, parameters);
      const { read, write } = redisCloud.settings!;
      const { findings } = await read(context);
      const open = findings.filter((finding) => finding.change !== undefined);
      const own = { ...context, input: {}, progress: () => {} } as unknown as Parameters<typeof write>[0];
      await granted(() => write(own, open[0]!.change!.write, open));
      expect((await read(context)).findings.filter(({ verdict }) => verdict !== 'as_declared')).toEqual([]);
    }
    const { runtime, signal } = world.context(ESSENTIALS, CARTS);
    const discovery = await redisCloud.discover!({ runtime, signal, access: {}, endpoint: world.server.origin });
    expect(discovery?.problems).toEqual([]);
    expect(contract.faults).toEqual([]);
    for (const operation of USED) expect(contract.seen).toContain(operation);
    expect([...contract.seen].sort()).toEqual([...USED].sort());
  });

  it('holds refusals and failed tasks to it', async () => {
    const context = world.context(ESSENTIALS, CARTS);
    world.state.nextError = { type: 'DATABASE_IMPORT_NOT_ALLOWED' };
    expect((await failure(drive(tools.restore, context, LAST_GOOD))).code).toBe('INVALID_STATE');
    world.state.nextError = { type: 'DATABASE_IMPORT_NOT_ALLOWED', bare: true };
    expect((await failure(drive(tools.restore, context, LAST_GOOD))).code).toBe('INVALID_STATE');
    world.state.nextFailure = 'no access';
    expect((await failure(drive(tools.createSnapshot, context))).code).toBe('PROVIDER_UNAVAILABLE');
    await failure(
      Promise.resolve(tools.getBackupInfo.run?.(world.context(PRO, { ...SESSIONS, subscription_id: 9 }), {})),
    );
    for (const deny of [401, 403] as const) {
      world.state.deny = deny;
      await failure(Promise.resolve(tools.getBackupInfo.run?.(context, {})));
    }
    world.state.deny = undefined;
    expect(contract.faults).toEqual([]);
    expect(contract.unusedAllowances()).toEqual([]);
  });

  it('would notice a request that does not fit', async () => {
    const before = contract.faults.length;
    const send = (path: string, body: object) =>
      fetch(`${world.server.origin}${path}`, {
        method: 'POST',
        headers: { 'x-api-key': 'k', 'x-api-secret-key': 's', 'content-type': 'application/json' },
        body: JSON.stringify(body),
      });
    await send('/v1/fixed/subscriptions/2101/databases/51002101/import', {
      sourceType: 'aws-s3',
      importFromUri: 's3://b/f.rdb',
    });
    await send('/v1/fixed/subscriptions/2101/databases/51002101/backup', { regionName: 'eu-west-1' });
    expect(contract.faults.slice(before).join('\n')).toMatch(
      /importFromUri must be array[\s\S]*regionName is not in the document/,
    );
    contract.faults.length = before;
  });
});
