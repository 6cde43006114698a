import type { JsonObject } from '../../src/core/json.ts';
import type { Connection } from '../../src/postgres/connection.ts';
import { ANA } from './harness.ts';
import { startPostgresHarness } from './postgres-harness.ts';

/** What the parent asks of a process that is to die. */
export interface VictimOrders {
  readonly connection: Connection;
  readonly storage: string;
  readonly stateDirectory: string;
  readonly action: string;
  readonly input: JsonObject;
  readonly token?: string | undefined;
  /** Of the entity, beside the usual ones. */
  readonly parameters?: JsonObject;
  /** Dies just before this state of a step is stored; what was done until then is not recorded. */
  readonly dieBefore?: { readonly step: string; readonly status?: string; readonly phase?: string } | undefined;
  /** Dies when progress of this kind is reported. */
  readonly dieAtProgress?: string | undefined;
  /** Dies this many milliseconds after the call was made. */
  readonly dieAfterMs?: number | undefined;
}

const orders = JSON.parse(process.argv[2] ?? '') as VictimOrders;
const harness = await startPostgresHarness({ ...orders, database: 'shop' });
const { engine, store } = harness;
const die = (): Promise<never> => {
  process.kill(process.pid, 'SIGKILL');
  return new Promise(() => {});
};

const { dieBefore } = orders;
const save = store.saveOperation.bind(store);
store.saveOperation = (record) => {
  const step = record.steps.find(({ name }) => name === dieBefore?.step);
  const { status = step?.status, phase = step?.handle?.['phase'] } = dieBefore ?? {};
  return step !== undefined && step.status === status && step.handle?.['phase'] === phase ? die() : save(record);
};
const { dieAtProgress, dieAfterMs } = orders;
if (dieAfterMs !== undefined) setTimeout(() => void die(), dieAfterMs);
await engine.call({
  principal: ANA,
  entity: 'app/shop',
  action: orders.action,
  input: orders.input,
  wait: 'end',
  ...(orders.token === undefined ? {} : { token: orders.token }),
  onProgress: ({ message }) => {
    if (dieAtProgress !== undefined && message.includes(dieAtProgress)) void die();
  },
});
await harness.close();
