import type { ProviderContext } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import { pageOf } from '../../core/page.ts';
import type { RecoveryPoint, SnapshotList } from '../../core/schemas.ts';
import { formatDuration } from '../../core/time.ts';
import type { BigQueryClient } from './client.ts';
import {
  baseOf,
  checkDataset,
  count,
  type Dataset,
  isSame,
  isSnapshot,
  parseTable,
  provesAbsence,
  type Row,
  referenceOf,
  shortName,
  type Table,
  type TableName,
  timeTravelHours,
  toPoint,
  typeWord,
  windowOf,
} from './map.ts';
import type { BigQueryEntity } from './provider.ts';

export type Context = ProviderContext<BigQueryClient, BigQueryEntity>;

const PAGES = 50;
const PAGE = 1000;
const DETAILS = 50;
const AT_ONCE = 5;

/** Gives all tables of a dataset, whatever their type; stops after 50 000 and says so. */
export async function allRows(
  client: BigQueryClient,
  dataset: string,
  signal: AbortSignal,
): Promise<{ rows: Row[]; complete: boolean }> {
  const rows: Row[] = [];
  let token: string | undefined;
  for (let page = 0; page < PAGES; page += 1) {
    const { items, next } = await client.listTables(dataset, { limit: PAGE, token }, signal);
    rows.push(...items);
    if (next === undefined) return { rows, complete: true };
    token = next;
  }
  return { rows, complete: false };
}

/** The name of a row; one whose reference is not readable is left out of every list. */
export function nameOf(row: Row | Table): TableName | undefined {
  return referenceOf(row.tableReference);
}

// Milliseconds of the epoch have 13 digits until the year 2286, so text sorts as time does.
function ageKey(row: Row): string {
  return `${String(row.creationTime ?? '').padStart(16, '0')} ${nameOf(row)?.table ?? ''}`;
}

/** Gives the snapshots among the tables of a dataset, newest first. */
export function snapshotRows(rows: readonly Row[]): Row[] {
  return rows
    .filter((row) => isSnapshot(row) && nameOf(row) !== undefined)
    .map((row) => ({ row, key: ageKey(row) }))
    .sort((a, b) => (a.key < b.key ? 1 : a.key > b.key ? -1 : 0))
    .map(({ row }) => row);
}

/** Does something for each of many, five at a time, the results in order. */
export async function eachOf<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < items.length) {
      const at = next;
      next += 1;
      results[at] = await work(items[at] as T);
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, lane));
  return results;
}

/** Reads one snapshot; undefined where it went meanwhile or may not be looked at. */
export async function readSnapshot(
  client: BigQueryClient,
  name: TableName,
  signal: AbortSignal,
): Promise<Table | undefined> {
  try {
    const table = await client.getTable(name, signal, 'snapshot');
    return isSnapshot(table) ? table : undefined;
  } catch (cause) {
    if (provesAbsence(cause) || (cause instanceof HoldfastError && cause.code === 'INSUFFICIENT_PERMISSIONS')) {
      return undefined;
    }
    throw cause;
  }
}

/** What is known of the other snapshots of one table: those found, and whether all were looked at. */
export interface Siblings {
  readonly points: RecoveryPoint[];
  readonly complete: boolean;
}

/** Finds the snapshots of one table in a dataset, newest first: each has to be read, so at most a hundred are. */
export async function snapshotsOf(
  client: BigQueryClient,
  base: TableName,
  where: string,
  now: Date,
  signal: AbortSignal,
): Promise<Siblings> {
  const { rows, complete } = await allRows(client, where, signal);
  const all = snapshotRows(rows);
  const looked = all.slice(0, DETAILS * 2);
  const tables = await eachOf(looked, (row) => readSnapshot(client, nameOf(row) as TableName, signal));
  const points = tables.flatMap((table) => {
    const of = baseOf(table);
    return table !== undefined && of !== undefined && isSame(of, base) ? [toPoint(table, client.dataset, now)] : [];
  });
  return {
    points: points.sort((a, b) => Date.parse(b.data_at ?? '') - Date.parse(a.data_at ?? '')),
    complete: complete && looked.length === all.length && tables.every((table) => table !== undefined),
  };
}

