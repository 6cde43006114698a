import type { sqladmin_v1 } from 'googleapis/build/src/apis/sqladmin/v1.js';
import { HoldfastError } from '../../core/errors.ts';
import type { Runtime } from '../../core/runtime.ts';
import { type GoogleAuthorizer, googleFetch, googleProjectFinder, googleTimeout } from '../google.ts';
import {
  type Addressed,
  type BackupRef,
  type BackupRun,
  checkInstance,
  checkProject,
  type Instance,
  type NamedBackup,
  type Operation,
  parseBackupId,
  parseOperationName,
  provesAbsence,
  type Settings,
  toCloudSqlError,
} from './map.ts';

/** What is known of an instance: a 403 proves nothing either way. */
export type Existence =
  | { state: 'exists'; instance: Instance }
  | { state: 'missing' }
  | { state: 'unknown'; error: HoldfastError };

export interface Page<T> {
  items: T[];
  next: string | undefined;
}

/** Typed calls of the Cloud SQL Admin API for one entity. Every name that comes from a caller is checked before it is sent. */
export interface CloudSqlClient {
  /** The instance that the entity is. */
  readonly instance: string;
  /** @throws {HoldfastError} CONFIG_INVALID when neither the entity nor its credentials name one */
  project(): Promise<string>;
  getInstance(instance: string, signal: AbortSignal): Promise<Instance>;
  /** All of the project, page by page. */
  listInstances(token: string | undefined, signal: AbortSignal): Promise<Page<Instance>>;
  lookUp(instance: string, signal: AbortSignal): Promise<Existence>;
  recoveryWindow(
    instance: string,
    signal: AbortSignal,
  ): Promise<{ earliest: string | undefined; latest: string | undefined }>;
  databases(instance: string, signal: AbortSignal): Promise<string[]>;
  users(instance: string, signal: AbortSignal): Promise<string[]>;
  /** Newest first. */
  listRuns(
    instance: string,
    page: { limit: number; token?: string | undefined },
    signal: AbortSignal,
  ): Promise<Page<BackupRun>>;
  getRun(instance: string, id: string, signal: AbortSignal): Promise<BackupRun>;
  createRun(instance: string, description: string, signal: AbortSignal): Promise<Operation>;
  listNamed(
    instance: string,
    page: { limit: number; token?: string | undefined },
    signal: AbortSignal,
  ): Promise<Page<NamedBackup>>;
  getNamed(name: string, signal: AbortSignal): Promise<NamedBackup>;
  /** Takes a backup of the project, which ends by itself after `ttlDays`. */
  createNamed(
    instance: string,
    backup: { description: string; ttlDays: number },
    signal: AbortSignal,
  ): Promise<Operation>;
  /** Changes what is given; Cloud SQL takes that for final backups only. */
  updateNamed(
    name: string,
    backup: { description?: string | undefined; expiryTime?: string | undefined },
    signal: AbortSignal,
  ): Promise<Operation>;
  deleteBackup(ref: BackupRef, signal: AbortSignal): Promise<Operation>;
  restore(
    target: string,
    backup: { runId: string; instance: string } | { name: string },
    signal: AbortSignal,
  ): Promise<Operation>;
  clone(source: string, target: string, at: string, signal: AbortSignal): Promise<Operation>;
  /**
   * Merges these settings into the instance's, unless their `settingsVersion` is old.
   * @throws {HoldfastError} PLAN_CHANGED when it is: nothing was changed
   */
  updateSettings(instance: string, settings: Settings, signal: AbortSignal): Promise<Operation>;
  getOperation(name: string, signal: AbortSignal): Promise<Operation>;
  /** Newest first, the newest page only. */
  listOperations(instance: string, signal: AbortSignal): Promise<Operation[]>;
}

interface Options {
  instance: string;
  project: string | undefined;
  origin: string;
  authorizer: GoogleAuthorizer;
  runtime: Runtime;
}

const VIEWER = 'roles/cloudsql.viewer';
const EDITOR = 'roles/cloudsql.editor';
const ADMIN = 'roles/cloudsql.admin (or a custom role)';

