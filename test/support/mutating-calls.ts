import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { JsonObject } from '../../src/core/json.ts';
import { isGuarded } from '../../src/core/risk.ts';
import type { BackupInfo } from '../../src/core/schemas.ts';
import type { Engine } from '../../src/engine/api.ts';
import { DYNAMODB_SANDBOX } from '../../src/simulators/aws-dynamodb.ts';
import { RDS_SANDBOX } from '../../src/simulators/aws-rds.ts';
import { COSMOS_SANDBOX } from '../../src/simulators/azure-cosmos.ts';
import { FIRESTORE_SANDBOX } from '../../src/simulators/gcp-firestore.ts';
import {
  cloudSqlFinal,
  cosmosAccount,
  cosmosTier,
  dailySchedule,
  type GuardedFleet,
  guardedCases,
  newestSnapshot,
  plantBackups,
  registry,
  type SimulatedFleet,
  sourceFolder,
} from './guarded-fleet.ts';
import { BOSS } from './harness.ts';

/** A call that changes something and can run, on the guarded fleet. */
export interface MutatingCall {
  /** `redis-cloud/restore on sandbox/redis-pro`, with what is special about it. */
  readonly name: string;
  readonly action: string;
  readonly entity: string;
  readonly provider: string;
  readonly guarded: boolean;
  /** What it does once it has succeeded. */
  readonly effect: 'snapshot' | 'restore' | 'delete' | 'settings' | 'none';
  /** Whether it outlives its call. */
  readonly isOperation: boolean;
  prepare(engine: Engine): Promise<JsonObject>;
}

const EFFECTS: Record<string, MutatingCall['effect']> = {
  'create-snapshot': 'snapshot',
  'copy-snapshot': 'snapshot',
  restore: 'restore',
  'restore-collections': 'restore',
  'delete-snapshot': 'delete',
  'delete-branch': 'delete',
  'verify-snapshot': 'none',
  'export-documents': 'snapshot',
  'import-documents': 'restore',
  'create-backup-schedule': 'snapshot',
  'delete-backup-schedule': 'delete',
  'apply-settings': 'settings',
  'update-snapshot': 'settings',
};

interface Plain {
  readonly action: string;
  readonly with: string;
  /** Given where it is not that of the action. */
  readonly effect?: MutatingCall['effect'];
  prepare(engine: Engine, entity: string, fleet: GuardedFleet): Promise<JsonObject>;
}

async function latestMoment(engine: Engine, entity: string): Promise<string> {
  const outcome = await engine.call({ principal: BOSS, entity, action: 'get-backup-info', input: {} });
  const info = outcome.kind === 'result' ? (outcome.output as BackupInfo) : undefined;
  return String(info?.pitr.window?.latest_at);
}

let counter = 0;
const fresh = (prefix: string): string => {
  counter += 1;
  return `${prefix}-${process.pid}-${counter}`;
};

/** Each kind of write once: the members of a restored cluster are all made by the same one. */
const oneMember = (entity: string): JsonObject => (entity === 'sandbox/aws-rds-cluster' ? { members: 1 } : {});

