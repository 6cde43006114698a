import type { JsonObject } from './json.ts';

/** A secret named in the entities file, `${env:NAME}` or `${file:/path}`; its value is read at first use only. */
export interface SecretRef {
  readonly secret: 'env' | 'file';
  readonly name: string;
}

export interface FetchOptions extends RequestInit {
  /** Says that a POST changes nothing (a token request, a search): it may then be repeated and needs no grant. */
  readonly safe?: boolean;
}

/**
 * A `fetch` for one provider account. It retries, limits, times out and opens the circuit as needed for reads; it never
 * sends a write twice, and refuses to send one outside of a run that the guard let through.
 * HTTP error statuses come back as responses; the provider's client maps them.
 * @throws {HoldfastError} PROVIDER_UNAVAILABLE or TIMEOUT without an answer, RATE_LIMITED after a pause longer than the call may take
 */
export type Fetch = (url: string | URL | Request, options?: FetchOptions) => Promise<Response>;

export interface Log {
  debug(message: string, fields?: JsonObject): void;
  info(message: string, fields?: JsonObject): void;
  warn(message: string, fields?: JsonObject): void;
  error(message: string, fields?: JsonObject): void;
}

/** Everything of the outside world that a provider may use, already bound to one entity. */
export interface Runtime {
  /** The version of Holdfast, for what is written down with it. */
  readonly version?: string;
  readonly fetch: Fetch;
  now(): Date;
  /** Waits; in a sandbox and in tests time may pass faster. Rejects with an AbortError. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  random(bytes: number): Buffer;
  /**
   * Reads a secret and registers its value with the redactor.
   * @throws {HoldfastError} AUTHENTICATION_FAILED naming the variable or file when it is not there
   */
  secret(ref: SecretRef): Promise<string>;
  /** Reads a variable of the provider's own credential chain and registers its value with the redactor. */
  credential(name: string): string | undefined;
  /** Registers a value (a fetched access token, a password in an answer) so that it never appears in any output. */
  conceal(value: string): void;
  /** Refuses, with INTERNAL, unless the guard let the present call write. For writes that do not go through `fetch`. */
  assertMayWrite(what: string): void;
  /** Small notes about an entity that the provider cannot tell us later, kept in the state store; newest first. */
  readonly ledger: {
    add(kind: string, note: JsonObject): Promise<void>;
    list(kind: string, limit?: number): Promise<JsonObject[]>;
  };
  readonly log: Log;
  /** A directory of this entity's own for temporary files, created on demand with mode 0700. */
  workDirectory(): Promise<string>;
}
