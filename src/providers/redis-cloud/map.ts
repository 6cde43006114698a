import { type ErrorCode, HoldfastError } from '../../core/errors.ts';
import { isObject } from '../../core/json.ts';
import type { JobStatus } from '../../core/schemas.ts';
import { cleanText, identifierText } from '../../core/text.ts';
import { booleanOf, instantOf, listOf, numberOf, textOf, type Wire } from '../../core/wire.ts';

/** Settings and state of the backups of a database or of one of its regions, as the service tells them. */
export interface BackupSettings {
  readonly enabled: boolean;
  readonly interval: string | undefined;
  readonly timeUtc: string | undefined;
  /** Where the files go; may hold credentials. */
  readonly destination: string | undefined;
}

/** One database, from the fields that the two tiers share. */
export interface Database {
  readonly id: number;
  readonly name: string;
  readonly status: string;
  readonly protocol: string | undefined;
  readonly redisVersion: string | undefined;
  readonly dataPersistence: string | undefined;
  readonly replication: boolean | undefined;
  readonly memoryUsedBytes: number | undefined;
  readonly memoryLimitBytes: number | undefined;
  readonly shards: number | undefined;
  readonly modules: readonly string[];
  readonly endpoints: readonly string[];
  readonly isReplica: boolean;
  readonly isActiveActive: boolean;
  readonly regions: readonly { readonly name: string; readonly backup: BackupSettings }[];
  readonly backup: BackupSettings;
}

/** The latest attempt to back up or to import; the service keeps no other. */
export interface Attempt {
  /** The service's own word, `success`, `importing`; undefined when there never was one. */
  readonly status: string | undefined;
  readonly at: string | undefined;
  /** Free text, masked and cleaned. */
  readonly failureReason: string | undefined;
}

export interface Task {
  readonly id: string;
  readonly command: string;
  readonly status: string;
  readonly at: string | undefined;
  /** Ids of what it is about, database and subscription. */
  readonly resourceIds: readonly number[];
  readonly resource: Wire | undefined;
  readonly error: { readonly type: string; readonly status: number | undefined } | undefined;
}

function toBackup(value: unknown): BackupSettings {
  const wire = isObject(value) ? value : {};
  const destination = textOf(wire['destination']);
  return {
    enabled:
      booleanOf(wire['remoteBackupEnabled']) ?? booleanOf(wire['enableRemoteBackup']) ?? destination !== undefined,
    interval: textOf(wire['interval']),
    timeUtc: textOf(wire['timeUTC']),
    destination,
  };
}

