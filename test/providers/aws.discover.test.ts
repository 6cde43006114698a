import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Discovery } from '../../src/core/provider.ts';
import type { SettingsCheck } from '../../src/core/schemas.ts';
import { awsDynamodb } from '../../src/providers/aws-dynamodb/provider.ts';
import { awsRds, RDS_CLUSTER, RDS_INSTANCE } from '../../src/providers/aws-rds/provider.ts';
import { awsDynamodbSimulator, type DynamoDbState } from '../../src/simulators/aws-dynamodb.ts';
import { awsRdsSimulator, RDS_SANDBOX, type RdsState } from '../../src/simulators/aws-rds.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import * as dynamodbTools from '../../tools/aws-dynamodb.ts';
import * as rdsTools from '../../tools/aws-rds.ts';
import { type Harness, startHarness, VIEWER } from '../support/harness.ts';

const NOWHERE = '/nonexistent/holdfast-test';
/** An environment in which no file of this machine is found. */
const NONE = { AWS_SHARED_CREDENTIALS_FILE: NOWHERE, AWS_CONFIG_FILE: NOWHERE, AWS_EC2_METADATA_DISABLED: 'true' };
const CANARY = 'canary-aws-secret-0a1b2c3d';
const KEYS = { AWS_ACCESS_KEY_ID: 'AKIASANDBOXDISCOVER', AWS_SECRET_ACCESS_KEY: CANARY };
const ALL = { ...NONE, ...KEYS, AWS_REGION: 'us-east-1' };

let server: SimulatorServer;
let rds: RdsState;
let dynamodb: DynamoDbState;
let open: Harness[];

beforeEach(async () => {
  open = [];
  server = await startSimulators({
    simulators: (clock) => {
      const simulators = [awsRdsSimulator({ clock }), awsDynamodbSimulator({ clock })] as const;
      [rds, dynamodb] = [simulators[0].state, simulators[1].state];
      return simulators;
    },
  });
});
afterEach(async () => {
  for (const harness of open) await harness.close();
  await server.close();
});

async function start(
  secrets: Record<string, string>,
  entities: Parameters<typeof startHarness>[0]['entities'] = [],
): Promise<Harness> {
  const harness = await startHarness({ modules: { awsRds: rdsTools, awsDynamodb: dynamodbTools }, entities, secrets });
  open.push(harness);
  return harness;
}

async function discover(
  provider: 'aws-rds' | 'aws-dynamodb',
  secrets: Record<string, string> = ALL,
  access: Record<string, unknown> = {},
): Promise<Discovery | undefined> {
  const { engine } = await start(secrets);
  return engine.discover({ principal: VIEWER, provider, access, endpoint: server.origin });
}

/** Loads what was found as entities and holds each against the simulator. */
async function check({ found }: Discovery): Promise<SettingsCheck[]> {
  const types = { ...awsRds.entityTypes, ...awsDynamodb.entityTypes };
  const entities = found.map(({ defines, name, parameters }) => {
    const type = types[defines]!;
    expect(type.schema.safeParse(parameters).error).toBeUndefined();
    expect(name).toMatch(/^[a-z0-9]+(-[a-z0-9]+)*$/);
    return { key: `${type.sandbox!.name}/${name}`, defines, parameters, endpoint: server.origin };
  });
  const { engine } = await start(ALL, entities);
  return Promise.all(
    entities.map(async ({ key }) => {
      const outcome = await engine.call({ principal: VIEWER, entity: key, action: 'check-settings', input: {} });
      return (outcome as unknown as { output: SettingsCheck }).output;
    }),
  );
}

