import type { BackupDescription, BackupSummary } from '@aws-sdk/client-dynamodb';
import type { ProviderContext } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import { type JsonObject, sha256 } from '../../core/json.ts';
import type { Step, StepContext } from '../../core/operation.ts';
import { pageOf } from '../../core/page.ts';
import { compareFacts, type Plan, type PlanDraft } from '../../core/plan.ts';
import type { RecoveryOption } from '../../core/provider.ts';
import type { BackupInfo, RecoveryPoint, SnapshotList } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration } from '../../core/time.ts';
import { driftOf } from '../findings.ts';
import { type FollowContext, follow, lookThrice, recoverySignal } from '../follow.ts';
import type { DynamoDbClient } from './client.ts';
import { settingsFindings } from './declared.ts';
import {
  backupToPoint,
  billingMode,
  checkName,
  descriptionToPoint,
  encryptionOf,
  type Recovery,
  readBackupRef,
  recoveryFrom,
  shortId,
} from './map.ts';
import type { DynamoDbEntity } from './provider.ts';

export type Context = ProviderContext<DynamoDbClient, DynamoDbEntity>;
export type In<Input> = StepContext<DynamoDbClient, DynamoDbEntity, Input>;
type StepOf<Input> = Step<DynamoDbClient, DynamoDbEntity, Input>;

export interface BackupInput {
  backup_arn?: string | undefined;
  snapshot_id?: string | undefined;
}

const DAY = 86_400;
/** Pages of a hundred backups; the service gives five a second. */
const PAGES = 50;
/** How far our clock and Amazon's may be apart; a signature of a clock further off is refused. */
export const CLOCK_SKEW_MS = 20 * 60_000;

// --- reading -------------------------------------------------------------------------------------------------------

/** Gives all backups of the table, also of an earlier one of its name, newest first; stops after 50 pages and says so. */
export async function allBackups(
  client: DynamoDbClient,
  signal: AbortSignal,
  from?: Date,
): Promise<{ points: RecoveryPoint[]; complete: boolean }> {
  const found: BackupSummary[] = [];
  let after: string | undefined;
  let complete = false;
  for (let page = 0; page < PAGES && !complete; page += 1) {
    const { items, next } = await client.listBackups({ from, after }, signal);
    found.push(...items);
    complete = next === undefined;
    after = next;
  }
  const points = found
    .map((backup) => backupToPoint(backup, client.region))
    .filter(({ status }) => status !== 'deleted');
  return { points: points.sort((a, b) => (orderOf(a) < orderOf(b) ? 1 : -1)), complete };
}

function orderOf(point: RecoveryPoint): string {
  return `${point.created_at ?? ''} ${point.id}`;
}

/** Lists the backups of the table, newest first. */
export async function listBackups(
  { client, signal }: Context,
  { limit, cursor }: { limit?: number | undefined; cursor?: string | undefined },
): Promise<SnapshotList> {
  const { points, complete } = await allBackups(client, signal);
  const { items, next_cursor } = pageOf(points, limit, cursor, orderOf);
  return {
    snapshots: items,
    ...(next_cursor === undefined ? {} : { next_cursor }),
    notes: [
      'Recovery points of the AWS Backup service are not shown here.',
      ...(complete ? [] : [`Only ${PAGES * 100} backups were read, in no order: newer ones may be missing.`]),
    ],
  };
}

/** Gives the newest backup that can be restored. */
export function newestRestorable(points: readonly RecoveryPoint[], before?: Date): RecoveryPoint | undefined {
  return points.find(
    (point) => point.restorable && (before === undefined || Date.parse(point.created_at ?? '') <= before.getTime()),
  );
}

/**
 * Finds the ARN of a backup that a caller names.
 * @throws {HoldfastError} SNAPSHOT_NOT_FOUND; INVALID_PARAMETER for a name that several backups have
 */
