export * as awsDynamodb from './aws-dynamodb.ts';
export * as azureCosmos from './azure-cosmos.ts';
export * as digitalocean from './digitalocean.ts';
export * as fleet from './fleet.ts';
export * as gcpCloudSql from './gcp-cloud-sql.ts';
export * as mongodbAtlas from './mongodb-atlas.ts';
export * as postgresql from './postgresql.ts';
export * as redisCloud from './redis-cloud.ts';
