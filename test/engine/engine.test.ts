import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { ConfirmationDetails } from '../../src/engine/api.ts';
import * as fleet from '../../tools/fleet.ts';
import { ANA, BEN, BOSS, type Harness, startHarness, VIEWER } from '../support/harness.ts';
import { newShelf, type Shelf, toyModule } from '../support/toy.ts';

const KEY = 'my-app/shelf';
const open: Harness[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((harness) => harness.close()));
});

async function start(shelf: Shelf, options: Partial<Parameters<typeof startHarness>[0]> = {}): Promise<Harness> {
  const harness = await startHarness({
    modules: { toy: toyModule(shelf) },
    entities: [{ key: KEY, defines: 'toy/shelf', parameters: { shelf: 'a' } }],
    ...options,
  });
  open.push(harness);
  return harness;
}

async function refusal(work: Promise<unknown>): Promise<HoldfastError> {
  const outcome = await work.then(
    () => 'it ran',
    (cause: unknown) => cause,
  );
  expect(outcome).toBeInstanceOf(HoldfastError);
  return outcome as HoldfastError;
}

const confirmationOf = (error: HoldfastError) => (error.details as unknown as ConfirmationDetails).confirmation;
const call = (input: JsonObject = { snapshot_id: 's1' }, extra: object = {}) => ({
  principal: ANA,
  entity: KEY,
  action: 'restore',
  input,
  ...extra,
});

