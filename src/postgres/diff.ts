import { isSecretName } from '../core/secret-name.ts';
import { cleanText } from '../core/text.ts';
import type { Inventory, TableEntry } from './inventory.ts';
import { type DatabaseSettings, settingStatements } from './settings.ts';
import { ident } from './sql.ts';

/** How many tables, sequences and lines are shown; all are counted. */
const MOST_TABLES = 50;
const MOST_SEQUENCES = 20;
const MOST_LINES = 80;
const LINE_LENGTH = 200;
/** Lines that may differ before the order of lines is no longer looked at: the exact way costs their square. */
const MOST_EDITS = 1500;

/** What a table of a backup is on the other side. */
export const VERDICTS = [
  'same',
  'same_count',
  'rows_differ',
  'content_differs',
  'only_in_backup',
  'only_in_other',
] as const;
export type Verdict = (typeof VERDICTS)[number];

export interface TableDifference {
  readonly table: string;
  readonly verdict: Verdict;
  /** Rows; text, since they may be more than a number holds. */
  readonly in_backup?: string;
  readonly in_other?: string;
}

export interface LineDifference {
  readonly only_in_backup: number;
  readonly only_in_other: number;
  /** `-` stands before what only the backup has, `+` before what only the other side has, `@` before where it is. */
  readonly lines: readonly string[];
}

export interface StateDifference {
  readonly identical: boolean;
  readonly tables: Readonly<Record<Verdict, number>>;
  readonly table_differences: readonly TableDifference[];
  readonly sequences_differ: number;
  readonly sequence_differences: readonly { sequence: string; in_backup: string; in_other: string }[];
  readonly large_objects: { readonly in_backup: string; readonly in_other: string };
  readonly schema: LineDifference;
  /** Owners, grants and the settings of the database. */
  readonly access: LineDifference;
  /** How much of it is shown. */
  readonly omitted: number;
}

export interface DiffOptions {
  /** Row hashes mean the same on both sides. */
  readonly content: boolean;
  /** The text of the schema was written by the same major version of pg_dump. */
  readonly text: boolean;
}

/** Holds the inventory of a backup against that of another moment: the live database, or another backup. */
export function diffInventories(backup: Inventory, other: Inventory, options: DiffOptions): StateDifference {
  const tables = diffTables(backup.tables, other.tables, options.content);
  const counts = Object.fromEntries(
    VERDICTS.map((verdict) => [verdict, tables.filter((table) => table.verdict === verdict).length]),
  ) as Record<Verdict, number>;
  const differing = tables.filter(({ verdict }) => verdict !== 'same' && verdict !== 'same_count');
  const sequences = diffSequences(backup.sequences, other.sequences);
  const schema = options.text
    ? diffLines(backup.schema_text.split('\n'), other.schema_text.split('\n'))
    : // Two versions of pg_dump write the same schema in other words; the catalogue does not.
      diffLines(backup.objects.toSorted(), other.objects.toSorted());
  const access = diffLines(
    [...(options.text ? backup.access_text.split('\n') : []), ...settingLines(backup.settings)],
    [...(options.text ? other.access_text.split('\n') : []), ...settingLines(other.settings)],
  );
  const shown = { tables: differing.slice(0, MOST_TABLES), sequences: sequences.slice(0, MOST_SEQUENCES) };
  return {
    identical:
      differing.length === 0 &&
      sequences.length === 0 &&
      backup.large_objects === other.large_objects &&
      [schema, access].every(({ only_in_backup, only_in_other }) => only_in_backup + only_in_other === 0),
    tables: counts,
    table_differences: shown.tables,
    sequences_differ: sequences.length,
    sequence_differences: shown.sequences,
    large_objects: { in_backup: backup.large_objects, in_other: other.large_objects },
    schema: bounded(schema),
    access: bounded(access),
    omitted:
      differing.length -
      shown.tables.length +
      (sequences.length - shown.sequences.length) +
      [schema, access].reduce((sum, { lines }) => sum + Math.max(0, lines.length - MOST_LINES), 0),
  };
}

const ORDER: readonly Verdict[] = ['only_in_backup', 'rows_differ', 'content_differs', 'only_in_other'];

