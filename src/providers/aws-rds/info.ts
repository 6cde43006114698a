import type { ProviderContext } from '../../core/context.ts';
import type { RecoveryOption } from '../../core/provider.ts';
import type { BackupInfo, RecoveryWindow } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration } from '../../core/time.ts';
import type { RdsClient } from './client.ts';
import { settingsDrift } from './declared.ts';
import {
  type AutomatedBackup,
  type Database,
  isRestorable,
  newestFirst,
  type Snapshot,
  snapshotStatus,
  stageOf,
  toPoint,
} from './map.ts';
import type { RdsEntity } from './provider.ts';

export type Context = ProviderContext<RdsClient, RdsEntity>;

/** Every snapshot of the database, those of AWS Backup too, newest first. */
export async function allSnapshots(client: RdsClient, signal: AbortSignal): Promise<Snapshot[]> {
  const [own, awsBackup] = await Promise.all([
    client.snapshots(undefined, signal),
    client.snapshots('awsbackup', signal),
  ]);
  // RDS may count one of AWS Backup among the manual ones as well.
  const byArn = new Map([...own, ...awsBackup].map((snapshot) => [snapshot.arn, snapshot]));
  return newestFirst([...byArn.values()]);
}

/** The newest snapshot that can be restored, by the moment of its data; with `before`, of that moment or earlier. */
export function newestRestorable(snapshots: readonly Snapshot[], before?: Date): Snapshot | undefined {
  return snapshots
    .filter(isRestorable)
    .filter(({ dataAt }) => before === undefined || (dataAt !== undefined && Date.parse(dataAt) <= before.getTime()))
    .sort((a, b) => (b.dataAt ?? '').localeCompare(a.dataAt ?? '', 'en'))[0];
}

/** The window of point-in-time recovery; undefined where it is off or RDS does not tell both ends. */
export function windowOf(database: Database, backups: readonly AutomatedBackup[]): RecoveryWindow | undefined {
  if (database.retentionDays === 0) return undefined;
  const record = backups.find(({ resourceId }) => resourceId === database.resourceId);
  const earliest = database.cluster?.EarliestRestorableTime?.toISOString() ?? record?.earliestAt;
  const latest = database.latestAt ?? record?.latestAt;
  return earliest === undefined || latest === undefined ? undefined : { earliest_at: earliest, latest_at: latest };
}

/** Reads what the window of a live database needs; a cluster says both ends itself. */
export function backupsFor(client: RdsClient, database: Database, signal: AbortSignal): Promise<AutomatedBackup[]> {
  return database.kind === 'cluster' ? Promise.resolve([]) : client.automatedBackups(signal);
}

function encryptionOf({ encrypted, kmsKeyId, instance, cluster }: Database): string {
  const type = instance?.StorageEncryptionType ?? cluster?.StorageEncryptionType;
  if (!encrypted && type !== 'sse-rds') return 'none';
  return kmsKeyId === undefined ? 'AWS-owned key' : `KMS key ${cleanText(kmsKeyId, 300)}`;
}

/** What is amiss with a database itself, one sentence each. */
export function weaknesses(database: Database): string[] {
  const { cluster, instance, kind, status } = database;
  const replicaOf = instance?.ReadReplicaSourceDBInstanceIdentifier ?? cluster?.ReplicationSourceIdentifier;
  return [
    ...(database.retentionDays > 0
      ? []
      : ['Automated backups are off (retention 0): there is no point-in-time recovery.']),
    ...(database.deletionProtection
      ? []
      : ['Deletion protection is off; automated backups go with the database unless its deletion keeps them.']),
    ...(encryptionOf(database) === 'none'
      ? ['Storage and snapshots are not encrypted; copy a snapshot with kms_key_id and restore that to change it.']
      : []),
    ...(replicaOf ? [`This is a read replica of ${cleanText(replicaOf, 300)}: back up its source too.`] : []),
    ...(stageOf(status) === 'ready' ? [] : [`The ${kind} is ${status}.`]),
    ...(kind === 'cluster' && (cluster?.DBClusterMembers?.length ?? 0) === 0
      ? ['The cluster has no instances: nobody can connect to it.']
      : []),
  ];
}

