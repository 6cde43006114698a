import type { bigquery_v2 } from 'googleapis/build/src/apis/bigquery/v2.js';
import { type ErrorCode, HoldfastError, isAbort } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { JobStatus, RecoveryPoint, RestoreJob } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { findHoldfastError, slim } from '../causes.ts';
import { permissionDetails, readGoogleFailure } from '../google.ts';

export type Dataset = bigquery_v2.Schema$Dataset;
export type Table = bigquery_v2.Schema$Table;
export type Job = bigquery_v2.Schema$Job;
/** A row of a table list: it does not say what a snapshot is of, nor of when. */
export type Row = NonNullable<bigquery_v2.Schema$TableList['tables']>[number];

// --- names ---------------------------------------------------------------------------------------------------------

const PROJECT_PATTERN = /^(?:[a-z][a-z0-9.-]{0,80}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$/;
const DATASET_PATTERN = /^[A-Za-z0-9_]{1,1024}$/;
const TABLE_PATTERN = /^[\p{L}\p{M}\p{N}\p{Pc}\p{Pd}\p{Zs}]{1,1024}$/u;
const JOB_PATTERN = /^[A-Za-z0-9_-]{1,1024}$/;
const LOCATION_PATTERN = /^[A-Za-z0-9-]{2,60}$/;

export interface TableName {
  readonly dataset: string;
  readonly table: string;
}

function invalid(message: string, hint: string): HoldfastError {
  return new HoldfastError('INVALID_PARAMETER', message, { hint });
}

/** @throws {HoldfastError} CONFIG_INVALID */
export function checkProject(project: string): string {
  if (PROJECT_PATTERN.test(project)) return project;
  throw new HoldfastError('CONFIG_INVALID', `'${cleanText(project, 60)}' is not a Google Cloud project id`);
}

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkDataset(dataset: string, parameter = 'dataset'): string {
  if (DATASET_PATTERN.test(dataset)) return dataset;
  throw invalid(
    `${parameter} '${cleanText(dataset, 60)}' is not a dataset`,
    'Dataset names have letters, digits and underscores.',
  );
}

/** @throws {HoldfastError} INVALID_PARAMETER; a decorator would reach another moment or partition than the one shown */
export function checkTable(table: string, parameter: string): string {
  // A space at an end would make two tables look alike to whoever approves.
  if (TABLE_PATTERN.test(table) && table === table.trim()) return table;
  throw invalid(
    `${parameter} '${cleanText(table, 80)}' is not a table`,
    /[@$]/.test(table)
      ? 'Leave @ and $ out: give a moment in the parameter for it; single partitions cannot be addressed.'
      : 'Write table or dataset.table; names have letters, digits, underscores, dashes and spaces.',
  );
}

/**
 * Reads `table` or `dataset.table`.
 * @throws {HoldfastError} INVALID_PARAMETER
 */
export function parseTable(text: string, parameter: string, dataset: string): TableName {
  const dot = text.indexOf('.');
  if (dot < 0) return { dataset, table: checkTable(text, parameter) };
  return { dataset: checkDataset(text.slice(0, dot), parameter), table: checkTable(text.slice(dot + 1), parameter) };
}

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkJob(id: string): string {
  if (JOB_PATTERN.test(id)) return id;
  throw invalid(
    `job_id '${cleanText(id, 80)}' is not a BigQuery job`,
    'Give the job_id that restore or create-snapshot answered with.',
  );
}

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkLocation(location: string): string {
  if (LOCATION_PATTERN.test(location)) return location;
  throw invalid(`location '${cleanText(location, 60)}' is not a location`, 'Write one such as US or europe-west1.');
}

/** Writes a table as our parameters take it: alone in the entity's dataset, with its dataset elsewhere. */
export function shortName({ dataset, table }: TableName, own: string): string {
  return dataset === own ? table : `${dataset}.${table}`;
}

/** Writes a table in full, `project.dataset.table`. */
export function fullName(project: string, { dataset, table }: TableName): string {
  return `${project}.${dataset}.${table}`;
}

/** Tells whether two names are of the same table. */
export function isSame(a: TableName, b: TableName): boolean {
  return a.dataset === b.dataset && a.table === b.table;
}

/** Reads a reference of the API; an id of it is an identifier as long as it has the documented form, else only text. */
export function referenceOf(reference: bigquery_v2.Schema$TableReference | undefined): TableName | undefined {
  const { datasetId, tableId } = reference ?? {};
  if (!datasetId || !tableId) return undefined;
  const table = TABLE_PATTERN.test(tableId) ? tableId : cleanText(tableId, 1024);
  return { dataset: DATASET_PATTERN.test(datasetId) ? datasetId : cleanText(datasetId, 1024), table };
}

/** What a snapshot is of; undefined for no snapshot, and for one of another project's table, which no name of ours reaches. */
export function baseOf(table: Table | undefined): TableName | undefined {
  const base = table?.snapshotDefinition?.baseTableReference;
  return base?.projectId === table?.tableReference?.projectId ? referenceOf(base) : undefined;
}

/** Makes a name that ends in `_<word>_<UTC yyyymmdd_hhmmss>` and stays within the 1 024 characters of a table. */
export function stampedName(table: string, word: string, at: Date, tail = ''): string {
  const stamp = at.toISOString().slice(0, 19).replace(/[-:]/g, '').replace('T', '_');
  const end = `_${word}_${stamp}${tail}`;
  return `${[...table]
    .slice(0, 1024 - end.length)
    .join('')
    .trim()}${end}`;
}

const SAFETY = /_safety_\d{8}_\d{6}_[0-9a-f]{4}$/;

// --- times and numbers ---------------------------------------------------------------------------------------------

/** Reads epoch milliseconds that travel as text, or RFC 3339; undefined for none and for what cannot be read. */
export function instant(value: string | null | undefined): string | undefined {
  if (!value) return undefined;
  const date = new Date(/^\d+$/.test(value) ? Number(value) : value);
  return Number.isNaN(date.getTime()) ? undefined : date.toISOString();
}

/** Reads an int64 that travels as text; undefined where a number would lose digits. */
export function count(value: string | null | undefined): number | undefined {
  if (value === null || value === undefined || value === '') return undefined;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : undefined;
}

/** How far back the history of a dataset's tables reaches, in hours; 168 where BigQuery says nothing. */
export function timeTravelHours(dataset: Dataset): number {
  return count(dataset.maxTimeTravelHours) ?? 168;
}

/** The milliseconds after which new tables of a dataset vanish; undefined for never. */
export function defaultExpiration(dataset: Dataset): number | undefined {
  return count(dataset.defaultTableExpirationMs) || undefined;
}

/** The window of time travel: the whole one, or since the dataset was made. */
export function windowOf(dataset: Dataset, now: Date): { earliest_at: string; latest_at: string } {
  const reach = now.getTime() - timeTravelHours(dataset) * 3_600_000;
  const made = count(dataset.creationTime) ?? 0;
  return { earliest_at: new Date(Math.max(reach, made)).toISOString(), latest_at: now.toISOString() };
}

function time<Name extends string>(name: Name, value: string | null | undefined): Partial<Record<Name, string>> {
  const text = instant(value);
  return (text === undefined ? {} : { [name]: text }) as Partial<Record<Name, string>>;
}

// --- tables and snapshots ------------------------------------------------------------------------------------------

/** Tells whether a table is a snapshot: only BigQuery's own word counts, never a name. */
export function isSnapshot(table: { type?: string | null }): boolean {
  return table.type === 'SNAPSHOT';
}

/** Says what a table is, in lower case: `table`, `snapshot`, `view`, `external`, `materialized_view`. */
export function typeWord(table: { type?: string | null }): string {
  return cleanText(table.type, 40).toLowerCase() || 'unknown';
}

/** The hash of a table as BigQuery gives it: it changes with whatever changes in the table. */
export function etagOf(table: Table): string {
  return cleanText(table.etag, 200);
}

/** The estimated rows that wait in the streaming buffer; undefined when there is none. */
export function streamingRows(table: Table): number | undefined {
  return table.streamingBuffer === undefined || table.streamingBuffer === null
    ? undefined
    : (count(table.streamingBuffer.estimatedRows) ?? 0);
}

/** The fields of a table as `name type mode`, nested ones by their path, in order of name. */
export function fieldsOf(schema: bigquery_v2.Schema$TableSchema | undefined): string[] {
  const list = (fields: bigquery_v2.Schema$TableFieldSchema[] | undefined, under: string): string[] =>
    (fields ?? []).flatMap((field) => {
      const name = `${under}${cleanText(field.name, 300)}`;
      const own = `${name} ${cleanText(field.type, 40)} ${cleanText(field.mode, 20) || 'NULLABLE'}`;
      return [own, ...list(field.fields, `${name}.`)];
    });
  return list(schema?.fields, '').sort();
}

/** Makes a recovery point of a snapshot, or of another table that was asked for: that one is never restorable. */
export function toPoint(table: Table | Row, own: string, now: Date): RecoveryPoint {
  const name = referenceOf(table.tableReference);
  const id = name === undefined ? '' : shortName(name, own);
  const full: Table = table;
  const expires = instant(table.expirationTime);
  const gone = expires !== undefined && Date.parse(expires) <= now.getTime();
  const snapshot = isSnapshot(table);
  const status = snapshot ? (gone ? 'expired' : 'available') : 'not_a_snapshot';
  const base = baseOf(full);
  const foreign = base === undefined ? referenceOf(full.snapshotDefinition?.baseTableReference) : undefined;
  const size = count(full.numBytes);
  const rows = count(full.numRows);
  const streaming = streamingRows(full);
  const kms = full.encryptionConfiguration?.kmsKeyName;
  const description = cleanText(full.description);
  return {
    id,
    kind: snapshot ? (SAFETY.test(id) ? 'safety' : 'on_demand') : typeWord(table),
    status,
    ...time('created_at', table.creationTime),
    ...time('data_at', full.snapshotDefinition?.snapshotTime),
    ...(expires === undefined ? {} : { expires_at: expires }),
    ...(size === undefined ? {} : { size_bytes: size }),
    // BigQuery encrypts everything at rest, with Google's keys where no other is named.
    encrypted: true,
    ...(full.location ? { location: cleanText(full.location, 60) } : {}),
    restorable: status === 'available',
    ...(description === '' ? {} : { description }),
    provider: {
      type: typeWord(table),
      ...(base === undefined ? {} : { base_table: shortName(base, own) }),
      ...(foreign === undefined
        ? {}
        : {
            base_table: fullName(cleanText(full.snapshotDefinition?.baseTableReference?.projectId, 120), foreign),
          }),
      ...(rows === undefined ? {} : { rows }),
      ...(streaming === undefined ? {} : { streaming_rows: streaming }),
      ...(full.timePartitioning || full.rangePartitioning || table.timePartitioning ? { partitioned: true } : {}),
      ...(kms ? { kms_key: cleanText(kms, 300) } : {}),
    },
  };
}

// --- jobs ----------------------------------------------------------------------------------------------------------

/** Gives the status of a job; done with an error result is a failure, `errors` alone is none. */
export function jobStatus(job: Job): JobStatus {
  const { state, errorResult } = job.status ?? {};
  if (state === 'PENDING') return 'pending';
  if (state === 'RUNNING') return 'running';
  if (state !== 'DONE') return 'unknown';
  if (!errorResult) return 'succeeded';
  return errorResult.reason === 'stopped' ? 'cancelled' : 'failed';
}

/** Makes a restore job of a copy job; `usable` is known by the table only. */
export function toRestoreJob(job: Job, usable: boolean): RestoreJob {
  const { copy } = job.configuration ?? {};
  const target = referenceOf(copy?.destinationTable);
  const source = referenceOf(copy?.sourceTable ?? undefined);
  const { statistics } = job;
  const rows = count(statistics?.copy?.copiedRows);
  const bytes = count(statistics?.copy?.copiedLogicalBytes);
  const reason = job.status?.errorResult?.reason;
  return {
    job_id: cleanText(job.jobReference?.jobId, 1024),
    status: jobStatus(job),
    target: target === undefined ? 'unknown' : fullName(cleanText(copy?.destinationTable?.projectId, 120), target),
    ...time('started_at', statistics?.startTime ?? statistics?.creationTime),
    ...time('ended_at', statistics?.endTime),
    usable,
    provider: {
      operation: cleanText(copy?.operationType, 40).toLowerCase() || 'copy',
      ...(job.jobReference?.location ? { location: cleanText(job.jobReference.location, 60) } : {}),
      ...(source === undefined ? {} : { source: `${source.dataset}.${source.table}` }),
      ...(rows === undefined ? {} : { copied_rows: rows }),
      ...(bytes === undefined ? {} : { copied_bytes: bytes }),
      ...(reason ? { error_code: errorWord(reason) } : {}),
    },
  };
}

/** Throws what a job that failed at BigQuery means. */
export function jobError(job: Job, what: string): HoldfastError {
  const { reason, message } = job.status?.errorResult ?? {};
  const code = reason ? errorWord(reason) : undefined;
  const text = message ?? '';
  const known = (code === undefined ? undefined : byReason(normalise(code), text, 'table')) ?? 'PROVIDER_UNAVAILABLE';
  return new HoldfastError(known, `${what} failed at BigQuery${code === undefined ? '' : ` with ${code}`}`, {
    retryable: known === 'RATE_LIMITED',
    hint: HINTS[known] ?? 'Nothing was changed: a copy job is atomic. Look at the job in the BigQuery console.',
    provider: { code },
    details: { job_id: cleanText(job.jobReference?.jobId, 1024) },
    cause: new Error(cleanText(text, 500)),
  });
}

// --- errors --------------------------------------------------------------------------------------------------------

/** What a call addressed, so that its failure can be named. */
export interface Addressed {
  readonly resource: 'project' | 'dataset' | 'table' | 'snapshot' | 'job';
  /** The IAM permissions that the call needs, and the smallest role that has them. */
  readonly permission: string;
  readonly role: string;
  readonly write?: boolean;
}

const REASONS: Record<string, ErrorCode> = {
  autherror: 'AUTHENTICATION_FAILED',
  invalidcredentials: 'AUTHENTICATION_FAILED',
  unauthenticated: 'AUTHENTICATION_FAILED',
  accessdenied: 'INSUFFICIENT_PERMISSIONS',
  policyviolation: 'INSUFFICIENT_PERMISSIONS',
  permissiondenied: 'INSUFFICIENT_PERMISSIONS',
  forbidden: 'INSUFFICIENT_PERMISSIONS',
  billingnotenabled: 'INSUFFICIENT_PERMISSIONS',
  accessnotconfigured: 'INSUFFICIENT_PERMISSIONS',
  servicedisabled: 'INSUFFICIENT_PERMISSIONS',
  userprojectdenied: 'INSUFFICIENT_PERMISSIONS',
  blocked: 'INSUFFICIENT_PERMISSIONS',
  ratelimitexceeded: 'RATE_LIMITED',
  userratelimitexceeded: 'RATE_LIMITED',
  jobratelimitexceeded: 'RATE_LIMITED',
  duplicate: 'RESOURCE_EXISTS',
  alreadyexists: 'RESOURCE_EXISTS',
  conditionnotmet: 'INVALID_STATE',
  resourceinuse: 'INVALID_STATE',
  stopped: 'CANCELLED',
  notimplemented: 'NOT_SUPPORTED',
  unimplemented: 'NOT_SUPPORTED',
  invalidquery: 'INVALID_PARAMETER',
  invalidargument: 'INVALID_PARAMETER',
  parseerror: 'INVALID_PARAMETER',
  badrequest: 'INVALID_PARAMETER',
  required: 'INVALID_PARAMETER',
  backenderror: 'PROVIDER_UNAVAILABLE',
  internalerror: 'PROVIDER_UNAVAILABLE',
  jobbackenderror: 'PROVIDER_UNAVAILABLE',
  jobinternalerror: 'PROVIDER_UNAVAILABLE',
  tableunavailable: 'PROVIDER_UNAVAILABLE',
  resourcesexceeded: 'PROVIDER_UNAVAILABLE',
  timeout: 'PROVIDER_UNAVAILABLE',
  unavailable: 'PROVIDER_UNAVAILABLE',
};

const OF_TIME = /time travel|snapshot (?:read )?time|snapshot decorator|before (?:the )?table|invalid snapshot|window/i;
const OF_TYPE = /\bview|external|not a (?:table )?snapshot|is not (?:a table|supported|allowed)|unsupported/i;

// The reason decides: BigQuery sends rate limits as 400 and 403, and puts both into jobs that answer 200.
function byReason(reason: string, text: string, resource: Addressed['resource']): ErrorCode | undefined {
  if (reason === 'quotaexceeded') return /per second/i.test(text) ? 'RATE_LIMITED' : 'QUOTA_EXCEEDED';
  if (reason === 'notfound') {
    return resource === 'snapshot' && !isOfDataset(text) ? 'SNAPSHOT_NOT_FOUND' : 'RESOURCE_NOT_FOUND';
  }
  if (reason === 'invalid') {
    if (OF_TIME.test(text)) return 'INVALID_STATE';
    return OF_TYPE.test(text) ? 'NOT_SUPPORTED' : 'INVALID_PARAMETER';
  }
  return REASONS[reason];
}

function isOfDataset(text: string): boolean {
  return /^not found: dataset/i.test(text);
}

function normalise(reason: string): string {
  return reason.replaceAll('_', '').toLowerCase();
}

function errorWord(text: string): string {
  return text.replace(/[^A-Za-z0-9_.-]/g, '').slice(0, 80);
}

const MESSAGES: Partial<Record<ErrorCode, string>> = {
  AUTHENTICATION_FAILED: 'Google refused the credentials',
  QUOTA_EXCEEDED: 'a quota of the project is used up',
  RATE_LIMITED: 'BigQuery takes no more requests for the moment',
  SNAPSHOT_NOT_FOUND: 'there is no such snapshot',
  RESOURCE_EXISTS: 'there is a table of that name already',
  INVALID_PARAMETER: 'BigQuery refused the request as invalid',
  NOT_SUPPORTED: 'BigQuery cannot do this with a table of that type',
  PROVIDER_UNAVAILABLE: 'BigQuery gave no usable answer',
  TIMEOUT: 'BigQuery gave no answer in time',
  CANCELLED: 'the job was stopped',
  INVALID_STATE: 'the table is not in a state for this',
};

const HINTS: Partial<Record<ErrorCode, string>> = {
  INVALID_STATE:
    'Give a moment within the time travel window that get-backup-info shows, and after the table was made.',
  RESOURCE_EXISTS: 'Choose a name that is not in use.',
  RATE_LIMITED: 'Nothing was changed. Wait a minute, then call again.',
};

/** Maps what a call of the BigQuery client threw to our codes: the reason first, then the status and what was addressed. */
export function toBigQueryError(cause: unknown, addressed: Addressed): HoldfastError {
  const known = findHoldfastError(cause);
  if (known) return known;
  const unknownOutcome = addressed.write === true ? { details: { outcome: 'unknown' } } : {};
  const failure = readGoogleFailure(cause);
  if (failure.status === undefined) {
    if (isAbort(cause) && !failure.timedOut) {
      return new HoldfastError('CANCELLED', 'the call was cancelled', { ...unknownOutcome, cause: slim(cause) });
    }
    if (cause instanceof Error && /required parameters|path param/i.test(cause.message)) {
      return new HoldfastError('INTERNAL', 'a request to BigQuery was malformed and not sent', { cause: slim(cause) });
    }
    const code = failure.timedOut ? 'TIMEOUT' : 'PROVIDER_UNAVAILABLE';
    return new HoldfastError(code, String(MESSAGES[code]), { ...unknownOutcome, cause: slim(cause) });
  }
  const { status, text } = failure;
  const reason = failure.reason === undefined ? '' : normalise(failure.reason);
  const code = codeOf(status, reason, text, addressed);
  const unsure = addressed.write === true && (status >= 500 || status === 408);
  const options = {
    provider: { status, code: failure.reason },
    cause: slim(cause),
    ...(unsure ? { details: { outcome: 'unknown' } } : {}),
  };
  if (reason === 'conditionnotmet' || status === 412) {
    return new HoldfastError('PLAN_CHANGED', 'it was changed at the same time; nothing was changed', options);
  }
  if (code === 'INSUFFICIENT_PERMISSIONS') return permissionError(cause, reason, addressed, options);
  if (code === 'RESOURCE_NOT_FOUND') return missingError(text, addressed, options);
  if (code === 'INVALID_STATE') {
    const changed = reason === 'conditionnotmet';
    return new HoldfastError(code, String(changed ? 'the table changed meanwhile' : MESSAGES[code]), {
      ...options,
      retryable: false,
      hint: changed ? 'Make the call again for a new plan.' : HINTS[code],
    });
  }
  return new HoldfastError(code, MESSAGES[code] ?? 'the call to BigQuery failed', { ...options, hint: HINTS[code] });
}

function codeOf(status: number, reason: string, text: string, addressed: Addressed): ErrorCode {
  if (status === 401) return 'AUTHENTICATION_FAILED';
  const found = byReason(reason, text, addressed.resource);
  if (found !== undefined) return found;
  if (status === 501) return 'NOT_SUPPORTED';
  if (status === 408 || status >= 500) return 'PROVIDER_UNAVAILABLE';
  if (status === 429) return /per ?day/i.test(text) ? 'QUOTA_EXCEEDED' : 'RATE_LIMITED';
  if (status === 403) return 'INSUFFICIENT_PERMISSIONS';
  if (status === 409 || status === 412) return 'INVALID_STATE';
  // An answer without a reason is not the API's own: a proxy's page.
  if (reason === '' && text === '') return 'PROVIDER_UNAVAILABLE';
  if (status === 404) return addressed.resource === 'snapshot' ? 'SNAPSHOT_NOT_FOUND' : 'RESOURCE_NOT_FOUND';
  return 'INVALID_PARAMETER';
}

type Rest = ConstructorParameters<typeof HoldfastError>[2] & { details?: JsonObject };

function missingError(text: string, addressed: Addressed, options: Rest): HoldfastError {
  const dataset = addressed.resource === 'dataset' || isOfDataset(text);
  const missing = dataset ? 'dataset' : addressed.resource;
  return new HoldfastError('RESOURCE_NOT_FOUND', `there is no such ${missing}`, {
    ...options,
    details: { ...options.details, missing },
    hint: dataset
      ? 'Check project and dataset. A deleted dataset can be undeleted for days, but only while no other of its name is made: do not create it again.'
      : missing === 'job'
        ? 'Check the job id, and give location if the job ran in another one than the dataset.'
        : 'Check the name. A table deleted within the time travel window can be restored: source_table with restore_timestamp.',
  });
}

function permissionError(cause: unknown, reason: string, addressed: Addressed, options: Rest): HoldfastError {
  if (reason === 'accessnotconfigured' || reason === 'servicedisabled') {
    return new HoldfastError('INSUFFICIENT_PERMISSIONS', 'the BigQuery API is switched off in this project', {
      ...options,
      hint: 'Enable bigquery.googleapis.com in the project, wait a few minutes, then call again.',
    });
  }
  if (reason === 'billingnotenabled') {
    return new HoldfastError('INSUFFICIENT_PERMISSIONS', 'billing is off in this project', {
      ...options,
      hint: 'Enable billing for the project: the BigQuery sandbox has no table snapshots.',
    });
  }
  if (reason === 'blocked') {
    return new HoldfastError('INSUFFICIENT_PERMISSIONS', 'BigQuery has blocked this project or caller for a while', {
      ...options,
      hint: 'Too many costly requests or a billing problem. See the BigQuery console, or ask Google support.',
    });
  }
  if (reason === 'userprojectdenied') {
    return new HoldfastError('INSUFFICIENT_PERMISSIONS', 'the quota project of the credentials cannot be used', {
      ...options,
      hint: 'Give the caller serviceusage.services.use on the quota project, or set another one.',
    });
  }
  const { permission, role } = addressed;
  return new HoldfastError('INSUFFICIENT_PERMISSIONS', `no permission (${permission}) on the ${addressed.resource}`, {
    ...options,
    hint: `Give the caller ${permission}; the smallest role with it is ${role}.`,
    details: { ...options.details, ...permissionDetails(cause, addressed) },
  });
}

/** Tells whether an error proves that a table does not exist: the API's own word on the table, not a 403, not a proxy's 404. */
export function provesAbsence(error: unknown): boolean {
  return (
    error instanceof HoldfastError &&
    error.provider?.status === 404 &&
    normalise(error.provider.code ?? '') === 'notfound' &&
    (error.code === 'SNAPSHOT_NOT_FOUND' ||
      (error.code === 'RESOURCE_NOT_FOUND' && error.details?.['missing'] !== 'dataset'))
  );
}
