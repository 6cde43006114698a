import { Readable } from 'node:stream';
import { HoldfastError } from '../core/errors.ts';
import type { Runtime } from '../core/runtime.ts';
import { checkedPrefix, exists, notFound, segments } from './keys.ts';
import type { ByteRange, ObjectStore, PutOptions, StoreAccess, StoreCapabilities, StoredObject } from './storage.ts';

/** How one object is to be written. */
export interface Writing {
  readonly createOnly: boolean;
  /** Kept with the object: by it a writer whose answer was lost knows its own object again. */
  readonly mark: string;
}

/** An object that is being written in parts. */
export interface Upload {
  /** Stores a part, counted from 1. May be sent again by the transport: the same number replaces itself. */
  part(number: number, content: Buffer, last: boolean, signal: AbortSignal): Promise<void>;
  /** Makes the object of its parts. @throws {HoldfastError} RESOURCE_EXISTS */
  complete(): Promise<void>;
  /** Removes what was stored of it. */
  abort(): Promise<void>;
}

export interface Piece {
  readonly content: Buffer;
  /** Of the whole object. */
  readonly size: number;
  readonly version: string;
}

/** What one cloud does in its own way. Keys and prefixes are whole, with the prefix of the store. */
export interface Driver {
  /** `Amazon S3`. */
  readonly title: string;
  /** How many parts may be sent at once. */
  readonly parallel: number;
  /** The most parts that an object may have, where that could be reached. */
  readonly mostParts?: number | undefined;
  /** @throws {HoldfastError} RESOURCE_EXISTS */
  store(key: string, content: Buffer, writing: Writing): Promise<void>;
  begin(key: string, writing: Writing): Promise<Upload>;
  /**
   * Reads bytes, both ends included, of one version where that is given. What lies beyond the end is left out.
   * @throws {HoldfastError} RESOURCE_NOT_FOUND, INVALID_STATE where the version is another
   */
  read(
    key: string,
    range: { start: number; end: number },
    version: string | undefined,
    signal: AbortSignal,
  ): Promise<Piece>;
  stat(key: string): Promise<(Omit<StoredObject, 'key'> & { readonly mark: string | undefined }) | undefined>;
  list(prefix: string): AsyncIterable<StoredObject>;
  remove(key: string): Promise<void>;
  unfinished(prefix: string): AsyncIterable<StoredObject>;
  discardUnfinished(prefix: string): Promise<void>;
  access(prefix: string): Promise<StoreAccess>;
}

export interface RemoteOptions {
  readonly location: string;
  readonly sameMachine: boolean;
  /** Without a slash at its end; may be empty. */
  readonly prefix: string;
  readonly partSize: number | undefined;
}

const MIB = 1024 * 1024;
const PART = 8 * MIB;
/** What is read at once; as much again is read ahead. */
const PIECE = 8 * MIB;
const SLICE = 256 * 1024;
/** The kind of the notes in which the outcome of the create-only probe is kept, and for how long it is believed. */
const NOTE = 'store-create-only';
const BELIEVED_MS = 7 * 86_400_000;

