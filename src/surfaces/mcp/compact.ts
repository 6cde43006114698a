import type { CallToolResult, InputRequiredResult, McpServer, ServerContext } from '@modelcontextprotocol/server';
import type { Action } from '../../core/action.ts';
import { asHoldfastError, HoldfastError } from '../../core/errors.ts';
import { isObject, type JsonObject, type JsonValue } from '../../core/json.ts';
import type { Principal } from '../../core/principal.ts';
import { cleanText } from '../../core/text.ts';
import type { Engine } from '../../engine/api.ts';
import { riskText } from '../parameters.ts';
import { type CallParts, callTool, errorResult, renderOptions } from './call.ts';
import { listedSchemas } from './prepared.ts';
import type { ListedSchema } from './schema.ts';
import { DO_ACTION, FIND_ACTIONS, maySee, type Tool, toolsOf } from './tools.ts';

/** One of the two tools of a compact list. */
export interface CompactTool {
  readonly name: string;
  readonly title: string;
  readonly description: string;
  readonly inputSchema: ListedSchema;
  readonly annotations: Tool['annotations'];
  answer(
    parts: CallParts,
    server: McpServer,
    principal: Principal,
    args: JsonObject,
    context: ServerContext,
  ): Promise<CallToolResult | InputRequiredResult>;
}

// A few keys help a model more than they cost; a longer list is what list-databases is for.
const MOST_LISTED_ENTITIES = 20;
/** Actions that one answer describes with their input; the others are named. */
const MOST_DESCRIBED = 12;
const MOST_KEYS = 25;

const lists = new WeakMap<Engine, readonly CompactTool[]>();

/** Gives the two tools that reach every action of an engine. */
export function compactToolsOf(engine: Engine): readonly CompactTool[] {
  const known = lists.get(engine);
  if (known !== undefined) return known;
  const keys = engine.entities().map(({ key }) => key);
  const entity: JsonObject =
    keys.length <= MOST_LISTED_ENTITIES
      ? { type: 'string', enum: keys }
      : { type: 'string', description: '<namespace>/<name>; see list-databases' };
  const tools: CompactTool[] = [
    {
      name: FIND_ACTIONS,
      title: 'Find what can be done',
      description: `Finds what can be done, by words and database: actions with summary, risk and input schema, and what a provider cannot do. Begin here, then call ${DO_ACTION}. For every database: list-databases, find-recovery-options (data lost? first), plan (a dry run), check-settings, wait-operation.`,
      inputSchema: {
        type: 'object',
        properties: {
          query: { type: 'string', description: 'restore, snapshot, settings' },
          entity: { type: 'string' },
        },
      },
      annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
      answer: async (parts, _server, principal, args) => findActions(parts, principal, args),
    },
    {
      name: DO_ACTION,
      title: 'Do an action',
      description: `Does one action. Reads run at once. What can lose data is refused first, with a plan: show it to the person; once they approved, repeat exactly the same call with confirmation_token. An operation_id in the answer: follow it with wait-operation.`,
      inputSchema: {
        type: 'object',
        properties: {
          entity,
          action: { type: 'string' },
          input: { type: 'object', description: "by the action's input schema" },
          confirmation_token: { type: 'string' },
        },
        required: ['action'],
      },
      annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: true },
      answer: doAction,
    },
  ];
  lists.set(engine, tools);
  return tools;
}

/** Makes the call of the tool that the action would be in a whole list; validation and guard are that tool's. */
async function doAction(
  parts: CallParts,
  server: McpServer,
  principal: Principal,
  args: JsonObject,
  context: ServerContext,
): Promise<CallToolResult | InputRequiredResult> {
  let call: { tool: Tool; args: JsonObject };
  try {
    call = toolCall(parts.engine, principal, args);
  } catch (cause) {
    return errorResult(asHoldfastError(cause), renderOptions(parts));
  }
  return callTool(parts, server, call.tool, principal, call.args, context);
}

function toolCall(engine: Engine, principal: Principal, args: JsonObject): { tool: Tool; args: JsonObject } {
  const { entity, action: name, input = {}, confirmation_token, ...others } = args;
  const unknown = Object.keys(others)[0];
  if (unknown !== undefined) {
    throw new HoldfastError('INVALID_PARAMETER', `${DO_ACTION} has no parameter '${cleanText(unknown, 60)}'`, {
      hint: 'What the action takes goes into input.',
    });
  }
  const action = text(name, 'action');
  if (action === undefined) {
    throw new HoldfastError('INVALID_PARAMETER', "'action' is missing", { hint: `${FIND_ACTIONS} shows all of them.` });
  }
  if (!isObject(input)) throw new HoldfastError('INVALID_PARAMETER', "'input' is no object");
  const beside = {
    ...(entity === undefined ? {} : { entity }),
    ...(confirmation_token === undefined ? {} : { confirmation_token }),
  };
  // Whatever stands in two places must say the same: a call is about one target.
  for (const [key, value] of Object.entries(beside)) {
    if (input[key] !== undefined && input[key] !== value) {
      throw new HoldfastError('INVALID_PARAMETER', `'${key}' is given twice, with two values`);
    }
  }
  const key = text(entity ?? (input['entity'] as JsonValue | undefined), 'entity');
  const found = engine.action(action.replaceAll('_', '-'), key);
  // The tool across all databases stands for what every provider has.
  const tool = toolsOf(engine).find((one) =>
    found.kind === 'provider' && found.shared
      ? one.action.kind === 'fleet' && one.action.name === found.name
      : one.action === found,
  );
  if (tool === undefined) {
    throw new HoldfastError(
      'INVALID_PARAMETER',
      `there is no action '${cleanText(action, 60)}' for any configured database`,
    );
  }
  if (!maySee(principal, tool)) {
    throw new HoldfastError('POLICY_DENIED', `${found.name}${key === undefined ? '' : ` on ${key}`} is for operators`, {
      hint: 'This caller may only read.',
    });
  }
  return { tool, args: { ...(input as JsonObject), ...beside } };
}

