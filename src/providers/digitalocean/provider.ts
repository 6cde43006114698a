import { z } from 'zod';
import { asHoldfastError } from '../../core/errors.ts';
import { defineProvider } from '../../core/provider.ts';
import { SecretReference } from '../../core/schemas.ts';
import type { DigitalOceanClient } from './client.ts';

const Uuid = z
  .string()
  .regex(/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'the id of a cluster is a UUID in lower case');

const IncrementalBackup = z
  .strictObject({
    enabled: z.boolean(),
    full_backup_week_schedule: z
      .string()
      .regex(/^(mon|tue|wed|thu|fri|sat|sun)(,(mon|tue|wed|thu|fri|sat|sun)){0,6}$/, 'days as mon,thu')
      .optional()
      .describe('Days of full backups'),
  })
  .refine(
    ({ enabled, full_backup_week_schedule }) => !enabled || full_backup_week_schedule !== undefined,
    'full_backup_week_schedule says on which days the backups are full ones',
  );

const Database = z
  .object({
    name: z.string().min(1).max(100).optional().describe('Name of the cluster at DigitalOcean'),
    cluster_id: Uuid.optional().describe('Found by `name` when left out'),
    token: SecretReference.optional().describe('DIGITALOCEAN_TOKEN when left out'),
    engine: z.string().optional(),
    version: z.union([z.string(), z.number().transform(String)]).optional(),
    num_nodes: z.number().int().min(1).optional(),
    region: z.string().optional(),
    size: z.string().optional(),
    backup_hour: z.number().int().min(0).max(23).optional().describe('UTC; PostgreSQL and MySQL'),
    backup_minute: z.number().int().min(0).max(59).optional(),
    mysql_incremental_backup: IncrementalBackup.optional(),
  })
  .refine(({ name, cluster_id }) => name !== undefined || cluster_id !== undefined, {
    message: 'name or cluster_id says which cluster it is',
    path: ['name'],
  });

/** The parameters of a `digitalocean-database/database`. */
export type DigitalOceanEntity = z.output<typeof Database>;

/** DigitalOcean managed databases. */
export const digitalocean = defineProvider<DigitalOceanEntity, DigitalOceanClient>({
  id: 'digitalocean',
  title: 'DigitalOcean',
  entityTypes: {
    'digitalocean-database/database': {
      title: 'DigitalOcean managed database cluster',
      schema: Database,
      ignored: [
        'allow_ips',
        'autoscale',
        'create_when_missing',
        'eviction_policy',
        'maintenance_window',
        'permitted-secrets',
        'private_network_uuid',
        'project_id',
        'rules',
        'secret_ref',
        'services',
        'storage_size_mib',
        'tags',
      ],
      example: {
        name: 'my-postgres-cluster',
        engine: 'pg',
        version: '16',
        num_nodes: 1,
        region: 'nyc1',
        size: 'db-s-1vcpu-1gb',
        token: '${env:DIGITALOCEAN_TOKEN}',
      },
      sandbox: {
        name: 'digitalocean',
        parameters: {
          name: 'orders',
          engine: 'pg',
          version: '16',
          num_nodes: 2,
          region: 'nyc3',
          size: 'db-s-2vcpu-4gb',
          backup_hour: 3,
          backup_minute: 20,
          token: '${env:DIGITALOCEAN_TOKEN}',
        },
      },
    },
  },
  cannot: {
    'create-snapshot':
      'DigitalOcean takes backups by itself, daily, and has no call for one more. For a copy of now, restore a PostgreSQL or MySQL cluster to the present moment, or dump it',
    'delete-snapshot': 'DigitalOcean deletes backups by itself after seven days and has no call that does',
  },
  // 5000 requests an hour and 250 a minute for one token.
  limits: { per_second: 4, burst: 8, concurrent: 6, timeout_ms: 30_000 },

  async connect(entity, runtime) {
    const { DigitalOceanClient } = await import('./client.ts');
    return new DigitalOceanClient(entity, runtime);
  },

  settings: {
    about: {
      backup_hour: 'hour of the daily backup, UTC; PostgreSQL and MySQL; moving it is weaken, a gap may open once',
      backup_minute: 'minute of the daily backup',
      'mysql_incremental_backup.enabled': 'incremental backups of MySQL; true is weaken, they need the last full one',
      'mysql_incremental_backup.full_backup_week_schedule': 'days of full backups; fewer is weaken',
      engine: 'compared only, as are version, region, size and num_nodes',
    },
    read: async (context) => (await import('./declared.ts')).readSettings(context),
    write: async (context, _write, findings) => (await import('./declared.ts')).writeSettings(context, findings),
  },

  guide: async () => (await import('./guide.ts')).guide,

  discover: async (context) => (await import('./discover.ts')).discover(context),

  async recoveryOptions(context, at) {
    const { recoveryOptions } = await import('./backups.ts');
    return recoveryOptions(context, at);
  },

  // The client maps what it meets; whatever else gets here is a fault of ours.
  toError: asHoldfastError,
});
