import type { TableDescription } from '@aws-sdk/client-dynamodb';
import type { ProviderContext } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { JsonValue } from '../../core/json.ts';
import type { StepContext } from '../../core/operation.ts';
import type { SettingChange, SettingFinding, SettingsReading } from '../../core/settings.ts';
import { cleanText } from '../../core/text.ts';
import { parseArn } from '../aws.ts';
import { type Comparison, findingsOf, isStill } from '../findings.ts';
import type { DynamoDbClient } from './client.ts';
import { instant, type Recovery, recoveryFrom } from './map.ts';
import type { DynamoDbEntity } from './provider.ts';

const RECOVERY = 'point_in_time_recovery_enabled';
const PERIOD = 'recovery_period_in_days';
const PROTECTION = 'deletion_protection_enabled';
/** What DynamoDB takes where a request that switches recovery on names no period. */
const DEFAULT_DAYS = 35;

/** The requests, one for each part of the API. */
const CONTINUOUS_BACKUPS = 'update-continuous-backups';
const TABLE = 'update-table';
const TAGS = 'tag-resource';

/** A table as its settings are compared. */
export interface Actual {
  readonly table: Pick<TableDescription, 'DeletionProtectionEnabled'>;
  readonly recovery: Pick<Recovery, 'enabled' | 'days'>;
  /** Undefined where they were not asked for. */
  readonly tags: Readonly<Record<string, string>> | undefined;
}

const days = (count: number): string => `${count} day${count === 1 ? '' : 's'}`;

function recoveryChange(
  declared: boolean,
  entity: DynamoDbEntity,
  { days: before }: Actual['recovery'],
): SettingChange {
  if (declared) {
    const period = entity.recovery_period_in_days ?? DEFAULT_DAYS;
    return {
      risk: 'change',
      effect: `every second from now on can be restored, for ${days(period)}`,
      write: CONTINUOUS_BACKUPS,
    };
  }
  const window = before === undefined ? 'the whole window' : `the window of ${days(before)}`;
  return {
    risk: 'weaken',
    effect: `discards ${window} at once; switched on again it begins anew`,
    write: CONTINUOUS_BACKUPS,
  };
}

function periodChange(declared: number, { days: before }: Actual['recovery']): SettingChange {
  if (before === undefined) {
    return { risk: 'change', effect: `keeps every second for ${days(declared)}`, write: CONTINUOUS_BACKUPS };
  }
  return declared < before
    ? {
        risk: 'weaken',
        effect: `keeps every second for ${days(declared)}, not ${before}; the older ones are gone for good`,
        write: CONTINUOUS_BACKUPS,
      }
    : {
        risk: 'change',
        effect: `keeps every second for ${days(declared)}, not ${before}, counted from now`,
        write: CONTINUOUS_BACKUPS,
      };
}

/** Holds what an entity declares of its backups against its table. */
export function settingsFindings(entity: DynamoDbEntity, { table, recovery, tags }: Actual): SettingFinding[] {
  const on = entity.point_in_time_recovery_enabled;
  const period = entity.recovery_period_in_days;
  const comparisons: Comparison[] = [
    {
      setting: RECOVERY,
      declared: on,
      actual: recovery.enabled,
      otherwise: () => ({ change: recoveryChange(on === true, entity, recovery) }),
    },
    {
      setting: PERIOD,
      // Without recovery there is no period: a file that wants it off has nothing to say of one.
      declared: on === false ? undefined : period,
      actual: recovery.enabled ? recovery.days : null,
      otherwise: () => {
        if (period === undefined) return {};
        if (recovery.enabled || on === true) return { change: periodChange(period, recovery) };
        return { note: `point-in-time recovery is off: declare ${RECOVERY}: true` };
      },
    },
    {
      setting: PROTECTION,
      declared: entity.deletion_protection_enabled,
      actual: table.DeletionProtectionEnabled === true,
      otherwise: () => ({
        change:
          entity.deletion_protection_enabled === true
            ? { risk: 'change', effect: 'refuses the deletion of the table', write: TABLE }
            : { risk: 'weaken', effect: 'lets the table be deleted', write: TABLE },
      }),
    },
    ...Object.entries(entity.tags ?? {}).map(([key, declared]): Comparison => {
      const actual = tags?.[key];
      const replaces = 'plans of AWS Backup and policies that go by it may take the table in or pass it over';
      return {
        setting: tagSetting(key),
        declared,
        actual: actual === undefined ? null : actual === declared ? declared : cleanText(actual, 256),
        otherwise: () => ({
          // Who goes by the value that is there is not known.
          change: {
            risk: actual === undefined ? 'change' : 'weaken',
            effect: `${actual === undefined ? 'sets' : 'replaces'} the tag; ${replaces}`,
            write: TAGS,
          },
        }),
      };
    }),
  ];
  return findingsOf(comparisons);
}

