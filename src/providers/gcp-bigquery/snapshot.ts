import { HoldfastError } from '../../core/errors.ts';
import { type JsonObject, sha256 } from '../../core/json.ts';
import type { Recovery, Step, StepContext } from '../../core/operation.ts';
import type { Plan, PlanDraft } from '../../core/plan.ts';
import type { RecoveryPoint } from '../../core/schemas.ts';
import { formatDuration, parseInstant } from '../../core/time.ts';
import { type FollowContext, follow, lookThrice, recoverySignal } from '../follow.ts';
import type { BigQueryClient, CopyJob, Existence } from './client.ts';
import {
  baseOf,
  defaultExpiration,
  etagOf,
  fullName,
  isSnapshot,
  type Job,
  jobError,
  jobStatus,
  parseTable,
  stampedName,
  streamingRows,
  type Table,
  type TableName,
  timeTravelHours,
  toPoint,
  typeWord,
} from './map.ts';
import type { BigQueryEntity } from './provider.ts';
import { type Context, checkMoment, named, readEnds, snapshotsOf, typeError } from './tables.ts';

type In<Input> = StepContext<BigQueryClient, BigQueryEntity, Input>;
type BigQueryStep<Input> = Step<BigQueryClient, BigQueryEntity, Input>;

const PACE = { at: 'BigQuery', deadline_ms: 1_800_000, first_ms: 1000, longest_ms: 10_000 };

// --- copy jobs -----------------------------------------------------------------------------------------------------

/** Starts a copy job under an id of our own, which is stored before anything is sent. */
export async function startJob<Input>(
  context: In<Input>,
  word: string,
  job: Omit<CopyJob, 'id'>,
  more: JsonObject = {},
): Promise<JsonObject> {
  // The key of a step stays the same for as long as the step lives: a repeat would be answered with the same job.
  const id = `holdfast_${word}_${context.idempotencyKey.replace(/[^A-Za-z0-9_-]/g, '')}`;
  const mark = {
    job_id: id,
    location: job.location,
    dataset: job.destination.dataset,
    table: job.destination.table,
    ...more,
  };
  await context.checkpoint(mark);
  await context.client.copy({ ...job, id }, context.signal);
  const handle = { ...mark, begun: true };
  await context.checkpoint(handle);
  return handle;
}

/** Says what became of a job whose answer was lost: its id is ours, so it is there or it never was. */
export async function findJob<Input>(context: In<Input>): Promise<Recovery> {
  const { handle, client } = context;
  if (handle === undefined) return { state: 'not_begun' };
  if (handle['begun'] === true) return { state: 'done', result: handle };
  const found = await lookThrice(context, async () => {
    try {
      return await client.getJob(String(handle['job_id']), String(handle['location']), recoverySignal(context.signal));
    } catch (cause) {
      const absent =
        cause instanceof HoldfastError && cause.code === 'RESOURCE_NOT_FOUND' && cause.provider?.code === 'notFound';
      if (absent) return undefined;
      throw cause;
    }
  });
  return found === undefined
    ? { state: 'not_begun', message: 'BigQuery has no job of that id' }
    : { state: 'done', result: { ...handle, begun: true } };
}

/**
 * Follows a job to its end.
 * @throws {HoldfastError} what the job failed with; TIMEOUT after half an hour
 */
export function followJob(
  context: FollowContext & { readonly client: BigQueryClient; progress(progress: { message: string }): void },
  begun: JsonObject,
  what: string,
): Promise<Job> {
  return follow(context, { what, ...PACE }, async () => {
    const job = await context.client.getJob(String(begun['job_id']), String(begun['location']), context.signal);
    const status = jobStatus(job);
    context.progress({ message: `job is ${status}` });
    if (status === 'failed' || status === 'cancelled') throw jobError(job, what);
    return status === 'succeeded' ? job : undefined;
  });
}

// --- taking a snapshot ---------------------------------------------------------------------------------------------

export interface SnapshotInput {
  source_table: string;
  snapshot_table?: string | undefined;
  snapshot_time?: string | number | undefined;
  expires_at?: string | number | undefined;
}

interface Aim {
  readonly source: TableName;
  readonly destination: TableName;
  readonly location: string;
  readonly at: Date | undefined;
  readonly expires: Date | undefined;
  /** The source as it is now; undefined for one that is gone. */
  readonly table: Table | undefined;
  readonly warnings: string[];
}

