import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Action } from '../../src/core/action.ts';
import type { ProviderContext } from '../../src/core/context.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { Step, StepContext } from '../../src/core/operation.ts';
import type { Plan, PlanDraft } from '../../src/core/plan.ts';
import type { RecoveryOption } from '../../src/core/provider.ts';
import type { Runtime } from '../../src/core/runtime.ts';
import type { BackupInfo, RecoveryPoint, RestoreJob, SnapshotList } from '../../src/core/schemas.ts';
import type { ConfirmationDetails } from '../../src/engine/api.ts';
import { stageOf, toRdsError } from '../../src/providers/aws-rds/map.ts';
import { awsRds, RDS_CLUSTER, RDS_INSTANCE } from '../../src/providers/aws-rds/provider.ts';
import { instanceSettings, sameFamily } from '../../src/providers/aws-rds/settings.ts';
import { awsRdsSimulator, RDS_SANDBOX, type RdsSimulator } from '../../src/simulators/aws-rds.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import * as tools from '../../tools/aws-rds.ts';
import { ANA, BOSS, startHarness } from '../support/harness.ts';
import { granted, testRuntime } from '../support/runtime.ts';

const { instance: ORDERS, cluster: SHOP, region: REGION } = RDS_SANDBOX;
const CANARY = 'canary-aws-secret-9d2f7b1c';
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
type Context = ProviderContext<unknown, unknown>;

let server: SimulatorServer;
let simulator: RdsSimulator;
let closing: (() => Promise<void>)[];

beforeEach(async () => {
  closing = [];
  server = await startSimulators({
    simulators: (clock) => {
      simulator = awsRdsSimulator({ clock });
      return [simulator];
    },
  });
});
afterEach(async () => {
  for (const close of closing) await close();
  await server.close();
});

/** Waiting moves the sandbox's time on instead of taking any. */
function fastRuntime(overrides: Partial<Runtime> = {}): Runtime {
  return testRuntime(
    { per_second: 1000, burst: 1000, concurrent: 8, timeout_ms: 5000 },
    {
      now: () => server.clock.now(),
      sleep: async (ms, signal) => {
        signal?.throwIfAborted();
        server.clock.advance(ms);
      },
      secret: async (ref) => (ref.name === 'AWS_SECRET_ACCESS_KEY' ? CANARY : 'AKIASANDBOX'),
      ...overrides,
    },
  );
}

function entityOf(defines: string, parameters: JsonObject): object {
  const type = awsRds.entityTypes[defines]!;
  const merged = { ...type.sandbox!.parameters, ...parameters };
  const parsed = type.schema.parse(Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== null)));
  return {
    ...parsed,
    key: `sandbox/${type.sandbox!.name}`,
    namespace: 'sandbox',
    name: type.sandbox!.name,
    defines,
    provider: 'aws-rds',
    labels: {},
    objectives: {},
    endpoint: server.origin,
    parameters: parsed,
  };
}

async function connect(
  parameters: JsonObject = {},
  { defines = RDS_INSTANCE, signal, ...overrides }: Partial<Runtime> & { defines?: string; signal?: AbortSignal } = {},
): Promise<Context> {
  const entity = entityOf(defines, parameters);
  const runtime = fastRuntime(overrides);
  const client = await awsRds.connect(entity as never, runtime);
  return { client, entity: entity as never, runtime, signal: signal ?? new AbortController().signal };
}
const connectCluster = (parameters: JsonObject = {}): Promise<Context> => connect(parameters, { defines: RDS_CLUSTER });

async function read<T>(action: Action, input: JsonObject = {}, context?: Context): Promise<T> {
  const output = await action.run!(context ?? (await connect()), action.input.parse(input));
  return action.output.parse(output) as T;
}
const planOf = async (action: Action, input: JsonObject, context?: Context): Promise<PlanDraft> =>
  action.plan!(context ?? (await connect()), action.input.parse(input));

interface Trace {
  results: Record<string, JsonObject>;
  handles: Record<string, JsonObject[]>;
  progress: string[];
}

function stepContext(
  context: Context,
  input: JsonObject,
  trace: Trace,
  step: Step,
): StepContext<unknown, unknown, unknown> {
  return {
    ...context,
    input,
    operationId: 'op_test',
    idempotencyKey: `key-${step.name}`,
    get handle() {
      return trace.handles[step.name]?.at(-1);
    },
    results: trace.results,
    checkpoint: async (handle) => {
      trace.handles[step.name] = [...(trace.handles[step.name] ?? []), structuredClone(handle)];
    },
    progress: ({ message }) => {
      trace.progress.push(message);
    },
  };
}

/** Runs an action's steps as the engine does, the guard taken as passed. */
async function operate<T>(
  action: Action,
  input: JsonObject,
  given?: Context,
  before: (step: Step) => void | Promise<void> = () => {},
): Promise<{ output: T; trace: Trace; plan: PlanDraft; steps: readonly Step[] }> {
  const context = given ?? (await connect());
  const parsed = action.input.parse(input) as JsonObject;
  const draft = action.plan ? await action.plan(context, parsed) : ({} as PlanDraft);
  const trace: Trace = { results: {}, handles: {}, progress: [] };
  const steps = action.steps!(parsed, draft as unknown as Plan);
  for (const step of steps) {
    await before(step);
    const work = () => step.run(stepContext(context, parsed, trace, step));
    trace.results[step.name] = step.kind === 'mutate' ? await granted(work) : await work();
  }
  return { output: action.output.parse(action.result!(trace.results)) as T, trace, plan: draft, steps };
}

async function failure(work: Promise<unknown>): Promise<HoldfastError> {
  const outcome = await work.then(
    () => 'it succeeded',
    (cause: unknown) => cause,
  );
  expect(outcome).toBeInstanceOf(HoldfastError);
  return outcome as HoldfastError;
}

const snapshot = (id: string, kind = 'instance') =>
  simulator.state.snapshots.find((one) => one.id === id && one.kind === kind)!;
const operations = (): (string | undefined)[] => server.writes().map(({ operation }) => operation);

