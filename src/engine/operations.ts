import { randomUUID } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { hostname } from 'node:os';
import type { Action } from '../core/action.ts';
import type { EntityBase, ProviderContext } from '../core/context.ts';
import { asHoldfastError, ERROR_CODES, type ErrorCode, HoldfastError, isAbort } from '../core/errors.ts';
import { withGrant, withoutGrant } from '../core/grant.ts';
import type { JsonObject } from '../core/json.ts';
import type { Progress, Recovery, Step, StepContext, StepRecord } from '../core/operation.ts';
import { isGuarded } from '../core/risk.ts';
import { isSchedule } from '../core/schedule.ts';
import type { OperationView } from '../core/schemas.ts';
import type { OperationRecord, StateStore } from '../core/state.ts';
import { withPolicy } from './permissions.ts';

/** How long a process that stopped answering keeps an operation, in ms. */
const LEASE_MS = 30_000;
const HEARTBEAT_MS = 10_000;
/** How long a shut-down waits for a step that writes before it interrupts it, in ms. */
const DRAIN_MS = 10_000;
/** How long an interrupted operation may still look for what became of its write, in ms. */
const LOOK_MS = 30_000;

export interface OperationRunnerOptions {
  readonly store: StateStore;
  readonly sandbox: boolean;
  readonly now: () => Date;
  readonly sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
  readonly redact: <T>(value: T) => T;
  /** Called once when an operation is over, for the audit trail. */
  readonly onEnd: (record: OperationRecord) => Promise<void>;
  /** Called before the work of another process is taken over, for the audit trail; throws to forbid it. */
  readonly onRecover: (record: OperationRecord) => Promise<void>;
}

/** What a process needs to run one operation's steps. */
export interface Script {
  readonly action: Action;
  readonly steps: readonly Step[];
  /** Where the steps of the action itself begin: the safety snapshot and the second look come before them. */
  readonly own: number;
  readonly context: Omit<ProviderContext<unknown, unknown>, 'signal'>;
  readonly input: unknown;
}

interface Running {
  readonly done: Promise<OperationRecord>;
  readonly controller: AbortController;
  readonly events: EventEmitter<{ progress: [Progress]; step: [] }>;
  record: OperationRecord;
  /** Whether another process began it. */
  readonly adopted: boolean;
  onlyFollows: () => boolean;
}

/** Runs operations step by step, each step's state stored before and after, so that any process can say what became of it. */
export class OperationRunner {
  readonly #options: OperationRunnerOptions;
  readonly #owner = { id: randomUUID(), host: hostname(), pid: process.pid };
  readonly #running = new Map<string, Running>();
  #closing = false;

  constructor(options: OperationRunnerOptions) {
    this.#options = options;
  }

  /** Stores a new operation and begins with it. Its work goes on after this returns. */
  async begin(
    record: Omit<OperationRecord, 'owner' | 'updated_at' | 'steps' | 'status' | 'created_at'>,
    script: Script,
  ): Promise<void> {
    const at = this.#stamp();
    const full: OperationRecord = {
      ...record,
      status: 'pending',
      steps: script.steps.map((step) => ({
        name: step.name,
        kind: step.kind,
        status: 'pending',
        idempotency_key: randomUUID(),
      })),
      created_at: at,
      updated_at: at,
      owner: this.#lease(),
    };
    await this.#options.store.addOperation(full);
    this.#start(full, script, false);
  }

  /** Whether this process runs the operation now. */
  owns(id: string): boolean {
    return this.#running.has(id);
  }

