import type {
  BackupDescription,
  BackupDetails,
  BackupSummary,
  ContinuousBackupsDescription,
  TableDescription,
} from '@aws-sdk/client-dynamodb';
import { type ErrorCode, HoldfastError } from '../../core/errors.ts';
import type { JobStatus, RecoveryPoint, RecoveryWindow, RestoreJob } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { type AwsAddressed, type AwsFailure, parseArn, readAwsFailure, toAwsError } from '../aws.ts';

export const TITLE = 'Amazon DynamoDB';

/** Names of tables and of backups. */
export const NAME_PATTERN = /^[a-zA-Z0-9_.-]{3,255}$/;
const ID_PATTERN = /^\d{10,20}-[0-9a-f]{4,16}$/;
const BACKUP_RESOURCE = /^table\/([a-zA-Z0-9_.-]{3,255})\/backup\/([A-Za-z0-9-]{1,64})$/;

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkName(name: string, parameter: string): string {
  if (NAME_PATTERN.test(name)) return name;
  throw new HoldfastError('INVALID_PARAMETER', `${parameter} '${cleanText(name, 60)}' is not a DynamoDB name`, {
    hint: 'Names have 3 to 255 letters, digits, dots, hyphens and underscores.',
  });
}

// --- backups as a caller names them --------------------------------------------------------------------------------

/** A backup as a caller names it: its ARN, the end of its ARN, or its name, which need not be unique. */
export type BackupRef = { kind: 'arn'; arn: string } | { kind: 'id'; id: string } | { kind: 'name'; name: string };

/**
 * Reads `backup_arn` or `snapshot_id`, exactly one of them; an ARN has to be of this table.
 * @throws {HoldfastError} INVALID_PARAMETER
 */
export function readBackupRef(
  input: { backup_arn?: string | undefined; snapshot_id?: string | undefined },
  own: { table: string; region: string },
): BackupRef {
  const { backup_arn, snapshot_id } = input;
  if ((backup_arn === undefined) === (snapshot_id === undefined)) {
    throw new HoldfastError('INVALID_PARAMETER', 'give either backup_arn or snapshot_id', {
      hint: 'list-snapshots shows the ARNs; snapshot_id also takes the end of an ARN, or a name that only one backup has.',
    });
  }
  const text = String(backup_arn ?? snapshot_id);
  if (text.startsWith('arn:')) return { kind: 'arn', arn: checkBackupArn(text, own) };
  if (backup_arn === undefined && ID_PATTERN.test(text)) return { kind: 'id', id: text };
  if (backup_arn === undefined && NAME_PATTERN.test(text)) return { kind: 'name', name: text };
  throw new HoldfastError('INVALID_PARAMETER', `'${cleanText(text, 80)}' is not a DynamoDB backup`, {
    hint: 'Give arn:aws:dynamodb:REGION:ACCOUNT:table/TABLE/backup/ID as list-snapshots shows it.',
  });
}

/**
 * Refuses an ARN that is no backup of this table: each entity answers for its own table only.
 * @throws {HoldfastError} INVALID_PARAMETER
 */
export function checkBackupArn(text: string, own: { table: string; region: string }): string {
  const arn = text.length >= 37 && text.length <= 1024 ? parseArn(text) : undefined;
  const parts = arn?.service === 'dynamodb' && arn.account !== '' ? BACKUP_RESOURCE.exec(arn.resource) : null;
  if (arn === undefined || parts === null) {
    throw new HoldfastError('INVALID_PARAMETER', `'${cleanText(text, 80)}' is not the ARN of a DynamoDB backup`, {
      hint: 'Give arn:aws:dynamodb:REGION:ACCOUNT:table/TABLE/backup/ID as list-snapshots shows it.',
    });
  }
  if (parts[1] !== own.table || arn.region !== own.region) {
    throw new HoldfastError('INVALID_PARAMETER', 'this backup belongs to another table or region', {
      hint: 'Make the call on the entity that the backup belongs to.',
    });
  }
  return text;
}

/** Gives the end of a backup's ARN, which is unique in its table. */
export function shortId(arn: string): string {
  return arn.slice(arn.lastIndexOf('/') + 1);
}

