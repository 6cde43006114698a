import { randomUUID } from 'node:crypto';
import { isObject, type JsonObject } from '../core/json.ts';
import { asksPermissions, tellPermissions } from './google-permissions.ts';
import type { Simulator, SimulatorOptions, SimulatorRequest, SimulatorResponse } from './simulator.ts';

/** Tables and their row counts, by database: enough to see an overwrite. */
export type CloudSqlContent = Record<string, Record<string, number>>;

export interface SimulatedInstance {
  project: string;
  name: string;
  region: string;
  databaseVersion: string;
  state: string;
  instanceType: string;
  createdAt: number;
  settings: JsonObject & { backupConfiguration: JsonObject };
  masterInstanceName?: string;
  replicaNames: string[];
  users: string[];
  /** What was in it since when, oldest first; the last one is now. */
  history: { at: number; content: CloudSqlContent }[];
  /** The first moment that point-in-time recovery reaches. */
  logsSince: number;
}

export interface SimulatedRun {
  id: string;
  uid: string;
  project: string;
  instance: string;
  status: string;
  type: string;
  description?: string;
  enqueuedAt: number;
  startedAt: number;
  endedAt?: number;
  location: string;
  databaseVersion: string;
  bytes: number;
  content: CloudSqlContent;
  error?: { code: string; message: string };
  instanceDeletedAt?: number;
  expiresAt?: number;
}

export interface SimulatedOperation {
  name: string;
  type: string;
  project: string;
  target: string;
  insertedAt: number;
  endsAt: number;
  done: boolean;
  error?: { code: string; message: string };
  run?: SimulatedRun;
  apply: () => void;
}

/** What a test may look at and set. */
export interface CloudSqlState {
  readonly instances: Map<string, SimulatedInstance>;
  readonly runs: SimulatedRun[];
  readonly operations: SimulatedOperation[];
  /** IAM permissions that the caller lacks. */
  readonly denied: Set<string>;
  /** Whether every token is refused. */
  unauthenticated: boolean;
  /** Whether an instance that does not exist answers 403, as for a caller without a view of the project. */
  hidesUnknown: boolean;
  /** Whether the API is switched off in the project. */
  disabled: boolean;
  /** Error codes for the next operations of a type, one each. */
  readonly failNext: { type: string; code: string }[];
  /** How many of the next backups are skipped. */
  skipNext: number;
  /** Milliseconds of clock time. */
  readonly durations: { backup: number; restore: number; remove: number; update: number };
}

export interface CloudSqlSimulator extends Simulator {
  readonly state: CloudSqlState;
}

export const CLOUD_SQL_SANDBOX = {
  project: 'holdfast-sandbox',
  instance: 'orders-db',
  restoreOperation: '6f2b1c7e-9a40-4d5e-8b13-00000032002a',
  finalBackup: '5d1f3c52-07a4-4f0e-9a55-8f3d2b7c9e10',
} as const;

const USER = 'backup-operator@holdfast-sandbox.iam.gserviceaccount.com';
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

class Refusal extends Error {
  readonly response: SimulatorResponse;
  constructor(status: number, reason: string, message: string, word?: string) {
    super(message);
    this.response = {
      status,
      body: {
        error: {
          code: status,
          message,
          errors: [{ message, domain: 'global', reason }],
          ...(word === undefined ? {} : { status: word }),
        },
      },
    };
  }
}

