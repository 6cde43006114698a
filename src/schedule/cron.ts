import type { Cron } from 'croner';

/** What is wrong with an expression or a zone, in words of ours. */
export interface CronFault {
  readonly part: 'cron' | 'timezone';
  readonly message: string;
  readonly suggestion: string;
}

/** When something is due. */
export interface Times {
  /** The next due times after a moment, at most `count`. */
  next(after: Date, count: number): Date[];
  /** The last due time at a moment or before it. */
  last(at: Date): Date | undefined;
}

export interface CronReader {
  fault(cron: string, timezone: string): CronFault | undefined;
  /** @throws where `fault` has one */
  times(cron: string, timezone: string): Times;
}

/** Loads what reads cron expressions: only who has a schedule needs it. */
export async function loadCron(): Promise<CronReader> {
  const { Cron } = await import('croner');
  const make = (cron: string, timezone: string): Cron => new Cron(cron, { mode: '5-part', timezone, paused: true });
  return {
    fault(cron, timezone) {
      const inShape = shapeFault(cron);
      if (inShape !== undefined) return inShape;
      if (!isZone(timezone)) {
        return {
          part: 'timezone',
          message: 'is no time zone that is known here',
          suggestion: 'Write an IANA name such as Europe/Lisbon, or leave it out for UTC.',
        };
      }
      try {
        if (make(cron, timezone).nextRun() !== null) return undefined;
        return {
          part: 'cron',
          message: 'names a date that never comes',
          suggestion: 'Check the day against the month.',
        };
      } catch {
        return { part: 'cron', message: 'is no cron expression', suggestion: HOW };
      }
    },
    times(cron, timezone) {
      const reader = make(cron, timezone);
      return {
        next: (after, count) => reader.nextRuns(count, after),
        // It looks before the moment that it is given, and that moment itself counts.
        last: (at) => reader.previousRuns(1, new Date(at.getTime() + 1))[0],
      };
    },
  };
}

const HOW = 'Write five fields: minute, hour, day of the month, month, weekday, such as "0 2 * * *".';

const RANGES = [
  ['minute', 0, 59],
  ['hour', 0, 23],
  ['day of the month', 1, 31],
  ['month', 1, 12],
  ['weekday', 0, 7],
] as const;

const NAMES: readonly (readonly string[] | undefined)[] = [
  undefined,
  undefined,
  undefined,
  ['', 'JAN', 'FEB', 'MAR', 'APR', 'MAY', 'JUN', 'JUL', 'AUG', 'SEP', 'OCT', 'NOV', 'DEC'],
  ['SUN', 'MON', 'TUE', 'WED', 'THU', 'FRI', 'SAT'],
];

/** Only what cron everywhere reads alike is taken, so that an expression means the same here and in Kubernetes. */
function shapeFault(cron: string): CronFault | undefined {
  const refuse = (message: string, suggestion = HOW): CronFault => ({ part: 'cron', message, suggestion });
  const fields = cron.trim().split(/\s+/);
  if (cron.trim().startsWith('@')) return refuse('is a nickname, which not every cron knows');
  if (fields.length !== 5) return refuse(`has ${fields.length} ${fields.length === 1 ? 'field' : 'fields'}, not five`);
  for (const [index, field] of fields.entries()) {
    const [what, least, most] = RANGES[index]!;
    for (const item of field.split(',')) {
      const [, from, to, step] =
        /^(\*|\d{1,2}|[A-Za-z]{3})(?:-(\d{1,2}|[A-Za-z]{3}))?(?:\/(\d{1,2}))?$/.exec(item) ?? [];
      const bad = refuse(
        `: the ${what} cannot be read`,
        `Write *, a number from ${least} to ${most}, a-b, */n or a list.`,
      );
      if (from === undefined) return bad;
      const low = from === '*' ? least : numberOf(from, index);
      const high = from === '*' ? most : to === undefined ? low : numberOf(to, index);
      if (low === undefined || high === undefined || low < least || high > most) return bad;
      if (from === '*' && to !== undefined) return bad;
      if (low > high)
        return refuse(`: the ${what} begins after its end`, 'Write a range that wraps as two, such as 22-23,0-5.');
      if (step !== undefined && (Number(step) < 1 || Number(step) > most || (from !== '*' && to === undefined))) {
        return refuse(`: the step of the ${what} cannot be read`, 'Steps follow * or a range: */15, 8-18/2.');
      }
    }
  }
  return undefined;
}

function numberOf(text: string, index: number): number | undefined {
  if (/^\d+$/.test(text)) return Number(text);
  const value = NAMES[index]?.indexOf(text.toUpperCase()) ?? -1;
  return value === -1 ? undefined : value;
}

/** Writes Sunday as 0 only, for those who do not know it as 7 too. */
export function withSundayFirst(cron: string): string {
  const fields = cron.trim().split(/\s+/);
  const days = fields[4]!.split(',').flatMap((item) => {
    const [, from, to, step] = /^([^-/]+)(?:-([^/]+))?(?:\/(\d+))?$/.exec(item) ?? [];
    if (from === '7' && to === undefined) return ['0'];
    if (to !== '7') return [item];
    const first = numberOf(from!, 4) as number;
    const all: number[] = [];
    for (let day = first; day <= 7; day += Number(step ?? 1)) all.push(day % 7);
    return [...new Set(all)].map(String);
  });
  return [...fields.slice(0, 4), [...new Set(days)].join(',')].join(' ');
}

function isZone(timezone: string): boolean {
  // `+02:00` is an offset, which knows no daylight saving and which Kubernetes refuses.
  if (!/^[A-Za-z]/.test(timezone)) return false;
  try {
    new Intl.DateTimeFormat('en', { timeZone: timezone });
    return true;
  } catch {
    return false;
  }
}
