import { describe, expect, it } from 'vitest';
import type { Action } from '../../src/core/action.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { PermissionState } from '../../src/core/provider.ts';
import { type ProbeOptions, probeEntities } from '../../src/surfaces/cli/access.ts';
import type { ConfigReport } from '../../src/surfaces/cli/deps.ts';
import { FakeEngine, run, SAMPLE_REPORT, start } from './cli-support.ts';

const faults = [
  {
    file: 'a.yaml',
    line: 3,
    column: 5,
    message: "unknown parameter 'backup_retenton'",
    suggestion: 'Did you mean x?',
  },
  { line: 9, message: 'no column' },
  { message: 'no place' },
];

const SOUND: ConfigReport = { file: 'holdfast.yaml', faults: [], warnings: [], entities: [] };
const ALL: Record<string, PermissionState> = {
  'sql.get': 'granted',
  'sql.backups.list': 'granted',
  'sql.backups.create': 'granted',
  'sql.backups.delete': 'granted',
  'sql.restore': 'granted',
};

/** Runs `check` on an engine, with a sound file unless it says otherwise. */
async function check(engine: FakeEngine, args: readonly string[] = [], report: ConfigReport = SOUND) {
  return run(['check', ...args], { engine, deps: { checkConfig: async () => report } });
}

/** An engine whose reads of some entities fail. */
function failing(errors: Readonly<Record<string, HoldfastError>>): FakeEngine {
  const engine = new FakeEngine();
  const { answer } = engine;
  engine.answer = async (call, action) => {
    const error = errors[call.entity ?? ''];
    if (error !== undefined) throw error;
    return answer(call, action);
  };
  return engine;
}

describe('check --offline', () => {
  it('names credentials and parameters without effect, and asks nobody', async () => {
    const { status, out, engine, running } = await run(['check', '--offline']);
    expect(status).toBe(0);
    expect(out).toContain('credential TEST_TOKEN: found');
    expect(out).toContain('credential TEST_KEY: NOT FOUND');
    expect(out).toContain('no effect here: instance_class');
    expect(out).toContain('1 database, no faults, 1 credential not found');
    expect(engine.made).toEqual([]);
    expect(running.opened).toEqual([]);
  });

  it('puts every fault at its place and exits with 33', async () => {
    const checkConfig = async () => ({ ...SAMPLE_REPORT, faults });
    const { status, out } = await run(['check', '--offline'], { deps: { checkConfig } });
    expect(status).toBe(33);
    expect(out).toContain("a.yaml:3:5: error unknown parameter 'backup_retenton'\n  Did you mean x?");
    expect(out).toContain('holdfast.yaml:9: error no column');
    expect(out).toContain('holdfast.yaml: error no place');
    expect(out).toContain('3 faults');
    const json = await run(['check', '--offline', '--json'], { deps: { checkConfig } });
    expect(json.status).toBe(33);
    expect(JSON.parse(json.out)).toMatchObject({ ok: false, faults, entities: SAMPLE_REPORT.entities });
  });

  it('says that there is no file', async () => {
    const nothing = async () => ({ ...SOUND, file: undefined });
    const { out } = await run(['check', '--offline'], { deps: { checkConfig: nothing } });
    expect(out).toContain('Write holdfast.yaml');
    const warned = async () => ({
      ...SOUND,
      file: undefined,
      faults: [{ message: 'none found' }],
      warnings: [{ message: 'no watch' }],
    });
    const second = await run(['check', '--offline'], { deps: { checkConfig: warned } });
    expect(second.out).toContain('holdfast.yaml: error none found');
    expect(second.out).toContain('No entities file: 0 databases, 1 fault');
    expect(second.out).toContain('holdfast.yaml: warning no watch');
  });

  it('is limited to the databases that are named, and knows their names', async () => {
    expect((await run(['check', '--offline', 'my-app/my-db'])).out).toContain('1 database');
    const { status, err } = await run(['check', '--offline', 'my-app/my-bd']);
    expect(status).toBe(32);
    expect(err).toContain('Did you mean my-app/my-db?');
  });
});

