import type { Binaries } from './binaries.ts';
import { runChild } from './child.ts';
import { withUnpacked } from './directory.ts';
import { dataOf, type LogicalManifest } from './manifest.ts';
import { checkBesides, counted, openPayload } from './verify.ts';
import { feed, startRestore, type Work } from './work.ts';

/**
 * Level `readable`: also opens with our key, has the plain hashes of the manifest, and pg_restore reads it to its end.
 * `scratch` is a directory that does not exist yet, for a dump that is unpacked first.
 */
export async function checkReadable(
  work: Work,
  manifest: LogicalManifest,
  binaries: Binaries,
  scratch: string,
): Promise<Record<string, number>> {
  const numbers = await checkBesides(work, manifest);
  const { plain_bytes } = dataOf(manifest);
  // `pg_restore --list` is content with a file that is cut off; writing the script out reads every byte.
  const args = ['--no-password', '-f', '/dev/null'];
  const options = { env: { LC_ALL: 'C' }, signal: work.signal };
  if (manifest.kind === 'logical_dir') {
    await withUnpacked(work, manifest, scratch, (dump) => runChild(binaries.pgRestore, [...args, dump], options));
  } else {
    const child = startRestore(binaries, args, options);
    const dump = openPayload(work, manifest, dataOf(manifest));
    await feed(child, counted(work, dump, plain_bytes, 'Reading the dump'));
  }
  return { ...numbers, plain_bytes };
}
