import { z } from 'zod';
import { HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/json.ts';
import { cleanText } from '../core/text.ts';
import { type ChildOptions, runChild } from './child.ts';
import type { Session } from './connection.ts';
import { damaged } from './errors.ts';
import { USER_RELATION } from './server.ts';
import { type DatabaseSettings, readSettings } from './settings.ts';
import { ident } from './sql.ts';

/** Sum of 64-bit hashes of the rows as text, columns by name: independent of row order, duplicates counted. */
export const FINGERPRINT_ALGORITHM = 'count+sum(hashtextextended(row))/1';

const TableEntry = z.object({
  schema: z.string(),
  name: z.string(),
  rows: z.string().regex(/^\d+$/),
  /** Null where only the rows were counted. */
  hash: z
    .string()
    .regex(/^-?\d+$/)
    .nullable(),
});
export type TableEntry = z.infer<typeof TableEntry>;

/** What a database held at one moment; encrypted beside the dump, and compared with what a restore brings back. */
export const Inventory = z.object({
  schema: z.literal('holdfast.pg.inventory/1'),
  server_major: z.number().int(),
  tables: z.array(TableEntry),
  sequences: z.array(
    z.object({ name: z.string(), last_value: z.string().nullable(), ascending: z.boolean(), cycles: z.boolean() }),
  ),
  large_objects: z.string(),
  /** One line for each relation, column, constraint, function, trigger, policy, type and extension. */
  objects: z.array(z.string()),
  /** Normalised `pg_dump --schema-only`; who owns and may do what is in `access`. */
  schema_text: z.string(),
  access_text: z.string(),
  roles: z.array(z.string()),
  settings: z.custom<DatabaseSettings>((value) => typeof value === 'object' && value !== null),
});
export type Inventory = z.infer<typeof Inventory>;

export interface InventoryOptions {
  readonly serverMajor: number;
  /** Tables that the statistics hold larger than this are counted only. */
  readonly maxRows: number;
  readonly signal?: AbortSignal | undefined;
  readonly onTable?: (done: number, all: number) => void;
}

/** Counts and fingerprints a database in the transaction that the session is in. The text of the schema is added apart. */
export async function readInventory(
  session: Session,
  options: InventoryOptions,
): Promise<Omit<Inventory, 'schema_text' | 'access_text'>> {
  // First, since sequences do not wait for snapshots: what the dump holds is never behind what is noted here.
  const sequences = await session.query<Inventory['sequences'][number]>(`
    SELECT format('%I.%I', n.nspname, c.relname) AS name, s.last_value::text, q.seqincrement > 0 AS ascending, q.seqcycle AS cycles
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_sequence q ON q.seqrelid = c.oid
    LEFT JOIN pg_sequences s ON s.schemaname = n.nspname AND s.sequencename = c.relname
    WHERE c.relkind = 'S' AND ${USER_RELATION} ORDER BY 1`);
  const relations = await session.query<{ schema: string; name: string; tuples: number; columns: string[] | null }>(`
    SELECT n.nspname::text AS schema, c.relname::text AS name, c.reltuples::float8 AS tuples,
      (SELECT array_agg(a.attname::text ORDER BY a.attname::text COLLATE "C") FROM pg_attribute a
       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery()) AND ${USER_RELATION}
    ORDER BY n.nspname::text COLLATE "C", c.relname::text COLLATE "C"`);
  const tables: TableEntry[] = [];
  for (const relation of relations) {
    options.signal?.throwIfAborted();
    tables.push(await fingerprint(session, relation, relation.tuples <= options.maxRows));
    options.onTable?.(tables.length, relations.length);
  }
  const [large] = await session.query<{ count: string }>('SELECT count(*)::text AS count FROM pg_largeobject_metadata');
  const objects = await session.query<{ line: string }>(OBJECTS);
  const roles = await session.query<{ name: string }>(ROLES);
  return {
    schema: 'holdfast.pg.inventory/1',
    server_major: options.serverMajor,
    tables,
    sequences,
    large_objects: large?.count ?? '0',
    objects: objects.map(({ line }) => line),
    roles: roles.map(({ name }) => name),
    settings: await readSettings(session),
  };
}

async function fingerprint(
  session: Session,
  relation: { schema: string; name: string; columns: string[] | null },
  content: boolean,
): Promise<TableEntry> {
  // Columns by name: a child table that inherits may get its columns in another order from a restore.
  const row = `ROW(${(relation.columns ?? []).map((column) => `a.${ident(column)}`).join(', ')})`;
  const hash = content ? `coalesce(sum(hashtextextended(${row}::text COLLATE "C", 0)), 0)::text` : 'NULL::text';
  const [found] = await session.query<{ rows: string; hash: string | null }>(
    `SELECT count(*)::text AS rows, ${hash} AS hash FROM ONLY ${ident(relation.schema)}.${ident(relation.name)} AS a`,
  );
  return { schema: relation.schema, name: relation.name, rows: found?.rows ?? '0', hash: found?.hash ?? null };
}

const NOT_EXTENSION = (table: string, oid: string): string =>
  `NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = '${table}'::regclass AND x.objid = ${oid} AND x.deptype = 'e')`;
const USER_SCHEMA = `n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'`;

const OBJECTS = `SELECT line FROM (
  SELECT format('schema %I', n.nspname) AS line FROM pg_namespace n WHERE ${USER_SCHEMA} AND ${NOT_EXTENSION('pg_namespace', 'n.oid')}
  UNION SELECT format('extension %I', extname) FROM pg_extension
  UNION SELECT format('relation %s %I.%I', c.relkind, n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind <> 't' AND ${USER_RELATION}
  UNION SELECT format('column %I.%I.%I %s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND ${USER_RELATION}
  UNION SELECT format('constraint %I.%I.%I %s', n.nspname, c.relname, k.conname, k.contype)
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND ${USER_RELATION}
  UNION SELECT format('trigger %I.%I.%I', n.nspname, c.relname, t.tgname)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT t.tgisinternal AND ${USER_RELATION}
  UNION SELECT format('policy %I.%I.%I', n.nspname, c.relname, p.polname)
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ${USER_RELATION}
  UNION SELECT format('rule %I.%I.%I', n.nspname, c.relname, r.rulename)
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE r.rulename <> '_RETURN' AND ${USER_RELATION}
  UNION SELECT format('function %I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE ${USER_SCHEMA} AND ${NOT_EXTENSION('pg_proc', 'p.oid')}
      AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = 'pg_proc'::regclass AND x.objid = p.oid AND x.deptype = 'i')
  UNION SELECT format('type %s %I.%I %s', t.typtype, n.nspname, t.typname,
      (SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid))
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE t.typtype IN ('e', 'd', 'r') AND ${USER_SCHEMA} AND ${NOT_EXTENSION('pg_type', 't.oid')}
) AS lines ORDER BY line COLLATE "C"`;

/** Every role that owns something here or was granted something. */
const ROLES = `SELECT DISTINCT name FROM (
  SELECT pg_get_userbyid(c.relowner)::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ${USER_SCHEMA}
  UNION SELECT pg_get_userbyid(p.proowner)::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE ${USER_SCHEMA}
  UNION SELECT pg_get_userbyid(n.nspowner)::text FROM pg_namespace n WHERE ${USER_SCHEMA} AND n.nspname <> 'public'
  UNION SELECT pg_get_userbyid(d.refobjid)::text FROM pg_shdepend d JOIN pg_database b ON b.oid = d.dbid
    WHERE b.datname = current_database() AND d.refclassid = 'pg_authid'::regclass
) AS names WHERE name !~ '^pg_' ORDER BY 1`;

/** Lines that differ between two dumps of the same database, or say nothing about its structure. */
const NOISE = /^(--|SET |SELECT pg_catalog\.set_config|\\restrict|\\unrestrict|\s*$)/;
const ACCESS = /^(ALTER .* OWNER TO |GRANT |REVOKE |ALTER DEFAULT PRIVILEGES )/;

/** Gives the text of the schema without what differs between two dumps of one database, and apart from it the rights. */
export async function readSchemaText(
  pgDump: string,
  options: ChildOptions,
  snapshot?: string,
): Promise<{ schema_text: string; access_text: string }> {
  const args = ['--schema-only', '--quote-all-identifiers', '--lock-wait-timeout=30s', '--no-password'];
  if (snapshot !== undefined) args.push(`--snapshot=${snapshot}`);
  const text = await runChild(pgDump, args, options);
  const lines = text.split('\n').filter((line) => !NOISE.test(line));
  return {
    schema_text: lines.filter((line) => !ACCESS.test(line)).join('\n'),
    access_text: lines.filter((line) => ACCESS.test(line)).join('\n'),
  };
}

/** The figures of an inventory that the plain manifest may show. */
export function summarise(inventory: Inventory): {
  tables: number;
  rows_total: number;
  fingerprint: string;
  schema_sha256: string;
  fingerprint_algorithm: string;
  counted_only: number;
} {
  const lines = inventory.tables
    .map(({ schema, name, rows, hash }) => JSON.stringify([schema, name, rows, hash]))
    .sort();
  return {
    tables: inventory.tables.length,
    rows_total: inventory.tables.reduce((sum, { rows }) => sum + Number(rows), 0),
    fingerprint: sha256(lines.join('\n')),
    schema_sha256: sha256(inventory.schema_text),
    fingerprint_algorithm: FINGERPRINT_ALGORITHM,
    counted_only: inventory.tables.filter(({ hash }) => hash === null).length,
  };
}

/**
 * Reads an inventory as untrusted input.
 * @throws {HoldfastError} INTEGRITY_FAILED
 */
export function parseInventory(text: string): Inventory {
  try {
    return Inventory.parse(JSON.parse(text));
  } catch (cause) {
    throw damaged('the inventory of this backup does not have its form', cause);
  }
}

export interface Comparison {
  readonly equal: boolean;
  /** What is not as the backup says, a few words each. */
  readonly problems: string[];
  /** What differs without anything being lost. */
  readonly notes: string[];
  readonly tables: number;
  readonly rows: number;
}

const MOST_PROBLEMS = 20;

/** Holds a restored database against the inventory of its backup. Row hashes count only within one major version. */
export function compareInventories(expected: Inventory, actual: Inventory): Comparison {
  const problems: string[] = [];
  const notes: string[] = [];
  const nameOf = ({ schema, name }: { schema: string; name: string }): string => cleanText(`${schema}.${name}`, 130);
  const restored = new Map(actual.tables.map((table) => [JSON.stringify([table.schema, table.name]), table]));
  const sameMajor = expected.server_major === actual.server_major;
  let rows = 0;
  for (const table of expected.tables) {
    const found = restored.get(JSON.stringify([table.schema, table.name]));
    if (!found) problems.push(`table ${nameOf(table)} is missing`);
    else if (found.rows !== table.rows)
      problems.push(`table ${nameOf(table)} has ${found.rows} rows instead of ${table.rows}`);
    else if (sameMajor && table.hash !== null && found.hash !== null && table.hash !== found.hash) {
      problems.push(`table ${nameOf(table)} has other content`);
    }
    rows += Number(found?.rows ?? 0);
  }
  const sequences = new Map(actual.sequences.map((sequence) => [sequence.name, sequence]));
  for (const { name, last_value, ascending, cycles } of expected.sequences) {
    const found = sequences.get(name);
    if (!found || last_value === null || cycles) continue;
    const behind =
      found.last_value === null ||
      (ascending ? BigInt(found.last_value) < BigInt(last_value) : BigInt(found.last_value) > BigInt(last_value));
    if (behind) problems.push(`sequence ${cleanText(name, 130)} is behind the backup`);
  }
  if (expected.large_objects !== actual.large_objects) {
    problems.push(`${actual.large_objects} large objects instead of ${expected.large_objects}`);
  }
  const objects = new Set(actual.objects);
  for (const line of expected.objects) if (!objects.has(line)) problems.push(`${cleanText(line, 200)} is missing`);
  if (!sameMajor) notes.push('row contents were not compared: the server has another major version than the source');
  else if (sortedLines(expected.schema_text) !== sortedLines(actual.schema_text)) {
    // PostgreSQL writes some expressions in another, equal form once they have been restored.
    notes.push(`the text of the schema differs in ${differingLines(expected.schema_text, actual.schema_text)} lines`);
  }
  return {
    equal: problems.length === 0,
    problems: problems.slice(0, MOST_PROBLEMS),
    notes,
    tables: expected.tables.length,
    rows,
  };
}

/**
 * Stops when a restored database is not what its backup says.
 * @throws {HoldfastError} INTEGRITY_FAILED with what differs
 */
export function assertEqual(comparison: Comparison): void {
  if (comparison.equal) return;
  throw new HoldfastError('INTEGRITY_FAILED', 'the restored database is not equal to what the backup says it holds', {
    details: { problems: comparison.problems },
  });
}

const sortedLines = (text: string): string => text.split('\n').sort().join('\n');

function differingLines(a: string, b: string): number {
  const left = new Set(a.split('\n'));
  const right = new Set(b.split('\n'));
  return [...left].filter((line) => !right.has(line)).length + [...right].filter((line) => !left.has(line)).length;
}
