import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Discovered, Discovery, DiscoveryContext } from '../core/provider.ts';
import type { Runtime, SecretRef } from '../core/runtime.ts';
import { type Attempt, attempts } from './discovery.ts';
import {
  type GoogleAuthorizer,
  type GoogleCredentials,
  googleAuthorizer,
  googleOrigin,
  googleProjectOf,
} from './google.ts';

/** What a client of one project is made of. */
export interface ProjectAccess {
  readonly project: string;
  readonly origin: string;
  readonly authorizer: GoogleAuthorizer;
  readonly runtime: Runtime;
}

/** Variables that only somebody with a Google Cloud project sets, or a machine of Google's. */
const SIGNS = [
  'GOOGLE_APPLICATION_CREDENTIALS',
  'GOOGLE_CLOUD_PROJECT',
  'GCLOUD_PROJECT',
  'GCE_METADATA_HOST',
  'K_SERVICE',
];

/**
 * Without a sign of credentials nothing is asked: the library would ask the network for a metadata server. Who names a
 * project means Google Cloud, and may run on such a machine.
 */
function hasSign(access: Readonly<Record<string, unknown>>, runtime: Runtime): boolean {
  if (Object.keys(access).length > 0) return true;
  if (SIGNS.some((name) => runtime.credential(name) !== undefined)) return true;
  const folder = runtime.credential('CLOUDSDK_CONFIG') ?? join(homedir(), '.config', 'gcloud');
  return existsSync(join(folder, 'application_default_credentials.json'));
}

/**
 * Looks through one project by `look`; undefined where no credentials are found. A call that is refused is a problem of
 * the discovery, not its end.
 * @throws {HoldfastError} AUTHENTICATION_FAILED where Google does not take the credentials
 */
export async function lookThroughProject(
  { access, endpoint, runtime }: DiscoveryContext,
  api: { readonly origin: string; readonly scope: string },
  look: (access: ProjectAccess, attempt: Attempt, problems: string[]) => Promise<readonly Discovered[]>,
): Promise<Discovery | undefined> {
  if (!hasSign(access, runtime)) return undefined;
  const credentials = credentialsIn(access);
  const named = googleProjectOf({ ...credentials, ...projectIn(access) });
  const origin = googleOrigin(endpoint, api.origin);
  const wide = credentials.impersonate_service_account !== undefined;
  const scopes = [`https://www.googleapis.com/auth/${wide ? 'cloud-platform' : api.scope}`];
  const authorizer = googleAuthorizer(credentials, runtime, { scopes, origin, project: named });
  const project = named ?? runtime.credential('GOOGLE_CLOUD_PROJECT') ?? (await authorizer.project());
  if (project === undefined) {
    const problem = 'no project is named: set GOOGLE_CLOUD_PROJECT, or give project';
    return { looked: 'Google Cloud, nowhere', found: [], problems: [problem] };
  }
  const problems: string[] = [];
  const found = await look({ project, origin, authorizer, runtime }, attempts(problems), problems);
  return { looked: `Google Cloud project ${project}`, found, problems };
}

function projectIn(access: Readonly<Record<string, unknown>>): { project?: string; project_id?: string } {
  const { project, project_id } = access;
  return {
    ...(typeof project === 'string' ? { project } : {}),
    ...(typeof project_id === 'string' ? { project_id } : {}),
  };
}

function credentialsIn(access: Readonly<Record<string, unknown>>): GoogleCredentials {
  const secret = (name: string): SecretRef | undefined => {
    const value = access[name];
    return typeof value === 'object' && value !== null && 'secret' in value ? (value as SecretRef) : undefined;
  };
  const principal = access['impersonate_service_account'];
  return {
    access_token: secret('access_token'),
    credentials_json: secret('credentials_json'),
    credentials_file: secret('credentials_file'),
    impersonate_service_account: typeof principal === 'string' ? principal : undefined,
  };
}
