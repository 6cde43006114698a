import { z } from 'zod';
import { defineAction } from '../src/core/action.ts';
import type { JsonObject } from '../src/core/json.ts';
import type { Step } from '../src/core/operation.ts';
import type { Plan } from '../src/core/plan.ts';
import {
  BackupInfo,
  InstantInput,
  ListInput,
  RecoveryPoint,
  RestoreJob,
  SnapshotList,
  Timestamp,
} from '../src/core/schemas.ts';
import type { PostgresClient } from '../src/providers/postgresql/client.ts';
import { BACKUP_TYPES, type PostgresEntity } from '../src/providers/postgresql/entity.ts';
import { postgresql } from '../src/providers/postgresql/provider.ts';

type OwnStep<Input> = Step<PostgresClient, PostgresEntity, Input>;

const SnapshotId = z.string().min(1).max(60);
const CONNECTING = [
  'PROVIDER_UNAVAILABLE',
  'AUTHENTICATION_FAILED',
  'INSUFFICIENT_PERMISSIONS',
  'CONFIG_INVALID',
] as const;

export const getBackupInfo = defineAction({
  provider: postgresql,
  name: 'get-backup-info',
  title: 'Show how a PostgreSQL database is backed up',
  summary: 'Shows the newest backup, storage, encryption, leftovers and what would stop a backup. Start here.',
  risk: 'read',
  input: z.object({}),
  output: BackupInfo,
  errors: ['INSUFFICIENT_PERMISSIONS', 'CONFIG_INVALID'],
  source: 'the manifests in the storage; PostgreSQL catalogues',
  example: {},
  run: ({ client, signal }) => client.info(signal),
});

export const createSnapshot = defineAction({
  provider: postgresql,
  name: 'create-snapshot',
  aliases: ['create-backup'],
  title: 'Back up a PostgreSQL database',
  summary: 'Dumps the database (logical) or copies the whole server (full; incr, diff: changes only), encrypted.',
  risk: 'create',
  input: z.object({
    type: z.enum(BACKUP_TYPES).optional().describe('logical when left out'),
    label: z.string().max(100).optional(),
    description: z.string().max(500).optional(),
  }),
  output: RecoveryPoint,
  errors: [
    ...CONNECTING,
    'INVALID_STATE',
    'NOT_SUPPORTED',
    'QUOTA_EXCEEDED',
    'CANCELLED',
    'RESOURCE_NOT_FOUND',
    'INTEGRITY_FAILED',
  ],
  source: 'pg_dump -Fc -Z0 --snapshot; pg_basebackup -Ft -X fetch',
  example: { label: 'before-migration' },
  plan: (context, { type }) => context.client.planBackup(context, type),
  steps: (input) => [
    {
      name: 'snapshot',
      title: 'Reading, sealing and storing the data',
      kind: 'mutate',
      run: (step) =>
        step.client.takeBackup(step, {
          trigger: step.scheduled === true ? 'schedule' : 'manual',
          type: input.type,
          label: input.label,
          description: input.description,
        }),
      recover: (step) => step.client.recoverBackup(step),
    },
  ],
  result: (results) => results['snapshot'] as z.input<typeof RecoveryPoint>,
});

export const listSnapshots = defineAction({
  provider: postgresql,
  name: 'list-snapshots',
  aliases: ['list-backups'],
  title: 'List the backups of a PostgreSQL database',
  summary: 'Lists what is in the storage, newest first; works while the server is down.',
  risk: 'read',
  input: z.object(ListInput),
  output: SnapshotList,
  errors: ['INVALID_PARAMETER', 'INSUFFICIENT_PERMISSIONS', 'CONFIG_INVALID'],
  source: 'the manifests in the storage',
  example: { limit: 10 },
  run: ({ client }, { limit = 50, cursor }) => client.list(limit, cursor),
});

export const describeSnapshot = defineAction({
  provider: postgresql,
  name: 'describe-snapshot',
  aliases: ['describe-backup'],
  title: 'Describe one PostgreSQL backup',
  summary: 'Shows what a backup holds, its verifications, and how to restore it without Holdfast.',
  risk: 'read',
  input: z.object({ snapshot_id: SnapshotId }),
  output: RecoveryPoint,
  errors: ['BACKUP_NOT_FOUND', 'INTEGRITY_FAILED', 'INSUFFICIENT_PERMISSIONS'],
  source: 'the manifest in the storage',
  example: { snapshot_id: '$newest' },
  run: ({ client }, { snapshot_id }) => client.describe(snapshot_id),
});

const Deleted = z.object({ snapshot_id: z.string(), deleted: z.literal(true) });

