import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Step } from '../../core/operation.ts';
import { type Alternative, compareFacts, type Plan, type PlanDraft } from '../../core/plan.ts';
import type { RestoreJob } from '../../core/schemas.ts';
import { formatDuration, parseInstant } from '../../core/time.ts';
import type { BigQueryClient, CopyJob, Existence } from './client.ts';
import {
  checkJob,
  checkLocation,
  count,
  type Dataset,
  defaultExpiration,
  etagOf,
  fieldsOf,
  fullName,
  instant,
  isSame,
  isSnapshot,
  jobStatus,
  parseTable,
  referenceOf,
  stampedName,
  streamingRows,
  type Table,
  type TableName,
  timeTravelHours,
  toPoint,
  toRestoreJob,
  typeWord,
} from './map.ts';
import type { BigQueryEntity } from './provider.ts';
import { findJob, followJob, startJob, targetOf } from './snapshot.ts';
import { type Context, checkMoment, isBaseOf, locationOf, named, readEnds, snapshotsOf } from './tables.ts';

export interface RestoreInput {
  snapshot_table?: string | undefined;
  source_table?: string | undefined;
  restore_timestamp?: string | number | undefined;
  target_table: string;
  safety_snapshot?: boolean | undefined;
}

/** What a call of restore asks for: a snapshot, one that is gone as of a moment, or a table as of a moment. */
interface Wish {
  readonly kind: 'snapshot' | 'lost_snapshot' | 'moment';
  readonly source: TableName;
  readonly at: Date | undefined;
  readonly target: TableName;
}

function invalid(message: string, hint: string): HoldfastError {
  return new HoldfastError('INVALID_PARAMETER', message, { hint });
}

function readWish(input: RestoreInput, dataset: string): Wish {
  const { snapshot_table, source_table, restore_timestamp } = input;
  if ((snapshot_table === undefined) === (source_table === undefined)) {
    throw invalid(
      'restore needs either snapshot_table or source_table',
      'Give snapshot_table from list-snapshots, or source_table with restore_timestamp.',
    );
  }
  const at = restore_timestamp === undefined ? undefined : parseInstant(restore_timestamp, 'restore_timestamp');
  const target = parseTable(input.target_table, 'target_table', dataset);
  if (snapshot_table !== undefined) {
    const source = parseTable(snapshot_table, 'snapshot_table', dataset);
    if (isSame(source, target)) {
      throw invalid('a snapshot cannot be restored onto itself', 'Give target_table, the name of a table.');
    }
    return { kind: at === undefined ? 'snapshot' : 'lost_snapshot', source, at, target };
  }
  if (at === undefined) {
    throw invalid('source_table needs restore_timestamp', 'Give the moment that the table should be as of.');
  }
  return { kind: 'moment', source: parseTable(source_table as string, 'source_table', dataset), at, target };
}

// What approval rests on; read again just before the write.
function targetFacts(project: string, name: TableName, location: string, existence: Existence): JsonObject {
  const facts = { project, dataset: name.dataset, table: name.table, location };
  if (existence.state !== 'exists') return { ...facts, exists: existence.state === 'missing' ? false : 'unknown' };
  const { table } = existence;
  return {
    ...facts,
    exists: true,
    type: typeWord(table),
    created: String(table.creationTime ?? ''),
    etag: etagOf(table),
  };
}

// --- the source ----------------------------------------------------------------------------------------------------

interface Source {
  /** The snapshot, or the table as it is now; undefined for one that is gone. */
  readonly table: Table | undefined;
  readonly facts: JsonObject;
  /** RFC 3339: the moment of the data. */
  readonly data_at: string | undefined;
  readonly notes: string[];
}

