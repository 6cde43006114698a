import { randomUUID } from 'node:crypto';
import { isObject, type JsonObject } from '../core/json.ts';
import type { Simulator, SimulatorOptions, SimulatorRequest, SimulatorResponse } from './simulator.ts';

/** Containers and their item counts, by database; tables stand under the database ''. */
export type CosmosContent = Record<string, Record<string, number>>;

export type CosmosApi = 'Sql' | 'MongoDB' | 'Gremlin' | 'Table' | 'Cassandra';

/** One life of an account, from its creation to its deletion: what continuous backup can restore. */
export interface SimulatedLife {
  instanceId: string;
  accountName: string;
  api: CosmosApi;
  location: string;
  createdAt: number;
  deletedAt?: number;
  /** Days that the backups reach back. */
  days: number;
  /** Before it there are no backups, whatever the days: continuous backup began then, or a wider window. */
  reachesFrom?: number;
  regions: { name: string; createdAt: number; deletedAt?: number }[];
  /** What was in it since when, oldest first; the last one is now. */
  history: { at: number; content: CosmosContent }[];
  /** Of the items of a container, how many are past their TTL; by `database/container`. */
  expired: Record<string, number>;
}

export interface SimulatedAccount {
  name: string;
  group: string;
  location: string;
  api: CosmosApi;
  instanceId: string;
  createdAt: number;
  state: string;
  tags: Record<string, string>;
  backupPolicy: JsonObject;
  publicNetworkAccess: string;
  ipRules: string[];
  regions: string[];
  multipleWriteLocations: boolean;
  createMode: string;
  restoreParameters?: JsonObject;
  keyVaultKeyUri?: string;
  defaultIdentity?: string;
  identity?: JsonObject;
  content: CosmosContent;
}

interface SimulatedWork {
  id: string;
  location: string;
  begunAt: number;
  endsAt: number;
  done: boolean;
  error?: { code: string; message: string };
  /** What its result address answers with. */
  result?: () => JsonObject;
  apply: () => void;
}

/** What a test may look at and set. */
export interface CosmosState {
  readonly accounts: Map<string, SimulatedAccount>;
  readonly lives: SimulatedLife[];
  readonly work: Map<string, SimulatedWork>;
  /** Permissions that the caller lacks. */
  readonly denied: Set<string>;
  /** Whether every token is refused. */
  unauthenticated: boolean;
  /** Whether errors come without the outer `error`, as parts of the service send them. */
  flatErrors: boolean;
  /** How many items a list gives at once. */
  pageSize: number;
  /** The origin of links to further pages and to operations. */
  links: string;
  /** Whether latest restorable moments come as `10/26/2021 5:27:45 PM`. */
  american: boolean;
  /** Error codes of the next restores and updates that fail after they began. */
  readonly failNext: string[];
  /** Refusals of the next writes: status, code and sentence. */
  readonly refuseNext: { status: number; code: string; message: string; additionalInfo?: JsonObject[] }[];
  /** Milliseconds of clock time. */
  readonly durations: { restore: number; latest: number; update: number; migration: number };
}

export interface CosmosSimulator extends Simulator {
  readonly state: CosmosState;
}

export const COSMOS_SANDBOX = {
  subscription: '5a0db0c5-0000-4000-8000-000000000001',
  group: 'holdfast-sandbox',
  account: 'orders-cosmos',
  location: 'West Europe',
  source: '7c1d1f0a-3b52-4e0e-9a64-0c05a0000001',
  deletedSource: '7c1d1f0a-3b52-4e0e-9a64-0c05a0000002',
  mongo: '7c1d1f0a-3b52-4e0e-9a64-0c05a0000003',
  gremlin: '7c1d1f0a-3b52-4e0e-9a64-0c05a0000004',
  table: '7c1d1f0a-3b52-4e0e-9a64-0c05a0000005',
  cassandra: '7c1d1f0a-3b52-4e0e-9a64-0c05a0000006',
  restored: 'orders-cosmos-audit',
} as const;

const API_VERSION = '2026-03-15';
const AUTHORIZATION_VERSION = '2022-04-01';
const SUBSCRIPTIONS_VERSION = '2022-12-01';
const PERMISSIONS =
  /^\/subscriptions\/[^/]+\/resourceGroups\/[^/]+(\/providers\/Microsoft\.DocumentDB\/databaseAccounts\/[^/]+)?\/providers\/Microsoft\.Authorization\/permissions$/i;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const TYPE = 'Microsoft.DocumentDB/databaseAccounts';

class Refusal extends Error {
  readonly status: number;
  readonly code: string;
  readonly additionalInfo: JsonObject[] | undefined;
  constructor(status: number, code: string, message: string, additionalInfo?: JsonObject[]) {
    super(message);
    this.status = status;
    this.code = code;
    this.additionalInfo = additionalInfo;
  }
}

