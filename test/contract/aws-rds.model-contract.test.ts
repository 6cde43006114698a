import * as sdk from '@aws-sdk/client-rds';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RdsClient } from '../../src/providers/aws-rds/client.ts';
import { RDS_CODES } from '../../src/providers/aws-rds/map.ts';
import { awsRds, RDS_CLUSTER, RDS_INSTANCE } from '../../src/providers/aws-rds/provider.ts';
import { awsRdsSimulator, RDS_SANDBOX, type RdsSimulator } from '../../src/simulators/aws-rds.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import type { Simulator, SimulatorRequest, SimulatorResponse } from '../../src/simulators/simulator.ts';
import { granted, testRuntime } from '../support/runtime.ts';

// RDS has no OpenAPI document: requests and answers are held to the models that its own SDK carries.

const STRUCTURE = 3;
const ERROR = -3;
const LIST = 1;
const OPERATION = 9;
const library: Readonly<Record<string, unknown>> = { ...sdk };

interface Shape {
  readonly kind: 'structure' | 'list' | 'string' | 'number' | 'boolean' | 'timestamp' | 'blob';
  readonly name?: string;
  readonly members?: ReadonlyMap<string, unknown>;
  readonly required?: readonly string[];
  readonly item?: string;
  readonly of?: unknown;
}

const SIMPLE: Readonly<Record<number, Shape['kind']>> = {
  0: 'string',
  1: 'number',
  2: 'boolean',
  4: 'timestamp',
  21: 'blob',
};

/** Reads a model of the SDK: a number for a simple type, a list for the others, either with traits, or a function giving one. */
function shapeOf(model: unknown): Shape {
  if (typeof model === 'function') return shapeOf((model as () => unknown)());
  if (typeof model === 'number') {
    if ((model & 64) === 64) return { kind: 'list', item: 'member', of: model & ~64 };
    const kind = SIMPLE[model];
    if (kind === undefined) throw new Error(`the SDK has a simple type ${model} that is not understood`);
    return { kind };
  }
  if (!Array.isArray(model)) throw new Error('the SDK has a model that is not understood');
  // A type with traits, against a model, which has more parts.
  if (model.length === 2) return shapeOf(model[0]);
  const [kind, , name, , third, types, required = 0] = model as [
    number,
    string,
    string,
    unknown,
    unknown,
    unknown,
    number?,
  ];
  if (kind === STRUCTURE || kind === ERROR) {
    const names = third as string[];
    return {
      kind: 'structure',
      name,
      members: new Map(names.map((member, index) => [member, (types as unknown[])[index]])),
      required: names.slice(0, required),
    };
  }
  if (kind === LIST) {
    const [of, traits] =
      Array.isArray(third) && third.length === 2 ? (third as [unknown, unknown]) : [third, undefined];
    const renamed = typeof traits === 'object' && traits !== null ? Object.values(traits)[0] : undefined;
    return { kind: 'list', name, item: typeof renamed === 'string' ? renamed : 'member', of };
  }
  // A simple type of its own name, a password for example.
  if (kind === 0) return shapeOf(model.at(-1));
  throw new Error(`the SDK has a model of the kind ${kind}`);
}

function checkText(kind: Shape['kind'], text: string, at: string): string[] {
  const fits =
    kind === 'string' || kind === 'blob'
      ? true
      : kind === 'boolean'
        ? text === 'true' || text === 'false'
        : kind === 'number'
          ? text !== '' && Number.isFinite(Number(text))
          : /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$/.test(text);
  return fits ? [] : [`${at} is no ${kind}: ${text}`];
}

