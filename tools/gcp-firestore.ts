import { z } from 'zod';
import { defineAction } from '../src/core/action.ts';
import { HoldfastError } from '../src/core/errors.ts';
import type { JsonObject } from '../src/core/json.ts';
import { pageOf } from '../src/core/page.ts';
import {
  BackupInfo,
  InstantInput,
  ListInput,
  RecoveryPoint,
  RestoreJob,
  SnapshotList,
  Timestamp,
} from '../src/core/schemas.ts';
import {
  backupInfo,
  createScheduleSteps,
  deleteScheduleSteps,
  deleteSteps,
  keyOf,
  ownBackups,
  ownerOf,
  planCreateSchedule,
  planDelete,
  planDeleteSchedule,
} from '../src/providers/gcp-firestore/backups.ts';
import {
  importSteps,
  ownExportSteps,
  planExport,
  planImport,
  safetySteps,
  undoImport,
} from '../src/providers/gcp-firestore/documents.ts';
import { checkLocation, toPoint, toSchedule } from '../src/providers/gcp-firestore/map.ts';
import { gcpFirestore } from '../src/providers/gcp-firestore/provider.ts';
import { planRestore, restoreResult, restoreStatus, restoreSteps } from '../src/providers/gcp-firestore/restore.ts';

const READ_ERRORS = [
  'AUTHENTICATION_FAILED',
  'INSUFFICIENT_PERMISSIONS',
  'RESOURCE_NOT_FOUND',
  'RATE_LIMITED',
  'QUOTA_EXCEEDED',
  'NOT_SUPPORTED',
  'PROVIDER_UNAVAILABLE',
  'TIMEOUT',
] as const;

const CollectionIds = z.array(z.string()).optional().describe('all if left out');

const Schedule = z.object({
  schedule_name: z.string(),
  recurrence: z.string(),
  day: z.string().optional(),
  retention_seconds: z.number().optional(),
  created_at: Timestamp.optional(),
  updated_at: Timestamp.optional(),
});

const Moved = {
  operation_name: z.string(),
  snapshot_time: Timestamp.optional(),
  collection_ids: CollectionIds,
  documents: z.number().optional(),
  size_bytes: z.number().optional(),
  started_at: Timestamp.optional(),
  ended_at: Timestamp.optional(),
};
const Exported = z.object({ output_uri_prefix: z.string(), ...Moved });
const Imported = z.object({ input_uri_prefix: z.string(), target: z.string(), ...Moved });

export const getBackupInfo = defineAction({
  provider: gcpFirestore,
  name: 'get-backup-info',
  title: 'Show how a Firestore database is backed up',
  summary: 'Shows schedules, the recovery window, the newest backup and what is missing.',
  risk: 'read',
  input: z.object({}),
  output: BackupInfo,
  errors: READ_ERRORS,
  source: 'firestore v1 databases.get, backupSchedules.list, backups.list',
  example: {},
  run: (context) => backupInfo(context),
});

export const exportDocuments = defineAction({
  provider: gcpFirestore,
  name: 'export-documents',
  title: 'Export a Firestore database to Cloud Storage',
  summary: 'Exports a consistent copy of all or some collections to Cloud Storage and waits for it.',
  risk: 'create',
  upTo: 'weaken',
  input: z.object({
    output_uri_prefix: z.string().optional().describe('gs://; the configured place if left out'),
    collection_ids: CollectionIds,
    snapshot_time: InstantInput.optional(),
  }),
  output: Exported,
  errors: [...READ_ERRORS, 'INVALID_PARAMETER', 'INVALID_STATE', 'CANCELLED'],
  source: 'firestore v1 databases.exportDocuments',
  example: { collection_ids: ['carts', 'orders'] },
  plan: (context, input) => planExport(context, input),
  steps: () => ownExportSteps(),
  result: (results) => results['wait'] as unknown as z.input<typeof Exported>,
});