/** Stands in for the Cosmos DB resource provider of Azure Resource Manager: accounts, restorable accounts, restores. */
export function azureCosmosSimulator(options: SimulatorOptions): CosmosSimulator {
  const now = (): number => options.clock.now().getTime();
  const iso = (at: number): string => new Date(at).toISOString();
  const state: CosmosState = {
    accounts: new Map(),
    lives: [],
    work: new Map(),
    denied: new Set(),
    unauthenticated: false,
    flatErrors: false,
    pageSize: 100,
    links: 'https://management.azure.com',
    american: false,
    failNext: [],
    refuseNext: [],
    durations: { restore: 3000, latest: 50, update: 2000, migration: 5000 },
  };
  seed(state, now());

  // Everything that should be over by the clock's time is made so before a request is looked at.
  const settle = (): void => {
    for (const work of state.work.values()) {
      if (work.done || work.endsAt > now()) continue;
      work.done = true;
      work.apply();
    }
  };

  const need = (permission: string): void => {
    if (state.denied.has(permission)) {
      throw new Refusal(
        403,
        'AuthorizationFailed',
        `The client does not have authorization to perform action 'Microsoft.DocumentDB/${permission}' over scope.`,
      );
    }
  };

  const accountId = (account: SimulatedAccount): string =>
    `/subscriptions/${COSMOS_SANDBOX.subscription}/resourceGroups/${account.group}/providers/${TYPE}/${account.name}`;

  const find = (group: string, name: string): SimulatedAccount => {
    if (![...state.accounts.values()].some((one) => same(one.group, group))) {
      throw new Refusal(404, 'ResourceGroupNotFound', `Resource group '${group}' could not be found.`);
    }
    const account = state.accounts.get(name);
    if (account !== undefined && same(account.group, group)) return account;
    throw new Refusal(
      404,
      'ResourceNotFound',
      `The Resource '${TYPE}/${name}' under resource group '${group}' was not found.`,
    );
  };

  const lifeId = (life: SimulatedLife): string =>
    `/subscriptions/${COSMOS_SANDBOX.subscription}/providers/Microsoft.DocumentDB/locations/${life.location.replaceAll(' ', '')}/restorableDatabaseAccounts/${life.instanceId}`;

  const oldest = (life: SimulatedLife): number =>
    Math.max(life.createdAt, life.reachesFrom ?? 0, now() - life.days * DAY);

  const isThere = (life: SimulatedLife): boolean =>
    life.deletedAt === undefined || life.deletedAt > now() - life.days * DAY;

  const lifeBody = (life: SimulatedLife): JsonObject => ({
    id: lifeId(life),
    name: life.instanceId,
    type: 'Microsoft.DocumentDB/locations/restorableDatabaseAccounts',
    location: life.location,
    properties: {
      accountName: life.accountName,
      apiType: life.api,
      creationTime: iso(life.createdAt),
      oldestRestorableTime: iso(oldest(life)),
      ...(life.deletedAt === undefined ? {} : { deletionTime: iso(life.deletedAt) }),
      restorableLocations: life.regions.map((region, index) => ({
        locationName: region.name,
        regionalDatabaseAccountInstanceId: `${life.instanceId.slice(0, -1)}${(index + 10).toString(16)}`,
        creationTime: iso(region.createdAt),
        ...(region.deletedAt === undefined ? {} : { deletionTime: iso(region.deletedAt) }),
      })),
    },
  });

  const accountBody = (account: SimulatedAccount): JsonObject => {
    const location = (name: string, index: number): JsonObject => ({
      id: `${account.name}-${name.toLowerCase().replaceAll(' ', '')}`,
      locationName: name,
      documentEndpoint: `https://${account.name}-${name.toLowerCase().replaceAll(' ', '')}.documents.azure.com:443/`,
      provisioningState: account.state,
      failoverPriority: index,
      isZoneRedundant: false,
    });
    const ready = account.state === 'Succeeded' || account.state === 'Updating';
    return {
      id: accountId(account),
      name: account.name,
      type: TYPE,
      location: account.location,
      tags: { ...account.tags },
      kind: account.api === 'MongoDB' ? 'MongoDB' : 'GlobalDocumentDB',
      ...(account.identity === undefined ? {} : { identity: structuredClone(account.identity) }),
      systemData: { createdAt: iso(account.createdAt) },
      properties: {
        provisioningState: account.state,
        ...(ready ? { documentEndpoint: `https://${account.name}.documents.azure.com:443/` } : {}),
        databaseAccountOfferType: 'Standard',
        instanceId: account.instanceId,
        createMode: account.createMode,
        ...(account.restoreParameters === undefined
          ? {}
          : { restoreParameters: structuredClone(account.restoreParameters) }),
        capabilities: capabilitiesOf(account.api),
        publicNetworkAccess: account.publicNetworkAccess,
        ipRules: account.ipRules.map((ipAddressOrRange) => ({ ipAddressOrRange })),
        virtualNetworkRules: [],
        isVirtualNetworkFilterEnabled: false,
        enableMultipleWriteLocations: account.multipleWriteLocations,
        ...(account.keyVaultKeyUri === undefined ? {} : { keyVaultKeyUri: account.keyVaultKeyUri }),
        ...(account.defaultIdentity === undefined ? {} : { defaultIdentity: account.defaultIdentity }),
        backupPolicy: structuredClone(account.backupPolicy),
        locations: account.regions.map(location),
        writeLocations: account.regions.slice(0, account.multipleWriteLocations ? undefined : 1).map(location),
        readLocations: account.regions.map(location),
      },
    };
  };

  const begin = (location: string, duration: number, work: Pick<SimulatedWork, 'apply' | 'error' | 'result'>) => {
    const id = randomUUID();
    state.work.set(id, { id, location, begunAt: now(), endsAt: now() + duration, done: false, ...work });
    const base = `${state.links}/subscriptions/${COSMOS_SANDBOX.subscription}/providers/Microsoft.DocumentDB/locations/${location.toLowerCase().replaceAll(' ', '')}`;
    const query = `?api-version=${API_VERSION}&t=638000000000000000&s=simulated`;
    return {
      'azure-asyncoperation': `${base}/operationsStatus/${id}${query}`,
      location: `${base}/operationResults/${id}${query}`,
    };
  };

  const listed = (url: URL, all: readonly JsonObject[]): SimulatorResponse => {
    const skip = Number(url.searchParams.get('$skiptoken') ?? '0');
    if (!Number.isInteger(skip) || skip < 0) throw new Refusal(400, 'InvalidParameter', 'The skip token is invalid.');
    const value = all.slice(skip, skip + state.pageSize);
    const end = skip + value.length;
    const next = new URL(`${state.links}${url.pathname}`);
    next.searchParams.set('api-version', API_VERSION);
    for (const [name, text] of url.searchParams) next.searchParams.set(name, text);
    next.searchParams.set('$skiptoken', String(end));
    return { status: 200, body: { value, ...(end < all.length ? { nextLink: next.href } : {}) } };
  };

  const lifeOf = (location: string, instanceId: string): SimulatedLife => {
    const life = state.lives.find((one) => one.instanceId === instanceId && isThere(one));
    if (life !== undefined && same(life.location, location)) return life;
    throw new Refusal(404, 'NotFound', 'The restorable database account was not found.');
  };

  const contentAt = (life: SimulatedLife, location: string | null, stamp: string | null): CosmosContent => {
    const at = stamp === null ? now() : Date.parse(stamp);
    const region = location === null ? life.regions[0] : life.regions.find((one) => same(one.name, location));
    if (
      Number.isNaN(at) ||
      region === undefined ||
      at < oldest(life) - 1000 ||
      at > (life.deletedAt ?? now()) ||
      at < region.createdAt ||
      at >= (region.deletedAt ?? Number.POSITIVE_INFINITY)
    ) {
      throw new Refusal(400, 'BadRequest', 'Invalid restore timestamp or location for the restorable account.');
    }
    return life.history.findLast((entry) => entry.at <= at)?.content ?? {};
  };

  const events = (life: SimulatedLife, kind: string, rid: string | undefined): JsonObject[] =>
    eventsOf(life)
      .filter((event) => (rid === undefined ? event.container === undefined : event.databaseRid === rid))
      .filter((event) => rid === undefined || event.container !== undefined)
      .map((event) => {
        const own = event.container === undefined ? event.databaseRid : event.rid;
        const name = event.container ?? event.database;
        const member = kind === 'sql' ? (event.container === undefined ? 'database' : 'container') : undefined;
        const id = randomUUID();
        return {
          id: `${lifeId(life)}/events/${id}`,
          name: id,
          type: 'Microsoft.DocumentDB/locations/restorableDatabaseAccounts/events',
          properties: {
            resource: {
              _rid: own,
              operationType: event.operation,
              ...(event.operation === 'Delete' ? { canUndelete: 'true' } : {}),
              eventTimestamp: iso(event.at),
              ownerId: name,
              ownerResourceId: own,
              ...(member === undefined ? {} : { [member]: { id: name, _rid: own } }),
            },
          },
        };
      });

  const restorable = (request: SimulatorRequest, location: string, instanceId: string, feed: string) => {
    const { url } = request;
    need('locations/restorableDatabaseAccounts/*/read');
    const life = lifeOf(location, instanceId);
    const parameter = (name: string): string => {
      const rid = url.searchParams.get(name);
      if (rid === null || rid === '') throw new Refusal(400, 'BadRequest', `The query parameter ${name} is missing.`);
      return rid;
    };
    const of = (api: CosmosApi): void => {
      if (life.api !== api) throw new Refusal(400, 'BadRequest', `The account is not one of the ${api} API.`);
    };
    const then = (): CosmosContent =>
      contentAt(life, url.searchParams.get('restoreLocation'), url.searchParams.get('restoreTimestampInUtc'));
    const whole = (member: string): JsonObject[] =>
      Object.entries(then()).map(([databaseName, containers]) => ({
        id: `${lifeId(life)}/${feed}/${databaseName}`,
        name: databaseName,
        type: `Microsoft.DocumentDB/locations/restorableDatabaseAccounts/${feed}`,
        databaseName,
        [member]: Object.keys(containers),
      }));
    switch (feed) {
      case 'restorableSqlDatabases':
        of('Sql');
        return listed(url, events(life, 'sql', undefined));
      case 'restorableSqlContainers':
        of('Sql');
        return listed(url, events(life, 'sql', parameter('restorableSqlDatabaseRid')));
      case 'restorableSqlResources':
        of('Sql');
        return listed(url, whole('collectionNames'));
      case 'restorableMongodbDatabases':
        of('MongoDB');
        return listed(url, events(life, 'mongodb', undefined));
      case 'restorableMongodbCollections':
        of('MongoDB');
        return listed(url, events(life, 'mongodb', parameter('restorableMongodbDatabaseRid')));
      case 'restorableMongodbResources':
        of('MongoDB');
        return listed(url, whole('collectionNames'));
      case 'restorableGremlinDatabases':
        of('Gremlin');
        return listed(url, events(life, 'gremlin', undefined));
      case 'restorableGraphs':
        of('Gremlin');
        return listed(url, events(life, 'gremlin', parameter('restorableGremlinDatabaseRid')));
      case 'restorableGremlinResources':
        of('Gremlin');
        return listed(url, whole('graphNames'));
      case 'restorableTables':
        of('Table');
        return listed(url, events(life, 'table', tablesRid(life)));
      case 'restorableTableResources':
        of('Table');
        return listed(
          url,
          Object.keys(then()[''] ?? {}).map((name) => ({ id: `${lifeId(life)}/${feed}/${name}`, name, type: feed })),
        );
      default:
        throw new Refusal(404, 'InvalidResourceType', 'The resource type could not be found.');
    }
  };

  const put = (group: string, name: string, body: JsonObject): SimulatorResponse => {
    need('databaseAccounts/write');
    const [refusal] = state.refuseNext.splice(0, 1);
    if (refusal !== undefined) {
      throw new Refusal(refusal.status, refusal.code, refusal.message, refusal.additionalInfo);
    }
    const properties = isObject(body['properties']) ? (body['properties'] as JsonObject) : {};
    const locations = Array.isArray(properties['locations']) ? (properties['locations'] as JsonObject[]) : [];
    if (properties['databaseAccountOfferType'] !== 'Standard' || locations.length === 0) {
      throw new Refusal(400, 'BadRequest', 'locations and databaseAccountOfferType are required.');
    }
    const existing = state.accounts.get(name);
    // A PUT onto an account that exists is an update of it.
    if (existing !== undefined && same(existing.group, group)) {
      existing.tags = { ...(body['tags'] as Record<string, string> | undefined) };
      existing.publicNetworkAccess = String(properties['publicNetworkAccess'] ?? existing.publicNetworkAccess);
      return { status: 200, body: accountBody(existing) };
    }
    if (existing !== undefined) {
      throw new Refusal(400, 'BadRequest', `Dns record for ${name} under zone Document is already taken.`);
    }
    if (properties['createMode'] !== 'Restore') {
      throw new Refusal(400, 'BadRequest', 'This simulator creates accounts by restore only.');
    }
    return restore(group, name, body, properties, String(locations[0]?.['locationName']));
  };

  const restore = (
    group: string,
    name: string,
    body: JsonObject,
    properties: JsonObject,
    location: string,
  ): SimulatorResponse => {
    need('locations/restorableDatabaseAccounts/restore/action');
    const parameters = isObject(properties['restoreParameters']) ? (properties['restoreParameters'] as JsonObject) : {};
    const life = state.lives.find(
      (one) => isThere(one) && lifeId(one).toLowerCase() === String(parameters['restoreSource']).toLowerCase(),
    );
    if (life === undefined || parameters['restoreMode'] !== 'PointInTime') {
      throw new Refusal(400, 'BadRequest', 'The restore source was not found.');
    }
    const kind = life.api === 'MongoDB' ? 'MongoDB' : 'GlobalDocumentDB';
    const given = JSON.stringify(properties['capabilities'] ?? []);
    if (body['kind'] !== kind || given !== JSON.stringify(capabilitiesOf(life.api)) || life.api === 'Cassandra') {
      throw new Refusal(400, 'BadRequest', 'The kind of the target account does not match the source.');
    }
    const content = contentAt(life, location, String(parameters['restoreTimestampInUtc']));
    const restored = narrowed(content, life.api, parameters);
    if (parameters['restoreWithTtlDisabled'] !== true) {
      for (const [database, containers] of Object.entries(restored)) {
        for (const container of Object.keys(containers)) {
          containers[container] = (containers[container] ?? 0) - (life.expired[`${database}/${container}`] ?? 0);
        }
      }
    }
    const account: SimulatedAccount = {
      ...fresh(name, life.api, location, randomUUID(), now()),
      group,
      state: 'Initializing',
      tags: { ...(body['tags'] as Record<string, string> | undefined) },
      backupPolicy: structuredClone((properties['backupPolicy'] as JsonObject | undefined) ?? { type: 'Continuous' }),
      publicNetworkAccess: String(properties['publicNetworkAccess'] ?? 'Enabled'),
      createMode: 'Restore',
      restoreParameters: structuredClone(parameters),
      ...(typeof properties['keyVaultKeyUri'] === 'string' ? { keyVaultKeyUri: properties['keyVaultKeyUri'] } : {}),
      ...(typeof properties['defaultIdentity'] === 'string' ? { defaultIdentity: properties['defaultIdentity'] } : {}),
      ...(isObject(body['identity']) ? { identity: structuredClone(body['identity'] as JsonObject) } : {}),
      content: {},
    };
    const [failure] = state.failNext.splice(0, 1);
    const headers = begin(location, state.durations.restore, {
      ...(failure === undefined ? {} : { error: { code: failure, message: 'The restore failed in the simulator.' } }),
      apply: () => {
        account.state = failure === undefined ? 'Succeeded' : 'Failed';
        if (failure !== undefined) return;
        account.content = restored;
        state.lives.push(lifeFor(account, account.createdAt, 30));
      },
    });
    state.accounts.set(name, account);
    return { status: 200, headers: { ...headers, 'retry-after': '10' }, body: accountBody(account) };
  };

  const patch = (group: string, name: string, body: JsonObject): SimulatorResponse => {
    need('databaseAccounts/write');
    const account = find(group, name);
    const [refusal] = state.refuseNext.splice(0, 1);
    if (refusal !== undefined) {
      throw new Refusal(refusal.status, refusal.code, refusal.message, refusal.additionalInfo);
    }
    const properties = isObject(body['properties']) ? (body['properties'] as JsonObject) : {};
    const policy = properties['backupPolicy'];
    if (!isObject(policy) || Object.keys(properties).length !== 1 || Object.keys(body).length !== 1) {
      throw new Refusal(400, 'BadRequest', 'This simulator updates backup policies only.');
    }
    const migration = account.backupPolicy['migrationState'] as JsonObject | undefined;
    if (account.state !== 'Succeeded' || migration?.['status'] === 'InProgress') {
      throw new Refusal(
        412,
        'PreconditionFailed',
        `There is already an operation in progress which requires exclusive lock on this account ${name}. Please retry the operation after sometime.`,
      );
    }
    const wanted = checkedPolicy(policy as JsonObject, account.backupPolicy);
    const migrates = wanted['type'] !== account.backupPolicy['type'];
    if (migrates) {
      const startTime = iso(now());
      account.backupPolicy = {
        ...account.backupPolicy,
        migrationState: { status: 'InProgress', targetType: 'Continuous', startTime },
      };
    }
    account.state = 'Updating';
    const [failure] = state.failNext.splice(0, 1);
    const headers = begin(account.location, migrates ? state.durations.migration : state.durations.update, {
      ...(failure === undefined ? {} : { error: { code: failure, message: 'The update failed in the simulator.' } }),
      apply: () => {
        account.state = 'Succeeded';
        const running = account.backupPolicy['migrationState'] as JsonObject | undefined;
        if (failure !== undefined) {
          if (migrates)
            account.backupPolicy = { ...account.backupPolicy, migrationState: { ...running, status: 'Failed' } };
          return;
        }
        account.backupPolicy = {
          ...wanted,
          ...(migrates ? { migrationState: { ...running, status: 'Completed' } } : {}),
        };
        reach(account, migrates);
      },
    });
    return { status: 200, headers: { ...headers, 'retry-after': '10' }, body: accountBody(account) };
  };

  // What a new policy does to the window: a shorter one loses the older moments at once, a longer one fills up from now.
  const reach = (account: SimulatedAccount, migrated: boolean): void => {
    if (account.backupPolicy['type'] !== 'Continuous') return;
    const { tier } = account.backupPolicy['continuousModeProperties'] as { tier: string };
    const days = tier === 'Continuous7Days' ? 7 : 30;
    const known = state.lives.find((one) => one.instanceId === account.instanceId);
    const life = known ?? lifeFor(account, account.createdAt, days);
    if (known === undefined) state.lives.push(life);
    life.reachesFrom = migrated ? now() : oldest(life);
    life.days = days;
  };

  const operation = (kind: string, id: string): SimulatorResponse => {
    need('locations/operationsStatus/read');
    const work = state.work.get(id);
    if (work === undefined) throw new Refusal(404, 'NotFound', 'The operation was not found.');
    if (kind === 'operationresults') {
      if (!work.done) return { status: 202, headers: { 'retry-after': '1' } };
      return work.result === undefined ? { status: 204 } : { status: 200, body: work.result() };
    }
    const status = !work.done
      ? now() < work.begunAt + 500
        ? 'Enqueued'
        : 'InProgress'
      : work.error === undefined
        ? 'Succeeded'
        : 'Failed';
    return {
      status: 200,
      headers: work.done ? {} : { 'retry-after': '10' },
      body: { id, name: id, status, ...(work.done && work.error !== undefined ? { error: work.error } : {}) },
    };
  };

  const children = (request: SimulatorRequest, account: SimulatedAccount, path: readonly string[]) => {
    const { method, url } = request;
    const [collection = '', database, containers, container, action] = path;
    const api = { sqlDatabases: 'Sql', mongodbDatabases: 'MongoDB', gremlinDatabases: 'Gremlin', tables: 'Table' }[
      collection
    ];
    const inner = { Sql: 'containers', MongoDB: 'collections', Gremlin: 'graphs' }[api ?? ''];
    if (api === undefined) throw new Refusal(404, 'InvalidResourceType', 'The resource type could not be found.');
    if (api !== account.api) throw new Refusal(400, 'BadRequest', 'The API of the account is another one.');
    const child = (kind: string, parent: string, name: string): JsonObject => ({
      id: `${parent}/${name}`,
      name,
      type: `${TYPE}/${kind}`,
      properties: {
        resource: { id: name, _rid: ridOf(name), _ts: Math.floor(account.createdAt / 1000), _etag: '"1"' },
      },
    });
    const parent = `${accountId(account)}/${collection}`;
    const last = path.at(-1);
    if (method === 'POST' && last === 'retrieveContinuousBackupInformation') {
      need('databaseAccounts/*/retrieveContinuousBackupInformation/action');
      const name = api === 'Table' ? database : container;
      const there = account.content[api === 'Table' ? '' : (database ?? '')] ?? {};
      if (name === undefined || there[name] === undefined || (api !== 'Table' && action !== last)) {
        throw new Refusal(404, 'NotFound', 'The container was not found.');
      }
      if (!isObject(request.json) || typeof request.json['location'] !== 'string') {
        throw new Refusal(400, 'BadRequest', 'The location is missing.');
      }
      if (account.backupPolicy['type'] !== 'Continuous') {
        throw new Refusal(400, 'BadRequest', 'The account has no continuous backup.');
      }
      const headers = begin(account.location, state.durations.latest, {
        apply: () => {},
        result: () => ({ continuousBackupInformation: { latestRestorableTimestamp: stampOf(now() - 60_000) } }),
      });
      return { status: 202, headers: { ...headers, 'retry-after': '1' }, body: {} };
    }
    if (method !== 'GET') throw new Refusal(405, 'HttpMethodNotAllowed', 'The method is not allowed.');
    need('databaseAccounts/*/read');
    if (api === 'Table' && path.length === 1) {
      return listed(
        url,
        Object.keys(account.content[''] ?? {}).map((name) => child(collection, parent, name)),
      );
    }
    if (path.length === 1) {
      return listed(
        url,
        Object.keys(account.content).map((name) => child(collection, parent, name)),
      );
    }
    if (path.length === 3 && containers === inner && database !== undefined) {
      const there = account.content[database];
      if (there === undefined) throw new Refusal(404, 'NotFound', 'The database was not found.');
      return listed(
        url,
        Object.keys(there).map((name) => child(`${collection}/${inner}`, `${parent}/${database}/${inner}`, name)),
      );
    }
    throw new Refusal(404, 'InvalidResourceType', 'The resource type could not be found.');
  };

  const stampOf = (at: number): string => {
    if (!state.american) return iso(Math.floor(at / 1000) * 1000).replace('.000Z', 'Z');
    const date = new Date(at);
    const hours = date.getUTCHours();
    const two = (value: number): string => String(value).padStart(2, '0');
    return `${date.getUTCMonth() + 1}/${date.getUTCDate()}/${date.getUTCFullYear()} ${hours % 12 || 12}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())} ${hours < 12 ? 'AM' : 'PM'}`;
  };

  // What the caller's roles allow on an account or in a group: everything but what a test denies.
  const permissionsOf = ({ method, url }: SimulatorRequest): SimulatorResponse => {
    if (method !== 'GET' || url.searchParams.get('api-version') !== AUTHORIZATION_VERSION) {
      throw new Refusal(400, 'InvalidApiVersionParameter', 'The api-version is invalid.');
    }
    const notActions = [...state.denied].map((permission) => `Microsoft.DocumentDB/${permission}`);
    const value = [{ actions: ['Microsoft.DocumentDB/*'], notActions, dataActions: [], notDataActions: [] }];
    return { status: 200, body: { value } };
  };

  const subscriptions = ({ method, url }: SimulatorRequest): SimulatorResponse => {
    if (method !== 'GET' || url.searchParams.get('api-version') !== SUBSCRIPTIONS_VERSION) {
      throw new Refusal(400, 'InvalidApiVersionParameter', 'The api-version is invalid.');
    }
    const { subscription: subscriptionId } = COSMOS_SANDBOX;
    const one = { id: `/subscriptions/${subscriptionId}`, subscriptionId, displayName: 'Sandbox', state: 'Enabled' };
    return { status: 200, body: { value: [one] } };
  };

  const route = (request: SimulatorRequest): SimulatorResponse => {
    const { method, url } = request;
    if (PERMISSIONS.test(url.pathname)) return permissionsOf(request);
    if (url.pathname === '/subscriptions') return subscriptions(request);
    const segments = url.pathname.split('/').slice(1).map(decodeURIComponent);
    const version = url.searchParams.get('api-version');
    if (version === null) {
      throw new Refusal(400, 'MissingApiVersionParameter', 'The api-version query parameter is required.');
    }
    if (version !== API_VERSION) {
      throw new Refusal(400, 'InvalidApiVersionParameter', 'The api-version is invalid.');
    }
    if (segments.some((segment) => segment === '')) {
      throw new Refusal(404, 'InvalidResourceType', 'The resource type could not be found.');
    }
    if (method === 'PUT' || method === 'POST' || method === 'PATCH') {
      const type = request.headers['content-type'] ?? '';
      if (!type.startsWith('application/json') || !isObject(request.json)) {
        throw new Refusal(400, 'InvalidRequestContent', 'The request content was invalid and could not be read.');
      }
    }
    if (segments[0] === 'providers') {
      const [, , collection, name = ''] = segments;
      if (method !== 'HEAD' || collection !== 'databaseAccountNames' || segments.length !== 4) {
        throw new Refusal(404, 'InvalidResourceType', 'The resource type could not be found.');
      }
      need('databaseAccountNames/read');
      return { status: state.accounts.has(name) ? 200 : 404 };
    }
    const [, subscription = '', ...rest] = segments;
    if (!same(subscription, COSMOS_SANDBOX.subscription)) {
      throw new Refusal(404, 'SubscriptionNotFound', `The subscription '${subscription}' could not be found.`);
    }
    if (rest[0]?.toLowerCase() === 'resourcegroups') {
      const [, group = '', , , collection, name, ...path] = rest;
      if (collection !== 'databaseAccounts' || name === undefined) {
        throw new Refusal(404, 'InvalidResourceType', 'The resource type could not be found.');
      }
      if (path.length > 0) return children(request, find(group, name), path);
      if (method === 'PUT') return put(group, name, request.json as JsonObject);
      if (method === 'PATCH') return patch(group, name, request.json as JsonObject);
      if (method !== 'GET') throw new Refusal(405, 'HttpMethodNotAllowed', 'The method is not allowed.');
      need('databaseAccounts/read');
      return { status: 200, body: accountBody(find(group, name)) };
    }
    const [, , collection, location = '', kind, id = '', feed, ...more] = rest;
    if (method !== 'GET' || more.length > 0) {
      throw new Refusal(405, 'HttpMethodNotAllowed', 'The method is not allowed.');
    }
    if (collection === 'databaseAccounts' && rest.length === 3) {
      need('databaseAccounts/read');
      return listed(url, [...state.accounts.values()].map(accountBody));
    }
    if (collection === 'restorableDatabaseAccounts' && rest.length === 3) {
      need('locations/restorableDatabaseAccounts/read');
      return listed(url, state.lives.filter(isThere).map(lifeBody));
    }
    if (collection === 'locations' && /^operation(sstatus|results)$/i.test(kind ?? '') && feed === undefined) {
      return operation(String(kind).toLowerCase(), id);
    }
    if (collection === 'locations' && kind === 'restorableDatabaseAccounts' && feed !== undefined) {
      return restorable(request, location, id, feed);
    }
    throw new Refusal(404, 'InvalidResourceType', 'The resource type could not be found.');
  };

  return {
    provider: 'azure-cosmos',
    state,
    matches: ({ url }) =>
      url.pathname === '/subscriptions' ||
      PERMISSIONS.test(url.pathname) ||
      /^\/(subscriptions\/[^/]+\/.*)?providers\/Microsoft\.DocumentDB\//i.test(url.pathname),
    writes: ({ method, url }) =>
      !['GET', 'HEAD'].includes(method) && !url.pathname.endsWith('/retrieveContinuousBackupInformation'),
    handle(request) {
      settle();
      const requestId = { 'x-ms-request-id': randomUUID() };
      try {
        const authorization = request.headers['authorization'] ?? '';
        if (!/^Bearer \S+$/.test(authorization) || state.unauthenticated) {
          throw new Refusal(
            401,
            authorization === '' ? 'AuthenticationFailed' : 'InvalidAuthenticationToken',
            'Authentication failed.',
          );
        }
        const answer = route(request);
        return { ...answer, headers: { ...requestId, ...answer.headers } };
      } catch (cause) {
        if (!(cause instanceof Refusal)) throw cause;
        const { status, code, additionalInfo } = cause;
        // A HEAD is answered without a body.
        if (request.method === 'HEAD') return { status, headers: requestId };
        const message = code === 'BadRequest' ? `${cause.message}\r\nActivityId: ${randomUUID()}` : cause.message;
        const error = { code, message, ...(additionalInfo === undefined ? {} : { additionalInfo }) };
        return { status, headers: requestId, body: state.flatErrors ? error : { error } };
      }
    },
  };
}

