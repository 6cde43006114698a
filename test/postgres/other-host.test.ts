import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import { ANA } from '../support/harness.ts';
import {
  databases,
  describePostgres,
  type PostgresHarness,
  SHOP,
  sql,
  startPostgresHarness,
  startTestServer,
  values,
} from '../support/postgres.ts';

describePostgres('a restore on another host', () => {
  let servers: PrivateServer[];
  let storage: string;
  let old: PostgresHarness;
  let fresh: PostgresHarness;
  let id: string;
  const open = (server: PrivateServer, parameters: JsonObject): Promise<PostgresHarness> =>
    startPostgresHarness({ connection: server.connection, database: 'shop', storage, parameters });

  beforeAll(async () => {
    servers = await Promise.all([startTestServer(), startTestServer()]);
    storage = await mkdtemp(join(tmpdir(), 'hf-store-'));
    const [first, second] = servers as [PrivateServer, PrivateServer];
    await sql(first.connection, 'postgres', 'CREATE ROLE keeper', 'CREATE DATABASE shop');
    await sql(first.connection, 'shop', ...SHOP, 'ALTER TABLE orders OWNER TO keeper');
    old = await open(first, { source_id: 'old-host' });
    fresh = await open(second, { source_id: 'new-host', restore_from: ['old-host'] });
    ({ id } = await old.call('create-snapshot'));
  });
  afterAll(async () => {
    for (const harness of [old, fresh]) await harness?.close();
    for (const server of servers) await server.stop();
    await rm(storage, { recursive: true });
  });

  it('is a call on the entity of that host, whose plan names its server and the source', async () => {
    const input = { snapshot_id: id, from_source: 'old-host' };
    const outcome = await fresh.engine.call({
      principal: ANA,
      entity: 'app/shop',
      action: 'restore',
      input,
      dryRun: true,
    });
    const [system] = await values(
      servers[1]!.connection,
      'postgres',
      'SELECT system_identifier::text FROM pg_control_system()',
    );
    expect(outcome).toMatchObject({
      plan: {
        source: expect.stringContaining('of old-host'),
        facts: { target: { system_identifier: system }, source: { source_id: 'old-host' } },
        warnings: expect.arrayContaining([expect.stringContaining('keeper')]),
      },
    });
    expect(await fresh.call('restore', input)).toMatchObject({ database: 'shop', tables: 7 });
    expect(await values(servers[1]!.connection, 'shop', 'SELECT count(*) FROM orders')).toEqual(['3000']);
    expect(await databases(servers[0]!.connection)).toEqual(['shop']);
  });

  it('is guarded by the rules of that host where it replaces a database there', async () => {
    await sql(servers[1]!.connection, 'shop', 'DELETE FROM orders');
    const replaced = await fresh.approved('restore', { snapshot_id: id, from_source: 'old-host', no_owner: true });
    expect(await values(servers[1]!.connection, 'shop', 'SELECT count(*) FROM orders')).toEqual(['3000']);
    // The way back from it lies with the other backups of that host.
    const safety = String(replaced['safety_snapshot_id']);
    expect(await fresh.call('describe-snapshot', { snapshot_id: safety })).toMatchObject({ kind: 'safety' });
    expect(await old.fails('describe-snapshot', { snapshot_id: safety })).toMatchObject({ code: 'BACKUP_NOT_FOUND' });
  });

  it('is refused for a source that the entity does not name, and of backups that are not of it', async () => {
    const other = { snapshot_id: id, target_database: 'x', from_source: 'somebody-elses' };
    expect(await fresh.fails('restore', other)).toMatchObject({ code: 'INVALID_PARAMETER' });
    const back = await old.fails('restore', { snapshot_id: id, target_database: 'x', from_source: 'new-host' });
    expect(back).toMatchObject({ code: 'INVALID_PARAMETER', hint: expect.stringContaining('restore_from') });
    expect(await fresh.fails('restore', { snapshot_id: id, target_database: 'x' })).toMatchObject({
      code: 'BACKUP_NOT_FOUND',
    });
  });
});
