import type { TableDescription } from '@aws-sdk/client-dynamodb';
import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Step } from '../../core/operation.ts';
import { type Alternative, compareFacts, type Plan, type PlanDraft } from '../../core/plan.ts';
import type { RecoveryPoint, RestoreJob } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration, parseInstant } from '../../core/time.ts';
import { lookThrice, recoverySignal } from '../follow.ts';
import {
  type BackupInput,
  CLOCK_SKEW_MS,
  type Context,
  followAt,
  type In,
  recoveryOf,
  resolveBackup,
} from './backups.ts';
import type { DynamoDbClient, Moment } from './client.ts';
import {
  billingMode,
  checkName,
  descriptionToPoint,
  encryptionOf,
  instant,
  type Recovery,
  restoreState,
  shortId,
  tableToJob,
} from './map.ts';
import type { DynamoDbEntity } from './provider.ts';
import {
  type LostSettings,
  type Setting,
  settingStep,
  settingsOf,
  settingsOfBackup,
  showSettings,
  type Wanted,
  wantedSettings,
} from './settings.ts';

export interface RestoreInput extends BackupInput {
  restore_timestamp?: string | number | undefined;
  use_latest?: boolean | undefined;
  target_table: string;
  reapply?: Setting[] | undefined;
}

const RESTORE_PACE = { first_ms: 10_000, longest_ms: 60_000, deadline_ms: 48 * 3_600_000 };

function invalid(message: string, hint: string, details?: JsonObject): HoldfastError {
  return new HoldfastError('INVALID_PARAMETER', message, { hint, ...(details === undefined ? {} : { details }) });
}

/** Reads which of the three sources a call names; exactly one. */
function readSource(input: RestoreInput): { kind: 'backup' } | { kind: 'moment'; moment: Moment } {
  const named = input.backup_arn !== undefined || input.snapshot_id !== undefined;
  const ways = [named, input.restore_timestamp !== undefined, input.use_latest === true].filter(Boolean);
  if (ways.length !== 1) {
    throw invalid(
      'restore needs exactly one of backup_arn (or snapshot_id), restore_timestamp and use_latest',
      'Take a backup from list-snapshots, or a moment within the window of get-backup-info.',
    );
  }
  if (named) return { kind: 'backup' };
  if (input.use_latest === true) return { kind: 'moment', moment: 'latest' };
  const at = parseInstant(input.restore_timestamp as string | number, 'restore_timestamp');
  // DynamoDB knows whole seconds.
  return { kind: 'moment', moment: new Date(Math.floor(at.getTime() / 1000) * 1000) };
}

function existsError(target: string, table: TableDescription): HoldfastError {
  const running = table.RestoreSummary?.RestoreInProgress === true;
  return new HoldfastError('RESOURCE_EXISTS', `the table ${target} exists already`, {
    hint: running
      ? 'A restore into it is running: look at it with get-restore-status, or choose another target_table.'
      : 'DynamoDB never restores onto a table. Choose a target_table that is not in use.',
    details: { target_table: target, restore_in_progress: running, outcome: 'not_sent' },
  });
}

function targetFacts(client: DynamoDbClient, target: string, table: TableDescription | undefined): JsonObject {
  return { region: client.region, table: target, exists: table !== undefined };
}

// --- the plan ------------------------------------------------------------------------------------------------------

