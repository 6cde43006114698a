import { createHash, randomUUID } from 'node:crypto';
import type { Simulator, SimulatorOptions, SimulatorRequest, SimulatorResponse } from './simulator.ts';

const ACCOUNT = '123456789012';
const VERSION = '2014-10-31';
const NAMESPACE = `http://rds.amazonaws.com/doc/${VERSION}/`;
const MINUTE = 60_000;
const DAY = 86_400_000;

/** What the sandbox starts with; tests refer to it by these names. */
export const RDS_SANDBOX = {
  account: ACCOUNT,
  region: 'us-east-1',
  instance: 'orders-postgres',
  cluster: 'shop-aurora',
  unprotected: 'legacy-mysql',
  restored: 'restored-db',
  gone: 'old-reports',
} as const;

/** Rows by table: enough to see what a restore brought back. */
export type RdsContent = Record<string, number>;

interface Timed {
  at: number;
  content: RdsContent;
}

interface Common {
  id: string;
  region: string;
  resourceId: string;
  engine: string;
  version: string;
  createdAt: number;
  readyAt: number;
  /** Set by a test; otherwise the clock says it. */
  status?: string | undefined;
  /** The status that a restore ends with instead of `available`. */
  endsAs?: string | undefined;
  retentionDays: number;
  backupWindow: string;
  maintenanceWindow: string;
  deletionProtection: boolean;
  kmsKeyId?: string | undefined;
  subnetGroup: string;
  securityGroups: string[];
  parameterGroup: string;
  public: boolean;
  port: number;
  copyTags: boolean;
  iamAuth: boolean;
  logs: string[];
  tags: Map<string, string>;
  /** What waits for the maintenance window, or for `changesAt`. */
  pendingRetention?: number | undefined;
  pendingVersion?: string | undefined;
  /** When what is pending is applied, or the retention alone; until then the database is being modified. */
  changesAt?: number | undefined;
  changes?: 'everything' | 'retention';
  /** Before it there are no automated backups any more, or there never were any. */
  backupsSince?: number | undefined;
  awsBackup?: string | undefined;
  /** What was in it since when, oldest first; the last one is now. */
  history: Timed[];
}

export interface SimulatedInstance extends Common {
  class: string;
  allocatedGib: number;
  storageType: string;
  iops: number;
  throughput: number;
  multiAz: boolean;
  optionGroup: string;
  maxAllocatedGib?: number | undefined;
  cluster?: string | undefined;
  promotionTier: number;
  /** After `readyAt` the volume still loads until then. */
  loadedAt: number;
  replicaOf?: string | undefined;
}

export interface SimulatedCluster extends Common {
  members: string[];
  /** Of a Multi-AZ DB cluster, whose instances the service makes. */
  class?: string | undefined;
  /** Minimum and maximum of Serverless v2. */
  capacity?: [number, number] | undefined;
  backtrackSeconds: number;
}

export interface SimulatedSnapshot {
  kind: 'instance' | 'cluster';
  id: string;
  region: string;
  of: string;
  resourceId: string;
  type: string;
  createdAt: number;
  originalAt: number;
  readyAt: number;
  status?: string | undefined;
  deletedAt?: number | undefined;
  engine: string;
  version: string;
  allocatedGib: number;
  kmsKeyId?: string | undefined;
  source?: string | undefined;
  sharedWith: string[];
  tags: Map<string, string>;
  content: RdsContent;
}

interface Retained {
  id: string;
  region: string;
  resourceId: string;
  engine: string;
  version: string;
  from: number;
  to: number;
  history: Timed[];
}

interface SimulatedEvent {
  kind: 'instance' | 'cluster';
  id: string;
  region: string;
  at: number;
  message: string;
  category: string;
}

/** What a test may look at and set. */
export interface RdsState {
  readonly instances: SimulatedInstance[];
  readonly clusters: SimulatedCluster[];
  readonly snapshots: SimulatedSnapshot[];
  readonly retained: Retained[];
  readonly events: SimulatedEvent[];
  /** In ms of the clock. */
  readonly durations: { snapshot: number; restore: number; load: number; remove: number; modify: number };
  /** Operations that the caller may not use, `CreateDBSnapshot`. */
  readonly denied: Set<string>;
  /** Whether all credentials are refused. */
  unauthenticated: boolean;
  /** Errors that the next calls of an operation end with, one each. */
  readonly failNext: { operation: string; code: string; status: number }[];
  /** The status that the next restore ends with instead of `available`. */
  restoreEndsAs: string | undefined;
  readonly subnetGroups: Set<string>;
  readonly parameterGroups: Set<string>;
  readonly optionGroups: Set<string>;
  readonly quotas: { DBInstances: number; DBClusters: number; ManualSnapshots: number; ManualClusterSnapshots: number };
  /** How many items a page has at most, whatever is asked for. */
  pageSize: number;
  instance(id: string, region?: string): SimulatedInstance;
  cluster(id: string, region?: string): SimulatedCluster;
  contentOf(database: SimulatedInstance | SimulatedCluster): RdsContent;
}

export interface RdsSimulator extends Simulator {
  readonly state: RdsState;
}

// --- the wire ------------------------------------------------------------------------------------------------------

class Refusal extends Error {
  readonly status: number;
  readonly code: string;
  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

type Xml = string | number | boolean | Date | undefined | Xml[] | { [name: string]: Xml };

/** How the items of each list are called, as the service has it. */
const ITEMS: Readonly<Record<string, string>> = {
  AccountQuotas: 'AccountQuota',
  AttributeValues: 'AttributeValue',
  AvailabilityZones: 'AvailabilityZone',
  DBClusterAutomatedBackups: 'DBClusterAutomatedBackup',
  DBClusterMembers: 'DBClusterMember',
  DBClusterSnapshotAttributes: 'DBClusterSnapshotAttribute',
  DBClusterSnapshots: 'DBClusterSnapshot',
  DBClusters: 'DBCluster',
  DBInstanceAutomatedBackups: 'DBInstanceAutomatedBackup',
  DBInstances: 'DBInstance',
  DBParameterGroups: 'DBParameterGroup',
  DBSnapshotAttributes: 'DBSnapshotAttribute',
  DBSnapshots: 'DBSnapshot',
  EnabledCloudwatchLogsExports: 'member',
  EventCategories: 'EventCategory',
  Events: 'Event',
  OptionGroupMemberships: 'OptionGroupMembership',
  TagList: 'Tag',
  VpcSecurityGroups: 'VpcSecurityGroupMembership',
};

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function element(name: string, value: Xml): string {
  if (value === undefined) return '';
  if (value instanceof Date) return `<${name}>${value.toISOString()}</${name}>`;
  if (Array.isArray(value)) {
    return value.length === 0
      ? `<${name}/>`
      : `<${name}>${value.map((item) => element(ITEMS[name] ?? 'member', item)).join('')}</${name}>`;
  }
  if (typeof value === 'object') {
    return `<${name}>${Object.entries(value)
      .map(([key, member]) => element(key, member))
      .join('')}</${name}>`;
  }
  return `<${name}>${escaped(String(value))}</${name}>`;
}

function operationOf({ text }: SimulatorRequest): string {
  return new URLSearchParams(text).get('Action') ?? '';
}

function scopeOf(request: SimulatorRequest): { region: string; service: string } | undefined {
  const match =
    /^AWS4-HMAC-SHA256 Credential=[^/,\s]+\/\d{8}\/([a-z0-9-]+)\/([a-z0-9-]+)\/aws4_request,\s*SignedHeaders=[a-z0-9;-]+,\s*Signature=[0-9a-f]{64}$/.exec(
      request.headers['authorization'] ?? '',
    );
  return match === null ? undefined : { region: match[1] ?? '', service: match[2] ?? '' };
}

function authenticate(request: SimulatorRequest, state: RdsState): string {
  if (request.headers['authorization'] === undefined) {
    throw new Refusal(403, 'MissingAuthenticationToken', 'Request is missing Authentication Token');
  }
  const scope = scopeOf(request);
  if (scope === undefined || !/^\d{8}T\d{6}Z$/.test(request.headers['x-amz-date'] ?? '')) {
    throw new Refusal(400, 'IncompleteSignature', 'Authorization header requires Credential, SignedHeaders, Signature');
  }
  if (scope.service !== 'rds') throw new Refusal(403, 'SignatureDoesNotMatch', 'Credential should be scoped to rds');
  const hash = request.headers['x-amz-content-sha256'];
  if (hash !== undefined && hash !== createHash('sha256').update(request.text).digest('hex')) {
    throw new Refusal(403, 'SignatureDoesNotMatch', 'The request signature does not match');
  }
  if (state.unauthenticated) {
    throw new Refusal(403, 'InvalidClientTokenId', 'The security token included in the request is invalid.');
  }
  return scope.region;
}

/** The parameters of a Query request. */
class Parameters {
  readonly #all: URLSearchParams;
  constructor(text: string) {
    this.#all = new URLSearchParams(text);
  }
  text(name: string): string | undefined {
    return this.#all.get(name) ?? undefined;
  }
  required(name: string): string {
    const value = this.text(name);
    if (value) return value;
    throw new Refusal(400, 'MissingParameter', `The request must contain the parameter ${name}.`);
  }
  flag(name: string): boolean | undefined {
    const value = this.text(name);
    return value === undefined ? undefined : value === 'true';
  }
  number(name: string): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    if (!/^-?\d+(\.\d+)?$/.test(value)) throw new Refusal(400, 'MalformedInput', `${name} is not a number`);
    return Number(value);
  }
  instant(name: string): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    const at = Date.parse(value);
    if (Number.isNaN(at)) throw invalidValue(`${name} is not a timestamp`);
    return at;
  }
  list(prefix: string): string[] {
    const values: string[] = [];
    for (let index = 1; this.#all.has(`${prefix}.${index}`); index += 1)
      values.push(this.text(`${prefix}.${index}`) ?? '');
    return values;
  }
  tags(): Map<string, string> {
    const tags = new Map<string, string>();
    for (let index = 1; this.#all.has(`Tags.Tag.${index}.Key`); index += 1) {
      const key = this.text(`Tags.Tag.${index}.Key`) ?? '';
      if (key.toLowerCase().startsWith('aws:')) throw invalidValue('Tag keys must not start with aws:');
      tags.set(key, this.text(`Tags.Tag.${index}.Value`) ?? '');
    }
    if (tags.size > 50) throw invalidValue('more than 50 tags');
    return tags;
  }
}

