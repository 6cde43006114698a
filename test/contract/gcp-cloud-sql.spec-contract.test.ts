import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CloudSqlClient } from '../../src/providers/gcp-cloud-sql/client.ts';
import { readSettings, writeSettings } from '../../src/providers/gcp-cloud-sql/declared.ts';
import { gcpCloudSql } from '../../src/providers/gcp-cloud-sql/provider.ts';
import { CLOUD_SQL_SANDBOX, type CloudSqlSimulator, gcpCloudSqlSimulator } from '../../src/simulators/gcp-cloud-sql.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import { granted, testRuntime } from '../support/runtime.ts';
import { type Contract, openContract, specDirectory, specReason } from './serve.ts';

const { project, instance, restoreOperation, finalBackup } = CLOUD_SQL_SANDBOX;

/** Every operation that the adapter sends. */
const USED = [
  'sql.Backups.CreateBackup',
  'sql.Backups.DeleteBackup',
  'sql.Backups.GetBackup',
  'sql.Backups.ListBackups',
  'sql.Backups.UpdateBackup',
  'sql.backupRuns.delete',
  'sql.backupRuns.get',
  'sql.backupRuns.insert',
  'sql.backupRuns.list',
  'sql.databases.list',
  'sql.instances.clone',
  'sql.instances.get',
  'sql.instances.list',
  'sql.instances.patch',
  'sql.instances.restoreBackup',
  'sql.operations.get',
  'sql.operations.list',
  'sql.projects.instances.getLatestRecoveryTime',
  'sql.users.list',
];

