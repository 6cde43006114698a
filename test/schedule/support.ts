import { z } from 'zod';
import { defineAction } from '../../src/core/action.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import { defineProvider } from '../../src/core/provider.ts';
import type { Schedule } from '../../src/core/schedule.ts';
import { SnapshotList } from '../../src/core/schemas.ts';
import { openScheduler, type Scheduler } from '../../src/schedule/runner.ts';
import { type Harness, startHarness } from '../support/harness.ts';

/** What the toy provider of these tests has, and what happens inside of its calls. */
export interface Box {
  snapshots: string[];
  writes: string[];
  scheduled: boolean[];
  /** Called inside the write of create-snapshot. */
  during: ((signal: AbortSignal) => Promise<void>) | undefined;
  /** Called while create-snapshot waits for its end, which another process can do as well. */
  following: ((signal: AbortSignal) => Promise<void>) | undefined;
  /** How much prune-snapshots would remove: more than half needs a person. */
  removesMost: boolean;
}

export function newBox(): Box {
  return {
    snapshots: ['s2', 's1'],
    writes: [],
    scheduled: [],
    during: undefined,
    following: undefined,
    removesMost: false,
  };
}

export function boxModule(box: Box) {
  const provider = defineProvider<{ size: number }, Box>({
    id: 'box',
    title: 'Box',
    entityTypes: {
      'box/box': { title: 'a box', schema: z.object({ size: z.number() }), ignored: [], example: { size: 1 } },
    },
    cannot: {
      'describe-snapshot': 'list them',
      'get-restore-status': 'use get-operation',
      'get-backup-info': 'there is none',
      restore: 'there is none',
    },
    limits: { per_second: 1000, burst: 1000, concurrent: 100, timeout_ms: 1000 },
    connect: async () => box,
    recoveryOptions: async () => [],
    guide: async () => ({ behaviour: [], limits: [], credentials: [], permissions: {}, grant: 'x', policy: () => '' }),
    toError: (cause) => new HoldfastError('PROVIDER_UNAVAILABLE', 'the box failed', { cause }),
  });
  const shared = { provider, errors: [], source: 'box' } as const;

  const listSnapshots = defineAction({
    ...shared,
    name: 'list-snapshots',
    title: 'List',
    summary: 'Lists.',
    risk: 'read',
    input: z.object({}),
    output: SnapshotList,
    example: {},
    run: async () => ({
      snapshots: box.snapshots.map((id, index) => ({
        id,
        kind: 'automated',
        // The newest is being made: it is not one that can be restored.
        status: index === 0 ? 'creating' : 'available',
        restorable: index !== 0,
      })),
    }),
  });

  const createSnapshot = defineAction({
    ...shared,
    name: 'create-snapshot',
    aliases: ['create-backup'],
    title: 'Create',
    summary: 'Creates.',
    risk: 'create',
    input: z.object({ label: z.string().optional() }),
    output: z.object({ id: z.string() }),
    example: {},
    steps: () => [
      {
        name: 'snapshot',
        title: 'Taking it',
        kind: 'mutate',
        run: async (step) => {
          await step.checkpoint({ asked: true });
          step.runtime.assertMayWrite('snapshot');
          box.scheduled.push(step.scheduled === true);
          await box.during?.(step.signal);
          box.writes.push(`create ${step.input.label ?? ''}`.trim());
          return { id: 'new' };
        },
        recover: async () => ({ state: 'not_begun' }),
      },
      {
        name: 'wait',
        title: 'Waiting for it',
        kind: 'follow',
        run: async (step) => {
          await box.following?.(step.signal);
          return {};
        },
      },
    ],
    result: () => ({ id: 'new' }),
  });

  const verifySnapshot = defineAction({
    ...shared,
    name: 'verify-snapshot',
    title: 'Verify',
    summary: 'Verifies.',
    risk: 'create',
    input: z.object({ snapshot_id: z.string().regex(/^s\d+$/), level: z.enum(['stored', 'restored']).optional() }),
    output: z.object({ snapshot_id: z.string() }),
    example: { snapshot_id: 's1' },
    run: async ({ runtime }, { snapshot_id }) => {
      runtime.assertMayWrite('verify');
      box.writes.push(`verify ${snapshot_id}`);
      return { snapshot_id };
    },
  });

  const pruneSnapshots = defineAction({
    ...shared,
    name: 'prune-snapshots',
    title: 'Prune',
    summary: 'Prunes.',
    risk: 'change',
    upTo: 'delete',
    input: z.object({}),
    output: z.object({ removed: z.number() }),
    example: {},
    plan: async () => ({
      target: 'box/old',
      loses: 'old ones',
      undo: 'none',
      ...(box.removesMost ? { risk: 'delete' as const } : {}),
      facts: { target: { most: box.removesMost } },
    }),
    run: async ({ runtime }) => {
      runtime.assertMayWrite('prune');
      box.writes.push('prune');
      return { removed: 1 };
    },
  });

  const deleteSnapshot = defineAction({
    ...shared,
    name: 'delete-snapshot',
    title: 'Delete',
    summary: 'Deletes.',
    risk: 'delete',
    input: z.object({ snapshot_id: z.string() }),
    output: z.object({}),
    example: { snapshot_id: 's1' },
    plan: async () => ({ target: 'x', loses: 'x', undo: 'x', facts: { target: {} } }),
    run: async () => ({}),
  });

  return { listSnapshots, createSnapshot, verifySnapshot, pruneSnapshots, deleteSnapshot };
}

