import { chmodSync, existsSync, mkdirSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import type { Environment } from './references.ts';

const NAMES = ['holdfast.yaml', 'holdfast.yml'];

export interface FindOptions {
  /** What the command line says. */
  readonly flag?: string | undefined;
  readonly env: Environment;
  readonly cwd?: string | undefined;
}

/**
 * Finds the entities file: `--config`, else `HOLDFAST_CONFIG`, else `holdfast.yaml` or `holdfast.yml` upward from the
 * working directory.
 * @throws {HoldfastError} CONFIG_INVALID where there is none, or where another user owns the one found upward
 */
export function findConfig(options: FindOptions): string {
  const cwd = options.cwd ?? process.cwd();
  for (const [name, source] of [
    [options.flag, '--config'],
    [options.env['HOLDFAST_CONFIG'], 'HOLDFAST_CONFIG'],
  ] as const) {
    if (name === undefined || name === '') continue;
    const path = resolve(cwd, name);
    if (existsSync(path)) return path;
    throw new HoldfastError('CONFIG_INVALID', `the entities file that ${source} names is not there: '${name}'`, {
      hint: 'Check the path. A relative one starts from the working directory, which an MCP client chooses.',
    });
  }
  for (let folder = resolve(cwd); ; folder = dirname(folder)) {
    for (const name of NAMES) {
      const path = join(folder, name);
      if (!existsSync(path)) continue;
      refuseForeign(path);
      return path;
    }
    if (folder === dirname(folder)) break;
  }
  throw new HoldfastError('CONFIG_INVALID', `no ${NAMES.join(' or ')} was found in '${cwd}' or above it`, {
    hint: 'Name the file with --config or HOLDFAST_CONFIG, write one with holdfast init, or try holdfast serve --sandbox.',
  });
}

// A file that somebody else left in a shared folder above must not choose the databases and the policy.
function refuseForeign(path: string): void {
  const me = process.getuid?.();
  const owner = statSync(path).uid;
  if (me === undefined || owner === me || owner === 0) return;
  throw new HoldfastError('CONFIG_INVALID', `the entities file '${path}' belongs to another user`, {
    hint: 'If it is the one to use, name it with --config.',
  });
}

export interface StateDirectoryOptions extends FindOptions {
  readonly platform?: NodeJS.Platform | undefined;
  readonly home?: string | undefined;
}

/**
 * Gives the state directory, created with mode 0700 where it is not there: `--state-dir`, else `HOLDFAST_STATE_DIR`, else
 * the platform's place for it.
 * @throws {HoldfastError} STATE_UNAVAILABLE where it cannot be made or is no directory
 */
export function stateDirectory(options: StateDirectoryOptions): string {
  const { flag, env, cwd = process.cwd() } = options;
  const chosen = flag || env['HOLDFAST_STATE_DIR'];
  const path = chosen ? resolve(cwd, chosen) : defaultStateDirectory(options);
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const stats = statSync(path);
    // One that the user made and named may be shared on purpose; the one that is ours alone is kept so.
    if (!chosen && stats.uid === process.getuid?.() && (stats.mode & 0o077) !== 0) chmodSync(path, 0o700);
    return path;
  } catch (cause) {
    throw new HoldfastError('STATE_UNAVAILABLE', `the state directory '${path}' cannot be used`, {
      hint: 'Name a writable directory with --state-dir or HOLDFAST_STATE_DIR.',
      cause,
    });
  }
}

function defaultStateDirectory({ env, platform = process.platform, home = homedir() }: StateDirectoryOptions): string {
  if (platform === 'darwin') return join(home, 'Library', 'Application Support', 'holdfast');
  if (platform === 'win32') return join(env['LOCALAPPDATA'] || join(home, 'AppData', 'Local'), 'holdfast');
  const xdg = env['XDG_STATE_HOME'];
  // The XDG specification says to ignore a relative path.
  return join(xdg && isAbsolute(xdg) ? xdg : join(home, '.local', 'state'), 'holdfast');
}
