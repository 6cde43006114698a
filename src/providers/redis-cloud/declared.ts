import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject, JsonValue } from '../../core/json.ts';
import type { StepContext } from '../../core/operation.ts';
import type { SecretRef } from '../../core/runtime.ts';
import type { SettingChange, SettingFinding, SettingsReading } from '../../core/settings.ts';
import { cleanText } from '../../core/text.ts';
import { booleanOf, numberOf, textOf, type Wire } from '../../core/wire.ts';
import { type RedisCloudClient, supportsBackups, type Tier } from './client.ts';
import { type BackupSettings, type Database, samePath, showPath, storageTypeOf } from './map.ts';
import { ESSENTIALS_SUBSCRIPTION, type RedisCloudEntity } from './provider.ts';
import { type Context, readSubscription, readTarget, type Target, targetFacts, targetName } from './target.ts';

const DATABASE_WRITE = 'update-database';
const REGIONS_WRITE = 'update-regions';
const PLAN_WRITE = /^move-to-plan-(\d+)$/;
const UPDATE_LIMIT_SECONDS = 1800;
export const INTERVALS: readonly string[] = [1, 2, 4, 6, 12, 24].map((hours) => `every-${hours}-hours`);
const TIMED = ['every-12-hours', 'every-24-hours'];

type Effect = Pick<SettingChange, 'risk' | 'effect'>;
const change = (effect: string): Effect => ({ risk: 'change', effect });
const weaken = (effect: string): Effect => ({ risk: 'weaken', effect });

interface Row {
  readonly setting: string;
  readonly declared: JsonValue;
  /** Undefined where Redis Cloud does not tell. */
  readonly actual: JsonValue | undefined;
  readonly same: boolean;
  readonly effect: Effect;
  readonly write: string;
  /** Why it cannot be applied. */
  readonly obstacle?: string | undefined;
  readonly note?: string | undefined;
}

function findingOf({ setting, declared, actual, same, effect, write, obstacle, note }: Row): SettingFinding {
  if (actual === undefined) return { setting, declared, verdict: 'unknown', note: note ?? 'Redis Cloud does not tell' };
  if (same) return { setting, declared, actual, verdict: 'as_declared', ...(note === undefined ? {} : { note }) };
  const differs = { setting, declared, actual, verdict: 'differs' as const };
  if (obstacle !== undefined) return { ...differs, note: obstacle };
  return { ...differs, ...(note === undefined ? {} : { note }), change: { ...effect, write } };
}

/** Gives the path that an entity declares for its backups. */
export function declaredPath(entity: RedisCloudEntity, tier: Tier): string | SecretRef | undefined {
  return tier === 'essentials' ? entity.periodic_backup_path : entity.remote_backup?.storage_path;
}

/** Holds what an entity declares of its backups against its database; `path` is the declared one, read if it is a secret. */
export function databaseFindings(entity: RedisCloudEntity, target: Target, path: string | undefined): SettingFinding[] {
  const rows = [
    ...persistenceRows(entity, target),
    ...(target.address.tier === 'essentials'
      ? periodicRows(target, path)
      : [...replicationRows(entity, target), ...remoteRows(entity, target, path)]),
  ];
  return rows.map(findingOf);
}

/** How data is kept on disk; the more of the last writes it keeps, the further left. */
export const PERSISTENCE: readonly string[] = [
  'aof-every-write',
  'aof-every-1-second',
  'snapshot-every-1-hour',
  'snapshot-every-6-hours',
  'snapshot-every-12-hours',
  'none',
];

function persistenceRows(entity: RedisCloudEntity, { address, database, subscription }: Target): Row[] {
  const declared = entity.data_persistence;
  const actual = database.dataPersistence;
  if (declared === undefined) return [];
  const noLess = PERSISTENCE.indexOf(declared) <= PERSISTENCE.indexOf(actual ?? '');
  const effect = `keeps ${declared} on disk, not ${cleanText(actual ?? 'unknown', 40)}`;
  return [
    {
      setting: 'data_persistence',
      declared,
      actual: actual === undefined ? undefined : cleanText(actual, 40),
      same: declared === actual,
      effect: noLess
        ? change(effect)
        : weaken(`${effect}: a restart loses ${declared === 'none' ? 'all data' : 'more of the last writes'}`),
      write: database.isActiveActive ? REGIONS_WRITE : DATABASE_WRITE,
      obstacle:
        address.tier === 'essentials' && declared === 'aof-every-write'
          ? 'only Pro has aof-every-write'
          : declared !== 'none' && subscription['supportDataPersistence'] === false
            ? 'the plan of the subscription has no data persistence'
            : undefined,
    },
  ];
}

