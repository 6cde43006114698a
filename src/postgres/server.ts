import { HoldfastError } from '../core/errors.ts';
import { cleanText } from '../core/text.ts';
import type { Session } from './connection.ts';

/** The oldest server that DROP DATABASE … WITH (FORCE) and the rest of this works on. */
const OLDEST_SERVER = 130_000;

export interface ServerFacts {
  readonly version: string;
  readonly version_num: number;
  readonly major: number;
  readonly system_identifier: string | null;
  readonly in_recovery: boolean;
  readonly database: string;
  readonly database_size_bytes: number;
  readonly encoding: string;
  readonly collate: string;
  readonly ctype: string;
  readonly locale_provider: string | undefined;
  readonly locale: string | undefined;
  readonly extensions: { name: string; version: string }[];
  readonly roles_count: number;
  readonly role: Role;
}

export interface Role {
  readonly name: string;
  readonly superuser: boolean;
  readonly bypass_rls: boolean;
  readonly create_db: boolean;
  readonly signal_backend: boolean;
}

/**
 * Reads what there is to know about a server and the database that a session is in.
 * @throws {HoldfastError} NOT_SUPPORTED for a server older than PostgreSQL 13
 */
export async function readServer(session: Session): Promise<ServerFacts> {
  const [base] = await session.query<{
    version: string;
    version_num: string;
    in_recovery: boolean;
    database: string;
    size: string;
    encoding: string;
    database_row: Record<string, unknown>;
    roles: string;
    role: string;
    superuser: boolean;
    bypass_rls: boolean;
    create_db: boolean;
    signal_backend: boolean;
  }>(`
    SELECT current_setting('server_version') AS version, current_setting('server_version_num') AS version_num,
      pg_is_in_recovery() AS in_recovery, d.datname::text AS database, pg_database_size(d.oid)::text AS size,
      pg_encoding_to_char(d.encoding)::text AS encoding, to_jsonb(d.*) - 'datacl' AS database_row,
      (SELECT count(*) FROM pg_roles)::text AS roles, r.rolname::text AS role, r.rolsuper AS superuser,
      r.rolbypassrls AS bypass_rls, r.rolcreatedb AS create_db, pg_has_role('pg_signal_backend', 'USAGE') AS signal_backend
    FROM pg_database d, pg_roles r WHERE d.datname = current_database() AND r.rolname = current_user`);
  if (!base) throw new HoldfastError('INTERNAL', 'the server knows neither our database nor our role');
  const version_num = Number(base.version_num);
  if (version_num < OLDEST_SERVER) {
    throw new HoldfastError('NOT_SUPPORTED', `PostgreSQL ${cleanText(base.version, 40)} is older than version 13`, {
      hint: 'Use PostgreSQL 13 or newer; older versions are without security fixes.',
    });
  }
  const extensions = await session.query<{ name: string; version: string }>(
    'SELECT extname::text AS name, extversion AS version FROM pg_extension ORDER BY 1',
  );
  // A managed server may keep this function to itself.
  const [identifier] = await session
    .query<{ id: string }>('SELECT system_identifier::text AS id FROM pg_control_system()')
    .catch(() => []);
  const row = base.database_row;
  const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
  return {
    version: base.version,
    version_num,
    major: Math.floor(version_num / 10_000),
    system_identifier: identifier?.id ?? null,
    in_recovery: base.in_recovery,
    database: base.database,
    database_size_bytes: Number(base.size),
    encoding: base.encoding,
    collate: text(row['datcollate']) ?? 'C',
    ctype: text(row['datctype']) ?? 'C',
    locale_provider: text(row['datlocprovider']),
    locale: text(row['datlocale']) ?? text(row['daticulocale']),
    extensions,
    roles_count: Number(base.roles),
    role: {
      name: base.role,
      superuser: base.superuser,
      bypass_rls: base.bypass_rls,
      create_db: base.create_db,
      signal_backend: base.signal_backend,
    },
  };
}

/** Relations of users: no system schema, nothing that an extension owns. */
export const USER_RELATION = `n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND NOT EXISTS (
  SELECT FROM pg_depend x WHERE x.classid = 'pg_class'::regclass AND x.objid = c.oid AND x.deptype = 'e')`;

