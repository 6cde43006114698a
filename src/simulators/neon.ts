import { randomUUID } from 'node:crypto';
import { isObject } from '../core/json.ts';
import type { Simulator, SimulatorOptions, SimulatorRequest, SimulatorResponse } from './simulator.ts';

/** Tables and their row counts, by database: enough to see what a restore replaced. */
export type NeonContent = Record<string, Record<string, number>>;

export interface SimulatedBranch {
  id: string;
  name: string;
  parentId: string | undefined;
  parentAt: number | undefined;
  default: boolean;
  protected: boolean;
  createdAt: number;
  /** When it can be used. */
  readyAt: number;
  /** Words in place of the states that the clock gives. */
  state: string | undefined;
  pending: string | undefined;
  restoreStatus: string | undefined;
  restoredFrom: string | undefined;
  restoredAs: string | undefined;
  restricted: { name: string; reason: string; until: number }[];
  computes: { id: string; active: boolean }[];
  /** What it holds since a moment, oldest first, its ancestors' past included. */
  history: { at: number; content: NeonContent }[];
}

export interface SimulatedSnapshot {
  id: string;
  name: string;
  branchId: string;
  at: number;
  createdAt: number;
  expiresAt: number | undefined;
  manual: boolean;
  fullSize: number | undefined;
  diffSize: number | undefined;
  content: NeonContent;
}

export interface SimulatedOperation {
  id: string;
  action: string;
  branchId: string | undefined;
  createdAt: number;
  startsAt: number;
  endsAt: number;
  /** The word at its end. */
  outcome: string;
  /** A word in place of the one that the clock gives. */
  status: string | undefined;
}

export interface SimulatedProject {
  id: string;
  name: string;
  historySeconds: number;
  /** Before it there is no history, whatever the seconds: a longer window fills up from then. */
  historyFrom: number;
  createdAt: number;
  plan: string;
  branchesLimit: number;
  snapshotsLimit: number;
  permission: string | undefined;
  maintenanceAt: number | undefined;
  branches: SimulatedBranch[];
  snapshots: SimulatedSnapshot[];
  operations: SimulatedOperation[];
  /** By branch. */
  schedules: Map<string, Record<string, unknown>[]>;
}

/** What tests set up and look at. */
export interface NeonState {
  readonly projects: SimulatedProject[];
  unauthenticated: boolean;
  /** How many of the next changes are refused with 423. */
  locked: number;
  /** `METHOD part-of-path` to what is answered there. */
  readonly refusals: Map<string, { status: number; code?: string; message: string }>;
  /** Rows in one page at most. */
  pageSize: number;
  /** Operations that a change answers with; without them it is done by the branch's own state. */
  hideOperations: boolean;
  /** How the next operation ends. */
  nextOutcome: string | undefined;
  /** Whether the key sees projects of organizations only, one organization at a time. */
  ofOrganization: boolean;
  /** Restores taken so far, of every kind. */
  restores: number;
  /** Milliseconds that a change takes. */
  workMs: number;
  project(id?: string): SimulatedProject;
  branch(name: string): SimulatedBranch;
  content(branch: string): NeonContent;
  write(branch: string, content: NeonContent): void;
}

export interface NeonSimulator extends Simulator {
  readonly state: NeonState;
}

export const NEON_SANDBOX = {
  project: 'spring-example-302709',
  main: 'br-aged-salad-637688',
  drill: 'br-drill-copy-118737',
} as const;

const ORGANIZATION = 'org-holdfast-sandbox-1';
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const SNAPSHOT_LOCK_MS = 4 * HOUR;

class Refused extends Error {
  readonly response: SimulatorResponse;
  constructor(status: number, message: string, code = '') {
    super(message);
    const request_id = randomUUID();
    this.response = { status, headers: { 'x-neon-ret-request-id': request_id }, body: { request_id, code, message } };
  }
}

