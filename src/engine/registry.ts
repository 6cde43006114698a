import type { Action, AnyAction, FleetAction } from '../core/action.ts';
import { HoldfastError } from '../core/errors.ts';
import {
  type EntityType,
  type Provider,
  SHARED_ACTIONS,
  type SharedAction,
  STANDARD_ACTIONS,
  type StandardAction,
} from '../core/provider.ts';
import { didYouMean } from '../core/text.ts';
import { settingsActions } from './settings.ts';

/** Everything that the declarations in `tools/` say, in the order in which they say it. */
export interface Registry {
  readonly providers: readonly Provider[];
  readonly actions: readonly Action[];
  readonly fleet: readonly FleetAction[];
  /** By what `defines:` names. */
  readonly entityTypes: ReadonlyMap<string, { readonly provider: Provider; readonly type: EntityType }>;
}

/**
 * Collects actions from modules of declarations: whatever they export that is an action is registered.
 * @throws {Error} on two actions of one name, or a standard action that is neither there nor in its provider's `cannot`
 */
export function collect(modules: Readonly<Record<string, Readonly<Record<string, unknown>>>>): Registry {
  // Node lists a module's exports by name, test runners as they are written: the order of the tools must not depend on it.
  const found = byName(modules).flatMap((module) => byName(module).filter(isAction));
  const declared = found.filter((action): action is Action => action.kind === 'provider');
  const fleet = found.filter((action): action is FleetAction => action.kind === 'fleet');
  const providers = [...new Set(declared.map((action) => action.provider))];
  // Each provider's own first, then what is made from its settings, so that the order is by provider.
  const actions = providers.flatMap((provider) => [
    ...declared.filter((action) => action.provider === provider),
    ...settingsActions(provider),
  ]);
  const entityTypes = new Map(
    providers.flatMap((provider) =>
      Object.entries(provider.entityTypes).map(([defines, type]) => [defines, { provider, type }] as const),
    ),
  );
  for (const provider of providers) {
    const own = actions.filter((action) => action.provider === provider);
    const names = own.flatMap((action) => [action.name, ...action.aliases]);
    const twice = names.find((name, index) => names.indexOf(name) !== index);
    if (twice !== undefined) throw new Error(`two actions of ${provider.id} are called ${twice}`);
    const absent = STANDARD_ACTIONS.find((name) => !names.includes(name) && provider.cannot[name] === undefined);
    if (absent !== undefined) throw new Error(`${provider.id} neither has ${absent} nor says why not`);
  }
  return { providers, actions, fleet, entityTypes };
}

/**
 * Finds the action that a name or an alias means for one entity.
 * @throws {HoldfastError} NOT_SUPPORTED with the provider's reason, INVALID_PARAMETER with what is close
 */
export function findAction(
  registry: Registry,
  name: string,
  entity: { key: string; defines: string } | undefined,
): AnyAction {
  const fleet = registry.fleet.find((action) => action.name === name);
  const isShared = entity !== undefined && (SHARED_ACTIONS as readonly string[]).includes(name);
  if (fleet !== undefined && !isShared) return fleet;
  if (entity === undefined) {
    const known = registry.actions.some((action) => action.name === name || action.aliases.includes(name));
    throw new HoldfastError(
      'INVALID_PARAMETER',
      known ? `the action '${name}' needs an entity` : `there is no action '${name}'`,
      {
        hint: known
          ? 'Name the entity as <namespace>/<name>.'
          : didYouMean(
              name,
              [...registry.fleet, ...registry.actions].map((action) => action.name),
            ),
      },
    );
  }
  const provider = registry.entityTypes.get(entity.defines)?.provider;
  const own = registry.actions.filter((action) => action.provider === provider && action.on.includes(entity.defines));
  const action = own.find((candidate) => candidate.name === name || candidate.aliases.includes(name));
  if (action !== undefined) return action;
  const reason = provider?.cannot[name as StandardAction | SharedAction];
  if (reason !== undefined)
    throw new HoldfastError('NOT_SUPPORTED', `${provider?.title} has no ${name}`, { hint: reason });
  const elsewhere = registry.actions.find((candidate) => candidate.provider === provider && candidate.name === name);
  if (elsewhere !== undefined) {
    throw new HoldfastError('NOT_SUPPORTED', `${name} is not an action of ${entity.defines}`, {
      hint: `It is one of ${elsewhere.on.join(', ')}.`,
    });
  }
  throw new HoldfastError('INVALID_PARAMETER', `there is no action '${name.slice(0, 60)}' for ${entity.key}`, {
    hint: didYouMean(
      name,
      [...own, ...registry.fleet].map((candidate) => candidate.name),
    ),
  });
}

function byName<T>(members: Readonly<Record<string, T>>): T[] {
  return Object.keys(members)
    .sort()
    .map((name) => members[name] as T);
}

function isAction(value: unknown): value is AnyAction {
  return (
    typeof value === 'object' &&
    value !== null &&
    ['provider', 'fleet'].includes(String((value as { kind?: unknown }).kind)) &&
    'input' in value
  );
}