async function readSource({ client, runtime, signal }: Context, wish: Wish, dataset: Dataset): Promise<Source> {
  const { source, at } = wish;
  const short = named(client, source);
  const facts: JsonObject = { kind: wish.kind, dataset: source.dataset, table: source.table };
  if (wish.kind === 'snapshot') {
    const table = await client.getTable(source, signal, 'snapshot');
    if (!isSnapshot(table)) {
      throw invalid(
        `${short} is a ${typeWord(table)}, no snapshot`,
        'For a table as of a moment give source_table and restore_timestamp instead.',
      );
    }
    const data_at = instant(table.snapshotDefinition?.snapshotTime);
    const etag = etagOf(table);
    return { table, facts: { ...facts, etag, at: data_at ?? null }, data_at, notes: [] };
  }
  const existence = await client.lookUp(source, signal);
  if (existence.state === 'unknown') throw existence.error;
  const table = existence.state === 'exists' ? existence.table : undefined;
  if (wish.kind === 'lost_snapshot' && table !== undefined) {
    throw invalid(
      `${short} exists: it does not change, so a moment means nothing`,
      'Leave restore_timestamp out; it is for a snapshot that was deleted or has expired.',
    );
  }
  if (table !== undefined && table.type !== 'TABLE') {
    throw new HoldfastError('NOT_SUPPORTED', `${short} is a ${typeWord(table)}: it has no history to restore`, {
      hint: isSnapshot(table) ? 'Give it as snapshot_table, without restore_timestamp.' : 'Name a table.',
    });
  }
  checkMoment(at as Date, 'restore_timestamp', dataset, table, runtime.now());
  const moment = (at as Date).toISOString();
  const notes =
    table !== undefined
      ? []
      : [
          `${short} is gone: whether its history is still kept shows when the job runs.`,
          ...(wish.kind === 'moment' ? ['Partitioning and tags of a deleted table do not come back.'] : []),
        ];
  return {
    table,
    facts: { ...facts, exists: table !== undefined, created: String(table?.creationTime ?? ''), at: moment },
    data_at: moment,
    notes,
  };
}

// --- the plan ------------------------------------------------------------------------------------------------------

const UNKNOWN_EXISTENCE =
  'whether the target exists: BigQuery answers 403 for a missing table too; the restore is refused until it is known';

/** Looks at target and source and says what a restore would take away; the risk is what the target's existence makes it. */
export async function planRestore(context: Context, input: RestoreInput): Promise<PlanDraft> {
  const { client, runtime, signal } = context;
  const wish = readWish(input, client.dataset);
  const ends = await readEnds(context, wish.source, wish.target);
  const source = await readSource(context, wish, ends.source);
  if (wish.kind === 'moment' && source.table === undefined && isSame(wish.source, wish.target)) {
    throw invalid(
      'a deleted table is restored under another name',
      'A table of the old name would hide its history. Give another target_table.',
    );
  }
  const project = await client.project();
  const existence = await client.lookUp(wish.target, signal);
  const facts = {
    target: targetFacts(project, wish.target, ends.location, existence),
    source: source.facts,
    context: { disposition: existence.state === 'missing' ? 'WRITE_EMPTY' : 'WRITE_TRUNCATE' },
  };
  const from = `${fullName(project, wish.source)}${wish.at === undefined ? '' : ` at ${wish.at.toISOString()}`}`;
  const view = sourceView(client, source, runtime.now());
  if (existence.state === 'exists')
    return planReplace(context, wish, source, ends.target, existence.table, facts, from);

  const vanishing = defaultExpiration(ends.target);
  const missing = existence.state === 'missing';
  return {
    ...(missing
      ? {}
      : {
          risk: 'overwrite' as const,
          safety_snapshot: { possible: false, reason: 'it is not known whether the target exists' },
        }),
    target: fullName(project, wish.target),
    source: from,
    loses: missing
      ? 'nothing: a new table is made'
      : 'possibly everything in the target: it is not known whether it exists',
    undo: `delete the new table ${named(client, wish.target)}`,
    blast_radius: { creates: named(client, wish.target), location: ends.location, source: view },
    warnings: [
      ...source.notes,
      ...(source.data_at === undefined ? [] : [`Changes after ${source.data_at} are not in the new table.`]),
      ...(vanishing === undefined
        ? []
        : [`The new table vanishes after ${formatDuration(vanishing / 1000)}: the dataset's default expiration.`]),
    ],
    unknowns: missing ? [] : [UNKNOWN_EXISTENCE],
    facts,
  };
}