function replicationRows(entity: RedisCloudEntity, { database }: Target): Row[] {
  const declared = entity.replication;
  if (declared === undefined) return [];
  return [
    {
      setting: 'replication',
      declared,
      actual: database.replication,
      same: declared === database.replication,
      effect: change('sets replication'),
      write: DATABASE_WRITE,
      obstacle: 'it changes the size and the price of the database: set it in the Redis Cloud console',
    },
  ];
}

const PATH_NOTE = 'the credentials in a path are not told, so they are not compared';

/** What changes with the place of the backups; an empty text is none. */
function pathEffect(path: string, actual: string | undefined): Effect {
  const shown = showPath(path);
  if (actual === undefined) return change(`writes backups to ${shown}`);
  return path === ''
    ? weaken(`ends the backups to ${showPath(actual)}; the files there stay`)
    : weaken(`writes backups to ${shown}, not ${showPath(actual)}: the data goes to another place, the files stay`);
}

function pathRow(setting: string, path: string, actual: string | undefined): Omit<Row, 'write'> {
  const same = path === '' ? actual === undefined : actual !== undefined && samePath(path, actual);
  return {
    setting,
    declared: path === '' ? '' : showPath(path),
    actual: actual === undefined ? null : showPath(actual),
    same,
    effect: pathEffect(path, actual),
    ...(path.includes('@') ? { note: PATH_NOTE } : {}),
  };
}

function periodicRows({ database, subscription }: Target, path: string | undefined): Row[] {
  if (path === undefined) return [];
  const row = pathRow('periodic_backup_path', path, database.backup.destination);
  const without = path !== '' && supportsBackups(subscription) === false;
  return [
    {
      ...row,
      write: DATABASE_WRITE,
      ...(without ? { obstacle: 'the plan of the subscription has no backups' } : {}),
    },
  ];
}

const only = <T>(list: readonly T[]): T | undefined => (list.length === 1 ? list[0] : undefined);

/** The backups of a Pro database that its declaration is about: of an Active-Active one, those of one region. */
function remoteOf(
  entity: RedisCloudEntity,
  { isActiveActive, regions, backup }: Database,
): { region?: string; backup?: BackupSettings; problem?: string } {
  if (!isActiveActive) {
    return entity.remote_backup?.region_name === undefined
      ? { backup }
      : { backup, problem: 'remote_backup.region_name is for Active-Active databases only' };
  }
  const wanted = entity.remote_backup?.region_name;
  const enabled = regions.filter((region) => region.backup.enabled);
  if (wanted === undefined && enabled.length === 0 && entity.remote_backup?.active === false) return { backup };
  const found = wanted === undefined ? only(enabled) : regions.find(({ name }) => name === wanted);
  if (found !== undefined) return { region: found.name, backup: found.backup };
  const names = regions.map(({ name }) => name).join(', ');
  return { problem: `Active-Active: declare remote_backup.region_name, one of ${names}` };
}

/** The block as Redis Cloud would have it, what is not declared as it is now; or what is missing. */
function remoteBlock(
  declared: NonNullable<RedisCloudEntity['remote_backup']>,
  actual: BackupSettings,
  path: string | undefined,
): { block: JsonObject } | { problem: string } {
  const active = declared.active ?? actual.enabled;
  if (!active) {
    return declared.active === undefined
      ? { problem: 'remote backup is not active: declare remote_backup.active: true' }
      : { block: { active: false } };
  }
  const kept = actual.destination?.replace(/^\[(.*)\]$/, '$1');
  const storagePath = path ?? kept;
  if (path === undefined && storageTypeOf(kept) !== undefined && /^(ftps?|abs):/i.test(kept ?? '')) {
    return { problem: 'declare remote_backup.storage_path: the path is sent along, and its credentials are not told' };
  }
  const interval = declared.interval ?? actual.interval;
  const storageType = declared.storage_type ?? storageTypeOf(storagePath);
  const missing = Object.entries({ interval, storage_type: storageType, storage_path: storagePath })
    .filter(([, value]) => value === undefined || value === '')
    .map(([name]) => name);
  if (missing.length > 0) return { problem: `Redis Cloud needs ${missing.join(' and ')} of remote_backup too` };
  if (storageTypeOf(storagePath) !== storageType) {
    return { problem: `storage_path is no path of ${storageType}: declare storage_type and storage_path together` };
  }
  const isTimed = TIMED.includes(interval ?? '');
  if (declared.time_utc !== undefined && !isTimed) {
    return { problem: 'Redis Cloud takes time_utc only with an interval of 12 or 24 hours' };
  }
  const timeUTC = isTimed ? (declared.time_utc ?? actual.timeUtc) : undefined;
  return {
    block: { active: true, interval, ...(timeUTC === undefined ? {} : { timeUTC }), storageType, storagePath },
  };
}

