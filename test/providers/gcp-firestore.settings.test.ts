import { afterEach, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { gcpFirestore } from '../../src/providers/gcp-firestore/provider.ts';
import {
  FIRESTORE_SANDBOX,
  type FirestoreState,
  gcpFirestoreSimulator,
  type SimulatedDatabase,
  type SimulatedSchedule,
} from '../../src/simulators/gcp-firestore.ts';
import * as tools from '../../tools/gcp-firestore.ts';
import { type DeclaredSite, startDeclaredSite } from '../support/declared-settings.ts';

const DEFINES = 'gcp/firestore';
const { project: PROJECT, database: CARTS, dailySchedule } = FIRESTORE_SANDBOX;
const HOUR = 3_600_000;

let site: DeclaredSite;
let state: FirestoreState;
afterEach(() => site.close());

const databaseCalled = (id: string): SimulatedDatabase => state.databases.get(`${PROJECT}/${id}`)!;
const schedulesOf = (id: string): SimulatedSchedule[] =>
  state.schedules.filter(({ database }) => database === `projects/${PROJECT}/databases/${id}`);
const kinds = (): string[] => site.writes().map(({ method, path }) => `${method} ${path.split('/').at(-1)}`);

async function declare(
  parameters: JsonObject,
  onRequest?: (entry: { method: string; path: string }, phase: string) => 'go on' | 'drop',
): Promise<void> {
  site = await startDeclaredSite({
    simulators: (clock) => {
      const simulator = gcpFirestoreSimulator({ clock });
      state = simulator.state;
      state.durations.update = 30;
      return [simulator];
    },
    module: tools,
    defines: DEFINES,
    parameters: { project: PROJECT, access_token: '${env:GOOGLE_OAUTH_ACCESS_TOKEN}', ...parameters },
    ...(onRequest === undefined ? {} : { onRequest }),
  });
}

describe('the declared settings of a Firestore database', () => {
  it('are in line in the sandbox, every one of them looked at', async () => {
    await declare(gcpFirestore.entityTypes[DEFINES]!.sandbox!.parameters);
    const { in_line, settings, target } = await site.check();
    expect(settings.map(({ setting, actual }) => [setting, actual])).toEqual([
      ['point_in_time_recovery', 'POINT_IN_TIME_RECOVERY_ENABLED'],
      ['delete_protection', 'DELETE_PROTECTION_ENABLED'],
      ['backup_schedules.daily.retention_days', 14],
      ['backup_schedules.weekly.retention_days', null],
      ['location', 'us-central1'],
      ['database_type', 'FIRESTORE_NATIVE'],
    ]);
    expect([in_line, target]).toEqual([true, `${PROJECT}/${CARTS}`]);
  });

  it('take true and false for the words of Google, and leave alone what is not declared', async () => {
    await declare({ database_id: '(default)', point_in_time_recovery: false });
    expect((await site.check()).settings).toEqual([
      {
        setting: 'point_in_time_recovery',
        declared: 'POINT_IN_TIME_RECOVERY_DISABLED',
        actual: 'POINT_IN_TIME_RECOVERY_DISABLED',
        verdict: 'as_declared',
      },
    ]);
  });

  it('are strengthened without asking: one request for the database, one for each schedule', async () => {
    await declare({
      database_id: '(default)',
      point_in_time_recovery: true,
      delete_protection: true,
      backup_schedules: [
        { frequency: 'daily', retention_days: 7 },
        { frequency: 'weekly', day: 'MONDAY', retention_days: 98 },
      ],
    });
    const applied = await site.apply();
    expect(applied).toEqual([
      {
        setting: 'point_in_time_recovery',
        from: 'POINT_IN_TIME_RECOVERY_DISABLED',
        to: 'POINT_IN_TIME_RECOVERY_ENABLED',
      },
      { setting: 'delete_protection', from: 'DELETE_PROTECTION_DISABLED', to: 'DELETE_PROTECTION_ENABLED' },
      { setting: 'backup_schedules.daily.retention_days', from: null, to: 7 },
      { setting: 'backup_schedules.weekly.retention_days', from: null, to: 98 },
    ]);
    expect(kinds()).toEqual([
      'PATCH %28default%29?updateMask=pointInTimeRecoveryEnablement%2CdeleteProtectionState',
      'POST backupSchedules',
      'POST backupSchedules',
    ]);
    expect(databaseCalled('(default)')).toMatchObject({ pitr: true, protected: true });
    expect(schedulesOf('(default)').map(({ retention, recurrence }) => [retention, recurrence])).toEqual([
      ['604800s', { dailyRecurrence: {} }],
      ['8467200s', { weeklyRecurrence: { day: 'MONDAY' } }],
    ]);
    expect(await site.check()).toMatchObject({ in_line: true });
    expect(await site.apply()).toEqual([]);
    expect(kinds()).toHaveLength(3);
  });

  it.each<[string, JsonObject, RegExp, string, () => void]>([
    [
      'point-in-time recovery off',
      { point_in_time_recovery: false },
      /only the last hour can be gone back to, not 7 days; older versions, which begin at \d{4}-[^ ]+, are unreadable at once/,
      'PATCH shop-carts?updateMask=pointInTimeRecoveryEnablement',
      () => expect(databaseCalled(CARTS).versionsSince).toBeGreaterThan(Date.now() - HOUR - 60_000),
    ],
    [
      'delete protection off',
      { delete_protection: 'DELETE_PROTECTION_DISABLED' },
      /delete protection is switched off/,
      'PATCH shop-carts?updateMask=deleteProtectionState',
      () => expect(databaseCalled(CARTS).protected).toBe(false),
    ],
    [
      'a shorter retention',
      { backup_schedules: [{ frequency: 'daily', retention_days: 3 }] },
      /keeps daily backups for 3 days, not 14 days; those that exist keep their expiry/,
      `PATCH ${dailySchedule}?updateMask=retention`,
      () => expect(schedulesOf(CARTS)[0]?.retention).toBe('259200s'),
    ],
    [
      'the end of a schedule',
      { backup_schedules: [] },
      /the daily schedule is deleted: no more daily backups, kept for 14 days, are taken/,
      `DELETE ${dailySchedule}`,
      () => expect(schedulesOf(CARTS)).toEqual([]),
    ],
  ])('wait for a person before %s', async (_, parameters, effect, request, proof) => {
    await declare({ database_id: CARTS, ...parameters });
    const details = await site.asked();
    expect(details.plan).toMatchObject({ risk: 'weaken', target: `${PROJECT}/${CARTS}` });
    expect(details.plan.loses).toMatch(effect);
    expect(site.writes()).toEqual([]);
    expect(await site.approveAndApply(details)).toHaveLength(1);
    expect(kinds()).toEqual([request]);
    proof();
    expect(await site.check()).toMatchObject({ in_line: true });
  });

  it('offer to strengthen alone where some of them would weaken', async () => {
    await declare({
      database_id: CARTS,
      delete_protection: false,
      backup_schedules: [{ frequency: 'daily', retention_days: 30 }],
    });
    const { plan } = await site.asked();
    const only = { settings: ['backup_schedules.daily.retention_days'] };
    expect(plan.alternatives?.[0]?.call).toMatchObject({ action: 'apply-settings', input: only });
    expect(await site.apply(only)).toEqual([{ setting: 'backup_schedules.daily.retention_days', from: 14, to: 30 }]);
  });

  it('that a database keeps for good are not applied, with the reason', async () => {
    await declare({
      database_id: 'ledger',
      location: 'nam5',
      database_type: 'FIRESTORE_NATIVE',
      backup_schedules: [{ frequency: 'weekly', day: 'FRIDAY', retention_days: 98 }],
    });
    const { settings } = await site.check();
    expect(
      settings
        .filter(({ verdict }) => verdict === 'differs')
        .map(({ setting, actual, note }) => [setting, actual, note]),
    ).toEqual([
      ['backup_schedules.weekly.day', 'SUNDAY', expect.stringMatching(/delete-backup-schedule/)],
      ['location', 'us-central1', expect.stringMatching(/stays/)],
      ['database_type', 'DATASTORE_MODE', expect.stringMatching(/stays/)],
    ]);
    expect(await site.apply()).toEqual([]);
    expect(site.writes()).toEqual([]);
  });

  it('that Firestore does not tell are unknown, and guarded', async () => {
    await declare({ database_id: CARTS, backup_schedules: [{ frequency: 'daily', retention_days: 14 }] });
    schedulesOf(CARTS)[0]!.retention = 'for ever';
    expect((await site.check()).settings[0]).toMatchObject({ verdict: 'unknown', to_apply: { risk: 'weaken' } });
    const { plan } = await site.asked();
    expect(plan.unknowns).toContain('what backup_schedules.daily.retention_days is now: the provider does not tell');
  });

  it.each([
    ['the database', { delete_protection: false }, (): boolean => databaseCalled(CARTS).protected === false],
    ['a schedule', { backup_schedules: [] }, (): boolean => schedulesOf(CARTS).length === 0],
  ] as const)('are not sent twice when the answer about %s is lost', async (_, parameters, isDone) => {
    await declare({ database_id: CARTS, ...(parameters as JsonObject) }, ({ method }, phase) =>
      method !== 'GET' && phase === 'handled' ? 'drop' : 'go on',
    );
    const details = await site.asked();
    expect(await site.approveAndApply(details)).toHaveLength(1);
    expect([site.writes().length, isDone()]).toEqual([1, true]);
  });

  it('fail as not sent where the request was lost on its way', async () => {
    await declare(
      { database_id: CARTS, backup_schedules: [{ frequency: 'daily', retention_days: 30 }] },
      ({ method }, phase) => (method !== 'GET' && phase === 'arrived' ? 'drop' : 'go on'),
    );
    await expect(site.apply()).rejects.toMatchObject({ code: 'PROVIDER_UNAVAILABLE' });
    expect([site.writes().length, schedulesOf(CARTS)[0]?.retention]).toEqual([1, '1209600s']);
  });

  it('void an approval when somebody changes one of them, before the call and during it', async () => {
    await declare({ database_id: CARTS, backup_schedules: [{ frequency: 'daily', retention_days: 3 }] });
    const details = await site.asked();
    schedulesOf(CARTS)[0]!.retention = '2419200s';
    await expect(site.approveAndApply(details)).rejects.toMatchObject({ code: 'PLAN_CHANGED' });
    await site.close();

    // Between the last look and the request: the etag is old by then.
    await declare({ database_id: '(default)', delete_protection: true }, ({ method }, phase) => {
      if (method === 'PATCH' && phase === 'arrived') databaseCalled('(default)').updatedAt += 1;
      return 'go on';
    });
    await expect(site.apply()).rejects.toMatchObject({ code: 'PLAN_CHANGED' });
    expect(databaseCalled('(default)').protected).toBe(false);
  });

  it('refuse two schedules of one frequency in the file', () => {
    const { schema } = gcpFirestore.entityTypes[DEFINES]!;
    const twice = [
      { frequency: 'daily', retention_days: 7 },
      { frequency: 'daily', retention_days: 14 },
    ];
    expect(schema.safeParse({ database_id: CARTS, backup_schedules: twice }).error?.message).toMatch(
      /one of each frequency/,
    );
    site = { close: async () => {} } as DeclaredSite;
  });
});
