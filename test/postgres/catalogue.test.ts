import { execFile } from 'node:child_process';
import { appendFile, cp, mkdir, mkdtemp, readdir, readFile, rm, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import type { Connection } from '../../src/postgres/connection.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import {
  databases,
  describePostgres,
  type PostgresHarness,
  sql,
  startPostgresHarness,
  startTestServer,
  values,
} from '../support/postgres.ts';
import { builtProgram } from '../support/shared.ts';

const run = promisify(execFile);
const main = join(await builtProgram(), 'dist', 'main.js');
const SOURCE = 'app-shop-8ebe9076';

/** What the program said, and how it ended. */
interface Said {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  readonly json: JsonObject;
}

describePostgres('the catalogue', () => {
  let server: PrivateServer;
  let connection: Connection;
  let model: string;
  let first: string;
  let second: string;
  let key: string;
  let directory: string;
  let storage: string;
  const backups = (): string => join(storage, 'v1', SOURCE, 'backups');

  /** Runs the program as on a machine that has nothing: another home, no entities file, no state. */
  const holdfast = async (...args: string[]): Promise<Said> => {
    const env = { PATH: process.env['PATH'], HOME: directory, PGPASSWORD: connection.password };
    const all = ['--state-dir', join(directory, 'state'), ...args];
    const done = await run(process.execPath, [main, ...all], { cwd: directory, env }).then(
      ({ stdout, stderr }) => ({ code: 0, out: stdout, err: stderr }),
      ({ code, stdout, stderr }) => ({ code: Number(code), out: String(stdout), err: String(stderr) }),
    );
    return { ...done, json: args.includes('--json') ? (JSON.parse(done.out) as JsonObject) : {} };
  };
  const sourceOf = ({ json }: Said): JsonObject => (json['sources'] as JsonObject[])[0]!;

  beforeAll(async () => {
    server = await startTestServer();
    connection = server.connection;
    await sql(connection, 'postgres', 'CREATE DATABASE shop');
    await sql(connection, 'shop', 'CREATE TABLE t AS SELECT generate_series(1, 10) AS v');
    model = await mkdtemp(join(tmpdir(), 'hf-model-'));
    const identity = await generateIdentity();
    key = join(model, 'age.key');
    await writeFile(key, `${identity}\n`, { mode: 0o600 });
    const recipient = await identityToRecipient(identity);
    const harness: PostgresHarness = await startPostgresHarness({
      connection,
      database: 'shop',
      storage: join(model, 'store'),
      parameters: { encryption: { recipients: [recipient] } },
    });
    first = (await harness.call('create-snapshot')).id;
    second = (await harness.call('create-snapshot', { label: 'second' })).id;
    await harness.call('verify-snapshot', { snapshot_id: second, level: 'stored' });
    await harness.call('hold-snapshot', { snapshot_id: first, reason: 'audit' });
    await harness.close();
  });
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'hf-empty-'));
    storage = join(directory, 'store');
    await cp(join(model, 'store'), storage, { recursive: true });
    return () => rm(directory, { recursive: true, force: true });
  });
  afterAll(async () => {
    await server?.stop();
    if (model !== undefined) await rm(model, { recursive: true, force: true });
  });

  it('is rebuilt from the storage and the key alone, on an empty machine, and restores from there', async () => {
    const rebuilt = await holdfast('catalog', 'rebuild', '--storage', storage, '--identity', key);
    expect(rebuilt).toMatchObject({
      code: 0,
      err: expect.stringContaining('the key here opens the newest good backup'),
    });
    expect(rebuilt.err).toContain(`do app/shop/restore snapshot_id=${second}`);
    expect(rebuilt.out).not.toContain((await readFile(key, 'utf8')).trim());
    // Where the new server is, only a person knows.
    const text = rebuilt.out
      .replace(/host: .*/, `host: ${JSON.stringify(connection.host)}`)
      .replace(/port: .*/, `port: ${connection.port}`)
      .replace(/user: .*/, `user: ${connection.user}`);
    await writeFile(join(directory, 'holdfast.yaml'), text);
    const listed = await holdfast('do', 'app/shop/list-snapshots', '--json');
    const { snapshots } = listed.json as { snapshots: JsonObject[] };
    expect(snapshots.map(({ id }) => id)).toEqual([second, first]);
    expect(snapshots[1]).toMatchObject({ restorable: true, provider: { held: 'audit' } });
    const restored = await holdfast(
      ...['do', 'app/shop/restore', `snapshot_id=${first}`, 'target_database=rescued', '--wait', '--json'],
    );
    expect(restored, restored.err).toMatchObject({ code: 0, json: { result: { tables: 1, rows: 10 } } });
    expect(await values(connection, 'rescued', 'SELECT count(*) FROM t')).toEqual(['10']);
    await sql(connection, 'postgres', 'DROP DATABASE rescued');
    expect(await databases(connection)).toEqual(['shop']);
  });

  it('says of a whole storage that it is whole, and which key it lacks', async () => {
    const whole = await holdfast('catalog', 'doctor', '--storage', storage, '--json');
    expect(whole).toMatchObject({ code: 0, json: { healthy: true, foreign: { count: 0 }, other_layouts: {} } });
    expect(sourceOf(whole)).toMatchObject({
      source_id: SOURCE,
      name: 'app/shop',
      backups: 2,
      held: 1,
      key: 'no_key_here',
      problems: [],
      newest_good: { snapshot_id: second },
    });
    const stranger = join(directory, 'other.key');
    await writeFile(stranger, await generateIdentity());
    const wrong = await holdfast('catalog', 'doctor', '--storage', storage, '--identity', stranger);
    expect(wrong.out).toContain('the key here does NOT open');
    expect(wrong.out).toContain('Every backup that is listed has all its files.');
  });

  it('shows what is damaged, missing, orphaned, foreign or of another time, and touches none of it', async () => {
    const old = new Date(Date.now() - 48 * 3600 * 1000);
    const orphan = '20260101T000000Z-logical-orphan';
    const young = `${new Date().toISOString().replace(/[-:]|\.\d+/g, '')}-logical-young0`;
    for (const id of [orphan, young]) {
      await mkdir(join(backups(), id));
      await writeFile(join(backups(), id, 'payload.dump.zst.age'), 'half');
    }
    await utimes(join(backups(), orphan, 'payload.dump.zst.age'), old, old);
    const bent = '20260102T000000Z-logical-bent00';
    await mkdir(join(backups(), bent));
    await writeFile(join(backups(), bent, 'manifest.json'), '{"schema": "holdfast.pg/9"}');
    const files = await readdir(join(backups(), first));
    await truncate(join(backups(), first, files.find((name) => name.startsWith('payload'))!), 100);
    await rm(join(backups(), first, files.find((name) => name.startsWith('inventory'))!));
    await writeFile(join(backups(), second, 'notes\u202e.txt'), 'mine');
    await mkdir(join(storage, 'v1', SOURCE, 'holds'), { recursive: true });
    await writeFile(join(storage, 'v1', SOURCE, 'holds', '20250101T000000Z-logical-gone00.json'), '{}');
    await appendFile(join(storage, 'v1', SOURCE, 'source.json'), 'x');
    await mkdir(join(storage, 'v2', 'later-source'), { recursive: true });
    await writeFile(join(storage, 'v2', 'later-source', 'source.json'), '{}');
    await mkdir(join(storage, 'v1', 'other-12345678'), { recursive: true });
    await writeFile(join(storage, 'v1', 'other-12345678', 'source.json'), '{"name": "app/other"}');
    await writeFile(join(storage, 'holiday.jpg'), 'picture');
    const before = await readdir(storage, { recursive: true });

    const found = await holdfast('catalog', 'doctor', '--storage', storage, '--identity', key, '--json');
    expect(found).toMatchObject({
      code: 34,
      json: {
        healthy: false,
        foreign: { count: 1, bytes: 7, names: ['holiday.jpg'] },
        other_layouts: { v2: 1 },
        sources: [
          { source_id: SOURCE, name: null, newest_good: { snapshot_id: second }, key: 'opens', unfinished: [young] },
          { source_id: 'other-12345678', name: 'app/other', backups: 0, newest: null, entity: null },
        ],
      },
    });
    const problems = sourceOf(found)['problems'] as { kind: string; what: string; message: string }[];
    expect(problems.map(({ kind, what }) => `${kind} ${what}`)).toEqual([
      `damaged_manifest ${bent}`,
      `missing_file ${first}`,
      `wrong_size ${first}`,
      `no_source_file v1/${SOURCE}/source.json`,
      `orphan ${orphan}`,
      `unlisted_file ${second}`,
      'stray_hold 20250101T000000Z-logical-gone00',
    ]);
    expect(problems.at(-2)?.message).toBe('notes.txt is not in its manifest');
    const shown = await holdfast('catalog', 'doctor', '--storage', storage);
    expect(shown).toMatchObject({ code: 34, out: expect.stringContaining("1 objects are not Holdfast's") });
    expect(await readdir(storage, { recursive: true })).toEqual(before);
    // What is left is still enough to go on with, under a name that says where it comes from.
    const rebuilt = await holdfast('catalog', 'rebuild', '--storage', storage);
    expect(rebuilt.out).toContain(`source_id: ${SOURCE}`);
    expect(rebuilt.out).toContain('namespace: restored');
  });

  it('is looked through for an entity by its action, which sees no other source unless it is asked to', async () => {
    await mkdir(join(storage, 'v1', 'other-12345678'), { recursive: true });
    await writeFile(join(storage, 'v1', 'other-12345678', 'source.json'), '{"name": "app/other"}');
    // The server is not asked.
    const away = { ...connection, port: 1 };
    const harness = await startPostgresHarness({ connection: away, database: 'shop', storage });
    const own = await harness.call('check-catalog');
    expect(own['sources']).toMatchObject([{ source_id: SOURCE, backups: 2, key: 'no_key_here' }]);
    expect((await harness.call('check-catalog', { all_sources: true }))['sources']).toHaveLength(2);
    await harness.close();
  });

  it('says what is wrong with a place that holds nothing, or is none', async () => {
    const empty = await holdfast('catalog', 'doctor', '--storage', directory, '--json');
    expect(empty).toMatchObject({ code: 22, json: { error: { code: 'RESOURCE_NOT_FOUND' } } });
    const cases: [string[], string][] = [
      [['--storage', join(directory, 'nowhere')], 'there is no directory'],
      [['--storage', 'ftp://x/y'], 'no address of a store'],
      [['--storage', 's3://user:secret@bucket/x'], 'no address of a store'],
      [['--storage', storage, '--identity', join(directory, 'nothing')], 'there is no file'],
      [[], 'name an entity or a storage'],
    ];
    const refused = cases.map(async ([args, message]) => {
      expect(await holdfast('catalog', 'doctor', ...args), args.join(' ')).toMatchObject({
        code: 2,
        err: expect.stringContaining(message),
      });
    });
    await Promise.all(refused);
  });
});
