import type { JsonValue } from '../../core/json.ts';
import type { StepContext } from '../../core/operation.ts';
import type { SettingChange, SettingFinding, SettingsReading } from '../../core/settings.ts';
import type { AtlasClient, ClusterSwitches, ScheduleUpdate } from './client.ts';
import { follow, snapshotPace } from './follow.ts';
import { type AtlasSchedule, clusterTitle, type Deployment, daysOf, type Frequency } from './map.ts';
import type { AtlasEntity } from './provider.ts';
import { type AtlasContext, assertExists } from './snapshot.ts';
import { scheduleOf } from './window.ts';

export const FREQUENCIES = ['hourly', 'daily', 'weekly', 'monthly', 'yearly'] as const;
type FrequencyName = (typeof FREQUENCIES)[number];
type DeclaredSchedule = NonNullable<AtlasEntity['backup_schedule']>;

const SCHEDULE = 'backup_schedule';
const CLUSTER_WRITE = 'update-cluster';
const SCHEDULE_WRITE = 'update-backup-schedule';
const IDLE_DEADLINE_MS = 3_600_000;

type Effect = Pick<SettingChange, 'risk' | 'effect'>;

interface Row {
  readonly setting: string;
  readonly declared: JsonValue;
  /** Undefined where Atlas does not tell. */
  readonly actual: JsonValue | undefined;
  readonly same: boolean;
  readonly write: string;
  readonly effect: Effect;
  /** Why it cannot be applied. */
  readonly obstacle?: string | undefined;
}

/** Holds what an entity declares of its backups against its cluster; `schedule` is absent where there is none. */
export function declaredFindings(
  entity: AtlasEntity,
  deployment: Deployment,
  schedule: AtlasSchedule | undefined,
): SettingFinding[] {
  return [...clusterRows(entity, deployment), ...scheduleRows(entity, deployment, schedule)].map(findingOf);
}

function findingOf({ setting, declared, actual, same, write, effect, obstacle }: Row): SettingFinding {
  if (actual === undefined) return { setting, declared, verdict: 'unknown', note: 'Atlas does not tell' };
  if (same) return { setting, declared, actual, verdict: 'as_declared' };
  const differs = { setting, declared, actual, verdict: 'differs' as const };
  return obstacle === undefined ? { ...differs, change: { ...effect, write } } : { ...differs, note: obstacle };
}

/** What keeps a setting of a cluster from being changed, whatever it is. */
function tierObstacle({ kind, tier }: Deployment): string | undefined {
  if (kind === 'flex')
    return 'a Flex cluster has daily snapshots, and nothing of it can be set here; M10 or higher can';
  if (kind === 'free') return `an ${tier} cluster has no backups; upgrade to M10 or higher`;
  return undefined;
}

const change = (effect: string): Effect => ({ risk: 'change', effect });
const weaken = (effect: string): Effect => ({ risk: 'weaken', effect });

function clusterRows(entity: AtlasEntity, deployment: Deployment): Row[] {
  const tier = tierObstacle(deployment);
  const row = (
    setting: string,
    declared: boolean | undefined,
    actual: boolean | undefined,
    effect: Effect,
    obstacle?: string,
  ): Row[] =>
    declared === undefined
      ? []
      : [
          {
            setting,
            declared,
            actual,
            same: declared === actual,
            write: CLUSTER_WRITE,
            effect,
            obstacle: tier ?? obstacle,
          },
        ];
  const { instance_size: size, backup_enabled: backup, pit_enabled: pit } = entity;
  const protect = entity.termination_protection_enabled;
  // What the same request would switch on counts as on.
  const withoutBackup = !deployment.backups && backup !== true;
  return [
    ...(size === undefined
      ? []
      : [
          {
            setting: 'instance_size',
            declared: size,
            actual: deployment.tier === 'unknown' ? undefined : deployment.tier,
            same: size.toUpperCase() === deployment.tier.toUpperCase(),
            write: CLUSTER_WRITE,
            effect: change(`makes the cluster ${size}`),
            obstacle: 'Holdfast changes the size of no cluster: do it in Atlas, or correct the declaration',
          },
        ]),
    ...row(
      'backup_enabled',
      backup,
      deployment.backups,
      backup === true
        ? change('switches cloud backup on')
        : weaken(
            'switches cloud backup off: no snapshots are taken any more, those that exist and the window of point-in-time restores may be deleted at once',
          ),
    ),
    ...row(
      'pit_enabled',
      pit,
      deployment.pitr,
      pit === true
        ? change('keeps the log for point-in-time restores, from now on')
        : weaken('switches point-in-time restore off and deletes the log: only snapshots are left to go back to'),
      pit === true && withoutBackup ? 'needs cloud backup: declare backup_enabled: true' : undefined,
    ),
    ...row(
      'termination_protection_enabled',
      protect,
      deployment.deletion_protection ?? undefined,
      protect === true
        ? change('refuses the deletion of the cluster')
        : weaken('lets the cluster be deleted, its snapshots with it'),
    ),
  ];
}

