import { afterEach, describe, expect, it } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import { awsDynamodb } from '../../src/providers/aws-dynamodb/provider.ts';
import {
  awsDynamodbSimulator,
  DYNAMODB_SANDBOX,
  type DynamoDbState,
  type SimulatedTable,
} from '../../src/simulators/aws-dynamodb.ts';
import * as tools from '../../tools/aws-dynamodb.ts';
import { type DeclaredSite, startDeclaredSite } from '../support/declared-settings.ts';

const { table: ORDERS, region: REGION } = DYNAMODB_SANDBOX;
const LEGACY = 'legacy-sessions';
const DAY = 86_400_000;

interface Site extends DeclaredSite {
  readonly state: DynamoDbState;
  readonly table: SimulatedTable;
  /** What was written, with its operation. */
  readonly sent: () => unknown[];
}

let open: Site[] = [];
afterEach(async () => {
  for (const site of open) await site.close();
  open = [];
});

async function start(declared: JsonObject, name: string = ORDERS): Promise<Site> {
  const simulators: DynamoDbState[] = [];
  const site = await startDeclaredSite({
    module: tools,
    defines: 'aws-dynamo-db/dynamo-db-table',
    parameters: {
      region: REGION,
      table_name: name,
      access_key_id: '${env:AWS_ACCESS_KEY_ID}',
      secret_access_key: '${env:AWS_SECRET_ACCESS_KEY}',
      ...declared,
    },
    simulators: (clock) => {
      const simulator = awsDynamodbSimulator({ clock });
      simulator.state.durations.update = 30;
      simulators.push(simulator.state);
      return [simulator];
    },
  });
  const [state] = simulators as [DynamoDbState];
  const sent = () => site.server.writes().map(({ operation, body }) => [operation, body]);
  const made = { ...site, state, table: state.tables.get(name)!, sent };
  open.push(made);
  return made;
}

async function failure(work: Promise<unknown>): Promise<HoldfastError> {
  const outcome = await work.then(
    () => 'it ran',
    (cause: unknown) => cause,
  );
  expect(outcome).toBeInstanceOf(HoldfastError);
  return outcome as HoldfastError;
}

const ALL = {
  point_in_time_recovery_enabled: true,
  recovery_period_in_days: 14,
  deletion_protection_enabled: true,
};

