import { randomBytes } from 'node:crypto';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { assertMayWrite, withGrant } from '../../src/core/grant.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { Log, Runtime } from '../../src/core/runtime.ts';
import { type FetchLimits, resilientFetch } from '../../src/resilience/fetch.ts';

const silent: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** A runtime for tests of one provider without the engine: real HTTP, real resilience, fast waits, every secret `test-<name>`. */
export function testRuntime(limits: FetchLimits, overrides: Partial<Runtime> = {}): Runtime {
  const notes: { kind: string; note: JsonObject }[] = [];
  const sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
    new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const timer = setTimeout(resolve, Math.min(ms / 50, 200));
      signal?.addEventListener('abort', () => {
        clearTimeout(timer);
        reject(signal.reason);
      });
    });
  return {
    fetch: resilientFetch({
      title: 'the provider',
      limits,
      fetch: globalThis.fetch,
      now: Date.now,
      sleep,
      random: Math.random,
      base_ms: 5,
    }),
    now: () => new Date(),
    sleep,
    random: randomBytes,
    secret: async (ref) => `test-${ref.name}`,
    credential: () => undefined,
    conceal: () => {},
    assertMayWrite,
    ledger: {
      add: async (kind, note) => {
        notes.unshift({ kind, note });
      },
      list: async (kind, limit = 50) =>
        notes
          .filter((entry) => entry.kind === kind)
          .map((entry) => entry.note)
          .slice(0, limit),
    },
    log: silent,
    workDirectory: () => mkdtemp(join(tmpdir(), 'holdfast-test-')),
    ...overrides,
  };
}

/** Lets a test call write, as the engine does once the guard has let an action through. */
export function granted<T>(work: () => Promise<T>): Promise<T> {
  return withGrant({ action: 'test', entity: 'test/test' }, work);
}
