import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Recovery } from '../../core/operation.ts';
import { type Alternative, compareFacts, type Plan, type PlanDraft } from '../../core/plan.ts';
import type { RestoreJob } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration, parseInstant } from '../../core/time.ts';
import { known } from '../../core/wire.ts';
import { lookThrice, recoverySignal } from '../follow.ts';
import { unless } from '../rest.ts';
import type { Change, Moment } from './client.ts';
import {
  type Branch,
  branchState,
  checkBranchName,
  checkId,
  checkLsn,
  isOperationId,
  isOver,
  type NeonOperation,
  type Project,
  type Snapshot,
  shown,
  toPoint,
} from './map.ts';
import { findSnapshot } from './snapshot.ts';
import {
  assertIdle,
  assertInWindow,
  assertMayChange,
  assertNotRestricted,
  branchOf,
  type Context,
  freeName,
  handleOf,
  type InStep,
  type NeonStep,
  readyBranch,
  settle,
  stampOf,
  windowOf,
} from './work.ts';

export interface RestoreInput {
  readonly restore_timestamp?: string | number | undefined;
  readonly lsn?: string | undefined;
  readonly snapshot_id?: string | undefined;
  readonly source_branch_id?: string | undefined;
  readonly new_branch_name?: string | undefined;
  readonly preserve_under_name?: string | undefined;
}

const MOST_SCHEMAS = 5;
const RESTORED_AS_NEW = 'a new branch is made, the others stay as they are';

/** What a restore comes from. */
type Origin =
  | { kind: 'history'; source: Branch; moment: Moment | undefined; at: Date | undefined }
  | { kind: 'snapshot'; snapshot: Snapshot; at: Date | undefined };

/** Everything that a plan shows and the write needs, read afresh. */
interface View {
  readonly project: Project;
  readonly branches: readonly Branch[];
  readonly snapshots: readonly Snapshot[];
  readonly operations: readonly NeonOperation[];
  /** The branch of the entity. */
  readonly own: Branch;
  readonly origin: Origin;
  /** The name of the branch to make; undefined in place. */
  readonly fresh: string | undefined;
  readonly children: readonly Branch[];
  readonly facts: { target: JsonObject; source: JsonObject };
}

function invalid(message: string, hint: string): HoldfastError {
  return new HoldfastError('INVALID_PARAMETER', message, { hint });
}

function checkInput(input: RestoreInput): void {
  const points = [input.restore_timestamp, input.lsn, input.snapshot_id].filter((given) => given !== undefined);
  if (points.length > 1) {
    throw invalid('give one of restore_timestamp, lsn and snapshot_id', 'They are three ways to name one point.');
  }
  if (points.length === 0 && input.source_branch_id === undefined) {
    throw invalid(
      'restore needs restore_timestamp, lsn, snapshot_id, or source_branch_id for the present state of another branch',
      'get-backup-info shows the window, list-snapshots the snapshots.',
    );
  }
  if (input.snapshot_id !== undefined && input.source_branch_id !== undefined) {
    throw invalid('source_branch_id does not go with snapshot_id', 'A snapshot is of one branch already.');
  }
  if (input.new_branch_name !== undefined && input.preserve_under_name !== undefined) {
    throw invalid('preserve_under_name is for a restore in place', 'A new branch replaces nothing. Leave one out.');
  }
}

async function lookAt(context: Context, input: RestoreInput): Promise<View> {
  const { client, runtime, signal } = context;
  checkInput(input);
  const { new_branch_name, preserve_under_name } = input;
  const fresh = new_branch_name === undefined ? undefined : checkBranchName(new_branch_name, 'new_branch_name');
  const keep =
    preserve_under_name === undefined ? undefined : checkBranchName(preserve_under_name, 'preserve_under_name');
  if (keep === '') throw invalid('preserve_under_name is empty', 'Leave it out for a name that is made up.');
  if (fresh === '') throw invalid('new_branch_name is empty', 'Name the branch that is to be made.');
  const [project, branches, snapshots, operations] = await Promise.all([
    client.project(signal),
    client.branches(signal),
    client.snapshots(signal),
    client.operations(signal),
  ]);
  assertMayChange(project);
  const own = client.own(branches);
  const origin = originOf(input, { project, branches, snapshots, own, now: runtime.now() });
  const name = fresh ?? keep;
  if (name !== undefined && branches.some((branch) => branch.name === name)) {
    throw new HoldfastError('RESOURCE_EXISTS', `the project has a branch '${cleanText(name, 60)}' already`);
  }
  if (keep !== undefined && origin.kind === 'snapshot') {
    throw new HoldfastError('NOT_SUPPORTED', 'Neon names the branch that a snapshot replaces by itself', {
      hint: 'Leave preserve_under_name out. The result says what it is called.',
    });
  }
  const children = branches.filter(({ parent_id }) => parent_id === own.id);
  if (fresh === undefined) {
    assertReplaceable(own);
    assertIdle(operations);
  }
  return {
    project,
    branches,
    snapshots,
    operations,
    own,
    origin,
    fresh,
    children,
    facts: {
      target:
        fresh !== undefined
          ? { project_id: project.id, new_branch_name: cleanText(fresh, 256), exists: false }
          : {
              project_id: project.id,
              branch_id: own.id,
              branch: shown(own),
              default: own.default,
              protected: own.protected,
              parent_id: own.parent_id ?? null,
              children: children.map(({ id }) => id).sort(),
            },
      source: sourceFacts(origin, own),
    },
  };
}