  /** Waits until the operation is over or `until` says that enough is done; gives its record then. */
  async wait(
    id: string,
    options: {
      until: 'end' | 'detachable';
      timeoutMs?: number;
      signal?: AbortSignal;
      onProgress?: (progress: Progress) => void;
    },
  ): Promise<OperationRecord | undefined> {
    const running = this.#running.get(id);
    if (running === undefined) return undefined;
    const { signal, onProgress, timeoutMs } = options;
    if (onProgress !== undefined) running.events.on('progress', onProgress);
    const cleanUp: (() => void)[] = [];
    try {
      const waits: Promise<unknown>[] = [running.done];
      if (timeoutMs !== undefined) {
        waits.push(
          new Promise((resolve) => {
            const timer = setTimeout(resolve, timeoutMs);
            cleanUp.push(() => clearTimeout(timer));
          }),
        );
      }
      if (options.until === 'detachable' && !running.onlyFollows()) {
        waits.push(
          new Promise<void>((resolve) => {
            const look = () => running.onlyFollows() && resolve();
            running.events.on('step', look);
            cleanUp.push(() => running.events.off('step', look));
          }),
        );
      } else if (options.until === 'detachable') {
        return running.record;
      }
      if (signal !== undefined) {
        waits.push(
          new Promise((_, reject) => {
            const abort = () => reject(signal.reason);
            if (signal.aborted) abort();
            signal.addEventListener('abort', abort, { once: true });
            cleanUp.push(() => signal.removeEventListener('abort', abort));
          }),
        );
      }
      await Promise.race(waits);
      return running.record;
    } finally {
      for (const clean of cleanUp) clean();
      if (onProgress !== undefined) running.events.off('progress', onProgress);
    }
  }

  /** Interrupts an operation of this process, unless it is one that must not be left half-way. Says whether it did. */
  cancel(id: string): boolean {
    const running = this.#running.get(id);
    if (running === undefined || isGuarded(running.record.risk)) return false;
    running.controller.abort(new DOMException('cancelled by the caller', 'AbortError'));
    return true;
  }

