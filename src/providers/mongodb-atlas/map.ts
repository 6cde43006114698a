import { type ErrorCode, HoldfastError } from '../../core/errors.ts';
import { isObject, type JsonObject } from '../../core/json.ts';
import type { JobStatus, RecoveryPoint, RestoreJob } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { instantOf as instant, known, listOf as list, numberOf, type Wire } from '../../core/wire.ts';

/** Names one cluster: the id of its project and its own name. */
export interface ClusterRef {
  readonly project: string;
  readonly cluster: string;
}

/** What a person types to approve: the project by its name where that is plain, and the cluster. */
export function clusterTitle(projectName: string | undefined, { project, cluster }: ClusterRef): string {
  return `${/^[\w.-]{1,64}$/.test(projectName ?? '') ? projectName : project}/${cluster}`;
}

/** One cluster as far as backups depend on it. `gone`: Atlas knows no such cluster, its retained snapshots may live on. */
export interface Deployment extends ClusterRef {
  readonly kind: 'dedicated' | 'flex' | 'free' | 'gone';
  readonly id: string | undefined;
  /** `M10`, `FLEX`, `M0`; the size in effect where autoscaling has changed it. */
  readonly tier: string;
  readonly sharded: boolean;
  readonly shards: number;
  readonly state: string;
  readonly paused: boolean;
  readonly backups: boolean;
  readonly pitr: boolean;
  readonly version: string | undefined;
  /** The feature compatibility version, where it is pinned. */
  readonly pinned: string | undefined;
  readonly disk_gb: number | undefined;
  readonly provider: string | undefined;
  readonly region: string | undefined;
  readonly host: string | undefined;
  readonly deletion_protection: boolean | null;
  readonly key_provider: string | undefined;
}

const text = (value: unknown): string | undefined =>
  typeof value === 'string' && value !== '' ? cleanText(value) : undefined;
const first = (value: unknown): Wire => list(value)[0] ?? {};
const part = (value: unknown): Wire => (isObject(value) ? value : {});

/** The host of a connection string, without the credentials that it might carry. */
function hostOf(connection: unknown): string | undefined {
  const match = /^mongodb(?:\+srv)?:\/\/(?:[^@/]*@)?([^/?,:]+)/.exec(typeof connection === 'string' ? connection : '');
  return match?.[1] === undefined ? undefined : cleanText(match[1]);
}

/** @see Atlas Admin API v2, getGroupCluster (2024-08-05) */
export function toDeployment(ref: ClusterRef, wire: Wire): Deployment {
  const specs = list(wire['effectiveReplicationSpecs']);
  const replication = specs.length > 0 ? specs : list(wire['replicationSpecs']);
  const region = first(replication[0]?.['regionConfigs']);
  const electable = part(region['effectiveElectableSpecs'] ?? region['electableSpecs']);
  const tier = text(electable['effectiveInstanceSize'] ?? electable['instanceSize']) ?? 'unknown';
  const tenant = region['providerName'] === 'TENANT' || /^(M0|M2|M5)$/.test(tier);
  const sharded = wire['clusterType'] === 'SHARDED' || wire['clusterType'] === 'GEOSHARDED';
  return {
    ...ref,
    kind: tenant ? (tier === 'FLEX' ? 'flex' : 'free') : 'dedicated',
    id: text(wire['id']),
    tier,
    sharded,
    shards: sharded ? replication.length : 1,
    state: text(wire['stateName']) ?? 'unknown',
    paused: wire['paused'] === true,
    backups: wire['backupEnabled'] === true,
    pitr: wire['pitEnabled'] === true,
    version: text(wire['mongoDBVersion']),
    pinned:
      wire['featureCompatibilityVersionExpirationDate'] === undefined
        ? undefined
        : text(wire['featureCompatibilityVersion']),
    disk_gb: typeof electable['diskSizeGB'] === 'number' ? electable['diskSizeGB'] : undefined,
    provider: text(tenant ? region['backingProviderName'] : region['providerName']),
    region: text(region['regionName']),
    host: hostOf(part(wire['connectionStrings'])['standardSrv']),
    deletion_protection:
      typeof wire['terminationProtectionEnabled'] === 'boolean' ? wire['terminationProtectionEnabled'] : null,
    key_provider: text(wire['encryptionAtRestProvider']),
  };
}

