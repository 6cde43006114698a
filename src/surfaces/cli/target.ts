import type { Action, AnyAction, FleetAction } from '../../core/action.ts';
import type { EntityBase } from '../../core/context.ts';
import { asHoldfastError, HoldfastError } from '../../core/errors.ts';
import { cleanText, didYouMean } from '../../core/text.ts';
import type { Engine } from '../../engine/api.ts';
import { parametersOf } from '../parameters.ts';
import { unknownWord } from './context.ts';

/** What the path of a `do` names. */
export interface Target {
  readonly action: AnyAction;
  /** The entity of the call; undefined for actions across all entities. */
  readonly entity: string | undefined;
  /** What the path says about parameters: the entity of a fleet action. */
  readonly filled: Readonly<Record<string, string>>;
}

/** Gives the actions that one entity has, in the order of the registry. */
export function actionsOf(engine: Engine, entity: EntityBase): Action[] {
  return engine
    .actions()
    .filter((action): action is Action => action.kind === 'provider' && action.on.includes(entity.defines));
}

/** Gives the actions across all entities. */
export function fleetActions(engine: Engine): FleetAction[] {
  return engine.actions().filter((action): action is FleetAction => action.kind === 'fleet');
}

/**
 * Reads `<namespace>/<entity>/<action>`, `<fleet action>`, `backup/<fleet action>`.
 * @throws {HoldfastError} INVALID_PARAMETER or ENTITY_NOT_FOUND saying what is close
 */
export function resolveTarget(engine: Engine, path: string): Target {
  const parts = path.split('/');
  if (parts.length > 3 || parts.includes('')) {
    throw new HoldfastError('INVALID_PARAMETER', `'${cleanText(path, 120)}' is not <namespace>/<entity>/<action>`, {
      hint: 'For example: holdfast do my-app/my-db/list-snapshots. holdfast list shows the databases.',
    });
  }
  const [first = '', second = '', third = ''] = parts;
  if (parts.length === 1) return { action: fleetAction(engine, first), entity: undefined, filled: {} };
  if (parts.length === 2) return resolvePair(engine, first, second);
  return resolveFull(engine, `${first}/${second}`, third);
}

function fleetAction(engine: Engine, name: string): FleetAction {
  const fleet = fleetActions(engine);
  const found = fleet.find((action) => action.name === name || action.aliases.includes(name));
  if (found !== undefined) return found;
  const onEntities = engine.actions().find((action) => action.name === name || action.aliases.includes(name));
  if (onEntities !== undefined && onEntities.kind === 'provider') {
    const keys = engine.entitiesOf(onEntities).map((entity) => entity.key);
    throw new HoldfastError('INVALID_PARAMETER', `${name} needs a database`, {
      hint: `Write holdfast do <namespace>/<entity>/${name}. Databases that have it: ${keys.join(', ') || 'none'}.`,
    });
  }
  throw unknownWord(
    'action',
    name,
    fleet.map((action) => action.name),
    'An action on one database is written <namespace>/<entity>/<action>.',
  );
}

function resolvePair(engine: Engine, first: string, second: string): Target {
  const key = `${first}/${second}`;
  const entity = engine.entities().find((candidate) => candidate.key === key);
  if (entity !== undefined) {
    const names = [...actionsOf(engine, entity), ...fleetActions(engine).filter(takesEntity)].map(({ name }) => name);
    throw new HoldfastError('INVALID_PARAMETER', `${key} is a database; the action is missing`, {
      hint: `Write holdfast do ${key}/<action>, with one of: ${names.join(', ')}.`,
    });
  }
  if (first === 'backup') return { action: fleetAction(engine, second), entity: undefined, filled: {} };
  if (engine.actions().some((action) => action.name === second || action.aliases.includes(second))) {
    const inNamespace = engine.entities().filter((candidate) => candidate.namespace === first);
    const candidates = (inNamespace.length > 0 ? inNamespace : engine.entities()).map((candidate) => candidate.key);
    throw new HoldfastError('INVALID_PARAMETER', `'${cleanText(key, 120)}' names an action and no database`, {
      hint: `Write holdfast do <namespace>/<entity>/${second}. ${candidates.length === 0 ? 'No database is configured.' : `There is: ${candidates.slice(0, 20).join(', ')}.`}`,
    });
  }
  engine.entity(key);
  throw new HoldfastError('INVALID_PARAMETER', `'${cleanText(key, 120)}' names no action`);
}

function resolveFull(engine: Engine, key: string, name: string): Target {
  const entity = engine.entity(key);
  const own = actionsOf(engine, entity);
  const isOwn = own.some((action) => action.name === name || action.aliases.includes(name));
  const fleet = isOwn ? undefined : fleetActions(engine).find((action) => action.name === name);
  if (fleet !== undefined) {
    if (!takesEntity(fleet)) {
      throw new HoldfastError('INVALID_PARAMETER', `${name} is about all databases`, {
        hint: `Write holdfast do ${name}.`,
      });
    }
    return { action: fleet, entity: undefined, filled: { entity: key } };
  }
  try {
    return { action: engine.action(name, key), entity: key, filled: {} };
  } catch (cause) {
    const error = asHoldfastError(cause);
    if (error.code !== 'INVALID_PARAMETER') throw error;
    const names = [...own.flatMap((action) => [action.name, ...action.aliases])];
    throw new HoldfastError('INVALID_PARAMETER', `${key} has no action '${cleanText(name, 60)}'`, {
      hint: didYouMean(name, [
        ...names,
        ...fleetActions(engine)
          .filter(takesEntity)
          .map((action) => action.name),
      ]),
      cause,
    });
  }
}

function takesEntity(action: FleetAction): boolean {
  return parametersOf(action).some((parameter) => parameter.name === 'entity');
}
