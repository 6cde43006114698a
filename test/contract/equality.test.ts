import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ERROR_CODES, type ErrorCode } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import { isGuarded } from '../../src/core/risk.ts';
import { runCli } from '../../src/surfaces/cli/program.ts';
import { type HttpSurface, serveHttp } from '../../src/surfaces/mcp/http.ts';
import { buildServer } from '../../src/surfaces/mcp/server.ts';
import { toolName } from '../../src/surfaces/mcp/tools.ts';
import { type GuardedFleet, modules, newestSnapshot, registry, startGuardedFleet } from '../support/guarded-fleet.ts';
import { type Harness, startHarness } from '../support/harness.ts';
import { CLIENTS, connectClient, type TestClient } from '../support/mcp-clients.ts';
import { describePostgres } from '../support/postgres.ts';

// One call, one answer: each action's own example over the three MCP clients, on HTTP and stdio, and on the command line.

const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const PRINCIPAL = { id: 'stdio:ana', person: 'ana', roles: ['operator', 'approver', 'viewer'] } as const;

interface Answer {
  readonly failed: boolean;
  readonly content: unknown;
}
type Way = (tool: string, path: string, input: JsonObject) => Promise<Answer>;

let fleet: GuardedFleet;
let harness: Harness;
let http: HttpSurface;
let stateDirectory: string;
const ways = new Map<string, Way>();
const clients: TestClient[] = [];
const exits: [string, number][] = [];

/** Every action on every entity that has it, called by its example. */
const calls = registry.actions.flatMap((action) =>
  action.on.flatMap((defines) => {
    const type = registry.entityTypes.get(defines)!.type;
    const entity = `sandbox/${type.sandbox?.name ?? 'postgresql'}`;
    return [{ action, entity, title: `${toolName(action)} on ${entity}` }];
  }),
);

let made = 0;

async function exampleOf(example: JsonObject, entity: string): Promise<JsonObject> {
  const text = JSON.stringify(example);
  const filled = text.includes('$newest')
    ? text.replaceAll('$newest', await newestSnapshot(harness.engine, entity))
    : text;
  // What is made once cannot be made again under the same name.
  made += 1;
  return JSON.parse(filled.replace('"restored"', `"restored_${made}"`)) as JsonObject;
}

const overMcp =
  (client: TestClient): Way =>
  async (tool, path, input) => {
    const entity = path.split('/').slice(0, 2).join('/');
    const answer = await client.call(tool, { entity, ...input });
    return { failed: answer.isError === true, content: answer.structured };
  };