/** Holds one parameter of a Query request, `Tags.Tag.1.Key`, to the model. */
function checkParameter(model: unknown, path: readonly string[], value: string, at: string): string[] {
  const shape = shapeOf(model);
  const [head = '', ...rest] = path;
  if (shape.kind === 'structure') {
    if (!shape.members?.has(head)) return [`${at}.${head} is not in ${shape.name}`];
    return checkParameter(shape.members.get(head), rest, value, `${at}.${head}`);
  }
  if (shape.kind === 'list') {
    const [index = '', ...inner] = rest;
    if (path.length === 0) return value === '' ? [] : [`${at} is no list`];
    if (head !== shape.item || !/^[1-9]\d*$/.test(index))
      return [`${at}.${head}.${index} is not ${at}.${shape.item}.N`];
    return checkParameter(shape.of, inner, value, `${at}[]`);
  }
  return path.length > 0 ? [`${at} has members`] : checkText(shape.kind, value, at);
}

interface Element {
  readonly name: string;
  readonly children: Element[];
  text: string;
}

/** Reads the XML of an answer; what is not well-formed is thrown. */
function parse(text: string): Element {
  const root: Element = { name: '', children: [], text: '' };
  const open: Element[] = [root];
  let at = 0;
  for (const match of text.matchAll(/<(\/?)([A-Za-z][A-Za-z0-9]*)((?:\s[^<>]*)?)(\/?)>/g)) {
    const [whole, closing, name = '', , empty] = match;
    const top = open.at(-1)!;
    top.text += text.slice(at, match.index);
    at = match.index + whole.length;
    if (closing === '/') {
      if (open.pop()?.name !== name) throw new Error(`</${name}> closes another element`);
      continue;
    }
    const element: Element = { name, children: [], text: '' };
    top.children.push(element);
    if (empty !== '/') open.push(element);
  }
  if (open.length !== 1 || root.children.length !== 1) throw new Error('not one whole element');
  return root.children[0]!;
}

function checkElement(model: unknown, element: Element, at: string): string[] {
  const shape = shapeOf(model);
  if (shape.kind === 'structure') {
    const names = element.children.map(({ name }) => name);
    return [
      ...names.filter((name, index) => names.indexOf(name) !== index).map((name) => `${at}.${name} is there twice`),
      ...element.children.flatMap((child) =>
        shape.members?.has(child.name)
          ? checkElement(shape.members.get(child.name), child, `${at}.${child.name}`)
          : [`${at}.${child.name} is not in ${shape.name}`],
      ),
    ];
  }
  if (shape.kind === 'list') {
    return element.children.flatMap((child) =>
      child.name === shape.item
        ? checkElement(shape.of, child, `${at}[]`)
        : [`${at}.${child.name} is not ${shape.item}`],
    );
  }
  return element.children.length > 0 ? [`${at} has members`] : checkText(shape.kind, element.text, at);
}

/** The wire code and status of every error that the SDK models. */
const ERRORS = new Map(
  Object.values(library).flatMap((model): [string, number][] => {
    if (!Array.isArray(model) || model[0] !== ERROR) return [];
    const traits = Object.values(model[3] as Record<string, unknown>);
    const query = traits.find((trait): trait is [string, number] => Array.isArray(trait));
    return query === undefined ? [] : [query];
  }),
);

/** Refusals that every service of the Query protocol can give; the SDK models only the service's own. */
const COMMON =
  /^(AccessDenied|IncompleteSignature|InvalidAction|InvalidClientTokenId|InvalidParameterCombination|InvalidParameterValue|MalformedInput|MissingAuthenticationToken|MissingParameter|SignatureDoesNotMatch)$/;

interface Contract {
  readonly faults: string[];
  readonly seen: Set<string>;
  wrap(simulator: Simulator): Simulator;
}

