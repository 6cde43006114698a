import type { firestore_v1 } from 'googleapis/build/src/apis/firestore/v1.js';
import { type ErrorCode, HoldfastError, isAbort } from '../../core/errors.ts';
import { isObject, type JsonObject } from '../../core/json.ts';
import type { JobStatus, RecoveryPoint } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { findHoldfastError, slim } from '../causes.ts';
import { permissionDetails, readGoogleFailure } from '../google.ts';

export type Database = firestore_v1.Schema$GoogleFirestoreAdminV1Database;
export type Backup = firestore_v1.Schema$GoogleFirestoreAdminV1Backup;
export type Schedule = firestore_v1.Schema$GoogleFirestoreAdminV1BackupSchedule;
export type Operation = firestore_v1.Schema$GoogleLongrunningOperation;

// --- names ---------------------------------------------------------------------------------------------------------
// The client library lets a name with more segments through to another resource: every name is held to its pattern.

const PROJECT_PATTERN = /^(?:[a-z][a-z0-9.-]{0,80}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$/;
const UUID_LIKE = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const LOCATION_PATTERN = /^[a-z][a-z0-9-]{0,62}$/;
const BACKUP_PATTERN =
  /^projects\/([^/]+)\/locations\/([a-z][a-z0-9-]{0,62})\/backups\/[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/;
const SCHEDULE_PATTERN = /^projects\/([^/]+)\/databases\/([^/]+)\/backupSchedules\/([A-Za-z0-9][A-Za-z0-9_-]{0,127})$/;
const OPERATION_PATTERN = /^projects\/([^/]+)\/databases\/([^/]+)\/operations\/[A-Za-z0-9_][A-Za-z0-9_=+~.-]{0,254}$/;
export const DATABASE_PATTERN = /^(?:\(default\)|[a-z][a-z0-9-]{2,61}[a-z0-9])$/;
/** A bucket, or a folder in it; no trailing slash. */
export const URI_PATTERN =
  /^gs:\/\/[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](?:\/(?!\.{1,2}(?:\/|$))[^\s/?#*[\]\u0000-\u001f\u007f]+)*$/;

function invalid(message: string, hint: string): HoldfastError {
  return new HoldfastError('INVALID_PARAMETER', message, { hint });
}

/** @throws {HoldfastError} CONFIG_INVALID */
export function checkProject(project: string): string {
  if (PROJECT_PATTERN.test(project)) return project;
  throw new HoldfastError('CONFIG_INVALID', `'${cleanText(project, 60)}' is not a Google Cloud project id`);
}

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkDatabase(id: string, parameter = 'database_id'): string {
  if (DATABASE_PATTERN.test(id) && !UUID_LIKE.test(id)) return id;
  throw invalid(
    `${parameter} '${cleanText(id, 70)}' is not a database id`,
    'A database id is (default), or has 4 to 63 lower-case letters, digits and hyphens, begins with a letter and is no UUID.',
  );
}

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkLocation(location: string): string {
  if (location === '-' || LOCATION_PATTERN.test(location)) return location;
  throw invalid(
    `location '${cleanText(location, 70)}' is not a location`,
    'Give one such as us-central1, or leave it out.',
  );
}

/** @throws {HoldfastError} INVALID_PARAMETER for anything but a backup of this project */
export function checkBackupName(name: string, project: string): string {
  if (BACKUP_PATTERN.exec(name)?.[1] === project) return name;
  throw invalid(
    `backup_name '${cleanText(name, 160)}' is not a backup of the project`,
    `Give projects/${project}/locations/LOCATION/backups/ID, as list-snapshots shows it.`,
  );
}

/** Reads a schedule's name, whole or its last part. @throws {HoldfastError} INVALID_PARAMETER for another database's */
export function checkScheduleName(text: string, parent: string): string {
  const name = text.includes('/') ? text : `${parent}/backupSchedules/${text}`;
  const found = SCHEDULE_PATTERN.exec(name);
  if (found !== null && name === `${parent}/backupSchedules/${found[3]}`) return name;
  throw invalid(
    `schedule_name '${cleanText(text, 160)}' is not a schedule of this database`,
    'Give a schedule_name as list-backup-schedules shows it; call on the entity that the schedule belongs to.',
  );
}

/** Reads an operation's name. @throws {HoldfastError} INVALID_PARAMETER for anything but one of this project */
export function checkOperationName(name: string, project: string): { name: string; database: string } {
  const found = OPERATION_PATTERN.exec(name);
  if (found?.[1] === project && DATABASE_PATTERN.test(found[2] as string)) {
    return { name, database: found[2] as string };
  }
  throw invalid(
    `operation_name '${cleanText(name, 160)}' is not an operation of the project`,
    `Give projects/${project}/databases/DATABASE/operations/ID, as restore answered.`,
  );
}

/** Reads where an export lies or goes; a trailing slash is dropped. @throws {HoldfastError} INVALID_PARAMETER */
export function checkUri(text: string, parameter: string): string {
  const uri = text.replace(/\/+$/, '');
  if (uri.length <= 1000 && URI_PATTERN.test(uri)) return uri;
  throw invalid(
    `${parameter} '${cleanText(text, 100)}' is not a place in Cloud Storage`,
    'Write gs://BUCKET or gs://BUCKET/FOLDER.',
  );
}

/** Tells whether a place is a folder or lies in it. */
export function isWithin(uri: string, folder: string | undefined): boolean {
  const root = folder?.replace(/\/+$/, '');
  return root !== undefined && (uri === root || uri.startsWith(`${root}/`));
}

/** Puts names of collection groups in order. @throws {HoldfastError} INVALID_PARAMETER */
export function checkCollections(ids: readonly string[] | undefined): string[] | undefined {
  if (ids === undefined) return undefined;
  const bad = ids.find(
    (id) => id === '' || id !== id.trim() || Buffer.byteLength(id) > 1500 || /^\.{1,2}$|\/|^__.*__$/.test(id),
  );
  if (bad !== undefined || ids.length === 0) {
    throw invalid(
      bad === undefined
        ? 'collection_ids is empty'
        : `collection_ids has '${cleanText(bad, 60)}', which is no collection`,
      'Name collection groups, such as users and orders; leave it out for all of them.',
    );
  }
  return [...new Set(ids)].sort();
}

/** The last part of a resource name. */
export function lastPart(name: string | null | undefined): string {
  return (name ?? '').split('/').at(-1) ?? '';
}

// --- values --------------------------------------------------------------------------------------------------------

/** Gives a provider's instant as RFC 3339 UTC; undefined for none and for one that cannot be read. */
export function instant(value: string | null | undefined): string | undefined {
  if (!value) return undefined;
  const date = new Date(value);
  return Number.isNaN(date.getTime()) ? undefined : date.toISOString();
}

function time<Name extends string>(name: Name, value: string | null | undefined): Partial<Record<Name, string>> {
  const text = instant(value);
  return (text === undefined ? {} : { [name]: text }) as Partial<Record<Name, string>>;
}

/** Reads an int64, which travels as text; one beyond 2^53 would lose digits as a number and is left out. */
export function count(value: unknown): number | undefined {
  const number = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : Number.NaN;
  return Number.isSafeInteger(number) ? number : undefined;
}

function counted<Name extends string>(name: Name, value: unknown): Partial<Record<Name, number>> {
  const number = count(value);
  return (number === undefined ? {} : { [name]: number }) as Partial<Record<Name, number>>;
}

/** Reads a duration such as `604800s` or `3600.500s` into whole seconds. */
export function seconds(value: string | null | undefined): number | undefined {
  const found = /^(\d+)(?:\.\d+)?s$/.exec(value ?? '');
  return found === null ? undefined : Number(found[1]);
}

// --- backups and schedules -----------------------------------------------------------------------------------------

const STATES: Record<string, string> = { READY: 'available', CREATING: 'creating', NOT_AVAILABLE: 'unavailable' };

/** Makes a recovery point of a backup. */
export function toPoint(backup: Backup, now: Date): RecoveryPoint {
  const expires = instant(backup.expireTime);
  const known = STATES[backup.state ?? ''] ?? 'unknown';
  const status =
    known === 'available' && expires !== undefined && Date.parse(expires) <= now.getTime() ? 'expired' : known;
  const location = /\/locations\/([^/]+)\//.exec(backup.name ?? '')?.[1];
  return {
    id: cleanText(backup.name, 300),
    // Only schedules take backups.
    kind: 'automated',
    status,
    restorable: status === 'available',
    ...time('created_at', backup.snapshotTime),
    ...time('data_at', backup.snapshotTime),
    ...time('expires_at', backup.expireTime),
    ...counted('size_bytes', backup.stats?.sizeBytes),
    // Firestore encrypts everything at rest, with Google's keys where no other is named.
    encrypted: true,
    ...(location === undefined ? {} : { location: cleanText(location, 60) }),
    provider: {
      database: cleanText(lastPart(backup.database), 70),
      database_uid: cleanText(backup.databaseUid, 60),
      ...counted('documents', backup.stats?.documentCount),
      ...counted('index_entries', backup.stats?.indexCount),
    },
  };
}

/** A backup schedule as every action shows it. */
export interface ScheduleView extends JsonObject {
  schedule_name: string;
  recurrence: string;
}

/** Shows a schedule; a recurrence that this release does not know is `unknown`. */
export function toSchedule(schedule: Schedule): ScheduleView {
  const kept = seconds(schedule.retention);
  const day = schedule.weeklyRecurrence?.day;
  return {
    schedule_name: cleanText(schedule.name, 300),
    recurrence: schedule.dailyRecurrence ? 'daily' : schedule.weeklyRecurrence ? 'weekly' : 'unknown',
    ...(day ? { day: cleanText(day, 20) } : {}),
    ...(kept === undefined ? {} : { retention_seconds: kept }),
    ...time('created_at', schedule.createTime),
    ...time('updated_at', schedule.updateTime),
  };
}

/** Tells whether point-in-time recovery keeps seven days; without it Firestore keeps one hour. */
export function hasPitr(database: Database): boolean {
  return database.pointInTimeRecoveryEnablement === 'POINT_IN_TIME_RECOVERY_ENABLED';
}

/** Tells whether the database cannot be deleted before that is switched off. */
export function isProtected(database: Database): boolean {
  return database.deleteProtectionState === 'DELETE_PROTECTION_ENABLED';
}

// --- operations ----------------------------------------------------------------------------------------------------

export type OperationKind = 'restore' | 'clone' | 'export' | 'import' | 'other';

const KINDS: Record<string, OperationKind> = {
  RestoreDatabaseMetadata: 'restore',
  CloneDatabaseMetadata: 'clone',
  ExportDocumentsMetadata: 'export',
  ImportDocumentsMetadata: 'import',
};

const RUNNING = new Set(['INITIALIZING', 'PROCESSING', 'CANCELLING', 'FINALIZING']);

/** What an operation's metadata says of it. */
export interface OperationView {
  readonly name: string;
  readonly kind: OperationKind;
  readonly status: JobStatus;
  readonly percent: number | undefined;
  readonly started_at: string | undefined;
  readonly ended_at: string | undefined;
  /** Full name of the new database of a restore or clone. */
  readonly database: string | undefined;
  readonly backup: string | undefined;
  readonly source: string | undefined;
  readonly snapshot_time: string | undefined;
  /** The place that was asked for. */
  readonly uri: string | undefined;
  /** Where a finished export lies: what an import is given. */
  readonly result_uri: string | undefined;
  readonly collection_ids: string[];
  readonly documents: number | undefined;
  readonly bytes: number | undefined;
  /** google.rpc.Code of a failure. */
  readonly error_code: number | undefined;
}

/** Reads an operation: finished only when `done`, failed only by `error`, whatever its state says. */
export function toOperation(operation: Operation): OperationView {
  const metadata = isObject(operation.metadata) ? operation.metadata : {};
  const response = isObject(operation.response) ? operation.response : {};
  const text = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined);
  const pitr = isObject(metadata['pitrSnapshot']) ? metadata['pitrSnapshot'] : {};
  const kind =
    KINDS[
      lastPart(text(metadata['@type']))
        .replace(/^.*\./, '')
        .replace(/^GoogleFirestoreAdminV1/, '')
    ] ?? 'other';
  const state = text(metadata['operationState']) ?? text(metadata['state']) ?? '';
  const error = operation.error?.code ?? undefined;
  const status: JobStatus =
    operation.done === true
      ? operation.error === undefined || operation.error === null
        ? 'succeeded'
        : error === 1
          ? 'cancelled'
          : 'failed'
      : RUNNING.has(state)
        ? 'running'
        : 'unknown';
  const ids = metadata['collectionIds'];
  return {
    name: operation.name ?? '',
    kind,
    status,
    percent: percentOf(metadata, status),
    started_at: instant(text(metadata['startTime'])),
    ended_at: instant(text(metadata['endTime'])),
    database: text(metadata['database']),
    backup: text(metadata['backup']),
    source: text(pitr['database']),
    snapshot_time: instant(text(metadata['snapshotTime']) ?? text(pitr['snapshotTime'])),
    uri:
      text(metadata['outputUriPrefix'])?.replace(/\/+$/, '') ?? text(metadata['inputUriPrefix'])?.replace(/\/+$/, ''),
    result_uri: text(response['outputUriPrefix'])?.replace(/\/+$/, ''),
    collection_ids: Array.isArray(ids) ? ids.map(String).sort() : [],
    documents: worked(metadata['progressDocuments']),
    bytes: worked(metadata['progressBytes']),
    error_code: operation.error === undefined || operation.error === null ? undefined : (error ?? 2),
  };
}

function worked(progress: unknown): number | undefined {
  return isObject(progress) ? count(progress['completedWork']) : undefined;
}

// The estimate may be 0 and may grow: nothing is at 100 % before it is done.
function percentOf(metadata: Record<string, unknown>, status: JobStatus): number | undefined {
  if (status === 'succeeded') return 100;
  const progress = metadata['progressPercentage'] ?? metadata['progressDocuments'];
  if (!isObject(progress)) return undefined;
  const [done, all] = [count(progress['completedWork']), count(progress['estimatedWork'])];
  return done === undefined || all === undefined || all === 0
    ? undefined
    : Math.min(99, Math.floor((done / all) * 100));
}

const RPC: Record<number, ErrorCode> = {
  1: 'CANCELLED',
  3: 'INVALID_PARAMETER',
  4: 'PROVIDER_UNAVAILABLE',
  5: 'RESOURCE_NOT_FOUND',
  6: 'RESOURCE_EXISTS',
  7: 'INSUFFICIENT_PERMISSIONS',
  8: 'QUOTA_EXCEEDED',
  9: 'INVALID_STATE',
  10: 'INVALID_STATE',
  11: 'INVALID_PARAMETER',
  12: 'NOT_SUPPORTED',
  16: 'AUTHENTICATION_FAILED',
};

/** Says what an operation that failed at Firestore means. */
export function operationError(operation: OperationView, what: string, project: string): HoldfastError {
  const { error_code, kind } = operation;
  const code = RPC[error_code ?? 2] ?? 'PROVIDER_UNAVAILABLE';
  const moves = kind === 'export' || kind === 'import';
  if (code === 'CANCELLED') {
    return new HoldfastError('CANCELLED', `${what} was cancelled at Firestore`, {
      hint:
        kind === 'import'
          ? 'Part of the documents has been imported. Look at the database before anything else.'
          : moves
            ? 'What it has written so far is no complete export. Remove it and export again.'
            : 'Nothing else was changed.',
      details: { operation_name: cleanText(operation.name, 300) },
    });
  }
  const hint =
    code === 'INSUFFICIENT_PERMISSIONS' && moves
      ? `The service agent of Firestore (service-PROJECT_NUMBER@gcp-sa-firestore.iam.gserviceaccount.com of ${project}) and the caller need roles/storage.admin, or object create and read, on the bucket.`
      : code === 'RESOURCE_NOT_FOUND' && moves
        ? 'Check the bucket and the folder: an import needs the output_uri_prefix that a finished export answered with.'
        : kind === 'import'
          ? 'Part of the documents may have been imported. Look at the operation in the Google Cloud console, then at the database.'
          : 'Look at the operation in the Google Cloud console for its cause.';
  return new HoldfastError(code, `${what} failed at Firestore with code ${error_code}`, {
    retryable: false,
    hint,
    provider: { code: String(error_code) },
    details: { operation_name: cleanText(operation.name, 300) },
  });
}

// --- errors --------------------------------------------------------------------------------------------------------

/** What a call addressed, so that its failure can be named. */
export interface Addressed {
  readonly resource: 'database' | 'backup' | 'schedule' | 'operation' | 'project';
  /** The IAM permission that the call needs, and the smallest role that has it. */
  readonly permission: string;
  readonly role: string;
  readonly write?: boolean;
  /** Whether a missing thing may be the backup that the call names: a restore. */
  readonly fromBackup?: boolean;
}

const WORDS: Record<string, ErrorCode> = {
  UNAUTHENTICATED: 'AUTHENTICATION_FAILED',
  PERMISSION_DENIED: 'INSUFFICIENT_PERMISSIONS',
  NOT_FOUND: 'RESOURCE_NOT_FOUND',
  ALREADY_EXISTS: 'RESOURCE_EXISTS',
  ABORTED: 'INVALID_STATE',
  FAILED_PRECONDITION: 'INVALID_STATE',
  INVALID_ARGUMENT: 'INVALID_PARAMETER',
  OUT_OF_RANGE: 'INVALID_PARAMETER',
  CANCELLED: 'CANCELLED',
  UNIMPLEMENTED: 'NOT_SUPPORTED',
};

const MESSAGES: Partial<Record<ErrorCode, string>> = {
  AUTHENTICATION_FAILED: 'Google refused the credentials',
  QUOTA_EXCEEDED: 'a quota of the project is used up',
  RATE_LIMITED: 'Firestore takes no more requests for the moment',
  BACKUP_NOT_FOUND: 'there is no such backup',
  INVALID_PARAMETER: 'Firestore refused the request as invalid',
  NOT_SUPPORTED: 'this database has no such feature: look at its mode and edition',
  PROVIDER_UNAVAILABLE: 'Firestore gave no usable answer',
  TIMEOUT: 'Firestore gave no answer in time',
  CANCELLED: 'Firestore cancelled the call',
};

/** Maps what a call of the Firestore client threw to our codes: the status word first, then the HTTP status. */
export function toFirestoreError(cause: unknown, addressed: Addressed): HoldfastError {
  const known = findHoldfastError(cause);
  if (known) return known;
  const unknownOutcome = addressed.write === true ? { details: { outcome: 'unknown' } } : {};
  const failure = readGoogleFailure(cause);
  const { status, reason, word, text } = failure;
  if (status === undefined) {
    const options = { ...unknownOutcome, cause: slim(cause) };
    if (failure.timedOut) return new HoldfastError('TIMEOUT', MESSAGES.TIMEOUT as string, options);
    if (isAbort(cause)) return new HoldfastError('CANCELLED', 'the call was cancelled', options);
    if (cause instanceof Error && /required parameters|path param/i.test(cause.message)) {
      return new HoldfastError('INTERNAL', 'a request to Firestore was malformed and not sent', { cause: slim(cause) });
    }
    return new HoldfastError('PROVIDER_UNAVAILABLE', MESSAGES.PROVIDER_UNAVAILABLE as string, options);
  }
  const code = codeOf(status, word, reason, text, addressed);
  const options = {
    // What proves that a thing is not there is the API's own word, whatever reason comes with it.
    provider: { status, code: word === 'NOT_FOUND' ? word : reason },
    cause: slim(cause),
    ...(status >= 500 || status === 408 ? unknownOutcome : {}),
  };
  switch (code) {
    case 'INSUFFICIENT_PERMISSIONS':
      return permissionError(cause, reason, addressed, options);
    case 'RESOURCE_NOT_FOUND':
      return new HoldfastError(code, `there is no such ${addressed.resource}`, options);
    case 'RESOURCE_EXISTS':
      return new HoldfastError(
        code,
        addressed.resource === 'schedule'
          ? 'the database has a schedule of that recurrence already'
          : 'there is a database of that id already, or there was until a few minutes ago',
        {
          ...options,
          hint:
            addressed.resource === 'schedule'
              ? 'A database has at most one daily and one weekly schedule. Look at list-backup-schedules.'
              : 'Choose a target_database that is not in use: Firestore never restores onto an existing database.',
        },
      );
    case 'INVALID_STATE':
      if (word === 'FAILED_PRECONDITION' && /etag/i.test(text)) {
        return new HoldfastError('PLAN_CHANGED', 'the database changed at the same time; nothing was changed', options);
      }
      return new HoldfastError(
        code,
        word === 'ABORTED'
          ? 'something else changed the database at the same time'
          : 'Firestore refuses this in the present state',
        {
          ...options,
          retryable: word === 'ABORTED',
          hint:
            word === 'ABORTED'
              ? 'Nothing was changed. Call again.'
              : 'Look at the state and expiry of the backup, the recovery window of get-backup-info, and the mode and edition of the database.',
        },
      );
    default:
      return new HoldfastError(code, MESSAGES[code] ?? 'the call to Firestore failed', options);
  }
}

function codeOf(
  status: number,
  word: string | undefined,
  reason: string | undefined,
  text: string,
  addressed: Addressed,
): ErrorCode {
  if (status === 401) return 'AUTHENTICATION_FAILED';
  if (status === 501) return 'NOT_SUPPORTED';
  if (status === 499) return 'CANCELLED';
  if (status === 408 || status >= 500) return 'PROVIDER_UNAVAILABLE';
  if (status === 429) {
    const lasts =
      /storage|number of databases|databases? (?:per|limit)|per ?day/i.test(text) && reason !== 'RATE_LIMIT_EXCEEDED';
    return lasts ? 'QUOTA_EXCEEDED' : 'RATE_LIMITED';
  }
  // An answer without a word is not the API's own: a proxy's page.
  const found = word === undefined ? undefined : WORDS[word];
  if (found === 'RESOURCE_NOT_FOUND') {
    const isBackup = addressed.resource === 'backup' || (addressed.fromBackup === true && /backup/i.test(text));
    return isBackup ? 'BACKUP_NOT_FOUND' : found;
  }
  if (found !== undefined) return found;
  if (status === 403) return 'INSUFFICIENT_PERMISSIONS';
  if (word === undefined && text === '') return 'PROVIDER_UNAVAILABLE';
  if (status === 409 || status === 412) return 'INVALID_STATE';
  return 'INVALID_PARAMETER';
}

function permissionError(
  cause: unknown,
  reason: string | undefined,
  addressed: Addressed,
  options: ConstructorParameters<typeof HoldfastError>[2],
): HoldfastError {
  const special: Record<string, [string, string]> = {
    SERVICE_DISABLED: [
      'the Firestore API is switched off in this project',
      'Enable firestore.googleapis.com in the project, wait a few minutes, then call again.',
    ],
    accessNotConfigured: [
      'the Firestore API is switched off in this project',
      'Enable firestore.googleapis.com in the project, wait a few minutes, then call again.',
    ],
    BILLING_DISABLED: [
      'the project has no billing account',
      'Backups, exports, imports and restores need one: link a billing account to the project.',
    ],
    CONSUMER_INVALID: ['the project does not exist or cannot be used', 'Check the project of the entity.'],
    USER_PROJECT_DENIED: [
      'the quota project of the credentials cannot be used',
      'Give the caller serviceusage.services.use on the quota project, or set another one.',
    ],
  };
  const found = reason === undefined ? undefined : special[reason];
  if (found !== undefined)
    return new HoldfastError('INSUFFICIENT_PERMISSIONS', found[0], { ...options, hint: found[1] });
  const { permission, role } = addressed;
  return new HoldfastError('INSUFFICIENT_PERMISSIONS', `the caller lacks ${permission}`, {
    ...options,
    hint: `Give the caller ${permission}; the smallest role with it is ${role}. Avoid roles/datastore.owner: it may delete the database.`,
    details: permissionDetails(cause, addressed),
  });
}

/** Tells whether an error proves that a database does not exist: the API's own word, not a 403, not a proxy's 404. */
export function provesAbsence(error: unknown): boolean {
  return (
    error instanceof HoldfastError &&
    error.code === 'RESOURCE_NOT_FOUND' &&
    error.provider?.status === 404 &&
    error.provider.code === 'NOT_FOUND'
  );
}
