import { HoldfastError } from '../core/errors.ts';
import { isObject } from '../core/json.ts';
import type { SecretRef } from '../core/runtime.ts';

/** Reads something; what is refused is noted, with what is missing for it, and undefined. */
export type Attempt = <T>(read: () => Promise<T>, without: string) => Promise<T | undefined>;

/**
 * Makes attempts that note their failures: one call that is refused must not end a discovery. Refused credentials and
 * faults of ours do.
 */
export function attempts(problems: string[]): Attempt {
  return async (read, without) => {
    try {
      return await read();
    } catch (cause) {
      const isKnown = cause instanceof HoldfastError;
      if (!isKnown || ['AUTHENTICATION_FAILED', 'CANCELLED', 'INTERNAL'].includes(cause.code)) throw cause;
      problems.push(`${without}: ${cause.message}`);
      return undefined;
    }
  };
}

/** Makes a name for the entities file of the identifier of a database. */
export function entityName(identifier: string): string {
  const name = identifier.toLowerCase().replace(/[^a-z0-9]+/g, '-');
  return name.replace(/^-+|-+$/g, '') || 'database';
}

/** Gives the secret that an access names by a parameter; undefined for none, and for what is no reference. */
export function secretIn(access: Readonly<Record<string, unknown>>, name: string): SecretRef | undefined {
  const value = access[name];
  return isObject(value) && 'secret' in value ? (value as unknown as SecretRef) : undefined;
}
