import type { Action } from '../../src/core/action.ts';
import type { ProviderContext } from '../../src/core/context.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { Recovery, Step, StepContext } from '../../src/core/operation.ts';
import type { Plan, PlanDraft } from '../../src/core/plan.ts';
import type { Provider, RecoveryOption } from '../../src/core/provider.ts';
import type { Runtime } from '../../src/core/runtime.ts';
import { resilientFetch } from '../../src/resilience/fetch.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import type { Simulator, SimulatorOptions } from '../../src/simulators/simulator.ts';
import { granted, testRuntime } from './runtime.ts';

export type Context = ProviderContext<never, never>;

/** What the steps of one operation left behind. */
export interface Trace {
  results: Record<string, JsonObject>;
  handles: Record<string, JsonObject[]>;
  progress: string[];
}

export const trace = (): Trace => ({ results: {}, handles: {}, progress: [] });

/** One simulated provider with what drives its actions without the engine; waiting moves the sandbox's time on. */
export interface Bench<S extends Simulator> {
  readonly server: SimulatorServer;
  readonly simulator: S;
  /** What was concealed so far. */
  readonly concealed: string[];
  /** The sandbox entity with other parameters; null takes one away. */
  connect(parameters?: JsonObject, overrides?: Partial<Runtime>, signal?: AbortSignal): Promise<Context>;
  read<T>(action: Action, input?: JsonObject, context?: Context): Promise<T>;
  planOf(action: Action, input?: JsonObject, context?: Context): Promise<PlanDraft>;
  plan(action: Action, input?: JsonObject, context?: Context): Promise<Plan>;
  options(at?: Date, context?: Context): Promise<RecoveryOption[]>;
  /** Runs an action's steps as the engine does, the guard taken as passed. */
  operate<T>(action: Action, input?: JsonObject, options?: OperateOptions): Promise<{ output: T; trace: Trace }>;
  step(
    action: Action,
    name: string,
    input: JsonObject,
    plan: Plan,
    context: Context,
    left?: Trace,
  ): Promise<JsonObject>;
  recover(
    action: Action,
    name: string,
    input: JsonObject,
    plan: Plan,
    context: Context,
    left: Trace,
  ): Promise<Recovery>;
}

export interface OperateOptions {
  context?: Context;
  plan?: Plan;
  /** Called before each step. */
  before?: (step: string, left: Trace) => void | Promise<void>;
}

