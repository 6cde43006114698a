import { chmod, chown, cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import type { Plan } from '../../src/core/plan.ts';
import { runChild } from '../../src/postgres/child.ts';
import type { Connection } from '../../src/postgres/connection.ts';
import { copyAccount, startCopyServer } from '../../src/postgres/copy-server.ts';
import { findServerBinaries, type PrivateServer } from '../../src/postgres/private-server.ts';
import { Repository, sourceIdOf } from '../../src/postgres/repository.ts';
import type { Sealing } from '../../src/postgres/seal.ts';
import { WalArchive, type WalSource } from '../../src/postgres/wal-archive.ts';
import { localStore } from '../../src/storage/local.ts';
import { ANA } from '../support/harness.ts';
import {
  describePostgres,
  type PostgresHarness,
  readCopy,
  sql,
  startPostgresHarness,
  startTestServer,
  values,
} from '../support/postgres.ts';

describePostgres('recovery to a point in time', () => {
  let server: PrivateServer;
  let connection: Connection;
  let root: string;
  let archived: string;
  let harness: PostgresHarness;
  let archive: WalArchive;
  let base: string;
  let afterPoint: string;
  let beforePoint: string;
  let count = 0;

  const one = async (query: string): Promise<string> => (await values(connection, 'shop', query))[0] ?? '';
  const pgbench = async (...args: string[]): Promise<void> => {
    const { directory } = await findServerBinaries();
    await runChild(join(directory, 'pgbench'), args, {
      env: {
        PGHOST: connection.host,
        PGPORT: String(connection.port),
        PGUSER: connection.user,
        PGPASSWORD: connection.password ?? '',
        PGDATABASE: 'shop',
        LC_ALL: 'C',
      },
    });
  };
  /** Ends the segment that is being written and brings everything that the server has archived into the store. */
  const ship = async (into = archive, sealing: Sealing = { scheme: 'none' }): Promise<void> => {
    // At the very beginning of a segment there is nothing to end, and since version 17 its name is that of the next.
    await one("SELECT pg_logical_emit_message(false, 'test', 'something to archive')");
    const segment = await one('SELECT pg_walfile_name(pg_switch_wal())');
    await vi.waitFor(async () => expect(await readdir(archived)).toContain(segment), { timeout: 20_000 });
    for (const name of (await readdir(archived)).sort()) {
      if (!/^[0-9A-F]{24}$/.test(name)) continue;
      if (!(await into.has(name))) await into.put(join(archived, name), { sealing, level: 1 });
    }
  };
  const planOf = async (input: JsonObject): Promise<Plan> => {
    const call = { principal: ANA, entity: 'app/shop', action: 'restore', input, dryRun: true };
    return ((await harness.engine.call(call)) as unknown as { plan: Plan }).plan;
  };
  const optionsAt = async (at: Date): Promise<JsonObject[]> => {
    const input = { entity: 'app/shop', at: at.toISOString() };
    const found = await harness.call('find-recovery-options', input, { entity: undefined });
    return found['options'] as JsonObject[];
  };
  const archiveOf = (storage: string): WalArchive =>
    new WalArchive(new Repository(localStore(storage), sourceIdOf('app/shop')), {
      assertMayWrite: () => {},
      log: { debug() {}, info() {}, warn() {}, error() {} },
    });
  const sourceOf = async (): Promise<WalSource> => ({
    system_identifier: await one('SELECT system_identifier::text FROM pg_control_system()'),
    segment_size: 16_777_216,
  });
  const target = (): string => {
    count += 1;
    return join(root, `copy-${count}`);
  };
  const inCopy = (directory: string, ...queries: string[]) => readCopy({ directory, database: 'shop' }, ...queries);

  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'hf-pitr-'));
    // PostgreSQL runs as another account where the tests run as root.
    await chmod(root, 0o755);
    archived = join(root, 'archived');
    await mkdir(archived);
    await chmod(archived, 0o777);
    server = await startTestServer({
      archive_mode: 'on',
      archive_command: `cp "%p" "${archived}/%f.part" && mv "${archived}/%f.part" "${archived}/%f"`,
      track_commit_timestamp: 'on',
      autovacuum: 'off',
    });
    connection = server.connection;
    await sql(connection, 'postgres', 'CREATE DATABASE shop');
    await sql(connection, 'shop', 'CREATE TABLE marks (v text)', "INSERT INTO marks VALUES ('base')");
    await pgbench('-i', '-q', '-s', '1');
    harness = await startPostgresHarness({ connection, database: 'shop' });
    archive = archiveOf(harness.storage);
    await archive.claim(await sourceOf(), 'app/shop', new Date());
    const load = pgbench('-n', '-c', '2', '-t', '300');
    base = (await harness.call('create-snapshot', { type: 'full' })).id;
    await load;
    await pgbench('-n', '-c', '1', '-t', '100');
    beforePoint = await one('SELECT pg_current_wal_lsn()');
    await pgbench('-n', '-c', '1', '-t', '100');
    await ship();
    await sql(connection, 'shop', "INSERT INTO marks VALUES ('before point')");
    await one(`SELECT pg_create_restore_point('${POINT}')`);
    await sql(connection, 'shop', "INSERT INTO marks VALUES ('after point')");
    afterPoint = await one('SELECT pg_current_wal_lsn()');
    await one("SELECT pg_logical_emit_message(false, 'holdfast', 'a record that begins there')");
    await ship();
    await sql(connection, 'shop', "INSERT INTO marks VALUES ('last')");
    await ship();
  }, 60_000);
  afterAll(async () => {
    await harness?.close();
    await server?.stop();
    await rm(root, { recursive: true, force: true });
  });

  it('brings back the last transaction that ended at the moment, and none that ended later', async () => {
    const moment = await one(
      `SELECT to_char(pg_xact_commit_timestamp(xmin) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
       FROM pgbench_history ORDER BY pg_xact_commit_timestamp(xmin) DESC OFFSET 99 LIMIT 1`,
    );
    const total = Number(await one('SELECT count(*) FROM pgbench_history'));
    const directory = target();
    const before = await readdir(archived);
    const result = await harness.call('restore', { target_directory: directory, restore_timestamp: moment });
    expect(result).toMatchObject({
      directory,
      snapshot_id: base,
      reached: { timeline: 2, last_transaction_at: moment },
    });
    expect(result['databases']).toContainEqual({ name: 'shop', size_bytes: expect.any(Number) });
    expect(
      await inCopy(directory, 'SELECT count(*) FROM pgbench_history', "SELECT string_agg(v, ',') FROM marks"),
    ).toEqual([String(total - 99), 'base']);
    // Nothing of the copy went where its source archives, and starting it by hand archives nothing either.
    expect(await readdir(archived)).toEqual(before);
    expect(await readFile(join(directory, 'postgresql.auto.conf'), 'utf8')).toContain("archive_mode = 'off'");
    expect((await readdir(root)).filter((name) => name.startsWith('.holdfast'))).toEqual([]);
  });

  it('stops at a named restore point, and after a record at a position', async () => {
    const marks = "SELECT string_agg(v, ',' ORDER BY xmin::text::int8) FROM marks";
    const point = target();
    const named = await harness.call('restore', { target_directory: point, restore_point: POINT });
    expect(await inCopy(point, marks)).toEqual(['base,before point']);
    expect(named['phases']).toMatchObject({
      unpack: expect.any(Number),
      recover: expect.any(Number),
      total: expect.any(Number),
    });
    const position = target();
    await harness.call('restore', { target_directory: position, lsn: afterPoint });
    expect(await inCopy(position, marks)).toEqual(['base,before point,after point']);
  });

  it('takes everything in the archive for a moment after its last commit, and says so', async () => {
    const moment = new Date().toISOString();
    const plan = await planOf({ target_directory: target(), restore_timestamp: moment });
    expect(plan.warnings[0]).toMatch(/The archive ends before .*pg_switch_wal/);
    expect(plan.facts.context).toMatchObject({ target: { kind: 'lsn' } });
  });

  it.each<[string, JsonObject, string, RegExp]>([
    [
      'a moment before the first backup',
      { restore_timestamp: '2020-01-01T00:00:00Z' },
      'INVALID_PARAMETER',
      /can be reached: 20/,
    ],
    ['a moment in the future', { restore_timestamp: '2100-01-01T00:00:00Z' }, 'INVALID_PARAMETER', /use_latest/],
    ['a position behind the archive', { lsn: 'F/0' }, 'INVALID_PARAMETER', /can be reached: 20/],
    ['a position before the backup', { lsn: '0/100' }, 'INVALID_PARAMETER', /can be reached: 20/],
    ['no position', { lsn: 'zero' }, 'INVALID_PARAMETER', /16\/B374D848/],
    ['a restore point that nobody made', { restore_point: 'release' }, 'INVALID_PARAMETER', /pg_switch_wal/],
    ['two targets', { use_latest: true, lsn: '0/3000000' }, 'INVALID_PARAMETER', /./],
    [
      'a timeline that is not there',
      { use_latest: true, timeline: 7 },
      'INVALID_PARAMETER',
      /timelines can be reached: 1/,
    ],
    [
      'a target without a directory',
      { use_latest: true, target_directory: undefined },
      'INVALID_PARAMETER',
      /absolute path/,
    ],
    [
      'a relative directory',
      { use_latest: true, target_directory: 'copy' },
      'INVALID_PARAMETER',
      /Nothing was written/,
    ],
    [
      'a directory without a parent',
      { use_latest: true, target_directory: '/nowhere/copy' },
      'INVALID_PARAMETER',
      /Nothing/,
    ],
    ['a database and a directory', { use_latest: true, target_database: 'x' }, 'INVALID_PARAMETER', /Leave it out/],
    ['backups of another source', { use_latest: true, from_source: 'other' }, 'INVALID_PARAMETER', /restore_from/],
    ['neither backup nor target', {}, 'INVALID_PARAMETER', /use_latest/],
  ])('refuses %s before it writes', async (_, input, code, hint) => {
    const before = await readdir(root);
    const error = await harness.fails('restore', { target_directory: target(), ...input });
    expect(error.code).toBe(code);
    expect(error.hint).toMatch(hint);
    expect(await readdir(root)).toEqual(before);
  });

  it('refuses a directory that is in use, or part of one', async () => {
    const live = `${server.directory}/data`;
    const inside = await harness.fails('restore', { target_directory: `${live}/base/copy`, use_latest: true });
    expect(inside).toMatchObject({
      code: 'INVALID_PARAMETER',
      message: expect.stringMatching(/inside of a PostgreSQL/),
    });
    const onto = await harness.fails('restore', { target_directory: live, use_latest: true });
    expect(onto.code).toBe('RESOURCE_EXISTS');
    const store = await harness.fails('restore', { target_directory: join(harness.storage, 'copy'), use_latest: true });
    expect(store.message).toMatch(/storage of the backups/);
  });

  it('offers the way back to a moment with its exact call', async () => {
    const at = new Date();
    const options = await optionsAt(at);
    expect(options[0]).toMatchObject({
      risk: 'create',
      loses: expect.stringMatching(/lacks the last \d+/),
      call: {
        action: 'restore',
        input: { use_latest: true, target_directory: expect.stringContaining(`${server.directory}/recovered-`) },
      },
    });
    const earlier = await one(
      `SELECT to_char(max(pg_xact_commit_timestamp(xmin)) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') FROM pgbench_history`,
    );
    const [exact] = await optionsAt(new Date(earlier));
    expect(exact).toMatchObject({ moment: earlier, call: { input: { restore_timestamp: earlier } } });
  });

  it('refuses a hole in the log and names what can be reached; a missing last segment is one too', async () => {
    const names: string[] = [];
    for await (const { file } of archive.list()) if (file.kind === 'segment') names.push(file.name);
    const last = names.at(-1) ?? '';
    const middle = names.at(-2) ?? '';
    const key = (name: string) => `v1/${sourceIdOf('app/shop')}/wal/00000001/${name}.zst`;
    const path = (name: string) => join(harness.storage, key(name));
    await rename(path(middle), `${root}/kept`);
    try {
      const error = await harness.fails('restore', { target_directory: target(), use_latest: true });
      expect(error.code).toBe('INTEGRITY_FAILED');
      expect(error.message).toContain(middle);
      expect(error.hint).toMatch(/can be reached: 20/);
      const late = await harness.fails('restore', {
        target_directory: target(),
        restore_timestamp: new Date().toISOString(),
      });
      expect(late.code).toBe('INTEGRITY_FAILED');
    } finally {
      await rename(`${root}/kept`, path(middle));
    }
    await rename(path(last), `${root}/kept`);
    try {
      const error = await harness.fails('restore', { target_directory: target(), use_latest: true });
      expect(error).toMatchObject({ code: 'INTEGRITY_FAILED', message: expect.stringContaining(last) });
    } finally {
      await rename(`${root}/kept`, path(last));
    }
  });

  it('can be done with age, zstd and the programs of PostgreSQL alone, as describe-snapshot prints it', async () => {
    const identity = await generateIdentity();
    const recipient = await identityToRecipient(identity);
    const sealed = await startPostgresHarness({
      connection,
      database: 'shop',
      parameters: { encryption: { recipients: [recipient], identity: '${env:AGE_KEY}' } },
      secrets: { AGE_KEY: identity },
    });
    const hand = join(root, 'by-hand');
    try {
      const { id } = await sealed.call('create-snapshot', { type: 'full' });
      const { provider } = await sealed.call('describe-snapshot', { snapshot_id: id });
      expect(provider).not.toHaveProperty('recovery_without_holdfast');
      await sql(connection, 'shop', "INSERT INTO marks VALUES ('by hand')");
      const own = archiveOf(sealed.storage);
      await own.claim(await sourceOf(), 'app/shop', new Date());
      await ship(own, { scheme: 'age', recipients: [recipient] });
      const lsn = await one('SELECT pg_current_wal_lsn()');
      await sql(connection, 'shop', "INSERT INTO marks VALUES ('too late')");
      await ship(own, { scheme: 'age', recipients: [recipient] });
      const described = await sealed.call('describe-snapshot', { snapshot_id: id });
      const lines = described.provider['recovery_without_holdfast'] as unknown as string[];
      // What an operator has: a copy of the storage, a key, and a shell as the account of the server.
      await mkdir(hand);
      await cp(join(sealed.storage, `v1/${sourceIdOf('app/shop')}`), join(hand, 'store'), { recursive: true });
      await writeFile(join(hand, 'key'), identity);
      const { directory } = await findServerBinaries();
      const script = lines
        .join('\n')
        .replaceAll('NEW_DATA_DIRECTORY', `${hand}/data`)
        .replaceAll('WAL_DIRECTORY', `${hand}/store/wal`)
        .replaceAll('KEY_FILE', `${hand}/key`)
        .replaceAll('TARGET_LSN', lsn)
        .replace(
          '-c port=FREE_PORT',
          `-c config_file=${hand}/conf -c hba_file=${hand}/hba -k ${hand} -c listen_addresses=`,
        );
      await writeFile(join(hand, 'conf'), '');
      await writeFile(join(hand, 'hba'), 'local all all trust\n');
      await writeFile(join(hand, 'script'), `cd ${hand}/store/backups/${id}\n${script} -l ${hand}/log -w\n`);
      const account = await copyAccount();
      if (account)
        for (const name of await readdir(hand, { recursive: true }))
          await chown(join(hand, name), account.uid, account.gid);
      if (account) await chown(hand, account.uid, account.gid);
      const env = { PATH: `${directory}:/usr/local/bin:/usr/bin:/bin`, LC_ALL: 'C' };
      await runChild('/bin/sh', [join(hand, 'script')], { env, account });
      try {
        const there = { ...connection, host: hand, port: 5432 };
        await vi.waitFor(
          async () => expect(await values(there, 'shop', 'SELECT pg_is_in_recovery()')).toEqual(['false']),
          { timeout: 20_000 },
        );
        expect(await values(there, 'shop', 'SELECT v FROM marks ORDER BY xmin::text::int8 DESC LIMIT 1')).toEqual([
          'by hand',
        ]);
      } finally {
        await runChild(join(directory, 'pg_ctl'), ['stop', '-D', `${hand}/data`, '-m', 'immediate'], { env, account });
      }
    } finally {
      await sealed.close();
    }
  });

  it('promotes nothing when a segment goes away while it recovers, and removes or keeps what there is', async () => {
    const names: string[] = [];
    for await (const { file } of archive.list()) if (file.kind === 'segment') names.push(file.name);
    const path = join(harness.storage, `v1/${sourceIdOf('app/shop')}/wal/00000001/${names.at(-1)}.zst`);
    const directory = target();
    let gone: Promise<void> | undefined;
    const error = await harness.fails(
      'restore',
      { target_directory: directory, use_latest: true, keep_failed: true },
      {
        onProgress: ({ message }) => {
          if (message.startsWith('Unpacking')) gone ??= rename(path, `${root}/kept`);
        },
      },
    );
    await gone;
    await rename(`${root}/kept`, path);
    expect(error.code).toBe('INTEGRITY_FAILED');
    expect(error.message).toMatch(/ended before the target was reached/);
    expect(error.details).toMatchObject({
      reached_lsn: expect.any(String),
      cleaned_up: [expect.stringContaining(directory)],
    });
    expect(await readdir(directory)).toContain('recovery.signal');
    expect(await harness.call('get-restore-status')).toMatchObject({ status: 'failed', usable: false });
  });

  it('recovers the newest that the archive has, and follows the timeline on which that goes on', async () => {
    // The segment that is still being written is archived in part, as holdfast wal receive does.
    await ship();
    await sql(connection, 'shop', "INSERT INTO marks VALUES ('in part')");
    const writing = await one('SELECT pg_walfile_name(pg_current_wal_lsn())');
    await cp(`${server.directory}/data/pg_wal/${writing}`, join(root, `${writing}.partial`));
    await archive.putPartial(join(root, `${writing}.partial`), { sealing: { scheme: 'none' }, level: 1 });
    const directory = target();
    const plan = await planOf({ target_directory: directory, use_latest: true });
    expect(plan.loses).toMatch(/^nothing/);
    expect(plan.warnings.join()).toMatch(/Everything up to [0-9A-F]+\/[0-9A-F]+, last commit 20/);
    expect(plan.facts.context).toMatchObject({ partial: writing });
    expect(plan.blast_radius).toMatchObject({ wal_segments: expect.any(Number), backups: [base] });
    const result = await harness.call('restore', { target_directory: directory, use_latest: true });
    expect(
      await inCopy(directory, 'SELECT v FROM marks WHERE xmin::text::int8 = (SELECT max(xmin::text::int8) FROM marks)'),
    ).toEqual(['in part']);
    // What a person does next names every path.
    const steps = (result['steps'] as string[]).join('\n');
    const data = `${server.directory}/data`;
    for (const part of [
      `mv ${data} ${data}.before-`,
      `mv ${directory} ${data}`,
      'pg_ctl',
      '00000002.history',
      'type=full',
    ]) {
      expect(steps).toContain(part);
    }
    const status = await harness.call('get-restore-status');
    expect(status).toMatchObject({ status: 'succeeded', usable: true, target: directory });

    // A person swapped the directories and switched archiving on again.
    const live = await startCopyServer({
      data: directory,
      binaries: await findServerBinaries(),
      account: await copyAccount(),
      superuser: 'postgres',
      database: 'shop',
      settings: { archive_mode: 'on', archive_command: `cp "%p" "${archived}/%f"` },
    });
    try {
      await live.ready(undefined);
      await sql(live.connection, 'shop', "INSERT INTO marks VALUES ('on two')");
      const [segment] = await values(live.connection, 'shop', 'SELECT pg_walfile_name(pg_switch_wal())');
      await vi.waitFor(async () => expect(await readdir(archived)).toContain(segment), { timeout: 20_000 });
      const wal = join(directory, 'pg_wal');
      await archive.put(join(wal, '00000002.history'), { sealing: { scheme: 'none' }, level: 1 });
      await archive.put(join(wal, String(segment)), { sealing: { scheme: 'none' }, level: 1 });
    } finally {
      await live.stop();
    }
    const onTwo = target();
    const next = await harness.call('restore', { target_directory: onTwo, use_latest: true });
    expect(next['reached']).toMatchObject({ timeline: 3 });
    expect(await inCopy(onTwo, 'SELECT v FROM marks ORDER BY xmin::text::int8 DESC LIMIT 1')).toEqual(['on two']);
    const given = await planOf({ target_directory: target(), use_latest: true, timeline: 1 });
    expect(given.facts.context).toMatchObject({ timeline: 1 });
    // What both have in common is reached on either; with a hole in it, no further.
    const names: string[] = [];
    for await (const { file } of archive.list(1)) if (file.kind === 'segment') names.push(file.name);
    const path = join(harness.storage, `v1/${sourceIdOf('app/shop')}/wal/00000001/${names.at(-2)}.zst`);
    await rename(path, `${root}/kept`);
    const before = await planOf({ target_directory: target(), lsn: beforePoint });
    expect(before.facts.context).toMatchObject({ timeline: 1, target: { kind: 'lsn', lsn: beforePoint } });
    const behind = await harness.fails('restore', { target_directory: target(), use_latest: true });
    expect(behind).toMatchObject({ code: 'INTEGRITY_FAILED', message: expect.stringContaining(String(names.at(-2))) });
  });
});

const POINT = 'before release; lsn: 0/1, desc: x';
