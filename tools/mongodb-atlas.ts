import { z } from 'zod';
import { defineAction } from '../src/core/action.ts';
import { pageOf } from '../src/core/page.ts';
import { BackupInfo, InstantInput, ListInput, RecoveryPoint, RestoreJob, SnapshotList } from '../src/core/schemas.ts';
import { cleanText } from '../src/core/text.ts';
import { known } from '../src/core/wire.ts';
import {
  collectionsSafety,
  collectionsSteps,
  planCollections,
  undoCollections,
} from '../src/providers/mongodb-atlas/collections.ts';
import { backupInfo } from '../src/providers/mongodb-atlas/info.ts';
import { tierError } from '../src/providers/mongodb-atlas/map.ts';
import { mongodbAtlas } from '../src/providers/mongodb-atlas/provider.ts';
import {
  planRestore,
  restoreStatus,
  restoreSteps,
  safetySteps,
  undoRestore,
} from '../src/providers/mongodb-atlas/restore.ts';
import {
  deleteSnapshot,
  planDeletion,
  snapshotSteps,
  snapshotTarget,
} from '../src/providers/mongodb-atlas/snapshot.ts';

const REACH = [
  'AUTHENTICATION_FAILED',
  'INSUFFICIENT_PERMISSIONS',
  'RESOURCE_NOT_FOUND',
  'RATE_LIMITED',
  'PROVIDER_UNAVAILABLE',
  'CLUSTER_TIER_NOT_SUPPORTED',
] as const;

export const getBackupInfo = defineAction({
  provider: mongodbAtlas,
  name: 'get-backup-info',
  title: 'Get the backup settings of an Atlas cluster',
  summary:
    'Tells how an Atlas cluster is backed up: schedule, retention, point-in-time window, newest snapshot, warnings.',
  risk: 'read',
  input: z.object({}),
  output: BackupInfo,
  errors: [...REACH],
  source: 'Atlas Admin API v2: getGroupCluster, getGroupClusterBackupSchedule, listGroupClusterBackupSnapshots',
  example: {},
  run: (context) => backupInfo(context),
});

export const createSnapshot = defineAction({
  provider: mongodbAtlas,
  name: 'create-snapshot',
  aliases: ['create-backup'],
  title: 'Take a snapshot of an Atlas cluster',
  summary:
    'Takes an on-demand snapshot of a dedicated cluster (M10 or higher) and follows it until it can be restored.',
  risk: 'create',
  input: z.object({
    description: z.string().max(300).optional(),
    retention_days: z.number().int().min(1).max(3650).default(7),
  }),
  output: RecoveryPoint,
  errors: [...REACH, 'INVALID_STATE', 'INVALID_PARAMETER', 'QUOTA_EXCEEDED', 'TIMEOUT'],
  source: 'Atlas Admin API v2: takeGroupClusterBackupSnapshots',
  example: { description: 'before the migration', retention_days: 7 },
  async plan({ client, signal }, { retention_days }) {
    const cluster = await snapshotTarget(client, client.own, signal);
    return {
      target: `${cluster.project}/${cluster.cluster}`,
      loses: 'nothing',
      undo: `delete the snapshot; Atlas deletes it by itself after ${retention_days} days`,
      facts: { target: { project_id: cluster.project, cluster: cluster.cluster, cluster_id: cluster.id ?? null } },
    };
  },
  steps: ({ description, retention_days }, plan) =>
    snapshotSteps({
      names: ['snapshot', 'wait'],
      target: {
        project: String(plan.facts.target['project_id']),
        cluster: String(plan.facts.target['cluster']),
      },
      description: cleanText(description, 300),
      retention_days,
    }),
  result: (results) => results['wait'] as unknown as RecoveryPoint,
});