function invalidValue(message: string): Refusal {
  return new Refusal(400, 'InvalidParameterValue', message);
}

const NAME = /^[a-z](?:-?[a-z0-9])*$/;

function newName(text: string, longest: number): string {
  const name = text.toLowerCase();
  if (name.length > longest || !NAME.test(name)) throw invalidValue(`The parameter ${text} is not a valid identifier.`);
  return name;
}

const MINUTES_OF_WEEK = 7 * 24 * 60;

/** The minutes of a week that a window covers: `03:00-04:00` each day, `sun:05:00-sun:06:00` once. */
function minutesOf(window: string): Set<number> {
  const days = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'];
  const weekly = /^([a-z]{3}):(\d\d):(\d\d)-([a-z]{3}):(\d\d):(\d\d)$/.exec(window);
  const daily = /^(\d\d):(\d\d)-(\d\d):(\d\d)$/.exec(window);
  const at = (day: number, hour: string | undefined, minute: string | undefined): number =>
    day * 1440 + Number(hour) * 60 + Number(minute);
  const spans: [number, number][] =
    weekly !== null
      ? [
          [
            at(days.indexOf(weekly[1] ?? ''), weekly[2], weekly[3]),
            at(days.indexOf(weekly[4] ?? ''), weekly[5], weekly[6]),
          ],
        ]
      : daily !== null
        ? days.map((_, day) => {
            const [from, to] = [at(day, daily[1], daily[2]), at(day, daily[3], daily[4])];
            return [from, to < from ? to + 1440 : to];
          })
        : [];
  const minutes = new Set<number>();
  for (const [from, to] of spans) {
    const end = to < from ? to + MINUTES_OF_WEEK : to;
    if (end - from < 30) return new Set();
    for (let minute = from; minute < end; minute += 1) minutes.add(minute % MINUTES_OF_WEEK);
  }
  return minutes;
}

function checkWindows(backup: string, maintenance: string): void {
  const [taken, asked] = [minutesOf(backup), minutesOf(maintenance)];
  if (taken.size === 0) throw invalidValue(`Invalid backup window format: ${backup}`);
  if (asked.size === 0) throw invalidValue(`Invalid maintenance window format: ${maintenance}`);
  if (![...asked].some((minute) => taken.has(minute))) return;
  throw invalidValue('The backup window and maintenance window must not overlap.');
}

const RESOURCE = { instance: 'db', cluster: 'cluster' } as const;
const SNAPSHOT = { instance: 'snapshot', cluster: 'cluster-snapshot' } as const;

function arn(region: string, type: string, id: string): string {
  return `arn:aws:rds:${region}:${ACCOUNT}:${type}:${id}`;
}

function familyOf(engine: string, version: string): string {
  const parts = version.split('.');
  return `${engine}${engine.includes('postgres') ? parts[0] : parts.slice(0, 2).join('.')}`;
}

// --- the fleet -----------------------------------------------------------------------------------------------------

