import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { StorageConfig } from '../../src/storage/config.ts';
import { localStore } from '../../src/storage/local.ts';
import { openStore } from '../../src/storage/open.ts';
import type { ObjectStore } from '../../src/storage/storage.ts';
import { startAzurite, startGcs, startS3, startS3rver, storeRuntime, type TestStore } from '../support/stores.ts';

interface Place {
  /** Opens a place of its own, that nothing was written to. */
  open(): ObjectStore;
  dispose(): Promise<void>;
}

/** What differs between stores, so that the suite can say what each of them does. */
interface Facts {
  readonly start: () => Promise<Place>;
  /** Whether of two create-only writers one wins. */
  readonly atomicCreate: boolean;
  /** Whether lists come in the order of the keys; s3rver gives folders first, which S3 itself does not. */
  readonly ordered?: false;
  /** Whether a write shows as unfinished from its first byte on. */
  readonly showsRunning: boolean;
}

const local = async (): Promise<Place> => {
  const root = await mkdtemp(join(tmpdir(), 'holdfast-store-'));
  let count = 0;
  return {
    open: () => localStore(join(root, `repository-${++count}`)),
    dispose: () => rm(root, { recursive: true, force: true }),
  };
};

const remote = (start: () => Promise<TestStore<unknown>>) => async (): Promise<Place> => {
  const { parameters, secrets, dispose } = await start();
  let count = 0;
  return {
    open: () => openStore(StorageConfig.parse({ ...parameters, prefix: `place-${++count}` }), storeRuntime(secrets)),
    dispose,
  };
};

/** Every store must pass the same suite; a new driver adds one line here. */
const stores: Record<string, Facts> = {
  local: { start: local, atomicCreate: true, showsRunning: true },
  's3 (own wire)': { start: remote(startS3), atomicCreate: true, showsRunning: false },
  's3 (s3rver)': { start: remote(startS3rver), atomicCreate: false, ordered: false, showsRunning: false },
  gcs: { start: remote(startGcs), atomicCreate: true, showsRunning: false },
  'azure-blob (azurite)': { start: remote(startAzurite), atomicCreate: true, showsRunning: false },
};

const MIB = 1024 * 1024;

