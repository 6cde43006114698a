import { afterEach, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { gcpCloudSql } from '../../src/providers/gcp-cloud-sql/provider.ts';
import {
  CLOUD_SQL_SANDBOX,
  type CloudSqlState,
  gcpCloudSqlSimulator,
  type SimulatedInstance,
} from '../../src/simulators/gcp-cloud-sql.ts';
import * as tools from '../../tools/gcp-cloud-sql.ts';
import { type DeclaredSite, startDeclaredSite } from '../support/declared-settings.ts';

const DEFINES = 'gcp/cloud-sql-instance';
const { project: PROJECT } = CLOUD_SQL_SANDBOX;

let site: DeclaredSite;
let state: CloudSqlState;
afterEach(() => site.close());

const instanceCalled = (name: string): SimulatedInstance => state.instances.get(`${PROJECT}/${name}`)!;
const backupsOf = (name: string): JsonObject => instanceCalled(name).settings.backupConfiguration;

async function declare(
  parameters: JsonObject,
  onRequest?: (entry: { method: string }, phase: string) => 'go on' | 'drop',
): Promise<void> {
  site = await startDeclaredSite({
    simulators: (clock) => {
      const simulator = gcpCloudSqlSimulator({ clock });
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

describe('the declared settings of a Cloud SQL instance', () => {
  it('are in line in the sandbox, every one of them looked at', async () => {
    const { name: _, ...sandbox } = gcpCloudSql.entityTypes[DEFINES]!.sandbox!.parameters;
    await declare({ ...sandbox, name: 'orders-db', transaction_log_retention_days: 7, retain_backups_on_delete: true });
    const { in_line, settings, target } = await site.check();
    expect(settings.map(({ setting }) => setting).sort()).toEqual([
      'backup_retention_count',
      'backup_start_time',
      'database_version',
      'delete_protection',
      'point_in_time_recovery_enabled',
      'region',
      'retain_backups_on_delete',
      'transaction_log_retention_days',
    ]);
    expect(settings.filter(({ verdict }) => verdict !== 'as_declared')).toEqual([]);
    expect([in_line, target]).toEqual([true, `${PROJECT}/orders-db`]);
  });

  it('drift, each in the words of the file, and what can only be set at creation is not applied', async () => {
    await declare({
      name: 'legacy-shop',
      backup_start_time: '02:30',
      point_in_time_recovery_enabled: true,
      backup_location: 'eu',
      delete_protection: true,
      final_backup: { enabled: true, retention_days: 30 },
      region: 'us-central1',
      tier: 'db-custom-4-16384',
    });
    const { in_line, settings } = await site.check();
    expect(in_line).toBe(false);
    expect(Object.fromEntries(settings.map(({ setting, actual, verdict }) => [setting, [actual, verdict]]))).toEqual({
      backup_start_time: [null, 'differs'],
      point_in_time_recovery_enabled: [false, 'differs'],
      backup_location: [null, 'differs'],
      delete_protection: [false, 'differs'],
      'final_backup.enabled': [false, 'differs'],
      'final_backup.retention_days': [undefined, 'unknown'],
      region: ['europe-west1', 'differs'],
      tier: ['db-custom-2-7680', 'differs'],
    });
    expect(settings.find(({ setting }) => setting === 'region')).toMatchObject({
      note: expect.stringMatching(/stays/),
    });
    expect(settings.find(({ setting }) => setting === 'region')?.to_apply).toBeUndefined();
  });

  it('are strengthened without asking, in one request, and in force afterwards: MySQL by its binary log', async () => {
    await declare({
      name: 'legacy-shop',
      backup_start_time: '02:30',
      point_in_time_recovery_enabled: true,
      backup_retention_count: 30,
      delete_protection: true,
      retain_backups_on_delete: true,
      final_backup: { enabled: true },
    });
    const applied = await site.apply();
    expect(applied).toContainEqual({ setting: 'point_in_time_recovery_enabled', from: false, to: true });
    expect(applied).toHaveLength(6);
    expect(site.writes()).toEqual([{ method: 'PATCH', path: `/v1/projects/${PROJECT}/instances/legacy-shop` }]);
    expect(backupsOf('legacy-shop')).toMatchObject({
      enabled: true,
      startTime: '02:30',
      binaryLogEnabled: true,
      backupRetentionSettings: { retentionUnit: 'COUNT', retainedBackups: 30 },
    });
    expect(backupsOf('legacy-shop')['pointInTimeRecoveryEnabled']).toBeUndefined();
    expect(instanceCalled('legacy-shop').settings).toMatchObject({
      deletionProtectionEnabled: true,
      retainBackupsOnDelete: true,
      finalBackupConfig: { enabled: true },
      tier: 'db-custom-2-7680',
      settingsVersion: '4',
    });
    expect(await site.check()).toMatchObject({ in_line: true });
    expect(await site.apply()).toEqual([]);
    expect(site.writes()).toHaveLength(1);
  });

  it('switch automated backups on with the logs that need them', async () => {
    await declare({ name: 'legacy-shop', point_in_time_recovery_enabled: true });
    const [found] = (await site.check()).settings;
    expect(found?.to_apply).toEqual({
      risk: 'change',
      effect: expect.stringMatching(/automated backups too.*restarts/),
    });
    await site.apply();
    expect(backupsOf('legacy-shop')).toMatchObject({ enabled: true, binaryLogEnabled: true });
  });

  it.each<[string, JsonObject, RegExp, (instance: SimulatedInstance) => void]>([
    [
      'fewer backups',
      { backup_retention_count: 3 },
      /keeps 3 automated backups, not 7; the oldest beyond that are deleted/,
      (instance) => {
        const left = state.runs.filter((run) => run.instance === instance.name && run.type === 'AUTOMATED');
        expect(left).toHaveLength(3);
      },
    ],
    [
      'point-in-time recovery off',
      { point_in_time_recovery_enabled: false },
      /switched off and all its logs, which begin at \d{4}-[^ ]+, are deleted/,
      (instance) => expect(instance.logsSince).toBeGreaterThan(Date.now() - 60_000),
    ],
    [
      'shorter logs',
      { transaction_log_retention_days: 2 },
      /keeps 2 days of logs, not 7; point-in-time recovery reaches no further back/,
      (instance) => expect(instance.logsSince).toBeGreaterThan(Date.now() - 2 * 86_400_000 - 60_000),
    ],
    [
      'deletion protection off',
      { delete_protection: false },
      /deletion protection is switched off/,
      (instance) => expect(instance.settings['deletionProtectionEnabled']).toBe(false),
    ],
    [
      'backups that go with the instance',
      { retain_backups_on_delete: false },
      /backups are deleted together with the instance/,
      (instance) => expect(instance.settings['retainBackupsOnDelete']).toBe(false),
    ],
    [
      'no final backup',
      { final_backup: { enabled: false } },
      /no last backup is taken/,
      (instance) => expect(instance.settings['finalBackupConfig']).toEqual({ enabled: false, retentionDays: 30 }),
    ],
    [
      'a final backup for less time',
      { final_backup: { enabled: true, retention_days: 1 } },
      /keeps the last backup 1 day, not 30 days/,
      (instance) => expect(instance.settings['finalBackupConfig']).toEqual({ enabled: true, retentionDays: 1 }),
    ],
  ])('wait for a person before %s', async (_, parameters, effect, proof) => {
    await declare({ name: 'orders-db', ...parameters });
    instanceCalled('orders-db').settings['finalBackupConfig'] = { enabled: true, retentionDays: 30 };
    const details = await site.asked();
    expect(details.plan).toMatchObject({ risk: 'weaken', target: `${PROJECT}/orders-db` });
    expect(details.plan.loses).toMatch(effect);
    expect(site.writes()).toEqual([]);
    expect(await site.approveAndApply(details)).toHaveLength(1);
    expect(site.writes()).toHaveLength(1);
    proof(instanceCalled('orders-db'));
    expect(await site.check()).toMatchObject({ in_line: true });
  });

  it('that Cloud SQL does not tell are unknown, and guarded', async () => {
    await declare({ name: 'orders-db', backup_retention_count: 7 });
    delete backupsOf('orders-db')['backupRetentionSettings'];
    const { in_line, settings } = await site.check();
    expect(in_line).toBe(false);
    expect(settings).toEqual([
      {
        setting: 'backup_retention_count',
        declared: 7,
        verdict: 'unknown',
        to_apply: { risk: 'weaken', effect: expect.stringMatching(/not as many as now/) },
      },
    ]);
    const { plan } = await site.asked();
    expect(plan.unknowns).toContain('what backup_retention_count is now: the provider does not tell');
  });

  it('of a read replica, of an enhanced backup tier and beyond an edition are left alone, with the reason', async () => {
    await declare({ name: 'reports-db-replica', backup_start_time: '03:00' });
    expect((await site.check()).settings[0]).toMatchObject({
      verdict: 'differs',
      note: expect.stringMatching(/primary/),
    });
    expect(await site.apply()).toEqual([]);
    await site.close();
    await declare({ name: 'orders-db', backup_retention_count: 30, transaction_log_retention_days: 20 });
    expect((await site.check()).settings[1]).toMatchObject({ note: expect.stringMatching(/7 days at most/) });
    backupsOf('orders-db')['backupTier'] = 'ENHANCED';
    expect((await site.check()).settings[0]).toMatchObject({ note: expect.stringMatching(/Backup and DR/) });
    expect(await site.apply()).toEqual([]);
    expect(site.writes()).toEqual([]);
  });

  it('are not sent twice when the answer is lost', async () => {
    let dropped = 0;
    await declare({ name: 'orders-db', backup_retention_count: 30 }, ({ method }, phase) => {
      if (method !== 'PATCH' || phase !== 'handled') return 'go on';
      dropped += 1;
      return 'drop';
    });
    expect(await site.apply()).toEqual([{ setting: 'backup_retention_count', from: 7, to: 30 }]);
    expect([dropped, site.writes().length]).toEqual([1, 1]);
  });

  it('void an approval when somebody changes one of them, before the call and during it', async () => {
    await declare({ name: 'orders-db', backup_retention_count: 3 });
    const details = await site.asked();
    backupsOf('orders-db')['backupRetentionSettings'] = { retentionUnit: 'COUNT', retainedBackups: 5 };
    await expect(site.approveAndApply(details)).rejects.toMatchObject({ code: 'PLAN_CHANGED' });
    expect(site.writes()).toEqual([]);
    await site.close();

    // Between the last look and the request: the version of the settings is old by then.
    await declare({ name: 'orders-db', backup_retention_count: 30 }, ({ method }, phase) => {
      if (method === 'PATCH' && phase === 'arrived') instanceCalled('orders-db').settings['settingsVersion'] = '9';
      return 'go on';
    });
    await expect(site.apply()).rejects.toMatchObject({ code: 'PLAN_CHANGED' });
    expect(backupsOf('orders-db')['backupRetentionSettings']).toMatchObject({ retainedBackups: 7 });
  });

  it('say which permission they need', async () => {
    await declare({ name: 'orders-db', backup_retention_count: 30 });
    state.denied.add('cloudsql.instances.update');
    await expect(site.apply()).rejects.toMatchObject({
      code: 'INSUFFICIENT_PERMISSIONS',
      details: { permission: 'cloudsql.instances.update' },
    });
  });
});
