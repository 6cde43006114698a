import { afterEach, describe, expect, it } from 'vitest';
import type { Schedule } from '../../src/core/schedule.ts';
import { openScheduler } from '../../src/schedule/runner.ts';
import { ANA, startHarness } from '../support/harness.ts';
import { boxModule, Clock, KEY, newBox, type Running, schedule, startScheduled } from './support.ts';

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const running of open.splice(0)) await running.close();
});

async function begin(
  at: string,
  schedules: readonly Schedule[] = [schedule()],
  options: Parameters<typeof startScheduled>[3] = {},
) {
  const box = newBox();
  const clock = new Clock(at);
  const running = await startScheduled(box, clock, schedules, options);
  open.push(running);
  await running.scheduler.look();
  // The hours in which nothing is due pass at once.
  const forward = async (to: string): Promise<void> => {
    for (const end = Date.parse(to); clock.now().getTime() < end; ) {
      const now = clock.now().getTime();
      const night = new Date(now).setUTCHours(1, 59, 0, 0);
      const begin = Math.min(end, night < now ? night + 86_400_000 : night);
      if (now < begin || now > night + 120_000) clock.set(new Date(begin).toISOString());
      await clock.forwardTo(new Date(Math.min(end, begin + 120_000)).toISOString(), settle(running));
      await running.scheduler.look();
      await running.scheduler.idle();
    }
  };
  const state = async (index = 0) => (await running.scheduler.states())[index]!;
  return { box, clock, forward, state, ...running };
}

/** Lets what a timer began get to its end: one look, what it runs, and the look after that. */
function settle({ scheduler }: Running): () => Promise<void> {
  return async () => {
    await scheduler.look();
    await scheduler.idle();
    await scheduler.look();
  };
}

/** A run that stays inside of its write until it is let go. */
function gate() {
  let letGo = (): void => {};
  let entered = (): void => {};
  const inside = new Promise<void>((resolve) => {
    entered = resolve;
  });
  const closed = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  return {
    inside,
    letGo,
    during: async (signal: AbortSignal) => {
      entered();
      const aborted = new Promise<never>((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      });
      await Promise.race([closed, aborted]);
    },
  };
}

