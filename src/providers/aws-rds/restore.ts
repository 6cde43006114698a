import type { CreateDBInstanceCommandInput, DBInstance, Tag } from '@aws-sdk/client-rds';
import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import { compareFacts, type Plan, type PlanDraft } from '../../core/plan.ts';
import type { RecoveryWindow, RestoreJob } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration, parseInstant } from '../../core/time.ts';
import { lookThrice, recoverySignal } from '../follow.ts';
import type { RdsClient, RestoreOrder } from './client.ts';
import { backupsFor, type Context, retainedOf, windowOf, windowOfBackup } from './info.ts';
import {
  canBeRestored,
  checkDatabaseId,
  checkSnapshotId,
  type Database,
  fromInstance,
  instant,
  isRestorable,
  ORIGIN_TAG,
  REQUEST_TAG,
  type Snapshot,
  snapshotStatus,
  stageOf,
  tagOf,
} from './map.ts';
import {
  type ClusterSettings,
  clusterSettings,
  type InstanceSettings,
  instanceSettings,
  isAurora,
  type MemberSettings,
  memberSettings,
  type Overrides,
  ownTags,
  sameFamily,
  shown,
} from './settings.ts';
import { follow, type RdsStep, tolerate } from './snapshots.ts';

export interface RestoreInput extends Overrides {
  readonly target_id: string;
  readonly snapshot_id?: string | undefined;
  readonly restore_timestamp?: string | number | undefined;
  readonly use_latest?: boolean | undefined;
  readonly members?: number | undefined;
}

type Wish = { kind: 'snapshot'; id: string } | { kind: 'moment'; at: string | 'latest' };

const DAY_MS = 86_400_000;

function invalid(message: string, hint: string): HoldfastError {
  return new HoldfastError('INVALID_PARAMETER', message, { hint });
}

function readWish(client: RdsClient, input: RestoreInput, now: Date): Wish {
  const { snapshot_id, restore_timestamp, use_latest } = input;
  const given = [snapshot_id !== undefined, restore_timestamp !== undefined, use_latest === true].filter(Boolean);
  if (given.length !== 1) {
    throw invalid(
      'restore needs exactly one of snapshot_id, restore_timestamp and use_latest: true',
      'Give snapshot_id from list-snapshots, or a moment within the window of get-backup-info.',
    );
  }
  if (snapshot_id !== undefined)
    return { kind: 'snapshot', id: checkSnapshotId(snapshot_id, client.kind, client.region) };
  if (restore_timestamp === undefined) return { kind: 'moment', at: 'latest' };
  const at = parseInstant(restore_timestamp, 'restore_timestamp');
  if (at.getTime() > now.getTime()) throw invalid('restore_timestamp is in the future', 'Give a moment in the past.');
  return { kind: 'moment', at: at.toISOString() };
}

const SHAPES: readonly [keyof Overrides, RegExp, string][] = [
  ['instance_class', /^db\.[a-z0-9.-]{1,60}$/, 'Give one such as db.m6g.large.'],
  ['subnet_group', /^[A-Za-z0-9 ._-]{1,255}$/, 'Give the name of a DB subnet group.'],
  ['parameter_group', /^[A-Za-z][A-Za-z0-9.-]{0,254}$/, 'Give the name of a parameter group.'],
];

function checkOverrides(input: RestoreInput, kind: RdsClient['kind']): void {
  for (const [name, pattern, hint] of SHAPES) {
    const value = input[name];
    if (value !== undefined && !pattern.test(String(value))) throw invalid(`${name} has not its form`, hint);
  }
  if (
    input.security_group_ids?.some((id) => !/^sg-[0-9a-f]{8,17}$/.test(id)) ||
    input.security_group_ids?.length === 0
  ) {
    throw invalid('security_group_ids are not ids of security groups', 'Give ids such as sg-0123456789abcdef0.');
  }
  if (kind === 'instance' && input.members !== undefined) {
    throw invalid('members is for clusters', 'Leave it out: an instance has none.');
  }
  if (kind === 'cluster' && input.multi_az !== undefined) {
    throw invalid('multi_az is for instances', 'A cluster has members instead: give their number.');
  }
}

interface Member {
  readonly id: string;
  readonly settings: MemberSettings;
}

