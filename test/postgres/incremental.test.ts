import { chmod, chown, cp, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { runChild } from '../../src/postgres/child.ts';
import type { Connection } from '../../src/postgres/connection.ts';
import { copyAccount } from '../../src/postgres/copy-server.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import { Repository, sourceIdOf } from '../../src/postgres/repository.ts';
import { WalArchive } from '../../src/postgres/wal-archive.ts';
import { localStore } from '../../src/storage/local.ts';
import {
  describeNewer,
  NEWER_BIN,
  type PostgresHarness,
  readCopy,
  sql,
  startPostgresHarness,
  startTestServer,
  values,
} from '../support/postgres.ts';

const SOON = { timeout: 20_000 };
const MARKS = "SELECT string_agg(v, ',' ORDER BY i) FROM marks";

// One server, one storage and one chain of backups, each test with what the ones before it have made.
describeNewer('incremental backups', () => {
  let server: PrivateServer;
  let connection: Connection;
  let root: string;
  let archived: string;
  let h: PostgresHarness;
  let archive: WalArchive;
  let identity: string;
  let recipient: string;
  /** full, incr on it, incr on that, diff on the full one */
  const chain: string[] = [];

  const one = async (query: string): Promise<string> => (await values(connection, 'shop', query))[0] ?? '';
  const mark = (text: string): Promise<void> => sql(connection, 'shop', `INSERT INTO marks (v) VALUES ('${text}')`);
  /** Ends the segment that is being written and brings everything that the server has archived into the store. */
  const ship = async (): Promise<void> => {
    // At the very beginning of a segment there is nothing to end, and since version 17 its name is that of the next.
    await one("SELECT pg_logical_emit_message(false, 'test', 'something to archive')");
    const segment = await one('SELECT pg_walfile_name(pg_switch_wal())');
    await vi.waitFor(async () => expect(await readdir(archived)).toContain(segment), SOON);
    for (const name of (await readdir(archived)).sort()) {
      if (!/^[0-9A-F]{24}$/.test(name) || (await archive.has(name))) continue;
      await archive.put(join(archived, name), { sealing: { scheme: 'age', recipients: [recipient] }, level: 1 });
    }
  };
  const inCopy = (directory: string, ...queries: string[]) =>
    readCopy({ directory, database: 'shop', binDir: NEWER_BIN }, ...queries);
  /** What the storage has of backups. */
  const stored = async (): Promise<string[]> =>
    (await readdir(join(h.storage, `v1/${sourceIdOf('app/shop')}/backups`), { recursive: true })).sort();
  const give = async (directory: string): Promise<void> => {
    const account = await copyAccount();
    if (account === undefined) return;
    for (const name of ['.', ...(await readdir(directory, { recursive: true }))]) {
      await chown(join(directory, name), account.uid, account.gid);
    }
  };

  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'hf-incr-'));
    // PostgreSQL runs as another account where the tests run as root.
    await chmod(root, 0o755);
    archived = join(root, 'archived');
    await mkdir(archived);
    await chmod(archived, 0o777);
    await mkdir(join(root, 'space'));
    await give(join(root, 'space'));
    server = await startTestServer(
      {
        summarize_wal: 'on',
        archive_mode: 'on',
        archive_command: `cp "%p" "${archived}/%f.part" && mv "${archived}/%f.part" "${archived}/%f"`,
        track_commit_timestamp: 'on',
        autovacuum: 'off',
      },
      NEWER_BIN,
    );
    connection = server.connection;
    await sql(
      connection,
      'postgres',
      'CREATE DATABASE shop',
      `CREATE TABLESPACE fast LOCATION '${join(root, 'space')}'`,
    );
    await sql(
      connection,
      'shop',
      'CREATE TABLE marks (i int GENERATED ALWAYS AS IDENTITY, v text)',
      'CREATE TABLE big AS SELECT i AS id, md5(i::text) FROM generate_series(1, 50000) i',
      'CREATE TABLE elsewhere TABLESPACE fast AS SELECT i AS id, md5(i::text) FROM generate_series(1, 5000) i',
    );
    identity = await generateIdentity();
    recipient = await identityToRecipient(identity);
    h = await startPostgresHarness({
      connection,
      database: 'shop',
      parameters: {
        bin_dir: NEWER_BIN,
        encryption: { recipients: [recipient], identity: '${env:AGE_KEY}' },
      },
      secrets: { AGE_KEY: identity },
    });
    const repository = new Repository(localStore(h.storage), sourceIdOf('app/shop'));
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    archive = new WalArchive(repository, { assertMayWrite: () => {}, log });
    const system = await one('SELECT system_identifier::text FROM pg_control_system()');
    await archive.claim({ system_identifier: system, segment_size: 16_777_216 }, 'app/shop', new Date());
  }, 60_000);
  afterAll(async () => {
    await h?.close();
    await server?.stop();
    await rm(root, { recursive: true, force: true });
  });

  it('rest on each other, the first on a full one, and hold little more than what has changed', async () => {
    for (const type of ['incr', 'diff']) {
      expect(await h.fails('create-snapshot', { type })).toMatchObject({
        code: 'INVALID_STATE',
        hint: expect.stringContaining('type: full'),
      });
    }
    const parents: unknown[] = [];
    for (const [index, type] of ['full', 'incr', 'incr', 'diff'].entries()) {
      const made = await h.call('create-snapshot', { type });
      chain.push(made.id);
      parents.push(made.provider['parent_id']);
      await mark(`after ${index}`);
      await sql(connection, 'shop', `UPDATE elsewhere SET md5 = 'changed ${index}' WHERE id = ${index}`);
    }
    expect(parents).toEqual([null, chain[0], chain[1], chain[0]]);
    const { snapshots } = (await h.call('list-snapshots')) as unknown as {
      snapshots: { id: string; size_bytes: number }[];
    };
    const size = Object.fromEntries(snapshots.map(({ id, size_bytes }) => [id, size_bytes]));
    for (const id of chain.slice(1)) expect(size[id]!).toBeLessThan(size[chain[0]!]! / 2);
  }, 60_000);

  it('are verified by putting the chain together and starting it', async () => {
    for (const [id, level] of [
      [chain[1]!, 'readable'],
      [chain[2]!, 'restored'],
    ] as const) {
      expect(await h.call('verify-snapshot', { snapshot_id: id, level })).toMatchObject({ passed: true });
    }
  }, 120_000);

  it('are what a recovery starts from, up to the record that was asked for and no further', async () => {
    await mark('wanted');
    const lsn = await one('SELECT pg_current_wal_lsn()');
    await mark('too late');
    await ship();
    const directory = join(root, 'recovered');
    const space = await one("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'");
    const spaces = join(root, 'recovered-space');
    const result = await h.call('restore', {
      target_directory: directory,
      lsn,
      tablespace_map: { [space]: spaces },
    });
    expect(result).toMatchObject({ snapshot_id: chain[3], reached: { timeline: 2 } });
    expect(
      await inCopy(
        directory,
        MARKS,
        "SELECT count(*) FROM elsewhere WHERE md5 LIKE 'changed %'",
        'SELECT count(*) FROM big',
      ),
    ).toEqual(['after 0,after 1,after 2,after 3,wanted', '3', '50000']);
    expect(await values(connection, 'shop', 'SELECT count(*) FROM marks')).toEqual(['6']);
  }, 60_000);

  it('can be recovered with age, zstd and the programs of PostgreSQL alone, as describe-snapshot prints it', async () => {
    const last = chain[2]!;
    const described = await h.call('describe-snapshot', { snapshot_id: last });
    expect(described.provider['rests_on']).toEqual(chain.slice(0, 2));
    const lines = described.provider['recovery_without_holdfast'] as unknown as string[];
    const lsn = await one('SELECT pg_current_wal_lsn()');
    await mark('after the hand');
    await ship();
    // What an operator has: a copy of the storage, a key, and a shell as the account of the server.
    const hand = join(root, 'by-hand');
    await mkdir(hand);
    await cp(join(h.storage, `v1/${sourceIdOf('app/shop')}`), join(hand, 'store'), { recursive: true });
    await writeFile(join(hand, 'key'), identity);
    const script = lines
      .join('\n')
      .replaceAll('NEW_DATA_DIRECTORY', `${hand}/data`)
      .replaceAll('NEW_TABLESPACES', `${hand}/spaces`)
      .replaceAll('WAL_DIRECTORY', `${hand}/store/wal`)
      .replaceAll('KEY_FILE', `${hand}/key`)
      .replaceAll('TARGET_LSN', lsn)
      .replace(
        '-c port=FREE_PORT',
        `-c config_file=${hand}/conf -c hba_file=${hand}/hba -k ${hand} -c listen_addresses=`,
      );
    await writeFile(join(hand, 'conf'), '');
    await writeFile(join(hand, 'hba'), 'local all all trust\n');
    await writeFile(join(hand, 'script'), `cd ${hand}/store/backups/${last}\n${script} -l ${hand}/log -w\n`);
    await give(hand);
    const account = await copyAccount();
    const env = { PATH: `${NEWER_BIN}:/usr/local/bin:/usr/bin:/bin`, LC_ALL: 'C' };
    await runChild('/bin/sh', [join(hand, 'script')], { env, account });
    try {
      const there = { ...connection, host: hand, port: 5432 };
      await vi.waitFor(
        async () => expect(await values(there, 'shop', 'SELECT pg_is_in_recovery()')).toEqual(['false']),
        SOON,
      );
      expect(await values(there, 'shop', MARKS)).toEqual(['after 0,after 1,after 2,after 3,wanted,too late']);
      expect(await values(there, 'shop', 'SELECT count(*) FROM elsewhere')).toEqual(['5000']);
    } finally {
      await runChild(join(NEWER_BIN, 'pg_ctl'), ['stop', '-D', `${hand}/data`, '-m', 'immediate'], { env, account });
    }
  }, 60_000);

  it('are kept while others rest on them', async () => {
    expect(await h.fails('delete-snapshot', { snapshot_id: chain[1]! })).toMatchObject({
      code: 'INVALID_STATE',
      hint: expect.stringContaining(chain[2]!),
    });
    for (const id of [chain[2]!, chain[1]!]) await h.approved('delete-snapshot', { snapshot_id: id });
    const { snapshots } = await h.call('list-snapshots');
    expect(snapshots).toMatchObject([
      { id: chain[3], restorable: true },
      { id: chain[0], restorable: true },
    ]);
  });

  it('leave nothing when the copying is killed, and what they rest on as it was', async () => {
    const before = await stored();
    await sql(connection, 'shop', 'INSERT INTO big SELECT i, md5(i::text) FROM generate_series(1, 300000) i');
    const running = h.fails('create-snapshot', { type: 'incr' });
    const pid = await vi.waitFor(async () => {
      const [found] = await values(
        connection,
        'postgres',
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'",
      );
      expect(found).toBeDefined();
      return Number(found);
    }, SOON);
    process.kill(pid, 'SIGTERM');
    expect((await running).code).toMatch(/PROVIDER_UNAVAILABLE|INVALID_STATE|CANCELLED/);
    expect(await stored()).toEqual(before);
    const made = await h.call('create-snapshot', { type: 'incr' });
    expect(made.provider['parent_id']).toBe(chain[3]);
  }, 60_000);

  it('are refused where the server no longer knows what has changed, until there is a full one again', async () => {
    await sql(connection, 'shop', 'ALTER SYSTEM SET summarize_wal = off', 'SELECT pg_reload_conf()');
    await expect
      .poll(async () => (await h.fails('create-snapshot', { type: 'incr' })).message, SOON)
      .toContain('summarize_wal is off');
    // What it has summarised is gone, as after wal_summary_keep_time, and so is the log that it could do that again from.
    for (let times = 3; times > 0; times -= 1) {
      await mark('unknown');
      await one('SELECT pg_switch_wal()');
      await sql(connection, 'shop', 'CHECKPOINT');
    }
    const summaries = join(server.directory, 'data', 'pg_wal', 'summaries');
    for (const name of await readdir(summaries)) await rm(join(summaries, name));
    await sql(connection, 'shop', 'ALTER SYSTEM SET summarize_wal = on', 'SELECT pg_reload_conf()');
    await expect
      .poll(async () => await h.fails('create-snapshot', { type: 'incr' }), SOON)
      .toMatchObject({ code: 'INVALID_STATE', hint: expect.stringMatching(/type(:| )full/) });
    const full = await h.call('create-snapshot', { type: 'full' });
    const next = await h.call('create-snapshot', { type: 'incr' });
    expect(next.provider['parent_id']).toBe(full.id);
  }, 60_000);
});
