import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { JsonObject, JsonValue } from '../../src/core/json.ts';
import type { Engine } from '../../src/engine/api.ts';
import { collect } from '../../src/engine/registry.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import { awsDynamodbSimulator, DYNAMODB_SANDBOX } from '../../src/simulators/aws-dynamodb.ts';
import { awsRdsSimulator, RDS_SANDBOX } from '../../src/simulators/aws-rds.ts';
import { azureCosmosSimulator, COSMOS_SANDBOX } from '../../src/simulators/azure-cosmos.ts';
import { digitaloceanSimulator } from '../../src/simulators/digitalocean.ts';
import { gcpBigQuerySimulator } from '../../src/simulators/gcp-bigquery.ts';
import { CLOUD_SQL_SANDBOX, gcpCloudSqlSimulator } from '../../src/simulators/gcp-cloud-sql.ts';
import { FIRESTORE_SANDBOX, gcpFirestoreSimulator } from '../../src/simulators/gcp-firestore.ts';
import { mongodbAtlasSimulator } from '../../src/simulators/mongodb-atlas.ts';
import { NEON_SANDBOX, neonSimulator } from '../../src/simulators/neon.ts';
import { redisCloudSimulator } from '../../src/simulators/redis-cloud.ts';
import { type SimulatorServer, type SimulatorServerOptions, startSimulators } from '../../src/simulators/server.ts';
import { SimulatorClock, type SimulatorOptions } from '../../src/simulators/simulator.ts';
import * as declarations from '../../tools/index.ts';
import { BOSS, type HarnessOptions } from './harness.ts';
import { sql, startTestServer } from './postgres.ts';

export const modules: Record<string, Record<string, unknown>> = { ...declarations };
export const registry = collect(modules);

export const CREDENTIALS: Record<string, string> = {
  AWS_ACCESS_KEY_ID: 'CANARYAWSACCESSKEYID',
  AWS_SECRET_ACCESS_KEY: 'canary-aws-secret-access-key',
  REDISCLOUD_ACCESS_KEY: 'canary-redis-access-key',
  REDISCLOUD_SECRET_KEY: 'canary-redis-secret-key',
  AZURE_ACCESS_TOKEN: 'canary-azure-access-token',
  MONGODB_ATLAS_CLIENT_SECRET: 'canary-atlas-client-secret',
  DIGITALOCEAN_TOKEN: 'canary-digitalocean-token',
  NEON_API_KEY: 'canary-neon-api-key',
};

/** The simulated providers with their insides in reach. */
export interface SimulatedFleet {
  readonly provider: SimulatorServer;
  /** How many writes each provider took so far; its journal forgets the oldest. */
  readonly taken: ReadonlyMap<string, number>;
  readonly atlas: ReturnType<typeof mongodbAtlasSimulator>['state'];
  readonly dynamodb: ReturnType<typeof awsDynamodbSimulator>['state'];
  readonly rds: ReturnType<typeof awsRdsSimulator>['state'];
  readonly bigQuery: ReturnType<typeof gcpBigQuerySimulator>['state'];
  readonly cloudSql: ReturnType<typeof gcpCloudSqlSimulator>['state'];
  readonly firestore: ReturnType<typeof gcpFirestoreSimulator>['state'];
  readonly cosmos: ReturnType<typeof azureCosmosSimulator>['state'];
  readonly redis: ReturnType<typeof redisCloudSimulator>['state'];
  readonly digitalocean: ReturnType<typeof digitaloceanSimulator>['state'];
  readonly neon: ReturnType<typeof neonSimulator>['state'];
  readonly entities: HarnessOptions['entities'];
  readonly secrets: Record<string, string>;
  close(): Promise<void>;
}

/** The same with a real PostgreSQL beside them. */
export interface GuardedFleet extends SimulatedFleet {
  readonly postgres: PrivateServer;
  readonly backups: string;
}

type ServerOptions = Pick<SimulatorServerOptions, 'onRequest' | 'random'>;

