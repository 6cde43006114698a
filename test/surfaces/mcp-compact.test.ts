import { createHash } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type HttpSurface, serveHttp } from '../../src/surfaces/mcp/http.ts';
import { buildServer } from '../../src/surfaces/mcp/server.ts';
import { type GuardedFleet, guardedCases, modules, startSimulatedFleet } from '../support/guarded-fleet.ts';
import { BOSS, type Harness, startHarness } from '../support/harness.ts';
import {
  type Ask,
  CLIENTS,
  type ClientKind,
  connectClient,
  type Reply,
  type TestClient,
  type ToolAnswer,
} from '../support/mcp-clients.ts';
import { type MemoryFleet, openMemoryFleet } from '../support/memory-fleet.ts';

const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const TOKENS = (['operator', 'viewer'] as const).map((role) => ({
  name: role,
  sha256: createHash('sha256').update(`${role}-token`).digest('hex'),
  roles: [role],
}));
const PERSON = { id: 'terminal:ana', person: 'ana', roles: ['approver'] } as const;
const RESTORE = { entity: 'shop/orders', action: 'restore', input: { snapshot_id: 's1' } };

let fleet: MemoryFleet;
let http: HttpSurface;

beforeAll(async () => {
  fleet = await openMemoryFleet();
  const principal = { id: 'http:local', person: 'local', roles: ['operator'] } as const;
  const deps = { engine: fleet.engine, principal, stateKey: Buffer.alloc(32, 1), log, toolSet: 'compact' } as const;
  http = await serveHttp((context) => buildServer(deps, context), { config: { port: 0, tokens: TOKENS }, log });
});

afterAll(async () => {
  await http.close();
  await fleet.close();
});

beforeEach(() => {
  fleet.world.restored = [];
  fleet.world.deleted = [];
  fleet.world.state = 'ready';
});

async function withClient<T>(
  kind: ClientKind,
  work: (client: TestClient) => Promise<T>,
  options: { role?: 'operator' | 'viewer'; answer?: (ask: Ask) => Reply } = {},
): Promise<T> {
  const headers = { Authorization: `Bearer ${options.role ?? 'operator'}-token` };
  const client = await connectClient(kind, { url: http.url, headers }, options.answer);
  try {
    return await work(client);
  } finally {
    await client.close();
  }
}

const codeOf = ({ structured }: ToolAnswer): unknown => (structured['error'] as { code?: string } | undefined)?.code;
const confirmationOf = ({ structured }: ToolAnswer) => structured['confirmation'] as { token: string; code: string };
const namesOf = ({ structured }: ToolAnswer): string[] =>
  (structured['actions'] as { action: string }[]).map(({ action }) => action);

