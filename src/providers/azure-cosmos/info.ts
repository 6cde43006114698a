import type { ProviderContext } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { RecoveryOption } from '../../core/provider.ts';
import type { BackupInfo } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration } from '../../core/time.ts';
import { driftOf } from '../findings.ts';
import type { CosmosClient } from './client.ts';
import {
  type Account,
  apiOfAccount,
  type Inventory,
  instant,
  namesIn,
  type RestorableApi,
  type Source,
} from './map.ts';
import type { CosmosEntity } from './provider.ts';

export type Context = ProviderContext<CosmosClient, CosmosEntity>;

/** How many containers are asked for their last restorable moment: each takes Azure some seconds. */
const ASKED = 20;
const DAY = 86_400;

/** Reads what may be out of reach for this caller: undefined then, never a guess. */
export async function tolerate<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (cause) {
    const passes = ['INSUFFICIENT_PERMISSIONS', 'RESOURCE_NOT_FOUND', 'BACKUP_NOT_FOUND', 'INVALID_PARAMETER'];
    if (cause instanceof HoldfastError && passes.includes(cause.code)) return undefined;
    throw cause;
  }
}

/** The last moment that containers can be restored to. */
export interface Latest {
  /** The earliest of those found out: every container asked can be restored to it. */
  readonly at: string | undefined;
  readonly asked: number;
  readonly of: number;
}

/** Asks containers of the entity's account for the last moment that they can be restored to. */
export async function latestOf(
  { client, signal }: Pick<Context, 'client' | 'signal'>,
  api: RestorableApi,
  inventory: Inventory,
  location: string,
): Promise<Latest> {
  const containers = inventory.flatMap(({ database, containers: names }) => names.map((name) => ({ database, name })));
  const asked = containers.slice(0, ASKED);
  const found = await Promise.all(
    asked.map(({ database, name }) => tolerate(() => client.latestRestorable(api, database, name, location, signal))),
  );
  const known = found.filter((at) => at !== undefined).sort();
  const whole = known.length === asked.length;
  return { at: whole ? known[0] : undefined, asked: asked.length, of: containers.length };
}

/** Gives the region that an account writes in. */
export function writeRegion(account: Account): string {
  return cleanText(account.writeLocations?.[0]?.locationName ?? account.location, 60);
}

/** Gives the kind of backup of an account: `Continuous`, `Periodic`, or the service's own word. */
export function backupType(account: Account): string {
  return cleanText(account.backupPolicy?.type ?? 'unknown', 40);
}

/** Gives the tier of continuous backup, `Continuous7Days` or `Continuous30Days`. */
export function tierOf(account: Account): string | undefined {
  const policy = account.backupPolicy as { continuousModeProperties?: { tier?: string } } | undefined;
  const tier = policy?.continuousModeProperties?.tier;
  return tier === undefined ? undefined : cleanText(tier, 40);
}

/** Gives what periodic backup of an account is set to. */
export function periodicOf(account: Account) {
  const policy = account.backupPolicy as
    | {
        periodicModeProperties?: {
          backupIntervalInMinutes?: number;
          backupRetentionIntervalInHours?: number;
          backupStorageRedundancy?: string;
        };
      }
    | undefined;
  return policy?.periodicModeProperties ?? {};
}

