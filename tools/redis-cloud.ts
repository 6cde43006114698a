import { z } from 'zod';
import { defineAction } from '../src/core/action.ts';
import { HoldfastError } from '../src/core/errors.ts';
import { isObject, type JsonObject, sha256 } from '../src/core/json.ts';
import type { Step } from '../src/core/operation.ts';
import { compareFacts, type Plan } from '../src/core/plan.ts';
import { BackupInfo, ListInput, RecoveryPoint, RestoreJob, SnapshotList } from '../src/core/schemas.ts';
import { formatDuration, toTimestamp } from '../src/core/time.ts';
import { textOf } from '../src/core/wire.ts';
import { importCall, knownPoints, NO_LISTING, noteSnapshot, readLatest } from '../src/providers/redis-cloud/backups.ts';
import { type RedisCloudClient, supportsBackups } from '../src/providers/redis-cloud/client.ts';
import {
  databaseFindings,
  declaredPath,
  driftOf,
  subscriptionFindings,
} from '../src/providers/redis-cloud/declared.ts';
import type { Inspection } from '../src/providers/redis-cloud/inspect.ts';
import {
  attemptStatus,
  checkBackupPath,
  checkSources,
  SOURCE_TYPES,
  samePath,
  showPath,
  showSource,
  taskStatus,
} from '../src/providers/redis-cloud/map.ts';
import {
  ESSENTIALS_DATABASE,
  ESSENTIALS_SUBSCRIPTION,
  PRO_DATABASE,
  type RedisCloudEntity,
  redisCloud,
} from '../src/providers/redis-cloud/provider.ts';
import {
  backupPlace,
  type Context,
  readSubscription,
  readTarget,
  type Target,
  targetFacts,
  targetName,
  tierOf,
} from '../src/providers/redis-cloud/target.ts';
import {
  addressOf,
  followWork,
  handleFor,
  knownTasks,
  recoverWrite,
  restoreState,
  toJson,
} from '../src/providers/redis-cloud/work.ts';

const DATABASES = [ESSENTIALS_DATABASE, PRO_DATABASE];
const IMPORT_LEDGER = 'import';

type RedisStep<Input> = Step<RedisCloudClient, RedisCloudEntity, Input>;

export const getBackupInfo = defineAction({
  provider: redisCloud,
  name: 'get-backup-info',
  title: 'Show how a Redis Cloud database is backed up',
  summary: 'Shows backup settings, the latest backup and what is missing. Start here.',
  risk: 'read',
  input: z.object({}),
  output: BackupInfo,
  errors: [
    'RESOURCE_NOT_FOUND',
    'AUTHENTICATION_FAILED',
    'INSUFFICIENT_PERMISSIONS',
    'RATE_LIMITED',
    'PROVIDER_UNAVAILABLE',
  ],
  source: 'Redis Cloud API v1, GET subscription, GET database, GET database backup',
  example: {},
  async run(context) {
    return context.entity.defines === ESSENTIALS_SUBSCRIPTION ? subscriptionInfo(context) : databaseInfo(context);
  },
});