/** Starts the simulators on loopback, their work taking tenths of seconds. */
export async function startSimulatedFleet(server: ServerOptions = {}): Promise<SimulatedFleet> {
  const clock = new SimulatorClock();
  const options: SimulatorOptions = { clock };
  const atlas = mongodbAtlasSimulator(options);
  const dynamodb = awsDynamodbSimulator(options);
  const rds = awsRdsSimulator(options);
  const bigQuery = gcpBigQuerySimulator(options);
  const cloudSql = gcpCloudSqlSimulator(options);
  const firestore = gcpFirestoreSimulator(options);
  const cosmos = azureCosmosSimulator(options);
  const redis = redisCloudSimulator(options);
  const digitalocean = digitaloceanSimulator(options);
  const neon = neonSimulator(options);
  atlas.state.snapshotMs = 100;
  atlas.state.restoreMs = 100;
  atlas.state.updateMs = 0;
  neon.state.workMs = 100;
  Object.assign(digitalocean.state, { restoreMs: 100, limit: 1000 });
  Object.assign(redis.state.durations, { queue: 60, backup: 100, import: 100, update: 50 });
  Object.assign(cosmos.state.durations, { restore: 100, update: 50, migration: 50 });
  Object.assign(dynamodb.state.durations, { backup: 100, restore: 100, index: 30, update: 20 });
  Object.assign(rds.state.durations, { snapshot: 100, restore: 100, load: 50, remove: 50, modify: 50 });
  Object.assign(rds.state.quotas, {
    DBInstances: 1000,
    DBClusters: 1000,
    ManualSnapshots: 1000,
    ManualClusterSnapshots: 1000,
  });
  Object.assign(bigQuery.state.durations, { snapshot: 100, restore: 100, pending: 20 });
  Object.assign(cloudSql.state.durations, { backup: 100, restore: 100, remove: 50, update: 50 });
  Object.assign(firestore.state.durations, { export: 100, import: 100, restore: 100, update: 50 });
  const taken = new Map<string, number>();
  const provider = await startSimulators({
    ...server,
    onRequest: (entry, phase) => {
      const isTaken = phase === 'handled' && entry.writes && entry.status !== null && entry.status < 300;
      if (isTaken) taken.set(entry.provider, (taken.get(entry.provider) ?? 0) + 1);
      return server.onRequest?.(entry, phase) ?? 'go on';
    },
    simulators: () => [atlas, dynamodb, rds, bigQuery, cloudSql, firestore, cosmos, redis, digitalocean, neon],
    clock,
  });
  const entities = [...registry.entityTypes].flatMap(([defines, { type }]) =>
    type.sandbox === undefined
      ? []
      : [
          {
            key: `sandbox/${type.sandbox.name}`,
            defines,
            parameters: type.sandbox.parameters,
            endpoint: provider.origin,
          },
        ],
  );
  return {
    provider,
    taken,
    atlas: atlas.state,
    dynamodb: dynamodb.state,
    rds: rds.state,
    bigQuery: bigQuery.state,
    cloudSql: cloudSql.state,
    firestore: firestore.state,
    cosmos: cosmos.state,
    redis: redis.state,
    digitalocean: digitalocean.state,
    neon: neon.state,
    entities,
    secrets: CREDENTIALS,
    close: () => provider.close(),
  };
}

