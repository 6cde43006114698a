import type { ProviderGuide } from '../../core/provider.ts';

const type = (name: string): string => `Microsoft.DocumentDB/${name}`;
const ACCOUNT = 'databaseAccounts';
const RESTORABLE = 'locations/restorableDatabaseAccounts';

const READ_ACCOUNT = type(`${ACCOUNT}/read`);
const WRITE_ACCOUNT = type(`${ACCOUNT}/write`);
const READ_SOURCES = type(`${RESTORABLE}/read`);
const FOLLOW = type('locations/operationsStatus/read');
/** What is in a live account: databases and containers of its API. */
const INVENTORY = [
  'sqlDatabases',
  'sqlDatabases/containers',
  'mongodbDatabases',
  'mongodbDatabases/collections',
  'gremlinDatabases',
  'gremlinDatabases/graphs',
  'tables',
].map((part) => type(`${ACCOUNT}/${part}/read`));
/** The last moment that a container can be restored to. */
const LATEST = ['sqlDatabases/containers', 'mongodbDatabases/collections', 'gremlinDatabases/graphs', 'tables'].map(
  (part) => type(`${ACCOUNT}/${part}/retrieveContinuousBackupInformation/action`),
);
/** The history of a restorable account, of whichever API. */
const FEEDS = type(`${RESTORABLE}/*/read`);

/** What to know of Azure Cosmos DB, from its documentation and the resource provider's description of 2026-03-15. */
export const guide: ProviderGuide = {
  behaviour: [
    'A restore always makes a new account, with new keys, a new endpoint and a new instance id; the call would update an account that exists, so Holdfast refuses every name that is not proved free.',
    'Only continuous backup can be restored by calls; periodic backups come back by a support ticket.',
    'The move from periodic to continuous backup cannot be stopped or undone, and moments before its end come back by a support ticket only.',
    'A shorter window of continuous backup takes the older moments away at once; a longer one fills up from then on.',
    'Another redundancy of periodic backups makes those taken before unusable at once.',
    'A restored account whose TTL is on deletes items past it at once; Holdfast switches TTL off unless told otherwise.',
    'Firewall and network rules, private endpoints, data-plane roles, stored procedures, triggers, functions, other regions and the analytical store are not restored.',
    'Public network access is that of the source where it can be read and rests on no rules; else the new account is closed, and the plan says so.',
    'A deleted account with continuous backup can be restored until its window has passed; a deleted and recreated one has several lives under one name.',
    'Accounts of the Cassandra API have no self-service restore.',
    'Multi-region writes come back as far as the hub region had confirmed them.',
  ],
  limits: [
    'Continuous backup reaches back 7 or 30 days, nothing between.',
    'Writes are in the backups after about 100 seconds.',
    'Periodic backups are taken every 60 to 1440 minutes and kept 8 to 720 hours, at least two intervals.',
    'Account names have 3 to 44 lower-case letters, digits and hyphens and are unique in all of Azure.',
    'A restore goes into one region that had backups at that moment.',
    'A restore takes minutes for small accounts, hours by the size of the data, and is billed by the gigabyte.',
    'The move to continuous backup takes about 90 minutes for each terabyte and region.',
    'A database with shared throughput is restored whole.',
  ],
  credentials: [
    'access_token of the entity, a reference: ${env:NAME} or ${file:/path}',
    'tenant_id, client_id and client_secret of the entity',
    'AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, AZURE_CLIENT_CERTIFICATE_PATH or AZURE_FEDERATED_TOKEN_FILE of the environment',
    'workload identity, managed identity, then az login on this machine',
    'holdfast init: the subscription of AZURE_SUBSCRIPTION_ID, else every one that the credential sees',
  ],
  permissions: {
    '*': [READ_ACCOUNT],
    'get-backup-info': [READ_SOURCES, FOLLOW, ...INVENTORY, ...LATEST],
    'list-restorable-accounts': [READ_SOURCES],
    'list-restorable-databases': [READ_SOURCES, FEEDS],
    'list-restorable-containers': [READ_SOURCES, FEEDS],
    restore: [
      READ_SOURCES,
      FEEDS,
      type(`${RESTORABLE}/restore/action`),
      WRITE_ACCOUNT,
      type('databaseAccountNames/read'),
      FOLLOW,
      ...INVENTORY,
      ...LATEST,
    ],
    'get-restore-status': [FOLLOW],
    'check-settings': [],
    'apply-settings': [WRITE_ACCOUNT, FOLLOW],
  },
  grant: 'Azure role definition',
  policy(permissions, entity = {}) {
    const { subscription_id: id } = entity;
    const role = {
      Name: 'Holdfast for Cosmos DB',
      IsCustom: true,
      // A resource group is not enough for restorable accounts.
      Description: 'Assign it on the subscription: restorable accounts are found nowhere below.',
      Actions: [...new Set(permissions)].sort(),
      NotActions: [],
      DataActions: [],
      NotDataActions: [],
      AssignableScopes: [`/subscriptions/${typeof id === 'string' ? id : '00000000-0000-0000-0000-000000000000'}`],
    };
    return JSON.stringify(role, null, 2);
  },
};
