import { afterEach, describe, expect, it } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import { RDS_CLUSTER, RDS_INSTANCE } from '../../src/providers/aws-rds/provider.ts';
import { awsRdsSimulator, RDS_SANDBOX, type RdsState } from '../../src/simulators/aws-rds.ts';
import * as tools from '../../tools/aws-rds.ts';
import { type DeclaredSite, startDeclaredSite } from '../support/declared-settings.ts';

const { instance: ORDERS, cluster: SHOP, unprotected: LEGACY } = RDS_SANDBOX;
const DAY = 86_400_000;

interface Site extends DeclaredSite {
  readonly state: RdsState;
  /** The parameters of each write. */
  readonly sent: Record<string, string>[];
}

let open: Site[] = [];
afterEach(async () => {
  for (const site of open) await site.close();
  open = [];
});

async function start(defines: string, parameters: JsonObject): Promise<Site> {
  const sent: Record<string, string>[] = [];
  const simulators: RdsState[] = [];
  const site = await startDeclaredSite({
    module: tools,
    defines,
    parameters: {
      region: RDS_SANDBOX.region,
      access_key_id: '${env:AWS_ACCESS_KEY_ID}',
      secret_access_key: '${env:AWS_SECRET_ACCESS_KEY}',
      ...parameters,
    },
    simulators: (clock) => {
      const simulator = awsRdsSimulator({ clock });
      simulator.state.durations.modify = 30;
      simulators.push(simulator.state);
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
  const made = { ...site, sent, state: simulators[0]! };
  open.push(made);
  return made;
}
const instance = (declared: JsonObject, id: string = ORDERS): Promise<Site> =>
  start(RDS_INSTANCE, { db_instance_identifier: id, ...declared });
const cluster = (declared: JsonObject): Promise<Site> =>
  start(RDS_CLUSTER, { db_cluster_identifier: SHOP, ...declared });

function parametersOf(text: string): Record<string, string> {
  const { Version: _, ...rest } = Object.fromEntries(new URLSearchParams(text));
  return rest;
}
const automated = ({ snapshots }: RdsState, id: string): number =>
  snapshots.filter((one) => one.of === id && one.type === 'automated').length;

async function failure(work: Promise<unknown>): Promise<HoldfastError> {
  const outcome = await work.then(
    () => 'it ran',
    (cause: unknown) => cause,
  );
  expect(outcome).toBeInstanceOf(HoldfastError);
  return outcome as HoldfastError;
}

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
    const declared = { ...ALL, preferred_backup_window: '01:00-02:00', skip_final_snapshot: true };
    const { settings } = await (await instance(declared, LEGACY)).check();
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
    const { apply, check, sent, state } = await instance(
      { ...ALL, storage_encrypted: false, preferred_maintenance_window: 'mon:05:00-mon:05:30' },
      LEGACY,
    );
    expect(await apply()).toEqual([
      { setting: 'backup_retention_period', from: 0, to: 14 },
      { setting: 'preferred_maintenance_window', from: 'sun:05:00-sun:06:00', to: 'mon:05:00-mon:05:30' },
      { setting: 'deletion_protection', from: false, to: true },
      { setting: 'copy_tags_to_snapshot', from: false, to: true },
    ]);
    expect(sent).toEqual([
      {
        Action: 'ModifyDBInstance',
        DBInstanceIdentifier: LEGACY,
        ApplyImmediately: 'true',
        BackupRetentionPeriod: '14',
        PreferredMaintenanceWindow: 'mon:05:00-mon:05:30',
        DeletionProtection: 'true',
        CopyTagsToSnapshot: 'true',
      },
    ]);
    expect(await check()).toMatchObject({ in_line: true });
    expect(state.instance(LEGACY)).toMatchObject({ retentionDays: 14, backupWindow: '03:00-04:00' });
  });

  it('of a cluster are applied to the cluster', async () => {
    const { apply, sent, state } = await cluster({ backup_retention_period: 21, deletion_protection: true });
    expect(await apply()).toEqual([{ setting: 'backup_retention_period', from: 7, to: 21 }]);
    expect(sent).toEqual([
      {
        Action: 'ModifyDBCluster',
        DBClusterIdentifier: SHOP,
        ApplyImmediately: 'true',
        BackupRetentionPeriod: '21',
      },
    ]);
    expect(state.cluster(SHOP).retentionDays).toBe(21);
    expect(state.instance('shop-aurora-1').retentionDays).toBe(21);
  });

  it.each([
    [
      { backup_retention_period: 1 },
      'keeps automated backups and moments for 1 day, not 14; the older ones are deleted.',
      1,
    ],
    [
      { backup_retention_period: 0 },
      'switches automated backups off: all of them, 14 days, and point-in-time recovery are deleted at once, with a short outage.',
      0,
    ],
    [{ deletion_protection: false }, 'lets the database be deleted, its automated backups with it.', 3],
    [
      { copy_tags_to_snapshot: false },
      'new snapshots come without the tags of the database, and policies that go by tags pass them over.',
      3,
    ],
  ])('that weaken wait for a person who sees what is lost: %j', async (declared, loses, left) => {
    const { asked, approveAndApply, check, sent, state } = await instance(declared);
    const details = await asked();
    expect(details.plan).toMatchObject({ risk: 'weaken', target: ORDERS, loses });
    expect(details.plan.undo).toContain('Declare what was before');
    expect(sent).toEqual([]);
    expect(automated(state, ORDERS)).toBe(3);
    expect(await approveAndApply(details)).toHaveLength(1);
    expect(sent).toHaveLength(1);
    expect(await check()).toMatchObject({ in_line: true });
    expect(automated(state, ORDERS)).toBe(left);
  });

  it('that weaken leave those that do not as an exact call', async () => {
    const { asked, apply, state } = await instance({
      backup_retention_period: 7,
      preferred_backup_window: '01:00-02:00',
    });
    expect((await asked()).plan.alternatives).toMatchObject([
      { risk: 'change', call: { action: 'apply-settings', input: { settings: ['preferred_backup_window'] } } },
    ]);
    expect(await apply({ settings: ['preferred_backup_window'] })).toHaveLength(1);
    expect(state.instance(ORDERS)).toMatchObject({ retentionDays: 14, backupWindow: '01:00-02:00' });
  });

  it('change nothing when somebody changed them after the plan', async () => {
    const { asked, approveAndApply, sent, state } = await instance({ backup_retention_period: 7 });
    const details = await asked();
    state.instance(ORDERS).retentionDays = 35;
    expect((await failure(approveAndApply(details))).code).toBe('PLAN_CHANGED');
    expect(sent).toEqual([]);
    expect(state.instance(ORDERS).retentionDays).toBe(35);
  });

  it.each(['lost', 'malformed', 'truncated'] as const)('are not sent twice when the answer is %s', async (kind) => {
    const { apply, sent, server, state } = await instance({ backup_retention_period: 21 });
    state.durations.modify = 0;
    server.fault({ kind, operation: 'ModifyDBInstance', times: 1 });
    expect(await apply()).toEqual([{ setting: 'backup_retention_period', from: 14, to: 21 }]);
    expect(sent).toHaveLength(1);
  });

  it.each(['reset', '500', '503', '429'] as const)(
    'are sent once where it ends with %s, and not in force',
    async (kind) => {
      const { apply, server, state } = await instance({ backup_retention_period: 21 });
      server.fault({ kind, operation: 'ModifyDBInstance', times: 1 });
      expect((await failure(apply())).code).toMatch(/^(PROVIDER_UNAVAILABLE|RATE_LIMITED)$/);
      expect(server.writes()).toHaveLength(1);
      expect(state.instance(ORDERS).retentionDays).toBe(14);
    },
  );

  it('tell a refusal of RDS, and that nothing was changed', async () => {
    const { apply, state } = await instance({ backup_retention_period: 21 });
    state.instance(ORDERS).status = 'stopped';
    expect((await failure(apply())).code).toBe('INVALID_STATE');
    state.instance(ORDERS).status = undefined;
    state.denied.add('ModifyDBInstance');
    expect(await failure(apply())).toMatchObject({
      code: 'INSUFFICIENT_PERMISSIONS',
      message: 'Amazon RDS refuses this: the credentials lack rds:ModifyDBInstance',
      hint: expect.stringMatching(/^Add this to the IAM policy: rds:ModifyDBInstance/),
      details: {
        missing_permission: 'rds:ModifyDBInstance',
        policy: expect.stringContaining(':db:orders-postgres'),
      },
    });
    expect(state.instance(ORDERS).retentionDays).toBe(14);
  });

  it('do not take along what else is pending', async () => {
    const { apply, sent, state } = await instance({ backup_retention_period: 21 });
    state.instance(ORDERS).pendingVersion = '17.2';
    expect(await apply()).toHaveLength(1);
    expect(sent).toEqual([{ Action: 'ModifyDBInstance', DBInstanceIdentifier: ORDERS, BackupRetentionPeriod: '21' }]);
    expect(state.instance(ORDERS)).toMatchObject({ version: '16.4', pendingVersion: '17.2', retentionDays: 21 });
  });

  it('that would take it along are not applied', async () => {
    const { apply, check, sent, state } = await instance({ backup_retention_period: 0 });
    state.instance(ORDERS).pendingVersion = '17.2';
    expect((await check()).settings).toEqual([
      {
        setting: 'backup_retention_period',
        declared: 0,
        actual: 14,
        verdict: 'differs',
        note: 'applied at once it would apply what else is pending too, EngineVersion: see to that first',
      },
    ]);
    expect(await apply()).toEqual([]);
    expect(sent).toEqual([]);
  });

  it('of a pending retention say so, and applying does not wait for the maintenance window', async () => {
    const { apply, check, state } = await instance({ backup_retention_period: 7 }, LEGACY);
    state.instance(LEGACY).pendingRetention = 7;
    expect(await check()).toMatchObject({
      in_line: false,
      settings: [{ actual: 0, note: 'a change to 7 is pending at RDS', to_apply: { risk: 'change' } }],
    });
    expect(await apply()).toHaveLength(1);
    expect(state.instance(LEGACY)).toMatchObject({ retentionDays: 7, pendingRetention: undefined });
  });

  it('are left alone where AWS Backup manages the backups', async () => {
    const { apply, check, sent, state } = await instance({
      backup_retention_period: 21,
      preferred_backup_window: '01:00-02:00',
    });
    state.instance(ORDERS).awsBackup = 'arn:aws:backup:us-east-1:123456789012:recovery-point:continuous:x';
    const note = 'AWS Backup manages the backups of this database: change its backup plan';
    expect(await check()).toMatchObject({ in_line: false, settings: [{ note }, { note }] });
    expect(await apply()).toEqual([]);
    expect(sent).toEqual([]);
  });

  it('say what RDS does not tell as unknown', async () => {
    const { check, state } = await instance({ copy_tags_to_snapshot: true });
    (state.instance(ORDERS) as { copyTags: boolean | undefined }).copyTags = undefined;
    expect(await check()).toMatchObject({
      in_line: false,
      settings: [{ setting: 'copy_tags_to_snapshot', declared: true, verdict: 'unknown', note: 'RDS does not tell' }],
    });
  });

  it('give nothing back that a lower retention has deleted', async () => {
    const { asked, approveAndApply, server, state } = await instance({ backup_retention_period: 1 });
    await approveAndApply(await asked());
    const { backupsSince } = state.instance(ORDERS);
    expect(server.clock.now().getTime() - backupsSince!).toBeLessThan(1.1 * DAY);
    expect(JSON.stringify(server.journal)).not.toContain('secret-AWS');
  });

  it('refuse a member of a cluster, and end where RDS refuses the windows', async () => {
    const member = await instance({ backup_retention_period: 21 }, 'shop-aurora-1');
    expect((await failure(member.check())).code).toBe('NOT_SUPPORTED');
    const overlapping = await instance({ preferred_backup_window: '05:30-06:30' });
    expect((await failure(overlapping.apply())).code).toBe('INVALID_PARAMETER');
    expect(overlapping.state.instance(ORDERS).backupWindow).toBe('03:00-04:00');
  });
});
