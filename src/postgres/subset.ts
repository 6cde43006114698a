import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import { cleanText } from '../core/text.ts';
import type { Binaries } from './binaries.ts';
import { type Child, runChild, startChild } from './child.ts';
import { damaged } from './errors.ts';
import type { Inventory } from './inventory.ts';
import type { LogicalManifest } from './manifest.ts';
import { ident } from './sql.ts';
import { readStoredInventory } from './verify.ts';
import type { Work } from './work.ts';

export interface TableName {
  readonly schema: string;
  readonly name: string;
}

/** Where a dump can be read: in a directory, or as a stream from its beginning. */
export type DumpSource = { readonly path: string } | { readonly read: () => AsyncIterable<Uint8Array> };

/** What a restore of single tables brings, and what it leaves out. */
export interface Subset {
  /** Those with rows, partitions of named tables included. */
  readonly tables: readonly TableName[];
  /** Foreign keys that would point into tables without rows, as `schema.table constraint`. */
  readonly foreignKeys: readonly (TableName & { readonly constraint: string })[];
}

const IDENTIFIER = /"((?:[^"]|"")+)"|([^".\s][^".]*)/y;

/**
 * Reads `schema.table`. A part with a dot or a quote in it stands in double quotes, as in SQL; letters are taken as they are.
 * @throws {HoldfastError} INVALID_PARAMETER
 */
export function parseTableName(text: string): TableName {
  const parts: string[] = [];
  for (let at = 0; at <= text.length; at += 1) {
    IDENTIFIER.lastIndex = at;
    const match = IDENTIFIER.exec(text);
    if (!match) break;
    parts.push(match[1]?.replaceAll('""', '"') ?? (match[2] as string));
    at = IDENTIFIER.lastIndex;
    if (at === text.length) {
      if (parts.length !== 2) break;
      return { schema: parts[0] as string, name: parts[1] as string };
    }
    if (text[at] !== '.') break;
  }
  throw new HoldfastError('INVALID_PARAMETER', `'${cleanText(text, 130)}' is not the name of a table`, {
    hint: 'Write schema.table; a part that holds a dot or a quote stands in double quotes: "my.schema"."a ""b""".',
  });
}

/**
 * Decides what a restore of single tables brings.
 * @throws {HoldfastError} INVALID_PARAMETER for a table that is not in the backup
 */
export function subsetOf(inventory: Inventory, names: readonly string[]): Subset {
  const partitions = partitionsIn(inventory.schema_text);
  const held = new Map(inventory.tables.map((table) => [keyOf(table), table]));
  const chosen = new Map<string, TableName>();
  const add = (table: TableName): boolean => {
    const key = keyOf(table);
    const below = partitions.get(key) ?? [];
    const found = held.get(key);
    if (found) chosen.set(key, { schema: found.schema, name: found.name });
    // A table that is neither held nor divided is none of this backup.
    return below.map(add).some(Boolean) || found !== undefined || below.length > 0;
  };
  const unknown = names.map(parseTableName).filter((table) => !add(table));
  if (unknown.length > 0) {
    throw new HoldfastError('INVALID_PARAMETER', 'these tables are not in the backup', {
      hint: 'Write them as the database has them, capital letters included; diff-snapshot lists the tables of a backup. Nothing was changed.',
      details: { tables: unknown.map(({ schema, name }) => cleanText(`${schema}.${name}`, 130)).slice(0, 20) },
    });
  }
  return {
    tables: [...chosen.values()],
    foreignKeys: foreignKeysIn(inventory.schema_text)
      .filter(({ table, references }) => chosen.has(keyOf(table)) && !isWhole(references, chosen, held, partitions))
      .map(({ table, constraint }) => ({ ...table, constraint })),
  };
}

const keyOf = ({ schema, name }: TableName): string => JSON.stringify([schema, name]);

/** Tells whether all rows of a table come: its own and those of its partitions. */
function isWhole(
  table: TableName,
  chosen: ReadonlyMap<string, unknown>,
  held: ReadonlyMap<string, unknown>,
  partitions: ReadonlyMap<string, readonly TableName[]>,
): boolean {
  const key = keyOf(table);
  if (held.has(key) && !chosen.has(key)) return false;
  return (partitions.get(key) ?? []).every((part) => isWhole(part, chosen, held, partitions));
}

// The schema is kept with every name quoted, so these find names exactly.
const NAME = '"((?:[^"]|"")+)"';
const ATTACH = new RegExp(`^ALTER TABLE (?:ONLY )?${NAME}\\.${NAME} ATTACH PARTITION ${NAME}\\.${NAME}`, 'gm');
const REFERENCES = new RegExp(
  `^ALTER TABLE (?:ONLY )?${NAME}\\.${NAME}\\n {4}ADD CONSTRAINT ${NAME} FOREIGN KEY \\(.*?\\) REFERENCES ${NAME}\\.${NAME}\\(`,
  'gm',
);
const unquote = (text: string | undefined): string => (text ?? '').replaceAll('""', '"');

function partitionsIn(schema: string): Map<string, TableName[]> {
  const found = new Map<string, TableName[]>();
  for (const [, ...names] of schema.matchAll(ATTACH)) {
    const [parentSchema, parent, partSchema, part] = names.map(unquote) as [string, string, string, string];
    const key = keyOf({ schema: parentSchema, name: parent });
    found.set(key, [...(found.get(key) ?? []), { schema: partSchema, name: part }]);
  }
  return found;
}

function foreignKeysIn(schema: string): { table: TableName; constraint: string; references: TableName }[] {
  return [...schema.matchAll(REFERENCES)].map(([, ...names]) => {
    const [own, table, constraint, other, referenced] = names.map(unquote) as [string, string, string, string, string];
    return { table: { schema: own, name: table }, constraint, references: { schema: other, name: referenced } };
  });
}

/** Writes what a restore of single tables leaves out, for people. */
export function leftOut(inventory: Inventory, { tables, foreignKeys }: Subset): string[] {
  const without = inventory.tables.length - tables.length;
  const named = foreignKeys.slice(0, 20).map((key) => cleanText(`${key.schema}.${key.name} ${key.constraint}`, 200));
  return [
    ...(without > 0 ? [`the rows of ${without} other tables: they are there, empty`] : []),
    ...(named.length > 0
      ? [`${foreignKeys.length} foreign keys into tables without rows: ${cleanText(named.join(', '), 300)}`]
      : []),
    ...(inventory.large_objects === '0' ? [] : [`${inventory.large_objects} large objects`]),
    'the rows of materialized views: REFRESH them',
    'publications, subscriptions and event triggers',
  ];
}

/**
 * Writes the list that makes pg_restore bring all definitions, but rows of the chosen tables only, and gives its arguments
 * for as long as it is used.
 */
export async function withSelection<T>(
  work: Work,
  manifest: LogicalManifest,
  binaries: Binaries,
  dump: DumpSource,
  tables: readonly TableName[],
  use: (args: readonly string[]) => Promise<T>,
): Promise<T> {
  const inventory = await readStoredInventory(work, manifest);
  const subset = subsetOf(
    inventory,
    tables.map(({ schema, name }) => `${ident(schema)}.${ident(name)}`),
  );
  const contents = await listContents(work, binaries, dump);
  const directory = await mkdtemp(join(await work.runtime.workDirectory(), `list-${process.pid}-`));
  try {
    const file = join(directory, 'list');
    await writeFile(file, `${selectContents(contents, inventory, subset).join('\n')}\n`, { mode: 0o600, flag: 'wx' });
    return await use(['-L', file]);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const NOT_RESTORED =
  /^(?:BLOBS?|BLOB METADATA|BLOB COMMENTS|MATERIALIZED VIEW DATA|PUBLICATION(?: TABLE| TABLES IN SCHEMA)?|SUBSCRIPTION(?: TABLE)?|EVENT TRIGGER) |^(?:ACL|COMMENT|SECURITY LABEL) - (?:LARGE OBJECTS?|PUBLICATION|SUBSCRIPTION|EVENT TRIGGER) /;

/**
 * Chooses the lines of `pg_restore --list`. A line is no syntax, its names stand unquoted side by side: where two tables
 * could be meant, none is guessed.
 * @throws {HoldfastError} NOT_SUPPORTED for tables whose names cannot be told apart there
 */
export function selectContents(contents: string, inventory: Inventory, { tables, foreignKeys }: Subset): string[] {
  const oneLine = (text: string): string => text.replace(/[\r\n]/g, ' ');
  const chosen = new Set(tables.map(keyOf));
  const keys = new Set(foreignKeys.map((key) => oneLine(`${key.schema} ${key.name} ${key.constraint}`)));
  const found = new Set<string>();
  const lines = contents.split('\n').filter((line) => {
    const entry = /^\d+; \d+ \d+ (.*)$/.exec(line)?.[1];
    if (entry === undefined || NOT_RESTORED.test(entry)) return false;
    const key = /^FK CONSTRAINT (.*)$/.exec(entry)?.[1];
    if (key !== undefined) return ![...keys].some((left) => key.startsWith(`${left} `));
    const data = /^TABLE DATA (.*)$/.exec(entry)?.[1];
    if (data === undefined) return true;
    const meant = inventory.tables.filter((table) => data.startsWith(`${oneLine(`${table.schema} ${table.name}`)} `));
    const owned = meant.filter((table) =>
      inventory.roles.some((role) => data === oneLine(`${table.schema} ${table.name} ${role}`)),
    );
    const candidates = owned.length > 0 ? owned : meant;
    const wanted = candidates.filter((table) => chosen.has(keyOf(table)));
    if (wanted.length > 0 && candidates.length > 1) {
      throw new HoldfastError(
        'NOT_SUPPORTED',
        'tables of this backup have names that cannot be told apart in its list',
        {
          hint: 'Restore the whole backup into a new database and take the table from there. Nothing was changed.',
          details: { tables: candidates.map(({ schema, name }) => cleanText(`${schema}.${name}`, 130)) },
        },
      );
    }
    for (const table of wanted) found.add(keyOf(table));
    return wanted.length > 0;
  });
  if (found.size !== chosen.size) throw damaged('the dump does not hold all the tables that its inventory names');
  return lines;
}

async function listContents(work: Work, binaries: Binaries, dump: DumpSource): Promise<string> {
  const options = { env: { LC_ALL: 'C' }, signal: work.signal };
  if ('path' in dump) return runChild(binaries.pgRestore, ['-l', dump.path], options);
  const child = startChild(binaries.pgRestore, ['-l'], { ...options, stdin: true });
  const feeding = feedBeginning(child, dump.read());
  feeding.catch(() => {});
  const parts: Buffer[] = [];
  try {
    for await (const chunk of child.output()) parts.push(chunk);
  } finally {
    await feeding;
  }
  return Buffer.concat(parts).toString('utf8');
}

/** Feeds a program until it has read enough. */
async function feedBeginning(child: Child, source: AsyncIterable<Uint8Array>): Promise<void> {
  let open = true;
  let wake = (): void => {};
  const closed = (): void => {
    open = false;
    wake();
  };
  void child.ended.then(closed);
  child.stdin.once('close', closed);
  child.stdin.on('drain', () => wake());
  try {
    for await (const chunk of source) {
      if (!open) break;
      if (child.stdin.write(chunk)) continue;
      await new Promise<void>((resolve) => {
        wake = resolve;
        if (!open) resolve();
      });
    }
    child.stdin.end();
  } catch (cause) {
    await child.stop();
    throw cause;
  }
}
