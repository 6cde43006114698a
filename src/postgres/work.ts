import type { Progress } from '../core/operation.ts';
import type { Runtime } from '../core/runtime.ts';
import { formatBytes, formatDuration } from '../core/time.ts';
import type { Binaries } from './binaries.ts';
import { type Child, type ChildOptions, startChild } from './child.ts';
import { type Connection, programEnvironment } from './connection.ts';
import type { Repository } from './repository.ts';
import type { Keys } from './seal.ts';

/** What every piece of work on a server and its backups needs. */
export interface Work {
  readonly runtime: Pick<Runtime, 'now' | 'random' | 'assertMayWrite' | 'workDirectory' | 'log'>;
  readonly connection: Connection;
  readonly repository: Repository;
  readonly keys: Keys;
  /** Tables that the statistics hold larger than this are counted, not fingerprinted. */
  readonly maxRows: number;
  readonly signal?: AbortSignal | undefined;
  progress(progress: Progress): void;
}

/** Gives a function the environment for client programs on a database; the pass file is gone afterwards. */
export async function withPrograms<T>(
  work: Pick<Work, 'runtime' | 'signal'>,
  connection: Connection,
  use: (options: ChildOptions) => Promise<T>,
): Promise<T> {
  const environment = await programEnvironment(connection, await work.runtime.workDirectory());
  try {
    return await use({ env: environment.env, secrets: [connection.password], signal: work.signal });
  } finally {
    await environment.dispose();
  }
}

/**
 * Sends bytes into a program's stdin. The program sees the end of its input only after the source has ended well, so it
 * never takes a broken stream for a whole one. Reads the source to its end even where a content program stops early.
 */
export async function feed(child: Child, source: AsyncIterable<Uint8Array>): Promise<void> {
  let open = true;
  let wake = (): void => {};
  const closed = (): void => {
    open = false;
    wake();
  };
  void child.ended.then(closed);
  child.stdin.once('close', closed);
  child.stdin.on('drain', () => wake());
  child.stdout.resume();
  try {
    for await (const chunk of source) {
      if (!open) {
        // Reading on after a clean end proves the rest of the stream too.
        if ((await child.ended).code !== 0) break;
      } else if (!child.stdin.write(chunk)) {
        await new Promise<void>((resolve) => {
          wake = resolve;
          if (!open) resolve();
        });
      }
    }
    child.stdin.end();
    await child.succeed();
  } catch (cause) {
    await child.stop();
    throw cause;
  }
}

/** Starts pg_restore on its stdin. */
export function startRestore(binaries: Binaries, args: readonly string[], options: ChildOptions): Child {
  return startChild(binaries.pgRestore, args, { ...options, stdin: true });
}

/** Turns bytes of an expected whole into a percentage that is 100 only at the end. */
export function percentOf(done: number, whole: number): number | undefined {
  return whole > 0 ? Math.min(99, Math.floor((done / whole) * 100)) : undefined;
}

/**
 * Reports how far the bytes of an expected whole have come, whenever that is another percentage: done, whole, percent and,
 * once it can be told, how long the rest will take.
 */
export function meter(work: Pick<Work, 'progress' | 'runtime'>, whole: number, doing: string): (bytes: number) => void {
  const begun = work.runtime.now().getTime();
  let shown = -1;
  return (bytes) => {
    const percent = percentOf(bytes, whole);
    if (percent === undefined || percent === shown) return;
    shown = percent;
    const seconds = (work.runtime.now().getTime() - begun) / 1000;
    // The first moments say little of the rest, and behind an estimate there is nothing left to tell.
    const known = seconds >= 2 && percent >= 2 && bytes < whole;
    const left = known ? `, about ${formatDuration(Math.ceil((seconds * (whole - bytes)) / bytes))} left` : '';
    const part = bytes > whole ? '' : ` of ${formatBytes(whole)}, ${percent} %${left}`;
    work.progress({ percent, message: `${doing}: ${formatBytes(bytes)}${part}` });
  };
}