export const KEY = 'app/box';

export function schedule(patch: Partial<Schedule> = {}): Schedule {
  return {
    name: 'daily',
    cron: '0 2 * * *',
    timezone: 'UTC',
    action: 'create-snapshot',
    input: {},
    enabled: true,
    catch_up: true,
    ...patch,
  };
}

/** A clock that stands until it is moved; moving it calls back what is due, in order. */
export class Clock {
  #now: number;
  #timers = new Set<{ at: number; work: () => void }>();

  constructor(at: string) {
    this.#now = Date.parse(at);
  }

  readonly now = (): Date => new Date(this.#now);

  readonly timer = (ms: number, work: () => void): (() => void) => {
    const timer = { at: this.#now + ms, work };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };

  get waiting(): number {
    return this.#timers.size;
  }

  /** Moves the clock on, as a clock moves: timers fire at their times, and what they begin gets to run. */
  async forwardTo(at: string, settle: () => Promise<void>): Promise<void> {
    const end = Date.parse(at);
    for (;;) {
      const due = [...this.#timers].sort((a, b) => a.at - b.at)[0];
      if (due === undefined || due.at > end) break;
      this.#timers.delete(due);
      this.#now = Math.max(this.#now, due.at);
      due.work();
      await settle();
    }
    this.#now = end;
  }

  /** Sets the clock, as an administrator does: nothing fires, whatever lies between. */
  set(at: string): void {
    const before = this.#now;
    this.#now = Date.parse(at);
    // Timers run on the time since boot, not on the wall clock.
    for (const timer of this.#timers) timer.at += this.#now - before;
  }
}

export interface Running extends Harness {
  readonly scheduler: Scheduler;
  readonly lines: { level: string; message: string; fields: Record<string, unknown> }[];
}

/** An engine with one box and its schedules, and a scheduler on the given clock. Nothing is started. */
export async function startScheduled(
  box: Box,
  clock: Clock,
  schedules: readonly Schedule[],
  options: Partial<Parameters<typeof startHarness>[0]> = {},
): Promise<Running> {
  const lines: Running['lines'] = [];
  const log =
    (level: string) =>
    (message: string, fields: Record<string, unknown> = {}) => {
      lines.push({ level, message, fields });
    };
  const harness = await startHarness({
    modules: { box: boxModule(box) },
    entities: [{ key: KEY, defines: 'box/box', parameters: { size: 1 }, schedules }],
    log: { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') },
    now: clock.now,
    ...options,
  });
  const { engine, store } = harness;
  const scheduler = await openScheduler({
    engine,
    store,
    log: { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') },
    now: clock.now,
    timer: clock.timer,
  });
  return { ...harness, scheduler, lines };
}
