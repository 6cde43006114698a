import { afterEach, describe, expect, it } from 'vitest';
import type { Provider } from '../../src/core/provider.ts';
import { collect } from '../../src/engine/registry.ts';
import { mongodbAtlas } from '../../src/providers/mongodb-atlas/provider.ts';
import { redisCloud } from '../../src/providers/redis-cloud/provider.ts';
import { type AtlasState, mongodbAtlasSimulator } from '../../src/simulators/mongodb-atlas.ts';
import { type RedisCloudState, redisCloudSimulator } from '../../src/simulators/redis-cloud.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import * as atlasTools from '../../tools/mongodb-atlas.ts';
import * as redisTools from '../../tools/redis-cloud.ts';
import { PROJECT } from '../support/atlas.ts';
import { BOSS, type Harness, startHarness } from '../support/harness.ts';

const modules = { atlas: atlasTools, redis: redisTools };
const guides = [
  ['Atlas', mongodbAtlas as unknown as Provider, { atlas: atlasTools }],
  ['Redis Cloud', redisCloud as unknown as Provider, { redis: redisTools }],
] as const;

describe.each(guides)('the guide to %s', (_, provider, own) => {
  it('has the permissions of every action, and of no other', async () => {
    const { permissions } = await provider.guide!();
    const actions = collect(own).actions.map(({ name }) => name);
    expect(Object.keys(permissions).sort()).toEqual(['*', ...actions].sort());
  });

  it('says its parts in whole sentences, and names credentials that no one can take for a secret', async () => {
    const { behaviour, limits, credentials } = await provider.guide!();
    for (const sentence of [...behaviour, ...limits]) expect(sentence).toMatch(/^[A-Z0-9].*\.$/);
    expect(credentials.join('\n')).toContain('entity');
  });
});

describe('the grants', () => {
  it('of Atlas are roles of the project of the entity, each once', async () => {
    const { policy, permissions } = await mongodbAtlas.guide!();
    const written = policy([...permissions['*']!, ...permissions['apply-settings']!], { project_id: PROJECT });
    expect(written).toContain(`project ${PROJECT}`);
    expect(written.match(/^ {2}- .*$/gm)).toEqual([
      '  - Project Read Only',
      '  - Project Cluster Manager',
      '  - Project Backup Manager',
    ]);
  });

  it('of Redis Cloud are the lesser of two roles that is enough', async () => {
    const { policy, permissions } = await redisCloud.guide!();
    expect(policy(permissions['*']!)).toMatch(/^role: Viewer$/m);
    expect(policy([...permissions['*']!, ...permissions['restore']!])).toMatch(/^role: Owner$/m);
  });
});

