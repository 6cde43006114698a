import { afterAll, beforeAll, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import { type BackupInfo, type RecoveryPoint, RestoreJob, type SnapshotList } from '../../src/core/schemas.ts';
import type { ConfirmationDetails, Outcome } from '../../src/engine/api.ts';
import { COSMOS_SANDBOX } from '../../src/simulators/azure-cosmos.ts';
import { FIRESTORE_SANDBOX } from '../../src/simulators/gcp-firestore.ts';
import { parametersOf } from '../../src/surfaces/parameters.ts';
import { type GuardedFleet, modules, registry, startGuardedFleet } from '../support/guarded-fleet.ts';
import { BOSS, type Harness, startHarness } from '../support/harness.ts';
import { describePostgres, sql, values } from '../support/postgres.ts';

// Each database tells one story from end to end, through the engine and its guard: what is listed can be described and
// restored, a restore brings the data back, its undo takes it away again, and what is deleted is gone.

let fleet: GuardedFleet;
let harness: Harness;

/** How one database is looked into, and what its part in the story is. */
interface Content {
  /** What the database holds now, in any comparable form. */
  read(): Promise<unknown>;
  /** Changes it, as an accident would. */
  spoil(): Promise<void>;
  /** Input of create-snapshot. */
  readonly create?: JsonObject;
  /** Has the provider take a backup, where only the provider does. */
  backUp?(): void;
  /** What to restore, where it is not the snapshot alone. */
  source?(taken: RecoveryPoint | undefined): Promise<JsonObject> | JsonObject;
  /** Whether a listed snapshot is of this database, where the list has those of others too. */
  isOwn?(point: RecoveryPoint): boolean;
  /** Has time pass for the provider, where it holds a database up for a while after a restore. */
  rest?(): void;
  /** What a restore brought back beside the database; without it a restore replaces the database. */
  readBeside?(target: string): unknown;
}

const COPY = 'story-copy';
const now = (): number => fleet.provider.clock.now().getTime();

const contents: Record<string, () => Content> = {
  'sandbox/mongodb-atlas': () => ({
    read: async () => structuredClone(fleet.atlas.content('sandbox-cluster')),
    spoil: async () => {
      fleet.atlas.write('sandbox-cluster', { ruined: { everything: 1 } });
    },
  }),
  'sandbox/aws-rds': () => ({
    ...ofHistory(fleet.rds.instance('orders-postgres'), { ruined: 1 }),
    source: (taken) => ({ snapshot_id: taken!.id, target_id: COPY }),
    readBeside: (target) => fleet.rds.contentOf(fleet.rds.instance(target)),
  }),
  'sandbox/aws-rds-cluster': () => ({
    ...ofHistory(fleet.rds.cluster('shop-aurora'), { ruined: 1 }),
    source: (taken) => ({ snapshot_id: taken!.id, target_id: COPY }),
    readBeside: (target) => fleet.rds.contentOf(fleet.rds.cluster(target)),
  }),
  'sandbox/aws-dynamodb': () => ({
    ...ofHistory(fleet.dynamodb.tables.get('orders')!, { ruined: 'everything' }),
    source: (taken) => ({ backup_arn: taken!.id, target_table: COPY }),
    readBeside: (target) => fleet.dynamodb.tables.get(target)?.history.at(-1)?.content,
  }),
  'sandbox/azure-cosmos': () => {
    const life = fleet.cosmos.lives.find(({ instanceId }) => instanceId === COSMOS_SANDBOX.source)!;
    return {
      ...ofHistory(life, { ruined: { everything: 1 } }),
      // There are moments only, the last of them a minute ago: before the accident.
      source: async () => {
        const { pitr } = await read<BackupInfo>('sandbox/azure-cosmos', 'get-backup-info');
        const { source: source_id, location } = COSMOS_SANDBOX;
        return { source_id, location, restore_timestamp: pitr.window!.latest_at, target_id: COPY };
      },
      readBeside: (target) => fleet.cosmos.accounts.get(target)?.content,
    };
  },
  'sandbox/digitalocean': () => {
    const cluster = fleet.digitalocean.cluster('orders');
    return {
      ...ofHistory(cluster, { defaultdb: { ruined: 1 } }),
      backUp: () => {
        cluster.moreBackups.push({ at: now(), gigabytes: 0.5 });
      },
      source: (taken) => ({ backup_created_at: taken!.id, new_cluster_name: COPY }),
      readBeside: () => fleet.digitalocean.content(COPY),
    };
  },
  'sandbox/gcp-bigquery': () => {
    const table = () => fleet.bigQuery.tables.find(({ name }) => name === 'orders')!;
    return {
      read: async () => structuredClone(table().history.at(-1)?.content),
      spoil: async () => {
        table().history.push({ at: now(), content: { ruined: 1 } });
        table().version += 1;
      },
      create: { source_table: 'orders' },
      source: (taken) => ({ snapshot_table: taken!.id, target_table: 'orders' }),
    };
  },
  'sandbox/gcp-cloud-sql': () => {
    const instance = [...fleet.cloudSql.instances.values()].find(({ name }) => name === 'orders-db')!;
    return ofHistory(instance, { ruined: { everything: 1 } });
  },
  'sandbox/gcp-firestore': () => {
    const { project, database } = FIRESTORE_SANDBOX;
    return {
      ...ofHistory(fleet.firestore.databases.get(`${project}/${database}`)!, { ruined: { everything: '1' } }),
      backUp: () => {
        fleet.firestore.addBackup(database, now());
      },
      source: (taken) => ({ backup_name: taken!.id, target_database: COPY }),
      readBeside: (target) => fleet.firestore.databases.get(`${project}/${target}`)?.history.at(-1)?.content,
    };
  },
  'sandbox/neon': () => ({
    read: async () => structuredClone(fleet.neon.content('main')),
    spoil: async () => {
      fleet.neon.write('main', { ruined: { everything: 1 } });
    },
    // A restore from a snapshot makes another branch of this name.
    isOwn: ({ provider }) => provider?.['source_branch_id'] === fleet.neon.branch('main').id,
    rest: () => {
      fleet.neon.branch('main').restricted = [];
    },
  }),
  'sandbox/redis-essentials': () => redisContent('redis-essentials'),
  'sandbox/redis-pro': () => redisContent('redis-pro'),
  'sandbox/postgresql': () => ({
    read: async () => values(fleet.postgres.connection, 'shop', 'SELECT id FROM t ORDER BY id').catch(() => 'no table'),
    spoil: () => sql(fleet.postgres.connection, 'shop', 'DELETE FROM t WHERE id > 3'),
  }),
};

/** A database that is the last entry of its history. */
function ofHistory<T>(
  database: { readonly history: { at: number; content: T }[] },
  ruined: T,
): Pick<Content, 'read' | 'spoil'> {
  return {
    read: async () => structuredClone(database.history.at(-1)?.content),
    spoil: async () => {
      database.history.push({ at: now(), content: ruined });
    },
  };
}

function redisContent(name: string): Content {
  const type = [...registry.entityTypes.values()].find((candidate) => candidate.type.sandbox?.name === name);
  const database = fleet.redis.databases.get(Number(type?.type.sandbox?.parameters['database_id']))!;
  const before = new Set(fleet.redis.files.keys());
  return {
    read: async () => [...database.data].sort(),
    spoil: async () => {
      database.data.clear();
      database.data.set('ruined', 'x');
    },
    // The files, one a shard, that the backup just taken made in the simulated bucket.
    source: () => ({
      source_type: 'aws-s3',
      source_uri: [...fleet.redis.files.keys()].filter((file) => !before.has(file)),
    }),
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
/** The parameter by which an action takes the id of what it is about: its first one. */
function handleOf(entity: string, action: string): string {
  const { defines } = harness.engine.entity(entity);
  const found = registry.actions.find(({ name, on }) => name === action && on.includes(defines))!;
  return parametersOf(found)[0]!.name;
}

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
    let taken: RecoveryPoint | undefined;
    const info = () => read<BackupInfo>(entity, 'get-backup-info');
    if (has(entity, 'list-snapshots')) {
      content.backUp?.();
      if (content.backUp === undefined) {
        const made = operationOf(await ask(entity, 'create-snapshot', content.create)).result;
        taken = made as unknown as RecoveryPoint;
        expect(taken.status).toBe('available');
      }
      const [first] = await list(entity);
      taken ??= first!;
      expect(first).toMatchObject({ id: taken.id, restorable: true });
      const { newest } = await info();
      expect(newest?.created_at ?? newest?.data_at).toBe(first?.created_at ?? first?.data_at);
    } else {
      expect((await info()).pitr.window).toBeDefined();
    }
    if (has(entity, 'describe-snapshot')) {
      expect(
        await read(entity, 'describe-snapshot', { [handleOf(entity, 'describe-snapshot')]: taken!.id }),
      ).toMatchObject({ id: taken!.id, restorable: true, created_at: taken!.created_at });
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
    const source = (await content.source?.(taken)) ?? { [handleOf(entity, 'describe-snapshot')]: taken!.id };
    const restored = operationOf(await run(entity, 'restore', source));
    expect(restored.status).toBe('succeeded');
    const job = restored.result as JsonObject;
    const handle = handleOf(entity, 'get-restore-status');
    const id = job[handle] ?? (/^target_|^instance_id$/.test(handle) ? COPY : (job['job_id'] ?? job['task_id']));
    expect(RestoreJob.parse(await read(entity, 'get-restore-status', { [handle]: String(id) }))).toMatchObject({
      status: 'succeeded',
      usable: true,
    });
    if (content.readBeside === undefined) {
      expect(await content.read()).toEqual(good);
    } else {
      // What came back is beside the database, which nobody touched.
      expect(content.readBeside(COPY)).toEqual(good);
      expect(await content.read()).toEqual(spoilt);
      expect(restored.undo).toBeUndefined();
    }

    // The undo takes the restore back: the spoilt data are there again.
    // What keeps the old database itself instead of a snapshot of it names the way back in its result.
    const undo = (restored.undo ?? {
      entity,
      ...((job['provider'] as JsonObject)['undo'] as JsonObject),
    }) as unknown as {
      entity: string;
      action: string;
      input: JsonObject;
    };
    expect(undo.entity).toBe(entity);
    if (content.readBeside === undefined && !JSON.stringify(undo.input).includes('<file>')) {
      content.rest?.();
      expect(operationOf(await run(undo.entity, undo.action, undo.input)).status).toBe('succeeded');
      expect(await content.read()).toEqual(spoilt);
    }

    // What is deleted is gone, from the list and to look at.
    if (has(entity, 'delete-snapshot')) {
      const { id: gone } = taken!;
      await run(entity, 'delete-snapshot', { [handleOf(entity, 'delete-snapshot')]: gone });
      const left = await list(entity);
      expect(left.map(({ id }) => id)).not.toContain(gone);
      const own = left.filter((point) => point.restorable && (content.isOwn?.(point) ?? true));
      expect((await info()).newest?.id).toBe(own[0]?.id);
      await expect(
        read(entity, 'describe-snapshot', { [handleOf(entity, 'describe-snapshot')]: gone }),
      ).rejects.toMatchObject({ code: expect.stringMatching(/^(SNAPSHOT|BACKUP)_NOT_FOUND$/) });
    }
  });
});
