import type { ProviderContext } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import { type JsonObject, sha256 } from '../../core/json.ts';
import type { Recovery, Step, StepContext } from '../../core/operation.ts';
import type { PlanDraft } from '../../core/plan.ts';
import { formatBytes } from '../../core/time.ts';
import { isCode, unless } from '../rest.ts';
import type { AtlasClient } from './client.ts';
import { follow, snapshotPace } from './follow.ts';
import { type AtlasSnapshot, type ClusterRef, type Deployment, tierError } from './map.ts';
import type { AtlasEntity } from './provider.ts';

export type AtlasContext = ProviderContext<AtlasClient, AtlasEntity>;
export type AtlasStep<Input> = Step<AtlasClient, AtlasEntity, Input>;
type AtlasStepContext<Input> = StepContext<AtlasClient, AtlasEntity, Input>;

const SNAPSHOT_DEADLINE_MS = 2 * 3_600_000;
/** Pauses between looks for something that may have been begun: a list can lag behind. */
const SEARCH_PAUSES_MS = [0, 5_000, 15_000, 40_000];

/** Turns a cluster that Atlas does not know into an error. */
export function assertExists(deployment: Deployment): void {
  if (deployment.kind === 'gone') throw goneError(deployment);
}

/** Says that Atlas does not know a cluster. */
export function goneError(deployment: Deployment): HoldfastError {
  return new HoldfastError(
    'RESOURCE_NOT_FOUND',
    `MongoDB Atlas knows no cluster '${deployment.cluster}' in this project`,
    {
      hint: 'Check name and project_id of the entity, or the target of the call.',
      details: { project_id: deployment.project, cluster: deployment.cluster },
    },
  );
}

/**
 * Checks that a snapshot can be taken now.
 * @throws {HoldfastError} CLUSTER_TIER_NOT_SUPPORTED on Flex and M0; INVALID_STATE while paused, busy, without cloud
 * backup, or while another on-demand snapshot runs
 */
export async function snapshotTarget(client: AtlasClient, ref: ClusterRef, signal: AbortSignal): Promise<Deployment> {
  const deployment = await client.deployment(ref, signal);
  assertExists(deployment);
  if (deployment.kind !== 'dedicated') throw tierError(deployment, 'on-demand snapshots');
  const name = deployment.cluster;
  if (!deployment.backups) {
    throw new HoldfastError('INVALID_STATE', `cloud backup is off for cluster '${name}'`, {
      hint: 'Switch cloud backup on in MongoDB Atlas, then call again.',
      retryable: false,
    });
  }
  assertReady(deployment);
  const running = (await client.snapshots(deployment, signal)).find(
    ({ status, kind }) => status === 'creating' && kind !== 'automated',
  );
  if (running !== undefined) {
    throw new HoldfastError('INVALID_STATE', `cluster '${name}' is taking another on-demand snapshot`, {
      hint: 'Wait until it is over; Atlas takes one at a time.',
      details: { snapshot_id: running.id },
    });
  }
  return deployment;
}

/** @throws {HoldfastError} INVALID_STATE unless the cluster is idle and not paused */
export function assertReady(deployment: Deployment): void {
  if (deployment.paused) {
    throw new HoldfastError('INVALID_STATE', `cluster '${deployment.cluster}' is paused`, {
      hint: 'Resume the cluster in MongoDB Atlas; while paused it takes no backups and cannot be restored onto.',
      retryable: false,
      details: { paused: true },
    });
  }
  if (deployment.state !== 'IDLE') {
    throw new HoldfastError('INVALID_STATE', `cluster '${deployment.cluster}' is not idle`, {
      hint: 'Wait until its state is IDLE, then call again.',
      details: { state: deployment.state },
    });
  }
}

/** What finds a snapshot of ours again, at the end of its description. */
function mark(idempotencyKey: string): string {
  return `[holdfast ${sha256(idempotencyKey).slice(0, 12)}]`;
}

