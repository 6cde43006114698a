import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Plan, PlanDraft } from '../../core/plan.ts';
import type { RestoreJob } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration, parseInstant } from '../../core/time.ts';
import { lookThrice, recoverySignal } from '../follow.ts';
import {
  type Context,
  earliestMinute,
  type FirestoreStep,
  followWork,
  latestMinute,
  ownerOf,
  refuseChange,
  tolerate,
} from './backups.ts';
import type { FirestoreClient } from './client.ts';
import {
  checkBackupName,
  checkDatabase,
  checkOperationName,
  lastPart,
  type OperationView,
  operationError,
  toOperation,
  toPoint,
} from './map.ts';

export interface RestoreInput {
  backup_name?: string | undefined;
  restore_timestamp?: string | number | undefined;
  target_database: string;
}

type Wish = { target: string } & ({ kind: 'backup'; backup: string } | { kind: 'moment'; at: Date });

function invalid(message: string, hint: string): HoldfastError {
  return new HoldfastError('INVALID_PARAMETER', message, { hint });
}

function readWish(input: RestoreInput, project: string): Wish {
  const { backup_name, restore_timestamp } = input;
  const target = checkDatabase(input.target_database, 'target_database');
  if ((backup_name === undefined) === (restore_timestamp === undefined)) {
    throw invalid(
      'restore needs either backup_name or restore_timestamp',
      'Give backup_name from list-snapshots, or restore_timestamp within the window of get-backup-info.',
    );
  }
  if (backup_name !== undefined) return { kind: 'backup', backup: checkBackupName(backup_name, project), target };
  const at = parseInstant(restore_timestamp as string | number, 'restore_timestamp');
  if (at.getTime() % 60_000 !== 0) {
    throw invalid(
      'restore_timestamp is no whole minute',
      `Firestore goes back to whole minutes only: give ${new Date(Math.floor(at.getTime() / 60_000) * 60_000).toISOString()} or the minute after it.`,
    );
  }
  return { kind: 'moment', at, target };
}

const BY_HAND =
  'Not carried over: TTL policies and security rules. Set them by hand, and point the application at the new database.';

// --- the plan ------------------------------------------------------------------------------------------------------

/** Looks at source and target: Firestore restores into new databases only, so nothing that exists is changed. */
export async function planRestore(context: Context, input: RestoreInput): Promise<PlanDraft> {
  const { client, signal } = context;
  const project = await client.project();
  const wish = readWish(input, project);
  const existence = await client.lookUp(wish.target, signal);
  if (existence.state === 'exists') {
    throw new HoldfastError('RESOURCE_EXISTS', `the database ${wish.target} exists already`, {
      hint: 'Firestore never restores onto an existing database. Choose a target_database that is not in use.',
    });
  }
  if (existence.state === 'unknown') {
    throw new HoldfastError(
      'INSUFFICIENT_PERMISSIONS',
      `it is not known whether ${wish.target} exists; nothing was sent`,
      {
        hint: 'Give the caller datastore.databases.getMetadata on the project (roles/datastore.viewer), so that a missing database answers 404.',
        details: { permission: 'datastore.databases.getMetadata', outcome: 'not_sent' },
        provider: existence.error.provider,
        cause: existence.error,
      },
    );
  }
  const source = wish.kind === 'backup' ? await lookAtBackup(context, wish) : await lookAtMoment(context, wish);
  return {
    target: `${project}/${wish.target}`,
    undo: `delete the new database ${wish.target} by hand, after switching its delete protection off if it is on`,
    ...source,
    loses: 'nothing: a new database is made',
    blast_radius: { creates: wish.target, ...source.blast_radius },
    unknowns: ['how long it takes: minutes for small databases, hours for terabytes'],
    warnings: [BY_HAND, 'The new database is billed like any other.', ...source.warnings],
    facts: { target: targetFacts(project, wish.target), source: source.facts },
  };
}

function targetFacts(project: string, target: string): JsonObject {
  return { project, database: target, exists: false };
}