export const importDocuments = defineAction({
  provider: gcpFirestore,
  name: 'import-documents',
  title: 'Import an export into a Firestore database',
  summary: 'Writes an export into the live database: documents of the same name are overwritten, others stay.',
  risk: 'merge',
  input: z.object({
    input_uri_prefix: z.string().describe('output_uri_prefix of a finished export'),
    collection_ids: CollectionIds,
    safety_snapshot: z.boolean().optional(),
  }),
  output: Imported,
  errors: [...READ_ERRORS, 'INVALID_PARAMETER', 'INVALID_STATE', 'CANCELLED'],
  source: 'firestore v1 databases.importDocuments',
  example: { input_uri_prefix: 'gs://holdfast-sandbox-backups/firestore/nightly' },
  plan: (context, input) => planImport(context, input),
  steps: (_input, plan) => importSteps(plan),
  result: (results) => results['wait'] as unknown as z.input<typeof Imported>,
  safety: { steps: () => safetySteps(), undo: (results) => undoImport(results) },
});

export const listSnapshots = defineAction({
  provider: gcpFirestore,
  name: 'list-snapshots',
  aliases: ['list-backups'],
  title: 'List the backups of a Firestore database',
  summary: 'Lists scheduled backups of this database, newest first.',
  risk: 'read',
  input: z.object({ ...ListInput, location: z.string().optional() }),
  output: SnapshotList,
  errors: [...READ_ERRORS, 'INVALID_PARAMETER'],
  source: 'firestore v1 locations.backups.list',
  example: { limit: 10 },
  async run(context, { limit, cursor, location = '-' }) {
    const { client, signal } = context;
    checkLocation(location);
    const existence = await client.lookUp(client.database, signal);
    const { points, notes } = await ownBackups(context, existence, location);
    const { items, next_cursor } = pageOf(points, limit, cursor, keyOf);
    return {
      snapshots: items,
      ...(next_cursor === undefined ? {} : { next_cursor }),
      ...(notes.length === 0 ? {} : { notes }),
    };
  },
});

export const describeSnapshot = defineAction({
  provider: gcpFirestore,
  name: 'describe-snapshot',
  aliases: ['describe-backup'],
  title: 'Describe one Firestore backup',
  summary: 'Shows one backup.',
  risk: 'read',
  input: z.object({ backup_name: z.string() }),
  output: RecoveryPoint,
  errors: [...READ_ERRORS, 'BACKUP_NOT_FOUND', 'INVALID_PARAMETER'],
  source: 'firestore v1 locations.backups.get',
  example: { backup_name: '$newest' },
  async run({ client, runtime, signal }, { backup_name }) {
    const point = toPoint(await client.getBackup(backup_name, signal), runtime.now());
    if (point.provider?.['database'] === client.database) return point;
    // Renamed or made again: the uid decides. Another database's backups are shown by its own entity.
    if (ownerOf(point, client, await client.lookUp(client.database, signal)) !== 'other') return point;
    throw new HoldfastError('INVALID_PARAMETER', 'this backup belongs to another database', {
      hint: 'Call describe-snapshot on the entity that the backup belongs to.',
    });
  },
});

export const deleteSnapshot = defineAction({
  provider: gcpFirestore,
  name: 'delete-snapshot',
  aliases: ['delete-backup'],
  title: 'Delete a Firestore backup',
  summary: 'Deletes one backup for good.',
  risk: 'delete',
  input: z.object({ backup_name: z.string(), allow_last: z.boolean().optional() }),
  output: z.object({ backup_name: z.string(), deleted: z.literal(true) }),
  errors: [...READ_ERRORS, 'BACKUP_NOT_FOUND', 'INVALID_PARAMETER', 'INVALID_STATE'],
  source: 'firestore v1 locations.backups.delete',
  example: { backup_name: '$newest' },
  plan: (context, { backup_name }) => planDelete(context, backup_name),
  steps: (_input, plan) => deleteSteps(plan),
  result: (results) => ({ backup_name: String(results['delete']?.['backup_name']), deleted: true as const }),
});

