import {
  BrokenCircuitError,
  BulkheadRejectedError,
  bulkhead,
  ConsecutiveBreaker,
  circuitBreaker,
  handleType,
  handleWhen,
  retry,
  wrap,
} from 'cockatiel';
import { HoldfastError, isAbort } from '../core/errors.ts';
import { assertMayWrite } from '../core/grant.ts';
import type { Fetch, FetchOptions } from '../core/runtime.ts';
import { TokenBucket } from './bucket.ts';

export interface FetchLimits {
  readonly per_second: number;
  readonly burst: number;
  readonly concurrent: number;
  readonly timeout_ms: number;
}

export interface ResilientFetchOptions {
  /** Names the provider in errors, `MongoDB Atlas`. */
  readonly title: string;
  readonly limits: FetchLimits;
  readonly fetch: typeof globalThis.fetch;
  readonly now: () => number;
  readonly sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
  /** 0 to 1. */
  readonly random: () => number;
  /** First pause before a retry, in ms; it grows with decorrelated jitter up to 30 times that. */
  readonly base_ms?: number;
  /** Longest pause by Retry-After that a call sits out, in ms; a longer one is given back as RATE_LIMITED or PROVIDER_UNAVAILABLE. */
  readonly patience_ms?: number;
}

const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS']);
const RETRIED = new Set([408, 425, 429, 500, 502, 503, 504]);
const ATTEMPTS = 5;

/** A failure without a usable answer; `sent` says whether the request may have reached the provider. */
class NoAnswer extends Error {
  readonly sent: boolean;
  constructor(message: string, sent: boolean, cause: unknown) {
    super(message, { cause });
    this.sent = sent;
  }
}

/**
 * Makes the `fetch` of one provider account: a token bucket at the documented rate, a bulkhead, a timeout for each try,
 * retries with decorrelated jitter and Retry-After for requests that change nothing, and a circuit breaker. A request
 * that writes needs a grant and is sent once at most. The body is read whole, so that a torn answer is noticed here.
 */
export function resilientFetch(options: ResilientFetchOptions): Fetch {
  const { limits, title } = options;
  const base = options.base_ms ?? 250;
  const patience = options.patience_ms ?? 20_000;
  const bucket = new TokenBucket({
    perSecond: limits.per_second,
    burst: limits.burst,
    now: options.now,
    sleep: options.sleep,
  });
  const lanes = bulkhead(limits.concurrent, 1000);
  // Only silence and server faults open the circuit: a refusal is an answer.
  const breaker = circuitBreaker(
    handleType(NoAnswer).orWhenResult((result) => result instanceof Response && result.status >= 500),
    { halfOpenAfter: Math.min(10_000, base * 40), breaker: new ConsecutiveBreaker(20) },
  );

  const once = async (url: string | URL | Request, init: FetchOptions, signal: AbortSignal): Promise<Response> => {
    await bucket.take(signal);
    const timeout = AbortSignal.timeout(limits.timeout_ms);
    let response: Response;
    try {
      response = await options.fetch(url, { ...init, signal: AbortSignal.any([signal, timeout]) });
    } catch (cause) {
      signal.throwIfAborted();
      if (timeout.aborted) throw new NoAnswer('timeout', true, cause);
      throw new NoAnswer('no answer', !isRefused(cause), cause);
    }
    try {
      const bytes = await response.arrayBuffer();
      if (response.ok && bytes.byteLength > 0 && (response.headers.get('content-type') ?? '').includes('json')) {
        JSON.parse(new TextDecoder().decode(bytes));
      }
      const empty = response.status === 204 || response.status === 304;
      return new Response(empty ? null : bytes, {
        status: response.status,
        statusText: response.statusText,
        headers: response.headers,
      });
    } catch (cause) {
      signal.throwIfAborted();
      throw new NoAnswer(timeout.aborted ? 'timeout' : 'a torn answer', true, cause);
    }
  };

  const policyFor = (safe: boolean) => {
    let pause = base;
    const backoff = {
      next(context: unknown) {
        const outcome = (context as { result?: { value?: unknown } }).result;
        const asked = outcome?.value instanceof Response ? retryAfterMs(outcome.value, options.now()) : undefined;
        if (asked !== undefined) {
          bucket.pause(asked);
          return { duration: asked, next: backoff.next };
        }
        // Decorrelated jitter: between the base and three times the last pause.
        pause = Math.min(base * 30, base + options.random() * (pause * 3 - base));
        return { duration: pause, next: backoff.next };
      },
    };
    const again = retry(
      handleWhen((error) => error instanceof NoAnswer || error instanceof BrokenCircuitError).orWhenResult(
        (result) =>
          result instanceof Response &&
          RETRIED.has(result.status) &&
          (retryAfterMs(result, options.now()) ?? 0) <= patience,
      ),
      { maxAttempts: ATTEMPTS - 1, backoff: backoff as never },
    );
    return safe ? wrap(again, breaker, lanes) : wrap(breaker, lanes);
  };

  return async (url, init = {}) => {
    const method = (init.method ?? (url instanceof Request ? url.method : 'GET')).toUpperCase();
    const safe = init.safe === true || SAFE_METHODS.has(method);
    const { safe: _, signal: given, ...rest } = init;
    const where = new URL(url instanceof Request ? url.url : url).pathname;
    if (!safe) assertMayWrite(`${method} ${where}`);
    const signal = given ?? new AbortController().signal;
    try {
      return await policyFor(safe).execute(() => once(url, rest, signal), signal);
    } catch (cause) {
      if (isAbort(cause) || signal.aborted)
        throw new HoldfastError('CANCELLED', `the call to ${title} was cancelled`, {
          cause,
          details: { outcome: safe ? 'not_sent' : 'unknown' },
        });
      if (cause instanceof BrokenCircuitError) {
        throw new HoldfastError('PROVIDER_UNAVAILABLE', `${title} has been failing; the call was not sent`, {
          cause,
          details: { outcome: 'not_sent' },
        });
      }
      if (cause instanceof BulkheadRejectedError) {
        throw new HoldfastError('RATE_LIMITED', `too many calls to ${title} are waiting; this one was not sent`, {
          cause,
          details: { outcome: 'not_sent' },
        });
      }
      if (cause instanceof NoAnswer) {
        const timedOut = cause.message === 'timeout';
        throw new HoldfastError(
          timedOut ? 'TIMEOUT' : 'PROVIDER_UNAVAILABLE',
          `${title} gave ${timedOut ? 'no answer in time' : cause.message === 'no answer' ? 'no answer' : cause.message}`,
          {
            cause,
            details: { outcome: safe ? 'not_sent' : cause.sent ? 'unknown' : 'not_sent' },
            hint:
              safe || !cause.sent
                ? undefined
                : 'The request may have been carried out. Look before sending it again; Holdfast does not repeat it.',
          },
        );
      }
      throw cause;
    }
  };
}

/** Gives the pause that an answer asks for, in ms; seconds and HTTP dates are understood. */
export function retryAfterMs(response: Response, now: number): number | undefined {
  const header = response.headers.get('retry-after');
  if (header === null || (response.status !== 429 && response.status !== 503)) return undefined;
  if (/^\d+(\.\d+)?$/.test(header.trim())) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

function isRefused(cause: unknown): boolean {
  const code = (cause as { cause?: { code?: unknown } })?.cause?.code;
  return code === 'ECONNREFUSED' || code === 'ENOTFOUND' || code === 'EAI_AGAIN';
}