/** Every table of both sides; what was lost first, then by how many rows. */
function diffTables(backup: readonly TableEntry[], other: readonly TableEntry[], content: boolean): TableDifference[] {
  const keyOf = ({ schema, name }: TableEntry): string => JSON.stringify([schema, name]);
  const others = new Map(other.map((table) => [keyOf(table), table]));
  const known = new Set(backup.map(keyOf));
  const all = backup.map((table): TableDifference => {
    const found = others.get(keyOf(table));
    const named = { table: nameOf(table), in_backup: table.rows };
    if (found === undefined) return { ...named, verdict: 'only_in_backup' };
    const both = { ...named, in_other: found.rows };
    if (found.rows !== table.rows) return { ...both, verdict: 'rows_differ' };
    if (!content || table.hash === null || found.hash === null) return { ...both, verdict: 'same_count' };
    return { ...both, verdict: table.hash === found.hash ? 'same' : 'content_differs' };
  });
  const added = other
    .filter((table) => !known.has(keyOf(table)))
    .map((table): TableDifference => ({ table: nameOf(table), verdict: 'only_in_other', in_other: table.rows }));
  const size = ({ in_backup = '0', in_other = '0' }: TableDifference): bigint => {
    const difference = BigInt(in_backup) - BigInt(in_other);
    return difference < 0n ? -difference : difference;
  };
  return [...all, ...added].sort((a, b) => {
    const kind = ORDER.indexOf(a.verdict) - ORDER.indexOf(b.verdict);
    return kind || (size(b) > size(a) ? 1 : size(b) < size(a) ? -1 : 0);
  });
}

function nameOf({ schema, name }: TableEntry): string {
  return cleanText(`${schema}.${name}`, 130);
}

function diffSequences(backup: Inventory['sequences'], other: Inventory['sequences']) {
  const lastOf = (found: Inventory['sequences'][number] | undefined): string =>
    found === undefined ? 'absent' : (found.last_value ?? 'not used');
  const left = new Map(backup.map((sequence) => [sequence.name, sequence]));
  const right = new Map(other.map((sequence) => [sequence.name, sequence]));
  return [...new Set([...left.keys(), ...right.keys()])]
    .map((name) => ({
      sequence: cleanText(name, 130),
      in_backup: lastOf(left.get(name)),
      in_other: lastOf(right.get(name)),
    }))
    .filter(({ in_backup, in_other }) => in_backup !== in_other);
}

/** Writes what belongs to a database but is in no dump, a line each, without the name of the database. */
function settingLines(settings: DatabaseSettings): string[] {
  return [`ALTER DATABASE "…" OWNER TO ${ident(settings.owner)}`, ...settingStatements('…', settings).toSorted()];
}

function bounded(difference: LineDifference): LineDifference {
  return { ...difference, lines: difference.lines.slice(0, MOST_LINES) };
}

/**
 * Finds which lines each side has alone, in their order where they are not too many. Secrets that a schema may hold
 * (passwords of user mappings and subscriptions, settings named like one) are compared, never shown.
 */
export function diffLines(left: readonly string[], right: readonly string[]): LineDifference {
  let start = 0;
  while (start < left.length && start < right.length && left[start] === right[start]) start += 1;
  let tail = 0;
  while (
    tail < left.length - start &&
    tail < right.length - start &&
    left[left.length - 1 - tail] === right[right.length - 1 - tail]
  )
    tail += 1;
  const a = left.slice(start, left.length - tail);
  const b = right.slice(start, right.length - tail);
  const edits = shortestEdits(a, b) ?? unorderedEdits(a, b);
  const lines: string[] = [];
  let where = '';
  for (const { side, index } of edits) {
    const all = side === 'left' ? left : right;
    const at = start + index;
    const text = all[at] ?? '';
    const head = headOf(all, at);
    if (head !== where && head !== text) lines.push(`@ ${shown(head)}`);
    where = head;
    lines.push(`${side === 'left' ? '-' : '+'} ${shown(maskSecrets(text))}`);
  }
  return {
    only_in_backup: edits.filter(({ side }) => side === 'left').length,
    only_in_other: edits.filter(({ side }) => side === 'right').length,
    lines,
  };
}

