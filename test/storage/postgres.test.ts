import { afterAll, beforeAll, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import type { Connection } from '../../src/postgres/connection.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import { describePostgres, sql, startPostgresHarness, startTestServer, values } from '../support/postgres.ts';
import { refusal } from '../support/s3-wire.ts';
import { startAzurite, startGcs, startS3, startS3rver, type TestStore } from '../support/stores.ts';

const ORDERS = [
  'CREATE TABLE orders (id int PRIMARY KEY, note text)',
  'INSERT INTO orders SELECT i, md5(i::text) FROM generate_series(1, 500) i',
];

describePostgres('PostgreSQL backups in the stores of a cloud', () => {
  let server: PrivateServer;
  let connection: Connection;
  beforeAll(async () => {
    server = await startTestServer();
    connection = server.connection;
    await sql(connection, 'postgres', 'CREATE DATABASE shop');
    await sql(connection, 'shop', ...ORDERS);
  });
  afterAll(() => server?.stop());

  const open = ({ parameters, secrets }: TestStore<unknown>, more: JsonObject = {}) =>
    startPostgresHarness({
      connection,
      database: 'shop',
      parameters: { storage: { ...parameters, prefix: 'holdfast', ...more } },
      secrets,
    });

  it.each<[string, () => Promise<TestStore<unknown>>, string]>([
    ['S3', startS3, 'by the storage'],
    ['s3rver', startS3rver, 'not kept by the storage'],
    ['Cloud Storage', startGcs, 'by the storage'],
    ['Azurite', startAzurite, 'by the storage'],
  ])('are taken, listed, verified, restored and deleted in %s', async (name, start, createOnly) => {
    const store = await start();
    const { call, approved, close } = await open(store);
    try {
      const { id } = await call('create-snapshot');
      const { snapshots } = (await call('list-snapshots')) as unknown as {
        snapshots: { id: string; status: string }[];
      };
      expect(snapshots.map((one) => one.id)).toEqual([id]);
      await call('verify-snapshot', { snapshot_id: id, level: 'stored' });
      const target = `copy_${name.toLowerCase().replace(' ', '_')}`;
      await call('restore', { snapshot_id: id, target_database: target });
      expect(await values(connection, target, 'SELECT count(*), max(note) FROM orders')).toEqual(['500']);
      const info = (await call('get-backup-info')) as unknown as { provider: JsonObject; warnings: string[] };
      expect(info.provider).toMatchObject({ create_only: createOnly, storage: expect.stringContaining('holdfast') });
      expect(info.warnings.join('\n')).toMatch(/Backups lie on this machine/);
      expect(/lets two writers/.test(info.warnings.join('\n'))).toBe(createOnly !== 'by the storage');
      expect(JSON.stringify(info)).not.toMatch(
        new RegExp(Object.values(store.secrets).join('|').replaceAll('+', '\\+')),
      );
      await approved('delete-snapshot', { snapshot_id: id, allow_last: true });
      expect(await call('list-snapshots')).toMatchObject({ snapshots: [] });
    } finally {
      await close();
      await store.dispose();
    }
  });

  it('leave nothing behind where the store refuses the manifest', async () => {
    const store = await startS3();
    const { fails, close } = await open(store);
    store.wire.fault = ({ method, url }) =>
      method === 'PUT' && url.pathname.endsWith('/manifest.json') ? refusal(403, 'AccessDenied') : undefined;
    const error = await fails('create-snapshot');
    expect(error).toMatchObject({ code: 'INSUFFICIENT_PERMISSIONS', hint: expect.stringContaining('s3:PutObject') });
    expect([...store.wire.objects.keys()].filter((key) => key.includes('/backups/'))).toEqual([]);
    expect(store.wire.uploads.size).toBe(0);
    await close();
    await store.dispose();
  });
});
