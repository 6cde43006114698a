import { z } from 'zod';
import { HoldfastError } from '../../core/errors.ts';
import { defineProvider } from '../../core/provider.ts';
import { AzureCloudName, azureCloud, azureCredentialFields, azureOrigin } from '../azure.ts';
import type { CosmosClient } from './client.ts';
import { isGuid, toCosmosError } from './map.ts';

/** A backup policy as an entity declares it. */
export const BackupPolicy = z
  .strictObject({
    backup_type: z.enum(['Continuous', 'Periodic']),
    continuous_tier: z.enum(['Continuous7Days', 'Continuous30Days']).optional(),
    periodic_interval_minutes: z.number().int().min(60).max(1440).optional(),
    periodic_retention_hours: z.number().int().min(8).max(720).optional(),
    backup_storage_redundancy: z.enum(['Geo', 'Local', 'Zone']).optional(),
  })
  .refine(
    ({ periodic_interval_minutes: interval, periodic_retention_hours: retention }) =>
      interval === undefined || retention === undefined || retention * 60 >= 2 * interval,
    'periodic_retention_hours must be at least twice periodic_interval_minutes',
  );

const DatabaseAccount = z.object({
  // A file may stand there before its subscription is known: `connect` wants the GUID.
  subscription_id: z.string().regex(/^[0-9a-zA-Z-]{1,64}$/, 'write the GUID of an Azure subscription'),
  resource_group_name: z
    .string()
    .regex(/^(?!\.{1,2}$)[-\w._()]{0,89}[-\w_()]$/, 'up to 90 letters, digits, - _ ( ) and dots, no dot at the end'),
  account_name: z
    .string()
    .regex(/^(?=.{3,44}$)[a-z0-9]+(-[a-z0-9]+)*$/, '3 to 44 lower-case letters, digits and single hyphens'),
  cloud: AzureCloudName.optional(),
  backup_policy: BackupPolicy.optional(),
  ...azureCredentialFields,
});

export type CosmosEntity = z.output<typeof DatabaseAccount>;

const CONTINUOUS =
  'Continuous backup covers every moment of its window: see list-restorable-accounts, list-restorable-databases and list-restorable-containers, then restore a moment with restore_timestamp';

/** Azure Cosmos DB: database accounts of the SQL, MongoDB, Gremlin and Table APIs. */
export const azureCosmos = defineProvider<CosmosEntity, CosmosClient>({
  id: 'azure-cosmos',
  title: 'Azure Cosmos DB',
  entityTypes: {
    'azure-cosmosdb/database-account': {
      title: 'Azure Cosmos DB database account',
      schema: DatabaseAccount,
      ignored: [
        'analytical_storage',
        'capabilities',
        'consistency_policy',
        'cors',
        'create_when_missing',
        'databases',
        'enable_automatic_failover',
        'enable_free_tier',
        'enable_multiple_write_locations',
        'ip_rules',
        'kind',
        'location',
        'locations',
        'permitted-secrets',
        'public_network_access',
        'services',
        'tags',
        'virtual_network_rules',
      ],
      example: {
        subscription_id: '11111111-2222-3333-4444-555555555555',
        resource_group_name: 'my-rg',
        account_name: 'my-cosmos-account',
        backup_policy: { backup_type: 'Continuous', continuous_tier: 'Continuous30Days' },
        tenant_id: '${env:AZURE_TENANT_ID}',
        client_id: '${env:AZURE_CLIENT_ID}',
        client_secret: '${env:AZURE_CLIENT_SECRET}',
      },
      sandbox: {
        name: 'azure-cosmos',
        parameters: {
          subscription_id: '5a0db0c5-0000-4000-8000-000000000001',
          resource_group_name: 'holdfast-sandbox',
          account_name: 'orders-cosmos',
          backup_policy: { backup_type: 'Continuous', continuous_tier: 'Continuous30Days' },
          access_token: '${env:AZURE_ACCESS_TOKEN}',
        },
      },
    },
  },
  cannot: {
    'create-snapshot': `Cosmos DB takes its backups by itself and has no call for one. ${CONTINUOUS}`,
    'list-snapshots': `Cosmos DB lists no backups. ${CONTINUOUS}`,
    'describe-snapshot': `Cosmos DB shows no single backups. ${CONTINUOUS}`,
    'delete-snapshot':
      'Cosmos DB deletes backups only when their window has passed; no call does it. get-backup-info shows the window',
  },
  // Azure Resource Manager fills its read bucket with 25 a second for a subscription, shared with everything else there.
  limits: { per_second: 10, burst: 60, concurrent: 8, timeout_ms: 60_000 },

  async connect(entity, runtime) {
    const cloud = azureCloud(entity.cloud);
    const origin = azureOrigin(entity.endpoint, cloud.management);
    if (!isGuid(entity.subscription_id)) {
      throw new HoldfastError('CONFIG_INVALID', `'${entity.subscription_id}' is no id of an Azure subscription`, {
        hint: 'Write its GUID as subscription_id; `az account show --query id` tells it. Nothing was sent.',
      });
    }
    const { createCosmosClient } = await import('./client.ts');
    return createCosmosClient(entity, runtime, { cloud, origin });
  },

  settings: {
    about: {
      'backup_policy.backup_type':
        'Periodic or Continuous; going to Continuous cannot be undone, and Periodic never comes back',
      'backup_policy.continuous_tier':
        'window of continuous backup, 7 or 30 days; less is weaken, at once and for good',
      'backup_policy.periodic_interval_minutes': 'minutes between two periodic backups; more is weaken',
      'backup_policy.periodic_retention_hours':
        'hours that a periodic backup is kept, at least two intervals; less is weaken',
      'backup_policy.backup_storage_redundancy':
        'where periodic backups are kept; any change is weaken, the backups before it are lost',
    },
    // A move to continuous backup takes about 90 minutes per terabyte and region.
    patience_seconds: 6 * 3600,
    read: async (context) => (await import('./declared.ts')).readSettings(context),
    write: async (context, _write, findings) => (await import('./declared.ts')).writeSettings(context, findings),
  },

  guide: async () => (await import('./guide.ts')).guide,
  grants: async (context, permissions) => (await import('./grants.ts')).grants(context, permissions),

  discover: async (context) => (await import('./discover.ts')).discover(context),

  async recoveryOptions(context, at) {
    const { recoveryOptions } = await import('./info.ts');
    return recoveryOptions(context, at);
  },

  toError: (cause) =>
    toCosmosError(cause, {
      resource: 'account',
      permission: 'Microsoft.DocumentDB/databaseAccounts/read',
      role: 'Cosmos DB Account Reader Role',
      scope: 'the account',
    }),
});
