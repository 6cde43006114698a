import type { DatabaseAccountGetResults, RestorableDatabaseAccountGetResult } from '@azure/arm-cosmosdb';
import { type ErrorCode, HoldfastError, isAbort } from '../../core/errors.ts';
import { isObject, type JsonObject } from '../../core/json.ts';
import type { JobStatus } from '../../core/schemas.ts';
import { cleanText, identifierText } from '../../core/text.ts';
import { findHoldfastError, slim } from '../causes.ts';

export type Account = DatabaseAccountGetResults;

// --- what callers may name -----------------------------------------------------------------------------------------

const ACCOUNT = /^(?=.{3,44}$)[a-z0-9]+(-[a-z0-9]+)*$/;
const GUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Tells whether a text has the form of the ids of subscriptions and of instances of accounts. */
export function isGuid(text: string): boolean {
  return GUID.test(text);
}
const LOCATION = /^[A-Za-z0-9]+( [A-Za-z0-9]+){0,7}$/;

function refuse(parameter: string, value: string, what: string, hint: string): HoldfastError {
  return new HoldfastError('INVALID_PARAMETER', `${parameter} '${cleanText(value, 60)}' is not ${what}`, { hint });
}

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkAccountName(name: string, parameter = 'target_id'): string {
  if (ACCOUNT.test(name)) return name;
  const hint = 'Account names have 3 to 44 lower-case letters, digits and single hyphens.';
  throw refuse(parameter, name, 'an account name', hint);
}

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkInstanceId(id: string, parameter = 'source_id'): string {
  if (isGuid(id)) return id.toLowerCase();
  const hint = 'It is the instance id of list-restorable-accounts, a GUID, not the name of the account.';
  throw refuse(parameter, id, 'an instance id', hint);
}

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkLocation(location: string, parameter = 'location'): string {
  if (LOCATION.test(location) && location.length <= 60) return location;
  throw refuse(parameter, location, 'an Azure region', 'Write the name of a region, West Europe or westeurope.');
}

/** `West Europe` and `westeurope` are one region. */
export function sameLocation(a: string | undefined, b: string | undefined): boolean {
  const plain = (text: string | undefined): string => (text ?? '').replace(/\s/g, '').toLowerCase();
  return plain(a) !== '' && plain(a) === plain(b);
}

/**
 * Checks a name that the service itself gave before it becomes part of a path: a dot segment would climb out of it.
 * @throws {HoldfastError} INVALID_PARAMETER
 */
export function checkChildName(name: string): string {
  if (name !== '' && name !== '.' && name !== '..' && name.length <= 255) return name;
  throw new HoldfastError('INVALID_PARAMETER', 'a database or container has a name that cannot be part of a path');
}

// --- the APIs of an account ----------------------------------------------------------------------------------------

/** The APIs whose continuous backups can be restored by calls; `cassandra` cannot, `unknown` is one of a later release. */
export type ApiKind = 'sql' | 'mongodb' | 'gremlin' | 'table' | 'cassandra' | 'unknown';
export type RestorableApi = Exclude<ApiKind, 'cassandra' | 'unknown'>;

const APIS: Record<string, ApiKind> = {
  Sql: 'sql',
  MongoDB: 'mongodb',
  Gremlin: 'gremlin',
  GremlinV2: 'gremlin',
  Table: 'table',
  Cassandra: 'cassandra',
};

/** Gives our word for the API of a restorable account. */
export function apiOfType(type: string | undefined): ApiKind {
  return APIS[type ?? ''] ?? 'unknown';
}

/** Gives the API of a live account, which says it by its kind and its capabilities. */
export function apiOfAccount(account: Account): ApiKind {
  const has = (name: string): boolean => (account.capabilities ?? []).some((one) => one.name === name);
  if (account.kind === 'MongoDB') return 'mongodb';
  if (has('EnableGremlin') || has('EnableGremlinV2')) return 'gremlin';
  if (has('EnableTable')) return 'table';
  if (has('EnableCassandra')) return 'cassandra';
  return account.kind === undefined || account.kind === 'GlobalDocumentDB' ? 'sql' : 'unknown';
}

