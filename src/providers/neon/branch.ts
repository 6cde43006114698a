import { HoldfastError } from '../../core/errors.ts';
import { compareFacts, type Plan, type PlanDraft } from '../../core/plan.ts';
import { cleanText } from '../../core/text.ts';
import { known } from '../../core/wire.ts';
import { lookThrice, recoverySignal } from '../follow.ts';
import { unless } from '../rest.ts';
import { type Branch, checkId, shown } from './map.ts';
import {
  assertMayChange,
  assertNotRestricted,
  branchOf,
  type Context,
  handleOf,
  type InStep,
  type NeonStep,
  settle,
} from './work.ts';

export interface DeleteBranchInput {
  readonly branch_id: string;
  readonly hard_delete?: boolean | undefined;
}

/** @throws {HoldfastError} INVALID_STATE for a branch that must not go, whoever asks */
function assertDeletable(branch: Branch, branches: readonly Branch[], own: Branch | undefined): void {
  const children = branches.filter(({ parent_id }) => parent_id === branch.id);
  const reason =
    branch.id === own?.id
      ? 'it is the branch of the entity itself'
      : branch.default
        ? 'it is the default branch'
        : branch.protected
          ? 'it is protected'
          : branch.parent_id === undefined
            ? 'it is a root branch'
            : children.length > 0
              ? `it has child branches: ${children.map(shown).join(', ')}`
              : undefined;
  if (reason === undefined) return;
  throw new HoldfastError('INVALID_STATE', `the branch '${shown(branch)}' is not deleted: ${reason}`, {
    retryable: false,
    hint: 'Holdfast deletes only branches that nothing depends on.',
    details: { branch_id: branch.id },
  });
}

/** Says what deleting a branch takes away. Reads only. */
export async function planBranchDeletion(context: Context, input: DeleteBranchInput): Promise<PlanDraft> {
  const { client, signal } = context;
  const id = checkId(input.branch_id, 'branch_id');
  const [project, branches] = await Promise.all([client.project(signal), client.branches(signal)]);
  assertMayChange(project);
  const branch = branchOf(branches, id, 'branch_id');
  assertDeletable(branch, branches, client.own(branches));
  assertNotRestricted(branch, 'delete', 'delete-rw-endpoint');
  const [databases, computes] = await Promise.all([
    unless(client.databases(id, signal), 'INSUFFICIENT_PERMISSIONS', 'RESOURCE_NOT_FOUND'),
    unless(client.computes(id, signal), 'INSUFFICIENT_PERMISSIONS', 'RESOURCE_NOT_FOUND'),
  ]);
  const hard = input.hard_delete === true;
  const parent = branches.find((candidate) => candidate.id === branch.parent_id);
  return {
    target: `${project.id}/${shown(branch)}`,
    loses: `the branch '${shown(branch)}' with all its databases${hard ? ', at once and for good' : ''}`,
    blast_radius: known({
      branch_id: id,
      parent: parent === undefined ? branch.parent_id : shown(parent),
      created_at: branch.created_at,
      logical_size_bytes: branch.size_bytes,
      databases: databases === undefined ? 'unknown' : databases.map((name) => cleanText(name, 63)),
      computes: computes?.all,
      active_computes: computes?.active,
    }),
    undo: hard ? 'none' : 'within seven days the branch can be recovered in the Neon console',
    alternatives: hard
      ? [
          {
            title: 'Delete it so that it can be recovered for seven days',
            risk: 'delete',
            call: { action: 'delete-branch', input: { branch_id: id } },
          },
        ]
      : [],
    unknowns: [
      ...(databases === undefined ? ['which databases it has'] : []),
      ...(hard ? [] : ['whether the account has branch recovery, which is a preview']),
    ],
    warnings: [
      ...((computes?.active ?? 0) > 0 ? ['A compute of it is active: connections are cut.'] : []),
      ...(/-before-\d{8}T\d{6}Z/.test(branch.name)
        ? ['It looks like the state kept before a restore: the way back from that goes with it.']
        : []),
    ],
    facts: {
      target: known({
        project_id: project.id,
        branch_id: id,
        name: shown(branch),
        parent_id: branch.parent_id,
        created_at: branch.created_at,
      }),
    },
  };
}

/** The steps that delete a branch and wait until it is gone. */
export function branchDeletionSteps(
  { branch_id, hard_delete }: DeleteBranchInput,
  plan: Plan,
): NeonStep<DeleteBranchInput>[] {
  const id = checkId(branch_id, 'branch_id');
  const isThere = async ({ client }: InStep<DeleteBranchInput>, signal: AbortSignal): Promise<boolean> =>
    (await client.branches(signal)).some((branch) => branch.id === id);
  return [
    {
      name: 'delete',
      title: 'Deleting the branch',
      kind: 'mutate',
      async run(context) {
        const now = await planBranchDeletion(context, context.input);
        const changed = compareFacts(plan.facts.target, now.facts.target);
        if (changed.length > 0) {
          throw new HoldfastError('INVALID_STATE', 'the branch is not what the plan says; nothing was deleted', {
            hint: 'Make the call again for a new plan.',
            details: { changed: changed.map(({ path }) => path), outcome: 'not_sent' },
          });
        }
        await context.checkpoint({ deleting: id });
        const change = await context.client.deleteBranch(id, hard_delete === true, context.signal);
        const handle = { deleting: id, ...handleOf(change) };
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
          : { state: 'not_begun', message: 'the branch is there as before' };
      },
    },
    {
      name: 'wait',
      title: 'Waiting until the branch is gone',
      kind: 'follow',
      run: (context) =>
        settle(context, { branch_id: id, ...context.results['delete'] }, 'the deletion', async () =>
          (await isThere(context, context.signal))
            ? undefined
            : { branch_id: id, deleted: true, hard: hard_delete === true },
        ),
    },
  ];
}
