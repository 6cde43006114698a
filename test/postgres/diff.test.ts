import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import type { Connection } from '../../src/postgres/connection.ts';
import { diffInventories, diffLines, maskSecrets } from '../../src/postgres/diff.ts';
import type { Inventory } from '../../src/postgres/inventory.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import { dice } from '../support/mutating-calls.ts';
import {
  databases,
  describePostgres,
  type PostgresHarness,
  type PostgresHarnessOptions,
  SHOP,
  sql,
  startPostgresHarness,
  startTestServer,
} from '../support/postgres.ts';

describe('a difference of lines', () => {
  it('says in which statement a line came or went', () => {
    const before = ['CREATE TABLE "a" (', '    "x" integer', ');', 'CREATE TABLE "b" (', '    "y" text', ');'];
    const after = before.toSpliced(4, 1, '    "y" text NOT NULL');
    expect(diffLines(before, after)).toEqual({
      only_in_backup: 1,
      only_in_other: 1,
      lines: ['@ CREATE TABLE "b" (', '-     "y" text', '+     "y" text NOT NULL'].map((line) =>
        line.replace(/ {2,}/g, ' '),
      ),
    });
    expect(diffLines(before, before)).toEqual({ only_in_backup: 0, only_in_other: 0, lines: [] });
    expect(diffLines([], after)).toMatchObject({ only_in_backup: 0, only_in_other: 6 });
  });

  it('leads from one side to the other, whatever they are, with no more edits than lines', () => {
    const random = dice('lines');
    for (let round = 0; round < 200; round += 1) {
      const left = Array.from({ length: Math.floor(random() * 30) }, () => `l${Math.floor(random() * 8)}`);
      const right = left.flatMap((line) =>
        random() < 0.2 ? [] : random() < 0.2 ? [line, `r${Math.floor(random() * 4)}`] : [line],
      );
      const { only_in_backup, only_in_other, lines } = diffLines(left, right);
      expect(left.length - only_in_backup).toBe(right.length - only_in_other);
      const count = (all: readonly string[], line: string): number => all.filter((one) => one === line).length;
      for (const line of new Set([...left, ...right])) {
        expect(count(left, line) - count(lines, `- ${line}`)).toBe(count(right, line) - count(lines, `+ ${line}`));
      }
    }
  });

  it('gives up the order, not the answer, where almost all differs', () => {
    const left = Array.from({ length: 3000 }, (_, index) => `a${index}`);
    const right = [...Array.from({ length: 3000 }, (_, index) => `b${index}`), 'a7'];
    expect(diffLines(left, right)).toMatchObject({ only_in_backup: 2999, only_in_other: 3000 });
  });

  it.each([
    [`    "password" 'hunter2',`, `    "password" '***',`],
    [`ALTER DATABASE "…" SET "app"."api_key" TO E'a\\\\b'`, `ALTER DATABASE "…" SET "app"."api_key" TO '***'`],
    [
      `CREATE SUBSCRIPTION "s" CONNECTION 'host=x password=it''s' PUBLICATION "p"`,
      `CREATE SUBSCRIPTION "s" CONNECTION '***' PUBLICATION "p"`,
    ],
    [`    "password" "text" NOT NULL`, `    "password" "text" NOT NULL`],
    ["  dblink('host=x password=hunter2 user=y')", "  dblink('host=x password=*** user=y')"],
    [`    "user" 'bob'`, `    "user" 'bob'`],
  ])('does not show what could be a secret: %s', (line, expected) => {
    expect(maskSecrets(line)).toBe(expected);
  });
});

