import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import type { EntityTypes } from '../../src/config/entities.ts';
import { type Config, type ConfigReport, faultText, loadConfig } from '../../src/config/load.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import { SecretReference } from '../../src/core/schemas.ts';

/** Two small entity types with one of everything that real ones have. */
export const entityTypes: EntityTypes = {
  'fake/server': {
    provider: 'fake',
    type: {
      title: 'A fake server',
      schema: z.object({
        host: z.string().describe('Where it listens'),
        name: z.string().optional(),
        provider: z.string().optional(),
        port: z.number().int().min(1).max(65_535).optional(),
        backup_retention_period: z.number().int().min(0).max(35).optional(),
        deletion_protection: z.boolean().optional(),
        mode: z.enum(['logical', 'physical']).optional(),
        password: SecretReference.optional(),
        user: z.union([SecretReference, z.string().min(1)]).optional(),
        remote_backup: z
          .object({ active: z.boolean(), interval: z.string().optional(), key: SecretReference.optional() })
          .optional(),
        databases: z.array(z.string()).optional(),
        storage: z.strictObject({ type: z.literal('local'), path: z.string() }).optional(),
      }),
      ignored: ['instance_class', 'master_password', 'password_secret', 'tags'],
      example: { defines: 'fake/server', host: 'db.internal', port: 5432, password: '${env:PGPASSWORD}' },
      sandbox: { name: 'fake-server', parameters: {} },
    },
  },
  'fake/table': {
    provider: 'fake',
    type: {
      title: 'A fake table',
      schema: z
        .object({
          table_name: z.string().regex(/^[a-z]+$/, 'lower-case letters'),
          low: z.number().optional(),
          high: z.number().optional(),
        })
        .refine((table) => (table.low ?? 0) <= (table.high ?? Number.POSITIVE_INFINITY), {
          error: 'low must not be above high',
        }),
      ignored: [],
      example: { table_name: 'orders' },
    },
  },
};

export function load(text: string, env: Record<string, string> = {}): Config {
  return loadConfig({ text, entityTypes, env, baseDirectory: '/nowhere' });
}

export function report(text: string): ConfigReport {
  return loadConfig({ text, entityTypes, baseDirectory: '/nowhere', strict: false });
}

/** The faults of a text, one line each. */
export function faults(text: string): string[] {
  return report(text).faults.map(faultText);
}

/** Writes files into a folder of their own and gives its path. */
export function folder(files: Record<string, string | Uint8Array>): string {
  const root = mkdtempSync(join(tmpdir(), 'holdfast-config-'));
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), content);
  }
  return root;
}

/** What a call throws, which must be one of our errors. */
export function refusal(call: () => unknown): HoldfastError {
  try {
    call();
  } catch (cause) {
    if (cause instanceof HoldfastError) return cause;
    throw cause;
  }
  throw new Error('nothing was refused');
}
