import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { HttpConfig } from '../../src/surfaces/mcp/auth.ts';
import { type HttpOptions, type HttpSurface, serveHttp } from '../../src/surfaces/mcp/http.ts';
import { buildServer } from '../../src/surfaces/mcp/server.ts';
import { connectClient } from '../support/mcp-clients.ts';
import { type MemoryFleet, openMemoryFleet } from '../support/memory-fleet.ts';

const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const hash = (token: string): string => createHash('sha256').update(token).digest('hex');
const TOKENS = [
  { name: 'ops', sha256: hash('ops-token'), roles: ['operator'] as const },
  { name: 'eyes', sha256: hash('eyes-token'), roles: ['viewer'] as const },
  { name: 'old', sha256: hash('old-token'), roles: ['operator'] as const, expires_at: '2026-01-01T00:00:00Z' },
];
const bearer = (token: string): Record<string, string> => ({ Authorization: `Bearer ${token}` });

let fleet: MemoryFleet;
let open: HttpSurface[];
let time: number;

beforeEach(async () => {
  fleet = await openMemoryFleet();
  open = [];
  time = Date.parse('2026-11-21T12:00:00Z');
});

afterEach(async () => {
  await Promise.all(open.map((surface) => surface.close()));
  await fleet.close();
});

async function serve(config: HttpConfig = {}, options: Partial<HttpOptions> = {}): Promise<HttpSurface> {
  const deps = {
    engine: fleet.engine,
    principal: { id: 'http:local', person: 'local', roles: ['operator'] },
    stateKey: Buffer.alloc(32, 1),
    log,
  } as const;
  const surface = await serveHttp((context) => buildServer(deps, context), {
    config: { port: 0, ...config },
    log,
    now: () => new Date(time),
    ...options,
  });
  open.push(surface);
  return surface;
}

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: string;
}

// Not fetch: it sets Host by itself.
function send(
  url: string,
  options: { method?: string; headers?: Record<string, string>; body?: string | undefined } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, { method: options.method ?? 'POST', headers: options.headers }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
    });
    request.on('error', reject);
    request.end(options.body);
  });
}

const JSON_HEADERS = { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream' };
const INITIALIZE = JSON.stringify({
  jsonrpc: '2.0',
  id: 1,
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 't', version: '1' } },
});
const initialize = (url: string, headers: Record<string, string> = {}): Promise<Answer> =>
  send(url, { headers: { ...JSON_HEADERS, ...headers }, body: INITIALIZE });
const list = (url: string, headers: Record<string, string>): Promise<Answer> =>
  send(url, {
    headers: { ...JSON_HEADERS, 'MCP-Protocol-Version': '2025-11-25', ...headers },
    body: JSON.stringify({ jsonrpc: '2.0', id: 2, method: 'tools/list', params: {} }),
  });

describe('the address', () => {
  it.each([
    [{ host: '0.0.0.0' }, /server.tokens and server.allowed_hosts/],
    [{ host: '10.0.0.5', tokens: TOKENS }, /without server.allowed_hosts/],
    [{ host: '::', allowed_hosts: ['backup.example'] }, /without server.tokens/],
    [{ tokens: [{ name: 'x', sha256: 'ops-token', roles: ['operator'] }] }, /is not a SHA-256/],
    [{ tokens: [TOKENS[0]!, TOKENS[0]!] }, /two tokens called 'ops'/],
  ] as [HttpConfig, RegExp][])('refuses to start with %j', async (config, message) => {
    await expect(serve(config)).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringMatching(message),
    });
  });

  it('starts elsewhere with tokens and allowed hosts, and answers only to those names', async () => {
    const surface = await serve({ host: '0.0.0.0', tokens: TOKENS, allowed_hosts: ['backup.example'] });
    const url = surface.url.replace('0.0.0.0', '127.0.0.1');
    expect((await initialize(url, bearer('ops-token'))).status).toBe(403);
    expect((await initialize(url, { ...bearer('ops-token'), Host: 'backup.example:7311' })).status).toBe(200);
  });

  it('says that the port is in use', async () => {
    const first = await serve();
    await expect(serve({ port: Number(new URL(first.url).port) })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('the port is in use'),
    });
  });

  it('answers health checks whatever their Host, and nothing else beside /mcp', async () => {
    const { url } = await serve({ tokens: TOKENS });
    const health = await send(url.replace('/mcp', '/healthz'), { method: 'GET', headers: { Host: '10.1.2.3' } });
    expect(health).toMatchObject({ status: 200, body: 'ok\n' });
    expect((await send(url.replace('/mcp', '/'), { method: 'GET' })).status).toBe(404);
  });
});

