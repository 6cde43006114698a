import type { ProviderContext } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Step, StepContext } from '../../core/operation.ts';
import type { Plan, PlanDraft } from '../../core/plan.ts';
import type { RecoveryOption } from '../../core/provider.ts';
import type { BackupInfo, RecoveryPoint } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration } from '../../core/time.ts';
import { driftOf } from '../findings.ts';
import { follow as followWork, lookThrice, recoverySignal } from '../follow.ts';
import type { CloudSqlClient } from './client.ts';
import {
  type BackupRef,
  type BackupRun,
  backupStatus,
  describeWith,
  hasPitr,
  type Instance,
  instant,
  isDeleted,
  isUsable,
  markerFor,
  namedToPoint,
  operationError,
  operationStatus,
  parseBackupId,
  runToPoint,
} from './map.ts';
import type { CloudSqlEntity } from './provider.ts';
import { settingsFindings } from './settings.ts';

export type Context = ProviderContext<CloudSqlClient, CloudSqlEntity>;
type In<Input> = StepContext<CloudSqlClient, CloudSqlEntity, Input>;

const DEADLINE_MS = 3 * 3_600_000;
const PAGES = 20;

// --- reading -------------------------------------------------------------------------------------------------------

/** Gives all runs of an instance, newest first; stops after 20 pages and says so. */
export async function allRuns(
  client: CloudSqlClient,
  instance: string,
  signal: AbortSignal,
): Promise<{ runs: BackupRun[]; complete: boolean }> {
  const runs: BackupRun[] = [];
  let token: string | undefined;
  for (let page = 0; page < PAGES; page += 1) {
    const { items, next } = await client.listRuns(instance, { limit: 500, token }, signal);
    runs.push(...items.filter((run) => !isDeleted(run)));
    if (next === undefined) return { runs, complete: true };
    token = next;
  }
  return { runs, complete: false };
}

/** Gives the newest run that can be restored, by the end of the backup. */
export function newestRestorable(runs: readonly BackupRun[], before?: Date): RecoveryPoint | undefined {
  return runs
    .map(runToPoint)
    .filter(
      (point) => point.restorable && (before === undefined || Date.parse(point.data_at ?? '') <= before.getTime()),
    )
    .sort((a, b) => Date.parse(b.data_at ?? '') - Date.parse(a.data_at ?? ''))[0];
}

/** Finds the project-wide name of a run: only a named backup can make a new instance. */
export async function nameOfRun(
  client: CloudSqlClient,
  instance: string,
  id: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  let token: string | undefined;
  for (let page = 0; page < PAGES; page += 1) {
    const { items, next } = await client.listNamed(instance, { limit: 500, token }, signal);
    const found = items.find((backup) => (backup.backupRun ?? '').endsWith(`/instances/${instance}/backupRuns/${id}`));
    if (found?.name) return found.name;
    if (next === undefined) return undefined;
    token = next;
  }
  return undefined;
}

/** Reads one backup by either form of its id. */
export async function readPoint(
  client: CloudSqlClient,
  ref: BackupRef,
  instance: string,
  signal: AbortSignal,
): Promise<RecoveryPoint> {
  if (ref.kind === 'named') return namedToPoint(await client.getNamed(ref.name, signal));
  const run = await client.getRun(instance, ref.id, signal);
  if (isDeleted(run)) throw new HoldfastError('BACKUP_NOT_FOUND', 'this backup has been deleted');
  return runToPoint(run);
}

/** Gives the window of point-in-time recovery, or nothing where there is none at the moment. */
export async function windowOf(
  client: CloudSqlClient,
  instance: Instance,
  name: string,
  signal: AbortSignal,
): Promise<{ earliest_at: string; latest_at: string } | undefined> {
  if (!hasPitr(instance)) return undefined;
  try {
    const { earliest, latest } = await client.recoveryWindow(name, signal);
    const [earliestAt, latestAt] = [instant(earliest), instant(latest)];
    return earliestAt === undefined || latestAt === undefined
      ? undefined
      : { earliest_at: earliestAt, latest_at: latestAt };
  } catch (cause) {
    // Just switched on, or stopped: on, but without a window.
    if (cause instanceof HoldfastError && ['INVALID_STATE', 'INVALID_PARAMETER'].includes(cause.code)) return undefined;
    throw cause;
  }
}

