import { describe, expect, it } from 'vitest';
import { ERROR_CODES, type ErrorCode, HoldfastError } from '../../src/core/errors.ts';
import type { Progress } from '../../src/core/operation.ts';
import type { Call, Outcome } from '../../src/engine/api.ts';
import { progressBar } from '../../src/surfaces/cli/progress.ts';
import { FakeEngine, operationView, registry, run, samplePlan, start } from './cli-support.ts';

const RESTORE = ['do', 'my-app/my-db/restore', 'snapshot_id=s1'];
const CREATE = ['do', 'my-app/my-db/create-snapshot', 'snapshot_id=s1'];
const create = registry.actions.find((action) => action.name === 'create-snapshot')!;

function engineThat(answer: (call: Call) => Promise<Outcome>): FakeEngine {
  return Object.assign(new FakeEngine(), { answer });
}

function lastCall(engine: FakeEngine): Call {
  return engine.made.at(-1)!;
}

describe('the path of do', () => {
  it.each([
    ['my-app/my-db/list-snapshots', 'my-app/my-db', 'list-snapshots', {}],
    ['my-app/my-db/list-backups', 'my-app/my-db', 'list-snapshots', {}],
    ['assess', undefined, 'assess', {}],
    ['backup/assess', undefined, 'assess', {}],
    ['my-app/my-db/assess', undefined, 'assess', { entity: 'my-app/my-db' }],
  ])('%s means %s %s', async (path, entity, action, input) => {
    const { status, engine } = await run(['do', path]);
    expect(status).toBe(0);
    expect(lastCall(engine)).toMatchObject({ entity, action, input });
    expect(engine.closed).toBe(1);
  });

  it.each([
    ['my-app/my-dbb/restore', 32, "no entity 'my-app/my-dbb'", 'Did you mean my-app/my-db?'],
    ['my-app/my-db/restor', 2, "my-app/my-db has no action 'restor'", 'Did you mean restore?'],
    ['my-app/my-db/asess', 2, "has no action 'asess'", 'Did you mean assess?'],
    ['my-app/my-db', 2, 'the action is missing', 'create-snapshot, list-snapshots'],
    ['my-app/mydb', 32, "no entity 'my-app/mydb'", 'my-app/my-db'],
    ['my-app/restore', 2, 'names an action and no database', 'my-app/my-db, my-app/other'],
    ['restore', 2, 'restore needs a database', 'my-app/my-db, my-app/other'],
    ['asses', 2, "there is no action 'asses'", 'Did you mean assess?'],
    ['backup/asses', 2, "there is no action 'asses'", 'Did you mean assess?'],
    ['my-app/my-db/list-databases', 2, 'about all databases', 'holdfast do list-databases'],
    ['my-app/my-db/get-backup-info', 31, 'Test SQL has no get-backup-info', 'Ask the console.'],
    ['shop/carts/restore', 31, 'not an action of test/cache', 'test/sql'],
    ['a/b/c/d', 2, 'is not <namespace>/<entity>/<action>', 'holdfast list'],
    ['a//restore', 2, 'is not <namespace>/<entity>/<action>', 'holdfast list'],
  ])('%s is refused with help', async (path, exit, message, hint) => {
    const { status, err, out, engine } = await run(['do', path]);
    expect(status).toBe(exit);
    expect(err).toContain(message);
    expect(err).toContain(hint);
    expect(out).toBe('');
    expect(engine.made).toEqual([]);
    expect(engine.closed).toBe(1);
  });

  it('refuses an entity given twice', async () => {
    const { status, err } = await run(['do', 'my-app/my-db/assess', 'entity=my-app/other']);
    expect(status).toBe(2);
    expect(err).toContain('entity is in the path already');
  });

  it('without a path teaches by example', async () => {
    const { status, err } = await run(['do']);
    expect(status).toBe(2);
    expect(err).toContain('holdfast do my-app/my-db/list-snapshots');
  });

  it('shows the parameters of one action with --help', async () => {
    const { status, out, engine } = await run(['do', 'my-app/my-db/create-snapshot', '--help']);
    expect(status).toBe(0);
    expect(out).toContain('snapshot_id        string');
    expect(out).toContain("Example: holdfast do my-app/my-db/create-snapshot 'snapshot_id=before upgrade'");
    expect(engine.made).toEqual([]);
  });
});

