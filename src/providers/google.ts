import type { AuthClient, GoogleAuth } from 'google-auth-library';
import { z } from 'zod';
import { HoldfastError, isAbort } from '../core/errors.ts';
import { isObject, type JsonObject } from '../core/json.ts';
import type { Runtime, SecretRef } from '../core/runtime.ts';
import { SecretReference } from '../core/schemas.ts';
import { findHoldfastError, slim } from './causes.ts';

/** The credential parameters that every Google entity takes; without any of them, application default credentials. */
export const googleCredentialFields = {
  credentials_file: SecretReference.optional(),
  credentials_json: SecretReference.optional(),
  access_token: SecretReference.optional(),
  impersonate_service_account: z
    .string()
    .regex(/^[a-z0-9][a-z0-9.-]*@[a-z0-9][a-z0-9.-]*\.[a-z]+$/, 'write the e-mail address of a service account')
    .optional(),
};

/** The id of a project, with its domain where it has one. */
export const GoogleProject = z
  .string()
  .regex(/^(?:[a-z][a-z0-9.-]{0,80}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$/, 'write the id of a Google Cloud project');

export interface GoogleCredentials {
  readonly credentials_file?: SecretRef | undefined;
  readonly credentials_json?: SecretRef | undefined;
  readonly access_token?: SecretRef | undefined;
  readonly impersonate_service_account?: string | undefined;
}

/** Who calls Google: the auth object for its clients, and the project that the credentials belong to. */
export interface GoogleIdentity {
  readonly auth: GoogleAuth;
  /** The service account's own address, where it is known. */
  readonly email: string | undefined;
}

export interface GoogleAuthorizer {
  /**
   * Gives the auth object once it holds a valid token.
   * @throws {HoldfastError} AUTHENTICATION_FAILED; PROVIDER_UNAVAILABLE when the token host does not answer
   */
  ready(): Promise<GoogleIdentity>;
  /** The project of the credentials, for entities that name none. */
  project(): Promise<string | undefined>;
}

/**
 * Gives the project that an entity names, if it names one.
 * @throws {HoldfastError} CONFIG_INVALID where its parameters contradict each other
 */
export function googleProjectOf(
  entity: GoogleCredentials & { readonly project?: string | undefined; readonly project_id?: string | undefined },
): string | undefined {
  if (entity.project !== undefined && entity.project_id !== undefined && entity.project !== entity.project_id) {
    throw new HoldfastError('CONFIG_INVALID', 'project and project_id of the entity differ', {
      hint: 'Keep one of them.',
    });
  }
  const explicit = [entity.access_token, entity.credentials_json, entity.credentials_file].filter(
    (given) => given !== undefined,
  );
  if (explicit.length > 1) {
    throw new HoldfastError('CONFIG_INVALID', 'the entity names more than one credential', {
      hint: 'Keep one of access_token, credentials_json and credentials_file.',
    });
  }
  return entity.project ?? entity.project_id;
}

const MCP_HINT =
  'An MCP client hands down only the variables named in the env of its configuration: name GOOGLE_APPLICATION_CREDENTIALS there, or set credentials_file, credentials_json or access_token of the entity.';

/**
 * Makes the origin that requests go to; the bearer token goes there too, so only https or loopback is taken.
 * @throws {HoldfastError} CONFIG_INVALID
 */
export function googleOrigin(endpoint: string | undefined, fallback: string): string {
  if (endpoint === undefined) return fallback;
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  const loopback = url !== undefined && /^(localhost|127(\.\d+){3}|\[::1\])$/.test(url.hostname);
  if (url === undefined || !(url.protocol === 'https:' || (url.protocol === 'http:' && loopback))) {
    throw new HoldfastError('CONFIG_INVALID', 'endpoint must be an https origin, or http on a loopback address', {
      hint: 'Access tokens are sent to the endpoint. Correct it in the entities file.',
    });
  }
  return url.origin;
}

type FetchLike = (url: unknown, init?: RequestInit) => Promise<Response>;

/** Makes the `fetchImplementation` of a Google client: our fetch, with only what belongs to the request. */
export function googleFetch(runtime: Runtime, safe: (url: URL) => boolean = () => false): typeof globalThis.fetch {
  const send: FetchLike = (url, init = {}) => {
    const address = url instanceof Request ? url.url : String(url);
    return runtime.fetch(address, {
      method: init.method ?? 'GET',
      ...(init.headers === undefined ? {} : { headers: init.headers }),
      ...(init.body === undefined || init.body === null ? {} : { body: init.body }),
      ...(init.signal === undefined || init.signal === null ? {} : { signal: init.signal }),
      ...(safe(new URL(address)) ? { safe: true } : {}),
    });
  };
  return send as typeof globalThis.fetch;
}

/**
 * Finds the project of an entity once: the one that it names, else that of the credentials. One that was not found is
 * looked for again at the next call.
 * @throws {HoldfastError} CONFIG_INVALID where neither names one, and what `check` throws
 */
export function googleProjectFinder(
  authorizer: Pick<GoogleAuthorizer, 'project'>,
  named: string | undefined,
  check: (project: string) => string,
): () => Promise<string> {
  const find = async (): Promise<string> => {
    const found = named ?? (await authorizer.project());
    if (found !== undefined) return check(found);
    throw new HoldfastError('CONFIG_INVALID', 'no Google Cloud project is named', {
      hint: 'Add project to the entity.',
    });
  };
  let known: Promise<string> | undefined;
  return () => {
    known ??= find().catch((cause: unknown) => {
      known = undefined;
      throw cause;
    });
    return known;
  };
}

/** The limit of a whole call in ms: reads may wait for their turn and be repeated, a write is sent once. */
export function googleTimeout(writes: boolean): number {
  return writes ? 90_000 : 150_000;
}

/** Prepares the credentials of one entity; reads and sends nothing before `ready` is called. */
export function googleAuthorizer(
  credentials: GoogleCredentials,
  runtime: Runtime,
  options: { scopes: string[]; origin: string; project?: string | undefined },
): GoogleAuthorizer {
  let pending: Promise<GoogleIdentity> | undefined;
  const identity = (): Promise<GoogleIdentity> => {
    pending ??= identify(credentials, runtime, options).catch((cause: unknown) => {
      pending = undefined;
      throw cause;
    });
    return pending;
  };
  return {
    async ready() {
      try {
        const found = await identity();
        const client = await found.auth.getClient();
        const { token } = await client.getAccessToken();
        if (!token) throw new HoldfastError('AUTHENTICATION_FAILED', 'Google gave no access token');
        runtime.conceal(token);
        return found;
      } catch (cause) {
        throw tokenError(cause);
      }
    },
    async project() {
      try {
        const { auth } = await identity();
        return await auth.getProjectId();
      } catch (cause) {
        const known = findHoldfastError(cause);
        if (known) throw known;
        return undefined;
      }
    },
  };
}

async function identify(
  credentials: GoogleCredentials,
  runtime: Runtime,
  options: { scopes: string[]; origin: string; project?: string | undefined },
): Promise<GoogleIdentity> {
  const library = await import('google-auth-library');
  const { scopes, origin } = options;
  // Token requests are POSTs that change nothing; the API itself is never reached as safe by this way.
  const transporterOptions = { fetchImplementation: googleFetch(runtime, (url) => url.origin !== origin) };
  let projectId = options.project;
  let email: string | undefined;
  let source: AuthClient | undefined;

  if (credentials.access_token !== undefined) {
    const token = (await runtime.secret(credentials.access_token)).trim();
    source = new library.OAuth2Client({ transporterOptions });
    source.setCredentials({ access_token: token });
  } else if (credentials.credentials_json !== undefined || credentials.credentials_file !== undefined) {
    const key = await readKey(credentials, runtime);
    projectId ??= key.project;
    if (key.kind === 'service_account') {
      email = key.email;
      source = new library.JWT({ email: key.email, key: key.key, scopes, transporterOptions });
    } else {
      const { clientId, clientSecret, refreshToken } = key;
      source = new library.UserRefreshClient({ clientId, clientSecret, refreshToken, transporterOptions });
    }
  }

  const principal = credentials.impersonate_service_account;
  // A project id that is given keeps the library from asking the gcloud program for one.
  const known = projectId === undefined ? {} : { projectId };
  if (principal !== undefined) {
    source ??= await new library.GoogleAuth({ scopes, ...known, clientOptions: { transporterOptions } }).getClient();
    const authClient = new library.Impersonated({
      sourceClient: source,
      targetPrincipal: principal,
      delegates: [],
      lifetime: 3600,
      targetScopes: scopes,
      transporterOptions,
    });
    return { auth: new library.GoogleAuth({ authClient, ...known }) as GoogleAuth, email: principal };
  }
  const auth =
    source === undefined
      ? new library.GoogleAuth({ scopes, ...known, clientOptions: { transporterOptions } })
      : new library.GoogleAuth({ authClient: source, ...known });
  return { auth: auth as GoogleAuth, email };
}

type Key =
  | { kind: 'service_account'; email: string; key: string; project: string | undefined }
  | { kind: 'authorized_user'; clientId: string; clientSecret: string; refreshToken: string; project: undefined };

async function readKey(credentials: GoogleCredentials, runtime: Runtime): Promise<Key> {
  const parameter = credentials.credentials_json === undefined ? 'credentials_file' : 'credentials_json';
  const refused = (problem: string, cause?: unknown): HoldfastError =>
    new HoldfastError('AUTHENTICATION_FAILED', `${parameter} ${problem}`, {
      cause,
      hint: 'Give the JSON key of a service account; for workload identity leave the parameter out and set GOOGLE_APPLICATION_CREDENTIALS.',
    });
  let text: string;
  if (credentials.credentials_json !== undefined) text = await runtime.secret(credentials.credentials_json);
  else {
    const reference = credentials.credentials_file as SecretRef;
    text = await runtime.secret(reference);
    // A variable may hold the path of the file, as GOOGLE_APPLICATION_CREDENTIALS does.
    if (reference.secret === 'env' && !text.trimStart().startsWith('{')) {
      text = await runtime.secret({ secret: 'file', name: text.trim() });
    }
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw refused('does not hold JSON');
  }
  if (!isObject(json)) throw refused('does not hold a JSON object');
  const field = (name: string): string => {
    const value = json[name];
    if (typeof value !== 'string' || value === '') throw refused(`lacks '${name}'`);
    return value;
  };
  if (json['type'] === 'service_account') {
    const key = field('private_key');
    runtime.conceal(key);
    const project = json['project_id'];
    return {
      kind: 'service_account',
      email: field('client_email'),
      key,
      project: typeof project === 'string' ? project : undefined,
    };
  }
  if (json['type'] === 'authorized_user') {
    const clientSecret = field('client_secret');
    const refreshToken = field('refresh_token');
    runtime.conceal(clientSecret);
    runtime.conceal(refreshToken);
    return { kind: 'authorized_user', clientId: field('client_id'), clientSecret, refreshToken, project: undefined };
  }
  throw refused('holds another type of credentials than service_account or authorized_user');
}

function tokenError(cause: unknown): HoldfastError {
  const known = findHoldfastError(cause);
  if (known) return known;
  if (isAbort(cause)) return new HoldfastError('CANCELLED', 'the call was cancelled', { cause: slim(cause) });
  const failure = readGoogleFailure(cause);
  if (failure.status !== undefined && (failure.status >= 500 || failure.status === 429)) {
    return new HoldfastError('PROVIDER_UNAVAILABLE', 'the token host of Google did not give a token', {
      provider: { status: failure.status, code: failure.reason },
      cause: slim(cause),
      details: { outcome: 'not_sent' },
    });
  }
  const text = cause instanceof Error ? cause.message : '';
  const missing = /default credentials|credential file/i.test(text);
  const impersonating = /impersonate/i.test(text);
  return new HoldfastError(
    'AUTHENTICATION_FAILED',
    missing
      ? 'no Google credentials were found (GOOGLE_APPLICATION_CREDENTIALS, gcloud user credentials, metadata server)'
      : impersonating
        ? 'the service account cannot be impersonated'
        : 'Google refused the credentials',
    {
      hint: impersonating
        ? 'Give the caller roles/iam.serviceAccountTokenCreator (iam.serviceAccounts.getAccessToken) on that service account.'
        : MCP_HINT,
      ...(failure.status === undefined ? {} : { provider: { status: failure.status, code: failure.reason } }),
      details: { outcome: 'not_sent' },
      cause: slim(cause),
    },
  );
}

/** What a failed call of a Google client says, without any of its free text. */
export interface GoogleFailure {
  /** Of the HTTP answer; undefined when there was none. */
  readonly status: number | undefined;
  /** `instanceDoesNotExist`, `RATE_LIMIT_EXCEEDED`, else the status word of the error, `PERMISSION_DENIED`. */
  readonly reason: string | undefined;
  /** `PERMISSION_DENIED`, `INVALID_ARGUMENT`. */
  readonly word: string | undefined;
  /** Google's own sentence; for deciding and for the log only, never for a message. */
  readonly text: string;
  /** The IAM permission that Google says is missing. */
  readonly permission: string | undefined;
  readonly timedOut: boolean;
}

const WORD = /^[A-Za-z][A-Za-z0-9_.-]{0,79}$/;

/** Reads the status and the reason of a failed call: `errors[0].reason`, else an ErrorInfo's reason, else the status word. */
export function readGoogleFailure(cause: unknown): GoogleFailure {
  const shape = isObject(cause) ? cause : {};
  const response = isObject(shape['response']) ? shape['response'] : undefined;
  const status = typeof response?.['status'] === 'number' ? response['status'] : undefined;
  const data = isObject(response?.['data']) ? response['data'] : {};
  const timedOut = shape['code'] === 'TimeoutError';
  const word = (value: unknown): string | undefined =>
    typeof value === 'string' && WORD.test(value) ? value : undefined;
  if (typeof data['error'] === 'string') {
    return {
      status,
      reason: word(data['error']),
      word: undefined,
      text: String(data['error_description'] ?? ''),
      permission: undefined,
      timedOut,
    };
  }
  const error = isObject(data['error']) ? data['error'] : {};
  const first = Array.isArray(error['errors']) && isObject(error['errors'][0]) ? error['errors'][0] : {};
  const details = Array.isArray(error['details']) ? error['details'].filter(isObject) : [];
  const info = details.find((detail) => String(detail['@type'] ?? '').endsWith('ErrorInfo'));
  const statusWord = word(error['status']);
  return {
    status,
    reason: word(first['reason']) ?? word(info?.['reason']) ?? statusWord,
    word: statusWord,
    text: typeof error['message'] === 'string' ? error['message'] : '',
    permission: refusedPermission(info, error['message']),
    timedOut,
  };
}

const PERMISSION = /(?<![\w.])(?:cloudsql|datastore|bigquery|storage)\.[a-zA-Z]{1,60}\.[a-zA-Z]{1,60}(?![\w.])/;

// Newer services name it apart, others in their sentence.
function refusedPermission(info: Record<string, unknown> | undefined, message: unknown): string | undefined {
  const metadata = isObject(info?.['metadata']) ? info['metadata'] : {};
  return PERMISSION.exec(String(metadata['permission'] ?? message ?? ''))?.[0];
}

/** Gives what a refusal says of the permissions: the one that Google names, the ones that the call needs, and their role. */
export function permissionDetails(
  cause: unknown,
  { permission, role }: { readonly permission: string; readonly role: string },
): JsonObject {
  const missing = readGoogleFailure(cause).permission;
  return { ...(missing === undefined ? {} : { missing_permission: missing }), permission, role };
}
