import { describe, expect, it } from 'vitest';
import { collect } from '../../src/engine/registry.ts';
import { awsDynamodb } from '../../src/providers/aws-dynamodb/provider.ts';
import { awsRds } from '../../src/providers/aws-rds/provider.ts';
import * as dynamodbTools from '../../tools/aws-dynamodb.ts';
import * as rdsTools from '../../tools/aws-rds.ts';

/** A statement as IAM reads it. */
interface Statement {
  Effect: string;
  Action: string[];
  Resource: string | string[];
  Condition?: object;
}

const guides = [
  ['RDS', awsRds, { awsRds: rdsTools }],
  ['DynamoDB', awsDynamodb, { awsDynamodb: dynamodbTools }],
] as const;

const statementsOf = (policy: string): Statement[] => {
  const document = JSON.parse(policy) as { Version: string; Statement: Statement[] };
  expect(document.Version).toBe('2012-10-17');
  return document.Statement;
};
const granted = (policy: string): string[] =>
  statementsOf(policy)
    .flatMap(({ Action }) => Action)
    .sort();

describe.each(guides)('the guide to %s', (_, provider, modules) => {
  it('has the permissions of every action, and of no other', async () => {
    const { permissions } = await provider.guide!();
    const actions = collect(modules).actions.map(({ name }) => name);
    expect(Object.keys(permissions).sort()).toEqual(['*', ...actions].sort());
  });

  it('writes a policy that grants exactly what is asked for, and nothing everywhere that changes anything', async () => {
    const { permissions, policy } = await provider.guide!();
    const all = [...new Set(Object.values(permissions).flat())];
    expect(granted(policy(all))).toEqual([...all].sort());
    for (const { Effect, Action, Resource } of statementsOf(policy(all))) {
      expect(Effect).toBe('Allow');
      if (Resource !== '*') continue;
      expect(Action.filter((action) => !/:(Describe|List|Get)/.test(action))).toEqual([]);
    }
  });

  it('says its parts in whole sentences', async () => {
    const { behaviour, limits, credentials } = await provider.guide!();
    for (const sentence of [...behaviour, ...limits]) expect(sentence).toMatch(/^[A-Z0-9].*\.$/);
    expect(credentials.length).toBeGreaterThan(2);
  });
});

describe('the policy', () => {
  it('of an instance grants nothing on clusters, and of a cluster nothing on instances but its members', async () => {
    const { permissions, policy } = await awsRds.guide!();
    const all = Object.values(permissions).flat();
    const instance = policy(all, { region: 'eu-west-1', db_instance_identifier: 'Orders' });
    expect(granted(instance).join()).not.toContain('Cluster');
    expect(statementsOf(instance)).toContainEqual({
      Effect: 'Allow',
      Action: ['rds:ModifyDBInstance'],
      Resource: 'arn:aws:rds:eu-west-1:*:db:orders',
    });
    const cluster = granted(policy(all, { region: 'eu-west-1', db_cluster_identifier: 'shop' }));
    expect(cluster).toContain('rds:CreateDBInstance');
    expect(cluster).toContain('rds:DescribeDBInstances');
    expect(cluster.filter((action) => /DBSnapshot|ModifyDBInstance|RestoreDBInstance/.test(action))).toEqual([]);
  });

  it('of a table lets nothing be written but copies that are named after it', async () => {
    const { permissions, policy } = await awsDynamodb.guide!();
    const statements = statementsOf(policy(permissions['restore']!, { region: 'cn-north-1', table_name: 'orders' }));
    const writing = statements.filter(({ Action }) => Action.includes('dynamodb:PutItem'));
    expect(writing.map(({ Resource }) => Resource)).toEqual([
      'arn:aws-cn:dynamodb:cn-north-1:*:table/orders-restore-*',
    ]);
    const apply = policy(permissions['apply-settings']!, { region: 'eu-west-1', table_name: 'orders' });
    expect(statementsOf(apply).map(({ Resource }) => Resource)).toEqual(['arn:aws:dynamodb:eu-west-1:*:table/orders']);
  });
});