  /** Whether no living process runs an unfinished operation. */
  isOrphan(record: OperationRecord): boolean {
    if (record.status !== 'pending' && record.status !== 'running') return false;
    const { owner } = record;
    if (owner === undefined) return true;
    if (this.#running.has(record.id)) return false;
    if (Date.parse(owner.lease_until) <= this.#options.now().getTime()) return true;
    return owner.id !== this.#owner.id && owner.host === this.#owner.host && !isAlive(owner.pid);
  }

  /** Takes over an orphan: follows, continues or stops it. False when another process was quicker. */
  async adopt(record: OperationRecord, script: Script): Promise<boolean> {
    if (this.#closing || !this.isOrphan(record)) return false;
    await this.#options.onRecover(record);
    const owner = this.#lease();
    if (!(await this.#options.store.claimOperation(record.id, record.owner?.id, owner))) return false;
    // Its owner may have gone on between the look at it and the claim.
    const claimed = await this.#options.store.operation(record.id);
    if (claimed === undefined || (claimed.status !== 'pending' && claimed.status !== 'running')) return false;
    this.#start(claimed, script, true);
    return true;
  }

  /** Lets writing steps finish or interrupts them, leaves following steps to the next process, then forgets everything. */
  async close(): Promise<void> {
    this.#closing = true;
    const all = [...this.#running.values()];
    for (const running of all)
      if (running.onlyFollows()) running.controller.abort(new DOMException('shutting down', 'AbortError'));
    const timer = setTimeout(() => {
      for (const running of all) running.controller.abort(new DOMException('shutting down', 'AbortError'));
    }, DRAIN_MS);
    const look = (running: Running) => () =>
      running.onlyFollows() && running.controller.abort(new DOMException('shutting down', 'AbortError'));
    for (const running of all) running.events.on('step', look(running));
    await Promise.allSettled(all.map((running) => running.done));
    clearTimeout(timer);
  }

  #start(record: OperationRecord, script: Script, adopted: boolean): void {
    const controller = new AbortController();
    const events = new EventEmitter<{ progress: [Progress]; step: [] }>();
    events.setMaxListeners(0);
    const running: Running = {
      controller,
      events,
      record,
      adopted,
      done: undefined as never,
      onlyFollows: () => running.record.steps.every((step) => step.status === 'succeeded' || step.kind === 'follow'),
    };
    this.#running.set(record.id, running);
    const heartbeat = setInterval(() => {
      this.#save(running).catch(() => controller.abort(new DOMException('lost the state store', 'AbortError')));
    }, HEARTBEAT_MS);
    heartbeat.unref();
    const done = withoutGrant(() => this.#run(running, script))
      .catch((cause: unknown) => {
        // What was written last stands in the store: once it can be written again, a process takes over from there.
        throw cause instanceof HoldfastError && cause.code === 'STATE_UNAVAILABLE'
          ? lostStore(record.id, cause)
          : cause;
      })
      .finally(() => {
        clearInterval(heartbeat);
        this.#running.delete(record.id);
      });
    done.catch(() => undefined);
    (running as { done: Promise<OperationRecord> }).done = done;
  }

  async #run(running: Running, script: Script): Promise<OperationRecord> {
    const results: Record<string, JsonObject> = {};
    const began = running.record.steps.map(({ name, kind }) => `${name} ${kind}`);
    if (began.join() !== script.steps.map(({ name, kind }) => `${name} ${kind}`).join()) {
      const error = unknownOutcome('this version of Holdfast does not have the steps that the operation began with');
      return this.#finish(running, { status: 'unknown', error: error.toJson() });
    }
    for (const [index, step] of script.steps.entries()) {
      const state = running.record.steps[index]!;
      if (state.status === 'succeeded') {
        results[step.name] = state.result ?? {};
        continue;
      }
      const context = this.#context(running, script, index, results);
      try {
        results[step.name] = await this.#step(running, script, step, state, context);
      } catch (cause) {
        const { parameters } = script.context.entity as EntityBase;
        const error = await withPolicy(this.#mapped(script, cause), script.action, parameters);
        if (error.code === 'STATE_UNAVAILABLE') throw error;
        if (this.#isStopped(running, error)) {
          // Another process begins or continues only what needs no confirmation; what was sent it looks up.
          const unsent = step.kind === 'mutate' && error.details?.['outcome'] !== 'unknown';
          if (!unsent || !isGuarded(running.record.risk)) return this.#release(running, state);
          return this.#fail(running, script, step, state, context, results, interrupted(step.name, undefined));
        }
        const { steps } = running.record;
        const hasBegun = steps.slice(script.own, index).some(({ kind }) => kind === 'mutate');
        const isSent =
          step.kind === 'follow' && (hasBegun || !steps.slice(index).some(({ kind }) => kind === 'mutate'));
        const ending = isSent && isBlind(error) ? lostSight(error) : hasBegun ? halfway(error) : error;
        return this.#fail(running, script, step, state, context, results, ending);
      }
      this.#change(state, { status: 'succeeded', result: results[step.name]!, ended_at: this.#stamp(), percent: 100 });
      await this.#save(running);
      running.events.emit('step');
      const next = running.record.steps[index + 1];
      if (this.#closing && running.onlyFollows() && next !== undefined) return this.#release(running, next);
    }
    return this.#finish(running, {
      status: 'succeeded',
      result: script.action.result?.(results) as JsonObject,
      ...this.#undo(script, results),
    });
  }

  async #step(
    running: Running,
    script: Script,
    step: Step,
    state: StepRecord,
    context: StepContext<unknown, unknown, unknown>,
  ): Promise<JsonObject> {
    const { record } = running;
    const resumed = state.status === 'running' && step.kind === 'mutate';
    const guarded = isGuarded(record.risk);
    if (resumed) {
      const recovery = await this.#recover(step, context);
      if (recovery.state === 'done') return recovery.result ?? {};
      if (recovery.state === 'running') return recovery.handle;
      if (recovery.state === 'failed')
        throw new HoldfastError('PROVIDER_UNAVAILABLE', recovery.message, {
          hint: 'Look at the provider, then make the call again.',
          retryable: false,
        });
      if (recovery.state === 'unknown') throw unknownOutcome(recovery.message);
      if (guarded) throw interrupted(step.name, recovery.message);
    } else if (step.kind === 'mutate' && guarded && running.adopted) {
      // A confirmation covers one run by one process: a write that had not begun when that died is not begun by another.
      throw interrupted(step.name, undefined);
    }
    this.#change(state, { status: 'running', started_at: this.#stamp() });
    record.status = 'running';
    await this.#save(running);
    running.events.emit('progress', { message: step.title, percent: 0 });
    if (step.kind === 'follow') return withoutGrant(() => step.run(context));
    try {
      return await withGrant({ action: record.action, entity: record.entity }, () => step.run(context));
    } catch (cause) {
      const error = this.#mapped(script, cause);
      if (error.details?.['outcome'] !== 'unknown' || step.recover === undefined) throw error;
      if (this.#isStopped(running, error)) throw error;
      // The write may have arrived. Reading tells; it is never sent again.
      const recovery = await this.#recover(step, context);
      if (recovery.state === 'done') return recovery.result ?? {};
      if (recovery.state === 'running') return recovery.handle;
      if (recovery.state === 'not_begun') {
        throw new HoldfastError(error.code, `${error.message}; the write did not arrive`, {
          cause,
          retryable: true,
          hint: 'Nothing was changed. Make the call again.',
          details: { outcome: 'not_sent' },
        });
      }
      if (recovery.state === 'failed') throw new HoldfastError('PROVIDER_UNAVAILABLE', recovery.message, { cause });
      throw unknownOutcome(recovery.message);
    }
  }

  async #recover(step: Step, context: StepContext<unknown, unknown, unknown>): Promise<Recovery> {
    if (step.recover === undefined)
      return { state: 'unknown', message: `nothing can tell what became of the step ${step.name}` };
    const { signal } = context;
    // Whoever interrupted the operation still wants to know what had been sent.
    const look = signal.aborted && !this.#closing ? { ...context, signal: AbortSignal.timeout(LOOK_MS) } : context;
    try {
      return await withGrant({ action: 'recover', entity: context.entity.key }, () => step.recover!(look));
    } catch (cause) {
      if (cause instanceof HoldfastError && cause.code === 'STATE_UNAVAILABLE') throw cause;
      if (this.#closing && signal.aborted) throw stopped(cause);
      return { state: 'unknown', message: `looking for the step ${step.name} at the provider failed` };
    }
  }

  // A client of ours may have turned the abort into its error already, and a program that was ended says what it likes.
  #isStopped(running: Running, error: HoldfastError): boolean {
    return this.#closing && running.controller.signal.aborted && error.code === 'CANCELLED';
  }

  async #fail(
    running: Running,
    script: Script,
    step: Step,
    state: StepRecord,
    context: StepContext<unknown, unknown, unknown>,
    results: Record<string, JsonObject>,
    error: HoldfastError,
  ): Promise<OperationRecord> {
    const unknown = error.details?.['outcome'] === 'unknown';
    const status = unknown ? 'unknown' : error.code === 'CANCELLED' ? 'cancelled' : 'failed';
    this.#change(state, { status, ended_at: this.#stamp(), message: error.message });
    const left: string[] = [];
    if (!unknown) {
      const index = script.steps.indexOf(step);
      for (const earlier of script.steps.slice(0, index + 1).reverse()) {
        if (earlier.abandon === undefined) continue;
        const position = script.steps.indexOf(earlier);
        const own = earlier === step ? context : this.#context(running, script, position, results);
        left.push(
          await withGrant({ action: running.record.action, entity: running.record.entity }, () =>
            earlier.abandon!(own),
          ).catch(() => `what the step ${earlier.name} made could not be removed`),
        );
      }
    }
    const json = error.toJson();
    const notes = left.filter((note) => note !== '');
    return this.#finish(running, {
      status,
      error:
        notes.length === 0
          ? json
          : { ...json, details: { ...(json['details'] as JsonObject | undefined), cleaned_up: notes } },
      ...this.#undo(script, results),
    });
  }

  #undo(script: Script, results: Record<string, JsonObject>): { undo?: JsonObject } {
    const { safety } = script.action;
    if (safety === undefined || results['safety-snapshot'] === undefined) return {};
    return { undo: { entity: script.context.entity.key, ...safety.undo(results) } };
  }