async function subscriptionInfo(context: Context): Promise<z.input<typeof BackupInfo>> {
  const { id, subscription } = await readSubscription(context);
  const databases = await context.client.databases('essentials', id, context.signal);
  const supported = supportsBackups(subscription);
  const bare = databases.filter(({ backup }) => backup.destination === undefined).map(({ name }) => name);
  const { drift, warnings } = driftOf(subscriptionFindings(context.entity, subscription));
  return {
    automated: supported === true && databases.length > 0 && bare.length === 0,
    pitr: { enabled: false },
    encryption: 'not told by the API; the files lie in your own storage',
    deletion_protection: null,
    newest: null,
    warnings: [
      supported === false
        ? 'The plan of this subscription has no backups: nothing in it can be backed up by Redis Cloud.'
        : [],
      supported === undefined ? 'The API does not tell whether the plan of this subscription has backups.' : [],
      subscription['supportDataPersistence'] === false
        ? 'The plan has no data persistence: a restart loses the data.'
        : [],
      bare.length > 0 ? `Without a backup path: ${bare.slice(0, 20).join(', ')}.` : [],
      warnings,
    ].flat(2),
    provider: {
      tier: 'essentials',
      subscription_id: id,
      status: textOf(subscription['status']),
      plan_id: subscription['planId'],
      plan: textOf(subscription['planName']),
      support_instant_and_daily_backups: subscription['supportInstantAndDailyBackups'],
      support_data_persistence: subscription['supportDataPersistence'],
      maximum_databases: subscription['maximumDatabases'],
      databases: databases.map(({ id: database_id, name, status, backup }) => ({
        database_id,
        name,
        status,
        backup_path: backup.destination === undefined ? null : showPath(backup.destination),
      })),
      drift,
    },
  };
}

async function databaseInfo(context: Context): Promise<z.input<typeof BackupInfo>> {
  const { entity, runtime } = context;
  const target = await readTarget(context);
  const { database, address, subscription } = target;
  const latest = await readLatest(context, target);
  const points = await knownPoints(context, target, latest);
  const newest = points.find(({ restorable }) => restorable) ?? null;
  const supported = address.tier === 'pro' || supportsBackups(subscription) !== false;
  const settings = database.isActiveActive ? database.regions.map(({ backup }) => backup) : [database.backup];
  const active = settings.find(({ enabled, destination }) => enabled && destination !== undefined);
  const path = declaredPath(entity, address.tier);
  const { drift, warnings } = driftOf(databaseFindings(entity, target, typeof path === 'string' ? path : undefined));
  const age =
    newest?.created_at === undefined ? undefined : (runtime.now().getTime() - Date.parse(newest.created_at)) / 1000;
  return {
    automated: supported && active !== undefined,
    ...(active?.interval === undefined
      ? {}
      : { schedule: `${active.interval}${active.timeUtc === undefined ? '' : ` from ${active.timeUtc} UTC`}` }),
    pitr: { enabled: false },
    encryption: 'not told by the API; the files lie in your own storage',
    deletion_protection: null,
    newest,
    warnings: [
      supported ? [] : 'The plan of this subscription has no backups.',
      supported && active === undefined
        ? 'No backup path is set: nothing is backed up by itself, and create-snapshot needs backup_path.'
        : [],
      newest === null ? 'No successful backup is known.' : [],
      age !== undefined && age > 2 * 86_400 ? `The newest known backup is ${formatDuration(age)} old.` : [],
      latest.flatMap(({ attempt, problem }) => [
        problem ?? [],
        attemptStatus(attempt?.status) === 'failed' ? 'The latest backup failed.' : [],
        attempt?.status !== undefined && attemptStatus(attempt.status) === 'unknown'
          ? `The latest backup has a state that Holdfast does not know: ${attempt.status}.`
          : [],
      ]),
      database.dataPersistence === 'none' ? 'Data persistence is off: a restart loses the data.' : [],
      database.status === 'active' ? [] : `The database is ${database.status}: no backup or import is possible now.`,
      database.isReplica ? 'The database follows another one (Replica Of): an import would be overwritten.' : [],
      database.isActiveActive
        ? database.regions
            .filter(({ backup }) => backup.destination === undefined)
            .map(({ name }) => `Region ${name} has no backup path.`)
        : [],
      warnings,
      'Redis Cloud never deletes backup files; their retention is a rule of your storage.',
    ].flat(3),
    provider: {
      ...databaseFacts(target),
      destination: active?.destination === undefined ? null : showPath(active.destination),
      listing: 'latest-only',
      drift,
    },
  };
}

function databaseFacts(target: Target): JsonObject {
  const { database } = target;
  return {
    ...targetFacts(target),
    redis_version: database.redisVersion,
    modules: [...database.modules],
    data_persistence: database.dataPersistence,
    replication: database.replication,
    memory_used_bytes: database.memoryUsedBytes,
    memory_limit_bytes: database.memoryLimitBytes,
    shards: database.shards,
  };
}