function text(value: JsonValue | undefined, name: string): string | undefined {
  if (value === undefined || typeof value === 'string') return value;
  throw new HoldfastError('INVALID_PARAMETER', `'${name}' is no string`);
}

function findActions({ engine, toolSet }: CallParts, principal: Principal, args: JsonObject): CallToolResult {
  try {
    const { query, entity, ...others } = args;
    const unknown = Object.keys(others)[0];
    if (unknown !== undefined) {
      throw new HoldfastError('INVALID_PARAMETER', `${FIND_ACTIONS} has no parameter '${cleanText(unknown, 60)}'`, {
        hint: 'It takes query and entity.',
      });
    }
    const words = wordsOf(text(query, 'query') ?? '');
    const key = text(entity, 'entity');
    const on = key === undefined ? undefined : engine.entity(key);
    const seen = toolsOf(engine).filter((tool) => maySee(principal, tool) && isOn(tool, on?.key));
    const found = rank(seen, words);
    const actions = found.slice(0, MOST_DESCRIBED).map((tool) => describe(tool, on?.key));
    const more = [...new Set(found.slice(MOST_DESCRIBED).map(({ action }) => action.name))];
    const cannot = on === undefined ? {} : cannotOf(seen, on.provider, words);
    const answer = {
      actions,
      ...(more.length === 0 ? {} : { more }),
      ...(Object.keys(cannot).length === 0 ? {} : { cannot }),
    };
    const lines = [
      ...(actions.length === 0 ? ['No action fits. Try other words, or none.'] : actions.map(writeAction)),
      ...(more.length === 0 ? [] : [`Also: ${more.join(', ')}. Narrow with query or entity to see their input.`]),
      ...Object.entries(cannot).map(([name, reason]) => `${name}: not here. ${reason}`),
    ];
    return { content: [{ type: 'text', text: lines.join('\n') }], structuredContent: answer };
  } catch (cause) {
    return errorResult(asHoldfastError(cause), renderOptions({ engine, toolSet }));
  }
}

function isOn(tool: Tool, key: string | undefined): boolean {
  return key === undefined || tool.entities === undefined || tool.entities.has(key);
}

interface Described {
  readonly action: string;
  readonly risk: string;
  readonly summary: string;
  readonly entities?: string[];
  readonly input: JsonObject;
}

function describe({ name, action, entities }: Tool, key: string | undefined): Described {
  const keys = [...(entities ?? [])];
  const { type: _type, properties, ...rest } = listedSchemas(name, action).input;
  return {
    action: action.name,
    risk: riskText(action),
    summary: action.summary,
    ...(key !== undefined || entities === undefined
      ? {}
      : { entities: keys.length > MOST_KEYS ? [...keys.slice(0, MOST_KEYS), '…'] : keys }),
    input: { properties, ...rest },
  };
}

function writeAction({ action, risk, summary, entities, input }: Described): string {
  const on = entities === undefined ? '' : `, on ${entities.join(', ')}`;
  return `${action} (${risk}${on}): ${summary}\n  input ${JSON.stringify(input)}`;
}

/** What the provider has no way to do among what was asked for, and what to use instead. */
function cannotOf(seen: readonly Tool[], provider: string, words: readonly string[]): Record<string, string> {
  const own = seen.find(({ action }) => action.kind === 'provider' && action.provider.id === provider);
  const cannot = own === undefined ? {} : (own.action as Action).provider.cannot;
  return Object.fromEntries(
    Object.entries(cannot).filter(([name]) => words.length > 0 && words.every((word) => name.includes(word))),
  );
}

/** Gives the words of a query that can tell actions apart, without the endings of plurals. */
function wordsOf(query: string): string[] {
  return query
    .toLowerCase()
    .split(/[^a-z0-9]+/)
    .filter((word) => word.length > 2)
    .map((word) => word.replace(/s$/, ''));
}

/** The tools that fit most of the words, best first; all of them in their own order where there is no word. */
function rank(tools: readonly Tool[], words: readonly string[]): Tool[] {
  if (words.length === 0) return [...tools];
  const scored = tools.map((tool) => {
    const weights = words.map((word) => weightOf(tool, word));
    return {
      tool,
      fits: weights.filter((weight) => weight > 0).length,
      weight: weights.reduce((sum, weight) => sum + weight, 0),
    };
  });
  const most = Math.max(0, ...scored.map(({ fits }) => fits));
  return scored
    .filter(({ fits }) => fits > 0 && fits === most)
    .sort((a, b) => b.weight - a.weight)
    .map(({ tool }) => tool);
}

function weightOf({ action, entities }: Tool, word: string): number {
  const has = (field: string): boolean => field.toLowerCase().includes(word);
  if ([action.name, ...action.aliases].includes(word)) return 8;
  if ([action.name, ...action.aliases].some(has)) return 4;
  if (action.kind === 'provider' && (has(action.provider.id) || has(action.provider.title))) return 3;
  if ([...(entities ?? [])].some(has)) return 3;
  if (has(action.title)) return 2;
  return has(action.summary) ? 1 : 0;
}
