import { HoldfastError } from '../core/errors.ts';

const SEGMENT = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$/;

/**
 * Splits a key that may be used into its segments.
 * @throws {HoldfastError} INVALID_PARAMETER
 */
export function segments(key: string): string[] {
  const parts = key.split('/');
  if (key.length > 900 || !parts.every((part) => SEGMENT.test(part))) {
    throw new HoldfastError('INVALID_PARAMETER', 'an object key has a form that the store does not take', {
      hint: 'Use an id exactly as list-snapshots gives it.',
    });
  }
  return parts;
}

/**
 * Gives a prefix that may be listed.
 * @throws {HoldfastError} INVALID_PARAMETER
 */
export function checkedPrefix(prefix: string): string {
  const trimmed = prefix.replace(/\/$/, '');
  if (trimmed !== '') segments(trimmed);
  return prefix;
}

/** The refusal of a create-only write. */
export function exists(key: string, cause?: unknown): HoldfastError {
  return new HoldfastError('RESOURCE_EXISTS', `the object '${key}' exists already in the store`, { cause });
}

/** The answer to a read of what is not there. */
export function notFound(key: string, cause?: unknown): HoldfastError {
  return new HoldfastError('RESOURCE_NOT_FOUND', `the object '${key}' is not in the store`, { cause });
}
