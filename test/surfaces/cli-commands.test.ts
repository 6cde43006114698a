import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { ERROR_CODES, HoldfastError } from '../../src/core/errors.ts';
import { Prompter } from '../../src/surfaces/cli/prompt.ts';
import { exitStatuses } from '../../src/surfaces/exit-statuses.ts';
import { expectGolden } from '../support/golden.ts';
import {
  closedSandboxes,
  FakeEngine,
  Keyboard,
  operationView,
  registry,
  run,
  samplePlan,
  start,
} from './cli-support.ts';

const COMMANDS = [
  'do',
  'list',
  'actions',
  'check',
  'init',
  'approvals',
  'approve',
  'deny',
  'operations',
  'audit',
  'audit verify',
  'audit tail',
  'schedule',
  'schedule list',
  'schedule next',
  'schedule run',
  'schedule render',
  'serve',
  'sandbox',
  'demo',
  'help',
  'version',
];

describe('help', () => {
  it('of the program teaches by example', async () => {
    const { out, status } = await run(['--help']);
    expect(status).toBe(0);
    expectGolden('test/golden/cli/holdfast.txt', out);
  });

  it.each(COMMANDS)('of %s teaches by example', async (command) => {
    const { out, status, err } = await run([...command.split(' '), '--help']);
    expect(status).toBe(0);
    expect(err).toBe('');
    expect(out).toContain('Examples:\n  $ holdfast ');
    expectGolden(`test/golden/cli/${command.replaceAll(' ', '-')}.txt`, out);
    expect((await run(['help', ...command.split(' ')])).out).toBe(out);
  });

  it('of exit codes has every code of the error table, in text and as a document', async () => {
    const { out } = await run(['help', 'exit-codes']);
    expectGolden('test/golden/cli/exit-codes.txt', out);
    const rows = JSON.parse((await run(['help', 'exit-codes', '--json'])).out).exit_codes;
    expect(rows).toEqual(exitStatuses());
    for (const [code, { exit }] of Object.entries(ERROR_CODES)) {
      expect(rows.filter((row: { codes: string[] }) => row.codes.includes(code))).toMatchObject([{ exit }]);
    }
  });

  it.each([
    [['help', 'lst'], "no command or topic 'lst'", 'Did you mean list?'],
    [['help', 'exit-code'], 'exit-code', 'Did you mean exit-codes?'],
    [['help', 'audit', 'verfy'], 'verfy', 'Did you mean verify?'],
    [['lst'], "no command 'lst'", 'Did you mean list?'],
    [['lst', '--port', '3'], "no command 'lst'", 'Did you mean list?'],
    [['--jsn'], "no option '--jsn'", 'Did you mean --json?'],
    [['list', '--jsn'], "unknown option '--jsn'", 'Did you mean --json?'],
    [['do', 'a/b/c', '--tokn', 'x'], "unknown option '--tokn'", 'Did you mean --token?'],
    [['audit'], 'needs a subcommand', 'holdfast help'],
    [['audit', 'verfy'], "unknown command 'verfy'", 'Did you mean verify?'],
    [['approve'], "missing required argument 'code'", 'holdfast help'],
    [['list', 'x'], 'too many arguments', 'holdfast help'],
    [['serve', '--port'], "option '--port <n>' argument missing", 'holdfast help'],
    [['do', '--token'], 'argument missing', 'holdfast help'],
  ])('%j is refused with what was meant', async (argv, message, hint) => {
    const text = await run(argv);
    expect(text.status).toBe(2);
    expect(text.out).toBe('');
    expect(text.err).toContain(message);
    expect(text.err).toContain(hint);
    const json = await run(['--json', ...argv]);
    expect(json.status).toBe(2);
    expect(JSON.parse(json.out)).toMatchObject({ error: { code: 'INVALID_PARAMETER' } });
    expect(json.running.served).toEqual([]);
  });
});

