import type {
  BackupPolicyUnion,
  CosmosDBManagementClient,
  DatabaseAccountCreateUpdateParameters,
} from '@azure/arm-cosmosdb';
import { HoldfastError } from '../../core/errors.ts';
import { isObject } from '../../core/json.ts';
import type { Runtime } from '../../core/runtime.ts';
import { listOf, textOf, type Wire } from '../../core/wire.ts';
import { type AzureCloud, type AzureCredentialFields, azureAuthorizer } from '../azure.ts';
import { azureHttpClient } from '../azure-transport.ts';
import {
  type Account,
  type Addressed,
  checkAccountName,
  checkChildName,
  checkInstanceId,
  checkLocation,
  FailedAnswer,
  type Inventory,
  instant,
  type OperationState,
  provesAbsence,
  type ResourceEvent,
  type RestorableApi,
  type Source,
  toCosmosError,
  toEvent,
  toOperation,
  toSource,
} from './map.ts';

/** What is known of an account name: the names of accounts are unique in all of Azure. */
export type Existence =
  | { state: 'exists'; account: Account }
  /** Not in the entity's resource group as far as can be seen, and not free either. */
  | { state: 'taken' }
  | { state: 'missing' }
  | { state: 'unknown'; error: HoldfastError };

interface FirstAnswer {
  status: number;
  headers: { get(name: string): string | undefined };
  parsedBody?: unknown;
}

interface FirstOptions {
  abortSignal: AbortSignal;
  onResponse: (answer: FirstAnswer) => void;
}

/** What a role allows: `actions` without `not_actions`, patterns both. */
export interface RolePermissions {
  readonly actions: readonly string[];
  readonly not_actions: readonly string[];
}

/** Where a restorable account is found in its own region's path. */
export type SourceRef = Pick<Source, 'pathLocation' | 'instanceId'>;

/** Typed calls of the Cosmos DB resource provider for one entity. Every name of a path is checked before it is sent. */
export interface CosmosClient {
  readonly subscription: string;
  readonly group: string;
  /** The account that the entity is. */
  readonly account: string;
  getAccount(name: string, signal: AbortSignal): Promise<Account>;
  /** Ids of the subscriptions that the caller can see. */
  subscriptions(signal: AbortSignal): Promise<string[]>;
  /** Every account of the subscription. */
  listAccounts(signal: AbortSignal): Promise<Account[]>;
  lookUp(name: string, signal: AbortSignal): Promise<Existence>;
  /** Whether any account of Azure has this name. */
  isNameTaken(name: string, signal: AbortSignal): Promise<boolean>;
  /** What the caller may do to the entity's account, or in its resource group: one entry for each role that is assigned. */
  permissions(scope: 'account' | 'group', signal: AbortSignal): Promise<RolePermissions[]>;
  /** Every restorable account of the subscription, live and deleted. */
  listSources(signal: AbortSignal): Promise<Source[]>;
  databaseEvents(source: SourceRef, api: RestorableApi, signal: AbortSignal): Promise<ResourceEvent[]>;
  /** Of the database with this rid; not for tables, which have none. */
  containerEvents(
    source: SourceRef,
    api: Exclude<RestorableApi, 'table'>,
    rid: string,
    signal: AbortSignal,
  ): Promise<ResourceEvent[]>;
  /** What was in the account at a moment. */
  inventoryAt(
    source: SourceRef,
    api: RestorableApi,
    location: string,
    at: string,
    signal: AbortSignal,
  ): Promise<Inventory>;
  /** What is in a live account now. */
  inventory(account: string, api: RestorableApi, signal: AbortSignal): Promise<Inventory>;
  /** The last moment that one container of the entity's account can be restored to; undefined where Azure does not tell. */
  latestRestorable(
    api: RestorableApi,
    database: string | null,
    container: string,
    location: string,
    signal: AbortSignal,
  ): Promise<string | undefined>;
  /** Begins the restore into a new account; gives the address of the operation where Azure names one that may be asked. */
  restore(
    target: string,
    body: DatabaseAccountCreateUpdateParameters,
    signal: AbortSignal,
  ): Promise<{ operationUrl: string | undefined }>;
  /** Begins to change how the entity's account is backed up; gives the address of the operation as `restore` does. */
  setBackupPolicy(policy: BackupPolicyUnion, signal: AbortSignal): Promise<{ operationUrl: string | undefined }>;
  operation(url: string, signal: AbortSignal): Promise<OperationState>;
}