interface SnapshotWork {
  readonly names: readonly [take: string, wait: string];
  readonly target: ClusterRef;
  readonly description: string;
  readonly retention_days: number;
}

/** The two steps of an on-demand snapshot: ask for it once, then wait until it can be restored. */
export function snapshotSteps<Input>(work: SnapshotWork): AtlasStep<Input>[] {
  const [take, wait] = work.names;
  const { target } = work;
  return [
    {
      name: take,
      title: `Taking a snapshot of '${target.cluster}'`,
      kind: 'mutate',
      async run({ client, signal, idempotencyKey, checkpoint }) {
        const deployment = await snapshotTarget(client, target, signal);
        const marker = mark(idempotencyKey);
        await checkpoint({ marker });
        const description = `${work.description} ${marker}`.trim();
        const body = { description, retentionInDays: work.retention_days };
        const snapshot = await client.takeSnapshot(deployment, body, signal);
        await checkpoint({ marker, snapshot_id: snapshot.id });
        return { snapshot_id: snapshot.id };
      },
      recover: (context) => findSnapshot(context, target),
    },
    {
      name: wait,
      title: `Waiting until the snapshot of '${target.cluster}' can be restored`,
      kind: 'follow',
      async run({ client, runtime, signal, results, progress }) {
        const id = String(results[take]?.['snapshot_id']);
        const deployment = await client.deployment(target, signal);
        const watch = {
          runtime,
          signal,
          what: 'the snapshot',
          every: snapshotPace,
          deadline_ms: SNAPSHOT_DEADLINE_MS,
        };
        const snapshot = await follow(watch, async () => {
          const found = await client.snapshot(deployment, id, signal);
          progress({ message: `snapshot ${id}: ${found.status}` });
          if (found.status === 'failed') {
            throw new HoldfastError('INVALID_STATE', 'the snapshot failed at MongoDB Atlas', {
              hint: 'Look at the activity feed of the project, then take another snapshot.',
              retryable: false,
              details: { snapshot_id: id },
            });
          }
          return found.restorable ? found : undefined;
        });
        return { ...snapshot, provider: { ...snapshot.provider } } satisfies JsonObject;
      },
    },
  ];
}

/** Looks for a snapshot that may have been asked for, by the mark in its description. */
async function findSnapshot<Input>(context: AtlasStepContext<Input>, target: ClusterRef): Promise<Recovery> {
  const { client, runtime, signal, handle } = context;
  if (handle === undefined) return { state: 'not_begun' };
  if (typeof handle['snapshot_id'] === 'string')
    return { state: 'done', result: { snapshot_id: handle['snapshot_id'] } };
  const marker = String(handle['marker']);
  const deployment = await client.deployment(target, signal);
  for (const pause of SEARCH_PAUSES_MS) {
    if (pause > 0) await runtime.sleep(pause, signal);
    const found = (await client.snapshots(deployment, signal)).find(({ description }) => description?.endsWith(marker));
    if (found !== undefined) return { state: 'done', result: { snapshot_id: found.id } };
  }
  return { state: 'not_begun', message: 'Atlas lists no snapshot with this mark' };
}

