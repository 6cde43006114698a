import { awsDynamodbSimulator } from './aws-dynamodb.ts';
import { awsRdsSimulator } from './aws-rds.ts';
import { azureCosmosSimulator } from './azure-cosmos.ts';
import { digitaloceanSimulator } from './digitalocean.ts';
import { gcpBigQuerySimulator } from './gcp-bigquery.ts';
import { gcpCloudSqlSimulator } from './gcp-cloud-sql.ts';
import { gcpFirestoreSimulator } from './gcp-firestore.ts';
import { mongodbAtlasSimulator } from './mongodb-atlas.ts';
import { neonSimulator } from './neon.ts';
import { redisCloudSimulator } from './redis-cloud.ts';
import type { Simulator, SimulatorOptions } from './simulator.ts';

/** Makes every provider's simulator on one clock. */
export const simulators: readonly ((options: SimulatorOptions) => Simulator)[] = [
  awsDynamodbSimulator,
  awsRdsSimulator,
  azureCosmosSimulator,
  digitaloceanSimulator,
  gcpBigQuerySimulator,
  gcpCloudSqlSimulator,
  gcpFirestoreSimulator,
  mongodbAtlasSimulator,
  neonSimulator,
  redisCloudSimulator,
];