function openModels(): Contract {
  const faults: string[] = [];
  const seen = new Set<string>();
  const holdRequest = (operation: string, input: unknown, { text }: SimulatorRequest): void => {
    const parameters = [...new URLSearchParams(text)].filter(([name]) => name !== 'Action' && name !== 'Version');
    for (const [name, value] of parameters)
      faults.push(...checkParameter(input, name.split('.'), value, `${operation}: request`));
    for (const name of shapeOf(input).required ?? []) {
      if (parameters.some(([given]) => given === name || given.startsWith(`${name}.`))) continue;
      faults.push(`${operation}: request.${name} is missing`);
    }
  };
  const holdAnswer = (operation: string, output: unknown, response: SimulatorResponse): void => {
    if (response.headers?.['content-type'] !== 'text/xml') faults.push(`${operation}: answer is no XML`);
    const root = parse(String(response.body));
    if (response.status === 200) {
      const [result, metadata, ...more] = root.children;
      const names = [root.name, result?.name, metadata?.name, more.length];
      if (names.join() !== `${operation}Response,${operation}Result,ResponseMetadata,0`)
        faults.push(`${operation}: answer is ${names}`);
      else faults.push(...checkElement(output, result!, `${operation}: answer`));
      return;
    }
    const error = root.children.find(({ name }) => name === 'Error');
    const code = error?.children.find(({ name }) => name === 'Code')?.text ?? '';
    const status = ERRORS.get(code);
    if (root.name !== 'ErrorResponse' || (status === undefined && !COMMON.test(code)))
      faults.push(`${operation}: no error '${code}'`);
    if (status !== undefined && status !== response.status)
      faults.push(`${operation}: ${code} has status ${response.status}`);
  };
  return {
    faults,
    seen,
    wrap: (simulator) => ({
      ...simulator,
      async handle(request: SimulatorRequest) {
        const operation = simulator.operation?.(request) ?? '';
        const model = library[`${operation}$`] as unknown[] | undefined;
        const response = await simulator.handle(request);
        if (model?.[0] !== OPERATION) {
          faults.push(`${operation}: no such operation`);
          return response;
        }
        seen.add(operation);
        holdRequest(operation, model[4], request);
        holdAnswer(operation, model[5], response);
        return response;
      },
    }),
  };
}

/** Every operation that the adapter sends. */
const USED = [
  'CopyDBClusterSnapshot',
  'CopyDBSnapshot',
  'CreateDBClusterSnapshot',
  'CreateDBInstance',
  'CreateDBSnapshot',
  'DeleteDBClusterSnapshot',
  'DeleteDBSnapshot',
  'DescribeAccountAttributes',
  'DescribeDBClusterAutomatedBackups',
  'DescribeDBClusterSnapshotAttributes',
  'DescribeDBClusterSnapshots',
  'DescribeDBClusters',
  'DescribeDBInstanceAutomatedBackups',
  'DescribeDBInstances',
  'DescribeDBSnapshotAttributes',
  'DescribeDBSnapshots',
  'DescribeEvents',
  'ModifyDBCluster',
  'ModifyDBInstance',
  'RestoreDBClusterFromSnapshot',
  'RestoreDBClusterToPointInTime',
  'RestoreDBInstanceFromDBSnapshot',
  'RestoreDBInstanceToPointInTime',
];