  #mapped(script: Script, cause: unknown): HoldfastError {
    if (cause instanceof HoldfastError) return cause;
    if (isAbort(cause)) return asHoldfastError(cause);
    return script.action.provider.toError(cause);
  }

  #context(
    running: Running,
    script: Script,
    index: number,
    results: Record<string, JsonObject>,
  ): StepContext<unknown, unknown, unknown> {
    const state = running.record.steps[index]!;
    const total = script.steps.length;
    let savedAt = 0;
    return {
      ...script.context,
      input: script.input,
      signal: running.controller.signal,
      operationId: running.record.id,
      scheduled: isSchedule(running.record.principal),
      idempotencyKey: state.idempotency_key,
      get handle() {
        return state.handle;
      },
      results,
      checkpoint: async (handle) => {
        this.#change(state, { handle });
        await this.#save(running);
      },
      progress: (progress) => {
        this.#change(state, {
          message: progress.message,
          ...(progress.percent === undefined ? {} : { percent: progress.percent }),
        });
        const overall =
          progress.percent === undefined ? undefined : Math.min(100, ((index + progress.percent / 100) / total) * 100);
        running.events.emit('progress', { message: progress.message, percent: overall });
        const now = this.#options.now().getTime();
        if (now - savedAt > 1000) {
          savedAt = now;
          this.#save(running).catch(() => undefined);
        }
      },
    };
  }

  #change(state: StepRecord, patch: Partial<StepRecord>): void {
    Object.assign(state, this.#options.redact(patch));
  }

  async #finish(running: Running, patch: Partial<OperationRecord>): Promise<OperationRecord> {
    const { record } = running;
    Object.assign(record, this.#options.redact(patch), { ended_at: this.#stamp() });
    await this.#save(running);
    await this.#options.onEnd(record).catch(() => undefined);
    running.events.emit('step');
    return record;
  }

  // Leaves the rest to the next process: nobody owns it until then.
  async #release(running: Running, state: StepRecord): Promise<OperationRecord> {
    this.#change(state, { message: 'Holdfast was stopped here; its next start goes on' });
    await this.#save(running, 0);
    return running.record;
  }

  async #save(running: Running, leaseMs = LEASE_MS): Promise<void> {
    running.record.updated_at = this.#stamp();
    running.record.owner = this.#lease(leaseMs);
    await this.#options.store.saveOperation(running.record);
  }

  #lease(ms = LEASE_MS): NonNullable<OperationRecord['owner']> {
    return { ...this.#owner, lease_until: new Date(this.#options.now().getTime() + ms).toISOString() };
  }

  #stamp(): string {
    return this.#options.now().toISOString();
  }
}