/** Everything that a restore is made of, read afresh: for the plan, and again just before the write. */
interface Prepared {
  readonly target: string;
  readonly wish: Wish;
  readonly database: Database | undefined;
  readonly snapshot: Snapshot | undefined;
  readonly window: RecoveryWindow | undefined;
  readonly account: string;
  readonly settings: InstanceSettings | ClusterSettings;
  readonly members: readonly Member[];
  /** Whether RDS makes no instances by itself. */
  readonly needsMembers: boolean;
  readonly notCarried: readonly string[];
  readonly warnings: readonly string[];
  readonly facts: { target: JsonObject; source: JsonObject; context: JsonObject };
  order(tags: Tag[]): RestoreOrder;
}

async function prepare({ client, runtime, signal }: Context, input: RestoreInput): Promise<Prepared> {
  const { kind } = client;
  const target = checkDatabaseId(input.target_id, 'target_id');
  checkOverrides(input, kind);
  const wish = readWish(client, input, runtime.now());
  const [existing, database, snapshot] = await Promise.all([
    client.find(kind, target, signal),
    ownOrGone(client, signal),
    wish.kind === 'snapshot' ? client.snapshot(wish.id, signal) : undefined,
  ]);
  if (existing !== undefined) {
    throw new HoldfastError('RESOURCE_EXISTS', `the DB ${kind} ${target} exists already`, {
      hint: 'RDS restores into a new database only. Choose a target_id that is not in use in this account and region.',
      details: { outcome: 'not_sent' },
    });
  }
  const isPublic = (database?.instance ?? database?.cluster)?.PubliclyAccessible === true;
  if (input.publicly_accessible === true && !isPublic) {
    throw invalid(
      'a restore does not open to the internet what the source keeps private',
      'Leave publicly_accessible out; a person can change it on the new instance.',
    );
  }
  if (snapshot !== undefined && !isRestorable(snapshot)) {
    const status = snapshotStatus(snapshot.status);
    throw new HoldfastError('INVALID_STATE', `the snapshot is ${status}: it cannot be restored`, {
      retryable: status === 'creating',
      hint: 'Choose an available one from list-snapshots.',
    });
  }
  const moment = wish.kind === 'moment' ? await momentSource(client, wish.at, database, signal) : undefined;
  const fits = database !== undefined && (snapshot === undefined || sameFamily(snapshot, database));
  const engine = snapshot?.engine ?? moment?.engine ?? '';
  refuseForeign(kind, engine);
  const carried =
    kind === 'instance'
      ? instanceSettings(database?.instance, fits, input)
      : clusterSettings(database?.cluster, engine, fits, input);
  const needsMembers = kind === 'cluster' && isAurora(engine);
  const members = needsMembers ? await memberPlan(client, input, { database, engine, fits }, signal) : [];
  await refuseTakenMembers(client, members, signal);
  const raw = database?.instance ?? database?.cluster;
  if (kind === 'cluster' && !needsMembers) {
    if ((carried.settings as ClusterSettings).DBClusterInstanceClass === undefined) {
      throw invalid('the class of the cluster is not known: the source is gone', 'Give instance_class.');
    }
    if (input.members !== undefined) throw invalid('members is for Aurora', 'Leave it out: RDS makes the instances.');
  }
  const tags = ownTags(raw?.TagList);
  const from = snapshot === undefined ? `${client.id}@${wish.kind === 'moment' ? wish.at : ''}` : snapshot.arn;

  const order = (own: Tag[]): RestoreOrder => {
    const Tags = [...tags, { Key: ORIGIN_TAG, Value: from.slice(0, 256) }, ...own];
    const common = { ...carried.settings, Tags };
    if (kind === 'instance') {
      const settings = common as InstanceSettings;
      if (wish.kind === 'snapshot') {
        return {
          call: 'RestoreDBInstanceFromDBSnapshot',
          input: { ...settings, DBInstanceIdentifier: target, DBSnapshotIdentifier: wish.id },
        };
      }
      const most = database?.instance?.MaxAllocatedStorage ?? 0;
      return {
        call: 'RestoreDBInstanceToPointInTime',
        input: {
          ...settings,
          TargetDBInstanceIdentifier: target,
          SourceDbiResourceId: String(moment?.resourceId),
          ...(most > 0 ? { MaxAllocatedStorage: most } : {}),
          ...(wish.at === 'latest' ? { UseLatestRestorableTime: true } : { RestoreTime: new Date(wish.at) }),
        },
      };
    }
    const settings = common as ClusterSettings;
    if (wish.kind === 'snapshot') {
      return {
        call: 'RestoreDBClusterFromSnapshot',
        input: {
          ...settings,
          DBClusterIdentifier: target,
          SnapshotIdentifier: wish.id,
          Engine: engine,
          // Left out, it would be the region's default version, not the snapshot's.
          EngineVersion: String(snapshot?.version),
        },
      };
    }
    return {
      call: 'RestoreDBClusterToPointInTime',
      input: {
        ...settings,
        DBClusterIdentifier: target,
        SourceDbClusterResourceId: String(moment?.resourceId),
        RestoreType: 'full-copy',
        ...(wish.at === 'latest' ? { UseLatestRestorableTime: true } : { RestoreToTime: new Date(wish.at) }),
      },
    };
  };

  const account = database?.account || moment?.account || '';
  return {
    target,
    wish,
    database,
    snapshot,
    window: moment?.window,
    account,
    settings: carried.settings,
    members,
    needsMembers,
    notCarried: [
      ...carried.notCarried,
      ...(snapshot !== undefined && (database?.instance?.MaxAllocatedStorage ?? 0) > 0 ? ['storage autoscaling'] : []),
    ],
    warnings: carried.warnings,
    facts: {
      target: { account, region: client.region, [kind]: target, exists: false },
      source:
        snapshot === undefined
          ? {
              [kind]: client.id,
              resource_id: String(moment?.resourceId),
              moment: wish.kind === 'moment' ? wish.at : '',
            }
          : {
              snapshot: snapshot.arn,
              [kind]: snapshot.of,
              resource_id: snapshot.resourceId,
              status: snapshot.status,
              created_at: snapshot.createdAt ?? null,
            },
      context: {
        settings: shown(carried.settings),
        members: members.map(({ id, settings }) => ({ id, ...shown(settings) })),
        bare: needsMembers && members.length === 0,
      },
    },
    order,
  };
}