function seed(state: RdsState, now: number): void {
  const { region } = RDS_SANDBOX;
  const key =
    arn(region, 'key', '').replace(':rds:', ':kms:').replace(':key:', ':key/') + '7d1b0c52-0000-4000-8000-5a1ad5a1ad5a';
  const common = (id: string, resourceId: string, age: number): Common => ({
    id,
    region,
    resourceId,
    engine: 'postgres',
    version: '16.4',
    createdAt: now - age,
    readyAt: now - age,
    retentionDays: 14,
    backupWindow: '03:00-04:00',
    maintenanceWindow: 'sun:05:00-sun:06:00',
    deletionProtection: true,
    kmsKeyId: key,
    subnetGroup: 'private-subnets',
    securityGroups: ['sg-0a1b2c3d4e5f60718'],
    parameterGroup: 'orders-postgres16',
    public: false,
    port: 5432,
    copyTags: true,
    iamAuth: true,
    logs: ['postgresql'],
    tags: new Map([
      ['team', 'orders'],
      ['backup-plan', 'gold'],
    ]),
    history: [],
  });
  const storage = { allocatedGib: 200, storageType: 'gp3', iops: 3000, throughput: 125 };
  const orders: SimulatedInstance = {
    ...common(RDS_SANDBOX.instance, 'db-ORDERSPOSTGRES0000000000', 400 * DAY),
    ...storage,
    class: 'db.m6g.large',
    multiAz: true,
    optionGroup: 'default:postgres-16',
    maxAllocatedGib: 1000,
    promotionTier: 1,
    loadedAt: 0,
    history: [
      { at: now - 400 * DAY, content: { orders: 1_000, customers: 200 } },
      { at: now - 12 * 3_600_000, content: { orders: 5_000, customers: 900 } },
      { at: now - 600_000, content: { orders: 5_120, customers: 904 } },
    ],
  };
  const legacy: SimulatedInstance = {
    ...common(RDS_SANDBOX.unprotected, 'db-LEGACYMYSQL000000000000', 900 * DAY),
    ...storage,
    engine: 'mysql',
    version: '8.0.39',
    class: 'db.t3.medium',
    allocatedGib: 20,
    storageType: 'gp2',
    iops: 0,
    throughput: 0,
    retentionDays: 0,
    deletionProtection: false,
    kmsKeyId: undefined,
    parameterGroup: 'default.mysql8.0',
    public: true,
    port: 3306,
    copyTags: false,
    iamAuth: false,
    logs: [],
    tags: new Map(),
    multiAz: false,
    optionGroup: 'default:mysql-8-0',
    promotionTier: 1,
    loadedAt: 0,
    history: [{ at: now - 900 * DAY, content: { invoices: 77 } }],
  };
  const restored: SimulatedInstance = {
    ...orders,
    ...common(RDS_SANDBOX.restored, 'db-RESTOREDDB0000000000000', DAY),
    class: 'db.m6g.large',
    tags: new Map([['holdfast:restored-from', arn(region, 'snapshot', 'before-upgrade')]]),
    history: [{ at: now - DAY, content: { orders: 4_000, customers: 800 } }],
  };
  const aurora = (id: string, resourceId: string, age: number): SimulatedCluster => ({
    ...common(id, resourceId, age),
    engine: 'aurora-postgresql',
    version: '16.4',
    retentionDays: 7,
    parameterGroup: 'shop-aurora16',
    tags: new Map([['team', 'shop']]),
    members: [`${id}-1`, `${id}-2`],
    capacity: [0.5, 8],
    backtrackSeconds: 0,
    history: [
      { at: now - age, content: { carts: 10, products: 400 } },
      { at: now - 3_600_000, content: { carts: 900, products: 410 } },
    ],
  });
  const member = (cluster: SimulatedCluster, index: number): SimulatedInstance => ({
    ...cluster,
    ...storage,
    id: `${cluster.id}-${index}`,
    resourceId: `db-${cluster.id.toUpperCase().replaceAll('-', '')}${index}0000000000`,
    class: 'db.serverless',
    multiAz: false,
    optionGroup: 'default:aurora-postgresql-16',
    parameterGroup: 'default.aurora-postgresql16',
    cluster: cluster.id,
    promotionTier: index === 1 ? 0 : 1,
    loadedAt: 0,
    deletionProtection: false,
    history: [],
    tags: new Map([['team', 'shop']]),
  });
  const shop = aurora(RDS_SANDBOX.cluster, 'cluster-SHOPAURORA00000000000', 300 * DAY);
  const copy = aurora(RDS_SANDBOX.restored, 'cluster-RESTOREDDB00000000000', DAY);
  copy.tags = new Map([['holdfast:restored-from', `${RDS_SANDBOX.cluster}@latest`]]);
  state.clusters.push(shop, copy);
  state.instances.push(orders, legacy, restored);
  for (const cluster of [shop, copy]) state.instances.push(member(cluster, 1), member(cluster, 2));
  state.retained.push({
    id: RDS_SANDBOX.gone,
    region,
    resourceId: 'db-OLDREPORTS0000000000000',
    engine: 'mysql',
    version: '8.0.39',
    from: now - 20 * DAY,
    to: now - 6 * DAY,
    history: [{ at: now - 20 * DAY, content: { reports: 31 } }],
  });
  const snapshot = (of: SimulatedInstance | SimulatedCluster, id: string, at: number, type: string): void => {
    const cluster = 'members' in of;
    state.snapshots.push({
      kind: cluster ? 'cluster' : 'instance',
      id,
      region,
      of: of.id,
      resourceId: of.resourceId,
      type,
      createdAt: at,
      originalAt: at,
      readyAt: at,
      engine: of.engine,
      version: of.version,
      allocatedGib: cluster ? 1 : of.allocatedGib,
      kmsKeyId: of.kmsKeyId,
      sharedWith: [],
      tags: new Map(),
      content: { ...contentAt(of.history, at) },
    });
  };
  for (let day = 3; day >= 1; day -= 1) {
    for (const source of [orders, shop]) {
      const at =
        Math.floor(now / DAY) * DAY - (day - 1) * DAY + (3 * 60 + 7) * MINUTE - (now % DAY < 190 * MINUTE ? DAY : 0);
      const stamp = new Date(at).toISOString().slice(0, 16).replace(/[T:]/g, '-');
      snapshot(source, `rds:${source.id}-${stamp}`, at, 'automated');
    }
  }
  snapshot(orders, 'before-upgrade', now - 9 * DAY, 'manual');
  snapshot(orders, 'orders-quarter-end', now - 50 * DAY, 'manual');
  snapshot(shop, 'before-upgrade', now - 8 * DAY, 'manual');
  snapshot(shop, 'shop-before-sale', now - 30 * DAY, 'manual');
  snapshot(legacy, 'legacy-last-year', now - 380 * DAY, 'manual');
}

function contentAt(history: readonly Timed[], at: number): RdsContent {
  return history.filter((one) => one.at <= at).at(-1)?.content ?? history[0]?.content ?? {};
}

// --- the service ---------------------------------------------------------------------------------------------------

