import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { FirestoreClient } from '../../src/providers/gcp-firestore/client.ts';
import { toOperation } from '../../src/providers/gcp-firestore/map.ts';
import { gcpFirestore } from '../../src/providers/gcp-firestore/provider.ts';
import {
  FIRESTORE_SANDBOX,
  type FirestoreSimulator,
  gcpFirestoreSimulator,
} from '../../src/simulators/gcp-firestore.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import { granted, testRuntime } from '../support/runtime.ts';
import { type Contract, openContract, specDirectory, specReason } from './serve.ts';

const { project, database, restoreOperation } = FIRESTORE_SANDBOX;
const ADMIN = 'firestore.projects.databases';

/** Every operation that the adapter sends. */
const USED = [
  `${ADMIN}.backupSchedules.create`,
  `${ADMIN}.backupSchedules.delete`,
  `${ADMIN}.backupSchedules.get`,
  `${ADMIN}.backupSchedules.list`,
  `${ADMIN}.backupSchedules.patch`,
  `${ADMIN}.clone`,
  `${ADMIN}.documents.listCollectionIds`,
  `${ADMIN}.documents.runAggregationQuery`,
  `${ADMIN}.exportDocuments`,
  `${ADMIN}.get`,
  `${ADMIN}.importDocuments`,
  `${ADMIN}.list`,
  `${ADMIN}.operations.get`,
  `${ADMIN}.operations.list`,
  `${ADMIN}.patch`,
  `${ADMIN}.restore`,
  'firestore.projects.locations.backups.delete',
  'firestore.projects.locations.backups.get',
  'firestore.projects.locations.backups.list',
];