/**
 * Refuses the APIs that have none.
 * @throws {HoldfastError} NOT_SUPPORTED for an API without self-service restore
 */
export function restorableApi(api: ApiKind): RestorableApi {
  if (api !== 'cassandra' && api !== 'unknown') return api;
  throw new HoldfastError(
    'NOT_SUPPORTED',
    api === 'cassandra'
      ? 'accounts of the Cassandra API have no self-service restore'
      : 'the API of this account is not one that this release knows how to restore',
    { hint: 'Ask Azure support for a restore, or copy the data with its own tools.' },
  );
}

// --- restorable accounts -------------------------------------------------------------------------------------------

/** A restorable account: one life of a database account, from its creation to its deletion. */
export interface Source {
  /** The full resource id; what a restore names as its source. */
  readonly id: string;
  readonly instanceId: string;
  /** The location segment of the id, as the service spells it. */
  readonly pathLocation: string;
  readonly location: string;
  readonly accountName: string;
  readonly api: ApiKind;
  readonly apiType: string;
  readonly createdAt: string | undefined;
  readonly deletedAt: string | undefined;
  readonly oldestAt: string | undefined;
  readonly regions: readonly SourceRegion[];
}

interface SourceRegion {
  readonly name: string;
  readonly createdAt: string | undefined;
  readonly deletedAt: string | undefined;
}

const SOURCE_ID =
  /^\/subscriptions\/[^/]+\/providers\/Microsoft\.DocumentDB\/locations\/([^/]+)\/restorableDatabaseAccounts\/([^/]+)$/i;

/** Reads a restorable account; undefined for one whose id is not in the documented form. */
export function toSource(raw: RestorableDatabaseAccountGetResult): Source | undefined {
  const found = SOURCE_ID.exec(raw.id ?? '');
  const [, segment = '', instanceId = ''] = found ?? [];
  const pathLocation = decode(segment);
  if (found === null || !isGuid(instanceId) || !LOCATION.test(pathLocation)) return undefined;
  return {
    id: raw.id as string,
    instanceId: instanceId.toLowerCase(),
    pathLocation,
    location: cleanText(raw.location ?? pathLocation, 60),
    accountName: cleanText(raw.accountName, 60),
    api: apiOfType(raw.apiType),
    apiType: cleanText(raw.apiType, 40),
    createdAt: instant(raw.creationTime),
    deletedAt: instant(raw.deletionTime),
    oldestAt: instant(raw.oldestRestorableTime),
    regions: (raw.restorableLocations ?? []).map((region) => ({
      name: cleanText(region.locationName, 60),
      createdAt: instant(region.creationTime),
      deletedAt: instant(region.deletionTime),
    })),
  };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return '';
  }
}

/** Gives the regions whose backups have a moment. */
export function regionsAt(source: Source, at: string): string[] {
  return source.regions
    .filter(
      ({ createdAt, deletedAt }) =>
        (createdAt === undefined || createdAt <= at) && (deletedAt === undefined || at < deletedAt),
    )
    .map(({ name }) => name);
}

/** Gives a provider's instant as RFC 3339 UTC: ISO with or without a zone, or `10/26/2021 5:27:45 PM`, which is UTC. */
export function instant(value: Date | string | undefined | null): string | undefined {
  if (value === undefined || value === null || value === '') return undefined;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? undefined : value.toISOString();
  const american = /^(\d{1,2})\/(\d{1,2})\/(\d{4}) (\d{1,2}):(\d{2}):(\d{2})(?: ([AP])M)?$/.exec(value.trim());
  if (american) {
    const [month, day, year, hour, minute, second] = american.slice(1, 7).map(Number) as number[] & { length: 6 };
    const half = american[7];
    const hours = half === undefined ? hour! : (hour! % 12) + (half === 'P' ? 12 : 0);
    return instant(new Date(Date.UTC(year!, month! - 1, day!, hours, minute!, second!)));
  }
  const zoned = /([Zz]|[+-]\d{2}:\d{2})$/.test(value) ? value : `${value}Z`;
  return instant(new Date(zoned));
}

