import type { AnyAction } from '../../core/action.ts';
import type { JsonObject } from '../../core/json.ts';
import type { SuggestedCall } from '../../core/plan.ts';
import type { Principal } from '../../core/principal.ts';
import { isGuarded } from '../../core/risk.ts';
import type { Engine } from '../../engine/api.ts';
import type { ToolSet } from '../tool-set.ts';
import { listedSchemas } from './prepared.ts';
import type { ListedSchema } from './schema.ts';

/** Every action as MCP shows it; made once for an engine and shared by all its connections. */
export interface Tool {
  /** `mongodb_atlas_restore`, `backup_list_databases`. */
  readonly name: string;
  readonly title: string;
  readonly description: string;
  readonly action: AnyAction;
  /** Keys of the entities that it can be called on; undefined for a fleet action. */
  readonly entities: ReadonlySet<string> | undefined;
  readonly guarded: boolean;
  readonly inputSchema: ListedSchema;
  readonly outputSchema: ListedSchema;
  readonly annotations: {
    readonly readOnlyHint: boolean;
    readonly destructiveHint: boolean;
    readonly idempotentHint: boolean;
    readonly openWorldHint: boolean;
  };
}

// A longer enumeration costs more in every tool than it saves; the call is checked either way.
const MOST_LISTED_ENTITIES = 25;

// One tool across all entities stands for what every provider has.
function isShared(action: AnyAction): boolean {
  return action.kind === 'provider' && action.shared;
}

/** Gives the name of an action as a tool. */
export function toolName(action: AnyAction): string {
  const prefix = action.kind === 'fleet' || action.shared ? 'backup' : action.provider.id;
  return `${prefix}_${action.name}`.replaceAll('-', '_');
}

const lists = new WeakMap<Engine, readonly Tool[]>();

/** Gives the tools of an engine in its own stable order, canonical names only. */
export function toolsOf(engine: Engine): readonly Tool[] {
  const known = lists.get(engine);
  if (known !== undefined) return known;
  const tools = engine
    .actions()
    .filter((action) => !isShared(action))
    .map((action) => toTool(engine, action));
  lists.set(engine, tools);
  return tools;
}

/** Tells whether a principal gets to see a tool: who may not operate sees only what reads. */
export function maySee(principal: Principal, tool: Tool): boolean {
  return principal.roles.includes('operator') || tool.annotations.readOnlyHint;
}

function toTool(engine: Engine, action: AnyAction): Tool {
  const entities = action.kind === 'fleet' ? undefined : engine.entitiesOf(action).map((entity) => entity.key);
  const guarded = isGuarded(action.upTo);
  const reads = action.risk === 'read' && action.upTo === 'read';
  const name = toolName(action);
  const { input, output } = listedSchemas(name, action);
  return {
    name,
    title: action.title,
    description: action.summary,
    action,
    entities: entities === undefined ? undefined : new Set(entities),
    guarded,
    inputSchema: withSurfaceParameters(input, entities, guarded),
    outputSchema: output,
    annotations: {
      readOnlyHint: reads,
      destructiveHint: guarded,
      idempotentHint: reads,
      openWorldHint: action.kind === 'provider',
    },
  };
}

function withSurfaceParameters(
  schema: ListedSchema,
  entities: readonly string[] | undefined,
  guarded: boolean,
): ListedSchema {
  const token = guarded ? { confirmation_token: { type: 'string' } } : {};
  if (entities === undefined) return guarded ? { ...schema, properties: { ...schema.properties, ...token } } : schema;
  const entity: JsonObject =
    entities.length <= MOST_LISTED_ENTITIES
      ? { type: 'string', enum: [...entities] }
      : { type: 'string', description: 'See backup_list_databases' };
  const required = Array.isArray(schema['required']) ? schema['required'] : [];
  return {
    ...schema,
    properties: { entity, ...schema.properties, ...token },
    required: ['entity', ...required],
  };
}

/** The name of the tool that makes every call where the list is compact. */
export const DO_ACTION = 'do_action';
/** The name of the tool that shows what can be called there. */
export const FIND_ACTIONS = 'find_actions';

/** Writes a suggested call as the tool call that makes it, with the tools that the agent was given. */
export function writeCall(engine: Engine, set: ToolSet, call: SuggestedCall): string {
  const action = actionOf(engine, call);
  const entity = call.entity === undefined ? {} : { entity: call.entity };
  // An action that no tool has (a provider's own console, say) keeps the name that the plan gave it.
  if (action === undefined) return `${call.action} ${JSON.stringify({ ...entity, ...call.input })}`;
  if (set === 'all') return `${toolName(action)} ${JSON.stringify({ ...entity, ...call.input })}`;
  const input = Object.keys(call.input).length === 0 ? {} : { input: call.input };
  return `${DO_ACTION} ${JSON.stringify({ ...entity, action: action.name, ...input })}`;
}

function actionOf(engine: Engine, call: SuggestedCall): AnyAction | undefined {
  try {
    return engine.action(call.action, call.entity);
  } catch {
    return undefined;
  }
}