export const restore = defineAction({
  provider: gcpFirestore,
  name: 'restore',
  title: 'Restore a Firestore backup or moment into a new database',
  summary: 'Makes a new database from a backup, or from a whole minute within the recovery window.',
  risk: 'create',
  input: z.object({
    backup_name: z.string().optional(),
    restore_timestamp: InstantInput.optional(),
    target_database: z.string().describe('an id not in use'),
  }),
  output: RestoreJob,
  errors: [...READ_ERRORS, 'BACKUP_NOT_FOUND', 'RESOURCE_EXISTS', 'INVALID_PARAMETER', 'INVALID_STATE', 'CANCELLED'],
  source: 'firestore v1 databases.restore, databases.clone',
  example: { backup_name: '$newest', target_database: 'restored-database' },
  plan: (context, input) => planRestore(context, input),
  steps: (_input, plan) => restoreSteps(plan),
  result: (results) => restoreResult(results),
});

export const listBackupSchedules = defineAction({
  provider: gcpFirestore,
  name: 'list-backup-schedules',
  title: 'List the backup schedules of a Firestore database',
  summary: 'Lists when backups are taken and how long they are kept.',
  risk: 'read',
  input: z.object({}),
  output: z.object({ schedules: z.array(Schedule) }),
  errors: READ_ERRORS,
  source: 'firestore v1 backupSchedules.list',
  example: {},
  run: async ({ client, signal }) => ({ schedules: (await client.listSchedules(signal)).map(toSchedule) }),
});

export const createBackupSchedule = defineAction({
  provider: gcpFirestore,
  name: 'create-backup-schedule',
  title: 'Create a backup schedule of a Firestore database',
  summary: 'Has backups taken daily or weekly from now on; at most one schedule of each.',
  risk: 'create',
  input: z.object({
    frequency: z.enum(['daily', 'weekly']),
    day: z
      .enum(['MONDAY', 'TUESDAY', 'WEDNESDAY', 'THURSDAY', 'FRIDAY', 'SATURDAY', 'SUNDAY'])
      .optional()
      .describe('of a weekly one'),
    retention_days: z.number().int().min(1).max(98),
  }),
  output: Schedule,
  errors: [...READ_ERRORS, 'RESOURCE_EXISTS', 'INVALID_PARAMETER', 'INVALID_STATE'],
  source: 'firestore v1 backupSchedules.create',
  example: { frequency: 'weekly', day: 'SUNDAY', retention_days: 56 },
  plan: (context, input) => planCreateSchedule(context, input),
  steps: () => createScheduleSteps(),
  result: (results) => results['create']?.['schedule'] as JsonObject as z.input<typeof Schedule>,
});

export const deleteBackupSchedule = defineAction({
  provider: gcpFirestore,
  name: 'delete-backup-schedule',
  title: 'Delete a backup schedule of a Firestore database',
  summary: 'Stops a schedule; its backups stay until they expire.',
  risk: 'weaken',
  input: z.object({ schedule_name: z.string() }),
  output: z.object({ schedule_name: z.string(), deleted: z.literal(true) }),
  errors: [...READ_ERRORS, 'INVALID_PARAMETER', 'INVALID_STATE'],
  source: 'firestore v1 backupSchedules.delete',
  example: { schedule_name: '7c0de4a1-9a0a-4b52-8d5c-0f1f3a64d001' },
  plan: (context, { schedule_name }) => planDeleteSchedule(context, schedule_name),
  steps: (_input, plan) => deleteScheduleSteps(plan),
  result: (results) => ({ schedule_name: String(results['delete']?.['schedule_name']), deleted: true as const }),
});

export const getRestoreStatus = defineAction({
  provider: gcpFirestore,
  name: 'get-restore-status',
  title: 'Show how a Firestore restore stands',
  summary: 'Shows a restore, clone, export or import operation.',
  risk: 'read',
  input: z.object({ operation_name: z.string() }),
  output: RestoreJob,
  errors: [...READ_ERRORS, 'INVALID_PARAMETER'],
  source: 'firestore v1 operations.get, databases.get',
  example: { operation_name: 'projects/holdfast-sandbox/databases/shop-carts-copy/operations/AVnCqLxzSkQwMDAyYQ' },
  run: (context, { operation_name }) => restoreStatus(context, operation_name),
});