/** Reads a database of either tier. */
export function toDatabase(wire: Wire): Database {
  const unit = textOf(wire['memoryLimitMeasurementUnit'])?.toUpperCase() === 'GB' ? 1024 ** 3 : 1024 ** 2;
  const planLimit = numberOf(wire['planMemoryLimit']);
  const limitGb = numberOf(wire['memoryLimitInGb']) ?? numberOf(wire['datasetSizeInGb']);
  const usedMb = numberOf(wire['memoryUsedInMb']);
  const clustering = isObject(wire['clustering']) ? wire['clustering'] : {};
  const replica = isObject(wire['replica']) ? wire['replica'] : {};
  const replicaOf = isObject(wire['replicaOf']) ? wire['replicaOf'] : {};
  const regions = listOf(wire['crdbDatabases']).map((region) => ({
    name: cleanText(region['region'], 60),
    backup: toBackup(region['backup']),
    memoryUsedMb: numberOf(region['memoryUsedInMb']),
    dataPersistence: textOf(region['dataPersistence']),
  }));
  const everywhere = new Set(regions.map(({ dataPersistence }) => dataPersistence));
  const used = usedMb ?? regions.map(({ memoryUsedMb }) => memoryUsedMb).find((value) => value !== undefined);
  return {
    id: numberOf(wire['databaseId']) ?? 0,
    name: cleanText(wire['name'], 80),
    status: cleanText(wire['status'] ?? 'unknown', 60),
    protocol: textOf(wire['protocol']),
    redisVersion: textOf(wire['redisVersion']) === undefined ? undefined : cleanText(wire['redisVersion'], 20),
    // An Active-Active database may have it by region: told here where all regions agree.
    dataPersistence:
      textOf(wire['dataPersistence']) ??
      textOf(wire['globalDataPersistence']) ??
      (everywhere.size === 1 ? [...everywhere][0] : undefined),
    replication: booleanOf(wire['replication']),
    memoryUsedBytes: used === undefined ? undefined : Math.round(used * 1024 ** 2),
    memoryLimitBytes:
      planLimit !== undefined
        ? Math.round(planLimit * unit)
        : limitGb === undefined
          ? undefined
          : Math.round(limitGb * 1024 ** 3),
    shards: numberOf(clustering['numberOfShards']),
    modules: listOf(wire['modules']).map((module) => cleanText(module['name'] ?? module['capabilityName'], 40)),
    endpoints: [wire['publicEndpoint'], wire['privateEndpoint']].flatMap((value) => textOf(value) ?? []),
    isReplica:
      listOf(replica['syncSources']).length > 0 ||
      (Array.isArray(replicaOf['endpoints']) && replicaOf['endpoints'].length > 0) ||
      (Array.isArray(wire['replicaOf']) && wire['replicaOf'].length > 0),
    isActiveActive: wire['activeActiveRedis'] === true || regions.length > 0,
    regions: regions.map(({ name, backup }) => ({ name, backup })),
    backup: toBackup(wire['backup']),
  };
}

/** Reads a task; the error comes as an object from the service and as a bare word in its description. */
export function toTask(value: unknown): Task {
  const wire = isObject(value) ? value : {};
  const response = isObject(wire['response']) ? wire['response'] : {};
  const error = response['error'];
  const errorType = isObject(error) ? textOf(error['type']) : textOf(error);
  const errorStatus = isObject(error) ? Number.parseInt(String(error['status'] ?? ''), 10) : Number.NaN;
  return {
    id: textOf(wire['taskId']) ?? '',
    command: cleanText(wire['commandType'], 80),
    status: cleanText(wire['status'] ?? 'unknown', 40),
    at: instantOf(wire['timestamp']),
    resourceIds: [response['resourceId'], response['additionalResourceId']].flatMap((id) => numberOf(id) ?? []),
    resource: isObject(response['resource']) ? response['resource'] : undefined,
    error:
      errorType === undefined && !isObject(error)
        ? undefined
        : { type: safeWord(errorType), status: Number.isNaN(errorStatus) ? undefined : errorStatus },
  };
}

/** Reads the latest attempt out of a status task's resource. */
export function toAttempt(resource: Wire | undefined, timeField: 'lastBackupTime' | 'lastImportTime'): Attempt {
  const reason = resource?.['failureReason'];
  return {
    status: textOf(resource?.['status']) === undefined ? undefined : cleanText(resource?.['status'], 60),
    at: instantOf(resource?.[timeField]),
    failureReason: textOf(reason) === undefined ? undefined : redactText(reason),
  };
}

/** Our word for the status of a task. `processing-completed` only says that the request was handed over. */
export function taskStatus(status: string): JobStatus {
  switch (status) {
    case 'initialized':
    case 'received':
      return 'pending';
    case 'processing-in-progress':
      return 'running';
    case 'processing-completed':
      return 'succeeded';
    case 'processing-error':
      return 'failed';
    default:
      return 'unknown';
  }
}

