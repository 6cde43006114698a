import type { ProviderGuide } from '../../core/provider.ts';
import { AWS_CREDENTIALS, arnsOf, type IamScope, iamPolicy } from '../aws-policy.ts';

const SNAPSHOTS = ['rds:DescribeDBSnapshots', 'rds:DescribeDBClusterSnapshots'];
const AUTOMATED = ['rds:DescribeDBInstanceAutomatedBackups', 'rds:DescribeDBClusterAutomatedBackups'];
/** What RDS asks of the key of an encrypted database. */
const KEYS = ['kms:CreateGrant', 'kms:DescribeKey'];

/** What to know of Amazon RDS, from its user guide and API reference. */
export const guide: ProviderGuide = {
  behaviour: [
    'A restore always makes a new instance or cluster with a new host name; nothing is ever restored in place.',
    'Left to itself a restore takes default security and parameter groups and no deletion protection; Holdfast passes those of the source unless told otherwise.',
    'A restored Aurora cluster has no instances; Holdfast creates its members, or the plan says that there are none.',
    'A restored instance is available before its storage is loaded: every first read of a block is slow until then.',
    'Automated backups go with their instance unless its deletion keeps them; manual snapshots stay until they are deleted.',
    'A lower retention deletes older automated backups at once; retention 0 deletes all of them and ends point-in-time recovery.',
    'A change of the retention to or from 0 is a short outage; other backup settings change without one.',
    'Changes that wait for the maintenance window are applied with any change that is applied at once; Holdfast does not take them along.',
    'Backups of Aurora and Multi-AZ DB clusters are those of the cluster: use aws-rds/rds-cluster, not an instance of it.',
    'A copy into another region needs the same permissions there, and a key of that region for an encrypted snapshot.',
    'Encryption is set when a database is made; copy a snapshot with kms_key_id and restore the copy to change it.',
    'Holdfast deletes manual snapshots only: automated ones expire, and those of AWS Backup are deleted in AWS Backup.',
  ],
  limits: [
    'Automated backups and moments are kept 0 to 35 days for an instance, 1 to 35 for a cluster.',
    'The latest restorable time is about 5 minutes ago.',
    '100 manual snapshots of instances and 100 of clusters a region, unless the quota was raised.',
    '20 copies of snapshots at once into a region.',
    'The backup window has at least 30 minutes and does not overlap the maintenance window.',
    'A restore takes 10 to 30 minutes as a rule, hours for large volumes.',
    'Calls are throttled by account and region; Holdfast sends 10 a second at most.',
  ],
  credentials: AWS_CREDENTIALS,
  permissions: {
    '*': ['rds:DescribeDBInstances', 'rds:DescribeDBClusters', 'rds:ListTagsForResource'],
    'get-backup-info': [...SNAPSHOTS, ...AUTOMATED],
    'create-snapshot': [...SNAPSHOTS, 'rds:CreateDBSnapshot', 'rds:CreateDBClusterSnapshot', 'rds:AddTagsToResource'],
    'list-snapshots': SNAPSHOTS,
    'describe-snapshot': SNAPSHOTS,
    'delete-snapshot': [
      ...SNAPSHOTS,
      ...AUTOMATED,
      'rds:DescribeDBSnapshotAttributes',
      'rds:DescribeDBClusterSnapshotAttributes',
      'rds:DeleteDBSnapshot',
      'rds:DeleteDBClusterSnapshot',
    ],
    'copy-snapshot': [
      ...SNAPSHOTS,
      'rds:CopyDBSnapshot',
      'rds:CopyDBClusterSnapshot',
      'rds:AddTagsToResource',
      ...KEYS,
    ],
    restore: [
      ...SNAPSHOTS,
      ...AUTOMATED,
      'rds:DescribeAccountAttributes',
      'rds:RestoreDBInstanceFromDBSnapshot',
      'rds:RestoreDBInstanceToPointInTime',
      'rds:RestoreDBClusterFromSnapshot',
      'rds:RestoreDBClusterToPointInTime',
      'rds:CreateDBInstance',
      'rds:AddTagsToResource',
      ...KEYS,
    ],
    'get-restore-status': ['rds:DescribeEvents'],
    'check-settings': [],
    'apply-settings': ['rds:ModifyDBInstance', 'rds:ModifyDBCluster'],
  },
  grant: 'IAM policy',
  policy: (permissions, entity = {}) => iamPolicy(permissions, (permission) => scopeOf(permission, entity)),
};

/** Permissions that one kind of database alone has a use for. */
const OF_INSTANCE = /DBSnapshot|RestoreDBInstance|DBInstanceAutomated|ModifyDBInstance/;
const OF_CLUSTER = /DBCluster|CreateDBInstance/;

function scopeOf(permission: string, entity: Readonly<Record<string, unknown>>): IamScope | undefined {
  const { db_instance_identifier: instance, db_cluster_identifier: cluster, region } = entity;
  const name = permission.slice('rds:'.length);
  if (typeof instance === 'string' && OF_CLUSTER.test(name)) return undefined;
  if (typeof cluster === 'string' && OF_INSTANCE.test(name)) return undefined;
  const arn = arnsOf('rds', region);
  const on = (...resources: string[]): IamScope => ({ resources: resources.map(arn) });
  const ownInstance = `db:${typeof instance === 'string' ? instance.toLowerCase() : '*'}`;
  const ownCluster = `cluster:${typeof cluster === 'string' ? cluster.toLowerCase() : '*'}`;
  const groups = ['og:*', 'subgrp:*'];
  switch (permission) {
    case 'rds:CreateDBSnapshot':
      return on(ownInstance, 'snapshot:*');
    case 'rds:CreateDBClusterSnapshot':
      return on(ownCluster, 'cluster-snapshot:*');
    case 'rds:CopyDBSnapshot':
    case 'rds:DeleteDBSnapshot':
      return on('snapshot:*');
    case 'rds:CopyDBClusterSnapshot':
    case 'rds:DeleteDBClusterSnapshot':
      return on('cluster-snapshot:*');
    case 'rds:RestoreDBInstanceFromDBSnapshot':
      return on('db:*', 'snapshot:*', 'pg:*', ...groups);
    case 'rds:RestoreDBInstanceToPointInTime':
      return on('db:*', 'auto-backup:*', 'pg:*', ...groups);
    case 'rds:RestoreDBClusterFromSnapshot':
      return on('cluster:*', 'cluster-snapshot:*', 'cluster-pg:*', ...groups);
    case 'rds:RestoreDBClusterToPointInTime':
      return on('cluster:*', 'cluster-auto-backup:*', 'cluster-pg:*', ...groups);
    case 'rds:CreateDBInstance':
      return on('cluster:*', 'db:*', 'pg:*', ...groups);
    case 'rds:AddTagsToResource':
      return on('cluster:*', 'cluster-snapshot:*', 'db:*', 'snapshot:*');
    case 'rds:ModifyDBInstance':
      return on(ownInstance);
    case 'rds:ModifyDBCluster':
      return on(ownCluster);
    case 'kms:CreateGrant':
    case 'kms:DescribeKey':
      return {
        resources: [arnsOf('kms', region)('key/*')],
        condition: {
          StringLike: { 'kms:ViaService': `rds.${typeof region === 'string' ? region : '*'}.amazonaws.com` },
        },
      };
    default:
      // Reads: they name databases and snapshots that a restore has yet to make, too.
      return { resources: ['*'] };
  }
}