describe.each(CLIENTS)('a compact list for %s', (kind) => {
  it('has two tools that say honestly what they may do', async () => {
    await withClient(kind, async (client) => {
      const tools = await client.tools();
      expect(tools.map(({ name, annotations }) => [name, annotations])).toEqual([
        ['find_actions', expect.objectContaining({ readOnlyHint: true, destructiveHint: false })],
        ['do_action', expect.objectContaining({ readOnlyHint: false, destructiveHint: true, idempotentHint: false })],
      ]);
      expect(tools[1]?.inputSchema).toMatchObject({
        properties: { entity: { enum: ['shop/orders', 'shop/carts'] } },
        required: ['action'],
      });
      expect(client.instructions).toContain('CONFIRMATION_REQUIRED');
      expect(client.instructions).toContain('do_action wait-operation');
      expect(client.instructions).not.toMatch(/backup_[a-z]/);
      await expect(client.call('memory_db_restore', { entity: 'shop/orders' })).rejects.toMatchObject({
        code: -32_602,
      });
    });
  });

  it('finds actions by words and database, with risk and input', async () => {
    await withClient(kind, async (client) => {
      const found = await client.call('find_actions', { query: 'restore snapshots', entity: 'shop/orders' });
      expect(found.structured['actions']).toEqual([
        {
          action: 'restore',
          risk: 'overwrite',
          summary: expect.stringContaining('Replaces the database'),
          input: {
            properties: expect.objectContaining({ snapshot_id: { type: 'string' } }),
            required: ['snapshot_id'],
          },
        },
      ]);
      expect(found.text).toContain('restore (overwrite): Replaces the database');
      expect(found.text).toContain('"required":["snapshot_id"]');
      expect(namesOf(await client.call('find_actions', { query: 'list-backups' }))[0]).toBe('list-snapshots');
      expect(namesOf(await client.call('find_actions', {}))).toHaveLength(7);
      const everywhere = await client.call('find_actions', { query: 'delete' });
      expect(everywhere.structured['actions']).toMatchObject([{ entities: ['shop/orders', 'shop/carts'] }]);
      const absent = await client.call('find_actions', { query: 'create snapshot', entity: 'shop/orders' });
      expect(absent.structured['cannot']).toEqual({ 'create-snapshot': 'Use something real.' });
      expect(absent.text).toContain('create-snapshot: not here. Use something real.');
      expect((await client.call('find_actions', { query: 'teleport' })).text).toContain('No action fits');
    });
  });

  it('reads at once, in the words of every other list', async () => {
    await withClient(kind, async (client) => {
      const read = await client.call('do_action', { entity: 'shop/orders', action: 'list-snapshots' });
      expect(read.isError).toBeFalsy();
      expect(read.structured).toMatchObject({ snapshots: [{ id: 's2' }, { id: 's1' }] });
      // Aliases, and names as tools have them, mean the same.
      const alias = await client.call('do_action', { entity: 'shop/orders', action: 'list_backups', input: {} });
      expect(alias.structured).toEqual(read.structured);
      expect((await client.call('do_action', { action: 'list-databases' })).text).toContain('shop/carts');
    });
  });

  it('refuses a guarded call with its plan, and does it once after the approval', async () => {
    await withClient(kind, async (client) => {
      const first = await client.call('do_action', RESTORE);
      expect(first.isError).toBe(true);
      expect(codeOf(first)).toBe('CONFIRMATION_REQUIRED');
      expect(first.structured['plan']).toMatchObject({ action: 'restore', entity: 'shop/orders' });
      expect(first.text).toContain('Plan: restore on shop/orders');
      expect(first.text).toContain('do_action {"entity":"shop/orders","action":"list-snapshots","input":{"limit":5}}');
      const { token, code } = confirmationOf(first);
      const early = await client.call('do_action', { ...RESTORE, confirmation_token: token });
      expect(codeOf(early)).toBe('CONFIRMATION_PENDING');
      await fleet.engine.approve({ confirmation: code, by: PERSON, via: 'terminal', typedTarget: 'memory/orders' });
      const others = [
        await client.call('do_action', { ...RESTORE, input: { snapshot_id: 's2' }, confirmation_token: token }),
        await client.call('do_action', { ...RESTORE, entity: 'shop/carts', confirmation_token: token }),
        await client.call('do_action', { ...RESTORE, action: 'delete-snapshot', confirmation_token: token }),
      ];
      expect(others.map(codeOf)).toEqual(Array(3).fill('CONFIRMATION_MISMATCH'));
      expect(fleet.world.restored).toEqual([]);
      const done = await client.call('do_action', { ...RESTORE, confirmation_token: token });
      expect(done.structured).toMatchObject({ status: 'succeeded', result: { restored: 's1' } });
      expect(codeOf(await client.call('do_action', { ...RESTORE, confirmation_token: token }))).toBe(
        'CONFIRMATION_USED',
      );
      expect(fleet.world.restored).toEqual(['s1']);
    });
  });

  it('asks the person and does what they approved', async () => {
    const asked: string[] = [];
    const answer = ({ message }: Ask): Reply => {
      asked.push(message);
      return { action: 'accept', content: { target: 'memory/orders' } };
    };
    const done = await withClient(kind, (client) => client.call('do_action', RESTORE), { answer });
    expect(done.structured).toMatchObject({ status: 'succeeded' });
    expect(asked).toEqual([expect.stringContaining('Loses: every write after')]);
    expect(fleet.world.restored).toEqual(['s1']);
  });

  it.each([
    ['declines', { action: 'decline' }],
    ['types another name', { action: 'accept', content: { target: 'yes' } }],
  ] as [string, Reply][])('does nothing when the person %s', async (_what, reply) => {
    const refused = await withClient(kind, (client) => client.call('do_action', RESTORE), { answer: () => reply });
    expect(codeOf(refused)).toBe('CONFIRMATION_DENIED');
    expect(fleet.world.restored).toEqual([]);
  });

  it('refuses what does not exist or fits nowhere, and names it', async () => {
    const entity = 'shop/orders';
    const rows: [Record<string, unknown>, string, string][] = [
      [{ entity, action: 'restor' }, 'INVALID_PARAMETER', 'Did you mean restore'],
      [{ entity: 'shop/order', action: 'restore' }, 'ENTITY_NOT_FOUND', 'Did you mean shop/orders?'],
      [{ action: 'restore', input: { snapshot_id: 's1' } }, 'INVALID_PARAMETER', "'restore' needs an entity"],
      [{ entity, action: 'create-snapshot' }, 'NOT_SUPPORTED', 'Use something real.'],
      [{ entity }, 'INVALID_PARAMETER', 'find_actions shows all of them'],
      [{ entity, action: 7 }, 'INVALID_PARAMETER', "'action' is no string"],
      [{ entity: 7, action: 'restore' }, 'INVALID_PARAMETER', "'entity' is no string"],
      [{ entity, action: 'restore', snapshot_id: 's1' }, 'INVALID_PARAMETER', "no parameter 'snapshot_id'"],
      [{ entity, action: 'restore', input: 's1' }, 'INVALID_PARAMETER', "'input' is no object"],
      [{ entity, action: 'restore', input: { snapshot: 's1' } }, 'INVALID_PARAMETER', 'snapshot_id'],
      [{ entity, action: 'list-snapshots', confirmation_token: 'hfc_x' }, 'INVALID_PARAMETER', 'confirmation_token'],
      [{ ...RESTORE, confirmation_token: 7 }, 'INVALID_PARAMETER', 'no string'],
      [{ ...RESTORE, confirmation_token: 'hfc_x' }, 'CONFIRMATION_INVALID', 'Nothing was run'],
      [
        { entity, action: 'restore', input: { entity: 'shop/carts', snapshot_id: 's1' } },
        'INVALID_PARAMETER',
        "'entity' is given twice",
      ],
      [
        { ...RESTORE, input: { snapshot_id: 's1', confirmation_token: 'hfc_a' }, confirmation_token: 'hfc_b' },
        'INVALID_PARAMETER',
        "'confirmation_token' is given twice",
      ],
    ];
    await withClient(kind, async (client) => {
      for (const [args, code, words] of rows) {
        const answer = await client.call('do_action', args);
        expect(answer.isError, JSON.stringify(args)).toBe(true);
        expect(codeOf(answer), JSON.stringify(args)).toBe(code);
        expect(answer.text, JSON.stringify(args)).toContain(words);
      }
      const finds = [
        await client.call('find_actions', { entity: 'shop/order' }),
        await client.call('find_actions', { querry: 'restore' }),
        await client.call('find_actions', { query: 7 }),
      ];
      expect(finds.map(codeOf)).toEqual(['ENTITY_NOT_FOUND', 'INVALID_PARAMETER', 'INVALID_PARAMETER']);
    });
    expect(fleet.world.restored).toEqual([]);
  });

  it('shows and does for a viewer only what reads', async () => {
    await withClient(
      kind,
      async (client) => {
        expect(namesOf(await client.call('find_actions', {})).sort()).toEqual([
          'explode',
          'list-databases',
          'list-snapshots',
          'wait-operation',
          'watch',
        ]);
        const read = await client.call('do_action', { entity: 'shop/orders', action: 'list-snapshots' });
        expect(read.isError).toBeFalsy();
        const refused = await client.call('do_action', RESTORE);
        expect(codeOf(refused)).toBe('POLICY_DENIED');
        expect(refused.text).toContain('restore on shop/orders');
      },
      { role: 'viewer' },
    );
    expect(fleet.world.restored).toEqual([]);
  });

  it('never lets an unknown fault out', async () => {
    const answer = await withClient(kind, (client) =>
      client.call('do_action', { entity: 'shop/orders', action: 'explode' }),
    );
    expect(codeOf(answer)).toBe('INTERNAL');
    expect(JSON.stringify(answer)).not.toContain('hunter2');
  });

  it('has the same resources and prompts, with calls that its tools can make', async () => {
    await withClient(kind, async (client) => {
      expect(await client.read('backup://guide/memory-db')).toContain(
        '`do_action {"entity":"shop/orders","action":"restore","input":{"snapshot_id":"<id of a snapshot>"}}`',
      );
      expect(await client.prompt('quarterly-drill', { entity: 'shop/carts' })).toContain(
        '`do_action {"action":"wait-operation","input":{"operation_id":"<operation_id of the answer>"}}`',
      );
    });
  });
});

