import type { BackupPolicyUnion } from '@azure/arm-cosmosdb';
import { HoldfastError } from '../../core/errors.ts';
import type { StepContext } from '../../core/operation.ts';
import type { SettingChange, SettingFinding, SettingsReading } from '../../core/settings.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration } from '../../core/time.ts';
import { known } from '../../core/wire.ts';
import { type Comparison, findingsOf, isStill } from '../findings.ts';
import { follow } from '../follow.ts';
import type { CosmosClient } from './client.ts';
import { type Context, periodicOf, tierOf } from './info.ts';
import { type Account, failedOperation } from './map.ts';
import type { CosmosEntity } from './provider.ts';

type Policy = NonNullable<CosmosEntity['backup_policy']>;
type Part = Omit<Comparison, 'declared' | 'setting'> & { readonly setting: keyof Policy };
type Otherwise = ReturnType<Comparison['otherwise']>;

/** All of a policy travels in one request. */
const WRITE = 'set-backup-policy';
/** What Azure gives an account that names no tier. */
const DEFAULT_TIER = 'Continuous30Days';
const DAYS: Record<string, number> = { Continuous7Days: 7, Continuous30Days: 30 };

/** Reads the backup policy of the entity's account and holds the declared one against it. */
export async function readSettings(context: Context): Promise<SettingsReading> {
  const { client, entity } = context;
  const account = await settledAccount(context);
  return {
    target: `${client.group}/${client.account}`,
    identity: {
      subscription: client.subscription,
      resource_group: client.group,
      account: client.account,
      instance_id: (account.instanceId ?? '').toLowerCase(),
    },
    findings: policyFindings(entity.backup_policy, account),
  };
}

/** How long a change that is under way is waited for before what the account shows is taken, in ms. */
const SETTLES_MS = 30_000;

/** An account that is being updated may show old values or new ones: neither is in force. */
async function settledAccount({ client, runtime, signal }: Context): Promise<Account> {
  const until = runtime.now().getTime() + SETTLES_MS;
  for (let pause = 1000; ; pause = Math.min(pause * 2, 5000)) {
    const account = await client.getAccount(client.account, signal);
    // A move to continuous backup takes hours: its state is part of what is shown.
    const isPassing = account.provisioningState === 'Updating' && !isMoving(account);
    if (!isPassing || runtime.now().getTime() >= until) return account;
    await runtime.sleep(pause, signal);
  }
}

/** Holds a declared backup policy against that of an account. What is left out has no default here. */
export function policyFindings(declared: Policy | undefined, account: Account): SettingFinding[] {
  if (declared === undefined) return [];
  const actual = account.backupPolicy?.type;
  const type = actual === undefined ? undefined : cleanText(actual, 40);
  const comparisons: Part[] = [
    { setting: 'backup_type', actual: type, otherwise: () => typeChange(declared, account) },
    {
      setting: 'continuous_tier',
      actual: type === 'Continuous' ? tierOf(account) : null,
      otherwise: () => tierChange(declared, account),
    },
    ...(type === 'Periodic' ? periodicOfAccount(declared, account) : periodicOfNone()),
  ];
  return findingsOf(
    comparisons.map(({ setting, ...rest }) => ({
      setting: `backup_policy.${setting}`,
      declared: declared[setting],
      ...rest,
    })),
  );
}

function isMoving(account: Account): boolean {
  return account.backupPolicy?.migrationState?.status === 'InProgress';
}

function typeChange({ backup_type, continuous_tier }: Policy, account: Account): Otherwise {
  const type = account.backupPolicy?.type;
  if (type === 'Continuous') {
    return { note: 'continuous backup cannot be changed back to periodic: correct the declaration' };
  }
  if (type !== 'Periodic' || backup_type !== 'Continuous') {
    return { note: 'how this account is backed up is not one of the known ways' };
  }
  const days = DAYS[continuous_tier ?? DEFAULT_TIER];
  return {
    change: {
      risk: 'weaken',
      effect: `moves the account from periodic to continuous backup with a window of ${days} days, which cannot be stopped; moments before the end of the move come back by a support ticket only`,
      irreversible: true,
      write: WRITE,
    },
    ...(isMoving(account)
      ? { note: 'the account is moving to continuous backup; nothing can be changed before that is over' }
      : {}),
  };
}