export const listSnapshots = defineAction({
  provider: mongodbAtlas,
  name: 'list-snapshots',
  aliases: ['list-backups'],
  title: 'List the snapshots of an Atlas cluster',
  summary: 'Lists the snapshots of an Atlas cluster, newest first, with status, size and expiry.',
  risk: 'read',
  input: z.object({ ...ListInput }),
  output: SnapshotList,
  errors: [...REACH, 'INVALID_PARAMETER'],
  source:
    'Atlas Admin API v2: listGroupClusterBackupSnapshots, …SnapshotShardedClusters, listGroupFlexClusterBackupSnapshots',
  example: {},
  async run({ client, signal }, { limit, cursor }) {
    const deployment = await client.deployment(client.own, signal);
    if (deployment.kind === 'free') throw tierError(deployment, 'snapshots');
    const all = await client.snapshots(deployment, signal);
    const { items, next_cursor } = pageOf(
      all,
      limit,
      cursor,
      (snapshot) => `${snapshot.created_at ?? ''}|${snapshot.id}`,
    );
    return {
      snapshots: items,
      ...(next_cursor === undefined ? {} : { next_cursor }),
      ...(deployment.kind === 'gone'
        ? { notes: ['The cluster no longer exists; these snapshots were retained and go to another cluster only.'] }
        : {}),
    };
  },
});

export const describeSnapshot = defineAction({
  provider: mongodbAtlas,
  name: 'describe-snapshot',
  aliases: ['describe-backup'],
  title: 'Describe a snapshot of an Atlas cluster',
  summary: 'Describes one snapshot of an Atlas cluster, with the databases in it where Atlas tells.',
  risk: 'read',
  input: z.object({ snapshot_id: z.string(), database: z.string().describe('names its collections').optional() }),
  output: RecoveryPoint,
  errors: [...REACH, 'SNAPSHOT_NOT_FOUND', 'INVALID_PARAMETER'],
  source: 'Atlas Admin API v2: getGroupClusterBackupSnapshot, …ShardedCluster, getGroupFlexClusterBackupSnapshot',
  example: { snapshot_id: '$newest' },
  async run({ client, signal }, { snapshot_id, database }) {
    const deployment = await client.deployment(client.own, signal);
    if (deployment.kind === 'free') throw tierError(deployment, 'snapshots');
    const snapshot = await client.snapshot(deployment, snapshot_id, signal);
    if (!snapshot.restorable) return snapshot;
    const databases = await client.databasesIn(deployment, snapshot.id, signal);
    const isIn = database !== undefined && databases?.includes(database);
    const collections = isIn ? await client.collectionsIn(deployment, snapshot.id, database, signal) : undefined;
    return { ...snapshot, provider: known({ ...snapshot.provider, databases, collections }) };
  },
});

export const removeSnapshot = defineAction({
  provider: mongodbAtlas,
  name: 'delete-snapshot',
  aliases: ['delete-backup'],
  title: 'Delete a snapshot of an Atlas cluster',
  summary: 'Deletes one snapshot of a dedicated cluster and its copies in other regions for good. Needs confirmation.',
  risk: 'delete',
  input: z.object({ snapshot_id: z.string(), allow_last: z.boolean().optional() }),
  output: z.object({ snapshot_id: z.string(), deleted: z.literal(true) }),
  errors: [...REACH, 'SNAPSHOT_NOT_FOUND', 'INVALID_PARAMETER', 'NOT_SUPPORTED', 'TIMEOUT'],
  source: 'Atlas Admin API v2: deleteGroupClusterBackupSnapshot, …ShardedCluster',
  example: { snapshot_id: '$newest' },
  plan: (context, { snapshot_id }) => planDeletion(context, snapshot_id),
  async run(context, { snapshot_id }) {
    await deleteSnapshot(context, snapshot_id);
    return { snapshot_id, deleted: true as const };
  },
});

export const restore = defineAction({
  provider: mongodbAtlas,
  name: 'restore',
  title: 'Restore an Atlas cluster',
  summary:
    'Replaces ALL data of this cluster, or of target_cluster, by a snapshot or a point in time. Needs confirmation.',
  risk: 'overwrite',
  input: z.object({
    snapshot_id: z.string().optional(),
    restore_timestamp: InstantInput.describe('Unix seconds or RFC 3339').optional(),
    target_cluster: z.string().describe('existing cluster to overwrite instead').optional(),
    target_project_id: z.string().optional(),
    safety_snapshot: z.boolean().optional(),
  }),
  output: RestoreJob,
  errors: [...REACH, 'SNAPSHOT_NOT_FOUND', 'INVALID_STATE', 'INVALID_PARAMETER', 'TIMEOUT', 'CANCELLED'],
  source: 'Atlas Admin API v2: createGroupClusterBackupRestoreJob, createGroupFlexClusterBackupRestoreJob',
  example: { snapshot_id: '$newest' },
  plan: (context, input) => planRestore(context, input),
  steps: (input, plan) => restoreSteps(input, plan),
  result: (results) => results['verify'] as unknown as RestoreJob,
  safety: { steps: (_input, plan) => safetySteps(plan), undo: undoRestore },
});

