import type { SettingChange, SettingFinding } from '../../core/settings.ts';
import { cleanText } from '../../core/text.ts';
import { type Comparison, findingsOf } from '../findings.ts';
import { type Database, hasPitr, instant, isProtected, type Schedule, seconds } from './map.ts';
import type { FirestoreEntity } from './provider.ts';

const DAY_SECONDS = 86_400;
const UPDATE_DATABASE = 'update-database';

export const FREQUENCIES = ['daily', 'weekly'] as const;
export type Frequency = (typeof FREQUENCIES)[number];

/** What is done to the schedule of one frequency, by the word of its request. */
export const SCHEDULE_WRITES = ['create', 'update', 'delete'] as const;

/** The name of the request that does something to a schedule. */
export function scheduleWrite(what: (typeof SCHEDULE_WRITES)[number], frequency: Frequency): string {
  return `${what}-${frequency}-schedule`;
}

/** Gives the schedule of one frequency: a database has one at most. */
export function scheduleOf(schedules: readonly Schedule[], frequency: Frequency): Schedule | undefined {
  return schedules.find((one) => (frequency === 'daily' ? one.dailyRecurrence : one.weeklyRecurrence));
}

const days = (count: number): string => `${count} ${count === 1 ? 'day' : 'days'}`;
const word = (name: string, isOn: boolean): string => `${name}_${isOn ? 'ENABLED' : 'DISABLED'}`;

function toggle(
  setting: 'point_in_time_recovery' | 'delete_protection',
  declared: boolean | undefined,
  actual: boolean,
  on: string,
  off: string,
): Comparison {
  const name = setting.toUpperCase();
  return {
    setting,
    declared: declared === undefined ? undefined : word(name, declared),
    actual: word(name, actual),
    otherwise: () => ({
      change: {
        risk: declared === true ? 'change' : 'weaken',
        effect: declared === true ? on : off,
        write: UPDATE_DATABASE,
      },
    }),
  };
}

function fixed(setting: string, declared: string | undefined, actual: string | null | undefined): Comparison {
  return {
    setting,
    declared,
    actual: actual ? cleanText(actual, 60) : null,
    otherwise: () => ({ note: 'it is set when a database is made and stays' }),
  };
}

/** The schedule of one frequency, as the days that its backups are kept; null for no schedule. */
function scheduled(entity: FirestoreEntity, schedules: readonly Schedule[], frequency: Frequency): Comparison[] {
  if (entity.backup_schedules === undefined) return [];
  const declared = entity.backup_schedules.find((one) => one.frequency === frequency);
  const found = scheduleOf(schedules, frequency);
  const kept = seconds(found?.retention);
  const actual = found === undefined ? null : kept === undefined ? undefined : kept / DAY_SECONDS;
  const change = (risk: SettingChange['risk'], effect: string, what: (typeof SCHEDULE_WRITES)[number]) => ({
    change: { risk, effect, write: scheduleWrite(what, frequency) },
  });
  const day = found?.weeklyRecurrence?.day;
  return [
    {
      setting: `backup_schedules.${frequency}.retention_days`,
      declared: declared?.retention_days ?? null,
      actual,
      otherwise: () => {
        if (declared === undefined) {
          const age = actual === undefined ? '' : `, kept for ${days(actual as number)},`;
          return change(
            'weaken',
            `the ${frequency} schedule is deleted: no more ${frequency} backups${age} are taken; those that exist stay until they expire`,
            'delete',
          );
        }
        const now = declared.retention_days;
        if (actual === null)
          return change('change', `a ${frequency} backup is taken and kept for ${days(now)}`, 'create');
        const isMore = actual !== undefined && now > actual;
        return change(
          isMore ? 'change' : 'weaken',
          `keeps ${frequency} backups for ${days(now)}, not ${actual === undefined ? 'as long as now' : days(actual)}; those that exist keep their expiry`,
          'update',
        );
      },
    },
    {
      setting: `backup_schedules.${frequency}.day`,
      declared: found === undefined ? undefined : declared?.day,
      actual: day ? cleanText(day, 20) : null,
      otherwise: () => ({
        note: 'the day of a schedule stays: delete it with delete-backup-schedule, then apply again',
      }),
    },
  ];
}

/** Holds what the entity declares against its database; what Google leaves out is off. */
export function settingsFindings(
  entity: FirestoreEntity,
  database: Database,
  schedules: readonly Schedule[],
): SettingFinding[] {
  const earliest = instant(database.earliestVersionTime);
  return findingsOf([
    toggle(
      'point_in_time_recovery',
      entity.point_in_time_recovery,
      hasPitr(database),
      'the last 7 days can be gone back to instead of the last hour, from now on',
      `only the last hour can be gone back to, not 7 days; older versions${earliest === undefined ? '' : `, which begin at ${earliest},`} are unreadable at once and do not come back`,
    ),
    toggle(
      'delete_protection',
      entity.delete_protection,
      isProtected(database),
      'the database cannot be deleted before that is switched off',
      'delete protection is switched off: one call can delete the database',
    ),
    ...FREQUENCIES.flatMap((frequency) => scheduled(entity, schedules, frequency)),
    fixed('location', entity.location, database.locationId),
    fixed('database_type', entity.database_type, database.type),
    fixed('database_edition', entity.database_edition, database.databaseEdition),
  ]);
}
