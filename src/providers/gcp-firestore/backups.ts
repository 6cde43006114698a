import type { ProviderContext } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Step } from '../../core/operation.ts';
import { compareFacts, type Plan, type PlanDraft } from '../../core/plan.ts';
import type { RecoveryOption } from '../../core/provider.ts';
import type { BackupInfo, RecoveryPoint } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration } from '../../core/time.ts';
import { driftOf } from '../findings.ts';
import { follow, lookThrice, recoverySignal } from '../follow.ts';
import type { Existence, FirestoreClient } from './client.ts';
import {
  type Backup,
  checkScheduleName,
  type Database,
  hasPitr,
  instant,
  isProtected,
  isWithin,
  lastPart,
  type Schedule,
  seconds,
  toOperation,
  toPoint,
  toSchedule,
} from './map.ts';
import type { FirestoreEntity } from './provider.ts';
import { settingsFindings } from './settings.ts';

export type Context = ProviderContext<FirestoreClient, FirestoreEntity>;
export type FirestoreStep<Input> = Step<FirestoreClient, FirestoreEntity, Input>;

const MINUTE = 60_000;
const DAY_SECONDS = 86_400;
const WORK_DEADLINE_MS = 24 * 3_600_000;

/** Follows work at Firestore, from 10 s to a minute apart, for a day at most: databases of terabytes take hours. */
export function followWork<T>(
  context: Pick<Context, 'runtime' | 'signal'>,
  what: string,
  look: () => Promise<T | undefined>,
  deadline_ms = WORK_DEADLINE_MS,
): Promise<T> {
  return follow(context, { what, at: 'Firestore', deadline_ms, first_ms: 10_000, longest_ms: 60_000 }, look);
}

/** Gives nothing where a look is refused or the thing is not there: that is unknown, no reason to withhold the rest. */
export async function tolerate<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (cause) {
    if (
      cause instanceof HoldfastError &&
      [
        'INVALID_STATE',
        'INVALID_PARAMETER',
        'INSUFFICIENT_PERMISSIONS',
        'RESOURCE_NOT_FOUND',
        'NOT_SUPPORTED',
      ].includes(cause.code)
    ) {
      return undefined;
    }
    throw cause;
  }
}

/** The moment that a copy made now holds: a whole minute, at least one minute ago. */
export function latestMinute(now: Date): Date {
  return new Date(Math.floor((now.getTime() - MINUTE) / MINUTE) * MINUTE);
}

/** The first whole minute that can be read, two minutes clear of the edge, which moves. */
export function earliestMinute(database: Database): Date | undefined {
  const earliest = instant(database.earliestVersionTime);
  if (earliest === undefined) return undefined;
  return new Date(Math.ceil((Date.parse(earliest) + 2 * MINUTE) / MINUTE) * MINUTE);
}

// --- reading -------------------------------------------------------------------------------------------------------

/** Whose backup it is: of the entity's database, of an earlier one of the same name, or of another one. */
export function ownerOf(
  point: RecoveryPoint,
  client: FirestoreClient,
  existence: Existence,
): 'own' | 'earlier' | 'other' {
  const uid = existence.state === 'exists' ? existence.database.uid : undefined;
  if (uid && point.provider?.['database_uid'] === uid) return 'own';
  // A database that was deleted and made again keeps its name and not its uid.
  return point.provider?.['database'] === client.database ? 'earlier' : 'other';
}

