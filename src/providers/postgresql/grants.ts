import type { ProviderContext } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { PermissionState } from '../../core/provider.ts';
import { withSession } from '../../postgres/connection.ts';
import { assertReadsEverything, readDatabase, readServer } from '../../postgres/server.ts';
import type { PostgresClient } from './client.ts';
import type { PostgresEntity } from './entity.ts';
import { storeGrants } from './store-rights.ts';

export const READ_ALL_DATA = 'pg_read_all_data';
export const BYPASS_ROW_SECURITY = 'BYPASSRLS';
export const CREATE_DATABASES = 'CREATEDB';
export const OWN_DATABASE = 'owner of the database';
export const END_SESSIONS = 'pg_signal_backend';
export const MONITOR = 'pg_monitor';
export const REPLICATE = 'REPLICATION';
export const SWITCH_WAL = 'EXECUTE ON FUNCTION pg_switch_wal()';

/** Asks the server which of these rights the entity's role has, and the storage which its credentials have. Reads only. */
export async function readGrants(
  { client, signal }: ProviderContext<PostgresClient, PostgresEntity>,
  permissions: readonly string[],
): Promise<Record<string, PermissionState>> {
  const stored = await storeGrants(client.store, permissions);
  const connection = await client.connection();
  return withSession(connection, signal, async (session) => {
    const server = await readServer(session);
    const { superuser, bypass_rls, create_db, signal_backend } = server.role;
    const database = await readDatabase(session, server.database);
    const readsAll = await assertReadsEverything(session, server).then(
      () => true,
      (cause: unknown) => {
        if (cause instanceof HoldfastError && cause.code === 'INSUFFICIENT_PERMISSIONS') return false;
        throw cause;
      },
    );
    const [more] = await session.query<{ monitor: boolean; replicate: boolean; switch_wal: boolean }>(`
      SELECT pg_has_role('pg_monitor', 'USAGE') AS monitor, rolreplication AS replicate,
        has_function_privilege('pg_switch_wal()', 'EXECUTE') AS switch_wal FROM pg_roles WHERE rolname = current_user`);
    const has: Record<string, boolean> = {
      // Whoever reads every row may do so by whatever grants it.
      [READ_ALL_DATA]: readsAll,
      [BYPASS_ROW_SECURITY]: superuser || bypass_rls || readsAll,
      [CREATE_DATABASES]: superuser || create_db,
      [OWN_DATABASE]: superuser || database?.ours === true,
      [END_SESSIONS]: superuser || signal_backend,
      [MONITOR]: superuser || more?.monitor === true,
      [REPLICATE]: superuser || more?.replicate === true,
      [SWITCH_WAL]: more?.switch_wal === true,
    };
    const state = (permission: string): PermissionState =>
      stored[permission] ?? (has[permission] === undefined ? 'unknown' : has[permission] ? 'granted' : 'refused');
    return Object.fromEntries(permissions.map((permission) => [permission, state(permission)]));
  });
}
