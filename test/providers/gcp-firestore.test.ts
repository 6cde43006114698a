import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Action } from '../../src/core/action.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { Recovery } from '../../src/core/operation.ts';
import type { BackupInfo, RecoveryPoint, RestoreJob, SnapshotList } from '../../src/core/schemas.ts';
import type { ConfirmationDetails } from '../../src/engine/api.ts';
import { newDatabaseId } from '../../src/providers/gcp-firestore/backups.ts';
import { toFirestoreError, toOperation } from '../../src/providers/gcp-firestore/map.ts';
import { gcpFirestore } from '../../src/providers/gcp-firestore/provider.ts';
import { gcpCloudSqlSimulator } from '../../src/simulators/gcp-cloud-sql.ts';
import {
  FIRESTORE_SANDBOX,
  type FirestoreContent,
  type FirestoreSimulator,
  gcpFirestoreSimulator,
  type SimulatedDatabase,
} from '../../src/simulators/gcp-firestore.ts';
import type { SimulatorServer } from '../../src/simulators/server.ts';
import { SimulatorClock } from '../../src/simulators/simulator.ts';
import * as tools from '../../tools/gcp-firestore.ts';
import { type Bench, type Context, failure, startBench, trace } from '../support/bench.ts';
import { ANA, BOSS, startHarness } from '../support/harness.ts';
import { granted } from '../support/runtime.ts';

const DEFINES = 'gcp/firestore';
const { project: PROJECT, database: CARTS, export: NIGHTLY, restoreOperation, dailySchedule } = FIRESTORE_SANDBOX;
const PLACE = 'gs://holdfast-sandbox-backups/firestore';
const CANARY = 'canary-firestore-token-7d1e';
const DATABASE = `projects/${PROJECT}/databases/${CARTS}`;
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

let bench: Bench<FirestoreSimulator>;
let state: FirestoreSimulator['state'];
let server: SimulatorServer;
let closing: (() => Promise<void>)[];

beforeEach(async () => {
  closing = [];
  bench = await startBench({
    provider: gcpFirestore as never,
    defines: DEFINES,
    create: gcpFirestoreSimulator,
    secret: CANARY,
  });
  ({ server } = bench);
  ({ state } = bench.simulator);
});
afterEach(async () => {
  for (const close of closing) await close();
  await server.close();
});

const database = (id: string = CARTS): SimulatedDatabase => state.databases.get(`${PROJECT}/${id}`)!;
const content = (id: string = CARTS): FirestoreContent => database(id).history.at(-1)!.content;
const backupsOf = (id: string = CARTS) =>
  state.backups.filter((one) => one.database.endsWith(`/${id}`)).sort((a, b) => b.snapshotAt - a.snapshotAt);
const newest = (): string => backupsOf()[0]!.name;
const ago = (ms: number): Date => new Date(Math.floor((server.clock.now().getTime() - ms) / MINUTE) * MINUTE);
const writes = (): string[] => server.writes().map(({ method, path }) => `${method} ${path.split(/[/:]/).at(-1)}`);

describe('Firestore backup information', () => {
  it('shows schedule, window and the newest backup of this very database', async () => {
    const info = await bench.read<BackupInfo>(tools.getBackupInfo);
    expect(info).toMatchObject({
      automated: true,
      retention_seconds: 14 * 86_400,
      schedule: 'daily',
      pitr: { enabled: true },
      encryption: 'Google-managed keys',
      deletion_protection: true,
      newest: { id: newest(), kind: 'automated', status: 'available', restorable: true },
      warnings: [],
      provider: { database_id: CARTS, type: 'FIRESTORE_NATIVE', version_retention_seconds: 604_800 },
    });
    const { earliest_at, latest_at } = info.pitr.window!;
    expect([earliest_at, latest_at].map((at) => Date.parse(at) % MINUTE)).toEqual([0, 0]);
    expect(Date.parse(latest_at)).toBeLessThanOrEqual(server.clock.now().getTime() - MINUTE);
    expect(Date.parse(earliest_at)).toBeGreaterThan(server.clock.now().getTime() - 7 * 24 * HOUR + MINUTE);
  });

  it('warns of everything that a badly protected database lacks, under the name of the default one', async () => {
    const context = await bench.connect({ database_id: '(default)', location: 'nam5', export_uri_prefix: null });
    const info = await bench.read<BackupInfo>(tools.getBackupInfo, {}, context);
    const text = info.warnings.join('\n');
    expect(text).toMatch(/no backup schedule/);
    expect(text).toMatch(/Point-in-time recovery is off: only the last hour/);
    expect(text).toMatch(/newest restorable backup is 90 d old/);
    expect(text).toMatch(/expires in [56] h/);
    expect(text).toMatch(/Delete protection is off/);
    expect(text).toMatch(/No export_uri_prefix/);
    expect(text).toMatch(
      /Declared point_in_time_recovery is POINT_IN_TIME_RECOVERY_ENABLED, actual POINT_IN_TIME_RECOVERY_DISABLED/,
    );
    expect(text).toMatch(/Declared delete_protection is DELETE_PROTECTION_ENABLED, actual DELETE_PROTECTION_DISABLED/);
    expect(info).toMatchObject({ automated: false, deletion_protection: false, pitr: { enabled: false } });
    const { earliest_at } = info.pitr.window!;
    expect(Date.parse(earliest_at)).toBeGreaterThan(server.clock.now().getTime() - HOUR);
    expect(info.newest?.location).toBe('us');
    expect(server.journal[0]?.path).toContain('/databases/%28default%29');
  });

  it('shows drift of schedules, location, mode and edition', async () => {
    const context = await bench.connect({
      location: 'europe-west1',
      database_type: 'DATASTORE_MODE',
      database_edition: 'ENTERPRISE',
      point_in_time_recovery: true,
      backup_schedules: [
        { frequency: 'weekly', day: 'MONDAY', retention_days: 98 },
        { frequency: 'daily', retention_days: 7 },
      ],
    });
    const { warnings } = await bench.read<BackupInfo>(tools.getBackupInfo, {}, context);
    expect(warnings).toEqual([
      'Declared backup_schedules.daily.retention_days is 7, actual 14.',
      'Declared backup_schedules.weekly.retention_days is 98, actual unset.',
      'Declared location is europe-west1, actual us-central1.',
      'Declared database_type is DATASTORE_MODE, actual FIRESTORE_NATIVE.',
      'Declared database_edition is ENTERPRISE, actual STANDARD.',
    ]);
  });

  it('says what it could not see', async () => {
    state.unreachable.add('europe-west1');
    const { warnings } = await bench.read<BackupInfo>(tools.getBackupInfo);
    expect(warnings).toEqual(['Incomplete: the backups in europe-west1 could not be read.']);
  });
});

