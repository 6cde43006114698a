import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type SuiteFactory } from 'vitest';
import { type Connection, type Session, withSession } from '../../src/postgres/connection.ts';
import { findServerBinaries, type PrivateServer, startPrivateServer } from '../../src/postgres/private-server.ts';

const missing = await findServerBinaries().then(
  () => undefined,
  (cause: Error) => cause.message,
);
const required = process.env['CI'] !== undefined || process.env['HOLDFAST_REQUIRE_PG'] === '1';

/** A suite that needs a PostgreSQL server: fails without one where that is required, else says in its name that it is skipped. */
export function describePostgres(name: string, suite: SuiteFactory): void {
  if (missing !== undefined && required) {
    describe(name, ({ it }: never) => {
      (it as (title: string, test: () => void) => void)(
        'needs PostgreSQL, which CI or HOLDFAST_REQUIRE_PG=1 requires',
        () => {
          throw new Error(missing);
        },
      );
    });
    return;
  }
  describe.skipIf(missing !== undefined)(missing === undefined ? name : `${name} (skipped: ${missing})`, suite);
}

/** Starts a private server in a fresh directory; `stop` removes it. */
export async function startTestServer(settings: Record<string, string> = {}): Promise<PrivateServer> {
  return startPrivateServer({ directory: await mkdtemp(join(tmpdir(), 'hf-pg-')), settings });
}

/** Runs statements in a database, each by itself. */
export async function sql(connection: Connection, database: string, ...statements: string[]): Promise<void> {
  await withSession({ ...connection, database }, undefined, async (session) => {
    await session.query('RESET search_path');
    for (const statement of statements) await session.query(statement);
  });
}

/** Reads one column of a query. */
export async function values(connection: Connection, database: string, query: string): Promise<string[]> {
  return withSession({ ...connection, database }, undefined, async (session: Session) => {
    await session.query('RESET search_path');
    return (await session.query<Record<string, unknown>>(query)).map((row) => String(Object.values(row)[0]));
  });
}

/** The names of all databases but those of the server itself. */
export function databases(connection: Connection): Promise<string[]> {
  return values(
    connection,
    'postgres',
    "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1') ORDER BY 1",
  );
}