const CreateInput = z.object({
  backup_path: z.string().optional().describe('Another folder than the configured one'),
  region_name: z.string().max(60).optional().describe('Active-Active only'),
});

interface Wanted {
  readonly path?: string | undefined;
  readonly region?: string | undefined;
}

function wantedOf(input: z.output<typeof CreateInput>, target: Target): Wanted {
  const { regions, isActiveActive } = target.database;
  if (isActiveActive && input.region_name === undefined && regions.length > 1) {
    throw new HoldfastError('INVALID_PARAMETER', 'an Active-Active database is backed up region by region', {
      hint: `Give region_name, one of ${regions.map(({ name }) => name).join(', ')}.`,
    });
  }
  return {
    ...(input.backup_path === undefined ? {} : { path: checkBackupPath(input.backup_path) }),
    ...(input.region_name === undefined ? {} : { region: input.region_name }),
  };
}

function requirePlace(target: Target, wanted: Wanted): { region: string | undefined; destination: string } {
  const place = backupPlace(target, wanted);
  if (place.possible) return place;
  throw new HoldfastError(place.code, place.reason, { hint: place.hint });
}

/** Asks for a backup and follows it; the same for a snapshot of its own and for the one before a restore. */
function snapshotSteps<Input>(
  kind: 'on_demand' | 'safety',
  names: { start: string; wait: string },
  choose: (input: Input, target: Target) => Wanted,
): readonly RedisStep<Input>[] {
  return [
    {
      name: names.start,
      title: kind === 'safety' ? 'Asking for a backup of the target first' : 'Asking for a backup',
      kind: 'mutate',
      async run(context) {
        const { client, signal, runtime } = context;
        const target = await readTarget(context);
        const wanted = choose(context.input, target);
        const place = requirePlace(target, wanted);
        const before = await client.latestBackup(target.address, place.region, signal);
        const handle = handleFor(target.address, {
          region: place.region,
          destination: showPath(place.destination),
          shards: target.database.shards,
          before: toJson(before),
          known_tasks: await knownTasks(context, 'backup', target.address),
          started_at: toTimestamp(runtime.now()),
        });
        await context.checkpoint(handle);
        const task = await client.startBackup(target.address, { region: place.region, path: wanted.path }, signal);
        const begun = { ...handle, known_tasks: undefined, task_id: task.id };
        await context.checkpoint(begun);
        return begun;
      },
      recover: (context) => recoverWrite(context, 'backup'),
    },
    {
      name: names.wait,
      title: 'Waiting until the backup is written',
      kind: 'follow',
      async run(context) {
        const begun = context.results[names.start] ?? {};
        const note = (extra: JsonObject): JsonObject => ({
          id: `task:${String(begun['task_id'])}`,
          kind,
          task_id: begun['task_id'],
          database_id: begun['database_id'],
          region: begun['region'],
          destination: begun['destination'],
          shards: begun['shards'],
          ...extra,
        });
        try {
          const attempt = await followWork(context, 'backup', begun);
          const done = note({ status: 'available', backup_at: attempt.at });
          await noteSnapshot(context, done);
          return done;
        } catch (cause) {
          const isOver =
            cause instanceof HoldfastError && !['TIMEOUT', 'CANCELLED', 'RATE_LIMITED'].includes(cause.code);
          if (isOver && cause.details?.['provider_status'] !== undefined)
            await noteSnapshot(context, note({ status: 'failed' }));
          throw cause;
        }
      },
    },
  ];
}