describe('declared settings of DynamoDB', () => {
  it('are in line where the table has them so, tags that are not declared left aside', async () => {
    const { check } = await start({ ...ALL, tags: { Environment: 'production' } });
    expect(await check()).toEqual({
      target: `${REGION}/${ORDERS}`,
      in_line: true,
      settings: [...Object.entries(ALL), ['tags.Environment', 'production']].map(([setting, declared]) => ({
        setting,
        declared,
        actual: declared,
        verdict: 'as_declared',
      })),
    });
  });

  it('are applied with one request for each part of the API, and are in force afterwards', async () => {
    const { apply, check, sent, table } = await start({ ...ALL, tags: { Team: 'shop' } }, LEGACY);
    expect((await check()).settings.map(({ to_apply }) => to_apply)).toEqual([
      { risk: 'change', effect: 'every second from now on can be restored, for 14 days' },
      { risk: 'change', effect: 'keeps every second for 14 days' },
      { risk: 'change', effect: 'refuses the deletion of the table' },
      expect.objectContaining({ risk: 'change', effect: expect.stringMatching(/^sets the tag/) }),
    ]);
    expect(await apply()).toEqual([
      { setting: 'point_in_time_recovery_enabled', from: false, to: true },
      { setting: 'recovery_period_in_days', from: null, to: 14 },
      { setting: 'deletion_protection_enabled', from: false, to: true },
      { setting: 'tags.Team', from: null, to: 'shop' },
    ]);
    expect(sent()).toEqual([
      [
        'UpdateContinuousBackups',
        {
          TableName: LEGACY,
          PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true, RecoveryPeriodInDays: 14 },
        },
      ],
      ['UpdateTable', { TableName: LEGACY, DeletionProtectionEnabled: true }],
      [
        'TagResource',
        { ResourceArn: expect.stringMatching(/table\/legacy-sessions$/), Tags: [{ Key: 'Team', Value: 'shop' }] },
      ],
    ]);
    expect(await check()).toMatchObject({ in_line: true });
    expect(table).toMatchObject({ pitr: { enabled: true, days: 14 }, deletionProtection: true });
  });

  it('raise the period and nothing else', async () => {
    const { apply, sent, server, table } = await start({ recovery_period_in_days: 35 });
    expect(await apply()).toEqual([{ setting: 'recovery_period_in_days', from: 14, to: 35 }]);
    expect(sent()).toEqual([
      [
        'UpdateContinuousBackups',
        {
          TableName: ORDERS,
          PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true, RecoveryPeriodInDays: 35 },
        },
      ],
    ]);
    expect(table.pitr.days).toBe(35);
    expect(server.clock.now().getTime() - table.pitr.since).toBeLessThan(14.1 * DAY);
  });

  it.each([
    [
      { recovery_period_in_days: 1 },
      'keeps every second for 1 day, not 14; the older ones are gone for good.',
      'UpdateContinuousBackups',
    ],
    [
      { point_in_time_recovery_enabled: false },
      'discards the window of 14 days at once; switched on again it begins anew.',
      'UpdateContinuousBackups',
    ],
    [{ deletion_protection_enabled: false }, 'lets the table be deleted.', 'UpdateTable'],
    [
      { tags: { BackupEnabled: 'false' } },
      'replaces the tag; plans of AWS Backup and policies that go by it may take the table in or pass it over.',
      'TagResource',
    ],
  ])('that weaken wait for a person who sees what is lost: %j', async (declared, loses, operation) => {
    const { asked, approveAndApply, check, server, table } = await start(declared);
    const before = structuredClone(table);
    const details = await asked();
    expect(details.plan).toMatchObject({ risk: 'weaken', target: `${REGION}/${ORDERS}`, loses });
    expect(table).toEqual(before);
    expect(server.writes()).toEqual([]);
    expect(await approveAndApply(details)).toHaveLength(1);
    expect(server.writes().map(({ operation: name }) => name)).toEqual([operation]);
    expect(await check()).toMatchObject({ in_line: true });
  });

  it('of recovery that was switched off and on again begin a new window', async () => {
    const { asked, approveAndApply, server, table } = await start({ point_in_time_recovery_enabled: false });
    await approveAndApply(await asked());
    expect(server.clock.now().getTime() - table.pitr.since).toBeLessThan(DAY);
    expect(table.pitr.enabled).toBe(false);
  });

  it('have no period where recovery is off, and say what to declare', async () => {
    const { apply, check, server } = await start({ recovery_period_in_days: 14 }, LEGACY);
    expect((await check()).settings).toEqual([
      {
        setting: 'recovery_period_in_days',
        declared: 14,
        actual: null,
        verdict: 'differs',
        note: 'point-in-time recovery is off: declare point_in_time_recovery_enabled: true',
      },
    ]);
    expect(await apply()).toEqual([]);
    const both = await start(ALL, LEGACY);
    const error = await failure(both.apply({ settings: ['recovery_period_in_days'] }));
    expect(error).toMatchObject({ code: 'INVALID_PARAMETER', details: { outcome: 'not_sent' } });
    const off = await start({ point_in_time_recovery_enabled: false, recovery_period_in_days: 14 }, LEGACY);
    expect(await off.check()).toMatchObject({ in_line: true });
    expect([...server.writes(), ...both.server.writes()]).toEqual([]);
  });

  it('take the period of DynamoDB where only recovery is declared', async () => {
    const { apply, table } = await start({ point_in_time_recovery_enabled: true }, LEGACY);
    await apply();
    expect(table.pitr).toMatchObject({ enabled: true, days: 35 });
  });

  it('change nothing when somebody changed them after the plan, or the table is another', async () => {
    const { asked, approveAndApply, server, table } = await start({ recovery_period_in_days: 7 });
    const details = await asked();
    table.pitr.days = 28;
    expect((await failure(approveAndApply(details))).code).toBe('PLAN_CHANGED');
    const again = await asked();
    table.id = '0b0a7f5e-0000-4000-8000-000000000000';
    expect((await failure(approveAndApply(again))).code).toBe('PLAN_CHANGED');
    expect(server.writes()).toEqual([]);
  });

  it.each([
    ['UpdateContinuousBackups', { recovery_period_in_days: 35 }],
    ['UpdateTable', { deletion_protection_enabled: true }],
    ['TagResource', { tags: { Team: 'shop' } }],
  ])('are not sent twice when the answer of %s is lost', async (operation, declared) => {
    const { apply, server, table } = await start(declared);
    table.deletionProtection = false;
    server.fault({ kind: 'lost', operation, times: 1 });
    expect(await apply()).toHaveLength(1);
    expect(server.writes()).toHaveLength(1);
  });

  it('tell a refusal, and that nothing was changed', async () => {
    const { apply, state, table } = await start({ recovery_period_in_days: 35 });
    state.denied.add('UpdateContinuousBackups');
    expect(await failure(apply())).toMatchObject({
      code: 'INSUFFICIENT_PERMISSIONS',
      message: 'Amazon DynamoDB refuses this: the credentials lack dynamodb:UpdateContinuousBackups',
      details: { missing_permission: 'dynamodb:UpdateContinuousBackups' },
    });
    state.denied.clear();
    state.failNext.push({ operation: 'UpdateContinuousBackups', type: 'ContinuousBackupsUnavailableException' });
    expect((await failure(apply())).code).toBe('INVALID_STATE');
    expect(table.pitr.days).toBe(14);
  });

  it('take 1 to 35 days, and no others', () => {
    const { schema } = awsDynamodb.entityTypes['aws-dynamo-db/dynamo-db-table']!;
    const fits = (recovery_period_in_days: number): boolean =>
      schema.safeParse({ region: REGION, table_name: ORDERS, recovery_period_in_days }).success;
    expect([0, 1, 35, 36, 1.5].map(fits)).toEqual([false, true, true, false, false]);
  });
});
