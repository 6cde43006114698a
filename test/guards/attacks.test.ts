import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmdirSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freshToken } from '../../guards/token.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { PolicyConfig } from '../../src/core/policy.ts';
import type { Role } from '../../src/core/principal.ts';
import { isGuarded } from '../../src/core/risk.ts';
import { type HttpSurface, serveHttp } from '../../src/surfaces/mcp/http.ts';
import { buildServer } from '../../src/surfaces/mcp/server.ts';
import { toolName } from '../../src/surfaces/mcp/tools.ts';
import {
  type GuardedCase,
  type GuardedFleet,
  guardedCases,
  modules,
  registry,
  startGuardedFleet,
} from '../support/guarded-fleet.ts';
import { BOSS, type Harness, startHarness } from '../support/harness.ts';
import {
  type ClientKind,
  connectClient,
  type Reply,
  type TestClient,
  type ToolAnswer,
} from '../support/mcp-clients.ts';
import { describePostgres, values } from '../support/postgres.ts';

// The guard under attack: every guarded action, in both protocol eras, over stdio and HTTP. A refused call must leave no
// write in the simulators' journal, no intent in the audit trail, and PostgreSQL as it was.

const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const BEARER = { ana: 'bearer-ana', ben: 'bearer-ben', eve: 'bearer-eve' };
const TOKENS = Object.entries(BEARER).map(([name, token]) => ({
  name,
  sha256: createHash('sha256').update(token).digest('hex'),
  roles: (name === 'eve' ? ['viewer'] : ['operator']) as Role[],
}));

interface Site {
  readonly harness: Harness;
  readonly http: HttpSurface;
  close(): Promise<void>;
}

let fleet: GuardedFleet;
let stateDirectory: string;

async function openSite(policy: Partial<PolicyConfig>): Promise<Site> {
  const harness = await startHarness({
    modules,
    entities: fleet.entities,
    secrets: fleet.secrets,
    policy,
    stateDirectory,
  });
  const principal = { id: 'http:local', person: 'local', roles: [] } as const;
  const deps = { engine: harness.engine, principal, stateKey: Buffer.alloc(32, 7), log };
  const http = await serveHttp((context) => buildServer(deps, context), { config: { port: 0, tokens: TOKENS }, log });
  return {
    harness,
    http,
    close: async () => {
      await http.close();
      await harness.close();
    },
  };
}

function overHttp(site: Site, who: keyof typeof BEARER, kind: ClientKind, answer?: () => Reply): Promise<TestClient> {
  return connectClient(kind, { url: site.http.url, headers: { authorization: `Bearer ${BEARER[who]}` } }, answer);
}

function overStdio(policy: Partial<PolicyConfig>, kind: ClientKind, answer?: () => Reply): Promise<TestClient> {
  const given = JSON.stringify({ entities: fleet.entities, secrets: fleet.secrets, policy, stateDirectory });
  const path = fileURLToPath(new URL('../support/serve-guarded-fleet.ts', import.meta.url));
  return connectClient(
    kind,
    {
      node: ['--disable-warning=ExperimentalWarning', path],
      env: { HOLDFAST_TEST_FLEET: given, PATH: process.env['PATH'] ?? '' },
    },
    answer,
  );
}

interface Confirmation {
  token: string;
  code: string;
}
const codeOf = (answer: ToolAnswer): string =>
  answer.isError === true ? String((answer.structured['error'] as JsonObject)['code']) : 'it ran';
const confirmationOf = (answer: ToolAnswer): Confirmation =>
  answer.structured['confirmation'] as unknown as Confirmation;
const hintOf = (answer: ToolAnswer): string =>
  String((answer.structured['error'] as JsonObject | undefined)?.['hint'] ?? '');

/** How much of the audit trail was read, and the intents in it: it only grows, and is long in the end. */
let counted = { bytes: 0, intents: 0 };

function intentsInTrail(): number {
  const trail = openSync(join(stateDirectory, 'audit.jsonl'), 'r');
  try {
    const added = Buffer.alloc(fstatSync(trail).size - counted.bytes);
    readSync(trail, added, 0, added.length, counted.bytes);
    // A line that is being written is counted once it is whole.
    const whole = added.subarray(0, added.lastIndexOf('\n') + 1);
    const intents = whole.toString('utf8').split('"event":"intent"').length - 1;
    counted = { bytes: counted.bytes + whole.length, intents: counted.intents + intents };
  } finally {
    closeSync(trail);
  }
  return counted.intents;
}