/** Looks at source and target and says what the new table will have and lack; nothing that exists is ever changed. */
export async function planRestore(context: Context, input: RestoreInput): Promise<PlanDraft> {
  const { client, entity, runtime, signal } = context;
  const source = readSource(input);
  const target = checkName(input.target_table, 'target_table');
  const [existing, table] = await Promise.all([
    client.lookUp(target, signal),
    target === client.table ? undefined : client.lookUp(client.table, signal),
  ]);
  if (existing !== undefined) throw existsError(target, existing);
  const origin =
    source.kind === 'backup'
      ? await backupOrigin(context, input, table)
      : await momentOrigin(context, source.moment, table);
  const { settings } = origin;
  const asked = input.reapply ?? [];
  const wanted = wantedSettings(asked, settings);
  const lost = wantedSettings(
    (['point_in_time_recovery', 'deletion_protection', 'tags', 'ttl', 'stream'] as const).filter(
      (setting) => settings[setting] !== 'unknown' && !asked.includes(setting),
    ),
    settings,
  ).map(({ setting }) => setting);
  const now = runtime.now();
  const age =
    origin.at === undefined ? undefined : Math.max(0, Math.round((now.getTime() - Date.parse(origin.at)) / 1000));
  const alternatives: Alternative[] =
    lost.length === 0
      ? []
      : [
          {
            title: `The same, with ${lost.join(', ')} put on the new table`,
            risk: 'create',
            call: {
              entity: entity.key,
              action: 'restore',
              input: { ...(input as unknown as JsonObject), reapply: [...asked, ...lost] },
            },
          },
        ];
  return {
    target: `${client.region}/${target}`,
    source: origin.title,
    loses: `nothing: a new table is made${table === undefined ? '' : `; ${client.table} stays as it is`}`,
    blast_radius: {
      creates: target,
      ...(origin.at === undefined ? {} : { data_of: origin.at }),
      ...(age === undefined ? {} : { newer_data_not_in_it: `what was written in the last ${formatDuration(age)}` }),
      ...origin.shape,
      not_carried: showSettings(settings),
      reapplied: wanted.map(({ setting }) => setting),
    },
    undo: `delete the new table ${target}; Holdfast never deletes tables`,
    alternatives,
    unknowns: [
      'how long it takes: seldom under 10 to 20 minutes, hours for large tables, skewed keys and many indexes',
      'auto-scaling policies, alarms and IAM policies of the source: this API does not show them, and none is carried',
      'how many restores are running: DynamoDB allows 50 at once',
      ...(origin.shape['encryption'] === 'AWS owned key'
        ? []
        : ['whether the KMS key can be used with these credentials']),
      ...Object.entries(settings)
        .filter(([, value]) => value === 'unknown')
        .map(([name]) => `the source's ${name}: the new table comes without`),
    ],
    warnings: [
      ...consequences(settings, asked),
      ...(table === undefined ? ['The source table no longer exists.'] : []),
      `Applications have to be pointed to ${target}: DynamoDB cannot rename a table.`,
      'The restore is billed by size, the new table from then on.',
    ],
    facts: {
      target: targetFacts(client, target, undefined),
      source: origin.facts,
      context: { reapply: wanted as unknown as JsonObject[] },
    },
  };
}

interface Origin {
  title: string;
  /** The moment of the data. */
  at: string | undefined;
  settings: LostSettings;
  shape: JsonObject;
  facts: JsonObject;
}

function shapeOf(table: TableDescription): JsonObject {
  const indexes = [...(table.GlobalSecondaryIndexes ?? []), ...(table.LocalSecondaryIndexes ?? [])];
  const mode = billingMode(table);
  return {
    source_table: cleanText(table.TableArn, 400),
    ...(table.TableSizeBytes === undefined ? {} : { size_bytes: table.TableSizeBytes }),
    ...(table.ItemCount === undefined ? {} : { items: table.ItemCount }),
    indexes_to_build: indexes.map(({ IndexName }) => cleanText(IndexName, 255)),
    billing_mode: mode,
    ...(mode === 'PROVISIONED'
      ? {
          capacity: {
            read_units: table.ProvisionedThroughput?.ReadCapacityUnits ?? null,
            write_units: table.ProvisionedThroughput?.WriteCapacityUnits ?? null,
          },
        }
      : {}),
    encryption: encryptionOf(table),
  };
}

