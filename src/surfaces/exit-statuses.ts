import { ERROR_CODES, type ErrorCode } from '../core/errors.ts';

/** Exit statuses that belong to no error code. */
export const EXIT = {
  ok: 0,
  /** An operation ended as failed and gave no code of ours. */
  failed: 1,
  usage: 2,
  /** An operation ended and nobody can say how. */
  unknown: 3,
  interrupted: 130,
  terminated: 143,
} as const;

const OWN_STATUSES: readonly (readonly [number, string])[] = [
  [EXIT.ok, 'done; with work that outlives the call: begun, and its id is printed'],
  [EXIT.failed, 'the operation failed without a code of its own'],
  [EXIT.usage, 'wrong command, option or parameter (INVALID_PARAMETER)'],
  [EXIT.unknown, 'the operation ended and nobody can say how: look at the provider'],
  [EXIT.interrupted, 'Ctrl-C; what was begun goes on and its id is printed'],
  [EXIT.terminated, 'SIGTERM, likewise'],
];

/** Lists every exit status with what it means; the error codes come from their one table. */
export function exitStatuses(): { exit: number; meaning: string; codes: ErrorCode[] }[] {
  const rows = new Map(
    OWN_STATUSES.map(([exit, meaning]) => [exit, { exit, meaning, codes: [] as ErrorCode[] }] as const),
  );
  for (const [code, row] of Object.entries(ERROR_CODES) as [ErrorCode, (typeof ERROR_CODES)[ErrorCode]][]) {
    const known = rows.get(row.exit);
    if (known === undefined) rows.set(row.exit, { exit: row.exit, meaning: row.hint, codes: [code] });
    else known.codes.push(code);
  }
  return [...rows.values()].sort((a, b) => a.exit - b.exit);
}
