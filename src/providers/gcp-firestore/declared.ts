import { HoldfastError } from '../../core/errors.ts';
import { digestOf } from '../../core/json.ts';
import type { StepContext } from '../../core/operation.ts';
import type { SettingFinding, SettingsReading } from '../../core/settings.ts';
import { cleanText } from '../../core/text.ts';
import { isStill } from '../findings.ts';
import type { Context } from './backups.ts';
import type { FirestoreClient } from './client.ts';
import type { Database, Schedule } from './map.ts';
import type { FirestoreEntity } from './provider.ts';
import { FREQUENCIES, SCHEDULE_WRITES, scheduleOf, scheduleWrite, settingsFindings } from './settings.ts';

async function look({ client, entity, signal }: Context): Promise<{ database: Database; schedules: Schedule[] }> {
  const [database, schedules] = await Promise.all([
    client.getDatabase(client.database, signal),
    entity.backup_schedules === undefined ? [] : client.listSchedules(signal),
  ]);
  return { database, schedules };
}

/** Reads the declared settings of the database. */
export async function readSettings(context: Context): Promise<SettingsReading> {
  const { client, entity } = context;
  const [project, { database, schedules }] = await Promise.all([client.project(), look(context)]);
  return {
    target: `${project}/${client.database}`,
    identity: { project, database: client.database, uid: cleanText(database.uid, 60) },
    findings: settingsFindings(entity, database, schedules),
  };
}

/**
 * Sends one request: the settings of the database with the etag that was read, or one schedule.
 * @throws {HoldfastError} PLAN_CHANGED when somebody changed them in between
 */
export async function writeSettings(
  context: StepContext<FirestoreClient, FirestoreEntity, unknown>,
  write: string,
  findings: readonly SettingFinding[],
): Promise<void> {
  const { client, entity, signal } = context;
  const { database, schedules } = await look(context);
  if (!isStill(findings, settingsFindings(entity, database, schedules))) {
    throw new HoldfastError('PLAN_CHANGED', 'the settings changed after the plan was made; nothing was changed', {
      hint: 'Call again: a new plan shows what they are now.',
    });
  }
  for (const frequency of FREQUENCIES) {
    const what = SCHEDULE_WRITES.find((one) => scheduleWrite(one, frequency) === write);
    if (what === undefined) continue;
    const name = String(scheduleOf(schedules, frequency)?.name);
    if (what === 'delete') return client.deleteSchedule(name, signal);
    const wanted = entity.backup_schedules?.find((one) => one.frequency === frequency);
    const retention = `${Number(wanted?.retention_days) * 86_400}s`;
    if (what === 'update') await client.updateSchedule(name, retention, signal);
    else {
      const day = frequency === 'weekly' ? (wanted?.day ?? 'SUNDAY') : undefined;
      await client.createSchedule({ retention, day }, signal);
    }
    return;
  }
  const wanted = new Map(findings.map(({ setting, declared }) => [setting, String(declared)]));
  await client.updateDatabase(
    {
      etag: database.etag,
      pointInTimeRecoveryEnablement: wanted.get('point_in_time_recovery'),
      deleteProtectionState: wanted.get('delete_protection'),
    },
    signal,
  );
}

/** Gives what any request of ours changes: the database, its schedules, or the list of its operations. */
export async function settingsMark(context: Context): Promise<string> {
  const { client, signal } = context;
  const [{ database, schedules }, operations] = await Promise.all([
    look(context),
    client.listOperations(client.database, signal),
  ]);
  return digestOf([
    database.etag ?? null,
    schedules.map(({ name, updateTime }) => [name ?? null, updateTime ?? null]).sort(),
    operations.map(({ name }) => name ?? null).sort(),
  ]);
}