describe('backup information', () => {
  it('shows retention, windows and the newest restorable snapshot of an instance', async () => {
    const info = await read<BackupInfo>(tools.getBackupInfo);
    expect(info).toMatchObject({
      automated: true,
      retention_seconds: 14 * 86_400,
      schedule: 'daily 03:00-04:00 UTC',
      pitr: { enabled: true, window: { earliest_at: expect.any(String), latest_at: expect.any(String) } },
      encryption: expect.stringMatching(/^KMS key arn:aws:kms:/),
      deletion_protection: true,
      newest: { kind: 'automated', restorable: true, id: expect.stringMatching(/^rds:orders-postgres-/) },
      warnings: [],
      provider: {
        account: RDS_SANDBOX.account,
        region: REGION,
        instance: ORDERS,
        snapshots: { automated: 3, manual: 2 },
        engine: 'postgres',
        engine_version: '16.4',
        multi_az: true,
      },
    });
    const age = server.clock.now().getTime() - Date.parse(info.pitr.window!.latest_at);
    expect(age).toBeGreaterThanOrEqual(5 * 60_000);
    expect(age).toBeLessThan(7 * 60_000);
  });

  it('shows the members and the window of a cluster', async () => {
    const info = await read<BackupInfo>(tools.getBackupInfo, {}, await connectCluster());
    expect(info).toMatchObject({
      automated: true,
      retention_seconds: 7 * 86_400,
      pitr: { enabled: true, window: { earliest_at: expect.any(String) } },
      newest: { provider: { cluster: SHOP } },
      warnings: [],
      provider: {
        cluster: SHOP,
        members: [
          { instance: 'shop-aurora-1', writer: true },
          { instance: 'shop-aurora-2', writer: false },
        ],
      },
    });
  });

  it('warns of everything that a badly protected instance lacks', async () => {
    const legacy = simulator.state.instance(RDS_SANDBOX.unprotected);
    legacy.replicaOf = 'legacy-primary';
    const context = await connect({
      db_instance_identifier: RDS_SANDBOX.unprotected,
      skip_final_snapshot: true,
      preferred_backup_window: '01:00-02:00',
    });
    const { automated, pitr, encryption, warnings } = await read<BackupInfo>(tools.getBackupInfo, {}, context);
    expect({ automated, pitr, encryption }).toEqual({ automated: false, pitr: { enabled: false }, encryption: 'none' });
    const text = warnings.join('\n');
    for (const words of [
      /Automated backups are off \(retention 0\)/,
      /newest restorable snapshot is 380 d/,
      /Deletion protection is off/,
      /not encrypted/,
      /read replica of legacy-primary/,
      /Declared skip_final_snapshot is true/,
      /Declared backup_retention_period is 14, actual 0/,
      /Declared preferred_backup_window is 01:00-02:00, actual 03:00-04:00/,
      /Declared storage_encrypted is true, actual false/,
      /Declared deletion_protection is true, actual false/,
    ]) {
      expect(text).toMatch(words);
    }
  });

  it('tells a change that is on its way from drift', async () => {
    const orders = simulator.state.instance(ORDERS);
    orders.pendingRetention = 21;
    const { warnings } = await read<BackupInfo>(
      tools.getBackupInfo,
      {},
      await connect({ backup_retention_period: 21 }),
    );
    expect(warnings).toEqual(['Declared backup_retention_period 21 is pending at RDS; actual 14.']);
  });

  it('warns of a database that is not available, of a late log and of a failed snapshot', async () => {
    simulator.state.instance(ORDERS).status = 'storage-full';
    snapshot('before-upgrade').createdAt = server.clock.now().getTime() - 1000;
    snapshot('before-upgrade').status = 'failed';
    const { warnings } = await read<BackupInfo>(tools.getBackupInfo);
    expect(warnings.join('\n')).toMatch(/last snapshot, before-upgrade, failed/);
    expect(warnings.join('\n')).toMatch(/The instance is storage-full/);
  });

  it('refuses a member of a cluster, and names the cluster', async () => {
    const context = await connect({ db_instance_identifier: 'shop-aurora-1' });
    for (const work of [
      () => read(tools.getBackupInfo, {}, context),
      () => read(tools.listSnapshots, {}, context),
      () => operate(tools.createSnapshot, { snapshot_id: 'a-member' }, context),
      () => planOf(tools.restore, { use_latest: true, target_id: 'x' }, context),
    ]) {
      const error = await failure(work());
      expect(error).toMatchObject({ code: 'NOT_SUPPORTED', details: { db_cluster_identifier: SHOP } });
      expect(error.hint).toContain('aws-rds/rds-cluster');
    }
    expect(server.writes()).toEqual([]);
  });

  it('says so where the database does not exist', async () => {
    const error = await failure(read(tools.getBackupInfo, {}, await connect({ db_instance_identifier: 'nowhere' })));
    expect(error.code).toBe('RESOURCE_NOT_FOUND');
    const cluster = await connectCluster({ db_cluster_identifier: 'nowhere' });
    expect((await failure(read(tools.getBackupInfo, {}, cluster))).code).toBe('RESOURCE_NOT_FOUND');
  });
});

describe('snapshots', () => {
  it('are listed newest first over all pages of RDS, in pages of ours', async () => {
    simulator.state.pageSize = 1;
    const all = await read<SnapshotList>(tools.listSnapshots);
    const times = all.snapshots.map(({ created_at }) => created_at!);
    expect(times).toEqual([...times].sort().reverse());
    expect(all.snapshots.map(({ kind }) => kind)).toEqual([
      'automated',
      'automated',
      'automated',
      'on_demand',
      'on_demand',
    ]);
    const first = await read<SnapshotList>(tools.listSnapshots, { limit: 2 });
    const second = await read<SnapshotList>(tools.listSnapshots, { limit: 200, cursor: first.next_cursor! });
    expect([...first.snapshots, ...second.snapshots]).toEqual(all.snapshots);
    expect(second.next_cursor).toBeUndefined();
    expect((await failure(read(tools.listSnapshots, { cursor: 'no!' }))).code).toBe('INVALID_PARAMETER');
  });

  it('are listed by type, those of AWS Backup among all others', async () => {
    snapshot('orders-quarter-end').type = 'awsbackup';
    const kinds = async (input: JsonObject) =>
      (await read<SnapshotList>(tools.listSnapshots, input)).snapshots.map(({ kind }) => kind);
    expect(await kinds({})).toEqual(['automated', 'automated', 'automated', 'on_demand', 'aws_backup']);
    expect(await kinds({ type: 'manual' })).toEqual(['on_demand']);
    expect(await kinds({ type: 'awsbackup' })).toEqual(['aws_backup']);
  });

  it('of a deleted database are still listed, with a note', async () => {
    simulator.state.instances.splice(simulator.state.instances.indexOf(simulator.state.instance(ORDERS)), 1);
    const { snapshots, notes } = await read<SnapshotList>(tools.listSnapshots);
    expect(snapshots).toHaveLength(5);
    expect(notes).toEqual([expect.stringContaining('does not exist any more')]);
  });

  it('are described by id or ARN, in any case, states that are not known as unknown', async () => {
    const point = await read<RecoveryPoint>(tools.describeSnapshot, { snapshot_id: 'Before-Upgrade' });
    expect(point).toMatchObject({
      id: 'before-upgrade',
      kind: 'on_demand',
      status: 'available',
      restorable: true,
      location: REGION,
    });
    const arn = String(point.provider?.['arn']);
    expect(await read(tools.describeSnapshot, { snapshot_id: arn })).toEqual(point);
    snapshot('before-upgrade').status = 'sublimating';
    expect(await read(tools.describeSnapshot, { snapshot_id: 'before-upgrade' })).toMatchObject({
      status: 'unknown',
      restorable: false,
    });
    const cluster = await read<RecoveryPoint>(
      tools.describeSnapshot,
      { snapshot_id: 'before-upgrade' },
      await connectCluster(),
    );
    expect(cluster.provider).toMatchObject({ cluster: SHOP });
  });

  it('that do not exist, or have an id that is none, are refused', async () => {
    expect((await failure(read(tools.describeSnapshot, { snapshot_id: 'nowhere' }))).code).toBe('SNAPSHOT_NOT_FOUND');
    const before = server.journal.length;
    for (const snapshot_id of [
      '',
      'a--b',
      'a/b',
      '-a',
      'arn:aws:s3:::bucket',
      `arn:aws:rds:eu-west-1:${RDS_SANDBOX.account}:snapshot:x`,
      `arn:aws:rds:${REGION}:${RDS_SANDBOX.account}:cluster-snapshot:x`,
      `arn:aws:rds:${REGION}:${RDS_SANDBOX.account}:snapshot:x/../y`,
    ]) {
      expect((await failure(read(tools.describeSnapshot, { snapshot_id }))).code).toBe('INVALID_PARAMETER');
    }
    expect(server.journal.length).toBe(before);
  });

  it('clean the text that others wrote', async () => {
    snapshot('before-upgrade').engine = 'post\u0007gres\u202e';
    const { provider } = await read<RecoveryPoint>(tools.describeSnapshot, { snapshot_id: 'before-upgrade' });
    expect(provider?.['engine']).toBe('post gres');
  });

  it('are taken, marked, and followed until they can be restored', async () => {
    const { output, trace } = await operate<RecoveryPoint>(tools.createSnapshot, { snapshot_id: 'Pre-Release-41' });
    expect(output).toMatchObject({ id: 'pre-release-41', kind: 'on_demand', status: 'available', restorable: true });
    expect(trace.handles['snapshot']).toEqual([
      { snapshot_id: 'pre-release-41' },
      { snapshot_id: 'pre-release-41', arn: expect.stringContaining(':snapshot:pre-release-41') },
    ]);
    expect(snapshot('pre-release-41').tags.get('holdfast:request-id')).toBe('key-snapshot');
    expect(trace.progress[0]).toBe('snapshot is creating');
    expect(operations()).toEqual(['CreateDBSnapshot']);
  });

  it('of a cluster are taken by its own call, and get a name where none is given', async () => {
    const { output } = await operate<RecoveryPoint>(tools.createSnapshot, {}, await connectCluster());
    expect(output.id).toMatch(/^shop-aurora-manual-[0-9a-f]{6}-\d{8}-\d{4}$/);
    expect(operations()).toEqual(['CreateDBClusterSnapshot']);
  });

  it('are not taken under a name in use, of a database that is not available, or under a reserved name', async () => {
    const codeOf = async (input: JsonObject) => (await failure(operate(tools.createSnapshot, input))).code;
    expect(await codeOf({ snapshot_id: 'before-upgrade' })).toBe('RESOURCE_EXISTS');
    expect(await codeOf({ snapshot_id: 'rds:mine' })).toBe('INVALID_PARAMETER');
    expect(await codeOf({ snapshot_id: 'x'.repeat(256) })).toBe('INVALID_PARAMETER');
    simulator.state.instance(ORDERS).status = 'modifying';
    expect(await codeOf({ snapshot_id: 'another' })).toBe('INVALID_STATE');
    expect(server.writes()).toEqual([]);
  });

  it('that fail while they are taken are reported as failed', async () => {
    const failing = operate(tools.createSnapshot, { snapshot_id: 'doomed' }, await connect(), (step) => {
      if (step.name === 'wait') snapshot('doomed').status = 'failed';
    });
    expect(await failure(failing)).toMatchObject({ code: 'INVALID_STATE', details: { snapshot_id: 'doomed' } });
  });
});

