import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Step } from '../../core/operation.ts';
import { compareFacts, type Plan, type PlanDraft } from '../../core/plan.ts';
import type { RecoveryPoint } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration, parseInstant } from '../../core/time.ts';
import { lookThrice, recoverySignal } from '../follow.ts';
import { unless } from '../rest.ts';
import { type Context, follow, readPoint } from './backups.ts';
import type { CloudSqlClient } from './client.ts';
import { type Operation, operationError, operationStatus, parseBackupId } from './map.ts';
import type { CloudSqlEntity } from './provider.ts';

export interface UpdateInput {
  backup_id: string;
  description?: string | undefined;
  expires_at?: string | number | undefined;
}

const DAY_MS = 86_400_000;
/** Cloud SQL keeps no backup that ends for longer. */
const LONGEST_DAYS = 365;

interface Wish {
  readonly name: string;
  readonly description: string | undefined;
  readonly expires: string | undefined;
}

function readWish({ backup_id, description, expires_at }: UpdateInput): Wish {
  const ref = parseBackupId(backup_id);
  if (ref.kind === 'run') {
    throw new HoldfastError('NOT_SUPPORTED', 'a backup run of an instance cannot be changed', {
      hint: 'Only final backups of deleted instances can; list-snapshots with named: true shows their names.',
    });
  }
  if (description === undefined && expires_at === undefined) {
    throw new HoldfastError('INVALID_PARAMETER', 'nothing is to be changed', {
      hint: 'Give description, expires_at or both.',
    });
  }
  const expires = expires_at === undefined ? undefined : parseInstant(expires_at, 'expires_at').toISOString();
  return { name: ref.name, description, expires };
}

function checkEnd(expires: string | undefined, now: Date): void {
  if (expires === undefined) return;
  const days = (Date.parse(expires) - now.getTime()) / DAY_MS;
  if (days > 0 && days <= LONGEST_DAYS) return;
  throw new HoldfastError('INVALID_PARAMETER', `expires_at must lie within the next ${LONGEST_DAYS} days`, {
    hint: 'To end a backup now use delete-snapshot.',
  });
}

function factsOf(project: string, point: RecoveryPoint): JsonObject {
  return {
    project,
    backup: point.id,
    status: point.status,
    at: point.data_at ?? null,
    expires_at: point.expires_at ?? null,
    description: point.description ?? null,
  };
}

/** Says what becomes of a final backup; an earlier end takes protection away. */
export async function planUpdate({ client, runtime, signal }: Context, input: UpdateInput): Promise<PlanDraft> {
  const wish = readWish(input);
  checkEnd(wish.expires, runtime.now());
  const project = await client.project();
  const point = await readPoint(client, { kind: 'named', name: wish.name }, client.instance, signal);
  const instance = String(point.provider?.['instance'] ?? '');
  // A backup of another database must not be changed in this one's name: its own policy would be passed by.
  if (instance !== client.instance || !wish.name.startsWith(`projects/${project}/`)) {
    throw new HoldfastError('INVALID_PARAMETER', 'this backup belongs to another instance', {
      hint: 'Call update-snapshot on the entity that the backup belongs to.',
    });
  }
  if (point.kind !== 'final') {
    throw new HoldfastError('NOT_SUPPORTED', `Cloud SQL changes final backups only, and this one is ${point.kind}`, {
      hint: 'Take another backup with retention_days, or delete this one when it is no longer needed.',
    });
  }
  if (point.status !== 'available') throw new HoldfastError('INVALID_STATE', `the backup is ${point.status}`);
  const { expires } = wish;
  const isEarlier = expires !== undefined && (point.expires_at === undefined || expires < point.expires_at);
  const sooner =
    point.expires_at === undefined || expires === undefined
      ? ''
      : `, ${formatDuration((Date.parse(point.expires_at) - Date.parse(expires)) / 1000)} sooner`;
  return {
    ...(isEarlier ? { risk: 'weaken' as const } : {}),
    target: wish.name,
    loses: isEarlier
      ? `the backup of ${point.data_at ?? 'an unknown moment'} is deleted at ${expires}, not ${point.expires_at ?? 'when somebody deletes it'}${sooner}`
      : 'nothing',
    blast_radius: {
      ...(expires === undefined ? {} : { expires_at: { from: point.expires_at ?? null, to: expires } }),
      ...(wish.description === undefined
        ? {}
        : { description: { from: point.description ?? null, to: cleanText(wish.description, 400) } }),
    },
    undo: isEarlier
      ? `call again with the former expires_at${point.expires_at === undefined ? '; a backup without an end cannot be had again' : ` (${point.expires_at})`} before it is deleted`
      : 'call again with the former values',
    facts: { target: factsOf(project, point) },
  };
}