export async function resolveBackup(client: DynamoDbClient, input: BackupInput, signal: AbortSignal): Promise<string> {
  const ref = readBackupRef(input, client);
  if (ref.kind === 'arn') return ref.arn;
  if (ref.kind === 'id') {
    const table = await client.lookUp(client.table, signal);
    if (table?.TableArn !== undefined) return `${table.TableArn}/backup/${ref.id}`;
  }
  const { points, complete } = await allBackups(client, signal);
  const same = points.filter((point) =>
    ref.kind === 'id' ? shortId(point.id) === ref.id : point.description === ref.name,
  );
  const [only] = same;
  if (same.length > 1 || (only !== undefined && !complete)) {
    throw new HoldfastError('INVALID_PARAMETER', 'this name does not tell one backup: give its ARN', {
      hint: 'Names of DynamoDB backups repeat. Take the ARN of the one that is meant from list-snapshots.',
      details: { backups: same.slice(0, 20).map((point) => ({ backup_arn: point.id, created_at: point.created_at })) },
    });
  }
  if (only === undefined) throw new HoldfastError('SNAPSHOT_NOT_FOUND', 'no backup of the table has this id or name');
  return only.id;
}

/** Reads one backup. */
export async function readBackup({ client, signal }: Context, input: BackupInput): Promise<RecoveryPoint> {
  const arn = await resolveBackup(client, input, signal);
  return descriptionToPoint(await client.describeBackup(arn, signal), client.region);
}

/** Says how far back point-in-time recovery reaches. */
export async function recoveryOf(client: DynamoDbClient, signal: AbortSignal): Promise<Recovery> {
  return recoveryFrom(await client.continuousBackups(client.table, signal));
}

/** Says how well the table is backed up. */
export async function backupInfo({ client, entity, runtime, signal }: Context): Promise<BackupInfo> {
  const [table, pitr, { points, complete }] = await Promise.all([
    client.describeTable(client.table, signal).catch((cause: unknown) => {
      throw goneError(cause);
    }),
    recoveryOf(client, signal).catch((cause: unknown) => {
      throw goneError(cause);
    }),
    allBackups(client, signal),
  ]);
  const tags = entity.tags === undefined ? undefined : await client.tags(String(table.TableArn), signal);
  const newest = newestRestorable(points) ?? null;
  const warnings: string[] = [];
  if (!pitr.enabled) warnings.push('Point-in-time recovery is off: everything since the newest backup would be lost.');
  if (pitr.enabled && pitr.window === undefined) {
    warnings.push('Point-in-time recovery is on but gives no window at the moment.');
  }
  if (newest === null) {
    warnings.push(
      pitr.window === undefined
        ? 'Nothing can be restored: there is no backup.'
        : 'There is no backup: past the window of point-in-time recovery nothing can be restored.',
    );
  } else if (!pitr.enabled && newest.created_at !== undefined) {
    const age = (runtime.now().getTime() - Date.parse(newest.created_at)) / 1000;
    if (age > 2 * DAY) warnings.push(`The newest restorable backup is ${formatDuration(age)} old.`);
  }
  if (!complete) warnings.push(`There are more than ${PAGES * 100} backups: the newest may not be among those read.`);
  if (table.DeletionProtectionEnabled !== true) warnings.push('Deletion protection is off.');
  if (table.TableStatus !== 'ACTIVE') warnings.push(`The table is ${cleanText(table.TableStatus, 60)}.`);
  if ((table.Replicas?.length ?? 0) > 0) {
    warnings.push('It is a global table: a restore makes a plain table in this region only.');
  }
  warnings.push(...driftOf(settingsFindings(entity, { table, recovery: pitr, tags })));
  return {
    automated: pitr.enabled,
    ...(pitr.days === undefined ? {} : { retention_seconds: pitr.days * DAY }),
    ...(pitr.enabled ? { schedule: 'continuous, to the second' } : {}),
    pitr: { enabled: pitr.enabled, ...(pitr.window === undefined ? {} : { window: pitr.window }) },
    encryption: encryptionOf(table),
    deletion_protection: table.DeletionProtectionEnabled === true,
    newest,
    warnings,
    provider: {
      table: client.table,
      table_arn: cleanText(table.TableArn, 400),
      table_status: cleanText(table.TableStatus, 60),
      billing_mode: billingMode(table),
      ...(table.TableSizeBytes === undefined ? {} : { table_size_bytes: table.TableSizeBytes }),
      ...(table.ItemCount === undefined ? {} : { items: table.ItemCount }),
      counted: 'about every six hours',
      backups: points.length,
      not_shown: 'recovery points of the AWS Backup service',
      ...(table.Replicas?.length ? { replicas: table.Replicas.map((one) => cleanText(one.RegionName, 40)) } : {}),
      ...(table.RestoreSummary === undefined ? {} : { made_by_restore: true }),
    },
  };
}