/** Gives the backups of the entity's database by its uid, or by its name where the database is gone; newest first. */
export async function ownBackups(
  { client, runtime, signal }: Pick<Context, 'client' | 'runtime' | 'signal'>,
  existence: Existence,
  location = '-',
): Promise<{ points: RecoveryPoint[]; notes: string[] }> {
  if (existence.state === 'unknown') throw existence.error;
  const databaseUid = existence.state === 'exists' ? (existence.database.uid ?? undefined) : undefined;
  const { backups, unreachable } = await client.listBackups({ location, databaseUid }, signal);
  const now = runtime.now();
  const points = backups
    .filter((backup) =>
      databaseUid === undefined ? isNamed(backup, client.database) : backup.databaseUid === databaseUid,
    )
    .map((backup) => toPoint(backup, now))
    .sort((a, b) => keyOf(b).localeCompare(keyOf(a)));
  return {
    points,
    notes: [
      ...(unreachable.length === 0
        ? []
        : [
            `Incomplete: the backups in ${unreachable
              .slice(0, 10)
              .map((name) => cleanText(lastPart(name), 60))
              .join(', ')} could not be read.`,
          ]),
      ...(existence.state === 'missing'
        ? ['The database does not exist: these are backups of databases that had its name.']
        : []),
    ],
  };
}

function isNamed(backup: Backup, database: string): boolean {
  return lastPart(backup.database) === database;
}

/** Orders backups by their moment; the name keeps those of one moment apart. */
export function keyOf(point: RecoveryPoint): string {
  return `${point.data_at ?? ''} ${point.id}`;
}

/** Gives the newest backup that can be restored, at most as new as a moment. */
export function newestRestorable(points: readonly RecoveryPoint[], before?: Date): RecoveryPoint | undefined {
  return points
    .filter(
      (point) => point.restorable && (before === undefined || Date.parse(point.data_at ?? '') <= before.getTime()),
    )
    .sort((a, b) => keyOf(b).localeCompare(keyOf(a)))[0];
}

/** Says how well a database is backed up. */
export async function backupInfo(context: Context): Promise<BackupInfo> {
  const { client, entity, runtime, signal } = context;
  const database = await client.getDatabase(client.database, signal);
  const [rawSchedules, { points, notes }] = await Promise.all([
    client.listSchedules(signal),
    ownBackups(context, { state: 'exists', database }),
  ]);
  const schedules = rawSchedules.map(toSchedule);
  const newest = newestRestorable(points) ?? null;
  const pitr = hasPitr(database);
  const now = runtime.now();
  const kept = schedules.flatMap((schedule) => (schedule['retention_seconds'] as number | undefined) ?? []);
  const [earliest, latest] = [earliestMinute(database), latestMinute(now)];
  const warnings: string[] = [];
  if (schedules.length === 0) warnings.push('There is no backup schedule: Firestore takes no backups.');
  if (!pitr) warnings.push('Point-in-time recovery is off: only the last hour can be gone back to.');
  if (newest === null) warnings.push('There is no backup that can be restored.');
  else {
    const age = (now.getTime() - Date.parse(newest.data_at ?? '')) / 1000;
    const limit = schedules.some(({ recurrence }) => recurrence !== 'weekly') ? 2 * DAY_SECONDS : 8 * DAY_SECONDS;
    if (age > limit) warnings.push(`The newest restorable backup is ${formatDuration(age)} old.`);
    const left = (Date.parse(newest.expires_at ?? '') - now.getTime()) / 1000;
    if (left < DAY_SECONDS) warnings.push(`The newest restorable backup expires in ${formatDuration(left)}.`);
  }
  if (!isProtected(database)) warnings.push('Delete protection is off.');
  if (entity.export_uri_prefix === undefined) {
    warnings.push('No export_uri_prefix is configured: no safety export can be taken before an import.');
  }
  warnings.push(...notes, ...driftOf(settingsFindings(entity, database, rawSchedules)));
  const kms = database.cmekConfig?.kmsKeyName;
  return {
    automated: schedules.length > 0,
    ...(kept.length === 0 ? {} : { retention_seconds: Math.max(...kept) }),
    ...(schedules.length === 0
      ? {}
      : {
          schedule: schedules.map(({ recurrence, day }) => (day ? `${recurrence} on ${day}` : recurrence)).join(', '),
        }),
    pitr: {
      enabled: pitr,
      ...(earliest === undefined || earliest > latest
        ? {}
        : { window: { earliest_at: earliest.toISOString(), latest_at: latest.toISOString() } }),
    },
    encryption: kms ? `customer-managed key ${cleanText(kms)}` : 'Google-managed keys',
    deletion_protection: isProtected(database),
    newest,
    warnings,
    provider: {
      project: await client.project(),
      database_id: client.database,
      uid: cleanText(database.uid, 60),
      type: cleanText(database.type, 40),
      edition: cleanText(database.databaseEdition, 40),
      location: cleanText(database.locationId, 60),
      ...(seconds(database.versionRetentionPeriod) === undefined
        ? {}
        : { version_retention_seconds: seconds(database.versionRetentionPeriod) }),
      schedules,
      ...(database.sourceInfo?.backup?.backup
        ? { restored_from: cleanText(database.sourceInfo.backup.backup, 300) }
        : {}),
      ...(entity.export_uri_prefix === undefined ? {} : { export_uri_prefix: entity.export_uri_prefix }),
    },
  };
}

