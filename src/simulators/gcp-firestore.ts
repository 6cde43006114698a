import { randomUUID } from 'node:crypto';
import { isObject, type JsonObject } from '../core/json.ts';
import { asksPermissions, tellPermissions } from './google-permissions.ts';
import type { Simulator, SimulatorOptions, SimulatorRequest, SimulatorResponse } from './simulator.ts';

/** Documents and what is in them, by collection: enough to see an overwrite. */
export type FirestoreContent = Record<string, Record<string, string>>;

export interface SimulatedDatabase {
  project: string;
  id: string;
  uid: string;
  type: string;
  edition: string;
  location: string;
  pitr: boolean;
  protected: boolean;
  /** Older versions went when point-in-time recovery was switched off, or were never kept. */
  versionsSince?: number;
  createdAt: number;
  updatedAt: number;
  /** Whether the restore that makes it is still running. */
  loading: boolean;
  source?: JsonObject;
  /** What was in it since when, oldest first; the last one is now. */
  history: { at: number; content: FirestoreContent }[];
}

export interface SimulatedFirestoreBackup {
  name: string;
  database: string;
  databaseUid: string;
  snapshotAt: number;
  expiresAt: number;
  state: string;
  content: FirestoreContent;
}

export interface SimulatedSchedule {
  name: string;
  database: string;
  retention: string;
  recurrence: JsonObject;
  createdAt: number;
  updatedAt: number;
}

export interface SimulatedFirestoreOperation {
  name: string;
  metadata: JsonObject;
  response: JsonObject;
  beganAt: number;
  endsAt: number;
  done: boolean;
  work: number;
  error?: { code: number; message: string };
  apply: () => void;
}

type OperationKind = 'restore' | 'clone' | 'export' | 'import' | 'update';

/** What a test may look at and set. */
export interface FirestoreState {
  readonly databases: Map<string, SimulatedDatabase>;
  readonly backups: SimulatedFirestoreBackup[];
  readonly schedules: SimulatedSchedule[];
  /** Newest first. */
  readonly operations: SimulatedFirestoreOperation[];
  /** What lies in buckets, by the place of the export. */
  readonly exports: Map<string, { content: FirestoreContent; filtered: boolean }>;
  /** Buckets that Firestore may not use. */
  readonly closedBuckets: Set<string>;
  /** IAM permissions that the caller lacks. */
  readonly denied: Set<string>;
  /** Locations whose backups cannot be read. */
  readonly unreachable: Set<string>;
  /** Whether every token is refused. */
  unauthenticated: boolean;
  /** Whether the API is switched off in the project. */
  disabled: boolean;
  /** google.rpc codes for the next operations of a kind, one each. */
  readonly failNext: { kind: OperationKind; code: number }[];
  /** Milliseconds of clock time. */
  readonly durations: { export: number; import: number; restore: number; update: number };
  /** Takes a backup, as a schedule does. */
  addBackup(database: string, at: number, patch?: Partial<SimulatedFirestoreBackup>): SimulatedFirestoreBackup;
}

export interface FirestoreSimulator extends Simulator {
  readonly state: FirestoreState;
}

export const FIRESTORE_SANDBOX = {
  project: 'holdfast-sandbox',
  database: 'shop-carts',
  export: 'gs://holdfast-sandbox-backups/firestore/nightly',
  restoreOperation: 'projects/holdfast-sandbox/databases/shop-carts-copy/operations/AVnCqLxzSkQwMDAyYQ',
  dailySchedule: '7c0de4a1-9a0a-4b52-8d5c-0f1f3a64d001',
} as const;

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const ADMIN = 'type.googleapis.com/google.firestore.admin.v1';
const DATABASE_ID = /^[a-z][a-z0-9-]{2,61}[a-z0-9]$/;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const DAYS = ['MONDAY', 'TUESDAY', 'WEDNESDAY', 'THURSDAY', 'FRIDAY', 'SATURDAY', 'SUNDAY'];

class Refusal extends Error {
  readonly response: SimulatorResponse;
  constructor(code: number, status: string, message: string, info?: { reason: string; metadata?: JsonObject }) {
    super(message);
    const details =
      info === undefined
        ? {}
        : {
            details: [
              {
                '@type': 'type.googleapis.com/google.rpc.ErrorInfo',
                reason: info.reason,
                domain: 'googleapis.com',
                metadata: info.metadata ?? {},
              },
            ],
          };
    this.response = { status: code, body: { error: { code, message, status, ...details } } };
  }
}

const invalid = (message: string): Refusal => new Refusal(400, 'INVALID_ARGUMENT', message);
const refused = (message: string): Refusal => new Refusal(400, 'FAILED_PRECONDITION', message);

