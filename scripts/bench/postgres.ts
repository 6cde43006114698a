import { type ExecFileOptions, execFile } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { build as bundle } from 'esbuild';
import { Client } from 'pg';
import { HoldfastError } from '../../src/core/errors.ts';
import type { Binaries } from '../../src/postgres/binaries.ts';
import { findServerBinaries, type PrivateServer, startPrivateServer } from '../../src/postgres/private-server.ts';
import { BUNDLE } from '../bundle.ts';
import { entities, RECIPIENT } from './entities.ts';
import { megabytes, type Report, times } from './report.ts';

const run = promisify(execFile);

interface Options {
  readonly root: string;
  readonly scratch: string;
  readonly quick: boolean;
  readonly report: Report;
}

/** A database to back up, and what every measurement of it shares. */
interface PostgresBench extends Options {
  readonly binaries: Binaries;
  readonly server: PrivateServer;
  /** Environment with the connection in it. */
  readonly env: NodeJS.ProcessEnv;
  readonly rounds: number;
  /** Runs a line of bash and gives its milliseconds. */
  shell(line: string): Promise<number>;
  /** Runs create-snapshot as a person would, process start included. */
  backUp(parameters: readonly string[]): Promise<Ran>;
}

/** What a process came to. `memory` is the most that it held at once, in bytes; unknown where /proc is not there. */
interface Ran {
  readonly ms: number;
  readonly memory: number | undefined;
}

/** Makes a database whose dump has about a gigabyte and measures dumps of it. Copies of whole servers are measured apart. */
export async function measurePostgres(options: Options): Promise<void> {
  const { scratch, quick, report } = options;
  const lacking = await missing();
  if (lacking !== undefined) {
    report.section('PostgreSQL', 'Backups of one database.');
    return report.skipped(`${lacking} is not on this machine`);
  }
  const binaries = await findServerBinaries();
  const server = await startPrivateServer({ directory: join(scratch, 'pg') });
  try {
    const { host, port, user, password } = server.connection;
    const client = new Client({ host, port, user, password, database: 'postgres' });
    await client.connect();
    await client.query(
      `CREATE TABLE orders AS SELECT i AS id, md5(i::text) || md5((i * 7)::text) AS note, now() - i * interval '1 second' AS placed_at, (i * 37) % 100000 AS cents FROM generate_series(1, ${quick ? 500_000 : 9_000_000}) AS i`,
    );
    await client.query('ALTER TABLE orders ADD PRIMARY KEY (id)');
    await client.query('VACUUM ANALYZE orders');
    await client.end();
    const env = {
      ...process.env,
      PGHOST: host,
      PGPORT: String(port),
      PGUSER: user,
      PGPASSWORD: password,
      PGDATABASE: 'postgres',
    };
    const bench: PostgresBench = {
      ...options,
      binaries,
      server,
      env,
      rounds: quick ? 1 : 4,
      shell: async (line) => (await timed('bash', ['-o', 'pipefail', '-c', line], { env })).ms,
      backUp: (parameters) => backUp(bench, parameters),
    };
    await measureLogical(bench);
  } finally {
    await server.stop();
  }
}

