import { HoldfastError } from '../../core/errors.ts';
import type { JsonValue } from '../../core/json.ts';
import type { StepContext } from '../../core/operation.ts';
import type { SettingFinding, SettingsReading } from '../../core/settings.ts';
import { isStill } from '../findings.ts';
import { type Context, windowOf } from './backups.ts';
import type { CloudSqlClient } from './client.ts';
import { type Instance, instant } from './map.ts';
import type { CloudSqlEntity } from './provider.ts';
import { type Backups, settingsFindings } from './settings.ts';

const OUTPUT_ONLY = ['kind', 'backupTier', 'transactionalLogStorageState'];

/** Reads the declared settings of the instance. */
export async function readSettings({ client, entity, signal }: Context): Promise<SettingsReading> {
  const [project, instance] = await Promise.all([client.project(), client.getInstance(client.instance, signal)]);
  // Only the effect of switching point-in-time recovery off needs it.
  const window =
    entity.point_in_time_recovery_enabled === false
      ? await windowOf(client, instance, client.instance, signal)
      : undefined;
  return {
    target: `${project}/${client.instance}`,
    identity: { project, instance: client.instance, created_at: instant(instance.createTime) ?? null },
    findings: settingsFindings(entity, instance, window?.earliest_at),
  };
}

/**
 * Sends the declared values in one request that holds only for the settings as they were read.
 * @throws {HoldfastError} PLAN_CHANGED when somebody changed them in between
 */
export async function writeSettings(
  context: StepContext<CloudSqlClient, CloudSqlEntity, unknown>,
  _write: string,
  findings: readonly SettingFinding[],
): Promise<void> {
  const { client, entity, signal } = context;
  const instance = await client.getInstance(client.instance, signal);
  if (!isStill(findings, settingsFindings(entity, instance, undefined))) throw settingsChanged();
  const settings = instance.settings ?? {};
  const wanted = new Map(findings.map(({ setting, declared }) => [setting, declared]));
  const backups = backupConfiguration(instance, wanted);
  const final = finalBackup(instance, wanted);
  await client.updateSettings(
    client.instance,
    {
      settingsVersion: settings.settingsVersion,
      ...(backups === undefined ? {} : { backupConfiguration: backups }),
      ...(final === undefined ? {} : { finalBackupConfig: final }),
      ...onOff('deletionProtectionEnabled', wanted.get('delete_protection')),
      ...onOff('retainBackupsOnDelete', wanted.get('retain_backups_on_delete')),
    },
    signal,
  );
}

function onOff<Name extends string>(name: Name, value: JsonValue | undefined): Partial<Record<Name, boolean>> {
  return (value === undefined ? {} : { [name]: value === true }) as Partial<Record<Name, boolean>>;
}

// Google merges, but a part of the backup configuration resets its neighbours: it is sent whole, as it was read.
function backupConfiguration(instance: Instance, wanted: ReadonlyMap<string, JsonValue>): Backups | undefined {
  const names = [
    'backup_start_time',
    'point_in_time_recovery_enabled',
    'backup_retention_count',
    'transaction_log_retention_days',
    'backup_location',
  ];
  if (!names.some((name) => wanted.has(name))) return undefined;
  const before = instance.settings?.backupConfiguration ?? {};
  const kept = Object.fromEntries(Object.entries(before).filter(([name]) => !OUTPUT_ONLY.includes(name))) as Backups;
  const [start, pitr, count, logDays, location] = names.map((name) => wanted.get(name));
  const isMysql = (instance.databaseVersion ?? '').startsWith('MYSQL');
  return {
    ...kept,
    ...(start === undefined ? {} : { enabled: true, startTime: String(start) }),
    ...(pitr === undefined
      ? {}
      : {
          // Without automated backups there is nothing that the logs could be replayed on.
          ...(pitr === true ? { enabled: true } : {}),
          [isMysql ? 'binaryLogEnabled' : 'pointInTimeRecoveryEnabled']: pitr === true,
        }),
    ...(count === undefined
      ? {}
      : { backupRetentionSettings: { retentionUnit: 'COUNT', retainedBackups: Number(count) } }),
    ...(logDays === undefined ? {} : { transactionLogRetentionDays: Number(logDays) }),
    ...(location === undefined ? {} : { location: String(location) }),
  };
}

function finalBackup(
  instance: Instance,
  wanted: ReadonlyMap<string, JsonValue>,
): { enabled?: boolean; retentionDays?: number } | undefined {
  const [enabled, kept] = [wanted.get('final_backup.enabled'), wanted.get('final_backup.retention_days')];
  if (enabled === undefined && kept === undefined) return undefined;
  const before = instance.settings?.finalBackupConfig ?? {};
  return {
    enabled: enabled === undefined ? before.enabled === true : enabled === true,
    ...(typeof before.retentionDays === 'number' ? { retentionDays: before.retentionDays } : {}),
    ...(kept === undefined ? {} : { retentionDays: Number(kept) }),
  };
}

/** Gives the newest operation of the instance: an update is one from the moment that Cloud SQL takes it. */
export async function settingsMark({ client, signal }: Context): Promise<string> {
  const [newest] = await client.listOperations(client.instance, signal);
  return newest?.name ?? 'none';
}

function settingsChanged(): HoldfastError {
  return new HoldfastError('PLAN_CHANGED', 'the settings changed after the plan was made; nothing was changed', {
    hint: 'Call again: a new plan shows what they are now.',
  });
}