function refuseForeign(kind: RdsClient['kind'], engine: string): void {
  if (canBeRestored(kind, engine)) return;
  throw new HoldfastError('NOT_SUPPORTED', `restores of the engine ${engine} are not supported`, {
    hint: 'Restore it in the AWS console or with the AWS CLI; its snapshots can be listed, taken and copied here.',
  });
}

async function ownOrGone(client: RdsClient, signal: AbortSignal): Promise<Database | undefined> {
  try {
    return await client.own(signal);
  } catch (cause) {
    if (cause instanceof HoldfastError && cause.code === 'RESOURCE_NOT_FOUND') return undefined;
    throw cause;
  }
}

interface MomentSource {
  readonly resourceId: string;
  readonly engine: string;
  readonly account: string;
  readonly window: RecoveryWindow | undefined;
}

/** What a moment is restored from: the live database, or what is left of the automated backups of a deleted one. */
async function momentSource(
  client: RdsClient,
  at: string | 'latest',
  database: Database | undefined,
  signal: AbortSignal,
): Promise<MomentSource> {
  let source: MomentSource;
  if (database === undefined) {
    const retained = retainedOf(await client.automatedBackups(signal));
    if (retained === undefined) {
      throw new HoldfastError(
        'BACKUP_NOT_FOUND',
        `the ${client.kind} is gone and no automated backups of it are left`,
        {
          hint: 'Restore a snapshot instead: list-snapshots shows those that outlived it.',
        },
      );
    }
    source = {
      resourceId: retained.resourceId,
      engine: retained.engine,
      account: retained.account,
      window: windowOfBackup(retained),
    };
  } else {
    if (database.retentionDays === 0) {
      throw new HoldfastError('NOT_SUPPORTED', 'automated backups are off: there is no point-in-time recovery', {
        hint: 'Restore a snapshot instead: list-snapshots shows them.',
      });
    }
    const backups = await backupsFor(client, database, signal);
    source = {
      resourceId: database.resourceId,
      engine: database.engine,
      account: database.account,
      window: windowOf(database, backups),
    };
  }
  const { window } = source;
  if (at !== 'latest' && window !== undefined && (at < window.earliest_at || at > window.latest_at)) {
    throw new HoldfastError('INVALID_PARAMETER', 'restore_timestamp is outside of the recovery window', {
      hint: `Give a moment from ${window.earliest_at} to ${window.latest_at}, or restore a snapshot.`,
      details: { ...window },
    });
  }
  return source;
}

