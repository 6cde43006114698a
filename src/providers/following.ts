import { HoldfastError } from '../core/errors.ts';
import type { Runtime } from '../core/runtime.ts';
import { formatDuration } from '../core/time.ts';

/** How a provider's work is waited for: its name for messages, the first and the longest pause, the end of patience. */
export interface Pace {
  readonly provider: string;
  readonly firstMs: number;
  readonly mostMs: number;
  readonly deadlineMs: number;
}

interface Waiting {
  readonly runtime: Pick<Runtime, 'now' | 'sleep'>;
  readonly signal: AbortSignal;
}

const PASSING = new Set(['PROVIDER_UNAVAILABLE', 'RATE_LIMITED', 'TIMEOUT']);

/**
 * Asks again, at growing intervals, until there is an answer. A provider that does not answer for a while ends nothing:
 * the work goes on there.
 * @throws {HoldfastError} TIMEOUT after the deadline
 */
export async function follow<T>(
  { runtime, signal }: Waiting,
  what: string,
  look: () => Promise<T | undefined>,
  { provider, firstMs, mostMs, deadlineMs }: Pace,
): Promise<T> {
  const end = runtime.now().getTime() + deadlineMs;
  let failures = 0;
  for (let pause = firstMs; ; pause = Math.min(mostMs, pause * 1.5)) {
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
      throw new HoldfastError('TIMEOUT', `${what} is not over after ${formatDuration(deadlineMs / 1000)}`, {
        hint: `It may still be running at ${provider}. Look at the operation there.`,
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
  { runtime, signal }: Waiting,
  look: () => Promise<T | undefined>,
): Promise<T | undefined> {
  for (let turn = 0; turn < 3; turn += 1) {
    if (turn > 0) await runtime.sleep(2000, recoverySignal(signal));
    const found = await look();
    if (found !== undefined) return found;
  }
  return undefined;
}
