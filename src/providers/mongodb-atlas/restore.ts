import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Recovery, StepContext } from '../../core/operation.ts';
import { type Alternative, compareFacts, type Plan, type PlanDraft } from '../../core/plan.ts';
import type { JobStatus, RestoreJob } from '../../core/schemas.ts';
import { formatDuration, parseInstant } from '../../core/time.ts';
import { unless } from '../rest.ts';
import { type AtlasClient, clusterName, objectId } from './client.ts';
import { follow, restorePace, snapshotPace } from './follow.ts';
import {
  type AtlasJob,
  type AtlasSnapshot,
  type ClusterRef,
  clusterTitle,
  type Deployment,
  SAFETY_DESCRIPTION,
  tierError,
  withCollections,
} from './map.ts';
import type { AtlasEntity } from './provider.ts';
import { type AtlasContext, type AtlasStep, assertExists, assertReady, snapshotSteps } from './snapshot.ts';
import { restoreWindow } from './window.ts';

export interface RestoreInput {
  readonly snapshot_id?: string | undefined;
  readonly restore_timestamp?: string | number | undefined;
  readonly target_cluster?: string | undefined;
  readonly target_project_id?: string | undefined;
  readonly safety_snapshot?: boolean | undefined;
}

export const RESTORE_DEADLINE_MS = 24 * 3_600_000;
const IDLE_DEADLINE_MS = 2 * 3_600_000;
const CLIENT_WINDOW_MS = 3_600_000;
const MAX_SECONDS = 2_147_483_647;
const MIN_SECONDS = 1_199_145_600;
const SAFETY_RETENTION_DAYS = 7;
export const SEARCH_PAUSES_MS = [0, 5_000, 15_000, 40_000];

/** What a restore comes from: one snapshot, or the log up to a second. */
export type Origin = { snapshot_id: string } | { at_seconds: number };

/** @throws {HoldfastError} INVALID_PARAMETER unless exactly one origin is given, in a form that Atlas takes */
export function originOf(input: Pick<RestoreInput, 'snapshot_id' | 'restore_timestamp'>): Origin {
  const { snapshot_id, restore_timestamp } = input;
  if ((snapshot_id === undefined) === (restore_timestamp === undefined)) {
    throw new HoldfastError('INVALID_PARAMETER', 'give either snapshot_id or restore_timestamp', {
      hint: 'Use list-snapshots for ids, or get-backup-info for the window of point-in-time restores.',
    });
  }
  if (snapshot_id !== undefined) return { snapshot_id: objectId(snapshot_id, 'snapshot_id') };
  const at = parseInstant(restore_timestamp as string | number, 'restore_timestamp');
  const seconds = Math.floor(at.getTime() / 1000);
  if (seconds > MAX_SECONDS || seconds < MIN_SECONDS) {
    throw new HoldfastError('INVALID_PARAMETER', `restore_timestamp ${seconds} is out of range`, {
      hint: 'Give Unix seconds (10 digits), not milliseconds, or RFC 3339.',
    });
  }
  return { at_seconds: seconds };
}

/** Gives the cluster that a call is about to change: its own where none is named. */
export function targetOf(
  client: AtlasClient,
  input: Pick<RestoreInput, 'target_cluster' | 'target_project_id'>,
): ClusterRef {
  if (input.target_cluster === undefined && input.target_project_id !== undefined) {
    throw new HoldfastError('INVALID_PARAMETER', 'target_project_id needs target_cluster', {
      hint: 'Name the cluster in that project whose data is to be replaced.',
    });
  }
  return {
    project: objectId(input.target_project_id ?? client.own.project, 'target_project_id'),
    cluster: clusterName(input.target_cluster ?? client.own.cluster, 'target_cluster'),
  };
}

const isSame = (a: ClusterRef, b: ClusterRef): boolean => a.project === b.project && a.cluster === b.cluster;

/** The identity and state of a target that an approval rests on. */
export function targetFacts(target: Deployment): JsonObject {
  return {
    project_id: target.project,
    cluster: target.cluster,
    cluster_id: target.id ?? null,
    tier: target.tier,
    shards: target.shards,
    mongodb_major: majorOf(target.version) ?? null,
    state: target.state,
    paused: target.paused,
  };
}

function majorOf(version: string | undefined): string | undefined {
  return /^\d+\.\d+/.exec(version ?? '')?.[0];
}

