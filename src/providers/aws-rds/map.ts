import type {
  DBCluster,
  DBClusterSnapshot,
  DBInstance,
  DBInstanceAutomatedBackup,
  DBSnapshot,
  Tag,
} from '@aws-sdk/client-rds';
import { type ErrorCode, HoldfastError } from '../../core/errors.ts';
import type { RecoveryPoint } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { type AwsFailure, parseArn, toAwsError } from '../aws.ts';

export const TITLE = 'Amazon RDS';

/** A DB instance, or an Aurora or Multi-AZ DB cluster: every call of RDS exists once for each. */
export type Kind = 'instance' | 'cluster';

// --- identifiers ---------------------------------------------------------------------------------------------------

const NAME = /^[a-z](?:-?[a-z0-9])*$/;

function invalid(message: string, hint: string): HoldfastError {
  return new HoldfastError('INVALID_PARAMETER', message, { hint });
}

/**
 * Checks the identifier of an instance or cluster; RDS stores it in lower case.
 * @throws {HoldfastError} INVALID_PARAMETER
 */
export function checkDatabaseId(text: string, parameter: string): string {
  const id = text.toLowerCase();
  if (id.length > 63 || !NAME.test(id)) {
    throw invalid(
      `${parameter} is not the identifier of a database`,
      'Give up to 63 letters, digits and single hyphens, a letter first.',
    );
  }
  return id;
}

/**
 * Checks the name of a snapshot that is to be made; RDS stores it in lower case.
 * @throws {HoldfastError} INVALID_PARAMETER
 */
export function checkNewSnapshotId(text: string, kind: Kind, parameter = 'snapshot_id'): string {
  const id = text.toLowerCase();
  const longest = kind === 'instance' ? 255 : 63;
  if (id.length > longest || !NAME.test(id)) {
    throw invalid(
      `${parameter} is not a name for a manual snapshot`,
      `Give up to ${longest} letters, digits and single hyphens, a letter first.`,
    );
  }
  return id;
}

/**
 * Checks the id or ARN of a snapshot that exists; `rds:` marks automated ones, `awsbackup:` those of AWS Backup.
 * @throws {HoldfastError} INVALID_PARAMETER
 */
export function checkSnapshotId(text: string, kind: Kind, region: string): string {
  if (text.startsWith('arn:')) {
    const arn = parseArn(text);
    const type = kind === 'instance' ? 'snapshot' : 'cluster-snapshot';
    if (arn?.service !== 'rds' || arn.account === '' || !arn.resource.startsWith(`${type}:`)) {
      throw invalid(
        `snapshot_id is not the ARN of a ${kind} snapshot`,
        `Its form is arn:aws:rds:REGION:ACCOUNT:${type}:NAME.`,
      );
    }
    if (arn.region !== region) {
      throw invalid(
        `this snapshot is in ${arn.region}, the entity in ${region}`,
        'Copy it into the region first: copy-snapshot of an entity in that region, with target_region.',
      );
    }
    checkSnapshotName(arn.resource.slice(type.length + 1));
    return text;
  }
  return checkSnapshotName(text);
}

function checkSnapshotName(text: string): string {
  const id = text.toLowerCase();
  if (id.length > 255 || !NAME.test(id.replace(/^(?:rds|awsbackup):/, ''))) {
    throw invalid('snapshot_id is not the id of a snapshot', 'Use an id from list-snapshots.');
  }
  return id;
}

// --- databases -----------------------------------------------------------------------------------------------------

/** What an instance and a cluster have in common, in our words. */
export interface Database {
  readonly kind: Kind;
  readonly id: string;
  readonly arn: string;
  readonly account: string;
  /** Stays the same when the database is renamed, differs for another of the same name. */
  readonly resourceId: string;
  readonly status: string;
  readonly engine: string;
  readonly version: string;
  readonly retentionDays: number;
  readonly latestAt: string | undefined;
  readonly encrypted: boolean;
  readonly kmsKeyId: string | undefined;
  readonly deletionProtection: boolean;
  readonly instance?: DBInstance;
  readonly cluster?: DBCluster;
}

/** Writes an instant of AWS; undefined for what is none. */
export function instant(date: Date | undefined): string | undefined {
  return date === undefined || Number.isNaN(date.getTime()) ? undefined : date.toISOString();
}

