import type { ProviderGuide } from '../../core/provider.ts';

const READ = 'Project Read Only';
const CREATE = 'Project Backup Creator';
const RECOVER = 'Project Backup Recovery Operator';
const MANAGE = 'Project Backup Manager';
const CLUSTER = 'Project Cluster Manager';

/** What to know of MongoDB Atlas, from its Admin API description and its manual. */
export const guide: ProviderGuide = {
  behaviour: [
    'A restore deletes all data of its target cluster and replaces it, also where the target is another cluster than the source.',
    'Atlas makes no cluster for a restore: the target must exist, be idle and have the same topology.',
    'Nobody can write to the target while a restore runs; writes are refused or lost.',
    'A collection restore with CREATE_NEW adds copies beside what there is; OVERWRITE_EXISTING drops and replaces.',
    'A collection restore that succeeded may hold collections that failed: look at each.',
    'TTL indexes delete restored documents at once when these are old: ALL_EXCEPT_TTL leaves such indexes out.',
    'Database users belong to the project and are in no snapshot; search indexes are built anew after a restore.',
    'Schedules say how long snapshots are kept, not how many; a changed schedule leaves the date of existing snapshots as it is.',
    'A paused cluster takes no snapshots, and those that exist expire.',
    'The window of point-in-time restores is not told: it is derived from the schedule and the oldest snapshot.',
    'Switching point-in-time restore off or narrowing its window deletes the log; switching it on begins a new one.',
    'A cluster that was deleted with its backups retained keeps them under its name until they expire; they go to another cluster only.',
    'Under a backup compliance policy nobody can delete snapshots early or lower a schedule; only MongoDB support can change the policy.',
    'Flex clusters have one snapshot a day and nothing that can be set; free clusters have no backups.',
    'Atlas takes no idempotency key: after a lost answer Holdfast looks for what was begun, and never asks again.',
  ],
  limits: [
    'One on-demand snapshot of a cluster at a time.',
    'Flex clusters keep 8 daily snapshots, the first about 24 hours after their creation.',
    'One collection restore names up to 100 databases and 100 collections.',
    'What is taken more rarely must be kept at least as long; the window of point-in-time restores is no longer than hourly snapshots are kept.',
    'Restores take minutes within a region and hours across regions or for much data; Atlas tells no progress of whole-cluster restores.',
    'Rates are limited by endpoint and scope, the smallest around 10 calls a second; Holdfast sends 8 at most.',
    'Data goes to the same major version or the next one.',
  ],
  credentials: [
    'client_id and client_secret (or secret_ref) of the entity: a service account',
    'public_key and private_key of the entity: an API key',
    'MONGODB_ATLAS_CLIENT_ID and MONGODB_ATLAS_CLIENT_SECRET',
    'MONGODB_ATLAS_PUBLIC_KEY and MONGODB_ATLAS_PRIVATE_KEY',
    'an organisation with an API access list refuses calls from addresses outside of it, whatever the role',
  ],
  permissions: {
    '*': [READ],
    'get-backup-info': [],
    'create-snapshot': [CREATE],
    'list-snapshots': [],
    'describe-snapshot': [MANAGE],
    'delete-snapshot': [MANAGE],
    // Reading a restore's status takes more than starting it; the safety snapshot takes a role of its own.
    restore: [RECOVER, MANAGE, CREATE],
    'restore-collections': [RECOVER, MANAGE, CREATE],
    'get-restore-status': [MANAGE],
    'list-restore-jobs': [MANAGE],
    'check-settings': [],
    'apply-settings': [CLUSTER, MANAGE],
  },
  grant: 'project roles',
  policy(permissions, entity) {
    const project = entity?.['project_id'];
    return [
      `# MongoDB Atlas, project ${typeof project === 'string' ? project : 'of the cluster'}: Identity & Access, Applications, the service account or API key`,
      'project_roles:',
      ...permissions.map((role) => `  - ${role}`),
      '# Project Cluster Log Viewer shows plans who uses the target; Project Owner shows whether a backup compliance policy',
      '# exists. Without them both are reported as unknown.',
    ].join('\n');
  },
};