const hoursOf = (interval: string | undefined): number =>
  Number(/^every-(\d+)-hours$/.exec(interval ?? '')?.[1] ?? Number.NaN);

function remoteRows(entity: RedisCloudEntity, { database }: Target, path: string | undefined): Row[] {
  const declared = entity.remote_backup;
  if (declared === undefined) return [];
  const { backup, problem } = remoteOf(entity, database);
  const block = backup === undefined ? { problem: problem ?? '' } : remoteBlock(declared, backup, path);
  const obstacle = problem ?? ('problem' in block ? block.problem : undefined);
  const write = database.isActiveActive ? REGIONS_WRITE : DATABASE_WRITE;
  const common = { write, obstacle };
  const now: Partial<BackupSettings> = backup ?? {};
  const unused = declared.active === false ? 'not in use while remote_backup.active is false' : undefined;
  const rows: Row[] = [];
  const { active, interval, time_utc, storage_type } = declared;
  if (active !== undefined) {
    rows.push({
      ...common,
      setting: 'remote_backup.active',
      declared: active,
      actual: now.enabled,
      same: active === now.enabled,
      effect: active
        ? change('writes backups regularly')
        : weaken(`ends the backups${now.interval === undefined ? '' : `, ${now.interval}`}; the files there stay`),
    });
  }
  if (interval !== undefined) {
    const longer = !(hoursOf(interval) <= hoursOf(now.interval)) && now.enabled === true;
    const effect = `writes a backup ${interval}, not ${cleanText(now.interval ?? 'never', 40)}`;
    rows.push({
      ...common,
      obstacle: unused ?? obstacle,
      setting: 'remote_backup.interval',
      declared: interval,
      actual: now.interval === undefined ? null : cleanText(now.interval, 40),
      same: interval === now.interval,
      effect: longer ? weaken(`${effect}: more is lost when it is needed`) : change(effect),
    });
  }
  if (time_utc !== undefined) {
    rows.push({
      ...common,
      obstacle: unused ?? obstacle,
      setting: 'remote_backup.time_utc',
      declared: time_utc,
      actual: now.timeUtc === undefined ? null : cleanText(now.timeUtc, 10),
      same: time_utc === now.timeUtc,
      effect: change(`begins the backups at ${time_utc} UTC, not ${cleanText(now.timeUtc ?? 'any time', 10)}`),
    });
  }
  if (storage_type !== undefined) {
    const actual = storageTypeOf(now.destination);
    rows.push({
      ...common,
      obstacle: unused ?? obstacle,
      setting: 'remote_backup.storage_type',
      declared: storage_type,
      actual: actual ?? null,
      same: storage_type === actual,
      effect:
        actual === undefined
          ? change(`writes backups to ${storage_type}`)
          : weaken(`writes backups to ${storage_type}, not ${actual}`),
    });
  }
  if (path !== undefined) {
    const row = pathRow('remote_backup.storage_path', path, now.destination);
    rows.push({ ...row, ...common, obstacle: unused ?? obstacle });
  }
  return rows;
}

/** A plan that a subscription can be moved to. */
interface Plan {
  readonly id: number;
  readonly name: string;
  readonly price: number;
  readonly priced: string;
}

const SUPPORTS = {
  support_instant_and_daily_backups: 'supportInstantAndDailyBackups',
  support_data_persistence: 'supportDataPersistence',
} as const;
type Support = keyof typeof SUPPORTS;

function sizeMb(plan: Wire): number {
  const size = numberOf(plan['datasetSize']) ?? numberOf(plan['size']);
  return size === undefined
    ? Number.NaN
    : size * (textOf(plan['sizeMeasurementUnit'])?.toUpperCase() === 'GB' ? 1024 : 1);
}

