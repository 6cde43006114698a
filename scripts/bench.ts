import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { encode } from 'gpt-tokenizer/encoding/o200k_base';
import { dump } from 'js-yaml';
import { registry } from '../src/program/open.ts';
import { type Listed, type Program, requestsPerSecond, StdioServer, startHttp } from './bench/client.ts';
import { measurePostgres } from './bench/postgres.ts';
import { measurePostgresPhysical } from './bench/postgres-physical.ts';
import { megabytes, milliseconds, Report, times } from './bench/report.ts';
import { BUNDLE } from './bundle.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const quick = process.argv.includes('--quick');
const scratch = mkdtempSync(join(tmpdir(), 'holdfast-bench-'));
// PostgreSQL runs as another account where this runs as root, and must get to its folder.
chmodSync(scratch, 0o755);
const report = new Report();

try {
  execFileSync(process.execPath, ['scripts/build.ts'], { cwd: ROOT, stdio: ['ignore', 'ignore', 'inherit'] });
  await build({
    absWorkingDir: ROOT,
    entryPoints: { bare: 'scripts/bench/bare-server.ts', guarded: 'scripts/bench/guarded-server.ts' },
    outdir: join(scratch, 'bundle'),
    ...BUNDLE,
  });
  writeFileSync(join(scratch, 'package.json'), '{ "type": "module" }\n');
  await measureStart();
  await measureTokens();
  await measureCalls();
  await measureHttp();
  await measurePostgres({ root: ROOT, scratch, quick, report });
  await measurePostgresPhysical({ root: ROOT, scratch, quick, report });
  measurePackage();
  const text = report.markdown({
    cores: availableParallelism(),
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    node: process.versions.node,
    system: `${process.platform} ${process.arch}`,
    date: new Date().toISOString().slice(0, 10),
    quick,
  });
  mkdirSync(join(ROOT, 'docs'), { recursive: true });
  if (quick) process.stderr.write('a quick run is not written to docs/benchmarks.md\n');
  else writeFileSync(join(ROOT, 'docs', 'benchmarks.md'), text);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

/** Entities files: one database of every provider, as the examples have them, and the first of these alone. */
function fleets(): { all: string; one: string } {
  const files = { all: join(scratch, 'all.yaml'), one: join(scratch, 'one.yaml') };
  const entities = registry.providers.map(({ id, entityTypes }) => {
    const [defines, type] = Object.entries(entityTypes)[0]!;
    return { [id]: { defines, ...type.example } };
  });
  const write = (file: string, chosen: readonly object[]): void =>
    writeFileSync(file, dump(Object.assign({ namespace: 'bench' }, ...chosen)));
  write(files.all, entities);
  write(files.one, entities.slice(0, 1));
  return files;
}

function serve(file: string, ...options: string[]): Program {
  return {
    args: [join(ROOT, 'dist', 'main.js'), 'serve', '--config', file, ...options],
    cwd: scratch,
    env: { HOLDFAST_STATE_DIR: join(scratch, 'state'), XDG_CACHE_HOME: join(scratch, 'cache') },
  };
}

/** The tools that a program lists. */
async function toolsOf(program: Program): Promise<Listed[]> {
  const server = new StdioServer(program);
  const { tools } = (await server.ask('tools/list')) as { tools: Listed[] };
  await server.stop();
  return tools;
}

function bundled(name: 'bare' | 'guarded', ...args: string[]): Program {
  return { args: [join(scratch, 'bundle', `${name}.js`), ...args], cwd: scratch };
}

/** From nothing to the answer of tools/list, and what the process then holds while it waits. */
async function measureStart(): Promise<void> {
  const files = fleets();
  const programs = { bare: bundled('bare', 'one'), one: serve(files.one), ours: serve(files.all) };
  const names = ['bare', 'one', 'ours'] as const;
  const took = { bare: [] as number[], one: [] as number[], ours: [] as number[] };
  const holds = { bare: [] as number[], one: [] as number[], ours: [] as number[] };
  const first: number[] = [];
  let listed: Listed[] = [];
  const runs = quick ? 5 : 31;
  for (let run = 0; run <= runs; run += 1) {
    for (const name of names) {
      const begun = performance.now();
      const server = new StdioServer(programs[name]);
      const answer = (await server.ask('tools/list')) as { tools: Listed[] };
      // The first round warms the file cache and makes the state directory.
      if (run > 0) took[name].push(performance.now() - begun);
      if (name === 'ours') listed = answer.tools;
      if (run > 0 && run <= 5) {
        await pause(1500);
        holds[name].push(server.memory());
      }
      await server.stop();
    }
  }
  for (let run = 0; run < (quick ? 3 : 9); run += 1) {
    const begun = performance.now();
    const fresh = { ...programs.ours.env, XDG_CACHE_HOME: join(scratch, `cache-${run}`) };
    const server = new StdioServer({ ...programs.ours, env: fresh });
    await server.ask('tools/list');
    first.push(performance.now() - begun);
    await server.stop();
  }
  const [bare, mine] = [median(took.bare), median(took.ours)];
  report.section(
    'Start',
    `From starting the process to the answer of tools/list over stdio, ${runs} interleaved runs of each. Holdfast has ${listed.length} tools of all ${registry.providers.length} providers; the other is a server of the same SDK, bundled in the same way, with one. Holdfast keeps its compiled code between starts; the first start on a machine is measured apart.`,
  );
  report.row('start to tools/list, Holdfast', milliseconds(mine), `p95 ${milliseconds(percentile(took.ours, 95))}`);
  report.row(
    'start to tools/list, one-tool server',
    milliseconds(bare),
    `p95 ${milliseconds(percentile(took.bare, 95))}`,
  );
  report.bar('ratio', mine / bare, 1.3, times);
  report.row('start to tools/list, Holdfast with one database', milliseconds(median(took.one)));
  report.bar('all providers to one', mine / median(took.one), 1.05, times);
  report.row('the first start, nothing compiled yet', milliseconds(median(first)), times(median(first) / bare));
  report.row('idle memory, one-tool server', megabytes(median(holds.bare)), 'resident, after the answer');
  report.bar('idle memory, Holdfast', median(holds.ours), 90e6, megabytes);
  report.row('idle memory, Holdfast with one database', megabytes(median(holds.one)));
  report.bar('memory, all providers to one', median(holds.ours) / median(holds.one), 1.05, times);
}

/** What a model reads: name, description and input schema of each tool, as they come over the wire. */
async function measureTokens(): Promise<void> {
  // Every entity type, for every tool that there is.
  const example = join(ROOT, 'holdfast.example.yaml');
  const listed = await toolsOf(serve(example));
  const tokensOf = ({ name, description = '', inputSchema }: Listed): number =>
    [name, description, JSON.stringify(inputSchema)].reduce((sum, text) => sum + encode(text).length, 0);
  const costs = listed.map((tool) => ({ name: tool.name, tokens: tokensOf(tool) }));
  const compact = await toolsOf(serve(example, '--tools', 'compact'));
  const total = costs.reduce((sum, { tokens }) => sum + tokens, 0);
  const costOf = (...starts: string[]): number =>
    costs
      .filter(({ name }) => starts.some((start) => name.startsWith(start)))
      .reduce((sum, { tokens }) => sum + tokens, 0);
  report.section(
    'Tokens',
    'Name, description and input schema of every tool in the tools/list answer, counted with the o200k_base encoding.',
  );
  report.row(
    `all ${listed.length} tools of ${registry.providers.length} providers`,
    `${total.toLocaleString('en')} tokens`,
  );
  report.bar('a tool, on average', total / listed.length, 80, (value) => `${value.toFixed(1)} tokens`);
  report.bar(
    `the ${compact.length} tools of --tools compact`,
    compact.reduce((sum, tool) => sum + tokensOf(tool), 0),
    700,
    (value) => `${value.toLocaleString('en')} tokens`,
  );
  for (const { id, title } of registry.providers) {
    report.bar(
      `${title} and the fleet tools`,
      costOf(`${id.replaceAll('-', '_')}_`, 'backup_'),
      2000,
      (value) => `${value.toLocaleString('en')} tokens`,
    );
  }
}

/** What Holdfast adds to one call: one client, one call at a time, both servers warm, calls interleaved. */
async function measureCalls(): Promise<void> {
  mkdirSync(join(scratch, 'calls'));
  const bare = new StdioServer(bundled('bare'));
  const ours = new StdioServer(bundled('guarded', join(scratch, 'calls')));
  const call = (server: StdioServer, name: string, args: object): Promise<unknown> =>
    server.ask('tools/call', { name, arguments: args });
  const kinds = [
    {
      title: 'a read',
      bare: ['list_snapshots', { limit: 3 }],
      ours: ['bench_list_snapshots', { entity: 'bench/db', limit: 3 }],
    },
    {
      title: 'an allowed create',
      bare: ['create_snapshot', {}],
      ours: ['bench_create_snapshot', { entity: 'bench/db' }],
    },
  ] as const;
  report.section(
    'Calls',
    'Round trip over stdio, one call at a time, against a bare SDK server whose handlers do the same work. Holdfast validates strictly, asks the guard and keeps the audit trail; before a create, the intent is synchronised to the disk.',
  );
  const rounds = quick ? 4 : 20;
  for (const kind of kinds) {
    const took = { bare: [] as number[], ours: [] as number[] };
    for (let round = 0; round <= rounds; round += 1) {
      for (const [name, server] of [
        ['bare', bare],
        ['ours', ours],
      ] as const) {
        for (let index = 0; index < 100; index += 1) {
          const begun = performance.now();
          await call(server, kind[name][0], kind[name][1]);
          if (round > 0) took[name].push(performance.now() - begun);
        }
      }
    }
    const both = (values: readonly number[]): string =>
      `p50 ${fine(percentile(values, 50))}, p95 ${fine(percentile(values, 95))}`;
    report.row(`${kind.title}, bare server`, both(took.bare));
    report.row(`${kind.title}, Holdfast`, both(took.ours));
    report.bar(`${kind.title}: added at the median`, percentile(took.ours, 50) - percentile(took.bare, 50), 1, fine);
    report.row(`${kind.title}: added at p95`, fine(percentile(took.ours, 95) - percentile(took.bare, 95)));
  }
  await Promise.all([bare.stop(), ours.stop()]);
}

/** Calls a second over HTTP, the load generator on the same machine. */
async function measureHttp(): Promise<void> {
  mkdirSync(join(scratch, 'http'));
  const bare = await startHttp(bundled('bare', 'http'));
  const ours = await startHttp(bundled('guarded', join(scratch, 'http'), 'http'));
  const took = { bare: [] as number[], ours: [] as number[] };
  const ms = quick ? 500 : 3000;
  for (let round = 0; round <= 3; round += 1) {
    const rates = {
      bare: await requestsPerSecond(bare.url, 'list_snapshots', { limit: 3 }, 8, ms),
      ours: await requestsPerSecond(ours.url, 'bench_list_snapshots', { entity: 'bench/db', limit: 3 }, 8, ms),
    };
    if (round === 0) continue;
    took.bare.push(rates.bare);
    took.ours.push(rates.ours);
  }
  await Promise.all([bare.stop(), ours.stop()]);
  const rate = (value: number): string => `${Math.round(value).toLocaleString('en')} calls/s`;
  report.section(
    'HTTP',
    'The same read over HTTP on 8 connections (protocol 2026-07-28); the load generator runs on the same cores.',
  );
  report.row('bare server', rate(median(took.bare)));
  report.row('Holdfast', rate(median(took.ours)));
  report.row('ratio', times(median(took.ours) / median(took.bare)));
}

function measurePackage(): void {
  const arguments_ = ['pack', '--dry-run', '--json', '--ignore-scripts'];
  const text = execFileSync('npm', arguments_, { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  const [{ unpackedSize, size, entryCount }] = JSON.parse(text) as [
    { unpackedSize: number; size: number; entryCount: number },
  ];
  report.section('Package', 'The published package; it installs nothing else.');
  report.bar('installed', unpackedSize, 15e6, megabytes);
  report.row('to download', megabytes(size), `${entryCount} files`);
}

function fine(value: number): string {
  return `${value.toFixed(2)} ms`;
}

function median(values: readonly number[]): number {
  return percentile(values, 50);
}

function percentile(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * percent) / 100))] ?? Number.NaN;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