describe('check', () => {
  it('says of every database that it is reached, and that writes are not known where the provider cannot be asked', async () => {
    const engine = new FakeEngine();
    const { status, out } = await check(engine);
    expect(status).toBe(0);
    expect(out).toContain('my-app/my-db test/sql\n  reachable: list-snapshots answered\n  writes not known:');
    expect(out).toContain(
      'create-snapshot, delete-snapshot, restore (the provider cannot be asked without trying; it is up to the test role)',
    );
    expect(out).toContain('holdfast.yaml: 3 of 3 databases reached, nothing to fix');
    // Reads alone, each of one item, by the person at this command line.
    expect(engine.made.map(({ action, input }) => ({ action, input }))).toEqual(
      Array.from({ length: 3 }, () => ({ action: 'list-snapshots', input: { limit: 1 } })),
    );
    expect(new Set(engine.made.map(({ principal }) => principal.id))).toEqual(new Set(['cli:ana']));
    expect(engine.asked[0]?.permissions.toSorted()).toEqual(Object.keys(ALL).toSorted());
    expect(engine.closed).toBe(1);
  });

  it('is limited to the databases that are named', async () => {
    const engine = new FakeEngine();
    await check(engine, ['shop/carts', 'shop/carts']);
    expect(engine.made.map(({ entity }) => entity)).toEqual(['shop/carts']);
    const { status, err } = await check(engine, ['shop/cart']);
    expect(status).toBe(32);
    expect(err).toContain('Did you mean shop/carts?');
  });

  it('says what is granted, refused and unknown, and gives the policy once to all that lack the same', async () => {
    const engine = new FakeEngine();
    engine.granted = ({ entity }) =>
      entity === 'shop/carts' ? ALL : { ...ALL, 'sql.restore': 'refused', 'sql.backups.delete': 'unknown' };
    const { status, out } = await check(engine);
    expect(status).toBe(25);
    expect(out).toContain(
      '  may: create-snapshot\n  restore: refused, lacks sql.restore\n  writes not known: delete-snapshot',
    );
    expect(out).toContain('delete-snapshot (the provider does not tell)');
    expect(out).toContain(`to fix:

1. my-app/my-db, my-app/other: the credentials may not restore
   Add this to the test role: sql.restore.
     role: backup
       - sql.restore
`);
    expect(out.match(/role: backup/g)).toHaveLength(1);
  });

  it('gives the same as one document', async () => {
    const engine = failing({
      'my-app/other': new HoldfastError('INSUFFICIENT_PERMISSIONS', 'no', {
        details: { missing_permission: 'sql.backups.list', permissions: ['sql.get'], policy: 'long' },
      }),
    });
    engine.granted = () => ({ ...ALL, 'sql.restore': 'refused' });
    const { status, out } = await check(engine, ['--json', 'my-app/my-db', 'my-app/other']);
    expect(status).toBe(25);
    const { ok, entities, fixes } = JSON.parse(out) as { ok: boolean; entities: JsonObject[]; fixes: JsonObject[] };
    expect(ok).toBe(false);
    expect(entities).toMatchObject([
      {
        key: 'my-app/my-db',
        defines: 'test/sql',
        access: {
          state: 'reachable',
          reads: [{ action: 'list-snapshots', state: 'reachable' }],
          permissions_told: true,
          actions: [
            { action: 'create-snapshot', state: 'granted', lacks: [] },
            { action: 'list-snapshots', state: 'granted', lacks: [] },
            { action: 'delete-snapshot', state: 'granted', lacks: [] },
            { action: 'restore', state: 'refused', lacks: ['sql.restore'] },
          ],
        },
      },
      { key: 'my-app/other', access: { state: 'refused' } },
    ]);
    expect(fixes).toEqual([
      {
        code: 'INSUFFICIENT_PERMISSIONS',
        what: 'the credentials may not restore',
        how: 'Add this to the test role: sql.restore.',
        entities: ['my-app/my-db'],
        missing: ['sql.restore'],
        policy: 'role: backup\n  - sql.restore',
      },
      expect.objectContaining({ entities: ['my-app/other'], missing: expect.arrayContaining(['sql.backups.list']) }),
    ]);
    // The policy is among what to fix, not at every read again.
    expect(JSON.stringify(entities)).not.toContain('long');
  });

  it('does not call for writing where the policy of the file is to read only', async () => {
    const engine = new FakeEngine();
    engine.granted = () => ({ ...ALL, 'sql.restore': 'refused' });
    const { status, out } = await check(engine, [], { ...SOUND, read_only: true });
    expect(status).toBe(0);
    expect(out).toContain('restore: refused, lacks sql.restore');
    expect(out).toContain('nothing to fix');
  });

  it('puts first what stops most, each thing once', async () => {
    const engine = failing({
      'my-app/my-db': new HoldfastError('PROVIDER_UNAVAILABLE', 'nobody answers'),
      'my-app/other': new HoldfastError('AUTHENTICATION_FAILED', "the variable 'TEST_KEY' is not set"),
      'shop/carts': new HoldfastError('RESOURCE_NOT_FOUND', 'no such cache', { hint: 'Check its name.' }),
    });
    const report = {
      ...SOUND,
      entities: [
        {
          key: 'my-app/other',
          defines: 'test/sql',
          ignored: [],
          credentials: [{ name: '${env:TEST_KEY}', found: false }],
        },
        {
          key: 'my-app/my-db',
          defines: 'test/sql',
          ignored: ['size'],
          credentials: [{ name: '${file:/k}', found: false }],
        },
      ],
    };
    const { status, out } = await check(engine, [], report);
    expect(status).toBe(26);
    expect(out).toContain(
      'my-app/my-db test/sql\n  credential ${file:/k}: NOT FOUND\n  no effect here: size\n  NOT REACHED',
    );
    expect(out).toContain('  list-snapshots: PROVIDER_UNAVAILABLE: nobody answers');
    expect(out).toContain('0 of 3 databases reached, 4 things to fix:');
    expect(out.match(/^\d\. .*/gm)).toEqual([
      "1. my-app/other: the variable 'TEST_KEY' is not set",
      "2. my-app/my-db: the secret file '/k' is not there",
      '3. shop/carts: no such cache',
      '4. my-app/my-db: nobody answers',
    ]);
    // Nothing more is asked of whoever does not answer.
    expect(engine.asked).toEqual([]);
  });

  it('says what is not supported without calling for anything', async () => {
    const engine = failing({ 'my-app/my-db': new HoldfastError('CLUSTER_TIER_NOT_SUPPORTED', 'a free tier') });
    const { status, out } = await check(engine, ['my-app/my-db']);
    expect(status).toBe(0);
    expect(out).toContain('reachable, but not supported\n  list-snapshots: CLUSTER_TIER_NOT_SUPPORTED: a free tier');
    expect(out).toContain('1 of 1 database reached, nothing to fix');
  });

  it('opens nothing while the file has faults', async () => {
    const report = { ...SAMPLE_REPORT, faults };
    const { status, out, running } = await run(['check'], { deps: { checkConfig: async () => report } });
    expect(status).toBe(33);
    expect(running.opened).toEqual([]);
    expect(out).toContain('1. the entities file has 3 faults, and nothing runs before they are gone');
    expect(out).toContain('No provider was asked.');
  });

  it('points to init where there is nothing to check', async () => {
    const engine = Object.assign(new FakeEngine(), { entities: () => [] });
    expect((await check(engine, [], { ...SOUND, file: undefined })).out).toContain('holdfast init writes one');
    expect((await check(engine)).out).toContain('holdfast init --append');
  });

  it('looks at the databases of the sandbox, not at those of the file', async () => {
    const { status, out } = await check(new FakeEngine(), ['--sandbox'], SAMPLE_REPORT);
    expect(status).toBe(0);
    expect(out).not.toContain('TEST_KEY');
    expect(out).toContain('sandbox: 3 of 3 databases reached');
    const json = await check(new FakeEngine(), ['--sandbox', '--json'], SAMPLE_REPORT);
    expect(JSON.parse(json.out)).toMatchObject({ ok: true, sandbox: true });
  });

  it('shows on a terminal what it is at', async () => {
    const { err } = await run(['check'], { terminal: true, deps: { checkConfig: async () => SOUND } });
    expect(err).toContain('asking for my-app/my-db');
  });

  it('is interrupted at once', async () => {
    const engine = new FakeEngine();
    const asked = Promise.withResolvers<void>();
    engine.answer = () => {
      asked.resolve();
      return new Promise(() => {});
    };
    const running = start(['check'], { engine, deps: { checkConfig: async () => SOUND } });
    await asked.promise;
    running.interrupt();
    expect(await running.status).toBe(130);
    expect(engine.closed).toBe(1);
  });
});