/** Proposes the id of a new database: the old one's with the day and time. */
export function newDatabaseId(database: string, now: Date): string {
  const stamp = now.toISOString().slice(0, 16).replace(/[-:]/g, '').replace('T', '-');
  const base = database === '(default)' ? 'default' : database;
  return `${base.slice(0, 63 - stamp.length - 9).replace(/-+$/, '')}-restore-${stamp}`;
}

/** Every way back: a moment or a backup into a new database, an export over the database. */
export async function recoveryOptions(context: Context, at: Date | undefined): Promise<RecoveryOption[]> {
  const { client, entity, runtime, signal } = context;
  const existence = await client.lookUp(client.database, signal);
  const [{ points }, operations] = await Promise.all([
    ownBackups(context, existence),
    tolerate(() => client.listOperations(client.database, signal)),
  ]);
  const now = runtime.now();
  const target = newDatabaseId(client.database, now);
  const options: RecoveryOption[] = [];
  const intoNew = (title: string, moment: string, source: JsonObject): void => {
    options.push({
      title: `${title} into the new database ${target}`,
      moment,
      loses: 'nothing: the database stays as it is',
      risk: 'create',
      call: { entity: entity.key, action: 'restore', input: { ...source, target_database: target } },
    });
  };
  if (existence.state === 'exists') {
    const [earliest, latest] = [earliestMinute(existence.database), latestMinute(now)];
    const wanted = at === undefined ? latest : new Date(Math.floor(at.getTime() / MINUTE) * MINUTE);
    if (earliest !== undefined && wanted >= earliest && wanted <= latest) {
      intoNew('Point in time', wanted.toISOString(), { restore_timestamp: wanted.toISOString() });
    }
  }
  const point = newestRestorable(points, at);
  if (point?.data_at !== undefined) {
    intoNew(`Backup ${lastPart(point.id)}`, point.data_at, { backup_name: point.id });
  }
  const exported = (operations ?? [])
    .map(toOperation)
    .filter(
      ({ kind, status, result_uri, snapshot_time }) =>
        kind === 'export' &&
        status === 'succeeded' &&
        result_uri !== undefined &&
        snapshot_time !== undefined &&
        (at === undefined || Date.parse(snapshot_time) <= at.getTime()),
    )
    .sort((a, b) => String(b.snapshot_time).localeCompare(String(a.snapshot_time)))[0];
  if (existence.state === 'exists' && exported?.snapshot_time !== undefined) {
    const { result_uri, snapshot_time, collection_ids } = exported;
    options.push({
      title: `Export ${cleanText(result_uri, 200)} into the database itself`,
      moment: snapshot_time,
      loses: `changes since ${snapshot_time} to documents that the export has${collection_ids.length === 0 ? '' : ` (${cleanText(collection_ids.join(', '), 100)})`}; others stay, so the result is a mix`,
      risk: 'merge',
      call: { entity: entity.key, action: 'import-documents', input: { input_uri_prefix: result_uri } },
    });
  }
  return options;
}

// --- deleting a backup ---------------------------------------------------------------------------------------------

