import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Action } from '../../src/core/action.ts';
import type { ProviderContext } from '../../src/core/context.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { Recovery, Step, StepContext } from '../../src/core/operation.ts';
import type { Plan, PlanDraft } from '../../src/core/plan.ts';
import type { Runtime } from '../../src/core/runtime.ts';
import type { BackupInfo, RestoreJob } from '../../src/core/schemas.ts';
import { newAccountName } from '../../src/providers/azure-cosmos/info.ts';
import { FailedAnswer, instant, toCosmosError, toOperation } from '../../src/providers/azure-cosmos/map.ts';
import { azureCosmos } from '../../src/providers/azure-cosmos/provider.ts';
import { resilientFetch } from '../../src/resilience/fetch.ts';
import {
  azureCosmosSimulator,
  COSMOS_SANDBOX,
  type CosmosSimulator,
  type SimulatedAccount,
  type SimulatedLife,
} from '../../src/simulators/azure-cosmos.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import * as tools from '../../tools/azure-cosmos.ts';
import { ANA, startHarness } from '../support/harness.ts';
import { granted, testRuntime } from '../support/runtime.ts';

const DEFINES = 'azure-cosmosdb/database-account';
const {
  account: ORDERS,
  source: SOURCE,
  location: LOCATION,
  group: GROUP,
  subscription: SUBSCRIPTION,
} = COSMOS_SANDBOX;
const CANARY = 'canary-token-4f1d9a7c2b';
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
type Context = ProviderContext<unknown, unknown>;

let server: SimulatorServer;
let simulator: CosmosSimulator;
let closing: (() => Promise<void>)[];

beforeEach(async () => {
  closing = [];
  server = await startSimulators({
    simulators: (clock) => {
      simulator = azureCosmosSimulator({ clock });
      return [simulator];
    },
  });
});
afterEach(async () => {
  for (const close of closing) await close();
  await server.close();
});

/** Waiting moves the sandbox's time on instead of taking any. */
function fastRuntime(overrides: Partial<Runtime> = {}): Runtime {
  return testRuntime(
    { per_second: 1000, burst: 1000, concurrent: 8, timeout_ms: 5000 },
    {
      now: () => server.clock.now(),
      sleep: async (ms, signal) => {
        signal?.throwIfAborted();
        server.clock.advance(ms);
      },
      secret: async () => CANARY,
      ...overrides,
    },
  );
}

async function connect(
  parameters: JsonObject = {},
  overrides: Partial<Runtime> = {},
  signal = new AbortController().signal,
): Promise<Context> {
  const { schema, sandbox } = azureCosmos.entityTypes[DEFINES]!;
  const merged = { ...sandbox!.parameters, ...parameters };
  const parsed = schema.parse(Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== null)));
  const entity = {
    ...parsed,
    key: 'sandbox/azure-cosmos',
    namespace: 'sandbox',
    name: 'azure-cosmos',
    defines: DEFINES,
    provider: 'azure-cosmos',
    labels: {},
    objectives: {},
    endpoint: server.origin,
    parameters: parsed,
  };
  const runtime = fastRuntime(overrides);
  const client = await azureCosmos.connect(entity as never, runtime);
  return { client, entity, runtime, signal };
}

async function read<T>(action: Action, input: JsonObject = {}, context?: Context): Promise<T> {
  return (await action.run!(context ?? (await connect()), action.input.parse(input))) as T;
}

const asPlan = (draft: PlanDraft): Plan => ({ risk: 'create', ...draft }) as unknown as Plan;
const planOf = async (input: JsonObject, context?: Context): Promise<PlanDraft> =>
  tools.restore.plan!(context ?? (await connect()), tools.restore.input.parse(input));

interface Trace {
  results: Record<string, JsonObject>;
  handles: Record<string, JsonObject[]>;
  progress: string[];
}

function stepContext(
  context: Context,
  input: JsonObject,
  trace: Trace,
  step: Step,
): StepContext<unknown, unknown, unknown> {
  return {
    ...context,
    input,
    operationId: 'op_test',
    idempotencyKey: `key-${step.name}`,
    get handle() {
      return trace.handles[step.name]?.at(-1);
    },
    results: trace.results,
    checkpoint: async (handle) => {
      trace.handles[step.name] = [...(trace.handles[step.name] ?? []), structuredClone(handle)];
    },
    progress: ({ message }) => {
      trace.progress.push(message);
    },
  };
}

/** Runs the steps of a restore as the engine does, the guard taken as passed. */
async function operate(
  input: JsonObject,
  options: { context?: Context; plan?: PlanDraft; trace?: Trace } = {},
): Promise<{ output: RestoreJob; trace: Trace; plan: PlanDraft }> {
  const context = options.context ?? (await connect());
  const parsed = tools.restore.input.parse(input) as JsonObject;
  const draft = options.plan ?? (await tools.restore.plan!(context, parsed));
  const trace: Trace = options.trace ?? { results: {}, handles: {}, progress: [] };
  for (const step of tools.restore.steps!(parsed, asPlan(draft))) {
    const work = () => step.run(stepContext(context, parsed, trace, step));
    trace.results[step.name] = step.kind === 'mutate' ? await granted(work) : await work();
  }
  return { output: tools.restore.result!(trace.results) as RestoreJob, trace, plan: draft };
}

async function failure(work: Promise<unknown>): Promise<HoldfastError> {
  const outcome = await work.then(
    () => 'it succeeded',
    (cause: unknown) => cause,
  );
  expect(outcome).toBeInstanceOf(HoldfastError);
  return outcome as HoldfastError;
}

const account = (name: string = ORDERS): SimulatedAccount => simulator.state.accounts.get(name)!;
const life = (id: string = SOURCE): SimulatedLife => simulator.state.lives.find((one) => one.instanceId === id)!;
const ago = (ms: number): string => new Date(server.clock.now().getTime() - ms).toISOString();
const wish = (more: JsonObject = {}): JsonObject => ({
  target_id: 'orders-copy',
  source_id: SOURCE,
  location: LOCATION,
  restore_timestamp: ago(HOUR),
  ...more,
});

