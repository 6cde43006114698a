import type { firestore_v1 } from 'googleapis/build/src/apis/firestore/v1.js';
import { HoldfastError } from '../../core/errors.ts';
import { isObject } from '../../core/json.ts';
import type { Runtime } from '../../core/runtime.ts';
import { type GoogleAuthorizer, googleFetch, googleProjectFinder, googleTimeout } from '../google.ts';
import {
  type Addressed,
  type Backup,
  checkBackupName,
  checkCollections,
  checkDatabase,
  checkLocation,
  checkOperationName,
  checkProject,
  checkScheduleName,
  checkUri,
  count,
  type Database,
  type Operation,
  provesAbsence,
  type Schedule,
  toFirestoreError,
} from './map.ts';

/** What is known of a database: a 403 proves nothing either way. */
export type Existence =
  | { state: 'exists'; database: Database }
  | { state: 'missing' }
  | { state: 'unknown'; error: HoldfastError };

export interface ExportRequest {
  readonly uri: string;
  readonly collections: readonly string[] | undefined;
  /** A whole minute: without one an export is no consistent copy. */
  readonly snapshotTime: string;
}

export interface DatabaseSettings {
  readonly etag: string | null | undefined;
  readonly pointInTimeRecoveryEnablement: string | undefined;
  readonly deleteProtectionState: string | undefined;
}

/** Typed calls of the Firestore Admin API for one entity. Every name that comes from a caller is checked before it is sent. */
export interface FirestoreClient {
  /** The id of the database that the entity is. */
  readonly database: string;
  /** @throws {HoldfastError} CONFIG_INVALID when neither the entity nor its credentials name one */
  project(): Promise<string>;
  getDatabase(id: string, signal: AbortSignal): Promise<Database>;
  /** All of the project; `unreachable`: locations whose databases could not be read. */
  listDatabases(signal: AbortSignal): Promise<{ databases: Database[]; unreachable: string[] }>;
  lookUp(id: string, signal: AbortSignal): Promise<Existence>;
  /** `unreachable`: locations whose backups could not be read. */
  listBackups(
    where: { location: string; databaseUid?: string | undefined },
    signal: AbortSignal,
  ): Promise<{ backups: Backup[]; unreachable: string[] }>;
  getBackup(name: string, signal: AbortSignal): Promise<Backup>;
  deleteBackup(name: string, signal: AbortSignal): Promise<void>;
  listSchedules(signal: AbortSignal): Promise<Schedule[]>;
  getSchedule(name: string, signal: AbortSignal): Promise<Schedule>;
  createSchedule(body: { retention: string; day: string | undefined }, signal: AbortSignal): Promise<Schedule>;
  updateSchedule(name: string, retention: string, signal: AbortSignal): Promise<Schedule>;
  deleteSchedule(name: string, signal: AbortSignal): Promise<void>;
  /**
   * Changes the settings that are given, unless the etag is old.
   * @throws {HoldfastError} PLAN_CHANGED when it is: nothing was changed
   */
  updateDatabase(settings: DatabaseSettings, signal: AbortSignal): Promise<Operation>;
  exportDocuments(request: ExportRequest, signal: AbortSignal): Promise<Operation>;
  importDocuments(uri: string, collections: readonly string[] | undefined, signal: AbortSignal): Promise<Operation>;
  restore(target: string, backup: string, signal: AbortSignal): Promise<Operation>;
  /** Makes a new database of what the entity's held at a whole minute. */
  clone(target: string, snapshotTime: string, signal: AbortSignal): Promise<Operation>;
  getOperation(name: string, signal: AbortSignal): Promise<Operation>;
  /** All that are still listed, at most 2,000. */
  listOperations(database: string, signal: AbortSignal): Promise<Operation[]>;
  /** Names of the collections at the top; needs leave to read data. */
  collections(signal: AbortSignal): Promise<string[]>;
  /** How many documents the collection group has now; needs leave to read data. */
  countDocuments(collection: string, signal: AbortSignal): Promise<number | undefined>;
}

