import type { RecoveryOption } from '../../core/provider.ts';
import type { BackupInfo } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration } from '../../core/time.ts';
import { driftOf } from '../findings.ts';
import {
  baseOf,
  count,
  defaultExpiration,
  instant,
  isSame,
  type Row,
  stampedName,
  type Table,
  type TableName,
  timeTravelHours,
  toPoint,
  typeWord,
  windowOf,
} from './map.ts';
import { settingsFindings } from './settings.ts';
import { allRows, type Context, eachOf, named, nameOf, readSnapshot, snapshotRows } from './tables.ts';

// Ways back are given for this many tables; a dataset may have thousands.
const SHOWN = 5;

function isExpired(row: Row, now: Date): boolean {
  const at = instant(row.expirationTime);
  return at !== undefined && Date.parse(at) <= now.getTime();
}

/** Says how well the tables of a dataset are backed up. */
export async function backupInfo({ client, entity, runtime, signal }: Context): Promise<BackupInfo> {
  const now = runtime.now();
  const [dataset, { rows, complete }] = await Promise.all([
    client.getDataset(client.dataset, signal),
    allRows(client, client.dataset, signal),
  ]);
  const live = snapshotRows(rows).filter((row) => !isExpired(row, now));
  const [first] = live;
  const found = first === undefined ? undefined : await readSnapshot(client, nameOf(first) as TableName, signal);
  const newest = first === undefined ? null : toPoint(found ?? first, client.dataset, now);
  const types: Record<string, number> = {};
  for (const row of rows) types[typeWord(row)] = (types[typeWord(row)] ?? 0) + 1;

  const hours = timeTravelHours(dataset);
  const expiration = defaultExpiration(dataset);
  const partitions = count(dataset.defaultPartitionExpirationMs);
  const soon = live.filter((row) => {
    const at = instant(row.expirationTime);
    return at !== undefined && Date.parse(at) - now.getTime() < 7 * 86_400_000;
  });
  const warnings: string[] = [];
  if (newest === null) {
    warnings.push(`There is no snapshot: after ${formatDuration(hours * 3600)} nothing brings a table back.`);
  } else if (newest.created_at !== undefined) {
    const age = (now.getTime() - Date.parse(newest.created_at)) / 1000;
    if (age > hours * 3600) {
      warnings.push(`The newest snapshot is ${formatDuration(age)} old, older than what time travel reaches.`);
    }
  }
  if (hours < 168) warnings.push(`Time travel reaches back ${hours} hours only, of 168 possible.`);
  if (expiration !== undefined) {
    warnings.push(`New tables and snapshots vanish after ${formatDuration(expiration / 1000)} by default.`);
  }
  if (partitions) warnings.push(`Partitions vanish after ${formatDuration(partitions / 1000)} by default.`);
  if (soon.length > 0) warnings.push(`${soon.length} of ${live.length} snapshots expire within 7 days.`);
  if ((types['external'] ?? 0) > 0) {
    warnings.push(`${types['external']} external tables: neither snapshots nor time travel keep their data.`);
  }
  if (dataset.storageBillingModel === 'PHYSICAL') {
    warnings.push('Storage is billed physically: time travel and fail-safe are paid for.');
  }
  if (dataset.type && dataset.type !== 'DEFAULT') {
    warnings.push(`This is a dataset of type ${cleanText(dataset.type, 40)}: its tables may not be snapshottable.`);
  }
  if (!complete) warnings.push('The dataset has more tables than were looked at.');
  warnings.push(...driftOf(settingsFindings(entity, dataset)));
  const kms = dataset.defaultEncryptionConfiguration?.kmsKeyName;
  return {
    // BigQuery keeps the history of every table by itself, but takes no snapshot.
    automated: false,
    retention_seconds: hours * 3600,
    schedule: 'none: time travel is continuous, snapshots are taken on demand',
    pitr: { enabled: true, window: windowOf(dataset, now) },
    encryption: kms ? `customer-managed key ${cleanText(kms, 300)}` : 'Google-managed keys',
    deletion_protection: null,
    newest,
    warnings,
    provider: {
      project: await client.project(),
      dataset: client.dataset,
      location: cleanText(dataset.location, 60),
      time_travel_hours: hours,
      ...(expiration === undefined ? {} : { default_table_expiration_ms: expiration }),
      storage_billing: cleanText(dataset.storageBillingModel, 40) || 'LOGICAL',
      case_insensitive: dataset.isCaseInsensitive === true,
      objects: types,
    },
  };
}