describe('Cosmos DB backup information', () => {
  it('shows policy, window and the latest restorable moment of a continuous account', async () => {
    const info = await read<BackupInfo>(tools.getBackupInfo);
    expect(tools.getBackupInfo.output.parse(info)).toMatchObject({
      automated: true,
      retention_seconds: 30 * 86_400,
      schedule: 'continuous',
      pitr: { enabled: true, window: { earliest_at: expect.any(String), latest_at: expect.any(String) } },
      encryption: 'service-managed keys',
      deletion_protection: null,
      newest: { id: SOURCE, kind: 'continuous', restorable: true },
      warnings: [],
      provider: {
        api: 'sql',
        continuous_tier: 'Continuous30Days',
        source_id: SOURCE,
        regions: [LOCATION, 'North Europe'],
      },
    });
    const window = info.pitr.window!;
    expect(Date.parse(window.latest_at)).toBeGreaterThan(server.clock.now().getTime() - 5 * 60_000);
    expect(server.writes()).toEqual([]);
  });

  it.each([
    ['events-mongo', 'mongodb', 7 * 86_400],
    ['social-graph', 'gremlin', 30 * 86_400],
    ['stock-tables', 'table', 30 * 86_400],
  ])('reads %s by its own API, with latest moments in American spelling', async (name, api, retention) => {
    simulator.state.american = true;
    const info = await read<BackupInfo>(
      tools.getBackupInfo,
      {},
      await connect({ account_name: name, backup_policy: null }),
    );
    expect(info).toMatchObject({ retention_seconds: retention, provider: { api }, warnings: [] });
    expect(Math.abs(Date.parse(info.pitr.window!.latest_at) - server.clock.now().getTime())).toBeLessThan(5 * 60_000);
  });

  it('says what periodic backups lack, and what differs from the declaration', async () => {
    const info = await read<BackupInfo>(tools.getBackupInfo, {}, await connect({ account_name: 'legacy-cosmos' }));
    expect(info).toMatchObject({
      automated: true,
      schedule: 'every 4 h',
      retention_seconds: 8 * 3600,
      pitr: { enabled: false },
      newest: null,
    });
    const text = info.warnings.join('\n');
    expect(text).toMatch(/support ticket only/);
    expect(text).toMatch(/Up to 4 h of writes are in no backup/);
    expect(text).toMatch(/one region only/);
    expect(text).toMatch(/Declared backup_policy.backup_type is Continuous, actual Periodic/);
    expect(text).toMatch(/Declared backup_policy.continuous_tier is Continuous30Days, actual unset/);
  });

  it('compares only what is declared, and says that continuous backup stays', async () => {
    const policy = {
      backup_type: 'Periodic',
      periodic_interval_minutes: 120,
      periodic_retention_hours: 168,
      backup_storage_redundancy: 'Geo',
    };
    const info = await read<BackupInfo>(tools.getBackupInfo, {}, await connect({ backup_policy: policy }));
    // Three that differ and the sentence; of the redundancy Azure tells nothing.
    expect(info.warnings).toHaveLength(4);
    expect(info.warnings.at(-1)).toMatch(/cannot be changed back to periodic/);
    const { warnings } = await read<BackupInfo>(tools.getBackupInfo, {}, await connect({ backup_policy: null }));
    expect(warnings).toEqual([]);
  });

  it('shows a move to continuous backup, several write regions and a Cassandra account for what they are', async () => {
    account().backupPolicy['migrationState'] = { status: 'InProgress', targetType: 'Continuous', startTime: ago(HOUR) };
    account().multipleWriteLocations = true;
    const info = await read<BackupInfo>(tools.getBackupInfo);
    expect(info.warnings.join('\n')).toMatch(/moving to continuous backup[\s\S]*hub region/);
    expect(info.provider).toMatchObject({ migration: { status: 'InProgress' } });
    const cassandra = await connect({ account_name: 'metrics-cassandra' });
    const other = await read<BackupInfo>(tools.getBackupInfo, {}, cassandra);
    expect(other.warnings.join()).toMatch(/no self-service restore/);
    expect(other.newest).toBeNull();
  });

  it('leaves out what it may not know, and names the permission', async () => {
    simulator.state.denied.add('locations/restorableDatabaseAccounts/read');
    const blind = await read<BackupInfo>(tools.getBackupInfo);
    expect(blind.pitr).toEqual({ enabled: true });
    expect(blind.warnings.join()).toMatch(/restorableDatabaseAccounts\/read on the subscription/);
    simulator.state.denied.clear();
    simulator.state.denied.add('databaseAccounts/*/retrieveContinuousBackupInformation/action');
    const half = await read<BackupInfo>(tools.getBackupInfo);
    expect(half.newest).toBeNull();
    expect(half.warnings.join()).toMatch(/retrieveContinuousBackupInformation/);
  });

  it('asks no more than twenty containers, and says so', async () => {
    account().content = { shop: Object.fromEntries(Array.from({ length: 25 }, (_, n) => [`c${n}`, n])) };
    const info = await read<BackupInfo>(tools.getBackupInfo);
    expect(info.warnings).toEqual(['The latest restorable moment is that of 20 of 25 containers.']);
    account().content = {};
    expect((await read<BackupInfo>(tools.getBackupInfo)).warnings.join()).toMatch(/has no container/);
  });
});