/** Says how well an account is backed up. */
export async function backupInfo(context: Context): Promise<BackupInfo> {
  const { client, entity, signal } = context;
  const account = await client.getAccount(client.account, signal);
  const type = backupType(account);
  const continuous = type === 'Continuous';
  const tier = tierOf(account);
  const { backupIntervalInMinutes: minutes, backupRetentionIntervalInHours: hours, ...period } = periodicOf(account);
  const warnings: string[] = [];
  const api = apiOfAccount(account);
  const migration = account.backupPolicy?.migrationState;
  if (migration?.status === 'InProgress') {
    warnings.push(
      'The account is moving to continuous backup: until that is over nothing can be restored or changed. Moments before it come back by a support ticket only.',
    );
  }
  if (migration?.status === 'Failed') warnings.push('The move to continuous backup failed.');
  let source: Source | undefined;
  let latest: Latest | undefined;
  if (continuous) {
    const sources = await tolerate(() => client.listSources(signal));
    source = sources?.find((one) => isSame(one, account));
    if (sources === undefined) {
      warnings.push(
        'The restore window is unknown: the caller lacks Microsoft.DocumentDB/locations/restorableDatabaseAccounts/read on the subscription.',
      );
    } else if (source === undefined) {
      warnings.push('Azure lists no restorable account for this one yet: nothing can be restored at the moment.');
    }
    if (api === 'cassandra' || api === 'unknown') {
      warnings.push('Accounts of this API have no self-service restore.');
    } else {
      const inventory = await tolerate(() => client.inventory(client.account, api, signal));
      if (inventory !== undefined) latest = await latestOf(context, api, inventory, writeRegion(account));
      warnings.push(...latestWarnings(inventory, latest));
    }
  } else if (type === 'Periodic') {
    warnings.push(
      'Periodic backups are restored by an Azure support ticket only, never by a call. In an incident raise the retention to 7 days within 8 hours, so that the backups last.',
    );
    if (minutes !== undefined) {
      warnings.push(`Up to ${formatDuration(minutes * 60)} of writes are in no backup.`);
    }
    if (period.backupStorageRedundancy === 'Local')
      warnings.push('Backups are kept in one region only: they go with it.');
  } else warnings.push('How this account is backed up is not known.');
  if (account.enableMultipleWriteLocations === true && continuous) {
    warnings.push('With several write regions only writes that the hub region has confirmed can be restored.');
  }
  if (account.enableAnalyticalStorage === true) warnings.push('The analytical store is in no backup.');
  if (entity.backup_policy !== undefined) {
    const { policyFindings } = await import('./declared.ts');
    warnings.push(...driftOf(policyFindings(entity.backup_policy, account)));
    if (entity.backup_policy.backup_type === 'Periodic' && continuous) {
      warnings.push('Continuous backup cannot be changed back to periodic: correct the declaration.');
    }
  }
  const window =
    source?.oldestAt !== undefined && latest?.at !== undefined && source.oldestAt <= latest.at
      ? { earliest_at: source.oldestAt, latest_at: latest.at }
      : undefined;
  const retention = retentionSeconds(tier, continuous, hours);
  return {
    automated: continuous || type === 'Periodic',
    ...(retention === undefined ? {} : { retention_seconds: retention }),
    ...(continuous ? { schedule: 'continuous' } : {}),
    ...(!continuous && minutes !== undefined ? { schedule: `every ${formatDuration(minutes * 60)}` } : {}),
    pitr: { enabled: continuous, ...(window === undefined ? {} : { window }) },
    encryption: account.keyVaultKeyUri
      ? `customer-managed key ${cleanText(account.keyVaultKeyUri)}`
      : 'service-managed keys',
    // A management lock would protect it; this API does not show locks.
    deletion_protection: null,
    newest:
      source === undefined || window === undefined
        ? null
        : {
            id: source.instanceId,
            kind: 'continuous',
            status: 'available',
            data_at: window.latest_at,
            restorable: true,
            encrypted: true,
            location: source.location,
          },
    warnings,
    provider: {
      account: client.account,
      resource_group: client.group,
      state: cleanText(account.provisioningState, 40),
      api,
      backup_type: type,
      ...(tier === undefined ? {} : { continuous_tier: tier }),
      ...(minutes === undefined ? {} : { periodic_interval_minutes: minutes }),
      ...(hours === undefined ? {} : { periodic_retention_hours: hours }),
      ...(period.backupStorageRedundancy === undefined
        ? {}
        : { backup_storage_redundancy: cleanText(period.backupStorageRedundancy, 20) }),
      ...(migration === undefined
        ? {}
        : {
            migration: {
              status: cleanText(migration.status, 40),
              target_type: cleanText(migration.targetType, 40),
              ...(instant(migration.startTime) === undefined ? {} : { started_at: instant(migration.startTime) }),
            },
          }),
      ...(source === undefined ? {} : { source_id: source.instanceId, source_location: source.location }),
      ...(source?.oldestAt === undefined ? {} : { oldest_restorable_at: source.oldestAt }),
      regions: (account.locations ?? []).map((location) => cleanText(location.locationName, 60)),
      public_network_access: cleanText(account.publicNetworkAccess ?? 'unknown', 40),
    },
  };
}

