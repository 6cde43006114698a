import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Step } from '../../core/operation.ts';
import { type Alternative, compareFacts, type Plan, type PlanDraft } from '../../core/plan.ts';
import type { RecoveryPoint, RestoreJob } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration, parseInstant } from '../../core/time.ts';
import { lookThrice, recoverySignal } from '../follow.ts';
import {
  allRuns,
  type Context,
  follow,
  nameOfRun,
  newestRestorable,
  newInstanceName,
  readPoint,
  windowOf,
} from './backups.ts';
import type { CloudSqlClient, Existence } from './client.ts';
import {
  type BackupRef,
  checkInstance,
  hasPitr,
  type Instance,
  isUsable,
  type Operation,
  operationError,
  operationStatus,
  operationToJob,
  parseBackupId,
  parseOperationName,
  versionLine,
} from './map.ts';
import type { CloudSqlEntity } from './provider.ts';

export interface RestoreInput {
  backup_id?: string | undefined;
  restore_timestamp?: string | number | undefined;
  target_instance?: string | undefined;
  source_instance?: string | undefined;
  safety_snapshot?: boolean | undefined;
}

/** What a call of restore asks for, its parameters checked and put in order. */
type Wish =
  | { kind: 'backup'; ref: BackupRef; source: string; target: string; named: boolean }
  | { kind: 'clone'; at: string; source: string; target: string };

function invalid(message: string, hint: string): HoldfastError {
  return new HoldfastError('INVALID_PARAMETER', message, { hint });
}

function readWish(input: RestoreInput, own: string, now: Date): Wish {
  const { backup_id, restore_timestamp, target_instance, source_instance } = input;
  if ((backup_id === undefined) === (restore_timestamp === undefined)) {
    throw invalid(
      'restore needs either backup_id or restore_timestamp',
      'Give backup_id from list-snapshots, or restore_timestamp within the window of get-backup-info.',
    );
  }
  const target = target_instance === undefined ? own : checkInstance(target_instance, 'target_instance');
  const source = source_instance === undefined ? own : checkInstance(source_instance, 'source_instance');
  if (backup_id !== undefined) {
    const ref = parseBackupId(backup_id);
    if (ref.kind === 'named' && source_instance !== undefined) {
      throw invalid('source_instance goes with the digits of a backup run only', 'Leave it out: the name says it.');
    }
    return { kind: 'backup', ref, source, target, named: target_instance !== undefined };
  }
  if (target_instance === undefined || target === source) {
    throw invalid(
      'restore_timestamp needs target_instance, the name of a new instance',
      'Cloud SQL never restores a moment in place: it makes a new instance.',
    );
  }
  const at = parseInstant(restore_timestamp as string | number, 'restore_timestamp');
  if (at.getTime() > now.getTime()) throw invalid('restore_timestamp is in the future', 'Give a moment in the past.');
  return { kind: 'clone', at: at.toISOString(), source, target };
}

// What approval rests on; read again just before the write.
function targetFacts(project: string, target: string, existence: Existence): JsonObject {
  if (existence.state !== 'exists') {
    return { project, instance: target, exists: existence.state === 'missing' ? false : 'unknown' };
  }
  const { instance } = existence;
  return {
    project,
    instance: target,
    exists: true,
    created_at: cleanText(instance.createTime, 40),
    settings_version: cleanText(instance.settings?.settingsVersion, 30),
    state: cleanText(instance.state, 40),
    database_version: cleanText(instance.databaseVersion, 60),
    replicas: (instance.replicaNames ?? []).map((name) => cleanText(name, 100)).sort(),
  };
}

// --- the plan ------------------------------------------------------------------------------------------------------

/** Looks at target and source and says what a restore would take away; the risk is what the target's existence makes it. */
export async function planRestore(context: Context, input: RestoreInput): Promise<PlanDraft> {
  const { client, runtime, signal } = context;
  const wish = readWish(input, client.instance, runtime.now());
  const existence = await client.lookUp(wish.target, signal);
  if (wish.target === client.instance && existence.state !== 'exists') {
    if (existence.state === 'unknown') throw existence.error;
    throw new HoldfastError('RESOURCE_NOT_FOUND', 'the instance of this entity does not exist', {
      hint: 'Give target_instance, the name of a new instance, and a backup of the project (projects/P/backups/UID).',
    });
  }
  return wish.kind === 'clone' ? planClone(context, wish, existence) : planBackup(context, wish, existence);
}

