import { HoldfastError } from '../../core/errors.ts';
import { type JsonObject, sha256 } from '../../core/json.ts';
import type { Recovery, StepContext } from '../../core/operation.ts';
import { compareFacts, type Plan, type PlanDraft } from '../../core/plan.ts';
import { didYouMean } from '../../core/text.ts';
import { unless } from '../rest.ts';
import type { AtlasClient } from './client.ts';
import { follow, restorePace } from './follow.ts';
import { type AtlasJob, type ClusterRef, clusterTitle, type Deployment, tierError, withCollections } from './map.ts';
import type { AtlasEntity } from './provider.ts';
import {
  assertInWindow,
  checkedSnapshot,
  hasTarget,
  isOrigin,
  type Origin,
  originOf,
  RESTORE_DEADLINE_MS,
  refOf,
  SEARCH_PAUSES_MS,
  safetyOf,
  safetySteps,
  targetFacts,
  targetOf,
  toJson,
  versionFault,
} from './restore.ts';
import { type AtlasContext, type AtlasStep, assertExists, assertReady } from './snapshot.ts';

export interface CollectionsInput {
  readonly snapshot_id?: string | undefined;
  readonly restore_timestamp?: string | number | undefined;
  readonly collections?: readonly string[] | undefined;
  readonly databases?: readonly string[] | undefined;
  readonly write_strategy: 'CREATE_NEW' | 'OVERWRITE_EXISTING';
  readonly index_strategy: 'ALL' | 'NONE' | 'ALL_EXCEPT_TTL';
  readonly target_cluster?: string | undefined;
  readonly target_project_id?: string | undefined;
  readonly safety_snapshot?: boolean | undefined;
}