describe('copying a snapshot', () => {
  it('keeps an automated one, with its tags and its moment', async () => {
    const automated = simulator.state.snapshots.find(({ type, kind }) => type === 'automated' && kind === 'instance')!;
    automated.tags.set('team', 'orders').set('aws:backup:source', 'reserved');
    const { output } = await operate<RecoveryPoint>(tools.copySnapshot, {
      snapshot_id: automated.id,
      target_snapshot_id: 'kept-copy',
    });
    expect(output).toMatchObject({ id: 'kept-copy', kind: 'on_demand', restorable: true });
    expect(output.data_at).toBe(new Date(automated.createdAt).toISOString());
    expect(output.provider?.['copied_from']).toContain(automated.id);
    expect(Object.fromEntries(snapshot('kept-copy').tags)).toEqual({
      team: 'orders',
      'holdfast:request-id': 'key-copy',
    });
  });

  it('goes to another region by ARN, with a key of that region', async () => {
    const kms = 'arn:aws:kms:eu-west-1:123456789012:key/1234abcd';
    const copy = { snapshot_id: 'before-upgrade', target_snapshot_id: 'off-site', target_region: 'eu-west-1' };
    const refused = await failure(operate(tools.copySnapshot, copy));
    expect(refused).toMatchObject({ code: 'INVALID_PARAMETER' });
    expect(refused.hint).toContain('eu-west-1');
    expect(server.writes()).toEqual([]);
    const { output } = await operate<RecoveryPoint>(tools.copySnapshot, { ...copy, kms_key_id: kms });
    expect(output).toMatchObject({ location: 'eu-west-1', provider: { kms_key: kms } });
    expect(snapshot('off-site')).toMatchObject({ region: 'eu-west-1', kmsKeyId: kms });
    expect(operations()).toEqual(['CopyDBSnapshot']);
  });

  it('encrypts an unencrypted one, and copies those of clusters', async () => {
    const legacy = await connect({ db_instance_identifier: RDS_SANDBOX.unprotected });
    const { output } = await operate<RecoveryPoint>(
      tools.copySnapshot,
      { snapshot_id: 'legacy-last-year', target_snapshot_id: 'legacy-encrypted', kms_key_id: 'alias/backups' },
      legacy,
    );
    expect(output.encrypted).toBe(true);
    const cluster = await operate<RecoveryPoint>(
      tools.copySnapshot,
      { snapshot_id: 'before-upgrade', target_snapshot_id: 'shop-copy' },
      await connectCluster(),
    );
    expect(cluster.output.provider?.['data_moment']).toMatch(/^unknown/);
    expect(operations()).toEqual(['CopyDBSnapshot', 'CopyDBClusterSnapshot']);
  });

  it('refuses names in use, regions and keys that are none, and snapshots that are not ready', async () => {
    const codeOf = async (input: JsonObject) =>
      (
        await failure(
          operate(tools.copySnapshot, { snapshot_id: 'before-upgrade', target_snapshot_id: 'new', ...input }),
        )
      ).code;
    expect(await codeOf({ target_snapshot_id: 'orders-quarter-end' })).toBe('RESOURCE_EXISTS');
    expect(await codeOf({ target_region: 'moon' })).toBe('INVALID_PARAMETER');
    expect(await codeOf({ kms_key_id: 'a key' })).toBe('INVALID_PARAMETER');
    expect(await codeOf({ snapshot_id: 'nowhere' })).toBe('SNAPSHOT_NOT_FOUND');
    snapshot('before-upgrade').status = 'creating';
    expect(await codeOf({})).toBe('INVALID_STATE');
    expect(server.writes()).toEqual([]);
  });
});

describe('deleting a snapshot', () => {
  it('plans what is lost, who shares it and what is left', async () => {
    snapshot('before-upgrade').sharedWith.push('999988887777');
    const plan = await planOf(tools.deleteSnapshot, { snapshot_id: 'before-upgrade' });
    expect(plan).toMatchObject({
      target: 'before-upgrade',
      loses: expect.stringContaining('cannot be undone'),
      last_restorable: false,
      newest_recovery_point: { id: expect.stringMatching(/^rds:/) },
      blast_radius: { shared_with: ['999988887777'], other_restorable_snapshots: 4, database_exists: true },
      warnings: ['It is shared: other accounts lose it too.'],
      alternatives: [{ call: { action: 'create-snapshot', input: { snapshot_id: expect.any(String) } } }],
      facts: { target: { snapshot: 'before-upgrade', account: RDS_SANDBOX.account, region: REGION, instance: ORDERS } },
    });
    expect(server.writes()).toEqual([]);
  });

  it('knows the last one, and a copy in the making', async () => {
    const context = await connect({ db_instance_identifier: RDS_SANDBOX.unprotected });
    const plan = await planOf(tools.deleteSnapshot, { snapshot_id: 'legacy-last-year' }, context);
    expect(plan).toMatchObject({ last_restorable: true, blast_radius: { point_in_time_window: 'none' } });
    const copying = granted(() =>
      (context.client as { copySnapshot(copy: object, signal: AbortSignal): Promise<unknown> }).copySnapshot(
        { source: 'legacy-last-year', target: 'half', region: REGION, tags: [] },
        context.signal,
      ),
    );
    await copying;
    const again = await planOf(tools.deleteSnapshot, { snapshot_id: 'legacy-last-year' }, context);
    expect(again.warnings).toEqual(['A copy of it is being made: deleting it aborts the copy.']);
  });

  it('deletes a manual one of either kind and waits until it is gone', async () => {
    const { output } = await operate(tools.deleteSnapshot, { snapshot_id: 'before-upgrade' });
    expect(output).toEqual({ snapshot_id: 'before-upgrade', deleted: true });
    expect(snapshot('before-upgrade')).toBeUndefined();
    expect(snapshot('before-upgrade', 'cluster')).toBeDefined();
    await operate(tools.deleteSnapshot, { snapshot_id: 'before-upgrade' }, await connectCluster());
    expect(snapshot('before-upgrade', 'cluster')).toBeUndefined();
    expect(operations()).toEqual(['DeleteDBSnapshot', 'DeleteDBClusterSnapshot']);
  });

  it.each([
    ['automated', 'NOT_SUPPORTED'],
    ['awsbackup', 'NOT_SUPPORTED'],
    ['shared', 'NOT_SUPPORTED'],
    ['something-new', 'NOT_SUPPORTED'],
  ])('never plans the deletion of a snapshot of type %s', async (type, code) => {
    snapshot('before-upgrade').type = type;
    expect((await failure(planOf(tools.deleteSnapshot, { snapshot_id: 'before-upgrade' }))).code).toBe(code);
    expect(server.writes()).toEqual([]);
  });

  it('refuses those of other databases, those in the making, and one that changed after the plan', async () => {
    const codeOf = async (id: string) => (await failure(planOf(tools.deleteSnapshot, { snapshot_id: id }))).code;
    expect(await codeOf('legacy-last-year')).toBe('INVALID_PARAMETER');
    expect(await codeOf('nowhere')).toBe('SNAPSHOT_NOT_FOUND');
    const changed = operate(tools.deleteSnapshot, { snapshot_id: 'before-upgrade' }, await connect(), () => {
      snapshot('before-upgrade').createdAt += 1000;
    });
    expect((await failure(changed)).code).toBe('INVALID_STATE');
    snapshot('before-upgrade').status = 'creating';
    expect(await codeOf('before-upgrade')).toBe('INVALID_STATE');
    expect(server.writes()).toEqual([]);
  });
});