describe('looking through an AWS account', () => {
  it('finds instances and clusters with their settings, members of clusters left out', async () => {
    rds.pageSize = 1;
    const discovery = (await discover('aws-rds'))!;
    expect(discovery).toMatchObject({ looked: 'AWS account 123456789012, us-east-1', problems: [] });
    expect(discovery.found.map(({ defines, name }) => [defines, name])).toEqual([
      [RDS_INSTANCE, 'orders-postgres'],
      [RDS_INSTANCE, 'legacy-mysql'],
      [RDS_INSTANCE, 'restored-db'],
      [RDS_CLUSTER, 'shop-aurora'],
      [RDS_CLUSTER, 'restored-db'],
    ]);
    expect(discovery.found[0]).toEqual({
      defines: RDS_INSTANCE,
      name: RDS_SANDBOX.instance,
      parameters: {
        region: 'us-east-1',
        db_instance_identifier: RDS_SANDBOX.instance,
        backup_retention_period: 14,
        preferred_backup_window: '03:00-04:00',
        preferred_maintenance_window: 'sun:05:00-sun:06:00',
        storage_encrypted: true,
        deletion_protection: true,
        copy_tags_to_snapshot: true,
      },
      notes: ['postgres 16.4.'],
    });
    expect(discovery.found[1]?.notes.join(' ')).toMatch(/backups are off.*Deletion protection is off.*not encrypted/);
    expect(discovery.found[1]?.parameters).toMatchObject({ backup_retention_period: 0, storage_encrypted: false });
    for (const one of await check(discovery)) expect(one).toMatchObject({ in_line: true });
    expect(JSON.stringify(discovery)).not.toContain(CANARY);
  });

  it('finds tables over all pages, with their settings', async () => {
    dynamodb.pageSize = 2;
    const discovery = (await discover('aws-dynamodb'))!;
    expect(discovery).toMatchObject({ looked: 'AWS account 123456789012, us-east-1', problems: [] });
    expect(discovery.found.map(({ name, parameters, notes }) => [name, parameters, notes])).toEqual([
      [
        'events',
        {
          region: 'us-east-1',
          table_name: 'events',
          point_in_time_recovery_enabled: true,
          recovery_period_in_days: 7,
          deletion_protection_enabled: false,
        },
        ['Deletion protection is off.', 'A global table, with replicas in eu-west-1.'],
      ],
      [
        'legacy-sessions',
        expect.objectContaining({ point_in_time_recovery_enabled: false }),
        [expect.stringMatching(/^Point-in-time recovery is off/), 'Deletion protection is off.'],
      ],
      ['orders', expect.objectContaining({ recovery_period_in_days: 14 }), []],
      ['orders-before-release', expect.anything(), expect.anything()],
    ]);
    for (const one of await check(discovery)) expect(one).toMatchObject({ in_line: true });
  });

  it('takes what it is given before the environment', async () => {
    const access = {
      region: 'us-east-1',
      access_key_id: { secret: 'env', name: 'AWS_ACCESS_KEY_ID' },
      secret_access_key: { secret: 'env', name: 'AWS_SECRET_ACCESS_KEY' },
    };
    const discovery = await discover('aws-rds', { ...NONE, AWS_REGION: 'eu-west-1', ...KEYS }, access);
    expect(discovery).toMatchObject({ looked: 'AWS account 123456789012, us-east-1' });
    expect(await discover('aws-rds', { ...NONE, ...KEYS, AWS_DEFAULT_REGION: 'eu-west-1' })).toEqual({
      looked: 'AWS, eu-west-1',
      found: [],
      problems: [],
    });
  });

  it.each(['aws-rds', 'aws-dynamodb'] as const)(
    'asks nothing without credentials, and says what else is missing: %s',
    async (provider) => {
      expect(await discover(provider, { ...NONE, AWS_REGION: 'us-east-1' })).toBeUndefined();
      expect(await discover(provider, { ...NONE, ...KEYS })).toMatchObject({
        found: [],
        problems: [expect.stringContaining('AWS_REGION')],
      });
      expect(server.journal).toEqual([]);
    },
  );

  it.each(['aws-rds', 'aws-dynamodb'] as const)(
    'ends where AWS does not take the credentials: %s',
    async (provider) => {
      rds.unauthenticated = true;
      dynamodb.unauthenticated = true;
      await expect(discover(provider)).rejects.toMatchObject({ code: 'AUTHENTICATION_FAILED' });
    },
  );

  it('shows what may be seen, and lists the rest as problems', async () => {
    rds.denied.add('DescribeDBClusters');
    const instances = (await discover('aws-rds'))!;
    expect(instances.found).toHaveLength(3);
    expect(instances.problems).toEqual([
      expect.stringMatching(/^DB clusters are not shown: .*the credentials lack rds:DescribeDBClusters$/),
    ]);
    dynamodb.denied.add('DescribeContinuousBackups');
    const tables = (await discover('aws-dynamodb'))!;
    expect(tables.problems).toHaveLength(4);
    expect(tables.found[2]).toMatchObject({
      name: 'orders',
      parameters: { region: 'us-east-1', table_name: 'orders' },
      notes: ['Its settings could not be read.'],
    });
    dynamodb.denied.add('ListTables');
    expect(await discover('aws-dynamodb')).toMatchObject({
      found: [],
      problems: [expect.stringMatching(/^tables are not shown/)],
    });
  });

  it('says what cannot be restored, and who else keeps backups', async () => {
    const orders = rds.instance(RDS_SANDBOX.instance);
    Object.assign(orders, { engine: 'custom-oracle-ee', awsBackup: 'arn:aws:backup:us-east-1:123456789012:x' });
    const { found = [] } = (await discover('aws-rds')) ?? {};
    expect(found[0]?.notes).toEqual([
      'custom-oracle-ee 16.4.',
      'Holdfast does not restore this engine.',
      'AWS Backup manages its backups.',
    ]);
  });
});