describe('a schedule', () => {
  it('is run when it is due, through the guard and the audit trail, as itself', async () => {
    const { box, forward, state, engine } = await begin('2026-11-21T01:59:00Z');
    await forward('2026-11-21T02:00:30Z');
    expect(box.writes).toEqual(['create']);
    expect(box.scheduled).toEqual([true]);
    expect(await state()).toMatchObject({
      record: {
        last: { state: 'succeeded', due_at: '2026-11-21T02:00:00.000Z', operation_id: expect.stringMatching(/^op_/) },
        last_success_at: '2026-11-21T02:00:00.000Z',
        consecutive_failures: 0,
      },
      next: new Date('2026-11-22T02:00:00Z'),
    });
    const mine = engine.recentAudit(20).filter((line) => line['principal'] === 'schedule:app/box/daily');
    expect(mine.map((line) => line['event'])).toEqual(['result', 'intent']);
  });

  it('is run once for each due time, day after day', async () => {
    const { box, forward } = await begin('2026-11-21T01:59:00Z');
    await forward('2026-11-24T12:00:00Z');
    expect(box.writes).toEqual(['create', 'create', 'create', 'create']);
  });

  it('runs nothing for the time before it was declared', async () => {
    const { box, forward } = await begin('2026-11-21T12:00:00Z');
    await forward('2026-11-21T13:00:00Z');
    expect(box.writes).toEqual([]);
  });

  it('runs nothing while it is not enabled, and nothing for that time after', async () => {
    const first = await begin('2026-11-21T01:00:00Z', [schedule({ enabled: false })]);
    await first.forward('2026-11-25T03:00:00Z');
    expect(first.box.writes).toEqual([]);
    expect((await first.state()).next).toBeUndefined();
    const { stateDirectory } = first;
    const then = await begin('2026-11-25T03:00:00Z', [schedule()], { stateDirectory });
    await then.forward('2026-11-25T04:00:00Z');
    expect(then.box.writes).toEqual([]);
    await then.forward('2026-11-26T02:01:00Z');
    expect(then.box.writes).toEqual(['create']);
  });

  it('does not take another expression for one that was due all along', async () => {
    const first = await begin('2026-11-21T01:59:00Z');
    await first.forward('2026-11-21T02:01:00Z');
    const later = schedule({ cron: '0 5 * * *' });
    const then = await begin('2026-11-21T09:00:00Z', [later], { stateDirectory: first.stateDirectory });
    await then.forward('2026-11-21T10:00:00Z');
    expect(then.box.writes).toEqual([]);
  });

  it('gives $newest the newest snapshot that can be restored, not one in the making', async () => {
    const verify = schedule({
      name: 'verify',
      action: 'verify-snapshot',
      input: { snapshot_id: '$newest', level: 'restored' },
    });
    const { box, forward } = await begin('2026-11-21T01:59:00Z', [verify]);
    await forward('2026-11-21T02:01:00Z');
    expect(box.writes).toEqual(['verify s1']);
  });

  it('fails with a word on it where there is no snapshot yet', async () => {
    const verify = schedule({ name: 'verify', action: 'verify-snapshot', input: { snapshot_id: '$newest' } });
    const { box, forward, state } = await begin('2026-11-21T01:59:00Z', [verify]);
    box.snapshots = [];
    await forward('2026-11-21T02:01:00Z');
    expect((await state()).record?.last).toMatchObject({ state: 'failed', code: 'BACKUP_NOT_FOUND' });
  });

  it('counts failures in a row, forgets them at a success, and is not tried again before it is due', async () => {
    const { box, forward, state, lines } = await begin('2026-11-21T01:59:00Z');
    box.during = async () => {
      throw new Error('disk');
    };
    await forward('2026-11-22T12:00:00Z');
    expect((await state()).record).toMatchObject({
      consecutive_failures: 2,
      last: { state: 'failed', code: 'PROVIDER_UNAVAILABLE', message: expect.any(String), hint: expect.any(String) },
    });
    expect(box.scheduled).toHaveLength(2);
    expect(lines.filter(({ level }) => level === 'error').at(-1)).toMatchObject({
      message: 'a schedule failed',
      fields: { schedule: 'app/box/daily', failures_in_a_row: 2 },
    });
    box.during = undefined;
    await forward('2026-11-23T12:00:00Z');
    expect((await state()).record).toMatchObject({ consecutive_failures: 0, last: { state: 'succeeded' } });
  });

  it('is interrupted when it takes longer than at_most, and what it began ends before the next begins', async () => {
    const { box, clock, state, scheduler, store } = await begin('2026-11-21T01:59:59Z', [schedule({ at_most: 600 })]);
    const { during, inside } = gate();
    box.during = during;
    clock.set('2026-11-21T02:00:00Z');
    await scheduler.look();
    await inside;
    await clock.forwardTo('2026-11-21T02:10:01Z', async () => {});
    await scheduler.idle();
    expect((await state()).record).toMatchObject({ last: { state: 'failed', code: 'TIMEOUT' } });
    const [operation] = await store.operations();
    expect(operation?.status).toBe('cancelled');
    expect(box.writes).toEqual([]);
  });
});

