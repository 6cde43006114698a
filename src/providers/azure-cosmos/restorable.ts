import { HoldfastError } from '../../core/errors.ts';
import { pageOf } from '../../core/page.ts';
import { cleanText, didYouMean } from '../../core/text.ts';
import { parseInstant } from '../../core/time.ts';
import { type Context, wholeSecond } from './info.ts';
import {
  checkAccountName,
  checkInstanceId,
  checkLocation,
  type ResourceEvent,
  regionsAt,
  restorableApi,
  type Source,
  sameLocation,
} from './map.ts';

/**
 * Finds a restorable account by its instance id.
 * @throws {HoldfastError} BACKUP_NOT_FOUND
 */
export async function findSource({ client, signal }: Context, sourceId: string): Promise<Source> {
  const id = checkInstanceId(sourceId);
  const source = (await client.listSources(signal)).find((one) => one.instanceId === id);
  if (source !== undefined) return source;
  throw new HoldfastError('BACKUP_NOT_FOUND', 'there is no restorable account with this source_id', {
    hint: 'Use a source_id of list-restorable-accounts. A deleted account is there only until its window has passed.',
  });
}

/** Gives the region as the source spells it: its own, or one of those that have its backups. */
function regionOf(source: Source, location: string): string {
  const wanted = checkLocation(location);
  const names = [...new Set([source.location, ...source.regions.map(({ name }) => name)])];
  const found = names.find((name) => sameLocation(name, wanted));
  if (found !== undefined) return found;
  throw new HoldfastError('INVALID_PARAMETER', `this account has no backups in '${cleanText(location, 60)}'`, {
    hint: `Use one of its regions: ${names.join(', ')}.`,
    details: { locations: names },
  });
}

export interface AccountsInput {
  limit?: number | undefined;
  cursor?: string | undefined;
  account_name?: string | undefined;
}

/** Lists the restorable accounts of the subscription, the newest life first. */
export async function listAccounts({ client, signal }: Context, { limit, cursor, account_name }: AccountsInput) {
  if (account_name !== undefined) checkAccountName(account_name, 'account_name');
  const key = (source: Source): string => `${source.createdAt ?? ''}|${source.instanceId}`;
  const all = (await client.listSources(signal))
    .filter((source) => account_name === undefined || source.accountName === account_name)
    .sort((a, b) => (key(a) < key(b) ? 1 : -1));
  const { items, next_cursor } = pageOf(all, limit, cursor, key);
  return {
    accounts: items.map((source) => ({
      source_id: source.instanceId,
      account_name: source.accountName,
      location: source.location,
      api: source.apiType,
      restorable: source.api !== 'cassandra' && source.api !== 'unknown',
      live: source.deletedAt === undefined,
      ...(source.createdAt === undefined ? {} : { created_at: source.createdAt }),
      ...(source.deletedAt === undefined ? {} : { deleted_at: source.deletedAt }),
      ...(source.oldestAt === undefined ? {} : { oldest_restorable_at: source.oldestAt }),
      locations: source.regions.map(({ name, createdAt, deletedAt }) => ({
        location: name,
        ...(createdAt === undefined ? {} : { created_at: createdAt }),
        ...(deletedAt === undefined ? {} : { deleted_at: deletedAt }),
      })),
    })),
    ...(next_cursor === undefined ? {} : { next_cursor }),
  };
}

/** What the events of one name tell of it. */
interface Life {
  name: string;
  rids: string[];
  /** Whether it is there now; null where the events do not tell. */
  exists: boolean | null;
  created_at?: string;
  deleted_at?: string;
  last_event: string;
  last_event_at?: string;
  can_undelete?: boolean;
}

/** Puts the events of a feed together by name, the newest first. */
export function livesOf(events: readonly ResourceEvent[]): Life[] {
  const byName = Map.groupBy(events, ({ name }) => name);
  const lives = [...byName].map(([name, own]): Life => {
    const ordered = [...own].sort((a, b) => (a.at ?? '').localeCompare(b.at ?? ''));
    const last = ordered.at(-1) as ResourceEvent;
    const created = ordered.findLast(({ operation }) => operation === 'Create' || operation === 'Recreate')?.at;
    const exists = ['Create', 'Recreate', 'Replace'].includes(last.operation)
      ? true
      : last.operation === 'Delete'
        ? false
        : null;
    const undelete = last.canUndelete?.toLowerCase();
    return {
      name: cleanText(name),
      rids: [...new Set(ordered.map(({ rid }) => rid))].map((rid) => cleanText(rid, 100)),
      exists,
      ...(created === undefined ? {} : { created_at: created }),
      ...(exists === false && last.at !== undefined ? { deleted_at: last.at } : {}),
      last_event: cleanText(last.operation, 40),
      ...(last.at === undefined ? {} : { last_event_at: last.at }),
      ...(exists === false && (undelete === 'true' || undelete === 'false')
        ? { can_undelete: undelete === 'true' }
        : {}),
    };
  });
  return lives.sort((a, b) => (b.last_event_at ?? '').localeCompare(a.last_event_at ?? ''));
}