/** Stands in for the Cloud SQL Admin API v1: instances, backup runs, named backups, restores, clones and operations. */
export function gcpCloudSqlSimulator(options: SimulatorOptions): CloudSqlSimulator {
  const now = (): number => options.clock.now().getTime();
  const iso = (at: number): string => new Date(at).toISOString();
  const state: CloudSqlState = {
    instances: new Map(),
    runs: [],
    operations: [],
    denied: new Set(),
    unauthenticated: false,
    hidesUnknown: false,
    disabled: false,
    failNext: [],
    skipNext: 0,
    durations: { backup: 2000, restore: 3000, remove: 1000, update: 1000 },
  };
  seed(state, now());

  // Everything that should be over by the clock's time is made so before a request is looked at.
  const settle = (): void => {
    const due = state.operations.filter((operation) => !operation.done && operation.endsAt <= now());
    for (const operation of due.sort((a, b) => a.endsAt - b.endsAt)) {
      operation.done = true;
      operation.apply();
    }
    const expired = state.runs.filter((run) => run.expiresAt !== undefined && run.expiresAt <= now());
    for (const run of expired) state.runs.splice(state.runs.indexOf(run), 1);
  };

  const need = (permission: string): void => {
    if (state.denied.has(permission)) {
      throw new Refusal(403, 'notAuthorized', 'The client is not authorized to make this request.');
    }
  };

  const find = (project: string, name: string): SimulatedInstance => {
    const instance = state.instances.get(`${project}/${name}`);
    if (instance !== undefined) return instance;
    if (state.hidesUnknown || project !== CLOUD_SQL_SANDBOX.project) {
      throw new Refusal(403, 'notAuthorized', 'The client is not authorized to make this request.');
    }
    throw new Refusal(404, 'instanceDoesNotExist', 'The Cloud SQL instance does not exist.');
  };

  const begin = (
    project: string,
    target: string,
    type: string,
    duration: number,
    apply: (error: { code: string; message: string } | undefined) => void,
    run?: SimulatedRun,
  ): SimulatedOperation => {
    if (state.operations.some((other) => !other.done && other.project === project && other.target === target)) {
      throw new Refusal(
        409,
        'operationInProgress',
        'Operation failed because another operation was already in progress.',
      );
    }
    const planned = state.failNext.findIndex((failure) => failure.type === type);
    const [failure] = planned < 0 ? [] : state.failNext.splice(planned, 1);
    const error =
      failure === undefined ? undefined : { code: failure.code, message: `The ${type} failed in the simulator.` };
    const operation: SimulatedOperation = {
      name: randomUUID(),
      type,
      project,
      target,
      insertedAt: now(),
      endsAt: now() + duration,
      done: false,
      ...(error === undefined ? {} : { error }),
      ...(run === undefined ? {} : { run }),
      apply: () => apply(error),
    };
    state.operations.unshift(operation);
    return operation;
  };

  const operationBody = (operation: SimulatedOperation): JsonObject => {
    const started = operation.insertedAt + 200;
    const status = operation.done ? 'DONE' : now() < started ? 'PENDING' : 'RUNNING';
    return {
      kind: 'sql#operation',
      name: operation.name,
      operationType: operation.type,
      status,
      user: USER,
      insertTime: iso(operation.insertedAt),
      ...(status === 'PENDING' ? {} : { startTime: iso(started) }),
      ...(operation.done ? { endTime: iso(operation.endsAt) } : {}),
      targetId: operation.target,
      targetProject: operation.project,
      ...(operation.run === undefined
        ? {}
        : { backupContext: { kind: 'sql#backupContext', backupId: operation.run.id, name: nameOf(operation.run) } }),
      ...(operation.done && operation.error !== undefined
        ? { error: { kind: 'sql#operationErrors', errors: [{ kind: 'sql#operationError', ...operation.error }] } }
        : {}),
    };
  };

  const instanceBody = (instance: SimulatedInstance): JsonObject => ({
    kind: 'sql#instance',
    name: instance.name,
    project: instance.project,
    region: instance.region,
    connectionName: `${instance.project}:${instance.region}:${instance.name}`,
    databaseVersion: instance.databaseVersion,
    state: instance.state,
    instanceType: instance.instanceType,
    backendType: 'SECOND_GEN',
    createTime: iso(instance.createdAt),
    settings: structuredClone(instance.settings),
    ipAddresses: [{ type: 'PRIMARY', ipAddress: '203.0.113.20' }],
    ...(instance.masterInstanceName === undefined
      ? {}
      : { masterInstanceName: `${instance.project}:${instance.masterInstanceName}` }),
    ...(instance.replicaNames.length === 0 ? {} : { replicaNames: [...instance.replicaNames] }),
  });

  const runBody = (run: SimulatedRun): JsonObject => ({
    kind: 'sql#backupRun',
    id: run.id,
    instance: run.instance,
    status: run.status,
    type: run.type,
    backupKind: 'SNAPSHOT',
    databaseVersion: run.databaseVersion,
    location: run.location,
    enqueuedTime: iso(run.enqueuedAt),
    startTime: iso(run.startedAt),
    ...(run.endedAt === undefined ? {} : { endTime: iso(run.endedAt) }),
    ...(run.description === undefined ? {} : { description: run.description }),
    ...(run.status === 'SUCCESSFUL' ? { maxChargeableBytes: String(run.bytes) } : {}),
    ...(run.error === undefined ? {} : { error: { kind: 'sql#operationError', ...run.error } }),
    windowStartTime: iso(run.enqueuedAt),
  });

  const namedBody = (run: SimulatedRun): JsonObject => ({
    kind: 'sql#backup',
    name: nameOf(run),
    instance: run.instance,
    state: run.status === 'DELETION_PENDING' ? 'DELETING' : run.status,
    type: run.type,
    backupKind: 'SNAPSHOT',
    databaseVersion: run.databaseVersion,
    location: run.location,
    backupInterval: {
      startTime: iso(run.startedAt),
      ...(run.endedAt === undefined ? {} : { endTime: iso(run.endedAt) }),
    },
    ...(run.description === undefined ? {} : { description: run.description }),
    ...(run.status === 'SUCCESSFUL' ? { maxChargeableBytes: String(run.bytes) } : {}),
    ...(run.type === 'FINAL'
      ? {}
      : { backupRun: `projects/${run.project}/instances/${run.instance}/backupRuns/${run.id}` }),
    ...(run.instanceDeletedAt === undefined ? {} : { instanceDeletionTime: iso(run.instanceDeletedAt) }),
    ...(run.expiresAt === undefined ? {} : { expiryTime: iso(run.expiresAt) }),
    ...(run.error === undefined ? {} : { error: { kind: 'sql#operationError', ...run.error } }),
  });

  const runOf = (instance: SimulatedInstance, id: string): SimulatedRun => {
    const run = state.runs.find(
      (candidate) =>
        candidate.id === id &&
        candidate.project === instance.project &&
        candidate.instance === instance.name &&
        candidate.type !== 'FINAL',
    );
    if (run === undefined) throw new Refusal(404, 'backupRunDoesNotExist', 'Backup run does not exist.');
    return run;
  };

  const namedOf = (name: string): SimulatedRun => {
    const run = state.runs.find((candidate) => nameOf(candidate) === name);
    if (run === undefined) throw new Refusal(404, 'notFound', 'The requested backup was not found.', 'NOT_FOUND');
    return run;
  };

  const mustRun = (instance: SimulatedInstance): void => {
    if (instance.settings['activationPolicy'] === 'NEVER' || instance.state === 'SUSPENDED') {
      throw new Refusal(400, 'invalid', 'Invalid request: The instance is not running.');
    }
    if (instance.state !== 'RUNNABLE') {
      throw new Refusal(409, 'invalidState', 'The instance or operation is not in an appropriate state.');
    }
  };

  const createRun = (instance: SimulatedInstance, body: JsonObject): JsonObject => {
    need('cloudsql.backupRuns.create');
    only(body, ['description', 'location', 'kind']);
    if (instance.masterInstanceName !== undefined) {
      throw new Refusal(400, 'invalidOperation', "The requested operation isn't valid for this instance.");
    }
    mustRun(instance);
    const run: SimulatedRun = {
      id: nextId(state, now()),
      uid: randomUUID(),
      project: instance.project,
      instance: instance.name,
      status: 'ENQUEUED',
      type: 'ON_DEMAND',
      ...(typeof body['description'] === 'string' ? { description: body['description'] } : {}),
      enqueuedAt: now(),
      startedAt: now(),
      location: typeof body['location'] === 'string' ? body['location'] : 'us',
      databaseVersion: instance.databaseVersion,
      bytes: 4_831_838_208,
      content: structuredClone(contentOf(instance)),
    };
    const skipped = state.skipNext > 0;
    if (skipped) state.skipNext -= 1;
    const operation = begin(
      instance.project,
      instance.name,
      'BACKUP_VOLUME',
      state.durations.backup,
      (error) => {
        run.status = error !== undefined ? 'FAILED' : skipped ? 'SKIPPED' : 'SUCCESSFUL';
        run.endedAt = operation.endsAt;
        if (error !== undefined) run.error = error;
      },
      run,
    );
    run.status = 'RUNNING';
    state.runs.unshift(run);
    return operationBody(operation);
  };

  const remove = (run: SimulatedRun): JsonObject => {
    need('cloudsql.backupRuns.delete');
    if (['DELETION_PENDING', 'DELETED'].includes(run.status)) {
      throw new Refusal(409, 'invalidState', 'The backup is being deleted.');
    }
    const operation = begin(
      run.project,
      run.instance,
      'DELETE_BACKUP',
      state.durations.remove,
      (error) => {
        if (error === undefined) state.runs.splice(state.runs.indexOf(run), 1);
        else run.status = 'DELETION_FAILED';
      },
      run,
    );
    run.status = 'DELETION_PENDING';
    return operationBody(operation);
  };

  const restore = (project: string, target: string, body: JsonObject): JsonObject => {
    need('cloudsql.instances.restoreBackup');
    only(body, [
      'restoreBackupContext',
      'backup',
      'backupdrBackup',
      'restoreInstanceSettings',
      'restoreInstanceClearOverridesFieldNames',
      'ignoreMaintenanceVersion',
    ]);
    const given = ['restoreBackupContext', 'backup', 'backupdrBackup'].filter((key) => body[key] !== undefined);
    if (given.length !== 1) {
      throw new Refusal(400, 'invalid', 'Exactly one of restoreBackupContext, backup and backupdrBackup must be set.');
    }
    let run: SimulatedRun;
    if (isObject(body['restoreBackupContext'])) {
      const context = body['restoreBackupContext'] as JsonObject;
      only(context, ['backupRunId', 'instanceId', 'project', 'kind']);
      if (typeof context['backupRunId'] !== 'string' || typeof context['instanceId'] !== 'string') {
        throw new Refusal(400, 'required', 'Required: backupRunId and instanceId');
      }
      run = runOf(find(String(context['project'] ?? project), context['instanceId']), context['backupRunId']);
      find(project, target);
    } else if (typeof body['backup'] === 'string') {
      run = namedOf(body['backup']);
    } else throw new Refusal(400, 'invalid', 'The backup is invalid.');
    if (run.status !== 'SUCCESSFUL') throw new Refusal(400, 'invalid', 'The backup run was not successful.');

    const existing = state.instances.get(`${project}/${target}`);
    if (existing === undefined) {
      need('cloudsql.instances.create');
      const source = state.instances.get(`${run.project}/${run.instance}`);
      const created = fresh(project, target, run.databaseVersion, now(), {
        region: source?.region ?? 'us-central1',
        state: 'PENDING_CREATE',
        content: run.content,
      });
      const operation = begin(project, target, 'RESTORE_VOLUME', state.durations.restore, (error) => {
        created.state = error === undefined ? 'RUNNABLE' : 'FAILED';
      });
      state.instances.set(`${project}/${target}`, created);
      return operationBody(operation);
    }
    if (existing.masterInstanceName !== undefined || existing.replicaNames.length > 0) {
      throw new Refusal(400, 'invalidOperation', "The requested operation isn't valid for this instance.");
    }
    if (existing.databaseVersion !== run.databaseVersion) {
      throw new Refusal(400, 'invalid', 'Invalid request: Database type of target instance and backup differ.');
    }
    mustRun(existing);
    const operation = begin(project, target, 'RESTORE_VOLUME', state.durations.restore, (error) => {
      existing.state = 'RUNNABLE';
      if (error !== undefined) return;
      // The logs of the target go with its old content.
      existing.history = [{ at: operation.endsAt, content: structuredClone(run.content) }];
      existing.logsSince = operation.endsAt;
    });
    existing.state = 'MAINTENANCE';
    return operationBody(operation);
  };

  const clone = (source: SimulatedInstance, body: JsonObject): JsonObject => {
    need('cloudsql.instances.clone');
    only(body, ['cloneContext']);
    const context = isObject(body['cloneContext']) ? (body['cloneContext'] as JsonObject) : {};
    only(context, ['destinationInstanceName', 'pointInTime', 'preferredZone', 'kind']);
    const target = context['destinationInstanceName'];
    if (typeof target !== 'string' || !/^[a-z][a-z0-9-]{0,97}$/.test(target)) {
      throw new Refusal(400, 'required', 'Required: destinationInstanceName');
    }
    if (source.masterInstanceName !== undefined) {
      throw new Refusal(400, 'invalidOperation', "The requested operation isn't valid for this instance.");
    }
    mustRun(source);
    let content = contentOf(source);
    if (context['pointInTime'] !== undefined) {
      const at = Date.parse(String(context['pointInTime']));
      if (!isPitr(source)) {
        throw new Refusal(400, 'errorBinlogNotEnabled', 'Point-in-time recovery is not enabled for the instance.');
      }
      if (Number.isNaN(at) || at < source.logsSince || at > now()) {
        throw new Refusal(400, 'invalid', 'The point in time is outside of the recovery window.');
      }
      content = (source.history.findLast((entry) => entry.at <= at) ?? source.history[0])?.content ?? {};
    }
    if (state.instances.has(`${source.project}/${target}`)) {
      throw new Refusal(409, 'instanceAlreadyExists', 'The Cloud SQL instance already exists.');
    }
    const created = fresh(source.project, target, source.databaseVersion, now(), {
      region: source.region,
      state: 'PENDING_CREATE',
      content,
    });
    created.settings = structuredClone(source.settings);
    const operation = begin(source.project, target, 'CLONE', state.durations.restore, (error) => {
      created.state = error === undefined ? 'RUNNABLE' : 'FAILED';
    });
    state.instances.set(`${source.project}/${target}`, created);
    return operationBody(operation);
  };

  /** Merges settings as the API does: what is left out stays, the version goes up, and history goes with what is shortened. */
  const update = (instance: SimulatedInstance, body: JsonObject): JsonObject => {
    need('cloudsql.instances.update');
    only(body, ['settings', 'kind', 'name', 'project']);
    const given = isObject(body['settings']) ? (body['settings'] as JsonObject) : {};
    only(given, [
      'kind',
      'settingsVersion',
      'backupConfiguration',
      'deletionProtectionEnabled',
      'retainBackupsOnDelete',
      'finalBackupConfig',
    ]);
    const { settingsVersion, backupConfiguration, ...rest } = given;
    if (settingsVersion !== undefined && settingsVersion !== instance.settings['settingsVersion']) {
      throw new Refusal(412, 'conditionNotMet', 'Condition does not match.');
    }
    if (!['RUNNABLE', 'SUSPENDED'].includes(instance.state)) {
      throw new Refusal(409, 'invalidState', 'The instance or operation is not in an appropriate state.');
    }
    const before = instance.settings.backupConfiguration;
    const backups = { ...before, ...(isObject(backupConfiguration) ? (backupConfiguration as JsonObject) : {}) };
    checkBackups(instance, backups, backupConfiguration);
    const final = isObject(rest['finalBackupConfig']) ? (rest['finalBackupConfig'] as JsonObject) : {};
    only(final, ['enabled', 'retentionDays']);
    if (final['retentionDays'] !== undefined && !within(final['retentionDays'], 1, 365)) {
      throw new Refusal(400, 'invalid', 'Invalid value for: finalBackupConfig.retentionDays.');
    }
    const operation = begin(instance.project, instance.name, 'UPDATE', state.durations.update, (error) => {
      if (error !== undefined) return;
      const had = isPitr(instance);
      instance.settings = {
        ...instance.settings,
        ...rest,
        backupConfiguration: backups,
        settingsVersion: String(Number(instance.settings['settingsVersion']) + 1),
      };
      const has = isPitr(instance);
      // Off, or off and on again: the logs are gone. A shorter time takes the oldest ones.
      if (!has || !had) instance.logsSince = now();
      const logDays = backups['transactionLogRetentionDays'];
      if (typeof logDays === 'number') instance.logsSince = Math.max(instance.logsSince, now() - logDays * DAY);
      const kept = (backups['backupRetentionSettings'] as JsonObject | undefined)?.['retainedBackups'];
      const automated = state.runs
        .filter((run) => run.project === instance.project && run.instance === instance.name && run.type === 'AUTOMATED')
        .sort((a, b) => b.enqueuedAt - a.enqueuedAt);
      for (const run of typeof kept === 'number' ? automated.slice(kept) : []) {
        state.runs.splice(state.runs.indexOf(run), 1);
      }
    });
    return operationBody(operation);
  };

  const createNamed = (project: string, body: JsonObject): JsonObject => {
    only(body, ['instance', 'description', 'location', 'ttlDays', 'expiryTime', 'kind']);
    const { instance: name, description, location } = body;
    if (typeof name !== 'string') throw new Refusal(400, 'required', 'Required: instance', 'INVALID_ARGUMENT');
    const expiresAt = expiryOf(body, now());
    const bare = /^projects\/[^/]+\/instances\/([^/]+)$/.exec(name)?.[1] ?? name;
    const answer = createRun(find(project, bare), {
      ...(description === undefined ? {} : { description }),
      ...(location === undefined ? {} : { location }),
    });
    const [run] = state.runs;
    if (run !== undefined && expiresAt !== undefined) run.expiresAt = expiresAt;
    return answer;
  };

  const updateNamed = (run: SimulatedRun, body: JsonObject, mask: string | null): JsonObject => {
    need('cloudsql.backupRuns.update');
    const fields = (mask ?? '').split(',').filter((field) => field !== '');
    if (fields.length === 0 || fields.some((field) => !['description', 'expiryTime', 'ttlDays'].includes(field))) {
      throw new Refusal(400, 'invalid', 'Invalid update mask.', 'INVALID_ARGUMENT');
    }
    only(body, ['name', 'description', 'expiryTime', 'ttlDays', 'kind']);
    if (run.type !== 'FINAL') {
      throw new Refusal(400, 'invalidOperation', 'Only final backups can be updated.', 'FAILED_PRECONDITION');
    }
    const moment = fields.some((field) => field !== 'description') ? expiryOf(body, now()) : undefined;
    const operation = begin(
      run.project,
      run.instance,
      'UPDATE_BACKUP',
      state.durations.remove,
      (error) => {
        if (error !== undefined) return;
        if (fields.includes('description')) run.description = String(body['description'] ?? '');
        if (moment !== undefined) run.expiresAt = moment;
      },
      run,
    );
    return operationBody(operation);
  };

  const route = (request: SimulatorRequest): SimulatorResponse => {
    const { method, url } = request;
    const segments = url.pathname.split('/').slice(2).map(decodeURIComponent);
    const [, project = '', collection, first, sub, second, ...rest] = segments;
    const body = isObject(request.json) ? (request.json as JsonObject) : {};
    const call = `${method} ${[collection, first === undefined ? undefined : '*', sub, second === undefined ? undefined : '*'].filter((part) => part !== undefined).join('/')}`;
    if (rest.length > 0 || segments.some((segment) => segment === '')) return unknownPath(url);
    const carries = method === 'POST' || method === 'PATCH';
    if (carries && !(request.headers['content-type'] ?? '').startsWith('application/json')) {
      throw new Refusal(400, 'parseError', 'This API requires a JSON body.', 'INVALID_ARGUMENT');
    }
    if (carries && !isObject(request.json)) {
      throw new Refusal(400, 'parseError', 'Invalid JSON payload received.', 'INVALID_ARGUMENT');
    }
    const ok = (answer: unknown): SimulatorResponse => ({ status: 200, body: answer });
    switch (call) {
      case 'GET instances': {
        need('cloudsql.instances.list');
        const all = [...state.instances.values()].filter((instance) => instance.project === project);
        const page = paged(all, url.searchParams.get('maxResults'), url.searchParams.get('pageToken'), 1000);
        return ok({ kind: 'sql#instancesList', items: page.items.map(instanceBody), ...page.next });
      }
      case 'GET instances/*':
        need('cloudsql.instances.get');
        return ok(instanceBody(find(project, first as string)));
      case 'PATCH instances/*':
        return ok(update(find(project, first as string), body));
      case 'GET instances/*/getLatestRecoveryTime': {
        need('cloudsql.instances.get');
        const instance = find(project, first as string);
        if (!isPitr(instance)) {
          throw new Refusal(400, 'errorBinlogNotEnabled', 'Point-in-time recovery is not enabled for the instance.');
        }
        return ok({
          kind: 'sql#getLatestRecoveryTime',
          earliestRecoveryTime: iso(instance.logsSince),
          latestRecoveryTime: iso(Math.max(instance.logsSince, now() - 60_000)),
        });
      }
      case 'GET instances/*/databases': {
        need('cloudsql.databases.list');
        const instance = find(project, first as string);
        mustRun(instance);
        const items = Object.keys(contentOf(instance)).map((name) => ({
          kind: 'sql#database',
          name,
          instance: instance.name,
          project,
          charset: 'UTF8',
        }));
        return ok({ kind: 'sql#databasesList', items });
      }
      case 'GET instances/*/users': {
        need('cloudsql.users.list');
        const instance = find(project, first as string);
        mustRun(instance);
        const items = instance.users.map((name) => ({ kind: 'sql#user', name, instance: instance.name, project }));
        return ok({ kind: 'sql#usersList', items });
      }
      case 'GET instances/*/backupRuns': {
        need('cloudsql.backupRuns.list');
        const instance = find(project, first as string);
        const runs = state.runs
          .filter((run) => run.project === project && run.instance === instance.name && run.type !== 'FINAL')
          .sort((a, b) => b.enqueuedAt - a.enqueuedAt);
        const page = paged(runs, url.searchParams.get('maxResults'), url.searchParams.get('pageToken'), 500);
        return ok({ kind: 'sql#backupRunsList', items: page.items.map(runBody), ...page.next });
      }
      case 'POST instances/*/backupRuns':
        return ok(createRun(find(project, first as string), body));
      case 'GET instances/*/backupRuns/*':
        need('cloudsql.backupRuns.get');
        return ok(runBody(runOf(find(project, first as string), second as string)));
      case 'DELETE instances/*/backupRuns/*':
        return ok(remove(runOf(find(project, first as string), second as string)));
      case 'POST instances/*/restoreBackup':
        return ok(restore(project, first as string, body));
      case 'POST instances/*/clone':
        return ok(clone(find(project, first as string), body));
      case 'GET operations': {
        need('cloudsql.instances.get');
        const target = url.searchParams.get('instance');
        const operations = state.operations
          .filter((operation) => operation.project === project && (target === null || operation.target === target))
          .sort((a, b) => b.insertedAt - a.insertedAt);
        if (target !== null && operations.length === 0) find(project, target);
        const page = paged(operations, url.searchParams.get('maxResults'), url.searchParams.get('pageToken'), 500);
        return ok({ kind: 'sql#operationsList', items: page.items.map(operationBody), ...page.next });
      }
      case 'GET operations/*': {
        need('cloudsql.instances.get');
        const operation = state.operations.find((other) => other.project === project && other.name === first);
        if (operation === undefined) {
          throw new Refusal(404, 'operationDoesNotExist', 'The Cloud SQL instance operation does not exist.');
        }
        return ok(operationBody(operation));
      }
      case 'GET backups': {
        need('cloudsql.backupRuns.list');
        const filter = url.searchParams.get('filter') ?? '';
        const instance = /(?:^|\s)instance:"?([a-z0-9-]+)"?/.exec(filter)?.[1];
        const type = /(?:^|\s)type:"?([A-Z_]+)"?/.exec(filter)?.[1];
        const runs = state.runs
          .filter(
            (run) =>
              run.project === project &&
              (instance === undefined || run.instance === instance) &&
              (type === undefined || run.type === type),
          )
          .sort((a, b) => b.enqueuedAt - a.enqueuedAt);
        const page = paged(runs, url.searchParams.get('pageSize'), url.searchParams.get('pageToken'), 2000);
        return ok({ backups: page.items.map(namedBody), ...page.next });
      }
      case 'POST backups':
        return ok(createNamed(project, body));
      case 'PATCH backups/*':
        return ok(
          updateNamed(namedOf(`projects/${project}/backups/${first}`), body, url.searchParams.get('updateMask')),
        );
      case 'GET backups/*':
        need('cloudsql.backupRuns.get');
        return ok(namedBody(namedOf(`projects/${project}/backups/${first}`)));
      case 'DELETE backups/*':
        return ok(remove(namedOf(`projects/${project}/backups/${first}`)));
      default:
        return unknownPath(url);
    }
  };

  return {
    provider: 'gcp-cloud-sql',
    state,
    matches: (request) =>
      /^\/v1\/projects\/[^/]+\/(instances|operations|backups)(\/|$)/.test(request.url.pathname) ||
      asksPermissions(request, 'cloudsql'),
    writes: (request) => !['GET', 'HEAD'].includes(request.method) && !asksPermissions(request, 'cloudsql'),
    handle(request) {
      settle();
      try {
        const authorization = request.headers['authorization'] ?? '';
        if (!/^Bearer \S+$/.test(authorization) || state.unauthenticated) {
          throw new Refusal(
            401,
            authorization === '' ? 'required' : 'authError',
            'Request had invalid authentication credentials.',
            'UNAUTHENTICATED',
          );
        }
        if (state.disabled) {
          throw new Refusal(
            403,
            'accessNotConfigured',
            'Cloud SQL Admin API has not been used in the project before or it is disabled.',
            'PERMISSION_DENIED',
          );
        }
        if (asksPermissions(request, 'cloudsql')) return tellPermissions(request, state.denied);
        return route(request);
      } catch (cause) {
        if (cause instanceof Refusal) return cause.response;
        throw cause;
      }
    },
  };
}