describe('Host and Origin', () => {
  it.each([
    [{ Host: 'evil.example' }, 403],
    [{ Origin: 'https://evil.example' }, 403],
    [{ Origin: 'null' }, 403],
    [{ Host: 'localhost:1' }, 200],
    [{ Origin: 'http://localhost:3000' }, 200],
    [{}, 200],
  ])('%j gives %i', async (headers, status) => {
    const { url } = await serve();
    expect((await initialize(url, headers as Record<string, string>)).status).toBe(status);
  });

  it('lets in the names and origins of the configuration, a name with a port only with that port', async () => {
    const { url } = await serve({
      allowed_hosts: ['backup.example', 'other.example:8443'],
      allowed_origins: ['https://console.example:444'],
    });
    const status = async (headers: Record<string, string>): Promise<number> => (await initialize(url, headers)).status;
    expect(await status({ Host: 'backup.example:99' })).toBe(200);
    expect(await status({ Host: 'Other.example:8443' })).toBe(200);
    expect(await status({ Host: 'other.example:8444' })).toBe(403);
    expect(await status({ Origin: 'https://console.example:444' })).toBe(200);
    expect(await status({ Origin: 'https://console.example' })).toBe(403);
    expect(await status({ Origin: 'https://backup.example' })).toBe(200);
  });
});

describe('tokens', () => {
  it.each([
    ['none', {}],
    ['a wrong one', bearer('ops-tokeN')],
    ['an expired one', bearer('old-token')],
    ['the hash itself', bearer(hash('ops-token'))],
    ['another scheme', { Authorization: 'Basic ops-token' }],
    ['an empty one', { Authorization: 'Bearer ' }],
  ])('refuses %s', async (_what, headers) => {
    const { url } = await serve({ tokens: TOKENS });
    const answer = await initialize(url, headers as Record<string, string>);
    expect(answer.status).toBe(401);
    expect(answer.headers['www-authenticate']).toContain('Bearer');
    expect(answer.body).not.toContain('ops');
  });

  it('names the caller of a confirmation after the token', async () => {
    const { url } = await serve({ tokens: TOKENS });
    const client = await connectClient('sdk 2 on 2026-07-28', { url, headers: bearer('ops-token') });
    await client.call('memory_db_restore', { entity: 'shop/orders', snapshot_id: 's1' });
    await client.close();
    const [record] = await fleet.engine.confirmations({ limit: 1 });
    expect(record).toMatchObject({ principal: 'http:ops', person: 'ops' });
  });

  it.each(['sdk 1', 'sdk 2 on 2026-07-28'] as const)('shows a viewer only what reads (%s)', async (kind) => {
    const { url } = await serve({ tokens: TOKENS });
    const client = await connectClient(kind, { url, headers: bearer('eyes-token') });
    const tools = await client.tools();
    expect(tools.map(({ name }) => name)).toEqual([
      'backup_list_databases',
      'backup_wait_operation',
      'memory_db_explode',
      'memory_db_list_snapshots',
      'memory_db_watch',
    ]);
    await expect(client.call('memory_db_restore', { entity: 'shop/orders', snapshot_id: 's1' })).rejects.toMatchObject({
      code: -32_602,
    });
    await client.close();
  });

  it('does not let one principal use the confirmation of another', async () => {
    const { url } = await serve({
      tokens: [...TOKENS, { name: 'other', sha256: hash('other-token'), roles: ['operator'] as const }],
    });
    const args = { entity: 'shop/orders', snapshot_id: 's1' };
    const first = await connectClient('sdk 1', { url, headers: bearer('ops-token') });
    const { structured } = await first.call('memory_db_restore', args);
    await first.close();
    const { token, code } = structured['confirmation'] as { token: string; code: string };
    const by = { id: 'terminal:ana', person: 'ana', roles: ['approver'] } as const;
    await fleet.engine.approve({ confirmation: code, by, via: 'terminal', typedTarget: 'memory/orders' });
    const second = await connectClient('sdk 1', { url, headers: bearer('other-token') });
    const stolen = await second.call('memory_db_restore', { ...args, confirmation_token: token });
    await second.close();
    expect(stolen.structured).toMatchObject({ error: { code: 'CONFIRMATION_MISMATCH' } });
    expect(fleet.world.restored).toEqual([]);
  });
});