async function* bytes(...parts: (string | Uint8Array)[]): AsyncIterable<Uint8Array> {
  for (const part of parts) yield typeof part === 'string' ? Buffer.from(part) : part;
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

const keys = async (items: AsyncIterable<{ key: string }>) => (await collect(items)).map(({ key }) => key);

for (const [name, { start, atomicCreate, ordered, showsRunning }] of Object.entries(stores)) {
  describe(`${name} store`, () => {
    let place: Place;
    let store: ObjectStore;
    beforeAll(async () => {
      place = await start();
    });
    beforeEach(() => {
      store = place.open();
    });
    afterAll(() => place.dispose());

    it('gives back what was put, byte for byte, whole and in ranges', async () => {
      const content = Buffer.alloc(3_000_000, 'holdfast!');
      const size = await store.put('a/b/payload.bin', bytes(content.subarray(0, 7), content.subarray(7)));
      expect(size).toBe(content.length);
      expect((await buffer(await store.get('a/b/payload.bin'))).equals(content)).toBe(true);
      expect(String(await buffer(await store.get('a/b/payload.bin', { start: 9, end: 11 })))).toBe('hol');
      expect((await buffer(await store.get('a/b/payload.bin', { start: content.length - 4 }))).length).toBe(4);
      expect(await store.head('a/b/payload.bin')).toMatchObject({ key: 'a/b/payload.bin', size_bytes: content.length });
    });

    it('keeps an empty object', async () => {
      expect(await store.put('empty', bytes())).toBe(0);
      expect((await store.head('empty'))?.size_bytes).toBe(0);
    });

    it('replaces an object whole, while an open reader keeps the version it opened', async () => {
      await store.put('k', bytes('first'));
      const reader = await store.get('k');
      await store.put('k', bytes('second version'));
      expect(String(await buffer(reader))).toBe('first');
      expect(String(await buffer(await store.get('k')))).toBe('second version');
    });

    it.skipIf(!atomicCreate)('lets one of many create-only writers win and keeps its content', async () => {
      const tries = await Promise.allSettled(
        Array.from({ length: 8 }, (_, index) => store.put('lock', bytes(`writer ${index}`), { createOnly: true })),
      );
      const winner = tries.findIndex((result) => result.status === 'fulfilled');
      expect(tries.filter((result) => result.status === 'fulfilled')).toHaveLength(1);
      for (const result of tries) {
        if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'RESOURCE_EXISTS' });
      }
      expect(String(await buffer(await store.get('lock')))).toBe(`writer ${winner}`);
      expect(await keys(store.unfinished(''))).toEqual([]);
    });

    it('refuses to create what is there, and says whether it can decide between two writers', async () => {
      await store.put('k', bytes('first'), { createOnly: true });
      await expect(store.put('k', bytes('second'), { createOnly: true })).rejects.toMatchObject({
        code: 'RESOURCE_EXISTS',
      });
      expect(String(await buffer(await store.get('k')))).toBe('first');
      expect(await store.capabilities()).toEqual({ atomicCreate });
      expect(await keys(store.list(''))).toEqual(['k']);
    });

    it('keeps an object of several parts, and gives any range of it', async () => {
      const content = randomBytes(21 * MIB + 12_345);
      async function* source(): AsyncIterable<Uint8Array> {
        for (let at = 0; at < content.length; at += 700_001) yield content.subarray(at, at + 700_001);
      }
      expect(await store.put('big/one', source(), { createOnly: true, partSize: 5 * MIB })).toBe(content.length);
      expect(await store.head('big/one')).toMatchObject({ size_bytes: content.length });
      expect((await buffer(await store.get('big/one'))).equals(content)).toBe(true);
      const range = { start: 7 * MIB + 1, end: 17 * MIB };
      const part = await buffer(await store.get('big/one', range));
      expect(part.equals(content.subarray(range.start, range.end + 1))).toBe(true);
      expect((await buffer(await store.get('big/one', { start: content.length }))).length).toBe(0);
    });

    it('shows nothing of a large write whose stream fails, and leaves no parts', async () => {
      async function* failing(): AsyncIterable<Uint8Array> {
        yield Buffer.alloc(12 * MIB);
        throw new Error('the source died');
      }
      await expect(store.put('dir/k', failing(), { partSize: 5 * MIB })).rejects.toThrow('the source died');
      expect(await store.head('dir/k')).toBeUndefined();
      expect(await keys(store.list(''))).toEqual([]);
    });

    it('names its place, and says what may be done there', async () => {
      expect(store.location).not.toBe('');
      expect(store.sameMachine).toBe(true);
      expect(await store.access()).toMatchObject({ list: 'granted', read: 'granted' });
      await store.put('a/b', bytes('x'));
      expect(await store.access()).toMatchObject({ list: 'granted', read: 'granted' });
    });

    it('shows nothing of a write whose stream fails', async () => {
      async function* failing(): AsyncIterable<Uint8Array> {
        yield Buffer.alloc(100_000);
        throw new Error('the source died');
      }
      await expect(store.put('dir/k', failing())).rejects.toThrow('the source died');
      expect(await store.head('dir/k')).toBeUndefined();
      expect(await keys(store.list(''))).toEqual([]);
      expect(await keys(store.unfinished(''))).toEqual([]);
    });

    it('shows nothing of a write that is aborted, and shows a running one as unfinished only', async () => {
      const controller = new AbortController();
      const seen: { listed: string[]; unfinished: string[] }[] = [];
      async function* slow(): AsyncIterable<Uint8Array> {
        yield Buffer.alloc(10);
        seen.push({ listed: await keys(store.list('')), unfinished: await keys(store.unfinished('')) });
        controller.abort();
        yield Buffer.alloc(10);
      }
      await expect(store.put('dir/k', slow(), { signal: controller.signal })).rejects.toMatchObject({
        name: 'AbortError',
      });
      expect(seen).toEqual([{ listed: [], unfinished: showsRunning ? ['dir/k'] : [] }]);
      expect(await keys(store.list(''))).toEqual([]);
    });

    it('lists by prefix, in the order of the keys', async () => {
      for (const key of ['v1/s/b/2/m', 'v1/s/b/1/m', 'v1/s/b/1/a', 'v1/s/b-x', 'v1/other', 'v2/z']) {
        await store.put(key, bytes('x'));
      }
      const listed = await keys(store.list('v1/s/'));
      expect(ordered === false ? listed.sort() : listed).toEqual([
        'v1/s/b-x',
        'v1/s/b/1/a',
        'v1/s/b/1/m',
        'v1/s/b/2/m',
      ]);
      expect(await keys(store.list('v1/s/b/1/'))).toEqual(['v1/s/b/1/a', 'v1/s/b/1/m']);
      expect(await keys(store.list('v1/o'))).toEqual(['v1/other']);
      expect(await keys(store.list('nothing/'))).toEqual([]);
    });

    it('deletes once or twice, and then knows nothing of the object', async () => {
      await store.put('d/e/f', bytes('x'));
      await store.delete('d/e/f');
      await store.delete('d/e/f');
      expect(await store.head('d/e/f')).toBeUndefined();
      await expect(store.get('d/e/f')).rejects.toMatchObject({ code: 'RESOURCE_NOT_FOUND' });
      expect(await keys(store.list(''))).toEqual([]);
    });

    it.each(['../x', 'a/../../x', '/etc/passwd', 'a//b', '.hidden', 'a/.x', '', 'a b', 'a\0', 'ü', 'x'.repeat(201)])(
      'refuses the key %j in every method',
      async (key) => {
        const refused = { code: 'INVALID_PARAMETER' };
        await expect(store.put(key, bytes('x'))).rejects.toMatchObject(refused);
        await expect(store.get(key)).rejects.toMatchObject(refused);
        await expect(store.head(key)).rejects.toMatchObject(refused);
        await expect(store.delete(key)).rejects.toMatchObject(refused);
      },
    );
  });
}

