import { HoldfastError } from '../core/errors.ts';
import type { Schedule } from '../core/schedule.ts';
import { openScheduler, type Scheduler, type ScheduleState } from '../schedule/runner.ts';
import type { ScheduleDesk, ScheduleView } from '../surfaces/cli/deps.ts';
import { type Opened, type OpenOptions, open } from './open.ts';

/** How long a shut-down waits until it is kept how runs ended, in ms. */
const KEEP_MS = 2_000;

/** Begins to make the calls that are due, in a process that serves. What it began is kept before the store is closed. */
export async function startSchedules({ engine, store, log, beforeClose }: Opened): Promise<Scheduler> {
  const scheduler = await openScheduler({ engine, store, log, now: () => new Date() });
  beforeClose(async () => {
    await Promise.race([scheduler.idle(), new Promise((resolve) => setTimeout(resolve, KEEP_MS).unref())]);
  });
  scheduler.start();
  return scheduler;
}

/** Tells whether this process is to run schedules: the environment decides, else the entities file. */
export function runsSchedules(env: OpenOptions['env'], server: { readonly schedules: boolean } | undefined): boolean {
  const said = env['HOLDFAST_SCHEDULER']?.toLowerCase();
  if (said === undefined || said === '') return server?.schedules !== false;
  if (['off', 'false', '0', 'no'].includes(said)) return false;
  if (['on', 'true', '1', 'yes'].includes(said)) return true;
  throw new HoldfastError('CONFIG_INVALID', 'HOLDFAST_SCHEDULER is neither on nor off', {
    hint: 'Set it to on or off.',
  });
}

/** Opens what the command line needs to look at schedules and to run one. */
export async function openSchedules(options: OpenOptions): Promise<ScheduleDesk> {
  const opened = await open(options);
  const { engine, store, log, config } = opened;
  const scheduler = await openScheduler({ engine, store, log, now: () => new Date(), timer: heldTimer });
  return {
    engine,
    runsHere: runsSchedules(options.env, config?.server),
    list: async (entity) => (await scheduler.states(known(opened, entity))).map(view),
    next: (count, entity) =>
      scheduler.next(count, known(opened, entity)).map(({ entity: key, schedule, at }) => ({
        ...named(key, schedule),
        at: at.toISOString(),
        local: localTime(at, schedule.timezone),
      })),
    run: (entity, name, more) => scheduler.run(known(opened, entity) as string, name, more),
    render: async (request) => {
      if (config === undefined)
        throw new HoldfastError('CONFIG_INVALID', 'there is no entities file to render', {
          hint: 'Name it with --config or HOLDFAST_CONFIG.',
        });
      const { renderKubernetes } = await import('../schedule/kubernetes.ts');
      return renderKubernetes(config, request);
    },
    close: () => engine.close(),
  };
}

/** @throws {HoldfastError} ENTITY_NOT_FOUND */
function known({ engine }: Opened, entity: string | undefined): string | undefined {
  return entity === undefined ? undefined : engine.entity(entity).key;
}

function named(entity: string, { name, action, cron, timezone }: Schedule) {
  return { entity, name, action, cron, timezone };
}

function view({ entity, schedule, record, orphaned, next }: ScheduleState): ScheduleView {
  const { running, last } = record ?? {};
  return {
    ...named(entity, schedule),
    enabled: schedule.enabled,
    catch_up: schedule.catch_up,
    ...(schedule.at_most === undefined ? {} : { at_most_seconds: schedule.at_most }),
    state: running === undefined ? (last?.state ?? 'never_run') : orphaned ? 'interrupted' : 'running',
    ...(running === undefined ? {} : { running_since: running.began_at }),
    ...(last === undefined ? {} : { last }),
    ...(record?.last_success_at === undefined ? {} : { last_success_at: record.last_success_at }),
    consecutive_failures: record?.consecutive_failures ?? 0,
    missed: record?.missed ?? 0,
    ...(next === undefined ? {} : { next_at: next.toISOString(), next_local: localTime(next, schedule.timezone) }),
  };
}

/** A moment on the wall of its zone: `2026-11-22 02:00 Europe/Lisbon (+00:00)`. */
function localTime(at: Date, timezone: string): string {
  const parts = new Intl.DateTimeFormat('en-GB', {
    timeZone: timezone,
    year: 'numeric',
    month: '2-digit',
    day: '2-digit',
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
    timeZoneName: 'longOffset',
  }).formatToParts(at);
  const part = (type: string): string => parts.find((candidate) => candidate.type === type)?.value ?? '';
  const offset = part('timeZoneName').replace('GMT', '') || '+00:00';
  return `${part('year')}-${part('month')}-${part('day')} ${part('hour')}:${part('minute')} ${timezone} (${offset})`;
}

// A command waits for its run: nothing else may hold its process.
function heldTimer(ms: number, work: () => void): () => void {
  const timer = setTimeout(work, ms);
  return () => clearTimeout(timer);
}