/** Says why data of one MongoDB version cannot go to a cluster of another; the same or the next major takes it. */
export function versionFault(from: string | undefined, to: string | undefined): string | undefined {
  const [a, b] = [majorOf(from), majorOf(to)].map((version) => version?.split('.').map(Number));
  if (a === undefined || b === undefined) return undefined;
  const [fromMajor = 0, fromMinor = 0] = a;
  const [toMajor = 0, toMinor = 0] = b;
  if (toMajor === fromMajor ? toMinor >= fromMinor : toMajor === fromMajor + 1) return undefined;
  return `the data is of MongoDB ${majorOf(from)}, the target runs ${majorOf(to)}`;
}

function refuse(message: string, hint: string, details?: JsonObject): never {
  throw new HoldfastError('INVALID_PARAMETER', message, { hint, details });
}

/** Checks that Atlas would take this restore, as far as its rules are known. */
function assertFits(source: Deployment, target: Deployment, snapshot: AtlasSnapshot | undefined): void {
  assertExists(target);
  if (target.kind === 'free') throw tierError(target, 'restores');
  if (target.kind === 'flex' && source.kind !== 'flex') {
    throw new HoldfastError('CLUSTER_TIER_NOT_SUPPORTED', `a Flex cluster cannot take a snapshot of a dedicated one`, {
      hint: 'Choose a dedicated cluster (M10 or higher) as target.',
      details: { tier: target.tier },
    });
  }
  const sharded = snapshot === undefined ? source.sharded : snapshot.provider.type === 'shardedCluster';
  if (sharded !== target.sharded) {
    refuse(
      `a ${sharded ? 'sharded cluster' : 'replica set'} cannot be restored onto '${target.cluster}', a ${target.sharded ? 'sharded cluster' : 'replica set'}`,
      'Choose a target of the same topology.',
    );
  }
  const shards = snapshot?.provider.shards ?? source.shards;
  if (sharded && shards > 0 && shards !== target.shards) {
    refuse(
      `the data has ${shards} shards, '${target.cluster}' has ${target.shards}`,
      'Choose a target of as many shards.',
    );
  }
  const fault = versionFault(snapshot?.provider.mongodb_version ?? source.version, target.version);
  if (fault !== undefined) refuse(fault, 'Choose a target of the same major version or the next one.');
  assertReady(target);
}

export async function checkedSnapshot(
  client: AtlasClient,
  source: Deployment,
  id: string,
  signal: AbortSignal,
): Promise<AtlasSnapshot> {
  const snapshot = await client.snapshot(source, id, signal);
  if (snapshot.restorable) return snapshot;
  throw new HoldfastError('INVALID_STATE', 'this snapshot cannot be restored', {
    hint: 'Only a snapshot whose status is available can; wait for it, or use another one.',
    retryable: snapshot.status === 'creating',
    details: { snapshot_id: id, status: snapshot.status },
  });
}