describe('the call of do', () => {
  it('carries caller, parameters, token and waits until others can follow', async () => {
    const { engine } = await run([...CREATE, 'copies=2', '--token', 'hfc_x']);
    expect(lastCall(engine)).toMatchObject({
      principal: { id: 'cli:ana', person: 'ana', roles: ['viewer', 'operator', 'approver'] },
      input: { snapshot_id: 's1', copies: 2 },
      token: 'hfc_x',
      wait: 'detachable',
    });
  });

  it('takes the token from HOLDFAST_TOKEN, waits to the end with --wait and hands options on', async () => {
    const { engine, running } = await run(
      [...CREATE, '--wait', '--config', 'c.yaml', '--state-dir', 's', '--sandbox'],
      {
        env: { HOLDFAST_TOKEN: 'hfc_env' },
      },
    );
    expect(lastCall(engine)).toMatchObject({ token: 'hfc_env', wait: 'end' });
    expect(running.opened).toEqual([{ config: 'c.yaml', stateDir: 's', sandbox: true, sandboxPort: undefined }]);
  });

  it('reads a parameter from standard input', async () => {
    const { engine } = await run(['do', 'my-app/my-db/create-snapshot', 'source_uri=-'], { input: 'ftp://u:p@h/x\n' });
    expect(lastCall(engine).input).toEqual({ source_uri: 'ftp://u:p@h/x' });
  });

  it('shows the plan of --dry-run and what policy says, and runs nothing', async () => {
    const { status, out, engine } = await run([...RESTORE, '--dry-run']);
    expect(status).toBe(0);
    expect(out).toContain('Loses: every write after');
    expect(out).toContain('Nothing was run.');
    expect(engine.made.map((call) => call.dryRun)).toEqual([true]);
  });

  it('gives the plan of --dry-run as a document', async () => {
    const { out } = await run([...RESTORE, '--dry-run', '--json']);
    expect(JSON.parse(out)).toMatchObject({ plan: { target: 'acme/my-db' }, decision: 'confirm', require: 'human' });
  });

  it('gives a result as one document, the answer itself, marked in the sandbox', async () => {
    const engine = engineThat(async () => ({ kind: 'result', action: create, output: { snapshot_id: 's1' } }));
    expect(JSON.parse((await run([...CREATE, '--json'], { engine })).out)).toEqual({ snapshot_id: 's1' });
    engine.sandbox = true;
    const { out } = await run([...CREATE, '--json'], { engine });
    expect(JSON.parse(out)).toEqual({ snapshot_id: 's1', sandbox: true });
    expect((await run(CREATE, { engine })).out).toContain('[sandbox]');
  });

  it('shares simulators by their port, and waits to the end where they end with the command', async () => {
    const shared = await run([...CREATE, '--sandbox-port', '9400']);
    expect(shared.running.opened).toMatchObject([{ sandbox: true, sandboxPort: 9400 }]);
    expect(lastCall(shared.engine).wait).toBe('detachable');
    expect(lastCall((await run([...CREATE, '--sandbox'])).engine).wait).toBe('end');
    expect((await run([...RESTORE, '--sandbox'])).err).toContain('holdfast sandbox --port 9400');
  });

  it('says how to follow work that goes on', async () => {
    const engine = engineThat(async () => ({ kind: 'operation', action: create, operation: operationView('running') }));
    const { status, err, out } = await run([...CREATE, '--sandbox-port', '9400', '--state-dir', 'my state'], {
      engine,
    });
    expect(status).toBe(0);
    expect(out).toContain('Operation op_1: running');
    expect(err).toBe('');
    expect(out).toContain("Next: holdfast --state-dir 'my state' --sandbox-port 9400 operations op_1 --wait");
  });

  it.each([
    ['succeeded', {}, 0],
    ['running', {}, 0],
    ['pending', {}, 0],
    ['failed', { error: { code: 'QUOTA_EXCEEDED', message: 'm', hint: 'h', retryable: false } }, 28],
    ['failed', { error: { code: 'NO_SUCH_CODE', message: 'm', hint: 'h', retryable: false } }, 1],
    ['failed', {}, 1],
    ['cancelled', {}, 35],
    ['unknown', {}, 3],
  ] as const)('an operation that is %s %j exits as it ended', async (status, more, exit) => {
    const engine = engineThat(async () => ({
      kind: 'operation',
      action: create,
      operation: operationView(status, more),
    }));
    expect((await run(CREATE, { engine })).status).toBe(exit);
    const { status: asJson, out } = await run([...CREATE, '--json'], { engine });
    expect(asJson).toBe(exit);
    expect(JSON.parse(out)).toMatchObject({ operation_id: 'op_1', status });
  });
});

