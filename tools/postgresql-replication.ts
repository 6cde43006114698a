import { z } from 'zod';
import { defineAction } from '../src/core/action.ts';
import { postgresql } from '../src/providers/postgresql/provider.ts';

const Bytes = z.number().nullable();
const Seconds = z.number().nullable();

const ReplicationStatus = z.object({
  role: z.enum(['primary', 'standby']),
  verdict: z.enum(['healthy', 'lagging', 'broken', 'none']),
  lsn: z.string().nullable(),
  timeline: z.number().nullable(),
  wal_level: z.string(),
  peers: z.array(
    z.object({
      name: z.string(),
      address: z.string().nullable(),
      state: z.string().nullable(),
      sync: z.string().nullable(),
      lag_bytes: Bytes,
      lag_seconds: Seconds,
    }),
  ),
  slots: z.array(
    z.object({
      name: z.string(),
      type: z.string(),
      active: z.boolean(),
      retained_bytes: Bytes,
      wal_status: z.string().nullable(),
      safe_bytes: Bytes,
    }),
  ),
  standby: z
    .object({
      upstream: z.string().nullable(),
      receiver: z.string().nullable(),
      received_lsn: z.string().nullable(),
      replayed_lsn: z.string().nullable(),
      replay_lag_bytes: Bytes,
      replay_lag_seconds: Seconds,
      replay_paused: z.boolean(),
    })
    .optional(),
  slot_limit_bytes: Bytes,
  warnings: z.array(z.string()),
});

export const getReplicationStatus = defineAction({
  provider: postgresql,
  name: 'get-replication-status',
  title: 'Show how PostgreSQL replication stands',
  summary: 'Lag of each peer, what slots hold back, and what a standby has replayed.',
  risk: 'read',
  input: z.object({
    max_lag_seconds: z.number().positive().max(86_400).optional().describe('10 when left out'),
    max_lag_bytes: z.number().int().positive().optional().describe('10 MB when left out'),
  }),
  output: ReplicationStatus,
  errors: ['PROVIDER_UNAVAILABLE', 'AUTHENTICATION_FAILED', 'CONFIG_INVALID'],
  source: 'pg_stat_replication, pg_replication_slots, pg_stat_wal_receiver',
  example: {},
  run: ({ client, signal }, { max_lag_seconds = 10, max_lag_bytes = 10_000_000 }) =>
    client.replication(signal, { seconds: max_lag_seconds, bytes: max_lag_bytes }),
});