function unknownOutcome(message: string): HoldfastError {
  return new HoldfastError('PROVIDER_UNAVAILABLE', message, {
    retryable: false,
    details: { outcome: 'unknown' },
    hint: 'It is not known whether this was carried out. Nothing more was sent. Look at the provider before doing anything again.',
  });
}

function stopped(cause: unknown): HoldfastError {
  return new HoldfastError('CANCELLED', 'Holdfast was stopped while it looked for what became of a write', {
    cause,
    details: { outcome: 'unknown' },
  });
}

function lostStore(id: string, cause: HoldfastError): HoldfastError {
  return new HoldfastError('STATE_UNAVAILABLE', `the state of operation ${id} could not be written`, {
    cause,
    details: { operation_id: id, outcome: 'unknown' },
    hint: 'What it had sent may have been carried out. Make the state directory writable again, then look at the operation.',
  });
}

/** Whether an error says that nothing could be seen, not that what was looked at has failed. */
function isBlind({ code, retryable, provider }: HoldfastError): boolean {
  if (code === 'AUTHENTICATION_FAILED' || code === 'INSUFFICIENT_PERMISSIONS')
    return provider?.status === 401 || provider?.status === 403;
  return retryable && (code === 'PROVIDER_UNAVAILABLE' || code === 'TIMEOUT' || code === 'RATE_LIMITED');
}

