import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { RDS_CLUSTER, RDS_INSTANCE } from '../../src/providers/aws-rds/provider.ts';
import { awsRdsSimulator, RDS_SANDBOX, type RdsSimulator } from '../../src/simulators/aws-rds.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import { CANARY, type Declared, failure, startDeclared } from './aws-settings.support.ts';

const { instance: ORDERS, cluster: SHOP, unprotected: LEGACY } = RDS_SANDBOX;
const DAY = 86_400_000;

let server: SimulatorServer;
let simulator: RdsSimulator;
let open: Declared[];
/** The parameters of each write. */
let sent: Record<string, string>[];

beforeEach(async () => {
  open = [];
  sent = [];
  server = await startSimulators({
    simulators: (clock) => {
      simulator = awsRdsSimulator({ clock });
      return [
        {
          ...simulator,
          handle(request) {
            if (simulator.writes?.(request) === true) sent.push(parametersOf(request.text));
            return simulator.handle(request);
          },
        },
      ];
    },
  });
  simulator.state.durations.modify = 30;
});
afterEach(async () => {
  for (const one of open) await one.close();
  await server.close();
});

async function instance(declared: JsonObject, id: string = ORDERS): Promise<Declared> {
  const made = await startDeclared(server, RDS_INSTANCE, { db_instance_identifier: id, ...declared });
  open.push(made);
  return made;
}
async function cluster(declared: JsonObject): Promise<Declared> {
  const made = await startDeclared(server, RDS_CLUSTER, { db_cluster_identifier: SHOP, ...declared });
  open.push(made);
  return made;
}

const operations = (): (string | undefined)[] => server.writes().map(({ operation }) => operation);
function parametersOf(text: string): Record<string, string> {
  const { Action: _, Version: __, ...rest } = Object.fromEntries(new URLSearchParams(text));
  return rest;
}
const automated = (id: string): number =>
  simulator.state.snapshots.filter((one) => one.of === id && one.type === 'automated').length;

const ALL = {
  backup_retention_period: 14,
  preferred_backup_window: '03:00-04:00',
  preferred_maintenance_window: 'Sun:05:00-Sun:06:00',
  storage_encrypted: true,
  deletion_protection: true,
  copy_tags_to_snapshot: true,
};

