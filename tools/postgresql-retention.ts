import { z } from 'zod';
import { defineAction } from '../src/core/action.ts';
import { Timestamp } from '../src/core/schemas.ts';
import { postgresql } from '../src/providers/postgresql/provider.ts';

const SnapshotId = z.string().min(1).max(60);

const Pruned = z.object({
  deleted: z.array(z.string()),
  deleted_count: z.number(),
  kept_count: z.number(),
  unfinished_removed: z.number(),
  wal_segments_removed: z.number(),
  freed_bytes: z.number(),
});

export const pruneSnapshots = defineAction({
  provider: postgresql,
  name: 'prune-snapshots',
  title: 'Delete PostgreSQL backups that are past their retention',
  summary: 'Deletes what the declared retention gives up; the plan names every backup with its reasons.',
  risk: 'change',
  upTo: 'delete',
  input: z.object({ plan_hash: z.string().max(64).optional().describe('of the dry run; refused if the set changed') }),
  output: Pruned,
  errors: ['INVALID_STATE', 'INSUFFICIENT_PERMISSIONS', 'PLAN_CHANGED', 'PROVIDER_UNAVAILABLE', 'CONFIG_INVALID'],
  source: 'UTC periods of the data; the manifest first, then its files',
  example: {},
  plan: (context, input) => context.client.retention.plan(context, input),
  steps: (_input, plan) => [
    {
      name: 'prune',
      title: 'Deleting backups past their retention',
      kind: 'mutate',
      run: (step) => step.client.retention.prune(step, plan),
      recover: (step) => step.client.retention.recover(step),
    },
  ],
  result: (results) => results['prune'] as z.input<typeof Pruned>,
});

const Held = z.object({
  snapshot_id: z.string(),
  held: z.boolean(),
  held_at: Timestamp.optional(),
  reason: z.string().optional(),
});

export const holdSnapshot = defineAction({
  provider: postgresql,
  name: 'hold-snapshot',
  title: 'Keep a PostgreSQL backup from being deleted',
  summary: 'Keeps a backup, until it is released, from prune and delete.',
  risk: 'change',
  input: z.object({
    snapshot_id: SnapshotId,
    reason: z.string().min(1).max(300).describe('for whoever finds it held'),
  }),
  output: Held,
  errors: ['BACKUP_NOT_FOUND', 'RESOURCE_EXISTS', 'INTEGRITY_FAILED', 'INSUFFICIENT_PERMISSIONS'],
  source: 'an object beside the backups, for every machine',
  example: { snapshot_id: '$newest', reason: 'before the migration' },
  run: async ({ client, caller }, { snapshot_id, reason }) =>
    (await client.retention.hold(snapshot_id, reason, caller)) as z.input<typeof Held>,
});

export const releaseSnapshot = defineAction({
  provider: postgresql,
  name: 'release-snapshot',
  title: 'Release a held PostgreSQL backup',
  summary: 'Ends a hold: retention may delete the backup again.',
  risk: 'weaken',
  input: z.object({ snapshot_id: SnapshotId }),
  output: Held,
  errors: ['BACKUP_NOT_FOUND', 'INVALID_STATE', 'INSUFFICIENT_PERMISSIONS'],
  source: 'an object beside the backups, for every machine',
  example: { snapshot_id: '$newest' },
  plan: (context, { snapshot_id }) => context.client.retention.planRelease(snapshot_id),
  run: async ({ client }, { snapshot_id }) => (await client.retention.release(snapshot_id)) as z.input<typeof Held>,
});

const Backup = z.object({
  snapshot_id: z.string(),
  type: z.string(),
  data_at: Timestamp,
  database: z.string(),
  server_version: z.string(),
});

const CatalogueReport = z.object({
  location: z.string(),
  /** Whether every backup that is listed is there, whole as far as sizes tell, with all that it rests on. */
  healthy: z.boolean(),
  sources: z.array(
    z.object({
      source_id: z.string(),
      name: z.string().nullable(),
      backups: z.number(),
      physical: z.number(),
      stored_bytes: z.number(),
      newest: Backup.nullable(),
      newest_good: Backup.nullable(),
      verified_at: Timestamp.nullable(),
      held: z.number(),
      wal_segments: z.number(),
      /** `opens`, `does_not_open`, `no_key_here`, `not_encrypted` or `damaged`: of the newest good one. */
      key: z.string().optional(),
      unfinished: z.array(z.string()),
      problems: z.array(z.object({ kind: z.string(), what: z.string(), message: z.string() })),
      problems_found: z.number(),
      grave_problems: z.number(),
      /** What the entities file of a new machine needs to restore from here. */
      entity: z
        .object({ namespace: z.string(), name: z.string(), parameters: z.record(z.string(), z.unknown()) })
        .nullable(),
    }),
  ),
  foreign: z.object({ count: z.number(), bytes: z.number(), names: z.array(z.string()) }),
  other_layouts: z.record(z.string(), z.number()),
});

export const checkCatalog = defineAction({
  provider: postgresql,
  name: 'check-catalog',
  title: 'Look through the storage of PostgreSQL backups',
  summary: 'Finds damaged, missing, orphaned and foreign objects, and whether the key here opens the backups.',
  risk: 'read',
  input: z.object({ all_sources: z.boolean().optional().describe('of the whole storage') }),
  output: CatalogueReport,
  errors: ['INSUFFICIENT_PERMISSIONS', 'PROVIDER_UNAVAILABLE', 'CONFIG_INVALID', 'AUTHENTICATION_FAILED'],
  source: 'a list of the storage; its manifests',
  example: {},
  run: async ({ client, signal }, { all_sources = false }) =>
    (await client.catalogue.check({ signal }, all_sources)) as z.input<typeof CatalogueReport>,
});