/** What the members of the new cluster will be: those of the source in their order, the writer first. */
async function memberPlan(
  client: RdsClient,
  input: RestoreInput,
  { database, engine, fits }: { database: Database | undefined; engine: string; fits: boolean },
  signal: AbortSignal,
): Promise<Member[]> {
  const listed = [...(database?.cluster?.DBClusterMembers ?? [])].sort(
    (a, b) =>
      Number(b.IsClusterWriter === true) - Number(a.IsClusterWriter === true) ||
      (a.PromotionTier ?? 15) - (b.PromotionTier ?? 15) ||
      String(a.DBInstanceIdentifier).localeCompare(String(b.DBInstanceIdentifier), 'en'),
  );
  const count = input.members ?? listed.length;
  const sources: DBInstance[] = [];
  for (const { DBInstanceIdentifier } of listed.slice(0, count)) {
    const found = await client.instance(String(DBInstanceIdentifier), signal);
    if (found !== undefined) sources.push(found);
  }
  return Array.from({ length: count }, (_, index) => {
    const source = sources[index] ?? sources[0];
    const tags = ownTags(source?.TagList ?? database?.cluster?.TagList);
    const settings = memberSettings(source, engine, fits, input, tags);
    if (settings === undefined) {
      throw invalid(
        'the class of the members is not known: the source has none any more',
        'Give instance_class, or members: 0 for a cluster that nobody can connect to yet.',
      );
    }
    return {
      id: checkDatabaseId(`${input.target_id}-${index + 1}`, 'target_id with the number of a member'),
      settings,
    };
  });
}

async function refuseTakenMembers(client: RdsClient, members: readonly Member[], signal: AbortSignal): Promise<void> {
  for (const { id } of members) {
    if ((await client.instance(id, signal)) === undefined) continue;
    throw new HoldfastError('RESOURCE_EXISTS', `the DB instance ${id} exists already`, {
      hint: 'It would be a member of the new cluster. Choose another target_id.',
      details: { outcome: 'not_sent' },
    });
  }
}

// --- the plan ------------------------------------------------------------------------------------------------------

const QUOTAS: Readonly<Record<RdsClient['kind'], readonly string[]>> = {
  instance: ['DBInstances', 'AllocatedStorage'],
  cluster: ['DBClusters', 'DBInstances'],
};

