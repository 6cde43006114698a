import type { JsonObject } from './json.ts';

interface ErrorRow {
  /** Exit status of the command line. */
  readonly exit: number;
  /** HTTP status of the same refusal. */
  readonly http: number;
  /** Whether the same call can succeed later without anyone changing anything. */
  readonly retryable: boolean;
  readonly hint: string;
}

/** The one table of error codes: exit status, HTTP status, whether a retry can help, and the default hint. */
export const ERROR_CODES = {
  CLUSTER_TIER_NOT_SUPPORTED: {
    exit: 20,
    http: 422,
    retryable: false,
    hint: 'Use a tier that has this action, or another way to back up.',
  },
  SNAPSHOT_NOT_FOUND: {
    exit: 21,
    http: 404,
    retryable: false,
    hint: 'List the snapshots of this entity and use an id from there.',
  },
  BACKUP_NOT_FOUND: {
    exit: 21,
    http: 404,
    retryable: false,
    hint: 'List the snapshots of this entity and use an id from there.',
  },
  RESOURCE_NOT_FOUND: {
    exit: 22,
    http: 404,
    retryable: false,
    hint: 'Check the identifiers in the entities file and in the call.',
  },
  RESOURCE_EXISTS: { exit: 23, http: 409, retryable: false, hint: 'Choose a name that is not in use.' },
  INVALID_STATE: { exit: 24, http: 409, retryable: true, hint: 'Wait until the resource is ready, then call again.' },
  INVALID_PARAMETER: { exit: 2, http: 400, retryable: false, hint: 'Correct the parameter and call again.' },
  INSUFFICIENT_PERMISSIONS: {
    exit: 25,
    http: 403,
    retryable: false,
    hint: 'Give the credential the named permission.',
  },
  AUTHENTICATION_FAILED: { exit: 26, http: 401, retryable: false, hint: 'Check the credential that this entity uses.' },
  RATE_LIMITED: { exit: 27, http: 429, retryable: true, hint: 'Nothing was changed. Wait, then call again.' },
  QUOTA_EXCEEDED: { exit: 28, http: 409, retryable: false, hint: 'Raise the limit or free space, then call again.' },
  PROVIDER_UNAVAILABLE: {
    exit: 29,
    http: 503,
    retryable: true,
    hint: 'The provider did not answer properly. Try again later.',
  },
  TIMEOUT: { exit: 30, http: 504, retryable: true, hint: 'Look at the operation before calling again.' },
  NOT_SUPPORTED: { exit: 31, http: 422, retryable: false, hint: 'Use one of the alternatives named in the message.' },
  ENTITY_NOT_FOUND: {
    exit: 32,
    http: 404,
    retryable: false,
    hint: 'Use list-databases to see the configured entities.',
  },
  CONFIG_INVALID: {
    exit: 33,
    http: 500,
    retryable: false,
    hint: 'Correct the entities file; holdfast check shows every fault.',
  },
  INTEGRITY_FAILED: {
    exit: 34,
    http: 422,
    retryable: false,
    hint: 'This backup is damaged. Use another one and find out what happened to it.',
  },
  CANCELLED: { exit: 35, http: 499, retryable: false, hint: 'The call was cancelled.' },
  OPERATION_NOT_FOUND: { exit: 21, http: 404, retryable: false, hint: 'List the operations and use an id from there.' },
  STATE_UNAVAILABLE: {
    exit: 36,
    http: 503,
    retryable: true,
    hint: 'Nothing was run. Make the state directory readable and writable again, then restart Holdfast.',
  },
  AUDIT_UNAVAILABLE: {
    exit: 36,
    http: 503,
    retryable: true,
    hint: 'Nothing was run. Make the audit file in the state directory writable again.',
  },
  INTERNAL: { exit: 70, http: 500, retryable: false, hint: 'This is a fault in Holdfast. The log has the details.' },
  CONFIRMATION_REQUIRED: {
    exit: 10,
    http: 428,
    retryable: false,
    hint: 'Show the plan to a person. After approval repeat exactly this call with the confirmation token.',
  },
  CONFIRMATION_PENDING: {
    exit: 11,
    http: 428,
    retryable: true,
    hint: 'Nobody has approved this yet. Ask for approval, then repeat the call.',
  },
  CONFIRMATION_INVALID: {
    exit: 12,
    http: 403,
    retryable: false,
    hint: 'Make the call without a token to get a plan and a new token.',
  },
  CONFIRMATION_EXPIRED: {
    exit: 12,
    http: 403,
    retryable: false,
    hint: 'Make the call without a token to get a plan and a new token.',
  },
  CONFIRMATION_USED: {
    exit: 12,
    http: 403,
    retryable: false,
    hint: 'A token works once. Look at the operations before starting anything again.',
  },
  CONFIRMATION_MISMATCH: {
    exit: 12,
    http: 403,
    retryable: false,
    hint: 'The token belongs to another call or caller. Make this call without a token to get its own plan.',
  },
  CONFIRMATION_DENIED: {
    exit: 13,
    http: 403,
    retryable: false,
    hint: 'A person said no. Ask them before trying again.',
  },
  PLAN_CHANGED: {
    exit: 14,
    http: 409,
    retryable: false,
    hint: 'The target changed after the plan was made. Look at the new plan and have it approved.',
  },
  POLICY_DENIED: {
    exit: 15,
    http: 403,
    retryable: false,
    hint: 'The policy in the entities file forbids this call. No token can allow it.',
  },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof ERROR_CODES;

/** What a provider said about a failure, without any of its free text. */
export interface ProviderFault {
  code?: string | undefined;
  request_id?: string | undefined;
  status?: number | undefined;
}

export interface HoldfastErrorOptions {
  hint?: string | undefined;
  retryable?: boolean | undefined;
  details?: JsonObject | undefined;
  provider?: ProviderFault | undefined;
  cause?: unknown;
}

/** The only error class that crosses a layer. Its message holds our own words, never a provider's or a database's. */
export class HoldfastError extends Error {
  readonly code: ErrorCode;
  readonly hint: string;
  readonly retryable: boolean;
  readonly details: JsonObject | undefined;
  readonly provider: ProviderFault | undefined;

  constructor(code: ErrorCode, message: string, options: HoldfastErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'HoldfastError';
    this.code = code;
    this.hint = options.hint ?? ERROR_CODES[code].hint;
    this.retryable = options.retryable ?? ERROR_CODES[code].retryable;
    this.details = options.details;
    this.provider = options.provider;
  }

  /** Gives the error as every surface shows it. */
  toJson(): JsonObject {
    return {
      code: this.code,
      message: this.message,
      hint: this.hint,
      retryable: this.retryable,
      ...(this.details === undefined ? {} : { details: this.details }),
      ...(this.provider === undefined ? {} : { provider: { ...this.provider } }),
    };
  }
}

/** Turns anything thrown into a HoldfastError; what is not one already is a fault of ours and becomes `INTERNAL`. */
export function asHoldfastError(cause: unknown): HoldfastError {
  if (cause instanceof HoldfastError) return cause;
  if (isAbort(cause)) return new HoldfastError('CANCELLED', 'the call was cancelled', { cause });
  return new HoldfastError('INTERNAL', 'an unexpected fault stopped the call', { cause });
}

/** Tells whether an error is the abort of a signal. */
export function isAbort(cause: unknown): boolean {
  return cause instanceof Error && (cause.name === 'AbortError' || (cause as { code?: unknown }).code === 'ABORT_ERR');
}
