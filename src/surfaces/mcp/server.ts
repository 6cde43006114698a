import {
  completable,
  createRequestStateCodec,
  type McpRequestContext,
  McpServer,
  type StandardSchemaWithJSON,
} from '@modelcontextprotocol/server';
import { z } from 'zod';
import { asHoldfastError } from '../../core/errors.ts';
import { isObject, type JsonObject } from '../../core/json.ts';
import type { Principal } from '../../core/principal.ts';
import type { Log } from '../../core/runtime.ts';
import type { Engine } from '../../engine/api.ts';
import { renderValue } from '../render.ts';
import { type AskedState, type CallParts, callTool } from './call.ts';
import type { ListedSchema } from './schema.ts';
import { maySee, type Tool, toolsOf } from './tools.ts';

export interface McpDeps {
  readonly engine: Engine;
  /** Who calls where the transport names nobody: the user of a stdio server. */
  readonly principal: Principal;
  /** Signs what the client carries between the rounds of a question: 32 bytes or more, the same on every replica. */
  readonly stateKey: Uint8Array;
  readonly log: Log;
}

const INSTRUCTIONS = [
  'Holdfast looks after database backups. Reading tools run at once. A tool that can lose data first answers',
  'CONFIRMATION_REQUIRED with a plan: what is lost, since when, how to go back, safer ways. Show that plan to the person.',
  'Where your client can ask, they are asked directly; else they approve as the answer says, and you repeat exactly the',
  'same call with confirmation_token. Never approve yourself, never change arguments after approval, prefer a safer way.',
  'An answer without isError means that it ran. Long work answers with an operation_id: follow it with',
  'backup_wait_operation. In a disaster begin with backup_find_recovery_options.',
].join(' ');

interface Parts extends CallParts {
  readonly tools: readonly RegisteredDefinition[];
}

interface RegisteredDefinition {
  readonly tool: Tool;
  readonly config: {
    readonly title: string;
    readonly description: string;
    readonly inputSchema: StandardSchemaWithJSON<JsonObject, JsonObject>;
    readonly outputSchema: StandardSchemaWithJSON<unknown, unknown>;
    readonly annotations: Tool['annotations'];
  };
}

const partsOfDeps = new WeakMap<McpDeps, Parts>();

/** Builds the server of one connection (stdio, a legacy session) or of one request; everything costly is made once for `deps`. */
export function buildServer(deps: McpDeps, requestContext: McpRequestContext): McpServer {
  const parts = partsOf(deps);
  const principal = principalOf(deps, requestContext.authInfo);
  const server = new McpServer(
    { name: 'holdfast', title: deps.engine.sandbox ? 'Holdfast (sandbox)' : 'Holdfast', version: deps.engine.version },
    {
      // The lists are fixed for the life of the process.
      capabilities: {
        tools: { listChanged: false },
        resources: { listChanged: false },
        prompts: { listChanged: false },
      },
      instructions: deps.engine.sandbox
        ? `SANDBOX: every provider is simulated; nothing real can be lost. ${INSTRUCTIONS}`
        : INSTRUCTIONS,
      requestState: { verify: parts.codec.verify },
      inputRequired: { maxRounds: 3, roundTimeoutMs: 600_000 },
      cacheHints: {
        'tools/list': { ttlMs: 300_000, cacheScope: 'private' },
        'prompts/list': { ttlMs: 300_000, cacheScope: 'private' },
        'resources/list': { ttlMs: 300_000, cacheScope: 'private' },
        'server/discover': { ttlMs: 300_000, cacheScope: 'private' },
      },
      maxToolInputElements: 5_000,
    },
  );
  for (const { tool, config } of parts.tools) {
    if (!maySee(principal, tool)) continue;
    server.registerTool(tool.name, config, (args, context) =>
      callTool(parts, server, tool, principalOf(deps, context.http?.authInfo), args, context),
    );
  }
  registerEntities(server, deps.engine);
  registerDisasterRecovery(server, deps.engine);
  return server;
}