describe('local store on disk', () => {
  it('removes what a crash left, and only that', async () => {
    const root = await mkdtemp(join(tmpdir(), 'holdfast-store-'));
    const store = localStore(root);
    await store.put('s/1/whole', bytes('x'));
    await store.put('s/2/whole', bytes('x'));
    await writeFile(join(root, 's/1/.payload.0123456789ab.part'), 'half');
    await writeFile(join(root, 's/2/.payload.0123456789ab.part'), 'half');
    expect(await keys(store.unfinished('s/'))).toEqual(['s/1/payload', 's/2/payload']);
    await store.discardUnfinished('s/1/');
    expect(await keys(store.unfinished('s/'))).toEqual(['s/2/payload']);
    expect(await keys(store.list('s/'))).toEqual(['s/1/whole', 's/2/whole']);
    await rm(root, { recursive: true });
  });

  it('keeps others out: folders 0700, files 0600', async () => {
    const root = join(await mkdtemp(join(tmpdir(), 'holdfast-store-')), 'repository');
    await localStore(root).put('a/b', bytes('x'));
    expect((await stat(join(root, 'a'))).mode & 0o777).toBe(0o700);
    expect((await stat(join(root, 'a/b'))).mode & 0o777).toBe(0o600);
    expect(await readFile(join(root, 'a/b'), 'utf8')).toBe('x');
  });

  it('removes folders that became empty, never the root', async () => {
    const root = await mkdtemp(join(tmpdir(), 'holdfast-store-'));
    const store = localStore(root);
    await store.put('a/b/c', bytes('x'));
    await store.delete('a/b/c');
    expect(await readdir(root)).toEqual([]);
  });

  it.skipIf(process.getuid?.() === 0)('says when it may not write (skipped as root, who always may)', async () => {
    const root = await mkdtemp(join(tmpdir(), 'holdfast-store-'));
    await chmod(root, 0o500);
    await expect(localStore(root).put('a', bytes('x'))).rejects.toMatchObject({ code: 'INSUFFICIENT_PERMISSIONS' });
  });

  it('says when the path is a file', async () => {
    const root = join(await mkdtemp(join(tmpdir(), 'holdfast-store-')), 'file');
    await writeFile(root, 'x');
    await expect(localStore(root).put('a/b', bytes('x'))).rejects.toMatchObject({ code: 'RESOURCE_NOT_FOUND' });
  });
});
