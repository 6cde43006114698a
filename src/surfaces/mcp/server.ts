import {
  createRequestStateCodec,
  type McpRequestContext,
  McpServer,
  type StandardSchemaWithJSON,
} from '@modelcontextprotocol/server';
import { isObject, type JsonObject } from '../../core/json.ts';
import type { Principal } from '../../core/principal.ts';
import type { Log } from '../../core/runtime.ts';
import type { Engine } from '../../engine/api.ts';
import type { ToolSet } from '../tool-set.ts';
import { type AskedState, type CallParts, callTool } from './call.ts';
import { type CompactTool, compactToolsOf } from './compact.ts';
import { type PromptArguments, promptArguments, registerPrompts } from './prompts.ts';
import { registerResources } from './resources.ts';
import type { ListedSchema } from './schema.ts';
import { DO_ACTION, FIND_ACTIONS, maySee, type Tool, toolsOf } from './tools.ts';

export interface McpDeps {
  readonly engine: Engine;
  /** Who calls where the transport names nobody: the user of a stdio server. */
  readonly principal: Principal;
  /** Signs what the client carries between the rounds of a question: 32 bytes or more, the same on every replica. */
  readonly stateKey: Uint8Array;
  readonly log: Log;
  /** `all` when left out. */
  readonly toolSet?: ToolSet | undefined;
}

/** What every model reads first: how the guard works, and where to begin. */
function instructionsFor(toolSet: ToolSet): string {
  const compact = toolSet === 'compact';
  const [wait, find] = compact
    ? [`${DO_ACTION} wait-operation`, `${DO_ACTION} find-recovery-options`]
    : ['backup_wait_operation', 'backup_find_recovery_options'];
  return [
    'Holdfast looks after database backups.',
    ...(compact ? [`${FIND_ACTIONS} shows what can be done, ${DO_ACTION} does it.`] : []),
    `Reading ${compact ? 'actions' : 'tools'} run at once. ${compact ? 'An action' : 'A tool'} that can lose data first answers`,
    'CONFIRMATION_REQUIRED with a plan: what is lost, since when, how to go back, safer ways. Show that plan to the person.',
    'Where your client can ask, they are asked directly; else they approve as the answer says, and you repeat exactly the',
    'same call with confirmation_token. Never approve yourself, never change arguments after approval, prefer a safer way.',
    `An answer without isError means that it ran. Long work answers with an operation_id: follow it with ${wait}.`,
    `In a disaster begin with ${find}. The resources backup://runbook/<name> and backup://guide/<provider> say more.`,
  ].join(' ');
}

interface Parts extends CallParts {
  readonly tools: readonly RegisteredTool[];
  readonly instructions: string;
  /** By the caller's id: as many as there are tokens. */
  readonly prompts: Map<string, PromptArguments>;
}

interface RegisteredTool {
  readonly name: string;
  maySee(principal: Principal): boolean;
  readonly config: {
    readonly title: string;
    readonly description: string;
    readonly inputSchema: StandardSchemaWithJSON<JsonObject, JsonObject>;
    readonly outputSchema?: StandardSchemaWithJSON<unknown, unknown>;
    readonly annotations: Tool['annotations'];
  };
  readonly answer: CompactTool['answer'];
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
      instructions: parts.instructions,
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
  for (const tool of parts.tools) {
    if (!tool.maySee(principal)) continue;
    server.registerTool(tool.name, tool.config, (args, context) =>
      tool.answer(parts, server, principalOf(deps, context.http?.authInfo), args, context),
    );
  }
  registerResources(server, parts, principal);
  registerPrompts(server, parts, principal, promptsOf(parts, principal));
  return server;
}

function partsOf(deps: McpDeps): Parts {
  const known = partsOfDeps.get(deps);
  if (known !== undefined) return known;
  const { engine, log, toolSet = 'all' } = deps;
  const codec = createRequestStateCodec<AskedState>({
    key: deps.stateKey,
    ttlSeconds: 600,
    bind: (context) => `${context.mcpReq.method}\0${principalOf(deps, context.http?.authInfo).id}`,
  });
  const parts: Parts = {
    engine,
    log,
    toolSet,
    codec,
    tools: toolSet === 'compact' ? compactToolsOf(engine).map(fromCompact) : toolsOf(engine).map(fromTool),
    instructions: `${engine.sandbox ? 'SANDBOX: every provider is simulated; nothing real can be lost. ' : ''}${instructionsFor(toolSet)}`,
    prompts: new Map(),
  };
  partsOfDeps.set(deps, parts);
  return parts;
}

function promptsOf(parts: Parts, principal: Principal): PromptArguments {
  let made = parts.prompts.get(principal.id);
  if (made === undefined) {
    made = promptArguments(parts, principal);
    parts.prompts.set(principal.id, made);
  }
  return made;
}

/** Names the caller: whom the HTTP layer found behind the token, else the user of the process. */
function principalOf(deps: McpDeps, auth: McpRequestContext['authInfo']): Principal {
  const principal = auth?.extra?.['principal'];
  return principal === undefined ? deps.principal : (principal as Principal);
}

function fromTool(tool: Tool): RegisteredTool {
  const { name, title, description, annotations, inputSchema, outputSchema } = tool;
  return {
    name,
    maySee: (principal) => maySee(principal, tool),
    config: {
      title,
      description,
      annotations,
      inputSchema: listed(inputSchema, readObject),
      outputSchema: listed<unknown>(outputSchema, (value) => ({ value })),
    },
    answer: (parts, server, principal, args, context) => callTool(parts, server, tool, principal, args, context),
  };
}

function fromCompact({ name, title, description, annotations, inputSchema, answer }: CompactTool): RegisteredTool {
  return {
    name,
    // What the caller may not do, the tools neither show nor do.
    maySee: () => true,
    config: { title, description, annotations, inputSchema: listed(inputSchema, readObject) },
    answer,
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