async function planClone(
  { client, signal }: Context,
  wish: Extract<Wish, { kind: 'clone' }>,
  existence: Existence,
): Promise<PlanDraft> {
  if (existence.state === 'exists') {
    throw new HoldfastError('RESOURCE_EXISTS', `the instance ${wish.target} exists already`, {
      hint: 'A moment is always restored to a new instance. Choose a name that is not in use.',
    });
  }
  const project = await client.project();
  const source = await client.getInstance(wish.source, signal);
  refuseReplica(source, 'source');
  if (!hasPitr(source)) {
    throw new HoldfastError('INVALID_STATE', 'point-in-time recovery is off on the source instance', {
      retryable: false,
      hint: 'Restore a backup instead: list-snapshots shows them.',
    });
  }
  if (!isUsable(source)) throw new HoldfastError('INVALID_STATE', 'the source instance is not running');
  const window = await windowOf(client, source, wish.source, signal);
  if (window !== undefined && (wish.at < window.earliest_at || wish.at > window.latest_at)) {
    throw new HoldfastError('INVALID_PARAMETER', 'restore_timestamp is outside of the recovery window', {
      hint: `Give a moment from ${window.earliest_at} to ${window.latest_at}, or restore a backup.`,
      details: { ...window },
    });
  }
  return {
    ...unknownTarget(existence),
    target: `${project}/${wish.target}`,
    source: `${project}/${wish.source} at ${wish.at}`,
    loses: existence.state === 'missing' ? 'nothing: a new instance is made' : UNKNOWN_LOSS,
    undo: `delete the new instance ${wish.target}`,
    blast_radius: { creates: wish.target, source_instance: wish.source },
    unknowns: [
      ...(window === undefined ? ['the recovery window could not be read'] : []),
      ...(existence.state === 'unknown' ? [UNKNOWN_EXISTENCE] : []),
      'how long it takes: minutes for small disks, hours for terabytes',
    ],
    facts: {
      target: targetFacts(project, wish.target, existence),
      source: {
        instance: wish.source,
        created_at: cleanText(source.createTime, 40),
        restore_timestamp: wish.at,
      },
    },
  };
}

const UNKNOWN_EXISTENCE =
  'whether the target exists: Cloud SQL answers 403 for a missing instance too; the restore is refused until it is known';
const UNKNOWN_LOSS = 'possibly everything on the target: it is not known whether it exists';

function unknownTarget(existence: Existence): Pick<PlanDraft, 'risk' | 'safety_snapshot'> {
  return existence.state === 'unknown'
    ? {
        risk: 'overwrite',
        safety_snapshot: { possible: false, reason: 'it is not known whether the target exists' },
      }
    : {};
}

