import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Client } from 'pg';
import { HoldfastError } from '../../src/core/errors.ts';
import { startPrivateServer } from '../../src/postgres/private-server.ts';
import { entities } from './entities.ts';
import { type Report, times } from './report.ts';

const run = promisify(execFile);
const PASSPHRASE = 'only-for-this-measurement';
/** Holdfast must reach at least this part of pgBackRest's throughput. */
const BAR = 0.9;

interface Options {
  readonly root: string;
  readonly scratch: string;
  readonly quick: boolean;
  readonly report: Report;
}

/** One copy of the same server by Holdfast and by pgBackRest: zstd 3, into a directory, encrypted and not. */
export async function measurePostgresPhysical({ root, scratch, quick, report }: Options): Promise<void> {
  report.section(
    'PostgreSQL, the whole server',
    '`holdfast do …/create-snapshot type=full --wait`, process start, audit and catalogue included, against `pgbackrest --type=full backup` with two processes; both online, both zstd at level 3, both into a directory on the same machine. Throughput is that of the data directory.',
  );
  const version = await run('pgbackrest', ['version']).then(
    ({ stdout }) => stdout.trim(),
    () => undefined,
  );
  if (version === undefined) return report.skipped('pgbackrest is not on this machine');
  const directory = join(scratch, 'pg-physical');
  const server = await startPrivateServer({ directory, settings: { max_wal_size: '4GB' } }).catch((cause) => {
    if (cause instanceof HoldfastError) return undefined;
    throw cause;
  });
  if (server === undefined) return report.skipped('PostgreSQL is not on this machine');
  try {
    const { host, port, user, password } = server.connection;
    const client = new Client({ host, port, user, password, database: 'postgres' });
    await client.connect();
    const rows = quick ? 500_000 : 6_000_000;
    await client.query(
      `CREATE TABLE orders AS SELECT i AS id, md5(i::text) || md5((i * 7)::text) AS note, now() - i * interval '1 second' AS placed_at, (i * 37) % 100000 AS cents FROM generate_series(1, ${rows}) AS i`,
    );
    await client.query('ALTER TABLE orders ADD PRIMARY KEY (id)');
    await client.query('VACUUM ANALYZE orders');
    await client.query('CHECKPOINT');
    const size = await client.query<{ bytes: string }>(
      'SELECT sum(pg_database_size(oid))::text AS bytes FROM pg_database',
    );
    await client.end();
    const bytes = Number(size.rows[0]?.bytes);

    const env = { ...process.env, PGPASSWORD: password };
    const rate = (ms: number): string => `${Math.round(bytes / 1e6 / (ms / 1000))} MB/s`;
    report.row('copied', `${Math.round(bytes / 1e6)} MB`, `PostgreSQL ${server.version}, ${version}`);
    for (const encrypted of [true, false]) {
      const ours: number[] = [];
      const theirs: number[] = [];
      const sizes = { ours: 0, theirs: 0 };
      for (let round = 0; round < (quick ? 1 : 3); round += 1) {
        const storage = join(scratch, 'physical-store');
        rmSync(storage, { recursive: true, force: true });
        mkdirSync(storage);
        const config = join(scratch, 'postgres-physical.yaml');
        writeFileSync(config, entities({ host, port, user, storage, encrypted }));
        const args = ['do', 'bench/db/create-snapshot', 'type=full', '--wait', '--config', config];
        const state = { HOLDFAST_STATE_DIR: join(scratch, 'physical-state') };
        ours.push(
          await timed(() =>
            run(process.execPath, [join(root, 'dist', 'main.js'), ...args], {
              cwd: scratch,
              env: { ...env, ...state },
            }),
          ),
        );
        sizes.ours = sizeOf(storage);

        const repo = join(scratch, 'pgbackrest');
        rmSync(repo, { recursive: true, force: true });
        mkdirSync(repo);
        chmodSync(repo, 0o750);
        const file = join(scratch, 'pgbackrest.conf');
        writeFileSync(file, stanza({ repo, directory, port, user, encrypted }), { mode: 0o600 });
        const call = (...more: string[]) => run('pgbackrest', [`--config=${file}`, '--stanza=bench', ...more], { env });
        await call('stanza-create');
        theirs.push(await timed(() => call('--type=full', 'backup')));
        sizes.theirs = sizeOf(join(repo, 'backup'));
      }
      const how = encrypted ? 'encrypted' : 'not encrypted';
      report.row(`pgBackRest, ${how}`, rate(best(theirs)), `${Math.round(sizes.theirs / 1e6)} MB stored`);
      report.row(`Holdfast, ${how}`, rate(best(ours)), `${Math.round(sizes.ours / 1e6)} MB stored`);
      report.bar(`Time against pgBackRest, ${how}`, best(ours) / best(theirs), 1 / BAR, times);
    }
  } finally {
    await server.stop();
  }
}

interface Stanza {
  readonly repo: string;
  readonly directory: string;
  readonly port: number;
  readonly user: string;
  readonly encrypted: boolean;
}

function stanza({ repo, directory, port, user, encrypted }: Stanza): string {
  return [
    '[global]',
    `repo1-path=${repo}`,
    'repo1-retention-full=10',
    `log-path=${repo}`,
    `lock-path=${repo}`,
    `spool-path=${repo}`,
    'log-level-console=warn',
    'compress-type=zst',
    'compress-level=3',
    'process-max=2',
    'start-fast=y',
    // No archive is set up for it: what is compared is the copy.
    'archive-check=n',
    ...(encrypted ? ['repo1-cipher-type=aes-256-cbc', `repo1-cipher-pass=${PASSPHRASE}`] : []),
    '[bench]',
    `pg1-path=${join(directory, 'data')}`,
    `pg1-socket-path=${directory}`,
    `pg1-port=${port}`,
    `pg1-user=${user}`,
    '',
  ].join('\n');
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
}

function sizeOf(directory: string): number {
  return (
    readdirSync(directory, { recursive: true, withFileTypes: true })
      // `latest` of pgBackRest leads to what has been counted already.
      .filter((entry) => entry.isFile() && !entry.parentPath.includes('/latest'))
      .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0)
  );
}

function best(values: readonly number[]): number {
  return Math.min(...values);
}
