import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CosmosClient } from '../../src/providers/azure-cosmos/client.ts';
import { readSettings, writeSettings } from '../../src/providers/azure-cosmos/declared.ts';
import { azureCosmos } from '../../src/providers/azure-cosmos/provider.ts';
import { restoreSteps } from '../../src/providers/azure-cosmos/restore.ts';
import { azureCosmosSimulator, COSMOS_SANDBOX, type CosmosSimulator } from '../../src/simulators/azure-cosmos.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import * as tools from '../../tools/azure-cosmos.ts';
import { granted, testRuntime } from '../support/runtime.ts';
import { type Contract, openContract, specDirectory, specReason } from './serve.ts';

const { account, location, source, mongo, gremlin, table } = COSMOS_SANDBOX;

/** Every operation that the adapter sends. */
const USED = [
  'DatabaseAccounts_CheckNameExists',
  'DatabaseAccounts_CreateOrUpdate',
  'DatabaseAccounts_Get',
  'DatabaseAccounts_List',
  'DatabaseAccounts_Update',
  'GremlinResources_ListGremlinDatabases',
  'GremlinResources_ListGremlinGraphs',
  'GremlinResources_RetrieveContinuousBackupInformation',
  'MongoDBResources_ListMongoDBCollections',
  'MongoDBResources_ListMongoDBDatabases',
  'MongoDBResources_RetrieveContinuousBackupInformation',
  'RestorableDatabaseAccounts_List',
  'RestorableGremlinDatabases_List',
  'RestorableGremlinGraphs_List',
  'RestorableGremlinResources_List',
  'RestorableMongodbCollections_List',
  'RestorableMongodbDatabases_List',
  'RestorableMongodbResources_List',
  'RestorableSqlContainers_List',
  'RestorableSqlDatabases_List',
  'RestorableSqlResources_List',
  'RestorableTableResources_List',
  'RestorableTables_List',
  'SqlResources_ListSqlContainers',
  'SqlResources_ListSqlDatabases',
  'SqlResources_RetrieveContinuousBackupInformation',
  'TableResources_ListTables',
  'TableResources_RetrieveContinuousBackupInformation',
];

