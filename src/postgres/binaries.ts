import { spawn } from 'node:child_process';
import { access, constants, readdir, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import { runChild } from './child.ts';

/** One directory with matching PostgreSQL client programs. */
export interface Binaries {
  readonly directory: string;
  /** `15.18` */
  readonly version: string;
  readonly major: number;
  readonly pgDump: string;
  readonly pgDumpall: string;
  readonly pgRestore: string;
}

/** Where packages put versioned sets: Debian, Red Hat, Homebrew on both processors, Postgres.app. */
const VERSIONED: readonly (readonly [parent: string, name: RegExp, below: string])[] = [
  ['/usr/lib/postgresql', /^\d+$/, 'bin'],
  ['/usr', /^pgsql-\d+$/, 'bin'],
  ['/opt/homebrew/opt', /^(postgresql|libpq)(@\d+)?$/, 'bin'],
  ['/usr/local/opt', /^(postgresql|libpq)(@\d+)?$/, 'bin'],
  ['/Applications/Postgres.app/Contents/Versions', /^\d+$/, 'bin'],
];

/** Gives every directory with PostgreSQL client programs, in the order of preference; only `binDir` where that is given. */
export async function findBinaries(binDir?: string): Promise<Binaries[]> {
  const directories = binDir === undefined ? await candidates() : [binDir];
  const found: Binaries[] = [];
  for (const directory of new Set(directories)) {
    const binaries = await inspect(directory);
    if (binaries) found.push(binaries);
  }
  return found;
}

/**
 * Chooses the programs for a server: the lowest major version that is not below the server's.
 * @throws {HoldfastError} NOT_SUPPORTED naming both versions and the package
 */
export function chooseBinaries(found: readonly Binaries[], serverMajor: number, binDir?: string): Binaries {
  const usable = found.filter(({ major }) => major >= serverMajor).sort((a, b) => a.major - b.major);
  if (usable[0]) return usable[0];
  const have = found.map(({ version }) => version).join(', ');
  throw new HoldfastError(
    'NOT_SUPPORTED',
    have === ''
      ? `no PostgreSQL client programs were found${binDir === undefined ? '' : ' in bin_dir'}; the server needs version ${serverMajor} or newer`
      : `the PostgreSQL client programs found are version ${have}; the server needs ${serverMajor} or newer`,
    {
      hint: `Install postgresql-client-${serverMajor} (Debian, Ubuntu), postgresql${serverMajor} (Red Hat) or postgresql@${serverMajor} (Homebrew), or set bin_dir.`,
    },
  );
}

async function candidates(): Promise<string[]> {
  const asked = await Promise.all([ask('pg_config', ['--bindir']), findOnPath('pg_dump')]);
  const [configured, onPath] = asked;
  const directories: string[] = [];
  if (configured) directories.push(configured);
  if (onPath) {
    const real = await realpath(onPath).catch(() => onPath);
    // Debian's wrapper chooses a version by local clusters, which says nothing about the server we talk to.
    if (basename(real) !== 'pg_wrapper') directories.push(dirname(onPath));
  }
  for (const [parent, pattern, below] of VERSIONED) {
    const names = (await readdir(parent).catch(() => [])).filter((name) => pattern.test(name));
    const number = (name: string): number => Number(/\d+/.exec(name)?.[0] ?? 0);
    names.sort((a, b) => number(b) - number(a));
    directories.push(...names.map((name) => join(parent, name, below)));
  }
  return directories;
}

/** What programs answered, by the search path or by the file: starting them anew for every call is most of a short call. */
const answers = new Map<string, string>();

/** Finds a program of the search path by its name; undefined when it is not there. */
export function findOnPath(name: string): Promise<string | undefined> {
  return ask('/bin/sh', ['-c', 'command -v "$1"', 'sh', name]);
}

/** Runs a program of the search path; undefined when it is not there. */
async function ask(file: string, args: readonly string[]): Promise<string | undefined> {
  const question = JSON.stringify([file, args]);
  const answer = answers.get(question) ?? (await run(file, args));
  if (answer !== undefined) answers.set(question, answer);
  return answer;
}

function run(file: string, args: readonly string[]): Promise<string | undefined> {
  return new Promise((resolve) => {
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'ignore'] });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    child.once('error', () => resolve(undefined));
    child.once('close', (code) => resolve(code === 0 && text.trim() !== '' ? text.trim() : undefined));
  });
}

async function inspect(directory: string): Promise<Binaries | undefined> {
  const [pgDump, pgDumpall, pgRestore] = ['pg_dump', 'pg_dumpall', 'pg_restore'].map((name) =>
    join(directory, name),
  ) as [string, string, string];
  try {
    await Promise.all([pgDump, pgDumpall, pgRestore].map((file) => access(file, constants.X_OK)));
    const { mtimeMs, size, ino } = await stat(pgDump);
    const file = JSON.stringify([pgDump, mtimeMs, size, ino]);
    const text = answers.get(file) ?? (await runChild(pgDump, ['--version'], { env: { LC_ALL: 'C' } }, 4096));
    answers.set(file, text);
    const version = /(\d+)(?:\.\d+|devel|beta\d+|rc\d+)?/.exec(text.replace(/^.*PostgreSQL\)/, ''));
    if (!version) return undefined;
    return { directory, version: version[0], major: Number(version[1]), pgDump, pgDumpall, pgRestore };
  } catch {
    return undefined;
  }
}