function goneError(cause: unknown): unknown {
  if (!(cause instanceof HoldfastError) || cause.code !== 'RESOURCE_NOT_FOUND') return cause;
  return new HoldfastError('RESOURCE_NOT_FOUND', cause.message, {
    hint: 'Check table_name and region. If the table was deleted, list-snapshots shows the backups that are left; one that had point-in-time recovery left a SYSTEM backup for 35 days.',
    provider: cause.provider,
    cause,
  });
}

/** Proposes the name of a new table: the old one's with the day and time. */
export function newTableName(table: string, now: Date): string {
  const stamp = now.toISOString().slice(0, 16).replace(/[-:]/g, '').replace('T', '-');
  return `${table.slice(0, 255 - stamp.length - 9)}-restore-${stamp}`;
}

/** Every way back: a moment, or a backup; always into a new table. */
export async function recoveryOptions(
  { client, entity, runtime, signal }: Context,
  at: Date | undefined,
): Promise<RecoveryOption[]> {
  const table = await client.lookUp(client.table, signal);
  const [{ points }, pitr] = await Promise.all([
    allBackups(client, signal),
    table === undefined ? undefined : recoveryOf(client, signal),
  ]);
  const target = newTableName(client.table, runtime.now());
  const loses = table === undefined ? 'nothing: the table is gone' : 'nothing: the table stays as it is';
  const options: RecoveryOption[] = [];
  const window = pitr?.window;
  if (window !== undefined) {
    const moment = at ?? new Date(window.latest_at);
    const reached =
      moment.getTime() >= Date.parse(window.earliest_at) && moment.getTime() <= Date.parse(window.latest_at);
    if (reached) {
      options.push({
        title: `Point in time into the new table ${target}`,
        moment: moment.toISOString(),
        loses,
        risk: 'create',
        call: {
          entity: entity.key,
          action: 'restore',
          input:
            at === undefined
              ? { use_latest: true, target_table: target }
              : { restore_timestamp: moment.toISOString(), target_table: target },
        },
      });
    }
  }
  const point = newestRestorable(points, at);
  if (point?.created_at !== undefined) {
    options.push({
      title: `Backup ${shortId(point.id)} into the new table ${target}`,
      moment: point.created_at,
      loses,
      risk: 'create',
      call: { entity: entity.key, action: 'restore', input: { backup_arn: point.id, target_table: target } },
    });
  }
  return options;
}

// --- following -----------------------------------------------------------------------------------------------------

/** Looks again, at growing intervals, until a backup or a table is as it should be. */
export function followAt<T>(
  context: FollowContext,
  what: string,
  pace: { first_ms: number; longest_ms: number; deadline_ms: number },
  look: () => Promise<T | undefined>,
): Promise<T> {
  return follow(context, { what, at: 'DynamoDB', ...pace }, look);
}

const BACKUP_PACE = { first_ms: 2000, longest_ms: 15_000, deadline_ms: 3_600_000 };

// --- taking a backup -----------------------------------------------------------------------------------------------

export interface CreateInput {
  backup_name?: string | undefined;
}

/** Makes the name of a backup that the caller did not name: the table, the time and a mark of the call. */
export function generatedName(table: string, key: string, now: Date): string {
  const stamp = now.toISOString().slice(0, 19).replace(/[-:]/g, '');
  const end = `-${stamp}Z-${sha256(key).slice(0, 8)}`;
  return `${table.slice(0, 255 - end.length)}${end}`;
}

async function namedSo(
  client: DynamoDbClient,
  name: string,
  signal: AbortSignal,
  from?: Date,
): Promise<{ arns: string[]; complete: boolean }> {
  const { points, complete } = await allBackups(client, signal, from);
  return { arns: points.filter((point) => point.description === name).map(({ id }) => id), complete };
}

/**
 * Takes a backup and waits until it can be restored. DynamoDB makes one more full backup of each repeated request and
 * has no token against it: the name is one that no backup has, so that it finds the backup when an answer is lost.
 */
