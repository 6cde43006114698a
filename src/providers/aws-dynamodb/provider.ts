import { z } from 'zod';
import { defineProvider } from '../../core/provider.ts';
import { AwsRegion, awsClientConfig, awsCredentialFields } from '../aws.ts';
import type { DynamoDbClient } from './client.ts';
import { NAME_PATTERN, TITLE, toDynamoDbError } from './map.ts';

const DynamoDbTable = z.object({
  region: AwsRegion,
  table_name: z.string().regex(NAME_PATTERN, '3 to 255 letters, digits, dots, hyphens and underscores'),
  point_in_time_recovery_enabled: z.boolean().optional(),
  recovery_period_in_days: z.number().int().min(1).max(35).optional(),
  deletion_protection_enabled: z.boolean().optional(),
  tags: z.record(z.string().min(1).max(128), z.string().max(256)).optional(),
  ...awsCredentialFields,
});

export type DynamoDbEntity = z.output<typeof DynamoDbTable>;

/** Amazon DynamoDB tables. */
export const awsDynamodb = defineProvider<DynamoDbEntity, DynamoDbClient>({
  id: 'aws-dynamodb',
  title: TITLE,
  entityTypes: {
    'aws-dynamo-db/dynamo-db-table': {
      title: 'Amazon DynamoDB table',
      schema: DynamoDbTable,
      ignored: [
        'attribute_definitions',
        'billing_mode',
        'create_when_missing',
        'global_secondary_indexes',
        'key_schema',
        'local_secondary_indexes',
        'on_demand_throughput',
        'permitted-secrets',
        'provisioned_throughput',
        'services',
        'sse_specification',
        'stream_specification',
        'table_class',
        'time_to_live_specification',
      ],
      example: {
        region: 'us-east-1',
        table_name: 'production-orders',
        point_in_time_recovery_enabled: true,
        recovery_period_in_days: 35,
        deletion_protection_enabled: true,
        tags: { Environment: 'production' },
        access_key_id: '${env:AWS_ACCESS_KEY_ID}',
        secret_access_key: '${env:AWS_SECRET_ACCESS_KEY}',
      },
      sandbox: {
        name: 'aws-dynamodb',
        parameters: {
          region: 'us-east-1',
          table_name: 'orders',
          point_in_time_recovery_enabled: true,
          recovery_period_in_days: 14,
          deletion_protection_enabled: true,
          access_key_id: '${env:AWS_ACCESS_KEY_ID}',
          secret_access_key: '${env:AWS_SECRET_ACCESS_KEY}',
        },
      },
    },
  },
  cannot: {},
  // Most of the calls used here are allowed ten times a second, ListBackups five; a plan may take its reads at once.
  limits: { per_second: 5, burst: 20, concurrent: 8, timeout_ms: 30_000 },

  async connect(entity, runtime) {
    const { createDynamoDbClient, DYNAMODB_CALLS } = await import('./client.ts');
    const config = awsClientConfig(entity, runtime, DYNAMODB_CALLS);
    return createDynamoDbClient({ region: entity.region, table: entity.table_name, config });
  },

  async dispose(client) {
    client.close();
  },

  async recoveryOptions(context, at) {
    const { recoveryOptions } = await import('./backups.ts');
    return recoveryOptions(context, at);
  },

  settings: {
    about: {
      point_in_time_recovery_enabled:
        'Every second can be restored; switching it off discards the window and is `weaken`.',
      recovery_period_in_days: 'How far back that reaches, 1 to 35; lowering it is `weaken`.',
      deletion_protection_enabled: 'Whether the table can be deleted; switching it off is `weaken`.',
      tags: 'One setting each, `tags.NAME`; replacing a value is `weaken`: backup plans may go by it.',
    },
    read: async (context) => (await import('./declared.ts')).readSettings(context),
    write: async (context, write, findings) => (await import('./declared.ts')).writeSettings(context, write, findings),
  },

  discover: async (context) => (await import('./discover.ts')).discover(context),

  guide: async () => (await import('./guide.ts')).guide,

  toError: (cause) => toDynamoDbError(cause, { operation: 'DescribeTable' }),
});