describe('version', () => {
  it.each([[['version']], [['--version']], [['-V']]])('%j shows it', async (argv) => {
    expect(await run(argv)).toMatchObject({ status: 0, out: 'holdfast 1.2.3\n', err: '' });
    expect(JSON.parse((await run([...argv, '--json'])).out)).toMatchObject({ name: 'holdfast', version: '1.2.3' });
  });
});

describe('without a command', () => {
  it('serves MCP over stdio when no terminal is on stdin, and writes nothing to stdout', async () => {
    const { status, out, running } = await run(['--sandbox']);
    expect(status).toBe(0);
    expect(out).toBe('');
    expect(running.served).toMatchObject([{ transport: 'stdio', sandbox: true }]);
  });

  it('shows help on a terminal', async () => {
    const { status, out, running } = await run([], { terminal: true });
    expect(status).toBe(0);
    expect(out).toContain('Usage: holdfast');
    expect(running.served).toEqual([]);
  });
});

describe('serve', () => {
  it('hands everything on', async () => {
    const argv = 'serve --http --host 0.0.0.0 --port 0 --config c --state-dir s --sandbox --sandbox-port 9400'.split(
      ' ',
    );
    const { running } = await run(argv);
    expect(running.served).toMatchObject([
      { transport: 'http', host: '0.0.0.0', port: 0, config: 'c', stateDir: 's', sandbox: true, sandboxPort: 9400 },
    ]);
    expect((await run(['serve', '--http'])).running.served).toMatchObject([{ transport: 'http', port: undefined }]);
    expect((await run(['serve'])).running.served).toMatchObject([{ transport: 'stdio', port: undefined }]);
  });

  it.each([
    ['serve', {}, 'all'],
    ['serve --tools compact', {}, 'compact'],
    ['serve', { HOLDFAST_TOOLS: 'compact' }, 'compact'],
    ['serve --tools all', { HOLDFAST_TOOLS: 'compact' }, 'all'],
    ['serve', { HOLDFAST_TOOLS: '' }, 'all'],
    ['--sandbox', { HOLDFAST_TOOLS: 'compact' }, 'compact'],
  ])('%s with %j in the environment lists tools: %s', async (line, env, toolSet) => {
    const { running } = await run(line.split(' '), { env });
    expect(running.served).toMatchObject([{ toolSet }]);
  });

  it('refuses a set of tools that is none', async () => {
    const refused = [await run(['serve', '--tools', 'few']), await run(['serve'], { env: { HOLDFAST_TOOLS: 'few' } })];
    expect(refused.map(({ status }) => status)).toEqual([2, 2]);
    expect(refused[0]?.err).toContain('--tools is neither all nor compact');
    expect(refused[1]?.err).toContain('HOLDFAST_TOOLS is neither all nor compact');
  });

  it.each([
    ['serve --port 80', 'about HTTP'],
    ['serve --host ::1', 'about HTTP'],
    ['serve --http --port 65536', 'not a whole number from 0 to 65535'],
    ['serve --http --port 1e3', 'not a whole number'],
    ['serve --http --port=-1', 'not a whole number'],
    ['serve --sandbox-port x', 'not a whole number from 1 to 65535'],
    ['list --sandbox-port 0', 'not a whole number from 1 to 65535'],
    ['sandbox --port x', 'not a whole number'],
  ])('%s is refused', async (line, message) => {
    const { status, err, running } = await run(line.split(' '));
    expect(status).toBe(2);
    expect(err).toContain(message);
    expect(running.served).toEqual([]);
  });

  it('reports why it cannot start', async () => {
    const serve = async (): Promise<never> => {
      throw new HoldfastError('INVALID_STATE', 'port 80 is taken');
    };
    expect(await run(['serve'], { deps: { serve } })).toMatchObject({ status: 24, out: '' });
  });
});

