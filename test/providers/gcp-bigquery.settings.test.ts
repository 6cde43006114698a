import { afterEach, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { gcpBigQuery } from '../../src/providers/gcp-bigquery/provider.ts';
import {
  BIGQUERY_SANDBOX,
  type BigQueryState,
  gcpBigQuerySimulator,
  type SimulatedDataset,
} from '../../src/simulators/gcp-bigquery.ts';
import * as tools from '../../tools/gcp-bigquery.ts';
import { type DeclaredSite, startDeclaredSite } from '../support/declared-settings.ts';

const DEFINES = 'gcp/big-query';
const { project: PROJECT, dataset: ANALYTICS } = BIGQUERY_SANDBOX;
const DAY_MS = 86_400_000;

let site: DeclaredSite;
let state: BigQueryState;
afterEach(() => site.close());

const dataset = (): SimulatedDataset => state.datasets.get(ANALYTICS)!;

async function declare(
  parameters: JsonObject,
  onRequest?: (entry: { method: string }, phase: string) => 'go on' | 'drop',
): Promise<void> {
  site = await startDeclaredSite({
    simulators: (clock) => {
      const simulator = gcpBigQuerySimulator({ clock });
      state = simulator.state;
      return [simulator];
    },
    module: tools,
    defines: DEFINES,
    parameters: {
      project: PROJECT,
      dataset: ANALYTICS,
      access_token: '${env:GOOGLE_OAUTH_ACCESS_TOKEN}',
      ...parameters,
    },
    ...(onRequest === undefined ? {} : { onRequest }),
  });
}

describe('the declared settings of a BigQuery dataset', () => {
  it('are in line in the sandbox, every one of them looked at; an absent window is 168 hours, no expiration 0', async () => {
    await declare({ ...gcpBigQuery.entityTypes[DEFINES]!.sandbox!.parameters, location: 'us' });
    delete dataset().maxTimeTravelHours;
    const { in_line, settings, target } = await site.check();
    expect(settings.map(({ setting, actual }) => [setting, actual])).toEqual([
      ['max_time_travel_hours', 168],
      ['default_table_expiration_ms', 0],
      ['dataset_description', 'Analytics data warehouse'],
      ['location', 'us'],
    ]);
    expect([in_line, target]).toEqual([true, `${PROJECT}.${ANALYTICS}`]);
  });

  it('are strengthened without asking, in one request that leaves all else as it is', async () => {
    await declare({
      max_time_travel_hours: 168,
      default_table_expiration_ms: 0,
      default_partition_expiration_ms: 400 * DAY_MS,
      dataset_description: 'for reports',
    });
    Object.assign(dataset(), {
      maxTimeTravelHours: 48,
      defaultTableExpirationMs: 30 * DAY_MS,
      defaultPartitionExpirationMs: 90 * DAY_MS,
      storageBillingModel: 'PHYSICAL',
    });
    expect(await site.apply()).toEqual([
      { setting: 'max_time_travel_hours', from: 48, to: 168 },
      { setting: 'default_table_expiration_ms', from: 30 * DAY_MS, to: 0 },
      { setting: 'default_partition_expiration_ms', from: 90 * DAY_MS, to: 400 * DAY_MS },
      { setting: 'dataset_description', from: 'Analytics data warehouse', to: 'for reports' },
    ]);
    expect(site.writes()).toEqual([
      {
        method: 'PATCH',
        path: `/bigquery/v2/projects/${PROJECT}/datasets/${ANALYTICS}?updateMode=UPDATE_METADATA`,
      },
    ]);
    expect(dataset()).toMatchObject({ maxTimeTravelHours: 168, storageBillingModel: 'PHYSICAL' });
    expect(dataset().defaultTableExpirationMs).toBeUndefined();
    expect(await site.check()).toMatchObject({ in_line: true });
    expect(await site.apply()).toEqual([]);
    expect(site.writes()).toHaveLength(1);
  });

  it.each<[string, JsonObject, Partial<SimulatedDataset>, RegExp]>([
    [
      'a shorter window',
      { max_time_travel_hours: 72 },
      {},
      /for 72 hours, not 168; the older history of every table goes at once/,
    ],
    [
      'an expiration where there was none',
      { default_table_expiration_ms: 30 * DAY_MS },
      {},
      /tables and snapshots made from now on are deleted after 30 d, and are kept for good today/,
    ],
    [
      'an earlier expiration',
      { default_table_expiration_ms: 30 * DAY_MS },
      { defaultTableExpirationMs: 60 * DAY_MS },
      /deleted after 30 d, not 60 d/,
    ],
    [
      'an expiration of partitions',
      { default_partition_expiration_ms: 10 * DAY_MS },
      {},
      /partitions of tables made from now on are deleted after 10 d/,
    ],
  ])('wait for a person before %s', async (_, parameters, actual, effect) => {
    await declare(parameters);
    Object.assign(dataset(), actual);
    const details = await site.asked();
    expect(details.plan).toMatchObject({ risk: 'weaken', target: `${PROJECT}.${ANALYTICS}` });
    expect(details.plan.loses).toMatch(effect);
    expect(site.writes()).toEqual([]);
    expect(await site.approveAndApply(details)).toHaveLength(1);
    expect(site.writes()).toHaveLength(1);
    expect(await site.check()).toMatchObject({ in_line: true });
  });

  it('that a dataset keeps for good are not applied, with the reason', async () => {
    await declare({ location: 'EU' });
    expect((await site.check()).settings).toEqual([
      {
        setting: 'location',
        declared: 'EU',
        actual: 'US',
        verdict: 'differs',
        note: 'a dataset stays where it was made',
      },
    ]);
    expect(await site.apply()).toEqual([]);
    expect(site.writes()).toEqual([]);
  });

  it('are not sent twice when the answer is lost, and fail as not sent when the request was', async () => {
    const lossy = (lost: string) => (entry: { method: string }, phase: string) =>
      entry.method === 'PATCH' && phase === lost ? ('drop' as const) : ('go on' as const);
    await declare({ dataset_description: 'for reports' }, lossy('handled'));
    expect(await site.apply()).toHaveLength(1);
    expect(site.writes()).toHaveLength(1);
    await site.close();
    await declare({ dataset_description: 'for reports' }, lossy('arrived'));
    await expect(site.apply()).rejects.toMatchObject({ code: 'PROVIDER_UNAVAILABLE' });
    expect([site.writes().length, dataset().description]).toEqual([1, 'Analytics data warehouse']);
  });

  it('void an approval when somebody changes one of them, before the call and during it', async () => {
    await declare({ max_time_travel_hours: 72 });
    const details = await site.asked();
    dataset().maxTimeTravelHours = 120;
    await expect(site.approveAndApply(details)).rejects.toMatchObject({ code: 'PLAN_CHANGED' });
    expect(site.writes()).toEqual([]);
    await site.close();

    // Between the last look and the request: the etag is old by then.
    await declare({ dataset_description: 'for reports' }, ({ method }, phase) => {
      if (method === 'PATCH' && phase === 'arrived')
        dataset().kmsKey = 'projects/p/locations/us/keyRings/r/cryptoKeys/k';
      return 'go on';
    });
    await expect(site.apply()).rejects.toMatchObject({ code: 'PLAN_CHANGED' });
    expect(dataset().description).toBe('Analytics data warehouse');
  });
});
