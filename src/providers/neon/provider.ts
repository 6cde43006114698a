import { z } from 'zod';
import { asHoldfastError } from '../../core/errors.ts';
import { defineProvider } from '../../core/provider.ts';
import { SecretReference } from '../../core/schemas.ts';
import type { NeonClient } from './client.ts';

const ScheduleItem = z
  .strictObject({
    frequency: z.enum(['daily', 'weekly', 'monthly']),
    hour: z.number().int().min(0).max(23).describe('UTC'),
    day: z.number().int().min(1).max(31).optional(),
    retention_seconds: z.number().int().min(3600).optional(),
  })
  .refine(
    ({ frequency, day }) => (frequency === 'daily' ? day === undefined : day !== undefined),
    'weekly and monthly need day, daily has none',
  )
  .refine(({ frequency, day }) => frequency !== 'weekly' || (day ?? 0) <= 7, 'day is 1 to 7 in a week');

const Project = z.object({
  project_id: z.string().regex(/^[a-z0-9-]{1,60}$/, 'the id of a Neon project, such as spring-example-302709'),
  branch: z.string().min(1).max(256).optional().describe('Name or id; the default branch when left out'),
  api_key: SecretReference.optional().describe('NEON_API_KEY when left out'),
  history_retention_seconds: z.number().int().min(0).max(2_592_000).optional(),
  backup_schedule: z.array(ScheduleItem).optional(),
  protected: z.boolean().optional().describe('Whether the branch is meant to be protected'),
});

/** The parameters of a `neon/project`. */
export type NeonEntity = z.output<typeof Project>;

/** Neon: serverless PostgreSQL with branches. */
export const neon = defineProvider<NeonEntity, NeonClient>({
  id: 'neon',
  title: 'Neon',
  entityTypes: {
    'neon/project': {
      title: 'Neon project, or one branch of it',
      schema: Project,
      ignored: [
        'autoscaling_limit_max_cu',
        'autoscaling_limit_min_cu',
        'database_name',
        'name',
        'org_id',
        'permitted-secrets',
        'pg_version',
        'region_id',
        'role_name',
        'secret_ref',
        'services',
        'suspend_timeout_seconds',
      ],
      example: {
        project_id: 'spring-example-302709',
        branch: 'main',
        api_key: '${env:NEON_API_KEY}',
        history_retention_seconds: 604_800,
        backup_schedule: [{ frequency: 'daily', hour: 3, retention_seconds: 604_800 }],
      },
      sandbox: {
        name: 'neon',
        parameters: {
          project_id: 'spring-example-302709',
          branch: 'main',
          api_key: '${env:NEON_API_KEY}',
          history_retention_seconds: 604_800,
        },
      },
    },
  },
  cannot: {},
  // 700 requests a minute, 40 a second for each route.
  limits: { per_second: 8, burst: 24, concurrent: 6, timeout_ms: 30_000 },

  async connect(entity, runtime) {
    const { NeonClient } = await import('./client.ts');
    return new NeonClient(entity, runtime);
  },

  settings: {
    about: {
      history_retention_seconds:
        'how far back any moment of any branch can be restored; less is weaken, at once and for good, 0 switches it off',
      backup_schedule: 'when snapshots are taken by themselves and how long they are kept; rarer or shorter is weaken',
      protected: 'whether the branch can be neither deleted nor replaced; false is weaken',
    },
    read: async (context) => (await import('./declared.ts')).readSettings(context),
    write: async (context, write) => (await import('./declared.ts')).writeSettings(context, write),
  },

  guide: async () => (await import('./guide.ts')).guide,

  discover: async (context) => (await import('./discover.ts')).discover(context),

  async recoveryOptions(context, at) {
    const { recoveryOptions } = await import('./info.ts');
    return recoveryOptions(context, at);
  },

  // The client maps what it meets; whatever else gets here is a fault of ours.
  toError: asHoldfastError,
});
