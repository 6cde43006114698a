import { randomBytes } from 'node:crypto';
import { chmod, chown, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import { type Binaries, findBinaries } from './binaries.ts';
import { runChild } from './child.ts';
import type { Connection } from './connection.ts';

/** A PostgreSQL server of our own on loopback: for the demo, the sandbox and the tests. */
export interface PrivateServer {
  readonly connection: Connection & { readonly password: string };
  readonly version: string;
  /** The directory with everything of it. */
  readonly directory: string;
  /** The process id of the postmaster. */
  readonly pid: number;
  /** Stops it at once and, unless told to keep them, removes its files. Idempotent. */
  stop(options?: { keep?: boolean }): Promise<void>;
}

export interface PrivateServerOptions {
  /** An absent or empty directory for its files. A socket lives there: the path must be shorter than 90 characters. */
  readonly directory: string;
  readonly binDir?: string | undefined;
  /** Waits for the disk at each commit; off, a power cut may damage it. Off where left out: its data are samples. */
  readonly fsync?: boolean | undefined;
  /** More settings of the server. */
  readonly settings?: Readonly<Record<string, string>> | undefined;
}

/**
 * Finds the directory of a full PostgreSQL, server included; the newest there is.
 * @throws {HoldfastError} NOT_SUPPORTED with the package to install
 */
export async function findServerBinaries(binDir?: string): Promise<Binaries> {
  const found = await findBinaries(binDir);
  const complete: Binaries[] = [];
  for (const binaries of found) {
    const whole = await Promise.all(
      ['initdb', 'postgres', 'pg_ctl'].map((name) =>
        runChild(join(binaries.directory, name), ['--version'], { env: { LC_ALL: 'C' } }, 4096).then(
          () => true,
          () => false,
        ),
      ),
    );
    if (whole.every(Boolean)) complete.push(binaries);
  }
  const best = complete.sort((a, b) => b.major - a.major)[0];
  if (best) return best;
  throw new HoldfastError('NOT_SUPPORTED', 'no PostgreSQL server programs (initdb, pg_ctl, postgres) were found', {
    hint: 'Install PostgreSQL: apt-get install --no-install-recommends postgresql, dnf install postgresql-server, or brew install postgresql.',
  });
}

/**
 * Makes a data directory, starts a server on it and answers when it takes connections.
 * @throws {HoldfastError} NOT_SUPPORTED without PostgreSQL on this machine or for a directory that is too long
 */
export async function startPrivateServer(options: PrivateServerOptions): Promise<PrivateServer> {
  const { directory } = options;
  if (Buffer.byteLength(directory) > 90) {
    throw new HoldfastError('NOT_SUPPORTED', 'the directory for a private PostgreSQL server has too long a path', {
      hint: 'A socket lives there, and its path may have 107 bytes. Use a shorter directory.',
    });
  }
  const binaries = await findServerBinaries(options.binDir);
  // initdb and postgres refuse to run as root.
  const account = process.getuid?.() === 0 ? await unprivilegedAccount() : undefined;
  const data = join(directory, 'data');
  const password = randomBytes(18).toString('base64url');
  const env = { LC_ALL: 'C', TZ: 'UTC', PGDATA: data };
  const run = (name: string, args: readonly string[]): Promise<string> =>
    runChild(join(binaries.directory, name), args, { env, account, secrets: [password] });

  await mkdir(directory, { recursive: true, mode: 0o700 });
  await chmod(directory, 0o700);
  if (account) await chown(directory, account.uid, account.gid);
  const passwordFile = join(directory, 'password');
  await writeFile(passwordFile, `${password}\n`, { mode: 0o600, flag: 'wx' });
  if (account) await chown(passwordFile, account.uid, account.gid);
  try {
    await run('initdb', [
      '--no-sync',
      '--auth=scram-sha-256',
      '--username=postgres',
      `--pwfile=${passwordFile}`,
      '--encoding=UTF8',
      '--locale=C',
      `--pgdata=${data}`,
    ]);
  } finally {
    await rm(passwordFile, { force: true });
  }

  // The port is free when it is asked for; in the rare case that another takes it meanwhile, the next one is tried.
  for (let attempt = 1; ; attempt += 1) {
    const port = await freePort();
    const settings: Record<string, string> = {
      listen_addresses: '127.0.0.1',
      port: String(port),
      unix_socket_directories: directory,
      fsync: options.fsync ? 'on' : 'off',
      wal_level: 'replica',
      max_wal_senders: '6',
      shared_buffers: '32MB',
      logging_collector: 'off',
      ...options.settings,
    };
    const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'`);
    await writeFile(join(data, 'holdfast.conf'), `${lines.join('\n')}\n`, { mode: 0o600 });
    if (account) await chown(join(data, 'holdfast.conf'), account.uid, account.gid);
    const main = join(data, 'postgresql.conf');
    const text = await readFile(main, 'utf8');
    if (!text.includes("include 'holdfast.conf'")) await writeFile(main, `${text}\ninclude 'holdfast.conf'\n`);
    try {
      await run('pg_ctl', ['start', '--wait', '--timeout=60', `--log=${join(directory, 'log')}`, `--pgdata=${data}`]);
    } catch (cause) {
      const log = await readFile(join(directory, 'log'), 'utf8').catch(() => '');
      if (attempt < 3 && /could not bind/.test(log)) continue;
      throw cause;
    }
    const pid = Number((await readFile(join(data, 'postmaster.pid'), 'utf8')).split('\n')[0]);
    return running(options, {
      pid,
      port,
      password,
      version: binaries.version,
      stop: () => run('pg_ctl', ['stop', '--mode=immediate', '--wait', `--pgdata=${data}`]),
    });
  }
}

function running(
  { directory }: PrivateServerOptions,
  server: { pid: number; port: number; password: string; version: string; stop: () => Promise<unknown> },
): PrivateServer {
  // Whatever ends this process must end the server: SIGQUIT is its immediate shut-down.
  const quit = (): void => {
    try {
      process.kill(server.pid, 'SIGQUIT');
    } catch {
      // It is gone already.
    }
  };
  process.once('exit', quit);
  let stopped: Promise<void> | undefined;
  return {
    connection: {
      host: '127.0.0.1',
      port: server.port,
      user: 'postgres',
      password: server.password,
      database: 'postgres',
      sslMode: 'disable',
    },
    version: server.version,
    directory,
    pid: server.pid,
    stop: (options = {}) => {
      stopped ??= (async () => {
        await server.stop().catch(quit);
        process.removeListener('exit', quit);
        if (!options.keep) await rm(directory, { recursive: true, force: true, maxRetries: 5 });
      })();
      return stopped;
    },
  };
}

/**
 * Finds an account that a server may run as when we are root.
 * @throws {HoldfastError} NOT_SUPPORTED where there is none
 */
export async function unprivilegedAccount(): Promise<{ uid: number; gid: number }> {
  const accounts = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'));
  for (const name of ['postgres', 'nobody']) {
    const found = accounts.find(([candidate]) => candidate === name);
    if (found) return { uid: Number(found[2]), gid: Number(found[3]) };
  }
  throw new HoldfastError(
    'NOT_SUPPORTED',
    'PostgreSQL does not run as root, and there is no account postgres or nobody',
  );
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}
