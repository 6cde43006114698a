import { HoldfastError } from '../../core/errors.ts';
import { type JsonObject, sha256 } from '../../core/json.ts';
import type { Recovery } from '../../core/operation.ts';
import { compareFacts, type Plan, type PlanDraft } from '../../core/plan.ts';
import type { RecoveryPoint } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatBytes, parseInstant } from '../../core/time.ts';
import { known } from '../../core/wire.ts';
import { lookThrice, recoverySignal } from '../follow.ts';
import { checkId, checkLsn, type Snapshot, shown, toPoint } from './map.ts';
import {
  assertInWindow,
  assertMayChange,
  type Context,
  handleOf,
  type InStep,
  type NeonStep,
  settle,
  stampOf,
} from './work.ts';

export interface SnapshotInput {
  readonly name?: string | undefined;
  readonly timestamp?: string | number | undefined;
  readonly lsn?: string | undefined;
  readonly expires_at?: string | number | undefined;
}

/** @throws {HoldfastError} SNAPSHOT_NOT_FOUND */
export function findSnapshot(snapshots: readonly Snapshot[], id: string): Snapshot {
  checkId(id, 'snapshot_id');
  const found = snapshots.find((snapshot) => snapshot.id === id);
  if (found !== undefined) return found;
  throw new HoldfastError('SNAPSHOT_NOT_FOUND', 'the project has no such snapshot');
}

/** Describes one snapshot; Neon has no call for one, so the list is read. */
export async function describeSnapshot({ client, runtime, signal }: Context, id: string): Promise<RecoveryPoint> {
  checkId(id, 'snapshot_id');
  return toPoint(findSnapshot(await client.snapshots(signal), id), runtime.now());
}

// --- taking one ----------------------------------------------------------------------------------------------------

function settingsOf(input: SnapshotInput, now: Date): { timestamp?: string; lsn?: string; expires_at?: string } {
  if (input.timestamp !== undefined && input.lsn !== undefined) {
    throw new HoldfastError('INVALID_PARAMETER', 'give timestamp or lsn, not both');
  }
  const expires = input.expires_at === undefined ? undefined : parseInstant(input.expires_at, 'expires_at');
  if (expires !== undefined && expires <= now) {
    throw new HoldfastError('INVALID_PARAMETER', 'expires_at is not in the future');
  }
  return known({
    timestamp: input.timestamp === undefined ? undefined : parseInstant(input.timestamp, 'timestamp').toISOString(),
    lsn: input.lsn === undefined ? undefined : checkLsn(input.lsn),
    expires_at: expires?.toISOString(),
  });
}

/** Says what a snapshot would be taken of, and whether Neon would take it. Reads only. */
export async function planSnapshot(context: Context, input: SnapshotInput): Promise<PlanDraft> {
  const { client, runtime, signal } = context;
  const settings = settingsOf(input, runtime.now());
  const [project, branches, snapshots] = await Promise.all([
    client.project(signal),
    client.branches(signal),
    client.snapshots(signal),
  ]);
  assertMayChange(project);
  const branch = client.own(branches);
  if (branch.parent_id !== undefined) {
    throw new HoldfastError('INVALID_STATE', `'${shown(branch)}' is a child branch: snapshots are of root branches`, {
      retryable: false,
      hint: 'The history window covers child branches too. For a lasting copy of one, restore it to a new branch.',
    });
  }
  if (settings.timestamp !== undefined) {
    assertInWindow(project, branches, branch, new Date(settings.timestamp), runtime.now());
  }
  if (input.name !== undefined && snapshots.some(({ name }) => name === input.name)) {
    throw new HoldfastError('RESOURCE_EXISTS', 'the project has a snapshot of that name already');
  }
  const at = settings.timestamp ?? settings.lsn ?? 'now';
  return {
    target: `${project.id}/${shown(branch)}`,
    loses: 'nothing',
    undo: 'delete the snapshot',
    blast_radius: known({ branch_id: branch.id, of: at, expires_at: settings.expires_at }),
    warnings: [
      'Its storage is billed.',
      ...(settings.expires_at === undefined ? ['It is kept until someone deletes it.'] : []),
    ],
    facts: { target: { project_id: project.id, branch_id: branch.id, branch: shown(branch) } },
  };
}

/** The steps of a snapshot: ask for it once, then wait until it is there. */
export function snapshotSteps(plan: Plan): NeonStep<SnapshotInput>[] {
  const branch = String(plan.facts.target['branch_id']);
  return [
    {
      name: 'snapshot',
      title: 'Taking the snapshot',
      kind: 'mutate',
      async run(context) {
        const { client, input, runtime, signal, idempotencyKey } = context;
        const changed = compareFacts(plan.facts.target, (await planSnapshot(context, input)).facts.target);
        if (changed.length > 0) {
          throw new HoldfastError('INVALID_STATE', 'the branch is not what the plan says; no snapshot was taken', {
            hint: 'Make the call again.',
            details: { outcome: 'not_sent' },
          });
        }
        const name = input.name ?? `holdfast-${stampOf(runtime.now())}-${sha256(idempotencyKey).slice(0, 6)}`;
        await context.checkpoint({ name });
        const { snapshot, operations } = await client.takeSnapshot(
          branch,
          { name, ...settingsOf(input, runtime.now()) },
          signal,
        );
        const handle = { name, snapshot_id: snapshot.id, ...handleOf({ branch: undefined, operations }) };
        await context.checkpoint(handle);
        return handle;
      },
      recover: findTaken,
    },
    {
      name: 'wait',
      title: 'Waiting until the snapshot is there',
      kind: 'follow',
      async run(context) {
        const { client, results, runtime, signal } = context;
        const begun = results['snapshot'] ?? {};
        const id = String(begun['snapshot_id']);
        // Without the ids, the operations of the branch that it was taken of.
        const change = 'operation_ids' in begun ? begun : { branch_id: branch };
        const found = await settle(context, change, 'the snapshot', async () =>
          (await client.snapshots(signal)).find((snapshot) => snapshot.id === id),
        );
        return { ...toPoint(found, runtime.now()) } as JsonObject;
      },
    },
  ];
}

