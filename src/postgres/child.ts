import { type ChildProcess, spawn } from 'node:child_process';
import { PassThrough, pipeline, type Readable, type Writable } from 'node:stream';
import { HoldfastError } from '../core/errors.ts';
import { toProgramError } from './errors.ts';
import { openPipe } from './pipe.ts';

const STDERR_KEPT = 64 * 1024;
const KILL_AFTER_MS = 10_000;

export interface ChildOptions {
  readonly env: Readonly<Record<string, string>>;
  /** Values that must not be in what is kept of stderr. */
  readonly secrets?: readonly (string | undefined)[];
  readonly signal?: AbortSignal | undefined;
  readonly stdin?: boolean;
  /** Gives `output` in borrowed pieces, which is far less work where a program writes gigabytes. There is no `stdout` then. */
  readonly pieces?: boolean;
  /** Runs the program as another account; only root can. */
  readonly account?: { readonly uid: number; readonly gid: number } | undefined;
  /** Says what a failed end means, where the program is none of PostgreSQL's own. */
  readonly explain?: ((exit: Exit, stderr: string) => HoldfastError) | undefined;
}

interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A running program. Its success is known only when its output has ended **and** its exit status is 0. */
export interface Child {
  readonly pid: number;
  readonly stdout: Readable;
  readonly stdin: Writable;
  /** Resolves when the program is gone and its pipes are closed; never rejects. */
  readonly ended: Promise<Exit>;
  /** Throws what a failed end means; resolves after a clean one. */
  succeed(): Promise<void>;
  /** Gives stdout; it ends only after a clean end of the program, and throws otherwise. */
  output(): AsyncGenerator<Buffer>;
  /** Ends the whole process group: TERM, and KILL ten seconds later. */
  stop(): Promise<void>;
}

/** Starts a program in its own process group, without a shell, with exactly this environment. */
export function startChild(file: string, args: readonly string[], options: ChildOptions): Child {
  options.signal?.throwIfAborted();
  const name = file.slice(file.lastIndexOf('/') + 1);
  const pipe = options.pieces ? openPipe() : undefined;
  let child: ChildProcess;
  try {
    child = spawn(file, args, {
      env: { ...options.env },
      detached: true,
      stdio: [options.stdin ? 'pipe' : 'ignore', pipe?.writingEnd ?? 'pipe', 'pipe'],
      // Programs of PostgreSQL look at where they are, and another account may not.
      ...(options.account ? { ...options.account, cwd: '/' } : {}),
    });
  } finally {
    pipe?.closeWritingEnd();
  }
  let stderr = '';
  let fault: Error | undefined;
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-STDERR_KEPT);
  });
  // When a program ends, Node lets what nobody reads yet run out; its reader may only be getting ready.
  const stdout = new PassThrough();
  if (pipe === undefined) pipeline(child.stdout as Readable, stdout, () => {});
  else stdout.end();
  // EPIPE on stdin says only that the program is gone; its exit status says why.
  child.stdin?.on('error', () => {});
  const ended = new Promise<Exit>((resolve) => {
    child.once('error', (cause) => {
      fault = cause;
      resolve({ code: null, signal: null });
    });
    child.once('close', (code, signal) => resolve({ code, signal }));
  });

  const signalGroup = (signal: NodeJS.Signals): void => {
    if (child.pid === undefined) return;
    try {
      process.kill(-child.pid, signal);
    } catch {
      // The group is gone already.
    }
  };
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) signalGroup('SIGTERM');
    const timer = setTimeout(() => signalGroup('SIGKILL'), KILL_AFTER_MS);
    // A pipe that nobody reads would keep the program, and this wait, alive.
    child.stdout?.destroy();
    pipe?.close();
    stdout.destroy();
    child.stdin?.destroy();
    await ended;
    clearTimeout(timer);
  };
  const abort = (): void => void stop();
  options.signal?.addEventListener('abort', abort, { once: true });
  void ended.then(() => options.signal?.removeEventListener('abort', abort));

  const scrubbed = (): string =>
    (options.secrets ?? []).reduce<string>(
      (text, secret) => (secret === undefined || secret === '' ? text : text.replaceAll(secret, '***')),
      stderr,
    );
  const succeed = async (): Promise<void> => {
    const exit = await ended;
    if (options.signal?.aborted) throw new HoldfastError('CANCELLED', 'the call was cancelled');
    if (fault) {
      throw new HoldfastError('NOT_SUPPORTED', `${name} cannot be started`, {
        hint: 'Install the PostgreSQL client programs, or point bin_dir at them.',
        cause: fault,
      });
    }
    if (exit.code !== 0) throw options.explain?.(exit, scrubbed()) ?? toProgramError(name, exit, scrubbed());
  };

  return {
    pid: child.pid ?? -1,
    stdout,
    stdin: child.stdin as Writable,
    ended,
    succeed,
    stop,
    async *output() {
      let complete = false;
      try {
        yield* pipe?.read() ?? (stdout as AsyncIterable<Buffer>);
        await succeed();
        complete = true;
      } catch (cause) {
        // A stream destroyed by the abort says less than the exit does.
        if (options.signal?.aborted) throw new HoldfastError('CANCELLED', 'the call was cancelled', { cause });
        throw cause;
      } finally {
        if (!complete) await stop();
      }
    },
  };
}

/**
 * Runs a program to its end and gives what it wrote to stdout, at most `limit` bytes of it.
 * @throws {HoldfastError} what its failure means
 */
export async function runChild(
  file: string,
  args: readonly string[],
  options: ChildOptions,
  limit = 256 * 1024 * 1024,
): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const chunk of startChild(file, args, options).output()) {
    size += chunk.length;
    if (size > limit) throw new HoldfastError('QUOTA_EXCEEDED', 'a program wrote more than can be kept in memory');
    parts.push(chunk);
  }
  return Buffer.concat(parts).toString('utf8');
}