describe('sandbox', () => {
  it('prints endpoints and controls, and runs until a signal', async () => {
    const running = start(['sandbox', '--port', '9401']);
    await running.err.shows('Runs until Ctrl-C.');
    expect(running.out.text).toContain('endpoint: http://127.0.0.1:9401');
    expect(running.out.text).toContain('GET /_journal');
    running.interrupt();
    expect(await running.status).toBe(0);
    expect(closedSandboxes).toContain(9401);
  });

  it('prints one document with --json', async () => {
    const running = start(['sandbox', '--json', '--port', '9402']);
    await running.out.shows('}\n');
    running.interrupt();
    expect(await running.status).toBe(0);
    const document = JSON.parse(running.out.text);
    expect(document).toMatchObject({ origin: 'http://127.0.0.1:9402', endpoints: [{ defines: 'test/sql' }] });
    expect(document.controls.map((control: { url: string }) => control.url)).toContain('http://127.0.0.1:9402/_clock');
  });
});

describe('demo', () => {
  it('prints what happens, and leaves stdout to the document with --json', async () => {
    expect(await run(['demo'])).toMatchObject({ status: 0, out: 'the agent was stopped\n' });
    expect(await run(['demo', '--json'])).toMatchObject({ out: '', err: 'the agent was stopped\n' });
    expect((await run(['demo'], { deps: { runDemo: async () => 7 } })).status).toBe(7);
  });
});

describe('list and actions', () => {
  it('lists databases', async () => {
    const { out } = await run(['list']);
    expect(out).toContain('my-app/my-db  test/sql    test-sql  env=production  rpo=900');
    const document = JSON.parse((await run(['list', '--json'])).out);
    expect(document.entities[0]).toEqual({
      entity: 'my-app/my-db',
      type: 'test/sql',
      provider: 'test-sql',
      labels: { env: 'production' },
      objectives: { rpo: 900 },
    });
  });

  it('says what to do when no database is configured', async () => {
    const engine = Object.assign(new FakeEngine(), { entities: () => [] });
    expect((await run(['list'], { engine })).out).toContain('No database is configured.');
  });

  it.each([
    ['', ['assess', 'restore']],
    ['test-sql', ['restore', 'No get-backup-info: Ask the console.']],
    ['test_sql', ['restore']],
    ['backup', ['assess']],
    ['shop/carts', ['list-snapshots']],
    ['restore', ['create to overwrite']],
    ['my-app/my-db/restore', ['Replaces the database with a snapshot.', 'guarded']],
    ['my-app/my-db/assess', ['Example: holdfast do assess']],
  ])('shows the actions of %j', async (what, parts) => {
    const argv = ['actions', ...(what === '' ? [] : [what])];
    const { status, out } = await run(argv);
    expect(status).toBe(0);
    for (const part of parts) expect(out).toContain(part);
    expect(JSON.parse((await run([...argv, '--json'])).out)).toBeTypeOf('object');
  });

  it('shows only what an entity has', async () => {
    const names = JSON.parse((await run(['actions', 'shop/carts', '--json'])).out).actions.map(
      (action: { action: string }) => action.action,
    );
    expect(names).toEqual(['create-snapshot', 'list-snapshots']);
  });

  it('describes parameters as a document', async () => {
    const { out } = await run(['actions', 'my-app/my-db/create-snapshot', '--json']);
    expect(JSON.parse(out)).toMatchObject({ action: 'create-snapshot', risk: 'create', up_to: 'create' });
    expect(JSON.parse(out).parameters).toContainEqual({ name: 'copies', type: 'integer', required: false, default: 1 });
  });

  it.each([
    ['tst-sql', 2, 'Did you mean test-sql?'],
    ['restroe', 2, 'Did you mean restore?'],
    ['shop/cart', 32, 'Did you mean shop/carts?'],
  ])('%s is refused with what was meant', async (what, exit, hint) => {
    const { status, err } = await run(['actions', what]);
    expect(status).toBe(exit);
    expect(err).toContain(hint);
  });
});

