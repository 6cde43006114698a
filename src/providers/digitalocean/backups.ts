import type { ProviderContext } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { RecoveryOption } from '../../core/provider.ts';
import type { BackupInfo, RecoveryPoint } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration, parseInstant } from '../../core/time.ts';
import { known } from '../../core/wire.ts';
import { driftOf } from '../findings.ts';
import type { BackupConfig, DigitalOceanClient } from './client.ts';
import { configOf, settingFindings } from './declared.ts';
import { assertHasBackups, type Backup, type Backups, type Cluster, supportOf, toPoint } from './map.ts';
import type { DigitalOceanEntity } from './provider.ts';

export type Context = ProviderContext<DigitalOceanClient, DigitalOceanEntity>;

/** The vendor's guides: every engine with backups keeps them for seven days. */
const RETENTION_SECONDS = 7 * 86_400;
/** Two hours of grace beyond the interval, for the time that a backup takes. */
const GRACE_HOURS = 2;

/** What is said wherever a moment is offered. */
export const PASSED_THROUGH = 'passed through, not described by the API';

/**
 * Gives the backups of the entity's cluster, newest first.
 * @throws {HoldfastError} NOT_SUPPORTED for an engine without backups
 */
export async function ownBackups({ client, signal }: Context): Promise<{ cluster: Cluster; backups: Backups }> {
  const cluster = await client.own(signal);
  assertHasBackups(cluster);
  return { cluster, backups: await client.backups(cluster.id, signal) };
}

/**
 * Finds a backup by its moment, however that is written.
 * @throws {HoldfastError} BACKUP_NOT_FOUND with the nearest ones
 */
export function findBackup(backups: Backups, text: string): Backup {
  const at = parseInstant(text, 'backup_created_at');
  const found = backups.all.find((backup) => backup.at.getTime() === at.getTime());
  if (found !== undefined) return found;
  const { earlier, later } = nearestOf(backups, at);
  const near = [earlier, later].flatMap((backup) => (backup === undefined ? [] : [backup.listed]));
  throw new HoldfastError('BACKUP_NOT_FOUND', `there is no backup of ${at.toISOString()}`, {
    hint: near.length === 0 ? 'The cluster has no backups yet.' : `The nearest are ${near.join(' and ')}.`,
    details: known({ earlier: earlier?.listed, later: later?.listed }),
  });
}

/** Gives the last backup not after a moment, and the first one after it. */
export function nearestOf({ all }: Backups, at: Date): { earlier: Backup | undefined; later: Backup | undefined } {
  return { earlier: all.find((backup) => backup.at <= at), later: all.findLast((backup) => backup.at > at) };
}

/** Tells how a cluster is backed up, as far as the API says. */
export async function backupInfo(context: Context): Promise<BackupInfo> {
  const { client, entity, runtime, signal } = context;
  const cluster = await client.own(signal);
  const support = supportOf(cluster.engine);
  const none = support.backups === 'no';
  const backups = none ? undefined : await client.backups(cluster.id, signal);
  const config = await configOf(context, cluster);
  const now = runtime.now();
  const newest = backups?.all[0];
  const oldest = backups?.all.at(-1);
  const pitr = support.point_in_time === 'guide';
  const hasWindow = pitr && oldest !== undefined;
  return {
    automated: !none,
    ...(none ? {} : { retention_seconds: RETENTION_SECONDS }),
    ...(backups?.schedule === undefined ? {} : { schedule: backups.schedule }),
    pitr: {
      enabled: pitr,
      ...(hasWindow ? { window: { earliest_at: oldest.at.toISOString(), latest_at: now.toISOString() } } : {}),
    },
    encryption: 'unknown: the API does not tell',
    deletion_protection: null,
    newest: newest === undefined ? null : toPoint(newest),
    warnings: [
      ...(none ? [`${support.why}: nothing here can be restored.`] : []),
      ...(backups !== undefined ? backupWarnings(backups, config, now) : []),
      ...(pitr ? [`Point-in-time restore is ${PASSED_THROUGH}; check the restored data with a query.`] : []),
      ...(support.backups === 'try' ? ['Nothing is documented of the backups of this engine.'] : []),
      ...clusterWarnings(cluster, now),
      ...driftOf(settingFindings(entity, { cluster, backups, config })),
    ],
    provider: known({
      cluster_id: cluster.id,
      name: cleanText(cluster.name, 100),
      engine: cleanText(cluster.engine, 40),
      version: cleanText(cluster.semantic_version ?? cluster.version, 40),
      status: cleanText(cluster.status, 40),
      region: cleanText(cluster.region, 40),
      size: cleanText(cluster.size, 60),
      num_nodes: cluster.num_nodes,
      storage_size_mib: cluster.storage_size_mib,
      backups: backups?.all.length,
      backup_progress: backups?.progress,
      incremental: config?.incremental?.enabled,
      restore: none ? 'none' : 'to a new cluster only',
      point_in_time: pitr ? PASSED_THROUGH : support.point_in_time === 'try' ? 'unknown' : 'none',
      version_end_of_life: cluster.end_of_life,
      version_end_of_availability: cluster.end_of_availability,
    }),
  };
}

