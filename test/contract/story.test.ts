import { afterAll, beforeAll, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { type BackupInfo, type RecoveryPoint, RestoreJob, type SnapshotList } from '../../src/core/schemas.ts';
import type { ConfirmationDetails, Outcome } from '../../src/engine/api.ts';
import { type GuardedFleet, modules, registry, startGuardedFleet } from '../support/guarded-fleet.ts';
import { BOSS, type Harness, startHarness } from '../support/harness.ts';
import { describePostgres, sql, values } from '../support/postgres.ts';

// Each database tells one story from end to end, through the engine and its guard: what is listed can be described and
// restored, a restore brings the data back, its undo takes it away again, and what is deleted is gone.

let fleet: GuardedFleet;
let harness: Harness;

interface Content {
  /** What the database holds now, in any comparable form. */
  read(): Promise<unknown>;
  /** Changes it, as an accident would. */
  spoil(): Promise<void>;
}

const contents: Record<string, () => Content> = {
  'sandbox/mongodb-atlas': () => ({
    read: async () => structuredClone(fleet.atlas.content('sandbox-cluster')),
    spoil: async () => {
      fleet.atlas.write('sandbox-cluster', { ruined: { everything: 1 } });
    },
  }),
  'sandbox/gcp-cloud-sql': () => {
    const instance = [...fleet.cloudSql.instances.values()].find(({ name }) => name === 'orders-db')!;
    return {
      read: async () => structuredClone(instance.history.at(-1)?.content),
      spoil: async () => {
        instance.history.push({ at: fleet.provider.clock.now().getTime(), content: { ruined: { everything: 1 } } });
      },
    };
  },
  'sandbox/redis-essentials': () => redisContent('redis-essentials'),
  'sandbox/redis-pro': () => redisContent('redis-pro'),
  'sandbox/postgresql': () => ({
    read: async () => values(fleet.postgres.connection, 'shop', 'SELECT id FROM t ORDER BY id').catch(() => 'no table'),
    spoil: () => sql(fleet.postgres.connection, 'shop', 'DELETE FROM t WHERE id > 3'),
  }),
};

function redisContent(name: string): Content {
  const type = [...registry.entityTypes.values()].find((candidate) => candidate.type.sandbox?.name === name);
  const database = fleet.redis.databases.get(Number(type?.type.sandbox?.parameters['database_id']))!;
  return {
    read: async () => [...database.data].sort(),
    spoil: async () => {
      database.data.clear();
      database.data.set('ruined', 'x');
    },
  };
}

const ask = (entity: string, action: string, input: JsonObject = {}, extra: object = {}): Promise<Outcome> =>
  harness.engine.call({ principal: BOSS, entity, action, input, wait: 'end', ...extra });

async function read<T>(entity: string, action: string, input: JsonObject = {}): Promise<T> {
  const outcome = await ask(entity, action, input);
  if (outcome.kind !== 'result') throw new Error(`${action} is no read`);
  return outcome.output as T;
}

/** Runs a call to its end, with a person's approval where the guard wants one. */
async function run(entity: string, action: string, input: JsonObject): Promise<Outcome> {
  try {
    return await ask(entity, action, input);
  } catch (cause) {
    const { details } = cause as { details?: unknown };
    const { plan, confirmation } = (details ?? {}) as Partial<ConfirmationDetails>;
    if (plan === undefined || confirmation === undefined) throw cause;
    await harness.engine.approve({
      confirmation: confirmation.code,
      by: BOSS,
      via: 'terminal',
      typedTarget: plan.target,
    });
    return ask(entity, action, input, { token: confirmation.token });
  }
}

const operationOf = (outcome: Outcome) => {
  if (outcome.kind !== 'operation') throw new Error('no operation');
  return outcome.operation;
};

const list = (entity: string) => read<SnapshotList>(entity, 'list-snapshots').then(({ snapshots }) => snapshots);
const has = (entity: string, action: string): boolean => {
  const { defines } = harness.engine.entity(entity);
  return registry.actions.some((candidate) => candidate.name === action && candidate.on.includes(defines));
};
/** The name that an action gives to the id of a snapshot. */
const idParameter = (entity: string): string =>
  harness.engine.entity(entity).provider === 'gcp-cloud-sql' ? 'backup_id' : 'snapshot_id';

describePostgres('one consistent story', () => {
  beforeAll(async () => {
    fleet = await startGuardedFleet();
    harness = await startHarness({ modules, entities: fleet.entities, secrets: fleet.secrets });
  }, 60_000);
  afterAll(async () => {
    await harness?.close();
    await fleet?.close();
  });

  it('has a way to look into every database that can be restored', () => {
    const restorable = fleet.entities.filter(({ key }) => has(key, 'restore')).map(({ key }) => key);
    expect(Object.keys(contents).sort()).toEqual(restorable.sort());
  });

  it.each(Object.keys(contents))('%s', { timeout: 60_000 }, async (entity) => {
    const content = contents[entity]!();
    const good = await content.read();

    // A snapshot is taken, listed, and is the newest.
    const files = new Set(fleet.redis.files.keys());
    const taken = operationOf(await ask(entity, 'create-snapshot')).result as unknown as RecoveryPoint;
    expect(taken.status).toBe('available');
    const [first] = await list(entity);
    expect(first).toMatchObject({ id: taken.id, restorable: true });
    const info = await read<BackupInfo>(entity, 'get-backup-info');
    expect(info.newest?.created_at ?? info.newest?.data_at).toBe(first?.created_at ?? first?.data_at);
    if (has(entity, 'describe-snapshot')) {
      expect(await read(entity, 'describe-snapshot', { [idParameter(entity)]: taken.id })).toMatchObject({
        id: taken.id,
        restorable: true,
        created_at: first?.created_at,
      });
    }

    // Every way back that is offered can be planned, and says what it loses.
    const { options } = await read<{
      options: { call: { entity: string; action: string; input: JsonObject }; loses: string; moment: string }[];
    }>(entity, 'find-recovery-options', { entity });
    expect(options.length).toBeGreaterThan(0);
    for (const { call, loses } of options) {
      expect(loses).not.toBe('');
      if (JSON.stringify(call.input).includes('<file>')) continue;
      expect(await ask(call.entity, call.action, call.input, { dryRun: true })).toMatchObject({
        kind: 'plan',
        plan: { target: expect.any(String) },
      });
    }

    // The accident, and the way back.
    await content.spoil();
    const spoilt = await content.read();
    expect(spoilt).not.toEqual(good);
    const source = entity.includes('redis') ? redisSource(files) : { [idParameter(entity)]: taken.id };
    const restored = operationOf(await run(entity, 'restore', source));
    expect(restored.status).toBe('succeeded');
    expect(await content.read()).toEqual(good);
    const handle = statusInput(entity, restored.result as JsonObject);
    expect(RestoreJob.parse(await read(entity, 'get-restore-status', handle))).toMatchObject({
      status: 'succeeded',
      usable: true,
    });

    // The undo takes the restore back: the spoilt data are there again.
    const undo = restored.undo as unknown as { entity: string; action: string; input: JsonObject };
    expect(undo.entity).toBe(entity);
    if (!JSON.stringify(undo.input).includes('<file>')) {
      expect(operationOf(await run(undo.entity, undo.action, undo.input)).status).toBe('succeeded');
      expect(await content.read()).toEqual(spoilt);
    }

    // What is deleted is gone, from the list and to look at.
    if (has(entity, 'delete-snapshot')) {
      await run(entity, 'delete-snapshot', { [idParameter(entity)]: taken.id });
      const left = await list(entity);
      expect(left.map(({ id }) => id)).not.toContain(taken.id);
      const { newest } = await read<BackupInfo>(entity, 'get-backup-info');
      expect(newest?.id).toBe(left.find(({ restorable }) => restorable)?.id);
      await expect(read(entity, 'describe-snapshot', { [idParameter(entity)]: taken.id })).rejects.toMatchObject({
        code: expect.stringMatching(/^(SNAPSHOT|BACKUP)_NOT_FOUND$/),
      });
    }
  });
});

/** The files, one a shard, that the backup just taken made in the simulated bucket. */
function redisSource(before: ReadonlySet<string>): JsonObject {
  const made = [...fleet.redis.files.keys()].filter((name) => !before.has(name));
  return { source_type: 'aws-s3', source_uri: made };
}

function statusInput(entity: string, result: JsonObject): JsonObject {
  const id = String(result['job_id'] ?? result['task_id']);
  const { provider } = harness.engine.entity(entity);
  if (provider === 'gcp-cloud-sql') return { operation_name: id };
  return provider === 'redis-cloud' ? { task_id: id } : { job_id: id };
}