/** Reads an instance. */
export function fromInstance(instance: DBInstance): Database {
  return {
    kind: 'instance',
    id: cleanText(instance.DBInstanceIdentifier, 63),
    arn: cleanText(instance.DBInstanceArn, 300),
    account: parseArn(instance.DBInstanceArn)?.account ?? '',
    resourceId: cleanText(instance.DbiResourceId, 100),
    status: cleanText(instance.DBInstanceStatus, 60),
    engine: cleanText(instance.Engine, 60),
    version: cleanText(instance.EngineVersion, 60),
    retentionDays: instance.BackupRetentionPeriod ?? 0,
    latestAt: instant(instance.LatestRestorableTime),
    encrypted: instance.StorageEncrypted === true,
    kmsKeyId: instance.KmsKeyId,
    deletionProtection: instance.DeletionProtection === true,
    instance,
  };
}

/** Reads a cluster. */
export function fromCluster(cluster: DBCluster): Database {
  return {
    kind: 'cluster',
    id: cleanText(cluster.DBClusterIdentifier, 63),
    arn: cleanText(cluster.DBClusterArn, 300),
    account: parseArn(cluster.DBClusterArn)?.account ?? '',
    resourceId: cleanText(cluster.DbClusterResourceId, 100),
    status: cleanText(cluster.Status, 60),
    engine: cleanText(cluster.Engine, 60),
    version: cleanText(cluster.EngineVersion, 60),
    retentionDays: cluster.BackupRetentionPeriod ?? 0,
    latestAt: instant(cluster.LatestRestorableTime),
    encrypted: cluster.StorageEncrypted === true,
    kmsKeyId: cluster.KmsKeyId,
    deletionProtection: cluster.DeletionProtection === true,
    cluster,
  };
}

/** The automated backups of an instance that was deleted, or of one that is there: what a moment can be restored from. */
export interface AutomatedBackup {
  readonly resourceId: string;
  /** `active`, `retained` once the source is deleted, `creating`. */
  readonly status: string;
  readonly engine: string;
  readonly version: string;
  readonly account: string;
  readonly earliestAt: string | undefined;
  readonly latestAt: string | undefined;
}

/** Reads the record of an instance's automated backups. */
export function fromAutomatedBackup(backup: DBInstanceAutomatedBackup): AutomatedBackup {
  return {
    resourceId: cleanText(backup.DbiResourceId, 100),
    status: cleanText(backup.Status, 40),
    engine: cleanText(backup.Engine, 60),
    version: cleanText(backup.EngineVersion, 60),
    account: parseArn(backup.DBInstanceArn)?.account ?? '',
    earliestAt: instant(backup.RestoreWindow?.EarliestTime),
    latestAt: instant(backup.RestoreWindow?.LatestTime),
  };
}

/** Whether a restore needs nothing else than is carried over here: RDS Custom wants its profile, DocumentDB and Neptune their own API. */
export function canBeRestored(kind: Kind, engine: string): boolean {
  return kind === 'instance' ? !engine.startsWith('custom-') : /^(aurora|mysql|postgres)/.test(engine);
}

// --- states --------------------------------------------------------------------------------------------------------

/** Where a database stands on its way to being used. */
export type Stage = 'working' | 'ready' | 'failed' | 'stopped' | 'full' | 'gone' | 'unknown';

const READY = new Set(['available', 'storage-optimization']);
const WORKING =
  /^(creating|backing-up|backtracking|cloning|converting-to-vpc|failing-over|maintenance|migrating|modifying|moving-to-vpc|promoting|rebooting|renaming|resetting-master-credentials|starting|storage-config-upgrade|storage-initialization|update-iam-db-auth|upgrading|configuring-.+|delete-precheck|scaling-.+)$/;
const FAILED =
  /^(failed|restore-error|cloning-failed|migration-failed|incompatible-.+|inaccessible-encryption-credentials(-recoverable)?|insufficient-capacity)$/;

/** Reads the status of an instance or cluster; one that is not known is `unknown`, never ready. */
export function stageOf(status: string): Stage {
  if (READY.has(status)) return 'ready';
  if (WORKING.test(status)) return 'working';
  if (FAILED.test(status)) return 'failed';
  if (status === 'stopped' || status === 'stopping') return 'stopped';
  if (status === 'storage-full') return 'full';
  if (status === 'deleting' || status === 'deleted') return 'gone';
  return 'unknown';
}

// --- snapshots -----------------------------------------------------------------------------------------------------