/** Stands in for the Neon API v2 as far as branches, history, snapshots and operations of a project go. */
export function neonSimulator({ clock }: SimulatorOptions): NeonSimulator {
  const now = (): number => clock.now().getTime();
  const iso = (at: number): string => new Date(at).toISOString().replace(/\.\d{3}Z$/, 'Z');
  const projects = sampleFleet(now());
  let counter = 0;
  const newId = (prefix: string): string => {
    counter += 1;
    return `${prefix}-quiet-river-${String(400_000 + counter)}`;
  };
  const find = (id: string = NEON_SANDBOX.project): SimulatedProject => {
    const found = projects.find((project) => project.id === id);
    if (found === undefined) throw new Refused(404, 'project not found');
    return found;
  };
  const contentAt = (branch: SimulatedBranch, at: number): NeonContent =>
    structuredClone(branch.history.findLast((entry) => entry.at <= at)?.content ?? {});
  const named = (name: string): SimulatedBranch => {
    const found = find().branches.find((branch) => branch.name === name);
    if (found === undefined) throw new Error(`no simulated branch ${name}`);
    return found;
  };
  const state: NeonState = {
    projects,
    unauthenticated: false,
    locked: 0,
    refusals: new Map(),
    pageSize: 10_000,
    hideOperations: false,
    nextOutcome: undefined,
    ofOrganization: false,
    restores: 0,
    workMs: 3000,
    project: find,
    branch: named,
    content: (name) => contentAt(named(name), now()),
    write: (name, content) => {
      named(name).history.push({ at: now(), content });
    },
  };

  const lsnAt = (project: SimulatedProject, at: number): string =>
    `0/${Math.max(16, Math.floor((at - project.createdAt) / 1000) * 16)
      .toString(16)
      .toUpperCase()}`;
  const atLsn = (project: SimulatedProject, lsn: string): number => {
    const [, low = ''] = /^0\/([0-9A-F]{1,8})$/i.exec(lsn) ?? [];
    if (low === '') throw new Refused(400, 'invalid LSN');
    return project.createdAt + Math.floor(Number.parseInt(low, 16) / 16) * 1000 + 999;
  };

  // --- operations --------------------------------------------------------------------------------------------------

  const wordOf = (operation: SimulatedOperation): string =>
    operation.status ??
    (now() < operation.startsAt ? 'scheduling' : now() < operation.endsAt ? 'running' : operation.outcome);
  const begin = (project: SimulatedProject, branchId: string | undefined, ...actions: string[]): object[] => {
    const begun = actions.map((action, index): SimulatedOperation => {
      const share = state.workMs / actions.length;
      const outcome = state.nextOutcome ?? 'finished';
      state.nextOutcome = undefined;
      return {
        id: randomUUID(),
        action,
        branchId,
        createdAt: now(),
        startsAt: now() + share * index + share / 4,
        endsAt: now() + share * (index + 1),
        outcome,
        status: undefined,
      };
    });
    project.operations.unshift(...begun.toReversed());
    return state.hideOperations ? [] : begun.map((operation) => showOperation(project, operation));
  };
  const showOperation = (project: SimulatedProject, operation: SimulatedOperation): object => {
    const status = wordOf(operation);
    return {
      id: operation.id,
      project_id: project.id,
      ...(operation.branchId === undefined ? {} : { branch_id: operation.branchId }),
      action: operation.action,
      status,
      ...(status === 'failed' || status === 'error' ? { error: 'Simulated failure of the operation.' } : {}),
      failures_count: status === 'error' ? 1 : 0,
      ...(status === 'error' ? { retry_at: iso(now() + 5000) } : {}),
      created_at: iso(operation.createdAt),
      updated_at: iso(Math.min(now(), operation.endsAt)),
      total_duration_ms: Math.round(operation.endsAt - operation.startsAt),
    };
  };
  const assertUnlocked = (project: SimulatedProject): void => {
    const isBusy = project.operations.some((operation) => ['scheduling', 'running'].includes(wordOf(operation)));
    if (state.locked <= 0 && !isBusy) return;
    state.locked = Math.max(0, state.locked - 1);
    throw new Refused(423, 'project already has running conflicting operations, scheduling of new ones is prohibited');
  };

  // --- what is shown -----------------------------------------------------------------------------------------------

  const showBranch = (project: SimulatedProject, branch: SimulatedBranch): object => {
    const restricted = branch.restricted.filter(({ until }) => until > now());
    const ready = now() >= branch.readyAt;
    return {
      id: branch.id,
      project_id: project.id,
      ...(branch.parentId === undefined ? {} : { parent_id: branch.parentId }),
      ...(branch.parentId === undefined || branch.parentAt === undefined
        ? {}
        : { parent_lsn: lsnAt(project, branch.parentAt), parent_timestamp: iso(branch.parentAt) }),
      name: branch.name,
      current_state: branch.state ?? (ready ? 'ready' : 'init'),
      ...(branch.pending !== undefined ? { pending_state: branch.pending } : ready ? {} : { pending_state: 'ready' }),
      state_changed_at: iso(Math.min(now(), branch.readyAt)),
      logical_size: 30_000_000 + size(contentAt(branch, now())),
      creation_source: 'console',
      default: branch.default,
      protected: branch.protected,
      cpu_used_sec: 100,
      compute_time_seconds: 100,
      active_time_seconds: 400,
      written_data_bytes: 1_000_000,
      data_transfer_bytes: 200_000,
      created_at: iso(branch.createdAt),
      updated_at: iso(Math.max(branch.createdAt, Math.min(now(), branch.readyAt))),
      init_source: 'parent-data',
      ...(branch.restoreStatus === undefined ? {} : { restore_status: branch.restoreStatus }),
      ...(branch.restoredFrom === undefined ? {} : { restored_from: branch.restoredFrom }),
      ...(branch.restoredAs === undefined ? {} : { restored_as: branch.restoredAs }),
      ...(restricted.length === 0
        ? {}
        : { restricted_actions: restricted.map(({ name, reason }) => ({ name, reason })) }),
    };
  };
  const showCompute = (project: SimulatedProject, branch: SimulatedBranch, id: string, active: boolean): object => ({
    id,
    project_id: project.id,
    branch_id: branch.id,
    host: `${id}.eu-central-1.aws.neon.tech`,
    region_id: 'aws-eu-central-1',
    autoscaling_limit_min_cu: 0.25,
    autoscaling_limit_max_cu: 1,
    type: 'read_write',
    current_state: active ? 'active' : 'idle',
    settings: {},
    pooler_enabled: false,
    pooler_mode: 'transaction',
    disabled: false,
    passwordless_access: true,
    creation_source: 'console',
    created_at: iso(branch.createdAt),
    updated_at: iso(branch.createdAt),
    proxy_host: 'eu-central-1.aws.neon.tech',
    suspend_timeout_seconds: 0,
    provisioner: 'k8s-neonvm',
  });
  const showSnapshot = (project: SimulatedProject, snapshot: SimulatedSnapshot): object => ({
    id: snapshot.id,
    name: snapshot.name,
    lsn: lsnAt(project, snapshot.at),
    timestamp: iso(snapshot.at),
    source_branch_id: snapshot.branchId,
    created_at: iso(snapshot.createdAt),
    ...(snapshot.expiresAt === undefined ? {} : { expires_at: iso(snapshot.expiresAt) }),
    manual: snapshot.manual,
    ...(snapshot.fullSize === undefined ? {} : { full_size: snapshot.fullSize }),
    ...(snapshot.diffSize === undefined ? {} : { diff_size: snapshot.diffSize }),
  });
  const showProject = (project: SimulatedProject): object => ({
    id: project.id,
    name: project.name,
    platform_id: 'aws',
    region_id: 'aws-eu-central-1',
    pg_version: 17,
    proxy_host: 'eu-central-1.aws.neon.tech',
    provisioner: 'k8s-neonvm',
    branch_logical_size_limit: 204_800,
    branch_logical_size_limit_bytes: 214_748_364_800,
    store_passwords: true,
    cpu_used_sec: 1000,
    active_time_seconds: 4000,
    compute_time_seconds: 1000,
    written_data_bytes: 9_000_000,
    data_transfer_bytes: 900_000,
    data_storage_bytes_hour: 90_000_000,
    creation_source: 'console',
    history_retention_seconds: project.historySeconds,
    created_at: iso(project.createdAt),
    updated_at: iso(project.createdAt),
    synthetic_storage_size: 120_000_000,
    consumption_period_start: iso(project.createdAt),
    consumption_period_end: iso(now() + 10 * DAY),
    owner_id: ORGANIZATION,
    owner: {
      email: 'owner@example.com',
      name: 'Sandbox',
      branches_limit: project.branchesLimit,
      subscription_type: project.plan,
    },
    ...(project.maintenanceAt === undefined ? {} : { maintenance_starts_at: iso(project.maintenanceAt) }),
    ...(project.permission === undefined ? {} : { effective_project_permission: project.permission }),
  });

  // --- branches ----------------------------------------------------------------------------------------------------

  const branchIn = (project: SimulatedProject, id: unknown): SimulatedBranch => {
    const found = project.branches.find((branch) => branch.id === id);
    if (found === undefined) throw new Refused(404, 'branch not found');
    return found;
  };
  const earliest = (project: SimulatedProject): number =>
    Math.max(project.historyFrom, now() - project.historySeconds * 1000);
  const momentOf = (project: SimulatedProject, timestamp: unknown, lsn: unknown): number | undefined => {
    if (timestamp !== undefined && timestamp !== null && lsn !== undefined && lsn !== null) {
      throw new Refused(400, 'timestamp and LSN cannot be used together');
    }
    if (typeof lsn === 'string') return atLsn(project, lsn);
    if (typeof timestamp !== 'string') return undefined;
    const at = Date.parse(timestamp);
    if (Number.isNaN(at)) throw new Refused(400, 'invalid timestamp');
    if (at < earliest(project) || at > now() + 1000) throw new Refused(400, 'timestamp is outside of the window');
    return at;
  };
  const freeName = (project: SimulatedProject, name: string): void => {
    if (project.branches.some((branch) => branch.name === name)) throw new Refused(409, 'branch name already exists');
  };
  const assertPlace = (project: SimulatedProject): void => {
    if (project.branches.length >= project.branchesLimit) {
      throw new Refused(422, 'branches limit exceeded', 'BRANCHES_LIMIT_EXCEEDED');
    }
  };
  const makeBranch = (
    name: string,
    given: Partial<SimulatedBranch> & Pick<SimulatedBranch, 'history'>,
  ): SimulatedBranch => ({
    id: newId('br'),
    name,
    parentId: undefined,
    parentAt: undefined,
    default: false,
    protected: false,
    createdAt: now(),
    readyAt: now() + state.workMs,
    state: undefined,
    pending: undefined,
    restoreStatus: undefined,
    restoredFrom: undefined,
    restoredAs: undefined,
    restricted: [],
    computes: [],
    ...given,
  });

  const createBranch = (project: SimulatedProject, body: unknown): SimulatorResponse => {
    const wanted = isObject(body) && isObject(body['branch']) ? body['branch'] : {};
    const parent =
      wanted['parent_id'] === undefined
        ? (project.branches.find((branch) => branch.default) as SimulatedBranch)
        : branchIn(project, wanted['parent_id']);
    const at = momentOf(project, wanted['parent_timestamp'], wanted['parent_lsn']) ?? now();
    const name = typeof wanted['name'] === 'string' ? wanted['name'] : newId('branch');
    freeName(project, name);
    assertPlace(project);
    const endpoints = isObject(body) && Array.isArray(body['endpoints']) ? body['endpoints'] : [];
    const branch = makeBranch(name, {
      parentId: parent.id,
      parentAt: at,
      computes: endpoints.map(() => ({ id: newId('ep'), active: false })),
      history: [...parent.history.filter((entry) => entry.at <= at), { at: now(), content: contentAt(parent, at) }],
    });
    project.branches.push(branch);
    state.restores += 1;
    const operations = begin(project, branch.id, 'create_branch', ...endpoints.map(() => 'start_compute'));
    const secret = `npg_sim${branch.id.slice(-6)}secret`;
    return {
      status: 201,
      body: {
        branch: showBranch(project, branch),
        endpoints: branch.computes.map(({ id, active }) => showCompute(project, branch, id, active)),
        operations,
        roles: [
          {
            branch_id: branch.id,
            name: 'shop_owner',
            password: secret,
            created_at: iso(now()),
            updated_at: iso(now()),
          },
        ],
        databases: showDatabases(branch),
        connection_uris: [
          {
            connection_uri: `postgresql://shop_owner:${secret}@ep-sim.eu-central-1.aws.neon.tech/shop`,
            connection_parameters: {
              database: 'shop',
              password: secret,
              role: 'shop_owner',
              host: 'ep-sim.eu-central-1.aws.neon.tech',
              pooler_host: 'ep-sim-pooler.eu-central-1.aws.neon.tech',
            },
          },
        ],
      },
    };
  };
  const showDatabases = (branch: SimulatedBranch): object[] =>
    Object.keys(contentAt(branch, now())).map((name, index) => ({
      id: 1000 + index,
      branch_id: branch.id,
      name,
      owner_name: 'shop_owner',
      created_at: iso(branch.createdAt),
      updated_at: iso(branch.createdAt),
    }));

  const restoreBranch = (project: SimulatedProject, branch: SimulatedBranch, body: unknown): SimulatorResponse => {
    if (!isObject(body)) throw new Refused(400, 'the body is no object');
    const source = branchIn(project, body['source_branch_id']);
    const at = momentOf(project, body['source_timestamp'], body['source_lsn']);
    const keep = body['preserve_under_name'];
    const children = project.branches.filter(({ parentId }) => parentId === branch.id);
    if (source.id === branch.id && at === undefined) throw new Refused(400, 'a timestamp or LSN is required');
    if ((source.id === branch.id || children.length > 0) && (typeof keep !== 'string' || keep === '')) {
      throw new Refused(400, 'preserve_under_name is required');
    }
    if (branch.protected) throw new Refused(422, 'cannot restore a protected branch');
    if (branch.restricted.some(({ name, until }) => name === 'restore' && until > now())) {
      throw new Refused(422, 'restore from snapshot on target branch is still ongoing');
    }
    const content = contentAt(source, at ?? now());
    if (typeof keep === 'string' && keep !== '') {
      freeName(project, keep);
      assertPlace(project);
      const kept = makeBranch(keep, {
        parentId: branch.parentId,
        parentAt: branch.parentAt,
        createdAt: now(),
        readyAt: now(),
        history: [...branch.history, { at: now(), content: contentAt(branch, now()) }],
      });
      project.branches.push(kept);
      for (const child of children) child.parentId = kept.id;
      if (branch.parentId !== undefined) Object.assign(branch, { parentId: kept.id, parentAt: now() });
    }
    branch.history.push({ at: now(), content });
    state.restores += 1;
    branch.readyAt = now() + state.workMs;
    const operations = begin(project, branch.id, 'create_timeline', 'apply_config');
    return { status: 200, body: { branch: showBranch(project, branch), operations } };
  };

  const deleteBranch = (project: SimulatedProject, id: string): SimulatorResponse => {
    const branch = project.branches.find((candidate) => candidate.id === id);
    if (branch === undefined) return { status: 204 };
    if (branch.default || branch.parentId === undefined)
      throw new Refused(422, 'cannot delete a root or default branch');
    if (branch.protected) throw new Refused(422, 'cannot delete a protected branch');
    if (project.branches.some(({ parentId }) => parentId === id)) throw new Refused(422, 'the branch has children');
    const body = { branch: showBranch(project, branch), operations: begin(project, id, 'suspend_compute') };
    project.branches.splice(project.branches.indexOf(branch), 1);
    return { status: 200, body };
  };

  // --- settings ----------------------------------------------------------------------------------------------------

  const updateProject = (project: SimulatedProject, body: unknown): SimulatorResponse => {
    const wanted = isObject(body) && isObject(body['project']) ? body['project'] : undefined;
    const seconds = wanted?.['history_retention_seconds'];
    if (wanted === undefined || Object.keys(wanted).join() !== 'history_retention_seconds') {
      throw new Refused(400, 'this simulator updates the history window only');
    }
    if (!Number.isInteger(seconds) || (seconds as number) < 0 || (seconds as number) > 2_592_000) {
      throw new Refused(400, 'history_retention_seconds is out of range');
    }
    if ((seconds as number) > longestHistory(project.plan)) {
      throw new Refused(412, 'the plan does not allow such a history window');
    }
    // What is cut off is gone for every branch; a longer window does not bring it back.
    project.historyFrom = Math.max(earliest(project), now() - (seconds as number) * 1000);
    project.historySeconds = seconds as number;
    for (const branch of project.branches) {
      const first = branch.history.findLastIndex(({ at }) => at <= project.historyFrom);
      branch.history.splice(0, Math.max(0, first));
    }
    return {
      status: 200,
      body: { project: showProject(project), operations: begin(project, undefined, 'apply_config') },
    };
  };
  const updateBranch = (project: SimulatedProject, branch: SimulatedBranch, body: unknown): SimulatorResponse => {
    const wanted = isObject(body) && isObject(body['branch']) ? body['branch'] : undefined;
    if (typeof wanted?.['protected'] !== 'boolean' || Object.keys(wanted).length !== 1) {
      throw new Refused(400, 'this simulator updates the protection of branches only');
    }
    const others = project.branches.filter((one) => one.protected && one !== branch).length;
    if (wanted['protected'] && others >= protectedLimit(project.plan)) {
      throw new Refused(422, 'protected branches limit exceeded', 'BRANCHES_PROTECTED_LIMIT_EXCEEDED');
    }
    branch.protected = wanted['protected'];
    return { status: 200, body: { branch: showBranch(project, branch), operations: [] } };
  };
  const setSchedule = (project: SimulatedProject, branch: SimulatedBranch, body: unknown): SimulatorResponse => {
    if (branch.parentId !== undefined) throw new Refused(422, 'child branches have no schedule');
    if (project.plan.startsWith('free')) throw new Refused(412, 'the plan has no backup schedules');
    const items = isObject(body) && Array.isArray(body['schedule']) ? body['schedule'] : undefined;
    if (items === undefined) throw new Refused(400, 'the schedule is missing');
    const isNumber = (value: unknown, from: number, to: number): boolean =>
      Number.isInteger(value) && (value as number) >= from && (value as number) <= to;
    const lines = items.map((item): Record<string, unknown> => {
      const days = { daily: 0, weekly: 7, monthly: 31 }[isObject(item) ? String(item['frequency']) : ''];
      if (!isObject(item) || days === undefined) throw new Refused(400, 'the frequency is invalid');
      if (!isNumber(item['hour'], 0, 23)) throw new Refused(400, 'the hour is invalid');
      if (days === 0 ? item['day'] !== undefined : !isNumber(item['day'], 1, days)) {
        throw new Refused(400, 'the day is invalid');
      }
      const retention = item['retention_seconds'] ?? 3_024_000;
      if (!isNumber(retention, 3600, 3_024_000)) throw new Refused(400, 'the retention is invalid');
      return { ...item, retention_seconds: retention };
    });
    project.schedules.set(branch.id, lines);
    return { status: 200, body: {} };
  };

  // --- snapshots ---------------------------------------------------------------------------------------------------

  const snapshotIn = (project: SimulatedProject, id: string): SimulatedSnapshot => {
    const found = project.snapshots.find((snapshot) => snapshot.id === id);
    if (found === undefined) throw new Refused(404, 'snapshot not found');
    return found;
  };
  const takeSnapshot = (
    project: SimulatedProject,
    branch: SimulatedBranch,
    { url, text }: SimulatorRequest,
  ): SimulatorResponse => {
    if (text !== '') throw new Refused(400, 'this call takes no body');
    const query = url.searchParams;
    if (branch.parentId !== undefined) throw new Refused(422, 'snapshots can be taken of root branches only');
    const at = momentOf(project, query.get('timestamp') ?? undefined, query.get('lsn') ?? undefined) ?? now();
    const name = query.get('name') ?? `${branch.name} at ${iso(at)}`;
    if (project.snapshots.some((snapshot) => snapshot.name === name)) {
      throw new Refused(409, 'snapshot name already exists');
    }
    if (project.snapshots.filter(({ manual }) => manual).length >= project.snapshotsLimit) {
      throw new Refused(422, 'snapshots limit exceeded', 'SNAPSHOTS_LIMIT_EXCEEDED');
    }
    const expires = query.get('expires_at');
    const content = contentAt(branch, at);
    const snapshot: SimulatedSnapshot = {
      id: newId('snap'),
      name,
      branchId: branch.id,
      at,
      createdAt: now(),
      expiresAt: expires === null ? undefined : Date.parse(expires),
      manual: true,
      fullSize: undefined,
      diffSize: undefined,
      content,
    };
    project.snapshots.push(snapshot);
    const operations = begin(project, branch.id, 'create_timeline');
    return { status: 200, body: { snapshot: showSnapshot(project, snapshot), operations } };
  };
  const restoreSnapshot = (project: SimulatedProject, id: string, body: unknown): SimulatorResponse => {
    const snapshot = snapshotIn(project, id);
    const given = isObject(body) ? body : {};
    const target = branchIn(project, given['target_branch_id'] ?? snapshot.branchId);
    const finalize = given['finalize_restore'] === true;
    assertPlace(project);
    if (finalize && target.protected) throw new Refused(422, 'cannot replace a protected branch');
    const name = typeof given['name'] === 'string' ? given['name'] : `${target.name} restored ${iso(now())}`;
    if (!finalize) freeName(project, name);
    const restored = makeBranch(name, {
      restoreStatus: finalize ? 'finalized' : 'restored',
      restoredFrom: id,
      restoredAs: target.id,
      history: [{ at: now(), content: structuredClone(snapshot.content) }],
    });
    project.branches.push(restored);
    state.restores += 1;
    const actions = ['create_branch'];
    if (finalize) {
      restored.name = target.name;
      restored.default = target.default;
      restored.computes = target.computes;
      restored.restricted = [
        {
          name: 'restore',
          reason: 'restore from snapshot on target branch is still ongoing',
          until: now() + SNAPSHOT_LOCK_MS,
        },
      ];
      Object.assign(target, { name: `${target.name} (old) ${iso(now())}`, default: false, computes: [] });
      actions.push('apply_config');
    }
    const operations = begin(project, restored.id, ...actions);
    return { status: 200, body: { branch: showBranch(project, restored), operations } };
  };

  // --- routes ------------------------------------------------------------------------------------------------------

  const paged = <T>(all: readonly T[], { url }: SimulatorRequest): { items: T[]; next: string | undefined } => {
    const start = Number(url.searchParams.get('cursor') ?? 0);
    const end = start + Math.min(state.pageSize, Number(url.searchParams.get('limit') ?? state.pageSize));
    return { items: all.slice(start, end), next: end < all.length ? String(end) : undefined };
  };

  const organizations = (): SimulatorResponse => {
    const at = iso(now() - 100 * DAY);
    const one = { id: ORGANIZATION, name: 'Sandbox', handle: 'sandbox', plan: 'launch', managed_by: 'console' };
    return { status: 200, body: { organizations: [{ ...one, created_at: at, updated_at: at }] } };
  };
  const listProjects = (request: SimulatorRequest): SimulatorResponse => {
    const organization = request.url.searchParams.get('org_id');
    if (state.ofOrganization && organization === null) throw new Refused(400, 'org_id is required');
    // The cursor of a page stands for its end, that of the last one too.
    const { items } = paged(projects, request);
    const end = Number(request.url.searchParams.get('cursor') ?? 0) + items.length;
    const shown = items.map((project): object => ({
      id: project.id,
      platform_id: 'aws',
      region_id: 'aws-eu-central-1',
      name: project.name,
      provisioner: 'k8s-neonvm',
      pg_version: 17,
      proxy_host: 'eu-central-1.aws.neon.tech',
      branch_logical_size_limit: 204_800,
      branch_logical_size_limit_bytes: 214_748_364_800,
      store_passwords: true,
      active_time: 4000,
      cpu_used_sec: 1000,
      creation_source: 'console',
      created_at: iso(project.createdAt),
      updated_at: iso(project.createdAt),
      owner_id: ORGANIZATION,
      history_retention_seconds: project.historySeconds,
    }));
    return {
      status: 200,
      body: { projects: shown, pagination: { cursor: String(end) }, applications: {}, integrations: {} },
    };
  };

  const ofBranch = (
    request: SimulatorRequest,
    project: SimulatedProject,
    [id = '', part]: readonly string[],
  ): SimulatorResponse => {
    const { method, json, url } = request;
    if (method === 'DELETE' && part === undefined) {
      assertUnlocked(project);
      return deleteBranch(project, id);
    }
    const branch = branchIn(project, id);
    const call = `${method} ${part ?? ''}`.trim();
    if (call === 'GET')
      return { status: 200, body: { branch: showBranch(project, branch), annotation: annotation(id) } };
    if (call === 'GET databases') return { status: 200, body: { databases: showDatabases(branch) } };
    if (call === 'GET endpoints') {
      const endpoints = branch.computes.map((one) => showCompute(project, branch, one.id, one.active));
      return { status: 200, body: { endpoints } };
    }
    if (call === 'GET backup_schedule') {
      if (branch.parentId !== undefined) throw new Refused(422, 'child branches have no schedule');
      return { status: 200, body: { schedule: project.schedules.get(id) ?? [] } };
    }
    if (call === 'GET compare_schema') {
      const database = url.searchParams.get('db_name') ?? '';
      const query = url.searchParams;
      const base = query.get('base_timestamp') ?? undefined;
      const at = momentOf(project, base, query.get('base_lsn') ?? undefined) ?? now();
      const tables = (content: NeonContent): string[] => Object.keys(content[database] ?? {});
      const [before, after] = [tables(contentAt(branch, at)), tables(contentAt(branch, now()))];
      const lines = [
        ...before.filter((table) => !after.includes(table)).map((table) => `-CREATE TABLE ${table} ();`),
        ...after.filter((table) => !before.includes(table)).map((table) => `+CREATE TABLE ${table} ();`),
      ];
      return { status: 200, body: { diff: ['--- a', '+++ b', ...lines].join('\n') } };
    }
    assertUnlocked(project);
    if (call === 'PATCH') return updateBranch(project, branch, json);
    if (call === 'PUT backup_schedule') return setSchedule(project, branch, json);
    if (call === 'POST snapshot') return takeSnapshot(project, branch, request);
    if (call === 'POST restore') return restoreBranch(project, branch, json);
    throw new Refused(404, 'this path is not simulated');
  };

  const route = (
    method: string,
    project: SimulatedProject,
    collection: string | undefined,
    request: SimulatorRequest,
    json: unknown,
    rest: readonly string[] = [],
  ): SimulatorResponse => {
    const [id, ...more] = rest;
    const call = `${method} ${collection ?? ''}`.trim();
    if (id !== undefined && collection === 'branches') return ofBranch(request, project, rest);
    if (id !== undefined && collection === 'operations' && method === 'GET') {
      const operation = project.operations.find((candidate) => candidate.id === id);
      if (operation === undefined) throw new Refused(404, 'operation not found');
      return { status: 200, body: { operation: showOperation(project, operation) } };
    }
    if (id !== undefined && collection === 'snapshots') {
      assertUnlocked(project);
      if (method === 'DELETE' && more.length === 0) {
        const snapshot = snapshotIn(project, id);
        project.snapshots.splice(project.snapshots.indexOf(snapshot), 1);
        return { status: 202, body: { operations: begin(project, snapshot.branchId, 'delete_timeline') } };
      }
      if (method === 'POST' && more[0] === 'restore') return restoreSnapshot(project, id, json);
    }
    if (id !== undefined) throw new Refused(404, 'this path is not simulated');
    if (call === 'GET') return { status: 200, body: { project: showProject(project) } };
    if (call === 'PATCH') {
      assertUnlocked(project);
      return updateProject(project, json);
    }
    if (call === 'GET branches') {
      const { items, next } = paged(project.branches, request);
      const branches = items.map((branch) => showBranch(project, branch));
      return {
        status: 200,
        body: { branches, annotations: {}, pagination: next === undefined ? {} : { next, sort_by: 'updated_at' } },
      };
    }
    if (call === 'POST branches') {
      assertUnlocked(project);
      return createBranch(project, json);
    }
    if (call === 'GET snapshots') {
      return { status: 200, body: { snapshots: project.snapshots.map((one) => showSnapshot(project, one)) } };
    }
    if (call === 'GET operations') {
      const { items, next } = paged(project.operations, request);
      const operations = items.map((operation) => showOperation(project, operation));
      return { status: 200, body: { operations, ...(next === undefined ? {} : { pagination: { cursor: next } }) } };
    }
    throw new Refused(404, 'this path is not simulated');
  };

  return {
    provider: 'neon',
    state,
    matches: ({ url }) => /^\/api\/v2\/(projects(\/|$)|users\/me\/organizations$)/.test(url.pathname),
    handle(request) {
      try {
        if (!/^Bearer \S+$/.test(request.headers['authorization'] ?? '') || state.unauthenticated) {
          throw new Refused(401, 'supplied credentials do not pass authentication');
        }
        const { method, url, json } = request;
        for (const [where, { status, code, message }] of state.refusals) {
          const [verb = '', part = ''] = where.split(' ');
          if (verb === method && url.pathname.includes(part)) throw new Refused(status, message, code);
        }
        if (url.pathname.endsWith('/users/me/organizations') && method === 'GET') return organizations();
        if (url.pathname === '/api/v2/projects' && method === 'GET') return listProjects(request);
        const parts = url.pathname.split('/').slice(4);
        const strange = parts.find((part) => !/^[a-z0-9_-]{1,60}$/.test(part));
        if (strange !== undefined || parts[0] === undefined) throw new Refused(404, 'this path is not simulated');
        const [id, collection, ...rest] = parts;
        return route(method, find(id), collection, request, json, rest);
      } catch (cause) {
        if (cause instanceof Refused) return cause.response;
        throw cause;
      }
    },
  };
}