/** The declared items of one frequency; undefined where it is not declared. */
function declaredItems(schedule: DeclaredSchedule, type: FrequencyName): Frequency[] | undefined {
  const given = schedule[type];
  if (given === undefined) return undefined;
  return [given].flat().map(({ frequency_interval: interval = 1, retention_unit: unit, retention_value: value }) => ({
    type,
    interval,
    unit,
    value,
  }));
}

/** Shows items as the file has them: one by itself, several as a list, null for none. */
export function asDeclared(items: readonly Frequency[]): JsonValue {
  const shown = items.map(({ type, interval, unit, value }) => ({
    ...(type === 'daily' ? {} : { frequency_interval: interval }),
    retention_value: value,
    retention_unit: unit,
  }));
  return shown.length === 0 ? null : shown.length === 1 ? (shown[0] as JsonValue) : shown;
}

const longestFirst = (items: readonly Frequency[]): Frequency[] =>
  [...items].sort((a, b) => daysOf(b) - daysOf(a) || a.interval - b.interval);

function isSame(a: readonly Frequency[], b: readonly Frequency[]): boolean {
  const [one, other] = [longestFirst(a), longestFirst(b)];
  return (
    one.length === other.length &&
    one.every(
      (item, index) => item.interval === other[index]?.interval && daysOf(item) === daysOf(other[index] as Frequency),
    )
  );
}

/** Whether nothing is taken more rarely or kept for less; false where that cannot be told. */
function isNoLess(to: readonly Frequency[], from: readonly Frequency[]): boolean {
  const [next, now] = [longestFirst(to), longestFirst(from)];
  return now.every((item, index) => {
    const instead = next[index];
    if (instead === undefined || !(daysOf(instead) >= daysOf(item))) return false;
    return item.type !== 'hourly' || instead.interval <= item.interval;
  });
}

const MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August'];
MONTHS.push('September', 'October', 'November', 'December');
const WEEKDAYS = ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'];

function words(items: readonly Frequency[]): string {
  if (items.length === 0) return 'no snapshots';
  return items
    .map(({ type, interval, unit, value }) => {
      const when: Record<string, string> = {
        hourly: `every ${interval} h`,
        daily: 'every day',
        weekly: `every ${WEEKDAYS[interval - 1] ?? `day ${interval}`}`,
        monthly: interval === 40 ? 'on the last day of the month' : `on day ${interval} of the month`,
        yearly: `on 1 ${MONTHS[interval - 1] ?? interval}`,
      };
      return `one ${when[type] ?? type} kept ${value} ${unit}`;
    })
    .join(' and ');
}

/** What the schedule would be with everything that is declared. */
function merged(declared: DeclaredSchedule, schedule: AtlasSchedule | undefined): Frequency[] {
  const actual = schedule?.items ?? [];
  const known: readonly string[] = FREQUENCIES;
  return [
    ...FREQUENCIES.flatMap((type) => declaredItems(declared, type) ?? actual.filter((item) => item.type === type)),
    ...actual.filter(({ type }) => !known.includes(type)),
  ];
}