function sourceView(client: BigQueryClient, { table, data_at }: Source, now: Date): JsonObject {
  const age = data_at === undefined ? undefined : (now.getTime() - Date.parse(data_at)) / 1000;
  const point = table === undefined || !isSnapshot(table) ? undefined : toPoint(table, client.dataset, now);
  const base = point?.provider?.['base_table'];
  const rows = point?.provider?.['rows'];
  return {
    ...(data_at === undefined ? {} : { at: data_at }),
    ...(age === undefined ? {} : { age: formatDuration(age) }),
    ...(typeof base === 'string' ? { base_table: base } : {}),
    ...(typeof rows === 'number' ? { rows } : {}),
    ...(point?.size_bytes === undefined ? {} : { size_bytes: point.size_bytes }),
    ...(point?.expires_at === undefined ? {} : { expires_at: point.expires_at }),
  };
}

function checkReplaceable(table: Table, name: string): void {
  if (table.type !== 'TABLE') {
    throw new HoldfastError('RESOURCE_EXISTS', `there is a ${typeWord(table)} ${name} already`, {
      hint: 'A restore makes or replaces a table. Give another target_table.',
    });
  }
  const streaming = streamingRows(table);
  if (streaming !== undefined) {
    throw new HoldfastError('INVALID_STATE', `rows are being streamed into ${name}: they would be lost`, {
      hint: 'Stop what writes to it and wait until its streaming buffer is empty, or restore into a new table.',
      details: { streaming_rows: streaming },
    });
  }
}

async function planReplace(
  context: Context,
  wish: Wish,
  source: Source,
  dataset: Dataset,
  table: Table,
  facts: PlanDraft['facts'],
  from: string,
): Promise<PlanDraft> {
  const { client, entity, runtime, signal } = context;
  const now = runtime.now();
  const short = named(client, wish.target);
  checkReplaceable(table, short);
  const project = await client.project();
  const full = fullName(project, wish.target);
  const hours = timeTravelHours(dataset);
  const snapshots = await snapshotsOf(client, wish.target, wish.target.dataset, now, signal);
  const newest = snapshots.points.find((point) => point.restorable && point.data_at !== undefined);
  const own =
    wish.kind === 'moment'
      ? isSame(wish.source, wish.target)
      : source.table !== undefined && isBaseOf(source.table, wish.target);
  const { data_at } = source;
  const age = data_at === undefined ? undefined : formatDuration((now.getTime() - Date.parse(data_at)) / 1000);
  const rows = count(table.numRows);
  const fresh = named(client, { ...wish.target, table: stampedName(wish.target.table, 'restore', now) });
  const { safety_snapshot: _, ...call } = callOf(client, wish);
  const alternatives: Alternative[] = [
    {
      title: `Restore into the new table ${fresh}`,
      risk: 'create',
      call: { entity: entity.key, action: 'restore', input: { ...call, target_table: fresh } },
    },
    {
      title: 'Take a snapshot of the target first',
      risk: 'create',
      call: { entity: entity.key, action: 'create-snapshot', input: { source_table: short } },
    },
  ];
  const schema = schemaDifference(source.table, table);
  const modified = instant(table.lastModifiedTime);
  return {
    risk: 'overwrite',
    target: full,
    source: from,
    loses:
      own && data_at !== undefined
        ? `everything written to ${short} after ${data_at}, the last ${age}`
        : `everything in ${short}${rows === undefined ? '' : `, ${rows} rows`}: what is restored was taken of another table`,
    ...(own && data_at !== undefined ? { since: data_at } : {}),
    blast_radius: {
      tables: 1,
      dataset: wish.target.dataset,
      location: locationOf(dataset),
      ...(rows === undefined ? {} : { rows }),
      ...(count(table.numBytes) === undefined ? {} : { size_bytes: count(table.numBytes) }),
      ...(modified === undefined ? {} : { last_modified_at: modified }),
      partitioned: Boolean(table.timePartitioning ?? table.rangePartitioning),
      schema,
      time_travel_hours: hours,
      source: sourceView(client, source, now),
    },
    ...(newest?.data_at === undefined ? {} : { newest_recovery_point: { id: newest.id, at: newest.data_at } }),
    safety_snapshot: { possible: true },
    undo: `restore the safety snapshot taken just before; for ${hours} hours its state of just before can also be restored with source_table and restore_timestamp`,
    alternatives,
    unknowns: [
      'views, row access policies and queries that use the table: this API does not tell',
      'whether anything loads data into it at this moment',
      ...(snapshots.complete ? [] : ['whether there are more snapshots of the target']),
    ],
    warnings: [
      `THIS REPLACES THE WHOLE TABLE ${full}: data, schema and constraints, in one step.`,
      ...(own ? [] : ['What is restored was not taken of this table.']),
      ...(schema === 'same' || schema === 'unknown' ? [] : ['The schema changes: see blast_radius.schema.']),
      ...source.notes,
    ],
    facts,
  };
}