/** Stands in for the Firestore API v1: databases, backups, schedules, exports, imports, restores, clones and counts. */
export function gcpFirestoreSimulator(options: SimulatorOptions): FirestoreSimulator {
  const now = (): number => options.clock.now().getTime();
  const iso = (at: number): string => new Date(at).toISOString();

  const addBackup: FirestoreState['addBackup'] = (id, at, patch = {}) => {
    const database = state.databases.get(`${FIRESTORE_SANDBOX.project}/${id}`);
    if (database === undefined) throw new Error(`there is no database ${id}`);
    const backup: SimulatedFirestoreBackup = {
      name: `projects/${database.project}/locations/${database.location}/backups/${randomUUID()}`,
      database: nameOf(database),
      databaseUid: database.uid,
      snapshotAt: at,
      expiresAt: at + 14 * DAY,
      state: 'READY',
      content: structuredClone(contentAt(database, at)),
      ...patch,
    };
    state.backups.push(backup);
    return backup;
  };

  const state: FirestoreState = {
    databases: new Map(),
    backups: [],
    schedules: [],
    operations: [],
    exports: new Map(),
    closedBuckets: new Set(),
    denied: new Set(),
    unreachable: new Set(),
    unauthenticated: false,
    disabled: false,
    failNext: [],
    durations: { export: 2000, import: 3000, restore: 3000, update: 500 },
    addBackup,
  };
  seed(state, now());

  // Everything that should be over by the clock's time is made so before a request is looked at.
  const settle = (): void => {
    const due = state.operations.filter((operation) => !operation.done && operation.endsAt <= now());
    for (const operation of due.sort((a, b) => a.endsAt - b.endsAt)) {
      operation.done = true;
      operation.apply();
    }
    for (const backup of state.backups.filter(({ expiresAt }) => expiresAt <= now())) {
      state.backups.splice(state.backups.indexOf(backup), 1);
    }
  };

  const need = (permission: string): void => {
    if (!state.denied.has(permission)) return;
    throw new Refusal(403, 'PERMISSION_DENIED', 'The caller does not have permission', {
      reason: 'IAM_PERMISSION_DENIED',
      metadata: { permission },
    });
  };

  const find = (project: string, id: string): SimulatedDatabase => {
    const database = state.databases.get(`${project}/${id}`);
    if (database !== undefined) return database;
    throw new Refusal(404, 'NOT_FOUND', `Project '${project}' or database '${id}' does not exist.`);
  };

  const usable = (project: string, id: string): SimulatedDatabase => {
    const database = find(project, id);
    if (database.loading) throw refused('The database is being restored.');
    return database;
  };

  const begin = (
    database: SimulatedDatabase,
    kind: OperationKind,
    given: { metadata: JsonObject; response: JsonObject; work: number; duration: number; error?: number | undefined },
    apply: (failed: boolean) => void,
  ): SimulatedFirestoreOperation => {
    const planned = state.failNext.findIndex((failure) => failure.kind === kind);
    const code = planned < 0 ? given.error : state.failNext.splice(planned, 1)[0]?.code;
    const operation: SimulatedFirestoreOperation = {
      name: `${nameOf(database)}/operations/${Buffer.from(randomUUID()).toString('base64url').slice(0, 24)}`,
      metadata: given.metadata,
      response: given.response,
      beganAt: now(),
      endsAt: now() + given.duration,
      done: false,
      work: given.work,
      ...(code === undefined ? {} : { error: { code, message: `The ${kind} failed in the simulator.` } }),
      apply: () => apply(code !== undefined),
    };
    state.operations.unshift(operation);
    return operation;
  };

  const operationBody = (operation: SimulatedFirestoreOperation): JsonObject => {
    const { metadata, beganAt, endsAt, done, error, work } = operation;
    const share = done ? 1 : Math.max(0, (now() - beganAt) / Math.max(1, endsAt - beganAt));
    const moves = 'outputUriPrefix' in metadata || 'inputUriPrefix' in metadata;
    const updates = String(metadata['@type']).endsWith('.UpdateDatabaseMetadata');
    const progress = (all: number): JsonObject => ({
      completedWork: String(Math.floor(all * share)),
      ...(all === 0 ? {} : { estimatedWork: String(all) }),
    });
    return {
      name: operation.name,
      metadata: {
        ...metadata,
        startTime: iso(beganAt),
        ...(done ? { endTime: iso(endsAt) } : {}),
        [updates ? 'state' : 'operationState']: done
          ? error === undefined
            ? 'SUCCESSFUL'
            : error.code === 1
              ? 'CANCELLED'
              : 'FAILED'
          : share < 0.1
            ? 'INITIALIZING'
            : share < 0.9
              ? 'PROCESSING'
              : 'FINALIZING',
        ...(moves
          ? { progressDocuments: progress(work), progressBytes: progress(work * 512) }
          : updates
            ? {}
            : { progressPercentage: progress(100) }),
      },
      ...(done ? { done: true } : {}),
      ...(done && error !== undefined ? { error: { ...error } } : {}),
      ...(done && error === undefined ? { response: operation.response } : {}),
    };
  };

  const databaseBody = (database: SimulatedDatabase): JsonObject => {
    const kept = database.pitr ? 7 * DAY : HOUR;
    return {
      name: nameOf(database),
      uid: database.uid,
      createTime: iso(database.createdAt),
      updateTime: iso(database.updatedAt),
      locationId: database.location,
      type: database.type,
      databaseEdition: database.edition,
      concurrencyMode: 'PESSIMISTIC',
      appEngineIntegrationMode: 'DISABLED',
      versionRetentionPeriod: `${kept / 1000}s`,
      earliestVersionTime: iso(earliest(database, now())),
      pointInTimeRecoveryEnablement: `POINT_IN_TIME_RECOVERY_${database.pitr ? 'ENABLED' : 'DISABLED'}`,
      deleteProtectionState: `DELETE_PROTECTION_${database.protected ? 'ENABLED' : 'DISABLED'}`,
      firestoreDataAccessMode: 'DATA_ACCESS_MODE_ENABLED',
      freeTier: false,
      ...(database.source === undefined ? {} : { sourceInfo: database.source }),
      etag: Buffer.from(`${database.updatedAt}${database.uid}`).toString('base64').slice(0, 24),
    };
  };

  const backupBody = (backup: SimulatedFirestoreBackup): JsonObject => {
    const documents = documentsIn(backup.content);
    return {
      name: backup.name,
      database: backup.database,
      databaseUid: backup.databaseUid,
      snapshotTime: iso(backup.snapshotAt),
      expireTime: iso(backup.expiresAt),
      state: backup.state,
      ...(backup.state === 'READY'
        ? {
            stats: {
              sizeBytes: String(documents * 4096),
              documentCount: String(documents),
              indexCount: String(documents * 6),
            },
          }
        : {}),
    };
  };

  const scheduleBody = (schedule: SimulatedSchedule): JsonObject => ({
    name: schedule.name,
    createTime: iso(schedule.createdAt),
    updateTime: iso(schedule.updatedAt),
    retention: schedule.retention,
    ...schedule.recurrence,
  });

  const backupOf = (name: string): SimulatedFirestoreBackup => {
    const backup = state.backups.find((candidate) => candidate.name === name);
    if (backup === undefined) throw new Refusal(404, 'NOT_FOUND', `Backup ${name} was not found.`);
    return backup;
  };

  const momentOf = (database: SimulatedDatabase, value: unknown): number => {
    const at = Date.parse(String(value));
    if (Number.isNaN(at) || at % MINUTE !== 0) throw invalid('The snapshot time must be a whole minute.');
    if (at > now()) throw invalid('The snapshot time must be in the past.');
    if (at < earliest(database, now())) throw refused('The snapshot time is older than the earliest version.');
    return at;
  };

  const freeId = (project: string, value: unknown): string => {
    if (typeof value !== 'string' || !DATABASE_ID.test(value) || UUID.test(value)) {
      throw invalid('Invalid database id.');
    }
    if (state.databases.has(`${project}/${value}`)) {
      throw new Refusal(409, 'ALREADY_EXISTS', 'Database already exists. Please use another database_id');
    }
    return value;
  };

  /** Makes a database that holds nothing before its restore is over. */
  const make = (project: string, id: string, like: Partial<SimulatedDatabase>): SimulatedDatabase => {
    const database = fresh(project, id, now(), { ...like, loading: true, pitr: false, protected: false });
    state.databases.set(`${project}/${id}`, database);
    return database;
  };

  const fill = (database: SimulatedDatabase, content: FirestoreContent) => (failed: boolean) => {
    if (failed) {
      state.databases.delete(`${database.project}/${database.id}`);
      return;
    }
    database.loading = false;
    database.history = [{ at: now(), content: structuredClone(content) }];
  };

  const restore = (project: string, body: JsonObject): JsonObject => {
    need('datastore.backups.restoreDatabase');
    only(body, ['databaseId', 'backup', 'encryptionConfig', 'tags']);
    if (typeof body['backup'] !== 'string') throw invalid('The backup is required.');
    const id = freeId(project, body['databaseId']);
    const backup = backupOf(body['backup']);
    if (backup.state !== 'READY') throw refused('The backup is not ready.');
    const source = [...state.databases.values()].find(({ uid }) => uid === backup.databaseUid);
    const database = make(project, id, { ...(source ?? {}), uid: randomUUID() });
    const operation = begin(
      database,
      'restore',
      {
        metadata: { '@type': `${ADMIN}.RestoreDatabaseMetadata`, database: nameOf(database), backup: backup.name },
        response: { '@type': `${ADMIN}.Database`, name: nameOf(database) },
        work: 100,
        duration: state.durations.restore,
      },
      fill(database, backup.content),
    );
    database.source = { backup: { backup: backup.name }, operation: operation.name };
    return operationBody(operation);
  };

  const clone = (project: string, body: JsonObject): JsonObject => {
    need('datastore.databases.clone');
    only(body, ['databaseId', 'pitrSnapshot', 'encryptionConfig', 'tags']);
    const snapshot = isObject(body['pitrSnapshot']) ? (body['pitrSnapshot'] as JsonObject) : {};
    only(snapshot, ['database', 'snapshotTime']);
    const parts = /^projects\/([^/]+)\/databases\/([^/]+)$/.exec(String(snapshot['database']));
    if (parts === null) throw invalid('The source database is required.');
    const source = usable(parts[1] as string, parts[2] as string);
    const at = momentOf(source, snapshot['snapshotTime']);
    const database = make(project, freeId(project, body['databaseId']), { ...source, uid: randomUUID() });
    const operation = begin(
      database,
      'clone',
      {
        metadata: {
          '@type': `${ADMIN}.CloneDatabaseMetadata`,
          database: nameOf(database),
          pitrSnapshot: { database: nameOf(source), snapshotTime: iso(at) },
        },
        response: { '@type': `${ADMIN}.Database`, name: nameOf(database) },
        work: 100,
        duration: state.durations.restore,
      },
      fill(database, contentAt(source, at)),
    );
    database.source = { operation: operation.name };
    return operationBody(operation);
  };

  const exportDocuments = (database: SimulatedDatabase, body: JsonObject): JsonObject => {
    need('datastore.databases.export');
    only(body, ['outputUriPrefix', 'collectionIds', 'namespaceIds', 'snapshotTime']);
    const uri = placeOf(body['outputUriPrefix']);
    if (state.exports.has(uri)) throw invalid('Path already exists.');
    const ids = collectionsOf(body['collectionIds']);
    const at = body['snapshotTime'] === undefined ? now() : momentOf(database, body['snapshotTime']);
    const content = structuredClone(pick(contentAt(database, at), ids));
    const operation = begin(
      database,
      'export',
      {
        metadata: {
          '@type': `${ADMIN}.ExportDocumentsMetadata`,
          outputUriPrefix: uri,
          ...(ids === undefined ? {} : { collectionIds: ids }),
          ...(body['snapshotTime'] === undefined ? {} : { snapshotTime: iso(at) }),
        },
        response: { '@type': `${ADMIN}.ExportDocumentsResponse`, outputUriPrefix: uri },
        work: documentsIn(content),
        duration: state.durations.export,
        error: state.closedBuckets.has(bucketOf(uri)) ? 7 : undefined,
      },
      (failed) => {
        if (!failed) state.exports.set(uri, { content, filtered: ids !== undefined });
      },
    );
    return operationBody(operation);
  };

  const importDocuments = (database: SimulatedDatabase, body: JsonObject): JsonObject => {
    need('datastore.databases.import');
    only(body, ['inputUriPrefix', 'collectionIds', 'namespaceIds']);
    const uri = placeOf(body['inputUriPrefix']);
    const ids = collectionsOf(body['collectionIds']);
    const found = state.exports.get(uri);
    if (found === undefined) throw new Refusal(404, 'NOT_FOUND', 'The export metadata file was not found.');
    if (ids !== undefined && !found.filtered) {
      throw invalid('The export was not made with a collection filter.');
    }
    const content = pick(found.content, ids);
    const operation = begin(
      database,
      'import',
      {
        metadata: {
          '@type': `${ADMIN}.ImportDocumentsMetadata`,
          inputUriPrefix: uri,
          ...(ids === undefined ? {} : { collectionIds: ids }),
        },
        response: { '@type': 'type.googleapis.com/google.protobuf.Empty' },
        work: documentsIn(content),
        duration: state.durations.import,
        error: state.closedBuckets.has(bucketOf(uri)) ? 7 : undefined,
      },
      (failed) => {
        const merged = structuredClone(contentAt(database, now()));
        // A failure leaves a part of it imported.
        const collections = Object.entries(content).slice(0, failed ? 1 : undefined);
        for (const [id, documents] of collections) merged[id] = { ...merged[id], ...documents };
        database.history.push({ at: now(), content: merged });
      },
    );
    return operationBody(operation);
  };

  const updateDatabase = (database: SimulatedDatabase, body: JsonObject, mask: string | null): JsonObject => {
    need('datastore.databases.update');
    only(body, ['name', 'etag', 'pointInTimeRecoveryEnablement', 'deleteProtectionState']);
    const fields = (mask ?? '').split(',').filter((field) => field !== '');
    const words: Record<string, string> = {
      pointInTimeRecoveryEnablement: 'POINT_IN_TIME_RECOVERY',
      deleteProtectionState: 'DELETE_PROTECTION',
    };
    if (fields.length === 0 || fields.some((field) => words[field] === undefined))
      throw invalid('Invalid update mask.');
    const isOn = (field: string): boolean => {
      const value = body[field];
      if (value !== `${words[field]}_ENABLED` && value !== `${words[field]}_DISABLED`)
        throw invalid(`Invalid ${field}.`);
      return String(value).endsWith('_ENABLED');
    };
    if (body['etag'] !== undefined && body['etag'] !== databaseBody(database)['etag']) {
      throw refused('The etag does not match the current one of the database.');
    }
    const pitr = fields.includes('pointInTimeRecoveryEnablement')
      ? isOn('pointInTimeRecoveryEnablement')
      : database.pitr;
    const held = fields.includes('deleteProtectionState') ? isOn('deleteProtectionState') : database.protected;
    const operation = begin(
      database,
      'update',
      {
        metadata: { '@type': `${ADMIN}.UpdateDatabaseMetadata` },
        response: { '@type': `${ADMIN}.Database`, name: nameOf(database) },
        work: 0,
        duration: state.durations.update,
      },
      (failed) => {
        if (failed) return;
        // Off: what is older than an hour is gone. On: nothing older than what was kept comes back.
        if (pitr !== database.pitr) {
          database.versionsSince = Math.max(earliest(database, now()), now() - HOUR);
        }
        Object.assign(database, { pitr, protected: held, updatedAt: now() });
      },
    );
    return operationBody(operation);
  };

  const retentionOf = (value: unknown): string => {
    const kept = Number(/^(\d+)s$/.exec(String(value))?.[1] ?? Number.NaN);
    if (!(kept > 0 && kept <= 8_467_200)) throw invalid('The retention must be at most 14 weeks.');
    return `${kept}s`;
  };

  const updateSchedule = (schedule: SimulatedSchedule, body: JsonObject, mask: string | null): JsonObject => {
    need('datastore.backupSchedules.update');
    only(body, ['name', 'retention']);
    if (mask !== 'retention') throw invalid('Only the retention of a schedule can be updated.');
    schedule.retention = retentionOf(body['retention']);
    schedule.updatedAt = now();
    return scheduleBody(schedule);
  };

  const createSchedule = (database: SimulatedDatabase, body: JsonObject): JsonObject => {
    need('datastore.backupSchedules.create');
    only(body, ['retention', 'dailyRecurrence', 'weeklyRecurrence']);
    const retention = retentionOf(body['retention']);
    const kinds = ['dailyRecurrence', 'weeklyRecurrence'].filter((key) => isObject(body[key]));
    const [kind] = kinds;
    if (kind === undefined || kinds.length !== 1) throw invalid('Exactly one recurrence must be set.');
    const recurrence = body[kind] as JsonObject;
    only(recurrence, kind === 'weeklyRecurrence' ? ['day'] : []);
    if (kind === 'weeklyRecurrence' && !DAYS.includes(String(recurrence['day']))) throw invalid('The day is required.');
    const parent = nameOf(database);
    if (state.schedules.some((other) => other.database === parent && kind in other.recurrence)) {
      throw new Refusal(409, 'ALREADY_EXISTS', 'A backup schedule of that recurrence already exists.');
    }
    const schedule: SimulatedSchedule = {
      name: `${parent}/backupSchedules/${randomUUID()}`,
      database: parent,
      retention,
      recurrence: { [kind]: recurrence },
      createdAt: now(),
      updatedAt: now(),
    };
    state.schedules.push(schedule);
    return scheduleBody(schedule);
  };

  const scheduleOf = (name: string): SimulatedSchedule => {
    const schedule = state.schedules.find((candidate) => candidate.name === name);
    if (schedule === undefined) throw new Refusal(404, 'NOT_FOUND', 'The backup schedule was not found.');
    return schedule;
  };

  const listBackups = (project: string, location: string, filter: string | null): JsonObject => {
    need('datastore.backups.list');
    const wanted = filter === null ? undefined : /^database_uid\s*=\s*"?([A-Za-z0-9-]+)"?$/.exec(filter);
    if (wanted === null) throw invalid('The filter supports database_uid only.');
    const all = state.backups.filter(
      ({ name, databaseUid }) =>
        name.startsWith(`projects/${project}/locations/${location === '-' ? '' : `${location}/`}`) &&
        (wanted === undefined || databaseUid === wanted[1]),
    );
    const locationOf = ({ name }: SimulatedFirestoreBackup): string => name.split('/')[3] as string;
    if (state.unreachable.has(location)) throw new Refusal(503, 'UNAVAILABLE', 'The location cannot be reached.');
    const reachable = all.filter((backup) => !state.unreachable.has(locationOf(backup)));
    const unreachable = [...state.unreachable].map((id) => `projects/${project}/locations/${id}`);
    return {
      ...(reachable.length === 0 ? {} : { backups: reachable.map(backupBody) }),
      ...(unreachable.length === 0 ? {} : { unreachable }),
    };
  };

  const countDocuments = (database: SimulatedDatabase, body: JsonObject): unknown => {
    need('datastore.entities.list');
    only(body, ['structuredAggregationQuery']);
    const query = isObject(body['structuredAggregationQuery'])
      ? (body['structuredAggregationQuery'] as JsonObject)
      : {};
    only(query, ['structuredQuery', 'aggregations']);
    const inner = isObject(query['structuredQuery']) ? (query['structuredQuery'] as JsonObject) : {};
    const [from] = Array.isArray(inner['from']) ? inner['from'] : [];
    const [aggregation] = Array.isArray(query['aggregations']) ? query['aggregations'] : [];
    if (!isObject(from) || !isObject(aggregation) || !isObject(aggregation['count'])) {
      throw invalid('The simulator counts whole collections only.');
    }
    const documents = Object.keys(contentAt(database, now())[String(from['collectionId'])] ?? {}).length;
    const alias = String(aggregation['alias'] ?? 'field_1');
    // A method that streams answers with a list.
    return [{ result: { aggregateFields: { [alias]: { integerValue: String(documents) } } }, readTime: iso(now()) }];
  };

  const route = (request: SimulatorRequest): SimulatorResponse => {
    const { method, url } = request;
    const segments = url.pathname.split('/').slice(2).map(decodeURIComponent);
    if (segments.some((segment) => segment === '')) return unknownPath(url);
    const body = isObject(request.json) ? (request.json as JsonObject) : {};
    const carries = method === 'POST' || method === 'PATCH';
    if (carries && !(request.headers['content-type'] ?? '').startsWith('application/json')) {
      throw invalid('This API requires a JSON body.');
    }
    if (carries && !isObject(request.json)) throw invalid('Invalid JSON payload received.');
    const ok = (answer: unknown): SimulatorResponse => ({ status: 200, body: answer });
    const project = segments[1] as string;
    // The last segment may carry a verb: `databases:restore`.
    const [last = '', verb] = splitVerb(segments.at(-1) as string);
    const path = [...segments.slice(0, -1), last];
    const shape = `${method} ${path.map((segment, index) => (index % 2 === 0 ? segment : '*')).join('/')}${verb === undefined ? '' : `:${verb}`}`;
    const id = path[3] as string;
    const name = path.join('/');
    switch (shape) {
      case 'POST projects/*/databases:restore':
        return ok(restore(project, body));
      case 'POST projects/*/databases:clone':
        return ok(clone(project, body));
      case 'GET projects/*/databases': {
        need('datastore.databases.list');
        const all = [...state.databases.values()].filter((one) => one.project === project);
        const unreachable = [...state.unreachable].map((one) => `projects/${project}/locations/${one}`);
        return ok({
          ...(all.length === 0 ? {} : { databases: all.map(databaseBody) }),
          ...(unreachable.length === 0 ? {} : { unreachable }),
        });
      }
      case 'PATCH projects/*/databases/*':
        return ok(updateDatabase(usable(project, id), body, url.searchParams.get('updateMask')));
      case 'PATCH projects/*/databases/*/backupSchedules/*':
        return ok(updateSchedule(scheduleOf(name), body, url.searchParams.get('updateMask')));
      case 'GET projects/*/databases/*':
        need('datastore.databases.getMetadata');
        return ok(databaseBody(find(project, id)));
      case 'POST projects/*/databases/*:exportDocuments':
        return ok(exportDocuments(usable(project, id), body));
      case 'POST projects/*/databases/*:importDocuments':
        return ok(importDocuments(usable(project, id), body));
      case 'GET projects/*/databases/*/backupSchedules': {
        need('datastore.backupSchedules.list');
        const parent = nameOf(find(project, id));
        const own = state.schedules.filter(({ database }) => database === parent);
        return ok(own.length === 0 ? {} : { backupSchedules: own.map(scheduleBody) });
      }
      case 'POST projects/*/databases/*/backupSchedules':
        return ok(createSchedule(usable(project, id), body));
      case 'GET projects/*/databases/*/backupSchedules/*':
        need('datastore.backupSchedules.get');
        return ok(scheduleBody(scheduleOf(name)));
      case 'DELETE projects/*/databases/*/backupSchedules/*': {
        need('datastore.backupSchedules.delete');
        state.schedules.splice(state.schedules.indexOf(scheduleOf(name)), 1);
        return ok({});
      }
      case 'GET projects/*/databases/*/operations': {
        need('datastore.operations.list');
        const parent = `${nameOf(find(project, id))}/operations/`;
        const own = state.operations.filter((operation) => operation.name.startsWith(parent));
        const page = paged(own, url.searchParams.get('pageSize'), url.searchParams.get('pageToken'));
        return ok({
          ...(page.items.length === 0 ? {} : { operations: page.items.map(operationBody) }),
          ...page.next,
        });
      }
      case 'GET projects/*/databases/*/operations/*': {
        need('datastore.operations.get');
        const operation = state.operations.find((candidate) => candidate.name === name);
        if (operation === undefined) throw new Refusal(404, 'NOT_FOUND', 'The operation was not found.');
        return ok(operationBody(operation));
      }
      case 'POST projects/*/databases/*/documents:listCollectionIds': {
        need('datastore.entities.list');
        only(body, ['pageSize', 'pageToken']);
        return ok({ collectionIds: Object.keys(contentAt(usable(project, id), now())) });
      }
      case 'POST projects/*/databases/*/documents:runAggregationQuery':
        return ok(countDocuments(usable(project, id), body));
      case 'GET projects/*/locations/*/backups':
        return ok(listBackups(project, id, url.searchParams.get('filter')));
      case 'GET projects/*/locations/*/backups/*':
        need('datastore.backups.get');
        return ok(backupBody(backupOf(name)));
      case 'DELETE projects/*/locations/*/backups/*': {
        need('datastore.backups.delete');
        const backup = backupOf(name);
        if (backup.state === 'CREATING') throw refused('The backup is being made.');
        state.backups.splice(state.backups.indexOf(backup), 1);
        return ok({});
      }
      default:
        return unknownPath(url);
    }
  };

  return {
    provider: 'gcp-firestore',
    state,
    matches: (request) =>
      /^\/v1\/projects\/[^/]+\/(?:databases(?:[:/]|$)|locations\/[^/]+\/backups(?:\/|$))/.test(request.url.pathname) ||
      asksPermissions(request, 'datastore'),
    writes: (request) =>
      !['GET', 'HEAD'].includes(request.method) &&
      !asksPermissions(request, 'datastore') &&
      !/\/documents:(?:listCollectionIds|runAggregationQuery)$/.test(request.url.pathname),
    handle(request) {
      settle();
      try {
        if (!/^Bearer \S+$/.test(request.headers['authorization'] ?? '') || state.unauthenticated) {
          throw new Refusal(401, 'UNAUTHENTICATED', 'Request had invalid authentication credentials.');
        }
        if (state.disabled) {
          throw new Refusal(403, 'PERMISSION_DENIED', 'Cloud Firestore API is disabled in the project.', {
            reason: 'SERVICE_DISABLED',
          });
        }
        if (asksPermissions(request, 'datastore')) return tellPermissions(request, state.denied);
        return route(request);
      } catch (cause) {
        if (cause instanceof Refusal) return cause.response;
        throw cause;
      }
    },
  };
}

