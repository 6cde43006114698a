import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Client, ClientConfig } from 'pg';
import { HoldfastError } from '../core/errors.ts';
import { toPostgresError, toReplicationError } from './errors.ts';

export const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;
export type SslMode = (typeof SSL_MODES)[number];

/** Where a server is and who we are there. The password never leaves this object but into the socket and the pass file. */
export interface Connection {
  /** A host name, an address, or a directory with a socket, `/var/run/postgresql`. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password?: string | undefined;
  readonly database: string;
  readonly sslMode: SslMode;
  /** Path of a file with the certificates to trust. */
  readonly sslRootCert?: string | undefined;
}

/**
 * Reads a connection URL, `postgresql://user:password@host:5432/database?sslmode=require`.
 * @throws {HoldfastError} CONFIG_INVALID; the message never holds the URL
 */
export function parseConnectionUrl(text: string): Partial<Connection> {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new HoldfastError('CONFIG_INVALID', 'connection_url is not a URL', {
      hint: 'Write postgresql://user:password@host:5432/database?sslmode=require; encode special characters with %.',
    });
  }
  if (url.protocol !== 'postgresql:' && url.protocol !== 'postgres:') {
    throw new HoldfastError('CONFIG_INVALID', 'connection_url does not begin with postgresql://');
  }
  const part = (value: string | null | undefined): string | undefined =>
    value === '' || value === null || value === undefined ? undefined : decodeURIComponent(value);
  const mode = url.searchParams.get('sslmode');
  if (mode !== null && !(SSL_MODES as readonly string[]).includes(mode)) {
    throw new HoldfastError('CONFIG_INVALID', 'connection_url has an unknown sslmode', {
      hint: `Use one of ${SSL_MODES.join(', ')}.`,
    });
  }
  return dropUndefined({
    host: part(url.hostname.replace(/^\[|\]$/g, '')) ?? url.searchParams.get('host') ?? undefined,
    port: url.port === '' ? undefined : Number(url.port),
    user: part(url.username),
    password: part(url.password),
    database: part(url.pathname.slice(1)),
    sslMode: (mode ?? undefined) as SslMode | undefined,
    sslRootCert: url.searchParams.get('sslrootcert') ?? undefined,
  });
}

function dropUndefined<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as T;
}

/** One session. */
export interface Session {
  query<Row extends object>(text: string, values?: readonly unknown[]): Promise<Row[]>;
  /** Ends the session at the server too, also in the middle of a statement that waits for a lock. */
  interrupt(): Promise<void>;
  close(): Promise<void>;
}

/** Settings that make a session's answers the same everywhere and keep the server's own timeouts out of long work. */
const SESSION_SETTINGS = `
  SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1;
  SET bytea_output = 'hex'; SET standard_conforming_strings = on; SET search_path = ''; SET row_security = off;
  SET statement_timeout = 0; SET lock_timeout = '30s'; SET idle_in_transaction_session_timeout = 0; SET client_min_messages = error;`;

/**
 * Opens a session on a database of the server.
 * @throws {HoldfastError} PROVIDER_UNAVAILABLE, AUTHENTICATION_FAILED, RESOURCE_NOT_FOUND, INSUFFICIENT_PERMISSIONS
 */
export async function openSession(connection: Connection, signal?: AbortSignal): Promise<Session> {
  signal?.throwIfAborted();
  // Loaded at first use: a start without PostgreSQL should not pay for it.
  const { default: pg } = await import('pg');
  let client: Client;
  try {
    client = await connect(pg.Client, connection);
  } catch (cause) {
    throw toPostgresError(cause);
  }
  let pid: number | undefined;
  const interrupt = async (): Promise<void> => {
    // A server process does not see at once that its client has gone, and would keep its locks until then.
    if (pid !== undefined) {
      await withSession(connection, undefined, (other) => other.query('SELECT pg_terminate_backend($1)', [pid])).catch(
        () => {},
      );
    }
    await client.end().catch(() => {});
  };
  const abort = (): void => void interrupt();
  signal?.addEventListener('abort', abort, { once: true });
  const query = async <Row extends object>(text: string, values?: readonly unknown[]): Promise<Row[]> => {
    try {
      signal?.throwIfAborted();
      const result = await client.query(values === undefined ? { text } : { text, values: [...values] });
      return (Array.isArray(result) ? [] : result.rows) as Row[];
    } catch (cause) {
      if (signal?.aborted) throw new HoldfastError('CANCELLED', 'the call was cancelled', { cause });
      throw toPostgresError(cause);
    }
  };
  const session: Session = {
    query,
    interrupt,
    close: async () => {
      signal?.removeEventListener('abort', abort);
      await client.end().catch(() => {});
    },
  };
  try {
    await query(SESSION_SETTINGS);
    pid = (await query<{ pid: number }>('SELECT pg_backend_pid() AS pid'))[0]?.pid;
    // From 14 on the server notices within seconds that a client has died in the middle of a long statement.
    await query(
      "SELECT set_config(name, '2s', false) FROM pg_catalog.pg_settings WHERE name = 'client_connection_check_interval'",
    ).catch(() => []);
  } catch (cause) {
    await session.close();
    throw cause;
  }
  return session;
}