function assertReplaceable(own: Branch): void {
  if (own.protected) {
    throw new HoldfastError('INVALID_STATE', `the branch '${shown(own)}' is protected: it is not replaced`, {
      retryable: false,
      hint: 'Restore to a new branch (new_branch_name), or have a person lift the protection in the Neon console.',
      details: { branch_id: own.id },
    });
  }
  assertNotRestricted(own, 'restore', 'delete-rw-endpoint');
  const state = branchState(own);
  if (state === 'succeeded') return;
  throw new HoldfastError('INVALID_STATE', `the branch '${shown(own)}' is ${cleanText(own.pending ?? own.state, 40)}`);
}

function originOf(
  input: RestoreInput,
  given: Pick<View, 'project' | 'branches' | 'snapshots' | 'own'> & { now: Date },
): Origin {
  const { project, branches, snapshots, own, now } = given;
  if (input.snapshot_id !== undefined) {
    const snapshot = findSnapshot(snapshots, input.snapshot_id);
    const point = toPoint(snapshot, now);
    if (!point.restorable) {
      throw new HoldfastError('SNAPSHOT_NOT_FOUND', `the snapshot is ${point.status}`);
    }
    const at = point.data_at ?? point.created_at;
    return { kind: 'snapshot', snapshot, at: at === undefined ? undefined : new Date(at) };
  }
  const source =
    input.source_branch_id === undefined
      ? own
      : branchOf(branches, checkId(input.source_branch_id, 'source_branch_id'), 'source_branch_id');
  if (input.lsn !== undefined) {
    return { kind: 'history', source, moment: { lsn: checkLsn(input.lsn) }, at: undefined };
  }
  if (input.restore_timestamp !== undefined) {
    const at = parseInstant(input.restore_timestamp, 'restore_timestamp');
    assertInWindow(project, branches, source, at, now);
    return { kind: 'history', source, moment: { timestamp: at.toISOString() }, at };
  }
  if (source.id === own.id && input.new_branch_name === undefined) {
    throw invalid(
      'a branch is restored from itself with a moment only',
      'Give restore_timestamp or lsn, or the id of another branch as source_branch_id.',
    );
  }
  return { kind: 'history', source, moment: undefined, at: undefined };
}

function sourceFacts(origin: Origin, own: Branch): JsonObject {
  if (origin.kind === 'snapshot') {
    return known({
      snapshot_id: origin.snapshot.id,
      created_at: origin.snapshot.created_at,
      lsn: origin.snapshot.lsn === undefined ? undefined : cleanText(origin.snapshot.lsn, 40),
      // The service is told which branch is meant, whatever the snapshot was taken of.
      for_branch_id: own.id,
    });
  }
  return { branch_id: origin.source.id, branch: shown(origin.source), ...(origin.moment ?? { state: 'present' }) };
}

function describeOrigin(origin: Origin): string {
  if (origin.kind === 'snapshot') return `snapshot ${origin.snapshot.id}`;
  const name = shown(origin.source);
  if (origin.moment === undefined) return `branch '${name}' as it is now`;
  return 'lsn' in origin.moment
    ? `branch '${name}' at LSN ${origin.moment.lsn}`
    : `branch '${name}' at ${origin.moment.timestamp}`;
}

// --- the plan ------------------------------------------------------------------------------------------------------

/** Says what a restore makes, or what it replaces and under which name that is kept. Reads only. */
export async function planRestore(context: Context, input: RestoreInput): Promise<PlanDraft> {
  const view = await lookAt(context, input);
  return view.fresh === undefined ? planInPlace(context, input, view) : planNew(view, view.fresh);
}

