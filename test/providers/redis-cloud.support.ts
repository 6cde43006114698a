import type { Action } from '../../src/core/action.ts';
import type { EntityBase } from '../../src/core/context.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { Step, StepContext } from '../../src/core/operation.ts';
import type { Plan, PlanDraft } from '../../src/core/plan.ts';
import type { Runtime } from '../../src/core/runtime.ts';
import { RedisCloudClient } from '../../src/providers/redis-cloud/client.ts';
import { PRO_DATABASE, type RedisCloudEntity, redisCloud } from '../../src/providers/redis-cloud/provider.ts';
import type { Context } from '../../src/providers/redis-cloud/target.ts';
import {
  type RedisCloudSimulator,
  type RedisCloudState,
  redisCloudSimulator,
} from '../../src/simulators/redis-cloud.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import { type Simulator, SimulatorClock } from '../../src/simulators/simulator.ts';
import { granted, testRuntime } from '../support/runtime.ts';

export const ESSENTIALS = 'redis-cloud/essentials-database';
export const PRO = PRO_DATABASE;
export const SUBSCRIPTION = 'redis-cloud/essentials-subscription';
export const CARTS = { subscription_id: 2101, database_id: 51002101, name: 'carts' };
export const SESSIONS = { subscription_id: 3101, database_id: 51003101, name: 'sessions' };
export const GLOBAL = { subscription_id: 3102, database_id: 51003201, name: 'global' };
export const LAST_GOOD = {
  source_type: 'aws-s3',
  source_uri: 's3://sandbox-backups/redis/carts/carts-last-good.rdb.gz',
};
export const CANARIES = { REDISCLOUD_ACCESS_KEY: 'canary-access-key', REDISCLOUD_SECRET_KEY: 'canary-secret-key' };

export interface World {
  readonly server: SimulatorServer;
  readonly clock: SimulatorClock;
  readonly state: RedisCloudState;
  readonly concealed: string[];
  context(defines: string, parameters: JsonObject, overrides?: Partial<Runtime>, signal?: AbortSignal): Context;
  posts(): string[];
  close(): Promise<void>;
}

/** Starts the simulator on a clock that every wait of the code under test moves on. */
export async function startWorld(wrap: (simulator: Simulator) => Simulator = (simulator) => simulator): Promise<World> {
  const clock = new SimulatorClock();
  let simulator: RedisCloudSimulator | undefined;
  const server = await startSimulators({
    clock,
    simulators: (shared) => {
      simulator = redisCloudSimulator({ clock: shared });
      return [wrap(simulator)];
    },
  });
  const concealed: string[] = [];
  const quick = { ...redisCloud.limits, per_second: 10_000, burst: 10_000 };
  return {
    server,
    clock,
    state: (simulator as RedisCloudSimulator).state,
    concealed,
    posts: () => server.writes().map(({ path }) => path),
    close: () => server.close(),
    context(defines, parameters, overrides = {}, signal = new AbortController().signal) {
      const parsed = redisCloud.entityTypes[defines]?.schema.parse(parameters) as Record<string, unknown>;
      const base: EntityBase = {
        key: 'test/redis',
        namespace: 'test',
        name: 'redis',
        defines,
        provider: 'redis-cloud',
        labels: {},
        objectives: {},
        endpoint: server.origin,
        parameters: parsed,
      };
      const entity = { ...parsed, ...base } as RedisCloudEntity & EntityBase;
      const runtime = testRuntime(quick, {
        credential: (name) => CANARIES[name as keyof typeof CANARIES],
        conceal: (value) => {
          concealed.push(value);
        },
        now: () => clock.now(),
        sleep: async (ms, waiting) => {
          waiting?.throwIfAborted();
          clock.advance(ms);
        },
        ...overrides,
      });
      return { client: new RedisCloudClient(entity, runtime), entity, runtime, signal };
    },
  };
}

export function planFrom(draft: PlanDraft): Plan {
  return {
    action: 'restore',
    entity: 'test/redis',
    blast_radius: {},
    alternatives: [],
    unknowns: [],
    warnings: [],
    ...draft,
    risk: draft.risk ?? 'overwrite',
    safety_snapshot: { state: draft.safety_snapshot?.possible === true ? 'taken' : 'impossible' },
  } as Plan;
}

export interface Drive {
  readonly results: Record<string, JsonObject>;
  readonly handles: Record<string, JsonObject[]>;
  readonly progress: string[];
  readonly recovered: string[];
  output: JsonObject;
}

/** Runs an operation's steps as the engine does: grants for writes, recovery by reading when an answer was lost. */
export async function drive(
  action: Action,
  context: Context,
  given: JsonObject = {},
  options: { plan?: Plan; safety?: boolean; before?: (step: string) => unknown } = {},
): Promise<Drive> {
  const input = action.input.parse(given);
  const plan = options.plan ?? planFrom((await action.plan?.(context, input)) as PlanDraft);
  const safety =
    options.safety === true && plan.safety_snapshot.state === 'taken' ? action.safety?.steps(input, plan) : [];
  const run: Drive = { results: {}, handles: {}, progress: [], recovered: [], output: {} };
  for (const step of [...(safety ?? []), ...(action.steps?.(input, plan) ?? [])]) {
    await options.before?.(step.name);
    run.results[step.name] = await runStep(step, context, input, run);
  }
  run.output = action.output.parse(action.result?.(run.results)) as JsonObject;
  return run;
}

export function stepContext(
  step: Step,
  context: Context,
  input: unknown,
  run: Pick<Drive, 'results' | 'handles' | 'progress'>,
): StepContext<unknown, unknown, unknown> {
  const handles = run.handles[step.name] ?? [];
  run.handles[step.name] = handles;
  return {
    ...context,
    input,
    operationId: 'operation',
    idempotencyKey: 'key',
    get handle() {
      return handles.at(-1);
    },
    results: run.results,
    checkpoint: async (handle) => {
      handles.push(JSON.parse(JSON.stringify(handle)) as JsonObject);
    },
    progress: ({ message }) => {
      run.progress.push(message);
    },
  };
}

async function runStep(step: Step, context: Context, input: unknown, run: Drive): Promise<JsonObject> {
  const own = stepContext(step, context, input, run);
  if (step.kind === 'follow') return step.run(own);
  try {
    return await granted(() => step.run(own));
  } catch (cause) {
    if (!(cause instanceof HoldfastError) || cause.details?.['outcome'] !== 'unknown') throw cause;
    const recovery = await step.recover?.(own);
    run.recovered.push(recovery?.state ?? 'none');
    if (recovery?.state === 'done') return recovery.result ?? {};
    throw cause;
  }
}

export async function failure(work: Promise<unknown>): Promise<HoldfastError> {
  const outcome = await work.then(
    () => 'it ran',
    (cause: unknown) => cause,
  );
  if (!(outcome instanceof HoldfastError)) throw new Error(`no HoldfastError: ${String(outcome)}`, { cause: outcome });
  return outcome;
}
