import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { z } from 'zod';
import { defineAction } from '../../src/core/action.ts';
import { asHoldfastError, HoldfastError } from '../../src/core/errors.ts';
import { DEFAULT_POLICY } from '../../src/core/policy.ts';
import { defineProvider } from '../../src/core/provider.ts';
import { ListInput, SnapshotList } from '../../src/core/schemas.ts';
import { createEngine } from '../../src/engine/engine.ts';
import { collect } from '../../src/engine/registry.ts';
import { createRedactor } from '../../src/observability/redaction.ts';
import { openSqliteStore } from '../../src/state/sqlite.ts';
import { serveHttp } from '../../src/surfaces/mcp/http.ts';
import { buildServer } from '../../src/surfaces/mcp/server.ts';
import { serveOnStdio } from '../../src/surfaces/mcp/stdio.ts';
import { createSnapshot, listSnapshots } from './work.ts';

// Holdfast whole, engine, guard, state on disk and audit trail, before a provider that costs nothing.
const [stateDirectory = '', transport] = process.argv.slice(2);
const provider = defineProvider({
  id: 'bench',
  title: 'Bench',
  entityTypes: { 'bench/database': { title: 'A database', schema: z.object({}), ignored: [], example: {} } },
  cannot: {
    'describe-snapshot': 'Use list-snapshots.',
    'delete-snapshot': 'There is nothing to delete.',
    restore: 'There is nothing to restore.',
    'get-backup-info': 'There is nothing to tell.',
    'get-restore-status': 'There is nothing to restore.',
  },
  limits: { per_second: 1e6, burst: 1e6, concurrent: 64, timeout_ms: 1000 },
  connect: async () => ({}),
  recoveryOptions: async () => [],
  toError: asHoldfastError,
});
const declarations = {
  listSnapshots: defineAction({
    provider,
    name: 'list-snapshots',
    title: 'List snapshots',
    summary: 'Lists the snapshots, newest first.',
    risk: 'read',
    input: z.object(ListInput),
    output: SnapshotList,
    errors: [],
    source: 'bench',
    example: {},
    run: async () => listSnapshots() as never,
  }),
  createSnapshot: defineAction({
    provider,
    name: 'create-snapshot',
    title: 'Take a snapshot',
    summary: 'Takes a snapshot.',
    risk: 'create',
    input: z.object({ description: z.string().optional() }),
    output: z.object({ snapshot_id: z.string(), status: z.string() }),
    errors: [],
    source: 'bench',
    example: {},
    run: async () => createSnapshot(),
  }),
};
const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const base = {
  key: 'bench/db',
  namespace: 'bench',
  name: 'db',
  defines: 'bench/database',
  provider: 'bench',
  labels: {},
  objectives: {},
};
const engine = createEngine({
  version: '0.0.0',
  registry: collect({ bench: declarations }),
  entities: [{ base, resolve: async () => ({ ...base }) }],
  policy: DEFAULT_POLICY,
  store: await openSqliteStore(join(stateDirectory, 'state.db')),
  stateDirectory,
  sandbox: false,
  redactor: createRedactor(),
  secrets: {
    secret: async ({ name }) => {
      throw new HoldfastError('AUTHENTICATION_FAILED', `no secret '${name}'`);
    },
    credential: () => undefined,
  },
  log,
  fetch: globalThis.fetch,
  now: () => new Date(),
  sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  random: randomBytes,
});
const principal = { id: 'bench:caller', person: 'caller', roles: ['operator'] } as const;
const deps = { engine, principal, stateKey: randomBytes(32), log };
const factory = (context: Parameters<typeof buildServer>[1]) => buildServer(deps, context);
if (transport === 'http') {
  const { url } = await serveHttp(factory, { config: { port: 0 }, log });
  process.stderr.write(`listening on ${url}\n`);
} else {
  const surface = serveOnStdio(factory, log);
  await surface.closed;
  await surface.close();
  await engine.close();
}
