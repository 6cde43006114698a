import type { JsonObject, JsonValue } from '../core/json.ts';

/** The sandbox's time. It runs by itself at the real rate; a test freezes it and moves it on. */
export class SimulatorClock {
  #offset = 0;
  #frozenAt: number | undefined;

  now(): Date {
    return new Date((this.#frozenAt ?? Date.now()) + this.#offset);
  }

  /** Moves the time on by this many ms. */
  advance(ms: number): void {
    this.#offset += ms;
  }

  freeze(): void {
    this.#frozenAt ??= Date.now();
  }

  run(): void {
    if (this.#frozenAt === undefined) return;
    this.#offset += this.#frozenAt - Date.now();
    this.#frozenAt = undefined;
  }
}

export interface SimulatorRequest {
  readonly method: string;
  readonly url: URL;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** The body as sent. */
  readonly text: string;
  /** The body read as JSON; undefined when it is none. */
  readonly json: JsonValue | undefined;
}

export interface SimulatorResponse {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** An object or array goes out as JSON, a string as it is. */
  readonly body?: unknown;
}

/** A stand-in for one provider's API, written from the published description alone. It holds its own state. */
export interface Simulator {
  readonly provider: string;
  /** Whether a request is for this provider: all of them share one origin. */
  matches(request: SimulatorRequest): boolean;
  /** Whether a request changes something; by default everything but GET and HEAD does. */
  writes?(request: SimulatorRequest): boolean;
  /** The operation of a request, where all of them share one path. */
  operation?(request: SimulatorRequest): string | undefined;
  handle(request: SimulatorRequest): SimulatorResponse | Promise<SimulatorResponse>;
  /** Names the secrets in a path, so that the journal masks them. */
  dispose?(): Promise<void>;
}

export interface SimulatorOptions {
  readonly clock: SimulatorClock;
}

export interface JournalEntry {
  sequence: number;
  at: string;
  provider: string;
  method: string;
  path: string;
  /** Where the path does not say it. */
  operation?: string;
  writes: boolean;
  status: number | null;
  /** The request's body, secrets masked. */
  body?: JsonValue;
  fault?: string;
}

export const FAULT_KINDS = ['429', '500', '503', 'reset', 'lost', 'slow', 'malformed', 'truncated'] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

/** A fault to inject. Left-out filters match everything; the first fault that matches and whose dice fall applies. */
export interface Fault extends JsonObject {
  kind: FaultKind;
  provider?: string;
  method?: string;
  /** Part of the path. */
  path?: string;
  /** The whole name of an operation, where the path does not say it. */
  operation?: string;
  /** Whether the request changes something, as its simulator tells. */
  writes?: boolean;
  /** 0 to 1, 1 when left out. */
  rate?: number;
  /** How often at the most. */
  times?: number;
  /** Seconds, for 429 and 503. */
  retry_after?: number;
  /** For slow. */
  delay_ms?: number;
}