interface Source {
  source: string;
  blast_radius: JsonObject;
  warnings: string[];
  facts: JsonObject;
}

async function lookAtBackup(
  { client, runtime, signal }: Context,
  { backup }: Extract<Wish, { kind: 'backup' }>,
): Promise<Source> {
  const now = runtime.now();
  const [point, existence] = await Promise.all([
    client.getBackup(backup, signal).then((found) => toPoint(found, now)),
    client.lookUp(client.database, signal),
  ]);
  const owner = ownerOf(point, client, existence);
  // Another database's data must not come out in this one's name: its own policy would be passed by.
  if (owner === 'other') {
    throw invalid(
      'this backup belongs to another database',
      'Call restore on the entity that the backup belongs to, or choose a backup from list-snapshots.',
    );
  }
  if (!point.restorable) {
    throw new HoldfastError('INVALID_STATE', `the backup is ${point.status}: it cannot be restored`, {
      retryable: point.status === 'creating',
      hint: 'Choose an available one from list-snapshots.',
    });
  }
  const age = point.data_at === undefined ? undefined : (now.getTime() - Date.parse(point.data_at)) / 1000;
  const left = point.expires_at === undefined ? undefined : (Date.parse(point.expires_at) - now.getTime()) / 1000;
  return {
    source: point.id,
    blast_radius: {
      backup: {
        ...(point.data_at === undefined ? {} : { at: point.data_at }),
        ...(age === undefined ? {} : { age: formatDuration(age) }),
        ...(point.expires_at === undefined ? {} : { expires_at: point.expires_at }),
        ...(point.size_bytes === undefined ? {} : { size_bytes: point.size_bytes }),
        ...(point.provider?.['documents'] === undefined ? {} : { documents: point.provider['documents'] as number }),
        ...(point.location === undefined ? {} : { location: point.location }),
      },
      encryption: 'as the source',
    },
    warnings: [
      ...(point.data_at === undefined ? [] : [`What was written after ${point.data_at} is not in the copy.`]),
      ...(left !== undefined && left < 86_400 ? [`The backup expires in ${formatDuration(left)}.`] : []),
      ...(owner === 'earlier'
        ? ['The backup is of an earlier database of this name, not of the one that exists now.']
        : []),
    ],
    facts: {
      backup: point.id,
      database_uid: point.provider?.['database_uid'] as string,
      status: point.status,
      at: point.data_at ?? null,
    },
  };
}

async function lookAtMoment(
  { client, runtime, signal }: Context,
  { at }: Extract<Wish, { kind: 'moment' }>,
): Promise<Source> {
  const database = await client.getDatabase(client.database, signal);
  const [earliest, latest] = [earliestMinute(database), latestMinute(runtime.now())];
  if (earliest !== undefined && (at < earliest || at > latest)) {
    throw invalid(
      'restore_timestamp is outside of the recovery window',
      earliest > latest
        ? 'The database is too young to have a window: wait some minutes.'
        : `Give a whole minute from ${earliest.toISOString()} to ${latest.toISOString()}, or restore a backup.`,
    );
  }
  return {
    source: `${client.database} at ${at.toISOString()}`,
    blast_radius: {
      source_database: client.database,
      location: cleanText(database.locationId, 60),
      encryption: 'as the source',
    },
    warnings: [`What was written after ${at.toISOString()} is not in the copy.`],
    facts: { database: client.database, uid: cleanText(database.uid, 60), restore_timestamp: at.toISOString() },
  };
}

// --- the steps -----------------------------------------------------------------------------------------------------

