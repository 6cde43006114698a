import { z } from 'zod';
import { defineAction } from '../src/core/action.ts';
import { Timestamp } from '../src/core/schemas.ts';
import { postgresql } from '../src/providers/postgresql/provider.ts';

const SnapshotId = z.string().min(1).max(60);

const Lines = z.object({ only_in_backup: z.number(), only_in_other: z.number(), lines: z.array(z.string()) });

const Difference = z.object({
  backup: z.object({ snapshot_id: z.string(), database: z.string(), at: Timestamp, damage: z.string().optional() }),
  other: z.looseObject({ database: z.string(), at: Timestamp }),
  identical: z.boolean(),
  tables: z.object({
    same: z.number(),
    /** As many rows; their content was not compared. */
    same_count: z.number(),
    rows_differ: z.number(),
    content_differs: z.number(),
    only_in_backup: z.number(),
    only_in_other: z.number(),
  }),
  table_differences: z.array(
    z.object({
      table: z.string(),
      verdict: z.string(),
      in_backup: z.string().optional(),
      in_other: z.string().optional(),
    }),
  ),
  sequences_differ: z.number(),
  sequence_differences: z.array(z.object({ sequence: z.string(), in_backup: z.string(), in_other: z.string() })),
  large_objects: z.object({ in_backup: z.string(), in_other: z.string() }),
  schema: Lines,
  /** Owners, grants and settings. */
  access: Lines,
  notes: z.array(z.string()),
  cost: z.object({
    duration_seconds: z.number(),
    tables_read: z.number().optional(),
    rows_read: z.number().optional(),
  }),
});

export const diffSnapshot = defineAction({
  provider: postgresql,
  name: 'diff-snapshot',
  title: 'Compare a PostgreSQL backup with the live database',
  summary: 'Shows what differs, by table, schema and rights, without a restore; reads every live row once.',
  risk: 'read',
  input: z.object({
    snapshot_id: SnapshotId,
    other_snapshot_id: SnapshotId.optional().describe('instead of the live database'),
    database: z.string().min(1).max(63).optional().describe('another live one, a restored copy'),
  }),
  output: Difference,
  errors: [
    'BACKUP_NOT_FOUND',
    'INVALID_PARAMETER',
    'INTEGRITY_FAILED',
    'PROVIDER_UNAVAILABLE',
    'AUTHENTICATION_FAILED',
    'INSUFFICIENT_PERMISSIONS',
    'RESOURCE_NOT_FOUND',
    'NOT_SUPPORTED',
    'INVALID_STATE',
    'CONFIG_INVALID',
    'CANCELLED',
  ],
  source: 'the inventory of the backup; row fingerprints and pg_dump --schema-only of one snapshot',
  example: { snapshot_id: '$newest' },
  plan: (context, input) => context.client.differ.plan(context, input),
  run: async ({ client, signal }, input) => (await client.differ.diff({ signal }, input)) as z.input<typeof Difference>,
});
