import type { EntityDeclaration } from '../config/entities.ts';
import { type ConfigFault, pathText } from '../config/faults.ts';
import type { Action } from '../core/action.ts';
import type { EntityBase } from '../core/context.ts';
import { asHoldfastError } from '../core/errors.ts';
import type { JsonObject } from '../core/json.ts';
import { isGuarded } from '../core/risk.ts';
import { NEWEST, type Schedule } from '../core/schedule.ts';
import { parseInput } from '../engine/input.ts';
import { findAction, type Registry } from '../engine/registry.ts';
import { type CronReader, loadCron } from './cron.ts';

interface Fault {
  readonly key: string;
  readonly inside?: readonly PropertyKey[];
  readonly message: string;
  readonly suggestion: string;
}

/** Says what is wrong with the schedules of a file whose entities are sound: times, actions, inputs, and what no clock may do. */
export async function scheduleFaults(
  entities: readonly Pick<EntityDeclaration, 'base' | 'place'>[],
  registry: Registry,
): Promise<ConfigFault[]> {
  const scheduled = entities.filter(({ base }) => base.schedules !== undefined);
  if (scheduled.length === 0) return [];
  const reader = await loadCron();
  return scheduled.flatMap(({ base, place }) => {
    const seen = new Set<string>();
    return (base.schedules ?? []).flatMap((schedule, index) => {
      const faults = faultsOf(schedule, base, registry, reader);
      if (seen.has(schedule.name))
        faults.unshift({ key: 'name', message: 'stands twice', suggestion: 'Give each schedule its own name.' });
      seen.add(schedule.name);
      return faults.map(({ key, inside = [], message, suggestion }): ConfigFault => {
        // A mapping knows it by its name, a list by its number; where the one leads nowhere the other leads there.
        const inList = place?.(['schedules', index, key, ...inside]);
        const inMapping = place?.(['schedules', schedule.name, key, ...inside]);
        const position = deeper(inList, inMapping) ?? { file: '', line: 1, column: 1 };
        const shown = pathText(['schedules', schedule.name, key, ...inside]);
        return {
          ...position,
          path: `${base.key}.${shown}`,
          message: `'${key}' ${message}`.replace("' :", "':"),
          suggestion,
        };
      });
    });
  });
}

type Position = ReturnType<NonNullable<EntityDeclaration['place']>>;

/** Of two places the one that stands later: the other is only the nearest that could be found. */
function deeper(one: Position | undefined, other: Position | undefined): Position | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return one.line > other.line || (one.line === other.line && one.column > other.column) ? one : other;
}

function faultsOf(schedule: Schedule, entity: EntityBase, registry: Registry, reader: CronReader): Fault[] {
  const faults: Fault[] = [];
  if (schedule.cron === '') {
    faults.push({ key: 'cron', message: 'is missing', suggestion: 'Say when it is due, such as cron: "0 2 * * *".' });
  } else {
    const fault = reader.fault(schedule.cron, schedule.timezone);
    if (fault !== undefined) faults.push({ key: fault.part, message: fault.message, suggestion: fault.suggestion });
  }
  if (schedule.action === '') {
    faults.push({
      key: 'action',
      message: 'is missing',
      suggestion: `Say what to call, such as action: create-snapshot.`,
    });
    return faults;
  }
  const action = actionOf(schedule, entity, registry);
  if ('message' in action) return [...faults, action];
  return [...faults, ...inputFaults(schedule, action)];
}

function actionOf(schedule: Schedule, entity: EntityBase, registry: Registry): Action | Fault {
  const fault = (message: string, suggestion: string): Fault => ({ key: 'action', message, suggestion });
  try {
    const action = findAction(registry, schedule.action, entity);
    if (action.kind === 'fleet')
      return fault('is no action of one database', 'Schedule an action of this entity; holdfast actions lists them.');
    if (isGuarded(action.risk))
      return fault(
        `needs a person: ${action.name} is never run by the clock`,
        `It can ${RISKY[action.risk] ?? 'lose data'}. Run it by hand, or schedule what removes by rule, such as prune-snapshots.`,
      );
    return action;
  } catch (cause) {
    const error = asHoldfastError(cause);
    return fault(`is no action of this entity: ${error.message}`, error.hint);
  }
}

const RISKY: Readonly<Record<string, string>> = {
  weaken: 'lessen protection',
  delete: 'delete what is needed one day',
  merge: 'write into live data',
  overwrite: 'replace live data',
};

function inputFaults(schedule: Schedule, action: Action): Fault[] {
  try {
    parseInput(action, schedule.input);
    return [];
  } catch (cause) {
    const { message, hint, details } = asHoldfastError(cause);
    const found = (details?.['faults'] ?? []) as { parameter: string; problem: string }[];
    const own = found.length === 0 ? [{ parameter: '', problem: message }] : found;
    return own
      .filter(({ parameter }) => valueAt(schedule.input, parameter) !== NEWEST)
      .map(({ parameter, problem }) => ({
        key: 'input',
        inside: parameter === '' ? [] : parameter.split('.'),
        message: `does not fit: ${problem}`,
        suggestion: hint,
      }));
  }
}

function valueAt(input: JsonObject, path: string): unknown {
  return path.split('.').reduce<unknown>((inner, key) => (inner as JsonObject | undefined)?.[key], input);
}
