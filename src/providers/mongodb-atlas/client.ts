import { HoldfastError } from '../../core/errors.ts';
import { isObject, type JsonObject } from '../../core/json.ts';
import type { Runtime } from '../../core/runtime.ts';
import { cleanText, identifierText } from '../../core/text.ts';
import { isCode, unless } from '../rest.ts';
import { type AtlasCredentials, type Auth, openAuth } from './auth.ts';
import {
  type AtlasJob,
  type AtlasSchedule,
  type AtlasSnapshot,
  type ClusterRef,
  type Deployment,
  type Frequency,
  goneDeployment,
  type RestoredCollection,
  refusalError,
  type Subject,
  toCollectionJob,
  toDeployment,
  toFlexDeployment,
  toFlexJob,
  toFlexSnapshot,
  toJob,
  toRestoredCollection,
  toSchedule,
  toSnapshot,
} from './map.ts';

/** Atlas serves each resource in its newest version not later than this date. */
const MEDIA_TYPE = 'application/vnd.atlas.2025-03-12+json';
export const ATLAS_ORIGIN = 'https://cloud.mongodb.com';
const PAGE = 500;
const MAX_PAGES = 200;
const OBJECT_ID = /^[a-f0-9]{24}$/;
const CLUSTER_NAME = /^[a-zA-Z0-9][a-zA-Z0-9-]{0,63}$/;

export interface AtlasSettings extends AtlasCredentials {
  readonly base: string;
  readonly cluster: string;
  readonly project: string;
}

export interface ClusterSwitches {
  readonly backupEnabled?: boolean;
  readonly pitEnabled?: boolean;
  readonly terminationProtectionEnabled?: boolean;
}

export interface ScheduleUpdate {
  readonly policy_id: string | undefined;
  readonly items: readonly Frequency[];
  readonly referenceHourOfDay?: number;
  readonly referenceMinuteOfHour?: number;
  readonly restoreWindowDays?: number;
}

type Wire = Record<string, unknown>;

interface Call {
  readonly subject: Subject;
  readonly role: string;
  readonly query?: Record<string, string>;
  readonly signal: AbortSignal;
}

/** Checks an id before it becomes part of a path. */
export function objectId(value: string, name: string): string {
  if (OBJECT_ID.test(value)) return value;
  throw new HoldfastError('INVALID_PARAMETER', `${name} '${value.slice(0, 40)}' is not an Atlas id`, {
    hint: 'Atlas ids are 24 hexadecimal digits in lower case.',
  });
}

/** Checks a cluster name before it becomes part of a path. */
export function clusterName(value: string, name: string): string {
  if (CLUSTER_NAME.test(value)) return value;
  throw new HoldfastError('INVALID_PARAMETER', `${name} '${value.slice(0, 70)}' is not an Atlas cluster name`, {
    hint: 'Cluster names hold letters, digits and hyphens, 64 at most, and begin with a letter or digit.',
  });
}

/** What leaves a detail of a plan unknown instead of stopping it. */
const HIDDEN = ['INSUFFICIENT_PERMISSIONS', 'RESOURCE_NOT_FOUND', 'CLUSTER_TIER_NOT_SUPPORTED'];

/** The Atlas Admin API v2 for one cluster, as far as backups need it. */
export class AtlasClient {
  /** The cluster that the entity names. */
  readonly own: ClusterRef;
  readonly #settings: AtlasSettings;
  readonly #runtime: Runtime;
  #auth: Promise<Auth> | undefined;

  constructor(settings: AtlasSettings, runtime: Runtime) {
    this.own = { project: settings.project, cluster: settings.cluster };
    this.#settings = settings;
    this.#runtime = runtime;
  }