function placesLeft({ project, branches }: View): string[] {
  const limit = project.branches_limit;
  if (limit === undefined) return [];
  const left = limit - branches.length;
  return left > 0 ? [] : ['No branch is left under the limit of the plan: Neon may refuse.'];
}

function planNew(view: View, fresh: string): PlanDraft {
  const { project, own, origin, operations } = view;
  const busy = operations.filter((operation) => !isOver(operation)).length;
  return {
    target: `${project.id}/${cleanText(fresh, 256)}`,
    source: describeOrigin(origin),
    loses: `nothing: ${RESTORED_AS_NEW}`,
    blast_radius: known({ creates: cleanText(fresh, 256), branches: view.branches.length, running_operations: busy }),
    undo: 'delete the new branch with delete-branch',
    unknowns: origin.kind === 'history' && origin.moment !== undefined && 'lsn' in origin.moment ? [LSN_UNKNOWN] : [],
    warnings: [
      ...(origin.kind === 'snapshot'
        ? ['The new branch is a preview of the snapshot without a compute; add one in the Neon console to connect.']
        : ['The new branch has a compute of its own, which is billed while it runs.']),
      ...(own.protected && origin.kind === 'history' ? ['Children of a protected branch get new passwords.'] : []),
      ...placesLeft(view),
    ],
    facts: view.facts,
  };
}

const LSN_UNKNOWN = 'the time of this LSN, and whether the history still reaches it';

async function planInPlace(context: Context, input: RestoreInput, view: View): Promise<PlanDraft> {
  const { client, runtime, signal } = context;
  const { project, own, origin, children, branches } = view;
  const now = runtime.now();
  const hidden = ['INSUFFICIENT_PERMISSIONS', 'RESOURCE_NOT_FOUND'];
  const [databases, computes] = await Promise.all([
    unless(client.databases(own.id, signal), ...hidden),
    unless(client.computes(own.id, signal), ...hidden),
  ]);
  const schemas = await schemaChanges(context, view, databases);
  const name = shown(own);
  const keptAs = input.preserve_under_name ?? `${name}-before-<time of the restore>`;
  const kept =
    origin.kind === 'snapshot' ? 'under a name that Neon chooses' : `as the branch '${cleanText(keptAs, 100)}'`;
  const foreign = origin.kind === 'history' && origin.source.id !== own.id;
  const root = own.parent_id === undefined;
  const since = origin.at?.toISOString();
  const age = origin.at === undefined ? undefined : formatDuration((now.getTime() - origin.at.getTime()) / 1000);
  const snapshots = view.snapshots
    .filter(({ branch_id }) => branch_id === own.id)
    .map((snapshot) => toPoint(snapshot, now))
    .filter(({ restorable }) => restorable);
  const window = windowOf(project, branches, own, now);
  return {
    risk: 'overwrite',
    target: `${project.id}/${name}`,
    source: describeOrigin(origin),
    loses: foreign
      ? `IN PLACE: everything on '${name}' is replaced by that of '${shown(origin.source)}'; the present state is kept ${kept}`
      : `IN PLACE: everything written to '${name}'${since === undefined ? ' after this point' : ` after ${since} (the last ${age})`}, in all its databases; the present state is kept ${kept}`,
    ...(since === undefined || foreign ? {} : { since }),
    blast_radius: known({
      branch_id: own.id,
      default: own.default,
      root,
      logical_size_bytes: own.size_bytes,
      databases: databases === undefined ? 'unknown' : databases.map((one) => cleanText(one, 63)),
      computes: computes?.all,
      active_computes: computes?.active,
      children_moved: origin.kind === 'history' ? children.map(shown) : undefined,
      schema_lines_changed: schemas,
      window:
        window === undefined
          ? undefined
          : { earliest_at: window.earliest.toISOString(), latest_at: window.latest.toISOString(), estimated: true },
      branches: branches.length,
      branches_limit: project.branches_limit,
    }),
    ...(snapshots[0]?.created_at === undefined
      ? {}
      : { newest_recovery_point: { id: snapshots[0].id, at: snapshots[0].created_at } }),
    // The kept branch is the whole of it, at no extra time; a snapshot could add nothing.
    safety_snapshot: { possible: false, reason: `not needed: the present state is always kept ${kept}` },
    undo: `restore in place from the kept branch, with the exact call of the result${
      origin.kind === 'snapshot' ? ', once Neon allows it again' : ''
    }`,
    alternatives: alternativesOf(view, input, now),
    duration_estimate: 30,
    unknowns: [
      ...(databases === undefined ? ['which databases the branch has'] : []),
      ...(computes === undefined ? ['which computes the branch has'] : []),
      ...(schemas === undefined && origin.kind === 'history' && origin.moment !== undefined
        ? ['how the schemas differ (not compared)']
        : []),
      ...(origin.kind === 'history' && origin.moment !== undefined && 'lsn' in origin.moment ? [LSN_UNKNOWN] : []),
    ],
    warnings: [
      `THIS REPLACES THE BRANCH '${name}' ITSELF${input.source_branch_id === undefined ? ', because no new_branch_name was given' : ''}: all its databases.`,
      ...(origin.kind === 'snapshot' && origin.snapshot.branch_id !== own.id
        ? [`The snapshot is not of this branch but of ${sourceName(origin.snapshot, branches)}.`]
        : []),
      'Connections drop for seconds; hosts and connection strings stay.',
      ...(origin.kind === 'snapshot'
        ? [
            'The branch gets another id; its name and computes stay. Restores in place of it may be refused for some hours.',
            ...(client.namesById(own)
              ? ['THE ENTITY NAMES ITS BRANCH BY ITS ID, which will be that of the replaced one: use the name instead.']
              : []),
            ...(children.length > 0
              ? [`Its children stay with the replaced branch: ${children.map(shown).join(', ')}.`]
              : []),
          ]
        : [
            ...(children.length > 0
              ? [`Its children move to the kept branch: ${children.map(shown).join(', ')}.`]
              : []),
            root
              ? foreign
                ? 'The kept branch will be a root that cannot be deleted any more: its storage stays billed.'
                : 'The kept branch will be a second root branch.'
              : 'The kept branch becomes its parent: "reset from parent" will mean that one.',
          ]),
      ...placesLeft(view),
    ],
    facts: view.facts,
  };
}

