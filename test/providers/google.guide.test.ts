import { load } from 'js-yaml';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import type { Discovery } from '../../src/core/provider.ts';
import type { RecoveryPoint, SettingsCheck } from '../../src/core/schemas.ts';
import { gcpBigQuerySimulator } from '../../src/simulators/gcp-bigquery.ts';
import { gcpCloudSqlSimulator } from '../../src/simulators/gcp-cloud-sql.ts';
import { gcpFirestoreSimulator } from '../../src/simulators/gcp-firestore.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import * as bigQueryTools from '../../tools/gcp-bigquery.ts';
import * as cloudSqlTools from '../../tools/gcp-cloud-sql.ts';
import * as firestoreTools from '../../tools/gcp-firestore.ts';
import { BOSS, type Harness, startHarness } from '../support/harness.ts';

// What the three services of Google share: their guides, the question for permissions, and looking through a project.

const MODULES = { cloudSql: cloudSqlTools, firestore: firestoreTools, bigQuery: bigQueryTools };
const PROJECT = 'holdfast-sandbox';
const TOKEN = 'canary-google-discovery-token-51c2';
const PROVIDERS = ['gcp-cloud-sql', 'gcp-firestore', 'gcp-bigquery'] as const;
type Id = (typeof PROVIDERS)[number];

/** What every action of a service needs. */
const FIRST: Record<Id, string> = {
  'gcp-cloud-sql': 'cloudsql.instances.get',
  'gcp-firestore': 'datastore.databases.getMetadata',
  'gcp-bigquery': 'bigquery.datasets.get',
};

let server: SimulatorServer;
let harness: Harness;
let denied: Record<Id, Set<string>>;
let cloudSql: ReturnType<typeof gcpCloudSqlSimulator>['state'];
let firestore: ReturnType<typeof gcpFirestoreSimulator>['state'];
let bigQuery: ReturnType<typeof gcpBigQuerySimulator>['state'];

beforeEach(async () => {
  server = await startSimulators({
    simulators: (clock) => {
      const [one, two, three] = [
        gcpCloudSqlSimulator({ clock }),
        gcpFirestoreSimulator({ clock }),
        gcpBigQuerySimulator({ clock }),
      ];
      [cloudSql, firestore, bigQuery] = [one.state, two.state, three.state];
      Object.assign(cloudSql.durations, { backup: 30, restore: 30, remove: 30, update: 30 });
      Object.assign(firestore.durations, { export: 30, import: 30, restore: 30, update: 30 });
      Object.assign(bigQuery.durations, { snapshot: 30, restore: 30, pending: 10 });
      denied = {
        'gcp-cloud-sql': one.state.denied,
        'gcp-firestore': two.state.denied,
        'gcp-bigquery': three.state.denied,
      };
      return [one, two, three];
    },
  });
  harness = await open([]);
});
afterEach(async () => {
  await harness.close();
  await server.close();
});

async function open(more: { key: string; defines: string; parameters: JsonObject }[]): Promise<Harness> {
  const probe = await startHarness({ modules: MODULES, entities: [] });
  const sandbox = [...probe.registry.entityTypes].map(([defines, { provider, type }]) => ({
    key: `sandbox/${provider.id}`,
    defines,
    parameters: type.sandbox?.parameters ?? {},
  }));
  await probe.close();
  const entities = [...sandbox, ...more].map((entity) => ({ ...entity, endpoint: server.origin }));
  return startHarness({ modules: MODULES, entities, secrets: { GOOGLE_OAUTH_ACCESS_TOKEN: TOKEN } });
}

const providerOf = (id: Id) => harness.engine.providers().find((one) => one.id === id)!;
const actionsOf = (id: Id) => harness.registry.actions.filter(({ provider }) => provider.id === id);
const discover = (id: Id, access: Record<string, unknown> = {}): Promise<Discovery | undefined> =>
  harness.engine.discover({
    principal: BOSS,
    provider: id,
    access: {
      project: PROJECT,
      access_token: { secret: 'env', name: 'GOOGLE_OAUTH_ACCESS_TOKEN' },
      ...access,
    },
    endpoint: server.origin,
  });