describe('what was missed', () => {
  it('is made up for by one run, however much it was', async () => {
    const first = await begin('2026-11-21T01:59:00Z');
    await first.forward('2026-11-21T02:01:00Z');
    first.scheduler.stop();
    const then = await begin('2026-11-25T09:00:00Z', [schedule()], { stateDirectory: first.stateDirectory });
    await then.scheduler.idle();
    await then.forward('2026-11-25T10:00:00Z');
    expect(then.box.writes).toEqual(['create']);
    expect((await then.state()).record?.last).toMatchObject({ due_at: '2026-11-25T02:00:00.000Z', state: 'succeeded' });
    expect(then.lines.find(({ level }) => level === 'warn')).toMatchObject({
      message: 'one run makes up for what was missed',
      fields: { missed: 4 },
    });
    await then.forward('2026-11-26T02:01:00Z');
    expect(then.box.writes).toEqual(['create', 'create']);
  });

  it('is left where the schedule says so, counted and told', async () => {
    const own = schedule({ catch_up: false });
    const first = await begin('2026-11-21T01:59:00Z', [own]);
    first.scheduler.stop();
    const then = await begin('2026-11-23T09:00:00Z', [own], { stateDirectory: first.stateDirectory });
    await then.forward('2026-11-23T10:00:00Z');
    expect(then.box.writes).toEqual([]);
    expect((await then.state()).record).toMatchObject({ missed: 3 });
    await then.forward('2026-11-24T02:01:00Z');
    expect(then.box.writes).toEqual(['create']);
    expect((await then.state()).record).toMatchObject({ missed: 0 });
  });

  it('is made up for after a machine slept, and nothing runs twice after a clock was set back a little', async () => {
    const { box, clock, forward, scheduler } = await begin('2026-11-21T01:59:00Z');
    clock.set('2026-11-21T08:00:00Z');
    await forward('2026-11-21T08:02:00Z');
    expect(box.writes).toEqual(['create']);
    await forward('2026-11-22T02:01:00Z');
    expect(box.writes).toEqual(['create', 'create']);
    clock.set('2026-11-22T01:55:00Z');
    await scheduler.look();
    await forward('2026-11-22T03:00:00Z');
    expect(box.writes).toEqual(['create', 'create']);
  });

  it('is not taken for done by a clock that was far ahead', async () => {
    const { box, clock, forward, scheduler, lines } = await begin('2026-11-21T01:59:00Z');
    clock.set('2036-01-01T02:30:00Z');
    await scheduler.look();
    await scheduler.idle();
    expect(box.writes).toEqual(['create']);
    clock.set('2026-11-21T03:00:00Z');
    await scheduler.look();
    expect(lines.some(({ message }) => message.startsWith('the clock was set back'))).toBe(true);
    await forward('2026-11-22T02:01:00Z');
    expect(box.writes).toEqual(['create', 'create']);
  });
});

describe('the nights when clocks are changed', () => {
  it.each([
    ['forward, over the due time', '2026-03-28T23:50:00Z', '2026-03-29T02:10:00Z', '2026-03-29T01:00:00.000Z'],
    [
      'back, so that the due time comes twice',
      '2026-10-25T00:10:00Z',
      '2026-10-25T02:10:00Z',
      '2026-10-25T00:30:00.000Z',
    ],
  ])('have one run when they are put %s', async (_, from, to, due) => {
    const own = schedule({ cron: '30 2 * * *', timezone: 'Europe/Berlin' });
    const { box, clock, scheduler, state } = await begin(from, [own]);
    for (let at = Date.parse(from); at <= Date.parse(to); at += 600_000) {
      clock.set(new Date(at).toISOString());
      await scheduler.look();
      await scheduler.idle();
    }
    expect(box.writes).toEqual(['create']);
    expect((await state()).record?.last).toMatchObject({ due_at: due });
  });
});