describe('RDS and the models of its SDK', () => {
  const signal = new AbortController().signal;
  let contract: Contract;
  let server: SimulatorServer;
  let simulator: RdsSimulator;
  const clients: RdsClient[] = [];

  async function clientOf(defines: string, id: string): Promise<RdsClient> {
    const type = awsRds.entityTypes[defines]!;
    const identifier = defines === RDS_CLUSTER ? 'db_cluster_identifier' : 'db_instance_identifier';
    const parameters = type.schema.parse({ ...type.sandbox!.parameters, [identifier]: id });
    const base = {
      key: 'sandbox/x',
      namespace: 'sandbox',
      name: 'x',
      defines,
      provider: 'aws-rds',
      labels: {},
      objectives: {},
    };
    const runtime = testRuntime({ per_second: 1000, burst: 1000, concurrent: 8, timeout_ms: 5000 });
    const client = await awsRds.connect(
      { ...parameters, ...base, endpoint: server.origin, parameters } as never,
      runtime,
    );
    clients.push(client);
    return client;
  }

  beforeAll(async () => {
    contract = openModels();
    server = await startSimulators({
      simulators: (clock) => {
        simulator = awsRdsSimulator({ clock });
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
    const input = sdk.CreateDBSnapshotMessage$;
    const of = (name: string, value = 'x') => checkParameter(input, name.split('.'), value, 'x');
    expect([...of('DBSnapshotIdentifier'), ...of('Tags.Tag.1.Key')]).toEqual([]);
    expect(of('Wrong')).toEqual(['x.Wrong is not in CreateDBSnapshotMessage']);
    expect(of('Tags.member.1.Key')).toEqual(['x.Tags.member.1 is not x.Tags.Tag.N']);
    expect(of('Tags.Tag.1.Wrong')).toEqual(['x.Tags[].Wrong is not in Tag']);
    const answer = (text: string) => checkElement(sdk.DBSnapshotMessage$, parse(text), 'x');
    expect(answer('<r><DBSnapshots><DBSnapshot><Encrypted>true</Encrypted></DBSnapshot></DBSnapshots></r>')).toEqual(
      [],
    );
    expect(answer('<r><DBSnapshots><member/></DBSnapshots></r>')).toEqual(['x.DBSnapshots.member is not DBSnapshot']);
    expect(answer('<r><DBSnapshots><DBSnapshot><Encrypted>yes</Encrypted><X/></DBSnapshot></DBSnapshots></r>')).toEqual(
      ['x.DBSnapshots[].Encrypted is no boolean: yes', 'x.DBSnapshots[].X is not in DBSnapshot'],
    );
    expect(() => parse('<a><b></a>')).toThrow(/closes another/);
    expect(ERRORS.get('DBInstanceNotFound')).toBe(404);
  });

  it('maps only codes that there are', () => {
    const known = new Set([...ERRORS.keys()].map((code) => code.replace(/Fault$/, '')));
    expect(Object.keys(RDS_CODES).filter((code) => !known.has(code))).toEqual([]);
  });

  it('reads in the documented shapes, whole lists and single ones', async () => {
    const { instance, cluster, unprotected, restored, gone } = RDS_SANDBOX;
    for (const [defines, id] of [
      [RDS_INSTANCE, instance],
      [RDS_INSTANCE, unprotected],
      [RDS_INSTANCE, restored],
      [RDS_INSTANCE, gone],
      [RDS_CLUSTER, cluster],
      [RDS_CLUSTER, restored],
    ] as const) {
      const client = await clientOf(defines, id);
      await client.find(client.kind, id, signal);
      await client.automatedBackups(signal);
      simulator.state.pageSize = 1;
      const snapshots = await client.snapshots(undefined, signal);
      simulator.state.pageSize = 100;
      await client.snapshots('awsbackup', signal);
      for (const one of snapshots) {
        await client.snapshot(one.id, signal);
        await client.snapshot(one.arn, signal);
        await client.sharedWith(one.id, signal);
      }
      simulator.state.events.push({
        kind: client.kind,
        id,
        region: client.region,
        at: server.clock.now().getTime(),
        message: 'a & <b>',
        category: 'failure',
      });
      expect(await client.events(client.kind, id, signal)).toMatchObject([{ Message: 'a & <b>' }]);
      await client.quotas(signal);
    }
    await (await clientOf(RDS_CLUSTER, cluster)).instance('shop-aurora-1', signal);
  });

  it('changes settings in the documented shapes, and is answered in them while they come into force', async () => {
    const { instance, cluster } = RDS_SANDBOX;
    const { state } = simulator;
    const change = {
      ApplyImmediately: true,
      BackupRetentionPeriod: 21,
      PreferredBackupWindow: '01:00-01:30',
      PreferredMaintenanceWindow: 'Mon:02:00-Mon:02:30',
      DeletionProtection: true,
      CopyTagsToSnapshot: true,
    };
    await granted(async () => {
      for (const client of [await clientOf(RDS_INSTANCE, instance), await clientOf(RDS_CLUSTER, cluster)]) {
        const database = client.kind === 'instance' ? state.instance(instance) : state.cluster(cluster);
        const before = { ...database };
        Object.assign(database, { pendingVersion: '17.2', awsBackup: 'arn:aws:backup:us-east-1:123456789012:x' });
        await client.find(client.kind, client.id, signal);
        expect(await codeOf(client.modify(change, signal))).toBe('INVALID_PARAMETER');
        database.awsBackup = undefined;
        await client.modify(change, signal);
        await client.find(client.kind, client.id, signal);
        expect(await codeOf(client.modify(change, signal))).toBe('INVALID_STATE');
        server.clock.advance(2000);
        const changed = await client.find(client.kind, client.id, signal);
        expect(changed).toMatchObject({ retentionDays: 21, version: '17.2', deletionProtection: true });
        expect(await codeOf(client.modify({ BackupRetentionPeriod: 36 }, signal))).toBe('INVALID_PARAMETER');
        for (const PreferredBackupWindow of ['02:00-03:00', '02:00-02:10', 'nightly']) {
          expect(await codeOf(client.modify({ PreferredBackupWindow }, signal))).toBe('INVALID_PARAMETER');
        }
        simulator.state.pageSize = 1;
        expect((await client.databases(client.kind, signal)).length).toBeGreaterThan(1);
        simulator.state.pageSize = 100;
        Object.assign(database, before);
      }
      const member = await clientOf(RDS_INSTANCE, 'shop-aurora-1');
      expect(await codeOf(member.modify({ BackupRetentionPeriod: 1 }, signal))).toBe('INVALID_PARAMETER');
      const source = await clientOf(RDS_INSTANCE, instance);
      state.instance(RDS_SANDBOX.unprotected).replicaOf = instance;
      expect(await codeOf(source.modify({ BackupRetentionPeriod: 0 }, signal))).toBe('INVALID_PARAMETER');
      state.instance(RDS_SANDBOX.unprotected).replicaOf = undefined;
    });
    server.clearJournal();
  });

  it('writes in the documented shapes, and is answered in them from the first to the last state', async () => {
    const { instance, cluster, region } = RDS_SANDBOX;
    const tags = [{ Key: 'holdfast:request-id', Value: 'a b+c' }];
    const follow = async (client: RdsClient, id: string): Promise<void> => {
      for (const ms of [0, 3100, 2000, 4000]) {
        server.clock.advance(ms);
        await client.find(client.kind, id, signal);
      }
    };
    await granted(async () => {
      for (const client of [await clientOf(RDS_INSTANCE, instance), await clientOf(RDS_CLUSTER, cluster)]) {
        await client.createSnapshot('contract', tags, signal);
        await client.snapshot('contract', signal);
        server.clock.advance(3000);
        const taken = await client.snapshot('contract', signal);
        expect(taken.tags).toEqual(expect.arrayContaining(tags));
        await client.copySnapshot(
          { source: 'contract', target: 'contract-copy', region, kmsKeyId: undefined, tags },
          signal,
        );
        await client.copySnapshot(
          { source: taken.arn, target: 'contract-far', region: 'eu-west-1', kmsKeyId: 'alias/far', tags },
          signal,
        );
        await client.snapshot('contract-far', signal, 'eu-west-1');
        await client.deleteSnapshot('contract', signal);
        await client.snapshot('contract', signal);
        server.clock.advance(1000);
        expect(await codeOf(client.snapshot('contract', signal))).toBe('SNAPSHOT_NOT_FOUND');
        expect(await codeOf(client.createSnapshot('before-upgrade', tags, signal))).toBe('RESOURCE_EXISTS');
        expect(await codeOf(client.createSnapshot('no--name', tags, signal))).toBe('INVALID_PARAMETER');
      }
      const own = await clientOf(RDS_INSTANCE, instance);
      const settings = {
        DBInstanceClass: 'db.m6g.large',
        DBSubnetGroupName: 'private-subnets',
        VpcSecurityGroupIds: ['sg-0a1b2c3d4e5f60718'],
        EnableCloudwatchLogsExports: ['postgresql'],
        MultiAZ: true,
        DeletionProtection: true,
        PubliclyAccessible: false,
        BackupRetentionPeriod: 14,
        PreferredBackupWindow: '03:00-04:00',
        Tags: tags,
      };
      const input = { ...settings, DBInstanceIdentifier: 'contract-a', DBSnapshotIdentifier: 'before-upgrade' };
      await own.restore({ call: 'RestoreDBInstanceFromDBSnapshot', input }, signal);
      await follow(own, 'contract-a');
      expect(await codeOf(own.restore({ call: 'RestoreDBInstanceFromDBSnapshot', input }, signal))).toBe(
        'RESOURCE_EXISTS',
      );
      const moment = {
        ...settings,
        TargetDBInstanceIdentifier: 'contract-b',
        SourceDbiResourceId: simulator.state.instance(instance).resourceId,
        RestoreTime: new Date(server.clock.now().getTime() - 3_600_000),
      };
      await own.restore({ call: 'RestoreDBInstanceToPointInTime', input: moment }, signal);
      await follow(own, 'contract-b');
      const shop = await clientOf(RDS_CLUSTER, cluster);
      await shop.restore(
        {
          call: 'RestoreDBClusterFromSnapshot',
          input: {
            DBClusterIdentifier: 'contract-c',
            SnapshotIdentifier: 'before-upgrade',
            Engine: 'aurora-postgresql',
            EngineVersion: '16.4',
            DBClusterParameterGroupName: 'shop-aurora16',
            ServerlessV2ScalingConfiguration: { MinCapacity: 0.5, MaxCapacity: 4 },
            Tags: tags,
          },
        },
        signal,
      );
      await follow(shop, 'contract-c');
      await shop.restore(
        {
          call: 'RestoreDBClusterToPointInTime',
          input: {
            DBClusterIdentifier: 'contract-d',
            SourceDbClusterResourceId: simulator.state.cluster(cluster).resourceId,
            RestoreType: 'full-copy',
            UseLatestRestorableTime: true,
          },
        },
        signal,
      );
      const member = {
        DBInstanceIdentifier: 'contract-c-1',
        DBClusterIdentifier: 'contract-c',
        Engine: 'aurora-postgresql',
      };
      await shop.createMember({ ...member, DBInstanceClass: 'db.serverless', PromotionTier: 0, Tags: tags }, signal);
      server.clock.advance(4000);
      await shop.instance('contract-c-1', signal);
      await shop.find('cluster', 'contract-c', signal);
      simulator.state.denied.add('CreateDBSnapshot');
      expect(await codeOf(own.createSnapshot('x', tags, signal))).toBe('INSUFFICIENT_PERMISSIONS');
      simulator.state.denied.clear();
      simulator.state.unauthenticated = true;
      expect(await codeOf(own.find('instance', instance, signal))).toBe('AUTHENTICATION_FAILED');
      simulator.state.unauthenticated = false;
    });
    expect(server.writes()).toHaveLength(19);
  });

  it('refuses requests that are not signed for RDS', async () => {
    const body = 'Action=DescribeDBInstances&Version=2014-10-31';
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    const ask = async (more: Record<string, string>) => {
      const response = await fetch(server.origin, { method: 'POST', headers: { ...headers, ...more }, body });
      return [response.status, (await response.text()).match(/<Code>(\w+)<\/Code>/)?.[1]];
    };
    expect(await ask({})).toEqual([403, 'MissingAuthenticationToken']);
    expect(await ask({ authorization: 'AWS4-HMAC-SHA256 nonsense' })).toEqual([400, 'IncompleteSignature']);
    const scope = (service: string) => ({
      authorization: `AWS4-HMAC-SHA256 Credential=AKIA/20261121/us-east-1/${service}/aws4_request, SignedHeaders=host, Signature=${'0'.repeat(64)}`,
      'x-amz-date': '20261121T000000Z',
    });
    expect(await ask(scope('s3'))).toEqual([403, 'SignatureDoesNotMatch']);
    expect(await ask({ ...scope('rds'), 'x-amz-content-sha256': 'f'.repeat(64) })).toEqual([
      403,
      'SignatureDoesNotMatch',
    ]);
    expect((await ask(scope('rds')))[0]).toBe(200);
  });

  it('differed nowhere and saw every operation that the adapter uses', () => {
    expect(contract.faults).toEqual([]);
    expect([...contract.seen].sort()).toEqual(USED);
  });
});