describe('sessions', () => {
  it('are tied to the principal that opened them', async () => {
    const { url } = await serve({ tokens: TOKENS });
    const opened = await initialize(url, bearer('ops-token'));
    const session = { 'Mcp-Session-Id': String(opened.headers['mcp-session-id']) };
    expect((await list(url, { ...bearer('ops-token'), ...session })).status).toBe(200);
    expect((await list(url, { ...bearer('eyes-token'), ...session })).status).toBe(404);
    const ended = await send(url, { method: 'DELETE', headers: { ...bearer('eyes-token'), ...session } });
    expect(ended.status).toBe(404);
    expect((await list(url, { ...bearer('ops-token'), ...session })).status).toBe(200);
  });

  it('end by DELETE, and an unknown one is 404', async () => {
    const surface = await serve();
    const opened = await initialize(surface.url);
    const session = { 'Mcp-Session-Id': String(opened.headers['mcp-session-id']) };
    expect(surface.sessions()).toBe(1);
    expect((await send(surface.url, { method: 'DELETE', headers: session })).status).toBe(200);
    expect(surface.sessions()).toBe(0);
    expect((await list(surface.url, session)).status).toBe(404);
  });

  it('are capped: the one idle for longest makes room', async () => {
    const surface = await serve({ max_sessions: 2 });
    const ids: string[] = [];
    for (let count = 0; count < 3; count += 1) {
      ids.push(String((await initialize(surface.url)).headers['mcp-session-id']));
    }
    expect(surface.sessions()).toBe(2);
    expect((await list(surface.url, { 'Mcp-Session-Id': ids[0]! })).status).toBe(404);
    expect((await list(surface.url, { 'Mcp-Session-Id': ids[2]! })).status).toBe(200);
  });

  it('in use are not pushed out: a newcomer is told to come back', async () => {
    const surface = await serve({ max_sessions: 1 });
    const watching = once(fleet.world, 'watching');
    const busy = await connectClient('sdk 2 by default', { url: surface.url });
    const stop = new AbortController();
    const call = busy.call('memory_db_watch', { entity: 'shop/orders' }, { signal: stop.signal });
    await watching;
    const refused = await initialize(surface.url);
    expect(refused).toMatchObject({ status: 503, headers: { 'retry-after': '60' } });
    stop.abort();
    await expect(call).rejects.toThrow();
    await busy.close();
  });

  it('in use do not expire', async () => {
    const surface = await serve({ session_idle_seconds: 600 });
    const opened = await initialize(surface.url);
    const session = { 'Mcp-Session-Id': String(opened.headers['mcp-session-id']) };
    const watching = once(fleet.world, 'watching');
    let aborted = false;
    fleet.world.once('aborted', () => {
      aborted = true;
    });
    const running = httpRequest(surface.url, {
      method: 'POST',
      headers: { ...JSON_HEADERS, 'MCP-Protocol-Version': '2025-11-25', ...session },
    });
    running.on('error', () => {});
    const call = { name: 'memory_db_watch', arguments: { entity: 'shop/orders' } };
    running.end(JSON.stringify({ jsonrpc: '2.0', id: 9, method: 'tools/call', params: call }));
    await watching;
    time += 601_000;
    expect((await list(surface.url, session)).status).toBe(200);
    expect(aborted).toBe(false);
    running.destroy();
  });

  it('that nobody uses expire', async () => {
    const surface = await serve({ session_idle_seconds: 600 });
    const session = { 'Mcp-Session-Id': String((await initialize(surface.url)).headers['mcp-session-id']) };
    time += 599_000;
    expect((await list(surface.url, session)).status).toBe(200);
    time += 601_000;
    expect((await list(surface.url, session)).status).toBe(404);
    expect(surface.sessions()).toBe(0);
  });

  it('are not needed by clients that drop the header', async () => {
    const { url } = await serve();
    const answer = await list(url, {});
    expect(answer.status).toBe(200);
    expect(answer.body).toContain('memory_db_restore');
  });
});

