import { z } from 'zod';
import { SecretReference } from '../core/schemas.ts';
import { SchedulesInput } from './schedules.ts';
import { duration, isLoopback, Origin } from './values.ts';

// server -------------------------------------------------------------------------------------------------------------

export const TOKEN_COMMAND = 'printf %s "$TOKEN" | sha256sum';

const BearerToken = z.strictObject({
  name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, 'letters, digits, dots, hyphens and underscores'),
  sha256: z
    .string()
    .refine((text) => /^[0-9a-fA-F]{64}$/.test(text), {
      error: 'write the SHA-256 of the token in hex, never the token',
      params: { suggestion: `Hash it with: ${TOKEN_COMMAND}` },
    })
    .transform((text) => text.toLowerCase())
    .describe('SHA-256 of the bearer token, hex.'),
  roles: z.array(z.enum(['viewer', 'operator', 'approver'])).min(1),
  expires_at: z.iso.datetime({ offset: true }).optional().describe('RFC 3339.'),
});

const HostName = z
  .string()
  .regex(
    /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::\d{1,5})?$/,
    'a host name without a scheme, such as holdfast.example.com',
  );

/** The `server:` section as it is written. */
export const ServerInput = z.strictObject({
  host: z.string().min(1).default('127.0.0.1').describe('Other than loopback needs tokens and allowed_hosts.'),
  port: z.number().int().min(0).max(65_535).default(7311),
  allowed_hosts: z.array(HostName).default([]).describe('Host headers that are answered.'),
  allowed_origins: z.array(Origin).default([]).describe('Browser origins that are answered.'),
  tokens: z.array(BearerToken).default([]),
  max_sessions: z.number().int().min(1).max(100_000).optional(),
  session_idle: duration({ least: 10, most: 604_800 }).optional().describe('How long a session may be idle: 30m.'),
  schedules: z
    .union([z.boolean(), z.enum(['on', 'off'])])
    .default('on')
    .describe('Whether this server runs what entities schedule; off where another one does.'),
});

/** The `server:` section of a file: how Holdfast listens. */
export const ServerSection = ServerInput.superRefine((server, context) => {
  if (!isLoopback(server.host)) {
    for (const [key, what] of [
      ['tokens', 'a token'],
      ['allowed_hosts', 'allowed_hosts'],
    ] as const) {
      if (server[key].length > 0) continue;
      const suggestion = 'Add it, or listen on 127.0.0.1.';
      context.addIssue({
        code: 'custom',
        path: ['host'],
        message: `listening beyond this machine needs ${what}`,
        params: { suggestion },
      });
    }
  }
  for (const key of ['name', 'sha256'] as const) {
    const seen = new Set<string>();
    server.tokens.forEach((token, index) => {
      if (seen.has(token[key]))
        context.addIssue({ code: 'custom', path: ['tokens', index, key], message: 'stands twice' });
      seen.add(token[key]);
    });
  }
}).transform(({ session_idle, schedules, ...server }) => ({
  ...server,
  session_idle_seconds: session_idle,
  schedules: schedules !== false && schedules !== 'off',
}));
export type ServerConfig = z.output<typeof ServerSection>;

// alerts -------------------------------------------------------------------------------------------------------------

const severity = z.enum(['warning', 'critical']).default('warning').describe('The least severity that is sent.');
const webhookName = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._-]*$/, 'lower-case letters, digits, dots, hyphens, underscores');

const Webhook = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('generic'),
    name: webhookName,
    url: SecretReference,
    secret: SecretReference.optional().describe('Signs each message.'),
    severity,
  }),
  z.strictObject({ kind: z.literal('slack'), name: webhookName, url: SecretReference, severity }),
  z.strictObject({
    kind: z.literal('pagerduty'),
    name: webhookName,
    routing_key: SecretReference,
    endpoint: Origin.optional(),
    severity,
  }),
]);

const off = z.literal(false);
const within = (fallback: string) => z.union([off, duration()]).prefault(fallback);

/** The `alerts:` section as it is written; `false` switches a rule off. */
export const AlertsInput = z.strictObject({
  webhooks: z.array(Webhook).default([]),
  check_every: duration({ least: 10, most: 86_400 }).prefault('5m'),
  rules: z
    .strictObject({
      no_restorable_point: within('48h').describe('No restorable point for this long.'),
      failures_in_a_row: z.union([off, z.number().int().min(1)]).default(3),
      retention_below_objective: z.boolean().default(true),
      drill_overdue: z.boolean().default(true),
      storage_above_bytes: z.union([off, z.number().int().min(1)]).default(false),
      replication_lag: within('10s'),
      replication_lag_bytes: z.union([off, z.number().int().min(1)]).default(10_000_000),
      verification_older_than: within('30d'),
    })
    .prefault({}),
});

/** The `alerts:` section of a file: what is told to whom. Durations are seconds. */
export const AlertsSection = AlertsInput.superRefine((alerts, context) => {
  const seen = new Set<string>();
  alerts.webhooks.forEach((webhook, index) => {
    if (seen.has(webhook.name))
      context.addIssue({ code: 'custom', path: ['webhooks', index, 'name'], message: 'stands twice' });
    seen.add(webhook.name);
  });
});
export type AlertsConfig = z.output<typeof AlertsSection>;

// every entity -------------------------------------------------------------------------------------------------------

/** What every entity may have besides its type's own parameters. */
export const EntityBaseInput = z.object({
  labels: z
    .record(z.string().min(1), z.union([z.string(), z.number(), z.boolean()]).transform(String))
    .default({})
    .describe('Names and values that rules of the guard match.'),
  objectives: z
    .strictObject({
      rpo: duration().optional().describe('Most data that may be lost: 15m.'),
      rto: duration().optional().describe('Longest time to be back: 1h.'),
      min_retention: duration().optional().describe('How far back one must be able to go: 14d.'),
      drill_every: duration().optional().describe('How often a restore is rehearsed: 90d.'),
    })
    .default({}),
  schedules: SchedulesInput.optional().describe('Calls that the clock makes, while holdfast serve runs.'),
  endpoint: Origin.optional().describe('Where requests go instead of the provider: a private endpoint or an emulator.'),
});
