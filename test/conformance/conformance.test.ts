import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type HttpSurface, serveHttp } from '../../src/surfaces/mcp/http.ts';
import { buildServer } from '../../src/surfaces/mcp/server.ts';
import { type MemoryFleet, openMemoryFleet } from '../support/memory-fleet.ts';
import { buildFixture } from './fixture.ts';

const SUITE = join(
  dirname(createRequire(import.meta.url).resolve('@modelcontextprotocol/conformance/package.json')),
  'dist/index.js',
);
const VERSIONS = ['2025-11-25', '2026-07-28'] as const;
const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

let fleet: MemoryFleet;
let fixture: HttpSurface;
let real: HttpSurface;

beforeAll(async () => {
  fleet = await openMemoryFleet();
  const deps = {
    engine: fleet.engine,
    principal: { id: 'http:local', person: 'local', roles: ['operator'] },
    stateKey: Buffer.alloc(32, 1),
    log,
  } as const;
  fixture = await serveHttp(buildFixture, { config: { port: 0 }, log });
  real = await serveHttp((context) => buildServer(deps, context), { config: { port: 0 }, log });
});

afterAll(async () => {
  await Promise.all([fixture.close(), real.close()]);
  await fleet.close();
});

interface Report {
  readonly code: number | null;
  readonly passed: number;
  readonly failed: number;
  readonly output: string;
}

/** Runs the suite. With a baseline it fails on a failure that is not expected, and on an expected one that does not happen. */
async function conform(url: string, args: readonly string[]): Promise<Report> {
  const child = spawn(process.execPath, [SUITE, 'server', '--url', url, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
    });
  }
  const [code] = (await once(child, 'close')) as [number | null];
  const total = /Total: (\d+) passed, (\d+) failed/.exec(output);
  const report = output.slice(Math.max(0, output.indexOf('=== SUMMARY')));
  return { code, passed: Number(total?.[1] ?? 0), failed: Number(total?.[2] ?? -1), output: report };
}

// Fewer passed checks than at the last look means that something is not exercised any more, which no failure would show.
const CHECKS = { '2025-11-25': { fixture: 81, server: 43 }, '2026-07-28': { fixture: 150, server: 95 } };

describe.each(VERSIONS)('conformance suite at %s', (version) => {
  it('passes whole on the fixture behind our wiring', { timeout: 60_000 }, async () => {
    const report = await conform(fixture.url, ['--suite', 'all', '--spec-version', version]);
    expect(report.code, report.output).toBe(0);
    expect(report.failed).toBe(0);
    expect(report.passed).toBeGreaterThanOrEqual(CHECKS[version].fixture);
  });

  it('passes the frozen requirements on the fixture', { timeout: 60_000 }, async () => {
    const report = await conform(fixture.url, ['--requirements', version]);
    // The extensions that it runs beside them are not scored, so only the verdict counts.
    expect(report.code, report.output).toBe(0);
    expect(report.passed).toBeGreaterThanOrEqual(CHECKS[version].fixture);
  });

  it('passes on the real server as far as it applies', { timeout: 60_000 }, async () => {
    const baseline = fileURLToPath(new URL(`./server-${version}.yaml`, import.meta.url));
    const suite = ['--suite', 'all', '--spec-version', version];
    const report = await conform(real.url, [...suite, '--expected-failures', baseline]);
    expect(report.code, report.output).toBe(0);
    expect(report.passed).toBeGreaterThanOrEqual(CHECKS[version].server);
  });
});
