import { randomBytes } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import { StorageConfig } from '../../src/storage/config.ts';
import { openStore } from '../../src/storage/open.ts';
import { inParts, partSizeOf } from '../../src/storage/remote.ts';
import type { ObjectStore } from '../../src/storage/storage.ts';
import { googleRefusal } from '../support/gcs-wire.ts';
import { refusal } from '../support/s3-wire.ts';
import { startGcs, startS3, storeRuntime, type TestRuntime, type TestStore } from '../support/stores.ts';
import type { WireAnswer, WireRequest, WireServer } from '../support/wire.ts';

const MIB = 1024 * 1024;

async function* bytes(...parts: (string | Uint8Array)[]): AsyncIterable<Uint8Array> {
  for (const part of parts) yield typeof part === 'string' ? Buffer.from(part) : part;
}

async function keys(items: AsyncIterable<{ key: string }>): Promise<string[]> {
  const all: string[] = [];
  for await (const { key } of items) all.push(key);
  return all;
}

/** Lets something happen to the first request that fits, once or several times. */
function once<T>(fits: (request: WireRequest) => boolean, fault: T, times = 1) {
  let left = times;
  return (request: WireRequest): T | undefined => {
    if (left <= 0 || !fits(request)) return undefined;
    left -= 1;
    return fault;
  };
}

interface Opened<Wire> {
  readonly store: ObjectStore;
  readonly wire: Wire;
  readonly runtime: TestRuntime;
  /** Opens the same place again, with other parameters. */
  again(more?: JsonObject): { store: ObjectStore; runtime: TestRuntime };
  dispose(): Promise<void>;
}

async function open<Wire>(start: () => Promise<TestStore<Wire>>): Promise<Opened<Wire>> {
  const { parameters, secrets, wire, dispose } = await start();
  const again = (more: JsonObject = {}) => {
    const runtime = storeRuntime(secrets);
    return { runtime, store: openStore(StorageConfig.parse({ ...parameters, prefix: 'p', ...more }), runtime) };
  };
  return { ...again(), wire, again, dispose };
}

const isPart = ({ method, url }: WireRequest): boolean => method === 'PUT' && url.searchParams.has('partNumber');
const isComplete = ({ method, url }: WireRequest): boolean => method === 'POST' && url.searchParams.has('uploadId');
const isWhole = ({ method, url }: WireRequest): boolean => method === 'PUT' && !url.searchParams.has('partNumber');
const big = (): AsyncIterable<Uint8Array> =>
  bytes(Buffer.alloc(4 * MIB), Buffer.alloc(4 * MIB), Buffer.alloc(4 * MIB, 1));
const PARTS = { partSize: 5 * MIB };

