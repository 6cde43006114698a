import type { Redis, RedisOptions } from 'ioredis';
import { HoldfastError, isAbort } from '../../core/errors.ts';
import type { Runtime } from '../../core/runtime.ts';
import { cleanText } from '../../core/text.ts';

/** What a connection to the database shows of what an import would remove. Values are never read. */
export interface Inspection {
  /** Number of keys; summed over the masters in cluster mode. */
  readonly keys: number;
  /** Keys, keys with expiry and mean time to live by logical database. */
  readonly databases: Readonly<Record<string, { keys: number; expires: number; mean_ttl_seconds?: number }>>;
  readonly memory: { used_bytes?: number; limit_bytes?: number; fragmentation?: number };
  readonly clients: number | undefined;
  readonly role: string | undefined;
  readonly replicas: number | undefined;
  /** Prefixes that at least two of the sampled keys share, commonest first. */
  readonly prefixes: readonly { prefix: string; sampled: number }[];
  readonly sampled: number;
  /** Commands that the user may not send, and masters that did not answer. */
  readonly gaps: readonly string[];
}

const SAMPLE = 1000;
const SCAN_COUNT = 500;
const PREFIXES = 10;

/** Reads an INFO section into its fields. */
export function parseInfo(text: string): Record<string, string> {
  return Object.fromEntries(
    text
      .split(/\r?\n/)
      .filter((line) => line.includes(':') && !line.startsWith('#'))
      .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]),
  );
}

/** Gives the host and port that a connection URL points to, for comparison with the database's own endpoints. */
export function endpointOf(url: string): string {
  const parsed = parseUrl(url);
  return `${parsed.hostname}:${parsed.port || '6379'}`;
}

/** Makes the password of a connection URL known to the redactor: as part of the URL alone it would not be found elsewhere. */
export function concealPassword(url: string, runtime: Pick<Runtime, 'conceal'>): void {
  const { password } = parseUrl(url);
  if (password === '') return;
  runtime.conceal(password);
  runtime.conceal(decodeURIComponent(password));
}

/**
 * Looks at a database: DBSIZE, INFO and a SCAN sample, nothing that writes and nothing that blocks it.
 * @throws {HoldfastError} AUTHENTICATION_FAILED, INSUFFICIENT_PERMISSIONS, PROVIDER_UNAVAILABLE, INVALID_PARAMETER, CANCELLED
 */
export async function inspect(url: string, signal: AbortSignal): Promise<Inspection> {
  parseUrl(url);
  const { Redis } = await import('ioredis');
  let connection: Redis | undefined;
  try {
    const opened = await open(() => new Redis(url, OPTIONS), signal);
    connection = opened;
    const gaps: string[] = [];
    const attempt = async <T>(name: string, command: () => Promise<T>): Promise<T | undefined> => {
      signal.throwIfAborted();
      try {
        return await command();
      } catch (cause) {
        if (!isRefusal(cause)) throw cause;
        gaps.push(name);
        return undefined;
      }
    };
    const info = async (section: string) =>
      parseInfo((await attempt(`INFO ${section}`, () => opened.info(section))) ?? '');

    const cluster = (await info('cluster'))['cluster_enabled'] === '1';
    const shards = cluster ? await sizeOfMasters(opened, url, signal) : undefined;
    if (shards !== undefined) gaps.push(...shards.gaps);
    const keys = shards?.keys ?? (await attempt('DBSIZE', () => opened.dbsize()));
    if (keys === undefined) {
      throw new HoldfastError('INSUFFICIENT_PERMISSIONS', 'the user of redis_url may not send DBSIZE', {
        hint: 'Give it +info +dbsize +scan +ping +hello +client|setname +client|list on ~*.',
      });
    }
    const memory = await info('memory');
    const replication = await info('replication');
    const sample = await attempt('SCAN', () => sampleKeys(opened, signal));
    return {
      keys,
      databases: keyspace(await info('keyspace')),
      memory: {
        ...field('used_bytes', memory['used_memory']),
        ...field('limit_bytes', memory['maxmemory']),
        ...field('fragmentation', memory['mem_fragmentation_ratio']),
      },
      clients: wholeNumber((await info('clients'))['connected_clients']),
      role: replication['role'] === undefined ? undefined : cleanText(replication['role'], 20),
      replicas: wholeNumber(replication['connected_slaves']),
      prefixes: prefixesOf(sample ?? []),
      sampled: sample?.length ?? 0,
      gaps,
    };
  } catch (cause) {
    throw toRedisError(cause);
  } finally {
    connection?.disconnect();
  }
}

