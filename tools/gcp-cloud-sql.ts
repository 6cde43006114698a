import { z } from 'zod';
import { defineAction } from '../src/core/action.ts';
import { BackupInfo, InstantInput, ListInput, RecoveryPoint, RestoreJob, SnapshotList } from '../src/core/schemas.ts';
import {
  backupInfo,
  deleteSteps,
  planDelete,
  readPoint,
  snapshotSteps,
  undoCall,
} from '../src/providers/gcp-cloud-sql/backups.ts';
import { isDeleted, namedToPoint, parseBackupId, runToPoint } from '../src/providers/gcp-cloud-sql/map.ts';
import { planUpdate, updateSteps } from '../src/providers/gcp-cloud-sql/named.ts';
import { gcpCloudSql } from '../src/providers/gcp-cloud-sql/provider.ts';
import { planRestore, restoreResult, restoreStatus, restoreSteps } from '../src/providers/gcp-cloud-sql/restore.ts';

const READ_ERRORS = [
  'AUTHENTICATION_FAILED',
  'INSUFFICIENT_PERMISSIONS',
  'RESOURCE_NOT_FOUND',
  'RATE_LIMITED',
  'QUOTA_EXCEEDED',
  'PROVIDER_UNAVAILABLE',
  'TIMEOUT',
] as const;

export const getBackupInfo = defineAction({
  provider: gcpCloudSql,
  name: 'get-backup-info',
  title: 'Show how a Cloud SQL instance is backed up',
  summary: 'Shows backup settings, the point-in-time window, the newest backup and what is missing.',
  risk: 'read',
  input: z.object({}),
  output: BackupInfo,
  errors: READ_ERRORS,
  source: 'sqladmin v1 instances.get, getLatestRecoveryTime, backupRuns.list',
  example: {},
  run: (context) => backupInfo(context),
});

export const createSnapshot = defineAction({
  provider: gcpCloudSql,
  name: 'create-snapshot',
  aliases: ['create-backup'],
  title: 'Take an on-demand backup of a Cloud SQL instance',
  summary: 'Takes an on-demand backup and waits until it can be restored.',
  risk: 'create',
  input: z.object({
    description: z.string().max(400).optional(),
    retention_days: z.number().int().min(1).max(365).optional().describe('then it is deleted'),
  }),
  output: RecoveryPoint,
  errors: [...READ_ERRORS, 'INVALID_STATE', 'INVALID_PARAMETER'],
  source: 'sqladmin v1 backupRuns.insert, Backups.CreateBackup',
  example: { description: 'Pre-upgrade backup' },
  steps: ({ description, retention_days }) =>
    snapshotSteps({ prefix: '', instance: ({ client }) => client.instance, description, keepDays: retention_days }),
  result: (results) => results['wait']?.['point'] as unknown as RecoveryPoint,
});

export const listSnapshots = defineAction({
  provider: gcpCloudSql,
  name: 'list-snapshots',
  aliases: ['list-backups'],
  title: 'List the backups of a Cloud SQL instance',
  summary: 'Lists backups, newest first.',
  risk: 'read',
  input: z.object({
    ...ListInput,
    named: z.boolean().optional().describe('full names, final and retained backups too'),
  }),
  output: SnapshotList,
  errors: [...READ_ERRORS, 'INVALID_PARAMETER'],
  source: 'sqladmin v1 backupRuns.list, Backups.ListBackups',
  example: { limit: 10 },
  async run({ client, signal }, { limit = 50, cursor, named }) {
    const page = { limit, token: cursor };
    if (named === true) {
      const { items, next } = await client.listNamed(client.instance, page, signal);
      return { snapshots: items.map(namedToPoint), ...(next === undefined ? {} : { next_cursor: next }) };
    }
    const { items, next } = await client.listRuns(client.instance, page, signal);
    return {
      snapshots: items.filter((run) => !isDeleted(run)).map(runToPoint),
      ...(next === undefined ? {} : { next_cursor: next }),
    };
  },
});

export const describeSnapshot = defineAction({
  provider: gcpCloudSql,
  name: 'describe-snapshot',
  aliases: ['describe-backup'],
  title: 'Describe one Cloud SQL backup',
  summary: 'Shows one backup.',
  risk: 'read',
  input: z.object({ backup_id: z.string() }),
  output: RecoveryPoint,
  errors: [...READ_ERRORS, 'BACKUP_NOT_FOUND', 'INVALID_PARAMETER', 'NOT_SUPPORTED'],
  source: 'sqladmin v1 backupRuns.get, Backups.GetBackup',
  example: { backup_id: '$newest' },
  run: ({ client, signal }, { backup_id }) => readPoint(client, parseBackupId(backup_id), client.instance, signal),
});