// The guard's attacks are made on the tools of all actions; here is that the two tools are no way past it.
describe('every guarded action of the simulated providers through do_action', () => {
  let fleet: GuardedFleet;
  let harness: Harness;
  let surface: HttpSurface;
  let operator: TestClient;
  let viewer: TestClient;

  beforeAll(async () => {
    fleet = (await startSimulatedFleet()) as GuardedFleet;
    harness = await startHarness({ modules, entities: fleet.entities, secrets: fleet.secrets });
    const principal = { id: 'http:local', person: 'local', roles: [] } as const;
    const deps = { engine: harness.engine, principal, stateKey: Buffer.alloc(32, 1), log, toolSet: 'compact' } as const;
    surface = await serveHttp((context) => buildServer(deps, context), { config: { port: 0, tokens: TOKENS }, log });
    const connect = (role: string): Promise<TestClient> =>
      connectClient('sdk 2 on 2026-07-28', { url: surface.url, headers: { Authorization: `Bearer ${role}-token` } });
    [operator, viewer] = await Promise.all([connect('operator'), connect('viewer')]);
  });

  afterAll(async () => {
    await operator.close();
    await viewer.close();
    await surface.close();
    await harness.close();
    await fleet.close();
  });

  it('is found with its input where few fit, and by name where many do', async () => {
    const many = await operator.call('find_actions', { query: 'snapshot' });
    expect(namesOf(many)).toHaveLength(12);
    expect(many.structured['more']).toContain('delete-snapshot');
    expect(many.text).toContain('Narrow with query or entity');
    for (const { action, entity } of cases) {
      const name = action.split('/')[1]!;
      const found = await operator.call('find_actions', { query: name, entity });
      expect(namesOf(found)[0], `${name} on ${entity}`).toBe(name);
    }
  });

  const cases = guardedCases(() => fleet).filter(({ action }) => !action.startsWith('postgresql/'));

  it.each(cases.map((one) => [`${one.action} on ${one.entity}`, one] as const))(
    '%s',
    { timeout: 60_000 },
    async (_name, { action, entity, prepare }) => {
      const { input, other } = await prepare(harness.engine);
      const call = { entity, action: action.split('/')[1]!, input };
      const refused = async (codes: RegExp, args: Record<string, unknown>, client = operator): Promise<ToolAnswer> => {
        fleet.provider.clearJournal();
        const answer = await client.call('do_action', args);
        expect(codeOf(answer), answer.text).toMatch(codes);
        expect(fleet.provider.writes().filter(({ path }) => !path.includes('oauth'))).toEqual([]);
        return answer;
      };
      const first = await refused(/^CONFIRMATION_REQUIRED$/, call);
      const plan = first.structured['plan'] as { action: string; entity: string; target: string };
      expect(plan).toMatchObject({ action: call.action, entity });
      const { token, code } = confirmationOf(first);
      await refused(/^CONFIRMATION_PENDING$/, { ...call, confirmation_token: token });
      await refused(/^CONFIRMATION_INVALID$/, { ...call, confirmation_token: 'hfc_invented' });
      await refused(/^POLICY_DENIED$/, { ...call, confirmation_token: token }, viewer);
      await harness.engine.approve({ confirmation: code, by: BOSS, via: 'terminal', typedTarget: plan.target });
      await refused(/^CONFIRMATION_MISMATCH$/, { ...call, input: other, confirmation_token: token });
      const ran = await operator.call('do_action', { ...call, confirmation_token: token });
      expect(ran.isError, ran.text).toBeFalsy();
      const { operation_id } = ran.structured;
      if (typeof operation_id === 'string') {
        await operator.call('do_action', { action: 'wait-operation', input: { operation_id, timeout_seconds: 50 } });
      }
      // What was deleted is not found any more, before its token is looked at.
      await refused(/^CONFIRMATION_USED$|_NOT_FOUND$/, { ...call, confirmation_token: token });
    },
  );
});
