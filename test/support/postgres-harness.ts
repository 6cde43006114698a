import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { Call, ConfirmationDetails } from '../../src/engine/api.ts';
import type { Connection } from '../../src/postgres/connection.ts';
import * as tools from '../../tools/index.ts';
import { ANA, BOSS, type Harness, startHarness } from './harness.ts';

/** What a call gave; tests read it freely. */
export interface Made extends JsonObject {
  id: string;
  provider: { rows: number } & JsonObject;
}

export interface PostgresHarness extends Harness {
  readonly storage: string;
  /** Makes a call and gives what came of it: the operation's result or the action's output. */
  call(action: string, input?: JsonObject, extra?: Partial<Call>): Promise<Made>;
  /** Makes a call that must fail, and gives the error. */
  fails(action: string, input?: JsonObject, extra?: Partial<Call>): Promise<HoldfastError>;
  /** Makes a guarded call, has a person approve it, and makes it again. */
  approved(action: string, input?: JsonObject): Promise<Made>;
  /** The same for a call that must fail after it was approved. */
  approvedFails(action: string, input?: JsonObject): Promise<HoldfastError>;
}

export interface PostgresHarnessOptions {
  readonly connection: Connection;
  readonly database: string;
  readonly parameters?: JsonObject;
  readonly secrets?: Record<string, string>;
  readonly storage?: string;
  readonly stateDirectory?: string;
}

/** An engine with one PostgreSQL entity, `app/shop`. */
export async function startPostgresHarness(options: PostgresHarnessOptions): Promise<PostgresHarness> {
  const { connection } = options;
  const storage = options.storage ?? (await mkdtemp(join(tmpdir(), 'hf-store-')));
  const harness = await startHarness({
    modules: Object.fromEntries(Object.entries(tools).filter(([name]) => name.startsWith('postgresql'))),
    ...(options.stateDirectory === undefined ? {} : { stateDirectory: options.stateDirectory }),
    entities: [
      {
        key: 'app/shop',
        defines: 'postgresql/server',
        parameters: {
          host: connection.host,
          port: connection.port,
          user: connection.user,
          password: '${env:PG_PASSWORD}',
          database: options.database,
          storage: { type: 'local', path: storage },
          encryption: 'none',
          verify_on_source: true,
          ...options.parameters,
        },
      },
    ],
    secrets: { PG_PASSWORD: connection.password ?? '', ...options.secrets },
  });
  const { engine } = harness;
  const made = async (call: Partial<Call>, action: string, input: JsonObject): Promise<Made> => {
    const outcome = await engine.call({ principal: ANA, entity: 'app/shop', action, input, wait: 'end', ...call });
    return (
      outcome.kind === 'operation' ? outcome.operation.result : (outcome as { output?: unknown }).output
    ) as never;
  };
  const fails = async (action: string, input: JsonObject = {}, extra: Partial<Call> = {}): Promise<HoldfastError> => {
    try {
      const result = await made(extra, action, input);
      throw new Error(`${action} should have failed and gave ${JSON.stringify(result)}`);
    } catch (cause) {
      if ((cause as Error).name !== 'HoldfastError') throw cause;
      return cause as HoldfastError;
    }
  };
  const approve = async (action: string, input: JsonObject): Promise<Partial<Call>> => {
    const refusal = await fails(action, input);
    if (refusal.code !== 'CONFIRMATION_REQUIRED') throw refusal;
    const { confirmation, plan } = refusal.details as unknown as ConfirmationDetails;
    await engine.approve({ confirmation: confirmation.id, by: BOSS, via: 'terminal', typedTarget: plan.target });
    return { token: confirmation.token };
  };
  return {
    ...harness,
    storage,
    call: (action, input = {}, extra = {}) => made(extra, action, input),
    fails,
    approved: async (action, input = {}) => made(await approve(action, input), action, input),
    approvedFails: async (action, input = {}) => fails(action, input, await approve(action, input)),
    close: async () => {
      await harness.close();
      if (options.storage === undefined) await rm(storage, { recursive: true, force: true });
    },
  };
}
