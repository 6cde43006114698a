import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import {
  access,
  constants,
  type FileHandle,
  link,
  mkdir,
  open,
  readdir,
  rename,
  rm,
  rmdir,
  stat,
} from 'node:fs/promises';
import { dirname, join, posix } from 'node:path';
import type { Readable } from 'node:stream';
import { HoldfastError, isAbort } from '../core/errors.ts';
import { checkedPrefix, exists, notFound, segments } from './keys.ts';
import type { ByteRange, ObjectStore, PutOptions, StoreAccess, StoredObject } from './storage.ts';

/** No key begins a segment with a dot, so a file that does can only be a write that has not ended. */
const UNFINISHED = /^\.(.+)\.[0-9a-f]{12}\.part$/;

/** Opens a directory as an object store; it is created, with mode 0700, at the first write. */
export function localStore(root: string): ObjectStore {
  const pathOf = (key: string): string => join(root, ...segments(key));

  async function* walk(prefix: string): AsyncIterable<{ key: string; path: string; name: string }> {
    // A prefix is a folder and, perhaps, the beginning of a name in it.
    const cut = prefix.lastIndexOf('/') + 1;
    const folder = prefix.slice(0, cut);
    yield* walkFolder(folder, folder === '' ? root : pathOf(folder.slice(0, -1)), prefix.slice(cut));
  }

  async function* walkFolder(
    folder: string,
    path: string,
    start: string,
  ): AsyncIterable<{ key: string; path: string; name: string }> {
    const entries = await readdir(path, { withFileTypes: true }).catch((cause) => {
      if (isMissing(cause)) return [];
      throw toStoreError(cause);
    });
    const plainName = (name: string): string => UNFINISHED.exec(name)?.[1] ?? name;
    entries.sort((a, b) => (sortName(a) < sortName(b) ? -1 : 1));
    for (const entry of entries) {
      if (!plainName(entry.name).startsWith(start)) continue;
      const below = join(path, entry.name);
      if (entry.isDirectory()) yield* walkFolder(`${folder}${entry.name}/`, below, '');
      else if (entry.isFile()) yield { key: `${folder}${plainName(entry.name)}`, path: below, name: entry.name };
    }
  }

  async function* entries(prefix: string, unfinished: boolean): AsyncIterable<StoredObject> {
    for await (const { key, path, name } of walk(prefix)) {
      if (UNFINISHED.test(name) !== unfinished) continue;
      const facts = await statOrUndefined(path);
      if (facts) yield { key, size_bytes: facts.size, modified_at: facts.mtime };
    }
  }

  return {
    location: root,
    sameMachine: true,
    capabilities: async () => ({ atomicCreate: true }),
    access: () => accessTo(root),

    async put(key: string, body: AsyncIterable<Uint8Array>, options: PutOptions = {}): Promise<number> {
      const path = pathOf(key);
      const part = join(dirname(path), `.${posix.basename(key)}.${randomBytes(6).toString('hex')}.part`);
      let file: FileHandle | undefined;
      try {
        options.signal?.throwIfAborted();
        await mkdir(dirname(path), { recursive: true, mode: 0o700 });
        if (options.createOnly && (await statOrUndefined(path))) throw exists(key);
        file = await open(part, 'wx', 0o600);
        const early = new EarlySync(file);
        let size = 0;
        for await (const chunk of body) {
          options.signal?.throwIfAborted();
          await writeAll(file, chunk);
          size += chunk.byteLength;
          early.written(size);
        }
        await early.ended();
        options.signal?.throwIfAborted();
        // The content must be on the disk before the name is, or a power cut leaves a whole-looking empty file.
        await file.sync();
        await file.close();
        file = undefined;
        if (options.createOnly) await link(part, path);
        else await rename(part, path);
        await syncFolders(dirname(path), root);
        return size;
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code === 'EEXIST') throw exists(key, cause);
        throw toStoreError(cause);
      } finally {
        await file?.close().catch(() => {});
        await rm(part, { force: true }).catch(() => {});
      }
    },

    async get(key: string, range?: ByteRange): Promise<Readable> {
      try {
        const file = await open(pathOf(key), 'r');
        return createReadStream('', {
          fd: file,
          highWaterMark: 256 * 1024,
          ...(range === undefined
            ? {}
            : { start: range.start, ...(range.end === undefined ? {} : { end: range.end }) }),
        });
      } catch (cause) {
        if (isMissing(cause)) throw notFound(key, cause);
        throw toStoreError(cause);
      }
    },

    async head(key: string): Promise<StoredObject | undefined> {
      const facts = await statOrUndefined(pathOf(key));
      return facts?.isFile() ? { key, size_bytes: facts.size, modified_at: facts.mtime } : undefined;
    },

    list: (prefix) => entries(checkedPrefix(prefix), false),
    unfinished: (prefix) => entries(checkedPrefix(prefix), true),

    async delete(key: string): Promise<void> {
      const path = pathOf(key);
      try {
        await rm(path, { force: true });
        await removeEmptyFolders(dirname(path), root);
      } catch (cause) {
        throw toStoreError(cause);
      }
    },

    async discardUnfinished(prefix: string): Promise<void> {
      for await (const { path, name } of walk(checkedPrefix(prefix))) {
        if (!UNFINISHED.test(name)) continue;
        await rm(path, { force: true }).catch((cause) => {
          throw toStoreError(cause);
        });
        await removeEmptyFolders(dirname(path), root);
      }
    },
  };
}