describe('restoring an instance', () => {
  it('plans the new instance row by row, with the settings of the source', async () => {
    const plan = await planOf(tools.restore, { snapshot_id: 'before-upgrade', target_id: 'Orders-Check' });
    expect(plan).toMatchObject({
      target: 'orders-check',
      source: 'before-upgrade',
      loses: 'nothing: a new instance is made, orders-postgres stays as it is',
      blast_radius: {
        creates: 'orders-check',
        account: RDS_SANDBOX.account,
        settings: {
          db_instance_class: 'db.m6g.large',
          db_subnet_group_name: 'private-subnets',
          vpc_security_group_ids: ['sg-0a1b2c3d4e5f60718'],
          db_parameter_group_name: 'orders-postgres16',
          multi_az: true,
          publicly_accessible: false,
          deletion_protection: true,
          backup_retention_period: 14,
          copy_tags_to_snapshot: true,
          enable_iam_database_authentication: true,
          enable_cloudwatch_logs_exports: ['postgresql'],
        },
        not_carried_over: expect.arrayContaining([expect.stringContaining('host name'), 'storage autoscaling']),
        quotas_left: { DBInstances: expect.any(Number) },
      },
      warnings: [expect.stringContaining('db.m6g.large) is billed')],
      facts: { target: { instance: 'orders-check', exists: false } },
    });
    expect(plan.blast_radius?.['settings']).not.toHaveProperty('storage_type');
    expect(plan.risk).toBeUndefined();
    expect(server.writes()).toEqual([]);
  });

  it('makes it from a snapshot, protected as the source is, and waits until it is loaded', async () => {
    simulator.state.durations.load = HOUR;
    const { output, trace } = await operate<RestoreJob>(tools.restore, {
      snapshot_id: 'before-upgrade',
      target_id: 'orders-check',
    });
    expect(output).toMatchObject({ job_id: 'orders-check', status: 'succeeded', usable: true, target: 'orders-check' });
    const made = simulator.state.instance('orders-check');
    const orders = simulator.state.instance(ORDERS);
    for (const name of [
      'class',
      'subnetGroup',
      'securityGroups',
      'parameterGroup',
      'public',
      'deletionProtection',
      'multiAz',
      'retentionDays',
      'backupWindow',
      'copyTags',
      'iamAuth',
      'logs',
      'port',
      'storageType',
      'iops',
    ] as const) {
      expect(made[name], name).toEqual(orders[name]);
    }
    expect(Object.fromEntries(made.tags)).toEqual({
      ...Object.fromEntries(orders.tags),
      'holdfast:request-id': 'key-restore',
      'holdfast:restored-from': expect.stringContaining(':snapshot:before-upgrade'),
    });
    expect(simulator.state.contentOf(made)).toEqual(snapshot('before-upgrade').content);
    expect(trace.progress.join('\n')).toMatch(/still loading its blocks: slower than normal/);
    expect(operations()).toEqual(['RestoreDBInstanceFromDBSnapshot']);
  });

  it('makes it from a moment or the latest one, storage autoscaling included', async () => {
    const at = new Date(server.clock.now().getTime() - 2 * HOUR).toISOString();
    await operate(tools.restore, { restore_timestamp: at, target_id: 'orders-then' });
    await operate(tools.restore, { use_latest: true, target_id: 'orders-latest' });
    const then = simulator.state.instance('orders-then');
    expect(simulator.state.contentOf(then)).toEqual({ orders: 5_000, customers: 900 });
    expect(then.maxAllocatedGib).toBe(1000);
    expect(then.tags.get('holdfast:restored-from')).toBe(`${ORDERS}@${at}`);
    expect(operations()).toEqual(['RestoreDBInstanceToPointInTime', 'RestoreDBInstanceToPointInTime']);
  });

  it('takes Unix seconds and offsets, and refuses moments outside of the window', async () => {
    const seconds = Math.floor((server.clock.now().getTime() - DAY) / 1000);
    const plan = await planOf(tools.restore, { restore_timestamp: seconds, target_id: 'a' });
    expect(plan.facts.source).toMatchObject({ moment: new Date(seconds * 1000).toISOString() });
    const codeOf = async (restore_timestamp: string) =>
      (await failure(planOf(tools.restore, { restore_timestamp, target_id: 'a' }))).code;
    expect(await codeOf(new Date(server.clock.now().getTime() - 20 * DAY).toISOString())).toBe('INVALID_PARAMETER');
    expect(await codeOf(server.clock.now().toISOString())).toBe('INVALID_PARAMETER');
    expect(await codeOf(new Date(server.clock.now().getTime() + HOUR).toISOString())).toBe('INVALID_PARAMETER');
    expect(await codeOf('yesterday')).toBe('INVALID_PARAMETER');
  });

  it('takes overrides, and does not open what the source keeps private', async () => {
    const input = {
      snapshot_id: 'before-upgrade',
      target_id: 'orders-small',
      instance_class: 'db.t4g.medium',
      subnet_group: 'other-subnets',
      security_group_ids: ['sg-00112233445566778'],
      parameter_group: 'default.postgres16',
      multi_az: false,
      deletion_protection: false,
    };
    const { plan } = await operate(tools.restore, input);
    expect(plan.warnings?.join('\n')).toContain('no deletion protection');
    expect(simulator.state.instance('orders-small')).toMatchObject({
      class: 'db.t4g.medium',
      subnetGroup: 'other-subnets',
      securityGroups: ['sg-00112233445566778'],
      parameterGroup: 'default.postgres16',
      multiAz: false,
      deletionProtection: false,
      public: false,
    });
    const refused = await failure(planOf(tools.restore, { ...input, target_id: 'b', publicly_accessible: true }));
    expect(refused.code).toBe('INVALID_PARAMETER');
  });

  it('refuses what is not one source, one form or a free name', async () => {
    const codeOf = async (input: JsonObject, context?: Context) =>
      (await failure(planOf(tools.restore, { target_id: 'fresh', ...input }, context))).code;
    expect(await codeOf({})).toBe('INVALID_PARAMETER');
    expect(await codeOf({ use_latest: false })).toBe('INVALID_PARAMETER');
    expect(await codeOf({ use_latest: true, snapshot_id: 'before-upgrade' })).toBe('INVALID_PARAMETER');
    const base = { snapshot_id: 'before-upgrade' };
    expect(await codeOf({ ...base, target_id: ORDERS })).toBe('RESOURCE_EXISTS');
    expect(await codeOf({ ...base, target_id: 'a--b' })).toBe('INVALID_PARAMETER');
    expect(await codeOf({ ...base, target_id: 'x'.repeat(64) })).toBe('INVALID_PARAMETER');
    expect(await codeOf({ ...base, instance_class: 'large' })).toBe('INVALID_PARAMETER');
    expect(await codeOf({ ...base, subnet_group: 'a/b' })).toBe('INVALID_PARAMETER');
    expect(await codeOf({ ...base, security_group_ids: ['open'] })).toBe('INVALID_PARAMETER');
    expect(await codeOf({ ...base, security_group_ids: [] })).toBe('INVALID_PARAMETER');
    expect(await codeOf({ ...base, members: 2 })).toBe('INVALID_PARAMETER');
    expect(await codeOf({ ...base, multi_az: true }, await connectCluster())).toBe('INVALID_PARAMETER');
    const legacy = await connect({ db_instance_identifier: RDS_SANDBOX.unprotected });
    expect(await codeOf({ use_latest: true }, legacy)).toBe('NOT_SUPPORTED');
    snapshot('before-upgrade').status = 'creating';
    expect(await codeOf(base)).toBe('INVALID_STATE');
  });

  it('leaves the parameter group to RDS where the source was upgraded since', async () => {
    snapshot('before-upgrade').version = '15.8';
    const plan = await planOf(tools.restore, { snapshot_id: 'before-upgrade', target_id: 'old' });
    expect(plan.blast_radius?.['settings']).not.toHaveProperty('db_parameter_group_name');
    expect(plan.warnings?.join('\n')).toMatch(/another engine version/);
  });

  it('restores what is left of a deleted instance: automated backups and snapshots', async () => {
    const context = await connect({ db_instance_identifier: RDS_SANDBOX.gone });
    const { output, plan } = await operate<RestoreJob>(
      tools.restore,
      { use_latest: true, target_id: RDS_SANDBOX.gone },
      context,
    );
    expect(output.usable).toBe(true);
    expect(plan.warnings?.join('\n')).toMatch(/The source is gone: its network, security groups and parameter group/);
    const made = simulator.state.instance(RDS_SANDBOX.gone);
    expect(made).toMatchObject({ deletionProtection: true, public: false });
    expect(simulator.state.contentOf(made)).toEqual({ reports: 31 });
    const nowhere = await connect({ db_instance_identifier: 'nowhere' });
    expect((await failure(planOf(tools.restore, { use_latest: true, target_id: 'x' }, nowhere))).code).toBe(
      'BACKUP_NOT_FOUND',
    );
  });

  it('sends nothing when the target appears or the source changes after the plan', async () => {
    const taken = operate(tools.restore, { snapshot_id: 'before-upgrade', target_id: 'late' }, await connect(), () => {
      simulator.state.instances.push({ ...simulator.state.instance(ORDERS), id: 'late' });
    });
    expect((await failure(taken)).code).toBe('RESOURCE_EXISTS');
    const changed = operate(
      tools.restore,
      { snapshot_id: 'before-upgrade', target_id: 'other' },
      await connect(),
      () => {
        simulator.state.instance(ORDERS).securityGroups = ['sg-0fffffffffffffff0'];
      },
    );
    expect((await failure(changed)).code).toBe('INVALID_STATE');
    expect(server.writes()).toEqual([]);
  });

  it('reports a restore that fails at RDS, with the events that say why', async () => {
    simulator.state.restoreEndsAs = 'incompatible-network';
    const context = await connect();
    const error = await failure(
      operate(tools.restore, { snapshot_id: 'before-upgrade', target_id: 'doomed' }, context),
    );
    expect(error).toMatchObject({ code: 'INVALID_STATE', retryable: false });
    expect(error.message).toContain('incompatible-network');
    const status = await read<RestoreJob>(tools.getRestoreStatus, { instance_id: 'doomed' }, context);
    expect(status).toMatchObject({
      status: 'failed',
      usable: false,
      provider: { events: [{ message: expect.stringContaining('ended with incompatible-network') }] },
    });
  });

  it('tells what it could not find out', async () => {
    simulator.state.denied.add('DescribeAccountAttributes');
    const plan = await planOf(tools.restore, { snapshot_id: 'before-upgrade', target_id: 'x' });
    expect(plan.unknowns).toContain('the quotas left (rds:DescribeAccountAttributes)');
    simulator.state.denied.clear();
    simulator.state.quotas.DBInstances = 1;
    const full = await planOf(tools.restore, { snapshot_id: 'before-upgrade', target_id: 'x' });
    expect(full.warnings).toContain('The quota DBInstances is used up: RDS will refuse the restore.');
  });
});

