import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { collect } from '../../src/engine/registry.ts';
import { simulators } from '../../src/simulators/index.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import { type HttpSurface, serveHttp } from '../../src/surfaces/mcp/http.ts';
import { buildServer } from '../../src/surfaces/mcp/server.ts';
import { toolsOf } from '../../src/surfaces/mcp/tools.ts';
import * as declarations from '../../tools/index.ts';
import { type Harness, startHarness } from '../support/harness.ts';
import { CLIENTS, connectClient, type ToolAnswer } from '../support/mcp-clients.ts';

const modules: Record<string, Record<string, unknown>> = { ...declarations };
const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

let provider: SimulatorServer;
let harness: Harness;
let http: HttpSurface;

beforeAll(async () => {
  provider = await startSimulators({ simulators: (clock) => simulators.map((create) => create({ clock })) });
  const entities = [...collect(modules).entityTypes].flatMap(([defines, { type }]) =>
    type.sandbox === undefined
      ? []
      : [
          {
            key: `sandbox/${type.sandbox.name}`,
            defines,
            parameters: type.sandbox.parameters,
            endpoint: provider.origin,
          },
        ],
  );
  const secrets = { REDISCLOUD_ACCESS_KEY: 'sandbox-access-key', REDISCLOUD_SECRET_KEY: 'sandbox-secret-key' };
  harness = await startHarness({ modules, entities, secrets, sandbox: true });
  const principal = { id: 'http:local', person: 'local', roles: ['operator'] } as const;
  const deps = { engine: harness.engine, principal, stateKey: Buffer.alloc(32, 1), log };
  http = await serveHttp((context) => buildServer(deps, context), { config: { port: 0 }, log });
});

afterAll(async () => {
  await http.close();
  await harness.close();
  await provider.close();
});

/** Every read that needs no id, with each entity that it can be called on. */
function reads(): { name: string; args: Record<string, unknown> }[] {
  return (
    toolsOf(harness.engine)
      .filter(({ annotations, action }) => annotations.readOnlyHint && action.input.safeParse({}).success)
      // One of several ids may do, so that none of them is required.
      .filter(({ action }) => !JSON.stringify(action.example).includes('$newest'))
      .flatMap(({ name, entities }) =>
        entities === undefined ? [{ name, args: {} }] : [...entities].map((entity) => ({ name, args: { entity } })),
      )
  );
}

// Time passes between two clients, and some answers tell it.
function withoutTimes<T>(value: T): T {
  return JSON.parse(JSON.stringify(value).replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '<time>')) as T;
}

describe('the sandbox fleet over MCP', () => {
  it('gives every client the same true answers to every read', { timeout: 60_000 }, async () => {
    const answers = await Promise.all(
      CLIENTS.map(async (kind) => {
        const client = await connectClient(kind, { url: http.url });
        const own: Record<string, Pick<ToolAnswer, 'text' | 'structured'>> = {};
        await client.tools();
        const calls = reads().map(async ({ name, args }) => {
          const answer = await client.call(name, args);
          expect(answer.isError, `${name} ${answer.text}`).toBeFalsy();
          expect(answer.meta).toMatchObject({ 'holdfast/sandbox': true });
          const { text, structured } = answer;
          own[`${name} ${JSON.stringify(args)}`] = withoutTimes({ text, structured });
        });
        await Promise.all(calls);
        await client.close();
        return own;
      }),
    );
    expect(Object.keys(answers[0]!).length).toBeGreaterThan(2);
    expect(answers[1]).toEqual(answers[0]);
    expect(answers[2]).toEqual(answers[0]);
  });

  it('never runs the action of the same name that another provider has', async () => {
    const client = await connectClient('sdk 1', { url: http.url });
    const others = toolsOf(harness.engine).filter(({ action }) => action.name === 'list-snapshots');
    for (const tool of others) {
      const foreign = harness.engine.entities().find(({ key }) => !tool.entities?.has(key));
      const answer = await client.call(tool.name, { entity: foreign?.key });
      expect(answer.structured, tool.name).toMatchObject({ error: { code: 'ENTITY_NOT_FOUND' } });
    }
    expect(others.length).toBeGreaterThan(1);
    await client.close();
  });

  it('sends the provider nothing but reads while a guarded call waits for a person', async () => {
    const client = await connectClient('sdk 2 on 2026-07-28', { url: http.url });
    for (const tool of toolsOf(harness.engine).filter(({ action }) => action.risk === 'overwrite')) {
      const entity = [...tool.entities!][0]!;
      const list = await client.call(tool.name.replace(/_restore$/, '_list_snapshots'), { entity });
      const newest = (list.structured['snapshots'] as { id: string }[] | undefined)?.[0]?.id ?? '';
      const example = JSON.parse(JSON.stringify(tool.action.example).replaceAll('$newest', newest)) as object;
      provider.clearJournal();
      const answer = await client.call(tool.name, { ...example, entity });
      expect(answer.structured, tool.name).toMatchObject({ error: { code: 'CONFIRMATION_REQUIRED' } });
      expect(provider.writes(), tool.name).toEqual([]);
    }
    await client.close();
  });
});
