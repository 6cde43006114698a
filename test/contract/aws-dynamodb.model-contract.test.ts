import * as sdk from '@aws-sdk/client-dynamodb';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isObject } from '../../src/core/json.ts';
import type { DynamoDbClient } from '../../src/providers/aws-dynamodb/client.ts';
import { awsDynamodb } from '../../src/providers/aws-dynamodb/provider.ts';
import { awsDynamodbSimulator, DYNAMODB_SANDBOX, type DynamoDbSimulator } from '../../src/simulators/aws-dynamodb.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import type { Simulator, SimulatorRequest, SimulatorResponse } from '../../src/simulators/simulator.ts';
import { granted, testRuntime } from '../support/runtime.ts';

// DynamoDB has no OpenAPI document: requests and answers are held to the models that its own SDK carries.

/** A model of the SDK: a number for a simple type, a list for the others, or a function that gives one. */
type Model = unknown;

const STRUCTURE = 3;
const ERROR = -3;
const LIST = 1;
const MAP = 2;
const SIMPLE: Readonly<Record<number, string>> = { 0: 'string', 1: 'number', 2: 'boolean', 4: 'number' };

/** Where a member's words are listed; members of the same name and other words are named with what they are in. */
const WORDS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  BackupStatus: sdk.BackupStatus,
  BackupType: sdk.BackupType,
  'ListBackupsInput.BackupType': sdk.BackupTypeFilter,
  TableStatus: sdk.TableStatus,
  IndexStatus: sdk.IndexStatus,
  ReplicaStatus: sdk.ReplicaStatus,
  BillingMode: sdk.BillingMode,
  PointInTimeRecoveryStatus: sdk.PointInTimeRecoveryStatus,
  ContinuousBackupsStatus: sdk.ContinuousBackupsStatus,
  TimeToLiveStatus: sdk.TimeToLiveStatus,
  StreamViewType: sdk.StreamViewType,
  'SSEDescription.Status': sdk.SSEStatus,
  SSEType: sdk.SSEType,
  DestinationStatus: sdk.DestinationStatus,
  ContributorInsightsStatus: sdk.ContributorInsightsStatus,
  KeyType: sdk.KeyType,
  ProjectionType: sdk.ProjectionType,
  AttributeType: sdk.ScalarAttributeType,
};

/** What the service's reference says of values, which its models in the SDK leave out. */
const RULES: Readonly<Record<string, (value: unknown) => boolean>> = {
  TableName: (value) => /^[a-zA-Z0-9_.-]{3,255}$/.test(String(value)),
  TargetTableName: (value) => /^[a-zA-Z0-9_.-]{3,255}$/.test(String(value)),
  SourceTableName: (value) => /^[a-zA-Z0-9_.-]{3,255}$/.test(String(value)),
  'CreateBackupInput.BackupName': (value) => /^[a-zA-Z0-9_.-]{3,255}$/.test(String(value)),
  BackupArn: (value) => String(value).length >= 37 && String(value).length <= 1024,
  Limit: (value) => Number(value) >= 1 && Number(value) <= 100,
  RecoveryPeriodInDays: (value) => Number(value) >= 1 && Number(value) <= 35,
};

/** Refusals that every operation of the JSON protocol can give; the SDK models only the service's own. */
const COMMON =
  /^(ValidationException|AccessDeniedException|UnrecognizedClientException|MissingAuthenticationTokenException|IncompleteSignatureException|InvalidSignatureException|UnknownOperationException|SerializationException)$/;

const library: Readonly<Record<string, unknown>> = { ...sdk };

function open(model: Model): Model {
  return typeof model === 'function' ? open((model as () => Model)()) : model;
}