/** @see Atlas Admin API v2, getGroupFlexCluster (2024-11-13) */
export function toFlexDeployment(ref: ClusterRef, wire: Wire): Deployment {
  const settings = part(wire['providerSettings']);
  return {
    ...ref,
    kind: 'flex',
    id: text(wire['id']),
    tier: 'FLEX',
    sharded: false,
    shards: 1,
    state: text(wire['stateName']) ?? 'unknown',
    paused: false,
    backups: part(wire['backupSettings'])['enabled'] !== false,
    pitr: false,
    version: text(wire['mongoDBVersion']),
    pinned: undefined,
    disk_gb: typeof settings['diskSizeGB'] === 'number' ? settings['diskSizeGB'] : undefined,
    provider: text(settings['backingProviderName']),
    region: text(settings['regionName']),
    host: hostOf(part(wire['connectionStrings'])['standardSrv']),
    deletion_protection:
      typeof wire['terminationProtectionEnabled'] === 'boolean' ? wire['terminationProtectionEnabled'] : null,
    key_provider: undefined,
  };
}

/** Stands for a cluster that Atlas no longer knows. */
export function goneDeployment(ref: ClusterRef): Deployment {
  return {
    ...ref,
    kind: 'gone',
    id: undefined,
    tier: 'unknown',
    sharded: false,
    shards: 1,
    state: 'DELETED',
    paused: false,
    backups: false,
    pitr: false,
    version: undefined,
    pinned: undefined,
    disk_gb: undefined,
    provider: undefined,
    region: undefined,
    host: undefined,
    deletion_protection: null,
    key_provider: undefined,
  };
}

/** A snapshot with what only Atlas says about it. */
export interface AtlasSnapshot extends RecoveryPoint {
  provider: {
    /** `replicaSet`, `shardedCluster` or `flex`; which path the snapshot answers under. */
    type: string;
    snapshot_type?: string;
    frequency?: string;
    mongodb_version?: string;
    copy_regions?: string[];
    shards?: number;
    customer_key?: boolean;
    databases?: string[];
  };
}

const SNAPSHOT_STATES: Record<string, string> = {
  queued: 'creating',
  inProgress: 'creating',
  completed: 'available',
  failed: 'failed',
  PENDING: 'creating',
  QUEUED: 'creating',
  RUNNING: 'creating',
  COMPLETED: 'available',
  FAILED: 'failed',
};

/** What a safety snapshot's description begins with. */
export const SAFETY_DESCRIPTION = 'safety snapshot before a restore';

/** Reads a snapshot of a dedicated cluster, a replica set's or a sharded one's. */
export function toSnapshot(wire: Wire): AtlasSnapshot {
  const status = SNAPSHOT_STATES[String(wire['status'])] ?? 'unknown';
  const description = text(wire['description']);
  const onDemand = wire['snapshotType'] === 'onDemand';
  const size = wire['storageSizeBytes'];
  const regions = Array.isArray(wire['copyRegions']) ? wire['copyRegions'].map((region) => cleanText(region, 40)) : [];
  return known({
    id: text(wire['id']) ?? '',
    kind: onDemand ? (description?.startsWith(SAFETY_DESCRIPTION) ? 'safety' : 'on_demand') : 'automated',
    status,
    created_at: instant(wire['createdAt']),
    expires_at: instant(wire['expiresAt']),
    size_bytes: typeof size === 'number' && size >= 0 ? size : undefined,
    // The cloud always encrypts the storage; `customer_key` says whether with a key of the customer.
    encrypted: true,
    location: text(wire['cloudProvider']) ?? text(first(wire['members'])['cloudProvider']),
    restorable: status === 'available',
    description,
    provider: known({
      type: wire['type'] === 'shardedCluster' ? 'shardedCluster' : 'replicaSet',
      snapshot_type: text(wire['snapshotType']),
      frequency: text(wire['frequencyType']),
      mongodb_version: text(wire['mongodVersion']),
      copy_regions: regions.length > 0 ? regions : undefined,
      shards: wire['type'] === 'shardedCluster' ? list(wire['members']).length : undefined,
      customer_key: wire['masterKeyUUID'] === undefined ? undefined : true,
    }),
  });
}

