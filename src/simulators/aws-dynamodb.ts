import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { isObject, type JsonObject, type JsonValue } from '../core/json.ts';
import type { Simulator, SimulatorOptions, SimulatorRequest, SimulatorResponse } from './simulator.ts';

/** Items by key: enough to see what a restore brought back. */
export type DynamoDbContent = Record<string, string>;

export interface SimulatedTable {
  name: string;
  id: string;
  createdAt: number;
  /** Set by a test; otherwise the clock says it. */
  status?: string;
  updatingUntil: number;
  /** `missing` and `empty` are what the service gives for tables that never left provisioned capacity. */
  billing: 'PAY_PER_REQUEST' | 'PROVISIONED' | 'missing' | 'empty';
  deletionProtection: boolean;
  pitr: { enabled: boolean; days: number; since: number };
  stream?: string;
  ttl?: { attribute: string; since: number };
  tags: Map<string, string>;
  policy?: string;
  kinesis: string[];
  insights: boolean;
  indexes: string[];
  replicas: string[];
  kmsKey?: string;
  bytes: number;
  restore?: { backup?: string; source: string; at: number; endsAt: number; vanishes: boolean };
  /** What was in it since when, oldest first; the last one is now. */
  history: { at: number; content: DynamoDbContent }[];
}

export interface SimulatedBackup {
  id: string;
  name: string;
  type: string;
  createdAt: number;
  availableAt: number;
  expiresAt?: number;
  bytes: number;
  content: DynamoDbContent;
  source: Omit<SimulatedTable, 'history' | 'restore'>;
}

/** What a test may look at and set. */
export interface DynamoDbState {
  readonly tables: Map<string, SimulatedTable>;
  readonly backups: SimulatedBackup[];
  /** Operations that the caller may not use, `DescribeTable`. */
  readonly denied: Set<string>;
  /** Whether all credentials are refused. */
  unauthenticated: boolean;
  /** Errors that the next calls of an operation end with, one each. */
  readonly failNext: { operation: string; type: string; message?: string }[];
  /** How many of the next restores end with the table gone. */
  vanishNext: number;
  /** Backups on one page of a list at most; smaller than asked for is allowed. */
  pageSize: number;
  /** Whether every page is followed by an empty one with a token. */
  emptyPages: boolean;
  /** Milliseconds until a new backup shows in lists. */
  listLag: number;
  /** Milliseconds of clock time. */
  readonly durations: { backup: number; restore: number; index: number; update: number };
}

export interface DynamoDbSimulator extends Simulator {
  readonly state: DynamoDbState;
  /** Deletes a table as its owner would: one with point-in-time recovery leaves a SYSTEM backup. */
  drop(table: string): void;
}

export const DYNAMODB_SANDBOX = {
  region: 'us-east-1',
  account: '123456789012',
  table: 'orders',
  restored: 'orders-before-release',
} as const;

const TARGET = 'DynamoDB_20120810.';
const MODEL = 'com.amazonaws.dynamodb.v20120810#';
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const NAME = /^[a-zA-Z0-9_.-]{3,255}$/;
const { region: REGION, account: ACCOUNT } = DYNAMODB_SANDBOX;

class Refusal extends Error {
  readonly response: SimulatorResponse;
  constructor(type: string, message: string, status = 400) {
    super(message);
    const namespace =
      /^(Validation|Unrecognized|Missing|Incomplete|InvalidSignature|Unknown|Serialization|Access)/.test(type)
        ? 'com.amazon.coral.service#'
        : MODEL;
    this.response = answer({ __type: `${namespace}${type}`, message }, status);
  }
}

function answer(body: unknown, status = 200): SimulatorResponse {
  const id = randomBytes(26).toString('hex').toUpperCase();
  return {
    status,
    headers: { 'content-type': 'application/x-amz-json-1.0', 'x-amzn-requestid': id },
    ...(body === undefined ? {} : { body }),
  };
}

const seconds = (at: number): number => at / 1000;
const tableArn = (table: string): string => `arn:aws:dynamodb:${REGION}:${ACCOUNT}:table/${table}`;
const backupArn = (backup: SimulatedBackup): string => `${tableArn(backup.source.name)}/backup/${backup.id}`;

