import { z } from 'zod';
import { type ErrorCode, HoldfastError, isAbort } from '../core/errors.ts';
import { isObject, type JsonObject } from '../core/json.ts';
import type { Runtime, SecretRef } from '../core/runtime.ts';
import { SecretReference } from '../core/schemas.ts';
import { identifierText } from '../core/text.ts';

/** A region's id; it is part of host names and of every signature, so its shape is held. */
export const AwsRegion = z
  .string()
  .regex(/^[a-z]{2,4}(?:-[a-z]+)+-\d{1,2}$/, 'write the id of an AWS region, us-east-1');

/** The credential parameters that every AWS entity takes; without any of them the environment, then the SDK's own chain. */
export const awsCredentialFields = {
  access_key_id: SecretReference.optional(),
  secret_access_key: SecretReference.optional(),
  session_token: SecretReference.optional(),
  profile: z
    .string()
    .regex(/^[^\s\]]{1,100}$/, 'write the name of a profile in the AWS configuration files')
    .optional(),
};

export interface AwsCredentialFields {
  readonly access_key_id?: SecretRef | undefined;
  readonly secret_access_key?: SecretRef | undefined;
  readonly session_token?: SecretRef | undefined;
  readonly profile?: string | undefined;
}

const VARIABLES = 'AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary ones)';
const MCP_HINT = `An MCP client hands down only the variables named in the env of its configuration: name ${VARIABLES} there, or AWS_PROFILE, or set access_key_id and secret_access_key, or profile, of the entity.`;

/**
 * Makes the origin that requests go to; session tokens go there too, so only https or loopback is taken.
 * @throws {HoldfastError} CONFIG_INVALID
 */
export function awsEndpoint(endpoint: string | undefined): string | undefined {
  if (endpoint === undefined) return undefined;
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  const loopback = url !== undefined && /^(localhost|127(\.\d+){3}|\[::1\])$/.test(url.hostname);
  if (url === undefined || !(url.protocol === 'https:' || (url.protocol === 'http:' && loopback))) {
    throw new HoldfastError('CONFIG_INVALID', 'endpoint must be an https origin, or http on a loopback address', {
      hint: 'Session tokens are sent to the endpoint. Correct it in the entities file.',
    });
  }
  return url.origin;
}

// --- credentials ---------------------------------------------------------------------------------------------------

interface AwsIdentity {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string;
}

/**
 * Says where the credentials of an entity come from: its own references, its profile, the environment, else the SDK's
 * chain (AWS_PROFILE, shared files, SSO, web identity, container and instance roles). Nothing is read before the first call.
 */
function credentialsOf(
  entity: AwsCredentialFields,
  runtime: Runtime,
): { credentials: () => Promise<AwsIdentity> } | { profile: string } | Record<never, never> {
  const { access_key_id: id, secret_access_key: secret, session_token: token, profile } = entity;
  const explicit = id !== undefined || secret !== undefined || token !== undefined;
  if (explicit && (id === undefined || secret === undefined)) {
    throw new HoldfastError('CONFIG_INVALID', 'access_key_id and secret_access_key of the entity belong together', {
      hint: 'Give both by reference, ${env:NAME} or ${file:/path}, or neither.',
    });
  }
  if (explicit && profile !== undefined) {
    throw new HoldfastError('CONFIG_INVALID', 'the entity names both an access key and a profile', {
      hint: 'Keep one of them.',
    });
  }
  if (id !== undefined && secret !== undefined) {
    return {
      credentials: async () => ({
        accessKeyId: (await runtime.secret(id)).trim(),
        secretAccessKey: (await runtime.secret(secret)).trim(),
        ...(token === undefined ? {} : { sessionToken: (await runtime.secret(token)).trim() }),
      }),
    };
  }
  if (profile !== undefined) return { profile };
  const accessKeyId = runtime.credential('AWS_ACCESS_KEY_ID');
  if (accessKeyId === undefined || accessKeyId === '') return {};
  return {
    credentials: async () => {
      const secretAccessKey = runtime.credential('AWS_SECRET_ACCESS_KEY');
      if (secretAccessKey === undefined || secretAccessKey === '') {
        throw new HoldfastError('AUTHENTICATION_FAILED', 'AWS_ACCESS_KEY_ID is set, AWS_SECRET_ACCESS_KEY is not', {
          hint: MCP_HINT,
          details: { outcome: 'not_sent' },
        });
      }
      const sessionToken = runtime.credential('AWS_SESSION_TOKEN');
      return { accessKeyId, secretAccessKey, ...(sessionToken ? { sessionToken } : {}) };
    },
  };
}

