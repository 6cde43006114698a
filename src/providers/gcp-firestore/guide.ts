import type { ProviderGuide } from '../../core/provider.ts';
import { customRole, GOOGLE_CREDENTIALS } from '../google-roles.ts';

const METADATA = 'datastore.databases.getMetadata';
const OPERATIONS = ['datastore.operations.get', 'datastore.operations.list'];
const COUNTS = 'datastore.entities.list';
const SCHEDULES = 'datastore.backupSchedules';
const BACKUPS = ['datastore.backups.get', 'datastore.backups.list'];

/** What to know of Firestore, from its documentation and the description of its API. */
export const guide: ProviderGuide = {
  behaviour: [
    'An import writes into the live database: documents of the same name are overwritten, others stay, deleted ones come back; it cannot be undone.',
    'A backup and a moment are always restored into a new database; nothing is ever restored in place.',
    'Only schedules take backups; for a copy now export documents, or clone a moment into a new database.',
    'An export is consistent only as of a moment: Holdfast always asks for a whole minute, a minute ago or more.',
    'An import takes a filter only of an export that was itself made with one; a filter names collection groups.',
    'Backups outlive their database until they expire, and are matched by its uid: a database made again under the same name is another one.',
    'A restored database lacks time-to-live policies and security rules, and applications have to be given its id.',
    'A new database can neither be read nor written before its restore is over.',
    'Delete protection does not keep an import from overwriting documents.',
    'Switching point-in-time recovery off makes all versions older than an hour unreadable at once.',
    'The recurrence and day of a schedule cannot be changed: it is deleted and made anew.',
    'Exports, imports, backups and restores need a billing account; exports and imports are billed by the document.',
    'An export needs a bucket that the service agent of Firestore may write to, service-PROJECT_NUMBER@gcp-sa-firestore.iam.gserviceaccount.com.',
  ],
  limits: [
    'A database has one daily and one weekly schedule at most; the time of the day cannot be chosen.',
    'Backups are kept 98 days at most, and the end of one cannot be changed.',
    'Versions are kept 7 days with point-in-time recovery, one hour without; a moment is a whole minute.',
    '20 exports and imports may begin in a minute and 50 run at once in a project.',
    'A project has 100 databases, unless the quota was raised.',
    'A restore takes minutes for small databases and hours for terabytes; no figure is published.',
  ],
  credentials: GOOGLE_CREDENTIALS,
  permissions: {
    '*': [METADATA],
    'get-backup-info': [`${SCHEDULES}.list`, 'datastore.backups.list'],
    'export-documents': ['datastore.databases.export', ...OPERATIONS],
    'import-documents': [
      'datastore.databases.import',
      'datastore.databases.export',
      'datastore.backups.list',
      COUNTS,
      ...OPERATIONS,
    ],
    'list-snapshots': ['datastore.backups.list'],
    'describe-snapshot': ['datastore.backups.get'],
    'delete-snapshot': [...BACKUPS, 'datastore.backups.delete'],
    restore: [
      ...BACKUPS,
      'datastore.backups.restoreDatabase',
      'datastore.databases.clone',
      'datastore.databases.create',
      ...OPERATIONS,
    ],
    'list-backup-schedules': [`${SCHEDULES}.list`],
    'create-backup-schedule': [`${SCHEDULES}.list`, `${SCHEDULES}.create`],
    'delete-backup-schedule': [
      `${SCHEDULES}.get`,
      `${SCHEDULES}.list`,
      `${SCHEDULES}.delete`,
      'datastore.backups.list',
    ],
    'get-restore-status': ['datastore.operations.get'],
    'check-settings': [`${SCHEDULES}.list`],
    'apply-settings': [
      'datastore.databases.update',
      'datastore.operations.list',
      `${SCHEDULES}.list`,
      `${SCHEDULES}.create`,
      `${SCHEDULES}.update`,
      `${SCHEDULES}.delete`,
    ],
  },
  grant: 'custom role',
  policy: (permissions, entity) => customRole('Firestore', permissions, entity),
};