describe('restoring a cluster', () => {
  it('makes the cluster and its members from a snapshot, in its own version', async () => {
    snapshot('before-upgrade', 'cluster').version = '16.2';
    const { output, steps, plan } = await operate<RestoreJob>(
      tools.restore,
      { snapshot_id: 'before-upgrade', target_id: 'shop-check' },
      await connectCluster(),
    );
    expect(plan.blast_radius?.['members']).toMatchObject([
      { id: 'shop-check-1', db_instance_class: 'db.serverless', promotion_tier: 0 },
      { id: 'shop-check-2', db_instance_class: 'db.serverless', promotion_tier: 1 },
    ]);
    expect(steps.map(({ name }) => name)).toEqual(['restore', 'cluster', 'member-1', 'member-2', 'wait', 'verify']);
    expect(output).toMatchObject({
      status: 'succeeded',
      usable: true,
      provider: { members: [{ status: 'available' }, {}] },
    });
    const made = simulator.state.cluster('shop-check');
    expect(made).toMatchObject({
      version: '16.2',
      members: ['shop-check-1', 'shop-check-2'],
      subnetGroup: 'private-subnets',
      securityGroups: ['sg-0a1b2c3d4e5f60718'],
      parameterGroup: 'shop-aurora16',
      deletionProtection: true,
      retentionDays: 7,
      capacity: [0.5, 8],
    });
    expect(operations()).toEqual(['RestoreDBClusterFromSnapshot', 'CreateDBInstance', 'CreateDBInstance']);
    expect(simulator.state.instance('shop-check-1').public).toBe(false);
  });

  it('makes it from a moment, with as many members as asked for', async () => {
    const at = new Date(server.clock.now().getTime() - 3 * HOUR).toISOString();
    const context = await connectCluster();
    await operate(tools.restore, { restore_timestamp: at, target_id: 'shop-one', members: 1 }, context);
    expect(simulator.state.cluster('shop-one').members).toEqual(['shop-one-1']);
    expect(simulator.state.contentOf(simulator.state.cluster('shop-one'))).toEqual({ carts: 10, products: 400 });
    await operate(tools.restore, { use_latest: true, target_id: 'shop-three', members: 3 }, context);
    expect(simulator.state.cluster('shop-three').members).toHaveLength(3);
  });

  it('says loudly that there are no members, and reports it as not usable', async () => {
    const context = await connectCluster();
    const { output, plan } = await operate<RestoreJob>(
      tools.restore,
      { use_latest: true, target_id: 'shop-bare', members: 0 },
      context,
    );
    expect(plan.warnings?.join('\n')).toMatch(/NO instances: nobody can connect/);
    expect(output).toMatchObject({ usable: false, provider: { state: expect.stringContaining('nobody can connect') } });
  });

  it('needs a class where the source has no members, and free names for them', async () => {
    const context = await connectCluster();
    simulator.state.cluster(SHOP).members = [];
    const input = { use_latest: true, target_id: 'shop-x', members: 1 };
    expect((await failure(planOf(tools.restore, input, context))).code).toBe('INVALID_PARAMETER');
    expect(await planOf(tools.restore, { ...input, instance_class: 'db.r6g.large' }, context)).toMatchObject({
      blast_radius: { members: [{ id: 'shop-x-1', db_instance_class: 'db.r6g.large' }] },
    });
    simulator.state.instances.push({ ...simulator.state.instance('shop-aurora-1'), id: 'shop-x-1' });
    const taken = await failure(planOf(tools.restore, { ...input, instance_class: 'db.r6g.large' }, context));
    expect(taken.code).toBe('RESOURCE_EXISTS');
  });

  it('of Multi-AZ kind has a class and gets its instances from RDS', async () => {
    const shop = simulator.state.cluster(SHOP);
    Object.assign(shop, {
      engine: 'postgres',
      class: 'db.m6gd.large',
      capacity: undefined,
      parameterGroup: 'orders-postgres16',
    });
    const context = await connectCluster();
    const { output, steps } = await operate<RestoreJob>(
      tools.restore,
      { use_latest: true, target_id: 'multi' },
      context,
    );
    expect(steps.map(({ name }) => name)).toEqual(['restore', 'wait', 'verify']);
    expect(output).toMatchObject({ usable: true, provider: { members: [{}, {}, {}] } });
    expect(simulator.state.cluster('multi')).toMatchObject({ class: 'db.m6gd.large', public: false });
    expect(operations()).toEqual(['RestoreDBClusterToPointInTime']);
    const counted = { use_latest: true, target_id: 'other', members: 2 };
    expect((await failure(planOf(tools.restore, counted, context))).code).toBe('INVALID_PARAMETER');
  });

  it('is refused for engines that need what is not carried over', async () => {
    snapshot('before-upgrade', 'cluster').engine = 'neptune';
    snapshot('before-upgrade').engine = 'custom-oracle-ee';
    const input = { snapshot_id: 'before-upgrade', target_id: 'x' };
    expect((await failure(planOf(tools.restore, input, await connectCluster()))).code).toBe('NOT_SUPPORTED');
    expect((await failure(planOf(tools.restore, input))).code).toBe('NOT_SUPPORTED');
  });

  it('leaves the cluster and says so when a member cannot be made', async () => {
    simulator.state.failNext.push({
      operation: 'CreateDBInstance',
      code: 'InsufficientDBInstanceCapacity',
      status: 400,
    });
    const { call } = await startEngine();
    const error = await failure(
      call('restore', { use_latest: true, target_id: 'shop-half' }, { entity: 'sandbox/aws-rds-cluster' }),
    );
    expect(error).toMatchObject({
      code: 'PROVIDER_UNAVAILABLE',
      details: { cleaned_up: [expect.stringContaining('the new cluster shop-half was left')] },
    });
    expect(simulator.state.cluster('shop-half')).toBeDefined();
  });
});