/** What a refused call must leave as it was. */
async function traces(one: GuardedCase): Promise<unknown> {
  const intents = intentsInTrail();
  if (!one.action.startsWith('postgresql/')) {
    return { writes: fleet.provider.writes().filter(({ path }) => !path.includes('oauth')).length, intents };
  }
  const { connection } = fleet.postgres;
  const rows = await values(connection, 'shop', "SELECT count(*) || ' ' || max(id) FROM t");
  const databases = await values(connection, 'postgres', 'SELECT datname || oid FROM pg_database ORDER BY 1');
  return { rows, databases, backups: readdirSync(fleet.backups, { recursive: true }).length, intents };
}

async function refusedWith(
  one: GuardedCase,
  codes: string | RegExp,
  call: () => Promise<ToolAnswer>,
): Promise<ToolAnswer> {
  const before = await traces(one);
  const answer = await call();
  expect(codeOf(answer)).toMatch(codes);
  expect(hintOf(answer), 'the error says what to do').not.toBe('');
  expect(await traces(one)).toEqual(before);
  return answer;
}

async function finish(site: Site, answer: ToolAnswer): Promise<void> {
  // A call for one database through a tool for all of them names its operation with the database.
  const { operation_id, databases } = answer.structured as { operation_id?: string; databases?: JsonObject[] };
  const id = operation_id ?? databases?.[0]?.['operation_id'];
  if (typeof id !== 'string') return;
  await site.harness.engine.call({
    principal: BOSS,
    action: 'wait-operation',
    input: { operation_id: id, timeout_seconds: 60 },
  });
}

const cases = guardedCases(() => fleet);

it('has a case for every guarded action of every entity type', () => {
  const wanted = registry.actions
    .filter((action) => isGuarded(action.upTo))
    .flatMap((action) => action.on.map((type) => `${action.provider.id}/${action.name} on ${type}`));
  const names: Record<string, string> = { 'sandbox/postgresql': 'postgresql/server' };
  for (const [defines, { type }] of registry.entityTypes) {
    if (type.sandbox !== undefined) names[`sandbox/${type.sandbox.name}`] = defines;
  }
  expect(cases.map((one) => `${one.action} on ${names[one.entity]}`).sort()).toEqual(wanted.sort());
});

const WAYS: [string, ClientKind, 'http' | 'stdio'][] = [
  ['HTTP, 2025 client', 'sdk 1', 'http'],
  ['HTTP, 2026 client', 'sdk 2 on 2026-07-28', 'http'],
  ['stdio, 2025 client', 'sdk 1', 'stdio'],
  ['stdio, 2026 client', 'sdk 2 on 2026-07-28', 'stdio'],
];

