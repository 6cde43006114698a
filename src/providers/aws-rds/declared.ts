import type { ProviderContext } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { JsonValue } from '../../core/json.ts';
import type { StepContext } from '../../core/operation.ts';
import type { SettingChange, SettingFinding, SettingsReading } from '../../core/settings.ts';
import { cleanText } from '../../core/text.ts';
import { type Comparison, driftOf, findingsOf, isStill } from '../findings.ts';
import type { BackupSettings, RdsClient } from './client.ts';
import type { Database } from './map.ts';
import type { RdsEntity } from './provider.ts';

const RETENTION = 'backup_retention_period';

/** What is declared of a parameter and what there is, both known. */
interface Difference {
  readonly setting: string;
  readonly declared: JsonValue;
  readonly actual: JsonValue;
}

/** The backup settings of a database as the entities file writes them; undefined for what RDS does not tell. */
export function actualSettings({ instance, cluster }: Database) {
  const raw = instance ?? cluster ?? {};
  const text = (value: string | undefined): string | null => (value === undefined ? null : cleanText(value, 60));
  return {
    [RETENTION]: raw.BackupRetentionPeriod,
    preferred_backup_window: text(raw.PreferredBackupWindow),
    preferred_maintenance_window: text(raw.PreferredMaintenanceWindow),
    storage_encrypted: raw.StorageEncryptionType === 'sse-rds' ? true : raw.StorageEncrypted,
    deletion_protection: raw.DeletionProtection,
    copy_tags_to_snapshot: raw.CopyTagsToSnapshot,
  };
}

/** Holds what an entity declares of its backups against its database. */
export function settingsFindings(entity: RdsEntity, database: Database): SettingFinding[] {
  const comparisons = Object.entries(actualSettings(database)).map(([setting, told]): Comparison => {
    const declared = entity[setting as keyof RdsEntity] as JsonValue | undefined;
    // RDS writes the days of a window in lower case, people as they like.
    const isSame = typeof told === 'string' && String(declared).toLowerCase() === told.toLowerCase();
    const actual = isSame ? declared : told;
    return {
      setting,
      declared,
      actual,
      otherwise: () =>
        actual === undefined || declared === undefined
          ? { note: 'RDS does not tell' }
          : otherwise({ setting, declared, actual }, database),
    };
  });
  return findingsOf(comparisons);
}

/** What RDS has taken and not yet applied. */
function pendingRetention({ instance, cluster }: Database): number | undefined {
  return (instance ?? cluster)?.PendingModifiedValues?.BackupRetentionPeriod;
}

/** Says what is not as declared; a change that is on its way is no drift. */
export function settingsDrift(entity: RdsEntity, database: Database): string[] {
  const pending = pendingRetention(database);
  const comes = ({ setting, declared }: SettingFinding): boolean => setting === RETENTION && declared === pending;
  const findings = settingsFindings(entity, database);
  return [
    ...findings
      .filter((finding) => finding.verdict === 'differs' && comes(finding))
      .map(({ setting, declared, actual }) => `Declared ${setting} ${declared} is pending at RDS; actual ${actual}.`),
    ...driftOf(findings.filter((finding) => !comes(finding))),
  ];
}

/**
 * Names what waits for the maintenance window besides the retention: a change that is applied at once takes it along.
 * A parameter group that waits for a restart is not among it.
 */
function othersPending({ instance, cluster }: Database): string[] {
  const pending = instance?.PendingModifiedValues ?? cluster?.PendingModifiedValues ?? {};
  return Object.entries(pending)
    .filter(([name, value]) => name !== 'BackupRetentionPeriod' && value !== undefined && !isEmpty(value))
    .map(([name]) => name);
}

function isEmpty(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0;
}

/** Whether automated backups are switched on or off: only that waits for the maintenance window by itself. */
function isSwitch(from: JsonValue, to: JsonValue): boolean {
  return (from === 0) !== (to === 0);
}

const days = (count: number): string => `${count} day${count === 1 ? '' : 's'}`;

function retentionChange(from: number, to: number): Omit<SettingChange, 'write'> {
  if (to === 0) {
    return {
      risk: 'weaken',
      effect: `switches automated backups off: all of them, ${days(from)}, and point-in-time recovery are deleted at once, with a short outage`,
    };
  }
  if (from === 0) {
    return {
      risk: 'change',
      effect: `takes automated backups and keeps them for ${days(to)}, where there are none; a short outage`,
    };
  }
  return to < from
    ? {
        risk: 'weaken',
        effect: `keeps automated backups and moments for ${days(to)}, not ${from}; the older ones are deleted`,
      }
    : {
        risk: 'change',
        effect: `keeps automated backups and moments for ${days(to)}, not ${from}, counted from now`,
      };
}

