import { createHash } from 'node:crypto';
import { isObject, type JsonObject } from '../core/json.ts';
import { asksPermissions, tellPermissions } from './google-permissions.ts';
import type { Simulator, SimulatorOptions, SimulatorRequest, SimulatorResponse } from './simulator.ts';

/** Row counts by a key of the table's own, a month or a region: enough to see that a table was replaced. */
export type BigQueryContent = Record<string, number>;

export interface SimulatedTable {
  dataset: string;
  name: string;
  type: 'TABLE' | 'VIEW' | 'MATERIALIZED_VIEW' | 'EXTERNAL' | 'SNAPSHOT';
  createdAt: number;
  modifiedAt: number;
  /** Counts changes that the content does not show; part of the etag. */
  version: number;
  /** What was in it since when, oldest first; the last one is now. */
  history: { at: number; content: BigQueryContent }[];
  fields: { name: string; type: string; mode?: string }[];
  description?: string;
  partitionedBy?: string;
  expiresAt?: number;
  /** Of a snapshot: what it is of, and as of when. */
  base?: { project?: string; dataset: string; name: string; at: number };
  streamingRows: number;
  deletedAt?: number;
  /** The window that was in force when it was deleted, in hours. */
  windowAtDeletion?: number;
}

export interface SimulatedDataset {
  project: string;
  name: string;
  location: string;
  createdAt: number;
  description?: string;
  maxTimeTravelHours?: number;
  defaultTableExpirationMs?: number;
  defaultPartitionExpirationMs?: number;
  /** Absent: never since it was made. */
  modifiedAt?: number;
  storageBillingModel?: string;
  kmsKey?: string;
}

export interface SimulatedJob {
  id: string;
  project: string;
  location: string;
  configuration: JsonObject;
  insertedAt: number;
  endsAt: number;
  done: boolean;
  copiedRows?: number;
  error?: { reason: string; message: string };
  run: (job: SimulatedJob) => void;
}

/** What a test may look at and set. */
export interface BigQueryState {
  readonly datasets: Map<string, SimulatedDataset>;
  readonly tables: SimulatedTable[];
  /** Tables that were deleted or have expired and that time travel may still reach. */
  readonly deleted: SimulatedTable[];
  readonly jobs: SimulatedJob[];
  /** IAM permissions that the caller lacks. */
  readonly denied: Set<string>;
  /** Whether every token is refused. */
  unauthenticated: boolean;
  /** Whether a table that does not exist answers 403, as for a caller without a view of it. */
  hidesUnknown: boolean;
  /** Whether the API is switched off in the project. */
  disabled: boolean;
  /** Reasons with which the next jobs fail, one each. */
  readonly failNext: string[];
  /** Refusals of the next requests, one each, `GET` or `POST` ones only where said. */
  readonly refuseNext: { status: number; reason: string; message?: string; word?: string; method?: string }[];
  /** Milliseconds of clock time. */
  readonly durations: { snapshot: number; restore: number; pending: number };
}

export interface BigQuerySimulator extends Simulator {
  readonly state: BigQueryState;
  table(name: string, dataset?: string): SimulatedTable | undefined;
}

export const BIGQUERY_SANDBOX = {
  project: 'holdfast-sandbox',
  dataset: 'analytics',
  restoreJob: 'holdfast_restore_6f2b1c7e-9a40-4d5e-8b13-00000032002a',
} as const;

const USER = 'backup-operator@holdfast-sandbox.iam.gserviceaccount.com';
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const TABLE_ID = /^[\p{L}\p{M}\p{N}\p{Pc}\p{Pd}\p{Zs}]{1,1024}$/u;

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

/** A failure inside of a job: the request itself was answered with 200. */
class JobFailure extends Error {
  readonly reason: string;
  constructor(reason: string, message: string) {
    super(message);
    this.reason = reason;
  }
}

