import { unless } from '../rest.ts';
import type { AtlasClient } from './client.ts';
import type { AtlasSchedule, AtlasSnapshot, Deployment } from './map.ts';

/** The moments that a point-in-time restore can go back to. */
export interface RestoreWindow {
  readonly earliest: Date;
  readonly latest: Date;
  readonly days: number | undefined;
}

/**
 * Derives the window of point-in-time restores, which Atlas does not state: as many days as the schedule says, and not
 * before the oldest snapshot, from which the log would have to be replayed. Undefined without continuous backup.
 */
export async function restoreWindow(
  client: AtlasClient,
  deployment: Deployment,
  snapshots: readonly AtlasSnapshot[],
  now: Date,
  signal: AbortSignal,
  given?: AtlasSchedule,
): Promise<RestoreWindow | undefined> {
  if (deployment.kind !== 'dedicated' || !deployment.pitr || !deployment.backups) return undefined;
  const oldest = snapshots.filter(({ restorable, created_at }) => restorable && created_at !== undefined).at(-1);
  if (oldest === undefined) return undefined;
  const schedule = given ?? (await scheduleOf(client, deployment, signal));
  const days = schedule?.window_days;
  const byDays = days === undefined ? 0 : now.getTime() - days * 86_400_000;
  const earliest = new Date(Math.max(byDays, new Date(oldest.created_at as string).getTime()));
  return earliest > now ? undefined : { earliest, latest: now, days };
}

/** Gives the backup schedule, or undefined for a cluster that has none. */
export async function scheduleOf(
  client: AtlasClient,
  deployment: Deployment,
  signal: AbortSignal,
): Promise<AtlasSchedule | undefined> {
  return unless(client.schedule(deployment, signal), 'BACKUP_NOT_FOUND');
}
