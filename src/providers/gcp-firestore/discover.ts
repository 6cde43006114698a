import type { JsonObject } from '../../core/json.ts';
import type { Discovered, Discovery, DiscoveryContext } from '../../core/provider.ts';
import { cleanText } from '../../core/text.ts';
import { type Attempt, entityName } from '../discovery.ts';
import { lookThroughProject, type ProjectAccess } from '../google-discovery.ts';
import { createFirestoreClient } from './client.ts';
import { type Database, hasPitr, isProtected, lastPart, type Schedule, toSchedule } from './map.ts';
import { FIRESTORE_ORIGIN, FIRESTORE_SCOPE } from './provider.ts';

const DAY_SECONDS = 86_400;

/** Looks through the databases of a project; undefined without credentials. */
export function discover(context: DiscoveryContext): Promise<Discovery | undefined> {
  const { signal } = context;
  const api = { origin: FIRESTORE_ORIGIN, scope: FIRESTORE_SCOPE };
  return lookThroughProject(context, api, async (access, attempt, problems) => {
    const client = await createFirestoreClient({ ...access, database: '(default)' });
    const listed = await attempt(() => client.listDatabases(signal), 'databases are not shown');
    const { databases = [], unreachable = [] } = listed ?? {};
    if (unreachable.length > 0) {
      const places = unreachable.slice(0, 10).map((name) => cleanText(lastPart(name), 60));
      problems.push(`databases of ${places.join(', ')} are not shown: they could not be reached`);
    }
    return Promise.all(databases.map((database) => toFound(database, access, attempt, signal)));
  });
}

async function toFound(
  database: Database,
  access: ProjectAccess,
  attempt: Attempt,
  signal: AbortSignal,
): Promise<Discovered> {
  const id = lastPart(database.name);
  const schedules = await attempt(
    async () => {
      const client = await createFirestoreClient({ ...access, database: id });
      return client.listSchedules(signal);
    },
    `the schedules of ${cleanText(id, 70)} are not shown`,
  );
  const pitr = hasPitr(database);
  const declared = schedules === undefined ? undefined : declaredSchedules(schedules);
  const known = (key: string, value: string | null | undefined, words: readonly string[]): JsonObject =>
    value && words.includes(value) ? { [key]: value } : {};
  return {
    defines: 'gcp/firestore',
    name: entityName(id),
    parameters: {
      project: access.project,
      database_id: id,
      ...(database.locationId ? { location: cleanText(database.locationId, 60) } : {}),
      ...known('database_type', database.type, ['FIRESTORE_NATIVE', 'DATASTORE_MODE']),
      ...known('database_edition', database.databaseEdition, ['STANDARD', 'ENTERPRISE']),
      point_in_time_recovery: pitr,
      delete_protection: isProtected(database),
      ...(declared === undefined ? {} : { backup_schedules: declared }),
    },
    notes: [
      ...(schedules?.length === 0 ? ['There is no backup schedule: Firestore takes no backups.'] : []),
      ...(schedules !== undefined && declared === undefined
        ? ['Its backup schedules cannot be written down here: look at list-backup-schedules.']
        : []),
      ...(pitr ? [] : ['Point-in-time recovery is off: only the last hour can be gone back to.']),
      ...(isProtected(database) ? [] : ['Delete protection is off.']),
      'Set export_uri_prefix to a bucket of yours: the safety export before an import goes there.',
    ],
  };
}

/** The schedules as the file has them; undefined where one of them cannot be said so. */
function declaredSchedules(schedules: readonly Schedule[]): JsonObject[] | undefined {
  const declared = schedules.map(toSchedule).flatMap(({ recurrence, day, retention_seconds }): JsonObject[] => {
    const days = Number(retention_seconds) / DAY_SECONDS;
    if (!Number.isInteger(days) || recurrence === 'unknown') return [];
    return [{ frequency: recurrence, ...(typeof day === 'string' ? { day } : {}), retention_days: days }];
  });
  return declared.length === schedules.length ? declared : undefined;
}
