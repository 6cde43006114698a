import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { OperationRecord } from '../../src/core/state.ts';
import type { Call, ConfirmationDetails, Outcome } from '../../src/engine/api.ts';
import type { RequestPhase, RequestVerdict } from '../../src/simulators/server.ts';
import { FAULT_KINDS, type FaultKind, type JournalEntry } from '../../src/simulators/simulator.ts';
import {
  type GuardedFleet,
  modules,
  newestSnapshot,
  registry,
  type SimulatedFleet,
  startSimulatedFleet,
} from '../support/guarded-fleet.ts';
import { ANA, BOSS, type Harness, startHarness } from '../support/harness.ts';
import { dice, entitiesOf, type MutatingCall, mutatingCalls, tally } from '../support/mutating-calls.ts';

// Every action on every simulated entity while its provider answers badly. Reads come through or say why not; what
// changes something is sent once at most, and what is said of it is held against what the provider really did.
//
// Of reads each meets every kind of fault. Of calls that change something each meets bad weather of every kind mixed, a
// write of its own under each fault that spoils the answer to work that was done, silence after its write and a 500 for
// it. The rest is dealt out in turn, by the call's place in the list: a third of the kinds as weather, and half of those
// that come instead of the work.

const RATE = 0.3;
/** No call may take longer, whatever the provider does. */
const PATIENCE_MS = 20_000;
const KINDS: readonly (FaultKind | 'mixed')[] = [...FAULT_KINDS, 'mixed'];
/** Faults that come instead of the work; the others spoil the answer to work that was done. */
const UNDONE: readonly FaultKind[] = ['429', '500', '503', 'reset'];

/** Every so many-th of a list, another part of it for each kind; together the kinds reach all. */
const share = <T>(all: readonly T[], kind: FaultKind, parts: number): T[] =>
  all.filter((_, place) => (place + FAULT_KINDS.indexOf(kind)) % parts === 0);
/** Every provider that is simulated. */
const PROVIDERS = [
  ...new Set([...registry.entityTypes.values()].filter(({ type }) => type.sandbox).map(({ provider }) => provider.id)),
];

interface Lane {
  readonly fleet: SimulatedFleet;
  readonly harness: Harness;
  /** What happens to requests beside the faults. */
  trap: (entry: JournalEntry, phase: RequestPhase) => RequestVerdict;
  random: () => number;
  /** Takes turns: one call at a time, or the journal could not be told apart. */
  tail: Promise<unknown>;
}

const lanes = new Map<string, Lane>();

beforeAll(async () => {
  for (const provider of PROVIDERS) {
    const hooks: Pick<Lane, 'trap' | 'random'> = { trap: () => 'go on', random: Math.random };
    const fleet = await startSimulatedFleet({
      random: () => hooks.random(),
      onRequest: (entry, phase) => hooks.trap(entry, phase),
    });
    const harness = await startHarness({ modules, entities: fleet.entities, secrets: fleet.secrets });
    lanes.set(provider, Object.assign(hooks, { fleet, harness, tail: Promise.resolve() }));
  }
});

afterAll(async () => {
  for (const { fleet, harness } of lanes.values()) {
    await harness.close();
    await fleet.close();
  }
});

function inLane(provider: string, work: (lane: Lane) => Promise<void>): Promise<void> {
  const lane = lanes.get(provider)!;
  const turn = lane.tail.then(() => work(lane));
  lane.tail = turn.catch(() => undefined);
  return turn;
}

function spoil({ fleet }: Lane, kind: FaultKind | 'mixed', rate: number): void {
  const settings = { retry_after: 0.02, delay_ms: 20 };
  if (kind !== 'mixed') fleet.provider.fault({ ...settings, kind, rate });
  // The dice fall for one kind after another; together they hit as often as one alone.
  else for (const one of FAULT_KINDS) fleet.provider.fault({ ...settings, kind: one, rate: rate / FAULT_KINDS.length });
}

/** Spoils the next write. */
const spoilWrite = ({ fleet }: Lane, kind: FaultKind): void =>
  fleet.provider.fault({ kind, writes: true, times: 1, delay_ms: 20, retry_after: 0.02 });

function recover(lane: Lane): void {
  lane.fleet.provider.clearFaults();
  lane.trap = () => 'go on';
}

