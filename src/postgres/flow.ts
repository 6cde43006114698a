import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * Starts work on items as they come, at most `most` at a time, and gives the results in the order of the items. The source
 * is read on while results wait for their reader. Its error, or that of the work, comes where its result would have.
 */
export async function* ahead<Item, Result>(
  source: AsyncIterable<Item>,
  start: (item: Item) => Promise<Result>,
  most: number,
): AsyncGenerator<Result> {
  const started: Promise<Result>[] = [];
  let wakeReader = (): void => {};
  let wakeSource = (): void => {};
  let state = 'open' as 'open' | 'ended' | 'closed';
  const reading = (async () => {
    for await (const item of source) {
      if (state === 'closed') return;
      const result = start(item);
      // Whoever takes it sees its failure; nobody may be left to.
      result.catch(() => {});
      started.push(result);
      wakeReader();
      while (state === 'open' && started.length >= most) {
        await new Promise<void>((resolve) => {
          wakeSource = resolve;
        });
      }
    }
  })();
  const ended = (): void => {
    if (state === 'open') state = 'ended';
    wakeReader();
  };
  reading.then(ended, ended);
  try {
    for (;;) {
      const next = started[0];
      if (next !== undefined) {
        const result = await next;
        started.shift();
        wakeSource();
        yield result;
      } else if (state === 'open') {
        await new Promise<void>((resolve) => {
          wakeReader = resolve;
        });
      } else {
        await reading;
        return;
      }
    }
  } finally {
    state = 'closed';
    wakeSource();
    await Promise.allSettled([reading, ...started]);
  }
}

/** Bytes of a piece of a long stream: what one frame of zstd is made of. */
export const PIECE = 1024 * 1024;
/** Enough for everything under way in a few streams at once. */
const MOST_SPARE = 16;
const spare: ArrayBuffer[] = [];
const lent = new WeakSet<ArrayBufferLike>();

/** Lends the memory of one piece: new memory for each would cost a tenth of the time of a backup. */
export function borrowPiece(): Buffer {
  const memory = spare.pop() ?? new ArrayBuffer(PIECE);
  lent.add(memory);
  return Buffer.from(memory);
}

/** Takes the memory of a piece back from whoever had it last; what was not lent is left alone. */
export function givePieceBack({ buffer }: Buffer): void {
  if (lent.delete(buffer) && spare.length < MOST_SPARE) spare.push(buffer as ArrayBuffer);
}

/**
 * Cuts a stream into pieces of one size; the last may be shorter, and of an empty stream it is empty. `take` gives the memory
 * for a piece. What the stream gives is copied, but for borrowed pieces of that size, which pass to the reader as they are.
 */
export async function* pieces(
  source: AsyncIterable<Uint8Array>,
  size: number,
  take: () => Buffer = () => Buffer.allocUnsafeSlow(size),
): AsyncGenerator<Buffer> {
  let piece: Buffer | undefined;
  let used = 0;
  let count = 0;
  for await (const chunk of source) {
    if (used === 0 && chunk.byteLength === size && lent.has(chunk.buffer)) {
      sweep(size);
      count += 1;
      yield Buffer.from(chunk.buffer, chunk.byteOffset, size);
      continue;
    }
    for (let at = 0; at < chunk.byteLength; ) {
      piece ??= take();
      const part = chunk.subarray(at, at + size - used);
      piece.set(part, used);
      used += part.byteLength;
      at += part.byteLength;
      if (used < size) continue;
      sweep(size);
      count += 1;
      yield piece;
      piece = undefined;
      used = 0;
    }
  }
  if (used > 0 || count === 0) yield (piece ?? Buffer.alloc(0)).subarray(0, used);
}

/** Bytes of a stream after which the memory of those before is taken back. */
const SWEEP_EVERY = 4 * 1024 * 1024;
let sweepYoung: ((options: { type: 'minor' }) => void) | undefined;
let passed = 0;

/**
 * Takes back the memory of chunks that are done with. They die young, but what they hold lies outside of the heap, where it
 * makes the collector look through everything that the process has, again and again: a fifth of the time of a backup.
 */
function sweep(bytes: number): void {
  passed += bytes;
  if (passed < SWEEP_EVERY) return;
  passed = 0;
  if (sweepYoung === undefined) {
    setFlagsFromString('--expose-gc');
    sweepYoung = runInNewContext('gc') as NonNullable<typeof sweepYoung>;
    setFlagsFromString('--no-expose-gc');
  }
  sweepYoung({ type: 'minor' });
}
