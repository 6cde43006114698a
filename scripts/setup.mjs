#!/usr/bin/env node
// Gets everything a command needs, then runs it on the packaged Node. Plain JavaScript: it must run on the
// host's Node (20 or newer) before anything is installed. What is there already is never touched, nor the network.
import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants as os } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fetchNewerPostgres, newerPostgres } from './newer-postgres.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const BIN = join(ROOT, 'node_modules', '.bin');
const PACKAGED_NODE = join(ROOT, 'node_modules', 'node', 'bin', 'node');
const OLDEST_NODE = 20;

/** What each npm script runs, one after the other, and what it needs of the machine. */
const COMMANDS = {
  demo: { run: [['node', 'src/main.ts', 'demo']], servers: 'required' },
  test: { run: [['vitest', 'run']], servers: 'wanted', newer: true },
  check: {
    run: [['tsc', '-p', '.'], ['biome', 'check', '.'], ['knip'], ['vitest', 'run']],
    servers: 'wanted',
    newer: true,
  },
  lint: { run: [['biome', 'check', '.']] },
  build: { run: [['node', 'scripts/build.ts']] },
  bench: { run: [['node', 'scripts/bench.ts']] },
  start: { run: [['node', 'src/main.ts', 'serve']] },
  generate: { run: [['node', 'scripts/generate.ts']] },
};

/** Programs that the demo and the integration tests start themselves, on free ports and in temporary folders. */
const SERVERS = [
  { program: 'postgres', apt: 'postgresql', brew: 'postgresql@17', dnf: 'postgresql-server', needed: true },
  { program: 'pg_dump', apt: 'postgresql-client', brew: 'postgresql@17', dnf: 'postgresql', needed: true },
  { program: 'redis-server', apt: 'redis-server', brew: 'redis', dnf: 'redis', needed: true },
  { program: 'pgbackrest', apt: 'pgbackrest', brew: 'pgbackrest', dnf: 'pgbackrest', needed: false },
  { program: 'age', apt: 'age', brew: 'age', dnf: 'age', needed: false },
  { program: 'zstd', apt: 'zstd', brew: 'zstd', dnf: 'zstd', needed: false },
];

// stdout may belong to a protocol or be read by another program: everything said here goes to stderr.
const say = (line) => process.stderr.write(`setup: ${line}\n`);

function stop(line) {
  say(line);
  process.exit(1);
}

async function main([name, ...args]) {
  const command = Object.hasOwn(COMMANDS, name ?? '') ? COMMANDS[name] : undefined;
  if (command === undefined) stop(`usage: node scripts/setup.mjs <${Object.keys(COMMANDS).join('|')}> [arguments]`);
  if (Number.parseInt(process.versions.node, 10) < OLDEST_NODE) {
    stop(`Node ${OLDEST_NODE} or newer is needed to begin; this is ${process.versions.node}.`);
  }
  installPackages();
  if (command.servers !== undefined) installServers(command.servers === 'required');
  if (command.newer) offerNewerPostgres();
  for (const [index, line] of command.run.entries()) {
    const last = index === command.run.length - 1;
    const status = await run(last ? [...line, ...args] : line);
    if (status !== 0) process.exit(status);
  }
}

function installPackages() {
  const reason = whyInstall();
  if (reason === undefined) return;
  say(`${reason}: running npm ci (about half a minute, once)`);
  // npm_execpath is the npm that runs us; without it, the one in PATH. The host's Node may be older than our engines ask.
  const npm = process.env.npm_execpath?.endsWith('.js') ? [process.execPath, process.env.npm_execpath] : ['npm'];
  const flags = ['ci', '--include=dev', '--include=optional', '--engine-strict=false'];
  const quiet = ['--no-audit', '--no-fund', '--loglevel=error'];
  const env = { ...process.env, npm_config_dry_run: 'false', npm_config_package_lock_only: 'false' };
  const options = { cwd: ROOT, stdio: ['ignore', 2, 2], env };
  const { status, error } = spawnSync(npm[0], [...npm.slice(1), ...flags, ...quiet], options);
  if (error !== undefined) stop(`npm could not be started (${error.code}); install it, then try again.`);
  if (status !== 0) stop('npm ci failed, see above; nothing else was done.');
  if (!isProgram(PACKAGED_NODE)) {
    stop(
      'the packaged Node is missing: install scripts are switched off in npm. Allow them for this one: npm rebuild node --ignore-scripts=false',
    );
  }
  say('packages are in place');
}

/** Compares versions instead of times, which a fresh checkout or a copied folder would get wrong. */
function whyInstall() {
  const hidden = join(ROOT, 'node_modules', '.package-lock.json');
  if (!existsSync(hidden)) return 'node_modules is missing';
  const installed = JSON.parse(readFileSync(hidden, 'utf8')).packages ?? {};
  const wanted = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')).packages ?? {};
  for (const [path, { version, optional }] of Object.entries(wanted)) {
    if (path === '') continue;
    const there = installed[path];
    // Optional packages of other platforms are in the lock and rightly not on this disk.
    if (there === undefined ? !optional : there.version !== version)
      return 'node_modules is older than package-lock.json';
  }
  return isProgram(PACKAGED_NODE) ? undefined : 'the packaged Node is missing';
}

