import { describe, expect, it } from 'vitest';
import { faultText, loadConfig } from '../../src/config/load.ts';
import type { Schedule } from '../../src/core/schedule.ts';
import { entityTypes, registry } from '../../src/program/open.ts';
import { scheduleFaults } from '../../src/schedule/check.ts';

const DB = `namespace: shop
db:
  defines: postgresql/server
  host: localhost
  user: holdfast
  database: shop
  storage: { type: local, path: /backups }
  encryption: none
`;

/** What is wrong with a file, first its own faults, else those of its schedules. */
async function faultsOf(schedules: string): Promise<string[]> {
  const report = loadConfig({ text: `${DB}${schedules}`, entityTypes, strict: false, baseDirectory: '/nowhere' });
  const faults = report.faults.length > 0 ? report.faults : await scheduleFaults(report.entities, registry);
  return faults.map((fault) => `${faultText(fault)} [${fault.suggestion ?? ''}]`);
}

function read(schedules: string): readonly Schedule[] | undefined {
  const config = loadConfig({ text: `${DB}${schedules}`, entityTypes, baseDirectory: '/nowhere' });
  return config.entities[0]?.base.schedules;
}

describe('schedules in the entities file', () => {
  it('are read from a list, each with all that can be said', async () => {
    const text = `  schedules:
    - name: nightly
      cron: "0 2 * * *"
      timezone: Europe/Lisbon
      action: create-snapshot
      input: { type: logical, label: nightly }
      enabled: false
      catch_up: false
      at_most: 6h
`;
    expect(await faultsOf(text)).toEqual([]);
    expect(read(text)).toEqual([
      {
        name: 'nightly',
        cron: '0 2 * * *',
        timezone: 'Europe/Lisbon',
        action: 'create-snapshot',
        input: { type: 'logical', label: 'nightly' },
        enabled: false,
        catch_up: false,
        at_most: 21_600,
      },
    ]);
  });

  it('are read by name, in the short form of the guides', async () => {
    const text = `  schedules:
    daily: true
    weekly: "0 1 * * 6"
    verify: { cron: "0 5 * * 0", input: { snapshot_id: $newest, level: restored } }
    prune: true
`;
    expect(await faultsOf(text)).toEqual([]);
    expect(read(text)?.map(({ name, cron, action, input }) => ({ name, cron, action, input }))).toEqual([
      { name: 'daily', cron: '0 2 * * *', action: 'create-snapshot', input: { type: 'logical' } },
      { name: 'weekly', cron: '0 1 * * 6', action: 'create-snapshot', input: { type: 'full' } },
      {
        name: 'verify',
        cron: '0 5 * * 0',
        action: 'verify-snapshot',
        input: { snapshot_id: '$newest', level: 'restored' },
      },
      { name: 'prune', cron: '30 4 * * *', action: 'prune-snapshots', input: {} },
    ]);
  });

  it('do not give the input of a well-known name to another action', () => {
    expect(read('  schedules: { weekly: { action: list-snapshots } }\n')?.[0]?.input).toEqual({});
  });

  it('are absent where none are declared', () => {
    expect(read('')).toBeUndefined();
    expect(read('  schedules: []\n')).toBeUndefined();
  });

  it.each([
    ['schedules: { nightly: "0 2 * *" }', 'holdfast.yaml:9:16: ', "'cron' has 4 fields, not five"],
    ['schedules: [{ name: a, cron: "0 25 * * *" }]', 'holdfast.yaml:9:32: ', "'cron': the hour cannot be read"],
    ['schedules: { a: { cron: "0 2 * * *", timezone: Mars/Base } }', 'holdfast.yaml:9:50: ', 'is no time zone'],
    ['schedules: { often: { action: create-snapshot } }', 'holdfast.yaml:9:16: ', "'cron' is missing"],
    [
      'schedules: [{ name: a, cron: "0 2 * * *" }, { name: a, cron: "0 3 * * *" }]',
      'holdfast.yaml:9:55: ',
      'stands twice',
    ],
    ['schedules: { daily: { action: create-snapshto } }', 'holdfast.yaml:9:33: ', 'is no action of this entity'],
    ['schedules: { daily: { action: list-operations } }', 'holdfast.yaml:9:33: ', 'is no action of one database'],
    [
      'schedules: { daily: { action: delete-snapshot, input: { snapshot_id: x } } }',
      'holdfast.yaml:9:33: ',
      'needs a person',
    ],
    ['schedules: { daily: { input: { typ: logical } } }', 'holdfast.yaml:9:', "no parameter 'typ'"],
    ['schedules: { daily: { input: { type: sideways } } }', 'holdfast.yaml:9:40: ', "'input' does not fit: type"],
    ['schedules: { verify: { input: {} } }', 'holdfast.yaml:9:', 'snapshot_id is required'],
  ])('%s is refused at its place', async (line, place, message) => {
    const [fault, ...more] = await faultsOf(`  ${line}\n`);
    expect(fault).toContain(place);
    expect(fault).toContain(message);
    expect(fault).toMatch(/\[.+\]$/);
    expect(more).toEqual([]);
  });

  it.each([
    ['schedules: { Daily: true }', 'holdfast.yaml:9:'],
    ['schedules: { daily: false }', 'holdfast.yaml:9:23'],
    ['schedules: { daily: { crom: "0 2 * * *" } }', 'Did you mean cron?'],
    ['schedules: { daily: { at_most: soon } }', 'is no duration'],
    ['schedules: { daily: { cron: "${env:WHEN}" } }', 'must be written out'],
    ['schedules: [{ cron: "0 2 * * *" }]', "name' is missing"],
    ['schedules: daily', 'holdfast.yaml:9:14'],
  ])('%s is no schedule', async (line, message) => {
    const faults = await faultsOf(`  ${line}\n`);
    expect(faults).toHaveLength(1);
    expect(faults[0]).toContain(message);
  });

  it('may be of any provider, and cannot be what only replaces live data', async () => {
    const table = `namespace: shop
carts:
  defines: aws-dynamo-db/dynamo-db-table
  region: us-east-1
  table_name: carts
`;
    const check = async (schedules: string): Promise<string[]> => {
      const { entities } = loadConfig({ text: `${table}${schedules}`, entityTypes, baseDirectory: '/nowhere' });
      return (await scheduleFaults(entities, registry)).map(({ message }) => message);
    };
    expect(await check('  schedules: { daily: { input: { backup_name: nightly } } }\n')).toEqual([]);
    expect(await check('  schedules: { prune: "0 2 * * *" }\n')).toEqual(["'action' is missing"]);
  });

  it('never run an action that only a person may let through, whatever provider has it', async () => {
    const { isGuarded } = await import('../../src/core/risk.ts');
    const guarded = registry.actions.filter(({ risk }) => isGuarded(risk));
    expect(guarded.length).toBeGreaterThan(5);
    for (const action of guarded) {
      const defines = action.on[0] as string;
      const base = {
        key: 'a/b',
        namespace: 'a',
        name: 'b',
        defines,
        provider: action.provider.id,
        labels: {},
        objectives: {},
        schedules: [
          {
            name: 'x',
            cron: '0 2 * * *',
            timezone: 'UTC',
            action: action.name,
            input: {},
            enabled: true,
            catch_up: true,
          },
        ],
      };
      const [fault] = await scheduleFaults([{ base }], registry);
      expect(fault?.message, `${defines} ${action.name}`).toContain('needs a person');
    }
  });
});
