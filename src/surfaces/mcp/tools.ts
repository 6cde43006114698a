import type { AnyAction } from '../../core/action.ts';
import type { JsonObject } from '../../core/json.ts';
import type { SuggestedCall } from '../../core/plan.ts';
import type { Principal } from '../../core/principal.ts';
import { isGuarded } from '../../core/risk.ts';
import { OperationView } from '../../core/schemas.ts';
import type { Engine } from '../../engine/api.ts';
import { type ListedSchema, listInput, listOutput } from './schema.ts';

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

/** Gives the name of an action as a tool. */
export function toolName(action: AnyAction): string {
  const prefix = action.kind === 'fleet' ? 'backup' : action.provider.id;
  return `${prefix}_${action.name}`.replaceAll('-', '_');
}

const lists = new WeakMap<Engine, readonly Tool[]>();

/** Gives the tools of an engine in its own stable order, canonical names only. */
export function toolsOf(engine: Engine): readonly Tool[] {
  const known = lists.get(engine);
  if (known !== undefined) return known;
  const tools = engine.actions().map((action) => toTool(engine, action));
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
  return {
    name: toolName(action),
    title: action.title,
    description: action.summary,
    action,
    entities: entities === undefined ? undefined : new Set(entities),
    guarded,
    inputSchema: withSurfaceParameters(listInput(action.input), entities, guarded),
    outputSchema: listOutput(action.kind === 'provider' && action.steps !== undefined ? OperationView : action.output),
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
  if (entities === undefined) return schema;
  const entity: JsonObject =
    entities.length <= MOST_LISTED_ENTITIES
      ? { type: 'string', enum: [...entities] }
      : { type: 'string', description: 'See backup_list_databases' };
  const required = Array.isArray(schema['required']) ? schema['required'] : [];
  return {
    ...schema,
    properties: { entity, ...schema.properties, ...(guarded ? { confirmation_token: { type: 'string' } } : {}) },
    required: ['entity', ...required],
  };
}

/** Writes a suggested call as the tool call that makes it. */
export function writeCall(engine: Engine, call: SuggestedCall): string {
  const withEntity = { ...(call.entity === undefined ? {} : { entity: call.entity }), ...call.input };
  return `${nameOf(engine, call)} ${JSON.stringify(withEntity)}`;
}

function nameOf(engine: Engine, call: SuggestedCall): string {
  try {
    return toolName(engine.action(call.action, call.entity));
  } catch {
    // An action that no tool has (a provider's own console, say) keeps the name that the plan gave it.
    return call.action;
  }
}
