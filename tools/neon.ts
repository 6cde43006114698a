import { z } from 'zod';
import { defineAction } from '../src/core/action.ts';
import { pageOf } from '../src/core/page.ts';
import { BackupInfo, InstantInput, ListInput, RecoveryPoint, RestoreJob, SnapshotList } from '../src/core/schemas.ts';
import { branchDeletionSteps, planBranchDeletion } from '../src/providers/neon/branch.ts';
import { backupInfo } from '../src/providers/neon/info.ts';
import { toPoint } from '../src/providers/neon/map.ts';
import { neon } from '../src/providers/neon/provider.ts';
import { planRestore, restoreStatus, restoreSteps } from '../src/providers/neon/restore.ts';
import {
  deletionSteps,
  describeSnapshot as describe,
  planDeletion,
  planSnapshot,
  snapshotSteps,
} from '../src/providers/neon/snapshot.ts';

const REACH = [
  'AUTHENTICATION_FAILED',
  'INSUFFICIENT_PERMISSIONS',
  'RESOURCE_NOT_FOUND',
  'RATE_LIMITED',
  'PROVIDER_UNAVAILABLE',
] as const;
const CHANGE = [...REACH, 'INVALID_PARAMETER', 'INVALID_STATE', 'TIMEOUT', 'CANCELLED'] as const;

export const getBackupInfo = defineAction({
  provider: neon,
  name: 'get-backup-info',
  title: 'Get the backup settings of a Neon project',
  summary: 'Shows history window, snapshot schedule, newest snapshot and branches.',
  risk: 'read',
  input: z.object({}),
  output: BackupInfo,
  errors: [...REACH],
  source: 'Neon API v2: getProject, listProjectBranches, getSnapshotSchedule, listSnapshots, listProjectOperations',
  example: {},
  run: (context) => backupInfo(context),
});

export const createSnapshot = defineAction({
  provider: neon,
  name: 'create-snapshot',
  aliases: ['create-backup'],
  title: 'Take a snapshot of a Neon branch',
  summary: 'Takes a snapshot of a root branch, now or at a moment of its history; it outlives the history window.',
  risk: 'create',
  input: z.object({
    name: z.string().min(1).max(200).optional(),
    timestamp: InstantInput.optional(),
    lsn: z.string().optional(),
    expires_at: InstantInput.optional(),
  }),
  output: RecoveryPoint,
  errors: [...CHANGE, 'RESOURCE_EXISTS', 'QUOTA_EXCEEDED', 'NOT_SUPPORTED'],
  source: 'Neon API v2: createSnapshot',
  example: {},
  plan: (context, input) => planSnapshot(context, input),
  steps: (_input, plan) => snapshotSteps(plan),
  result: (results) => results['wait'] as unknown as RecoveryPoint,
});

export const listSnapshots = defineAction({
  provider: neon,
  name: 'list-snapshots',
  aliases: ['list-backups'],
  title: 'List the snapshots of a Neon project',
  summary: 'Lists the snapshots of all branches, newest first.',
  risk: 'read',
  input: z.object({ ...ListInput }),
  output: SnapshotList,
  errors: [...REACH, 'INVALID_PARAMETER'],
  source: 'Neon API v2: listSnapshots',
  example: {},
  async run({ client, runtime, signal }, { limit, cursor }) {
    const points = (await client.snapshots(signal)).map((snapshot) => toPoint(snapshot, runtime.now()));
    const { items, next_cursor } = pageOf(points, limit, cursor, ({ id, created_at }) => `${created_at ?? ''}|${id}`);
    return {
      snapshots: items,
      ...(next_cursor === undefined ? {} : { next_cursor }),
      notes: ['Besides snapshots every moment of the history window can be restored: get-backup-info shows it.'],
    };
  },
});