/** A dump by Holdfast and by the pipeline that a person would write: dump, zstd, age, disk. */
async function measureLogical(bench: PostgresBench): Promise<void> {
  const { report, scratch, binaries, shell, server } = bench;
  report.section(
    'PostgreSQL, logical',
    'A dump of one database on the same machine, compressed by zstd at level 3, encrypted by age and synchronised to the disk: `pg_dump -Fc -Z0 | zstd -3 | age` in a shell; the same stream through the code of Holdfast, SHA-256 of both sides and process start included; and `holdfast do …/create-snapshot --wait`, which also counts and fingerprints every table in the same snapshot, reads schema and roles, and keeps audit and catalogue. Best of interleaved runs.',
  );
  await bundle({
    absWorkingDir: bench.root,
    entryPoints: { sealing: 'scripts/bench/sealing.ts' },
    outdir: join(scratch, 'bundle'),
    ...BUNDLE,
  });
  const dump = `'${binaries.pgDump}' -Fc -Z0`;
  const plain = join(scratch, 'plain');
  await shell(`${dump} > '${plain}'`); // warms the cache, and says how much there is to store
  const bytes = statSync(plain).size;
  rmSync(plain);

  const took = { pipeline: [] as number[], stream: [] as number[], counted: [] as number[], whole: [] as number[] };
  const memory: number[] = [];
  const piped = join(scratch, 'piped.age');
  const streamed = join(scratch, 'streamed');
  for (let round = 0; round < bench.rounds; round += 1) {
    took.pipeline.push(await shell(`${dump} | zstd -3 -q | age -r ${RECIPIENT} > '${piped}' && sync '${piped}'`));
    rmSync(streamed, { recursive: true, force: true });
    const script = [join(scratch, 'bundle', 'sealing.js'), binaries.pgDump, streamed, RECIPIENT];
    took.stream.push((await timed(process.execPath, script, { env: bench.env })).ms);
    took.counted.push((await bench.backUp(['fingerprint_max_rows: 0'])).ms);
    const whole = await bench.backUp([]);
    took.whole.push(whole.ms);
    if (whole.memory !== undefined) memory.push(whole.memory);
  }
  const rate = (ms: number): string => `${Math.round(bytes / 1e6 / (ms / 1000))} MB/s`;
  const [pipeline, stream, counted, whole] = [took.pipeline, took.stream, took.counted, took.whole].map(best) as [
    number,
    number,
    number,
    number,
  ];
  report.row('dumped', `${Math.round(bytes / 1e6)} MB`, `PostgreSQL ${server.version}`);
  report.row('shell pipeline', rate(pipeline));
  report.row('the same stream by Holdfast', rate(stream));
  report.atLeast('throughput, Holdfast to the pipeline', pipeline / stream, 0.95, times);
  report.row('create-snapshot, rows counted only', rate(counted), `${times(pipeline / counted)} the throughput`);
  report.row('create-snapshot, with fingerprints', rate(whole), `${times(pipeline / whole)} the throughput`);
  if (memory.length > 0) report.bar('memory of create-snapshot at its most', Math.max(...memory), 200e6, megabytes);
}

async function backUp({ root, scratch, env, server }: PostgresBench, parameters: readonly string[]): Promise<Ran> {
  const { host, port, user } = server.connection;
  const storage = join(scratch, 'backups');
  rmSync(storage, { recursive: true, force: true });
  mkdirSync(storage);
  const config = join(scratch, 'postgres.yaml');
  writeFileSync(config, entities({ host, port, user, storage, encrypted: true }, parameters));
  const args = [join(root, 'dist', 'main.js'), 'do', 'bench/db/create-snapshot', '--wait', '--config', config];
  return timed(process.execPath, args, {
    cwd: scratch,
    env: { ...env, HOLDFAST_STATE_DIR: join(scratch, 'pg-state') },
  });
}

/** Runs a program to its end. */
async function timed(file: string, args: readonly string[], options: ExecFileOptions): Promise<Ran> {
  const begun = performance.now();
  let memory: number | undefined;
  const running = run(file, [...args], options);
  const look = setInterval(() => {
    try {
      const status = readFileSync(`/proc/${running.child.pid}/status`, 'utf8');
      const most = /^VmHWM:\s+(\d+) kB/m.exec(status)?.[1];
      if (most !== undefined) memory = Number(most) * 1024;
    } catch {
      // It is over, or there is no /proc here.
    }
  }, 50);
  try {
    await running;
  } finally {
    clearInterval(look);
  }
  return { ms: performance.now() - begun, memory };
}

function best(values: readonly number[]): number {
  return Math.min(...values);
}

async function missing(): Promise<string | undefined> {
  try {
    await findServerBinaries();
  } catch (cause) {
    if (cause instanceof HoldfastError) return 'PostgreSQL';
    throw cause;
  }
  for (const program of ['zstd', 'age']) {
    const found = await run(program, ['--version']).then(
      () => true,
      () => false,
    );
    if (!found) return program;
  }
  return undefined;
}