/** Every way back of a few tables: a moment into a new table, a snapshot into a new table, a snapshot over its base. */
export async function recoveryOptions(
  { client, entity, runtime, signal }: Context,
  at: Date | undefined,
): Promise<RecoveryOption[]> {
  const now = runtime.now();
  const [dataset, { rows }] = await Promise.all([
    client.getDataset(client.dataset, signal),
    allRows(client, client.dataset, signal),
  ]);
  const tables = rows.filter((row) => row.type === 'TABLE' && nameOf(row) !== undefined);
  const window = windowOf(dataset, now);
  const options: RecoveryOption[] = [];
  const moment = at ?? new Date(Math.max(now.getTime() - 60_000, Date.parse(window.earliest_at)));
  const reached = (row: Row): boolean =>
    moment.getTime() >= Math.max(Date.parse(window.earliest_at), count(row.creationTime) ?? 0);
  if (moment.getTime() <= now.getTime()) {
    const within = tables.filter(reached);
    for (const row of within.slice(0, SHOWN)) {
      const source = nameOf(row) as TableName;
      const target = { ...source, table: stampedName(source.table, 'restore', now) };
      options.push({
        title: `${named(client, source)} as of then into the new table ${named(client, target)}${within.length > SHOWN ? ` (and so for any of ${within.length} tables)` : ''}`,
        moment: moment.toISOString(),
        loses: 'nothing: the table stays as it is',
        risk: 'create',
        call: {
          entity: entity.key,
          action: 'restore',
          input: {
            source_table: named(client, source),
            restore_timestamp: moment.toISOString(),
            target_table: named(client, target),
          },
        },
      });
    }
  }
  for (const { table, base } of await newestByBase(
    { client, entity, runtime, signal },
    rows.filter((row) => !isExpired(row, now)),
    at,
  )) {
    const point = toPoint(table, client.dataset, now);
    const data = point.data_at ?? point.created_at;
    if (data === undefined) continue;
    const target = { ...base, dataset: client.dataset, table: stampedName(base.table, 'restore', now) };
    const input = { snapshot_table: point.id, target_table: named(client, target) };
    options.push({
      title: `Snapshot ${point.id} into the new table ${named(client, target)}`,
      moment: data,
      loses: 'nothing: the table stays as it is',
      risk: 'create',
      call: { entity: entity.key, action: 'restore', input },
    });
    if (tables.some((row) => isSame(nameOf(row) as TableName, base))) {
      options.push({
        title: `Snapshot ${point.id} over the table ${named(client, base)} itself`,
        moment: data,
        loses: `everything written to ${named(client, base)} after ${data}`,
        risk: 'overwrite',
        call: { entity: entity.key, action: 'restore', input: { ...input, target_table: named(client, base) } },
      });
    }
  }
  return options.sort((a, b) => Number(a.risk !== 'create') - Number(b.risk !== 'create'));
}

async function newestByBase(
  { client, signal }: Context,
  rows: readonly Row[],
  at: Date | undefined,
): Promise<{ table: Table; base: TableName }[]> {
  const details = await eachOf(snapshotRows(rows).slice(0, 50), (row) =>
    readSnapshot(client, nameOf(row) as TableName, signal),
  );
  const newest: { table: Table; base: TableName; at: number }[] = [];
  for (const table of details) {
    const base = baseOf(table);
    const data = Date.parse(table?.snapshotDefinition?.snapshotTime ?? '');
    if (table === undefined || base === undefined || (at !== undefined && !(data <= at.getTime()))) continue;
    const other = newest.find((one) => isSame(one.base, base));
    if (other === undefined) newest.push({ table, base, at: data });
    else if (data > other.at) Object.assign(other, { table, at: data });
  }
  return newest.sort((a, b) => b.at - a.at).slice(0, SHOWN);
}
