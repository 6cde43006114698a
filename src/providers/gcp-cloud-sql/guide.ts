import type { ProviderGuide } from '../../core/provider.ts';
import { customRole, GOOGLE_CREDENTIALS } from '../google-roles.ts';

const INSTANCE = 'cloudsql.instances.get';
const RUNS = ['cloudsql.backupRuns.get', 'cloudsql.backupRuns.list'];

/** What to know of Cloud SQL, from its documentation and the description of its API. */
export const guide: ProviderGuide = {
  behaviour: [
    'Without target_instance a restore of a backup overwrites the instance itself: all databases and users, and its history for point-in-time recovery.',
    'The same call with a name that is not in use makes a new instance: the risk follows whether the target exists.',
    'A 403 for a target proves nothing, Cloud SQL answers it for a missing instance too: the restore is refused until that is known.',
    'A moment is always restored into a new instance; the source must be running.',
    'A new instance is made of a named backup, projects/P/backups/UID; Holdfast finds the one that belongs to a run.',
    'Onto an instance with read replicas nothing is restored until a person has deleted them; a replica is neither target nor source.',
    'The target must have the engine and version line of the backup; its disk grows to that of the source and never shrinks.',
    'On-demand backups go with their instance, unless retain_backups_on_delete is on or they have an end of their own.',
    'Deletion protection does not keep an instance from being overwritten.',
    'Switching point-in-time recovery off deletes all its logs, also when it is switched on again at once.',
    'Only final backups, of instances that were deleted, can be given another description or end.',
    'A SKIPPED backup is none: Cloud SQL made no copy.',
    'Backups of the enhanced tier lie in a vault of the Backup and DR service, and are handled there.',
  ],
  limits: [
    'Automated backups are kept by count: 1 to 365, 7 by default, 15 on Enterprise Plus.',
    'Logs are kept 1 to 7 days, up to 35 on Enterprise Plus; the latest moment is about 5 minutes ago.',
    'A backup with an end of its own is kept 365 days at most.',
    'One operation at a time runs on an instance: others are refused meanwhile.',
    'Requests are counted by project and minute; Holdfast sends 2 a second on average.',
    'How long a restore takes is not published: minutes for small disks, hours for terabytes.',
  ],
  credentials: GOOGLE_CREDENTIALS,
  permissions: {
    '*': [INSTANCE],
    'get-backup-info': ['cloudsql.backupRuns.list'],
    'create-snapshot': ['cloudsql.backupRuns.create', ...RUNS],
    'list-snapshots': ['cloudsql.backupRuns.list'],
    'describe-snapshot': RUNS,
    'update-snapshot': [...RUNS, 'cloudsql.backupRuns.update'],
    'delete-snapshot': [...RUNS, 'cloudsql.backupRuns.delete'],
    restore: [
      ...RUNS,
      'cloudsql.backupRuns.create',
      'cloudsql.instances.restoreBackup',
      'cloudsql.instances.create',
      'cloudsql.instances.clone',
      'cloudsql.databases.list',
      'cloudsql.users.list',
    ],
    'get-restore-status': [],
    'check-settings': [],
    'apply-settings': ['cloudsql.instances.update'],
  },
  grant: 'custom role',
  policy: (permissions, entity) => customRole('Cloud SQL', permissions, entity),
};
