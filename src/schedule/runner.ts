import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { asHoldfastError, type ErrorCode, HoldfastError } from '../core/errors.ts';
import { isObject, type JsonObject, type JsonValue } from '../core/json.ts';
import type { Progress } from '../core/operation.ts';
import type { Log } from '../core/runtime.ts';
import { NEWEST, type Schedule, scheduleKey, schedulePrincipal } from '../core/schedule.ts';
import type { OperationRecord, ScheduleRecord, ScheduleRun, StateStore } from '../core/state.ts';
import type { Engine, Outcome } from '../engine/api.ts';
import { errorOf, isAlive } from '../engine/operations.ts';
import { type CronReader, loadCron, type Times } from './cron.ts';

/** How long a process that stopped answering keeps a run, in ms. */
const LEASE_MS = 60_000;
const HEARTBEAT_MS = 20_000;
/** The clock is looked at least this often: it may have been set, and a machine may have slept. */
const LONGEST_WAIT_MS = 60_000;
/** How often the run of another process that died is looked at while its operation goes on, in ms. */
const SETTLE_MS = 5_000;
/** A run that begins later than this after it was due makes up for one that was missed. */
const LATE_MS = 60_000;
/** A clock set back by less waits until it is where it was; by more, what was run in that future counts for nothing. */
const SET_BACK_MS = 3_600_000;
/** How long the end of an interrupted operation is waited for, in ms. */
const END_MS = 60_000;
const MOST_COUNTED = 1000;

export interface SchedulerOptions {
  readonly engine: Pick<Engine, 'call' | 'entities' | 'resume'>;
  readonly store: Pick<StateStore, 'schedule' | 'saveSchedule' | 'operations' | 'operation'>;
  readonly log: Log;
  readonly now: () => Date;
  /** Calls back after a time in ms, without keeping the process for it; what it gives cancels that. */
  readonly timer?: (ms: number, work: () => void) => () => void;
}

/** A schedule with its entity and how it stands. */
export interface ScheduleState {
  readonly entity: string;
  readonly schedule: Schedule;
  readonly record: ScheduleRecord | undefined;
  /** Whether the process that has the present run is gone. */
  readonly orphaned: boolean;
  /** Undefined where it is not enabled. */
  readonly next: Date | undefined;
}

/** How a call is made: by the clock, or for somebody who waits for it. */
interface RunOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
  readonly isAsked?: boolean;
}

type Ending = Pick<ScheduleRun, 'state' | 'code' | 'message' | 'hint' | 'operation_id'>;

interface Entry {
  readonly key: string;
  readonly entity: string;
  readonly schedule: Schedule;
  readonly times: Times;
}

/** Opens the scheduler over everything that the engine's entities declare. Starts nothing. */
export async function openScheduler(options: SchedulerOptions): Promise<Scheduler> {
  return new Scheduler(options, await loadCron());
}

/**
 * Makes the calls that are due. Any number of processes may do so over one state store: a due time is claimed by a
 * compare-and-set, and belongs to the one that won.
 */
