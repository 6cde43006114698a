import { afterEach, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { mongodbAtlas } from '../../src/providers/mongodb-atlas/provider.ts';
import { type AtlasState, mongodbAtlasSimulator } from '../../src/simulators/mongodb-atlas.ts';
import * as tools from '../../tools/mongodb-atlas.ts';
import { DEFINES, PROJECT } from '../support/atlas.ts';
import { type DeclaredSite, startDeclaredSite } from '../support/declared-settings.ts';

const SHOP = 'sandbox-cluster';
const DAY = 86_400_000;

let site: DeclaredSite;
let state: AtlasState;
afterEach(() => site.close());

type OnRequest = NonNullable<Parameters<typeof startDeclaredSite>[0]['onRequest']>;

async function declare(parameters: JsonObject, onRequest?: OnRequest): Promise<void> {
  site = await startDeclaredSite({
    simulators: (clock) => {
      const simulator = mongodbAtlasSimulator({ clock });
      state = simulator.state;
      state.updateMs = 30;
      return [simulator];
    },
    module: tools,
    defines: DEFINES,
    parameters: {
      name: SHOP,
      project_id: PROJECT,
      client_id: 'mdb_sa_id_sandbox',
      client_secret: '${env:MONGODB_ATLAS_CLIENT_SECRET}',
      ...parameters,
    },
    ...(onRequest === undefined ? {} : { onRequest }),
  });
}

const shop = () => state.cluster(SHOP);
const patches = (): string[] =>
  site
    .writes()
    .filter(({ method }) => method === 'PATCH')
    .map(({ path }) => path.replace(/^.*\/clusters\//, ''));
const keep = (type: string, value: number, unit = 'days'): void => {
  Object.assign(shop().policy.find(({ frequencyType }) => frequencyType === type)!, {
    retentionValue: value,
    retentionUnit: unit,
  });
};

describe('the declared settings of an Atlas cluster', () => {
  it('are in line in the sandbox, every one of them looked at', async () => {
    await declare(mongodbAtlas.entityTypes[DEFINES]!.sandbox!.parameters);
    const { in_line, settings, target } = await site.check();
    expect(settings.map(({ setting, verdict }) => `${setting} ${verdict}`)).toEqual([
      'instance_size as_declared',
      'backup_enabled as_declared',
      'pit_enabled as_declared',
      'termination_protection_enabled as_declared',
      'backup_schedule.restore_window_days as_declared',
      'backup_schedule.daily as_declared',
      'backup_schedule.weekly as_declared',
    ]);
    expect([in_line, target]).toEqual([true, 'sandbox/sandbox-cluster']);
    for (const { setting } of settings) expect(mongodbAtlas.settings?.about).toHaveProperty([setting]);
  });

  it('counts a time in other units as the same, and reports it in the words of Atlas', async () => {
    await declare({
      backup_schedule: {
        hourly: { frequency_interval: 6, retention_value: 1, retention_unit: 'weeks' },
        weekly: [{ frequency_interval: 6, retention_value: 28, retention_unit: 'days' }],
        monthly: { frequency_interval: 40, retention_value: 12, retention_unit: 'months' },
        yearly: [],
      },
    });
    const { in_line, settings } = await site.check();
    expect(in_line).toBe(true);
    expect(settings.map(({ actual }) => actual)).toEqual([
      { frequency_interval: 6, retention_value: 7, retention_unit: 'days' },
      { frequency_interval: 6, retention_value: 4, retention_unit: 'weeks' },
      { frequency_interval: 40, retention_value: 12, retention_unit: 'months' },
      null,
    ]);
  });

  it('that protect more are applied without a question, by one request each, and are in force afterwards', async () => {
    await declare({
      pit_enabled: true,
      termination_protection_enabled: true,
      backup_schedule: {
        reference_hour_of_day: 3,
        reference_minute_of_hour: 30,
        restore_window_days: 7,
        daily: { retention_value: 14, retention_unit: 'days' },
        yearly: { frequency_interval: 12, retention_value: 2, retention_unit: 'years' },
      },
    });
    Object.assign(shop(), { pitr: false, protected: false, windowDays: 2 });
    expect((await site.check()).settings.every(({ to_apply }) => to_apply?.risk === 'change')).toBe(true);
    expect((await site.apply()).map(({ setting }) => setting)).toEqual([
      'pit_enabled',
      'termination_protection_enabled',
      'backup_schedule.reference_hour_of_day',
      'backup_schedule.reference_minute_of_hour',
      'backup_schedule.restore_window_days',
      'backup_schedule.daily',
      'backup_schedule.yearly',
    ]);
    expect(patches()).toEqual([SHOP, `${SHOP}/backup/schedule`]);
    expect(shop()).toMatchObject({ pitr: true, protected: true, backups: true, hour: 3, minute: 30, windowDays: 7 });
    // What is not declared stays: hourly, weekly and monthly snapshots.
    expect(shop().policy.map((item) => Object.values(item).join(' '))).toEqual([
      'hourly 6 days 7',
      'daily 1 days 14',
      'weekly 6 weeks 4',
      'monthly 40 months 12',
      'yearly 12 years 2',
    ]);
    expect((await site.check()).in_line).toBe(true);
    expect(await site.apply()).toEqual([]);
    expect(patches()).toHaveLength(2);
  });

  it('switch cloud backup on first, and make the schedule that comes with it as declared', async () => {
    await declare({
      name: 'legacy-reports',
      backup_enabled: true,
      backup_schedule: { daily: { retention_value: 10, retention_unit: 'days' } },
    });
    expect((await site.apply()).map(({ setting }) => setting)).toEqual(['backup_enabled', 'backup_schedule.daily']);
    expect(patches()).toEqual(['legacy-reports', 'legacy-reports/backup/schedule']);
    expect(state.cluster('legacy-reports').backups).toBe(true);
    expect((await site.check()).in_line).toBe(true);
  });

  it.each([
    ['backup_enabled', { backup_enabled: false }, /switches cloud backup off: no snapshots are taken any more/],
    ['pit_enabled', { pit_enabled: false }, /point-in-time restore off and deletes the log/],
    ['termination_protection_enabled', { termination_protection_enabled: false }, /lets the cluster be deleted/],
    [
      'backup_schedule.restore_window_days',
      { backup_schedule: { restore_window_days: 2 } },
      /reach back 2 days, not 7; the older log is deleted/,
    ],
    [
      'backup_schedule.weekly',
      { backup_schedule: { weekly: { frequency_interval: 6, retention_value: 2, retention_unit: 'weeks' } } },
      /every Saturday kept 2 weeks, where there was one every Saturday kept 4 weeks/,
    ],
    [
      'backup_schedule.monthly',
      { backup_schedule: { monthly: [] } },
      /no snapshots, where there was one on the last day/,
    ],
    [
      'backup_schedule.hourly',
      { backup_schedule: { hourly: { frequency_interval: 12, retention_value: 7, retention_unit: 'days' } } },
      /every 12 h kept 7 days, where there was one every 6 h/,
    ],
  ])('ask a person before %s gets less, and say what is lost', async (setting, parameters, effect) => {
    await declare(parameters);
    const details = await site.asked();
    expect(details.plan).toMatchObject({ risk: 'weaken', target: 'sandbox/sandbox-cluster' });
    expect(details.plan.loses).toMatch(effect);
    expect(details.plan.facts.target).toMatchObject({ project_id: PROJECT, cluster: SHOP, cluster_id: shop().id });
    expect(patches()).toEqual([]);
    expect((await site.approveAndApply(details)).map((one) => one.setting)).toEqual([setting]);
    expect(patches()).toHaveLength(1);
    expect((await site.check()).in_line).toBe(true);
  });

  it('empty the window and drop the snapshots as Atlas does, and leave snapshots alone where a schedule gets less', async () => {
    await declare({ backup_enabled: false });
    const before = shop().snapshots.length;
    expect(before).toBeGreaterThan(0);
    await site.approveAndApply(await site.asked());
    expect(shop()).toMatchObject({ backups: false, pitr: false, snapshots: [] });
    await site.close();
    await declare({ backup_schedule: { weekly: [], restore_window_days: 3 } });
    await site.approveAndApply(await site.asked());
    expect(shop().snapshots).toHaveLength(before);
    expect(Date.now() - shop().pitrSince).toBeLessThan(3 * DAY + 60_000);
  });

  it('offer to apply only what does not lower protection', async () => {
    await declare({
      termination_protection_enabled: true,
      backup_schedule: { daily: { retention_value: 7, retention_unit: 'days' } },
    });
    shop().protected = false;
    keep('daily', 14);
    const { plan } = await site.asked();
    expect(plan.alternatives[0]).toMatchObject({
      call: { action: 'apply-settings', input: { settings: ['termination_protection_enabled'] } },
    });
    const only = { settings: ['termination_protection_enabled'] };
    expect(await site.apply(only)).toEqual([{ setting: 'termination_protection_enabled', from: false, to: true }]);
    expect(shop().policy[1]).toMatchObject({ retentionValue: 14 });
  });

  it('are not lowered under a backup compliance policy, and say so', async () => {
    await declare({
      pit_enabled: false,
      termination_protection_enabled: false,
      backup_schedule: { monthly: [], daily: { retention_value: 9, retention_unit: 'days' } },
    });
    state.projects[0]!.compliance = 'ACTIVE';
    const { settings } = await site.check();
    const shown = Object.fromEntries(settings.map((one) => [one.setting, [one.to_apply?.risk, one.note]]));
    const forbidden = expect.stringMatching(/compliance policy of the project forbids/);
    expect(shown).toEqual({
      pit_enabled: [undefined, forbidden],
      termination_protection_enabled: ['weaken', undefined],
      'backup_schedule.daily': ['change', undefined],
      'backup_schedule.monthly': [undefined, forbidden],
    });
    state.denied.set('GET /backupCompliancePolicy', 'USER_UNAUTHORIZED');
    const unread = (await site.check()).settings.find(({ setting }) => setting === 'pit_enabled');
    expect(unread).toMatchObject({ to_apply: { risk: 'weaken' }, note: expect.stringMatching(/may forbid it/) });
  });

  it('that break a rule of Atlas, or that a tier does not have, are shown and left', async () => {
    await declare({ backup_schedule: { daily: { retention_value: 3, retention_unit: 'days' } } });
    const [daily] = (await site.check()).settings;
    expect(daily).toMatchObject({ verdict: 'differs', note: expect.stringMatching(/daily snapshots kept at least/) });
    expect(daily).not.toHaveProperty('to_apply');
    await site.close();
    await declare({
      pit_enabled: true,
      instance_size: 'M40',
      backup_schedule: { restore_window_days: 3 },
      name: 'legacy-reports',
    });
    expect((await site.check()).settings.map(({ note }) => note)).toEqual([
      expect.stringMatching(/changes the size of no cluster/),
      'needs cloud backup: declare backup_enabled: true',
      'cloud backup is off: declare backup_enabled: true',
    ]);
    expect(await site.apply()).toEqual([]);
    await site.close();
    await declare({ name: 'flex-notes', backup_enabled: true, pit_enabled: true, instance_size: 'flex' });
    const flex = (await site.check()).settings;
    expect(flex.map(({ verdict }) => verdict)).toEqual(['as_declared', 'as_declared', 'differs']);
    expect(flex[2]).toMatchObject({ actual: false, note: expect.stringMatching(/M10 or higher/) });
    await site.close();
    await declare({ name: 'free-playground', backup_enabled: true });
    expect((await site.check()).settings[0]).toMatchObject({
      verdict: 'differs',
      note: expect.stringMatching(/an M0/),
    });
    expect(site.writes().filter(({ method }) => method === 'PATCH')).toEqual([]);
  });

  it('are found in force when the answer is lost, and not sent twice', async () => {
    await declare(
      { backup_schedule: { daily: { retention_value: 30, retention_unit: 'days' } } },
      ({ method }, phase) => (method === 'PATCH' && phase === 'handled' ? 'drop' : 'go on'),
    );
    // The monthly ones allow it: weekly snapshots are kept four weeks.
    keep('weekly', 5, 'weeks');
    expect((await site.apply()).map(({ setting }) => setting)).toEqual(['backup_schedule.daily']);
    expect(patches()).toHaveLength(1);
    expect(shop().policy[1]).toMatchObject({ retentionValue: 30 });
  });

  it('void the approval when somebody changes them meanwhile', async () => {
    await declare({ backup_schedule: { daily: { retention_value: 7, retention_unit: 'days' } } });
    keep('daily', 14);
    const details = await site.asked();
    keep('daily', 21);
    await expect(site.approveAndApply(details)).rejects.toMatchObject({ code: 'PLAN_CHANGED' });
    expect(patches()).toEqual([]);
  });
});
