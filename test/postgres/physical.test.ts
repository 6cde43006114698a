import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { Connection } from '../../src/postgres/connection.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import {
  describePostgres,
  type PostgresHarness,
  type PostgresHarnessOptions,
  sql,
  startPostgresHarness,
  startTestServer,
} from '../support/postgres.ts';

describePostgres('a physical backup', () => {
  let server: PrivateServer;
  let connection: Connection;
  const open: PostgresHarness[] = [];
  const harness = async (options: Partial<PostgresHarnessOptions> = {}): Promise<PostgresHarness> => {
    const started = await startPostgresHarness({ connection, database: 'shop', ...options });
    open.push(started);
    return started;
  };

  beforeAll(async () => {
    server = await startTestServer();
    connection = server.connection;
    await sql(connection, 'postgres', 'CREATE DATABASE shop');
    await sql(
      connection,
      'shop',
      'CREATE TABLE pairs (id int PRIMARY KEY, v int)',
      'INSERT INTO pairs SELECT i, 0 FROM generate_series(1, 2000) i',
    );
  });
  afterEach(async () => {
    for (const each of open.splice(0)) await each.close();
  });
  afterAll(() => server?.stop());

  it('holds the whole server, with the write-ahead log that it needs', async () => {
    const { call } = await harness();
    const made = await call('create-snapshot', { type: 'full' });
    expect(made).toMatchObject({ status: 'available', provider: { type: 'full', parent_id: null } });
    const listed = await call('list-snapshots');
    expect(listed['snapshots']).toMatchObject([{ id: made.id }]);
    for (const level of ['stored', 'readable', 'restored']) {
      expect(await call('verify-snapshot', { snapshot_id: made.id, level })).toMatchObject({ passed: true });
    }
  });
});
