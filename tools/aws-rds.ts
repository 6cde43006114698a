import { z } from 'zod';
import { defineAction } from '../src/core/action.ts';
import { BackupInfo, InstantInput, ListInput, RecoveryPoint, RestoreJob, SnapshotList } from '../src/core/schemas.ts';
import { backupInfo } from '../src/providers/aws-rds/info.ts';
import { awsRds } from '../src/providers/aws-rds/provider.ts';
import { planRestore, restoreResult, restoreStatus, restoreSteps } from '../src/providers/aws-rds/restore.ts';
import {
  copySteps,
  createSteps,
  deleteSteps,
  madePoint,
  planDelete,
  describeSnapshot as readSnapshot,
  listSnapshots as readSnapshots,
} from '../src/providers/aws-rds/snapshots.ts';

const REACH = [
  'AUTHENTICATION_FAILED',
  'INSUFFICIENT_PERMISSIONS',
  'NOT_SUPPORTED',
  'RATE_LIMITED',
  'PROVIDER_UNAVAILABLE',
  'TIMEOUT',
] as const;
const READ = [...REACH, 'RESOURCE_NOT_FOUND'] as const;
const MAKE = [...READ, 'RESOURCE_EXISTS', 'QUOTA_EXCEEDED', 'INVALID_STATE', 'INVALID_PARAMETER'] as const;

export const getBackupInfo = defineAction({
  provider: awsRds,
  name: 'get-backup-info',
  title: 'Show how an RDS database is backed up',
  summary: 'Shows retention, backup window, point-in-time window, newest snapshot and what is missing.',
  risk: 'read',
  input: z.object({}),
  output: BackupInfo,
  errors: READ,
  source:
    'RDS API 2014-10-31: DescribeDBInstances, DescribeDBInstanceAutomatedBackups, DescribeDBSnapshots; the same of clusters',
  example: {},
  run: (context) => backupInfo(context),
});

export const createSnapshot = defineAction({
  provider: awsRds,
  name: 'create-snapshot',
  aliases: ['create-backup'],
  title: 'Take a manual snapshot of an RDS database',
  summary: 'Takes a manual snapshot and waits until it can be restored.',
  risk: 'create',
  input: z.object({ snapshot_id: z.string().optional() }),
  output: RecoveryPoint,
  errors: MAKE,
  source: 'RDS API 2014-10-31: CreateDBSnapshot, CreateDBClusterSnapshot',
  example: { snapshot_id: 'pre-upgrade-2026-11-21' },
  steps: () => createSteps(),
  result: (results) => madePoint(results),
});

export const listSnapshots = defineAction({
  provider: awsRds,
  name: 'list-snapshots',
  aliases: ['list-backups'],
  title: 'List the snapshots of an RDS database',
  summary: 'Lists manual, automated and AWS Backup snapshots, newest first.',
  risk: 'read',
  input: z.object({ ...ListInput, type: z.enum(['manual', 'automated', 'awsbackup']).optional() }),
  output: SnapshotList,
  errors: [...REACH, 'INVALID_PARAMETER'],
  source: 'RDS API 2014-10-31: DescribeDBSnapshots, DescribeDBClusterSnapshots',
  example: { limit: 10 },
  run: (context, input) => readSnapshots(context, input),
});

export const describeSnapshot = defineAction({
  provider: awsRds,
  name: 'describe-snapshot',
  aliases: ['describe-backup'],
  title: 'Describe one RDS snapshot',
  summary: 'Shows one snapshot.',
  risk: 'read',
  input: z.object({ snapshot_id: z.string() }),
  output: RecoveryPoint,
  errors: [...REACH, 'SNAPSHOT_NOT_FOUND', 'INVALID_PARAMETER'],
  source: 'RDS API 2014-10-31: DescribeDBSnapshots, DescribeDBClusterSnapshots',
  example: { snapshot_id: '$newest' },
  run: (context, { snapshot_id }) => readSnapshot(context, snapshot_id),
});

