import { z } from 'zod';
import { defineProvider } from '../../core/provider.ts';
import { GoogleProject, googleAuthorizer, googleCredentialFields, googleOrigin, googleProjectOf } from '../google.ts';
import type { FirestoreClient } from './client.ts';
import { DATABASE_PATTERN, toFirestoreError, URI_PATTERN } from './map.ts';

/** The provider's own word, or true and false. */
function toggle<Name extends string>(name: Name) {
  const [on, off] = [`${name}_ENABLED`, `${name}_DISABLED`] as const;
  return z.union([z.boolean(), z.enum([on, off]).transform((word) => word === on)]).optional();
}

const Schedule = z.strictObject({
  frequency: z.enum(['daily', 'weekly']),
  day: z.enum(['MONDAY', 'TUESDAY', 'WEDNESDAY', 'THURSDAY', 'FRIDAY', 'SATURDAY', 'SUNDAY']).optional(),
  retention_days: z.number().int().min(1).max(98),
});

const FirestoreDatabase = z.object({
  project: GoogleProject.optional(),
  project_id: GoogleProject.optional(),
  database_id: z
    .string()
    .regex(DATABASE_PATTERN, '(default), or 4 to 63 lower-case letters, digits and hyphens, a letter first')
    .default('(default)'),
  location: z.string().optional(),
  database_type: z.enum(['FIRESTORE_NATIVE', 'DATASTORE_MODE']).optional(),
  database_edition: z.enum(['STANDARD', 'ENTERPRISE']).optional(),
  point_in_time_recovery: toggle('POINT_IN_TIME_RECOVERY'),
  delete_protection: toggle('DELETE_PROTECTION'),
  backup_schedules: z
    .array(Schedule)
    .max(2)
    .refine(
      (all) => new Set(all.map(({ frequency }) => frequency)).size === all.length,
      'one of each frequency at most',
    )
    .optional(),
  export_uri_prefix: z
    .string()
    .regex(URI_PATTERN, 'write gs://BUCKET or gs://BUCKET/FOLDER')
    .optional()
    .describe('Where exports go; the safety export before an import goes there too'),
  ...googleCredentialFields,
});

export type FirestoreEntity = z.output<typeof FirestoreDatabase>;

export const FIRESTORE_ORIGIN = 'https://firestore.googleapis.com';
export const FIRESTORE_SCOPE = 'datastore';

/** Google Cloud Firestore: databases in Native and in Datastore mode. */
export const gcpFirestore = defineProvider<FirestoreEntity, FirestoreClient>({
  id: 'gcp-firestore',
  title: 'Google Cloud Firestore',
  entityTypes: {
    'gcp/firestore': {
      title: 'Google Cloud Firestore database',
      schema: FirestoreDatabase,
      ignored: [
        'app_engine_integration_mode',
        'concurrency_mode',
        'create_when_missing',
        'permitted-secrets',
        'services',
        'tags',
      ],
      example: {
        project: 'my-project',
        database_id: 'my-database',
        location: 'us-central1',
        database_type: 'FIRESTORE_NATIVE',
        point_in_time_recovery: 'POINT_IN_TIME_RECOVERY_ENABLED',
        delete_protection: 'DELETE_PROTECTION_ENABLED',
        backup_schedules: [{ frequency: 'daily', retention_days: 14 }],
        export_uri_prefix: 'gs://my-bucket/firestore',
        credentials_file: '${file:/etc/holdfast/gcp-key.json}',
      },
      sandbox: {
        name: 'gcp-firestore',
        parameters: {
          project: 'holdfast-sandbox',
          database_id: 'shop-carts',
          location: 'us-central1',
          database_type: 'FIRESTORE_NATIVE',
          point_in_time_recovery: 'POINT_IN_TIME_RECOVERY_ENABLED',
          delete_protection: 'DELETE_PROTECTION_ENABLED',
          backup_schedules: [{ frequency: 'daily', retention_days: 14 }],
          export_uri_prefix: 'gs://holdfast-sandbox-backups/firestore',
          access_token: '${env:GOOGLE_OAUTH_ACCESS_TOKEN}',
        },
      },
    },
  },
  cannot: {
    'create-snapshot':
      'Firestore takes backups by schedule only: use create-backup-schedule. For a copy now use export-documents, or restore with restore_timestamp, which clones the database.',
  },
  // Google counts requests by the minute: a plan may take its reads at once, the average stays at two a second.
  limits: { per_second: 2, burst: 60, concurrent: 8, timeout_ms: 60_000 },

  async connect(entity, runtime) {
    const project = googleProjectOf(entity);
    const origin = googleOrigin(entity.endpoint, FIRESTORE_ORIGIN);
    const scope = entity.impersonate_service_account === undefined ? FIRESTORE_SCOPE : 'cloud-platform';
    const scopes = [`https://www.googleapis.com/auth/${scope}`];
    const authorizer = googleAuthorizer(entity, runtime, { scopes, origin, project });
    const { createFirestoreClient } = await import('./client.ts');
    return createFirestoreClient({ database: entity.database_id, project, origin, authorizer, runtime });
  },

  async recoveryOptions(context, at) {
    const { recoveryOptions } = await import('./backups.ts');
    return recoveryOptions(context, at);
  },

  settings: {
    about: {
      point_in_time_recovery: '7 days of versions instead of one hour; off loses the older ones at once: weaken',
      delete_protection: 'whether the database can be deleted; off is weaken',
      'backup_schedules.daily.retention_days':
        'the daily schedule and how long its backups are kept; shorter or none is weaken',
      'backup_schedules.weekly.retention_days':
        'the weekly schedule and how long its backups are kept; shorter or none is weaken',
      'backup_schedules.weekly.day': 'the day of the weekly schedule; set with the schedule, then compared only',
      location: 'compared only',
      database_type: 'compared only',
      database_edition: 'compared only',
    },
    read: async (context) => (await import('./declared.ts')).readSettings(context),
    write: async (...given) => (await import('./declared.ts')).writeSettings(...given),
    mark: async (context) => (await import('./declared.ts')).settingsMark(context),
  },

  guide: async () => (await import('./guide.ts')).guide,

  discover: async (context) => (await import('./discover.ts')).discover(context),

  async grants({ client, entity, runtime, signal }, permissions) {
    const { projectGrants } = await import('../google-roles.ts');
    return projectGrants(entity, runtime, await client.project(), permissions, signal);
  },

  toError: (cause) =>
    toFirestoreError(cause, {
      resource: 'database',
      permission: 'datastore.databases.getMetadata',
      role: 'roles/datastore.viewer',
    }),
});
