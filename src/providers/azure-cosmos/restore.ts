import type { DatabaseAccountCreateUpdateParameters } from '@azure/arm-cosmosdb';
import { HoldfastError } from '../../core/errors.ts';
import { type JsonObject, sha256 } from '../../core/json.ts';
import type { Step, StepContext } from '../../core/operation.ts';
import { compareFacts, type Plan, type PlanDraft } from '../../core/plan.ts';
import type { RestoreJob } from '../../core/schemas.ts';
import { cleanText, didYouMean } from '../../core/text.ts';
import { formatDuration, parseInstant } from '../../core/time.ts';
import { follow, lookThrice, recoverySignal } from '../follow.ts';
import type { CosmosClient, Existence } from './client.ts';
import { type Context, latestOf, tierOf, tolerate, wholeSecond, writeRegion } from './info.ts';
import {
  type Account,
  accountStatus,
  apiOfType,
  backupTypeIsPeriodic,
  checkAccountName,
  checkLocation,
  type Inventory,
  instant,
  isUsable,
  namesIn,
  operationError,
  type RestorableApi,
  regionsAt,
  restorableApi,
  type Source,
  sameLocation,
} from './map.ts';
import type { CosmosEntity } from './provider.ts';
import { checkMoment, findSource } from './restorable.ts';

export interface RestoreInput {
  target_id: string;
  source_id: string;
  location: string;
  restore_timestamp: string | number;
  only?: string[] | undefined;
  public_network_access?: 'disabled' | 'as_source' | undefined;
  restore_with_ttl_disabled?: boolean | undefined;
}

function invalid(message: string, hint: string, details?: JsonObject): HoldfastError {
  return new HoldfastError('INVALID_PARAMETER', message, { hint, ...(details === undefined ? {} : { details }) });
}

const EXISTS_HINT =
  'A restore always makes a new account, and names are unique in all of Azure. Choose another target_id; Holdfast never restores onto an account that exists.';

/** Refuses every target that is not certainly free: a restore onto an account would change that account. */
function mustBeFree(existence: Existence, target: string): void {
  if (existence.state === 'missing') return;
  if (existence.state === 'unknown') {
    throw new HoldfastError('INSUFFICIENT_PERMISSIONS', `it is not known whether ${target} exists; nothing was sent`, {
      hint: 'Give the caller Microsoft.DocumentDB/databaseAccounts/read on the resource group (Cosmos DB Account Reader Role).',
      details: { permission: 'Microsoft.DocumentDB/databaseAccounts/read', outcome: 'not_sent' },
      provider: existence.error.provider,
      cause: existence.error,
    });
  }
  const message =
    existence.state === 'exists'
      ? `the account ${target} exists already`
      : `the name ${target} is taken by another account in Azure`;
  throw new HoldfastError('RESOURCE_EXISTS', message, { hint: EXISTS_HINT, details: { outcome: 'not_sent' } });
}

// --- the plan ------------------------------------------------------------------------------------------------------

