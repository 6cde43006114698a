import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Recovery, Step, StepContext } from '../../core/operation.ts';
import { type Alternative, compareFacts, type Plan, type PlanDraft } from '../../core/plan.ts';
import type { RestoreJob } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatBytes, formatDuration, parseInstant } from '../../core/time.ts';
import { known } from '../../core/wire.ts';
import { follow, lookThrice, recoverySignal } from '../follow.ts';
import { isCode, unless } from '../rest.ts';
import { type Context, findBackup, nearestOf, ownBackups, PASSED_THROUGH } from './backups.ts';
import type { DigitalOceanClient } from './client.ts';
import {
  type Backup,
  type Backups,
  type Cluster,
  checkId,
  checkName,
  type EngineOptions,
  type FirewallRule,
  restoreState,
  supportOf,
  toJob,
} from './map.ts';
import type { DigitalOceanEntity } from './provider.ts';

export interface RestoreInput {
  readonly new_cluster_name: string;
  readonly backup_created_at?: string | undefined;
  readonly restore_time?: string | number | undefined;
  readonly size?: string | undefined;
  readonly num_nodes?: number | undefined;
  readonly region?: string | undefined;
}

const DEADLINE_MS = 3_600_000;
const POLL_MS = 15_000;
/** How long a new cluster may answer 404 before that means that it is gone. */
const HIDDEN_MS = 120_000;
/** How far our clock and the provider's may be apart. */
const CLOCK_SKEW_MS = 120_000;
/** States in which a cluster gives no copy of itself. */
const BUSY = new Set(['creating', 'forking', 'resizing', 'migrating']);

/** What a restore would make, of what, and with whom it may speak. */
interface Draft {
  readonly source: Cluster;
  readonly backups: Backups;
  readonly rules: readonly FirewallRule[];
  readonly options: EngineOptions | undefined;
  /** The backup itself, or for a moment the last one before it. */
  readonly backup: Backup;
  /** What goes into `backup_created_at`. */
  readonly instant: string;
  readonly at: Date;
  readonly passed_through: boolean;
  readonly body: JsonObject;
  readonly facts: { target: JsonObject; source: JsonObject };
}

function invalid(message: string, hint: string, details?: JsonObject): HoldfastError {
  return new HoldfastError('INVALID_PARAMETER', message, { hint, details });
}

/** The point that a call asks for: a listed backup, or a moment between the oldest one and now. */
function pointOf(
  input: RestoreInput,
  source: Cluster,
  backups: Backups,
  now: Date,
): Pick<Draft, 'backup' | 'instant' | 'at' | 'passed_through'> {
  if (input.backup_created_at !== undefined) {
    const backup = findBackup(backups, input.backup_created_at);
    // The listed text and no other: the provider may compare it as it stands.
    return { backup, instant: backup.listed, at: backup.at, passed_through: false };
  }
  const at = parseInstant(input.restore_time as string | number, 'restore_time');
  const { earlier, later } = nearestOf(backups, at);
  if (supportOf(source.engine).point_in_time === 'no') {
    throw new HoldfastError('NOT_SUPPORTED', 'this engine can be restored to a backup only, not to a moment', {
      hint: `Use backup_created_at${earlier === undefined ? '' : ` ${earlier.listed}, the last backup before it`}.`,
      details: known({ engine: cleanText(source.engine, 40), earlier: earlier?.listed }),
    });
  }
  if (at > now) throw invalid('restore_time is in the future', 'Give a moment in the past.');
  if (earlier === undefined) {
    if (later === undefined) {
      throw new HoldfastError('BACKUP_NOT_FOUND', 'the cluster has no backup yet', {
        hint: 'The first one can take a day after the cluster was made.',
      });
    }
    throw invalid('restore_time is before the oldest backup', `Give a moment from ${later.listed} on.`, {
      earliest_at: later.at.toISOString(),
    });
  }
  return { backup: earlier, instant: at.toISOString().replace('.000Z', 'Z'), at, passed_through: true };
}

function assertOneOrigin({ backup_created_at, restore_time }: RestoreInput): void {
  if ((backup_created_at === undefined) !== (restore_time === undefined)) return;
  throw invalid(
    'restore needs either backup_created_at or restore_time',
    'Give a backup of list-snapshots, or for PostgreSQL and MySQL a moment in the window of get-backup-info.',
  );
}