/** Says which rule of Atlas a schedule breaks: what is taken more rarely is kept at least as long. */
function brokenRule(items: readonly Frequency[]): string | undefined {
  const least = FREQUENCIES.map((type) => {
    const days = items.filter((item) => item.type === type).map(daysOf);
    return { type, shortest: Math.min(...days), longest: Math.max(...days) };
  }).filter(({ longest }) => Number.isFinite(longest));
  const broken = least.findIndex(({ shortest }, index) => index > 0 && shortest < (least[index - 1]?.longest ?? 0));
  if (broken < 0) return undefined;
  return `Atlas wants ${least[broken]?.type} snapshots kept at least as long as ${least[broken - 1]?.type} ones`;
}

function scheduleRows(entity: AtlasEntity, deployment: Deployment, schedule: AtlasSchedule | undefined): Row[] {
  const declared = entity.backup_schedule;
  if (declared === undefined) return [];
  const all = merged(declared, schedule);
  const obstacle =
    tierObstacle(deployment) ??
    (!deployment.backups && entity.backup_enabled !== true
      ? 'cloud backup is off: declare backup_enabled: true'
      : entity.backup_enabled === false
        ? 'there is no schedule without cloud backup, and backup_enabled: false is declared'
        : undefined);
  const rule = obstacle === undefined ? brokenRule(all) : undefined;
  const number = (name: 'reference_hour_of_day' | 'reference_minute_of_hour', actual: number | undefined): Row[] => {
    const wanted = declared[name];
    if (wanted === undefined) return [];
    const what = name === 'reference_hour_of_day' ? 'hour' : 'minute';
    const effect = change(`takes the snapshots at ${what} ${wanted}, not ${actual ?? 'unset'}`);
    const same = wanted === actual;
    return [
      {
        setting: `${SCHEDULE}.${name}`,
        declared: wanted,
        actual: actual ?? null,
        same,
        write: SCHEDULE_WRITE,
        effect,
        obstacle,
      },
    ];
  };
  const days = declared.restore_window_days;
  const now = schedule?.window_days;
  return [
    ...number('reference_hour_of_day', schedule?.hour),
    ...number('reference_minute_of_hour', schedule?.minute),
    ...(days === undefined
      ? []
      : [
          {
            setting: `${SCHEDULE}.restore_window_days`,
            declared: days,
            actual: now ?? null,
            same: days === now,
            write: SCHEDULE_WRITE,
            effect:
              now !== undefined && days < now
                ? weaken(`lets point-in-time restores reach back ${days} days, not ${now}; the older log is deleted`)
                : change(`lets point-in-time restores reach back ${days} days, not ${now ?? 'any'}, as the log grows`),
            obstacle,
          },
        ]),
    ...FREQUENCIES.flatMap((type): Row[] => {
      const wanted = declaredItems(declared, type);
      if (wanted === undefined) return [];
      const actual = (schedule?.items ?? []).filter((item) => item.type === type);
      const effect = `${type}: ${words(wanted)}, where there was ${words(actual)}`;
      return [
        {
          setting: `${SCHEDULE}.${type}`,
          declared: declared[type] as JsonValue,
          actual: asDeclared(actual),
          same: isSame(wanted, actual),
          write: SCHEDULE_WRITE,
          effect: isNoLess(wanted, actual)
            ? change(effect)
            : weaken(`${effect}; snapshots that exist keep their date, later ones go sooner or are not taken`),
          obstacle: obstacle ?? rule,
        },
      ];
    }),
  ];
}

const GUARDED_BY_POLICY = (setting: string): boolean =>
  setting === 'backup_enabled' || setting === 'pit_enabled' || setting.startsWith(`${SCHEDULE}.`);

