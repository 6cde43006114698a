import { z } from 'zod';
import type { SecretRef } from './runtime.ts';

// Timestamps are RFC 3339 UTC, sizes bytes, durations seconds.
// `format: date-time` without zod's pattern keeps tool lists small; instants that come in are checked by parseInstant.
export const Timestamp = z.string().meta({ format: 'date-time' });

/** An instant that a caller gives: RFC 3339 with an offset or Unix seconds; read it with `parseInstant`. */
export const InstantInput = z.union([z.string(), z.number().int()]);

/** Facts that only one provider has. */
export const ProviderFacts = z.record(z.string(), z.unknown());

export const RecoveryPoint = z.object({
  id: z.string(),
  /** `automated`, `on_demand`, `safety` or the provider's own word. */
  kind: z.string(),
  /** `available`, `creating`, `failed`, `deleting`, `expired`, `skipped`, `damaged` or `unknown`. */
  status: z.string(),
  created_at: Timestamp.optional(),
  /** The moment of the data, where it differs from the moment of creation. */
  data_at: Timestamp.optional(),
  expires_at: Timestamp.optional(),
  size_bytes: z.number().optional(),
  encrypted: z.boolean().optional(),
  location: z.string().optional(),
  restorable: z.boolean(),
  description: z.string().optional(),
  provider: ProviderFacts.optional(),
});
export type RecoveryPoint = z.infer<typeof RecoveryPoint>;

export const RecoveryWindow = z.object({ earliest_at: Timestamp, latest_at: Timestamp });
export type RecoveryWindow = z.infer<typeof RecoveryWindow>;

export const JobStatus = z.enum(['pending', 'running', 'succeeded', 'failed', 'cancelled', 'unknown']);
export type JobStatus = z.infer<typeof JobStatus>;

/** The work that a restore started at the provider. */
export const RestoreJob = z.object({
  /** The provider's own handle: job id, operation name, task id. */
  job_id: z.string(),
  status: JobStatus,
  percent: z.number().optional(),
  target: z.string(),
  started_at: Timestamp.optional(),
  ended_at: Timestamp.optional(),
  /** Whether the target can be used: the job is over and the database is loaded and answers. */
  usable: z.boolean(),
  provider: ProviderFacts.optional(),
});
export type RestoreJob = z.infer<typeof RestoreJob>;

export const BackupInfo = z.object({
  /** Whether the provider takes backups by itself. */
  automated: z.boolean(),
  /** Seconds. */
  retention_seconds: z.number().optional(),
  /** When automated backups run, UTC, `03:00-04:00` or a sentence. */
  schedule: z.string().optional(),
  pitr: z.object({ enabled: z.boolean(), window: RecoveryWindow.optional() }),
  encryption: z.string(),
  deletion_protection: z.boolean().nullable(),
  newest: RecoveryPoint.nullable(),
  /** What the person who has to restore should know. */
  warnings: z.array(z.string()),
  provider: ProviderFacts.optional(),
});
export type BackupInfo = z.infer<typeof BackupInfo>;

/** Input of every list: newest first. */
export const ListInput = { limit: z.number().int().min(1).max(500).optional(), cursor: z.string().optional() };

export const SnapshotList = z.object({
  snapshots: z.array(RecoveryPoint),
  next_cursor: z.string().optional(),
  /** What the list cannot show, where the provider keeps something back. */
  notes: z.array(z.string()).optional(),
});
export type SnapshotList = z.infer<typeof SnapshotList>;

export const StepView = z.object({
  name: z.string(),
  status: JobStatus,
  message: z.string().optional(),
  percent: z.number().optional(),
  started_at: Timestamp.optional(),
  ended_at: Timestamp.optional(),
});

export const ErrorView = z.object({
  code: z.string(),
  message: z.string(),
  hint: z.string(),
  retryable: z.boolean(),
  details: ProviderFacts.optional(),
  provider: ProviderFacts.optional(),
});

/** Work that outlives a call, as every surface shows it. */
export const OperationView = z.object({
  operation_id: z.string(),
  action: z.string(),
  entity: z.string(),
  status: JobStatus,
  percent: z.number().optional(),
  target: z.string().optional(),
  started_at: Timestamp,
  ended_at: Timestamp.optional(),
  steps: z.array(StepView),
  result: ProviderFacts.optional(),
  /** How to go back: the safety snapshot and the exact call. */
  undo: ProviderFacts.optional(),
  error: ErrorView.optional(),
  sandbox: z.literal(true).optional(),
});
export type OperationView = z.infer<typeof OperationView>;

/** Every declared backup parameter of one entity against what the provider has. */
export const SettingsCheck = z.object({
  target: z.string(),
  /** Whether all of them are as declared. */
  in_line: z.boolean(),
  settings: z.array(
    z.object({
      setting: z.string(),
      declared: z.unknown(),
      /** null for nothing; absent where the provider does not tell. */
      actual: z.unknown().optional(),
      verdict: z.enum(['as_declared', 'differs', 'unknown']),
      note: z.string().optional(),
      /** What apply-settings would do; absent where it cannot, or need not. */
      to_apply: z.object({ risk: z.string(), effect: z.string() }).optional(),
    }),
  ),
});
export type SettingsCheck = z.infer<typeof SettingsCheck>;

/** What apply-settings changed; empty where all was as declared. */
export const AppliedSettings = z.object({
  applied: z.array(z.object({ setting: z.string(), from: z.unknown(), to: z.unknown() })),
});
export type AppliedSettings = z.infer<typeof AppliedSettings>;

/** Marks a string that may hold credentials: it is masked in plans, operations, logs and the audit trail. */
export function secretText(): z.ZodString {
  return z.string().meta({ secret: true }) as z.ZodString;
}

const SECRET_REFERENCE = /^\$\{(env|file):([^}]+)\}$/;

/** A parameter that names a secret, `${env:NAME}` or `${file:/path}`; a literal is refused so that none gets into the file. */
export const SecretReference = z
  .string()
  .regex(SECRET_REFERENCE, 'write a reference, ${env:NAME} or ${file:/path}, never the secret itself')
  .transform((text): SecretRef => {
    const [, secret, name] = SECRET_REFERENCE.exec(text) as unknown as [string, 'env' | 'file', string];
    return { secret, name };
  })
  .meta({ secret: true });
