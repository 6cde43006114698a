import { HoldfastError } from '../../core/errors.ts';
import type { JsonValue } from '../../core/json.ts';
import type { BackupInfo } from '../../core/schemas.ts';
import { known } from '../../core/wire.ts';
import { unless } from '../rest.ts';
import type { AtlasClient } from './client.ts';
import { declaredFindings } from './declared.ts';
import { type Deployment, tierError } from './map.ts';
import { type AtlasContext, goneError } from './snapshot.ts';
import { restoreWindow, scheduleOf } from './window.ts';

/** Flex clusters keep their last eight daily snapshots. */
const FLEX_RETENTION_SECONDS = 8 * 86_400;

/** Tells how a cluster is backed up, as its schedule and its snapshots say. */
export async function backupInfo({ client, entity, runtime, signal }: AtlasContext): Promise<BackupInfo> {
  const deployment = await client.deployment(client.own, signal);
  if (deployment.kind === 'free') throw tierError(deployment, 'backup API');
  if (deployment.kind === 'gone') await refuseGone(client, deployment, signal);
  const flex = deployment.kind === 'flex';
  const snapshots = deployment.backups || flex ? await client.snapshots(deployment, signal) : [];
  const newest = snapshots.find(({ restorable }) => restorable) ?? null;
  const schedule = flex ? undefined : await scheduleOf(client, deployment, signal);
  const policy = flex ? 'none' : await client.compliancePolicy(deployment.project, signal);
  const window = await restoreWindow(client, deployment, snapshots, runtime.now(), signal, schedule);
  const lines = (schedule?.items ?? []).map(({ every, keep }) => `${every} kept ${keep}`);
  const kept = Math.max(0, ...(schedule?.items ?? []).map(({ keep_seconds }) => keep_seconds));
  const drifted = declaredFindings(entity, deployment, schedule).filter(({ verdict }) => verdict === 'differs');
  const keyed = deployment.key_provider !== undefined && deployment.key_provider !== 'NONE';
  const warnings = [
    ...(deployment.paused ? ['The cluster is paused: no backups are taken, and the snapshots that exist expire.'] : []),
    ...(deployment.state !== 'IDLE' ? [`The cluster is ${deployment.state}; snapshots and restores want IDLE.`] : []),
    ...(deployment.backups || flex ? [] : ['Cloud backup is off: there is nothing to restore from.']),
    ...(newest === null && (deployment.backups || flex) ? ['There is no snapshot that can be restored.'] : []),
    ...(snapshots[0]?.status === 'failed' ? ['The newest snapshot failed.'] : []),
    ...(deployment.backups && !flex && schedule?.items.length === 0
      ? ['The backup schedule has no policy: no snapshots are taken by themselves.']
      : []),
    ...(flex ? ['Flex: one automatic snapshot a day, the last 8 kept; none on demand, no point-in-time restore.'] : []),
    ...(!flex && deployment.backups && !deployment.pitr
      ? ['Point-in-time restore is off: what was written after the newest snapshot would be lost.']
      : []),
    ...(deployment.deletion_protection === false ? ['Termination protection is off.'] : []),
    ...drifted.map(
      ({ setting, declared, actual }) =>
        `The entity declares ${setting} ${wordsOf(declared)}, the cluster has ${wordsOf(actual ?? null)}.`,
    ),
    ...(policy === 'ACTIVE'
      ? ['A backup compliance policy is active: snapshots cannot be deleted before they expire.']
      : []),
  ];
  return {
    automated: flex || (deployment.backups && !deployment.paused && (schedule?.items.length ?? 0) > 0),
    ...(flex ? { retention_seconds: FLEX_RETENTION_SECONDS } : kept > 0 ? { retention_seconds: kept } : {}),
    ...(flex
      ? { schedule: 'daily, at a time that Atlas chooses' }
      : lines.length > 0
        ? { schedule: `${lines.join('; ')}${schedule?.time === undefined ? '' : `; at ${schedule.time} UTC`}` }
        : {}),
    pitr: {
      enabled: deployment.pitr,
      ...(window === undefined
        ? {}
        : { window: { earliest_at: window.earliest.toISOString(), latest_at: window.latest.toISOString() } }),
    },
    encryption: keyed
      ? `customer key in ${deployment.key_provider} over the storage encryption of the cloud`
      : 'storage encryption of the cloud',
    deletion_protection: deployment.deletion_protection,
    newest,
    warnings,
    provider: known({
      tier: deployment.tier,
      state: deployment.state,
      paused: deployment.paused,
      mongodb_version: deployment.version,
      shards: deployment.sharded ? deployment.shards : undefined,
      disk_gb: deployment.disk_gb,
      cloud: deployment.provider,
      region: deployment.region,
      snapshots: snapshots.length,
      next_snapshot_at: schedule?.next_at,
      restore_window_days: schedule?.window_days,
      copies_to_other_regions: schedule?.copies,
      export_to_bucket: schedule?.export,
      compliance_policy: policy,
    }),
  };
}

/** @throws {HoldfastError} RESOURCE_NOT_FOUND, saying what a deleted cluster left behind */
async function refuseGone(client: AtlasClient, deployment: Deployment, signal: AbortSignal): Promise<never> {
  const kept = (await unless(client.snapshots(deployment, signal), 'RESOURCE_NOT_FOUND', 'BACKUP_NOT_FOUND')) ?? [];
  const usable = kept.filter(({ restorable }) => restorable);
  const [newest] = usable;
  if (newest === undefined) throw goneError(deployment);
  throw new HoldfastError(
    'RESOURCE_NOT_FOUND',
    `the cluster '${deployment.cluster}' is deleted; its snapshots were kept`,
    {
      hint: 'list-snapshots shows them, and restore with target_cluster brings one onto another cluster.',
      details: {
        snapshots: usable.length,
        newest: { id: newest.id, created_at: newest.created_at ?? null, expires_at: newest.expires_at ?? null },
      },
    },
  );
}

function wordsOf(value: JsonValue): string {
  if (value === null) return 'none';
  return typeof value === 'string' ? value : JSON.stringify(value);
}
