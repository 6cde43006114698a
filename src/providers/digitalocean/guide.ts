import type { ProviderGuide } from '../../core/provider.ts';

const READ = 'database:read';

/** What to know of DigitalOcean managed databases, from the API description of 2026-08-07 and the vendor's guides. */
export const guide: ProviderGuide = {
  behaviour: [
    'A restore always makes a new, billed cluster with another host; nothing is ever restored in place, and applications have to be pointed to it by hand.',
    'Backups are taken by the service only, every day: there is no call for one more and none that deletes one.',
    'A backup has no id: the moment when it was taken is its name.',
    'A moment between two backups (PostgreSQL, MySQL) is passed through to the call, and no API description promises it: Holdfast says so and names the listed backup before it as the sure way.',
    'Trusted sources are not promised to come along; Holdfast sends those of the source, and warns where it has none, since the copy is then open to every address.',
    'Standby and read-only nodes, connection pools and configuration do not come along; users and their passwords do.',
    'Incremental backups of MySQL need the last full one before them.',
    'Valkey, Caching (Redis), Kafka and OpenSearch have no backups that could be restored.',
    'The reached moment of a restore cannot be read back: check it with a query.',
    'Destroying a cluster takes its backups with it as far as the API tells; Holdfast never destroys one.',
  ],
  limits: [
    'Backups are kept seven days, for every engine that has them; that cannot be changed.',
    'Time of day of the backup: hour and minute, of PostgreSQL and MySQL only.',
    'The first backup of a new cluster can take a day.',
    'An account may have 10 clusters at first; a restore needs one place.',
    'PostgreSQL and MySQL clusters have 3 nodes at most.',
    '5000 requests an hour and 250 a minute for one token; Holdfast sends 4 a second at most.',
  ],
  credentials: [
    'token of the entity, a reference: ${env:NAME} or ${file:/path}',
    'DIGITALOCEAN_TOKEN of the environment',
  ],
  permissions: {
    '*': [READ],
    'get-backup-info': [],
    'list-snapshots': [],
    'describe-snapshot': [],
    restore: ['database:create', 'tag:create', 'vpc:read', 'project:assign_resource'],
    'get-restore-status': [],
    'check-settings': [],
    'apply-settings': ['database:update'],
  },
  grant: 'scopes of the token',
  // Custom scopes are ticked in the control panel; there is no document of them.
  policy: (permissions) => [...new Set(permissions)].sort().join('\n'),
};
