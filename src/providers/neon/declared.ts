import { HoldfastError } from '../../core/errors.ts';
import type { JsonValue } from '../../core/json.ts';
import type { StepContext } from '../../core/operation.ts';
import type { SettingChange, SettingFinding, SettingsReading } from '../../core/settings.ts';
import { formatDuration } from '../../core/time.ts';
import { known } from '../../core/wire.ts';
import { type Comparison, findingsOf } from '../findings.ts';
import { unless } from '../rest.ts';
import type { Change, NeonClient } from './client.ts';
import { type Branch, type Project, type ScheduleItem, shown } from './map.ts';
import type { NeonEntity } from './provider.ts';
import { assertMayChange, type Context, handleOf, settle } from './work.ts';

/** What Neon keeps a scheduled snapshot where nothing is said: its longest, always sent in words, as that has changed before. */
const LONGEST_SECONDS = 3_024_000;

/** What is compared: a schedule of undefined is one that cannot be read. */
export interface Actual {
  readonly project: Project;
  readonly branch: Branch;
  readonly schedule: readonly ScheduleItem[] | undefined;
}

/** Reads the snapshot schedule of a branch; undefined for child branches and plans, which have none, and where it is refused. */
export function scheduleOf(
  { client, signal }: Pick<Context, 'client' | 'signal'>,
  branch: Branch,
): Promise<ScheduleItem[] | undefined> {
  const codes = ['NOT_SUPPORTED', 'INVALID_PARAMETER', 'RESOURCE_NOT_FOUND', 'INSUFFICIENT_PERMISSIONS'];
  return unless(client.schedule(branch.id, signal), ...codes);
}

/** Reads the settings of the project and its branch and holds the declared ones against them. */
export async function readSettings(context: Context): Promise<SettingsReading> {
  const { client, entity, signal } = context;
  const [project, branches] = await Promise.all([client.project(signal), client.branches(signal)]);
  const branch = client.own(branches);
  const schedule = entity.backup_schedule === undefined ? undefined : await scheduleOf(context, branch);
  return {
    target: `${project.id}/${shown(branch)}`,
    identity: { project_id: project.id, branch_id: branch.id, branch: shown(branch) },
    findings: settingFindings(entity, { project, branch, schedule }),
  };
}

/** Holds what an entity declares against what there is; what it leaves out is not compared. */
export function settingFindings(entity: NeonEntity, { project, branch, schedule }: Actual): SettingFinding[] {
  const { history_retention_seconds: history, backup_schedule: wanted, protected: isProtected } = entity;
  const sorted = wanted === undefined ? undefined : inOrder(wanted);
  return findingsOf([
    {
      setting: 'history_retention_seconds',
      declared: history,
      actual: project.history_seconds,
      otherwise: () => ({ change: historyChange(history as number, project.history_seconds) }),
    },
    {
      setting: 'backup_schedule',
      declared: sorted as JsonValue | undefined,
      actual: schedule === undefined ? undefined : shownSchedule(schedule, sorted),
      otherwise: () => scheduleChange(sorted ?? [], schedule),
    },
    {
      setting: 'protected',
      declared: isProtected,
      actual: branch.protected,
      otherwise: () => ({
        change: isProtected
          ? { risk: 'change', effect: 'the branch can be neither deleted nor replaced', write: 'branch-protection' }
          : {
              risk: 'weaken',
              effect: `the branch '${shown(branch)}' loses its protection: it can be deleted and replaced`,
              write: 'branch-protection',
            },
      }),
    },
  ]);
}

function historyChange(wanted: number, actual: number): SettingChange {
  const write = 'history-window';
  if (wanted > actual) {
    const effect = `keeps ${formatDuration(wanted)} of history, not ${formatDuration(actual)}, filled from now on`;
    return { risk: 'change', effect, write };
  }
  return {
    risk: 'weaken',
    effect:
      wanted === 0
        ? `the history is switched off: no moment of any branch can be restored any more, its ${formatDuration(actual)} are lost at once and for good`
        : `keeps ${formatDuration(wanted)} of history, not ${formatDuration(actual)}: the older moments of every branch are lost at once and for good`,
    write,
  };
}

// --- the schedule --------------------------------------------------------------------------------------------------

type Wanted = NonNullable<NeonEntity['backup_schedule']>[number];
type Item = Pick<ScheduleItem, 'frequency'> & { [K in 'hour' | 'day' | 'retention_seconds']?: number | undefined };

