import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Discovery, Provider } from '../../src/core/provider.ts';
import type { SettingsCheck } from '../../src/core/schemas.ts';
import { azureCosmos } from '../../src/providers/azure-cosmos/provider.ts';
import { digitalocean } from '../../src/providers/digitalocean/provider.ts';
import { neon } from '../../src/providers/neon/provider.ts';
import { azureCosmosSimulator, COSMOS_SANDBOX, type CosmosState } from '../../src/simulators/azure-cosmos.ts';
import { type DigitalOceanState, digitaloceanSimulator } from '../../src/simulators/digitalocean.ts';
import { NEON_SANDBOX, type NeonState, neonSimulator } from '../../src/simulators/neon.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import * as cosmosTools from '../../tools/azure-cosmos.ts';
import * as digitaloceanTools from '../../tools/digitalocean.ts';
import * as neonTools from '../../tools/neon.ts';
import { type Harness, startHarness, VIEWER } from '../support/harness.ts';

const CANARY = 'canary-discover-5b1e9f';
const TOKEN = { secret: 'env', name: 'THE_TOKEN' } as const;
const KEYS: Record<string, Record<string, unknown>> = {
  'azure-cosmos': { access_token: TOKEN },
  neon: { api_key: TOKEN },
  digitalocean: { token: TOKEN },
};
const TYPES = { ...azureCosmos.entityTypes, ...neon.entityTypes, ...digitalocean.entityTypes };

let server: SimulatorServer;
let cosmos: CosmosState;
let neonState: NeonState;
let ocean: DigitalOceanState;
let open: Harness[];

beforeEach(async () => {
  open = [];
  server = await startSimulators({
    simulators: (clock) => {
      const all = [
        azureCosmosSimulator({ clock }),
        neonSimulator({ clock }),
        digitaloceanSimulator({ clock }),
      ] as const;
      [cosmos, neonState, ocean] = [all[0].state, all[1].state, all[2].state];
      return all;
    },
  });
});
afterEach(async () => {
  for (const harness of open) await harness.close();
  await server.close();
});

async function start(
  secrets: Record<string, string>,
  entities: Parameters<typeof startHarness>[0]['entities'] = [],
): Promise<Harness> {
  const modules = { cosmos: cosmosTools, neon: neonTools, digitalocean: digitaloceanTools };
  const harness = await startHarness({ modules, entities, secrets });
  open.push(harness);
  return harness;
}

async function discover(
  provider: string,
  access: Record<string, unknown> = KEYS[provider]!,
  secrets: Record<string, string> = { THE_TOKEN: CANARY },
): Promise<Discovery | undefined> {
  const { engine } = await start(secrets);
  return engine.discover({ principal: VIEWER, provider, access, endpoint: server.origin });
}

/** Loads what was found as entities, as its file would have them, and holds each against the simulator. */
async function check({ found }: Discovery, credential: string): Promise<Record<string, SettingsCheck>> {
  const entities = found.map(({ defines, name, parameters }) => ({
    key: `found/${name}`,
    defines,
    parameters: { ...parameters, [credential]: '${env:THE_TOKEN}' },
    endpoint: server.origin,
  }));
  for (const { defines, parameters } of entities) TYPES[defines]!.schema.parse(parameters);
  const { engine } = await start({ THE_TOKEN: CANARY }, entities);
  const checks: Record<string, SettingsCheck> = {};
  for (const { key } of entities) {
    const outcome = await engine.call({ principal: VIEWER, entity: key, action: 'check-settings', input: {} });
    checks[key] = (outcome as { output: unknown }).output as SettingsCheck;
  }
  return checks;
}

const open_settings = (checks: Record<string, SettingsCheck>) =>
  Object.entries(checks).flatMap(([key, { settings }]) =>
    settings.filter(({ verdict }) => verdict !== 'as_declared').map(({ setting }) => `${key} ${setting}`),
  );