interface AccountAddress {
  readonly subscription_id: string;
  readonly resource_group_name: string;
  readonly account_name: string;
}

const READER = 'Cosmos DB Account Reader Role';
const ACCOUNT: Addressed = {
  resource: 'account',
  permission: 'Microsoft.DocumentDB/databaseAccounts/read',
  role: READER,
  scope: 'the account',
};
const SOURCES: Addressed = {
  resource: 'restorable account',
  permission: 'Microsoft.DocumentDB/locations/restorableDatabaseAccounts/read',
  role: 'CosmosRestoreOperator',
  scope: 'the subscription or the restorable account (a resource group is not enough)',
};
const FEEDS: Addressed = {
  ...SOURCES,
  permission: 'Microsoft.DocumentDB/locations/restorableDatabaseAccounts/*/read',
};
const INVENTORY: Addressed = { ...ACCOUNT, permission: 'Microsoft.DocumentDB/databaseAccounts/*/read' };
const LATEST: Addressed = {
  ...ACCOUNT,
  permission: 'Microsoft.DocumentDB/databaseAccounts/*/retrieveContinuousBackupInformation/action',
  role: 'CosmosBackupOperator',
};
const RESTORE: Addressed = {
  resource: 'account',
  permission:
    'Microsoft.DocumentDB/databaseAccounts/write and Microsoft.DocumentDB/locations/restorableDatabaseAccounts/restore/action',
  role: 'Cosmos DB Operator with CosmosRestoreOperator',
  scope: 'the resource group of the new account and on the source restorable account',
  write: true,
};
const UPDATE: Addressed = {
  ...ACCOUNT,
  permission: 'Microsoft.DocumentDB/databaseAccounts/write',
  role: 'Cosmos DB Operator',
  write: true,
};
const OPERATION: Addressed = {
  resource: 'operation',
  permission: 'Microsoft.DocumentDB/locations/operationsStatus/read',
  role: READER,
  scope: 'the subscription',
};

const ROLES: Addressed = {
  resource: 'account',
  permission: 'Microsoft.Authorization/permissions/read',
  role: READER,
  scope: 'the resource group',
};

const SUBSCRIPTIONS: Addressed = {
  resource: 'subscription',
  permission: 'Microsoft.Resources/subscriptions/read',
  role: 'Reader',
  scope: 'the subscription',
};

const API_VERSION = '2026-03-15';
const AUTHORIZATION_VERSION = '2022-04-01';
const SUBSCRIPTIONS_VERSION = '2022-12-01';
const PAGES = 200;
/** How long one reading of a container's last restorable moment may take at Azure, in ms. */
const LATEST_PATIENCE_MS = 60_000;
const RETRIEVE = /\/retrieveContinuousBackupInformation$/;
const OPERATION_PATH =
  /^\/subscriptions\/[^/]+\/providers\/Microsoft\.DocumentDB\/locations\/[^/]+\/(operationsStatus|operationResults)\/[^/]+$/i;

