import type {
  BackupDescription,
  BackupDetails,
  BackupSummary,
  ContinuousBackupsDescription,
  DynamoDBClientConfig,
  StreamViewType,
  TableDescription,
  TimeToLiveDescription,
  UpdateTableCommandInput,
} from '@aws-sdk/client-dynamodb';
import { HoldfastError } from '../../core/errors.ts';
import { isObject } from '../../core/json.ts';
import { type AwsClientConfig, type AwsClientOptions, parseArn } from '../aws.ts';
import { type Addressed, checkBackupArn, checkName, TITLE, toDynamoDbError } from './map.ts';

export interface BackupPage {
  readonly items: BackupSummary[];
  readonly next: string | undefined;
}

export type Moment = Date | 'latest';

/** Typed calls of DynamoDB for one table. Every name that comes from a caller is checked before it is sent. */
export interface DynamoDbClient {
  /** The table that the entity is. */
  readonly table: string;
  readonly region: string;
  describeTable(table: string, signal: AbortSignal): Promise<TableDescription>;
  /** The same, and undefined for a table that does not exist. */
  lookUp(table: string, signal: AbortSignal): Promise<TableDescription | undefined>;
  continuousBackups(table: string, signal: AbortSignal): Promise<ContinuousBackupsDescription>;
  /** One page in the service's own order, which is none; it may be empty and have a next one. */
  listBackups(page: { from?: Date | undefined; after?: string | undefined }, signal: AbortSignal): Promise<BackupPage>;
  describeBackup(arn: string, signal: AbortSignal): Promise<BackupDescription>;
  createBackup(name: string, signal: AbortSignal): Promise<BackupDetails>;
  deleteBackup(arn: string, signal: AbortSignal): Promise<void>;
  restoreBackup(arn: string, target: string, signal: AbortSignal): Promise<TableDescription>;
  restoreMoment(moment: Moment, target: string, signal: AbortSignal): Promise<TableDescription>;
  timeToLive(table: string, signal: AbortSignal): Promise<TimeToLiveDescription>;
  tags(tableArn: string, signal: AbortSignal): Promise<Record<string, string>>;
  hasPolicy(tableArn: string, signal: AbortSignal): Promise<boolean>;
  kinesisStreams(table: string, signal: AbortSignal): Promise<string[]>;
  hasInsights(table: string, signal: AbortSignal): Promise<boolean>;
  /** Switches it on, or keeps it on, for so many days; or off, which discards its window. */
  setPointInTimeRecovery(table: string, days: number | 'off', signal: AbortSignal): Promise<void>;
  setDeletionProtection(table: string, on: boolean, signal: AbortSignal): Promise<void>;
  setStream(table: string, view: string, signal: AbortSignal): Promise<void>;
  setTimeToLive(table: string, attribute: string, signal: AbortSignal): Promise<void>;
  setTags(tableArn: string, tags: Readonly<Record<string, string>>, signal: AbortSignal): Promise<void>;
  /** One page of the names of the tables in the region. */
  listTables(after: string | undefined, signal: AbortSignal): Promise<{ names: string[]; next: string | undefined }>;
  close(): void;
}

/** What an answer of each operation holds: a page of a proxy must not pass for an empty answer. */
const ANSWERS: Readonly<Record<string, string | undefined>> = {
  DescribeTable: 'Table',
  DescribeContinuousBackups: 'ContinuousBackupsDescription',
  ListBackups: 'BackupSummaries',
  ListTables: 'TableNames',
  DescribeBackup: 'BackupDescription',
  CreateBackup: 'BackupDetails',
  DeleteBackup: 'BackupDescription',
  RestoreTableFromBackup: 'TableDescription',
  RestoreTableToPointInTime: 'TableDescription',
  DescribeTimeToLive: 'TimeToLiveDescription',
  ListTagsOfResource: 'Tags',
  GetResourcePolicy: 'Policy',
  DescribeKinesisStreamingDestination: 'KinesisDataStreamDestinations',
  DescribeContributorInsights: 'ContributorInsightsStatus',
  UpdateContinuousBackups: 'ContinuousBackupsDescription',
  UpdateTable: 'TableDescription',
  UpdateTimeToLive: 'TimeToLiveSpecification',
};

function isAnswer(operation: string, text: string): boolean {
  // TagResource answers with nothing.
  if (operation === 'TagResource') return text === '' || text === '{}';
  try {
    const body: unknown = JSON.parse(text);
    const member = ANSWERS[operation];
    return isObject(body) && (member === undefined || body[member] !== undefined);
  } catch {
    return false;
  }
}

/** How the transport tells DynamoDB's reads and answers. */
export const DYNAMODB_CALLS: AwsClientOptions = {
  title: TITLE,
  isRead: (operation) => /^(Describe|List|Get)/.test(operation),
  isAnswer,
};

interface Options {
  readonly region: string;
  readonly table: string;
  readonly config: AwsClientConfig;
}

