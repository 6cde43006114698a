import { expect } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { AppliedSettings, SettingsCheck } from '../../src/core/schemas.ts';
import type { ConfirmationDetails } from '../../src/engine/api.ts';
import { type SimulatorServer, type SimulatorServerOptions, startSimulators } from '../../src/simulators/server.ts';
import { ANA, BOSS, type Harness, startHarness } from './harness.ts';

/** One entity behind the real engine, for what it declares against what its simulator has. */
export interface DeclaredSite {
  readonly server: SimulatorServer;
  readonly harness: Harness;
  check(): Promise<SettingsCheck>;
  /** Applies without a confirmation; gives what was applied. */
  apply(input?: JsonObject): Promise<AppliedSettings['applied']>;
  /** Calls apply-settings and gives the refusal that carries the plan. */
  asked(input?: JsonObject): Promise<ConfirmationDetails>;
  /** Has a person type the target, then makes the call again. */
  approveAndApply(details: ConfirmationDetails, input?: JsonObject): Promise<AppliedSettings['applied']>;
  /** Paths and bodies of the writes so far. */
  writes(): { method: string; path: string }[];
  close(): Promise<void>;
}

const KEY = 'my-app/db';

/** Starts simulators and the engine around one entity. */
export async function startDeclaredSite(options: {
  readonly simulators: SimulatorServerOptions['simulators'];
  readonly module: Readonly<Record<string, unknown>>;
  readonly defines: string;
  readonly parameters: JsonObject;
  readonly onRequest?: NonNullable<SimulatorServerOptions['onRequest']>;
  readonly secrets?: Readonly<Record<string, string>>;
}): Promise<DeclaredSite> {
  const { onRequest } = options;
  const server = await startSimulators({
    simulators: options.simulators,
    ...(onRequest === undefined ? {} : { onRequest }),
  });
  const harness = await startHarness({
    modules: { own: options.module },
    entities: [{ key: KEY, defines: options.defines, parameters: options.parameters, endpoint: server.origin }],
    ...(options.secrets === undefined ? {} : { secrets: options.secrets }),
  });
  const call = async (action: string, more: { input?: JsonObject; token?: string } = {}): Promise<JsonObject> => {
    const { input = {}, token } = more;
    const outcome = await harness.engine.call({
      principal: ANA,
      entity: KEY,
      action,
      input,
      wait: 'end',
      ...(token === undefined ? {} : { token }),
    });
    if (outcome.kind === 'result') return outcome.output as JsonObject;
    if (outcome.kind === 'operation') return outcome.operation.result as JsonObject;
    throw new Error('a dry run was not asked for');
  };
  const apply: DeclaredSite['apply'] = async (input = {}) =>
    (await call('apply-settings', { input }))['applied'] as unknown as AppliedSettings['applied'];
  return {
    server,
    harness,
    apply,
    check: async () => (await call('check-settings')) as unknown as SettingsCheck,
    async asked(input = {}) {
      const refusal: unknown = await apply(input).then(
        () => 'it ran without being asked',
        (cause: unknown) => cause,
      );
      expect(refusal).toBeInstanceOf(HoldfastError);
      expect(refusal).toMatchObject({ code: 'CONFIRMATION_REQUIRED' });
      return (refusal as HoldfastError).details as unknown as ConfirmationDetails;
    },
    async approveAndApply({ confirmation, plan }, input = {}) {
      await harness.engine.approve({
        confirmation: confirmation.id,
        by: BOSS,
        via: 'terminal',
        typedTarget: plan.target,
      });
      const answer = await call('apply-settings', { input, token: confirmation.token });
      return answer['applied'] as unknown as AppliedSettings['applied'];
    },
    writes: () => server.writes().map(({ method, path }) => ({ method, path })),
    async close() {
      await harness.close();
      await server.close();
    },
  };
}