function lostSight(error: HoldfastError): HoldfastError {
  return new HoldfastError(error.code, `${error.message}; what was begun may go on`, {
    cause: error,
    retryable: false,
    details: { ...error.details, outcome: 'unknown' },
    provider: error.provider,
    hint: 'The work was begun, and how it ended is not known. Look at the provider before starting it again.',
  });
}

/** The error of a step after one that wrote: that nothing was sent or changed goes for this step alone. */
function halfway(error: HoldfastError): HoldfastError {
  const { outcome, ...details } = error.details ?? {};
  if (outcome !== 'not_sent') return error;
  return new HoldfastError(error.code, error.message, {
    cause: error,
    retryable: false,
    details,
    provider: error.provider,
    hint: 'Earlier steps of the operation were carried out. Look at what they made before making the call again.',
  });
}

function interrupted(step: string, message: string | undefined): HoldfastError {
  return new HoldfastError(
    'INVALID_STATE',
    `Holdfast stopped before the step ${step} began${message === undefined ? '' : `: ${message}`}`,
    {
      retryable: false,
      hint: 'Nothing more was sent. A confirmation covers one run only: make the call again for a new plan and a new confirmation.',
    },
  );
}

/** Tells whether a process of this machine is there. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return (cause as { code?: unknown }).code === 'EPERM';
  }
}

/** Gives an operation as every surface shows it. */
export function viewOperation(record: OperationRecord, sandbox: boolean): OperationView {
  const done = record.steps.filter((step) => step.status === 'succeeded').length;
  const current = record.steps.find((step) => step.status === 'running');
  const percent =
    record.status === 'succeeded'
      ? 100
      : Math.floor(((done + (current?.percent ?? 0) / 100) / Math.max(1, record.steps.length)) * 100);
  return {
    operation_id: record.id,
    action: record.action,
    entity: record.entity,
    status: record.status,
    percent,
    target: record.target,
    started_at: record.created_at,
    ...(record.ended_at === undefined ? {} : { ended_at: record.ended_at }),
    steps: record.steps.map(({ name, status, message, percent: own, started_at, ended_at }) => ({
      name,
      status,
      ...(message === undefined ? {} : { message }),
      ...(own === undefined ? {} : { percent: own }),
      ...(started_at === undefined ? {} : { started_at }),
      ...(ended_at === undefined ? {} : { ended_at }),
    })),
    ...(record.result === undefined ? {} : { result: record.result }),
    ...(record.undo === undefined ? {} : { undo: record.undo }),
    ...(record.error === undefined ? {} : { error: record.error as OperationView['error'] }),
    ...(sandbox ? { sandbox: true as const } : {}),
  };
}

/** Gives the error of a failed operation as it was thrown, with the operation's id. */
export function errorOf(record: OperationRecord): HoldfastError | undefined {
  const { error } = record;
  if (error === undefined) return undefined;
  const code = String(error['code']) as ErrorCode;
  return new HoldfastError(code in ERROR_CODES ? code : 'INTERNAL', String(error['message']), {
    hint: String(error['hint']),
    retryable: error['retryable'] === true,
    details: { ...(error['details'] as JsonObject | undefined), operation_id: record.id },
    provider: error['provider'] as never,
  });
}