describe('declared settings of RDS', () => {
  it('are in line where RDS has them so, in whatever case the file writes days', async () => {
    expect(await (await instance(ALL)).check()).toMatchObject({
      target: ORDERS,
      in_line: true,
      settings: Object.entries(ALL).map(([setting, declared]) => ({
        setting,
        declared,
        actual: declared,
        verdict: 'as_declared',
      })),
    });
    expect(await (await cluster({ ...ALL, backup_retention_period: 7 })).check()).toMatchObject({ in_line: true });
    expect((await (await cluster({})).check()).settings).toEqual([]);
  });

  it('show each difference with what applying it would do', async () => {
    const { settings } = await (
      await instance({ ...ALL, preferred_backup_window: '01:00-02:00', skip_final_snapshot: true }, LEGACY)
    ).check();
    expect(settings).toEqual([
      {
        setting: 'backup_retention_period',
        declared: 14,
        actual: 0,
        verdict: 'differs',
        to_apply: {
          risk: 'change',
          effect: 'takes automated backups and keeps them for 14 days, where there are none; a short outage',
        },
      },
      {
        setting: 'preferred_backup_window',
        declared: '01:00-02:00',
        actual: '03:00-04:00',
        verdict: 'differs',
        to_apply: { risk: 'change', effect: 'takes the daily backup at 01:00-02:00 UTC, not 03:00-04:00' },
      },
      expect.objectContaining({ setting: 'preferred_maintenance_window', verdict: 'as_declared' }),
      {
        setting: 'storage_encrypted',
        declared: true,
        actual: false,
        verdict: 'differs',
        note: 'set when a database is made: copy a snapshot with kms_key_id and restore the copy',
      },
      expect.objectContaining({
        setting: 'deletion_protection',
        to_apply: { risk: 'change', effect: 'refuses the deletion of the database' },
      }),
      expect.objectContaining({ setting: 'copy_tags_to_snapshot', verdict: 'differs' }),
    ]);
  });

  it('are applied with one request, and are in force afterwards', async () => {
    const { apply, check } = await instance(
      { ...ALL, storage_encrypted: false, preferred_maintenance_window: 'mon:05:00-mon:05:30' },
      LEGACY,
    );
    expect(await apply()).toMatchObject({
      operation: {
        status: 'succeeded',
        result: {
          applied: [
            { setting: 'backup_retention_period', from: 0, to: 14 },
            { setting: 'preferred_maintenance_window', from: 'sun:05:00-sun:06:00', to: 'mon:05:00-mon:05:30' },
            { setting: 'deletion_protection', from: false, to: true },
            { setting: 'copy_tags_to_snapshot', from: false, to: true },
          ],
        },
      },
    });
    expect(sent).toEqual([
      {
        DBInstanceIdentifier: LEGACY,
        ApplyImmediately: 'true',
        BackupRetentionPeriod: '14',
        PreferredMaintenanceWindow: 'mon:05:00-mon:05:30',
        DeletionProtection: 'true',
        CopyTagsToSnapshot: 'true',
      },
    ]);
    expect(await check()).toMatchObject({ in_line: true });
    expect(simulator.state.instance(LEGACY)).toMatchObject({ retentionDays: 14, backupWindow: '03:00-04:00' });
  });

  it('of a cluster are applied to the cluster', async () => {
    const { apply } = await cluster({ backup_retention_period: 21, deletion_protection: true });
    expect(await apply()).toMatchObject({ operation: { status: 'succeeded' } });
    expect(sent).toEqual([{ DBClusterIdentifier: SHOP, ApplyImmediately: 'true', BackupRetentionPeriod: '21' }]);
    expect(simulator.state.cluster(SHOP).retentionDays).toBe(21);
    expect(simulator.state.instance('shop-aurora-1').retentionDays).toBe(21);
  });

  it.each([
    [
      { backup_retention_period: 1 },
      'keeps automated backups and moments for 1 days, not 14; the older ones are deleted.',
    ],
    [
      { backup_retention_period: 0 },
      'switches automated backups off: all of them, 14 days, and point-in-time recovery are deleted at once, with a short outage.',
    ],
    [{ deletion_protection: false }, 'lets the database be deleted, its automated backups with it.'],
    [
      { copy_tags_to_snapshot: false },
      'new snapshots come without the tags of the database, and policies that go by tags pass them over.',
    ],
  ])('that weaken wait for a person who sees what is lost: %j', async (declared, loses) => {
    const declaredOne = await instance(declared);
    const before = automated(ORDERS);
    const details = await declaredOne.plan();
    expect(details.plan).toMatchObject({ risk: 'weaken', target: ORDERS, loses });
    expect(details.plan.undo).toContain('Declare what was before');
    expect(operations()).toEqual([]);
    expect(automated(ORDERS)).toBe(before);
    const { token } = await declaredOne.approve(details);
    expect(await declaredOne.apply({}, { token })).toMatchObject({ operation: { status: 'succeeded' } });
    expect(operations()).toEqual(['ModifyDBInstance']);
    expect(await declaredOne.check()).toMatchObject({ in_line: true });
    const days = simulator.state.instance(ORDERS).retentionDays;
    expect(automated(ORDERS)).toBe({ 0: 0, 1: 1 }[days] ?? before);
  });

  it('that weaken leave those that do not as an exact call', async () => {
    const { plan, apply } = await instance({ backup_retention_period: 7, preferred_backup_window: '01:00-02:00' });
    const { alternatives = [] } = (await plan()).plan;
    expect(alternatives).toMatchObject([
      { risk: 'change', call: { action: 'apply-settings', input: { settings: ['preferred_backup_window'] } } },
    ]);
    expect(await apply({ settings: ['preferred_backup_window'] })).toMatchObject({
      operation: { status: 'succeeded' },
    });
    expect(simulator.state.instance(ORDERS)).toMatchObject({ retentionDays: 14, backupWindow: '01:00-02:00' });
  });

  it('change nothing when somebody changed them after the plan', async () => {
    const { plan, approve, apply } = await instance({ backup_retention_period: 7 });
    const token = await approve(await plan());
    simulator.state.instance(ORDERS).retentionDays = 35;
    expect((await failure(apply({}, token))).code).toBe('PLAN_CHANGED');
    expect(operations()).toEqual([]);
    expect(simulator.state.instance(ORDERS).retentionDays).toBe(35);
  });

  it('are not sent twice when the answer is lost', async () => {
    const { apply } = await instance({ backup_retention_period: 21 });
    simulator.state.durations.modify = 0;
    server.fault({ kind: 'lost', operation: 'ModifyDBInstance', times: 1 });
    expect(await apply()).toMatchObject({ operation: { status: 'succeeded' } });
    expect(operations()).toEqual(['ModifyDBInstance']);
    expect(simulator.state.instance(ORDERS).retentionDays).toBe(21);
  });

  it('whose request was lost are left to a person', async () => {
    const { apply } = await instance({ backup_retention_period: 21 });
    server.fault({ kind: 'reset', operation: 'ModifyDBInstance', times: 1 });
    const error = await failure(apply());
    expect(error.message).toContain('backup_retention_period is not as declared');
    expect(operations()).toEqual(['ModifyDBInstance']);
  });

  it('tell a refusal of RDS, and that nothing was changed', async () => {
    simulator.state.instance(ORDERS).status = 'stopped';
    const { apply } = await instance({ backup_retention_period: 21 });
    expect((await failure(apply())).code).toBe('INVALID_STATE');
    simulator.state.instance(ORDERS).status = undefined;
    simulator.state.denied.add('ModifyDBInstance');
    expect(await failure(apply())).toMatchObject({
      code: 'INSUFFICIENT_PERMISSIONS',
      details: { permission: 'rds:ModifyDBInstance', missing_permission: 'rds:ModifyDBInstance' },
    });
    expect(simulator.state.instance(ORDERS).retentionDays).toBe(14);
  });

  it('do not take along what else is pending', async () => {
    const orders = simulator.state.instance(ORDERS);
    orders.pendingVersion = '17.2';
    const raised = await instance({ backup_retention_period: 21 });
    expect(await raised.apply()).toMatchObject({ operation: { status: 'succeeded' } });
    expect(sent).toEqual([{ DBInstanceIdentifier: ORDERS, BackupRetentionPeriod: '21' }]);
    expect(orders).toMatchObject({ version: '16.4', pendingVersion: '17.2', retentionDays: 21 });
    const off = await instance({ backup_retention_period: 0 });
    const { settings } = await off.check();
    expect(settings).toEqual([
      {
        setting: 'backup_retention_period',
        declared: 0,
        actual: 21,
        verdict: 'differs',
        note: 'applied at once it would apply what else is pending too, EngineVersion: see to that first',
      },
    ]);
  });

  it('of a pending retention say so, and applying does not wait for the maintenance window', async () => {
    const legacy = simulator.state.instance(LEGACY);
    legacy.pendingRetention = 7;
    const { check, apply } = await instance({ backup_retention_period: 7 }, LEGACY);
    expect(await check()).toMatchObject({
      in_line: false,
      settings: [{ actual: 0, note: 'a change to 7 is pending at RDS', to_apply: { risk: 'change' } }],
    });
    expect(await apply()).toMatchObject({ operation: { status: 'succeeded' } });
    expect(legacy).toMatchObject({ retentionDays: 7, pendingRetention: undefined });
  });

  it('are left alone where AWS Backup manages the backups', async () => {
    simulator.state.instance(ORDERS).awsBackup = 'arn:aws:backup:us-east-1:123456789012:recovery-point:continuous:x';
    const { check, apply } = await instance({ backup_retention_period: 21, preferred_backup_window: '01:00-02:00' });
    const note = 'AWS Backup manages the backups of this database: change its backup plan';
    expect(await check()).toMatchObject({ in_line: false, settings: [{ note }, { note }] });
    expect(await apply()).toMatchObject({ operation: { status: 'succeeded', result: { applied: [] } } });
    expect(operations()).toEqual([]);
  });

  it('say what was not told as unknown', async () => {
    const orders = simulator.state.instance(ORDERS) as unknown as { copyTags: boolean | undefined };
    orders.copyTags = undefined;
    const { check } = await instance({ copy_tags_to_snapshot: true });
    expect(await check()).toMatchObject({
      in_line: false,
      settings: [{ setting: 'copy_tags_to_snapshot', declared: true, verdict: 'unknown', note: 'RDS does not tell' }],
    });
  });

  it('keep older moments gone once the retention was lowered', async () => {
    const orders = simulator.state.instance(ORDERS);
    const lower = await instance({ backup_retention_period: 1 });
    await lower.apply({}, await lower.approve(await lower.plan()));
    const higher = await instance({ backup_retention_period: 35 });
    await higher.apply();
    expect(orders.retentionDays).toBe(35);
    expect(server.clock.now().getTime() - orders.backupsSince!).toBeLessThan(1.1 * DAY);
    expect(JSON.stringify(server.journal)).not.toContain(CANARY);
  });

  it('refuse a member of a cluster, and the windows that RDS would refuse end in its refusal', async () => {
    const member = await instance({ backup_retention_period: 21 }, 'shop-aurora-1');
    expect((await failure(member.check())).code).toBe('NOT_SUPPORTED');
    const overlapping = await instance({ preferred_backup_window: '05:30-06:30' });
    expect((await failure(overlapping.apply())).code).toBe('INVALID_PARAMETER');
    expect(simulator.state.instance(ORDERS).backupWindow).toBe('03:00-04:00');
  });
});