/** Calls that need no confirmation; without a line here an action is called with its example. */
const PLAIN: Record<string, Plain[]> = {
  'neon/restore': [
    {
      action: 'restore',
      with: 'a moment into a new branch',
      prepare: async () => ({
        restore_timestamp: new Date(Date.now() - 60_000).toISOString(),
        new_branch_name: fresh('from-moment'),
      }),
    },
    {
      action: 'restore',
      with: 'a snapshot into a new branch',
      prepare: async (engine, entity) => ({
        snapshot_id: await newestSnapshot(engine, entity),
        new_branch_name: fresh('from-snapshot'),
      }),
    },
  ],
  'neon/apply-settings': [
    {
      action: 'apply-settings',
      with: 'a longer history',
      prepare: async (_engine, _entity, { neon }) => {
        neon.project().historySeconds = 86_400;
        return {};
      },
    },
  ],
  'azure-cosmos/restore': [
    {
      action: 'restore',
      with: 'a moment into a new account',
      prepare: async (engine, entity) => ({
        target_id: fresh('from-moment'),
        source_id: COSMOS_SANDBOX.source,
        location: COSMOS_SANDBOX.location,
        restore_timestamp: await latestMoment(engine, entity),
      }),
    },
  ],
  'azure-cosmos/apply-settings': [
    {
      action: 'apply-settings',
      with: 'a wider window',
      prepare: async (engine, _entity, fleet) => {
        (await cosmosAccount(engine, fleet)).backupPolicy = cosmosTier('Continuous7Days');
        return {};
      },
    },
  ],
  'digitalocean/apply-settings': [
    {
      // What can be set of a PostgreSQL cluster is guarded, all of it.
      action: 'apply-settings',
      with: 'nothing to apply',
      effect: 'none',
      prepare: async (_engine, _entity, { digitalocean }) => {
        Object.assign(digitalocean.cluster('orders'), { backupHour: 3, backupMinute: 20 });
        return {};
      },
    },
  ],
  'digitalocean/restore': [
    {
      action: 'restore',
      with: 'a backup into a new cluster',
      prepare: async (engine, entity) => ({
        backup_created_at: await newestSnapshot(engine, entity),
        new_cluster_name: fresh('from-backup'),
      }),
    },
    {
      action: 'restore',
      with: 'a moment into a new cluster',
      prepare: async (engine, entity) => ({
        restore_time: await latestMoment(engine, entity),
        new_cluster_name: fresh('from-moment'),
      }),
    },
  ],
  'aws-rds/create-snapshot': [
    { action: 'create-snapshot', with: '', prepare: async () => ({ snapshot_id: fresh('taken') }) },
  ],
  'aws-rds/copy-snapshot': [
    {
      action: 'copy-snapshot',
      with: '',
      prepare: async (engine, entity) => ({
        snapshot_id: await newestSnapshot(engine, entity),
        target_snapshot_id: fresh('copied'),
      }),
    },
  ],
  'aws-rds/restore': [
    {
      action: 'restore',
      with: 'a snapshot into a new database',
      prepare: async (engine, entity) => ({
        snapshot_id: await newestSnapshot(engine, entity),
        target_id: fresh('from-snapshot'),
        ...oneMember(entity),
      }),
    },
    {
      action: 'restore',
      with: 'the latest moment into a new database',
      prepare: async (_engine, entity) => ({
        use_latest: true,
        target_id: fresh('from-moment'),
        ...oneMember(entity),
      }),
    },
  ],
  'mongodb-atlas/restore-collections': [
    {
      action: 'restore-collections',
      with: 'copies of a collection',
      prepare: async (engine, entity) => ({
        snapshot_id: await newestSnapshot(engine, entity),
        collections: ['shop.orders'],
      }),
    },
  ],
  'mongodb-atlas/apply-settings': [
    {
      action: 'apply-settings',
      with: 'a longer window',
      prepare: async (_engine, _entity, { atlas }) => {
        const shop = atlas.cluster('sandbox-cluster');
        shop.windowDays = 2;
        for (const item of shop.policy) if (item.frequencyType === 'daily') item.retentionValue = 7;
        return {};
      },
    },
  ],
  'redis-cloud/apply-settings': [
    {
      action: 'apply-settings',
      with: 'more of what is declared',
      prepare: async (_engine, entity, { redis }) => {
        const [carts, sessions] = [redis.databases.get(51002101)!, redis.databases.get(51003101)!];
        if (entity === 'sandbox/redis-essentials') carts.backup = {};
        else if (entity === 'sandbox/redis-pro') sessions.backup.interval = 'every-24-hours';
        // A plan at the same price that has what is missing.
        else
          Object.assign(redis.subscriptions.get(2101)!, { planId: 98_200, price: 500, supportDataPersistence: false });
        return {};
      },
    },
  ],
  'aws-rds/apply-settings': [
    {
      action: 'apply-settings',
      with: 'a longer retention',
      prepare: async (_engine, entity, { rds }) => {
        const { instance, cluster } = RDS_SANDBOX;
        (entity === 'sandbox/aws-rds' ? rds.instance(instance) : rds.cluster(cluster)).retentionDays = 1;
        return {};
      },
    },
  ],
  'aws-dynamodb/apply-settings': [
    {
      action: 'apply-settings',
      with: 'a longer window',
      prepare: async (_engine, _entity, { dynamodb }) => {
        dynamodb.tables.get(DYNAMODB_SANDBOX.table)!.pitr.days = 7;
        return {};
      },
    },
  ],
  'aws-dynamodb/restore': [
    {
      action: 'restore',
      with: 'a backup into a new table',
      prepare: async (engine, entity) => ({
        backup_arn: await newestSnapshot(engine, entity),
        target_table: fresh('from-backup'),
      }),
    },
    {
      action: 'restore',
      with: 'a moment into a new table, with a setting put on it',
      prepare: async (engine, entity) => ({
        restore_timestamp: await latestMoment(engine, entity),
        target_table: fresh('from-moment'),
        reapply: ['point_in_time_recovery'],
      }),
    },
  ],
  'gcp-bigquery/apply-settings': [
    {
      action: 'apply-settings',
      with: 'a longer window',
      prepare: async (_engine, _entity, { bigQuery }) => {
        bigQuery.datasets.get('analytics')!.maxTimeTravelHours = 48;
        return {};
      },
    },
  ],
  'gcp-bigquery/restore': [
    {
      action: 'restore',
      with: 'a snapshot into a new table',
      prepare: async (engine, entity) => ({
        snapshot_table: await newestSnapshot(engine, entity),
        target_table: fresh('from-snapshot'),
      }),
    },
    {
      action: 'restore',
      with: 'a moment into a new table',
      prepare: async () => ({
        source_table: 'orders',
        restore_timestamp: new Date(Date.now() - 3_600_000).toISOString(),
        target_table: fresh('from-moment'),
      }),
    },
  ],
  'gcp-cloud-sql/restore': [
    {
      action: 'restore',
      with: 'a backup into a new instance',
      prepare: async (engine, entity) => ({
        backup_id: await newestSnapshot(engine, entity),
        target_instance: fresh('from-backup'),
      }),
    },
    {
      action: 'restore',
      with: 'a moment into a new instance',
      prepare: async (engine, entity) => ({
        restore_timestamp: await latestMoment(engine, entity),
        target_instance: fresh('from-moment'),
      }),
    },
  ],
  'gcp-cloud-sql/create-snapshot': [
    { action: 'create-snapshot', with: '', prepare: async () => ({}) },
    { action: 'create-snapshot', with: 'for a week', prepare: async () => ({ retention_days: 7 }) },
  ],
  'gcp-cloud-sql/update-snapshot': [
    {
      action: 'update-snapshot',
      with: 'kept for longer',
      prepare: async (_engine, _entity, fleet) => {
        const run = cloudSqlFinal(fleet);
        run.expiresAt = Date.now() + 65 * 86_400_000;
        return {
          backup_id: `projects/${run.project}/backups/${run.uid}`,
          expires_at: new Date(Date.now() + 200 * 86_400_000).toISOString(),
        };
      },
    },
  ],
  'gcp-cloud-sql/apply-settings': [
    {
      action: 'apply-settings',
      with: 'more backups kept',
      prepare: async (_engine, _entity, { cloudSql }) => {
        const instance = [...cloudSql.instances.values()].find(({ name }) => name === 'orders-db')!;
        const retention = { retentionUnit: 'COUNT', retainedBackups: 3 };
        instance.settings.backupConfiguration['backupRetentionSettings'] = retention;
        return {};
      },
    },
  ],
  'gcp-firestore/restore': [
    {
      action: 'restore',
      with: 'a backup into a new database',
      prepare: async (engine, entity) => ({
        backup_name: await newestSnapshot(engine, entity),
        target_database: fresh('from-backup'),
      }),
    },
    {
      action: 'restore',
      with: 'a moment into a new database',
      prepare: async (engine, entity) => ({
        restore_timestamp: await latestMoment(engine, entity),
        target_database: fresh('from-moment'),
      }),
    },
  ],
  'gcp-firestore/apply-settings': [
    {
      action: 'apply-settings',
      with: 'backups kept for longer',
      prepare: async (_engine, _entity, fleet) => {
        dailySchedule(fleet).retention = `${7 * 86_400}s`;
        return { settings: ['backup_schedules.daily.retention_days'] };
      },
    },
    {
      action: 'apply-settings',
      with: 'protection back on',
      prepare: async (_engine, _entity, { firestore }) => {
        const { project, database } = FIRESTORE_SANDBOX;
        firestore.databases.get(`${project}/${database}`)!.protected = false;
        return { settings: ['delete_protection'] };
      },
    },
  ],
  'gcp-firestore/create-backup-schedule': [
    {
      action: 'create-backup-schedule',
      with: '',
      // There is at most one of each recurrence: the one before makes room.
      prepare: async (_engine, _entity, { firestore }) => {
        const { database } = FIRESTORE_SANDBOX;
        const weekly = firestore.schedules.findIndex(
          (one) => one.database.endsWith(`/${database}`) && 'weeklyRecurrence' in one.recurrence,
        );
        if (weekly >= 0) firestore.schedules.splice(weekly, 1);
        return { frequency: 'weekly', retention_days: 14 };
      },
    },
  ],
  'postgresql/restore': [
    {
      action: 'restore',
      with: 'into a new database',
      prepare: async (engine, entity) => ({
        snapshot_id: await newestSnapshot(engine, entity),
        target_database: fresh('copy').replaceAll('-', '_'),
      }),
    },
  ],
  'postgresql/prune-snapshots': [
    {
      action: 'prune-snapshots',
      with: 'of less than half',
      prepare: async (engine, _entity, fleet) => {
        // Two of one old day, of which the first goes, and no other that could.
        const newest = await newestSnapshot(engine, 'sandbox/postgresql');
        for (const name of readdirSync(join(sourceFolder(fleet), 'backups'))) {
          if (name !== newest) rmSync(join(sourceFolder(fleet), 'backups', name), { recursive: true });
        }
        await plantBackups(engine, fleet, 2019, () => 2);
        return {};
      },
    },
  ],
  'postgresql/hold-snapshot': [
    {
      action: 'hold-snapshot',
      with: '',
      prepare: async (engine, _entity, fleet) => ({
        snapshot_id: (await plantBackups(engine, fleet, 2017, () => 1))[0],
        reason: 'before the migration',
      }),
    },
  ],
  'postgresql/verify-snapshot': [
    {
      action: 'verify-snapshot',
      with: 'restored to scratch',
      prepare: async (engine, entity) => ({ snapshot_id: await newestSnapshot(engine, entity), level: 'restored' }),
    },
  ],
  'redis-cloud/create-snapshot': [
    {
      action: 'create-snapshot',
      with: '',
      prepare: async (_engine, entity, { redis }) => {
        // A change of settings that did not come through may have left no place for backups.
        if (entity === 'sandbox/redis-essentials')
          redis.databases.get(51002101)!.backup.destination ??= 's3://sandbox-backups/redis/carts/';
        return {};
      },
    },
  ],
};