describe('Firestore backups', () => {
  it('gives every backup of the database once over pages, newest first, and none of another', async () => {
    const seen: RecoveryPoint[] = [];
    let cursor: string | undefined;
    do {
      const page: SnapshotList = await bench.read(tools.listSnapshots, { limit: 4, ...(cursor ? { cursor } : {}) });
      seen.push(...page.snapshots);
      cursor = page.next_cursor;
    } while (cursor !== undefined);
    expect(seen.map(({ id }) => id)).toEqual(backupsOf().map(({ name }) => name));
    expect(await bench.read(tools.describeSnapshot, { backup_name: seen[0]!.id })).toEqual(seen[0]);
    expect(seen[0]).toMatchObject({ size_bytes: 65 * 4096, provider: { documents: 65, database: CARTS } });
  });

  it('asks one location alone, and says which could not be reached', async () => {
    expect((await bench.read<SnapshotList>(tools.listSnapshots, { location: 'us-central1' })).snapshots).toHaveLength(
      6,
    );
    expect((await bench.read<SnapshotList>(tools.listSnapshots, { location: 'europe-west1' })).snapshots).toEqual([]);
    state.unreachable.add('us-central1');
    const list = await bench.read<SnapshotList>(tools.listSnapshots);
    expect(list).toMatchObject({ snapshots: [], notes: ['Incomplete: the backups in us-central1 could not be read.'] });
  });

  it('knows a database by its uid: one that was made again has no backups yet, one that is gone has its old ones', async () => {
    database().uid = '99999999-aaaa-4bbb-8ccc-dddddddddddd';
    expect((await bench.read<SnapshotList>(tools.listSnapshots)).snapshots).toEqual([]);
    expect((await bench.read<BackupInfo>(tools.getBackupInfo)).newest).toBeNull();
    state.databases.delete(`${PROJECT}/${CARTS}`);
    const list = await bench.read<SnapshotList>(tools.listSnapshots);
    expect(list.snapshots).toHaveLength(6);
    expect(list.notes).toEqual(['The database does not exist: these are backups of databases that had its name.']);
  });

  it.each([
    ['CREATING', 'creating'],
    ['NOT_AVAILABLE', 'unavailable'],
    ['STATE_UNSPECIFIED', 'unknown'],
    ['SOMETHING_NEW', 'unknown'],
  ])('shows the state %s as %s, not restorable', async (word, status) => {
    backupsOf()[0]!.state = word;
    const point = await bench.read<RecoveryPoint>(tools.describeSnapshot, { backup_name: newest() });
    expect(point).toMatchObject({ status, restorable: false });
    expect(point.size_bytes).toBeUndefined();
    const plan = bench.planOf(tools.restore, { backup_name: newest(), target_database: 'a-copy' });
    expect(await failure(plan)).toMatchObject({ code: 'INVALID_STATE', retryable: word === 'CREATING' });
  });

  it("refuses another database's backup for looking, restoring and deleting", async () => {
    const [foreign] = backupsOf('ledger');
    const input = { backup_name: foreign!.name };
    expect((await failure(bench.read(tools.describeSnapshot, input))).code).toBe('INVALID_PARAMETER');
    expect((await failure(bench.planOf(tools.deleteSnapshot, input))).code).toBe('INVALID_PARAMETER');
    const restore = bench.planOf(tools.restore, { ...input, target_database: 'a-copy' });
    expect((await failure(restore)).code).toBe('INVALID_PARAMETER');
    const nowhere = { backup_name: `projects/${PROJECT}/locations/us-central1/backups/absent` };
    expect((await failure(bench.read(tools.describeSnapshot, nowhere))).code).toBe('BACKUP_NOT_FOUND');
  });

  it('deletes one, once', async () => {
    const backup_name = newest();
    const plan = await bench.plan(tools.deleteSnapshot, { backup_name });
    expect(plan).toMatchObject({
      target: `${CARTS}/${backup_name.split('/').at(-1)}`,
      last_restorable: false,
      blast_radius: { other_restorable_backups: 5, documents: 65 },
      newest_recovery_point: { id: backupsOf()[1]!.name },
    });
    const { output } = await bench.operate(tools.deleteSnapshot, { backup_name }, { plan });
    expect(output).toEqual({ backup_name, deleted: true });
    expect((await failure(bench.operate(tools.deleteSnapshot, { backup_name }, { plan }))).code).toBe(
      'BACKUP_NOT_FOUND',
    );
    expect(server.writes()).toHaveLength(1);
  });

  it('knows the last one, and that every backup of a database that is gone is the only copy', async () => {
    const last = backupsOf('(default)')[0]!.name;
    const legacy = await bench.connect({ database_id: '(default)' });
    expect(await bench.planOf(tools.deleteSnapshot, { backup_name: last }, legacy)).toMatchObject({
      last_restorable: true,
    });
    state.databases.delete(`${PROJECT}/${CARTS}`);
    const plan = await bench.planOf(tools.deleteSnapshot, { backup_name: newest() });
    expect(plan.last_restorable).toBe(true);
    expect(plan.warnings?.join()).toMatch(/does not exist any more/);
  });

  it('does not delete what changed after the plan', async () => {
    const backup_name = newest();
    const plan = await bench.plan(tools.deleteSnapshot, { backup_name });
    backupsOf()[0]!.state = 'NOT_AVAILABLE';
    const error = await failure(bench.operate(tools.deleteSnapshot, { backup_name }, { plan }));
    expect(error).toMatchObject({ code: 'INVALID_STATE', details: { differences: [{ path: 'status' }] } });
    expect(server.writes()).toEqual([]);
  });
});

describe('Firestore schedules', () => {
  it('lists, makes and removes them', async () => {
    const input = { frequency: 'weekly', day: 'TUESDAY', retention_days: 98 };
    const { output } = await bench.operate<JsonObject>(tools.createBackupSchedule, input);
    expect(output).toMatchObject({ recurrence: 'weekly', day: 'TUESDAY', retention_seconds: 8_467_200 });
    const { schedules } = await bench.read<{ schedules: JsonObject[] }>(tools.listBackupSchedules);
    expect(schedules.map(({ recurrence }) => recurrence)).toEqual(['daily', 'weekly']);
    const schedule_name = String(output['schedule_name']);
    expect(await bench.planOf(tools.deleteBackupSchedule, { schedule_name })).toMatchObject({
      target: `${CARTS}/${schedule_name.split('/').at(-1)}`,
      undo: 'create-backup-schedule with frequency weekly, retention_days 98 and day TUESDAY; days without it stay without a backup',
      warnings: [],
    });
    const removed = await bench.operate(tools.deleteBackupSchedule, { schedule_name });
    expect(removed.output).toEqual({ schedule_name, deleted: true });
    expect(writes()).toEqual(['POST backupSchedules', `DELETE ${schedule_name.split('/').at(-1)}`]);
  });

  it('takes the last part of a name, and warns of the only one', async () => {
    const plan = await bench.plan(tools.deleteBackupSchedule, { schedule_name: dailySchedule });
    expect(plan.warnings).toEqual(['This is the only schedule: no backups at all will be taken any more.']);
    const { output } = await bench.operate(tools.deleteBackupSchedule, { schedule_name: dailySchedule }, { plan });
    expect(output).toEqual({ schedule_name: `${DATABASE}/backupSchedules/${dailySchedule}`, deleted: true });
    expect(state.schedules.filter(({ database: name }) => name === DATABASE)).toEqual([]);
  });

  it('refuses a second one of a kind, a day for a daily one, and what changed after the plan', async () => {
    const daily = { frequency: 'daily', retention_days: 7 };
    expect((await failure(bench.planOf(tools.createBackupSchedule, daily))).code).toBe('RESOURCE_EXISTS');
    const odd = { ...daily, day: 'MONDAY' };
    expect((await failure(bench.planOf(tools.createBackupSchedule, odd))).code).toBe('INVALID_PARAMETER');
    const weekly = { frequency: 'weekly', retention_days: 7 };
    const plan = await bench.plan(tools.createBackupSchedule, weekly);
    await bench.operate(tools.createBackupSchedule, weekly, { plan });
    const again = await failure(bench.operate(tools.createBackupSchedule, weekly, { plan }));
    expect(again).toMatchObject({ code: 'RESOURCE_EXISTS', provider: { status: 409 } });
    expect(again.message).toMatch(/schedule/);

    const remove = await bench.plan(tools.deleteBackupSchedule, { schedule_name: dailySchedule });
    state.schedules.find(({ name }) => name.endsWith(dailySchedule))!.retention = '86400s';
    const changed = bench.operate(tools.deleteBackupSchedule, { schedule_name: dailySchedule }, { plan: remove });
    expect((await failure(changed)).code).toBe('INVALID_STATE');
    expect(writes()).toEqual(['POST backupSchedules', 'POST backupSchedules']);
  });
});

