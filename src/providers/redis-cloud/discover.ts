import { isObject, type JsonObject } from '../../core/json.ts';
import type { Discovered, Discovery, DiscoveryContext } from '../../core/provider.ts';
import type { SecretRef } from '../../core/runtime.ts';
import { cleanText } from '../../core/text.ts';
import { booleanOf, numberOf, textOf, type Wire } from '../../core/wire.ts';
import { attempts, entityName } from '../discovery.ts';
import { RedisCloudClient, supportsBackups, type Tier } from './client.ts';
import { INTERVALS, PERSISTENCE } from './declared.ts';
import { type BackupSettings, type Database, storageTypeOf } from './map.ts';
import { ESSENTIALS_DATABASE, ESSENTIALS_SUBSCRIPTION, PRO_DATABASE } from './provider.ts';

/**
 * Looks through all subscriptions of an account; undefined without credentials.
 * @throws {HoldfastError} AUTHENTICATION_FAILED where Redis Cloud does not take the keys
 */
export async function discover({
  access,
  endpoint,
  runtime,
  signal,
}: DiscoveryContext): Promise<Discovery | undefined> {
  const keys = { access_key: secretIn(access, 'access_key'), secret_key: secretIn(access, 'secret_key') };
  const isNamed = keys.access_key !== undefined || keys.secret_key !== undefined;
  if (!isNamed && !runtime.credential('REDISCLOUD_ACCESS_KEY') && !runtime.credential('REDISCLOUD_SECRET_KEY')) {
    return undefined;
  }
  const client = new RedisCloudClient({ ...keys, endpoint }, runtime);
  const problems: string[] = [];
  const attempt = attempts(problems);
  const found: Discovered[] = [];
  const tiers: [Tier, () => Promise<Wire[]>][] = [
    ['essentials', () => client.essentialsSubscriptions(signal)],
    ['pro', () => client.proSubscriptions(signal)],
  ];
  let count = 0;
  for (const [tier, list] of tiers) {
    const what = { essentials: 'Essentials', pro: 'Pro' }[tier];
    for (const subscription of (await attempt(list, `${what} subscriptions are not shown`)) ?? []) {
      const id = numberOf(subscription['id']);
      if (id === undefined) continue;
      count += 1;
      if (tier === 'essentials') found.push(toPlan(id, subscription));
      const read = () => client.databases(tier, id, signal);
      const databases = (await attempt(read, `the databases of subscription ${id} are not shown`)) ?? [];
      found.push(...databases.map((database) => toDatabase(tier, id, subscription, database)));
    }
  }
  return { looked: `Redis Cloud, ${count} subscriptions`, found, problems };
}

function secretIn(access: Readonly<Record<string, unknown>>, name: string): SecretRef | undefined {
  const value = access[name];
  return isObject(value) && 'secret' in value ? (value as unknown as SecretRef) : undefined;
}

const nameOf = (text: unknown): string => cleanText(text, 80);

function toPlan(id: number, subscription: Wire): Discovered {
  const backups = booleanOf(subscription['supportInstantAndDailyBackups']);
  const persistence = booleanOf(subscription['supportDataPersistence']);
  const name = nameOf(subscription['name']);
  return {
    defines: ESSENTIALS_SUBSCRIPTION,
    name: entityName(name || `subscription-${id}`),
    parameters: {
      subscription_id: id,
      ...(name === '' ? {} : { name }),
      ...(backups === undefined ? {} : { support_instant_and_daily_backups: backups }),
      ...(persistence === undefined ? {} : { support_data_persistence: persistence }),
    },
    notes: [
      ...(supportsBackups(subscription) === false ? ['Its plan has no backups.'] : []),
      ...(persistence === false ? ['Its plan has no data persistence: a restart loses the data.'] : []),
    ],
  };
}

function toDatabase(tier: Tier, subscription_id: number, subscription: Wire, database: Database): Discovered {
  const { dataPersistence: persistence, replication } = database;
  const isProtected = database.isActiveActive
    ? database.regions.some(({ backup }) => backup.enabled)
    : database.backup.enabled;
  const without = tier === 'essentials' && supportsBackups(subscription) === false;
  const { parameters, notes } = tier === 'essentials' ? periodic(database) : remote(database);
  return {
    defines: tier === 'essentials' ? ESSENTIALS_DATABASE : PRO_DATABASE,
    name: entityName(database.name || `database-${database.id}`),
    parameters: {
      subscription_id,
      database_id: database.id,
      ...(database.name === '' ? {} : { name: database.name }),
      ...(persistence !== undefined && PERSISTENCE.includes(persistence) ? { data_persistence: persistence } : {}),
      ...(tier === 'pro' && replication !== undefined ? { replication } : {}),
      ...parameters,
    },
    notes: [
      ...(without ? ['The plan of its subscription has no backups.'] : []),
      ...(isProtected || without ? [] : ['Nothing backs it up.']),
      ...(persistence === 'none' ? ['Data persistence is off: a restart loses the data.'] : []),
      ...(database.isReplica ? ['It follows another database (Replica Of): back that one up.'] : []),
      ...notes,
    ],
  };
}

const WITH_CREDENTIALS = 'Its backup path may hold credentials, which are not told: declare it as a reference.';

/** A path as the file may have it: one that can hold credentials is a secret, and is not told whole. */
function plainPath({ destination }: BackupSettings): string | undefined {
  const path = destination?.replace(/^\[(.*)\]$/, '$1');
  return path === undefined || path.includes('@') || /^(ftps?|abs):/i.test(path) ? undefined : path;
}

function periodic({ backup }: Database): { parameters: JsonObject; notes: string[] } {
  const path = plainPath(backup);
  if (path !== undefined) return { parameters: { periodic_backup_path: path }, notes: [] };
  return { parameters: {}, notes: backup.destination === undefined ? [] : [WITH_CREDENTIALS] };
}

function remote(database: Database): { parameters: JsonObject; notes: string[] } {
  const enabled = database.regions.filter(({ backup }) => backup.enabled);
  const region = enabled[0];
  const backup = region?.backup ?? database.backup;
  if (!backup.enabled) return { parameters: { remote_backup: { active: false } }, notes: [] };
  const path = plainPath(backup);
  const type = storageTypeOf(backup.destination);
  const { interval, timeUtc } = backup;
  return {
    parameters: {
      remote_backup: {
        active: true,
        ...(interval !== undefined && INTERVALS.includes(interval) ? { interval } : {}),
        ...(timeUtc !== undefined && /^([01]\d|2[0-3]):[0-5]\d$/.test(timeUtc) ? { time_utc: timeUtc } : {}),
        ...(type === undefined || type === 'http' ? {} : { storage_type: type }),
        ...(path === undefined ? {} : { storage_path: path }),
        ...(region === undefined ? {} : { region_name: region.name }),
      },
    },
    notes: [
      ...(path === undefined && textOf(backup.destination) !== undefined ? [WITH_CREDENTIALS] : []),
      ...(enabled.length > 1
        ? [`Backups are written in ${enabled.length} regions; those of ${region?.name} are declared here.`]
        : []),
    ],
  };
}