/** Their order means nothing: both sides in one. */
function inOrder<T extends Item>(items: readonly T[]): T[] {
  const key = ({ frequency, day, hour, retention_seconds }: Item): string =>
    [frequency, ...[day, hour, retention_seconds].map((one) => String(one ?? 0).padStart(9, '0'))].join(' ');
  return items.map((item) => known(item) as T).sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

/** The schedule that there is, without what the declared one leaves open. */
function shownSchedule(schedule: readonly ScheduleItem[], wanted: readonly Wanted[] | undefined): JsonValue {
  const actual = inOrder(schedule);
  const fits = (item: ScheduleItem, declared: Wanted | undefined): boolean =>
    declared !== undefined &&
    item.frequency === declared.frequency &&
    (['hour', 'day', 'retention_seconds'] as const).every(
      (name) => declared[name] === undefined || declared[name] === item[name],
    );
  const isSame = wanted?.length === actual.length && actual.every((item, index) => fits(item, wanted[index]));
  return (isSame ? wanted : actual) as unknown as JsonValue;
}

const OFTEN = ['hourly', 'daily', 'weekly', 'monthly', 'yearly'];

/** Whether snapshots are taken as often and kept as long as before: each old line has a new one that does. */
function covers(wanted: readonly Wanted[], actual: readonly ScheduleItem[]): boolean {
  return actual.every((old) =>
    wanted.some(
      ({ frequency, retention_seconds }) =>
        OFTEN.includes(old.frequency) &&
        OFTEN.indexOf(frequency) <= OFTEN.indexOf(old.frequency) &&
        old.retention_seconds !== undefined &&
        (retention_seconds ?? LONGEST_SECONDS) >= old.retention_seconds,
    ),
  );
}

function scheduleChange(
  wanted: readonly Wanted[],
  actual: readonly ScheduleItem[] | undefined,
): ReturnType<Comparison['otherwise']> {
  if (actual === undefined) {
    return { note: 'Neon shows no schedule of this branch: child branches and some plans have none' };
  }
  const [after, before] = [scheduleText(wanted), scheduleText(actual)];
  const isEnough = covers(wanted, actual);
  return {
    change: {
      risk: isEnough ? 'change' : 'weaken',
      effect:
        wanted.length === 0
          ? `no snapshots are taken by themselves any more; until now: ${before}`
          : `takes snapshots ${after}, not ${before}${isEnough ? '' : ': fewer, or kept for less time'}`,
      write: 'snapshot-schedule',
    },
  };
}

/** Says a schedule in words: `daily at 03:00 UTC kept 7 d`. */
export function scheduleText(items: readonly Item[]): string {
  const line = ({ frequency, hour, day, retention_seconds }: Item): string => {
    const at = hour === undefined ? '' : ` at ${String(hour).padStart(2, '0')}:00 UTC`;
    const on = day === undefined ? '' : ` on day ${day}`;
    return `${frequency}${on}${at}${retention_seconds === undefined ? '' : ` kept ${formatDuration(retention_seconds)}`}`;
  };
  return items.length === 0 ? 'none' : items.map(line).join('; ');
}

// --- the requests --------------------------------------------------------------------------------------------------

/** Sends one of the three requests; the project's other settings are in none of them. */
export async function writeSettings(
  context: StepContext<NeonClient, NeonEntity, unknown>,
  write: string,
): Promise<void> {
  const { client, signal } = context;
  const [project, branches] = await Promise.all([client.project(signal), client.branches(signal)]);
  assertMayChange(project);
  const change = await send(context, write, client.own(branches));
  // The next request would be refused while these run. The one before was taken, whatever keeps us from looking.
  await settle(context, handleOf(change), 'the change', async () => true).catch((cause: unknown) => {
    if (cause instanceof HoldfastError && cause.details?.['operation_id'] !== undefined) throw cause;
  });
}

function send({ client, entity, signal }: Context, write: string, branch: Branch): Promise<Change> {
  if (write === 'history-window') return client.setHistory(entity.history_retention_seconds as number, signal);
  if (write === 'branch-protection') return client.protect(branch.id, entity.protected as boolean, signal);
  const wanted = entity.backup_schedule ?? [];
  const schedule = wanted.map((item) => ({ retention_seconds: LONGEST_SECONDS, ...known(item) }));
  return client.setSchedule(branch.id, schedule, signal);
}
