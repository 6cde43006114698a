import type { JsonObject } from '../core/json.ts';

/** Where permissions hold; what they are for has to be one of these. */
export interface IamScope {
  /** ARNs, or `*` for an action that knows no narrower resource. */
  readonly resources: readonly string[];
  readonly condition?: JsonObject | undefined;
}

/**
 * Writes the IAM policy that grants these permissions and nothing else, one statement for each scope.
 * Permissions without a scope are left out: they are not for this kind of database.
 */
export function iamPolicy(
  permissions: readonly string[],
  scopeOf: (permission: string) => IamScope | undefined,
): string {
  const statements = new Map<string, { actions: string[]; scope: IamScope }>();
  for (const permission of [...new Set(permissions)].sort()) {
    const scope = scopeOf(permission);
    if (scope === undefined) continue;
    const key = JSON.stringify(scope);
    const statement = statements.get(key) ?? { actions: [], scope };
    statement.actions.push(permission);
    statements.set(key, statement);
  }
  const policy = {
    Version: '2012-10-17',
    Statement: [...statements.values()].map(({ actions, scope }) => ({
      Effect: 'Allow',
      Action: actions,
      Resource: scope.resources.length === 1 ? scope.resources[0] : scope.resources,
      ...(scope.condition === undefined ? {} : { Condition: scope.condition }),
    })),
  };
  return JSON.stringify(policy, null, 2);
}

/** Makes ARNs of one service for a policy: any account, and any region where none is given. */
export function arnsOf(service: string, region: unknown): (resource: string) => string {
  const known = typeof region === 'string' ? region : '*';
  const partition = known.startsWith('cn-') ? 'aws-cn' : known.startsWith('us-gov-') ? 'aws-us-gov' : 'aws';
  return (resource) => `arn:${partition}:${service}:${known}:*:${resource}`;
}

/** Where credentials are looked for, the same for every service. */
export const AWS_CREDENTIALS: readonly string[] = [
  'access_key_id and secret_access_key (and session_token) of the entity, references: ${env:NAME} or ${file:/path}',
  'profile of the entity, in the AWS configuration files',
  'AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN of the environment',
  "the SDK's chain: AWS_PROFILE, shared files, SSO, web identity, container and instance roles",
  'holdfast init: the region of AWS_REGION or AWS_DEFAULT_REGION',
];
