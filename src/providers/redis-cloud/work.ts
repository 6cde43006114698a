import { HoldfastError } from '../../core/errors.ts';
import { isObject, type JsonObject } from '../../core/json.ts';
import type { Recovery, StepContext } from '../../core/operation.ts';
import { failureDetails } from './backups.ts';
import type { Address, RedisCloudClient } from './client.ts';
import { type Attempt, attemptStatus, type Task, taskStatus } from './map.ts';
import type { RedisCloudEntity } from './provider.ts';

export type Kind = 'backup' | 'import';
type Work<Input> = StepContext<RedisCloudClient, RedisCloudEntity, Input>;

/** A task may wait long for its turn: an account does one thing at a time. */
const TASK_LIMIT_SECONDS = 3600;
const LIMIT_SECONDS: Record<Kind, number> = { backup: 2 * 3600, import: 6 * 3600 };
/** An old failure looks like ours until the new attempt shows; after this many seconds it is believed. */
const STALE_SECONDS = 60;
/** Seconds between looks for a write whose answer was lost: together longer than a request may be under way. */
const RECOVERY_PAUSES = [0, 1, 2, 4, 8, 20] as const;

/** Gives the ids of the tasks of one kind that may be about a database, so that a new one stands out. */
export async function knownTasks<Input>(
  { client, signal }: Work<Input>,
  kind: Kind,
  address: Address,
): Promise<string[]> {
  return (await client.tasks(signal)).filter((task) => mayBe(task, kind, address)).map(({ id }) => id);
}

function mayBe(task: Task, kind: Kind, address: Address): boolean {
  const command = task.command.toLowerCase();
  if (!command.includes(kind) || command.includes('status')) return false;
  return task.resourceIds.length === 0 || task.resourceIds.includes(address.database);
}

/**
 * Finds out by reading what became of a write: the task that was not there before is ours. A task that does not name its
 * database yet is not taken for ours.
 */
export async function recoverWrite<Input>(context: Work<Input>, kind: Kind): Promise<Recovery> {
  const { client, runtime, handle, signal } = context;
  // The first checkpoint comes before the write.
  if (handle === undefined) return { state: 'not_begun', message: `the ${kind} was not asked for yet` };
  if (typeof handle['task_id'] === 'string') return { state: 'done', result: handle };
  const address = addressOf(handle);
  const known = new Set(Array.isArray(handle['known_tasks']) ? handle['known_tasks'].map(String) : []);
  let nameless = false;
  for (const pause of RECOVERY_PAUSES) {
    if (pause > 0) await runtime.sleep(pause * 1000, signal);
    const found = (await client.tasks(signal)).filter((task) => !known.has(task.id) && mayBe(task, kind, address));
    const own = found.filter((task) => task.resourceIds.includes(address.database));
    if (own.length > 1) return { state: 'unknown', message: `${own.length} tasks of this kind began at the same time` };
    const [task] = own;
    if (task !== undefined) return { state: 'done', result: { ...handle, task_id: task.id } };
    nameless = found.length > 0;
  }
  if (nameless) {
    return {
      state: 'unknown',
      message: `a new ${kind} task waits in the account's queue and does not say for which database`,
    };
  }
  return { state: 'not_begun', message: `Redis Cloud has no task for this ${kind}` };
}

/** What a step must store to find its work again. */
export function handleFor(address: Address, extra: JsonObject): JsonObject {
  return { tier: address.tier, subscription_id: address.subscription, database_id: address.database, ...extra };
}

/** Gives the address out of a stored handle. */
export function addressOf(handle: JsonObject): Address {
  return {
    tier: handle['tier'] === 'pro' ? 'pro' : 'essentials',
    subscription: Number(handle['subscription_id']),
    database: Number(handle['database_id']),
  };
}

/** Gives an attempt as it is stored, to tell a later one from it. */
export function toJson(attempt: Attempt): JsonObject {
  return { status: attempt.status, at: attempt.at };
}