/** Reads a snapshot of a Flex cluster: no size, no description, always automatic. */
export function toFlexSnapshot(wire: Wire): AtlasSnapshot {
  const status = SNAPSHOT_STATES[String(wire['status'])] ?? 'unknown';
  return known({
    id: text(wire['id']) ?? '',
    kind: 'automated',
    status,
    created_at: instant(wire['startTime']) ?? instant(wire['scheduledTime']),
    expires_at: instant(wire['expiration']),
    encrypted: true,
    restorable: status === 'available',
    provider: known({ type: 'flex', mongodb_version: text(wire['mongoDBVersion']) }),
  });
}

/** A restore job with what only Atlas says about it; download links never leave the client. */
export interface AtlasJob extends RestoreJob {
  provider: {
    /** Derived: Atlas gives a job of a dedicated cluster no state. */
    state: string;
    delivery: string;
    snapshot_id?: string;
    restore_timestamp?: string;
    target_project_id?: string;
    target_cluster?: string;
    target_state?: string;
    /** Of a restore of collections: whether it adds copies or replaces. */
    write_strategy?: string;
    /** What the names of its copies end in. */
    suffix?: string;
    namespaces?: string[];
    restored_documents?: number;
    total_documents?: number;
    error?: string;
    /** What each collection became, and which are not whole. */
    collections?: RestoredCollection[];
    not_restored?: string[];
  };
}

/** One collection of a restore of collections. */
export interface RestoredCollection {
  readonly source: string;
  readonly target: string;
  /** `SUCCESSFUL` where it is whole. */
  readonly state: string;
  readonly documents?: number;
  [key: string]: string | number | undefined;
}

const JOB_STATES: Record<string, JobStatus> = {
  CANCELLED: 'cancelled',
  FAILED: 'failed',
  EXPIRED: 'succeeded',
  COMPLETED: 'succeeded',
  READY: 'succeeded',
  RUNNING: 'running',
  PENDING: 'pending',
  QUEUED: 'pending',
};

/** The moment inside an Atlas id, its first eight digits; jobs carry no other time of their beginning. */
function idTime(id: string): string | undefined {
  return /^[a-f0-9]{24}$/.test(id) ? new Date(Number.parseInt(id.slice(0, 8), 16) * 1000).toISOString() : undefined;
}

function jobOf(wire: Wire, state: string, details: AtlasJob['provider'], ended: string | undefined): AtlasJob {
  const id = text(wire['id']) ?? '';
  const target = [details.target_project_id, details.target_cluster].filter((name) => name !== undefined).join('/');
  return known({
    job_id: id,
    status: JOB_STATES[state] ?? 'unknown',
    target: target === '' ? 'download' : target,
    started_at: idTime(id),
    ended_at: ended,
    // Whether the target answers is known only once its own state has been read.
    usable: false,
    provider: details,
  });
}

/** Reads a restore job of a dedicated cluster and derives its state from the fields that say how it ended. */
export function toJob(wire: Wire): AtlasJob {
  const urls = Array.isArray(wire['deliveryUrl']) ? wire['deliveryUrl'] : [];
  const state =
    wire['cancelled'] === true
      ? 'CANCELLED'
      : wire['failed'] === true
        ? 'FAILED'
        : wire['expired'] === true
          ? 'EXPIRED'
          : wire['finishedAt'] !== undefined && wire['finishedAt'] !== null
            ? 'COMPLETED'
            : urls.length > 0
              ? 'READY'
              : 'RUNNING';
  const seconds = wire['pointInTimeUTCSeconds'];
  const details = known({
    state,
    delivery: text(wire['deliveryType']) ?? 'unknown',
    snapshot_id: text(wire['snapshotId']),
    restore_timestamp: typeof seconds === 'number' ? new Date(seconds * 1000).toISOString() : undefined,
    target_project_id: text(wire['targetGroupId']),
    target_cluster: text(wire['targetClusterName']),
  });
  return jobOf(wire, state, details, instant(wire['finishedAt']));
}

/** Reads a restore job of a Flex cluster. */
export function toFlexJob(wire: Wire): AtlasJob {
  const state = text(wire['status']) ?? 'unknown';
  const details = known({
    state,
    delivery: wire['deliveryType'] === 'DOWNLOAD' ? 'download' : 'automated',
    snapshot_id: text(wire['snapshotId']),
    target_project_id: text(wire['targetProjectId']),
    target_cluster: text(wire['targetDeploymentItemName']),
  });
  return jobOf(wire, state, details, instant(wire['restoreFinishedDate']));
}