/** Loads the SDK and makes the typed calls; sends nothing. */
export async function createCosmosClient(
  entity: AccountAddress & AzureCredentialFields,
  runtime: Runtime,
  { cloud, origin }: { cloud: AzureCloud; origin: string },
): Promise<CosmosClient> {
  const authorizer = azureAuthorizer(entity, runtime, cloud);
  const { CosmosDBManagementClient: Client } = await import('@azure/arm-cosmosdb');
  const group = entity.resource_group_name;

  // Links to further pages and to operations come from answers: the token follows them to no other host.
  const admit = (address: string): string => {
    const url = URL.canParse(address) ? new URL(address) : undefined;
    if (url?.origin === origin) return url.href;
    if (url?.origin === cloud.management) return `${origin}${url.pathname}${url.search}`;
    throw new HoldfastError('PROVIDER_UNAVAILABLE', 'an answer pointed to a host that is not Azure Resource Manager', {
      retryable: false,
      hint: 'Nothing was sent there. Check the endpoint of the entity and what stands between here and Azure.',
      details: { outcome: 'not_sent' },
    });
  };
  const api: CosmosDBManagementClient = new Client(
    // The transport brings the token, to the one origin alone; the SDK never holds it.
    { getToken: async () => null },
    entity.subscription_id,
    {
      endpoint: origin,
      apiVersion: API_VERSION,
      retryOptions: { maxRetries: 0 },
      redirectOptions: { maxRetries: 0 },
      httpClient: azureHttpClient(runtime, {
        admit,
        authorization: () => authorizer.header(),
        safe: (url, method) => method === 'POST' && RETRIEVE.test(new URL(url).pathname),
      }),
    },
  );
  api.pipeline.removePolicy({ name: 'bearerTokenAuthenticationPolicy' });

  const send = async <T>(addressed: Addressed, work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (cause) {
      throw toCosmosError(cause, addressed);
    }
  };

  const list = <T>(addressed: Addressed, pages: () => { byPage(): AsyncIterable<readonly T[]> }): Promise<T[]> =>
    send(addressed, async () => {
      const found: T[] = [];
      let count = 0;
      for await (const page of pages().byPage()) {
        found.push(...page);
        count += 1;
        if (count >= PAGES) {
          throw endless();
        }
      }
      return found;
    });

  const getAccount: CosmosClient['getAccount'] = (name, signal) => {
    checkAccountName(name, 'account_name');
    return send(ACCOUNT, () => api.databaseAccounts.get(group, name, { abortSignal: signal }));
  };

  /** Reads an address that was admitted. */
  const read = (url: string, addressed: Addressed, signal: AbortSignal) =>
    send(addressed, async () => {
      const answer = await runtime.fetch(url, {
        headers: { accept: 'application/json', authorization: await authorizer.header() },
        redirect: 'manual',
        signal,
      });
      const body = readJson(await answer.text());
      if (!answer.ok) throw new FailedAnswer(answer.status, body, answer.headers.get('x-ms-request-id'));
      return { status: answer.status, body, headers: answer.headers };
    });

  /** Reads a list that the SDK has no call for, over all its pages. */
  const readPages = async (path: string, addressed: Addressed, signal: AbortSignal): Promise<Wire[]> => {
    const found: Wire[] = [];
    let url = `${origin}${path}`;
    for (let page = 0; page < PAGES; page += 1) {
      const { body } = await read(url, addressed, signal);
      const wire: Wire = isObject(body) ? body : {};
      found.push(...listOf(wire['value']));
      const next = textOf(wire['nextLink']);
      if (next === undefined) return found;
      url = admit(next);
    }
    throw endless();
  };

  const ask = async (url: string, addressed: Addressed, signal: AbortSignal) => {
    const target = admit(url);
    if (!OPERATION_PATH.test(new URL(target).pathname)) {
      throw new HoldfastError('PROVIDER_UNAVAILABLE', 'Azure named an address that is no operation', {
        retryable: false,
      });
    }
    return read(target, addressed, signal);
  };

  const isTaken: CosmosClient['isNameTaken'] = async (name, signal) => {
    checkAccountName(name);
    const options = { abortSignal: signal };
    return (await send(ACCOUNT, () => api.databaseAccounts.checkNameExists(name, options))).body;
  };

  /** Sends the first request of long work and gives its answer, which the SDK's own follower keeps to itself. */
  const submit = async (
    begin: (options: FirstOptions) => { submitted(): Promise<void> },
    signal: AbortSignal,
  ): Promise<FirstAnswer | undefined> => {
    let first: FirstAnswer | undefined;
    const onResponse = (answer: FirstAnswer): void => {
      first = answer;
    };
    try {
      await begin({ abortSignal: signal, onResponse }).submitted();
      return first;
    } catch (cause) {
      if (first === undefined || first.status < 400) throw cause;
      throw new FailedAnswer(first.status, first.parsedBody, first.headers.get('x-ms-request-id') ?? null);
    }
  };

  // An address that may not be asked is no handle: the account's own state is followed then.
  const operationOf = (first: FirstAnswer | undefined): { operationUrl: string | undefined } => {
    const url = first?.headers.get('azure-asyncoperation');
    try {
      return { operationUrl: url === undefined ? undefined : admit(url) };
    } catch {
      return { operationUrl: undefined };
    }
  };

  const resources = (account: string, kind: RestorableApi, signal: AbortSignal): Promise<Inventory> => {
    const options = { abortSignal: signal };
    const names = <T extends { resource?: { id?: string }; name?: string }>(
      pages: () => { byPage(): AsyncIterable<readonly T[]> },
    ): Promise<string[]> =>
      list(INVENTORY, pages).then((items) => items.map((item) => item.resource?.id ?? item.name ?? ''));
    const nested = async (
      databases: string[],
      containers: (database: string) => Promise<string[]>,
    ): Promise<Inventory> =>
      Promise.all(
        databases.map(async (database) => ({
          database,
          containers: await containers(checkChildName(database)),
        })),
      );
    switch (kind) {
      case 'sql':
        return names(() => api.sqlResources.listSqlDatabases(group, account, options)).then((databases) =>
          nested(databases, (one) => names(() => api.sqlResources.listSqlContainers(group, account, one, options))),
        );
      case 'mongodb':
        return names(() => api.mongoDBResources.listMongoDBDatabases(group, account, options)).then((databases) =>
          nested(databases, (one) =>
            names(() => api.mongoDBResources.listMongoDBCollections(group, account, one, options)),
          ),
        );
      case 'gremlin':
        return names(() => api.gremlinResources.listGremlinDatabases(group, account, options)).then((databases) =>
          nested(databases, (one) => names(() => api.gremlinResources.listGremlinGraphs(group, account, one, options))),
        );
      case 'table':
        return names(() => api.tableResources.listTables(group, account, options)).then((containers) => [
          { database: null, containers },
        ]);
    }
  };

  return {
    subscription: entity.subscription_id,
    group,
    account: entity.account_name,
    getAccount,

    listAccounts: (signal) => list(ACCOUNT, () => api.databaseAccounts.list({ abortSignal: signal })),

    isNameTaken: isTaken,

    async permissions(scope, signal) {
      const own = `/subscriptions/${entity.subscription_id}/resourceGroups/${group}`;
      const account = `/providers/Microsoft.DocumentDB/databaseAccounts/${checkAccountName(entity.account_name)}`;
      const path = `${own}${scope === 'group' ? '' : account}/providers/Microsoft.Authorization/permissions`;
      const found = await readPages(`${path}?api-version=${AUTHORIZATION_VERSION}`, ROLES, signal);
      return found.map((one) => ({ actions: textsOf(one['actions']), not_actions: textsOf(one['notActions']) }));
    },

    async subscriptions(signal) {
      const found = await readPages(`/subscriptions?api-version=${SUBSCRIPTIONS_VERSION}`, SUBSCRIPTIONS, signal);
      return found
        .map((one) => textOf(one['subscriptionId']) ?? '')
        .filter((id) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id));
    },

    async lookUp(name, signal) {
      checkAccountName(name);
      let hidden: HoldfastError | undefined;
      try {
        return { state: 'exists', account: await getAccount(name, signal) };
      } catch (cause) {
        if (!provesAbsence(cause)) {
          if (!(cause instanceof HoldfastError) || cause.code !== 'INSUFFICIENT_PERMISSIONS') throw cause;
          hidden = cause;
        }
      }
      try {
        return { state: (await isTaken(name, signal)) ? 'taken' : 'missing' };
      } catch (cause) {
        if (!(cause instanceof HoldfastError) || cause.code !== 'INSUFFICIENT_PERMISSIONS') throw cause;
        // Absent from its group for certain: the service itself refuses a name that is taken elsewhere.
        return hidden === undefined ? { state: 'missing' } : { state: 'unknown', error: hidden };
      }
    },

    async listSources(signal) {
      const found = await list(SOURCES, () => api.restorableDatabaseAccounts.list({ abortSignal: signal }));
      return found.map(toSource).filter((source) => source !== undefined);
    },

    async databaseEvents({ pathLocation, instanceId }, kind, signal) {
      const at = [checkLocation(pathLocation), checkInstanceId(instanceId), { abortSignal: signal }] as const;
      switch (kind) {
        case 'sql':
          return (await list(FEEDS, () => api.restorableSqlDatabases.list(...at))).map(toEvent);
        case 'mongodb':
          return (await list(FEEDS, () => api.restorableMongodbDatabases.list(...at))).map(toEvent);
        case 'gremlin':
          return (await list(FEEDS, () => api.restorableGremlinDatabases.list(...at))).map(toEvent);
        case 'table':
          return (await list(FEEDS, () => api.restorableTables.list(...at))).map(toEvent);
      }
    },

    async containerEvents({ pathLocation, instanceId }, kind, rid, signal) {
      const [location, instance] = [checkLocation(pathLocation), checkInstanceId(instanceId)];
      const abortSignal = signal;
      switch (kind) {
        case 'sql': {
          const options = { abortSignal, restorableSqlDatabaseRid: rid };
          return (await list(FEEDS, () => api.restorableSqlContainers.list(location, instance, options))).map(toEvent);
        }
        case 'mongodb': {
          const options = { abortSignal, restorableMongodbDatabaseRid: rid };
          const found = await list(FEEDS, () => api.restorableMongodbCollections.list(location, instance, options));
          return found.map(toEvent);
        }
        case 'gremlin': {
          const options = { abortSignal, restorableGremlinDatabaseRid: rid };
          return (await list(FEEDS, () => api.restorableGremlinGraphs.list(location, instance, options))).map(toEvent);
        }
      }
    },

    async inventoryAt({ pathLocation, instanceId }, kind, location, at, signal) {
      const options = {
        abortSignal: signal,
        restoreLocation: checkLocation(location),
        restoreTimestampInUtc: at,
      };
      const where = [checkLocation(pathLocation), checkInstanceId(instanceId), options] as const;
      switch (kind) {
        case 'sql': {
          const found = await list(FEEDS, () => api.restorableSqlResources.list(...where));
          return found.map((one) => ({ database: one.databaseName ?? '', containers: one.collectionNames ?? [] }));
        }
        case 'mongodb': {
          const found = await list(FEEDS, () => api.restorableMongodbResources.list(...where));
          return found.map((one) => ({ database: one.databaseName ?? '', containers: one.collectionNames ?? [] }));
        }
        case 'gremlin': {
          const found = await list(FEEDS, () => api.restorableGremlinResources.list(...where));
          return found.map((one) => ({ database: one.databaseName ?? '', containers: one.graphNames ?? [] }));
        }
        case 'table': {
          const found = await list(FEEDS, () => api.restorableTableResources.list(...where));
          return [{ database: null, containers: found.map((one) => one.name ?? '') }];
        }
      }
    },

    inventory: (account, kind, signal) => resources(checkAccountName(account, 'account_name'), kind, signal),

    async latestRestorable(kind, database, container, location, signal) {
      const account = entity.account_name;
      const [outer, inner] = [checkChildName(database ?? container), checkChildName(container)];
      const where = { location };
      const first = await send(LATEST, () =>
        submit((options) => {
          switch (kind) {
            case 'sql':
              return api.sqlResources.retrieveContinuousBackupInformation(group, account, outer, inner, where, options);
            case 'mongodb':
              return api.mongoDBResources.retrieveContinuousBackupInformation(
                group,
                account,
                outer,
                inner,
                where,
                options,
              );
            case 'gremlin':
              return api.gremlinResources.retrieveContinuousBackupInformation(
                group,
                account,
                outer,
                inner,
                where,
                options,
              );
            case 'table':
              return api.tableResources.retrieveContinuousBackupInformation(group, account, inner, where, options);
          }
        }, signal),
      );
      if (first === undefined) return undefined;
      let body = first.parsedBody;
      let [status, headers]: [number, { get(name: string): string | null | undefined }] = [first.status, first.headers];
      const end = runtime.now().getTime() + LATEST_PATIENCE_MS;
      while (status === 202) {
        const url = headers.get('location') ?? first.headers.get('location');
        if (!url || runtime.now().getTime() > end) return undefined;
        const pause = Number(headers.get('retry-after') ?? '');
        await runtime.sleep(Math.min(15_000, Number.isFinite(pause) && pause > 0 ? pause * 1000 : 2000), signal);
        ({ status, body, headers } = await ask(url, LATEST, signal));
      }
      const information = (body as { continuousBackupInformation?: { latestRestorableTimestamp?: string } } | undefined)
        ?.continuousBackupInformation;
      return instant(information?.latestRestorableTimestamp);
    },

    async restore(target, body, signal) {
      checkAccountName(target);
      const first = await send(RESTORE, () =>
        submit((options) => api.databaseAccounts.createOrUpdate(group, target, body, options), signal),
      );
      return operationOf(first);
    },

    async setBackupPolicy(policy, signal) {
      const body = { backupPolicy: policy };
      const first = await send(UPDATE, () =>
        submit((options) => api.databaseAccounts.update(group, entity.account_name, body, options), signal),
      );
      return operationOf(first);
    },

    async operation(url, signal) {
      const { body, headers } = await ask(url, OPERATION, signal);
      return toOperation(body, headers.get('retry-after'));
    },
  };
}

function endless(): HoldfastError {
  return new HoldfastError('PROVIDER_UNAVAILABLE', 'a list of Azure does not end', { retryable: false });
}

function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((one): one is string => typeof one === 'string') : [];
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
