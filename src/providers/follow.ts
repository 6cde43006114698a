import { HoldfastError } from '../core/errors.ts';
import type { Runtime } from '../core/runtime.ts';
import { formatDuration } from '../core/time.ts';

export interface FollowContext {
  readonly runtime: Runtime;
  readonly signal: AbortSignal;
}

export interface FollowOptions {
  /** Names the work in the error when it takes too long: `the backup`. */
  readonly what: string;
  /** Where the work goes on after that: `Cloud SQL`. */
  readonly at: string;
  readonly deadline_ms: number;
  /** The first pause and the longest one; each is half as long again as the one before. */
  readonly first_ms: number;
  readonly longest_ms: number;
}

const PASSING = new Set(['PROVIDER_UNAVAILABLE', 'RATE_LIMITED', 'TIMEOUT']);

/**
 * Asks again, at growing intervals, until there is an answer. A provider that does not answer for a while ends nothing:
 * the work goes on there.
 * @throws {HoldfastError} TIMEOUT after the deadline
 */
export async function follow<T>(
  { runtime, signal }: FollowContext,
  { what, at, deadline_ms, first_ms, longest_ms }: FollowOptions,
  look: () => Promise<T | undefined>,
): Promise<T> {
  const end = runtime.now().getTime() + deadline_ms;
  let failures = 0;
  for (let pause = first_ms; ; pause = Math.min(longest_ms, pause * 1.5)) {
    try {
      const found = await look();
      if (found !== undefined) return found;
      failures = 0;
    } catch (cause) {
      failures += 1;
      const passes = cause instanceof HoldfastError && cause.retryable && PASSING.has(cause.code);
      if (!passes || failures >= 10) throw cause;
    }
    if (runtime.now().getTime() >= end) {
      throw new HoldfastError('TIMEOUT', `${what} is not over after ${formatDuration(deadline_ms / 1000)}`, {
        hint: `It may still be running at ${at}. Look at the operation there.`,
      });
    }
    await runtime.sleep(pause, signal);
  }
}

/** A signal for finding out what became of a write: it lasts when the call itself was cancelled. */
export function recoverySignal(signal: AbortSignal): AbortSignal {
  return signal.aborted ? AbortSignal.timeout(30_000) : signal;
}

/** Looks three times, two seconds apart: a write that has just arrived may take a moment to show. */
export async function lookThrice<T>(
  context: FollowContext,
  look: () => Promise<T | undefined>,
): Promise<T | undefined> {
  for (let turn = 0; turn < 3; turn += 1) {
    if (turn > 0) await context.runtime.sleep(2000, recoverySignal(context.signal));
    const found = await look();
    if (found !== undefined) return found;
  }
  return undefined;
}
