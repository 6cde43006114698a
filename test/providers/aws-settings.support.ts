import { expect } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { ConfirmationDetails } from '../../src/engine/api.ts';
import type { SimulatorServer } from '../../src/simulators/server.ts';
import * as awsDynamodb from '../../tools/aws-dynamodb.ts';
import * as awsRds from '../../tools/aws-rds.ts';
import { ANA, BOSS, type Harness, startHarness } from '../support/harness.ts';

export const CANARY = 'canary-aws-secret-7b1c9d2f';
const ENTITY = 'sandbox/declared';

export interface Declared extends Harness {
  check(): Promise<{ in_line: boolean; settings: JsonObject[] }>;
  apply(input?: JsonObject, extra?: object): Promise<unknown>;
  /** What a refused application shows, and the token that a person's yes made live. */
  plan(input?: JsonObject): Promise<ConfirmationDetails>;
  approve(details: ConfirmationDetails): Promise<{ token: string }>;
}

/** An engine with one entity that declares these parameters. */
export async function startDeclared(
  server: SimulatorServer,
  defines: string,
  parameters: JsonObject,
): Promise<Declared> {
  const harness = await startHarness({
    modules: { awsRds, awsDynamodb },
    entities: [
      {
        key: ENTITY,
        defines,
        parameters: {
          region: 'us-east-1',
          access_key_id: '${env:AWS_ACCESS_KEY_ID}',
          secret_access_key: '${env:AWS_SECRET_ACCESS_KEY}',
          ...parameters,
        },
        endpoint: server.origin,
      },
    ],
    secrets: { AWS_ACCESS_KEY_ID: 'AKIASANDBOXDECLARED', AWS_SECRET_ACCESS_KEY: CANARY },
  });
  const { engine } = harness;
  const apply: Declared['apply'] = (input = {}, extra = {}) =>
    engine.call({ principal: ANA, entity: ENTITY, action: 'apply-settings', input, wait: 'end', ...extra });
  return {
    ...harness,
    apply,
    async check() {
      const call = { principal: ANA, entity: ENTITY, action: 'check-settings', input: {} };
      const outcome = await engine.call(call);
      return (outcome as unknown as { output: Awaited<ReturnType<Declared['check']>> }).output;
    },
    async plan(input = {}) {
      const refused = await failure(apply(input));
      expect(refused.code).toBe('CONFIRMATION_REQUIRED');
      return refused.details as unknown as ConfirmationDetails;
    },
    async approve({ confirmation, plan }) {
      const typedTarget = String(plan.target);
      await engine.approve({ confirmation: confirmation.code, by: BOSS, via: 'terminal', typedTarget });
      return { token: confirmation.token };
    },
  };
}

/** The error of ours that this ends with. */
export async function failure(work: Promise<unknown>): Promise<HoldfastError> {
  const outcome = await work.then(
    () => 'it ran',
    (cause: unknown) => cause,
  );
  expect(outcome).toBeInstanceOf(HoldfastError);
  return outcome as HoldfastError;
}
