import { z } from 'zod';
import { defineAction } from '../../src/core/action.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import type { Recovery } from '../../src/core/operation.ts';
import { defineProvider, type PermissionState, type RecoveryOption } from '../../src/core/provider.ts';
import { SnapshotList } from '../../src/core/schemas.ts';

/**
 * A provider for tests of the engine and the guard alone: a shelf of text that can be read, snapshotted, overwritten and
 * deleted, with every write counted, and switches for what may go wrong.
 */
export interface Shelf {
  content: string;
  /** Bumped by whoever changes the target's identity. */
  version: number;
  snapshots: Map<string, string>;
  writes: string[];
  /** Called inside the write of `restore`; throw or wait here. */
  during: (() => Promise<void>) | undefined;
  /** Whether the write of `restore` arrived; recover looks here. */
  arrived: boolean;
  followRounds: number;
  /** Answers in place of the usual look-up. */
  recovery: (() => Promise<Recovery>) | undefined;
  /** Called while the safety snapshot is taken. */
  safety: (() => Promise<void>) | undefined;
  /** What `abandon` says, or how it fails. */
  abandoned: string | Error;
  /** The ways back that the provider names. */
  options: RecoveryOption[];
  /** How listing fails. */
  listing: HoldfastError | undefined;
  /** What the credentials may do; undefined where the shelf cannot be asked. */
  granted: Readonly<Record<string, PermissionState>> | undefined;
}

export function newShelf(): Shelf {
  return {
    content: 'live',
    version: 1,
    snapshots: new Map([['s1', 'old']]),
    writes: [],
    during: undefined,
    arrived: false,
    followRounds: 0,
    recovery: undefined,
    safety: undefined,
    abandoned: '',
    options: [],
    listing: undefined,
    granted: undefined,
  };
}

