import { createHash, randomUUID } from 'node:crypto';
import { isObject } from '../core/json.ts';
import type { Simulator, SimulatorOptions, SimulatorRequest, SimulatorResponse } from './simulator.ts';

interface BackupConfig {
  /** Whether it is in use; where left out, a destination means that it is. */
  active?: boolean | undefined;
  destination?: string | undefined;
  interval?: string | undefined;
  timeUTC?: string | undefined;
}

interface Attempt {
  status?: string | undefined;
  at?: string | undefined;
  failureReason?: string | undefined;
}

export interface SimulatedDatabase {
  id: number;
  subscription: number;
  name: string;
  status: string;
  protocol: string;
  dataPersistence: string;
  replication: boolean;
  shards: number;
  publicEndpoint: string;
  backup: BackupConfig;
  /** Region names with their own backups; empty for a single region. */
  regions: Map<string, { backup: BackupConfig; lastBackup: Attempt }>;
  syncSources: string[];
  lastBackup: Attempt;
  lastImport: Attempt;
  /** The keys. An import empties this first. */
  data: Map<string, string>;
}

export interface SimulatedSubscription {
  id: number;
  name: string;
  tier: 'essentials' | 'pro';
  status: string;
  planId: number;
  price: number;
  supportInstantAndDailyBackups: boolean;
  supportDataPersistence: boolean;
}

export interface SimulatedTask {
  id: string;
  commandType: string;
  createdAt: number;
  startsAt: number;
  endsAt: number;
  resourceId: number | undefined;
  additionalResourceId: number | undefined;
  resource?: (() => object) | undefined;
  error?: { type: string; status: string; description: string } | undefined;
  /** How often the id is still unknown. */
  hidden: number;
}

interface FileContent {
  readonly data: ReadonlyMap<string, string>;
  readonly corrupt?: boolean;
}

/** What tests change to set up odd states. */
export interface RedisCloudState {
  readonly subscriptions: Map<number, SimulatedSubscription>;
  readonly databases: Map<number, SimulatedDatabase>;
  readonly tasks: Map<string, SimulatedTask>;
  /** Backup files in the customer's storage, by URI without credentials and query; `corrupt` ones cannot be read. */
  readonly files: Map<string, FileContent>;
  /** Milliseconds of clock time: what the account's queue takes for one write, and the work once its task is processed. */
  readonly durations: { queue: number; backup: number; import: number; update: number };
  /** Answers every call with this status. */
  deny: 401 | 403 | undefined;
  /** Makes the user key a viewer's: it reads only. */
  viewer: boolean;
  /** Requests that the account may send within a minute; none are counted off when undefined. */
  rateLimit: number | undefined;
  /** How often a new task id answers 404. */
  hiddenLooks: number;
  /** Keeps every task in this state. */
  stuck: string | undefined;
  /** The next write ends with this task error; as an object, or as the bare word of the API description. */
  nextError: { type: string; status?: string; bare?: boolean } | undefined;
  /** What an import does to an Active-Active database; the vendor's guides say both. */
  activeActiveImport: 'replaces' | 'merges';
  /** The next backup or import is handed over and then fails, with this text. */
  nextFailure: string | undefined;
  /** The latest backup and import show nothing of one that is running. */
  hideProgress: boolean;
  /** How long a database stays pending after its import is reported as done, in ms. */
  settleMs: number;
  /** Words in place of the usual ones of the latest backup and import. */
  backupWord: string | undefined;
  importWord: string | undefined;
}

export interface RedisCloudSimulator extends Simulator {
  readonly state: RedisCloudState;
}

interface SimulatedPlan {
  readonly id: number;
  readonly name: string;
  readonly size: number;
  readonly price: number;
  readonly maximumDatabases: number;
  readonly region: string;
  readonly supportInstantAndDailyBackups: boolean;
  readonly supportDataPersistence: boolean;
  readonly supportReplication: boolean;
}

const plan = (
  id: number,
  name: string,
  [size, price, maximumDatabases]: [number, number, number],
  supports: { backups: boolean; persistence: boolean; replication: boolean },
  region = 'us-east-1',
): SimulatedPlan => ({
  id,
  name,
  size,
  price,
  maximumDatabases,
  region,
  supportInstantAndDailyBackups: supports.backups,
  supportDataPersistence: supports.persistence,
  supportReplication: supports.replication,
});

const FULL = { backups: true, persistence: true, replication: true };
const PLANS: readonly SimulatedPlan[] = [
  plan(98_001, 'Free 30MB', [30, 0, 1], { backups: false, persistence: false, replication: false }),
  plan(98_200, 'Cache 250MB', [250, 500, 4], { backups: false, persistence: false, replication: true }),
  plan(98_240, 'Single-Zone 100MB', [100, 300, 4], FULL),
  plan(98_250, 'Single-Zone 250MB', [250, 500, 4], FULL),
  plan(98_260, 'Single-Zone 250MB Europe', [250, 400, 4], FULL, 'eu-west-1'),
  plan(98_500, 'Single-Zone 500MB', [500, 900, 8], FULL),
];

