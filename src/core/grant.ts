import { AsyncLocalStorage } from 'node:async_hooks';
import { HoldfastError } from './errors.ts';

/** What the guard let through: while it lasts, and only inside it, writes may leave the process. */
export interface WriteGrant {
  readonly action: string;
  readonly entity: string;
}

const grants = new AsyncLocalStorage<WriteGrant>();

/** Runs a function whose writes the guard has let through. Only the engine calls this. */
export function withGrant<T>(grant: WriteGrant, work: () => Promise<T>): Promise<T> {
  return grants.run(grant, work);
}

/** Runs a function that may not write, whatever it was called from. */
export function withoutGrant<T>(work: () => Promise<T>): Promise<T> {
  return grants.exit(work);
}

/**
 * Stops a write that the guard has not let through, at the last moment before it leaves the process.
 * @throws {HoldfastError} INTERNAL
 */
export function assertMayWrite(what: string): void {
  if (grants.getStore() === undefined) {
    throw new HoldfastError('INTERNAL', `a write was about to leave without a grant: ${what}`, {
      hint: 'Nothing was sent. This is a fault in the adapter: it wrote while planning or reading.',
      details: { outcome: 'not_sent' },
    });
  }
}