describe('one run at a time', () => {
  it('lets a due time pass while a run goes on, and makes up for it once, after', async () => {
    const { box, clock, scheduler, state } = await begin('2026-11-21T00:59:00Z', [schedule({ cron: '0 * * * *' })]);
    const { during, inside, letGo } = gate();
    box.during = during;
    clock.set('2026-11-21T01:00:00Z');
    await scheduler.look();
    await inside;
    await clock.forwardTo('2026-11-21T04:30:00Z', async () => scheduler.look());
    expect(box.scheduled).toHaveLength(1);
    expect((await state()).record?.running).toMatchObject({ due_at: '2026-11-21T01:00:00.000Z' });
    box.during = undefined;
    letGo();
    await scheduler.idle();
    await scheduler.look();
    await scheduler.idle();
    expect(box.scheduled).toHaveLength(2);
    expect((await state()).record?.last).toMatchObject({ due_at: '2026-11-21T04:00:00.000Z' });
  });

  it('gives each due time to one of many schedulers over one state', async () => {
    const box = newBox();
    const clock = new Clock('2026-11-21T01:59:00Z');
    const first = await startScheduled(box, clock, [schedule()]);
    open.push(first);
    const others = await Promise.all(
      [1, 2, 3].map(() => startScheduled(box, clock, [schedule()], { stateDirectory: first.stateDirectory })),
    );
    open.push(...others);
    const all = [first, ...others].map(({ scheduler }) => scheduler);
    await Promise.all(all.map((scheduler) => scheduler.look()));
    for (const day of ['21', '22', '23']) {
      clock.set(`2026-11-${day}T02:00:00Z`);
      await Promise.all(all.map((scheduler) => scheduler.look()));
      await Promise.all(all.map((scheduler) => scheduler.idle()));
    }
    expect(box.writes).toEqual(['create', 'create', 'create']);
  });

  it('refuses a run by hand while one goes on', async () => {
    const { box, clock, scheduler } = await begin('2026-11-21T01:59:00Z');
    const { during, inside, letGo } = gate();
    box.during = during;
    clock.set('2026-11-21T02:00:00Z');
    await scheduler.look();
    await inside;
    await expect(scheduler.run(KEY, 'daily')).rejects.toMatchObject({ code: 'INVALID_STATE' });
    letGo();
    await scheduler.idle();
    expect(box.writes).toEqual(['create']);
  });

  it('keeps the claim of a long run, and lets another go on from a process that has gone silent', async () => {
    const { box, clock, scheduler, state, stateDirectory } = await begin('2026-11-21T01:59:00Z');
    const { during, inside, letGo } = gate();
    box.during = during;
    clock.set('2026-11-21T02:00:00Z');
    await scheduler.look();
    await inside;
    await clock.forwardTo('2026-11-21T03:00:00Z', async () => {
      await scheduler.look();
      // The heartbeat writes on its own.
      await state();
    });
    expect((await state()).orphaned).toBe(false);
    const late = new Clock('2026-11-21T03:05:00Z');
    const other = await startScheduled(newBox(), late, [schedule()], { stateDirectory });
    open.push(other);
    await other.scheduler.look();
    // The operation still belongs to the first: what the second sees is a run without its end.
    expect((await other.scheduler.states())[0]?.record?.running).toBeDefined();
    letGo();
    await scheduler.idle();
  });
});

