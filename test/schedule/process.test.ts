import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { SchedulerOrders } from './process-victim.ts';
import { Clock, newBox, type Running, schedule, startScheduled } from './support.ts';

const SCRIPT = fileURLToPath(new URL('./process-victim.ts', import.meta.url));
const BEFORE = '2026-11-21T01:59:00Z';
const DUE = '2026-11-21T02:00:00Z';

let stateDirectory: string;
const alive: (ChildProcessWithoutNullStreams | Running)[] = [];
beforeEach(async () => {
  stateDirectory = await mkdtemp(join(tmpdir(), 'holdfast-schedule-'));
});
afterEach(async () => {
  for (const each of alive.splice(0)) {
    if ('kill' in each) each.kill('SIGKILL');
    else await each.close().catch(() => undefined);
  }
  await rm(stateDirectory, { recursive: true, force: true });
});

/** A process with a scheduler over the shared state; `line` waits for what it says. */
function begin(orders: Partial<SchedulerOrders> = {}) {
  const all = { stateDirectory, now: BEFORE, due: DUE, ...orders };
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', SCRIPT, JSON.stringify(all)]);
  alive.push(child);
  const ended = once(child, 'close');
  const lines: string[] = [];
  const waiting = new Set<() => void>();
  createInterface({ input: child.stdout }).on('line', (line) => {
    lines.push(line);
    for (const look of waiting) look();
  });
  let faults = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    faults += text;
  });
  const line = (beginning: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        const found = lines.find((each) => each.startsWith(beginning));
        if (found === undefined) return;
        waiting.delete(look);
        resolve(found);
      };
      waiting.add(look);
      look();
      void ended.then(() => reject(new Error(`it ended without '${beginning}': ${faults}`)));
    });
  return {
    line,
    go: () => child.stdin.write('go\n'),
    kill: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

async function next(at: string) {
  const box = newBox();
  const clock = new Clock(at);
  const running = await startScheduled(box, clock, [schedule()], { stateDirectory });
  alive.push(running);
  const record = async () => (await running.scheduler.states())[0]?.record;
  return { box, clock, record, ...running };
}

describe('processes over one state', () => {
  it('run what is due once between them', async () => {
    const all = [begin(), begin(), begin()];
    await Promise.all(all.map(({ line }) => line('ready')));
    for (const { go } of all) go();
    const wrote = await Promise.all(all.map(({ line }) => line('wrote')));
    expect(wrote.toSorted()).toEqual(['wrote 0', 'wrote 0', 'wrote 1']);
  });

  it('see the run of a killed process as one without an end, go on with its operation, and say how it ended', async () => {
    const victim = begin({ stays: true });
    await victim.line('ready');
    victim.go();
    await victim.line('inside');
    await victim.kill();

    const { box, record, scheduler, engine, store } = await next('2026-11-21T02:00:10Z');
    expect((await scheduler.states())[0]).toMatchObject({ orphaned: true });
    // What its operation is at is the engine's to find out: it had not begun to write, so it goes on.
    const [operation] = await engine.resume();
    expect(operation?.action).toBe('create-snapshot');
    await engine.call({
      principal: { id: 'cli:ana', person: 'ana', roles: ['operator'] },
      action: 'wait-operation',
      input: { operation_id: operation?.operation_id as string },
    });
    await scheduler.look();
    await scheduler.idle();
    expect(await record()).toMatchObject({
      last: {
        state: 'succeeded',
        due_at: '2026-11-21T02:00:00.000Z',
        operation_id: operation?.operation_id as string,
      },
    });
    expect((await record())?.running).toBeUndefined();
    expect(box.scheduled).toEqual([true]);
    expect(box.writes).toEqual(['create']);
    expect(await store.operations()).toHaveLength(1);
  });

  it('say of a run that died before its operation that it was interrupted, and go on at the next due time', async () => {
    const { box, record, scheduler, store, clock } = await next('2026-11-21T02:05:00Z');
    await scheduler.look();
    const before = await record();
    const running = {
      due_at: '2026-11-21T02:00:00.000Z',
      began_at: '2026-11-21T02:00:00.000Z',
      owner: { id: 'gone', host: 'elsewhere', pid: 1, lease_until: '2026-11-21T02:01:00.000Z' },
    };
    await store.saveSchedule({ ...before!, running }, before!.version);
    await scheduler.look();
    expect(await record()).toMatchObject({ last: { state: 'interrupted' }, consecutive_failures: 1 });
    expect(box.writes).toEqual([]);
    clock.set('2026-11-22T02:00:00Z');
    await scheduler.look();
    await scheduler.idle();
    expect(await record()).toMatchObject({ last: { state: 'succeeded' }, consecutive_failures: 0 });
  });

  it('leave to the next what they wait for when they are stopped, and it ends there', async () => {
    const first = await next(BEFORE);
    await first.scheduler.look();
    let isWaiting = (): void => {};
    const waiting = new Promise<void>((resolve) => {
      isWaiting = resolve;
    });
    first.box.following = (signal) => {
      isWaiting();
      return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
    };
    first.clock.set(DUE);
    await first.scheduler.look();
    await waiting;
    first.scheduler.stop();
    await first.engine.close();
    await first.scheduler.idle();

    const { box, record, scheduler, engine } = await next('2026-11-21T02:03:00Z');
    expect((await record())?.running).toMatchObject({ due_at: '2026-11-21T02:00:00.000Z' });
    const [operation] = await engine.resume();
    await engine.call({
      principal: { id: 'cli:ana', person: 'ana', roles: ['operator'] },
      action: 'wait-operation',
      input: { operation_id: operation?.operation_id as string },
    });
    await scheduler.look();
    expect(await record()).toMatchObject({ last: { state: 'succeeded', due_at: '2026-11-21T02:00:00.000Z' } });
    // It was written by the first, and once.
    expect([first.box.writes, box.writes]).toEqual([['create'], []]);
  });

  it('leave alone what a process of another machine is at, until its lease is over', async () => {
    const { box, record, scheduler, store, clock } = await next('2026-11-21T01:59:00Z');
    await scheduler.look();
    const before = await record();
    const running = {
      began_at: '2026-11-21T01:59:30.000Z',
      owner: { id: 'other', host: 'elsewhere', pid: process.pid, lease_until: '2026-11-21T02:02:00.000Z' },
    };
    await store.saveSchedule({ ...before!, running }, before!.version);
    clock.set('2026-11-21T02:01:00Z');
    await scheduler.look();
    expect(box.scheduled).toEqual([]);
    clock.set('2026-11-21T02:03:00Z');
    await scheduler.look();
    await scheduler.idle();
    expect(box.scheduled).toEqual([true]);
  });
});