describe('what Cosmos DB can restore', () => {
  it('lists lives of accounts, deleted ones too, newest first, over pages of both kinds', async () => {
    simulator.state.pageSize = 2;
    const context = await connect();
    const seen: JsonObject[] = [];
    let cursor: string | undefined;
    do {
      const page = await read<{ accounts: JsonObject[]; next_cursor?: string }>(
        tools.listRestorableAccounts,
        { limit: 3, ...(cursor === undefined ? {} : { cursor }) },
        context,
      );
      seen.push(...page.accounts);
      cursor = page.next_cursor;
    } while (cursor !== undefined);
    expect(new Set(seen.map((one) => one['source_id'])).size).toBe(8);
    const created = seen.map((one) => String(one['created_at']));
    expect(created).toEqual([...created].sort().reverse());
    const own = await read<{ accounts: JsonObject[] }>(tools.listRestorableAccounts, { account_name: ORDERS }, context);
    expect(own.accounts).toMatchObject([
      { source_id: SOURCE, live: true, api: 'Sql', restorable: true, location: LOCATION },
      { source_id: COSMOS_SANDBOX.deletedSource, live: false, deleted_at: expect.any(String) },
    ]);
    expect(seen.find((one) => one['api'] === 'Cassandra')).toMatchObject({ restorable: false });
  });

  it('puts the events of databases together by name', async () => {
    const { databases } = await read<{ databases: JsonObject[] }>(tools.listRestorableDatabases, {
      source_id: SOURCE,
      location: 'westeurope',
    });
    expect(databases.map((one) => [one['database_name'], one['exists']])).toEqual([
      ['reporting', true],
      ['legacy', false],
      ['shop', true],
    ]);
    expect(databases[0]!['rids']).toHaveLength(2);
    expect(databases[1]).toMatchObject({ last_event: 'Delete', can_undelete: true, deleted_at: expect.any(String) });
  });

  it('finds containers under every id that a database had', async () => {
    const { containers } = await read<{ containers: JsonObject[] }>(tools.listRestorableContainers, {
      source_id: SOURCE,
      location: LOCATION,
      database_name: 'reporting',
    });
    expect(containers).toMatchObject([{ container: 'daily', exists: true }]);
    expect(containers[0]!['rids']).toHaveLength(2);
    const asked = server.journal.filter((entry) => entry.path.includes('restorableSqlContainers'));
    expect(asked).toHaveLength(2);
  });

  it.each([
    [COSMOS_SANDBOX.mongo, 'events', ['page.views', 'clicks'], ['archive', 'events']],
    [COSMOS_SANDBOX.gremlin, 'people', ['follows', 'friends'], ['people']],
  ])('reads %s by its own API', async (source_id, database_name, containers, databases) => {
    const at = { source_id, location: 'East US' };
    const found = await read<{ databases: JsonObject[] }>(tools.listRestorableDatabases, at);
    expect(found.databases.map((one) => one['database_name'])).toEqual(databases);
    const inner = await read<{ containers: JsonObject[] }>(tools.listRestorableContainers, { ...at, database_name });
    expect(inner.containers.map((one) => one['container']).sort()).toEqual([...containers].sort());
    const then = { ...at, restore_timestamp: ago(HOUR) };
    const moment = await read<{ databases: JsonObject[] }>(tools.listRestorableDatabases, then);
    expect(moment.databases.map((one) => one['database_name']).sort()).toEqual([...databases].sort());
  });

  it('lists tables, which stand in no database', async () => {
    const at = { source_id: COSMOS_SANDBOX.table, location: 'East US' };
    const found = await read<{ databases: JsonObject[] }>(tools.listRestorableDatabases, at);
    expect(found.databases).toMatchObject([
      { table: 'prices', exists: false },
      { table: 'inventory', exists: true },
    ]);
    const inner = await read<{ containers: JsonObject[] }>(tools.listRestorableContainers, at);
    expect(inner.containers.map((one) => one['container'])).toEqual(['prices', 'inventory']);
    const then = { ...at, restore_timestamp: ago(10 * DAY) };
    const moment = await read<{ databases: JsonObject[] }>(tools.listRestorableDatabases, then);
    expect(moment.databases).toEqual([{ table: 'inventory' }, { table: 'prices' }]);
  });

  it('shows what there was at a moment', async () => {
    const { databases } = await read<{ databases: JsonObject[] }>(tools.listRestorableDatabases, {
      source_id: SOURCE,
      location: 'North Europe',
      restore_timestamp: ago(11 * DAY),
    });
    expect(databases).toEqual([
      { database_name: 'shop', containers: ['orders', 'customers', 'sessions'] },
      { database_name: 'legacy', containers: ['imports'] },
    ]);
  });

  it.each([
    [{ source_id: ORDERS }, 'INVALID_PARAMETER', /not the name of the account/],
    [{ source_id: '7c1d1f0a-3b52-4e0e-9a64-0c05affffff1' }, 'BACKUP_NOT_FOUND', /list-restorable-accounts/],
    [{ location: '../..' }, 'INVALID_PARAMETER', /name of a region/],
    [{ location: 'Brazil South' }, 'INVALID_PARAMETER', /West Europe, North Europe/],
    [{ source_id: COSMOS_SANDBOX.cassandra, location: 'East US' }, 'NOT_SUPPORTED', /support/],
    [{ restore_timestamp: '2020-01-01T00:00:00Z' }, 'INVALID_PARAMETER', /Give a moment from/],
  ])('refuses %j', async (wrong, code, hint) => {
    const input = { source_id: SOURCE, location: LOCATION, ...wrong };
    const error = await failure(read(tools.listRestorableDatabases, input));
    expect(error.code).toBe(code);
    expect(error.hint).toMatch(hint);
  });

  it('says which databases there are when the name is wrong or missing', async () => {
    const at = { source_id: SOURCE, location: LOCATION };
    const wrong = await failure(read(tools.listRestorableContainers, { ...at, database_name: 'shpo' }));
    expect(wrong).toMatchObject({ code: 'BACKUP_NOT_FOUND', hint: 'Did you mean shop?' });
    expect((await failure(read(tools.listRestorableContainers, at))).code).toBe('INVALID_PARAMETER');
  });

  it('cleans names that others gave', async () => {
    life().history.push({ at: server.clock.now().getTime(), content: { 'x\u202e\u0007y': { 'a\nb': 1 } } });
    const { databases } = await read<{ databases: JsonObject[] }>(tools.listRestorableDatabases, {
      source_id: SOURCE,
      location: LOCATION,
    });
    expect(databases.map((one) => one['database_name'])).toContain('x y');
  });
});