/** Seconds of history that a plan has at most. */
function longestHistory(plan: string): number {
  if (plan.startsWith('free')) return 21_600;
  return plan.startsWith('launch') ? 604_800 : 2_592_000;
}

function protectedLimit(plan: string): number {
  if (plan.startsWith('free')) return 0;
  return plan.startsWith('launch') ? 2 : 5;
}

function annotation(id: string): object {
  return { object: { type: 'console/branch', id }, value: {} };
}

function size(content: NeonContent): number {
  return Object.values(content)
    .flatMap((tables) => Object.values(tables))
    .reduce((sum, rows) => sum + rows * 100, 0);
}

function sampleFleet(now: number): SimulatedProject[] {
  const branch = (
    given: Pick<SimulatedBranch, 'id' | 'name' | 'history'> & Partial<SimulatedBranch>,
  ): SimulatedBranch => ({
    parentId: undefined,
    parentAt: undefined,
    default: false,
    protected: false,
    createdAt: now - 90 * DAY,
    readyAt: now - 90 * DAY,
    state: undefined,
    pending: undefined,
    restoreStatus: undefined,
    restoredFrom: undefined,
    restoredAs: undefined,
    restricted: [],
    computes: [],
    ...given,
  });
  const lastWeek: NeonContent = { shop: { orders: 11_200, customers: 800 }, audit: { events: 300 } };
  const yesterday: NeonContent = { shop: { orders: 12_000, customers: 850 }, audit: { events: 310 } };
  const main = [
    { at: now - 90 * DAY, content: lastWeek },
    { at: now - 2 * DAY, content: yesterday },
    // Someone dropped the customers an hour ago.
    { at: now - HOUR, content: { shop: { orders: 12_450 }, audit: { events: 333 } } satisfies NeonContent },
  ];
  const snapshot = (
    given: Pick<SimulatedSnapshot, 'id' | 'name' | 'branchId' | 'at' | 'content'> & Partial<SimulatedSnapshot>,
  ): SimulatedSnapshot => ({
    createdAt: given.at,
    expiresAt: undefined,
    manual: false,
    fullSize: 31_400_000,
    diffSize: 400_000,
    ...given,
  });
  const project = (
    given: Pick<SimulatedProject, 'id' | 'name' | 'branches'> & Partial<SimulatedProject>,
  ): SimulatedProject => ({
    historySeconds: 604_800,
    historyFrom: 0,
    createdAt: now - 90 * DAY,
    plan: 'launch_v3',
    branchesLimit: 5000,
    snapshotsLimit: 100,
    permission: undefined,
    maintenanceAt: undefined,
    snapshots: [],
    operations: [],
    schedules: new Map(),
    ...given,
  });
  return [
    project({
      id: NEON_SANDBOX.project,
      name: 'shop',
      branches: [
        branch({
          id: NEON_SANDBOX.main,
          name: 'main',
          default: true,
          computes: [{ id: 'ep-cold-lake-100001', active: true }],
          history: main,
        }),
        branch({
          id: 'br-lively-dev-200001',
          name: 'dev',
          parentId: NEON_SANDBOX.main,
          parentAt: now - 10 * DAY,
          createdAt: now - 10 * DAY,
          readyAt: now - 10 * DAY,
          history: [{ at: now - 10 * DAY, content: lastWeek }],
        }),
        branch({
          id: NEON_SANDBOX.drill,
          name: 'drill-copy',
          parentId: 'br-lively-dev-200001',
          parentAt: now - DAY,
          createdAt: now - DAY,
          readyAt: now - DAY + 2000,
          history: [{ at: now - DAY, content: lastWeek }],
        }),
        branch({
          id: 'br-vaulted-live-300001',
          name: 'live',
          protected: true,
          history: [{ at: now - 60 * DAY, content: { shop: { orders: 90 } } }],
        }),
      ],
      snapshots: [
        snapshot({
          id: 'snap-early-sun-500001',
          name: 'daily 1',
          branchId: NEON_SANDBOX.main,
          at: now - 3 * DAY,
          expiresAt: now + 4 * DAY,
          content: lastWeek,
        }),
        snapshot({
          id: 'snap-early-sun-500002',
          name: 'before the October release',
          branchId: NEON_SANDBOX.main,
          at: now - DAY,
          manual: true,
          diffSize: undefined,
          content: yesterday,
        }),
        snapshot({
          id: 'snap-early-sun-500003',
          name: 'live, once',
          branchId: 'br-vaulted-live-300001',
          at: now - 20 * DAY,
          manual: true,
          fullSize: undefined,
          diffSize: undefined,
          content: { shop: { orders: 70 } },
        }),
      ],
      operations: [
        {
          id: '7a9b1c2d-0000-4000-8000-000000000001',
          action: 'create_branch',
          branchId: NEON_SANDBOX.drill,
          createdAt: now - DAY,
          startsAt: now - DAY,
          endsAt: now - DAY + 2000,
          outcome: 'finished',
          status: undefined,
        },
      ],
      schedules: new Map([[NEON_SANDBOX.main, [{ frequency: 'daily', hour: 3, retention_seconds: 604_800 }]]]),
    }),
    // Badly protected: no history, no snapshot, no schedule, on the plan that has least of all.
    project({
      id: 'quiet-night-448201',
      name: 'side-project',
      historySeconds: 0,
      plan: 'free_v3',
      branchesLimit: 10,
      snapshotsLimit: 1,
      branches: [
        branch({
          id: 'br-lonely-main-600001',
          name: 'main',
          default: true,
          history: [{ at: now - 30 * DAY, content: { app: { notes: 12 } } }],
        }),
      ],
    }),
  ];
}