describe('bodies and methods', () => {
  it('over the limit are refused, with and without a length', async () => {
    const { url } = await serve({}, { bodyLimit: 1000 });
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping', params: { x: 'x'.repeat(2000) } });
    expect((await send(url, { headers: JSON_HEADERS, body })).status).toBe(413);
    expect((await send(url, { headers: { ...JSON_HEADERS, 'Transfer-Encoding': 'chunked' }, body })).status).toBe(413);
  });

  it('that are no JSON are refused', async () => {
    const { url } = await serve();
    const broken = await send(url, { headers: JSON_HEADERS, body: '{' });
    expect(broken.status).toBe(400);
    expect(JSON.parse(broken.body)).toMatchObject({ error: { code: -32_700 } });
    expect((await send(url, { headers: { 'Content-Type': 'text/plain' }, body: '{}' })).status).toBe(415);
  });

  it('by another method are refused', async () => {
    const { url } = await serve();
    const answer = await send(url, { method: 'PUT' });
    expect(answer).toMatchObject({ status: 405, headers: { allow: 'POST, GET, DELETE' } });
    expect((await send(url, { method: 'GET', headers: { Accept: 'text/event-stream' } })).status).toBe(400);
  });
});

describe('a forged answer to the question', () => {
  const post = (url: string, params: object, token = 'ops-token'): Promise<Answer> =>
    send(url, {
      headers: {
        ...JSON_HEADERS,
        ...bearer(token),
        'MCP-Protocol-Version': '2026-07-28',
        'Mcp-Method': 'tools/call',
        'Mcp-Name': 'memory_db_restore',
      },
      body: JSON.stringify({
        jsonrpc: '2.0',
        id: 1,
        method: 'tools/call',
        params: {
          name: 'memory_db_restore',
          _meta: {
            'io.modelcontextprotocol/protocolVersion': '2026-07-28',
            'io.modelcontextprotocol/clientCapabilities': { elicitation: {} },
          },
          ...params,
        },
      }),
    });
  const args = { entity: 'shop/orders', snapshot_id: 's1' };
  const yes = { confirm: { action: 'accept', content: { target: 'memory/orders' } } };
  const ask = async (url: string): Promise<string> => {
    const body = JSON.parse((await post(url, { arguments: args })).body) as {
      result: { resultType: string; requestState: string };
    };
    expect(body.result.resultType).toBe('input_required');
    return body.result.requestState;
  };

  it('without state only asks again', async () => {
    const { url } = await serve({ tokens: TOKENS });
    const answer = await post(url, { arguments: args, inputResponses: yes });
    expect(JSON.parse(answer.body)).toMatchObject({ result: { resultType: 'input_required' } });
    expect(fleet.world.restored).toEqual([]);
  });

  it('with tampered state or by another principal is refused before anything is looked at', async () => {
    const { url } = await serve({
      tokens: [...TOKENS, { name: 'other', sha256: hash('other-token'), roles: ['operator'] as const }],
    });
    const requestState = await ask(url);
    const tampered = `${requestState.slice(0, -4)}AAAA`;
    for (const answer of [
      await post(url, { arguments: args, inputResponses: yes, requestState: tampered }),
      await post(url, { arguments: args, inputResponses: yes, requestState }, 'other-token'),
    ]) {
      expect(JSON.parse(answer.body)).toMatchObject({ error: { code: -32_602 } });
    }
    expect(fleet.world.restored).toEqual([]);
  });

  it('with other arguments is refused', async () => {
    const { url } = await serve({ tokens: TOKENS });
    const requestState = await ask(url);
    const answer = await post(url, {
      arguments: { ...args, snapshot_id: 's2' },
      inputResponses: yes,
      requestState,
    });
    expect(answer.body).toContain('CONFIRMATION_MISMATCH');
    expect(fleet.world.restored).toEqual([]);
  });

  it('replayed, after a no, or twice at once runs once at most', async () => {
    const { url } = await serve({ tokens: TOKENS });
    const accepted = await ask(url);
    const both = await Promise.all([
      post(url, { arguments: args, inputResponses: yes, requestState: accepted }),
      post(url, { arguments: args, inputResponses: yes, requestState: accepted }),
    ]);
    expect(both.filter(({ body }) => body.includes('"succeeded"'))).toHaveLength(1);
    const replayed = await post(url, { arguments: args, inputResponses: yes, requestState: accepted });
    expect(replayed.body).toContain('CONFIRMATION_USED');
    const denied = await ask(url);
    await post(url, { arguments: args, inputResponses: { confirm: { action: 'decline' } }, requestState: denied });
    const late = await post(url, { arguments: args, inputResponses: yes, requestState: denied });
    expect(late.body).toContain('CONFIRMATION_DENIED');
    expect(fleet.world.restored).toEqual(['s1']);
  });

  it('takes no bare id of a confirmation', async () => {
    const { url } = await serve({ tokens: TOKENS });
    await ask(url);
    const [record] = await fleet.engine.confirmations({ limit: 1 });
    const answer = await post(url, { arguments: { ...args, confirmation_token: record!.id } });
    expect(answer.body).toContain('CONFIRMATION_INVALID');
  });
});