async function backupOrigin(
  { client, entity, signal, runtime }: Context,
  input: RestoreInput,
  table: TableDescription | undefined,
): Promise<Origin> {
  const arn = await resolveBackup(client, input, signal);
  const [backup, pitr] = await Promise.all([
    client.describeBackup(arn, signal),
    table === undefined ? undefined : recoveryUnlessHidden(client, signal),
  ]);
  const point = descriptionToPoint(backup, client.region);
  if (!point.restorable) {
    throw new HoldfastError('INVALID_STATE', `the backup is ${point.status}: it cannot be restored`, {
      retryable: point.status === 'creating',
      hint: 'Choose an available one from list-snapshots.',
    });
  }
  const settings =
    table === undefined
      ? settingsOfBackup(entity, backup)
      : await settingsOf(client, table, pitr === 'unknown' ? pitr : pitr?.days, signal);
  const kms = backup.SourceTableFeatureDetails?.SSEDescription?.KMSMasterKeyArn;
  const details = backup.SourceTableDetails;
  return {
    title: `${client.table}/${shortId(arn)}`,
    at: point.created_at,
    settings,
    shape: {
      backup: backupView(point, runtime.now()),
      source_table: cleanText(details?.TableArn, 400),
      ...(details?.ItemCount === undefined ? {} : { items: details.ItemCount }),
      indexes_to_build: (point.provider?.['indexes'] ?? []) as string[],
      billing_mode: cleanText(details?.BillingMode ?? 'PROVISIONED', 40),
      encryption: kms ? `KMS key ${cleanText(kms)}` : 'AWS owned key',
    },
    facts: {
      backup_arn: arn,
      status: point.status,
      created_at: point.created_at ?? null,
      table_id: cleanText(details?.TableId, 60),
    },
  };
}

function backupView(point: RecoveryPoint, now: Date): JsonObject {
  return {
    id: shortId(point.id),
    kind: point.kind,
    ...(point.description === undefined ? {} : { name: point.description }),
    ...(point.size_bytes === undefined ? {} : { size_bytes: point.size_bytes }),
    ...(point.created_at === undefined
      ? {}
      : { age: formatDuration((now.getTime() - Date.parse(point.created_at)) / 1000) }),
  };
}

async function recoveryUnlessHidden(client: DynamoDbClient, signal: AbortSignal): Promise<Recovery | 'unknown'> {
  try {
    return await recoveryOf(client, signal);
  } catch (cause) {
    if (cause instanceof HoldfastError && cause.code === 'INSUFFICIENT_PERMISSIONS') return 'unknown';
    throw cause;
  }
}

async function momentOrigin(
  { client, signal }: Context,
  moment: Moment,
  table: TableDescription | undefined,
): Promise<Origin> {
  if (table === undefined) {
    throw new HoldfastError('RESOURCE_NOT_FOUND', `the table ${client.table} does not exist`, {
      hint: 'A moment needs the table itself. Restore a backup instead: list-snapshots shows what is left, a SYSTEM backup among it.',
    });
  }
  const pitr = await recoveryOf(client, signal);
  if (!pitr.enabled) {
    throw new HoldfastError('NOT_SUPPORTED', 'point-in-time recovery is off for this table', {
      hint: 'Restore a backup instead: list-snapshots shows them. Switched on now, only later moments become restorable.',
    });
  }
  const { window } = pitr;
  if (window === undefined) {
    throw new HoldfastError('INVALID_STATE', 'point-in-time recovery has no window yet', {
      hint: 'Wait some minutes, or restore a backup.',
    });
  }
  // The window's ends are given with fractions, moments are whole seconds.
  if (moment !== 'latest') {
    const at = moment.getTime();
    const earliest = Math.floor(Date.parse(window.earliest_at) / 1000) * 1000;
    if (at < earliest || at > Date.parse(window.latest_at)) {
      throw invalid(
        'restore_timestamp is outside of the recovery window',
        `Give a moment from ${window.earliest_at} to ${window.latest_at}, or restore a backup.`,
        { ...window },
      );
    }
  }
  const at = moment === 'latest' ? window.latest_at : moment.toISOString();
  return {
    title: `${client.table} at ${moment === 'latest' ? 'the latest restorable moment' : at}`,
    at,
    settings: await settingsOf(client, table, pitr.days, signal),
    shape: { ...shapeOf(table), recovery_window: { ...window } },
    facts: {
      table: client.table,
      table_arn: cleanText(table.TableArn, 400),
      table_id: cleanText(table.TableId, 60),
      created_at: instant(table.CreationDateTime) ?? null,
      restore_timestamp: moment === 'latest' ? 'latest' : at,
    },
  };
}

