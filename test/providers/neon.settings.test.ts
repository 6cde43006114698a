import { afterEach, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { NEON_SANDBOX, type NeonState, neonSimulator } from '../../src/simulators/neon.ts';
import type { SimulatorServerOptions } from '../../src/simulators/server.ts';
import * as tools from '../../tools/neon.ts';
import { type DeclaredSite, startDeclaredSite } from '../support/declared-settings.ts';

const { project: PROJECT, main: MAIN } = NEON_SANDBOX;
const BASE = `/api/v2/projects/${PROJECT}`;
const DAY = 86_400;
const DAILY = { frequency: 'daily', hour: 3, retention_seconds: 7 * DAY };

let site: DeclaredSite;
let state: NeonState;
afterEach(() => site.close());

async function declare(
  parameters: JsonObject,
  onRequest?: NonNullable<SimulatorServerOptions['onRequest']>,
): Promise<void> {
  site = await startDeclaredSite({
    simulators: (clock) => {
      const simulator = neonSimulator({ clock });
      state = simulator.state;
      state.workMs = 20;
      return [simulator];
    },
    module: tools,
    defines: 'neon/project',
    parameters: { project_id: PROJECT, branch: 'main', api_key: '${env:NEON_API_KEY}', ...parameters },
    ...(onRequest === undefined ? {} : { onRequest }),
  });
}

const found = async (setting: string) => (await site.check()).settings.find((one) => one.setting === setting)!;
const scheduleOf = (branch = MAIN) => state.project().schedules.get(branch);

describe('the declared settings of a Neon project', () => {
  it('are in line in the sandbox, whatever the order of a schedule and what it leaves open', async () => {
    await declare({
      history_retention_seconds: 604_800,
      backup_schedule: [{ frequency: 'weekly', hour: 1, day: 7 }, DAILY],
      protected: false,
    });
    scheduleOf()!.push({ frequency: 'weekly', hour: 1, day: 7, retention_seconds: 30 * DAY });
    const { in_line, settings, target } = await site.check();
    expect(settings.map(({ setting, verdict }) => [setting, verdict])).toEqual([
      ['history_retention_seconds', 'as_declared'],
      ['backup_schedule', 'as_declared'],
      ['protected', 'as_declared'],
    ]);
    expect([in_line, target]).toEqual([true, `${PROJECT}/main`]);
    expect(await site.apply()).toEqual([]);
    expect(site.writes()).toEqual([]);
  });

  it('are strengthened without asking, one request each with nothing else in it, and in force afterwards', async () => {
    const backup_schedule = [DAILY, { frequency: 'monthly', hour: 4, day: 1 }];
    await declare({ history_retention_seconds: 604_800, backup_schedule, protected: true });
    state.project().historySeconds = DAY;
    const before = Date.now() - 1000 * DAY;
    expect(await site.apply()).toEqual([
      { setting: 'history_retention_seconds', from: DAY, to: 604_800 },
      { setting: 'backup_schedule', from: [DAILY], to: backup_schedule },
      { setting: 'protected', from: false, to: true },
    ]);
    expect(site.server.writes().map(({ method, path, body }) => [method, path, body])).toEqual([
      ['PATCH', BASE, { project: { history_retention_seconds: 604_800 } }],
      [
        'PUT',
        `${BASE}/branches/${MAIN}/backup_schedule`,
        { schedule: [DAILY, { frequency: 'monthly', hour: 4, day: 1, retention_seconds: 35 * DAY }] },
      ],
      ['PATCH', `${BASE}/branches/${MAIN}`, { branch: { protected: true } }],
    ]);
    expect(await site.check()).toMatchObject({ in_line: true });
    // A longer window does not bring back what was cut off before.
    expect(state.project().historyFrom).toBeGreaterThan(before);
  });

  it.each<[string, JsonObject, RegExp, () => void]>([
    [
      'a shorter history',
      { history_retention_seconds: 7200 },
      /keeps 2 h of history, not 7 d: the older moments of every branch are lost at once and for good/,
      () => {
        expect(state.project().historyFrom).toBeGreaterThan(Date.now() - 7_260_000);
        // The branch's past of ninety days is cut to what the two hours need.
        expect(state.branch('main').history.map(({ at }) => at > Date.now() - 3 * DAY * 1000)).toEqual([true, true]);
      },
    ],
    [
      'no history',
      { history_retention_seconds: 0 },
      /history is switched off: no moment of any branch.*its 7 d are lost/,
      () => expect(state.branch('main').history).toHaveLength(1),
    ],
    [
      'an empty schedule',
      { backup_schedule: [] },
      /no snapshots are taken by themselves any more; until now: daily at 03:00 UTC kept 7 d/,
      () => expect(scheduleOf()).toEqual([]),
    ],
    [
      'rarer snapshots',
      { backup_schedule: [{ frequency: 'weekly', day: 1, hour: 3, retention_seconds: 7 * DAY }] },
      /takes snapshots weekly on day 1 at 03:00 UTC kept 7 d, not daily at 03:00 UTC kept 7 d: fewer/,
      () => expect(scheduleOf()).toMatchObject([{ frequency: 'weekly' }]),
    ],
    [
      'snapshots that are kept for less time',
      { backup_schedule: [{ ...DAILY, retention_seconds: DAY }] },
      /kept 1 d, not daily at 03:00 UTC kept 7 d: fewer, or kept for less time/,
      () => expect(scheduleOf()).toMatchObject([{ retention_seconds: DAY }]),
    ],
    [
      'no protection',
      { protected: false },
      /the branch 'main' loses its protection/,
      () => expect(state.branch('main').protected).toBe(false),
    ],
  ])('wait for a person before %s', async (_, parameters, effect, proof) => {
    await declare(parameters);
    if (parameters['protected'] === false) state.branch('main').protected = true;
    const details = await site.asked();
    expect(details.plan).toMatchObject({ risk: 'weaken', target: `${PROJECT}/main` });
    expect(details.plan.loses).toMatch(effect);
    expect(site.writes()).toEqual([]);
    expect(await site.approveAndApply(details)).toHaveLength(1);
    expect(site.writes()).toHaveLength(1);
    proof();
    expect(await site.check()).toMatchObject({ in_line: true });
  });

  it('guards a schedule that it does not understand, and cannot change one that it cannot see', async () => {
    await declare({ backup_schedule: [DAILY] });
    state.project().schedules.set(MAIN, [{ frequency: 'fortnightly', hour: 3, retention_seconds: DAY }]);
    expect((await found('backup_schedule')).to_apply).toMatchObject({ risk: 'weaken' });
    state.project().schedules.set(MAIN, [{ frequency: 'daily', hour: 3 }]);
    expect((await found('backup_schedule')).to_apply).toMatchObject({ risk: 'weaken' });
    await site.close();
    await declare({ branch: 'dev', backup_schedule: [DAILY] });
    expect(await found('backup_schedule')).toEqual({
      setting: 'backup_schedule',
      declared: [DAILY],
      verdict: 'unknown',
      note: expect.stringMatching(/child branches and some plans have none/),
    });
    expect(await site.apply()).toEqual([]);
  });

  it('say what the plan of the account, its limits and the key do not allow, and send nothing for a key that only looks', async () => {
    await declare({ history_retention_seconds: 2_592_000 });
    await expect(site.apply()).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
    await site.close();
    await declare({ protected: true });
    state.branch('dev').protected = true;
    await expect(site.apply()).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED' });
    const sent = site.writes().length;
    state.project().permission = 'CAN_VIEW';
    await expect(site.apply()).rejects.toMatchObject({ code: 'INSUFFICIENT_PERMISSIONS' });
    expect(site.writes()).toHaveLength(sent);
  });

  it('wait for other work of the project, which refuses before it does anything', async () => {
    await declare({ protected: true });
    state.locked = 2;
    expect(await site.apply()).toEqual([{ setting: 'protected', from: false, to: true }]);
  });

  it('are not sent twice when the answer is lost', async () => {
    await declare({ history_retention_seconds: 604_800 }, ({ method }, phase) =>
      method === 'PATCH' && phase === 'handled' ? 'drop' : 'go on',
    );
    state.project().historySeconds = DAY;
    expect(await site.apply()).toHaveLength(1);
    expect(site.writes()).toHaveLength(1);
  });

  it('void an approval when somebody changes one of them before the call, or the branch gets another id', async () => {
    await declare({ history_retention_seconds: 3600 });
    const first = await site.asked();
    state.project().historySeconds = 2 * DAY;
    await expect(site.approveAndApply(first)).rejects.toMatchObject({ code: 'PLAN_CHANGED' });
    const second = await site.asked();
    state.branch('main').id = 'br-another-one-1';
    await expect(site.approveAndApply(second)).rejects.toMatchObject({ code: 'PLAN_CHANGED' });
    expect(site.writes()).toEqual([]);
  });
});