/** Gives the policy that an update asks for, or refuses it as the service does. */
function checkedPolicy(wanted: JsonObject, actual: JsonObject): JsonObject {
  const no = (message: string): Refusal => new Refusal(400, 'BadRequest', message);
  if (wanted['type'] === 'Continuous') {
    const properties = (wanted['continuousModeProperties'] ?? {}) as JsonObject;
    const tier = properties['tier'] ?? 'Continuous30Days';
    if (tier !== 'Continuous7Days' && tier !== 'Continuous30Days') throw no('The continuous tier is invalid.');
    return { type: 'Continuous', continuousModeProperties: { tier } };
  }
  if (wanted['type'] !== 'Periodic') throw no('The backup policy type is invalid.');
  if (actual['type'] === 'Continuous') {
    throw no('Continuous backup mode cannot be disabled once it is enabled on the account.');
  }
  const properties = {
    ...(actual['periodicModeProperties'] as JsonObject),
    ...((wanted['periodicModeProperties'] ?? {}) as JsonObject),
  };
  const minutes = Number(properties['backupIntervalInMinutes']);
  const hours = Number(properties['backupRetentionIntervalInHours']);
  if (!Number.isInteger(minutes) || minutes < 60 || minutes > 1440) throw no('The backup interval is out of range.');
  if (!Number.isInteger(hours) || hours < 8 || hours > 720) throw no('The backup retention is out of range.');
  if (hours * 60 < 2 * minutes) throw no('The backup retention must be at least twice the backup interval.');
  if (!['Geo', 'Local', 'Zone'].includes(String(properties['backupStorageRedundancy']))) {
    throw no('The backup storage redundancy is invalid.');
  }
  return { type: 'Periodic', periodicModeProperties: properties };
}

