import { execFile, spawnSync } from 'node:child_process';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import type { HoldfastError } from '../../src/core/errors.ts';
import { assertMayWrite } from '../../src/core/grant.ts';
import { findBinaries } from '../../src/postgres/binaries.ts';
import { type Connection, openSession } from '../../src/postgres/connection.ts';
import type { Inventory } from '../../src/postgres/inventory.ts';
import { summarise } from '../../src/postgres/inventory.ts';
import type { Manifest } from '../../src/postgres/manifest.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import { swapDatabases } from '../../src/postgres/restore.ts';
import { seal, Tally, unseal } from '../../src/postgres/seal.ts';
import type { Work } from '../../src/postgres/work.ts';
import {
  databases,
  describePostgres,
  type PostgresHarness,
  type PostgresHarnessOptions,
  SHOP,
  sql,
  startPostgresHarness,
  startTestServer,
  values,
} from '../support/postgres.ts';
import { granted } from '../support/runtime.ts';

const run = promisify(execFile);
const hasStock = ['age', 'zstd'].every((name) => spawnSync(name, ['--version']).status === 0);
const COUNT = 'SELECT count(*) FROM orders';

describePostgres('a restore', () => {
  let server: PrivateServer;
  let connection: Connection;
  let identity: string;
  let recipient: string;
  const open: PostgresHarness[] = [];
  const harness = async (options: Partial<PostgresHarnessOptions> = {}): Promise<PostgresHarness> => {
    const started = await startPostgresHarness({ connection, database: 'shop', ...options });
    open.push(started);
    return started;
  };
  const sealedHarness = (options: Partial<PostgresHarnessOptions> = {}): Promise<PostgresHarness> =>
    harness({
      ...options,
      parameters: { encryption: { recipients: [recipient], identity: '${env:AGE_KEY}' }, ...options.parameters },
      secrets: { AGE_KEY: identity, ...options.secrets },
    });
  const folder = ({ storage }: PostgresHarness, id: string): string =>
    join(storage, 'v1', 'app-shop-8ebe9076', 'backups', id);

  beforeAll(async () => {
    server = await startTestServer({ max_prepared_transactions: '2' });
    connection = server.connection;
    identity = await generateIdentity();
    recipient = await identityToRecipient(identity);
    await sql(connection, 'postgres', 'CREATE DATABASE model');
    await sql(connection, 'model', ...SHOP);
  });
  beforeEach(() => sql(connection, 'postgres', 'CREATE DATABASE shop TEMPLATE model'));
  afterEach(async () => {
    for (const each of open.splice(0)) await each.close();
    for (const name of await databases(connection)) {
      if (name !== 'model') await sql(connection, 'postgres', `DROP DATABASE "${name}" WITH (FORCE)`);
    }
  });
  afterAll(() => server?.stop());

  /** What belongs to a database but is in no dump. */
  const about = (name: string): Promise<string[]> =>
    values(
      connection,
      'postgres',
      `SELECT json_build_array(pg_get_userbyid(datdba), datconnlimit, shobj_description(oid, 'pg_database'),
          (SELECT array_agg(a::text ORDER BY 1) FROM unnest(datacl) a),
          (SELECT json_agg(s ORDER BY setrole) FROM (SELECT setrole, setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid) s))
         FROM pg_database d WHERE datname = '${name}'`,
    );

  it('brings back everything that a database holds, sealed and opened on the way', async () => {
    const { call } = await sealedHarness();
    const made = await call('create-snapshot');
    expect(made).toMatchObject({ encrypted: true, status: 'available' });
    const during: Promise<unknown>[] = [];
    const onProgress = ({ message }: { message: string }): void => {
      if (message.startsWith('Restoring the dump')) during.push(call('get-restore-status'));
    };
    const restored = await call('restore', { snapshot_id: made.id, target_database: 'copy' }, { onProgress });
    expect(await during[0]).toMatchObject({
      status: 'running',
      usable: false,
      target: 'copy',
      provider: { phase: 'restore' },
    });
    expect(restored).toMatchObject({ tables: 7, rows: 3000 + 1 + 10 + 1 + 2 + 2 });
    const facts = [
      COUNT,
      'SELECT b FROM child',
      `SELECT "col ""umn" FROM "Weird ""schema"""."a=b -- 'x' ünï" WHERE a = 'ü'`,
      'SELECT orders FROM totals',
      `SELECT convert_from(lo_get(oid), 'UTF8') FROM pg_largeobject_metadata`,
      'SELECT last_value FROM tickets',
      'SELECT tricky()',
      'SELECT max(doubled) FROM orders',
    ];
    for (const fact of facts)
      expect(await values(connection, 'copy', fact), fact).toEqual(await values(connection, 'shop', fact));
    expect(await databases(connection)).toEqual(['copy', 'model', 'shop']);
  });

  it('replaces a database in place, keeps the old one, its settings, grants and owner, and ends its sessions', async () => {
    await sql(
      connection,
      'shop',
      'CREATE ROLE app LOGIN',
      'ALTER DATABASE shop OWNER TO app',
      `ALTER DATABASE shop SET search_path = "$user", public, "Weird ""schema"""`,
      "ALTER ROLE app IN DATABASE shop SET work_mem = '8MB'",
      `ALTER DATABASE shop SET "app.note" = 'it''s a \\ note'`,
      'REVOKE CONNECT ON DATABASE shop FROM PUBLIC',
      'GRANT CONNECT, TEMPORARY ON DATABASE shop TO app WITH GRANT OPTION',
      "COMMENT ON DATABASE shop IS 'the shop''s data'",
      'ALTER DATABASE shop CONNECTION LIMIT 42',
      'GRANT SELECT ON orders TO app',
    );
    const before = await about('shop');
    const { call, approved, engine } = await sealedHarness();
    const made = await call('create-snapshot');
    await sql(connection, 'shop', 'DELETE FROM orders WHERE id > 10', 'DROP TABLE checked');
    const busy = await openSession({ ...connection, database: 'shop' });
    const result = await approved('restore', { snapshot_id: made.id });
    expect(await values(connection, 'shop', COUNT)).toEqual(['3000']);
    expect(await values(connection, String(result['kept_as']), COUNT)).toEqual(['10']);
    expect(await about('shop')).toEqual(before);
    expect(await values(connection, 'shop', "SELECT has_table_privilege('app', 'orders', 'SELECT')")).toEqual(['true']);
    await expect(busy.query('SELECT 1')).rejects.toMatchObject({ code: 'PROVIDER_UNAVAILABLE' });
    await busy.close();
    // The way back: the safety backup, proven readable, by the call that the operation gives.
    const safety = String(result['safety_snapshot_id']);
    const described = await call('describe-snapshot', { snapshot_id: safety });
    expect(described).toMatchObject({
      kind: 'safety',
      provider: { verifications: [{ level: 'readable', passed: true }] },
    });
    const outcome = await engine.call({
      principal: { id: 'x', person: 'x', roles: ['viewer'] },
      action: 'list-operations',
      input: {},
    });
    const undo = (outcome as unknown as { output: { operations: { undo?: { input: object } }[] } }).output
      .operations[0]!.undo!;
    const back = await approved('restore', { ...undo.input, safety_snapshot: false });
    expect(await values(connection, 'shop', COUNT)).toEqual(['10']);
    await sql(connection, 'postgres', String(back['drop_kept_with']), String(result['drop_kept_with']));
    expect(await databases(connection)).toEqual(['model', 'shop']);
    await sql(connection, 'postgres', 'DROP DATABASE shop WITH (FORCE)', 'DROP ROLE app');
  });

  /** Changes the bytes of a stored file. */
  const bend = async (path: string, change: (bytes: Buffer) => Buffer): Promise<void> =>
    writeFile(path, change(await readFile(path)));
  const flip =
    (at: number) =>
    (bytes: Buffer): Buffer => {
      const place = at < 0 ? bytes.length + at : at;
      bytes[place] = bytes[place]! ^ 1;
      return bytes;
    };

  const DAMAGE: readonly (readonly [string, string, (bytes: Buffer) => Buffer])[] = [
    ['a flipped bit in the middle', 'age', flip(9000)],
    ['a flipped bit at the end', 'age', flip(-20)],
    ['a cut end', 'age', (bytes) => bytes.subarray(0, -100)],
    ['nothing behind the beginning', 'age', (bytes) => bytes.subarray(0, 4000)],
    ['a flipped bit in the middle', 'none', flip(9000)],
    ['a cut end', 'none', (bytes) => bytes.subarray(0, -100)],
    ['a byte too much', 'none', (bytes) => Buffer.concat([bytes, Buffer.from('x')])],
  ];

  it.each(DAMAGE)(
    'leaves the old data whole and refuses at every level %s, encryption %s',
    async (_, scheme, change) => {
      const h = await (scheme === 'age' ? sealedHarness() : harness());
      const file = scheme === 'age' ? 'payload.dump.zst.age' : 'payload.dump.zst';
      const { id } = await h.call('create-snapshot');
      await sql(connection, 'shop', 'DELETE FROM orders WHERE id > 10');
      await bend(join(folder(h, id), file), change);
      // Damage that the plan does not see is seen while the temporary database is filled.
      const error = await h
        .approvedFails('restore', { snapshot_id: id, safety_snapshot: false })
        .catch((refusal: HoldfastError) => refusal);
      expect(error.code).toBe('INTEGRITY_FAILED');
      expect(await databases(connection)).toEqual(['model', 'shop']);
      expect(await values(connection, 'shop', COUNT)).toEqual(['10']);
      for (const level of ['stored', 'readable', 'restored']) {
        const refused = await h.fails('verify-snapshot', { snapshot_id: id, level });
        expect(refused.code, level).toBe('INTEGRITY_FAILED');
      }
      expect(await h.call('describe-snapshot', { snapshot_id: id })).toMatchObject({
        status: 'damaged',
        restorable: false,
      });
      expect(await h.fails('restore', { snapshot_id: id })).toMatchObject({ code: 'INTEGRITY_FAILED' });
      expect((await h.call('get-backup-info'))['newest']).toBeNull();
      expect(await databases(connection)).toEqual(['model', 'shop']);
    },
  );

  it('refuses a missing file, a bent manifest and a header that the right key does not open', async () => {
    const h = await sealedHarness();
    const [lost, bent, header] = [
      await h.call('create-snapshot'),
      await h.call('create-snapshot'),
      await h.call('create-snapshot'),
    ];
    await rm(join(folder(h, lost.id), 'payload.dump.zst.age'));
    expect(await h.fails('restore', { snapshot_id: lost.id, target_database: 'copy' })).toMatchObject({
      code: 'INTEGRITY_FAILED',
    });
    await bend(join(folder(h, header.id), 'payload.dump.zst.age'), flip(110));
    expect(await h.fails('restore', { snapshot_id: header.id, target_database: 'copy' })).toMatchObject({
      code: 'INTEGRITY_FAILED',
    });
    for (const [from, to] of [
      ['"kind": "logical"', '"kind": "other"'],
      ['payload.dump', '../../payload.dump'],
      [bent.id, lost.id],
      ['{', '{{'],
    ] as const) {
      const path = join(folder(h, bent.id), 'manifest.json');
      const text = await readFile(path, 'utf8');
      await writeFile(path, text.replace(from, to));
      expect(await h.fails('describe-snapshot', { snapshot_id: bent.id }), to).toMatchObject({
        code: 'INTEGRITY_FAILED',
      });
      await writeFile(path, text);
    }
    await bend(join(folder(h, bent.id), 'manifest.json'), (bytes) =>
      Buffer.concat([bytes, Buffer.alloc(1024 * 1024, ' ')]),
    );
    expect(await h.fails('describe-snapshot', { snapshot_id: bent.id })).toMatchObject({ code: 'INTEGRITY_FAILED' });
    // It hides nothing: the list shows it as damaged beside the others.
    const { snapshots } = await h.call('list-snapshots');
    expect((snapshots as { id: string; status: string }[]).find(({ id }) => id === bent.id)?.status).toBe('damaged');
  });

  it('refuses the wrong key before anything is made, and says nothing of the backup', async () => {
    const first = await sealedHarness();
    const { id } = await first.call('create-snapshot');
    const wrong = await sealedHarness({
      storage: first.storage,
      parameters: { encryption: { recipients: [recipient], identity: '${env:OTHER_KEY}' } },
      secrets: { OTHER_KEY: await generateIdentity() },
    });
    for (const [action, input] of [
      ['restore', { target_database: 'copy' }],
      ['verify-snapshot', { level: 'readable' }],
      ['verify-snapshot', { level: 'restored' }],
    ] as const) {
      expect(await wrong.fails(action, { snapshot_id: id, ...input })).toMatchObject({ code: 'AUTHENTICATION_FAILED' });
    }
    expect(await wrong.fails('create-snapshot')).toMatchObject({ code: 'CONFIG_INVALID' });
    expect(await wrong.call('verify-snapshot', { snapshot_id: id, level: 'stored' })).toMatchObject({ passed: true });
    expect(await databases(connection)).toEqual(['model', 'shop']);
    expect(await first.call('describe-snapshot', { snapshot_id: id })).toMatchObject({ status: 'available' });
  });

  it('stops at the comparison when what was restored is not what the backup says, and drops it', async () => {
    const h = await harness();
    const { id } = await h.call('create-snapshot');
    await sql(connection, 'shop', 'DELETE FROM orders WHERE id > 10');
    const directory = folder(h, id);
    const manifest = JSON.parse(await readFile(join(directory, 'manifest.json'), 'utf8')) as Manifest;
    const stored = Readable.from([await readFile(join(directory, 'inventory.json.zst'))], { objectMode: false });
    const inventory = JSON.parse(String(await buffer(unseal(stored, false, {})))) as Inventory;
    inventory.tables.find(({ name }) => name === 'orders')!.rows = '2999';
    inventory.tables.find(({ name }) => name === 'child')!.hash = '1';
    inventory.objects.push('relation r public.forgotten');
    const [before, after] = [new Tally(), new Tally()];
    const text = Readable.from([Buffer.from(JSON.stringify(inventory))], { objectMode: false });
    await writeFile(
      join(directory, 'inventory.json.zst'),
      await buffer(after.tap(seal(before.tap(text), { scheme: 'none' }, 3))),
    );
    const payload = manifest.payload.find(({ content }) => content === 'inventory')!;
    Object.assign(payload, {
      bytes: after.bytes,
      sha256: after.sha256,
      plain_bytes: before.bytes,
      plain_sha256: before.sha256,
    });
    await writeFile(join(directory, 'manifest.json'), JSON.stringify({ ...manifest, inventory: summarise(inventory) }));
    const error = await h.approvedFails('restore', { snapshot_id: id });
    expect(error).toMatchObject({ code: 'INTEGRITY_FAILED' });
    expect(error.details?.['problems']).toEqual([
      'table public.child has other content',
      'table public.orders has 3000 rows instead of 2999',
      'relation r public.forgotten is missing',
    ]);
    expect(await databases(connection)).toEqual(['model', 'shop']);
    expect(await values(connection, 'shop', COUNT)).toEqual(['10']);
  });

  it('leaves both databases as they are when the swap cannot be made', async () => {
    await sql(connection, 'postgres', 'CREATE DATABASE filled');
    const oids = (
      await values(
        connection,
        'postgres',
        "SELECT oid FROM pg_database WHERE datname IN ('shop', 'filled') ORDER BY datname",
      )
    ).map(Number);
    const swap = {
      target: 'shop',
      targetOid: oids[1]!,
      restored: 'filled',
      restoredOid: oids[0]!,
      before: 'shop_before_0123456789',
    };
    const work = { runtime: { assertMayWrite } } as unknown as Work;
    await sql(connection, 'shop', 'BEGIN', 'CREATE TABLE pending ()', "PREPARE TRANSACTION 'stuck'");
    const session = await openSession(connection);
    await expect(granted(() => swapDatabases(work, session, connection, swap))).rejects.toMatchObject({
      code: 'INVALID_STATE',
    });
    expect(await databases(connection)).toEqual(['filled', 'model', 'shop']);
    await sql(connection, 'shop', "ROLLBACK PREPARED 'stuck'");
    const again = await openSession(connection);
    await expect(swapDatabases(work, again, connection, swap)).rejects.toMatchObject({ code: 'INTERNAL' });
    await expect(
      granted(() => swapDatabases(work, again, connection, { ...swap, targetOid: 1 })),
    ).rejects.toMatchObject({ code: 'INVALID_STATE' });
    await granted(() => swapDatabases(work, again, connection, swap));
    expect(await databases(connection)).toEqual(['model', 'shop', 'shop_before_0123456789']);
    await again.close();
  });

  it('sees what stands in the way while it plans', async () => {
    const { call, fails } = await harness();
    const { id } = await call('create-snapshot');
    await sql(connection, 'shop', 'BEGIN', 'CREATE TABLE pending ()', "PREPARE TRANSACTION 'stuck'");
    expect(await fails('restore', { snapshot_id: id })).toMatchObject({
      code: 'INVALID_STATE',
      message: expect.stringContaining('prepared'),
    });
    await sql(connection, 'shop', "ROLLBACK PREPARED 'stuck'");
    expect(await fails('restore', { snapshot_id: id, target_database: 'template1' })).toMatchObject({
      code: 'INVALID_STATE',
    });
    expect(await fails('restore', { snapshot_id: id, target_database: 'x'.repeat(64) })).toMatchObject({
      code: 'INVALID_PARAMETER',
    });
    expect(await fails('restore', { snapshot_id: id, target_database: 'ü'.repeat(40) })).toMatchObject({
      code: 'INVALID_PARAMETER',
    });
    expect(await fails('restore', { snapshot_id: id, target_database: 'a\nb' })).toMatchObject({
      code: 'INVALID_PARAMETER',
    });
  });

  it('refuses what the server is too old for or has no extension for', async () => {
    const h = await harness();
    const { id } = await h.call('create-snapshot');
    const path = join(folder(h, id), 'manifest.json');
    const manifest = JSON.parse(await readFile(path, 'utf8')) as Manifest;
    const put = (server: Partial<Manifest['server']>): Promise<void> =>
      writeFile(path, JSON.stringify({ ...manifest, server: { ...manifest.server, ...server } }));
    await put({ version_num: 990_001 });
    expect(await h.fails('restore', { snapshot_id: id, target_database: 'copy' })).toMatchObject({
      code: 'NOT_SUPPORTED',
      message: `this backup is of PostgreSQL 99; the server is ${Number.parseInt(server.version, 10)}`,
    });
    await put({ extensions: [{ name: 'no_such_extension', version: '1' }] });
    expect(await h.fails('restore', { snapshot_id: id, target_database: 'copy' })).toMatchObject({
      code: 'NOT_SUPPORTED',
      details: { extensions: ['no_such_extension'] },
    });
    await put({ collate: 'xx_XX.nowhere', ctype: 'xx_XX.nowhere' });
    expect(await h.fails('restore', { snapshot_id: id, target_database: 'copy' })).toMatchObject({
      code: 'NOT_SUPPORTED',
    });
    await put({ encoding: 'EUC_NOWHERE' });
    expect(await h.fails('restore', { snapshot_id: id, target_database: 'copy' })).toMatchObject({
      code: 'NOT_SUPPORTED',
    });
    expect(await databases(connection)).toEqual(['model', 'shop']);
  });

  it('keeps owners where their roles exist, refuses to lose them in place, and says so beside', async () => {
    await sql(connection, 'shop', 'CREATE ROLE seller', 'ALTER TABLE orders OWNER TO seller');
    const { call, fails, approved, engine } = await harness();
    const { id } = await call('create-snapshot');
    const owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'orders'";
    await call('restore', { snapshot_id: id, target_database: 'kept' });
    expect(await values(connection, 'kept', owner)).toEqual(['seller']);
    for (const name of ['kept', 'shop']) await sql(connection, name, 'REASSIGN OWNED BY seller TO postgres');
    await sql(connection, 'postgres', 'DROP ROLE seller');
    expect(await fails('restore', { snapshot_id: id })).toMatchObject({
      code: 'INVALID_PARAMETER',
      details: { roles: ['seller'] },
    });
    const dry = await engine.call({
      principal: { id: 'x', person: 'x', roles: ['operator'] },
      entity: 'app/shop',
      action: 'restore',
      input: { snapshot_id: id, target_database: 'lost' },
      dryRun: true,
    });
    expect(JSON.stringify(dry)).toContain('Owners and grants are left out, because roles');
    await call('restore', { snapshot_id: id, target_database: 'lost' });
    expect(await values(connection, 'lost', owner)).toEqual(['postgres']);
    await approved('restore', { snapshot_id: id, no_owner: true, safety_snapshot: false });
    expect(await values(connection, 'shop', owner)).toEqual(['postgres']);
  });

  it('brings a lost database back under its name, with the settings that the backup recorded', async () => {
    await sql(
      connection,
      'shop',
      'CREATE ROLE app LOGIN',
      'CREATE ROLE gone',
      'ALTER DATABASE shop OWNER TO app',
      "ALTER DATABASE shop SET work_mem = '8MB'",
      "ALTER ROLE app IN DATABASE shop SET work_mem = '9MB'",
      'REVOKE CONNECT ON DATABASE shop FROM PUBLIC',
    );
    const before = await about('shop');
    await sql(connection, 'shop', 'GRANT CONNECT ON DATABASE shop TO gone');
    const { call } = await harness();
    const { id } = await call('create-snapshot');
    await sql(connection, 'postgres', 'DROP DATABASE shop WITH (FORCE)', 'DROP ROLE gone');
    expect(await call('restore', { snapshot_id: id })).toMatchObject({ database: 'shop', tables: 7 });
    expect(await about('shop')).toEqual(before);
    await sql(connection, 'postgres', 'DROP DATABASE shop WITH (FORCE)', 'DROP ROLE app');
  });

  it('drops what it made when it is cancelled', async () => {
    const { call, fails } = await harness();
    const { id } = await call('create-snapshot');
    for (const moment of ['Restoring the dump', 'Comparing']) {
      const controller = new AbortController();
      const onProgress = ({ message }: { message: string }): void => {
        if (message.startsWith(moment)) controller.abort();
      };
      const input = { snapshot_id: id, target_database: 'copy' };
      expect(await fails('restore', input, { onProgress, signal: controller.signal })).toMatchObject({
        code: 'CANCELLED',
      });
      await expect.poll(() => databases(connection)).toEqual(['model', 'shop']);
      await expect.poll(() => call('get-restore-status').then(({ status }) => status)).toBe('failed');
    }
  });

  it('works for the owner of a database who is no superuser, also in place', async () => {
    await sql(
      connection,
      'postgres',
      "CREATE ROLE owner LOGIN CREATEDB PASSWORD 'owner-pass'",
      'CREATE DATABASE owned OWNER owner',
    );
    const owner = { ...connection, user: 'owner', password: 'owner-pass' };
    await sql(owner, 'owned', 'CREATE TABLE t AS SELECT 1 AS one', 'CREATE VIEW v AS SELECT * FROM t');
    await sql(connection, 'owned', "ALTER DATABASE owned SET work_mem = '8MB'");
    const { call, approved, fails } = await harness({ connection: owner, database: 'owned' });
    const { id } = await call('create-snapshot');
    expect(await call('verify-snapshot', { snapshot_id: id, level: 'restored' })).toMatchObject({ passed: true });
    await sql(owner, 'owned', 'DROP TABLE t CASCADE');
    expect(await fails('restore', { snapshot_id: id })).toMatchObject({
      code: 'INSUFFICIENT_PERMISSIONS',
      hint: expect.stringContaining('pg_signal_backend'),
    });
    await sql(connection, 'postgres', 'GRANT pg_signal_backend TO owner');
    const result = await approved('restore', { snapshot_id: id });
    expect(await values(owner, 'owned', 'SELECT one FROM v')).toEqual(['1']);
    expect(await values(owner, 'owned', "SELECT current_setting('work_mem')")).toEqual(['8MB']);
    await sql(owner, 'postgres', String(result['drop_kept_with']));
    await sql(connection, 'postgres', 'DROP DATABASE owned', 'DROP ROLE owner');
  });

  it.skipIf(!hasStock)(
    `works without Holdfast, by the commands that describe-snapshot gives${hasStock ? '' : ' (skipped: no age or zstd)'}`,
    async () => {
      const h = await sealedHarness();
      const { id } = await h.call('create-snapshot');
      const { provider } = await h.call('describe-snapshot', { snapshot_id: id });
      const [binaries] = await findBinaries();
      await sql(connection, 'postgres', 'CREATE DATABASE by_hand TEMPLATE template0');
      const key = join(h.storage, 'key');
      await writeFile(key, `${identity}\n`, { mode: 0o600 });
      const command = String(provider['without_holdfast'])
        .replace('KEY_FILE', key)
        .replace('pg_restore', `${binaries!.directory}/pg_restore --exit-on-error`)
        .replace('NEW_DATABASE', 'by_hand');
      expect(command).toMatch(/^age -d -i .* payload\.dump\.zst\.age \| zstd -d \| .*pg_restore/);
      const { host, port, user, password } = connection;
      await run('sh', ['-c', command], {
        cwd: folder(h, id),
        env: { PATH: process.env['PATH'], PGHOST: host, PGPORT: String(port), PGUSER: user, PGPASSWORD: password },
      });
      expect(await values(connection, 'by_hand', COUNT)).toEqual(['3000']);
    },
  );
});