/** Says what a restore would replace and what would be lost. Reads only. */
export async function planRestore(context: AtlasContext, input: RestoreInput): Promise<PlanDraft> {
  const { client, runtime, signal } = context;
  const origin = originOf(input);
  const targetRef = targetOf(client, input);
  const inPlace = isSame(targetRef, client.own);
  const source = await client.deployment(client.own, signal);
  if (source.kind === 'free') throw tierError(source, 'backups to restore');
  if (source.kind === 'flex' && 'at_seconds' in origin) throw tierError(source, 'point-in-time restore');
  if (inPlace) assertExists(source);
  const now = runtime.now();
  const all = await client.snapshots(source, signal);
  const target = inPlace ? source : await client.deployment(targetRef, signal);

  let snapshot: AtlasSnapshot | undefined;
  let moment: string | undefined;
  let sourceFacts: JsonObject;
  let from: string;
  if ('snapshot_id' in origin) {
    snapshot = await checkedSnapshot(client, source, origin.snapshot_id, signal);
    moment = snapshot.created_at;
    from = `snapshot ${snapshot.id} of ${moment ?? 'an unknown time'}`;
    sourceFacts = { snapshot_id: snapshot.id, status: snapshot.status, created_at: moment ?? null };
  } else {
    moment = new Date(origin.at_seconds * 1000).toISOString();
    await assertInWindow(client, source, all, origin.at_seconds, now, signal);
    from = `point in time ${moment}`;
    sourceFacts = { restore_timestamp: moment };
  }
  assertFits(source, target, snapshot);

  const targetSnapshots = inPlace
    ? all
    : target.kind === 'dedicated' && !target.backups
      ? []
      : await client.snapshots(target, signal);
  const newest = targetSnapshots.find(({ restorable }) => restorable);
  const [projectName, databases, clients, others] = await Promise.all([
    client.projectName(target.project, signal),
    'snapshot_id' in origin ? client.databasesIn(source, origin.snapshot_id, signal) : undefined,
    target.kind === 'dedicated'
      ? client.recentClients(target, new Date(now.getTime() - CLIENT_WINDOW_MS), now, signal)
      : undefined,
    inPlace ? unless(client.clusters(target.project, signal), 'INSUFFICIENT_PERMISSIONS') : undefined,
  ]);
  const newer = all.filter(({ restorable, created_at }) => restorable && (created_at ?? '') > (moment ?? ''));
  const ago = moment === undefined ? undefined : formatDuration((now.getTime() - new Date(moment).getTime()) / 1000);
  const safety = safetyOf(target);
  return {
    target: clusterTitle(projectName, target),
    source: `${from}, cluster '${source.cluster}'`,
    loses: inPlace
      ? `IN PLACE: everything in '${target.cluster}' is replaced; what was written after ${moment ?? 'the snapshot'}${ago === undefined ? '' : ` (the last ${ago})`} is gone`
      : `ALL data in cluster '${target.cluster}' is deleted and replaced by that of '${source.cluster}'`,
    ...(inPlace && moment !== undefined ? { since: moment } : {}),
    blast_radius: {
      in_place: inPlace,
      project_id: target.project,
      ...(projectName === undefined ? {} : { project: projectName }),
      cluster: target.cluster,
      tier: target.tier,
      shards: target.shards,
      state: target.state,
      ...(target.version === undefined ? {} : { mongodb_version: target.version }),
      ...(target.disk_gb === undefined ? {} : { disk_gb: target.disk_gb }),
      ...(target.host === undefined ? {} : { host: target.host }),
      deletion_protection: target.deletion_protection,
      ...(databases === undefined ? {} : { databases_in_snapshot: databases.slice(0, 50) }),
      ...(clients === undefined ? {} : { clients_last_hour: clients.length, some_clients: clients.slice(0, 10) }),
      ...(snapshot?.size_bytes === undefined ? {} : { snapshot_bytes: snapshot.size_bytes }),
      newer_snapshots: newer.length,
    },
    ...(newest?.created_at === undefined ? {} : { newest_recovery_point: { id: newest.id, at: newest.created_at } }),
    safety_snapshot: safety,
    undo: safety.possible
      ? 'restore the safety snapshot that is taken of the target first'
      : newest?.created_at === undefined
        ? 'none: the target has no snapshot'
        : `only back to the target's newest snapshot, of ${newest.created_at}`,
    alternatives: alternativesOf(source, inPlace ? others : undefined, origin, now),
    unknowns: [
      ...(databases === undefined ? ['which databases the restored data holds (not inspected)'] : []),
      'which databases the target holds now (not inspected)',
      ...(clients === undefined ? ['which applications use the target (not inspected)'] : []),
      'how long it takes: minutes within a region, hours for much data or across regions',
      ...(moment === undefined ? ['the time of the snapshot'] : []),
    ],
    warnings: [
      ...(inPlace
        ? [`The target is the live database of this entity itself: '${target.cluster}' is overwritten.`]
        : []),
      ...(newer.length > 0 && snapshot !== undefined ? [`There are ${newer.length} newer snapshots.`] : []),
      ...(clients !== undefined && clients.length > 0
        ? [`${clients.length} clients logged in during the last hour; stop them, writes during the restore are lost.`]
        : ['Clients must not use the target meanwhile; writes during the restore are lost.']),
      'Search indexes are rebuilt afterwards; database users of the project are not part of a snapshot.',
      ...(source.pinned === undefined ? [] : [`The source pins feature compatibility version ${source.pinned}.`]),
      ...(source.disk_gb !== undefined && target.disk_gb !== undefined && target.disk_gb < source.disk_gb
        ? ['The target has a smaller disk than the source; Atlas may refuse.']
        : []),
      ...(target.project === source.project
        ? []
        : ['The target is in another project; the credential needs rights in both.']),
    ],
    facts: {
      target: targetFacts(target),
      source: { project_id: source.project, cluster: source.cluster, cluster_id: source.id ?? null, ...sourceFacts },
    },
  };
}