/** Loads the Cloud SQL client alone, never the whole of googleapis, and makes the typed calls; sends nothing. */
export async function createCloudSqlClient(options: Options): Promise<CloudSqlClient> {
  const { sqladmin_v1: library } = await import('googleapis/build/src/apis/sqladmin/v1.js');
  const { authorizer, runtime } = options;
  const projectOf = googleProjectFinder(authorizer, options.project, checkProject);

  type Send<T> = (
    api: sqladmin_v1.Sqladmin,
    project: string,
    call: { retry: false; timeout: number; signal: AbortSignal },
  ) => PromiseLike<{ data: T }>;

  const send = async <T>(addressed: Addressed, signal: AbortSignal, request: Send<T>): Promise<T> => {
    // A token is had first, so that a refusal by the token host is never taken for one by the API.
    const { auth } = await authorizer.ready();
    const api = new library.Sqladmin({
      rootUrl: `${options.origin}/`,
      auth,
      fetchImplementation: googleFetch(runtime),
    });
    const timeout = googleTimeout(addressed.write === true);
    try {
      const { data } = await request(api, await projectOf(), { retry: false, timeout, signal });
      return data;
    } catch (cause) {
      throw toCloudSqlError(cause, addressed);
    }
  };

  const own = (instance: string, parameter = 'instance'): string => checkInstance(instance, parameter);

  const getInstance: CloudSqlClient['getInstance'] = (instance, signal) =>
    send({ resource: 'instance', permission: 'cloudsql.instances.get', role: VIEWER }, signal, (api, projectId, call) =>
      api.instances.get({ project: projectId, instance: own(instance) }, call),
    );

  return {
    instance: options.instance,
    project: projectOf,
    getInstance,

    async listInstances(token, signal) {
      const answer = await send(
        { resource: 'project', permission: 'cloudsql.instances.list', role: VIEWER },
        signal,
        (api, projectId, call) =>
          api.instances.list(
            { project: projectId, maxResults: 500, ...(token === undefined ? {} : { pageToken: token }) },
            call,
          ),
      );
      return { items: answer.items ?? [], next: answer.nextPageToken || undefined };
    },

    async lookUp(instance, signal) {
      try {
        return { state: 'exists', instance: await getInstance(instance, signal) };
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

    async recoveryWindow(instance, signal) {
      const answer = await send(
        { resource: 'instance', permission: 'cloudsql.instances.get', role: VIEWER },
        signal,
        (api, projectId, call) =>
          api.projects.instances.getLatestRecoveryTime({ project: projectId, instance: own(instance) }, call),
      );
      return {
        earliest: answer.earliestRecoveryTime ?? undefined,
        latest: answer.latestRecoveryTime ?? undefined,
      };
    },

    async databases(instance, signal) {
      const answer = await send(
        { resource: 'instance', permission: 'cloudsql.databases.list', role: VIEWER },
        signal,
        (api, projectId, call) => api.databases.list({ project: projectId, instance: own(instance) }, call),
      );
      return (answer.items ?? []).map((database) => database.name ?? '').filter((name) => name !== '');
    },

    async users(instance, signal) {
      const answer = await send(
        { resource: 'instance', permission: 'cloudsql.users.list', role: VIEWER },
        signal,
        (api, projectId, call) => api.users.list({ project: projectId, instance: own(instance) }, call),
      );
      return (answer.items ?? []).map((user) => user.name ?? '').filter((name) => name !== '');
    },

    async listRuns(instance, { limit, token }, signal) {
      const answer = await send(
        { resource: 'instance', permission: 'cloudsql.backupRuns.list', role: VIEWER },
        signal,
        (api, projectId, call) =>
          api.backupRuns.list(
            {
              project: projectId,
              instance: own(instance),
              maxResults: limit,
              ...(token === undefined ? {} : { pageToken: token }),
            },
            call,
          ),
      );
      return { items: answer.items ?? [], next: answer.nextPageToken || undefined };
    },

    getRun: (instance, id, signal) =>
      send(
        { resource: 'backup', permission: 'cloudsql.backupRuns.get', role: VIEWER },
        signal,
        (api, projectId, call) =>
          api.backupRuns.get({ project: projectId, instance: own(instance), id: runId(id) }, call),
      ),

    createRun: (instance, description, signal) =>
      send(
        { resource: 'instance', permission: 'cloudsql.backupRuns.create', role: EDITOR, write: true },
        signal,
        (api, projectId, call) =>
          api.backupRuns.insert({ project: projectId, instance: own(instance), requestBody: { description } }, call),
      ),

    async listNamed(instance, { limit, token }, signal) {
      const answer = await send(
        { resource: 'project', permission: 'cloudsql.backupRuns.list', role: VIEWER },
        signal,
        (api, projectId, call) =>
          api.Backups.ListBackups(
            {
              parent: `projects/${projectId}`,
              filter: `instance:${own(instance)}`,
              pageSize: limit,
              ...(token === undefined ? {} : { pageToken: token }),
            },
            call,
          ),
      );
      return { items: answer.backups ?? [], next: answer.nextPageToken || undefined };
    },

    getNamed: (name, signal) =>
      send(
        { resource: 'backup', permission: 'cloudsql.backupRuns.get', role: VIEWER },
        signal,
        (api, _projectId, call) => api.Backups.GetBackup({ name: backupName(name) }, call),
      ),

    createNamed: (instance, { description, ttlDays }, signal) =>
      send(
        { resource: 'instance', permission: 'cloudsql.backupRuns.create', role: EDITOR, write: true },
        signal,
        (api, projectId, call) =>
          api.Backups.CreateBackup(
            {
              parent: `projects/${projectId}`,
              // An int64 travels as text.
              requestBody: { instance: own(instance), description, ttlDays: String(ttlDays) },
            },
            call,
          ),
      ),

    updateNamed: (name, backup, signal) =>
      send(
        { resource: 'backup', permission: 'cloudsql.backupRuns.update', role: ADMIN, write: true },
        signal,
        (api, _projectId, call) => {
          const given = Object.entries(backup).filter(([, value]) => value !== undefined);
          return api.Backups.UpdateBackup(
            {
              name: backupName(name),
              updateMask: given.map(([field]) => field).join(','),
              requestBody: Object.fromEntries(given),
            },
            call,
          );
        },
      ),

    deleteBackup: (ref, signal) =>
      send(
        { resource: 'backup', permission: 'cloudsql.backupRuns.delete', role: ADMIN, write: true },
        signal,
        (api, projectId, call) =>
          ref.kind === 'run'
            ? api.backupRuns.delete({ project: projectId, instance: options.instance, id: runId(ref.id) }, call)
            : api.Backups.DeleteBackup({ name: backupName(ref.name) }, call),
      ),

    restore: (target, backup, signal) =>
      send(
        { resource: 'instance', permission: 'cloudsql.instances.restoreBackup', role: ADMIN, write: true },
        signal,
        (api, projectId, call) =>
          api.instances.restoreBackup(
            {
              project: projectId,
              instance: own(target, 'target_instance'),
              requestBody:
                'name' in backup
                  ? { backup: backupName(backup.name) }
                  : {
                      restoreBackupContext: {
                        backupRunId: runId(backup.runId),
                        instanceId: own(backup.instance, 'source_instance'),
                        project: projectId,
                      },
                    },
            },
            call,
          ),
      ),

    clone: (source, target, at, signal) =>
      send(
        { resource: 'instance', permission: 'cloudsql.instances.clone', role: ADMIN, write: true },
        signal,
        (api, projectId, call) =>
          api.instances.clone(
            {
              project: projectId,
              instance: own(source),
              requestBody: {
                cloneContext: { destinationInstanceName: own(target, 'target_instance'), pointInTime: at },
              },
            },
            call,
          ),
      ),

    updateSettings: (instance, settings, signal) =>
      send(
        { resource: 'instance', permission: 'cloudsql.instances.update', role: EDITOR, write: true },
        signal,
        (api, projectId, call) =>
          api.instances.patch({ project: projectId, instance: own(instance), requestBody: { settings } }, call),
      ),

    getOperation: (name, signal) =>
      send(
        { resource: 'operation', permission: 'cloudsql.instances.get', role: VIEWER },
        signal,
        (api, projectId, call) => api.operations.get({ project: projectId, operation: parseOperationName(name) }, call),
      ),

    async listOperations(instance, signal) {
      const answer = await send(
        { resource: 'instance', permission: 'cloudsql.instances.get', role: VIEWER },
        signal,
        (api, projectId, call) =>
          api.operations.list({ project: projectId, instance: own(instance), maxResults: 50 }, call),
      );
      return answer.items ?? [];
    },
  };
}

// The client library sends an empty or stretched name as it is, to another resource: every one is read again here.
function runId(text: string): string {
  const ref = parseBackupId(text);
  if (ref.kind === 'run') return ref.id;
  throw new HoldfastError('INVALID_PARAMETER', 'the id of a backup run has digits only');
}

function backupName(text: string): string {
  const ref = parseBackupId(text);
  if (ref.kind === 'named') return ref.name;
  throw new HoldfastError('INVALID_PARAMETER', 'the name of a backup is projects/PROJECT/backups/UID');
}
