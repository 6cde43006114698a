import type { Tag } from '@aws-sdk/client-rds';
import { HoldfastError } from '../../core/errors.ts';
import { type JsonObject, sha256 } from '../../core/json.ts';
import type { Recovery, Step, StepContext } from '../../core/operation.ts';
import { pageOf } from '../../core/page.ts';
import type { Plan, PlanDraft } from '../../core/plan.ts';
import type { RecoveryPoint, SnapshotList } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { AwsRegion, parseArn } from '../aws.ts';
import { type FollowContext, follow as followWork, lookThrice, recoverySignal } from '../follow.ts';
import type { RdsClient, SnapshotType } from './client.ts';
import { allSnapshots, backupsFor, type Context, newestRestorable, proposedName, windowOf } from './info.ts';
import {
  checkNewSnapshotId,
  checkSnapshotId,
  isRestorable,
  keyOf,
  newestFirst,
  REQUEST_TAG,
  type Snapshot,
  snapshotStatus,
  stageOf,
  tagOf,
  toPoint,
} from './map.ts';
import type { RdsEntity } from './provider.ts';
import { ownTags } from './settings.ts';

export type RdsStep<Input> = Step<RdsClient, RdsEntity, Input>;
type In<Input> = StepContext<RdsClient, RdsEntity, Input>;

const HOUR_MS = 3_600_000;

/** Follows work at RDS, from 10 to 60 s apart. */
export function follow<T>(
  context: FollowContext,
  what: string,
  deadline_ms: number,
  look: () => Promise<T | undefined>,
): Promise<T> {
  return followWork(context, { what, at: 'Amazon RDS', deadline_ms, first_ms: 10_000, longest_ms: 60_000 }, look);
}

// --- reading -------------------------------------------------------------------------------------------------------

/** Lists the snapshots of the database, newest first; also of one that is gone. */
export async function listSnapshots(
  { client, signal }: Context,
  { limit, cursor, type }: { limit?: number | undefined; cursor?: string | undefined; type?: SnapshotType | undefined },
): Promise<SnapshotList> {
  const exists = await existsOrGone(client, signal);
  const all =
    type === undefined ? await allSnapshots(client, signal) : newestFirst(await client.snapshots(type, signal));
  const { items, next_cursor } = pageOf(all, limit, cursor, keyOf);
  return {
    snapshots: items.map(toPoint),
    ...(next_cursor === undefined ? {} : { next_cursor }),
    ...(exists ? {} : { notes: [`The ${client.kind} ${client.id} does not exist any more; these outlived it.`] }),
  };
}

async function existsOrGone(client: RdsClient, signal: AbortSignal): Promise<boolean> {
  try {
    await client.own(signal);
    return true;
  } catch (cause) {
    if (cause instanceof HoldfastError && cause.code === 'RESOURCE_NOT_FOUND') return false;
    throw cause;
  }
}

/** Reads one snapshot by its id or ARN. */
export async function describeSnapshot({ client, signal }: Context, snapshotId: string): Promise<RecoveryPoint> {
  return toPoint(await client.snapshot(checkSnapshotId(snapshotId, client.kind, client.region), signal));
}

async function findSnapshot(
  client: RdsClient,
  id: string,
  signal: AbortSignal,
  region?: string,
): Promise<Snapshot | undefined> {
  try {
    return await client.snapshot(id, signal, region);
  } catch (cause) {
    if (cause instanceof HoldfastError && cause.code === 'SNAPSHOT_NOT_FOUND') return undefined;
    throw cause;
  }
}

// --- making one ----------------------------------------------------------------------------------------------------

async function refuseTaken(client: RdsClient, id: string, signal: AbortSignal, region?: string): Promise<void> {
  if ((await findSnapshot(client, id, signal, region)) === undefined) return;
  throw new HoldfastError('RESOURCE_EXISTS', `there is a snapshot ${id} already; nothing was made`, {
    details: { outcome: 'not_sent' },
  });
}

/** A name can be had once: whoever's mark the snapshot of that name has made it. */
async function recoverByName<Input>(context: In<Input>): Promise<Recovery> {
  const { client, handle, idempotencyKey } = context;
  if (handle === undefined) return { state: 'not_begun' };
  if (handle['arn'] !== undefined) return { state: 'done', result: handle };
  const region = handle['region'] === undefined ? undefined : String(handle['region']);
  const found = await lookThrice(context, () =>
    findSnapshot(client, String(handle['snapshot_id']), recoverySignal(context.signal), region),
  );
  if (found === undefined) return { state: 'not_begun', message: 'no snapshot of that name exists' };
  if (tagOf(found.tags, REQUEST_TAG) !== idempotencyKey) {
    return { state: 'failed', message: 'a snapshot of that name exists and was not made by this call' };
  }
  return { state: 'done', result: { ...handle, arn: found.arn } };
}