function same(a: string, b: string): boolean {
  return a.replaceAll(' ', '').toLowerCase() === b.replaceAll(' ', '').toLowerCase();
}

function capabilitiesOf(api: CosmosApi): JsonObject[] {
  return api === 'Sql' || api === 'MongoDB' ? [] : [{ name: `Enable${api}` }];
}

function ridOf(name: string): string {
  return Buffer.from(name).toString('base64url').slice(0, 12);
}

function tablesRid(life: SimulatedLife): string {
  return `${ridOf(life.accountName)}==1`;
}

interface LifeEvent {
  at: number;
  operation: 'Create' | 'Delete';
  database: string;
  databaseRid: string;
  container?: string;
  rid?: string;
}

/** Reads the events off the history: what is made again under its old name has a new id. */
function eventsOf(life: SimulatedLife): LifeEvent[] {
  const found: LifeEvent[] = [];
  const made = new Map<string, number>();
  const current = new Map<string, string>();
  const make = (key: string, base: string): string => {
    const count = (made.get(key) ?? 0) + 1;
    made.set(key, count);
    const rid = `${ridOf(base)}==${count}`;
    current.set(key, rid);
    return rid;
  };
  let before: CosmosContent = {};
  for (const { at, content } of life.history) {
    for (const database of new Set([...Object.keys(before), ...Object.keys(content)])) {
      const [was, is] = [before[database], content[database]];
      if (was === undefined) {
        const base = database === '' ? life.accountName : database;
        found.push({ at, operation: 'Create', database, databaseRid: make(database, base) });
      }
      const databaseRid = current.get(database) as string;
      for (const container of new Set([...Object.keys(was ?? {}), ...Object.keys(is ?? {})])) {
        const key = `${database}/${container}`;
        const [had, has] = [was?.[container] !== undefined, is?.[container] !== undefined];
        if (!had && has) {
          const rid = make(key, key);
          found.push({ at, operation: 'Create', database, databaseRid, container, rid });
        } else if (had && !has) {
          const rid = current.get(key) as string;
          found.push({ at, operation: 'Delete', database, databaseRid, container, rid });
        }
      }
      if (is === undefined) found.push({ at, operation: 'Delete', database, databaseRid });
    }
    before = content;
  }
  return found;
}