describe('looking through an account', () => {
  let server: SimulatorServer;
  let atlas: AtlasState;
  let redis: RedisCloudState;
  let harness: Harness | undefined;
  afterEach(async () => {
    await harness?.close();
    await server.close();
  });

  async function open(entities: Parameters<typeof startHarness>[0]['entities'] = []): Promise<Harness> {
    await harness?.close();
    harness = await startHarness({ modules, entities });
    return harness;
  }

  async function start(): Promise<void> {
    server = await startSimulators({
      simulators: (clock) => {
        const simulators = [mongodbAtlasSimulator({ clock }), redisCloudSimulator({ clock })] as const;
        atlas = simulators[0].state;
        redis = simulators[1].state;
        return simulators;
      },
    });
  }

  const ref = (name: string) => ({ secret: 'env', name });
  const ATLAS_ACCESS = { client_id: 'mdb_sa_id_sandbox', client_secret: ref('ATLAS_SECRET') };
  const REDIS_ACCESS = { access_key: ref('REDIS_ACCESS'), secret_key: ref('REDIS_SECRET') };
  const look = async (provider: string, access: Record<string, unknown>) =>
    (await open()).engine.discover({ principal: BOSS, provider, access, endpoint: server.origin });

  it.each([
    ['mongodb-atlas', ATLAS_ACCESS, { client_id: 'mdb_sa_id_sandbox', client_secret: '${env:ATLAS_SECRET}' }],
    ['redis-cloud', REDIS_ACCESS, { access_key: '${env:REDIS_ACCESS}', secret_key: '${env:REDIS_SECRET}' }],
  ])(
    'of %s finds every database with settings that are in line, and writes nothing',
    async (id, access, credentials) => {
      await start();
      atlas.pageLimit = 2;
      const { found, problems } = (await look(id, access))!;
      expect(problems).toEqual([]);
      const count =
        id === 'mongodb-atlas' ? atlas.clusters.filter(({ deleted }) => !deleted).length : redis.databases.size + 2;
      expect(found).toHaveLength(count);
      const entities = found.map(({ defines, parameters }, index) => ({
        key: `found/e${index}`,
        defines,
        parameters: { ...credentials, ...parameters },
        endpoint: server.origin,
      }));
      const { engine } = await open(entities);
      for (const { key, parameters } of entities) {
        const call = { principal: BOSS, entity: key, action: 'check-settings', input: {} };
        const outcome = await engine.call(call);
        expect(outcome, JSON.stringify(parameters)).toMatchObject({ kind: 'result', output: { in_line: true } });
      }
      expect(server.writes()).toEqual([]);
      expect(JSON.stringify(found)).not.toMatch(/secret-|password/);
    },
  );

  it('notes what is not protected', async () => {
    await start();
    const clusters = (await look('mongodb-atlas', { ...ATLAS_ACCESS, project_id: PROJECT }))!;
    const notes = Object.fromEntries(clusters.found.map((one) => [one.name, one.notes.join(' ')]));
    expect(Object.keys(notes)).not.toContain('archive');
    expect(notes['sandbox-cluster']).toBe('');
    expect(notes['legacy-reports']).toMatch(/Cloud backup is off.*Termination protection is off/);
    expect(notes['free-playground']).toMatch(/free cluster/);
    expect(notes['flex-notes']).toMatch(/one snapshot a day/);
    redis.databases.get(51003101)!.backup = { destination: 'ftp://user:pa55@host/x/', interval: 'every-2-hours' };
    const { found } = (await look('redis-cloud', REDIS_ACCESS))!;
    const about = Object.fromEntries(found.map((one) => [one.name, one.notes.join(' ')]));
    expect(about['previews']).toMatch(/Nothing backs it up.*persistence is off/);
    expect(about['free']).toMatch(/plan has no backups/);
    expect(about['sessions']).toMatch(/declare it as a reference/);
    expect(JSON.stringify(found)).not.toContain('pa55');
  });

  it('lists what is refused, and is not made without credentials', async () => {
    await start();
    atlas.denied.set('GET /flexClusters', 'USER_UNAUTHORIZED');
    atlas.denied.set('GET /sandbox-cluster/backup/schedule', 'USER_UNAUTHORIZED');
    const { found, problems } = (await look('mongodb-atlas', { ...ATLAS_ACCESS, project_id: PROJECT }))!;
    expect(problems.join('\n')).toMatch(/schedule of 'sandbox-cluster'|Flex clusters/);
    expect(found.find(({ name }) => name === 'sandbox-cluster')?.notes).toEqual([
      'Its backup schedule could not be read.',
    ]);
    atlas.refused.add('mdb_sa_id_sandbox');
    await expect(look('mongodb-atlas', ATLAS_ACCESS)).rejects.toMatchObject({ code: 'AUTHENTICATION_FAILED' });
    redis.deny = 403;
    expect((await look('redis-cloud', REDIS_ACCESS))!.problems).toHaveLength(2);
    expect(await look('mongodb-atlas', {})).toBeUndefined();
    expect(await look('redis-cloud', {})).toBeUndefined();
  });
});