const COLLECTION_JOB_STATES: Record<string, JobStatus> = {
  INITIALIZING: 'pending',
  IN_PROGRESS: 'running',
  FINALIZING: 'running',
  SUCCESSFUL: 'succeeded',
  CANCELED: 'cancelled',
  FAILED: 'failed',
};

/** Reads a restore job of collections. */
export function toCollectionJob(wire: Wire): AtlasJob {
  const state = text(wire['state']) ?? 'unknown';
  const seconds = numberOf(wire['pointInTimeUtcSeconds']);
  const [restored, total] = [numberOf(wire['restoredDocuments']), numberOf(wire['totalDocuments'])];
  const names = [...list(wire['databases']), ...list(wire['collections'])];
  const details = known({
    state,
    delivery: 'collections',
    snapshot_id: text(wire['snapshotId']),
    restore_timestamp: seconds === undefined ? undefined : new Date(seconds * 1000).toISOString(),
    target_project_id: text(wire['targetGroupId']),
    target_cluster: text(wire['targetClusterName']),
    write_strategy: text(wire['writeStrategy']),
    suffix: text(wire['collectionSuffix']) ?? text(wire['databaseSuffix']),
    namespaces: names.map((name) => cleanText(name['sourceNamespace'], 300)),
    restored_documents: restored,
    total_documents: total,
    error: text(wire['errorMessage']),
  });
  const job = jobOf(wire, state, details, instant(wire['finishedAt']));
  const percent = restored === undefined || !total ? undefined : Math.min(100, Math.floor((restored / total) * 100));
  return known({ ...job, status: COLLECTION_JOB_STATES[state] ?? 'unknown', percent });
}

/** Reads what became of one collection. */
export function toRestoredCollection(wire: Wire): RestoredCollection {
  const source = cleanText(wire['sourceNamespace'], 300);
  return known({
    source,
    target: text(wire['effectiveTargetNamespace']) ?? text(wire['targetNamespace']) ?? source,
    state: text(wire['state']) ?? 'unknown',
    documents: numberOf(wire['restoredDocuments']),
  });
}

/** Adds what became of each collection: a job that succeeded can hold collections that did not. */
export function withCollections(job: AtlasJob, collections: readonly RestoredCollection[] | undefined): AtlasJob {
  if (collections === undefined) return job;
  const missing = collections.filter(({ state }) => state !== 'SUCCESSFUL').map(({ source }) => source);
  return { ...job, provider: { ...job.provider, collections: [...collections], not_restored: missing } };
}

const DAYS: Record<string, number> = { days: 1, weeks: 7, months: 31, years: 365 };

/** How often snapshots of one frequency are taken and how long they are kept, in the words of Atlas. */
export interface Frequency {
  /** `hourly`, `daily`, `weekly`, `monthly`, `yearly` */
  readonly type: string;
  readonly interval: number;
  /** `days`, `weeks`, `months`, `years` */
  readonly unit: string;
  readonly value: number;
}

/** Gives a time in days, a month as 31 and a year as 365; NaN for a unit that is not known. */
export function daysOf({ unit, value }: Pick<Frequency, 'unit' | 'value'>): number {
  return value * (DAYS[unit] ?? Number.NaN);
}

export interface PolicyItem extends Frequency {
  every: string;
  keep: string;
  /** Seconds; a month counts 31 days, a year 365. */
  keep_seconds: number;
}

export interface AtlasSchedule {
  readonly policy_id: string | undefined;
  readonly items: readonly PolicyItem[];
  readonly hour: number | undefined;
  readonly minute: number | undefined;
  /** Days that point-in-time restores reach back. */
  readonly window_days: number | undefined;
  readonly next_at: string | undefined;
  /** `18:00` */
  readonly time: string | undefined;
  readonly copies: number;
  readonly export: boolean;
}