/** One entry of a feed of events about a database, container or table. */
export interface ResourceEvent {
  /** The name, as the service has it. */
  readonly name: string;
  readonly rid: string;
  readonly operation: string;
  readonly at: string | undefined;
  readonly canUndelete: string | undefined;
}

/** Reads an event, of whichever API. */
export function toEvent(raw: {
  resource?: {
    ownerId?: string;
    ownerResourceId?: string;
    operationType?: string;
    eventTimestamp?: string;
    canUndelete?: string;
  };
}): ResourceEvent {
  const { resource = {} } = raw;
  return {
    name: resource.ownerId ?? '',
    rid: resource.ownerResourceId ?? '',
    operation: resource.operationType ?? '',
    at: instant(resource.eventTimestamp),
    canUndelete: resource.canUndelete,
  };
}

/** The databases of an account and their containers (collections, graphs); tables stand under the database `null`. */
export type Inventory = readonly { readonly database: string | null; readonly containers: readonly string[] }[];

/** Gives `database/container` for every container, the database alone where it has none, and tables as they are. */
export function namesIn(inventory: Inventory): string[] {
  return inventory.flatMap(({ database, containers }) => {
    if (database === null) return [...containers];
    return containers.length === 0 ? [database] : containers.map((container) => `${database}/${container}`);
  });
}

// --- states --------------------------------------------------------------------------------------------------------

const STATES: Record<string, JobStatus> = {
  uninitialized: 'pending',
  initializing: 'running',
  internallyready: 'running',
  creating: 'running',
  updating: 'running',
  succeeded: 'succeeded',
  online: 'succeeded',
  failed: 'failed',
  canceled: 'cancelled',
};

/** Gives the status of the restore that makes an account, by the account's provisioning state. */
export function accountStatus(state: string | undefined): JobStatus {
  return STATES[(state ?? '').toLowerCase()] ?? 'unknown';
}

/** Tells whether an account has backups that only Azure support can restore. */
export function backupTypeIsPeriodic(account: Account): boolean {
  return account.backupPolicy?.type === 'Periodic';
}

/** Tells whether an account is there to be used. */
export function isUsable(account: Account): boolean {
  return accountStatus(account.provisioningState) === 'succeeded' && (account.documentEndpoint ?? '') !== '';
}

/** How a long-running operation stands. */
export interface OperationState {
  readonly status: JobStatus;
  readonly code: string | undefined;
  readonly retryAfterMs: number | undefined;
}

/** Reads the answer of an operation's address: every word that is not an end means that it goes on. */
export function toOperation(body: unknown, retryAfter: string | null): OperationState {
  const shape = isObject(body) ? body : {};
  const word = String(shape['status'] ?? '').toLowerCase();
  const ends: Record<string, JobStatus> = {
    succeeded: 'succeeded',
    failed: 'failed',
    canceled: 'cancelled',
    cancelled: 'cancelled',
  };
  const error = isObject(shape['error']) ? shape['error'] : {};
  return {
    status: word === '' ? 'unknown' : (ends[word] ?? 'running'),
    code: errorWord(error['code']),
    retryAfterMs: /^\d{1,5}$/.test(retryAfter ?? '') ? Number(retryAfter) * 1000 : undefined,
  };
}

/** What an operation that failed at Azure means. */
export function failedOperation(
  { code, status }: OperationState,
  what: string,
  hint: string,
  details?: JsonObject,
): HoldfastError {
  const ours = (code === undefined ? undefined : CODES[code.toLowerCase()]) ?? 'PROVIDER_UNAVAILABLE';
  const how = status === 'cancelled' ? 'was cancelled' : 'failed';
  return new HoldfastError(ours, `${what} ${how} at Azure${code === undefined ? '' : ` with ${code}`}`, {
    retryable: false,
    hint,
    provider: { code },
    ...(details === undefined ? {} : { details }),
  });
}

/** What it means that the restore into a new account failed. */
export function operationError(state: OperationState, target: string): HoldfastError {
  return failedOperation(
    state,
    'the restore',
    `A failed restore leaves an empty account: have a person look at ${target} in the Azure portal and delete it before the name is used again.`,
    { target_id: target },
  );
}

