import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { simulators } from '../../src/simulators/index.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';

let server: SimulatorServer;
beforeEach(async () => {
  server = await startSimulators({ simulators: (clock) => simulators.map((create) => create({ clock })) });
});
afterEach(() => server.close());

const control = async (method: string, path: string, body?: unknown) => {
  const response = await fetch(`${server.origin}${path}`, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
};
const entries = async (query = '') =>
  (await control('GET', `/_journal${query}`)).body['entries'] as Record<string, unknown>[];

describe('the sandbox server', () => {
  it('writes down what was asked, by whom it was answered and whether it writes, without secrets', async () => {
    await fetch(`${server.origin}/api/oauth/token`, {
      method: 'POST',
      headers: { authorization: 'Basic canary-in-header' },
      body: 'grant_type=client_credentials',
    });
    await fetch(`${server.origin}/v1/subscriptions/1/databases/2/import`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        sourceType: 'ftp',
        importFromUri: ['ftp://user:canary-in-uri@host/f.rdb?sig=canary-in-query'],
        password: 'canary-in-field',
      }),
    });
    const all = await entries();
    expect(all.map(({ provider, method, path }) => [provider, method, path])).toEqual([
      ['mongodb-atlas', 'POST', '/api/oauth/token'],
      ['redis-cloud', 'POST', '/v1/subscriptions/1/databases/2/import'],
    ]);
    expect(all[1]).toMatchObject({ writes: true, body: { sourceType: 'ftp', password: '***' } });
    expect(JSON.stringify(all)).not.toContain('canary');
    expect(await entries('?provider=redis-cloud')).toHaveLength(1);
    expect((await entries('?writes=true')).map(({ provider }) => provider)).toContain('redis-cloud');
    await control('DELETE', '/_journal');
    expect(await entries()).toEqual([]);
  });

  it('takes, lists and drops faults, and refuses kinds that it does not know', async () => {
    expect(
      (await control('POST', '/_faults', { kind: '503', provider: 'gcp-cloud-sql', times: 1, retry_after: 7 })).status,
    ).toBe(200);
    const hit = await fetch(`${server.origin}/v1/projects/p/instances`);
    expect([hit.status, hit.headers.get('retry-after')]).toEqual([503, '7']);
    expect((await fetch(`${server.origin}/v1/projects/p/instances`)).status).not.toBe(503);
    expect(
      (await control('POST', '/_faults', { faults: [{ kind: 'reset', rate: 0 }], replace: true })).body['faults'],
    ).toHaveLength(1);
    expect((await control('POST', '/_faults', { kind: 'earthquake' })).status).toBe(400);
    await control('DELETE', '/_faults');
    expect((await control('GET', '/_faults')).body['faults']).toEqual([]);
  });

  it('moves its clock on, stops it and lets it run again', async () => {
    const now = async (body?: unknown) =>
      Date.parse(String((await control(body === undefined ? 'GET' : 'POST', '/_clock', body)).body['now']));
    const before = await now();
    expect((await now({ advance: '6h' })) - before).toBeGreaterThanOrEqual(21_600_000);
    const frozen = await now({ frozen: true });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await now()).toBe(frozen);
    expect(await now({ advance_seconds: 5 })).toBe(frozen + 5000);
    await now({ frozen: false });
    await expect.poll(() => now()).toBeGreaterThan(frozen + 5000);
    expect((await control('POST', '/_clock', { advance: 'soon' })).status).toBe(400);
  });

  it('says what there is where it does not know a path', async () => {
    expect((await control('GET', '/_nothing')).body['routes']).toBeDefined();
    expect((await fetch(`${server.origin}/nobody/has/this`)).status).toBe(404);
  });

  it('says that its port is taken', async () => {
    await expect(startSimulators({ simulators: () => [], port: server.port })).rejects.toMatchObject({
      code: 'INVALID_STATE',
    });
  });
});
