import { type FileHandle, lchown, mkdir, open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Header } from 'tar-stream';
import { damaged } from './errors.ts';

export type Account = { readonly uid: number; readonly gid: number };
type Content = AsyncIterable<Uint8Array>;

/** Gets each member of a tar: one that it wants it reads to the end and answers when done; of others it answers undefined. */
export type Look = (header: Header, content: Content) => Promise<void> | undefined;

/**
 * Passes a tar on, byte for byte, and shows its members as they go by. It ends after the last member has been read.
 * @throws {HoldfastError} INTEGRITY_FAILED for bytes that are no whole tar, and whatever `look` fails with
 */
export async function* tapTar(source: Content, look: Look): AsyncGenerator<Uint8Array> {
  const { extract } = await import('tar-stream');
  const parser = extract();
  let fault: unknown;
  let isClosed = false;
  // One promise at a time: a race with one that lives as long as the stream would keep something for every chunk.
  let wake = (): void => {};
  const until = (done: () => boolean): Promise<void> =>
    new Promise((resolve) => {
      wake = () => {
        if (done()) resolve();
      };
      wake();
    });
  let isFull = false;
  parser.on('drain', () => {
    isFull = false;
    wake();
  });
  parser.on('close', () => {
    isClosed = true;
    wake();
  });
  parser.on('error', (cause) => {
    fault ??= damaged('the copy of the data directory is not a whole tar archive', cause);
  });
  parser.on('entry', (header, stream, next) => {
    // The parser reports the same fault; a member without a listener would end the process with it.
    stream.on('error', () => {});
    const reading = look(header, stream as Content);
    if (reading === undefined) {
      stream.on('end', () => next());
      stream.resume();
      return;
    }
    reading.then(
      () => next(),
      (cause) => {
        fault ??= cause;
        next(cause);
      },
    );
  });
  try {
    for await (const chunk of source) {
      isFull = !parser.write(chunk);
      if (isFull) await until(() => !isFull || isClosed);
      if (fault !== undefined) throw fault;
      yield chunk;
    }
    parser.end(null);
    await until(() => isClosed);
    if (fault !== undefined) throw fault;
  } finally {
    parser.destroy(null);
  }
}

/**
 * Writes the members of a tar into a directory, as files of the account where one is given. It follows no link and leaves
 * the directory by no name; `inside` may take a member that is a tar itself.
 * @throws {HoldfastError} INTEGRITY_FAILED for a member that no data directory has
 */
export async function unpackTar(
  source: Content,
  directory: string,
  account: Account | undefined,
  inside: (name: string, content: Content) => Promise<void> | undefined = () => undefined,
): Promise<void> {
  const own = async (path: string): Promise<void> => {
    if (account) await lchown(path, account.uid, account.gid);
  };
  const folder = async (path: string): Promise<void> => {
    const first = await mkdir(path, { recursive: true, mode: 0o700 });
    for (let made = path; first !== undefined; made = dirname(made)) {
      await own(made);
      if (made === first) break;
    }
  };
  const file = async (path: string, content: Content): Promise<void> => {
    await folder(dirname(path));
    let handle: FileHandle | undefined;
    try {
      handle = await open(path, 'wx', 0o600);
      for await (const chunk of content) await handle.writeFile(chunk);
    } finally {
      await handle?.close();
    }
    await own(path);
  };
  const drain = async (content: Content): Promise<void> => {
    for await (const _ of content);
  };
  const look: Look = ({ name, type }, content) => {
    const parts = name.replace(/^\.\//, '').replace(/\/$/, '').split('/');
    if (parts.some((part) => part === '' || part === '.' || part === '..' || part.includes('\0'))) {
      return Promise.reject(damaged('the copy of the data directory has a name that leads out of it'));
    }
    const path = join(directory, ...parts);
    if (type === 'directory') return folder(path).then(() => drain(content));
    // Where a tablespace lies is said by tablespace_map; the link of the source leads to the files that it works on.
    if (type === 'symlink' && parts[0] === 'pg_tblspc' && parts.length === 2) return drain(content);
    if (type !== 'file') return Promise.reject(damaged('the copy of the data directory has a link or device in it'));
    return inside(parts.join('/'), content) ?? file(path, content);
  };
  for await (const _ of tapTar(source, look));
}

/** Packs files into a tar, in the order given, as they are read. */
export async function* packTar(
  files: readonly { readonly name: string; readonly size: number; read(): Content }[],
): AsyncGenerator<Uint8Array> {
  const { pack } = await import('tar-stream');
  const tar = pack();
  const writing = (async () => {
    for (const { name, size, read } of files) {
      const entry = tar.entry({ name, size, mode: 0o600 });
      // pipeline reports what an entry fails with.
      entry.on('error', () => {});
      await pipeline(Readable.from(read(), { objectMode: false }), entry as unknown as Writable);
    }
    tar.finalize();
  })();
  writing.catch((cause) => tar.destroy(cause as Error));
  try {
    for await (const chunk of tar as Content) yield chunk;
    await writing;
  } finally {
    tar.destroy(null);
    await writing.catch(() => {});
  }
}