function check(model: Model, value: unknown, at: string, owner = ''): string[] {
  const found = open(model);
  if (typeof found === 'number') {
    const list = found >= 64 && found < 128;
    if (list) return Array.isArray(value) ? [] : [`${at} is no list`];
    const member = at.slice(at.lastIndexOf('.') + 1);
    const type = SIMPLE[found];
    if (typeof value !== type) return [`${at} is ${typeof value}, not ${type}`];
    const words = WORDS[`${owner}.${member}`] ?? WORDS[member];
    if (words !== undefined && !Object.values(words).includes(String(value))) return [`${at} has no word '${value}'`];
    const rule = RULES[`${owner}.${member}`] ?? RULES[member];
    return rule === undefined || rule(value) ? [] : [`${at} breaks its rule: ${JSON.stringify(value)}`];
  }
  if (!Array.isArray(found)) return [`${at} has a model that is not understood`];
  const [kind, , name, , members, types, required = 0] = found as [
    number,
    string,
    string,
    unknown,
    unknown,
    unknown,
    number?,
  ];
  if (kind === LIST) {
    if (!Array.isArray(value)) return [`${at} is no list`];
    return value.flatMap((one, index) => check(members, one, `${at}[${index}]`));
  }
  if (kind === MAP) return isObject(value) ? [] : [`${at} is no map`];
  if (kind !== STRUCTURE && kind !== ERROR) return [`${at} has a model of the kind ${kind}`];
  if (!isObject(value)) return [`${at} is no object`];
  const names = members as string[];
  const missing = names.slice(0, required).filter((member) => value[member] === undefined);
  const strangers = Object.keys(value).filter((member) => !names.includes(member));
  return [
    ...missing.map((member) => `${at}.${member} is missing`),
    ...strangers.map((member) => `${at}.${member} is not in ${name}`),
    ...names.flatMap((member, index) =>
      value[member] === undefined ? [] : check((types as Model[])[index], value[member], `${at}.${member}`, name),
    ),
  ];
}

interface Contract {
  readonly faults: string[];
  readonly seen: Set<string>;
  wrap(simulator: Simulator): Simulator;
}

