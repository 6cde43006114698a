import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { shellWord } from '../../src/surfaces/command-line.ts';

// Real processes and a real terminal, against one sandbox that is a process of its own.

const MAIN = join(import.meta.dirname, '..', '..', 'src', 'main.ts');
const ENTITY = 'sandbox/gcp-cloud-sql';
// Runs a command on a terminal. That of util-linux; the one of other systems takes other words.
const SCRIPT = 'script';
const hasTerminal = spawnSync(SCRIPT, ['--version']).stdout?.toString().includes('util-linux') === true;

let stateDirectory: string;
let sandbox: ChildProcess;
let origin: string;
/** Snapshots that can be deleted, newest first. */
let snapshots: string[];

interface Finished {
  status: number | null;
  out: string;
  err: string;
}

class Running {
  readonly child: ChildProcess;
  readonly done: Promise<Finished>;
  text = '';
  #waiting: { part: string; resolve: () => void }[] = [];

  constructor(command: string, args: readonly string[]) {
    const env = { ...process.env, NO_COLOR: '1', HOLDFAST_CONFIG: undefined };
    this.child = spawn(command, args, { env, cwd: stateDirectory });
    let out = '';
    let err = '';
    this.child.stdout?.on('data', (chunk: Buffer) => {
      out += chunk.toString();
      this.#see(chunk);
    });
    this.child.stderr?.on('data', (chunk: Buffer) => {
      err += chunk.toString();
      this.#see(chunk);
    });
    this.done = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (status) => resolve({ status, out, err }));
    });
  }

  #see(chunk: Buffer): void {
    this.text += chunk.toString();
    this.#waiting = this.#waiting.filter(({ part, resolve }) => {
      if (!this.text.includes(part)) return true;
      resolve();
      return false;
    });
  }

  async shows(part: string): Promise<void> {
    if (this.text.includes(part)) return;
    const seen = new Promise<void>((resolve) => this.#waiting.push({ part, resolve }));
    const ended = this.done.then(() => {
      throw new Error(`it ended without '${part}':\n${this.text}`);
    });
    await Promise.race([seen, ended]);
  }
}

function argumentsOf(argv: readonly string[]): string[] {
  return [MAIN, ...argv, '--sandbox-port', new URL(origin).port, '--state-dir', stateDirectory];
}

function launch(argv: readonly string[]): Running {
  const running = new Running(process.execPath, argumentsOf(argv));
  running.child.stdin?.end();
  return running;
}

function holdfast(...argv: string[]): Promise<Finished> {
  return launch(argv).done;
}

/** Runs a command on a terminal of its own; what a person types goes to its standard input. */
function onTerminal(...argv: string[]): Running {
  const line = [process.execPath, ...argumentsOf(argv)].map(shellWord).join(' ');
  return new Running(SCRIPT, ['-qec', line, '/dev/null']);
}

async function writes(): Promise<{ path: string; method: string }[]> {
  const response = await fetch(`${origin}/_journal?writes=true`);
  return ((await response.json()) as { entries: { path: string; method: string }[] }).entries;
}

beforeAll(async () => {
  stateDirectory = mkdtempSync(join(tmpdir(), 'holdfast-cli-process-'));
  const running = new Running(process.execPath, [MAIN, 'sandbox', '--json']);
  sandbox = running.child;
  await running.shows('\n}\n');
  origin = JSON.parse(running.text).origin;
  const { out } = await holdfast('do', `${ENTITY}/list-snapshots`, '--json');
  const points = JSON.parse(out).snapshots as { id: string; status: string }[];
  snapshots = points.filter(({ status }) => status === 'available').map(({ id }) => id);
});

afterAll(async () => {
  const ended = new Promise((resolve) => sandbox.once('exit', resolve));
  sandbox.kill('SIGINT');
  await ended;
  await rm(stateDirectory, { recursive: true, force: true });
});

