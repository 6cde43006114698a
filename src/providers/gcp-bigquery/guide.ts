import type { ProviderGuide } from '../../core/provider.ts';
import { customRole, GOOGLE_CREDENTIALS } from '../google-roles.ts';

const DATASET = 'bigquery.datasets.get';
const LOOK = ['bigquery.tables.get', 'bigquery.tables.list'];
const JOBS = ['bigquery.jobs.create', 'bigquery.jobs.get'];
const WRITE = ['bigquery.tables.create', 'bigquery.tables.updateData'];
// A snapshot that shall expire can be taken only by those who may delete one.
const SNAPSHOT = [
  'bigquery.tables.getData',
  'bigquery.tables.createSnapshot',
  'bigquery.tables.deleteSnapshot',
  ...WRITE,
  ...JOBS,
];

/** What to know of BigQuery, from its documentation and the description of its API. */
export const guide: ProviderGuide = {
  behaviour: [
    'A restore into a table that exists replaces its data, schema and constraints in one step; one into a new name takes nothing away. The risk follows whether the target exists.',
    'BigQuery itself would take an existing empty table for a new one: Holdfast holds it for an existing one.',
    'What a restore replaced can be brought back from time travel while the window lasts.',
    'The call that deletes a snapshot would drop a live table too: Holdfast looks at the type just before.',
    'A deleted table comes back by restore with restore_timestamp under a new name, without its partitioning; making a table of the same name first hides it.',
    'Snapshots never expire unless they are given an end or the dataset has a default expiration, which counts for them too.',
    'Snapshots, their bases and the tables made of them must lie in the same location.',
    'Rows that still wait in the streaming buffer are not in a snapshot.',
    'Views, materialized views, external tables and single partitions have no snapshots.',
    'A shorter time travel window takes the older history of every table at once.',
    'Every job has an id that Holdfast chose: sent again, it is found and not run again.',
  ],
  limits: [
    'Time travel reaches back 48 to 168 hours in steps of 24; after it Google keeps 7 more days that only its support can reach.',
    'A table has 50 snapshots a day at most, a project 50,000, with 100 snapshot jobs at once.',
    'The default expiration of tables is one hour at least, or none.',
    'Snapshots take seconds; full copies of terabytes take minutes.',
    'Holdfast sends 20 requests a second at most.',
  ],
  credentials: GOOGLE_CREDENTIALS,
  permissions: {
    '*': [DATASET],
    'get-backup-info': LOOK,
    'create-snapshot': [...LOOK, ...SNAPSHOT],
    'list-snapshots': LOOK,
    'describe-snapshot': ['bigquery.tables.get'],
    'delete-snapshot': [...LOOK, 'bigquery.tables.deleteSnapshot'],
    restore: [...LOOK, ...SNAPSHOT, 'bigquery.tables.restoreSnapshot', 'bigquery.tables.update'],
    'get-restore-status': ['bigquery.jobs.get', 'bigquery.tables.get'],
    'check-settings': [],
    'apply-settings': ['bigquery.datasets.update'],
  },
  grant: 'custom role',
  policy: (permissions, entity) => customRole('BigQuery', permissions, entity),
};
