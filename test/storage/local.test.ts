import { execFile } from 'node:child_process';
import { mkdtemp, open, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { localStore } from '../../src/storage/local.ts';

const MIB = 1024 * 1024;

describe('a directory as a store', () => {
  let root: string;
  /** What every open file inherits from: Node shows the class of its file handles nowhere else. */
  let handles: { datasync(): Promise<void> };
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'hf-local-'));
    const file = await open(root, 'r');
    handles = Object.getPrototypeOf(file);
    await file.close();
  });
  afterEach(() => vi.restoreAllMocks());
  afterAll(() => rm(root, { recursive: true, force: true }));

  async function* long(): AsyncGenerator<Buffer> {
    const part = Buffer.alloc(16 * MIB, 7);
    for (let i = 0; i < 10; i += 1) yield part;
  }

  it('brings a long object to the disk while it is written', async () => {
    const early = vi.spyOn(handles, 'datasync');
    const store = localStore(join(root, 'early'));
    expect(await store.put('long', long())).toBe(160 * MIB);
    expect(early).toHaveBeenCalled();
    expect(await store.head('long')).toMatchObject({ size_bytes: 160 * MIB });
    await store.delete('long');
  });

  it('keeps nothing of what the disk refused on the way, though it takes the rest', async () => {
    vi.spyOn(handles, 'datasync').mockRejectedValueOnce(
      Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO', syscall: 'fdatasync' }),
    );
    const store = localStore(join(root, 'refused'));
    await expect(store.put('long', long())).rejects.toMatchObject({ code: 'PROVIDER_UNAVAILABLE' });
    expect(await readdir(join(root, 'refused'))).toEqual([]);
  });

  it('says that it is full, and keeps nothing of what did not fit', async () => {
    // A limit on the size of files fails as a full disk does, in a process of its own.
    const script = `
      import { localStore } from ${JSON.stringify(join(import.meta.dirname, '../../src/storage/local.ts'))};
      const store = localStore(process.argv[1]);
      const body = (size) => (async function* () { for (let i = 0; i < size; i += 1) yield Buffer.alloc(65536); })();
      await store.put('fits', body(2));
      const { code, hint } = await store.put('does-not', body(64)).catch((cause) => cause);
      console.log(JSON.stringify({ code, hint }));`;
    const command = 'ulimit -f 1000 && exec "$0" --input-type=module-typescript -e "$1" "$2"';
    const place = join(root, 'full');
    const { stdout } = await promisify(execFile)('sh', ['-c', command, process.execPath, script, place], {
      env: { ...process.env, NODE_COMPILE_CACHE: undefined },
    });
    expect(JSON.parse(stdout)).toEqual({ code: 'QUOTA_EXCEEDED', hint: expect.stringContaining('Free space') });
    expect(await readdir(place)).toEqual(['fits']);
  });
});
