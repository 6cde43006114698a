import { z } from 'zod';
import type { EntityBase } from '../../core/context.ts';
import { defineProvider } from '../../core/provider.ts';
import { GoogleProject, googleAuthorizer, googleCredentialFields, googleOrigin, googleProjectOf } from '../google.ts';
import type { CloudSqlClient } from './client.ts';
import { toCloudSqlError } from './map.ts';

const CloudSqlInstance = z.object({
  name: z
    .string()
    .regex(/^[a-z](?:[a-z0-9-]{0,96}[a-z0-9])?$/, 'up to 98 lower-case letters, digits and hyphens, a letter first'),
  project: GoogleProject.optional(),
  project_id: GoogleProject.optional(),
  region: z.string().optional(),
  database_version: z.string().optional(),
  tier: z.string().optional(),
  backup_start_time: z
    .string()
    .regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'write HH:MM, UTC')
    .optional(),
  point_in_time_recovery_enabled: z.boolean().optional(),
  backup_retention_count: z.number().int().min(1).max(365).optional(),
  transaction_log_retention_days: z.number().int().min(1).max(35).optional(),
  backup_location: z.string().optional(),
  delete_protection: z.boolean().optional(),
  retain_backups_on_delete: z.boolean().optional(),
  final_backup: z
    .strictObject({ enabled: z.boolean(), retention_days: z.number().int().min(1).max(365).optional() })
    .optional(),
  ...googleCredentialFields,
});

export type CloudSqlEntity = z.output<typeof CloudSqlInstance>;

/** Gives the instance's own name: the parameter, which shares its name with the entity's name in Holdfast. */
export function instanceOf(entity: CloudSqlEntity & EntityBase): string {
  return String(entity.parameters?.['name'] ?? entity.name);
}

export const CLOUD_SQL_ORIGIN = 'https://sqladmin.googleapis.com';
export const CLOUD_SQL_SCOPE = 'sqlservice.admin';

/** Google Cloud SQL: PostgreSQL, MySQL and SQL Server instances. */
export const gcpCloudSql = defineProvider<CloudSqlEntity, CloudSqlClient>({
  id: 'gcp-cloud-sql',
  title: 'Google Cloud SQL',
  entityTypes: {
    'gcp/cloud-sql-instance': {
      title: 'Google Cloud SQL instance',
      schema: CloudSqlInstance,
      ignored: [
        'allow_public_access',
        'authorized_networks',
        'availability_type',
        'create_when_missing',
        'data_disk_size_gb',
        'data_disk_type',
        'database_flags',
        'deletion_policy',
        'edition',
        'ip_configuration',
        'ipv4_enabled',
        'labels_on_instance',
        'maintenance_window',
        'password_secret',
        'permitted-secrets',
        'private_network',
        'root_password_secret',
        'services',
        'storage_auto_resize',
        'storage_size',
        'user_labels',
      ],
      example: {
        project: 'my-project',
        name: 'my-postgres-instance',
        database_version: 'POSTGRES_14',
        tier: 'db-custom-2-4096',
        region: 'us-central1',
        backup_start_time: '03:00',
        point_in_time_recovery_enabled: true,
        delete_protection: true,
        credentials_file: '${file:/etc/holdfast/gcp-key.json}',
      },
      sandbox: {
        name: 'gcp-cloud-sql',
        parameters: {
          project: 'holdfast-sandbox',
          name: 'orders-db',
          region: 'us-central1',
          database_version: 'POSTGRES_16',
          backup_start_time: '03:00',
          point_in_time_recovery_enabled: true,
          backup_retention_count: 7,
          delete_protection: true,
          access_token: '${env:GOOGLE_OAUTH_ACCESS_TOKEN}',
        },
      },
    },
  },
  cannot: {},
  // Google counts requests by the minute: a plan may take its reads at once, the average stays at two a second.
  limits: { per_second: 2, burst: 60, concurrent: 8, timeout_ms: 30_000 },

  async connect(entity, runtime) {
    const project = googleProjectOf(entity);
    const origin = googleOrigin(entity.endpoint, CLOUD_SQL_ORIGIN);
    const scopes = [`https://www.googleapis.com/auth/${CLOUD_SQL_SCOPE}`];
    // Impersonation needs the wider scope to ask for the other account's token.
    if (entity.impersonate_service_account !== undefined) scopes[0] = 'https://www.googleapis.com/auth/cloud-platform';
    const authorizer = googleAuthorizer(entity, runtime, { scopes, origin, project });
    const { createCloudSqlClient } = await import('./client.ts');
    return createCloudSqlClient({ instance: instanceOf(entity), project, origin, authorizer, runtime });
  },

  async recoveryOptions(context, at) {
    const { recoveryOptions } = await import('./backups.ts');
    return recoveryOptions(context, at);
  },

  settings: {
    about: {
      backup_start_time: 'daily automated backups from HH:MM UTC; declaring it switches them on',
      point_in_time_recovery_enabled:
        'logs for point-in-time recovery, binary logging on MySQL; off deletes them: weaken',
      backup_retention_count: 'how many automated backups are kept; fewer deletes the oldest: weaken',
      transaction_log_retention_days:
        'how far point-in-time recovery reaches, 1 to 7 days, 35 on Enterprise Plus; less is weaken',
      backup_location: 'where new backups are stored',
      delete_protection: 'whether the instance can be deleted; off is weaken',
      retain_backups_on_delete: 'whether backups outlive the instance; off is weaken',
      'final_backup.enabled': 'a last backup when the instance is deleted; off is weaken',
      'final_backup.retention_days': 'how long the last backup is kept; less is weaken',
      region: 'compared only',
      database_version: 'compared only',
      tier: 'compared only',
    },
    read: async (context) => (await import('./declared.ts')).readSettings(context),
    write: async (...given) => (await import('./declared.ts')).writeSettings(...given),
    mark: async (context) => (await import('./declared.ts')).settingsMark(context),
    // Switching point-in-time recovery on may restart the instance.
    patience_seconds: 1800,
  },

  guide: async () => (await import('./guide.ts')).guide,

  discover: async (context) => (await import('./discover.ts')).discover(context),

  async grants({ client, entity, runtime, signal }, permissions) {
    const { projectGrants } = await import('../google-roles.ts');
    return projectGrants(entity, runtime, await client.project(), permissions, signal);
  },

  toError: (cause) =>
    toCloudSqlError(cause, {
      resource: 'instance',
      permission: 'cloudsql.instances.get',
      role: 'roles/cloudsql.viewer',
    }),
});