/** Loads the SDK and makes the typed calls; sends nothing. */
export async function createDynamoDbClient({ region, table: own, config }: Options): Promise<DynamoDbClient> {
  const sdk = await import('@aws-sdk/client-dynamodb');
  const client = new sdk.DynamoDBClient({
    ...config,
    requestHandler: config.requestHandler as DynamoDBClientConfig['requestHandler'],
    // An endpoint made of the account's id would go round one that is configured.
    accountIdEndpointMode: 'disabled',
    endpointDiscoveryEnabled: false,
  } as DynamoDBClientConfig);

  const attempt = async <T>(addressed: Addressed, send: () => Promise<T>): Promise<T> => {
    try {
      return await send();
    } catch (cause) {
      throw toDynamoDbError(cause, addressed);
    }
  };
  /** The service's models leave every member optional; without this one there is nothing to go on with. */
  const present = <T>(value: T | undefined, write: boolean): T => {
    if (value !== undefined) return value;
    throw new HoldfastError('PROVIDER_UNAVAILABLE', `${TITLE} gave an incomplete answer`, {
      ...(write ? { details: { outcome: 'unknown' } } : {}),
    });
  };
  const tableOf = (name: string, parameter = 'table_name'): string => checkName(name, parameter);
  const backupOf = (arn: string): string => checkBackupArn(arn, { table: own, region });
  const resourceOf = (arn: string): string => {
    const parsed = parseArn(arn);
    if (parsed?.service === 'dynamodb' && /^table\/[a-zA-Z0-9_.-]{3,255}$/.test(parsed.resource)) return arn;
    throw new HoldfastError('INVALID_PARAMETER', 'this is not the ARN of a DynamoDB table');
  };

  const describeTable: DynamoDbClient['describeTable'] = (name, signal) =>
    attempt({ operation: 'DescribeTable', about: `the table ${name}` }, async () => {
      const command = new sdk.DescribeTableCommand({ TableName: tableOf(name) });
      return present((await client.send(command, { abortSignal: signal })).Table, false);
    });

  const updateTable = (
    name: string,
    change: Pick<UpdateTableCommandInput, 'DeletionProtectionEnabled' | 'StreamSpecification'>,
    signal: AbortSignal,
  ): Promise<void> =>
    attempt({ operation: 'UpdateTable', write: true, about: `the table ${name}` }, async () => {
      const command = new sdk.UpdateTableCommand({ TableName: tableOf(name), ...change });
      await client.send(command, { abortSignal: signal });
    });

  return {
    table: own,
    region,
    describeTable,

    async lookUp(name, signal) {
      try {
        return await describeTable(name, signal);
      } catch (cause) {
        if (cause instanceof HoldfastError && cause.provider?.code === 'ResourceNotFoundException') return undefined;
        throw cause;
      }
    },

    continuousBackups: (name, signal) =>
      attempt({ operation: 'DescribeContinuousBackups', about: `the table ${name}` }, async () => {
        const command = new sdk.DescribeContinuousBackupsCommand({ TableName: tableOf(name) });
        return present((await client.send(command, { abortSignal: signal })).ContinuousBackupsDescription, false);
      }),

    listBackups: ({ from, after }, signal) =>
      attempt({ operation: 'ListBackups' }, async () => {
        const command = new sdk.ListBackupsCommand({
          TableName: tableOf(own),
          BackupType: 'ALL',
          Limit: 100,
          ...(from === undefined ? {} : { TimeRangeLowerBound: from }),
          ...(after === undefined ? {} : { ExclusiveStartBackupArn: after }),
        });
        const page = await client.send(command, { abortSignal: signal });
        return { items: page.BackupSummaries ?? [], next: page.LastEvaluatedBackupArn || undefined };
      }),

    describeBackup: (arn, signal) =>
      attempt({ operation: 'DescribeBackup', about: 'the backup' }, async () => {
        const command = new sdk.DescribeBackupCommand({ BackupArn: backupOf(arn) });
        return present((await client.send(command, { abortSignal: signal })).BackupDescription, false);
      }),

    createBackup: (name, signal) =>
      attempt({ operation: 'CreateBackup', write: true, about: `the table ${own}` }, async () => {
        const command = new sdk.CreateBackupCommand({
          TableName: tableOf(own),
          BackupName: checkName(name, 'backup_name'),
        });
        return present((await client.send(command, { abortSignal: signal })).BackupDetails, true);
      }),

    deleteBackup: (arn, signal) =>
      attempt({ operation: 'DeleteBackup', write: true, about: 'the backup' }, async () => {
        await client.send(new sdk.DeleteBackupCommand({ BackupArn: backupOf(arn) }), { abortSignal: signal });
      }),

    restoreBackup: (arn, target, signal) =>
      attempt({ operation: 'RestoreTableFromBackup', write: true, about: `the table ${target}` }, async () => {
        const command = new sdk.RestoreTableFromBackupCommand({
          BackupArn: backupOf(arn),
          TargetTableName: tableOf(target, 'target_table'),
        });
        return present((await client.send(command, { abortSignal: signal })).TableDescription, true);
      }),

    restoreMoment: (moment, target, signal) =>
      attempt({ operation: 'RestoreTableToPointInTime', write: true, about: `the table ${target}` }, async () => {
        const command = new sdk.RestoreTableToPointInTimeCommand({
          SourceTableName: tableOf(own),
          TargetTableName: tableOf(target, 'target_table'),
          ...(moment === 'latest' ? { UseLatestRestorableTime: true } : { RestoreDateTime: moment }),
        });
        return present((await client.send(command, { abortSignal: signal })).TableDescription, true);
      }),

    timeToLive: (name, signal) =>
      attempt({ operation: 'DescribeTimeToLive', about: `the table ${name}` }, async () => {
        const command = new sdk.DescribeTimeToLiveCommand({ TableName: tableOf(name) });
        return present((await client.send(command, { abortSignal: signal })).TimeToLiveDescription, false);
      }),

    tags: (arn, signal) =>
      attempt({ operation: 'ListTagsOfResource', about: 'the table' }, async () => {
        const tags: Record<string, string> = {};
        let token: string | undefined;
        // A table has 50 tags at most, ten on a page.
        for (let page = 0; page < 20; page += 1) {
          const command = new sdk.ListTagsOfResourceCommand({
            ResourceArn: resourceOf(arn),
            ...(token === undefined ? {} : { NextToken: token }),
          });
          const found = await client.send(command, { abortSignal: signal });
          for (const { Key, Value } of found.Tags ?? []) if (Key !== undefined) tags[Key] = Value ?? '';
          token = found.NextToken || undefined;
          if (token === undefined) break;
        }
        return tags;
      }),

    hasPolicy: async (arn, signal) => {
      try {
        return await attempt({ operation: 'GetResourcePolicy', about: 'the table' }, async () => {
          const command = new sdk.GetResourcePolicyCommand({ ResourceArn: resourceOf(arn) });
          return (await client.send(command, { abortSignal: signal })).Policy !== undefined;
        });
      } catch (cause) {
        if (cause instanceof HoldfastError && cause.provider?.code === 'PolicyNotFoundException') return false;
        throw cause;
      }
    },

    kinesisStreams: (name, signal) =>
      attempt({ operation: 'DescribeKinesisStreamingDestination', about: `the table ${name}` }, async () => {
        const command = new sdk.DescribeKinesisStreamingDestinationCommand({ TableName: tableOf(name) });
        const { KinesisDataStreamDestinations: all = [] } = await client.send(command, { abortSignal: signal });
        return all
          .filter(({ DestinationStatus }) => DestinationStatus !== 'DISABLED')
          .flatMap(({ StreamArn }) => StreamArn ?? []);
      }),

    hasInsights: (name, signal) =>
      attempt({ operation: 'DescribeContributorInsights', about: `the table ${name}` }, async () => {
        const command = new sdk.DescribeContributorInsightsCommand({ TableName: tableOf(name) });
        const { ContributorInsightsStatus: status } = await client.send(command, { abortSignal: signal });
        return status === 'ENABLED' || status === 'ENABLING';
      }),

    setPointInTimeRecovery: (name, days, signal) =>
      attempt({ operation: 'UpdateContinuousBackups', write: true, about: `the table ${name}` }, async () => {
        const command = new sdk.UpdateContinuousBackupsCommand({
          TableName: tableOf(name),
          // Without the days DynamoDB puts the period back to 35.
          PointInTimeRecoverySpecification:
            days === 'off'
              ? { PointInTimeRecoveryEnabled: false }
              : { PointInTimeRecoveryEnabled: true, RecoveryPeriodInDays: days },
        });
        await client.send(command, { abortSignal: signal });
      }),

    setDeletionProtection: (name, on, signal) => updateTable(name, { DeletionProtectionEnabled: on }, signal),

    setStream: (name, view, signal) =>
      updateTable(
        name,
        { StreamSpecification: { StreamEnabled: true, StreamViewType: view as StreamViewType } },
        signal,
      ),

    setTimeToLive: (name, attribute, signal) =>
      attempt({ operation: 'UpdateTimeToLive', write: true, about: `the table ${name}` }, async () => {
        const command = new sdk.UpdateTimeToLiveCommand({
          TableName: tableOf(name),
          TimeToLiveSpecification: { Enabled: true, AttributeName: attribute },
        });
        await client.send(command, { abortSignal: signal });
      }),

    setTags: (arn, tags, signal) =>
      attempt({ operation: 'TagResource', write: true, about: 'the table' }, async () => {
        const command = new sdk.TagResourceCommand({
          ResourceArn: resourceOf(arn),
          Tags: Object.entries(tags).map(([Key, Value]) => ({ Key, Value })),
        });
        await client.send(command, { abortSignal: signal });
      }),

    listTables: (after, signal) =>
      attempt({ operation: 'ListTables' }, async () => {
        const command = new sdk.ListTablesCommand({
          Limit: 100,
          ...(after === undefined ? {} : { ExclusiveStartTableName: after }),
        });
        const page = await client.send(command, { abortSignal: signal });
        return { names: page.TableNames ?? [], next: page.LastEvaluatedTableName || undefined };
      }),

    close: () => client.destroy(),
  };
}