async function planBackup(
  context: Context,
  wish: Extract<Wish, { kind: 'backup' }>,
  existence: Existence,
): Promise<PlanDraft> {
  const { client, entity, runtime, signal } = context;
  const project = await client.project();
  if (wish.ref.kind === 'run' && wish.source !== wish.target) {
    const source = await client.lookUp(wish.source, signal);
    if (source.state === 'exists') refuseReplica(source.instance, 'source');
  }
  const point = await readPoint(client, wish.ref, wish.source, signal);
  if (!point.restorable) {
    throw new HoldfastError('INVALID_STATE', `the backup is ${point.status}: it cannot be restored`, {
      retryable: point.status === 'creating',
      hint: 'Choose an available one from list-snapshots.',
    });
  }
  const now = runtime.now();
  const sourceInstance = wish.ref.kind === 'run' ? wish.source : String(point.provider?.['instance'] ?? 'unknown');
  const sourceFacts: JsonObject = {
    backup: wish.ref.kind === 'run' ? wish.ref.id : wish.ref.name,
    instance: sourceInstance,
    status: point.status,
    at: point.data_at ?? null,
  };
  const source = `${sourceInstance}/${wish.ref.kind === 'run' ? wish.ref.id : wish.ref.name}`;
  const age = point.data_at === undefined ? undefined : (now.getTime() - Date.parse(point.data_at)) / 1000;

  if (existence.state !== 'exists') {
    // A run's id belongs to an instance; a new one is made from the project's name of the same backup.
    const name = wish.ref.kind === 'named' ? wish.ref.name : await nameOfRun(client, wish.source, wish.ref.id, signal);
    if (existence.state === 'missing' && name === undefined) {
      throw invalid(
        'this backup run has no backup of the project: it cannot make a new instance',
        'Choose a backup from list-snapshots with named: true, or restore a moment with restore_timestamp.',
      );
    }
    return {
      ...unknownTarget(existence),
      target: `${project}/${wish.target}`,
      source,
      loses: existence.state === 'missing' ? 'nothing: a new instance is made' : UNKNOWN_LOSS,
      undo: `delete the new instance ${wish.target}`,
      blast_radius: { creates: wish.target, backup: backupView(point, age) },
      unknowns: [
        ...(existence.state === 'unknown' ? [UNKNOWN_EXISTENCE] : []),
        'how long it takes: minutes for small disks, hours for terabytes',
      ],
      facts: {
        target: targetFacts(project, wish.target, existence),
        source: { ...sourceFacts, ...(name === undefined ? {} : { name }) },
      },
    };
  }

  const target = existence.instance;
  checkOverwritable(target, point);
  const [{ runs }, window, databases, users, operations] = await Promise.all([
    allRuns(client, wish.target, signal),
    windowOf(client, target, wish.target, signal),
    tolerate(() => client.databases(wish.target, signal)),
    tolerate(() => client.users(wish.target, signal)),
    tolerate(() => client.listOperations(wish.target, signal)),
  ]);
  const newest = newestRestorable(runs);
  const ownBackup = newestRestorable(runs.filter((run) => run.type === 'ON_DEMAND'));
  const running = (operations ?? []).filter((operation) => operation.status !== 'DONE');
  const duration = pastDuration(operations ?? []);
  const inPlace = wish.target === client.instance;
  const usable = isUsable(target);
  const settings = target.settings ?? {};
  const fresh = newInstanceName(wish.target, now);
  const alternatives: Alternative[] = [
    ...(window === undefined
      ? []
      : [
          {
            title: `Restore a moment of it into the new instance ${fresh}`,
            risk: 'create' as const,
            call: {
              entity: entity.key,
              action: 'restore',
              input: {
                restore_timestamp: window.latest_at,
                target_instance: fresh,
                ...(inPlace ? {} : { source_instance: wish.target }),
              },
            },
          },
        ]),
    {
      title: `Restore this backup into the new instance ${fresh}`,
      risk: 'create',
      call: {
        entity: entity.key,
        action: 'restore',
        input: {
          backup_id: String(sourceFacts['backup']),
          target_instance: fresh,
          ...(wish.ref.kind === 'run' && wish.source !== client.instance ? { source_instance: wish.source } : {}),
        },
      },
    },
    ...(inPlace
      ? [
          {
            title: 'Take a backup first',
            risk: 'create' as const,
            call: { entity: entity.key, action: 'create-snapshot', input: {} },
          },
        ]
      : []),
  ];
  const warnings = [
    wish.named && !inPlace
      ? `THIS OVERWRITES ANOTHER EXISTING INSTANCE, ${project}/${wish.target}: all its databases and users.`
      : `THIS OVERWRITES THE DATABASE ITSELF, ${project}/${wish.target}${wish.named ? '' : ', because no target was named'}: all its databases and users.`,
    'Connections are cut and the instance restarts.',
    ...(hasPitr(target) ? ['Its history for point-in-time recovery is lost; older backups stay.'] : []),
    ...(running.length > 0
      ? ['Another operation is running on it: the restore will be refused until that is over.']
      : []),
    ...(ownBackup === undefined || now.getTime() - Date.parse(ownBackup.data_at ?? '') > 3_600_000
      ? ['It has no on-demand backup younger than an hour: without a safety snapshot there is no way back.']
      : []),
    ...(settings.deletionProtectionEnabled === true
      ? ['Deletion protection does not keep an instance from being overwritten.']
      : []),
  ];
  return {
    risk: 'overwrite',
    target: `${project}/${wish.target}`,
    source,
    loses: `everything on ${wish.target} written after ${point.data_at ?? 'the backup'}${age === undefined ? '' : `, the last ${formatDuration(age)}`}, in all databases, and its users`,
    ...(point.data_at === undefined ? {} : { since: point.data_at }),
    blast_radius: {
      region: cleanText(target.region, 60),
      connection_name: cleanText(target.connectionName, 200),
      database_version: cleanText(target.databaseVersion, 60),
      tier: cleanText(settings.tier, 60),
      availability: cleanText(settings.availabilityType, 40),
      ...(settings.dataDiskSizeGb ? { disk_gb: cleanText(settings.dataDiskSizeGb, 20) } : {}),
      databases: databases === undefined ? 'unknown' : databases.map((name) => cleanText(name, 100)),
      users: users === undefined ? 'unknown' : users.length,
      addresses: (target.ipAddresses ?? []).map((address) => cleanText(address.ipAddress, 60)),
      authorized_networks: settings.ipConfiguration?.authorizedNetworks?.length ?? 0,
      deletion_protection: settings.deletionProtectionEnabled === true,
      running_operations: running.length,
      backup: backupView(point, age),
      ...(window === undefined ? {} : { recovery_window: { ...window } }),
    },
    ...(newest?.data_at === undefined ? {} : { newest_recovery_point: { id: newest.id, at: newest.data_at } }),
    safety_snapshot: usable
      ? { possible: true }
      : { possible: false, reason: 'the target is not running: it cannot be backed up' },
    undo: usable
      ? 'restore the safety snapshot taken just before'
      : 'none: no backup of the present state can be taken',
    alternatives,
    ...(duration === undefined ? {} : { duration_estimate: duration }),
    unknowns: [
      'open connections: this API does not tell',
      'used disk space: this API does not tell',
      ...(duration === undefined ? ['how long it takes: minutes for small disks, hours for terabytes'] : []),
      ...(databases === undefined ? ['which databases the target has'] : []),
      ...(operations === undefined ? ['whether an operation is running on the target'] : []),
    ],
    warnings,
    facts: { target: targetFacts(project, wish.target, existence), source: sourceFacts },
  };
}

