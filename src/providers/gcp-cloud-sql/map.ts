import type { sqladmin_v1 } from 'googleapis/build/src/apis/sqladmin/v1.js';
import { type ErrorCode, HoldfastError, isAbort } from '../../core/errors.ts';
import { type JsonObject, sha256 } from '../../core/json.ts';
import type { JobStatus, RecoveryPoint, RestoreJob } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { findHoldfastError, slim } from '../causes.ts';
import { permissionDetails, readGoogleFailure } from '../google.ts';

export type Instance = sqladmin_v1.Schema$DatabaseInstance;
export type Settings = sqladmin_v1.Schema$Settings;
export type BackupRun = sqladmin_v1.Schema$BackupRun;
export type NamedBackup = sqladmin_v1.Schema$Backup;
export type Operation = sqladmin_v1.Schema$Operation;

const PROJECT = '(?:[a-z][a-z0-9.-]{0,80}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]';
const PROJECT_PATTERN = new RegExp(`^${PROJECT}$`);
const INSTANCE_PATTERN = /^[a-z](?:[a-z0-9-]{0,96}[a-z0-9])?$/;
const RUN_PATTERN = /^\d{1,19}$/;
const NAMED_PATTERN = new RegExp(`^projects/(${PROJECT})/backups/([A-Za-z0-9_-]{1,128})$`);
const VAULT_PATTERN = /^projects\/[^/]+\/locations\/[^/]+\/backupVaults\/[^/]+\/dataSources\/[^/]+\/backups\/[^/]+$/;
const OPERATION_PATTERN = /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/;

/** @throws {HoldfastError} CONFIG_INVALID */
export function checkProject(project: string): string {
  if (PROJECT_PATTERN.test(project)) return project;
  throw new HoldfastError('CONFIG_INVALID', `'${cleanText(project, 60)}' is not a Google Cloud project id`);
}

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkInstance(name: string, parameter: string): string {
  if (INSTANCE_PATTERN.test(name)) return name;
  throw new HoldfastError('INVALID_PARAMETER', `${parameter} '${cleanText(name, 60)}' is not an instance name`, {
    hint: 'Instance names have up to 98 lower-case letters, digits and hyphens and begin with a letter.',
  });
}

/** A backup as a caller names it: a run of one instance, or a backup of the project. */
export type BackupRef = { kind: 'run'; id: string } | { kind: 'named'; name: string };

/**
 * Reads a backup id: digits, or `projects/P/backups/UID`.
 * @throws {HoldfastError} INVALID_PARAMETER; NOT_SUPPORTED for a name in a backup vault
 */
export function parseBackupId(text: string): BackupRef {
  if (RUN_PATTERN.test(text)) return { kind: 'run', id: text };
  if (NAMED_PATTERN.test(text)) return { kind: 'named', name: text };
  if (VAULT_PATTERN.test(text)) {
    throw new HoldfastError('NOT_SUPPORTED', 'backups in a backup vault are managed by the Backup and DR service', {
      hint: 'Use the Backup and DR service for this backup; Holdfast handles run ids and projects/P/backups/UID.',
    });
  }
  throw new HoldfastError('INVALID_PARAMETER', `backup_id '${cleanText(text, 80)}' is not a backup`, {
    hint: 'Give the digits of a backup run, or projects/PROJECT/backups/UID, as list-snapshots shows them.',
  });
}

/**
 * Reads an operation name; a leading `operations/` is dropped.
 * @throws {HoldfastError} INVALID_PARAMETER
 */