function callOf(client: BigQueryClient, wish: Wish): JsonObject {
  return {
    ...(wish.kind === 'moment'
      ? { source_table: named(client, wish.source) }
      : { snapshot_table: named(client, wish.source) }),
    ...(wish.at === undefined ? {} : { restore_timestamp: wish.at.toISOString() }),
  };
}

// A table's schema at a moment of the past is not to be had, only that of a snapshot.
function schemaDifference(source: Table | undefined, target: Table): JsonObject | 'same' | 'unknown' {
  if (source === undefined || !isSnapshot(source)) return 'unknown';
  const [theirs, ours] = [fieldsOf(source.schema), fieldsOf(target.schema)];
  const adds = theirs.filter((field) => !ours.includes(field));
  const removes = ours.filter((field) => !theirs.includes(field));
  if (adds.length === 0 && removes.length === 0) return 'same';
  return { adds: adds.slice(0, 20), removes: removes.slice(0, 20) };
}

// --- the steps -----------------------------------------------------------------------------------------------------

type RestoreStep = Step<BigQueryClient, BigQueryEntity, RestoreInput>;

/** Starts the copy job, follows it, and looks at the table that it made. */
export function restoreSteps(plan: Plan): RestoreStep[] {
  const target = targetOf(plan);
  const begin: RestoreStep = {
    name: 'restore',
    title: 'Starting the restore',
    kind: 'mutate',
    async run(context) {
      const { client, input, runtime, signal } = context;
      const wish = readWish(input, client.dataset);
      const ends = await readEnds(context, wish.source, wish.target);
      const source = await readSource(context, wish, ends.source);
      const project = await client.project();
      // The target last, so that as little time as possible passes before the write.
      const existence = await client.lookUp(target, signal);
      if (existence.state === 'unknown') throw refusedAsUnknown(named(client, target), existence.error);
      const changed = [
        ...compareFacts(plan.facts.target, targetFacts(project, wish.target, ends.location, existence)),
        ...compareFacts(plan.facts.source, source.facts),
      ];
      if (changed.length > 0) {
        throw new HoldfastError('INVALID_STATE', 'target or source is not what the plan says; nothing was restored', {
          hint: 'Make the call again for a new plan.',
          details: { differences: changed as unknown as JsonObject[] },
        });
      }
      if (existence.state === 'exists') checkReplaceable(existence.table, named(client, target));
      const replaces = existence.state === 'exists';
      const now = runtime.now();
      const job: Omit<CopyJob, 'id'> = {
        location: ends.location,
        operation: wish.kind === 'moment' ? 'COPY' : 'RESTORE',
        source: wish.source,
        at: wish.at,
        destination: target,
        replaces,
      };
      // The last moment at which the old table is certain to be there: time travel brings it back from then.
      const until = new Date(now.getTime() + timeTravelHours(ends.target) * 3_600_000).toISOString();
      return startJob(
        context,
        'restore',
        job,
        replaces ? { replaced_at: now.toISOString(), replaced_reachable_until: until } : {},
      );
    },
    recover: findJob,
  };
  const wait: RestoreStep = {
    name: 'wait',
    title: 'Waiting for the restore',
    kind: 'follow',
    async run(context) {
      const job = await followJob(context, context.results['restore'] ?? {}, 'the restore');
      return { job: toRestoreJob(job, false) as unknown as JsonObject };
    },
  };
  const verify: RestoreStep = {
    name: 'verify',
    title: 'Looking at the restored table',
    kind: 'follow',
    async run({ client, signal }) {
      const existence = await client.lookUp(target, signal);
      if (existence.state !== 'exists') return { usable: false };
      const rows = count(existence.table.numRows);
      return { usable: existence.table.type === 'TABLE', ...(rows === undefined ? {} : { rows }) };
    },
  };
  return [begin, wait, verify];
}