/** Starts the restore, follows its operation, and waits until the new database answers. */
export function restoreSteps(plan: Plan): FirestoreStep<RestoreInput>[] {
  const target = String(plan.facts.target['database']);
  const isOurs = (operation: OperationView): boolean => {
    const { source } = plan.facts;
    return (
      lastPart(operation.database) === target &&
      (source?.['backup'] === undefined
        ? operation.kind === 'clone' && operation.snapshot_time === source?.['restore_timestamp']
        : operation.kind === 'restore' && operation.backup === source['backup'])
    );
  };
  return [
    {
      name: 'restore',
      title: 'Starting the restore',
      kind: 'mutate',
      async run(context) {
        const { client, input, signal } = context;
        const project = await client.project();
        const wish = readWish(input, project);
        const existence = await client.lookUp(target, signal);
        refuseChange(
          plan,
          { ...targetFacts(project, wish.target), exists: existence.state === 'missing' ? false : existence.state },
          'the target',
          'restored',
        );
        await context.checkpoint({ target });
        const operation =
          wish.kind === 'backup'
            ? await client.restore(target, wish.backup, signal)
            : await client.clone(target, wish.at.toISOString(), signal);
        const handle = { target, operation_name: String(operation.name ?? '') };
        await context.checkpoint(handle);
        return handle;
      },
      async recover(context) {
        const { client, handle } = context;
        if (handle === undefined) return { state: 'not_begun' };
        if (handle['operation_name'] !== undefined) return { state: 'done', result: handle };
        const signal = recoverySignal(context.signal);
        let exists = false;
        // The target did not exist: whatever made it from our source is the call whose answer was lost.
        const found = await lookThrice(context, async () => {
          const existence = await client.lookUp(target, signal);
          if (existence.state !== 'exists') return undefined;
          exists = true;
          const operations = await operationsOf(client, [target, client.database], signal);
          const name = operations.find(isOurs)?.name;
          if (name !== undefined) return name;
          const { backup, operation } = existence.database.sourceInfo ?? {};
          const isFromOurs = backup?.backup !== undefined && backup.backup === plan.facts.source?.['backup'];
          return isFromOurs ? (operation ?? '') : undefined;
        });
        if (found !== undefined) return { state: 'done', result: { target, operation_name: found } };
        if (exists) return { state: 'unknown', message: 'the new database exists, and nothing tells who made it' };
        const last = await client.lookUp(target, signal);
        return last.state === 'missing'
          ? { state: 'not_begun', message: 'no database was made' }
          : { state: 'unknown', message: 'whether the new database exists cannot be seen' };
      },
    },
    {
      name: 'wait',
      title: 'Waiting for the restore',
      kind: 'follow',
      async run(context) {
        const { client, signal } = context;
        const name = String(context.results['restore']?.['operation_name'] ?? '');
        const project = await client.project();
        return followWork(context, 'the restore', async () => {
          const operation = await readOperation(client, name, signal);
          if (operation === undefined) {
            // Finished operations are forgotten after some days: then the database itself is the answer.
            return (await client.lookUp(target, signal)).state === 'exists' ? { operation_name: name } : undefined;
          }
          context.progress({ message: `restore is ${operation.status}`, percent: operation.percent });
          if (operation.status === 'failed' || operation.status === 'cancelled') {
            throw operationError(operation, 'the restore', project);
          }
          return operation.status === 'succeeded'
            ? {
                operation_name: name,
                ...(operation.started_at === undefined ? {} : { started_at: operation.started_at }),
                ...(operation.ended_at === undefined ? {} : { ended_at: operation.ended_at }),
              }
            : undefined;
        });
      },
    },
    {
      name: 'verify',
      title: 'Waiting until the new database answers',
      kind: 'follow',
      async run(context) {
        const { client, signal } = context;
        const found = await followWork(
          context,
          'the new database',
          async () => {
            const existence = await client.lookUp(target, signal);
            if (existence.state === 'unknown') throw existence.error;
            return existence.state === 'exists' ? existence.database : undefined;
          },
          1_800_000,
        );
        return { target: plan.target, uid: cleanText(found.uid, 60), location: cleanText(found.locationId, 60) };
      },
    },
  ];
}

async function operationsOf(
  client: FirestoreClient,
  databases: readonly string[],
  signal: AbortSignal,
): Promise<OperationView[]> {
  const lists = await Promise.all(databases.map((database) => tolerate(() => client.listOperations(database, signal))));
  return lists.flatMap((list) => list ?? []).map(toOperation);
}

