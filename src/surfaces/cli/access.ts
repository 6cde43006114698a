import type { Action } from '../../core/action.ts';
import type { EntityBase } from '../../core/context.ts';
import { asHoldfastError, type ErrorCode, HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Principal } from '../../core/principal.ts';
import type { PermissionState, ProviderGuide } from '../../core/provider.ts';
import type { Engine } from '../../engine/api.ts';
import { permissionsOf } from '../../engine/permissions.ts';
import { actionsOf } from './target.ts';

/** How many databases are asked at once. */
const AT_ONCE = 4;
/** How long one read may take, in ms. */
export const READ_LIMIT_MS = 20_000;
/** Reads about one thing that has to be named. */
const ABOUT_ONE: ReadonlySet<string> = new Set(['describe-snapshot', 'get-restore-status']);

export type Reach = 'reachable' | 'refused' | 'not_found' | 'not_reachable' | 'not_supported' | 'failed';

const REACH: Partial<Record<ErrorCode, Reach>> = {
  AUTHENTICATION_FAILED: 'refused',
  INSUFFICIENT_PERMISSIONS: 'refused',
  POLICY_DENIED: 'refused',
  RESOURCE_NOT_FOUND: 'not_found',
  PROVIDER_UNAVAILABLE: 'not_reachable',
  TIMEOUT: 'not_reachable',
  RATE_LIMITED: 'not_reachable',
  NOT_SUPPORTED: 'not_supported',
  CLUSTER_TIER_NOT_SUPPORTED: 'not_supported',
};

// After these every other read would end the same, some of them only after all their retries.
const FINAL: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'AUTHENTICATION_FAILED',
  'CONFIG_INVALID',
  'RESOURCE_NOT_FOUND',
  'PROVIDER_UNAVAILABLE',
  'TIMEOUT',
  'RATE_LIMITED',
]);

/** One read and what came of it. */
export interface ReadProbe {
  readonly action: string;
  readonly state: Reach;
  readonly error?: HoldfastError | undefined;
}

/** What the credentials may do with one action. */
export interface ActionAccess {
  readonly action: string;
  readonly reads: boolean;
  readonly state: PermissionState;
  /** Permissions that the provider refuses. */
  readonly lacks: readonly string[];
}

/** What was found out about one database by reading. */
export interface EntityAccess {
  readonly entity: EntityBase;
  readonly state: Reach;
  readonly reads: readonly ReadProbe[];
  /** Whether the provider told which permissions the credentials have. */
  readonly asked: boolean;
  readonly actions: readonly ActionAccess[];
  readonly guide: ProviderGuide | undefined;
}

export interface ProbeOptions {
  readonly engine: Engine;
  readonly entities: readonly EntityBase[];
  readonly principal: Principal;
  readonly signal: AbortSignal;
  /** Told before each database, with how many are done. */
  readonly onEntity: (entity: EntityBase, done: number) => void;
  readonly limitMs?: number | undefined;
}

/**
 * Finds out by reading what the credentials of each database reach and may do, a few databases at a time.
 * @throws {HoldfastError} CANCELLED once the signal is aborted
 */
export async function probeEntities(options: ProbeOptions): Promise<EntityAccess[]> {
  const { entities, onEntity } = options;
  const found = new Map<string, EntityAccess>();
  const waiting = [...entities];
  const work = async (): Promise<void> => {
    for (let entity = waiting.shift(); entity !== undefined; entity = waiting.shift()) {
      onEntity(entity, found.size);
      found.set(entity.key, await probeEntity(options, entity));
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, entities.length) }, work));
  return entities.flatMap((entity) => found.get(entity.key) ?? []);
}

