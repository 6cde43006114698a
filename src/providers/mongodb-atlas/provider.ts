import { z } from 'zod';
import { asHoldfastError, HoldfastError } from '../../core/errors.ts';
import { defineProvider, type EntityBase, type RecoveryOption } from '../../core/provider.ts';
import { SecretReference } from '../../core/schemas.ts';
import { formatDuration } from '../../core/time.ts';
import { AtlasClient } from './client.ts';
import { tierError } from './map.ts';
import { restoreWindow } from './window.ts';

const Cluster = z.object({
  name: z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9-]{0,63}$/, 'an Atlas cluster name: letters, digits and hyphens'),
  project_id: z.string().regex(/^[a-f0-9]{24}$/, 'an Atlas project id: 24 hexadecimal digits'),
  /** Declared tier; compared with what the cluster has. */
  instance_size: z.string().optional(),
  /** The guide's name for the client secret. */
  secret_ref: SecretReference.optional(),
  client_id: z.union([SecretReference, z.string().min(1)]).optional(),
  client_secret: SecretReference.optional(),
  public_key: z.union([SecretReference, z.string().min(1)]).optional(),
  private_key: SecretReference.optional(),
});

/** The parameters of a `mongodb-atlas/cluster`. */
export type AtlasEntity = z.output<typeof Cluster>;

const SANDBOX_PROJECT = '64f0a1b2c3d4e5f607182930';

/** MongoDB Atlas: dedicated clusters, replica sets and sharded ones, and Flex clusters. */
export const mongodbAtlas = defineProvider<AtlasEntity, AtlasClient>({
  id: 'mongodb-atlas',
  title: 'MongoDB Atlas',
  entityTypes: {
    'mongodb-atlas/cluster': {
      title: 'A MongoDB Atlas cluster: M10 and higher, sharded or not, or Flex',
      schema: Cluster,
      ignored: ['provider', 'region', 'allow_ips', 'cluster_type', 'disk_size_gb', 'tags'],
      example: {
        defines: 'mongodb-atlas/cluster',
        name: 'production-cluster',
        project_id: SANDBOX_PROJECT,
        instance_size: 'M10',
        client_id: '${env:MONGODB_ATLAS_CLIENT_ID}',
        secret_ref: '${env:MONGODB_ATLAS_CLIENT_SECRET}',
      },
      sandbox: {
        name: 'mongodb-atlas',
        parameters: {
          name: 'sandbox-cluster',
          project_id: SANDBOX_PROJECT,
          instance_size: 'M10',
          client_id: 'mdb_sa_id_sandbox',
          client_secret: '${env:MONGODB_ATLAS_CLIENT_SECRET}',
        },
      },
    },
  },
  cannot: {},
  // Atlas publishes buckets for each endpoint set, the smallest around 10 calls a second; answers carry what is left.
  limits: { per_second: 8, burst: 16, concurrent: 6, timeout_ms: 30_000 },

  async connect(entity, runtime) {
    return new AtlasClient(
      {
        base: (entity.endpoint ?? 'https://cloud.mongodb.com').replace(/\/+$/, ''),
        cluster: clusterOf(entity),
        project: entity.project_id,
        instance_size: entity.instance_size,
        client_id: entity.client_id,
        client_secret: entity.client_secret,
        secret_ref: entity.secret_ref,
        public_key: entity.public_key,
        private_key: entity.private_key,
      },
      runtime,
    );
  },

  async recoveryOptions({ client, runtime, signal }, at) {
    const deployment = await client.deployment(client.own, signal);
    if (deployment.kind === 'free') throw tierError(deployment, 'backups');
    const snapshots = (await client.snapshots(deployment, signal)).filter(({ restorable }) => restorable);
    const now = runtime.now();
    const wanted = at ?? now;
    const options: RecoveryOption[] = [];
    const window = await restoreWindow(client, deployment, snapshots, now, signal);
    if (window !== undefined && wanted >= window.earliest) {
      const moment = new Date(Math.floor(Math.min(wanted.getTime(), window.latest.getTime()) / 1000) * 1000);
      options.push({
        title: `Restore '${deployment.cluster}' in place to a point in time`,
        moment: moment.toISOString(),
        loses: `everything written to '${deployment.cluster}' after ${moment.toISOString()}`,
        risk: 'overwrite',
        call: { action: 'restore', input: { restore_timestamp: moment.toISOString() } },
      });
    }
    const usable = snapshots.filter(({ created_at }) => created_at !== undefined && new Date(created_at) <= wanted);
    for (const snapshot of usable.slice(0, 5)) {
      const moment = new Date(snapshot.created_at as string);
      const age = formatDuration((now.getTime() - moment.getTime()) / 1000);
      options.push({
        title: `Restore '${deployment.cluster}' in place from the snapshot of ${moment.toISOString()}`,
        moment: moment.toISOString(),
        loses: `everything written to '${deployment.cluster}' in the last ${age}`,
        risk: 'overwrite',
        call: { action: 'restore', input: { snapshot_id: snapshot.id } },
      });
    }
    return options;
  },

  toError: asHoldfastError,
});

/**
 * The name of the cluster at Atlas. The entity has a name of its own, and one must never stand for the other: a call
 * would reach another cluster.
 */
function clusterOf(entity: EntityBase): string {
  const name = entity.parameters?.['name'];
  if (typeof name === 'string') return name;
  throw new HoldfastError('CONFIG_INVALID', `entity '${entity.key}' does not name its cluster`, {
    hint: "Give the entity the parameter name, the cluster's name at MongoDB Atlas.",
  });
}