/** @see Atlas Admin API v2, getGroupClusterBackupSchedule (2024-08-05) */
export function toSchedule(wire: Wire): AtlasSchedule {
  const policy = first(wire['policies']);
  const items = list(policy['policyItems']).map((item): PolicyItem => {
    const value = Number(item['retentionValue'] ?? 0);
    const unit = cleanText(item['retentionUnit'], 20);
    const type = cleanText(item['frequencyType'], 20);
    const interval = Number(item['frequencyInterval'] ?? 1);
    return {
      type,
      interval,
      unit,
      value,
      every: type === 'hourly' ? `${interval} h` : type,
      keep: `${value} ${DAYS[unit] === undefined ? 'unknown' : unit}`,
      keep_seconds: value * (DAYS[unit] ?? 0) * 86_400,
    };
  });
  const hour = numberOf(wire['referenceHourOfDay']);
  const minute = numberOf(wire['referenceMinuteOfHour']);
  return {
    policy_id: text(policy['id']),
    items,
    hour,
    minute,
    window_days: typeof wire['restoreWindowDays'] === 'number' ? wire['restoreWindowDays'] : undefined,
    next_at: instant(wire['nextSnapshot']),
    time: hour === undefined ? undefined : `${String(hour).padStart(2, '0')}:${String(minute ?? 0).padStart(2, '0')}`,
    copies: list(wire['copySettings']).length,
    export: wire['autoExportEnabled'] === true,
  };
}

export type Subject = 'snapshot' | 'backup' | 'job' | 'cluster' | 'project';

export interface Refusal {
  readonly status: number;
  readonly body: unknown;
  readonly request_id: string | undefined;
  readonly retry_after: number | undefined;
  readonly subject: Subject;
  /** The project role that the call needs. */
  readonly role: string;
  readonly writes: boolean;
}

const NOT_FOUND: Record<Subject, ErrorCode> = {
  snapshot: 'SNAPSHOT_NOT_FOUND',
  backup: 'BACKUP_NOT_FOUND',
  job: 'RESOURCE_NOT_FOUND',
  cluster: 'RESOURCE_NOT_FOUND',
  project: 'RESOURCE_NOT_FOUND',
};

const UPGRADE = 'Upgrade the cluster to a dedicated tier (M10 or higher), or use mongodump and mongorestore.';

/** The code that an Atlas error code or, for one that we do not know, the status stands for. */
function codeOf(refusal: Refusal, atlas: string): ErrorCode {
  const { status, subject } = refusal;
  if (/^CANNOT_USE_(NON_)?FLEX_CLUSTER/.test(atlas)) return 'CLUSTER_TIER_NOT_SUPPORTED';
  if (atlas === 'SNAPSHOT_NOT_FOUND') return 'SNAPSHOT_NOT_FOUND';
  if (atlas === 'BACKUP_CONFIG_NOT_FOUND') return 'BACKUP_NOT_FOUND';
  if (atlas === 'CLUSTER_NOT_FOUND' || atlas === 'GROUP_NOT_FOUND') return 'RESOURCE_NOT_FOUND';
  if (/COMPLIANCE|DATA_PROTECTION/.test(atlas) || atlas === 'VERSION_GONE') return 'NOT_SUPPORTED';
  if (atlas === 'USER_UNAUTHORIZED' || status === 403) return 'INSUFFICIENT_PERMISSIONS';
  if (status === 401) return 'AUTHENTICATION_FAILED';
  if (status === 429 || atlas.startsWith('RATE_LIMITED')) return 'RATE_LIMITED';
  if (status >= 500) return 'PROVIDER_UNAVAILABLE';
  if (/PAUSED|IN_PROGRESS|NOT_IDLE|ALREADY_REQUESTED_DELETION/.test(atlas)) return 'INVALID_STATE';
  if (status === 402 || /(^|_)(LIMIT|MAX|MAXIMUM)(_|$)/.test(atlas)) return 'QUOTA_EXCEEDED';
  if (status === 404) return NOT_FOUND[subject];
  if (status === 409) return atlas.startsWith('DUPLICATE') ? 'RESOURCE_EXISTS' : 'INVALID_STATE';
  if (status === 405) return 'INVALID_STATE';
  if (status === 406 || status === 410 || status === 415) return 'NOT_SUPPORTED';
  if (status === 400 || status === 422) return 'INVALID_PARAMETER';
  return 'PROVIDER_UNAVAILABLE';
}

