import { availableParallelism } from 'node:os';
import { pipeline, Readable } from 'node:stream';
import * as zlib from 'node:zlib';
import { HoldfastError } from '../core/errors.ts';
import { damaged } from './errors.ts';
import { ahead, borrowPiece, givePieceBack, PIECE, pieces } from './flow.ts';

/** Memory for results: where a whole frame has room, zstd writes it without a copy of its own. */
const RESULTS = 4 * 1024 * 1024;
const CHUNK = 512 * 1024;
const MAGIC = 0xfd2fb528;
const SKIPPABLE = 0x184d2a50;

/**
 * Makes sure that this Node can compress with zstd.
 * @throws {HoldfastError} NOT_SUPPORTED before Node 22.15
 */
export function requireZstd(): void {
  if (typeof zlib.createZstdCompress !== 'function') {
    throw new HoldfastError(
      'NOT_SUPPORTED',
      `Node.js ${process.versions.node} has no zstd, which backups are compressed with`,
      {
        hint: 'Run Holdfast with Node.js 22.15 or newer.',
      },
    );
  }
}

/**
 * Compresses a stream as zstd frames one behind the other, each with its checksum, several at a time. An empty stream gives
 * one empty frame. A cut between two frames cannot be seen in them: what holds them must know its length.
 */
export async function* compress(plain: AsyncIterable<Uint8Array>, level: number): AsyncGenerator<Buffer> {
  // The highest levels take a hundred megabytes for each frame that they work on.
  const count = level > 9 ? 2 : Math.min(availableParallelism(), 4) + 1;
  const lanes = Array.from({ length: count }, () => new Lane(level));
  const frames = pieces(plain, PIECE, borrowPiece);
  const waiting = [...lanes];
  const one = async (frame: Buffer): Promise<Buffer> => {
    const lane = waiting.shift() as Lane;
    try {
      return await lane.compress(frame);
    } finally {
      waiting.push(lane);
      givePieceBack(frame);
    }
  };
  try {
    yield* ahead(frames, one, lanes.length);
  } finally {
    for (const lane of lanes) lane.close();
  }
}

/** One compressor, used for one frame after the other. */
class Lane {
  readonly #stream: zlib.ZstdCompress;
  readonly #parts: Buffer[] = [];

  constructor(level: number) {
    const { ZSTD_c_compressionLevel, ZSTD_c_checksumFlag, ZSTD_c_windowLog, ZSTD_e_end } = zlib.constants;
    const params = {
      [ZSTD_c_compressionLevel]: level,
      [ZSTD_c_checksumFlag]: 1,
      // It has nothing to look back at beyond its frame, and would take memory for that.
      [ZSTD_c_windowLog]: Math.log2(PIECE),
    };
    // Each write is ended as a frame of its own.
    this.#stream = zlib.createZstdCompress({ params, chunkSize: RESULTS, flush: ZSTD_e_end });
    this.#stream.on('data', (part: Buffer) => this.#parts.push(part));
  }

  compress(frame: Buffer): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#stream.once('error', reject);
      this.#stream.write(frame, () => {
        this.#stream.off('error', reject);
        const parts = this.#parts.splice(0);
        resolve(parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts));
      });
    });
  }

  close(): void {
    this.#stream.destroy();
  }
}

/**
 * Decompresses zstd, however many frames it is made of: Node's own decompressor ends quietly with the first of them.
 * @throws {HoldfastError} INTEGRITY_FAILED for damage, and for an end in the middle of a frame or before the first
 */
export async function* decompress(compressed: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const input = new Input(compressed);
  let frames = 0;
  try {
    for (; (await input.peek(1)) !== undefined; frames += 1) {
      yield* through(pieces(frameOf(input), CHUNK), zlib.createZstdDecompress({ chunkSize: CHUNK }));
    }
  } catch (cause) {
    const { code } = (cause ?? {}) as NodeJS.ErrnoException;
    throw /^(ZSTD|Z)_/.test(String(code)) ? unreadable(cause) : cause;
  } finally {
    await input.close();
  }
  if (frames === 0) throw unreadable();
}

function unreadable(cause?: unknown): HoldfastError {
  return damaged('the compressed content of the backup is damaged or cut off', cause);
}

/** Bytes of a stream, looked at before they are taken. */
class Input {
  readonly #iterator: AsyncIterator<Uint8Array>;
  #held: Uint8Array = new Uint8Array();

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#iterator = source[Symbol.asyncIterator]();
  }

  /** Gives the next bytes without taking them; undefined where the stream ends before. */
  async peek(size: number): Promise<Buffer | undefined> {
    while (this.#held.byteLength < size) {
      const { done, value } = await this.#iterator.next();
      if (done) return undefined;
      this.#held = this.#held.byteLength === 0 ? value : Buffer.concat([this.#held, value]);
    }
    return Buffer.from(this.#held.buffer, this.#held.byteOffset, size);
  }

  /** Takes so many bytes, in the pieces that they come in. */
  async *take(size: number): AsyncGenerator<Uint8Array> {
    for (let left = size; left > 0; ) {
      if ((await this.peek(1)) === undefined) throw unreadable();
      const part = this.#held.subarray(0, left);
      this.#held = this.#held.subarray(part.byteLength);
      left -= part.byteLength;
      yield part;
    }
  }

  async close(): Promise<void> {
    await this.#iterator.return?.();
  }
}

/**
 * Takes exactly one frame.
 * @see RFC 8878, 3.1 "Frames"
 */
async function* frameOf(input: Input): AsyncGenerator<Uint8Array> {
  const begin = await input.peek(5);
  if (begin === undefined) throw unreadable();
  const magic = begin.readUInt32LE(0);
  if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE) {
    const size = (await input.peek(8))?.readUInt32LE(4);
    if (size === undefined) throw unreadable();
    yield* input.take(8 + size);
    return;
  }
  if (magic !== MAGIC) throw unreadable();
  const descriptor = begin.readUInt8(4);
  const oneSegment = (descriptor & 0x20) !== 0;
  const contentSize = [oneSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
  const dictionary = [0, 1, 2, 4][descriptor & 3] ?? 0;
  yield* input.take(5 + (oneSegment ? 0 : 1) + dictionary + contentSize);
  for (let last = false; !last; ) {
    const header = (await input.peek(3))?.readUIntLE(0, 3);
    if (header === undefined) throw unreadable();
    last = (header & 1) === 1;
    const repeats = ((header >> 1) & 3) === 1;
    yield* input.take(3 + (repeats ? 1 : header >> 3));
  }
  if ((descriptor & 4) !== 0) yield* input.take(4);
}

/** Sends an iterable through a transform; ending the iteration early ends the source too. */
async function* through(source: AsyncIterable<Uint8Array>, transform: zlib.ZstdDecompress): AsyncGenerator<Uint8Array> {
  let fault: unknown;
  // The callback keeps the source's own error: the transform would report only that it was destroyed.
  const done = new Promise<void>((resolve) => {
    pipeline(Readable.from(source, { objectMode: false }), transform, (cause) => {
      fault = cause;
      resolve();
    });
  });
  try {
    for await (const chunk of transform) yield chunk as Uint8Array;
  } catch (cause) {
    await done;
    throw fault ?? cause;
  } finally {
    transform.destroy();
    await done;
  }
}
