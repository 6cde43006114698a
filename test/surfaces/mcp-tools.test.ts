import { readFileSync, writeFileSync } from 'node:fs';
import { fromJsonSchema } from '@modelcontextprotocol/server';
import { encode } from 'gpt-tokenizer/encoding/o200k_base';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { HoldfastError } from '../../src/core/errors.ts';
import type { Plan } from '../../src/core/plan.ts';
import type { Engine } from '../../src/engine/api.ts';
import { collect } from '../../src/engine/registry.ts';
import { errorResult } from '../../src/surfaces/mcp/call.ts';
import { compactToolsOf } from '../../src/surfaces/mcp/compact.ts';
import { type HttpSurface, serveHttp } from '../../src/surfaces/mcp/http.ts';
import { listInput, listOutput } from '../../src/surfaces/mcp/schema.ts';
import { buildServer } from '../../src/surfaces/mcp/server.ts';
import { type Tool, toolsOf } from '../../src/surfaces/mcp/tools.ts';
import * as declarations from '../../tools/index.ts';
import { type Harness, startHarness } from '../support/harness.ts';
import { CLIENTS, connectClient } from '../support/mcp-clients.ts';

const GOLDEN = new URL('../golden/tools.json', import.meta.url);
const modules: Record<string, Record<string, unknown>> = { ...declarations };
const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

let harness: Harness;
let http: HttpSurface;
let tools: readonly Tool[];

beforeAll(async () => {
  const entities = [...collect(modules).entityTypes].flatMap(([defines, { type }]) =>
    type.sandbox === undefined
      ? []
      : [{ key: `sandbox/${type.sandbox.name}`, defines, parameters: type.sandbox.parameters }],
  );
  harness = await startHarness({ modules, entities });
  tools = toolsOf(harness.engine);
  const principal = { id: 'http:local', person: 'local', roles: ['operator'] } as const;
  const deps = { engine: harness.engine, principal, stateKey: Buffer.alloc(32, 1), log };
  http = await serveHttp((context) => buildServer(deps, context), { config: { port: 0 }, log });
});

afterAll(async () => {
  await http.close();
  await harness.close();
});

function tokensOf({ name, description, inputSchema }: Pick<Tool, 'name' | 'description' | 'inputSchema'>): number {
  return [name, description, JSON.stringify(inputSchema)].reduce((sum, text) => sum + encode(text).length, 0);
}

describe('the list of the sandbox fleet', () => {
  it('is what the golden file says', () => {
    // One line a tool, so that a change reads as the tools that it changes.
    const lines = tools.map(({ name, title, description, inputSchema, outputSchema, annotations }) =>
      JSON.stringify({ name, title, description, inputSchema, outputSchema, annotations }),
    );
    const text = `[\n${lines.join(',\n')}\n]\n`;
    if (process.env['UPDATE_GOLDEN'] === '1') writeFileSync(GOLDEN, text);
    expect(text, 'UPDATE_GOLDEN=1 writes the file anew').toBe(readFileSync(GOLDEN, 'utf8'));
  });

  it.each(CLIENTS)('comes whole and in order to %s', async (kind) => {
    const client = await connectClient(kind, { url: http.url });
    const listed = await client.tools();
    await client.close();
    expect(listed.map(({ name }) => name)).toEqual(tools.map(({ name }) => name));
    expect(listed.map(({ inputSchema }) => inputSchema)).toEqual(tools.map(({ inputSchema }) => inputSchema));
  });

  it('costs at most 80 tokens a tool on average, and 2,000 for the fleet tools with any one provider', () => {
    const average = tools.reduce((sum, tool) => sum + tokensOf(tool), 0) / tools.length;
    const providerOf = ({ action }: Tool): string => (action.kind === 'fleet' ? '' : action.provider.id);
    const cost = (provider: string): number =>
      tools.filter((tool) => ['', provider].includes(providerOf(tool))).reduce((sum, tool) => sum + tokensOf(tool), 0);
    const costs = [...new Set(tools.map(providerOf))].map(
      (provider) => [provider || 'fleet alone', cost(provider)] as const,
    );
    const dearest = [...tools].sort((a, b) => tokensOf(b) - tokensOf(a)).slice(0, 5);
    const figures = [
      `${tools.length} tools, ${average.toFixed(1)} tokens a tool on average`,
      ...costs.map(([provider, tokens]) => `  ${provider}: ${tokens}`),
      ...dearest.map((tool) => `  dearest: ${tool.name} ${tokensOf(tool)}`),
    ].join('\n');
    process.stderr.write(`${figures}\n`);
    expect(average, figures).toBeLessThanOrEqual(80);
    expect(Math.max(...costs.map(([, tokens]) => tokens)), figures).toBeLessThanOrEqual(2000);
  });

  it('costs at most 700 tokens where it is compact, however many databases there are', async () => {
    const cost = (engine: Engine): number => compactToolsOf(engine).reduce((sum, tool) => sum + tokensOf(tool), 0);
    // Twenty keys are the most that the list itself names.
    const types = harness.engine.entities().map(({ defines }) => defines);
    const entities = Array.from({ length: 20 }, (_, at) => ({
      key: `holdings-production/customer-orders-${at}`,
      defines: types[at % types.length] ?? '',
      parameters: {},
    }));
    const named = await startHarness({ modules, entities });
    await named.close();
    const costs = { 'the sandbox fleet': cost(harness.engine), 'twenty long names': cost(named.engine) };
    process.stderr.write(`compact list, tokens: ${JSON.stringify(costs)}\n`);
    expect(Math.max(...Object.values(costs)), JSON.stringify(costs)).toBeLessThanOrEqual(700);
  });

  it('has names that every client can prefix, each once', () => {
    for (const { name } of tools) expect(name).toMatch(/^[a-z][a-z0-9_]{2,47}$/);
    expect(new Set(tools.map(({ name }) => name)).size).toBe(tools.length);
  });

  it('derives the hints from the risk', () => {
    for (const { action, annotations, guarded, inputSchema, name } of tools) {
      expect(annotations.readOnlyHint, name).toBe(action.risk === 'read' && action.upTo === 'read');
      expect(annotations.destructiveHint, name).toBe(guarded);
      expect('confirmation_token' in inputSchema.properties, name).toBe(guarded);
    }
  });

  it('accepts the example of every action', async () => {
    for (const { action, entities, inputSchema, name } of tools) {
      const entity = entities === undefined ? {} : { entity: [...entities][0] };
      const result = await fromJsonSchema(inputSchema as never)['~standard'].validate({ ...entity, ...action.example });
      expect(result.issues, name).toBeUndefined();
    }
  });

  // A 2025 client of the first SDK line checks an error's structured content too, and throws when it does not fit.
  it('has output schemas that the answer of a refusal fits', async () => {
    const plan: Plan = {
      action: 'restore',
      entity: 'shop/orders',
      risk: 'overwrite',
      target: 'p/orders',
      loses: 'everything',
      blast_radius: {},
      safety_snapshot: { state: 'taken' },
      undo: 'none',
      alternatives: [],
      unknowns: [],
      warnings: [],
      facts: { target: {} },
    };
    const details = { plan: plan as never, confirmation: { id: 'c', token: 'hfc_x', code: 'C' } };
    const refusal = errorResult(new HoldfastError('CONFIRMATION_REQUIRED', 'no', { details })).structuredContent;
    for (const { name, outputSchema } of tools) {
      const result = await fromJsonSchema(outputSchema as never)['~standard'].validate(refusal);
      expect(result.issues, name).toBeUndefined();
    }
  });
});

