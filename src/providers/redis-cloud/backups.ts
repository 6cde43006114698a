import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { RecoveryOption } from '../../core/provider.ts';
import type { RecoveryPoint } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { instantOf, textOf } from '../../core/wire.ts';
import { type Attempt, attemptStatus, redactText, showPath, storageTypeOf } from './map.ts';
import { type Context, readTarget, type Target } from './target.ts';

export const LEDGER = 'snapshot';
const LEDGER_LIMIT = 500;
export const NO_LISTING =
  'Redis Cloud has no list of backups: this is the latest one that it tells of, and those that Holdfast made. Other files may lie in the storage.';

/** The latest attempt to back up, or why it could not be read. */
export interface Latest {
  readonly region: string | undefined;
  readonly attempt: Attempt | undefined;
  readonly problem: string | undefined;
}

/** Reads the latest backup, one for each region of an Active-Active database. A busy account is told, not thrown. */
export async function readLatest({ client, signal }: Context, target: Target): Promise<Latest[]> {
  const regions = target.database.isActiveActive ? target.database.regions.map(({ name }) => name) : [undefined];
  const latest: Latest[] = [];
  for (const region of regions) {
    try {
      const attempt = await client.latestBackup(target.address, region, signal);
      latest.push({ region, attempt, problem: undefined });
    } catch (cause) {
      if (!(cause instanceof HoldfastError)) throw cause;
      if (cause.code === 'TIMEOUT') {
        const problem = 'The state of the latest backup could not be read: the account is busy with other work.';
        latest.push({ region, attempt: undefined, problem });
      } else if (cause.code === 'BACKUP_NOT_FOUND' || cause.code === 'CLUSTER_TIER_NOT_SUPPORTED') {
        latest.push({ region, attempt: undefined, problem: undefined });
      } else throw cause;
    }
  }
  return latest;
}

/** Gives what is known of a database's backups, newest first: the latest of the service and our own ledger. */
export async function knownPoints(
  context: Context,
  target: Target,
  latest: readonly Latest[],
): Promise<RecoveryPoint[]> {
  const notes = new Map<string, JsonObject>();
  for (const note of await context.runtime.ledger.list(LEDGER, LEDGER_LIMIT)) {
    const id = textOf(note['id']);
    // A wait that ran again after a crash notes the same backup again.
    if (id !== undefined && note['database_id'] === target.address.database && !notes.has(id)) notes.set(id, note);
  }
  const points: RecoveryPoint[] = [];
  for (const { region, attempt } of latest) {
    if (attempt?.status === undefined) continue;
    const own = [...notes.values()].find(
      (note) =>
        note['backup_at'] !== undefined && note['backup_at'] === attempt.at && (note['region'] ?? undefined) === region,
    );
    if (own !== undefined) notes.delete(String(own['id']));
    points.push(latestPoint(target, region, attempt, own));
  }
  points.push(...[...notes.values()].map(ledgerPoint));
  return points.sort((a, b) => timeOf(b) - timeOf(a));
}

function timeOf(point: RecoveryPoint): number {
  return point.created_at === undefined ? Number.POSITIVE_INFINITY : Date.parse(point.created_at);
}

function latestPoint(
  target: Target,
  region: string | undefined,
  attempt: Attempt,
  own: JsonObject | undefined,
): RecoveryPoint {
  const { database, address } = target;
  const status = attemptStatus(attempt.status);
  const settings = database.regions.find(({ name }) => name === region)?.backup ?? database.backup;
  const latestId = `latest:${address.database}${region === undefined ? '' : `:${region}`}`;
  const destination =
    textOf(own?.['destination']) ?? (settings.destination === undefined ? undefined : showPath(settings.destination));
  return {
    id: textOf(own?.['id']) ?? latestId,
    kind: textOf(own?.['kind']) ?? 'latest',
    status: {
      succeeded: 'available',
      failed: 'failed',
      cancelled: 'failed',
      pending: 'creating',
      running: 'creating',
      unknown: 'unknown',
    }[status],
    ...(status === 'succeeded' && attempt.at !== undefined ? { created_at: attempt.at } : {}),
    ...(destination === undefined ? {} : { location: destination }),
    restorable: status === 'succeeded',
    provider: {
      completeness: 'latest-only',
      file: 'not checked; its name is not told',
      also: own === undefined ? undefined : latestId,
      region,
      provider_status: attempt.status,
      last_attempt_at: attempt.at,
      failure_reason: attempt.failureReason,
    },
  };
}

function ledgerPoint(note: JsonObject): RecoveryPoint {
  const failed = note['status'] === 'failed';
  const at = instantOf(note['backup_at']);
  return {
    id: String(note['id']),
    kind: textOf(note['kind']) ?? 'on_demand',
    // The file may have been deleted since: only a look into the storage can tell.
    status: failed ? 'failed' : 'unknown',
    ...(at === undefined ? {} : { created_at: at }),
    ...(textOf(note['destination']) === undefined ? {} : { location: String(note['destination']) }),
    restorable: false,
    ...(failed ? {} : { description: 'Written then; whether the file still exists was not checked.' }),
    provider: { source: 'ledger', file: 'not checked', task_id: note['task_id'], region: note['region'] },
  };
}

/** Stores that Holdfast made a backup, because the service forgets all but the latest. */
export async function noteSnapshot({ runtime }: Context, note: JsonObject): Promise<void> {
  await runtime.ledger.add(LEDGER, note);
}

/** The call that brings a backup back. The file's name has to be put in: the service does not tell it. */
export function importCall(destination: string | undefined): { action: string; input: JsonObject } {
  const folder = (destination ?? 's3://bucket/path').replace(/\/+$/, '');
  const type = storageTypeOf(destination) ?? 'aws-s3';
  // Angle brackets are refused by restore, so that this is never run as it stands.
  return { action: 'restore', input: { source_type: type, source_uri: [`${folder}/<file>.rdb.gz`] } };
}

/** Every way back: the latest backup and those of the ledger. Redis Cloud has no point in time. */
export async function recoveryOptions(context: Context, at: Date | undefined): Promise<RecoveryOption[]> {
  if (context.entity.database_id === undefined && context.entity.defines === 'redis-cloud/essentials-subscription')
    return [];
  const target = await readTarget(context);
  const points = await knownPoints(context, target, await readLatest(context, target));
  return points
    .filter((point) => point.status === 'available' || point.status === 'unknown')
    .flatMap((point) => {
      const moment = point.created_at;
      if (moment === undefined || (at !== undefined && Date.parse(moment) > at.getTime())) return [];
      const place = cleanText(point.location ?? 'your storage', 200);
      return {
        title: `Import the backup of ${moment} from ${place}; put the file's name in, one URI for each shard${point.restorable ? '' : ' (if the file is still there)'}`,
        moment,
        loses: target.database.isActiveActive
          ? `every write since ${moment}, in all regions: an import empties the database first, or merges and overwrites; nobody tells which`
          : `every key that is not in the file, and every write since ${moment}: an import empties the database first`,
        risk: 'overwrite' as const,
        call: { entity: context.entity.key, ...importCall(point.location) },
      };
    });
}

/** Text of the service about a failed attempt, fit to be shown as data. */
export function failureDetails(attempt: Attempt): JsonObject {
  return {
    provider_status: attempt.status === undefined ? undefined : redactText(attempt.status, 60),
    failure_reason: attempt.failureReason,
  };
}
