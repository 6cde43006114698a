import type { JsonObject } from './json.ts';
import type { StepRecord } from './operation.ts';
import type { Plan } from './plan.ts';
import type { Risk } from './risk.ts';
import type { JobStatus } from './schemas.ts';

export type ConfirmationState = 'pending' | 'approved' | 'consumed' | 'denied' | 'expired' | 'void';
export type Requirement = 'human' | 'token' | 'two-people';

/** One confirmation: bound to one call, one state of the target and one caller; used once. Holds the token's hash, never the token. */
export interface ConfirmationRecord {
  id: string;
  /** For people: `7K3Q-F2MD`. */
  code: string;
  token_sha256: string;
  /** Of {action, entity, input, facts, policy}. */
  digest: string;
  /** The parts of the digest, so that a refusal can say which one differs. */
  parts: { action: string; entity: string; input: string; facts: string; policy: string };
  plan: Plan;
  /** The input as a person may see it, secrets masked. */
  input: JsonObject;
  principal: string;
  person: string;
  require: Requirement;
  /** Whether only a channel apart from the caller's client counts (never elicitation). */
  out_of_band: boolean;
  /** What the approver's passphrase is checked against: whoever approves with another entities file, or none, still needs it. */
  passphrase_hash?: string | undefined;
  state: ConfirmationState;
  created_at: string;
  expires_at: string;
  decided_by?: string | undefined;
  decided_via?: string | undefined;
  decided_at?: string | undefined;
  reason?: string | undefined;
}

export interface OperationRecord {
  id: string;
  action: string;
  provider: string;
  entity: string;
  principal: string;
  risk: Risk;
  target: string;
  /** The input with secrets masked. */
  input: JsonObject;
  plan: Plan;
  status: JobStatus;
  steps: StepRecord[];
  result?: JsonObject | undefined;
  undo?: JsonObject | undefined;
  error?: JsonObject | undefined;
  confirmation_id?: string | undefined;
  created_at: string;
  updated_at: string;
  ended_at?: string | undefined;
  /** The process that runs it; another may take over once it is dead or the lease is over. */
  owner?: { id: string; host: string; pid: number; lease_until: string } | undefined;
}

/** How one run of a schedule ended. */
export interface ScheduleRun {
  /** When it was due; absent when it was asked for by hand. */
  due_at?: string | undefined;
  began_at: string;
  ended_at: string;
  /** `refused`: the guard did not let it through. `interrupted`: its process died, and nothing of it went on. */
  state: 'succeeded' | 'failed' | 'refused' | 'interrupted';
  code?: string | undefined;
  message?: string | undefined;
  hint?: string | undefined;
  operation_id?: string | undefined;
}

/** How a schedule stands. */
export interface ScheduleRecord {
  /** `<namespace>/<entity>/<name>` */
  key: string;
  /** Counted up by one with every change. */
  version: number;
  /** As declared when this was written: what another declaration would have made due before now is not. */
  cron: string;
  timezone: string;
  enabled: boolean;
  /** What was due at this moment or before it is dealt with: run, given up, or older than the schedule. */
  settled_until: string;
  /** The run that is not over, and the process that has it until its lease is over. */
  running?:
    | {
        due_at?: string | undefined;
        began_at: string;
        owner: NonNullable<OperationRecord['owner']>;
      }
    | undefined;
  last?: ScheduleRun | undefined;
  last_success_at?: string | undefined;
  consecutive_failures: number;
  /** How many due times passed without a run of their own since the last success. */
  missed: number;
}

export interface AuditHead {
  sequence: number;
  hash: string;
}

/**
 * Keeps what must survive the process and be shared by every surface. Every method throws
 * {HoldfastError} STATE_UNAVAILABLE when the store cannot be read or written, its files having been removed included.
 */
export interface StateStore {
  addConfirmation(record: ConfirmationRecord): Promise<void>;
  confirmation(
    by: { id: string } | { code: string } | { token_sha256: string },
  ): Promise<ConfirmationRecord | undefined>;
  /** Newest first. */
  confirmations(filter?: { states?: readonly ConfirmationState[]; limit?: number }): Promise<ConfirmationRecord[]>;
  /** Changes a confirmation only if it still is in `from`: atomic, one of any number of parallel tries wins. */
  moveConfirmation(
    id: string,
    from: ConfirmationState,
    to: ConfirmationState,
    patch?: Partial<ConfirmationRecord>,
  ): Promise<boolean>;

  addOperation(record: OperationRecord): Promise<void>;
  operation(id: string): Promise<OperationRecord | undefined>;
  /** Newest first. */
  operations(filter?: { entity?: string; statuses?: readonly JobStatus[]; limit?: number }): Promise<OperationRecord[]>;
  /** Stores the whole record; only its owner calls this. */
  saveOperation(record: OperationRecord): Promise<void>;
  /** Makes `owner` the owner if the present owner still is `expected` (its id, or undefined for none): atomic. */
  claimOperation(
    id: string,
    expected: string | undefined,
    owner: NonNullable<OperationRecord['owner']>,
  ): Promise<boolean>;

  /** Takes a named lock until `ttlMs` from now; undefined when another holds it. The value returned releases or renews it. */
  lock(name: string, owner: string, ttlMs: number): Promise<boolean>;
  unlock(name: string, owner: string): Promise<void>;

  schedule(key: string): Promise<ScheduleRecord | undefined>;
  /**
   * Stores the record, its version one above `expected`, if the stored one still has `expected` (0: there is none): atomic,
   * one of any number of parallel tries wins.
   */
  saveSchedule(record: ScheduleRecord, expected: number): Promise<boolean>;

  addNote(entity: string, kind: string, note: JsonObject, at: string): Promise<void>;
  /** Newest first. */
  notes(entity: string, kind: string, limit: number): Promise<JsonObject[]>;

  /**
   * Runs `append` with the head of the audit chain while no other process can, and stores the head that it returns.
   * `durable` waits until the head is on the disk; records of reads need not.
   */
  advanceAudit(append: (head: AuditHead | undefined) => AuditHead, durable: boolean): Promise<AuditHead>;
  auditHead(): Promise<AuditHead | undefined>;
  close(): Promise<void>;
}