describe('the plan of a Cosmos DB restore', () => {
  it('says what appears, what is left out and what is not restored, and writes nothing', async () => {
    const plan = await planOf(wish({ restore_timestamp: ago(11 * DAY) }));
    expect(plan).toMatchObject({
      target: `${GROUP}/orders-copy`,
      loses: expect.stringMatching(/^nothing/),
      undo: 'delete the new account orders-copy',
      blast_radius: {
        creates: 'orders-copy',
        region: LOCATION,
        appears: ['shop/orders', 'shop/customers', 'shop/sessions', 'legacy/imports'],
        only_then: ['shop/sessions', 'legacy/imports'],
        only_now: ['shop/carts', 'reporting/daily'],
        writes_left_out: expect.stringMatching(/^the last 11 d/),
        public_network_access: 'Disabled',
        ttl_disabled: true,
        continuous_tier: 'Continuous30Days',
        source: { state: 'live', latest_restorable_at: expect.any(String) },
      },
      facts: { target: { account: 'orders-copy', exists: false } },
    });
    expect(plan.warnings?.join('\n')).toMatch(
      /no public network[\s\S]*Expiry \(TTL\) is off[\s\S]*the source has 1[\s\S]*North Europe/,
    );
    expect(server.writes()).toEqual([]);
  });

  it('has the same facts again while nothing changes', async () => {
    const input = wish();
    expect((await planOf(input)).facts).toEqual((await planOf(input)).facts);
  });

  it.each([
    ['an account of the group', 'events-mongo', /exists already/],
    ['the account itself', ORDERS, /exists already/],
    ['an account of someone else', 'someone-elses', /taken by another account/],
  ])('never restores onto %s', async (_, target_id, message) => {
    const error = await failure(planOf(wish({ target_id })));
    expect(error.code).toBe('RESOURCE_EXISTS');
    expect(error.message).toMatch(message);
    expect(server.writes()).toEqual([]);
  });

  it('refuses where neither answer proves that the name is free', async () => {
    simulator.state.denied.add('databaseAccounts/read');
    simulator.state.denied.add('databaseAccountNames/read');
    const error = await failure(planOf(wish()));
    expect(error).toMatchObject({ code: 'INSUFFICIENT_PERMISSIONS', details: { outcome: 'not_sent' } });
    simulator.state.denied.delete('databaseAccountNames/read');
    expect((await planOf(wish())).unknowns?.join()).toMatch(/the settings of the source account/);
  });

  it.each([
    [{ target_id: 'No_Name' }, /account name/],
    [{ target_id: '../x' }, /account name/],
    [{ target_id: 'ab' }, /account name/],
    [{ source_id: 'x' }, /instance id/],
    [{ location: 'East US' }, /no backups in 'East US'/],
    [{ location: 'a/b' }, /Azure region/],
    [{ restore_timestamp: 'yesterday' }, /timestamp/],
    [{ restore_timestamp: '2020-01-01T00:00:00Z' }, /outside/],
    [{ restore_timestamp: '2099-01-01T00:00:00Z' }, /outside/],
    [{ only: ['shop/nothing'] }, /no 'shop\/nothing'/],
    [{ only: [] }, /names nothing/],
    [{ public_network_access: 'as_source' }, undefined],
  ])('refuses %j', async (wrong, message) => {
    const error = await failure(planOf(wish(wrong as JsonObject)));
    expect(error.code).toBe('INVALID_PARAMETER');
    if (message !== undefined) expect(error.message).toMatch(message);
    expect(server.writes()).toEqual([]);
  });

  it('refuses a moment after the last one that can be restored', async () => {
    const error = await failure(planOf(wish({ restore_timestamp: ago(5000) })));
    expect(error).toMatchObject({ code: 'INVALID_PARAMETER', details: { latest_at: expect.any(String) } });
    expect(error.message).toMatch(/later than the last moment/);
  });

  it('refuses a moment at and after the deletion of a deleted account, and takes one before', async () => {
    const { deletedAt } = life(COSMOS_SANDBOX.deletedSource);
    const source_id = COSMOS_SANDBOX.deletedSource;
    const at = new Date(deletedAt! + 1000).toISOString();
    expect((await failure(planOf(wish({ source_id, restore_timestamp: at })))).code).toBe('INVALID_PARAMETER');
    const before = new Date(deletedAt! - 5000).toISOString();
    const plan = await planOf(wish({ source_id, restore_timestamp: before }));
    expect(plan.blast_radius).toMatchObject({
      appears: ['shop/orders', 'shop/customers'],
      public_network_access: 'Disabled',
    });
    expect(plan.warnings?.[0]).toMatch(/the setting of the source cannot be read any more/);
    const asked = wish({ source_id, restore_timestamp: before, public_network_access: 'as_source' });
    expect((await failure(planOf(asked))).code).toBe('INVALID_PARAMETER');
    expect(plan.unknowns?.join()).toMatch(/customer-managed key/);
  });

  it('waits for a move to continuous backup, and has no call for periodic backups', async () => {
    account().backupPolicy['migrationState'] = { status: 'InProgress', targetType: 'Continuous' };
    expect((await failure(planOf(wish()))).code).toBe('INVALID_STATE');
    account().backupPolicy = { type: 'Periodic', periodicModeProperties: {} };
    expect(await failure(planOf(wish()))).toMatchObject({
      code: 'NOT_SUPPORTED',
      hint: expect.stringMatching(/ticket/),
    });
    const cassandra = wish({ source_id: COSMOS_SANDBOX.cassandra, location: 'East US' });
    expect((await failure(planOf(cassandra))).code).toBe('NOT_SUPPORTED');
  });

  it.each<[string, () => void, JsonObject, string, RegExp]>([
    ['open', () => {}, {}, 'Enabled', /open to all networks, like its source/],
    ['open', () => {}, { public_network_access: 'as_source' }, 'Enabled', /open to all networks/],
    ['open', () => {}, { public_network_access: 'disabled' }, 'Disabled', /no public network, as asked for/],
    [
      'closed',
      () => {
        account().publicNetworkAccess = 'Disabled';
      },
      {},
      'Disabled',
      /no public network, like its source/,
    ],
    [
      'in a perimeter',
      () => {
        account().publicNetworkAccess = 'SecuredByPerimeter';
      },
      { public_network_access: 'as_source' },
      'Disabled',
      /no public network, like its source/,
    ],
    [
      'open to some networks',
      () => account().ipRules.push('203.0.113.0/24'),
      {},
      'Disabled',
      /open to some networks only, and its rules do not come along/,
    ],
  ])(
    'gives the new account the public access of a source that is %s, and says which',
    async (_, prepare, input, access, why) => {
      account().ipRules = [];
      prepare();
      const plan = await planOf(wish(input));
      expect(plan.blast_radius).toMatchObject({ public_network_access: access });
      expect(plan.facts.context).toMatchObject({ public_network_access: access });
      expect(plan.warnings?.[0]).toMatch(why);
    },
  );

  it('brings the key of the source along, where a new account can reach it', async () => {
    Object.assign(account(), {
      keyVaultKeyUri: 'https://vault.example/keys/k',
      defaultIdentity: 'UserAssignedIdentity=/subscriptions/s/identities/i',
    });
    const { trace } = await operate(wish());
    expect(trace.results['restore']).toMatchObject({ sent: true });
    expect(account('orders-copy')).toMatchObject({
      keyVaultKeyUri: 'https://vault.example/keys/k',
      identity: { type: 'UserAssigned', userAssignedIdentities: { '/subscriptions/s/identities/i': {} } },
    });
    account().defaultIdentity = 'SystemAssignedIdentity';
    expect((await failure(planOf(wish({ target_id: 'other-copy' })))).code).toBe('NOT_SUPPORTED');
  });
});

