import type { JsonObject } from '../../core/json.ts';
import type { Discovered, Discovery, DiscoveryContext } from '../../core/provider.ts';
import { cleanText } from '../../core/text.ts';
import { entityName } from '../discovery.ts';
import { lookThroughProject } from '../google-discovery.ts';
import { createCloudSqlClient } from './client.ts';
import { hasPitr, type Instance, isUsable } from './map.ts';
import { CLOUD_SQL_ORIGIN, CLOUD_SQL_SCOPE } from './provider.ts';

const PAGES = 20;

/** Looks through the instances of a project; undefined without credentials. */
export function discover(context: DiscoveryContext): Promise<Discovery | undefined> {
  const { signal } = context;
  const api = { origin: CLOUD_SQL_ORIGIN, scope: CLOUD_SQL_SCOPE };
  return lookThroughProject(context, api, async (access, attempt) => {
    const client = await createCloudSqlClient({ ...access, instance: '' });
    const found: Discovered[] = [];
    await attempt(async () => {
      let token: string | undefined;
      for (let page = 0; page < PAGES; page += 1) {
        const { items, next } = await client.listInstances(token, signal);
        // A replica is backed up with its primary.
        for (const instance of items) if (!instance.masterInstanceName) found.push(toFound(instance, access.project));
        if (next === undefined) return;
        token = next;
      }
    }, 'not all instances are shown');
    return found;
  });
}

function toFound(instance: Instance, project: string): Discovered {
  const name = cleanText(instance.name, 100);
  const settings = instance.settings ?? {};
  const backups = settings.backupConfiguration ?? {};
  const final = settings.finalBackupConfig;
  const count = backups.backupRetentionSettings?.retainedBackups;
  const logDays = backups.transactionLogRetentionDays;
  const start = cleanText(backups.startTime, 10);
  const automated = backups.enabled === true;
  const pitr = hasPitr(instance);
  const text = (key: string, value: string | null | undefined): JsonObject =>
    value ? { [key]: cleanText(value, 60) } : {};
  const keptDays = final?.retentionDays;
  return {
    defines: 'gcp/cloud-sql-instance',
    name: entityName(name),
    parameters: {
      project,
      name,
      ...text('region', instance.region),
      ...text('database_version', instance.databaseVersion),
      ...(automated && /^([01]\d|2[0-3]):[0-5]\d$/.test(start) ? { backup_start_time: start } : {}),
      point_in_time_recovery_enabled: pitr,
      ...(automated && typeof count === 'number' ? { backup_retention_count: count } : {}),
      ...(pitr && typeof logDays === 'number' ? { transaction_log_retention_days: logDays } : {}),
      ...text('backup_location', backups.location),
      delete_protection: settings.deletionProtectionEnabled === true,
      retain_backups_on_delete: settings.retainBackupsOnDelete === true,
      ...(final
        ? {
            final_backup: {
              enabled: final.enabled === true,
              ...(typeof keptDays === 'number' ? { retention_days: keptDays } : {}),
            },
          }
        : {}),
    },
    notes: [
      ...(automated ? [] : ['Automated backups are off.']),
      ...(pitr ? [] : ['Point-in-time recovery is off: everything since the newest backup would be lost.']),
      ...(settings.deletionProtectionEnabled === true ? [] : ['Deletion protection is off.']),
      ...(settings.retainBackupsOnDelete === true || final?.enabled === true
        ? []
        : ['Its backups are deleted together with it.']),
      ...(backups.backupTier === 'ENHANCED' ? ['The Backup and DR service keeps its backups.'] : []),
      ...((instance.replicaNames?.length ?? 0) > 0
        ? ['It has read replicas: a person must delete them before a restore in place.']
        : []),
      ...(isUsable(instance) ? [] : ['It is not running.']),
    ],
  };
}