function backupWarnings(backups: Backups, config: BackupConfig | undefined, now: Date): string[] {
  const newest = backups.all[0];
  if (newest === undefined) return ['There is no backup yet; the first one can take a day after the cluster was made.'];
  const hours = (now.getTime() - newest.at.getTime()) / 3_600_000;
  const late = hours > (backups.interval_hours ?? 24) + GRACE_HOURS;
  return [
    ...(late ? [`The newest backup is ${formatDuration(hours * 3600)} old.`] : []),
    ...(config?.incremental?.enabled === true
      ? [
          `MySQL backups are incremental, full ones on ${cleanText(config.incremental.full_days ?? 'unknown days', 40)}: the others need those.`,
        ]
      : []),
  ];
}

function clusterWarnings(cluster: Cluster, now: Date): string[] {
  const passed = (at: string | undefined): boolean => at !== undefined && Date.parse(at) < now.getTime();
  return [
    ...(cluster.status === 'online'
      ? []
      : [`The cluster is ${cleanText(cluster.status, 40)}; restores from it have to wait.`]),
    ...(passed(cluster.end_of_availability)
      ? ['New clusters of this version may be refused: a restore may not be possible.']
      : []),
    ...(passed(cluster.end_of_life) ? ['The version is past its end of life.'] : []),
  ];
}

/** Describes one backup. */
export async function describeBackup(context: Context, text: string): Promise<RecoveryPoint> {
  const { backups } = await ownBackups(context);
  return toPoint(findBackup(backups, text));
}

/** Suggests the name of a new cluster. */
export function newName(cluster: Cluster, moment: Date): string {
  const stamp = moment.toISOString().slice(0, 16).replace(/\D/g, '');
  return `${cluster.name.slice(0, 40)}-${stamp}`;
}

/** Every way back, best first: listed backups are sure, a moment is passed through. */
export async function recoveryOptions(context: Context, at: Date | undefined): Promise<RecoveryOption[]> {
  const { runtime } = context;
  const { cluster, backups } = await ownBackups(context);
  const now = runtime.now();
  const wanted = at ?? now;
  const options: RecoveryOption[] = [];
  const oldest = backups.all.at(-1);
  const loses = 'nothing: the cluster stays as it is, a new one is billed beside it';
  if (supportOf(cluster.engine).point_in_time === 'guide' && oldest !== undefined && wanted >= oldest.at) {
    const moment = new Date(Math.floor(Math.min(wanted.getTime(), now.getTime()) / 1000) * 1000);
    options.push({
      title: `The moment ${moment.toISOString()} into a new cluster (${PASSED_THROUGH})`,
      moment: moment.toISOString(),
      loses,
      risk: 'create',
      call: {
        action: 'restore',
        input: { new_cluster_name: newName(cluster, moment), restore_time: moment.toISOString() },
      },
    });
  }
  for (const backup of backups.all.filter((one) => one.at <= wanted).slice(0, 5)) {
    options.push({
      title: `The backup of ${backup.at.toISOString()} into a new cluster`,
      moment: backup.at.toISOString(),
      loses,
      risk: 'create',
      call: {
        action: 'restore',
        input: { new_cluster_name: newName(cluster, backup.at), backup_created_at: cleanText(backup.listed, 40) },
      },
    });
  }
  return options;
}