export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #entries: readonly Entry[];
  readonly #owner = { id: randomUUID(), host: hostname(), pid: process.pid };
  /** The runs of this process. */
  readonly #running = new Map<string, Promise<unknown>>();
  readonly #timer: NonNullable<SchedulerOptions['timer']>;
  #cancel: (() => void) | undefined;
  #stopped = false;

  constructor(options: SchedulerOptions, reader: CronReader) {
    this.#options = options;
    this.#timer = options.timer ?? unheldTimer;
    this.#entries = options.engine.entities().flatMap(({ key: entity, schedules = [] }) =>
      schedules.map((schedule) => ({
        key: scheduleKey(entity, schedule.name),
        entity,
        schedule,
        times: reader.times(schedule.cron, schedule.timezone),
      })),
    );
  }

  /** Looks at every schedule now and whenever one is due. What fails is logged and tried again at the next look. */
  start(): void {
    this.#stopped = false;
    void this.look();
  }

  /** Begins nothing more. Runs of this process are the engine's to end: it lets them finish or leaves them to the next. */
  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** Waits until how the runs of this process ended is kept. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running.values());
  }

  /** Looks at every schedule once, begins what is due, and sets the next look. Does not wait for what it begins. */
  async look(): Promise<void> {
    let wait = LONGEST_WAIT_MS;
    for (const entry of this.#entries) {
      if (this.#stopped) return;
      try {
        const next = await this.#lookAt(entry);
        wait = Math.min(wait, next);
      } catch (cause) {
        this.#options.log.error('a schedule could not be looked at; it is tried again', {
          schedule: entry.key,
          code: asHoldfastError(cause).code,
        });
      }
    }
    if (this.#stopped) return;
    this.#cancel?.();
    this.#cancel = this.#timer(Math.max(0, wait), () => void this.look());
  }

  /** Gives how every schedule stands, of one entity where it is named. */
  async states(entity?: string): Promise<ScheduleState[]> {
    const chosen = this.#entries.filter((entry) => entity === undefined || entry.entity === entity);
    return Promise.all(
      chosen.map(async ({ key, entity: own, schedule, times }) => {
        const record = await this.#options.store.schedule(key);
        return {
          entity: own,
          schedule,
          record,
          orphaned: record?.running !== undefined && this.#isOrphan(record),
          next: schedule.enabled ? times.next(this.#options.now(), 1)[0] : undefined,
        };
      }),
    );
  }

  /** The next due times of every enabled schedule, of one entity where it is named, earliest first. */
  next(count: number, entity?: string): { entity: string; schedule: Schedule; at: Date }[] {
    const now = this.#options.now();
    return this.#entries
      .filter((entry) => (entity === undefined || entry.entity === entity) && entry.schedule.enabled)
      .flatMap((entry) =>
        entry.times.next(now, count).map((at) => ({ entity: entry.entity, schedule: entry.schedule, at })),
      )
      .sort((a, b) => a.at.getTime() - b.at.getTime());
  }

  /**
   * Makes a schedule's call now, as when it is due; what was due before counts as made up for.
   * @throws {HoldfastError} whatever the call ends with; INVALID_STATE while another process runs it
   */
  async run(
    entity: string,
    name: string,
    options: { signal?: AbortSignal; onProgress?: (progress: Progress) => void } = {},
  ): Promise<Outcome> {
    const entry = this.#entries.find((candidate) => candidate.key === scheduleKey(entity, name));
    if (entry === undefined) {
      const names = this.#entries
        .filter((candidate) => candidate.entity === entity)
        .map(({ schedule }) => schedule.name);
      throw new HoldfastError('INVALID_PARAMETER', `${entity} has no schedule '${name.slice(0, 60)}'`, {
        hint: names.length === 0 ? 'It has none.' : `It has ${names.join(', ')}.`,
      });
    }
    const now = this.#options.now();
    let record = await this.#synchronised(entry, now);
    if (record.running !== undefined) {
      if (this.#isOrphan(record)) {
        await this.#options.engine.resume();
        record = await this.#settled(entry, record);
        for (let waited = 0; record.running !== undefined && waited < END_MS; waited += SETTLE_MS) {
          options.signal?.throwIfAborted();
          await this.#pause(SETTLE_MS);
          record = await this.#settled(entry, record);
        }
      }
      if (record.running !== undefined) {
        throw new HoldfastError('INVALID_STATE', `${entry.key} is running since ${record.running.began_at}`, {
          hint: 'One run at a time: wait for it. holdfast schedule list shows when it is over.',
        });
      }
    }
    const last = entry.times.last(now);
    const settled = last === undefined ? record.settled_until : later(record.settled_until, last.toISOString());
    const claimed = await this.#claim(record, { settled_until: settled }, undefined);
    if (claimed === undefined)
      throw new HoldfastError('INVALID_STATE', `${entry.key} was begun by another process at the same moment`);
    const work = this.#run(entry, claimed, { ...options, isAsked: true });
    this.#keep(entry.key, work);
    const { error, outcome } = await work;
    if (error !== undefined) throw error;
    return outcome as Outcome;
  }

  /** Gives how long the next look at one schedule may wait, in ms. */
  async #lookAt(entry: Entry): Promise<number> {
    const { schedule, times, key } = entry;
    const now = this.#options.now();
    let record = await this.#synchronised(entry, now);
    if (record.running !== undefined) {
      if (this.#running.has(key) || !this.#isOrphan(record)) return LONGEST_WAIT_MS;
      record = await this.#settled(entry, record);
      if (record.running !== undefined) return SETTLE_MS;
    }
    if (!schedule.enabled || this.#stopped) return LONGEST_WAIT_MS;
    const due = times.last(now);
    if (due !== undefined && due.getTime() > Date.parse(record.settled_until)) {
      const missed = this.#countBetween(times, Date.parse(record.settled_until), due.getTime());
      const isLate = now.getTime() - due.getTime() > LATE_MS;
      const settled = { settled_until: due.toISOString(), missed: record.missed + missed };
      if (isLate && !schedule.catch_up) {
        const given = { ...settled, missed: settled.missed + 1 };
        if (await this.#options.store.saveSchedule({ ...record, ...given }, record.version))
          this.#options.log.warn('a schedule was missed and is not made up for', {
            schedule: key,
            due_at: settled.settled_until,
          });
      } else {
        const claimed = await this.#claim(record, settled, due.toISOString());
        if (claimed !== undefined) {
          if (isLate || missed > 0)
            this.#options.log.warn('one run makes up for what was missed', {
              schedule: key,
              missed: missed + (isLate ? 1 : 0),
            });
          this.#keep(key, this.#run(entry, claimed, {}));
        }
      }
    }
    const [next] = times.next(now, 1);
    return next === undefined ? LONGEST_WAIT_MS : next.getTime() - this.#options.now().getTime();
  }

  /** The record, made or begun anew where there is none, where the declaration is another, or where the clock was set back far. */
  async #synchronised(entry: Entry, now: Date): Promise<ScheduleRecord> {
    const { cron, timezone, enabled } = entry.schedule;
    for (;;) {
      const record = await this.#options.store.schedule(entry.key);
      const isAhead = record !== undefined && Date.parse(record.settled_until) > now.getTime() + SET_BACK_MS;
      const isSame = record?.cron === cron && record.timezone === timezone && record.enabled === enabled;
      if (record !== undefined && isSame && !isAhead) return record;
      if (isAhead) {
        this.#options.log.warn('the clock was set back: what a schedule ran in that future counts for nothing', {
          schedule: entry.key,
          was: record.settled_until,
        });
      }
      const fresh: ScheduleRecord = {
        ...(record ?? { key: entry.key, consecutive_failures: 0, missed: 0 }),
        version: (record?.version ?? 0) + 1,
        cron,
        timezone,
        enabled,
        settled_until: now.toISOString(),
      };
      if (await this.#options.store.saveSchedule(fresh, record?.version ?? 0)) return fresh;
    }
  }

  /** Takes a run for this process; undefined when another was quicker. */
  async #claim(
    record: ScheduleRecord,
    patch: Partial<ScheduleRecord>,
    due_at: string | undefined,
  ): Promise<ScheduleRecord | undefined> {
    const claimed: ScheduleRecord = {
      ...record,
      ...patch,
      version: record.version + 1,
      running: { due_at, began_at: this.#options.now().toISOString(), owner: this.#lease() },
    };
    return (await this.#options.store.saveSchedule(claimed, record.version)) ? claimed : undefined;
  }

  #keep(key: string, work: Promise<unknown>): void {
    const kept = work
      .catch((cause: unknown) => {
        this.#options.log.error('how a schedule ended could not be kept', {
          schedule: key,
          code: asHoldfastError(cause).code,
        });
      })
      .finally(() => {
        this.#running.delete(key);
        if (!this.#stopped && this.#cancel !== undefined) void this.look();
      });
    this.#running.set(key, kept);
  }

  async #run(
    entry: Entry,
    claimed: ScheduleRecord,
    how: RunOptions,
  ): Promise<{ outcome?: Outcome; error?: HoldfastError }> {
    const held = this.#hold(claimed);
    try {
      const ended = await this.#call(entry, how);
      const record = await held.release();
      const { outcome, error } = ended;
      const operation = outcome?.kind === 'operation' ? outcome.operation : undefined;
      // Left at a shut-down: the next process goes on with the operation and says how it ended.
      if (operation !== undefined && isOpen(operation.status)) await this.#leave(record);
      else if (error === undefined) {
        const id = operation === undefined ? {} : { operation_id: operation.operation_id };
        await this.#finish(entry, record, { state: 'succeeded', ...id }, how.isAsked);
      } else await this.#finish(entry, record, failureOf(error), how.isAsked);
      return ended;
    } finally {
      held.drop();
    }
  }

  /** Makes the call and waits for its end, whatever that is; what was interrupted has cleaned up by then. */
  async #call(
    { entity, schedule }: Entry,
    { signal: outer, onProgress }: RunOptions,
  ): Promise<{ outcome?: Outcome; error?: HoldfastError }> {
    const controller = new AbortController();
    const onAbort = (): void => controller.abort(outer?.reason);
    if (outer?.aborted === true) onAbort();
    outer?.addEventListener('abort', onAbort, { once: true });
    let isOverdue = false;
    const cancelLimit =
      schedule.at_most === undefined
        ? undefined
        : this.#timer(schedule.at_most * 1000, () => {
            isOverdue = true;
            controller.abort(new DOMException('the run took too long', 'AbortError'));
          });
    try {
      const principal = schedulePrincipal(entity, schedule.name);
      const call = { principal, entity, signal: controller.signal };
      const input = await this.#resolved(schedule.input, call);
      const outcome = await this.#options.engine.call({
        ...call,
        action: schedule.action,
        input,
        wait: 'end',
        ...(onProgress === undefined ? {} : { onProgress }),
      });
      return { outcome };
    } catch (cause) {
      const error = asHoldfastError(cause);
      const operation = error.details?.['operation_id'];
      if (controller.signal.aborted && typeof operation === 'string') await this.#ended(operation);
      return { error: isOverdue ? tookTooLong(schedule, error) : error };
    } finally {
      cancelLimit?.();
      outer?.removeEventListener('abort', onAbort);
    }
  }

  /** Keeps the claim of a run alive until it is released; gives the record as it then is. */
  #hold(claimed: ScheduleRecord): { release(): Promise<ScheduleRecord>; drop(): void } {
    let record = claimed;
    let cancel: (() => void) | undefined;
    let beating: Promise<void> = Promise.resolve();
    const beat = async (): Promise<void> => {
      const running = record.running as NonNullable<ScheduleRecord['running']>;
      const next = { ...record, version: record.version + 1, running: { ...running, owner: this.#lease() } };
      // Whoever took the run over has the word now; that the store is away for once is no reason to stop the work.
      if (await this.#options.store.saveSchedule(next, record.version).catch(() => false)) record = next;
    };
    const arm = (): void => {
      cancel = this.#timer(HEARTBEAT_MS, () => {
        beating = beat();
        arm();
      });
    };
    arm();
    return {
      release: async () => {
        cancel?.();
        await beating;
        return record;
      },
      drop: () => cancel?.(),
    };
  }

  async #leave(record: ScheduleRecord): Promise<void> {
    const running = record.running as NonNullable<ScheduleRecord['running']>;
    const owner = { ...running.owner, lease_until: this.#options.now().toISOString() };
    await this.#options.store.saveSchedule({ ...record, running: { ...running, owner } }, record.version);
  }

  async #finish(entry: Entry, record: ScheduleRecord, ending: Ending, isAsked = false): Promise<ScheduleRecord> {
    const { running, ...rest } = record;
    const ended_at = this.#options.now().toISOString();
    const isGood = ending.state === 'succeeded';
    const next: ScheduleRecord = {
      ...rest,
      version: record.version + 1,
      last: { due_at: running?.due_at, began_at: running?.began_at ?? ended_at, ended_at, ...ending },
      ...(isGood ? { last_success_at: ended_at } : {}),
      consecutive_failures: isGood ? 0 : record.consecutive_failures + 1,
      missed: isGood ? 0 : record.missed,
    };
    const saved = await this.#options.store.saveSchedule(next, record.version);
    // Whoever asked for it gets the error; of what the clock began nobody else hears.
    if (isGood || isAsked) {
      this.#options.log.info(WORDS[ending.state], { schedule: entry.key, ...shown(ending) });
    } else {
      this.#options.log.error(WORDS[ending.state], {
        schedule: entry.key,
        ...shown(ending),
        failures_in_a_row: next.consecutive_failures,
      });
    }
    return saved ? next : ((await this.#options.store.schedule(entry.key)) ?? next);
  }

  /**
   * Says how a run ended whose process is gone: as its operation did, where it got as far as one; the engine goes on with
   * that. The record still has the run while the operation goes on.
   */
  async #settled(entry: Entry, record: ScheduleRecord): Promise<ScheduleRecord> {
    const { began_at } = record.running as NonNullable<ScheduleRecord['running']>;
    const { id } = schedulePrincipal(entry.entity, entry.schedule.name);
    const operations = await this.#options.store.operations({ entity: entry.entity, limit: 200 });
    const own = operations.find(({ principal, created_at }) => principal === id && created_at >= began_at);
    if (own === undefined) {
      return this.#finish(entry, record, {
        state: 'interrupted',
        message: 'the process that ran it died before it began an operation',
        hint: 'The next due time is run as usual; holdfast schedule run does it now.',
      });
    }
    if (isOpen(own.status)) return record;
    return this.#finish(entry, record, endingOf(own));
  }

  /** Waits until an interrupted operation has cleaned up, so that the next run does not meet it. */
  async #ended(id: string): Promise<void> {
    for (let waited = 0; waited < END_MS; waited += 250) {
      const record = await this.#options.store.operation(id).catch(() => undefined);
      if (record === undefined || !isOpen(record.status) || this.#stopped) return;
      await this.#pause(250);
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.#timer(ms, resolve);
    });
  }

  /** The input with the newest restorable snapshot's id where it asks for that. */
  async #resolved(
    input: JsonObject,
    call: { principal: ReturnType<typeof schedulePrincipal>; entity: string; signal: AbortSignal },
  ): Promise<JsonObject> {
    if (!JSON.stringify(input).includes(JSON.stringify(NEWEST))) return input;
    const outcome = await this.#options.engine.call({ ...call, action: 'list-snapshots', input: {} });
    const list = outcome.kind === 'result' ? (outcome.output as { snapshots?: unknown }).snapshots : undefined;
    const newest = (Array.isArray(list) ? list : []).find(
      (point: { restorable?: unknown; status?: unknown }) => point.restorable === true && point.status === 'available',
    ) as { id?: unknown } | undefined;
    if (typeof newest?.id !== 'string') {
      throw new HoldfastError('BACKUP_NOT_FOUND', `${call.entity} has no restorable snapshot yet`, {
        hint: 'The schedule asks for the newest one. Take one with create-snapshot, or schedule that before.',
      });
    }
    return replaced(input, newest.id) as JsonObject;
  }

  #countBetween(times: Times, from: number, to: number): number {
    let count = 0;
    for (let at = from; count < MOST_COUNTED; count += 1) {
      const [next] = times.next(new Date(at), 1);
      if (next === undefined || next.getTime() >= to) break;
      at = next.getTime();
    }
    return count;
  }

  #isOrphan({ running }: ScheduleRecord): boolean {
    if (running === undefined) return false;
    const { owner } = running;
    if (Date.parse(owner.lease_until) <= this.#options.now().getTime()) return true;
    return owner.id !== this.#owner.id && owner.host === this.#owner.host && !isAlive(owner.pid);
  }

  #lease(): NonNullable<OperationRecord['owner']> {
    return { ...this.#owner, lease_until: new Date(this.#options.now().getTime() + LEASE_MS).toISOString() };
  }
}