/** A snapshot of an instance or a cluster, in our words. */
export interface Snapshot {
  readonly kind: Kind;
  readonly id: string;
  readonly arn: string;
  /** The identifier of the database that it is of. */
  readonly of: string;
  readonly resourceId: string;
  readonly type: string;
  readonly status: string;
  readonly percent: number | undefined;
  readonly createdAt: string | undefined;
  readonly dataAt: string | undefined;
  readonly engine: string;
  readonly version: string;
  readonly encrypted: boolean;
  readonly kmsKeyId: string | undefined;
  readonly allocatedGib: number | undefined;
  readonly fullBytes: number | undefined;
  readonly copiedFrom: string | undefined;
  readonly tags: readonly Tag[];
}

/** Reads a snapshot of an instance. */
export function fromSnapshot(snapshot: DBSnapshot): Snapshot {
  const createdAt = instant(snapshot.SnapshotCreateTime);
  return {
    kind: 'instance',
    id: cleanText(snapshot.DBSnapshotIdentifier, 300),
    arn: cleanText(snapshot.DBSnapshotArn, 400),
    of: cleanText(snapshot.DBInstanceIdentifier, 63),
    resourceId: cleanText(snapshot.DbiResourceId, 100),
    type: cleanText(snapshot.SnapshotType, 40),
    status: cleanText(snapshot.Status, 60),
    percent: snapshot.PercentProgress,
    createdAt,
    // A copy has its own time of creation; the original's is that of the data.
    dataAt: instant(snapshot.OriginalSnapshotCreateTime) ?? createdAt,
    engine: cleanText(snapshot.Engine, 60),
    version: cleanText(snapshot.EngineVersion, 60),
    encrypted: snapshot.Encrypted === true,
    kmsKeyId: snapshot.KmsKeyId,
    allocatedGib: snapshot.AllocatedStorage,
    fullBytes: snapshot.FullSnapshotSizeInBytes,
    copiedFrom: snapshot.SourceDBSnapshotIdentifier,
    tags: snapshot.TagList ?? [],
  };
}

/** Reads a snapshot of a cluster. */
export function fromClusterSnapshot(snapshot: DBClusterSnapshot): Snapshot {
  const createdAt = instant(snapshot.SnapshotCreateTime);
  const copiedFrom = snapshot.SourceDBClusterSnapshotArn || undefined;
  return {
    kind: 'cluster',
    id: cleanText(snapshot.DBClusterSnapshotIdentifier, 300),
    arn: cleanText(snapshot.DBClusterSnapshotArn, 400),
    of: cleanText(snapshot.DBClusterIdentifier, 63),
    resourceId: cleanText(snapshot.DbClusterResourceId, 100),
    type: cleanText(snapshot.SnapshotType, 40),
    status: cleanText(snapshot.Status, 60),
    percent: snapshot.PercentProgress,
    createdAt,
    // RDS does not tell when the original of a copied cluster snapshot was taken.
    dataAt: copiedFrom === undefined ? createdAt : undefined,
    engine: cleanText(snapshot.Engine, 60),
    version: cleanText(snapshot.EngineVersion, 60),
    encrypted: snapshot.StorageEncrypted === true,
    kmsKeyId: snapshot.KmsKeyId,
    // Aurora allocates no storage, and says 0 or 1.
    allocatedGib: (snapshot.AllocatedStorage ?? 0) > 1 ? snapshot.AllocatedStorage : undefined,
    fullBytes: undefined,
    copiedFrom,
    tags: snapshot.TagList ?? [],
  };
}

const SNAPSHOT_STATUS: Readonly<Record<string, string>> = {
  creating: 'creating',
  copying: 'creating',
  available: 'available',
  failed: 'failed',
  'incompatible-restore': 'failed',
  'incompatible-parameters': 'failed',
  deleting: 'deleting',
  deleted: 'deleted',
};

/** Reads the status of a snapshot; one that is not known is `unknown`, and nothing is restored from it. */
export function snapshotStatus(status: string): string {
  return SNAPSHOT_STATUS[status] ?? 'unknown';
}

/** Whether a snapshot can be restored now. */
export function isRestorable(snapshot: Snapshot): boolean {
  return snapshotStatus(snapshot.status) === 'available';
}

const KINDS: Readonly<Record<string, string>> = {
  manual: 'on_demand',
  automated: 'automated',
  awsbackup: 'aws_backup',
};

