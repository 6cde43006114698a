import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import type { Discovery, DiscoveryContext } from '../core/provider.ts';
import type { Runtime, SecretRef } from '../core/runtime.ts';
import { type AwsCredentialFields, AwsRegion } from './aws.ts';
import { type Attempt, attempts } from './discovery.ts';

/** Whose account is looked through, and where. */
export type AwsAccess = AwsCredentialFields & { readonly region: string; readonly endpoint?: string | undefined };

/** Variables that only somebody with an AWS account sets. */
const SIGNS = [
  'AWS_ACCESS_KEY_ID',
  'AWS_PROFILE',
  'AWS_WEB_IDENTITY_TOKEN_FILE',
  'AWS_CONTAINER_CREDENTIALS_RELATIVE_URI',
  'AWS_CONTAINER_CREDENTIALS_FULL_URI',
];

/**
 * Without a sign of credentials nothing is asked: the SDK's chain would ask the network for those of an instance. Who
 * names a region means AWS, and may run on such an instance.
 */
function hasSign(access: Readonly<Record<string, unknown>>, runtime: Runtime): boolean {
  if (Object.keys(access).length > 0) return true;
  if (SIGNS.some((name) => runtime.credential(name) !== undefined)) return true;
  const files = [
    runtime.credential('AWS_SHARED_CREDENTIALS_FILE') ?? join(homedir(), '.aws', 'credentials'),
    runtime.credential('AWS_CONFIG_FILE') ?? join(homedir(), '.aws', 'config'),
  ];
  return files.some((path) => existsSync(path));
}

function regionOf(access: Readonly<Record<string, unknown>>, runtime: Runtime): string | undefined {
  const given = access['region'] ?? runtime.credential('AWS_REGION') ?? runtime.credential('AWS_DEFAULT_REGION');
  const region = AwsRegion.safeParse(given);
  return region.success ? region.data : undefined;
}

/**
 * Looks through one region of an account by `look`; undefined where no credentials are found. A call that is refused is a
 * problem of the discovery, not its end.
 * @throws {HoldfastError} AUTHENTICATION_FAILED where AWS does not take the credentials
 */
export async function lookThrough(
  { access, endpoint, runtime }: DiscoveryContext,
  look: (access: AwsAccess, attempt: Attempt) => Promise<Pick<Discovery, 'found'> & { account: string | undefined }>,
): Promise<Discovery | undefined> {
  if (!hasSign(access, runtime)) return undefined;
  const region = regionOf(access, runtime);
  if (region === undefined) {
    const problem = 'no region is named: set AWS_REGION, or give region';
    return { looked: 'AWS, nowhere', found: [], problems: [problem] };
  }
  const problems: string[] = [];
  try {
    const { found, account } = await look({ ...credentialsIn(access), region, endpoint }, attempts(problems));
    return { looked: `AWS${account ? ` account ${account}` : ''}, ${region}`, found, problems };
  } catch (cause) {
    const code = cause instanceof HoldfastError ? cause.provider?.code : undefined;
    if (code === 'CredentialsProviderError') return undefined;
    throw cause;
  }
}

function credentialsIn(access: Readonly<Record<string, unknown>>): AwsCredentialFields {
  const secret = (name: string): SecretRef | undefined => {
    const value = access[name];
    return typeof value === 'object' && value !== null && 'secret' in value ? (value as SecretRef) : undefined;
  };
  return {
    access_key_id: secret('access_key_id'),
    secret_access_key: secret('secret_access_key'),
    session_token: secret('session_token'),
    profile: typeof access['profile'] === 'string' ? access['profile'] : undefined,
  };
}
