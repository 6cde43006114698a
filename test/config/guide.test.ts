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

// The others, of every type; what an ellipsis stands for in the guide is filled in with what the type needs.
const OTHERS = `my-mysql-db:
  defines: aws-rds/rds-instance
  region: us-east-1
  db_instance_identifier: my-mysql-instance
  engine: mysql
  backup_retention_period: 7
  preferred_backup_window: "07:00-08:00"
  skip_final_snapshot: false
  final_db_snapshot_identifier: "final-snapshot-name"
production-postgres:
  defines: aws-rds/rds-instance
  region: us-west-2
  db_instance_identifier: prod-postgres
  db_instance_class: db.m5.large
  engine: postgres
  master_username: admin
  allocated_storage: 100
  backup_retention_period: 14
  preferred_backup_window: "03:00-04:00"
  preferred_maintenance_window: "sun:05:00-sun:06:00"
  storage_encrypted: true
  skip_final_snapshot: false
  final_db_snapshot_identifier: prod-postgres-final
  deletion_protection: true
my-table:
  defines: aws-dynamo-db/dynamo-db-table
  region: us-east-1
  table_name: my-production-table
  point_in_time_recovery_enabled: true
  deletion_protection_enabled: true
production-orders:
  defines: aws-dynamo-db/dynamo-db-table
  region: us-east-1
  table_name: production-orders
  attribute_definitions:
    - AttributeName: order_id
      AttributeType: S
  key_schema:
    - AttributeName: order_id
      KeyType: HASH
  billing_mode: PAY_PER_REQUEST
  point_in_time_recovery_enabled: true
  deletion_protection_enabled: true
  tags:
    Environment: production
    BackupEnabled: "true"
cosmos-account:
  defines: azure-cosmosdb/database-account
  subscription_id: "your-subscription-id"
  resource_group_name: "your-rg"
  account_name: "my-cosmos-account"
  locations:
    - location_name: "East US"
      failover_priority: 0
  backup_policy:
    backup_type: "Continuous"
    continuous_tier: "Continuous7Days"
cosmos-continuous:
  defines: azure-cosmosdb/database-account
  subscription_id: "your-subscription-id"
  resource_group_name: "your-rg"
  account_name: "my-cosmos-account"
  backup_policy:
    backup_type: "Continuous"
    continuous_tier: "Continuous30Days"
cosmos-periodic:
  defines: azure-cosmosdb/database-account
  subscription_id: "your-subscription-id"
  resource_group_name: "your-rg"
  account_name: "my-cosmos-account"
  backup_policy:
    backup_type: "Periodic"
    periodic_interval_minutes: 120
    periodic_retention_hours: 168
    backup_storage_redundancy: "Geo"
my-essentials-db:
  defines: redis-cloud/essentials-database
  name: my-redis-db
  subscription_id: "\${env:SUBSCRIPTION}"
  data_persistence: "aof-every-1-second"
  periodic_backup_path: "s3://my-bucket/redis-backups/"
my-pro-db:
  defines: redis-cloud/pro-database
  name: production-redis
  subscription_id: "\${env:SUBSCRIPTION}"
  dataset_size_in_gb: 10
  data_persistence: "aof-every-1-second"
  replication: true
  remote_backup:
    active: true
    interval: "every-12-hours"
    time_utc: "14:00"
    storage_type: "aws-s3"
    storage_path: "s3://my-bucket/redis-pro-backups/"
my-do-postgres:
  defines: digitalocean-database/database
  name: my-postgres-cluster
  engine: pg
  version: "16"
  num_nodes: 1
  region: nyc1
  size: db-s-1vcpu-1gb
my-firestore:
  defines: gcp/firestore
  database_id: my-database
  location: us-central1
  database_type: FIRESTORE_NATIVE
  point_in_time_recovery: POINT_IN_TIME_RECOVERY_ENABLED
  delete_protection: DELETE_PROTECTION_ENABLED
my-dataset:
  defines: gcp/big-query
  dataset: my_analytics_dataset
  location: US
  dataset_description: Analytics data warehouse
  default_table_expiration_ms: 0
  max_time_travel_hours: 168
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

  it('of every other type load too, and no backup parameter of theirs is passed over', () => {
    const { faults, entities } = read(OTHERS);
    expect(faults.map(faultText)).toEqual([]);
    const backup = /backup|snapshot|retention|recovery|protection|encrypted|persistence|time_travel|expiration/;
    expect(entities.flatMap(({ ignored }) => ignored.filter((name) => backup.test(name)))).toEqual([]);
    expect(new Set(entities.map(({ base }) => base.defines)).size).toBe(8);
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
