import { type ChildProcess, spawn } from 'node:child_process';
import { chown, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import { cleanText } from '../core/text.ts';
import { type Binaries, findBinaries } from './binaries.ts';
import { runChild } from './child.ts';
import { type Connection, openSession } from './connection.ts';
import { damaged } from './errors.ts';
import { unprivilegedAccount } from './private-server.ts';
import type { Account } from './tar.ts';

/** A server that runs on the copy of another one's data directory, reachable by a socket of our own alone. */
export interface CopyServer {
  /** As a superuser of the copy. */
  readonly connection: Connection;
  readonly pid: number;
  /** True once the process is gone. */
  readonly exited: () => boolean;
  /** What it has written so far. */
  log(): Promise<string>;
  /** What its end means, in our words and with the last line that says why. */
  failure(): Promise<HoldfastError>;
  /** Waits until it takes connections; it does so when the copy is consistent. */
  ready(signal: AbortSignal | undefined): Promise<void>;
  /** Stops it, with a checkpoint (`fast`) where its files shall be used further. Idempotent. */
  stop(mode?: 'immediate' | 'fast'): Promise<void>;
}

export interface CopyServerOptions {
  /** The data directory, owned by `account` where there is one. */
  readonly data: string;
  /** Of exactly the major version of the data directory. */
  readonly binaries: Binaries;
  readonly account: Account | undefined;
  /** A role of the copy that may log in and do everything. */
  readonly superuser: string;
  readonly database: string;
  /** More settings, which win: those of a recovery. */
  readonly settings?: Readonly<Record<string, string>> | undefined;
}

/**
 * Finds the server programs for a data directory: those of its own major version, no others can start on it.
 * @throws {HoldfastError} NOT_SUPPORTED with the package to install
 */
export async function findServerOf(major: number, binDir?: string): Promise<Binaries> {
  for (const binaries of await findBinaries(binDir)) {
    if (binaries.major !== major) continue;
    const whole = await Promise.all(
      ['postgres', 'pg_ctl', 'pg_controldata'].map((name) =>
        runChild(join(binaries.directory, name), ['--version'], { env: { LC_ALL: 'C' } }, 4096).then(
          () => true,
          () => false,
        ),
      ),
    );
    if (whole.every(Boolean)) return binaries;
  }
  throw new HoldfastError('NOT_SUPPORTED', `no PostgreSQL ${major} server programs were found on this machine`, {
    hint: `A copy of a server starts with its own major version only. Install postgresql-${major} (Debian, Ubuntu), postgresql${major}-server (Red Hat) or postgresql@${major} (Homebrew), or set bin_dir.`,
  });
}

/** The account that a copy belongs to and runs as: another than ours when we are root, which PostgreSQL refuses. */
export async function copyAccount(): Promise<Account | undefined> {
  return process.getuid?.() === 0 ? unprivilegedAccount() : undefined;
}

/**
 * Starts a server on the copy of a data directory. It listens to a socket in a private directory and nothing else, archives
 * nothing, follows nobody, loads no libraries and starts no workers of its own, whatever the copied settings say: the copy
 * believes that it is its source, and must not act as such.
 */
export async function startCopyServer(options: CopyServerOptions): Promise<CopyServer> {
  const { binaries, data, account } = options;
  const directory = await mkdtemp(join(tmpdir(), 'hf-copy-'));
  const file = (name: string): string => join(directory, name);
  let child: ChildProcess;
  try {
    const hba = 'local all all trust\n';
    for (const [name, text] of [
      ['hba', hba],
      ['ident', ''],
      ['conf', ''],
    ] as const) {
      await writeFile(file(name), text, { mode: 0o600, flag: 'wx' });
      if (account) await chown(file(name), account.uid, account.gid);
    }
    if (account) await chown(directory, account.uid, account.gid);
    const settings = {
      ...(await settingsOf(options)),
      ...closed(binaries.major, directory),
      config_file: file('conf'),
      hba_file: file('hba'),
      ident_file: file('ident'),
      ...options.settings,
    };
    // Given on the command line, they win over postgresql.auto.conf of the copy too.
    const args = ['-D', data, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])];
    const log = await open(file('log'), 'wx', 0o600);
    try {
      child = spawn(join(binaries.directory, 'postgres'), args, {
        cwd: directory,
        env: { LC_ALL: 'C', TZ: 'UTC' },
        detached: true,
        stdio: ['ignore', log.fd, log.fd],
        ...(account ?? {}),
      });
      await new Promise<void>((resolve, reject) => {
        child.once('spawn', resolve);
        child.once('error', reject);
      });
    } finally {
      await log.close();
    }
  } catch (cause) {
    await rm(directory, { recursive: true, force: true });
    throw cause;
  }
  return running(options, child, directory);
}

