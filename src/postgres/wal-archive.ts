import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { HoldfastError } from '../core/errors.ts';
import type { Runtime } from '../core/runtime.ts';
import { cleanText } from '../core/text.ts';
import type { StoredObject } from '../storage/storage.ts';
import { damaged } from './errors.ts';
import { LAYOUT } from './manifest.ts';
import type { Repository } from './repository.ts';
import { type Keys, type Sealing, seal, Tally, unseal } from './seal.ts';
import {
  type Ancestor,
  HEADER_BYTES,
  parseHistory,
  parseSegmentHeader,
  parseWalName,
  Segments,
  timelineName,
  type WalFile,
} from './wal.ts';

/** What `wal.json` says of the server whose log lies here. */
export interface WalSource {
  readonly system_identifier: string;
  /** Bytes. */
  readonly segment_size: number;
}

export interface ArchivedFile {
  readonly file: WalFile;
  readonly object: StoredObject;
}

export interface StoreOptions {
  readonly sealing: Sealing;
  /** Of zstd. */
  readonly level: number;
  readonly signal?: AbortSignal | undefined;
}

/** `there`: the same content had been archived before. */
export type Stored = { readonly outcome: 'stored' | 'there'; readonly bytes: number };

/** A run of segments without a hole, first and last both included. */
export interface Run {
  readonly first: number;
  readonly last: number;
}

/** What an archive holds, in a size that does not grow with the number of segments. */
export interface Survey {
  readonly segments: Segments;
  readonly systemIdentifier: string;
  /** Runs without a hole, in order, by timeline. */
  readonly runs: ReadonlyMap<number, readonly Run[]>;
  /** Ancestors, oldest first, of every timeline whose history file is here. */
  readonly histories: ReadonlyMap<number, readonly Ancestor[]>;
  /** Segments that were stored while they were still being written, and not in whole since. */
  readonly partials: readonly string[];
  readonly count: number;
  readonly bytes: number;
}

interface Found {
  readonly file: WalFile;
  readonly key: string;
  readonly body: Readable;
}

const SUMS = 'wal-sha256';

/**
 * The write-ahead log of one source in its store. Every file appears whole or not at all and never changes, but for the
 * segment that is still being written, which goes under a name of its own. The plain SHA-256 of each segment lies beside
 * the archive, in `wal-sha256/`, where it can be read without a key; it is written first, so that of two writers of one
 * name with different content one is refused.
 */
export class WalArchive {
  readonly repository: Repository;
  readonly #runtime: Pick<Runtime, 'assertMayWrite' | 'log'>;
  readonly #root: string;

  constructor(repository: Repository, runtime: Pick<Runtime, 'assertMayWrite' | 'log'>) {
    this.repository = repository;
    this.#runtime = runtime;
    this.#root = `${LAYOUT}/${repository.sourceId}`;
  }

  /** Says whose log lies here; undefined while there is none. */
  async source(): Promise<WalSource | undefined> {
    const bytes = await this.#read(`${this.#root}/wal.json`);
    if (bytes === undefined) return undefined;
    try {
      const { system_identifier, segment_size } = JSON.parse(bytes.toString('utf8')) as WalSource;
      if (!/^\d{1,20}$/.test(system_identifier)) throw new Error('no system identifier');
      return { system_identifier, segment_size: new Segments(segment_size).size };
    } catch (cause) {
      throw damaged('wal.json, which says whose write-ahead log this is, is damaged', cause);
    }
  }