function installServers(required) {
  let missing = SERVERS.filter(({ program }) => find(program) === undefined);
  if (missing.length === 0) return;
  if (canInstall()) {
    installWithApt([...new Set(missing.map(({ apt }) => apt))]);
    missing = SERVERS.filter(({ program }) => find(program) === undefined);
  }
  if (missing.length === 0) return;
  say(`not found: ${missing.map(({ program }) => program).join(', ')}. Install with: ${installLine(missing)}`);
  const lacking = missing.filter(({ needed }) => needed);
  if (lacking.length === 0) return;
  if (required) stop('the demo cannot run without them.');
  if (process.env.CI) stop('CI is set, and no test may be skipped there.');
  say('going on; the tests that need them are skipped, each by name.');
}

/** Incremental backups need PostgreSQL 17: where the machine has an older one only, their tests are told of another. */
function offerNewerPostgres() {
  // Set by whoever has one; a machine whose own is new enough needs no second.
  if (process.env.HOLDFAST_TEST_PG_BIN !== undefined || find('pg_combinebackup') !== undefined) return;
  if (newerPostgres() === undefined && canInstall()) {
    if (onPath('debootstrap') === undefined) installWithApt(['debootstrap', 'debian-archive-keyring']);
    say('fetching the programs of a newer PostgreSQL for the tests of incremental backups (about half a minute, once)');
    const fault = fetchNewerPostgres();
    if (fault !== undefined) say(`they could not be had: ${fault}`);
  }
  const found = newerPostgres();
  if (found !== undefined) process.env.HOLDFAST_TEST_PG_BIN = found;
}

function canInstall() {
  return process.getuid?.() === 0 && process.platform === 'linux' && onPath('apt-get') !== undefined;
}

/** Installs programs only: no service is started, now or at the next start of the machine. */
function installWithApt(packages) {
  say(
    `installing ${packages.join(' ')} with apt-get (Holdfast starts its own temporary servers; no service is left running)`,
  );
  const policy = '/usr/sbin/policy-rc.d';
  const ours = !existsSync(policy);
  if (ours) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' };
  const apt = (...args) => spawnSync('apt-get', args, { stdio: ['ignore', 2, 2], env }).status === 0;
  const before = new Set(packages.filter((name) => isInstalled(name)));
  try {
    const install = ['install', '-y', '-qq', '--no-install-recommends', ...packages];
    const done = (hasLists() && apt(...install)) || (apt('update', '-qq') && apt(...install));
    if (!done) say('apt-get failed, see above');
  } finally {
    if (ours) rmSync(policy, { force: true });
  }
  if (!existsSync('/run/systemd/system')) return;
  for (const service of ['postgresql', 'redis-server']) {
    if (packages.includes(service) && !before.has(service)) {
      spawnSync('systemctl', ['disable', '--quiet', service], { stdio: ['ignore', 2, 2] });
    }
  }
}

function hasLists() {
  const lists = '/var/lib/apt/lists';
  return existsSync(lists) && readdirSync(lists).some((name) => name.endsWith('_Packages') || name.endsWith('.lz4'));
}

function isInstalled(name) {
  const { status, stdout } = spawnSync('dpkg-query', ['-W', '-f', '${db:Status-Status}', name], { encoding: 'utf8' });
  return status === 0 && stdout === 'installed';
}

function installLine(missing) {
  const names = (key) => [...new Set(missing.map((server) => server[key]))].join(' ');
  if (process.platform === 'darwin') return `brew install ${names('brew')}`;
  const sudo = process.getuid?.() === 0 ? '' : 'sudo ';
  if (onPath('dnf') !== undefined) return `${sudo}dnf install -y ${names('dnf')}`;
  return `${sudo}apt-get update && ${sudo}apt-get install -y --no-install-recommends ${names('apt')}`;
}

/** Where distributions keep PostgreSQL's server programs: outside PATH, in a folder named by version. */
function serverFolders() {
  const versioned = [
    ['/usr/lib/postgresql', 'bin'],
    ['/opt/homebrew/opt', 'bin'],
    ['/usr/local/opt', 'bin'],
    ['/usr', 'bin'],
    ['/Applications/Postgres.app/Contents/Versions', 'bin'],
  ];
  return versioned.flatMap(([parent, below]) => {
    if (!existsSync(parent)) return [];
    const names = readdirSync(parent).filter((name) => /^(\d+|(postgresql|libpq|pgsql)([@-]\d+)?)$/.test(name));
    return names.map((name) => join(parent, name, below));
  });
}

function find(program) {
  return (
    onPath(program) ??
    serverFolders()
      .map((folder) => join(folder, program))
      .find(isProgram)
  );
}

function onPath(program) {
  return (process.env.PATH ?? '')
    .split(delimiter)
    .filter((folder) => folder !== '')
    .map((folder) => join(folder, program))
    .find(isProgram);
}

function isProgram(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Runs one program of ours to its end, with its input, output and signals, and gives its exit status. */
function run([program, ...args]) {
  const env = { ...process.env, PATH: `${BIN}${delimiter}${process.env.PATH ?? ''}` };
  return new Promise((resolve) => {
    const child = spawn(join(BIN, program), args, { cwd: ROOT, stdio: 'inherit', env });
    // A Ctrl-C at the terminal reaches the child by itself; waiting for it is all that is left to do here.
    const passOn = (signal) => child.kill(signal);
    process.on('SIGINT', process.stdin.isTTY ? () => {} : passOn);
    for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, passOn);
    child.once('error', ({ code }) => stop(`${program} could not be started (${code})`));
    child.once('close', (code, signal) => resolve(code ?? 128 + (os.signals[signal] ?? 1)));
  });
}

await main(process.argv.slice(2));
