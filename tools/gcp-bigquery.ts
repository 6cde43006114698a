import { z } from 'zod';
import { defineAction } from '../src/core/action.ts';
import {
  BackupInfo,
  InstantInput,
  ListInput,
  ProviderFacts,
  RecoveryPoint,
  RestoreJob,
  SnapshotList,
  Timestamp,
} from '../src/core/schemas.ts';
import { backupInfo } from '../src/providers/gcp-bigquery/backups.ts';
import { gcpBigQuery } from '../src/providers/gcp-bigquery/provider.ts';
import { planRestore, restoreResult, restoreStatus, restoreSteps } from '../src/providers/gcp-bigquery/restore.ts';
import {
  deleteResult,
  deleteSteps,
  planDelete,
  planSnapshot,
  safetySteps,
  snapshotResult,
  snapshotSteps,
  undoCall,
} from '../src/providers/gcp-bigquery/snapshot.ts';
import { describeTable, listSnapshots as list } from '../src/providers/gcp-bigquery/tables.ts';

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
  provider: gcpBigQuery,
  name: 'get-backup-info',
  title: 'Show how a BigQuery dataset is backed up',
  summary: 'Shows the time travel window, the newest snapshot and what is missing.',
  risk: 'read',
  input: z.object({}),
  output: BackupInfo,
  errors: READ_ERRORS,
  source: 'bigquery v2 datasets.get, tables.list, tables.get',
  example: {},
  run: (context) => backupInfo(context),
});

export const createSnapshot = defineAction({
  provider: gcpBigQuery,
  name: 'create-snapshot',
  aliases: ['create-backup'],
  title: 'Take a snapshot of a BigQuery table',
  summary: 'Takes a snapshot of one table, as it is or as of snapshot_time.',
  risk: 'create',
  input: z.object({
    source_table: z.string(),
    snapshot_table: z.string().optional().describe('its name'),
    snapshot_time: InstantInput.optional(),
    expires_at: InstantInput.optional(),
  }),
  output: RecoveryPoint,
  errors: [...READ_ERRORS, 'RESOURCE_EXISTS', 'INVALID_PARAMETER', 'INVALID_STATE', 'NOT_SUPPORTED'],
  source: 'bigquery v2 jobs.insert (copy, SNAPSHOT), jobs.get',
  example: { source_table: 'orders' },
  plan: (context, input) => planSnapshot(context, input),
  steps: (_input, plan) => snapshotSteps(plan),
  result: (results) => snapshotResult(results),
});

export const listSnapshots = defineAction({
  provider: gcpBigQuery,
  name: 'list-snapshots',
  aliases: ['list-backups'],
  title: 'List the table snapshots of a BigQuery dataset',
  summary: 'Lists table snapshots, newest first.',
  risk: 'read',
  input: z.object({
    ...ListInput,
    dataset: z.string().optional(),
    details: z.boolean().optional().describe('base tables, moments, sizes; 50 a page'),
  }),
  output: SnapshotList,
  errors: [...READ_ERRORS, 'INVALID_PARAMETER'],
  source: 'bigquery v2 tables.list, tables.get',
  example: { limit: 10 },
  run: (context, input) => list(context, input),
});

export const describeSnapshot = defineAction({
  provider: gcpBigQuery,
  name: 'describe-snapshot',
  aliases: ['describe-backup'],
  title: 'Describe one BigQuery snapshot',
  summary: 'Shows one snapshot or table.',
  risk: 'read',
  input: z.object({ table_name: z.string() }),
  output: RecoveryPoint,
  errors: [...READ_ERRORS, 'SNAPSHOT_NOT_FOUND', 'INVALID_PARAMETER'],
  source: 'bigquery v2 tables.get',
  example: { table_name: '$newest' },
  run: (context, { table_name }) => describeTable(context, table_name),
});

export const deleteSnapshot = defineAction({
  provider: gcpBigQuery,
  name: 'delete-snapshot',
  aliases: ['delete-backup'],
  title: 'Delete a BigQuery snapshot',
  summary: 'Deletes one snapshot, never a table.',
  risk: 'delete',
  input: z.object({ table_name: z.string(), allow_last: z.boolean().optional() }),
  output: z.object({
    table_name: z.string(),
    deleted: z.literal(true),
    recoverable_until: Timestamp,
    recover_with: ProviderFacts,
  }),
  errors: [...READ_ERRORS, 'SNAPSHOT_NOT_FOUND', 'INVALID_PARAMETER', 'INVALID_STATE'],
  source: 'bigquery v2 tables.get, tables.delete',
  example: { table_name: '$newest' },
  plan: (context, { table_name }) => planDelete(context, table_name),
  steps: (_input, plan) => deleteSteps(plan),
  result: (results) => deleteResult(results),
});

export const restore = defineAction({
  provider: gcpBigQuery,
  name: 'restore',
  title: 'Restore a BigQuery snapshot or a table as of a moment',
  summary:
    'Restores snapshot_table, or source_table as of restore_timestamp, to target_table: a new table, or an existing one that is replaced.',
  risk: 'create',
  upTo: 'overwrite',
  input: z.object({
    snapshot_table: z.string().optional(),
    source_table: z.string().optional(),
    restore_timestamp: InstantInput.optional(),
    target_table: z.string(),
    safety_snapshot: z.boolean().optional(),
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
  source: 'bigquery v2 jobs.insert (copy, RESTORE or COPY), jobs.get',
  example: { snapshot_table: '$newest', target_table: 'orders_restored' },
  plan: (context, input) => planRestore(context, input),
  steps: (_input, plan) => restoreSteps(plan),
  result: (results) => restoreResult(results),
  safety: {
    steps: (_input, plan) => safetySteps(plan),
    undo: (results) => undoCall(results),
  },
});

export const getRestoreStatus = defineAction({
  provider: gcpBigQuery,
  name: 'get-restore-status',
  title: 'Show how a BigQuery restore stands',
  summary: 'Shows a restore or snapshot job and whether its table is there.',
  risk: 'read',
  input: z.object({ job_id: z.string(), location: z.string().optional() }),
  output: RestoreJob,
  errors: [...READ_ERRORS, 'INVALID_PARAMETER'],
  source: 'bigquery v2 jobs.get, tables.get',
  example: { job_id: 'holdfast_restore_6f2b1c7e-9a40-4d5e-8b13-00000032002a' },
  run: (context, input) => restoreStatus(context, input),
});
