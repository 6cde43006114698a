import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import { runsSchedules } from '../../src/program/schedules.ts';
import { openSqliteStore } from '../../src/state/sqlite.ts';
import { describePostgres, sql, startTestServer } from '../support/postgres.ts';
import { programArguments, runProgram } from '../support/program.ts';

describePostgres('the program with a schedule', () => {
  let server: PrivateServer;
  let directory: string;
  const state = (): string => join(directory, 'state');

  beforeAll(async () => {
    server = await startTestServer();
    await sql(server.connection, 'postgres', 'CREATE DATABASE shop');
    await sql(server.connection, 'shop', 'CREATE TABLE t (a int)', 'INSERT INTO t SELECT generate_series(1, 10)');
    directory = await mkdtemp(join(tmpdir(), 'holdfast-schedule-'));
    const { host, port, user, password = '' } = server.connection;
    await writeFile(join(directory, 'password'), password, { mode: 0o600 });
    await writeFile(
      join(directory, 'holdfast.yaml'),
      `namespace: app
shop:
  defines: postgresql/server
  host: ${host}
  port: ${port}
  user: ${user}
  password: \${file:./password}
  database: shop
  ssl_mode: disable
  storage: { type: local, path: ${join(directory, 'store')} }
  encryption: none
  retention: { daily: 1, weekly: 0, monthly: 0, quarterly: 0 }
  schedules:
    daily: { timezone: Europe/Lisbon }
    verify: true
    prune: true
`,
    );
  });
  afterAll(async () => {
    await server?.stop();
    if (directory !== undefined) await rm(directory, { recursive: true, force: true });
  });

  const run = (...args: string[]) => runProgram([...args, '--state-dir', state()], { env: {}, cwd: directory });
  const json = async (...args: string[]): Promise<Record<string, Record<string, unknown>[]>> =>
    JSON.parse((await run(...args, '--json')).out) as Record<string, Record<string, unknown>[]>;

  it('shows what is declared, and when it is due in its zone and in UTC', async () => {
    const { schedules } = await json('schedule', 'list');
    expect(schedules?.map(({ name, action, state: stands }) => [name, action, stands])).toEqual([
      ['daily', 'create-snapshot', 'never_run'],
      ['verify', 'verify-snapshot', 'never_run'],
      ['prune', 'prune-snapshots', 'never_run'],
    ]);
    const { due } = await json('schedule', 'next', 'app/shop', '--count', '2');
    expect(due).toHaveLength(6);
    const daily = due?.find(({ name }) => name === 'daily');
    expect(daily?.['local']).toMatch(/^\d{4}-\d\d-\d\d 02:00 Europe\/Lisbon \(\+0[01]:00\)$/);
    expect(new Date(String(daily?.['at'])).getUTCMinutes()).toBe(0);
  });

  it('is run by serve, once for what was missed, and leaves a backup that says who asked for it', async () => {
    const store = await openSqliteStore(join(state(), 'state.db'));
    await store.saveSchedule(
      {
        key: 'app/shop/daily',
        version: 1,
        cron: '0 2 * * *',
        timezone: 'Europe/Lisbon',
        enabled: true,
        settled_until: new Date(Date.now() - 5 * 86_400_000).toISOString(),
        consecutive_failures: 0,
        missed: 0,
      },
      0,
    );
    await store.close();
    const child = spawn(process.execPath, programArguments(['serve', '--state-dir', state()], {}), {
      cwd: directory,
      env: { PATH: process.env['PATH'], HOME: directory, HOLDFAST_LOG: 'info' },
      stdio: ['pipe', 'ignore', 'pipe'],
    });
    const ended = once(child, 'close');
    let text = '';
    await new Promise<void>((resolve, reject) => {
      child.stderr.setEncoding('utf8').on('data', (piece: string) => {
        text += piece;
        if (text.includes('a schedule ran')) resolve();
      });
      void ended.then(() => reject(new Error(text)));
    });
    // Nothing of it keeps a server whose client is gone.
    child.stdin.end();
    expect((await ended)[0]).toBe(0);
    expect(text).toContain('one run makes up for what was missed');
    const { snapshots } = await json('do', 'app/shop/list-snapshots');
    expect(snapshots).toHaveLength(1);
    expect(snapshots?.[0]).toMatchObject({ kind: 'automated', status: 'available' });
    const { schedules } = await json('schedule', 'list');
    expect(schedules?.[0]).toMatchObject({ name: 'daily', state: 'succeeded', consecutive_failures: 0, missed: 0 });
  });

  it('is run by hand, the newest backup found for a verification', async () => {
    const again = await run('schedule', 'run', 'app/shop', 'daily');
    expect(again).toMatchObject({ status: 0 });
    const verified = await run('schedule', 'run', 'app/shop', 'verify', '--json');
    expect(verified.status).toBe(0);
    expect(JSON.parse(verified.out)).toMatchObject({
      status: 'succeeded',
      result: { level: 'readable', passed: true },
    });
  });

  it('does not prune what a person has to look at, says why, and what to do', async () => {
    const { status, err } = await run('schedule', 'run', 'app/shop', 'prune');
    expect(status).toBe(10);
    expect(err).toContain('CONFIRMATION_REQUIRED');
    expect(err).toContain('app/shop/prune-snapshots');
    // The one from serve and the one from before.
    expect((await json('do', 'app/shop/list-snapshots'))['snapshots']).toHaveLength(2);
    const shown = await run('schedule', 'list');
    expect(shown.out).toMatch(/refused CONFIRMATION_REQUIRED/);
    expect(shown.err).toContain('make the call yourself');
  });

  it('refuses to start with a schedule that cannot be, at its place', async () => {
    const file = join(directory, 'wrong.yaml');
    await writeFile(
      file,
      `namespace: app
shop:
  defines: postgresql/server
  storage: { type: local, path: /backups }
  encryption: none
  schedules:
    wipe: { cron: "0 2 * * *", action: delete-snapshot, input: { snapshot_id: x } }
`,
    );
    const { status, err } = await run('schedule', 'list', '--config', file);
    expect(status).toBe(33);
    expect(err).toContain('wrong.yaml:7:40: app/shop.schedules.wipe.action');
    const checked = await run('check', '--offline', '--config', file);
    expect(checked.status).not.toBe(0);
    expect(checked.out + checked.err).toContain('needs a person');
  });
});

describe('whether a server runs schedules', () => {
  it.each([
    [{}, undefined, true],
    [{}, { schedules: true }, true],
    [{}, { schedules: false }, false],
    [{ HOLDFAST_SCHEDULER: '' }, { schedules: false }, false],
    [{ HOLDFAST_SCHEDULER: 'off' }, { schedules: true }, false],
    [{ HOLDFAST_SCHEDULER: 'ON' }, { schedules: false }, true],
  ])('with %j and %j it is %s', (env, section, expected) => {
    expect(runsSchedules(env, section)).toBe(expected);
  });

  it('is not guessed from another word', () => {
    expect(() => runsSchedules({ HOLDFAST_SCHEDULER: 'maybe' }, undefined)).toThrow(/neither on nor off/);
  });
});