describe.skipIf(specDirectory === undefined)(`Cloud SQL and the official description${specReason}`, () => {
  const signal = new AbortController().signal;
  let contract: Contract;
  let server: SimulatorServer;
  let simulator: CloudSqlSimulator;
  let client: CloudSqlClient;

  beforeAll(async () => {
    contract = await openContract({ document: 'gcp-sqladmin.discovery.json' });
    server = await startSimulators({
      simulators: (clock) => {
        simulator = gcpCloudSqlSimulator({ clock });
        return [contract.wrap(simulator)];
      },
    });
    const type = gcpCloudSql.entityTypes['gcp/cloud-sql-instance']!;
    const parameters = type.schema.parse(type.sandbox!.parameters);
    const entity = {
      ...parameters,
      key: 'sandbox/gcp-cloud-sql',
      namespace: 'sandbox',
      name: 'gcp-cloud-sql',
      defines: 'gcp/cloud-sql-instance',
      provider: 'gcp-cloud-sql',
      labels: {},
      objectives: {},
      endpoint: server.origin,
      parameters,
    };
    const runtime = testRuntime({ per_second: 1000, burst: 1000, concurrent: 8, timeout_ms: 5000 });
    client = await gcpCloudSql.connect(entity as never, runtime);
  });
  afterAll(async () => {
    await server.close();
  });

  const fails = (work: Promise<unknown>): Promise<unknown> =>
    work.then(
      () => 'no failure',
      (cause: { code: string }) => cause.code,
    );

  it('reads in the documented shapes, whole pages and single ones', async () => {
    await client.getInstance(instance, signal);
    await client.getInstance('reports-db', signal);
    await client.getInstance('reports-db-replica', signal);
    await client.listInstances(undefined, signal);
    await client.recoveryWindow(instance, signal);
    await client.databases(instance, signal);
    await client.users(instance, signal);
    const { next } = await client.listRuns(instance, { limit: 2 }, signal);
    await client.listRuns(instance, { limit: 100, token: next }, signal);
    const { items } = await client.listNamed(instance, { limit: 2 }, signal);
    await client.listNamed('legacy-shop', { limit: 500 }, signal);
    await client.getNamed(String(items[0]?.name), signal);
    for (const run of simulator.state.runs.filter((candidate) => candidate.type !== 'FINAL')) {
      await client.getRun(run.instance, run.id, signal);
    }
    await client.getOperation(restoreOperation, signal);
    await client.listOperations(instance, signal);
  });

  it('writes in the documented shapes, and is answered in them from pending to done and failed', async () => {
    const follow = async (name: unknown): Promise<void> => {
      for (const ms of [0, 500, 5000]) {
        server.clock.advance(ms);
        await client.getOperation(String(name), signal);
        await client.listRuns(instance, { limit: 5 }, signal);
        await client.listNamed(instance, { limit: 5 }, signal);
      }
    };
    await granted(async () => {
      const taken = await client.createRun(instance, 'contract', signal);
      await follow(taken.name);
      const id = String(taken.backupContext?.backupId);
      const name = String(taken.backupContext?.name);
      await follow((await client.restore(instance, { runId: id, instance }, signal)).name);
      await follow((await client.restore('contract-copy', { name }, signal)).name);
      const at = new Date(server.clock.now().getTime() - 1000).toISOString();
      await follow((await client.clone(instance, 'contract-then', at, signal)).name);
      await follow((await client.deleteBackup({ kind: 'run', id }, signal)).name);
      const { items } = await client.listNamed(instance, { limit: 1 }, signal);
      await follow((await client.deleteBackup({ kind: 'named', name: String(items[0]?.name) }, signal)).name);
      simulator.state.failNext.push({ type: 'BACKUP_VOLUME', code: 'INTERNAL_ERROR' });
      simulator.state.failNext.push({ type: 'DELETE_BACKUP', code: 'INTERNAL_ERROR' });
      const failed = await client.createRun(instance, 'contract', signal);
      await follow(failed.name);
      await follow(
        (await client.deleteBackup({ kind: 'run', id: String(failed.backupContext?.backupId) }, signal)).name,
      );
    });
    expect(server.writes()).toHaveLength(8);
  });

  it('takes and changes named backups in the documented shapes', async () => {
    await granted(async () => {
      const taken = await client.createNamed(instance, { description: 'contract', ttlDays: 30 }, signal);
      for (const ms of [0, 5000]) {
        server.clock.advance(ms);
        await client.getOperation(String(taken.name), signal);
        await client.getNamed(String(taken.backupContext?.name), signal);
      }
      const name = `projects/${project}/backups/${finalBackup}`;
      const expiryTime = new Date(server.clock.now().getTime() + 86_400_000).toISOString();
      const changed = await client.updateNamed(name, { description: 'contract', expiryTime }, signal);
      server.clock.advance(5000);
      await client.getOperation(String(changed.name), signal);
      await client.getNamed(name, signal);
    });
  });

  it('changes settings in the documented shapes, on MySQL as well', async () => {
    for (const name of [instance, 'legacy-shop']) {
      const declared = {
        backup_start_time: '04:30',
        point_in_time_recovery_enabled: name === 'legacy-shop',
        backup_retention_count: 5,
        transaction_log_retention_days: 3,
        backup_location: 'eu',
        delete_protection: true,
        retain_backups_on_delete: false,
        final_backup: { enabled: true, retention_days: 14 },
      };
      const own = { ...client, instance: name };
      const context = { client: own, entity: declared, signal } as never;
      const { findings } = await readSettings(context);
      await granted(() => writeSettings(context, 'update-settings', findings));
      server.clock.advance(5000);
      const after = await readSettings(context);
      expect(after.findings.filter(({ verdict }) => verdict !== 'as_declared')).toEqual([]);
      await client.listOperations(name, signal);
    }
  });

  it('sends nothing for a name that would reach another resource', async () => {
    const before = server.journal.length;
    await granted(async () => {
      expect(await fails(client.getInstance('', signal))).toBe('INVALID_PARAMETER');
      expect(await fails(client.getInstance('a/../b', signal))).toBe('INVALID_PARAMETER');
      expect(await fails(client.deleteBackup({ kind: 'run', id: '' }, signal))).toBe('INVALID_PARAMETER');
      const stretched = `projects/${project}/backups/x/operations/y`;
      expect(await fails(client.deleteBackup({ kind: 'named', name: stretched }, signal))).toBe('INVALID_PARAMETER');
      expect(await fails(client.restore('Bad_Name', { runId: '1', instance }, signal))).toBe('INVALID_PARAMETER');
      expect(await fails(client.getOperation('x/cancel', signal))).toBe('INVALID_PARAMETER');
    });
    expect(server.journal.length).toBe(before);
  });

  it('differed nowhere and saw every operation that the adapter uses', () => {
    expect(contract.faults).toEqual([]);
    expect([...contract.seen].sort()).toEqual(USED);
  });
});