describe('errors', () => {
  it.each(Object.keys(ERROR_CODES) as ErrorCode[])(
    '%s has its exit status, in text and as a document',
    async (code) => {
      const fail = async (): Promise<never> => {
        throw new HoldfastError(code, 'the very reason', { details: { outcome: 'not_sent' } });
      };
      const text = await run(CREATE, { engine: engineThat(fail) });
      expect(text.status).toBe(ERROR_CODES[code].exit);
      expect(text.out).toBe('');
      expect(text.err).toContain(`${code}: the very reason`);
      const json = await run([...CREATE, '--json'], { engine: engineThat(fail) });
      expect(json.status).toBe(ERROR_CODES[code].exit);
      expect(json.err).toBe('');
      expect(JSON.parse(json.out)).toEqual({
        error: {
          code,
          message: 'the very reason',
          hint: ERROR_CODES[code].hint,
          retryable: ERROR_CODES[code].retryable,
          details: { outcome: 'not_sent' },
        },
      });
    },
  );

  it('reports a fault of ours as INTERNAL, its words only in the log', async () => {
    const engine = engineThat(async () => {
      throw new TypeError('secret words');
    });
    const { status, out, err, running } = await run(CREATE, { engine });
    expect(status).toBe(70);
    expect(out + err).not.toContain('secret words');
    expect(running.faults).toEqual(['an unexpected fault stopped the call']);
  });

  it('reports a fault of opening the engine', async () => {
    const openEngine = async (): Promise<never> => {
      throw new HoldfastError('CONFIG_INVALID', 'holdfast.yaml has faults');
    };
    expect((await run(CREATE, { deps: { openEngine } })).status).toBe(33);
  });

  it('tells the first fault when closing fails too', async () => {
    const engine = engineThat(async () => {
      throw new HoldfastError('TIMEOUT', 'first');
    });
    engine.close = async () => {
      throw new HoldfastError('STATE_UNAVAILABLE', 'second');
    };
    expect((await run(CREATE, { engine })).status).toBe(30);
    engine.answer = async () => ({ kind: 'result', action: create, output: {} });
    expect((await run(CREATE, { engine })).status).toBe(36);
  });

  it('never lets text of others move the cursor', async () => {
    const nasty = '\u001b[2J\u009b31m\u0007evil\u202etxt\u200b';
    const engine = engineThat(async () => ({
      kind: 'result',
      action: create,
      output: { snapshots: [{ id: nasty }], note: nasty },
    }));
    for (const argv of [CREATE, [...CREATE, '--json']]) {
      const { out } = await run(argv, { engine, terminal: true, env: { NO_COLOR: '1' } });
      expect(out).toContain('evil');
      expect(out).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200b\u202e]/);
    }
    const { out } = await run([...CREATE, '--json'], { engine });
    expect(JSON.parse(out)).toMatchObject({ note: nasty });
  });
});

