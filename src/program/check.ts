import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { loadConfig } from '../config/load.ts';
import type { LocatedReference } from '../config/written.ts';
import type { ConfigReport } from '../surfaces/cli/deps.ts';
import { configPath, entityTypes, hasSchedules, type OpenOptions, registry } from './open.ts';

/** Reads the entities file and says everything that is wrong with it, and which credentials it names are there. */
export async function checkConfig(options: Pick<OpenOptions, 'config' | 'env'>): Promise<ConfigReport> {
  const file = configPath(options);
  if (file === undefined) return { file: undefined, faults: [], warnings: [], entities: [] };
  const { env } = options;
  const report = loadConfig({ path: file, entityTypes, env, strict: false });
  const onClock = hasSchedules(report)
    ? await (await import('../schedule/check.ts')).scheduleFaults(report.entities, registry)
    : [];
  return {
    file,
    faults: [...report.faults, ...onClock],
    warnings: report.warnings,
    entities: report.entities.map(({ base, ignored, references }) => ({
      key: base.key,
      defines: base.defines,
      ignored,
      credentials: distinct(references).map(({ kind, name, fallback }) => ({
        name: kind === 'env' ? `\${env:${name}}` : `\${file:${name}}`,
        found:
          kind === 'env'
            ? (env[name] ?? '') !== '' || fallback !== undefined
            : existsSync(resolve(report.baseDirectory, name)),
      })),
    })),
    ...(report.guard?.read_only === true ? { read_only: true } : {}),
  };
}

/** Gives each variable and file once, however often an entity names it. */
function distinct(references: readonly LocatedReference[]): LocatedReference[] {
  return [...new Map(references.map((reference) => [`${reference.kind}:${reference.name}`, reference])).values()];
}