function backupFacts(project: string, point: RecoveryPoint): JsonObject {
  return {
    project,
    backup: point.id,
    database: point.provider?.['database'] as string,
    database_uid: point.provider?.['database_uid'] as string,
    status: point.status,
    at: point.data_at ?? null,
  };
}

/** Says what deleting a backup takes away, and whether it is the last one. */
export async function planDelete(context: Context, backupName: string): Promise<PlanDraft> {
  const { client, entity, runtime, signal } = context;
  const [project, backup, existence] = await Promise.all([
    client.project(),
    client.getBackup(backupName, signal),
    client.lookUp(client.database, signal),
  ]);
  if (existence.state === 'unknown') throw existence.error;
  const point = toPoint(backup, runtime.now());
  const owner = ownerOf(point, client, existence);
  // A backup of another database must not be deleted in this one's name: its own policy would be passed by.
  if (owner === 'other') {
    throw new HoldfastError('INVALID_PARAMETER', 'this backup belongs to another database', {
      hint: 'Call delete-snapshot on the entity that the backup belongs to.',
    });
  }
  const uid = String(point.provider?.['database_uid']);
  const { backups, unreachable } = await client.listBackups({ location: '-', databaseUid: uid }, signal);
  const others = backups.map((other) => toPoint(other, runtime.now())).filter(({ id }) => id !== point.id);
  const restorable = others.filter((other) => other.restorable);
  const newest = newestRestorable(restorable);
  const isGone = owner === 'earlier';
  return {
    target: `${client.database}/${lastPart(point.id)}`,
    loses: `the backup ${point.id}${point.data_at === undefined ? '' : ` of ${point.data_at}`}; this cannot be undone`,
    blast_radius: {
      status: point.status,
      ...(point.size_bytes === undefined ? {} : { size_bytes: point.size_bytes }),
      ...(point.provider?.['documents'] === undefined ? {} : { documents: point.provider['documents'] as number }),
      other_restorable_backups: restorable.length,
    },
    ...(newest?.data_at === undefined ? {} : { newest_recovery_point: { id: newest.id, at: newest.data_at } }),
    last_restorable: point.restorable && (restorable.length === 0 || isGone),
    undo: 'none: a deleted backup cannot be brought back',
    alternatives: [
      ...(point.restorable
        ? [
            {
              title: 'Restore it into a new database first',
              risk: 'create' as const,
              call: {
                entity: entity.key,
                action: 'restore',
                input: { backup_name: point.id, target_database: newDatabaseId(client.database, runtime.now()) },
              },
            },
          ]
        : []),
      {
        title:
          point.expires_at === undefined
            ? 'Leave it: it expires by itself'
            : `Leave it: it expires at ${point.expires_at}`,
        risk: 'read',
      },
    ],
    unknowns:
      unreachable.length === 0 ? [] : ['whether there are backups in locations that could not be reached just now'],
    warnings: isGone
      ? ['The database of this backup does not exist any more: its backups are the only copies of it.']
      : [],
    facts: { target: backupFacts(project, point) },
  };
}

/** The step that deletes a backup; Firestore does it at once. */
export function deleteSteps(plan: Plan): FirestoreStep<{ backup_name: string }>[] {
  return [
    {
      name: 'delete',
      title: 'Deleting the backup',
      kind: 'mutate',
      async run(context) {
        const { client, input, runtime, signal } = context;
        const point = toPoint(await client.getBackup(input.backup_name, signal), runtime.now());
        refuseChange(plan, backupFacts(await client.project(), point), 'the backup', 'deleted');
        await context.checkpoint({ backup_name: input.backup_name });
        await client.deleteBackup(input.backup_name, signal);
        return { backup_name: input.backup_name };
      },
      async recover(context) {
        const { client, handle, input } = context;
        if (handle === undefined) return { state: 'not_begun' };
        const gone = await lookThrice(context, () =>
          isAbsent(() => client.getBackup(input.backup_name, recoverySignal(context.signal)), 'BACKUP_NOT_FOUND'),
        );
        return gone === undefined
          ? { state: 'not_begun', message: 'the backup is there as before' }
          : { state: 'done', result: handle };
      },
    },
  ];
}