/**
 * Makes sure that the role of a session sees every row of every table, before anything is written.
 * @throws {HoldfastError} INSUFFICIENT_PERMISSIONS naming the tables
 */
export async function assertReadsEverything(session: Session, facts: ServerFacts): Promise<void> {
  if (facts.role.superuser) return;
  const unreadable = await session.query<{ name: string }>(`
    SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm', 'S') AND ${USER_RELATION}
      AND NOT (has_schema_privilege(n.oid, 'USAGE') AND CASE c.relkind
        WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT') ELSE has_table_privilege(c.oid, 'SELECT') END)
    ORDER BY 1 LIMIT 20`);
  if (unreadable.length > 0) {
    throw new HoldfastError(
      'INSUFFICIENT_PERMISSIONS',
      'the role may not read every table, so a backup would be incomplete',
      {
        hint: 'As a superuser run GRANT pg_read_all_data TO the role of this entity (PostgreSQL 14 and newer).',
        details: { relations: unreadable.map(({ name }) => cleanText(name, 130)) },
      },
    );
  }
  // pg_read_all_data does not reach large objects.
  const [large] = await session.query<{ count: string }>(`
    SELECT count(*)::text AS count FROM pg_largeobject_metadata m WHERE NOT pg_has_role(m.lomowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM aclexplode(m.lomacl) x WHERE x.privilege_type = 'SELECT'
        AND (x.grantee = 0 OR pg_has_role(x.grantee, 'USAGE')))`);
  if (large !== undefined && large.count !== '0') {
    throw new HoldfastError(
      'INSUFFICIENT_PERMISSIONS',
      `the role may not read ${large.count} large objects, so a backup would be incomplete`,
      { hint: 'GRANT SELECT ON LARGE OBJECT … to the role for each, or back up as their owner or a superuser.' },
    );
  }
  if (facts.role.bypass_rls) return;
  const hidden = await session.query<{ name: string }>(`
    SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relrowsecurity AND ${USER_RELATION} AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE'))
    ORDER BY 1 LIMIT 20`);
  if (hidden.length > 0) {
    throw new HoldfastError(
      'INSUFFICIENT_PERMISSIONS',
      'row security would hide rows from this role, so a backup would be incomplete',
      {
        hint: 'As a superuser run ALTER ROLE … BYPASSRLS for the role of this entity.',
        details: { relations: hidden.map(({ name }) => cleanText(name, 130)) },
      },
    );
  }
}

export interface DatabaseFacts {
  readonly oid: number;
  readonly name: string;
  readonly owner: string;
  readonly template: boolean;
  readonly size_bytes: number;
  readonly connections: number;
  readonly prepared_transactions: number;
  readonly logical_slots: number;
  readonly subscriptions: number;
  /** Whether our role may rename it. */
  readonly ours: boolean;
}

/** Looks at one database of the server from outside it; undefined when there is none of this name. */
export async function readDatabase(session: Session, name: string): Promise<DatabaseFacts | undefined> {
  const [row] = await session.query<Record<string, string | boolean>>(
    `SELECT d.oid::text AS oid, d.datname::text AS name, pg_get_userbyid(d.datdba)::text AS owner, d.datistemplate AS template,
      CASE WHEN has_database_privilege(d.oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')
        THEN pg_database_size(d.oid) ELSE 0 END::text AS size,
      (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid AND a.backend_type = 'client backend')::text AS connections,
      (SELECT count(*) FROM pg_prepared_xacts p WHERE p.database = d.datname)::text AS prepared,
      (SELECT count(*) FROM pg_replication_slots s WHERE s.database = d.datname)::text AS slots,
      (SELECT count(*) FROM pg_subscription u WHERE u.subdbid = d.oid AND u.subenabled)::text AS subscriptions,
      pg_has_role(d.datdba, 'USAGE') AS ours
     FROM pg_database d WHERE d.datname = $1`,
    [name],
  );
  if (!row) return undefined;
  return {
    oid: Number(row['oid']),
    name: String(row['name']),
    owner: String(row['owner']),
    template: row['template'] === true,
    size_bytes: Number(row['size']),
    connections: Number(row['connections']),
    prepared_transactions: Number(row['prepared']),
    logical_slots: Number(row['slots']),
    subscriptions: Number(row['subscriptions']),
    ours: row['ours'] === true,
  };
}
