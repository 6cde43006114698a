import { z } from 'zod';
import { defineProvider } from '../../core/provider.ts';
import { GoogleProject, googleAuthorizer, googleCredentialFields, googleOrigin, googleProjectOf } from '../google.ts';
import type { BigQueryClient } from './client.ts';
import { toBigQueryError } from './map.ts';

const Expiration = z
  .number()
  .int()
  .refine((ms) => ms === 0 || ms >= 3_600_000, 'write 0 for never, or at least 3600000 (one hour)');

const BigQueryDataset = z.object({
  dataset: z.string().regex(/^[A-Za-z0-9_]{1,1024}$/, 'letters, digits and underscores'),
  project: GoogleProject.optional(),
  project_id: GoogleProject.optional(),
  location: z
    .string()
    .regex(/^[A-Za-z0-9-]{2,60}$/, 'write a location such as US or europe-west1')
    .optional(),
  dataset_description: z.string().optional(),
  max_time_travel_hours: z
    .number()
    .int()
    .min(48)
    .max(168)
    .refine((hours) => hours % 24 === 0, 'write 48, 72, 96, 120, 144 or 168')
    .optional(),
  default_table_expiration_ms: Expiration.optional(),
  default_partition_expiration_ms: Expiration.optional(),
  ...googleCredentialFields,
});

export type BigQueryEntity = z.output<typeof BigQueryDataset>;

export const BIGQUERY_ORIGIN = 'https://bigquery.googleapis.com';
export const BIGQUERY_SCOPE = 'bigquery';

/** Google BigQuery: the tables of one dataset. */
export const gcpBigQuery = defineProvider<BigQueryEntity, BigQueryClient>({
  id: 'gcp-bigquery',
  title: 'Google BigQuery',
  entityTypes: {
    'gcp/big-query': {
      title: 'Google BigQuery dataset',
      schema: BigQueryDataset,
      ignored: ['access', 'create_when_missing', 'labels_on_dataset', 'permitted-secrets', 'services', 'tables'],
      example: {
        project: 'my-project',
        dataset: 'my_analytics_dataset',
        location: 'US',
        dataset_description: 'Analytics data warehouse',
        default_table_expiration_ms: 0,
        max_time_travel_hours: 168,
        credentials_file: '${file:/etc/holdfast/gcp-key.json}',
      },
      sandbox: {
        name: 'gcp-bigquery',
        parameters: {
          project: 'holdfast-sandbox',
          dataset: 'analytics',
          location: 'US',
          dataset_description: 'Analytics data warehouse',
          default_table_expiration_ms: 0,
          max_time_travel_hours: 168,
          access_token: '${env:GOOGLE_OAUTH_ACCESS_TOKEN}',
        },
      },
    },
  },
  cannot: {},
  // Google allows 100 a second to one user and method; a list with details takes fifty at once.
  limits: { per_second: 20, burst: 100, concurrent: 8, timeout_ms: 30_000 },

  async connect(entity, runtime) {
    const project = googleProjectOf(entity);
    const origin = googleOrigin(entity.endpoint, BIGQUERY_ORIGIN);
    // Impersonation needs the wider scope to ask for the other account's token.
    const scope = entity.impersonate_service_account === undefined ? BIGQUERY_SCOPE : 'cloud-platform';
    const scopes = [`https://www.googleapis.com/auth/${scope}`];
    const authorizer = googleAuthorizer(entity, runtime, { scopes, origin, project });
    const { createBigQueryClient } = await import('./client.ts');
    return createBigQueryClient({ dataset: entity.dataset, project, origin, authorizer, runtime });
  },

  async recoveryOptions(context, at) {
    const { recoveryOptions } = await import('./backups.ts');
    return recoveryOptions(context, at);
  },

  settings: {
    about: {
      max_time_travel_hours: 'how long deleted and changed data can be brought back, 48 to 168; less is weaken',
      default_table_expiration_ms: 'when new tables and snapshots are deleted, 0 for never; sooner is weaken',
      default_partition_expiration_ms: 'when partitions of new tables are deleted, 0 for never; sooner is weaken',
      dataset_description: 'the description of the dataset',
      location: 'compared only',
    },
    read: async (context) => (await import('./declared.ts')).readSettings(context),
    write: async (...given) => (await import('./declared.ts')).writeSettings(...given),
    mark: async (context) => (await import('./declared.ts')).settingsMark(context),
  },

  guide: async () => (await import('./guide.ts')).guide,

  discover: async (context) => (await import('./discover.ts')).discover(context),

  async grants({ client, entity, runtime, signal }, permissions) {
    const { projectGrants } = await import('../google-roles.ts');
    const found = await projectGrants(entity, runtime, await client.project(), permissions, signal);
    // Datasets and tables have grants of their own, which the project does not tell.
    return Object.fromEntries(
      Object.entries(found).map(([name, state]) => [
        name,
        state === 'refused' && !name.startsWith('bigquery.jobs.') ? 'unknown' : state,
      ]),
    );
  },

  toError: (cause) =>
    toBigQueryError(cause, {
      resource: 'dataset',
      permission: 'bigquery.datasets.get',
      role: 'roles/bigquery.metadataViewer',
    }),
});
