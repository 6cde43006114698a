import { unless } from '../rest.ts';
import type { RolePermissions } from './client.ts';
import type { Context } from './info.ts';

type Answer = 'granted' | 'refused' | 'unknown';

/** `*` stands for any text, slashes too; case means nothing. */
function matches(pattern: string, permission: string): boolean {
  const escaped = pattern.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*');
  return new RegExp(`^${escaped}$`, 'i').test(permission);
}

function has(roles: readonly RolePermissions[], permission: string): boolean {
  return roles.some(
    ({ actions, not_actions }) =>
      actions.some((pattern) => matches(pattern, permission)) &&
      !not_actions.some((pattern) => matches(pattern, permission)),
  );
}

/**
 * Asks Azure what the caller may do to the account and in its resource group, and tries the reads that are about neither.
 * What is granted on a restorable account can be asked nowhere.
 */
export async function grants(
  { client, signal }: Pick<Context, 'client' | 'signal'>,
  permissions: readonly string[],
): Promise<Record<string, Answer>> {
  const silent = ['INSUFFICIENT_PERMISSIONS', 'RESOURCE_NOT_FOUND', 'INVALID_PARAMETER', 'NOT_SUPPORTED'];
  const [account, group] = await Promise.all([
    unless(client.permissions('account', signal), ...silent),
    unless(client.permissions('group', signal), ...silent),
  ]);
  const refused = async (read: () => Promise<unknown>): Promise<Answer> => {
    const done = await unless(
      read().then(() => true),
      'INSUFFICIENT_PERMISSIONS',
    );
    return done === true ? 'granted' : 'refused';
  };
  const answer = async (permission: string): Promise<Answer> => {
    const [kind = '', ...rest] = permission.replace(/^Microsoft\.DocumentDB\//i, '').split('/');
    if (kind === 'databaseAccountNames') return refused(() => client.isNameTaken(client.account, signal));
    if (kind === 'locations') {
      return permission.endsWith('/restorableDatabaseAccounts/read')
        ? refused(() => client.listSources(signal))
        : 'unknown';
    }
    if (kind !== 'databaseAccounts' || account === undefined) return 'unknown';
    if (rest.join('/') !== 'write') return has(account, permission) ? 'granted' : 'refused';
    // A restore makes an account in the group: leave to write this one alone is not enough for it.
    if (group !== undefined && has(group, permission)) return 'granted';
    return has(account, permission) ? 'unknown' : 'refused';
  };
  return Object.fromEntries(
    await Promise.all(permissions.map(async (permission) => [permission, await answer(permission)] as const)),
  );
}
