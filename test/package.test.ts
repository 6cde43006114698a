import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { Client } from '@modelcontextprotocol/client';
import { getDefaultEnvironment, StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import type { Metafile } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { collect } from '../src/engine/registry.ts';
import * as declarations from '../tools/index.ts';
import { describePostgres } from './support/postgres.ts';
import { ROOT } from './support/source.ts';

const run = promisify(execFile);
const scratch = mkdtempSync(join(tmpdir(), 'holdfast-package-'));
const install = join(scratch, 'install');
const installed = join(install, 'node_modules', 'holdfast');
const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };

/** What the server gets from a client that hands down little: enough to start, and directories of its own. */
const environment = {
  ...getDefaultEnvironment(),
  HOLDFAST_STATE_DIR: join(scratch, 'state'),
  XDG_CACHE_HOME: join(scratch, 'cache'),
};

let packed: { files: { path: string }[]; filename: string };
let metafile: Metafile;

beforeAll(async () => {
  const meta = join(scratch, 'meta.json');
  await run(process.execPath, ['scripts/build.ts', `--metafile=${meta}`], { cwd: ROOT });
  metafile = JSON.parse(readFileSync(meta, 'utf8')) as Metafile;
  const pack = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', scratch], { cwd: ROOT });
  [packed] = JSON.parse(pack.stdout) as [typeof packed];
  await run('npm', [
    'install',
    '--offline',
    '--no-audit',
    '--no-fund',
    '--prefix',
    install,
    join(scratch, packed.filename),
  ]);
}, 120_000);

afterAll(() => rm(scratch, { recursive: true, force: true }));

interface Session {
  readonly tools: readonly string[];
  /** Calls a tool and gives its text. */
  call(name: string, input?: Record<string, unknown>): Promise<string>;
}

/** Starts a server as an MCP client does, and ends it. */
async function withServer<T>(
  start: { command: string; args: readonly string[]; cwd: string; path?: string },
  use: (session: Session) => Promise<T>,
): Promise<T> {
  const client = new Client({ name: 'package-test', version: '1' });
  const transport = new StdioClientTransport({
    command: start.command,
    args: [...start.args],
    cwd: start.cwd,
    env: { ...environment, ...(start.path === undefined ? {} : { PATH: start.path }) },
    stderr: 'ignore',
  });
  await client.connect(transport);
  try {
    const { tools } = await client.listTools();
    return await use({
      tools: tools.map(({ name }) => name),
      call: async (name, input = {}) => {
        const { content, isError } = await client.callTool({ name, arguments: input });
        const text = content.map((part) => (part.type === 'text' ? part.text : '')).join('\n');
        expect(isError ?? false, text).toBe(false);
        return text;
      },
    });
  } finally {
    await client.close();
  }
}

describe('the package', () => {
  it('holds the bundle, its licences and what a user reads, nothing else', () => {
    const paths = packed.files.map(({ path }) => path);
    expect(paths).toEqual(
      expect.arrayContaining([
        'LICENSE',
        'README.md',
        'package.json',
        'mcp.json',
        'dist/main.js',
        'dist/THIRD_PARTY_NOTICES.txt',
      ]),
    );
    const allowed =
      /^(?:LICENSE|README\.md|CHANGELOG\.md|package\.json|mcp\.json|holdfast\.\w+\.(?:yaml|json)|dist\/[\w.-]+\.(?:js|txt))$/;
    expect(paths.filter((path) => !allowed.test(path))).toEqual([]);
  });

  it('installs without a single other package', () => {
    const names = readdirSync(join(install, 'node_modules')).filter((name) => !name.startsWith('.'));
    expect(names).toEqual(['holdfast']);
  });

  it('takes at most 15 MB on disk', () => {
    const files = readdirSync(installed, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    const bytes = files.reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).size, 0);
    expect(bytes).toBeGreaterThan(500_000);
    expect(bytes).toBeLessThanOrEqual(15_000_000);
  });

  it('starts by npx and names its version', async () => {
    const { stdout } = await run('npx', ['--no-install', 'holdfast', '--version'], { cwd: install, env: environment });
    expect(stdout).toContain(manifest.version);
  });

  it('serves every provider from an empty folder, simulated', async () => {
    const start = {
      command: join(install, 'node_modules', '.bin', 'holdfast'),
      args: ['serve', '--sandbox'],
      cwd: scratch,
    };
    await withServer(start, async ({ tools, call }) => {
      expect(tools).toEqual(
        expect.arrayContaining(['backup_list_databases', 'mongodb_atlas_restore', 'redis_cloud_create_snapshot']),
      );
      expect(await call('backup_list_databases')).toContain('sandbox/');
      // Every SDK and the PostgreSQL engine really load from the bundle, where what is unbundled may fail.
      for (const { provider, type } of collect(declarations).entityTypes.values()) {
        if (type.sandbox === undefined) continue;
        const entity = `sandbox/${type.sandbox.name}`;
        expect(await call(`${provider.id.replaceAll('-', '_')}_get_backup_info`, { entity })).toContain('automated');
      }
    });
  });

  it('gives what is loaded late the names that Node gives it', () => {
    const shims = Object.keys(metafile.inputs).filter((path) => path.startsWith('named-exports:'));
    expect(shims.map((path) => path.slice('named-exports:'.length)).sort()).toEqual(
      expect.arrayContaining(['google-auth-library', 'googleapis/build/src/apis/sqladmin/v1.js', 'ioredis']),
    );
  });

  it('carries the licence of every package that is in the bundle', () => {
    const notices = readFileSync(join(installed, 'dist', 'THIRD_PARTY_NOTICES.txt'), 'utf8');
    const named = [...notices.matchAll(/^-{70,}\n(\S+) \S+ \(/gm)].map((match) => match[1]);
    const inputs = Object.values(metafile.outputs).flatMap((output) => Object.entries(output.inputs));
    const used = inputs.filter(([, { bytesInOutput }]) => bytesInOutput > 0).map(([path]) => packageName(path));
    const bundled = used.filter((name) => name !== undefined);
    expect([...new Set(bundled)].filter((name) => !named.includes(name))).toEqual([]);
    expect(named).toEqual(
      expect.arrayContaining(['@modelcontextprotocol/server', 'zod', 'pg', 'ioredis', 'age-encryption']),
    );
    expect(named).not.toContain('vitest');
  });

  it('loads a provider’s SDK, the PostgreSQL engine and the simulators only when they are called for', () => {
    const late =
      /node_modules\/(?:pg|ioredis|googleapis|google-auth-library|age-encryption)\/|src\/simulators\/(?!simulator)/;
    for (const entry of ['src/program/program.ts', 'src/surfaces/mcp/server.ts', 'src/surfaces/cli/program.ts']) {
      const loaded = [...loadedWith(entry)];
      expect(loaded).toContain(entry);
      expect(loaded.filter((path) => late.test(path))).toEqual([]);
    }
    expect(Object.keys(metafile.inputs).some((path) => late.test(path))).toBe(true);
  });
});