describe('approvals', () => {
  async function asked(require: FakeEngine['require'] = 'human'): Promise<FakeEngine> {
    const engine = Object.assign(new FakeEngine(), { require });
    await run(['do', 'my-app/my-db/restore', 'snapshot_id=s1'], { engine });
    return engine;
  }

  it('lists what waits, without the token and its hash', async () => {
    const engine = await asked();
    const { out } = await run(['approvals'], { engine });
    expect(out).toContain('7K3Q-F2M1');
    expect(out).toContain('acme/my-db');
    const json = await run(['approvals', '--json'], { engine });
    expect(JSON.parse(json.out).confirmations).toMatchObject([{ code: '7K3Q-F2M1', state: 'pending' }]);
    expect(json.out + out).not.toContain('hfc_');
    expect(json.out).not.toContain('digest');
  });

  it('lists what is decided with --all only', async () => {
    const engine = await asked();
    await run(['deny', '7K3Q-F2M1', '--reason', 'wrong\u001b[2J one'], { engine });
    expect(engine.denied).toMatchObject([{ reason: 'wrong [2J one' }]);
    expect((await run(['approvals'], { engine })).out).toContain('No call waits');
    expect((await run(['approvals', '--all'], { engine })).out).toContain('denied');
    expect((await run(['approvals', '--all'])).out).toContain('No call has asked');
    expect((await run(['deny', '7K3Q-F2M1'], { engine })).status).toBe(13);
  });

  it('shows the plan on a terminal and approves the typed name', async () => {
    const engine = await asked();
    const { status, out, err } = await run(['approve', '7k3qf2m1'], { engine, terminal: true, input: 'acme/my-db\n' });
    expect(status).toBe(0);
    expect(err).toContain('every write after');
    expect(err).toContain('Asked by: cli:ana');
    expect(err).toContain('snapshot_id: s1');
    expect(out).toContain('7K3Q-F2M1: restore on acme/my-db');
    expect(engine.records[0]?.state).toBe('approved');
  });

  it('leaves the question open when nobody answers', async () => {
    const engine = await asked();
    expect((await run(['approve', '7K3Q-F2M1'], { engine, terminal: true, input: '\n' })).status).toBe(35);
    expect(engine.records[0]?.state).toBe('pending');
  });

  it('asks for the passphrase on a terminal, reads it from a file in a script', async () => {
    const engine = Object.assign(await asked(), { passphrase: 'open sesame' });
    const file = join(mkdtempSync(join(tmpdir(), 'holdfast-cli-')), 'passphrase');
    writeFileSync(file, 'open sesame\n');
    const script = ['approve', '7K3Q-F2M1', '--target', 'acme/my-db'];
    expect((await run(script, { engine })).status).toBe(26);
    expect((await run([...script, '--passphrase-file', `${file}.absent`], { engine })).status).toBe(2);
    expect((await run([...script, '--passphrase-file', file], { engine })).status).toBe(0);
    const other = Object.assign(await asked(), { passphrase: 'open sesame' });
    const input = 'acme/my-db\nopen sesame\r';
    expect((await run(['approve', '7K3Q-F2M1'], { engine: other, terminal: true, input, open: true })).status).toBe(0);
  });

  it('approves in a script with the right name only', async () => {
    const engine = await asked();
    expect((await run(['approve', '7K3Q-F2M1', '--target', 'yes'], { engine })).status).toBe(12);
    const { status, out } = await run(['approve', '7K3Q-F2M1', '--target', 'acme/my-db', '--json'], { engine });
    expect(status).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ confirmation: { state: 'approved', code: '7K3Q-F2M1' } });
  });

  it('wants the name in a script', async () => {
    const engine = await asked();
    const { status, err } = await run(['approve', '7K3Q-F2M1'], { engine });
    expect(status).toBe(2);
    expect(err).toContain('--target NAME');
    expect(engine.records[0]?.state).toBe('pending');
  });

  it.each([
    ['expired', 12, 'CONFIRMATION_EXPIRED'],
    ['denied', 13, 'CONFIRMATION_DENIED'],
    ['consumed', 12, 'CONFIRMATION_USED'],
  ] as const)('refuses one that is %s before it asks', async (state, exit, code) => {
    const engine = await asked();
    Object.assign(engine.records[0]!, { state });
    const { status, err } = await run(['approve', '7K3Q-F2M1'], { engine, terminal: true, input: 'acme/my-db\n' });
    expect(status).toBe(exit);
    expect(err).toContain(code);
    expect(err).not.toContain('Type the name');
  });

  it('says which code may be meant', async () => {
    const { status, err } = await run(['approve', '7K3Q-F2M2'], { engine: await asked() });
    expect(status).toBe(12);
    expect(err).toContain('Did you mean 7K3Q-F2M1?');
  });

  it('refuses the caller as the second person', async () => {
    const { status, err } = await run(['approve', '7K3Q-F2M1'], {
      engine: await asked('two-people'),
      terminal: true,
      input: 'acme/my-db\n',
    });
    expect(status).toBe(15);
    expect(err).toContain('second person');
  });

  it('takes the approval of another person', async () => {
    const engine = await asked('two-people');
    const argv = ['approve', '7K3Q-F2M1', '--target', 'acme/my-db'];
    expect((await run(argv, { engine, deps: { user: 'ben' } })).status).toBe(0);
  });
});