/** Opens a session, gives it to `work`, and closes it whatever happens. */
export async function withSession<T>(
  connection: Connection,
  signal: AbortSignal | undefined,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const session = await openSession(connection, signal);
  try {
    return await work(session);
  } finally {
    await session.close();
  }
}

/**
 * Makes sure that a standby, a receiver or a base backup could connect with this role from here, by doing it once. Comes
 * back when the server has taken the connection down again, which may have been the last that it allows.
 * @throws {HoldfastError} INSUFFICIENT_PERMISSIONS without the right or a line in pg_hba.conf, QUOTA_EXCEEDED
 */
export async function assertReplicates(
  connection: Connection,
  session: Session,
  signal: AbortSignal | undefined,
): Promise<void> {
  signal?.throwIfAborted();
  const { default: pg } = await import('pg');
  let client: Client;
  try {
    client = await connect(pg.Client, connection, { replication: 'true' });
  } catch (cause) {
    throw toReplicationError(cause);
  }
  const { processID } = client as Client & { processID?: number };
  await client.end().catch(() => {});
  for (let attempt = 0; attempt < 40; attempt += 1) {
    const found = await session.query('SELECT FROM pg_stat_activity WHERE pid = $1', [processID ?? 0]);
    if (found.length === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

async function connect(
  Client: new (config: ClientConfig) => Client,
  connection: Connection,
  more: { readonly replication?: string } = {},
): Promise<Client> {
  const { host, port, user, password, database, sslMode } = connection;
  const attempt = async (ssl: ClientConfig['ssl']): Promise<Client> => {
    const client = new Client({
      host,
      port,
      user,
      // Without one `pg` would look for a pass file of its own; an empty one makes the server say what is missing.
      password: password ?? '',
      database,
      ssl: ssl ?? false,
      application_name: 'holdfast',
      connectionTimeoutMillis: 15_000,
      keepAlive: true,
      ...more,
    });
    // Without a listener a lost connection would end the process.
    client.on('error', () => {});
    try {
      await client.connect();
      return client;
    } catch (cause) {
      await client.end().catch(() => {});
      throw cause;
    }
  };
  if (host.startsWith('/') || sslMode === 'disable' || sslMode === 'allow') return attempt(undefined);
  if (sslMode === 'prefer') {
    return attempt({ rejectUnauthorized: false }).catch((cause) => {
      if (/does not support SSL/.test(String((cause as Error).message))) return attempt(undefined);
      throw cause;
    });
  }
  if (sslMode === 'require' && connection.sslRootCert === undefined) return attempt({ rejectUnauthorized: false });
  const ca = connection.sslRootCert === undefined ? undefined : await readFile(connection.sslRootCert, 'utf8');
  return attempt({
    rejectUnauthorized: true,
    ...(ca === undefined ? {} : { ca }),
    ...(sslMode === 'verify-full' ? {} : { checkServerIdentity: () => undefined }),
  });
}

export interface ProgramEnvironment {
  readonly env: Readonly<Record<string, string>>;
  dispose(): Promise<void>;
}

/**
 * Makes the environment of a client program: all of the connection by variables, the password in a 0600 file in a 0700
 * directory. A database name as an argument would be read as a whole connection string when it holds `=` or `://`.
 * @see libpq, "Environment Variables", "The Password File"
 */
export async function programEnvironment(connection: Connection, directory: string): Promise<ProgramEnvironment> {
  const { host, port, user, password, database, sslMode, sslRootCert } = connection;
  await removeStale(directory);
  const own = await mkdtemp(join(directory, `pgpass-${process.pid}-`));
  const dispose = (): Promise<void> => rm(own, { recursive: true, force: true });
  try {
    const file = join(own, 'pass');
    if (password !== undefined && /[\n\r\0]/.test(password)) {
      throw new HoldfastError('CONFIG_INVALID', 'a PostgreSQL password with a line break cannot be used');
    }
    const escaped = (password ?? '').replaceAll('\\', '\\\\').replaceAll(':', '\\:');
    await writeFile(file, password === undefined ? '' : `*:*:*:*:${escaped}\n`, { mode: 0o600, flag: 'wx' });
    return {
      dispose,
      env: {
        PGHOST: host,
        PGPORT: String(port),
        PGUSER: user,
        PGDATABASE: database,
        PGSSLMODE: sslMode,
        PGPASSFILE: file,
        PGCONNECT_TIMEOUT: '15',
        PGAPPNAME: 'holdfast',
        PGOPTIONS: '-c statement_timeout=0 -c lock_timeout=0',
        LC_ALL: 'C',
        TZ: 'UTC',
        ...(sslRootCert === undefined ? {} : { PGSSLROOTCERT: sslRootCert }),
      },
    };
  } catch (cause) {
    await dispose();
    throw cause;
  }
}

/** Removes the pass files of processes that were killed before they could. */
async function removeStale(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    const pid = /^pgpass-(\d+)-/.exec(name)?.[1];
    if (pid === undefined || isAlive(Number(pid))) continue;
    await rm(join(directory, name), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === 'EPERM';
  }
}