/** Sorts folders as their keys do: `a/b` comes after `a-b`, since `/` is part of the key. */
function sortName(entry: { name: string; isDirectory(): boolean }): string {
  return entry.isDirectory() ? `${entry.name}/` : (UNFINISHED.exec(entry.name)?.[1] ?? entry.name);
}

async function writeAll(file: FileHandle, chunk: Uint8Array): Promise<void> {
  let offset = 0;
  while (offset < chunk.byteLength) {
    const { bytesWritten } = await file.write(chunk, offset, chunk.byteLength - offset);
    offset += bytesWritten;
  }
}

const SYNC_EVERY = 64 * 1024 * 1024;

/** Brings a long file to the disk while it is written, so that little is left to wait for at its end. */
class EarlySync {
  readonly #file: FileHandle;
  #begun = 0;
  #running: Promise<void> | undefined;
  #failure: { readonly cause: unknown } | undefined;

  constructor(file: FileHandle) {
    this.#file = file;
  }

  written(size: number): void {
    if (this.#running !== undefined || size - this.#begun < SYNC_EVERY) return;
    this.#begun = size;
    this.#running = this.#file.datasync().then(
      () => {
        this.#running = undefined;
      },
      (cause: unknown) => {
        // The system tells of a page that it could not write once; it stays in `#running`, and nothing follows.
        this.#failure = { cause };
      },
    );
  }

  /** Throws what the disk did not take. */
  async ended(): Promise<void> {
    await this.#running;
    if (this.#failure !== undefined) throw this.#failure.cause;
  }
}

/** Makes a new name durable: the folder that holds it, and those that may have been created on the way. */
async function syncFolders(folder: string, root: string): Promise<void> {
  for (let path = folder; ; path = dirname(path)) {
    const handle = await open(path, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
    if (path === root || path === dirname(path)) return;
  }
}

async function removeEmptyFolders(folder: string, root: string): Promise<void> {
  for (let path = folder; path !== root && path.startsWith(root); path = dirname(path)) {
    const removed = await rmdir(path).then(
      () => true,
      () => false,
    );
    if (!removed) return;
  }
}

/** The rights on a directory, or on the one that it would be created in. */
async function accessTo(root: string): Promise<StoreAccess> {
  for (let path = root; ; path = dirname(path)) {
    const may = async (mode: number) =>
      access(path, mode).then(
        () => 'granted' as const,
        (cause: unknown) => {
          if (isMissing(cause)) return undefined;
          return 'refused' as const;
        },
      );
    const read = await may(constants.R_OK | constants.X_OK);
    if (read === undefined && path !== dirname(path)) continue;
    const write = (await may(constants.W_OK | constants.X_OK)) ?? 'refused';
    return { list: read ?? 'refused', read: read ?? 'refused', write, delete: write };
  }
}

async function statOrUndefined(path: string) {
  return stat(path).catch((cause) => {
    if (isMissing(cause)) return undefined;
    throw toStoreError(cause);
  });
}

function isMissing(cause: unknown): boolean {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  return code === 'ENOENT' || code === 'ENOTDIR';
}

function toStoreError(cause: unknown): unknown {
  if (cause instanceof HoldfastError || isAbort(cause)) return cause;
  const { code, syscall } = (cause ?? {}) as NodeJS.ErrnoException;
  if (code === undefined || syscall === undefined) return cause;
  const options = { cause, provider: { code } };
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') {
    return new HoldfastError('INSUFFICIENT_PERMISSIONS', 'the storage directory cannot be read or written', {
      ...options,
      hint: 'Give the account that runs Holdfast read and write rights on the directory in storage.path.',
    });
  }
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG') {
    return new HoldfastError('QUOTA_EXCEEDED', 'the storage directory is full', {
      ...options,
      hint: 'Free space where storage.path is, then call again. Nothing half-written was kept.',
    });
  }
  if (code === 'ENOTDIR' || code === 'EISDIR' || code === 'ENOENT') {
    return new HoldfastError('RESOURCE_NOT_FOUND', 'the storage path is not a directory', options);
  }
  return new HoldfastError('PROVIDER_UNAVAILABLE', 'the storage directory failed', options);
}