describePostgres('every guarded action under attack', () => {
  let site: Site;
  let stranger: TestClient;
  let viewer: TestClient;
  let frozen: Site;
  let underFreeze: TestClient;

  beforeAll(async () => {
    stateDirectory = mkdtempSync(join(tmpdir(), 'holdfast-attacks-'));
    fleet = await startGuardedFleet();
    site = await openSite({});
    stranger = await overHttp(site, 'ben', 'sdk 2 by default');
    viewer = await overHttp(site, 'eve', 'sdk 2 by default');
    frozen = await openSite({ read_only: true });
    underFreeze = await overHttp(frozen, 'ana', 'sdk 2 by default');
    // Every entity gets a snapshot before the first look.
    for (const one of cases) await one.prepare(site.harness.engine);
  }, 120_000);

  afterAll(async () => {
    await stranger?.close();
    await viewer?.close();
    await underFreeze?.close();
    await frozen?.close();
    await site?.close();
    await fleet?.close();
    if (stateDirectory !== undefined) rmSync(stateDirectory, { recursive: true, force: true });
  });

  describe.each(WAYS)('%s', (_, kind, transport) => {
    let client: TestClient;
    beforeAll(async () => {
      client = await (transport === 'http' ? overHttp(site, 'ana', kind) : overStdio({}, kind));
    });
    afterAll(() => client?.close());

    it.each(cases.map((one) => [`${one.tool} on ${one.entity}`, one] as const))(
      '%s',
      { timeout: 120_000 },
      async (_name, one: GuardedCase) => {
        const { engine } = site.harness;
        fleet.provider.clearJournal();
        const { input, other } = await one.prepare(engine);
        const call = (extra: JsonObject = {}, by: TestClient = client, base: JsonObject = input) =>
          by.call(one.tool, { entity: one.entity, ...base, ...extra });
        const approve = (code: string, typedTarget: string) =>
          engine.approve({ confirmation: code, by: BOSS, via: 'terminal', typedTarget });
        const targetOf = (answer: ToolAnswer): string => String((answer.structured['plan'] as JsonObject)['target']);

        // No token, and tokens that nobody gave out.
        const first = await refusedWith(one, 'CONFIRMATION_REQUIRED', () => call());
        expect(first.structured['plan']).toMatchObject({ entity: one.entity, facts: { target: expect.anything() } });
        for (const invented of ['yes', freshToken(randomBytes).token])
          await refusedWith(one, 'CONFIRMATION_INVALID', () => call({ confirmation_token: invented }));

        // A true token that nobody has approved.
        const { token, code } = confirmationOf(first);
        await refusedWith(one, 'CONFIRMATION_PENDING', () => call({ confirmation_token: token }));

        // Approved with the wrong name, then with the right one: other input, caller, entity and action still fail.
        await expect(approve(code, 'another-name')).rejects.toMatchObject({ code: 'CONFIRMATION_MISMATCH' });
        await approve(code, targetOf(first));
        await refusedWith(one, 'CONFIRMATION_MISMATCH', () => call({ confirmation_token: token }, client, other));
        await refusedWith(one, 'CONFIRMATION_MISMATCH', () => call({ confirmation_token: token }, stranger));
        await refusedWith(one, /POLICY_DENIED|NOT_LISTED/, async () =>
          viewer.call(one.tool, { entity: one.entity, ...input, confirmation_token: token }).catch(() => ({
            isError: true,
            text: '',
            structured: { error: { code: 'NOT_LISTED', hint: 'not listed for a viewer' } },
            meta: undefined,
          })),
        );
        const neighbour = cases.find((candidate) => candidate.tool !== one.tool)!;
        const foreign = await neighbour.prepare(engine);
        await refusedWith(one, 'CONFIRMATION_MISMATCH', () =>
          client.call(neighbour.tool, { entity: neighbour.entity, ...foreign.input, confirmation_token: token }),
        );

        // The target changed between the plan and the use.
        const back = await one.drift(input);
        const changed = await refusedWith(one, 'PLAN_CHANGED', () => call({ confirmation_token: token }));
        expect((changed.structured['error'] as JsonObject)['details'] ?? changed.structured).toMatchObject({
          differences: expect.anything(),
        });
        await back();
        await refusedWith(one, 'CONFIRMATION_INVALID', () => call({ confirmation_token: token }));

        // Denied by a person.
        const denied = confirmationOf(await call());
        await engine.deny({ confirmation: denied.code, by: BOSS, via: 'terminal' });
        await refusedWith(one, 'CONFIRMATION_DENIED', () => call({ confirmation_token: denied.token }));

        // Expired: approved in time, used too late.
        const late = confirmationOf(await call());
        const record = (await site.harness.store.confirmation({ code: late.code }))!;
        await approve(late.code, record.plan.target);
        await site.harness.store.moveConfirmation(record.id, 'approved', 'approved', {
          expires_at: new Date(Date.now() - 1).toISOString(),
        });
        await refusedWith(one, 'CONFIRMATION_EXPIRED', () => call({ confirmation_token: late.token }));

        // A policy that denies cannot be talked round by an approved token.
        await refusedWith(one, 'POLICY_DENIED', () => call({ confirmation_token: token }, underFreeze));

        // No audit file, no state store: nothing runs, whatever was approved.
        const good = confirmationOf(await call());
        await approve(good.code, record.plan.target);
        const trail = join(stateDirectory, 'audit.jsonl');
        const before = await traces(one);
        renameSync(trail, `${trail}.aside`);
        mkdirSync(trail);
        expect(codeOf(await call({ confirmation_token: good.token }))).toBe('AUDIT_UNAVAILABLE');
        rmdirSync(trail);
        renameSync(`${trail}.aside`, trail);
        const store = join(stateDirectory, 'state.db');
        renameSync(store, `${store}.aside`);
        expect(codeOf(await call({ confirmation_token: good.token }))).toBe('STATE_UNAVAILABLE');
        expect(codeOf(await call())).toBe('STATE_UNAVAILABLE');
        renameSync(`${store}.aside`, store);
        expect(await traces(one)).toEqual(before);

        // Many at once: one runs, and afterwards the token is used.
        const many = await Promise.all(
          Array.from({ length: transport === 'http' && kind !== 'sdk 1' ? 100 : 12 }, () =>
            call({ confirmation_token: good.token }),
          ),
        );
        const outcomes = many.map(codeOf);
        expect(outcomes.filter((outcome) => outcome === 'it ran')).toHaveLength(1);
        expect(
          outcomes
            .filter((outcome) => outcome !== 'it ran')
            .every((outcome) => /CONFIRMATION_USED|PLAN_CHANGED|INVALID_STATE|NOT_FOUND/.test(outcome)),
          outcomes.join(' '),
        ).toBe(true);
        await finish(site, many.find((answer) => answer.isError !== true)!);
        await refusedWith(one, /CONFIRMATION_USED|NOT_FOUND|INVALID_STATE/, () =>
          call({ confirmation_token: good.token }),
        );
      },
    );

    it('leaves an audit trail that is whole', async () => {
      expect(await site.harness.engine.verifyAudit()).toMatchObject({ ok: true });
    });
  });

  describe.each(WAYS)('a question to the person, %s', (_, kind, transport) => {
    const replies: [string, (target: string) => Reply, string][] = [
      ['declined', () => ({ action: 'decline' }), 'CONFIRMATION_DENIED'],
      ['cancelled', () => ({ action: 'cancel' }), 'CONFIRMATION_DENIED'],
      [
        'answered with another name',
        () => ({ action: 'accept', content: { target: 'something-else' } }),
        'CONFIRMATION_DENIED',
      ],
      ['answered with a bare yes', () => ({ action: 'accept', content: { target: 'yes' } }), 'CONFIRMATION_DENIED'],
    ];
    let client: TestClient;
    let reply: Reply;
    beforeAll(async () => {
      client = await (transport === 'http'
        ? overHttp(site, 'ana', kind, () => reply)
        : overStdio({}, kind, () => reply));
    });
    afterAll(() => client?.close());

    it.each(cases.map((one) => [`${one.tool} on ${one.entity}`, one] as const))(
      '%s',
      { timeout: 60_000 },
      async (_name, one: GuardedCase) => {
        const { engine } = site.harness;
        fleet.provider.clearJournal();
        const { input } = await one.prepare(engine);
        for (const [, make, code] of replies) {
          reply = make('');
          await refusedWith(one, code, () => client.call(one.tool, { entity: one.entity, ...input }));
        }
        const dry = await engine.call({
          principal: BOSS,
          entity: one.entity,
          action: one.action.split('/')[1]!,
          input,
          dryRun: true,
        });
        const target = dry.kind === 'plan' ? dry.plan.target : '';
        reply = { action: 'accept', content: { target } };
        const ran = await client.call(one.tool, { entity: one.entity, ...input });
        expect(codeOf(ran), ran.text).toBe('it ran');
        await finish(site, ran);
      },
    );
  });

  it('asks nobody through the client where policy wants another channel', async () => {
    const strict = await openSite({ confirm: 'two-people' });
    let asked = 0;
    const client = await overHttp(strict, 'ana', 'sdk 2 on 2026-07-28', () => {
      asked += 1;
      return { action: 'accept', content: {} };
    });
    const one = cases[0]!;
    const { input } = await one.prepare(strict.harness.engine);
    await refusedWith(one, 'CONFIRMATION_REQUIRED', () => client.call(one.tool, { entity: one.entity, ...input }));
    expect(asked).toBe(0);
    await client.close();
    await strict.close();
  });
});

describe('the list of cases', () => {
  it('names tools as MCP lists them', () => {
    for (const one of cases) {
      const [provider, name] = one.action.split('/');
      const action = registry.actions.find((known) => known.provider.id === provider && known.name === name)!;
      expect(one.tool).toBe(toolName(action));
    }
  });
});
