import { afterAll, beforeAll, expect, it } from 'vitest';
import { collect } from '../../src/engine/registry.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import { guide } from '../../src/providers/postgresql/guide.ts';
import { postgresql } from '../../src/providers/postgresql/provider.ts';
import * as tools from '../../tools/index.ts';
import { VIEWER } from '../support/harness.ts';
import {
  describePostgres,
  type PostgresHarness,
  sql,
  startPostgresHarness,
  startTestServer,
} from '../support/postgres.ts';

const PERMISSIONS = [...new Set(Object.values(guide.permissions).flat())];
const ofRole = PERMISSIONS.filter((permission) => !permission.startsWith('storage: '));

it('has the rights that every action needs, and the statement that grants each', async () => {
  expect(await postgresql.guide?.()).toBe(guide);
  expect(Object.keys(guide.permissions).sort()).toEqual(
    collect(tools)
      .actions.filter(({ provider }) => provider.id === 'postgresql')
      .map(({ name }) => name)
      .sort(),
  );
  const policy = guide.policy(PERMISSIONS, { user: 'back"up', database: 'shop' });
  expect(policy.split('\n').filter((line) => !line.startsWith('-- '))).toHaveLength(ofRole.length);
  expect(policy).toContain('GRANT pg_read_all_data TO "back""up";');
  expect(policy).toContain('ALTER DATABASE "shop" OWNER TO "back""up";');
});

describePostgres('the rights of a role', () => {
  let server: PrivateServer;
  const harnesses: PostgresHarness[] = [];

  beforeAll(async () => {
    server = await startTestServer();
    const { connection } = server;
    await sql(connection, 'postgres', 'CREATE DATABASE shop', "CREATE ROLE backup LOGIN PASSWORD 'p'");
    await sql(connection, 'shop', 'CREATE TABLE t (id int)');
  });

  afterAll(async () => {
    for (const harness of harnesses) await harness.close();
    await server.stop();
  });

  async function rights(user: string, password: string): Promise<Readonly<Record<string, string>> | undefined> {
    const connection = { ...server.connection, user, password };
    const harness = await startPostgresHarness({ connection, database: 'shop' });
    harnesses.push(harness);
    return harness.engine.access({
      principal: VIEWER,
      entity: 'app/shop',
      permissions: [...PERMISSIONS, 'of another world'],
    });
  }

  it('are all there for a superuser, and none is claimed that the server does not know', async () => {
    const all = await rights(server.connection.user, server.connection.password);
    expect(all).toEqual({
      ...Object.fromEntries(PERMISSIONS.map((permission) => [permission, 'granted'])),
      'of another world': 'unknown',
    });
  });

  it('are refused one by one until the policy is run, and then granted', async () => {
    expect(await rights('backup', 'p')).toMatchObject(
      Object.fromEntries(ofRole.map((permission) => [permission, 'refused'])),
    );
    const statements = guide
      .policy(PERMISSIONS, { user: 'backup', database: 'shop' })
      .split('\n')
      .map((line) => line.replace(/ *--.*/, ''))
      .filter((line) => line !== '');
    await sql(server.connection, 'postgres', ...statements);
    // A function belongs to its database.
    await sql(server.connection, 'shop', ...statements.filter((line) => line.includes(' ON FUNCTION ')));
    expect(await rights('backup', 'p')).toMatchObject(
      Object.fromEntries(PERMISSIONS.map((permission) => [permission, 'granted'])),
    );
  });
});
