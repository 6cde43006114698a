import type { ProviderContext } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Step, StepContext } from '../../core/operation.ts';
import { formatDuration } from '../../core/time.ts';
import { follow } from '../follow.ts';
import { unless } from '../rest.ts';
import type { Change, NeonClient } from './client.ts';
import { type Branch, branchState, isOver, type NeonOperation, operationError, type Project, shown } from './map.ts';
import type { NeonEntity } from './provider.ts';

export type Context = ProviderContext<NeonClient, NeonEntity>;
export type NeonStep<Input> = Step<NeonClient, NeonEntity, Input>;
export type InStep<Input> = StepContext<NeonClient, NeonEntity, Input>;

const DEADLINE_MS = 600_000;

// --- before a change -----------------------------------------------------------------------------------------------

/** @throws {HoldfastError} INSUFFICIENT_PERMISSIONS where the key only reads this project */
export function assertMayChange({ permission }: Project): void {
  if (permission !== 'CAN_VIEW') return;
  throw new HoldfastError('INSUFFICIENT_PERMISSIONS', 'the key may only look at this project', {
    hint: 'Give it the permission CAN_EDIT on the project.',
    details: { permission },
  });
}

/** @throws {HoldfastError} INVALID_STATE where Neon says that a branch does not allow this now */
export function assertNotRestricted(branch: Branch, ...actions: string[]): void {
  const found = branch.restricted.find(({ name }) => actions.includes(name));
  if (found === undefined) return;
  throw new HoldfastError('INVALID_STATE', `Neon restricts '${found.name}' on the branch '${shown(branch)}' for now`, {
    hint: 'details.reason has what Neon says. Wait, or restore to a new branch.',
    details: { branch_id: branch.id, restricted: found.name, reason: found.reason },
  });
}

/** @throws {HoldfastError} INVALID_STATE while operations of the project run */
export function assertIdle(operations: readonly NeonOperation[]): void {
  const running = operations.filter((operation) => !isOver(operation));
  if (running.length === 0) return;
  throw new HoldfastError('INVALID_STATE', `${running.length} operations of the project are running`, {
    hint: 'A project does one thing at a time. Wait until they are over, then call again.',
    details: { operation_ids: running.slice(0, 10).map(({ id }) => id) },
  });
}

/** Gives the branch of an id among all. */
export function branchOf(branches: readonly Branch[], id: string, parameter: string): Branch {
  const found = branches.find((branch) => branch.id === id);
  if (found !== undefined) return found;
  throw new HoldfastError('RESOURCE_NOT_FOUND', `the project has no branch of this ${parameter}`, {
    hint: 'Branch ids begin with br-; get-backup-info lists the branches.',
  });
}

/** Gives the first branch of the line that a branch comes from. */
export function rootOf(branches: readonly Branch[], branch: Branch): Branch {
  let found = branch;
  for (let hops = 0; found.parent_id !== undefined && hops < 100; hops += 1) {
    const parent = branches.find(({ id }) => id === found.parent_id);
    if (parent === undefined) return found;
    found = parent;
  }
  return found;
}

/** The moments that the history of a branch reaches, as far as that can be known: Neon names neither end. */
export function windowOf(
  project: Project,
  branches: readonly Branch[],
  branch: Branch,
  now: Date,
): { earliest: Date; latest: Date } | undefined {
  if (project.history_seconds === 0) return undefined;
  const created = Date.parse(rootOf(branches, branch).created_at ?? project.created_at ?? '') || 0;
  const earliest = new Date(Math.max(created, now.getTime() - project.history_seconds * 1000));
  return earliest < now ? { earliest, latest: now } : undefined;
}

/**
 * Checks that a moment lies in the window.
 * @throws {HoldfastError} INVALID_STATE without history, INVALID_PARAMETER outside of it
 */
export function assertInWindow(
  project: Project,
  branches: readonly Branch[],
  branch: Branch,
  at: Date,
  now: Date,
): void {
  const window = windowOf(project, branches, branch, now);
  if (window === undefined) {
    throw new HoldfastError('INVALID_STATE', 'the project keeps no history: no moment can be restored', {
      retryable: false,
      hint: 'Restore a snapshot instead, or set history_retention_seconds for the time to come.',
    });
  }
  if (at >= window.earliest && at <= window.latest) return;
  throw new HoldfastError('INVALID_PARAMETER', `${at.toISOString()} is outside of the history of the branch`, {
    hint: `Give a moment from ${window.earliest.toISOString()} to ${window.latest.toISOString()}; both ends are estimated.`,
    details: {
      earliest_at: window.earliest.toISOString(),
      latest_at: window.latest.toISOString(),
      history: formatDuration(project.history_seconds),
    },
  });
}

/** A stamp for names: `20261121T101530Z`. */
export function stampOf(at: Date): string {
  return at.toISOString().replace(/\.\d+/, '').replace(/[-:]/g, '');
}

/** Gives a name that no branch has, the wanted one where it is free. */
export function freeName(branches: readonly Branch[], wanted: string): string {
  const taken = new Set(branches.map(({ name }) => name));
  let name = wanted;
  for (let number = 2; taken.has(name); number += 1) name = `${wanted}-${number}`;
  return name;
}

// --- after a change ------------------------------------------------------------------------------------------------

/** What is stored of a change that Neon has taken. */
export function handleOf({ branch, operations }: Change): JsonObject {
  return {
    operation_ids: operations.map(({ id }) => id),
    ...(branch === undefined ? {} : { branch_id: branch.id }),
  };
}

/**
 * Waits until every operation of a change is over. Where the answer with their ids was lost, those of its branch that
 * still run are waited for.
 * @throws {HoldfastError} INVALID_STATE or CANCELLED for one that did not succeed, TIMEOUT
 */
export async function settle<Input, T>(
  context: InStep<Input>,
  change: JsonObject,
  what: string,
  look: () => Promise<T | undefined>,
): Promise<T> {
  const { client, signal } = context;
  const ids = Array.isArray(change['operation_ids']) ? change['operation_ids'].map(String) : undefined;
  const branch = change['branch_id'];
  const left = new Set(ids);
  const pace = { at: 'Neon', deadline_ms: DEADLINE_MS, first_ms: 1000, longest_ms: 5000 };
  return follow(context, { what, ...pace }, async () => {
    if (ids === undefined) {
      const running = (await client.operations(signal)).filter(
        (operation) => !isOver(operation) && (branch === undefined || operation.branch_id === branch),
      );
      if (running.length > 0) {
        context.progress({ message: `${running.length} operations are running` });
        return undefined;
      }
    }
    for (const id of left) {
      const operation = await unless(client.operation(id, signal), 'RESOURCE_NOT_FOUND');
      // Old ones vanish; the state of the branch tells then.
      if (operation === undefined || operation.status === 'succeeded') left.delete(id);
      else if (isOver(operation)) throw operationError(operation, what);
      else {
        context.progress({ message: `${operation.action} is ${operation.word}` });
        return undefined;
      }
    }
    return look();
  });
}

/** A branch once it can be used. */
export async function readyBranch<Input>(context: InStep<Input>, id: string): Promise<Branch | undefined> {
  const branch = await context.client.branch(id, context.signal);
  if (branchState(branch) === 'succeeded') return branch;
  context.progress({ message: `branch is ${branch.pending ?? branch.state}` });
  return undefined;
}
