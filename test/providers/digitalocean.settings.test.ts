import { afterEach, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { digitalocean } from '../../src/providers/digitalocean/provider.ts';
import {
  DIGITALOCEAN_SANDBOX,
  type DigitalOceanState,
  digitaloceanSimulator,
} from '../../src/simulators/digitalocean.ts';
import type { SimulatorServerOptions } from '../../src/simulators/server.ts';
import * as tools from '../../tools/digitalocean.ts';
import { type DeclaredSite, startDeclaredSite } from '../support/declared-settings.ts';

const DEFINES = 'digitalocean-database/database';
const CONFIG = `/v2/databases/${DIGITALOCEAN_SANDBOX.cluster}/config`;

let site: DeclaredSite;
let state: DigitalOceanState;
afterEach(() => site.close());

async function declare(
  parameters: JsonObject,
  onRequest?: NonNullable<SimulatorServerOptions['onRequest']>,
): Promise<void> {
  site = await startDeclaredSite({
    simulators: (clock) => {
      const simulator = digitaloceanSimulator({ clock });
      state = simulator.state;
      return [simulator];
    },
    module: tools,
    defines: DEFINES,
    parameters: { name: 'orders', token: '${env:DIGITALOCEAN_TOKEN}', ...parameters },
    ...(onRequest === undefined ? {} : { onRequest }),
  });
}

const shown = async (): Promise<Record<string, unknown[]>> =>
  Object.fromEntries(
    (await site.check()).settings.map(({ setting, actual, verdict, to_apply }) => [
      setting,
      [actual, verdict, to_apply?.risk],
    ]),
  );

describe('the declared settings of a DigitalOcean cluster', () => {
  it('are in line in the sandbox', async () => {
    await declare(digitalocean.entityTypes[DEFINES]!.sandbox!.parameters);
    const { in_line, settings, target } = await site.check();
    expect(settings.filter(({ verdict }) => verdict !== 'as_declared')).toEqual([]);
    expect([in_line, target, settings.length]).toEqual([true, 'orders', 7]);
    expect(await site.apply()).toEqual([]);
    expect(site.writes()).toEqual([]);
  });

  it('that are no backup settings are compared and left alone', async () => {
    await declare({ engine: 'mysql', region: 'ams3' });
    expect(await shown()).toEqual({
      engine: ['pg', 'differs', undefined],
      region: ['nyc3', 'differs', undefined],
    });
    expect((await site.check()).settings[0]?.note).toMatch(/no backup setting/);
    expect(await site.apply()).toEqual([]);
  });

  it('wait for a person before the backups move to another time, in one request', async () => {
    await declare({ backup_hour: 7, backup_minute: 45 });
    const before = state.backups('orders').length;
    const details = await site.asked();
    expect(details.plan).toMatchObject({ risk: 'weaken', target: 'orders' });
    expect(details.plan.loses).toMatch(/taken at 07:45 UTC, not at 03:20 UTC: once, up to two days may pass/);
    expect(await site.approveAndApply(details)).toEqual([
      { setting: 'backup_hour', from: 3, to: 7 },
      { setting: 'backup_minute', from: 20, to: 45 },
    ]);
    expect(site.server.writes().map(({ method, path, body }) => [method, path, body])).toEqual([
      ['PATCH', CONFIG, { config: { backup_hour: 7, backup_minute: 45 } }],
    ]);
    expect(state.backups('orders')).toHaveLength(before);
    expect(await site.check()).toMatchObject({ in_line: true });
  });

  it('take full backups of MySQL instead of incremental ones without asking', async () => {
    await declare({ name: 'catalog', mysql_incremental_backup: { enabled: false } });
    expect(await shown()).toEqual({ 'mysql_incremental_backup.enabled': [true, 'differs', 'change'] });
    expect(await site.apply()).toEqual([{ setting: 'mysql_incremental_backup.enabled', from: true, to: false }]);
    expect(state.cluster('catalog').config['mysql_incremental_backup']).toEqual({ enabled: false });
  });

  it('take full backups on more days without asking, whatever the order of the days', async () => {
    await declare({
      name: 'catalog',
      mysql_incremental_backup: { enabled: true, full_backup_week_schedule: 'thu,sat,mon' },
    });
    expect(await site.apply()).toEqual([
      { setting: 'mysql_incremental_backup.full_backup_week_schedule', from: 'mon,thu', to: 'mon,thu,sat' },
    ]);
    state.cluster('catalog').config['mysql_incremental_backup'] = {
      enabled: true,
      full_backup_week_schedule: 'sat,thu,mon',
    };
    expect(await site.check()).toMatchObject({ in_line: true });
  });

  it.each<[string, JsonObject, RegExp]>([
    [
      'incremental backups',
      { enabled: false },
      /full backups are taken on sun only: those of the other days cannot be restored without the last full one/,
    ],
    [
      'full backups on other days',
      { enabled: true, full_backup_week_schedule: 'mon,thu' },
      /full backups are taken on sun, not on mon, thu/,
    ],
  ])('wait for a person before %s', async (_, actual, effect) => {
    await declare({
      name: 'catalog',
      mysql_incremental_backup: { enabled: true, full_backup_week_schedule: 'sun' },
    });
    state.cluster('catalog').config['mysql_incremental_backup'] = actual;
    const details = await site.asked();
    expect(details.plan.loses).toMatch(effect);
    await site.approveAndApply(details);
    expect(state.cluster('catalog').config['mysql_incremental_backup']).toEqual({
      enabled: true,
      full_backup_week_schedule: 'sun',
    });
    expect(site.writes()).toHaveLength(1);
  });

  it.each([
    ['documents', /chooses the time/],
    ['events', /Kafka has no backups/],
  ])('that an engine has not are unknown or said to be none: %s', async (name, reason) => {
    await declare({ name, backup_minute: 10, mysql_incremental_backup: { enabled: false } });
    expect(await shown()).toEqual({
      backup_minute: [undefined, 'unknown', undefined],
      'mysql_incremental_backup.enabled': [null, 'differs', undefined],
    });
    const [minute, incremental] = (await site.check()).settings;
    expect(minute?.note).toMatch(reason);
    expect(incremental?.note).toMatch(/only MySQL/);
    expect(await site.apply()).toEqual([]);
  });

  it('are not sent twice when the answer is lost', async () => {
    await declare({ name: 'catalog', mysql_incremental_backup: { enabled: false } }, ({ method }, phase) =>
      method === 'PATCH' && phase === 'handled' ? 'drop' : 'go on',
    );
    expect(await site.apply()).toHaveLength(1);
    expect(site.writes()).toHaveLength(1);
  });

  it('void an approval when somebody changes one of them before the call', async () => {
    await declare({ backup_hour: 7 });
    const details = await site.asked();
    state.cluster('orders').backupHour = 5;
    await expect(site.approveAndApply(details)).rejects.toMatchObject({ code: 'PLAN_CHANGED' });
    expect(site.writes()).toEqual([]);
  });

  it('say which scope they need', async () => {
    await declare({ name: 'catalog', mysql_incremental_backup: { enabled: false } });
    state.refusals.set('PATCH /config', { status: 403, id: 'forbidden', message: 'You are not authorized' });
    await expect(site.apply()).rejects.toMatchObject({
      code: 'INSUFFICIENT_PERMISSIONS',
      hint: expect.stringMatching(/database:update/),
    });
  });
});
