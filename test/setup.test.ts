import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ROOT } from './support/source.ts';

// A checkout in miniature: the real script, and stand-ins for npm and for the programs that it starts.
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-setup-'));
  for (const below of ['scripts', 'empty', 'node_modules/.bin', 'node_modules/node/bin']) {
    mkdirSync(join(folder, below), { recursive: true });
  }
  for (const name of ['setup.mjs', 'newer-postgres.mjs']) {
    copyFileSync(join(ROOT, 'scripts', name), join(folder, 'scripts', name));
  }
  for (const name of ['biome', 'vitest', 'node', 'tsc', 'knip']) program(`node_modules/.bin/${name}`);
  program('node_modules/node/bin/node');
  lock('package-lock.json', { 'node_modules/zod': { version: '4.0.0' } });
  lock('node_modules/.package-lock.json', { 'node_modules/zod': { version: '4.0.0' } });
  writeFileSync(join(folder, 'package.json'), '{}');
  writeFileSync(
    join(folder, 'npm.js'),
    'require("node:fs").writeFileSync("npm-was-called", process.argv.slice(2).join(" "))',
  );
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A program that says how it was called and ends with the status in STATUS. */
function program(path: string): void {
  const file = join(folder, path);
  writeFileSync(file, `#!/bin/sh\necho "ran \${0##*/} $*"\necho "first in PATH: \${PATH%%:*}"\nexit \${STATUS:-0}\n`);
  chmodSync(file, 0o755);
}

function lock(path: string, packages: Record<string, { version: string; optional?: boolean }>): void {
  writeFileSync(join(folder, path), JSON.stringify({ packages: { '': {}, ...packages } }));
}

/** Runs the script on a search path that has nothing. */
function setup(args: readonly string[], env: Record<string, string> = {}) {
  const bare = { PATH: join(folder, 'empty'), npm_execpath: join(folder, 'npm.js'), ...env };
  return spawnSync(process.execPath, [join(folder, 'scripts', 'setup.mjs'), ...args], { env: bare, encoding: 'utf8' });
}

const calledNpm = (): string | undefined => {
  const file = join(folder, 'npm-was-called');
  return existsSync(file) ? readFileSync(file, 'utf8') : undefined;
};

describe('a command', () => {
  it('runs at once where everything is in place, with the packaged programs first in PATH', () => {
    const { status, stdout, stderr } = setup(['lint', '--quiet']);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toBe(`ran biome check . --quiet\nfirst in PATH: ${join(folder, 'node_modules', '.bin')}\n`);
    expect(calledNpm()).toBeUndefined();
  });

  it('ends with the status of what it ran, and does not go on after a failure', () => {
    expect(setup(['lint'], { STATUS: '7' }).status).toBe(7);
    const { status, stdout } = setup(['check'], { STATUS: '3' });
    expect(status).toBe(3);
    expect(stdout).toMatch(/^ran tsc -p \.\nfirst[^\n]*\n$/);
  });

  it('is refused when there is none of that name', () => {
    expect(setup(['constructor'])).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining('usage:') });
  });
});

describe('packages', () => {
  it.each([
    ['are absent', { 'node_modules/zod': { version: '4.0.0' }, 'node_modules/yaml': { version: '2.0.0' } }],
    ['have another version', { 'node_modules/zod': { version: '4.0.1' } }],
  ])('are installed first, and said to be, when some %s', (_what, wanted) => {
    lock('package-lock.json', wanted);
    const { status, stdout, stderr } = setup(['lint']);
    expect(status).toBe(0);
    expect(stderr).toContain('node_modules is older than package-lock.json: running npm ci');
    expect(stdout).toMatch(/^ran biome/);
    expect(calledNpm()).toMatch(/^ci --include=dev /);
  });

  it('are installed when there are none at all', () => {
    rmSync(join(folder, 'node_modules', '.package-lock.json'));
    expect(setup(['lint']).stderr).toContain('node_modules is missing');
    expect(calledNpm()).toBeDefined();
  });

  it('of other platforms are not missed', () => {
    lock('package-lock.json', {
      'node_modules/zod': { version: '4.0.0' },
      'node_modules/@esbuild/elsewhere': { version: '1.0.0', optional: true },
    });
    expect(setup(['lint']).status).toBe(0);
    expect(calledNpm()).toBeUndefined();
  });

  it('that cannot be installed end it before anything runs', () => {
    lock('package-lock.json', { 'node_modules/zod': { version: '4.0.1' } });
    writeFileSync(join(folder, 'npm.js'), 'process.exit(4)');
    expect(setup(['lint'])).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining('npm ci failed') });
  });
});

// The search path holds neither servers nor a package manager, so nothing can be installed.
describe('servers that are not there', () => {
  it('stop the demo with the one command that installs them', () => {
    const { status, stdout, stderr } = setup(['demo']);
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    expect(stderr).toMatch(/not found: .*redis-server.*Install with: .*(?:apt-get|brew|dnf) install .*redis/);
  });

  it('let the tests go on, which skip by name', () => {
    const { status, stdout, stderr } = setup(['test', 'test/guards']);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^ran vitest run test\/guards\n/);
    expect(stderr).toContain('skipped, each by name');
  });

  it('stop the tests where CI is set', () => {
    expect(setup(['test'], { CI: 'true' })).toMatchObject({ status: 1, stdout: '' });
  });

  it('matter to no other command', () => {
    expect(setup(['build']).stderr).toBe('');
  });
});