describe('an S3 store', () => {
  let at: Opened<Awaited<ReturnType<typeof startS3>>['wire']>;
  beforeEach(async () => {
    at = await open(startS3);
  });
  afterEach(() => at.dispose());

  it('aborts the multipart upload when the source fails, and leaves nothing', async () => {
    async function* failing(): AsyncIterable<Uint8Array> {
      yield* big();
      expect(await keys(at.store.unfinished(''))).toEqual(['dir/k']);
      throw new Error('the source died');
    }
    await expect(at.store.put('dir/k', failing(), PARTS)).rejects.toThrow('the source died');
    expect(at.wire.uploads.size).toBe(0);
    expect(at.wire.objects.size).toBe(0);
  });

  it('aborts it when the signal fires while a part is on its way', async () => {
    const controller = new AbortController();
    at.wire.fault = (request) => {
      if (isPart(request)) controller.abort();
      return undefined;
    };
    const put = at.store.put('dir/k', big(), { ...PARTS, signal: controller.signal });
    await expect(put).rejects.toMatchObject({ name: 'AbortError' });
    expect(at.wire.uploads.size).toBe(0);
    expect(at.wire.objects.size).toBe(0);
  });

  it('aborts it when a part is refused for good', async () => {
    at.wire.fault = once(isPart, refusal(403, 'AccessDenied'), 9);
    await expect(at.store.put('dir/k', big(), PARTS)).rejects.toMatchObject({
      code: 'INSUFFICIENT_PERMISSIONS',
      details: { permission: 's3:PutObject' },
    });
    expect(at.wire.uploads.size).toBe(0);
  });

  it.each([
    ['a server fault', refusal(500, 'InternalError')],
    ['SlowDown', refusal(503, 'SlowDown')],
    ['a cut connection', 'cut' as const],
    ['a lost answer', 'cut after' as const],
  ])('sends a part again after %s', async (_name, fault) => {
    at.wire.fault = once(isPart, fault);
    expect(await at.store.put('k', big(), PARTS)).toBe(12 * MIB);
    const content = await buffer(await at.store.get('k'));
    expect(content.equals(Buffer.concat([Buffer.alloc(8 * MIB), Buffer.alloc(4 * MIB, 1)]))).toBe(true);
  });

  it.each([
    ['of a large object', isComplete, big, PARTS],
    ['of a small object', isWhole, () => bytes('small'), {}],
  ])('makes one object where the answer to the end %s is lost', async (_name, fits, body, options) => {
    await at.store.put('first', bytes('x'), { createOnly: true });
    at.wire.fault = once(fits, 'cut after' as const);
    const size = await at.store.put('k', body(), { ...options, createOnly: true });
    expect(await at.store.head('k')).toMatchObject({ size_bytes: size });
    expect(at.wire.uploads.size).toBe(0);
    expect([...at.wire.objects.keys()]).toEqual(['p/first', 'p/k']);
  });

  it('does not take the object of another writer for its own where an answer is lost', async () => {
    await at.store.put('first', bytes('x'), { createOnly: true });
    at.wire.fault = async (request) => {
      if (!isWhole(request)) return undefined;
      at.wire.fault = () => undefined;
      await at.again().store.put('k', bytes('theirs'), { createOnly: true });
      return 'cut' as const;
    };
    await expect(at.store.put('k', bytes('ours'), { createOnly: true })).rejects.toMatchObject({
      code: 'RESOURCE_EXISTS',
    });
    expect(String(await buffer(await at.store.get('k')))).toBe('theirs');
  });

  it('shows nothing when the store dies in the middle of a part', async () => {
    at.wire.fault = async (request) => {
      if (isPart(request)) await at.wire.kill();
      return isPart(request) ? ('cut' as const) : undefined;
    };
    await expect(at.store.put('dir/k', big(), PARTS)).rejects.toMatchObject({ code: 'PROVIDER_UNAVAILABLE' });
    expect(at.wire.objects.size).toBe(0);
    expect(at.runtime.warnings.join()).not.toContain('secret');
  });

  it('shows what killed writers left, page after page, and removes only what is asked for', async () => {
    for (let index = 0; index < 5; index += 1) {
      at.wire.uploads.set(`stray-${index}`, {
        key: `p/s/${index}/payload`,
        headers: {},
        parts: new Map([[1, Buffer.alloc(10)]]),
      });
    }
    expect(await keys(at.store.unfinished('s/'))).toHaveLength(5);
    for await (const { size_bytes } of at.store.unfinished('s/0/')) expect(size_bytes).toBe(10);
    await at.store.discardUnfinished('s/0/');
    expect(await keys(at.store.unfinished('s/'))).toEqual([1, 2, 3, 4].map((index) => `s/${index}/payload`));
  });

  it('goes on reading the same version after the connection breaks', async () => {
    const content = randomBytes(20 * MIB);
    await at.store.put('k', bytes(content));
    at.wire.fault = once(
      ({ method, headers }) => method === 'GET' && headers['if-match'] !== undefined,
      'cut in the answer',
      3,
    );
    expect((await buffer(await at.store.get('k'))).equals(content)).toBe(true);
  });

  it('fails as retryable, not as damage, where the object is replaced while it is read', async () => {
    await at.store.put('k', bytes(randomBytes(20 * MIB)));
    const reader = await at.store.get('k');
    await at.store.put('k', bytes(randomBytes(20 * MIB)));
    await expect(buffer(reader)).rejects.toMatchObject({ code: 'INVALID_STATE', retryable: true });
  });

  it('encrypts and classes every object as configured, in one request and in parts', async () => {
    const kms = { server_side_encryption: 'aws:kms', kms_key_id: 'alias/backups', storage_class: 'STANDARD_IA' };
    const { store } = at.again(kms);
    await store.put('small', bytes('x'));
    await store.put('large', big(), PARTS);
    for (const key of ['p/small', 'p/large']) {
      expect(at.wire.objects.get(key)?.headers).toMatchObject({
        'x-amz-server-side-encryption': 'aws:kms',
        'x-amz-server-side-encryption-aws-kms-key-id': 'alias/backups',
        'x-amz-storage-class': 'STANDARD_IA',
      });
    }
  });

  it('probes create-only once, removes the probe, and remembers the outcome without asking again', async () => {
    expect(await at.store.capabilities()).toEqual({ atomicCreate: undefined });
    await at.store.put('a', bytes('x'), { createOnly: true });
    await at.store.put('b', bytes('x'), { createOnly: true });
    const probes = at.wire.requests.filter(({ url }) => url.pathname.includes('holdfast-probe'));
    expect(probes.filter(({ method }) => method === 'PUT')).toHaveLength(2);
    expect([...at.wire.objects.keys()]).toEqual(['p/a', 'p/b']);
    const other = openStore(StorageConfig.parse(configOf(at)), at.runtime);
    expect(await other.capabilities()).toEqual({ atomicCreate: true });
  });

  it('looks first where the store refuses to know of the condition', async () => {
    at.wire.fault = ({ headers }) =>
      headers['if-none-match'] === undefined ? undefined : refusal(501, 'NotImplemented');
    await at.store.put('a', bytes('x'), { createOnly: true });
    await expect(at.store.put('a', bytes('y'), { createOnly: true })).rejects.toMatchObject({
      code: 'RESOURCE_EXISTS',
    });
    expect(await at.store.capabilities()).toEqual({ atomicCreate: false });
  });

  it('writes nothing outside of a run, and sends nothing', async () => {
    at.runtime.mayWrite = false;
    await expect(at.store.put('k', bytes('x'))).rejects.toMatchObject({ code: 'INTERNAL' });
    await expect(at.store.delete('k')).rejects.toMatchObject({ code: 'INTERNAL' });
    await expect(at.store.discardUnfinished('k')).rejects.toMatchObject({ code: 'INTERNAL' });
    expect(at.wire.requests).toEqual([]);
  });

  it.each<[string, WireAnswer, string, boolean]>([
    ['403', refusal(403, 'AccessDenied'), 'INSUFFICIENT_PERMISSIONS', false],
    ['a bucket that is not there', refusal(404, 'NoSuchBucket'), 'RESOURCE_NOT_FOUND', false],
    ['a wrong key', refusal(403, 'InvalidAccessKeyId'), 'AUTHENTICATION_FAILED', false],
    ['a wrong signature', refusal(403, 'SignatureDoesNotMatch'), 'AUTHENTICATION_FAILED', false],
    ['SlowDown', refusal(503, 'SlowDown'), 'RATE_LIMITED', true],
    ['429', refusal(429, 'TooManyRequests'), 'RATE_LIMITED', true],
    ['a full store', refusal(507, 'XMinioStorageFull'), 'QUOTA_EXCEEDED', false],
    ['a quota', refusal(403, 'QuotaExceeded'), 'QUOTA_EXCEEDED', false],
    ['a server fault', refusal(500, 'InternalError'), 'PROVIDER_UNAVAILABLE', true],
    ['a key that is switched off', refusal(400, 'KMS.DisabledException'), 'INVALID_STATE', true],
    ['a class that it does not have', refusal(400, 'InvalidStorageClass'), 'NOT_SUPPORTED', false],
    ['a proxy', { status: 502, body: '<html>secret words of a proxy</html>' }, 'PROVIDER_UNAVAILABLE', true],
  ])('names %s', async (_name, answer, code, retryable) => {
    at.wire.fault = ({ method }) => (method === 'HEAD' ? undefined : answer);
    const failed = await at.store.put('k', bytes('x')).catch((cause: unknown) => cause);
    expect(failed).toBeInstanceOf(HoldfastError);
    expect(failed).toMatchObject({ code, retryable });
    const shown = JSON.stringify((failed as HoldfastError).toJson());
    expect(shown).not.toMatch(/free text|secret words|AKIATEST|a-secret-of-the-test/);
    expect(shown).toContain("the bucket 'backups'");
  });

  it('says that an archived object cannot be read now', async () => {
    await at.store.put('k', bytes('x'));
    at.wire.fault = ({ method }) => (method === 'GET' ? refusal(403, 'InvalidObjectState') : undefined);
    await expect(at.store.get('k')).rejects.toMatchObject({
      code: 'INVALID_STATE',
      message: expect.stringContaining('archived'),
    });
  });

  it('has no more than four parts on their way, whatever the store takes', async () => {
    let [now, most] = [0, 0];
    at.wire.fault = async (request) => {
      if (!isPart(request)) return undefined;
      now += 1;
      most = Math.max(most, now);
      await new Promise((resolve) => setImmediate(resolve));
      now -= 1;
      return undefined;
    };
    await at.store.put('k', bytes(Buffer.alloc(32 * MIB)), PARTS);
    expect(most).toBeGreaterThan(0);
    expect(most).toBeLessThanOrEqual(4);
    expect(at.wire.requests.filter(isPart)).toHaveLength(7);
  });

  it('signs with the credentials of the environment where the storage names none', async () => {
    const { access_key_id: _id, secret_access_key: _key, ...parameters } = configOf(at);
    const runtime = storeRuntime(
      {},
      { AWS_ACCESS_KEY_ID: 'AKIAENV', AWS_SECRET_ACCESS_KEY: 'k', AWS_REGION: 'eu-west-3' },
    );
    await openStore(StorageConfig.parse(parameters), runtime).put('k', bytes('x'));
    expect(at.wire.requests.at(-1)?.headers.authorization).toMatch(/Credential=AKIAENV\/\d+\/eu-west-3\/s3\//);
  });

  it('reads what it may do without writing', async () => {
    expect(await at.store.access()).toEqual({ list: 'granted', read: 'granted', write: 'unknown', delete: 'unknown' });
    at.wire.fault = ({ url }) => (url.searchParams.has('list-type') ? refusal(403, 'AccessDenied') : undefined);
    expect(await at.store.access()).toMatchObject({ list: 'refused', read: 'granted' });
    at.wire.fault = () => refusal(404, 'NoSuchBucket');
    await expect(at.store.access()).rejects.toMatchObject({ code: 'RESOURCE_NOT_FOUND' });
    expect(at.wire.requests.every(({ method }) => method === 'GET')).toBe(true);
  });
});

function configOf(at: { wire: WireServer }): JsonObject {
  return {
    type: 's3',
    bucket: 'backups',
    prefix: 'p',
    endpoint: at.wire.origin,
    force_path_style: true,
    access_key_id: '${env:S3_KEY}',
    secret_access_key: '${env:S3_SECRET}',
  };
}

describe('a Google store', () => {
  let at: Opened<Awaited<ReturnType<typeof startGcs>>['wire']>;
  beforeEach(async () => {
    at = await open(startGcs);
  });
  afterEach(() => at.dispose());

  const isChunk = ({ method, url }: WireRequest): boolean => method === 'PUT' && url.searchParams.has('upload_id');

  it.each([
    ['a server fault', googleRefusal(503, 'backendError')],
    ['a cut connection', 'cut' as const],
    ['a lost answer', 'cut after' as const],
  ])('goes on with a resumable upload after %s at each of its chunks', async (_name, fault) => {
    const content = randomBytes(12 * MIB + 77);
    const seen = new Set<string>();
    at.wire.fault = (request) => {
      const range = String(request.headers['content-range']);
      if (!isChunk(request) || seen.has(range)) return undefined;
      seen.add(range);
      return fault;
    };
    await at.store.put('k', bytes(content), { ...PARTS, createOnly: true });
    expect(seen.size).toBe(3);
    expect((await buffer(await at.store.get('k'))).equals(content)).toBe(true);
  });

  it('calls the session off when the source fails', async () => {
    async function* failing(): AsyncIterable<Uint8Array> {
      yield* big();
      throw new Error('the source died');
    }
    await expect(at.store.put('dir/k', failing(), PARTS)).rejects.toThrow('the source died');
    expect(at.wire.sessions.size).toBe(0);
    expect(at.wire.objects.size).toBe(0);
  });

  it('keeps the class and the key of its configuration, and conceals the address of a session', async () => {
    const key = 'projects/p/locations/eu/keyRings/r/cryptoKeys/k';
    const { store, runtime } = at.again({ storage_class: 'NEARLINE', kms_key_name: key });
    await store.put('small', bytes('x'));
    await store.put('large', big(), PARTS);
    for (const name of ['p/small', 'p/large']) {
      expect(at.wire.objects.get(name)?.resource).toMatchObject({ storageClass: 'NEARLINE', kmsKeyName: key });
    }
    expect([...runtime.concealed]).toEqual(expect.arrayContaining([expect.stringMatching(/^session-/)]));
  });

  it.each<[string, WireAnswer, string]>([
    ['403', googleRefusal(403, 'forbidden'), 'INSUFFICIENT_PERMISSIONS'],
    ['a retention policy', googleRefusal(403, 'retentionPolicyNotMet'), 'INSUFFICIENT_PERMISSIONS'],
    ['a bucket that is not there', googleRefusal(404, 'notFound'), 'RESOURCE_NOT_FOUND'],
    ['a token that ended', googleRefusal(401, 'authError'), 'AUTHENTICATION_FAILED'],
    ['429', googleRefusal(429, 'rateLimitExceeded'), 'RATE_LIMITED'],
    ['a server fault', googleRefusal(503, 'backendError'), 'PROVIDER_UNAVAILABLE'],
  ])('names %s', async (_name, answer, code) => {
    at.wire.fault = ({ method }) => (method === 'POST' ? answer : undefined);
    const failed = await at.store.put('k', bytes('x')).catch((cause: unknown) => cause);
    expect(failed).toMatchObject({ code });
    expect(JSON.stringify((failed as HoldfastError).toJson())).not.toMatch(/free text|ya29/);
  });

  it('asks which rights there are', async () => {
    at.wire.permissions = ['storage.objects.list', 'storage.objects.get', 'storage.objects.create'];
    expect(await at.store.access()).toEqual({ list: 'granted', read: 'granted', write: 'granted', delete: 'refused' });
  });

  it('fails as retryable where the object is replaced while it is read', async () => {
    await at.store.put('k', bytes(randomBytes(20 * MIB)));
    const reader = await at.store.get('k');
    await at.store.put('k', bytes(randomBytes(20 * MIB)));
    await expect(buffer(reader)).rejects.toMatchObject({ code: 'INVALID_STATE' });
  });
});

describe('parts of an object', () => {
  it('grow where there may be no more than so many, and then hold terabytes', () => {
    const sizes = Array.from({ length: 10_000 }, (_, index) => partSizeOf(index, 8 * MIB, 10_000));
    expect(sizes.slice(0, 5000).every((size) => size === 8 * MIB)).toBe(true);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeGreaterThan(4e12);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(4096 * MIB);
    expect(partSizeOf(1_000_000, 8 * MIB, undefined)).toBe(8 * MIB);
  });

  it.each([
    [0, [0]],
    [9, [9]],
    [10, [10]],
    [11, [10, 1]],
    [30, [10, 10, 10]],
  ])('are cut of %i bytes with the last one known as such', async (length, expected) => {
    const parts: number[] = [];
    const last: boolean[] = [];
    const source = bytes(Buffer.alloc(Math.min(length, 4)), Buffer.alloc(Math.max(0, length - 4)));
    for await (const part of inParts(source, () => 10)) {
      parts.push(part.content.byteLength);
      last.push(part.last);
    }
    expect(parts).toEqual(expected);
    expect(last).toEqual(expected.map((_, index) => index === expected.length - 1));
  });
});
