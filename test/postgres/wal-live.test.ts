import { spawnSync } from 'node:child_process';
import { appendFileSync, chmodSync, chownSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { findServerBinaries, unprivilegedAccount } from '../../src/postgres/private-server.ts';
import { installForEverybody } from '../support/installed.ts';
import { describePostgres } from '../support/postgres.ts';
import { ROOT } from '../support/source.ts';

const SOON = { timeout: 30_000, interval: 200 };

/** A line of docs/wal.md, with the places of this test. */
function documented(setting: string, home: string): string {
  const text = readFileSync(join(ROOT, 'docs', 'wal.md'), 'utf8');
  const line = new RegExp(`^${setting} = '(holdfast .*)'$`, 'm').exec(text)?.[1] ?? '';
  return line
    .replace('/etc/holdfast/holdfast.yaml', join(home, 'holdfast.yaml'))
    .replace(/ --state-dir \S+/, '')
    .replace('holdfast ', `holdfast --state-dir ${join(home, 'state')} `)
    .replace('app/shop', 'live/shop');
}

// PostgreSQL itself runs both commands, as its own account, with the installed program.
describePostgres('holdfast wal push and wal fetch under PostgreSQL', () => {
  let directory: string;
  let home: string;
  let account: { uid: number; gid: number } | undefined;
  let env: Record<string, string>;

  // Not in the directory of the data, from where a copy would take it along.
  const socket = (name: string): string => join(home, `${name}-socket`);
  const run = (file: string, ...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(file, args, { cwd: home, encoding: 'utf8', env, ...(account ?? {}) });
    return { status, stdout: stdout.trim(), stderr };
  };
  const does = (file: string, ...args: string[]): string => {
    const { status, stdout, stderr } = run(file, ...args);
    expect(status, `${file} ${args.join(' ')}\n${stdout}\n${stderr}`).toBe(0);
    return stdout;
  };
  const ask = (name: string, statement: string, database = 'shop'): string =>
    does('psql', '-h', socket(name), '-U', 'postgres', '-Atqc', statement, database);
  const notes = () => run('psql', '-h', socket('standby'), '-U', 'postgres', '-Atqc', NOTES, 'shop').stdout;
  const NOTES = "SELECT string_agg(note, ',' ORDER BY id) FROM orders";
  const start = (name: string): string =>
    does('pg_ctl', 'start', '-w', '-D', join(home, name), '-l', join(home, `${name}.log`), '-o', `-k ${socket(name)}`);
  const order = (note: string): void => {
    ask('primary', `INSERT INTO orders (note) VALUES ('${note}')`);
    ask('primary', 'SELECT pg_switch_wal()');
  };

  beforeAll(async () => {
    directory = await installForEverybody('hf-live-');
    home = join(directory, 'home');
    mkdirSync(home);
    account = process.getuid?.() === 0 ? await unprivilegedAccount() : undefined;
    if (account !== undefined) chownSync(home, account.uid, account.gid);
    const { directory: bin } = await findServerBinaries();
    env = { PATH: `${join(directory, 'bin')}:${bin}:/usr/local/bin:/usr/bin:/bin`, HOME: home, LC_ALL: 'C' };
    const config = `namespace: live
shop:
  defines: postgresql/server
  host: ${socket('primary')}
  user: postgres
  database: shop
  ssl_mode: disable
  storage: { type: local, path: ${home}/backups }
  encryption: none
  wal: { method: archive }
`;
    writeFileSync(join(home, 'holdfast.yaml'), config);
    does('mkdir', socket('primary'), socket('standby'));
    does('initdb', '-D', 'primary', '-U', 'postgres', '--auth=trust', '--no-sync');
    const settings = [
      "listen_addresses = ''",
      'fsync = off',
      'archive_mode = on',
      `archive_command = '${documented('archive_command', home)}'`,
    ];
    appendFileSync(join(home, 'primary', 'postgresql.conf'), `${settings.join('\n')}\n`);
    start('primary');
    does('createdb', '-h', socket('primary'), '-U', 'postgres', 'shop');
    ask('primary', 'CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY, note text)');
    does('pg_basebackup', '-h', socket('primary'), '-U', 'postgres', '-D', 'standby', '-c', 'fast', '-X', 'fetch');
    const standby = [
      `restore_command = '${documented('restore_command', home)}'`,
      'archive_mode = off',
      'wal_retrieve_retry_interval = 200ms',
    ];
    appendFileSync(join(home, 'standby', 'postgresql.conf'), `${standby.join('\n')}\n`);
    does('touch', join(home, 'standby', 'standby.signal'));
  }, 60_000);
  afterAll(() => {
    for (const name of ['primary', 'standby']) run('pg_ctl', 'stop', '-m', 'immediate', '-D', join(home, name));
    rmSync(directory, { recursive: true, force: true });
  });

  it('feed a standby that has nothing but the archive, which waits where that ends', async () => {
    order('first');
    start('standby');
    await vi.waitFor(() => expect(notes()).toBe('first'), SOON);
    order('second');
    await vi.waitFor(() => expect(notes()).toBe('first,second'), SOON);
    expect(ask('standby', 'SELECT pg_is_in_recovery()')).toBe('t');
    expect(ask('primary', 'SELECT archived_count > 0 AND failed_count = 0 FROM pg_stat_archiver')).toBe('t');
    expect(JSON.parse(does('holdfast', '--state-dir', 'state', 'do', 'live/shop/check-wal', '--json'))).toMatchObject({
      archived: true,
      gaps: [],
    });
  }, 60_000);

  it('stop a standby where the archive fails, which goes on once that is mended', async () => {
    const place = join(home, 'backups', 'v1');
    chmodSync(place, 0o000);
    try {
      await vi.waitFor(() => {
        expect(run('pg_ctl', 'status', '-D', join(home, 'standby')).status).toBe(3);
      }, SOON);
      expect(readFileSync(join(home, 'standby.log'), 'utf8')).toMatch(/exit code 200/);
      order('third');
      // The server keeps what it cannot archive.
      await vi.waitFor(() => expect(ask('primary', 'SELECT failed_count > 0 FROM pg_stat_archiver')).toBe('t'), SOON);
    } finally {
      chmodSync(place, 0o755);
    }
    start('standby');
    await vi.waitFor(() => expect(notes()).toBe('first,second,third'), SOON);
  }, 90_000);

  it('let the standby take over when the primary is gone, with everything that was archived', async () => {
    does('pg_ctl', 'stop', '-m', 'immediate', '-D', join(home, 'primary'));
    does('pg_ctl', 'promote', '-w', '-D', join(home, 'standby'));
    expect(ask('standby', 'SELECT pg_is_in_recovery()')).toBe('f');
    ask('standby', "INSERT INTO orders (note) VALUES ('fourth')");
    expect(notes()).toBe('first,second,third,fourth');
    expect(ask('standby', 'SELECT timeline_id FROM pg_control_checkpoint()')).toMatch(/^[12]$/);
  }, 60_000);
});
