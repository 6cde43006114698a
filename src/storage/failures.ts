import { type ErrorCode, HoldfastError, isAbort } from '../core/errors.ts';
import { findHoldfastError } from '../providers/causes.ts';

/** What a store said when it failed, without any of its free text. */
export interface StoreFailure {
  /** Of the HTTP answer; undefined when there was none. */
  readonly status?: number | undefined;
  /** `SlowDown`, `BlobAlreadyExists`, `conditionNotMet`. */
  readonly code?: string | undefined;
  readonly requestId?: string | undefined;
}

/** How the failure of one request is to be named. */
export interface Addressed {
  /** `Amazon S3`. */
  readonly title: string;
  /** The bucket or container, for people. */
  readonly place: string;
  /** The right that the request needs, in the store's own words. */
  readonly permission: string;
}

const CODES: readonly (readonly [ErrorCode, RegExp])[] = [
  [
    'RATE_LIMITED',
    /^(?:SlowDown|SlowDownRead|SlowDownWrite|Throttl\w*|RequestLimitExceeded|TooManyRequests\w*|ServerBusy|rateLimitExceeded|userRateLimitExceeded|RESOURCE_EXHAUSTED)$/,
  ],
  [
    'QUOTA_EXCEEDED',
    /^(?:QuotaExceeded\w*|quotaExceeded|InsufficientStorage|XMinioStorageFull|XMinioAdminBucketQuotaExceeded|StorageQuotaExceeded|AccountLimitExceeded|EntityTooLarge|RequestBodyTooLarge|BlockCountExceedsLimit)$/,
  ],
  [
    'AUTHENTICATION_FAILED',
    /^(?:InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken\w*|InvalidToken|TokenRefreshRequired|RequestTimeTooSkewed|AuthenticationFailed|InvalidAuthenticationInfo|NoAuthenticationInformation|CredentialsProviderError|TokenProviderError|authError|UNAUTHENTICATED|required)$/,
  ],
  [
    'INVALID_STATE',
    /^(?:InvalidObjectState|BlobArchived|BlobBeingRehydrated|KMS\w*|KMS\..*|LeaseIdMissing|AccountBeingCreated|ContainerBeingDeleted|InvalidBlockList|InvalidPart|InvalidPartOrder|NoSuchUpload)$/,
  ],
  [
    'NOT_SUPPORTED',
    /^(?:NotImplemented|UnsupportedOperation|InvalidStorageClass|InvalidAccessTier|FeatureVersionMismatch|MethodNotAllowed)$/,
  ],
  [
    'CONFIG_INVALID',
    /^(?:PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraintException|InvalidBucketName|InvalidResourceName|EncryptionScopeNotFound)$/,
  ],
  ['RESOURCE_NOT_FOUND', /^(?:NoSuchBucket|ContainerNotFound|NoSuchKey|BlobNotFound|notFound|ResourceNotFound)$/],
  [
    'INSUFFICIENT_PERMISSIONS',
    /^(?:AccessDenied|AuthorizationFailure|AuthorizationPermissionMismatch|BlobImmutableDueToPolicy|BlobImmutableDueToLegalHold|retentionPolicyNotMet|objectUnderActiveHold)$/,
  ],
];

/** Names of a refusal because the object is there, or is another version than the one that was asked for. */
const CONDITION =
  /^(?:PreconditionFailed|ConditionalRequestConflict|BlobAlreadyExists|ConditionNotMet|conditionNotMet|TargetConditionNotMet)$/;

/** Tells whether a request was refused because its condition did not hold. */
export function isConditionFailed({ status, code }: StoreFailure): boolean {
  return code === undefined ? status === 412 : CONDITION.test(code) || status === 412;
}