function isSame(source: Source, account: Account): boolean {
  return source.deletedAt === undefined && source.instanceId === (account.instanceId ?? '').toLowerCase();
}

function latestWarnings(inventory: Inventory | undefined, latest: Latest | undefined): string[] {
  if (inventory === undefined || latest === undefined) {
    return ['The latest restorable moment is unknown: the databases of the account could not be listed.'];
  }
  if (latest.of === 0) return ['The account has no container: there is nothing to restore yet.'];
  if (latest.at === undefined) {
    return [
      'The latest restorable moment is unknown: not every container told it (this needs retrieveContinuousBackupInformation/action).',
    ];
  }
  return latest.asked < latest.of
    ? [`The latest restorable moment is that of ${latest.asked} of ${latest.of} containers.`]
    : [];
}

function retentionSeconds(tier: string | undefined, continuous: boolean, hours: number | undefined) {
  if (continuous) return tier === 'Continuous30Days' ? 30 * DAY : tier === 'Continuous7Days' ? 7 * DAY : undefined;
  return hours === undefined ? undefined : hours * 3600;
}

// --- ways back -----------------------------------------------------------------------------------------------------

/** Makes a name for a restored account, in the form that Azure takes. */
export function newAccountName(account: string, now: Date): string {
  const stamp = now.toISOString().replace(/\D/g, '').slice(0, 14);
  return `${account.slice(0, 28).replace(/-+$/, '')}-r${stamp}`;
}

/** Lists every way back for the entity: a moment of each life of its account, deleted ones included. */
export async function recoveryOptions(context: Context, at: Date | undefined): Promise<RecoveryOption[]> {
  const { client, entity, runtime, signal } = context;
  const now = runtime.now();
  const all = await client.listSources(signal);
  const own = all.filter(
    (one) => one.accountName === client.account && one.api !== 'cassandra' && one.api !== 'unknown',
  );
  const target = newAccountName(client.account, now);
  const options: RecoveryOption[] = [];
  for (const source of own.sort((a, b) => (b.createdAt ?? '').localeCompare(a.createdAt ?? ''))) {
    const last = await lastOf(context, source);
    const wanted = at?.toISOString();
    const moment = wanted === undefined || wanted > last.at ? last.at : wanted;
    if (source.oldestAt === undefined || moment < source.oldestAt) continue;
    const state = source.deletedAt === undefined ? 'the account' : `the account deleted at ${source.deletedAt}`;
    options.push({
      title: `${state} as of ${moment} into the new account ${target}${last.note}`,
      moment,
      loses: 'nothing: no account is changed',
      risk: 'create',
      call: {
        entity: entity.key,
        action: 'restore',
        input: {
          target_id: target,
          source_id: source.instanceId,
          location: source.regions[0]?.name ?? source.location,
          restore_timestamp: moment,
        },
      },
    });
  }
  return options.sort((a, b) => b.moment.localeCompare(a.moment));
}

const HOUR_MS = 3_600_000;

async function lastOf(context: Context, source: Source): Promise<{ at: string; note: string }> {
  const { client, runtime, signal } = context;
  if (source.deletedAt !== undefined) {
    // The moment of the deletion itself is not in the backups any more.
    return { at: wholeSecond(new Date(Date.parse(source.deletedAt) - 1000)), note: '' };
  }
  const api = source.api as RestorableApi;
  const account = await tolerate(() => client.getAccount(client.account, signal));
  if (account !== undefined && isSame(source, account)) {
    const inventory = await tolerate(() => client.inventory(client.account, api, signal));
    const latest =
      inventory === undefined || namesIn(inventory).length === 0
        ? undefined
        : await latestOf(context, api, inventory, writeRegion(account));
    if (latest?.at !== undefined) return { at: wholeSecond(new Date(latest.at)), note: '' };
  }
  return {
    at: wholeSecond(new Date(runtime.now().getTime() - HOUR_MS)),
    note: ' (its latest restorable moment is not known; this is an hour ago)',
  };
}

/** Gives the whole second that a moment lies in: Azure restores to seconds. */
export function wholeSecond(date: Date): string {
  return new Date(Math.floor(date.getTime() / 1000) * 1000).toISOString();
}
