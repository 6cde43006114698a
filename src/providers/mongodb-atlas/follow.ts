import { asHoldfastError, HoldfastError } from '../../core/errors.ts';
import type { Progress } from '../../core/operation.ts';
import type { Runtime } from '../../core/runtime.ts';

interface Watch {
  readonly runtime: Runtime;
  readonly signal: AbortSignal;
  /** Names the work in the error when it takes too long. */
  readonly what: string;
  /** Pause before the look that comes after so many ms of waiting. */
  readonly every: (waitedMs: number) => number;
  readonly deadline_ms: number;
  readonly progress?: ((progress: Progress) => void) | undefined;
}

const PATIENCE = 5;

/**
 * Looks again and again until there is a result. A look that fails for a reason that passes is repeated; five such
 * failures in a row end it.
 * @throws {HoldfastError} TIMEOUT after the deadline; the work itself goes on at Atlas
 */
export async function follow<T>(watch: Watch, look: () => Promise<T | undefined>): Promise<T> {
  const { runtime, signal } = watch;
  const begun = runtime.now().getTime();
  let waited = 0;
  let failures = 0;
  for (;;) {
    signal.throwIfAborted();
    try {
      const result = await look();
      if (result !== undefined) return result;
      failures = 0;
    } catch (cause) {
      const error = asHoldfastError(cause);
      const passes = ['PROVIDER_UNAVAILABLE', 'TIMEOUT', 'RATE_LIMITED'].includes(error.code);
      failures += 1;
      if (!passes || failures >= PATIENCE) throw error;
    }
    // Where time passes faster than the clock, in a sandbox, the pauses asked for count.
    if (Math.max(waited, runtime.now().getTime() - begun) > watch.deadline_ms) {
      throw new HoldfastError('TIMEOUT', `${watch.what} took too long to follow`, {
        hint: 'It goes on at MongoDB Atlas. Look at it there or with get-restore-status or describe-snapshot.',
      });
    }
    const pause = watch.every(waited);
    await runtime.sleep(pause, signal);
    waited += pause;
  }
}

/** Grows from 5 s to 30 s. */
export function snapshotPace(waitedMs: number): number {
  return Math.min(30_000, 5_000 + waitedMs / 4);
}

/** Grows from 5 s to 30 s, and after an hour is 2 minutes. */
export function restorePace(waitedMs: number): number {
  return waitedMs > 3_600_000 ? 120_000 : snapshotPace(waitedMs);
}
