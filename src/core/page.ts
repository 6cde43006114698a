import { HoldfastError } from './errors.ts';

const DEFAULT_LIMIT = 50;

/**
 * Cuts a page out of a list that is sorted with the largest key first. The cursor is the last key shown, so that what
 * comes or goes between two calls moves nothing else.
 * @throws {HoldfastError} INVALID_PARAMETER for a cursor that is none of ours
 */
export function pageOf<T>(
  all: readonly T[],
  limit: number | undefined,
  cursor: string | undefined,
  keyOf: (item: T) => string,
): { items: T[]; next_cursor: string | undefined } {
  const after = cursor === undefined ? undefined : Buffer.from(cursor, 'base64url').toString('utf8');
  if (after !== undefined && (after === '' || Buffer.from(after).toString('base64url') !== cursor)) {
    throw new HoldfastError('INVALID_PARAMETER', 'this cursor is not one of this list', {
      hint: 'Use next_cursor of the answer before, or leave cursor out.',
    });
  }
  const rest = after === undefined ? all : all.filter((item) => keyOf(item) < after);
  const items = rest.slice(0, limit ?? DEFAULT_LIMIT);
  const last = items.at(-1);
  const next_cursor =
    last !== undefined && items.length < rest.length ? Buffer.from(keyOf(last)).toString('base64url') : undefined;
  return { items, next_cursor };
}
