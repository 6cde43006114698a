import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'vitest';
import { type Connection, withSession } from '../../src/postgres/connection.ts';
import { copyAccount, startCopyServer } from '../../src/postgres/copy-server.ts';
import { PgBackRest } from '../../src/postgres/pgbackrest.ts';
import { findServerBinaries, type PrivateServer, startPrivateServer } from '../../src/postgres/private-server.ts';

export {
  type PostgresHarness,
  type PostgresHarnessOptions,
  startPostgresHarness,
} from './postgres-harness.ts';

const missing = await findServerBinaries().then(
  () => undefined,
  (cause: Error) => cause.message,
);
const missingBackRest = await new PgBackRest({ stanza: 'none' }).program().then(
  () => undefined,
  (cause: Error) => cause.message,
);
/** Programs of a PostgreSQL that has incremental backups: those that `npm test` has fetched, else the machine's own. */
const newer = await findServerBinaries(process.env['HOLDFAST_TEST_PG_BIN']).catch(() => undefined);
const missingNewer =
  newer !== undefined && newer.major >= 17
    ? undefined
    : 'PostgreSQL 17 or newer is not here; `npm test` fetches it as root on Debian, elsewhere set HOLDFAST_TEST_PG_BIN';
export const NEWER_BIN = newer?.directory ?? '';
const required = process.env['CI'] !== undefined || process.env['HOLDFAST_REQUIRE_PG'] === '1';

/** A suite that needs a PostgreSQL server: fails without one where that is required, else says in its name that it is skipped. */
export function describePostgres(name: string, suite: () => void): void {
  describeWith(missing, name, suite);
}

/** The same for one that needs pgBackRest too. */
export function describeBackRest(name: string, suite: () => void): void {
  describeWith(missing ?? missingBackRest, name, suite);
}

/** The same for one that needs PostgreSQL 17 or newer; its programs are in `NEWER_BIN`. */
export function describeNewer(name: string, suite: () => void): void {
  describeWith(missingNewer, name, suite);
}

function describeWith(lacking: string | undefined, name: string, suite: () => void): void {
  if (lacking === undefined) describe(name, suite);
  else if (required) {
    it(`${name}: needs what CI or HOLDFAST_REQUIRE_PG=1 requires`, () => {
      throw new Error(lacking);
    });
    // On a machine without the programs the suite says by name what was not run; CI, which installs them, never comes here.
  } else describe.skip(`${name} (skipped: ${lacking})`, suite);
}

/** Starts a private server in a fresh directory; `stop` removes it. */
export async function startTestServer(settings: Record<string, string> = {}, binDir?: string): Promise<PrivateServer> {
  return startPrivateServer({ directory: await mkdtemp(join(tmpdir(), 'hf-pg-')), settings, binDir });
}

/** Reads the first column of queries from a recovered directory, by starting it once more. */
export async function readCopy(
  { directory, database, binDir }: { readonly directory: string; readonly database: string; readonly binDir?: string },
  ...queries: string[]
): Promise<string[]> {
  const copy = await startCopyServer({
    data: directory,
    binaries: await findServerBinaries(binDir),
    account: await copyAccount(),
    superuser: 'postgres',
    database,
  });
  try {
    await copy.ready(undefined);
    const answers: string[] = [];
    for (const query of queries) answers.push((await values(copy.connection, database, query)).join());
    return answers;
  } finally {
    await copy.stop('fast');
  }
}

/** Runs statements in a database, each by itself. */
export async function sql(connection: Connection, database: string, ...statements: string[]): Promise<void> {
  await withSession({ ...connection, database }, undefined, async (session) => {
    await session.query('RESET search_path');
    for (const statement of statements) await session.query(statement);
  });
}

/** Reads the first column of a query. */
export async function values(connection: Connection, database: string, query: string): Promise<string[]> {
  return withSession({ ...connection, database }, undefined, async (session) => {
    await session.query('RESET search_path');
    return (await session.query<Record<string, unknown>>(query)).map((row) => String(Object.values(row)[0]));
  });
}

/** The names of all databases but those of the server itself. */
export function databases(connection: Connection): Promise<string[]> {
  return values(
    connection,
    'postgres',
    "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1') ORDER BY datname COLLATE \"C\"",
  );
}

/** A database with something of everything that dumps and comparisons have stumbled over. */
export const SHOP = [
  "CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s fine')",
  'CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text, data jsonb, at timestamptz DEFAULT now(), amount numeric(10,2), mood mood, doubled numeric GENERATED ALWAYS AS (amount * 2) STORED)',
  `INSERT INTO orders (note, data, amount, mood) SELECT 'note ' || i, jsonb_build_object('i', i), i / 7.0, 'ok' FROM generate_series(1, 3000) i`,
  // After a restore the columns of the child stand in another order.
  'CREATE TABLE parent (a int)',
  'CREATE TABLE child (b int) INHERITS (parent)',
  'ALTER TABLE parent ADD COLUMN x int DEFAULT 7',
  'INSERT INTO child (a, b, x) VALUES (1, 2, 3)',
  'CREATE TABLE parts (id int, day date) PARTITION BY RANGE (day)',
  "CREATE TABLE parts_2026 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
  "INSERT INTO parts SELECT i, '2026-06-01' FROM generate_series(1, 10) i",
  'CREATE TABLE no_columns ()',
  'INSERT INTO no_columns DEFAULT VALUES',
  // PostgreSQL writes this check differently once it has been restored.
  `CREATE TABLE checked (kind varchar(10) CHECK (kind IN ('a', 'b')), p point, j json, f float8 DEFAULT 0.1 + 0.2)`,
  `INSERT INTO checked VALUES ('a', '(1,2)', '{"k" : 1}', 0.1), ('a', '(1,2)', '{"k" : 1}', 0.1)`,
  `CREATE SCHEMA "Weird ""schema"""`,
  `CREATE TABLE "Weird ""schema"""."a=b -- 'x' ünï" ("col ""umn" text, a text)`,
  `INSERT INTO "Weird ""schema"""."a=b -- 'x' ünï" VALUES (E'tab\\there', 'ü'), (NULL, NULL)`,
  `CREATE FUNCTION tricky() RETURNS text LANGUAGE sql AS $$\n-- a comment in a body\nSELECT 'GRANT nothing'\n$$`,
  'CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS orders FROM orders',
  'CREATE SEQUENCE tickets INCREMENT -5 MAXVALUE 100 MINVALUE -1000000 START 50',
  `SELECT nextval('tickets'), nextval('tickets')`,
  `SELECT lo_from_bytea(0, 'a large object')`,
];