export function createSteps(): StepOf<CreateInput>[] {
  return [
    {
      name: 'snapshot',
      title: 'Taking the backup',
      kind: 'mutate',
      async run(context) {
        const { client, handle, input, runtime, signal } = context;
        // Looked at once more after a crash, the step keeps its name and takes what bears it for its own.
        const name = String(
          handle?.['name'] ??
            (input.backup_name === undefined
              ? generatedName(client.table, context.idempotencyKey, runtime.now())
              : checkName(input.backup_name, 'backup_name')),
        );
        const began = String(handle?.['began_at'] ?? runtime.now().toISOString());
        const mark = { name, began_at: began };
        if (handle !== undefined || input.backup_name !== undefined) {
          const from = handle === undefined ? undefined : new Date(Date.parse(began) - CLOCK_SKEW_MS);
          const { arns, complete } = await namedSo(client, name, signal, from);
          const [found] = arns;
          if (handle !== undefined && found !== undefined) return { ...mark, backup_arn: found };
          if (found !== undefined) {
            throw new HoldfastError('RESOURCE_EXISTS', `a backup named ${name} exists already`, {
              hint: 'If it is from an earlier call without an answer, use it. Otherwise choose another backup_name, or leave it out.',
              details: { backup_arn: found, outcome: 'not_sent' },
            });
          }
          if (!complete) {
            throw new HoldfastError('INVALID_STATE', 'it is not known whether this backup_name is in use', {
              retryable: false,
              hint: 'The table has too many backups to look through. Leave backup_name out: the name is then made unique.',
              details: { outcome: 'not_sent' },
            });
          }
        }
        await context.checkpoint(mark);
        const backup = await client.createBackup(name, signal);
        const done = { ...mark, backup_arn: String(backup.BackupArn) };
        await context.checkpoint(done);
        return done;
      },
      async recover(context) {
        const { client, handle } = context;
        if (handle === undefined) return { state: 'not_begun' };
        if (handle['backup_arn'] !== undefined) return { state: 'done', result: handle };
        const from = new Date(Date.parse(String(handle['began_at'])) - CLOCK_SKEW_MS);
        const signal = recoverySignal(context.signal);
        let complete = true;
        // Nine looks over more than half a minute: a list may be behind, and a second backup must not follow.
        for (let turn = 0; turn < 9; turn += 1) {
          if (turn > 0) await context.runtime.sleep(Math.min(1000 * turn, 6000), signal);
          const seen = await namedSo(client, String(handle['name']), signal, from);
          complete = seen.complete;
          const [found] = seen.arns;
          if (found !== undefined && seen.arns.length === 1) {
            return { state: 'done', result: { ...handle, backup_arn: found } };
          }
          if (found !== undefined) {
            return { state: 'unknown', message: 'more than one backup bears the name of this one' };
          }
        }
        return complete
          ? { state: 'not_begun', message: 'no backup with its name exists' }
          : { state: 'unknown', message: 'there are too many backups to find this one' };
      },
    },
    {
      name: 'wait',
      title: 'Waiting until the backup can be restored',
      kind: 'follow',
      async run(context) {
        const { client, signal } = context;
        const arn = String(context.results['snapshot']?.['backup_arn']);
        let missing = 0;
        const point = await followAt(context, 'the backup', BACKUP_PACE, async () => {
          const backup = await describeOrNothing(client, arn, signal);
          if (backup === undefined) {
            // One that was just made may take a moment to show.
            missing += 1;
            if (missing < 5) return undefined;
            throw new HoldfastError('SNAPSHOT_NOT_FOUND', 'the backup is gone: someone deleted it, or it failed', {
              hint: 'Take another backup.',
              details: { backup_arn: arn },
            });
          }
          missing = 0;
          const seen = descriptionToPoint(backup, client.region);
          context.progress({ message: `backup is ${seen.status}` });
          return ['available', 'deleted'].includes(seen.status) ? seen : undefined;
        });
        if (point.status !== 'available') {
          throw new HoldfastError('SNAPSHOT_NOT_FOUND', 'the backup was deleted while it was taken', {
            details: { backup_arn: arn },
          });
        }
        return { point: point as unknown as JsonObject };
      },
    },
  ];
}

async function describeOrNothing(
  client: DynamoDbClient,
  arn: string,
  signal: AbortSignal,
): Promise<BackupDescription | undefined> {
  try {
    return await client.describeBackup(arn, signal);
  } catch (cause) {
    if (cause instanceof HoldfastError && cause.code === 'SNAPSHOT_NOT_FOUND') return undefined;
    throw cause;
  }
}

// --- deleting a backup ---------------------------------------------------------------------------------------------

function deleteFacts(client: DynamoDbClient, point: RecoveryPoint): JsonObject {
  return {
    region: client.region,
    table: client.table,
    backup_arn: point.id,
    kind: point.kind,
    status: point.status,
    created_at: point.created_at ?? null,
  };
}

