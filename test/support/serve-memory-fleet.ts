import { buildServer } from '../../src/surfaces/mcp/server.ts';
import { serveOnStdio } from '../../src/surfaces/mcp/stdio.ts';
import { openMemoryFleet } from './memory-fleet.ts';

// Serves the memory fleet on stdio, for the tests that need a process of its own.
const fleet = await openMemoryFleet();
const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const principal = { id: 'stdio:tester', person: 'tester', roles: ['operator'] } as const;
const deps = { engine: fleet.engine, principal, stateKey: Buffer.alloc(32, 7), log };
const surface = serveOnStdio((context) => buildServer(deps, context), log);
await surface.closed;
await surface.close();
await fleet.close();
