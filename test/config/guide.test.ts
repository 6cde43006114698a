import { describe, expect, it } from 'vitest';
import type { EntityTypes } from '../../src/config/entities.ts';
import { faultText, loadConfig } from '../../src/config/load.ts';
import { collect } from '../../src/engine/registry.ts';
import * as tools from '../../tools/index.ts';

const entityTypes: EntityTypes = Object.fromEntries(
  [...collect(tools).entityTypes].map(([defines, { provider, type }]) => [defines, { provider: provider.id, type }]),
);

// Entities as the action guide has them, expressions and all.
const ATLAS = `production-cluster:
  defines: mongodb-atlas/cluster
  name: production-cluster
  project_id: <- connection-target("project") entity-state get-member("id")
  provider: AWS
  region: US_EAST_1
  instance_size: M10   # Required for backup operations
  secret_ref: mongodb-atlas-token
`;
const REDIS_SUBSCRIPTION = `my-subscription:
  defines: redis-cloud/essentials-subscription
  name: My-Subscription
  provider: AWS
  region: us-east-1
  size: 30
  support_instant_and_daily_backups: true   # Enable backup capability
  support_data_persistence: true            # Enable data persistence
`;
const REDIS_PRO = `production-redis:
  defines: redis-cloud/pro-database
  name: production-redis
  subscription_id: <- connection-target("sub") entity-state get-member("id")
  dataset_size_in_gb: 25
  data_persistence: "aof-every-1-second"
  replication: true
  enable_tls: true
  remote_backup:
    active: true
    interval: "every-6-hours"
    storage_type: "aws-s3"
    storage_path: "s3://prod-backups/redis/production/"
`;
const CLOUD_SQL = `my-postgres:
  defines: gcp/cloud-sql-instance
  name: my-postgres-instance
  database_version: POSTGRES_14
  tier: db-custom-2-4096
  region: us-central1
  backup_start_time: "03:00"              # Enables automated daily backups
  point_in_time_recovery_enabled: true    # Enable PITR (7-day recovery window)
`;

const read = (...entities: string[]) =>
  loadConfig({
    text: `namespace: my-app\n${entities.join('')}`,
    entityTypes,
    strict: false,
    baseDirectory: '/nowhere',
  });

describe('entities of the action guide', () => {
  it('are read as they are where they hold no expression', () => {
    const report = read(REDIS_SUBSCRIPTION, CLOUD_SQL);
    expect(report.faults.map(faultText)).toEqual([]);
    expect(report.entities.map(({ base }) => [base.key, base.parameters?.['name']])).toEqual([
      ['my-app/my-subscription', 'My-Subscription'],
      ['my-app/my-postgres', 'my-postgres-instance'],
    ]);
    expect(report.entities[0]!.ignored).toEqual(['provider', 'region', 'size']);
  });

  it('have only what cannot be resolved named, each at its place with what to write', () => {
    const { faults } = read(ATLAS, REDIS_PRO);
    expect(faults.map(faultText)).toEqual([
      "holdfast.yaml:5:15: my-app/production-cluster.project_id: 'project_id' holds an expression that Holdfast cannot resolve: <- connection-target…",
      "holdfast.yaml:9:15: my-app/production-cluster.secret_ref: 'secret_ref' must name a secret, not hold it",
      "holdfast.yaml:13:20: my-app/production-redis.subscription_id: 'subscription_id' holds an expression that Holdfast cannot resolve: <- connection-target…",
    ]);
    expect(faults[0]?.suggestion).toBe('Write the value itself or ${env:PROJECT_ID}.');
  });

  it('are sound once the expressions are replaced', () => {
    const { faults, entities } = read(
      ATLAS.replace(/<- .*/, '${env:PROJECT_ID}').replace('mongodb-atlas-token', '${env:ATLAS_SECRET}'),
      REDIS_PRO.replace(/<- .*/, '${env:SUBSCRIPTION}'),
    );
    expect(faults.map(faultText)).toEqual([]);
    expect(entities.map(({ deferred }) => deferred)).toEqual([true, true]);
  });
});

describe('every entity type', () => {
  it.each(Object.keys(entityTypes))(
    '%s names its parameters in snake_case, and none both used and ignored',
    (defines) => {
      const { type } = entityTypes[defines]!;
      const own = Object.keys(type.schema.shape);
      expect(own.filter((key) => !/^[a-z][a-z0-9_]*$/.test(key))).toEqual([]);
      expect(type.ignored.filter((key) => own.includes(key))).toEqual([]);
      // Holdfast's own fields; a parameter of that name could not be told from them.
      expect(own.filter((key) => ['defines', 'labels', 'objectives', 'key', 'namespace'].includes(key))).toEqual([]);
    },
  );
});