async function aimOf(context: Context, input: SnapshotInput): Promise<Aim> {
  const { client, runtime, signal } = context;
  const now = runtime.now();
  const source = parseTable(input.source_table, 'source_table', client.dataset);
  const at = input.snapshot_time === undefined ? undefined : parseInstant(input.snapshot_time, 'snapshot_time');
  const expires = input.expires_at === undefined ? undefined : parseInstant(input.expires_at, 'expires_at');
  if (expires !== undefined && expires.getTime() <= now.getTime()) {
    throw new HoldfastError('INVALID_PARAMETER', 'expires_at is not in the future', {
      hint: 'Leave expires_at out to keep the snapshot until it is deleted.',
    });
  }
  const destination =
    input.snapshot_table === undefined
      ? { dataset: client.dataset, table: stampedName(source.table, 'snapshot', now) }
      : parseTable(input.snapshot_table, 'snapshot_table', client.dataset);
  const ends = await readEnds(context, source, destination);
  const existence = await client.lookUp(source, signal);
  if (existence.state === 'unknown') throw existence.error;
  const table = existence.state === 'exists' ? existence.table : undefined;
  if (table === undefined && at === undefined) {
    throw new HoldfastError('RESOURCE_NOT_FOUND', `there is no table ${named(client, source)}`, {
      hint: 'For a table that was deleted, give snapshot_time: a moment before its deletion, within the time travel window.',
    });
  }
  if (table !== undefined && table.type !== 'TABLE') throw typeError(table, named(client, source));
  if (at !== undefined) checkMoment(at, 'snapshot_time', ends.source, table, now);
  const target = await freeName(context, destination, input.snapshot_table === undefined);
  const waiting = table === undefined ? undefined : streamingRows(table);
  const vanishing = defaultExpiration(ends.target);
  return {
    source,
    destination: target,
    location: ends.location,
    at,
    expires,
    table,
    warnings: [
      ...(waiting === undefined ? [] : [`About ${waiting} rows in the streaming buffer are not in the snapshot.`]),
      ...(vanishing === undefined || expires !== undefined
        ? []
        : [`It will vanish after ${formatDuration(vanishing / 1000)}: the dataset's default expiration.`]),
      ...(table === undefined
        ? ['The source is gone: whether its history is still kept shows when the job runs.']
        : []),
    ],
  };
}

/** A snapshot never goes where something is; a name of our own making steps aside. */
async function freeName({ client, runtime, signal }: Context, name: TableName, ours: boolean): Promise<TableName> {
  const existence = await client.lookUp(name, signal);
  if (existence.state === 'unknown') throw existence.error;
  if (existence.state === 'missing') return name;
  if (ours) return { ...name, table: `${name.table.slice(0, 1019)}_${runtime.random(2).toString('hex')}` };
  throw new HoldfastError('RESOURCE_EXISTS', `there is a ${typeWord(existence.table)} ${named(client, name)} already`, {
    hint: 'Choose a snapshot_table that is not in use, or leave it out.',
  });
}

/** Says what a snapshot would be of and where it would go. */
export async function planSnapshot(context: Context, input: SnapshotInput): Promise<PlanDraft> {
  const { client } = context;
  const aim = await aimOf(context, input);
  const project = await client.project();
  return {
    target: fullName(project, aim.destination),
    source: `${fullName(project, aim.source)}${aim.at === undefined ? '' : ` at ${aim.at.toISOString()}`}`,
    loses: 'nothing',
    undo: 'delete the snapshot with delete-snapshot',
    warnings: aim.warnings,
    facts: {
      target: { dataset: aim.destination.dataset, table: aim.destination.table, exists: false },
      source: { dataset: aim.source.dataset, table: aim.source.table },
    },
  };
}

/** The steps that take a snapshot and wait until it can be restored. */
export function snapshotSteps(plan: Plan): BigQueryStep<SnapshotInput>[] {
  const destination = {
    dataset: String(plan.facts.target['dataset']),
    table: String(plan.facts.target['table']),
  };
  return [
    {
      name: 'snapshot',
      title: 'Taking the snapshot',
      kind: 'mutate',
      async run(context) {
        const name = named(context.client, destination);
        const aim = await aimOf(context, { ...context.input, snapshot_table: name });
        const { source, location, at, expires, warnings } = aim;
        const job = { location, operation: 'SNAPSHOT', source, at, destination, replaces: false, expires } as const;
        return startJob(context, 'create_snapshot', job, { warnings });
      },
      recover: findJob,
    },
    waitForSnapshot('snapshot', 'wait', 'Waiting until the snapshot can be restored'),
  ];
}

/** The steps that snapshot the target of a restore first. */
export function safetySteps<Input>(plan: Plan): BigQueryStep<Input>[] {
  return [
    {
      name: 'safety-snapshot',
      title: 'Taking a safety snapshot of the target',
      kind: 'mutate',
      async run(context) {
        const { client, runtime } = context;
        const target = targetOf(plan);
        const tail = `_${sha256(context.idempotencyKey).slice(0, 4)}`;
        const destination = { ...target, table: stampedName(target.table, 'safety', runtime.now(), tail) };
        const location = String(plan.facts.target['location']);
        const job = { location, operation: 'SNAPSHOT', source: target, destination, replaces: false } as const;
        return startJob(context, 'safety_snapshot', job, {
          snapshot_table: named(client, destination),
          target_table: named(client, target),
        });
      },
      recover: findJob,
    },
    waitForSnapshot('safety-snapshot', 'safety-wait', 'Waiting until the safety snapshot can be restored'),
  ];
}