function waitStep<Input>(begun: string, deadlineMs: number): RdsStep<Input> {
  return {
    name: 'wait',
    title: 'Waiting until the snapshot can be restored',
    kind: 'follow',
    async run(context) {
      const { client, signal } = context;
      const handle = context.results[begun] ?? {};
      const id = String(handle['snapshot_id']);
      const region = handle['region'] === undefined ? undefined : String(handle['region']);
      const snapshot = await follow(context, 'the snapshot', deadlineMs, async () => {
        const seen = await client.snapshot(id, signal, region);
        const status = snapshotStatus(seen.status);
        context.progress({
          ...(seen.percent === undefined ? {} : { percent: seen.percent }),
          message: `snapshot is ${seen.status}`,
        });
        return status === 'creating' || status === 'unknown' ? undefined : seen;
      });
      if (!isRestorable(snapshot)) {
        throw new HoldfastError(
          'INVALID_STATE',
          `the snapshot is ${snapshotStatus(snapshot.status)}: it cannot be restored`,
          {
            retryable: false,
            hint: 'Look at the events of the snapshot in the RDS console, then take another one.',
            details: { snapshot_id: snapshot.id },
          },
        );
      }
      return { point: toPoint(snapshot) as unknown as JsonObject };
    },
  };
}

/** The steps that take a manual snapshot and wait until it can be restored. */
export function createSteps(): RdsStep<{ snapshot_id?: string | undefined }>[] {
  return [
    {
      name: 'snapshot',
      title: 'Taking the snapshot',
      kind: 'mutate',
      async run(context) {
        const { client, input, runtime, signal, idempotencyKey } = context;
        // Two calls within a minute need two names.
        const own = `manual-${sha256(idempotencyKey).slice(0, 6)}`;
        const wanted = input.snapshot_id ?? proposedName(client.id, own, runtime.now());
        const id = checkNewSnapshotId(wanted, client.kind);
        const database = await client.own(signal);
        if (stageOf(database.status) !== 'ready') {
          throw new HoldfastError(
            'INVALID_STATE',
            `the ${client.kind} is ${database.status}: RDS snapshots it only while available`,
            {
              details: { outcome: 'not_sent' },
            },
          );
        }
        await refuseTaken(client, id, signal);
        await context.checkpoint({ snapshot_id: id });
        const made = await client.createSnapshot(id, [{ Key: REQUEST_TAG, Value: idempotencyKey }], signal);
        const handle = { snapshot_id: id, arn: made.arn };
        await context.checkpoint(handle);
        return handle;
      },
      recover: recoverByName,
    },
    waitStep('snapshot', 12 * HOUR_MS),
  ];
}

export interface CopyInput {
  readonly snapshot_id: string;
  readonly target_snapshot_id: string;
  readonly target_region?: string | undefined;
  readonly kms_key_id?: string | undefined;
}

/** The steps that copy a snapshot, to another region or under another key, and wait until the copy can be restored. */
export function copySteps(): RdsStep<CopyInput>[] {
  return [
    {
      name: 'copy',
      title: 'Copying the snapshot',
      kind: 'mutate',
      async run(context) {
        const { client, input, signal, idempotencyKey } = context;
        const { source, target, region } = await readCopy(client, input, signal);
        await refuseTaken(client, target, signal, region);
        await context.checkpoint({ snapshot_id: target, region });
        const tags: Tag[] = [...ownTags(source.tags), { Key: REQUEST_TAG, Value: idempotencyKey }];
        const copy = {
          // Another region knows the snapshot by its ARN only, an automated one's copy included.
          source: region === client.region && !input.snapshot_id.startsWith('arn:') ? source.id : source.arn,
          target,
          region,
          kmsKeyId: input.kms_key_id,
          tags,
        };
        const made = await client.copySnapshot(copy, signal);
        const handle = { snapshot_id: target, region, arn: made.arn };
        await context.checkpoint(handle);
        return handle;
      },
      recover: recoverByName,
    },
    waitStep('copy', 24 * HOUR_MS),
  ];
}