/** Chooses the cheapest plan that has all of the present one and what is declared; undefined where none is known to. */
export function planFor(wanted: readonly Support[], subscription: Wire, offered: readonly Wire[]): Plan | undefined {
  const kept = ['supportInstantAndDailyBackups', 'supportDataPersistence', 'supportReplication', 'supportClustering'];
  const needed = [...kept.filter((name) => subscription[name] === true), ...wanted.map((name) => SUPPORTS[name])];
  const fits = offered.flatMap((plan) => {
    const [id, price] = [numberOf(plan['id']), numberOf(plan['price'])];
    const isAsLarge =
      sizeMb(plan) >= sizeMb(subscription) &&
      (numberOf(plan['maximumDatabases']) ?? 0) >= (numberOf(subscription['maximumDatabases']) ?? 0);
    const isThere = (['provider', 'region'] as const).every(
      (name) => plan[name] !== undefined && plan[name] === subscription[name],
    );
    if (id === undefined || price === undefined || id === subscription['planId'] || !isAsLarge || !isThere) return [];
    if (!needed.every((name) => plan[name] === true)) return [];
    const priced = `${price} ${cleanText(plan['priceCurrency'] ?? '', 5)} a ${cleanText(plan['pricePeriod'] ?? 'period', 20).toLowerCase()}`;
    return [{ id, name: cleanText(plan['name'], 60), price, priced }];
  });
  return fits.sort((a, b) => a.price - b.price || a.id - b.id)[0];
}

/**
 * Holds what an entity declares of its plan against its subscription; `offered` are the plans that it can move to, and
 * nothing can be applied without them.
 */
export function subscriptionFindings(
  entity: RedisCloudEntity,
  subscription: Wire,
  offered?: readonly Wire[],
): SettingFinding[] {
  const names = (Object.keys(SUPPORTS) as Support[]).filter((name) => entity[name] !== undefined);
  const lacking = names.filter((name) => entity[name] === true && subscription[SUPPORTS[name]] === false);
  const plan = lacking.length === 0 ? undefined : planFor(lacking, subscription, offered ?? []);
  const price = numberOf(subscription['price']);
  return names.map((setting): SettingFinding => {
    const declared = entity[setting] as boolean;
    const actual = booleanOf(subscription[SUPPORTS[setting]]);
    const effect = `moves the subscription to plan ${plan?.id} '${plan?.name}' for ${plan?.priced}, not ${price ?? 'an unknown price'}`;
    return findingOf({
      setting,
      declared,
      actual,
      same: declared === actual,
      // What costs more is for a person to decide; nobody tells whether there is a way back to the plan before.
      effect: plan !== undefined && price !== undefined && plan.price <= price ? change(effect) : weaken(effect),
      write: `move-to-plan-${plan?.id}`,
      obstacle: !declared
        ? 'a property of the plan, which has more than is declared: Holdfast moves to no lesser plan'
        : plan === undefined
          ? offered === undefined
            ? 'a property of the plan'
            : 'a property of the plan: no plan that has it, and all of the present one, is known; choose one in the Redis Cloud console'
          : undefined,
    });
  });
}

/** What differs, for get-backup-info; a path that is a secret is not read for it. */
export function driftOf(findings: readonly SettingFinding[]): { drift: JsonObject[]; warnings: string[] } {
  const words = (value: JsonValue | undefined): string =>
    value === undefined ? 'unknown' : value === null ? 'none' : cleanText(value, 120);
  const differing = findings
    .filter(({ verdict }) => verdict !== 'as_declared')
    .map(({ setting, declared, actual, note }) => ({
      drift: { parameter: setting, declared: words(declared), actual: words(actual) },
      warning: `${setting} is declared ${words(declared)} and is ${words(actual)}${note === undefined ? '' : `: ${note}`}.`,
    }));
  return { drift: differing.map(({ drift }) => drift), warnings: differing.map(({ warning }) => warning) };
}

/** Reads the declared backup settings of the entity's subscription or database. */
export async function readSettings(context: Context): Promise<SettingsReading> {
  return context.entity.defines === ESSENTIALS_SUBSCRIPTION ? readPlan(context) : readDatabase(context);
}

async function readPlan(context: Context): Promise<SettingsReading> {
  const { client, entity, signal } = context;
  const { id, subscription } = await readSubscription(context);
  const lacks = subscriptionFindings(entity, subscription).some(
    ({ verdict, declared }) => verdict === 'differs' && declared === true,
  );
  const offered = lacks ? await client.plansFor(id, signal) : [];
  const name = textOf(subscription['name']) ?? '';
  return {
    target: /^[\w.-]+$/.test(name) ? name : String(id),
    identity: {
      tier: 'essentials',
      subscription_id: id,
      name: cleanText(name, 80),
      plan_id: numberOf(subscription['planId']) ?? null,
    },
    findings: subscriptionFindings(entity, subscription, offered),
  };
}

async function readDatabase(context: Context): Promise<SettingsReading> {
  const target = await readTarget(context);
  const { path, problem } = await resolvePath(context, target.address.tier);
  const findings = databaseFindings(context.entity, target, path);
  if (problem !== undefined) {
    const setting = target.address.tier === 'essentials' ? 'periodic_backup_path' : 'remote_backup.storage_path';
    findings.push({ setting, declared: 'a secret that cannot be read', verdict: 'unknown', note: problem });
  }
  return { target: targetName(target), identity: targetFacts(target), findings };
}