// --- errors --------------------------------------------------------------------------------------------------------

/** What a call addressed, so that its failure can be named. */
export interface Addressed {
  readonly resource: 'account' | 'restorable account' | 'operation' | 'subscription';
  /** The permission that the call needs, the smallest built-in role that has it, and where it is to be given. */
  readonly permission: string;
  readonly role: string;
  readonly scope: string;
  readonly write?: boolean;
}

const CODES: Record<string, ErrorCode> = {
  invalidauthenticationtoken: 'AUTHENTICATION_FAILED',
  expiredauthenticationtoken: 'AUTHENTICATION_FAILED',
  authenticationfailed: 'AUTHENTICATION_FAILED',
  invalidauthenticationtokentenant: 'AUTHENTICATION_FAILED',
  authorizationfailed: 'INSUFFICIENT_PERMISSIONS',
  linkedauthorizationfailed: 'INSUFFICIENT_PERMISSIONS',
  forbidden: 'INSUFFICIENT_PERMISSIONS',
  requestdisallowedbypolicy: 'INSUFFICIENT_PERMISSIONS',
  resourcenotfound: 'RESOURCE_NOT_FOUND',
  notfound: 'RESOURCE_NOT_FOUND',
  resourcegroupnotfound: 'RESOURCE_NOT_FOUND',
  subscriptionnotfound: 'RESOURCE_NOT_FOUND',
  conflict: 'RESOURCE_EXISTS',
  databaseaccountalreadyexists: 'RESOURCE_EXISTS',
  scopelocked: 'INVALID_STATE',
  anotheroperationinprogress: 'INVALID_STATE',
  operationinprogress: 'INVALID_STATE',
  preconditionfailed: 'INVALID_STATE',
  missingsubscriptionregistration: 'INVALID_STATE',
  badrequest: 'INVALID_PARAMETER',
  invalidparameter: 'INVALID_PARAMETER',
  locationnotavailableforresourcetype: 'INVALID_PARAMETER',
  invalidapiversionparameter: 'INVALID_PARAMETER',
  invalidrequestcontent: 'INVALID_PARAMETER',
  quotaexceeded: 'QUOTA_EXCEEDED',
  subscriptionquotaexceeded: 'QUOTA_EXCEEDED',
  toomanyrequests: 'RATE_LIMITED',
  subscriptionrequeststhrottled: 'RATE_LIMITED',
  serviceunavailable: 'PROVIDER_UNAVAILABLE',
  internalservererror: 'PROVIDER_UNAVAILABLE',
  gatewaytimeout: 'PROVIDER_UNAVAILABLE',
};

const MESSAGES: Partial<Record<ErrorCode, string>> = {
  AUTHENTICATION_FAILED: 'Azure refused the credentials',
  RESOURCE_EXISTS: 'the name is in use, by an account of yours or of someone else',
  INVALID_PARAMETER: 'Azure refused the request as invalid',
  QUOTA_EXCEEDED: 'a limit of the subscription is reached',
  RATE_LIMITED: 'Azure takes no more requests for the moment',
  PROVIDER_UNAVAILABLE: 'Azure gave no usable answer',
};

/** A failed call of Azure, however it was made. */
interface Failure {
  readonly status: number | undefined;
  readonly code: string | undefined;
  readonly requestId: string | undefined;
  /** Azure's own sentence; for deciding only, never for a message. */
  readonly text: string;
  readonly policy: string | undefined;
  /** The action that the caller may not perform, as Azure names it. */
  readonly action: string | undefined;
}

/** An answer with an error status, read without the SDK. */
export class FailedAnswer extends Error {
  readonly statusCode: number;
  readonly code: string | undefined;
  readonly requestId: string | undefined;
  /** The body as it came: the SDK's own errors leave parts of it out. */
  readonly details: unknown;
  constructor(status: number, body: unknown, requestId: string | null) {
    const outer = isObject(body) ? body : {};
    const error = isObject(outer['error']) ? outer['error'] : outer;
    super(typeof error['message'] === 'string' ? error['message'].slice(0, 500) : `status ${status}`);
    this.name = 'FailedAnswer';
    this.statusCode = status;
    this.code = typeof error['code'] === 'string' ? error['code'] : undefined;
    this.requestId = requestId ?? undefined;
    this.details = body;
  }
}