function nameOf(run: SimulatedRun): string {
  return `projects/${run.project}/backups/${run.uid}`;
}

function contentOf(instance: SimulatedInstance): CloudSqlContent {
  return instance.history.at(-1)?.content ?? {};
}

function isPitr(instance: SimulatedInstance): boolean {
  const backups = instance.settings.backupConfiguration;
  return instance.databaseVersion.startsWith('MYSQL')
    ? backups['binaryLogEnabled'] === true
    : backups['pointInTimeRecoveryEnabled'] === true;
}

function within(value: unknown, least: number, most: number): boolean {
  return typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most;
}

/** Refuses a backup configuration that the API would not take. */
function checkBackups(instance: SimulatedInstance, backups: JsonObject, given: unknown): void {
  const bad = (field: string): Refusal =>
    new Refusal(400, 'invalid', `Invalid value for: backupConfiguration.${field}.`, 'INVALID_ARGUMENT');
  if (given === undefined) return;
  only(given as JsonObject, [
    'kind',
    'enabled',
    'startTime',
    'location',
    'binaryLogEnabled',
    'pointInTimeRecoveryEnabled',
    'replicationLogArchivingEnabled',
    'transactionLogRetentionDays',
    'backupRetentionSettings',
  ]);
  if (instance.masterInstanceName !== undefined && backups['enabled'] === true) {
    throw new Refusal(400, 'invalidOperation', "The requested operation isn't valid for this instance.");
  }
  if (backups['startTime'] !== undefined && !/^([01]\d|2[0-3]):[0-5]\d$/.test(String(backups['startTime']))) {
    throw bad('startTime');
  }
  const isMysql = instance.databaseVersion.startsWith('MYSQL');
  const [wrong, own] = isMysql
    ? ['pointInTimeRecoveryEnabled', 'binaryLogEnabled']
    : ['binaryLogEnabled', 'pointInTimeRecoveryEnabled'];
  if (backups[wrong as string] === true) throw bad(wrong as string);
  if (backups[own as string] === true && backups['enabled'] !== true) throw bad(own as string);
  const mostLogDays = instance.settings['edition'] === 'ENTERPRISE_PLUS' ? 35 : 7;
  const logDays = backups['transactionLogRetentionDays'];
  if (logDays !== undefined && !within(logDays, 1, mostLogDays)) throw bad('transactionLogRetentionDays');
  const retention = backups['backupRetentionSettings'];
  if (isObject(retention)) {
    only(retention as JsonObject, ['retentionUnit', 'retainedBackups']);
    if (retention['retentionUnit'] !== 'COUNT') throw bad('retentionUnit');
    if (!within(retention['retainedBackups'], 1, 365)) throw bad('retainedBackups');
  }
}

