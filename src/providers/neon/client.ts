import type { EntityBase } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import { isObject, type JsonObject } from '../../core/json.ts';
import type { Runtime, SecretRef } from '../../core/runtime.ts';
import { cleanText, didYouMean } from '../../core/text.ts';
import { listOf, textOf, type Wire } from '../../core/wire.ts';
import { bearerToken, type RestCall, type RestMethod, type RestSend, restClient } from '../rest.ts';
import {
  type About,
  type Branch,
  checkId,
  checkOperation,
  type NeonOperation,
  type Project,
  refusalError,
  type ScheduleItem,
  type Snapshot,
  toBranch,
  toOperation,
  toProject,
  toSchedule,
  toSnapshot,
} from './map.ts';

const ORIGIN = 'https://console.neon.tech';
const PAGE = 1000;
const MAX_PAGES = 50;
const RECENT_OPERATIONS = 100;
/** A locked project refuses before any work; what the vendor's own program does about it. */
const LOCKED_TRIES = 5;
const LOCKED_PAUSE_MS = 3000;

/** What names the project, the branch and the account. */
export interface Address {
  readonly project_id: string;
  readonly branch?: string | undefined;
  readonly api_key?: SecretRef | undefined;
}

/** What a call that changes something answered with. */
export interface Change {
  readonly branch: Branch | undefined;
  readonly operations: readonly NeonOperation[];
}

/** A database of a branch and the role that it belongs to. */
export interface Owned {
  readonly name: string;
  readonly owner: string;
}

/** A moment in the history of a branch. */
export type Moment = { timestamp: string } | { lsn: string };

function openApi(
  { api_key, endpoint }: Pick<Address, 'api_key'> & Pick<EntityBase, 'endpoint'>,
  runtime: Runtime,
): { base: string; send: RestSend<About> } {
  const base = `${(endpoint ?? ORIGIN).replace(/\/+$/, '')}/api/v2`;
  const send = restClient<About>({
    title: 'Neon',
    base,
    runtime,
    headers: bearerToken(runtime, api_key, { parameter: 'api_key', variable: 'NEON_API_KEY' }),
    secrets: /^(password|connection_uri|uri)$/,
    refuse: refusalError,
  });
  return { base, send };
}

/** What a key can see beside the projects that entities name. */
export interface Account {
  /** Ids of the organizations that the key belongs to. */
  organizations(signal: AbortSignal): Promise<string[]>;
  /** Ids of the projects of one organization, or of none; those that Neon could not show in time stand apart. */
  projects(organization: string | undefined, signal: AbortSignal): Promise<{ ids: string[]; unavailable: string[] }>;
}

const PROJECTS_PAGE = 400;

/** Gives the calls that are about no single project. */
export function accountOf(address: Pick<Address, 'api_key'> & Pick<EntityBase, 'endpoint'>, runtime: Runtime): Account {
  const { send } = openApi(address, runtime);
  const isId = (id: unknown): id is string => typeof id === 'string' && /^[a-z0-9-]{1,60}$/.test(id);
  return {
    async organizations(signal) {
      const about: About = { what: 'the list of organizations' };
      const { body } = await send('GET', '/users/me/organizations', { about, signal });
      return listOf(body['organizations'])
        .map(({ id }) => id)
        .filter(isId);
    },
    async projects(organization, signal) {
      const [ids, unavailable]: [string[], string[]] = [[], []];
      let cursor: string | undefined;
      for (let page = 0; page < MAX_PAGES; page += 1) {
        const query = {
          limit: String(PROJECTS_PAGE),
          ...(organization === undefined ? {} : { org_id: organization }),
          ...(cursor === undefined ? {} : { cursor }),
        };
        const { body } = await send('GET', '/projects', { about: { what: 'the list of projects' }, query, signal });
        const found = listOf(body['projects'])
          .map(({ id }) => id)
          .filter(isId);
        ids.push(...found);
        const missing = body['unavailable_project_ids'];
        if (Array.isArray(missing)) unavailable.push(...missing.filter(isId));
        const next = isObject(body['pagination']) ? textOf(body['pagination']['cursor']) : undefined;
        // The last page names a cursor too: what follows it is empty.
        if (next === undefined || next === cursor || found.length === 0) return { ids, unavailable };
        cursor = next;
      }
      throw new HoldfastError('PROVIDER_UNAVAILABLE', `Neon gave more than ${MAX_PAGES} pages of one list`);
    },
  };
}

// One project takes one change at a time; callers of this process wait for their turn.
const turns = new Map<string, Promise<unknown>>();