async function isAbsent(read: () => Promise<unknown>, code: string): Promise<true | undefined> {
  try {
    await read();
    return undefined;
  } catch (cause) {
    if (cause instanceof HoldfastError && cause.code === code && cause.provider?.status === 404) return true;
    throw cause;
  }
}

/** Refuses a write on what is not as the plan says. @throws {HoldfastError} INVALID_STATE */
export function refuseChange(plan: Plan, facts: JsonObject, what: string, done: string): void {
  const differences = compareFacts(plan.facts.target, facts);
  if (differences.length === 0) return;
  throw new HoldfastError('INVALID_STATE', `${what} is not what the plan says; nothing was ${done}`, {
    retryable: false,
    hint: 'Make the call again for a new plan.',
    details: { differences: differences as unknown as JsonObject[] },
  });
}

// --- schedules -----------------------------------------------------------------------------------------------------

export interface ScheduleInput {
  frequency: 'daily' | 'weekly';
  day?: string | undefined;
  retention_days: number;
}

function scheduleDay({ frequency, day }: ScheduleInput): string | undefined {
  if (frequency === 'daily' && day !== undefined) {
    throw new HoldfastError('INVALID_PARAMETER', 'day goes with frequency weekly only', {
      hint: 'Leave day out: a daily schedule runs on every day.',
    });
  }
  return frequency === 'daily' ? undefined : (day ?? 'SUNDAY');
}

/** Looks whether the schedule can be made: a database has at most one of each recurrence. */
export async function planCreateSchedule({ client, signal }: Context, input: ScheduleInput): Promise<PlanDraft> {
  scheduleDay(input);
  const [project, schedules] = await Promise.all([client.project(), client.listSchedules(signal)]);
  if (schedules.map(toSchedule).some(({ recurrence }) => recurrence === input.frequency)) {
    throw new HoldfastError('RESOURCE_EXISTS', `the database has a ${input.frequency} schedule already`, {
      hint: 'A database has at most one daily and one weekly schedule. Delete the old one first, or keep it.',
    });
  }
  return {
    target: `${project}/${client.database}`,
    loses: 'nothing',
    undo: 'delete-backup-schedule',
    warnings: ['Backups are billed by their size for as long as they are kept.'],
    facts: { target: { project, database: client.database } },
  };
}

/** The step that makes a schedule. */
export function createScheduleSteps(): FirestoreStep<ScheduleInput>[] {
  const isWanted = (schedule: Schedule, input: ScheduleInput): boolean => {
    const { recurrence, day, retention_seconds } = toSchedule(schedule);
    return (
      recurrence === input.frequency &&
      (recurrence !== 'weekly' || day === scheduleDay(input)) &&
      retention_seconds === input.retention_days * DAY_SECONDS
    );
  };
  return [
    {
      name: 'create',
      title: 'Making the schedule',
      kind: 'mutate',
      async run(context) {
        const { client, input, signal } = context;
        const known = (await client.listSchedules(signal)).map(({ name }) => name ?? '');
        await context.checkpoint({ known });
        const retention = `${input.retention_days * DAY_SECONDS}s`;
        const schedule = toSchedule(await client.createSchedule({ retention, day: scheduleDay(input) }, signal));
        await context.checkpoint({ known, schedule });
        return { schedule };
      },
      async recover(context) {
        const { client, handle, input } = context;
        if (handle === undefined) return { state: 'not_begun' };
        if (handle['schedule'] !== undefined) return { state: 'done', result: handle };
        const known = new Set(handle['known'] as string[]);
        const made = await lookThrice(context, async () => {
          const schedules = await client.listSchedules(recoverySignal(context.signal));
          return schedules.find((schedule) => !known.has(schedule.name ?? '') && isWanted(schedule, input));
        });
        return made === undefined
          ? { state: 'not_begun', message: 'there is no such schedule' }
          : { state: 'done', result: { schedule: toSchedule(made) } };
      },
    },
  ];
}

