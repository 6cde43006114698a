import type { ProviderGuide } from '../../core/provider.ts';

const VIEWER = 'Viewer';
const OWNER = 'Owner';

/** What to know of Redis Cloud, from its API description and its manual. */
export const guide: ProviderGuide = {
  behaviour: [
    'An import empties the database first: keys that are not in the files are gone, it is no merge.',
    'An import into an Active-Active database reaches all regions; whether it replaces or merges there, the guides of the vendor disagree.',
    'There is no list of backups and no id: a backup is files in your own storage, and only the latest attempt is told.',
    'A backup has one file for each shard; a file that is left out of an import is missing data.',
    'Nothing deletes backup files: their retention is a rule of your storage.',
    'There is no point in time to go back to, only backups.',
    'A wrong or damaged file is noticed after the database was emptied.',
    'An Active-Active database is backed up region by region, each with settings of its own.',
    'A database that follows another one (Replica Of) takes an import, and loses it again: it is refused here.',
    'Every answer is a task; a completed one means that the request was handed over, not that the data is there.',
    'An account does one thing at a time, so that tasks wait for each other, and a waiting task cannot be cancelled.',
    'Whether an Essentials subscription has backups and persistence is a property of its plan: more of it is another plan and another price.',
    'Paths with credentials are secrets: write them as references.',
  ],
  limits: [
    'Essentials has one backup a day; Pro every 1, 2, 4, 6, 12 or 24 hours, with a time of day for 12 and 24 only.',
    'At most 4 backups of a subscription at once.',
    'Free plans have neither backups nor persistence.',
    'Essentials has no persistence of every write.',
    'One account of Redis Cloud for one S3 bucket.',
    'Tasks are forgotten after about 10 days.',
    '400 requests a minute for an account key; Holdfast sends 6 a second at most, and fewer when they run short.',
  ],
  credentials: [
    'access_key and secret_key of the entity: the account key and the user key',
    'REDISCLOUD_ACCESS_KEY and REDISCLOUD_SECRET_KEY',
    'redis_url of the entity, to count keys before an import: a read-only user of the database',
    'a key with a list of addresses refuses calls from all others',
  ],
  permissions: {
    '*': [VIEWER],
    'get-backup-info': [],
    'create-snapshot': [OWNER],
    'list-snapshots': [],
    restore: [OWNER],
    'get-restore-status': [],
    'check-settings': [],
    'apply-settings': [OWNER],
  },
  grant: 'role of the user behind the API user key',
  policy(permissions) {
    // There is nothing between reading everything and changing everything.
    const role = permissions.includes(OWNER) ? OWNER : VIEWER;
    return [
      `# Redis Cloud, Access management, API keys: a user key of a user with this role`,
      `role: ${role}`,
      ...(role === OWNER
        ? [
            '# An owner may also delete databases: keep this key for what writes, allow it from few addresses (CIDR allow list),',
            '# and give entities that are only looked at the key of a Viewer.',
          ]
        : ['# A Viewer reads everything and changes nothing.']),
    ].join('\n');
  },
};