/** Everything that a plan shows and the write needs, read afresh. */
async function lookAt(context: Context, input: RestoreInput): Promise<Draft> {
  const { client, runtime, signal } = context;
  assertOneOrigin(input);
  const name = checkName(input.new_cluster_name);
  const { cluster: source, backups } = await ownBackups(context);
  if (BUSY.has(source.status)) {
    throw new HoldfastError('INVALID_STATE', `the source is ${source.status}; restores from it have to wait`);
  }
  const point = pointOf(input, source, backups, runtime.now());
  const [rules, taken, options] = await Promise.all([
    // Without them the copy of the data would be open to every address, so they are not optional.
    client.rules(source.id, signal),
    client.byName(name, signal),
    unless(client.options(source.engine, signal), 'INSUFFICIENT_PERMISSIONS', 'RESOURCE_NOT_FOUND'),
  ]);
  if (taken !== undefined) {
    throw new HoldfastError('RESOURCE_EXISTS', `a cluster '${name}' exists already`, {
      hint: 'A restore always makes a new cluster. Choose a name that is not in use.',
      details: { cluster_id: taken.id },
    });
  }
  const { version, size, region, num_nodes } = {
    version: source.version,
    size: input.size ?? source.size,
    region: input.region ?? source.region,
    num_nodes: input.num_nodes ?? source.num_nodes ?? 1,
  };
  checkOptions(input, options, { size, region, num_nodes });
  const body = known({
    name,
    engine: source.engine,
    version,
    region,
    size,
    num_nodes,
    // Disk that was added to the source is part of what the copy has to hold.
    storage_size_mib: source.storage_size_mib,
    // A private network belongs to its region.
    private_network_uuid: region === source.region ? source.private_network_uuid : undefined,
    project_id: source.project_id,
    tags: source.tags.length === 0 ? undefined : [...source.tags],
    rules: rules.length === 0 ? undefined : rules.map((rule) => ({ ...rule })),
    backup_restore: { database_name: source.name, backup_created_at: point.instant },
  });
  return {
    source,
    backups,
    rules,
    options,
    ...point,
    body,
    facts: {
      target: known({ new_cluster_name: name, exists: false, region, size, num_nodes }),
      source: known({
        cluster_id: source.id,
        name: cleanText(source.name, 100),
        engine: cleanText(source.engine, 40),
        version: source.version === undefined ? undefined : cleanText(source.version, 40),
        restore_point: point.at.toISOString(),
        backup: cleanText(point.backup.listed, 40),
        trusted_sources: rules.map(({ type, value }) => cleanText(`${type} ${value}`, 120)).sort(),
      }),
    },
  };
}

function checkOptions(
  input: RestoreInput,
  options: EngineOptions | undefined,
  wanted: { size: string | undefined; region: string | undefined; num_nodes: number },
): void {
  if (options === undefined) return;
  const { size, region, num_nodes } = wanted;
  if (input.region !== undefined && !options.regions.includes(input.region)) {
    throw invalid(
      `region '${cleanText(region, 40)}' is not offered for this engine`,
      'Choose one of details.regions.',
      {
        regions: options.regions.slice(0, 40).map((one) => cleanText(one, 40)),
      },
    );
  }
  if (input.size === undefined && input.num_nodes === undefined) return;
  const sizes = options.sizes(num_nodes);
  if (sizes === undefined || (size !== undefined && !sizes.includes(size))) {
    throw invalid(
      sizes === undefined
        ? `${num_nodes} nodes are not offered for this engine`
        : `size '${cleanText(size, 60)}' is not offered with ${num_nodes} nodes`,
      'Choose one of details.sizes.',
      { sizes: (sizes ?? []).slice(0, 60).map((one) => cleanText(one, 60)) },
    );
  }
}