describe('the state of a restored database', () => {
  it.each([
    ['available', 'ready'],
    ['storage-optimization', 'ready'],
    ['creating', 'working'],
    ['backing-up', 'working'],
    ['configuring-enhanced-monitoring', 'working'],
    ['restore-error', 'failed'],
    ['incompatible-parameters', 'failed'],
    ['inaccessible-encryption-credentials-recoverable', 'failed'],
    ['insufficient-capacity', 'failed'],
    ['stopped', 'stopped'],
    ['storage-full', 'full'],
    ['deleting', 'gone'],
    ['evaporating', 'unknown'],
    ['', 'unknown'],
  ] as const)('%s is %s', (status, stage) => {
    expect(stageOf(status)).toBe(stage);
  });

  it('is running and not usable while blocks are loading, though it can be connected to', async () => {
    const restored = simulator.state.instance(RDS_SANDBOX.restored);
    const now = server.clock.now().getTime();
    Object.assign(restored, { readyAt: now - 40_000, loadedAt: now + 60_000 });
    server.clock.freeze();
    const job = await read<RestoreJob>(tools.getRestoreStatus, { instance_id: RDS_SANDBOX.restored });
    expect(job).toMatchObject({
      status: 'running',
      percent: expect.any(Number),
      usable: false,
      provider: {
        connectable: true,
        state: expect.stringMatching(/still loading its blocks: slower than normal, 4\d %/),
        storage: [{ operation: 'Initializing', percent: expect.any(Number) }],
      },
    });
    server.clock.advance(61_000);
    expect(await read(tools.getRestoreStatus, { instance_id: RDS_SANDBOX.restored })).toMatchObject({
      status: 'succeeded',
      usable: true,
      provider: { restored_from: expect.stringContaining('before-upgrade'), endpoint: expect.stringMatching(/:5432$/) },
    });
  });

  it.each([
    ['creating', 'running'],
    ['evaporating', 'unknown'],
    ['stopped', 'succeeded'],
    ['storage-full', 'succeeded'],
    ['deleting', 'cancelled'],
    ['failed', 'failed'],
  ])('%s is reported as %s, and never as usable', async (status, reported) => {
    simulator.state.instance(RDS_SANDBOX.restored).status = status;
    const job = await read<RestoreJob>(tools.getRestoreStatus, { instance_id: RDS_SANDBOX.restored });
    expect(job).toMatchObject({ status: reported, usable: false, provider: { status } });
  });

  it('of a cluster is that of its worst member', async () => {
    const context = await connectCluster();
    const status = () => read<RestoreJob>(tools.getRestoreStatus, { instance_id: RDS_SANDBOX.restored }, context);
    expect(await status()).toMatchObject({ status: 'succeeded', usable: true });
    simulator.state.instance('restored-db-2').status = 'creating';
    expect(await status()).toMatchObject({ status: 'running', usable: false });
    simulator.state.instance('restored-db-1').status = 'failed';
    expect(await status()).toMatchObject({ status: 'failed', usable: false });
  });

  it('is not found for what is not there, and cleans the text of events', async () => {
    expect((await failure(read(tools.getRestoreStatus, { instance_id: 'nowhere' }))).code).toBe('RESOURCE_NOT_FOUND');
    simulator.state.instance(RDS_SANDBOX.restored).status = 'failed';
    simulator.state.events.push({
      kind: 'instance',
      id: RDS_SANDBOX.restored,
      region: REGION,
      at: server.clock.now().getTime(),
      message: 'no\u200b \u0007room',
      category: 'failure',
    });
    const { provider } = await read<RestoreJob>(tools.getRestoreStatus, { instance_id: RDS_SANDBOX.restored });
    expect(provider?.['events']).toMatchObject([{ message: 'no room' }]);
    simulator.state.denied.add('DescribeEvents');
    const denied = await read<RestoreJob>(tools.getRestoreStatus, { instance_id: RDS_SANDBOX.restored });
    expect(denied.provider?.['events']).toMatch(/^unknown/);
  });
});

describe('ways back', () => {
  const optionsOf = async (context: Context, at?: Date): Promise<RecoveryOption[]> =>
    awsRds.recoveryOptions(context as never, at);

  it('are a moment and the newest snapshot, each an exact call that only makes something new', async () => {
    for (const context of [await connect(), await connectCluster()]) {
      const options = await optionsOf(context);
      expect(options).toMatchObject([
        { risk: 'create', call: { action: 'restore', input: { use_latest: true } } },
        { risk: 'create', call: { action: 'restore', input: { snapshot_id: expect.stringMatching(/^rds:/) } } },
      ]);
      for (const { call } of options) await planOf(tools.restore, call.input, context);
    }
    const at = new Date(server.clock.now().getTime() - 5 * DAY);
    expect(await optionsOf(await connect(), at)).toMatchObject([
      { moment: at.toISOString(), call: { input: { restore_timestamp: at.toISOString() } } },
      { call: { input: { snapshot_id: 'before-upgrade' } } },
    ]);
  });

  it('of a deleted instance are its retained backups', async () => {
    const [option, ...others] = await optionsOf(await connect({ db_instance_identifier: RDS_SANDBOX.gone }));
    expect(option).toMatchObject({ loses: 'nothing: the database is gone', call: { input: { use_latest: true } } });
    expect(others).toEqual([]);
  });
});

describe('settings that are carried over', () => {
  it('hold figures of storage back where RDS refuses them', () => {
    const of = (source: object) => instanceSettings(source as never, true, {}).settings;
    expect(of({ StorageType: 'gp3', Iops: 3000, StorageThroughput: 125 })).not.toHaveProperty('Iops');
    expect(of({ StorageType: 'gp3', Iops: 12_000, StorageThroughput: 500 })).toMatchObject({
      StorageType: 'gp3',
      Iops: 12_000,
      StorageThroughput: 500,
    });
    expect(of({ StorageType: 'io2', Iops: 1000 })).toMatchObject({ StorageType: 'io2', Iops: 1000 });
    expect(of({ StorageType: 'gp2' })).toMatchObject({ StorageType: 'gp2' });
  });

  it.each([
    ['postgres', '16.2', 'postgres', '16.9', true],
    ['postgres', '15.8', 'postgres', '16.1', false],
    ['mysql', '8.0.39', 'mysql', '8.0.40', true],
    ['mysql', '8.0.39', 'mysql', '8.4.3', false],
    ['oracle-ee', '19.0.0.0', 'oracle-ee', '19.1.0.0', true],
    ['aurora-mysql', '8.0.mysql_aurora.3.05', 'aurora-mysql', '8.0.mysql_aurora.3.08', true],
    ['postgres', '16.2', 'aurora-postgresql', '16.2', false],
  ])('take %s %s and %s %s for one family: %s', (engine, version, other, theirs, same) => {
    expect(sameFamily({ engine, version }, { engine: other, version: theirs })).toBe(same);
  });
});