/** The outcome or the error of a call that must end in bounded time. */
async function ending(harness: Harness, call: Omit<Call, 'principal'>): Promise<Outcome | HoldfastError> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${call.action} on ${call.entity} hangs`)), PATIENCE_MS);
  });
  try {
    const made = harness.engine.call({ principal: ANA, ...call });
    return await Promise.race([made.catch((cause: HoldfastError) => cause), late]);
  } finally {
    clearTimeout(timer);
  }
}

const codeOf = (end: Outcome | HoldfastError): string => ('code' in end ? end.code : 'ok');

// --- reads -----------------------------------------------------------------------------------------------------------

const READ_CODES = ['RATE_LIMITED', 'PROVIDER_UNAVAILABLE', 'TIMEOUT'];

interface Read {
  readonly action: string;
  readonly entity: string;
  readonly example: JsonObject;
}

/** Every reading action of a provider on each of its entities, and the ways back that are looked for across all. */
function readsOf(provider: string): Read[] {
  const own = registry.actions.filter((action) => action.provider.id === provider && action.risk === 'read');
  const entities = new Set(own.flatMap((action) => entitiesOf(action.on)));
  return [
    ...own.flatMap(({ name, on, example }) => entitiesOf(on).map((entity) => ({ action: name, entity, example }))),
    ...[...entities].map((entity) => ({ action: 'find-recovery-options', entity, example: {} })),
  ];
}

async function exampleOf({ harness }: Lane, { example, entity }: Read): Promise<JsonObject> {
  const text = JSON.stringify(example);
  if (!text.includes('$newest')) return example;
  return JSON.parse(text.replaceAll('$newest', await newestSnapshot(harness.engine, entity))) as JsonObject;
}

/** An answer without what moves by itself: moments, counters and ages. */
function stable(end: Outcome | HoldfastError): string {
  if ('code' in end) return end.code;
  return JSON.stringify(end.kind === 'result' ? end.output : end)
    .replace(/\d+ (?:s|min|h|d)\b(?: \d+ (?:s|min|h|d)\b)*/g, '# long')
    .replace(/\d+/g, '#');
}

// --- calls that change something -------------------------------------------------------------------------------------

interface Made {
  readonly end: Outcome | HoldfastError;
  readonly record: OperationRecord | undefined;
  readonly writes: readonly JournalEntry[];
  /** How often the provider was asked and kept silent. */
  readonly unanswered: number;
  /** What the simulator says that the call did: the thing itself, once. */
  readonly effect: number;
  readonly snapshots: number;
}

/** Makes a call that was planned and approved in peace, with `disturb` in force while it runs. */
async function make(lane: Lane, one: MutatingCall, disturb: () => void, more: JsonObject = {}): Promise<Made> {
  const { harness, fleet } = lane;
  const { engine, store } = harness;
  const input = { ...(await one.prepare(engine)), ...more };
  const call = { entity: one.entity, action: one.action, input, wait: 'end' as const };
  let token: string | undefined;
  if (one.guarded) {
    const refusal = await ending(harness, call);
    expect(codeOf(refusal), `${one.name}: ${String(refusal)}`).toBe('CONFIRMATION_REQUIRED');
    const { confirmation, plan } = (refusal as HoldfastError).details as unknown as ConfirmationDetails;
    token = confirmation.token;
    await engine.approve({ confirmation: confirmation.id, by: BOSS, via: 'terminal', typedTarget: plan.target });
  }
  const known = new Set((await store.operations({ entity: one.entity, limit: 500 })).map(({ id }) => id));
  const before = tally(fleet, one.entity);
  const begin = fleet.provider.journal.length;
  disturb();
  const end = await ending(harness, { ...call, ...(token === undefined ? {} : { token }) });
  recover(lane);
  const asked = fleet.provider.journal.slice(begin);
  const writes = asked.filter((entry) => entry.writes);
  const unanswered = asked.filter(({ status }) => status === null).length;
  const record = (await store.operations({ entity: one.entity, limit: 500 })).find(({ id }) => !known.has(id));
  const after = tally(fleet, one.entity);
  const snapshots = after.snapshots - before.snapshots;
  const effect = {
    snapshot: snapshots,
    restore: after.restores - before.restores,
    delete: before.snapshots - after.snapshots,
    settings: after.settings - before.settings,
    none: 0,
  }[one.effect];
  return { end, record, writes, unanswered, effect, snapshots };
}

/** What must be true of every call, however the provider answered. */
function expectTruth({ end, record, writes, effect, snapshots }: Made, one: MutatingCall, label: string): void {
  // A write that was refused has done nothing; only such a one may come again.
  const taken = writes.filter(({ status }) => status === null || status < 400 || status >= 500);
  const kinds = taken.map(({ method, path, operation = '' }) => `${method} ${path} ${operation}`);
  expect(kinds, `${label}: sent twice`).toEqual([...new Set(kinds)]);
  const code = codeOf(end);
  const isUnknown = 'code' in end && end.details?.['outcome'] === 'unknown';
  if (record !== undefined) {
    expect(record.status, label).toBe(code === 'ok' ? 'succeeded' : isUnknown ? 'unknown' : 'failed');
    expect(record.ended_at, label).toBeDefined();
  }
  if (code === 'ok') expect(effect, `${label}: said to be done`).toBe(one.effect === 'none' ? 0 : 1);
  else {
    expect([...READ_CODES, 'INVALID_STATE'], `${label}: ${String(end)}`).toContain(code);
    expect((end as HoldfastError).hint, label).not.toBe('');
    if (!isUnknown && effect !== 0) {
      // What an earlier step made is told, and nothing says that nothing was done.
      const told = `${label}: said to have failed: ${JSON.stringify(record?.error)}`;
      const { hint, details } = end as HoldfastError;
      expect(
        record?.steps.filter(({ kind, status }) => kind === 'mutate' && status === 'succeeded'),
        told,
      ).not.toEqual([]);
      expect(details?.['cleaned_up'], told).toEqual(expect.arrayContaining([expect.stringContaining('was left')]));
      expect([details?.['outcome'], hint], told).toEqual([undefined, expect.stringMatching(/^Earlier steps/)]);
    }
  }
  // A safety snapshot that was made is told.
  if (code !== 'ok' && one.effect === 'restore' && snapshots === 1 && !isUnknown && record?.undo === undefined) {
    expect(JSON.stringify([record?.steps, record?.error]), label).toMatch(/safety/);
  }
}

/** Leaves only the call's own writes: no safety snapshot before them. */
function alone({ provider, action, guarded }: MutatingCall): JsonObject {
  const declared = registry.actions.find((one) => one.provider.id === provider && one.name === action);
  return guarded && declared?.safety !== undefined ? { safety_snapshot: false } : {};
}

/** Waits until the provider is asked again and its own work is over, so that the next call finds it at rest. */
async function calm({ harness }: Lane, { entity }: MutatingCall): Promise<void> {
  const call = { entity, action: 'create-snapshot', input: {}, dryRun: true };
  for (let look = 0; look < 100; look += 1) {
    await new Promise((resolve) => setTimeout(resolve, look === 0 ? 300 : 50));
    // Not every provider takes snapshots, and a dry run of one may ask nothing.
    const codes = [
      codeOf(await ending(harness, { entity, action: 'check-settings', input: {} })),
      codeOf(await ending(harness, call)),
    ];
    if (!codes.some((code) => ['INVALID_STATE', ...READ_CODES].includes(code))) return;
  }
  throw new Error(`${entity} does not come to rest`);
}

async function rest(lane: Lane, one: MutatingCall, made: Made): Promise<void> {
  if (codeOf(made.end) !== 'ok' && made.writes.length > 0) await calm(lane, one);
}

// Cases of PostgreSQL, which has no simulator, are left out before they are touched.
const mutating = (provider: string): MutatingCall[] =>
  mutatingCalls(() => lanes.get(provider)!.fleet as GuardedFleet).filter((one) => one.provider === provider);

/** Those that do send something. */
const writing = (provider: string): MutatingCall[] => mutating(provider).filter(({ effect }) => effect !== 'none');

/** Takes one provider after the other, so that all lanes are busy. */
const withKinds = <Kind extends string>(kinds: readonly Kind[]): (readonly [string, Kind])[] =>
  kinds.flatMap((kind) => PROVIDERS.map((provider) => [provider, kind] as const));

describe('a provider that answers badly', () => {
  it.concurrent.each(withKinds(KINDS))(
    'reads of %s come through or say why not: %s',
    { timeout: 120_000 },
    (provider, kind) =>
      inLane(provider, async (lane) => {
        for (const read of readsOf(provider)) {
          const { action, entity } = read;
          const label = `${action} on ${entity}, ${kind}`;
          const input = await exampleOf(lane, read);
          const truth = await ending(lane.harness, { entity, action, input });
          lane.random = dice(label);
          spoil(lane, kind, RATE);
          // Tokens are asked for again, in the same bad weather.
          lane.fleet.atlas.revokeTokens();
          const begin = lane.fleet.provider.journal.length;
          const end = await ending(lane.harness, { entity, action, input });
          recover(lane);
          expect(lane.fleet.provider.journal.slice(begin).filter(({ writes }) => writes)).toEqual([]);
          if (READ_CODES.includes(codeOf(end))) continue;
          expect(stable(end), label).toBe(stable(truth));
        }
      }),
  );

  it.concurrent.each(withKinds(KINDS))(
    'nothing is sent to %s twice and the truth is told: %s',
    { timeout: 240_000 },
    (provider, kind) =>
      inLane(provider, async (lane) => {
        const all = mutating(provider);
        for (const one of kind === 'mixed' ? all : share(all, kind, 3)) {
          const label = `${one.name}, ${kind}`;
          const made = await make(lane, one, () => {
            lane.random = dice(label);
            spoil(lane, kind, RATE);
          });
          expectTruth(made, one, label);
          await rest(lane, one, made);
        }
      }),
  );

  it.concurrent.each(withKinds(FAULT_KINDS))(
    'a write to %s whose own answer fails is done or left, and looked up: %s',
    { timeout: 120_000 },
    (provider, kind) =>
      inLane(provider, async (lane) => {
        const all = writing(provider);
        for (const one of UNDONE.includes(kind) ? share(all, kind, 2) : all) {
          const label = `${one.name}, its write fails by ${kind}`;
          const made = await make(lane, one, () => spoilWrite(lane, kind), alone(one));
          expectTruth(made, one, label);
          const [first, ...others] = made.writes;
          expect(first?.fault, label).toBe(kind);
          // What rests on it does not come without it.
          if (UNDONE.includes(kind)) expect(others, label).toEqual([]);
          expect(codeOf(made.end) === 'ok', `${label}: ${JSON.stringify(made.record?.error)}`).toBe(
            !UNDONE.includes(kind),
          );
          await rest(lane, one, made);
        }
      }),
  );

  it.concurrent.each(withKinds(['given', 'lost']))(
    'where %s falls silent once it was asked the outcome is unknown; the answer to the write was %s',
    { timeout: 120_000 },
    (provider, answer) =>
      inLane(provider, async (lane) => {
        for (const one of writing(provider)) {
          const label = `${one.name}, silent after the write, its answer ${answer}`;
          let wrote = false;
          const disturb = (): void => {
            lane.trap = ({ writes }, phase) => {
              if (wrote) return 'drop';
              wrote = writes && phase === 'handled';
              return wrote && answer === 'lost' ? 'drop' : 'go on';
            };
          };
          const made = await make(lane, one, disturb, alone(one));
          expectTruth(made, one, label);
          expect(made.effect, label).toBe(1);
          // What is over with its own answer, and is not asked about, needs no second look.
          if (answer === 'lost' || made.unanswered > 0)
            expect((made.end as HoldfastError).details, label).toMatchObject({ outcome: 'unknown' });
          else expect([codeOf(made.end), one.effect], label).not.toEqual(['ok', 'restore']);
          await calm(lane, one);
        }
      }),
  );

  it.concurrent.each(PROVIDERS)(
    'a write that %s carries out and then answers with 500 is looked up',
    { timeout: 120_000 },
    (provider) =>
      inLane(provider, async (lane) => {
        for (const one of writing(provider)) {
          const disturb = (): void => {
            lane.trap = ({ writes }, phase) => (writes && phase === 'handled' ? 'fail' : 'go on');
          };
          const made = await make(lane, one, disturb, alone(one));
          expectTruth(made, one, one.name);
          expect([codeOf(made.end), made.effect], one.name).toEqual(['ok', 1]);
        }
      }),
  );
});