/** Looks at source and target and says what a restore makes, what it leaves out, and how it may be reached. */
export async function planRestore(context: Context, input: RestoreInput): Promise<PlanDraft> {
  const { client, runtime, signal } = context;
  const now = runtime.now();
  const target = checkAccountName(input.target_id);
  checkLocation(input.location);
  const at = wholeSecond(parseInstant(input.restore_timestamp, 'restore_timestamp'));
  const source = await findSource(context, input.source_id);
  const api = restorableApi(source.api);
  checkMoment(source, at, now);
  const location = regionAt(source, input.location, at);
  mustBeFree(await client.lookUp(target, signal), target);

  const account = source.deletedAt === undefined ? await liveAccount(context, source) : undefined;
  if (account !== undefined) checkRestorableNow(account);
  const [then, current] = await Promise.all([
    tolerate(() => client.inventoryAt(source, api, location, at, signal)),
    account === undefined || account.name !== client.account
      ? undefined
      : tolerate(() => client.inventory(client.account, api, signal)),
  ]);
  const only = readSubset(input.only, api, then);
  const chosen = then === undefined ? undefined : pick(then, only);
  const latest =
    account === undefined || current === undefined || chosen === undefined
      ? undefined
      : await latestOf(context, api, both(chosen, current), writeRegion(account));
  if (latest?.at !== undefined && at > latest.at) {
    throw invalid(
      'restore_timestamp is later than the last moment that can be restored',
      `Give a moment up to ${latest.at}; writes are in the backups after about 100 seconds.`,
      { latest_at: latest.at },
    );
  }

  const ttlDisabled = input.restore_with_ttl_disabled ?? true;
  const { setting: access, because } = publicAccess(input.public_network_access, account);
  const key = keyOf(account);
  const tier = (account === undefined ? undefined : tierOf(account)) ?? 'Continuous30Days';
  const end = source.deletedAt ?? now.toISOString();
  const lost = Math.max(0, (Date.parse(end) - Date.parse(at)) / 1000);
  const [before, after] = [new Set(then === undefined ? [] : namesIn(then)), new Set(current && namesIn(current))];
  return {
    target: `${client.group}/${target}`,
    source: `${source.accountName}/${source.instanceId} at ${at}`,
    loses: 'nothing: a new account is made, and no account that exists is changed',
    since: at,
    blast_radius: {
      creates: target,
      resource_group: client.group,
      region: location,
      source: {
        account: source.accountName,
        instance_id: source.instanceId,
        api: source.apiType,
        state: source.deletedAt === undefined ? 'live' : `deleted at ${source.deletedAt}`,
        ...(source.createdAt === undefined ? {} : { created_at: source.createdAt }),
        ...(source.oldestAt === undefined ? {} : { oldest_restorable_at: source.oldestAt }),
        ...(latest?.at === undefined ? {} : { latest_restorable_at: latest.at }),
      },
      writes_left_out: `the last ${formatDuration(lost)} before ${source.deletedAt === undefined ? 'now' : 'the deletion'}`,
      appears: chosen === undefined ? 'unknown' : bounded(namesIn(chosen)),
      ...(then === undefined || current === undefined
        ? {}
        : {
            only_then: bounded([...before].filter((name) => !after.has(name))),
            only_now: bounded([...after].filter((name) => !before.has(name))),
          }),
      public_network_access: access,
      ttl_disabled: ttlDisabled,
      continuous_tier: tier,
      encryption: key === undefined ? 'service-managed keys' : 'the customer-managed key of the source',
    },
    undo: `delete the new account ${target}`,
    unknowns: [
      ...(then === undefined ? ['which databases and containers there were at that moment'] : []),
      ...(source.deletedAt === undefined && account === undefined ? ['the settings of the source account'] : []),
      ...(source.deletedAt === undefined
        ? []
        : ['whether the deleted account used a customer-managed key: then this restore is refused by Azure']),
      ...(latest?.at === undefined && source.deletedAt === undefined
        ? ['the last restorable moment: Azure refuses a later one']
        : []),
      'how long it takes: minutes for small accounts, hours by the size of the data',
      'what it costs: each restored gigabyte is billed, and the new account from then on',
      'whether the caller may write accounts in the resource group: Azure says so when the restore begins',
    ],
    warnings: [
      ...(access === 'Enabled'
        ? ['The new account is open to all networks, like its source: its firewall is empty.']
        : [
            `The new account answers on no public network, ${because}, until someone opens it or adds a private endpoint.`,
          ]),
      ...(ttlDisabled
        ? [
            'Expiry (TTL) is off in the new account, so that nothing expires before it was looked at: set it again afterwards.',
          ]
        : ['Items past their TTL are deleted in the new account as soon as it is there.']),
      `Not restored: firewall and network rules${networkRules(account)}, private endpoints, data-plane roles, stored procedures, triggers, functions, other regions${otherRegions(account, location)}, tags and the analytical store. Keys and endpoint are new.`,
    ],
    facts: {
      target: { subscription: client.subscription, resource_group: client.group, account: target, exists: false },
      source: sourceFacts(source, at),
      context: {
        api_type: source.apiType,
        location,
        public_network_access: access,
        ttl_disabled: ttlDisabled,
        continuous_tier: tier,
        ...(only === undefined ? {} : { only }),
        ...(key === undefined ? {} : { key }),
      },
    },
  };
}

function sourceFacts(source: Source, at: string): JsonObject {
  return {
    restore_source: source.id,
    account: source.accountName,
    created_at: source.createdAt ?? null,
    deleted_at: source.deletedAt ?? null,
    restore_timestamp: at,
  };
}

function bounded(names: readonly string[]): string[] {
  const clean = names.slice(0, 100).map((name) => cleanText(name));
  return names.length > 100 ? [...clean, `and ${names.length - 100} more`] : clean;
}