export const updateSnapshot = defineAction({
  provider: gcpCloudSql,
  name: 'update-snapshot',
  aliases: ['update-backup'],
  title: 'Change the end or description of a final Cloud SQL backup',
  summary: 'Changes the end or description of a final backup; an earlier end waits for a person.',
  risk: 'change',
  upTo: 'weaken',
  input: z.object({
    backup_id: z.string(),
    description: z.string().max(400).optional(),
    expires_at: InstantInput.optional(),
  }),
  output: RecoveryPoint,
  errors: [...READ_ERRORS, 'BACKUP_NOT_FOUND', 'INVALID_PARAMETER', 'INVALID_STATE', 'NOT_SUPPORTED'],
  source: 'sqladmin v1 Backups.UpdateBackup',
  example: {
    backup_id: 'projects/holdfast-sandbox/backups/5d1f3c52-07a4-4f0e-9a55-8f3d2b7c9e10',
    description: 'kept for the auditors',
  },
  plan: (context, input) => planUpdate(context, input),
  steps: (_input, plan) => updateSteps(plan),
  result: (results) => results['wait']?.['point'] as unknown as RecoveryPoint,
});

export const deleteSnapshot = defineAction({
  provider: gcpCloudSql,
  name: 'delete-snapshot',
  aliases: ['delete-backup'],
  title: 'Delete a Cloud SQL backup',
  summary: 'Deletes one backup for good.',
  risk: 'delete',
  input: z.object({ backup_id: z.string(), allow_last: z.boolean().optional() }),
  output: z.object({ backup_id: z.string(), deleted: z.literal(true) }),
  errors: [...READ_ERRORS, 'BACKUP_NOT_FOUND', 'INVALID_PARAMETER', 'INVALID_STATE', 'NOT_SUPPORTED'],
  source: 'sqladmin v1 backupRuns.delete, Backups.DeleteBackup',
  example: { backup_id: '$newest' },
  plan: (context, { backup_id }) => planDelete(context, backup_id),
  steps: ({ backup_id }, plan) => deleteSteps(backup_id, plan),
  result: (results) => ({ backup_id: String(results['wait']?.['backup_id']), deleted: true as const }),
});

export const restore = defineAction({
  provider: gcpCloudSql,
  name: 'restore',
  title: 'Restore a Cloud SQL backup or moment',
  summary:
    'Restores a backup or moment. A target_instance not in use is created; an existing one, or without it the instance itself, is overwritten.',
  risk: 'create',
  upTo: 'overwrite',
  input: z.object({
    backup_id: z.string().optional(),
    restore_timestamp: InstantInput.optional(),
    target_instance: z.string().optional(),
    source_instance: z.string().optional().describe("a numeric backup_id's instance"),
    safety_snapshot: z.boolean().optional(),
  }),
  output: RestoreJob,
  errors: [
    ...READ_ERRORS,
    'BACKUP_NOT_FOUND',
    'RESOURCE_EXISTS',
    'INVALID_PARAMETER',
    'INVALID_STATE',
    'NOT_SUPPORTED',
  ],
  source: 'sqladmin v1 instances.restoreBackup, instances.clone',
  example: { backup_id: '$newest' },
  plan: (context, input) => planRestore(context, input),
  steps: (_input, plan) => restoreSteps(plan),
  result: (results) => restoreResult(results),
  safety: {
    steps: (_input, plan) =>
      snapshotSteps({
        prefix: 'safety-',
        instance: () => String(plan.facts.target['instance']),
        description: 'before a restore',
      }),
    undo: (results) => undoCall(results),
  },
});

export const getRestoreStatus = defineAction({
  provider: gcpCloudSql,
  name: 'get-restore-status',
  title: 'Show how a Cloud SQL restore stands',
  summary: 'Shows a restore operation and whether its target can be used.',
  risk: 'read',
  input: z.object({ operation_name: z.string() }),
  output: RestoreJob,
  errors: [...READ_ERRORS, 'INVALID_PARAMETER'],
  source: 'sqladmin v1 operations.get, instances.get',
  example: { operation_name: 'operations/6f2b1c7e-9a40-4d5e-8b13-00000032002a' },
  run: (context, { operation_name }) => restoreStatus(context, operation_name),
});