/** Stands in for the BigQuery API v2: datasets, tables, snapshots, copy jobs and time travel. */
export function gcpBigQuerySimulator(options: SimulatorOptions): BigQuerySimulator {
  const now = (): number => options.clock.now().getTime();
  const iso = (at: number): string => new Date(at).toISOString();
  const state: BigQueryState = {
    datasets: new Map(),
    tables: [],
    deleted: [],
    jobs: [],
    denied: new Set(),
    unauthenticated: false,
    hidesUnknown: false,
    disabled: false,
    failNext: [],
    refuseNext: [],
    durations: { snapshot: 2000, restore: 3000, pending: 200 },
  };
  seed(state, now());

  const windowOf = (dataset: SimulatedDataset): number => dataset.maxTimeTravelHours ?? 168;

  const bury = (table: SimulatedTable, at: number): void => {
    state.tables.splice(state.tables.indexOf(table), 1);
    table.deletedAt = at;
    table.windowAtDeletion = windowOf(datasetOf(table.dataset));
    state.deleted.push(table);
  };

  // Everything that should be over by the clock's time is made so before a request is looked at.
  const settle = (): void => {
    for (const table of state.tables.filter(({ expiresAt }) => expiresAt !== undefined && expiresAt <= now())) {
      bury(table, table.expiresAt as number);
    }
    const due = state.jobs.filter((job) => !job.done && job.endsAt <= now());
    for (const job of due.sort((a, b) => a.endsAt - b.endsAt)) {
      job.done = true;
      try {
        const planned = state.failNext.shift();
        if (planned !== undefined) throw new JobFailure(planned, `The job failed in the simulator with ${planned}.`);
        job.run(job);
      } catch (cause) {
        if (!(cause instanceof JobFailure)) throw cause;
        job.error = { reason: cause.reason, message: cause.message };
      }
    }
  };

  const need = (permission: string, on: string): void => {
    if (state.denied.has(permission)) {
      throw new Refusal(
        403,
        'accessDenied',
        `Access Denied: ${on}: Permission ${permission} denied on resource (or it may not exist).`,
        'PERMISSION_DENIED',
      );
    }
  };

  const datasetOf = (name: string): SimulatedDataset => {
    const dataset = state.datasets.get(name);
    if (dataset !== undefined) return dataset;
    throw new Refusal(404, 'notFound', `Not found: Dataset ${BIGQUERY_SANDBOX.project}:${name}`, 'NOT_FOUND');
  };

  const findTable = (dataset: string, name: string): SimulatedTable | undefined =>
    state.tables.find((table) => table.dataset === dataset && table.name === name);

  const tableOf = (dataset: string, name: string): SimulatedTable => {
    datasetOf(dataset);
    const table = findTable(dataset, name);
    if (table !== undefined) return table;
    const full = `${BIGQUERY_SANDBOX.project}:${dataset}.${name}`;
    if (state.hidesUnknown) {
      throw new Refusal(
        403,
        'accessDenied',
        `Access Denied: Table ${full}: Permission bigquery.tables.get denied on table ${full} (or it may not exist).`,
        'PERMISSION_DENIED',
      );
    }
    throw new Refusal(404, 'notFound', `Not found: Table ${full}`, 'NOT_FOUND');
  };

  const reference = ({
    project = BIGQUERY_SANDBOX.project,
    dataset,
    name,
  }: {
    project?: string;
    dataset: string;
    name: string;
  }): JsonObject => ({
    projectId: project,
    datasetId: dataset,
    tableId: name,
  });

  const rowBody = (table: SimulatedTable): JsonObject => ({
    kind: 'bigquery#table',
    id: `${BIGQUERY_SANDBOX.project}:${table.dataset}.${table.name}`,
    tableReference: reference(table),
    type: table.type,
    creationTime: String(table.createdAt),
    ...(table.expiresAt === undefined ? {} : { expirationTime: String(table.expiresAt) }),
    ...(table.partitionedBy === undefined ? {} : { timePartitioning: { type: 'DAY', field: table.partitionedBy } }),
  });

  const tableBody = (table: SimulatedTable): JsonObject => {
    const { location, kmsKey } = datasetOf(table.dataset);
    const stored = table.type === 'TABLE' || table.type === 'SNAPSHOT';
    const rows = rowsOf(contentOf(table));
    return {
      ...rowBody(table),
      etag: etagOf(table),
      location,
      lastModifiedTime: String(table.modifiedAt),
      schema: { fields: table.fields.map((field) => ({ ...field })) },
      ...(table.description === undefined ? {} : { description: table.description }),
      ...(stored ? { numRows: String(rows), numBytes: String(rows * 120), numLongTermBytes: '0' } : {}),
      ...(table.base === undefined
        ? {}
        : {
            snapshotDefinition: { baseTableReference: reference(table.base), snapshotTime: iso(table.base.at) },
          }),
      ...(table.streamingRows === 0
        ? {}
        : {
            streamingBuffer: {
              estimatedRows: String(table.streamingRows),
              estimatedBytes: String(table.streamingRows * 120),
              oldestEntryTime: String(now() - 30_000),
            },
          }),
      ...(kmsKey === undefined ? {} : { encryptionConfiguration: { kmsKeyName: kmsKey } }),
    };
  };

  const datasetBody = (dataset: SimulatedDataset): JsonObject => ({
    kind: 'bigquery#dataset',
    id: `${dataset.project}:${dataset.name}`,
    etag: createHash('sha1').update(JSON.stringify(dataset)).digest('base64'),
    datasetReference: { projectId: dataset.project, datasetId: dataset.name },
    location: dataset.location,
    type: 'DEFAULT',
    creationTime: String(dataset.createdAt),
    lastModifiedTime: String(dataset.modifiedAt ?? dataset.createdAt),
    ...(dataset.description === undefined ? {} : { description: dataset.description }),
    ...(dataset.maxTimeTravelHours === undefined ? {} : { maxTimeTravelHours: String(dataset.maxTimeTravelHours) }),
    ...(dataset.defaultTableExpirationMs === undefined
      ? {}
      : { defaultTableExpirationMs: String(dataset.defaultTableExpirationMs) }),
    ...(dataset.defaultPartitionExpirationMs === undefined
      ? {}
      : { defaultPartitionExpirationMs: String(dataset.defaultPartitionExpirationMs) }),
    ...(dataset.storageBillingModel === undefined ? {} : { storageBillingModel: dataset.storageBillingModel }),
    ...(dataset.kmsKey === undefined ? {} : { defaultEncryptionConfiguration: { kmsKeyName: dataset.kmsKey } }),
  });

  const jobBody = (job: SimulatedJob): JsonObject => {
    const started = job.insertedAt + state.durations.pending;
    const running = job.done || now() >= started;
    const failure = job.done && job.error !== undefined ? { ...job.error } : undefined;
    return {
      kind: 'bigquery#job',
      id: `${job.project}:${job.location}.${job.id}`,
      etag: createHash('sha1').update(`${job.id}${job.done}`).digest('base64'),
      user_email: USER,
      jobReference: { projectId: job.project, jobId: job.id, location: job.location },
      configuration: structuredClone(job.configuration),
      status: {
        state: job.done ? 'DONE' : running ? 'RUNNING' : 'PENDING',
        ...(failure === undefined ? {} : { errorResult: failure, errors: [failure] }),
      },
      statistics: {
        creationTime: String(job.insertedAt),
        ...(running ? { startTime: String(started) } : {}),
        ...(job.done ? { endTime: String(job.endsAt) } : {}),
        ...(job.copiedRows === undefined
          ? {}
          : { copy: { copiedRows: String(job.copiedRows), copiedLogicalBytes: String(job.copiedRows * 120) } }),
      },
    };
  };

  /** The source of a copy as of a moment: from the table itself, or from one of its name that is gone. */
  const sourceAt = (
    dataset: string,
    id: string,
  ): { table: SimulatedTable; at: number; content: BigQueryContent } | undefined => {
    const [, name = id, decorator] = /^([^@]+)@(-?\d+)$/.exec(id) ?? [];
    const table = findTable(dataset, name);
    if (decorator === undefined) return table && { table, at: now(), content: contentOf(table) };
    const at = Number(decorator) < 0 ? now() + Number(decorator) : Number(decorator);
    // A table of the same name hides the one that was deleted.
    const found =
      table ??
      state.deleted.findLast(
        (one) =>
          one.dataset === dataset &&
          one.name === name &&
          one.createdAt <= at &&
          (one.deletedAt as number) > at &&
          now() - (one.deletedAt as number) <= (one.windowAtDeletion as number) * HOUR,
      );
    const reach = (found?.windowAtDeletion ?? windowOf(datasetOf(dataset))) * HOUR;
    if (at > now() || now() - at > reach || (found !== undefined && at < found.createdAt)) {
      throw new Refusal(
        400,
        'invalid',
        `Invalid time travel timestamp ${at} for table ${dataset}.${name}@${at}. Cannot read before ${now() - reach}.`,
        'INVALID_ARGUMENT',
      );
    }
    if (found === undefined) return undefined;
    const content = (found.history.findLast((entry) => entry.at <= at) ?? found.history[0])?.content ?? {};
    return { table: found, at, content };
  };

  const insert = (project: string, body: JsonObject): JsonObject => {
    need('bigquery.jobs.create', `Project ${project}`);
    only(body, ['jobReference', 'configuration']);
    const given = isObject(body['jobReference']) ? (body['jobReference'] as JsonObject) : {};
    only(given, ['projectId', 'jobId', 'location']);
    const configuration = isObject(body['configuration']) ? (body['configuration'] as JsonObject) : {};
    only(configuration, ['copy', 'labels', 'dryRun', 'jobTimeoutMs']);
    if (!isObject(configuration['copy'])) throw new Refusal(400, 'required', 'Required parameter is missing: copy');
    const copy = configuration['copy'] as JsonObject;
    only(copy, [
      'sourceTable',
      'destinationTable',
      'operationType',
      'createDisposition',
      'writeDisposition',
      'destinationExpirationTime',
      'destinationEncryptionConfiguration',
    ]);
    const id = String(given['jobId'] ?? '');
    if (!/^[A-Za-z0-9_-]{1,1024}$/.test(id) || given['projectId'] !== project) {
      throw new Refusal(400, 'invalid', 'Invalid job reference.', 'INVALID_ARGUMENT');
    }
    const from = readReference(copy['sourceTable'], true);
    const to = readReference(copy['destinationTable'], false);
    const source = datasetOf(from.dataset);
    const target = datasetOf(to.dataset);
    const location = String(given['location'] ?? 'US');
    for (const dataset of [source, target]) {
      if (dataset.location.toLowerCase() !== location.toLowerCase()) {
        throw new Refusal(
          404,
          'notFound',
          `Not found: Dataset ${project}:${dataset.name} was not found in location ${location}`,
          'NOT_FOUND',
        );
      }
    }
    if (state.jobs.some((job) => job.id === id && job.location === location)) {
      throw new Refusal(409, 'duplicate', `Already Exists: Job ${project}:${location}.${id}`, 'ALREADY_EXISTS');
    }
    const operation = String(copy['operationType'] ?? 'OPERATION_TYPE_UNSPECIFIED');
    const disposition = String(copy['writeDisposition'] ?? 'WRITE_EMPTY');
    need('bigquery.tables.getData', `Table ${from.dataset}.${from.table}`);
    if (operation === 'SNAPSHOT') need('bigquery.tables.createSnapshot', `Table ${from.dataset}.${from.table}`);
    if (operation === 'RESTORE') need('bigquery.tables.restoreSnapshot', `Table ${from.dataset}.${from.table}`);
    need('bigquery.tables.create', `Dataset ${project}:${to.dataset}`);
    if (copy['destinationExpirationTime'] !== undefined) need('bigquery.tables.deleteSnapshot', 'Table');
    const found = sourceAt(from.dataset, from.table);
    const expires = copy['destinationExpirationTime'];
    const job: SimulatedJob = {
      id,
      project,
      location,
      configuration: { jobType: 'COPY', ...structuredClone(configuration) },
      insertedAt: now(),
      endsAt: now() + (operation === 'SNAPSHOT' ? state.durations.snapshot : state.durations.restore),
      done: false,
      run: (self) => {
        if (found === undefined) {
          throw new JobFailure('notFound', `Not found: Table ${project}:${from.dataset}.${from.table}`);
        }
        const existing = findTable(to.dataset, to.table);
        checkTypes(operation, found.table);
        if (existing !== undefined) {
          const rows = rowsOf(contentOf(existing));
          if (operation === 'SNAPSHOT' || (disposition === 'WRITE_EMPTY' && rows > 0)) {
            throw new JobFailure('duplicate', `Already Exists: Table ${project}:${to.dataset}.${to.table}`);
          }
          if (existing.type === 'SNAPSHOT') {
            throw new JobFailure('accessDenied', 'Access Denied: the destination is a read-only snapshot.');
          }
          if (existing.type !== 'TABLE') throw new JobFailure('invalid', 'Cannot write to a view.');
        }
        self.copiedRows = rowsOf(found.content);
        const made = existing ?? fresh(to.dataset, to.table, self.endsAt, {}, []);
        made.history.push({ at: self.endsAt, content: structuredClone(found.content) });
        made.modifiedAt = self.endsAt;
        made.version += 1;
        made.fields = structuredClone(found.table.fields);
        if (existing !== undefined) return;
        made.history.shift();
        const fallback = target.defaultTableExpirationMs;
        if (typeof expires === 'string') made.expiresAt = Date.parse(expires);
        else if (fallback !== undefined) made.expiresAt = self.endsAt + fallback;
        if (operation === 'SNAPSHOT') {
          made.type = 'SNAPSHOT';
          made.base = { dataset: from.dataset, name: found.table.name, at: found.at };
        }
        // Partitioning does not come back with a table that was deleted.
        if (found.table.partitionedBy !== undefined && found.table.deletedAt === undefined) {
          made.partitionedBy = found.table.partitionedBy;
        }
        state.tables.push(made);
      },
    };
    state.jobs.push(job);
    return jobBody(job);
  };

  /** Merges metadata as the API does: int64 values travel as text, 0 and null clear an expiration. */
  const update = (dataset: SimulatedDataset, request: SimulatorRequest): JsonObject => {
    const body = request.json as JsonObject;
    only(body, [
      'kind',
      'description',
      'maxTimeTravelHours',
      'defaultTableExpirationMs',
      'defaultPartitionExpirationMs',
    ]);
    if (!['UPDATE_METADATA', 'UPDATE_FULL', null].includes(request.url.searchParams.get('updateMode'))) {
      throw new Refusal(400, 'invalid', 'Invalid update mode.', 'INVALID_ARGUMENT');
    }
    const wanted = request.headers['if-match'];
    if (wanted !== undefined && wanted !== datasetBody(dataset)['etag']) {
      throw new Refusal(412, 'conditionNotMet', 'Precondition Failed', 'FAILED_PRECONDITION');
    }
    const changes: Partial<SimulatedDataset> = {};
    const hours = body['maxTimeTravelHours'];
    if (hours !== undefined) {
      if (typeof hours !== 'string' || !['48', '72', '96', '120', '144', '168'].includes(hours)) {
        throw new Refusal(400, 'invalid', 'Invalid value for maxTimeTravelHours.', 'INVALID_ARGUMENT');
      }
      changes.maxTimeTravelHours = Number(hours);
    }
    for (const field of ['defaultTableExpirationMs', 'defaultPartitionExpirationMs'] as const) {
      const value = body[field];
      if (value === undefined) continue;
      const ms = value === null ? 0 : typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : Number.NaN;
      if (Number.isNaN(ms) || (ms !== 0 && ms < HOUR)) {
        throw new Refusal(400, 'invalid', `Invalid value for ${field}.`, 'INVALID_ARGUMENT');
      }
      changes[field] = ms;
    }
    if (typeof body['description'] === 'string') changes.description = body['description'];
    Object.assign(dataset, changes, { modifiedAt: now() });
    for (const field of ['defaultTableExpirationMs', 'defaultPartitionExpirationMs'] as const) {
      if (dataset[field] === 0) delete dataset[field];
    }
    return datasetBody(dataset);
  };

  const route = (request: SimulatorRequest): SimulatorResponse => {
    const { method, url } = request;
    const segments = url.pathname.split('/').slice(3).map(decodeURIComponent);
    const [, project = '', collection, first, sub, second, ...rest] = segments;
    if (rest.length > 0 || segments.some((segment) => segment === '')) return unknownPath(url);
    const carries = method === 'POST' || method === 'PATCH';
    if (carries && !(request.headers['content-type'] ?? '').startsWith('application/json')) {
      throw new Refusal(400, 'parseError', 'This API requires a JSON body.', 'INVALID_ARGUMENT');
    }
    if (carries && !isObject(request.json)) {
      throw new Refusal(400, 'parseError', 'Invalid JSON payload received.', 'INVALID_ARGUMENT');
    }
    if (project !== BIGQUERY_SANDBOX.project) {
      throw new Refusal(403, 'accessDenied', `Access Denied: Project ${project}`, 'PERMISSION_DENIED');
    }
    const call = `${method} ${[collection, first === undefined ? undefined : '*', sub, second === undefined ? undefined : '*'].filter((part) => part !== undefined).join('/')}`;
    const ok = (answer: unknown): SimulatorResponse => ({ status: 200, body: answer });
    switch (call) {
      case 'GET datasets': {
        const all = [...state.datasets.values()].filter((dataset) => dataset.project === project);
        const page = paged(all, url.searchParams.get('maxResults'), url.searchParams.get('pageToken'));
        const rows = page.items.map(datasetBody).map(({ id, datasetReference, location }) => ({
          kind: 'bigquery#dataset',
          id,
          datasetReference,
          location,
        }));
        return ok({ kind: 'bigquery#datasetList', etag: 'list', datasets: rows, ...page.next });
      }
      case 'PATCH datasets/*':
        need('bigquery.datasets.update', `Dataset ${project}:${first}`);
        return ok(update(datasetOf(first as string), request));
      case 'GET datasets/*':
        need('bigquery.datasets.get', `Dataset ${project}:${first}`);
        return ok(datasetBody(datasetOf(first as string)));
      case 'GET datasets/*/tables': {
        need('bigquery.tables.list', `Dataset ${project}:${first}`);
        datasetOf(first as string);
        const tables = state.tables
          .filter((table) => table.dataset === first)
          .sort((a, b) => (a.name < b.name ? -1 : 1));
        const page = paged(tables, url.searchParams.get('maxResults'), url.searchParams.get('pageToken'));
        return ok({
          kind: 'bigquery#tableList',
          etag: 'list',
          tables: page.items.map(rowBody),
          totalItems: tables.length,
          ...page.next,
        });
      }
      case 'GET datasets/*/tables/*':
        need('bigquery.tables.get', `Table ${project}:${first}.${second}`);
        return ok(tableBody(tableOf(first as string, second as string)));
      case 'DELETE datasets/*/tables/*': {
        const table = tableOf(first as string, second as string);
        need(
          table.type === 'SNAPSHOT' ? 'bigquery.tables.deleteSnapshot' : 'bigquery.tables.delete',
          `Table ${project}:${first}.${second}`,
        );
        bury(table, now());
        return { status: 204 };
      }
      case 'POST jobs':
        return ok(insert(project, request.json as JsonObject));
      case 'GET jobs/*': {
        need('bigquery.jobs.get', `Job ${project}:${first}`);
        const location = url.searchParams.get('location') ?? 'US';
        const job = state.jobs.find((one) => one.id === first && one.location.toLowerCase() === location.toLowerCase());
        if (job === undefined) {
          throw new Refusal(404, 'notFound', `Not found: Job ${project}:${location}.${first}`, 'NOT_FOUND');
        }
        return ok(jobBody(job));
      }
      default:
        return unknownPath(url);
    }
  };

  return {
    provider: 'gcp-bigquery',
    state,
    table: (name, dataset = BIGQUERY_SANDBOX.dataset) => findTable(dataset, name),
    matches: (request) => request.url.pathname.startsWith('/bigquery/v2/') || asksPermissions(request, 'bigquery'),
    writes: (request) => !['GET', 'HEAD'].includes(request.method) && !asksPermissions(request, 'bigquery'),
    operation: ({ method, url, json }) =>
      method === 'POST' && url.pathname.endsWith('/jobs') ? `jobs.insert ${kindOf(json)}` : undefined,
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
            'BigQuery API has not been used in the project before or it is disabled.',
            'PERMISSION_DENIED',
          );
        }
        const planned = state.refuseNext.findIndex(({ method = request.method }) => method === request.method);
        const [refusal] = planned < 0 ? [] : state.refuseNext.splice(planned, 1);
        if (refusal !== undefined) {
          throw new Refusal(refusal.status, refusal.reason, refusal.message ?? 'Refused.', refusal.word);
        }
        if (asksPermissions(request, 'bigquery')) return tellPermissions(request, state.denied);
        return route(request);
      } catch (cause) {
        if (cause instanceof Refusal) return cause.response;
        throw cause;
      }
    },
  };
}

