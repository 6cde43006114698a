import { asHoldfastError, type ErrorCode, HoldfastError, isAbort } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Recovery } from '../../core/operation.ts';
import type { Plan, PlanDraft } from '../../core/plan.ts';
import { cleanText } from '../../core/text.ts';
import { formatBytes } from '../../core/time.ts';
import { withSession } from '../../postgres/connection.ts';
import { BACKUP_LOCK } from '../../postgres/dump.ts';
import type { Manifest } from '../../postgres/manifest.ts';
import { type Backup, eachOf, type Repository } from '../../postgres/repository.ts';
import {
  DEFAULT_RETENTION,
  type Fate,
  isSpent,
  planRetention,
  type RetentionPlan,
  type RetentionPolicy,
  UNFINISHED_FOR_MS,
} from '../../postgres/retention.ts';
import { type ArchivedFile, WalArchive } from '../../postgres/wal-archive.ts';
import type { Host, OwnStep, Scope } from './entity.ts';

/** How many backups a plan or a result names; it counts them all. */
const MOST_NAMED = 50;

/** After these the storage would refuse or miss every other deletion too. */
const STOPPING: readonly ErrorCode[] = ['AUTHENTICATION_FAILED', 'PROVIDER_UNAVAILABLE', 'TIMEOUT', 'RATE_LIMITED'];

interface Decision {
  readonly plan: RetentionPlan;
  readonly gone: readonly Fate[];
  readonly kept: readonly Fate[];
  readonly wal: readonly ArchivedFile[];
  readonly policy: RetentionPolicy;
  readonly warnings: readonly string[];
}

/** What a prune could not delete, and why. */
interface Remaining extends JsonObject {
  what: string;
  code: string;
  message: string;
}