interface Options {
  database: string;
  project: string | undefined;
  origin: string;
  authorizer: GoogleAuthorizer;
  runtime: Runtime;
}

const VIEWER = 'roles/datastore.viewer';
const BACKUPS_VIEWER = 'roles/datastore.backupsViewer';
const BACKUPS_ADMIN = 'roles/datastore.backupsAdmin';
const SCHEDULES_VIEWER = 'roles/datastore.backupSchedulesViewer';
const SCHEDULES_ADMIN = 'roles/datastore.backupSchedulesAdmin';
const MOVER = 'roles/datastore.importExportAdmin';

const OPERATION_PAGES = 20;

const METADATA = { resource: 'database', permission: 'datastore.databases.getMetadata', role: VIEWER } as const;
const DATA = { resource: 'database', permission: 'datastore.entities.list', role: VIEWER } as const;

/** Loads the Firestore client alone, never the whole of googleapis, and makes the typed calls; sends nothing. */
export async function createFirestoreClient(options: Options): Promise<FirestoreClient> {
  const { firestore_v1: library } = await import('googleapis/build/src/apis/firestore/v1.js');
  const { authorizer, runtime } = options;
  const own = checkDatabase(options.database);
  const projectOf = googleProjectFinder(authorizer, options.project, checkProject);

  type Send<T> = (
    api: firestore_v1.Firestore,
    parent: string,
    call: { retry: false; timeout: number; signal: AbortSignal },
  ) => PromiseLike<{ data: T }>;

  // Queries travel as POST and change nothing.
  const fetchImplementation = googleFetch(runtime, ({ pathname }) =>
    /\/documents:(?:listCollectionIds|runAggregationQuery)$/.test(pathname),
  );

  const send = async <T>(addressed: Addressed, signal: AbortSignal, request: Send<T>): Promise<T> => {
    // A token is had first, so that a refusal by the token host is never taken for one by the API.
    const { auth } = await authorizer.ready();
    const api = new library.Firestore({ rootUrl: `${options.origin}/`, auth, fetchImplementation });
    const timeout = googleTimeout(addressed.write === true);
    const parent = `projects/${await projectOf()}`;
    try {
      const { data } = await request(api, parent, { retry: false, timeout, signal });
      return data;
    } catch (cause) {
      throw toFirestoreError(cause, addressed);
    }
  };

  const getDatabase: FirestoreClient['getDatabase'] = (id, signal) =>
    send(METADATA, signal, (api, parent, call) =>
      api.projects.databases.get({ name: `${parent}/databases/${checkDatabase(id)}` }, call),
    );

  return {
    database: own,
    project: projectOf,
    getDatabase,

    async listDatabases(signal) {
      const answer = await send(
        { resource: 'project', permission: 'datastore.databases.list', role: VIEWER },
        signal,
        (api, parent, call) => api.projects.databases.list({ parent }, call),
      );
      return { databases: answer.databases ?? [], unreachable: answer.unreachable ?? [] };
    },

    async lookUp(id, signal) {
      try {
        return { state: 'exists', database: await getDatabase(id, signal) };
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

    async listBackups({ location, databaseUid }, signal) {
      const answer = await send(
        { resource: 'project', permission: 'datastore.backups.list', role: BACKUPS_VIEWER },
        signal,
        (api, parent, call) =>
          api.projects.locations.backups.list(
            {
              parent: `${parent}/locations/${checkLocation(location)}`,
              ...(databaseUid === undefined ? {} : { filter: `database_uid="${uid(databaseUid)}"` }),
            },
            call,
          ),
      );
      return { backups: answer.backups ?? [], unreachable: answer.unreachable ?? [] };
    },

    getBackup: async (name, signal) => {
      const checked = checkBackupName(name, await projectOf());
      return send(
        { resource: 'backup', permission: 'datastore.backups.get', role: BACKUPS_VIEWER },
        signal,
        (api, _parent, call) => api.projects.locations.backups.get({ name: checked }, call),
      );
    },

    deleteBackup: async (name, signal) => {
      const checked = checkBackupName(name, await projectOf());
      await send(
        { resource: 'backup', permission: 'datastore.backups.delete', role: BACKUPS_ADMIN, write: true },
        signal,
        (api, _parent, call) => api.projects.locations.backups.delete({ name: checked }, call),
      );
    },

    async listSchedules(signal) {
      const answer = await send(
        { resource: 'database', permission: 'datastore.backupSchedules.list', role: SCHEDULES_VIEWER },
        signal,
        (api, parent, call) =>
          api.projects.databases.backupSchedules.list({ parent: `${parent}/databases/${own}` }, call),
      );
      return answer.backupSchedules ?? [];
    },

    getSchedule: async (name, signal) => {
      const checked = checkScheduleName(name, `projects/${await projectOf()}/databases/${own}`);
      return send(
        { resource: 'schedule', permission: 'datastore.backupSchedules.get', role: SCHEDULES_VIEWER },
        signal,
        (api, _parent, call) => api.projects.databases.backupSchedules.get({ name: checked }, call),
      );
    },

    createSchedule: ({ retention, day }, signal) =>
      send(
        { resource: 'schedule', permission: 'datastore.backupSchedules.create', role: SCHEDULES_ADMIN, write: true },
        signal,
        (api, parent, call) =>
          api.projects.databases.backupSchedules.create(
            {
              parent: `${parent}/databases/${own}`,
              requestBody: {
                retention,
                ...(day === undefined ? { dailyRecurrence: {} } : { weeklyRecurrence: { day } }),
              },
            },
            call,
          ),
      ),

    updateSchedule: async (name, retention, signal) => {
      const checked = checkScheduleName(name, `projects/${await projectOf()}/databases/${own}`);
      return send(
        { resource: 'schedule', permission: 'datastore.backupSchedules.update', role: SCHEDULES_ADMIN, write: true },
        signal,
        (api, _parent, call) =>
          api.projects.databases.backupSchedules.patch(
            { name: checked, updateMask: 'retention', requestBody: { retention } },
            call,
          ),
      );
    },

    deleteSchedule: async (name, signal) => {
      const checked = checkScheduleName(name, `projects/${await projectOf()}/databases/${own}`);
      await send(
        { resource: 'schedule', permission: 'datastore.backupSchedules.delete', role: SCHEDULES_ADMIN, write: true },
        signal,
        (api, _parent, call) => api.projects.databases.backupSchedules.delete({ name: checked }, call),
      );
    },

    updateDatabase: ({ etag, ...settings }, signal) =>
      send(
        { resource: 'database', permission: 'datastore.databases.update', role: 'a custom role', write: true },
        signal,
        (api, parent, call) => {
          const given = Object.entries(settings).filter(([, value]) => value !== undefined);
          const name = `${parent}/databases/${own}`;
          return api.projects.databases.patch(
            {
              name,
              updateMask: given.map(([field]) => field).join(','),
              requestBody: { name, ...(etag ? { etag } : {}), ...Object.fromEntries(given) },
            },
            call,
          );
        },
      ),

    exportDocuments: ({ uri, collections, snapshotTime }, signal) =>
      send(
        { resource: 'database', permission: 'datastore.databases.export', role: MOVER, write: true },
        signal,
        (api, parent, call) =>
          api.projects.databases.exportDocuments(
            {
              name: `${parent}/databases/${own}`,
              requestBody: {
                outputUriPrefix: checkUri(uri, 'output_uri_prefix'),
                snapshotTime,
                ...filtered(collections),
              },
            },
            call,
          ),
      ),

    importDocuments: (uri, collections, signal) =>
      send(
        { resource: 'database', permission: 'datastore.databases.import', role: MOVER, write: true },
        signal,
        (api, parent, call) =>
          api.projects.databases.importDocuments(
            {
              name: `${parent}/databases/${own}`,
              requestBody: { inputUriPrefix: checkUri(uri, 'input_uri_prefix'), ...filtered(collections) },
            },
            call,
          ),
      ),

    restore: async (target, backup, signal) => {
      const checked = checkBackupName(backup, await projectOf());
      return send(
        {
          resource: 'database',
          permission: 'datastore.backups.restoreDatabase and datastore.databases.create',
          role: 'roles/datastore.restoreAdmin',
          write: true,
          fromBackup: true,
        },
        signal,
        (api, parent, call) =>
          api.projects.databases.restore(
            { parent, requestBody: { databaseId: checkDatabase(target, 'target_database'), backup: checked } },
            call,
          ),
      );
    },

    clone: (target, snapshotTime, signal) =>
      send(
        {
          resource: 'database',
          permission: 'datastore.databases.clone and datastore.databases.create',
          role: 'roles/datastore.cloneAdmin',
          write: true,
        },
        signal,
        (api, parent, call) =>
          api.projects.databases.clone(
            {
              parent,
              requestBody: {
                databaseId: checkDatabase(target, 'target_database'),
                pitrSnapshot: { database: `${parent}/databases/${own}`, snapshotTime },
              },
            },
            call,
          ),
      ),

    getOperation: async (name, signal) => {
      const checked = checkOperationName(name, await projectOf());
      return send(
        { resource: 'operation', permission: 'datastore.operations.get', role: VIEWER },
        signal,
        (api, _parent, call) => api.projects.databases.operations.get({ name: checked.name }, call),
      );
    },

    async listOperations(database, signal) {
      const found: Operation[] = [];
      let token: string | undefined;
      for (let page = 0; page < OPERATION_PAGES; page += 1) {
        const answer = await send(
          { resource: 'database', permission: 'datastore.operations.list', role: VIEWER },
          signal,
          (api, parent, call) =>
            api.projects.databases.operations.list(
              {
                name: `${parent}/databases/${checkDatabase(database)}`,
                pageSize: 100,
                ...(token === undefined ? {} : { pageToken: token }),
              },
              call,
            ),
        );
        found.push(...(answer.operations ?? []));
        token = answer.nextPageToken || undefined;
        if (token === undefined) break;
      }
      return found;
    },

    async collections(signal) {
      const answer = await send(DATA, signal, (api, parent, call) =>
        api.projects.databases.documents.listCollectionIds(
          { parent: `${parent}/databases/${own}/documents`, requestBody: { pageSize: 100 } },
          call,
        ),
      );
      return answer.collectionIds ?? [];
    },

    async countDocuments(collection, signal) {
      const [collectionId] = checkCollections([collection]) as [string];
      const answer: unknown = await send(DATA, signal, (api, parent, call) =>
        api.projects.databases.documents.runAggregationQuery(
          {
            parent: `${parent}/databases/${own}/documents`,
            requestBody: {
              structuredAggregationQuery: {
                structuredQuery: { from: [{ collectionId, allDescendants: true }] },
                aggregations: [{ alias: 'documents', count: {} }],
              },
            },
          },
          call,
        ),
      );
      // The method streams: over HTTP its answers come as a list.
      for (const part of Array.isArray(answer) ? answer : [answer]) {
        const result: unknown = isObject(part) ? part['result'] : undefined;
        const fields: unknown = isObject(result) ? result['aggregateFields'] : undefined;
        const value: unknown = isObject(fields) ? fields['documents'] : undefined;
        const number = isObject(value) ? count(value['integerValue']) : undefined;
        if (number !== undefined) return number;
      }
      return undefined;
    },
  };
}

function filtered(collections: readonly string[] | undefined): { collectionIds?: string[] } {
  const checked = checkCollections(collections);
  return checked === undefined ? {} : { collectionIds: checked };
}

// The uid stands in a filter: what is none must not become another filter.
function uid(text: string): string {
  if (/^[A-Za-z0-9-]{1,64}$/.test(text)) return text;
  throw new HoldfastError('PROVIDER_UNAVAILABLE', 'Firestore gave a database without a usable uid');
}
