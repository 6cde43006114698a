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

/** Cuts a stream into pieces of one size; the last, which may be empty, is shorter. `take` gives the memory for a piece. */
export async function* pieces(
  source: AsyncIterable<Uint8Array>,
  size: number,
  take: () => Buffer = () => Buffer.allocUnsafeSlow(size),
): AsyncGenerator<Buffer> {
  let piece = take();
  let used = 0;
  for await (const chunk of source) {
    for (let at = 0; at < chunk.byteLength; ) {
      if (used === size) {
        yield piece;
        piece = take();
        used = 0;
      }
      const part = chunk.subarray(at, at + size - used);
      piece.set(part, used);
      used += part.byteLength;
      at += part.byteLength;
    }
  }
  yield piece.subarray(0, used);
}
