import { HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/json.ts';
import { cleanText } from '../core/text.ts';
import type { Binaries } from './binaries.ts';
import { runChild } from './child.ts';
import { type Connection, openSession, type Session, withSession } from './connection.ts';
import { withUnpacked } from './directory.ts';
import { toPostgresError } from './errors.ts';
import { whileInUse } from './in-use.ts';
import { type Inventory, readInventory, readSchemaText } from './inventory.ts';
import { type LogicalManifest, type Manifest, payloadOf } from './manifest.ts';
import { readDatabase, readServer, type ServerFacts } from './server.ts';
import { type DatabaseSettings, settingStatements } from './settings.ts';
import { ident, literal, suffixed } from './sql.ts';
import { type DumpSource, type TableName, withSelection } from './subset.ts';
import { counted, openPayload } from './verify.ts';
import { feed, startRestore, type Work, withPrograms } from './work.ts';

/** Names of databases that Holdfast makes: `<x>_restore_<id>`, `<x>_before_<id>`, `holdfast_verify_<id>`. */
export const OWN_DATABASE = /^(?:.*_(restore|before)|holdfast_(verify))_[0-9a-f]{10}$/s;

/** Gives the short id of an operation that its databases carry. */
export function shortId(operationId: string): string {
  return sha256(`holdfast ${operationId}`).slice(0, 10);
}

/** Names the database that a restore fills. */
export function restoreName(target: string, id: string): string {
  return suffixed(target, `_restore_${id}`);
}

/** Names the old database after a restore in its place. */
export function beforeName(target: string, id: string): string {
  return suffixed(target, `_before_${id}`);
}

/** Names the scratch database of a verification. */
export function verifyName(id: string): string {
  return `holdfast_verify_${id}`;
}

/** The connection for work on a database from outside it: creating, renaming and dropping cannot be done from within. */
export function maintenanceOf(connection: Connection, maintenance: string, target: string): Connection {
  return { ...connection, database: maintenance === target ? 'template1' : maintenance };
}

/**
 * Opens a session that holds the lock of one operation. A server process that a killed run left behind holds it until its
 * statement is over, so whoever has it knows that nothing of the operation is still going on.
 * @throws {HoldfastError} INVALID_STATE when that takes longer than 30 seconds
 */
export async function withOperationLock<T>(
  connection: Connection,
  id: string,
  signal: AbortSignal | undefined,
  use: (session: Session) => Promise<T>,
): Promise<T> {
  return withSession(connection, signal, async (session) => {
    try {
      await session.query('SELECT pg_advisory_lock(hashtextextended($1, 0))', [operationLock(id)]);
    } catch (cause) {
      if (!(cause instanceof HoldfastError && cause.provider?.code === '55P03')) throw cause;
      throw new HoldfastError('INVALID_STATE', 'an earlier run of this operation is still at work on the server', {
        hint: 'Wait until its statement is over, then look at the operation again.',
        cause,
      });
    }
    return use(session);
  });
}

const operationLock = (id: string): string => `holdfast:operation:${id}`;

/** Tells whether some session holds the lock of an operation now. */
export async function isLocked(session: Session, id: string): Promise<boolean> {
  const [row] = await session.query<{ held: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_locks l, hashtextextended($1, 0) AS k(v) WHERE l.locktype = 'advisory' AND l.granted
       AND l.objsubid = 1 AND (l.classid::int8 << 32 | l.objid::int8) = k.v) AS held`,
    [operationLock(id)],
  );
  return row?.held === true;
}

/**
 * Creates the empty database that a restore goes into, with the encoding and locale of the backup.
 * @throws {HoldfastError} RESOURCE_EXISTS, NOT_SUPPORTED for a locale that the server does not have
 */
export async function createDatabase(
  work: Work,
  session: Session,
  name: string,
  manifest: Manifest,
  server: Pick<ServerFacts, 'major'>,
  owner: string | undefined,
): Promise<number> {
  const { encoding, collate, ctype, locale_provider, locale } = manifest.server;
  const options = [
    'TEMPLATE template0',
    `ENCODING ${literal(encoding)}`,
    `LC_COLLATE ${literal(collate)}`,
    `LC_CTYPE ${literal(ctype)}`,
  ];
  if (owner !== undefined) options.push(`OWNER ${ident(owner)}`);
  if (server.major >= 15 && locale_provider === 'i' && locale !== undefined) {
    options.push('LOCALE_PROVIDER icu', `ICU_LOCALE ${literal(locale)}`);
  }
  if (server.major >= 17 && locale_provider === 'b' && locale !== undefined) {
    options.push('LOCALE_PROVIDER builtin', `BUILTIN_LOCALE ${literal(locale)}`);
  }
  work.runtime.assertMayWrite('creating a database');
  await session.query(`CREATE DATABASE ${ident(name)} ${options.join(' ')}`);
  const facts = await readDatabase(session, name);
  if (!facts) throw new HoldfastError('INVALID_STATE', 'a database that was just created is not there');
  return facts.oid;
}

/**
 * Drops a database that this operation made, its sessions included. Idempotent.
 * @throws {HoldfastError} INVALID_STATE when another database has the name now
 */
export async function dropDatabase(
  work: Work,
  session: Session,
  name: string,
  oid: number | undefined,
): Promise<boolean> {
  if (!OWN_DATABASE.test(name)) {
    throw new HoldfastError('INTERNAL', 'a database that Holdfast did not make was about to be dropped');
  }
  const facts = await readDatabase(session, name);
  if (!facts) return false;
  if (oid !== undefined && facts.oid !== oid) {
    throw new HoldfastError(
      'INVALID_STATE',
      `the database '${cleanText(name, 70)}' is not the one that this operation made`,
      {
        hint: 'Look at it before you drop it by hand.',
        retryable: false,
      },
    );
  }
  work.runtime.assertMayWrite('dropping a temporary database');
  await session.query(`DROP DATABASE IF EXISTS ${ident(name)} WITH (FORCE)`);
  return true;
}

export interface FillOptions {
  readonly binaries: Binaries;
  /** Leaves out owners and grants: everything belongs to the restoring role. */
  readonly noOwner: boolean;
  /** A directory that does not exist yet, for a dump that is unpacked first. */
  readonly scratch: string;
  /** Connections that a dump made with several is restored with. */
  readonly jobs?: number | undefined;
  /** Restores the rows of these tables only. */
  readonly tables?: readonly TableName[] | undefined;
}

/** Restores the dump of a backup into an empty database, and gathers statistics. */
export async function fillDatabase(
  work: Work,
  database: string,
  manifest: LogicalManifest,
  options: FillOptions,
): Promise<void> {
  const connection = { ...work.connection, database };
  const { binaries, tables, scratch, jobs = 2 } = options;
  // With an empty -d the name comes from PGDATABASE, where no character of it has a meaning.
  // A subscription would come back with the slot of the original, and would keep the database from being dropped.
  const args = ['--exit-on-error', '--no-subscriptions', '--no-password', '-d', ''];
  if (options.noOwner) args.push('--no-owner', '--no-privileges');
  const only = async <T>(dump: DumpSource, use: (args: readonly string[]) => Promise<T>): Promise<T> =>
    tables === undefined
      ? use(args)
      : withSelection(work, manifest, binaries, dump, tables, (list) => use([...args, ...list]));
  const fill = (): Promise<void> =>
    withPrograms(work, connection, async (environment) => {
      if (manifest.kind === 'logical_dir') {
        return withUnpacked(work, manifest, scratch, (dump) =>
          only({ path: dump }, async (chosen) => {
            work.runtime.assertMayWrite('restoring into a database');
            work.progress({ message: `Restoring the dump with ${jobs} connections` });
            await runChild(binaries.pgRestore, [...chosen, `-j${jobs}`, dump], environment);
          }),
        );
      }
      const dump = payloadOf(manifest, 'dump');
      const read = () => openPayload(work, manifest, dump);
      return only({ read }, async (chosen) => {
        work.runtime.assertMayWrite('restoring into a database');
        const child = startRestore(binaries, chosen, environment);
        await feed(child, counted(work, read(), dump.plain_bytes, 'Restoring the dump'));
      });
    });
  await whileInUse(work, manifest.id, 'restore', fill);
  await withSession(connection, work.signal, (session) => session.query('ANALYZE'));
}

/** Puts the settings of a database, its rights included, on another one. */
export async function applySettings(
  work: Work,
  session: Session,
  database: string,
  settings: DatabaseSettings,
): Promise<void> {
  work.runtime.assertMayWrite('setting up a database');
  for (const statement of settingStatements(database, settings)) await session.query(statement);
}

/** Reads the inventory of a database as it is at one moment. */
export async function inventoryOf(work: Work, database: string, binaries: Binaries, full: boolean): Promise<Inventory> {
  const connection = { ...work.connection, database };
  const session = await openSession(connection, work.signal);
  try {
    const server = await readServer(session);
    await session.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    const [exported] = await session.query<{ snapshot: string }>('SELECT pg_export_snapshot() AS snapshot');
    const found = await readInventory(session, {
      serverMajor: server.major,
      maxRows: full ? Number.MAX_SAFE_INTEGER : work.maxRows,
      signal: work.signal,
      onTable: (done, all) =>
        work.progress({
          percent: Math.min(99, Math.floor((done / all) * 100)),
          message: `Comparing table ${done} of ${all}`,
        }),
    });
    const text = await withPrograms(work, connection, (options) =>
      readSchemaText(binaries.pgDump, options, exported?.snapshot),
    );
    await session.query('COMMIT');
    return { ...found, ...text };
  } finally {
    await session.close();
  }
}

export interface Swap {
  readonly target: string;
  /** The database that has the name now; undefined when the name is to be new. */
  readonly targetOid: number | undefined;
  readonly restored: string;
  readonly restoredOid: number;
  /** What the old database will be called. */
  readonly before: string;
}

/**
 * Tells how far a swap has come, by the identities of the databases.
 * `done` and `not_done` are certain; `mixed` means that somebody else renamed or dropped one of them.
 */
export async function swapState(session: Session, swap: Swap): Promise<'done' | 'not_done' | 'mixed'> {
  const rows = await session.query<{ name: string; oid: string }>(
    'SELECT datname::text AS name, oid::text AS oid FROM pg_database WHERE datname = ANY($1)',
    [[swap.target, swap.restored, swap.before]],
  );
  const oidOf = (name: string): number | undefined => {
    const row = rows.find((candidate) => candidate.name === name);
    return row === undefined ? undefined : Number(row.oid);
  };
  const now = [oidOf(swap.target), oidOf(swap.restored), oidOf(swap.before)];
  const equal = (expected: (number | undefined)[]): boolean => expected.every((oid, index) => oid === now[index]);
  if (equal([swap.restoredOid, undefined, swap.targetOid])) return 'done';
  if (equal([swap.targetOid, swap.restoredOid, undefined])) return 'not_done';
  return 'mixed';
}

/**
 * Gives the restored database the name of the target, and the target the name that keeps it, in one transaction: at any
 * moment, crashes included, either both have happened or neither. The rename holds a lock that keeps new sessions out;
 * those that are there are ended meanwhile.
 * @throws {HoldfastError} INVALID_STATE when sessions stay or the databases are not those of the plan; then nothing changed
 */
export async function swapDatabases(work: Work, session: Session, connection: Connection, swap: Swap): Promise<void> {
  if ((await swapState(session, swap)) !== 'not_done') {
    throw new HoldfastError('INVALID_STATE', 'the target is not the database that the plan was made for', {
      hint: 'Somebody created, renamed or dropped it meanwhile. Nothing was changed; make the call again for a new plan.',
      retryable: false,
    });
  }
  work.runtime.assertMayWrite('renaming databases');
  try {
    if (swap.targetOid === undefined) {
      await session.query(`ALTER DATABASE ${ident(swap.restored)} RENAME TO ${ident(swap.target)}`);
    } else {
      await renameBoth(session, connection, swap);
    }
  } catch (cause) {
    // A connection lost during COMMIT says nothing about the COMMIT; the names do.
    await session.close();
    const state = await withSession(connection, undefined, (fresh) => swapState(fresh, swap)).catch(() => 'unknown');
    if (state === 'done') return;
    if (state === 'not_done') throw cause;
    throw new HoldfastError('PROVIDER_UNAVAILABLE', 'the connection was lost while databases were being renamed', {
      hint: 'The swap is one transaction: it has happened wholly or not at all. Look at the names of the databases.',
      details: { outcome: 'unknown' },
      cause,
    });
  }
}

async function renameBoth(session: Session, connection: Connection, swap: Swap): Promise<void> {
  await session.query('BEGIN');
  let renaming = true;
  const rename = session.query(`ALTER DATABASE ${ident(swap.target)} RENAME TO ${ident(swap.before)}`).finally(() => {
    renaming = false;
  });
  rename.catch(() => {});
  await withSession(connection, undefined, async (other) => {
    while (renaming) {
      await other.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datid = $1 AND pid <> pg_backend_pid()`,
        [swap.targetOid],
      );
      await Promise.race([rename.catch(() => {}), new Promise((resolve) => setTimeout(resolve, 50))]);
    }
  }).catch((cause) => {
    // The rename says by itself that sessions stayed; a right that is missing is the better answer.
    if (toPostgresError(cause).code === 'INSUFFICIENT_PERMISSIONS') {
      throw new HoldfastError('INSUFFICIENT_PERMISSIONS', 'the role may not end the sessions that use the target', {
        hint: 'GRANT pg_signal_backend TO the role of this entity, and close sessions of superusers by hand.',
        cause,
      });
    }
    throw cause;
  });
  await rename;
  await session.query(`ALTER DATABASE ${ident(swap.restored)} RENAME TO ${ident(swap.target)}`);
  await session.query('COMMIT');
}