/** What a job does: all of them are inserted by the same path. */
function kindOf(body: unknown): string {
  const configuration = isObject(body) ? body['configuration'] : undefined;
  const copy = isObject(configuration) ? configuration['copy'] : undefined;
  return isObject(copy) ? String(copy['operationType'] ?? 'COPY') : 'unknown';
}

function checkTypes(operation: string, source: SimulatedTable): void {
  const fits: Record<string, string[]> = {
    SNAPSHOT: ['TABLE', 'SNAPSHOT'],
    RESTORE: ['SNAPSHOT'],
    COPY: ['TABLE'],
    CLONE: ['TABLE'],
  };
  // A snapshot can be taken of one that is gone, never of one that is there.
  const gone = source.deletedAt !== undefined;
  const allowed = fits[operation];
  if (allowed === undefined) throw new JobFailure('invalid', `Unsupported operation type ${operation}.`);
  if (!allowed.includes(source.type) || (operation === 'SNAPSHOT' && source.type === 'SNAPSHOT' && !gone)) {
    const message =
      operation === 'RESTORE' ? 'The source is not a table snapshot.' : `A ${source.type} is not supported here.`;
    throw new JobFailure('invalid', message);
  }
}

function readReference(value: unknown, decorated: boolean): { dataset: string; table: string } {
  if (!isObject(value)) throw new Refusal(400, 'required', 'Required parameter is missing: table reference');
  only(value as JsonObject, ['projectId', 'datasetId', 'tableId']);
  const { projectId, datasetId, tableId } = value;
  const id = String(tableId ?? '');
  const plain = decorated ? id.replace(/@-?\d+$/, '') : id;
  if (projectId !== BIGQUERY_SANDBOX.project || !/^\w{1,1024}$/.test(String(datasetId)) || !TABLE_ID.test(plain)) {
    throw new Refusal(400, 'invalid', `Invalid table ID "${id}".`, 'INVALID_ARGUMENT');
  }
  return { dataset: String(datasetId), table: id };
}