  /**
   * Makes sure that this is the archive of one server, and of this one.
   * @throws {HoldfastError} INTEGRITY_FAILED where another server's log or backups lie here
   */
  async claim(source: WalSource, name: string, now: Date): Promise<void> {
    const known = await this.source();
    if (known !== undefined) {
      assertSame(known.system_identifier, source.system_identifier);
      if (known.segment_size !== source.segment_size) {
        throw damaged('the segments of this server have another size than those in the archive');
      }
      return;
    }
    const described = await this.repository.source();
    if (described?.system_identifier) assertSame(described.system_identifier, source.system_identifier);
    this.#runtime.assertMayWrite('beginning an archive of the write-ahead log');
    if (described === undefined) {
      const { system_identifier } = source;
      await this.repository.describeSource({ layout: LAYOUT, name, system_identifier, created_at: now.toISOString() });
    }
    if (!(await this.#create(`${this.#root}/wal.json`, Buffer.from(`${JSON.stringify(source)}\n`)))) {
      // Another began at the same moment: it must be the same server.
      await this.claim(source, name, now);
    }
  }

  /**
   * Archives one file of the server under its name. What is there already is compared, never replaced.
   * @param path its name is the name in the archive
   * @throws {HoldfastError} INTEGRITY_FAILED where other content lies under this name or the file is no whole segment of
   * this name; INVALID_PARAMETER for a name that PostgreSQL does not archive
   */
  async put(path: string, options: StoreOptions): Promise<Stored> {
    const name = basename(path);
    const file = fileNamed(name);
    if (file.kind === 'history' || file.kind === 'backup') return this.#putPlain(file, await readFile(path));
    const source = await this.source();
    if (source === undefined) throw new HoldfastError('INTERNAL', 'the archive was written before it was claimed');
    await assertIsSegment(path, file, source);
    const sha256 = await hashOf(path);
    this.#runtime.assertMayWrite('archiving a segment of the write-ahead log');
    const sumKey = this.#sumKey(name);
    if (!(await this.#create(sumKey, Buffer.from(`${sha256}  ${name}\n`)))) {
      const known = await this.sumOf(name);
      if (known !== sha256) throw differs(name);
      const there = await this.#head(file, options.sealing);
      if (there !== undefined) return { outcome: 'there', bytes: there.size_bytes };
    }
    return this.#putSealed(file, path, sha256, options, true);
  }

  /**
   * Stores the segment that is still being written, in place of what was stored of it before.
   * @param path a file that pg_receivewal is writing, `<segment>.partial`
   */
  async putPartial(path: string, options: StoreOptions): Promise<Stored> {
    const file = fileNamed(basename(path));
    if (file.kind !== 'partial') throw new HoldfastError('INTERNAL', 'only a partial segment is stored as one');
    this.#runtime.assertMayWrite('storing the segment that is being written');
    return this.#putSealed(file, path, undefined, options, false);
  }

  /** Removes what was stored of a segment while it was being written; the whole one must be there. Idempotent. */
  async dropPartial(segment: string): Promise<void> {
    this.#runtime.assertMayWrite('removing a partial segment whose whole one is stored');
    for (const key of this.#keys(fileNamed(`${segment}.partial`))) await this.repository.store.delete(key);
  }

  async #putPlain(file: WalFile, content: Buffer): Promise<Stored> {
    if (file.kind === 'history') parseHistory(content.toString('utf8'), file.timeline);
    this.#runtime.assertMayWrite('archiving a file of the write-ahead log');
    const key = this.#folder(file, file.name);
    if (await this.#create(key, content)) return { outcome: 'stored', bytes: content.length };
    if (!(await this.#read(key))?.equals(content)) throw differs(file.name);
    return { outcome: 'there', bytes: content.length };
  }

  async #putSealed(
    file: WalFile,
    path: string,
    sha256: string | undefined,
    { sealing, level, signal }: StoreOptions,
    createOnly: boolean,
  ): Promise<Stored> {
    const tally = new Tally();
    async function* plain(): AsyncGenerator<Uint8Array> {
      yield* tally.tap(createReadStream(path, { highWaterMark: 1024 * 1024 }));
      // Thrown inside the stream, so that what does not fit its sum is never seen in the store.
      if (sha256 !== undefined && tally.sha256 !== sha256) {
        throw new HoldfastError('INVALID_STATE', `${file.name} changed while it was read; nothing was archived`);
      }
    }
    const key = this.#keys(file, sealing)[0] as string;
    const { store } = this.repository;
    try {
      const bytes = await store.put(key, seal(plain(), sealing, level), { createOnly, signal });
      const stored = await store.head(key);
      if (stored?.size_bytes !== bytes) throw damaged(`the store has ${file.name} in another size than was sent`);
      return { outcome: 'stored', bytes };
    } catch (cause) {
      if (!(cause instanceof HoldfastError && cause.code === 'RESOURCE_EXISTS')) throw cause;
      const there = await this.#head(file, sealing);
      return { outcome: 'there', bytes: there?.size_bytes ?? 0 };
    }
  }

  /**
   * Opens one file as the server wrote it; undefined where the archive does not have it. Its end comes only when all that
   * went by is proven by its size and sum.
   * @param partial also takes what was stored of a segment that was never finished
   * @throws {HoldfastError} INTEGRITY_FAILED, AUTHENTICATION_FAILED where no key opens it
   */
  async open(
    name: string,
    { keys, partial = false }: { readonly keys: Keys; readonly partial?: boolean | undefined },
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const file = fileNamed(name);
    const found =
      (await this.#find(file)) ??
      (partial && file.kind === 'segment' ? await this.#find(fileNamed(`${name}.partial`)) : undefined);
    return found === undefined ? undefined : this.#proven(found, keys);
  }

  async *#proven({ file, key, body }: Found, keys: Keys): AsyncGenerator<Uint8Array> {
    const tally = new Tally();
    try {
      const sealed = /\.zst(\.age)?$/.test(key);
      yield* tally.tap(sealed ? unseal(body, key.endsWith('.age'), keys) : body);
    } finally {
      body.destroy();
    }
    if (file.kind !== 'segment' && file.kind !== 'partial') return;
    const size = (await this.source())?.segment_size;
    if (size !== undefined && tally.bytes !== size) throw damaged(`${file.name} in the archive is no whole segment`);
    const known = await this.sumOf(file.name);
    if (known !== undefined && known !== tally.sha256) {
      throw damaged(`the content of ${file.name} in the archive is not what was archived`);
    }
  }

  /**
   * Brings one file back, whole and proven, or not at all: it is written beside the target and renamed.
   * @returns false where the archive does not have it
   * @throws {HoldfastError} as `open`
   */
  async get(
    name: string,
    target: string,
    options: { readonly keys: Keys; readonly partial?: boolean | undefined; readonly signal?: AbortSignal | undefined },
  ): Promise<boolean> {
    const plain = await this.open(name, options);
    if (plain === undefined) return false;
    // The same at each try, so that what a killed one leaves is overwritten by the next.
    const temporary = `${target}.holdfast`;
    try {
      const output = await open(temporary, 'w', 0o600);
      try {
        for await (const chunk of plain) {
          options.signal?.throwIfAborted();
          await output.writeFile(chunk);
        }
        await output.sync();
      } finally {
        await output.close();
      }
      await rename(temporary, target);
      const folder = await open(dirname(target), 'r');
      await folder.sync().finally(() => folder.close());
      return true;
    } catch (cause) {
      await rm(temporary, { force: true }).catch(() => {});
      throw cause;
    }
  }

  /** The plain SHA-256 of an archived segment; undefined for one that has none. */
  async sumOf(name: string): Promise<string | undefined> {
    const bytes = await this.#read(this.#sumKey(name));
    return bytes === undefined ? undefined : /^[0-9a-f]{64}/.exec(bytes.toString('utf8'))?.[0];
  }

  /** Whether a file is archived under this name. */
  async has(name: string): Promise<boolean> {
    return (await this.#head(fileNamed(name))) !== undefined;
  }

  /** Everything in the archive, ordered by name; with `under`, only what lies on this timeline. */
  async *list(under?: number): AsyncGenerator<ArchivedFile> {
    const prefix = `${this.#root}/wal/${under === undefined ? '' : `${timelineName(under)}/`}`;
    for await (const object of this.repository.store.list(prefix)) {
      const name = object.key.slice(object.key.lastIndexOf('/') + 1).replace(/\.zst(\.age)?$/, '');
      const file = parseWalName(name);
      if (file !== undefined) yield { file, object };
    }
  }

  /** Removes a file and what is known of it. For who decides about retention; a history file is never to be removed. */
  async remove(name: string): Promise<void> {
    const file = fileNamed(name);
    if (file.kind === 'history') throw new HoldfastError('INTERNAL', 'a history file is never removed');
    this.#runtime.assertMayWrite('removing a file of the write-ahead log');
    for (const key of this.#keys(file)) await this.repository.store.delete(key);
    await this.repository.store.delete(this.#sumKey(name));
  }

  /** Looks through the whole archive, once; undefined while there is none. */
  async survey(): Promise<Survey | undefined> {
    const source = await this.source();
    if (source === undefined) return undefined;
    const segments = new Segments(source.segment_size);
    const runs = new Map<number, { first: number; last: number }[]>();
    const histories = new Map<number, Ancestor[]>();
    const partials: string[] = [];
    let last: string | undefined;
    let count = 0;
    let bytes = 0;
    for await (const { file, object } of this.list()) {
      bytes += object.size_bytes;
      if (file.kind === 'history') {
        const text = await this.#read(object.key);
        if (text !== undefined) histories.set(file.timeline, parseHistory(text.toString('utf8'), file.timeline));
      } else if (file.kind === 'partial') {
        if (last !== file.segment) partials.push(file.segment);
      } else if (file.kind === 'segment' && last !== file.name) {
        last = file.name;
        count += 1;
        if (partials.at(-1) === file.name) partials.pop();
        const { timeline, number } = segments.parse(file.name);
        const own = runs.get(timeline) ?? [];
        const run = own.at(-1);
        if (run?.last === number - 1) run.last = number;
        else own.push({ first: number, last: number });
        runs.set(timeline, own);
      }
    }
    return { segments, systemIdentifier: source.system_identifier, runs, histories, partials, count, bytes };
  }

  /** Keys that a file may have, the likeliest first: sealing may have been changed since it was written. */
  #keys(file: WalFile, sealing?: Sealing): string[] {
    if (file.kind === 'history' || file.kind === 'backup') return [this.#folder(file, file.name)];
    const suffixes = sealing?.scheme === 'none' ? ['.zst', '.zst.age'] : ['.zst.age', '.zst'];
    return suffixes.map((suffix) => this.#folder(file, `${file.name}${suffix}`));
  }

  #folder(file: WalFile, name: string): string {
    return `${this.#root}/wal/${timelineName(file.timeline)}/${name}`;
  }

  #sumKey(name: string): string {
    return `${this.#root}/${SUMS}/${name.slice(0, 8)}/${name}`;
  }

  async #head(file: WalFile, sealing?: Sealing): Promise<StoredObject | undefined> {
    for (const key of this.#keys(file, sealing)) {
      const found = await this.repository.store.head(key);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  async #find(file: WalFile): Promise<Found | undefined> {
    for (const key of this.#keys(file)) {
      try {
        return { file, key, body: await this.repository.store.get(key) };
      } catch (cause) {
        if (!(cause instanceof HoldfastError && cause.code === 'RESOURCE_NOT_FOUND')) throw cause;
      }
    }
    return undefined;
  }

  /** Stores a small object; false where one lies there already. */
  async #create(key: string, content: Buffer): Promise<boolean> {
    try {
      await this.repository.store.put(key, Readable.from([content]), { createOnly: true });
      return true;
    } catch (cause) {
      if (cause instanceof HoldfastError && cause.code === 'RESOURCE_EXISTS') return false;
      throw cause;
    }
  }

  async #read(key: string): Promise<Buffer | undefined> {
    try {
      return await buffer(await this.repository.store.get(key, { start: 0, end: 1024 * 1024 }));
    } catch (cause) {
      if (cause instanceof HoldfastError && cause.code === 'RESOURCE_NOT_FOUND') return undefined;
      throw cause;
    }
  }
}

function fileNamed(name: string): WalFile {
  const file = parseWalName(name);
  if (file !== undefined) return file;
  throw new HoldfastError('INVALID_PARAMETER', `'${cleanText(name, 60)}' is no file of a write-ahead log archive`, {
    hint: 'PostgreSQL gives the name as %f: a segment of 24 hexadecimal digits, a .history, a .partial or a .backup file.',
  });
}

function assertSame(known: string, found: string): void {
  if (known === found) return;
  throw new HoldfastError(
    'INTEGRITY_FAILED',
    `this source belongs to the server with system identifier ${cleanText(known, 24)}; this one is ${cleanText(found, 24)}`,
    {
      hint: 'Nothing was stored. Give each server an entity with a source_id of its own; after pg_upgrade or initdb a server is another one, too.',
    },
  );
}

function differs(name: string): HoldfastError {
  return new HoldfastError('INTEGRITY_FAILED', `other content is archived under the name ${name}`, {
    hint: 'Nothing was replaced. Two servers archive into this source, or a copy was started with archiving on: stop one, and give it a source_id of its own.',
  });
}

async function assertIsSegment(path: string, file: WalFile, source: WalSource): Promise<void> {
  const header = await readSegmentHeader(path);
  assertSame(source.system_identifier, header.systemIdentifier);
  const { size } = await stat(path);
  const segments = new Segments(source.segment_size);
  const { number } = segments.parse(file.name.slice(0, 24));
  if (size !== segments.size || header.start !== segments.start(number)) {
    throw damaged(`${file.name} is not the segment that its name says, or not all of it`);
  }
}

/**
 * Reads the header of a segment file.
 * @throws {HoldfastError} INTEGRITY_FAILED, RESOURCE_NOT_FOUND, INSUFFICIENT_PERMISSIONS
 */
export async function readSegmentHeader(path: string) {
  const file = await open(path, 'r').catch((cause: NodeJS.ErrnoException) => {
    const name = cleanText(basename(path), 60);
    if (cause.code === 'ENOENT') throw new HoldfastError('RESOURCE_NOT_FOUND', `there is no file ${name} to archive`);
    throw new HoldfastError('INSUFFICIENT_PERMISSIONS', `the file ${name} cannot be read`, {
      hint: 'archive_command runs as the account of the PostgreSQL server; run this as the same account.',
      cause,
    });
  });
  try {
    const { buffer: bytes, bytesRead } = await file.read(Buffer.alloc(HEADER_BYTES), 0, HEADER_BYTES, 0);
    return parseSegmentHeader(bytes.subarray(0, bytesRead));
  } finally {
    await file.close();
  }
}

/** The SHA-256 of a file. */
export async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