describe('policy that wants more than the client’s own answer', () => {
  it.each([[{ approver: 'out-of-band' }], [{ confirm: 'two-people' }]] as const)(
    'is not satisfied by elicitation: %j',
    async (policy) => {
      await fleet.close();
      fleet = await openMemoryFleet({ policy });
      const { url } = await serve();
      let asked = 0;
      const client = await connectClient('sdk 2 on 2026-07-28', { url }, () => {
        asked += 1;
        return { action: 'accept', content: { target: 'memory/orders' } };
      });
      const answer = await client.call('memory_db_restore', { entity: 'shop/orders', snapshot_id: 's1' });
      await client.close();
      expect(asked).toBe(0);
      expect(answer.structured).toMatchObject({
        error: { code: 'CONFIRMATION_REQUIRED' },
        confirmation: { out_of_band: true, approve_with: expect.stringContaining('holdfast approve') },
      });
      expect(answer.structured['confirmation']).not.toHaveProperty('id');
    },
  );

  it('gives a live token where policy wants only a token', async () => {
    await fleet.close();
    fleet = await openMemoryFleet({ policy: { confirm: 'token' } });
    const { url } = await serve();
    const client = await connectClient('sdk 1', { url });
    const args = { entity: 'shop/orders', snapshot_id: 's1' };
    const first = await client.call('memory_db_restore', args);
    const { token } = first.structured['confirmation'] as { token: string };
    const second = await client.call('memory_db_restore', { ...args, confirmation_token: token });
    await client.close();
    expect(second.structured).toMatchObject({ status: 'succeeded' });
  });
});

describe('close', () => {
  it('lets a running call end, then lets nothing in', async () => {
    fleet.world.hold = true;
    const surface = await serve({}, { closeGraceMs: 5_000 });
    const held = once(fleet.world, 'held');
    const client = await connectClient('sdk 2 on 2026-07-28', { url: surface.url }, () => ({
      action: 'accept',
      content: { target: 'memory/orders' },
    }));
    const call = client.call('memory_db_restore', { entity: 'shop/orders', snapshot_id: 's1' });
    await held;
    const closed = surface.close();
    fleet.world.emit('go');
    expect((await call).structured).toMatchObject({ status: 'succeeded' });
    await closed;
    await expect(initialize(surface.url)).rejects.toThrow(/ECONNREFUSED/);
    await client.close();
  });

  it('cuts off what does not end within the grace', async () => {
    const surface = await serve({}, { closeGraceMs: 10 });
    const watching = once(fleet.world, 'watching');
    const aborted = once(fleet.world, 'aborted');
    const client = await connectClient('sdk 2 on 2026-07-28', { url: surface.url });
    const call = client.call('memory_db_watch', { entity: 'shop/orders' });
    await watching;
    await surface.close();
    await expect(call).rejects.toThrow();
    await aborted;
    await client.close();
  });
});
