import type { ProviderGuide } from '../../core/provider.ts';
import { ident } from '../../postgres/sql.ts';
import {
  BYPASS_ROW_SECURITY,
  CREATE_DATABASES,
  END_SESSIONS,
  MONITOR,
  OWN_DATABASE,
  READ_ALL_DATA,
  REPLICATE,
  SWITCH_WAL,
} from './grants.ts';
import { READING, STORE_DELETE, STORE_WRITE, storePolicy, WRITING } from './store-rights.ts';

const RESTORING = [CREATE_DATABASES, OWN_DATABASE, END_SESSIONS];

/** What to know of PostgreSQL servers that one runs oneself; measured on PostgreSQL 15, and from its documentation. */
export const guide: ProviderGuide = {
  behaviour: [
    'A snapshot is one pg_dump of one database, compressed by zstd, sealed by age and stored by Holdfast: it holds the data as of one moment, and there is no way to any moment in between.',
    'create-snapshot with type: full copies the whole server by pg_basebackup while it runs, every database and role and the write-ahead log that the copy needs; it comes back as a data directory of its own, never into a database.',
    'type: incr holds what changed since the newest physical backup, diff since the newest full one; both need PostgreSQL 17 with summarize_wal = on, and neither can be restored when what it rests on is gone.',
    'verify-snapshot of a physical backup unpacks it in scratch_dir and holds every file against the list of the server (readable), or also starts it behind a private socket and reads every table and index (restored).',
    'restore with target_directory recovers a copy of the whole server to restore_timestamp, lsn, restore_point or use_latest, checks it and leaves it stopped; the live server is never touched, and the result has the steps to swap the directories.',
    'restore with target_directory recovers a copy of the whole server to restore_timestamp, lsn, restore_point or use_latest, checks it and leaves it stopped; the live server is never touched, and the result has the steps to swap the directories.',
    'Roles and their passwords belong to the server, not to a database; the snapshot keeps the definitions of roles beside the data, without passwords.',
    'A snapshot is visible only once it is complete and its checksum is written; one that was interrupted is never listed as restorable.',
    'A restore makes a new database and compares it with the inventory that was taken in the same moment as the snapshot; only then is it used.',
    'A restore without target_database replaces the database itself: the present one is snapshotted, renamed and kept, and dropping it is left to you.',
    'A backup that was never restored is a hope: verify-snapshot restores it into a scratch database and compares.',
    'prune-snapshots keeps the newest backup of each UTC day, week, month and quarter that retention counts, and never deletes the newest, the newest verified, a held or a used one; more than half, or all but one, goes only with a confirmation.',
    'With a physical backup and the write-ahead log since, archived by holdfast wal receive or wal push, every moment in between can be reached; get-backup-info computes from when to when out of what lies in the storage, and check-wal proves that archiving works now.',
    'Every snapshot can be restored without Holdfast: age -d, zstd -d, pg_restore; describe-snapshot shows the commands.',
  ],
  limits: [
    'PostgreSQL 13 or newer; pg_dump and pg_restore of the major version of the server or newer.',
    'A snapshot of a newer major version does not restore into an older server.',
    'A physical backup needs a role with REPLICATION and a replication line in pg_hba.conf, and comes back on the same major version only.',
    'Verifying a physical backup, and taking one of a server with tablespaces, wants room for the whole server on this machine (scratch_dir).',
    'A recovery runs on this machine: it needs the server programs of the major version of the backup, and room for the whole server where target_directory is.',
    'A recovery runs on this machine: it needs the server programs of the major version of the backup, and room for the whole server where target_directory is.',
    'A dump waits 30 seconds for a lock on a table, then gives up.',
    'One backup at a time for each entity.',
    'Tables of more than 50 million rows are counted, not fingerprinted (fingerprint_max_rows).',
    'A restore wants free disk space of about 1.2 times the database.',
  ],
  credentials: [
    'password of the entity, a reference: ${env:NAME} or ${file:/path}',
    'connection_url of the entity, a reference to a whole postgresql:// URL',
    'PGPASSWORD of the environment',
    'storage: its own references, else the chain of its cloud: AWS and Google environment, files and roles, Azure environment and identities',
    'holdfast init: PGHOST, PGPORT, PGUSER and PGPASSWORD, or DATABASE_URL',
  ],
  permissions: {
    'get-backup-info': READING,
    'create-snapshot': [READ_ALL_DATA, BYPASS_ROW_SECURITY, ...WRITING],
    'list-snapshots': READING,
    'describe-snapshot': READING,
    'delete-snapshot': [...READING, STORE_DELETE],
    'check-catalog': READING,
    'diff-snapshot': [READ_ALL_DATA, BYPASS_ROW_SECURITY, ...READING],
    'prune-snapshots': WRITING,
    'hold-snapshot': [...READING, STORE_WRITE],
    'release-snapshot': [...READING, STORE_DELETE],
    'verify-snapshot': [CREATE_DATABASES, ...READING, STORE_WRITE],
    restore: [...RESTORING, READ_ALL_DATA, ...WRITING],
    'get-restore-status': [],
    'get-replication-status': [MONITOR],
    'check-wal': [SWITCH_WAL, ...READING],
  },
  grant: 'rights of the role',
  policy(permissions, entity) {
    const role = ident(typeof entity?.['user'] === 'string' ? entity['user'] : 'holdfast');
    const database = ident(typeof entity?.['database'] === 'string' ? entity['database'] : 'orders');
    const statements: Record<string, string> = {
      [READ_ALL_DATA]: `GRANT pg_read_all_data TO ${role};`,
      [BYPASS_ROW_SECURITY]: `ALTER ROLE ${role} BYPASSRLS;  -- only where tables have row security`,
      [CREATE_DATABASES]: `ALTER ROLE ${role} CREATEDB;`,
      [OWN_DATABASE]: `ALTER DATABASE ${database} OWNER TO ${role};  -- only to restore over the database itself`,
      [END_SESSIONS]: `GRANT pg_signal_backend TO ${role};  -- only to restore over the database itself`,
      [MONITOR]: `GRANT pg_monitor TO ${role};  -- only to see the state of replication`,
      [REPLICATE]: `ALTER ROLE ${role} REPLICATION;  -- only for physical backups and the write-ahead log`,
      [SWITCH_WAL]: `GRANT EXECUTE ON FUNCTION pg_switch_wal() TO ${role};  -- in ${database}; only for check-wal`,
    };
    const lines = permissions.flatMap((permission) => statements[permission] ?? []);
    return [
      ...(lines.length > 0 ? ['-- as a superuser', ...lines] : []),
      ...storePolicy(permissions, entity?.['storage']),
    ].join('\n');
  },
};