/** @throws {HoldfastError} INVALID_STATE without continuous backup, INVALID_PARAMETER outside of its window */
export async function assertInWindow(
  client: AtlasClient,
  source: Deployment,
  snapshots: readonly AtlasSnapshot[],
  seconds: number,
  now: Date,
  signal: AbortSignal,
): Promise<void> {
  const window = await restoreWindow(client, source, snapshots, now, signal);
  if (window === undefined) {
    throw new HoldfastError('INVALID_STATE', `point-in-time restore is not possible for '${source.cluster}'`, {
      hint: 'It needs continuous backup switched on and a first snapshot. Restore a snapshot instead.',
      retryable: false,
      details: { pitr: source.pitr },
    });
  }
  const at = new Date(seconds * 1000);
  if (at > window.latest || at < window.earliest) {
    refuse(
      `restore_timestamp ${at.toISOString()} is outside of the window of point-in-time restores`,
      'Give a moment inside the window, or restore a snapshot.',
      { earliest_at: window.earliest.toISOString(), latest_at: window.latest.toISOString() },
    );
  }
}

/** Says whether a snapshot of a target can be taken first. */
export function safetyOf(target: Deployment): { possible: boolean; reason?: string } {
  if (target.kind === 'flex') return { possible: false, reason: 'Flex clusters take no snapshots on demand' };
  if (!target.backups) return { possible: false, reason: 'cloud backup is off for the target' };
  return { possible: true };
}

function alternativesOf(
  source: Deployment,
  clusters: readonly Deployment[] | undefined,
  origin: Origin,
  now: Date,
): Alternative[] {
  const input: JsonObject =
    'snapshot_id' in origin
      ? { snapshot_id: origin.snapshot_id }
      : { restore_timestamp: new Date(origin.at_seconds * 1000).toISOString() };
  const elsewhere = (clusters ?? []).filter(
    (cluster) =>
      cluster.kind === 'dedicated' &&
      !isSame(cluster, source) &&
      cluster.sharded === source.sharded &&
      cluster.shards === source.shards &&
      cluster.state === 'IDLE' &&
      !cluster.paused &&
      versionFault(source.version, cluster.version) === undefined,
  );
  const latest = new Date(Math.floor((now.getTime() - 60_000) / 1000) * 1000).toISOString();
  return [
    ...elsewhere.slice(0, 3).map(
      (cluster): Alternative => ({
        title: `Restore onto '${cluster.cluster}' instead: its data is replaced, '${source.cluster}' stays as it is`,
        risk: 'overwrite',
        call: { action: 'restore', input: { ...input, target_cluster: cluster.cluster } },
      }),
    ),
    ...(clusters !== undefined && elsewhere.length === 0
      ? [
          {
            title: 'Create an empty cluster in Atlas and restore onto it with target_cluster: nothing is lost',
            risk: 'create',
          } satisfies Alternative,
        ]
      : []),
    ...(source.kind === 'dedicated' && source.pitr && 'snapshot_id' in origin
      ? [
          {
            title: 'Restore to a point in time instead: less is lost than with a snapshot',
            risk: 'overwrite',
            call: { action: 'restore', input: { restore_timestamp: latest } },
          } satisfies Alternative,
        ]
      : []),
    ...('snapshot_id' in origin
      ? [{ title: 'Download the snapshot in the Atlas console and look into it', risk: 'read' } satisfies Alternative]
      : []),
  ];
}

/** The steps that take a snapshot of the target before it is overwritten; what is noted with it is for the undo. */
export function safetySteps<Input>(plan: Plan, note: JsonObject = {}): AtlasStep<Input>[] {
  const target = refOf(plan);
  return snapshotSteps<Input>({
    names: ['safety-snapshot', 'safety-wait'],
    target,
    description: SAFETY_DESCRIPTION,
    retention_days: SAFETY_RETENTION_DAYS,
  }).map((step) =>
    step.name === 'safety-wait'
      ? {
          ...step,
          run: async (context) => ({
            ...(await step.run(context)),
            in_place: isSame(target, context.client.own),
            project_id: target.project,
            cluster: target.cluster,
            ...note,
          }),
        }
      : step,
  );
}

/** Gives the call that brings the target back to its safety snapshot. */
export function undoRestore(results: Readonly<Record<string, JsonObject>>): JsonObject {
  const taken = results['safety-wait'] ?? {};
  const snapshot_id = taken['id'];
  if (taken['in_place'] === true) return { action: 'restore', input: { snapshot_id } };
  return {
    title: 'Restore this snapshot from an entity that names the overwritten cluster',
    action: 'restore',
    input: { snapshot_id },
    project_id: taken['project_id'],
    cluster: taken['cluster'],
  };
}