/** Says how well an instance is backed up. */
export async function backupInfo({ client, entity, runtime, signal }: Context): Promise<BackupInfo> {
  const name = client.instance;
  const instance = await client.getInstance(name, signal);
  const [{ runs }, window] = await Promise.all([
    allRuns(client, name, signal),
    windowOf(client, instance, name, signal),
  ]);
  const settings = instance.settings ?? {};
  const backups = settings.backupConfiguration ?? {};
  const automated = backups.enabled === true;
  const kept = backups.backupRetentionSettings?.retainedBackups ?? undefined;
  const pitr = hasPitr(instance);
  const newest = newestRestorable(runs) ?? null;
  const warnings: string[] = [];
  if (!automated) warnings.push('Automated backups are off.');
  if (!pitr) warnings.push('Point-in-time recovery is off: everything since the newest backup would be lost.');
  if (pitr && window === undefined) warnings.push('Point-in-time recovery is on but gives no window at the moment.');
  if (newest === null) warnings.push('There is no backup that can be restored.');
  else if (newest.data_at !== undefined) {
    const age = (runtime.now().getTime() - Date.parse(newest.data_at)) / 1000;
    if (age > 2 * 86_400) warnings.push(`The newest restorable backup is ${formatDuration(age)} old.`);
  }
  const last = runs[0];
  if (last !== undefined && ['failed', 'skipped', 'overdue'].includes(backupStatus(last.status))) {
    warnings.push(`The last backup is ${backupStatus(last.status)}: it made no restorable copy.`);
  }
  if (settings.deletionProtectionEnabled !== true) warnings.push('Deletion protection is off.');
  if (settings.retainBackupsOnDelete !== true && settings.finalBackupConfig?.enabled !== true) {
    warnings.push('Backups are deleted together with the instance.');
  }
  if (instance.masterInstanceName)
    warnings.push('This is a read replica: it cannot be backed up; back up its primary.');
  if ((instance.replicaNames?.length ?? 0) > 0) {
    warnings.push('It has read replicas: they must be deleted before a restore in place.');
  }
  if (!isUsable(instance)) warnings.push('The instance is not running.');
  warnings.push(...driftOf(settingsFindings(entity, instance, undefined)));
  const kms = instance.diskEncryptionConfiguration?.kmsKeyName;
  return {
    automated,
    // One automated backup a day is kept by count.
    ...(automated && kept !== undefined ? { retention_seconds: kept * 86_400 } : {}),
    ...(automated && backups.startTime
      ? { schedule: `daily, window from ${cleanText(backups.startTime, 10)} UTC` }
      : {}),
    pitr: { enabled: pitr, ...(window === undefined ? {} : { window }) },
    encryption: kms ? `customer-managed key ${cleanText(kms)}` : 'Google-managed keys',
    deletion_protection: settings.deletionProtectionEnabled === true,
    newest,
    warnings,
    provider: {
      project: await client.project(),
      instance: name,
      state: cleanText(instance.state, 40),
      database_version: cleanText(instance.databaseVersion, 60),
      region: cleanText(instance.region, 60),
      ...(kept === undefined ? {} : { retained_backups: kept }),
      ...(backups.transactionLogRetentionDays ? { transaction_log_days: backups.transactionLogRetentionDays } : {}),
      ...(backups.backupTier ? { backup_tier: cleanText(backups.backupTier, 40) } : {}),
      ...(backups.location ? { backup_location: cleanText(backups.location, 60) } : {}),
      retain_backups_on_delete: settings.retainBackupsOnDelete === true,
      final_backup: settings.finalBackupConfig?.enabled === true,
      ...(settings.edition ? { edition: cleanText(settings.edition, 40) } : {}),
      ...(instance.replicaNames?.length ? { replicas: instance.replicaNames.map((one) => cleanText(one, 100)) } : {}),
    },
  };
}

/** Proposes the name of a new instance: the old one's with the day and time. */
export function newInstanceName(instance: string, now: Date): string {
  const stamp = now.toISOString().slice(0, 16).replace(/[-:]/g, '').replace('T', '-');
  return `${instance.slice(0, 98 - stamp.length - 9).replace(/-+$/, '')}-restore-${stamp}`;
}