const tagSetting = (key: string): string => `tags.${key}`;

/** Reads the declared backup settings of the table. */
export async function readSettings(
  context: Pick<ProviderContext<DynamoDbClient, DynamoDbEntity>, 'client' | 'entity' | 'signal'>,
): Promise<SettingsReading> {
  const { client, entity, signal } = context;
  const [table, backups] = await Promise.all([
    client.describeTable(client.table, signal),
    client.continuousBackups(client.table, signal),
  ]);
  const arn = String(table.TableArn);
  const tags = entity.tags === undefined ? undefined : await client.tags(arn, signal);
  return {
    target: `${client.region}/${client.table}`,
    identity: {
      account: parseArn(arn)?.account ?? '',
      region: client.region,
      table: client.table,
      table_id: cleanText(table.TableId, 60),
      created_at: instant(table.CreationDateTime) ?? null,
    },
    findings: settingsFindings(entity, { table, recovery: recoveryFrom(backups), tags }),
  };
}

/**
 * Gives these settings their declared values with one request.
 * @throws {HoldfastError} PLAN_CHANGED where they changed just now; INVALID_PARAMETER for a period without recovery
 */
export async function writeSettings(
  context: StepContext<DynamoDbClient, DynamoDbEntity, unknown>,
  write: string,
  findings: readonly SettingFinding[],
): Promise<void> {
  const { client, entity, signal } = context;
  if (!isStill(findings, (await readSettings(context)).findings)) {
    throw new HoldfastError('PLAN_CHANGED', 'the table was changed after the plan was made; nothing was changed', {
      hint: 'Call again: a new plan shows what it is now.',
      details: { outcome: 'not_sent' },
    });
  }
  const wanted = new Map(findings.map(({ setting, declared }) => [setting, declared]));
  switch (write) {
    case TABLE:
      return client.setDeletionProtection(client.table, wanted.get(PROTECTION) === true, signal);
    case TAGS: {
      const tags = Object.entries(entity.tags ?? {}).filter(([key]) => wanted.has(tagSetting(key)));
      const { TableArn: arn } = await client.describeTable(client.table, signal);
      return client.setTags(String(arn), Object.fromEntries(tags), signal);
    }
    default:
      return client.setPointInTimeRecovery(client.table, periodOf(entity, wanted, findings), signal);
  }
}

/** Days of point-in-time recovery that the request has to name; 'off' to switch it off. */
function periodOf(
  entity: DynamoDbEntity,
  wanted: ReadonlyMap<string, JsonValue>,
  findings: readonly SettingFinding[],
): number | 'off' {
  if (wanted.get(RECOVERY) === false) return 'off';
  if (wanted.get(RECOVERY) === true) return entity.recovery_period_in_days ?? DEFAULT_DAYS;
  if (findings.some(({ setting, actual }) => setting === PERIOD && actual === null)) {
    throw new HoldfastError('INVALID_PARAMETER', 'a table without point-in-time recovery has no recovery period', {
      hint: `Apply ${RECOVERY} with it, or leave settings out.`,
      details: { outcome: 'not_sent' },
    });
  }
  return Number(wanted.get(PERIOD));
}
