import type { EntityBase, ProviderContext } from '../../core/context.ts';
import { type ErrorCode, HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import { cleanText } from '../../core/text.ts';
import { numberOf, textOf, type Wire } from '../../core/wire.ts';
import { type Address, type RedisCloudClient, supportsBackups, type Tier } from './client.ts';
import type { Database } from './map.ts';
import { PRO_DATABASE, type RedisCloudEntity } from './provider.ts';

export type Context = ProviderContext<RedisCloudClient, RedisCloudEntity>;

/** The database of an entity as it stands, with its subscription. */
export interface Target {
  readonly address: Address;
  readonly subscription: Wire;
  readonly database: Database;
}

/** Gives the tier whose paths an entity's calls take. */
export function tierOf(entity: EntityBase): Tier {
  return entity.defines === PRO_DATABASE ? 'pro' : 'essentials';
}

/** The name at Redis Cloud; the entity's own `name` is its name in the file. */
function providerName(entity: EntityBase): string | undefined {
  return textOf(entity.parameters?.['name']);
}

/**
 * Reads the subscription of an entity.
 * @throws {HoldfastError} RESOURCE_NOT_FOUND, saying so when the id belongs to the other tier
 */
export async function readSubscription({
  client,
  entity,
  signal,
}: Context): Promise<{ id: number; subscription: Wire }> {
  const tier = tierOf(entity);
  const id = entity.subscription_id ?? (await subscriptionByName({ client, entity, signal }));
  try {
    return { id, subscription: await client.subscription(tier, id, signal) };
  } catch (cause) {
    if (!(cause instanceof HoldfastError) || cause.code !== 'RESOURCE_NOT_FOUND') throw cause;
    const other = tier === 'pro' ? 'essentials' : 'pro';
    const isOther = await client.subscription(other, id, signal).then(
      () => true,
      () => false,
    );
    const shown = { pro: 'Pro', essentials: 'Essentials' };
    throw new HoldfastError('RESOURCE_NOT_FOUND', `there is no ${shown[tier]} subscription ${id}`, {
      hint: isOther
        ? `Subscription ${id} belongs to ${shown[other]}: correct \`defines\` of ${entity.key} in the entities file.`
        : 'Check subscription_id of this entity, and that the API keys belong to its account.',
      provider: cause.provider,
    });
  }
}

async function subscriptionByName({
  client,
  entity,
  signal,
}: Pick<Context, 'client' | 'entity' | 'signal'>): Promise<number> {
  const name = providerName(entity);
  const found = (await client.essentialsSubscriptions(signal)).filter((candidate) => candidate['name'] === name);
  const id = numberOf(found[0]?.['id']);
  if (name === undefined || found.length !== 1 || id === undefined)
    throw notIdentified(entity, 'subscription', found.length);
  return id;
}

/**
 * Reads the database of an entity.
 * @throws {HoldfastError} RESOURCE_NOT_FOUND
 */
export async function readTarget(context: Context): Promise<Target> {
  const { client, entity, signal } = context;
  const tier = tierOf(entity);
  const { id, subscription } = await readSubscription(context);
  if (entity.database_id !== undefined) {
    const address: Address = { tier, subscription: id, database: entity.database_id };
    return { address, subscription, database: await client.database(address, signal) };
  }
  const name = providerName(entity);
  const found = (await client.databases(tier, id, signal)).filter((candidate) => candidate.name === name);
  const [only] = found;
  if (name === undefined || only === undefined || found.length > 1)
    throw notIdentified(entity, 'database', found.length);
  const address: Address = { tier, subscription: id, database: only.id };
  return { address, subscription, database: await client.database(address, signal) };
}

function notIdentified(entity: EntityBase, what: 'subscription' | 'database', found: number): HoldfastError {
  const name = providerName(entity);
  return new HoldfastError(
    'RESOURCE_NOT_FOUND',
    name === undefined
      ? `${entity.key} has neither ${what}_id nor name`
      : `there ${found === 0 ? 'is no' : `are ${found}`} ${what}${found === 0 ? '' : 's'} with the name '${cleanText(name, 60)}'`,
    { hint: `Write ${what}_id in the entities file.` },
  );
}

/** What a person types to approve: `subscription/database`. */
export function targetName({ address, database }: Target): string {
  return `${address.subscription}/${/^[\w.-]+$/.test(database.name) ? database.name : address.database}`;
}

/** Identity and state of a database, as approval rests on them. */
export function targetFacts({ address, database }: Target): JsonObject {
  return {
    tier: address.tier,
    subscription_id: address.subscription,
    database_id: address.database,
    name: database.name,
    status: database.status,
    replica_of: database.isReplica,
    active_active: database.isActiveActive,
    regions: database.regions.map(({ name }) => name).sort(),
  };
}

/** Where a backup of a database would go, or why none is possible. */
export type BackupPlace =
  | { readonly possible: true; readonly region: string | undefined; readonly destination: string }
  | { readonly possible: false; readonly code: ErrorCode; readonly reason: string; readonly hint: string };

/**
 * Tells where an on-demand backup would go. Of an Active-Active database one region is enough, because all hold the same
 * data: the one named, else the first that has a path.
 */
export function backupPlace(
  target: Target,
  wanted: { region?: string | undefined; path?: string | undefined } = {},
): BackupPlace {
  const { database, address, subscription } = target;
  const no = (code: ErrorCode, reason: string, hint: string): BackupPlace => ({ possible: false, code, reason, hint });
  if (address.tier === 'essentials' && supportsBackups(subscription) === false) {
    return no(
      'CLUSTER_TIER_NOT_SUPPORTED',
      'the plan of this subscription has no backups',
      'Choose a paid plan with instant and daily backups.',
    );
  }
  if (database.protocol === 'memcached') {
    return no('NOT_SUPPORTED', 'a Memcached database has no backups', 'Fill it again from its source.');
  }
  if (database.status !== 'active') {
    return no('INVALID_STATE', `the database is ${database.status}, not active`, 'Wait until it is active.');
  }
  if (wanted.region !== undefined && !database.isActiveActive) {
    return no('INVALID_PARAMETER', 'region_name is for Active-Active databases only', 'Leave region_name out.');
  }
  const region = database.isActiveActive
    ? database.regions.find(({ name, backup }) =>
        wanted.region === undefined
          ? backup.destination !== undefined || wanted.path !== undefined
          : name === wanted.region,
      )
    : undefined;
  if (wanted.region !== undefined && region === undefined) {
    return no(
      'INVALID_PARAMETER',
      'the database has no such region',
      `Its regions: ${database.regions.map(({ name }) => name).join(', ')}.`,
    );
  }
  const destination =
    wanted.path ?? (database.isActiveActive ? region?.backup.destination : database.backup.destination);
  if (destination === undefined) {
    return no(
      'BACKUP_NOT_FOUND',
      'the database has no backup path',
      address.tier === 'essentials'
        ? 'Set periodic_backup_path of the database, or give backup_path.'
        : 'Set remote_backup of the database, or give backup_path.',
    );
  }
  return { possible: true, region: region?.name, destination };
}