const PERSISTENCE = [
  'none',
  'aof-every-1-second',
  'aof-every-write',
  'snapshot-every-1-hour',
  'snapshot-every-6-hours',
  'snapshot-every-12-hours',
];
const INTERVALS = [1, 2, 4, 6, 12, 24].map((hours) => `every-${hours}-hours`);
const STORAGE: Record<string, RegExp> = {
  'aws-s3': /^s3:\/\//,
  'google-blob-storage': /^gs:\/\//,
  'azure-blob-storage': /^abs:\/\//,
  ftp: /^ftps?:\/\//,
};

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const TASK_LIFE = 10 * DAY;
const SOURCE_TYPES = ['http', 'redis', 'ftp', 'aws-s3', 'azure-blob-storage', 'google-blob-storage'];

/** Stands in for the Redis Cloud API: accounts of Essentials and Pro subscriptions, tasks, backups and imports. */
export function redisCloudSimulator({ clock }: SimulatorOptions): RedisCloudSimulator {
  const state = sampleFleet(clock.now().getTime());
  const due: { at: number; run: () => void }[] = [];
  const requests: number[] = [];
  let busyUntil = 0;

  const settle = (): void => {
    const now = clock.now().getTime();
    due.sort((a, b) => a.at - b.at);
    while (due[0] !== undefined && due[0].at <= now) due.shift()?.run();
    for (const [id, task] of state.tasks) if (now - task.createdAt > TASK_LIFE) state.tasks.delete(id);
  };

  const addTask = (
    commandType: string,
    times: { startsAt: number; endsAt: number },
    more: Partial<Pick<SimulatedTask, 'resourceId' | 'additionalResourceId' | 'resource' | 'error'>> = {},
  ): SimulatedTask => {
    const task: SimulatedTask = {
      id: randomUUID(),
      commandType,
      createdAt: clock.now().getTime(),
      ...times,
      resourceId: undefined,
      additionalResourceId: undefined,
      ...more,
      hidden: state.hiddenLooks,
    };
    state.tasks.set(task.id, task);
    return task;
  };

  const showTask = (task: SimulatedTask): object => {
    const now = clock.now().getTime();
    const status =
      state.stuck ??
      (now < task.startsAt
        ? 'received'
        : now < task.endsAt
          ? 'processing-in-progress'
          : task.error === undefined
            ? 'processing-completed'
            : 'processing-error');
    const isOver = now >= task.endsAt && state.stuck === undefined;
    const reached = now < task.startsAt ? task.createdAt : now < task.endsAt ? task.startsAt : task.endsAt;
    return {
      taskId: task.id,
      commandType: task.commandType,
      status,
      description: `Task ${status}.`,
      timestamp: new Date(reached).toISOString(),
      ...(now < task.startsAt
        ? {}
        : {
            response: {
              ...(task.resourceId === undefined ? {} : { resourceId: task.resourceId }),
              ...(task.additionalResourceId === undefined ? {} : { additionalResourceId: task.additionalResourceId }),
              ...(isOver && task.resource !== undefined ? { resource: task.resource() } : {}),
              ...(isOver && task.error !== undefined
                ? { error: task.error.status === '' ? task.error.type : task.error }
                : {}),
            },
          }),
      links: [{ rel: 'self', type: 'GET', href: `https://api.redislabs.com/v1/tasks/${task.id}` }],
    };
  };

  /** Writes are processed one after another for the whole account. */
  const queueWrite = (milliseconds: number): { startsAt: number; endsAt: number } => {
    const startsAt = Math.max(clock.now().getTime() + state.durations.queue / 4, busyUntil);
    busyUntil = startsAt + milliseconds;
    return { startsAt, endsAt: busyUntil };
  };

  const failingTask = (commandType: string, database: number | undefined, type: string, status = '400 BAD_REQUEST') => {
    const task = addTask(commandType, queueWrite(state.durations.queue / 4), {
      resourceId: database,
      error: { type, status, description: `Simulated ${type}.` },
    });
    return { status: 200, body: showTask(task) };
  };

  const statusTask = (commandType: string, database: SimulatedDatabase, read: () => object): SimulatorResponse => {
    const now = clock.now().getTime();
    const task = addTask(
      commandType,
      { startsAt: now + state.durations.queue / 10, endsAt: now + state.durations.queue / 5 },
      { resourceId: database.id, additionalResourceId: database.subscription, resource: read },
    );
    return { status: 200, body: showTask(task) };
  };

  const nextError = (commandType: string, database: number): SimulatorResponse | undefined => {
    const wanted = state.nextError;
    if (wanted === undefined) return undefined;
    state.nextError = undefined;
    return failingTask(
      commandType,
      database,
      wanted.type,
      wanted.bare === true ? '' : (wanted.status ?? '400 BAD_REQUEST'),
    );
  };

  const backup = (database: SimulatedDatabase, body: Record<string, unknown>): SimulatorResponse => {
    const command = 'databaseBackupRequest';
    const subscription = state.subscriptions.get(database.subscription);
    const { regionName, adhocBackupPath } = body;
    if (subscription?.tier === 'essentials' && !subscription.supportInstantAndDailyBackups) {
      return failingTask(command, database.id, 'DATABASE_BACKUP_NOT_SUPPORTED');
    }
    if (database.regions.size > 0 && regionName === undefined) {
      return failingTask(command, database.id, 'ACTIVE_ACTIVE_BACKUP_MISSING_REGION_NAME');
    }
    if (database.regions.size === 0 && regionName !== undefined) {
      return failingTask(command, database.id, 'BACKUP_REGION_NAME_IS_NOT_ALLOWED_WITH_SINGLE_REGION_SUBSCRIPTION');
    }
    const region = regionName === undefined ? undefined : database.regions.get(String(regionName));
    if (regionName !== undefined && region === undefined) {
      return failingTask(command, database.id, 'ACTIVE_ACTIVE_INVALID_BACKUP_REGION_NAME');
    }
    if (database.status !== 'active') return failingTask(command, database.id, 'DATABASE_NOT_ACTIVE');
    const path = adhocBackupPath ?? (region?.backup ?? database.backup).destination;
    if (typeof path !== 'string') return failingTask(command, database.id, 'DATABASE_BACKUP_NOT_CONFIGURED');
    if (!/^(s3|gs|abs|ftps?):\/\//.test(path)) return failingTask(command, database.id, 'DATABASE_INVALID_BACKUP_PATH');
    const refused = nextError(command, database.id);
    if (refused !== undefined) return refused;
    const times = queueWrite(state.durations.queue);
    const latest = region?.lastBackup ?? database.lastBackup;
    const failure = state.nextFailure;
    state.nextFailure = undefined;
    if (!state.hideProgress) {
      due.push({ at: times.startsAt, run: () => Object.assign(latest, { status: 'in-progress' }) });
    }
    const endsAt = times.startsAt + state.durations.backup;
    due.push({
      at: endsAt,
      run: () => {
        const at = new Date(endsAt).toISOString();
        if (failure !== undefined) {
          Object.assign(latest, { status: 'failed', failureReason: failure });
          return;
        }
        Object.assign(latest, { status: 'success', at, failureReason: undefined });
        for (let shard = 1; shard <= database.shards; shard += 1) {
          const name = `${database.name}-${at}-${shard}_of_${database.shards}.rdb.gz`;
          const part = [...database.data].filter(([key]) => shardOf(key, database.shards) === shard);
          state.files.set(bare(`${path.replace(/\/+$/, '')}/${name}`), { data: new Map(part) });
        }
      },
    });
    const task = addTask(command, times, { resourceId: database.id, additionalResourceId: database.subscription });
    return { status: 200, body: showTask(task) };
  };

  const importFiles = (database: SimulatedDatabase, body: Record<string, unknown>): SimulatorResponse => {
    const command = 'databaseImportRequest';
    const { sourceType, importFromUri } = body;
    if (!SOURCE_TYPES.includes(String(sourceType))) return httpError(400, 'sourceType');
    if (!Array.isArray(importFromUri) || importFromUri.some((uri) => typeof uri !== 'string')) {
      return httpError(400, 'importFromUri');
    }
    const uris = importFromUri as string[];
    if (uris.length === 0) return failingTask(command, database.id, 'DATABASE_IMPORT_URI_NOT_PROVIDED');
    if (new Set(uris).size !== uris.length)
      return failingTask(command, database.id, 'DUPLICATE_DATABASE_IMPORT_SOURCE_PATH');
    const bad = badUri(String(sourceType), uris);
    if (bad !== undefined) return failingTask(command, database.id, bad);
    if (database.status !== 'active') return failingTask(command, database.id, 'DATABASE_NOT_ACTIVE');
    const refused = nextError(command, database.id);
    if (refused !== undefined) return refused;
    const files = uris.map((uri) => state.files.get(bare(uri)));
    if (files.some((file) => file === undefined)) {
      return failingTask(command, database.id, 'DATABASE_IMPORT_SOURCE_NOT_FOUND', '404 NOT_FOUND');
    }
    const times = queueWrite(state.durations.queue * 1.5);
    const failure = state.nextFailure ?? (files.some((file) => file?.corrupt) ? 'the file cannot be read' : undefined);
    state.nextFailure = undefined;
    due.push({
      at: times.startsAt,
      run: () => {
        database.status = 'pending';
        if (!state.hideProgress) Object.assign(database.lastImport, { status: 'importing', failureReason: undefined });
        // All data goes first, whatever becomes of the import.
        if (database.regions.size === 0 || state.activeActiveImport === 'replaces') database.data.clear();
      },
    });
    const endsAt = times.startsAt + state.durations.import;
    due.push({ at: endsAt + state.settleMs, run: () => Object.assign(database, { status: 'active' }) });
    due.push({
      at: endsAt,
      run: () => {
        const at = new Date(endsAt).toISOString();
        if (failure !== undefined) {
          Object.assign(database.lastImport, { status: 'failed', at, failureReason: failure });
          return;
        }
        for (const file of files) for (const [key, value] of file?.data ?? []) database.data.set(key, value);
        Object.assign(database.lastImport, { status: 'success', at });
      },
    });
    const task = addTask(command, times, { resourceId: database.id, additionalResourceId: database.subscription });
    return { status: 200, body: showTask(task) };
  };

  /** Takes a change of settings: refused by its task, or in force when its task is over. */
  const update = (
    command: string,
    database: SimulatedDatabase,
    refusal: string | undefined,
    apply: () => void,
  ): SimulatorResponse => {
    if (refusal !== undefined) return failingTask(command, database.id, refusal);
    if (database.status !== 'active') return failingTask(command, database.id, 'DATABASE_NOT_ACTIVE');
    const refused = nextError(command, database.id);
    if (refused !== undefined) return refused;
    const times = queueWrite(state.durations.update);
    due.push({ at: times.startsAt, run: () => Object.assign(database, { status: 'active-change-pending' }) });
    due.push({
      at: times.endsAt,
      run: () => {
        apply();
        database.status = 'active';
      },
    });
    const task = addTask(command, times, { resourceId: database.id, additionalResourceId: database.subscription });
    return { status: 200, body: showTask(task) };
  };

  const updateEssentials = (database: SimulatedDatabase, body: Record<string, unknown>): SimulatorResponse => {
    const { dataPersistence, periodicBackupPath } = body;
    const subscription = state.subscriptions.get(database.subscription);
    const odd = strangerIn(body, ['dataPersistence', 'periodicBackupPath']);
    if (odd !== undefined) return httpError(400, odd);
    const path = periodicBackupPath === undefined ? undefined : String(periodicBackupPath);
    const refusal =
      dataPersistence !== undefined && !PERSISTENCE.includes(String(dataPersistence))
        ? 'BAD_REQUEST'
        : dataPersistence === 'aof-every-write'
          ? 'DATABASE_AOF_NOT_SUPPORTED'
          : dataPersistence !== undefined && dataPersistence !== 'none' && !subscription?.supportDataPersistence
            ? 'FIXED_DATABASE_CLUSTER_DOES_NOT_SUPPORT_DATA_PERSISTENCE'
            : path !== undefined && path !== '' && !subscription?.supportInstantAndDailyBackups
              ? 'DATABASE_BACKUP_NOT_SUPPORTED'
              : path !== undefined && path !== '' && !Object.values(STORAGE).some((form) => form.test(path))
                ? 'DATABASE_INVALID_BACKUP_PATH'
                : undefined;
    return update('fixedDatabaseUpdateRequest', database, refusal, () => {
      if (dataPersistence !== undefined) database.dataPersistence = String(dataPersistence);
      // An empty path ends the daily backups.
      if (path !== undefined) database.backup = path === '' ? {} : { destination: path };
    });
  };

  const backupRefusal = (given: unknown): string | undefined => {
    if (given === undefined) return undefined;
    if (!isObject(given)) return 'BAD_REQUEST';
    const { active, interval, timeUTC, storageType, storagePath } = given;
    if (strangerIn(given, ['active', 'interval', 'timeUTC', 'storageType', 'storagePath']) !== undefined)
      return 'BAD_REQUEST';
    if (active !== true) return active === false ? undefined : 'BAD_REQUEST';
    if (!INTERVALS.includes(String(interval))) return 'DATABASE_INVALID_BACKUP_INTERVAL';
    const isTimed = interval === 'every-12-hours' || interval === 'every-24-hours';
    if (timeUTC !== undefined && !isTimed) return 'DATABASE_INVALID_BACKUP_INTERVAL_AND_TIME_UTC_MISMATCH';
    if (timeUTC !== undefined && !/^\d\d:\d\d$/.test(String(timeUTC))) return 'DATABASE_INVALID_BACKUP_TIME_UTC';
    const form = STORAGE[String(storageType)];
    if (form === undefined) return 'DATABASE_INVALID_BACKUP_STORAGE_TYPE';
    return form.test(String(storagePath)) ? undefined : 'DATABASE_INVALID_BACKUP_PATH';
  };

  const toConfig = (given: unknown): BackupConfig => {
    const { active, interval, timeUTC, storagePath } = given as Record<string, string | boolean | undefined>;
    if (active !== true) return { active: false };
    return {
      active,
      destination: String(storagePath),
      interval: String(interval),
      timeUTC: timeUTC === undefined ? undefined : String(timeUTC),
    };
  };

  const updatePro = (database: SimulatedDatabase, body: Record<string, unknown>): SimulatorResponse => {
    const { dataPersistence, remoteBackup } = body;
    const odd = strangerIn(body, ['dataPersistence', 'remoteBackup']);
    if (odd !== undefined) return httpError(400, odd);
    const refusal =
      database.regions.size > 0 || (dataPersistence !== undefined && !PERSISTENCE.includes(String(dataPersistence)))
        ? 'BAD_REQUEST'
        : backupRefusal(remoteBackup);
    return update('databaseUpdateRequest', database, refusal, () => {
      if (dataPersistence !== undefined) database.dataPersistence = String(dataPersistence);
      if (remoteBackup !== undefined) database.backup = toConfig(remoteBackup);
    });
  };

  const updateRegions = (database: SimulatedDatabase, body: Record<string, unknown>): SimulatorResponse => {
    const { globalDataPersistence, regions = [] } = body;
    const odd = strangerIn(body, ['globalDataPersistence', 'regions']);
    if (odd !== undefined || !Array.isArray(regions) || !regions.every(isObject))
      return httpError(400, odd ?? 'regions');
    const refusal =
      database.regions.size === 0 ||
      (globalDataPersistence !== undefined && !PERSISTENCE.includes(String(globalDataPersistence)))
        ? 'BAD_REQUEST'
        : regions.some(({ region }) => !database.regions.has(String(region)))
          ? 'ACTIVE_ACTIVE_INVALID_BACKUP_REGION_NAME'
          : regions.map(({ remoteBackup }) => backupRefusal(remoteBackup)).find((fault) => fault !== undefined);
    return update('crdbUpdateRequest', database, refusal, () => {
      if (globalDataPersistence !== undefined) database.dataPersistence = String(globalDataPersistence);
      for (const { region, remoteBackup } of regions) {
        const found = database.regions.get(String(region));
        if (found !== undefined && remoteBackup !== undefined) found.backup = toConfig(remoteBackup);
      }
    });
  };

  const movePlan = (subscription: SimulatedSubscription, given: unknown): SimulatorResponse => {
    const command = 'fixedSubscriptionUpdateRequest';
    const target = PLANS.find(({ id }) => isObject(given) && id === given['planId']);
    if (target === undefined || strangerIn(given as object, ['planId']) !== undefined) return httpError(400, 'planId');
    const count = [...state.databases.values()].filter((one) => one.subscription === subscription.id).length;
    if (count > target.maximumDatabases) {
      const full = failingTask(command, undefined, 'FIXED_DATABASE_FIXED_SUBSCRIPTION_REACHED_MAX_DATABASES_COUNT');
      return { ...full, status: 202 };
    }
    const refused = nextError(command, subscription.id);
    if (refused !== undefined) return { ...refused, status: 202 };
    const times = queueWrite(state.durations.update);
    due.push({
      at: times.endsAt,
      run: () => {
        const { id: planId, price, supportDataPersistence, supportInstantAndDailyBackups } = target;
        Object.assign(subscription, { planId, price, supportDataPersistence, supportInstantAndDailyBackups });
      },
    });
    return { status: 202, body: showTask(addTask(command, times, { resourceId: subscription.id })) };
  };

  const databaseRoute = (
    request: SimulatorRequest,
    tier: 'essentials' | 'pro',
    subscriptionId: number,
    rest: readonly string[],
  ): SimulatorResponse => {
    const subscription = state.subscriptions.get(subscriptionId);
    const [first, second] = rest;
    if (first === undefined) {
      if (request.method !== 'GET') return httpError(405, 'method');
      if (subscription?.tier !== tier) return httpError(404, 'subscription');
      const offset = Number(request.url.searchParams.get('offset') ?? 0);
      const limit = Number(request.url.searchParams.get('limit') ?? 100);
      const page = [...state.databases.values()]
        .filter((database) => database.subscription === subscriptionId)
        .slice(offset, offset + limit);
      if (page.length === 0) return httpError(404, 'databases');
      const holder = {
        subscriptionId,
        numberOfDatabases: page.length,
        databases: page.map((one) => showDatabase(one, tier)),
      };
      return { status: 200, body: { accountId: 1001, subscription: tier === 'pro' ? [holder] : holder, links: [] } };
    }
    const found = state.databases.get(Number(first));
    const database = found?.subscription === subscriptionId ? found : undefined;
    const body = isObject(request.json) ? request.json : {};
    if (request.method === 'POST' && (second === 'backup' || second === 'import') && rest.length === 2) {
      if (request.text !== '' && !isObject(request.json)) return httpError(400, 'body');
      const command = second === 'backup' ? 'databaseBackupRequest' : 'databaseImportRequest';
      if (subscription === undefined) return failingTask(command, undefined, 'SUBSCRIPTION_NOT_FOUND', '404 NOT_FOUND');
      if (subscription.tier !== tier) {
        // The trap: the other family's path is taken, and the task fails without touching the data.
        return tier === 'essentials'
          ? failingTask(
              command,
              undefined,
              `${second.toUpperCase()}_A_FIXED_DATABASE_IS_NOT_ALLOWED_WITH_A_FLEXIBLE_SUBSCRIPTION`,
            )
          : failingTask(command, undefined, 'SUBSCRIPTION_NOT_FOUND', '404 NOT_FOUND');
      }
      if (found === undefined) return failingTask(command, undefined, 'DATABASE_NOT_FOUND', '404 NOT_FOUND');
      if (database === undefined)
        return failingTask(command, undefined, 'DATABASE_SUBSCRIPTION_MISMATCH', '404 NOT_FOUND');
      return second === 'backup' ? backup(database, body) : importFiles(database, body);
    }
    if (request.method === 'PUT' && (rest.length === 1 || (second === 'regions' && rest.length === 2))) {
      if (subscription?.tier !== tier || database === undefined) return httpError(404, 'database');
      if (!isObject(request.json)) return httpError(400, 'body');
      if (second === 'regions') return tier === 'pro' ? updateRegions(database, body) : httpError(404, 'path');
      return tier === 'pro' ? updatePro(database, body) : updateEssentials(database, body);
    }
    if (request.method !== 'GET') return httpError(404, 'path');
    if (subscription?.tier !== tier || database === undefined) return httpError(404, 'database');
    if (second === undefined) return { status: 200, body: showDatabase(database, tier) };
    if (second === 'backup' && rest.length === 2) {
      const regionName = request.url.searchParams.get('regionName');
      const region = regionName === null ? undefined : database.regions.get(regionName);
      if (database.regions.size > 0 && region === undefined) {
        return failingTask(
          'databaseBackupStatusRequest',
          database.id,
          'ACTIVE_ACTIVE_BACKUP_STATUS_MISSING_REGION_NAME',
        );
      }
      const latest = region?.lastBackup ?? database.lastBackup;
      return statusTask('databaseBackupStatusRequest', database, () =>
        showAttempt(latest, 'lastBackupTime', state.backupWord),
      );
    }
    if (second === 'import' && rest.length === 2) {
      return statusTask('databaseImportStatusRequest', database, () =>
        showAttempt(database.lastImport, 'lastImportTime', state.importWord),
      );
    }
    return httpError(404, 'path');
  };

  const route = (request: SimulatorRequest): SimulatorResponse => {
    const [, ...path] = request.url.pathname.split('/').filter((part) => part !== '');
    if (path[0] === 'tasks' && request.method === 'GET') {
      if (path.length === 1) return { status: 200, body: { tasks: [...state.tasks.values()].map(showTask) } };
      const task = state.tasks.get(path[1] ?? '');
      if (task === undefined || path.length > 2) return httpError(404, 'task');
      task.hidden -= 1;
      return task.hidden >= 0 ? httpError(404, 'task') : { status: 200, body: showTask(task) };
    }
    if (path[0] === 'fixed' && path[1] === 'plans') {
      const known = state.subscriptions.get(Number(path[3]));
      if (request.method !== 'GET' || path[2] !== 'subscriptions' || path.length > 4) return httpError(404, 'path');
      if (known?.tier !== 'essentials') return httpError(404, 'subscription');
      return { status: 200, body: { plans: PLANS.map(showPlan), links: [] } };
    }
    const tier = path[0] === 'fixed' ? 'essentials' : 'pro';
    const [collection, id, databases, ...rest] = tier === 'essentials' ? path.slice(1) : path;
    if (collection !== 'subscriptions') return httpError(404, 'path');
    const all = [...state.subscriptions.values()].filter((subscription) => subscription.tier === tier);
    if (id === undefined) {
      if (request.method !== 'GET') return httpError(404, 'path');
      return { status: 200, body: { accountId: 1001, subscriptions: all.map(showSubscription), links: [] } };
    }
    if (!/^\d+$/.test(id)) return httpError(400, 'subscriptionId');
    if (databases === undefined) {
      const subscription = all.find((candidate) => candidate.id === Number(id));
      if (subscription === undefined) return httpError(404, 'subscription');
      if (request.method === 'PUT' && tier === 'essentials') return movePlan(subscription, request.json);
      if (request.method !== 'GET') return httpError(404, 'subscription');
      return { status: 200, body: showSubscription(subscription) };
    }
    if (databases !== 'databases') return httpError(404, 'path');
    if (rest[0] !== undefined && !/^\d+$/.test(rest[0])) return httpError(400, 'databaseId');
    return databaseRoute(request, tier, Number(id), rest);
  };

  return {
    provider: 'redis-cloud',
    state,
    matches: ({ url }) => /^\/v1\/(subscriptions|fixed|tasks|logs|data-persistence)(\/|$)/.test(url.pathname),
    handle(request) {
      settle();
      const now = clock.now().getTime();
      while (requests[0] !== undefined && requests[0] < now - 60_000) requests.shift();
      requests.push(now);
      const remaining = Math.max(0, (state.rateLimit ?? Number.MAX_SAFE_INTEGER) - requests.length);
      const answer = (): SimulatorResponse => {
        if (state.rateLimit !== undefined && requests.length > state.rateLimit) return httpError(429, 'limit');
        if (!request.headers['x-api-key'] || !request.headers['x-api-secret-key']) return httpError(401, 'keys');
        if (state.deny !== undefined) return httpError(state.deny, 'denied');
        if (state.viewer && request.method !== 'GET') return httpError(403, 'role');
        if (!(request.headers['content-type'] ?? '').startsWith('application/json'))
          return httpError(415, 'content type');
        return route(request);
      };
      const response = answer();
      return {
        ...response,
        headers: { ...response.headers, 'x-rate-limit-remaining': String(Math.min(remaining, 400)) },
      };
    },
  };
}

const REASONS: Record<number, string> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  415: 'Unsupported Media Type',
  429: 'Too Many Requests',
};

