import { ERROR_CODES, HoldfastError } from '../core/errors.ts';
import type { Provider, ProviderGuide } from '../core/provider.ts';

/** A policy that is longer is no help in an error, in characters. */
const LONGEST_POLICY = 8000;

/** Gives the permissions that an action needs, what all actions need among them; empty where the guide does not say. */
export function permissionsOf(guide: ProviderGuide, action: string): string[] {
  const own = Object.hasOwn(guide.permissions, action) ? (guide.permissions[action] ?? []) : [];
  return [...new Set([...(guide.permissions['*'] ?? []), ...own])];
}

/**
 * Adds to a refusal for lack of permissions what the action needs and the policy that grants it, from the provider's
 * guide. Gives every other error as it is, and one whose provider has said already what to do about a policy.
 */
export async function withPolicy(
  error: HoldfastError,
  action: { readonly name: string; readonly provider: Pick<Provider, 'guide'> },
  entity: Readonly<Record<string, unknown>> | undefined,
): Promise<HoldfastError> {
  const { details = {} } = error;
  if (error.code !== 'INSUFFICIENT_PERMISSIONS') return error;
  if (details['policy'] !== undefined || details['permissions'] !== undefined) return error;
  // Whatever is wrong with a guide must not hide the refusal.
  const guide = await action.provider.guide?.().catch(() => undefined);
  if (guide === undefined) return error;
  const permissions = permissionsOf(guide, action.name);
  if (permissions.length === 0) return error;
  const policy = policyOf(guide, permissions, entity);
  const missing = missingPermission(error);
  const own = error.hint === ERROR_CODES[error.code].hint ? [] : [error.hint];
  const where = policy === undefined ? '' : `; the policy given here has all that ${action.name} needs`;
  return new HoldfastError(error.code, error.message, {
    hint: (missing === undefined
      ? [...own, `Give the credential the ${guide.grant} for ${action.name}${where}.`]
      : [`Add this to the ${guide.grant}: ${missing}${where}.`, ...own]
    ).join(' '),
    retryable: error.retryable,
    details: { ...details, permissions, ...(policy === undefined ? {} : { policy }) },
    provider: error.provider,
    cause: error.cause,
  });
}

/** Gives the permission that a provider said is missing; undefined where it did not say. */
export function missingPermission({ details }: HoldfastError): string | undefined {
  const named = details?.['missing_permission'] ?? details?.['permission'];
  return typeof named === 'string' && named !== '' ? named : undefined;
}

/** Writes the policy for some permissions; undefined where the guide fails or the text is out of all proportion. */
export function policyOf(
  guide: ProviderGuide,
  permissions: readonly string[],
  entity: Readonly<Record<string, unknown>> | undefined,
): string | undefined {
  try {
    const policy = guide.policy(permissions, entity);
    return policy.length > LONGEST_POLICY ? undefined : policy;
  } catch {
    return undefined;
  }
}
