import { once } from 'node:events';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type HttpSurface, serveHttp } from '../../src/surfaces/mcp/http.ts';
import { buildServer, type McpDeps } from '../../src/surfaces/mcp/server.ts';
import {
  type Ask,
  CLIENTS,
  type ClientKind,
  connectClient,
  type Reply,
  type TestClient,
} from '../support/mcp-clients.ts';
import { type MemoryFleet, openMemoryFleet } from '../support/memory-fleet.ts';

const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const RESTORE = { entity: 'shop/orders', snapshot_id: 's1' };

let fleet: MemoryFleet;
let http: HttpSurface;

beforeAll(async () => {
  fleet = await openMemoryFleet();
  http = await serveHttp(
    (
      (deps: McpDeps) => (context) =>
        buildServer(deps, context)
    )({
      engine: fleet.engine,
      principal: { id: 'http:local', person: 'local', roles: ['operator'] },
      stateKey: Buffer.alloc(32, 1),
      log: { ...log, error: (message, fields) => void fleet.logged.push({ message, fields }) },
    }),
    { config: { port: 0 }, log },
  );
});

afterAll(async () => {
  await http.close();
  await fleet.close();
});

beforeEach(() => {
  fleet.world.restored = [];
  fleet.world.deleted = [];
  fleet.world.hold = false;
  fleet.world.state = 'ready';
});

async function withClient<T>(
  kind: ClientKind,
  work: (client: TestClient) => Promise<T>,
  answer?: (ask: Ask) => Reply | Promise<Reply>,
): Promise<T> {
  const client = await connectClient(kind, { url: http.url }, answer);
  try {
    return await work(client);
  } finally {
    await client.close();
  }
}

function confirmationOf(structured: Record<string, unknown>): { token: string; code: string } {
  return structured['confirmation'] as { token: string; code: string };
}

function codeOf(structured: Record<string, unknown>): unknown {
  return (structured['error'] as { code?: string } | undefined)?.code;
}

const PERSON = { id: 'terminal:ana', person: 'ana', roles: ['approver'] } as const;

