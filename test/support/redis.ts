import { spawn } from 'node:child_process';
import { accessSync, constants, mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

/** The redis-server on the PATH, if any. */
export const redisServer: string | undefined = (process.env['PATH'] ?? '')
  .split(delimiter)
  .map((folder) => join(folder, 'redis-server'))
  .find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });

const isRequired = Boolean(process.env['CI']) || Boolean(process.env['HOLDFAST_REQUIRE_REDIS']);

/** Whether suites that need a real Redis are left out: never in CI or with HOLDFAST_REQUIRE_REDIS, where they fail instead. */
export const withoutRedis: boolean = redisServer === undefined && !isRequired;

/** Ends the title of a suite that needs a real Redis, so that a skipped one says why. */
export const redisReason = withoutRedis ? ' (SKIPPED: no redis-server on the PATH)' : '';

export interface TestRedis {
  readonly port: number;
  /** `redis://127.0.0.1:PORT` */
  readonly url: string;
  stop(): Promise<void>;
}

/**
 * Starts a redis-server of this test's own on a spare loopback port, without persistence, and waits until it answers.
 * `options` are further ones of redis-server, `['--cluster-enabled', 'yes']`.
 */
export async function startRedis(options: readonly string[] = []): Promise<TestRedis> {
  if (redisServer === undefined) throw new Error('there is no redis-server on the PATH');
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-redis-'));
  const port = await sparePort();
  const settings = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder];
  const child = spawn(redisServer, [...settings, ...options], { stdio: ['ignore', 'pipe', 'pipe'] });
  const over = new Promise<void>((resolve) => child.once('close', () => resolve()));
  let output = '';
  await new Promise<void>((resolve, reject) => {
    const read = (chunk: Buffer): void => {
      output += chunk.toString('utf8');
      if (/Ready to accept connections/.test(output)) resolve();
    };
    child.stdout.on('data', read);
    child.stderr.on('data', read);
    child.once('error', reject);
    child.once('close', (code) => reject(new Error(`redis-server ended with ${code}: ${output.slice(-500)}`)));
  });
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    stop: async () => {
      child.kill('SIGKILL');
      await over;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function sparePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
