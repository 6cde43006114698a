import type { JsonObject } from './json.ts';
import type { Principal } from './principal.ts';

/** One call that the clock makes, as an entity declares it. */
export interface Schedule {
  /** Unique within its entity. */
  readonly name: string;
  /** Five fields: minute, hour, day of the month, month, weekday. */
  readonly cron: string;
  /** IANA name of the zone that `cron` is read in. */
  readonly timezone: string;
  /** Name or alias of an action of the entity. */
  readonly action: string;
  /** `$newest` in it stands for the id of the newest restorable snapshot when the call is made. */
  readonly input: JsonObject;
  readonly enabled: boolean;
  /** Whether what was missed is made up for, by one run. */
  readonly catch_up: boolean;
  /** Seconds after which a run is interrupted. */
  readonly at_most?: number | undefined;
}

/** What stands in a schedule's input for the id of the newest restorable snapshot. */
export const NEWEST = '$newest';

const PREFIX = 'schedule:';

/** Names a schedule among all: `<namespace>/<entity>/<name>`. */
export function scheduleKey(entity: string, name: string): string {
  return `${entity}/${name}`;
}

/** The caller on whose behalf a schedule's call is made: it may ask for what an operator may, and nobody answers for it. */
export function schedulePrincipal(entity: string, name: string): Principal {
  return { id: `${PREFIX}${scheduleKey(entity, name)}`, person: 'schedule', roles: ['operator'] };
}

/** Tells whether a caller is a schedule. Surfaces put their own word before the colon, so that no caller can be named so. */
export function isSchedule(principalId: string): boolean {
  return principalId.startsWith(PREFIX);
}