const Names = z.array(z.string()).min(1).max(100).optional();

export const restoreCollections = defineAction({
  provider: mongodbAtlas,
  name: 'restore-collections',
  title: 'Restore some collections of an Atlas cluster',
  summary:
    'Restores collections or whole databases as copies; write_strategy OVERWRITE_EXISTING replaces what there is, and needs confirmation.',
  risk: 'create',
  upTo: 'overwrite',
  input: z.object({
    snapshot_id: z.string().optional(),
    restore_timestamp: InstantInput.optional(),
    collections: Names.describe('database.collection'),
    databases: Names,
    write_strategy: z.enum(['CREATE_NEW', 'OVERWRITE_EXISTING']).default('CREATE_NEW'),
    index_strategy: z
      .enum(['ALL', 'NONE', 'ALL_EXCEPT_TTL'])
      .default('ALL_EXCEPT_TTL')
      .describe('TTL deletes old data'),
    target_cluster: z.string().optional(),
    target_project_id: z.string().optional(),
    safety_snapshot: z.boolean().optional(),
  }),
  output: RestoreJob,
  errors: [...REACH, 'SNAPSHOT_NOT_FOUND', 'INVALID_STATE', 'INVALID_PARAMETER', 'TIMEOUT', 'CANCELLED'],
  source: 'Atlas Admin API v2: createGroupClusterCollectionRestoreJob',
  example: { snapshot_id: '$newest', collections: ['shop.orders'] },
  plan: (context, input) => planCollections(context, input),
  steps: (input, plan) => collectionsSteps(input, plan),
  result: (results) => results['wait'] as unknown as RestoreJob,
  safety: { steps: (input, plan) => collectionsSafety(input, plan), undo: undoCollections },
});

export const getRestoreStatus = defineAction({
  provider: mongodbAtlas,
  name: 'get-restore-status',
  title: 'Get the status of an Atlas restore job',
  summary: 'Tells how a restore job of this cluster stands and whether its target can be used.',
  risk: 'read',
  input: z.object({ job_id: z.string() }),
  output: RestoreJob,
  errors: [...REACH, 'INVALID_PARAMETER'],
  source:
    'Atlas Admin API v2: getGroupClusterBackupRestoreJob, getGroupFlexClusterBackupRestoreJob, …CollectionRestoreJob',
  example: { job_id: '6a300000a1b2c3d4e5f60001' },
  run: (context, { job_id }) => restoreStatus(context, job_id),
});

export const listRestoreJobs = defineAction({
  provider: mongodbAtlas,
  name: 'list-restore-jobs',
  title: 'List the restore jobs of an Atlas cluster',
  summary: 'Lists the restore jobs that started from snapshots of this cluster, newest first.',
  risk: 'read',
  input: z.object({ ...ListInput }),
  output: z.object({ jobs: z.array(RestoreJob), next_cursor: z.string().optional() }),
  errors: [...REACH, 'INVALID_PARAMETER'],
  source: 'Atlas Admin API v2: listGroupClusterBackupRestoreJobs, listGroupFlexClusterBackupRestoreJobs',
  example: {},
  async run({ client, signal }, { limit, cursor }) {
    const deployment = await client.deployment(client.own, signal);
    if (deployment.kind === 'free') throw tierError(deployment, 'restore jobs');
    const all = await client.jobs(deployment, signal);
    const { items, next_cursor } = pageOf(all, limit, cursor, (job) => job.job_id);
    return { jobs: items, ...(next_cursor === undefined ? {} : { next_cursor }) };
  },
});