describe.each([
  ['azure-cosmos', azureCosmos as Provider, 'access_token', 8],
  ['neon', neon as Provider, 'api_key', 3],
  ['digitalocean', digitalocean as Provider, 'token', 7],
] as const)('what is found at %s', (id, _provider, credential, count) => {
  it('loads as it is and is in line, and holds no secret', async () => {
    const discovery = (await discover(id))!;
    expect(discovery.problems).toEqual([]);
    expect(discovery.found).toHaveLength(count);
    expect(new Set(discovery.found.map(({ name }) => name)).size).toBe(count);
    const checks = await check(discovery, credential);
    expect(open_settings(checks)).toEqual([]);
    expect(Object.values(checks).filter(({ settings }) => settings.length === 0)).toEqual([]);
    expect(JSON.stringify(discovery)).not.toContain(CANARY);
    expect(server.writes()).toEqual([]);
  });

  it('is nothing at all without a credential, and nothing is asked', async () => {
    expect(await discover(id, {}, {})).toBeUndefined();
    expect(server.journal).toEqual([]);
  });
});

describe('looking through Azure', () => {
  it('goes through every subscription, or the one that is named, and names those that it may not look into', async () => {
    expect((await discover('azure-cosmos'))?.looked).toBe('Azure, 1 subscriptions');
    const access = { ...KEYS['azure-cosmos'], subscription_id: COSMOS_SANDBOX.subscription };
    expect((await discover('azure-cosmos', access))?.looked).toBe(`Azure subscription ${COSMOS_SANDBOX.subscription}`);
    cosmos.denied.add('databaseAccounts/read');
    expect(await discover('azure-cosmos', access)).toMatchObject({
      found: [],
      problems: [expect.stringMatching(/accounts of the subscription .* are not shown: no permission/)],
    });
    cosmos.unauthenticated = true;
    await expect(discover('azure-cosmos', access)).rejects.toMatchObject({ code: 'AUTHENTICATION_FAILED' });
  });

  it('reads all pages, and says what cannot be restored and what cannot be declared', async () => {
    cosmos.pageSize = 2;
    cosmos.accounts.get(COSMOS_SANDBOX.account)!.backupPolicy = { type: 'Quantum' };
    cosmos.accounts.get('events-mongo')!.backupPolicy['migrationState'] = { status: 'InProgress' };
    const { found } = (await discover('azure-cosmos'))!;
    const notes = Object.fromEntries(found.map((one) => [one.name, one.notes.join(' ')]));
    expect(notes['legacy-cosmos']).toMatch(/only a support ticket. Up to 4 h of writes/);
    expect(notes['metrics-cassandra']).toMatch(/no self-service restore/);
    expect(notes['events-mongo']).toMatch(/moving to continuous backup/);
    expect(notes['orders-cosmos']).toMatch(/is not known/);
    expect(found.find(({ name }) => name === 'orders-cosmos')?.parameters).toEqual({
      subscription_id: COSMOS_SANDBOX.subscription,
      resource_group_name: COSMOS_SANDBOX.group,
      account_name: COSMOS_SANDBOX.account,
    });
    expect(found.find(({ name }) => name === 'someone-elses')?.parameters['resource_group_name']).toBe('other-group');
  });
});