const shown = (line: string): string => cleanText(line, LINE_LENGTH);

/** The statement that a line stands in. */
function headOf(lines: readonly string[], at: number): string {
  for (let index = at; index >= 0 && index > at - 500; index -= 1) {
    const line = lines[index]!;
    if (/^(CREATE|ALTER|COMMENT|GRANT|REVOKE|SELECT|SECURITY|IMPORT) /.test(line)) return maskSecrets(line);
  }
  return '';
}

const HIDDEN = "'***'";

const TEXT = "E?'(?:[^'\\\\]|''|\\\\.)*'";
/** `"app"."secret" TO 'x'`, `"password" 'x'`, `token = 'x'` */
const NAMED_TEXT = new RegExp(`([\\w.$"-]+)(\\s+TO\\s+|\\s*=\\s*|\\s+)${TEXT}`, 'gi');
/** `password=x`, in a connection string. */
const NAMED_WORD = /([\w.-]+)(\s*=\s*)[^\s'",;)]+/g;

/** Takes out of a line of a schema what could be a secret: values with a name of one, and whole connection strings. */
export function maskSecrets(line: string): string {
  const mask =
    (hidden: string) =>
    (all: string, name: string, between: string): string =>
      name.split(/[."]+/).some(isSecretName) ? `${name}${between}${hidden}` : all;
  return line
    .replace(new RegExp(`(\\bCONNECTION\\s+)${TEXT}`, 'i'), `$1${HIDDEN}`)
    .replace(NAMED_TEXT, mask(HIDDEN))
    .replace(NAMED_WORD, mask('***'));
}

interface Edit {
  readonly side: 'left' | 'right';
  readonly index: number;
}

/** The fewest lines to take out and put in, in order; undefined where they are too many. @see Myers, An O(ND) Difference Algorithm */
function shortestEdits(a: readonly string[], b: readonly string[]): Edit[] | undefined {
  const most = Math.min(a.length + b.length, MOST_EDITS);
  // ends[d][k + d] is how far the path of d edits on diagonal k comes in `a`.
  const ends: Int32Array[] = [];
  for (let d = 0; d <= most; d += 1) {
    const here = new Int32Array(2 * d + 1);
    const before = ends[d - 1];
    for (let k = -d; k <= d; k += 2) {
      let x = 0;
      if (before !== undefined) {
        const down = k < d ? (before[k + d] ?? -1) : -1;
        const across = k > -d ? (before[k + d - 2] ?? -1) : -1;
        x = k === -d || (k !== d && across < down) ? down : across + 1;
      }
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x += 1;
      here[k + d] = x;
      if (x >= a.length && x - k >= b.length) {
        ends.push(here);
        return wayBack(ends, a.length, b.length);
      }
    }
    ends.push(here);
  }
  return undefined;
}

function wayBack(ends: readonly Int32Array[], endX: number, endY: number): Edit[] {
  const edits: Edit[] = [];
  let x = endX;
  let y = endY;
  for (let d = ends.length - 1; d > 0; d -= 1) {
    const before = ends[d - 1]!;
    const k = x - y;
    const down = k < d ? (before[k + d] ?? -1) : -1;
    const across = k > -d ? (before[k + d - 2] ?? -1) : -1;
    const isDown = k === -d || (k !== d && across < down);
    x = isDown ? down : across;
    y = x - (isDown ? k + 1 : k - 1);
    edits.push(isDown ? { side: 'right', index: y } : { side: 'left', index: x });
  }
  return edits.reverse();
}

/** Which lines one side has more often than the other, whatever their order. */
function unorderedEdits(a: readonly string[], b: readonly string[]): Edit[] {
  const surplus = (own: readonly string[], other: readonly string[], side: Edit['side']): Edit[] => {
    const counts = new Map<string, number>();
    for (const line of other) counts.set(line, (counts.get(line) ?? 0) + 1);
    return own.flatMap((line, index) => {
      const count = counts.get(line) ?? 0;
      counts.set(line, count - 1);
      return count > 0 ? [] : [{ side, index }];
    });
  };
  return [...surplus(a, b, 'left'), ...surplus(b, a, 'right')];
}