export const createSnapshot = defineAction({
  provider: redisCloud,
  name: 'create-snapshot',
  aliases: ['create-backup'],
  title: 'Back up a Redis Cloud database now',
  summary: 'Writes a backup to the database’s configured path and waits for it.',
  on: DATABASES,
  risk: 'create',
  upTo: 'weaken',
  input: CreateInput,
  output: RecoveryPoint,
  errors: [
    'BACKUP_NOT_FOUND',
    'CLUSTER_TIER_NOT_SUPPORTED',
    'INVALID_STATE',
    'INVALID_PARAMETER',
    'RESOURCE_NOT_FOUND',
    'AUTHENTICATION_FAILED',
    'INSUFFICIENT_PERMISSIONS',
    'RATE_LIMITED',
    'PROVIDER_UNAVAILABLE',
    'TIMEOUT',
  ],
  source: 'Redis Cloud API v1, POST database backup, GET database backup',
  example: {},
  async plan(context, input) {
    const target = await readTarget(context);
    const wanted = wantedOf(input, target);
    const place = requirePlace(target, wanted);
    const configured = backupPlace(target, { region: wanted.region });
    const isElsewhere =
      wanted.path !== undefined && !(configured.possible && samePath(configured.destination, wanted.path));
    return {
      // Whoever can name the folder can carry the whole database out of the account.
      ...(isElsewhere ? { risk: 'weaken' as const } : {}),
      target: targetName(target),
      loses: isElsewhere
        ? 'nothing, but a complete copy of the data leaves for a place that is not configured'
        : 'nothing',
      blast_radius: { destination: showPath(place.destination), memory_used_bytes: target.database.memoryUsedBytes },
      undo: `delete the files under ${showPath(place.destination)}`,
      unknowns: ['the names of the files: Redis Cloud does not tell them'],
      facts: {
        target: targetFacts(target),
        source: { destination_sha256: sha256(place.destination), region: place.region },
      },
    };
  },
  steps: () => snapshotSteps('on_demand', { start: 'snapshot', wait: 'wait' }, wantedOf),
  result(results) {
    const done = results['wait'] ?? {};
    return {
      id: String(done['id']),
      kind: 'on_demand',
      status: 'available',
      ...(typeof done['backup_at'] === 'string' ? { created_at: done['backup_at'] } : {}),
      ...(typeof done['destination'] === 'string' ? { location: done['destination'] } : {}),
      restorable: true,
      provider: {
        task_id: done['task_id'],
        region: done['region'],
        shards: done['shards'],
        file: 'not checked; its name is not told',
      },
    };
  },
});

export const listSnapshots = defineAction({
  provider: redisCloud,
  name: 'list-snapshots',
  aliases: ['list-backups'],
  title: 'List the known backups of a Redis Cloud database',
  summary: 'Lists the latest backup and those made through Holdfast; Redis Cloud has no full list.',
  on: DATABASES,
  risk: 'read',
  input: z.object(ListInput),
  output: SnapshotList,
  errors: [
    'RESOURCE_NOT_FOUND',
    'AUTHENTICATION_FAILED',
    'INSUFFICIENT_PERMISSIONS',
    'RATE_LIMITED',
    'PROVIDER_UNAVAILABLE',
  ],
  source: 'Redis Cloud API v1, GET database backup',
  example: { limit: 10 },
  async run(context, { limit = 50, cursor }) {
    const target = await readTarget(context);
    const latest = await readLatest(context, target);
    const points = await knownPoints(context, target, latest);
    const start = cursor === undefined ? 0 : points.findIndex(({ id }) => id === cursor) + 1;
    if (cursor !== undefined && start === 0) {
      throw new HoldfastError('INVALID_PARAMETER', 'this cursor is not of this list', {
        hint: 'Begin again without a cursor.',
      });
    }
    const snapshots = points.slice(start, start + limit);
    const last = snapshots.at(-1);
    return {
      snapshots,
      ...(last !== undefined && start + limit < points.length ? { next_cursor: last.id } : {}),
      notes: [NO_LISTING, ...latest.flatMap(({ problem }) => problem ?? [])],
    };
  },
});

