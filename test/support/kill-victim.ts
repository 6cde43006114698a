import type { JsonObject } from '../../src/core/json.ts';
import { ANA, type HarnessOptions, startHarness } from './harness.ts';

/** What the parent asks of a process that is to die. */
export interface VictimOrders {
  readonly fleet: Omit<HarnessOptions, 'modules'>;
  readonly provider: string;
  readonly entity: string;
  readonly action: string;
  readonly input: JsonObject;
  readonly token?: string | undefined;
  /** Goes no further once the operation has been stored this often, counted from 1, and says so. */
  readonly haltAfterSave?: number | undefined;
}

/** What the process says, one line of JSON each. */
export type VictimWord =
  | { say: 'saved'; count: number; step: string; status: string }
  | { say: 'halted' }
  | { say: 'over'; status: string };

const orders = JSON.parse(process.argv[2] ?? '') as VictimOrders;
// Only what the call needs: these processes are started hundreds of times.
const declarations = (await import(`../../tools/${orders.provider}.ts`)) as Record<string, unknown>;
const more = orders.action.startsWith('prune-') ? await import('../../tools/postgresql-retention.ts') : {};
const entities = orders.fleet.entities.filter(({ key }) => key === orders.entity);
const harness = await startHarness({ ...orders.fleet, entities, modules: { declarations, more } });
const { engine, store } = harness;
const say = (word: VictimWord): boolean => process.stdout.write(`${JSON.stringify(word)}\n`);

let count = 0;
const save = store.saveOperation.bind(store);
store.saveOperation = async (record) => {
  await save(record);
  count += 1;
  const step = record.steps.find(({ status }) => status === 'running')?.name ?? '';
  say({ say: 'saved', count, step, status: record.status });
  if (count !== orders.haltAfterSave) return;
  say({ say: 'halted' });
  setInterval(() => {}, 1000);
  await new Promise(() => {});
};

// As the program does it.
process.once('SIGTERM', () => {
  void harness.close().then(() => process.exit(0));
});
const status = await engine
  .call({
    principal: ANA,
    entity: orders.entity,
    action: orders.action,
    input: orders.input,
    wait: 'end',
    ...(orders.token === undefined ? {} : { token: orders.token }),
  })
  .then(
    () => 'ok',
    (cause: Error & { code?: string }) => `${cause.code ?? cause.name}: ${cause.message}`,
  );
say({ say: 'over', status });
await harness.close();