function contentOf(table: SimulatedTable): BigQueryContent {
  return table.history.at(-1)?.content ?? {};
}

function rowsOf(content: BigQueryContent): number {
  return Object.values(content).reduce((sum, rows) => sum + rows, 0);
}

function etagOf(table: SimulatedTable): string {
  const { name, createdAt, modifiedAt, version, expiresAt, fields } = table;
  const parts = JSON.stringify([name, createdAt, modifiedAt, version, expiresAt, fields, contentOf(table)]);
  return createHash('sha1').update(parts).digest('base64');
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

function paged<T>(all: readonly T[], size: string | null, token: string | null): { items: T[]; next: JsonObject } {
  const limit = size === null ? 50 : Number(size);
  if (!Number.isInteger(limit) || limit < 1) throw new Refusal(400, 'invalid', 'Invalid value for maxResults.');
  const from = token === null ? 0 : Number(/^after-(\d+)$/.exec(token)?.[1] ?? Number.NaN);
  if (Number.isNaN(from)) throw new Refusal(400, 'invalid', 'Invalid page token.');
  const end = from + Math.min(limit, 1000);
  return { items: all.slice(from, end), next: end < all.length ? { nextPageToken: `after-${end}` } : {} };
}

function fresh(
  dataset: string,
  name: string,
  at: number,
  content: BigQueryContent,
  fields: SimulatedTable['fields'],
): SimulatedTable {
  return {
    dataset,
    name,
    type: 'TABLE',
    createdAt: at,
    modifiedAt: at,
    version: 1,
    history: [{ at, content: structuredClone(content) }],
    fields: structuredClone(fields),
    streamingRows: 0,
  };
}

function seed(state: BigQueryState, now: number): void {
  const { project, dataset: own } = BIGQUERY_SANDBOX;
  const addDataset = (name: string, location: string, more: Partial<SimulatedDataset> = {}): void => {
    state.datasets.set(name, { project, name, location, createdAt: now - 500 * DAY, ...more });
  };
  const addTable = (
    name: string,
    content: BigQueryContent,
    fields: SimulatedTable['fields'],
    more: Partial<SimulatedTable> = {},
  ): SimulatedTable => {
    const dataset = more.dataset ?? own;
    const table = { ...fresh(dataset, name, now - 300 * DAY, content, fields), ...more };
    state.tables.push(table);
    return table;
  };
  const addSnapshot = (of: SimulatedTable, name: string, at: number, more: Partial<SimulatedTable> = {}): void => {
    const content = (of.history.findLast((entry) => entry.at <= at) ?? of.history[0])?.content ?? {};
    const made = fresh(of.dataset, name, at + 3000, content, of.fields);
    state.tables.push({ ...made, type: 'SNAPSHOT', base: { dataset: of.dataset, name: of.name, at }, ...more });
  };
  const change = (table: SimulatedTable, at: number, content: BigQueryContent): void => {
    table.history.push({ at, content });
    table.modifiedAt = at;
    table.version += 1;
  };

  // Well kept: the whole window, snapshots of what matters.
  addDataset(own, 'US', { description: 'Analytics data warehouse', maxTimeTravelHours: 168 });
  const orders = addTable(
    'orders',
    { '2026-09': 14_100, '2026-10': 15_900 },
    [
      { name: 'order_id', type: 'STRING', mode: 'REQUIRED' },
      { name: 'amount', type: 'NUMERIC' },
      { name: 'placed_at', type: 'TIMESTAMP' },
    ],
    { partitionedBy: 'placed_at', description: 'One row an order' },
  );
  change(orders, now - 5 * DAY, { '2026-09': 14_100, '2026-10': 16_250, '2026-11': 9_020 });
  change(orders, now - 2 * HOUR, { '2026-09': 14_100, '2026-10': 16_250, '2026-11': 12_640 });
  addSnapshot(orders, 'orders_snapshot_monthly', now - 20 * DAY);
  addSnapshot(orders, 'orders_before_release', now - 5 * HOUR, { description: 'before release 41' });
  const customers = addTable('customers', { EU: 4_100, US: 7_900 }, [
    { name: 'customer_id', type: 'STRING', mode: 'REQUIRED' },
    { name: 'region', type: 'STRING' },
  ]);
  addSnapshot(customers, 'customers_snapshot', now - 9 * DAY, { expiresAt: now + 3 * DAY });
  addTable('empty_table', {}, [{ name: 'note', type: 'STRING' }]);
  addTable('events', { today: 91_000 }, [{ name: 'event', type: 'JSON' }], { streamingRows: 1200 });
  addTable('daily_revenue', {}, [{ name: 'revenue', type: 'NUMERIC' }], { type: 'VIEW' });
  // A table that somebody dropped yesterday, with the only snapshot of another that is long gone.
  state.deleted.push({
    ...fresh(own, 'dropped_yesterday', now - 90 * DAY, { kept: 777 }, [{ name: 'kept', type: 'STRING' }]),
    partitionedBy: 'kept',
    deletedAt: now - DAY,
    windowAtDeletion: 168,
  });
  const retired = fresh(own, 'retired_campaigns', now - 200 * DAY, { all: 320 }, [
    { name: 'campaign', type: 'STRING' },
  ]);
  addSnapshot(retired, 'retired_campaigns_last', now - 60 * DAY);

  // Where snapshots of other datasets may be put, and one in another location.
  addDataset('backups', 'US', { description: 'Snapshots only' });
  addDataset('analytics_eu', 'EU');
  addTable('visits', { all: 50 }, [{ name: 'visit', type: 'STRING' }], { dataset: 'analytics_eu' });

  // Badly protected: the shortest window, everything vanishes, no snapshot.
  addDataset('scratch', 'europe-west1', {
    maxTimeTravelHours: 48,
    defaultTableExpirationMs: 30 * DAY,
    storageBillingModel: 'PHYSICAL',
  });
  addTable('raw_import', { all: 12 }, [{ name: 'line', type: 'STRING' }], {
    dataset: 'scratch',
    createdAt: now - 10 * DAY,
    expiresAt: now + 20 * DAY,
  });
  addTable('partner_files', {}, [{ name: 'line', type: 'STRING' }], { dataset: 'scratch', type: 'EXTERNAL' });

  const copy = {
    sourceTable: { projectId: project, datasetId: own, tableId: 'orders_snapshot_monthly' },
    destinationTable: { projectId: project, datasetId: own, tableId: 'orders' },
    operationType: 'RESTORE',
    createDisposition: 'CREATE_IF_NEEDED',
    writeDisposition: 'WRITE_TRUNCATE',
  };
  state.jobs.push({
    id: BIGQUERY_SANDBOX.restoreJob,
    project,
    location: 'US',
    configuration: { jobType: 'COPY', copy },
    insertedAt: now - 10 * DAY,
    endsAt: now - 10 * DAY + 4000,
    done: true,
    copiedRows: 30_000,
    run: () => {},
  });
}
