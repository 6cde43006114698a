import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { localStore } from '../../src/storage/local.ts';
import type { ObjectStore } from '../../src/storage/storage.ts';

interface Opened {
  store: ObjectStore;
  dispose(): Promise<void>;
}

/** Every store must pass the same suite; a new driver adds one line here. */
const stores: Record<string, () => Promise<Opened>> = {
  local: async () => {
    const root = await mkdtemp(join(tmpdir(), 'holdfast-store-'));
    return { store: localStore(join(root, 'repository')), dispose: () => rm(root, { recursive: true }) };
  },
};

async function* bytes(...parts: (string | Uint8Array)[]): AsyncIterable<Uint8Array> {
  for (const part of parts) yield typeof part === 'string' ? Buffer.from(part) : part;
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

const keys = async (items: AsyncIterable<{ key: string }>) => (await collect(items)).map(({ key }) => key);

for (const [name, openStore] of Object.entries(stores)) {
  describe(`${name} store`, () => {
    let store: ObjectStore;
    let dispose: () => Promise<void>;
    beforeEach(async () => {
      ({ store, dispose } = await openStore());
    });
    afterEach(() => dispose());

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

    it('lets one of many create-only writers win and keeps its content', async () => {
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
      expect(seen).toEqual([{ listed: [], unfinished: ['dir/k'] }]);
      expect(await keys(store.list(''))).toEqual([]);
    });

    it('lists by prefix, in the order of the keys', async () => {
      for (const key of ['v1/s/b/2/m', 'v1/s/b/1/m', 'v1/s/b/1/a', 'v1/s/b-x', 'v1/other', 'v2/z']) {
        await store.put(key, bytes('x'));
      }
      expect(await keys(store.list('v1/s/'))).toEqual(['v1/s/b-x', 'v1/s/b/1/a', 'v1/s/b/1/m', 'v1/s/b/2/m']);
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
