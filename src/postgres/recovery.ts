import { HoldfastError } from '../core/errors.ts';

/** Where a recovery stops. */
export type RecoveryTarget =
  /** As soon as the copy is consistent: at the end of the base backup. */
  | { readonly kind: 'backup' }
  /** Before the first transaction that ended after this moment, RFC 3339 in UTC with microseconds. */
  | { readonly kind: 'time'; readonly at: string }
  /** After the record that begins here, or at the first one behind. */
  | { readonly kind: 'lsn'; readonly lsn: string }
  /** At the point that pg_create_restore_point made. */
  | { readonly kind: 'name'; readonly name: string };

/** Settings of an earlier life that would lead a copy astray: into another recovery, or to another server. */
const REMOVED =
  /^\s*(restore_command|recovery_\w+|archive_cleanup_command|primary_conninfo|primary_slot_name|promote_trigger_file|archive_mode)\s*=?/i;

/**
 * Gives the settings of a recovery: always a target, so that a missing segment is an error and not a silent loss. They go
 * on the command line of the server that recovers, so that the recovered directory keeps nothing of them.
 */
export function recoverySettings(
  target: RecoveryTarget,
  timeline: number,
  restoreCommand: string,
): Readonly<Record<string, string>> {
  const [name, value] = targetSetting(target);
  return {
    restore_command: restoreCommand,
    [name]: value,
    recovery_target_inclusive: 'on',
    recovery_target_action: 'promote',
    recovery_target_timeline: String(timeline),
    // Queries while it recovers would make it wait for settings of the source; nobody asks any.
    hot_standby: 'off',
    shared_buffers: '128MB',
  };
}

function targetSetting(target: RecoveryTarget): readonly [string, string] {
  switch (target.kind) {
    case 'backup':
      return ['recovery_target', 'immediate'];
    case 'time':
      return ['recovery_target_time', target.at.replace('T', ' ').replace('Z', '+00')];
    case 'lsn':
      return ['recovery_target_lsn', target.lsn];
    case 'name':
      return ['recovery_target_name', target.name];
  }
}

/** Gives postgresql.auto.conf as a recovered copy keeps it: nothing of recoveries, and archiving off until somebody wants it. */
export function settledSettings(before: string): string {
  const kept = before.split('\n').filter((line) => line.trim() !== '' && !REMOVED.test(line));
  return `${[...kept, "archive_mode = 'off'"].join('\n')}\n`;
}

/** What PostgreSQL wrote about a recovery, as far as it helps. */
export interface RecoveryLog {
  readonly redo_done: string | undefined;
  readonly last_transaction_at: string | undefined;
  readonly problem:
    | 'not_reached'
    | 'before_consistency'
    | 'no_such_timeline'
    | 'full'
    | 'unknown_extension'
    | undefined;
}

/** Reads what PostgreSQL wrote; its words are those of LC_ALL=C. */
export function readRecoveryLog(text: string): RecoveryLog {
  const ended = /last completed transaction was at log time (\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d+))?\+00/g;
  const [, day, time, fraction = ''] = [...text.matchAll(ended)].at(-1) ?? [];
  const redo = [...text.matchAll(/redo done at ([0-9A-F]+\/[0-9A-F]+)/g)].at(-1)?.[1];
  const problems: readonly (readonly [RegExp, RecoveryLog['problem']])[] = [
    [/recovery ended before configured recovery target was reached/, 'not_reached'],
    [/requested recovery stop point is before consistent recovery point/, 'before_consistency'],
    [/recovery target timeline \d+ does not exist|requested timeline \d+ (is not|does not)/, 'no_such_timeline'],
    [/No space left on device/, 'full'],
    [/resource manager with ID \d+ not registered/, 'unknown_extension'],
  ];
  return {
    redo_done: redo,
    last_transaction_at: day === undefined ? undefined : `${day}T${time}.${fraction.padEnd(6, '0')}Z`,
    problem: problems.find(([pattern]) => pattern.test(text))?.[1],
  };
}

/** Says what the end of a recovery that was not promoted means, with what was reached. */
export function recoveryFailure(target: RecoveryTarget, text: string): HoldfastError {
  const log = readRecoveryLog(text);
  const cause = new Error(text.slice(-8000));
  const details = {
    ...(log.redo_done === undefined ? {} : { reached_lsn: log.redo_done }),
    ...(log.last_transaction_at === undefined ? {} : { reached_at: log.last_transaction_at }),
  };
  const made = (code: HoldfastError['code'], message: string, hint: string): HoldfastError =>
    new HoldfastError(code, message, { hint, details, cause, retryable: false });
  switch (log.problem) {
    case 'not_reached':
      return target.kind === 'name'
        ? made(
            'INVALID_PARAMETER',
            'the archive has no such restore point after this backup',
            'Restore points are named by pg_create_restore_point. Use restore_timestamp or lsn instead. The live server was not touched.',
          )
        : made(
            'INTEGRITY_FAILED',
            'the write-ahead log of the archive ended before the target was reached',
            'Nothing was promoted and the live server was not touched. details say what was reached: ask for that, or archive what is missing first.',
          );
    case 'before_consistency':
      return made(
        'INVALID_PARAMETER',
        'the target lies before the end of the base backup',
        'Use an older backup: leave snapshot_id out and the right one is chosen.',
      );
    case 'no_such_timeline':
      return made(
        'INVALID_PARAMETER',
        'this backup is not on the way to that timeline',
        'Leave timeline out, or name the one that list of the archive shows.',
      );
    case 'full':
      return made(
        'QUOTA_EXCEEDED',
        'the disk was full during the recovery',
        'Free space, or choose a target_directory elsewhere.',
      );
    case 'unknown_extension':
      return made(
        'NOT_SUPPORTED',
        'the write-ahead log holds records of an extension that must be preloaded',
        'Recover by hand with the shared_preload_libraries of the source; describe-snapshot prints how.',
      );
    default:
      return made(
        'INVALID_STATE',
        'PostgreSQL stopped during the recovery',
        'The log of Holdfast has what it wrote. The live server was not touched.',
      );
  }
}