/** The calls of the Neon API that backups of one project need. */
export class NeonClient {
  readonly project_id: string;
  readonly #send: RestSend<About>;
  readonly #runtime: Runtime;
  readonly #branch: string | undefined;
  readonly #turn: string;

  constructor(entity: Address & Pick<EntityBase, 'endpoint'>, runtime: Runtime) {
    this.project_id = checkId(entity.project_id, 'project_id');
    this.#branch = entity.branch;
    this.#runtime = runtime;
    const { base, send } = openApi(entity, runtime);
    this.#turn = `${base} ${this.project_id}`;
    this.#send = send;
  }

  async project(signal: AbortSignal): Promise<Project> {
    const wire = await this.#get('', { what: 'the project' }, signal);
    return toProject(isObject(wire['project']) ? wire['project'] : {});
  }

  /** Lists all branches. */
  async branches(signal: AbortSignal): Promise<Branch[]> {
    const found: Branch[] = [];
    let cursor: string | undefined;
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const query = { limit: String(PAGE), ...(cursor === undefined ? {} : { cursor }) };
      const wire = await this.#get('/branches', { what: 'the list of branches' }, signal, query);
      found.push(...listOf(wire['branches']).map(toBranch));
      const next = isObject(wire['pagination']) ? textOf(wire['pagination']['next']) : undefined;
      if (next === undefined || next === cursor) return found;
      cursor = next;
    }
    throw new HoldfastError('PROVIDER_UNAVAILABLE', `Neon gave more than ${MAX_PAGES} pages of one list`);
  }

  /**
   * Gives the branch that the entity means: the one of that name or id, else the default one. It is looked up every
   * time: restoring a snapshot in place gives the name to another branch.
   * @throws {HoldfastError} RESOURCE_NOT_FOUND
   */
  own(branches: readonly Branch[]): Branch {
    const wanted = this.#branch;
    const found =
      wanted === undefined
        ? branches.find((branch) => branch.default)
        : (branches.find(({ name }) => name === wanted) ?? branches.find(({ id }) => id === wanted));
    if (found !== undefined) return found;
    throw new HoldfastError(
      'RESOURCE_NOT_FOUND',
      wanted === undefined
        ? 'the project has no default branch'
        : `the project has no branch '${cleanText(wanted, 60)}'`,
      {
        hint: didYouMean(
          wanted ?? '',
          branches.map(({ name }) => cleanText(name, 60)),
        ),
      },
    );
  }

  /** Whether the entity names its branch by an id, which a restored snapshot does not keep. */
  namesById(branch: Branch): boolean {
    return this.#branch === branch.id && branch.name !== branch.id;
  }

  async branch(id: string, signal: AbortSignal): Promise<Branch> {
    const wire = await this.#get(`/branches/${checkId(id, 'branch_id')}`, { what: 'the branch' }, signal);
    return toBranch(isObject(wire['branch']) ? wire['branch'] : {});
  }

  /** The names of the databases of a branch. */
  async databases(id: string, signal: AbortSignal): Promise<string[]> {
    const path = `/branches/${checkId(id, 'branch_id')}/databases`;
    const wire = await this.#get(path, { what: 'the databases' }, signal);
    return listOf(wire['databases']).flatMap(({ name }) => (typeof name === 'string' ? [name] : []));
  }

  /** The computes of a branch, and how many of them run. */
  async computes(id: string, signal: AbortSignal): Promise<{ all: number; active: number }> {
    const path = `/branches/${checkId(id, 'branch_id')}/endpoints`;
    const wire = await this.#get(path, { what: 'the computes' }, signal);
    const all = listOf(wire['endpoints']);
    return { all: all.length, active: all.filter((one) => one['current_state'] === 'active').length };
  }

  /**
   * What one needs to know to connect to a branch, the password left out: the host of the compute that takes writes, and
   * the databases with the roles that own them. Without such a compute there is no host.
   */
  async connection(id: string, signal: AbortSignal): Promise<{ host: string | undefined; databases: Owned[] }> {
    const path = `/branches/${checkId(id, 'branch_id')}`;
    const [endpoints, databases] = await Promise.all([
      this.#get(`${path}/endpoints`, { what: 'the computes' }, signal),
      this.#get(`${path}/databases`, { what: 'the databases' }, signal),
    ]);
    const compute = listOf(endpoints['endpoints']).find((one) => one['type'] === 'read_write');
    return {
      host: textOf(compute?.['host']),
      databases: listOf(databases['databases']).flatMap(({ name, owner_name }) =>
        typeof name === 'string' && typeof owner_name === 'string' ? [{ name, owner: owner_name }] : [],
      ),
    };
  }

  /** How many lines of the schema of a database are others now than at a moment of the same branch. */
  async schemaChanges(id: string, database: string, moment: Moment, signal: AbortSignal): Promise<number> {
    const path = `/branches/${checkId(id, 'branch_id')}/compare_schema`;
    const query = {
      db_name: database,
      base_branch_id: id,
      ...('lsn' in moment ? { base_lsn: moment.lsn } : { base_timestamp: moment.timestamp }),
    };
    const wire = await this.#get(path, { what: 'the comparison of schemas' }, signal, query);
    return (textOf(wire['diff']) ?? '').split('\n').filter((line) => /^[+-](?![+-]{2})/.test(line)).length;
  }

  async snapshots(signal: AbortSignal): Promise<Snapshot[]> {
    const wire = await this.#get('/snapshots', { what: 'the list of snapshots' }, signal);
    const at = ({ created_at }: Snapshot): number => Date.parse(created_at ?? '') || 0;
    return listOf(wire['snapshots'])
      .map(toSnapshot)
      .sort((a, b) => at(b) - at(a) || (a.id < b.id ? 1 : -1));
  }

  async schedule(id: string, signal: AbortSignal): Promise<ScheduleItem[]> {
    const path = `/branches/${checkId(id, 'branch_id')}/backup_schedule`;
    return toSchedule(await this.#get(path, { what: 'the backup schedule' }, signal));
  }

  /** The newest operations of the project, newest first. */
  async operations(signal: AbortSignal): Promise<NeonOperation[]> {
    const query = { limit: String(RECENT_OPERATIONS) };
    const wire = await this.#get('/operations', { what: 'the list of operations' }, signal, query);
    return listOf(wire['operations']).map(toOperation);
  }

  async operation(id: string, signal: AbortSignal): Promise<NeonOperation> {
    const wire = await this.#get(`/operations/${checkOperation(id)}`, { what: 'the operation' }, signal);
    return toOperation(isObject(wire['operation']) ? wire['operation'] : {});
  }

  /** Takes a snapshot of a branch. Its settings travel in the query: a body is not part of this call. Sent once. */
  async takeSnapshot(
    branch: string,
    settings: { name: string; timestamp?: string; lsn?: string; expires_at?: string },
    signal: AbortSignal,
  ): Promise<{ snapshot: Snapshot; operations: readonly NeonOperation[] }> {
    const path = `/branches/${checkId(branch, 'branch_id')}/snapshot`;
    const wire = await this.#write('POST', path, { about: { what: 'the snapshot' }, query: settings, signal });
    const snapshot = toSnapshot(isObject(wire['snapshot']) ? wire['snapshot'] : {});
    if (snapshot.id === '') throw unnamed('the snapshot');
    return { snapshot, operations: listOf(wire['operations']).map(toOperation) };
  }

  /** Deletes a snapshot for good. Sent once. */
  async deleteSnapshot(id: string, signal: AbortSignal): Promise<Change> {
    const about: About = { what: 'the deletion of the snapshot', missing: 'SNAPSHOT_NOT_FOUND' };
    return toChange(await this.#write('DELETE', `/snapshots/${checkId(id, 'snapshot_id')}`, { about, signal }));
  }

  /** Makes a branch from a moment of another one, or from its present state, with a compute. Sent once. */
  async createBranch(
    settings: { name: string; parent: string; moment: Moment | undefined },
    signal: AbortSignal,
  ): Promise<Change> {
    const { name, parent, moment } = settings;
    const at: JsonObject =
      moment === undefined ? {} : 'lsn' in moment ? { parent_lsn: moment.lsn } : { parent_timestamp: moment.timestamp };
    const body = {
      branch: { name, parent_id: checkId(parent, 'branch_id'), ...at },
      endpoints: [{ type: 'read_write' }],
    };
    return named(await this.#write('POST', '/branches', { about: { what: 'the new branch' }, body, signal }));
  }

  /** Replaces what a branch holds; its present state is always kept, under a name. Sent once. */
  async restoreBranch(
    id: string,
    settings: { source: string; moment: Moment | undefined; keep_as: string },
    signal: AbortSignal,
  ): Promise<Change> {
    const { source, moment, keep_as } = settings;
    if (keep_as === '') throw new HoldfastError('INTERNAL', 'a restore in place that keeps nothing');
    const at: JsonObject =
      moment === undefined ? {} : 'lsn' in moment ? { source_lsn: moment.lsn } : { source_timestamp: moment.timestamp };
    const body = { source_branch_id: checkId(source, 'source_branch_id'), ...at, preserve_under_name: keep_as };
    const path = `/branches/${checkId(id, 'branch_id')}/restore`;
    return named(await this.#write('POST', path, { about: { what: 'the restore' }, body, signal }));
  }

  /**
   * Restores a snapshot to a new branch, and with `finalize` puts that in the place of the target. The target is always
   * sent: without it the snapshot's source would be meant, which may be a branch that was replaced long ago. Sent once.
   */
  async restoreSnapshot(
    id: string,
    settings: { target: string; finalize: boolean; name?: string },
    signal: AbortSignal,
  ): Promise<Change> {
    const { target, finalize, name } = settings;
    const body = {
      ...(name === undefined ? {} : { name }),
      target_branch_id: checkId(target, 'target_branch_id'),
      finalize_restore: finalize,
    };
    const about: About = { what: 'the restore of the snapshot', missing: 'SNAPSHOT_NOT_FOUND' };
    const path = `/snapshots/${checkId(id, 'snapshot_id')}/restore`;
    return named(await this.#write('POST', path, { about, body, signal }));
  }

  /** Deletes a branch; without `hard` it can be brought back for seven days. Sent once. */
  async deleteBranch(id: string, hard: boolean, signal: AbortSignal): Promise<Change> {
    const path = `/branches/${checkId(id, 'branch_id')}`;
    const about: About = { what: 'the deletion of the branch' };
    return toChange(
      await this.#write('DELETE', path, { about, ...(hard ? { query: { hard_delete: 'true' } } : {}), signal }),
    );
  }

  /** Sets how long the history of all branches is kept, in seconds, and nothing else of the project. Sent once. */
  async setHistory(seconds: number, signal: AbortSignal): Promise<Change> {
    const body = { project: { history_retention_seconds: seconds } };
    return toChange(await this.#write('PATCH', '', { about: { what: 'the history window' }, body, signal }));
  }

  /** Protects a branch, or ends that. Sent once. */
  async protect(id: string, isProtected: boolean, signal: AbortSignal): Promise<Change> {
    const path = `/branches/${checkId(id, 'branch_id')}`;
    const body = { branch: { protected: isProtected } };
    return toChange(
      await this.#write('PATCH', path, { about: { what: 'the protection of the branch' }, body, signal }),
    );
  }

  /** Replaces the whole snapshot schedule of a branch; an empty one switches it off. Sent once. */
  async setSchedule(id: string, schedule: readonly JsonObject[], signal: AbortSignal): Promise<Change> {
    const path = `/branches/${checkId(id, 'branch_id')}/backup_schedule`;
    const body = { schedule: [...schedule] };
    return toChange(await this.#write('PUT', path, { about: { what: 'the backup schedule' }, body, signal }));
  }

  #get(path: string, about: About, signal: AbortSignal, query?: Record<string, string>): Promise<Wire> {
    return this.#unlocked('GET', path, { about, query, signal });
  }

  #write(method: Exclude<RestMethod, 'GET'>, path: string, call: RestCall<About>): Promise<Wire> {
    const before = turns.get(this.#turn) ?? Promise.resolve();
    const work = before.then(() => {
      call.signal.throwIfAborted();
      return this.#unlocked(method, path, call);
    });
    const settled = work
      .catch(() => undefined)
      .then(() => {
        if (turns.get(this.#turn) === settled) turns.delete(this.#turn);
      });
    turns.set(this.#turn, settled);
    return work;
  }

  /** A locked project has refused before it did anything: that alone may be asked again, whatever the call. */
  async #unlocked(method: RestMethod, path: string, call: RestCall<About>): Promise<Wire> {
    for (let tries = 1; ; tries += 1) {
      try {
        return (await this.#send(method, `/projects/${this.project_id}${path}`, call)).body;
      } catch (cause) {
        const isLocked = cause instanceof HoldfastError && cause.provider?.status === 423;
        if (!isLocked || tries >= LOCKED_TRIES) throw cause;
        await this.#runtime.sleep(LOCKED_PAUSE_MS, call.signal);
      }
    }
  }
}

function toChange(wire: Wire): Change {
  const branch = isObject(wire['branch']) ? toBranch(wire['branch']) : undefined;
  return {
    branch: branch === undefined || branch.id === '' ? undefined : branch,
    operations: listOf(wire['operations']).map(toOperation),
  };
}

function named(wire: Wire): Change {
  const change = toChange(wire);
  if (change.branch === undefined) throw unnamed('the restore');
  return change;
}

function unnamed(what: string): HoldfastError {
  return new HoldfastError('PROVIDER_UNAVAILABLE', `Neon took ${what} without naming what it makes`, {
    details: { outcome: 'unknown' },
  });
}