describe('what needs a person', () => {
  const prune = schedule({ name: 'prune', action: 'prune-snapshots' });

  it('is run while it is harmless', async () => {
    const { box, forward } = await begin('2026-11-21T01:59:00Z', [prune]);
    await forward('2026-11-21T02:01:00Z');
    expect(box.writes).toEqual(['prune']);
  });

  it.each(['human', 'token', 'two-people'] as const)(
    'is left alone when it turns out to be a deletion, under confirm: %s, and said aloud',
    async (confirm) => {
      const { box, forward, state, engine, lines } = await begin('2026-11-21T01:59:00Z', [prune], {
        policy: { confirm },
      });
      box.removesMost = true;
      await forward('2026-11-21T02:01:00Z');
      expect(box.writes).toEqual([]);
      expect((await state()).record).toMatchObject({
        consecutive_failures: 1,
        last: {
          state: 'refused',
          code: 'CONFIRMATION_REQUIRED',
          hint: expect.stringContaining('app/box/prune-snapshots'),
        },
      });
      // Nothing that somebody could approve by mistake, and no token that anybody could use.
      expect(await engine.confirmations()).toEqual([]);
      expect(lines.find(({ level }) => level === 'error')?.message).toMatch(/refused: a person has to look/);
      expect(engine.recentAudit(1)[0]).toMatchObject({
        event: 'refused',
        principal: 'schedule:app/box/prune',
        outcome: 'CONFIRMATION_REQUIRED',
      });
      box.removesMost = false;
      await forward('2026-11-22T02:01:00Z');
      expect(box.writes).toEqual(['prune']);
    },
  );

  it('is not let through by the token or the approval of another call', async () => {
    const { box, engine, scheduler } = await begin('2026-11-21T01:59:00Z', [prune], { policy: { confirm: 'token' } });
    box.removesMost = true;
    const asked = await engine
      .call({ principal: ANA, entity: KEY, action: 'prune-snapshots', input: {} })
      .catch((cause: { details: { confirmation: { id: string; token: string } } }) => cause.details.confirmation);
    const { id, token } = asked as { id: string; token: string };
    const principal = { id: 'schedule:app/box/prune', person: 'schedule', roles: ['operator'] as const };
    for (const proof of [{ token }, { confirmationId: id }]) {
      await expect(
        engine.call({ principal, entity: KEY, action: 'prune-snapshots', input: {}, ...proof }),
      ).rejects.toMatchObject({ code: 'CONFIRMATION_REQUIRED' });
    }
    await expect(scheduler.run(KEY, 'prune')).rejects.toMatchObject({ code: 'CONFIRMATION_REQUIRED' });
    expect(box.writes).toEqual([]);
  });

  it('is let through where a rule of the policy allows it by name', async () => {
    const rules = [{ principal: ['schedule:app/box/*'], action: ['prune-snapshots'], decision: 'allow' as const }];
    const { box, forward } = await begin('2026-11-21T01:59:00Z', [prune], { policy: { rules } });
    box.removesMost = true;
    await forward('2026-11-21T02:01:00Z');
    expect(box.writes).toEqual(['prune']);
  });

  it('is refused where the policy is read-only', async () => {
    const { box, forward, state } = await begin('2026-11-21T01:59:00Z', [schedule()], { policy: { read_only: true } });
    await forward('2026-11-21T02:01:00Z');
    expect(box.writes).toEqual([]);
    expect((await state()).record?.last).toMatchObject({ state: 'refused', code: 'POLICY_DENIED' });
  });
});

describe('by hand', () => {
  it('makes the same call now, and what was due before counts as made up for', async () => {
    const { box, clock, scheduler, forward, state } = await begin('2026-11-21T01:00:00Z');
    clock.set('2026-11-21T06:00:00Z');
    const outcome = await scheduler.run(KEY, 'daily');
    expect(outcome).toMatchObject({ kind: 'operation', operation: { status: 'succeeded' } });
    await forward('2026-11-21T07:00:00Z');
    expect(box.scheduled).toEqual([true]);
    expect((await state()).record?.last).toMatchObject({ state: 'succeeded', began_at: '2026-11-21T06:00:00.000Z' });
    expect((await state()).record?.last?.due_at).toBeUndefined();
  });

  it('ends with the error of the call, which is kept as well', async () => {
    const { box, scheduler, state } = await begin('2026-11-21T01:00:00Z');
    box.during = async () => {
      throw new Error('disk');
    };
    await expect(scheduler.run(KEY, 'daily')).rejects.toMatchObject({ code: 'PROVIDER_UNAVAILABLE' });
    expect((await state()).record).toMatchObject({ consecutive_failures: 1 });
  });

  it('names the schedules there are where it is asked for another', async () => {
    const { scheduler } = await begin('2026-11-21T01:00:00Z');
    await expect(scheduler.run(KEY, 'dayly')).rejects.toMatchObject({
      code: 'INVALID_PARAMETER',
      hint: expect.stringContaining('daily'),
    });
  });

  it('is ended by its caller', async () => {
    const { box, scheduler, state } = await begin('2026-11-21T01:00:00Z');
    const { during, inside } = gate();
    box.during = during;
    const controller = new AbortController();
    const running = scheduler.run(KEY, 'daily', { signal: controller.signal });
    await inside;
    controller.abort(new DOMException('enough', 'AbortError'));
    await expect(running).rejects.toMatchObject({ code: 'CANCELLED' });
    expect((await state()).record).toMatchObject({ last: { state: 'failed', code: 'CANCELLED' } });
  });
});