function checkDeletable(point: RecoveryPoint): void {
  if (point.kind === 'aws_backup') {
    throw new HoldfastError('NOT_SUPPORTED', 'this backup belongs to the AWS Backup service', {
      hint: 'Delete it from its vault in AWS Backup.',
    });
  }
  if (point.status === 'creating') throw new HoldfastError('INVALID_STATE', 'the backup is still being taken');
}

/** Says what deleting a backup takes away, and whether it is the last one. */
export async function planDelete(context: Context, input: BackupInput): Promise<PlanDraft> {
  const { client, entity, signal } = context;
  const point = await readBackup(context, input);
  checkDeletable(point);
  const { points, complete } = await allBackups(client, signal);
  const others = points.filter((other) => other.restorable && other.id !== point.id);
  const [newest] = others;
  const pitr = await recoveryOf(client, signal).catch((cause: unknown) => {
    if (cause instanceof HoldfastError && ['RESOURCE_NOT_FOUND', 'INSUFFICIENT_PERMISSIONS'].includes(cause.code)) {
      return undefined;
    }
    throw cause;
  });
  const gone = pitr === undefined && (await client.lookUp(client.table, signal)) === undefined;
  return {
    target: `${client.table}/${shortId(point.id)}`,
    loses: `the ${point.kind} backup ${shortId(point.id)}${point.created_at === undefined ? '' : ` of ${point.created_at}`}; this cannot be undone`,
    blast_radius: {
      region: client.region,
      ...(point.description === undefined ? {} : { backup_name: point.description }),
      ...(point.size_bytes === undefined ? {} : { size_bytes: point.size_bytes }),
      other_restorable_backups: others.length,
      point_in_time_recovery: pitr === undefined ? 'unknown' : pitr.enabled,
      ...(pitr?.window === undefined ? {} : { recovery_window: { ...pitr.window } }),
    },
    ...(newest?.created_at === undefined ? {} : { newest_recovery_point: { id: newest.id, at: newest.created_at } }),
    last_restorable: point.restorable && others.length === 0,
    undo: 'none: a deleted backup cannot be brought back',
    alternatives: gone
      ? []
      : [
          {
            title: 'Take a new backup first',
            risk: 'create',
            call: { entity: entity.key, action: 'create-snapshot', input: {} },
          },
        ],
    warnings: [
      ...(gone ? ['The table no longer exists: this backup may be all that is left of it.'] : []),
      ...(point.kind === 'system' ? ['DynamoDB took this backup when a table of this name was deleted.'] : []),
    ],
    unknowns: [
      ...(complete ? [] : ['how many other backups there are: not all could be read']),
      'recovery points of the AWS Backup service: this API does not show them',
    ],
    facts: { target: deleteFacts(client, point) },
  };
}

/** Deletes one backup and waits until it is gone. */
export function deleteSteps(plan: Plan): StepOf<BackupInput>[] {
  const arn = String(plan.facts.target['backup_arn']);
  return [
    {
      name: 'delete',
      title: 'Deleting the backup',
      kind: 'mutate',
      async run(context) {
        const { client, signal } = context;
        const point = descriptionToPoint(await client.describeBackup(arn, signal), client.region);
        const changed = compareFacts(plan.facts.target, deleteFacts(client, point));
        if (changed.length > 0) {
          throw new HoldfastError('INVALID_STATE', 'the backup is not what the plan says; nothing was deleted', {
            hint: 'Make the call again for a new plan.',
            details: { differences: changed as unknown as JsonObject[] },
          });
        }
        await context.checkpoint({ backup_arn: arn });
        await client.deleteBackup(arn, signal);
        return { backup_arn: arn };
      },
      async recover(context) {
        if (context.handle === undefined) return { state: 'not_begun' };
        const signal = recoverySignal(context.signal);
        const gone = await lookThrice(context, async () =>
          (await describeOrNothing(context.client, arn, signal)) === undefined ? true : undefined,
        );
        return gone === true
          ? { state: 'done', result: { backup_arn: arn } }
          : { state: 'not_begun', message: 'the backup is still there' };
      },
    },
    {
      name: 'wait',
      title: 'Waiting until the backup is gone',
      kind: 'follow',
      async run(context) {
        const { client, signal } = context;
        await followAt(context, 'the deletion', BACKUP_PACE, async () => {
          const backup = await describeOrNothing(client, arn, signal);
          return backup === undefined || backup.BackupDetails?.BackupStatus === 'DELETED' ? true : undefined;
        });
        return { backup_arn: arn };
      },
    },
  ];
}
