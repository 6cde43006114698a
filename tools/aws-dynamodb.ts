import { z } from 'zod';
import { defineAction } from '../src/core/action.ts';
import { BackupInfo, InstantInput, ListInput, RecoveryPoint, RestoreJob, SnapshotList } from '../src/core/schemas.ts';
import {
  backupInfo,
  createSteps,
  deleteSteps,
  listBackups,
  planDelete,
  readBackup,
} from '../src/providers/aws-dynamodb/backups.ts';
import { awsDynamodb } from '../src/providers/aws-dynamodb/provider.ts';
import { planRestore, restoreResult, restoreStatus, restoreSteps } from '../src/providers/aws-dynamodb/restore.ts';
import { SETTINGS } from '../src/providers/aws-dynamodb/settings.ts';

const READ_ERRORS = [
  'AUTHENTICATION_FAILED',
  'INSUFFICIENT_PERMISSIONS',
  'RESOURCE_NOT_FOUND',
  'RATE_LIMITED',
  'QUOTA_EXCEEDED',
  'PROVIDER_UNAVAILABLE',
  'TIMEOUT',
] as const;

const BackupInput = { backup_arn: z.string().optional(), snapshot_id: z.string().optional() };

export const getBackupInfo = defineAction({
  provider: awsDynamodb,
  name: 'get-backup-info',
  title: 'Show how a DynamoDB table is backed up',
  summary: 'Shows point-in-time recovery and its window, the newest backup and what is missing.',
  risk: 'read',
  input: z.object({}),
  output: BackupInfo,
  errors: READ_ERRORS,
  source: 'DynamoDB 2012-08-10 DescribeTable, DescribeContinuousBackups, ListBackups, ListTagsOfResource',
  example: {},
  run: (context) => backupInfo(context),
});

export const createSnapshot = defineAction({
  provider: awsDynamodb,
  name: 'create-snapshot',
  aliases: ['create-backup'],
  title: 'Take an on-demand backup of a DynamoDB table',
  summary:
    'Takes an on-demand backup, kept until deleted, and waits until it can be restored. backup_name must be new.',
  risk: 'create',
  input: z.object({ backup_name: z.string().optional() }),
  output: RecoveryPoint,
  errors: [...READ_ERRORS, 'RESOURCE_EXISTS', 'SNAPSHOT_NOT_FOUND', 'INVALID_STATE', 'INVALID_PARAMETER'],
  source: 'DynamoDB 2012-08-10 CreateBackup, DescribeBackup',
  example: {},
  steps: () => createSteps(),
  result: (results) => results['wait']?.['point'] as unknown as RecoveryPoint,
});

export const listSnapshots = defineAction({
  provider: awsDynamodb,
  name: 'list-snapshots',
  aliases: ['list-backups'],
  title: 'List the backups of a DynamoDB table',
  summary: 'Lists on-demand and system backups, newest first.',
  risk: 'read',
  input: z.object({ ...ListInput }),
  output: SnapshotList,
  errors: [...READ_ERRORS, 'INVALID_PARAMETER'],
  source: 'DynamoDB 2012-08-10 ListBackups',
  example: { limit: 20 },
  run: (context, input) => listBackups(context, input),
});

export const describeSnapshot = defineAction({
  provider: awsDynamodb,
  name: 'describe-snapshot',
  aliases: ['describe-backup'],
  title: 'Describe one DynamoDB backup',
  summary: 'Shows one backup and the table it was taken of.',
  risk: 'read',
  input: z.object({ ...BackupInput }),
  output: RecoveryPoint,
  errors: [...READ_ERRORS, 'SNAPSHOT_NOT_FOUND', 'INVALID_PARAMETER'],
  source: 'DynamoDB 2012-08-10 DescribeBackup',
  example: { backup_arn: '$newest' },
  run: (context, input) => readBackup(context, input),
});

export const deleteSnapshot = defineAction({
  provider: awsDynamodb,
  name: 'delete-snapshot',
  aliases: ['delete-backup'],
  title: 'Delete a DynamoDB backup',
  summary: 'Deletes one backup for good.',
  risk: 'delete',
  input: z.object({ ...BackupInput, allow_last: z.boolean().optional() }),
  output: z.object({ backup_arn: z.string(), deleted: z.literal(true) }),
  errors: [...READ_ERRORS, 'SNAPSHOT_NOT_FOUND', 'INVALID_PARAMETER', 'INVALID_STATE', 'NOT_SUPPORTED'],
  source: 'DynamoDB 2012-08-10 DeleteBackup',
  example: { backup_arn: '$newest' },
  plan: (context, input) => planDelete(context, input),
  steps: (_input, plan) => deleteSteps(plan),
  result: (results) => ({ backup_arn: String(results['wait']?.['backup_arn']), deleted: true as const }),
});

export const restore = defineAction({
  provider: awsDynamodb,
  name: 'restore',
  title: 'Restore a DynamoDB backup or moment into a new table',
  summary:
    'Restores a backup or moment (use_latest: the latest) into the new table target_table; the source stays as it is.',
  risk: 'create',
  input: z.object({
    target_table: z.string(),
    ...BackupInput,
    restore_timestamp: InstantInput.optional(),
    use_latest: z.boolean().optional(),
    reapply: z.array(z.enum(SETTINGS)).optional().describe('settings the copy would lack'),
  }),
  output: RestoreJob,
  errors: [
    ...READ_ERRORS,
    'SNAPSHOT_NOT_FOUND',
    'RESOURCE_EXISTS',
    'INVALID_PARAMETER',
    'INVALID_STATE',
    'NOT_SUPPORTED',
  ],
  source:
    'DynamoDB 2012-08-10 RestoreTableFromBackup, RestoreTableToPointInTime, UpdateContinuousBackups, UpdateTable, UpdateTimeToLive, TagResource',
  example: { use_latest: true, target_table: 'orders-copy' },
  plan: (context, input) => planRestore(context, input),
  steps: (_input, plan) => restoreSteps(plan),
  result: (results) => restoreResult(results),
});

export const getRestoreStatus = defineAction({
  provider: awsDynamodb,
  name: 'get-restore-status',
  title: 'Show how a restore into a DynamoDB table stands',
  summary: 'Shows whether a restored table can be used yet.',
  risk: 'read',
  input: z.object({ target_table: z.string() }),
  output: RestoreJob,
  errors: [...READ_ERRORS, 'INVALID_PARAMETER'],
  source: 'DynamoDB 2012-08-10 DescribeTable',
  example: { target_table: 'orders-before-release' },
  run: (context, { target_table }) => restoreStatus(context, target_table),
});