/** Looks at source and target and says what the new database will be like, and what it will be without. */
export async function planRestore(context: Context, input: RestoreInput): Promise<PlanDraft> {
  const { client, runtime, signal } = context;
  const { kind } = client;
  const prepared = await prepare(context, input);
  const { target, wish, database, snapshot, window, members, needsMembers } = prepared;
  const quotas = await tolerate(() => client.quotas(signal));
  const left = Object.fromEntries(
    (quotas ?? [])
      .filter(({ AccountQuotaName }) => QUOTAS[kind].includes(AccountQuotaName ?? ''))
      .map(({ AccountQuotaName, Used = 0, Max = 0 }) => [cleanText(AccountQuotaName, 40), Max - Used]),
  );
  const moment = snapshot?.dataAt ?? (wish.kind === 'moment' && wish.at !== 'latest' ? wish.at : window?.latest_at);
  const age = moment === undefined ? undefined : (runtime.now().getTime() - Date.parse(moment)) / 1000;
  const ofAnother = snapshot !== undefined && snapshot.of !== client.id;
  const memberClass = members[0]?.settings.DBInstanceClass;
  const className = memberClass ?? (prepared.settings as InstanceSettings).DBInstanceClass;
  return {
    target,
    source: snapshot === undefined ? `${client.id} at ${wish.kind === 'moment' ? wish.at : ''}` : snapshot.id,
    loses: `nothing: a new ${kind} is made${database === undefined ? '' : `, ${client.id} stays as it is`}`,
    undo: `a person deletes the new ${kind} ${target}; Holdfast deletes no databases`,
    blast_radius: {
      creates: target,
      account: prepared.account,
      region: client.region,
      ...(moment === undefined ? {} : { moment }),
      ...(age === undefined ? {} : { without_the_last: formatDuration(age) }),
      ...(window === undefined ? {} : { recovery_window: { ...window } }),
      ...(snapshot === undefined
        ? {}
        : {
            snapshot: {
              id: snapshot.id,
              of: snapshot.of,
              engine: `${snapshot.engine} ${snapshot.version}`,
              encrypted: snapshot.encrypted,
              ...(snapshot.kmsKeyId === undefined ? {} : { kms_key: cleanText(snapshot.kmsKeyId, 300) }),
              ...(snapshot.allocatedGib === undefined ? {} : { allocated_gib: snapshot.allocatedGib }),
            },
          }),
      settings: prepared.facts.context['settings'] as JsonObject,
      ...(needsMembers ? { members: prepared.facts.context['members'] as JsonObject[] } : {}),
      not_carried_over: [...prepared.notCarried],
      quotas_left: quotas === undefined ? 'unknown' : left,
    },
    unknowns: [
      'how long it takes: usually 10 to 30 minutes, hours for large volumes, and blocks load lazily after that',
      ...(wish.kind === 'moment' && window === undefined ? ['the recovery window: RDS does not tell both ends'] : []),
      ...(snapshot !== undefined && moment === undefined ? ['the moment of the data: the snapshot is a copy'] : []),
      ...(quotas === undefined ? ['the quotas left (rds:DescribeAccountAttributes)'] : []),
      ...((snapshot?.encrypted ?? database?.encrypted) === true
        ? ['whether the caller may use the encryption key (kms:DescribeKey, kms:CreateGrant)']
        : []),
    ],
    warnings: [
      ...prepared.warnings,
      ...(needsMembers && members.length === 0
        ? ['The new cluster will have NO instances: nobody can connect until one is created.']
        : []),
      ...(ofAnother ? [`The snapshot is of ${snapshot.of}, the settings are those of ${client.id}.`] : []),
      ...(snapshot?.encrypted === false || (snapshot === undefined && database?.encrypted === false)
        ? ['The new database will not be encrypted; copy the snapshot with kms_key_id first to change that.']
        : []),
      ...Object.entries(left)
        .filter(([, free]) => free <= 0)
        .map(([name]) => `The quota ${name} is used up: RDS will refuse the restore.`),
      `A second database${className === undefined ? '' : ` (${members.length > 1 ? `${members.length} of ` : ''}${className})`} is billed from its creation on.`,
    ],
    facts: prepared.facts,
  };
}

// --- the steps -----------------------------------------------------------------------------------------------------

type RestoreStep = RdsStep<RestoreInput>;

