import { z } from 'zod';
import { asHoldfastError } from '../../core/errors.ts';
import { defineProvider } from '../../core/provider.ts';
import type { SecretRef } from '../../core/runtime.ts';
import { SecretReference } from '../../core/schemas.ts';
import type { RedisCloudClient } from './client.ts';

/** Ids are numbers; entity files often have them as text. */
const Id = z.union([
  z.number().int().min(1).max(0x7fffffff),
  z
    .string()
    .regex(/^[1-9]\d{0,9}$/, 'an id of Redis Cloud is a whole number')
    .transform(Number),
]);

/** A place for backups. With credentials in it (ftp, abs) it must be a reference. */
const StoragePath = z.union([
  SecretReference,
  z
    .string()
    .regex(
      /^(?!\$\{)[^@]*$/,
      'a path with credentials is a secret: write a reference, ${env:NAME} or ${file:/path}, in its place',
    ),
]);

const DataPersistence = z.enum([
  'none',
  'aof-every-1-second',
  'aof-every-write',
  'snapshot-every-1-hour',
  'snapshot-every-6-hours',
  'snapshot-every-12-hours',
]);

const credentials = {
  access_key: SecretReference.optional().describe('Account key; REDISCLOUD_ACCESS_KEY when left out'),
  secret_key: SecretReference.optional().describe('User key; REDISCLOUD_SECRET_KEY when left out'),
};

const database = {
  ...credentials,
  subscription_id: Id,
  database_id: Id.optional().describe('Found by `name` when left out'),
  name: z.string().max(80).optional(),
  data_persistence: DataPersistence.optional(),
  redis_url: SecretReference.optional().describe(
    'redis:// or rediss:// URL of a read-only user: plans then count what an import would remove',
  ),
};

const EssentialsSubscription = z
  .object({
    ...credentials,
    subscription_id: Id.optional().describe('Found by `name` when left out'),
    name: z.string().max(80).optional(),
    support_instant_and_daily_backups: z.boolean().optional(),
    support_data_persistence: z.boolean().optional(),
  })
  .strict();

const EssentialsDatabase = z.object({ ...database, periodic_backup_path: StoragePath.optional() }).strict();

const ProDatabase = z
  .object({
    ...database,
    replication: z.boolean().optional(),
    remote_backup: z
      .object({
        active: z.boolean().optional(),
        interval: z
          .enum([
            'every-1-hours',
            'every-2-hours',
            'every-4-hours',
            'every-6-hours',
            'every-12-hours',
            'every-24-hours',
          ])
          .optional(),
        time_utc: z
          .string()
          .regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'a time of day, 14:00')
          .optional(),
        storage_type: z.enum(['aws-s3', 'google-blob-storage', 'azure-blob-storage', 'ftp']).optional(),
        storage_path: StoragePath.optional(),
        region_name: z.string().max(60).optional().describe('Active-Active: the region whose backups these are'),
      })
      .strict()
      .optional(),
  })
  .strict();

/** The parameters of all three entity types; which ones are there depends on the type. */
export interface RedisCloudEntity {
  readonly access_key?: SecretRef | undefined;
  readonly secret_key?: SecretRef | undefined;
  readonly subscription_id?: number | undefined;
  readonly database_id?: number | undefined;
  readonly support_instant_and_daily_backups?: boolean | undefined;
  readonly support_data_persistence?: boolean | undefined;
  readonly data_persistence?: string | undefined;
  readonly replication?: boolean | undefined;
  readonly periodic_backup_path?: string | SecretRef | undefined;
  readonly remote_backup?:
    | {
        readonly active?: boolean | undefined;
        readonly interval?: string | undefined;
        readonly time_utc?: string | undefined;
        readonly storage_type?: string | undefined;
        readonly storage_path?: string | SecretRef | undefined;
        readonly region_name?: string | undefined;
      }
    | undefined;
  readonly redis_url?: SecretRef | undefined;
}

export const ESSENTIALS_SUBSCRIPTION = 'redis-cloud/essentials-subscription';
export const ESSENTIALS_DATABASE = 'redis-cloud/essentials-database';
export const PRO_DATABASE = 'redis-cloud/pro-database';

const DATABASE_IGNORED = [
  'protocol',
  'dataset_size_in_gb',
  'memory_limit_in_gb',
  'support_oss_cluster_api',
  'resp_version',
  'use_external_endpoint_for_oss_cluster_api',
  'enable_database_clustering',
  'number_of_shards',
  'data_eviction_policy',
  'source_ip',
  'source_ips',
  'replica',
  'replica_of',
  'regex_rules',
  'enable_tls',
  'client_tls_certificates',
  'client_ssl_certificate',
  'enable_default_user',
  'password',
  'password_secret',
  'alerts',
  'modules',
  'quantity',
  'redis_version',
  'throughput_measurement',
  'average_item_size_in_bytes',
  'ram_percentage',
  'auto_minor_version_upgrade',
  'query_performance_factor',
  'port',
  'tags',
  'access_key_secret',
  'account_key_secret',
  'user_key_secret',
  'secret_key_secret',
  'secret_ref',
  'permitted-secrets',
];

const SANDBOX_KEYS = { access_key: '${env:REDISCLOUD_ACCESS_KEY}', secret_key: '${env:REDISCLOUD_SECRET_KEY}' };

