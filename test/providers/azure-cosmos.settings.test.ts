import { afterEach, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { azureCosmos } from '../../src/providers/azure-cosmos/provider.ts';
import {
  azureCosmosSimulator,
  COSMOS_SANDBOX,
  type CosmosState,
  type SimulatedAccount,
} from '../../src/simulators/azure-cosmos.ts';
import type { SimulatorServerOptions } from '../../src/simulators/server.ts';
import * as tools from '../../tools/azure-cosmos.ts';
import { type DeclaredSite, startDeclaredSite } from '../support/declared-settings.ts';

const DEFINES = 'azure-cosmosdb/database-account';
const { account: ORDERS, group: GROUP, subscription: SUBSCRIPTION, source: SOURCE } = COSMOS_SANDBOX;
const DAY = 86_400_000;
const LEGACY = 'legacy-cosmos';

let site: DeclaredSite;
let state: CosmosState;
afterEach(() => site.close());

const accountCalled = (name: string): SimulatedAccount => state.accounts.get(name)!;
const life = () => state.lives.find(({ instanceId }) => instanceId === SOURCE)!;
const periodicOf = (name: string) => accountCalled(name).backupPolicy['periodicModeProperties'] as JsonObject;
const tier = (continuousTier: string): JsonObject => ({
  type: 'Continuous',
  continuousModeProperties: { tier: continuousTier },
});

async function declare(
  account: string,
  backup_policy: JsonObject,
  onRequest?: NonNullable<SimulatorServerOptions['onRequest']>,
): Promise<void> {
  site = await startDeclaredSite({
    simulators: (clock) => {
      const simulator = azureCosmosSimulator({ clock });
      state = simulator.state;
      Object.assign(state.durations, { update: 30, migration: 60 });
      return [simulator];
    },
    module: tools,
    defines: DEFINES,
    parameters: { ...azureCosmos.entityTypes[DEFINES]!.sandbox!.parameters, account_name: account, backup_policy },
    ...(onRequest === undefined ? {} : { onRequest }),
  });
}

const shown = async (): Promise<Record<string, unknown[]>> =>
  Object.fromEntries(
    (await site.check()).settings.map(({ setting, actual, verdict, to_apply }) => [
      setting.replace('backup_policy.', ''),
      [actual, verdict, to_apply?.risk],
    ]),
  );

describe('the declared backup policy of a Cosmos DB account', () => {
  it('is in line in the sandbox', async () => {
    await declare(ORDERS, { backup_type: 'Continuous', continuous_tier: 'Continuous30Days' });
    expect(await site.check()).toMatchObject({ target: `${GROUP}/${ORDERS}`, in_line: true });
    expect(await shown()).toEqual({
      backup_type: ['Continuous', 'as_declared', undefined],
      continuous_tier: ['Continuous30Days', 'as_declared', undefined],
    });
    expect(await site.apply()).toEqual([]);
    expect(site.writes()).toEqual([]);
  });

  it('drifts in the words of the file, each way with its risk', async () => {
    await declare(LEGACY, {
      backup_type: 'Periodic',
      periodic_interval_minutes: 360,
      periodic_retention_hours: 168,
      backup_storage_redundancy: 'Geo',
    });
    expect(await shown()).toEqual({
      backup_type: ['Periodic', 'as_declared', undefined],
      periodic_interval_minutes: [240, 'differs', 'weaken'],
      periodic_retention_hours: [8, 'differs', 'change'],
      backup_storage_redundancy: ['Local', 'differs', 'weaken'],
    });
  });

  it('is strengthened without asking, in one request that keeps the rest, and in force afterwards', async () => {
    await declare(LEGACY, {
      backup_type: 'Periodic',
      periodic_interval_minutes: 120,
      periodic_retention_hours: 168,
    });
    expect(await site.apply()).toEqual([
      { setting: 'backup_policy.periodic_interval_minutes', from: 240, to: 120 },
      { setting: 'backup_policy.periodic_retention_hours', from: 8, to: 168 },
    ]);
    const path = `/subscriptions/${SUBSCRIPTION}/resourceGroups/${GROUP}/providers/Microsoft.DocumentDB/databaseAccounts/${LEGACY}`;
    expect(site.writes()).toEqual([{ method: 'PATCH', path: expect.stringContaining(path) }]);
    const { body } = site.server.writes()[0]!;
    expect(body).toEqual({
      properties: {
        backupPolicy: {
          type: 'Periodic',
          periodicModeProperties: {
            backupIntervalInMinutes: 120,
            backupRetentionIntervalInHours: 168,
            backupStorageRedundancy: 'Local',
          },
        },
      },
    });
    expect(await site.check()).toMatchObject({ in_line: true });
  });

  it('widens the window from now on, without asking', async () => {
    await declare(ORDERS, { backup_type: 'Continuous', continuous_tier: 'Continuous30Days' });
    accountCalled(ORDERS).backupPolicy = tier('Continuous7Days');
    life().days = 7;
    const [, found] = (await site.check()).settings;
    expect(found?.to_apply).toEqual({ risk: 'change', effect: 'the window grows from 7 to 30 days, from now on' });
    expect(await site.apply()).toEqual([
      { setting: 'backup_policy.continuous_tier', from: 'Continuous7Days', to: 'Continuous30Days' },
    ]);
    expect(life()).toMatchObject({ days: 30 });
    expect(life().reachesFrom).toBeGreaterThan(Date.now() - 7 * DAY - 60_000);
  });

  it.each<[string, string, JsonObject, RegExp, () => void]>([
    [
      'a shorter window',
      ORDERS,
      { backup_type: 'Continuous', continuous_tier: 'Continuous7Days' },
      /shrinks from 30 to 7 days: older moments cannot be restored any more/,
      () => expect(life().days).toBe(7),
    ],
    [
      'rarer backups',
      LEGACY,
      { backup_type: 'Periodic', periodic_interval_minutes: 300, periodic_retention_hours: 12 },
      /takes a backup every 5 h, not every 4 h/,
      () => expect(periodicOf(LEGACY)).toMatchObject({ backupIntervalInMinutes: 300 }),
    ],
    [
      'a shorter retention',
      LEGACY,
      { backup_type: 'Periodic', periodic_retention_hours: 10 },
      /keeps backups for 10 h, not 12 h; the older ones are deleted/,
      () => expect(periodicOf(LEGACY)).toMatchObject({ backupRetentionIntervalInHours: 10 }),
    ],
    [
      'another redundancy, even a better one',
      LEGACY,
      { backup_type: 'Periodic', backup_storage_redundancy: 'Geo' },
      /Geo redundancy, not Local: those taken before cannot be restored any more/,
      () => expect(periodicOf(LEGACY)).toMatchObject({ backupStorageRedundancy: 'Geo' }),
    ],
  ])('waits for a person before %s', async (_, account, policy, effect, proof) => {
    await declare(account, policy);
    if (account === LEGACY) periodicOf(LEGACY)['backupRetentionIntervalInHours'] = 12;
    const details = await site.asked();
    expect(details.plan).toMatchObject({ risk: 'weaken', target: `${GROUP}/${account}` });
    expect(details.plan.loses).toMatch(effect);
    expect(site.writes()).toEqual([]);
    expect(await site.approveAndApply(details)).toHaveLength(1);
    expect(site.writes()).toHaveLength(1);
    proof();
    expect(await site.check()).toMatchObject({ in_line: true });
  });

  it('goes to continuous backup only with a person, who is told that there is no way back', async () => {
    await declare(LEGACY, { backup_type: 'Continuous', continuous_tier: 'Continuous7Days' });
    const details = await site.asked();
    expect(details.plan.loses).toMatch(/window of 7 days, which cannot be stopped.*support ticket only/);
    expect(details.plan.undo).toMatch(/backup_policy.backup_type cannot be undone/);
    expect(await site.approveAndApply(details)).toEqual([
      { setting: 'backup_policy.backup_type', from: 'Periodic', to: 'Continuous' },
      { setting: 'backup_policy.continuous_tier', from: null, to: 'Continuous7Days' },
    ]);
    expect(site.writes()).toHaveLength(1);
    expect(accountCalled(LEGACY).backupPolicy).toMatchObject({
      ...tier('Continuous7Days'),
      migrationState: { status: 'Completed' },
    });
  });

  it('never asks for periodic backup where there is continuous one, nor for what the mode has not', async () => {
    await declare(ORDERS, {
      backup_type: 'Periodic',
      periodic_interval_minutes: 120,
      backup_storage_redundancy: 'Geo',
    });
    expect(await shown()).toEqual({
      backup_type: ['Continuous', 'differs', undefined],
      periodic_interval_minutes: [null, 'differs', undefined],
      backup_storage_redundancy: [undefined, 'unknown', undefined],
    });
    expect((await site.check()).settings[0]?.note).toMatch(/cannot be changed back to periodic/);
    expect(await site.apply()).toEqual([]);
    expect(site.writes()).toEqual([]);
  });

  it('leaves a retention of less than two intervals alone, declared or put together', async () => {
    await declare(LEGACY, { backup_type: 'Periodic', periodic_interval_minutes: 1440 });
    const [, alone] = (await site.check()).settings;
    expect(alone).toMatchObject({ verdict: 'differs', note: expect.stringMatching(/at least two intervals/) });
    expect(alone?.to_apply).toBeUndefined();
    await site.close();
    await declare(LEGACY, {
      backup_type: 'Periodic',
      periodic_interval_minutes: 720,
      periodic_retention_hours: 24,
    });
    const only = { settings: ['backup_policy.periodic_interval_minutes'] };
    const details = await site.asked(only);
    await expect(site.approveAndApply(details, only)).rejects.toMatchObject({
      code: 'INVALID_PARAMETER',
      hint: expect.stringMatching(/in one call/),
    });
    expect(site.writes()).toEqual([]);
  });

  it('guards what cannot be told: a tier of a later release', async () => {
    await declare(ORDERS, { backup_type: 'Continuous', continuous_tier: 'Continuous30Days' });
    accountCalled(ORDERS).backupPolicy = tier('Continuous90Days');
    expect((await site.asked()).plan.loses).toMatch(/sets the window to 30 days; what it was is not known/);
    accountCalled(ORDERS).backupPolicy = { type: 'Continuous' };
    expect((await shown())['continuous_tier']).toEqual([undefined, 'unknown', 'weaken']);
    accountCalled(ORDERS).backupPolicy = { type: 'Quantum' };
    expect((await site.check()).settings[0]).toMatchObject({
      actual: 'Quantum',
      note: expect.stringMatching(/not one of the known ways/),
    });
  });

  it('changes nothing while the account moves, and does not follow a change that Azure refuses later', async () => {
    await declare(LEGACY, { backup_type: 'Continuous' });
    const details = await site.asked();
    accountCalled(LEGACY).backupPolicy['migrationState'] = { status: 'InProgress', targetType: 'Continuous' };
    await expect(site.approveAndApply(details)).rejects.toMatchObject({ code: 'INVALID_STATE' });
    expect((await site.check()).settings[0]?.note).toMatch(/is moving to continuous backup/);
    expect(site.writes()).toEqual([]);
    await site.close();

    await declare(ORDERS, { backup_type: 'Continuous', continuous_tier: 'Continuous30Days' });
    accountCalled(ORDERS).backupPolicy = tier('Continuous7Days');
    state.failNext.push('ServiceUnavailable');
    await expect(site.apply()).rejects.toMatchObject({
      code: 'PROVIDER_UNAVAILABLE',
      message: expect.stringMatching(/the change failed at Azure with ServiceUnavailable/),
    });
    expect(site.writes()).toHaveLength(1);
  });

  it('is not sent twice when the answer is lost', async () => {
    await declare(ORDERS, { backup_type: 'Continuous', continuous_tier: 'Continuous30Days' }, ({ method }, phase) =>
      method === 'PATCH' && phase === 'handled' ? 'drop' : 'go on',
    );
    accountCalled(ORDERS).backupPolicy = tier('Continuous7Days');
    expect(await site.apply()).toHaveLength(1);
    expect(site.writes()).toHaveLength(1);
  });

  it('voids an approval when somebody changes it before the call, and stops when somebody does during it', async () => {
    await declare(ORDERS, { backup_type: 'Continuous', continuous_tier: 'Continuous7Days' });
    const details = await site.asked();
    accountCalled(ORDERS).backupPolicy = tier('Continuous90Days');
    await expect(site.approveAndApply(details)).rejects.toMatchObject({ code: 'PLAN_CHANGED' });
    expect(site.writes()).toEqual([]);
    await site.close();

    let looks = 0;
    await declare(LEGACY, { backup_type: 'Periodic', periodic_retention_hours: 24 }, ({ method, path }, phase) => {
      if (method === 'GET' && path.includes('/databaseAccounts/') && phase === 'arrived') looks += 1;
      // Plan, the step's own look, and the last one just before the request.
      if (looks === 3 && phase === 'arrived') periodicOf(LEGACY)['backupRetentionIntervalInHours'] = 48;
      return 'go on';
    });
    await expect(site.apply()).rejects.toMatchObject({ code: 'PLAN_CHANGED' });
    expect([looks, site.writes().length]).toEqual([3, 0]);
  });

  it('says which permission it needs', async () => {
    await declare(LEGACY, { backup_type: 'Periodic', periodic_retention_hours: 24 });
    state.denied.add('databaseAccounts/write');
    await expect(site.apply()).rejects.toMatchObject({
      code: 'INSUFFICIENT_PERMISSIONS',
      hint: expect.stringMatching(
        /^Add this to the Azure role definition: Microsoft.DocumentDB\/databaseAccounts\/write/,
      ),
      details: { missing_permission: 'Microsoft.DocumentDB/databaseAccounts/write', policy: expect.any(String) },
    });
  });
});