describe('failures', () => {
  const wire = (status: number, code: string) =>
    Object.assign(new Error('secret words'), {
      Code: code,
      name: `${code}Exception`,
      $metadata: { httpStatusCode: status, requestId: 'r-1' },
    });

  it.each([
    [404, 'DBSnapshotNotFound', 'SNAPSHOT_NOT_FOUND'],
    [404, 'DBClusterSnapshotNotFoundFault', 'SNAPSHOT_NOT_FOUND'],
    [404, 'DBInstanceNotFound', 'RESOURCE_NOT_FOUND'],
    [404, 'DBClusterNotFoundFault', 'RESOURCE_NOT_FOUND'],
    [404, 'DBSubnetGroupNotFoundFault', 'RESOURCE_NOT_FOUND'],
    [400, 'DBInstanceAlreadyExists', 'RESOURCE_EXISTS'],
    [400, 'InvalidDBInstanceState', 'INVALID_STATE'],
    [400, 'SnapshotQuotaExceeded', 'QUOTA_EXCEEDED'],
    [403, 'DBClusterQuotaExceededFault', 'QUOTA_EXCEEDED'],
    [403, 'InsufficientDBClusterCapacityFault', 'PROVIDER_UNAVAILABLE'],
    [400, 'PointInTimeRestoreNotEnabled', 'NOT_SUPPORTED'],
    [400, 'InvalidParameterCombination', 'INVALID_PARAMETER'],
    [400, 'KMSKeyNotAccessibleFault', 'INSUFFICIENT_PERMISSIONS'],
    [403, 'AccessDenied', 'INSUFFICIENT_PERMISSIONS'],
    [403, 'SomethingNew', 'INSUFFICIENT_PERMISSIONS'],
    [403, 'InvalidClientTokenId', 'AUTHENTICATION_FAILED'],
    [403, 'ExpiredToken', 'AUTHENTICATION_FAILED'],
    [400, 'Throttling', 'RATE_LIMITED'],
    [400, 'RequestLimitExceeded', 'RATE_LIMITED'],
    [503, 'ServiceUnavailable', 'PROVIDER_UNAVAILABLE'],
    [500, 'SomethingNew', 'PROVIDER_UNAVAILABLE'],
    [400, 'SomethingNew', 'INVALID_PARAMETER'],
  ] as const)('map %i %s to %s without its words', (status, code, ours) => {
    const error = toRdsError(wire(status, code), 'CreateDBSnapshot', true);
    expect(error).toMatchObject({ code: ours, provider: { status, request_id: 'r-1' } });
    expect(error.details?.['outcome']).toBe(status >= 500 ? 'unknown' : 'not_sent');
    expect(`${error.message} ${error.hint}`).not.toContain('secret words');
    expect(error.message).not.toMatch(/failed$/);
  });

  it('name the permission that is missing', async () => {
    simulator.state.denied.add('CreateDBSnapshot');
    const error = await failure(operate(tools.createSnapshot, { snapshot_id: 'x' }));
    expect(error).toMatchObject({ code: 'INSUFFICIENT_PERMISSIONS', details: { permission: 'rds:CreateDBSnapshot' } });
    expect(error.message).toContain('rds:CreateDBSnapshot');
    expect(error.provider?.request_id).toMatch(/^[0-9a-f-]{36}$/);
  });

  it('of credentials name the variables, and that MCP clients hand down only some', async () => {
    simulator.state.unauthenticated = true;
    const refused = await failure(read(tools.getBackupInfo));
    expect(refused).toMatchObject({ code: 'AUTHENTICATION_FAILED', provider: { code: 'InvalidClientTokenId' } });
    simulator.state.unauthenticated = false;
    const half = await connect(
      { access_key_id: null, secret_access_key: null },
      {
        credential: (name) => (name === 'AWS_ACCESS_KEY_ID' ? 'AKIAHALF' : undefined),
      },
    );
    const error = await failure(read(tools.getBackupInfo, {}, half));
    expect(error.message).toContain('AWS_SECRET_ACCESS_KEY');
    expect(error.hint).toMatch(/MCP client hands down only the variables named/);
  });

  it.each(['429', '500', '503', 'reset', 'lost', 'malformed', 'truncated'] as const)(
    'by %s are sat out by reads',
    async (kind) => {
      server.fault({ kind, operation: 'DescribeDBInstances', times: 2, ...(kind === '429' ? { retry_after: 0 } : {}) });
      expect(await read(tools.getBackupInfo)).toMatchObject({ automated: true });
      expect(server.writes()).toEqual([]);
    },
  );

  it('by throttling, which comes as 400, are sat out by reads and not by writes', async () => {
    const throttle = (operation: string, times: number) => {
      for (let n = 0; n < times; n += 1) simulator.state.failNext.push({ operation, code: 'Throttling', status: 400 });
    };
    throttle('DescribeDBInstances', 3);
    expect(await read(tools.getBackupInfo)).toMatchObject({ automated: true });
    throttle('DescribeDBInstances', 6);
    expect((await failure(read(tools.getBackupInfo))).code).toBe('RATE_LIMITED');
    throttle('CreateDBSnapshot', 1);
    const error = await failure(operate(tools.createSnapshot, { snapshot_id: 'x' }));
    expect(error).toMatchObject({ code: 'RATE_LIMITED', details: { outcome: 'not_sent' } });
    expect(operations()).toEqual(['CreateDBSnapshot']);
  });

  it.each(['500', '503', 'reset', 'lost', 'malformed', 'truncated'] as const)(
    'by %s leave a write sent once and its outcome unknown',
    async (kind) => {
      server.fault({ kind, operation: 'CreateDBSnapshot', times: 9 });
      const error = await failure(operate(tools.createSnapshot, { snapshot_id: 'once' }));
      expect(error.code).toBe('PROVIDER_UNAVAILABLE');
      expect(error.details?.['outcome']).toBe('unknown');
      expect(operations()).toEqual(['CreateDBSnapshot']);
    },
  );

  it('never take a page of a proxy for an empty list', async () => {
    const page = async () =>
      new Response('<html><body>Welcome</body></html>', { status: 200, headers: { 'content-type': 'text/html' } });
    const context = await connect({}, { fetch: page });
    const error = await failure(read(tools.listSnapshots, {}, context));
    expect(error.code).toBe('PROVIDER_UNAVAILABLE');
    const gateway = await connect({}, { fetch: async () => new Response('<html/>', { status: 404 }) });
    expect((await failure(read(tools.getBackupInfo, {}, gateway))).code).toBe('PROVIDER_UNAVAILABLE');
  });

  it('by an abort stop the call', async () => {
    const controller = new AbortController();
    const context = await connect({}, { signal: controller.signal });
    controller.abort();
    expect((await failure(read(tools.getBackupInfo, {}, context))).code).toBe('CANCELLED');
    const second = new AbortController();
    const waiting = await connect({}, { signal: second.signal });
    const stopped = operate(tools.createSnapshot, { snapshot_id: 'x' }, waiting, (step) => {
      if (step.name === 'wait') second.abort();
    });
    expect((await failure(stopped)).code).toBe('CANCELLED');
    expect(operations()).toEqual(['CreateDBSnapshot']);
  });
});

describe('credentials', () => {
  it('come from the environment where the entity names none', async () => {
    const given: Record<string, string> = {
      AWS_ACCESS_KEY_ID: 'AKIAENVIRONMENT',
      AWS_SECRET_ACCESS_KEY: CANARY,
      AWS_SESSION_TOKEN: 'canary-session-token',
    };
    const concealed: string[] = [];
    const sent: string[] = [];
    const context = await connect(
      { access_key_id: null, secret_access_key: null },
      {
        credential: (name) => given[name],
        conceal: (value) => void concealed.push(value),
        fetch: async (url, options) => {
          sent.push(JSON.stringify(options?.headers));
          const { safe: _, ...init } = options ?? {};
          return fetch(url as string, init);
        },
      },
    );
    await read(tools.getBackupInfo, {}, context);
    expect(sent[0]).toContain('AKIAENVIRONMENT');
    expect(sent.join('')).not.toContain(CANARY);
    expect(concealed).toContain('canary-session-token');
  });

  it('are looked for by the SDK itself only when nothing is given, and say so when there are none', async () => {
    const saved = { ...process.env };
    for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name];
    Object.assign(process.env, {
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_SHARED_CREDENTIALS_FILE: '/nonexistent',
      AWS_CONFIG_FILE: '/nonexistent',
    });
    try {
      for (const profile of [null, 'production']) {
        const context = await connect({ access_key_id: null, secret_access_key: null, profile });
        const error = await failure(read(tools.getBackupInfo, {}, context));
        expect(error).toMatchObject({ code: 'AUTHENTICATION_FAILED', details: undefined });
        expect(error.message).toContain('AWS_ACCESS_KEY_ID');
      }
      expect(server.journal).toEqual([]);
    } finally {
      process.env = saved;
    }
  });

  it('of a role in a profile are asked for through our own transport, and a refusal is no refusal by RDS', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'holdfast-aws-'));
    const config = join(folder, 'config');
    writeFileSync(
      config,
      `[profile backups]\nrole_arn = arn:aws:iam::123456789012:role/backups\nsource_profile = base\nregion = ${REGION}\n` +
        `[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = ${CANARY}\n`,
    );
    const saved = { ...process.env };
    Object.assign(process.env, { AWS_CONFIG_FILE: config, AWS_SHARED_CREDENTIALS_FILE: join(folder, 'none') });
    try {
      const asked: string[] = [];
      const answer = (status: number, body: string) => {
        const send: Runtime['fetch'] = async (url, options) => {
          const { safe, ...init } = options ?? {};
          if (new URL(String(url)).origin === server.origin) return fetch(String(url), init);
          asked.push(
            `${new URL(String(url)).hostname} ${safe} ${new URLSearchParams(String(init.body)).get('Action')}`,
          );
          return new Response(body, { status, headers: { 'content-type': 'text/xml' } });
        };
        return connect({ access_key_id: null, secret_access_key: null, profile: 'backups' }, { fetch: send });
      };
      const refused = await failure(read(tools.getBackupInfo, {}, await answer(403, '<ErrorResponse/>')));
      expect(refused).toMatchObject({ code: 'AUTHENTICATION_FAILED', provider: { status: 403 } });
      expect(refused.hint).toContain('sts:AssumeRole');
      const given =
        '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>' +
        '<AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>role-secret</SecretAccessKey><SessionToken>role-token</SessionToken>' +
        '<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>';
      expect(await read(tools.getBackupInfo, {}, await answer(200, given))).toMatchObject({ automated: true });
      expect(new Set(asked)).toEqual(new Set([`sts.${REGION}.amazonaws.com true AssumeRole`]));
    } finally {
      process.env = saved;
    }
  });

  it('are sent only to https or loopback, and must be whole', async () => {
    const attempt = (parameters: JsonObject, endpoint?: string) =>
      failure(
        Promise.resolve().then(() =>
          awsRds.connect({ ...entityOf(RDS_INSTANCE, parameters), endpoint } as never, fastRuntime()),
        ),
      );
    for (const endpoint of ['http://example.com', 'ftp://127.0.0.1', 'nonsense', 'http://127.0.0.1.evil.com']) {
      expect((await attempt({}, endpoint)).code).toBe('CONFIG_INVALID');
    }
    expect((await attempt({ secret_access_key: null }, server.origin)).code).toBe('CONFIG_INVALID');
    expect((await attempt({ profile: 'x' }, server.origin)).code).toBe('CONFIG_INVALID');
    const { schema } = awsRds.entityTypes[RDS_INSTANCE]!;
    expect(
      schema.safeParse({ region: REGION, db_instance_identifier: 'a', access_key_id: 'AKIALITERAL' }).success,
    ).toBe(false);
    expect(schema.safeParse({ region: 'evil.com/', db_instance_identifier: 'a' }).success).toBe(false);
    for (const type of Object.values(awsRds.entityTypes))
      expect(type.schema.safeParse(type.example).success).toBe(true);
  });
});