function nameOf({ project, id }: { project: string; id: string }): string {
  return `projects/${project}/databases/${id}`;
}

function splitVerb(segment: string): [string, string | undefined] {
  const [, name = segment, verb] = /^(.+):([A-Za-z]+)$/.exec(segment) ?? [];
  return [name, verb];
}

function contentAt(database: SimulatedDatabase, at: number): FirestoreContent {
  return (database.history.findLast((entry) => entry.at <= at) ?? database.history[0])?.content ?? {};
}

function earliest(database: SimulatedDatabase, now: number): number {
  return Math.max(database.createdAt, database.versionsSince ?? 0, now - (database.pitr ? 7 * DAY : HOUR));
}

function documentsIn(content: FirestoreContent): number {
  return Object.values(content).reduce((sum, documents) => sum + Object.keys(documents).length, 0);
}

function pick(content: FirestoreContent, ids: readonly string[] | undefined): FirestoreContent {
  if (ids === undefined) return content;
  return Object.fromEntries(Object.entries(content).filter(([id]) => ids.includes(id)));
}

function bucketOf(uri: string): string {
  return uri.split('/')[2] ?? '';
}

function placeOf(value: unknown): string {
  if (typeof value !== 'string' || !/^gs:\/\/[a-z0-9][a-z0-9._-]+(\/[^\s]+)?$/.test(value)) {
    throw invalid('The prefix must be gs://BUCKET[/PATH].');
  }
  return value;
}