/** The name was free just before, so a snapshot of that name is ours. */
async function findTaken(context: InStep<SnapshotInput>): Promise<Recovery> {
  const { client, handle } = context;
  if (handle === undefined) return { state: 'not_begun' };
  if (typeof handle['snapshot_id'] === 'string') return { state: 'done', result: handle };
  const signal = recoverySignal(context.signal);
  const found = await lookThrice(context, async () =>
    (await client.snapshots(signal)).find(({ name }) => name === handle['name']),
  );
  return found === undefined
    ? { state: 'not_begun', message: 'Neon lists no snapshot of that name' }
    : { state: 'done', result: { ...handle, snapshot_id: found.id } };
}

// --- deleting one --------------------------------------------------------------------------------------------------

/** Says what deleting a snapshot takes away. Reads only. */
export async function planDeletion(context: Context, id: string): Promise<PlanDraft> {
  const { client, runtime, signal } = context;
  checkId(id, 'snapshot_id');
  const [project, branches, snapshots] = await Promise.all([
    client.project(signal),
    client.branches(signal),
    client.snapshots(signal),
  ]);
  assertMayChange(project);
  const now = runtime.now();
  const snapshot = findSnapshot(snapshots, id);
  const point = toPoint(snapshot, now);
  const others = snapshots
    .filter((other) => other.id !== id && other.branch_id === snapshot.branch_id)
    .map((other) => toPoint(other, now))
    .filter(({ restorable }) => restorable);
  const [newest] = others;
  const source = branches.find((branch) => branch.id === snapshot.branch_id);
  const previews = branches.filter(
    ({ restored_from, restore_status }) => restored_from === id && restore_status !== 'finalized',
  );
  const at = point.data_at ?? point.created_at;
  const last = point.restorable && others.length === 0;
  return {
    target: `${project.id}/${id}`,
    loses: `the snapshot '${cleanText(snapshot.name, 100)}'${at === undefined ? '' : ` of ${at}`}${point.size_bytes === undefined ? '' : `, ${formatBytes(point.size_bytes)}`}, for good`,
    blast_radius: known({
      name: cleanText(snapshot.name, 100),
      kind: point.kind,
      expires_at: point.expires_at,
      source_branch: source === undefined ? 'gone' : shown(source),
      other_snapshots_of_the_branch: others.length,
    }),
    ...(newest?.created_at === undefined ? {} : { newest_recovery_point: { id: newest.id, at: newest.created_at } }),
    last_restorable: last,
    undo: 'none: a deleted snapshot cannot be brought back',
    alternatives:
      point.expires_at === undefined
        ? []
        : [{ title: `Do nothing: Neon deletes it by itself at ${point.expires_at}`, risk: 'read' }],
    warnings: [
      ...(previews.length > 0
        ? [
            `${previews.length} branches were restored from it and are not finalized: ${previews.map(shown).join(', ')}.`,
          ]
        : []),
      ...(point.data_at !== undefined &&
      Date.parse(point.data_at) < now.getTime() - Math.max(project.history_seconds, 1) * 1000
        ? ['Its moment is older than the history window: nothing else brings it back.']
        : []),
    ],
    facts: {
      target: known({
        project_id: project.id,
        snapshot_id: id,
        name: cleanText(snapshot.name, 100),
        created_at: point.created_at,
        source_branch_id: snapshot.branch_id === undefined ? undefined : cleanText(snapshot.branch_id, 60),
        last_restorable: last,
      }),
    },
  };
}

/** The steps that delete a snapshot and wait until it is gone. */
export function deletionSteps(id: string, plan: Plan): NeonStep<unknown>[] {
  checkId(id, 'snapshot_id');
  const isThere = async ({ client }: InStep<unknown>, signal: AbortSignal): Promise<boolean> =>
    (await client.snapshots(signal)).some((snapshot) => snapshot.id === id);
  return [
    {
      name: 'delete',
      title: 'Deleting the snapshot',
      kind: 'mutate',
      async run(context) {
        const changed = compareFacts(plan.facts.target, (await planDeletion(context, id)).facts.target);
        if (changed.length > 0) {
          throw new HoldfastError('INVALID_STATE', 'the snapshot is not what the plan says; nothing was deleted', {
            hint: 'Make the call again for a new plan.',
            details: { changed: changed.map(({ path }) => path), outcome: 'not_sent' },
          });
        }
        await context.checkpoint({ snapshot_id: id });
        const handle = { snapshot_id: id, ...handleOf(await context.client.deleteSnapshot(id, context.signal)) };
        await context.checkpoint(handle);
        return handle;
      },
      async recover(context) {
        const { handle } = context;
        if (handle === undefined) return { state: 'not_begun' };
        if ('operation_ids' in handle) return { state: 'done', result: handle };
        const signal = recoverySignal(context.signal);
        const gone = await lookThrice(context, async () => ((await isThere(context, signal)) ? undefined : true));
        return gone === true
          ? { state: 'done', result: handle }
          : { state: 'not_begun', message: 'the snapshot is there as before' };
      },
    },
    {
      name: 'wait',
      title: 'Waiting until the snapshot is gone',
      kind: 'follow',
      run: (context) =>
        settle(context, context.results['delete'] ?? {}, 'the deletion', async () =>
          (await isThere(context, context.signal)) ? undefined : { snapshot_id: id, deleted: true },
        ),
    },
  ];
}