describe('operations', () => {
  const answering = (...views: ReturnType<typeof operationView>[]): FakeEngine => {
    const left = [...views];
    return Object.assign(new FakeEngine(), {
      answer: async (call: { action: string }) => ({
        kind: 'result' as const,
        action: registry.fleet.find((action) => action.name === call.action)!,
        output: call.action === 'list-operations' ? { operations: left } : left.length > 1 ? left.shift() : left[0],
      }),
    });
  };

  it('lists them', async () => {
    const engine = answering(operationView('running', { percent: 42.4 }));
    const { out } = await run(['operations'], { engine });
    expect(out).toContain('op_1       running  42');
    expect(JSON.parse((await run(['operations', '--json'], { engine })).out).operations).toHaveLength(1);
    expect((await run(['operations'], { engine: answering() })).out).toBe('No operation yet.\n');
  });

  it('shows one, whatever became of it', async () => {
    const engine = answering(operationView('failed'));
    const { status, out } = await run(['operations', 'op_1'], { engine });
    expect(status).toBe(0);
    expect(out).toContain('Operation op_1: failed');
    expect(engine.made[0]).toMatchObject({ action: 'get-operation', input: { operation_id: 'op_1' } });
  });

  it('follows one to its end and exits as it ended', async () => {
    const engine = answering(operationView('running'), operationView('running'), operationView('failed'));
    const { status, out } = await run(['operations', 'op_1', '--wait'], { engine });
    expect(status).toBe(1);
    expect(out).toContain('Operation op_1: failed');
    expect(engine.made).toHaveLength(3);
    const done = await run(['operations', 'op_1', '--wait', '--json'], {
      engine: answering(operationView('succeeded')),
    });
    expect(done.status).toBe(0);
    expect(JSON.parse(done.out)).toMatchObject({ status: 'succeeded' });
  });

  it('is left, not stopped, by Ctrl-C', async () => {
    const running = start(['operations', 'op_1', '--wait'], {
      engine: Object.assign(new FakeEngine(), {
        answer: async (call: { signal?: AbortSignal; onProgress?: (progress: { message: string }) => void }) => {
          call.onProgress?.({ message: 'Restoring' });
          await new Promise((resolve) => call.signal?.addEventListener('abort', resolve, { once: true }));
          throw new DOMException('aborted', 'AbortError');
        },
      }),
    });
    await running.err.shows('Restoring');
    running.interrupt();
    expect(await running.status).toBe(130);
    expect(running.err.text).toContain('operation op_1 was left, not stopped');
    expect(running.err.text).toContain('Follow it: holdfast operations op_1 --wait');
  });

  it('wants an id to wait for', async () => {
    expect((await run(['operations', '--wait'])).status).toBe(2);
  });

  it('says that there is none of that id', async () => {
    const engine = Object.assign(new FakeEngine(), {
      answer: async (): Promise<never> => {
        throw new HoldfastError('OPERATION_NOT_FOUND', "there is no operation 'op_2'");
      },
    });
    expect((await run(['operations', 'op_2'], { engine })).status).toBe(21);
    expect((await run(['operations', 'op_2', '--wait'], { engine })).status).toBe(21);
  });
});

