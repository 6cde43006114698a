import type { z } from 'zod';
import type { EntityBase, ProviderContext } from './context.ts';
import type { ErrorCode } from './errors.ts';
import type { JsonObject } from './json.ts';
import type { Progress, Step } from './operation.ts';
import type { Plan, PlanDraft } from './plan.ts';
import type { Principal } from './principal.ts';
import type { Provider, RecoveryOption } from './provider.ts';
import type { Risk } from './risk.ts';
import type { OperationView } from './schemas.ts';
import type { OperationRecord, ScheduleRecord } from './state.ts';

type GuardedRisk = 'weaken' | 'delete' | 'merge' | 'overwrite';

interface ActionDeclaration<Entity, Client, Input extends z.ZodObject, Output extends z.ZodType> {
  readonly provider: Provider<Entity, Client>;
  /** kebab-case; the canonical name. */
  readonly name: string;
  /** Other names of the action guide, `create-backup`. */
  readonly aliases?: readonly string[];
  readonly title: string;
  /** One or two short sentences for a model that has never seen the provider: what it does, what it changes, what comes next. */
  readonly summary: string;
  /** Entity types that have this action; all of the provider's when left out. */
  readonly on?: readonly string[];
  /** Flat and strict; parameter names as in the guide. `entity` and `confirmation_token` are added by the surfaces. */
  readonly input: Input;
  /** What the caller gets: the answer of `run`, or what `result` makes of a finished operation. */
  readonly output: Output;
  readonly errors: readonly ErrorCode[];
  /** Where the behaviour comes from: API and method. */
  readonly source: string;
  /**
   * An input that works against the sandbox fleet. `$newest` stands for the id of the newest snapshot there, `$latest` for
   * the last moment that can be restored.
   */
  readonly example: z.input<Input>;
  /** Whether every provider has it under this name, so that one tool across all entities stands for them. */
  readonly shared?: boolean;
}

type Planner<Entity, Client, Input extends z.ZodObject> = (
  context: ProviderContext<Client, Entity>,
  input: z.output<Input>,
) => Promise<PlanDraft>;

/** An action that is over when its call is: it reads, or it changes something in one short call. */
interface Immediate<Entity, Client, Input extends z.ZodObject, Output extends z.ZodType> {
  run(context: ProviderContext<Client, Entity>, input: z.output<Input>): Promise<z.input<Output>>;
  readonly steps?: never;
  readonly result?: never;
  readonly safety?: never;
}

/** An action that outlives its call: an operation of steps. */
interface LongRunning<Entity, Client, Input extends z.ZodObject, Output extends z.ZodType> {
  /** The steps for this call, in order, without the safety snapshot. */
  steps(input: z.output<Input>, plan: Plan): readonly Step<Client, Entity, z.output<Input>>[];
  /** Makes the output from the results of all steps. */
  result(results: Readonly<Record<string, JsonObject>>): z.input<Output>;
  /**
   * Takes a snapshot of the target and waits until it can be restored. The engine puts these steps first when the risk
   * is `merge` or `overwrite`, the plan says it is possible, and the call does not say `safety_snapshot: false`.
   * `undo` gives the exact call that goes back, `{ action, input }` and what else helps, from the results; `entity` is the
   * operation's own unless it says otherwise.
   */
  readonly safety?: {
    steps(input: z.output<Input>, plan: Plan): readonly Step<Client, Entity, z.output<Input>>[];
    undo(results: Readonly<Record<string, JsonObject>>): JsonObject;
  };
  readonly run?: never;
}

type Riskless<Entity, Client, Input extends z.ZodObject> = {
  readonly risk: 'read' | 'create' | 'change';
  readonly upTo?: never;
  readonly plan?: Planner<Entity, Client, Input>;
};

type Risky<Entity, Client, Input extends z.ZodObject> = {
  /** The lowest risk it can have. */
  readonly risk: Risk;
  /** The highest risk that `plan` may raise it to; the same as `risk` when left out. */
  readonly upTo?: GuardedRisk;
  readonly plan: Planner<Entity, Client, Input>;
};

export type ActionSpec<Entity, Client, Input extends z.ZodObject, Output extends z.ZodType> = ActionDeclaration<
  Entity,
  Client,
  Input,
  Output
> &
  (Riskless<Entity, Client, Input> | Risky<Entity, Client, Input>) &
  (Immediate<Entity, Client, Input, Output> | LongRunning<Entity, Client, Input, Output>);