/** Gives a snapshot as every list shows it. */
export function toPoint(snapshot: Snapshot): RecoveryPoint {
  const { createdAt, dataAt } = snapshot;
  return {
    id: snapshot.id,
    kind: KINDS[snapshot.type] ?? snapshot.type,
    status: snapshotStatus(snapshot.status),
    ...(createdAt === undefined ? {} : { created_at: createdAt }),
    ...(dataAt === undefined || dataAt === createdAt ? {} : { data_at: dataAt }),
    ...(snapshot.fullBytes === undefined ? {} : { size_bytes: snapshot.fullBytes }),
    encrypted: snapshot.encrypted,
    ...(parseArn(snapshot.arn) === undefined ? {} : { location: parseArn(snapshot.arn)?.region }),
    restorable: isRestorable(snapshot),
    provider: {
      arn: snapshot.arn,
      [snapshot.kind]: snapshot.of,
      resource_id: snapshot.resourceId,
      engine: snapshot.engine,
      engine_version: snapshot.version,
      ...(snapshotStatus(snapshot.status) === snapshot.status ? {} : { status: snapshot.status }),
      ...(snapshot.percent === undefined || isRestorable(snapshot) ? {} : { percent: snapshot.percent }),
      ...(snapshot.allocatedGib === undefined ? {} : { allocated_gib: snapshot.allocatedGib }),
      ...(snapshot.kmsKeyId === undefined ? {} : { kms_key: cleanText(snapshot.kmsKeyId, 300) }),
      ...(snapshot.copiedFrom === undefined ? {} : { copied_from: cleanText(snapshot.copiedFrom, 400) }),
      ...(snapshot.copiedFrom !== undefined && dataAt === undefined
        ? { data_moment: 'unknown: RDS does not tell when the original of this copy was taken' }
        : {}),
    },
  };
}

/** Sorts newest first; one without a time is being made just now. */
export function newestFirst(snapshots: readonly Snapshot[]): Snapshot[] {
  return [...snapshots].sort((a, b) => keyOf(b).localeCompare(keyOf(a), 'en'));
}

/** A key that sorts as time does, for cutting pages. */
export function keyOf(snapshot: Snapshot): string {
  return `${snapshot.createdAt ?? '9999-12-31T00:00:00.000Z'} ${snapshot.id}`;
}

/** What Holdfast writes on everything it makes, so that a lost answer's work is found again. */
export const REQUEST_TAG = 'holdfast:request-id';
/** What a restored database came from; RDS itself does not tell. */
export const ORIGIN_TAG = 'holdfast:restored-from';

/** Gives the value of a tag. */
export function tagOf(tags: readonly Tag[] | undefined, key: string): string | undefined {
  return tags?.find((tag) => tag.Key === key)?.Value;
}

// --- errors --------------------------------------------------------------------------------------------------------

/** Codes of RDS, without a trailing `Fault`, in our words. */
export const RDS_CODES: Readonly<Record<string, ErrorCode>> = {
  DBSnapshotNotFound: 'SNAPSHOT_NOT_FOUND',
  DBClusterSnapshotNotFound: 'SNAPSHOT_NOT_FOUND',
  DBInstanceAutomatedBackupNotFound: 'BACKUP_NOT_FOUND',
  DBClusterAutomatedBackupNotFound: 'BACKUP_NOT_FOUND',
  DBInstanceNotFound: 'RESOURCE_NOT_FOUND',
  DBClusterNotFound: 'RESOURCE_NOT_FOUND',
  ResourceNotFound: 'RESOURCE_NOT_FOUND',
  DBSubnetGroupNotFound: 'RESOURCE_NOT_FOUND',
  DBParameterGroupNotFound: 'RESOURCE_NOT_FOUND',
  DBClusterParameterGroupNotFound: 'RESOURCE_NOT_FOUND',
  OptionGroupNotFound: 'RESOURCE_NOT_FOUND',
  DBSecurityGroupNotFound: 'RESOURCE_NOT_FOUND',
  DomainNotFound: 'RESOURCE_NOT_FOUND',
  CertificateNotFound: 'RESOURCE_NOT_FOUND',
  BackupPolicyNotFound: 'RESOURCE_NOT_FOUND',
  DBSnapshotAlreadyExists: 'RESOURCE_EXISTS',
  DBClusterSnapshotAlreadyExists: 'RESOURCE_EXISTS',
  DBInstanceAlreadyExists: 'RESOURCE_EXISTS',
  DBClusterAlreadyExists: 'RESOURCE_EXISTS',
  InvalidDBInstanceState: 'INVALID_STATE',
  InvalidDBSnapshotState: 'INVALID_STATE',
  InvalidDBClusterState: 'INVALID_STATE',
  InvalidDBClusterSnapshotState: 'INVALID_STATE',
  InvalidDBInstanceAutomatedBackupState: 'INVALID_STATE',
  InvalidVPCNetworkState: 'INVALID_STATE',
  InvalidDBSubnetGroupState: 'INVALID_STATE',
  DBInstanceNotReady: 'INVALID_STATE',
  SnapshotQuotaExceeded: 'QUOTA_EXCEEDED',
  InstanceQuotaExceeded: 'QUOTA_EXCEEDED',
  StorageQuotaExceeded: 'QUOTA_EXCEEDED',
  SharedSnapshotQuotaExceeded: 'QUOTA_EXCEEDED',
  TenantDatabaseQuotaExceeded: 'QUOTA_EXCEEDED',
  DBInstanceAutomatedBackupQuotaExceeded: 'QUOTA_EXCEEDED',
  DBClusterQuotaExceeded: 'QUOTA_EXCEEDED',
  InsufficientDBInstanceCapacity: 'PROVIDER_UNAVAILABLE',
  InsufficientDBClusterCapacity: 'PROVIDER_UNAVAILABLE',
  InsufficientStorageClusterCapacity: 'PROVIDER_UNAVAILABLE',
  PointInTimeRestoreNotEnabled: 'NOT_SUPPORTED',
  InvalidRestore: 'INVALID_PARAMETER',
  StorageTypeNotSupported: 'INVALID_PARAMETER',
  NetworkTypeNotSupported: 'INVALID_PARAMETER',
  ProvisionedIopsNotAvailableInAZ: 'INVALID_PARAMETER',
  DBSubnetGroupDoesNotCoverEnoughAZs: 'INVALID_PARAMETER',
  InvalidSubnet: 'INVALID_PARAMETER',
  KMSKeyNotAccessible: 'INSUFFICIENT_PERMISSIONS',
  AuthorizationNotFound: 'INSUFFICIENT_PERMISSIONS',
};