// Whatever is given here is masked in all that this call shows, so a mere word must not pass.
const SourceUri = z
  .string()
  .refine((uri) => /^[a-z0-9]+:\/\/.{4,}/i.test(uri), 'write a complete URI, s3://bucket/path/file.rdb.gz');

const RestoreInput = z.object({
  source_type: z.enum(SOURCE_TYPES),
  source_uri: z
    .union([SourceUri, z.array(SourceUri).min(1).max(200)])
    .meta({ secret: true })
    .describe('all files of the backup, one a shard'),
  safety_snapshot: z.boolean().optional(),
});

/** What a connection to the target shows, or why there is none. */
interface Look {
  readonly inspection: Inspection | undefined;
  readonly isElsewhere: boolean;
  readonly problem: string | undefined;
}

async function look(context: Context, target: Target): Promise<Look> {
  const { entity, runtime, signal } = context;
  const none = { inspection: undefined, isElsewhere: false };
  if (entity.redis_url === undefined) {
    return {
      ...none,
      problem: 'what the database holds: set redis_url of this entity (a read-only user) to have keys counted',
    };
  }
  const { inspect, endpointOf, concealPassword } = await import('../src/providers/redis-cloud/inspect.ts');
  try {
    const url = await runtime.secret(entity.redis_url);
    concealPassword(url, runtime);
    const isElsewhere = !target.database.endpoints.includes(endpointOf(url));
    return { inspection: await inspect(url, signal), isElsewhere, problem: undefined };
  } catch (cause) {
    if (!(cause instanceof HoldfastError) || cause.code === 'CANCELLED') throw cause;
    return { ...none, problem: `what the database holds: ${cause.message} (${cause.code})` };
  }
}

/** Rounds a moving number of keys to its order of magnitude, so that approval survives ordinary writes. */
function bandOf(keys: number): string {
  return keys === 0 ? 'none' : `1e${Math.floor(Math.log10(keys))}`;
}

function refuseTarget({ database }: Target): void {
  if (database.protocol === 'memcached') {
    throw new HoldfastError('NOT_SUPPORTED', 'nothing can be imported into a Memcached database');
  }
  if (database.isReplica) {
    throw new HoldfastError(
      'INVALID_STATE',
      'the database follows another one (Replica Of), which would overwrite the import',
      {
        hint: 'Restore the source instead, or end Replica Of first.',
        retryable: false,
      },
    );
  }
  if (database.status !== 'active') {
    throw new HoldfastError('INVALID_STATE', `the database is ${database.status}; only an active one takes an import`);
  }
}

function describeLoss(name: string, { database }: Target, inspection: Inspection | undefined): string {
  const keys = inspection === undefined ? 'every key' : `all ${inspection.keys} keys`;
  if (!database.isActiveActive) {
    return `${keys} of ${name}: the import first removes all data; only what the file holds comes back`;
  }
  const regions = database.regions.map(({ name: region }) => region).join(', ');
  return `${keys} of ${name} in all its regions (${regions}): removed first, or merged with what the file holds, where counters add up and newer values are overwritten; nobody tells which`;
}