const onTheCommandLine: Way = async (_, path, input) => {
  const chunks: Buffer[] = [];
  const stdout = new PassThrough();
  stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  const unused = (): never => {
    throw new Error('not used here');
  };
  const words = Object.entries(input).map(
    ([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  const status = await runCli(['do', path, ...words, '--json'], {
    version: '0',
    // The engine outlives the command.
    openEngine: async () =>
      new Proxy(harness.engine, {
        get: (engine, name) => {
          const member: unknown = name === 'close' ? async () => {} : Reflect.get(engine, name, engine);
          return typeof member === 'function' ? member.bind(engine) : member;
        },
      }),
    serve: unused,
    startSandbox: unused,
    runDemo: unused,
    checkConfig: unused,
    stdin: new PassThrough(),
    stdout,
    stderr: new PassThrough().resume(),
    env: {},
    signal: new AbortController().signal,
    user: 'ana',
    log,
  });
  const content = JSON.parse(Buffer.concat(chunks).toString('utf8')) as JsonObject;
  const error = content['error'] as JsonObject | undefined;
  const code = content['status'] === undefined ? (error?.['code'] as ErrorCode | undefined) : undefined;
  exits.push([code ?? 'ok', status]);
  return { failed: code !== undefined, content };
};

/** Takes out what differs from one call to the next: moments, ids that a call makes, and how long ago something was. */
function steady(value: unknown): unknown {
  const text = JSON.stringify(value)
    .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '<time>')
    .replace(/\d{8}T\d{6}Z-logical-[a-z0-9]{6}/g, '<backup>')
    .replace(
      /op_[0-9a-f]{20}|hfc_[\w-]{22}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{24}\b|\b17\d{11}\b/g,
      '<id>',
    )
    .replace(/\b[2-9A-HJKMNP-Z]{4}-[2-9A-HJKMNP-Z]{4}\b/g, '<code>')
    .replace(/\b\d+ (s|min|h|d)\b( \d+ (s|min|h))?/g, '<age>')
    .replace(/restored_\d+/g, '<new>')
    .replace(/holdfast do sandbox[^"]*|[a-z_]+ \{\\"entity[^"]*(\\"[^"]*)*/g, '<call>');
  return JSON.parse(text, (key, member: unknown) => {
    // Counters and durations move by themselves, and progress is where it happens to be.
    if (
      /_(seconds|ms|bytes)$|^(percent|oid|duration_estimate|stored_bytes|backups|snapshots|newer_snapshots|connections)$/.test(
        key,
      ) &&
      typeof member === 'number'
    )
      return '<n>';
    if (key === 'message' && typeof member === 'string' && /\d/.test(member)) return '<progress>';
    return member;
  });
}

describe('the declarations', () => {
  it.each(calls)('$title are fit to be called by anyone', ({ action }) => {
    expect(toolName(action)).toMatch(/^[a-z0-9_]{1,48}$/);
    for (const name of Object.keys(action.input.shape)) expect(name).toMatch(/^[a-z][a-z0-9_]*$/);
    expect(Object.keys(ERROR_CODES)).toEqual(expect.arrayContaining([...action.errors]));
    expect(action.input.safeParse(action.example).success).toBe(true);
    expect(action.summary.split(' ').length).toBeLessThanOrEqual(26);
  });
});

describePostgres('the same call gives the same answer', () => {
  beforeAll(async () => {
    stateDirectory = mkdtempSync(join(tmpdir(), 'holdfast-equality-'));
    fleet = await startGuardedFleet();
    harness = await startHarness({ modules, entities: fleet.entities, secrets: fleet.secrets, stateDirectory });
    for (const { action, entity } of calls)
      if (JSON.stringify(action.example).includes('$newest')) await newestSnapshot(harness.engine, entity);
    const deps = { engine: harness.engine, principal: PRINCIPAL, stateKey: Buffer.alloc(32, 7), log };
    http = await serveHttp((context) => buildServer(deps, context), { config: { port: 0 }, log });
    const given = JSON.stringify({ entities: fleet.entities, secrets: fleet.secrets, stateDirectory });
    const path = fileURLToPath(new URL('../support/serve-guarded-fleet.ts', import.meta.url));
    const node = { node: [path], env: { HOLDFAST_TEST_FLEET: given, PATH: process.env['PATH'] ?? '' } };
    for (const kind of CLIENTS) {
      for (const [transport, target] of [
        ['HTTP', { url: http.url }],
        ['stdio', node],
      ] as const) {
        const client = await connectClient(kind, target);
        clients.push(client);
        ways.set(`${kind} on ${transport}`, overMcp(client));
      }
    }
    ways.set('the command line', onTheCommandLine);
  }, 120_000);

  afterAll(async () => {
    await Promise.all(clients.map((client) => client.close()));
    await http?.close();
    await harness?.close();
    await fleet?.close();
    rmSync(stateDirectory, { recursive: true, force: true });
  });

  it.each(calls)('$title', { timeout: 60_000 }, async ({ action, entity }) => {
    const path = `${entity}/${action.name}`;
    const fails = { ...(await exampleOf(action.example, entity)), no_such_parameter: 1 };
    const answers: [string, Answer, Answer][] = [];
    for (const [name, way] of ways) {
      const input = await exampleOf(action.example, entity);
      answers.push([name, await way(toolName(action), path, input), await way(toolName(action), path, fails)]);
      // What was begun is waited for: the next way must find the same state.
      await settle();
    }
    const [[first, expected, refused], ...others] = answers as [
      [string, Answer, Answer],
      ...[string, Answer, Answer][],
    ];
    expect(refused).toMatchObject({ failed: true, content: { error: { code: 'INVALID_PARAMETER' } } });
    if (isGuarded(action.risk))
      expect(expected).toMatchObject({
        failed: true,
        content: { error: { code: 'CONFIRMATION_REQUIRED' }, plan: {}, confirmation: {} },
      });
    for (const [name, answer, refusal] of others) {
      expect([name, answer.failed]).toEqual([name, expected.failed]);
      if (action.steps === undefined || answer.failed)
        expect(steady(answer.content), `${name} as ${first}`).toEqual(steady(expected.content));
      else expect(outline(answer.content), `${name} as ${first}`).toEqual(outline(expected.content));
      expect(steady(refusal.content), `${name} as ${first}`).toEqual(steady(refused.content));
    }
  });

  it('ends the command line with the status of the error table', () => {
    expect(exits.length).toBeGreaterThan(20);
    for (const [code, status] of exits)
      expect([code, status]).toEqual([code, code === 'ok' ? 0 : ERROR_CODES[code as ErrorCode].exit]);
  });
});

/** What an operation says of itself, whenever it is looked at. */
function outline(content: unknown): unknown {
  const { action, entity, target, steps } = content as {
    action: string;
    entity: string;
    target: string;
    steps: { name: string }[];
  };
  return {
    action,
    entity,
    target: String(target).replace(/\d{8}T\d{6}Z-logical-[a-z0-9]{6}|restored_\d+/, '<made>'),
    steps: steps.map(({ name }) => name),
    keys: Object.keys(content as object).includes('operation_id'),
  };
}

async function settle(): Promise<void> {
  const open = await harness.store.operations({ statuses: ['pending', 'running'] });
  for (const { id } of open)
    await harness.engine.call({
      principal: PRINCIPAL,
      action: 'wait-operation',
      input: { operation_id: id, timeout_seconds: 30 },
    });
}
