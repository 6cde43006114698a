import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { OperationRecord, StateStore } from '../../src/core/state.ts';
import type { ConfirmationDetails } from '../../src/engine/api.ts';
import { mongodbAtlasSimulator } from '../../src/simulators/mongodb-atlas.ts';
import { type RequestPhase, type RequestVerdict, startSimulators } from '../../src/simulators/server.ts';
import type { JournalEntry } from '../../src/simulators/simulator.ts';
import { openSqliteStore } from '../../src/state/sqlite.ts';
import { type BundledProgram, bundleProgram } from '../support/bundled.ts';
import { type GuardedFleet, modules, registry, startGuardedFleet } from '../support/guarded-fleet.ts';
import { ANA, BOSS, type Harness, startHarness } from '../support/harness.ts';
import { type JournalMark, journalMark, journalSince } from '../support/journal.ts';
import type { VictimOrders, VictimWord } from '../support/kill-victim.ts';
import { connectClient, type TestClient } from '../support/mcp-clients.ts';
import { dice, entitiesOf, type MutatingCall, mutatingCalls, tally } from '../support/mutating-calls.ts';
import { databases, describePostgres, sql, values } from '../support/postgres.ts';

// Real processes die at every step of every operation. The providers live here, so that they are killed exactly when a
// request arrives or was handled, and so that what was sent can be counted afterwards.

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const SETTLE_MS = 20_000;
/** For a case and those of its provider that it waits for. */
const TIMEOUT_MS = 300_000;

// Most of the time is spent on waiting for processes, and a provider's cases wait for each other: one of each at a time.
vi.setConfig({ maxConcurrency: 10 });

type Trap = (entry: JournalEntry, phase: RequestPhase) => Promise<RequestVerdict> | RequestVerdict;

let fleet: GuardedFleet;
let program: BundledProgram;
const traps = new Map<string, Trap>();

/** Runs the cases of one provider one after another, whatever order they are started in. */
const lanes = new Map<string, Promise<unknown>>();
function inLane(lane: string, work: () => Promise<void>): Promise<void> {
  const turn = (lanes.get(lane) ?? Promise.resolve()).then(work);
  lanes.set(
    lane,
    turn.catch(() => undefined),
  );
  return turn;
}

interface Victim {
  readonly child: ChildProcess;
  readonly words: VictimWord[];
  /** The exit status or the signal that ended it. */
  readonly ended: Promise<string>;
  kill(signal?: 'SIGKILL' | 'SIGTERM'): void;
}

function startVictim(orders: VictimOrders, onWord: (word: VictimWord) => void = () => {}): Victim {
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', program.path, JSON.stringify(orders)],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { PATH: process.env['PATH'] ?? '', NODE_COMPILE_CACHE: program.cache },
    },
  );
  const words: VictimWord[] = [];
  createInterface({ input: child.stdout! }).on('line', (line) => {
    const word = JSON.parse(line) as VictimWord;
    words.push(word);
    onWord(word);
  });
  const ended = new Promise<string>((resolve) => {
    child.once('close', (code, signal) => resolve(signal ?? String(code)));
  });
  return { child, words, ended, kill: (signal = 'SIGKILL') => child.kill(signal) };
}

interface Site {
  readonly directory: string;
  readonly orders: VictimOrders;
  readonly input: JsonObject;
  /** What the process that dies writes, seen from here. */
  readonly store: StateStore;
  open(now?: () => Date): Promise<Harness>;
  close(): Promise<void>;
}