export const restore = defineAction({
  provider: redisCloud,
  name: 'restore',
  title: 'Import a backup over a Redis Cloud database',
  summary: 'Empties this database, then imports RDB files. Not a merge: keys not in the files are lost.',
  on: DATABASES,
  risk: 'overwrite',
  input: RestoreInput,
  output: RestoreJob,
  errors: [
    'INVALID_PARAMETER',
    'INVALID_STATE',
    'SNAPSHOT_NOT_FOUND',
    'RESOURCE_NOT_FOUND',
    'NOT_SUPPORTED',
    'QUOTA_EXCEEDED',
    'INTEGRITY_FAILED',
    'AUTHENTICATION_FAILED',
    'INSUFFICIENT_PERMISSIONS',
    'RATE_LIMITED',
    'PROVIDER_UNAVAILABLE',
    'TIMEOUT',
  ],
  source: 'Redis Cloud API v1, POST database import: "removes all existing data from the database"',
  example: { source_type: 'aws-s3', source_uri: 's3://sandbox-backups/redis/carts/carts-last-good.rdb.gz' },
  async plan(context, input) {
    const { entity, runtime } = context;
    const uris = checkSources(input.source_type, input.source_uri);
    const target = await readTarget(context);
    refuseTarget(target);
    const { database } = target;
    const name = targetName(target);
    const latest = await readLatest(context, target);
    const points = await knownPoints(context, target, latest);
    const newest = points.find(({ restorable }) => restorable);
    const place = backupPlace(target);
    const seen = await look(context, target);
    const { inspection } = seen;
    const age =
      newest?.created_at === undefined ? undefined : (runtime.now().getTime() - Date.parse(newest.created_at)) / 1000;
    return {
      target: name,
      source: uris.map((uri) => showSource(input.source_type, uri)).join(', '),
      loses: describeLoss(name, target, inspection),
      blast_radius: {
        ...databaseFacts(target),
        files: uris.length,
        ...(inspection === undefined
          ? {}
          : {
              keys: inspection.keys,
              databases: { ...inspection.databases },
              memory: { ...inspection.memory },
              clients_connected: inspection.clients,
              role: inspection.role,
              replicas: inspection.replicas,
              key_prefixes: inspection.prefixes.map((entry) => ({ ...entry })),
              keys_sampled: inspection.sampled,
            }),
      },
      ...(newest?.created_at === undefined ? {} : { newest_recovery_point: { id: newest.id, at: newest.created_at } }),
      safety_snapshot: place.possible ? { possible: true } : { possible: false, reason: place.reason },
      undo: place.possible
        ? `import the files that the safety snapshot writes under ${showPath(place.destination)}; Redis Cloud does not tell their names, so look for the newest there${database.isActiveActive ? '. Where an import merges, keys that this one adds stay' : ''}`
        : `none: ${place.reason}, so no copy of the present data can be made first`,
      alternatives: [
        ...(place.possible
          ? [
              {
                title: 'Back up the present data first',
                risk: 'create' as const,
                call: { entity: entity.key, action: 'create-snapshot', input: {} },
              },
            ]
          : []),
        {
          title:
            'Import into a new, empty database instead: create one in the Redis Cloud console, add it to the entities file, restore there and look',
          risk: 'create',
        },
        {
          title: 'See which backups are known',
          risk: 'read',
          call: { entity: entity.key, action: 'list-snapshots', input: {} },
        },
      ],
      unknowns: [
        'when the files were written, and whether Redis Cloud can read them: it finds out after the database was emptied',
        'whether the data fits: too little memory fails half-way, after the database was emptied',
        'whether the Redis version and modules of the files fit the target',
        'how long it takes: Redis Cloud gives no percentage',
        seen.problem ?? [],
        inspection?.gaps.map((gap) => `what ${gap} would have shown: the user of redis_url was refused`) ?? [],
        latest.flatMap(({ problem }) => problem ?? []),
      ].flat(2),
      warnings: [
        `This overwrites ${name}, the live database of ${entity.key}: Redis Cloud imports into the database itself and removes all its data first.`,
        newest === undefined
          ? 'NO BACKUP of the present data is known.'
          : age === undefined
            ? []
            : `The newest known backup is ${formatDuration(age)} old: everything written since then exists nowhere else.`,
        database.shards !== undefined && database.shards !== uris.length
          ? `The call names ${uris.length} file(s), and the database has ${database.shards} shard(s). A backup has one file for each shard of its source: a missing file is missing data.`
          : [],
        uris.some((uri) => input.source_type !== 'redis' && !/\.rdb(\.gz)?(\?|$)/i.test(uri))
          ? 'A source does not end in .rdb or .rdb.gz: an import of anything else fails after the database was emptied.'
          : [],
        input.source_type === 'redis' ? 'The source is a live server: what it holds at that moment is imported.' : [],
        database.isActiveActive
          ? `Active-Active: the import reaches all regions (${database.regions.map(({ name: region }) => region).join(', ')}). The vendor’s guides disagree whether it replaces the data there or merges with it and adds counters; expect either.`
          : [],
        database.dataPersistence === 'none' ? 'Data persistence is off: a restart loses what was imported.' : [],
        seen.isElsewhere
          ? 'redis_url does not point to an endpoint that Redis Cloud names for this database: the numbers may be of another one.'
          : [],
      ].flat(),
      facts: {
        target: targetFacts(target),
        source: { source_type: input.source_type, files: uris.length, uri_sha256: uris.map((uri) => sha256(uri)) },
        context: {
          last_backup_at: latest.map(({ attempt }) => attempt?.at ?? null),
          keys_band: inspection === undefined ? null : bandOf(inspection.keys),
        },
      },
    };
  },
  safety: {
    steps: () =>
      snapshotSteps<z.output<typeof RestoreInput>>(
        'safety',
        { start: 'safety-snapshot', wait: 'safety-wait' },
        () => ({}),
      ),
    undo(results) {
      const done = results['safety-wait'] ?? results['safety-snapshot'] ?? {};
      const destination = textOf(done['destination']);
      const { action, input } = importCall(destination);
      return {
        action,
        input,
        note: `Redis Cloud does not tell the names of the files. Look under ${destination ?? 'the backup path'} for those of ${String(done['backup_at'] ?? 'the safety snapshot')}, one for each shard, and put them in.`,
        snapshot_id: done['id'],
        backup_at: done['backup_at'],
        destination,
        shards: done['shards'],
      };
    },
  },
  steps: (_input, plan) => restoreSteps(plan),
  result(results) {
    const begun = results['restore'] ?? {};
    const done = results['wait'] ?? {};
    return {
      job_id: String(begun['task_id']),
      status: 'succeeded' as const,
      target: String(begun['target']),
      ...(typeof begun['started_at'] === 'string' ? { started_at: begun['started_at'] } : {}),
      ...(typeof done['ended_at'] === 'string' ? { ended_at: done['ended_at'] } : {}),
      usable: true,
      provider: { import_at: done['import_at'], checks: results['verify'] },
    };
  },
});