describe.each(PROVIDERS)('the guide to %s', (id) => {
  it('has the permissions of every action, and of no other', async () => {
    const { permissions } = await providerOf(id).guide!();
    expect(Object.keys(permissions).sort()).toEqual(['*', ...actionsOf(id).map(({ name }) => name)].sort());
    for (const name of Object.values(permissions).flat())
      expect(name).toMatch(/^(cloudsql|datastore|bigquery)(\.\w+){2}$/);
  });

  it('names what each reading action needs: it works with that and nothing else, and not without', async () => {
    const { permissions } = await providerOf(id).guide!();
    const all = [...new Set(Object.values(permissions).flat())];
    for (const { name, risk, example } of actionsOf(id)) {
      if (risk !== 'read' || JSON.stringify(example).includes('$newest')) continue;
      const needed = [...permissions['*']!, ...permissions[name]!];
      denied[id].clear();
      for (const other of all) if (!needed.includes(other)) denied[id].add(other);
      const call = () =>
        harness.engine.call({ principal: BOSS, entity: `sandbox/${id}`, action: name, input: example });
      await expect(call(), name).resolves.toMatchObject({ kind: 'result' });
      for (const one of needed) denied[id].add(one);
      await expect(call(), name).rejects.toMatchObject({ code: 'INSUFFICIENT_PERMISSIONS' });
    }
  });

  it('names all that each action needs that makes something new', async () => {
    const { permissions } = await providerOf(id).guide!();
    const all = [...new Set(Object.values(permissions).flat())];
    const newest = async (): Promise<string> => {
      const call = { principal: BOSS, entity: `sandbox/${id}`, action: 'list-snapshots', input: {} };
      const outcome = await harness.engine.call(call);
      const { snapshots } = (outcome.kind === 'result' ? outcome.output : {}) as { snapshots: RecoveryPoint[] };
      return snapshots.find(({ restorable }) => restorable)!.id;
    };
    const at = new Date(server.clock.now().getTime() - 3_600_000);
    at.setUTCSeconds(0, 0);
    const restore_timestamp = at.toISOString();
    const point = await newest();
    // Something to apply.
    cloudSql.instances.get(`${PROJECT}/orders-db`)!.settings['deletionProtectionEnabled'] = false;
    firestore.databases.get(`${PROJECT}/shop-carts`)!.protected = false;
    firestore.schedules.splice(0, 1);
    bigQuery.datasets.get('analytics')!.maxTimeTravelHours = 48;
    const calls: Record<Id, [string, JsonObject][]> = {
      'gcp-cloud-sql': [
        ['create-snapshot', { retention_days: 3 }],
        ['create-snapshot', {}],
        ['restore', { backup_id: point, target_instance: 'from-backup' }],
        ['restore', { restore_timestamp, target_instance: 'from-moment' }],
        ['apply-settings', {}],
      ],
      'gcp-firestore': [
        ['export-documents', {}],
        ['restore', { backup_name: point, target_database: 'from-backup' }],
        ['restore', { restore_timestamp, target_database: 'from-moment' }],
        ['apply-settings', {}],
        ['create-backup-schedule', { frequency: 'weekly', retention_days: 7 }],
      ],
      'gcp-bigquery': [
        ['create-snapshot', { source_table: 'orders', expires_at: '2099-01-01T00:00:00Z' }],
        ['restore', { snapshot_table: point, target_table: 'from_snapshot' }],
        ['restore', { source_table: 'orders', restore_timestamp, target_table: 'from_moment' }],
        ['apply-settings', {}],
      ],
    };
    for (const [action, input] of calls[id]) {
      const needed = [...permissions['*']!, ...permissions[action]!];
      denied[id].clear();
      for (const other of all) if (!needed.includes(other)) denied[id].add(other);
      const call = { principal: BOSS, entity: `sandbox/${id}`, action, input, wait: 'end' as const };
      await expect(harness.engine.call(call), action).resolves.toMatchObject({
        kind: expect.stringMatching(/operation|result/),
      });
    }
  });

  it('writes a role as gcloud takes it, for the project of the entity', async () => {
    const { permissions, policy, grant } = await providerOf(id).guide!();
    const all = [...new Set(Object.values(permissions).flat())].sort();
    const text = policy(['b.b.b', ...all, ...all], { project: 'my-project' });
    expect(load(text)).toEqual({
      title: expect.stringMatching(/^Holdfast for /),
      description: expect.any(String),
      stage: 'GA',
      includedPermissions: ['b.b.b', ...all].sort(),
    });
    expect(text).toMatch(/^# gcloud iam roles create holdfast\w+ --project=my-project --file=role\.yaml$/m);
    expect(grant).toBe('custom role');
    expect(policy(all)).toContain('PROJECT_ID');
  });

  it('speaks in whole sentences', async () => {
    const { behaviour, limits, credentials } = await providerOf(id).guide!();
    for (const sentence of [...behaviour, ...limits]) expect(sentence).toMatch(/^[A-Z0-9].*\.$/);
    expect(credentials.length).toBeGreaterThan(4);
  });

  it('is shown with a refusal, and the permission that Google named', async () => {
    const first = FIRST[id];
    denied[id].add(first);
    const call = harness.engine.call({
      principal: BOSS,
      entity: `sandbox/${id}`,
      action: 'get-backup-info',
      input: {},
    });
    await expect(call).rejects.toMatchObject({
      code: 'INSUFFICIENT_PERMISSIONS',
      hint: expect.stringContaining(first),
      details: {
        policy: expect.stringContaining(`- ${first}\n`),
        // Cloud SQL does not say which one it is.
        ...(id === 'gcp-cloud-sql' ? {} : { missing_permission: first }),
      },
    });
  });

  it('goes with the answer to which permissions there are, which changes nothing', async () => {
    const { permissions } = await providerOf(id).guide!();
    const all = [...new Set(Object.values(permissions).flat())];
    const [lacking = ''] = all.slice(-1);
    denied[id].add(lacking);
    const answer = await harness.engine.access({ principal: BOSS, entity: `sandbox/${id}`, permissions: all });
    expect(answer?.[lacking]).toBe(
      id === 'gcp-bigquery' && !lacking.startsWith('bigquery.jobs.') ? 'unknown' : 'refused',
    );
    expect(Object.entries(answer ?? {}).filter(([name, state]) => name !== lacking && state !== 'granted')).toEqual([]);
    for (const name of all) denied[id].add(name);
    const none = await harness.engine.access({ principal: BOSS, entity: `sandbox/${id}`, permissions: all });
    expect(Object.values(none ?? {})).not.toContain('granted');
    expect(server.writes()).toEqual([]);
  });

  it('gives unknown where Google does not answer the question', async () => {
    server.fault({ kind: '500', path: ':testIamPermissions' });
    const { permissions } = await providerOf(id).guide!();
    const asked = permissions['*']!;
    const answer = await harness.engine.access({ principal: BOSS, entity: `sandbox/${id}`, permissions: asked });
    expect(answer).toEqual(Object.fromEntries(asked.map((name) => [name, 'unknown'])));
  });
});

describe.each([
  ['gcp-cloud-sql', ['orders-db', 'legacy-shop', 'reports-db', 'staging-db']],
  ['gcp-firestore', ['shop-carts', 'shop-carts-copy', 'default', 'ledger']],
  ['gcp-bigquery', ['analytics', 'backups', 'analytics-eu', 'scratch']],
] as const)('looking through a project for %s', (id, names) => {
  it('finds every database, as an entity whose declared settings are in line', async () => {
    const discovery = await discover(id);
    expect(discovery).toMatchObject({ looked: `Google Cloud project ${PROJECT}`, problems: [] });
    expect(discovery?.found.map(({ name }) => name)).toEqual(names);
    expect(JSON.stringify(discovery)).not.toContain(TOKEN);
    expect(server.writes()).toEqual([]);
    const found = discovery!.found.map(({ name, defines, parameters }) => ({
      key: `found/${name}`,
      defines,
      parameters: { ...parameters, access_token: '${env:GOOGLE_OAUTH_ACCESS_TOKEN}' },
    }));
    await harness.close();
    harness = await open(found);
    for (const { key } of found) {
      const outcome = await harness.engine.call({ principal: BOSS, entity: key, action: 'check-settings', input: {} });
      const { settings } = (outcome.kind === 'result' ? outcome.output : {}) as unknown as SettingsCheck;
      expect(settings.length, key).toBeGreaterThan(2);
      expect(
        settings.filter(({ verdict }) => verdict !== 'as_declared'),
        key,
      ).toEqual([]);
    }
  });

  it('notes what may not be looked at, and ends only where the credentials are refused', async () => {
    const listing = {
      'gcp-cloud-sql': 'cloudsql.instances.list',
      'gcp-firestore': 'datastore.databases.list',
      'gcp-bigquery': 'bigquery.datasets.get',
    }[id];
    denied[id].add(listing);
    const discovery = await discover(id);
    expect(discovery?.found).toEqual([]);
    expect(discovery?.problems.join()).toMatch(/not (?:all )?\w* ?(?:are |is )?shown/);
    await expect(
      discover(id, { access_token: { secret: 'env', name: 'A' }, credentials_json: { secret: 'env', name: 'B' } }),
    ).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });
});

describe('looking through a project', () => {
  it('notes what a database lacks', async () => {
    const notes = (discovery: Discovery | undefined, name: string) =>
      discovery?.found.find((one) => one.name === name)?.notes.join(' ');
    expect(notes(await discover('gcp-cloud-sql'), 'legacy-shop')).toMatch(
      /Automated backups are off.*Point-in-time recovery is off.*Deletion protection is off/,
    );
    expect(notes(await discover('gcp-cloud-sql'), 'reports-db')).toMatch(/read replicas/);
    expect(notes(await discover('gcp-firestore'), 'default')).toMatch(
      /no backup schedule.*Point-in-time recovery is off.*Delete protection is off/,
    );
    expect(cloudSql.instances.size).toBe(5);
  });

  it('goes on where one location or one schedule cannot be read', async () => {
    firestore.unreachable.add('europe-west1');
    denied['gcp-firestore'].add('datastore.backupSchedules.list');
    const discovery = await discover('gcp-firestore');
    expect(discovery?.found).toHaveLength(4);
    expect(discovery?.found[0]?.parameters['backup_schedules']).toBeUndefined();
    expect(discovery?.problems.join()).toMatch(
      /databases of europe-west1 are not shown.*schedules of shop-carts are not shown/,
    );
  });

  it('finds nothing to look with without a sign of credentials', async () => {
    const runtime = { credential: (name: string) => (name === 'CLOUDSDK_CONFIG' ? '/nonexistent' : undefined) };
    for (const id of PROVIDERS) {
      const context = { runtime, access: {}, signal: new AbortController().signal } as never;
      await expect(providerOf(id).discover!(context)).resolves.toBeUndefined();
    }
  });
});
