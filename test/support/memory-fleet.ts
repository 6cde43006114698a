import { randomBytes } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { type AnyAction, defineAction, defineFleetAction } from '../../src/core/action.ts';
import { asHoldfastError, HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import { DEFAULT_POLICY, type PolicyConfig } from '../../src/core/policy.ts';
import { defineProvider, type Provider } from '../../src/core/provider.ts';
import type { Log } from '../../src/core/runtime.ts';
import { InstantInput, ListInput, OperationView, RecoveryPoint, SnapshotList } from '../../src/core/schemas.ts';
import type { Engine } from '../../src/engine/api.ts';
import { createEngine } from '../../src/engine/engine.ts';
import { collect } from '../../src/engine/registry.ts';
import { createRedactor } from '../../src/observability/redaction.ts';
import { openSqliteStore } from '../../src/state/sqlite.ts';

/** What the databases of the memory fleet hold, for a test to look at and to change behind the engine's back. */
export interface MemoryWorld extends EventEmitter {
  state: string;
  snapshots: { id: string; created_at: string }[];
  restored: string[];
  deleted: string[];
  /** A restore waits for the event `go` when set. */
  hold: boolean;
  /** A list of snapshots waits for the event `go` when set, deaf to every signal. */
  silent: boolean;
}

export interface MemoryFleet {
  readonly engine: Engine;
  readonly world: MemoryWorld;
  readonly logged: { message: string; fields: JsonObject | undefined }[];
  close(): Promise<void>;
}

interface Client {
  readonly world: MemoryWorld;
}

const Entity = z.object({});

function declare(world: MemoryWorld): Record<string, AnyAction> {
  const provider: Provider<unknown, Client> = defineProvider({
    id: 'memory-db',
    title: 'Memory',
    entityTypes: {
      'memory-db/database': { title: 'A database in memory', schema: Entity, ignored: [], example: {} },
    },
    cannot: {
      'create-snapshot': 'Use something real.',
      'describe-snapshot': 'Use list-snapshots.',
      'get-backup-info': 'There is nothing to tell.',
      'get-restore-status': 'Use get-operation.',
    },
    limits: { per_second: 1000, burst: 1000, concurrent: 10, timeout_ms: 1000 },
    connect: async () => ({ world }),
    recoveryOptions: async () => [],
    guide: async () => ({
      behaviour: ['A restore replaces the whole database.'],
      limits: ['At most 2 snapshots are remembered.'],
      credentials: ['None: it is this process.'],
      permissions: { '*': ['memory.read'], restore: ['memory.write'], watch: [], 'no-such-action': ['memory.never'] },
      grant: 'memory policy',
      policy: (permissions) => `allow ${permissions.join(' ')}`,
    }),
    toError: asHoldfastError,
  });
  const snapshot_id = z.string().min(1);
  const find = (id: string) => {
    const snapshot = world.snapshots.find((candidate) => candidate.id === id);
    if (snapshot === undefined) throw new HoldfastError('SNAPSHOT_NOT_FOUND', `there is no snapshot '${id}'`);
    return snapshot;
  };
  return {
    listSnapshots: defineAction({
      provider,
      name: 'list-snapshots',
      aliases: ['list-backups'],
      title: 'List snapshots',
      summary: 'Lists the snapshots, newest first.',
      risk: 'read',
      input: z.object(ListInput),
      output: SnapshotList,
      errors: [],
      source: 'memory',
      example: {},
      run: async () => {
        if (world.silent) {
          world.emit('asked');
          await once(world, 'go');
        }
        return {
          snapshots: world.snapshots.map(({ id, created_at }) => ({
            id,
            kind: 'on_demand',
            status: 'available',
            created_at,
            restorable: true,
          })),
        };
      },
    }),
    deleteSnapshot: defineAction({
      provider,
      name: 'delete-snapshot',
      title: 'Delete a snapshot',
      summary: 'Deletes one snapshot for good.',
      risk: 'delete',
      input: z.object({ snapshot_id }),
      output: z.object({ deleted: z.string() }),
      errors: ['SNAPSHOT_NOT_FOUND'],
      source: 'memory',
      example: { snapshot_id: 's1' },
      plan: async ({ entity }, input) => ({
        target: `${entity.name}/${find(input.snapshot_id).id}`,
        loses: 'this snapshot',
        undo: 'none',
        facts: { target: { id: input.snapshot_id } },
      }),
      run: async (_context, input) => {
        world.snapshots = world.snapshots.filter(({ id }) => id !== input.snapshot_id);
        world.deleted.push(input.snapshot_id);
        return { deleted: input.snapshot_id };
      },
    }),
    restore: defineAction({
      provider,
      name: 'restore',
      title: 'Restore a snapshot over the database',
      summary: 'Replaces the database with a snapshot; everything written since is lost. Follow the operation.',
      risk: 'overwrite',
      input: z.object({
        snapshot_id,
        restore_timestamp: InstantInput.optional(),
        mode: z.enum(['fast', 'careful']).default('careful'),
        safety_snapshot: z.boolean().optional(),
      }),
      output: z.object({ restored: z.string() }),
      errors: ['SNAPSHOT_NOT_FOUND'],
      source: 'memory',
      example: { snapshot_id: '$newest' },
      plan: async ({ entity }, input) => ({
        target: `memory/${entity.name}`,
        source: find(input.snapshot_id).id,
        loses: `every write after ${find(input.snapshot_id).created_at}`,
        since: find(input.snapshot_id).created_at,
        undo: 'none: memory forgets',
        alternatives: [
          {
            title: 'look at the other snapshots',
            risk: 'read',
            call: { entity: entity.key, action: 'list-snapshots', input: { limit: 5 } },
          },
        ],
        facts: { target: { name: entity.name, state: world.state }, source: { id: input.snapshot_id } },
      }),
      steps: () => [
        {
          name: 'restore',
          title: 'Restoring',
          kind: 'mutate',
          run: async (context) => {
            context.progress({ percent: 20, message: 'copying' });
            context.progress({ percent: 10, message: 'copying a little less than thought' });
            context.progress({ message: 'copying still' });
            if (world.hold) {
              world.emit('held');
              await once(world, 'go', { signal: context.signal });
            }
            context.progress({ percent: 90, message: 'switching' });
            world.restored.push(context.input.snapshot_id);
            return { restored: context.input.snapshot_id };
          },
        },
      ],
      result: (results) => ({ restored: String(results['restore']?.['restored']) }),
    }),
    watch: defineAction({
      provider,
      name: 'watch',
      title: 'Watch',
      summary: 'Reads for as long as the caller waits.',
      risk: 'read',
      input: z.object({}),
      output: z.object({}),
      errors: [],
      source: 'memory',
      example: {},
      run: async ({ signal }) => {
        world.emit('watching');
        if (!signal.aborted) await once(signal, 'abort');
        world.emit('aborted');
        throw new HoldfastError('CANCELLED', 'the call was cancelled');
      },
    }),
    explode: defineAction({
      provider,
      name: 'explode',
      title: 'Explode',
      summary: 'Fails as no code should.',
      risk: 'read',
      input: z.object({}),
      output: RecoveryPoint,
      errors: [],
      source: 'memory',
      example: {},
      run: async () => {
        throw new Error('password=hunter2 at /home/someone');
      },
    }),
    listDatabases: defineFleetAction({
      name: 'list-databases',
      title: 'List databases',
      summary: 'Lists the configured databases.',
      input: z.object({}),
      output: z.object({ databases: z.array(z.object({ entity: z.string(), defines: z.string() })) }),
      errors: [],
      example: {},
      run: async (context) => ({
        databases: context.entities().map(({ key, defines }) => ({ entity: key, defines })),
      }),
    }),
    waitOperation: defineFleetAction({
      name: 'wait-operation',
      title: 'Wait for an operation',
      summary: 'Waits until an operation is over or the time has passed.',
      input: z.object({ operation_id: z.string(), timeout_seconds: z.number().int().max(300).optional() }),
      output: OperationView,
      errors: ['OPERATION_NOT_FOUND'],
      example: { operation_id: 'op_1' },
      run: async (context, input) =>
        context.view(await context.waitOperation(input.operation_id, (input.timeout_seconds ?? 60) * 1000)),
    }),
  };
}

/** Opens the real engine, guard and state store over a provider that lives in memory; no sockets, fast. */
export async function openMemoryFleet(
  options: { policy?: Partial<PolicyConfig>; sandbox?: boolean; graceMs?: number } = {},
): Promise<MemoryFleet> {
  const world: MemoryWorld = Object.assign(new EventEmitter(), {
    state: 'ready',
    snapshots: [
      { id: 's2', created_at: '2026-11-20T10:00:00.000Z' },
      { id: 's1', created_at: '2026-11-19T10:00:00.000Z' },
    ],
    restored: [],
    deleted: [],
    hold: false,
    silent: false,
  });
  const logged: MemoryFleet['logged'] = [];
  const keep = (message: string, fields?: JsonObject): void => void logged.push({ message, fields });
  const log: Log = { debug: () => {}, info: () => {}, warn: keep, error: keep };
  const stateDirectory = await mkdtemp(join(tmpdir(), 'holdfast-mcp-'));
  const store = await openSqliteStore(join(stateDirectory, 'state.db'));
  const bases = ['orders', 'carts'].map((name) => ({
    key: `shop/${name}`,
    namespace: 'shop',
    name,
    defines: 'memory-db/database',
    provider: 'memory-db',
    labels: { env: 'test' },
    objectives: {},
  }));
  const engine = createEngine({
    version: '0.0.0-test',
    registry: collect({ memory: declare(world) }),
    entities: bases.map((base) => ({ base, resolve: async () => ({ ...base }) })),
    policy: { ...DEFAULT_POLICY, ...options.policy },
    store,
    stateDirectory,
    sandbox: options.sandbox ?? false,
    redactor: createRedactor() as never,
    secrets: {
      secret: async (ref) => {
        throw new HoldfastError('AUTHENTICATION_FAILED', `no secret '${ref.name}'`);
      },
      credential: () => undefined,
    },
    log,
    fetch: globalThis.fetch,
    now: () => new Date(),
    sleep: (ms) => new Promise((resolve) => setTimeout(resolve, Math.min(ms, 20))),
    random: randomBytes,
    graceMs: options.graceMs ?? 2000,
  });
  return {
    engine,
    world,
    logged,
    close: async () => {
      world.emit('go');
      await engine.close();
      await rm(stateDirectory, { recursive: true, force: true });
    },
  };
}
