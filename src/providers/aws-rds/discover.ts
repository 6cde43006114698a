import type { JsonObject } from '../../core/json.ts';
import type { Discovered, Discovery, DiscoveryContext } from '../../core/provider.ts';
import { known } from '../../core/wire.ts';
import { lookThrough } from '../aws-discovery.ts';
import { entityName } from '../discovery.ts';
import { createRdsClient } from './client.ts';
import { actualSettings } from './declared.ts';
import { weaknesses } from './info.ts';
import { canBeRestored, type Database } from './map.ts';
import { RDS_CLUSTER, RDS_INSTANCE } from './provider.ts';

/** Looks through the instances and clusters of a region; undefined without credentials. */
export function discover(context: DiscoveryContext): Promise<Discovery | undefined> {
  const { runtime, signal } = context;
  return lookThrough(context, async (access, attempt) => {
    const client = await createRdsClient({ kind: 'instance', id: '', access, runtime });
    try {
      const [instances = [], clusters = []] = await Promise.all([
        attempt(() => client.databases('instance', signal), 'DB instances are not shown'),
        attempt(() => client.databases('cluster', signal), 'DB clusters are not shown'),
      ]);
      const all = [...instances.filter(isOnItsOwn), ...clusters];
      return { found: all.map((database) => found(database, access.region)), account: all[0]?.account };
    } finally {
      client.close();
    }
  });
}

// A member is backed up with its cluster.
function isOnItsOwn({ instance }: Database): boolean {
  return !instance?.DBClusterIdentifier;
}

function found(database: Database, region: string): Discovered {
  const { id, instance, cluster, kind, engine, version } = database;
  const settings = Object.entries(actualSettings(database)).filter(([, value]) => value !== null);
  return {
    defines: kind === 'instance' ? RDS_INSTANCE : RDS_CLUSTER,
    name: entityName(id),
    parameters: { region, [`db_${kind}_identifier`]: id, ...known(Object.fromEntries(settings)) } as JsonObject,
    notes: [
      `${engine} ${version}.`,
      ...weaknesses(database),
      ...(canBeRestored(kind, engine) ? [] : ['Holdfast does not restore this engine.']),
      ...((instance ?? cluster)?.AwsBackupRecoveryPointArn ? ['AWS Backup manages its backups.'] : []),
    ],
  };
}