describe.each(CLIENTS)('%s over HTTP', (kind) => {
  it('lists every action with the entities it can be called on', async () => {
    const tools = await withClient(kind, (client) => client.tools());
    expect(tools.map(({ name }) => name)).toEqual([
      'backup_list_databases',
      'backup_wait_operation',
      'memory_db_delete_snapshot',
      'memory_db_explode',
      'memory_db_list_snapshots',
      'memory_db_restore',
      'memory_db_watch',
    ]);
    expect(tools.find(({ name }) => name === 'memory_db_restore')).toMatchObject({
      inputSchema: {
        type: 'object',
        properties: {
          entity: { type: 'string', enum: ['shop/orders', 'shop/carts'] },
          snapshot_id: { type: 'string' },
          restore_timestamp: { type: 'string' },
          mode: { type: 'string', enum: ['fast', 'careful'] },
          safety_snapshot: { type: 'boolean' },
          confirmation_token: { type: 'string' },
        },
        required: ['entity', 'snapshot_id'],
      },
      annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: true },
    });
    expect(tools.find(({ name }) => name === 'memory_db_list_snapshots')?.annotations).toMatchObject({
      readOnlyHint: true,
      destructiveHint: false,
    });
  });

  it('answers a read with structured content and a rendering of the same facts', async () => {
    const answer = await withClient(kind, async (client) => {
      await client.tools();
      return client.call('memory_db_list_snapshots', { entity: 'shop/orders' });
    });
    expect(answer.isError).toBeFalsy();
    expect(answer.structured).toMatchObject({ snapshots: [{ id: 's2' }, { id: 's1' }] });
    expect(answer.text).toContain('snapshots (2):');
    expect(answer.text).toContain('2026-11-19T10:00:00.000Z');
    expect(answer.text).not.toContain('{');
  });

  it('refuses an argument that the action does not have, in our words', async () => {
    const answer = await withClient(kind, (client) =>
      client.call('memory_db_list_snapshots', { entity: 'shop/orders', limitt: 3 }),
    );
    expect(answer.isError).toBe(true);
    expect(codeOf(answer.structured)).toBe('INVALID_PARAMETER');
    expect(answer.text).toContain('limit');
  });

  it('refuses a confirmation token where none is taken, an entity that is not configured, and a missing one', async () => {
    const answers = await withClient(kind, async (client) => [
      await client.call('memory_db_list_snapshots', { entity: 'shop/orders', confirmation_token: 'hfc_x' }),
      await client.call('memory_db_list_snapshots', { entity: 'shop/order' }),
      await client.call('memory_db_list_snapshots', {}),
    ]);
    expect(answers.map(({ structured }) => codeOf(structured))).toEqual([
      'INVALID_PARAMETER',
      'ENTITY_NOT_FOUND',
      'INVALID_PARAMETER',
    ]);
    expect(answers[1]?.text).toContain('Did you mean shop/orders?');
  });

  it('answers an unknown tool with a protocol error', async () => {
    await withClient(kind, async (client) => {
      await expect(client.call('memory_db_format', {})).rejects.toMatchObject({ code: -32_602 });
      await expect(client.call('memory_db_list_backups', { entity: 'shop/orders' })).rejects.toMatchObject({
        code: -32_602,
      });
    });
  });

  it('never lets an unknown fault out', async () => {
    const answer = await withClient(kind, (client) => client.call('memory_db_explode', { entity: 'shop/orders' }));
    expect(codeOf(answer.structured)).toBe('INTERNAL');
    expect(JSON.stringify(answer)).not.toContain('hunter2');
  });

  it('gives plan and token to a client that cannot ask, and runs the same call after approval elsewhere', async () => {
    await withClient(kind, async (client) => {
      await client.tools();
      const first = await client.call('memory_db_restore', RESTORE);
      expect(first.isError).toBe(true);
      expect(codeOf(first.structured)).toBe('CONFIRMATION_REQUIRED');
      expect(first.structured['plan']).toMatchObject({ target: 'memory/orders', risk: 'overwrite' });
      expect(first.text).toContain('Loses: every write after 2026-11-19T10:00:00.000Z');
      expect(first.text).toContain('memory_db_list_snapshots {"entity":"shop/orders","limit":5}');
      const { token, code } = confirmationOf(first.structured);
      expect(first.text).toContain(token);
      const early = await client.call('memory_db_restore', { ...RESTORE, confirmation_token: token });
      expect(codeOf(early.structured)).toBe('CONFIRMATION_PENDING');
      expect(early.text).toContain(code);
      expect(fleet.world.restored).toEqual([]);
      await fleet.engine.approve({ confirmation: code, by: PERSON, via: 'terminal', typedTarget: 'memory/orders' });
      const other = await client.call('memory_db_restore', {
        ...RESTORE,
        snapshot_id: 's2',
        confirmation_token: token,
      });
      expect(codeOf(other.structured)).toBe('CONFIRMATION_MISMATCH');
      const done = await client.call('memory_db_restore', { ...RESTORE, confirmation_token: token });
      expect(done.structured).toMatchObject({ status: 'succeeded', action: 'restore', result: { restored: 's1' } });
      expect(done.text).toMatch(/^Operation op_\w+: succeeded/);
      const again = await client.call('memory_db_restore', { ...RESTORE, confirmation_token: token });
      expect(codeOf(again.structured)).toBe('CONFIRMATION_USED');
      expect(fleet.world.restored).toEqual(['s1']);
    });
  });

  it('asks the person and runs when they type the name of the target', async () => {
    const asked: string[] = [];
    const answer = await withClient(
      kind,
      async (client) => {
        await client.tools();
        return client.call('memory_db_restore', RESTORE);
      },
      ({ message }) => {
        asked.push(message);
        return { action: 'accept', content: { target: 'memory/orders' } };
      },
    );
    expect(answer.structured).toMatchObject({ status: 'succeeded' });
    expect(fleet.world.restored).toEqual(['s1']);
    expect(asked).toHaveLength(1);
    expect(asked[0]).toContain('Loses: every write after');
    expect(asked[0]).not.toContain('hfc_');
  });

  it.each([
    ['declines', { action: 'decline' }],
    ['closes the question', { action: 'cancel' }],
    ['types another name', { action: 'accept', content: { target: 'memory/carts' } }],
    ['types yes', { action: 'accept', content: { target: 'yes' } }],
    ['types nothing', { action: 'accept', content: { target: '' } }],
  ] as [string, Reply][])('runs nothing when the person %s', async (_what, reply) => {
    const answer = await withClient(
      kind,
      async (client) => {
        await client.tools();
        return client.call('memory_db_restore', RESTORE);
      },
      () => reply,
    );
    expect(answer.isError).toBe(true);
    expect(codeOf(answer.structured)).toBe('CONFIRMATION_DENIED');
    expect(answer.text).toContain('Nothing was run');
    expect(fleet.world.restored).toEqual([]);
    const [newest] = await fleet.engine.confirmations({ limit: 1 });
    expect(newest?.state).toBe('denied');
  });

  it('asks again with the new plan when the target changed while the person thought', async () => {
    const asked: string[] = [];
    const answer = await withClient(
      kind,
      (client) => client.call('memory_db_restore', RESTORE),
      ({ message }) => {
        asked.push(message);
        fleet.world.state = 'busy';
        return { action: 'accept', content: { target: 'memory/orders' } };
      },
    );
    expect(asked).toHaveLength(2);
    expect(asked[1]).toMatch(/^The target changed/);
    expect(answer.structured).toMatchObject({ status: 'succeeded' });
    expect(fleet.world.restored).toEqual(['s1']);
  });

  it('sends progress that only rises', async () => {
    const seen: number[] = [];
    await withClient(kind, async (client) => {
      // Approved beforehand: a client that is asked reports steps of its own between the rounds.
      const { token, code } = confirmationOf((await client.call('memory_db_restore', RESTORE)).structured);
      await fleet.engine.approve({ confirmation: code, by: PERSON, via: 'terminal', typedTarget: 'memory/orders' });
      const confirmed = { ...RESTORE, confirmation_token: token };
      await client.call('memory_db_restore', confirmed, { onprogress: ({ progress }) => seen.push(progress) });
    });
    expect(seen.length).toBeGreaterThan(2);
    expect(seen).toEqual([...new Set(seen)].sort((a, b) => a - b));
  });

  it('carries a cancellation to the action', async () => {
    await withClient(kind, async (client) => {
      const cancel = new AbortController();
      const watching = once(fleet.world, 'watching');
      const aborted = once(fleet.world, 'aborted');
      const call = client.call('memory_db_watch', { entity: 'shop/orders' }, { signal: cancel.signal });
      await watching;
      cancel.abort();
      await expect(call).rejects.toThrow();
      await aborted;
    });
  });

  it('serves the entities as a resource and the disaster prompt with completions', async () => {
    await withClient(kind, async (client) => {
      expect(await client.read('backup://entities')).toContain('shop/orders');
      expect(await client.prompt('disaster-recovery', { entity: 'shop/carts' })).toContain(
        'Data of the database shop/carts is damaged or gone',
      );
      await expect(client.prompt('disaster-recovery', { entity: 'shop/x' })).rejects.toThrow(/shop\/x/);
      expect(await client.complete('disaster-recovery', 'entity', 'cart')).toEqual(['shop/carts']);
    });
  });

  it('teaches the guard in its instructions', async () => {
    expect(await withClient(kind, async (client) => client.instructions)).toContain('CONFIRMATION_REQUIRED');
  });
});

describe('three clients', () => {
  it('get the same lists and the same answers', async () => {
    const seen = await Promise.all(
      CLIENTS.map((kind) =>
        withClient(kind, async (client) => ({
          tools: await client.tools(),
          read: await client.call('memory_db_list_snapshots', { entity: 'shop/orders' }),
          missing: await client.call('memory_db_restore', { ...RESTORE, snapshot_id: 'gone' }),
        })),
      ),
    );
    const plain = seen.map((one) =>
      JSON.parse(JSON.stringify(one, (key, value) => (key === 'meta' ? undefined : value))),
    );
    expect(plain[1]).toEqual(plain[0]);
    expect(plain[2]).toEqual(plain[0]);
  });
});