/** Makes an object store of a cloud's driver, which is loaded at first use. */
export function remoteStore(load: () => Promise<Driver>, runtime: Runtime, options: RemoteOptions): ObjectStore {
  const { location, sameMachine } = options;
  const root = options.prefix === '' ? '' : `${options.prefix}/`;
  let loading: Promise<Driver> | undefined;
  const opened = (): Promise<Driver> => {
    loading ??= load().catch((cause: unknown) => {
      loading = undefined;
      throw cause;
    });
    return loading;
  };
  const whole = (key: string): string => root + segments(key).join('/');
  const mark = (): string => runtime.random(12).toString('hex');

  async function* below(objects: AsyncIterable<StoredObject>): AsyncIterable<StoredObject> {
    for await (const object of objects) yield { ...object, key: object.key.slice(root.length) };
  }

  let asked: Promise<boolean> | undefined;
  const isAtomic = (driver: Driver): Promise<boolean> => {
    asked ??= askAtomic(driver).catch((cause: unknown) => {
      asked = undefined;
      throw cause;
    });
    return asked;
  };

  const noted = async (): Promise<boolean | undefined> => {
    const now = runtime.now().getTime();
    for (const note of await runtime.ledger.list(NOTE)) {
      if (note['location'] !== location || typeof note['atomic'] !== 'boolean') continue;
      if (now - Date.parse(String(note['at'])) < BELIEVED_MS) return note['atomic'];
    }
    return undefined;
  };

  /** Some stores take the condition of a create-only write and do not keep it: a probe that is written twice tells. */
  const askAtomic = async (driver: Driver): Promise<boolean> => {
    const known = await noted();
    if (known !== undefined) return known;
    const key = `${root}holdfast-probe-${mark()}`;
    const write = async (): Promise<'stored' | 'exists' | 'no such condition'> => {
      const writing = { createOnly: true, mark: mark() };
      try {
        await settled(driver, key, writing, () => driver.store(key, Buffer.from('probe\n'), writing));
        return 'stored';
      } catch (cause) {
        if (cause instanceof HoldfastError && cause.code === 'RESOURCE_EXISTS') return 'exists';
        if (cause instanceof HoldfastError && cause.code === 'NOT_SUPPORTED') return 'no such condition';
        throw cause;
      }
    };
    try {
      const atomic = (await write()) === 'stored' && (await write()) === 'exists';
      if (!atomic) runtime.log.warn('the store does not keep create-only writes apart', { location });
      await runtime.ledger.add(NOTE, { location, atomic, at: runtime.now().toISOString() });
      return atomic;
    } finally {
      await driver.remove(key).catch(() => runtime.log.warn('a probe object could not be removed', { location }));
    }
  };

  return {
    location,
    sameMachine,

    async capabilities(): Promise<StoreCapabilities> {
      return { atomicCreate: asked === undefined ? await noted() : await asked.catch(() => undefined) };
    },

    access: async () => (await opened()).access(root),

    async put(key: string, body: AsyncIterable<Uint8Array>, given: PutOptions = {}): Promise<number> {
      const name = whole(key);
      const { createOnly = false, signal } = given;
      runtime.assertMayWrite('storing an object');
      signal?.throwIfAborted();
      const driver = await opened();
      const writing: Writing = { createOnly: createOnly && (await isAtomic(driver)), mark: mark() };
      // Better refused now than after everything was sent; where the store cannot decide, this look is all there is.
      if (createOnly && (await driver.stat(name)) !== undefined) throw exists(key);
      try {
        return await send(driver, runtime, name, body, writing, given.partSize ?? options.partSize ?? PART, signal);
      } catch (cause) {
        signal?.throwIfAborted();
        if (cause instanceof HoldfastError && cause.code === 'RESOURCE_EXISTS') throw exists(key, cause);
        throw cause;
      }
    },

    async get(key: string, range: ByteRange = { start: 0 }): Promise<Readable> {
      const name = whole(key);
      const driver = await opened();
      const last = range.end ?? Number.MAX_SAFE_INTEGER;
      const controller = new AbortController();
      const first = await driver
        .read(name, { start: range.start, end: Math.min(last, range.start + PIECE - 1) }, undefined, controller.signal)
        .catch((cause: unknown) => {
          throw isMissing(cause) ? notFound(key, cause) : cause;
        });
      const pieces = readOn(driver, key, name, first, range.start, Math.min(last, first.size - 1), controller);
      return Readable.from(pieces, { objectMode: false, highWaterMark: SLICE });
    },

    async head(key: string): Promise<StoredObject | undefined> {
      const name = whole(key);
      const found = await (await opened()).stat(name);
      return found && { key, size_bytes: found.size_bytes, modified_at: found.modified_at };
    },

    async *list(prefix: string) {
      const name = root + checkedPrefix(prefix);
      yield* below((await opened()).list(name));
    },

    async *unfinished(prefix: string) {
      const name = root + checkedPrefix(prefix);
      yield* below((await opened()).unfinished(name));
    },

    async delete(key: string): Promise<void> {
      const name = whole(key);
      runtime.assertMayWrite('deleting an object');
      await (await opened()).remove(name);
    },

    async discardUnfinished(prefix: string): Promise<void> {
      const name = root + checkedPrefix(prefix);
      runtime.assertMayWrite('removing unfinished objects');
      await (await opened()).discardUnfinished(name);
    },
  };
}

function isMissing(cause: unknown): boolean {
  // A place that is not there names itself; what is left is the object.
  return cause instanceof HoldfastError && cause.code === 'RESOURCE_NOT_FOUND' && !isPlace(cause);
}

function isPlace(cause: HoldfastError): boolean {
  return /^(?:NoSuchBucket|ContainerNotFound)$/.test(cause.provider?.code ?? '');
}

/**
 * Makes an object appear, once. The answer may be lost although it did, and the transport may have asked twice: then the
 * object itself tells, by its mark, whether it is ours.
 */
async function settled(driver: Driver, key: string, { mark }: Writing, commit: () => Promise<void>): Promise<void> {
  try {
    await commit();
  } catch (cause) {
    const found = await driver.stat(key).catch(() => undefined);
    if (found?.mark !== mark) throw cause;
  }
}