export const deleteSnapshot = defineAction({
  provider: postgresql,
  name: 'delete-snapshot',
  aliases: ['delete-backup'],
  title: 'Delete a PostgreSQL backup',
  summary: 'Removes a backup from the storage for good.',
  risk: 'delete',
  input: z.object({ snapshot_id: SnapshotId, allow_last: z.boolean().optional() }),
  output: Deleted,
  errors: ['BACKUP_NOT_FOUND', 'INVALID_STATE', 'INSUFFICIENT_PERMISSIONS'],
  source: 'the manifest first, then its files',
  example: { snapshot_id: '$newest', allow_last: true },
  plan: (context, { snapshot_id }) => context.client.planDelete(context, snapshot_id),
  async run({ client }, { snapshot_id }) {
    await client.remove(snapshot_id);
    return { snapshot_id, deleted: true as const };
  },
});

const Verified = z.object({
  snapshot_id: z.string(),
  level: z.string(),
  passed: z.boolean(),
  finished_at: Timestamp,
  duration_seconds: z.number(),
  numbers: z.record(z.string(), z.number()),
  tools: z.record(z.string(), z.string()),
});

export const verifySnapshot = defineAction({
  provider: postgresql,
  name: 'verify-snapshot',
  title: 'Verify a PostgreSQL backup',
  summary:
    'Checks hashes (stored), decrypts and reads everything (readable), or restores to scratch and compares (restored).',
  risk: 'create',
  input: z.object({ snapshot_id: SnapshotId, level: z.enum(['stored', 'readable', 'restored']).optional() }),
  output: Verified,
  errors: [
    ...CONNECTING,
    'BACKUP_NOT_FOUND',
    'INTEGRITY_FAILED',
    'NOT_SUPPORTED',
    'INVALID_STATE',
    'QUOTA_EXCEEDED',
    'CANCELLED',
  ],
  source: 'SHA-256; age and zstd; pg_restore; row fingerprints',
  example: { snapshot_id: '$newest' },
  plan: (context, { snapshot_id, level = 'readable' }) => context.client.planVerify(context, snapshot_id, level),
  steps: ({ snapshot_id, level = 'readable' }) => [
    {
      name: 'verify',
      title: 'Verifying the backup',
      kind: 'mutate',
      run: (step) => step.client.verify(step, snapshot_id, level),
      recover: (step) => step.client.recoverVerify(step),
    },
  ],
  result: (results) => results['verify'] as z.input<typeof Verified>,
});

const RestoreInput = z.object({
  snapshot_id: SnapshotId.optional(),
  target_database: z.string().min(1).max(63).optional().describe('A new name; left out or existing: replaced, guarded'),
  no_owner: z.boolean().optional().describe('Leave out owners and grants'),
  tables: z
    .array(z.string().min(3).max(300))
    .min(1)
    .max(200)
    .optional()
    .describe('schema.table: only these, to a new database'),
  from_source: z.string().max(80).optional().describe('source_id of another, as restore_from allows'),
  safety_snapshot: z.boolean().optional(),
  target_directory: z.string().max(1000).optional().describe('New data directory, absolute: recovers the whole server'),
  restore_timestamp: InstantInput.optional(),
  lsn: z.string().max(20).optional(),
  restore_point: z.string().max(63).optional().describe('of pg_create_restore_point'),
  use_latest: z.boolean().optional(),
  timeline: z.number().int().min(1).optional().describe('the newest when left out'),
  tablespace_map: z.record(z.string(), z.string().max(1000)).optional().describe('oid: new directory'),
  keep_failed: z.boolean().optional().describe('Keeps a directory that failed'),
});
type RestoreInput = z.output<typeof RestoreInput>;

const Restored = z.object({
  job_id: z.string(),
  snapshot_id: z.string(),
  database: z.string().optional(),
  tables: z.number().optional(),
  rows: z.number().optional(),
  /** What a restore of single tables did not bring. */
  left_out: z.array(z.string()).optional(),
  /** Where the data from before the restore are kept. */
  kept_as: z.string().optional(),
  drop_kept_with: z.string().optional(),
  safety_snapshot_id: z.string().optional(),
  directory: z.string().optional(),
  /** What the recovery came to: a timeline of its own, the last record and the last transaction that it replayed. */
  reached: z
    .object({ timeline: z.number(), lsn: z.string().optional(), last_transaction_at: Timestamp.optional() })
    .optional(),
  databases: z.array(z.object({ name: z.string(), size_bytes: z.number() })).optional(),
  /** Seconds of each phase. */
  phases: z.record(z.string(), z.number()).optional(),
  /** How a person puts the directory in the place of the live one. */
  steps: z.array(z.string()).optional(),
});