/** Reads when a backup should end: days from now, or a moment, at most a year ahead. */
function expiryOf(body: JsonObject, now: number): number | undefined {
  const { ttlDays, expiryTime } = body;
  if (ttlDays !== undefined && expiryTime !== undefined) {
    throw new Refusal(400, 'invalid', 'Only one of ttlDays and expiryTime can be set.', 'INVALID_ARGUMENT');
  }
  if (ttlDays === undefined && expiryTime === undefined) return undefined;
  const at = ttlDays === undefined ? Date.parse(String(expiryTime)) : now + Number(ttlDays) * DAY;
  if (typeof ttlDays === 'number' || Number.isNaN(at) || at <= now || at > now + 365 * DAY) {
    throw new Refusal(400, 'invalid', 'The expiry of a backup lies at most 365 days ahead.', 'INVALID_ARGUMENT');
  }
  return at;
}

function nextId(state: CloudSqlState, at: number): string {
  let id = at;
  while (state.runs.some((run) => run.id === String(id))) id += 1;
  return String(id);
}

function only(body: JsonObject, names: readonly string[]): void {
  const stranger = Object.keys(body).find((key) => !names.includes(key));
  if (stranger !== undefined) {
    throw new Refusal(
      400,
      'invalid',
      `Invalid JSON payload received. Unknown name "${stranger}": Cannot find field.`,
      'INVALID_ARGUMENT',
    );
  }
}