function sourceName({ branch_id }: Snapshot, branches: readonly Branch[]): string {
  const source = branches.find(({ id }) => id === branch_id);
  return source === undefined ? 'one that is gone' : `'${shown(source)}'`;
}

/** Counts the lines of each schema that differ from the point; undefined where Neon does not tell. */
async function schemaChanges(
  { client, signal }: Context,
  { own, origin }: View,
  databases: readonly string[] | undefined,
): Promise<JsonObject | undefined> {
  if (origin.kind !== 'history' || origin.source.id !== own.id || origin.moment === undefined) return undefined;
  if (databases === undefined) return undefined;
  const { moment } = origin;
  const counts = await Promise.all(
    databases.slice(0, MOST_SCHEMAS).map(async (database) => {
      const count = await unless(
        client.schemaChanges(own.id, database, moment, signal),
        'INSUFFICIENT_PERMISSIONS',
        'RESOURCE_NOT_FOUND',
        'INVALID_PARAMETER',
        'INVALID_STATE',
        'NOT_SUPPORTED',
        'PROVIDER_UNAVAILABLE',
        'TIMEOUT',
      );
      return [cleanText(database, 63), count] as const;
    }),
  );
  return counts.some(([, count]) => count === undefined) ? undefined : Object.fromEntries(counts);
}

function alternativesOf({ branches, own, origin }: View, input: RestoreInput, now: Date): Alternative[] {
  const { preserve_under_name: _, ...point } = input;
  const fresh = freeName(branches, `${cleanText(own.name, 60)}-restored-${stampOf(now)}`);
  return [
    {
      title: `Restore to the new branch ${fresh} and look at it first`,
      risk: 'create',
      call: { action: 'restore', input: { ...known(point), new_branch_name: fresh } },
    },
    ...(own.parent_id === undefined && origin.kind === 'history'
      ? [
          {
            title: 'Take a snapshot of the present state first',
            risk: 'create',
            call: { action: 'create-snapshot', input: {} },
          } satisfies Alternative,
        ]
      : []),
  ];
}

// --- the steps -----------------------------------------------------------------------------------------------------

/** The steps of a restore: begin it once, then wait until the branch can be used. */
export function restoreSteps(plan: Plan): NeonStep<RestoreInput>[] {
  return [
    {
      name: 'restore',
      title: `Restoring ${plan.target}`,
      kind: 'mutate',
      run: (context) => begin(context, plan),
      recover: findRestored,
    },
    { name: 'wait', title: `Waiting until ${plan.target} can be used`, kind: 'follow', run: waitForBranch },
  ];
}