async function readCopy(
  client: RdsClient,
  input: CopyInput,
  signal: AbortSignal,
): Promise<{ source: Snapshot; target: string; region: string }> {
  const id = checkSnapshotId(input.snapshot_id, client.kind, client.region);
  const target = checkNewSnapshotId(input.target_snapshot_id, client.kind, 'target_snapshot_id');
  const region = AwsRegion.safeParse(input.target_region ?? client.region);
  if (!region.success) {
    throw new HoldfastError('INVALID_PARAMETER', 'target_region is not the id of a region', {
      hint: 'Give one such as eu-west-1.',
    });
  }
  const key = input.kms_key_id;
  if (key !== undefined && !/^[A-Za-z0-9:/_.-]{1,2048}$/.test(key)) {
    throw new HoldfastError('INVALID_PARAMETER', 'kms_key_id is not a key', {
      hint: 'Give the ARN, the id or the alias/NAME of a KMS key in the target region.',
    });
  }
  const source = await client.snapshot(id, signal);
  if (!isRestorable(source)) {
    throw new HoldfastError('INVALID_STATE', `the snapshot is ${snapshotStatus(source.status)}: it cannot be copied`, {
      retryable: snapshotStatus(source.status) === 'creating',
      details: { outcome: 'not_sent' },
    });
  }
  if (source.encrypted && region.data !== client.region && key === undefined) {
    throw new HoldfastError('INVALID_PARAMETER', 'an encrypted snapshot needs a key in the other region', {
      hint: `Give kms_key_id, the ARN of a KMS key in ${region.data}: keys do not leave their region.`,
    });
  }
  if (source.type === 'automated' && source.of !== client.id) {
    throw new HoldfastError('INVALID_PARAMETER', 'this automated snapshot belongs to another database', {
      hint: 'Call copy-snapshot on the entity that it belongs to.',
    });
  }
  return { source, target, region: region.data };
}

/** What a finished creation or copy gives. */
export function madePoint(results: Readonly<Record<string, JsonObject>>): RecoveryPoint {
  return results['wait']?.['point'] as unknown as RecoveryPoint;
}

// --- deleting one --------------------------------------------------------------------------------------------------

const NOT_OURS: Readonly<Record<string, [string, string]>> = {
  automated: [
    'automated snapshots are never deleted by hand',
    'RDS removes them by itself when they are older than backup_retention_period.',
  ],
  awsbackup: [
    'this snapshot belongs to AWS Backup',
    'Its recovery point is deleted there, by its plan or by a person.',
  ],
  shared: ['this snapshot belongs to another account', 'Only its owner can delete it.'],
  public: ['this snapshot belongs to another account', 'Only its owner can delete it.'],
};

function snapshotFacts(snapshot: Snapshot, region: string): JsonObject {
  return {
    account: parseArn(snapshot.arn)?.account ?? '',
    region,
    snapshot: snapshot.id,
    arn: snapshot.arn,
    [snapshot.kind]: snapshot.of,
    resource_id: snapshot.resourceId,
    type: snapshot.type,
    status: snapshot.status,
    created_at: snapshot.createdAt ?? null,
  };
}

/** Says what deleting a snapshot takes away, and whether it is the last one; only manual ones of this database pass. */
export async function planDelete({ client, entity, runtime, signal }: Context, snapshotId: string): Promise<PlanDraft> {
  const snapshot = await client.snapshot(checkSnapshotId(snapshotId, client.kind, client.region), signal);
  const refusal = NOT_OURS[snapshot.type];
  if (snapshot.type !== 'manual') {
    const [message, hint] = refusal ?? ['this kind of snapshot cannot be deleted', 'Only manual snapshots can be.'];
    throw new HoldfastError('NOT_SUPPORTED', message, { hint });
  }
  // A snapshot of another database must not be deleted in this one's name: its own policy would be passed by.
  if (snapshot.of !== client.id) {
    throw new HoldfastError('INVALID_PARAMETER', `this snapshot belongs to another ${client.kind}`, {
      hint: 'Call delete-snapshot on the entity that the snapshot belongs to.',
    });
  }
  if (!isRestorable(snapshot)) {
    throw new HoldfastError(
      'INVALID_STATE',
      `the snapshot is ${snapshotStatus(snapshot.status)}: RDS deletes it only while available`,
    );
  }
  const [all, shared, database] = await Promise.all([
    allSnapshots(client, signal),
    tolerate(() => client.sharedWith(snapshot.id, signal)),
    client.find(client.kind, client.id, signal),
  ]);
  const window =
    database === undefined
      ? undefined
      : windowOf(database, (await tolerate(() => backupsFor(client, database, signal))) ?? []);
  const others = all.filter((other) => other.arn !== snapshot.arn && isRestorable(other));
  const newest = newestRestorable(others);
  const copying = all.filter(
    (other) => other.copiedFrom === snapshot.arn && snapshotStatus(other.status) === 'creating',
  );
  const at = snapshot.dataAt ?? snapshot.createdAt;
  return {
    target: snapshot.id,
    loses: `the manual snapshot ${snapshot.id} of ${snapshot.of}${at === undefined ? '' : `, ${at}`}; this cannot be undone`,
    blast_radius: {
      account: parseArn(snapshot.arn)?.account ?? '',
      region: client.region,
      [client.kind]: snapshot.of,
      engine: `${snapshot.engine} ${snapshot.version}`,
      ...(snapshot.fullBytes === undefined ? {} : { size_bytes: snapshot.fullBytes }),
      ...(snapshot.allocatedGib === undefined ? {} : { allocated_gib: snapshot.allocatedGib }),
      shared_with: shared === undefined ? 'unknown' : shared.map((account) => cleanText(account, 40)),
      other_restorable_snapshots: others.length,
      point_in_time_window: window === undefined ? 'none' : { ...window },
      database_exists: database !== undefined,
    },
    ...(newest?.dataAt === undefined ? {} : { newest_recovery_point: { id: newest.id, at: newest.dataAt } }),
    last_restorable: others.length === 0,
    undo: 'none: a deleted snapshot cannot be brought back',
    alternatives:
      database === undefined
        ? []
        : [
            {
              title: 'Take a new snapshot first',
              risk: 'create',
              call: {
                entity: entity.key,
                action: 'create-snapshot',
                input: { snapshot_id: proposedName(client.id, 'manual', runtime.now()) },
              },
            },
          ],
    unknowns: [
      'whether anything outside of RDS needs it: an export, a template, a recovery plan',
      ...(shared === undefined ? ['which accounts it is shared with'] : []),
    ],
    warnings: [
      ...(database === undefined ? [`The ${client.kind} itself does not exist any more.`] : []),
      ...(shared !== undefined && shared.length > 0 ? ['It is shared: other accounts lose it too.'] : []),
      ...(copying.length > 0 ? ['A copy of it is being made: deleting it aborts the copy.'] : []),
    ],
    facts: { target: snapshotFacts(snapshot, client.region) },
  };
}