describe('the scheduler', () => {
  it('goes on with the others when one cannot be looked at, and with that one at the next look', async () => {
    const box = newBox();
    const clock = new Clock('2026-11-21T01:59:00Z');
    const running = await startScheduled(box, clock, [schedule({ name: 'a' }), schedule({ name: 'b' })]);
    open.push(running);
    let isAway = true;
    const store = new Proxy(running.store, {
      get(target, name) {
        const method = Reflect.get(target, name) as (...given: unknown[]) => unknown;
        if (name !== 'schedule') return method.bind(target);
        return async (key: string) => {
          if (isAway && key.endsWith('/a')) throw new Error('locked');
          return target.schedule(key);
        };
      },
    });
    const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
    const scheduler = await openScheduler({ engine: running.engine, store, log, now: clock.now, timer: clock.timer });
    await scheduler.look();
    clock.set('2026-11-21T02:00:00Z');
    await scheduler.look();
    await scheduler.idle();
    expect(box.writes).toEqual(['create']);
    expect(clock.waiting).toBe(1);
    isAway = false;
    await scheduler.look();
    clock.set('2026-11-22T02:00:00Z');
    await scheduler.look();
    await scheduler.idle();
    expect(box.writes).toEqual(['create', 'create', 'create']);
  });

  it('begins nothing more once it is stopped, and leaves no timer', async () => {
    const { box, clock, scheduler } = await begin('2026-11-21T01:59:00Z');
    scheduler.stop();
    expect(clock.waiting).toBe(0);
    clock.set('2026-11-21T02:00:00Z');
    await scheduler.look();
    expect(box.writes).toEqual([]);
  });

  it('lists due times of all, earliest first, in the order of time', async () => {
    const { scheduler } = await begin('2026-11-21T00:00:00Z', [
      schedule({ name: 'daily' }),
      schedule({ name: 'night', cron: '30 1 * * *', timezone: 'Europe/Berlin' }),
      schedule({ name: 'off', enabled: false }),
    ]);
    expect(scheduler.next(2).map(({ schedule: { name }, at }) => `${name} ${at.toISOString()}`)).toEqual([
      'night 2026-11-21T00:30:00.000Z',
      'daily 2026-11-21T02:00:00.000Z',
      'night 2026-11-22T00:30:00.000Z',
      'daily 2026-11-22T02:00:00.000Z',
    ]);
  });

  it('no caller can pass for a schedule by its name at a surface', async () => {
    const box = newBox();
    const harness = await startHarness({
      modules: { box: boxModule(box) },
      entities: [{ key: KEY, defines: 'box/box', parameters: { size: 1 } }],
    });
    open.push(harness);
    const principal = { id: 'http:schedule:app/box/daily', person: 'schedule:x', roles: ['operator'] as const };
    await harness.engine.call({ principal, entity: KEY, action: 'create-snapshot', input: {}, wait: 'end' });
    expect(box.scheduled).toEqual([false]);
  });
});

describe('what agents see of schedules', () => {
  it('is how each stands, in the list of databases', async () => {
    const prune = schedule({ name: 'prune', action: 'prune-snapshots' });
    const off = schedule({ name: 'off', enabled: false });
    const { box, forward, engine } = await begin('2026-11-21T01:59:00Z', [schedule(), prune, off]);
    box.removesMost = true;
    await forward('2026-11-21T02:01:00Z');
    const outcome = await engine.call({ principal: ANA, action: 'list-databases', input: {} });
    expect(outcome).toMatchObject({
      output: {
        databases: [
          {
            entity: KEY,
            schedules: [
              { name: 'daily', cron: '0 2 * * *', timezone: 'UTC', state: 'succeeded', ended_at: expect.any(String) },
              {
                name: 'prune',
                state: 'refused',
                consecutive_failures: 1,
                problem: expect.stringContaining('confirmation'),
              },
              { name: 'off', state: 'disabled' },
            ],
          },
        ],
      },
    });
  });
});