async function begin(context: InStep<RestoreInput>, plan: Plan): Promise<JsonObject> {
  const { client, input, runtime, signal } = context;
  const view = await lookAt(context, input);
  const changed = [
    ...compareFacts(plan.facts.target, view.facts.target, 'target'),
    ...compareFacts(plan.facts.source, view.facts.source, 'source'),
  ];
  if (changed.length > 0) {
    throw new HoldfastError('INVALID_STATE', 'the branch is not what the plan says; nothing was restored', {
      hint: 'Make the call again for a new plan.',
      details: { changed: changed.map(({ path }) => path), outcome: 'not_sent' },
    });
  }
  const { own, origin, fresh, branches } = view;
  const now = runtime.now();
  const keep = input.preserve_under_name ?? freeName(branches, `${own.name.slice(0, 200)}-before-${stampOf(now)}`);
  const mark: JsonObject = {
    mode: fresh === undefined ? 'in_place' : 'new_branch',
    target_id: own.id,
    began_at: now.toISOString(),
    ...(fresh === undefined ? {} : { new_name: fresh }),
    ...(origin.kind === 'snapshot'
      ? {
          snapshot_id: origin.snapshot.id,
          // Older branches of this snapshot, to tell ours from them should the answer be lost.
          before: branches.filter(({ restored_from }) => restored_from === origin.snapshot.id).map(({ id }) => id),
        }
      : {}),
    ...(fresh === undefined && origin.kind === 'history' ? { keep_name: keep } : {}),
  };
  await context.checkpoint(mark);
  let change: Change;
  if (origin.kind === 'snapshot') {
    const named = fresh === undefined ? {} : { name: fresh };
    const settings = { target: own.id, finalize: fresh === undefined, ...named };
    change = await client.restoreSnapshot(origin.snapshot.id, settings, signal);
  } else if (fresh !== undefined) {
    const settings = { name: fresh, parent: origin.source.id, moment: origin.moment };
    change = await client.createBranch(settings, signal);
  } else {
    const settings = { source: origin.source.id, moment: origin.moment, keep_as: keep };
    change = await client.restoreBranch(own.id, settings, signal);
  }
  // A restore from history leaves the branch its id, whichever branch the answer shows.
  const same = fresh === undefined && origin.kind === 'history' ? { branch_id: own.id } : {};
  const handle = { ...mark, ...handleOf(change), ...same };
  await context.checkpoint(handle);
  return handle;
}

/** Looks for what a restore leaves: a branch of the name that was free, or one that a snapshot was put into. */
async function findRestored(context: InStep<RestoreInput>): Promise<Recovery> {
  const { client, handle } = context;
  if (handle === undefined) return { state: 'not_begun' };
  if (typeof handle['branch_id'] === 'string') return { state: 'done', result: handle };
  const signal = recoverySignal(context.signal);
  const before = new Set(Array.isArray(handle['before']) ? handle['before'].map(String) : []);
  const target = String(handle['target_id']);
  const isOurs = (branch: Branch): boolean => {
    if (before.has(branch.id)) return false;
    if (handle['new_name'] !== undefined) return branch.name === handle['new_name'];
    if (handle['keep_name'] !== undefined) return branch.name === handle['keep_name'];
    return branch.restored_from === handle['snapshot_id'] && branch.restored_as === target;
  };
  const found = await lookThrice(context, async () => (await client.branches(signal)).find(isOurs));
  if (found !== undefined) {
    // What is found after a restore from history is the kept state; the restored branch is the target as before.
    const branch_id = handle['keep_name'] === undefined ? found.id : target;
    return { state: 'done', result: { ...handle, branch_id } };
  }
  if (handle['mode'] === 'in_place') {
    const branch = await unless(client.branch(target, signal), 'RESOURCE_NOT_FOUND');
    if (branch === undefined || branchState(branch) !== 'succeeded') {
      return { state: 'unknown', message: 'the branch is being changed, and nothing tells by whom' };
    }
  }
  return { state: 'not_begun', message: 'Neon has no branch that this restore would have made' };
}