describe('looking through Neon', () => {
  it('goes through organizations, pages and protected branches, and says what is missing', async () => {
    neonState.ofOrganization = true;
    neonState.pageSize = 1;
    const { found, looked } = (await discover('neon'))!;
    expect(looked).toBe('Neon, 2 projects');
    expect(found.map(({ name }) => name)).toEqual(['shop', 'shop-live', 'side-project']);
    expect(found[0]?.parameters).toEqual({
      project_id: NEON_SANDBOX.project,
      branch: 'main',
      history_retention_seconds: 604_800,
      backup_schedule: [{ frequency: 'daily', hour: 3, retention_seconds: 604_800 }],
      protected: false,
    });
    expect(found[2]?.notes.join(' ')).toMatch(/history window is off.*No snapshots.*not protected.*1 GB/);
  });

  it('looks at the project that is named alone, and leaves out what cannot be declared', async () => {
    neonState.project().schedules.set(NEON_SANDBOX.main, [{ frequency: 'hourly' }]);
    neonState.branch('main').name = 'ma\u202ein';
    const access = { ...KEYS['neon'], project_id: NEON_SANDBOX.project };
    const { found, looked } = (await discover('neon', access))!;
    expect([looked, found.length]).toEqual([`Neon project ${NEON_SANDBOX.project}`, 2]);
    expect(found[0]?.parameters['branch']).toBe(NEON_SANDBOX.main);
    expect(found[0]?.parameters['backup_schedule']).toBeUndefined();
    expect(found[0]?.notes.join(' ')).toMatch(/cannot be declared/);
  });

  it('names a project that is refused, and ends where the key is', async () => {
    neonState.refusals.set('GET quiet-night', { status: 403, message: 'no' });
    const { found, problems } = (await discover('neon'))!;
    expect(found).toHaveLength(2);
    expect(problems).toEqual([expect.stringMatching(/quiet-night-448201 is not shown/)]);
    neonState.unauthenticated = true;
    await expect(discover('neon')).rejects.toMatchObject({ code: 'AUTHENTICATION_FAILED' });
  });
});

describe('looking through DigitalOcean', () => {
  it('says what each engine has, and which clusters are open to everyone', async () => {
    ocean.pageSize = 3;
    const { found } = (await discover('digitalocean'))!;
    const notes = Object.fromEntries(found.map((one) => [one.name, one.notes.join(' ')]));
    expect(notes['orders']).toBe('');
    expect(notes['catalog']).toMatch(/no trusted sources/);
    expect(notes['documents']).toMatch(/to a listed backup only/);
    expect(notes['sessions']).toMatch(/Valkey has no backups/);
    expect(found.find(({ name }) => name === 'catalog')?.parameters).toMatchObject({
      backup_hour: 3,
      backup_minute: 20,
      mysql_incremental_backup: { enabled: true, full_backup_week_schedule: 'mon,thu' },
    });
  });

  it('names what could not be read', async () => {
    ocean.refusals.set('GET /firewall', { status: 403, id: 'forbidden', message: 'no' });
    ocean.refusals.set('GET /config', { status: 403, id: 'forbidden', message: 'no' });
    const { found, problems } = (await discover('digitalocean'))!;
    expect(found[0]?.notes).toEqual(['Its configuration could not be read.']);
    expect(problems.join('\n')).toMatch(/the trusted sources of .* are not shown/);
  });
});

describe('what the caller may do at Azure', () => {
  const entities = () => [
    {
      key: 'my-app/db',
      defines: 'azure-cosmosdb/database-account',
      parameters: azureCosmos.entityTypes['azure-cosmosdb/database-account']!.sandbox!.parameters,
      endpoint: server.origin,
    },
  ];
  const asked = async (...permissions: string[]) => {
    const { engine } = await start({ AZURE_ACCESS_TOKEN: CANARY }, entities());
    const names = permissions.map((name) => `Microsoft.DocumentDB/${name}`);
    const answer = (await engine.access({ principal: VIEWER, entity: 'my-app/db', permissions: names }))!;
    return names.map((name) => answer[name]);
  };

  it('is asked by reading, action by action, and unknown where nothing tells', async () => {
    const permissions = [
      'databaseAccounts/read',
      'databaseAccounts/write',
      'databaseAccounts/sqlDatabases/read',
      'databaseAccountNames/read',
      'locations/restorableDatabaseAccounts/read',
      'locations/restorableDatabaseAccounts/restore/action',
    ];
    expect(await asked(...permissions)).toEqual(['granted', 'granted', 'granted', 'granted', 'granted', 'unknown']);
    for (const one of permissions.slice(1, 5)) cosmos.denied.add(one);
    expect(await asked(...permissions)).toEqual(['granted', 'refused', 'refused', 'refused', 'refused', 'unknown']);
    expect(server.writes()).toEqual([]);
  });
});