describe('a guarded call without a terminal', () => {
  it('is refused with plan, code, token and the exact next call', async () => {
    const { status, out, err, engine } = await run([...RESTORE, '--wait']);
    expect(status).toBe(10);
    expect(out).toBe('');
    expect(err).toContain('CONFIRMATION_REQUIRED');
    expect(err).toContain('Loses: every write after');
    expect(err).toContain('holdfast approve 7K3Q-F2M1');
    expect(err).toContain('After approval: holdfast do my-app/my-db/restore snapshot_id=s1 --wait --token hfc_1');
    expect(engine.made).toHaveLength(1);
  });

  it('is refused as a document', async () => {
    const { status, out } = await run([...RESTORE, '--json']);
    expect(status).toBe(10);
    expect(JSON.parse(out)).toMatchObject({
      error: { code: 'CONFIRMATION_REQUIRED' },
      plan: { target: 'acme/my-db', risk: 'overwrite' },
      confirmation: { token: 'hfc_1', code: '7K3Q-F2M1', approve_with: 'holdfast approve 7K3Q-F2M1' },
    });
    expect(JSON.parse(out).error.details).toBeUndefined();
    expect(JSON.parse(out).confirmation.id).toBeUndefined();
  });

  it('is refused as a document on a terminal too, without a question', async () => {
    const { status, err } = await run([...RESTORE, '--json'], { terminal: true, open: true });
    expect(status).toBe(10);
    expect(err).toBe('');
  });

  it('does not repeat what may be a secret', async () => {
    const { err } = await run([...RESTORE, 'source_uri=@@ftp://u:hunter2@h']);
    expect(err).toContain('source_uri=***');
    expect(err).not.toContain('hunter2');
  });

  it('runs with its token after approval and never twice', async () => {
    const engine = new FakeEngine();
    await run(RESTORE, { engine });
    expect((await run([...RESTORE, '--token', 'hfc_1'], { engine })).status).toBe(11);
    expect((await run(['approve', '7K3Q-F2M1', '--target', 'acme/my-db'], { engine })).status).toBe(0);
    expect((await run([...RESTORE, '--token', 'hfc_1'], { engine })).status).toBe(0);
    expect((await run([...RESTORE, '--token', 'hfc_1'], { engine })).status).toBe(12);
  });

  it('that policy leaves to a token says so', async () => {
    const engine = Object.assign(new FakeEngine(), { require: 'token' as const });
    expect((await run(RESTORE, { engine })).err).toContain('To go ahead: holdfast do my-app/my-db/restore');
  });
});