describe('audit', () => {
  it('verifies the chain and exits with 34 when it is broken', async () => {
    const engine = new FakeEngine();
    expect(await run(['audit', 'verify'], { engine })).toMatchObject({ status: 0, out: expect.stringContaining('12') });
    engine.audit = { ok: false, records: 7, fault: { line: 8, problem: 'the line was changed' } };
    const { status, out } = await run(['audit', 'verify'], { engine });
    expect(status).toBe(34);
    expect(out).toContain('BROKEN at line 8: the line was changed');
    const json = await run(['audit', 'verify', '--json'], { engine });
    expect(json.status).toBe(34);
    expect(JSON.parse(json.out)).toEqual(engine.audit);
  });

  it('shows the newest records last', async () => {
    const engine = new FakeEngine();
    engine.trail = [
      { sequence: 2, at: 't2', event: 'result', principal: 'cli:ana', outcome: 'ok', hash: 'h', rule: 'r\u001b[2J' },
      { sequence: 1, at: 't1', event: 'intent', principal: 'cli:ana', action: 'restore', hash: 'h' },
    ];
    const { out } = await run(['audit', 'tail'], { engine });
    expect(out).toBe('t1 intent cli:ana restore\nt2 result cli:ana ok rule=r [2J\n');
    const json = await run(['audit', 'tail', '--lines', '1', '--json'], { engine });
    expect(JSON.parse(json.out).records).toMatchObject([{ sequence: 2 }]);
    expect((await run(['audit', 'tail'])).out).toBe('The audit trail is empty.\n');
    expect((await run(['audit', 'tail', '--lines', '0'])).status).toBe(2);
  });
});

describe('the prompter', () => {
  it('reads characters that arrive in pieces, and lines typed ahead', async () => {
    const keyboard = new Keyboard(true);
    const prompter = new Prompter(keyboard, new AbortController().signal);
    const bytes = Buffer.from('é\r\ntwo\nthree');
    keyboard.write(bytes.subarray(0, 1));
    const line = prompter.line();
    keyboard.write(bytes.subarray(1));
    expect(await line).toBe('é');
    expect(await prompter.line()).toBe('two');
    keyboard.end();
    expect(await prompter.line()).toBe('three');
    expect(await prompter.line()).toBeUndefined();
    expect(prompter.open).toBe(false);
  });

  it('asks nobody on a stream that is over', async () => {
    const input = Object.assign(new PassThrough(), { isTTY: true });
    input.destroy();
    expect(await new Prompter(input, new AbortController().signal).line()).toBeUndefined();
  });

  it('stops at once when the signal fired before', async () => {
    const prompter = new Prompter(new Keyboard(true), AbortSignal.abort());
    await expect(prompter.line()).rejects.toThrow('interrupted');
  });
});

describe('the output', () => {
  it('survives a reader that went away', async () => {
    const running = start(['list'], { open: true });
    running.out.destroy(Object.assign(new Error('gone'), { code: 'EPIPE' }));
    expect(await running.status).toBe(0);
    expect(running.faults).toEqual([]);
  });

  it('is one document for every command that prints one', async () => {
    const engine = new FakeEngine();
    engine.plan = samplePlan({ unknowns: ['size'] });
    for (const line of [
      'list',
      'actions',
      'check --offline',
      'init',
      'approvals',
      'operations',
      'audit verify',
      'audit tail',
      'version',
    ]) {
      const { out, status } = await run([...line.split(' '), '--json'], { engine });
      expect(status, line).toBe(0);
      expect(JSON.parse(out), line).toBeTypeOf('object');
    }
  });
});