/** Starts the simulators and a PostgreSQL on loopback. */
export async function startGuardedFleet(server: ServerOptions = {}): Promise<GuardedFleet> {
  const postgres = await startTestServer();
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-fleet-'));
  const backups = join(directory, 'backups');
  await sql(postgres.connection, 'postgres', 'CREATE DATABASE shop');
  await sql(
    postgres.connection,
    'shop',
    'CREATE TABLE t (id int PRIMARY KEY, v text)',
    "INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 200) n",
  );
  const simulated = await startSimulatedFleet(server);
  const { host, port, user, password } = postgres.connection;
  const own = {
    key: 'sandbox/postgresql',
    defines: 'postgresql/server',
    parameters: {
      host,
      port,
      user,
      password: '${env:CANARY_POSTGRES}',
      database: 'shop',
      ssl_mode: 'disable',
      storage: { type: 'local', path: backups },
      encryption: 'none',
      verify_on_source: true,
      retention: { daily: 7 },
    },
  };
  return {
    ...simulated,
    postgres,
    backups,
    entities: [...simulated.entities, own],
    secrets: { ...CREDENTIALS, CANARY_POSTGRES: password },
    close: async () => {
      await simulated.close();
      await postgres.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

export interface GuardedCase {
  /** `<provider>/<action>` */
  readonly action: string;
  readonly entity: string;
  readonly tool: string;
  /** Makes a call that would be guarded and could run, and another one that is as good but not the same. */
  prepare(engine: Engine): Promise<{ input: JsonObject; other: JsonObject }>;
  /** Changes what approval rests on; gives the way back. */
  drift(input: JsonObject): Promise<() => Promise<void>> | (() => Promise<void>);
}

async function create(engine: Engine, entity: string, input: JsonObject = {}): Promise<string> {
  const outcome = await engine.call({ principal: BOSS, entity, action: 'create-snapshot', input, wait: 'end' });
  const result = outcome.kind === 'operation' ? outcome.operation.result : undefined;
  return String(result?.['id']);
}

export const COSMOS = 'sandbox/azure-cosmos';

export const cosmosTier = (tier: string): JsonObject => ({ type: 'Continuous', continuousModeProperties: { tier } });

/** The account of the fleet, once it has made the changes that were begun before. */
export async function cosmosAccount(engine: Engine, { cosmos }: SimulatedFleet) {
  const account = cosmos.accounts.get(COSMOS_SANDBOX.account)!;
  const look = () => engine.call({ principal: BOSS, entity: COSMOS, action: 'check-settings', input: {} });
  do await look();
  while (account.state !== 'Succeeded');
  return account;
}

/** The final backup of the fleet's Cloud SQL instance before the present one. */
export function cloudSqlFinal({ cloudSql }: SimulatedFleet) {
  return cloudSql.runs.find(({ uid }) => uid === CLOUD_SQL_SANDBOX.finalBackup)!;
}

/** The daily schedule of the fleet's Firestore database, made anew where it was deleted. */
export function dailySchedule({ firestore }: SimulatedFleet): { retention: string } {
  const database = `projects/${FIRESTORE_SANDBOX.project}/databases/${FIRESTORE_SANDBOX.database}`;
  const isOurs = (one: (typeof firestore.schedules)[number]) =>
    one.database === database && 'dailyRecurrence' in one.recurrence;
  const found = firestore.schedules.find(isOurs);
  if (found !== undefined) return found;
  const at = Date.now();
  const made = {
    name: `${database}/backupSchedules/${FIRESTORE_SANDBOX.dailySchedule}`,
    database,
    retention: `${14 * 86_400}s`,
    recurrence: { dailyRecurrence: {} },
    createdAt: at,
    updatedAt: at,
  };
  firestore.schedules.push(made);
  return made;
}

let copies = 0;

/** Makes a branch that can be deleted. */
async function neonCopy(engine: Engine): Promise<string> {
  copies += 1;
  const input = { source_branch_id: NEON_SANDBOX.main, new_branch_name: `copy-${process.pid}-${copies}` };
  const call = { principal: BOSS, entity: 'sandbox/neon', action: 'restore', input, wait: 'end' } as const;
  const outcome = await engine.call(call);
  return String(outcome.kind === 'operation' ? outcome.operation.result?.['job_id'] : undefined);
}

/** The id of the newest snapshot that can be restored; takes one where there is none. */
export async function newestSnapshot(engine: Engine, entity: string): Promise<string> {
  const outcome = await engine.call({ principal: BOSS, entity, action: 'list-snapshots', input: {} });
  const { snapshots } = (outcome.kind === 'result' ? outcome.output : {}) as {
    snapshots: { id: string; restorable: boolean }[];
  };
  const found = snapshots.find((snapshot) => snapshot.restorable);
  return found?.id ?? create(engine, entity);
}

/** The one folder of backups in the fleet's storage, made by a backup. */
export function sourceFolder({ backups }: GuardedFleet): string {
  const [source = ''] = readdirSync(join(backups, 'v1'));
  return join(backups, 'v1', source);
}

/** Copies the newest backup to a day of a year in the past, in place of what was copied there before; gives the ids, newest first. */
export async function plantBackups(
  engine: Engine,
  fleet: GuardedFleet,
  year: number,
  count: (there: number) => number,
): Promise<string[]> {
  const newest = await newestSnapshot(engine, 'sandbox/postgresql');
  const folder = sourceFolder(fleet);
  for (const kind of ['backups', 'holds']) {
    const names = existsSync(join(folder, kind)) ? readdirSync(join(folder, kind)) : [];
    for (const name of names) if (name.startsWith(String(year))) rmSync(join(folder, kind, name), { recursive: true });
  }
  const made: string[] = [];
  for (let minutes = count(readdirSync(join(folder, 'backups')).length); minutes > 0; minutes -= 1) {
    const at = new Date(Date.UTC(year, 0, 1, 0, minutes)).toISOString();
    const id = `${at.replace(/[-:]|\.\d+/g, '')}-logical-planed`;
    cpSync(join(folder, 'backups', newest), join(folder, 'backups', id), { recursive: true });
    const path = join(folder, 'backups', id, 'manifest.json');
    const manifest = JSON.parse(readFileSync(path, 'utf8')) as JsonObject;
    writeFileSync(path, JSON.stringify({ ...manifest, id, started_at: at, snapshot_at: at, finished_at: at }));
    made.push(id);
  }
  return made;
}

/** Puts a backup of the fleet on hold as another machine does; gives the way back. */
function holdBackup(fleet: GuardedFleet, id: string, reason: string): () => Promise<void> {
  const path = join(sourceFolder(fleet), 'holds', `${id}.json`);
  const before = existsSync(path) ? readFileSync(path) : undefined;
  mkdirSync(dirname(path), { recursive: true });
  const held_at = new Date().toISOString();
  writeFileSync(path, JSON.stringify({ schema: 'holdfast.pg.hold/1', backup_id: id, reason, held_at }));
  return async () => (before === undefined ? rmSync(path) : writeFileSync(path, before));
}

const set = <T extends object, K extends keyof T>(object: T, key: K, value: T[K]): (() => Promise<void>) => {
  const before = object[key];
  object[key] = value;
  return async () => {
    object[key] = before;
  };
};

/** One case for each guarded action on each entity type; a guarded action without one fails the suite. */
export function guardedCases(fleet: () => GuardedFleet): GuardedCase[] {
  const redisRestore = (entity: string, database: () => { name: string }): GuardedCase => ({
    action: 'redis-cloud/restore',
    entity,
    tool: 'redis_cloud_restore',
    prepare: async () => {
      const [uri = ''] = [...fleet().redis.files.keys()].filter((name) => name.startsWith('s3://'));
      const input = { source_type: 'aws-s3', source_uri: uri };
      return { input, other: { ...input, safety_snapshot: false } };
    },
    drift: () => set(database(), 'name', 'renamed-by-someone'),
  });
  const redisDatabase = (name: string) => {
    const type = [...registry.entityTypes.values()].find((candidate) => candidate.type.sandbox?.name === name);
    return () => fleet().redis.databases.get(Number(type?.type.sandbox?.parameters['database_id']))!;
  };
  const FIRESTORE = 'sandbox/gcp-firestore';
  const firestoreDrift = () => {
    const { project, database } = FIRESTORE_SANDBOX;
    const found = fleet().firestore.databases.get(`${project}/${database}`)!;
    return set(found, 'updatedAt', found.updatedAt + 1000);
  };
  const firestoreDaily = () => dailySchedule(fleet());
  // A backup into a folder that is not configured carries the data out of the account.
  const redisElsewhere = (entity: string, database: () => { name: string }): GuardedCase => ({
    action: 'redis-cloud/create-snapshot',
    entity,
    tool: 'redis_cloud_create_snapshot',
    prepare: async () => ({ input: { backup_path: 's3://elsewhere/a' }, other: { backup_path: 's3://elsewhere/b' } }),
    drift: () => set(database(), 'name', 'renamed-by-someone'),
  });
  const retained = (count: number): JsonObject => ({ retentionUnit: 'COUNT', retainedBackups: count });
  const cloudSqlBackups = () =>
    [...fleet().cloudSql.instances.values()].find(({ name }) => name === 'orders-db')!.settings.backupConfiguration;
  const bigQueryDataset = () => fleet().bigQuery.datasets.get('analytics')!;
  const redisPlan = () => fleet().redis.subscriptions.get(2101)!;
  const redisApply = (
    entity: string,
    setting: string,
    raise: () => void,
    drift: GuardedCase['drift'],
  ): GuardedCase => ({
    action: 'redis-cloud/apply-settings',
    entity,
    tool: 'backup_apply_settings',
    prepare: async () => {
      raise();
      return { input: {}, other: { settings: [setting] } };
    },
    drift,
  });
  const bigQueryTable = (name: JsonValue | undefined) => fleet().bigQuery.tables.find((table) => table.name === name)!;
  const rdsDelete = (entity: string, kind: 'instance' | 'cluster'): GuardedCase => ({
    action: 'aws-rds/delete-snapshot',
    entity,
    tool: 'aws_rds_delete_snapshot',
    prepare: async (engine) => ({
      input: { snapshot_id: await create(engine, entity) },
      // The newest one is automated, and those are never deleted.
      other: { snapshot_id: await create(engine, entity), allow_last: true },
    }),
    drift: ({ snapshot_id }) => {
      const snapshot = fleet().rds.snapshots.find((one) => one.id === snapshot_id && one.kind === kind)!;
      return set(snapshot, 'createdAt', snapshot.createdAt - 60_000);
    },
  });
  const atlasDaily = () =>
    fleet()
      .atlas.cluster('sandbox-cluster')
      .policy.find(({ frequencyType }) => frequencyType === 'daily')!;
  // Backups are kept longer than declared: the oldest of them would go.
  const rdsLower = (entity: string, database: () => { retentionDays: number }): GuardedCase => ({
    action: 'aws-rds/apply-settings',
    entity,
    tool: 'backup_apply_settings',
    prepare: async () => {
      await set(database(), 'retentionDays', 35);
      return { input: {}, other: { settings: ['backup_retention_period'] } };
    },
    drift: () => set(database(), 'retentionDays', 30),
  });
  return [
    {
      action: 'mongodb-atlas/restore',
      entity: 'sandbox/mongodb-atlas',
      tool: 'mongodb_atlas_restore',
      prepare: async (engine) => {
        const snapshot_id = await newestSnapshot(engine, 'sandbox/mongodb-atlas');
        return { input: { snapshot_id }, other: { snapshot_id, safety_snapshot: false } };
      },
      drift: () => set(fleet().atlas.cluster('sandbox-cluster'), 'size', 'M20'),
    },
    {
      action: 'mongodb-atlas/delete-snapshot',
      entity: 'sandbox/mongodb-atlas',
      tool: 'mongodb_atlas_delete_snapshot',
      prepare: async (engine) => ({
        input: { snapshot_id: await create(engine, 'sandbox/mongodb-atlas') },
        other: { snapshot_id: await newestSnapshot(engine, 'sandbox/mongodb-atlas'), allow_last: true },
      }),
      drift: ({ snapshot_id }) => {
        const snapshot = fleet()
          .atlas.cluster('sandbox-cluster')
          .snapshots.find(({ id }) => id === snapshot_id)!;
        return set(snapshot, 'beganAt', snapshot.beganAt - 60_000);
      },
    },
    {
      action: 'mongodb-atlas/restore-collections',
      entity: 'sandbox/mongodb-atlas',
      tool: 'mongodb_atlas_restore_collections',
      prepare: async (engine) => {
        const snapshot_id = await newestSnapshot(engine, 'sandbox/mongodb-atlas');
        const input = { snapshot_id, collections: ['shop.orders'], write_strategy: 'OVERWRITE_EXISTING' };
        return { input, other: { ...input, index_strategy: 'ALL' } };
      },
      drift: () => set(fleet().atlas.cluster('sandbox-cluster'), 'size', 'M20'),
    },
    {
      // Daily snapshots are kept longer than declared.
      action: 'mongodb-atlas/apply-settings',
      entity: 'sandbox/mongodb-atlas',
      tool: 'backup_apply_settings',
      prepare: async () => {
        await set(atlasDaily(), 'retentionValue', 14);
        return { input: {}, other: { settings: ['backup_schedule.daily'] } };
      },
      drift: () => set(atlasDaily(), 'retentionValue', 21),
    },
    rdsDelete('sandbox/aws-rds', 'instance'),
    rdsDelete('sandbox/aws-rds-cluster', 'cluster'),
    rdsLower('sandbox/aws-rds', () => fleet().rds.instance(RDS_SANDBOX.instance)),
    rdsLower('sandbox/aws-rds-cluster', () => fleet().rds.cluster(RDS_SANDBOX.cluster)),
    {
      action: 'aws-dynamodb/delete-snapshot',
      entity: 'sandbox/aws-dynamodb',
      tool: 'aws_dynamodb_delete_snapshot',
      prepare: async (engine) => ({
        input: { backup_arn: await create(engine, 'sandbox/aws-dynamodb') },
        other: { backup_arn: await newestSnapshot(engine, 'sandbox/aws-dynamodb'), allow_last: true },
      }),
      drift: ({ backup_arn }) => {
        const backup = fleet().dynamodb.backups.find(({ id }) => String(backup_arn).endsWith(`/${id}`))!;
        return set(backup, 'createdAt', backup.createdAt - 60_000);
      },
    },
    {
      // The window reaches further back than declared: its older part would go.
      action: 'aws-dynamodb/apply-settings',
      entity: 'sandbox/aws-dynamodb',
      tool: 'backup_apply_settings',
      prepare: async () => {
        await set(fleet().dynamodb.tables.get(DYNAMODB_SANDBOX.table)!.pitr, 'days', 35);
        return { input: {}, other: { settings: ['recovery_period_in_days'] } };
      },
      drift: () => set(fleet().dynamodb.tables.get(DYNAMODB_SANDBOX.table)!.pitr, 'days', 28),
    },
    {
      action: 'gcp-bigquery/restore',
      entity: 'sandbox/gcp-bigquery',
      tool: 'gcp_bigquery_restore',
      prepare: async (engine) => {
        const snapshot_table = await newestSnapshot(engine, 'sandbox/gcp-bigquery');
        const input = { snapshot_table, target_table: 'orders' };
        return { input, other: { ...input, safety_snapshot: false } };
      },
      drift: ({ target_table }) => set(bigQueryTable(target_table), 'version', 4711),
    },
    {
      // A window that is wider than any that there is today.
      action: 'gcp-bigquery/apply-settings',
      entity: 'sandbox/gcp-bigquery',
      tool: 'backup_apply_settings',
      prepare: async () => {
        bigQueryDataset().maxTimeTravelHours = 192;
        return { input: {}, other: { settings: ['max_time_travel_hours'] } };
      },
      drift: () => set(bigQueryDataset(), 'maxTimeTravelHours', 216),
    },
    {
      action: 'gcp-bigquery/delete-snapshot',
      entity: 'sandbox/gcp-bigquery',
      tool: 'gcp_bigquery_delete_snapshot',
      prepare: async (engine) => {
        const table_name = await create(engine, 'sandbox/gcp-bigquery', { source_table: 'orders' });
        return { input: { table_name }, other: { table_name, allow_last: true } };
      },
      drift: ({ table_name }) => set(bigQueryTable(table_name), 'version', 4711),
    },
    {
      action: 'gcp-cloud-sql/restore',
      entity: 'sandbox/gcp-cloud-sql',
      tool: 'gcp_cloud_sql_restore',
      prepare: async (engine) => {
        const backup_id = await newestSnapshot(engine, 'sandbox/gcp-cloud-sql');
        return { input: { backup_id }, other: { backup_id, safety_snapshot: false } };
      },
      drift: () => {
        const instance = [...fleet().cloudSql.instances.values()].find(({ name }) => name === 'orders-db')!;
        return set(instance.settings, 'settingsVersion', '4711');
      },
    },
    {
      action: 'gcp-cloud-sql/delete-snapshot',
      entity: 'sandbox/gcp-cloud-sql',
      tool: 'gcp_cloud_sql_delete_snapshot',
      prepare: async (engine) => ({
        input: { backup_id: await create(engine, 'sandbox/gcp-cloud-sql') },
        other: { backup_id: await newestSnapshot(engine, 'sandbox/gcp-cloud-sql'), allow_last: true },
      }),
      drift: ({ backup_id }) => {
        const run = fleet().cloudSql.runs.find(({ id }) => id === backup_id)!;
        const back = [
          set(run, 'endedAt', (run.endedAt ?? 0) - 60_000),
          set(run, 'startedAt', run.startedAt - 60_000),
          set(run, 'enqueuedAt', run.enqueuedAt - 60_000),
        ];
        return async () => {
          for (const undo of back) await undo();
        };
      },
    },
    {
      // The end of a final backup, earlier than before.
      action: 'gcp-cloud-sql/update-snapshot',
      entity: 'sandbox/gcp-cloud-sql',
      tool: 'gcp_cloud_sql_update_snapshot',
      prepare: async () => {
        const run = cloudSqlFinal(fleet());
        run.expiresAt = Date.now() + 65 * 86_400_000;
        const backup_id = `projects/${run.project}/backups/${run.uid}`;
        const expires_at = new Date(Date.now() + 10 * 86_400_000).toISOString();
        return { input: { backup_id, expires_at }, other: { backup_id, expires_at, description: 'another' } };
      },
      drift: () => set(cloudSqlFinal(fleet()), 'expiresAt', Date.now() + 40 * 86_400_000),
    },
    {
      // More backups are kept than declared: the oldest of them would go.
      action: 'gcp-cloud-sql/apply-settings',
      entity: 'sandbox/gcp-cloud-sql',
      tool: 'backup_apply_settings',
      prepare: async () => {
        await set(cloudSqlBackups(), 'backupRetentionSettings', retained(14));
        return { input: {}, other: { settings: ['backup_retention_count'] } };
      },
      drift: () => set(cloudSqlBackups(), 'backupRetentionSettings', retained(21)),
    },
    {
      action: 'gcp-firestore/import-documents',
      entity: FIRESTORE,
      tool: 'gcp_firestore_import_documents',
      prepare: async () => {
        const input = { input_uri_prefix: FIRESTORE_SANDBOX.export };
        return { input, other: { ...input, safety_snapshot: false } };
      },
      drift: firestoreDrift,
    },
    {
      // Backups are kept for longer than declared.
      action: 'gcp-firestore/apply-settings',
      entity: FIRESTORE,
      tool: 'backup_apply_settings',
      prepare: async () => {
        firestoreDaily().retention = `${28 * 86_400}s`;
        const settings = ['backup_schedules.daily.retention_days'];
        return { input: { settings }, other: { settings: [...settings, 'delete_protection'] } };
      },
      drift: () => set(firestoreDaily(), 'retention', `${42 * 86_400}s`),
    },
    {
      // An export to a place that is not configured carries the data out of the project.
      action: 'gcp-firestore/export-documents',
      entity: FIRESTORE,
      tool: 'gcp_firestore_export_documents',
      prepare: async () => ({
        input: { output_uri_prefix: 'gs://elsewhere-a' },
        other: { output_uri_prefix: 'gs://elsewhere-b' },
      }),
      drift: firestoreDrift,
    },
    {
      action: 'gcp-firestore/delete-snapshot',
      entity: FIRESTORE,
      tool: 'gcp_firestore_delete_snapshot',
      // Only schedules take backups.
      prepare: async () => {
        const { name: backup_name } = fleet().firestore.addBackup(FIRESTORE_SANDBOX.database, Date.now() - 60_000);
        return { input: { backup_name }, other: { backup_name, allow_last: true } };
      },
      drift: ({ backup_name }) => {
        const backup = fleet().firestore.backups.find(({ name }) => name === backup_name)!;
        return set(backup, 'snapshotAt', backup.snapshotAt - 60_000);
      },
    },
    {
      action: 'gcp-firestore/delete-backup-schedule',
      entity: FIRESTORE,
      tool: 'gcp_firestore_delete_backup_schedule',
      prepare: async (engine) => {
        const own = () =>
          fleet().firestore.schedules.filter(({ database }) => database.endsWith(FIRESTORE_SANDBOX.database));
        for (const frequency of ['daily', 'weekly']) {
          if (own().some(({ recurrence }) => `${frequency}Recurrence` in recurrence)) continue;
          const input = { frequency, retention_days: 14 };
          await engine.call({
            principal: BOSS,
            entity: FIRESTORE,
            action: 'create-backup-schedule',
            input,
            wait: 'end',
          });
        }
        const [first, second] = own();
        return { input: { schedule_name: first!.name }, other: { schedule_name: second!.name } };
      },
      drift: ({ schedule_name }) =>
        set(fleet().firestore.schedules.find(({ name }) => name === schedule_name)!, 'retention', '86400s'),
    },
    {
      // A window that is wider than the declared one, of a tier that this release does not know.
      action: 'azure-cosmos/apply-settings',
      entity: COSMOS,
      tool: 'backup_apply_settings',
      prepare: async (engine) => {
        await set(await cosmosAccount(engine, fleet()), 'backupPolicy', cosmosTier('Continuous60Days'));
        return { input: {}, other: { settings: ['backup_policy.continuous_tier'] } };
      },
      drift: async () =>
        set(fleet().cosmos.accounts.get(COSMOS_SANDBOX.account)!, 'backupPolicy', cosmosTier('Continuous90Days')),
    },
    {
      action: 'neon/restore',
      entity: 'sandbox/neon',
      tool: 'neon_restore',
      prepare: async () => {
        const input = { restore_timestamp: new Date(Date.now() - 60_000).toISOString() };
        return { input, other: { ...input, preserve_under_name: 'kept-by-another-call' } };
      },
      drift: () => set(fleet().neon.branch('main'), 'default', false),
    },
    {
      // A longer history than the declared one.
      action: 'neon/apply-settings',
      entity: 'sandbox/neon',
      tool: 'backup_apply_settings',
      prepare: async () => {
        fleet().neon.project().historySeconds = 2_592_000;
        return { input: {}, other: { settings: ['history_retention_seconds'] } };
      },
      drift: () => set(fleet().neon.project(), 'historySeconds', 1_209_600),
    },
    {
      action: 'neon/delete-snapshot',
      entity: 'sandbox/neon',
      tool: 'neon_delete_snapshot',
      prepare: async (engine) => ({
        input: { snapshot_id: await create(engine, 'sandbox/neon') },
        other: { snapshot_id: await newestSnapshot(engine, 'sandbox/neon'), allow_last: true },
      }),
      drift: ({ snapshot_id }) =>
        set(
          fleet()
            .neon.project()
            .snapshots.find(({ id }) => id === snapshot_id)!,
          'name',
          'renamed-by-someone',
        ),
    },
    {
      action: 'neon/delete-branch',
      entity: 'sandbox/neon',
      tool: 'neon_delete_branch',
      prepare: async (engine) => {
        const branch_id = await neonCopy(engine);
        return { input: { branch_id }, other: { branch_id, hard_delete: true } };
      },
      drift: ({ branch_id }) =>
        set(
          fleet()
            .neon.project()
            .branches.find(({ id }) => id === branch_id)!,
          'name',
          'renamed-by-someone',
        ),
    },
    {
      // Backups at another hour than the declared one: moving them opens a gap.
      action: 'digitalocean/apply-settings',
      entity: 'sandbox/digitalocean',
      tool: 'backup_apply_settings',
      prepare: async () => {
        fleet().digitalocean.cluster('orders').backupHour = 9;
        return { input: {}, other: { settings: ['backup_hour'] } };
      },
      drift: () => set(fleet().digitalocean.cluster('orders'), 'backupHour', 11),
    },
    redisRestore('sandbox/redis-essentials', redisDatabase('redis-essentials')),
    redisRestore('sandbox/redis-pro', redisDatabase('redis-pro')),
    redisElsewhere('sandbox/redis-essentials', redisDatabase('redis-essentials')),
    redisElsewhere('sandbox/redis-pro', redisDatabase('redis-pro')),
    // The daily backups go somewhere else than declared, and would not any more.
    redisApply(
      'sandbox/redis-essentials',
      'periodic_backup_path',
      () => Object.assign(redisDatabase('redis-essentials')(), { backup: { destination: 's3://of-someone/a/' } }),
      () => set(redisDatabase('redis-essentials')(), 'backup', { destination: 's3://of-someone/b/' }),
    ),
    // More backups are written than declared.
    redisApply(
      'sandbox/redis-pro',
      'remote_backup.interval',
      () => Object.assign(redisDatabase('redis-pro')().backup, { interval: 'every-1-hours' }),
      () => set(redisDatabase('redis-pro')().backup, 'interval', 'every-2-hours'),
    ),
    // The plan that has what is declared costs more.
    redisApply(
      'sandbox/redis-essentials-subscription',
      'support_data_persistence',
      () => Object.assign(redisPlan(), { planId: 98_250, price: 500, supportDataPersistence: false }),
      () => set(redisPlan(), 'name', 'renamed-by-someone'),
    ),
    {
      action: 'postgresql/restore',
      entity: 'sandbox/postgresql',
      tool: 'postgresql_restore',
      prepare: async (engine) => {
        const snapshot_id = await newestSnapshot(engine, 'sandbox/postgresql');
        return { input: { snapshot_id }, other: { snapshot_id, safety_snapshot: false } };
      },
      drift: async () => {
        const { connection } = fleet().postgres;
        await sql(connection, 'postgres', 'CREATE ROLE stranger', 'ALTER DATABASE shop OWNER TO stranger');
        return () => sql(connection, 'postgres', 'ALTER DATABASE shop OWNER TO postgres', 'DROP ROLE stranger');
      },
    },
    {
      action: 'postgresql/delete-snapshot',
      entity: 'sandbox/postgresql',
      tool: 'postgresql_delete_snapshot',
      prepare: async (engine) => {
        const keep = await newestSnapshot(engine, 'sandbox/postgresql');
        return {
          input: { snapshot_id: await create(engine, 'sandbox/postgresql'), allow_last: true },
          other: { snapshot_id: keep },
        };
      },
      // All others vanish: now it would be the last one.
      drift: async ({ snapshot_id }) => {
        const root = readdirSync(fleet().backups, { recursive: true, encoding: 'utf8' }).find((path) =>
          path.endsWith('/backups'),
        )!;
        const from = join(fleet().backups, root);
        const aside = join(fleet().backups, '..', 'aside');
        mkdirSync(aside, { recursive: true });
        const moved = readdirSync(from).filter((name) => name !== snapshot_id);
        for (const name of moved) renameSync(join(from, name), join(aside, name));
        return async () => {
          for (const name of moved) renameSync(join(aside, name), join(from, name));
        };
      },
    },
    {
      // More than half of what is there goes, also without the one that somebody holds meanwhile.
      action: 'postgresql/prune-snapshots',
      entity: 'sandbox/postgresql',
      tool: 'postgresql_prune_snapshots',
      prepare: async (engine) => {
        await plantBackups(engine, fleet(), 2019, (there) => there + 9);
        const call = { principal: BOSS, entity: 'sandbox/postgresql', action: 'prune-snapshots', input: {} };
        const outcome = await engine.call({ ...call, dryRun: true });
        const plan_hash = outcome.kind === 'plan' ? outcome.plan.blast_radius['plan_hash'] : undefined;
        return { input: {}, other: { plan_hash } };
      },
      drift: () => {
        const ids = readdirSync(join(sourceFolder(fleet()), 'backups')).filter((name) => name.startsWith('2019'));
        return holdBackup(fleet(), ids.sort()[0]!, 'somebody needs it');
      },
    },
    {
      action: 'postgresql/release-snapshot',
      entity: 'sandbox/postgresql',
      tool: 'postgresql_release_snapshot',
      prepare: async (engine) => {
        const [one = '', two = ''] = await plantBackups(engine, fleet(), 2018, () => 2);
        for (const id of [one, two]) holdBackup(fleet(), id, 'until the audit is over');
        return { input: { snapshot_id: one }, other: { snapshot_id: two } };
      },
      drift: ({ snapshot_id }) => holdBackup(fleet(), String(snapshot_id), 'for the court'),
    },
  ];
}