/** Says what a restore would make and whom it would let in. Reads only. */
export async function planRestore(context: Context, input: RestoreInput): Promise<PlanDraft> {
  const draft = await lookAt(context, input);
  const { source, rules, options, backup, at, passed_through } = draft;
  const now = context.runtime.now();
  const age = formatDuration((now.getTime() - at.getTime()) / 1000);
  const name = String(draft.facts.target['new_cluster_name']);
  const version = source.version;
  const ended = source.end_of_availability !== undefined && Date.parse(source.end_of_availability) < now.getTime();
  const gone = options !== undefined && version !== undefined && !options.versions.includes(version);
  const newest = draft.backups.all[0];
  return {
    target: name,
    source: `${cleanText(source.name, 100)} at ${at.toISOString()}`,
    loses: 'nothing: a new cluster is made, the source stays as it is',
    blast_radius: known({
      creates: name,
      source: known({
        cluster_id: source.id,
        engine: cleanText(source.engine, 40),
        version: cleanText(source.semantic_version ?? version, 40),
        region: cleanText(source.region, 40),
        size: cleanText(source.size, 60),
        num_nodes: source.num_nodes,
        storage_size_mib: source.storage_size_mib,
        status: cleanText(source.status, 40),
      }),
      restore_point: known({
        at: at.toISOString(),
        age,
        backup: cleanText(backup.listed, 40),
        size: backup.size_bytes === undefined ? undefined : formatBytes(backup.size_bytes),
        incremental: backup.incremental,
        point_in_time: passed_through ? PASSED_THROUGH : undefined,
      }),
      region: cleanText(draft.body['region'], 40),
      size: cleanText(draft.body['size'], 60),
      num_nodes: Number(draft.body['num_nodes']),
      trusted_sources: rules.map(({ type, value }) => cleanText(`${type} ${value}`, 120)),
    }),
    ...(newest === undefined
      ? {}
      : { newest_recovery_point: { id: cleanText(newest.listed, 40), at: newest.at.toISOString() } }),
    undo: `destroy the new cluster ${name} in the control panel; Holdfast never destroys one`,
    alternatives: passed_through ? [listedInstead(input, backup)] : [],
    unknowns: [
      ...(passed_through
        ? [
            'whether exactly this moment is reached: the API describes listed backups only, and the result cannot be read back',
          ]
        : []),
      ...(options === undefined ? ['whether size, region and version are offered: the options could not be read'] : []),
      ...(restoreState(source) === 'unknown'
        ? [`what the state '${cleanText(source.status, 40)}' of the source means`]
        : []),
      'the price: one more cluster is billed until someone destroys it',
      'how long it takes: minutes to hours with the size; no progress is told',
    ],
    warnings: [
      ...(rules.length === 0
        ? ['THE COPY WILL BE OPEN TO EVERY ADDRESS: the source has no trusted sources that could be carried over.']
        : []),
      `What was written after ${at.toISOString()} (the last ${age}) is not in the new cluster.`,
      ...(ended || gone ? ['New clusters of this version may be refused.'] : []),
      ...(draft.body['region'] === source.region
        ? []
        : ['Another region: the default private network is used, and trusted sources of the old one may not fit.']),
      'Standby and read-only nodes, connection pools and configuration do not come along; users and their passwords do.',
      'The new cluster has another host: applications have to be pointed to it by hand.',
    ],
    facts: draft.facts,
  };
}

function listedInstead(input: RestoreInput, backup: Backup): Alternative {
  const { restore_time: _, ...rest } = input;
  return {
    title: `Restore the listed backup of ${backup.at.toISOString()}, which the API describes`,
    risk: 'create',
    call: { action: 'restore', input: { ...known(rest), backup_created_at: cleanText(backup.listed, 40) } },
  };
}

type RestoreStep = Step<DigitalOceanClient, DigitalOceanEntity, RestoreInput>;
type InStep = StepContext<DigitalOceanClient, DigitalOceanEntity, RestoreInput>;

/** The steps of a restore: make the cluster once, wait until it is online. */
export function restoreSteps(plan: Plan): RestoreStep[] {
  return [
    {
      name: 'restore',
      title: `Making the cluster ${plan.target}`,
      kind: 'mutate',
      run: (context) => begin(context, plan),
      recover: findCluster,
    },
    { name: 'wait', title: `Waiting until ${plan.target} is online`, kind: 'follow', run: waitForCluster },
  ];
}