describe.skipIf(specDirectory === undefined)(`Firestore and the official description${specReason}`, () => {
  const signal = new AbortController().signal;
  let contract: Contract;
  let server: SimulatorServer;
  let simulator: FirestoreSimulator;
  let client: FirestoreClient;

  const connect = async (id: string): Promise<FirestoreClient> => {
    const type = gcpFirestore.entityTypes['gcp/firestore']!;
    const parameters = type.schema.parse({ ...type.sandbox!.parameters, database_id: id });
    const entity = {
      ...parameters,
      key: 'sandbox/gcp-firestore',
      namespace: 'sandbox',
      name: 'gcp-firestore',
      defines: 'gcp/firestore',
      provider: 'gcp-firestore',
      labels: {},
      objectives: {},
      endpoint: server.origin,
      parameters,
    };
    const runtime = testRuntime({ per_second: 1000, burst: 1000, concurrent: 8, timeout_ms: 5000 });
    return gcpFirestore.connect(entity as never, runtime);
  };

  beforeAll(async () => {
    contract = await openContract({
      document: 'gcp-firestore.discovery.json',
      // The document spells these for documents below another; its descriptions give `…/documents` for the top.
      aliases: ['listCollectionIds', 'runAggregationQuery'].map((verb) => ({
        when: new RegExp(`^POST /v1/projects/[^/]+/databases/[^/]+/documents:${verb}$`),
        operation: `${ADMIN}.documents.${verb}`,
      })),
      // A streaming method answers with a list of what the document gives as one.
      allow: [/^firestore\.projects\.databases\.documents\.runAggregationQuery: answer 200 \/ must be object/],
    });
    server = await startSimulators({
      simulators: (clock) => {
        simulator = gcpFirestoreSimulator({ clock });
        return [contract.wrap(simulator)];
      },
    });
    client = await connect(database);
  });
  afterAll(async () => {
    await server.close();
  });

  const fails = (work: Promise<unknown>): Promise<unknown> =>
    work.then(
      () => 'no failure',
      (cause: { code: string }) => cause.code,
    );

  it('reads in the documented shapes', async () => {
    for (const id of [database, 'shop-carts-copy', '(default)', 'ledger']) {
      const other = await connect(id);
      const found = await other.getDatabase(id, signal);
      await other.listSchedules(signal);
      await other.listOperations(id, signal);
      await other.listBackups({ location: '-', databaseUid: String(found.uid) }, signal);
    }
    simulator.state.unreachable.add('europe-west1');
    const { backups, unreachable } = await client.listBackups({ location: '-' }, signal);
    expect(unreachable).toEqual([`projects/${project}/locations/europe-west1`]);
    simulator.state.unreachable.clear();
    await client.listBackups({ location: 'us-central1' }, signal);
    for (const { name } of backups) await client.getBackup(String(name), signal);
    await client.getOperation(restoreOperation, signal);
    expect(await client.collections(signal)).toEqual(['carts', 'orders', 'customers']);
    expect(await client.countDocuments('orders', signal)).toBe(47);
  });

  it('writes in the documented shapes, and is answered in them from begun to done, failed and cancelled', async () => {
    const follow = async (name: unknown, end: string): Promise<void> => {
      for (const ms of [0, 500, 2500]) {
        server.clock.advance(ms);
        await client.getOperation(String(name), signal);
      }
      expect(toOperation(await client.getOperation(String(name), signal)).status).toBe(end);
    };
    const minute = (): string =>
      new Date(Math.floor(server.clock.now().getTime() / 60_000) * 60_000 - 60_000).toISOString();
    await granted(async () => {
      const uri = 'gs://holdfast-sandbox-backups/contract';
      const wanted = { uri, collections: ['carts', 'orders'], snapshotTime: minute() };
      await follow((await client.exportDocuments(wanted, signal)).name, 'succeeded');
      await follow((await client.importDocuments(uri, ['carts'], signal)).name, 'succeeded');
      const { backups } = await client.listBackups({ location: '-' }, signal);
      const own = backups.filter((backup) => backup.database?.endsWith(database));
      await follow((await client.restore('contract-copy', String(own[0]?.name), signal)).name, 'succeeded');
      await client.getDatabase('contract-copy', signal);
      await follow((await client.clone('contract-then', minute(), signal)).name, 'succeeded');
      await client.deleteBackup(String(own[1]?.name), signal);
      const weekly = await client.createSchedule({ retention: '604800s', day: 'SUNDAY' }, signal);
      await client.getSchedule(String(weekly.name), signal);
      await client.deleteSchedule(String(weekly.name), signal);
      for (const schedule of await client.listSchedules(signal))
        await client.deleteSchedule(String(schedule.name), signal);
      await client.createSchedule({ retention: '86400s', day: undefined }, signal);
      simulator.state.failNext.push({ kind: 'import', code: 13 }, { kind: 'import', code: 1 });
      await follow((await client.importDocuments(uri, undefined, signal)).name, 'failed');
      await follow((await client.importDocuments(uri, undefined, signal)).name, 'cancelled');
    });
    expect(server.writes()).toHaveLength(11);
  });

  it('sends nothing for a name that would reach another resource', async () => {
    const before = server.journal.length;
    const backup = `projects/${project}/locations/us/backups/x`;
    await granted(async () => {
      for (const bad of ['', '-', 'a/b', 'Upper', 'x'.repeat(64), '0123abcd-0000-0000-0000-0123456789ab', '(other)']) {
        expect(await fails(client.getDatabase(bad, signal)), bad).toBe('INVALID_PARAMETER');
        expect(await fails(client.restore(bad, backup, signal)), bad).toBe('INVALID_PARAMETER');
      }
      for (const bad of [
        '',
        `projects/${project}/databases/${database}`,
        `${backup}/operations/y`,
        backup.replace(project, 'another-project'),
      ]) {
        expect(await fails(client.deleteBackup(bad, signal)), bad).toBe('INVALID_PARAMETER');
        expect(await fails(client.getBackup(bad, signal)), bad).toBe('INVALID_PARAMETER');
      }
      const schedule = `projects/${project}/databases/${database}/backupSchedules`;
      for (const bad of [
        '',
        'a b',
        `${schedule}/`,
        `${schedule}/x/y`,
        schedule.replace(database, 'ledger').concat('/x'),
      ]) {
        expect(await fails(client.deleteSchedule(bad, signal)), bad).toBe('INVALID_PARAMETER');
      }
      for (const bad of [
        '',
        'operations/x',
        `projects/${project}/databases/${database}`,
        `${restoreOperation}/x`,
        `${restoreOperation}:cancel`,
      ]) {
        expect(await fails(client.getOperation(bad, signal)), bad).toBe('INVALID_PARAMETER');
      }
      for (const bad of [
        '',
        'gs://',
        's3://bucket/x',
        'gs://bucket/../x',
        'gs://bucket/a b',
        'gs://bucket/x?y',
        'https://x',
      ]) {
        expect(await fails(client.importDocuments(bad, undefined, signal)), bad).toBe('INVALID_PARAMETER');
      }
      for (const bad of ['', 'a/b', '..', '__x__', ' x']) {
        expect(await fails(client.importDocuments('gs://bucket/x', [bad], signal)), bad).toBe('INVALID_PARAMETER');
      }
      expect(await fails(client.listBackups({ location: 'us/backups' }, signal))).toBe('INVALID_PARAMETER');
    });
    expect(server.journal.length).toBe(before);
  });

  it('changes settings in the documented shapes', async () => {
    await client.listDatabases(signal);
    await granted(async () => {
      for (const word of ['DISABLED', 'ENABLED']) {
        const { etag } = await client.getDatabase(database, signal);
        const settings = {
          etag,
          pointInTimeRecoveryEnablement: `POINT_IN_TIME_RECOVERY_${word}`,
          deleteProtectionState: `DELETE_PROTECTION_${word}`,
        };
        const { name } = await client.updateDatabase(settings, signal);
        for (const ms of [0, 5000]) {
          server.clock.advance(ms);
          await client.getOperation(String(name), signal);
          await client.listOperations(database, signal);
          await client.getDatabase(database, signal);
        }
      }
      const [schedule] = await client.listSchedules(signal);
      await client.updateSchedule(String(schedule?.name), '604800s', signal);
    });
  });

  it('has no way to reach what deletes a database or its documents', () => {
    const forbidden = [`${ADMIN}.delete`, `${ADMIN}.bulkDeleteDocuments`];
    for (const id of forbidden) {
      expect([...contract.operations]).toContain(id);
      expect(USED).not.toContain(id);
    }
  });

  it('differed nowhere and saw every operation that the adapter uses', () => {
    expect(contract.faults).toEqual([]);
    expect([...contract.seen].sort()).toEqual([...USED].sort());
    expect(contract.unusedAllowances()).toEqual([]);
  });
});
