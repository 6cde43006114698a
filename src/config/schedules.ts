import { z } from 'zod';
import type { JsonObject } from '../core/json.ts';
import type { EntityType } from '../core/provider.ts';
import type { Schedule } from '../core/schedule.ts';
import { duration } from './values.ts';

const NAME = /^[a-z0-9][a-z0-9-]{0,39}$/;
const name = z.string().regex(NAME, 'lower-case letters, digits and hyphens, 40 at most');

const shape = {
  cron: z.string().min(1).max(120).optional().describe('Minute, hour, day of the month, month, weekday: 0 2 * * *'),
  timezone: z.string().min(1).max(60).optional().describe('IANA name, Europe/Lisbon; UTC when left out'),
  action: z.string().min(1).max(60).optional().describe('create-snapshot when left out'),
  input: z.record(z.string(), z.unknown()).optional().describe('$newest stands for the newest restorable snapshot'),
  enabled: z.boolean().optional(),
  catch_up: z.boolean().optional().describe('Whether one run makes up for those that were missed; true when left out'),
  at_most: duration({ least: 60, most: 2_592_000 }).optional().describe('A run that takes longer is interrupted: 6h'),
};

const Named = z.strictObject({ name, ...shape });
const Unnamed = z.strictObject(shape);

const ByName = z.record(name, z.union([z.literal(true), z.string().min(1).max(120).describe('cron'), Unnamed]));

/** The parameter `schedules` of an entity: a list, or by name, each in full or as its cron expression alone. */
export const SchedulesInput = z.union([z.array(Named), ByName]);
type Written = z.output<typeof SchedulesInput>;

/** When the well-known names are due where nothing else is said. */
const TIMES: Readonly<Record<string, string>> = {
  hourly: '0 * * * *',
  daily: '0 2 * * *',
  weekly: '0 1 * * 0',
  monthly: '0 3 1 * *',
  quarterly: '0 1 1 1,4,7,10 *',
  verify: '0 5 * * 0',
  prune: '30 4 * * *',
};

/** The well-known names that do not call create-snapshot by nature: without a word from the entity type they need an action. */
const NO_SNAPSHOT: readonly string[] = ['verify', 'prune'];

/**
 * Gives an entity's schedules in full. What is neither written nor known by the name is left empty: `cron` and `action`
 * are checked by who knows the actions, not here.
 */
export function readSchedules(written: Written, type: Pick<EntityType, 'schedules'>): Schedule[] {
  const entries: [string, z.output<typeof Unnamed>][] = Array.isArray(written)
    ? written.map(({ name: own, ...rest }) => [own, rest])
    : Object.entries(written).map(([own, value]) => [
        own,
        value === true ? {} : typeof value === 'string' ? { cron: value } : value,
      ]);
  return entries.map(([own, { cron, timezone, action, input, enabled, catch_up, at_most }]) => {
    const known = type.schedules?.[own];
    const usual = known?.action ?? (NO_SNAPSHOT.includes(own) ? '' : 'create-snapshot');
    return {
      name: own,
      cron: cron ?? TIMES[own] ?? '',
      timezone: timezone ?? 'UTC',
      action: action ?? usual,
      // What a name brings along belongs to its own action.
      input: (input ??
        (action === undefined || action === known?.action ? known?.input : undefined) ??
        {}) as JsonObject,
      enabled: enabled ?? true,
      catch_up: catch_up ?? true,
      ...(at_most === undefined ? {} : { at_most }),
    };
  });
}