// --- snapshots -----------------------------------------------------------------------------------------------------

const STATES: Record<string, string> = { CREATING: 'creating', AVAILABLE: 'available', DELETED: 'deleted' };
const KINDS: Record<string, string> = { USER: 'on_demand', SYSTEM: 'system', AWS_BACKUP: 'aws_backup' };

/** Gives an instant of the SDK as RFC 3339 UTC; undefined for none and for one that cannot be read. */
export function instant(value: Date | undefined): string | undefined {
  return value instanceof Date && !Number.isNaN(value.getTime()) ? value.toISOString() : undefined;
}

function time<Name extends string>(name: Name, value: Date | undefined): Partial<Record<Name, string>> {
  const text = instant(value);
  return (text === undefined ? {} : { [name]: text }) as Partial<Record<Name, string>>;
}

/** Makes a recovery point of a backup, as a list or a description gives it. */
export function backupToPoint(backup: BackupDetails | BackupSummary, region: string): RecoveryPoint {
  const status = STATES[backup.BackupStatus ?? ''] ?? 'unknown';
  const size = backup.BackupSizeBytes;
  const name = cleanText(backup.BackupName, 255);
  return {
    id: String(backup.BackupArn ?? ''),
    kind: KINDS[backup.BackupType ?? ''] ?? (cleanText(backup.BackupType, 40).toLowerCase() || 'unknown'),
    status,
    ...time('created_at', backup.BackupCreationDateTime),
    ...time('expires_at', backup.BackupExpiryDateTime),
    ...(size !== undefined && Number.isSafeInteger(size) ? { size_bytes: size } : {}),
    // DynamoDB encrypts everything at rest, with a key of its own where no other is named.
    encrypted: true,
    location: region,
    restorable: status === 'available',
    ...(name === '' ? {} : { description: name }),
  };
}

/** Makes a recovery point of a described backup, with what it says of its table. */
export function descriptionToPoint(backup: BackupDescription, region: string): RecoveryPoint {
  const table = backup.SourceTableDetails;
  const features = backup.SourceTableFeatureDetails;
  const kms = features?.SSEDescription?.KMSMasterKeyArn;
  const ttl = features?.TimeToLiveDescription;
  return {
    ...backupToPoint(backup.BackupDetails ?? ({} as BackupDetails), region),
    provider: {
      table: cleanText(table?.TableName, 255),
      table_id: cleanText(table?.TableId, 60),
      ...(table?.TableArn ? { table_arn: cleanText(table.TableArn, 400) } : {}),
      ...time('table_created_at', table?.TableCreationDateTime),
      billing_mode: cleanText(table?.BillingMode ?? 'PROVISIONED', 40),
      ...(table?.ItemCount === undefined ? {} : { items: table.ItemCount }),
      indexes: [...(features?.GlobalSecondaryIndexes ?? []), ...(features?.LocalSecondaryIndexes ?? [])].map((index) =>
        cleanText(index.IndexName, 255),
      ),
      ...(kms ? { kms_key: cleanText(kms) } : {}),
      ...(ttl?.TimeToLiveStatus === 'ENABLED' ? { ttl_attribute: cleanText(ttl.AttributeName, 255) } : {}),
      ...(features?.StreamDescription?.StreamEnabled === true
        ? { stream: cleanText(features.StreamDescription.StreamViewType, 40) }
        : {}),
    },
  };
}

/** How point-in-time recovery stands. */
export interface Recovery {
  readonly enabled: boolean;
  readonly days: number | undefined;
  readonly window: RecoveryWindow | undefined;
}

/** Reads how point-in-time recovery stands. */
export function recoveryFrom({ PointInTimeRecoveryDescription: pitr }: ContinuousBackupsDescription): Recovery {
  const enabled = pitr?.PointInTimeRecoveryStatus === 'ENABLED';
  const earliest = instant(pitr?.EarliestRestorableDateTime);
  const latest = instant(pitr?.LatestRestorableDateTime);
  return {
    enabled,
    days: enabled ? (pitr?.RecoveryPeriodInDays ?? 35) : undefined,
    // Just switched on, there is no window yet.
    window:
      enabled && earliest !== undefined && latest !== undefined && earliest <= latest
        ? { earliest_at: earliest, latest_at: latest }
        : undefined,
  };
}

