import { sha256 } from '../core/json.ts';
import type { Payload } from './manifest.ts';
import { type Sealing, seal, Tally } from './seal.ts';
import type { Work } from './work.ts';

export interface PackOptions {
  readonly sealing: Sealing;
  /** Of zstd. */
  readonly level: number;
  readonly signal: AbortSignal | undefined;
  /** Called with the plain bytes that have gone by. */
  readonly seen?: ((bytes: number) => void) | undefined;
}

/**
 * Compresses, seals and stores one file of a backup while it is produced. The object appears whole or not at all; an
 * error of the source leaves none. Gives what the manifest says of it.
 */
export async function storeSealed(
  work: Pick<Work, 'repository' | 'runtime'>,
  id: string,
  file: { readonly name: string; readonly content: Payload['content'] },
  plain: AsyncIterable<Uint8Array>,
  { sealing, level, signal, seen }: PackOptions,
): Promise<Payload> {
  const before = new Tally();
  const after = new Tally();
  const encrypted = sealing.scheme === 'age';
  const name = `${file.name}.zst${encrypted ? '.age' : ''}`;
  work.runtime.assertMayWrite(`storing ${file.content} of a backup`);
  let header: string | undefined;
  const sealed = after.tap(
    seal(before.tap(plain, seen), sealing, level, (bytes) => {
      header = sha256(bytes);
    }),
  );
  await work.repository.store.put(work.repository.key(id, name), sealed, { createOnly: true, signal });
  return {
    name,
    bytes: after.bytes,
    sha256: after.sha256,
    plain_bytes: before.bytes,
    plain_sha256: before.sha256,
    content: file.content,
    encoding: encrypted ? ['zstd', 'age'] : ['zstd'],
    ...(header === undefined ? {} : { header_sha256: header }),
  };
}