describe('a difference of inventories', () => {
  const inventory = (tables: Inventory['tables'], more: Partial<Inventory> = {}): Inventory => ({
    schema: 'holdfast.pg.inventory/1',
    server_major: 15,
    tables,
    sequences: [],
    large_objects: '0',
    objects: [],
    schema_text: '',
    access_text: '',
    roles: [],
    settings: { owner: 'o', connection_limit: -1, comment: null, grants: null, settings: [] },
    ...more,
  });
  const table = (name: string, rows: string, hash: string | null = '1') => ({ schema: 'public', name, rows, hash });

  it('counts all and shows some: the lost tables first, then by how much', () => {
    const many = Array.from({ length: 70 }, (_, index) => table(`t${index}`, String(index + 10)));
    const backup = inventory([...many, table('lost', '5'), table('bad\u202e\nname', '1')]);
    const other = inventory([...many.map((one) => ({ ...one, rows: '5' })), table('bad\u202e\nname', '1', '2')]);
    const found = diffInventories(backup, other, { content: true, text: true });
    expect(found.tables).toEqual({
      same: 0,
      same_count: 0,
      rows_differ: 70,
      content_differs: 1,
      only_in_backup: 1,
      only_in_other: 0,
    });
    expect(found.table_differences).toHaveLength(50);
    expect(found.table_differences.slice(0, 2)).toEqual([
      { table: 'public.lost', verdict: 'only_in_backup', in_backup: '5' },
      { table: 'public.t69', verdict: 'rows_differ', in_backup: '79', in_other: '5' },
    ]);
    expect(found.omitted).toBe(22);
    const one = diffInventories(inventory(backup.tables.slice(-1)), inventory(other.tables.slice(-1)), {
      content: true,
      text: true,
    });
    expect(one.table_differences).toEqual([
      { table: 'public.bad name', verdict: 'content_differs', in_backup: '1', in_other: '1' },
    ]);
  });

  it('counts only across major versions, and where a table was only counted', () => {
    const backup = inventory([table('a', '1', '7'), table('big', '9', null)], {
      schema_text: 'old words',
      objects: ['x'],
    });
    const other = inventory([table('a', '1', '8'), table('big', '9', '3')], {
      schema_text: 'new words',
      objects: ['x'],
    });
    const found = diffInventories(backup, other, { content: false, text: false });
    expect(found).toMatchObject({ identical: true, tables: { same: 0, same_count: 2 }, schema: { lines: [] } });
    expect(diffInventories(backup, other, { content: true, text: true }).tables).toMatchObject({
      content_differs: 1,
      same_count: 1,
    });
  });
});