function regionAt(source: Source, location: string, at: string): string {
  const names = regionsAt(source, at);
  const found = names.find((name) => sameLocation(name, location));
  if (found !== undefined) return found;
  throw invalid(
    `the account had no backups in '${cleanText(location, 60)}' at that moment`,
    names.length === 0 ? 'Give another moment.' : `Use one of the regions that had them: ${names.join(', ')}.`,
    { locations: names },
  );
}

/** Finds the live account of a source: the entity's own, or one of the subscription where it may be listed. */
async function liveAccount({ client, signal }: Context, source: Source): Promise<Account | undefined> {
  const isIt = (account: Account): boolean => (account.instanceId ?? '').toLowerCase() === source.instanceId;
  if (source.accountName === client.account) {
    const own = await tolerate(() => client.getAccount(client.account, signal));
    if (own !== undefined && isIt(own)) return own;
  }
  return (await tolerate(() => client.listAccounts(signal)))?.find(isIt);
}

function checkRestorableNow(account: Account): void {
  if (account.backupPolicy?.migrationState?.status === 'InProgress') {
    throw new HoldfastError('INVALID_STATE', 'the source is moving to continuous backup: nothing can be restored yet', {
      hint: 'This takes about 90 minutes per terabyte and region. get-backup-info shows how it stands.',
    });
  }
  if (backupTypeIsPeriodic(account)) {
    throw new HoldfastError('NOT_SUPPORTED', 'the source has periodic backups, which no call can restore', {
      hint: 'Open an Azure support ticket. Raise the retention to 7 days within 8 hours, so that the backups last.',
    });
  }
}

/** How the new account can be reached, and why where it is closed. */
interface Access {
  readonly setting: 'Enabled' | 'Disabled';
  readonly because: string;
}

/**
 * Public network access as the source has it. Where that is not known, or rests on rules that a restore does not bring,
 * the account is closed: it is never more open than its source.
 * @throws {HoldfastError} INVALID_PARAMETER where as_source is asked for in words and cannot be had
 */
function publicAccess(wanted: 'disabled' | 'as_source' | undefined, account: Account | undefined): Access {
  if (wanted === 'disabled') return { setting: 'Disabled', because: 'as asked for' };
  const instead = (message: string, hint: string, because: string): Access => {
    if (wanted === 'as_source') throw invalid(message, hint);
    return { setting: 'Disabled', because };
  };
  if (account === undefined) {
    return instead(
      'public_network_access as_source needs a source account that is live and can be read',
      'Leave it out: the new account is then closed to public networks until someone opens it.',
      'because the setting of the source cannot be read any more',
    );
  }
  if (account.publicNetworkAccess !== 'Enabled') return { setting: 'Disabled', because: 'like its source' };
  if (networkRules(account) !== '') {
    return instead(
      'the source is open to some networks only, and a restore does not bring its rules',
      'Leave public_network_access out, set the rules on the new account, then open it.',
      'because the source is open to some networks only, and its rules do not come along',
    );
  }
  return { setting: 'Enabled', because: 'like its source' };
}

function networkRules(account: Account | undefined): string {
  const count = (account?.ipRules?.length ?? 0) + (account?.virtualNetworkRules?.length ?? 0);
  return count > 0 || account?.isVirtualNetworkFilterEnabled === true ? ` (the source has ${count})` : '';
}

function otherRegions(account: Account | undefined, location: string): string {
  const others = (account?.locations ?? [])
    .map((one) => cleanText(one.locationName, 60))
    .filter((name) => !sameLocation(name, location));
  return others.length === 0 ? '' : ` (${others.join(', ')})`;
}

/**
 * What the new account needs to read data under the source's own key.
 * @throws {HoldfastError} NOT_SUPPORTED where the key is reached by an identity that a new account cannot have
 */
function keyOf(account: Account | undefined): JsonObject | undefined {
  if (!account?.keyVaultKeyUri) return undefined;
  const identity = account.defaultIdentity ?? 'FirstPartyIdentity';
  const assigned = /^UserAssignedIdentity=(.+)$/i.exec(identity)?.[1];
  if (/^SystemAssignedIdentity/i.test(identity)) {
    throw new HoldfastError('NOT_SUPPORTED', 'the source reaches its key by its own system-assigned identity', {
      hint: 'Have a person give the source a user-assigned identity with access to the key, then call again.',
    });
  }
  return {
    uri: account.keyVaultKeyUri,
    default_identity: identity,
    ...(assigned === undefined ? {} : { user_assigned: assigned }),
  };
}

// --- a part of an account ------------------------------------------------------------------------------------------

