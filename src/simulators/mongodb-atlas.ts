import { createHash, randomBytes } from 'node:crypto';
import { isObject, type JsonObject } from '../core/json.ts';
import type { Simulator, SimulatorOptions, SimulatorRequest, SimulatorResponse } from './simulator.ts';

/** Database to collection to number of documents: enough to see what a restore replaced. */
export type SimulatedContent = Record<string, Record<string, number>>;

interface SimulatedSnapshot {
  id: string;
  onDemand: boolean;
  description?: string;
  frequency?: string;
  beganAt: number;
  /** When it is complete, or has failed. */
  readyAt: number;
  expiresAt: number;
  fails: boolean;
  /** A word in place of the state that the clock gives. */
  state?: string;
  bytes: number;
  version: string;
}

interface SimulatedJob {
  id: string;
  source: SimulatedCluster;
  deliveryType: string;
  snapshotId?: string;
  seconds?: number;
  targetProject?: string;
  targetCluster?: string;
  beganAt: number;
  endsAt: number;
  outcome: 'succeeds' | 'fails' | 'cancelled';
  applied: boolean;
}

interface SimulatedNamespace {
  source: string;
  target: string;
  /** A word in place of the state that the clock gives. */
  state?: string;
}

interface SimulatedCollectionJob {
  id: string;
  source: SimulatedCluster;
  target: SimulatedCluster;
  body: JsonObject;
  at: number;
  namespaces: SimulatedNamespace[];
  beganAt: number;
  endsAt: number;
  outcome: 'succeeds' | 'fails' | 'cancelled';
  applied: boolean;
}

export interface SimulatedPolicyItem {
  frequencyType: string;
  frequencyInterval: number;
  retentionUnit: string;
  retentionValue: number;
}

export interface SimulatedCluster {
  readonly project: string;
  readonly name: string;
  readonly id: string;
  kind: 'dedicated' | 'flex' | 'free';
  size: string;
  shards: number;
  version: string;
  state: string;
  paused: boolean;
  backups: boolean;
  pitr: boolean;
  protected: boolean;
  /** Gone, its snapshots retained: only they and restores from them answer under its name. */
  deleted: boolean;
  disk: number;
  windowDays: number;
  /** Since when the log is kept, ms. */
  pitrSince: number;
  /** Busy until then after a change of its settings, ms. */
  updatingUntil: number;
  hour: number;
  minute: number;
  policy: SimulatedPolicyItem[];
  /** What it holds since a moment, oldest first. */
  history: { at: number; content: SimulatedContent }[];
  snapshots: SimulatedSnapshot[];
}

/** What tests set up and look at. */
export interface AtlasState {
  readonly projects: { id: string; name: string; compliance: string | undefined }[];
  readonly clusters: SimulatedCluster[];
  readonly jobs: SimulatedJob[];
  readonly collectionJobs: SimulatedCollectionJob[];
  /** Collections that the next restore of collections cannot restore. */
  readonly unsupported: Set<string>;
  /** Private key by public key: what digest credentials are checked against. */
  readonly keys: Map<string, string>;
  /** Service accounts that are refused, by client id. */
  readonly refused: Set<string>;
  /** `METHOD part-of-path` to the Atlas error code that it answers with 403. */
  readonly denied: Map<string, string>;
  /** Digest algorithms offered. */
  algorithms: string[];
  /** Rows in one page at most. */
  pageLimit: number;
  snapshotMs: number;
  restoreMs: number;
  /** How long a cluster is busy with a change of its settings. */
  updateMs: number;
  /** The next snapshot or restore fails at the provider. */
  failNext: 'snapshot' | 'restore' | undefined;
  /** Fields that restore jobs are answered with on top of their own. */
  jobExtras: JsonObject;
  cluster(name: string): SimulatedCluster;
  content(name: string): SimulatedContent;
  /** Changes what a cluster holds, from now on. */
  write(name: string, content: SimulatedContent): void;
  /** Forgets all access tokens, as if they had been revoked. */
  revokeTokens(): void;
  /** Makes every nonce old. */
  spoilNonces(): void;
}

export type AtlasSimulator = Simulator & { readonly state: AtlasState };

const PROJECT = '64f0a1b2c3d4e5f607182930';
const DRILLS = '64f0a1b2c3d4e5f607182931';
const ORGANISATION = '64f0a1b2c3d4e5f60718292f';
const DRILL_JOB = '6a300000a1b2c3d4e5f60001';
const DAY = 86_400_000;
const HOUR = 3_600_000;
const TOKEN_SECONDS = 3600;
const REALM = 'MMS Public API';

class Refused extends Error {
  readonly response: SimulatorResponse;
  constructor(status: number, errorCode: string, reason: string, fields?: string[]) {
    super(errorCode);
    this.response = {
      status,
      body: {
        error: status,
        errorCode,
        reason,
        detail: `${reason} (simulated).`,
        parameters: [],
        ...(fields === undefined
          ? {}
          : { badRequestDetail: { fields: fields.map((field) => ({ field, description: 'is not valid' })) } }),
      },
    };
  }
}

const notFound = (code: string): Refused => new Refused(404, code, 'Not Found');

const policyItem = (
  frequencyType: string,
  frequencyInterval: number,
  retentionUnit: string,
  retentionValue: number,
): SimulatedPolicyItem => ({ frequencyType, frequencyInterval, retentionUnit, retentionValue });

const defaultSchedule = (): Pick<SimulatedCluster, 'hour' | 'minute' | 'policy'> => ({
  hour: 18,
  minute: 0,
  policy: [
    policyItem('hourly', 6, 'days', 7),
    policyItem('daily', 1, 'days', 7),
    policyItem('weekly', 6, 'weeks', 4),
    policyItem('monthly', 40, 'months', 12),
  ],
});

const UNIT_DAYS: Record<string, number> = { days: 1, weeks: 7, months: 31, years: 365 };
/** The intervals of each frequency, rarer ones later. */
const INTERVALS: Record<string, readonly number[]> = {
  hourly: [1, 2, 4, 6, 8, 12],
  daily: [1],
  weekly: [1, 2, 3, 4, 5, 6, 7],
  monthly: [...Array.from({ length: 28 }, (_, index) => index + 1), 40],
  yearly: Array.from({ length: 12 }, (_, index) => index + 1),
};
const LEAST_DAYS: Record<string, number> = { weekly: 7, monthly: 31, yearly: 365 };
const daysKept = ({ retentionUnit, retentionValue }: SimulatedPolicyItem): number =>
  retentionValue * (UNIT_DAYS[retentionUnit] ?? 0);

/** Splits `database.collection`. */
function splitName(full: string): [string, string] {
  const dot = full.indexOf('.');
  return dot < 0 ? [full, ''] : [full.slice(0, dot), full.slice(dot + 1)];
}

function pick(value: unknown, names: readonly string[]): void {
  if (!isObject(value)) throw new Refused(400, 'MISSING_ATTRIBUTE', 'Bad Request');
  const stranger = Object.keys(value).find((name) => !names.includes(name));
  if (stranger !== undefined) throw new Refused(400, 'INVALID_ATTRIBUTE', 'Bad Request', [stranger]);
}

