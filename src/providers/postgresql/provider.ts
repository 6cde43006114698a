import { asHoldfastError } from '../../core/errors.ts';
import { defineProvider } from '../../core/provider.ts';
import type { PostgresClient } from './client.ts';
import type { PostgresEntity } from './entity.ts';
import { PostgresServer } from './parameters.ts';

export const POSTGRESQL_SERVER = 'postgresql/server';

/** Self-managed PostgreSQL: logical backups by `pg_dump`, sealed and stored by Holdfast itself. */
export const postgresql = defineProvider<PostgresEntity, PostgresClient>({
  id: 'postgresql',
  title: 'PostgreSQL',
  entityTypes: {
    [POSTGRESQL_SERVER]: {
      title: 'A database of a PostgreSQL server that you run yourself',
      schema: PostgresServer,
      ignored: [],
      schedules: {
        daily: { action: 'create-snapshot', input: { type: 'logical' } },
        weekly: { action: 'create-snapshot', input: { type: 'full' } },
        verify: { action: 'verify-snapshot', input: { snapshot_id: '$newest' } },
        prune: { action: 'prune-snapshots', input: {} },
      },
      example: {
        host: 'db.internal',
        port: 5432,
        user: 'holdfast',
        password: '${env:ORDERS_DB_PASSWORD}',
        database: 'orders',
        ssl_mode: 'verify-full',
        ssl_root_cert: '/etc/holdfast/db-ca.pem',
        storage: { type: 'local', path: '/var/backups/holdfast' },
        encryption: {
          recipients: ['age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p'],
          identity: '${file:/etc/holdfast/age.key}',
        },
        verify_on_source: true,
      },
    },
  },
  cannot: {
    'check-settings':
      'What the entity declares is applied by Holdfast itself at every call; the server keeps nothing of it.',
    'apply-settings':
      'What the entity declares is applied by Holdfast itself at every call; the server keeps nothing of it.',
  },
  guide: async () => (await import('./guide.ts')).guide,
  grants: async (context, permissions) => (await import('./grants.ts')).readGrants(context, permissions),
  discover: async (context) => (await import('./discover.ts')).discover(context),
  // Of an S3 or Google storage; a part of 8 MiB must pass in this time.
  limits: { per_second: 100, burst: 100, concurrent: 8, timeout_ms: 120_000 },
  async connect(entity, runtime) {
    if (entity.engine === 'pgbackrest') {
      const { PgBackRestClient } = await import('./pgbackrest.ts');
      return new PgBackRestClient(entity, runtime);
    }
    const { PostgresClient: Client } = await import('./client.ts');
    return new Client(entity, runtime);
  },
  recoveryOptions: ({ client, signal }, at) => client.recoveryOptions(at, signal),
  toError: asHoldfastError,
});