describePostgres('diff-snapshot', () => {
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

  it('finds nothing where nothing has changed, also in a restored copy but for words of the schema', async () => {
    const { call } = await harness();
    const { id } = await call('create-snapshot');
    const same = await call('diff-snapshot', { snapshot_id: id });
    expect(same).toMatchObject({
      identical: true,
      tables: { same: 7, rows_differ: 0, content_differs: 0, only_in_backup: 0, only_in_other: 0 },
      table_differences: [],
      schema: { lines: [] },
      access: { lines: [] },
      cost: { tables_read: 7, rows_read: 3016 },
    });
    await call('restore', { snapshot_id: id, target_database: 'copy' });
    const copy = await call('diff-snapshot', { snapshot_id: id, database: 'copy' });
    expect(copy).toMatchObject({ other: { database: 'copy' }, tables: { same: 7 }, table_differences: [] });
  });

  it('says what became of each table, of the schema, and of rights and settings', async () => {
    const { call, engine } = await harness();
    const { id } = await call('create-snapshot');
    await sql(
      connection,
      'shop',
      'DELETE FROM orders WHERE id > 2990',
      'UPDATE child SET x = 9',
      'DROP TABLE checked',
      'CREATE TABLE "new ""table"" \u202e" (id int)',
      'ALTER TABLE parts ADD COLUMN extra int',
      'ALTER TABLE no_columns OWNER TO pg_monitor',
      "SELECT nextval('tickets')",
      "ALTER DATABASE shop SET work_mem = '8MB'",
      `ALTER DATABASE shop SET "app.api_key" = 'hunter2'`,
      "SELECT lo_from_bytea(0, 'another')",
    );
    const dry = await engine.call({
      principal: { id: 'cli:x', person: 'x', roles: ['viewer'] },
      entity: 'app/shop',
      action: 'diff-snapshot',
      input: { snapshot_id: id },
      dryRun: true,
    });
    expect(dry).toMatchObject({ plan: { risk: 'read', blast_radius: { reads_bytes: expect.any(Number) } } });
    const found = await call('diff-snapshot', { snapshot_id: id });
    expect(found).toMatchObject({
      identical: false,
      tables: { same: 3, rows_differ: 1, content_differs: 2, only_in_backup: 1, only_in_other: 1 },
      large_objects: { in_backup: '1', in_other: '2' },
    });
    const rows = found['table_differences'] as JsonObject[];
    expect(rows[0]).toEqual({ table: 'public.checked', verdict: 'only_in_backup', in_backup: '2' });
    expect(rows[1]).toEqual({ table: 'public.orders', verdict: 'rows_differ', in_backup: '3000', in_other: '2990' });
    expect(
      rows
        .slice(2)
        .map(({ table, verdict }) => `${table} ${verdict}`)
        .sort(),
    ).toEqual([
      'public.child content_differs',
      'public.new "table" only_in_other',
      'public.parts_2026 content_differs',
    ]);
    expect(found['sequence_differences']).toContainEqual({
      sequence: 'public.tickets',
      in_backup: '45',
      in_other: '40',
    });
    const schema = (found['schema'] as { lines: string[] }).lines;
    expect(schema).toContain('+ CREATE TABLE "public"."new ""table"" " (');
    expect(schema).toContain('- CREATE TABLE "public"."checked" (');
    const access = (found['access'] as { lines: string[] }).lines.join('\n');
    expect(access).toContain('+ ALTER TABLE "public"."no_columns" OWNER TO "pg_monitor"');
    expect(access).toContain(`+ ALTER DATABASE "…" SET "work_mem" TO '8MB'`);
    expect(access).toContain(`+ ALTER DATABASE "…" SET "app"."api_key" TO '***'`);
    expect(JSON.stringify(found)).not.toContain('hunter2');
  });

  it('compares two backups without the server', async () => {
    const storage = (await harness()).storage;
    const [first] = open;
    const before = await first!.call('create-snapshot');
    await sql(connection, 'shop', 'DELETE FROM orders WHERE id > 10');
    const after = await first!.call('create-snapshot');
    const away = await harness({ connection: { ...connection, port: 1 }, storage });
    const input = { snapshot_id: before.id, other_snapshot_id: after.id };
    expect(await away.call('diff-snapshot', input)).toMatchObject({
      other: { snapshot_id: after.id },
      table_differences: [{ table: 'public.orders', verdict: 'rows_differ', in_backup: '3000', in_other: '10' }],
      tables: { same: 6 },
    });
    expect(await away.fails('diff-snapshot', { snapshot_id: before.id })).toMatchObject({
      code: 'PROVIDER_UNAVAILABLE',
    });
    expect(await away.fails('diff-snapshot', { ...input, database: 'shop' })).toMatchObject({
      code: 'INVALID_PARAMETER',
    });
    expect(await away.fails('diff-snapshot', { snapshot_id: 'nothing' })).toMatchObject({ code: 'BACKUP_NOT_FOUND' });
  });

  it('says so where it only counts, and refuses a role that would not see all', async () => {
    const counting = await harness({ parameters: { fingerprint_max_rows: 0 } });
    await sql(connection, 'shop', 'ANALYZE');
    const { id } = await counting.call('create-snapshot');
    await sql(connection, 'shop', "UPDATE orders SET note = 'other'");
    const found = await counting.call('diff-snapshot', { snapshot_id: id });
    expect(found).toMatchObject({ tables: { content_differs: 0, rows_differ: 0 } });
    expect((found['tables'] as JsonObject)['same_count']).toBeGreaterThan(0);
    expect((found['notes'] as string[])[0]).toMatch(/content was not compared, being larger than fingerprint_max_rows/);
    await sql(connection, 'shop', "CREATE ROLE diff_reader LOGIN PASSWORD 'diff-pass'");
    const blind = await harness({
      connection: { ...connection, user: 'diff_reader', password: 'diff-pass' },
      storage: counting.storage,
    });
    expect(await blind.fails('diff-snapshot', { snapshot_id: id })).toMatchObject({ code: 'INSUFFICIENT_PERMISSIONS' });
  });
});
