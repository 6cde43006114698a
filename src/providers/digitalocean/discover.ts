import type { JsonObject } from '../../core/json.ts';
import type { Discovered, Discovery, DiscoveryContext } from '../../core/provider.ts';
import { known } from '../../core/wire.ts';
import { type Attempt, attempts, entityName, secretIn } from '../discovery.ts';
import { type BackupConfig, DigitalOceanClient } from './client.ts';
import { configOf, daysOf } from './declared.ts';
import { type Cluster, type FirewallRule, supportOf } from './map.ts';

/**
 * Looks through the database clusters of a token's team; undefined without a token.
 * @throws {HoldfastError} AUTHENTICATION_FAILED where DigitalOcean does not take the token
 */
export async function discover({
  access,
  endpoint,
  runtime,
  signal,
}: DiscoveryContext): Promise<Discovery | undefined> {
  const token = secretIn(access, 'token');
  if (token === undefined && runtime.credential('DIGITALOCEAN_TOKEN') === undefined) return undefined;
  const client = new DigitalOceanClient({ token, endpoint }, runtime);
  const problems: string[] = [];
  const attempt = attempts(problems);
  const clusters = (await attempt(() => client.clusters(signal), 'the clusters are not shown')) ?? [];
  const found: Discovered[] = [];
  for (const cluster of clusters) found.push(await lookAt(client, cluster, attempt, signal));
  return { looked: `DigitalOcean, ${clusters.length} database clusters`, found, problems };
}

async function lookAt(
  client: DigitalOceanClient,
  cluster: Cluster,
  attempt: Attempt,
  signal: AbortSignal,
): Promise<Discovered> {
  const has = supportOf(cluster.engine);
  const [config, rules] = [
    await attempt(() => configOf({ client, signal }, cluster), `the configuration of ${cluster.id} is not shown`),
    has.backups === 'no'
      ? undefined
      : await attempt(() => client.rules(cluster.id, signal), `the trusted sources of ${cluster.id} are not shown`),
  ];
  return toFound(cluster, config, rules);
}

function toFound(
  cluster: Cluster,
  config: BackupConfig | undefined,
  rules: readonly FirewallRule[] | undefined,
): Discovered {
  const { backups, point_in_time, has_config, why } = supportOf(cluster.engine);
  const { name, id, engine, version, num_nodes, region, size } = cluster;
  return {
    defines: 'digitalocean-database/database',
    name: entityName(name),
    parameters: {
      name,
      cluster_id: id,
      engine,
      ...known({ version, num_nodes, region, size }),
      ...(config === undefined ? {} : configured(config)),
    },
    notes: [
      ...(backups === 'no' ? [`${why}: nothing here can be restored.`] : []),
      ...(backups === 'try' ? ['Nothing is documented of the backups of this engine.'] : []),
      ...(point_in_time === 'no' && backups !== 'no'
        ? ['It comes back to a listed backup only, not to a moment.']
        : []),
      ...(has_config && config === undefined ? ['Its configuration could not be read.'] : []),
      ...(rules?.length === 0 ? ['It has no trusted sources: a restored copy is open to every address, too.'] : []),
      ...(cluster.status === 'online' ? [] : ['It is not online: restores have to wait.']),
    ],
  };
}

function configured({ hour, minute, incremental }: BackupConfig): JsonObject {
  const days = daysOf(incremental?.full_days);
  const isKnown = incremental !== undefined && (!incremental.enabled || days.length > 0);
  return {
    ...known({ backup_hour: hour, backup_minute: minute }),
    ...(isKnown
      ? {
          mysql_incremental_backup: {
            enabled: incremental.enabled,
            ...(incremental.enabled ? { full_backup_week_schedule: days.join(',') } : {}),
          },
        }
      : {}),
  };
}