function unknownPath(url: URL): SimulatorResponse {
  return {
    status: 404,
    headers: { 'content-type': 'text/html; charset=UTF-8' },
    body: `<!DOCTYPE html><title>Error 404 (Not Found)!!1</title><p>The requested URL ${url.pathname.replace(/[<>&]/g, '')} was not found.`,
  };
}

function paged<T>(
  all: readonly T[],
  size: string | null,
  token: string | null,
  most: number,
): { items: T[]; next: JsonObject } {
  const limit = size === null ? most : Number(size);
  if (!Number.isInteger(limit) || limit < 1) throw new Refusal(400, 'invalid', 'Invalid value for the page size.');
  const from = token === null ? 0 : Number(/^after-(\d+)$/.exec(token)?.[1] ?? Number.NaN);
  if (Number.isNaN(from)) throw new Refusal(400, 'invalid', 'Invalid page token.');
  const end = from + Math.min(limit, most);
  return { items: all.slice(from, end), next: end < all.length ? { nextPageToken: `after-${end}` } : {} };
}

function fresh(
  project: string,
  name: string,
  databaseVersion: string,
  at: number,
  options: { region: string; state?: string; content: CloudSqlContent; backups?: JsonObject; settings?: JsonObject },
): SimulatedInstance {
  return {
    project,
    name,
    region: options.region,
    databaseVersion,
    state: options.state ?? 'RUNNABLE',
    instanceType: 'CLOUD_SQL_INSTANCE',
    createdAt: at,
    settings: {
      kind: 'sql#settings',
      settingsVersion: '3',
      tier: 'db-custom-2-7680',
      edition: 'ENTERPRISE',
      availabilityType: 'ZONAL',
      activationPolicy: 'ALWAYS',
      dataDiskSizeGb: '100',
      dataDiskType: 'PD_SSD',
      ...options.settings,
      backupConfiguration: {
        kind: 'sql#backupConfiguration',
        enabled: true,
        startTime: '03:00',
        backupRetentionSettings: { retentionUnit: 'COUNT', retainedBackups: 7 },
        ...options.backups,
      },
    },
    replicaNames: [],
    users: ['postgres', 'app'],
    history: [{ at, content: structuredClone(options.content) }],
    logsSince: at,
  };
}