const MISSING: Readonly<Record<string, string>> = {
  DBInstance: 'DB instance',
  DBCluster: 'DB cluster',
  DBSubnetGroup: 'subnet group',
  DBParameterGroup: 'parameter group',
  DBClusterParameterGroup: 'cluster parameter group',
  OptionGroup: 'option group',
  DBSecurityGroup: 'security group',
  Domain: 'directory domain',
  Certificate: 'certificate authority',
};

function words(code: ErrorCode, { code: word = '' }: AwsFailure): { message: string; hint?: string } | undefined {
  switch (code) {
    case 'SNAPSHOT_NOT_FOUND':
      return { message: 'there is no such snapshot in this account and region' };
    case 'BACKUP_NOT_FOUND':
      return { message: 'there are no such automated backups' };
    case 'RESOURCE_NOT_FOUND':
      return { message: `there is no such ${MISSING[word.replace(/NotFound$/, '')] ?? 'resource'}` };
    case 'RESOURCE_EXISTS':
      return { message: `there is a ${/Snapshot/.test(word) ? 'snapshot' : 'database'} of that name already` };
    case 'INVALID_STATE':
      return {
        message: `the ${/Snapshot/.test(word) ? 'snapshot' : /VPC|Subnet/.test(word) ? 'network' : 'database'} is not in a state for this`,
      };
    case 'QUOTA_EXCEEDED':
      return {
        message: 'a quota of the account in this region is used up',
        hint: 'Look at Service Quotas for Amazon RDS; delete what is not needed or ask for more.',
      };
    case 'NOT_SUPPORTED':
      return {
        message: 'automated backups are off: there is no point-in-time recovery',
        hint: 'Restore a snapshot instead: list-snapshots shows them.',
      };
    case 'INSUFFICIENT_PERMISSIONS':
      return /^KMS/.test(word)
        ? {
            message: 'the encryption key cannot be used: it is off, gone, or not allowed to the caller',
            hint: 'Allow kms:DescribeKey and kms:CreateGrant on the key to the caller, in its key policy too, and see that it is enabled.',
          }
        : undefined;
    case 'PROVIDER_UNAVAILABLE':
      return /^Insufficient/.test(word)
        ? {
            message: 'AWS has no capacity for this class here at the moment',
            hint: 'Try another class or Availability Zone, or later.',
          }
        : undefined;
    default:
      return undefined;
  }
}

/** Maps what a call of the RDS client threw to our codes. */
export function toRdsError(cause: unknown, operation: string, write: boolean): HoldfastError {
  return toAwsError(cause, { title: TITLE, permission: `rds:${operation}`, write, codes: RDS_CODES, message: words });
}
