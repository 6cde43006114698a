import type { JsonObject } from '../../src/core/json.ts';
import { isGuarded } from '../../src/core/risk.ts';
import type { BackupInfo } from '../../src/core/schemas.ts';
import type { Engine } from '../../src/engine/api.ts';
import { type GuardedFleet, guardedCases, newestSnapshot, registry, type SimulatedFleet } from './guarded-fleet.ts';
import { BOSS } from './harness.ts';

/** A call that changes something and can run, on the guarded fleet. */
export interface MutatingCall {
  /** `redis-cloud/restore on sandbox/redis-pro`, with what is special about it. */
  readonly name: string;
  readonly action: string;
  readonly entity: string;
  readonly provider: string;
  readonly guarded: boolean;
  /** What it does once it has succeeded. */
  readonly effect: 'snapshot' | 'restore' | 'delete' | 'none';
  /** Whether it outlives its call. */
  readonly isOperation: boolean;
  prepare(engine: Engine): Promise<JsonObject>;
}

const EFFECTS: Record<string, MutatingCall['effect']> = {
  'create-snapshot': 'snapshot',
  restore: 'restore',
  'delete-snapshot': 'delete',
  'verify-snapshot': 'none',
};

interface Plain {
  readonly action: string;
  readonly with: string;
  prepare(engine: Engine, entity: string): Promise<JsonObject>;
}

async function latestMoment(engine: Engine, entity: string): Promise<string> {
  const outcome = await engine.call({ principal: BOSS, entity, action: 'get-backup-info', input: {} });
  const info = outcome.kind === 'result' ? (outcome.output as BackupInfo) : undefined;
  return String(info?.pitr.window?.latest_at);
}

let counter = 0;
const fresh = (prefix: string): string => {
  counter += 1;
  return `${prefix}-${process.pid}-${counter}`;
};

/** Calls that need no confirmation; without a line here an action is called with its example. */
const PLAIN: Record<string, Plain[]> = {
  'gcp-cloud-sql/restore': [
    {
      action: 'restore',
      with: 'a backup into a new instance',
      prepare: async (engine, entity) => ({
        backup_id: await newestSnapshot(engine, entity),
        target_instance: fresh('from-backup'),
      }),
    },
    {
      action: 'restore',
      with: 'a moment into a new instance',
      prepare: async (engine, entity) => ({
        restore_timestamp: await latestMoment(engine, entity),
        target_instance: fresh('from-moment'),
      }),
    },
  ],
  'postgresql/restore': [
    {
      action: 'restore',
      with: 'into a new database',
      prepare: async (engine, entity) => ({
        snapshot_id: await newestSnapshot(engine, entity),
        target_database: fresh('copy').replaceAll('-', '_'),
      }),
    },
  ],
  'postgresql/verify-snapshot': [
    {
      action: 'verify-snapshot',
      with: 'restored to scratch',
      prepare: async (engine, entity) => ({ snapshot_id: await newestSnapshot(engine, entity), level: 'restored' }),
    },
  ],
  'redis-cloud/create-snapshot': [{ action: 'create-snapshot', with: '', prepare: async () => ({}) }],
};

/** Every way in which every action of every entity of the fleet changes something: guarded ones, then the others. */
export function mutatingCalls(fleet: () => GuardedFleet): MutatingCall[] {
  const guarded = guardedCases(fleet).map((one): MutatingCall => {
    const [provider = '', action = ''] = one.action.split('/');
    return {
      name: `${one.action}, guarded, on ${one.entity}`,
      action,
      provider,
      entity: one.entity,
      guarded: true,
      effect: EFFECTS[action] ?? 'none',
      isOperation: isOperation(provider, action),
      prepare: async (engine) => (await one.prepare(engine)).input,
    };
  });
  const plain = registry.actions
    .filter((action) => action.risk !== 'read' && !isGuarded(action.risk))
    .flatMap((action) =>
      entitiesOf(action.on).flatMap((entity) => {
        const key = `${action.provider.id}/${action.name}`;
        const ways = PLAIN[key] ?? [{ action: action.name, with: '', prepare: async () => action.example }];
        return ways.map(
          (way): MutatingCall => ({
            name: `${key}${way.with === '' ? '' : `, ${way.with},`} on ${entity}`,
            action: action.name,
            provider: action.provider.id,
            entity,
            guarded: false,
            effect: EFFECTS[action.name] ?? 'none',
            isOperation: action.steps !== undefined,
            prepare: (engine) => way.prepare(engine, entity),
          }),
        );
      }),
    );
  return [...guarded, ...plain];
}

function isOperation(provider: string, action: string): boolean {
  return registry.actions.some((one) => one.provider.id === provider && one.name === action && one.steps !== undefined);
}

/** The entities of the fleet that are of one of these types. */
export function entitiesOf(types: readonly string[]): string[] {
  return types.flatMap((defines) => {
    const type = registry.entityTypes.get(defines)?.type;
    if (type?.sandbox !== undefined) return [`sandbox/${type.sandbox.name}`];
    return defines === 'postgresql/server' ? ['sandbox/postgresql'] : [];
  });
}

/** What there is at a simulated provider: backups made and restores begun, whatever anyone was told. */
export function tally(fleet: SimulatedFleet, entity: string): { snapshots: number; restores: number } {
  if (entity === 'sandbox/mongodb-atlas') {
    return {
      snapshots: fleet.atlas.cluster('sandbox-cluster').snapshots.length,
      restores: fleet.atlas.jobs.length,
    };
  }
  if (entity === 'sandbox/gcp-cloud-sql') {
    return {
      snapshots: fleet.cloudSql.runs.filter(({ status }) => status !== 'DELETION_PENDING').length,
      restores: fleet.cloudSql.operations.filter(({ type }) => type === 'RESTORE_VOLUME' || type === 'CLONE').length,
    };
  }
  const type = [...registry.entityTypes.values()].find(
    ({ type: { sandbox } }) => `sandbox/${sandbox?.name}` === entity,
  );
  const database = Number(type?.type.sandbox?.parameters['database_id']);
  const tasks = [...fleet.redis.tasks.values()].filter(({ resourceId }) => resourceId === database);
  return {
    snapshots: tasks.filter(({ commandType }) => commandType === 'databaseBackupRequest').length,
    restores: tasks.filter(({ commandType }) => commandType === 'databaseImportRequest').length,
  };
}

/** Repeatable numbers from 0 to 1. */
export function dice(seed: string): () => number {
  let state = [...seed].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) >>> 0, 7);
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