/** Redis Cloud, both tiers. */
export const redisCloud = defineProvider<RedisCloudEntity, RedisCloudClient>({
  id: 'redis-cloud',
  title: 'Redis Cloud',
  entityTypes: {
    [ESSENTIALS_SUBSCRIPTION]: {
      title: 'Redis Cloud Essentials subscription',
      schema: EssentialsSubscription,
      ignored: [
        'provider',
        'cloud_provider',
        'region',
        'size',
        'plan_id',
        'payment_method',
        'payment_method_id',
        'availability',
        'support_replication',
        'support_clustering',
        'redis_flex',
        'access_key_secret',
        'account_key_secret',
        'user_key_secret',
        'secret_key_secret',
        'secret_ref',
        'permitted-secrets',
      ],
      example: {
        subscription_id: 123456,
        name: 'My-Subscription',
        access_key: '${env:REDISCLOUD_ACCESS_KEY}',
        secret_key: '${env:REDISCLOUD_SECRET_KEY}',
        support_instant_and_daily_backups: true,
        support_data_persistence: true,
      },
      sandbox: {
        name: 'redis-essentials-subscription',
        parameters: {
          ...SANDBOX_KEYS,
          subscription_id: 2101,
          name: 'shop-essentials',
          support_instant_and_daily_backups: true,
          support_data_persistence: true,
        },
      },
    },
    [ESSENTIALS_DATABASE]: {
      title: 'Redis Cloud Essentials database',
      schema: EssentialsDatabase,
      ignored: DATABASE_IGNORED,
      example: {
        subscription_id: 123456,
        database_id: 51000001,
        name: 'my-redis-db',
        access_key: '${env:REDISCLOUD_ACCESS_KEY}',
        secret_key: '${env:REDISCLOUD_SECRET_KEY}',
        data_persistence: 'aof-every-1-second',
        periodic_backup_path: 's3://my-bucket/redis-backups/',
      },
      sandbox: {
        name: 'redis-essentials',
        parameters: {
          ...SANDBOX_KEYS,
          subscription_id: 2101,
          database_id: 51002101,
          name: 'carts',
          data_persistence: 'aof-every-1-second',
          periodic_backup_path: 's3://sandbox-backups/redis/carts/',
        },
      },
    },
    [PRO_DATABASE]: {
      title: 'Redis Cloud Pro database',
      schema: ProDatabase,
      ignored: DATABASE_IGNORED,
      example: {
        subscription_id: 234567,
        database_id: 51000002,
        name: 'production-redis',
        access_key: '${env:REDISCLOUD_ACCESS_KEY}',
        secret_key: '${env:REDISCLOUD_SECRET_KEY}',
        redis_url: '${env:REDIS_INSPECTOR_URL}',
        data_persistence: 'aof-every-1-second',
        replication: true,
        remote_backup: {
          active: true,
          interval: 'every-12-hours',
          time_utc: '02:00',
          storage_type: 'aws-s3',
          storage_path: 's3://prod-backups/redis/production/',
        },
      },
      sandbox: {
        name: 'redis-pro',
        parameters: {
          ...SANDBOX_KEYS,
          subscription_id: 3101,
          database_id: 51003101,
          name: 'sessions',
          data_persistence: 'aof-every-1-second',
          replication: true,
          remote_backup: {
            active: true,
            interval: 'every-6-hours',
            storage_type: 'aws-s3',
            storage_path: 's3://sandbox-backups/redis/sessions/',
          },
        },
      },
    },
  },
  cannot: {
    'describe-snapshot':
      'Redis Cloud gives backups no id: they are files in your own storage. list-snapshots shows the latest and those made through Holdfast; look at the files in the storage itself',
    'delete-snapshot':
      'Redis Cloud cannot delete backups: they are files in your own storage. Delete them there, or by a lifecycle rule of the bucket',
  },
  // 400 requests a minute for one account key.
  limits: { per_second: 6, burst: 30, concurrent: 6, timeout_ms: 30_000 },
  async connect(entity, runtime) {
    const { RedisCloudClient } = await import('./client.ts');
    return new RedisCloudClient(entity, runtime);
  },
  async recoveryOptions(context, at) {
    const { recoveryOptions } = await import('./backups.ts');
    return recoveryOptions(context, at);
  },
  settings: {
    about: {
      support_instant_and_daily_backups:
        'Whether the plan has backups; more of it moves the subscription to another plan.',
      support_data_persistence:
        'Whether the plan has data persistence; more of it moves the subscription to another plan.',
      data_persistence: 'What of the data is on disk; less of it is `weaken`.',
      periodic_backup_path: 'Where the daily backups go, empty for none; another place, or none, is `weaken`.',
      replication: 'Whether there is a replica; only shown, because it changes the price.',
      'remote_backup.active': 'Whether backups are written regularly; switching it off is `weaken`.',
      'remote_backup.interval': 'How often; more rarely is `weaken`.',
      'remote_backup.time_utc': 'When they begin; only with 12 or 24 hours.',
      'remote_backup.storage_type': 'The kind of storage; another one is `weaken`.',
      'remote_backup.storage_path': 'Where they go; another place is `weaken`.',
    },
    read: async (context) => (await import('./declared.ts')).readSettings(context),
    write: async (context, write, findings) => (await import('./declared.ts')).writeSettings(context, write, findings),
    patience_seconds: 1800,
  },
  guide: async () => (await import('./guide.ts')).guide,
  discover: async (context) => (await import('./discover.ts')).discover(context),
  // The client and the inspector map what they meet; whatever else gets here is a fault of ours.
  toError: asHoldfastError,
});
