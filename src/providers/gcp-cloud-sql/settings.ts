import type { SettingChange, SettingFinding } from '../../core/settings.ts';
import { cleanText } from '../../core/text.ts';
import { type Comparison, findingsOf } from '../findings.ts';
import { hasPitr, type Instance } from './map.ts';
import type { CloudSqlEntity } from './provider.ts';

export type Backups = NonNullable<NonNullable<Instance['settings']>['backupConfiguration']>;
type Outcome = Pick<SettingFinding, 'change' | 'note'>;

const WRITE = 'update-settings';

const days = (count: unknown): string => `${cleanText(count, 10)} ${count === 1 ? 'day' : 'days'}`;
const text = (value: string | null | undefined): string | null => (value ? cleanText(value, 60) : null);

function change(risk: SettingChange['risk'], effect: string): Outcome {
  return { change: { risk, effect, write: WRITE } };
}

/** A protection that is on or off: off is `weaken`. */
function toggle(setting: string, declared: boolean | undefined, actual: boolean, on: string, off: string): Comparison {
  return {
    setting,
    declared,
    actual,
    otherwise: () => (declared === true ? change('change', on) : change('weaken', off)),
  };
}

/** A number of which more is safer; where the old one is not told, it may get less. */
function amount(
  setting: string,
  declared: number | undefined,
  actual: number | null | undefined,
  effect: (declared: number, actual: number | undefined) => string,
  refusal?: string,
): Comparison {
  return {
    setting,
    declared,
    actual: actual ?? undefined,
    otherwise: () =>
      refusal === undefined
        ? change(
            typeof actual === 'number' && (declared as number) > actual ? 'change' : 'weaken',
            effect(declared as number, actual ?? undefined),
          )
        : { note: refusal },
  };
}

function fixed(setting: string, declared: string | undefined, actual: string | null, note: string): Comparison {
  return { setting, declared, actual, otherwise: () => ({ note }) };
}

/** Holds what the entity declares against its instance; Google leaves out what is false. */
export function settingsFindings(
  entity: CloudSqlEntity,
  instance: Instance,
  logsSince: string | undefined,
): SettingFinding[] {
  const settings = instance.settings ?? {};
  const backups: Backups = settings.backupConfiguration ?? {};
  const final = settings.finalBackupConfig ?? {};
  const isMysql = (instance.databaseVersion ?? '').startsWith('MYSQL');
  const isOff = backups.enabled !== true;
  const restarts = isMysql ? '; binary logging is switched on and the instance restarts' : '; the instance may restart';
  const held = instance.masterInstanceName
    ? 'a read replica takes no backups: declare them on its primary'
    : backups.backupTier === 'ENHANCED'
      ? 'the Backup and DR service keeps the backups of this instance: set it there'
      : undefined;
  const retention = backups.backupRetentionSettings;
  const counted = retention?.retentionUnit === undefined || retention.retentionUnit === 'COUNT';
  const mostLogDays = settings.edition === 'ENTERPRISE_PLUS' ? 35 : 7;
  const logDays = entity.transaction_log_retention_days;

  const ofBackups: Comparison[] = [
    {
      setting: 'backup_start_time',
      declared: entity.backup_start_time,
      actual: isOff ? null : text(backups.startTime),
      otherwise: () =>
        change(
          'change',
          isOff
            ? `automated backups are switched on, daily from ${entity.backup_start_time} UTC`
            : `daily backups begin from ${entity.backup_start_time} UTC, not ${cleanText(backups.startTime, 10)}`,
        ),
    },
    toggle(
      'point_in_time_recovery_enabled',
      entity.point_in_time_recovery_enabled,
      hasPitr(instance),
      `logs are kept for point-in-time recovery from now on${isOff ? ', automated backups too' : ''}${restarts}`,
      `point-in-time recovery is switched off and all its logs${logsSince === undefined ? '' : `, which begin at ${logsSince},`} are deleted`,
    ),
    amount(
      'backup_retention_count',
      entity.backup_retention_count,
      counted ? retention?.retainedBackups : undefined,
      (now, before) =>
        `keeps ${now} automated backups, not ${before ?? 'as many as now'}${before !== undefined && now > before ? '' : '; the oldest beyond that are deleted'}`,
    ),
    amount(
      'transaction_log_retention_days',
      logDays,
      backups.transactionLogRetentionDays,
      (now, before) =>
        `keeps ${days(now)} of logs, not ${before ?? 'as many as now'}${before !== undefined && now > before ? '' : '; point-in-time recovery reaches no further back'}`,
      logDays !== undefined && logDays > mostLogDays
        ? `this edition keeps logs of ${mostLogDays} days at most`
        : undefined,
    ),
    {
      setting: 'backup_location',
      declared: entity.backup_location,
      actual: text(backups.location),
      otherwise: () =>
        change(
          'change',
          `new backups are stored in ${entity.backup_location}, not ${text(backups.location) ?? 'the default location'}; those that exist stay where they are`,
        ),
    },
  ];
  return findingsOf([
    ...ofBackups.map((one) => (held === undefined ? one : { ...one, otherwise: () => ({ note: held }) })),
    toggle(
      'delete_protection',
      entity.delete_protection,
      settings.deletionProtectionEnabled === true,
      'the instance cannot be deleted before that is switched off',
      'deletion protection is switched off: one call can delete the instance',
    ),
    toggle(
      'retain_backups_on_delete',
      entity.retain_backups_on_delete,
      settings.retainBackupsOnDelete === true,
      'backups outlive the instance',
      'backups are deleted together with the instance',
    ),
    toggle(
      'final_backup.enabled',
      entity.final_backup?.enabled,
      final.enabled === true,
      'a last backup is taken when the instance is deleted',
      'no last backup is taken when the instance is deleted',
    ),
    amount(
      'final_backup.retention_days',
      entity.final_backup?.retention_days,
      final.retentionDays,
      (now, before) =>
        `keeps the last backup ${days(now)}, not ${before === undefined ? 'as long as now' : days(before)}`,
    ),
    fixed('region', entity.region, text(instance.region), 'an instance stays in the region that it was made in'),
    fixed(
      'database_version',
      entity.database_version,
      text(instance.databaseVersion),
      'another version is an upgrade, which Holdfast does not do',
    ),
    fixed('tier', entity.tier, text(settings.tier), 'another tier restarts the instance, which Holdfast does not do'),
  ]);
}
