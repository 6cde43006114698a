import { execFile } from 'node:child_process';
import { mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Client } from 'pg';
import { HoldfastError } from '../../src/core/errors.ts';
import { findServerBinaries, startPrivateServer } from '../../src/postgres/private-server.ts';
import { type Report, times } from './report.ts';

const run = promisify(execFile);
/** The public key of the age documentation; nothing is ever opened here. */
const RECIPIENT = 'age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p';

interface Options {
  readonly root: string;
  readonly scratch: string;
  readonly quick: boolean;
  readonly report: Report;
}

/** One backup of the same database by Holdfast and by the pipeline that a person would write: dump, zstd, age, disk. */
export async function measurePostgres({ root, scratch, quick, report }: Options): Promise<void> {
  report.section(
    'PostgreSQL',
    'A logical backup of one database on the same machine, compressed by zstd at level 3 and encrypted by age: `pg_dump -Fc -Z0 | zstd -3 | age` in a shell, and `holdfast do …/create-snapshot --wait`, process start, audit and catalogue included. Holdfast also takes an inventory of every table in the same snapshot; the second figure leaves fingerprints of the rows out of it.',
  );
  const lacking = await missing();
  if (lacking !== undefined) return report.skipped(`${lacking} is not on this machine`);
  const binaries = await findServerBinaries();
  const server = await startPrivateServer({ directory: join(scratch, 'pg') });
  try {
    const { host, port, user, password } = server.connection;
    const rows = quick ? 200_000 : 2_000_000;
    const client = new Client({ host, port, user, password, database: 'postgres' });
    await client.connect();
    await client.query(
      `CREATE TABLE orders AS SELECT i AS id, md5(i::text) || md5((i * 7)::text) AS note, now() - i * interval '1 second' AS placed_at, (i * 37) % 100000 AS cents FROM generate_series(1, ${rows}) AS i`,
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
    const shell = async (line: string): Promise<number> => {
      const begun = performance.now();
      await run('bash', ['-o', 'pipefail', '-c', line], { env });
      return performance.now() - begun;
    };
    const dump = `'${binaries.pgDump}' -Fc -Z0`;
    const plain = join(scratch, 'plain');
    await shell(`${dump} > '${plain}'`); // warms the cache, and says how much there is to store
    const bytes = statSync(plain).size;
    rmSync(plain);

    const took: Record<'pipeline' | 'whole' | 'counted', number[]> = { pipeline: [], whole: [], counted: [] };
    const piped = join(scratch, 'piped.age');
    for (let round = 0; round < (quick ? 1 : 3); round += 1) {
      took.pipeline.push(await shell(`${dump} | zstd -3 -q | age -r ${RECIPIENT} > '${piped}'`));
      took.whole.push(await holdfast({ root, scratch, env, host, port, user, fingerprints: true }));
      took.counted.push(await holdfast({ root, scratch, env, host, port, user, fingerprints: false }));
    }
    const pipeline = best(took.pipeline);
    const rate = (ms: number): string => `${Math.round(bytes / 1e6 / (ms / 1000))} MB/s`;
    report.row('dumped', `${Math.round(bytes / 1e6)} MB`, `PostgreSQL ${server.version}`);
    report.row('shell pipeline', rate(pipeline), 'best of the runs, as below');
    report.row('Holdfast, with fingerprints', rate(best(took.whole)), `${times(best(took.whole) / pipeline)} the time`);
    report.row(
      'Holdfast, rows counted only',
      rate(best(took.counted)),
      `${times(best(took.counted) / pipeline)} the time`,
    );
  } finally {
    await server.stop();
  }
}

interface Backup {
  readonly root: string;
  readonly scratch: string;
  readonly env: NodeJS.ProcessEnv;
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly fingerprints: boolean;
}

/** Runs one backup as a person would and gives the milliseconds from start to exit. */
async function holdfast({ root, scratch, env, host, port, user, fingerprints }: Backup): Promise<number> {
  const storage = join(scratch, 'backups');
  rmSync(storage, { recursive: true, force: true });
  mkdirSync(storage);
  const config = join(scratch, 'postgres.yaml');
  const text = [
    'namespace: bench',
    'db:',
    '  defines: postgresql/server',
    `  host: ${host}`,
    `  port: ${port}`,
    `  user: ${user}`,
    '  database: postgres',
    '  password: ${env:PGPASSWORD}',
    '  ssl_mode: disable',
    `  storage: { type: local, path: ${storage} }`,
    `  encryption: { recipients: [${RECIPIENT}] }`,
    ...(fingerprints ? [] : ['  fingerprint_max_rows: 0']),
  ];
  writeFileSync(config, `${text.join('\n')}\n`);
  const args = [join(root, 'dist', 'main.js'), 'do', 'bench/db/create-snapshot', '--wait', '--config', config];
  const begun = performance.now();
  await run(process.execPath, args, { cwd: scratch, env: { ...env, HOLDFAST_STATE_DIR: join(scratch, 'pg-state') } });
  return performance.now() - begun;
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
