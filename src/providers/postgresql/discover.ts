import { isAbsolute } from 'node:path';
import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Discovered, Discovery, DiscoveryContext } from '../../core/provider.ts';
import type { Runtime, SecretRef } from '../../core/runtime.ts';
import { cleanText } from '../../core/text.ts';
import { formatBytes } from '../../core/time.ts';
import { known } from '../../core/wire.ts';
import { type Connection, parseConnectionUrl, SSL_MODES, withSession } from '../../postgres/connection.ts';
import { readServer } from '../../postgres/server.ts';

/** Where backups go in a draft; whoever reads it decides. */
const STORE = '/var/backups/holdfast';
const ENTITY_TYPE = 'postgresql/server';
/** More databases on one server are hardly meant to be backed up one by one. */
const MOST_DATABASES = 200;

interface Way {
  readonly connection: Connection;
  /** What an entity has to say to be reached the same way. */
  readonly parameters: JsonObject;
}

/** Looks at the server that the access, DATABASE_URL or libpq's variables name; undefined where none of them does. */
export async function discover({ access, runtime, signal }: DiscoveryContext): Promise<Discovery | undefined> {
  const way = await findWay(access, runtime);
  if (way === undefined) return undefined;
  const { connection, parameters } = way;
  return withSession(connection, signal, async (session) => {
    const server = await readServer(session);
    const rows = await session.query<{ name: string; may: boolean; size: string | null }>(`
      SELECT datname::text AS name, has_database_privilege(oid, 'CONNECT') AS may,
        CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid)::text END AS size
      FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname LIMIT ${MOST_DATABASES + 1}`);
    const [reader] = await session.query<{ all: boolean }>(
      "SELECT COALESCE((SELECT pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = 'pg_read_all_data'), false) AS all",
    );
    // The one that every server has is of interest only where it is the only one.
    const own = rows.filter(({ name }) => name !== 'postgres');
    const shown = own.length === 0 ? rows : own;
    const { role } = server;
    const ofRole = [
      ...(role.superuser
        ? ['The role is a superuser: one of its own with pg_read_all_data is enough for backups.']
        : reader?.all === true
          ? []
          : ['The role is no member of pg_read_all_data: a backup stops at the first table that it may not read.']),
      ...(server.in_recovery ? ['The server is a standby: restores into it are not possible.'] : []),
    ];
    return {
      looked: `server ${cleanText(server.version, 40)} at ${cleanText(connection.host, 100)}:${connection.port}, role ${cleanText(role.name, 63)}`,
      found: shown
        .filter(({ may }) => may)
        .slice(0, MOST_DATABASES)
        .map(
          ({ name, size }): Discovered => ({
            defines: ENTITY_TYPE,
            name,
            parameters: {
              ...parameters,
              database: name,
              storage: { type: 'local', path: STORE },
              encryption: 'none',
            },
            notes: [
              `${size === null ? '' : `${formatBytes(Number(size))}. `}Nothing that Holdfast knows of backs it up. Before the first create-snapshot choose storage and encryption: what stands here is a local folder, not encrypted.`,
              ...ofRole,
            ],
          }),
        ),
      problems: [
        ...shown
          .filter(({ may }) => !may)
          .map(({ name }) => `the role may not connect to the database ${cleanText(name, 63)}`),
        ...(rows.length > MOST_DATABASES
          ? [`there are more than ${MOST_DATABASES} databases; the rest was left out`]
          : []),
      ],
    };
  });
}

async function findWay(access: Readonly<Record<string, unknown>>, runtime: Runtime): Promise<Way | undefined> {
  const given = { url: secretOf(access['connection_url']), password: secretOf(access['password']) };
  const isNamed = ['PGHOST', 'PGUSER'].some((name) => runtime.credential(name) !== undefined);
  const isGiven = typeof access['host'] === 'string' || typeof access['user'] === 'string';
  const url = given.url ?? (isNamed || isGiven ? undefined : urlVariable(runtime));
  if (url === undefined && !isNamed && !isGiven) return undefined;

  const ofUrl = url === undefined ? {} : parseConnectionUrl((await runtime.secret(url)).trim());
  if (ofUrl.password !== undefined) runtime.conceal(ofUrl.password);
  // A URL stands for itself: as with libpq, no variable changes what it says.
  const variable = (name: string): string | undefined => (url === undefined ? runtime.credential(name) : undefined);
  const text = (name: string, ofChain: string): string | undefined =>
    typeof access[name] === 'string' ? access[name] : variable(ofChain);
  const isOpen = ofUrl.password === undefined && runtime.credential('PGPASSWORD') !== undefined;
  const password = given.password ?? (isOpen ? env('PGPASSWORD') : undefined);
  const host = text('host', 'PGHOST');
  const user = text('user', 'PGUSER');
  const port = Number(access['port'] ?? variable('PGPORT') ?? Number.NaN);
  const mode = text('ssl_mode', 'PGSSLMODE');
  const certificate = text('ssl_root_cert', 'PGSSLROOTCERT');
  const own = known({
    host,
    port: Number.isInteger(port) && port > 0 && port < 65_536 ? port : undefined,
    user,
    ssl_mode: SSL_MODES.find((candidate) => candidate === mode),
    ssl_root_cert: certificate !== undefined && isAbsolute(certificate) ? certificate : undefined,
  });
  const role = own.user ?? ofUrl.user;
  if (role === undefined) {
    throw new HoldfastError('CONFIG_INVALID', 'PGHOST names a server, and nothing names the user', {
      hint: 'Set PGUSER, or DATABASE_URL in place of both.',
    });
  }
  return {
    connection: {
      host: own.host ?? ofUrl.host ?? 'localhost',
      port: own.port ?? ofUrl.port ?? 5432,
      user: role,
      password: password === undefined ? ofUrl.password : await runtime.secret(password),
      database: text('database', 'PGDATABASE') ?? ofUrl.database ?? 'postgres',
      sslMode: own.ssl_mode ?? ofUrl.sslMode ?? 'prefer',
      sslRootCert: own.ssl_root_cert ?? ofUrl.sslRootCert,
    },
    parameters: {
      ...(url === undefined ? {} : { connection_url: written(url) }),
      ...own,
      ...(password === undefined ? {} : { password: written(password) }),
    },
  };
}

/** DATABASE_URL, where it is one of PostgreSQL. */
function urlVariable(runtime: Runtime): SecretRef | undefined {
  const value = runtime.credential('DATABASE_URL');
  return value !== undefined && /^postgres(?:ql)?:\/\//.test(value.trim()) ? env('DATABASE_URL') : undefined;
}

function env(name: string): SecretRef {
  return { secret: 'env', name };
}

function secretOf(value: unknown): SecretRef | undefined {
  return typeof value === 'object' && value !== null && 'secret' in value ? (value as SecretRef) : undefined;
}

function written({ secret, name }: SecretRef): string {
  return `\${${secret}:${name}}`;
}