function running(
  { binaries, data, account, superuser, database }: CopyServerOptions,
  child: ChildProcess,
  directory: string,
): CopyServer {
  let gone = false;
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => {
      gone = true;
      resolve();
    });
  });
  // Whatever ends this process must end the server: SIGQUIT is its immediate shut-down.
  const quit = (): void => void child.kill('SIGQUIT');
  process.once('exit', quit);
  const connection: Connection = { host: directory, port: 5432, user: superuser, database, sslMode: 'disable' };
  const log = (): Promise<string> => readFile(join(directory, 'log'), 'utf8').catch(() => '');
  const failure = async (): Promise<HoldfastError> => toCopyError(await log());
  let stopped: Promise<void> | undefined;
  return {
    connection,
    pid: child.pid ?? -1,
    exited: () => gone,
    log,
    failure,
    async ready(signal) {
      for (;;) {
        signal?.throwIfAborted();
        if (gone) throw await failure();
        try {
          await (await openSession(connection, signal)).close();
          return;
        } catch (cause) {
          const starting = cause instanceof HoldfastError && cause.code === 'PROVIDER_UNAVAILABLE';
          if (!starting && !gone && !isAbsent(cause)) throw cause;
        }
        await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 50))]);
      }
    },
    stop: (mode = 'immediate') => {
      stopped ??= (async () => {
        if (!gone) {
          const args = ['stop', `--mode=${mode}`, '--wait', '--timeout=600', `--pgdata=${data}`];
          const env = { LC_ALL: 'C' };
          await runChild(join(binaries.directory, 'pg_ctl'), args, { env, account }).catch(quit);
          await ended;
        }
        process.removeListener('exit', quit);
        await rm(directory, { recursive: true, force: true, maxRetries: 5 });
      })();
      return stopped;
    },
  };
}

/**
 * Stops a server that was started on a copy by a process that has died since.
 * Nothing happens where none runs.
 */
export async function stopAbandoned(data: string, binDir?: string): Promise<void> {
  const version = await readFile(join(data, 'PG_VERSION'), 'utf8').catch(() => '');
  const lock = await readFile(join(data, 'postmaster.pid'), 'utf8').catch(() => '');
  if (version === '' || lock === '') return;
  const binaries = await findServerOf(Number.parseInt(version, 10), binDir);
  const args = ['stop', '--mode=immediate', '--wait', `--pgdata=${data}`];
  await runChild(join(binaries.directory, 'pg_ctl'), args, {
    env: { LC_ALL: 'C' },
    account: await copyAccount(),
  }).catch(() => {});
  // The line with the directory of its socket is ours: hf-copy-…
  const socket = lock.split('\n')[4] ?? '';
  if (/^hf-copy-[A-Za-z0-9]+$/.test(socket.slice(socket.lastIndexOf('/') + 1))) {
    await rm(socket, { recursive: true, force: true });
  }
}

/** What the source had, and recovery insists on: as many connections, workers and prepared transactions. */
async function settingsOf({ binaries, data, account }: CopyServerOptions): Promise<Record<string, string>> {
  const program = join(binaries.directory, 'pg_controldata');
  const text = await runChild(program, ['-D', data], { env: { LC_ALL: 'C' }, account }, 64 * 1024);
  const settings: Record<string, string> = {};
  for (const [label, name] of [
    ['max_connections', 'max_connections'],
    ['max_worker_processes', 'max_worker_processes'],
    ['max_wal_senders', 'max_wal_senders'],
    ['max_prepared_xacts', 'max_prepared_transactions'],
    ['max_locks_per_xact', 'max_locks_per_transaction'],
  ] as const) {
    const value = new RegExp(`^${label} setting:\\s+(\\d+)$`, 'm').exec(text)?.[1];
    if (value !== undefined) settings[name] = value;
  }
  return settings;
}

function closed(major: number, directory: string): Record<string, string> {
  return {
    listen_addresses: '',
    port: '5432',
    unix_socket_directories: directory,
    ssl: 'off',
    wal_level: 'replica',
    archive_mode: 'off',
    archive_command: '',
    restore_command: '',
    archive_cleanup_command: '',
    recovery_end_command: '',
    primary_conninfo: '',
    primary_slot_name: '',
    synchronous_standby_names: '',
    max_logical_replication_workers: '0',
    shared_preload_libraries: '',
    session_preload_libraries: '',
    local_preload_libraries: '',
    autovacuum: 'off',
    hot_standby: 'on',
    logging_collector: 'off',
    log_destination: 'stderr',
    lc_messages: 'C',
    shared_buffers: '64MB',
    huge_pages: 'off',
    external_pid_file: '',
    ...(major >= 15 ? { archive_library: '' } : {}),
    ...(major >= 17 ? { event_triggers: 'off', summarize_wal: 'off', sync_replication_slots: 'off' } : {}),
    // The source may use what this machine's kernel or programs do not have.
    ...(major >= 18 ? { io_method: 'worker' } : {}),
  };
}

/** The socket is not there yet. */
function isAbsent(cause: unknown): boolean {
  const code = ((cause as Error | undefined)?.cause as NodeJS.ErrnoException | undefined)?.code;
  return code === 'ENOENT' || code === 'ECONNREFUSED';
}

/** Words of PostgreSQL for a copy that is not what it should be; others are about this machine. */
const BROKEN =
  /invalid|corrupt|could not locate|could not read|WAL ends before|backup label|checkpoint record|wrong checksum|incorrect|unexpected|No such file/i;

function toCopyError(log: string): HoldfastError {
  const fatal = log.split('\n').filter((line) => /(FATAL|PANIC):/.test(line));
  const last = cleanText(fatal.at(-1)?.replace(/^.*?(FATAL|PANIC):\s*/, '') ?? 'its log does not say why', 300);
  if (fatal.some((line) => BROKEN.test(line))) {
    return damaged(`a server does not start on this copy: ${last}`);
  }
  return new HoldfastError('INVALID_STATE', `the server on the copy ended: ${last}`, {
    retryable: false,
    hint: 'The backup was not found damaged. Check memory, shared memory limits and the scratch directory of this machine, then call again.',
  });
}
