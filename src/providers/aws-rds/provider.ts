import { z } from 'zod';
import { asHoldfastError } from '../../core/errors.ts';
import { defineProvider } from '../../core/provider.ts';
import { AwsRegion, awsCredentialFields } from '../aws.ts';
import type { RdsClient } from './client.ts';

const Identifier = z
  .string()
  .regex(/^[A-Za-z](?:-?[A-Za-z0-9]){0,62}$/, 'up to 63 letters, digits and single hyphens, a letter first');

const BackupWindow = z
  .string()
  .regex(/^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$/, 'write hh:mm-hh:mm, UTC, 30 minutes at least');

const WEEKDAY = '(?:mon|tue|wed|thu|fri|sat|sun)';
const MaintenanceWindow = z
  .string()
  .regex(
    new RegExp(`^${WEEKDAY}:([01]\\d|2[0-3]):[0-5]\\d-${WEEKDAY}:([01]\\d|2[0-3]):[0-5]\\d$`, 'i'),
    'write ddd:hh:mm-ddd:hh:mm, UTC',
  );

const common = {
  region: AwsRegion,
  preferred_backup_window: BackupWindow.optional(),
  preferred_maintenance_window: MaintenanceWindow.optional(),
  skip_final_snapshot: z.boolean().optional(),
  final_db_snapshot_identifier: z.string().optional(),
  storage_encrypted: z.boolean().optional(),
  deletion_protection: z.boolean().optional(),
  copy_tags_to_snapshot: z.boolean().optional(),
  ...awsCredentialFields,
};

const RdsInstance = z.object({
  ...common,
  db_instance_identifier: Identifier,
  backup_retention_period: z.number().int().min(0).max(35).optional(),
});

const RdsCluster = z.object({
  ...common,
  db_cluster_identifier: Identifier,
  // A cluster's automated backups cannot be switched off.
  backup_retention_period: z.number().int().min(1).max(35).optional(),
});

type Common = Omit<z.output<typeof RdsInstance>, 'db_instance_identifier'>;

/** The parameters of both entity types; which identifier is there depends on the type. */
export interface RdsEntity extends Common {
  readonly db_instance_identifier?: string | undefined;
  readonly db_cluster_identifier?: string | undefined;
}

export const RDS_INSTANCE = 'aws-rds/rds-instance';
export const RDS_CLUSTER = 'aws-rds/rds-cluster';

const IGNORED = [
  'allow_major_version_upgrade',
  'auto_minor_version_upgrade',
  'availability_zone',
  'availability_zones',
  'character_set_name',
  'create_when_missing',
  'database_name',
  'db_name',
  'db_subnet_group_name',
  'enable_cloudwatch_logs_exports',
  'enable_iam_database_authentication',
  'enable_performance_insights',
  'engine',
  'engine_mode',
  'engine_version',
  'iops',
  'kms_key_id',
  'manage_master_user_password',
  'master_user_password',
  'master_username',
  'monitoring_interval',
  'password_secret',
  'master_user_password_secret',
  'password_secret_ref',
  'permitted-secrets',
  'port',
  'publicly_accessible',
  'security_group_name',
  'services',
  'storage_throughput',
  'storage_type',
  'tags',
  'vpc_security_group_ids',
];

const INSTANCE_IGNORED = [
  ...IGNORED,
  'allocated_storage',
  'db_instance_class',
  'db_parameter_group_name',
  'license_model',
  'max_allocated_storage',
  'multi_az',
  'option_group_name',
];

const CLUSTER_IGNORED = [
  ...IGNORED,
  'db_cluster_instance_class',
  'db_cluster_parameter_group_name',
  'instances',
  'serverlessv2_scaling_configuration',
];

const SANDBOX_KEYS = {
  access_key_id: '${env:AWS_ACCESS_KEY_ID}',
  secret_access_key: '${env:AWS_SECRET_ACCESS_KEY}',
};