/** Lists the databases that Holdfast made on a server and left there. */
export async function ownDatabases(
  session: Session,
): Promise<{ name: string; kind: 'restore' | 'before' | 'verify' }[]> {
  const rows = await session.query<{ name: string }>('SELECT datname::text AS name FROM pg_database ORDER BY 1');
  return rows.flatMap(({ name }) => {
    const match = OWN_DATABASE.exec(name);
    return match ? [{ name, kind: (match[1] ?? match[2]) as 'restore' | 'before' | 'verify' }] : [];
  });
}

/**
 * Makes sure that a backup can go into a server, before anything is created.
 * @throws {HoldfastError} NOT_SUPPORTED for an older server or missing extensions
 */
export async function assertFits(session: Session, server: ServerFacts, manifest: Manifest): Promise<void> {
  const dumped = Math.floor(manifest.server.version_num / 10_000);
  if (server.major < dumped) {
    throw new HoldfastError('NOT_SUPPORTED', `this backup is of PostgreSQL ${dumped}; the server is ${server.major}`, {
      hint: 'Restore into a server of the same or a newer major version.',
    });
  }
  if (server.in_recovery) {
    throw new HoldfastError('INVALID_STATE', 'the server is a standby and takes no writes', {
      hint: 'Point this entity at the primary server to restore.',
    });
  }
  const names = manifest.server.extensions.map(({ name }) => name);
  const missing = await session.query<{ name: string }>(
    'SELECT name FROM unnest($1::text[]) AS name WHERE name NOT IN (SELECT a.name::text FROM pg_available_extensions a)',
    [names],
  );
  if (missing.length > 0) {
    throw new HoldfastError('NOT_SUPPORTED', 'extensions of the backup are not available on the server', {
      hint: 'Install the packages of these extensions on the server, then call again.',
      details: { extensions: missing.map(({ name }) => cleanText(name, 70)) },
    });
  }
}

/** Gives those of the roles that the server does not have. */
export async function missingRoles(session: Session, roles: readonly string[]): Promise<string[]> {
  const rows = await session.query<{ name: string }>(
    'SELECT name FROM unnest($1::text[]) AS name WHERE name NOT IN (SELECT rolname::text FROM pg_roles)',
    [[...roles]],
  );
  return rows.map(({ name }) => name);
}
