import { z } from 'zod';
import { defineAction } from '../src/core/action.ts';
import { postgresql } from '../src/providers/postgresql/provider.ts';

const WalChecked = z.object({
  /** Whether what the server writes now reaches the storage. */
  archived: z.boolean(),
  /** The segment that was awaited. */
  segment: z.string(),
  seen_after_seconds: z.number().nullable(),
  /** What is wrong and what to do, where it did not come. */
  problem: z.string().optional(),
  switched_lsn: z.string(),
  gaps: z.array(
    z.object({ timeline: z.number(), first_segment: z.string(), last_segment: z.string(), segments: z.number() }),
  ),
  warnings: z.array(z.string()),
});

export const checkWal = defineAction({
  provider: postgresql,
  name: 'check-wal',
  title: 'Prove that the write-ahead log is archived',
  summary: 'Switches to a new WAL segment, waits until the old one is in the storage, and lists holes.',
  risk: 'create',
  input: z.object({ timeout_seconds: z.number().int().min(1).max(600).optional().describe('30 when left out') }),
  output: WalChecked,
  errors: [
    'PROVIDER_UNAVAILABLE',
    'AUTHENTICATION_FAILED',
    'INSUFFICIENT_PERMISSIONS',
    'CONFIG_INVALID',
    'INVALID_STATE',
    'INTEGRITY_FAILED',
  ],
  source: 'pg_switch_wal; the archive in the storage; pg_stat_archiver',
  example: { timeout_seconds: 5 },
  run: ({ client, signal }, { timeout_seconds }) => client.checkWal({ signal }, timeout_seconds),
});