/** Says what deleting one snapshot would cost. Reads only. */
export async function planDeletion(context: AtlasContext, id: string): Promise<PlanDraft> {
  const { client, signal, runtime } = context;
  const deployment = await client.deployment(client.own, signal);
  if (deployment.kind === 'flex' || deployment.kind === 'free') throw tierError(deployment, 'snapshots to delete');
  const snapshot = await client.snapshot(deployment, id, signal);
  const policy = await client.compliancePolicy(deployment.project, signal);
  if (policy === 'ACTIVE' || policy === 'UPDATING') {
    throw new HoldfastError('NOT_SUPPORTED', 'a backup compliance policy protects the snapshots of this project', {
      hint: 'Nobody can delete them before they expire, whatever their role; only MongoDB support can change the policy.',
    });
  }
  const all = await client.snapshots(deployment, signal);
  const restorable = all.filter((candidate) => candidate.restorable);
  const others = restorable.filter((candidate) => candidate.id !== id);
  const last = snapshot.restorable && others.length === 0;
  const newest = others[0];
  const copies = snapshot.provider.copy_regions?.length ?? 0;
  const size = snapshot.size_bytes === undefined ? '' : `, ${formatBytes(snapshot.size_bytes)}`;
  const jobs = await unless(client.jobs(deployment, signal), 'INSUFFICIENT_PERMISSIONS', 'RESOURCE_NOT_FOUND');
  const inUse = jobs?.some((job) => job.status === 'running' && job.provider.snapshot_id === id) ?? false;
  return {
    target: `${deployment.cluster}/${id}`,
    loses:
      `snapshot ${id} of ${snapshot.created_at ?? 'an unknown time'}${size}` +
      `${copies > 0 ? ` and its copies in ${copies} regions` : ''}, for good`,
    blast_radius: {
      snapshot_status: snapshot.status,
      ...(snapshot.description === undefined ? {} : { description: snapshot.description }),
      ...(snapshot.expires_at === undefined ? {} : { expires_at: snapshot.expires_at }),
      restorable_snapshots_left: others.length,
    },
    ...(newest?.created_at === undefined ? {} : { newest_recovery_point: { id: newest.id, at: newest.created_at } }),
    last_restorable: last,
    undo: 'none: a deleted snapshot cannot be brought back',
    alternatives:
      snapshot.expires_at === undefined
        ? []
        : [{ title: `Do nothing: Atlas deletes it by itself at ${snapshot.expires_at}`, risk: 'read' }],
    warnings: [
      ...(inUse ? ['A restore from this snapshot is running.'] : []),
      ...(snapshot.kind === 'safety' ? ['This is a safety snapshot: the way back from a restore.'] : []),
    ],
    unknowns: [
      ...(policy === 'unknown'
        ? ['whether a backup compliance policy forbids this (the credential may not read it)']
        : []),
      ...(jobs === undefined ? ['whether a restore from this snapshot is running'] : []),
      ...(deployment.pitr && isRecent(snapshot, runtime.now())
        ? ['whether point-in-time restores to the time after this snapshot stay possible']
        : []),
    ],
    facts: {
      target: {
        project_id: deployment.project,
        cluster: deployment.cluster,
        snapshot_id: id,
        status: snapshot.status,
        created_at: snapshot.created_at ?? null,
        last_restorable: last,
      },
      context: { compliance_policy: policy },
    },
  };
}

/**
 * Deletes one snapshot. When the answer is lost, Atlas is asked whether the snapshot is still there.
 * @throws {HoldfastError} SNAPSHOT_NOT_FOUND
 */
export async function deleteSnapshot({ client, signal }: AtlasContext, id: string): Promise<void> {
  const deployment = await client.deployment(client.own, signal);
  if (deployment.kind === 'flex' || deployment.kind === 'free') throw tierError(deployment, 'snapshots to delete');
  const snapshot = await client.snapshot(deployment, id, signal);
  try {
    await client.deleteSnapshot(deployment, snapshot, signal);
  } catch (cause) {
    if (!(cause instanceof HoldfastError) || cause.details?.['outcome'] !== 'unknown' || signal.aborted) throw cause;
    try {
      await client.snapshot(deployment, id, signal);
    } catch (lookedUp) {
      if (isCode(lookedUp, 'SNAPSHOT_NOT_FOUND')) return;
    }
    throw cause;
  }
}

function isRecent(snapshot: AtlasSnapshot, now: Date): boolean {
  return snapshot.created_at !== undefined && now.getTime() - new Date(snapshot.created_at).getTime() < 35 * 86_400_000;
}