/** Amazon RDS: DB instances of every engine, Aurora and Multi-AZ DB clusters. */
export const awsRds = defineProvider<RdsEntity, RdsClient>({
  id: 'aws-rds',
  title: 'Amazon RDS',
  entityTypes: {
    [RDS_INSTANCE]: {
      title: 'Amazon RDS DB instance',
      schema: RdsInstance,
      ignored: INSTANCE_IGNORED,
      example: {
        region: 'us-west-2',
        db_instance_identifier: 'prod-postgres',
        backup_retention_period: 14,
        preferred_backup_window: '03:00-04:00',
        preferred_maintenance_window: 'sun:05:00-sun:06:00',
        storage_encrypted: true,
        skip_final_snapshot: false,
        final_db_snapshot_identifier: 'prod-postgres-final',
        deletion_protection: true,
      },
      sandbox: {
        name: 'aws-rds',
        parameters: {
          ...SANDBOX_KEYS,
          region: 'us-east-1',
          db_instance_identifier: 'orders-postgres',
          backup_retention_period: 14,
          preferred_backup_window: '03:00-04:00',
          storage_encrypted: true,
          deletion_protection: true,
        },
      },
    },
    [RDS_CLUSTER]: {
      title: 'Amazon Aurora or Multi-AZ DB cluster',
      schema: RdsCluster,
      ignored: CLUSTER_IGNORED,
      example: {
        region: 'us-west-2',
        db_cluster_identifier: 'prod-aurora',
        backup_retention_period: 14,
        preferred_backup_window: '03:00-04:00',
        storage_encrypted: true,
        deletion_protection: true,
        profile: 'production',
      },
      sandbox: {
        name: 'aws-rds-cluster',
        parameters: {
          ...SANDBOX_KEYS,
          region: 'us-east-1',
          db_cluster_identifier: 'shop-aurora',
          backup_retention_period: 7,
          deletion_protection: true,
        },
      },
    },
  },
  cannot: {},
  // AWS names no rate; describe calls of one account and region are throttled at some ten a second.
  limits: { per_second: 10, burst: 30, concurrent: 8, timeout_ms: 30_000 },

  async connect(entity, runtime) {
    const { createRdsClient } = await import('./client.ts');
    const kind = entity.defines === RDS_CLUSTER ? 'cluster' : 'instance';
    const identifier = kind === 'cluster' ? entity.db_cluster_identifier : entity.db_instance_identifier;
    // RDS keeps identifiers in lower case.
    return createRdsClient({ kind, id: String(identifier).toLowerCase(), access: entity, runtime });
  },

  async dispose(client) {
    client.close();
  },

  async recoveryOptions(context, at) {
    const { recoveryOptions } = await import('./info.ts');
    return recoveryOptions(context, at);
  },

  settings: {
    about: {
      backup_retention_period:
        'Days that automated backups and moments are kept. Fewer is `weaken`; 0 deletes all of them. 0 and back is a short outage.',
      preferred_backup_window: 'When the daily backup is taken, UTC.',
      preferred_maintenance_window: 'When RDS applies what waits, UTC.',
      storage_encrypted: 'Whether storage and backups are encrypted; set at creation only.',
      deletion_protection: 'Whether the database can be deleted; switching it off is `weaken`.',
      copy_tags_to_snapshot: "Whether snapshots get the database's tags; switching it off is `weaken`.",
    },
    read: async (context) => (await import('./declared.ts')).readSettings(context),
    write: async (context, write, findings) => (await import('./declared.ts')).writeSettings(context, write, findings),
    // Automated backups that are switched on begin with a backup.
    patience_seconds: 3600,
  },

  discover: async (context) => (await import('./discover.ts')).discover(context),

  guide: async () => (await import('./guide.ts')).guide,

  // The client maps what it meets; whatever else gets here is a fault of ours.
  toError: asHoldfastError,
});