async function startEngine() {
  Object.assign(simulator.state.durations, { snapshot: 60, restore: 80, load: 60, remove: 40 });
  const harness = await startHarness({
    modules: { awsRds: tools },
    entities: Object.entries(awsRds.entityTypes).map(([defines, { sandbox }]) => ({
      key: `sandbox/${sandbox!.name}`,
      defines,
      parameters: sandbox!.parameters,
      endpoint: server.origin,
    })),
    secrets: { AWS_ACCESS_KEY_ID: 'AKIASANDBOXENGINE', AWS_SECRET_ACCESS_KEY: CANARY },
  });
  closing.push(() => harness.close());
  const call = (action: string, input: JsonObject = {}, extra: object = {}) =>
    harness.engine.call({ principal: ANA, entity: 'sandbox/aws-rds', action, input, wait: 'end', ...extra });
  return { ...harness, call };
}

describe('through the engine', () => {
  const CLUSTER = { entity: 'sandbox/aws-rds-cluster' };

  it('lets a deletion through once, after a person typed the name', async () => {
    const { engine, call } = await startEngine();
    const input = { snapshot_id: 'before-upgrade' };
    const refused = await failure(call('delete-snapshot', input));
    expect(refused.code).toBe('CONFIRMATION_REQUIRED');
    expect(server.writes()).toEqual([]);
    const { confirmation } = refused.details as unknown as ConfirmationDetails;
    await engine.approve({ confirmation: confirmation.code, by: BOSS, via: 'terminal', typedTarget: 'before-upgrade' });
    const outcome = await call('delete-snapshot', input, { token: confirmation.token });
    expect(outcome).toMatchObject({ operation: { status: 'succeeded', result: { deleted: true } } });
    expect((await failure(call('delete-snapshot', input, { token: confirmation.token }))).code).toMatch(
      /CONFIRMATION|NOT_FOUND/,
    );
    expect(operations()).toEqual(['DeleteDBSnapshot']);
  });

  it.each([
    ['create-snapshot', 'CreateDBSnapshot', { snapshot_id: 'found-again' }, {}],
    ['copy-snapshot', 'CopyDBSnapshot', { snapshot_id: 'before-upgrade', target_snapshot_id: 'found-again' }, {}],
    ['restore', 'RestoreDBInstanceFromDBSnapshot', { snapshot_id: 'before-upgrade', target_id: 'found-again' }, {}],
    ['restore', 'RestoreDBInstanceToPointInTime', { use_latest: true, target_id: 'found-again' }, {}],
    ['create-snapshot', 'CreateDBClusterSnapshot', { snapshot_id: 'found-again' }, CLUSTER],
    [
      'copy-snapshot',
      'CopyDBClusterSnapshot',
      { snapshot_id: 'before-upgrade', target_snapshot_id: 'found-again' },
      CLUSTER,
    ],
    ['restore', 'RestoreDBClusterFromSnapshot', { snapshot_id: 'before-upgrade', target_id: 'found-again' }, CLUSTER],
    ['restore', 'RestoreDBClusterToPointInTime', { use_latest: true, target_id: 'found-again' }, CLUSTER],
    ['restore', 'CreateDBInstance', { use_latest: true, target_id: 'found-again' }, CLUSTER],
  ])('finds the work of a lost answer again: %s by %s', async (action, operation, input, extra) => {
    const { call } = await startEngine();
    server.fault({ kind: 'lost', operation, times: 1 });
    expect(await call(action, input, extra)).toMatchObject({ operation: { status: 'succeeded' } });
    const sent = operations();
    expect(sent.filter((one) => one === operation)).toHaveLength(operation === 'CreateDBInstance' ? 2 : 1);
  });

  it.each([
    ['create-snapshot', 'CreateDBSnapshot', { snapshot_id: 'never-was' }],
    ['restore', 'RestoreDBInstanceFromDBSnapshot', { snapshot_id: 'before-upgrade', target_id: 'never-was' }],
  ])('knows of a write that never arrived: %s by %s', async (action, operation, input) => {
    const { call } = await startEngine();
    server.fault({ kind: 'reset', operation, times: 1 });
    expect(await failure(call(action, input))).toMatchObject({ retryable: true, details: { outcome: 'not_sent' } });
    expect(operations()).toEqual([operation]);
  });

  it('takes no work of others for its own', async () => {
    const { call } = await startEngine();
    const context = await connect();
    const [step] = tools.createSnapshot.steps!({}, {} as Plan);
    const trace: Trace = { results: {}, handles: { snapshot: [{ snapshot_id: 'before-upgrade' }] }, progress: [] };
    const look = step!.recover!(stepContext(context, {}, trace, step!));
    expect(await look).toMatchObject({ state: 'failed' });
    const restoring = tools.restore.steps!({ target_id: ORDERS }, { facts: { target: {} } } as Plan)[0]!;
    const begun: Trace = { results: {}, handles: { restore: [{ target: ORDERS }] }, progress: [] };
    expect(await restoring.recover!(stepContext(context, {}, begun, restoring))).toMatchObject({ state: 'failed' });
    expect(await call('list-backups')).toMatchObject({ kind: 'result' });
  });

  it('finds a lost deletion by its absence', async () => {
    const { engine, call } = await startEngine();
    const input = { snapshot_id: 'before-upgrade' };
    const { confirmation } = (await failure(call('delete-snapshot', input, CLUSTER)))
      .details as unknown as ConfirmationDetails;
    await engine.approve({ confirmation: confirmation.code, by: BOSS, via: 'terminal', typedTarget: 'before-upgrade' });
    server.fault({ kind: 'lost', operation: 'DeleteDBClusterSnapshot', times: 1 });
    const outcome = await call('delete-snapshot', input, { ...CLUSTER, token: confirmation.token });
    expect(outcome).toMatchObject({ operation: { status: 'succeeded', result: { deleted: true } } });
    expect(operations()).toEqual(['DeleteDBClusterSnapshot']);
  });

  it('restores without asking, and keeps secrets out of everything', async () => {
    const { call } = await startEngine();
    const answers = [
      await call('create-backup', { snapshot_id: 'nightly' }),
      await call('restore', { snapshot_id: 'nightly', target_id: 'orders-copy' }),
      await call('get-restore-status', { instance_id: 'orders-copy' }),
      await call('list-backups'),
      await call('describe-backup', { snapshot_id: 'nightly' }),
      await call('get-backup-info'),
      (await failure(call('delete-backup', { snapshot_id: 'nightly' }))).toJson(),
    ];
    expect(answers[1]).toMatchObject({ operation: { status: 'succeeded', result: { usable: true } } });
    const everything = JSON.stringify([answers, server.journal]);
    expect(everything).not.toContain(CANARY);
  });
});
