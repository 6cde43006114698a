import { type FSWatcher, watch } from 'node:fs';
import { chown, mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { HoldfastError } from '../core/errors.ts';
import type { Log } from '../core/runtime.ts';
import type { Account } from './tar.ts';

/** How many segments beyond the one asked for are made ready meanwhile. */
const AHEAD = 3;
/** How often a file that is wanted is asked for while the storage is away, and the first pause, doubled at each. */
const ATTEMPTS = 6;
const PAUSE_MS = 250;
const SEGMENT = /^[0-9A-F]{24}$/;
const HISTORY = /^[0-9A-F]{8}\.history$/;

/** Where the files of an archive come from. */
export interface WalSource {
  /** Writes a segment or a history file, whole, to a path; false where the archive does not have it. */
  fetch(name: string, path: string): Promise<boolean>;
  /** The segment that is wanted after this one. */
  next(name: string): string | undefined;
}

export interface WalFeed {
  /** What restore_command runs, for postgresql.conf. */
  readonly command: string;
  /** Segments that PostgreSQL has asked for and got. */
  readonly served: number;
  /** What kept a file from being given: then PostgreSQL has stopped, because that file exists and cannot be had. */
  readonly fault: unknown;
  close(): Promise<void>;
}

/**
 * Gives the files of an archive to a PostgreSQL that recovers, through a directory: its restore_command says what it wants
 * and waits. So PostgreSQL may run as another account, which can read neither key nor storage, and a segment is ready
 * before it is wanted. When this process is gone, the command gives up after five minutes and PostgreSQL stops.
 */
export async function openWalFeed(
  directory: string,
  source: WalSource,
  options: { readonly account?: Account | undefined; readonly log: Log },
): Promise<WalFeed> {
  const { account } = options;
  const own = async (path: string): Promise<void> => {
    if (account) await chown(path, account.uid, account.gid);
  };
  const folder = async (name: string): Promise<string> => {
    const path = join(directory, name);
    await mkdir(path, { mode: 0o700 });
    await own(path);
    return path;
  };
  await mkdir(directory, { mode: 0o700 });
  await own(directory);
  const [want, have, none, fault] = (await Promise.all(['want', 'have', 'none', 'fault'].map(folder))) as [
    string,
    string,
    string,
    string,
  ];
  const script = join(directory, 'restore');
  await writeFile(script, SCRIPT, { mode: 0o700, flag: 'wx' });
  await own(script);

  let served = 0;
  let problem: unknown;
  let isClosed = false;
  const ready = new Map<string, { readonly made: Promise<boolean>; isOver: boolean }>();

  const fetchFile = async (name: string): Promise<boolean> => {
    const part = join(directory, name);
    if (!(await source.fetch(name, part))) return false;
    await own(part);
    await rename(part, join(have, name));
    return true;
  };
  const prepare = (name: string): Promise<boolean> => {
    const found = ready.get(name);
    if (found) return found.made;
    const state = { made: fetchFile(name), isOver: false };
    const over = (): void => {
      state.isOver = true;
    };
    // What nobody waits for yet must not end the process; whoever wants the file gets the error.
    state.made.then(over, over);
    ready.set(name, state);
    return state.made;
  };
  /** Gets a file that is wanted now. Hours of replaying shall not end with one second without a network. */
  const demand = async (name: string): Promise<boolean> => {
    for (let attempt = 1; ; attempt += 1) {
      // PostgreSQL takes a file away; the same one may be wanted again, where timelines part.
      if (ready.get(name)?.isOver && !(await isThere(have, name))) ready.delete(name);
      try {
        const isPresent = await prepare(name);
        if (!isPresent) ready.delete(name);
        return isPresent;
      } catch (cause) {
        const isPassing = cause instanceof HoldfastError && cause.retryable;
        if (!isPassing || isClosed || attempt === ATTEMPTS) throw cause;
        await wait(PAUSE_MS * 2 ** attempt);
      }
    }
  };
  const answer = async (name: string): Promise<void> => {
    if (!SEGMENT.test(name) && !HISTORY.test(name)) {
      await writeFile(join(none, name), '');
      return;
    }
    try {
      const isPresent = await demand(name);
      if (isPresent && SEGMENT.test(name)) served += 1;
      if (!isPresent) await writeFile(join(none, name), '');
    } catch (cause) {
      if (isClosed) return;
      problem ??= cause;
      options.log.warn('a file of the write-ahead log cannot be given to a recovery', { name, reason: String(cause) });
      await writeFile(join(fault, name), '');
      return;
    }
    let next = source.next(name);
    for (let count = 0; count < AHEAD && next !== undefined; count += 1) {
      void prepare(next);
      next = source.next(next);
    }
    for (const old of ready.keys()) if (old < name) ready.delete(old);
  };

  let looking: Promise<void> | undefined;
  let isStale = false;
  const look = (): void => {
    if (isClosed) return;
    if (looking !== undefined) {
      isStale = true;
      return;
    }
    looking = (async () => {
      do {
        isStale = false;
        for (const name of await readdir(want)) {
          await rm(join(want, name), { force: true });
          await answer(name);
        }
      } while (isStale);
    })()
      .catch((cause) => {
        if (!isClosed) problem ??= cause;
      })
      .finally(() => {
        looking = undefined;
        if (isStale) look();
      });
  };
  const watcher: FSWatcher = watch(want, look);
  watcher.on('error', () => {});
  // A file system may lose an event.
  const timer = setInterval(look, 500);
  timer.unref();
  return {
    command: `/bin/sh ${quoteWord(script)} %f %p`,
    get served() {
      return served;
    },
    get fault() {
      return problem;
    },
    close: async () => {
      isClosed = true;
      clearInterval(timer);
      watcher.close();
      await looking;
      await Promise.allSettled([...ready.values()].map(({ made }) => made));
    },
  };
}

async function isThere(directory: string, name: string): Promise<boolean> {
  return (await readdir(directory)).includes(name);
}

/**
 * Quotes a word for the shell inside of restore_command, where `%` begins a placeholder.
 */
export function quoteWord(text: string): string {
  return `'${text.replaceAll("'", `'\\''`).replaceAll('%', '%%')}'`;
}

/** Asks for a file and waits for it; 200 makes PostgreSQL stop, 1 says that there is no such file. */
const SCRIPT = `#!/bin/sh
d=\${0%/*}
: > "$d/want/$1" || exit 200
n=0
while [ "$n" -lt 6000 ]; do
  if [ -e "$d/have/$1" ]; then mv -f "$d/have/$1" "$2" || exit 200; exit 0; fi
  if [ -e "$d/none/$1" ]; then rm -f "$d/none/$1"; exit 1; fi
  if [ -e "$d/fault/$1" ]; then exit 200; fi
  sleep 0.05 || exit 200
  n=$((n + 1))
done
exit 200
`;