/** Stands in for Amazon DynamoDB's backup and table calls in the JSON protocol 1.0. */
export function awsDynamodbSimulator(options: SimulatorOptions): DynamoDbSimulator {
  const now = (): number => options.clock.now().getTime();
  const state: DynamoDbState = {
    tables: new Map(),
    backups: [],
    denied: new Set(),
    unauthenticated: false,
    failNext: [],
    vanishNext: 0,
    pageSize: 100,
    emptyPages: false,
    listLag: 0,
    durations: { backup: 2000, restore: 3000, index: 500, update: 200 },
  };
  seed(state, now());

  // Whatever is over by the clock's time is made so before a request is looked at.
  const settle = (): void => {
    for (const [name, table] of state.tables) {
      if (table.restore?.vanishes === true && table.restore.endsAt <= now()) state.tables.delete(name);
    }
    const expired = state.backups.filter(({ expiresAt }) => expiresAt !== undefined && expiresAt <= now());
    for (const backup of expired) state.backups.splice(state.backups.indexOf(backup), 1);
  };

  const statusOf = (table: SimulatedTable): string => {
    if (table.status !== undefined) return table.status;
    if (table.restore !== undefined && table.restore.endsAt > now()) return 'CREATING';
    return table.updatingUntil > now() ? 'UPDATING' : 'ACTIVE';
  };

  const find = (name: string, missing = 'ResourceNotFoundException'): SimulatedTable => {
    const table = state.tables.get(name);
    if (table !== undefined) return table;
    throw new Refusal(
      missing,
      missing === 'ResourceNotFoundException'
        ? `Requested resource not found: Table: ${name} not found`
        : `Table not found: ${name}`,
    );
  };

  const ofArn = (arn: string): SimulatedTable => {
    const name = /^arn:aws:dynamodb:([a-z0-9-]+):(\d{12}):table\/([^/]+)$/.exec(arn);
    if (name === null || name[1] !== REGION || name[2] !== ACCOUNT) {
      throw new Refusal('ValidationException', `Invalid ResourceArn: ${arn}`);
    }
    return find(String(name[3]));
  };

  const backupOf = (arn: string): SimulatedBackup => {
    if (arn.length < 37 || arn.length > 1024) throw new Refusal('ValidationException', 'Invalid BackupArn length');
    const backup = state.backups.find((one) => backupArn(one) === arn);
    if (backup !== undefined) return backup;
    throw new Refusal('BackupNotFoundException', `Backup not found: ${arn}`);
  };

  const latestOf = (): number => Math.floor(now() / 1000) * 1000 - 300_000;
  const earliestOf = ({ pitr }: SimulatedTable): number => Math.max(pitr.since, now() - pitr.days * DAY);

  const tableBody = (table: SimulatedTable): JsonObject => {
    const { restore } = table;
    const indexesReady = restore === undefined || restore.endsAt + state.durations.index <= now();
    return {
      AttributeDefinitions: [
        { AttributeName: 'id', AttributeType: 'S' },
        ...table.indexes.map((index) => ({ AttributeName: index.replace(/^by-/, ''), AttributeType: 'S' })),
      ],
      TableName: table.name,
      KeySchema: [{ AttributeName: 'id', KeyType: 'HASH' }],
      TableStatus: statusOf(table),
      CreationDateTime: seconds(table.createdAt),
      ProvisionedThroughput: {
        NumberOfDecreasesToday: 0,
        ReadCapacityUnits: table.billing === 'PAY_PER_REQUEST' ? 0 : 25,
        WriteCapacityUnits: table.billing === 'PAY_PER_REQUEST' ? 0 : 10,
      },
      TableSizeBytes: table.bytes,
      ItemCount: Object.keys(contentOf(table)).length,
      TableArn: tableArn(table.name),
      TableId: table.id,
      ...(table.billing === 'missing'
        ? {}
        : { BillingModeSummary: table.billing === 'empty' ? {} : { BillingMode: table.billing } }),
      ...(table.indexes.length === 0
        ? {}
        : {
            GlobalSecondaryIndexes: table.indexes.map((index) => ({
              IndexName: index,
              KeySchema: [{ AttributeName: index.replace(/^by-/, ''), KeyType: 'HASH' }],
              Projection: { ProjectionType: 'ALL' },
              IndexStatus: indexesReady ? 'ACTIVE' : 'CREATING',
              IndexArn: `${tableArn(table.name)}/index/${index}`,
              IndexSizeBytes: 1024,
              ItemCount: 3,
            })),
          }),
      ...(table.stream === undefined
        ? {}
        : { StreamSpecification: { StreamEnabled: true, StreamViewType: table.stream } }),
      ...(table.replicas.length === 0
        ? {}
        : {
            GlobalTableVersion: '2019.11.21',
            Replicas: table.replicas.map((one) => ({ RegionName: one, ReplicaStatus: 'ACTIVE' })),
          }),
      ...(table.kmsKey === undefined
        ? {}
        : { SSEDescription: { Status: 'ENABLED', SSEType: 'KMS', KMSMasterKeyArn: table.kmsKey } }),
      ...(restore === undefined
        ? {}
        : {
            RestoreSummary: {
              ...(restore.backup === undefined ? {} : { SourceBackupArn: restore.backup }),
              SourceTableArn: restore.source,
              RestoreDateTime: seconds(restore.at),
              RestoreInProgress: restore.endsAt > now(),
            },
          }),
      DeletionProtectionEnabled: table.deletionProtection,
    };
  };

  const details = (backup: SimulatedBackup, status?: string): JsonObject => ({
    BackupArn: backupArn(backup),
    BackupName: backup.name,
    BackupSizeBytes: backup.bytes,
    BackupStatus: status ?? (backup.availableAt > now() ? 'CREATING' : 'AVAILABLE'),
    BackupType: backup.type,
    BackupCreationDateTime: seconds(backup.createdAt),
    ...(backup.expiresAt === undefined ? {} : { BackupExpiryDateTime: seconds(backup.expiresAt) }),
  });

  const backupBody = (backup: SimulatedBackup, status?: string): JsonObject => {
    const { source } = backup;
    return {
      BackupDetails: details(backup, status),
      SourceTableDetails: {
        TableName: source.name,
        TableId: source.id,
        TableArn: tableArn(source.name),
        TableSizeBytes: backup.bytes,
        KeySchema: [{ AttributeName: 'id', KeyType: 'HASH' }],
        TableCreationDateTime: seconds(source.createdAt),
        ProvisionedThroughput: { ReadCapacityUnits: 25, WriteCapacityUnits: 10 },
        ItemCount: Object.keys(backup.content).length,
        BillingMode: source.billing === 'PAY_PER_REQUEST' ? 'PAY_PER_REQUEST' : 'PROVISIONED',
      },
      SourceTableFeatureDetails: {
        ...(source.indexes.length === 0
          ? {}
          : {
              GlobalSecondaryIndexes: source.indexes.map((index) => ({
                IndexName: index,
                KeySchema: [{ AttributeName: index.replace(/^by-/, ''), KeyType: 'HASH' }],
                Projection: { ProjectionType: 'ALL' },
              })),
            }),
        ...(source.stream === undefined
          ? {}
          : { StreamDescription: { StreamEnabled: true, StreamViewType: source.stream } }),
        ...(source.ttl === undefined
          ? {}
          : { TimeToLiveDescription: { TimeToLiveStatus: 'ENABLED', AttributeName: source.ttl.attribute } }),
        ...(source.kmsKey === undefined
          ? {}
          : { SSEDescription: { Status: 'ENABLED', SSEType: 'KMS', KMSMasterKeyArn: source.kmsKey } }),
      },
    };
  };

  const continuous = (table: SimulatedTable): JsonObject => ({
    ContinuousBackupsStatus: 'ENABLED',
    PointInTimeRecoveryDescription: table.pitr.enabled
      ? {
          PointInTimeRecoveryStatus: 'ENABLED',
          RecoveryPeriodInDays: table.pitr.days,
          // Just switched on, there is no window yet.
          ...(latestOf() < earliestOf(table)
            ? {}
            : {
                EarliestRestorableDateTime: seconds(earliestOf(table)),
                LatestRestorableDateTime: seconds(latestOf()),
              }),
        }
      : { PointInTimeRecoveryStatus: 'DISABLED' },
  });

  const listBackups = (input: JsonObject): JsonObject => {
    const limit = Math.min(integer(input, 'Limit', 1, 100) ?? 100, state.pageSize);
    const type = text(input, 'BackupType') ?? 'USER';
    if (!['USER', 'SYSTEM', 'AWS_BACKUP', 'ALL'].includes(type)) {
      throw new Refusal('ValidationException', 'Value at backupType failed to satisfy constraint');
    }
    const [from, to] = [number(input, 'TimeRangeLowerBound'), number(input, 'TimeRangeUpperBound')];
    const table = text(input, 'TableName');
    // AWS Backup's own recovery points show in its own service only.
    const all = state.backups
      .filter((backup) => backup.type !== 'AWS_BACKUP')
      .filter((backup) => type === 'ALL' || backup.type === type)
      .filter((backup) => table === undefined || backup.source.name === table)
      .filter((backup) => from === undefined || seconds(backup.createdAt) >= from)
      .filter((backup) => to === undefined || seconds(backup.createdAt) < to)
      .filter((backup) => backup.createdAt + state.listLag <= now())
      .sort((a, b) => a.createdAt - b.createdAt);
    const after = text(input, 'ExclusiveStartBackupArn');
    const empty = state.emptyPages && after !== undefined && !after.endsWith('~');
    if (empty) return { BackupSummaries: [], LastEvaluatedBackupArn: `${after}~` };
    const place = after === undefined ? -1 : all.findIndex((one) => backupArn(one) === after.replace(/~$/, ''));
    if (after !== undefined && place < 0) throw new Refusal('ValidationException', 'Invalid ExclusiveStartBackupArn');
    const page = all.slice(place + 1, place + 1 + limit);
    const last = page.at(-1);
    return {
      BackupSummaries: page.map((backup) => ({
        ...details(backup),
        TableName: backup.source.name,
        TableId: backup.source.id,
        TableArn: tableArn(backup.source.name),
      })),
      ...(last !== undefined && place + 1 + limit < all.length ? { LastEvaluatedBackupArn: backupArn(last) } : {}),
    };
  };

  const take = (table: SimulatedTable, name: string, type: string, ready: number): SimulatedBackup => {
    const { history: _, restore: __, ...source } = table;
    const backup: SimulatedBackup = {
      id: backupId(now()),
      name,
      type,
      createdAt: now(),
      availableAt: ready,
      bytes: table.bytes,
      content: structuredClone(contentOf(table)),
      source: { ...source, tags: new Map(source.tags) },
    };
    state.backups.push(backup);
    return backup;
  };

  const restoreTo = (
    target: string,
    from: Pick<SimulatedTable, 'billing' | 'indexes' | 'kmsKey' | 'bytes'>,
    content: DynamoDbContent,
    restore: { backup?: string; source: string; at: number },
  ): JsonObject => {
    if (!NAME.test(target)) throw new Refusal('ValidationException', 'Invalid target table name');
    if (state.tables.has(target)) throw new Refusal('TableAlreadyExistsException', `Table already exists: ${target}`);
    const vanishes = state.vanishNext > 0;
    if (vanishes) state.vanishNext -= 1;
    const table: SimulatedTable = {
      ...fresh(target, now(), content),
      billing: from.billing,
      indexes: [...from.indexes],
      bytes: from.bytes,
      ...(from.kmsKey === undefined ? {} : { kmsKey: from.kmsKey }),
      restore: { ...restore, endsAt: now() + state.durations.restore, vanishes },
    };
    state.tables.set(target, table);
    return { TableDescription: tableBody(table) };
  };

  const restoreToMoment = (input: JsonObject): JsonObject => {
    only(input, ['SourceTableName', 'SourceTableArn', 'TargetTableName', 'RestoreDateTime', 'UseLatestRestorableTime']);
    const [given, arn] = [text(input, 'SourceTableName'), text(input, 'SourceTableArn')];
    if ((given === undefined) === (arn === undefined)) {
      throw new Refusal('ValidationException', 'Exactly one of SourceTableName and SourceTableArn must be given');
    }
    const source = find(given ?? String(arn).replace(/^.*\//, ''), 'TableNotFoundException');
    const moment = number(input, 'RestoreDateTime');
    const latest = input['UseLatestRestorableTime'] === true;
    if ((moment === undefined) === !latest) {
      throw new Refusal(
        'ValidationException',
        'Exactly one of RestoreDateTime and UseLatestRestorableTime must be given',
      );
    }
    if (!source.pitr.enabled) {
      throw new Refusal(
        'PointInTimeRecoveryUnavailableException',
        `Point in time recovery is not enabled for table '${source.name}'`,
      );
    }
    const at = moment === undefined ? latestOf() : moment * 1000;
    if (at < earliestOf(source) - 1000 || at > latestOf()) {
      throw new Refusal('InvalidRestoreTimeException', 'Restore time is outside of the recovery window');
    }
    const content = (source.history.findLast((entry) => entry.at <= at) ?? source.history[0])?.content ?? {};
    return restoreTo(required(input, 'TargetTableName'), source, structuredClone(content), {
      source: tableArn(source.name),
      at,
    });
  };

  const updateTable = (input: JsonObject): JsonObject => {
    only(input, ['TableName', 'DeletionProtectionEnabled', 'StreamSpecification']);
    const table = find(required(input, 'TableName'));
    if (statusOf(table) !== 'ACTIVE') {
      throw new Refusal('ResourceInUseException', `Attempt to change a resource which is still in use: ${table.name}`);
    }
    const stream = input['StreamSpecification'];
    if (typeof input['DeletionProtectionEnabled'] === 'boolean') {
      if (stream !== undefined) throw new Refusal('ValidationException', 'Only one table update operation is allowed');
      table.deletionProtection = input['DeletionProtectionEnabled'];
    }
    if (isObject(stream)) {
      if (table.stream !== undefined) throw new Refusal('ValidationException', 'Table already has an enabled stream');
      if (stream['StreamEnabled'] === true) table.stream = String(stream['StreamViewType']);
    }
    table.updatingUntil = now() + state.durations.update;
    return { TableDescription: tableBody(table) };
  };

  const run: Record<string, (input: JsonObject) => JsonObject | undefined> = {
    DescribeTable: (input) => ({ Table: tableBody(find(required(input, 'TableName'))) }),
    DescribeContinuousBackups: (input) => ({
      ContinuousBackupsDescription: continuous(find(required(input, 'TableName'), 'TableNotFoundException')),
    }),
    ListBackups: (input) => {
      only(input, [
        'TableName',
        'Limit',
        'TimeRangeLowerBound',
        'TimeRangeUpperBound',
        'ExclusiveStartBackupArn',
        'BackupType',
      ]);
      return listBackups(input);
    },
    ListTables: (input) => {
      only(input, ['ExclusiveStartTableName', 'Limit']);
      const limit = Math.min(integer(input, 'Limit', 1, 100) ?? 100, state.pageSize);
      const after = text(input, 'ExclusiveStartTableName') ?? '';
      const names = [...state.tables.keys()].sort().filter((name) => name > after);
      const page = names.slice(0, limit);
      return {
        TableNames: page,
        ...(page.length < names.length ? { LastEvaluatedTableName: String(page.at(-1)) } : {}),
      };
    },
    CreateBackup: (input) => {
      only(input, ['TableName', 'BackupName']);
      const table = find(required(input, 'TableName'), 'TableNotFoundException');
      const name = required(input, 'BackupName');
      if (!NAME.test(name)) throw new Refusal('ValidationException', 'Invalid backup name');
      if (statusOf(table) === 'CREATING') {
        throw new Refusal('ContinuousBackupsUnavailableException', 'Backups are being enabled for the table');
      }
      return { BackupDetails: details(take(table, name, 'USER', now() + state.durations.backup)) };
    },
    DescribeBackup: (input) => ({ BackupDescription: backupBody(backupOf(required(input, 'BackupArn'))) }),
    DeleteBackup: (input) => {
      only(input, ['BackupArn']);
      const backup = backupOf(required(input, 'BackupArn'));
      if (backup.availableAt > now()) throw new Refusal('BackupInUseException', 'Backup is being created');
      if (backup.type === 'AWS_BACKUP') {
        throw new Refusal('AccessDeniedException', 'Backups created by AWS Backup cannot be deleted here');
      }
      state.backups.splice(state.backups.indexOf(backup), 1);
      return { BackupDescription: backupBody(backup, 'DELETED') };
    },
    RestoreTableFromBackup: (input) => {
      only(input, ['BackupArn', 'TargetTableName']);
      const backup = backupOf(required(input, 'BackupArn'));
      if (backup.availableAt > now()) throw new Refusal('BackupInUseException', 'Backup is being created');
      return restoreTo(required(input, 'TargetTableName'), backup.source, structuredClone(backup.content), {
        backup: backupArn(backup),
        source: tableArn(backup.source.name),
        at: backup.createdAt,
      });
    },
    RestoreTableToPointInTime: restoreToMoment,
    UpdateContinuousBackups: (input) => {
      only(input, ['TableName', 'PointInTimeRecoverySpecification']);
      const table = find(required(input, 'TableName'), 'TableNotFoundException');
      const wanted = input['PointInTimeRecoverySpecification'] as JsonObject | undefined;
      if (!isObject(wanted) || typeof wanted['PointInTimeRecoveryEnabled'] !== 'boolean') {
        throw new Refusal('ValidationException', 'PointInTimeRecoverySpecification is missing');
      }
      if (statusOf(table) === 'CREATING') {
        throw new Refusal('ContinuousBackupsUnavailableException', 'Backups are being enabled for the table');
      }
      const days = integer(wanted, 'RecoveryPeriodInDays', 1, 35) ?? 35;
      const enabled = wanted['PointInTimeRecoveryEnabled'] === true;
      // What a period has discarded does not come back with a longer one.
      table.pitr = { enabled, days, since: enabled && table.pitr.enabled ? earliestOf(table) : now() };
      return { ContinuousBackupsDescription: continuous(table) };
    },
    UpdateTable: updateTable,
    DescribeTimeToLive: (input) => {
      const { ttl } = find(required(input, 'TableName'));
      return {
        TimeToLiveDescription:
          ttl === undefined
            ? { TimeToLiveStatus: 'DISABLED' }
            : { TimeToLiveStatus: ttl.since > now() ? 'ENABLING' : 'ENABLED', AttributeName: ttl.attribute },
      };
    },
    UpdateTimeToLive: (input) => {
      only(input, ['TableName', 'TimeToLiveSpecification']);
      const table = find(required(input, 'TableName'));
      const wanted = input['TimeToLiveSpecification'];
      if (!isObject(wanted)) throw new Refusal('ValidationException', 'TimeToLiveSpecification is missing');
      if (wanted['Enabled'] === true && table.ttl !== undefined) {
        throw new Refusal('ValidationException', 'TimeToLive is already enabled');
      }
      if (wanted['Enabled'] === true) {
        table.ttl = { attribute: String(wanted['AttributeName']), since: now() + state.durations.update };
      } else delete table.ttl;
      return { TimeToLiveSpecification: wanted as JsonObject };
    },
    ListTagsOfResource: (input) => {
      const tags = [...ofArn(required(input, 'ResourceArn')).tags].map(([Key, Value]) => ({ Key, Value }));
      const from = Number(text(input, 'NextToken') ?? 0);
      return {
        Tags: tags.slice(from, from + 10),
        ...(from + 10 < tags.length ? { NextToken: String(from + 10) } : {}),
      };
    },
    TagResource: (input) => {
      only(input, ['ResourceArn', 'Tags']);
      const table = ofArn(required(input, 'ResourceArn'));
      const tags = Array.isArray(input['Tags']) ? input['Tags'] : [];
      if (tags.length === 0) throw new Refusal('ValidationException', 'At least one tag is needed');
      for (const tag of tags) if (isObject(tag)) table.tags.set(String(tag['Key']), String(tag['Value']));
      return undefined;
    },
    GetResourcePolicy: (input) => {
      const { policy } = ofArn(required(input, 'ResourceArn'));
      if (policy === undefined) throw new Refusal('PolicyNotFoundException', 'There is no policy');
      return { Policy: policy, RevisionId: '1718000000000' };
    },
    DescribeKinesisStreamingDestination: (input) => {
      const table = find(required(input, 'TableName'));
      return {
        TableName: table.name,
        KinesisDataStreamDestinations: table.kinesis.map((StreamArn) => ({ StreamArn, DestinationStatus: 'ACTIVE' })),
      };
    },
    DescribeContributorInsights: (input) => {
      const table = find(required(input, 'TableName'));
      return { TableName: table.name, ContributorInsightsStatus: table.insights ? 'ENABLED' : 'DISABLED' };
    },
  };

  return {
    provider: 'aws-dynamodb',
    state,
    drop(name) {
      const table = find(name);
      if (table.pitr.enabled) {
        const backup = take(table, `${name}$DeletedTableBackup`, 'SYSTEM', now());
        backup.expiresAt = now() + 35 * DAY;
      }
      state.tables.delete(name);
    },
    matches: ({ method, url, headers }) =>
      method === 'POST' && url.pathname === '/' && (headers['x-amz-target'] ?? '').startsWith(TARGET),
    writes: (request) => !/^(Describe|List|Get)/.test(operationOf(request)),
    operation: operationOf,
    handle(request) {
      settle();
      try {
        const operation = operationOf(request);
        authenticate(request, state);
        if (!(request.headers['content-type'] ?? '').startsWith('application/x-amz-json-1.0')) {
          throw new Refusal('UnknownOperationException', 'The content type is not application/x-amz-json-1.0', 404);
        }
        const handler = run[operation];
        if (handler === undefined) throw new Refusal('UnknownOperationException', `No operation ${operation}`);
        if (!isObject(request.json)) throw new Refusal('SerializationException', 'The body is not a JSON object');
        if (state.denied.has(operation)) {
          throw new Refusal(
            'AccessDeniedException',
            `User: arn:aws:iam::${ACCOUNT}:user/canary-user is not authorized to perform: dynamodb:${operation}`,
          );
        }
        const planned = state.failNext.findIndex((failure) => failure.operation === operation);
        const [failure] = planned < 0 ? [] : state.failNext.splice(planned, 1);
        if (failure !== undefined) {
          const status = /^(InternalServerError|ServiceUnavailable)/.test(failure.type) ? 500 : 400;
          throw new Refusal(failure.type, failure.message ?? 'Refused in the simulator.', status);
        }
        const body = handler(request.json as JsonObject);
        return answer(body);
      } catch (cause) {
        if (cause instanceof Refusal) return cause.response;
        throw cause;
      }
    },
  };
}

function operationOf(request: SimulatorRequest): string {
  return (request.headers['x-amz-target'] ?? '').slice(TARGET.length);
}

const SIGNATURE =
  /^AWS4-HMAC-SHA256 Credential=([^/,\s]+)\/(\d{8})\/([a-z0-9-]+)\/dynamodb\/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$/;

function authenticate(request: SimulatorRequest, state: DynamoDbState): void {
  const { authorization, 'x-amz-date': date = '', 'x-amz-content-sha256': digest } = request.headers;
  if (authorization === undefined) {
    throw new Refusal('MissingAuthenticationTokenException', 'Request is missing Authentication Token');
  }
  const signature = SIGNATURE.exec(authorization);
  const signed = signature?.[4]?.split(';') ?? [];
  if (signature === null || !/^\d{8}T\d{6}Z$/.test(date)) {
    throw new Refusal('IncompleteSignatureException', 'Authorization header requires all of its parts');
  }
  if (!['host', 'x-amz-date', 'x-amz-target'].every((header) => signed.includes(header))) {
    throw new Refusal('InvalidSignatureException', 'Host, date and target must be signed');
  }
  if (signature[2] !== date.slice(0, 8) || signature[3] !== REGION) {
    throw new Refusal('InvalidSignatureException', 'Credential should be scoped to a valid date and region');
  }
  if (digest !== undefined && digest !== createHash('sha256').update(request.text).digest('hex')) {
    throw new Refusal('InvalidSignatureException', 'The payload is not the one that was signed');
  }
  if (state.unauthenticated) {
    throw new Refusal('UnrecognizedClientException', 'The security token included in the request is invalid.');
  }
}

// --- reading of requests -------------------------------------------------------------------------------------------

function text(input: JsonObject, member: string): string | undefined {
  const value = input[member];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'string') throw new Refusal('SerializationException', `${member} is not a string`);
  return value;
}

function required(input: JsonObject, member: string): string {
  const value = text(input, member);
  if (value === undefined || value === '') {
    throw new Refusal('ValidationException', `Value null at '${member}' failed to satisfy constraint`);
  }
  return value;
}

function number(input: JsonObject, member: string): number | undefined {
  const value: JsonValue | undefined = input[member];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'number') throw new Refusal('SerializationException', `${member} is not a number`);
  return value;
}