describe('a Cosmos DB restore', () => {
  it('makes a new account with the data of the moment, closed and without expiry', async () => {
    const { output, trace } = await operate(wish({ restore_timestamp: ago(11 * DAY) }));
    expect(tools.restore.output.parse(output)).toMatchObject({
      job_id: 'orders-copy',
      status: 'succeeded',
      usable: true,
      target: `${GROUP}/orders-copy`,
      provider: {
        ttl_disabled: true,
        public_network_access: 'Disabled',
        contains: expect.arrayContaining(['shop/orders']),
      },
    });
    expect(account('orders-copy').content).toEqual(life().history[0]!.content);
    expect(account().content).toEqual(life().history.at(-1)!.content);
    expect(trace.handles['restore']).toHaveLength(2);
    expect(trace.progress.join()).toMatch(/the restore is running/);
    const [write, ...others] = server.writes();
    expect(others).toEqual([]);
    expect(write).toMatchObject({ method: 'PUT', path: expect.stringContaining('/databaseAccounts/orders-copy?') });
    expect(write!.body).toMatchObject({
      location: LOCATION,
      kind: 'GlobalDocumentDB',
      properties: {
        createMode: 'Restore',
        databaseAccountOfferType: 'Standard',
        publicNetworkAccess: 'Disabled',
        locations: [{ locationName: LOCATION, failoverPriority: 0, isZoneRedundant: false }],
        restoreParameters: { restoreMode: 'PointInTime', restoreWithTtlDisabled: true },
      },
    });
  });

  it('lets items expire at once only where asked for', async () => {
    await operate(wish({ restore_with_ttl_disabled: false }));
    expect(account('orders-copy').content['shop']!['carts']).toBe(322 - 120);
    await operate(wish({ target_id: 'second-copy' }));
    expect(account('second-copy').content['shop']!['carts']).toBe(322);
  });

  it.each([
    [SOURCE, LOCATION, ['reporting', 'shop/orders', 'shop/carts'], { shop: ['orders', 'carts'], reporting: ['daily'] }],
    [COSMOS_SANDBOX.mongo, 'East US', ['events/page.views'], { events: ['page.views'] }],
    [COSMOS_SANDBOX.gremlin, 'East US', ['people/follows'], { people: ['follows'] }],
    [COSMOS_SANDBOX.table, 'East US', ['inventory'], { '': ['inventory'] }],
  ])('restores a part of %s', async (source_id, location, only, expected) => {
    await operate(wish({ source_id, location, only }));
    const { content } = account('orders-copy');
    const names = Object.entries(content).map(([name, containers]) => [name, Object.keys(containers).sort()]);
    const wanted = Object.entries(expected).map(([name, containers]) => [name, [...containers].sort()]);
    expect(names.sort()).toEqual(wanted.sort());
  });

  it('brings a deleted account back under a new name', async () => {
    const before = new Date(life(COSMOS_SANDBOX.deletedSource).deletedAt! - 60_000).toISOString();
    const { output } = await operate(wish({ source_id: COSMOS_SANDBOX.deletedSource, restore_timestamp: before }));
    expect(output.usable).toBe(true);
    expect(account('orders-copy').content).toEqual({ shop: { orders: 40_100, customers: 870 } });
  });

  it('sends nothing when the name was taken or the source deleted after the plan', async () => {
    const input = wish();
    const plan = await planOf(input);
    life().deletedAt = server.clock.now().getTime();
    expect((await failure(operate(input, { plan }))).code).toBe('INVALID_STATE');
    delete life().deletedAt;
    simulator.state.accounts.set('orders-copy', { ...account('events-mongo'), name: 'orders-copy' });
    expect((await failure(operate(input, { plan }))).code).toBe('RESOURCE_EXISTS');
    expect(server.writes()).toEqual([]);
  });

  it('throws what a restore that fails at Azure means, and remembers its word', async () => {
    simulator.state.failNext.push('InternalServerError');
    const context = await connect();
    const error = await failure(operate(wish(), { context }));
    expect(error).toMatchObject({
      code: 'PROVIDER_UNAVAILABLE',
      retryable: false,
      provider: { code: 'InternalServerError' },
    });
    expect(error.hint).toMatch(/delete it before the name is used again/);
    expect(await read(tools.getRestoreStatus, { target_id: 'orders-copy' }, context)).toMatchObject({
      status: 'failed',
      usable: false,
      provider: { error_code: 'InternalServerError' },
    });
  });

  it('follows the account itself when the operation is forgotten, hidden or at a strange address', async () => {
    simulator.state.denied.add('locations/operationsStatus/read');
    simulator.state.denied.add('databaseAccounts/*/retrieveContinuousBackupInformation/action');
    expect((await operate(wish())).output.usable).toBe(true);
    simulator.state.denied.clear();
    simulator.state.failNext.push('QuotaExceeded');
    simulator.state.denied.add('locations/operationsStatus/read');
    expect((await failure(operate(wish({ target_id: 'failed-copy' })))).message).toMatch(/failed at Azure/);
  });

  it('does not call a new account restored that does not say so', async () => {
    const context = await connect();
    const input = wish();
    const plan = await planOf(input, context);
    const trace: Trace = { results: {}, handles: {}, progress: [] };
    const [begin, wait, verify] = tools.restore.steps!(input, asPlan(plan));
    trace.results['restore'] = await granted(() => begin!.run(stepContext(context, input, trace, begin!)));
    trace.results['wait'] = await wait!.run(stepContext(context, input, trace, wait!));
    account('orders-copy').createMode = 'Default';
    expect((await failure(verify!.run(stepContext(context, input, trace, verify!)))).code).toBe('INTEGRITY_FAILED');
  });

  it('shows a restore from its beginning to its end, and no other accounts', async () => {
    const context = await connect();
    const input = wish();
    const plan = await planOf(input, context);
    const trace: Trace = { results: {}, handles: {}, progress: [] };
    const [begin] = tools.restore.steps!(input, asPlan(plan));
    await granted(() => begin!.run(stepContext(context, input, trace, begin!)));
    const status = (target_id = 'orders-copy') => read<RestoreJob>(tools.getRestoreStatus, { target_id }, context);
    expect(await status()).toMatchObject({ status: 'running', usable: false });
    server.clock.advance(5000);
    expect(await status()).toMatchObject({ status: 'succeeded', usable: true, job_id: 'orders-copy' });
    account('orders-copy').state = 'SomethingNew';
    expect(await status()).toMatchObject({ status: 'unknown', usable: false });
    expect((await failure(status(ORDERS))).code).toBe('INVALID_PARAMETER');
    expect((await failure(status('not-there'))).code).toBe('RESOURCE_NOT_FOUND');
    expect((await failure(status('a/../b'))).code).toBe('INVALID_PARAMETER');
  });

  it('runs every example of its declarations', async () => {
    const reads = [
      tools.getBackupInfo,
      tools.listRestorableAccounts,
      tools.listRestorableDatabases,
      tools.listRestorableContainers,
      tools.getRestoreStatus,
    ];
    for (const action of reads) {
      expect(action.output.safeParse(await read(action, action.example)).success).toBe(true);
    }
    const text = JSON.stringify(tools.restore.example).replace('$latest', ago(2 * 60_000));
    const { output } = await operate(JSON.parse(text) as JsonObject);
    expect(tools.restore.output.safeParse(output).success).toBe(true);
  });
});

describe('ways back', () => {
  it('gives the newest moment of each life of the account as an exact call that can be planned', async () => {
    const context = await connect();
    const options = await azureCosmos.recoveryOptions(context as never, undefined);
    expect(options.map(({ risk }) => risk)).toEqual(['create', 'create']);
    for (const option of options) expect((await planOf(option.call.input, context)).loses).toMatch(/^nothing/);
    const at = new Date(server.clock.now().getTime() - 25 * DAY);
    const earlier = await azureCosmos.recoveryOptions(context as never, at);
    expect(earlier).toMatchObject([
      { moment: at.toISOString(), call: { input: { source_id: COSMOS_SANDBOX.deletedSource } } },
    ]);
  });

  it('still knows a way when the account is gone or tells nothing', async () => {
    const context = await connect();
    simulator.state.accounts.delete(ORDERS);
    life().deletedAt = server.clock.now().getTime() - HOUR;
    const [first] = await azureCosmos.recoveryOptions(context as never, undefined);
    expect(first?.title).toMatch(/deleted at/);
    expect((await planOf(first!.call.input, context)).loses).toMatch(/^nothing/);
    delete life().deletedAt;
    const [blind] = await azureCosmos.recoveryOptions(context as never, undefined);
    expect(blind?.title).toMatch(/an hour ago/);
  });

  it('names new accounts within 44 characters', () => {
    const name = newAccountName(`a${'b'.repeat(43)}`, new Date('2026-11-21T10:30:00Z'));
    expect(name).toMatch(/^ab{27}-r20261121103000$/);
    expect(newAccountName('abcdefghijklmnopqrstuvwxyza-b', new Date(0))).not.toMatch(/--/);
  });
});

