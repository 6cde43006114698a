import { afterEach, describe, expect, it } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import type { Recovery } from '../../src/core/operation.ts';
import type { Call, ConfirmationDetails } from '../../src/engine/api.ts';
import { ANA, type Harness, startHarness } from '../support/harness.ts';
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
    policy: { confirm: 'token' },
    ...options,
  });
  open.push(harness);
  return harness;
}

async function restore({ engine }: Harness, extra: Partial<Call> = {}) {
  const call = { principal: ANA, entity: KEY, action: 'restore', input: { snapshot_id: 's1' } };
  const refused = (await engine.call(call).catch((cause: unknown) => cause)) as HoldfastError;
  const { token } = (refused.details as unknown as ConfirmationDetails).confirmation;
  return engine.call({ ...call, token, ...extra }).then(
    (outcome) => outcome,
    (cause: unknown) => cause as HoldfastError,
  );
}

const lost = () => new HoldfastError('PROVIDER_UNAVAILABLE', 'no answer', { details: { outcome: 'unknown' } });
const writes = (shelf: Shelf) => shelf.writes.filter((write) => write === 'restore').length;

describe('a write whose answer is lost', () => {
  const outcomes: [string, Recovery | 'fails', object][] = [
    ['was done', { state: 'done', result: { done: true } }, { kind: 'operation', operation: { status: 'succeeded' } }],
    [
      'is running',
      { state: 'running', handle: { job: 'j' } },
      { kind: 'operation', operation: { status: 'succeeded' } },
    ],
    [
      'never arrived',
      { state: 'not_begun' },
      { code: 'PROVIDER_UNAVAILABLE', retryable: true, hint: 'Nothing was changed. Make the call again.' },
    ],
    [
      'failed there',
      { state: 'failed', message: 'the job failed' },
      { code: 'PROVIDER_UNAVAILABLE', message: 'the job failed' },
    ],
    [
      'cannot be found out',
      { state: 'unknown', message: 'two jobs match' },
      { retryable: false, details: { outcome: 'unknown' } },
    ],
    ['cannot be looked for', 'fails', { retryable: false, details: { outcome: 'unknown' } }],
  ];
  it.each(outcomes)('and %s is looked up, never sent again', async (_, recovery, expected) => {
    const shelf = newShelf();
    shelf.during = () => Promise.reject(lost());
    shelf.recovery = async () => {
      if (recovery === 'fails') throw new Error('no way to look');
      return recovery;
    };
    const harness = await start(shelf);
    expect(await restore(harness)).toMatchObject(expected);
    expect(writes(shelf)).toBe(1);
    const [record] = await harness.store.operations();
    expect(['succeeded', 'failed', 'unknown']).toContain(record?.status);
    expect(await harness.engine.verifyAudit()).toMatchObject({ ok: true });
  });
});

describe('an operation that fails', () => {
  it('removes what its steps made, and says so', async () => {
    const shelf = newShelf();
    shelf.during = () => Promise.reject(new HoldfastError('INVALID_STATE', 'the target is busy'));
    shelf.abandoned = 'the half-made copy was removed';
    const outcome = await restore(await start(shelf));
    expect(outcome).toMatchObject({
      code: 'INVALID_STATE',
      details: { cleaned_up: ['the half-made copy was removed'], operation_id: expect.stringMatching(/^op_/) },
    });
  });

  it('says when what it made could not be removed', async () => {
    const shelf = newShelf();
    shelf.during = () => Promise.reject(new Error('anything'));
    shelf.abandoned = new Error('no');
    expect(await restore(await start(shelf))).toMatchObject({
      code: 'PROVIDER_UNAVAILABLE',
      details: { cleaned_up: ['what the step restore made could not be removed'] },
    });
  });

  it('stops when the target changes while its safety snapshot is taken', async () => {
    const shelf = newShelf();
    shelf.safety = async () => {
      shelf.version = 2;
    };
    expect(await restore(await start(shelf))).toMatchObject({
      code: 'PLAN_CHANGED',
      details: { differences: [{ path: 'target.version' }] },
    });
    expect(writes(shelf)).toBe(0);
  });
});

describe('a caller that goes away', () => {
  it('does not stop a guarded operation half-way', async () => {
    const shelf = newShelf();
    const { promise: inside, resolve: entered } = Promise.withResolvers<void>();
    const { promise: go, resolve: finish } = Promise.withResolvers<void>();
    shelf.during = () => {
      entered();
      return go;
    };
    const harness = await start(shelf);
    const controller = new AbortController();
    const call = restore(harness, { signal: controller.signal, wait: 'end' });
    await inside;
    controller.abort();
    const cancelled = (await call) as HoldfastError;
    expect(cancelled).toMatchObject({ code: 'CANCELLED', hint: expect.stringContaining('half-way') });
    finish();
    const waited = await harness.engine.call({
      principal: ANA,
      action: 'wait-operation',
      input: { operation_id: String(cancelled.details?.['operation_id']) },
    });
    expect(waited).toMatchObject({ output: { status: 'succeeded' } });
  });

  it('gets its answer early when only following is left', async () => {
    const shelf = newShelf();
    shelf.followRounds = 1000;
    const outcome = await restore(await start(shelf), { wait: 'detachable' });
    expect(outcome).toMatchObject({
      kind: 'operation',
      operation: {
        status: 'running',
        steps: expect.arrayContaining([expect.objectContaining({ name: 'restore', status: 'succeeded' })]),
      },
    });
  });
});

describe('a shut-down', () => {
  it('leaves following to the next process, which takes it up at once', async () => {
    const shelf = newShelf();
    shelf.followRounds = 1000;
    const first = await start(shelf);
    await restore(first, { wait: 'detachable' });
    await first.engine.close();
    open.splice(open.indexOf(first), 1);
    shelf.followRounds = 1;
    const second = await start(shelf, { stateDirectory: first.stateDirectory });
    const [record] = await second.store.operations();
    expect(record?.status).toBe('running');
    const looked = await second.engine.call({
      principal: ANA,
      action: 'get-operation',
      input: { operation_id: record!.id },
    });
    expect(looked).toMatchObject({ output: { status: 'succeeded' } });
    expect(writes(shelf)).toBe(1);
  });

  it('takes over nothing that another living process runs', async () => {
    const shelf = newShelf();
    shelf.followRounds = 1000;
    const first = await start(shelf);
    await restore(first, { wait: 'detachable' });
    const second = await start(shelf, { stateDirectory: first.stateDirectory });
    expect(await second.engine.resume()).toEqual([]);
    shelf.followRounds = 0;
  });
});

describe('the list of operations', () => {
  it('is narrowed by entity and status, and knows what it does not know', async () => {
    const shelf = newShelf();
    const { engine } = await start(shelf);
    await restore(open[0]!, { wait: 'end' });
    const list = (input: object) => engine.call({ principal: ANA, action: 'list-operations', input: input as never });
    expect(await list({})).toMatchObject({ output: { operations: [{ status: 'succeeded', entity: KEY }] } });
    expect(await list({ status: 'failed' })).toMatchObject({ output: { operations: [] } });
    expect(await list({ entity: 'my-app/other' })).toMatchObject({ output: { operations: [] } });
    await expect(
      engine.call({ principal: ANA, action: 'get-operation', input: { operation_id: 'op_none' } }),
    ).rejects.toMatchObject({ code: 'OPERATION_NOT_FOUND' });
  });
});