// --- requests ------------------------------------------------------------------------------------------------------

/** What the SDK hands to its request handler; the part that we use. */
interface AwsRequest {
  readonly method: string;
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number | undefined;
  readonly path: string;
  readonly query?: Readonly<Record<string, string | string[] | null>> | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

export interface AwsClientOptions {
  /** Names the service in errors, `Amazon RDS`. */
  readonly title: string;
  /** The operations that change nothing although they travel as POST: `DescribeDBInstances`. */
  readonly isRead: (operation: string) => boolean;
  /** Tells whether the text of a 2xx answer is really this operation's; a proxy's page must not pass for an empty answer. */
  readonly isAnswer?: ((operation: string, text: string) => boolean) | undefined;
}

/** The part of an SDK client's configuration that is the same for every AWS service. */
export interface AwsClientConfig {
  readonly region: string;
  readonly endpoint?: string;
  readonly profile?: string;
  readonly credentials?: () => Promise<AwsIdentity>;
  readonly maxAttempts: 1;
  readonly requestHandler: Record<string, unknown>;
}

/**
 * Makes the configuration of an SDK client: region, credentials, no retry of its own, and every request through the
 * runtime's `fetch`, reads marked as such. Reads that are throttled, which AWS answers with 400, or answered with something
 * that is no answer of theirs are sent again here; nothing else is.
 * @throws {HoldfastError} CONFIG_INVALID
 */
export function awsClientConfig(
  entity: AwsCredentialFields & { readonly region: string; readonly endpoint?: string | undefined },
  runtime: Runtime,
  options: AwsClientOptions,
): AwsClientConfig {
  const endpoint = awsEndpoint(entity.endpoint);
  return {
    region: entity.region,
    ...(endpoint === undefined ? {} : { endpoint }),
    ...credentialsOf(entity, runtime),
    maxAttempts: 1,
    requestHandler: requestHandler(runtime, options),
  };
}

const THROTTLED = /(Throttl|TooManyRequests|RequestLimitExceeded|ProvisionedThroughputExceeded|SlowDown)/;
const THROTTLE_TRIES = 6;
/** How often a read is made whose answer is not the operation's own. */
const ANSWER_TRIES = 3;

/** What the SDK's own credential chain asks: it gives out tokens and changes nothing that anyone keeps. */
function isCredentialCall(request: AwsRequest, operation: string): boolean {
  if (/^(AssumeRole|AssumeRoleWithWebIdentity|GetCallerIdentity)$/.test(operation)) return true;
  return /^(oidc|signin|[a-z0-9-]+\.signin)\./.test(request.hostname) && request.path.endsWith('/token');
}

/** The operation of a request: `X-Amz-Target` of the JSON protocols, `Action` of the Query protocol. */
function operationOf(request: AwsRequest): string {
  for (const [name, value] of Object.entries(request.headers)) {
    if (name.toLowerCase() === 'x-amz-target') return value.slice(value.lastIndexOf('.') + 1);
  }
  return typeof request.body === 'string' ? (new URLSearchParams(request.body).get('Action') ?? '') : '';
}

function addressOf(request: AwsRequest): string {
  const query = Object.entries(request.query ?? {}).flatMap(([key, value]) =>
    (Array.isArray(value) ? value : [value]).map((one) =>
      one === null ? encodeURIComponent(key) : `${encodeURIComponent(key)}=${encodeURIComponent(one)}`,
    ),
  );
  const port = request.port === undefined ? '' : `:${request.port}`;
  return `${request.protocol}//${request.hostname}${port}${request.path}${query.length > 0 ? `?${query.join('&')}` : ''}`;
}

/** A role or token that is refused is no refusal by the service that it was wanted for. */
function noCredentials(status: number, operation: string): HoldfastError {
  const details = { outcome: 'not_sent' };
  const provider = { status };
  if (status >= 500 || status === 429) {
    return new HoldfastError('PROVIDER_UNAVAILABLE', 'AWS gave no credentials for the moment', { details, provider });
  }
  return new HoldfastError('AUTHENTICATION_FAILED', 'AWS refused credentials for the profile or role', {
    hint: `Look at the profile, at ${operation === '' ? 'its sign-in' : `sts:${operation}`} in the policy of the caller, and at the trust policy of the role.`,
    details,
    provider,
  });
}

function requestHandler(runtime: Runtime, { title, isRead, isAnswer }: AwsClientOptions): Record<string, unknown> {
  const handle = async (
    request: AwsRequest,
    { abortSignal: signal }: { abortSignal?: AbortSignal } = {},
  ): Promise<{ response: { statusCode: number; headers: Record<string, string>; body: unknown } }> => {
    const { Readable } = await import('node:stream');
    const operation = operationOf(request);
    const forCredentials = isCredentialCall(request, operation);
    const safe = isRead(operation) || forCredentials;
    const headers: Record<string, string> = {};
    for (const [name, value] of Object.entries(request.headers)) {
      const lower = name.toLowerCase();
      if (lower === 'x-amz-security-token') runtime.conceal(value);
      // The transport writes these two by itself, from the address and the body.
      if (lower !== 'host' && lower !== 'content-length') headers[name] = value;
    }
    let pause = 500;
    for (let turn = 1; ; turn += 1) {
      const response = await runtime.fetch(addressOf(request), {
        method: request.method,
        headers,
        ...(request.body === undefined ? {} : { body: request.body as string }),
        ...(signal === undefined ? {} : { signal }),
        ...(safe ? { safe: true } : {}),
      });
      const bytes = Buffer.from(await response.arrayBuffer());
      const isThrottled = response.status === 400 && THROTTLED.test(bytes.toString('utf8'));
      // What names no operation is the credential chain's as well.
      const isForeign =
        response.ok &&
        !forCredentials &&
        operation !== '' &&
        isAnswer !== undefined &&
        !isAnswer(operation, bytes.toString('utf8'));
      if (safe && ((isThrottled && turn < THROTTLE_TRIES) || (isForeign && turn < ANSWER_TRIES))) {
        await runtime.sleep(pause + runtime.random(1)[0]! * 2, signal);
        pause = Math.min(15_000, pause * 2);
        continue;
      }
      if (forCredentials && !response.ok) throw noCredentials(response.status, operation);
      if (isForeign) {
        throw new HoldfastError('PROVIDER_UNAVAILABLE', `${title} gave an answer that is not its own`, {
          details: { outcome: safe ? 'not_sent' : 'unknown' },
          provider: { status: response.status },
        });
      }
      return {
        response: {
          statusCode: response.status,
          headers: Object.fromEntries(response.headers),
          body: Readable.from(bytes.length === 0 ? [] : [bytes]),
        },
      };
    }
  };
  return {
    metadata: { handlerProtocol: 'http/1.1' },
    handle,
    destroy() {},
    updateHttpClientConfig() {},
    httpHandlerConfigs: () => ({}),
  };
}

// --- errors --------------------------------------------------------------------------------------------------------

/** What a failed call of an SDK client says, without any of its free text. */
export interface AwsFailure {
  /** Of the HTTP answer; undefined when there was none. */
  readonly status: number | undefined;
  /** The wire code without a trailing `Fault`, `DBSnapshotNotFound`; undefined when the answer had none. */
  readonly code: string | undefined;
  readonly requestId: string | undefined;
  /** AWS's own sentence; for deciding and for the log only, never for a message. */
  readonly text: string;
}

const WORD = /^[A-Za-z][A-Za-z0-9_.:-]{0,99}$/;

/**
 * Names that come from this side, an answer that could not be read among them: they are no codes of the service. For a
 * 404 without a code, a proxy's page, the SDK makes up NotFound.
 */
const OUR_SIDE = new Set(['Unknown', 'Error', 'NotFound', 'SyntaxError', 'TypeError']);

/** Reads the status and the wire code of a failed call. */
export function readAwsFailure(cause: unknown): AwsFailure {
  const shape = (cause instanceof Error || isObject(cause) ? cause : {}) as Record<string, unknown>;
  const metadata = isObject(shape['$metadata']) ? shape['$metadata'] : {};
  const status = typeof metadata['httpStatusCode'] === 'number' ? metadata['httpStatusCode'] : undefined;
  const given = [shape['Code'], shape['name']].find((one): one is string => typeof one === 'string' && WORD.test(one));
  return {
    status,
    code: given === undefined || OUR_SIDE.has(given) ? undefined : given.replace(/Fault$/, ''),
    requestId: identifierText(metadata['requestId']),
    text: cause instanceof Error ? cause.message : '',
  };
}

/** The account, region and resource that an ARN names. */
export interface Arn {
  readonly partition: string;
  readonly service: string;
  readonly region: string;
  readonly account: string;
  /** `db:orders`, `table/Music`. */
  readonly resource: string;
}

/** Reads an ARN; undefined for anything else. */
export function parseArn(text: unknown): Arn | undefined {
  const parts = /^arn:(aws[a-z-]*):([a-z0-9-]+):([a-z0-9-]*):(\d{12})?:([!-~]{1,1000})$/.exec(String(text ?? ''));
  if (parts === null) return undefined;
  const [, partition = '', service = '', region = '', account = '', resource = ''] = parts;
  return { partition, service, region, account, resource };
}

/** Codes that mean the same in every AWS service. */
const COMMON: Readonly<Record<string, ErrorCode>> = {
  AccessDenied: 'INSUFFICIENT_PERMISSIONS',
  AccessDeniedException: 'INSUFFICIENT_PERMISSIONS',
  UnauthorizedOperation: 'INSUFFICIENT_PERMISSIONS',
  NotAuthorized: 'INSUFFICIENT_PERMISSIONS',
  UnrecognizedClientException: 'AUTHENTICATION_FAILED',
  InvalidClientTokenId: 'AUTHENTICATION_FAILED',
  InvalidSignatureException: 'AUTHENTICATION_FAILED',
  SignatureDoesNotMatch: 'AUTHENTICATION_FAILED',
  ExpiredToken: 'AUTHENTICATION_FAILED',
  ExpiredTokenException: 'AUTHENTICATION_FAILED',
  RequestExpired: 'AUTHENTICATION_FAILED',
  IncompleteSignature: 'AUTHENTICATION_FAILED',
  IncompleteSignatureException: 'AUTHENTICATION_FAILED',
  MissingAuthenticationToken: 'AUTHENTICATION_FAILED',
  MissingAuthenticationTokenException: 'AUTHENTICATION_FAILED',
  OptInRequired: 'AUTHENTICATION_FAILED',
  CredentialsProviderError: 'AUTHENTICATION_FAILED',
  TokenProviderError: 'AUTHENTICATION_FAILED',
  Throttling: 'RATE_LIMITED',
  ThrottlingException: 'RATE_LIMITED',
  ThrottledException: 'RATE_LIMITED',
  RequestThrottled: 'RATE_LIMITED',
  RequestThrottledException: 'RATE_LIMITED',
  RequestLimitExceeded: 'RATE_LIMITED',
  TooManyRequests: 'RATE_LIMITED',
  TooManyRequestsException: 'RATE_LIMITED',
  InvalidParameterValue: 'INVALID_PARAMETER',
  InvalidParameterCombination: 'INVALID_PARAMETER',
  InvalidQueryParameter: 'INVALID_PARAMETER',
  MissingParameter: 'INVALID_PARAMETER',
  ValidationError: 'INVALID_PARAMETER',
  ValidationException: 'INVALID_PARAMETER',
  ServiceUnavailable: 'PROVIDER_UNAVAILABLE',
  InternalFailure: 'PROVIDER_UNAVAILABLE',
  InternalServerError: 'PROVIDER_UNAVAILABLE',
  TimeoutError: 'TIMEOUT',
};

/** How the failure of one call is to be named. */
export interface AwsAddressed {
  /** `Amazon RDS`. */
  readonly title: string;
  /** The IAM action that the call needs, `rds:CreateDBSnapshot`. */
  readonly permission: string;
  readonly write?: boolean | undefined;
  /** The service's own codes, without a trailing `Fault`; they come before the common ones. */
  readonly codes?: Readonly<Record<string, ErrorCode>> | undefined;
  /** Our words for a code of ours, where the general ones are not enough. */
  readonly message?:
    | ((code: ErrorCode, failure: AwsFailure) => { message: string; hint?: string } | undefined)
    | undefined;
}

/** Maps what a call of an SDK client threw to our codes: the service's codes, the common ones, then the status. */
export function toAwsError(cause: unknown, addressed: AwsAddressed): HoldfastError {
  const known = ownError(cause);
  if (known !== undefined) return known;
  const { title, permission, write = false } = addressed;
  const unknownOutcome: { details?: JsonObject } = write ? { details: { outcome: 'unknown' } } : {};
  if (isAbort(cause)) {
    return new HoldfastError('CANCELLED', `the call to ${title} was cancelled`, {
      ...unknownOutcome,
      cause: brief(cause),
    });
  }
  const failure = readAwsFailure(cause);
  const code = codeOf(failure, addressed);
  const { status } = failure;
  // A refusal changed nothing. Silence, a server's fault and an answer that cannot be read prove nothing.
  const refused = status !== undefined && status >= 400 && status < 500 && status !== 408;
  const unsent = refused || code === 'RATE_LIMITED' || code === 'AUTHENTICATION_FAILED';
  const missing = code === 'INSUFFICIENT_PERMISSIONS' ? refusedPermission(failure.text) : undefined;
  const details: JsonObject = {
    ...(code === 'INSUFFICIENT_PERMISSIONS' ? { permission } : {}),
    ...(missing === undefined ? {} : { missing_permission: missing }),
    ...(write ? { outcome: unsent ? 'not_sent' : 'unknown' } : {}),
  };
  const own = addressed.message?.(code, failure);
  const general = words(code, title, missing ?? permission, failure);
  return new HoldfastError(code, own?.message ?? general.message, {
    hint: own?.hint ?? general.hint,
    provider: { status, code: failure.code, request_id: failure.requestId },
    ...(Object.keys(details).length === 0 ? {} : { details }),
    cause: brief(cause),
  });
}

/** The permission that AWS's own sentence says is missing; it may be another than the call's, of a key for example. */
function refusedPermission(text: string): string | undefined {
  return /not authorized to perform: ([a-z0-9-]{2,40}:[A-Za-z0-9]{1,80})/.exec(text)?.[1];
}

function codeOf({ status, code }: AwsFailure, { codes = {} }: AwsAddressed): ErrorCode {
  if (code !== undefined) {
    const found = codes[code] ?? COMMON[code];
    if (found !== undefined) return found;
  }
  if (status === undefined) return 'PROVIDER_UNAVAILABLE';
  if (status === 401) return 'AUTHENTICATION_FAILED';
  if (status === 429) return 'RATE_LIMITED';
  // An answer without a code is not the service's own: a proxy's page.
  if (status >= 500 || status < 400 || code === undefined) return 'PROVIDER_UNAVAILABLE';
  if (status === 403) return 'INSUFFICIENT_PERMISSIONS';
  if (status === 404) return 'RESOURCE_NOT_FOUND';
  return 'INVALID_PARAMETER';
}

function words(
  code: ErrorCode,
  title: string,
  permission: string,
  { code: word }: AwsFailure,
): { message: string; hint?: string | undefined } {
  switch (code) {
    case 'INSUFFICIENT_PERMISSIONS':
      return {
        message: `${title} refuses this: the credentials lack ${permission}`,
        hint: 'A service control policy, a permission boundary or a session policy can deny it as well.',
      };
    case 'AUTHENTICATION_FAILED':
      return word === 'CredentialsProviderError' || word === 'TokenProviderError'
        ? {
            message: 'no AWS credentials were found (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, a profile, a role)',
            hint: MCP_HINT,
          }
        : word?.startsWith('Expired') || word === 'RequestExpired'
          ? { message: 'the AWS credentials have expired', hint: 'Get new temporary credentials, then call again.' }
          : { message: `${title} refused the credentials`, hint: MCP_HINT };
    case 'RATE_LIMITED':
      return { message: `${title} takes no more requests for the moment` };
    case 'PROVIDER_UNAVAILABLE':
      return { message: `${title} gave no usable answer` };
    case 'TIMEOUT':
      return { message: `${title} gave no answer in time` };
    case 'INVALID_PARAMETER':
      return { message: `${title} refused the request as invalid` };
    default:
      return { message: `the call to ${title} failed` };
  }
}

function ownError(cause: unknown): HoldfastError | undefined {
  let at: unknown = cause;
  for (let depth = 0; depth < 8 && at instanceof Error; depth += 1) {
    if (at instanceof HoldfastError) return at;
    at = at.cause;
  }
  return undefined;
}

/** Keeps of an SDK's error what a log may have: its name and sentence, never its `$response`, which holds the answer. */
function brief(cause: unknown): Error {
  const error = new Error((cause instanceof Error ? cause.message : 'unknown failure').slice(0, 500));
  error.name = cause instanceof Error ? cause.name : 'Error';
  return error;
}
