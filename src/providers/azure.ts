import type { TokenCredential } from '@azure/identity';
import { z } from 'zod';
import { HoldfastError, isAbort } from '../core/errors.ts';
import { isObject } from '../core/json.ts';
import type { Runtime, SecretRef } from '../core/runtime.ts';
import { SecretReference } from '../core/schemas.ts';
import { type AzureHttpClient, azureHttpClient } from './azure-transport.ts';
import { findHoldfastError, slim } from './causes.ts';

/** An id that is no secret: as it is, or by reference. */
const Id = z.union([
  SecretReference,
  z.string().regex(/^[A-Za-z0-9][A-Za-z0-9.-]{0,127}$/, 'write the id itself, or a reference, ${env:NAME}'),
]);

/** The credential parameters that an Azure entity takes; without any of them the environment, then Azure's own chain. */
export const azureCredentialFields = {
  tenant_id: Id.optional(),
  client_id: Id.optional(),
  client_secret: SecretReference.optional(),
  access_token: SecretReference.optional(),
};

export interface AzureCredentialFields {
  readonly tenant_id?: SecretRef | string | undefined;
  readonly client_id?: SecretRef | string | undefined;
  readonly client_secret?: SecretRef | undefined;
  readonly access_token?: SecretRef | undefined;
}

export interface AzureCloud {
  /** The origin of Azure Resource Manager. */
  readonly management: string;
  /** The origin that gives tokens. */
  readonly authority: string;
  /** What follows the name of a storage account in the host name of its blobs. */
  readonly blobs: string;
}

/** The names of the Azure clouds. */
export const AzureCloudName = z.enum(['public', 'china', 'us_government']);

const CLOUDS = {
  public: {
    management: 'https://management.azure.com',
    authority: 'https://login.microsoftonline.com',
    blobs: 'blob.core.windows.net',
  },
  china: {
    management: 'https://management.chinacloudapi.cn',
    authority: 'https://login.chinacloudapi.cn',
    blobs: 'blob.core.chinacloudapi.cn',
  },
  us_government: {
    management: 'https://management.usgovcloudapi.net',
    authority: 'https://login.microsoftonline.us',
    blobs: 'blob.core.usgovcloudapi.net',
  },
} as const;

/** Gives the hosts of an Azure cloud; the public one where none is named. */
export function azureCloud(name: keyof typeof CLOUDS | undefined): AzureCloud {
  return CLOUDS[name ?? 'public'];
}

/**
 * Makes the origin that requests go to. The bearer token goes there too: only Azure Resource Manager of the entity's own
 * cloud is taken, and loopback, where the sandbox and gateways of this machine are.
 * @throws {HoldfastError} CONFIG_INVALID
 */
export function azureOrigin(endpoint: string | undefined, management: string): string {
  if (endpoint === undefined) return management;
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  const isLoopback = url !== undefined && /^(localhost|127(\.\d+){3}|\[::1\])$/.test(url.hostname);
  if (url !== undefined && (url.origin === management || (isLoopback && /^https?:$/.test(url.protocol)))) {
    return url.origin;
  }
  throw new HoldfastError('CONFIG_INVALID', `endpoint must be ${management}, or an address of this machine`, {
    hint: 'Access tokens are sent to the endpoint, and to no host but those of Azure. Private links to Azure Resource Manager keep its name: leave endpoint out, and set cloud where it is not the public one.',
  });
}

const VARIABLES = 'AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET';
const MCP_HINT = `An MCP client hands down only the variables named in the env of its configuration: name ${VARIABLES} there, or set tenant_id, client_id and client_secret, or access_token, of the entity.`;

/** How long before its end a token is not used any more, in ms. */
const MARGIN_MS = 5 * 60_000;

/** What of the outside world credentials need. */
type AzureRuntime = Pick<Runtime, 'fetch' | 'now' | 'secret' | 'credential' | 'conceal'>;

export interface AzureAuthorizer {
  /**
   * Gives the value of the Authorization header.
   * @throws {HoldfastError} AUTHENTICATION_FAILED; PROVIDER_UNAVAILABLE when the token host does not answer
   */
  header(): Promise<string>;
}

/**
 * Prepares the credentials of one entity; reads and sends nothing before the first header is asked for. The token is for
 * an audience, Azure Resource Manager where none is named.
 */
export function azureAuthorizer(
  fields: AzureCredentialFields,
  runtime: AzureRuntime,
  cloud: AzureCloud,
  audience: string = cloud.management,
): AzureAuthorizer {
  const explicit = [fields.tenant_id, fields.client_id, fields.client_secret].filter((one) => one !== undefined).length;
  if (fields.access_token !== undefined && explicit > 0) {
    throw new HoldfastError('CONFIG_INVALID', 'the entity names more than one credential', {
      hint: 'Keep access_token, or tenant_id, client_id and client_secret.',
    });
  }
  if (fields.client_secret !== undefined && explicit < 3) {
    throw new HoldfastError('CONFIG_INVALID', 'client_secret needs tenant_id and client_id', {
      hint: 'Name all three, or none of them.',
    });
  }
  let credential: Promise<TokenCredential> | undefined;
  let held: { value: string; until: number } | undefined;
  let pending: Promise<string> | undefined;

  const host: TokenHost = { failure: undefined };

  const fetchToken = async (): Promise<string> => {
    host.failure = undefined;
    try {
      if (fields.access_token !== undefined) {
        const token = (await runtime.secret(fields.access_token)).trim();
        held = { value: token, until: Number.POSITIVE_INFINITY };
        return token;
      }
      credential ??= chooseCredential(fields, runtime, cloud, host);
      const answer = await (await credential).getToken(`${audience}/.default`);
      if (!answer?.token) throw new HoldfastError('AUTHENTICATION_FAILED', 'Azure gave no access token');
      runtime.conceal(answer.token);
      held = { value: answer.token, until: answer.expiresOnTimestamp - MARGIN_MS };
      return answer.token;
    } catch (cause) {
      credential = undefined;
      throw tokenError(cause, host.failure);
    } finally {
      pending = undefined;
    }
  };

  return {
    async header() {
      if (held !== undefined && held.until > runtime.now().getTime()) return `Bearer ${held.value}`;
      pending ??= fetchToken();
      return `Bearer ${await pending}`;
    },
  };
}