// --- tables --------------------------------------------------------------------------------------------------------

/** Gives how a table is paid for; the member is missing for tables that never left provisioned capacity. */
export function billingMode(table: TableDescription): string {
  return cleanText(table.BillingModeSummary?.BillingMode ?? 'PROVISIONED', 40);
}

/** Says what encrypts a table. */
export function encryptionOf(table: TableDescription): string {
  const sse = table.SSEDescription;
  if (sse?.KMSMasterKeyArn) return `KMS key ${cleanText(sse.KMSMasterKeyArn)}`;
  return 'AWS owned key';
}

const LOST = new Set(['INACCESSIBLE_ENCRYPTION_CREDENTIALS', 'ARCHIVED', 'ARCHIVING']);

/** Tells how a restored table stands: one that serves while an index is built is not done. */
export function restoreState(table: TableDescription): JobStatus {
  const status = table.TableStatus ?? '';
  if (LOST.has(status)) return 'failed';
  if (status === 'DELETING') return 'cancelled';
  if (status === 'CREATING' || status === 'UPDATING') return 'running';
  if (status !== 'ACTIVE') return 'unknown';
  const building = [...(table.GlobalSecondaryIndexes ?? []), ...(table.VectorIndexes ?? [])].some(
    ({ IndexStatus }) => IndexStatus === 'CREATING' || IndexStatus === 'UPDATING',
  );
  return building || table.RestoreSummary?.RestoreInProgress === true ? 'running' : 'succeeded';
}

/** Makes the job of a restore of its target, which is all that DynamoDB keeps of one. */
export function tableToJob(table: TableDescription): RestoreJob {
  const status = restoreState(table);
  const summary = table.RestoreSummary;
  return {
    job_id: cleanText(table.TableArn, 400),
    status,
    target: cleanText(table.TableName, 255),
    ...time('started_at', table.CreationDateTime),
    usable: status === 'succeeded',
    provider: {
      table_status: cleanText(table.TableStatus, 60),
      ...time('restore_point', summary?.RestoreDateTime),
      ...(summary?.SourceBackupArn ? { source_backup_arn: cleanText(summary.SourceBackupArn, 1024) } : {}),
      ...(summary?.SourceTableArn ? { source_table_arn: cleanText(summary.SourceTableArn, 400) } : {}),
      ...(table.GlobalSecondaryIndexes?.length
        ? {
            indexes: Object.fromEntries(
              table.GlobalSecondaryIndexes.map((index) => [
                cleanText(index.IndexName, 255),
                cleanText(index.IndexStatus, 20),
              ]),
            ),
          }
        : {}),
    },
  };
}

// --- errors --------------------------------------------------------------------------------------------------------

const CODES: Readonly<Record<string, ErrorCode>> = {
  BackupNotFoundException: 'SNAPSHOT_NOT_FOUND',
  TableNotFoundException: 'RESOURCE_NOT_FOUND',
  ResourceNotFoundException: 'RESOURCE_NOT_FOUND',
  IndexNotFoundException: 'RESOURCE_NOT_FOUND',
  PolicyNotFoundException: 'RESOURCE_NOT_FOUND',
  TableAlreadyExistsException: 'RESOURCE_EXISTS',
  TableInUseException: 'INVALID_STATE',
  BackupInUseException: 'INVALID_STATE',
  ResourceInUseException: 'INVALID_STATE',
  ContinuousBackupsUnavailableException: 'INVALID_STATE',
  PointInTimeRecoveryUnavailableException: 'NOT_SUPPORTED',
  InvalidRestoreTimeException: 'INVALID_PARAMETER',
  LimitExceededException: 'QUOTA_EXCEEDED',
  ProvisionedThroughputExceededException: 'RATE_LIMITED',
  SubscriptionRequiredException: 'AUTHENTICATION_FAILED',
  InvalidEndpointException: 'PROVIDER_UNAVAILABLE',
  ServiceUnavailableException: 'PROVIDER_UNAVAILABLE',
};

