import { HoldfastError } from '../core/errors.ts';

/** Finds the error of ours that a provider's client has wrapped. */
export function findHoldfastError(cause: unknown): HoldfastError | undefined {
  let at: unknown = cause;
  for (let depth = 0; depth < 8 && at instanceof Error; depth += 1) {
    if (at instanceof HoldfastError) return at;
    at = at.cause;
  }
  return undefined;
}

/** Keeps of a client's error what a log may have: its name and sentence, never its `config`, which holds headers. */
export function slim(cause: unknown): Error {
  const text = cause instanceof Error ? cause.message : 'unknown failure';
  const error = new Error(text.slice(0, 500));
  error.name = cause instanceof Error ? cause.name : 'Error';
  return error;
}