function errorWord(value: unknown): string | undefined {
  return typeof value === 'string' && /^[A-Za-z][A-Za-z0-9_.-]{0,79}$/.test(value) ? value : undefined;
}

function readFailure(cause: unknown): Failure {
  const shape = isObject(cause) ? cause : {};
  const response = isObject(shape['response']) ? shape['response'] : {};
  const headers = response['headers'] as { get?: (name: string) => string | undefined } | undefined;
  const id = shape['requestId'] ?? headers?.get?.('x-ms-request-id');
  const text = cause instanceof Error ? cause.message : '';
  const activity = /ActivityId: ([0-9a-f-]{36})/i.exec(text)?.[1];
  const status = typeof shape['statusCode'] === 'number' ? shape['statusCode'] : undefined;
  return {
    status,
    // A body that cannot be read gets a code of the SDK's own, which is no word of Azure's.
    code: shape['code'] === 'PARSE_ERROR' ? undefined : errorWord(shape['code']),
    requestId: identifierText(id) ?? activity,
    text: text.replace(/,?\s*ActivityId:.*$/is, ''),
    policy: policyName(shape['details']),
    action: /perform action '([\w.*/-]{1,200})'/.exec(text)?.[1],
  };
}

function policyName(details: unknown): string | undefined {
  const error = isObject(details) && isObject(details['error']) ? details['error'] : details;
  const additional = isObject(error) && Array.isArray(error['additionalInfo']) ? error['additionalInfo'] : [];
  for (const one of additional) {
    const info = isObject(one) && isObject(one['info']) ? one['info'] : {};
    const name = info['policyAssignmentName'] ?? info['policyDefinitionName'];
    if (typeof name === 'string') return cleanText(name, 100);
  }
  return undefined;
}

/** Maps what a call of Azure threw to our codes: known words first, then the status and what was addressed. */
export function toCosmosError(cause: unknown, addressed: Addressed): HoldfastError {
  const known = findHoldfastError(cause);
  if (known) return known;
  const failure = readFailure(cause);
  const { status } = failure;
  if (status === undefined || (status >= 200 && status < 300)) {
    const outcome = addressed.write === true ? { details: { outcome: 'unknown' } } : {};
    if (isAbort(cause)) {
      return new HoldfastError('CANCELLED', 'the call was cancelled', { ...outcome, cause: slim(cause) });
    }
    return new HoldfastError('PROVIDER_UNAVAILABLE', MESSAGES.PROVIDER_UNAVAILABLE as string, {
      ...outcome,
      cause: slim(cause),
    });
  }
  const code = codeOf(failure, status, addressed);
  const options = {
    provider: { status, code: failure.code, request_id: failure.requestId },
    cause: slim(cause),
    ...(addressed.write === true && (status >= 500 || status === 408) ? { details: { outcome: 'unknown' } } : {}),
  };
  if (code === 'INSUFFICIENT_PERMISSIONS') return permissionError(failure, addressed, options);
  if (code === 'INVALID_STATE') return stateError(failure, options);
  if (code === 'RESOURCE_NOT_FOUND') return notFound(failure, addressed, options);
  if (code === 'RESOURCE_EXISTS') {
    return new HoldfastError(code, MESSAGES.RESOURCE_EXISTS as string, {
      ...options,
      hint: 'Names of Cosmos DB accounts are unique in all of Azure. Choose another target_id.',
    });
  }
  return new HoldfastError(code, MESSAGES[code] ?? 'the call to Azure failed', options);
}

