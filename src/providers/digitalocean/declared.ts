import type { JsonObject, JsonValue } from '../../core/json.ts';
import type { StepContext } from '../../core/operation.ts';
import type { SettingChange, SettingFinding, SettingsReading } from '../../core/settings.ts';
import { cleanText } from '../../core/text.ts';
import { known } from '../../core/wire.ts';
import { type Comparison, findingsOf } from '../findings.ts';
import { unless } from '../rest.ts';
import type { BackupConfig, DigitalOceanClient } from './client.ts';
import { type Backups, type Cluster, clock, supportOf } from './map.ts';
import type { DigitalOceanEntity } from './provider.ts';

type In = Pick<StepContext<DigitalOceanClient, DigitalOceanEntity, unknown>, 'client' | 'entity' | 'signal'>;
type Otherwise = ReturnType<Comparison['otherwise']>;

/** What is compared: undefined where the engine has it not, or the token may not see it. */
export interface Actual {
  readonly cluster: Cluster;
  readonly backups: Backups | undefined;
  readonly config: BackupConfig | undefined;
}

/** Everything that can be set of backups is configuration of the cluster, in one request. */
const WRITE = 'backup-configuration';

/** Reads the configuration of a cluster as far as it is about backups; undefined where there is none to be seen. */
export async function configOf(
  { client, signal }: Pick<In, 'client' | 'signal'>,
  cluster: Cluster,
): Promise<BackupConfig | undefined> {
  if (!supportOf(cluster.engine).has_config) return undefined;
  return unless(client.config(cluster.id, signal), 'INSUFFICIENT_PERMISSIONS', 'RESOURCE_NOT_FOUND');
}

/** Reads the cluster and holds what the entity declares against it. */
export async function readSettings(context: In): Promise<SettingsReading> {
  const { client, entity, signal } = context;
  const cluster = await client.own(signal);
  const none = supportOf(cluster.engine).backups === 'no';
  const [config, backups] = await Promise.all([
    configOf(context, cluster),
    none || entity.backup_hour === undefined ? undefined : client.backups(cluster.id, signal),
  ]);
  return {
    target: cleanText(cluster.name, 100),
    identity: { cluster_id: cluster.id, name: cleanText(cluster.name, 100), engine: cleanText(cluster.engine, 40) },
    findings: settingFindings(entity, { cluster, backups, config }),
  };
}

/** Holds what an entity declares against what there is; what it leaves out is not compared. */
export function settingFindings(entity: DigitalOceanEntity, actual: Actual): SettingFinding[] {
  const { cluster } = actual;
  const fixed = (['engine', 'version', 'region', 'size', 'num_nodes'] as const).map(
    (setting): Comparison => ({
      setting,
      declared: entity[setting],
      actual: plain(cluster[setting]),
      otherwise: () => ({
        note: 'it is no backup setting: correct the declaration, or the cluster in the control panel',
      }),
    }),
  );
  return findingsOf([...fixed, ...timeOfDay(entity, actual), ...incremental(entity, actual)]);
}

function plain(value: string | number | undefined): JsonValue | undefined {
  return typeof value === 'string' ? cleanText(value, 60) : value;
}

function timeOfDay(entity: DigitalOceanEntity, { cluster, backups, config }: Actual): Comparison[] {
  const hour = config?.hour ?? backups?.hour;
  const minute = config?.minute ?? backups?.minute;
  const otherwise = (): Otherwise => {
    const { has_config, why } = supportOf(cluster.engine);
    if (!has_config) return { note: why ?? 'DigitalOcean chooses the time of backups of this engine by itself' };
    if (config === undefined) return { note: 'the configuration of the cluster cannot be read' };
    const before = hour === undefined ? 'an unknown time' : `${clock(hour, minute ?? 0)} UTC`;
    const after = `${clock(entity.backup_hour ?? hour ?? 0, entity.backup_minute ?? minute ?? 0)} UTC`;
    return {
      change: {
        risk: 'weaken',
        effect: `backups are taken at ${after}, not at ${before}: once, up to two days may pass between two of them`,
        write: WRITE,
      },
    };
  };
  return [
    { setting: 'backup_hour', declared: entity.backup_hour, actual: hour, otherwise },
    { setting: 'backup_minute', declared: entity.backup_minute, actual: minute, otherwise },
  ];
}

// --- incremental backups of MySQL ----------------------------------------------------------------------------------

const WEEK = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'];

/** Gives the days of a schedule in the order of the week: their own order means nothing. */
export function daysOf(schedule: string | null | undefined): string[] {
  const days = (schedule ?? '')
    .toLowerCase()
    .split(',')
    .map((day) => day.trim());
  return WEEK.filter((day) => days.includes(day));
}

function incremental(entity: DigitalOceanEntity, { cluster, config }: Actual): Comparison[] {
  const wanted = entity.mysql_incremental_backup;
  const actual = config?.incremental;
  const others: Otherwise | undefined =
    cluster.engine !== 'mysql'
      ? { note: 'only MySQL has incremental backups' }
      : config === undefined
        ? { note: 'the configuration of the cluster cannot be read' }
        : undefined;
  const seen = <T extends JsonValue>(value: T | undefined): T | null | undefined =>
    cluster.engine === 'mysql' ? value : null;
  const [before, after] = [daysOf(actual?.full_days), daysOf(wanted?.full_backup_week_schedule)];
  const change = (risk: SettingChange['risk'], effect: string): Otherwise => ({
    change: { risk, effect, write: WRITE },
  });
  return [
    {
      setting: 'mysql_incremental_backup.enabled',
      declared: wanted?.enabled,
      actual: seen(actual?.enabled),
      otherwise: () =>
        others ??
        (wanted?.enabled === true
          ? change(
              'weaken',
              `full backups are taken on ${after.join(', ')} only: those of the other days cannot be restored without the last full one`,
            )
          : change('change', 'every backup is a full one')),
    },
    {
      setting: 'mysql_incremental_backup.full_backup_week_schedule',
      declared: wanted?.enabled === true ? after.join(',') : undefined,
      actual: seen(actual === undefined ? undefined : before.join(',')),
      otherwise: () =>
        others ??
        change(
          actual?.enabled === true && before.every((day) => after.includes(day)) ? 'change' : 'weaken',
          `full backups are taken on ${after.join(', ')}, not on ${actual?.enabled === true ? before.join(', ') : 'every day'}`,
        ),
    },
  ];
}

// --- the request ---------------------------------------------------------------------------------------------------

/** Sends the declared values of these findings; the rest of the configuration is left out, and so left as it is. */
export async function writeSettings(context: In, findings: readonly SettingFinding[]): Promise<void> {
  const { client, entity, signal } = context;
  const wants = (name: string): boolean => findings.some(({ setting }) => setting.startsWith(name));
  const { enabled, full_backup_week_schedule } = entity.mysql_incremental_backup ?? { enabled: false };
  const config: JsonObject = known({
    backup_hour: wants('backup_hour') ? entity.backup_hour : undefined,
    backup_minute: wants('backup_minute') ? entity.backup_minute : undefined,
    // Its two members are one setting: the days are obligatory where it is on.
    mysql_incremental_backup: wants('mysql_incremental_backup')
      ? known({ enabled, full_backup_week_schedule: enabled ? full_backup_week_schedule : undefined })
      : undefined,
  });
  const cluster = await client.own(signal);
  await client.setConfig(cluster.id, config, signal);
}