/** How the failure of one DynamoDB call is to be named. */
export interface Addressed {
  /** The operation, which is also the name of its permission. */
  readonly operation: string;
  readonly write?: boolean | undefined;
  /** What it was about, in our words: `the table orders`. */
  readonly about?: string | undefined;
}

/** Maps what a call threw to our codes. Almost every refusal has HTTP status 400, so the name decides. */
export function toDynamoDbError(cause: unknown, { operation, write, about }: Addressed): HoldfastError {
  const failure = readAwsFailure(cause);
  return toAwsError(cause, {
    title: TITLE,
    permission: `dynamodb:${operation}`,
    write,
    codes: { ...CODES, ...special(failure) },
    message: (code, failed) =>
      code === 'INSUFFICIENT_PERMISSIONS' ? denial(operation, failed) : sentence(code, failed, about),
  } satisfies AwsAddressed);
}

// Two names mean different things; only AWS's own sentence tells which.
function special({ code, text }: AwsFailure): Record<string, ErrorCode> {
  if (code === 'ValidationException' && /\bKMS\b/i.test(text)) return { [code]: 'INSUFFICIENT_PERMISSIONS' };
  if (code === 'LimitExceededException' && /\b(rate|throttl|too many requests)/i.test(text)) {
    return { [code]: 'RATE_LIMITED' };
  }
  return {};
}

function sentence(
  code: ErrorCode,
  { code: word }: AwsFailure,
  about: string | undefined,
): { message: string; hint?: string } | undefined {
  switch (code) {
    case 'SNAPSHOT_NOT_FOUND':
      return { message: 'this backup does not exist, or no longer' };
    case 'RESOURCE_NOT_FOUND':
      return { message: `${about ?? 'what the call names'} does not exist` };
    case 'RESOURCE_EXISTS':
      return {
        message: `${about ?? 'the target table'} exists already`,
        hint: 'DynamoDB never restores onto a table. Choose a target_table that is not in use.',
      };
    case 'INVALID_STATE':
      return { message: `${about ?? 'the table or backup'} is busy with another change` };
    case 'NOT_SUPPORTED':
      return {
        message: 'point-in-time recovery is off for this table',
        hint: 'Restore a backup instead. Switched on now, only later moments become restorable.',
      };
    case 'QUOTA_EXCEEDED':
      return {
        message: 'a DynamoDB limit of the account is reached',
        hint: 'At most 50 restores and 500 table changes run at once, and the number of tables is limited. Wait, or raise the quota.',
      };
    case 'INVALID_PARAMETER':
      return word === 'InvalidRestoreTimeException'
        ? {
            message: 'the moment is outside of the recovery window',
            hint: 'get-backup-info shows the window; it ends about five minutes ago.',
          }
        : undefined;
    default:
      return undefined;
  }
}

const DATA_ACTIONS = 'BatchWriteItem, DeleteItem, GetItem, PutItem, Query, Scan and UpdateItem';

// What the general sentence leaves out: where a permission has no resource of its own, or one is not enough.
function denial(operation: string, { code }: AwsFailure): { message: string; hint: string } | undefined {
  if (code === 'ValidationException') {
    return {
      message: 'the KMS key of the table cannot be used with these credentials',
      hint: 'Allow kms:DescribeKey, CreateGrant, Encrypt, Decrypt, ReEncrypt* and GenerateDataKey* on the key, and see that it is enabled.',
    };
  }
  if (operation.startsWith('RestoreTable')) {
    return {
      message: `${TITLE} refuses this: the credentials lack dynamodb:${operation}, or a data action on the target table`,
      hint: `Allow dynamodb:${operation} on ${operation.endsWith('Backup') ? 'table/SOURCE/backup/*' : 'table/SOURCE'}, and dynamodb:${DATA_ACTIONS} on table/TARGET.`,
    };
  }
  if (operation === 'ListBackups') {
    return {
      message: `${TITLE} refuses this: the credentials lack dynamodb:ListBackups`,
      hint: 'Allow dynamodb:ListBackups on the resource *: it knows no narrower one.',
    };
  }
  return undefined;
}