function scheduleFacts(project: string, schedule: Schedule): JsonObject {
  const { schedule_name, recurrence, day, retention_seconds, updated_at } = toSchedule(schedule);
  return {
    project,
    schedule: schedule_name,
    recurrence,
    day: day ?? null,
    retention_seconds: retention_seconds ?? null,
    updated_at: updated_at ?? null,
  };
}

/** Says what the database goes without once a schedule is gone. */
export async function planDeleteSchedule(context: Context, name: string): Promise<PlanDraft> {
  const { client, entity, signal } = context;
  const project = await client.project();
  const full = checkScheduleName(name, `projects/${project}/databases/${client.database}`);
  const [schedule, schedules, database] = await Promise.all([
    client.getSchedule(full, signal),
    client.listSchedules(signal),
    client.getDatabase(client.database, signal),
  ]);
  const { points } = await ownBackups(context, { state: 'exists', database });
  const newest = newestRestorable(points);
  const view = toSchedule(schedule);
  const others = schedules.filter((other) => other.name !== schedule.name).map(toSchedule);
  const kept = view['retention_seconds'] as number | undefined;
  const isKnown = view.recurrence !== 'unknown' && kept !== undefined && kept % DAY_SECONDS === 0;
  return {
    target: `${client.database}/${lastPart(full)}`,
    loses: `future protection: no more ${view.recurrence} backups are taken; those that exist stay until they expire`,
    blast_radius: {
      schedule: view,
      other_schedules: others,
      restorable_backups: points.filter(({ restorable }) => restorable).length,
      point_in_time_recovery: hasPitr(database),
    },
    ...(newest?.data_at === undefined ? {} : { newest_recovery_point: { id: newest.id, at: newest.data_at } }),
    undo: isKnown
      ? `create-backup-schedule with frequency ${view.recurrence}, retention_days ${kept / DAY_SECONDS}${view['day'] === undefined ? '' : ` and day ${view['day']}`}; days without it stay without a backup`
      : 'create-backup-schedule; days without it stay without a backup',
    alternatives: [
      {
        title: 'See what there is',
        risk: 'read',
        call: { entity: entity.key, action: 'list-backup-schedules', input: {} },
      },
    ],
    warnings: [
      ...(others.length === 0 ? ['This is the only schedule: no backups at all will be taken any more.'] : []),
      ...(hasPitr(database) ? [] : ['Point-in-time recovery is off too: only the last hour can be gone back to.']),
    ],
    facts: { target: scheduleFacts(project, schedule) },
  };
}

/** The step that removes a schedule; Firestore does it at once. */
export function deleteScheduleSteps(plan: Plan): FirestoreStep<{ schedule_name: string }>[] {
  const name = String(plan.facts.target['schedule']);
  return [
    {
      name: 'delete',
      title: 'Removing the schedule',
      kind: 'mutate',
      async run(context) {
        const { client, signal } = context;
        const schedule = await client.getSchedule(name, signal);
        refuseChange(plan, scheduleFacts(await client.project(), schedule), 'the schedule', 'removed');
        await context.checkpoint({ schedule_name: name });
        await client.deleteSchedule(name, signal);
        return { schedule_name: name };
      },
      async recover(context) {
        const { client, handle } = context;
        if (handle === undefined) return { state: 'not_begun' };
        const gone = await lookThrice(context, () =>
          isAbsent(() => client.getSchedule(name, recoverySignal(context.signal)), 'RESOURCE_NOT_FOUND'),
        );
        return gone === undefined
          ? { state: 'not_begun', message: 'the schedule is there as before' }
          : { state: 'done', result: handle };
      },
    },
  ];
}

/** Tells whether an export stays where the entity says that exports go. */
export function isConfiguredPlace(entity: FirestoreEntity, uri: string): boolean {
  return isWithin(uri, entity.export_uri_prefix);
}