function seed(state: CloudSqlState, now: number): void {
  const { project } = CLOUD_SQL_SANDBOX;
  const put = (instance: SimulatedInstance): SimulatedInstance => {
    state.instances.set(`${project}/${instance.name}`, instance);
    return instance;
  };
  const addRun = (instance: SimulatedInstance, at: number, run: Partial<SimulatedRun> = {}): void => {
    const content = (instance.history.findLast((entry) => entry.at <= at) ?? instance.history[0])?.content ?? {};
    state.runs.push({
      id: nextId(state, at),
      uid: randomUUID(),
      project,
      instance: instance.name,
      status: 'SUCCESSFUL',
      type: 'AUTOMATED',
      enqueuedAt: at,
      startedAt: at + 20_000,
      endedAt: at + 200_000,
      location: 'us',
      databaseVersion: instance.databaseVersion,
      bytes: 4_831_838_208,
      content: structuredClone(content),
      ...run,
    });
  };

  // Well kept: daily backups, point-in-time recovery, protected from deletion.
  const orders = put(
    fresh(project, CLOUD_SQL_SANDBOX.instance, 'POSTGRES_16', now - 400 * DAY, {
      region: 'us-central1',
      content: { postgres: {}, orders: { customers: 1180, orders: 47_000 } },
      settings: { availabilityType: 'REGIONAL', deletionProtectionEnabled: true, retainBackupsOnDelete: true },
      backups: { pointInTimeRecoveryEnabled: true, transactionLogRetentionDays: 7, location: 'us' },
    }),
  );
  orders.history.push({
    at: now - 30 * HOUR,
    content: { postgres: {}, orders: { customers: 1195, orders: 48_100 } },
  });
  orders.history.push({
    at: now - 2 * HOUR,
    content: { postgres: {}, orders: { customers: 1200, orders: 48_210 }, reporting: { daily: 31 } },
  });
  orders.logsSince = now - 7 * DAY;
  for (let day = 6; day >= 1; day -= 1) addRun(orders, now - day * DAY);
  addRun(orders, now - 5 * HOUR, { type: 'ON_DEMAND', description: 'before release 41' });
  addRun(orders, now - 300 * DAY, {
    type: 'FINAL',
    uid: CLOUD_SQL_SANDBOX.finalBackup,
    description: 'last state of the first orders-db',
    instanceDeletedAt: now - 300 * DAY,
    expiresAt: now + 65 * DAY,
  });
  state.operations.push({
    name: CLOUD_SQL_SANDBOX.restoreOperation,
    type: 'RESTORE_VOLUME',
    project,
    target: orders.name,
    insertedAt: now - 90 * DAY,
    endsAt: now - 90 * DAY + 14 * 60_000,
    done: true,
    apply: () => {},
  });

  // Badly protected: no automated backups, one success long ago, a failure since.
  const legacy = put(
    fresh(project, 'legacy-shop', 'MYSQL_8_0', now - 900 * DAY, {
      region: 'europe-west1',
      content: { shop: { items: 900, carts: 120 } },
      settings: { deletionProtectionEnabled: false },
      backups: { enabled: false, binaryLogEnabled: false },
    }),
  );
  legacy.users = ['root', 'shop'];
  addRun(legacy, now - 95 * DAY, { type: 'ON_DEMAND', location: 'eu' });
  addRun(legacy, now - 40 * DAY, {
    type: 'ON_DEMAND',
    status: 'FAILED',
    location: 'eu',
    error: { code: 'INTERNAL_ERROR', message: 'The backup could not be taken.' },
  });

  // A primary with a read replica: it cannot be restored onto while the replica exists.
  const reports = put(
    fresh(project, 'reports-db', 'POSTGRES_15', now - 200 * DAY, {
      region: 'us-central1',
      content: { reports: { rows: 77 } },
      settings: { deletionProtectionEnabled: true },
    }),
  );
  reports.replicaNames = ['reports-db-replica'];
  addRun(reports, now - DAY);
  const replica = put(
    fresh(project, 'reports-db-replica', 'POSTGRES_15', now - 190 * DAY, {
      region: 'us-east1',
      content: { reports: { rows: 77 } },
      backups: { enabled: false },
    }),
  );
  replica.instanceType = 'READ_REPLICA_INSTANCE';
  replica.masterInstanceName = 'reports-db';

  const staging = put(
    fresh(project, 'staging-db', 'POSTGRES_16', now - 60 * DAY, {
      region: 'us-central1',
      content: { orders: { customers: 3, orders: 9 } },
    }),
  );
  addRun(staging, now - 2 * DAY);
}