/** Why the token host gave nothing: the identity library keeps the cause of a failure to itself. */
interface TokenHost {
  failure: HoldfastError | undefined;
}

/** Sends token requests, and keeps what kept them from being answered. */
function tokenClient(runtime: AzureRuntime, host: TokenHost): AzureHttpClient {
  // Token requests change nothing; what is asked of Resource Manager never goes this way.
  const client = azureHttpClient(runtime, { admit: (url) => url, safe: () => true });
  return {
    async sendRequest(request) {
      // Another place to ask, such as a machine's metadata, may well be away.
      const isHost = new URL(request.url).hostname.startsWith('login.');
      try {
        const answer = await client.sendRequest(request);
        if (isHost && (answer.status >= 500 || answer.status === 429)) host.failure = noToken(answer.status);
        return answer;
      } catch (cause) {
        if (isHost) host.failure = findHoldfastError(cause) ?? noToken(undefined, cause);
        throw cause;
      }
    },
  };
}

function noToken(status: number | undefined, cause?: unknown): HoldfastError {
  return new HoldfastError('PROVIDER_UNAVAILABLE', 'the token host of Azure did not give a token', {
    ...(status === undefined ? {} : { provider: { status } }),
    ...(cause === undefined ? {} : { cause: slim(cause) }),
    details: { outcome: 'not_sent' },
  });
}

async function chooseCredential(
  fields: AzureCredentialFields,
  runtime: AzureRuntime,
  cloud: AzureCloud,
  host: TokenHost,
): Promise<TokenCredential> {
  const value = async (given: SecretRef | string | undefined, variable: string): Promise<string | undefined> => {
    if (given === undefined) return runtime.credential(variable);
    return typeof given === 'string' ? given : (await runtime.secret(given)).trim();
  };
  const [tenant, client] = [
    await value(fields.tenant_id, 'AZURE_TENANT_ID'),
    await value(fields.client_id, 'AZURE_CLIENT_ID'),
  ];
  const library = await import('@azure/identity');
  const options = {
    authorityHost: cloud.authority,
    httpClient: tokenClient(runtime, host),
    retryOptions: { maxRetries: 0 },
  };
  const secret =
    fields.client_secret === undefined
      ? runtime.credential('AZURE_CLIENT_SECRET')
      : (await runtime.secret(fields.client_secret)).trim();
  if (tenant !== undefined && client !== undefined) {
    if (secret !== undefined) return new library.ClientSecretCredential(tenant, client, secret, options);
    const certificatePath = runtime.credential('AZURE_CLIENT_CERTIFICATE_PATH');
    if (certificatePath !== undefined) {
      const certificatePassword = runtime.credential('AZURE_CLIENT_CERTIFICATE_PASSWORD');
      const certificate = { certificatePath, ...(certificatePassword === undefined ? {} : { certificatePassword }) };
      return new library.ClientCertificateCredential(tenant, client, certificate, options);
    }
    const tokenFilePath = runtime.credential('AZURE_FEDERATED_TOKEN_FILE');
    if (tokenFilePath !== undefined) {
      return new library.WorkloadIdentityCredential({ tenantId: tenant, clientId: client, tokenFilePath, ...options });
    }
  }
  // Workload and managed identities, then what a person is signed in with on this machine.
  return new library.DefaultAzureCredential({
    ...options,
    ...(tenant === undefined ? {} : { tenantId: tenant }),
    ...(client === undefined ? {} : { managedIdentityClientId: client }),
    processTimeoutInMs: 10_000,
  });
}

function tokenError(cause: unknown, hostFailure: HoldfastError | undefined): HoldfastError {
  const known = findHoldfastError(cause) ?? hostFailure;
  if (known) return known;
  if (isAbort(cause)) return new HoldfastError('CANCELLED', 'the call was cancelled', { cause: slim(cause) });
  const shape = isObject(cause) ? cause : {};
  const text = cause instanceof Error ? cause.message : '';
  const code = /AADSTS\d+/.exec(text)?.[0];
  const missing = shape['name'] === 'CredentialUnavailableError' || shape['name'] === 'AggregateAuthenticationError';
  return new HoldfastError(
    'AUTHENTICATION_FAILED',
    missing
      ? `no Azure credentials were found (${VARIABLES}, workload or managed identity, az login)`
      : `Azure refused the credentials${code === undefined ? '' : ` with ${code}`}`,
    {
      hint: MCP_HINT,
      ...(code === undefined ? {} : { provider: { code } }),
      details: { outcome: 'not_sent' },
      cause: slim(cause),
    },
  );
}