/** Takes away what a backup compliance policy forbids, or says that nobody knows whether one does. */
function underPolicy(finding: SettingFinding, policy: string): SettingFinding {
  if (finding.change?.risk !== 'weaken' || !GUARDED_BY_POLICY(finding.setting) || policy === 'none') return finding;
  if (policy === 'unknown') {
    return {
      ...finding,
      note: 'a backup compliance policy may forbid it; the credential may not read whether there is one',
    };
  }
  const { change: _, ...rest } = finding;
  return {
    ...rest,
    note: 'a backup compliance policy of the project forbids to lower it; only MongoDB support can change that',
  };
}

/** Reads the declared backup settings of the entity's cluster. */
export async function readSettings({ client, entity, signal }: AtlasContext): Promise<SettingsReading> {
  const deployment = await client.deployment(client.own, signal);
  assertExists(deployment);
  const wantsSchedule = entity.backup_schedule !== undefined && deployment.kind === 'dedicated' && deployment.backups;
  const [schedule, projectName] = await Promise.all([
    wantsSchedule ? scheduleOf(client, deployment, signal) : undefined,
    client.projectName(deployment.project, signal),
  ]);
  const findings = declaredFindings(entity, deployment, schedule);
  const lowers = findings.some((finding) => finding.change?.risk === 'weaken' && GUARDED_BY_POLICY(finding.setting));
  const policy = lowers ? await client.compliancePolicy(deployment.project, signal) : 'none';
  return {
    target: clusterTitle(projectName, deployment),
    identity: { project_id: deployment.project, cluster: deployment.cluster, cluster_id: deployment.id ?? null },
    findings: findings.map((finding) => underPolicy(finding, policy)),
  };
}

/** Gives these settings their declared values with one request. */
export async function writeSettings(
  context: StepContext<AtlasClient, AtlasEntity, unknown>,
  write: string,
  findings: readonly SettingFinding[],
): Promise<void> {
  const { client, entity, signal } = context;
  const declares = (setting: string): boolean => findings.some((finding) => finding.setting === setting);
  if (write === CLUSTER_WRITE) {
    const { backup_enabled, pit_enabled, termination_protection_enabled } = entity;
    const switches: ClusterSwitches = {
      ...(declares('backup_enabled') && backup_enabled !== undefined ? { backupEnabled: backup_enabled } : {}),
      ...(declares('pit_enabled') && pit_enabled !== undefined ? { pitEnabled: pit_enabled } : {}),
      ...(declares('termination_protection_enabled') && termination_protection_enabled !== undefined
        ? { terminationProtectionEnabled: termination_protection_enabled }
        : {}),
    };
    await client.updateCluster(client.own, switches, signal);
    return;
  }
  await whenIdle(context);
  const wanted: DeclaredSchedule = Object.fromEntries(
    Object.entries(entity.backup_schedule ?? {}).filter(([name]) => declares(`${SCHEDULE}.${name}`)),
  );
  const schedule = await client.schedule(client.own, signal);
  const { reference_hour_of_day: hour, reference_minute_of_hour: minute, restore_window_days: days } = wanted;
  const update: ScheduleUpdate = {
    policy_id: schedule.policy_id,
    items: merged(wanted, schedule),
    ...(hour === undefined ? {} : { referenceHourOfDay: hour }),
    ...(minute === undefined ? {} : { referenceMinuteOfHour: minute }),
    ...(days === undefined ? {} : { restoreWindowDays: days }),
  };
  await client.updateSchedule(client.own, update, signal);
}

/** Waits until the cluster is idle: switching cloud backup on, in the request before, keeps it busy for minutes. */
async function whenIdle({ client, runtime, signal, progress }: StepContext<AtlasClient, AtlasEntity, unknown>) {
  const watch = {
    runtime,
    signal,
    what: 'the update of the cluster',
    every: snapshotPace,
    deadline_ms: IDLE_DEADLINE_MS,
  };
  await follow(watch, async () => {
    const { state, cluster, paused } = await client.deployment(client.own, signal);
    progress({ message: `'${cluster}' is ${state}` });
    return state === 'IDLE' || paused ? state : undefined;
  });
}