describe('a guarded call on a terminal', () => {
  it('asks for the name of the target and goes on', async () => {
    const { status, out, err, engine } = await run(RESTORE, { terminal: true, input: 'acme/my-db\n', open: true });
    expect(status).toBe(0);
    expect(out).toContain('ok: yes');
    expect(err).toContain('every write after');
    expect(err).toContain('Type the name of the target');
    expect(engine.made.map((call) => call.confirmationId)).toEqual([undefined, 'id-1']);
    expect(engine.records[0]?.state).toBe('consumed');
  });

  it('asks again after a wrong name, three times at most, then says no', async () => {
    const twice = await run(RESTORE, { terminal: true, input: 'acme\n acme/my-db \n' });
    expect(twice.status).toBe(0);
    expect(twice.err).toContain('That is not the name of the target.');
    const never = await run(RESTORE, { terminal: true, input: 'yes\ny\nok\nacme/my-db\n' });
    expect(never.status).toBe(12);
    expect(never.engine.made).toHaveLength(1);
    expect(never.engine.denied).toHaveLength(1);
  });

  it.each([
    ['nothing', '\n', true],
    ['blanks', '   \n', true],
    ['the end of the input', '', false],
    ['half a line and the end', 'acme', false],
  ])('runs nothing after %s', async (_what, input, open) => {
    const { status, engine } = await run(RESTORE, { terminal: true, input, open });
    expect(status).not.toBe(0);
    expect(engine.made).toHaveLength(1);
    expect(engine.records[0]?.state).not.toBe('consumed');
  });

  it('says that nothing was changed when nobody confirms, and closes the question', async () => {
    const { status, err, engine } = await run(RESTORE, { terminal: true, input: '\n' });
    expect(status).toBe(35);
    expect(err).toContain('Nothing was run; nothing was changed.');
    expect(engine.denied).toMatchObject([{ confirmation: 'id-1', via: 'terminal' }]);
  });

  it('asks for the approver passphrase without showing it', async () => {
    const engine = Object.assign(new FakeEngine(), { passphrase: 'open sesame' });
    const { status, err, out, running } = await run(RESTORE, {
      engine,
      terminal: true,
      input: 'acme/my-db\nwrong\ropen sesamf\u007fe\r',
      open: true,
    });
    expect(status).toBe(0);
    expect(err).toContain('Approver passphrase: ');
    expect(err).toContain('That is not the approver passphrase.');
    expect(out + err).not.toContain('sesam');
    expect(running.keyboard.modes).toEqual([true, false, true, false]);
  });

  it('gives up after three wrong passphrases', async () => {
    const engine = Object.assign(new FakeEngine(), { passphrase: 'open sesame' });
    const input = 'acme/my-db\na\rb\rc\ropen sesame\r';
    const { status } = await run(RESTORE, { engine, terminal: true, input, open: true });
    expect(status).toBe(26);
    expect(engine.made).toHaveLength(1);
  });

  it('takes Ctrl-C in place of the passphrase as an interrupt', async () => {
    const engine = Object.assign(new FakeEngine(), { passphrase: 'open sesame' });
    const { status, running } = await run(RESTORE, {
      engine,
      terminal: true,
      input: 'acme/my-db\nop\u0003',
      open: true,
    });
    expect(status).toBe(130);
    expect(running.keyboard.modes).toEqual([true, false]);
  });

  it('takes the end of the input in place of the passphrase as a no', async () => {
    const engine = Object.assign(new FakeEngine(), { passphrase: 'open sesame' });
    const { status } = await run(RESTORE, { engine, terminal: true, input: 'acme/my-db\n\u0004', open: true });
    expect(status).toBe(35);
  });

  it('is interrupted by Ctrl-C at the question', async () => {
    const running = start(RESTORE, { terminal: true, open: true });
    await running.err.shows('Type the name of the target');
    running.interrupt();
    expect(await running.status).toBe(130);
    expect(running.engine.made).toHaveLength(1);
    expect(running.engine.records[0]?.state).toBe('denied');
  });

  it('shows what changed and asks again when the target changed meanwhile', async () => {
    const engine = new FakeEngine();
    const approve = engine.approve.bind(engine);
    let changes = 0;
    engine.approve = async (decision) => {
      const record = await approve(decision);
      changes += 1;
      if (changes === 1) engine.plan = samplePlan({ target: 'acme/other' });
      return record;
    };
    const { status, err } = await run(RESTORE, {
      engine,
      terminal: true,
      input: 'acme/my-db\nacme/other\n',
      open: true,
    });
    expect(status).toBe(0);
    expect(err).toContain('PLAN_CHANGED');
    expect(err).toContain('Changed: target.state: ready -> busy');
    expect(engine.made.map((call) => call.confirmationId)).toEqual([undefined, 'id-1', 'id-2']);
  });

  it('asks even where policy wants only a token', async () => {
    const engine = Object.assign(new FakeEngine(), { require: 'token' as const });
    const { status } = await run(RESTORE, { engine, terminal: true, input: 'acme/my-db\n', open: true });
    expect(status).toBe(0);
    expect(engine.made.map((call) => call.token)).toEqual([undefined, 'hfc_1']);
    const wrong = Object.assign(new FakeEngine(), { require: 'token' as const });
    expect((await run(RESTORE, { engine: wrong, terminal: true, input: 'a\nb\nc\n', open: true })).status).toBe(12);
    expect(wrong.made).toHaveLength(1);
  });

  it('leaves two people to the second person', async () => {
    const engine = Object.assign(new FakeEngine(), { require: 'two-people' as const });
    const { status, err } = await run(RESTORE, { engine, terminal: true, input: 'acme/my-db\n', open: true });
    expect(status).toBe(10);
    expect(err).toContain('holdfast approve 7K3Q-F2M1');
    expect(err).not.toContain('Type the name');
  });

  it('asks nobody once standard input was read as a parameter', async () => {
    const argv = ['do', 'my-app/my-db/restore', 'snapshot_id=-'];
    const { status, engine } = await run(argv, { terminal: true, input: 's1\n' });
    expect(status).toBe(10);
    expect(lastCall(engine).input).toEqual({ snapshot_id: 's1' });
  });

  it('shows colours there only, and none with NO_COLOR', async () => {
    const options = { terminal: true, input: 'acme/my-db\n', open: true };
    expect((await run(RESTORE, options)).err).toContain('\u001b[31mLoses:');
    expect((await run(RESTORE, { ...options, env: { NO_COLOR: '1' } })).err).not.toContain('\u001b[');
    expect((await run(RESTORE, { ...options, env: { TERM: 'dumb' } })).err).not.toContain('\u001b[');
    expect((await run(RESTORE)).err).not.toContain('\u001b');
  });
});

