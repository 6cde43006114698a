// A newer PostgreSQL than the machine's own distribution may have, for the tests of what only newer ones can: unpacked from
// the packages of a later Debian into a folder of its own, with the libraries that it was built for. Nothing is installed,
// and no test but those that ask for it finds it. Plain JavaScript, as the script that runs it.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

const MAJOR = 17;
const RELEASE = 'trixie';
/** Not below the checkout: the account that servers run as must be able to read it, and the next checkout need not fetch it. */
const CACHE = '/var/cache/holdfast';
const HOME = join(CACHE, `postgresql-${MAJOR}-${RELEASE}`);
const BELOW = join('usr', 'lib', 'postgresql', String(MAJOR));
/** Packages that the programs need to run; the rest of the system (and the compiler of queries) stays packed. */
const NEEDED = new RegExp(
  `^(postgresql-(client-)?${MAJOR}|zlib1g|lib(?!llvm|z3|perl|apt|pam-)[^_]*(?<!-perl|-common))_`,
);

/** Gives the folder with the programs, or undefined where they were not fetched. */
export function newerPostgres() {
  const programs = join(HOME, BELOW, 'bin');
  return existsSync(join(programs, 'pg_combinebackup')) ? programs : undefined;
}

/** Fetches them with debootstrap, as root on Debian or its relatives; gives why not where that fails. */
export function fetchNewerPostgres() {
  mkdirSync(CACHE, { recursive: true });
  const scratch = mkdtempSync(join(CACHE, '.new-'));
  try {
    const packed = join(scratch, 'packed');
    const download = ['--download-only', '--variant=minbase', `--include=postgresql-${MAJOR}`, RELEASE, packed];
    run('debootstrap', ...download);
    const root = join(scratch, 'root');
    mkdirSync(root);
    const archives = join(packed, 'var', 'cache', 'apt', 'archives');
    for (const name of readdirSync(archives)) {
      if (NEEDED.test(name)) run('dpkg-deb', '-x', join(archives, name), root);
    }
    wrap(root);
    chmodSync(root, 0o755);
    rmSync(HOME, { recursive: true, force: true });
    renameSync(root, HOME);
    const { status, stderr } = spawnSync(join(HOME, BELOW, 'bin', 'postgres'), ['--version'], { encoding: 'utf8' });
    if (status !== 0) throw new Error(`the programs do not start: ${stderr.trim()}`);
    return undefined;
  } catch ({ message }) {
    rmSync(HOME, { recursive: true, force: true });
    return message;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Puts a script in the place of each program, which starts it with its own loader and libraries: those of this machine are older. */
function wrap(root) {
  const triple = readdirSync(join(root, 'usr', 'lib')).find((name) => name.endsWith('-linux-gnu'));
  if (triple === undefined) throw new Error('the packages have no libraries');
  const libraries = join('usr', 'lib', triple);
  const loader = readdirSync(join(root, libraries)).find((name) => /^ld-linux.*\.so/.test(name));
  if (loader === undefined) throw new Error('the packages have no loader');
  const programs = join(root, BELOW, 'bin');
  const real = join(root, BELOW, 'programs');
  mkdirSync(real);
  for (const name of readdirSync(programs)) {
    const path = join(programs, name);
    if (readFileSync(path).subarray(1, 4).toString() !== 'ELF') continue;
    renameSync(path, join(real, name));
    const at = join(HOME, libraries);
    // `--argv0`: programs of PostgreSQL find each other, and their files, by where they are.
    const start = `${join(at, loader)} --library-path ${at} --argv0 "$0" ${join(HOME, BELOW, 'programs', name)} "$@"`;
    writeFileSync(path, `#!/bin/sh\nexec ${start}\n`, { mode: 0o755 });
  }
  // Without its compiler, which is not unpacked, a server would fail where it wants to compile a query.
  for (const name of readdirSync(join(root, BELOW, 'lib'))) {
    if (name.startsWith('llvmjit')) rmSync(join(root, BELOW, 'lib', name));
  }
}

function run(program, ...args) {
  const { status, error, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 });
  if (error !== undefined) throw new Error(`${program} cannot be started (${error.code})`);
  if (status !== 0) {
    const last = `${stdout}\n${stderr}`.trim().split('\n').at(-1);
    throw new Error(`${program} ended with ${status}: ${last}`);
  }
}