function tierChange({ backup_type, continuous_tier = DEFAULT_TIER }: Policy, account: Account): Otherwise {
  if (backup_type !== 'Continuous') return { note: 'only continuous backup has it: correct the declaration' };
  const days = DAYS[continuous_tier] as number;
  if (account.backupPolicy?.type !== 'Continuous') {
    const effect = `moves the account to continuous backup with a window of ${days} days`;
    return { change: { risk: 'weaken', effect, irreversible: true, write: WRITE } };
  }
  const before = DAYS[tierOf(account) ?? ''];
  if (before !== undefined && days > before) {
    const effect = `the window grows from ${before} to ${days} days, from now on`;
    return { change: { risk: 'change', effect, write: WRITE } };
  }
  const effect =
    before === undefined
      ? `sets the window to ${days} days; what it was is not known`
      : `the window shrinks from ${before} to ${days} days: older moments cannot be restored any more, at once and for good`;
  return { change: { risk: 'weaken', effect, write: WRITE } };
}

function periodicOfNone(): Part[] {
  const otherwise = (): Otherwise => ({ note: 'only periodic backup has it: correct the declaration' });
  return [
    { setting: 'periodic_interval_minutes', actual: null, otherwise },
    { setting: 'periodic_retention_hours', actual: null, otherwise },
    {
      setting: 'backup_storage_redundancy',
      actual: undefined,
      otherwise: () => ({
        note: 'Azure does not tell it of continuous backup, which stays in the regions of the account',
      }),
    },
  ];
}

function periodicOfAccount(declared: Policy, account: Account): Part[] {
  const { periodic_interval_minutes: minutes, periodic_retention_hours: hours } = declared;
  const actual = periodicOf(account);
  const [interval, retention] = [actual.backupIntervalInMinutes, actual.backupRetentionIntervalInHours];
  const redundancy =
    actual.backupStorageRedundancy === undefined ? undefined : cleanText(actual.backupStorageRedundancy, 20);
  const change = (risk: SettingChange['risk'], effect: string): Otherwise => {
    // A declaration of continuous backup changes nothing in the mode that it leaves.
    if (declared.backup_type !== 'Periodic') return { note: 'continuous backup, which is declared, has none of it' };
    return { change: { risk, effect, write: WRITE } };
  };
  const inTime = (risk: SettingChange['risk'], effect: string): Otherwise =>
    keepsTwo(minutes ?? interval, hours ?? retention)
      ? change(risk, effect)
      : { note: 'Azure keeps at least two intervals: declare interval and retention together' };
  return [
    {
      setting: 'periodic_interval_minutes',
      actual: interval,
      otherwise: () =>
        inTime(
          isAtMost(minutes, interval) ? 'change' : 'weaken',
          `takes a backup every ${span(minutes, 60)}, not every ${span(interval, 60)}`,
        ),
    },
    {
      setting: 'periodic_retention_hours',
      actual: retention,
      otherwise: () => {
        const effect = `keeps backups for ${span(hours, 3600)}, not ${span(retention, 3600)}`;
        return isAtMost(retention, hours)
          ? inTime('change', effect)
          : inTime('weaken', `${effect}; the older ones are deleted`);
      },
    },
    {
      setting: 'backup_storage_redundancy',
      actual: redundancy,
      otherwise: () =>
        change(
          'weaken',
          `stores backups with ${declared.backup_storage_redundancy} redundancy, not ${redundancy ?? 'an unknown one'}: those taken before cannot be restored any more, and new ones take up to two intervals`,
        ),
    },
  ];
}

function span(count: number | undefined, seconds: number): string {
  return count === undefined ? 'an unknown time' : formatDuration(count * seconds);
}

