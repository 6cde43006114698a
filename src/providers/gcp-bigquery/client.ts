import type { bigquery_v2 } from 'googleapis/build/src/apis/bigquery/v2.js';
import { HoldfastError } from '../../core/errors.ts';
import type { Runtime } from '../../core/runtime.ts';
import { type GoogleAuthorizer, googleFetch, googleProjectFinder, googleTimeout } from '../google.ts';
import {
  type Addressed,
  checkDataset,
  checkJob,
  checkLocation,
  checkProject,
  checkTable,
  type Dataset,
  isSame,
  isSnapshot,
  type Job,
  provesAbsence,
  type Row,
  referenceOf,
  type Table,
  type TableName,
  toBigQueryError,
  typeWord,
} from './map.ts';

/** What is known of a table: a 403 proves nothing either way. */
export type Existence =
  | { state: 'exists'; table: Table }
  | { state: 'missing' }
  | { state: 'unknown'; error: HoldfastError };

/** One copy job. Its id is ours, so that it is found again when an answer is lost, and can never run twice. */
export interface CopyJob {
  readonly id: string;
  readonly location: string;
  readonly operation: 'SNAPSHOT' | 'RESTORE' | 'COPY';
  readonly source: TableName;
  /** The moment of the source; its present state when left out. */
  readonly at?: Date | undefined;
  readonly destination: TableName;
  /** Whether an existing destination is replaced: data, schema and constraints. */
  readonly replaces: boolean;
  readonly expires?: Date | undefined;
}

/** Settings of a dataset as they travel; '0' clears an expiration. */
export interface DatasetSettings {
  readonly maxTimeTravelHours: string | undefined;
  readonly defaultTableExpirationMs: string | undefined;
  readonly defaultPartitionExpirationMs: string | undefined;
  readonly description: string | undefined;
}

/** Typed calls of the BigQuery API for one entity. Every name that comes from a caller is checked before it is sent. */
export interface BigQueryClient {
  /** The dataset that the entity is. */
  readonly dataset: string;
  /** @throws {HoldfastError} CONFIG_INVALID when neither the entity nor its credentials name one */
  project(): Promise<string>;
  getDataset(dataset: string, signal: AbortSignal): Promise<Dataset>;
  /** Ids of all that are not hidden, page by page. */
  listDatasets(token: string | undefined, signal: AbortSignal): Promise<{ items: string[]; next: string | undefined }>;
  /**
   * Changes the settings that are given, unless the etag is old; access lists are never touched.
   * @throws {HoldfastError} PLAN_CHANGED when it is: nothing was changed
   */
  updateDataset(settings: DatasetSettings, etag: string, signal: AbortSignal): Promise<Dataset>;
  /** In no order that means anything. */
  listTables(
    dataset: string,
    page: { limit: number; token?: string | undefined },
    signal: AbortSignal,
  ): Promise<{ items: Row[]; next: string | undefined }>;
  getTable(name: TableName, signal: AbortSignal, as?: 'table' | 'snapshot'): Promise<Table>;
  lookUp(name: TableName, signal: AbortSignal): Promise<Existence>;
  /** Starts a copy job; a job of this id that is there already is answered in its place. */
  copy(job: CopyJob, signal: AbortSignal): Promise<Job>;
  getJob(id: string, location: string, signal: AbortSignal): Promise<Job>;
  /**
   * Deletes a snapshot after BigQuery has said that it is one: the same call would drop a live table.
   * @throws {HoldfastError} INVALID_STATE when it is none, or not the one that was made at `created`
   */
  deleteSnapshot(name: TableName, created: string, signal: AbortSignal): Promise<void>;
}

interface Options {
  dataset: string;
  project: string | undefined;
  origin: string;
  authorizer: GoogleAuthorizer;
  runtime: Runtime;
}

const VIEWER = 'roles/bigquery.metadataViewer';
const OWNER = 'roles/bigquery.dataOwner (or a custom role)';
const EDITOR = 'roles/bigquery.dataEditor with roles/bigquery.jobUser';

