import type { Session } from './connection.ts';
import { ident, literal } from './sql.ts';

/** What belongs to a database but is in no dump of it: owner, limits, rights, settings. */
export interface DatabaseSettings {
  owner: string;
  connection_limit: number;
  comment: string | null;
  /** Null: the default rights. */
  grants: { grantee: string | null; privilege: string; grantable: boolean }[] | null;
  settings: { role: string | null; name: string; value: string }[];
}

/** Settings whose stored value is a list of quoted names. @see PostgreSQL source, GUC_LIST_QUOTE */
const LISTS = new Set([
  'local_preload_libraries',
  'search_path',
  'session_preload_libraries',
  'shared_preload_libraries',
  'temp_tablespaces',
  'unix_socket_directories',
]);

/** Reads the settings of a database, of the session's own when no name is given. */
export async function readSettings(session: Session, name?: string): Promise<DatabaseSettings> {
  const [row] = await session.query<{
    owner: string;
    connection_limit: number;
    comment: string | null;
    grants: DatabaseSettings['grants'];
    configs: { role: string | null; config: string }[] | null;
  }>(
    `SELECT pg_get_userbyid(d.datdba)::text AS owner, d.datconnlimit AS connection_limit,
      shobj_description(d.oid, 'pg_database') AS comment,
      CASE WHEN d.datacl IS NOT NULL THEN coalesce((SELECT jsonb_agg(jsonb_build_object(
          'grantee', CASE WHEN x.grantee = 0 THEN NULL ELSE pg_get_userbyid(x.grantee) END,
          'privilege', x.privilege_type, 'grantable', x.is_grantable)) FROM aclexplode(d.datacl) x), '[]') END AS grants,
      (SELECT jsonb_agg(jsonb_build_object('role', CASE WHEN s.setrole = 0 THEN NULL ELSE pg_get_userbyid(s.setrole) END, 'config', e))
       FROM pg_db_role_setting s, unnest(s.setconfig) e WHERE s.setdatabase = d.oid) AS configs
     FROM pg_database d WHERE d.datname = coalesce($1, current_database())`,
    [name ?? null],
  );
  const settings = (row?.configs ?? []).map(({ role, config }) => {
    const cut = config.indexOf('=');
    return { role, name: config.slice(0, cut), value: config.slice(cut + 1) };
  });
  return {
    owner: row?.owner ?? '',
    connection_limit: row?.connection_limit ?? -1,
    comment: row?.comment ?? null,
    grants: row?.grants ?? null,
    settings: settings.sort((a, b) => `${a.role ?? ''} ${a.name}`.localeCompare(`${b.role ?? ''} ${b.name}`)),
  };
}

/** Gives the statements that put settings on a database, the owner's own rights included. */
export function settingStatements(database: string, settings: DatabaseSettings): string[] {
  const target = ident(database);
  const statements: string[] = [];
  for (const { role, name, value } of settings.settings) {
    const on = role === null ? `DATABASE ${target}` : `ROLE ${ident(role)} IN DATABASE ${target}`;
    // A setting of an extension has a dot in its name; each part is quoted by itself.
    const setting = name.split('.').map(ident).join('.');
    const text = LISTS.has(name) ? splitList(value).map(literal).join(', ') || "''" : literal(value);
    statements.push(`ALTER ${on} SET ${setting} TO ${text}`);
  }
  if (settings.grants !== null) {
    statements.push(
      `REVOKE ALL ON DATABASE ${target} FROM PUBLIC`,
      `REVOKE ALL ON DATABASE ${target} FROM ${ident(settings.owner)}`,
    );
    for (const { grantee, privilege, grantable } of settings.grants) {
      if (!/^[A-Z]+$/.test(privilege)) continue;
      const to = grantee === null ? 'PUBLIC' : ident(grantee);
      statements.push(`GRANT ${privilege} ON DATABASE ${target} TO ${to}${grantable ? ' WITH GRANT OPTION' : ''}`);
    }
  }
  if (settings.comment !== null) statements.push(`COMMENT ON DATABASE ${target} IS ${literal(settings.comment)}`);
  if (settings.connection_limit >= 0) {
    statements.push(`ALTER DATABASE ${target} CONNECTION LIMIT ${settings.connection_limit}`);
  }
  return statements;
}

/** Splits a stored list of names, `"$user", public`, into the names. */
function splitList(value: string): string[] {
  const items: string[] = [];
  for (const match of value.matchAll(/\s*(?:"((?:[^"]|"")*)"|([^,"]+?))\s*(?:,|$)/g)) {
    items.push(match[1] === undefined ? (match[2] ?? '') : match[1].replaceAll('""', '"'));
  }
  return items.filter((item) => item !== '');
}