function httpError(status: number, about: string): SimulatorResponse {
  return { status, body: { status, error: REASONS[status] ?? 'Error', message: `Simulated refusal: ${about}` } };
}

function showAttempt(attempt: Attempt, timeField: string, word: string | undefined): object {
  if (attempt.status === undefined && word === undefined) return {};
  return {
    status: word ?? attempt.status,
    ...(attempt.at === undefined ? {} : { [timeField]: attempt.at }),
    ...(attempt.failureReason === undefined ? {} : { failureReason: attempt.failureReason, failureReasonParams: [] }),
  };
}

/** Names a member that a body must not have. */
function strangerIn(body: object, known: readonly string[]): string | undefined {
  return Object.keys(body).find((name) => !known.includes(name));
}

function showPlan({ size, ...rest }: SimulatedPlan): object {
  return {
    ...rest,
    size,
    datasetSize: size,
    sizeMeasurementUnit: 'MB',
    provider: 'AWS',
    priceCurrency: 'USD',
    pricePeriod: 'Month',
    supportClustering: false,
  };
}

function showSubscription(subscription: SimulatedSubscription): object {
  const { id, name, status, price, planId, tier, supportDataPersistence, supportInstantAndDailyBackups } = subscription;
  if (tier === 'pro') return { id, name, status, memoryStorage: 'ram', numberOfDatabases: 1, links: [] };
  const own = PLANS.find((one) => one.id === planId);
  return {
    id,
    name,
    status,
    planId,
    planName: own?.name,
    size: own?.size,
    datasetSize: own?.size,
    sizeMeasurementUnit: 'MB',
    provider: 'AWS',
    region: 'us-east-1',
    price,
    pricePeriod: 'Month',
    priceCurrency: 'USD',
    maximumDatabases: own?.maximumDatabases,
    supportDataPersistence,
    supportInstantAndDailyBackups,
    supportReplication: own?.supportReplication,
    supportClustering: false,
    creationDate: '2026-01-15T09:00:00Z',
    links: [],
  };
}