/** What cannot be read stays unknown; it is no reason to withhold a plan. */
export async function tolerate<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (cause) {
    if (
      cause instanceof HoldfastError &&
      ['INSUFFICIENT_PERMISSIONS', 'RESOURCE_NOT_FOUND', 'INVALID_STATE', 'INVALID_PARAMETER'].includes(cause.code)
    ) {
      return undefined;
    }
    throw cause;
  }
}

/** The steps that delete a manual snapshot and wait until it is gone. */
export function deleteSteps(plan: Plan): RdsStep<{ snapshot_id: string }>[] {
  const id = String(plan.facts.target['snapshot']);
  return [
    {
      name: 'delete',
      title: 'Deleting the snapshot',
      kind: 'mutate',
      async run(context) {
        const { client, signal } = context;
        const snapshot = await client.snapshot(id, signal);
        const now = snapshotFacts(snapshot, client.region);
        const changed = ['arn', 'type', 'status', 'created_at', 'resource_id'].filter(
          (name) => now[name] !== plan.facts.target[name],
        );
        if (changed.length > 0 || snapshot.type !== 'manual') {
          throw new HoldfastError(
            'INVALID_STATE',
            'the snapshot changed after the plan was made; nothing was deleted',
            {
              details: { changed, outcome: 'not_sent' },
            },
          );
        }
        await context.checkpoint({ snapshot_id: id, created_at: snapshot.createdAt ?? null });
        await client.deleteSnapshot(id, signal);
        const handle = { snapshot_id: id, created_at: snapshot.createdAt ?? null, accepted: true };
        await context.checkpoint(handle);
        return handle;
      },
      async recover(context) {
        const { client, handle } = context;
        if (handle === undefined) return { state: 'not_begun' };
        if (handle['accepted'] === true) return { state: 'done', result: handle };
        const begun = await lookThrice(context, async () => {
          const seen = await findSnapshot(client, id, recoverySignal(context.signal));
          // Gone, going, or another one of the same name.
          if (seen === undefined || snapshotStatus(seen.status).startsWith('delet')) return true;
          return (seen.createdAt ?? null) === handle['created_at'] ? undefined : true;
        });
        return begun === true
          ? { state: 'done', result: handle }
          : { state: 'not_begun', message: 'the snapshot is there as before' };
      },
    },
    {
      name: 'wait',
      title: 'Waiting until the snapshot is gone',
      kind: 'follow',
      async run(context) {
        const { client, signal } = context;
        const was = context.results['delete']?.['created_at'];
        await follow(context, 'the deletion', HOUR_MS, async () => {
          const seen = await findSnapshot(client, id, signal);
          // Another one may have the name by now.
          if (seen === undefined || (seen.createdAt ?? null) !== was) return true;
          if (snapshotStatus(seen.status) === 'deleted') return true;
          context.progress({ message: `snapshot is ${seen.status}` });
          return undefined;
        });
        return { snapshot_id: id, deleted: true };
      },
    },
  ];
}