/** Maps what a request to a store failed with to our codes, with a hint that says what to do. */
export function toStoreError(cause: unknown, failure: StoreFailure, addressed: Addressed, kept?: Error): HoldfastError {
  const { title, place, permission } = addressed;
  const known = findHoldfastError(cause);
  // What the transport says is about whoever shares it; it is this store that was asked.
  const silent = known !== undefined && ['PROVIDER_UNAVAILABLE', 'TIMEOUT', 'RATE_LIMITED'].includes(known.code);
  if (known !== undefined && !silent) return known;
  if (isAbort(cause)) return new HoldfastError('CANCELLED', `the call to ${title} was cancelled`, { cause: kept });
  const code = known?.code ?? codeOf(failure);
  const { message, hint } = words(code, failure, addressed);
  return new HoldfastError(code, message, {
    hint,
    ...(failure.status === undefined && failure.code === undefined
      ? {}
      : { provider: { status: failure.status, code: failure.code, request_id: failure.requestId } }),
    ...(code === 'INSUFFICIENT_PERMISSIONS'
      ? { details: { permission, store: place } }
      : { details: { store: place } }),
    cause: known ?? kept,
  });
}

function codeOf({ status, code }: StoreFailure): ErrorCode {
  const named = code === undefined ? undefined : CODES.find(([, names]) => names.test(code))?.[0];
  if (named !== undefined) return named;
  if (status === 507) return 'QUOTA_EXCEEDED';
  if (status === 401) return 'AUTHENTICATION_FAILED';
  if (status === 429) return 'RATE_LIMITED';
  if (status === 403) return 'INSUFFICIENT_PERMISSIONS';
  if (status === 404) return 'RESOURCE_NOT_FOUND';
  if (status === 501 || status === 405) return 'NOT_SUPPORTED';
  if (status === 301 || status === 307) return 'CONFIG_INVALID';
  if (status === 409 || status === 412) return 'INVALID_STATE';
  return status === undefined || status >= 500 || status < 400 || code === undefined
    ? 'PROVIDER_UNAVAILABLE'
    : 'INVALID_PARAMETER';
}

function words(
  code: ErrorCode,
  failure: StoreFailure,
  { title, place, permission }: Addressed,
): { message: string; hint?: string } {
  switch (code) {
    case 'INSUFFICIENT_PERMISSIONS':
      return {
        message: `${title} refuses ${permission} on ${place}`,
        hint: `Grant ${permission} on ${place} to the credentials of this storage; docs/storage.md has the least policy. An object under a lock or hold cannot be deleted by anyone until that ends.`,
      };
    case 'AUTHENTICATION_FAILED':
      return {
        message: `${title} does not accept the credentials of ${place}`,
        hint: 'Check the credential parameters of this storage and the clock of this machine. Nothing was written.',
      };
    case 'RESOURCE_NOT_FOUND':
      return {
        message: `${place} is not there, or not for these credentials`,
        hint: 'Holdfast makes no buckets or containers: create it, or correct its name, region or endpoint in storage.',
      };
    case 'RATE_LIMITED':
      return { message: `${title} asks for slower requests`, hint: 'Wait some minutes, then call again.' };
    case 'QUOTA_EXCEEDED':
      return {
        message: `${place} is full, or an object is larger than it takes`,
        hint: 'Free space or raise the quota, then call again. Nothing half-written was kept.',
      };
    case 'INVALID_STATE':
      return /^(?:InvalidObjectState|BlobArchived|BlobBeingRehydrated)$/.test(failure.code ?? '')
        ? {
            message: `the object is archived in ${place} and cannot be read now`,
            hint: 'Bring it back to a tier that is read at once, then call again.',
          }
        : /^KMS/.test(failure.code ?? '')
          ? {
              message: `the key that ${title} encrypts with cannot be used`,
              hint: 'Enable the key, and let these credentials use it, then call again.',
            }
          : { message: `${title} refused the request in the present state of ${place}` };
    case 'CONFIG_INVALID':
      return {
        message: `${place} is not where this storage says, or its name is none`,
        hint: 'Correct region, endpoint and the name in storage.',
      };
    case 'NOT_SUPPORTED':
      return {
        message: `${title} at ${place} does not have what the request needs`,
        hint: 'Leave out storage_class, encryption or tier in storage where this store does not have them.',
      };
    case 'INVALID_PARAMETER':
      return {
        message: `${title} did not accept a request for ${place}`,
        hint: 'Look at the encryption, class and key parameters of storage.',
      };
    case 'TIMEOUT':
      return { message: `${title} gave no answer in time` };
    default:
      return {
        message: `${title} does not answer properly for ${place}`,
        hint: 'Try again later; what was stored before is untouched.',
      };
  }
}
