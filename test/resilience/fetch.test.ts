import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import type { Fetch } from '../../src/core/runtime.ts';
import { TokenBucket } from '../../src/resilience/bucket.ts';
import { resilientFetch, retryAfterMs } from '../../src/resilience/fetch.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import type { Fault } from '../../src/simulators/simulator.ts';
import { granted } from '../support/runtime.ts';

let server: SimulatorServer;
let handled: string[];

beforeEach(async () => {
  handled = [];
  server = await startSimulators({
    simulators: () => [
      {
        provider: 'echo',
        matches: () => true,
        handle: (request) => {
          handled.push(request.method);
          const status = Number(request.url.searchParams.get('status') ?? 200);
          return { status, body: status === 204 ? undefined : { hello: 'world' } };
        },
      },
    ],
  });
});
afterEach(() => server.close());

const build = (limits: Partial<Parameters<typeof resilientFetch>[0]['limits']> = {}, base_ms = 2): Fetch =>
  resilientFetch({
    title: 'Echo',
    limits: { per_second: 10_000, burst: 10_000, concurrent: 50, timeout_ms: 2000, ...limits },
    fetch: globalThis.fetch,
    now: Date.now,
    sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    random: Math.random,
    base_ms,
  });

const failure = async (work: Promise<unknown>): Promise<HoldfastError> => {
  const outcome = await work.catch((cause: unknown) => cause);
  expect(outcome).toBeInstanceOf(HoldfastError);
  return outcome as HoldfastError;
};

const EVERY: Fault['kind'][] = ['429', '500', '503', 'reset', 'lost', 'malformed', 'truncated'];

describe('a read', () => {
  it.each(EVERY)('gets over a passing %s', async (kind) => {
    server.fault({ kind, times: 2 });
    const response = await build()(`${server.origin}/a`);
    expect(await response.json()).toEqual({ hello: 'world' });
    expect(server.journal.length).toBe(3);
  });

  it('gives the last answer back when the provider keeps refusing, and a typed error when it keeps silent', async () => {
    server.fault({ kind: '503' });
    expect((await build()(`${server.origin}/a`)).status).toBe(503);
    expect(server.journal).toHaveLength(5);
    server.clearFaults();
    server.fault({ kind: 'reset' });
    expect(await failure(build()(`${server.origin}/a`))).toMatchObject({
      code: 'PROVIDER_UNAVAILABLE',
      details: { outcome: 'not_sent' },
    });
  });

  it('waits as long as Retry-After asks, and holds the others back too', async () => {
    server.fault({ kind: '429', times: 1, retry_after: 1 });
    const fetch = build();
    const began = performance.now();
    const first = fetch(`${server.origin}/a`);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await Promise.all([first, fetch(`${server.origin}/b`)]);
    expect(performance.now() - began).toBeGreaterThan(950);
  });

  it('does not sit out a pause that is longer than a call may take', async () => {
    server.fault({ kind: '429', retry_after: 3600 });
    expect((await build()(`${server.origin}/a`)).status).toBe(429);
    expect(server.journal).toHaveLength(1);
  });

  it('ends at its timeout', async () => {
    server.fault({ kind: 'slow', delay_ms: 400 });
    expect((await failure(build({ timeout_ms: 20 })(`${server.origin}/a`))).code).toBe('TIMEOUT');
  });

  it('can be cancelled while it waits', async () => {
    server.fault({ kind: 'slow', delay_ms: 300 });
    const controller = new AbortController();
    const call = build()(`${server.origin}/a`, { signal: controller.signal });
    setTimeout(() => controller.abort(), 20);
    expect((await failure(call)).code).toBe('CANCELLED');
  });

  it('stops asking a provider that has been failing, and asks again later', async () => {
    server.fault({ kind: 'reset' });
    // It asks again after forty times this: long enough for a busy machine to see that it did not before.
    const fetch = build({}, 25);
    for (let index = 0; index < 5; index += 1) await failure(fetch(`${server.origin}/a`));
    const asked = server.journal.length;
    expect((await failure(fetch(`${server.origin}/a`))).message).toContain('not sent');
    expect(server.journal.length).toBeLessThanOrEqual(asked + 1);
    server.clearFaults();
    await expect
      .poll(async () => (await fetch(`${server.origin}/a`).catch(() => undefined))?.status, { timeout: 10_000 })
      .toBe(200);
  });

  it('takes an answer without a body', async () => {
    expect((await build()(`${server.origin}/a?status=204`)).status).toBe(204);
  });
});

describe('a write', () => {
  const post = (fetch: Fetch, safe?: boolean) =>
    fetch(`${server.origin}/w`, { method: 'POST', body: '{"a":1}', ...(safe === undefined ? {} : { safe }) });

  it.each(EVERY)('is sent once, whatever happens: %s', async (kind) => {
    server.fault({ kind });
    const outcome = await granted(() => post(build())).catch((cause: HoldfastError) => cause);
    expect(server.writes()).toHaveLength(1);
    if (outcome instanceof HoldfastError) {
      expect(outcome.details).toMatchObject({ outcome: 'unknown' });
      expect(outcome.hint).toContain('does not repeat');
    } else {
      expect(outcome.status).toBe(Number(kind));
    }
  });

  it('does not leave without a grant, unless it is known to change nothing', async () => {
    expect(await failure(post(build()))).toMatchObject({ code: 'INTERNAL', details: { outcome: 'not_sent' } });
    expect(server.journal).toHaveLength(0);
    expect((await post(build(), true)).status).toBe(200);
  });

  it('that found nobody listening was not sent', async () => {
    const { origin } = server;
    await server.close();
    const error = await failure(granted(() => build()(`${origin}/w`, { method: 'POST' })));
    expect(error).toMatchObject({ code: 'PROVIDER_UNAVAILABLE', details: { outcome: 'not_sent' } });
    server = await startSimulators({ simulators: () => [] });
  });
});

describe('the token bucket', () => {
  it('gives out its burst and then its rate, in order of arrival', async () => {
    let now = 0;
    const sleep = async (ms: number) => {
      now += ms;
    };
    const bucket = new TokenBucket({ perSecond: 10, burst: 3, now: () => now, sleep });
    const order: [number, number][] = [];
    await Promise.all([0, 1, 2, 3, 4].map((index) => bucket.take().then(() => order.push([index, Math.round(now)]))));
    expect(order).toEqual([
      [0, 0],
      [1, 0],
      [2, 0],
      [3, 100],
      [4, 200],
    ]);
  });

  it('passes its turn on when a waiting caller goes away', async () => {
    let now = 0;
    const sleep = async (ms: number) => {
      now += ms;
    };
    const bucket = new TokenBucket({ perSecond: 1, burst: 1, now: () => now, sleep });
    await bucket.take();
    await expect(bucket.take(AbortSignal.abort())).rejects.toMatchObject({ name: 'AbortError' });
    await bucket.take();
    expect(Math.round(now)).toBe(1000);
  });
});

it('reads Retry-After as seconds and as a date', () => {
  const answer = (value: string, status = 429) => new Response('', { status, headers: { 'retry-after': value } });
  expect(retryAfterMs(answer('2'), 0)).toBe(2000);
  expect(retryAfterMs(answer('Thu, 01 Jan 1970 00:01:00 GMT', 503), 0)).toBe(60_000);
  expect(retryAfterMs(answer('soon'), 0)).toBeUndefined();
  expect(retryAfterMs(answer('2', 500), 0)).toBeUndefined();
});