/** The table that a plan is about. */
export function targetOf(plan: Plan): TableName {
  return { dataset: String(plan.facts.target['dataset']), table: String(plan.facts.target['table']) };
}

function waitForSnapshot<Input>(begun: string, name: string, title: string): BigQueryStep<Input> {
  return {
    name,
    title,
    kind: 'follow',
    async run(context) {
      const { client, runtime, signal } = context;
      const handle = context.results[begun] ?? {};
      await followJob(context, handle, 'the snapshot');
      const at = { dataset: String(handle['dataset']), table: String(handle['table']) };
      const table = await client.getTable(at, signal, 'snapshot');
      const point = toPoint(table, client.dataset, runtime.now());
      if (!point.restorable) {
        throw new HoldfastError('INVALID_STATE', `the snapshot is ${point.status}: it cannot be restored`, {
          retryable: false,
          hint: 'Look at the table in the BigQuery console, then take another snapshot.',
        });
      }
      return { point: point as unknown as JsonObject };
    },
  };
}

/** Makes the answer of a finished snapshot, with what it does not hold. */
export function snapshotResult(results: Readonly<Record<string, JsonObject>>): RecoveryPoint {
  const point = results['wait']?.['point'] as unknown as RecoveryPoint;
  const begun = results['snapshot'] ?? {};
  const warnings = begun['warnings'] as string[] | undefined;
  return {
    ...point,
    provider: {
      ...point.provider,
      job_id: begun['job_id'],
      ...(warnings === undefined || warnings.length === 0 ? {} : { warnings }),
    },
  };
}

/** Gives the exact call that brings the target back to its safety snapshot. */
export function undoCall(results: Readonly<Record<string, JsonObject>>): JsonObject {
  const taken = results['safety-snapshot'] ?? {};
  return {
    action: 'restore',
    input: { snapshot_table: String(taken['snapshot_table']), target_table: String(taken['target_table']) },
  };
}

// --- deleting a snapshot -------------------------------------------------------------------------------------------

function notASnapshot(table: Table, name: string): HoldfastError {
  return new HoldfastError('INVALID_PARAMETER', `${name} is a ${typeWord(table)}, no snapshot; nothing is deleted`, {
    hint: 'Holdfast deletes snapshots only, never tables. list-snapshots shows them.',
  });
}

/** Says what deleting a snapshot takes away, until when it can be had back, and whether it is the last of its table. */
export async function planDelete(context: Context, tableName: string): Promise<PlanDraft> {
  const { client, entity, runtime, signal } = context;
  const now = runtime.now();
  const project = await client.project();
  const name = parseTable(tableName, 'table_name', client.dataset);
  const table = await client.getTable(name, signal, 'snapshot');
  const short = named(client, name);
  if (!isSnapshot(table)) throw notASnapshot(table, short);
  const base = baseOf(table);
  // A snapshot of another dataset's table, in another dataset, is not this entity's: its own policy would be passed by.
  if (name.dataset !== client.dataset && base?.dataset !== client.dataset) {
    throw new HoldfastError('INVALID_PARAMETER', 'this snapshot belongs to another dataset', {
      hint: 'Call delete-snapshot on the entity of the dataset that the snapshot is in.',
    });
  }
  const dataset = await client.getDataset(name.dataset, signal);
  const [existence, siblings] =
    base === undefined
      ? [undefined, undefined]
      : await Promise.all([
          client.lookUp(base, signal).catch(() => undefined),
          snapshotsOf(client, base, name.dataset, now, signal),
        ]);
  const point = toPoint(table, client.dataset, now);
  const others = (siblings?.points ?? []).filter((other) => other.restorable && other.id !== short);
  const [newest] = others;
  const data = point.data_at ?? point.created_at;
  const hours = timeTravelHours(dataset);
  const baseName = String(point.provider?.['base_table'] ?? 'an unknown table');
  return {
    target: fullName(project, name),
    loses: `the snapshot of ${baseName}${data === undefined ? '' : ` of ${data}`}`,
    blast_radius: {
      type: 'snapshot',
      base_table: baseName,
      base_table_exists: baseState(existence),
      ...(point.size_bytes === undefined ? {} : { size_bytes: point.size_bytes }),
      ...(typeof point.provider?.['rows'] === 'number' ? { rows: point.provider['rows'] } : {}),
      ...(point.expires_at === undefined ? {} : { expires_at: point.expires_at }),
      other_snapshots_of_it: others.length,
      time_travel_hours: hours,
    },
    ...(newest?.data_at === undefined ? {} : { newest_recovery_point: { id: newest.id, at: newest.data_at } }),
    last_restorable: point.restorable && others.length === 0,
    undo: `for ${formatDuration(hours * 3600)} after the deletion: restore with snapshot_table and restore_timestamp, a moment before it, unless the name is used again`,
    alternatives: [
      ...(base !== undefined && existence?.state === 'exists' && existence.table.type === 'TABLE'
        ? [
            {
              title: 'Take a new snapshot of the table first',
              risk: 'create' as const,
              call: {
                entity: entity.key,
                action: 'create-snapshot',
                input: { source_table: named(client, base) },
              },
            },
          ]
        : []),
    ],
    warnings: [
      ...(existence?.state === 'missing' ? [`The table ${baseName} is gone: only snapshots still hold it.`] : []),
      ...(others.length === 0 ? [`No other snapshot of ${baseName} was found in ${name.dataset}.`] : []),
    ],
    unknowns: [
      ...(siblings?.complete === true ? [] : ['whether there are more snapshots of the same table']),
      ...(existence === undefined || existence.state === 'unknown' ? ['whether its table still exists'] : []),
    ],
    facts: {
      target: {
        project,
        dataset: name.dataset,
        table: name.table,
        type: 'snapshot',
        created: String(table.creationTime ?? ''),
        etag: etagOf(table),
        ...(point.data_at === undefined ? {} : { at: point.data_at }),
      },
      context: { last_restorable: others.length === 0 },
    },
  };
}