function integer(input: JsonObject, member: string, least: number, most: number): number | undefined {
  const value = number(input, member);
  if (value !== undefined && (!Number.isInteger(value) || value < least || value > most)) {
    throw new Refusal('ValidationException', `Value at '${member}' must be between ${least} and ${most}`);
  }
  return value;
}

function only(input: JsonObject, names: readonly string[]): void {
  const stranger = Object.keys(input).find((key) => !names.includes(key));
  if (stranger !== undefined) throw new Refusal('SerializationException', `Unexpected field ${stranger}`);
}

// --- the fleet -----------------------------------------------------------------------------------------------------

function backupId(at: number): string {
  return `${String(Math.floor(at)).padStart(14, '0')}-${randomBytes(4).toString('hex')}`;
}

function contentOf(table: SimulatedTable): DynamoDbContent {
  return table.history.at(-1)?.content ?? {};
}

function fresh(name: string, at: number, content: DynamoDbContent): SimulatedTable {
  return {
    name,
    id: randomUUID(),
    createdAt: at,
    updatingUntil: 0,
    billing: 'PAY_PER_REQUEST',
    deletionProtection: false,
    pitr: { enabled: false, days: 35, since: at },
    tags: new Map(),
    kinesis: [],
    insights: false,
    indexes: [],
    replicas: [],
    bytes: 48_211_456,
    history: [{ at, content }],
  };
}

