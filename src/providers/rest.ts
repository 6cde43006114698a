import { HoldfastError } from '../core/errors.ts';
import { isObject, type JsonObject } from '../core/json.ts';
import type { Runtime, SecretRef } from '../core/runtime.ts';
import type { Wire } from '../core/wire.ts';

/** One call of a JSON API; `about` is what the provider's errors need to know of it. */
export interface RestCall<About> {
  readonly about: About;
  readonly query?: Readonly<Record<string, string>> | undefined;
  readonly body?: JsonObject | undefined;
  readonly signal: AbortSignal;
}

export interface RestRefusal<About> {
  readonly status: number;
  /** Empty where the answer was no JSON object. */
  readonly body: Wire;
  readonly headers: Headers;
  readonly about: About;
  readonly writes: boolean;
}

export interface RestService<About> {
  readonly title: string;
  /** Origin, with a prefix of all paths where there is one. */
  readonly base: string;
  readonly runtime: Pick<Runtime, 'fetch' | 'conceal'>;
  /** The headers that say who calls; asked for before every request. */
  headers(): Promise<Readonly<Record<string, string>>>;
  /** Names of members that hold secrets: their text is concealed, and never reaches the caller of `send`. */
  readonly secrets: RegExp;
  refuse(refusal: RestRefusal<About>): HoldfastError;
  /** Sees every answer, a refusal too. */
  seen?(headers: Headers): void;
}

export type RestMethod = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

export interface RestAnswer {
  readonly status: number;
  /** Empty for an answer without a body. */
  readonly body: Wire;
}

export type RestSend<About> = (method: RestMethod, path: string, call: RestCall<About>) => Promise<RestAnswer>;

/** Makes the calls of a JSON API over the runtime's fetch: credentials on, secrets off, refusals to the provider's own errors. */
export function restClient<About>(service: RestService<About>): RestSend<About> {
  const { base, runtime, title, secrets } = service;

  const read = (text: string): unknown => {
    try {
      return JSON.parse(text, (key, value: unknown) => {
        if (typeof value !== 'string' || !secrets.test(key)) return value;
        if (value !== '') runtime.conceal(value);
        return undefined;
      });
    } catch {
      return undefined;
    }
  };

  return async (method, path, { about, query, body, signal }) => {
    const writes = method !== 'GET';
    const search = query === undefined ? '' : `?${new URLSearchParams(query)}`;
    const response = await runtime.fetch(`${base}${path}${search}`, {
      method,
      signal,
      headers: {
        accept: 'application/json',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(await service.headers()),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const { status, headers } = response;
    service.seen?.(headers);
    const text = await response.text();
    // Only what makes nothing new may be answered with nothing.
    const isBare = status === 204 || (text === '' && response.ok && writes && method !== 'POST');
    const answer = isBare ? {} : read(text);
    if (!response.ok) throw service.refuse({ status, headers, body: isObject(answer) ? answer : {}, about, writes });
    if (isObject(answer)) return { status, body: answer };
    throw new HoldfastError('PROVIDER_UNAVAILABLE', `${title} gave an answer that is not JSON`, {
      details: { outcome: writes ? 'unknown' : 'not_sent' },
      provider: { status },
    });
  };
}

/**
 * Makes the header of a bearer token: the entity's own, else the variable's. A token that is missing is looked for again
 * at the next call.
 */
export function bearerToken(
  runtime: Pick<Runtime, 'secret' | 'credential'>,
  given: SecretRef | undefined,
  names: { parameter: string; variable: string },
): () => Promise<{ authorization: string }> {
  const { parameter, variable } = names;
  let known: Promise<string> | undefined;
  const find = async (): Promise<string> => {
    const token = (given === undefined ? runtime.credential(variable) : await runtime.secret(given))?.trim();
    const hint = `Set ${variable}, or ${parameter} of the entity. An MCP client hands down only variables that are named in the \`env\` of its configuration.`;
    if (!token) throw new HoldfastError('AUTHENTICATION_FAILED', `${variable} is not set`, { hint });
    if (!/^[\x21-\x7e]+$/.test(token)) {
      throw new HoldfastError('AUTHENTICATION_FAILED', 'the token holds characters that no token has', { hint });
    }
    return token;
  };
  return async () => {
    known ??= find().catch((cause: unknown) => {
      known = undefined;
      throw cause;
    });
    return { authorization: `Bearer ${await known}` };
  };
}

/** What a write that was refused may have done: a server fault can come after the work was begun. */
export function outcomeOf(status: number, writes: boolean): JsonObject | undefined {
  return writes ? { outcome: status >= 500 || status === 408 ? 'unknown' : 'not_sent' } : undefined;
}

/** Tells whether an error carries one of these codes, ours or the provider's. */
export function isCode(cause: unknown, ...codes: string[]): cause is HoldfastError {
  return cause instanceof HoldfastError && (codes.includes(cause.code) || codes.includes(cause.provider?.code ?? ''));
}

/** Gives undefined in place of an error that carries one of these codes. */
export async function unless<T>(work: Promise<T>, ...codes: string[]): Promise<T | undefined> {
  try {
    return await work;
  } catch (cause) {
    if (isCode(cause, ...codes)) return undefined;
    throw cause;
  }
}
