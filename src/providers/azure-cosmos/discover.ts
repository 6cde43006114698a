import type { JsonObject } from '../../core/json.ts';
import type { Discovered, Discovery, DiscoveryContext } from '../../core/provider.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration } from '../../core/time.ts';
import { known } from '../../core/wire.ts';
import { type AzureCredentialFields, azureCloud, azureOrigin } from '../azure.ts';
import { attempts, entityName, secretIn } from '../discovery.ts';
import { createCosmosClient } from './client.ts';
import { backupType, periodicOf, tierOf } from './info.ts';
import { type Account, accountStatus, apiOfAccount } from './map.ts';
import { BackupPolicy } from './provider.ts';

/** Any of them says that somebody has an Azure account; without one nothing asks the network for credentials. */
const SIGNS = ['AZURE_CLIENT_ID', 'AZURE_TENANT_ID', 'AZURE_SUBSCRIPTION_ID', 'AZURE_FEDERATED_TOKEN_FILE'];
const RESOURCE =
  /^\/subscriptions\/([^/]+)\/resourceGroups\/([^/]+)\/providers\/Microsoft\.DocumentDB\/databaseAccounts\/([^/]+)$/i;

/**
 * Looks through the accounts of one subscription, or of all that the credential can see; undefined without credentials.
 * @throws {HoldfastError} AUTHENTICATION_FAILED where Azure does not take the credential
 */
export async function discover(context: DiscoveryContext): Promise<Discovery | undefined> {
  const { access, endpoint, runtime, signal } = context;
  const credentials = credentialsIn(access);
  if (Object.keys(access).length === 0 && !SIGNS.some((name) => runtime.credential(name))) return undefined;
  const cloud = azureCloud(cloudIn(access));
  const origin = azureOrigin(endpoint, cloud.management);
  const open = (subscription_id: string) =>
    createCosmosClient(
      // The calls that list a subscription name neither a group nor an account.
      { ...credentials, subscription_id, resource_group_name: 'none', account_name: 'none' },
      runtime,
      { cloud, origin },
    );
  const named = text(access['subscription_id']) ?? runtime.credential('AZURE_SUBSCRIPTION_ID');
  const problems: string[] = [];
  const attempt = attempts(problems);
  const subscriptions =
    named === undefined
      ? ((await attempt(
          async () => (await open(NO_SUBSCRIPTION)).subscriptions(signal),
          'subscriptions are not shown',
        )) ?? [])
      : [named];
  const found: Discovered[] = [];
  for (const subscription of subscriptions) {
    const client = await open(subscription);
    const without = `accounts of the subscription ${subscription} are not shown`;
    for (const account of (await attempt(() => client.listAccounts(signal), without)) ?? []) {
      const one = toFound(account);
      if (one === undefined) problems.push(`an account is left out: its id is not understood`);
      else found.push(one);
    }
  }
  const looked =
    named === undefined ? `Azure, ${subscriptions.length} subscriptions` : `Azure subscription ${cleanText(named, 60)}`;
  return { looked, found, problems };
}

const NO_SUBSCRIPTION = '00000000-0000-0000-0000-000000000000';

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function cloudIn({ cloud }: Readonly<Record<string, unknown>>): 'china' | 'us_government' | undefined {
  return cloud === 'china' || cloud === 'us_government' ? cloud : undefined;
}

function credentialsIn(access: Readonly<Record<string, unknown>>): AzureCredentialFields {
  const id = (name: string) => text(access[name]) ?? secretIn(access, name);
  return {
    tenant_id: id('tenant_id'),
    client_id: id('client_id'),
    client_secret: secretIn(access, 'client_secret'),
    access_token: secretIn(access, 'access_token'),
  };
}

function toFound(account: Account): Discovered | undefined {
  const [, subscription_id, resource_group_name, account_name] = RESOURCE.exec(account.id ?? '') ?? [];
  if (subscription_id === undefined || resource_group_name === undefined || account_name === undefined)
    return undefined;
  const type = backupType(account);
  const api = apiOfAccount(account);
  const { backupIntervalInMinutes: minutes } = periodicOf(account);
  const policy = policyOf(account);
  return {
    defines: 'azure-cosmosdb/database-account',
    name: entityName(account_name),
    parameters: {
      subscription_id,
      resource_group_name,
      account_name,
      ...(policy === undefined ? {} : { backup_policy: policy }),
    },
    notes: [
      ...(type === 'Periodic'
        ? [
            `Periodic backups: no call can restore them, only a support ticket.${minutes === undefined ? '' : ` Up to ${formatDuration(minutes * 60)} of writes are in no backup.`}`,
          ]
        : []),
      ...(type === 'Continuous' || type === 'Periodic' ? [] : ['How it is backed up is not known.']),
      ...(account.backupPolicy?.migrationState?.status === 'InProgress'
        ? ['It is moving to continuous backup: nothing can be restored or changed until that is over.']
        : []),
      ...(api === 'cassandra' || api === 'unknown' ? ['Accounts of this API have no self-service restore.'] : []),
      ...(accountStatus(account.provisioningState) === 'succeeded' ? [] : ['It is not ready.']),
    ],
  };
}

/** The policy as the file would have it; undefined where it cannot be declared. */
function policyOf(account: Account): JsonObject | undefined {
  const { backupIntervalInMinutes, backupRetentionIntervalInHours, backupStorageRedundancy } = periodicOf(account);
  const backup_type = backupType(account);
  const parsed = BackupPolicy.safeParse(
    backup_type === 'Continuous'
      ? known({ backup_type, continuous_tier: tierOf(account) })
      : known({
          backup_type,
          periodic_interval_minutes: backupIntervalInMinutes,
          periodic_retention_hours: backupRetentionIntervalInHours,
          backup_storage_redundancy: backupStorageRedundancy,
        }),
  );
  return parsed.success ? (parsed.data as JsonObject) : undefined;
}