/** @throws {HoldfastError} INVALID_STATE for a read replica or a read pool, naming the primary */
function refuseReplica({ masterInstanceName, instanceType }: Instance, role: 'source' | 'target'): void {
  const isReplica = ['READ_REPLICA_INSTANCE', 'READ_POOL_INSTANCE'].includes(instanceType ?? '');
  if (!masterInstanceName && !isReplica) return;
  const primary = cleanText(masterInstanceName?.split(':').at(-1), 100);
  const named = primary === '' ? 'its primary' : `its primary, ${primary}`;
  throw new HoldfastError(
    'INVALID_STATE',
    role === 'target'
      ? 'the target is a read replica: it cannot be restored onto'
      : 'the source is a read replica: it has no backups and no history of its own',
    {
      retryable: false,
      hint:
        role === 'target'
          ? `Restore onto ${named}, or to a new instance.`
          : `Restore from ${named}: give it as source_instance, or call on its entity.`,
      ...(primary === '' ? {} : { details: { primary } }),
    },
  );
}

function checkOverwritable(target: Instance, point: RecoveryPoint): void {
  refuseReplica(target, 'target');
  const replicas = (target.replicaNames ?? []).map((name) => cleanText(name, 100));
  if (replicas.length > 0) {
    throw new HoldfastError('INVALID_STATE', `the target has read replicas: ${replicas.join(', ')}`, {
      retryable: false,
      hint: 'Restore to a new instance, or have a person delete the replicas first; Holdfast never deletes replicas.',
      details: { replicas },
    });
  }
  const [theirs, ours] = [
    versionLine(point.provider?.['database_version'] as string | undefined),
    versionLine(target.databaseVersion),
  ];
  if (theirs !== undefined && ours !== undefined && theirs !== ours) {
    throw invalid(
      `the backup is of ${cleanText(theirs, 60)}, the target of ${cleanText(ours, 60)}`,
      'Restore onto an instance of the same engine and version, or to a new one.',
    );
  }
}

function backupView(point: RecoveryPoint, age: number | undefined): JsonObject {
  return {
    id: point.id,
    kind: point.kind,
    ...(point.data_at === undefined ? {} : { at: point.data_at }),
    ...(age === undefined ? {} : { age: formatDuration(age) }),
    ...(point.size_bytes === undefined ? {} : { size_bytes: point.size_bytes }),
  };
}

