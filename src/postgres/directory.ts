import { createReadStream } from 'node:fs';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { formatBytes } from '../core/time.ts';
import type { Binaries } from './binaries.ts';
import { type ChildOptions, runChild } from './child.ts';
import { type LogicalManifest, payloadOf } from './manifest.ts';
import { assertRoom } from './scratch.ts';
import { packTar, unpackTar } from './tar.ts';
import { counted, openPayload } from './verify.ts';
import type { Work } from './work.ts';

/** A dump through a directory, for `parallel`. */
export interface DirectoryDump {
  readonly jobs: number;
  /** A directory that does not exist yet; it is removed by the caller. */
  readonly directory: string;
}

/** Names the directory that the dump of a backup is unpacked to by an operation. */
export function unpackScratch(scratch: string, operation: string): string {
  return join(scratch, `holdfast-unpack-${operation}`);
}

/**
 * Dumps with several connections into a directory of this machine: pg_dump writes to one stream with one connection only.
 * @throws {HoldfastError} QUOTA_EXCEEDED before anything is written where the disk is too small
 */
export async function dumpToDirectory(
  work: Work,
  binaries: Binaries,
  { jobs, directory }: DirectoryDump,
  args: readonly string[],
  options: ChildOptions,
  estimate: number,
): Promise<void> {
  // The rows as text are about what the pages are, and pg_dump compresses them.
  await assertRoom(
    dirname(directory),
    estimate,
    'A dump with several connections is written there before it is stored.',
  );
  work.runtime.assertMayWrite('using the scratch directory');
  await mkdir(directory, { mode: 0o700 });
  const show = async (): Promise<void> => {
    const sizes = await Promise.all((await filesOf(directory)).map(({ size }) => size));
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    work.progress({ message: `Data dumped: ${formatBytes(bytes)} compressed, with ${jobs} connections` });
  };
  const timer = setInterval(() => void show().catch(() => {}), 1_000);
  try {
    await runChild(binaries.pgDump, ['-Fd', `-j${jobs}`, '-Z1', '-f', join(directory, 'dump'), ...args], options);
  } finally {
    clearInterval(timer);
  }
}

/** Gives a dumped directory as a tar, and how large its files are together. */
export async function tarOfDump({
  directory,
}: DirectoryDump): Promise<{ bytes: number; tar: AsyncIterable<Uint8Array> }> {
  const files = await filesOf(directory);
  const read = (name: string) => () =>
    createReadStream(join(directory, 'dump', name), { highWaterMark: 256 * 1024 }) as AsyncIterable<Uint8Array>;
  return {
    bytes: files.reduce((sum, { size }) => sum + size, 0),
    tar: packTar(files.map(({ name, size }) => ({ name, size, read: read(name) }))),
  };
}

async function filesOf(directory: string): Promise<{ name: string; size: number }[]> {
  const names = await readdir(join(directory, 'dump')).catch(() => []);
  return Promise.all(
    names.sort().map(async (name) => ({ name, size: (await stat(join(directory, 'dump', name))).size })),
  );
}

/** Unpacks a dump that was made through a directory, for as long as somebody uses it. */
export async function withUnpacked<T>(
  work: Work,
  manifest: LogicalManifest,
  directory: string,
  use: (dump: string) => Promise<T>,
): Promise<T> {
  const payload = payloadOf(manifest, 'directory');
  await assertRoom(dirname(directory), payload.plain_bytes, 'A dump made with several connections is unpacked there.');
  work.runtime.assertMayWrite('using the scratch directory');
  await mkdir(directory, { mode: 0o700 });
  try {
    const dump = join(directory, 'dump');
    const tar = counted(work, openPayload(work, manifest, payload), payload.plain_bytes, 'Unpacking the dump');
    await unpackTar(tar, dump, undefined);
    return await use(dump);
  } finally {
    await rm(directory, { recursive: true, force: true, maxRetries: 5 });
  }
}