describe('a probe', () => {
  const probe = (engine: FakeEngine, more: Partial<ProbeOptions> = {}) =>
    probeEntities({
      engine,
      entities: engine.entities(),
      principal: { id: 'cli:ana', person: 'ana', roles: ['viewer'] },
      signal: new AbortController().signal,
      onEntity: () => {},
      ...more,
    });

  it('waits for nobody longer than its limit, whether they mind or not', async () => {
    const engine = new FakeEngine();
    engine.answer = () => new Promise(() => {});
    const found = await probe(engine, { limitMs: 20 });
    expect(found.map(({ state }) => state)).toEqual(['not_reachable', 'not_reachable', 'not_reachable']);
    expect(found[0]?.reads[0]?.error).toMatchObject({ code: 'TIMEOUT', message: 'there was no answer within 0.02 s' });
  });

  it('asks four databases at once and no more', async () => {
    const engine = new FakeEngine();
    const [first] = engine.entities();
    const entities = Array.from({ length: 9 }, (_, index) => ({ ...first!, key: `my-app/${index}` }));
    let open = 0;
    let most = 0;
    const { answer } = engine;
    Object.assign(engine, { entity: () => first });
    engine.answer = async (call, action) => {
      open += 1;
      most = Math.max(most, open);
      await new Promise(setImmediate);
      open -= 1;
      return answer(call, action);
    };
    expect(await probe(engine, { entities })).toHaveLength(9);
    expect(most).toBe(4);
  });

  it('takes the refusal of the question itself for no answer', async () => {
    const engine = new FakeEngine();
    engine.access = async () => {
      throw new HoldfastError('INSUFFICIENT_PERMISSIONS', 'may not ask');
    };
    const [found] = await probe(engine);
    expect(found).toMatchObject({ state: 'reachable', asked: false });
  });

  it('takes a database that answers from its storage alone for not reached', async () => {
    const engine = new FakeEngine();
    engine.access = async () => {
      throw new HoldfastError('PROVIDER_UNAVAILABLE', 'the server does not answer');
    };
    const [found] = await probe(engine);
    expect(found?.state).toBe('not_reachable');
  });

  it('says what it can where a guide fails', async () => {
    const engine = new FakeEngine();
    const action = engine.actions().find(({ kind, name }) => kind === 'provider' && name === 'list-snapshots');
    const provider = { ...(action as Action).provider, guide: () => Promise.reject(new Error('no guide')) };
    Object.assign(engine, { actions: () => [{ ...action, provider }] });
    const [found] = await probe(engine);
    expect(found).toMatchObject({ state: 'reachable', guide: undefined });
  });

  it('leaves out a read that wants something after all', async () => {
    const engine = new FakeEngine();
    engine.answer = async () => {
      throw new HoldfastError('INVALID_PARAMETER', 'which one?');
    };
    const [found] = await probe(engine);
    expect(found?.reads).toEqual([]);
  });
});