// A stopped instance lists no databases: that is unknown, no reason to withhold the plan.
async function tolerate<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (cause) {
    if (
      cause instanceof HoldfastError &&
      ['INVALID_STATE', 'INVALID_PARAMETER', 'INSUFFICIENT_PERMISSIONS', 'RESOURCE_NOT_FOUND'].includes(cause.code)
    ) {
      return undefined;
    }
    throw cause;
  }
}

function pastDuration(operations: readonly Operation[]): number | undefined {
  const past = operations.find(
    (operation) => operation.operationType === 'RESTORE_VOLUME' && operationStatus(operation) === 'succeeded',
  );
  const seconds = (Date.parse(past?.endTime ?? '') - Date.parse(past?.startTime ?? '')) / 1000;
  return Number.isFinite(seconds) && seconds > 0 ? Math.round(seconds) : undefined;
}

// --- the steps -----------------------------------------------------------------------------------------------------

type RestoreStep = Step<CloudSqlClient, CloudSqlEntity, RestoreInput>;

// How far our clock and Google's may be apart; used only where no earlier operation of the target is known.
const CLOCK_SKEW_MS = 120_000;
const STARTED = new Set(['RESTORE_VOLUME', 'CLONE', 'CREATE_CLONE', 'CREATE']);

/** Starts the restore, follows its operation, and waits until the target can be used. */
export function restoreSteps(plan: Plan): RestoreStep[] {
  const target = String(plan.facts.target['instance']);
  const begin: RestoreStep = {
    name: 'restore',
    title: 'Starting the restore',
    kind: 'mutate',
    async run(context) {
      const { client, input, runtime, signal } = context;
      const wish = readWish(input, client.instance, runtime.now());
      const project = await client.project();
      const existence = await client.lookUp(target, signal);
      if (existence.state === 'unknown') throw refusedAsUnknown(target, existence.error);
      const changed = compareFacts(plan.facts.target, targetFacts(project, target, existence));
      if (changed.length > 0 || wish.target !== target) {
        throw new HoldfastError('INVALID_STATE', 'the target is not what the plan says; nothing was restored', {
          hint: 'Make the call again for a new plan.',
          details: { differences: changed as unknown as JsonObject[] },
        });
      }
      // The newest operation before ours: one that is newer is found again when the answer is lost.
      const earlier = await tolerate(() => client.listOperations(target, signal));
      const mark = {
        target,
        before: earlier?.[0]?.name ?? null,
        listed: earlier !== undefined || existence.state === 'missing',
        creates: existence.state === 'missing',
        began_at: runtime.now().toISOString(),
      };
      await context.checkpoint(mark);
      const operation = await send(client, wish, plan, existence, signal);
      const handle = { ...mark, operation_name: parseOperationName(String(operation.name ?? '')) };
      await context.checkpoint(handle);
      return handle;
    },
    async recover(context) {
      const { client, handle } = context;
      if (handle === undefined) return { state: 'not_begun' };
      if (handle['operation_name'] !== undefined) return { state: 'done', result: handle };
      // Without the operations from before, an old restore could be taken for this one.
      if (handle['listed'] !== true) {
        return { state: 'unknown', message: 'the operations of the target could not be listed before the restore' };
      }
      const signal = recoverySignal(context.signal);
      const user = context.results['safety-snapshot']?.['user'];
      const since = Date.parse(String(handle['began_at'])) - CLOCK_SKEW_MS;
      let listable = handle['creates'] === true;
      const found = await lookThrice(context, async () => {
        const operations = await tolerate(() => client.listOperations(target, signal));
        listable ||= operations !== undefined;
        const known = (operations ?? []).findIndex((operation) => operation.name === handle['before']);
        const newer = (known < 0 ? (operations ?? []) : (operations ?? []).slice(0, known)).filter(
          (operation) =>
            STARTED.has(operation.operationType ?? '') &&
            (known >= 0 || Date.parse(operation.insertTime ?? '') >= since) &&
            (user === undefined || !operation.user || operation.user === user),
        );
        return newer.length > 0 ? newer : undefined;
      });
      if (found !== undefined && found.length === 1) {
        return { state: 'done', result: { ...handle, operation_name: String(found[0]?.name ?? '') } };
      }
      if (found !== undefined) {
        return {
          state: 'unknown',
          message: 'more than one restore began on the target; which one is ours is not known',
        };
      }
      if (handle['creates'] === true && (await client.lookUp(target, signal)).state !== 'missing') {
        return { state: 'unknown', message: 'the new instance exists, and no operation tells who made it' };
      }
      if (!listable) return { state: 'unknown', message: 'the operations of the target cannot be listed' };
      return { state: 'not_begun', message: 'no restore began on the target' };
    },
  };
  const wait: RestoreStep = {
    name: 'wait',
    title: 'Waiting for the restore',
    kind: 'follow',
    async run(context) {
      const name = String(context.results['restore']?.['operation_name']);
      const operation = await follow(context, 'the restore', async () => {
        const seen = await context.client.getOperation(name, context.signal);
        const status = operationStatus(seen);
        context.progress({ message: `restore is ${status}` });
        if (status === 'failed') throw operationError(seen, 'the restore');
        return status === 'succeeded' ? seen : undefined;
      });
      return { job: operationToJob(operation, false) as unknown as JsonObject };
    },
  };
  const verify: RestoreStep = {
    name: 'verify',
    title: 'Waiting until the target can be used',
    kind: 'follow',
    async run(context) {
      let hidden = 0;
      const state = await follow(
        context,
        'the start of the target',
        async () => {
          const existence = await context.client.lookUp(target, context.signal);
          if (existence.state === 'unknown') {
            // A caller that may restore and not look: the restore is over, whether it answers stays unknown.
            hidden += 1;
            return hidden >= 5 ? 'unknown' : undefined;
          }
          if (existence.state === 'missing') return undefined;
          const { instance } = existence;
          context.progress({ message: `target is ${cleanText(instance.state, 40)}` });
          if (instance.state === 'FAILED' || instance.state === 'SUSPENDED') {
            throw new HoldfastError('INVALID_STATE', `the restored instance is ${instance.state}`, {
              retryable: false,
              hint: 'Look at the instance in the Cloud SQL console.',
            });
          }
          return isUsable(instance) ? instance.state : undefined;
        },
        1_800_000,
      );
      return { usable: state !== 'unknown', state: cleanText(state, 40), target: plan.target };
    },
  };
  return [begin, wait, verify];
}