/** An action with its types erased, as the registry, the engine and the surfaces see it. */
export interface Action {
  readonly kind: 'provider';
  readonly provider: Provider;
  readonly name: string;
  readonly aliases: readonly string[];
  readonly title: string;
  readonly summary: string;
  readonly on: readonly string[];
  readonly risk: Risk;
  readonly upTo: Risk;
  readonly input: z.ZodObject;
  readonly output: z.ZodType;
  readonly errors: readonly ErrorCode[];
  readonly source: string;
  readonly example: JsonObject;
  /** Whether every provider has it under this name, so that one tool across all entities stands for them. */
  readonly shared: boolean;
  readonly plan?: (context: ProviderContext<unknown, unknown>, input: unknown) => Promise<PlanDraft>;
  readonly run?: (context: ProviderContext<unknown, unknown>, input: unknown) => Promise<unknown>;
  readonly steps?: (input: unknown, plan: Plan) => readonly Step[];
  readonly result?: (results: Readonly<Record<string, JsonObject>>) => unknown;
  readonly safety?: {
    steps(input: unknown, plan: Plan): readonly Step[];
    undo(results: Readonly<Record<string, JsonObject>>): JsonObject;
  };
}

/** Declares one action of one provider. Exporting the result from `tools/<provider>.ts` is the registration. */
export function defineAction<Entity, Client, Input extends z.ZodObject, Output extends z.ZodType>(
  spec: ActionSpec<Entity, Client, Input, Output>,
): Action {
  const {
    aliases = [],
    on = Object.keys(spec.provider.entityTypes),
    upTo = spec.risk,
    shared = false,
    input,
    ...rest
  } = spec;
  return { kind: 'provider', ...rest, aliases, on, upTo, shared, input: input.strict() } as unknown as Action;
}

/** What became of a call that an action across all entities made on one of them. */
export type CallAnswer =
  | { readonly kind: 'result'; readonly output: JsonObject }
  /** In a dry run. */
  | { readonly kind: 'plan'; readonly plan: Plan; readonly decision: string }
  | { readonly kind: 'operation'; readonly operation: OperationView };

/** What actions across all entities may ask of the engine. All of it reads, or is guarded like every call. */
export interface FleetContext {
  readonly principal: Principal;
  readonly signal: AbortSignal;
  progress(progress: Progress): void;
  entities(): readonly EntityBase[];
  actions(): readonly Action[];
  /** @throws {HoldfastError} ENTITY_NOT_FOUND with what is close to it */
  entity(key: string): EntityBase;
  plan(entity: string, action: string, input: JsonObject): Promise<{ plan: Plan; decision: string; require?: string }>;
  /**
   * Calls an action of one entity for this caller, through the guard, with the confirmation of the present call if it has one.
   * @throws {HoldfastError} whatever that call ends with, CONFIRMATION_REQUIRED and its plan among it
   */
  call(entity: string, action: string, input: JsonObject): Promise<CallAnswer>;
  /** Whether the present call carries a confirmation. */
  readonly confirmed: boolean;
  recoveryOptions(entity: string, at: Date | undefined): Promise<RecoveryOption[]>;
  operations(filter: { entity?: string; status?: string; limit?: number }): Promise<OperationRecord[]>;
  /** @throws {HoldfastError} OPERATION_NOT_FOUND */
  operation(id: string): Promise<OperationRecord>;
  /** Waits until an operation is over or the time has passed, with progress. */
  waitOperation(id: string, timeoutMs: number): Promise<OperationRecord>;
  /** How a schedule of an entity stands; undefined while nothing is known of it. */
  schedule(entity: string, name: string): Promise<ScheduleRecord | undefined>;
  /** An operation as every surface shows it. */
  view(record: OperationRecord): OperationView;
  now(): Date;
}

export interface FleetSpec<Input extends z.ZodObject, Output extends z.ZodType> {
  readonly name: string;
  /** `read` when left out; what it changes, it changes through `call`, which is guarded. */
  readonly risk?: Risk;
  readonly upTo?: Risk;
  readonly title: string;
  readonly summary: string;
  readonly input: Input;
  readonly output: Output;
  readonly errors: readonly ErrorCode[];
  readonly example: z.input<Input>;
  run(context: FleetContext, input: z.output<Input>): Promise<z.input<Output>>;
}

/** An action across all entities; by itself it only reads. */
export interface FleetAction {
  readonly kind: 'fleet';
  readonly name: string;
  readonly aliases: readonly string[];
  readonly title: string;
  readonly summary: string;
  readonly risk: Risk;
  readonly upTo: Risk;
  readonly input: z.ZodObject;
  readonly output: z.ZodType;
  readonly errors: readonly ErrorCode[];
  readonly example: JsonObject;
  readonly run: (context: FleetContext, input: unknown) => Promise<unknown>;
}

/** Declares one action across all entities. */
export function defineFleetAction<Input extends z.ZodObject, Output extends z.ZodType>(
  spec: FleetSpec<Input, Output>,
): FleetAction {
  return {
    kind: 'fleet',
    aliases: [],
    risk: 'read',
    upTo: spec.risk ?? 'read',
    ...spec,
    input: spec.input.strict(),
  } as unknown as FleetAction;
}

export type AnyAction = Action | FleetAction;
