import type { ProviderContext } from './context.ts';
import type { JsonObject } from './json.ts';
import type { JobStatus } from './schemas.ts';

export interface Progress {
  /** 0 to 100; left out where the provider gives none. */
  percent?: number | undefined;
  message: string;
}

/** What became of a step that was running when the process died; found out by reading only. */
export type Recovery =
  | { state: 'done'; result?: JsonObject }
  /** Still running at the provider, under this handle. */
  | { state: 'running'; handle: JsonObject }
  /** Provably never reached the provider, or was undone without a trace. */
  | { state: 'not_begun'; message?: string }
  | { state: 'failed'; message: string }
  | { state: 'unknown'; message: string };

export interface StepContext<Client, Entity, Input> extends ProviderContext<Client, Entity> {
  readonly input: Input;
  readonly operationId: string;
  /** Whether the clock made the call and no caller. */
  readonly scheduled?: boolean;
  /** Stays the same when the step is looked at again after a crash; use it as client token, name or label where one fits. */
  readonly idempotencyKey: string;
  /** What `checkpoint` last stored for this step; undefined at its first run. */
  readonly handle: JsonObject | undefined;
  /** Results of the finished steps, by step name. */
  readonly results: Readonly<Record<string, JsonObject>>;
  /** Stores what finds the work again. Call it before the first write with what is known then, and as soon as the provider answered. */
  checkpoint(handle: JsonObject): Promise<void>;
  progress(progress: Progress): void;
}

/**
 * One step of an operation. A `mutate` step is run once at most: after a crash `recover` says what became of it, and
 * without `recover` the operation stops as unknown. A `follow` step only reads: it is run again after a crash, and a
 * short-lived process may leave it to the next one.
 */
export interface Step<Client = unknown, Entity = unknown, Input = unknown> {
  /** `safety-snapshot`, `restore`, `wait`, `verify`: unique in its operation. */
  readonly name: string;
  /** What a person reads while it runs: "Waiting for the restore job". */
  readonly title: string;
  readonly kind: 'mutate' | 'follow';
  run(context: StepContext<Client, Entity, Input>): Promise<JsonObject>;
  /** Reads only; cleans up nothing unless the trace is provably this step's own and incomplete. */
  recover?(context: StepContext<Client, Entity, Input>): Promise<Recovery>;
  /**
   * Removes what this finished (or failed) step left behind when the operation does not go on: a temporary database, a
   * half-made resource. Only what is provably its own; says what it removed or left. Runs once, with leave to write.
   */
  abandon?(context: StepContext<Client, Entity, Input>): Promise<string>;
}

/** The state of one step as the state store keeps it. */
export interface StepRecord {
  name: string;
  kind: 'mutate' | 'follow';
  status: JobStatus;
  idempotency_key: string;
  handle?: JsonObject | undefined;
  result?: JsonObject | undefined;
  message?: string | undefined;
  percent?: number | undefined;
  started_at?: string | undefined;
  ended_at?: string | undefined;
}