describePostgres('the package with PostgreSQL', () => {
  it('plays its demo from the bundle', { timeout: 120_000 }, async () => {
    const demo = run(process.execPath, [join(installed, 'dist', 'main.js'), 'demo'], {
      cwd: scratch,
      env: environment,
    });
    expect((await demo).stdout).toContain('nothing is left behind');
  });
});

describe('an old Node', () => {
  const older =
    'data:text/javascript,Object.defineProperty(process,"versions",{value:{...process.versions,node:"20.19.0"}})';

  it('is told which one is needed', async () => {
    const start = run(process.execPath, ['--import', older, join(installed, 'dist', 'main.js'), '--version'], {
      env: environment,
    });
    await expect(start).rejects.toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringMatching(/22\.13.*20\.19\.0/),
    });
  });

  it('hands over to the Node of the checkout, exit status included', async () => {
    const main = join(ROOT, 'dist', 'main.js');
    const { stdout } = await run(process.execPath, ['--import', older, main, '--version'], { env: environment });
    expect(stdout).toContain(manifest.version);
    const status = await exitStatus([main, 'no-such-command']);
    expect(status).toBeGreaterThan(0);
    expect(await exitStatus(['--import', older, main, 'no-such-command'])).toBe(status);
  });
});

describe('mcp.json', () => {
  interface Entry {
    readonly type: string;
    readonly command?: string;
    readonly args?: readonly string[];
    readonly url?: string;
  }
  const text = readFileSync(join(ROOT, 'mcp.json'), 'utf8');
  const { mcpServers } = JSON.parse(text) as { mcpServers: Record<string, Entry> };

  it('holds no variables and no secrets: clients differ in how they write them', () => {
    expect(text).not.toMatch(/\$\{|"env"|"headers"|"inputs"/);
    expect(Object.keys(mcpServers)).toEqual(['holdfast', 'holdfast-dev', 'holdfast-http']);
  });

  it.each([
    ['the Node of the checkout', process.env['PATH'] ?? ''],
    ['the Node of the machine', hostPath()],
  ])('starts holdfast-dev on %s and calls a tool', async (_name, path) => {
    const entry = mcpServers['holdfast-dev'];
    const start = { command: entry?.command ?? '', args: entry?.args ?? [], cwd: ROOT, path };
    await withServer(start, async ({ call }) => {
      expect(await call('backup_list_databases')).toContain('my-app/');
    });
  });

  it('names the published package and a file of the checkout', () => {
    expect(mcpServers['holdfast']?.args).toContain('holdfast');
    expect(existsSync(join(ROOT, mcpServers['holdfast-dev']?.args?.at(-1) ?? ''))).toBe(true);
  });
});

/** The exit status of a Node process. */
async function exitStatus(args: readonly string[]): Promise<unknown> {
  const { code } = await run(process.execPath, args, { env: environment }).then(
    () => ({ code: 0 }),
    (cause: { code: unknown }) => cause,
  );
  return code;
}

/** The search path without this checkout's programs: where a client finds `node`. */
function hostPath(): string {
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  return folders.filter((folder) => !folder.includes('node_modules')).join(delimiter);
}

function packageName(path: string): string | undefined {
  return /^(?:.*\/)?node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1];
}

/** Every source file that comes with the chunk of an entry, lazy imports left out. */
function loadedWith(entry: string): Set<string> {
  const { outputs } = metafile;
  const first = Object.keys(outputs).find((name) => Object.hasOwn(outputs[name]?.inputs ?? {}, entry));
  const seen = new Set<string>();
  const visit = (name: string): void => {
    const output = outputs[name];
    if (output === undefined || seen.has(name)) return;
    seen.add(name);
    for (const { path, kind } of output.imports) if (kind === 'import-statement') visit(path);
  };
  if (first !== undefined) visit(first);
  return new Set([...seen].flatMap((name) => Object.keys(outputs[name]?.inputs ?? {})));
}