async function begin(context: InStep, plan: Plan): Promise<JsonObject> {
  const { client, input, runtime, signal } = context;
  const draft = await lookAt(context, input);
  const changed = [
    ...compareFacts(plan.facts.target, draft.facts.target, 'target'),
    ...compareFacts(plan.facts.source, draft.facts.source, 'source'),
  ];
  if (changed.length > 0) {
    throw new HoldfastError('INVALID_STATE', 'the source is not what the plan says; nothing was made', {
      hint: 'Make the call again for a new plan.',
      details: { changed: changed.map(({ path }) => path), outcome: 'not_sent' },
    });
  }
  const about = {
    name: plan.target,
    began_at: runtime.now().toISOString(),
    trusted_sources: draft.rules.length,
    ...(draft.passed_through ? { point_in_time: PASSED_THROUGH } : {}),
  };
  await context.checkpoint(about);
  const cluster = await client.create(draft.body, signal);
  const handle = { ...about, cluster_id: cluster.id };
  await context.checkpoint(handle);
  return handle;
}

/** A create call has no key of its own: the name, which was free just before, tells whether it arrived. */
async function findCluster(context: InStep): Promise<Recovery> {
  const { client, handle } = context;
  if (handle === undefined) return { state: 'not_begun' };
  if (typeof handle['cluster_id'] === 'string') return { state: 'done', result: handle };
  const signal = recoverySignal(context.signal);
  const found = await lookThrice(context, () => client.byName(String(handle['name']), signal));
  if (found === undefined) return { state: 'not_begun', message: 'DigitalOcean has no cluster of that name' };
  if (Date.parse(found.created_at ?? '') < Date.parse(String(handle['began_at'])) - CLOCK_SKEW_MS) {
    return { state: 'unknown', message: 'a cluster of that name exists that is older than this call' };
  }
  return { state: 'done', result: { ...handle, cluster_id: found.id } };
}

async function waitForCluster(context: InStep): Promise<JsonObject> {
  const { client, results, runtime, signal } = context;
  const begun = results['restore'] ?? {};
  const id = String(begun['cluster_id']);
  const since = Date.parse(String(begun['began_at']));
  try {
    const pace = { at: 'DigitalOcean', first_ms: POLL_MS, longest_ms: POLL_MS, deadline_ms: DEADLINE_MS };
    const cluster = await follow(context, { what: 'the restore', ...pace }, async () => {
      try {
        const seen = await client.cluster(id, signal);
        context.progress({ message: `cluster is ${cleanText(seen.status, 40)}` });
        return restoreState(seen) === 'succeeded' ? seen : undefined;
      } catch (cause) {
        if (isCode(cause, 'RESOURCE_NOT_FOUND') && runtime.now().getTime() < since + HIDDEN_MS) return undefined;
        throw cause;
      }
    });
    const job = toJob(cluster);
    // No document promises that they came along: what is there counts.
    const rules = await unless(client.rules(id, signal), 'INSUFFICIENT_PERMISSIONS', 'RESOURCE_NOT_FOUND');
    const sent = Number(begun['trusted_sources']);
    const missing = rules === undefined ? 0 : sent - rules.length;
    return {
      ...job,
      ended_at: runtime.now().toISOString(),
      provider: known({
        ...(job.provider as JsonObject),
        trusted_sources: rules?.length ?? `unknown: ${sent} were sent`,
        trusted_sources_missing: missing > 0 ? missing : undefined,
        open_to_every_address: (rules?.length ?? sent) === 0 ? true : undefined,
        point_in_time: begun['point_in_time'],
      }),
    };
  } catch (cause) {
    if (!isCode(cause, 'TIMEOUT')) throw cause;
    throw new HoldfastError('TIMEOUT', cause.message, {
      cause,
      hint: 'The cluster is still being made. Look with get-restore-status; do not restore again.',
      details: { cluster_id: id },
    });
  }
}

/** Says how a restore stands, as the cluster that it makes shows it. */
export async function restoreStatus({ client, signal }: Context, id: string): Promise<RestoreJob> {
  const wanted = checkId(id, 'cluster_id');
  const own = await client.own(signal);
  if (own.id === wanted) {
    throw invalid('this is the cluster of the entity itself', 'Give the id that restore answered with.');
  }
  return toJob(await client.cluster(wanted, signal));
}
