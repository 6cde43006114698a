import type { PermissionState } from '../core/provider.ts';
import type { Runtime } from '../core/runtime.ts';
import { type GoogleAuthorizer, type GoogleCredentials, googleAuthorizer } from './google.ts';

/** Where Google's credentials are looked for. */
export const GOOGLE_CREDENTIALS: readonly string[] = [
  'access_token of the entity: a token that ends after an hour as a rule.',
  'credentials_json or credentials_file of the entity: the JSON key of a service account or of a user.',
  'GOOGLE_APPLICATION_CREDENTIALS: the path of such a key, or of a configuration for workload identity.',
  'The file that "gcloud auth application-default login" writes.',
  'The metadata server of the machine.',
  'impersonate_service_account of the entity: whichever of these was found acts as that account (iam.serviceAccounts.getAccessToken).',
];

/**
 * Writes a custom role with these permissions as `gcloud iam roles create --file` takes it, the commands as comments.
 * What the project is called comes from the entity.
 */
export function customRole(
  title: string,
  permissions: readonly string[],
  entity: Readonly<Record<string, unknown>> = {},
): string {
  const project = String(entity['project'] ?? entity['project_id'] ?? 'PROJECT_ID');
  const id = `holdfast${title.replace(/[^A-Za-z]/g, '')}`;
  return [
    `# gcloud iam roles create ${id} --project=${project} --file=role.yaml`,
    `# gcloud projects add-iam-policy-binding ${project} --role=projects/${project}/roles/${id} --member=serviceAccount:ADDRESS`,
    `title: Holdfast for ${title}`,
    'description: What Holdfast needs, and no more',
    'stage: GA',
    'includedPermissions:',
    ...[...new Set(permissions)].sort().map((permission) => `- ${permission}`),
    '',
  ].join('\n');
}

const RESOURCE_MANAGER = 'https://cloudresourcemanager.googleapis.com';
/** As many permissions as one question may name. */
const MOST = 100;

/**
 * Asks which permissions the credentials have on a project; asking changes nothing. `refused` is what the project does
 * not grant: a grant on the resource itself, or under a condition that names it, is not seen. `unknown` where Google
 * does not answer.
 */
export async function projectGrants(
  entity: GoogleCredentials & { readonly endpoint?: string | undefined },
  runtime: Runtime,
  project: string,
  permissions: readonly string[],
  signal: AbortSignal,
): Promise<Record<string, PermissionState>> {
  const origin = entity.endpoint === undefined ? RESOURCE_MANAGER : new URL(entity.endpoint).origin;
  // The scopes of the databases' own APIs do not let anyone ask this.
  const scopes = ['https://www.googleapis.com/auth/cloud-platform'];
  const authorizer = googleAuthorizer(entity, runtime, { scopes, origin, project });
  const answer: Record<string, PermissionState> = {};
  for (let from = 0; from < permissions.length; from += MOST) {
    const asked = permissions.slice(from, from + MOST);
    const granted = await ask(
      authorizer,
      runtime,
      `${origin}/v1/projects/${project}:testIamPermissions`,
      asked,
      signal,
    );
    for (const permission of asked) {
      answer[permission] = granted === undefined ? 'unknown' : granted.includes(permission) ? 'granted' : 'refused';
    }
  }
  return answer;
}

async function ask(
  authorizer: GoogleAuthorizer,
  runtime: Runtime,
  url: string,
  permissions: readonly string[],
  signal: AbortSignal,
): Promise<readonly unknown[] | undefined> {
  const { auth } = await authorizer.ready();
  const client = await auth.getClient();
  const headers = new Headers(await client.getRequestHeaders(url));
  headers.set('content-type', 'application/json');
  const response = await runtime.fetch(url, {
    method: 'POST',
    headers,
    body: JSON.stringify({ permissions }),
    signal,
    safe: true,
  });
  if (!response.ok) return undefined;
  const body: unknown = await response.json().catch(() => undefined);
  if (typeof body !== 'object' || body === null) return undefined;
  // None at all is an empty object.
  const granted: unknown = 'permissions' in body ? body.permissions : [];
  return Array.isArray(granted) ? granted : undefined;
}