/** Reads an operation; undefined for one that Firestore does not know any more, and for no name. */
export async function readOperation(
  client: FirestoreClient,
  name: string,
  signal: AbortSignal,
): Promise<OperationView | undefined> {
  if (name === '') return undefined;
  try {
    return toOperation(await client.getOperation(name, signal));
  } catch (cause) {
    if (cause instanceof HoldfastError && cause.code === 'RESOURCE_NOT_FOUND') return undefined;
    throw cause;
  }
}

/** Makes the answer of a finished restore. */
export function restoreResult(results: Readonly<Record<string, JsonObject>>): RestoreJob {
  const { operation_name, started_at, ended_at } = results['wait'] ?? {};
  const { target, uid, location } = results['verify'] ?? {};
  return {
    job_id: String(operation_name),
    status: 'succeeded',
    target: String(target),
    ...(started_at === undefined ? {} : { started_at: String(started_at) }),
    ...(ended_at === undefined ? {} : { ended_at: String(ended_at) }),
    usable: true,
    provider: { uid, location, next: BY_HAND },
  };
}

/** Says how a restore, import or export stands; an operation that is forgotten is read from its database. */
export async function restoreStatus({ client, signal }: Context, operationName: string): Promise<RestoreJob> {
  const project = await client.project();
  const { name, database } = checkOperationName(operationName, project);
  const operation = await readOperation(client, name, signal);
  if (operation === undefined) {
    return forgotten(client, name, database, signal);
  }
  const { kind, status, percent, started_at, ended_at } = operation;
  const target = lastPart(operation.database) || database;
  const isRestore = kind === 'restore' || kind === 'clone';
  const exists = isRestore && status === 'succeeded' && (await client.lookUp(target, signal)).state === 'exists';
  return {
    job_id: name,
    status,
    ...(percent === undefined ? {} : { percent }),
    target: kind === 'export' ? cleanText(operation.result_uri ?? operation.uri, 300) : `${project}/${target}`,
    ...(started_at === undefined ? {} : { started_at }),
    ...(ended_at === undefined ? {} : { ended_at }),
    usable: isRestore ? exists : status === 'succeeded',
    provider: {
      kind,
      ...(operation.backup === undefined ? {} : { backup: cleanText(operation.backup, 300) }),
      ...(operation.uri === undefined ? {} : { uri_prefix: cleanText(operation.uri, 300) }),
      ...(operation.result_uri === undefined ? {} : { output_uri_prefix: cleanText(operation.result_uri, 300) }),
      ...(operation.snapshot_time === undefined ? {} : { snapshot_time: operation.snapshot_time }),
      ...(operation.documents === undefined ? {} : { documents: operation.documents }),
      ...(operation.error_code === undefined ? {} : { error_code: operation.error_code }),
    },
  };
}

// Finished operations are forgotten after some days; what a database came from it still tells.
async function forgotten(
  client: FirestoreClient,
  name: string,
  database: string,
  signal: AbortSignal,
): Promise<RestoreJob> {
  const existence = await client.lookUp(database, signal);
  const source = existence.state === 'exists' ? existence.database.sourceInfo : undefined;
  const from = source?.backup?.backup;
  if (!from) {
    throw new HoldfastError('RESOURCE_NOT_FOUND', 'Firestore does not know this operation any more, or never did', {
      hint: 'Finished operations are forgotten after some days. Look at the database.',
    });
  }
  const running = (await operationsOf(client, [database], signal)).some(({ status }) => status === 'running');
  return {
    job_id: name,
    // Without its operation the database could be the work of another restore.
    status: source?.operation === name && !running ? 'succeeded' : 'unknown',
    target: `${await client.project()}/${database}`,
    usable: !running,
    provider: { restored_from: cleanText(from, 300), note: 'the operation is forgotten; the database exists' },
  };
}