  /**
   * Finds out what kind of cluster a name stands for; one that Atlas does not know comes back as `gone`.
   * @throws {HoldfastError} RESOURCE_NOT_FOUND when the project is unknown
   */
  async deployment(ref: ClusterRef, signal: AbortSignal): Promise<Deployment> {
    const call: Call = { subject: 'cluster', role: 'Project Read Only', signal };
    const path = `/groups/${ref.project}`;
    try {
      return toDeployment(ref, await this.#get(`${path}/clusters/${encodeURIComponent(ref.cluster)}`, call));
    } catch (cause) {
      const isFlex = isCode(cause, 'CANNOT_USE_FLEX_CLUSTER_IN_CLUSTER_API');
      if (!isFlex && (!isCode(cause, 'RESOURCE_NOT_FOUND') || isCode(cause, 'GROUP_NOT_FOUND'))) throw cause;
    }
    try {
      return toFlexDeployment(ref, await this.#get(`${path}/flexClusters/${encodeURIComponent(ref.cluster)}`, call));
    } catch (cause) {
      if (isCode(cause, 'RESOURCE_NOT_FOUND', 'CANNOT_USE_NON_FLEX_CLUSTER_IN_FLEX_API')) return goneDeployment(ref);
      throw cause;
    }
  }

  /** Lists the dedicated and free clusters of a project; Flex clusters are not among them. */
  async clusters(project: string, signal: AbortSignal): Promise<Deployment[]> {
    const found = await this.#pages(`/groups/${project}/clusters`, {
      subject: 'project',
      role: 'Project Read Only',
      signal,
    });
    return named(found, project, toDeployment);
  }

  /** Lists the projects that the credential can see. */
  async projects(signal: AbortSignal): Promise<{ id: string; name: string }[]> {
    const found = await this.#pages('/groups', { subject: 'project', role: 'Project Read Only', signal });
    return found.flatMap(({ id, name }) =>
      typeof id === 'string' && OBJECT_ID.test(id) ? [{ id, name: cleanText(name, 64) }] : [],
    );
  }