/** Gives the part of a content that a restore asks for. */
function narrowed(content: CosmosContent, api: CosmosApi, parameters: JsonObject): CosmosContent {
  const whole = structuredClone(content);
  const tables = parameters['tablesToRestore'];
  const databases = parameters['databasesToRestore'] ?? parameters['gremlinDatabasesToRestore'];
  const fits = api === 'Table' ? databases === undefined : tables === undefined;
  const right = api === 'Gremlin' ? 'gremlinDatabasesToRestore' : 'databasesToRestore';
  if (!fits || (databases !== undefined && parameters[right] === undefined)) {
    throw new Refusal(400, 'BadRequest', 'The resources to restore are not those of the API of the account.');
  }
  const missing = (): Refusal => new Refusal(400, 'BadRequest', 'A resource to restore did not exist at that time.');
  if (Array.isArray(tables)) {
    const there = whole[''] ?? {};
    return {
      '': Object.fromEntries(
        tables.map((name) => {
          if (there[String(name)] === undefined) throw missing();
          return [String(name), there[String(name)] as number];
        }),
      ),
    };
  }
  if (!Array.isArray(databases)) return whole;
  return Object.fromEntries(
    (databases as JsonObject[]).map((wanted) => {
      const name = String(wanted['databaseName']);
      const there = whole[name];
      if (there === undefined) throw missing();
      const names = (wanted['collectionNames'] ?? wanted['graphNames']) as string[] | undefined;
      if (names === undefined) return [name, there];
      return [
        name,
        Object.fromEntries(
          names.map((container) => {
            if (there[container] === undefined) throw missing();
            return [container, there[container] as number];
          }),
        ),
      ];
    }),
  );
}