const OPTIONS: RedisOptions = {
  lazyConnect: true,
  enableOfflineQueue: false,
  maxRetriesPerRequest: 2,
  connectTimeout: 3000,
  commandTimeout: 10_000,
  retryStrategy: () => null,
  connectionName: 'holdfast',
  // The check prints to stderr when INFO is refused.
  enableReadyCheck: false,
  // A user restricted to what the inspector needs may not announce a library.
  disableClientInfo: true,
};

async function open(make: () => Redis, signal: AbortSignal): Promise<Redis> {
  signal.throwIfAborted();
  const connection = make();
  // The reason of a failure comes by this event only; `connect` says no more than "closed".
  let reason: unknown;
  connection.on('error', (error) => {
    reason ??= error;
  });
  const stop = (): void => connection.disconnect();
  signal.addEventListener('abort', stop, { once: true });
  try {
    await connection.connect();
    return connection;
  } catch (cause) {
    connection.disconnect();
    signal.throwIfAborted();
    throw toRedisError(reason ?? cause);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** In cluster mode each shard counts its own keys. */
async function sizeOfMasters(
  connection: Redis,
  url: string,
  signal: AbortSignal,
): Promise<{ keys: number; gaps: string[] }> {
  const { Redis } = await import('ioredis');
  const { username, password, protocol } = parseUrl(url);
  let slots: unknown;
  try {
    slots = await connection.cluster('SLOTS');
  } catch (cause) {
    if (!isRefusal(cause)) throw cause;
    return { keys: await connection.dbsize(), gaps: ['CLUSTER SLOTS (one shard counted only)'] };
  }
  const own = endpointOf(url);
  const masters = new Set(
    (Array.isArray(slots) ? slots : []).flatMap((slot: unknown) => {
      const master = Array.isArray(slot) ? (slot[2] as unknown) : undefined;
      if (!Array.isArray(master)) return [];
      // An empty host means the one that was asked.
      const host = String(master[0] ?? '') || own.slice(0, own.lastIndexOf(':'));
      return [`${host}:${String(master[1])}`];
    }),
  );
  let keys = 0;
  const gaps: string[] = [];
  for (const address of masters) {
    const host = address.slice(0, address.lastIndexOf(':'));
    const port = Number(address.slice(address.lastIndexOf(':') + 1));
    const options: RedisOptions = {
      ...OPTIONS,
      host,
      port,
      ...(username === '' ? {} : { username: decodeURIComponent(username) }),
      ...(password === '' ? {} : { password: decodeURIComponent(password) }),
      ...(protocol === 'rediss:' ? { tls: {} } : {}),
    };
    try {
      const shard = await open(() => new Redis(options), signal);
      try {
        keys += await shard.dbsize();
      } finally {
        shard.disconnect();
      }
    } catch (cause) {
      signal.throwIfAborted();
      if (cause instanceof HoldfastError && cause.code === 'AUTHENTICATION_FAILED') throw cause;
      gaps.push('DBSIZE of a shard');
    }
  }
  return { keys, gaps };
}

async function sampleKeys(connection: Redis, signal: AbortSignal): Promise<string[]> {
  const keys: string[] = [];
  let cursor = '0';
  do {
    signal.throwIfAborted();
    const [next, batch] = await connection.scan(cursor, 'COUNT', SCAN_COUNT);
    keys.push(...batch);
    cursor = next;
  } while (cursor !== '0' && keys.length < SAMPLE);
  return keys.slice(0, SAMPLE);
}

/** Shows shared prefixes only: a whole key may name a person. */
function prefixesOf(keys: readonly string[]): { prefix: string; sampled: number }[] {
  const counts = new Map<string, number>();
  for (const key of keys) {
    const prefix = /^([^:/|.]{1,40})[:/|.]/.exec(key)?.[1];
    const name = prefix === undefined ? '(none)' : `${cleanText(prefix, 40)}`;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts]
    .filter(([, sampled]) => sampled > 1)
    .sort(([a, x], [b, y]) => y - x || a.localeCompare(b))
    .slice(0, PREFIXES)
    .map(([prefix, sampled]) => ({ prefix, sampled }));
}

function keyspace(fields: Record<string, string>): Inspection['databases'] {
  return Object.fromEntries(
    Object.entries(fields)
      .filter(([name]) => /^db\d+$/.test(name))
      .map(([name, text]) => {
        const part = (key: string): number => Number(new RegExp(`(?:^|,)${key}=(\\d+)`).exec(text)?.[1] ?? 0);
        // The server works the mean out in the background: 0 means that it does not know yet.
        const ttl = part('avg_ttl') === 0 ? {} : { mean_ttl_seconds: Math.round(part('avg_ttl') / 1000) };
        return [name, { keys: part('keys'), expires: part('expires'), ...ttl }];
      }),
  );
}

function wholeNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}

function field<Name extends string>(name: Name, text: string | undefined): { [key in Name]?: number } {
  const value = Number(text);
  return text === undefined || Number.isNaN(value) ? {} : ({ [name]: value } as { [key in Name]: number });
}

function parseUrl(text: string): URL {
  let url: URL | undefined;
  try {
    url = new URL(text);
  } catch {
    url = undefined;
  }
  if (url === undefined || !/^rediss?:$/.test(url.protocol) || url.hostname === '') {
    throw new HoldfastError('INVALID_PARAMETER', 'redis_url is not a Redis connection URL', {
      hint: 'The form is redis://user:password@host:port, or rediss:// for TLS.',
    });
  }
  return url;
}

function isRefusal(cause: unknown): boolean {
  return cause instanceof Error && /^(NOPERM|ERR unknown command|ERR unknown subcommand)/.test(cause.message);
}

/** Maps what the connection threw; its text may name hosts and users and stays out of the message. */
export function toRedisError(cause: unknown): HoldfastError {
  if (cause instanceof HoldfastError) return cause;
  const text = cause instanceof Error ? cause.message : '';
  if (isAbort(cause)) return new HoldfastError('CANCELLED', 'the call was cancelled');
  if (/^(WRONGPASS|NOAUTH|ERR invalid password|ERR AUTH)/.test(text)) {
    return new HoldfastError('AUTHENTICATION_FAILED', 'the database refused the user or password of redis_url', {
      cause: kindOf(cause),
    });
  }
  if (text.startsWith('NOPERM')) {
    return new HoldfastError('INSUFFICIENT_PERMISSIONS', 'the user of redis_url may not inspect the database', {
      hint: 'Give it +info +dbsize +scan +ping +hello +client|setname +client|list on ~*.',
      cause: kindOf(cause),
    });
  }
  return new HoldfastError('PROVIDER_UNAVAILABLE', 'the database of redis_url cannot be reached', {
    hint: 'Check the host, the port and TLS (rediss://) of redis_url, and the allow list of the database.',
    cause: kindOf(cause),
  });
}

/** The library's errors carry the command with its arguments, the password of AUTH among them: only the kind is kept. */
function kindOf(cause: unknown): Error {
  const code = (cause as { code?: unknown } | undefined)?.code;
  const word = cause instanceof Error ? cause.message.split(' ')[0] : '';
  return new Error(`${cause instanceof Error ? cause.name : 'error'}: ${typeof code === 'string' ? code : word}`);
}
