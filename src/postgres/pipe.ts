import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { borrowPiece, PIECE } from './flow.ts';

/** Pieces that are read before somebody wants them. */
const AHEAD = 5;

/** A pipe of the operating system, which is read into memory that we choose. */
export interface Pipe {
  /** The descriptor for the program that writes. */
  readonly writingEnd: number;
  /** Closes our copy of that: the pipe ends when the program ends. */
  closeWritingEnd(): void;
  /** Gives what was written in borrowed pieces, the last of them shorter, to its end; throws where it was closed before. */
  read(): AsyncGenerator<Buffer>;
  /** Ends reading: a program that still writes is told so. */
  close(): void;
}

/**
 * Opens a pipe; undefined where the system has no `mkfifo` or no room for one. Programs such as pg_dump write a few kilobytes at a time. By
 * Node's own way (a socket) each of them becomes a chunk with memory of its own, which costs as much as compressing it.
 */
export function openPipe(): Pipe | undefined {
  const ends = openEnds();
  if (ends === undefined) return undefined;
  const { reading, writing } = ends;
  const full: Buffer[] = [];
  let piece = borrowPiece();
  let used = 0;
  let wake = (): void => {};
  let state: 'open' | 'ended' | 'closed' = 'open';
  let fault: Error | undefined;
  const socket = new Socket({
    fd: reading,
    readable: true,
    writable: false,
    onread: {
      buffer: () => piece.subarray(used),
      callback: (count) => {
        used += count;
        if (used < PIECE) return true;
        full.push(piece);
        piece = borrowPiece();
        used = 0;
        wake();
        return full.length < AHEAD;
      },
    },
  });
  socket.once('error', (cause) => {
    fault = cause;
  });
  socket.once('end', () => {
    state = 'ended';
    wake();
  });
  socket.once('close', () => {
    if (state === 'open') state = 'closed';
    wake();
  });
  socket.resume();
  let ours = true;
  const closeWritingEnd = (): void => {
    if (ours) closeSync(writing);
    ours = false;
  };
  return {
    writingEnd: writing,
    closeWritingEnd,
    close: () => void socket.destroy(),
    async *read() {
      for (;;) {
        const next = full.shift();
        if (next !== undefined) {
          socket.resume();
          yield next;
        } else if (state === 'open') {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        } else break;
      }
      if (state === 'closed') throw fault ?? new Error('the pipe was closed before its end');
      if (used > 0) yield piece.subarray(0, used);
    },
  };
}

/** Makes a pipe with a name, which is the only way that Node leaves, and takes its name away again. */
function openEnds(): { readonly reading: number; readonly writing: number } | undefined {
  let directory: string | undefined;
  let reading: number | undefined;
  try {
    directory = mkdtempSync(join(tmpdir(), 'hf-pipe-'));
    const path = join(directory, 'pipe');
    execFileSync('mkfifo', ['-m', '600', path], { stdio: 'ignore' });
    // Without waiting for somebody who writes; whoever opens it for writing then finds a reader.
    reading = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    return { reading, writing: openSync(path, constants.O_WRONLY) };
  } catch {
    if (reading !== undefined) closeSync(reading);
    return undefined;
  } finally {
    if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
  }
}