async function waitForBranch(context: InStep<RestoreInput>): Promise<JsonObject> {
  const { client, results, runtime, signal } = context;
  const begun = results['restore'] ?? {};
  const id = String(begun['branch_id']);
  const branch = await settle(context, begun, 'the restore', () => readyBranch(context, id));
  const job = toJob(client.project_id, branch, []);
  const inPlace = begun['mode'] === 'in_place';
  const kept = inPlace ? await keptBranch(context, begun, signal) : undefined;
  const connection = inPlace ? undefined : await connectionOf(context, id);
  return {
    ...job,
    started_at: String(begun['began_at']),
    ended_at: runtime.now().toISOString(),
    provider: known({
      ...(job.provider as JsonObject),
      mode: String(begun['mode']),
      kept_branch_id: kept?.id,
      kept_as: kept === undefined ? undefined : shown(kept),
      undo: kept === undefined ? undefined : { action: 'restore', input: { source_branch_id: kept.id } },
      connection,
      delete: inPlace ? undefined : { action: 'delete-branch', input: { branch_id: id } },
    }),
  };
}

const MOST_DATABASES = 20;

/** How to connect to a new branch, without the password: Neon gives that with the URI, to whoever holds the key. */
async function connectionOf({ client, signal }: InStep<RestoreInput>, id: string): Promise<JsonObject | undefined> {
  const found = await unless(client.connection(id, signal), 'INSUFFICIENT_PERMISSIONS', 'RESOURCE_NOT_FOUND');
  if (found === undefined) return undefined;
  const { host, databases } = found;
  const [first] = databases;
  const query =
    first === undefined
      ? undefined
      : new URLSearchParams({ branch_id: id, database_name: first.name, role_name: first.owner });
  return known({
    host: host === undefined ? 'none: the branch has no compute yet' : cleanText(host, 200),
    port: host === undefined ? undefined : 5432,
    databases: databases.slice(0, MOST_DATABASES).map(({ name, owner }) => ({
      database_name: cleanText(name, 63),
      role_name: cleanText(owner, 63),
    })),
    uri_from:
      host === undefined || query === undefined
        ? undefined
        : cleanText(`GET /api/v2/projects/${client.project_id}/connection_uri?${query}`, 400),
  });
}

/** The branch that holds what was there before: of a known name, or the target itself under another one. */
async function keptBranch(
  { client }: InStep<RestoreInput>,
  begun: JsonObject,
  signal: AbortSignal,
): Promise<Branch | undefined> {
  const branches = await client.branches(signal);
  return begun['keep_name'] === undefined
    ? branches.find(({ id }) => id === begun['target_id'] && id !== begun['branch_id'])
    : branches.find(({ name }) => name === begun['keep_name']);
}

/** Makes a restore job of a branch and the operations on it. */
function toJob(project: string, branch: Branch, operations: readonly NeonOperation[]): RestoreJob {
  const running = operations.find((operation) => !isOver(operation));
  const state = branchState(branch);
  const status = running === undefined ? state : running.status === 'unknown' ? 'unknown' : 'running';
  return {
    job_id: branch.id,
    status,
    target: `${project}/${shown(branch)}`,
    usable: status === 'succeeded',
    provider: known({
      branch_id: branch.id,
      branch: shown(branch),
      branch_state: cleanText(branch.pending ?? branch.state, 40),
      parent_id: branch.parent_id,
      protected: branch.protected,
      restore_status: branch.restore_status === undefined ? undefined : cleanText(branch.restore_status, 40),
      operation: running === undefined ? undefined : `${running.action} is ${running.word}`,
    }),
  };
}

/** Says how a restore stands: one operation, or all on the branch that it made or replaced; then the branch itself. */
export async function restoreStatus({ client, signal }: Context, id: string): Promise<RestoreJob> {
  if (!isOperationId(id)) {
    const branch = await client.branch(checkId(id, 'job_id'), signal);
    const operations = await client.operations(signal);
    return toJob(
      client.project_id,
      branch,
      operations.filter((operation) => operation.branch_id === branch.id),
    );
  }
  const operation = await client.operation(id, signal);
  const branch =
    operation.branch_id === undefined
      ? undefined
      : await unless(client.branch(operation.branch_id, signal), 'RESOURCE_NOT_FOUND');
  const own: RestoreJob = {
    job_id: operation.id,
    status: operation.status,
    target: branch === undefined ? client.project_id : `${client.project_id}/${shown(branch)}`,
    usable: false,
    provider: known({ action: operation.action, operation_status: operation.word, branch_id: operation.branch_id }),
    ...(operation.created_at === undefined ? {} : { started_at: operation.created_at }),
    ...(isOver(operation) && operation.updated_at !== undefined ? { ended_at: operation.updated_at } : {}),
  };
  if (branch === undefined || operation.status !== 'succeeded') return own;
  const state = branchState(branch);
  return { ...own, status: state, usable: state === 'succeeded' };
}
