import { afterEach, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { redisCloud } from '../../src/providers/redis-cloud/provider.ts';
import { type RedisCloudState, redisCloudSimulator } from '../../src/simulators/redis-cloud.ts';
import * as tools from '../../tools/redis-cloud.ts';
import { type DeclaredSite, startDeclaredSite } from '../support/declared-settings.ts';
import { CARTS, ESSENTIALS, GLOBAL, PRO, SESSIONS, SUBSCRIPTION } from './redis-cloud.support.ts';

let site: DeclaredSite;
let state: RedisCloudState;
afterEach(() => site.close());

type OnRequest = NonNullable<Parameters<typeof startDeclaredSite>[0]['onRequest']>;

async function declare(
  defines: string,
  parameters: JsonObject,
  options: { onRequest?: OnRequest; secrets?: Record<string, string> } = {},
): Promise<void> {
  const { onRequest, secrets } = options;
  site = await startDeclaredSite({
    simulators: (clock) => {
      const simulator = redisCloudSimulator({ clock });
      state = simulator.state;
      Object.assign(state.durations, { queue: 40, update: 40 });
      return [simulator];
    },
    module: tools,
    defines,
    parameters: {
      access_key: '${env:REDISCLOUD_ACCESS_KEY}',
      secret_key: '${env:REDISCLOUD_SECRET_KEY}',
      ...parameters,
    },
    ...(secrets === undefined ? {} : { secrets }),
    ...(onRequest === undefined ? {} : { onRequest }),
  });
}

const database = (id: number) => state.databases.get(id)!;
const carts = () => database(CARTS.database_id);
const sessions = () => database(SESSIONS.database_id);
const plan = () => state.subscriptions.get(2101)!;
const puts = () => site.server.writes().filter(({ method }) => method === 'PUT');
const S3 = 's3://sandbox-backups/redis/sessions/';
const REMOTE = { active: true, interval: 'every-6-hours', storage_type: 'aws-s3', storage_path: S3 };

describe('the declared settings of Redis Cloud', () => {
  it.each(Object.entries(redisCloud.entityTypes))('%s is in line in the sandbox', async (defines, { sandbox }) => {
    await declare(defines, sandbox!.parameters);
    const { settings, in_line } = await site.check();
    expect(settings.filter(({ verdict }) => verdict !== 'as_declared')).toEqual([]);
    expect(in_line).toBe(true);
    expect(settings.length).toBeGreaterThan(1);
    for (const { setting } of settings) expect(redisCloud.settings?.about).toHaveProperty([setting]);
  });

  it('are applied to an Essentials database without a question where they protect more, by one request', async () => {
    await declare(ESSENTIALS, {
      subscription_id: 2101,
      database_id: 51002102,
      data_persistence: 'aof-every-1-second',
      periodic_backup_path: 's3://sandbox-backups/redis/previews/',
    });
    expect((await site.check()).target).toBe('2101/previews');
    expect(await site.apply()).toEqual([
      { setting: 'data_persistence', from: 'none', to: 'aof-every-1-second' },
      { setting: 'periodic_backup_path', from: null, to: 's3://sandbox-backups/redis/previews/' },
    ]);
    expect(puts().map(({ path, body }) => [path, body])).toEqual([
      [
        '/v1/fixed/subscriptions/2101/databases/51002102',
        { dataPersistence: 'aof-every-1-second', periodicBackupPath: 's3://sandbox-backups/redis/previews/' },
      ],
    ]);
    expect(database(51002102)).toMatchObject({
      status: 'active',
      dataPersistence: 'aof-every-1-second',
      backup: { destination: 's3://sandbox-backups/redis/previews/' },
    });
    expect((await site.check()).in_line).toBe(true);
  });

  it('are applied to a Pro database as one block, with what is not declared kept', async () => {
    await declare(PRO, { ...SESSIONS, remote_backup: { interval: 'every-2-hours' } });
    await site.apply();
    expect(puts()[0]?.body).toEqual({
      remoteBackup: { active: true, interval: 'every-2-hours', storageType: 'aws-s3', storagePath: S3 },
    });
    expect(sessions().backup).toMatchObject({ destination: S3, interval: 'every-2-hours' });
    await site.close();
    await declare(PRO, { ...SESSIONS, remote_backup: { ...REMOTE, interval: 'every-12-hours', time_utc: '14:00' } });
    Object.assign(sessions(), { backup: {} });
    expect((await site.apply()).map(({ setting }) => setting)).toEqual([
      'remote_backup.active',
      'remote_backup.interval',
      'remote_backup.time_utc',
      'remote_backup.storage_type',
      'remote_backup.storage_path',
    ]);
    expect(puts()).toHaveLength(1);
    expect(sessions().backup).toMatchObject({ active: true, interval: 'every-12-hours', timeUTC: '14:00' });
  });

  it.each<[string, string, JsonObject, RegExp]>([
    ['data_persistence', ESSENTIALS, { ...CARTS, data_persistence: 'none' }, /a restart loses all data/],
    [
      'data_persistence',
      PRO,
      { ...SESSIONS, data_persistence: 'snapshot-every-12-hours' },
      /snapshot-every-12-hours on disk, not aof-every-1-second: a restart loses more/,
    ],
    ['periodic_backup_path', ESSENTIALS, { ...CARTS, periodic_backup_path: '' }, /ends the backups to s3:.*carts/],
    [
      'periodic_backup_path',
      ESSENTIALS,
      { ...CARTS, periodic_backup_path: 's3://elsewhere/carts/' },
      /writes backups to s3:\/\/elsewhere\/carts\/, not s3:\/\/sandbox-backups/,
    ],
    [
      'remote_backup.active',
      PRO,
      { ...SESSIONS, remote_backup: { active: false } },
      /ends the backups, every-6-hours; the files there stay/,
    ],
    [
      'remote_backup.interval',
      PRO,
      { ...SESSIONS, remote_backup: { interval: 'every-24-hours' } },
      /every-24-hours, not every-6-hours: more is lost/,
    ],
    [
      'remote_backup.storage_path',
      PRO,
      { ...SESSIONS, remote_backup: { ...REMOTE, storage_path: 's3://elsewhere/x' } },
      /s3:\/\/elsewhere\/x, not/,
    ],
  ])('ask a person before %s of %s gets less', async (setting, defines, parameters, effect) => {
    await declare(defines, parameters);
    const details = await site.asked();
    expect(details.plan).toMatchObject({ risk: 'weaken', loses: expect.stringMatching(effect) });
    expect(details.plan.facts.target).toMatchObject({ database_id: parameters['database_id'] });
    expect(puts()).toEqual([]);
    expect((await site.approveAndApply(details)).map((one) => one.setting)).toEqual([setting]);
    expect(puts()).toHaveLength(1);
    expect((await site.check()).in_line).toBe(true);
  });

  it('of an Active-Active database are those of one region, and change that region only', async () => {
    await declare(PRO, {
      ...GLOBAL,
      data_persistence: 'aof-every-write',
      remote_backup: { ...REMOTE, storage_path: 's3://sandbox-backups/redis/global-us/', region_name: 'us-east-1' },
    });
    expect((await site.check()).settings.find(({ setting }) => setting === 'remote_backup.active')).toMatchObject({
      actual: false,
    });
    await site.apply();
    expect(puts().map(({ path }) => path)).toEqual(['/v1/subscriptions/3102/databases/51003201/regions']);
    const { regions, dataPersistence } = database(GLOBAL.database_id);
    expect(dataPersistence).toBe('aof-every-write');
    expect(regions.get('us-east-1')?.backup).toMatchObject({ active: true, interval: 'every-6-hours' });
    expect(regions.get('eu-west-1')?.backup).toMatchObject({ interval: 'every-24-hours', timeUTC: '02:00' });
    expect((await site.check()).in_line).toBe(true);
    await site.close();
    await declare(PRO, { ...GLOBAL, remote_backup: { interval: 'every-24-hours', region_name: 'mars' } });
    expect((await site.check()).settings[0]).toMatchObject({
      note: 'Active-Active: declare remote_backup.region_name, one of us-east-1, eu-west-1',
    });
    await site.close();
    // Without a name they are those of the region that has backups.
    await declare(PRO, { ...GLOBAL, remote_backup: { interval: 'every-24-hours', time_utc: '02:00' } });
    expect((await site.check()).in_line).toBe(true);
  });

  it('that Redis Cloud would refuse are shown with the reason and not sent', async () => {
    const cases: [string, JsonObject, RegExp][] = [
      [PRO, { remote_backup: { ...REMOTE, time_utc: '02:00' } }, /only with an interval of 12 or 24 hours/],
      [PRO, { replication: false }, /price of the database/],
      [PRO, { remote_backup: { storage_type: 'ftp' } }, /declare storage_type and storage_path together/],
      [PRO, { remote_backup: { interval: 'every-1-hours', region_name: 'x' } }, /for Active-Active databases only/],
      [ESSENTIALS, { data_persistence: 'aof-every-write' }, /only Pro/],
      [
        ESSENTIALS,
        { subscription_id: 2102, database_id: 51002201, data_persistence: 'aof-every-1-second' },
        /no data persistence/,
      ],
      [ESSENTIALS, { subscription_id: 2102, database_id: 51002201, periodic_backup_path: 's3://b/' }, /no backups/],
    ];
    for (const [defines, parameters, note] of cases) {
      await declare(defines, { ...(defines === PRO ? SESSIONS : CARTS), name: 'x', ...parameters });
      const differing = (await site.check()).settings.filter(({ verdict }) => verdict === 'differs');
      expect(differing.length).toBeGreaterThan(0);
      expect(differing[0]?.note).toMatch(note);
      expect(await site.apply()).toEqual([]);
      expect(puts()).toEqual([]);
      await site.close();
    }
    await declare(PRO, { ...SESSIONS, remote_backup: { interval: 'every-6-hours' } });
    sessions().backup = {};
    expect((await site.check()).settings[0]).toMatchObject({ note: expect.stringMatching(/active: true/) });
    sessions().backup = { active: true, interval: 'every-2-hours', destination: 'ftp://***@files.example.com/r/' };
    expect((await site.check()).settings[0]).toMatchObject({ note: expect.stringMatching(/credentials are not told/) });
  });

  it('compare a path with credentials without them, and never show them', async () => {
    const secret = 'ftp://backup:pa55-canary@files.example.com/redis/';
    const parameters = {
      ...SESSIONS,
      remote_backup: { active: true, interval: 'every-2-hours', storage_path: '${env:BACKUP_PATH}' },
    };
    await declare(PRO, parameters, { secrets: { BACKUP_PATH: secret } });
    sessions().backup = { active: true, interval: 'every-6-hours', destination: '[ftp://***@files.example.com/redis]' };
    const check = await site.check();
    expect(check.settings.find(({ setting }) => setting === 'remote_backup.storage_path')).toMatchObject({
      verdict: 'as_declared',
      note: expect.stringMatching(/not compared/),
    });
    await site.apply();
    expect(sessions().backup).toMatchObject({ destination: secret, interval: 'every-2-hours' });
    expect(JSON.stringify([check, await site.check()])).not.toContain('pa55-canary');
  });

  it('move a subscription to the cheapest plan that has what is declared, asking where it costs more', async () => {
    const both = { support_instant_and_daily_backups: true, support_data_persistence: true };
    await declare(SUBSCRIPTION, { name: 'free', ...both });
    const details = await site.asked();
    expect(details.plan).toMatchObject({
      target: 'free',
      loses: expect.stringMatching(/plan 98240 'Single-Zone 100MB' for 300 USD a month, not 0/),
      facts: { target: { subscription_id: 2102, plan_id: 98_001 } },
    });
    await site.approveAndApply(details);
    expect(state.subscriptions.get(2102)).toMatchObject({ planId: 98_240, supportDataPersistence: true });
    expect(puts().map(({ path, body }) => [path, body])).toEqual([
      ['/v1/fixed/subscriptions/2102', { planId: 98_240 }],
    ]);
    expect((await site.check()).in_line).toBe(true);
    await site.close();
    await declare(SUBSCRIPTION, { subscription_id: 2101, ...both });
    Object.assign(plan(), {
      planId: 98_200,
      supportInstantAndDailyBackups: false,
      supportDataPersistence: false,
    });
    expect((await site.check()).settings.map(({ to_apply }) => to_apply?.risk)).toEqual(['change', 'change']);
    await site.apply();
    expect(plan()).toMatchObject({ planId: 98_250, price: 500, supportInstantAndDailyBackups: true });
  });

  it('move a subscription to no lesser plan, and to none where none is known', async () => {
    await declare(SUBSCRIPTION, { subscription_id: 2101, support_data_persistence: false });
    expect((await site.check()).settings[0]).toMatchObject({ note: expect.stringMatching(/no lesser plan/) });
    await site.close();
    await declare(SUBSCRIPTION, { subscription_id: 2101, support_data_persistence: true });
    Object.assign(plan(), { planId: 98_500, supportDataPersistence: false });
    expect((await site.check()).settings[0]).toMatchObject({ note: expect.stringMatching(/no plan that has it/) });
    expect(await site.apply()).toEqual([]);
    expect(puts()).toEqual([]);
  });

  it('end with the error of the task, and nothing changed', async () => {
    await declare(ESSENTIALS, { ...CARTS, data_persistence: 'snapshot-every-1-hour' });
    carts().dataPersistence = 'none';
    state.nextError = { type: 'DATABASE_SNAPSHOT_NOT_SUPPORTED' };
    await expect(site.apply()).rejects.toMatchObject({ code: 'CLUSTER_TIER_NOT_SUPPORTED' });
    expect(carts().dataPersistence).toBe('none');
    expect(puts()).toHaveLength(1);
  });

  it('are found in force when the answer is lost, and not sent twice', async () => {
    await declare(
      PRO,
      { ...SESSIONS, remote_backup: { interval: 'every-1-hours' } },
      {
        onRequest: ({ method }, phase) => (method === 'PUT' && phase === 'handled' ? 'drop' : 'go on'),
      },
    );
    // In force at once: what is looked at after the lost answer shows it.
    Object.assign(state.durations, { queue: 0, update: 0 });
    expect((await site.apply()).map(({ setting }) => setting)).toEqual(['remote_backup.interval']);
    expect(puts()).toHaveLength(1);
    expect(sessions().backup.interval).toBe('every-1-hours');
  });

  it('void the approval when somebody changes them meanwhile', async () => {
    await declare(PRO, { ...SESSIONS, remote_backup: { interval: 'every-24-hours' } });
    const details = await site.asked();
    sessions().backup.interval = 'every-4-hours';
    await expect(site.approveAndApply(details)).rejects.toMatchObject({ code: 'PLAN_CHANGED' });
    expect(puts()).toEqual([]);
  });
});
