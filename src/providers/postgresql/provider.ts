import { isAbsolute } from 'node:path';
import { z } from 'zod';
import { asHoldfastError } from '../../core/errors.ts';
import { defineProvider } from '../../core/provider.ts';
import { SecretReference } from '../../core/schemas.ts';
import type { PostgresClient } from './client.ts';
import { type PostgresEntity, SSL_MODES } from './entity.ts';

export const POSTGRESQL_SERVER = 'postgresql/server';

const Encryption = z.union([
  z.literal('none'),
  z
    .object({
      recipients: z
        .array(z.string().regex(/^age1[0-9a-z]+$/, 'an age public key, age1…; age-keygen makes a pair'))
        .min(1)
        .optional()
        .describe('age public keys; each of their holders can restore'),
      identity: SecretReference.optional().describe('age secret key, needed where backups are verified or restored'),
      passphrase: SecretReference.optional().describe('Instead of recipients'),
    })
    .strict()
    .refine(
      ({ recipients, passphrase }) => (recipients === undefined) !== (passphrase === undefined),
      'give either recipients or passphrase',
    ),
]);

const PostgresServer = z
  .object({
    host: z.string().min(1).optional().describe('Host, address or socket directory; localhost when left out'),
    port: z.number().int().min(1).max(65_535).optional(),
    user: z.string().min(1).optional(),
    password: SecretReference.optional().describe('PGPASSWORD when left out'),
    database: z.string().min(1).max(63).optional(),
    ssl_mode: z.enum(SSL_MODES).optional(),
    ssl_root_cert: z.string().refine(isAbsolute, 'an absolute path').optional(),
    connection_url: SecretReference.optional().describe(
      'postgresql:// URL instead of host, user, password and database',
    ),
    storage: z
      .object({
        type: z.literal('local'),
        path: z.string().refine(isAbsolute, 'an absolute path'),
      })
      .strict(),
    encryption: Encryption.describe('`none` must be written out'),
    compression_level: z.number().int().min(1).max(19).optional().describe('Of zstd; 3 when left out'),
    bin_dir: z
      .string()
      .refine(isAbsolute, 'an absolute path')
      .optional()
      .describe('Directory of pg_dump and pg_restore'),
    verify_on_source: z
      .boolean()
      .optional()
      .describe('Lets verify-snapshot make and drop a scratch database on this same server'),
    scratch_url: SecretReference.optional().describe('postgresql:// URL of another server for scratch databases'),
    maintenance_database: z
      .string()
      .min(1)
      .max(63)
      .optional()
      .describe('To create and rename from; postgres when left out'),
    source_id: z
      .string()
      .regex(/^[a-z0-9][a-z0-9-]{0,79}$/)
      .optional()
      .describe('Folder of the backups in the storage; made from the name of the entity when left out'),
    fingerprint_max_rows: z
      .number()
      .int()
      .min(0)
      .optional()
      .describe('Larger tables are counted, not fingerprinted; 50 million when left out'),
  })
  .strict();

/** Self-managed PostgreSQL: logical backups by `pg_dump`, sealed and stored by Holdfast itself. */
export const postgresql = defineProvider<PostgresEntity, PostgresClient>({
  id: 'postgresql',
  title: 'PostgreSQL',
  entityTypes: {
    [POSTGRESQL_SERVER]: {
      title: 'A database of a PostgreSQL server that you run yourself',
      schema: PostgresServer,
      ignored: [],
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
  // No HTTP goes out; the numbers bound nothing here.
  limits: { per_second: 100, burst: 100, concurrent: 8, timeout_ms: 60_000 },
  async connect(entity, runtime) {
    const { PostgresClient: Client } = await import('./client.ts');
    return new Client(entity, runtime);
  },
  recoveryOptions: (context, at) => context.client.recoveryOptions(at),
  toError: asHoldfastError,
});