async function probeEntity(options: ProbeOptions, entity: EntityBase): Promise<EntityAccess> {
  const { engine, principal } = options;
  const actions = actionsOf(engine, entity);
  // Without its guide the rest is still worth knowing.
  const guide = await actions[0]?.provider.guide?.().catch(() => undefined);
  const reads: ReadProbe[] = [];
  for (const { name, input } of readsOf(actions)) {
    const given: JsonObject = 'limit' in input.shape ? { limit: 1 } : {};
    const error = await failureOf(options, (signal) =>
      engine.call({ principal, entity: entity.key, action: name, input: given, signal }),
    );
    // It wants something after all.
    if (error?.code === 'INVALID_PARAMETER') continue;
    reads.push({ action: name, state: error === undefined ? 'reachable' : reachOf(error), error });
    if (error !== undefined && FINAL.has(error.code)) break;
  }
  const isReached = reads.every(({ error }) => error === undefined || !FINAL.has(error.code));
  let answer: Readonly<Record<string, PermissionState>> | undefined;
  if (guide !== undefined && isReached) {
    const permissions = [...new Set(actions.flatMap(({ name }) => permissionsOf(guide, name)))];
    const error = await failureOf(options, async (signal) => {
      answer = await engine.access({ principal, entity: entity.key, permissions, signal });
    });
    // That the question itself is refused says nothing about the permissions.
    if (error !== undefined && error.code !== 'INSUFFICIENT_PERMISSIONS')
      reads.push({ action: 'check-permissions', state: reachOf(error), error });
  }
  return {
    entity,
    state: stateOf(reads),
    reads,
    asked: answer !== undefined,
    actions: actions.map((action) => accessOf(action, guide, answer, reads)),
    guide,
  };
}

/** The reads that need nothing to be named, the plainest first. */
function readsOf(actions: readonly Action[]): Action[] {
  const reads = actions.filter(
    ({ name, risk, upTo, input }) =>
      risk === 'read' && upTo === 'read' && !ABOUT_ONE.has(name) && input.safeParse({}).success,
  );
  return reads.sort((a, b) => Number(b.name === 'get-backup-info') - Number(a.name === 'get-backup-info'));
}

/** Gives what a read failed with; one that takes too long has not reached anything, whether it minds the signal or not. */
async function failureOf(
  { signal, limitMs = READ_LIMIT_MS }: ProbeOptions,
  read: (signal: AbortSignal) => Promise<unknown>,
): Promise<HoldfastError | undefined> {
  const limit = AbortSignal.timeout(limitMs);
  const both = AbortSignal.any([signal, limit]);
  const ended = Promise.withResolvers<never>();
  const end = (): void => ended.reject(both.reason);
  both.addEventListener('abort', end, { once: true });
  try {
    both.throwIfAborted();
    await Promise.race([read(both), ended.promise]);
    return undefined;
  } catch (cause) {
    if (signal.aborted) throw new HoldfastError('CANCELLED', 'the check was interrupted', { cause });
    if (!limit.aborted) return asHoldfastError(cause);
    return new HoldfastError('TIMEOUT', `there was no answer within ${limitMs / 1000} s`, {
      cause,
      hint: 'Check the network between this machine and the provider, a proxy or firewall among it, and endpoint where it is set.',
    });
  } finally {
    both.removeEventListener('abort', end);
  }
}

function reachOf({ code }: HoldfastError): Reach {
  return REACH[code] ?? 'failed';
}

function stateOf(reads: readonly ReadProbe[]): Reach {
  // A backup store may answer where the database does not.
  const final = reads.find(({ error }) => error !== undefined && FINAL.has(error.code));
  if (final !== undefined) return final.state;
  return reads.find(({ state }) => state === 'reachable')?.state ?? reads[0]?.state ?? 'not_supported';
}

function accessOf(
  { name, risk }: Action,
  guide: ProviderGuide | undefined,
  answer: Readonly<Record<string, PermissionState>> | undefined,
  reads: readonly ReadProbe[],
): ActionAccess {
  const needs = guide === undefined ? [] : permissionsOf(guide, name);
  const lacks = needs.filter((permission) => answer?.[permission] === 'refused');
  const probe = reads.find(({ action }) => action === name);
  const common = { action: name, reads: risk === 'read', lacks };
  // What was tried is known, whatever the provider says about it.
  if (probe?.state === 'reachable') return { ...common, state: 'granted', lacks: [] };
  if (probe?.error?.code === 'INSUFFICIENT_PERMISSIONS') return { ...common, state: 'refused' };
  if (lacks.length > 0) return { ...common, state: 'refused' };
  // Without a row of its own nothing is known of what it needs; with an empty one it needs nothing.
  const hasRow = guide !== undefined && Object.hasOwn(guide.permissions, name);
  const known = hasRow && needs.every((needed) => answer?.[needed] === 'granted');
  return { ...common, state: known ? 'granted' : 'unknown' };
}