/** Every way back: a moment into a new instance, a backup into a new instance, a backup over the instance. */
export async function recoveryOptions(
  { client, entity, runtime, signal }: Context,
  at: Date | undefined,
): Promise<RecoveryOption[]> {
  const name = client.instance;
  const instance = await client.getInstance(name, signal);
  // A read replica has no backups, and nothing is made of it: the ways back are those of its primary.
  if (instance.masterInstanceName) return [];
  const [{ runs }, window] = await Promise.all([
    allRuns(client, name, signal),
    windowOf(client, instance, name, signal),
  ]);
  const target = newInstanceName(name, runtime.now());
  const options: RecoveryOption[] = [];
  if (window !== undefined) {
    const moment = at ?? new Date(window.latest_at);
    if (moment.getTime() >= Date.parse(window.earliest_at) && moment.getTime() <= Date.parse(window.latest_at)) {
      options.push({
        title: `Point in time into the new instance ${target}`,
        moment: moment.toISOString(),
        loses: 'nothing: the instance stays as it is',
        risk: 'create',
        call: {
          entity: entity.key,
          action: 'restore',
          input: { restore_timestamp: moment.toISOString(), target_instance: target },
        },
      });
    }
  }
  const point = newestRestorable(runs, at);
  if (point?.data_at !== undefined) {
    options.push({
      title: `Backup ${point.id} into the new instance ${target}`,
      moment: point.data_at,
      loses: 'nothing: the instance stays as it is',
      risk: 'create',
      call: { entity: entity.key, action: 'restore', input: { backup_id: point.id, target_instance: target } },
    });
    if ((instance.replicaNames?.length ?? 0) === 0) {
      options.push({
        title: `Backup ${point.id} over the instance itself`,
        moment: point.data_at,
        loses: `everything written after ${point.data_at}, in all databases, and the history for point-in-time recovery`,
        risk: 'overwrite',
        call: { entity: entity.key, action: 'restore', input: { backup_id: point.id } },
      });
    }
  }
  return options;
}

// --- following -----------------------------------------------------------------------------------------------------

/** Follows work at Cloud SQL, from 5 to 30 s apart. */
export function follow<T>(
  context: Pick<In<unknown>, 'runtime' | 'signal'>,
  what: string,
  look: () => Promise<T | undefined>,
  deadlineMs = DEADLINE_MS,
): Promise<T> {
  const pace = { at: 'Cloud SQL', first_ms: 5000, longest_ms: 30_000 };
  return followWork(context, { what, deadline_ms: deadlineMs, ...pace }, look);
}

// --- taking a backup -----------------------------------------------------------------------------------------------

interface Taking {
  prefix: '' | 'safety-';
  instance: (context: In<unknown>) => string;
  description: string | undefined;
  /** Days after which the backup ends by itself: only a named one can. */
  keepDays?: number | undefined;
}

/** The steps that take a backup and wait until it can be restored. */
export function snapshotSteps<Input>(taking: Taking): Step<CloudSqlClient, CloudSqlEntity, Input>[] {
  const safety = taking.prefix === 'safety-';
  const isNamed = taking.keepDays !== undefined;
  const create: Step<CloudSqlClient, CloudSqlEntity, Input> = {
    name: `${taking.prefix}snapshot`,
    title: safety ? 'Taking a safety backup of the target' : 'Taking the backup',
    kind: 'mutate',
    async run(context) {
      const { client, signal } = context;
      const instance = taking.instance(context);
      const marker = markerFor(context.idempotencyKey, safety);
      await context.checkpoint({ instance, marker });
      const description = describeWith(taking.description, marker);
      const { keepDays } = taking;
      const operation =
        keepDays === undefined
          ? await client.createRun(instance, description, signal)
          : await client.createNamed(instance, { description, ttlDays: keepDays }, signal);
      const handle = { instance, marker, ...operationHandle(operation, keepDays !== undefined) };
      await context.checkpoint(handle);
      return handle;
    },
    async recover(context) {
      const { handle } = context;
      if (handle === undefined) return { state: 'not_begun' };
      if (handle['operation_name'] !== undefined) return { state: 'done', result: handle };
      const found = await lookThrice(context, () =>
        findByMarker(context.client, handle, isNamed, recoverySignal(context.signal)),
      );
      return found === undefined
        ? { state: 'not_begun', message: 'no backup with its mark exists' }
        : { state: 'done', result: { ...handle, backup_id: found } };
    },
  };
  const wait: Step<CloudSqlClient, CloudSqlEntity, Input> = {
    name: safety ? 'safety-wait' : 'wait',
    title: safety ? 'Waiting until the safety backup can be restored' : 'Waiting until the backup can be restored',
    kind: 'follow',
    async run(context) {
      const { client, signal } = context;
      const begun = context.results[create.name] ?? {};
      const instance = String(begun['instance']);
      const name = begun['operation_name'];
      let backupId = typeof begun['backup_id'] === 'string' ? begun['backup_id'] : undefined;
      const point = await follow(context, 'the backup', async () => {
        if (typeof name === 'string') {
          const operation = await client.getOperation(name, signal);
          context.progress({ message: `backup operation is ${operationStatus(operation)}` });
          if (operationStatus(operation) === 'failed') throw operationError(operation, 'the backup');
        }
        backupId ??= await findByMarker(client, begun, isNamed, signal);
        if (backupId === undefined) return undefined;
        const found = await readPoint(client, parseBackupId(backupId), instance, signal);
        context.progress({ message: `backup is ${found.status}` });
        return ['creating', 'unknown', 'overdue'].includes(found.status) ? undefined : found;
      });
      if (point.status !== 'available') {
        throw new HoldfastError('INVALID_STATE', `the backup is ${point.status}: it cannot be restored`, {
          retryable: false,
          hint: 'Look at the instance in the Cloud SQL console, then take another backup.',
          details: { backup_id: point.id },
        });
      }
      return { instance, own: instance === client.instance, point: point as unknown as JsonObject };
    },
  };
  return [create, wait];
}