function changeOf({ setting, declared, actual }: Difference): Omit<SettingChange, 'write'> | undefined {
  switch (setting) {
    case RETENTION:
      return retentionChange(Number(actual), Number(declared));
    case 'preferred_backup_window':
      return { risk: 'change', effect: `takes the daily backup at ${declared} UTC, not ${actual ?? 'unset'}` };
    case 'preferred_maintenance_window':
      return {
        risk: 'change',
        effect: `maintenance at ${declared} UTC, not ${actual ?? 'unset'}; where that is now, what waits for it begins`,
      };
    case 'deletion_protection':
      return declared === true
        ? { risk: 'change', effect: 'refuses the deletion of the database' }
        : { risk: 'weaken', effect: 'lets the database be deleted, its automated backups with it' };
    case 'copy_tags_to_snapshot':
      return declared === true
        ? { risk: 'change', effect: 'new snapshots get the tags of the database' }
        : {
            risk: 'weaken',
            effect: 'new snapshots come without the tags of the database, and policies that go by tags pass them over',
          };
    default:
      return undefined;
  }
}

const AWS_BACKUP = 'AWS Backup manages the backups of this database: change its backup plan';

function obstacle({ setting, declared, actual }: Difference, database: Database): string | undefined {
  if (setting === 'storage_encrypted') {
    return declared === true
      ? 'set when a database is made: copy a snapshot with kms_key_id and restore the copy'
      : 'encryption cannot be taken away';
  }
  const raw = database.instance ?? database.cluster;
  if (raw?.AwsBackupRecoveryPointArn && [RETENTION, 'preferred_backup_window'].includes(setting)) return AWS_BACKUP;
  if (setting !== RETENTION || database.kind === 'cluster' || !isSwitch(actual, declared)) return undefined;
  const others = othersPending(database);
  return others.length === 0
    ? undefined
    : `applied at once it would apply what else is pending too, ${others.join(', ')}: see to that first`;
}

function otherwise(difference: Difference, database: Database): Pick<SettingFinding, 'change' | 'note'> {
  const stuck = obstacle(difference, database);
  if (stuck !== undefined) return { note: stuck };
  const change = changeOf(difference);
  const pending = difference.setting === RETENTION ? pendingRetention(database) : undefined;
  return {
    ...(pending === undefined ? {} : { note: `a change to ${pending} is pending at RDS` }),
    ...(change === undefined ? {} : { change: { ...change, write: `modify-db-${database.kind}` } }),
  };
}

/** Reads the declared backup settings of the entity's database. */
export async function readSettings({
  client,
  entity,
  signal,
}: ProviderContext<RdsClient, RdsEntity>): Promise<SettingsReading> {
  const database = await client.own(signal);
  return {
    target: database.id,
    identity: {
      account: database.account,
      region: client.region,
      [database.kind]: database.id,
      resource_id: database.resourceId,
    },
    findings: settingsFindings(entity, database),
  };
}

const MEMBERS: Readonly<Record<string, keyof BackupSettings>> = {
  [RETENTION]: 'BackupRetentionPeriod',
  preferred_backup_window: 'PreferredBackupWindow',
  preferred_maintenance_window: 'PreferredMaintenanceWindow',
  deletion_protection: 'DeletionProtection',
  copy_tags_to_snapshot: 'CopyTagsToSnapshot',
};

/**
 * Gives these settings their declared values with one request.
 * @throws {HoldfastError} PLAN_CHANGED where they changed just now, or something else came to wait that would go with them
 */
export async function writeSettings(
  { client, entity, signal }: StepContext<RdsClient, RdsEntity, unknown>,
  _write: string,
  findings: readonly SettingFinding[],
): Promise<void> {
  const database = await client.own(signal);
  const now = settingsFindings(entity, database);
  const possible = findings.every(({ setting }) => now.some((one) => one.setting === setting && one.change));
  if (!possible || !isStill(findings, now)) {
    throw new HoldfastError('PLAN_CHANGED', 'the database was changed after the plan was made; nothing was changed', {
      hint: 'Call again: a new plan shows what it is now.',
      details: { outcome: 'not_sent' },
    });
  }
  const change = Object.fromEntries(
    findings.map(({ setting, declared }) => [MEMBERS[setting], declared]),
  ) as BackupSettings;
  // Backup settings that wait for the maintenance window protect nothing until then; whatever else waits stays waiting.
  const alone = othersPending(database).length === 0;
  await client.modify({ ...change, ...(alone ? { ApplyImmediately: true } : {}) }, signal);
}