function openModels(): Contract {
  const faults: string[] = [];
  const seen = new Set<string>();
  const holdAnswer = (operation: string, output: Model, response: SimulatorResponse): void => {
    const type = response.headers?.['content-type'];
    if (type !== 'application/x-amz-json-1.0') faults.push(`${operation}: answer content type ${type}`);
    const body: unknown = response.body === undefined ? undefined : JSON.parse(JSON.stringify(response.body));
    if (response.status === 200) {
      if (open(output) === 'unit') {
        if (body !== undefined) faults.push(`${operation}: answer has a body`);
      } else faults.push(...check(output, body, `${operation}: answer`));
      return;
    }
    const name = isObject(body) ? String(body['__type']).replace(/^.*#/, '') : '';
    if (library[`${name}$`] === undefined && !COMMON.test(name)) faults.push(`${operation}: no error '${name}'`);
    if (response.status !== 400) faults.push(`${operation}: ${name} has status ${response.status}`);
  };
  return {
    faults,
    seen,
    wrap: (simulator) => ({
      ...simulator,
      async handle(request: SimulatorRequest) {
        const [, operation = ''] = (request.headers['x-amz-target'] ?? '').split('.');
        const model = open(library[`${operation}$`]);
        const response = await simulator.handle(request);
        if (!Array.isArray(model)) {
          faults.push(`${operation}: no such operation`);
          return response;
        }
        seen.add(operation);
        faults.push(...check(model[4], request.json, `${operation}: request`));
        holdAnswer(operation, model[5], response);
        return response;
      },
    }),
  };
}

/** Every operation that the adapter sends. */
const USED = [
  'CreateBackup',
  'DeleteBackup',
  'DescribeBackup',
  'DescribeContinuousBackups',
  'DescribeContributorInsights',
  'DescribeKinesisStreamingDestination',
  'DescribeTable',
  'DescribeTimeToLive',
  'GetResourcePolicy',
  'ListBackups',
  'ListTables',
  'ListTagsOfResource',
  'RestoreTableFromBackup',
  'RestoreTableToPointInTime',
  'TagResource',
  'UpdateContinuousBackups',
  'UpdateTable',
  'UpdateTimeToLive',
];

describe('DynamoDB and the models of its SDK', () => {
  const signal = new AbortController().signal;
  const { table, region, account } = DYNAMODB_SANDBOX;
  const arnOf = (name: string): string => `arn:aws:dynamodb:${region}:${account}:table/${name}`;
  let contract: Contract;
  let server: SimulatorServer;
  let simulator: DynamoDbSimulator;
  const clients: DynamoDbClient[] = [];

  async function clientOf(name: string): Promise<DynamoDbClient> {
    const type = awsDynamodb.entityTypes['aws-dynamo-db/dynamo-db-table']!;
    const parameters = type.schema.parse({ ...type.sandbox!.parameters, table_name: name });
    const entity = {
      ...parameters,
      key: 'sandbox/aws-dynamodb',
      namespace: 'sandbox',
      name: 'aws-dynamodb',
      defines: 'aws-dynamo-db/dynamo-db-table',
      provider: 'aws-dynamodb',
      labels: {},
      objectives: {},
      endpoint: server.origin,
      parameters,
    };
    const runtime = testRuntime({ per_second: 1000, burst: 1000, concurrent: 8, timeout_ms: 5000 });
    const client = await awsDynamodb.connect(entity as never, runtime);
    clients.push(client);
    return client;
  }

  beforeAll(async () => {
    contract = openModels();
    server = await startSimulators({
      simulators: (clock) => {
        simulator = awsDynamodbSimulator({ clock });
        return [contract.wrap(simulator)];
      },
    });
  });
  afterAll(async () => {
    for (const client of clients) client.close();
    await server.close();
  });

  const codeOf = (work: Promise<unknown>): Promise<unknown> =>
    work.then(
      () => 'no failure',
      (cause: { code: string }) => cause.code,
    );

  it('tells what does not fit its models', () => {
    const input = sdk.CreateBackupInput$;
    expect(check(input, { TableName: 'orders', BackupName: 'nightly' }, 'x')).toEqual([]);
    expect(check(input, { TableName: 'a b', BackupName: 7, Extra: 1 }, 'x')).toEqual([
      'x.Extra is not in CreateBackupInput',
      `x.TableName breaks its rule: "a b"`,
      'x.BackupName is number, not string',
    ]);
    expect(check(input, { TableName: 'orders' }, 'x')).toEqual(['x.BackupName is missing']);
    expect(check(sdk.BackupSummary$, { BackupStatus: 'NEW' }, 'x')).toEqual([`x.BackupStatus has no word 'NEW'`]);
    expect(check(sdk.ListBackupsOutput$, { BackupSummaries: [{ Wrong: 1 }] }, 'x')).toEqual([
      'x.BackupSummaries[0].Wrong is not in BackupSummary',
    ]);
  });

  it('reads in the documented shapes', async () => {
    for (const name of [...simulator.state.tables.keys()]) {
      const client = await clientOf(name);
      await client.describeTable(name, signal);
      await client.continuousBackups(name, signal);
      await client.timeToLive(name, signal);
      await client.tags(arnOf(name), signal);
      await client.hasPolicy(arnOf(name), signal);
      await client.kinesisStreams(name, signal);
      await client.hasInsights(name, signal);
      const { items } = await client.listBackups({}, signal);
      for (const { BackupArn } of items) await client.describeBackup(String(BackupArn), signal);
    }
    const client = await clientOf('carts');
    const [left] = (await client.listBackups({ from: new Date(0) }, signal)).items;
    await client.describeBackup(String(left?.BackupArn), signal);
    simulator.state.pageSize = 1;
    const first = await client.listTables(undefined, signal);
    expect((await client.listTables(first.next, signal)).names).not.toEqual(first.names);
    const { next } = await (await clientOf(table)).listBackups({}, signal);
    await (await clientOf(table)).listBackups({ after: next }, signal);
    simulator.state.pageSize = 100;
  });

  it('writes in the documented shapes, and is answered in them from the first to the last state', async () => {
    const client = await clientOf(table);
    const follow = async (target: string): Promise<void> => {
      for (const ms of [0, 3200, 5000]) {
        server.clock.advance(ms);
        await client.describeTable(target, signal);
      }
    };
    await granted(async () => {
      const { BackupArn: arn = '' } = await client.createBackup('contract', signal);
      await client.describeBackup(arn, signal);
      server.clock.advance(5000);
      await client.restoreBackup(arn, 'contract-copy', signal);
      await follow('contract-copy');
      await client.restoreMoment('latest', 'contract-latest', signal);
      await follow('contract-latest');
      await client.restoreMoment(new Date(server.clock.now().getTime() - 3_600_000), 'contract-then', signal);
      await follow('contract-then');
      await client.setTags(arnOf('contract-copy'), { Environment: 'test' }, signal);
      await client.setPointInTimeRecovery('contract-copy', 14, signal);
      await client.continuousBackups('contract-copy', signal);
      await client.setTimeToLive('contract-copy', 'expires_at', signal);
      await client.timeToLive('contract-copy', signal);
      await client.setDeletionProtection('contract-copy', true, signal);
      await client.describeTable('contract-copy', signal);
      server.clock.advance(1000);
      await client.setStream('contract-copy', 'NEW_IMAGE', signal);
      await client.describeTable('contract-copy', signal);
      server.clock.advance(1000);
      await client.setDeletionProtection('contract-copy', false, signal);
      await client.setPointInTimeRecovery('contract-copy', 'off', signal);
      await client.continuousBackups('contract-copy', signal);
      await client.deleteBackup(arn, signal);
      expect(await codeOf(client.describeBackup(arn, signal))).toBe('SNAPSHOT_NOT_FOUND');
      expect(await codeOf(client.restoreMoment('latest', table, signal))).toBe('RESOURCE_EXISTS');
      expect(await codeOf(client.restoreMoment(new Date(0), 'contract-no', signal))).toBe('INVALID_PARAMETER');
      expect(await codeOf(client.describeTable('nowhere', signal))).toBe('RESOURCE_NOT_FOUND');
      expect(await codeOf(client.continuousBackups('nowhere', signal))).toBe('RESOURCE_NOT_FOUND');
      simulator.state.denied.add('DescribeTable');
      expect(await codeOf(client.describeTable(table, signal))).toBe('INSUFFICIENT_PERMISSIONS');
      simulator.state.denied.clear();
    });
    expect(server.writes()).toHaveLength(14);
  });

  it('sends nothing for a name that is none', async () => {
    const client = await clientOf(table);
    const before = server.journal.length;
    await granted(async () => {
      expect(await codeOf(client.describeTable('', signal))).toBe('INVALID_PARAMETER');
      expect(await codeOf(client.restoreMoment('latest', 'a/b', signal))).toBe('INVALID_PARAMETER');
      expect(await codeOf(client.deleteBackup(arnOf(table), signal))).toBe('INVALID_PARAMETER');
      expect(await codeOf(client.deleteBackup(`${arnOf('events')}/backup/01700000000000-0123abcd`, signal))).toBe(
        'INVALID_PARAMETER',
      );
      expect(await codeOf(client.createBackup('', signal))).toBe('INVALID_PARAMETER');
      expect(await codeOf(client.setTags('arn:aws:s3:::bucket', { a: 'b' }, signal))).toBe('INVALID_PARAMETER');
    });
    expect(server.journal.length).toBe(before);
  });

  it('differed nowhere and saw every operation that the adapter uses', () => {
    expect(contract.faults).toEqual([]);
    expect([...contract.seen].sort()).toEqual(USED);
  });
});