/** Checks the names of a subset against what there was; a whole database stands for its containers. */
function readSubset(
  only: readonly string[] | undefined,
  api: RestorableApi,
  then: Inventory | undefined,
): string[] | undefined {
  if (only === undefined) return undefined;
  const form = api === 'table' ? 'tables' : 'database or database/container';
  const names = [...new Set(only)].sort();
  if (names.length === 0 || names.some((name) => name === '' || name.startsWith('/') || name.endsWith('/'))) {
    throw invalid(`only names nothing: give ${form}`, 'Leave it out to restore the whole account.');
  }
  if (then === undefined) return names;
  const known = then.flatMap(({ database, containers }) =>
    database === null ? containers : [database, ...containers.map((container) => `${database}/${container}`)],
  );
  const strange = names.find((name) => !known.includes(name));
  if (strange !== undefined) {
    throw invalid(
      `there was no '${cleanText(strange, 80)}' at that moment`,
      didYouMean(
        strange,
        known.map((name) => cleanText(name)),
      ) || 'The account was empty at that moment.',
    );
  }
  return names;
}

function pick(inventory: Inventory, only: readonly string[] | undefined): Inventory {
  if (only === undefined) return inventory;
  return inventory
    .map(({ database, containers }) => ({
      database,
      containers:
        database !== null && only.includes(database)
          ? containers
          : containers.filter((name) => only.includes(database === null ? name : `${database}/${name}`)),
    }))
    .filter(({ database, containers }) => containers.length > 0 || (database !== null && only.includes(database)));
}

function both(one: Inventory, other: Inventory): Inventory {
  const there = new Set(namesIn(other));
  return one.map(({ database, containers }) => ({
    database,
    containers: containers.filter((name) => there.has(database === null ? name : `${database}/${name}`)),
  }));
}

function subsetParameters(api: RestorableApi, only: readonly string[] | undefined) {
  if (only === undefined) return {};
  if (api === 'table') return { tablesToRestore: [...only] };
  const byDatabase = new Map<string, string[]>();
  for (const name of only) {
    const [database = '', ...rest] = name.split('/');
    // A database that is named whole is restored whole.
    if (rest.length === 0) byDatabase.set(database, []);
    else if (byDatabase.get(database)?.length !== 0) {
      byDatabase.set(database, [...(byDatabase.get(database) ?? []), rest.join('/')]);
    }
  }
  const part = <Name extends string>(member: Name) =>
    [...byDatabase].map(([databaseName, names]) => ({
      databaseName,
      ...(names.length === 0 ? {} : { [member]: names }),
    }));
  return api === 'gremlin'
    ? { gremlinDatabasesToRestore: part('graphNames') }
    : { databasesToRestore: part('collectionNames') };
}

// --- the steps -----------------------------------------------------------------------------------------------------

type RestoreStep = Step<CosmosClient, CosmosEntity, RestoreInput>;
type In = StepContext<CosmosClient, CosmosEntity, RestoreInput>;

const TAG = 'holdfast-restore';
const WAIT_MS = 48 * 3_600_000;
const VERIFY_MS = 3_600_000;
const PACE = { first_ms: 10_000, longest_ms: 60_000 };
const NOTES = 'azure-cosmos-restore';

/** Makes the request of a restore from what was planned; the tag finds the account again when the answer is lost. */
function requestOf(plan: Plan, mark: string): DatabaseAccountCreateUpdateParameters {
  const source = plan.facts.source ?? {};
  const settings = plan.facts.context ?? {};
  const apiType = String(settings['api_type']);
  const api = restorableApi(apiOfType(apiType));
  const capability = api === 'table' ? 'EnableTable' : api === 'gremlin' ? `Enable${apiType}` : undefined;
  const location = String(settings['location']);
  const key = settings['key'] as JsonObject | undefined;
  const assigned = key?.['user_assigned'];
  return {
    location,
    kind: api === 'mongodb' ? 'MongoDB' : 'GlobalDocumentDB',
    tags: { [TAG]: mark },
    databaseAccountOfferType: 'Standard',
    createMode: 'Restore',
    locations: [{ locationName: location, failoverPriority: 0, isZoneRedundant: false }],
    ...(capability === undefined ? {} : { capabilities: [{ name: capability }] }),
    publicNetworkAccess: String(settings['public_network_access']),
    backupPolicy: { type: 'Continuous', continuousModeProperties: { tier: String(settings['continuous_tier']) } },
    ...(key === undefined
      ? {}
      : { keyVaultKeyUri: String(key['uri']), defaultIdentity: String(key['default_identity']) }),
    ...(assigned === undefined
      ? {}
      : { identity: { type: 'UserAssigned', userAssignedIdentities: { [String(assigned)]: {} } } }),
    restoreParameters: {
      restoreMode: 'PointInTime',
      restoreSource: String(source['restore_source']),
      restoreTimestampInUtc: new Date(String(source['restore_timestamp'])),
      restoreWithTtlDisabled: settings['ttl_disabled'] !== false,
      ...subsetParameters(api, settings['only'] as string[] | undefined),
    },
  };
}