/** Makes a call ready in a state directory of its own: planned, and approved where that is needed. */
async function prepare(one: MutatingCall): Promise<Site> {
  const directory = mkdtempSync(join(tmpdir(), 'hf-kill-'));
  const shared = { entities: fleet.entities, secrets: fleet.secrets, stateDirectory: directory };
  const open = (now?: () => Date) => startHarness({ ...shared, modules, ...(now === undefined ? {} : { now }) });
  const harness = await open();
  const { engine } = harness;
  const input = await one.prepare(engine);
  let token: string | undefined;
  if (one.guarded) {
    const refusal = (await engine
      .call({ principal: ANA, entity: one.entity, action: one.action, input })
      .catch((cause) => cause)) as HoldfastError;
    const { confirmation, plan } = refusal.details as unknown as ConfirmationDetails;
    token = confirmation.token;
    await engine.approve({ confirmation: confirmation.id, by: BOSS, via: 'terminal', typedTarget: plan.target });
  }
  await harness.close();
  const store = await openSqliteStore(join(directory, 'state.db'));
  return {
    directory,
    input,
    store,
    orders: { fleet: shared, provider: one.provider, entity: one.entity, action: one.action, input, token },
    open,
    close: async () => {
      await store.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** The operation that the call began; the preparation's own are over. */
async function operationOf(site: Site, one: MutatingCall): Promise<OperationRecord | undefined> {
  const all = await site.store.operations({ entity: one.entity, limit: 10 });
  return all.find(({ principal }) => principal === ANA.id);
}

async function runningStep(site: Site, one: MutatingCall): Promise<string | undefined> {
  return (await operationOf(site, one))?.steps.find(({ status }) => status === 'running')?.name;
}

/** Takes over what was left, as the next process does at its start, and waits until nothing is unfinished. */
async function settle(harness: Harness): Promise<void> {
  await harness.engine.resume();
  const deadline = performance.now() + SETTLE_MS;
  for (;;) {
    const open = await harness.store.operations({ statuses: ['pending', 'running'] });
    if (open.length === 0) return;
    expect(performance.now(), `still unfinished: ${JSON.stringify(open)}`).toBeLessThan(deadline);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

interface Listed {
  id: string;
  status: string;
  restorable: boolean;
  kind: string;
}

async function list(harness: Harness, entity: string): Promise<Listed[]> {
  const { defines } = harness.engine.entity(entity);
  // A provider whose backups are one continuous line has no list of them.
  if (!registry.actions.some(({ name, on }) => name === 'list-snapshots' && on.includes(defines))) return [];
  const outcome = await harness.engine.call({ principal: BOSS, entity, action: 'list-snapshots', input: {} });
  return outcome.kind === 'result' ? (outcome.output as { snapshots: Listed[] }).snapshots : [];
}

/** Says of one operation what must be true of it whatever was done to its process. */
function expectAccountedFor(record: OperationRecord, label: string): void {
  expect(['succeeded', 'failed', 'cancelled', 'unknown'], label).toContain(record.status);
  expect(record.ended_at, label).toBeDefined();
  if (record.status === 'succeeded') return;
  expect(String(record.error?.['message'] ?? ''), label).toMatch(/\w+ \w+ \w+/);
  expect(String(record.error?.['hint'] ?? ''), label).toMatch(/\w+ \w+ \w+/);
}

/** Tries the spent token again in the new process: it must be refused, and nothing must be sent. */
async function expectSpent(harness: Harness, site: Site, one: MutatingCall, label: string): Promise<void> {
  if (site.orders.token === undefined) return;
  const writes = () => fleet.provider.writes().filter(({ provider }) => provider === one.provider).length;
  const sent = writes();
  const again = harness.engine.call({
    principal: ANA,
    entity: one.entity,
    action: one.action,
    input: site.input,
    token: site.orders.token,
  });
  const refusal = (await again.then(
    () => ({ code: 'it ran' }),
    (cause) => cause,
  )) as { code: string };
  expect(refusal.code, label).toMatch(/CONFIRMATION_USED|PLAN_CHANGED|NOT_FOUND|INVALID_STATE|RESOURCE_EXISTS/);
  expect(writes(), label).toBe(sent);
}

/** Counts what reached the provider's logic, by kind of write. */
function handledWrites(journal: readonly JournalEntry[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { writes, status, method, path, operation } of journal) {
    if (!writes || status === null) continue;
    const kind = `${method} ${operation ?? path}`;
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}

/** Nothing that changes something reached the provider's logic twice since a place in the journal. */
function expectOneOfEach(one: MutatingCall, begin: JournalMark, label = one.name): void {
  const journal = journalSince(fleet.provider, begin).filter(({ provider }) => provider === one.provider);
  for (const [kind, times] of Object.entries(handledWrites(journal))) expect(times, `${label}: ${kind}`).toBe(1);
}

interface Point {
  readonly step: string;
  readonly at: 'begins' | 'write arrives' | 'write was handled';
}

/** A call that is run once undisturbed: where it can be killed. */
async function findPoints(one: MutatingCall): Promise<Point[]> {
  const site = await prepare(one);
  const points: Point[] = [];
  const add = (point: Point): void => {
    if (!points.some(({ step, at }) => step === point.step && at === point.at)) points.push(point);
  };
  traps.set(one.provider, async (entry, phase): Promise<RequestVerdict> => {
    const step = one.isOperation ? await runningStep(site, one) : 'run';
    if (step === undefined || phase === 'handled') return 'go on';
    if (one.isOperation) add({ step, at: 'begins' });
    if (!entry.writes) return 'go on';
    add({ step, at: 'write arrives' });
    add({ step, at: 'write was handled' });
    return 'go on';
  });
  try {
    const victim = startVictim(site.orders);
    expect(await victim.ended, one.name).toBe('0');
    expect(victim.words.at(-1), one.name).toEqual({ say: 'over', status: 'ok' });
    const record = await operationOf(site, one);
    const steps = record?.steps.map(({ name }) => name) ?? ['run'];
    expect([...new Set(points.map(({ step }) => step))], one.name).toEqual(steps);
  } finally {
    traps.delete(one.provider);
    await site.close();
  }
  return points;
}

async function killAt(one: MutatingCall, point: Point): Promise<void> {
  const label = `${one.name}, killed when ${point.step}: ${point.at}`;
  const site = await prepare(one);
  const begin = journalMark(fleet.provider);
  const before = tally(fleet, one.entity);
  let victim: Victim | undefined;
  traps.set(one.provider, async (entry, phase) => {
    if (victim?.child.killed === true) return phase === 'arrived' ? 'drop' : 'go on';
    const wanted =
      point.at === 'begins'
        ? phase === 'arrived'
        : entry.writes && phase === (point.at === 'write arrives' ? 'arrived' : 'handled');
    if (!wanted || (one.isOperation && (await runningStep(site, one)) !== point.step)) return 'go on';
    victim?.kill();
    await victim?.ended;
    return 'drop';
  });
  let harness: Harness | undefined;
  try {
    victim = startVictim(site.orders);
    expect(await victim.ended, label).toBe('SIGKILL');
    traps.delete(one.provider);

    harness = await site.open();
    for (const { restorable, status } of await list(harness, one.entity))
      expect(restorable ? status : 'available', label).toBe('available');
    await settle(harness);

    expectOneOfEach(one, begin, label);
    const after = tally(fleet, one.entity);
    const made = { snapshots: after.snapshots - before.snapshots, restores: after.restores - before.restores };
    const own = {
      snapshot: made.snapshots,
      restore: made.restores,
      delete: before.snapshots - after.snapshots,
      settings: after.settings - before.settings,
      none: 0,
    }[one.effect];
    const record = await operationOf(site, one);
    if (record !== undefined) {
      expectAccountedFor(record, label);
      // What needs no confirmation is finished by the next process. What needs one is followed if it had been sent.
      const last = record.steps.findLastIndex(({ kind }) => kind === 'mutate');
      const killed = record.steps.findIndex(({ name }) => name === point.step);
      const wasSent = killed > last || (killed === last && point.at === 'write was handled');
      // A setting that is not as declared may have been asked for, and be on its way: not every provider can tell.
      const tells = registry.actions.some((own) => own.provider.id === one.provider && own.provider.settings?.mark);
      const isOpen = one.effect === 'settings' && point.at === 'write arrives' && !tells;
      expect(record.status, `${label}: ${JSON.stringify(record.error)}`).toBe(
        isOpen ? 'unknown' : !one.guarded || wasSent ? 'succeeded' : 'failed',
      );
      expect(own, label).toBe(record.status === 'succeeded' ? 1 : 0);
      if (record.status === 'failed' && made.snapshots === 1)
        expect(JSON.stringify(record.undo), label).toMatch(/snapshot|backup/);
    } else {
      expect(own, label).toBe(point.at === 'write was handled' ? 1 : 0);
    }
    await expectSpent(harness, site, one, label);
    expect(await harness.engine.verifyAudit(), label).toMatchObject({ ok: true });
  } finally {
    traps.delete(one.provider);
    victim?.kill();
    await harness?.close();
    await site.close();
  }
}

// --- PostgreSQL ------------------------------------------------------------------------------------------------------

/** Kills at random moments, of what writes most. */
const RANDOM_KILLS: Record<string, number> = { 'create-snapshot': 5, 'restore in place': 5 };
const CONTENT = "SELECT count(*) || ' ' || md5(string_agg(id || v, ',' ORDER BY id)) FROM t";

const live = (database = 'shop'): Promise<string> =>
  values(fleet.postgres.connection, database, CONTENT).then(([one = '']) => one);

interface Shop {
  /** What the backup holds, and what the live database holds since. */
  readonly old: string;
  readonly now: string;
  readonly snapshot: string;
}

/** Gives the live database new content, after a backup of the old one. */
async function prepareShop(one: MutatingCall): Promise<Shop> {
  const { connection } = fleet.postgres;
  await sql(connection, 'shop', "UPDATE t SET v = 'old ' || id");
  const old = await live();
  const harness = await startHarness({ modules, entities: fleet.entities, secrets: fleet.secrets });
  const taken = await harness.engine.call({
    principal: BOSS,
    entity: one.entity,
    action: 'create-snapshot',
    input: {},
    wait: 'end',
  });
  await harness.close();
  await sql(connection, 'shop', "UPDATE t SET v = 'new ' || id");
  const snapshot = taken.kind === 'operation' ? String(taken.operation.result?.['id']) : '';
  return { old, now: await live(), snapshot };
}

const preparePostgres = (one: MutatingCall, { snapshot }: Shop): Promise<Site> =>
  prepare({
    ...one,
    prepare: async (engine) => {
      const input = await one.prepare(engine);
      return 'snapshot_id' in input ? { ...input, snapshot_id: snapshot } : input;
    },
  });

/** Drops what a finished restore rightly left. */
async function tidy(): Promise<void> {
  const { connection } = fleet.postgres;
  for (const name of await databases(connection))
    if (name !== 'shop') await sql(connection, 'postgres', `DROP DATABASE "${name}" WITH (FORCE)`);
}

/** A call that is run once undisturbed: after which savings of its record it is to be killed, and how long it takes. */
async function measure(one: MutatingCall, shop: Shop): Promise<{ saves: number[]; took: number }> {
  const site = await preparePostgres(one, shop);
  let began = 0;
  try {
    const victim = startVictim(site.orders, ({ say }) => {
      if (say === 'saved' && began === 0) began = performance.now();
    });
    expect(await victim.ended, one.name).toBe('0');
    expect(victim.words.at(-1), one.name).toEqual({ say: 'over', status: 'ok' });
    const saved = victim.words.filter((word) => word.say === 'saved');
    const steps = (await operationOf(site, one))?.steps.map(({ name }) => name);
    expect(
      [...new Set(saved.map(({ step }) => step))].filter((step) => step !== ''),
      one.name,
    ).toEqual(steps);
    // As each step begins, and after the last word.
    const wanted = saved.filter(({ step }, index) => step !== saved[index - 1]?.step);
    return { saves: wanted.map(({ count }) => count), took: performance.now() - began };
  } finally {
    await tidy();
    await sql(fleet.postgres.connection, 'shop', "UPDATE t SET v = 'new ' || id");
    await site.close();
  }
}

async function killPostgres(
  one: MutatingCall,
  shop: Shop,
  moment: { save: number } | { after: number },
): Promise<void> {
  const label = `${one.name}, killed at ${JSON.stringify(moment)}`;
  const { old, now } = shop;
  const site = await preparePostgres(one, shop);
  const inPlace = one.guarded && one.effect === 'restore';
  let harness: Harness | undefined;
  let victim: Victim | undefined;
  try {
    let began = false;
    const orders = 'save' in moment ? { ...site.orders, haltAfterSave: moment.save } : site.orders;
    victim = startVictim(orders, (word) => {
      if (word.say === 'halted') victim?.kill();
      if (word.say !== 'saved' || began || !('after' in moment)) return;
      began = true;
      setTimeout(() => victim?.kill(), moment.after);
    });
    // One that was quicker than its random moment is over; it must be whole as well.
    expect(await victim.ended, label).toMatch('save' in moment ? /^SIGKILL$/ : /^(SIGKILL|0)$/);
    const left = await live();
    expect(inPlace ? [old, now] : [now], label).toContain(left);

    harness = await site.open();
    await settle(harness);
    const record = (await operationOf(site, one))!;
    expectAccountedFor(record, label);
    const result = record.result ?? {};
    const isOver = inPlace ? left === old : !one.guarded || record.status === 'succeeded';
    expect(record.status, `${label}: ${JSON.stringify(record.error)}`).toBe(isOver ? 'succeeded' : 'failed');
    expect(await live(), label).toBe(left);
    const kept = inPlace && record.status === 'succeeded' ? [String(result['kept_as'])] : [];
    const made = one.effect === 'restore' && !inPlace ? [String(site.input['target_database'])] : [];
    expect(await databases(fleet.postgres.connection), label).toEqual(['shop', ...kept, ...made].sort());
    for (const name of kept) expect(await live(name), label).toBe(now);
    for (const name of made) expect(await live(name), label).toBe(old);

    const all = await list(harness, one.entity);
    expect(
      all.filter(({ restorable }) => !restorable),
      label,
    ).toEqual([]);
    const own = all.filter(({ id }) => id !== shop.snapshot && JSON.stringify(record.steps).includes(id));
    for (const { id } of own) {
      const input = { snapshot_id: id, level: 'readable' };
      const call = { principal: BOSS, entity: one.entity, action: 'verify-snapshot', input, wait: 'end' } as const;
      expect(await harness.engine.call(call), label).toMatchObject({ operation: { status: 'succeeded' } });
    }
    if (one.effect === 'snapshot')
      expect(
        own.map(({ id }) => id),
        label,
      ).toEqual([result['id']]);
    await expectSpent(harness, site, one, label);
    expect(await harness.engine.verifyAudit(), label).toMatchObject({ ok: true });
  } finally {
    victim?.kill();
    await harness?.close();
    await tidy();
    await sql(fleet.postgres.connection, 'shop', "UPDATE t SET v = 'new ' || id");
    await site.close();
  }
}

// --- SIGTERM and company ---------------------------------------------------------------------------------------------

/** The names of the steps that a call would have, in order. */
async function stepsOf(one: MutatingCall): Promise<string[]> {
  const harness = await startHarness({ modules, entities: fleet.entities, secrets: fleet.secrets });
  const input = await one.prepare(harness.engine);
  const call = { principal: BOSS, entity: one.entity, action: one.action, input, dryRun: true };
  const dry = await harness.engine.call(call);
  await harness.close();
  if (dry.kind !== 'plan' || dry.action.kind !== 'provider') return [];
  const { action, plan } = dry;
  const safety = plan.safety_snapshot.state === 'taken' ? (action.safety?.steps(input, plan) ?? []) : [];
  return [...safety, ...action.steps!(input, plan)].map(({ name }) => name);
}

const isOver = ({ status }: OperationRecord): boolean => status !== 'pending' && status !== 'running';

/** Says what must be true of an operation when its process has ended by itself: it is over, or says that it is not. */
function expectLeftInOrder(record: OperationRecord, label: string): void {
  if (isOver(record)) {
    expectAccountedFor(record, label);
    return;
  }
  expect(Date.parse(record.owner?.lease_until ?? ''), label).toBeLessThanOrEqual(Date.now());
  expect(JSON.stringify(record.steps), label).toMatch(/Holdfast was stopped/);
}

async function terminateAt(
  one: MutatingCall,
  step: string,
  options: { hang?: boolean; shop?: Shop } = {},
): Promise<void> {
  const { hang = false, shop } = options;
  const label = `${one.name}, told to stop at ${step}${hang ? ' while its write hangs' : ''}`;
  const site = shop === undefined ? await prepare(one) : await preparePostgres(one, shop);
  const begin = journalMark(fleet.provider);
  let told = 0;
  let victim: Victim | undefined;
  let harness: Harness | undefined;
  const tell = (): void => {
    told ||= performance.now();
    victim?.kill('SIGTERM');
  };
  traps.set(one.provider, async (entry, phase): Promise<RequestVerdict> => {
    if ((await runningStep(site, one)) !== step || told > 0) return 'go on';
    if (!hang) tell();
    if (!hang || !entry.writes || phase !== 'handled') return 'go on';
    tell();
    await victim?.ended;
    return 'drop';
  });
  try {
    victim = startVictim(site.orders, (word) => {
      if (shop !== undefined && word.say === 'saved' && word.step === step && told === 0) tell();
    });
    expect(await victim.ended, label).toBe('0');
    traps.delete(one.provider);
    expect(told, label).toBeGreaterThan(0);
    expect(performance.now() - told, label).toBeLessThan(15_000);
    expectLeftInOrder((await operationOf(site, one))!, label);

    harness = await site.open();
    await settle(harness);
    const record = (await operationOf(site, one))!;
    expectAccountedFor(record, label);
    expect(record.status, `${label}: ${JSON.stringify(record.error)}`).toBe('succeeded');
    expectOneOfEach(one, begin, label);
    expect(await harness.engine.verifyAudit(), label).toMatchObject({ ok: true });
  } finally {
    traps.delete(one.provider);
    victim?.kill();
    await harness?.close();
    if (shop !== undefined) await tidy();
    await site.close();
  }
}

async function killEverywhere(one: MutatingCall): Promise<void> {
  for (const point of await findPoints(one)) await killAt(one, point);
}

async function killShop(one: MutatingCall): Promise<void> {
  const shop = await prepareShop(one);
  const { saves, took } = await measure(one, shop);
  for (const save of saves) await killPostgres(one, shop, { save });
  const random = dice(one.name);
  const times = RANDOM_KILLS[one.guarded ? `${one.action} in place` : one.action] ?? 0;
  for (let turn = 0; turn < times; turn += 1) await killPostgres(one, shop, { after: Math.round(random() * took) });
}

const calls = mutatingCalls(() => fleet);
const simulated = calls.filter(({ provider }) => provider !== 'postgresql');

/** One operation that needs no confirmation of each simulated provider. */
const firstOfEach = [...Map.groupBy(simulated, ({ provider }) => provider).values()].flatMap((all) =>
  all
    .filter(({ isOperation, guarded, effect }) => isOperation && !guarded && effect === 'snapshot')
    // A schedule is made in one step: another process has nothing to follow.
    .filter(({ action }) => action !== 'create-backup-schedule')
    .slice(0, 1)
    .map((one) => [one.name, one] as const),
);

/** Takes one of each provider in turn, so that all lanes are busy. */
function interleaved(all: readonly MutatingCall[]): MutatingCall[] {
  const byLane = Map.groupBy(all, ({ provider }) => provider);
  const longest = Math.max(...[...byLane.values()].map(({ length }) => length));
  return Array.from({ length: longest }, (_, index) =>
    [...byLane.values()].flatMap((lane) => lane[index] ?? []),
  ).flat();
}

it('has a case for every operation of every entity type', () => {
  const wanted = registry.actions
    .filter((action) => action.steps !== undefined)
    .flatMap((action) => entitiesOf(action.on).map((entity) => `${action.provider.id}/${action.name} on ${entity}`));
  const covered = new Set(calls.map(({ provider, action, entity }) => `${provider}/${action} on ${entity}`));
  expect(wanted.filter((name) => !covered.has(name))).toEqual([]);
});

describePostgres('what is left of operations', () => {
  beforeAll(async () => {
    program = await bundleProgram(new URL('../support/kill-victim.ts', import.meta.url));
    fleet = await startGuardedFleet({
      onRequest: (entry, phase) => traps.get(entry.provider)?.(entry, phase) ?? 'go on',
    });
  }, 60_000);
  afterAll(async () => {
    await fleet?.close();
    await program?.remove();
  });

  it.concurrent.each(
    interleaved(calls.filter(({ provider, isOperation }) => provider !== 'postgresql' || isOperation)).map(
      (one) => [one.name, one] as const,
    ),
  )('after SIGKILL nothing is done twice, left half-way or unaccounted for: %s', { timeout: TIMEOUT_MS }, (_, one) =>
    inLane(one.provider, () => (one.provider === 'postgresql' ? killShop(one) : killEverywhere(one))),
  );

  it.concurrent.each(
    interleaved(calls.filter(({ isOperation }) => isOperation)).map((one) => [one.name, one] as const),
  )('after SIGTERM it is finished or left in order, and says which: %s', { timeout: TIMEOUT_MS }, (_, one) =>
    inLane(one.provider, async () => {
      const shop = one.provider === 'postgresql' ? { shop: await prepareShop(one) } : {};
      for (const step of await stepsOf(one)) await terminateAt(one, step, shop);
    }),
  );

  it.concurrent.each(firstOfEach)(
    'a write that hangs holds SIGTERM up no longer than 15 s: %s',
    { timeout: TIMEOUT_MS },
    (_, one) => inLane(one.provider, async () => terminateAt(one, (await stepsOf(one))[0]!, { hang: true })),
  );

  it.concurrent.each(firstOfEach)(
    'of several processes one runs an operation, and one takes it over: %s',
    { timeout: TIMEOUT_MS },
    (_, one) =>
      inLane(one.provider, async () => {
        const site = await prepare(one);
        const begin = journalMark(fleet.provider);
        const [, second] = await stepsOf(one);
        const held = Promise.withResolvers<void>();
        let victim: Victim | undefined;
        traps.set(one.provider, async (): Promise<RequestVerdict> => {
          if (victim === undefined || (await runningStep(site, one)) !== second) return 'go on';
          held.resolve();
          await victim.ended;
          return 'drop';
        });
        victim = startVictim(site.orders);
        await held.promise;
        const [other, third] = [await site.open(), await site.open()];
        try {
          expect(await other.engine.resume()).toEqual([]);
          const { id } = (await operationOf(site, one))!;
          const looking = {
            principal: BOSS,
            action: 'wait-operation',
            input: { operation_id: id, timeout_seconds: 1 },
          };
          expect(await other.engine.call(looking)).toMatchObject({ output: { status: 'running' } });
          victim.kill();
          await victim.ended;
          traps.delete(one.provider);
          const taken = await Promise.all([other.engine.resume(), third.engine.resume()]);
          expect(taken.flat().map(({ operation_id }) => operation_id)).toEqual([id]);
          await settle(other);
          expect((await operationOf(site, one))?.status).toBe('succeeded');
          expectOneOfEach(one, begin);
          expect(await other.engine.verifyAudit()).toMatchObject({ ok: true });
        } finally {
          traps.delete(one.provider);
          victim.kill();
          await other.close();
          await third.close();
          await site.close();
        }
      }),
  );

  it.concurrent.each(firstOfEach)(
    'a process that was away for longer than its lease sends nothing any more: %s',
    { timeout: TIMEOUT_MS },
    (_, one) =>
      inLane(one.provider, async () => {
        const site = await prepare(one);
        const begin = journalMark(fleet.provider);
        const held = Promise.withResolvers<void>();
        const released = Promise.withResolvers<void>();
        let isHeld = false;
        let victim: Victim | undefined;
        traps.set(one.provider, async ({ writes }): Promise<RequestVerdict> => {
          if (victim === undefined || isHeld || (await runningStep(site, one)) === undefined) return 'go on';
          isHeld = true;
          held.resolve();
          await released.promise;
          // A write that was under way for that long does not arrive any more.
          return writes ? 'drop' : 'go on';
        });
        victim = startVictim(site.orders);
        await held.promise;
        const later = await site.open(() => new Date(Date.now() + 40_000));
        try {
          expect(await later.engine.resume()).toHaveLength(1);
          await settle(later);
          released.resolve();
          await victim.ended;
          expect(victim.words.at(-1)).toMatchObject({
            say: 'over',
            status: expect.stringContaining('STATE_UNAVAILABLE'),
          });
          expect((await operationOf(site, one))?.status).toBe('succeeded');
          expectOneOfEach(one, begin);
        } finally {
          traps.delete(one.provider);
          released.resolve();
          victim.kill();
          await later.close();
          await site.close();
        }
      }),
  );

  it.concurrent.each(firstOfEach)(
    'a state store that fails after the write leaves the operation to be looked up: %s',
    { timeout: TIMEOUT_MS },
    (_, one) =>
      inLane(one.provider, async () => {
        const site = await prepare(one);
        const begin = journalMark(fleet.provider);
        const harness = await site.open();
        const save = harness.store.saveOperation.bind(harness.store);
        let hasFailed = false;
        harness.store.saveOperation = async (record) => {
          const wrote = journalSince(fleet.provider, begin).some(
            ({ provider, writes, status }) => provider === one.provider && writes && status !== null,
          );
          if (!wrote || hasFailed) return save(record);
          hasFailed = true;
          throw new HoldfastError('STATE_UNAVAILABLE', 'the disk is full');
        };
        const call = {
          principal: ANA,
          entity: one.entity,
          action: one.action,
          input: site.input,
          wait: 'end',
        } as const;
        await expect(harness.engine.call(call)).rejects.toMatchObject({
          code: 'STATE_UNAVAILABLE',
          hint: expect.stringContaining('may have been carried out'),
          details: { outcome: 'unknown' },
        });
        const later = await site.open(() => new Date(Date.now() + 40_000));
        try {
          expect(await later.engine.resume()).toHaveLength(1);
          await settle(later);
          expect((await operationOf(site, one))?.status).toBe('succeeded');
          expectOneOfEach(one, begin);
        } finally {
          await later.close();
          await harness.close();
          await site.close();
        }
      }),
  );

  it.concurrent('steps that another version began with are not guessed at', { timeout: TIMEOUT_MS }, () => {
    const [, one] = firstOfEach[0]!;
    return inLane(one.provider, async () => {
      const site = await prepare(one);
      let victim: Victim | undefined;
      let harness: Harness | undefined;
      try {
        victim = startVictim({ ...site.orders, haltAfterSave: 1 }, ({ say }) => {
          if (say === 'halted') victim?.kill();
        });
        expect(await victim.ended).toBe('SIGKILL');
        const record = (await operationOf(site, one))!;
        record.steps.push({ ...record.steps[0]!, name: 'of-another-version', status: 'pending' });
        await site.store.saveOperation(record);
        const begin = journalMark(fleet.provider);
        harness = await site.open();
        await settle(harness);
        const ended = (await operationOf(site, one))!;
        expectAccountedFor(ended, one.name);
        expect(ended.status).toBe('unknown');
        expect(journalSince(fleet.provider, begin).filter(({ provider }) => provider === one.provider)).toEqual([]);
      } finally {
        victim?.kill();
        await harness?.close();
        await site.close();
      }
    });
  });

  it.concurrent.each(['SIGTERM', 'SIGKILL'] as const)(
    'the program itself goes on with what it left when it got %s',
    { timeout: TIMEOUT_MS },
    async (signal) => {
      const directory = mkdtempSync(join(tmpdir(), 'hf-kill-'));
      const simulators = await startSimulators({ simulators: (clock) => [mongodbAtlasSimulator({ clock })] });
      const parameters = registry.entityTypes.get('mongodb-atlas/cluster')?.type.sandbox?.parameters ?? {};
      const lines = Object.entries({ ...parameters, endpoint: simulators.origin }).map(
        ([key, value]) => `  ${key}: ${JSON.stringify(value)}`,
      );
      const config = join(directory, 'holdfast.yaml');
      writeFileSync(config, ['namespace: app', 'db:', '  defines: mongodb-atlas/cluster', ...lines, ''].join('\n'));
      const serve = async (): Promise<{ child: ChildProcess; client: TestClient }> => {
        const args = ['serve', '--http', '--port', '0', '--config', config, '--state-dir', join(directory, 'state')];
        const child = spawn(process.execPath, [MAIN, ...args], {
          stdio: ['ignore', 'ignore', 'pipe'],
          env: { PATH: process.env['PATH'] ?? '', MONGODB_ATLAS_CLIENT_SECRET: 'secret-of-the-program' },
        });
        const url = await new Promise<string>((resolve, reject) => {
          child.once('exit', (code) => reject(new Error(`the program ended with ${code}`)));
          createInterface({ input: child.stderr! }).on('line', (line) => {
            const found = /serves MCP on (\S+)/.exec(line)?.[1];
            if (found !== undefined) resolve(found);
          });
        });
        return { child, client: await connectClient('sdk 2 on 2026-07-28', { url }) };
      };
      const first = await serve();
      try {
        const begun = await first.client.call('mongodb_atlas_create_snapshot', { entity: 'app/db' });
        const { operation_id } = begun.structured;
        expect(begun.structured, begun.text).toMatchObject({ status: 'running' });
        const told = performance.now();
        first.child.kill(signal);
        const [code] = (await once(first.child, 'exit')) as [number | null];
        expect(code).toBe(signal === 'SIGTERM' ? 0 : null);
        expect(performance.now() - told).toBeLessThan(15_000);

        const second = await serve();
        try {
          const ended = await second.client.call('backup_wait_operation', { operation_id, timeout_seconds: 30 });
          expect(ended.structured, ended.text).toMatchObject({ status: 'succeeded' });
          expect(simulators.writes()).toHaveLength(1);
        } finally {
          await second.client.close();
          second.child.kill('SIGKILL');
        }
      } finally {
        await first.client.close().catch(() => undefined);
        first.child.kill('SIGKILL');
        await simulators.close();
        rmSync(directory, { recursive: true, force: true });
      }
    },
  );
});