/** Simulates the MongoDB Atlas Administration API v2 as far as backups go. */
export function mongodbAtlasSimulator({ clock }: SimulatorOptions): AtlasSimulator {
  const now = (): number => clock.now().getTime();
  const iso = (ms: number): string => new Date(ms).toISOString().replace(/\.\d{3}Z$/, 'Z');
  let counter = 0;
  const newId = (at: number): string => {
    counter += 1;
    return `${Math.floor(at / 1000)
      .toString(16)
      .padStart(8, '0')}a1b2c3d4e5${counter.toString(16).padStart(6, '0')}`;
  };
  const tokens = new Map<string, number>();
  const nonces = new Map<string, Set<string>>();
  const started = now();

  const addSnapshot = (cluster: SimulatedCluster, ageMs: number, patch: Partial<SimulatedSnapshot> = {}): void => {
    const beganAt = started - ageMs;
    cluster.snapshots.push({
      id: newId(beganAt),
      onDemand: false,
      frequency: 'daily',
      beganAt,
      readyAt: beganAt + 60_000,
      expiresAt: beganAt + 7 * DAY,
      fails: false,
      bytes: 4_294_967_296,
      version: cluster.version,
      ...patch,
    });
  };
  const addCluster = (name: string, patch: Partial<SimulatedCluster>): SimulatedCluster => {
    const cluster: SimulatedCluster = {
      project: PROJECT,
      name,
      id: newId(started - 200 * DAY),
      kind: 'dedicated',
      size: 'M10',
      shards: 0,
      version: '8.0.15',
      state: 'IDLE',
      paused: false,
      backups: true,
      pitr: false,
      protected: true,
      deleted: false,
      disk: 10,
      windowDays: 7,
      pitrSince: 0,
      updatingUntil: 0,
      ...defaultSchedule(),
      history: [{ at: 0, content: {} }],
      snapshots: [],
      ...patch,
    };
    state.clusters.push(cluster);
    return cluster;
  };

  const state: AtlasState = {
    projects: [
      { id: PROJECT, name: 'sandbox', compliance: undefined },
      { id: DRILLS, name: 'drills', compliance: undefined },
    ],
    clusters: [],
    jobs: [],
    collectionJobs: [],
    unsupported: new Set(),
    keys: new Map(),
    refused: new Set(),
    denied: new Map(),
    algorithms: ['MD5'],
    pageLimit: 500,
    snapshotMs: 2_000,
    restoreMs: 3_000,
    updateMs: 2_000,
    failNext: undefined,
    jobExtras: {},
    cluster(name) {
      const found = state.clusters.find((candidate) => candidate.name === name);
      if (found === undefined) throw new Error(`the simulated fleet has no cluster ${name}`);
      return found;
    },
    content(name) {
      settle();
      return contentAt(state.cluster(name), now());
    },
    write(name, content) {
      state.cluster(name).history.push({ at: now(), content: structuredClone(content) });
    },
    revokeTokens: () => tokens.clear(),
    spoilNonces: () => nonces.clear(),
  };

  const shop = addCluster('sandbox-cluster', { pitr: true });
  shop.history = [
    { at: 0, content: { shop: { orders: 11_900, customers: 840 } } },
    { at: started - 30 * HOUR, content: { shop: { orders: 12_000, customers: 850 }, audit: { events: 310 } } },
    { at: started - 2 * HOUR, content: { shop: { orders: 12_480, customers: 861 }, audit: { events: 355 } } },
  ];
  addSnapshot(shop, 3 * DAY);
  addSnapshot(shop, 2 * DAY);
  addSnapshot(shop, DAY, { frequency: 'weekly', expiresAt: started + 27 * DAY });
  addSnapshot(shop, 5 * HOUR, { onDemand: true, description: 'before the October release', bytes: 4_404_019_200 });
  const drill = addCluster('drill-target', { protected: false });
  // A drill of long ago, under an id that documentation can name.
  const drilledAt = Number.parseInt(DRILL_JOB.slice(0, 8), 16) * 1000;
  state.jobs.push({
    id: DRILL_JOB,
    source: shop,
    deliveryType: 'automated',
    snapshotId: '6a2f0000a1b2c3d4e5f60001',
    targetProject: drill.project,
    targetCluster: drill.name,
    beganAt: drilledAt,
    endsAt: drilledAt + 9 * 60_000,
    outcome: 'succeeds',
    applied: true,
  });
  addSnapshot(drill, 20 * HOUR, { bytes: 1_048_576 });
  const sharded = addCluster('orders-sharded', { size: 'M30', shards: 2, pitr: true, disk: 40 });
  sharded.history = [{ at: 0, content: { orders: { lines: 9_200_000 } } }];
  addSnapshot(sharded, 2 * DAY, { bytes: 48_318_382_080 });
  addSnapshot(sharded, DAY, { bytes: 48_402_268_160 });
  const flex = addCluster('flex-notes', { kind: 'flex', size: 'FLEX', protected: false, disk: 5 });
  flex.history = [{ at: 0, content: { notes: { pages: 77 } } }];
  for (const days of [3, 2, 1]) addSnapshot(flex, days * DAY, { expiresAt: started + (8 - days) * DAY });
  addCluster('flex-spare', { kind: 'flex', size: 'FLEX', protected: false, disk: 5 });
  addCluster('free-playground', { kind: 'free', size: 'M0', backups: false, protected: false, disk: 0.5 });
  const legacy = addCluster('legacy-reports', { backups: false, protected: false, version: '7.0.24' });
  legacy.history = [{ at: 0, content: { reports: { pdf: 4_100 } } }];
  // Deleted, with its backups retained.
  const gone = addCluster('old-orders', { deleted: true, protected: false });
  gone.history = [{ at: 0, content: { orders: { lines: 1_200 } } }];
  addSnapshot(gone, 6 * DAY, { expiresAt: started + 20 * DAY });
  addSnapshot(gone, 4 * DAY, { expiresAt: started + 22 * DAY });
  addCluster('archive', { project: DRILLS, size: 'M20', disk: 20 });

  const contentAt = (cluster: SimulatedCluster, at: number): SimulatedContent =>
    structuredClone(cluster.history.findLast((entry) => entry.at <= at)?.content ?? {});

  /** Lets time take effect: restores that are over replace what their target holds, snapshots past their date are gone. */
  const settle = (): void => {
    for (const job of state.jobs) {
      if (job.applied || job.outcome !== 'succeeds' || job.endsAt > now()) continue;
      job.applied = true;
      const target = state.clusters.find(
        (cluster) => cluster.project === job.targetProject && cluster.name === job.targetCluster,
      );
      const snapshot = job.source.snapshots.find(({ id }) => id === job.snapshotId);
      const moment = job.seconds === undefined ? (snapshot?.beganAt ?? job.beganAt) : job.seconds * 1000;
      target?.history.push({ at: job.endsAt, content: contentAt(job.source, moment) });
    }
    for (const job of state.collectionJobs) {
      if (job.applied || job.outcome !== 'succeeds' || job.endsAt > now()) continue;
      job.applied = true;
      const from = contentAt(job.source, job.at);
      const content = contentAt(job.target, job.endsAt);
      for (const namespace of job.namespaces) {
        const [database, collection] = splitName(namespace.source);
        const count = from[database]?.[collection];
        const [toDatabase, toCollection] = splitName(namespace.target);
        const isTaken = content[toDatabase]?.[toCollection] !== undefined;
        if (state.unsupported.has(namespace.source)) namespace.state = 'UNSUPPORTED';
        else if (count === undefined) namespace.state = 'NOT_FOUND';
        else if (isTaken && job.body['writeStrategy'] === 'CREATE_NEW') namespace.state = 'NOT_RESTORED';
        else content[toDatabase] = { ...content[toDatabase], [toCollection]: count };
      }
      job.target.history.push({ at: job.endsAt, content });
    }
    for (const cluster of state.clusters) {
      cluster.snapshots = cluster.snapshots.filter(({ expiresAt }) => expiresAt > now());
    }
  };

  const isBusy = (cluster: SimulatedCluster): boolean =>
    state.jobs.some(
      (job) =>
        job.targetProject === cluster.project &&
        job.targetCluster === cluster.name &&
        job.outcome !== 'cancelled' &&
        now() < job.endsAt + 500,
    );
  const stateOf = (cluster: SimulatedCluster): string =>
    isBusy(cluster) || now() < cluster.updatingUntil ? 'UPDATING' : cluster.state;

  const snapshotState = (snapshot: SimulatedSnapshot): 'queued' | 'inProgress' | 'completed' | 'failed' => {
    if (now() >= snapshot.readyAt) return snapshot.fails ? 'failed' : 'completed';
    return now() - snapshot.beganAt < 500 ? 'queued' : 'inProgress';
  };

  // ── Wire shapes ──────────────────────────────────────────────────────────────────────────────────────────────────

  const links = (request: SimulatorRequest, next?: string): JsonObject[] => [
    { rel: 'self', href: request.url.href },
    ...(next === undefined ? [] : [{ rel: 'next', href: next }]),
  ];

  const showCluster = (cluster: SimulatedCluster, request: SimulatorRequest): JsonObject => {
    const tenant = cluster.kind === 'free';
    const spec = (index: number): JsonObject => ({
      id: `64f0a1b2c3d4e5f60718${(4096 + index).toString(16)}`,
      zoneId: '64f0a1b2c3d4e5f607182aaa',
      zoneName: 'Zone 1',
      regionConfigs: [
        tenant
          ? {
              providerName: 'TENANT',
              backingProviderName: 'AWS',
              regionName: 'EU_CENTRAL_1',
              priority: 7,
              electableSpecs: {
                instanceSize: cluster.size,
                effectiveInstanceSize: cluster.size,
                diskSizeGB: cluster.disk,
              },
            }
          : {
              providerName: 'AWS',
              regionName: 'EU_CENTRAL_1',
              priority: 7,
              electableSpecs: {
                instanceSize: cluster.size,
                nodeCount: 3,
                diskSizeGB: cluster.disk,
                diskIOPS: 3000,
                ebsVolumeType: 'STANDARD',
              },
            },
      ],
    });
    return {
      id: cluster.id,
      groupId: cluster.project,
      name: cluster.name,
      clusterType: cluster.shards > 0 ? 'SHARDED' : 'REPLICASET',
      stateName: stateOf(cluster),
      paused: cluster.paused,
      backupEnabled: cluster.backups,
      pitEnabled: cluster.pitr,
      mongoDBMajorVersion: cluster.version.split('.').slice(0, 2).join('.'),
      mongoDBVersion: cluster.version,
      terminationProtectionEnabled: cluster.protected,
      encryptionAtRestProvider: 'NONE',
      createDate: iso(started - 200 * DAY),
      connectionStrings: {
        standard: `mongodb://${cluster.name}-shard-00-00.a1b2c.mongodb.net:27017/?ssl=true`,
        standardSrv: `mongodb+srv://${cluster.name}.a1b2c.mongodb.net`,
      },
      replicationSpecs: Array.from({ length: Math.max(1, cluster.shards) }, (_, index) => spec(index)),
      tags: [],
      links: links(request),
    };
  };

  const showFlex = (cluster: SimulatedCluster, request: SimulatorRequest): JsonObject => ({
    id: cluster.id,
    groupId: cluster.project,
    name: cluster.name,
    clusterType: 'REPLICASET',
    stateName: stateOf(cluster),
    mongoDBVersion: cluster.version,
    backupSettings: { enabled: true },
    providerSettings: {
      providerName: 'FLEX',
      backingProviderName: 'AWS',
      regionName: 'EU_CENTRAL_1',
      diskSizeGB: cluster.disk,
    },
    connectionStrings: { standardSrv: `mongodb+srv://${cluster.name}.a1b2c.mongodb.net` },
    terminationProtectionEnabled: cluster.protected,
    versionReleaseSystem: 'LTS',
    createDate: iso(started - 90 * DAY),
    tags: [],
    links: links(request),
  });

  const showSnapshot = (
    cluster: SimulatedCluster,
    snapshot: SimulatedSnapshot,
    request: SimulatorRequest,
  ): JsonObject => {
    const done = snapshotState(snapshot) === 'completed';
    const members = Array.from({ length: cluster.shards }, (_, index) => ({
      id: `${snapshot.id.slice(0, 20)}${(4096 + index).toString(16)}`,
      replicaSetName: `atlas-a1b2c-shard-${index}`,
      cloudProvider: 'AWS',
    }));
    return {
      id: snapshot.id,
      type: cluster.shards > 0 ? 'shardedCluster' : 'replicaSet',
      snapshotType: snapshot.onDemand ? 'onDemand' : 'scheduled',
      status: snapshot.state ?? snapshotState(snapshot),
      createdAt: iso(snapshot.beganAt),
      expiresAt: iso(snapshot.expiresAt),
      mongodVersion: snapshot.version,
      storageSizeBytes: done ? snapshot.bytes : 0,
      ...(snapshot.description === undefined ? {} : { description: snapshot.description }),
      ...(snapshot.onDemand || snapshot.frequency === undefined
        ? { policyItems: [] }
        : { frequencyType: snapshot.frequency, policyItems: ['64f0a1b2c3d4e5f607182b00'] }),
      ...(cluster.shards > 0
        ? { members, snapshotIds: members.map(({ id }) => id), configServerType: 'EMBEDDED' }
        : { cloudProvider: 'AWS', copyRegions: [], replicaSetName: 'atlas-a1b2c-shard-0' }),
      links: links(request),
    };
  };

  const showFlexSnapshot = (snapshot: SimulatedSnapshot, request: SimulatorRequest): JsonObject => ({
    id: snapshot.id,
    status:
      snapshot.state ??
      { queued: 'QUEUED', inProgress: 'RUNNING', completed: 'COMPLETED', failed: 'FAILED' }[snapshotState(snapshot)],
    scheduledTime: iso(snapshot.beganAt - 60_000),
    startTime: iso(snapshot.beganAt),
    finishTime: iso(snapshot.readyAt),
    expiration: iso(snapshot.expiresAt),
    mongoDBVersion: snapshot.version,
    links: links(request),
  });

  const showJob = (job: SimulatedJob, request: SimulatorRequest): JsonObject => {
    const over = now() >= job.endsAt;
    const snapshot = job.source.snapshots.find(({ id }) => id === job.snapshotId);
    return {
      id: job.id,
      deliveryType: job.deliveryType,
      ...(job.snapshotId === undefined ? {} : { snapshotId: job.snapshotId }),
      ...(job.seconds === undefined ? {} : { pointInTimeUTCSeconds: job.seconds }),
      ...(job.targetCluster === undefined ? {} : { targetClusterName: job.targetCluster }),
      ...(job.targetProject === undefined ? {} : { targetGroupId: job.targetProject }),
      cancelled: job.outcome === 'cancelled',
      failed: over && job.outcome === 'fails',
      expired: false,
      deliveryUrl:
        job.deliveryType === 'download' && over ? [`https://restore.mongodb.net/${job.id}?sig=simulated`] : [],
      ...(snapshot === undefined ? {} : { timestamp: iso(snapshot.beganAt) }),
      ...(over && job.outcome === 'succeeds' ? { finishedAt: iso(job.endsAt) } : {}),
      ...state.jobExtras,
      links: links(request),
    };
  };

  const showFlexJob = (job: SimulatedJob, request: SimulatorRequest): JsonObject => {
    const over = now() >= job.endsAt;
    return {
      id: job.id,
      deliveryType: 'RESTORE',
      status: over
        ? job.outcome === 'fails'
          ? 'FAILED'
          : 'COMPLETED'
        : now() - job.beganAt < 500
          ? 'PENDING'
          : 'RUNNING',
      instanceName: job.source.name,
      projectId: job.source.project,
      ...(job.snapshotId === undefined ? {} : { snapshotId: job.snapshotId }),
      ...(job.targetCluster === undefined ? {} : { targetDeploymentItemName: job.targetCluster }),
      ...(job.targetProject === undefined ? {} : { targetProjectId: job.targetProject }),
      restoreScheduledDate: iso(job.beganAt),
      ...(over ? { restoreFinishedDate: iso(job.endsAt) } : {}),
      ...state.jobExtras,
      links: links(request),
    };
  };

  const showSchedule = (cluster: SimulatedCluster, request: SimulatorRequest): JsonObject => {
    const next = new Date(now());
    next.setUTCHours(cluster.hour, cluster.minute, 0, 0);
    return {
      clusterId: cluster.id,
      clusterName: cluster.name,
      referenceHourOfDay: cluster.hour,
      referenceMinuteOfHour: cluster.minute,
      restoreWindowDays: cluster.windowDays,
      nextSnapshot: iso(next.getTime() > now() ? next.getTime() : next.getTime() + DAY),
      policies: [
        {
          id: '64f0a1b2c3d4e5f607182bff',
          policyItems: cluster.policy.map((item, index) => ({
            id: `64f0a1b2c3d4e5f607182b${index.toString(16).padStart(2, '0')}`,
            ...item,
          })),
        },
      ],
      copySettings: [],
      autoExportEnabled: false,
      useOrgAndGroupNamesInExportPrefix: false,
      links: links(request),
    };
  };

  const page = (request: SimulatorRequest, rows: readonly JsonObject[], version: string): SimulatorResponse => {
    const number = (name: string, fallback: number, most: number): number => {
      const given = request.url.searchParams.get(name);
      if (given === null) return fallback;
      const value = Number(given);
      if (!Number.isInteger(value) || value < 1 || value > most) {
        throw new Refused(400, 'INVALID_ATTRIBUTE', 'Bad Request', [name]);
      }
      return value;
    };
    const size = Math.min(number('itemsPerPage', 100, 500), state.pageLimit);
    const current = number('pageNum', 1, 100_000);
    const begin = (current - 1) * size;
    const next = new URL(request.url);
    next.searchParams.set('pageNum', String(current + 1));
    return answer(200, version, {
      results: [...rows.slice(begin, begin + size)],
      totalCount: rows.length,
      links: links(request, begin + size < rows.length ? next.href : undefined),
    });
  };

  const answer = (status: number, version: string, body?: JsonObject): SimulatorResponse => ({
    status,
    headers: { 'content-type': `application/vnd.atlas.${version}+json;charset=utf-8` },
    ...(body === undefined ? {} : { body }),
  });

  // ── Access ───────────────────────────────────────────────────────────────────────────────────────────────────────

  const challenge = (stale: boolean): SimulatorResponse => {
    const nonce = randomBytes(16).toString('base64');
    nonces.set(nonce, new Set());
    const header = state.algorithms
      .map(
        (algorithm) =>
          `Digest realm="${REALM}", domain="", nonce="${nonce}", algorithm=${algorithm}, qop="auth", stale=${stale}`,
      )
      .join(', ');
    return {
      status: 401,
      headers: { 'www-authenticate': header },
      body: { error: 401, errorCode: 'UNAUTHORIZED', reason: 'Unauthorized', detail: null, parameters: [] },
    };
  };

  const checkDigest = (request: SimulatorRequest, header: string): SimulatorResponse | undefined => {
    const fields: Record<string, string> = {};
    for (const [, name, quoted, plain] of header.slice(7).matchAll(/(\w+)=(?:"([^"]*)"|([^\s,]+))/g)) {
      fields[name as string] = quoted ?? plain ?? '';
    }
    const secret = state.keys.get(fields['username'] ?? '');
    const counts = nonces.get(fields['nonce'] ?? '');
    if (secret === undefined) return challenge(false);
    if (counts === undefined) return challenge(true);
    const algorithm = fields['algorithm'] ?? 'MD5';
    const hash = (text: string): string =>
      createHash(algorithm === 'SHA-256' ? 'sha256' : 'md5')
        .update(text)
        .digest('hex');
    const { nonce, nc, cnonce, uri, realm } = fields as Record<'nonce' | 'nc' | 'cnonce' | 'uri' | 'realm', string>;
    const expected = hash(
      `${hash(`${fields['username']}:${realm}:${secret}`)}:${nonce}:${nc}:${cnonce}:auth:${hash(`${request.method}:${uri}`)}`,
    );
    const isRight =
      state.algorithms.includes(algorithm) &&
      realm === REALM &&
      fields['qop'] === 'auth' &&
      uri === request.url.pathname + request.url.search &&
      fields['response'] === expected &&
      /^[0-9a-f]{8}$/.test(nc ?? '');
    if (!isRight) return challenge(false);
    if (counts.has(nc)) return challenge(true);
    counts.add(nc);
    return undefined;
  };

  const checkAccess = (request: SimulatorRequest): SimulatorResponse | undefined => {
    const header = request.headers['authorization'] ?? '';
    if (header.startsWith('Digest ')) return checkDigest(request, header);
    const token = /^Bearer (\S+)$/.exec(header)?.[1];
    if (token === undefined || (tokens.get(token) ?? 0) <= now()) return challenge(false);
    return undefined;
  };

  const giveToken = (request: SimulatorRequest): SimulatorResponse => {
    const basic = /^Basic ([A-Za-z0-9+/]+=*)$/.exec(request.headers['authorization'] ?? '')?.[1];
    const [id = '', secret = ''] = Buffer.from(basic ?? '', 'base64')
      .toString('utf8')
      .split(':');
    const isForm = (request.headers['content-type'] ?? '').startsWith('application/x-www-form-urlencoded');
    if (request.method !== 'POST') return { status: 405, body: { error: 'invalid_request' } };
    if (!isForm || new URLSearchParams(request.text).get('grant_type') !== 'client_credentials') {
      return { status: 400, body: { error: 'unsupported_grant_type' } };
    }
    if (id === '' || secret === '' || state.refused.has(id)) {
      return { status: 401, body: { error: 'invalid_client', error_description: 'client authentication failed' } };
    }
    const token = `eyJ.${randomBytes(24).toString('base64url')}.sig`;
    tokens.set(token, now() + TOKEN_SECONDS * 1000);
    return { status: 200, body: { access_token: token, expires_in: TOKEN_SECONDS, token_type: 'Bearer' } };
  };

  const checkVersion = (value: string | undefined, oldest: string, header: string): void => {
    const date = /^application\/vnd\.atlas\.(\d{4}-\d{2}-\d{2})\+json$/.exec(
      (value ?? '').split(';')[0] as string,
    )?.[1];
    const status = header === 'accept' ? 406 : 415;
    if (date === undefined) throw new Refused(status, 'INVALID_VERSION_DATE', 'Not Acceptable');
    if (date < '2023-01-01') throw new Refused(410, 'VERSION_GONE', 'Gone');
    if (date < oldest) throw new Refused(status, 'INVALID_VERSION_DATE', 'Not Acceptable');
  };

  // ── Operations ───────────────────────────────────────────────────────────────────────────────────────────────────

  const clusterOf = (project: string, name: string): SimulatedCluster => {
    const found = state.clusters.find((cluster) => cluster.project === project && cluster.name === name);
    if (found === undefined) throw notFound('CLUSTER_NOT_FOUND');
    return found;
  };

  const takeSnapshot = (cluster: SimulatedCluster, body: unknown): SimulatedSnapshot => {
    pick(body, ['description', 'retentionInDays']);
    const { description, retentionInDays = 2 } = body as { description?: unknown; retentionInDays?: unknown };
    if (typeof retentionInDays !== 'number' || !Number.isInteger(retentionInDays) || retentionInDays < 1) {
      throw new Refused(400, 'INVALID_ATTRIBUTE', 'Bad Request', ['retentionInDays']);
    }
    if (!cluster.backups) throw notFound('BACKUP_CONFIG_NOT_FOUND');
    if (cluster.paused) throw new Refused(400, 'CANNOT_UPDATE_PAUSED_CLUSTER', 'Bad Request');
    if (stateOf(cluster) !== 'IDLE') throw new Refused(400, 'CLUSTER_NOT_IDLE', 'Bad Request');
    if (cluster.snapshots.some((snapshot) => snapshot.onDemand && now() < snapshot.readyAt)) {
      throw new Refused(400, 'ON_DEMAND_SNAPSHOT_IN_PROGRESS', 'Bad Request');
    }
    const beganAt = now();
    const snapshot: SimulatedSnapshot = {
      id: newId(beganAt),
      onDemand: true,
      ...(typeof description === 'string' && description !== '' ? { description } : {}),
      beganAt,
      readyAt: beganAt + state.snapshotMs,
      expiresAt: beganAt + retentionInDays * DAY,
      fails: state.failNext === 'snapshot',
      bytes: 4_429_185_024,
      version: cluster.version,
    };
    if (snapshot.fails) state.failNext = undefined;
    cluster.snapshots.push(snapshot);
    return snapshot;
  };

  const snapshotOf = (cluster: SimulatedCluster, id: string): SimulatedSnapshot => {
    if (!/^[a-f0-9]{24}$/.test(id)) throw new Refused(400, 'INVALID_ATTRIBUTE', 'Bad Request', ['snapshotId']);
    const found = cluster.snapshots.find((snapshot) => snapshot.id === id);
    if (found === undefined) throw notFound('SNAPSHOT_NOT_FOUND');
    return found;
  };

  const targetOf = (project: string, name: string, source: SimulatedCluster): SimulatedCluster => {
    if (!state.projects.some(({ id }) => id === project)) throw notFound('GROUP_NOT_FOUND');
    const target = clusterOf(project, name);
    if (target.deleted) throw notFound('CLUSTER_NOT_FOUND');
    if (target.kind === 'free' || (target.kind === 'flex' && source.kind !== 'flex')) {
      throw new Refused(400, 'CANNOT_USE_FLEX_CLUSTER_IN_CLUSTER_API', 'Bad Request');
    }
    if (target.shards !== source.shards)
      throw new Refused(400, 'INVALID_ATTRIBUTE', 'Bad Request', ['targetClusterName']);
    if (target.paused) throw new Refused(409, 'CANNOT_UPDATE_PAUSED_CLUSTER', 'Conflict');
    if (stateOf(target) !== 'IDLE') throw new Refused(409, 'CLUSTER_NOT_IDLE', 'Conflict');
    return target;
  };

  const begin = (source: SimulatedCluster, job: Partial<SimulatedJob> & { deliveryType: string }): SimulatedJob => {
    const beganAt = now();
    const full: SimulatedJob = {
      id: newId(beganAt),
      source,
      beganAt,
      endsAt: beganAt + state.restoreMs,
      outcome: state.failNext === 'restore' ? 'fails' : 'succeeds',
      applied: false,
      ...job,
    };
    if (full.outcome === 'fails') state.failNext = undefined;
    state.jobs.push(full);
    return full;
  };

  const startRestore = (cluster: SimulatedCluster, body: unknown): SimulatedJob => {
    pick(body, [
      'deliveryType',
      'snapshotId',
      'pointInTimeUTCSeconds',
      'oplogTs',
      'oplogInc',
      'targetClusterName',
      'targetGroupId',
    ]);
    const wire = body as Record<string, unknown>;
    const type = wire['deliveryType'];
    if (type !== 'automated' && type !== 'pointInTime' && type !== 'download') {
      throw new Refused(400, 'INVALID_ATTRIBUTE', 'Bad Request', ['deliveryType']);
    }
    if (!cluster.backups) throw notFound('BACKUP_CONFIG_NOT_FOUND');
    let snapshot: SimulatedSnapshot | undefined;
    if (type !== 'pointInTime') {
      if (typeof wire['snapshotId'] !== 'string')
        throw new Refused(400, 'MISSING_ATTRIBUTE', 'Bad Request', ['snapshotId']);
      snapshot = snapshotOf(cluster, wire['snapshotId']);
      if (snapshotState(snapshot) !== 'completed') throw new Refused(409, 'SNAPSHOT_NOT_COMPLETED', 'Conflict');
    }
    if (type === 'download')
      return begin(cluster, { deliveryType: type, snapshotId: (snapshot as SimulatedSnapshot).id });
    const { targetClusterName, targetGroupId } = wire;
    if (typeof targetClusterName !== 'string' || typeof targetGroupId !== 'string') {
      throw new Refused(400, 'MISSING_ATTRIBUTE', 'Bad Request', ['targetClusterName']);
    }
    const seconds = wire['pointInTimeUTCSeconds'];
    if (type === 'pointInTime') {
      if (typeof seconds !== 'number' || seconds < 1_199_145_600 || seconds > 2_147_483_647) {
        throw new Refused(400, 'INVALID_ATTRIBUTE', 'Bad Request', ['pointInTimeUTCSeconds']);
      }
      const earliest = Math.max(now() - cluster.windowDays * DAY, cluster.pitrSince);
      if (!cluster.pitr || seconds * 1000 < earliest || seconds * 1000 > now()) {
        throw new Refused(400, 'INVALID_POINT_IN_TIME', 'Bad Request');
      }
    }
    const target = targetOf(targetGroupId, targetClusterName, cluster);
    return begin(cluster, {
      deliveryType: type,
      ...(snapshot === undefined ? { seconds: seconds as number } : { snapshotId: snapshot.id }),
      targetProject: target.project,
      targetCluster: target.name,
    });
  };

  const startFlexRestore = (cluster: SimulatedCluster, body: unknown): SimulatedJob => {
    pick(body, ['snapshotId', 'targetDeploymentItemName', 'targetProjectId']);
    const { snapshotId, targetDeploymentItemName, targetProjectId } = body as Record<string, unknown>;
    if (
      typeof snapshotId !== 'string' ||
      typeof targetDeploymentItemName !== 'string' ||
      typeof targetProjectId !== 'string'
    ) {
      throw new Refused(400, 'MISSING_ATTRIBUTE', 'Bad Request', ['targetProjectId']);
    }
    const snapshot = snapshotOf(cluster, snapshotId);
    const target = targetOf(targetProjectId, targetDeploymentItemName, cluster);
    return begin(cluster, {
      deliveryType: 'automated',
      snapshotId: snapshot.id,
      targetProject: target.project,
      targetCluster: target.name,
    });
  };

  const isUnderPolicy = (cluster: SimulatedCluster): boolean =>
    state.projects.some(({ id, compliance }) => id === cluster.project && compliance === 'ACTIVE');

  const updateCluster = (cluster: SimulatedCluster, body: unknown): void => {
    pick(body, ['backupEnabled', 'pitEnabled', 'terminationProtectionEnabled']);
    const wire = body as Record<string, unknown>;
    const odd = Object.entries(wire).find(([, value]) => typeof value !== 'boolean');
    if (odd !== undefined) throw new Refused(400, 'INVALID_ATTRIBUTE', 'Bad Request', [odd[0]]);
    if (cluster.kind === 'free') throw new Refused(400, 'TENANT_CLUSTER_UPDATE_UNSUPPORTED', 'Bad Request');
    if (cluster.paused) throw new Refused(409, 'CANNOT_UPDATE_PAUSED_CLUSTER', 'Conflict');
    const {
      backupEnabled = cluster.backups,
      pitEnabled,
      terminationProtectionEnabled,
    } = wire as Record<string, boolean | undefined>;
    const pitr = pitEnabled ?? (cluster.pitr && backupEnabled);
    if (pitr && !backupEnabled) throw new Refused(400, 'INVALID_ATTRIBUTE', 'Bad Request', ['pitEnabled']);
    if (isUnderPolicy(cluster) && ((cluster.backups && !backupEnabled) || (cluster.pitr && !pitr))) {
      throw new Refused(403, 'BACKUP_COMPLIANCE_POLICY_VIOLATION', 'Forbidden');
    }
    // Without backup there is nothing left to restore; a log that begins again knows nothing of before.
    if (!backupEnabled) cluster.snapshots = [];
    if (backupEnabled && !cluster.backups) Object.assign(cluster, defaultSchedule());
    if (pitr && !cluster.pitr) cluster.pitrSince = now();
    Object.assign(cluster, {
      backups: backupEnabled,
      pitr,
      protected: terminationProtectionEnabled ?? cluster.protected,
      updatingUntil: now() + state.updateMs,
    });
  };

  const readPolicy = (given: unknown): SimulatedPolicyItem[] => {
    const bad = (): Refused => new Refused(400, 'INVALID_ATTRIBUTE', 'Bad Request', ['policies']);
    const [policy, ...more] = Array.isArray(given) ? given : [];
    if (!isObject(policy) || more.length > 0 || !Array.isArray(policy['policyItems'])) throw bad();
    pick(policy, ['id', 'policyItems']);
    const items = policy['policyItems'].map((item: unknown): SimulatedPolicyItem => {
      pick(item, ['frequencyType', 'frequencyInterval', 'retentionUnit', 'retentionValue']);
      const { frequencyType, frequencyInterval, retentionUnit, retentionValue } = item as Record<string, unknown>;
      const type = String(frequencyType);
      const read = policyItem(type, Number(frequencyInterval), String(retentionUnit), Number(retentionValue));
      const takes = INTERVALS[type]?.includes(read.frequencyInterval) === true;
      const keeps = read.retentionValue >= 1 && daysKept(read) >= (LEAST_DAYS[type] ?? 1);
      if (!takes || !keeps) throw bad();
      return read;
    });
    let atLeast = 0;
    for (const type of Object.keys(INTERVALS)) {
      const kept = items.filter(({ frequencyType }) => frequencyType === type).map(daysKept);
      if ((type === 'hourly' || type === 'daily') && kept.length > 1) throw bad();
      if (kept.some((days) => days < atLeast)) throw bad();
      atLeast = Math.max(atLeast, ...kept);
    }
    return items;
  };

  const updateSchedule = (cluster: SimulatedCluster, body: unknown): void => {
    pick(body, ['policies', 'referenceHourOfDay', 'referenceMinuteOfHour', 'restoreWindowDays']);
    const wire = body as Record<string, unknown>;
    const number = (name: string, fallback: number, least: number, most: number): number => {
      const value = wire[name] ?? fallback;
      if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) return value;
      throw new Refused(400, 'INVALID_ATTRIBUTE', 'Bad Request', [name]);
    };
    const hour = number('referenceHourOfDay', cluster.hour, 0, 23);
    const minute = number('referenceMinuteOfHour', cluster.minute, 0, 59);
    const policy = readPolicy(wire['policies']);
    const hourly = policy.find(({ frequencyType }) => frequencyType === 'hourly');
    const most = hourly === undefined ? 3650 : daysKept(hourly);
    const windowDays =
      wire['restoreWindowDays'] === undefined ? cluster.windowDays : number('restoreWindowDays', 0, 1, most);
    const least = (items: readonly SimulatedPolicyItem[]): number[] =>
      Object.keys(INTERVALS).map((type) =>
        Math.max(0, ...items.filter(({ frequencyType }) => frequencyType === type).map(daysKept)),
      );
    const before = least(cluster.policy);
    const lowers = windowDays < cluster.windowDays || least(policy).some((days, index) => days < (before[index] ?? 0));
    if (isUnderPolicy(cluster) && lowers) throw new Refused(403, 'BACKUP_COMPLIANCE_POLICY_VIOLATION', 'Forbidden');
    // The older part of the log is gone, and widening the window again does not bring it back.
    if (windowDays < cluster.windowDays) {
      cluster.pitrSince = Math.max(cluster.pitrSince, now() - windowDays * DAY);
    }
    Object.assign(cluster, { hour, minute, policy, windowDays });
  };

  const startCollections = (cluster: SimulatedCluster, body: unknown): SimulatedCollectionJob => {
    pick(body, [
      'snapshotId',
      'pointInTimeUtcSeconds',
      'databases',
      'collections',
      'databaseSuffix',
      'collectionSuffix',
      'writeStrategy',
      'indexStrategy',
      'targetGroupId',
      'targetClusterName',
    ]);
    const wire = body as JsonObject;
    const bad = (field: string): Refused => new Refused(400, 'INVALID_ATTRIBUTE', 'Bad Request', [field]);
    const { writeStrategy, indexStrategy, snapshotId, pointInTimeUtcSeconds: seconds } = wire;
    if (writeStrategy !== 'CREATE_NEW' && writeStrategy !== 'OVERWRITE_EXISTING') throw bad('writeStrategy');
    if (!['ALL', 'NONE', 'ALL_EXCEPT_TTL'].includes(String(indexStrategy))) throw bad('indexStrategy');
    if ((snapshotId === undefined) === (seconds === undefined)) throw bad('snapshotId');
    if (!cluster.backups) throw notFound('BACKUP_CONFIG_NOT_FOUND');
    const target = targetOf(String(wire['targetGroupId']), String(wire['targetClusterName']), cluster);
    if (target.kind !== 'dedicated') throw bad('targetClusterName');
    let at: number;
    if (seconds === undefined) {
      const snapshot = snapshotOf(cluster, String(snapshotId));
      if (snapshotState(snapshot) !== 'completed') throw new Refused(409, 'SNAPSHOT_NOT_COMPLETED', 'Conflict');
      at = snapshot.beganAt;
    } else {
      at = Number(seconds) * 1000;
      const earliest = Math.max(now() - cluster.windowDays * DAY, cluster.pitrSince);
      if (!cluster.pitr || at < earliest || at > now()) throw new Refused(400, 'INVALID_POINT_IN_TIME', 'Bad Request');
    }
    const names = (field: 'databases' | 'collections'): string[] => {
      const given = wire[field] ?? [];
      if (!Array.isArray(given) || given.length > 100) throw bad(field);
      return given.map((entry) => {
        if (!isObject(entry) || typeof entry['sourceNamespace'] !== 'string') throw bad(field);
        return entry['sourceNamespace'];
      });
    };
    const suffix = (field: 'databaseSuffix' | 'collectionSuffix'): string => {
      if (wire[field] !== undefined && writeStrategy !== 'CREATE_NEW') throw bad(field);
      return String(wire[field] ?? '');
    };
    const held = contentAt(cluster, at);
    const whole = names('databases').flatMap((database) =>
      Object.keys(held[database] ?? {}).map((name) => ({
        source: `${database}.${name}`,
        target: `${database}${suffix('databaseSuffix')}.${name}`,
      })),
    );
    const single = names('collections').map((name) => ({
      source: name,
      target: `${name}${suffix('collectionSuffix')}`,
    }));
    if (names('databases').length + single.length === 0) throw bad('collections');
    const beganAt = now();
    const job: SimulatedCollectionJob = {
      id: newId(beganAt),
      source: cluster,
      target,
      body: wire,
      at,
      namespaces: [...whole, ...single],
      beganAt,
      endsAt: beganAt + state.restoreMs,
      outcome: state.failNext === 'restore' ? 'fails' : 'succeeds',
      applied: false,
    };
    if (job.outcome === 'fails') state.failNext = undefined;
    state.collectionJobs.push(job);
    return job;
  };

  const collectionJobOf = (cluster: SimulatedCluster, id: string): SimulatedCollectionJob => {
    const found = state.collectionJobs.find((job) => job.id === id && job.source === cluster);
    if (found === undefined) throw notFound('RESOURCE_NOT_FOUND');
    return found;
  };

  const documentsOf = (job: SimulatedCollectionJob, { source, state: word }: SimulatedNamespace): number => {
    const [database, collection] = splitName(source);
    return word === undefined ? (contentAt(job.source, job.at)[database]?.[collection] ?? 0) : 0;
  };

  const showCollectionJob = (job: SimulatedCollectionJob): JsonObject => {
    const over = now() >= job.endsAt;
    const total = job.namespaces.reduce((sum, one) => sum + documentsOf(job, one), 0);
    const done = over ? 1 : (now() - job.beganAt) / (job.endsAt - job.beganAt);
    const word = { succeeds: 'SUCCESSFUL', fails: 'FAILED', cancelled: 'CANCELED' }[job.outcome];
    return {
      id: job.id,
      ...job.body,
      state: over || job.outcome === 'cancelled' ? word : now() - job.beganAt < 500 ? 'INITIALIZING' : 'IN_PROGRESS',
      createdAt: iso(job.beganAt),
      ...(over ? { finishedAt: iso(job.endsAt) } : {}),
      ...(over && job.outcome === 'fails' ? { errorMessage: 'the simulated restore failed' } : {}),
      restoredDocuments: Math.floor(total * done),
      totalDocuments: total,
    };
  };

  const jobOf = (cluster: SimulatedCluster, id: string): SimulatedJob => {
    const found = state.jobs.find((job) => job.id === id && job.source === cluster);
    if (found === undefined) throw notFound('RESOURCE_NOT_FOUND');
    return found;
  };

  interface Operation {
    readonly method: string;
    readonly path: RegExp;
    readonly version: string;
    handle(request: SimulatorRequest, parts: string[]): SimulatorResponse;
  }

  const operations: Operation[] = [];
  const on = (method: string, template: string, version: string, handle: Operation['handle']): void => {
    const path = new RegExp(`^/api/atlas/v2${template.replaceAll('*', '([^/]+)')}$`);
    operations.push({ method, path, version, handle });
  };
  const dedicated = (parts: string[]): SimulatedCluster => {
    const cluster = retained(parts);
    if (cluster.deleted) throw notFound('CLUSTER_NOT_FOUND');
    return cluster;
  };
  /** A cluster whose snapshots answer, whether there still is one or not. */
  const retained = (parts: string[]): SimulatedCluster => {
    const cluster = clusterOf(parts[0] as string, parts[1] as string);
    if (cluster.kind === 'flex') throw new Refused(409, 'CANNOT_USE_FLEX_CLUSTER_IN_CLUSTER_API', 'Conflict');
    return cluster;
  };
  const flexible = (parts: string[]): SimulatedCluster => {
    const cluster = clusterOf(parts[0] as string, parts[1] as string);
    if (cluster.deleted) throw notFound('CLUSTER_NOT_FOUND');
    if (cluster.kind !== 'flex') throw new Refused(400, 'CANNOT_USE_NON_FLEX_CLUSTER_IN_FLEX_API', 'Bad Request');
    return cluster;
  };
  /** The newest last, so that a client that wants them otherwise has to sort. */
  const rowsOf = (cluster: SimulatedCluster): SimulatedSnapshot[] => [...cluster.snapshots];

  const P = '/groups/*';
  const C = `${P}/clusters/*`;
  const F = `${P}/flexClusters/*`;
  on('GET', '/groups', '2023-01-01', (request) =>
    page(
      request,
      state.projects.map(({ id, name }) => ({ id, name, orgId: ORGANISATION, clusterCount: 1, created: iso(started) })),
      '2023-01-01',
    ),
  );
  on('GET', `${P}/flexClusters`, '2024-11-13', (request, [project]) =>
    page(
      request,
      state.clusters
        .filter((cluster) => cluster.project === project && cluster.kind === 'flex')
        .map((cluster) => showFlex(cluster, request)),
      '2024-11-13',
    ),
  );
  on('GET', P, '2023-01-01', (request, [project]) => {
    const found = state.projects.find(({ id }) => id === project);
    if (found === undefined) throw notFound('GROUP_NOT_FOUND');
    return answer(200, '2023-01-01', {
      id: found.id,
      name: found.name,
      orgId: ORGANISATION,
      clusterCount: state.clusters.filter((cluster) => cluster.project === found.id && !cluster.deleted).length,
      created: iso(started - 400 * DAY),
      links: links(request),
    });
  });
  on('GET', `${P}/backupCompliancePolicy`, '2023-10-01', (_, [project]) => {
    const { compliance } = state.projects.find(({ id }) => id === project) ?? {};
    if (compliance === undefined) return answer(200, '2023-10-01', {});
    return answer(200, '2023-10-01', {
      projectId: project as string,
      state: compliance,
      authorizedEmail: 'dba@example.com',
      authorizedUserFirstName: 'Ada',
      authorizedUserLastName: 'Bell',
    });
  });
  on('GET', `${P}/clusters`, '2024-08-05', (request, [project]) =>
    page(
      request,
      state.clusters
        .filter((cluster) => cluster.project === project && cluster.kind !== 'flex' && !cluster.deleted)
        .map((cluster) => showCluster(cluster, request)),
      '2024-08-05',
    ),
  );
  on('GET', C, '2024-08-05', (request, parts) => answer(200, '2024-08-05', showCluster(dedicated(parts), request)));
  on('GET', `${C}/backup/schedule`, '2024-08-05', (request, parts) => {
    const cluster = dedicated(parts);
    if (!cluster.backups) throw notFound('BACKUP_CONFIG_NOT_FOUND');
    return answer(200, '2024-08-05', showSchedule(cluster, request));
  });
  on('PATCH', C, '2024-10-23', (request, parts) => {
    const cluster = dedicated(parts);
    updateCluster(cluster, request.json);
    return answer(200, '2024-10-23', showCluster(cluster, request));
  });
  on('PATCH', `${C}/backup/schedule`, '2024-08-05', (request, parts) => {
    const cluster = dedicated(parts);
    if (!cluster.backups) throw notFound('BACKUP_CONFIG_NOT_FOUND');
    updateSchedule(cluster, request.json);
    return answer(200, '2024-08-05', showSchedule(cluster, request));
  });
  on('GET', `${C}/backup/snapshots`, '2023-01-01', (request, parts) => {
    const cluster = retained(parts);
    const rows = cluster.shards > 0 ? [] : rowsOf(cluster);
    return page(
      request,
      rows.map((snapshot) => showSnapshot(cluster, snapshot, request)),
      '2023-01-01',
    );
  });
  on('POST', `${C}/backup/snapshots`, '2023-01-01', (request, parts) => {
    const cluster = retained(parts);
    return answer(200, '2023-01-01', showSnapshot(cluster, takeSnapshot(dedicated(parts), request.json), request));
  });
  on('GET', `${C}/backup/snapshots/shardedClusters`, '2023-01-01', (request, parts) => {
    const cluster = retained(parts);
    const rows = cluster.shards > 0 ? rowsOf(cluster) : [];
    return answer(200, '2023-01-01', {
      results: rows.map((snapshot) => showSnapshot(cluster, snapshot, request)),
      totalCount: rows.length,
      links: links(request),
    });
  });
  for (const infix of ['', '/shardedCluster']) {
    const reach = (parts: string[]): [SimulatedCluster, SimulatedSnapshot] => {
      const cluster = retained(parts);
      if (cluster.shards > 0 !== (infix !== '')) throw notFound('SNAPSHOT_NOT_FOUND');
      return [cluster, snapshotOf(cluster, parts[2] as string)];
    };
    on('GET', `${C}/backup/snapshots${infix}/*`, '2023-01-01', (request, parts) => {
      const [cluster, snapshot] = reach(parts);
      return answer(200, '2023-01-01', showSnapshot(cluster, snapshot, request));
    });
    on('DELETE', `${C}/backup/snapshots${infix}/*`, '2023-01-01', (_, parts) => {
      const [cluster, snapshot] = reach(parts);
      if (isUnderPolicy(cluster)) {
        throw new Refused(403, 'BACKUP_COMPLIANCE_POLICY_VIOLATION', 'Forbidden');
      }
      cluster.snapshots = cluster.snapshots.filter((candidate) => candidate !== snapshot);
      return answer(204, '2023-01-01');
    });
  }
  on('GET', `${C}/backup/snapshots/*/databases`, '2025-03-12', (request, parts) => {
    const cluster = retained(parts);
    const snapshot = snapshotOf(cluster, parts[2] as string);
    const names = Object.keys(contentAt(cluster, snapshot.beganAt)).sort();
    return page(
      request,
      names.map((name) => ({ name, links: [] })),
      '2025-03-12',
    );
  });
  on('GET', `${C}/backup/snapshots/*/databases/*/collections`, '2025-03-12', (request, parts) => {
    const cluster = dedicated(parts);
    const snapshot = snapshotOf(cluster, parts[2] as string);
    const names = Object.keys(contentAt(cluster, snapshot.beganAt)[parts[3] as string] ?? {}).sort();
    return page(
      request,
      names.map((name) => ({ name, links: [] })),
      '2025-03-12',
    );
  });
  on('GET', `${C}/collectionRestoreJobs`, '2025-03-12', (request, parts) => {
    const cluster = dedicated(parts);
    const own = state.collectionJobs.filter(({ source }) => source === cluster);
    return page(request, own.map(showCollectionJob), '2025-03-12');
  });
  on('POST', `${C}/collectionRestoreJobs`, '2025-03-12', (request, parts) =>
    answer(201, '2025-03-12', showCollectionJob(startCollections(dedicated(parts), request.json))),
  );
  on('GET', `${C}/collectionRestoreJobs/*`, '2025-03-12', (_, parts) =>
    answer(200, '2025-03-12', showCollectionJob(collectionJobOf(dedicated(parts), parts[2] as string))),
  );
  on('GET', `${C}/collectionRestoreJobs/*/collections`, '2025-03-12', (request, parts) => {
    const job = collectionJobOf(dedicated(parts), parts[2] as string);
    const over = now() >= job.endsAt && job.outcome === 'succeeds';
    return page(
      request,
      job.namespaces.map((one) => ({
        sourceNamespace: one.source,
        effectiveTargetNamespace: one.target,
        state: one.state ?? (over ? 'SUCCESSFUL' : 'IN_PROGRESS'),
        restoredDocuments: over ? documentsOf(job, one) : 0,
        totalDocuments: documentsOf(job, one),
      })),
      '2025-03-12',
    );
  });
  on('GET', `${C}/backup/restoreJobs`, '2023-01-01', (request, parts) => {
    const cluster = retained(parts);
    return page(
      request,
      state.jobs.filter(({ source }) => source === cluster).map((job) => showJob(job, request)),
      '2023-01-01',
    );
  });
  on('POST', `${C}/backup/restoreJobs`, '2023-01-01', (request, parts) =>
    answer(200, '2023-01-01', showJob(startRestore(retained(parts), request.json), request)),
  );
  on('GET', `${C}/backup/restoreJobs/*`, '2023-01-01', (request, parts) =>
    answer(200, '2023-01-01', showJob(jobOf(retained(parts), parts[2] as string), request)),
  );
  on('GET', `${P}/dbAccessHistory/clusters/*`, '2023-01-01', (_, parts) => {
    const cluster = dedicated(parts);
    if (cluster.name !== 'sandbox-cluster') return answer(200, '2023-01-01', { accessLogs: [] });
    const log = (username: string, ipAddress: string): JsonObject => ({
      authResult: true,
      authSource: 'admin',
      groupId: cluster.project,
      hostname: `${cluster.name}-shard-00-00.a1b2c.mongodb.net`,
      ipAddress,
      timestamp: new Date(now() - 600_000).toUTCString(),
      username,
    });
    return answer(200, '2023-01-01', {
      accessLogs: [log('shop-api', '10.1.4.7'), log('shop-api', '10.1.4.7'), log('shop-worker', '10.1.4.9')],
    });
  });
  on('GET', F, '2024-11-13', (request, parts) => answer(200, '2024-11-13', showFlex(flexible(parts), request)));
  on('GET', `${F}/backup/snapshots`, '2024-11-13', (request, parts) =>
    page(
      request,
      rowsOf(flexible(parts)).map((snapshot) => showFlexSnapshot(snapshot, request)),
      '2024-11-13',
    ),
  );
  on('GET', `${F}/backup/snapshots/*`, '2024-11-13', (request, parts) =>
    answer(200, '2024-11-13', showFlexSnapshot(snapshotOf(flexible(parts), parts[2] as string), request)),
  );
  on('GET', `${F}/backup/restoreJobs`, '2024-11-13', (request, parts) => {
    const cluster = flexible(parts);
    return page(
      request,
      state.jobs.filter(({ source }) => source === cluster).map((job) => showFlexJob(job, request)),
      '2024-11-13',
    );
  });
  on('POST', `${F}/backup/restoreJobs`, '2024-11-13', (request, parts) =>
    answer(200, '2024-11-13', showFlexJob(startFlexRestore(flexible(parts), request.json), request)),
  );
  on('GET', `${F}/backup/restoreJobs/*`, '2024-11-13', (request, parts) =>
    answer(200, '2024-11-13', showFlexJob(jobOf(flexible(parts), parts[2] as string), request)),
  );

  const handle = (request: SimulatorRequest): SimulatorResponse => {
    if (request.url.pathname === '/api/oauth/token') return giveToken(request);
    const refusal = checkAccess(request);
    if (refusal !== undefined) return refusal;
    settle();
    const { pathname } = request.url;
    const found = operations.filter(({ path }) => path.test(pathname));
    const operation = found.find(({ method }) => method === request.method);
    try {
      if (found.length === 0) throw notFound('RESOURCE_NOT_FOUND');
      if (operation === undefined) throw new Refused(405, 'METHOD_NOT_ALLOWED', 'Method Not Allowed');
      checkVersion(request.headers['accept'], operation.version, 'accept');
      if (request.text !== '') checkVersion(request.headers['content-type'], operation.version, 'content-type');
      for (const [call, code] of state.denied) {
        const [method, fragment = ''] = call.split(' ');
        if (method === request.method && pathname.includes(fragment)) throw new Refused(403, code, 'Forbidden');
      }
      const parts = (operation.path.exec(pathname) ?? []).slice(1).map(decodeURIComponent);
      if (parts.length > 0 && !state.projects.some(({ id }) => id === parts[0])) throw notFound('GROUP_NOT_FOUND');
      return operation.handle(request, parts);
    } catch (cause) {
      if (cause instanceof Refused) return cause.response;
      throw cause;
    }
  };

  return {
    provider: 'mongodb-atlas',
    matches: ({ url }) => url.pathname.startsWith('/api/atlas/') || url.pathname === '/api/oauth/token',
    writes: ({ method, url }) => method !== 'GET' && method !== 'HEAD' && url.pathname !== '/api/oauth/token',
    handle,
    state,
  };
}