/** Starts the restore, follows its operation, and waits until the new account can be used. */
export function restoreSteps(plan: Plan): RestoreStep[] {
  const target = String(plan.facts.target['account']);
  return [
    {
      name: 'restore',
      title: 'Starting the restore',
      kind: 'mutate',
      async run(context) {
        const { client, runtime, signal } = context;
        const at = String(plan.facts.source?.['restore_timestamp']);
        const source = await findSource(context, context.input.source_id);
        const changed = compareFacts(plan.facts.source, sourceFacts(source, at));
        if (changed.length > 0 || context.input.target_id !== target) {
          throw new HoldfastError('INVALID_STATE', 'the source is not what the plan says; nothing was restored', {
            hint: 'Make the call again for a new plan.',
            details: { differences: changed as unknown as JsonObject[] },
          });
        }
        mustBeFree(await client.lookUp(target, signal), target);
        const mark = sha256(context.idempotencyKey).slice(0, 32);
        const handle = { target, mark, began_at: runtime.now().toISOString() };
        await context.checkpoint(handle);
        const { operationUrl } = await client.restore(target, requestOf(plan, mark), signal);
        const begun = { ...handle, sent: true, ...(operationUrl === undefined ? {} : { operation_url: operationUrl }) };
        await context.checkpoint(begun);
        return begun;
      },
      recover: (context) => recoverRestore(context, target),
    },
    {
      name: 'wait',
      title: 'Waiting for the restore',
      kind: 'follow',
      async run(context) {
        const begun = context.results['restore'] ?? {};
        await noteOperation(context, target, begun);
        const url = typeof begun['operation_url'] === 'string' ? begun['operation_url'] : undefined;
        return follow(context, { what: 'the restore', at: 'Azure', deadline_ms: WAIT_MS, ...PACE }, () =>
          lookAtRestore(context, target, url),
        );
      },
    },
    {
      name: 'verify',
      title: 'Waiting until the new account can be used',
      kind: 'follow',
      run: (context) => verifyRestore(context, plan, target),
    },
  ];
}

async function recoverRestore(context: In, target: string): ReturnType<NonNullable<RestoreStep['recover']>> {
  const { client, handle } = context;
  if (handle === undefined) return { state: 'not_begun' };
  if (handle['sent'] === true) return { state: 'done', result: handle };
  const signal = recoverySignal(context.signal);
  const found = await lookThrice(context, async () => {
    const existence = await client.lookUp(target, signal);
    return existence.state === 'missing' ? undefined : existence;
  });
  if (found === undefined) return { state: 'not_begun', message: 'there is no account of that name' };
  if (found.state === 'exists') {
    if (found.account.tags?.[TAG] === handle['mark']) return { state: 'done', result: { ...handle, sent: true } };
    return { state: 'unknown', message: 'an account of that name exists and does not carry the mark of this restore' };
  }
  return { state: 'unknown', message: 'the name is taken, and by whom cannot be seen' };
}

// A later look by get-restore-status finds the operation's own word for a failure here.
async function noteOperation({ runtime }: In, target: string, begun: JsonObject): Promise<void> {
  const known = await runtime.ledger.list(NOTES, 200);
  if (known.some((note) => note['mark'] === begun['mark'])) return;
  const url = begun['operation_url'];
  await runtime.ledger.add(NOTES, {
    target,
    mark: String(begun['mark']),
    ...(typeof url === 'string' ? { operation_url: url } : {}),
  });
}