function operationHandle(
  operation: {
    name?: string | null;
    user?: string | null;
    backupContext?: { backupId?: string | null; name?: string | null };
  },
  isNamed: boolean,
): JsonObject {
  const id = isNamed ? operation.backupContext?.name : operation.backupContext?.backupId;
  return {
    operation_name: String(operation.name ?? ''),
    ...(operation.user ? { user: cleanText(operation.user, 200) } : {}),
    ...(id ? { backup_id: String(id) } : {}),
  };
}

async function findByMarker(
  client: CloudSqlClient,
  begun: JsonObject,
  isNamed: boolean,
  signal: AbortSignal,
): Promise<string | undefined> {
  const [instance, marker] = [String(begun['instance']), String(begun['marker'])];
  const isOurs = ({ description }: { description?: string | null }): boolean => (description ?? '').endsWith(marker);
  if (!isNamed) {
    const { items } = await client.listRuns(instance, { limit: 50 }, signal);
    return items.find(isOurs)?.id ?? undefined;
  }
  // In no order that is promised: every page may have it.
  let token: string | undefined;
  for (let page = 0; page < PAGES; page += 1) {
    const { items, next } = await client.listNamed(instance, { limit: 500, token }, signal);
    const found = items.find(isOurs)?.name;
    if (found) return found;
    if (next === undefined) return undefined;
    token = next;
  }
  return undefined;
}

/** Gives the exact call that brings the target back to its safety backup. */
export function undoCall(results: Readonly<Record<string, JsonObject>>): JsonObject {
  const taken = results['safety-wait'] ?? results['safety-snapshot'] ?? {};
  const instance = String(taken['instance']);
  const point = taken['point'] as JsonObject | undefined;
  const id = String(point?.['id'] ?? results['safety-snapshot']?.['backup_id'] ?? '');
  return {
    action: 'restore',
    input: {
      backup_id: id,
      ...(taken['own'] === true ? {} : { source_instance: instance, target_instance: instance }),
    },
  };
}

// --- deleting a backup ---------------------------------------------------------------------------------------------

/** Says what deleting a backup takes away, and whether it is the last one. */
export async function planDelete({ client, entity, signal }: Context, backupId: string): Promise<PlanDraft> {
  const ref = parseBackupId(backupId);
  const project = await client.project();
  const point = await readPoint(client, ref, client.instance, signal);
  const instance = ref.kind === 'run' ? client.instance : String(point.provider?.['instance'] ?? '');
  // A backup of another database must not be deleted in this one's name: its own policy would be passed by.
  if (instance !== client.instance || (ref.kind === 'named' && !ref.name.startsWith(`projects/${project}/`))) {
    throw new HoldfastError('INVALID_PARAMETER', 'this backup belongs to another instance', {
      hint: 'Call delete-snapshot on the entity that the backup belongs to.',
    });
  }
  if (point.status === 'creating' || point.status === 'deleting') {
    throw new HoldfastError('INVALID_STATE', `the backup is ${point.status}`);
  }
  const others = await otherRestorable(client, ref, point, signal);
  const at = point.data_at ?? point.created_at;
  return {
    target: ref.kind === 'run' ? `${client.instance}/${ref.id}` : ref.name,
    source: undefined,
    loses: `the ${point.kind} backup ${point.id}${at === undefined ? '' : ` of ${at}`}; this cannot be undone`,
    blast_radius: {
      status: point.status,
      ...(point.size_bytes === undefined ? {} : { size_bytes: point.size_bytes }),
      other_restorable_backups: others.count,
    },
    ...(others.newest === undefined ? {} : { newest_recovery_point: others.newest }),
    last_restorable: point.restorable && others.count === 0,
    undo: 'none: a deleted backup cannot be brought back',
    alternatives: [
      {
        title: 'Take a new backup first',
        risk: 'create',
        call: { entity: entity.key, action: 'create-snapshot', input: {} },
      },
    ],
    warnings:
      point.kind === 'automated' ? ['Point-in-time recovery needs a base backup: the window may become shorter.'] : [],
    facts: {
      target: {
        project,
        instance: client.instance,
        backup: point.id,
        status: point.status,
        ...(at === undefined ? {} : { at }),
      },
    },
  };
}

