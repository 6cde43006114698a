import { z } from 'zod';
import { defineAction } from '../src/core/action.ts';
import { pageOf } from '../src/core/page.ts';
import { BackupInfo, InstantInput, ListInput, RecoveryPoint, RestoreJob, SnapshotList } from '../src/core/schemas.ts';
import { backupInfo, describeBackup, ownBackups } from '../src/providers/digitalocean/backups.ts';
import { toPoint } from '../src/providers/digitalocean/map.ts';
import { digitalocean } from '../src/providers/digitalocean/provider.ts';
import { planRestore, restoreStatus, restoreSteps } from '../src/providers/digitalocean/restore.ts';

const REACH = [
  'AUTHENTICATION_FAILED',
  'INSUFFICIENT_PERMISSIONS',
  'RESOURCE_NOT_FOUND',
  'RATE_LIMITED',
  'PROVIDER_UNAVAILABLE',
] as const;

export const getBackupInfo = defineAction({
  provider: digitalocean,
  name: 'get-backup-info',
  title: 'Get the backup settings of a DigitalOcean database',
  summary: 'Shows schedule, window, newest backup and what the engine supports.',
  risk: 'read',
  input: z.object({}),
  output: BackupInfo,
  errors: [...REACH],
  source: 'DigitalOcean API v2: databases_get_cluster, databases_list_backups, databases_get_config',
  example: {},
  run: (context) => backupInfo(context),
});

export const listSnapshots = defineAction({
  provider: digitalocean,
  name: 'list-snapshots',
  aliases: ['list-backups'],
  title: 'List the backups of a DigitalOcean database',
  summary: 'Lists the automatic backups, newest first; an id is the moment of its backup.',
  risk: 'read',
  input: z.object({ ...ListInput }),
  output: SnapshotList,
  errors: [...REACH, 'NOT_SUPPORTED', 'INVALID_PARAMETER'],
  source: 'DigitalOcean API v2: databases_list_backups',
  example: {},
  async run(context, { limit, cursor }) {
    const { backups } = await ownBackups(context);
    const { items, next_cursor } = pageOf(backups.all, limit, cursor, ({ at }) => at.toISOString());
    return { snapshots: items.map(toPoint), ...(next_cursor === undefined ? {} : { next_cursor }) };
  },
});

export const describeSnapshot = defineAction({
  provider: digitalocean,
  name: 'describe-snapshot',
  aliases: ['describe-backup'],
  title: 'Describe a backup of a DigitalOcean database',
  summary: 'Describes the backup of one moment.',
  risk: 'read',
  input: z.object({ backup_created_at: z.string() }),
  output: RecoveryPoint,
  errors: [...REACH, 'NOT_SUPPORTED', 'BACKUP_NOT_FOUND', 'INVALID_PARAMETER'],
  source: 'DigitalOcean API v2: databases_list_backups',
  example: { backup_created_at: '$newest' },
  run: (context, { backup_created_at }) => describeBackup(context, backup_created_at),
});

export const restore = defineAction({
  provider: digitalocean,
  name: 'restore',
  title: 'Restore a DigitalOcean database into a new cluster',
  summary:
    'Makes a new, billed cluster from a backup or (PostgreSQL, MySQL) a moment, with the trusted sources of this one.',
  risk: 'create',
  input: z.object({
    new_cluster_name: z.string(),
    backup_created_at: z.string().optional(),
    restore_time: InstantInput.optional(),
    size: z.string().optional().describe('slug of the plan'),
    num_nodes: z.number().int().min(1).max(15).optional(),
    region: z.string().optional(),
  }),
  output: RestoreJob,
  errors: [
    ...REACH,
    'BACKUP_NOT_FOUND',
    'RESOURCE_EXISTS',
    'INVALID_PARAMETER',
    'INVALID_STATE',
    'NOT_SUPPORTED',
    'QUOTA_EXCEEDED',
    'TIMEOUT',
  ],
  source: 'DigitalOcean API v2: databases_create_cluster with backup_restore',
  example: { new_cluster_name: 'orders-restored', backup_created_at: '$newest' },
  plan: (context, input) => planRestore(context, input),
  steps: (_input, plan) => restoreSteps(plan),
  result: (results) => results['wait'] as unknown as RestoreJob,
});

export const getRestoreStatus = defineAction({
  provider: digitalocean,
  name: 'get-restore-status',
  title: 'Show how a DigitalOcean restore stands',
  summary: 'Shows whether the cluster that a restore makes can be used.',
  risk: 'read',
  input: z.object({ cluster_id: z.string() }),
  output: RestoreJob,
  errors: [...REACH, 'INVALID_PARAMETER'],
  source: 'DigitalOcean API v2: databases_get_cluster',
  example: { cluster_id: '3b1d7f52-0c64-4f7e-9d0a-6f2f0b8a4c11' },
  run: (context, { cluster_id }) => restoreStatus(context, cluster_id),
});
