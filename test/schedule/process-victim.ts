import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { Clock, newBox, schedule, startScheduled } from './support.ts';

/** What the parent asks of a process with a scheduler. */
export interface SchedulerOrders {
  readonly stateDirectory: string;
  /** Where its clock stands at first, and where it stands after a line came in. */
  readonly now: string;
  readonly due: string;
  /** Stays inside of its write until it is killed. */
  readonly stays?: boolean;
}

const orders = JSON.parse(process.argv[2] ?? '') as SchedulerOrders;
const say = (line: string): void => void process.stdout.write(`${line}\n`);

const box = newBox();
box.during = async () => {
  say('inside');
  if (orders.stays === true) await new Promise(() => setInterval(() => {}, 1000));
};
const clock = new Clock(orders.now);
const running = await startScheduled(box, clock, [schedule()], { stateDirectory: orders.stateDirectory });
await running.scheduler.look();
say('ready');
await once(createInterface({ input: process.stdin }), 'line');
clock.set(orders.due);
await running.scheduler.look();
await running.scheduler.idle();
say(`wrote ${box.writes.length}`);
await running.close();
process.exit(0);