/** Starts the simulator of a provider whose sandbox entity is of one type, and the provider on it. */
export async function startBench<S extends Simulator>(options: {
  provider: Provider<never, never>;
  defines: string;
  create: (options: SimulatorOptions) => S;
  secret: string;
  wrap?: (simulator: Simulator) => Simulator;
}): Promise<Bench<S>> {
  const { provider, defines } = options;
  const type = provider.entityTypes[defines];
  if (type?.sandbox === undefined) throw new Error(`${defines} is not in the sandbox`);
  const { name, parameters: own } = type.sandbox;
  let simulator: S | undefined;
  const server = await startSimulators({
    simulators: (clock) => {
      simulator = options.create({ clock });
      return [options.wrap?.(simulator) ?? simulator];
    },
  });
  const concealed: string[] = [];
  const sleep = async (ms: number, signal?: AbortSignal): Promise<void> => {
    signal?.throwIfAborted();
    server.clock.advance(ms);
    await new Promise((resolve) => setImmediate(resolve));
  };

  const connect: Bench<S>['connect'] = async (
    parameters = {},
    overrides = {},
    signal = new AbortController().signal,
  ) => {
    const merged = Object.entries({ ...own, ...parameters }).filter(([, value]) => value !== null);
    const parsed = type.schema.parse(Object.fromEntries(merged));
    const limits = { per_second: 5000, burst: 5000, concurrent: 8, timeout_ms: 3000 };
    const runtime = testRuntime(limits, {
      fetch: resilientFetch({
        title: provider.title,
        limits,
        fetch: globalThis.fetch,
        now: () => server.clock.now().getTime(),
        sleep,
        random: Math.random,
        base_ms: 2,
      }),
      now: () => server.clock.now(),
      sleep,
      secret: async () => options.secret,
      conceal: (value) => {
        concealed.push(value);
      },
      ...overrides,
    });
    const entity = {
      ...parsed,
      key: `sandbox/${name}`,
      namespace: 'sandbox',
      name,
      defines,
      provider: provider.id,
      labels: {},
      objectives: {},
      endpoint: server.origin,
      parameters: parsed,
    };
    const client = await provider.connect(entity as never, runtime);
    return { client, entity, runtime, signal } as unknown as Context;
  };

  const stepContext = (
    context: Context,
    input: JsonObject,
    left: Trace,
    step: Step,
  ): StepContext<unknown, unknown, unknown> => ({
    ...(context as ProviderContext<unknown, unknown>),
    input,
    operationId: 'op_test',
    idempotencyKey: `key-${step.name}`,
    get handle() {
      return left.handles[step.name]?.at(-1);
    },
    results: left.results,
    checkpoint: async (handle) => {
      left.handles[step.name] = [...(left.handles[step.name] ?? []), JSON.parse(JSON.stringify(handle)) as JsonObject];
    },
    progress: ({ message }) => {
      left.progress.push(message);
    },
  });

  const planOf: Bench<S>['planOf'] = async (action, input = {}, context) =>
    action.plan!((context ?? (await connect())) as never, action.input.parse(input));
  const plan: Bench<S>['plan'] = async (...given) => (await planOf(...given)) as unknown as Plan;
  const stepOf = (action: Action, wanted: string, input: JsonObject, of: Plan): Step => {
    const found = action.steps!(action.input.parse(input), of).find((step) => step.name === wanted);
    if (found === undefined) throw new Error(`no step ${wanted}`);
    return found;
  };

  return {
    server,
    simulator: simulator as S,
    concealed,
    connect,
    planOf,
    plan,
    options: async (at, context) => provider.recoveryOptions((context ?? (await connect())) as never, at),
    async read<T>(action: Action, input: JsonObject = {}, context?: Context): Promise<T> {
      return action.output.parse(
        await action.run!((context ?? (await connect())) as never, action.input.parse(input)),
      ) as T;
    },
    async operate<T>(action: Action, input: JsonObject = {}, given: OperateOptions = {}) {
      const context = given.context ?? (await connect());
      const parsed = action.input.parse(input) as JsonObject;
      const of = given.plan ?? (await plan(action, input, context));
      const left = trace();
      for (const step of action.steps!(parsed, of)) {
        await given.before?.(step.name, left);
        const work = () => step.run(stepContext(context, parsed, left, step));
        left.results[step.name] = step.kind === 'mutate' ? await granted(work) : await work();
      }
      return { output: action.output.parse(action.result!(left.results)) as T, trace: left };
    },
    async step(action, wanted, input, of, context, left = trace()) {
      const step = stepOf(action, wanted, input, of);
      const own = stepContext(context, action.input.parse(input) as JsonObject, left, step);
      return step.kind === 'mutate' ? granted(() => step.run(own)) : step.run(own);
    },
    async recover(action, wanted, input, of, context, left) {
      const step = stepOf(action, wanted, input, of);
      return step.recover!(stepContext(context, action.input.parse(input) as JsonObject, left, step));
    },
  };
}

/** The error that a piece of work must end with. */
export async function failure(work: Promise<unknown>): Promise<HoldfastError> {
  const outcome = await work.then(
    () => 'it succeeded',
    (cause: unknown) => cause,
  );
  if (outcome instanceof HoldfastError) return outcome;
  throw new Error(`no HoldfastError: ${String(outcome)}`, { cause: outcome });
}