function restoreSteps(plan: Plan): readonly RedisStep<z.output<typeof RestoreInput>>[] {
  return [
    {
      name: 'restore',
      title: 'Asking for the import',
      kind: 'mutate',
      async run(context) {
        const { client, input, runtime, signal } = context;
        const uris = checkSources(input.source_type, input.source_uri);
        const target = await readTarget(context);
        const changes = compareFacts(plan.facts.target, targetFacts(target));
        if (changes.length > 0) {
          throw new HoldfastError('INVALID_STATE', 'the database is not as the plan said', {
            hint: 'Nothing was imported. Make the call again without a token to get a new plan.',
            details: { outcome: 'not_sent', changed: changes.map(({ path }) => path) },
          });
        }
        refuseTarget(target);
        const before = await client.latestImport(target.address, signal);
        const handle = handleFor(target.address, {
          target: targetName(target),
          before: toJson(before),
          known_tasks: await knownTasks(context, 'import', target.address),
          started_at: toTimestamp(runtime.now()),
        });
        await context.checkpoint(handle);
        const task = await client.startImport(target.address, input.source_type, uris, signal);
        const begun = { ...handle, known_tasks: undefined, task_id: task.id };
        await context.checkpoint(begun);
        return begun;
      },
      recover: (context) => recoverWrite(context, 'import'),
    },
    {
      name: 'wait',
      title: 'Waiting until the import is loaded',
      kind: 'follow',
      async run(context) {
        const begun = context.results['restore'] ?? {};
        // For get-restore-status: the service's answer is about its latest import, whichever that is.
        await context.runtime.ledger.add(IMPORT_LEDGER, { task_id: begun['task_id'], before: begun['before'] });
        const attempt = await followWork(context, 'import', begun);
        return { import_at: attempt.at, ended_at: toTimestamp(context.runtime.now()) };
      },
    },
    {
      name: 'verify',
      title: 'Looking at the database after the import',
      kind: 'follow',
      async run(context) {
        const begun = context.results['restore'] ?? {};
        const { database } = await readTarget(context);
        const target: Target = { address: addressOf(begun), subscription: {}, database };
        const { inspection, isElsewhere, problem } = await look(context, target);
        if (inspection === undefined) return { checked: false, reason: problem };
        const planned = plan.blast_radius['key_prefixes'];
        const expected = (Array.isArray(planned) ? planned : []).flatMap((entry) =>
          isObject(entry) && typeof entry['prefix'] === 'string' ? entry['prefix'] : [],
        );
        const present = new Set(inspection.prefixes.map(({ prefix }) => prefix));
        if (inspection.keys === 0 && !isElsewhere) {
          throw new HoldfastError('INTEGRITY_FAILED', 'the database is empty after the import', {
            hint: 'The files held no keys that are still valid. Import another backup, or the safety snapshot.',
          });
        }
        return {
          checked: true,
          keys_before: plan.blast_radius['keys'],
          keys_after: inspection.keys,
          databases: { ...inspection.databases },
          key_prefixes: inspection.prefixes.map((entry) => ({ ...entry })),
          prefixes_not_seen_again: expected.filter((prefix) => !present.has(prefix)),
          ...(isElsewhere ? { warning: 'redis_url may point to another database' } : {}),
        };
      },
    },
  ];
}