/** Reads the declared path, which may be a secret; why it cannot be read is told, not thrown. */
async function resolvePath(
  { entity, runtime }: Pick<Context, 'entity' | 'runtime'>,
  tier: Tier,
): Promise<{ path?: string; problem?: string }> {
  const given = declaredPath(entity, tier);
  if (given === undefined) return {};
  if (typeof given === 'string') return { path: given };
  try {
    return { path: (await runtime.secret(given)).trim() };
  } catch (cause) {
    if (!(cause instanceof HoldfastError)) throw cause;
    return { problem: cause.message };
  }
}

/** Gives these settings their declared values with one request, and follows its task. */
export async function writeSettings(
  context: StepContext<RedisCloudClient, RedisCloudEntity, unknown>,
  write: string,
  findings: readonly SettingFinding[],
): Promise<void> {
  const { client, entity, signal, progress } = context;
  const plan = PLAN_WRITE.exec(write)?.[1];
  if (plan !== undefined) {
    const { id } = await readSubscription(context);
    const task = await client.movePlan(id, Number(plan), signal);
    await unlessSlow(
      client.settle(task.id, { doing: 'the move', limitSeconds: UPDATE_LIMIT_SECONDS, progress }, signal),
    );
    return;
  }
  const target = await readTarget(context);
  const { database, address } = target;
  const has = (name: string): boolean => findings.some(({ setting }) => setting === name);
  const { path } = await resolvePath(context, address.tier);
  const persistence = has('data_persistence') ? entity.data_persistence : undefined;
  const wantsRemote = findings.some(({ setting }) => setting.startsWith('remote_backup.'));
  const { region, backup } = remoteOf(entity, database);
  // A path that is the same is sent with the credentials that its declaration has.
  const sends = has('remote_backup.storage_path') || (path !== undefined && samePath(path, backup?.destination));
  const remote =
    wantsRemote && backup !== undefined
      ? remoteBlock(remotePart(entity, has), backup, sends ? path : undefined)
      : undefined;
  if (remote !== undefined && 'problem' in remote) {
    throw new HoldfastError('INVALID_STATE', `the backup settings cannot be sent: ${remote.problem}`, {
      hint: 'Correct the declaration, or apply the settings of remote_backup together.',
      retryable: false,
      details: { outcome: 'not_sent' },
    });
  }
  const task =
    write === REGIONS_WRITE
      ? await client.updateRegions(
          address,
          {
            ...(persistence === undefined ? {} : { globalDataPersistence: persistence }),
            ...(remote === undefined ? {} : { regions: [{ region: region ?? '', remoteBackup: remote.block }] }),
          },
          signal,
        )
      : await client.updateDatabase(
          address,
          {
            ...(persistence === undefined ? {} : { dataPersistence: persistence }),
            ...(has('periodic_backup_path') ? { periodicBackupPath: path ?? '' } : {}),
            ...(remote === undefined ? {} : { remoteBackup: remote.block }),
          },
          signal,
        );
  await unlessSlow(
    client.settle(task.id, { doing: 'the update', limitSeconds: UPDATE_LIMIT_SECONDS, progress }, signal),
  );
}

/** The part of the block that is to be changed; what is left out stays as it is. */
function remotePart(
  { remote_backup: declared = {} }: RedisCloudEntity,
  has: (setting: string) => boolean,
): NonNullable<RedisCloudEntity['remote_backup']> {
  const { active, interval, time_utc, storage_type } = declared;
  return {
    ...(has('remote_backup.active') ? { active } : {}),
    ...(has('remote_backup.interval') ? { interval } : {}),
    ...(has('remote_backup.time_utc') ? { time_utc } : {}),
    ...(has('remote_backup.storage_type') ? { storage_type } : {}),
  };
}

const SLOW = ['TIMEOUT', 'RATE_LIMITED'];

/** Lets a task that takes long, or that cannot be looked at, go on: whether its settings come into force is looked at next. */
async function unlessSlow(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (cause) {
    // A task's own error names the task; without one, only looking has failed.
    const isTask = cause instanceof HoldfastError && cause.provider?.code !== undefined && !SLOW.includes(cause.code);
    const passes = cause instanceof HoldfastError && !isTask && [...SLOW, 'PROVIDER_UNAVAILABLE'].includes(cause.code);
    if (!passes) throw cause;
  }
}