describe('faults', () => {
  it.each([
    ['429', { retry_after: 1 }],
    ['500', {}],
    ['503', { retry_after: 1 }],
    ['reset', {}],
    ['lost', {}],
    ['malformed', {}],
    ['truncated', {}],
  ] as const)('reads through %s', async (kind, extra) => {
    server.fault({ kind, times: 2, ...extra });
    expect(await read(tools.getRestoreStatus, { target_id: COSMOS_SANDBOX.restored })).toMatchObject({ usable: true });
    expect(server.journal.filter((entry) => entry.fault === kind)).toHaveLength(2);
  });

  it.each([
    ['429', 'RATE_LIMITED'],
    ['500', 'PROVIDER_UNAVAILABLE'],
    ['503', 'PROVIDER_UNAVAILABLE'],
    ['reset', 'PROVIDER_UNAVAILABLE'],
    ['malformed', 'PROVIDER_UNAVAILABLE'],
    ['truncated', 'PROVIDER_UNAVAILABLE'],
  ] as const)('gives up on lasting %s as %s', async (kind, code) => {
    server.fault({ kind });
    expect((await failure(read(tools.listRestorableAccounts))).code).toBe(code);
  });

  const begun = async (context: Context, kind: '429' | '500' | 'reset' | 'lost' | 'malformed' | 'truncated') => {
    const input = wish();
    const plan = await planOf(input, context);
    const trace: Trace = { results: {}, handles: {}, progress: [] };
    const [step] = tools.restore.steps!(input, asPlan(plan));
    server.fault({ kind, method: 'PUT' });
    const error = await failure(granted(() => step!.run(stepContext(context, input, trace, step!))));
    server.clearFaults();
    const recover = (): Promise<Recovery> => step!.recover!(stepContext(context, input, trace, step!));
    return { error, recover, trace };
  };

  it.each(['lost', 'malformed', 'truncated'] as const)('finds a restore again whose answer was %s', async (kind) => {
    const { error, recover } = await begun(await connect(), kind);
    expect(error.details).toMatchObject({ outcome: 'unknown' });
    expect(await recover()).toMatchObject({ state: 'done', result: { target: 'orders-copy', sent: true } });
    expect(server.writes()).toHaveLength(1);
  });

  it.each(['reset', '500'] as const)('knows that nothing began after %s', async (kind) => {
    const { error, recover } = await begun(await connect(), kind);
    expect(error.details).toMatchObject({ outcome: 'unknown' });
    expect(await recover()).toMatchObject({ state: 'not_begun' });
    expect(server.writes()).toHaveLength(1);
  });

  it('takes a refusal as one, sends it once, and looks for nothing', async () => {
    const { error } = await begun(await connect(), '429');
    expect(error).toMatchObject({ code: 'RATE_LIMITED' });
    expect(error.details).toBeUndefined();
    expect(server.writes()).toHaveLength(1);
  });

  it('does not take an account of someone else for its own', async () => {
    const { recover } = await begun(await connect(), 'reset');
    simulator.state.accounts.set('orders-copy', { ...account('events-mongo'), name: 'orders-copy' });
    expect(await recover()).toMatchObject({ state: 'unknown', message: expect.stringMatching(/mark/) });
    account('orders-copy').group = 'other-group';
    expect(await recover()).toMatchObject({ state: 'unknown', message: expect.stringMatching(/taken/) });
  });

  it('stops when it is told to', async () => {
    const controller = new AbortController();
    const context = await connect({}, {}, controller.signal);
    controller.abort();
    expect((await failure(read(tools.getBackupInfo, {}, context))).code).toBe('CANCELLED');
    expect(server.journal).toEqual([]);
  });
});

describe('where the token goes', () => {
  it('follows links to Azure at the configured origin, and to no other host', async () => {
    simulator.state.pageSize = 2;
    expect((await read<{ accounts: unknown[] }>(tools.listRestorableAccounts)).accounts).toHaveLength(8);
    simulator.state.links = 'https://evil.example';
    const asked: string[] = [];
    const runtime = fastRuntime();
    const context = await connect(
      {},
      {
        fetch: (url, init) => {
          asked.push(new URL(String(url)).origin);
          return runtime.fetch(url, init);
        },
      },
    );
    const error = await failure(read(tools.listRestorableAccounts, {}, context));
    expect(error).toMatchObject({ code: 'PROVIDER_UNAVAILABLE', retryable: false });
    expect(error.message).toMatch(/not Azure Resource Manager/);
    simulator.state.pageSize = 100;
    simulator.state.denied.add('databaseAccounts/*/retrieveContinuousBackupInformation/action');
    const { output, trace } = await operate(wish(), { context });
    expect(output.usable).toBe(true);
    expect(trace.results['restore']).not.toHaveProperty('operation_url');
    expect(new Set(asked)).toEqual(new Set([server.origin]));
  });

  it('is that of its own cloud, or loopback', async () => {
    const { schema, sandbox } = azureCosmos.entityTypes[DEFINES]!;
    const parsed = schema.parse(sandbox!.parameters);
    for (const endpoint of [
      'http://example.com',
      'https://example.com',
      'https://management.azure.com.evil.com',
      'https://management.chinacloudapi.cn',
      'http://management.azure.com',
      'ftp://127.0.0.1',
      'nonsense',
      'http://127.0.0.1.evil.com',
    ]) {
      const attempt = azureCosmos.connect({ ...parsed, endpoint } as never, fastRuntime());
      expect((await failure(attempt)).code).toBe('CONFIG_INVALID');
    }
    const own = { ...parsed, cloud: 'china', endpoint: 'https://management.chinacloudapi.cn' };
    await expect(azureCosmos.connect(own as never, fastRuntime())).resolves.toMatchObject({ account: ORDERS });
  });

  it('follows no redirect', async () => {
    const moved = async (): Promise<Response> =>
      new Response(null, { status: 307, headers: { location: 'https://evil.example/' } });
    const context = await connect({}, { fetch: moved });
    expect((await failure(read(tools.getRestoreStatus, { target_id: 'x-y-z' }, context))).code).toBe(
      'PROVIDER_UNAVAILABLE',
    );
  });
});