/** Every way in which every action of every entity of the fleet changes something: guarded ones, then the others. */
export function mutatingCalls(fleet: () => GuardedFleet): MutatingCall[] {
  const guarded = guardedCases(fleet).map((one): MutatingCall => {
    const [provider = '', action = ''] = one.action.split('/');
    return {
      name: `${one.action}, guarded, on ${one.entity}`,
      action,
      provider,
      entity: one.entity,
      guarded: true,
      effect: EFFECTS[action] ?? 'none',
      isOperation: isOperation(provider, action),
      prepare: async (engine) => (await one.prepare(engine)).input,
    };
  });
  const plain = registry.actions
    .filter((action) => action.risk !== 'read' && !isGuarded(action.risk))
    .flatMap((action) =>
      entitiesOf(action.on).flatMap((entity) => {
        const key = `${action.provider.id}/${action.name}`;
        const ways = PLAIN[key] ?? [{ action: action.name, with: '', prepare: async () => action.example }];
        return ways.map(
          (way): MutatingCall => ({
            name: `${key}${way.with === '' ? '' : `, ${way.with},`} on ${entity}`,
            action: action.name,
            provider: action.provider.id,
            entity,
            guarded: false,
            effect: way.effect ?? EFFECTS[action.name] ?? 'none',
            isOperation: action.steps !== undefined,
            prepare: (engine) => way.prepare(engine, entity, fleet()),
          }),
        );
      }),
    );
  return [...guarded, ...plain];
}