/** What the guard says no with: nothing was run, and nothing is broken. */
const REFUSALS: readonly ErrorCode[] = ['CONFIRMATION_REQUIRED', 'POLICY_DENIED'];

const WORDS = {
  succeeded: 'a schedule ran',
  failed: 'a schedule failed',
  refused: 'a schedule was refused: a person has to look at it',
  interrupted: 'a schedule was interrupted',
} as const;

function isOpen(status: string): boolean {
  return status === 'pending' || status === 'running';
}

function endingOf(record: OperationRecord): Ending {
  const error = errorOf(record);
  if (error !== undefined) return failureOf(error);
  return { state: record.status === 'succeeded' ? 'succeeded' : 'failed', operation_id: record.id };
}

function failureOf({ code, message, hint, details }: HoldfastError): Ending {
  const operation = details?.['operation_id'];
  return {
    state: REFUSALS.includes(code) ? 'refused' : 'failed',
    code,
    message,
    hint,
    ...(typeof operation === 'string' ? { operation_id: operation } : {}),
  };
}

function shown({ code, message, operation_id }: Partial<ScheduleRun>): JsonObject {
  return {
    ...(code === undefined ? {} : { code }),
    ...(message === undefined ? {} : { message }),
    ...(operation_id === undefined ? {} : { operation_id }),
  };
}

function tookTooLong({ at_most }: Schedule, cause: HoldfastError): HoldfastError {
  return new HoldfastError('TIMEOUT', `the run took longer than at_most, ${at_most} s, and was interrupted`, {
    cause,
    retryable: false,
    details: cause.details,
    hint: 'Look at the operation: what it had begun is cleaned up there. Raise at_most where the work needs longer.',
  });
}

function replaced(value: JsonValue | undefined, newest: string): JsonValue | undefined {
  if (value === NEWEST) return newest;
  if (Array.isArray(value)) return value.map((member) => replaced(member, newest) ?? null);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value as JsonObject).map(([key, member]) => [key, replaced(member, newest)]),
  );
}

function later(one: string, other: string): string {
  return one > other ? one : other;
}

function unheldTimer(ms: number, work: () => void): () => void {
  const timer = setTimeout(work, ms).unref();
  return () => clearTimeout(timer);
}