/** Gives the target that a plan is about. */
export function refOf(plan: Plan): ClusterRef {
  const { project_id, cluster } = plan.facts.target;
  return { project: String(project_id), cluster: String(cluster) };
}

type RestoreContext = StepContext<AtlasClient, AtlasEntity, RestoreInput>;

/** The steps of a restore: start it once, wait for the job, wait until the target can be used. */
export function restoreSteps(input: RestoreInput, plan: Plan): AtlasStep<RestoreInput>[] {
  const origin = originOf(input);
  const target = refOf(plan);
  return [
    {
      name: 'restore',
      title: `Starting the restore onto '${target.cluster}'`,
      kind: 'mutate',
      run: (context) => startRestore(context, origin, target, plan),
      recover: (context) => findJob(context, origin, target),
    },
    {
      name: 'wait',
      title: 'Waiting for the restore job',
      kind: 'follow',
      async run({ client, runtime, signal, results, progress }) {
        const id = String(results['restore']?.['job_id']);
        const source = await client.deployment(client.own, signal);
        const watch = {
          runtime,
          signal,
          what: 'the restore job',
          every: restorePace,
          deadline_ms: RESTORE_DEADLINE_MS,
        };
        const job = await follow(watch, async () => {
          const found = await client.job(source, id, signal);
          progress({ message: `restore job ${id}: ${found.provider.state}` });
          if (found.status === 'failed' || found.status === 'cancelled') throw jobError(found);
          return found.status === 'succeeded' ? found : undefined;
        });
        return toJson(job);
      },
    },
    {
      name: 'verify',
      title: `Waiting until '${target.cluster}' can be used`,
      kind: 'follow',
      async run({ client, runtime, signal, results, progress }) {
        const watch = { runtime, signal, what: 'the target', every: snapshotPace, deadline_ms: IDLE_DEADLINE_MS };
        const state = await follow(watch, async () => {
          const found = await client.deployment(target, signal);
          assertExists(found);
          progress({ message: `'${target.cluster}' is ${found.state}` });
          return found.state === 'IDLE' && !found.paused ? found.state : undefined;
        });
        const job = results['wait'] as unknown as AtlasJob;
        return toJson({ ...job, usable: true, provider: { ...job.provider, target_state: state } });
      },
    },
  ];
}

async function startRestore(
  context: RestoreContext,
  origin: Origin,
  target: ClusterRef,
  plan: Plan,
): Promise<JsonObject> {
  const { client, signal, checkpoint } = context;
  const source = await client.deployment(client.own, signal);
  const found = await client.deployment(target, signal);
  const differences = compareFacts(plan.facts.target, targetFacts(found));
  if (differences.length > 0) {
    throw new HoldfastError('INVALID_STATE', `'${target.cluster}' is not in the state that the plan showed`, {
      hint: 'Nothing was started. Make the call again to get a new plan.',
      retryable: false,
      details: { changed: differences.map(({ path }) => path), outcome: 'not_sent' },
    });
  }
  if ('snapshot_id' in origin) await checkedSnapshot(client, source, origin.snapshot_id, signal);
  // What the list holds now tells a job of ours from older ones, should the answer be lost.
  const jobs = await unless(client.jobs(source, signal), 'INSUFFICIENT_PERMISSIONS');
  const busy = jobs?.find((job) => isOver(job.status) === false && hasTarget(job, target));
  if (busy !== undefined) {
    throw new HoldfastError('INVALID_STATE', `another restore onto '${target.cluster}' is running`, {
      details: { job_id: busy.job_id, outcome: 'not_sent' },
    });
  }
  const before = jobs
    ?.filter((job) => isWhole(job) && isOrigin(job, origin) && hasTarget(job, target))
    .map(({ job_id }) => job_id);
  await checkpoint(before === undefined ? {} : { before });
  const job = await client.startRestore(source, target, origin, signal);
  await checkpoint({ job_id: job.job_id });
  return { job_id: job.job_id };
}

/** Whether a job is over, however it ended. */
export const isOver = (status: JobStatus): boolean =>
  status === 'succeeded' || status === 'failed' || status === 'cancelled';