/** Builds the toy provider's actions round one shelf. */
export function toyModule(shelf: Shelf) {
  const provider = defineProvider<{ shelf: string }, Shelf>({
    id: 'toy',
    title: 'Toy shelf',
    entityTypes: {
      'toy/shelf': { title: 'a shelf', schema: z.object({ shelf: z.string() }), ignored: [], example: { shelf: 'a' } },
    },
    cannot: {
      'describe-snapshot': 'list them',
      'get-restore-status': 'use get-operation',
      'get-backup-info': 'there is none',
    },
    limits: { per_second: 1000, burst: 1000, concurrent: 100, timeout_ms: 1000 },
    connect: async () => shelf,
    recoveryOptions: async () => shelf.options,
    guide: async () => ({
      behaviour: ['A shelf holds one text.'],
      limits: ['None.'],
      credentials: ['none are needed'],
      permissions: {
        '*': ['shelf.see'],
        'list-snapshots': ['shelf.list'],
        'create-snapshot': ['shelf.copy'],
        'delete-snapshot': ['shelf.drop'],
        restore: ['shelf.copy', 'shelf.write'],
      },
      grant: 'shelf role',
      policy: (permissions, entity) =>
        [`shelf: ${String(entity?.['shelf'])}`, 'allow:', ...permissions.map((name) => `  - ${name}`)].join('\n'),
    }),
    ...(shelf.granted === undefined ? {} : { grants: async () => shelf.granted ?? {} }),
    discover: async ({ access, runtime, endpoint }) => {
      if (access['shelf'] === undefined) return undefined;
      // What looks around writes nothing, whatever it tries.
      if (access['shelf'] === 'new') runtime.assertMayWrite('a shelf');
      return {
        looked: `shelves at ${endpoint ?? 'home'}`,
        found: [{ defines: 'toy/shelf', name: 'found', parameters: { shelf: 'a' }, notes: ['not protected'] }],
        problems: [],
      };
    },
    toError: (cause) => new HoldfastError('PROVIDER_UNAVAILABLE', 'the shelf failed', { cause }),
  });

  const facts = () => ({ target: { version: shelf.version } });

  const listSnapshots = defineAction({
    provider,
    name: 'list-snapshots',
    title: 'List',
    summary: 'Lists.',
    risk: 'read',
    input: z.object({}),
    output: SnapshotList,
    errors: [],
    source: 'toy',
    example: {},
    run: async () => {
      if (shelf.listing !== undefined) throw shelf.listing;
      return {
        snapshots: [...shelf.snapshots.keys()].map((id) => ({
          id,
          kind: 'on_demand',
          status: 'available',
          restorable: true,
        })),
      };
    },
  });

  const createSnapshot = defineAction({
    provider,
    name: 'create-snapshot',
    title: 'Create',
    summary: 'Creates.',
    risk: 'create',
    input: z.object({ snapshot_id: z.string() }),
    output: z.object({ id: z.string() }),
    errors: [],
    source: 'toy',
    example: { snapshot_id: 'x' },
    run: async (context, { snapshot_id }) => {
      context.runtime.assertMayWrite('create');
      shelf.writes.push(`create ${snapshot_id}`);
      shelf.snapshots.set(snapshot_id, shelf.content);
      return { id: snapshot_id };
    },
  });

  const deleteSnapshot = defineAction({
    provider,
    name: 'delete-snapshot',
    title: 'Delete',
    summary: 'Deletes.',
    risk: 'delete',
    input: z.object({ snapshot_id: z.string(), allow_last: z.boolean().optional() }),
    output: z.object({ deleted: z.string() }),
    errors: [],
    source: 'toy',
    example: { snapshot_id: 's1' },
    plan: async (_, { snapshot_id }) => {
      if (!shelf.snapshots.has(snapshot_id))
        throw new HoldfastError('SNAPSHOT_NOT_FOUND', `no snapshot ${snapshot_id}`);
      return {
        target: `shelf/${snapshot_id}`,
        loses: 'the snapshot',
        undo: 'none',
        last_restorable: shelf.snapshots.size === 1,
        facts: facts(),
      };
    },
    run: async (context, { snapshot_id }) => {
      context.runtime.assertMayWrite('delete');
      shelf.writes.push(`delete ${snapshot_id}`);
      shelf.snapshots.delete(snapshot_id);
      return { deleted: snapshot_id };
    },
  });

  const restore = defineAction({
    provider,
    name: 'restore',
    title: 'Restore',
    summary: 'Restores.',
    risk: 'overwrite',
    input: z.object({
      snapshot_id: z.string(),
      safety_snapshot: z.boolean().optional(),
      secret: z.string().meta({ secret: true }).optional(),
    }),
    output: z.object({ content: z.string() }),
    errors: [],
    source: 'toy',
    example: { snapshot_id: 's1' },
    plan: async (_, { snapshot_id }) => {
      if (!shelf.snapshots.has(snapshot_id))
        throw new HoldfastError('SNAPSHOT_NOT_FOUND', `no snapshot ${snapshot_id}`);
      return {
        target: 'shelf/live',
        source: snapshot_id,
        loses: 'what is live',
        undo: 'the safety snapshot',
        safety_snapshot: { possible: true },
        facts: facts(),
      };
    },
    safety: {
      steps: () => [
        {
          name: 'safety-snapshot',
          title: 'Taking a safety snapshot',
          kind: 'mutate',
          run: async (context) => {
            context.runtime.assertMayWrite('safety');
            shelf.writes.push('safety');
            await shelf.safety?.();
            shelf.snapshots.set('safety', shelf.content);
            return { id: 'safety' };
          },
        },
      ],
      undo: (results) => ({ action: 'restore', input: { snapshot_id: String(results['safety-snapshot']?.['id']) } }),
    },
    steps: () => [
      {
        name: 'restore',
        title: 'Restoring',
        kind: 'mutate',
        run: async (context) => {
          context.runtime.assertMayWrite('restore');
          await context.checkpoint({ asked: true });
          shelf.writes.push('restore');
          await shelf.during?.();
          shelf.arrived = true;
          shelf.content = shelf.snapshots.get(context.input.snapshot_id) ?? '';
          return { done: true };
        },
        recover: async () =>
          shelf.recovery?.() ?? (shelf.arrived ? { state: 'done', result: { done: true } } : { state: 'not_begun' }),
        abandon: async () => {
          if (shelf.abandoned instanceof Error) throw shelf.abandoned;
          return shelf.abandoned;
        },
      },
      {
        name: 'wait',
        title: 'Waiting',
        kind: 'follow',
        run: async (context) => {
          for (let round = 0; round < shelf.followRounds; round += 1) {
            context.progress({ message: `round ${round}`, percent: (round / shelf.followRounds) * 100 });
            await context.runtime.sleep(100, context.signal);
          }
          return {};
        },
      },
    ],
    result: () => ({ content: shelf.content }),
  });

  return { listSnapshots, createSnapshot, deleteSnapshot, restore };
}