function baseState(existence: Existence | undefined): JsonObject[string] {
  if (existence === undefined || existence.state === 'unknown') return 'unknown';
  return existence.state === 'exists';
}

/** The step that deletes a snapshot: its type is proved once more just before. */
export function deleteSteps(plan: Plan): BigQueryStep<{ table_name: string }>[] {
  const name = targetOf(plan);
  const created = String(plan.facts.target['created']);
  const look = async (client: BigQueryClient, signal: AbortSignal): Promise<Table | undefined> => {
    const existence = await client.lookUp(name, signal);
    if (existence.state === 'unknown') throw existence.error;
    return existence.state === 'exists' ? existence.table : undefined;
  };
  return [
    {
      name: 'delete',
      title: 'Deleting the snapshot',
      kind: 'mutate',
      async run(context) {
        const { client, runtime, signal } = context;
        const table = await look(client, signal);
        if (table === undefined) throw new HoldfastError('SNAPSHOT_NOT_FOUND', 'the snapshot is gone already');
        if (!isSnapshot(table)) throw notASnapshot(table, named(client, name));
        if (etagOf(table) !== plan.facts.target['etag'] || table.creationTime !== created) {
          throw new HoldfastError(
            'INVALID_STATE',
            'the snapshot changed after the plan was made; nothing was deleted',
            {
              hint: 'Make the call again for a new plan.',
            },
          );
        }
        const dataset = await client.getDataset(name.dataset, signal);
        const now = runtime.now().getTime();
        // A minute earlier, so that clocks that differ do not matter, yet never before the snapshot was made.
        const before = new Date(Math.max(now - 60_000, Number(created) + 1));
        const handle = {
          table_name: named(client, name),
          before: before.toISOString(),
          until: new Date(now + timeTravelHours(dataset) * 3_600_000).toISOString(),
        };
        await context.checkpoint(handle);
        await client.deleteSnapshot(name, created, signal);
        return handle;
      },
      async recover(context) {
        const { client, handle } = context;
        if (handle === undefined) return { state: 'not_begun' };
        const signal = recoverySignal(context.signal);
        const gone = await lookThrice(context, async () => {
          const table = await look(client, signal);
          // Whoever made another one of this name found it free.
          return table === undefined || table.creationTime !== created ? true : undefined;
        });
        return gone === true
          ? { state: 'done', result: handle }
          : { state: 'not_begun', message: 'the snapshot is there as before' };
      },
    },
  ];
}

/** Makes the answer of a deletion: until when, and by which call, the snapshot can be had back. */
export function deleteResult(results: Readonly<Record<string, JsonObject>>): {
  table_name: string;
  deleted: true;
  recoverable_until: string;
  recover_with: JsonObject;
} {
  const done = results['delete'] ?? {};
  const snapshot = String(done['table_name']);
  return {
    table_name: snapshot,
    deleted: true,
    recoverable_until: String(done['until']),
    recover_with: {
      action: 'restore',
      input: {
        snapshot_table: snapshot,
        restore_timestamp: String(done['before']),
        target_table: `${snapshot.slice(0, 1014)}_recovered`,
      },
    },
  };
}