// What a copy job needs beside reading its source; BigQuery does not say which one is missing.
const NEEDED: Record<CopyJob['operation'], string> = {
  SNAPSHOT: 'bigquery.jobs.create, bigquery.tables.createSnapshot and .getData on the source, .create in the dataset',
  RESTORE:
    'bigquery.jobs.create, bigquery.tables.restoreSnapshot and .getData on the snapshot, .create in the dataset, .update and .updateData to replace a table',
  COPY: 'bigquery.jobs.create, bigquery.tables.getData on the source, .create in the dataset, .update and .updateData to replace a table',
};

/** Loads the BigQuery client alone, never the whole of googleapis, and makes the typed calls; sends nothing. */
export async function createBigQueryClient(options: Options): Promise<BigQueryClient> {
  const { bigquery_v2: library } = await import('googleapis/build/src/apis/bigquery/v2.js');
  const { authorizer, runtime } = options;
  const projectOf = googleProjectFinder(authorizer, options.project, checkProject);

  type Send<T> = (
    api: bigquery_v2.Bigquery,
    projectId: string,
    call: { retry: false; timeout: number; signal: AbortSignal },
  ) => PromiseLike<{ data: T }>;

  const send = async <T>(addressed: Addressed, signal: AbortSignal, request: Send<T>): Promise<T> => {
    // A token is had first, so that a refusal by the token host is never taken for one by the API.
    const { auth } = await authorizer.ready();
    const api = new library.Bigquery({
      rootUrl: `${options.origin}/`,
      auth,
      fetchImplementation: googleFetch(runtime),
    });
    const timeout = googleTimeout(addressed.write === true);
    try {
      const { data } = await request(api, await projectOf(), { retry: false, timeout, signal });
      return data;
    } catch (cause) {
      throw toBigQueryError(cause, addressed);
    }
  };

  // The client library sends an empty or stretched name as it is, to another resource: every one is read again here.
  const address = ({ dataset, table }: TableName): { datasetId: string; tableId: string } => ({
    datasetId: checkDataset(dataset),
    tableId: checkTable(table, 'table'),
  });

  const getTable: BigQueryClient['getTable'] = (name, signal, as = 'table') =>
    send({ resource: as, permission: 'bigquery.tables.get', role: VIEWER }, signal, (api, projectId, call) =>
      api.tables.get({ projectId, ...address(name), view: 'FULL' }, call),
    );

  const getJob: BigQueryClient['getJob'] = (id, location, signal) =>
    send(
      { resource: 'job', permission: 'bigquery.jobs.get', role: 'roles/bigquery.jobUser' },
      signal,
      (api, projectId, call) =>
        api.jobs.get({ projectId, jobId: checkJob(id), location: checkLocation(location) }, call),
    );

  return {
    dataset: options.dataset,
    project: projectOf,
    getTable,
    getJob,

    getDataset: (dataset, signal) =>
      send({ resource: 'dataset', permission: 'bigquery.datasets.get', role: VIEWER }, signal, (api, projectId, call) =>
        api.datasets.get({ projectId, datasetId: checkDataset(dataset), datasetView: 'METADATA' }, call),
      ),

    async listDatasets(token, signal) {
      const answer = await send(
        { resource: 'project', permission: 'bigquery.datasets.get', role: VIEWER },
        signal,
        (api, projectId, call) =>
          api.datasets.list({ projectId, maxResults: 500, ...(token === undefined ? {} : { pageToken: token }) }, call),
      );
      const items = (answer.datasets ?? []).flatMap(({ datasetReference }) => datasetReference?.datasetId ?? []);
      return { items, next: answer.nextPageToken || undefined };
    },

    updateDataset: (settings, etag, signal) =>
      send(
        { resource: 'dataset', permission: 'bigquery.datasets.update', role: OWNER, write: true },
        signal,
        (api, projectId, call) =>
          api.datasets.patch(
            {
              projectId,
              datasetId: checkDataset(options.dataset),
              updateMode: 'UPDATE_METADATA',
              requestBody: Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined)),
            },
            { ...call, headers: { 'If-Match': etag } },
          ),
      ),

    async listTables(dataset, { limit, token }, signal) {
      const answer = await send(
        { resource: 'dataset', permission: 'bigquery.tables.list', role: VIEWER },
        signal,
        (api, projectId, call) =>
          api.tables.list(
            {
              projectId,
              datasetId: checkDataset(dataset),
              maxResults: limit,
              ...(token === undefined ? {} : { pageToken: token }),
            },
            call,
          ),
      );
      return { items: answer.tables ?? [], next: answer.nextPageToken || undefined };
    },

    async lookUp(name, signal) {
      try {
        return { state: 'exists', table: await getTable(name, signal) };
      } catch (cause) {
        if (provesAbsence(cause)) return { state: 'missing' };
        if (
          cause instanceof HoldfastError &&
          (cause.code === 'INSUFFICIENT_PERMISSIONS' || cause.code === 'RESOURCE_NOT_FOUND')
        ) {
          return { state: 'unknown', error: cause };
        }
        throw cause;
      }
    },

    async copy(job, signal) {
      const { id, operation, source, at, destination, replaces, expires } = job;
      const location = checkLocation(job.location);
      const addressed = { resource: 'table', permission: NEEDED[operation], role: EDITOR, write: true } as const;
      try {
        return await send(addressed, signal, (api, projectId, call) => {
          const from = address(source);
          // Only here is a decorator ever added, and always as an absolute moment.
          const tableId = at === undefined ? from.tableId : `${from.tableId}@${at.getTime()}`;
          return api.jobs.insert(
            {
              projectId,
              requestBody: {
                jobReference: { projectId, jobId: checkJob(id), location },
                configuration: {
                  labels: { holdfast: operation.toLowerCase() },
                  copy: {
                    sourceTable: { projectId, ...from, tableId },
                    destinationTable: { projectId, ...address(destination) },
                    operationType: operation,
                    createDisposition: 'CREATE_IF_NEEDED',
                    writeDisposition: replaces ? 'WRITE_TRUNCATE' : 'WRITE_EMPTY',
                    ...(expires === undefined ? {} : { destinationExpirationTime: expires.toISOString() }),
                  },
                },
              },
            },
            call,
          );
        });
      } catch (cause) {
        if (!(cause instanceof HoldfastError) || cause.code !== 'RESOURCE_EXISTS') throw cause;
        const known = await getJob(id, location, signal).catch(() => undefined);
        const { copy } = known?.configuration ?? {};
        const target = referenceOf(copy?.destinationTable);
        if (known === undefined || target === undefined || !isSame(target, destination)) throw cause;
        if (copy?.operationType !== operation) throw cause;
        return known;
      }
    },

    async deleteSnapshot(name, created, signal) {
      const table = await getTable(name, signal, 'snapshot');
      if (!isSnapshot(table)) {
        throw new HoldfastError('INVALID_STATE', `this is a ${typeWord(table)}, no snapshot; nothing was deleted`, {
          retryable: false,
          hint: 'Holdfast deletes snapshots only.',
          details: { outcome: 'not_sent' },
        });
      }
      if (table.creationTime !== created) {
        throw new HoldfastError('INVALID_STATE', 'another snapshot has this name now; nothing was deleted', {
          retryable: false,
          hint: 'Make the call again for a new plan.',
          details: { outcome: 'not_sent' },
        });
      }
      const addressed = {
        resource: 'snapshot',
        permission: 'bigquery.tables.deleteSnapshot',
        role: OWNER,
        write: true,
      } as const;
      await send(addressed, signal, (api, projectId, call) => api.tables.delete({ projectId, ...address(name) }, call));
    },
  };
}