function partsOf(deps: McpDeps): Parts {
  const known = partsOfDeps.get(deps);
  if (known !== undefined) return known;
  const { engine, log } = deps;
  const codec = createRequestStateCodec<AskedState>({
    key: deps.stateKey,
    ttlSeconds: 600,
    bind: (context) => `${context.mcpReq.method}\0${principalOf(deps, context.http?.authInfo).id}`,
  });
  const parts = { engine, log, codec, tools: toolsOf(engine).map(toDefinition) };
  partsOfDeps.set(deps, parts);
  return parts;
}

/** Names the caller: whom the HTTP layer found behind the token, else the user of the process. */
function principalOf(deps: McpDeps, auth: McpRequestContext['authInfo']): Principal {
  const principal = auth?.extra?.['principal'];
  return principal === undefined ? deps.principal : (principal as Principal);
}

function toDefinition(tool: Tool): RegisteredDefinition {
  const { title, description, annotations, inputSchema, outputSchema } = tool;
  return {
    tool,
    config: {
      title,
      description,
      annotations,
      inputSchema: listed(inputSchema, readObject),
      outputSchema: listed<unknown>(outputSchema, (value) => ({ value })),
    },
  };
}

/**
 * Shows the SDK a schema of our own making. The engine alone validates, strictly and with our error codes; so the SDK
 * only makes sure of an object.
 */
function listed<T>(
  schema: ListedSchema,
  validate: (value: unknown) => { value: T } | { issues: { message: string }[] },
): StandardSchemaWithJSON<T, T> {
  const json = (): Record<string, unknown> => schema;
  return { '~standard': { version: 1, vendor: 'holdfast', validate, jsonSchema: { input: json, output: json } } };
}

function readObject(value: unknown): { value: JsonObject } | { issues: { message: string }[] } {
  return isObject(value) ? { value: value as JsonObject } : { issues: [{ message: 'arguments must be an object' }] };
}

function registerEntities(server: McpServer, engine: Engine): void {
  server.registerResource(
    'entities',
    'backup://entities',
    {
      title: 'Configured databases',
      description: 'Every database that the tools accept as entity',
      mimeType: 'text/plain',
    },
    (uri) => {
      const rows = engine
        .entities()
        .map(({ key, defines, labels }) => ({ entity: key, defines, ...labelCell(labels) }));
      return { contents: [{ uri: uri.href, mimeType: 'text/plain', text: renderValue(rows) }] };
    },
  );
}

function labelCell(labels: Readonly<Record<string, string>>): { labels?: string } {
  const text = Object.entries(labels)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ');
  return text === '' ? {} : { labels: text };
}

function registerDisasterRecovery(server: McpServer, engine: Engine): void {
  const matching = (typed: string): string[] =>
    engine
      .entities()
      .map((entity) => entity.key)
      .filter((key) => key.includes(typed));
  server.registerPrompt(
    'disaster-recovery',
    {
      title: 'Disaster recovery',
      description: 'Finds the best way back for a database and goes it with the person, step by step',
      argsSchema: z.object({
        entity: completable(z.string(), matching),
        moment: z.string().optional().describe('Last good moment, RFC 3339; the newest when left out'),
      }),
    },
    ({ entity, moment }) => {
      const known = knownEntity(engine, entity);
      const at = moment === undefined ? '' : ` as it was at ${moment.slice(0, 40)}`;
      return { messages: [{ role: 'user', content: { type: 'text', text: recoveryText(known, at) } }] };
    },
  );
}

function knownEntity(engine: Engine, key: string): string {
  try {
    return engine.entity(key).key;
  } catch (cause) {
    // The SDK sends the message of what is thrown here to the client: only our own words may pass.
    throw new Error(asHoldfastError(cause).message);
  }
}

function recoveryText(entity: string, at: string): string {
  return [
    `The database ${entity} is damaged or gone. Help me get it back${at}.`,
    `1. Call backup_find_recovery_options for ${entity} and show me every way back: the moment it brings back, what it loses, its risk.`,
    '2. Recommend one. Prefer a restore into something new over one that replaces live data, unless I say that speed matters more.',
    '3. Make the exact call you recommend only after I agreed. When it asks for a confirmation, show me the plan and wait for my approval.',
    '4. Follow the operation with backup_wait_operation until the target is usable, and tell me what was lost and how to undo it.',
    '5. Check the restored data with me before anything else points to it.',
  ].join('\n');
}