export const describeSnapshot = defineAction({
  provider: neon,
  name: 'describe-snapshot',
  aliases: ['describe-backup'],
  title: 'Describe a snapshot of a Neon project',
  summary: 'Shows one snapshot.',
  risk: 'read',
  input: z.object({ snapshot_id: z.string() }),
  output: RecoveryPoint,
  errors: [...REACH, 'SNAPSHOT_NOT_FOUND', 'INVALID_PARAMETER'],
  source: 'Neon API v2: listSnapshots',
  example: { snapshot_id: '$newest' },
  run: (context, { snapshot_id }) => describe(context, snapshot_id),
});

export const deleteSnapshot = defineAction({
  provider: neon,
  name: 'delete-snapshot',
  aliases: ['delete-backup'],
  title: 'Delete a snapshot of a Neon project',
  summary: 'Deletes one snapshot for good.',
  risk: 'delete',
  input: z.object({ snapshot_id: z.string(), allow_last: z.boolean().optional() }),
  output: z.object({ snapshot_id: z.string(), deleted: z.literal(true) }),
  errors: [...CHANGE, 'SNAPSHOT_NOT_FOUND'],
  source: 'Neon API v2: deleteSnapshot',
  example: { snapshot_id: '$newest' },
  plan: (context, { snapshot_id }) => planDeletion(context, snapshot_id),
  steps: ({ snapshot_id }, plan) => deletionSteps(snapshot_id, plan),
  result: (results) => results['wait'] as unknown as { snapshot_id: string; deleted: true },
});

export const restore = defineAction({
  provider: neon,
  name: 'restore',
  title: 'Restore a Neon branch',
  summary:
    'Makes new_branch_name from a moment or snapshot; without new_branch_name the branch itself is REPLACED and kept under another name.',
  risk: 'create',
  upTo: 'overwrite',
  input: z.object({
    restore_timestamp: InstantInput.optional(),
    lsn: z.string().optional(),
    snapshot_id: z.string().optional(),
    source_branch_id: z.string().describe('history of another branch').optional(),
    new_branch_name: z.string().optional(),
    preserve_under_name: z.string().optional(),
  }),
  output: RestoreJob,
  errors: [...CHANGE, 'SNAPSHOT_NOT_FOUND', 'RESOURCE_EXISTS', 'QUOTA_EXCEEDED', 'NOT_SUPPORTED'],
  source: 'Neon API v2: createProjectBranch, restoreProjectBranch, restoreSnapshot',
  example: { snapshot_id: '$newest', new_branch_name: 'recovered' },
  plan: (context, input) => planRestore(context, input),
  steps: (_input, plan) => restoreSteps(plan),
  result: (results) => results['wait'] as unknown as RestoreJob,
});

export const deleteBranch = defineAction({
  provider: neon,
  name: 'delete-branch',
  title: 'Delete a Neon branch',
  summary: 'Deletes a child branch, a restored copy say; never a default, protected or root one.',
  risk: 'delete',
  input: z.object({ branch_id: z.string(), hard_delete: z.boolean().optional().describe('beyond recovery') }),
  output: z.object({ branch_id: z.string(), deleted: z.literal(true), hard: z.boolean() }),
  errors: [...CHANGE],
  source: 'Neon API v2: deleteProjectBranch',
  example: { branch_id: 'br-drill-copy-118737' },
  plan: (context, input) => planBranchDeletion(context, input),
  steps: (input, plan) => branchDeletionSteps(input, plan),
  result: (results) => results['wait'] as unknown as { branch_id: string; deleted: true; hard: boolean },
});

export const getRestoreStatus = defineAction({
  provider: neon,
  name: 'get-restore-status',
  title: 'Show how a Neon restore stands',
  summary: 'Shows an operation or a restored branch, and whether it can be used.',
  risk: 'read',
  input: z.object({ job_id: z.string().describe('id of a branch or an operation') }),
  output: RestoreJob,
  errors: [...REACH, 'INVALID_PARAMETER'],
  source: 'Neon API v2: getProjectOperation, getProjectBranch, listProjectOperations',
  example: { job_id: 'br-drill-copy-118737' },
  run: (context, { job_id }) => restoreStatus(context, job_id),
});