async function lookAtRestore(context: In, target: string, url: string | undefined): Promise<JsonObject | undefined> {
  const { client, runtime, signal } = context;
  const operation = url === undefined ? undefined : await tolerate(() => client.operation(url, signal));
  if (operation !== undefined) {
    context.progress({ message: `the restore is ${operation.status}` });
    if (operation.status === 'failed' || operation.status === 'cancelled') throw operationError(operation, target);
    if (operation.status === 'succeeded') return { status: 'succeeded' };
    // Azure says how long to leave it alone; the follower's own pause counts as well.
    if (operation.retryAfterMs !== undefined) {
      await runtime.sleep(Math.min(120_000, Math.max(0, operation.retryAfterMs - PACE.first_ms)), signal);
    }
    return undefined;
  }
  // An operation that is forgotten or hidden says nothing: the account itself does.
  const existence = await client.lookUp(target, signal);
  if (existence.state !== 'exists') return undefined;
  const status = accountStatus(existence.account.provisioningState);
  context.progress({ message: `the new account is ${status}` });
  if (status === 'failed' || status === 'cancelled') {
    throw operationError({ status, code: undefined, retryAfterMs: undefined }, target);
  }
  return status === 'succeeded' ? { status } : undefined;
}

async function verifyRestore(context: In, plan: Plan, target: string): Promise<JsonObject> {
  const { client, signal } = context;
  const wanted = String(plan.facts.source?.['restore_source']).toLowerCase();
  const account = await follow(
    context,
    { what: 'the new account', at: 'Azure', deadline_ms: VERIFY_MS, ...PACE },
    async () => {
      const existence = await client.lookUp(target, signal);
      if (existence.state !== 'exists') return undefined;
      const status = accountStatus(existence.account.provisioningState);
      context.progress({ message: `the new account is ${status}` });
      if (status === 'failed' || status === 'cancelled') {
        throw operationError({ status, code: undefined, retryAfterMs: undefined }, target);
      }
      return isUsable(existence.account) ? existence.account : undefined;
    },
  );
  const restored = account.restoreParameters;
  if (account.createMode !== 'Restore' || restored?.restoreSource?.toLowerCase() !== wanted) {
    throw new HoldfastError('INTEGRITY_FAILED', 'the new account does not say that it was restored from the source', {
      hint: `Look at ${target} in the Azure portal before anyone uses it.`,
    });
  }
  const api = restorableApi(apiOfType(String(plan.facts.context?.['api_type'])));
  const inventory = await tolerate(() => client.inventory(target, api, signal));
  return {
    target: plan.target,
    job: jobOf(account, target, plan.target) as unknown as JsonObject,
    contains: inventory === undefined ? 'unknown' : bounded(namesIn(inventory)),
  };
}

function jobOf(account: Account, name: string, target: string): RestoreJob {
  const { restoreParameters: from } = account;
  const started = instant(account.systemData?.createdAt);
  return {
    job_id: name,
    status: accountStatus(account.provisioningState),
    target,
    ...(started === undefined ? {} : { started_at: started }),
    usable: isUsable(account),
    provider: {
      state: cleanText(account.provisioningState, 40),
      source: cleanText(from?.restoreSource, 300),
      ...(instant(from?.restoreTimestampInUtc) === undefined
        ? {}
        : { restore_timestamp: instant(from?.restoreTimestampInUtc) }),
      public_network_access: cleanText(account.publicNetworkAccess ?? 'unknown', 40),
      ...(from?.restoreWithTtlDisabled === undefined ? {} : { ttl_disabled: from.restoreWithTtlDisabled }),
    },
  };
}

/** Makes the answer of a finished restore. */
export function restoreResult(results: Readonly<Record<string, JsonObject>>): RestoreJob {
  const { job, contains } = results['verify'] as { job: JsonObject; contains: unknown };
  const done = job as unknown as RestoreJob;
  return { ...done, provider: { ...done.provider, contains } };
}

/** Says how the restore that makes an account stands. */
export async function restoreStatus(context: Context, targetId: string): Promise<RestoreJob> {
  const { client, runtime, signal } = context;
  const name = checkAccountName(targetId);
  const account = await client.getAccount(name, signal);
  if (account.createMode !== 'Restore') {
    throw invalid('this account was not made by a restore', 'Give the target_id of a restore.');
  }
  const job = jobOf(account, name, `${client.group}/${name}`);
  if (job.status !== 'failed' && job.status !== 'cancelled') return job;
  const note = (await runtime.ledger.list(NOTES, 200)).find((one) => one['target'] === name);
  const url = note?.['operation_url'];
  const operation = typeof url === 'string' ? await tolerate(() => client.operation(url, signal)) : undefined;
  return { ...job, provider: { ...job.provider, ...(operation?.code ? { error_code: operation.code } : {}) } };
}