function consequences(settings: LostSettings, asked: readonly Setting[]): string[] {
  const left = (setting: Setting): boolean => {
    const value = settings[setting];
    const on = value !== null && value !== false && value !== 'unknown';
    return on && !asked.includes(setting) && (typeof value !== 'object' || Object.keys(value).length > 0);
  };
  return [
    ...(left('point_in_time_recovery') ? ['The new table has no point-in-time recovery: it is unprotected.'] : []),
    ...(left('deletion_protection') ? ['The new table has no deletion protection.'] : []),
    ...(left('ttl') ? ['The new table has no TTL: items that had expired come back and stay.'] : []),
    ...(asked.includes('ttl') && settings.ttl !== null
      ? ['TTL is put on the new table: DynamoDB deletes from it what has expired, also what this restore brings back.']
      : []),
    ...(left('stream') ? ['The new table has no stream: what listens to it stops without a word.'] : []),
    ...(left('tags') ? ['The new table has no tags: policies and bills that go by them pass it over.'] : []),
    ...(settings.resource_policy === true ? ['The resource policy is not carried: set it by hand.'] : []),
    ...(settings.kinesis_streams !== 'unknown' && settings.kinesis_streams.length > 0
      ? ['The Kinesis destination is not carried: set it by hand.']
      : []),
    ...(settings.contributor_insights === true ? ['Contributor Insights is not carried: set it by hand.'] : []),
    ...(settings.replicas !== 'unknown' && settings.replicas.length > 0
      ? ['It is a global table: the new one is a plain table in this region.']
      : []),
  ];
}

// --- the steps -----------------------------------------------------------------------------------------------------

type RestoreStep = Step<DynamoDbClient, DynamoDbEntity, RestoreInput>;

/** Whether a table is what this call's restore makes: from that source, of that moment, begun since. */
function isOurs(table: TableDescription, plan: Plan, beganAt: string): boolean {
  const summary = table.RestoreSummary;
  const created = table.CreationDateTime?.getTime();
  if (summary === undefined || created === undefined) return false;
  if (created < Date.parse(beganAt) - CLOCK_SKEW_MS) return false;
  const { source = {} } = plan.facts;
  if (source['backup_arn'] !== undefined) return summary.SourceBackupArn === source['backup_arn'];
  if (summary.SourceTableArn !== source['table_arn'] || summary.SourceBackupArn !== undefined) return false;
  const moment = source['restore_timestamp'];
  return moment === 'latest' || Math.abs((summary.RestoreDateTime?.getTime() ?? 0) - Date.parse(String(moment))) < 1000;
}

function handleOf(table: TableDescription, mark: JsonObject): JsonObject {
  return { ...mark, table_arn: cleanText(table.TableArn, 400), table_id: cleanText(table.TableId, 60) };
}

/** Starts the restore, follows the new table until it can be used, and puts the asked-for settings on it. */
export function restoreSteps(plan: Plan): RestoreStep[] {
  const target = String(plan.facts.target['table']);
  const source = plan.facts.source ?? {};
  const begin: RestoreStep = {
    name: 'restore',
    title: 'Starting the restore',
    kind: 'mutate',
    async run(context) {
      const { client, handle, runtime, signal } = context;
      const began = String(handle?.['began_at'] ?? runtime.now().toISOString());
      const mark = { target, began_at: began };
      const existing = await client.lookUp(target, signal);
      // Begun again after a crash: what the lost request made is taken, never made twice.
      if (existing !== undefined && handle !== undefined && isOurs(existing, plan, began)) {
        return handleOf(existing, mark);
      }
      if (existing !== undefined) throw existsError(target, existing);
      await checkSource(context, plan);
      await context.checkpoint(mark);
      const table =
        source['backup_arn'] === undefined
          ? await client.restoreMoment(momentOf(source), target, signal)
          : await client.restoreBackup(String(source['backup_arn']), target, signal);
      const done = handleOf(table, mark);
      await context.checkpoint(done);
      return done;
    },
    async recover(context) {
      const { client, handle } = context;
      if (handle === undefined) return { state: 'not_begun' };
      if (handle['table_arn'] !== undefined) return { state: 'done', result: handle };
      const signal = recoverySignal(context.signal);
      const table = await lookThrice(context, () => client.lookUp(target, signal));
      if (table === undefined) return { state: 'not_begun', message: 'the new table does not exist' };
      return isOurs(table, plan, String(handle['began_at']))
        ? { state: 'done', result: handleOf(table, handle) }
        : { state: 'unknown', message: `the table ${target} exists, and it is not what this restore makes` };
    },
  };
  const wait: RestoreStep = {
    name: 'wait',
    title: 'Waiting until the new table can be used',
    kind: 'follow',
    async run(context) {
      const { client, signal } = context;
      const id = context.results['restore']?.['table_id'];
      let missing = 0;
      const table = await followAt(context, 'the restore', RESTORE_PACE, async () => {
        const seen = await client.lookUp(target, signal);
        if (seen === undefined) {
          // One that was just accepted may take a moment to show.
          missing += 1;
          if (missing < 4) return undefined;
          throw endedError(target, 'the table is gone');
        }
        missing = 0;
        if (id !== undefined && cleanText(seen.TableId, 60) !== id)
          throw endedError(target, 'another table has its name');
        const state = restoreState(seen);
        context.progress({ message: `new table is ${cleanText(seen.TableStatus, 60)}` });
        if (state === 'failed' || state === 'cancelled') {
          throw endedError(target, `the table is ${cleanText(seen.TableStatus, 60)}`);
        }
        return state === 'succeeded' ? seen : undefined;
      });
      return { job: tableToJob(table) as unknown as JsonObject };
    },
  };
  const wanted = (plan.facts.context?.['reapply'] ?? []) as unknown as Wanted[];
  return [begin, wait, ...wanted.map((one) => settingStep(target, one) as RestoreStep)];
}

