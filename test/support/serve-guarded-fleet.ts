import { buildServer } from '../../src/surfaces/mcp/server.ts';
import { serveOnStdio } from '../../src/surfaces/mcp/stdio.ts';
import { modules } from './guarded-fleet.ts';
import { type HarnessOptions, startHarness } from './harness.ts';

// Serves a fleet that the test holds in its hands on stdio, from a process of its own.
const given = JSON.parse(process.env['HOLDFAST_TEST_FLEET'] ?? '{}') as Omit<HarnessOptions, 'modules'>;
const harness = await startHarness({ ...given, modules });
const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const principal = { id: 'stdio:ana', person: 'ana', roles: ['operator'] } as const;

const deps = { engine: harness.engine, principal, stateKey: Buffer.alloc(32, 7), log };
const surface = serveOnStdio((context) => buildServer(deps, context), log);
await surface.closed;
await surface.close();
await harness.close();