function refusedAsUnknown(target: string, cause: HoldfastError): HoldfastError {
  return new HoldfastError('INSUFFICIENT_PERMISSIONS', `it is not known whether ${target} exists; nothing was sent`, {
    hint: 'Give the caller bigquery.tables.get on the dataset (roles/bigquery.metadataViewer), so that a missing table answers 404. If it exists, a restore replaces it.',
    details: { permission: 'bigquery.tables.get', outcome: 'not_sent' },
    provider: cause.provider,
    cause,
  });
}

/** Makes the answer of a finished restore. */
export function restoreResult(results: Readonly<Record<string, JsonObject>>): RestoreJob {
  const job = results['wait']?.['job'] as unknown as RestoreJob;
  const begun = results['restore'] ?? {};
  const { usable, rows } = results['verify'] ?? {};
  return {
    ...job,
    usable: usable === true,
    provider: {
      ...job.provider,
      ...(rows === undefined ? {} : { rows }),
      ...(begun['replaced_at'] === undefined
        ? {}
        : { replaced_at: begun['replaced_at'], replaced_reachable_until: begun['replaced_reachable_until'] }),
    },
  };
}

/** Says how a copy job stands, and whether the table that it makes is there. */
export async function restoreStatus(
  { client, entity, signal }: Context,
  input: { job_id: string; location?: string | undefined },
): Promise<RestoreJob> {
  const id = checkJob(input.job_id);
  // What is declared may be wrong, but helps where the dataset is gone or may not be looked at.
  const ownLocation = async (): Promise<string> => {
    try {
      return locationOf(await client.getDataset(client.dataset, signal));
    } catch (cause) {
      const hidden = ['RESOURCE_NOT_FOUND', 'INSUFFICIENT_PERMISSIONS'];
      const declared = cause instanceof HoldfastError && hidden.includes(cause.code) ? entity.location : undefined;
      if (declared === undefined) throw cause;
      return declared;
    }
  };
  const location = input.location === undefined ? await ownLocation() : checkLocation(input.location);
  const job = await client.getJob(id, location, signal);
  const target = referenceOf(job.configuration?.copy?.destinationTable);
  if (target === undefined) {
    throw invalid('this job copies no table', 'Give the job_id of a restore or of a snapshot.');
  }
  const own = job.configuration?.copy?.destinationTable?.projectId === (await client.project());
  if (jobStatus(job) !== 'succeeded' || !own) return toRestoreJob(job, false);
  return toRestoreJob(job, (await client.lookUp(target, signal)).state === 'exists');
}