/** Makes the new database and its members, waits until it can be used, then until its storage is loaded. */
export function restoreSteps(input: RestoreInput, plan: Plan): RestoreStep[] {
  const target = input.target_id.toLowerCase();
  const members = (plan.facts.context?.['members'] ?? []) as { id: string }[];
  // A new cluster may not list yet what is being made for it: it counts as empty only where the plan says so.
  const bare = plan.facts.context?.['bare'] === true;
  const isThere = (seen: Standing): boolean =>
    seen.stage === 'stopped' ||
    seen.stage === 'full' ||
    (bare ? seen.empty : seen.connectable && seen.members >= members.length);
  const check = (before: Plan['facts'], prepared: Prepared): void => {
    const changed = [
      ...compareFacts(before.target, prepared.facts.target, 'target'),
      ...compareFacts(before.source, prepared.facts.source, 'source'),
      ...compareFacts(before.context, prepared.facts.context, 'context'),
    ];
    if (changed.length === 0) return;
    throw new HoldfastError('INVALID_STATE', 'the source is not what the plan says; nothing was restored', {
      hint: 'Make the call again for a new plan.',
      details: { differences: changed as unknown as JsonObject[], outcome: 'not_sent' },
    });
  };

  const begin: RestoreStep = {
    name: 'restore',
    title: 'Starting the restore',
    kind: 'mutate',
    async run(context) {
      const prepared = await prepare(context, context.input);
      check(plan.facts, prepared);
      const order = prepared.order([{ Key: REQUEST_TAG, Value: context.idempotencyKey }]);
      await context.checkpoint({ target });
      const made = await context.client.restore(order, context.signal);
      const handle = { target, arn: made.arn };
      await context.checkpoint(handle);
      return handle;
    },
    async recover(context) {
      const { client, handle, idempotencyKey } = context;
      if (handle === undefined) return { state: 'not_begun' };
      if (handle['arn'] !== undefined) return { state: 'done', result: handle };
      const found = await lookThrice(context, () => client.find(client.kind, target, recoverySignal(context.signal)));
      if (found === undefined) return { state: 'not_begun', message: 'no database of that name exists' };
      const tags = found.instance?.TagList ?? found.cluster?.TagList;
      // A name can be had once: whoever's mark it has made it.
      return tagOf(tags, REQUEST_TAG) === idempotencyKey
        ? { state: 'done', result: { ...handle, arn: found.arn } }
        : { state: 'failed', message: 'a database of that name exists and was not made by this call' };
    },
    async abandon(context) {
      const made = context.results['restore'] ?? context.handle;
      return made?.['arn'] === undefined
        ? ''
        : `the new ${context.client.kind} ${target} was left: it is billed until a person deletes it`;
    },
  };

  const cluster: RestoreStep = {
    name: 'cluster',
    title: 'Waiting for the cluster',
    kind: 'follow',
    async run(context) {
      await follow(context, 'the restore', DAY_MS, async () => {
        const seen = await context.client.find('cluster', target, context.signal);
        context.progress({ message: `cluster is ${seen?.status ?? 'not there yet'}` });
        if (seen === undefined) return undefined;
        throwIfFailed(target, seen.status);
        return stageOf(seen.status) === 'ready' ? true : undefined;
      });
      return { target };
    },
  };

  const join = members.map(
    ({ id }, index): RestoreStep => ({
      name: `member-${index + 1}`,
      title: `Creating the instance ${id} of the cluster`,
      kind: 'mutate',
      async run(context) {
        const { client, signal } = context;
        if ((await client.instance(id, signal)) !== undefined) {
          throw new HoldfastError('RESOURCE_EXISTS', `the DB instance ${id} exists by now; none was created`, {
            details: { outcome: 'not_sent' },
          });
        }
        const settings = await settingsAsPlanned(context, members[index] as unknown as JsonObject, index);
        await context.checkpoint({ id });
        const made = await client.createMember(
          {
            ...settings,
            DBInstanceIdentifier: id,
            DBClusterIdentifier: target,
            Tags: [...(settings.Tags ?? []), { Key: REQUEST_TAG, Value: context.idempotencyKey }],
          } as CreateDBInstanceCommandInput,
          signal,
        );
        const handle = { id, arn: made.arn };
        await context.checkpoint(handle);
        return handle;
      },
      async recover(context) {
        const { client, handle, idempotencyKey } = context;
        if (handle === undefined) return { state: 'not_begun' };
        if (handle['arn'] !== undefined) return { state: 'done', result: handle };
        const found = await lookThrice(context, () => client.instance(id, recoverySignal(context.signal)));
        if (found === undefined) return { state: 'not_begun', message: 'no instance of that name exists' };
        return tagOf(found.TagList, REQUEST_TAG) === idempotencyKey
          ? { state: 'done', result: { ...handle, arn: fromInstance(found).arn } }
          : { state: 'failed', message: 'an instance of that name exists and was not made by this call' };
      },
    }),
  );

  const wait: RestoreStep = {
    name: 'wait',
    title: 'Waiting until the new database answers',
    kind: 'follow',
    async run(context) {
      const state = await follow(context, 'the restore', DAY_MS, async () => {
        const seen = await look(context.client, target, context.signal);
        if (seen === undefined) return undefined;
        context.progress({ message: `${target} is ${seen.words}` });
        for (const status of seen.statuses) throwIfFailed(target, status);
        return isThere(seen) ? seen : undefined;
      });
      return { target, connectable: state.connectable };
    },
  };
  const verify: RestoreStep = {
    name: 'verify',
    title: 'Waiting until its storage is loaded',
    kind: 'follow',
    async run(context) {
      const state = await follow(context, 'the loading of the storage', 4 * DAY_MS, async () => {
        const seen = await look(context.client, target, context.signal);
        if (seen === undefined) return undefined;
        context.progress({
          ...(seen.loading === undefined ? {} : { percent: seen.loading }),
          message: `${target} is ${seen.words}`,
        });
        for (const status of seen.statuses) throwIfFailed(target, status);
        return isThere(seen) && seen.loading === undefined ? seen : undefined;
      });
      return { job: state.job as unknown as JsonObject };
    },
  };
  return members.length > 0 ? [begin, cluster, ...join, wait, verify] : [begin, wait, verify];
}