describe('Firestore exports', () => {
  it('writes a consistent copy into a folder of its own in the configured place', async () => {
    const plan = await bench.plan(tools.exportDocuments, {});
    expect(plan.risk).toBeUndefined();
    expect(plan).toMatchObject({ target: `${PROJECT}/${CARTS}`, loses: 'nothing' });
    const { output, trace: left } = await bench.operate<JsonObject>(tools.exportDocuments, {}, { plan });
    const uri = String(output['output_uri_prefix']);
    expect(uri).toMatch(/^gs:\/\/holdfast-sandbox-backups\/firestore\/\d{8}T\d{6}-[0-9a-f]{8}$/);
    expect(state.exports.get(uri)?.content).toEqual(content());
    expect(output).toMatchObject({
      documents: 84,
      operation_name: expect.stringMatching(/^projects\/.*\/operations\//),
    });
    const body = server.writes()[0]?.body as JsonObject;
    expect(body).toEqual({ outputUriPrefix: uri, snapshotTime: output['snapshot_time'] });
    expect(Date.parse(String(body['snapshotTime'])) % MINUTE).toBe(0);
    expect(left.handles['export']).toHaveLength(2);
    expect(left.progress).toEqual(expect.arrayContaining([expect.stringMatching(/export is running/)]));
  });

  it('takes collections, a moment and an exact folder', async () => {
    const input = {
      output_uri_prefix: `${PLACE}/before-release/`,
      collection_ids: ['orders', 'carts', 'orders'],
      snapshot_time: ago(20 * HOUR).toISOString(),
    };
    const { output } = await bench.operate<JsonObject>(tools.exportDocuments, input);
    expect(output).toMatchObject({
      output_uri_prefix: `${PLACE}/before-release`,
      collection_ids: ['carts', 'orders'],
      snapshot_time: input.snapshot_time,
      documents: 65,
    });
    expect((await failure(bench.operate(tools.exportDocuments, input))).code).toBe('INVALID_PARAMETER');
  });

  it('asks for leave where the copy goes to another place, and shows the configured one', async () => {
    for (const elsewhere of [
      'gs://somebody-elses',
      'gs://holdfast-sandbox-backups/firestore-not',
      'gs://holdfast-sandbox-backups',
    ]) {
      const plan = await bench.planOf(tools.exportDocuments, { output_uri_prefix: elsewhere });
      expect(plan).toMatchObject({ risk: 'weaken', alternatives: [{ risk: 'create', call: { input: {} } }] });
      expect(plan.loses).toContain(elsewhere);
    }
    const bare = await bench.connect({ export_uri_prefix: null });
    expect((await failure(bench.planOf(tools.exportDocuments, {}, bare))).code).toBe('INVALID_PARAMETER');
    const plan = await bench.planOf(tools.exportDocuments, { output_uri_prefix: PLACE }, bare);
    expect(plan.risk).toBe('weaken');
  });

  it.each([
    [{ snapshot_time: '2026-11-20T10:30:15Z' }, 'INVALID_PARAMETER'],
    [{ snapshot_time: '2020-01-01T00:00:00Z' }, 'INVALID_PARAMETER'],
    [{ snapshot_time: '2126-01-01T00:00:00Z' }, 'INVALID_PARAMETER'],
    [{ output_uri_prefix: 's3://bucket/x' }, 'INVALID_PARAMETER'],
    [{ output_uri_prefix: 'gs://bucket/../x' }, 'INVALID_PARAMETER'],
    [{ collection_ids: [] }, 'INVALID_PARAMETER'],
    [{ collection_ids: ['a/b'] }, 'INVALID_PARAMETER'],
  ])('refuses %j', async (input, code) => {
    expect((await failure(bench.planOf(tools.exportDocuments, input as JsonObject))).code).toBe(code);
    expect(server.writes()).toEqual([]);
  });

  it('refuses a database that is too young for a consistent copy', async () => {
    database().createdAt = server.clock.now().getTime() - 30_000;
    expect(await failure(bench.planOf(tools.exportDocuments, {}))).toMatchObject({
      code: 'INVALID_STATE',
      retryable: true,
    });
  });

  it('names the service agent where the bucket is closed, and tells a cancelled export from a failed one', async () => {
    state.closedBuckets.add('holdfast-sandbox-backups');
    const closed = await failure(bench.operate(tools.exportDocuments, {}));
    expect(closed).toMatchObject({ code: 'INSUFFICIENT_PERMISSIONS', retryable: false });
    expect(closed.hint).toMatch(/service agent/);
    state.closedBuckets.clear();
    state.failNext.push({ kind: 'export', code: 1 });
    expect((await failure(bench.operate(tools.exportDocuments, {}))).code).toBe('CANCELLED');
    state.failNext.push({ kind: 'export', code: 13 });
    expect((await failure(bench.operate(tools.exportDocuments, {}))).code).toBe('PROVIDER_UNAVAILABLE');
  });

  it('does not call an export done that Firestore has forgotten', async () => {
    const work = bench.operate(
      tools.exportDocuments,
      {},
      {
        before: (step) => {
          if (step === 'wait') state.operations.length = 0;
        },
      },
    );
    expect(await failure(work)).toMatchObject({ retryable: false, details: { outcome: 'unknown' } });
  });
});

describe('Firestore imports', () => {
  it('says loudly what would be replaced and what stays', async () => {
    const plan = await bench.planOf(tools.importDocuments, { input_uri_prefix: `${NIGHTLY}/` });
    expect(plan).toMatchObject({
      target: `${PROJECT}/${CARTS}`,
      source: NIGHTLY,
      since: expect.stringMatching(/:00\.000Z$/),
      safety_snapshot: { possible: true },
      newest_recovery_point: { id: newest() },
      blast_radius: {
        documents_now: { carts: 26, orders: 47, customers: 11 },
        delete_protection: true,
        point_in_time_recovery: true,
        running_operations: 0,
        export: { consistent: true, documents: 65 },
      },
      facts: {
        target: { database: CARTS, uid: database().uid },
        source: { input_uri_prefix: NIGHTLY, collections: 'all' },
      },
    });
    expect(plan.loses).toMatch(/replaced.*others stay, so the result is a mix/);
    expect(plan.warnings?.[0]).toBe(
      `THIS WRITES INTO THE LIVE DATABASE ${PROJECT}/${CARTS}. It cannot be taken back, and cancelling leaves a part imported.`,
    );
    expect(plan.warnings?.join()).toMatch(/Delete protection does not keep/);
    expect(server.writes()).toEqual([]);
    const calls = plan.alternatives!.flatMap(({ call }) => call ?? []);
    expect(calls.map(({ action }) => action)).toEqual(['restore', 'export-documents']);
    expect((await bench.planOf(tools.restore, calls[0]!.input)).loses).toMatch(/^nothing/);
    expect((await bench.planOf(tools.exportDocuments, calls[1]!.input)).loses).toBe('nothing');
  });

  it('merges: same names are replaced, deleted ones come back, others stay', async () => {
    const before = structuredClone(content());
    const { output } = await bench.operate<JsonObject>(tools.importDocuments, { input_uri_prefix: NIGHTLY });
    expect(output).toMatchObject({ input_uri_prefix: NIGHTLY, target: `${PROJECT}/${CARTS}`, documents: 65 });
    expect(content()['carts']).toMatchObject({ 'cart-1': 'open 1', 'cart-5': 'open 5', 'cart-30': 'checked out 30' });
    expect(content()['customers']).toEqual(before['customers']);
    expect(server.writes()[0]?.body).toEqual({ inputUriPrefix: NIGHTLY });
  });

  it('says what it does not know of an export made elsewhere, of data it may not read, and of operations it may not see', async () => {
    state.exports.set('gs://other/export', { content: { carts: { x: 'y' } }, filtered: true });
    for (const name of ['entities', 'operations', 'backups']) state.denied.add(`datastore.${name}.list`);
    const input = { input_uri_prefix: 'gs://other/export', collection_ids: ['carts'] };
    const plan = await bench.planOf(tools.importDocuments, input);
    expect(plan.since).toBeUndefined();
    expect(plan.blast_radius).toMatchObject({
      documents_now: 'unknown',
      running_operations: 'unknown',
      export: 'unknown',
    });
    const unknowns = plan.unknowns!.join('\n');
    expect(unknowns).toMatch(/what the export holds/);
    expect(unknowns).toMatch(/how many documents/);
    expect(unknowns).toMatch(/whether another operation/);
    expect(unknowns).toMatch(/which backups/);
    expect(plan.warnings?.join()).toMatch(/Sub-collections/);
  });

  it('counts nothing in Datastore mode, and warns of the hour where point-in-time recovery is off', async () => {
    const ledger = await bench.connect({ database_id: 'ledger', export_uri_prefix: null });
    const plan = await bench.planOf(tools.importDocuments, { input_uri_prefix: NIGHTLY }, ledger);
    expect(plan).toMatchObject({
      blast_radius: { documents_now: 'unknown', point_in_time_recovery: false },
      safety_snapshot: { possible: false, reason: expect.stringMatching(/export_uri_prefix/) },
      undo: expect.stringMatching(/nothing brings.*one hour only/),
    });
    expect(server.journal.every(({ path }) => !path.includes('/documents'))).toBe(true);
  });

  it('refuses a filter that the export cannot serve, and an export that is not complete', async () => {
    const filtered = { input_uri_prefix: NIGHTLY, collection_ids: ['carts'] };
    expect((await failure(bench.planOf(tools.importDocuments, filtered))).message).toMatch(/made with collection_ids/);
    const made = await bench.operate<JsonObject>(tools.exportDocuments, { collection_ids: ['carts'] });
    const input_uri_prefix = String(made.output['output_uri_prefix']);
    const wrong = bench.planOf(tools.importDocuments, { input_uri_prefix, collection_ids: ['orders'] });
    expect((await failure(wrong)).message).toMatch(/does not hold the collection 'orders'/);
    expect(await bench.planOf(tools.importDocuments, { input_uri_prefix })).toMatchObject({
      blast_radius: { collections: ['carts'], documents_now: { carts: 26 } },
    });
    const { client, signal } = (await bench.connect()) as unknown as { client: FirestoreCalls; signal: AbortSignal };
    const uri = `${PLACE}/running`;
    await granted(() =>
      client.exportDocuments({ uri, collections: undefined, snapshotTime: ago(MINUTE * 2).toISOString() }, signal),
    );
    const unfinished = await failure(bench.planOf(tools.importDocuments, { input_uri_prefix: uri }));
    expect(unfinished).toMatchObject({ code: 'INVALID_STATE', retryable: true });
  });

  it('finds the export behind whole pages of other operations', async () => {
    const [one] = state.operations.filter(({ name }) => name.startsWith(`${DATABASE}/`));
    const metadata = { '@type': 'type.googleapis.com/google.firestore.admin.v1.IndexOperationMetadata' };
    for (let turn = 0; turn < 230; turn += 1) {
      state.operations.unshift({ ...one!, name: `${DATABASE}/operations/index-${turn}`, metadata });
    }
    const plan = await bench.planOf(tools.importDocuments, { input_uri_prefix: NIGHTLY });
    expect(plan.blast_radius).toMatchObject({ export: { documents: 65 } });
    expect(server.journal.filter(({ path }) => path.includes('/operations?'))).toHaveLength(3);
  });

  it('imports nothing into a database that changed after the plan', async () => {
    const input = { input_uri_prefix: NIGHTLY };
    const plan = await bench.plan(tools.importDocuments, input);
    database().uid = '11111111-aaaa-4bbb-8ccc-dddddddddddd';
    const error = await failure(bench.operate(tools.importDocuments, input, { plan }));
    expect(error).toMatchObject({ code: 'INVALID_STATE', details: { differences: [{ path: 'uid' }] } });
    expect(server.writes()).toEqual([]);
  });

  it('says of a failure that a part may be imported', async () => {
    state.failNext.push({ kind: 'import', code: 13 });
    const error = await failure(bench.operate(tools.importDocuments, { input_uri_prefix: NIGHTLY }));
    expect(error.hint).toMatch(/Part of the documents may have been imported/);
    state.failNext.push({ kind: 'import', code: 1 });
    const cancelled = await failure(bench.operate(tools.importDocuments, { input_uri_prefix: NIGHTLY }));
    expect(cancelled).toMatchObject({ code: 'CANCELLED', hint: expect.stringMatching(/Part of the documents/) });
    const absent = await failure(bench.operate(tools.importDocuments, { input_uri_prefix: 'gs://nowhere/x' }));
    expect(absent.code).toBe('RESOURCE_NOT_FOUND');
  });
});

interface FirestoreCalls {
  exportDocuments(...of: unknown[]): Promise<unknown>;
  restore(...of: unknown[]): Promise<{ name: string }>;
  getDatabase(...of: unknown[]): Promise<unknown>;
}

describe('Firestore restores', () => {
  it('makes a new database of a backup and leaves the old one as it is', async () => {
    const before = structuredClone(content());
    const input = { backup_name: backupsOf()[3]!.name, target_database: 'carts-copy' };
    const plan = await bench.plan(tools.restore, input);
    expect(plan.risk).toBeUndefined();
    expect(plan).toMatchObject({
      target: `${PROJECT}/carts-copy`,
      loses: 'nothing: a new database is made',
      blast_radius: { creates: 'carts-copy', backup: { documents: 50 } },
      facts: { target: { exists: false }, source: { backup: input.backup_name, database_uid: database().uid } },
    });
    expect(plan.warnings.join()).toMatch(/TTL policies and security rules/);
    const { output } = await bench.operate<RestoreJob>(tools.restore, input, { plan });
    expect(output).toMatchObject({ status: 'succeeded', usable: true, target: `${PROJECT}/carts-copy` });
    expect(content('carts-copy')).toEqual(backupsOf()[3]!.content);
    expect(content()).toEqual(before);
    expect(server.writes()[0]).toMatchObject({
      path: `/v1/projects/${PROJECT}/databases:restore`,
      body: { backup: input.backup_name, databaseId: 'carts-copy' },
    });
  });

  it('makes a new database of a moment', async () => {
    const at = ago(3 * HOUR).toISOString();
    const { output } = await bench.operate<RestoreJob>(tools.restore, {
      restore_timestamp: Date.parse(at) / 1000,
      target_database: 'carts-then',
    });
    expect(output).toMatchObject({ status: 'succeeded', usable: true });
    expect(content('carts-then')).toEqual(database().history[1]!.content);
    expect(server.writes()[0]).toMatchObject({
      path: `/v1/projects/${PROJECT}/databases:clone`,
      body: { databaseId: 'carts-then', pitrSnapshot: { database: DATABASE, snapshotTime: at } },
    });
  });

  it('restores an earlier database of the name, and says so', async () => {
    state.databases.delete(`${PROJECT}/${CARTS}`);
    const gone = await bench.planOf(tools.restore, { backup_name: newest(), target_database: 'carts-again' });
    expect(gone.warnings?.join()).toMatch(/earlier database of this name/);
    const { output } = await bench.operate<RestoreJob>(tools.restore, {
      backup_name: newest(),
      target_database: 'carts-again',
    });
    expect(output.usable).toBe(true);
  });

  it('warns of a backup about to expire', async () => {
    const legacy = await bench.connect({ database_id: '(default)' });
    const input = { backup_name: backupsOf('(default)')[0]!.name, target_database: 'users-copy' };
    expect((await bench.planOf(tools.restore, input, legacy)).warnings?.join()).toMatch(/expires in [56] h/);
  });

  it('never restores onto a database that exists, or that may', async () => {
    const onto = (target_database: string) => bench.planOf(tools.restore, { backup_name: newest(), target_database });
    expect((await failure(onto(CARTS))).code).toBe('RESOURCE_EXISTS');
    expect((await failure(onto('ledger'))).code).toBe('RESOURCE_EXISTS');
    const input = { backup_name: newest(), target_database: 'a-copy' };
    const plan = await bench.plan(tools.restore, input);
    const appeared = bench.operate(tools.restore, input, {
      plan,
      before: (step) => {
        if (step === 'restore') state.databases.set(`${PROJECT}/a-copy`, { ...database('ledger'), id: 'a-copy' });
      },
    });
    expect((await failure(appeared)).code).toBe('INVALID_STATE');
    state.denied.add('datastore.databases.getMetadata');
    expect(await failure(onto('b-copy'))).toMatchObject({
      code: 'INSUFFICIENT_PERMISSIONS',
      details: { outcome: 'not_sent' },
    });
    expect(server.writes()).toEqual([]);
  });

  it.each([
    [{ target_database: 'a-copy' }],
    [{ target_database: 'a-copy', backup_name: 'x', restore_timestamp: 1_700_000_000 }],
    [{ target_database: 'a-copy', backup_name: '' }],
    [{ target_database: 'a-copy', backup_name: `projects/other-project/locations/us/backups/x` }],
    [{ target_database: 'a-copy', backup_name: `projects/${PROJECT}/locations/us/backups/x/y` }],
    [{ target_database: 'a-copy', restore_timestamp: '2026-11-20T10:30:15Z' }],
    [{ target_database: 'a-copy', restore_timestamp: '2020-01-01T00:00:00Z' }],
    [{ target_database: 'a-copy', restore_timestamp: '2126-01-01T00:00:00Z' }],
    [{ target_database: 'a-copy', restore_timestamp: 'yesterday' }],
    [{ target_database: 'Bad_Name', restore_timestamp: 1_700_000_040 }],
    [{ target_database: '', restore_timestamp: 1_700_000_040 }],
  ])('refuses %j', async (input) => {
    expect((await failure(bench.planOf(tools.restore, input as JsonObject))).code).toBe('INVALID_PARAMETER');
    expect(server.writes()).toEqual([]);
  });

  it('shows a restore from running to usable, and what is left of one that is forgotten', async () => {
    const { client, signal } = (await bench.connect()) as unknown as { client: FirestoreCalls; signal: AbortSignal };
    const { name } = await granted(() => client.restore('carts-copy', newest(), signal));
    const status = (operation_name: string) => bench.read<RestoreJob>(tools.getRestoreStatus, { operation_name });
    server.clock.advance(1500);
    const running = await status(name);
    expect(running).toMatchObject({ status: 'running', usable: false, target: `${PROJECT}/carts-copy` });
    expect(running.percent).toBeGreaterThanOrEqual(49);
    server.clock.advance(3000);
    expect(await status(name)).toMatchObject({ status: 'succeeded', usable: true, percent: 100 });
    await status(restoreOperation);
    state.operations.length = 0;
    expect(await status(name)).toMatchObject({ status: 'succeeded', usable: true });
    // Its database says only that it came from a backup, not by which operation.
    expect(await status(restoreOperation)).toMatchObject({ status: 'unknown', usable: true });
    expect((await failure(status(`${DATABASE}/operations/gone`))).code).toBe('RESOURCE_NOT_FOUND');
    for (const wrong of ['', 'gone', `${DATABASE}/operations/`, `projects/other-one/databases/${CARTS}/operations/x`]) {
      expect((await failure(status(wrong))).code).toBe('INVALID_PARAMETER');
    }
  });

  it('throws what an operation that is done with an error means, and shows it', async () => {
    state.failNext.push({ kind: 'restore', code: 8 });
    const work = bench.operate(tools.restore, { backup_name: newest(), target_database: 'carts-copy' });
    const error = await failure(work);
    expect(error).toMatchObject({ code: 'QUOTA_EXCEEDED', retryable: false, provider: { code: '8' } });
    const operation_name = String(error.details?.['operation_name']);
    expect(await bench.read(tools.getRestoreStatus, { operation_name })).toMatchObject({
      status: 'failed',
      usable: false,
      provider: { error_code: 8 },
    });
  });

  it('takes the database for the answer where the operation is forgotten', async () => {
    const { output } = await bench.operate<RestoreJob>(
      tools.restore,
      { backup_name: newest(), target_database: 'carts-copy' },
      {
        before: (step) => {
          if (step !== 'wait') return;
          server.clock.advance(5000);
          state.operations.length = 0;
        },
      },
    );
    expect(output).toMatchObject({ status: 'succeeded', usable: true });
  });

  it('runs every example of its declarations', async () => {
    const example = (action: Action) =>
      JSON.parse(JSON.stringify(action.example).replace('$newest', newest())) as JsonObject;
    const { getBackupInfo, listSnapshots, describeSnapshot, listBackupSchedules, getRestoreStatus } = tools;
    for (const action of [getBackupInfo, listSnapshots, describeSnapshot, listBackupSchedules, getRestoreStatus]) {
      await bench.read(action, example(action));
    }
    const { exportDocuments, importDocuments, restore, createBackupSchedule, deleteBackupSchedule, deleteSnapshot } =
      tools;
    const writing = [
      exportDocuments,
      importDocuments,
      restore,
      createBackupSchedule,
      deleteBackupSchedule,
      deleteSnapshot,
    ];
    for (const action of writing) await bench.operate(action, example(action));
    expect(server.writes()).toHaveLength(6);
  });
});

describe('ways back', () => {
  it('gives moment, backup and export, each as an exact call of the risk that it says', async () => {
    const options = await bench.options();
    expect(options.map(({ risk, call }) => [risk, call.action])).toEqual([
      ['create', 'restore'],
      ['create', 'restore'],
      ['merge', 'import-documents'],
    ]);
    for (const { call } of options.slice(0, 2)) await bench.planOf(tools.restore, call.input);
    await bench.planOf(tools.importDocuments, options[2]!.call.input);
  });

  it('gives what is newest before a moment that the window does not reach, and backups alone of a database that is gone', async () => {
    const at = new Date(server.clock.now().getTime() - 2.5 * 24 * HOUR);
    database().pitr = false;
    const [first, ...rest] = await bench.options(at);
    expect(rest).toEqual([]);
    expect(Date.parse(first!.moment)).toBeLessThanOrEqual(at.getTime());
    state.databases.delete(`${PROJECT}/${CARTS}`);
    expect((await bench.options()).map(({ call }) => Object.keys(call.input)[0])).toEqual(['backup_name']);
  });

  it('names new databases within 63 characters', () => {
    const now = new Date('2026-11-21T10:30:00Z');
    expect(newDatabaseId('(default)', now)).toBe('default-restore-20261121-1030');
    const long = newDatabaseId(`a${'b'.repeat(62)}`, now);
    expect(long).toMatch(/^ab+-restore-20261121-1030$/);
    expect(long.length).toBeLessThanOrEqual(63);
  });
});

describe('faults', () => {
  it.each([
    ['429', { retry_after: 1 }],
    ['500', {}],
    ['503', { retry_after: 1 }],
    ['reset', {}],
    ['lost', {}],
    ['malformed', {}],
    ['truncated', {}],
  ] as const)('reads through %s', async (kind, extra) => {
    server.fault({ kind, times: 2, ...extra });
    expect(await bench.read(tools.getBackupInfo)).toMatchObject({ automated: true });
    expect(server.journal.filter((entry) => entry.fault === kind)).toHaveLength(2);
  });

  it.each([
    ['429', 'RATE_LIMITED'],
    ['500', 'PROVIDER_UNAVAILABLE'],
    ['503', 'PROVIDER_UNAVAILABLE'],
    ['reset', 'PROVIDER_UNAVAILABLE'],
    ['malformed', 'PROVIDER_UNAVAILABLE'],
    ['truncated', 'PROVIDER_UNAVAILABLE'],
  ] as const)('gives up on lasting %s as %s', async (kind, code) => {
    server.fault({ kind });
    expect((await failure(bench.read(tools.listBackupSchedules))).code).toBe(code);
  });

  // A write that may have arrived: reading alone finds out.
  const lostWrites: [string, Action, () => JsonObject, string, string][] = [
    ['an export', tools.exportDocuments, () => ({}), 'export', ':exportDocuments'],
    ['an import', tools.importDocuments, () => ({ input_uri_prefix: NIGHTLY }), 'import', ':importDocuments'],
    ['a deletion', tools.deleteSnapshot, () => ({ backup_name: newest() }), 'delete', '/backups/'],
    [
      'a restore',
      tools.restore,
      () => ({ backup_name: newest(), target_database: 'a-copy' }),
      'restore',
      'databases:restore',
    ],
    [
      'a clone',
      tools.restore,
      () => ({ restore_timestamp: ago(HOUR).toISOString(), target_database: 'a-copy' }),
      'restore',
      'databases:clone',
    ],
    [
      'a new schedule',
      tools.createBackupSchedule,
      () => ({ frequency: 'weekly', retention_days: 7 }),
      'create',
      '/backupSchedules',
    ],
    [
      'the removal of a schedule',
      tools.deleteBackupSchedule,
      () => ({ schedule_name: dailySchedule }),
      'delete',
      '/backupSchedules/',
    ],
  ];

  async function interrupt(
    action: Action,
    input: JsonObject,
    name: string,
    fault: Parameters<SimulatorServer['fault']>[0],
  ): Promise<{ code: string; outcome: unknown; recovery: Recovery; finish: () => Promise<unknown> }> {
    const context = await bench.connect();
    const plan = await bench.plan(action, input, context);
    const left = trace();
    server.fault({ method: name === 'delete' ? 'DELETE' : 'POST', ...fault });
    const error = await failure(bench.step(action, name, input, plan, context, left));
    server.clearFaults();
    const recovery = await bench.recover(action, name, input, plan, context, left);
    return {
      code: error.code,
      outcome: error.details?.['outcome'],
      recovery,
      finish: async () => {
        left.results[name] = (recovery as { result?: JsonObject }).result ?? {};
        const steps = action.steps!(action.input.parse(input), plan).map((step) => step.name);
        for (const next of steps.slice(steps.indexOf(name) + 1)) {
          left.results[next] = await bench.step(action, next, input, plan, context, left);
        }
        return action.result!(left.results);
      },
    };
  }

  it.each(lostWrites)(
    'finds %s again whose answer was lost, and never sends it twice',
    async (_, action, input, step, path) => {
      const { outcome, recovery, finish } = await interrupt(action, input(), step, { kind: 'lost', path, times: 1 });
      expect(outcome).toBe('unknown');
      expect(recovery.state).toBe('done');
      expect(action.output.safeParse(await finish()).success).toBe(true);
      expect(server.writes()).toHaveLength(1);
    },
  );

  it.each(lostWrites)('knows of %s that never arrived', async (_, action, input, step, path) => {
    const { recovery } = await interrupt(action, input(), step, { kind: 'reset', path, times: 1 });
    expect(recovery.state).toBe('not_begun');
    expect(server.writes()).toHaveLength(1);
  });

  it.each(['500', '503', 'malformed', 'truncated'] as const)(
    'takes %s for a write as an unknown outcome',
    async (kind) => {
      const input = { input_uri_prefix: NIGHTLY };
      const fault = { kind, path: ':importDocuments', times: 1 };
      const { code, outcome, recovery } = await interrupt(tools.importDocuments, input, 'import', fault);
      expect([code, outcome]).toEqual(['PROVIDER_UNAVAILABLE', 'unknown']);
      // A torn answer comes after the work was done, a server fault of the sandbox before.
      expect(recovery.state).toBe(kind === '500' || kind === '503' ? 'not_begun' : 'done');
      expect(server.writes()).toHaveLength(1);
    },
  );

  it('takes no earlier import of the same export for its own, and none for certain where it cannot tell', async () => {
    const input = { input_uri_prefix: NIGHTLY };
    await bench.operate(tools.importDocuments, input);
    const { recovery } = await interrupt(tools.importDocuments, input, 'import', {
      kind: 'reset',
      path: ':importDocuments',
      times: 1,
    });
    expect(recovery.state).toBe('not_begun');

    const context = await bench.connect();
    const plan = await bench.plan(tools.importDocuments, input, context);
    const recover = (handle: JsonObject) =>
      bench.recover(tools.importDocuments, 'import', input, plan, context, {
        ...trace(),
        handles: { import: [handle] },
      });
    await bench.operate(tools.importDocuments, input);
    expect((await recover({ uri: NIGHTLY, known: [], listed: true })).state).toBe('unknown');
    expect((await recover({ uri: NIGHTLY, known: [], listed: false })).state).toBe('unknown');
    const nothing = await bench.recover(tools.importDocuments, 'import', input, plan, context, trace());
    expect(nothing.state).toBe('not_begun');
  });

  it('does not claim a database that somebody else made', async () => {
    const input = { backup_name: newest(), target_database: 'a-copy' };
    const context = await bench.connect();
    const plan = await bench.plan(tools.restore, input, context);
    const recover = () =>
      bench.recover(tools.restore, 'restore', input, plan, context, {
        ...trace(),
        handles: { restore: [{ target: 'a-copy' }] },
      });
    state.databases.set(`${PROJECT}/a-copy`, { ...database('ledger'), id: 'a-copy' });
    expect((await recover()).state).toBe('unknown');
    state.databases.get(`${PROJECT}/a-copy`)!.source = { backup: { backup: newest() } };
    expect(await recover()).toMatchObject({ state: 'done', result: { operation_name: '' } });
    state.databases.delete(`${PROJECT}/a-copy`);
    expect((await recover()).state).toBe('not_begun');
    state.denied.add('datastore.databases.getMetadata');
    expect((await recover()).state).toBe('unknown');
  });

  it('waits through a provider that is away for a while, and gives up after its deadline', async () => {
    const input = { backup_name: newest(), target_database: 'a-copy' };
    const away = bench.operate<RestoreJob>(tools.restore, input, {
      before: (step) => {
        if (step === 'wait') server.fault({ kind: '503', path: '/operations/', times: 12 });
      },
    });
    expect((await away).output.status).toBe('succeeded');
    state.durations.restore = 30 * HOUR;
    const slow = await failure(bench.operate(tools.restore, { ...input, target_database: 'b-copy' }));
    expect(slow).toMatchObject({ code: 'TIMEOUT', message: 'the restore is not over after 1 d' });
  });

  it('stops at once when the call is cancelled', async () => {
    const controller = new AbortController();
    const context = await bench.connect({}, {}, controller.signal);
    server.fault({ kind: 'slow', delay_ms: 2000 });
    const work = failure(bench.read(tools.getBackupInfo, {}, context));
    setTimeout(() => controller.abort(), 50);
    const began = performance.now();
    expect((await work).code).toBe('CANCELLED');
    expect(performance.now() - began).toBeLessThan(1000);
  });

  it('sends no write without a grant', async () => {
    const { client, signal } = (await bench.connect()) as unknown as { client: FirestoreCalls; signal: AbortSignal };
    const error = await failure(client.restore('a-copy', newest(), signal));
    expect(error).toMatchObject({ code: 'INTERNAL', details: { outcome: 'not_sent' } });
    expect(server.journal).toEqual([]);
  });
});

describe('errors', () => {
  it('names the missing permission and the smallest role', async () => {
    state.denied.add('datastore.backups.delete');
    const error = await failure(bench.operate(tools.deleteSnapshot, { backup_name: newest() }));
    expect(error).toMatchObject({
      code: 'INSUFFICIENT_PERMISSIONS',
      details: { permission: 'datastore.backups.delete', role: 'roles/datastore.backupsAdmin' },
      provider: { status: 403, code: 'IAM_PERMISSION_DENIED' },
    });
    expect(error.hint).toMatch(/Avoid roles\/datastore\.owner/);
  });

  it('says that the API is switched off, and that credentials are refused', async () => {
    state.disabled = true;
    const off = await failure(bench.read(tools.getBackupInfo));
    expect(off).toMatchObject({
      code: 'INSUFFICIENT_PERMISSIONS',
      hint: expect.stringMatching(/firestore\.googleapis/),
    });
    state.unauthenticated = true;
    expect((await failure(bench.read(tools.getBackupInfo))).code).toBe('AUTHENTICATION_FAILED');
    state.unauthenticated = false;
    state.disabled = false;
    const nowhere = await bench.connect({ database_id: 'no-such-one' });
    expect((await failure(bench.read(tools.getBackupInfo, {}, nowhere))).code).toBe('RESOURCE_NOT_FOUND');
  });

  const answer = (status: number, word: string | undefined, message = 'text', reason?: string) => ({
    response: {
      status,
      data: {
        error: {
          code: status,
          message,
          ...(word ? { status: word } : {}),
          ...(reason ? { details: [{ '@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason }] } : {}),
        },
      },
    },
  });
  it.each([
    [401, 'UNAUTHENTICATED', 'text', undefined, 'AUTHENTICATION_FAILED'],
    [403, 'PERMISSION_DENIED', 'text', 'IAM_PERMISSION_DENIED', 'INSUFFICIENT_PERMISSIONS'],
    [403, 'PERMISSION_DENIED', 'text', 'BILLING_DISABLED', 'INSUFFICIENT_PERMISSIONS'],
    [403, 'PERMISSION_DENIED', 'text', 'CONSUMER_INVALID', 'INSUFFICIENT_PERMISSIONS'],
    [403, undefined, 'text', undefined, 'INSUFFICIENT_PERMISSIONS'],
    [404, 'NOT_FOUND', 'text', undefined, 'RESOURCE_NOT_FOUND'],
    [404, 'NOT_FOUND', 'the backup is not there', undefined, 'BACKUP_NOT_FOUND'],
    [409, 'ALREADY_EXISTS', 'text', undefined, 'RESOURCE_EXISTS'],
    [409, 'ABORTED', 'text', undefined, 'INVALID_STATE'],
    [400, 'FAILED_PRECONDITION', 'text', undefined, 'INVALID_STATE'],
    [400, 'INVALID_ARGUMENT', 'text', undefined, 'INVALID_PARAMETER'],
    [400, 'OUT_OF_RANGE', 'text', undefined, 'INVALID_PARAMETER'],
    [429, 'RESOURCE_EXHAUSTED', 'text', 'RATE_LIMIT_EXCEEDED', 'RATE_LIMITED'],
    [429, 'RESOURCE_EXHAUSTED', 'Quota of the number of databases', undefined, 'QUOTA_EXCEEDED'],
    [499, 'CANCELLED', 'text', undefined, 'CANCELLED'],
    [500, 'INTERNAL', 'text', undefined, 'PROVIDER_UNAVAILABLE'],
    [501, 'UNIMPLEMENTED', 'text', undefined, 'NOT_SUPPORTED'],
    [503, 'UNAVAILABLE', 'text', undefined, 'PROVIDER_UNAVAILABLE'],
    [504, 'DEADLINE_EXCEEDED', 'text', undefined, 'PROVIDER_UNAVAILABLE'],
  ] as const)('maps %i %s (%s) to %s', (status, word, message, reason, code) => {
    const addressed = { resource: 'database', permission: 'p', role: 'r', fromBackup: true, write: true } as const;
    const error = toFirestoreError(answer(status, word, message, reason), addressed);
    expect(error.code).toBe(code);
    expect(error.provider?.status).toBe(status);
    expect(`${error.message} ${error.hint}`).not.toContain('text');
    expect(error.details?.['outcome']).toBe(status >= 500 ? 'unknown' : undefined);
  });

  it('takes an HTML page, silence and a wrapped refusal for what they are', () => {
    const addressed = { resource: 'backup', permission: 'p', role: 'r', write: true } as const;
    const page = { response: { status: 404, data: '<html>not here</html>' } };
    expect(toFirestoreError(page, addressed).code).toBe('PROVIDER_UNAVAILABLE');
    expect(toFirestoreError(answer(404, 'NOT_FOUND'), addressed).code).toBe('BACKUP_NOT_FOUND');
    const timeout = toFirestoreError({ code: 'TimeoutError' }, addressed);
    expect(timeout).toMatchObject({ code: 'TIMEOUT', details: { outcome: 'unknown' } });
    expect(toFirestoreError(new Error('socket'), addressed)).toMatchObject({ details: { outcome: 'unknown' } });
  });

  it.each([
    [{ done: true, response: {} }, 'succeeded'],
    [{ done: true, error: { code: 13 } }, 'failed'],
    [{ done: true, error: { code: 1 }, metadata: { operationState: 'SUCCESSFUL' } }, 'cancelled'],
    [{ metadata: { operationState: 'SUCCESSFUL' } }, 'unknown'],
    [{ metadata: { operationState: 'FINALIZING' } }, 'running'],
    [{ metadata: { operationState: 'CANCELLING' } }, 'running'],
    [{ metadata: { operationState: 'A_NEW_ONE' } }, 'unknown'],
    [{}, 'unknown'],
  ])('reads the operation %j as %s', (operation, status) => {
    expect(toOperation({ name: 'x', ...operation } as never).status).toBe(status);
  });

  it('holds progress below the end while it runs, and knows none without an estimate', () => {
    const running = (completedWork: string, estimatedWork?: string) =>
      toOperation({
        metadata: { operationState: 'PROCESSING', progressPercentage: { completedWork, estimatedWork } },
      }).percent;
    expect([running('50', '100'), running('120', '100'), running('5', '0'), running('5'), running('x', '9')]).toEqual([
      50,
      99,
      undefined,
      undefined,
      undefined,
    ]);
  });
});

describe('the simulator', () => {
  it('takes no path of Cloud SQL, and Cloud SQL none of its', () => {
    const clock = new SimulatorClock();
    const [own, sql] = [gcpFirestoreSimulator({ clock }), gcpCloudSqlSimulator({ clock })];
    const claims = (path: string) => {
      const request = { method: 'GET', url: new URL(path, 'http://x'), headers: {}, text: '', json: undefined };
      return [own.matches(request), sql.matches(request)];
    };
    for (const path of ['databases/x', 'databases:restore', 'databases/x:exportDocuments', 'locations/-/backups']) {
      expect(claims(`/v1/projects/p/${path}`), path).toEqual([true, false]);
    }
    for (const path of ['instances/x', 'instances/x/databases', 'operations/x', 'backups/x']) {
      expect(claims(`/v1/projects/p/${path}`), path).toEqual([false, true]);
    }
  });
});

describe('through the engine', () => {
  const KEY = 'sandbox/gcp-firestore';

  async function engine() {
    const { sandbox } = gcpFirestore.entityTypes[DEFINES]!;
    Object.assign(state.durations, { export: 100, import: 150, restore: 100 });
    const harness = await startHarness({
      modules: { gcpFirestore: tools },
      entities: [{ key: KEY, defines: DEFINES, parameters: sandbox!.parameters, endpoint: server.origin }],
      secrets: { GOOGLE_OAUTH_ACCESS_TOKEN: CANARY },
    });
    closing.push(() => harness.close());
    const call = (action: string, input: JsonObject = {}, extra: object = {}) =>
      harness.engine.call({ principal: ANA, entity: KEY, action, input, wait: 'end', ...extra });
    return { ...harness, call };
  }

  it('lets an import through once, after a person typed the target, with an export of the same collections first', async () => {
    const { engine: core, call } = await engine();
    const before = structuredClone(content());
    const input = { input_uri_prefix: NIGHTLY };
    const refused = await failure(call('import-documents', input));
    expect(refused.code).toBe('CONFIRMATION_REQUIRED');
    expect(server.writes()).toEqual([]);
    const { confirmation, plan } = refused.details as unknown as ConfirmationDetails;
    expect(plan).toMatchObject({ risk: 'merge', safety_snapshot: { state: 'taken' } });
    const typedTarget = `${PROJECT}/${CARTS}`;
    await core.approve({ confirmation: confirmation.code, by: BOSS, via: 'terminal', typedTarget });
    const outcome = await call('import-documents', input, { token: confirmation.token });
    const safety = expect.stringMatching(
      /^gs:\/\/holdfast-sandbox-backups\/firestore\/holdfast-safety-\d{8}T\d{6}-[0-9a-f]{8}$/,
    );
    expect(outcome).toMatchObject({
      kind: 'operation',
      operation: {
        status: 'succeeded',
        result: { input_uri_prefix: NIGHTLY },
        undo: { action: 'import-documents', input: { input_uri_prefix: safety } },
      },
    });
    expect(writes()).toEqual(['POST exportDocuments', 'POST importDocuments']);
    expect(content()).not.toEqual(before);
    expect((await failure(call('import-documents', input, { token: confirmation.token }))).code).toBe(
      'CONFIRMATION_USED',
    );

    // The way back that it names brings the overwritten documents back.
    const { undo } = (outcome as unknown as { operation: { undo: { input: JsonObject } } }).operation;
    await bench.operate(tools.importDocuments, undo.input);
    expect(content()).toMatchObject(before);
  });

  it('imports nothing where the safety export fails', async () => {
    const { engine: core, call } = await engine();
    const input = { input_uri_prefix: NIGHTLY };
    const { confirmation } = (await failure(call('import-documents', input))).details as unknown as ConfirmationDetails;
    const typedTarget = `${PROJECT}/${CARTS}`;
    await core.approve({ confirmation: confirmation.code, by: BOSS, via: 'terminal', typedTarget });
    state.failNext.push({ kind: 'export', code: 7 });
    const error = await failure(call('import-documents', input, { token: confirmation.token }));
    expect(error.code).toBe('INSUFFICIENT_PERMISSIONS');
    expect(writes()).toEqual(['POST exportDocuments']);
  });

  it('restores without asking, finds a lost answer by itself, and says why there are no snapshots on demand', async () => {
    const { call } = await engine();
    server.fault({ kind: 'lost', path: 'databases:restore', method: 'POST', times: 1 });
    const outcome = await call('restore', { backup_name: newest(), target_database: 'a-copy' });
    expect(outcome).toMatchObject({ kind: 'operation', operation: { status: 'succeeded', result: { usable: true } } });
    expect(server.writes()).toHaveLength(1);
    const error = await failure(call('create-snapshot'));
    expect(error).toMatchObject({ code: 'NOT_SUPPORTED', hint: expect.stringMatching(/export-documents/) });
  });

  it('holds back an export to another place, a deletion and the end of a schedule', async () => {
    const { call } = await engine();
    const guarded: [string, JsonObject][] = [
      ['export-documents', { output_uri_prefix: 'gs://elsewhere/x' }],
      ['delete-backup', { backup_name: newest() }],
      ['delete-backup-schedule', { schedule_name: dailySchedule }],
    ];
    for (const [action, input] of guarded) {
      expect((await failure(call(action, input))).code, action).toBe('CONFIRMATION_REQUIRED');
    }
    expect(server.writes()).toEqual([]);
  });

  it('understands the names of the guide and keeps the token out of everything', async () => {
    const { call } = await engine();
    const texts = [
      await call('list-backups', { location: 'us-central1' }),
      await call('describe-backup', { backup_name: newest() }),
      await call('get-backup-info'),
      await call('export-documents', { collection_ids: ['carts'] }),
      (await failure(call('delete-backup', { backup_name: newest() }))).toJson(),
    ];
    expect(JSON.stringify(texts)).not.toContain(CANARY);
    expect(JSON.stringify(server.journal)).not.toContain(CANARY);
    expect(bench.concealed).toEqual([]);
  });

  it('cleans what others wrote', async () => {
    database().location = 'us\u202e\u0007-central1';
    const info = await bench.read<BackupInfo>(
      tools.getBackupInfo,
      {},
      (await bench.connect({ location: null })) as Context,
    );
    expect(info.provider).toMatchObject({ location: 'us -central1' });
  });
});

describe('the entity', () => {
  const { schema, example } = gcpFirestore.entityTypes[DEFINES]!;

  it('takes the words of the guide and booleans, and refuses literal secrets and bad names', () => {
    expect(schema.parse(example)).toMatchObject({ point_in_time_recovery: true, delete_protection: true });
    expect(schema.parse({ delete_protection: false })).toMatchObject({
      database_id: '(default)',
      delete_protection: false,
    });
    for (const bad of [
      { access_token: 'ya29.literal' },
      { database_id: 'Bad_Name' },
      { point_in_time_recovery: 'POINT_IN_TIME_RECOVERY_ON' },
      { export_uri_prefix: 's3://x' },
      { backup_schedules: [{ frequency: 'hourly', retention_days: 7 }] },
      { backup_schedules: [{ frequency: 'daily', retention_days: 99 }] },
    ]) {
      expect(schema.safeParse(bad).success, JSON.stringify(bad)).toBe(false);
    }
  });

  it('sends tokens only to https or loopback', async () => {
    const entity = {
      ...schema.parse({ project: PROJECT }),
      key: 'a/b',
      defines: DEFINES,
      endpoint: 'http://example.com',
    };
    const { runtime } = await bench.connect();
    expect((await failure(gcpFirestore.connect(entity as never, runtime))).code).toBe('CONFIG_INVALID');
  });
});