function fromJson(value: unknown): Pick<Attempt, 'status' | 'at'> {
  const before = isObject(value) ? value : {};
  return {
    status: typeof before['status'] === 'string' ? before['status'] : undefined,
    at: typeof before['at'] === 'string' ? before['at'] : undefined,
  };
}

/** How the task itself ended: looking again shows the same. */
function verdict({ code, message, hint, details, provider }: HoldfastError): HoldfastError {
  return new HoldfastError(code, message, { hint, details, provider, retryable: false });
}

/**
 * Follows a backup or an import to its end: the task, then the latest attempt, then the database itself. A completed task
 * only means that the request was handed over.
 * @throws {HoldfastError} what the task's error means; PROVIDER_UNAVAILABLE when the attempt failed; TIMEOUT
 */
export async function followWork<Input>(context: Work<Input>, kind: Kind, begun: JsonObject): Promise<Attempt> {
  const { client, signal, progress } = context;
  const address = addressOf(begun);
  const region = typeof begun['region'] === 'string' ? begun['region'] : undefined;
  const before = fromJson(begun['before']);
  const taskId = String(begun['task_id']);
  try {
    await client.settle(taskId, { doing: `the ${kind}`, limitSeconds: TASK_LIMIT_SECONDS, progress }, signal);
  } catch (cause) {
    throw cause instanceof HoldfastError && cause.provider?.request_id === taskId ? verdict(cause) : cause;
  }
  const pacer = client.pacer(LIMIT_SECONDS[kind]);
  let attempt: Attempt;
  let hasRun = false;
  for (;;) {
    attempt =
      kind === 'backup'
        ? await client.latestBackup(address, region, signal)
        : await client.latestImport(address, signal);
    const status = attemptStatus(attempt.status);
    // The answer is about the latest attempt: what stood there before the call is not ours.
    hasRun ||= status === 'running';
    const isNew = hasRun || attempt.at !== before.at || attempt.status !== before.status;
    if (status === 'succeeded' && isNew) break;
    if ((status === 'failed' || status === 'cancelled') && (isNew || pacer.waitedSeconds >= STALE_SECONDS)) {
      throw new HoldfastError('PROVIDER_UNAVAILABLE', `the ${kind} failed at Redis Cloud`, {
        hint:
          kind === 'import'
            ? 'The database may be empty or half filled. Correct the cause, then import again.'
            : 'No new backup exists. Check the path and its permissions.',
        retryable: false,
        details: failureDetails(attempt),
      });
    }
    progress({
      message:
        status === 'unknown'
          ? `Redis Cloud calls the ${kind} '${attempt.status}', which Holdfast does not know`
          : `Redis Cloud has not finished the ${kind}`,
    });
    await pacer.next(`the ${kind}`, signal);
  }
  while ((await client.database(address, signal)).status !== 'active') {
    progress({ message: 'Waiting until the database is active' });
    await pacer.next(`the ${kind}`, signal);
  }
  return attempt;
}

/** The state of a restore: the task, the latest import and the database together. */
export function restoreState(
  task: Task,
  latest: Attempt | undefined,
  databaseStatus: string,
  before: unknown,
): { status: ReturnType<typeof taskStatus>; usable: boolean } {
  const handedOver = taskStatus(task.status);
  if (task.error !== undefined) return { status: 'failed', usable: databaseStatus === 'active' };
  if (handedOver !== 'succeeded') return { status: handedOver, usable: false };
  // What stood there when the import was asked for is about the one before it.
  const isOld = isObject(before) && latest?.at === before['at'] && latest?.status === before['status'];
  if (isOld) return { status: 'running', usable: false };
  const work = latest === undefined ? 'unknown' : attemptStatus(latest.status);
  if (work === 'succeeded') {
    return databaseStatus === 'active' ? { status: 'succeeded', usable: true } : { status: 'running', usable: false };
  }
  return { status: work === 'pending' ? 'running' : work, usable: false };
}