/** Whether both are known and the first is no larger. */
function isAtMost(a: number | undefined, b: number | undefined): boolean {
  return a !== undefined && b !== undefined && a <= b;
}

function keepsTwo(minutes: number | undefined, hours: number | undefined): boolean {
  return minutes === undefined || hours === undefined || hours * 60 >= 2 * minutes;
}

/** How long a change is watched for an early refusal before it is left to itself, in ms. */
const WATCH_MS = 30_000;

/** Gives the account its declared backup policy, in one request. */
export async function writeSettings(
  context: StepContext<CosmosClient, CosmosEntity, unknown>,
  findings: readonly SettingFinding[],
): Promise<void> {
  const { client, entity, signal } = context;
  const account = await client.getAccount(client.account, signal);
  if (isMoving(account)) {
    throw new HoldfastError('INVALID_STATE', 'the account is moving to continuous backup; nothing was changed', {
      hint: 'This takes about 90 minutes per terabyte and region. check-settings shows when it is over.',
      details: { outcome: 'not_sent' },
    });
  }
  if (!isStill(findings, policyFindings(entity.backup_policy, account))) {
    throw new HoldfastError('PLAN_CHANGED', 'the settings changed after the plan was made; nothing was changed', {
      hint: 'Call again: a new plan shows what they are now.',
      details: { outcome: 'not_sent' },
    });
  }
  const { operationUrl } = await client.setBackupPolicy(
    policyOf(entity.backup_policy as Policy, account, findings),
    signal,
  );
  if (operationUrl !== undefined) await watch(context, operationUrl);
}

/** The policy to send: what is declared, and of the same mode whatever else the account has. */
function policyOf(declared: Policy, account: Account, findings: readonly SettingFinding[]): BackupPolicyUnion {
  const wants = (setting: keyof Policy): boolean =>
    findings.some((finding) => finding.setting === `backup_policy.${setting}`);
  if (declared.backup_type === 'Continuous') {
    const tier = declared.continuous_tier ?? DEFAULT_TIER;
    return { type: 'Continuous', continuousModeProperties: { tier } };
  }
  const { periodic_interval_minutes, periodic_retention_hours, backup_storage_redundancy } = declared;
  // Sent whole, as Azure wants it.
  const properties = known({
    ...periodicOf(account),
    ...(wants('periodic_interval_minutes') ? { backupIntervalInMinutes: periodic_interval_minutes } : {}),
    ...(wants('periodic_retention_hours') ? { backupRetentionIntervalInHours: periodic_retention_hours } : {}),
    ...(wants('backup_storage_redundancy') ? { backupStorageRedundancy: backup_storage_redundancy } : {}),
  });
  if (!keepsTwo(properties.backupIntervalInMinutes, properties.backupRetentionIntervalInHours)) {
    throw new HoldfastError(
      'INVALID_PARAMETER',
      'the retention would be less than two intervals; nothing was changed',
      {
        hint: 'Apply periodic_interval_minutes and periodic_retention_hours in one call.',
        details: { outcome: 'not_sent' },
      },
    );
  }
  return { type: 'Periodic', periodicModeProperties: properties };
}

// What Azure refuses a little later it says of the operation alone; what takes longer is seen by the settings themselves.
async function watch({ client, runtime, signal }: Context, url: string): Promise<void> {
  const until = runtime.now().getTime() + WATCH_MS;
  const look = async () => {
    const state = await client.operation(url, signal);
    if (state.status === 'failed' || state.status === 'cancelled') return state;
    return state.status === 'succeeded' || runtime.now().getTime() > until ? ('over' as const) : undefined;
  };
  const options = { what: 'the change', at: 'Azure', deadline_ms: 2 * WATCH_MS, first_ms: 1000, longest_ms: 10_000 };
  // The request was taken: whatever keeps us from looking is no failure of it.
  const end = await follow({ runtime, signal }, options, look).catch(() => 'over' as const);
  if (end !== 'over') throw failedOperation(end, 'the change', 'Look at check-settings, then apply again.');
}