function refusedAsUnknown(target: string, cause: HoldfastError): HoldfastError {
  return new HoldfastError('INSUFFICIENT_PERMISSIONS', `it is not known whether ${target} exists; nothing was sent`, {
    hint: 'Give the caller cloudsql.instances.get on the project (roles/cloudsql.viewer), so that a missing instance answers 404. If it exists, a restore overwrites it.',
    details: { permission: 'cloudsql.instances.get', outcome: 'not_sent' },
    provider: cause.provider,
    cause,
  });
}

function send(
  client: CloudSqlClient,
  wish: Wish,
  plan: Plan,
  existence: Existence,
  signal: AbortSignal,
): Promise<Operation> {
  if (wish.kind === 'clone') return client.clone(wish.source, wish.target, wish.at, signal);
  if (wish.ref.kind === 'named') return client.restore(wish.target, { name: wish.ref.name }, signal);
  if (existence.state === 'missing') {
    return client.restore(wish.target, { name: String(plan.facts.source?.['name']) }, signal);
  }
  return client.restore(wish.target, { runId: wish.ref.id, instance: wish.source }, signal);
}

/** Makes the answer of a finished restore. */
export function restoreResult(results: Readonly<Record<string, JsonObject>>): RestoreJob {
  const job = results['wait']?.['job'] as unknown as RestoreJob;
  return { ...job, usable: results['verify']?.['usable'] === true };
}

/** Says how a restore stands: its operation, and whether its target can be used. */
export async function restoreStatus({ client, signal }: Context, operationName: string): Promise<RestoreJob> {
  const operation = await client.getOperation(parseOperationName(operationName), signal);
  if (operationStatus(operation) !== 'succeeded' || !operation.targetId) return operationToJob(operation, false);
  const existence = await client.lookUp(operation.targetId, signal);
  return operationToJob(operation, existence.state === 'exists' && isUsable(existence.instance));
}