describe.skipIf(specDirectory === undefined)(`Cosmos DB and the official description${specReason}`, () => {
  const signal = new AbortController().signal;
  let contract: Contract;
  let server: SimulatorServer;
  let simulator: CosmosSimulator;

  beforeAll(async () => {
    contract = await openContract({
      document: 'azure-cosmosdb.openapi.json',
      // The addresses of running operations are named by answers, not by the document.
      beside: [/^GET .*\/operation(Status|sStatus|Results)\//],
      // The links to further pages carry a token that the document leaves to the service.
      allow: [/_List: request .*skiptoken/],
    });
    server = await startSimulators({
      simulators: (clock) => {
        simulator = azureCosmosSimulator({ clock });
        return [contract.wrap(simulator)];
      },
    });
  });
  afterAll(async () => {
    await server.close();
  });

  async function connect(name: string = account) {
    const type = azureCosmos.entityTypes['azure-cosmosdb/database-account']!;
    const parameters = type.schema.parse({ ...type.sandbox!.parameters, account_name: name });
    const entity = {
      ...parameters,
      key: 'sandbox/azure-cosmos',
      namespace: 'sandbox',
      name: 'azure-cosmos',
      defines: 'azure-cosmosdb/database-account',
      provider: 'azure-cosmos',
      labels: {},
      objectives: {},
      endpoint: server.origin,
      parameters,
    };
    const runtime = testRuntime(
      { per_second: 1000, burst: 1000, concurrent: 8, timeout_ms: 5000 },
      { now: () => server.clock.now(), sleep: async (ms) => server.clock.advance(ms) },
    );
    const client = (await azureCosmos.connect(entity as never, runtime)) as CosmosClient;
    return { client, entity, runtime, signal };
  }

  it.each([
    ['orders-cosmos', source, 'shop'],
    ['events-mongo', mongo, 'events'],
    ['social-graph', gremlin, 'people'],
    ['stock-tables', table, undefined],
  ])('reads %s in the documented shapes', async (name, source_id, database_name) => {
    const context = (await connect(name)) as never;
    const region = name === account ? location : 'East US';
    await tools.getBackupInfo.run!(context, {});
    await tools.listRestorableAccounts.run!(context, {});
    await tools.listRestorableDatabases.run!(context, { source_id, location: region });
    const restore_timestamp = new Date(server.clock.now().getTime() - 3 * 3_600_000).toISOString();
    await tools.listRestorableDatabases.run!(context, { source_id, location: region, restore_timestamp });
    await tools.listRestorableContainers.run!(context, { source_id, location: region, database_name });
  });

  it('reads in pages', async () => {
    simulator.state.pageSize = 2;
    const { client } = await connect();
    expect((await client.listSources(signal)).length).toBeGreaterThan(4);
    expect((await client.listAccounts(signal)).length).toBeGreaterThan(4);
    simulator.state.pageSize = 100;
  });

  it.each([
    [source, location, ['shop/orders', 'reporting'], 'sql-copy'],
    [mongo, 'East US', ['events/clicks'], 'mongo-copy'],
    [gremlin, 'East US', ['people'], 'graph-copy'],
    [table, 'East US', ['inventory'], 'table-copy'],
    [source, location, undefined, 'whole-copy'],
  ])('restores %s in the documented shapes, and follows it to its end', async (source_id, region, only, target_id) => {
    const context = (await connect()) as never as Parameters<NonNullable<typeof tools.restore.plan>>[0];
    const restore_timestamp = new Date(server.clock.now().getTime() - 3_600_000).toISOString();
    const input = { source_id, location: region, target_id, restore_timestamp, ...(only ? { only } : {}) };
    const plan = (await tools.restore.plan!(context, input)) as never;
    const results: Record<string, never> = {};
    for (const step of restoreSteps(plan)) {
      const run = () =>
        step.run({
          ...context,
          input,
          results,
          operationId: 'op',
          idempotencyKey: target_id,
          handle: undefined,
          checkpoint: async () => {},
          progress: () => {},
        } as never);
      results[step.name] = (step.kind === 'mutate' ? await granted(run) : await run()) as never;
    }
    await tools.getRestoreStatus.run!(context, { target_id });
    expect(simulator.state.accounts.get(target_id)?.state).toBe('Succeeded');
  });

  it('restores an account under a key of its own in the documented shape, and reads a failure', async () => {
    const orders = simulator.state.accounts.get(account)!;
    orders.keyVaultKeyUri = 'https://vault.example/keys/k';
    orders.defaultIdentity =
      'UserAssignedIdentity=/subscriptions/s/resourceGroups/g/providers/p/userAssignedIdentities/i';
    const { client } = await connect();
    await client.getAccount(account, signal);
    simulator.state.refuseNext.push({ status: 400, code: 'BadRequest', message: 'No.' });
    await expect(
      granted(() =>
        client.restore(
          'refused',
          {
            location,
            databaseAccountOfferType: 'Standard',
            locations: [{ locationName: location }],
            identity: { type: 'UserAssigned', userAssignedIdentities: { '/i': {} } },
            keyVaultKeyUri: orders.keyVaultKeyUri ?? '',
            defaultIdentity: orders.defaultIdentity ?? '',
          },
          signal,
        ),
      ),
    ).rejects.toMatchObject({ code: 'INVALID_PARAMETER' });
    await expect(client.getAccount('not-there', signal)).rejects.toMatchObject({ code: 'RESOURCE_NOT_FOUND' });
  });

  it.each([
    [account, { backup_type: 'Continuous', continuous_tier: 'Continuous7Days' }],
    ['legacy-cosmos', { backup_type: 'Periodic', periodic_retention_hours: 24, backup_storage_redundancy: 'Geo' }],
    ['legacy-cosmos', { backup_type: 'Continuous', continuous_tier: 'Continuous7Days' }],
  ])('gives %s its declared policy in the documented shape', async (name, backup_policy) => {
    const connected = await connect(name);
    const context = { ...connected, entity: { ...connected.entity, backup_policy } } as never;
    const { findings } = await readSettings(context);
    const changing = findings.filter(({ change }) => change !== undefined);
    await granted(() => writeSettings(context, changing));
    expect((await readSettings(context)).findings.map(({ verdict }) => verdict)).toEqual(
      findings.map(() => 'as_declared'),
    );
  });

  it('differed nowhere and saw every operation that the adapter uses', () => {
    expect(contract.faults).toEqual([]);
    expect(contract.unusedAllowances()).toEqual([]);
    expect([...contract.seen].sort()).toEqual(USED);
  });
});