/** Removes what retention has given up, and keeps what somebody holds. */
export class Retention {
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  /** What the entity declares, with the defaults for what it leaves out. */
  policy(): RetentionPolicy {
    const declared = Object.entries(this.#host.entity.retention ?? {}).filter(([, value]) => value !== undefined);
    return { ...DEFAULT_RETENTION, ...Object.fromEntries(declared) };
  }

  async #decide(scope: Scope): Promise<Decision> {
    const { runtime } = this.#host;
    const repository = this.#host.repository();
    const now = runtime.now();
    const policy = this.policy();
    const catalogue = await repository.catalogue();
    const warnings: string[] = [];
    const old = catalogue.unfinished.filter(
      ({ active_at }) => now.getTime() - active_at.getTime() >= UNFINISHED_FOR_MS,
    );
    // A dump of days to a storage that shows nothing of it until the end looks like one that died.
    const isFree = old.length === 0 || (await noBackupRuns(this.#host, scope.signal));
    if (!isFree) {
      warnings.push(
        `${old.length} unfinished backups are left alone: one is running, or the server does not say that none is.`,
      );
    }
    const plan = planRetention({
      ...catalogue,
      unfinished: isFree ? catalogue.unfinished : [],
      policy,
      now,
      inUse: await repository.inUse(now),
    });
    const wal: ArchivedFile[] = [];
    if (plan.wal !== undefined) {
      // Of history and backup files the first are never spent, and the second weigh nothing.
      for await (const archived of new WalArchive(repository, runtime).list()) {
        const { file } = archived;
        if ((file.kind === 'segment' || file.kind === 'partial') && isSpent(plan.wal, file.segment)) wal.push(archived);
      }
    }
    const { max_bytes } = this.#host.entity.retention ?? {};
    const stored = sum(plan.fates.map(({ backup }) => bytesOf(backup.manifest)));
    if (max_bytes !== undefined && stored > max_bytes) {
      warnings.push(
        `The backups take ${formatBytes(stored)}, more than max_bytes (${formatBytes(max_bytes)}); nothing is deleted for that.`,
      );
    }
    return {
      plan,
      gone: plan.fates.filter(({ keep }) => !keep),
      kept: plan.fates.filter(({ keep }) => keep),
      wal,
      policy,
      warnings: [...warnings, ...plan.warnings],
    };
  }

  // --- prune-snapshots -----------------------------------------------------------------------------------------------

  /** The dry run: what goes, what stays, and why. */
  async plan(scope: Scope, input: { plan_hash?: string | undefined }): Promise<PlanDraft> {
    const { entity } = this.#host;
    const { plan, gone, kept, wal, policy, warnings } = await this.#decide(scope);
    if (input.plan_hash !== undefined && input.plan_hash !== plan.hash) throw changed(plan.hash);
    const removes = gone.length + plan.unfinished.length + wal.length > 0;
    const undeclared = removes && entity.retention === undefined;
    const newest = kept[0]?.backup.manifest;
    return {
      target: entity.key,
      risk: removes && (plan.sweeping || undeclared) ? 'delete' : 'change',
      loses: describeLoss(gone, plan, wal),
      blast_radius: {
        backups: plan.fates.length,
        delete: gone.length,
        delete_bytes: sum(gone.map(({ backup }) => bytesOf(backup.manifest))),
        keep: kept.length,
        unfinished: plan.unfinished.length,
        wal_segments: wal.length,
        wal_bytes: sum(wal.map(({ object }) => object.size_bytes)),
        plan_hash: plan.hash,
        deleting: gone.slice(0, MOST_NAMED).map(describeFate),
        keeping: kept.slice(0, MOST_NAMED).map(describeFate),
      },
      ...(newest === undefined ? {} : { newest_recovery_point: { id: newest.id, at: newest.snapshot_at } }),
      undo: removes ? 'none: the files are removed' : 'not needed',
      alternatives: gone.slice(0, 1).map(({ backup }) => ({
        title: 'Hold a backup that should stay',
        risk: 'change' as const,
        call: { action: 'hold-snapshot', input: { snapshot_id: backup.manifest.id, reason: 'why it should stay' } },
      })),
      warnings: [
        ...(undeclared
          ? ['The entity declares no retention, so the usual one applies, and only with a confirmation.']
          : []),
        ...(plan.sweeping ? ['More than half of the backups, or all but one, would go.'] : []),
        ...(plan.fates.length > MOST_NAMED
          ? [`Only ${MOST_NAMED} of each list are named; the counts are of all.`]
          : []),
        ...warnings,
      ],
      facts: { target: { source_id: this.#host.repository().sourceId, plan_hash: plan.hash }, context: { ...policy } },
    };
  }

  /** The one step of prune-snapshots. Deletes one by one, the newest first, so that nothing is left that rests on what is gone. */
  async prune(step: OwnStep, plan: Plan): Promise<JsonObject> {
    const decision = await this.#decide(step);
    const begun = step.handle;
    // What an interrupted run has deleted changes the set; it goes on with what it set out to do, and with nothing else.
    if (begun === undefined && decision.plan.hash !== plan.facts.target['plan_hash']) throw changed(decision.plan.hash);
    const mine = begun === undefined ? undefined : new Set(begun['snapshots'] as string[]);
    const gone = decision.gone.filter(({ backup }) => mine?.has(backup.manifest.id) ?? true);
    const there = new Set(decision.plan.fates.map(({ backup }) => backup.manifest.id));
    const before = [...(mine ?? [])].filter((id) => !there.has(id));
    if (begun === undefined) {
      await step.checkpoint({
        snapshots: gone.map(({ backup }) => backup.manifest.id),
        freed_bytes: sum(gone.map(({ backup }) => bytesOf(backup.manifest))),
        kept: decision.kept.length,
      });
    }
    this.#host.runtime.assertMayWrite('deleting backups');
    const remaining: Remaining[] = [];
    const now = await this.#removeAll(
      step,
      gone.map(({ backup }) => backup.manifest.id),
      remaining,
    );
    const deleted = [...before, ...now];
    const unfinished = await this.#removeAll(
      step,
      decision.plan.unfinished.map(({ id }) => id),
      remaining,
    );
    const removed = new Set(now);
    let freed = sum(gone.map(({ backup: { manifest } }) => (removed.has(manifest.id) ? bytesOf(manifest) : 0)));
    let segments = 0;
    if (!remaining.some(({ code }) => STOPPING.includes(code as ErrorCode))) {
      step.progress({ message: `Deleting ${decision.wal.length} segments of the write-ahead log` });
      const archive = new WalArchive(this.#host.repository(), this.#host.runtime);
      const faults: unknown[] = [];
      await eachOf(decision.wal, async ({ file, object }) => {
        step.signal.throwIfAborted();
        try {
          await archive.remove(file.name);
          segments += 1;
          freed += object.size_bytes;
        } catch (cause) {
          faults.push(cause);
        }
      });
      if (faults.length > 0) {
        const { code, message } = asHoldfastError(faults[0]);
        remaining.push({ what: `${faults.length} segments of the write-ahead log`, code, message });
      }
    }
    const result = {
      deleted: deleted.slice(0, MOST_NAMED),
      deleted_count: deleted.length,
      kept_count: decision.plan.fates.length - now.length,
      unfinished_removed: unfinished.length,
      wal_segments_removed: segments,
      // What an interrupted run had freed is not known one by one; all of it is, once nothing remains.
      freed_bytes: begun !== undefined && remaining.length === 0 ? Number(begun['freed_bytes']) : freed,
    };
    if (remaining[0]) throw incomplete(result, remaining);
    return result;
  }

  async #removeAll(step: OwnStep, ids: readonly string[], remaining: Remaining[]): Promise<string[]> {
    const repository = this.#host.repository();
    const deleted: string[] = [];
    for (const [index, id] of ids.entries()) {
      step.signal.throwIfAborted();
      step.progress({ percent: Math.floor((index / ids.length) * 100), message: `Deleting ${id}` });
      const last = remaining.at(-1);
      if (last !== undefined && STOPPING.includes(last.code as ErrorCode)) {
        remaining.push({ ...last, what: id });
        continue;
      }
      try {
        // Somebody may have begun to restore it, or have put it on hold, while others were deleted.
        if ((await repository.inUse(this.#host.runtime.now(), id)).has(id)) throw busy('is being restored or verified');
        if ((await repository.findHold(id)) !== undefined) throw busy('has been put on hold');
        await repository.remove(id);
        deleted.push(id);
      } catch (cause) {
        if (isAbort(cause)) throw cause;
        const { code, message } = asHoldfastError(cause);
        if (code === 'CANCELLED') throw cause;
        remaining.push({ what: id, code, message });
      }
    }
    return deleted;
  }

  /** Finishes what was half deleted when the process died, and says how far it had come. */
  async recover(step: OwnStep): Promise<Recovery> {
    if (step.handle === undefined) return { state: 'not_begun' };
    const repository = this.#host.repository();
    const ids = step.handle['snapshots'] as string[];
    const { backups, unfinished, unreadable } = await repository.catalogue();
    const whole = new Set([...backups.map(({ manifest }) => manifest.id), ...unreadable]);
    const left = ids.filter((id) => whole.has(id));
    const halves = unfinished.filter(({ id }) => ids.includes(id));
    if (halves.length > 0) this.#host.runtime.assertMayWrite('deleting what is left of deleted backups');
    for (const { id } of halves) await repository.remove(id);
    if (left.length > 0 || ids.length === 0) {
      return { state: 'not_begun', message: `${ids.length - left.length} of ${ids.length} backups were deleted` };
    }
    return {
      state: 'done',
      result: {
        deleted: ids.slice(0, MOST_NAMED),
        deleted_count: ids.length,
        kept_count: Number(step.handle['kept']),
        unfinished_removed: 0,
        wal_segments_removed: 0,
        freed_bytes: Number(step.handle['freed_bytes']),
      },
    };
  }

  // --- holds ---------------------------------------------------------------------------------------------------------

  /**
   * Puts a backup on hold.
   * @throws {HoldfastError} RESOURCE_EXISTS where it is held, with who holds it and why
   */
  async hold(id: string, reason: string, by: string | undefined): Promise<JsonObject> {
    const { runtime } = this.#host;
    const repository = this.#host.repository();
    const { manifest, hold } = await repository.get(id);
    if (hold) throw alreadyHeld(hold);
    runtime.assertMayWrite('putting a backup on hold');
    const made = {
      schema: 'holdfast.pg.hold/1' as const,
      backup_id: manifest.id,
      reason: cleanText(reason, 300),
      ...(by === undefined ? {} : { by: cleanText(by, 100) }),
      held_at: runtime.now().toISOString(),
    };
    await repository.hold(made).catch((cause) => {
      throw cause instanceof HoldfastError && cause.code === 'RESOURCE_EXISTS' ? alreadyHeld(undefined) : cause;
    });
    return { snapshot_id: id, held: true, held_at: made.held_at, reason: made.reason };
  }

  /** What releasing a backup would mean for it. */
  async planRelease(id: string): Promise<PlanDraft> {
    const repository = this.#host.repository();
    const hold = await repository.findHold(id);
    if (hold === undefined) {
      await repository.get(id);
      throw new HoldfastError('INVALID_STATE', `the backup ${cleanText(id, 60)} is not held`, { retryable: false });
    }
    const catalogue = await repository.catalogue();
    const after = this.#released(catalogue.backups, id);
    return {
      target: id,
      risk: 'weaken',
      loses: `its hold: ${cleanText(hold.reason, 200)}`,
      blast_radius: {
        held_at: hold.held_at,
        held_by: cleanText(hold.by ?? 'unknown', 100),
        ...(after === undefined
          ? {}
          : { next_prune: after.keep ? 'keeps it' : 'deletes it', because: [...after.reasons] }),
      },
      undo: 'hold-snapshot, as long as no prune has deleted it',
      unknowns: after === undefined ? ['whether the next prune would delete it'] : [],
      facts: { target: { snapshot_id: id, held_at: hold.held_at, reason: cleanText(hold.reason, 300) } },
    };
  }

  /** What the next prune would do with a backup that is held now; undefined where that cannot be told. */
  #released(backups: readonly Backup[], id: string): Fate | undefined {
    try {
      const { fates } = planRetention({
        backups: backups.map((backup) => (backup.manifest.id === id ? { ...backup, hold: undefined } : backup)),
        unfinished: [],
        unreadable: [],
        policy: this.policy(),
        now: this.#host.runtime.now(),
        inUse: new Set(),
      });
      return fates.find(({ backup }) => backup.manifest.id === id);
    } catch {
      return undefined;
    }
  }

  /** Releases a backup from its hold. Idempotent. */
  async release(id: string): Promise<JsonObject> {
    this.#host.runtime.assertMayWrite('releasing a backup');
    await this.#host.repository().release(id);
    return { snapshot_id: id, held: false };
  }
}

/**
 * Makes sure that a person's wish to delete a backup breaks nothing else.
 * @throws {HoldfastError} INVALID_STATE while it is held or others rest on it
 */
export async function assertDeletable(repository: Repository, id: string, all: readonly Backup[]): Promise<void> {
  const hold = await repository.findHold(id);
  if (hold) {
    throw new HoldfastError('INVALID_STATE', `the backup ${id} is held: ${cleanText(hold.reason, 200)}`, {
      retryable: false,
      hint: `Nothing was deleted. It was held ${hold.held_at}${hold.by === undefined ? '' : ` by ${cleanText(hold.by, 100)}`}; release-snapshot ends that.`,
    });
  }
  const children = all.filter(({ manifest }) => manifest.kind === 'physical' && manifest.parent_id === id);
  if (children.length === 0) return;
  const names = children.slice(0, 5).map(({ manifest }) => manifest.id);
  throw new HoldfastError('INVALID_STATE', `${children.length} incremental backups rest on ${id}`, {
    retryable: false,
    hint: `Nothing was deleted. Without it they cannot be restored; delete them first: ${names.join(', ')}.`,
  });
}

/** Tells whether it is certain that no backup of this source is being written. */
export async function noBackupRuns(host: Host, signal: AbortSignal): Promise<boolean> {
  try {
    return await withSession(await host.connection(), signal, async (session) => {
      // Such a lock belongs to the database that it was taken in; a safety backup may be of another one.
      const [row] = await session.query<{ free: boolean }>(
        `SELECT NOT EXISTS (SELECT FROM pg_locks l, hashtextextended($1, 0) AS k(v) WHERE l.locktype = 'advisory' AND l.granted
           AND l.objsubid = 1 AND (l.classid::int8 << 32 | l.objid::int8) = k.v) AS free`,
        [`${BACKUP_LOCK}${host.repository().sourceId}`],
      );
      return row?.free === true;
    });
  } catch {
    return false;
  }
}

function describeLoss(gone: readonly Fate[], plan: RetentionPlan, wal: readonly ArchivedFile[]): string {
  const parts: string[] = [];
  if (gone.length > 0) {
    const moments = gone.map(({ backup }) => backup.manifest.snapshot_at).sort();
    parts.push(
      `${gone.length} of ${plan.fates.length} backups, of moments from ${moments[0]} to ${moments.at(-1)}, that no rule of retention keeps`,
    );
  }
  if (plan.unfinished.length > 0) parts.push(`the remains of ${plan.unfinished.length} backups that never finished`);
  if (wal.length > 0) parts.push(`${wal.length} segments of the write-ahead log that no backup needs`);
  return parts.length === 0 ? 'nothing: no backup is past its retention' : parts.join('; ');
}

function describeFate({ backup: { manifest }, reasons }: Fate): JsonObject {
  return {
    snapshot_id: manifest.id,
    data_at: manifest.snapshot_at,
    size_bytes: bytesOf(manifest),
    reasons: reasons.map((reason) => cleanText(reason, 120)).slice(0, 8),
  };
}

function bytesOf({ payload }: Manifest): number {
  return sum(payload.map(({ bytes }) => bytes));
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);

function changed(hash: string): HoldfastError {
  return new HoldfastError('PLAN_CHANGED', 'what a prune would delete is not what the plan says any more', {
    hint: 'Nothing was deleted. Look at a new plan (dry run) and call again.',
    details: { plan_hash: hash },
  });
}

function busy(what: string): HoldfastError {
  return new HoldfastError('INVALID_STATE', `it ${what}`);
}

function alreadyHeld(hold: { reason: string; held_at: string; by?: string | undefined } | undefined): HoldfastError {
  const details = hold && {
    reason: cleanText(hold.reason, 300),
    held_at: hold.held_at,
    ...(hold.by === undefined ? {} : { by: cleanText(hold.by, 100) }),
  };
  return new HoldfastError('RESOURCE_EXISTS', 'this backup is held already', {
    hint: 'It is safe from deletion as it is. To change the reason release it first.',
    ...(details === undefined ? {} : { details }),
  });
}

function incomplete(result: JsonObject, remaining: readonly Remaining[]): HoldfastError {
  const [first] = remaining;
  const code = first!.code as ErrorCode;
  return new HoldfastError(
    code,
    `${result['deleted_count']} backups were deleted; ${remaining.length} deletions failed, the first with: ${first!.message}`,
    {
      hint:
        code === 'INSUFFICIENT_PERMISSIONS'
          ? 'Let the credential of the storage delete objects, or wait for the end of their object lock; the next prune tries again.'
          : 'The next prune tries again.',
      details: { ...result, remaining: remaining.slice(0, MOST_NAMED) as unknown as JsonObject[] },
    },
  );
}