function endedError(target: string, why: string): HoldfastError {
  return new HoldfastError('INVALID_STATE', `the restore into ${target} ended: ${why}`, {
    retryable: false,
    hint: 'Look for a role or a KMS key that was changed meanwhile, then make the call again with another target_table.',
    details: { target_table: target },
  });
}

function momentOf(source: JsonObject): Moment {
  return source['restore_timestamp'] === 'latest' ? 'latest' : new Date(String(source['restore_timestamp']));
}

// The same name may have become another table, and a backup may have gone, between the plan and the write.
async function checkSource({ client, signal }: In<RestoreInput>, plan: Plan): Promise<void> {
  const { source = {} } = plan.facts;
  let now: JsonObject;
  if (source['backup_arn'] === undefined) {
    const table = await client.describeTable(client.table, signal);
    now = { ...source, table_id: cleanText(table.TableId, 60), created_at: instant(table.CreationDateTime) ?? null };
  } else {
    const point = descriptionToPoint(await client.describeBackup(String(source['backup_arn']), signal), client.region);
    now = { ...source, status: point.status, created_at: point.created_at ?? null };
  }
  const changed = compareFacts(source, now);
  if (changed.length === 0) return;
  throw new HoldfastError('INVALID_STATE', 'the source is not what the plan says; nothing was restored', {
    hint: 'Make the call again for a new plan.',
    details: { differences: changed as unknown as JsonObject[], outcome: 'not_sent' },
  });
}

/** Makes the answer of a finished restore, with what became of each setting. */
export function restoreResult(results: Readonly<Record<string, JsonObject>>): RestoreJob {
  const job = results['wait']?.['job'] as unknown as RestoreJob;
  const settings = Object.entries(results)
    .filter(([name]) => name.startsWith('set-'))
    .map(([, result]) => result);
  if (settings.length === 0) return job;
  const refused = settings.filter((result) => result['applied'] !== true);
  return {
    ...job,
    provider: {
      ...job.provider,
      reapplied: settings.filter((result) => result['applied'] === true).map((result) => result['setting']),
      not_reapplied: refused.map(({ setting, code }) => ({ setting, code })),
    },
  };
}

/** Says how a restore into a table stands. */
export async function restoreStatus({ client, signal }: Context, targetTable: string): Promise<RestoreJob> {
  const target = checkName(targetTable, 'target_table');
  const table = await client.lookUp(target, signal);
  if (table === undefined) {
    throw new HoldfastError('RESOURCE_NOT_FOUND', `the table ${target} does not exist`, {
      hint: 'A restore that was accepted and whose table is gone has failed or was cancelled.',
    });
  }
  if (table.RestoreSummary === undefined) {
    throw new HoldfastError('RESOURCE_NOT_FOUND', `the table ${target} was not made by a restore`, {
      hint: 'Give the target_table of a restore.',
    });
  }
  return tableToJob(table);
}