/** Says how well a database is backed up. */
export async function backupInfo({ client, entity, runtime, signal }: Context): Promise<BackupInfo> {
  const database = await client.own(signal);
  const [backups, snapshots] = await Promise.all([backupsFor(client, database, signal), allSnapshots(client, signal)]);
  const raw = database.instance ?? database.cluster ?? {};
  const { kind, retentionDays } = database;
  const automated = retentionDays > 0;
  const window = windowOf(database, backups);
  const newest = newestRestorable(snapshots);
  const now = runtime.now().getTime();
  const awsBackup = raw.AwsBackupRecoveryPointArn;
  const replications = database.instance?.DBInstanceAutomatedBackupsReplications ?? [];

  const warnings = weaknesses(database);
  if (automated && window === undefined) {
    warnings.push('Automated backups are on but RDS gives no recovery window: the first backup may not be done.');
  } else if (window !== undefined && now - Date.parse(window.latest_at) > 3_600_000) {
    const behind = formatDuration((now - Date.parse(window.latest_at)) / 1000);
    warnings.push(`The latest restorable time is ${behind} ago; usually it is about 5 minutes.`);
  }
  if (newest === undefined) warnings.push('There is no snapshot that can be restored.');
  else if (newest.dataAt !== undefined && now - Date.parse(newest.dataAt) > 2 * 86_400_000) {
    warnings.push(`The newest restorable snapshot is ${formatDuration((now - Date.parse(newest.dataAt)) / 1000)} old.`);
  }
  const last = snapshots[0];
  if (last !== undefined && snapshotStatus(last.status) === 'failed') {
    warnings.push(`The last snapshot, ${last.id}, failed: it made no restorable copy.`);
  }
  if (entity.skip_final_snapshot === true) {
    warnings.push('Declared skip_final_snapshot is true: deleting the database would leave no final snapshot.');
  }
  warnings.push(...settingsDrift(entity, database));

  return {
    automated,
    ...(automated ? { retention_seconds: retentionDays * 86_400 } : {}),
    ...(automated && raw.PreferredBackupWindow
      ? { schedule: `daily ${cleanText(raw.PreferredBackupWindow, 20)} UTC` }
      : {}),
    pitr: { enabled: automated, ...(window === undefined ? {} : { window }) },
    encryption: encryptionOf(database),
    deletion_protection: database.deletionProtection,
    newest: newest === undefined ? null : toPoint(newest),
    warnings,
    provider: {
      account: database.account,
      region: client.region,
      [kind]: database.id,
      arn: database.arn,
      status: database.status,
      engine: database.engine,
      engine_version: database.version,
      ...(raw.PreferredMaintenanceWindow ? { maintenance_window: cleanText(raw.PreferredMaintenanceWindow, 30) } : {}),
      multi_az: raw.MultiAZ === true,
      copy_tags_to_snapshot: raw.CopyTagsToSnapshot === true,
      snapshots: count(snapshots),
      ...(awsBackup ? { aws_backup: cleanText(awsBackup, 300) } : {}),
      ...(replications.length > 0
        ? {
            backup_replications: replications.map((one) => cleanText(one.DBInstanceAutomatedBackupsArn, 300)),
          }
        : {}),
      ...(database.cluster === undefined
        ? {}
        : {
            members: (database.cluster.DBClusterMembers ?? []).map((member) => ({
              instance: cleanText(member.DBInstanceIdentifier, 63),
              writer: member.IsClusterWriter === true,
            })),
            ...(database.cluster.EarliestBacktrackTime
              ? { earliest_backtrack_at: database.cluster.EarliestBacktrackTime.toISOString() }
              : {}),
          }),
    },
  };
}

function count(snapshots: readonly Snapshot[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { type } of snapshots) counts[type] = (counts[type] ?? 0) + 1;
  return counts;
}

/** Proposes the name of a new database or snapshot: the old one's with the day and time. */
export function proposedName(id: string, word: string, now: Date): string {
  const stamp = now.toISOString().slice(0, 16).replace(/[-:]/g, '').replace('T', '-').toLowerCase();
  return `${id.slice(0, 60 - word.length - stamp.length).replace(/-+$/, '')}-${word}-${stamp}`;
}

/** Every way back, all of them into a new database: RDS never restores in place. */
export async function recoveryOptions(
  { client, entity, runtime, signal }: Context,
  at: Date | undefined,
): Promise<RecoveryOption[]> {
  const database = await client.find(client.kind, client.id, signal);
  const [backups, snapshots] = await Promise.all([
    database?.kind === 'cluster' ? [] : client.automatedBackups(signal),
    allSnapshots(client, signal),
  ]);
  const retained = database === undefined ? retainedOf(backups) : undefined;
  const window = database === undefined ? windowOfBackup(retained) : windowOf(database, backups);
  const target = proposedName(client.id, 'restore', runtime.now());
  const loses = `nothing: ${database === undefined ? 'the database is gone' : `the ${client.kind} stays as it is`}`;
  const options: RecoveryOption[] = [];
  if (window !== undefined) {
    const moment = at ?? new Date(window.latest_at);
    if (moment.getTime() >= Date.parse(window.earliest_at) && moment.getTime() <= Date.parse(window.latest_at)) {
      options.push({
        title: `Point in time into the new ${client.kind} ${target}`,
        moment: moment.toISOString(),
        loses,
        risk: 'create',
        call: {
          entity: entity.key,
          action: 'restore',
          input: {
            ...(at === undefined ? { use_latest: true } : { restore_timestamp: moment.toISOString() }),
            target_id: target,
          },
        },
      });
    }
  }
  const point = newestRestorable(snapshots, at);
  if (point?.dataAt !== undefined) {
    options.push({
      title: `Snapshot ${point.id} into the new ${client.kind} ${target}`,
      moment: point.dataAt,
      loses,
      risk: 'create',
      call: { entity: entity.key, action: 'restore', input: { snapshot_id: point.id, target_id: target } },
    });
  }
  return options;
}

/** What is left of the automated backups of a deleted database; the one that reaches furthest, where there are several. */
export function retainedOf(backups: readonly AutomatedBackup[]): AutomatedBackup | undefined {
  return backups
    .filter(({ status }) => status === 'retained')
    .sort((a, b) => (b.latestAt ?? '').localeCompare(a.latestAt ?? '', 'en'))[0];
}

/** The window of automated backups that outlived their database. */
export function windowOfBackup(backup: AutomatedBackup | undefined): RecoveryWindow | undefined {
  return backup?.earliestAt === undefined || backup.latestAt === undefined
    ? undefined
    : { earliest_at: backup.earliestAt, latest_at: backup.latestAt };
}
