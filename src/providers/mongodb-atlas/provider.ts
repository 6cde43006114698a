import { z } from 'zod';
import type { EntityBase } from '../../core/context.ts';
import { asHoldfastError, HoldfastError } from '../../core/errors.ts';
import { defineProvider, type RecoveryOption } from '../../core/provider.ts';
import { SecretReference } from '../../core/schemas.ts';
import { formatDuration } from '../../core/time.ts';
import { ATLAS_ORIGIN, AtlasClient } from './client.ts';
import { tierError } from './map.ts';
import { restoreWindow } from './window.ts';

const Unit = z.enum(['days', 'weeks', 'months', 'years']);
const Kept = { retention_value: z.number().int().min(1), retention_unit: Unit };
const Interval = z.number().int().min(1).max(40);
/** Snapshots of one frequency: every how many hours, on which weekday, day of the month or month, and how long kept. */
const Item = z.object({ frequency_interval: Interval, ...Kept }).strict();
const DailyItem = z.object({ frequency_interval: z.literal(1).optional(), ...Kept }).strict();
/** One item, several, or an empty list for none of this frequency. */
const Items = z.union([Item, z.array(Item).max(31)]).optional();

const Schedule = z
  .object({
    reference_hour_of_day: z.number().int().min(0).max(23).optional().describe('UTC'),
    reference_minute_of_hour: z.number().int().min(0).max(59).optional(),
    restore_window_days: z.number().int().min(1).optional().describe('Days that point-in-time restores reach back'),
    hourly: z.union([Item, z.array(Item).max(1)]).optional(),
    daily: z.union([DailyItem, z.array(DailyItem).max(1)]).optional(),
    weekly: Items,
    monthly: Items,
    yearly: Items,
  })
  .strict();

const Cluster = z.object({
  name: z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9-]{0,63}$/, 'an Atlas cluster name: letters, digits and hyphens'),
  project_id: z.string().regex(/^[a-f0-9]{24}$/, 'an Atlas project id: 24 hexadecimal digits'),
  /** Declared tier; compared with what the cluster has. */
  instance_size: z.string().optional(),
  backup_enabled: z.boolean().optional().describe('Cloud backup'),
  pit_enabled: z.boolean().optional().describe('Continuous backup, for restores to a point in time'),
  termination_protection_enabled: z.boolean().optional(),
  backup_schedule: Schedule.optional(),
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
        backup_enabled: true,
        pit_enabled: true,
        termination_protection_enabled: true,
        backup_schedule: {
          restore_window_days: 7,
          daily: { retention_value: 30, retention_unit: 'days' },
          monthly: { frequency_interval: 40, retention_value: 12, retention_unit: 'months' },
        },
      },
      sandbox: {
        name: 'mongodb-atlas',
        parameters: {
          name: 'sandbox-cluster',
          project_id: SANDBOX_PROJECT,
          instance_size: 'M10',
          client_id: 'mdb_sa_id_sandbox',
          client_secret: '${env:MONGODB_ATLAS_CLIENT_SECRET}',
          backup_enabled: true,
          pit_enabled: true,
          termination_protection_enabled: true,
          backup_schedule: {
            restore_window_days: 7,
            daily: { retention_value: 7, retention_unit: 'days' },
            weekly: { frequency_interval: 6, retention_value: 4, retention_unit: 'weeks' },
          },
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
        base: (entity.endpoint ?? ATLAS_ORIGIN).replace(/\/+$/, ''),
        cluster: clusterOf(entity),
        project: entity.project_id,
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
      options.push(
        deployment.kind === 'gone'
          ? {
              title: `Restore the snapshot of ${moment.toISOString()} that '${deployment.cluster}', which is deleted, left behind; put the name of a cluster in`,
              moment: moment.toISOString(),
              loses: 'everything in the cluster that it is restored onto: use an empty one',
              risk: 'overwrite',
              // Angle brackets are in no name of a cluster, so that this is never run as it stands.
              call: { action: 'restore', input: { snapshot_id: snapshot.id, target_cluster: '<cluster>' } },
            }
          : {
              title: `Restore '${deployment.cluster}' in place from the snapshot of ${moment.toISOString()}`,
              moment: moment.toISOString(),
              loses: `everything written to '${deployment.cluster}' in the last ${age}`,
              risk: 'overwrite',
              call: { action: 'restore', input: { snapshot_id: snapshot.id } },
            },
      );
    }
    return options;
  },

  settings: {
    about: {
      instance_size: 'The tier, which decides what backups there are; Holdfast never changes it.',
      backup_enabled: 'Whether Atlas takes snapshots; switching it off is `weaken`.',
      pit_enabled: 'Whether the cluster can go back to a point in time; switching it off is `weaken`.',
      termination_protection_enabled: 'Whether the cluster is safe from deletion; switching it off is `weaken`.',
      'backup_schedule.reference_hour_of_day': 'The hour of the snapshots, UTC.',
      'backup_schedule.reference_minute_of_hour': 'The minute of the snapshots.',
      'backup_schedule.restore_window_days': 'Days that point-in-time restores reach back; fewer is `weaken`.',
      'backup_schedule.hourly': 'Snapshots every so many hours; rarer, or kept for less, is `weaken`.',
      'backup_schedule.daily': 'Daily snapshots; none, or kept for less, is `weaken`.',
      'backup_schedule.weekly': 'Weekly snapshots, 1 is Monday; fewer, or kept for less, is `weaken`.',
      'backup_schedule.monthly':
        'Monthly snapshots, 40 is the last day of the month; fewer, or kept for less, is `weaken`.',
      'backup_schedule.yearly':
        'Snapshots on the first day of a month, once a year; fewer, or kept for less, is `weaken`.',
    },
    read: async (context) => (await import('./declared.ts')).readSettings(context),
    write: async (context, write, findings) => (await import('./declared.ts')).writeSettings(context, write, findings),
    patience_seconds: 1800,
  },
  guide: async () => (await import('./guide.ts')).guide,
  discover: async (context) => (await import('./discover.ts')).discover(context),

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