/** Reads the settings of a member once more: what is created is what the source has, and what the plan says. */
async function settingsAsPlanned(
  { client, input, results, signal }: Parameters<RestoreStep['run']>[0],
  planned: JsonObject,
  index: number,
): Promise<MemberSettings> {
  const target = String(results['restore']?.['target']);
  const [database, created] = await Promise.all([ownOrGone(client, signal), client.find('cluster', target, signal)]);
  const fits = database !== undefined && created !== undefined && sameFamily(created, database);
  const engine = created?.engine ?? '';
  const found = (await memberPlan(client, input, { database, engine, fits }, signal))[index];
  const changed = found === undefined ? [] : compareFacts(planned, { id: found.id, ...shown(found.settings) });
  if (found !== undefined && changed.length === 0) return found.settings;
  throw new HoldfastError('INVALID_STATE', 'the source of a member is not what the plan says; it was not created', {
    hint: `Create the instance ${String(planned['id'])} of the cluster ${target} by hand, or restore again into another target_id.`,
    details: { differences: changed as unknown as JsonObject[], outcome: 'not_sent' },
  });
}

function throwIfFailed(target: string, status: string): void {
  const stage = stageOf(status);
  if (stage !== 'failed' && stage !== 'gone') return;
  throw new HoldfastError('INVALID_STATE', `the restored database is ${status}`, {
    retryable: false,
    hint: `get-restore-status with instance_id ${target} shows the events that say why. A person has to delete it.`,
    details: { target },
  });
}

// --- how it stands -------------------------------------------------------------------------------------------------

interface Standing {
  readonly stage: ReturnType<typeof stageOf>;
  /** The database answers, whether or not its storage is loaded. */
  readonly connectable: boolean;
  /** A cluster without instances: it is there, and nobody can connect. */
  readonly empty: boolean;
  /** How many instances the cluster has. */
  readonly members: number;
  /** Percent of its blocks that are there; undefined where nothing is loading. */
  readonly loading: number | undefined;
  /** Of the cluster and its members, or of the instance. */
  readonly statuses: readonly string[];
  readonly words: string;
  readonly database: Database;
  readonly job: RestoreJob;
}

const JOB_STATUS: Readonly<Record<ReturnType<typeof stageOf>, RestoreJob['status']>> = {
  working: 'running',
  ready: 'succeeded',
  failed: 'failed',
  stopped: 'succeeded',
  full: 'succeeded',
  gone: 'cancelled',
  unknown: 'unknown',
};

// The worst of all parts decides: one member that failed is not outweighed by one that answers.
const WORST: readonly ReturnType<typeof stageOf>[] = [
  'gone',
  'failed',
  'unknown',
  'working',
  'full',
  'stopped',
  'ready',
];