const MESSAGES: Partial<Record<ErrorCode, string>> = {
  CLUSTER_TIER_NOT_SUPPORTED: 'the tier of this cluster has no such backup call',
  SNAPSHOT_NOT_FOUND: 'MongoDB Atlas knows no such snapshot of this cluster',
  BACKUP_NOT_FOUND: 'this cluster has no cloud backup',
  RESOURCE_NOT_FOUND: 'MongoDB Atlas knows no such project, cluster or job',
  RESOURCE_EXISTS: 'MongoDB Atlas has one of that name already',
  INVALID_STATE: 'the state of the cluster does not allow this now',
  INVALID_PARAMETER: 'MongoDB Atlas refused a parameter',
  AUTHENTICATION_FAILED: 'MongoDB Atlas refused the credential',
  INSUFFICIENT_PERMISSIONS: 'the credential may not do this in MongoDB Atlas',
  RATE_LIMITED: 'MongoDB Atlas asks to slow down',
  QUOTA_EXCEEDED: 'a limit of this MongoDB Atlas organisation or project is reached',
  PROVIDER_UNAVAILABLE: 'MongoDB Atlas failed to answer the call',
  NOT_SUPPORTED: 'MongoDB Atlas does not support this call',
};

function hintFor(code: ErrorCode, atlas: string, role: string): string | undefined {
  if (code === 'CLUSTER_TIER_NOT_SUPPORTED') return UPGRADE;
  if (code === 'INSUFFICIENT_PERMISSIONS')
    return `Give the service account or API key the role ${role} in this project, and check the organisation's API access list.`;
  if (code === 'AUTHENTICATION_FAILED')
    return 'Check MONGODB_ATLAS_CLIENT_ID and _SECRET, or MONGODB_ATLAS_PUBLIC_KEY and _PRIVATE_KEY; a secret may have expired.';
  if (code === 'NOT_SUPPORTED' && /COMPLIANCE|DATA_PROTECTION/.test(atlas))
    return 'A backup compliance policy protects this project; nobody can shorten or delete its backups without MongoDB support.';
  if (code === 'BACKUP_NOT_FOUND') return 'Switch cloud backup on for the cluster first.';
  if (code === 'QUOTA_EXCEEDED') return 'Check the payment method and the limits of the organisation in MongoDB Atlas.';
  return undefined;
}

/** Makes the error for an answer that refuses; decides by the Atlas code first, by the status second. */
export function refusalError(refusal: Refusal): HoldfastError {
  const body = part(refusal.body);
  const raw = body['errorCode'];
  const atlas = typeof raw === 'string' && /^[A-Z][A-Z0-9_]{1,120}$/.test(raw) ? raw : '';
  const code = codeOf(refusal, atlas);
  // Names of fields are the API's own words; the descriptions beside them are free text and stay out.
  const fields = list(part(body['badRequestDetail'])['fields'])
    .map((entry) => String(entry['field']))
    .filter((name) => /^[A-Za-z0-9_.[\]-]{1,80}$/.test(name));
  const details: JsonObject = {
    ...(fields.length > 0 ? { fields } : {}),
    ...(refusal.retry_after === undefined ? {} : { retry_after_seconds: refusal.retry_after }),
    // A server fault may come after the work was begun; any other refusal comes instead of it.
    ...(refusal.writes ? { outcome: refusal.status >= 500 || refusal.status === 408 ? 'unknown' : 'not_sent' } : {}),
  };
  return new HoldfastError(code, MESSAGES[code] ?? 'MongoDB Atlas refused the call', {
    hint: hintFor(code, atlas, refusal.role),
    details: Object.keys(details).length > 0 ? details : undefined,
    provider: known({ code: atlas || undefined, status: refusal.status, request_id: refusal.request_id }),
  });
}

/** Refuses an action that a tier does not have. */
export function tierError(deployment: Deployment, what: string): HoldfastError {
  const name = deployment.kind === 'flex' ? 'a Flex cluster' : `an ${deployment.tier} cluster`;
  return new HoldfastError('CLUSTER_TIER_NOT_SUPPORTED', `'${deployment.cluster}' is ${name} and has no ${what}`, {
    hint:
      deployment.kind === 'flex'
        ? 'Flex clusters keep 8 automatic daily snapshots, which can be listed and restored. For more, upgrade to M10 or higher.'
        : UPGRADE,
    details: { tier: deployment.tier },
  });
}