/**
 * Refuses a moment that a source has no backups of.
 * @throws {HoldfastError} INVALID_PARAMETER
 */
export function checkMoment(source: Source, at: string, now: Date): void {
  const from = [source.createdAt, source.oldestAt]
    .filter((one) => one !== undefined)
    .sort()
    .at(-1);
  const until = source.deletedAt;
  const outside =
    (from !== undefined && at < wholeSecond(new Date(from))) ||
    (until !== undefined && at >= until) ||
    at > now.toISOString();
  if (!outside) return;
  const end = until === undefined ? 'now' : `before ${until}, when the account was deleted`;
  throw new HoldfastError('INVALID_PARAMETER', 'restore_timestamp is outside of what can be restored', {
    hint: `Give a moment from ${from ?? 'its creation'} to ${end}.`,
    details: { ...(from === undefined ? {} : { earliest_at: from }), ...(until === undefined ? {} : { until }) },
  });
}

export interface DatabasesInput {
  source_id: string;
  location: string;
  restore_timestamp?: string | number | undefined;
}

/** Lists the databases (tables) of a restorable account: those of its history, or what there was at a moment. */
export async function listDatabases(context: Context, { source_id, location, restore_timestamp }: DatabasesInput) {
  const { client, runtime, signal } = context;
  const source = await findSource(context, source_id);
  const api = restorableApi(source.api);
  const region = regionOf(source, location);
  const head = { api: source.apiType, account_name: source.accountName };
  if (restore_timestamp === undefined) {
    const lives = livesOf(await client.databaseEvents(source, api, signal));
    const name = api === 'table' ? 'table' : 'database_name';
    return { ...head, databases: lives.map(({ name: own, ...life }) => ({ [name]: own, ...life })) };
  }
  const at = wholeSecond(parseInstant(restore_timestamp, 'restore_timestamp'));
  checkMoment(source, at, runtime.now());
  if (!regionsAt(source, at).some((one) => sameLocation(one, region))) {
    throw new HoldfastError('INVALID_PARAMETER', `there are no backups of that moment in '${region}'`, {
      hint: `Use one of ${regionsAt(source, at).join(', ') || 'the other moments'}.`,
    });
  }
  const inventory = await client.inventoryAt(source, api, region, at, signal);
  return {
    ...head,
    at,
    databases: inventory.flatMap(({ database, containers }): Record<string, unknown>[] => {
      const names = containers.map((one) => cleanText(one));
      if (database === null) return names.map((table) => ({ table }));
      return [{ database_name: cleanText(database), containers: names }];
    }),
  };
}

export interface ContainersInput {
  source_id: string;
  location: string;
  database_name?: string | undefined;
}

/** Lists the containers (collections, graphs, tables) that the history of a restorable account knows. */
export async function listContainers(context: Context, { source_id, location, database_name }: ContainersInput) {
  const { client, signal } = context;
  const source = await findSource(context, source_id);
  const api = restorableApi(source.api);
  regionOf(source, location);
  const databases = await client.databaseEvents(source, api, signal);
  const head = { api: source.apiType, account_name: source.accountName };
  // Tables stand in no database that anyone can name.
  if (api === 'table') return { ...head, containers: livesOf(databases).map(named) };
  if (database_name === undefined) {
    throw new HoldfastError('INVALID_PARAMETER', 'database_name is missing', {
      hint: 'Give one of list-restorable-databases; only accounts of the Table API have none.',
    });
  }
  // A database that was deleted and made again has several ids under one name.
  const rids = [...new Set(databases.filter(({ name }) => name === database_name).map(({ rid }) => rid))];
  if (rids.length === 0) {
    const names = [...new Set(databases.map(({ name }) => cleanText(name)))];
    throw new HoldfastError(
      'BACKUP_NOT_FOUND',
      `there is no database '${cleanText(database_name, 60)}' in its history`,
      {
        hint: didYouMean(database_name, names) || 'The account has no databases in its history.',
      },
    );
  }
  const events = (await Promise.all(rids.map((rid) => client.containerEvents(source, api, rid, signal)))).flat();
  return { ...head, database_name: cleanText(database_name), containers: livesOf(events).map(named) };
}

function named({ name, ...life }: Life) {
  return { container: name, ...life };
}