describe('errors of Azure', () => {
  const addressed = { resource: 'account', permission: 'p', role: 'r', scope: 's', write: true } as const;
  it.each([
    [401, 'ExpiredAuthenticationToken', 'text', 'AUTHENTICATION_FAILED'],
    [403, 'AuthorizationFailed', 'text', 'INSUFFICIENT_PERMISSIONS'],
    [403, 'LinkedAuthorizationFailed', 'text', 'INSUFFICIENT_PERMISSIONS'],
    [403, 'RequestDisallowedByPolicy', 'text', 'INSUFFICIENT_PERMISSIONS'],
    [404, 'ResourceNotFound', 'text', 'RESOURCE_NOT_FOUND'],
    [404, 'ResourceGroupNotFound', 'text', 'RESOURCE_NOT_FOUND'],
    [409, 'DatabaseAccountAlreadyExists', 'text', 'RESOURCE_EXISTS'],
    [400, 'BadRequest', 'Dns record for x is already taken. text', 'RESOURCE_EXISTS'],
    [409, 'ScopeLocked', 'text', 'INVALID_STATE'],
    [409, 'AnotherOperationInProgress', 'text', 'INVALID_STATE'],
    [412, 'PreconditionFailed', 'text', 'INVALID_STATE'],
    [400, 'BadRequest', 'There is another operation in progress text', 'INVALID_STATE'],
    [400, 'BadRequest', 'The account is in migration text', 'INVALID_STATE'],
    [409, 'MissingSubscriptionRegistration', 'text', 'INVALID_STATE'],
    [400, 'BadRequest', 'Invalid restore timestamp text', 'INVALID_PARAMETER'],
    [400, 'LocationNotAvailableForResourceType', 'text', 'INVALID_PARAMETER'],
    [400, 'SubscriptionQuotaExceeded', 'text', 'QUOTA_EXCEEDED'],
    [400, 'BadRequest', 'The maximum number of accounts text', 'QUOTA_EXCEEDED'],
    [429, 'SubscriptionRequestsThrottled', 'text', 'RATE_LIMITED'],
    [503, 'ServiceUnavailable', 'text', 'PROVIDER_UNAVAILABLE'],
    [409, 'Whatever', 'high demand in West Europe region text', 'PROVIDER_UNAVAILABLE'],
    [502, undefined, '<html>text</html>', 'PROVIDER_UNAVAILABLE'],
    [404, undefined, '<html>text</html>', 'PROVIDER_UNAVAILABLE'],
    [404, 'PARSE_ERROR', 'Error "Unexpected end of JSON input" text', 'PROVIDER_UNAVAILABLE'],
    [400, 'SomethingNew', 'text', 'INVALID_PARAMETER'],
  ] as const)('maps %i %s (%s) to %s, wrapped or flat', (status, code, message, ours) => {
    for (const body of [{ error: { code, message } }, { code, message }]) {
      const error = toCosmosError(new FailedAnswer(status, body, 'request-1'), addressed);
      expect(error.code).toBe(ours);
      expect(error.provider).toMatchObject({ status, request_id: 'request-1' });
      expect(`${error.message} ${error.hint}`).not.toMatch(/\btext\b/);
    }
  });

  it('keeps the ActivityId as the id of the request, and the name of a policy that forbids', async () => {
    const body = { error: { code: 'BadRequest', message: 'No\r\nActivityId: 1b4e28ba-2fa1-11d2-883f-0016d3cca427' } };
    expect(toCosmosError(new FailedAnswer(400, body, null), addressed).provider?.request_id).toMatch(/^1b4e28ba/);
    simulator.state.refuseNext.push({
      status: 403,
      code: 'RequestDisallowedByPolicy',
      message: 'text',
      additionalInfo: [{ type: 'PolicyViolation', info: { policyAssignmentName: 'no-new-accounts' } }],
    });
    const error = await failure(operate(wish()));
    expect(error).toMatchObject({ code: 'INSUFFICIENT_PERMISSIONS', details: { policy: 'no-new-accounts' } });
    expect(error.message).toMatch(/policy forbids/);
  });

  it('sends nothing for a subscription that is none yet', async () => {
    const asked = connect({ subscription_id: 'your-subscription-id' });
    await expect(asked).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('no id of an Azure'),
    });
  });

  it('reads flat errors of the service, refused tokens and missing permissions', async () => {
    simulator.state.flatErrors = true;
    expect((await failure(read(tools.getRestoreStatus, { target_id: 'not-there' }))).code).toBe('RESOURCE_NOT_FOUND');
    simulator.state.denied.add('databaseAccounts/write');
    const denied = await failure(operate(wish()));
    expect(denied).toMatchObject({ code: 'INSUFFICIENT_PERMISSIONS' });
    expect(denied.hint).toMatch(/databaseAccounts\/write.*restore\/action/);
    simulator.state.unauthenticated = true;
    expect((await failure(read(tools.getBackupInfo))).code).toBe('AUTHENTICATION_FAILED');
    const elsewhere = await connect({ subscription_id: '11111111-2222-3333-4444-555555555555' });
    simulator.state.unauthenticated = false;
    expect((await failure(read(tools.getBackupInfo, {}, elsewhere))).message).toMatch(/no such subscription/);
  });

  it('reads every spelling of a moment, and every word of an operation', () => {
    expect(instant('10/26/2021 5:27:45 PM')).toBe('2021-10-26T17:27:45.000Z');
    expect(instant('10/26/2021 12:00:01 AM')).toBe('2021-10-26T00:00:01.000Z');
    expect(instant('2021-10-26T17:27:45')).toBe('2021-10-26T17:27:45.000Z');
    expect(instant('2021-10-26T17:27:45+02:00')).toBe('2021-10-26T15:27:45.000Z');
    expect(instant('soon')).toBeUndefined();
    const words = ['Enqueued', 'Dequeued', 'Whatever', 'Succeeded', 'Failed', 'Canceled', ''];
    expect(words.map((status) => toOperation({ status }, null).status)).toEqual([
      'running',
      'running',
      'running',
      'succeeded',
      'failed',
      'cancelled',
      'unknown',
    ]);
  });
});