/** Imitates Amazon RDS: instances, Aurora clusters, snapshots and restores, by the published Query API of 2014-10-31. */
export function awsRdsSimulator({ clock }: SimulatorOptions): RdsSimulator {
  const now = (): number => clock.now().getTime();
  const byId = <T extends { id: string; region: string }>(
    all: readonly T[],
    id: string,
    region: string,
  ): T | undefined => all.find((one) => one.id === id.toLowerCase() && one.region === region);
  const state: RdsState = {
    instances: [],
    clusters: [],
    snapshots: [],
    retained: [],
    events: [],
    durations: { snapshot: 2000, restore: 3000, load: 4000, remove: 300, modify: 1000 },
    denied: new Set(),
    unauthenticated: false,
    failNext: [],
    restoreEndsAs: undefined,
    subnetGroups: new Set(['default', 'private-subnets', 'other-subnets']),
    parameterGroups: new Set([
      'orders-postgres16',
      'shop-aurora16',
      'default.mysql8.0',
      'default.aurora-postgresql16',
      'default.postgres16',
    ]),
    optionGroups: new Set(['default:postgres-16', 'default:mysql-8-0', 'default:aurora-postgresql-16']),
    quotas: { DBInstances: 40, DBClusters: 40, ManualSnapshots: 100, ManualClusterSnapshots: 100 },
    pageSize: 100,
    instance: (id, region = RDS_SANDBOX.region) => byId(state.instances, id, region)!,
    cluster: (id, region = RDS_SANDBOX.region) => byId(state.clusters, id, region)!,
    contentOf: (database) => contentAt(database.history, now()),
  };
  seed(state, now());

  const statusOf = (database: Common): string =>
    database.status ??
    (now() < database.readyAt
      ? 'creating'
      : database.changesAt !== undefined
        ? 'modifying'
        : (database.endsAs ?? 'available'));
  const latestOf = (database: Common): Date | undefined => {
    if (database.retentionDays === 0 || now() < database.readyAt) return undefined;
    const latest = Math.floor((now() - 5 * MINUTE) / MINUTE) * MINUTE;
    return latest <= Math.max(database.createdAt, database.backupsSince ?? 0) ? undefined : new Date(latest);
  };
  const earliestOf = (database: Common): Date =>
    new Date(
      Math.max(
        database.createdAt,
        database.backupsSince ?? 0,
        Math.floor((now() - database.retentionDays * DAY) / DAY) * DAY,
      ),
    );
  const snapshotStatus = (snapshot: SimulatedSnapshot): string =>
    snapshot.status ??
    (snapshot.deletedAt !== undefined ? 'deleting' : now() < snapshot.readyAt ? 'creating' : 'available');

  const tagList = (tags: Map<string, string>): Xml => [...tags].map(([Key, Value]) => ({ Key, Value }));
  const groupList = (ids: string[]): Xml => ids.map((id) => ({ VpcSecurityGroupId: id, Status: 'active' }));
  const pendingOf = (database: Common): Xml => ({
    BackupRetentionPeriod: database.pendingRetention,
    EngineVersion: database.pendingVersion,
  });
  const host = (id: string, kind: string, region: string): string =>
    `${id}.${kind}c0ffee00abcd.${region}.rds.amazonaws.com`;

  const instanceXml = (one: SimulatedInstance): Xml => {
    const loading = statusOf(one) === 'available' && now() < one.loadedAt;
    return {
      DBInstanceIdentifier: one.id,
      DBInstanceArn: arn(one.region, 'db', one.id),
      DbiResourceId: one.resourceId,
      DBInstanceClass: one.class,
      DBInstanceStatus: statusOf(one),
      Engine: one.engine,
      EngineVersion: one.version,
      ...(now() < one.readyAt
        ? {}
        : {
            InstanceCreateTime: new Date(one.createdAt),
            Endpoint: { Address: host(one.id, '', one.region), Port: one.port, HostedZoneId: 'Z2R2ITUGPM61AM' },
          }),
      AllocatedStorage: one.cluster === undefined ? one.allocatedGib : 1,
      StorageType: one.cluster === undefined ? one.storageType : 'aurora',
      ...(one.iops > 0 && one.cluster === undefined ? { Iops: one.iops, StorageThroughput: one.throughput } : {}),
      ...(one.maxAllocatedGib === undefined ? {} : { MaxAllocatedStorage: one.maxAllocatedGib }),
      MultiAZ: one.multiAz,
      PubliclyAccessible: one.public,
      BackupRetentionPeriod: one.retentionDays,
      PreferredBackupWindow: one.backupWindow,
      PreferredMaintenanceWindow: one.maintenanceWindow,
      ...(one.cluster === undefined ? { LatestRestorableTime: latestOf(one) } : {}),
      DeletionProtection: one.deletionProtection,
      StorageEncrypted: one.kmsKeyId !== undefined,
      KmsKeyId: one.kmsKeyId,
      CopyTagsToSnapshot: one.copyTags,
      IAMDatabaseAuthenticationEnabled: one.iamAuth,
      AutoMinorVersionUpgrade: true,
      DBSubnetGroup: {
        DBSubnetGroupName: one.subnetGroup,
        VpcId: 'vpc-0f1e2d3c4b5a69788',
        SubnetGroupStatus: 'Complete',
      },
      VpcSecurityGroups: groupList(one.securityGroups),
      DBParameterGroups: [{ DBParameterGroupName: one.parameterGroup, ParameterApplyStatus: 'in-sync' }],
      OptionGroupMemberships: [{ OptionGroupName: one.optionGroup, Status: 'in-sync' }],
      ...(one.logs.length > 0 ? { EnabledCloudwatchLogsExports: one.logs } : {}),
      PendingModifiedValues: pendingOf(one),
      AwsBackupRecoveryPointArn: one.awsBackup,
      ReadReplicaSourceDBInstanceIdentifier: one.replicaOf,
      DBClusterIdentifier: one.cluster,
      ...(one.cluster === undefined ? {} : { PromotionTier: one.promotionTier }),
      TagList: tagList(one.tags),
      CACertificateIdentifier: 'rds-ca-rsa2048-g1',
      NetworkType: 'IPV4',
      ...(loading
        ? {
            StorageOperationStatus: 'Initializing',
            StorageOperationPercentProgress: Math.floor(
              (100 * (now() - one.readyAt)) / Math.max(1, one.loadedAt - one.readyAt),
            ),
          }
        : {}),
    };
  };

  const clusterXml = (one: SimulatedCluster): Xml => ({
    DBClusterIdentifier: one.id,
    DBClusterArn: arn(one.region, 'cluster', one.id),
    DbClusterResourceId: one.resourceId,
    Status: statusOf(one),
    Engine: one.engine,
    EngineVersion: one.version,
    EngineMode: 'provisioned',
    AllocatedStorage: 1,
    AvailabilityZones: [`${one.region}a`, `${one.region}b`, `${one.region}c`],
    BackupRetentionPeriod: one.retentionDays,
    PreferredBackupWindow: one.backupWindow,
    PreferredMaintenanceWindow: one.maintenanceWindow,
    ...(latestOf(one) === undefined
      ? {}
      : { EarliestRestorableTime: earliestOf(one), LatestRestorableTime: latestOf(one) }),
    ClusterCreateTime: new Date(one.createdAt),
    DeletionProtection: one.deletionProtection,
    StorageEncrypted: one.kmsKeyId !== undefined,
    KmsKeyId: one.kmsKeyId,
    CopyTagsToSnapshot: one.copyTags,
    IAMDatabaseAuthenticationEnabled: one.iamAuth,
    MultiAZ: one.members.length > 1,
    DBSubnetGroup: one.subnetGroup,
    DBClusterParameterGroup: one.parameterGroup,
    VpcSecurityGroups: groupList(one.securityGroups),
    Endpoint: host(one.id, 'cluster-', one.region),
    ReaderEndpoint: host(one.id, 'cluster-ro-', one.region),
    Port: one.port,
    NetworkType: 'IPV4',
    ...(one.logs.length > 0 ? { EnabledCloudwatchLogsExports: one.logs } : {}),
    ...(one.capacity === undefined
      ? {}
      : { ServerlessV2ScalingConfiguration: { MinCapacity: one.capacity[0], MaxCapacity: one.capacity[1] } }),
    ...(one.class === undefined ? {} : { DBClusterInstanceClass: one.class, PubliclyAccessible: one.public }),
    DBClusterMembers: one.members.map((id, index) => ({
      DBInstanceIdentifier: id,
      IsClusterWriter: index === 0,
      DBClusterParameterGroupStatus: 'in-sync',
      PromotionTier: byId(state.instances, id, one.region)?.promotionTier ?? 1,
    })),
    PendingModifiedValues: pendingOf(one),
    AwsBackupRecoveryPointArn: one.awsBackup,
    TagList: tagList(one.tags),
  });

  const percentOf = (snapshot: SimulatedSnapshot): number => {
    const took = Math.max(1, snapshot.readyAt - snapshot.createdAt);
    return Math.max(0, Math.min(100, Math.floor((100 * (now() - snapshot.createdAt)) / took)));
  };
  const snapshotXml = (one: SimulatedSnapshot, status = snapshotStatus(one)): Xml => {
    const common = {
      Engine: one.engine,
      EngineVersion: one.version,
      Status: status,
      SnapshotType: one.type,
      // One that is being made may have no time yet.
      ...(status === 'creating' && one.source === undefined ? {} : { SnapshotCreateTime: new Date(one.createdAt) }),
      PercentProgress: status === 'available' ? 100 : percentOf(one),
      AllocatedStorage: one.allocatedGib,
      KmsKeyId: one.kmsKeyId,
      VpcId: 'vpc-0f1e2d3c4b5a69788',
      MasterUsername: 'holdfast_admin',
      TagList: tagList(one.tags),
    };
    return one.kind === 'instance'
      ? {
          DBSnapshotIdentifier: one.id,
          DBSnapshotArn: arn(one.region, 'snapshot', one.id),
          DBInstanceIdentifier: one.of,
          DbiResourceId: one.resourceId,
          Encrypted: one.kmsKeyId !== undefined,
          ...(status === 'creating' && one.source === undefined
            ? {}
            : { OriginalSnapshotCreateTime: new Date(one.originalAt) }),
          SourceDBSnapshotIdentifier: one.source,
          FullSnapshotSizeInBytes: status === 'available' ? one.allocatedGib * 300_000_000 : undefined,
          ...common,
        }
      : {
          DBClusterSnapshotIdentifier: one.id,
          DBClusterSnapshotArn: arn(one.region, 'cluster-snapshot', one.id),
          DBClusterIdentifier: one.of,
          DbClusterResourceId: one.resourceId,
          StorageEncrypted: one.kmsKeyId !== undefined,
          SourceDBClusterSnapshotArn: one.source,
          ...common,
        };
  };

  /** Another retention: fewer days take the older automated backups with them, and none takes all. */
  const keepFor = (database: Common, kind: 'instance' | 'cluster', days: number): void => {
    const before = database.retentionDays;
    database.retentionDays = days;
    if (before === 0) database.backupsSince = now();
    if (days >= before) return;
    const from = now() - days * DAY;
    database.backupsSince = Math.max(database.backupsSince ?? 0, from);
    for (let index = state.snapshots.length - 1; index >= 0; index -= 1) {
      const { kind: of, resourceId, type, createdAt } = state.snapshots[index]!;
      const theirs = of === kind && resourceId === database.resourceId && type === 'automated';
      if (theirs && (days === 0 || createdAt < from)) state.snapshots.splice(index, 1);
    }
  };
  const settleChange = (database: SimulatedInstance | SimulatedCluster): void => {
    if (database.changesAt === undefined || now() < database.changesAt) return;
    database.changesAt = undefined;
    if (database.changes === 'everything') {
      database.version = database.pendingVersion ?? database.version;
      database.pendingVersion = undefined;
    }
    const days = database.pendingRetention;
    database.pendingRetention = undefined;
    if (days === undefined) return;
    keepFor(database, 'members' in database ? 'cluster' : 'instance', days);
    for (const id of 'members' in database ? database.members : []) {
      const member = byId(state.instances, id, database.region);
      if (member !== undefined) member.retentionDays = days;
    }
  };

  // What was deleted long enough ago is gone, and what was changed is in force.
  const settle = (): void => {
    for (const database of [...state.instances, ...state.clusters]) settleChange(database);
    for (let index = state.snapshots.length - 1; index >= 0; index -= 1) {
      const deletedAt = state.snapshots[index]?.deletedAt;
      if (deletedAt !== undefined && now() >= deletedAt) state.snapshots.splice(index, 1);
    }
  };

  const findInstance = (id: string, region: string): SimulatedInstance => {
    const one = byId(state.instances, id, region);
    if (one === undefined) throw new Refusal(404, 'DBInstanceNotFound', `DBInstance ${id} not found.`);
    return one;
  };
  const findCluster = (id: string, region: string): SimulatedCluster => {
    const one = byId(state.clusters, id, region);
    if (one === undefined) throw new Refusal(404, 'DBClusterNotFoundFault', `DBCluster ${id} not found.`);
    return one;
  };
  const findSnapshot = (kind: 'instance' | 'cluster', name: string, region: string): SimulatedSnapshot => {
    const given = /^arn:aws:rds:([a-z0-9-]+):\d{12}:(cluster-snapshot|snapshot):(.+)$/.exec(name);
    if (name.startsWith('arn:') && given?.[2] !== SNAPSHOT[kind]) throw invalidValue(`${name} is not a snapshot ARN`);
    const [at, id] = given === null ? [region, name] : [given[1] ?? '', given[3] ?? ''];
    const one = state.snapshots.find(
      (candidate) => candidate.kind === kind && candidate.region === at && candidate.id === id.toLowerCase(),
    );
    if (one !== undefined) return one;
    const code = kind === 'instance' ? 'DBSnapshotNotFound' : 'DBClusterSnapshotNotFoundFault';
    throw new Refusal(404, code, `${name} not found.`);
  };

  const page = <T>(parameters: Parameters, all: readonly T[]): { items: T[]; marker: string | undefined } => {
    const asked = parameters.number('MaxRecords') ?? 100;
    if (asked < 20 || asked > 100) throw invalidValue('Invalid value for max records. Must be between 20 and 100');
    const marker = parameters.text('Marker');
    const from = marker === undefined ? 0 : Number(/^page-(\d+)$/.exec(marker)?.[1] ?? Number.NaN);
    if (Number.isNaN(from)) throw invalidValue('Invalid marker');
    const size = Math.min(asked, state.pageSize);
    return {
      items: all.slice(from, from + size),
      marker: from + size < all.length ? `page-${from + size}` : undefined,
    };
  };

  const describeSnapshots = (kind: 'instance' | 'cluster', parameters: Parameters, region: string): Xml => {
    const [idName, ofName, listName] =
      kind === 'instance'
        ? (['DBSnapshotIdentifier', 'DBInstanceIdentifier', 'DBSnapshots'] as const)
        : (['DBClusterSnapshotIdentifier', 'DBClusterIdentifier', 'DBClusterSnapshots'] as const);
    const id = parameters.text(idName);
    if (id !== undefined) return { [listName]: [snapshotXml(findSnapshot(kind, id, region))] };
    const of = parameters.text(ofName);
    const type = parameters.text('SnapshotType');
    if (type !== undefined && !['manual', 'automated', 'shared', 'public', 'awsbackup'].includes(type)) {
      throw invalidValue(`${type} is not a snapshot type`);
    }
    const found = state.snapshots.filter(
      (one) =>
        one.kind === kind &&
        one.region === region &&
        (of === undefined || one.of === of.toLowerCase()) &&
        (type === undefined ? ['manual', 'automated'].includes(one.type) : one.type === type),
    );
    const { items, marker } = page(parameters, found);
    return { [listName]: items.map((one) => snapshotXml(one)), Marker: marker };
  };

  const makeSnapshot = (kind: 'instance' | 'cluster', parameters: Parameters, region: string): Xml => {
    const idName = kind === 'instance' ? 'DBSnapshotIdentifier' : 'DBClusterSnapshotIdentifier';
    const of =
      kind === 'instance'
        ? findInstance(parameters.required('DBInstanceIdentifier'), region)
        : findCluster(parameters.required('DBClusterIdentifier'), region);
    if ('cluster' in of && of.cluster !== undefined) {
      throw invalidValue(`The source instance ${of.id} is a member of the cluster ${of.cluster}`);
    }
    const id = newName(parameters.required(idName), kind === 'instance' ? 255 : 63);
    refuseSnapshot(kind, id, region);
    if (statusOf(of) !== 'available') {
      const code = kind === 'instance' ? 'InvalidDBInstanceState' : 'InvalidDBClusterStateFault';
      throw new Refusal(400, code, `${of.id} is not in the available state.`);
    }
    const snapshot: SimulatedSnapshot = {
      kind,
      id,
      region,
      of: of.id,
      resourceId: of.resourceId,
      type: 'manual',
      createdAt: now(),
      originalAt: now(),
      readyAt: now() + state.durations.snapshot,
      engine: of.engine,
      version: of.version,
      allocatedGib: 'members' in of ? 1 : of.allocatedGib,
      kmsKeyId: of.kmsKeyId,
      sharedWith: [],
      tags: new Map([...(of.copyTags ? of.tags : []), ...parameters.tags()]),
      content: { ...contentAt(of.history, now()) },
    };
    state.snapshots.push(snapshot);
    return snapshotXml(snapshot);
  };
  const refuseSnapshot = (kind: 'instance' | 'cluster', id: string, region: string): void => {
    if (state.snapshots.some((one) => one.kind === kind && one.region === region && one.id === id)) {
      const code = kind === 'instance' ? 'DBSnapshotAlreadyExists' : 'DBClusterSnapshotAlreadyExistsFault';
      throw new Refusal(400, code, `Cannot create the snapshot because one with the identifier ${id} already exists.`);
    }
    const most = kind === 'instance' ? state.quotas.ManualSnapshots : state.quotas.ManualClusterSnapshots;
    const used = state.snapshots.filter((one) => one.kind === kind && one.region === region && one.type === 'manual');
    if (used.length >= most) throw new Refusal(400, 'SnapshotQuotaExceeded', 'Cannot create more than the quota.');
  };

  const removeSnapshot = (kind: 'instance' | 'cluster', parameters: Parameters, region: string): Xml => {
    const name = parameters.required(kind === 'instance' ? 'DBSnapshotIdentifier' : 'DBClusterSnapshotIdentifier');
    const snapshot = findSnapshot(kind, name, region);
    if (snapshot.type !== 'manual' || snapshotStatus(snapshot) !== 'available') {
      const code = kind === 'instance' ? 'InvalidDBSnapshotState' : 'InvalidDBClusterSnapshotStateFault';
      throw new Refusal(400, code, 'Cannot delete the snapshot because it is not manual and available.');
    }
    snapshot.deletedAt = now() + state.durations.remove;
    return snapshotXml(snapshot, 'deleted');
  };

  const copySnapshot = (kind: 'instance' | 'cluster', parameters: Parameters, region: string): Xml => {
    const prefix = kind === 'instance' ? 'DBSnapshot' : 'DBClusterSnapshot';
    const name = parameters.required(`Source${prefix}Identifier`);
    const source = findSnapshot(kind, name, region);
    const id = newName(parameters.required(`Target${prefix}Identifier`), kind === 'instance' ? 255 : 63);
    refuseSnapshot(kind, id, region);
    if (snapshotStatus(source) !== 'available') {
      const code = kind === 'instance' ? 'InvalidDBSnapshotState' : 'InvalidDBClusterSnapshotStateFault';
      throw new Refusal(400, code, 'The source snapshot is not available.');
    }
    const key = parameters.text('KmsKeyId');
    if (source.region !== region && source.kmsKeyId !== undefined && key === undefined) {
      throw new Refusal(400, 'InvalidParameterCombination', 'KmsKeyId is required to copy an encrypted snapshot here.');
    }
    const snapshot: SimulatedSnapshot = {
      ...source,
      id,
      region,
      type: 'manual',
      createdAt: now(),
      readyAt: now() + state.durations.snapshot,
      status: undefined,
      kmsKeyId: key ?? source.kmsKeyId,
      source: arn(source.region, SNAPSHOT[kind], source.id),
      sharedWith: [],
      tags: parameters.tags(),
      content: { ...source.content },
    };
    state.snapshots.push(snapshot);
    return snapshotXml(snapshot);
  };

  const checkReferences = (parameters: Parameters): void => {
    const subnets = parameters.text('DBSubnetGroupName');
    if (subnets !== undefined && !state.subnetGroups.has(subnets)) {
      throw new Refusal(404, 'DBSubnetGroupNotFoundFault', `DBSubnetGroup ${subnets} not found.`);
    }
    for (const name of ['DBParameterGroupName', 'DBClusterParameterGroupName']) {
      const group = parameters.text(name);
      if (group !== undefined && !state.parameterGroups.has(group)) {
        throw new Refusal(404, 'DBParameterGroupNotFound', `DBParameterGroup ${group} not found.`);
      }
    }
    const options = parameters.text('OptionGroupName');
    if (options !== undefined && !state.optionGroups.has(options)) {
      throw new Refusal(404, 'OptionGroupNotFoundFault', `Option group ${options} not found.`);
    }
  };
  const newInstanceId = (text: string, region: string): string => {
    const id = newName(text, 63);
    if (byId(state.instances, id, region)) {
      throw new Refusal(400, 'DBInstanceAlreadyExists', `DB instance ${id} already exists`);
    }
    if (state.instances.filter((one) => one.region === region).length >= state.quotas.DBInstances) {
      throw new Refusal(400, 'InstanceQuotaExceeded', 'DB instance quota exceeded');
    }
    return id;
  };
  const fresh = (kind: 'instance' | 'cluster'): string =>
    `${kind === 'instance' ? 'db' : 'cluster'}-${randomUUID().replaceAll('-', '').slice(0, 24).toUpperCase()}`;

  /** What every new database has: what the call says, else the defaults of the service, not those of its source. */
  const commonOf = (
    parameters: Parameters,
    region: string,
    id: string,
    from: { engine: string; version: string; kmsKeyId?: string | undefined; content: RdsContent },
    kind: 'instance' | 'cluster',
  ): Common => {
    const groups = parameters.list('VpcSecurityGroupIds.VpcSecurityGroupId');
    const ends = state.restoreEndsAs;
    state.restoreEndsAs = undefined;
    if (ends !== undefined) {
      const message = `The restore of ${id} ended with ${ends}: see the storage and network of the target.`;
      state.events.push({ kind, id, region, at: now(), message, category: 'failure' });
    }
    return {
      id,
      region,
      resourceId: fresh(kind),
      engine: from.engine,
      version: from.version,
      createdAt: now(),
      readyAt: now() + state.durations.restore,
      endsAs: ends,
      retentionDays: parameters.number('BackupRetentionPeriod') ?? 1,
      backupWindow: parameters.text('PreferredBackupWindow') ?? '06:00-06:30',
      maintenanceWindow: 'mon:07:00-mon:07:30',
      deletionProtection: parameters.flag('DeletionProtection') ?? false,
      kmsKeyId: from.kmsKeyId,
      subnetGroup: parameters.text('DBSubnetGroupName') ?? 'default',
      securityGroups: groups.length > 0 ? groups : ['sg-00000000000000000'],
      parameterGroup:
        parameters.text('DBParameterGroupName') ??
        parameters.text('DBClusterParameterGroupName') ??
        `default.${familyOf(from.engine, from.version)}`,
      // In the default subnet group a new database is open.
      public:
        parameters.flag('PubliclyAccessible') ?? (parameters.text('DBSubnetGroupName') ?? 'default') === 'default',
      port: parameters.number('Port') ?? (from.engine.includes('postgres') ? 5432 : 3306),
      copyTags: parameters.flag('CopyTagsToSnapshot') ?? false,
      iamAuth: parameters.flag('EnableIAMDatabaseAuthentication') ?? false,
      logs: parameters.list('EnableCloudwatchLogsExports.member'),
      tags: parameters.tags(),
      history: [{ at: 0, content: { ...from.content } }],
    };
  };
  const addInstance = (
    parameters: Parameters,
    region: string,
    id: string,
    from: { engine: string; version: string; kmsKeyId?: string | undefined; content: RdsContent; allocatedGib: number },
  ): Xml => {
    checkReferences(parameters);
    const common = commonOf(parameters, region, id, from, 'instance');
    const iops = parameters.number('Iops');
    const type = parameters.text('StorageType') ?? (iops === undefined ? 'gp3' : 'io1');
    if (type === 'gp3' && iops !== undefined && from.allocatedGib < 400 && from.engine !== 'oracle-ee') {
      throw new Refusal(
        400,
        'InvalidParameterCombination',
        "You can't specify IOPS or storage throughput for this storage size.",
      );
    }
    const one: SimulatedInstance = {
      ...common,
      class: parameters.text('DBInstanceClass') ?? 'db.m5.large',
      allocatedGib: from.allocatedGib,
      storageType: type,
      iops: iops ?? (type === 'gp3' ? 3000 : 0),
      throughput: parameters.number('StorageThroughput') ?? (type === 'gp3' ? 125 : 0),
      multiAz: parameters.flag('MultiAZ') ?? false,
      optionGroup: parameters.text('OptionGroupName') ?? 'default',
      maxAllocatedGib: parameters.number('MaxAllocatedStorage'),
      promotionTier: 1,
      loadedAt: common.readyAt + state.durations.load,
    };
    state.instances.push(one);
    return instanceXml(one);
  };
  const addCluster = (
    parameters: Parameters,
    region: string,
    from: { engine: string; version: string; kmsKeyId?: string | undefined; content: RdsContent },
  ): Xml => {
    const id = newName(parameters.required('DBClusterIdentifier'), 63);
    if (byId(state.clusters, id, region))
      throw new Refusal(400, 'DBClusterAlreadyExistsFault', `DB Cluster ${id} already exists`);
    if (state.clusters.filter((one) => one.region === region).length >= state.quotas.DBClusters) {
      throw new Refusal(403, 'DBClusterQuotaExceededFault', 'DB cluster quota exceeded');
    }
    checkReferences(parameters);
    const min = parameters.number('ServerlessV2ScalingConfiguration.MinCapacity');
    const max = parameters.number('ServerlessV2ScalingConfiguration.MaxCapacity');
    const one: SimulatedCluster = {
      ...commonOf(parameters, region, id, from, 'cluster'),
      members: [],
      capacity: min === undefined || max === undefined ? undefined : [min, max],
      backtrackSeconds: 0,
    };
    state.clusters.push(one);
    if (!from.engine.startsWith('aurora')) addMultiAzInstances(one, parameters.required('DBClusterInstanceClass'));
    return clusterXml(one);
  };

  const addMultiAzInstances = (cluster: SimulatedCluster, instanceClass: string): void => {
    cluster.class = instanceClass;
    for (const number of [1, 2, 3]) {
      const id = `${cluster.id}-instance-${number}`;
      cluster.members.push(id);
      state.instances.push({
        ...cluster,
        id,
        resourceId: fresh('instance'),
        class: instanceClass,
        allocatedGib: 100,
        storageType: 'gp3',
        iops: 3000,
        throughput: 125,
        multiAz: false,
        optionGroup: 'default:postgres-16',
        cluster: cluster.id,
        promotionTier: 1,
        loadedAt: 0,
        tags: new Map(),
        history: [],
      });
    }
  };

  const restorable = (kind: 'instance' | 'cluster', name: string, region: string): SimulatedSnapshot => {
    const snapshot = findSnapshot(kind, name, region);
    if (snapshot.region !== region) throw invalidValue('The snapshot is in another region.');
    if (snapshotStatus(snapshot) === 'available') return snapshot;
    const code = kind === 'instance' ? 'InvalidDBSnapshotState' : 'InvalidDBClusterSnapshotStateFault';
    throw new Refusal(400, code, 'The snapshot is not available.');
  };
  const momentOf = (parameters: Parameters, name: string, earliest: number, latest: number): number => {
    const at = parameters.instant(name);
    const useLatest = parameters.flag('UseLatestRestorableTime') === true;
    if ((at === undefined) === !useLatest) {
      throw new Refusal(
        400,
        'InvalidParameterCombination',
        `Either ${name} or UseLatestRestorableTime must be specified`,
      );
    }
    if (at === undefined) return latest;
    if (at < earliest || at > latest) {
      throw new Refusal(
        400,
        'InvalidParameterValue',
        'The specified instance cannot be restored to a time outside of its window',
      );
    }
    return at;
  };

  const restoreInstanceToMoment = (parameters: Parameters, region: string): Xml => {
    const id = newInstanceId(parameters.required('TargetDBInstanceIdentifier'), region);
    const [name, resource] = [parameters.text('SourceDBInstanceIdentifier'), parameters.text('SourceDbiResourceId')];
    if ((name === undefined) === (resource === undefined)) {
      throw new Refusal(400, 'InvalidParameterCombination', 'Exactly one source must be specified');
    }
    const live = state.instances.find(
      (one) => one.region === region && (one.id === name?.toLowerCase() || one.resourceId === resource),
    );
    if (live !== undefined) {
      if (live.retentionDays === 0) {
        throw new Refusal(400, 'PointInTimeRestoreNotEnabled', `Point In Time Restore is not enabled for ${live.id}`);
      }
      const latest = latestOf(live)?.getTime();
      if (latest === undefined) throw new Refusal(400, 'InvalidRestoreFault', 'There is no restorable time yet');
      const at = momentOf(parameters, 'RestoreTime', earliestOf(live).getTime(), latest);
      return addInstance(parameters, region, id, { ...live, content: contentAt(live.history, at) });
    }
    const kept = state.retained.find((one) => one.region === region && one.resourceId === resource);
    if (kept === undefined) {
      if (name !== undefined) throw new Refusal(404, 'DBInstanceNotFound', `DBInstance ${name} not found.`);
      throw new Refusal(404, 'DBInstanceAutomatedBackupNotFound', `No automated backup for ${resource}`);
    }
    const at = momentOf(parameters, 'RestoreTime', kept.from, kept.to);
    return addInstance(parameters, region, id, { ...kept, allocatedGib: 20, content: contentAt(kept.history, at) });
  };

  const restoreClusterToMoment = (parameters: Parameters, region: string): Xml => {
    const [name, resource] = [
      parameters.text('SourceDBClusterIdentifier'),
      parameters.text('SourceDbClusterResourceId'),
    ];
    const live = state.clusters.find(
      (one) => one.region === region && (one.id === name?.toLowerCase() || one.resourceId === resource),
    );
    if (live === undefined)
      throw new Refusal(404, 'DBClusterNotFoundFault', `DBCluster ${name ?? resource} not found.`);
    const latest = latestOf(live)?.getTime();
    if (latest === undefined) throw new Refusal(400, 'InvalidRestoreFault', 'There is no restorable time yet');
    const at = momentOf(parameters, 'RestoreToTime', earliestOf(live).getTime(), latest);
    return addCluster(parameters, region, { ...live, content: contentAt(live.history, at) });
  };

  const createInstance = (parameters: Parameters, region: string): Xml => {
    const clusterId = parameters.text('DBClusterIdentifier');
    if (clusterId === undefined)
      throw new Refusal(400, 'InvalidParameterCombination', 'Only members of clusters are simulated');
    const cluster = findCluster(clusterId, region);
    const id = newInstanceId(parameters.required('DBInstanceIdentifier'), region);
    if (parameters.required('Engine') !== cluster.engine) {
      throw new Refusal(
        400,
        'InvalidParameterCombination',
        `The engine must be that of the cluster, ${cluster.engine}`,
      );
    }
    for (const name of [
      'BackupRetentionPeriod',
      'PreferredBackupWindow',
      'DeletionProtection',
      'VpcSecurityGroupIds.VpcSecurityGroupId.1',
    ]) {
      if (parameters.text(name) === undefined) continue;
      throw new Refusal(400, 'InvalidParameterCombination', `${name} is a setting of the cluster`);
    }
    const instanceClass = parameters.required('DBInstanceClass');
    if (instanceClass === 'db.serverless' && cluster.capacity === undefined) {
      throw new Refusal(
        400,
        'InvalidParameterCombination',
        'Set the Serverless v2 scaling configuration on the parent DB cluster',
      );
    }
    checkReferences(parameters);
    const one: SimulatedInstance = {
      ...commonOf(parameters, region, id, { ...cluster, content: {} }, 'instance'),
      class: instanceClass,
      allocatedGib: 1,
      storageType: 'aurora',
      iops: 0,
      throughput: 0,
      multiAz: false,
      optionGroup: `default:${cluster.engine}-16`,
      promotionTier: parameters.number('PromotionTier') ?? 1,
      cluster: cluster.id,
      loadedAt: 0,
      subnetGroup: cluster.subnetGroup,
      securityGroups: cluster.securityGroups,
      retentionDays: cluster.retentionDays,
      deletionProtection: false,
    };
    state.instances.push(one);
    cluster.members.push(id);
    return instanceXml(one);
  };

  const modify = (parameters: Parameters, database: SimulatedInstance | SimulatedCluster): void => {
    const kind = 'members' in database ? 'cluster' : 'instance';
    const days = parameters.number('BackupRetentionPeriod');
    const backupWindow = parameters.text('PreferredBackupWindow');
    const maintenanceWindow = parameters.text('PreferredMaintenanceWindow')?.toLowerCase();
    if (statusOf(database) !== 'available') {
      const code = kind === 'instance' ? 'InvalidDBInstanceState' : 'InvalidDBClusterStateFault';
      throw new Refusal(400, code, `${database.id} is not in the available state.`);
    }
    if ('cluster' in database && database.cluster !== undefined) {
      const ofCluster = [days, backupWindow, parameters.flag('DeletionProtection')].some((one) => one !== undefined);
      if (ofCluster) throw new Refusal(400, 'InvalidParameterCombination', 'Set it on the DB cluster.');
    }
    if (database.awsBackup !== undefined && (days !== undefined || backupWindow !== undefined)) {
      throw new Refusal(
        400,
        'InvalidParameterCombination',
        `${database.id} is associated with an AWS Backup resource.`,
      );
    }
    if (days !== undefined && !(Number.isInteger(days) && days >= (kind === 'instance' ? 0 : 1) && days <= 35)) {
      throw invalidValue(`Invalid backup retention period: ${days}`);
    }
    if (days === 0 && state.instances.some((one) => one.replicaOf === database.id)) {
      throw new Refusal(400, 'InvalidParameterCombination', 'A source of read replicas needs automated backups.');
    }
    const windows = [backupWindow ?? database.backupWindow, maintenanceWindow ?? database.maintenanceWindow] as const;
    checkWindows(...windows);
    [database.backupWindow, database.maintenanceWindow] = windows;
    database.deletionProtection = parameters.flag('DeletionProtection') ?? database.deletionProtection;
    database.copyTags = parameters.flag('CopyTagsToSnapshot') ?? database.copyTags;
    if (days !== undefined && days !== database.retentionDays) database.pendingRetention = days;
    // From some days to others goes at once; on or off waits for the maintenance window unless the call says otherwise.
    const waits = kind === 'instance' && days !== undefined && (days === 0) !== (database.retentionDays === 0);
    if (parameters.flag('ApplyImmediately') === true) {
      database.changesAt = now() + state.durations.modify;
      database.changes = 'everything';
    } else if (database.pendingRetention !== undefined && !waits) {
      database.changesAt = now() + state.durations.modify;
      database.changes = 'retention';
    }
  };

  const automatedBackups = (parameters: Parameters, region: string): Xml => {
    const id = parameters.text('DBInstanceIdentifier')?.toLowerCase();
    const live = state.instances
      .filter((one) => one.region === region && one.cluster === undefined && one.retentionDays > 0)
      .map((one) => ({ ...one, from: earliestOf(one), to: latestOf(one), Status: 'active' }));
    const gone = state.retained
      .filter((one) => one.region === region)
      .map((one) => ({
        ...one,
        from: new Date(one.from),
        to: new Date(one.to),
        Status: 'retained',
        kmsKeyId: undefined,
      }));
    const found = [...live, ...gone].filter((one) => id === undefined || one.id === id);
    const { items, marker } = page(parameters, found);
    return {
      DBInstanceAutomatedBackups: items.map((one) => ({
        DBInstanceArn: arn(region, 'db', one.id),
        DbiResourceId: one.resourceId,
        Region: region,
        DBInstanceIdentifier: one.id,
        ...(one.to === undefined ? {} : { RestoreWindow: { EarliestTime: one.from, LatestTime: one.to } }),
        Status: one.to === undefined ? 'creating' : one.Status,
        Engine: one.engine,
        EngineVersion: one.version,
        Encrypted: one.kmsKeyId !== undefined,
        DBInstanceAutomatedBackupsArn: arn(region, 'auto-backup', `ab-${one.resourceId.slice(3).toLowerCase()}`),
      })),
      Marker: marker,
    };
  };

  const attributes = (kind: 'instance' | 'cluster', parameters: Parameters, region: string): Xml => {
    const prefix = kind === 'instance' ? 'DBSnapshot' : 'DBClusterSnapshot';
    const snapshot = findSnapshot(kind, parameters.required(`${prefix}Identifier`), region);
    return {
      [`${prefix}AttributesResult`]: {
        [`${prefix}Identifier`]: snapshot.id,
        [`${prefix}Attributes`]: [{ AttributeName: 'restore', AttributeValues: snapshot.sharedWith }],
      },
    };
  };

  const events = (parameters: Parameters, region: string): Xml => {
    const kind = parameters.text('SourceType') === 'db-cluster' ? 'cluster' : 'instance';
    const since = now() - (parameters.number('Duration') ?? 60) * MINUTE;
    const found = state.events.filter(
      (one) =>
        one.kind === kind && one.region === region && one.at >= since && one.id === parameters.text('SourceIdentifier'),
    );
    return {
      Events: found.map((one) => ({
        SourceIdentifier: one.id,
        SourceType: `db-${kind}`,
        Message: one.message,
        EventCategories: [one.category],
        Date: new Date(one.at),
        SourceArn: arn(region, RESOURCE[kind], one.id),
      })),
    };
  };

  const accountAttributes = (region: string): Xml => {
    const used = {
      DBInstances: state.instances.filter((one) => one.region === region).length,
      DBClusters: state.clusters.filter((one) => one.region === region).length,
      ManualSnapshots: state.snapshots.filter(
        (one) => one.region === region && one.kind === 'instance' && one.type === 'manual',
      ).length,
      ManualClusterSnapshots: state.snapshots.filter(
        (one) => one.region === region && one.kind === 'cluster' && one.type === 'manual',
      ).length,
    };
    return {
      AccountQuotas: (Object.keys(used) as (keyof typeof used)[]).map((name) => ({
        AccountQuotaName: name,
        Used: used[name],
        Max: state.quotas[name],
      })),
    };
  };

  const answer = (operation: string, parameters: Parameters, region: string): Xml => {
    switch (operation) {
      case 'DescribeDBInstances': {
        const id = parameters.text('DBInstanceIdentifier');
        const found =
          id === undefined ? state.instances.filter((one) => one.region === region) : [findInstance(id, region)];
        const { items, marker } = page(parameters, found);
        return { DBInstances: items.map(instanceXml), Marker: marker };
      }
      case 'DescribeDBClusters': {
        const id = parameters.text('DBClusterIdentifier');
        const found =
          id === undefined ? state.clusters.filter((one) => one.region === region) : [findCluster(id, region)];
        const { items, marker } = page(parameters, found);
        return { DBClusters: items.map(clusterXml), Marker: marker };
      }
      case 'DescribeDBSnapshots':
        return describeSnapshots('instance', parameters, region);
      case 'DescribeDBClusterSnapshots':
        return describeSnapshots('cluster', parameters, region);
      case 'DescribeDBSnapshotAttributes':
        return attributes('instance', parameters, region);
      case 'DescribeDBClusterSnapshotAttributes':
        return attributes('cluster', parameters, region);
      case 'DescribeDBInstanceAutomatedBackups':
        return automatedBackups(parameters, region);
      case 'DescribeDBClusterAutomatedBackups':
        return { DBClusterAutomatedBackups: [] };
      case 'DescribeAccountAttributes':
        return accountAttributes(region);
      case 'DescribeEvents':
        return events(parameters, region);
      case 'CreateDBSnapshot':
        return { DBSnapshot: makeSnapshot('instance', parameters, region) };
      case 'CreateDBClusterSnapshot':
        return { DBClusterSnapshot: makeSnapshot('cluster', parameters, region) };
      case 'DeleteDBSnapshot':
        return { DBSnapshot: removeSnapshot('instance', parameters, region) };
      case 'DeleteDBClusterSnapshot':
        return { DBClusterSnapshot: removeSnapshot('cluster', parameters, region) };
      case 'CopyDBSnapshot':
        return { DBSnapshot: copySnapshot('instance', parameters, region) };
      case 'CopyDBClusterSnapshot':
        return { DBClusterSnapshot: copySnapshot('cluster', parameters, region) };
      case 'RestoreDBInstanceFromDBSnapshot': {
        const id = newInstanceId(parameters.required('DBInstanceIdentifier'), region);
        return {
          DBInstance: addInstance(
            parameters,
            region,
            id,
            restorable('instance', parameters.required('DBSnapshotIdentifier'), region),
          ),
        };
      }
      case 'RestoreDBInstanceToPointInTime':
        return { DBInstance: restoreInstanceToMoment(parameters, region) };
      case 'RestoreDBClusterFromSnapshot': {
        const snapshot = restorable('cluster', parameters.required('SnapshotIdentifier'), region);
        if (parameters.required('Engine') !== snapshot.engine)
          throw invalidValue('The engine does not fit the snapshot');
        // Without a version the new cluster gets the default of the region.
        const version = parameters.text('EngineVersion') ?? '17.2';
        return { DBCluster: addCluster(parameters, region, { ...snapshot, version }) };
      }
      case 'RestoreDBClusterToPointInTime':
        return { DBCluster: restoreClusterToMoment(parameters, region) };
      case 'CreateDBInstance':
        return { DBInstance: createInstance(parameters, region) };
      case 'ModifyDBInstance': {
        const one = findInstance(parameters.required('DBInstanceIdentifier'), region);
        modify(parameters, one);
        return { DBInstance: instanceXml(one) };
      }
      case 'ModifyDBCluster': {
        const one = findCluster(parameters.required('DBClusterIdentifier'), region);
        modify(parameters, one);
        return { DBCluster: clusterXml(one) };
      }
      default:
        throw new Refusal(400, 'InvalidAction', `Could not find operation ${operation} for version ${VERSION}`);
    }
  };

  const respond = (status: number, body: string, id: string): SimulatorResponse => ({
    status,
    headers: { 'content-type': 'text/xml', 'x-amzn-requestid': id },
    body,
  });

  return {
    provider: 'aws-rds',
    state,
    matches: (request) =>
      request.method === 'POST' &&
      request.url.pathname === '/' &&
      (scopeOf(request)?.service === 'rds' || new URLSearchParams(request.text).get('Version') === VERSION),
    writes: (request) => !operationOf(request).startsWith('Describe'),
    operation: operationOf,
    handle(request) {
      settle();
      const id = randomUUID();
      const operation = operationOf(request);
      try {
        const region = authenticate(request, state);
        const parameters = new Parameters(request.text);
        if (!(request.headers['content-type'] ?? '').startsWith('application/x-www-form-urlencoded')) {
          throw new Refusal(400, 'MalformedInput', 'The request is not form-encoded');
        }
        if (parameters.text('Version') !== VERSION) throw new Refusal(400, 'InvalidAction', 'Unknown version');
        if (state.denied.has(operation)) {
          const user = `arn:aws:iam::${ACCOUNT}:user/sandbox`;
          throw new Refusal(403, 'AccessDenied', `User: ${user} is not authorized to perform: rds:${operation}`);
        }
        const failing = state.failNext.findIndex((one) => one.operation === operation);
        if (failing >= 0) {
          const injected = state.failNext.splice(failing, 1);
          for (const { code, status } of injected) throw new Refusal(status, code, 'injected by a test');
        }
        const result = element(`${operation}Result`, answer(operation, parameters, region));
        const body = `<${operation}Response xmlns="${NAMESPACE}">${result}${element('ResponseMetadata', { RequestId: id })}</${operation}Response>`;
        return respond(200, body, id);
      } catch (cause) {
        if (!(cause instanceof Refusal)) throw cause;
        const error = element('Error', {
          Type: cause.status >= 500 ? 'Receiver' : 'Sender',
          Code: cause.code,
          Message: cause.message,
        });
        return respond(
          cause.status,
          `<ErrorResponse xmlns="${NAMESPACE}">${error}${element('RequestId', id)}</ErrorResponse>`,
          id,
        );
      }
    },
  };
}