function showDatabase(database: SimulatedDatabase, tier: 'essentials' | 'pro'): object {
  const used = Math.round((database.data.size * 0.4 + 2) * 10) / 10;
  const common = {
    databaseId: database.id,
    name: database.name,
    protocol: database.protocol,
    provider: 'AWS',
    region: 'us-east-1',
    redisVersion: '7.4',
    status: database.status,
    memoryUsedInMb: used,
    memoryStorage: 'ram',
    dataPersistence: database.dataPersistence,
    replication: database.replication,
    dataEvictionPolicy: 'noeviction',
    publicEndpoint: database.publicEndpoint,
    lastModified: '2026-11-01T09:00:00Z',
    modules: [],
    security: { enableTls: true, password: `sim-${database.name}-password`, sourceIps: ['0.0.0.0/0'] },
    clustering: { enabled: database.shards > 1, numberOfShards: database.shards },
    links: [],
  };
  const destination = (config: BackupConfig): object =>
    config.destination === undefined ? {} : { destination: config.destination };
  if (tier === 'essentials') {
    return {
      ...common,
      planMemoryLimit: 250,
      memoryLimitMeasurementUnit: 'MB',
      backup: {
        remoteBackupEnabled: database.backup.destination !== undefined,
        status: 'idle',
        ...(database.backup.destination === undefined ? {} : { interval: 'every-24-hours' }),
        ...destination(database.backup),
      },
    };
  }
  const proBackup = (config: BackupConfig): object => ({
    enableRemoteBackup: config.active ?? config.destination !== undefined,
    interval: config.interval ?? 'every-24-hours',
    timeUTC: config.timeUTC ?? '',
    ...destination(config),
  });
  if (database.regions.size > 0) {
    const { memoryUsedInMb, status, ...shared } = common;
    return {
      ...shared,
      status,
      activeActiveRedis: true,
      crdbDatabases: [...database.regions].map(([region, { backup }]) => ({
        provider: 'AWS',
        region,
        memoryUsedInMb,
        datasetSizeInGb: 1,
        backup: proBackup(backup),
      })),
    };
  }
  return {
    ...common,
    datasetSizeInGb: 2,
    throughputMeasurement: { by: 'operations-per-second', value: 10_000 },
    activeActiveRedis: false,
    replica:
      database.syncSources.length === 0
        ? null
        : { syncSources: database.syncSources.map((endpoint) => ({ endpoint })) },
    backup: proBackup(database.backup),
  };
}