const DATABASE = /^[^/\\. "$*<>:|?\u0000-\u001f]{1,63}$/;
const COLLECTION = /^[^$\u0000-\u001f]{1,200}$/;
const SYSTEM = ['admin', 'config', 'local'];

/** @throws {HoldfastError} INVALID_PARAMETER for none, and for names that MongoDB does not have or keeps for itself */
function checkNames({ collections = [], databases = [] }: CollectionsInput): void {
  const refuse = (message: string, hint: string): never => {
    throw new HoldfastError('INVALID_PARAMETER', message, { hint });
  };
  if (collections.length + databases.length === 0) {
    refuse('name collections or databases to restore', 'Use describe-snapshot to see which there are.');
  }
  for (const name of [...databases, ...collections.map((full) => full.split('.')[0] ?? '')]) {
    if (!DATABASE.test(name))
      refuse(`'${name.slice(0, 70)}' is no name of a database`, 'Write collections as database.collection.');
    if (SYSTEM.includes(name)) refuse(`'${name}' belongs to the cluster itself`, 'Restore databases of your own.');
  }
  for (const full of collections) {
    const name = full.slice(full.indexOf('.') + 1);
    if (!full.includes('.') || !COLLECTION.test(name) || name.startsWith('system.')) {
      refuse(
        `'${full.slice(0, 100)}' is no collection that can be restored`,
        'Write collections as database.collection.',
      );
    }
    if (databases.includes(full.split('.')[0] ?? '')) {
      refuse(`'${full.slice(0, 100)}' is in a database that is named as a whole`, 'Name it once.');
    }
  }
}

/** Looks whether a snapshot has what is named; what Atlas does not tell is given back as unknown. */
async function assertHolds(
  client: AtlasClient,
  source: Deployment,
  snapshot: string,
  { collections = [], databases = [] }: CollectionsInput,
  signal: AbortSignal,
): Promise<boolean> {
  const held = await client.databasesIn(source, snapshot, signal);
  if (held === undefined) return false;
  const assertNamed = (name: string, all: readonly string[], what: string): void => {
    if (all.includes(name)) return;
    throw new HoldfastError('INVALID_PARAMETER', `the snapshot holds no ${what} '${name.slice(0, 100)}'`, {
      hint: didYouMean(name, all) || 'Use describe-snapshot to see what it holds.',
    });
  };
  const wanted = new Map<string, string[]>();
  for (const full of collections) {
    const [database = ''] = full.split('.');
    wanted.set(database, [...(wanted.get(database) ?? []), full]);
  }
  for (const name of [...databases, ...wanted.keys()]) assertNamed(name, held, 'database');
  for (const [database, names] of wanted) {
    const inside = await client.collectionsIn(source, snapshot, database, signal);
    if (inside === undefined) return false;
    for (const full of names)
      assertNamed(
        full,
        inside.map((name) => `${database}.${name}`),
        'collection',
      );
  }
  return true;
}

/** Says which collections a restore would add or replace, and what would be lost. Reads only. */
export async function planCollections(context: AtlasContext, input: CollectionsInput): Promise<PlanDraft> {
  const { client, runtime, signal } = context;
  const origin = originOf(input);
  checkNames(input);
  const targetRef = targetOf(client, input);
  const source = await client.deployment(client.own, signal);
  assertExists(source);
  if (source.kind !== 'dedicated') throw tierError(source, 'restore of collections');
  const inPlace = targetRef.project === source.project && targetRef.cluster === source.cluster;
  const target = inPlace ? source : await client.deployment(targetRef, signal);
  assertExists(target);
  if (target.kind !== 'dedicated') throw tierError(target, 'restore of collections');
  assertReady(target);
  const now = runtime.now();
  let moment: string | undefined;
  let version = source.version;
  let isSeen = false;
  if ('snapshot_id' in origin) {
    const snapshot = await checkedSnapshot(client, source, origin.snapshot_id, signal);
    moment = snapshot.created_at;
    version = snapshot.provider.mongodb_version ?? version;
    isSeen = await assertHolds(client, source, snapshot.id, input, signal);
  } else {
    moment = new Date(origin.at_seconds * 1000).toISOString();
    await assertInWindow(client, source, await client.snapshots(source, signal), origin.at_seconds, now, signal);
  }
  const fault = versionFault(version, target.version);
  if (fault !== undefined) {
    throw new HoldfastError('INVALID_PARAMETER', fault, { hint: 'Choose a target of the same version or the next.' });
  }
  const projectName = await client.projectName(target.project, signal);
  const { collections = [], databases = [], write_strategy, index_strategy } = input;
  const names = [...databases.map((name) => `${name} (whole database)`), ...collections];
  const overwrites = write_strategy === 'OVERWRITE_EXISTING';
  const from =
    'snapshot_id' in origin
      ? `snapshot ${origin.snapshot_id} of ${moment ?? 'an unknown time'}`
      : `point in time ${moment}`;
  const safety = safetyOf(target);
  const { safety_snapshot: _, ...same } = input;
  return {
    ...(overwrites ? { risk: 'overwrite' as const } : {}),
    target: clusterTitle(projectName, target),
    source: `${from}, cluster '${source.cluster}'`,
    loses: overwrites
      ? `every document of ${names.join(', ')} in '${target.cluster}': they are dropped and replaced; what was written after ${moment ?? 'the snapshot'} is gone`
      : 'nothing: copies are made beside what there is',
    ...(overwrites && moment !== undefined ? { since: moment } : {}),
    blast_radius: {
      in_place: inPlace,
      project_id: target.project,
      cluster: target.cluster,
      state: target.state,
      collections: [...collections],
      databases: [...databases],
      write_strategy,
      index_strategy,
    },
    ...(overwrites ? { safety_snapshot: safety } : {}),
    undo: !overwrites
      ? 'drop the copies: their names end in _restored_ and eight characters, which the result has'
      : safety.possible
        ? 'restore the same collections from the safety snapshot that is taken of the target first'
        : 'none: no safety snapshot can be taken of the target',
    alternatives: overwrites
      ? [
          {
            title: 'Make copies beside what there is, look at them, and move what is needed',
            risk: 'create',
            call: {
              action: 'restore-collections',
              input: { ...same, write_strategy: 'CREATE_NEW' } as unknown as JsonObject,
            },
          },
        ]
      : [],
    unknowns: [
      ...(isSeen ? [] : ['whether the backup holds all that is named (not inspected)']),
      ...(overwrites ? ['how many documents are replaced (the target was not inspected)'] : []),
      'how long it takes',
    ],
    warnings: [
      ...(overwrites ? [`Clients of '${target.cluster}' must not write to these collections meanwhile.`] : []),
      ...(index_strategy === 'ALL' ? ['TTL indexes come back too, and delete old documents at once.'] : []),
      ...(!overwrites ? ['The copies take disk of the target.'] : []),
      ...(target.project === source.project
        ? []
        : ['The target is in another project; the credential needs rights in both.']),
    ],
    facts: {
      target: targetFacts(target),
      source: {
        project_id: source.project,
        cluster: source.cluster,
        cluster_id: source.id ?? null,
        ...('snapshot_id' in origin ? { snapshot_id: origin.snapshot_id } : {}),
        moment: moment ?? null,
        collections: [...collections],
        databases: [...databases],
        write_strategy,
        index_strategy,
      },
    },
  };
}

/** The steps that take a snapshot of the target before collections are replaced. */
export function collectionsSafety(input: CollectionsInput, plan: Plan): AtlasStep<CollectionsInput>[] {
  const { collections, databases, index_strategy } = input;
  return safetySteps<CollectionsInput>(plan, {
    again: {
      ...(collections === undefined ? {} : { collections: [...collections] }),
      ...(databases === undefined ? {} : { databases: [...databases] }),
      index_strategy,
    },
  });
}

/** Gives the call that brings the replaced collections back. */
export function undoCollections(results: Readonly<Record<string, JsonObject>>): JsonObject {
  const taken = results['safety-wait'] ?? {};
  const again = (taken['again'] ?? {}) as JsonObject;
  const input = { snapshot_id: taken['id'], ...again, write_strategy: 'OVERWRITE_EXISTING' };
  if (taken['in_place'] === true) return { action: 'restore-collections', input };
  return {
    title: 'Restore these collections from an entity that names the target',
    action: 'restore-collections',
    input,
    project_id: taken['project_id'],
    cluster: taken['cluster'],
  };
}

type Work = StepContext<AtlasClient, AtlasEntity, CollectionsInput>;

/** The steps of a restore of collections: start it once, wait for the job, look at each collection. */
export function collectionsSteps(input: CollectionsInput, plan: Plan): AtlasStep<CollectionsInput>[] {
  const origin = originOf(input);
  const target = refOf(plan);
  return [
    {
      name: 'restore',
      title: `Starting the restore of collections into '${target.cluster}'`,
      kind: 'mutate',
      run: (context) => start(context, origin, target, plan),
      recover: (context) => find(context, origin, target),
    },
    {
      name: 'wait',
      title: 'Waiting for the restore of the collections',
      kind: 'follow',
      async run({ client, runtime, signal, results, progress }) {
        const id = String(results['restore']?.['job_id']);
        const source = await client.deployment(client.own, signal);
        const what = 'the restore of the collections';
        const watch = { runtime, signal, what, every: restorePace, deadline_ms: RESTORE_DEADLINE_MS };
        const job = await follow(watch, async () => {
          const found = await client.collectionJob(source, id, signal);
          progress({
            message: `restore job ${id}: ${found.provider.state}`,
            ...(found.percent === undefined ? {} : { percent: found.percent }),
          });
          if (found.status === 'failed' || found.status === 'cancelled') throw endError(found);
          return found.status === 'succeeded' ? found : undefined;
        });
        const whole = withCollections(job, await client.restoredCollections(source, id, signal));
        const { not_restored = [], collections = [] } = whole.provider;
        if (not_restored.length === 0) return toJson({ ...whole, usable: true });
        throw new HoldfastError(
          'INVALID_STATE',
          `${not_restored.length} of ${collections.length} collections were not restored`,
          {
            hint: 'The others were. details.collections tells what became of each.',
            retryable: false,
            details: { job_id: id, collections: collections.slice(0, 100).map((one) => ({ ...one })) },
          },
        );
      },
    },
  ];
}

function endError(job: AtlasJob): HoldfastError {
  const cancelled = job.status === 'cancelled';
  return new HoldfastError(
    cancelled ? 'CANCELLED' : 'INVALID_STATE',
    `the restore of the collections ${cancelled ? 'was cancelled' : 'failed'} at MongoDB Atlas`,
    {
      hint: 'Look at the target before anything else: some collections may be there, in part.',
      retryable: false,
      details: {
        job_id: job.job_id,
        state: job.provider.state,
        ...(job.provider.error === undefined ? {} : { reason: job.provider.error }),
      },
    },
  );
}

/** What the names of copies end in: of one operation alone, so that no name is taken and the job is found again. */
const suffixOf = (idempotencyKey: string): string => `_restored_${sha256(idempotencyKey).slice(0, 8)}`;

async function start(context: Work, origin: Origin, target: ClusterRef, plan: Plan): Promise<JsonObject> {
  const { client, input, signal, checkpoint, idempotencyKey } = context;
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
  const jobs = await unless(client.collectionJobs(source, signal), 'INSUFFICIENT_PERMISSIONS');
  const before = jobs?.filter((job) => isOrigin(job, origin) && hasTarget(job, target)).map(({ job_id }) => job_id);
  const copies = input.write_strategy === 'CREATE_NEW' ? suffixOf(idempotencyKey) : undefined;
  const mark = { ...(before === undefined ? {} : { before }), ...(copies === undefined ? {} : { suffix: copies }) };
  await checkpoint(mark);
  const named = (names: readonly string[] | undefined, suffix: string): JsonObject => ({
    ...(names === undefined || names.length === 0
      ? {}
      : {
          [suffix === 'databaseSuffix' ? 'databases' : 'collections']: names.map((sourceNamespace) => ({
            sourceNamespace,
          })),
          ...(copies === undefined ? {} : { [suffix]: copies }),
        }),
  });
  const body: JsonObject = {
    ...('snapshot_id' in origin ? { snapshotId: origin.snapshot_id } : { pointInTimeUtcSeconds: origin.at_seconds }),
    ...named(input.databases, 'databaseSuffix'),
    ...named(input.collections, 'collectionSuffix'),
    writeStrategy: input.write_strategy,
    indexStrategy: input.index_strategy,
    targetGroupId: target.project,
    targetClusterName: target.cluster,
  };
  const job = await client.startCollectionRestore(source, body, signal);
  await checkpoint({ ...mark, job_id: job.job_id });
  return { job_id: job.job_id };
}

/** Looks for a job that may have been started: by the suffix of its copies, else one that was not there before. */
async function find(context: Work, origin: Origin, target: ClusterRef): Promise<Recovery> {
  const { client, runtime, signal, handle, input } = context;
  if (handle === undefined) return { state: 'not_begun' };
  if (typeof handle['job_id'] === 'string') return { state: 'done', result: { job_id: handle['job_id'] } };
  const before = Array.isArray(handle['before']) ? handle['before'] : undefined;
  if (before === undefined) {
    return { state: 'unknown', message: 'the credential may not list restore jobs, so nobody can tell' };
  }
  const source = await client.deployment(client.own, signal);
  const names = [...(input.databases ?? []), ...(input.collections ?? [])];
  for (const pause of SEARCH_PAUSES_MS) {
    if (pause > 0) await runtime.sleep(pause, signal);
    const ours = (await client.collectionJobs(source, signal)).filter(
      (job) =>
        isOrigin(job, origin) &&
        hasTarget(job, target) &&
        !before.includes(job.job_id) &&
        job.provider.write_strategy === input.write_strategy &&
        (typeof handle['suffix'] === 'string'
          ? job.provider.suffix === handle['suffix']
          : names.every((name) => job.provider.namespaces?.includes(name))),
    );
    if (ours.length > 1) return { state: 'unknown', message: 'more than one such restore was started' };
    if (ours[0] !== undefined) return { state: 'done', result: { job_id: ours[0].job_id } };
  }
  return { state: 'not_begun', message: 'Atlas lists no such restore of collections' };
}