function isOperation(provider: string, action: string): boolean {
  return registry.actions.some((one) => one.provider.id === provider && one.name === action && one.steps !== undefined);
}

/** The entities of the fleet that are of one of these types. */
export function entitiesOf(types: readonly string[]): string[] {
  return types.flatMap((defines) => {
    const type = registry.entityTypes.get(defines)?.type;
    if (type?.sandbox !== undefined) return [`sandbox/${type.sandbox.name}`];
    return defines === 'postgresql/server' ? ['sandbox/postgresql'] : [];
  });
}

interface Tally {
  readonly snapshots: number;
  readonly restores: number;
  /** Writes that the provider took: all that a change of settings makes. */
  readonly settings: number;
}

/** What there is at a simulated provider: backups made and restores begun, whatever anyone was told. */
export function tally(fleet: SimulatedFleet, entity: string): Tally {
  const defines = fleet.entities.find(({ key }) => key === entity)?.defines ?? '';
  const own = registry.entityTypes.get(defines)?.provider.id ?? '';
  return { ...copies(fleet, entity), settings: fleet.taken.get(own) ?? 0 };
}

function copies(fleet: SimulatedFleet, entity: string): Omit<Tally, 'settings'> {
  if (entity === 'sandbox/mongodb-atlas') {
    return {
      snapshots: fleet.atlas.cluster('sandbox-cluster').snapshots.length,
      restores: fleet.atlas.jobs.length + fleet.atlas.collectionJobs.length,
    };
  }
  if (entity === 'sandbox/aws-rds' || entity === 'sandbox/aws-rds-cluster') {
    const kind = entity === 'sandbox/aws-rds' ? 'instance' : 'cluster';
    const databases =
      kind === 'instance' ? fleet.rds.instances.filter((one) => one.cluster === undefined) : fleet.rds.clusters;
    return {
      snapshots: fleet.rds.snapshots.filter((one) => one.kind === kind && one.deletedAt === undefined).length,
      restores: databases.filter(({ tags }) => tags.has('holdfast:request-id')).length,
    };
  }
  if (entity === 'sandbox/aws-dynamodb') {
    return {
      snapshots: fleet.dynamodb.backups.length,
      restores: [...fleet.dynamodb.tables.values()].filter(({ restore }) => restore !== undefined).length,
    };
  }
  if (entity === 'sandbox/gcp-bigquery') {
    const operationOf = ({ configuration }: { configuration: JsonObject }) =>
      (configuration['copy'] as JsonObject)['operationType'];
    const { tables, jobs } = fleet.bigQuery;
    return {
      snapshots:
        tables.filter(({ type }) => type === 'SNAPSHOT').length +
        jobs.filter((job) => !job.done && operationOf(job) === 'SNAPSHOT').length,
      restores: jobs.filter((job) => operationOf(job) !== 'SNAPSHOT').length,
    };
  }
  if (entity === 'sandbox/gcp-cloud-sql') {
    return {
      snapshots: fleet.cloudSql.runs.filter(({ status }) => status !== 'DELETION_PENDING').length,
      restores: fleet.cloudSql.operations.filter(({ type }) => type === 'RESTORE_VOLUME' || type === 'CLONE').length,
    };
  }
  if (entity === 'sandbox/gcp-firestore') {
    const { backups, schedules, operations } = fleet.firestore;
    // An export is its snapshot on demand, and what a schedule makes are snapshots.
    const of = (kinds: RegExp) => operations.filter(({ metadata }) => kinds.test(String(metadata['@type']))).length;
    return { snapshots: backups.length + schedules.length + of(/Export/), restores: of(/Restore|Clone|Import/) };
  }
  if (entity === 'sandbox/neon') {
    // Branches come and go as snapshots do: what a restore in place replaces is kept as one.
    const { snapshots, branches } = fleet.neon.project();
    return { snapshots: snapshots.length + branches.length, restores: fleet.neon.restores };
  }
  if (entity === 'sandbox/digitalocean') return { snapshots: 0, restores: fleet.digitalocean.clusters.length };
  if (entity === 'sandbox/azure-cosmos') {
    // Cosmos DB takes no backups on demand; one account of the sample fleet was made by a restore.
    return {
      snapshots: 0,
      restores: [...fleet.cosmos.accounts.values()].filter(({ createMode }) => createMode === 'Restore').length,
    };
  }
  const type = [...registry.entityTypes.values()].find(
    ({ type: { sandbox } }) => `sandbox/${sandbox?.name}` === entity,
  );
  const database = Number(type?.type.sandbox?.parameters['database_id']);
  const tasks = [...fleet.redis.tasks.values()].filter(({ resourceId }) => resourceId === database);
  return {
    snapshots: tasks.filter(({ commandType }) => commandType === 'databaseBackupRequest').length,
    restores: tasks.filter(({ commandType }) => commandType === 'databaseImportRequest').length,
  };
}

/** Repeatable numbers from 0 to 1. */
export function dice(seed: string): () => number {
  let state = [...seed].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) >>> 0, 7);
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