function seed(state: DynamoDbState, now: number): void {
  const put = (table: SimulatedTable): SimulatedTable => {
    state.tables.set(table.name, table);
    return table;
  };
  const addBackup = (table: SimulatedTable, at: number, name: string, over: Partial<SimulatedBackup> = {}): void => {
    const content = (table.history.findLast((entry) => entry.at <= at) ?? table.history[0])?.content ?? {};
    const { history: _, restore: __, ...source } = table;
    state.backups.push({
      id: backupId(at),
      name,
      type: 'USER',
      createdAt: at,
      availableAt: at + 40_000,
      bytes: table.bytes,
      content: structuredClone(content),
      source: { ...source, tags: new Map(source.tags) },
      ...over,
    });
  };

  // Well kept: point-in-time recovery, protected, and settings that a restore would lose.
  const orders = put({
    ...fresh(DYNAMODB_SANDBOX.table, now - 400 * DAY, { 'order-1': 'new' }),
    deletionProtection: true,
    pitr: { enabled: true, days: 14, since: now - 300 * DAY },
    stream: 'NEW_AND_OLD_IMAGES',
    ttl: { attribute: 'expires_at', since: now - 300 * DAY },
    tags: new Map([
      ['Environment', 'production'],
      ['BackupEnabled', 'true'],
    ]),
    indexes: ['by-customer'],
  });
  orders.history.push({ at: now - 30 * HOUR, content: { 'order-1': 'paid', 'order-2': 'new' } });
  orders.history.push({ at: now - 2 * HOUR, content: { 'order-1': 'sent', 'order-2': 'paid', 'order-3': 'new' } });
  addBackup(orders, now - 3 * DAY, 'nightly');
  addBackup(orders, now - DAY, 'nightly');
  addBackup(orders, now - 5 * HOUR, 'before-release-41');

  // A copy that somebody restored long ago.
  put({
    ...fresh(DYNAMODB_SANDBOX.restored, now - 90 * DAY, { 'order-1': 'new' }),
    indexes: ['by-customer'],
    restore: {
      source: tableArn(orders.name),
      at: now - 90 * DAY - HOUR,
      endsAt: now - 90 * DAY + 22 * 60_000,
      vanishes: false,
    },
  });

  // Badly protected: no point-in-time recovery, no deletion protection, one old backup.
  const legacy = put({
    ...fresh('legacy-sessions', now - 900 * DAY, { 'session-1': 'open' }),
    billing: 'missing',
  });
  addBackup(legacy, now - 95 * DAY, 'once');

  // A global table with a customer's key.
  put({
    ...fresh('events', now - 200 * DAY, { 'event-1': 'x' }),
    billing: 'empty',
    replicas: ['eu-west-1'],
    kmsKey: `arn:aws:kms:${REGION}:${ACCOUNT}:key/0f9d2a11-8c1e-4a55-9d2e-6f6b1f0c7a01`,
    pitr: { enabled: true, days: 7, since: now - 100 * DAY },
    policy: '{"Version":"2012-10-17"}',
    kinesis: [`arn:aws:kinesis:${REGION}:${ACCOUNT}:stream/events`],
    insights: true,
  });

  // A table that was deleted with point-in-time recovery on: its last state is kept for 35 days.
  const carts = fresh('carts', now - 500 * DAY, { 'cart-1': 'full' });
  addBackup(carts, now - 3 * DAY, 'carts$DeletedTableBackup', { type: 'SYSTEM', expiresAt: now + 32 * DAY });
}