/** Sends a stream as one object, in one request where it is small, else in parts; gives its size. */
async function send(
  driver: Driver,
  runtime: Pick<Runtime, 'log'>,
  key: string,
  body: AsyncIterable<Uint8Array>,
  writing: Writing,
  partSize: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  const stop = new AbortController();
  const either = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
  const running = new Map<Promise<void>, number>();
  let upload: Upload | undefined;
  let failure: { readonly cause: unknown } | undefined;
  let sent = 0;
  let number = 0;
  try {
    for await (const { content, last } of inParts(body, (index) => partSizeOf(index, partSize, driver.mostParts))) {
      signal?.throwIfAborted();
      if (failure !== undefined) throw failure.cause;
      sent += content.byteLength;
      number += 1;
      if (last && upload === undefined) {
        await settled(driver, key, writing, () => driver.store(key, content, writing));
        return sent;
      }
      upload ??= await driver.begin(key, writing);
      const part = upload.part(number, content, last, either).catch((cause: unknown) => {
        failure ??= { cause };
        stop.abort();
      });
      running.set(part, content.byteLength);
      void part.then(() => running.delete(part));
      // Four parts of the usual size, or one of whatever size.
      const held = (): number => [...running.values()].reduce((sum, size) => sum + size, 0);
      while (running.size >= driver.parallel || (running.size > 0 && held() + content.byteLength > partSize * 4)) {
        await Promise.race(running.keys());
      }
    }
    await Promise.all(running.keys());
    if (failure !== undefined) throw failure.cause;
    signal?.throwIfAborted();
    const whole = upload as Upload;
    // From here on nothing is called off: what is begun is brought to an end that is known.
    await settled(driver, key, writing, () => whole.complete());
    return sent;
  } catch (cause) {
    stop.abort();
    await Promise.all(running.keys());
    await upload?.abort().catch((fault: unknown) => {
      runtime.log.warn('the parts of an unfinished object could not be removed', { key, reason: String(fault) });
    });
    throw cause;
  }
}

/**
 * The size of one part. Stores take no more than some thousand parts of an object and its size is not known before its
 * end, so after the first half parts grow: 10,000 parts that begin with 8 MiB hold more than 4 TiB.
 */
export function partSizeOf(index: number, first: number, most: number | undefined): number {
  if (most === undefined) return first;
  const steps = Math.max(0, Math.floor((index - most / 2) / (most / 20)) + 1);
  return index < most / 2 ? first : Math.min(first * 2 ** steps, 4096 * MIB);
}

/** Cuts a stream into parts; the last one says so, and is all there is of a short stream. */
export async function* inParts(
  body: AsyncIterable<Uint8Array>,
  sizeOf: (index: number) => number,
): AsyncGenerator<{ content: Buffer; last: boolean }> {
  let chunks: Uint8Array[] = [];
  let held = 0;
  let index = 0;
  let size = sizeOf(index);
  for await (const chunk of body) {
    let rest = chunk;
    // A part is given only once more has come, so that the last one is known as such.
    while (held + rest.byteLength > size) {
      const cut = size - held;
      chunks.push(rest.subarray(0, cut));
      yield { content: Buffer.concat(chunks), last: false };
      rest = rest.subarray(cut);
      chunks = [];
      held = 0;
      index += 1;
      size = sizeOf(index);
    }
    chunks.push(rest);
    held += rest.byteLength;
  }
  yield { content: Buffer.concat(chunks), last: true };
}

/** Gives an object piece by piece, the next one being read meanwhile, all of one version. */
async function* readOn(
  driver: Driver,
  key: string,
  name: string,
  first: Piece,
  start: number,
  last: number,
  controller: AbortController,
): AsyncGenerator<Buffer> {
  const fetchPiece = (from: number): Promise<Buffer> => {
    const end = Math.min(last, from + PIECE - 1);
    const piece = driver.read(name, { start: from, end }, first.version, controller.signal).then(
      ({ content }) => whole(driver, content, end - from + 1),
      (cause: unknown) => {
        throw isMissing(cause) || isChanged(cause) ? changed(key, cause) : cause;
      },
    );
    // Nobody may be waiting for it any more when it fails.
    piece.catch(() => {});
    return piece;
  };
  try {
    const expected = Math.max(0, Math.min(last + 1, start + PIECE) - start);
    let content = whole(driver, first.content, expected);
    let from = start + expected;
    while (true) {
      const next = from <= last ? fetchPiece(from) : undefined;
      for (let at = 0; at < content.byteLength; at += SLICE) yield content.subarray(at, at + SLICE);
      if (next === undefined) return;
      content = await next;
      from += content.byteLength;
    }
  } finally {
    controller.abort();
  }
}

function whole(driver: Driver, content: Buffer, expected: number): Buffer {
  if (content.byteLength === expected) return content;
  throw new HoldfastError('PROVIDER_UNAVAILABLE', `${driver.title} gave less of an object than was asked for`);
}

function isChanged(cause: unknown): boolean {
  return cause instanceof HoldfastError && cause.code === 'INVALID_STATE' && cause.details?.['changed'] === true;
}

/** What a driver throws for a version that is not the present one. */
export function otherVersion(cause: unknown): HoldfastError {
  return new HoldfastError('INVALID_STATE', 'the object is another version', { cause, details: { changed: true } });
}

function changed(key: string, cause: unknown): HoldfastError {
  return new HoldfastError('INVALID_STATE', `the object '${key}' was replaced or deleted while it was being read`, {
    hint: 'Nothing is known to be damaged. List the snapshots and call again.',
    cause,
  });
}