export const getRestoreStatus = defineAction({
  provider: redisCloud,
  name: 'get-restore-status',
  title: 'Show how far a Redis Cloud import is',
  summary: 'Shows the import of a task id; done only once the database is loaded and active.',
  on: DATABASES,
  risk: 'read',
  input: z.object({ task_id: z.string().max(60) }),
  output: RestoreJob,
  errors: ['INVALID_PARAMETER', 'RESOURCE_NOT_FOUND', 'AUTHENTICATION_FAILED', 'RATE_LIMITED', 'PROVIDER_UNAVAILABLE'],
  source: 'Redis Cloud API v1, GET task, GET database import',
  example: { task_id: '5a3d1c52-0000-4000-8000-000000000001' },
  async run(context, { task_id }) {
    const { client, signal, runtime } = context;
    const task = await client.task(task_id, signal);
    const target = await readTarget(context);
    const command = task.command.toLowerCase();
    if (!command.includes('import') || command.includes('status')) {
      throw new HoldfastError('INVALID_PARAMETER', 'this task is not an import', {
        hint: 'Use the job_id that restore gave.',
      });
    }
    if (task.resourceIds.length > 0 && !task.resourceIds.includes(target.address.database)) {
      throw new HoldfastError('RESOURCE_NOT_FOUND', 'this task is about another database', {
        hint: 'Call get-restore-status on the entity that the restore was called on.',
      });
    }
    const latest =
      taskStatus(task.status) === 'succeeded' ? await client.latestImport(target.address, signal) : undefined;
    const note = (await runtime.ledger.list(IMPORT_LEDGER, 200)).find((entry) => entry['task_id'] === task.id);
    const { status, usable } = restoreState(task, latest, target.database.status, note?.['before']);
    const isOver = status === 'succeeded' || status === 'failed';
    return {
      job_id: task.id,
      status,
      target: targetName(target),
      ...(isOver && latest?.at !== undefined ? { ended_at: latest.at } : {}),
      usable,
      provider: {
        tier: tierOf(context.entity),
        task_status: task.status,
        import_status: latest?.status,
        database_status: target.database.status,
        error: task.error?.type,
        failure_reason: latest?.failureReason,
        note:
          latest === undefined
            ? undefined
            : 'Redis Cloud tells the state of the latest import of the database, not of a task.',
      },
    };
  },
});
