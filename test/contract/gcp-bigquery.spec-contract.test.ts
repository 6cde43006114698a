import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BigQueryClient, CopyJob } from '../../src/providers/gcp-bigquery/client.ts';
import { gcpBigQuery } from '../../src/providers/gcp-bigquery/provider.ts';
import { BIGQUERY_SANDBOX, type BigQuerySimulator, gcpBigQuerySimulator } from '../../src/simulators/gcp-bigquery.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import { granted, testRuntime } from '../support/runtime.ts';
import { type Contract, openContract, specDirectory, specReason } from './serve.ts';

const { dataset, restoreJob } = BIGQUERY_SANDBOX;

/** Every operation that the adapter sends. */
const USED = [
  'bigquery.datasets.get',
  'bigquery.datasets.list',
  'bigquery.datasets.patch',
  'bigquery.jobs.get',
  'bigquery.jobs.insert',
  'bigquery.tables.delete',
  'bigquery.tables.get',
  'bigquery.tables.list',
];

describe.skipIf(specDirectory === undefined)(`BigQuery and the official description${specReason}`, () => {
  const signal = new AbortController().signal;
  let contract: Contract;
  let server: SimulatorServer;
  let simulator: BigQuerySimulator;
  let client: BigQueryClient;

  beforeAll(async () => {
    contract = await openContract({
      document: 'gcp-bigquery.discovery.json',
      // A discovery document names no status: what has no answer is answered with 204.
      allow: [/^bigquery\.tables\.delete: answer 204 is not a declared status$/],
    });
    server = await startSimulators({
      simulators: (clock) => {
        simulator = gcpBigQuerySimulator({ clock });
        return [contract.wrap(simulator)];
      },
    });
    const type = gcpBigQuery.entityTypes['gcp/big-query']!;
    const parameters = type.schema.parse(type.sandbox!.parameters);
    const entity = {
      ...parameters,
      key: 'sandbox/gcp-bigquery',
      namespace: 'sandbox',
      name: 'gcp-bigquery',
      defines: 'gcp/big-query',
      provider: 'gcp-bigquery',
      labels: {},
      objectives: {},
      endpoint: server.origin,
      parameters,
    };
    const runtime = testRuntime({ per_second: 1000, burst: 1000, concurrent: 8, timeout_ms: 5000 });
    client = await gcpBigQuery.connect(entity as never, runtime);
  });
  afterAll(async () => {
    await server.close();
  });

  const codeOf = (work: Promise<unknown>): Promise<unknown> =>
    work.then(
      () => 'no failure',
      (cause: { code: string }) => cause.code,
    );

  it('reads in the documented shapes, every kind of dataset and table, whole pages and single ones', async () => {
    for (const name of simulator.state.datasets.keys()) await client.getDataset(name, signal);
    simulator.state.datasets.get('backups')!.kmsKey = 'projects/p/locations/us/keyRings/r/cryptoKeys/k';
    await client.getDataset('backups', signal);
    for (const { dataset: of, name } of simulator.state.tables) {
      await client.getTable({ dataset: of, table: name }, signal);
    }
    const { next } = await client.listTables(dataset, { limit: 3 }, signal);
    await client.listTables(dataset, { limit: 1000, token: next }, signal);
    await client.listTables('scratch', { limit: 1000 }, signal);
    await client.getJob(restoreJob, 'US', signal);
    expect(await codeOf(client.getJob(restoreJob, 'EU', signal))).toBe('RESOURCE_NOT_FOUND');
    expect((await client.lookUp({ dataset, table: 'no_such' }, signal)).state).toBe('missing');
  });

  it('writes in the documented shapes, and is answered in them from pending to done and failed', async () => {
    let counter = 0;
    const copy = async (job: Omit<CopyJob, 'id' | 'location' | 'replaces'> & { replaces?: boolean }) => {
      counter += 1;
      const id = `holdfast_contract_${counter}`;
      await client.copy({ replaces: false, ...job, id, location: 'US' }, signal);
      for (const ms of [0, 500, 5000]) {
        server.clock.advance(ms);
        await client.getJob(id, 'US', signal);
        await client.listTables(dataset, { limit: 1000 }, signal);
      }
    };
    const at = (ms: number): Date => new Date(server.clock.now().getTime() + ms);
    const orders = { dataset, table: 'orders' };
    const snapshot = { dataset, table: 'contract snapshot — 三月' };
    await granted(async () => {
      await copy({ operation: 'SNAPSHOT', source: orders, destination: snapshot, expires: at(86_400_000) });
      await client.getTable(snapshot, signal);
      await copy({ operation: 'SNAPSHOT', source: orders, destination: snapshot });
      await copy({ operation: 'RESTORE', source: snapshot, destination: { dataset, table: 'contract_copy' } });
      await copy({ operation: 'RESTORE', source: snapshot, destination: orders, replaces: true });
      await copy({
        operation: 'COPY',
        source: orders,
        at: at(-3_600_000),
        destination: { dataset, table: 'contract_then' },
      });
      simulator.state.failNext.push('jobBackendError');
      await copy({ operation: 'COPY', source: orders, destination: { dataset, table: 'never' } });
      const created = String(simulator.table(snapshot.table)?.createdAt);
      await client.deleteSnapshot(snapshot, created, signal);
      await copy({
        operation: 'RESTORE',
        source: snapshot,
        at: at(-1000),
        destination: { dataset, table: 'contract_found' },
      });
    });
    const failed = simulator.state.jobs.filter(({ error }) => error !== undefined).map(({ error }) => error?.reason);
    expect(failed).toEqual(['duplicate', 'jobBackendError']);
    expect(server.writes()).toHaveLength(8);
  });

  it('changes settings in the documented shapes', async () => {
    await client.listDatasets(undefined, signal);
    for (const hours of ['48', '168']) {
      const { etag } = await client.getDataset(dataset, signal);
      const days = hours === '48' ? '864000000' : '0';
      const settings = {
        maxTimeTravelHours: hours,
        defaultTableExpirationMs: days,
        defaultPartitionExpirationMs: days,
        description: 'contract',
      };
      await granted(() => client.updateDataset(settings, String(etag), signal));
    }
    await client.getDataset(dataset, signal);
  });

  it('sends nothing for a name that would reach another resource', async () => {
    const before = server.journal.length;
    await granted(async () => {
      for (const table of ['', '.', '..', 'a/b', 'a@1', 'a$1', 'a?b', 'a#b', 'a%2fb', 'a.b', 'a\u0000b']) {
        expect(await codeOf(client.getTable({ dataset, table }, signal)), table).toBe('INVALID_PARAMETER');
        expect(await codeOf(client.deleteSnapshot({ dataset, table }, '1', signal)), table).toBe('INVALID_PARAMETER');
      }
      for (const name of ['', 'a/b', 'a-b', 'a.b', '..']) {
        expect(await codeOf(client.getDataset(name, signal)), name).toBe('INVALID_PARAMETER');
        expect(await codeOf(client.listTables(name, { limit: 1 }, signal)), name).toBe('INVALID_PARAMETER');
      }
      expect(await codeOf(client.getJob('x/cancel', 'US', signal))).toBe('INVALID_PARAMETER');
      expect(await codeOf(client.getJob('x', 'US&x=1', signal))).toBe('INVALID_PARAMETER');
    });
    expect(server.journal.length).toBe(before);
  });

  it('would notice what the description forbids', async () => {
    const strict = await openContract({ document: 'gcp-bigquery.discovery.json' });
    const wrapped = strict.wrap({
      provider: 'gcp-bigquery',
      matches: () => true,
      handle: () => ({ status: 200, body: { kind: 'bigquery#dataset', maxTimeTravelHours: 168, invented: true } }),
    });
    const url = new URL(`${server.origin}/bigquery/v2/projects/p/datasets/d?datasetView=METADATA`);
    await wrapped.handle({ method: 'GET', url, headers: {}, text: '', json: undefined });
    expect(strict.faults.join('\n')).toMatch(/maxTimeTravelHours/);
    expect(strict.faults.join('\n')).toMatch(/invented/);
  });

  it('differed nowhere and saw every operation that the adapter uses', () => {
    expect(contract.faults).toEqual([]);
    expect(contract.unusedAllowances()).toEqual([]);
    expect([...contract.seen].sort()).toEqual(USED);
  });
});