/** Whether a job goes to a cluster. */
export function hasTarget(job: AtlasJob, target: ClusterRef): boolean {
  // A Flex job may leave out the project where it is the source's own.
  const project = job.provider.target_project_id;
  return job.provider.target_cluster === target.cluster && (project === undefined || project === target.project);
}

/** Whether a job is of a whole cluster. */
const isWhole = (job: AtlasJob): boolean => job.provider.delivery !== 'collections';

/** Whether a job comes from a snapshot or a moment. */
export function isOrigin(job: AtlasJob, origin: Origin): boolean {
  return 'snapshot_id' in origin
    ? job.provider.snapshot_id === origin.snapshot_id
    : job.provider.restore_timestamp === new Date(origin.at_seconds * 1000).toISOString();
}

/** Looks for a job that may have been started: one with our origin and target that was not there before. */
async function findJob(context: RestoreContext, origin: Origin, target: ClusterRef): Promise<Recovery> {
  const { client, runtime, signal, handle } = context;
  if (handle === undefined) return { state: 'not_begun' };
  if (typeof handle['job_id'] === 'string') return { state: 'done', result: { job_id: handle['job_id'] } };
  const before = Array.isArray(handle['before']) ? handle['before'] : undefined;
  if (before === undefined) {
    return { state: 'unknown', message: 'the credential may not list restore jobs, so nobody can tell' };
  }
  const source = await client.deployment(client.own, signal);
  for (const pause of SEARCH_PAUSES_MS) {
    if (pause > 0) await runtime.sleep(pause, signal);
    const ours = (await client.jobs(source, signal)).filter(
      (job) => isWhole(job) && isOrigin(job, origin) && hasTarget(job, target) && !before.includes(job.job_id),
    );
    if (ours.length > 1) return { state: 'unknown', message: 'more than one such restore was started' };
    if (ours[0] !== undefined) return { state: 'done', result: { job_id: ours[0].job_id } };
  }
  const now = await client.deployment(target, signal);
  if (now.state !== 'IDLE') {
    return { state: 'unknown', message: `Atlas lists no such job, but '${target.cluster}' is ${now.state}` };
  }
  return { state: 'not_begun', message: 'Atlas lists no such restore job, and the target is idle' };
}

function jobError(job: AtlasJob): HoldfastError {
  const details = { job_id: job.job_id, state: job.provider.state, target: job.target };
  if (job.status === 'cancelled') {
    return new HoldfastError('CANCELLED', 'the restore job was cancelled at MongoDB Atlas', {
      hint: 'Look at the target before anything else: its data may be incomplete.',
      details,
    });
  }
  return new HoldfastError('INVALID_STATE', 'the restore job failed at MongoDB Atlas', {
    hint: 'Look at the activity feed of the project (CPS_RESTORE_FAILED) and at the target, whose data may be incomplete.',
    retryable: false,
    details,
  });
}

/** Gives a job as the result of a step. */
export function toJson(job: AtlasJob): JsonObject {
  return { ...job, provider: { ...job.provider } };
}

/** Finds a restore job of whole clusters, else one of collections. */
async function anyJob(client: AtlasClient, source: Deployment, id: string, signal: AbortSignal): Promise<AtlasJob> {
  const whole = await unless(client.job(source, id, signal), 'RESOURCE_NOT_FOUND');
  if (whole !== undefined || source.kind !== 'dedicated') return whole ?? client.job(source, id, signal);
  const job = await client.collectionJob(source, id, signal);
  return withCollections(job, isOver(job.status) ? await client.restoredCollections(source, id, signal) : undefined);
}

/** Tells how a restore job stands, and whether its target can be used. */
export async function restoreStatus({ client, signal }: AtlasContext, id: string): Promise<RestoreJob> {
  objectId(id, 'job_id');
  const source = await client.deployment(client.own, signal);
  if (source.kind === 'free') throw tierError(source, 'restore jobs');
  const job = await anyJob(client, source, id, signal);
  const { target_cluster, target_project_id } = job.provider;
  if (job.status !== 'succeeded' || target_cluster === undefined) return job;
  const target = await unless(
    client.deployment({ project: target_project_id ?? source.project, cluster: target_cluster }, signal),
    'INSUFFICIENT_PERMISSIONS',
  );
  if (target === undefined) return job;
  return {
    ...job,
    usable: target.state === 'IDLE' && !target.paused && (job.provider.not_restored ?? []).length === 0,
    provider: { ...job.provider, target_state: target.paused ? 'PAUSED' : target.state },
  };
}