export const deleteSnapshot = defineAction({
  provider: awsRds,
  name: 'delete-snapshot',
  aliases: ['delete-backup'],
  title: 'Delete a manual RDS snapshot',
  summary: 'Deletes one manual snapshot for good.',
  risk: 'delete',
  input: z.object({ snapshot_id: z.string(), allow_last: z.boolean().optional() }),
  output: z.object({ snapshot_id: z.string(), deleted: z.literal(true) }),
  errors: [...REACH, 'SNAPSHOT_NOT_FOUND', 'INVALID_PARAMETER', 'INVALID_STATE'],
  source: 'RDS API 2014-10-31: DeleteDBSnapshot, DeleteDBClusterSnapshot',
  example: { snapshot_id: 'before-upgrade' },
  plan: (context, { snapshot_id }) => planDelete(context, snapshot_id),
  steps: (_input, plan) => deleteSteps(plan),
  result: (results) => ({ snapshot_id: String(results['wait']?.['snapshot_id']), deleted: true as const }),
});

export const copySnapshot = defineAction({
  provider: awsRds,
  name: 'copy-snapshot',
  title: 'Copy an RDS snapshot',
  summary: 'Copies a snapshot: to keep an automated one, encrypt it, or have it in another region.',
  risk: 'create',
  input: z.object({
    snapshot_id: z.string(),
    target_snapshot_id: z.string(),
    target_region: z.string().optional(),
    kms_key_id: z.string().optional().describe('encrypts the copy'),
  }),
  output: RecoveryPoint,
  errors: [...MAKE, 'SNAPSHOT_NOT_FOUND'],
  source: 'RDS API 2014-10-31: CopyDBSnapshot, CopyDBClusterSnapshot',
  example: { snapshot_id: '$newest', target_snapshot_id: 'kept-copy' },
  steps: () => copySteps(),
  result: (results) => madePoint(results),
});

export const restore = defineAction({
  provider: awsRds,
  name: 'restore',
  title: 'Restore an RDS snapshot or moment into a new database',
  summary:
    'Restores a snapshot or moment (use_latest: the latest) into the new database target_id, with the settings of the source.',
  risk: 'create',
  input: z.object({
    target_id: z.string(),
    snapshot_id: z.string().optional(),
    restore_timestamp: InstantInput.optional(),
    use_latest: z.boolean().optional(),
    members: z.number().int().min(0).max(16).optional().describe('of a cluster'),
    instance_class: z.string().optional(),
    subnet_group: z.string().optional(),
    security_group_ids: z.array(z.string()).optional(),
    parameter_group: z.string().optional(),
    multi_az: z.boolean().optional(),
    publicly_accessible: z.boolean().optional(),
    deletion_protection: z.boolean().optional(),
  }),
  output: RestoreJob,
  errors: [...MAKE, 'SNAPSHOT_NOT_FOUND', 'BACKUP_NOT_FOUND'],
  source:
    'RDS API 2014-10-31: RestoreDBInstanceFromDBSnapshot, RestoreDBInstanceToPointInTime, RestoreDBClusterFromSnapshot, RestoreDBClusterToPointInTime, CreateDBInstance',
  example: { snapshot_id: '$newest', target_id: 'orders-check' },
  plan: (context, input) => planRestore(context, input),
  steps: (input, plan) => restoreSteps(input, plan),
  result: (results) => restoreResult(results),
});

export const getRestoreStatus = defineAction({
  provider: awsRds,
  name: 'get-restore-status',
  title: 'Show how a restored RDS database stands',
  summary: 'Shows whether a restored instance or cluster can be used, or is still loading.',
  risk: 'read',
  input: z.object({ instance_id: z.string() }),
  output: RestoreJob,
  errors: [...READ, 'INVALID_PARAMETER'],
  source: 'RDS API 2014-10-31: DescribeDBInstances, DescribeDBClusters, DescribeEvents',
  example: { instance_id: 'restored-db' },
  run: (context, { instance_id }) => restoreStatus(context, instance_id),
});