function fresh(name: string, api: CosmosApi, location: string, instanceId: string, at: number): SimulatedAccount {
  return {
    name,
    group: COSMOS_SANDBOX.group,
    location,
    api,
    instanceId,
    createdAt: at,
    state: 'Succeeded',
    tags: {},
    backupPolicy: { type: 'Continuous', continuousModeProperties: { tier: 'Continuous30Days' } },
    publicNetworkAccess: 'Enabled',
    ipRules: [],
    regions: [location],
    multipleWriteLocations: false,
    createMode: 'Default',
    content: {},
  };
}

function lifeFor(account: SimulatedAccount, at: number, days: number): SimulatedLife {
  return {
    instanceId: account.instanceId,
    accountName: account.name,
    api: account.api,
    location: account.location,
    createdAt: at,
    days,
    regions: account.regions.map((name) => ({ name, createdAt: at })),
    history: [{ at, content: structuredClone(account.content) }],
    expired: {},
  };
}

function seed(state: CosmosState, now: number): void {
  const put = (account: SimulatedAccount, history: [number, CosmosContent][], days = 30): SimulatedLife => {
    const life = lifeFor(account, account.createdAt, days);
    life.history = history.map(([at, content]) => ({ at, content }));
    account.content = structuredClone(history.at(-1)?.[1] ?? {});
    state.accounts.set(account.name, account);
    state.lives.push(life);
    return life;
  };
  const { account, location } = COSMOS_SANDBOX;

  // Well kept: thirty days back, two regions, behind a firewall.
  const orders = fresh(account, 'Sql', location, COSMOS_SANDBOX.source, now - 20 * DAY);
  orders.regions = [location, 'North Europe'];
  orders.ipRules = ['203.0.113.0/24'];
  orders.tags = { environment: 'sandbox' };
  const life = put(orders, [
    [now - 20 * DAY, { shop: { orders: 41_000, customers: 900, sessions: 12 }, legacy: { imports: 7 } }],
    [now - 10 * DAY, { shop: { orders: 45_200, customers: 1100, sessions: 44 }, reporting: { daily: 20 } }],
    [now - 2 * DAY, { shop: { orders: 47_900, customers: 1195, carts: 300 } }],
    [now - DAY, { shop: { orders: 48_100, customers: 1198, carts: 310 }, reporting: { daily: 1 } }],
    [now - 2 * HOUR, { shop: { orders: 48_210, customers: 1200, carts: 322 }, reporting: { daily: 2 } }],
  ]);
  life.expired = { 'shop/carts': 120 };
  // Before it was made again under the same name.
  const earlier = fresh(account, 'Sql', location, COSMOS_SANDBOX.deletedSource, now - 400 * DAY);
  state.lives.push({
    ...lifeFor(earlier, earlier.createdAt, 30),
    deletedAt: now - 21 * DAY,
    history: [{ at: earlier.createdAt, content: { shop: { orders: 40_100, customers: 870 } } }],
  });

  const mongo = fresh('events-mongo', 'MongoDB', 'East US', COSMOS_SANDBOX.mongo, now - 90 * DAY);
  mongo.backupPolicy = { type: 'Continuous', continuousModeProperties: { tier: 'Continuous7Days' } };
  mongo.publicNetworkAccess = 'Disabled';
  put(
    mongo,
    [
      [now - 90 * DAY, { events: { clicks: 10, 'page.views': 20 } }],
      [now - 3 * DAY, { events: { clicks: 90_000, 'page.views': 120_000 }, archive: { old: 5 } }],
    ],
    7,
  );
  put(fresh('social-graph', 'Gremlin', 'East US', COSMOS_SANDBOX.gremlin, now - 40 * DAY), [
    [now - 40 * DAY, { people: { friends: 500, follows: 800 } }],
  ]);
  put(fresh('stock-tables', 'Table', 'East US', COSMOS_SANDBOX.table, now - 40 * DAY), [
    [now - 40 * DAY, { '': { inventory: 70, prices: 30 } }],
    [now - 4 * DAY, { '': { inventory: 75 } }],
  ]);
  put(fresh('metrics-cassandra', 'Cassandra', 'East US', COSMOS_SANDBOX.cassandra, now - 40 * DAY), [
    [now - 40 * DAY, { metrics: { samples: 9 } }],
  ]);

  // Badly protected: backups of hours, in one place, restored by a ticket only.
  const legacy = fresh('legacy-cosmos', 'Sql', location, randomUUID(), now - 900 * DAY);
  legacy.backupPolicy = {
    type: 'Periodic',
    periodicModeProperties: {
      backupIntervalInMinutes: 240,
      backupRetentionIntervalInHours: 8,
      backupStorageRedundancy: 'Local',
    },
  };
  legacy.content = { shop: { items: 900 } };
  state.accounts.set(legacy.name, legacy);

  // Made by a restore three days ago.
  const audit = fresh(COSMOS_SANDBOX.restored, 'Sql', location, randomUUID(), now - 3 * DAY);
  audit.publicNetworkAccess = 'Disabled';
  audit.createMode = 'Restore';
  audit.restoreParameters = {
    restoreMode: 'PointInTime',
    restoreSource: `/subscriptions/${COSMOS_SANDBOX.subscription}/providers/Microsoft.DocumentDB/locations/${location.replaceAll(' ', '')}/restorableDatabaseAccounts/${COSMOS_SANDBOX.source}`,
    restoreTimestampInUtc: new Date(Math.floor((now - 5 * DAY) / 1000) * 1000).toISOString(),
    restoreWithTtlDisabled: true,
  };
  put(audit, [[now - 3 * DAY, { shop: { orders: 46_000, customers: 1150, sessions: 40 }, reporting: { daily: 19 } }]]);

  const elsewhere = fresh('someone-elses', 'Sql', 'East US', randomUUID(), now - 30 * DAY);
  elsewhere.group = 'other-group';
  put(elsewhere, [[now - 30 * DAY, { private: { notes: 1 } }]]);
}
