import type { Action } from '../../src/core/action.ts';
import type { ProviderContext } from '../../src/core/context.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { Recovery, Step, StepContext } from '../../src/core/operation.ts';
import type { Plan, PlanDraft } from '../../src/core/plan.ts';
import type { Runtime } from '../../src/core/runtime.ts';
import { mongodbAtlas } from '../../src/providers/mongodb-atlas/provider.ts';
import { resilientFetch } from '../../src/resilience/fetch.ts';
import { type AtlasSimulator, mongodbAtlasSimulator } from '../../src/simulators/mongodb-atlas.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import type { Simulator } from '../../src/simulators/simulator.ts';
import { granted, testRuntime } from './runtime.ts';

export const DEFINES = 'mongodb-atlas/cluster';
export const PROJECT = '64f0a1b2c3d4e5f607182930';
export const DRILLS = '64f0a1b2c3d4e5f607182931';
export const CANARY = 'canary-secret-8e21c94b7f';
export type Context = ProviderContext<never, never>;

/** What the steps of one operation left behind. */
export interface Trace {
  results: Record<string, JsonObject>;
  handles: Record<string, JsonObject[]>;
  progress: string[];
}

/** The simulated Atlas with what drives the actions against it, without the engine; waiting moves the sandbox's time on. */
export interface AtlasBench {
  readonly server: SimulatorServer;
  readonly simulator: AtlasSimulator;
  connect(parameters?: JsonObject, overrides?: Partial<Runtime>, signal?: AbortSignal): Promise<Context>;
  read<T>(action: Action, input?: JsonObject, context?: Context): Promise<T>;
  planOf(action: Action, input?: JsonObject, context?: Context): Promise<PlanDraft>;
  /** Runs an action's steps as the engine does, the guard taken as passed. */
  operate<T>(
    action: Action,
    input?: JsonObject,
    options?: OperateOptions,
  ): Promise<{ output: T; trace: Trace; plan: Plan }>;
  /** Runs one step; with `recover`, looks for what it began. */
  step(
    action: Action,
    name: string,
    input: JsonObject,
    plan: Plan,
    context: Context,
    trace?: Trace,
  ): Promise<JsonObject>;
  recover(
    action: Action,
    name: string,
    input: JsonObject,
    plan: Plan,
    context: Context,
    trace: Trace,
  ): Promise<Recovery>;
  /** The newest restorable snapshot of a cluster. */
  newest(cluster?: string): string;
}

export interface OperateOptions {
  context?: Context;
  safety?: boolean;
  /** Called before each step. */
  before?: (step: string, trace: Trace) => void | Promise<void>;
}

export async function startAtlas(wrap: (simulator: Simulator) => Simulator = (same) => same): Promise<AtlasBench> {
  let simulator: AtlasSimulator | undefined;
  const server = await startSimulators({
    simulators: (clock) => {
      simulator = mongodbAtlasSimulator({ clock });
      return [wrap(simulator)];
    },
  });
  const atlas = simulator as AtlasSimulator;
  const sleep = async (ms: number, signal?: AbortSignal): Promise<void> => {
    signal?.throwIfAborted();
    server.clock.advance(ms);
    await new Promise((resolve) => setImmediate(resolve));
  };

  const connect: AtlasBench['connect'] = async (
    parameters = {},
    overrides = {},
    signal = new AbortController().signal,
  ) => {
    const { schema, sandbox } = mongodbAtlas.entityTypes[DEFINES]!;
    const merged = { ...sandbox!.parameters, ...parameters };
    const parsed = schema.parse(Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== null)));
    const limits = { per_second: 5000, burst: 5000, concurrent: 8, timeout_ms: 3000 };
    const runtime = testRuntime(limits, {
      fetch: resilientFetch({
        title: 'MongoDB Atlas',
        limits,
        fetch: globalThis.fetch,
        now: () => server.clock.now().getTime(),
        sleep,
        random: Math.random,
        base_ms: 2,
      }),
      now: () => server.clock.now(),
      sleep,
      secret: async () => CANARY,
      ...overrides,
    });
    const entity = {
      ...parsed,
      key: 'sandbox/mongodb-atlas',
      namespace: 'sandbox',
      name: 'mongodb-atlas',
      defines: DEFINES,
      provider: 'mongodb-atlas',
      labels: {},
      objectives: {},
      endpoint: server.origin,
      parameters: parsed,
    };
    const client = await mongodbAtlas.connect(entity as never, runtime);
    return { client, entity, runtime, signal } as unknown as Context;
  };

  const stepContext = (
    context: Context,
    input: JsonObject,
    trace: Trace,
    step: Step,
  ): StepContext<unknown, unknown, unknown> => ({
    ...(context as ProviderContext<unknown, unknown>),
    input,
    operationId: 'op_test',
    idempotencyKey: `key-${step.name}`,
    get handle() {
      return trace.handles[step.name]?.at(-1);
    },
    results: trace.results,
    checkpoint: async (handle) => {
      trace.handles[step.name] = [...(trace.handles[step.name] ?? []), structuredClone(handle)];
    },
    progress: ({ message }) => {
      trace.progress.push(message);
    },
  });

  const planOf: AtlasBench['planOf'] = async (action, input = {}, context) =>
    action.plan!((context ?? (await connect())) as never, action.input.parse(input));
  const stepOf = (action: Action, name: string, input: JsonObject, plan: Plan): Step => {
    const parsed = action.input.parse(input);
    const all = [...(action.safety?.steps(parsed, plan) ?? []), ...action.steps!(parsed, plan)];
    const found = all.find((step) => step.name === name);
    if (found === undefined) throw new Error(`no step ${name}`);
    return found;
  };

  return {
    server,
    simulator: atlas,
    connect,
    planOf,
    async read<T>(action: Action, input: JsonObject = {}, context?: Context): Promise<T> {
      return action.output.parse(
        await action.run!((context ?? (await connect())) as never, action.input.parse(input)),
      ) as T;
    },
    async operate<T>(action: Action, input: JsonObject = {}, options: OperateOptions = {}) {
      const context = options.context ?? (await connect());
      const parsed = action.input.parse(input) as JsonObject;
      const plan = (await planOf(action, input, context)) as unknown as Plan;
      const trace: Trace = { results: {}, handles: {}, progress: [] };
      const steps = [
        ...(options.safety === true ? action.safety!.steps(parsed, plan) : []),
        ...action.steps!(parsed, plan),
      ];
      for (const step of steps) {
        await options.before?.(step.name, trace);
        const work = () => step.run(stepContext(context, parsed, trace, step));
        trace.results[step.name] = step.kind === 'mutate' ? await granted(work) : await work();
      }
      return { output: action.output.parse(action.result!(trace.results)) as T, trace, plan };
    },
    async step(action, name, input, plan, context, trace = { results: {}, handles: {}, progress: [] }) {
      const step = stepOf(action, name, input, plan);
      return granted(() => step.run(stepContext(context, action.input.parse(input) as JsonObject, trace, step)));
    },
    async recover(action, name, input, plan, context, trace) {
      const step = stepOf(action, name, input, plan);
      return step.recover!(stepContext(context, action.input.parse(input) as JsonObject, trace, step));
    },
    newest(cluster = 'sandbox-cluster') {
      const now = server.clock.now().getTime();
      const found = atlas.state
        .cluster(cluster)
        .snapshots.filter((snapshot) => snapshot.readyAt <= now && !snapshot.fails)
        .sort((a, b) => b.beganAt - a.beganAt)[0];
      if (found === undefined) throw new Error(`no snapshot of ${cluster}`);
      return found.id;
    },
  };
}