/** Our word for the status of the latest backup or import. The service's list of words is open; the rest is unknown. */
export function attemptStatus(status: string | undefined): JobStatus {
  if (status === undefined) return 'pending';
  const word = status.toLowerCase();
  if (/^(success|succeeded|successful|done|completed?|finished|imported)$/.test(word)) return 'succeeded';
  if (/^(fail(ed|ure)?|error|aborted|timed-?out)$|-(failed|error)$/.test(word)) return 'failed';
  if (/^cancell?ed$/.test(word)) return 'cancelled';
  if (/^(import(ing)?|export(ing)?|backing-?up|running|in[-_ ]?progress|processing|processing-in-progress)$/.test(word))
    return 'running';
  if (/^(pending|received|initiali[sz](ed|ing)|queued|starting|scheduled)$/.test(word)) return 'pending';
  return 'unknown';
}

/** Hides what a path or URI holds of secrets: everything before the last `@`, and the query with its signature. */
export function maskUri(text: string): string {
  return text
    .replace(/\b([a-z][a-z0-9+.-]*:\/\/)[^\s"'<>]*@/gi, '$1***@')
    .replace(/\b([a-z][a-z0-9+.-]*:\/\/[^\s?"'<>]*)\?[^\s"'<>]*/gi, '$1?***');
}

/** Makes free text of the service fit to be returned as data. */
export function redactText(text: unknown, maximum = 200): string {
  return cleanText(maskUri(String(text ?? '').slice(0, 4000)), maximum);
}

/** A path as a person reads it: secrets masked, `[path/]` of the service unwrapped. */
export function showPath(path: string): string {
  return redactText(path.replace(/^\[(.*)\]$/, '$1'), 300);
}

/** A source as a person reads it before approving: what it is and where, without the scheme, secrets masked. */
export function showSource(type: SourceType, uri: string): string {
  // Not the URI as given: that is masked wherever it stands, since it may hold a secret.
  return `${showPath(uri).replace(/^[a-z0-9+.-]+:\/\//i, '')} (${type})`;
}

/** Names the storage that a path points to, in the words of the API. */
export function storageTypeOf(path: string | undefined): SourceType | undefined {
  const scheme = /^\[?([a-z0-9+.-]+):\/\//i.exec(path ?? '')?.[1]?.toLowerCase();
  switch (scheme) {
    case 's3':
      return 'aws-s3';
    case 'gs':
      return 'google-blob-storage';
    case 'abs':
      return 'azure-blob-storage';
    case 'ftp':
    case 'ftps':
      return 'ftp';
    case 'http':
    case 'https':
      return 'http';
    default:
      return undefined;
  }
}

export const SOURCE_TYPES = ['http', 'redis', 'ftp', 'aws-s3', 'azure-blob-storage', 'google-blob-storage'] as const;
export type SourceType = (typeof SOURCE_TYPES)[number];

const FORMS: Record<SourceType, { readonly pattern: RegExp; readonly form: string }> = {
  'aws-s3': { pattern: /^s3:\/\/[^/]+\/.*[^/]$/, form: 's3://bucket/path/file.rdb.gz' },
  'google-blob-storage': { pattern: /^gs:\/\/[^/]+\/.*[^/]$/, form: 'gs://bucket/path/file.rdb.gz' },
  'azure-blob-storage': {
    pattern: /^abs:\/\/(.+@)?[^/@]+\/.*[^/]$/,
    form: 'abs://:KEY@account/container/path/file.rdb.gz',
  },
  ftp: { pattern: /^ftps?:\/\/[^/]+\/.*[^/]$/, form: 'ftp://user:password@host:port/path/file.rdb.gz' },
  http: { pattern: /^https?:\/\/[^/]+\/.+$/, form: 'https://host/path/file.rdb.gz' },
  redis: { pattern: /^redis:\/\/[^/]+(\/\d*)?$/, form: 'redis://:password@host:port' },
};

/**
 * Checks the sources of an import before anything is asked of the service, because a wrong one may be noticed only after
 * the database has been emptied.
 * @throws {HoldfastError} INVALID_PARAMETER, never with the URI itself
 */
export function checkSources(type: SourceType, given: string | readonly string[]): string[] {
  const uris = typeof given === 'string' ? [given] : [...given];
  const { pattern, form } = FORMS[type];
  const refuse = (problem: string, hint: string): never => {
    throw new HoldfastError('INVALID_PARAMETER', problem, { hint });
  };
  if (uris.length === 0) refuse('source_uri is empty', `Give one URI for each file, such as ${form}.`);
  if (new Set(uris).size !== uris.length) refuse('source_uri holds one URI twice', 'Give every file once.');
  if (type === 'redis' && uris.length > 1)
    refuse('source_type redis takes one source only', 'Give the URI of one Redis server.');
  uris.forEach((uri, index) => {
    const which = uris.length === 1 ? 'source_uri' : `source_uri[${index}]`;
    if (uri.length > 2048 || /[\s<>"'\\{}|^`\u0000-\u001f\u007f]/.test(uri)) {
      refuse(
        `${which} has characters that no URI may have`,
        'Give the complete URI of an existing file, with special characters percent-encoded.',
      );
    }
    if (!pattern.test(uri)) refuse(`${which} is not a URI for ${type}`, hintForForm(type, uri, form));
    if ((type === 'ftp' || type === 'http' || type === 'redis') && !hasCleanUserInfo(uri)) {
      refuse(
        `${which} has special characters in its user name or password`,
        'Percent-encode them: with raw ones the database can get stuck.',
      );
    }
  });
  return uris;
}

function hintForForm(type: SourceType, uri: string, form: string): string {
  const isLink = /^https?:\/\//i.test(uri);
  if (isLink && type !== 'http')
    return `A link, signed or public, needs source_type http; ${type} takes the form ${form}.`;
  if (uri.endsWith('/')) return `Name the file, not its folder: ${form}.`;
  return `The form is ${form}.`;
}

function hasCleanUserInfo(uri: string): boolean {
  const authority = /^[a-z]+:\/\/([^/?#]*)/.exec(uri)?.[1] ?? '';
  const at = authority.lastIndexOf('@');
  // A raw slash or question mark in a password ends the authority early; the rest then carries the `@`.
  if (at < 0) return !/^[a-z]+:\/\/[^/?#:]*:[^/?#]*[/?#][^/]*@/.test(uri) || /^https?:/.test(uri);
  return /^(?:[A-Za-z0-9\-._~!$&*+,;=:]|%[0-9A-Fa-f]{2})*$/.test(authority.slice(0, at));
}

/**
 * Checks a folder that an on-demand backup is written to. One with credentials is not taken from a caller: it belongs into
 * the configuration of the database.
 * @throws {HoldfastError} INVALID_PARAMETER, never with the path itself
 */
export function checkBackupPath(path: string): string {
  const type = storageTypeOf(path);
  const isOdd = path.length > 2048 || /[\s<>"'\\{}|^`?@\u0000-\u001f\u007f]/.test(path);
  if (type === undefined || type === 'http' || isOdd) {
    throw new HoldfastError('INVALID_PARAMETER', 'backup_path is not a place that Redis Cloud can write to', {
      hint: 'The form is s3://bucket/path/, gs://bucket/path/, abs://account/container/path/ or ftp://host/path/, without credentials: a path that needs them must be configured at the database.',
    });
  }
  return path;
}

/** Compares two paths without what differs by spelling only: credentials, brackets, a trailing slash. */
export function samePath(a: string | undefined, b: string | undefined): boolean {
  const plain = (path: string | undefined): string =>
    maskUri((path ?? '').replace(/^\[(.*)\]$/, '$1'))
      .replace('***@', '')
      .replace(/\/+$/, '');
  return plain(a) === plain(b);
}

/** Error words are upper-case tokens; anything else is free text and is not shown. */
function safeWord(word: string | undefined): string {
  return word !== undefined && /^[A-Z][A-Z0-9_]{2,139}$/.test(word) ? word : 'UNNAMED_ERROR';
}

interface ErrorRule {
  readonly when: RegExp;
  readonly code: ErrorCode;
  readonly hint?: string;
}

// The first rule that matches counts.
const TASK_ERRORS: readonly ErrorRule[] = [
  { when: /^UNAUTHORIZED$/, code: 'AUTHENTICATION_FAILED', hint: 'Check both API keys of this entity.' },
  {
    when: /^USER_INSUFFICIENT_ROLE$/,
    code: 'INSUFFICIENT_PERMISSIONS',
    hint: 'Backups and imports need the API user key of an account owner; a viewer key only reads.',
  },
  {
    when: /^(BACKUP|IMPORT)_A_FIXED_DATABASE_IS_NOT_ALLOWED_WITH_A_FLEXIBLE_SUBSCRIPTION$|_NOT_ALLOWED_WITH_A_FLEXIBLE_SUBSCRIPTION$/,
    code: 'NOT_SUPPORTED',
    hint: 'Nothing was changed. This database belongs to the other tier: correct `defines` in the entities file (redis-cloud/pro-database or redis-cloud/essentials-database).',
  },
  {
    when: /^DATABASE_IMPORT_FROM_NON_OSS$/,
    code: 'NOT_SUPPORTED',
    hint: 'Import from an open-source Redis server, or from an RDB file.',
  },
  {
    when: /^(DATABASE_NOT_FOUND|SUBSCRIPTION_NOT_FOUND|ENTITY_NOT_FOUND|DATABASE_SUBSCRIPTION_MISMATCH)$/,
    code: 'RESOURCE_NOT_FOUND',
    hint: 'Check subscription_id and database_id of this entity.',
  },
  {
    when: /^DATABASE_BACKUP_(NOT_CONFIGURED|DISABLED)$/,
    code: 'BACKUP_NOT_FOUND',
    hint: 'The database has no backup path. Set periodic_backup_path (Essentials) or remote_backup (Pro).',
  },
  {
    when: /^DATABASE_IMPORT_SOURCE_NOT_FOUND$/,
    code: 'SNAPSHOT_NOT_FOUND',
    hint: 'The file is not there, or Redis Cloud may not read it. Check the URI and the access of the vendor account.',
  },
  { when: /^(DATABASE_NAME_EXISTS|CONFLICT_ERROR)$/, code: 'RESOURCE_EXISTS' },
  {
    when: /^(DATABASE_NOT_ACTIVE|DATABASE_IS_NOT_ACTIVE|SUBSCRIPTION_NOT_ACTIVE|DATABASE_SUBSCRIPTION_IN_PENDING_STATUS|DATABASE_CLUSTER_IS_IN_MAINTENANCE|CLUSTER_UNDER_MAINTENANCE|DATABASE_IMPORT_NOT_ALLOWED)$/,
    code: 'INVALID_STATE',
    hint: 'The database takes this only while it is active. Wait, then call again.',
  },
  {
    when: /^(DATABASE_BACKUP_NOT_SUPPORTED|DATABASE_AOF_NOT_SUPPORTED|DATABASE_SNAPSHOT_NOT_SUPPORTED|FIXED_DATABASE_CLUSTER_DOES_NOT_SUPPORT_DATA_PERSISTENCE)$/,
    code: 'CLUSTER_TIER_NOT_SUPPORTED',
    hint: 'The plan of this subscription has no backups. Choose a paid plan with instant and daily backups.',
  },
  {
    when: /^DATABASE_INVALID_BACKUP_|^DATABASE_INVALID_LOCATION_BACKUP$|^DATABASE_INVALID_TOO_MANY_BACKUP_SPECIFICATIONS$|^DATABASE_INVALID_IMPORT_SOURCE_TYPE$|^DATABASE_IMPORT_(\w+_BAD_URI|URI_NOT_PROVIDED|MULTIPLE_REDIS_SOURCES|WRONG_SIZE)$|^DUPLICATE_DATABASE_IMPORT_SOURCE_PATH$|^ACTIVE_ACTIVE_(BACKUP_|INVALID_BACKUP_)|^BACKUP_(STATUS_)?REGION_NAME_IS_NOT_ALLOWED_WITH_SINGLE_REGION_SUBSCRIPTION$|^BAD_REQUEST$/,
    code: 'INVALID_PARAMETER',
  },
  {
    when: /^FIXED_DATABASE_FIXED_SUBSCRIPTION_REACHED_MAX_DATABASES_COUNT$|^DATABASE_USAGE_EXCEEDS_|_LIMIT_EXCEEDED$/,
    code: 'QUOTA_EXCEEDED',
  },
  {
    when: /^(DATABASE_BACKUP_FAILED|DATABASE_IMPORT_FAILED|DATABASE_GENERAL_ERROR_BACKUP|GENERAL_ERROR|CLUSTER_COMMUNICATION_ERROR|UNKNOWN_STATUS)$/,
    code: 'PROVIDER_UNAVAILABLE',
    hint: 'The work failed at Redis Cloud. Look at get-backup-info before trying again.',
  },
];

/** Maps the error of a task to ours; `doing` names the work, `the import`. */
export function taskError(task: Task, doing: string): HoldfastError {
  const type = task.error?.type ?? 'UNNAMED_ERROR';
  const status = task.error?.status;
  const rule = TASK_ERRORS.find(({ when }) => when.test(type)) ?? { code: codeForStatus(status ?? 500) };
  return new HoldfastError(rule.code, `Redis Cloud ended ${doing} with ${type}`, {
    hint: 'hint' in rule ? rule.hint : undefined,
    provider: { code: type, status, request_id: task.id === '' ? undefined : task.id },
  });
}

function codeForStatus(status: number): ErrorCode {
  if (status === 401) return 'AUTHENTICATION_FAILED';
  if (status === 403) return 'INSUFFICIENT_PERMISSIONS';
  if (status === 404) return 'RESOURCE_NOT_FOUND';
  if (status === 409) return 'RESOURCE_EXISTS';
  if (status === 412) return 'NOT_SUPPORTED';
  if (status === 429) return 'RATE_LIMITED';
  if (status === 408 || status >= 500) return 'PROVIDER_UNAVAILABLE';
  return 'INVALID_PARAMETER';
}

const STATUS_HINTS: Partial<Record<number, string>> = {
  401: 'Check access_key and secret_key of this entity, or REDISCLOUD_ACCESS_KEY and REDISCLOUD_SECRET_KEY.',
  403: 'Usually the CIDR allow list of the API key does not have this address, or the key belongs to a viewer; backups and imports need an owner.',
  412: 'The feature is switched off for this account.',
};

/** Maps an HTTP refusal to ours. Its body has no documented shape, so only an upper-case error word is taken from it. */
export function httpError(
  response: Pick<Response, 'status' | 'headers'>,
  body: unknown,
  what: string,
  writes: boolean,
): HoldfastError {
  const { status } = response;
  const given = isObject(body)
    ? isObject(body['error'])
      ? body['error']['type']
      : (body['type'] ?? body['error'])
    : '';
  const word = typeof given === 'string' ? safeWord(given) : 'UNNAMED_ERROR';
  const named = word === 'UNNAMED_ERROR' ? undefined : TASK_ERRORS.find(({ when }) => when.test(word));
  return new HoldfastError(named?.code ?? codeForStatus(status), `Redis Cloud answered ${status} to ${what}`, {
    hint: named?.hint ?? STATUS_HINTS[status],
    provider: {
      status,
      code: word === 'UNNAMED_ERROR' ? undefined : word,
      request_id: identifierText(response.headers.get('x-request-id')),
    },
    // A server fault may come after the request was taken.
    details: writes && (status === 408 || status >= 500) ? { outcome: 'unknown' } : undefined,
  });
}