function badUri(type: string, uris: readonly string[]): string | undefined {
  const schemes: Record<string, { pattern: RegExp; word: string }> = {
    http: { pattern: /^https?:\/\//, word: 'HTTP' },
    redis: { pattern: /^redis:\/\//, word: 'REDIS' },
    ftp: { pattern: /^ftps?:\/\//, word: 'FTP' },
    'aws-s3': { pattern: /^s3:\/\//, word: 'S3' },
    'azure-blob-storage': { pattern: /^abs:\/\//, word: 'AZURE' },
    'google-blob-storage': { pattern: /^gs:\/\//, word: 'GCS' },
  };
  const scheme = schemes[type];
  if (scheme === undefined || uris.some((uri) => !scheme.pattern.test(uri))) {
    return `DATABASE_IMPORT_${scheme?.word ?? 'HTTP'}_BAD_URI`;
  }
  return type === 'redis' && uris.length > 1 ? 'DATABASE_IMPORT_MULTIPLE_REDIS_SOURCES' : undefined;
}

/** A URI without credentials and query: what names the file. */
function bare(uri: string): string {
  return uri.replace(/^([a-z0-9]+:\/\/).*@/i, '$1').replace(/\?.*$/, '');
}

function shardOf(key: string, shards: number): number {
  return ((createHash('sha256').update(key).digest()[0] ?? 0) % shards) + 1;
}

function keys(prefixes: Readonly<Record<string, number>>, version: string): Map<string, string> {
  return new Map(
    Object.entries(prefixes).flatMap(([prefix, count]) =>
      Array.from({ length: count }, (_, index): [string, string] => [`${prefix}:${index + 1}`, version]),
    ),
  );
}

function sampleFleet(now: number): RedisCloudState {
  const ago = (milliseconds: number): string => new Date(now - milliseconds).toISOString();
  const database = (
    given: Pick<SimulatedDatabase, 'id' | 'subscription' | 'name' | 'data'> & Partial<SimulatedDatabase>,
  ): SimulatedDatabase => ({
    status: 'active',
    protocol: 'redis',
    dataPersistence: 'aof-every-1-second',
    replication: true,
    shards: 1,
    publicEndpoint: `redis-${given.id}.c1.us-east-1-2.ec2.cloud.redislabs.com:12000`,
    backup: {},
    regions: new Map(),
    syncSources: [],
    lastBackup: {},
    lastImport: {},
    ...given,
  });
  const subscription = (
    given: Pick<SimulatedSubscription, 'id' | 'name' | 'tier'> & Partial<SimulatedSubscription>,
  ) => ({
    status: 'active',
    planId: 98_250,
    price: 500,
    supportInstantAndDailyBackups: true,
    supportDataPersistence: true,
    ...given,
  });
  const databases = [
    database({
      id: 51002101,
      subscription: 2101,
      name: 'carts',
      data: keys({ cart: 40, price: 20 }, 'today'),
      backup: { destination: 's3://sandbox-backups/redis/carts/' },
      lastBackup: { status: 'success', at: ago(9 * HOUR) },
      lastImport: { status: 'success', at: ago(3 * DAY) },
    }),
    // Badly protected: no backup path, no persistence.
    database({
      id: 51002102,
      subscription: 2101,
      name: 'previews',
      data: keys({ preview: 12 }, 'today'),
      dataPersistence: 'none',
      replication: false,
    }),
    database({
      id: 51002201,
      subscription: 2102,
      name: 'toy',
      data: keys({ toy: 3 }, 'today'),
      dataPersistence: 'none',
    }),
    database({
      id: 51003101,
      subscription: 3101,
      name: 'sessions',
      data: keys({ session: 60, user: 25 }, 'today'),
      shards: 2,
      backup: { destination: 's3://sandbox-backups/redis/sessions/', interval: 'every-6-hours' },
      lastBackup: { status: 'success', at: ago(2 * HOUR) },
    }),
    database({
      id: 51003102,
      subscription: 3101,
      name: 'reports',
      data: keys({ report: 8 }, 'today'),
      syncSources: ['redis-51003101.c1.us-east-1-2.ec2.cloud.redislabs.com:12000'],
    }),
    database({
      id: 51003201,
      subscription: 3102,
      name: 'global',
      data: keys({ score: 30 }, 'today'),
      regions: new Map([
        ['us-east-1', { backup: {}, lastBackup: {} }],
        [
          'eu-west-1',
          {
            backup: {
              destination: 's3://sandbox-backups/redis/global-eu/',
              interval: 'every-24-hours',
              timeUTC: '02:00',
            },
            lastBackup: { status: 'success', at: ago(20 * HOUR) },
          },
        ],
      ]),
    }),
  ];
  const lastGood: FileContent = { data: keys({ cart: 30, price: 20 }, 'last week') };
  const seededTask: SimulatedTask = {
    id: '5a3d1c52-0000-4000-8000-000000000001',
    commandType: 'databaseImportRequest',
    createdAt: now - 3 * DAY,
    startsAt: now - 3 * DAY,
    endsAt: now - 3 * DAY,
    resourceId: 51002101,
    additionalResourceId: 2101,
    hidden: 0,
  };
  return {
    subscriptions: new Map(
      [
        subscription({ id: 2101, name: 'shop-essentials', tier: 'essentials' }),
        subscription({
          id: 2102,
          name: 'free',
          tier: 'essentials',
          planId: 98_001,
          price: 0,
          supportInstantAndDailyBackups: false,
          supportDataPersistence: false,
        }),
        subscription({ id: 3101, name: 'production', tier: 'pro' }),
        subscription({ id: 3102, name: 'worldwide', tier: 'pro' }),
      ].map((one) => [one.id, one]),
    ),
    databases: new Map(databases.map((one) => [one.id, one])),
    tasks: new Map([[seededTask.id, seededTask]]),
    durations: { queue: 400, backup: 2000, import: 3000, update: 1000 },
    files: new Map<string, FileContent>([
      ['s3://sandbox-backups/redis/carts/carts-last-good.rdb.gz', lastGood],
      ['s3://sandbox-backups/redis/carts/carts-older.rdb.gz', { data: keys({ cart: 10 }, 'last month') }],
      ['s3://sandbox-backups/redis/sessions/sessions-1_of_2.rdb.gz', { data: keys({ session: 50 }, 'last week') }],
      ['s3://sandbox-backups/redis/sessions/sessions-2_of_2.rdb.gz', { data: keys({ user: 20 }, 'last week') }],
      ['s3://sandbox-backups/redis/damaged.rdb.gz', { data: new Map(), corrupt: true }],
      ['s3://my-bucket/backups/redis-backup.rdb', lastGood],
      ['https://backups.example.com/redis-backup.rdb', lastGood],
      ['abs://myaccount/backups/redis.rdb', lastGood],
    ]),
    deny: undefined,
    viewer: false,
    rateLimit: undefined,
    hiddenLooks: 1,
    stuck: undefined,
    nextError: undefined,
    activeActiveImport: 'replaces',
    nextFailure: undefined,
    hideProgress: false,
    settleMs: 0,
    backupWord: undefined,
    importWord: undefined,
  };
}