function collectionsOf(value: unknown): string[] | undefined {
  if (value === undefined) return undefined;
  if (!Array.isArray(value) || value.some((id) => typeof id !== 'string' || id === '')) {
    throw invalid('Invalid collection ids.');
  }
  if (new Set(value).size !== value.length) throw invalid('Each collection group must be unique.');
  return value.length === 0 ? undefined : (value as string[]);
}

function only(body: JsonObject, names: readonly string[]): void {
  const stranger = Object.keys(body).find((key) => !names.includes(key));
  if (stranger !== undefined) {
    throw invalid(`Invalid JSON payload received. Unknown name "${stranger}": Cannot find field.`);
  }
}

function unknownPath(url: URL): SimulatorResponse {
  return {
    status: 404,
    headers: { 'content-type': 'text/html; charset=UTF-8' },
    body: `<!DOCTYPE html><title>Error 404 (Not Found)!!1</title><p>The requested URL ${url.pathname.replace(/[<>&]/g, '')} was not found.`,
  };
}

function paged<T>(all: readonly T[], size: string | null, token: string | null): { items: T[]; next: JsonObject } {
  const limit = size === null ? 100 : Number(size);
  const from = token === null ? 0 : Number(/^after-(\d+)$/.exec(token)?.[1] ?? Number.NaN);
  if (!Number.isInteger(limit) || limit < 1 || Number.isNaN(from)) throw invalid('Invalid page.');
  const end = from + limit;
  return { items: all.slice(from, end), next: end < all.length ? { nextPageToken: `after-${end}` } : {} };
}

