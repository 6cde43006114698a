import { spawn } from 'node:child_process';
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import type { Plan } from '../../src/core/plan.ts';
import { runChild } from '../../src/postgres/child.ts';
import type { Connection } from '../../src/postgres/connection.ts';
import { copyAccount, findServerOf, startCopyServer } from '../../src/postgres/copy-server.ts';
import { PgBackRest, parseExpiry, parseInfo, parseVerdict } from '../../src/postgres/pgbackrest.ts';
import { toBackRestError } from '../../src/postgres/pgbackrest-errors.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import type { Account } from '../../src/postgres/tar.ts';
import { PostgresServer } from '../../src/providers/postgresql/parameters.ts';
import type { PgBackRestClient } from '../../src/providers/postgresql/pgbackrest.ts';
import { ANA } from '../support/harness.ts';
import {
  describeBackRest,
  type PostgresHarness,
  sql,
  startPostgresHarness,
  startTestServer,
  values,
} from '../support/postgres.ts';

const LABEL = '20261121-074410F';

describe('what pgBackRest writes', () => {
  it('is read as untrusted input, with system identifiers larger than a number is exact', () => {
    const info = [
      {
        name: 'demo',
        status: { code: 0, message: 'ok', lock: { backup: { held: true } } },
        db: [{ id: 1, 'system-id': 0, version: '15' }],
        repo: [{ key: 1, cipher: 'none', status: { code: 0, message: 'ok' } }],
      },
    ];
    const text = JSON.stringify(info).replace('"system-id":0', '"system-id":7710527362860334004');
    expect(parseInfo(text, 'demo')).toMatchObject({
      running: true,
      database: { systemIdentifier: '7710527362860334004' },
    });
    expect(parseInfo(text, 'other').status).toMatchObject({ code: 1 });
    for (const wrong of ['', '{}', '[{"name":"demo"}]', text.replace('"15"', '15')]) {
      expect(() => parseInfo(wrong, 'demo')).toThrow(/pgBackRest/);
    }
  });

  it('names a corrupt backup in the text of verify alone, and says nothing that cannot be told from silence', () => {
    const said = [
      'stanza: demo',
      'status: error',
      '  archiveId: 15-1, total WAL checked: 6, total valid WAL: 5',
      `  backup: ${LABEL}, status: invalid, total files checked: 964, total valid files: 963`,
      '  backup: 20261121-075102F, status: valid, total files checked: 964, total valid files: 964',
    ].join('\n');
    expect(parseVerdict(said)).toMatchObject({ invalid: [LABEL], valid: ['20261121-075102F'], invalidSegments: 1 });
    expect(() => parseVerdict('')).toThrow(/no verdict/);
  });

  it('tells what expire removes, in the order of its own words', () => {
    const said = [
      `P00   INFO: [DRY-RUN] repo1: expire full backup set ${LABEL}, ${LABEL}_20261121-074416I`,
      `P00   INFO: [DRY-RUN] repo1: remove expired backup ${LABEL}_20261121-074416I`,
      `P00   INFO: [DRY-RUN] repo1: remove expired backup ${LABEL}`,
      'P00   INFO: [DRY-RUN] repo1: 15-1 remove archive, start = 000000010000000000000001, stop = 000000010000000000000005',
    ].join('\n');
    expect(parseExpiry(said)).toEqual({
      backups: [`${LABEL}_20261121-074416I`, LABEL],
      archive: [{ id: '15-1', start: '000000010000000000000001', stop: '000000010000000000000005' }],
    });
  });

  it.each([
    [26, '', 'INTEGRITY_FAILED', false],
    [40, '', 'RESOURCE_EXISTS', false],
    [50, '', 'INVALID_STATE', true],
    [55, '', 'RESOURCE_NOT_FOUND', false],
    [75, '', 'INVALID_PARAMETER', false],
    [39, 'ERROR: [039]: HTTP 403 AccessDenied', 'INSUFFICIENT_PERMISSIONS', false],
    [101, '', 'PROVIDER_UNAVAILABLE', true],
    [104, 'ERROR: [075]: last full\nERROR: [104]: encountered 1 error(s)', 'INVALID_PARAMETER', false],
    [29, 'ERROR: [029]: zst error: [-20] Data corruption detected', 'INTEGRITY_FAILED', false],
    [64, 'No space left on device', 'QUOTA_EXCEEDED', undefined],
    [99, '', 'INVALID_STATE', false],
  ])('exit status %i %s means %s', (code, text, expected, retryable) => {
    const error = toBackRestError({ code, signal: null }, text);
    expect(error.code).toBe(expected);
    if (retryable !== undefined) expect(error.retryable).toBe(retryable);
  });

  it('belongs to entities that say so, and to nothing of the other engine', () => {
    const own = { user: 'a', database: 'b' };
    const storage = { type: 'local', path: '/x' };
    const faults = (parameters: object): string[] =>
      PostgresServer.safeParse(parameters).error?.issues.map(({ path }) => path.join('.')) ?? [];
    expect(faults({ ...own, engine: 'pgbackrest', pgbackrest: { stanza: 'demo' } })).toEqual([]);
    expect(faults(own)).toEqual(['storage', 'encryption']);
    expect(faults({ ...own, engine: 'pgbackrest' })).toEqual(['pgbackrest']);
    expect(faults({ ...own, engine: 'pgbackrest', pgbackrest: { stanza: 'demo' }, storage })).toEqual(['storage']);
    expect(faults({ ...own, storage, encryption: 'none', pgbackrest: { stanza: 'demo' } })).toEqual(['pgbackrest']);
  });

  it('is refused from a program that is missing, another or too old', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'hf-br-old-'));
    try {
      const binary = join(folder, 'pgbackrest');
      const version = () => new PgBackRest({ stanza: 'demo', binary }).program();
      await expect(version()).rejects.toMatchObject({ code: 'NOT_SUPPORTED', hint: expect.stringMatching(/package/) });
      await writeFile(binary, '#!/bin/sh\necho "pgBackRest 2.44"\n', { mode: 0o755 });
      await expect(version()).rejects.toMatchObject({ message: expect.stringMatching(/2\.44 is older than 2\.45/) });
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

describeBackRest('backups by pgBackRest', () => {
  let server: PrivateServer;
  let connection: Connection;
  let root: string;
  let config: string;
  let account: Account | undefined;
  let harness: PostgresHarness;
  let first: string;
  let beforeLast: string;

  const own = async (path: string): Promise<void> => {
    if (account) await chown(path, account.uid, account.gid);
  };
  const repo = (...parts: string[]): string => join(root, 'repo', ...parts);
  const backRest = async (...args: string[]): Promise<string> =>
    runChild(
      (await new PgBackRest({ stanza: 'demo' }).program()).file,
      [`--config=${config}`, '--stanza=demo', ...args],
      {
        env: { LC_ALL: 'C', PATH: process.env['PATH'] ?? '' },
        account,
      },
    );
  const configure = async (more = '', name = 'demo'): Promise<void> => {
    const lines = [
      '[global]',
      `repo1-path=${root}/repo`,
      `log-path=${root}/log`,
      `lock-path=${root}/lock`,
      'log-level-file=off',
      'start-fast=y',
      'process-max=2',
      'compress-type=zst',
      // One file for many: every file of the repository is synced to disk.
      'repo1-bundle=y',
      more,
      `[${name}]`,
      `pg1-path=${server.directory}/data`,
      `pg1-port=${connection.port}`,
      `pg1-socket-path=${server.directory}`,
      'pg1-user=postgres',
    ];
    await writeFile(config, `${lines.join('\n')}\n`);
  };
  const one = async (query: string): Promise<string> => (await values(connection, 'postgres', query))[0] ?? '';
  const planOf = async (action: string, input: JsonObject = {}): Promise<Plan> => {
    const call = { principal: ANA, entity: 'app/shop', action, input, dryRun: true };
    return ((await harness.engine.call(call)) as unknown as { plan: Plan }).plan;
  };
  const ids = async (): Promise<string[]> =>
    ((await harness.call('list-snapshots'))['snapshots'] as { id: string }[]).map(({ id }) => id);
  const stored = async (): Promise<string[]> =>
    (await readdir(repo('archive/demo/15-1/0000000100000000'))).filter((name) => /-[0-9a-f]{40}/.test(name)).sort();
  const inCopy = async (directory: string): Promise<string> => {
    const binaries = await findServerOf(15);
    const copy = await startCopyServer({
      data: directory,
      binaries,
      account,
      superuser: 'postgres',
      database: 'postgres',
    });
    try {
      await copy.ready(undefined);
      return (await values(copy.connection, 'postgres', "SELECT string_agg(v, ',' ORDER BY n) FROM marks"))[0] ?? '';
    } finally {
      await copy.stop('fast');
    }
  };

  beforeAll(async () => {
    account = await copyAccount();
    root = await mkdtemp(join(tmpdir(), 'hf-br-'));
    await chmod(root, 0o755);
    config = join(root, 'pgbackrest.conf');
    for (const name of ['repo', 'log', 'lock', 'target', 'space']) {
      await mkdir(join(root, name));
      await own(join(root, name));
    }
    const { file } = await new PgBackRest({ stanza: 'demo' }).program();
    server = await startTestServer({
      archive_mode: 'on',
      archive_command: `${file} --config=${config} --stanza=demo archive-push %p`,
      autovacuum: 'off',
    });
    connection = server.connection;
    await configure();
    // pgBackRest connects by the socket, as the account of the server does in packages.
    const hba = `${server.directory}/data/pg_hba.conf`;
    await writeFile(hba, `local all all trust\n${await readFile(hba, 'utf8')}`);
    await sql(connection, 'postgres', 'SELECT pg_reload_conf()');
    await vi.waitFor(() => backRest('stanza-create'), { timeout: 10_000 });
    // Every file of the server is copied again and again here.
    await sql(
      connection,
      'postgres',
      "UPDATE pg_database SET datistemplate = false WHERE datname = 'template0'",
      'DROP DATABASE template0',
    );
    await sql(connection, 'postgres', `CREATE TABLESPACE apart LOCATION '${root}/space'`);
    await sql(
      connection,
      'postgres',
      'CREATE TABLE marks (n serial, v text) TABLESPACE apart',
      "INSERT INTO marks (v) VALUES ('base')",
    );
    harness = await startPostgresHarness({
      connection,
      database: 'postgres',
      parameters: {
        storage: undefined,
        encryption: undefined,
        engine: 'pgbackrest',
        pgbackrest: { stanza: 'demo', config },
        scratch_dir: join(root, 'target'),
      } as never,
    });
  }, 60_000);
  afterAll(async () => {
    await harness?.close();
    await server?.stop();
    await rm(root, { recursive: true, force: true });
  });

  it('takes full, incremental and differential ones, and shows them with what they rest on', async () => {
    expect((await harness.call('get-backup-info'))['newest']).toBeNull();
    const full = await harness.call('create-snapshot', { type: 'full', label: 'the first = "one"' });
    first = full.id;
    expect(full).toMatchObject({ status: 'available', description: 'the first = "one"', provider: { type: 'full' } });
    await sql(connection, 'postgres', "INSERT INTO marks (v) VALUES ('after full')");
    const incr = await harness.call('create-snapshot', {});
    expect(incr.provider).toMatchObject({ type: 'incr', parent_id: first });
    const diff = await harness.call('create-snapshot', { type: 'diff' });
    expect(diff.provider).toMatchObject({ type: 'diff', parent_id: first });
    expect(await ids()).toEqual([diff.id, incr.id, first]);
    const page = await harness.call('list-snapshots', { limit: 1 });
    expect(page['next_cursor']).toBe(diff.id);
    const next = await harness.call('list-snapshots', { limit: 1, cursor: diff.id });
    expect(next['snapshots']).toEqual([expect.objectContaining({ id: incr.id })]);
    const described = await harness.call('describe-snapshot', { snapshot_id: first });
    expect(described.provider).toMatchObject({
      needed_by: expect.arrayContaining([incr.id, diff.id]),
      without_holdfast: expect.stringContaining(`--config=${config} --stanza=demo --repo=1 --set=${first}`),
    });
  }, 60_000);

  it('says how the server archives, how far back one can go, and what would delete', async () => {
    await sql(connection, 'postgres', "INSERT INTO marks (v) VALUES ('before')");
    beforeLast = await one(`SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`);
    await sql(connection, 'postgres', "INSERT INTO marks (v) VALUES ('after')");
    const checked = await harness.call('check-wal', { timeout_seconds: 20 });
    expect(checked).toMatchObject({ archived: true, gaps: [] });
    const info = await harness.call('get-backup-info');
    expect(info['pitr']).toMatchObject({ enabled: true, window: { earliest_at: expect.any(String) } });
    expect(info.provider).toMatchObject({
      engine: expect.stringMatching(/^pgBackRest 2\./),
      status: 'ok',
      archive_command_fits: true,
      last_archived_is_stored: true,
      archive_holes: [],
    });
    const warnings = (info['warnings'] as string[]).join('\n');
    expect(warnings).toMatch(/repo1-retention-full is not set/);
    expect(warnings).toMatch(/not encrypted/);
    expect(warnings).toMatch(/on this machine/);
    expect(warnings).not.toMatch(/archive_command|hole|not known/);
  });

  it.each<[string, string, JsonObject]>([
    ['a dump', 'create-snapshot', { type: 'logical' }],
    ['a hold', 'hold-snapshot', { snapshot_id: LABEL, reason: 'x' }],
    ['a comparison', 'diff-snapshot', { snapshot_id: LABEL }],
    ['a restore into a database', 'restore', { snapshot_id: LABEL, target_database: 'copy' }],
  ])('refuses %s and says what to do instead', async (_, action, input) => {
    const error = await harness.fails(action, input);
    expect(error.code).toBe('NOT_SUPPORTED');
    expect(error.hint).not.toBe('');
  });

  it('verifies by the listing, by reading every file and by a restore', async () => {
    for (const level of ['stored', 'readable', 'restored']) {
      const verified = await harness.call('verify-snapshot', { snapshot_id: first, level });
      expect(verified).toMatchObject({ passed: true, level, tools: { pgbackrest: expect.any(String) } });
      if (level === 'readable') expect(verified['numbers']).toMatchObject({ files: expect.any(Number) });
      if (level === 'restored') expect(verified['numbers']).toMatchObject({ databases: expect.any(Number) });
    }
    expect(await readdir(join(root, 'target'))).toEqual([]);
    const described = await harness.call('describe-snapshot', { snapshot_id: first });
    expect(described.provider['verified_at']).toEqual(expect.any(String));
  }, 60_000);

  it('recovers to before and after a commit, and to the newest, in a new directory', async () => {
    const [oid = ''] = await values(connection, 'postgres', "SELECT oid FROM pg_tablespace WHERE spcname = 'apart'");
    const restore = (name: string, input: JsonObject) =>
      harness.call('restore', {
        target_directory: join(root, 'target', name),
        tablespace_map: { [oid]: join(root, 'target', `${name}-apart`) },
        ...input,
      });
    const unmapped = { target_directory: join(root, 'target', 'unmapped'), use_latest: true };
    expect(await harness.fails('restore', unmapped)).toMatchObject({
      details: { tablespaces: [{ oid: Number(oid) }] },
    });
    const before = join(root, 'target', 'before');
    const result = await restore('before', { restore_timestamp: beforeLast });
    expect(result).toMatchObject({ directory: before, reached: { timeline: 2 } });
    expect((result['steps'] as string[]).join('\n')).toContain(`--config='${config}' --stanza=demo archive-push`);
    expect(await inCopy(before)).toBe('base,after full,before');
    expect(await readFile(join(before, 'postgresql.auto.conf'), 'utf8')).not.toMatch(/restore_command|recovery_target/);
    const latest = join(root, 'target', 'latest');
    await restore('latest', { use_latest: true });
    expect(await inCopy(latest)).toBe('base,after full,before,after');
    const alone = join(root, 'target', 'alone');
    await restore('alone', { snapshot_id: first });
    expect(await inCopy(alone)).toBe('base');
    const error = await harness.fails('restore', { target_directory: alone, use_latest: true });
    expect(error.code).toBe('RESOURCE_EXISTS');
    const early = await harness.fails('restore', {
      target_directory: `${alone}-2`,
      restore_timestamp: '2020-01-01T00:00:00Z',
    });
    expect(early).toMatchObject({ code: 'INVALID_PARAMETER', hint: expect.stringMatching(/can be reached: 20/) });
    const input = { entity: 'app/shop', at: new Date().toISOString() };
    const options = await harness.call('find-recovery-options', input, { entity: undefined });
    expect(options['options']).toEqual([
      expect.objectContaining({ call: expect.objectContaining({ action: 'restore' }) }),
    ]);
  }, 60_000);

  it('finds a corrupt file and a missing segment, for which pgBackRest itself ends with status 0', async () => {
    const bundle = repo('backup/demo', first, 'bundle/1');
    const whole = await readFile(bundle);
    try {
      const broken = Buffer.from(whole);
      broken.fill('X', 100, 104);
      await writeFile(bundle, broken);
      const error = await harness.fails('verify-snapshot', { snapshot_id: first, level: 'readable' });
      expect(error).toMatchObject({ code: 'INTEGRITY_FAILED', message: expect.stringContaining(first) });
      expect(await harness.call('describe-snapshot', { snapshot_id: first })).toMatchObject({ status: 'damaged' });
    } finally {
      await writeFile(bundle, whole);
    }
    const described = await harness.call('describe-snapshot', { snapshot_id: first });
    const folder = repo('archive/demo/15-1/0000000100000000');
    const segments = await stored();
    const needed = segments.find((file) => file.startsWith(String(described.provider['wal_start']))) ?? '';
    await rename(join(folder, needed), join(root, 'kept'));
    try {
      const error = await harness.fails('verify-snapshot', { snapshot_id: first, level: 'readable' });
      expect(error).toMatchObject({ code: 'INTEGRITY_FAILED', message: expect.stringContaining(needed.slice(0, 24)) });
      expect((await harness.call('get-backup-info'))['warnings']).toContainEqual(expect.stringContaining('has a hole'));
    } finally {
      await rename(join(root, 'kept'), join(folder, needed));
    }
    const later = segments.at(-2) ?? '';
    await rename(join(folder, later), join(root, 'kept'));
    try {
      const error = await harness.fails('verify-snapshot', { snapshot_id: first, level: 'stored' });
      expect(error.message).toMatch(/a hole behind/);
      expect(error.message).toContain(later.slice(0, 24));
    } finally {
      await rename(join(root, 'kept'), join(folder, later));
    }
    await harness.call('verify-snapshot', { snapshot_id: first, level: 'readable' });
    expect(await harness.call('describe-snapshot', { snapshot_id: first })).toMatchObject({ status: 'available' });
  }, 60_000);

  it('tells a missing stanza, a wrong key and a running backup, whose statuses are 0, 0 and 50', async () => {
    const text = await readFile(config, 'utf8');
    try {
      await writeFile(config, text.replace(`${root}/repo`, `${root}/empty`));
      const missing = await harness.fails('create-snapshot', { type: 'full' });
      expect(missing).toMatchObject({ code: 'RESOURCE_NOT_FOUND', hint: expect.stringContaining('stanza-create') });
      expect((await harness.call('get-backup-info'))['warnings']).toContainEqual(expect.stringContaining('no stanza'));
      await configure('repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=wrong');
      const sealed = await harness.fails('list-snapshots');
      expect(sealed).toMatchObject({ code: 'AUTHENTICATION_FAILED', hint: expect.stringContaining('cipher-pass') });
    } finally {
      await writeFile(config, text);
    }
    // pgBackRest holds its lock as long as the file of it is locked.
    const holder = spawn('flock', ['-x', join(root, 'lock', 'demo-backup.lock'), 'sh', '-c', 'echo held; cat'], {
      stdio: ['pipe', 'pipe', 'ignore'],
      ...account,
      cwd: '/',
    });
    await new Promise((resolve) => holder.stdout.once('data', resolve));
    try {
      const error = await harness.fails('create-snapshot', { type: 'incr' });
      expect(error).toMatchObject({ code: 'INVALID_STATE', retryable: true });
    } finally {
      holder.stdin.end();
      await new Promise((resolve) => holder.once('close', resolve));
    }
  }, 30_000);

  it('counts no backup whose pgBackRest was killed, and takes the next one', async () => {
    const before = await ids();
    let killed: Promise<unknown> | undefined;
    const kill = async (): Promise<void> => {
      const found = await runChild('pgrep', ['-f', `config=${config}.*type=full.*backup$`], { env: {} });
      for (const pid of found.trim().split('\n')) process.kill(Number(pid), 'SIGKILL');
    };
    const error = await harness.fails(
      'create-snapshot',
      { type: 'full' },
      {
        onProgress: () => {
          killed ??= vi.waitFor(kill, { timeout: 10_000, interval: 20 });
        },
      },
    );
    await killed;
    expect(error.code).toBe('PROVIDER_UNAVAILABLE');
    expect(await ids()).toEqual(before);
    const next = await harness.call('create-snapshot', { type: 'full' });
    expect(await ids()).toEqual([next.id, ...before]);
  }, 60_000);

  it('finds what pgBackRest went on with when Holdfast died, by its annotation', async () => {
    const { provider } = harness.registry.entityTypes.get('postgresql/server')!;
    const entity = { key: 'app/shop', engine: 'pgbackrest', pgbackrest: { stanza: 'demo', config } };
    let slept = 0;
    const runtime = {
      ledger: { list: async () => [] },
      sleep: async () => {
        slept += 1;
        await new Promise((resolve) => setTimeout(resolve, 50));
      },
    };
    const client = (await provider.connect(entity as never, runtime as never)) as PgBackRestClient;
    const step = (operationId: string) =>
      ({
        operationId,
        handle: { backrest: operationId },
        signal: new AbortController().signal,
        progress() {},
      }) as never;
    const orphan = backRest('--type=incr', '--no-expire-auto', '--annotation=holdfast-operation=op-1', 'backup');
    const inner = new PgBackRest({ stanza: 'demo', config });
    await vi.waitFor(async () => expect((await inner.info()).running).toBe(true), { timeout: 10_000, interval: 20 });
    const found = await client.recoverBackup(step('op-1'));
    await orphan;
    expect(slept).toBeGreaterThan(0);
    expect(found).toMatchObject({ state: 'done', result: { provider: { type: 'incr' } } });
    expect(await client.recoverBackup(step('op-2'))).toMatchObject({ state: 'not_begun' });
    await harness.approved('delete-snapshot', { snapshot_id: String((found as { result: JsonObject }).result['id']) });
  }, 30_000);

  it('deletes under guard, with what rests on it, and never the last full one', async () => {
    const all = await ids();
    const dependants = all.filter((id) => id.startsWith(`${first}_`));
    const plan = await planOf('delete-snapshot', { snapshot_id: first });
    expect(plan).toMatchObject({
      risk: 'delete',
      blast_radius: { deleting: expect.arrayContaining([first, ...dependants]) },
    });
    for (const id of dependants) expect(plan.warnings.join()).toContain(id);
    await configure('repo1-retention-full=1');
    const prune = await planOf('prune-snapshots');
    // More than half goes, and all but one: only with a confirmation.
    expect(prune).toMatchObject({
      risk: 'delete',
      blast_radius: { delete: 3, keep: 1, retention: { 'repo1-retention-full': '1' } },
    });
    expect(await ids()).toEqual(all);
    const stale = await harness.fails('prune-snapshots', { plan_hash: '0' });
    expect(stale.code).toBe('PLAN_CHANGED');
    await harness.approved('delete-snapshot', { snapshot_id: dependants[0] as string });
    const pruned = await harness.approved('prune-snapshots');
    expect(pruned).toMatchObject({ deleted_count: 2, kept_count: 1, wal_segments_removed: expect.any(Number) });
    expect(pruned['wal_segments_removed']).toBeGreaterThan(0);
    const [last] = await ids();
    const error = await harness.fails('delete-snapshot', { snapshot_id: last as string, allow_last: true });
    expect(error).toMatchObject({ code: 'INVALID_STATE', message: expect.stringMatching(/last full/) });
    expect(await planOf('prune-snapshots')).toMatchObject({ risk: 'change', loses: expect.stringMatching(/^nothing/) });
  }, 60_000);
});