  /** Lists the Flex clusters of a project. */
  async flexClusters(project: string, signal: AbortSignal): Promise<Deployment[]> {
    const call: Call = { subject: 'project', role: 'Project Read Only', signal };
    return named(await this.#pages(`/groups/${project}/flexClusters`, call), project, toFlexDeployment);
  }

  /** Gives a project's name, or undefined where the credential may not read it. */
  async projectName(project: string, signal: AbortSignal): Promise<string | undefined> {
    const call: Call = { subject: 'project', role: 'Project Read Only', signal };
    const wire = await unless(this.#get(`/groups/${project}`, call), ...HIDDEN);
    return typeof wire?.['name'] === 'string' ? cleanText(wire['name'], 64) : undefined;
  }

  async schedule(ref: ClusterRef, signal: AbortSignal): Promise<AtlasSchedule> {
    const call: Call = { subject: 'backup', role: 'Project Read Only', signal };
    return toSchedule(await this.#get(`${this.#cluster(ref)}/backup/schedule`, call));
  }

  /** Changes switches of a dedicated cluster; what is left out stays. Sent once. */
  async updateCluster(ref: ClusterRef, switches: ClusterSwitches, signal: AbortSignal): Promise<void> {
    const call: Call = { subject: 'cluster', role: 'Project Cluster Manager', signal };
    await this.#write('PATCH', this.#cluster(ref), { ...switches }, call);
  }

  /** Changes the backup schedule; the policy replaces the one before, all else that is left out stays. Sent once. */
  async updateSchedule(ref: ClusterRef, schedule: ScheduleUpdate, signal: AbortSignal): Promise<void> {
    const call: Call = { subject: 'backup', role: 'Project Backup Manager', signal };
    const { policy_id, items, ...rest } = schedule;
    const policyItems = items.map(({ type, interval, unit, value }) => ({
      frequencyType: type,
      frequencyInterval: interval,
      retentionUnit: unit,
      retentionValue: value,
    }));
    // Never updateSnapshots, deleteSnapshots and their like: snapshots that exist keep the date they were given.
    const body = { ...rest, policies: [{ ...(policy_id === undefined ? {} : { id: policy_id }), policyItems }] };
    await this.#write('PATCH', `${this.#cluster(ref)}/backup/schedule`, body, call);
  }

  /** The state of the project's backup compliance policy: `ACTIVE` and the like, `none`, or `unknown` without the right to read it. */
  async compliancePolicy(project: string, signal: AbortSignal): Promise<string> {
    const call: Call = { subject: 'project', role: 'Project Owner', signal };
    try {
      const wire = await this.#get(`/groups/${project}/backupCompliancePolicy`, call);
      return typeof wire['state'] === 'string' ? cleanText(wire['state'], 20) : 'none';
    } catch (cause) {
      if (isCode(cause, 'INSUFFICIENT_PERMISSIONS')) return 'unknown';
      if (isCode(cause, 'RESOURCE_NOT_FOUND')) return 'none';
      throw cause;
    }
  }

  /** Lists every snapshot of a cluster, newest first. */
  async snapshots(deployment: Deployment, signal: AbortSignal): Promise<AtlasSnapshot[]> {
    const call: Call = { subject: 'backup', role: 'Project Read Only', signal };
    const byTime = (a: AtlasSnapshot, b: AtlasSnapshot): number =>
      (b.created_at ?? '').localeCompare(a.created_at ?? '') || b.id.localeCompare(a.id);
    if (deployment.kind === 'flex') {
      const found = await this.#pages(`${this.#flex(deployment)}/backup/snapshots`, call);
      return found.map(toFlexSnapshot).sort(byTime);
    }
    const replicaSets = async (): Promise<Wire[]> => this.#pages(`${this.#cluster(deployment)}/backup/snapshots`, call);
    // This list comes in one piece.
    const sharded = async (): Promise<Wire[]> =>
      resultsOf(await this.#get(`${this.#cluster(deployment)}/backup/snapshots/shardedClusters`, call));
    if (deployment.kind !== 'gone') {
      return (await (deployment.sharded ? sharded() : replicaSets())).map(toSnapshot).sort(byTime);
    }
    // Nobody says any more of which kind the cluster was.
    const kept = await replicaSets();
    return (kept.length > 0 ? kept : await sharded()).map(toSnapshot).sort(byTime);
  }

  /** @throws {HoldfastError} SNAPSHOT_NOT_FOUND */
  async snapshot(deployment: Deployment, id: string, signal: AbortSignal): Promise<AtlasSnapshot> {
    const call: Call = { subject: 'snapshot', role: 'Project Read Only', signal };
    objectId(id, 'snapshot_id');
    if (deployment.kind === 'flex') {
      return toFlexSnapshot(await this.#get(`${this.#flex(deployment)}/backup/snapshots/${id}`, call));
    }
    if (deployment.kind === 'gone') {
      const found = (await this.snapshots(deployment, signal)).find((snapshot) => snapshot.id === id);
      if (found !== undefined) return found;
      throw new HoldfastError(
        'SNAPSHOT_NOT_FOUND',
        `the deleted cluster '${deployment.cluster}' left no such snapshot`,
      );
    }
    return toSnapshot(await this.#get(this.#snapshotPath(deployment, deployment.sharded, id), call));
  }

  /** Names the databases in a snapshot, or undefined where Atlas does not tell. */
  async databasesIn(deployment: Deployment, id: string, signal: AbortSignal): Promise<string[] | undefined> {
    if (deployment.kind !== 'dedicated') return undefined;
    const path = `${this.#cluster(deployment)}/backup/snapshots/${objectId(id, 'snapshot_id')}/databases`;
    const call: Call = { subject: 'snapshot', role: 'Project Backup Manager', signal };
    // A missing right, or a kind of snapshot that Atlas does not look into: the plan then says "not inspected".
    const found = await unless(
      this.#pages(path, call),
      'INSUFFICIENT_PERMISSIONS',
      'SNAPSHOT_NOT_FOUND',
      'INVALID_PARAMETER',
      'NOT_SUPPORTED',
    );
    return found?.map((wire) => cleanText(wire['name'], 64));
  }

  /** Names the collections of a database in a snapshot, or undefined where Atlas does not tell. */
  async collectionsIn(
    deployment: Deployment,
    id: string,
    database: string,
    signal: AbortSignal,
  ): Promise<string[] | undefined> {
    if (deployment.kind !== 'dedicated') return undefined;
    const snapshot = `${this.#cluster(deployment)}/backup/snapshots/${objectId(id, 'snapshot_id')}`;
    const path = `${snapshot}/databases/${encodeURIComponent(database)}/collections`;
    const call: Call = { subject: 'snapshot', role: 'Project Backup Manager', signal };
    const found = await unless(
      this.#pages(path, call),
      'INSUFFICIENT_PERMISSIONS',
      'SNAPSHOT_NOT_FOUND',
      'INVALID_PARAMETER',
      'NOT_SUPPORTED',
    );
    return found?.map((wire) => cleanText(wire['name'], 255));
  }

  /** Lists the restore jobs of collections that began at a dedicated cluster's snapshots, newest first. */
  async collectionJobs(deployment: Deployment, signal: AbortSignal): Promise<AtlasJob[]> {
    const call: Call = { subject: 'cluster', role: 'Project Backup Manager', signal };
    const found = await this.#pages(`${this.#cluster(deployment)}/collectionRestoreJobs`, call);
    return found.map(toCollectionJob).sort((a, b) => b.job_id.localeCompare(a.job_id));
  }

  /** @throws {HoldfastError} RESOURCE_NOT_FOUND */
  async collectionJob(deployment: Deployment, id: string, signal: AbortSignal): Promise<AtlasJob> {
    const call: Call = { subject: 'job', role: 'Project Backup Manager', signal };
    const path = `${this.#cluster(deployment)}/collectionRestoreJobs/${objectId(id, 'job_id')}`;
    return toCollectionJob(await this.#get(path, call));
  }

  /** Tells what became of each collection of a job. */
  async restoredCollections(deployment: Deployment, id: string, signal: AbortSignal): Promise<RestoredCollection[]> {
    const call: Call = { subject: 'job', role: 'Project Backup Manager', signal };
    const path = `${this.#cluster(deployment)}/collectionRestoreJobs/${objectId(id, 'job_id')}/collections`;
    return (await this.#pages(path, call)).map(toRestoredCollection);
  }

  /** Starts a restore of some collections. Sent once. */
  async startCollectionRestore(source: Deployment, body: JsonObject, signal: AbortSignal): Promise<AtlasJob> {
    const call: Call = { subject: 'snapshot', role: 'Project Backup Recovery Operator', signal };
    return toCollectionJob(await this.#write('POST', `${this.#cluster(source)}/collectionRestoreJobs`, body, call));
  }

  /** Starts an on-demand snapshot of a dedicated cluster. Sent once. */
  async takeSnapshot(
    deployment: Deployment,
    body: { description: string; retentionInDays: number },
    signal: AbortSignal,
  ): Promise<AtlasSnapshot> {
    const call: Call = { subject: 'backup', role: 'Project Backup Creator', signal };
    return toSnapshot(await this.#write('POST', `${this.#cluster(deployment)}/backup/snapshots`, body, call));
  }

  /** Deletes a snapshot and its copies in other regions. Sent once. */
  async deleteSnapshot(deployment: Deployment, snapshot: AtlasSnapshot, signal: AbortSignal): Promise<void> {
    const call: Call = { subject: 'snapshot', role: 'Project Backup Manager', signal };
    const sharded = snapshot.provider.type === 'shardedCluster';
    await this.#write('DELETE', this.#snapshotPath(deployment, sharded, snapshot.id), undefined, call);
  }

  /** Lists every restore job that began at a cluster's snapshots, those of collections too, newest first. */
  async jobs(deployment: Deployment, signal: AbortSignal): Promise<AtlasJob[]> {
    const call: Call = { subject: 'cluster', role: 'Project Backup Manager', signal };
    const byTime = (a: AtlasJob, b: AtlasJob): number => b.job_id.localeCompare(a.job_id);
    if (deployment.kind === 'flex') {
      return (await this.#pages(`${this.#flex(deployment)}/backup/restoreJobs`, call)).map(toFlexJob).sort(byTime);
    }
    const [whole, some] = await Promise.all([
      this.#pages(`${this.#cluster(deployment)}/backup/restoreJobs`, call),
      deployment.kind === 'dedicated' ? this.collectionJobs(deployment, signal) : [],
    ]);
    return [...whole.map(toJob), ...some].sort(byTime);
  }

  /** @throws {HoldfastError} RESOURCE_NOT_FOUND */
  async job(deployment: Deployment, id: string, signal: AbortSignal): Promise<AtlasJob> {
    const call: Call = { subject: 'job', role: 'Project Backup Manager', signal };
    objectId(id, 'job_id');
    return deployment.kind === 'flex'
      ? toFlexJob(await this.#get(`${this.#flex(deployment)}/backup/restoreJobs/${id}`, call))
      : toJob(await this.#get(`${this.#cluster(deployment)}/backup/restoreJobs/${id}`, call));
  }

  /** Starts a restore that replaces everything on the target. Sent once. */
  async startRestore(
    source: Deployment,
    target: ClusterRef,
    from: { snapshot_id: string } | { at_seconds: number },
    signal: AbortSignal,
  ): Promise<AtlasJob> {
    const call: Call = { subject: 'snapshot', role: 'Project Backup Recovery Operator', signal };
    if (source.kind === 'flex') {
      if (!('snapshot_id' in from)) throw new HoldfastError('INTERNAL', 'a Flex restore without a snapshot');
      const body = {
        snapshotId: from.snapshot_id,
        targetDeploymentItemName: target.cluster,
        // Always sent: one of the API's paths refuses a call without it.
        targetProjectId: target.project,
      };
      return toFlexJob(await this.#write('POST', `${this.#flex(source)}/backup/restoreJobs`, body, call));
    }
    const body = {
      ...('snapshot_id' in from
        ? { deliveryType: 'automated', snapshotId: from.snapshot_id }
        : { deliveryType: 'pointInTime', pointInTimeUTCSeconds: from.at_seconds }),
      targetClusterName: target.cluster,
      targetGroupId: target.project,
    };
    return toJob(await this.#write('POST', `${this.#cluster(source)}/backup/restoreJobs`, body, call));
  }

  /** Names who logged in to a dedicated cluster since a moment, or undefined where the credential may not know. */
  async recentClients(ref: ClusterRef, since: Date, until: Date, signal: AbortSignal): Promise<string[] | undefined> {
    const call: Call = {
      subject: 'cluster',
      role: 'Project Cluster Log Viewer',
      query: { start: String(since.getTime()), end: String(until.getTime()), nLogs: '1000', authResult: 'true' },
      signal,
    };
    const path = `/groups/${ref.project}/dbAccessHistory/clusters/${encodeURIComponent(ref.cluster)}`;
    const wire = await unless(this.#get(path, call), ...HIDDEN);
    if (wire === undefined) return undefined;
    const logs = Array.isArray(wire['accessLogs']) ? wire['accessLogs'].filter(isObject) : [];
    return [...new Set(logs.map((log) => cleanText(`${String(log['username'])}@${String(log['ipAddress'])}`, 100)))];
  }

  #cluster(ref: ClusterRef): string {
    return `/groups/${ref.project}/clusters/${encodeURIComponent(ref.cluster)}`;
  }

  #flex(ref: ClusterRef): string {
    return `/groups/${ref.project}/flexClusters/${encodeURIComponent(ref.cluster)}`;
  }

  /** One sharded snapshot answers under a singular path, their list under a plural one. */
  #snapshotPath(ref: ClusterRef, sharded: boolean, id: string): string {
    return `${this.#cluster(ref)}/backup/snapshots/${sharded ? 'shardedCluster/' : ''}${id}`;
  }

  async #pages(path: string, call: Call): Promise<Wire[]> {
    const found: Wire[] = [];
    for (let page = 1; page <= MAX_PAGES; page += 1) {
      const wire = await this.#get(path, {
        ...call,
        query: { ...call.query, itemsPerPage: String(PAGE), pageNum: String(page) },
      });
      const results = resultsOf(wire);
      found.push(...results);
      const links = Array.isArray(wire['links']) ? wire['links'].filter(isObject) : [];
      const hasNext = links.some((link) => link['rel'] === 'next');
      if (results.length === 0 || (!hasNext && results.length < PAGE)) return found;
    }
    throw new HoldfastError('PROVIDER_UNAVAILABLE', `MongoDB Atlas gave more than ${MAX_PAGES} pages of one list`);
  }

  #get(path: string, call: Call): Promise<Wire> {
    return this.#send('GET', path, undefined, call);
  }

  #write(method: 'POST' | 'PATCH' | 'DELETE', path: string, body: JsonObject | undefined, call: Call): Promise<Wire> {
    return this.#send(method, path, body, call);
  }

  async #send(
    method: 'GET' | 'POST' | 'PATCH' | 'DELETE',
    path: string,
    body: JsonObject | undefined,
    call: Call,
  ): Promise<Wire> {
    const writes = method !== 'GET';
    const query = call.query === undefined ? '' : `?${new URLSearchParams(call.query)}`;
    const uri = `/api/atlas/v2${path}${query}`;
    const auth = await this.#signer();
    for (let attempt = 0; ; attempt += 1) {
      const authorization = await auth.header(method, uri, writes, call.signal);
      const response = await this.#runtime.fetch(`${this.#settings.base}${uri}`, {
        method,
        signal: call.signal,
        headers: {
          accept: MEDIA_TYPE,
          ...(authorization === undefined ? {} : { authorization }),
          ...(body === undefined ? {} : { 'content-type': MEDIA_TYPE }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const answer: unknown = response.status === 204 ? {} : await response.json().catch(() => undefined);
      if (response.ok) {
        if (isObject(answer)) return answer;
        throw new HoldfastError('PROVIDER_UNAVAILABLE', 'MongoDB Atlas answered with something that is not JSON', {
          details: writes ? { outcome: 'unknown' } : undefined,
        });
      }
      const mayRenew = response.status === 401 && !(isObject(answer) && answer['errorCode'] === 'USER_UNAUTHORIZED');
      // A refused write is not sent again, whatever the reason; the next call finds the credential renewed.
      if (mayRenew && auth.refused(response, authorization, attempt) && !writes && attempt < 3) continue;
      const wait = Number(response.headers.get('retry-after') ?? Number.NaN);
      throw refusalError({
        status: response.status,
        body: answer,
        request_id: identifierText(response.headers.get('x-request-id')),
        retry_after: Number.isFinite(wait) ? wait : undefined,
        subject: call.subject,
        role: call.role,
        writes,
      });
    }
  }

  #signer(): Promise<Auth> {
    this.#auth ??= openAuth(this.#settings, this.#settings.base, this.#settings.project, this.#runtime).catch(
      (cause: unknown) => {
        // A credential that is put right later is found by the next call.
        this.#auth = undefined;
        throw cause;
      },
    );
    return this.#auth;
  }
}

/** Reads the clusters of a list whose names can be part of a path. */
function named(found: Wire[], project: string, read: (ref: ClusterRef, wire: Wire) => Deployment): Deployment[] {
  return found.flatMap((wire) => {
    const name = wire['name'];
    return typeof name === 'string' && CLUSTER_NAME.test(name) ? [read({ project, cluster: name }, wire)] : [];
  });
}

function resultsOf(wire: Wire): Wire[] {
  if (Array.isArray(wire['results'])) return wire['results'].filter(isObject);
  throw new HoldfastError('PROVIDER_UNAVAILABLE', 'MongoDB Atlas gave a list in an unexpected form');
}