/** The steps of a restore into a data directory. */
function directorySteps(plan: Plan): OwnStep<RestoreInput>[] {
  return [
    {
      name: 'unpack',
      title: 'Unpacking and verifying the base backup',
      kind: 'mutate',
      run: (step) => step.client.directories.unpack(step, plan),
      recover: (step) => step.client.directories.recoverUnpack(step, plan),
      abandon: (step) => step.client.directories.abandon(step, plan),
    },
    {
      name: 'recover',
      title: 'Replaying the write-ahead log',
      kind: 'mutate',
      run: (step) => step.client.directories.recover(step, plan),
      recover: (step) => step.client.directories.recoverStep(step, plan),
    },
    {
      name: 'check',
      title: 'Starting the recovered directory and looking at it',
      kind: 'mutate',
      run: (step) => step.client.directories.check(step, plan),
      recover: (step) => step.client.directories.recoverStep(step, plan),
    },
  ];
}

export const restore = defineAction({
  provider: postgresql,
  name: 'restore',
  title: 'Restore a PostgreSQL backup',
  summary:
    'Restores into a new database, compared; without a name replaces the database, keeping the old. target_directory: the server, to a moment or use_latest.',
  risk: 'create',
  upTo: 'overwrite',
  input: RestoreInput,
  output: Restored,
  errors: [
    ...CONNECTING,
    'BACKUP_NOT_FOUND',
    'INTEGRITY_FAILED',
    'INVALID_PARAMETER',
    'INVALID_STATE',
    'NOT_SUPPORTED',
    'QUOTA_EXCEEDED',
    'RESOURCE_EXISTS',
    'CANCELLED',
  ],
  source: 'pg_restore into a new database; ALTER DATABASE RENAME in one transaction; recovery_target_*',
  example: { snapshot_id: '$newest', target_database: 'restored' },
  plan: (context, input) =>
    context.client.directories.wants(input)
      ? context.client.directories.plan(context, input)
      : context.client.restorer.plan(context, input),
  steps: (_input, plan): OwnStep<RestoreInput>[] => {
    if (plan.facts.target['directory'] !== undefined) return directorySteps(plan);
    return [
      {
        name: 'restore',
        title: 'Restoring into a temporary database',
        kind: 'mutate',
        run: (step) => step.client.restorer.restore(step, plan),
        recover: (step) => step.client.restorer.recoverRestore(step),
        abandon: (step) => step.client.restorer.abandon(step, plan),
      },
      {
        name: 'compare',
        title: 'Comparing it with the inventory of the backup',
        kind: 'mutate',
        run: (step) => step.client.restorer.compare(step, plan),
        recover: (step) => step.client.restorer.recoverCompare(),
      },
      {
        name: 'swap',
        title: 'Giving it its name',
        kind: 'mutate',
        run: (step) => step.client.restorer.swap(step, plan),
        recover: (step) => step.client.restorer.recoverSwap(step, plan),
      },
    ];
  },
  safety: {
    steps: (): OwnStep<RestoreInput>[] => [
      {
        name: 'safety-snapshot',
        title: 'Backing up the database that will be replaced',
        kind: 'mutate',
        run: (step) =>
          step.client.takeSafetyBackup(step, { ...step.input, snapshot_id: String(step.input.snapshot_id) }),
        recover: (step) => step.client.recoverBackup(step),
      },
      {
        name: 'safety-verify',
        title: 'Reading the safety backup back',
        kind: 'mutate',
        run: (step) => step.client.verifySafetyBackup(step),
        recover: async () => ({ state: 'not_begun' }),
      },
    ],
    undo(results) {
      const id = String(results['safety-snapshot']?.['id']);
      const database = (results['safety-snapshot']?.['provider'] as JsonObject | undefined)?.['database'];
      return { action: 'restore', input: { snapshot_id: id, target_database: database } };
    },
  },
  result(results) {
    if (results['check'] !== undefined) return results['check'] as z.input<typeof Restored>;
    const { tables, rows, left_out } = results['compare'] ?? {};
    return {
      ...results['swap'],
      snapshot_id: results['restore']?.['snapshot_id'],
      tables,
      rows,
      ...(left_out === undefined ? {} : { left_out }),
      ...(results['safety-snapshot'] === undefined ? {} : { safety_snapshot_id: results['safety-snapshot']['id'] }),
    } as z.input<typeof Restored>;
  },
});

export const getRestoreStatus = defineAction({
  provider: postgresql,
  name: 'get-restore-status',
  title: 'Show how a PostgreSQL restore stands',
  summary: 'The newest restore or the one of job_id: running, done, failed or interrupted.',
  risk: 'read',
  input: z.object({ job_id: z.string().max(20).optional() }),
  output: RestoreJob,
  errors: ['RESOURCE_NOT_FOUND', 'CONFIG_INVALID'],
  source: 'notes of Holdfast; pg_database and pg_locks',
  example: {},
  run: ({ client, signal }, { job_id }) => client.restorer.status(signal, job_id),
});