function fresh(project: string, id: string, at: number, options: Partial<SimulatedDatabase>): SimulatedDatabase {
  return {
    uid: randomUUID(),
    type: 'FIRESTORE_NATIVE',
    edition: 'STANDARD',
    location: 'us-central1',
    pitr: false,
    protected: false,
    loading: false,
    ...options,
    project,
    id,
    createdAt: at,
    updatedAt: at,
    history: options.loading === true ? [{ at, content: {} }] : (options.history ?? []),
  };
}

function documents(prefix: string, from: number, to: number, value: string): Record<string, string> {
  return Object.fromEntries(
    Array.from({ length: to - from }, (_, index) => [`${prefix}-${from + index}`, `${value} ${from + index}`]),
  );
}

function seed(state: FirestoreState, now: number): void {
  const { project, database, dailySchedule, restoreOperation } = FIRESTORE_SANDBOX;
  const put = (one: SimulatedDatabase): SimulatedDatabase => {
    state.databases.set(`${project}/${one.id}`, one);
    return one;
  };
  const schedule = (one: SimulatedDatabase, id: string, days: number, recurrence: JsonObject): void => {
    state.schedules.push({
      name: `${nameOf(one)}/backupSchedules/${id}`,
      database: nameOf(one),
      retention: `${days * 86_400}s`,
      recurrence,
      createdAt: now - 100 * DAY,
      updatedAt: now - 100 * DAY,
    });
  };
  const backup = (one: SimulatedDatabase, at: number, patch: Partial<SimulatedFirestoreBackup> = {}) => {
    state.backups.push({
      name: `projects/${project}/locations/${one.location}/backups/${randomUUID()}`,
      database: nameOf(one),
      databaseUid: one.uid,
      snapshotAt: at,
      expiresAt: at + 14 * DAY,
      state: 'READY',
      content: structuredClone(contentAt(one, at)),
      ...patch,
    });
  };
  const past = (name: string, at: number, metadata: JsonObject, response: JsonObject, work: number): void => {
    state.operations.push({
      name,
      metadata,
      response,
      beganAt: at,
      endsAt: at + 9 * MINUTE,
      done: true,
      work,
      apply: () => {},
    });
  };

  // Well kept: a daily schedule, point-in-time recovery, protected from deletion.
  const carts = put(
    fresh(project, database, now - 300 * DAY, {
      pitr: true,
      protected: true,
      history: [
        {
          at: now - 300 * DAY,
          content: { carts: documents('cart', 1, 21, 'open'), orders: documents('order', 1, 31, 'paid') },
        },
        {
          at: now - 30 * HOUR,
          content: { carts: documents('cart', 1, 26, 'open'), orders: documents('order', 1, 41, 'paid') },
        },
        {
          at: now - 2 * HOUR,
          content: {
            carts: documents('cart', 5, 31, 'checked out'),
            orders: documents('order', 1, 48, 'sent'),
            customers: documents('customer', 1, 12, 'known'),
          },
        },
      ],
    }),
  );
  schedule(carts, dailySchedule, 14, { dailyRecurrence: {} });
  for (let day = 6; day >= 1; day -= 1) backup(carts, now - day * DAY);

  // Last night's export, and the copy that a drill restored a month ago.
  const night = Math.floor((now - 9 * HOUR) / MINUTE) * MINUTE;
  const exported = structuredClone(contentAt(carts, night));
  state.exports.set(FIRESTORE_SANDBOX.export, { content: exported, filtered: false });
  past(
    `${nameOf(carts)}/operations/ASAyMDI2bmlnaHRseQ`,
    night + 2 * MINUTE,
    {
      '@type': `${ADMIN}.ExportDocumentsMetadata`,
      outputUriPrefix: FIRESTORE_SANDBOX.export,
      snapshotTime: new Date(night).toISOString(),
    },
    { '@type': `${ADMIN}.ExportDocumentsResponse`, outputUriPrefix: FIRESTORE_SANDBOX.export },
    documentsIn(exported),
  );
  const copy = put(
    fresh(project, 'shop-carts-copy', now - 30 * DAY, {
      history: [{ at: now - 30 * DAY, content: structuredClone(contentAt(carts, now - 31 * DAY)) }],
    }),
  );
  const old = `projects/${project}/locations/us-central1/backups/${randomUUID()}`;
  copy.source = { backup: { backup: old } };
  past(
    restoreOperation,
    now - 30 * DAY,
    { '@type': `${ADMIN}.RestoreDatabaseMetadata`, database: nameOf(copy), backup: old },
    { '@type': `${ADMIN}.Database`, name: nameOf(copy) },
    100,
  );

  // Badly protected: no schedule, no point-in-time recovery, one backup that is about to expire.
  const legacy = put(
    fresh(project, '(default)', now - 900 * DAY, {
      location: 'nam5',
      history: [{ at: now - 900 * DAY, content: { users: documents('user', 1, 9, 'old') } }],
    }),
  );
  backup(legacy, now - 90 * DAY, {
    name: `projects/${project}/locations/us/backups/${randomUUID()}`,
    expiresAt: now + 6 * HOUR,
  });

  // Datastore mode, weekly backups.
  const ledger = put(
    fresh(project, 'ledger', now - 200 * DAY, {
      type: 'DATASTORE_MODE',
      protected: true,
      history: [{ at: now - 200 * DAY, content: { Entry: documents('entry', 1, 15, 'booked') } }],
    }),
  );
  schedule(ledger, '2f0c7d7e-53f1-4d9c-9a55-5b0ac2b7a001', 98, { weeklyRecurrence: { day: 'SUNDAY' } });
  for (const week of [2, 1]) backup(ledger, now - week * 7 * DAY, { expiresAt: now - week * 7 * DAY + 98 * DAY });
}