describe('the engine', () => {
  it('runs what policy allows and records intent and result', async () => {
    const shelf = newShelf();
    const { engine, stateDirectory } = await start(shelf);
    const outcome = await engine.call({
      principal: ANA,
      entity: KEY,
      action: 'create-snapshot',
      input: { snapshot_id: 's2' },
    });
    expect(outcome).toMatchObject({ kind: 'result', output: { id: 's2' } });
    const lines = readFileSync(join(stateDirectory, 'audit.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as JsonObject);
    expect(lines.map((line) => line['event'])).toEqual(['intent', 'result']);
    expect(await engine.verifyAudit()).toEqual({ ok: true, records: 2 });
  });

  it('refuses an overwrite, shows the plan, and runs it once after a person approved it', async () => {
    const shelf = newShelf();
    const { engine } = await start(shelf);
    const refused = await refusal(engine.call(call()));
    expect(refused.code).toBe('CONFIRMATION_REQUIRED');
    expect(refused.details).toMatchObject({
      plan: { risk: 'overwrite', target: 'shelf/live', safety_snapshot: { state: 'taken' } },
    });
    expect(shelf.writes).toEqual([]);
    const { token, code } = confirmationOf(refused);
    expect((await refusal(engine.call(call(undefined, { token })))).code).toBe('CONFIRMATION_PENDING');
    expect(
      (await refusal(engine.approve({ confirmation: code, by: BOSS, via: 'terminal', typedTarget: 'shelf' }))).code,
    ).toBe('CONFIRMATION_MISMATCH');
    await engine.approve({ confirmation: code.toLowerCase(), by: BOSS, via: 'terminal', typedTarget: 'shelf/live' });
    const outcome = await engine.call(call(undefined, { token }));
    expect(outcome).toMatchObject({
      kind: 'operation',
      operation: { status: 'succeeded', result: { content: 'old' }, undo: { input: { snapshot_id: 'safety' } } },
    });
    expect(shelf.writes).toEqual(['safety', 'restore']);
    expect((await refusal(engine.call(call(undefined, { token })))).code).toBe('CONFIRMATION_USED');
    expect(shelf.writes).toEqual(['safety', 'restore']);
  });

  it('gives the same output to a dry run and opens no confirmation', async () => {
    const shelf = newShelf();
    const { engine } = await start(shelf);
    const outcome = await engine.call(call(undefined, { dryRun: true }));
    expect(outcome).toMatchObject({ kind: 'plan', decision: 'confirm', require: 'human' });
    expect(await engine.confirmations()).toEqual([]);
  });

  it('answers with the operation while it goes on, and follows it to its end', async () => {
    const shelf = newShelf();
    shelf.followRounds = 100;
    const { engine } = await start(shelf, { policy: { confirm: 'token' }, graceMs: 20 });
    const { token } = confirmationOf(await refusal(engine.call(call())));
    const outcome = await engine.call(call(undefined, { token }));
    expect(outcome).toMatchObject({ kind: 'operation', operation: { status: 'running' } });
    const id = outcome.kind === 'operation' ? outcome.operation.operation_id : '';
    const percents: number[] = [];
    const waited = await engine.call({
      principal: ANA,
      action: 'wait-operation',
      input: { operation_id: id },
      onProgress: ({ percent }) => percents.push(percent ?? -1),
    });
    expect(waited).toMatchObject({ output: { status: 'succeeded' } });
    expect(percents.length).toBeGreaterThan(10);
  });

  it('never lets a plan or a read write', async () => {
    const shelf = newShelf();
    const module = toyModule(shelf);
    const writing = {
      ...module.restore,
      plan: async (context: { runtime: { assertMayWrite(what: string): void } }) =>
        context.runtime.assertMayWrite('planning'),
    };
    const harness = await startHarness({
      modules: { toy: { ...module, restore: writing } },
      entities: [{ key: KEY, defines: 'toy/shelf', parameters: { shelf: 'a' } }],
    });
    open.push(harness);
    const error = await refusal(harness.engine.call(call()));
    expect(error.code).toBe('INTERNAL');
    expect(error.message).toContain('without a grant');
  });

  it('refuses input that does not fit, and names what is close', async () => {
    const { engine } = await start(newShelf());
    const error = await refusal(engine.call(call({ snapshot: 's1' })));
    expect(error.code).toBe('INVALID_PARAMETER');
    expect(error.message).toBe("snapshot_id is required; restore has no parameter 'snapshot'");
    expect((await refusal(engine.call({ ...call(), action: 'restor' }))).hint).toBe('Did you mean restore?');
    expect((await refusal(engine.call({ ...call(), entity: 'my-app/shelv' }))).hint).toBe('Did you mean my-app/shelf?');
    expect((await refusal(engine.call({ ...call(), action: 'describe-snapshot' }))).code).toBe('NOT_SUPPORTED');
  });

  it('lets a viewer read and nothing else', async () => {
    const shelf = newShelf();
    const { engine } = await start(shelf);
    await engine.call({ principal: VIEWER, entity: KEY, action: 'list-snapshots', input: {} });
    expect(
      (
        await refusal(
          engine.call({ principal: VIEWER, entity: KEY, action: 'create-snapshot', input: { snapshot_id: 'x' } }),
        )
      ).code,
    ).toBe('POLICY_DENIED');
    expect(shelf.writes).toEqual([]);
  });

  it('denies the deletion of the last restorable snapshot unless the call says so', async () => {
    const shelf = newShelf();
    const { engine } = await start(shelf, { policy: { confirm: 'token' } });
    const remove = (input: JsonObject, token?: string) =>
      engine.call({ principal: BEN, entity: KEY, action: 'delete-snapshot', input, token });
    expect((await refusal(remove({ snapshot_id: 's1' }))).code).toBe('POLICY_DENIED');
    const refused = await refusal(remove({ snapshot_id: 's1', allow_last: true }));
    expect(refused.details).toMatchObject({ plan: { last_restorable: true } });
    await remove({ snapshot_id: 's1', allow_last: true }, confirmationOf(refused).token);
    expect(shelf.writes).toEqual(['delete s1']);
  });

  it('keeps secret parameters out of the plan, the confirmation and the operation', async () => {
    const shelf = newShelf();
    const { engine, store } = await start(shelf, { policy: { confirm: 'token' } });
    const input = { snapshot_id: 's1', secret: 'canary-swordfish' };
    const refused = await refusal(engine.call(call(input)));
    await engine.call(call(input, { token: confirmationOf(refused).token }));
    const kept = JSON.stringify([refused.toJson(), await store.confirmations(), await store.operations()]);
    expect(kept).not.toContain('swordfish');
    expect(kept).toContain('***');
  });
});

describe('an operation after its process is gone', () => {
  const begin = async (shelf: Shelf) => {
    // A write that never returns: the process dies inside it.
    shelf.during = () => new Promise(() => {});
    const first = await start(shelf, { policy: { confirm: 'token' }, graceMs: 20 });
    const { token } = confirmationOf(await refusal(first.engine.call(call(undefined, { token: undefined }))));
    const outcome = await first.engine.call(call(undefined, { token }));
    const id = outcome.kind === 'operation' ? outcome.operation.operation_id : '';
    const record = (await first.store.operation(id))!;
    // What another process finds: a dead owner.
    await first.store.saveOperation({
      ...record,
      owner: { ...record.owner!, lease_until: '2020-01-01T00:00:00.000Z' },
    });
    open.splice(open.indexOf(first), 1);
    const second = await start(shelf, { policy: { confirm: 'token' }, stateDirectory: first.stateDirectory });
    return { id, second };
  };

  it('is followed to its end when the provider has it', async () => {
    const shelf = newShelf();
    const { id, second } = await begin(shelf);
    shelf.arrived = true;
    expect(await second.engine.resume()).toHaveLength(1);
    const waited = await second.engine.call({ principal: ANA, action: 'wait-operation', input: { operation_id: id } });
    expect(waited).toMatchObject({ output: { status: 'succeeded' } });
    expect(shelf.writes.filter((write) => write === 'restore')).toHaveLength(1);
  });

  it('is stopped, not repeated, when a guarded write never arrived', async () => {
    const shelf = newShelf();
    const { id, second } = await begin(shelf);
    await second.engine.resume();
    const waited = await second.engine.call({ principal: ANA, action: 'wait-operation', input: { operation_id: id } });
    expect(waited).toMatchObject({
      output: { status: 'failed', error: { code: 'INVALID_STATE' }, undo: { action: 'restore' } },
    });
    expect(shelf.writes.filter((write) => write === 'restore')).toHaveLength(1);
  });
});

it('answers with what ran even when its result cannot be recorded', async () => {
  const shelf = newShelf();
  const module = toyModule(shelf);
  const faults: string[] = [];
  const log = { debug: () => {}, info: () => {}, warn: () => {}, error: (message: string) => faults.push(message) };
  const harness = await startHarness({
    modules: {
      toy: {
        ...module,
        createSnapshot: {
          ...module.createSnapshot,
          run: async (...parameters: Parameters<NonNullable<typeof module.createSnapshot.run>>) => {
            const output = await module.createSnapshot.run!(...parameters);
            rmSync(join(harness.stateDirectory, 'audit.jsonl'));
            return output;
          },
        },
      },
    },
    entities: [{ key: KEY, defines: 'toy/shelf', parameters: { shelf: 'a' } }],
    log,
  });
  open.push(harness);
  const outcome = await harness.engine.call({
    principal: ANA,
    entity: KEY,
    action: 'create-snapshot',
    input: { snapshot_id: 's2' },
  });
  expect(outcome).toMatchObject({ kind: 'result', output: { id: 's2' } });
  expect(faults).toEqual(['the result of a call was not recorded in the audit trail']);
  await expect(
    harness.engine.call({ principal: ANA, entity: KEY, action: 'create-snapshot', input: { snapshot_id: 's3' } }),
  ).rejects.toMatchObject({ code: 'AUDIT_UNAVAILABLE' });
  expect(shelf.writes).toEqual(['create s2']);
});

it('tells of a way back how long it last took, where the provider does not', async () => {
  const shelf = newShelf();
  const again = { action: 'restore', input: { snapshot_id: 's1' } };
  const option = {
    title: 'the snapshot',
    moment: '2026-01-01T00:00:00Z',
    loses: 'a day',
    risk: 'overwrite' as const,
  };
  shelf.options = [
    { ...option, call: again },
    { ...option, duration_estimate: 90, call: again },
  ];
  // Time passes by seconds, one at each look.
  let at = Date.parse('2026-01-02T00:00:00Z');
  const now = () => {
    at += 1000;
    return new Date(at);
  };
  const { engine } = await start(shelf, { now, modules: { toy: toyModule(shelf), fleet } });
  const find = { principal: ANA, action: 'find-recovery-options', input: { entity: KEY } };
  const estimates = async () => {
    const outcome = await engine.call(find);
    const { options } = (outcome.kind === 'result' ? outcome.output : {}) as { options: JsonObject[] };
    return options.map(({ duration_estimate }) => duration_estimate);
  };
  expect(await estimates()).toEqual([undefined, 90]);
  const { confirmation } = (await refusal(engine.call(call()))).details as unknown as ConfirmationDetails;
  await engine.approve({ confirmation: confirmation.id, by: BOSS, via: 'terminal', typedTarget: 'shelf/live' });
  await engine.call(call(undefined, { token: confirmation.token, wait: 'end' }));
  expect(await estimates()).toEqual([expect.any(Number), 90]);
  expect((await estimates())[0]).toBeGreaterThan(0);
});