describe('a large fleet', () => {
  it('is not enumerated in every tool, and an invented entity is refused all the same', async () => {
    const entities = Array.from({ length: 26 }, (_, at) => ({
      key: `fleet/db-${at}`,
      defines: 'gcp/cloud-sql-instance',
      parameters: { project: 'p', name: `db-${at}` },
    }));
    const large = await startHarness({ modules, entities });
    const tool = toolsOf(large.engine).find(({ action }) => action.name === 'list-snapshots');
    const compact = compactToolsOf(large.engine).find(({ name }) => name === 'do_action');
    await large.close();
    expect(tool?.inputSchema.properties['entity']).toEqual({
      type: 'string',
      description: 'See backup_list_databases',
    });
    expect(compact?.inputSchema.properties['entity']).toEqual({
      type: 'string',
      description: '<namespace>/<name>; see list-databases',
    });
    expect(tool?.entities?.size).toBe(26);
    expect(tool?.entities?.has('fleet/db-26')).toBe(false);
  });
});

describe('listed schemas', () => {
  it('keep what a model needs and drop what the engine checks anyway', () => {
    const input = z.strictObject({
      limit: z.number().int().min(1).max(500).optional(),
      mode: z.enum(['a', 'b']).default('a'),
      at: z.union([z.string(), z.number().int()]).describe('RFC 3339'),
      id: z.string().regex(/^[a-z]{1,20}$/),
      names: z.array(z.string().min(1)).max(3),
      labels: z.record(z.string(), z.string()).optional(),
      either: z.union([z.literal(1), z.literal(2)]).optional(),
    });
    expect(listInput(input)).toEqual({
      type: 'object',
      properties: {
        limit: { type: 'integer' },
        mode: { type: 'string', enum: ['a', 'b'] },
        at: { type: 'string', description: 'RFC 3339' },
        id: { type: 'string' },
        names: { type: 'array', items: { type: 'string' } },
        labels: { type: 'object' },
        either: {
          anyOf: [
            { type: 'number', const: 1 },
            { type: 'number', const: 2 },
          ],
        },
      },
      required: ['at', 'id', 'names'],
    });
  });

  it('never fail on what JSON Schema cannot say, so that one action cannot take the list away', () => {
    const odd = z.object({ when: z.date(), big: z.bigint().optional() });
    expect(listInput(odd)).toEqual({ type: 'object', properties: { when: {}, big: {} }, required: ['when'] });
    expect(listOutput(z.union([z.object({ a: z.string() }), z.object({ b: z.string() })]))).toEqual({
      type: 'object',
      properties: {},
    });
  });

  it('of outputs require nothing at the top and stop where they get deep', () => {
    const output = z.object({
      a: z.object({ b: z.object({ c: z.object({ d: z.string() }) }) }),
      list: z.array(z.object({ x: z.string() })),
    });
    expect(listOutput(output)).toEqual({
      type: 'object',
      properties: {
        a: { type: 'object', properties: { b: { type: 'object' } }, required: ['b'] },
        list: { type: 'array', items: { type: 'object', properties: { x: { type: 'string' } }, required: ['x'] } },
      },
    });
  });
});
