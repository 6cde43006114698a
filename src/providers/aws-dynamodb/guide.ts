import type { ProviderGuide } from '../../core/provider.ts';
import { AWS_CREDENTIALS, arnsOf, type IamScope, iamPolicy } from '../aws-policy.ts';

/** What DynamoDB does in the caller's name to fill the table that a restore makes. */
const FILL = ['BatchWriteItem', 'DeleteItem', 'GetItem', 'PutItem', 'Query', 'Scan', 'UpdateItem'].map(
  (action) => `dynamodb:${action}`,
);
/** What is done to the new table: reads to follow it, settings that are put on it. */
const SETTINGS = [
  'dynamodb:DescribeTimeToLive',
  'dynamodb:ListTagsOfResource',
  'dynamodb:TagResource',
  'dynamodb:UpdateContinuousBackups',
  'dynamodb:UpdateTable',
  'dynamodb:UpdateTimeToLive',
];
/** What DynamoDB asks of a key of the customer. */
const KEYS = [
  'kms:CreateGrant',
  'kms:Decrypt',
  'kms:DescribeKey',
  'kms:Encrypt',
  'kms:GenerateDataKey*',
  'kms:ReEncrypt*',
];

/** What to know of Amazon DynamoDB, from its developer guide and API reference. */
export const guide: ProviderGuide = {
  behaviour: [
    'A restore always makes a new table; a table is never restored in place and never renamed, so applications have to be pointed to it.',
    'A restored table comes without point-in-time recovery, deletion protection, tags, TTL, stream, auto scaling, policies and alarms; restore lists what is lost and puts back what reapply names.',
    'Without TTL items that had expired come back and stay.',
    'Switching point-in-time recovery off discards its window at once; switched on again it begins anew.',
    'A shorter recovery period discards the older moments; a longer one does not bring them back.',
    'Backups are full, cost nothing of the capacity of the table and are kept until they are deleted.',
    'A table that is deleted with point-in-time recovery on leaves a SYSTEM backup for 35 days: that is the way to bring it back.',
    'A repeated request for a backup makes a second one, and names of backups repeat: Holdfast names each and looks before it asks again.',
    'Only the replica of this region is restored of a global table, as a plain table.',
    'Recovery points of AWS Backup are not shown by this API, and are deleted in their vault only.',
    'A restore runs with the role of the caller: changing the role or the KMS key meanwhile breaks it.',
  ],
  limits: [
    'Point-in-time recovery reaches back 1 to 35 days, to the second.',
    'The latest restorable moment is about 5 minutes ago.',
    'At most 50 restores and 500 changes of tables at once in an account.',
    '2,500 tables a region, unless the quota was raised.',
    'A restore is seldom done in under 10 to 20 minutes; skewed keys and many indexes make it hours.',
    'Most of these calls are allowed 10 a second, ListBackups 5; Holdfast sends 5 at most.',
  ],
  credentials: AWS_CREDENTIALS,
  permissions: {
    '*': ['dynamodb:DescribeTable'],
    'get-backup-info': ['dynamodb:DescribeContinuousBackups', 'dynamodb:ListBackups', 'dynamodb:ListTagsOfResource'],
    'create-snapshot': ['dynamodb:CreateBackup', 'dynamodb:DescribeBackup', 'dynamodb:ListBackups'],
    'list-snapshots': ['dynamodb:ListBackups'],
    'describe-snapshot': ['dynamodb:DescribeBackup', 'dynamodb:ListBackups'],
    'delete-snapshot': [
      'dynamodb:DeleteBackup',
      'dynamodb:DescribeBackup',
      'dynamodb:DescribeContinuousBackups',
      'dynamodb:ListBackups',
    ],
    restore: [
      'dynamodb:DescribeBackup',
      'dynamodb:DescribeContinuousBackups',
      'dynamodb:DescribeContributorInsights',
      'dynamodb:DescribeKinesisStreamingDestination',
      'dynamodb:GetResourcePolicy',
      'dynamodb:ListBackups',
      'dynamodb:RestoreTableFromBackup',
      'dynamodb:RestoreTableToPointInTime',
      ...FILL,
      ...SETTINGS,
      ...KEYS,
    ],
    'get-restore-status': [],
    'check-settings': ['dynamodb:DescribeContinuousBackups', 'dynamodb:ListTagsOfResource'],
    'apply-settings': [
      'dynamodb:DescribeContinuousBackups',
      'dynamodb:ListTagsOfResource',
      'dynamodb:TagResource',
      'dynamodb:UpdateContinuousBackups',
      'dynamodb:UpdateTable',
    ],
  },
  grant: 'IAM policy',
  policy: (permissions, entity = {}) => {
    // The copies that restore proposes are named after the table: nothing may be written into any other.
    const restores = permissions.some((permission) => permission.includes(':RestoreTable'));
    return iamPolicy(permissions, (permission) => scopeOf(permission, entity, restores));
  },
};

function scopeOf(permission: string, entity: Readonly<Record<string, unknown>>, restores: boolean): IamScope {
  const { region, table_name: name } = entity;
  const arn = arnsOf('dynamodb', region);
  const table = typeof name === 'string' ? name : '*';
  const [own, copies, backups] = [`table/${table}`, `table/${table}-restore-*`, `table/${table}/backup/*`].map(arn);
  if (permission.startsWith('kms:')) {
    const service = `dynamodb.${typeof region === 'string' ? region : '*'}.amazonaws.com`;
    return {
      resources: [arnsOf('kms', region)('key/*')],
      condition: { StringLike: { 'kms:ViaService': service } },
    };
  }
  if (FILL.includes(permission)) return { resources: [String(copies)] };
  switch (permission) {
    case 'dynamodb:ListBackups':
      return { resources: ['*'] };
    // get-restore-status looks at copies.
    case 'dynamodb:DescribeTable':
      return { resources: [String(own), String(copies)] };
    case 'dynamodb:DescribeBackup':
    case 'dynamodb:DeleteBackup':
      return { resources: [String(backups)] };
    case 'dynamodb:RestoreTableFromBackup':
      return { resources: [String(backups), String(copies)] };
    default:
      return { resources: restores ? [String(own), String(copies)] : [String(own)] };
  }
}