export function parseOperationName(text: string): string {
  const name = text.replace(/^operations\//, '');
  if (OPERATION_PATTERN.test(name)) return name;
  throw new HoldfastError('INVALID_PARAMETER', `operation_name '${cleanText(text, 80)}' is not an operation`, {
    hint: 'Give the operation name that restore answered with.',
  });
}

// --- identity of our own backups -----------------------------------------------------------------------------------

const MARKER = /\s*\[holdfast(-safety)?:[0-9a-f]{16}\]$/;

/** The mark that a backup of ours carries in its description: it finds the backup again when an answer was lost. */
export function markerFor(key: string, safety = false): string {
  return `[holdfast${safety ? '-safety' : ''}:${sha256(key).slice(0, 16)}]`;
}

/** Puts the mark behind a description. */
export function describeWith(description: string | undefined, marker: string): string {
  return description === undefined || description === '' ? marker : `${description} ${marker}`;
}

function splitDescription(text: string | null | undefined): { text: string | undefined; safety: boolean } {
  const raw = text ?? '';
  const found = MARKER.exec(raw);
  const rest = cleanText(found === null ? raw : raw.slice(0, found.index));
  return { text: rest === '' ? undefined : rest, safety: found?.[1] !== undefined };
}

// --- snapshots -----------------------------------------------------------------------------------------------------

const STATES: Record<string, string> = {
  SUCCESSFUL: 'available',
  ENQUEUED: 'creating',
  RUNNING: 'creating',
  OVERDUE: 'overdue',
  FAILED: 'failed',
  SKIPPED: 'skipped',
  DELETION_PENDING: 'deleting',
  DELETING: 'deleting',
  DELETION_FAILED: 'delete_failed',
  DELETED: 'deleted',
};

const KINDS: Record<string, string> = { AUTOMATED: 'automated', ON_DEMAND: 'on_demand', FINAL: 'final' };

/** Gives our word for a backup's state; `unknown` for one that this release does not know. */
export function backupStatus(state: string | null | undefined): string {
  return STATES[state ?? ''] ?? 'unknown';
}

/** Tells whether a run is gone: Cloud SQL lists deleted runs for a while. */
export function isDeleted(run: BackupRun): boolean {
  return run.status === 'DELETED';
}

function common(
  raw: {
    type?: string | null;
    description?: string | null;
    maxChargeableBytes?: string | null;
    location?: string | null;
    error?: sqladmin_v1.Schema$OperationError;
    backupKind?: string | null;
    databaseVersion?: string | null;
    timeZone?: string | null;
    instance?: string | null;
  },
  status: string,
): Pick<RecoveryPoint, 'kind' | 'status' | 'restorable'> & Partial<RecoveryPoint> & { facts: JsonObject } {
  const { text, safety } = splitDescription(raw.description);
  // An int64 travels as text. A size beyond 2^53 bytes would lose digits as a number, so it is left out.
  const size =
    raw.maxChargeableBytes === undefined || raw.maxChargeableBytes === null
      ? Number.NaN
      : Number(raw.maxChargeableBytes);
  return {
    kind: safety ? 'safety' : (KINDS[raw.type ?? ''] ?? (cleanText(raw.type, 40).toLowerCase() || 'unknown')),
    status,
    restorable: status === 'available',
    ...(Number.isSafeInteger(size) ? { size_bytes: size } : {}),
    // Cloud SQL encrypts every disk and backup, with Google's keys where no other is named.
    encrypted: true,
    ...(raw.location ? { location: cleanText(raw.location, 60) } : {}),
    ...(text === undefined ? {} : { description: text }),
    facts: {
      ...(raw.instance ? { instance: cleanText(raw.instance, 100) } : {}),
      ...(raw.backupKind ? { backup_kind: cleanText(raw.backupKind, 40) } : {}),
      ...(raw.databaseVersion ? { database_version: cleanText(raw.databaseVersion, 60) } : {}),
      ...(raw.timeZone ? { time_zone: cleanText(raw.timeZone, 60) } : {}),
      ...(raw.error?.code ? { error_code: errorWord(raw.error.code) } : {}),
    },
  };
}

/** Makes a recovery point of a backup run. */
export function runToPoint(run: BackupRun): RecoveryPoint {
  const { facts, ...point } = common(run, backupStatus(run.status));
  const kms = run.diskEncryptionConfiguration?.kmsKeyName;
  return {
    id: String(run.id ?? ''),
    ...point,
    ...time('created_at', run.startTime ?? run.enqueuedTime),
    ...time('data_at', run.endTime),
    provider: {
      ...facts,
      ...(kms ? { kms_key: cleanText(kms) } : {}),
      ...(run.windowStartTime ? { window_started_at: run.windowStartTime } : {}),
    },
  };
}

/** Makes a recovery point of a backup of the project, a final one of a deleted instance included. */
export function namedToPoint(backup: NamedBackup): RecoveryPoint {
  const { facts, ...point } = common(backup, backupStatus(backup.state));
  const interval = backup.backupInterval;
  return {
    id: String(backup.name ?? ''),
    ...point,
    ...time('created_at', interval?.startTime),
    ...time('data_at', interval?.endTime),
    ...time('expires_at', backup.expiryTime),
    provider: {
      ...facts,
      ...(backup.kmsKey ? { kms_key: cleanText(backup.kmsKey) } : {}),
      ...(backup.backupRun ? { backup_run: cleanText(backup.backupRun) } : {}),
      ...(backup.instanceDeletionTime ? { instance_deleted_at: backup.instanceDeletionTime } : {}),
    },
  };
}

function time<Name extends string>(name: Name, value: string | null | undefined): Partial<Record<Name, string>> {
  const text = instant(value);
  return (text === undefined ? {} : { [name]: text }) as Partial<Record<Name, string>>;
}

/** Gives a provider's instant as RFC 3339 UTC; undefined for none and for one that cannot be read. */
export function instant(value: string | null | undefined): string | undefined {
  if (!value) return undefined;
  const date = new Date(value);
  return Number.isNaN(date.getTime()) ? undefined : date.toISOString();
}

// --- instances -----------------------------------------------------------------------------------------------------

/** `MYSQL_8_0_31` is of the line `MYSQL_8_0`: minor versions restore into each other. */
export function versionLine(version: string | null | undefined): string | undefined {
  if (!version) return undefined;
  return /^MYSQL_\d+_\d+/.exec(version)?.[0] ?? version;
}

/** Tells whether point-in-time recovery is on; MySQL calls it binary logging. */
export function hasPitr(instance: Instance): boolean {
  const backups = instance.settings?.backupConfiguration;
  return (
    backups?.pointInTimeRecoveryEnabled === true ||
    ((instance.databaseVersion ?? '').startsWith('MYSQL') && backups?.binaryLogEnabled === true)
  );
}

/** Tells whether an instance answers queries: RUNNABLE is also the state of one that its owner stopped. */
export function isUsable(instance: Instance): boolean {
  return instance.state === 'RUNNABLE' && instance.settings?.activationPolicy !== 'NEVER';
}

// --- operations ----------------------------------------------------------------------------------------------------

/** Gives the status of an operation; done with errors is a failure. */
export function operationStatus(operation: Operation): JobStatus {
  if (operation.status === 'PENDING') return 'pending';
  if (operation.status === 'RUNNING') return 'running';
  if (operation.status !== 'DONE') return 'unknown';
  return (operation.error?.errors?.length ?? 0) > 0 ? 'failed' : 'succeeded';
}

/** Makes a restore job of an operation; `usable` is known by the instance only. */
export function operationToJob(operation: Operation, usable: boolean): RestoreJob {
  const code = operation.error?.errors?.[0]?.code;
  return {
    job_id: String(operation.name ?? ''),
    status: operationStatus(operation),
    target: `${cleanText(operation.targetProject, 100)}/${cleanText(operation.targetId, 100)}`,
    ...time('started_at', operation.startTime ?? operation.insertTime),
    ...time('ended_at', operation.endTime),
    usable,
    provider: {
      operation_type: cleanText(operation.operationType, 60),
      ...(code ? { error_code: errorWord(code) } : {}),
    },
  };
}

/** Throws what an operation that failed at Cloud SQL means. */
export function operationError(operation: Operation, what: string): HoldfastError {
  const raw = operation.error?.errors?.[0]?.code;
  const code = raw ? errorWord(raw) : undefined;
  const ours = (code === undefined ? undefined : REASONS[normalise(code)]) ?? 'PROVIDER_UNAVAILABLE';
  return new HoldfastError(ours, `${what} failed at Cloud SQL${code === undefined ? '' : ` with ${code}`}`, {
    retryable: false,
    hint: 'Look at the operation in the Cloud SQL console for its cause, then at the state of the instance before trying again.',
    provider: { code },
    details: { operation_name: cleanText(operation.name, 130) },
    cause: new Error(cleanText(operation.error?.errors?.[0]?.message, 500)),
  });
}

// --- errors --------------------------------------------------------------------------------------------------------

/** What a call addressed, so that its failure can be named. */
export interface Addressed {
  readonly resource: 'instance' | 'backup' | 'operation' | 'project';
  /** The IAM permission that the call needs, and the smallest role that has it. */
  readonly permission: string;
  readonly role: string;
  readonly write?: boolean;
}

const REASONS: Record<string, ErrorCode> = {
  autherror: 'AUTHENTICATION_FAILED',
  unauthenticated: 'AUTHENTICATION_FAILED',
  notauthorized: 'INSUFFICIENT_PERMISSIONS',
  forbidden: 'INSUFFICIENT_PERMISSIONS',
  permissiondenied: 'INSUFFICIENT_PERMISSIONS',
  iampermissiondenied: 'INSUFFICIENT_PERMISSIONS',
  accessnotconfigured: 'INSUFFICIENT_PERMISSIONS',
  servicedisabled: 'INSUFFICIENT_PERMISSIONS',
  userprojectdenied: 'INSUFFICIENT_PERMISSIONS',
  quotaexceeded: 'QUOTA_EXCEEDED',
  dailylimitexceeded: 'QUOTA_EXCEEDED',
  ratelimitexceeded: 'RATE_LIMITED',
  userratelimitexceeded: 'RATE_LIMITED',
  operationinprogress: 'INVALID_STATE',
  instancedoesnotexist: 'RESOURCE_NOT_FOUND',
  backuprundoesnotexist: 'BACKUP_NOT_FOUND',
  errorbackupnotfound: 'BACKUP_NOT_FOUND',
  instancealreadyexists: 'RESOURCE_EXISTS',
  alreadyexists: 'RESOURCE_EXISTS',
  invalidstate: 'INVALID_STATE',
  invalidoperation: 'INVALID_STATE',
  errorbinlognotenabled: 'INVALID_STATE',
  conditionnotmet: 'INVALID_STATE',
  failedprecondition: 'INVALID_STATE',
  unimplemented: 'NOT_SUPPORTED',
  invalid: 'INVALID_PARAMETER',
  invalidrequest: 'INVALID_PARAMETER',
  invalidargument: 'INVALID_PARAMETER',
  required: 'INVALID_PARAMETER',
};

function normalise(reason: string): string {
  return reason.replaceAll('_', '').toLowerCase();
}

function errorWord(text: string): string {
  return cleanText(text.replace(/[^A-Za-z0-9_.-]/g, ''), 80);
}

const MESSAGES: Partial<Record<ErrorCode, string>> = {
  AUTHENTICATION_FAILED: 'Google refused the credentials',
  QUOTA_EXCEEDED: 'a quota of the project is used up',
  RATE_LIMITED: 'Cloud SQL takes no more requests for the moment',
  BACKUP_NOT_FOUND: 'there is no such backup',
  RESOURCE_EXISTS: 'there is an instance of that name already',
  INVALID_PARAMETER: 'Cloud SQL refused the request as invalid',
  NOT_SUPPORTED: 'Cloud SQL has no such feature for this instance',
  PROVIDER_UNAVAILABLE: 'Cloud SQL gave no usable answer',
  TIMEOUT: 'Cloud SQL gave no answer in time',
};

/** Maps what a call of the Cloud SQL client threw to our codes: known reasons first, then the status and what was addressed. */
export function toCloudSqlError(cause: unknown, addressed: Addressed): HoldfastError {
  const known = findHoldfastError(cause);
  if (known) return known;
  const unknownOutcome = addressed.write === true ? { details: { outcome: 'unknown' } } : {};
  const failure = readGoogleFailure(cause);
  if (failure.status === undefined) {
    if (failure.timedOut)
      return new HoldfastError('TIMEOUT', MESSAGES.TIMEOUT as string, { ...unknownOutcome, cause: slim(cause) });
    if (isAbort(cause))
      return new HoldfastError('CANCELLED', 'the call was cancelled', { ...unknownOutcome, cause: slim(cause) });
    if (cause instanceof Error && /required parameters|path param/i.test(cause.message)) {
      return new HoldfastError('INTERNAL', 'a request to Cloud SQL was malformed and not sent', { cause: slim(cause) });
    }
    return new HoldfastError('PROVIDER_UNAVAILABLE', MESSAGES.PROVIDER_UNAVAILABLE as string, {
      ...unknownOutcome,
      cause: slim(cause),
    });
  }
  const { status, text } = failure;
  const reason = failure.reason === undefined ? '' : normalise(failure.reason);
  const code = codeOf(status, reason, text, addressed);
  const provider = { status, code: failure.reason };
  const outcome =
    addressed.write === true && (status >= 500 || status === 408) ? { details: { outcome: 'unknown' } } : {};
  const options = { provider, cause: slim(cause), ...outcome };
  // Cloud SQL compares versions of settings only: those of the call were old.
  if (reason === 'conditionnotmet' || status === 412) {
    return new HoldfastError('PLAN_CHANGED', 'the settings changed at the same time; nothing was changed', options);
  }
  if (code === 'INSUFFICIENT_PERMISSIONS') return permissionError(cause, reason, addressed, options);
  if (code === 'RESOURCE_NOT_FOUND') {
    return new HoldfastError(code, `there is no such ${addressed.resource}`, options);
  }
  if (code === 'INVALID_STATE') return stateError(reason, text, options);
  return new HoldfastError(code, MESSAGES[code] ?? 'the call to Cloud SQL failed', options);
}

function codeOf(status: number, reason: string, text: string, addressed: Addressed): ErrorCode {
  if (status === 401) return 'AUTHENTICATION_FAILED';
  if (status === 501) return 'NOT_SUPPORTED';
  if (status === 408 || status >= 500) return 'PROVIDER_UNAVAILABLE';
  if (status === 429) return /per ?day/i.test(text) || reason === 'quotaexceeded' ? 'QUOTA_EXCEEDED' : 'RATE_LIMITED';
  const found = REASONS[reason];
  if (found === 'INVALID_PARAMETER' && /not running|is stopped|suspended/i.test(text)) return 'INVALID_STATE';
  // The instance's own absence outweighs what lies under it.
  if (found === undefined && status === 404 && reason !== '') {
    return addressed.resource === 'backup' ? 'BACKUP_NOT_FOUND' : 'RESOURCE_NOT_FOUND';
  }
  if (found !== undefined) return found;
  if (status === 403) return 'INSUFFICIENT_PERMISSIONS';
  if (status === 409 || status === 412) return 'INVALID_STATE';
  // An answer without a reason is not the API's own: a proxy's page.
  if (reason === '' && text === '') return 'PROVIDER_UNAVAILABLE';
  if (status === 404) return addressed.resource === 'backup' ? 'BACKUP_NOT_FOUND' : 'RESOURCE_NOT_FOUND';
  return 'INVALID_PARAMETER';
}

type Rest = ConstructorParameters<typeof HoldfastError>[2];

function permissionError(cause: unknown, reason: string, addressed: Addressed, options: Rest): HoldfastError {
  if (reason === 'accessnotconfigured' || reason === 'servicedisabled') {
    return new HoldfastError('INSUFFICIENT_PERMISSIONS', 'the Cloud SQL Admin API is switched off in this project', {
      ...options,
      hint: 'Enable sqladmin.googleapis.com in the project, wait a few minutes, then call again.',
    });
  }
  if (reason === 'userprojectdenied') {
    return new HoldfastError('INSUFFICIENT_PERMISSIONS', 'the quota project of the credentials cannot be used', {
      ...options,
      hint: 'Give the caller serviceusage.services.use on the quota project, or set another one.',
    });
  }
  return new HoldfastError(
    'INSUFFICIENT_PERMISSIONS',
    `no permission (${addressed.permission}), or no such instance: Cloud SQL does not tell which`,
    {
      ...options,
      hint: `Check the project and the instance name, then give the caller ${addressed.permission}; the smallest role with it is ${addressed.role}.`,
      details: permissionDetails(cause, addressed),
    },
  );
}

function stateError(reason: string, text: string, options: Rest): HoldfastError {
  if (reason === 'operationinprogress') {
    return new HoldfastError('INVALID_STATE', 'another operation is running on the instance', {
      ...options,
      retryable: true,
      hint: 'Cloud SQL runs one operation at a time on an instance. Wait until it is over, then call again.',
    });
  }
  if (reason === 'errorbinlognotenabled' || /point.in.time|binary log/i.test(text)) {
    return new HoldfastError('INVALID_STATE', 'point-in-time recovery is off on the instance', {
      ...options,
      retryable: false,
      hint: 'Restore a backup instead; point-in-time recovery reaches back only to when it was switched on.',
    });
  }
  if (reason === 'invalidoperation') {
    return new HoldfastError('INVALID_STATE', 'the operation is not valid for this instance', {
      ...options,
      retryable: false,
      hint: 'Look for read replicas, a replica as target, or a smaller disk than that of the backup.',
    });
  }
  return new HoldfastError('INVALID_STATE', 'the instance is not in a state for this', options);
}

/** Tells whether an error proves that an instance does not exist: the API's own word, not a 403, not a proxy's 404. */
export function provesAbsence(error: unknown): boolean {
  return (
    error instanceof HoldfastError &&
    error.code === 'RESOURCE_NOT_FOUND' &&
    error.provider?.status === 404 &&
    normalise(error.provider.code ?? '') === 'instancedoesnotexist'
  );
}
