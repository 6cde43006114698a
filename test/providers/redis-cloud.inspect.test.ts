import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import { endpointOf, inspect, parseInfo } from '../../src/providers/redis-cloud/inspect.ts';
import { redisReason, startRedis, type TestRedis, withoutRedis } from '../support/redis.ts';

const signal = new AbortController().signal;

async function failure(work: Promise<unknown>): Promise<HoldfastError> {
  const cause = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(cause).toBeInstanceOf(HoldfastError);
  return cause as HoldfastError;
}

describe.skipIf(withoutRedis)(`Redis inspector on a real server${redisReason}`, () => {
  let server: TestRedis;
  let admin: Redis;

  beforeAll(async () => {
    server = await startRedis();
    admin = new Redis(server.url);
    const pipeline = admin.pipeline();
    for (let index = 0; index < 300; index += 1) pipeline.set(`cart:${index}`, `canary-value-${index}`);
    for (let index = 0; index < 100; index += 1) pipeline.set(`session:${index}`, 'canary-value', 'EX', 3600);
    pipeline.set('anna@example.com', 'canary-value');
    pipeline.set('one\u0007\u202ebad:1', 'x');
    pipeline.set('one\u0007\u202ebad:2', 'x');
    pipeline.select(3);
    pipeline.set('other:1', 'x');
    await pipeline.exec();
    await admin.select(0);
    await admin.call(
      'ACL',
      'SETUSER',
      'inspector',
      'on',
      '>canary-pass',
      '~*',
      '+info',
      '+dbsize',
      '+scan',
      '+ping',
      '+hello',
      '+client|setname',
      '+client|list',
    );
    await admin.call(
      'ACL',
      'SETUSER',
      'blind',
      'on',
      '>canary-pass',
      '~*',
      '+info',
      '+dbsize',
      '+hello',
      '+client|setname',
    );
    await admin.call('ACL', 'SETUSER', 'nothing', 'on', '>canary-pass', '~*', '+hello', '+client|setname');
  });

  afterAll(async () => {
    admin?.disconnect();
    await server?.stop();
  });

  const asUser = (user: string, password = 'canary-pass') => `redis://${user}:${password}@127.0.0.1:${server.port}`;

  it('counts keys, shows shared prefixes and never a value or a whole key', async () => {
    // The server works the mean time to live out in the background.
    await expect.poll(() => admin.info('keyspace')).toMatch(/db0:\S*avg_ttl=[1-9]/);
    const seen = await inspect(asUser('inspector'), signal);
    expect(seen.keys).toBe(403);
    expect(seen.databases['db0']).toMatchObject({ keys: 403, expires: 100 });
    expect(seen.databases['db3']).toMatchObject({ keys: 1, expires: 0 });
    expect(seen.databases['db0']?.mean_ttl_seconds).toBeGreaterThan(3000);
    expect(seen.prefixes).toEqual([
      { prefix: 'cart', sampled: 300 },
      { prefix: 'session', sampled: 100 },
      { prefix: 'one bad', sampled: 2 },
    ]);
    expect(seen.sampled).toBe(403);
    expect(seen.role).toBe('master');
    expect(seen.replicas).toBe(0);
    expect(seen.clients).toBeGreaterThanOrEqual(2);
    expect(seen.memory.used_bytes).toBeGreaterThan(100_000);
    expect(seen.gaps).toEqual([]);
    expect(JSON.stringify(seen)).not.toMatch(/canary|anna/);
  });

  it('sends nothing but the commands that its user may have', async () => {
    const sent: string[] = [];
    const watcher = await admin.duplicate().monitor();
    watcher.on('monitor', (_time: string, command: string[]) => sent.push((command[0] ?? '').toLowerCase()));
    await inspect(asUser('inspector'), signal);
    // One more command of our own shows that everything before it has been seen.
    const last = new Promise<void>((resolve) => {
      watcher.on('monitor', (_time: string, command: string[]) => command[1] === 'over' && resolve());
    });
    await admin.echo('over');
    await last;
    watcher.disconnect();
    expect(new Set(sent)).toEqual(new Set(['hello', 'client', 'info', 'dbsize', 'scan', 'echo']));
  });

  it('stops its sample at a thousand keys', async () => {
    const pipeline = admin.pipeline();
    pipeline.select(0);
    for (let index = 0; index < 3000; index += 1) pipeline.set(`bulk:${index}`, 'x');
    await pipeline.exec();
    const seen = await inspect(asUser('inspector'), signal);
    expect(seen.keys).toBe(3403);
    expect(seen.sampled).toBe(1000);
    await admin.del(...Array.from({ length: 3000 }, (_, index) => `bulk:${index}`));
  });

  it('says what its user was refused, and gives the rest', async () => {
    const seen = await inspect(asUser('blind'), signal);
    expect(seen.keys).toBe(403);
    expect(seen.gaps).toEqual(['SCAN']);
    expect(seen.prefixes).toEqual([]);
  });

  it('maps a refused user to INSUFFICIENT_PERMISSIONS', async () => {
    const error = await failure(inspect(asUser('nothing'), signal));
    expect(error.code).toBe('INSUFFICIENT_PERMISSIONS');
  });

  it('maps a wrong password to AUTHENTICATION_FAILED without telling it', async () => {
    const error = await failure(inspect(asUser('inspector', 'canary-wrong'), signal));
    expect(error.code).toBe('AUTHENTICATION_FAILED');
    expect(JSON.stringify([error.toJson(), String(error.cause), Object.values(error.cause ?? {})])).not.toContain(
      'canary',
    );
  });

  it('maps a closed port and a server that never answers to PROVIDER_UNAVAILABLE', async () => {
    const gone = await startRedis();
    await gone.stop();
    const error = await failure(inspect(gone.url, signal));
    expect(error.code).toBe('PROVIDER_UNAVAILABLE');
    expect(error.message).not.toContain(String(gone.port));
  });

  it('stops when the call is cancelled', async () => {
    const controller = new AbortController();
    controller.abort(new DOMException('cancelled', 'AbortError'));
    expect((await failure(inspect(server.url, controller.signal))).code).toBe('CANCELLED');
  });

  it('adds the keys of all masters in cluster mode', async () => {
    const servers = await Promise.all([
      startRedis(['--cluster-enabled', 'yes']),
      startRedis(['--cluster-enabled', 'yes']),
    ]);
    const nodes = servers.map(({ url }) => new Redis(url));
    try {
      const [a, b] = nodes as [Redis, Redis];
      await a.call('CLUSTER', 'ADDSLOTSRANGE', '0', '8191');
      await b.call('CLUSTER', 'ADDSLOTSRANGE', '8192', '16383');
      await a.call('CLUSTER', 'MEET', '127.0.0.1', String(servers[1]?.port));
      // The nodes get to know each other by gossip; there is no event to wait for but their own answer.
      await expect
        .poll(() => a.call('CLUSTER', 'SLOTS').then((slots) => (slots as unknown[]).length), { timeout: 20_000 })
        .toBe(2);
      await expect
        .poll(() => a.call('CLUSTER', 'INFO').then(String), { timeout: 20_000 })
        .toContain('cluster_state:ok');
      await expect
        .poll(() => b.call('CLUSTER', 'INFO').then(String), { timeout: 20_000 })
        .toContain('cluster_state:ok');
      // `foo` has slot 12182, `bar` 5061.
      await a.set('{bar}:1', 'x');
      await b.set('{foo}:1', 'x');
      await b.set('{foo}:2', 'x');
      const seen = await inspect(servers[0]?.url ?? '', signal);
      expect(seen.keys).toBe(3);
      expect(seen.gaps).toEqual([]);
      await servers[1]?.stop();
      const half = await inspect(servers[0]?.url ?? '', signal);
      expect(half.keys).toBe(1);
      expect(half.gaps).toEqual(['DBSIZE of a shard']);
    } finally {
      for (const node of nodes) node.disconnect();
      await Promise.all(servers.map((one) => one.stop()));
    }
  });
});

describe('Redis inspector', () => {
  it('refuses what is no Redis URL', async () => {
    for (const url of ['http://host:1', 'redis://', 'nonsense', 'redis//host']) {
      expect((await failure(inspect(url, signal))).code).toBe('INVALID_PARAMETER');
    }
  });

  it('reads endpoints and INFO', () => {
    expect(endpointOf('rediss://user:p%40ss@redis-1.example.com:12000/0')).toBe('redis-1.example.com:12000');
    expect(endpointOf('redis://localhost')).toBe('localhost:6379');
    expect(parseInfo('# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n\r\n')).toEqual({
      db0: 'keys=1,expires=0,avg_ttl=0',
    });
  });
});