describe('progress', () => {
  const steps: Progress[] = [
    { message: 'Taking the snapshot' },
    { percent: 10, message: 'Copying' },
    { percent: 12, message: 'Copying' },
    { percent: 55, message: 'Copying\u001b[2J' },
    { percent: 100, message: 'Done' },
  ];
  const engine = (): FakeEngine =>
    engineThat(async (call) => {
      for (const step of steps) call.onProgress?.(step);
      return { kind: 'result', action: create, output: { ok: true } };
    });

  it('is a bar on a terminal, which leaves no trace', async () => {
    const { err } = await run(CREATE, { engine: engine(), terminal: true });
    expect(err).toContain('\r\u001b[2K… Taking the snapshot');
    expect(err).toContain(`\r\u001b[2K[${'='.repeat(13)}${' '.repeat(11)}]  55 % Copying [2J`);
    expect(err.endsWith('\r\u001b[2K')).toBe(true);
  });

  it('is a line for every change worth one elsewhere, on standard error', async () => {
    const { err, out } = await run(CREATE, { engine: engine() });
    expect(err).toBe('Taking the snapshot\nCopying (10 %)\nCopying [2J (55 %)\nDone (100 %)\n');
    expect(out).toBe('ok: yes\n');
  });

  it('leaves the document of --json alone', async () => {
    const { out, err } = await run([...CREATE, '--json'], { engine: engine(), terminal: true });
    expect(JSON.parse(out)).toEqual({ ok: true });
    expect(err).toContain('Copying (10 %)');
    expect(err).not.toContain('\u001b');
  });

  it('fits the line and its limits', () => {
    expect(progressBar({ percent: -5, message: 'a' })).toBe(`[${' '.repeat(24)}]   0 % a`);
    expect(progressBar({ percent: 250, message: 'a' })).toBe(`[${'='.repeat(24)}] 100 % a`);
  });

  it('is cut to the width of the terminal', async () => {
    const long = engineThat(async (call) => {
      call.onProgress?.({ message: 'x'.repeat(190) });
      return { kind: 'result', action: create, output: { ok: true } };
    });
    const { err } = await run(CREATE, { engine: long, terminal: true });
    expect(err).toContain(`${'x'.repeat(96)}…`);
    expect(err).not.toContain('x'.repeat(98));
  });
});

describe('Ctrl-C', () => {
  const untilAbort = (call: Call): Promise<void> =>
    new Promise((resolve) => call.signal?.addEventListener('abort', () => resolve(), { once: true }));

  it('waits for the request in flight and exits with 130', async () => {
    const running = start(CREATE, {
      engine: engineThat(async (call) => {
        call.onProgress?.({ message: 'Asking' });
        await untilAbort(call);
        throw new DOMException('aborted', 'AbortError');
      }),
    });
    await running.err.shows('Asking');
    running.interrupt();
    expect(await running.status).toBe(130);
    expect(running.err.text).toContain('Stopping: waiting for what is in flight.');
    expect(running.err.text).toContain('CANCELLED');
    expect(running.engine.closed).toBe(1);
  });

  it('says which work goes on', async () => {
    const running = start(CREATE, {
      engine: engineThat(async (call) => {
        call.onProgress?.({ message: 'Asking' });
        await untilAbort(call);
        throw new HoldfastError('CANCELLED', 'the call was cancelled; operation op_1 goes on', {
          details: { operation_id: 'op_1' },
        });
      }),
    });
    await running.err.shows('Asking');
    running.interrupt();
    expect(await running.status).toBe(130);
    expect(running.err.text).toContain('Follow it: holdfast operations op_1 --wait');
  });

  it('leaves an operation that answered in time as going on', async () => {
    const running = start(CREATE, {
      engine: engineThat(async (call) => {
        call.onProgress?.({ message: 'Asking' });
        await untilAbort(call);
        return { kind: 'operation', action: create, operation: operationView('running') };
      }),
    });
    await running.err.shows('Asking');
    running.interrupt('SIGTERM');
    expect(await running.status).toBe(143);
    expect(running.err.text).toContain('Left, not stopped');
  });

  it('does not turn success into failure', async () => {
    const running = start(CREATE, {
      engine: engineThat(async (call) => {
        call.onProgress?.({ message: 'Asking' });
        await untilAbort(call);
        return { kind: 'operation', action: create, operation: operationView('succeeded') };
      }),
    });
    await running.err.shows('Asking');
    running.interrupt();
    expect(await running.status).toBe(0);
  });
});