/** Lists the snapshots of a dataset, newest first; what each is of is known only by looking at each. */
export async function listSnapshots(
  { client, runtime, signal }: Context,
  input: {
    limit?: number | undefined;
    cursor?: string | undefined;
    dataset?: string | undefined;
    details?: boolean | undefined;
  },
): Promise<SnapshotList> {
  const dataset = checkDataset(input.dataset ?? client.dataset);
  const { rows, complete } = await allRows(client, dataset, signal);
  const limit = input.details === true ? Math.min(input.limit ?? DETAILS, DETAILS) : input.limit;
  const { items, next_cursor } = pageOf(snapshotRows(rows), limit, input.cursor, ageKey);
  const now = runtime.now();
  const shown =
    input.details === true
      ? await eachOf(items, async (row) => (await readSnapshot(client, nameOf(row) as TableName, signal)) ?? row)
      : items;
  const notes = [
    ...(complete ? [] : [`the dataset has more than ${PAGES * PAGE} tables; some may be missing here`]),
    ...(input.details === true || items.length === 0 ? [] : ['details: true adds base tables, moments and sizes']),
  ];
  return {
    snapshots: shown.map((table) => toPoint(table, client.dataset, now)),
    ...(next_cursor === undefined ? {} : { next_cursor }),
    ...(notes.length === 0 ? {} : { notes }),
  };
}

/** Describes one table: a snapshot, or another one, which is never restorable. */
export async function describeTable({ client, runtime, signal }: Context, name: string): Promise<RecoveryPoint> {
  const table = await client.getTable(parseTable(name, 'table_name', client.dataset), signal, 'snapshot');
  return toPoint(table, client.dataset, runtime.now());
}

/** The location of a dataset, which every job has to name. */
export function locationOf(dataset: Dataset): string {
  const { location } = dataset;
  if (location) return location;
  throw new HoldfastError('PROVIDER_UNAVAILABLE', 'BigQuery gave no location for the dataset');
}

/**
 * Reads the datasets at both ends of a copy.
 * @throws {HoldfastError} INVALID_PARAMETER where neither is the entity's own, or they are in different locations
 */
export async function readEnds(
  { client, signal }: Context,
  from: TableName,
  to: TableName,
): Promise<{ source: Dataset; target: Dataset; location: string }> {
  // Work between two other datasets would pass by the policy of both.
  if (from.dataset !== client.dataset && to.dataset !== client.dataset) {
    throw new HoldfastError('INVALID_PARAMETER', 'neither end of the copy is in the dataset of this entity', {
      hint: `One of the two tables must be in ${client.dataset}; configure the other dataset as an entity of its own.`,
    });
  }
  const source = await client.getDataset(from.dataset, signal);
  const target = from.dataset === to.dataset ? source : await client.getDataset(to.dataset, signal);
  const location = locationOf(source);
  if (locationOf(target).toLowerCase() !== location.toLowerCase()) {
    throw new HoldfastError('INVALID_PARAMETER', 'the two datasets are in different locations', {
      hint: 'BigQuery takes and restores snapshots within one location only. Name a dataset in the same one.',
    });
  }
  return { source, target, location };
}

/**
 * Holds a moment against the time travel window and the age of the table.
 * @throws {HoldfastError} INVALID_PARAMETER in the future; INVALID_STATE outside of the window
 */
export function checkMoment(at: Date, parameter: string, dataset: Dataset, table: Table | undefined, now: Date): void {
  if (at.getTime() > now.getTime()) {
    throw new HoldfastError('INVALID_PARAMETER', `${parameter} is in the future`, {
      hint: 'Give a moment in the past.',
    });
  }
  const { earliest_at } = windowOf(dataset, now);
  const outside = (what: string, since: string): HoldfastError =>
    new HoldfastError('INVALID_STATE', `${parameter} is ${what}`, {
      retryable: false,
      hint: `Time travel in this dataset reaches back ${formatDuration(timeTravelHours(dataset) * 3600)}: give a moment after ${since}, or restore a snapshot.`,
      details: { earliest_at: since, latest_at: now.toISOString() },
    });
  if (at.getTime() < Date.parse(earliest_at)) throw outside('before the time travel window', earliest_at);
  const made = count(table?.creationTime);
  if (made !== undefined && at.getTime() < made) {
    throw outside('before the table was made', new Date(made).toISOString());
  }
}

/** The name of a table for a person and for our parameters. */
export function named(client: BigQueryClient, name: TableName): string {
  return shortName(name, client.dataset);
}

/** Refuses a table that BigQuery cannot snapshot, in words. */
export function typeError(table: Table, what: string): HoldfastError {
  return new HoldfastError('NOT_SUPPORTED', `${what} is a ${typeWord(table)}: only tables can be snapshotted`, {
    hint: 'Views, external tables and snapshots have no history of their own. Name a table.',
  });
}

/** Tells whether two tables are one, for a restore onto the table that the snapshot is of. */
export function isBaseOf(table: Table, name: TableName): boolean {
  const base = baseOf(table);
  return base !== undefined && isSame(base, name);
}