/** The operations of the instance, newest first; undefined where they are not shown, as of one that was deleted. */
function operationsOf(client: CloudSqlClient, signal: AbortSignal): Promise<Operation[] | undefined> {
  const listed = client.listOperations(client.instance, signal);
  return unless(listed, 'INSUFFICIENT_PERMISSIONS', 'RESOURCE_NOT_FOUND');
}

type UpdateStep = Step<CloudSqlClient, CloudSqlEntity, UpdateInput>;

function isDone(point: RecoveryPoint, { description, expires }: Wish): boolean {
  const close = (a: string, b: string): boolean => Math.abs(Date.parse(a) - Date.parse(b)) < 1000;
  return (
    (description === undefined || (point.description ?? '') === cleanText(description)) &&
    (expires === undefined || (point.expires_at !== undefined && close(point.expires_at, expires)))
  );
}

/** The steps that change a final backup and wait until it shows. */
export function updateSteps(plan: Plan): UpdateStep[] {
  const begin: UpdateStep = {
    name: 'update',
    title: 'Changing the backup',
    kind: 'mutate',
    async run(context) {
      const { client, input, runtime, signal } = context;
      const { name, description, expires: expiryTime } = readWish(input);
      checkEnd(expiryTime, runtime.now());
      const point = await readPoint(client, { kind: 'named', name }, client.instance, signal);
      const differences = compareFacts(plan.facts.target, factsOf(await client.project(), point));
      if (differences.length > 0) {
        throw new HoldfastError('INVALID_STATE', 'the backup is not what the plan says; nothing was changed', {
          retryable: false,
          hint: 'Make the call again for a new plan.',
          details: { differences: differences as unknown as JsonObject[] },
        });
      }
      // A newer operation than this one tells that Cloud SQL took the change.
      const operations = await operationsOf(client, signal);
      const mark = { name, ...(operations === undefined ? {} : { before: operations[0]?.name ?? 'none' }) };
      await context.checkpoint(mark);
      const operation = await client.updateNamed(name, { description, expiryTime }, signal);
      const handle = { ...mark, operation_name: String(operation.name ?? '') };
      await context.checkpoint(handle);
      return handle;
    },
    async recover(context) {
      const { client, handle, input } = context;
      if (handle === undefined) return { state: 'not_begun' };
      if (handle['operation_name'] !== undefined) return { state: 'done', result: handle };
      const signal = recoverySignal(context.signal);
      const wish = readWish(input);
      const { before } = handle;
      let isQuiet = false;
      const found = await lookThrice(context, async (): Promise<JsonObject | undefined> => {
        const point = await readPoint(client, { kind: 'named', name: wish.name }, client.instance, signal);
        if (isDone(point, wish)) return handle;
        const operations = before === undefined ? undefined : await operationsOf(client, signal);
        if (operations === undefined) return undefined;
        const known = operations.findIndex(({ name }) => name === before);
        isQuiet = known === 0 || (before === 'none' && operations.length === 0);
        const newer = known < 0 ? operations : operations.slice(0, known);
        const [ours, ...others] = newer.filter(
          ({ operationType, backupContext }) => operationType === 'UPDATE_BACKUP' && backupContext?.name === wish.name,
        );
        return ours?.name && others.length === 0 ? { ...handle, operation_name: ours.name } : undefined;
      });
      if (found !== undefined) return { state: 'done', result: found };
      return isQuiet
        ? { state: 'not_begun', message: 'the backup is as before, and nothing was begun on the instance' }
        : { state: 'unknown', message: 'the backup is as before; whether Cloud SQL took the change is not known' };
    },
  };
  const wait: UpdateStep = {
    name: 'wait',
    title: 'Waiting until the backup shows it',
    kind: 'follow',
    async run(context) {
      const { client, input, signal } = context;
      const begun = context.results['update'] ?? {};
      const wish = readWish(input);
      const point = await follow(
        context,
        'the change',
        async () => {
          const operation = begun['operation_name'];
          if (typeof operation === 'string' && operation !== '') {
            const seen = await client.getOperation(operation, signal);
            if (operationStatus(seen) === 'failed') throw operationError(seen, 'the change');
          }
          const found = await readPoint(client, { kind: 'named', name: wish.name }, client.instance, signal);
          return isDone(found, wish) ? found : undefined;
        },
        3_600_000,
      );
      return { point: point as unknown as JsonObject };
    },
  };
  return [begin, wait];
}