describe('credentials', () => {
  /** Stands in for Azure's token hosts; everything else goes to the simulator. */
  function withTokenHost(answer: (url: URL, body: string) => Response, overrides: Partial<Runtime> = {}) {
    const asked: string[] = [];
    const concealed: string[] = [];
    const runtime: Partial<Runtime> = {
      conceal: (value) => void concealed.push(value),
      fetch: resilientFetch({
        title: 'Azure Cosmos DB',
        limits: { per_second: 1000, burst: 1000, concurrent: 8, timeout_ms: 5000 },
        fetch: async (input, init) => {
          const url = new URL(String(input));
          if (url.origin === server.origin) return fetch(input, init);
          asked.push(url.origin + url.pathname);
          const discovery =
            url.pathname.includes('openid-configuration') || url.pathname.includes('discovery/instance');
          if (!discovery) return answer(url, String(init?.body ?? ''));
          const base = `${url.origin}/tenant-1`;
          return Response.json({
            tenant_discovery_endpoint: `${base}/v2.0/.well-known/openid-configuration`,
            metadata: [],
            authorization_endpoint: `${base}/oauth2/v2.0/authorize`,
            token_endpoint: `${base}/oauth2/v2.0/token`,
            issuer: `${base}/v2.0`,
            jwks_uri: `${base}/keys`,
          });
        },
        now: Date.now,
        sleep: async () => {},
        random: Math.random,
        base_ms: 1,
      }),
      ...overrides,
    };
    return { runtime, asked, concealed };
  }
  const token = (): Response =>
    Response.json({ access_token: 'azure-fresh-token', expires_in: 3600, token_type: 'Bearer' });
  const explicit = {
    access_token: null,
    tenant_id: 'tenant-1',
    client_id: '${env:CLIENT}',
    client_secret: '${env:SECRET}',
  };
  const environment: Record<string, string> = {
    AZURE_TENANT_ID: 'tenant-1',
    AZURE_CLIENT_ID: 'client-1',
    AZURE_CLIENT_SECRET: 'canary-client-secret',
  };

  it.each([
    ['the entity', explicit, {}],
    ['the environment', { access_token: null }, { credential: (name: string) => environment[name] }],
  ])('signs in with the client secret of %s once, and hides the token', async (_, parameters, overrides) => {
    const bodies: string[] = [];
    const { runtime, asked, concealed } = withTokenHost((_url, body) => {
      bodies.push(body);
      return token();
    }, overrides);
    const context = await connect(parameters, runtime);
    await read(tools.getBackupInfo, {}, context);
    await read(tools.listRestorableAccounts, {}, context);
    expect(bodies).toHaveLength(1);
    expect(new URLSearchParams(bodies[0]).get('scope')).toContain('https://management.azure.com/.default');
    expect(new Set(asked.map((url) => new URL(url).origin))).toEqual(new Set(['https://login.microsoftonline.com']));
    expect(concealed).toContain('azure-fresh-token');
  });

  it('asks the token host of its cloud', async () => {
    const { runtime, asked } = withTokenHost(token);
    simulator.state.links = 'https://management.chinacloudapi.cn';
    simulator.state.pageSize = 3;
    const context = await connect({ ...explicit, cloud: 'china' }, runtime);
    expect((await read<{ accounts: unknown[] }>(tools.listRestorableAccounts, {}, context)).accounts).toHaveLength(8);
    // The identity library calls the host of that cloud by its newer name.
    expect(asked.at(-1)).toMatch(/^https:\/\/login\.(partner\.microsoftonline|chinacloudapi)\.cn\//);
  });

  it('takes a refusal by the token host as refused credentials, before anything reaches Azure', async () => {
    const refused = () =>
      Response.json(
        { error: 'invalid_client', error_description: 'AADSTS7000215: Invalid client secret canary-text' },
        { status: 401 },
      );
    const { runtime } = withTokenHost(refused);
    const error = await failure(read(tools.getBackupInfo, {}, await connect(explicit, runtime)));
    expect(error).toMatchObject({ code: 'AUTHENTICATION_FAILED', details: { outcome: 'not_sent' } });
    expect(error.message).toMatch(/AADSTS7000215/);
    expect(error.hint).toMatch(/MCP client hands down only the variables named/);
    expect(JSON.stringify(error.toJson())).not.toContain('canary-text');
    expect(server.journal).toEqual([]);
  });

  it.each([503, 429])('does not take a token host that answers %i for a refusal', async (status) => {
    const { runtime } = withTokenHost(() => Response.json({ error: 'temporarily_unavailable' }, { status }));
    const error = await failure(read(tools.getBackupInfo, {}, await connect(explicit, runtime)));
    expect(error).toMatchObject({ code: 'PROVIDER_UNAVAILABLE', retryable: true, details: { outcome: 'not_sent' } });
  });

  it('does not take a token host that cannot be reached for a refusal, and asks it again later', async () => {
    let away = true;
    const { runtime } = withTokenHost(() => {
      if (away) throw new TypeError('fetch failed');
      return token();
    });
    const context = await connect(explicit, runtime);
    const error = await failure(read(tools.getBackupInfo, {}, context));
    expect(error).toMatchObject({ code: 'PROVIDER_UNAVAILABLE', details: { outcome: 'not_sent' } });
    away = false;
    expect(await read(tools.getBackupInfo, {}, context)).toMatchObject({ automated: true });
  });

  it('says where credentials are looked for when there are none', async () => {
    const saved = { ...process.env };
    for (const name of Object.keys(process.env)) if (name.startsWith('AZURE_')) delete process.env[name];
    Object.assign(process.env, { AZURE_TOKEN_CREDENTIALS: 'EnvironmentCredential' });
    try {
      const error = await failure(read(tools.getBackupInfo, {}, await connect({ access_token: null })));
      expect(error.code).toBe('AUTHENTICATION_FAILED');
      expect(error.message).toMatch(/AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET/);
      expect(error.hint).toMatch(/MCP client hands down only the variables named/);
    } finally {
      process.env = saved;
    }
    expect(server.journal).toEqual([]);
  });

  it('refuses contradictory parameters, literal secrets and names that would leave their place in a path', async () => {
    expect((await failure(connect({ ...explicit, access_token: '${env:A}' }))).code).toBe('CONFIG_INVALID');
    expect((await failure(connect({ access_token: null, client_secret: '${env:A}' }))).code).toBe('CONFIG_INVALID');
    const { schema, sandbox, example } = azureCosmos.entityTypes[DEFINES]!;
    expect(schema.safeParse(example).success).toBe(true);
    for (const wrong of [
      { client_secret: 'literal' },
      { access_token: 'literal' },
      { resource_group_name: '..' },
      { resource_group_name: 'ends.' },
      { resource_group_name: 'a/b' },
      { account_name: '' },
      { account_name: 'a--b' },
      { subscription_id: 'mine/../theirs' },
      { backup_policy: { backup_type: 'Periodic', periodic_interval_minutes: 1440, periodic_retention_hours: 8 } },
      { backup_policy: { backup_type: 'Continuous', tier: 'x' } },
    ]) {
      expect(schema.safeParse({ ...sandbox!.parameters, ...wrong }).success, JSON.stringify(wrong)).toBe(false);
    }
  });
});

describe('through the engine', () => {
  const KEY = 'sandbox/azure-cosmos';

  async function engine() {
    simulator.state.durations.restore = 100;
    const harness = await startHarness({
      modules: { azureCosmos: tools },
      entities: [
        {
          key: KEY,
          defines: DEFINES,
          parameters: azureCosmos.entityTypes[DEFINES]!.sandbox!.parameters,
          endpoint: server.origin,
        },
      ],
      secrets: { AZURE_ACCESS_TOKEN: CANARY },
    });
    closing.push(() => harness.close());
    return (action: string, input: JsonObject = {}, extra: object = {}) =>
      harness.engine.call({ principal: ANA, entity: KEY, action, input, wait: 'end', ...extra });
  }

  it('restores without asking, since nothing that exists is changed, and finds a lost answer by itself', async () => {
    const call = await engine();
    server.fault({ kind: 'lost', method: 'PUT', times: 1 });
    const outcome = await call('restore', wish());
    expect(outcome).toMatchObject({
      kind: 'operation',
      operation: { status: 'succeeded', result: { usable: true, job_id: 'orders-copy' } },
    });
    expect(server.writes()).toHaveLength(1);
    expect((await failure(call('restore', wish()))).code).toBe('RESOURCE_EXISTS');
    expect(server.writes()).toHaveLength(1);
  });

  it.each(['create-snapshot', 'list-snapshots', 'describe-snapshot', 'delete-snapshot'])(
    'answers %s with what to use instead',
    async (action) => {
      const error = await failure((await engine())(action));
      expect(error.code).toBe('NOT_SUPPORTED');
      expect(`${error.message} ${error.hint}`).toMatch(/list-restorable-accounts|get-backup-info/);
    },
  );

  it('keeps the token and the address of the operation out of everything', async () => {
    const call = await engine();
    const texts = JSON.stringify([
      await call('restore', wish()),
      await call('get-restore-status', { target_id: 'orders-copy' }),
      await call('get-backup-info'),
      await call('list-restorable-accounts'),
      (await failure(call('restore', wish()))).toJson(),
      (await failure(call('restore', { ...wish(), target_id: SUBSCRIPTION.slice(0, 2) }))).toJson(),
    ]);
    expect(texts).not.toContain(CANARY);
    expect(texts).not.toContain('operationsStatus');
    expect(JSON.stringify(server.journal)).not.toContain(CANARY);
  });
});