describe('a process', () => {
  it('prints one document and exits with 0', async () => {
    const { status, out, err } = await holdfast('list', '--json');
    expect({ status, err }).toEqual({ status: 0, err: '' });
    expect(JSON.parse(out).entities.map((entity: { entity: string }) => entity.entity)).toContain(ENTITY);
  });

  it('exits with the status of its error', async () => {
    const wrong = await holdfast('do', `${ENTITY}x/restore`);
    expect(wrong.status).toBe(32);
    expect(wrong.err).toContain(`Did you mean ${ENTITY}?`);
  });

  it('ends in peace when its reader goes away', async () => {
    const line = `${[process.execPath, ...argumentsOf(['actions'])].map(shellWord).join(' ')} | head -n 1`;
    const { status, out, err } = await new Running('bash', ['-o', 'pipefail', '-c', line]).done;
    expect(status).toBe(0);
    expect(out.split('\n')).toHaveLength(2);
    expect(err).not.toContain('EPIPE');
  });

  it('started by a client serves on stdio, and leaves when the client does', async () => {
    const { status, out } = await holdfast();
    expect(status).toBe(0);
    expect(out).toBe('');
  });

  it('refuses a guarded call with 10, writes nothing, and runs it once with its token after approval', async () => {
    const [id] = snapshots;
    const before = await writes();
    const call = ['do', `${ENTITY}/delete-snapshot`, `backup_id=${id}`, '--wait'];
    const refused = await holdfast(...call, '--json');
    expect(refused.status).toBe(10);
    const { confirmation, plan } = JSON.parse(refused.out);
    expect(await writes()).toEqual(before);
    expect((await holdfast('approve', confirmation.code, '--target', plan.target)).status).toBe(0);
    const token = ['--token', confirmation.token];
    expect((await holdfast(...call, ...token)).status).toBe(0);
    expect(await writes()).toHaveLength(before.length + 1);
    expect((await holdfast(...call, ...token)).status).not.toBe(0);
    expect(await writes()).toHaveLength(before.length + 1);
  });

  it('leaves work that goes on by itself, and another process follows it to its end', async () => {
    const begun = await holdfast('do', `${ENTITY}/create-snapshot`, '--json');
    expect(begun.status).toBe(0);
    const operation = JSON.parse(begun.out);
    expect(['pending', 'running']).toContain(operation.status);
    const { status, out } = await holdfast('operations', operation.operation_id, '--wait', '--json');
    expect(status).toBe(0);
    expect(JSON.parse(out).status).toBe('succeeded');
  });
});

describe.skipIf(!hasTerminal)('a terminal', () => {
  it('shows help without a command, in place of serving', async () => {
    const { status, out } = await onTerminal().done;
    expect(status).toBe(0);
    expect(out).toContain('Usage: holdfast');
  });

  it('asks for the name of the target and goes on with the right one', async () => {
    const [, id] = snapshots;
    const before = await writes();
    const running = onTerminal('do', `${ENTITY}/delete-snapshot`, `backup_id=${id}`, '--wait');
    await running.shows('Type the name of the target');
    running.child.stdin?.write('yes\n');
    await running.shows('That is not the name of the target.');
    expect(await writes()).toEqual(before);
    running.child.stdin?.write(`${/Target: (\S+)/.exec(running.text)?.[1]}\n`);
    const { status, out } = await running.done;
    expect(status).toBe(0);
    expect(out).toContain('delete: succeeded');
    expect(await writes()).toHaveLength(before.length + 1);
  });

  it('runs nothing after Ctrl-C', async () => {
    const before = await writes();
    const [, , id] = snapshots;
    const running = onTerminal('do', `${ENTITY}/delete-snapshot`, `backup_id=${id}`, '--wait');
    await running.shows('Type the name of the target');
    running.child.stdin?.write('\u0003');
    const { status, out } = await running.done;
    expect(status).toBe(130);
    expect(out).toContain('Nothing was run; nothing was changed.');
    expect(await writes()).toEqual(before);
  });
});

// The last one: the instance stays busy with what was left.
describe('Ctrl-C', () => {
  it('leaves the work with 130 and says what became of it', async () => {
    const running = launch(['do', `${ENTITY}/create-snapshot`, '--wait']);
    await running.shows('Waiting');
    running.child.kill('SIGINT');
    const { status, err } = await running.done;
    expect(status).toBe(130);
    expect(err).toContain('Stopping: waiting for what is in flight.');
    expect(err).toMatch(/CANCELLED: .*operation op_/);
    expect(err).toMatch(/Follow it: holdfast .* operations op_\w+ --wait/);
  });
});
