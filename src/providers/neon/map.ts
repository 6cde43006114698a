import { type ErrorCode, HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { JobStatus, RecoveryPoint } from '../../core/schemas.ts';
import { cleanText, identifierText } from '../../core/text.ts';
import { instantOf, known, listOf, numberOf, textOf, type Wire } from '../../core/wire.ts';
import { outcomeOf, type RestRefusal } from '../rest.ts';

const ID = /^[a-z0-9-]{1,60}$/;
const OPERATION = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const LSN = /^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/i;

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkId(id: string, parameter: string): string {
  if (ID.test(id)) return id;
  throw new HoldfastError('INVALID_PARAMETER', `${parameter} '${cleanText(id, 70)}' is not an id of Neon`, {
    hint: 'Ids have up to 60 lower-case letters, digits and hyphens: br-… for branches, snap-… for snapshots.',
  });
}

/** Tells an operation's id, a UUID, from that of a branch. */
export function isOperationId(id: string): boolean {
  return OPERATION.test(id);
}

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkOperation(id: string): string {
  if (isOperationId(id)) return id;
  throw new HoldfastError('INVALID_PARAMETER', `operation_id '${cleanText(id, 70)}' is not an operation of Neon`);
}

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkLsn(lsn: string): string {
  if (LSN.test(lsn)) return lsn.toUpperCase();
  throw new HoldfastError('INVALID_PARAMETER', `lsn '${cleanText(lsn, 40)}' is not a log sequence number`, {
    hint: 'Write it as PostgreSQL does, such as 0/1DE2850.',
  });
}

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkBranchName(name: string, parameter: string): string {
  if (name.trim() === name && name.length <= 256 && cleanText(name, 256) === name) return name;
  throw new HoldfastError('INVALID_PARAMETER', `${parameter} is not the name of a branch`, {
    hint: 'Use up to 256 printable characters, no space at either end.',
  });
}

// --- what there is -------------------------------------------------------------------------------------------------

export interface Project {
  readonly id: string;
  readonly name: string;
  readonly region: string | undefined;
  readonly pg_version: number | undefined;
  readonly created_at: string | undefined;
  /** Seconds; 0 where there is no history. */
  readonly history_seconds: number;
  readonly storage_bytes: number | undefined;
  readonly plan: string | undefined;
  readonly branches_limit: number | undefined;
  readonly maintenance_at: string | undefined;
  /** CAN_VIEW, CAN_EDIT, CAN_MANAGE, where permissions are kept per project. */
  readonly permission: string | undefined;
}

/** @see Neon API v2, getProject (2026-07-13) */
export function toProject(wire: Wire): Project {
  const owner = (wire['owner'] ?? {}) as Wire;
  return {
    id: textOf(wire['id']) ?? '',
    name: cleanText(wire['name'], 100),
    region: textOf(wire['region_id']),
    pg_version: numberOf(wire['pg_version']),
    created_at: instantOf(wire['created_at']),
    history_seconds: numberOf(wire['history_retention_seconds']) ?? 0,
    storage_bytes: numberOf(wire['synthetic_storage_size']),
    plan: textOf(owner['subscription_type']),
    branches_limit: numberOf(owner['branches_limit']),
    maintenance_at: instantOf(wire['maintenance_starts_at'] ?? wire['maintenance_scheduled_for']),
    permission: textOf(wire['effective_project_permission']),
  };
}

export interface Branch {
  readonly id: string;
  /** As sent: it goes into names that are made from it. */
  readonly name: string;
  readonly parent_id: string | undefined;
  readonly default: boolean;
  readonly protected: boolean;
  readonly state: string;
  readonly pending: string | undefined;
  readonly created_at: string | undefined;
  readonly expires_at: string | undefined;
  readonly size_bytes: number | undefined;
  readonly restore_status: string | undefined;
  readonly restored_from: string | undefined;
  readonly restored_as: string | undefined;
  readonly restricted: readonly { name: string; reason: string }[];
}

/** @see Neon API v2, getProjectBranch (2026-07-13) */
export function toBranch(wire: Wire): Branch {
  return {
    id: textOf(wire['id']) ?? '',
    name: textOf(wire['name']) ?? '',
    parent_id: textOf(wire['parent_id']),
    default: wire['default'] === true,
    protected: wire['protected'] === true,
    state: textOf(wire['current_state']) ?? 'unknown',
    pending: textOf(wire['pending_state']),
    created_at: instantOf(wire['created_at']),
    expires_at: instantOf(wire['expires_at']),
    size_bytes: numberOf(wire['logical_size']),
    restore_status: textOf(wire['restore_status']),
    restored_from: textOf(wire['restored_from']),
    restored_as: textOf(wire['restored_as']),
    restricted: listOf(wire['restricted_actions']).map((one) => ({
      name: cleanText(one['name'], 60),
      reason: cleanText(one['reason'], 200),
    })),
  };
}

/** The name of a branch as it is shown. */
export function shown({ name }: Pick<Branch, 'name'>): string {
  return cleanText(name, 100);
}

/** Gives the snapshots' own form; Neon has no state of them: what is listed is there. */
export interface Snapshot {
  readonly id: string;
  readonly name: string;
  readonly created_at: string | undefined;
  /** The moment of the data. */
  readonly data_at: string | undefined;
  readonly lsn: string | undefined;
  readonly branch_id: string | undefined;
  readonly expires_at: string | undefined;
  readonly manual: boolean | undefined;
  readonly full_bytes: number | undefined;
  readonly diff_bytes: number | undefined;
}

/** @see Neon API v2, listSnapshots (2026-07-13, beta) */
export function toSnapshot(wire: Wire): Snapshot {
  return {
    id: textOf(wire['id']) ?? '',
    name: textOf(wire['name']) ?? '',
    created_at: instantOf(wire['created_at']),
    data_at: instantOf(wire['timestamp']),
    lsn: textOf(wire['lsn']),
    branch_id: textOf(wire['source_branch_id']),
    expires_at: instantOf(wire['expires_at']),
    manual: typeof wire['manual'] === 'boolean' ? wire['manual'] : undefined,
    full_bytes: numberOf(wire['full_size']),
    diff_bytes: numberOf(wire['diff_size']),
  };
}

/** Makes a recovery point of a snapshot. */
export function toPoint(snapshot: Snapshot, now: Date): RecoveryPoint {
  const expired = snapshot.expires_at !== undefined && Date.parse(snapshot.expires_at) <= now.getTime();
  const name = cleanText(snapshot.name, 200);
  // A size of 0 only says that nothing is charged.
  const size = snapshot.full_bytes === undefined || snapshot.full_bytes === 0 ? undefined : snapshot.full_bytes;
  return known({
    id: cleanText(snapshot.id, 60),
    kind: snapshot.manual === undefined ? 'unknown' : snapshot.manual ? 'on_demand' : 'automated',
    status: expired ? 'expired' : 'available',
    created_at: snapshot.created_at,
    data_at: snapshot.data_at,
    expires_at: snapshot.expires_at,
    size_bytes: size,
    restorable: !expired,
    description: name === '' ? undefined : name,
    provider: known({
      source_branch_id: snapshot.branch_id === undefined ? undefined : cleanText(snapshot.branch_id, 60),
      lsn: snapshot.lsn === undefined ? undefined : cleanText(snapshot.lsn, 40),
      diff_bytes: snapshot.diff_bytes,
      size: size === undefined && snapshot.full_bytes === undefined ? 'not known yet' : undefined,
    }),
  });
}

export interface ScheduleItem {
  readonly frequency: string;
  readonly hour: number | undefined;
  readonly day: number | undefined;
  readonly retention_seconds: number | undefined;
}

/** @see Neon API v2, getSnapshotSchedule (2026-07-13, beta) */
export function toSchedule(wire: Wire): ScheduleItem[] {
  return listOf(wire['schedule']).map((item) => ({
    frequency: cleanText(item['frequency'], 20),
    hour: numberOf(item['hour']),
    day: numberOf(item['day']),
    retention_seconds: numberOf(item['retention_seconds']),
  }));
}

// --- operations ----------------------------------------------------------------------------------------------------

export interface NeonOperation {
  readonly id: string;
  readonly action: string;
  readonly branch_id: string | undefined;
  readonly status: JobStatus;
  /** The service's own word. */
  readonly word: string;
  readonly created_at: string | undefined;
  readonly updated_at: string | undefined;
  /** What the service says of a failure; for the log only. */
  readonly error: string | undefined;
}

const OPERATION_STATES: Record<string, JobStatus> = {
  scheduling: 'pending',
  running: 'running',
  cancelling: 'running',
  // A failed attempt that the service repeats by itself.
  error: 'running',
  finished: 'succeeded',
  skipped: 'succeeded',
  failed: 'failed',
  cancelled: 'cancelled',
};

/** @see Neon API v2, getProjectOperation (2026-07-13) */
export function toOperation(wire: Wire): NeonOperation {
  const word = textOf(wire['status']) ?? 'unknown';
  return {
    id: textOf(wire['id']) ?? '',
    action: cleanText(wire['action'], 60),
    branch_id: textOf(wire['branch_id']),
    status: OPERATION_STATES[word] ?? 'unknown',
    word: cleanText(word, 40),
    created_at: instantOf(wire['created_at']),
    updated_at: instantOf(wire['updated_at']),
    error: textOf(wire['error']),
  };
}

/** Tells whether an operation is over; one in an unknown state is not. */
export function isOver({ status }: NeonOperation): boolean {
  return status === 'succeeded' || status === 'failed' || status === 'cancelled';
}

/** Makes the error of an operation that did not succeed. */
export function operationError(operation: NeonOperation, what: string): HoldfastError {
  const cancelled = operation.status === 'cancelled';
  return new HoldfastError(
    cancelled ? 'CANCELLED' : 'INVALID_STATE',
    `${what} ${cancelled ? 'was cancelled' : 'failed'} at Neon`,
    {
      retryable: false,
      hint: 'Look at the branch and its operations in the Neon console before trying again.',
      details: { operation_id: operation.id, action: operation.action },
      ...(operation.error === undefined ? {} : { cause: new Error(cleanText(operation.error, 500)) }),
    },
  );
}

/** The state of a branch that a restore made or changed. */
export function branchState(branch: Branch): JobStatus {
  if (branch.pending !== undefined) return 'running';
  if (branch.state === 'ready' || branch.state === 'archived') return 'succeeded';
  return branch.state === 'init' || branch.state === 'resetting' ? 'running' : 'unknown';
}

// --- errors --------------------------------------------------------------------------------------------------------

/** What a call is about. */
export interface About {
  readonly what: string;
  /** What a 404 means. */
  readonly missing?: ErrorCode;
}

function codeFor(status: number, code: string, about: About): ErrorCode {
  if (/_EXCEEDED$/.test(code)) return 'QUOTA_EXCEEDED';
  if (status === 401) return 'AUTHENTICATION_FAILED';
  if (status === 403) return 'INSUFFICIENT_PERMISSIONS';
  if (status === 404) return about.missing ?? 'RESOURCE_NOT_FOUND';
  if (status === 409) return 'RESOURCE_EXISTS';
  if (status === 412) return 'NOT_SUPPORTED';
  if (status === 423) return 'INVALID_STATE';
  if (status === 429) return 'RATE_LIMITED';
  if (status === 408 || status >= 500) return 'PROVIDER_UNAVAILABLE';
  return 'INVALID_PARAMETER';
}

const HINTS: Partial<Record<ErrorCode, string>> = {
  AUTHENTICATION_FAILED: 'Check api_key of this entity, or NEON_API_KEY; it may have been revoked.',
  INSUFFICIENT_PERMISSIONS: 'Use a key of this project or of its organization, with the permission CAN_EDIT.',
  NOT_SUPPORTED: 'The plan of this project does not have this.',
  QUOTA_EXCEEDED: 'Delete a branch or a snapshot that nobody needs, or choose a larger plan.',
};

/** Makes the error for an answer that refuses; decides by status, and by the code where that names a limit. */
export function refusalError({ status, body, headers, about, writes }: RestRefusal<About>): HoldfastError {
  const given = textOf(body['code']);
  const word = given !== undefined && /^[A-Z][A-Z0-9_]{1,100}$/.test(given) ? given : undefined;
  const code = codeFor(status, word ?? '', about);
  const wait = Number(headers.get('retry-after') ?? Number.NaN);
  const details: JsonObject = {
    ...outcomeOf(status, writes),
    ...(status === 429 && Number.isFinite(wait) ? { retry_after_seconds: wait } : {}),
  };
  const message =
    status === 423
      ? `operations of the project are still running: Neon did not take ${about.what}`
      : `Neon answered ${status} to ${about.what}`;
  return new HoldfastError(code, message, {
    hint: HINTS[code],
    provider: known({
      status,
      code: word,
      request_id: identifierText(textOf(body['request_id']) ?? headers.get('x-neon-ret-request-id')),
    }),
    details: Object.keys(details).length > 0 ? details : undefined,
  });
}