async function look(client: RdsClient, id: string, signal: AbortSignal): Promise<Standing | undefined> {
  const database = await client.find(client.kind, id, signal);
  if (database === undefined) return undefined;
  const listed = database.cluster?.DBClusterMembers ?? [];
  const members: DBInstance[] = [];
  for (const { DBInstanceIdentifier } of listed) {
    const found = await client.instance(String(DBInstanceIdentifier), signal);
    if (found !== undefined) members.push(found);
  }
  const instances = database.instance === undefined ? members : [database.instance];
  const statuses = [database.status, ...members.map((member) => cleanText(member.DBInstanceStatus, 60))];
  const stages = statuses.map(stageOf);
  const stage = WORST.find((one) => stages.includes(one)) ?? 'unknown';
  const initializing = instances.filter(({ StorageOperationStatus }) => StorageOperationStatus === 'Initializing');
  const loading =
    initializing.length === 0
      ? undefined
      : Math.min(...initializing.map(({ StorageOperationPercentProgress }) => StorageOperationPercentProgress ?? 0));
  const empty = database.kind === 'cluster' && stage === 'ready' && members.length === 0;
  const connectable = stage === 'ready' && !empty;
  const loads = connectable && loading !== undefined;
  const words = loads
    ? `available, still loading its blocks: slower than normal, ${loading} %`
    : empty
      ? 'available, without instances: nobody can connect'
      : [...new Set(statuses)].join(', ');
  const endpoint = database.instance?.Endpoint;
  const tags = database.instance?.TagList ?? database.cluster?.TagList;
  const origin = tagOf(tags, ORIGIN_TAG);
  const created = instant(database.instance?.InstanceCreateTime ?? database.cluster?.ClusterCreateTime);
  const job: RestoreJob = {
    job_id: database.id,
    status: loads ? 'running' : JOB_STATUS[stage],
    ...(loads ? { percent: loading } : {}),
    target: database.id,
    ...(created === undefined ? {} : { started_at: created }),
    // Usable is loaded: a database that still fetches every block from storage is not what it will be.
    usable: connectable && !loads,
    provider: {
      state: words,
      connectable,
      status: database.status,
      arn: database.arn,
      engine: `${database.engine} ${database.version}`,
      restored_from: origin === undefined ? 'unknown: not restored by Holdfast' : cleanText(origin, 300),
      ...(endpoint?.Address === undefined
        ? {}
        : { endpoint: `${cleanText(endpoint.Address, 255)}:${endpoint.Port ?? ''}` }),
      ...(database.cluster?.Endpoint === undefined
        ? {}
        : { endpoint: `${cleanText(database.cluster.Endpoint, 255)}:${database.cluster.Port ?? ''}` }),
      ...storageView(instances),
      ...(database.kind === 'cluster'
        ? {
            members: members.map((member) => ({
              instance: cleanText(member.DBInstanceIdentifier, 63),
              status: cleanText(member.DBInstanceStatus, 60),
            })),
          }
        : {}),
    },
  };
  return {
    stage,
    connectable,
    empty,
    members: members.length,
    loading: loads ? loading : undefined,
    statuses,
    words,
    database,
    job,
  };
}

function storageView(instances: readonly DBInstance[]): JsonObject {
  const busy = instances.filter(({ StorageOperationStatus }) => (StorageOperationStatus ?? '') !== '');
  if (busy.length === 0) return {};
  return {
    storage: busy.map((instance) => ({
      instance: cleanText(instance.DBInstanceIdentifier, 63),
      operation: cleanText(instance.StorageOperationStatus, 40),
      ...(instance.StorageOperationPercentProgress === undefined
        ? {}
        : { percent: instance.StorageOperationPercentProgress }),
    })),
  };
}

/** Says how a restored database stands; where it failed, with the events that say why. */
export async function restoreStatus({ client, signal }: Context, instanceId: string): Promise<RestoreJob> {
  const id = checkDatabaseId(instanceId, 'instance_id');
  const seen = await look(client, id, signal);
  if (seen === undefined) {
    throw new HoldfastError('RESOURCE_NOT_FOUND', `the DB ${client.kind} ${id} does not exist in ${client.region}`, {
      hint: 'Give the target_id of the restore.',
    });
  }
  if (seen.stage === 'ready' || seen.stage === 'working') return seen.job;
  const events = await tolerate(() => client.events(client.kind, id, signal));
  return {
    ...seen.job,
    provider: {
      ...seen.job.provider,
      events:
        events === undefined
          ? 'unknown: rds:DescribeEvents is missing'
          : events.slice(-5).map(({ Date: at, Message }) => ({
              ...(instant(at) === undefined ? {} : { at: instant(at) }),
              message: cleanText(Message, 300),
            })),
    },
  };
}

/** Makes the answer of a finished restore. */
export function restoreResult(results: Readonly<Record<string, JsonObject>>): RestoreJob {
  return results['verify']?.['job'] as unknown as RestoreJob;
}
