import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readSettings, writeSettings } from '../../src/providers/digitalocean/declared.ts';
import { digitalocean } from '../../src/providers/digitalocean/provider.ts';
import {
  DIGITALOCEAN_SANDBOX,
  type DigitalOceanSimulator,
  digitaloceanSimulator,
} from '../../src/simulators/digitalocean.ts';
import * as tools from '../../tools/digitalocean.ts';
import { type Bench, failure, startBench } from '../support/bench.ts';
import { granted } from '../support/runtime.ts';
import { type Contract, openContract, specDirectory, specReason } from './serve.ts';

const USED = [
  'databases_list_clusters',
  'databases_get_cluster',
  'databases_list_backups',
  'databases_get_config',
  'databases_patch_config',
  'databases_list_firewall_rules',
  'databases_list_options',
  'databases_create_cluster',
];

describe.skipIf(specDirectory === undefined)(`DigitalOcean against its official API description${specReason}`, () => {
  let contract: Contract;
  let bench: Bench<DigitalOceanSimulator>;

  beforeAll(async () => {
    contract = await openContract({ document: 'digitalocean.openapi.json' });
    bench = await startBench({
      provider: digitalocean as never,
      defines: 'digitalocean-database/database',
      create: digitaloceanSimulator,
      secret: 'token',
      wrap: (simulator) => contract.wrap(simulator),
    });
  });
  afterAll(() => bench?.server.close());

  const other = (name: string) => bench.connect({ name, engine: null, version: null, num_nodes: null, size: null });

  it('holds every request and every answer to it', async () => {
    bench.simulator.state.limit = 100;
    for (const name of ['orders', 'catalog', 'documents']) {
      const context = await other(name);
      await bench.read(tools.getBackupInfo, {}, context);
      await bench.read(tools.listSnapshots, {}, context);
      const [point] = await bench.options(undefined, context);
      await bench.operate(tools.restore, point!.call.input, { context });
      await bench.operate(
        tools.restore,
        { ...point!.call.input, new_cluster_name: `${name}-away`, region: 'fra1' },
        { context },
      );
    }
    await bench.read(tools.getRestoreStatus, { cluster_id: DIGITALOCEAN_SANDBOX.drill });
    bench.simulator.state.cluster('orders').backupProgress = '36';
    bench.simulator.state.credentials = false;
    await bench.read(tools.getBackupInfo);
    for (const name of ['sessions', 'events', 'legacy-reports']) {
      await bench.read(tools.getBackupInfo, {}, await other(name));
    }
    for (const declared of [
      { name: 'orders', backup_hour: 5, backup_minute: 45 },
      { name: 'catalog', mysql_incremental_backup: { enabled: true, full_backup_week_schedule: 'sun' } },
      { name: 'catalog', mysql_incremental_backup: { enabled: false } },
    ]) {
      const none = { engine: null, version: null, num_nodes: null, size: null, backup_hour: null, backup_minute: null };
      const context = (await bench.connect({ ...none, ...declared })) as never;
      const { findings } = await readSettings(context);
      await granted(() => writeSettings(context, findings));
      expect((await readSettings(context)).findings.every(({ verdict }) => verdict !== 'differs')).toBe(true);
    }
    expect(contract.faults).toEqual([]);
    expect([...contract.seen].sort()).toEqual([...USED].sort());
  });

  it('holds refusals to it', async () => {
    const { state } = bench.simulator;
    const [point] = await bench.options();
    state.limit = state.clusters.length;
    expect((await failure(bench.operate(tools.restore, { ...point!.call.input, new_cluster_name: 'more' }))).code).toBe(
      'QUOTA_EXCEEDED',
    );
    await failure(bench.read(tools.getRestoreStatus, { cluster_id: '00000000-0000-4000-8000-000000000000' }));
    state.unauthenticated = true;
    await failure(bench.read(tools.getBackupInfo));
    expect(contract.faults).toEqual([]);
    expect(contract.unusedAllowances()).toEqual([]);
  });

  it('would notice a request that does not fit', async () => {
    const before = contract.faults.length;
    await fetch(`${bench.server.origin}/v2/databases?page=2`, { headers: { authorization: 'Bearer t' } });
    await fetch(`${bench.server.origin}/v2/databases`, {
      method: 'POST',
      headers: { authorization: 'Bearer t', 'content-type': 'application/json' },
      body: JSON.stringify({ name: 'x', engine: 'pg', num_nodes: '1', status: 'online', restore_time: 'now' }),
    });
    expect(contract.faults.slice(before).join('\n')).toMatch(
      /page[\s\S]*must have required property 'size'[\s\S]*restore_time is not in the document/,
    );
    contract.faults.length = before;
  });
});