function codeOf({ code, text }: Failure, status: number, { write }: Addressed): ErrorCode {
  if (status === 401) return 'AUTHENTICATION_FAILED';
  if (status === 429) return 'RATE_LIMITED';
  if (/high demand in .{0,60}region/i.test(text)) return 'PROVIDER_UNAVAILABLE';
  if (status === 408 || status >= 500 || status < 400) return 'PROVIDER_UNAVAILABLE';
  if (status === 400 || status === 409) {
    if (/maximum number of|quota/i.test(text)) return 'QUOTA_EXCEEDED';
    if (/another operation|migration/i.test(text)) return 'INVALID_STATE';
    if (write === true && /already (exists|taken)/i.test(text)) return 'RESOURCE_EXISTS';
  }
  const found = CODES[(code ?? '').toLowerCase()];
  if (found !== undefined) return found;
  if (status === 403) return 'INSUFFICIENT_PERMISSIONS';
  // An answer without a word of Azure's is not Azure's own: a proxy's page.
  if (code === undefined) return 'PROVIDER_UNAVAILABLE';
  if (status === 404) return 'RESOURCE_NOT_FOUND';
  if (status === 409 || status === 412 || status === 423) return 'INVALID_STATE';
  return 'INVALID_PARAMETER';
}

type Rest = ConstructorParameters<typeof HoldfastError>[2];

function permissionError({ code, policy, action }: Failure, addressed: Addressed, options: Rest): HoldfastError {
  if ((code ?? '').toLowerCase() === 'requestdisallowedbypolicy') {
    return new HoldfastError('INSUFFICIENT_PERMISSIONS', 'an Azure policy forbids this', {
      ...options,
      hint: 'No role helps here: have whoever keeps the policies of the subscription look at it.',
      ...(policy === undefined ? {} : { details: { policy } }),
    });
  }
  const { permission, role, scope } = addressed;
  return new HoldfastError('INSUFFICIENT_PERMISSIONS', `no permission ${permission}`, {
    ...options,
    hint: `Give the caller ${permission} on ${scope}; the smallest built-in role with it is ${role}.`,
    details: { permission, role, scope, ...(action === undefined ? {} : { missing_permission: action }) },
  });
}

function stateError({ code, text }: Failure, options: Rest): HoldfastError {
  const word = (code ?? '').toLowerCase();
  if (word === 'missingsubscriptionregistration') {
    return new HoldfastError('INVALID_STATE', 'Cosmos DB is not registered in this subscription', {
      ...options,
      retryable: false,
      hint: 'Register the resource provider Microsoft.DocumentDB in the subscription, then call again.',
    });
  }
  if (word === 'scopelocked') {
    return new HoldfastError('INVALID_STATE', 'a management lock forbids this', {
      ...options,
      retryable: false,
      hint: 'Have whoever set the lock look at it; Holdfast changes no locks.',
    });
  }
  if (/migration/i.test(text)) {
    return new HoldfastError('INVALID_STATE', 'the account is moving to continuous backup', {
      ...options,
      hint: 'This takes about 90 minutes per terabyte and region. get-backup-info shows how it stands.',
    });
  }
  return new HoldfastError('INVALID_STATE', 'another operation is running, or the account is not ready', options);
}

function notFound({ code }: Failure, addressed: Addressed, options: Rest): HoldfastError {
  const word = (code ?? '').toLowerCase();
  if (word === 'resourcegroupnotfound' || word === 'subscriptionnotfound') {
    const what = word === 'resourcegroupnotfound' ? 'resource group' : 'subscription';
    return new HoldfastError('RESOURCE_NOT_FOUND', `there is no such ${what}`, {
      ...options,
      hint: 'Check subscription_id and resource_group_name of the entity.',
    });
  }
  if (addressed.resource === 'restorable account') {
    return new HoldfastError('BACKUP_NOT_FOUND', 'there is no such restorable account', {
      ...options,
      hint: 'Use source_id and location as list-restorable-accounts shows them.',
    });
  }
  return new HoldfastError('RESOURCE_NOT_FOUND', `there is no such ${addressed.resource}`, options);
}

/** Tells whether an error proves that an account does not exist in its group: Azure's own word, not a proxy's page. */
export function provesAbsence(error: unknown): boolean {
  return (
    error instanceof HoldfastError &&
    error.code === 'RESOURCE_NOT_FOUND' &&
    error.provider?.status === 404 &&
    ['resourcenotfound', 'notfound'].includes((error.provider.code ?? '').toLowerCase())
  );
}