async function otherRestorable(
  client: CloudSqlClient,
  ref: BackupRef,
  point: RecoveryPoint,
  signal: AbortSignal,
): Promise<{ count: number; newest: { id: string; at: string } | undefined }> {
  let points: RecoveryPoint[];
  const final = point.kind === 'final';
  if (final) {
    const { items } = await client.listNamed(client.instance, { limit: 500 }, signal);
    points = items.map(namedToPoint).filter((other) => other.id !== point.id);
  } else {
    const { runs } = await allRuns(client, client.instance, signal);
    const own =
      ref.kind === 'run'
        ? ref.id
        : String(point.provider?.['backup_run'] ?? '')
            .split('/')
            .at(-1);
    points = runs.map(runToPoint).filter((other) => other.id !== own);
  }
  const usable = points
    .filter((other) => other.restorable)
    .sort((a, b) => Date.parse(b.data_at ?? '') - Date.parse(a.data_at ?? ''));
  const [first] = usable;
  return {
    count: usable.length,
    newest: first?.data_at === undefined ? undefined : { id: first.id, at: first.data_at },
  };
}

/** The steps that delete a backup and wait until it is gone. */
export function deleteSteps(
  backupId: string,
  plan: Plan,
): Step<CloudSqlClient, CloudSqlEntity, { backup_id: string }>[] {
  const ref = parseBackupId(backupId);
  const look = async (client: CloudSqlClient, signal: AbortSignal): Promise<RecoveryPoint | undefined> => {
    try {
      return await readPoint(client, ref, client.instance, signal);
    } catch (cause) {
      if (cause instanceof HoldfastError && cause.code === 'BACKUP_NOT_FOUND') return undefined;
      throw cause;
    }
  };
  return [
    {
      name: 'delete',
      title: 'Deleting the backup',
      kind: 'mutate',
      async run(context) {
        const { client, signal } = context;
        const point = await look(client, signal);
        if (point === undefined) throw new HoldfastError('BACKUP_NOT_FOUND', 'the backup is gone already');
        const at = point.data_at ?? point.created_at;
        if (point.status !== plan.facts.target['status'] || at !== plan.facts.target['at']) {
          throw new HoldfastError('INVALID_STATE', 'the backup changed after the plan was made; nothing was deleted');
        }
        await context.checkpoint({ backup_id: backupId });
        const operation = await client.deleteBackup(ref, signal);
        const handle = { backup_id: backupId, operation_name: String(operation.name ?? '') };
        await context.checkpoint(handle);
        return handle;
      },
      async recover(context) {
        const { handle, client } = context;
        if (handle === undefined) return { state: 'not_begun' };
        if (handle['operation_name'] !== undefined) return { state: 'done', result: handle };
        // Gone, being deleted or failed at it: it has begun.
        const begun = await lookThrice(context, async () => {
          const point = await look(client, recoverySignal(context.signal));
          return point === undefined || point.status.startsWith('delet') ? { status: point?.status } : undefined;
        });
        if (begun === undefined) return { state: 'not_begun', message: 'the backup is there as before' };
        if (begun.status === 'delete_failed')
          return { state: 'failed', message: 'Cloud SQL could not delete the backup' };
        return { state: 'done', result: handle };
      },
    },
    {
      name: 'wait',
      title: 'Waiting until the backup is gone',
      kind: 'follow',
      async run(context) {
        const { client, signal } = context;
        const name = context.results['delete']?.['operation_name'];
        const isGone = async (): Promise<true | undefined> => {
          const point = await look(client, signal);
          if (point === undefined) return true;
          context.progress({ message: `backup is ${point.status}` });
          if (point.status === 'delete_failed') {
            throw new HoldfastError('INVALID_STATE', 'Cloud SQL could not delete the backup', {
              retryable: false,
              hint: 'It may be held by a retention policy. Look at it in the Cloud SQL console.',
            });
          }
          if (typeof name === 'string' && name !== '') {
            const operation = await client.getOperation(name, signal);
            if (operationStatus(operation) === 'failed') throw operationError(operation, 'the deletion');
          }
          return undefined;
        };
        await follow(context, 'the deletion', isGone, 3_600_000);
        return { backup_id: backupId, deleted: true };
      },
    },
  ];
}
