import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { Identity } from 'age-encryption';
import { HoldfastError, isAbort } from '../core/errors.ts';
import { sha256 } from '../core/json.ts';
import { assertOpensHeader, decrypt, encrypt, passphraseIdentity, passphraseRecipient } from './age.ts';
import { damaged } from './errors.ts';
import { compress, decompress, requireZstd } from './zstd.ts';

/** How new backups are closed: for the holders of keys, by a passphrase, or not at all. */
export type Sealing =
  | { readonly scheme: 'age'; readonly recipients: readonly string[] }
  | { readonly scheme: 'age'; readonly passphrase: string }
  | { readonly scheme: 'none' };

/** What can open backups on this machine. */
export interface Keys {
  /** The text of an age identity file: one or more `AGE-SECRET-KEY-…` lines. */
  readonly identity?: string | undefined;
  readonly passphrase?: string | undefined;
}

/** Counts and hashes what flows past. */
export class Tally {
  bytes = 0;
  readonly #hash = createHash('sha256');
  #digest: string | undefined;

  async *tap(source: AsyncIterable<Uint8Array>, seen?: (bytes: number) => void): AsyncGenerator<Uint8Array> {
    for await (const chunk of source) {
      this.bytes += chunk.byteLength;
      this.#hash.update(chunk);
      seen?.(this.bytes);
      yield chunk;
    }
  }

  get sha256(): string {
    this.#digest ??= this.#hash.digest('hex');
    return this.#digest;
  }
}

/** Compresses with zstd and closes with age; the result opens with `age -d | zstd -d`. */
export async function* seal(
  plain: AsyncIterable<Uint8Array>,
  sealing: Sealing,
  level: number,
  header?: (bytes: Uint8Array) => void,
): AsyncGenerator<Uint8Array> {
  requireZstd();
  const compressed = compress(plain, level);
  if (sealing.scheme === 'none') {
    yield* compressed;
    return;
  }
  const recipients = 'passphrase' in sealing ? [await passphraseRecipient(sealing.passphrase)] : sealing.recipients;
  yield* encrypt(compressed, recipients, header);
}

/** What is known from elsewhere of how an object was closed: with it, a damaged header is told from a wrong key. */
export interface ClosedFor {
  /** Public keys. */
  readonly recipients?: readonly string[] | undefined;
  /** SHA-256 of the age header. */
  readonly headerSha256?: string | undefined;
}

/**
 * Opens what `seal` made. Bytes come out once their own chunk is proven; that nothing is missing is proven only at the end,
 * and without encryption only by the length and the hash of the whole.
 * @throws {HoldfastError} AUTHENTICATION_FAILED where no key fits, INTEGRITY_FAILED for damage
 */
export async function* unseal(
  stored: AsyncIterable<Uint8Array>,
  encrypted: boolean,
  keys: Keys,
  closedFor: ClosedFor = {},
): AsyncGenerator<Uint8Array> {
  requireZstd();
  const seen: { header?: Uint8Array } = {};
  try {
    yield* decompress(
      encrypted
        ? decrypt(stored, identitiesOf(keys), (header) => {
            seen.header = header;
          })
        : stored,
    );
  } catch (cause) {
    throw await toSealError(cause, keys, closedFor, seen.header);
  }
}

/**
 * Makes sure, reading only the header, that one of our keys opens a stored object.
 * @throws {HoldfastError} AUTHENTICATION_FAILED, INTEGRITY_FAILED
 */
export async function assertOpens(
  stored: AsyncIterable<Uint8Array>,
  keys: Keys,
  closedFor: ClosedFor = {},
): Promise<void> {
  const seen: { header?: Uint8Array } = {};
  try {
    await assertOpensHeader(stored, identitiesOf(keys), (header) => {
      seen.header = header;
    });
  } catch (cause) {
    throw await toSealError(cause, keys, closedFor, seen.header);
  }
}

/**
 * Proves, before a backup is made, that what this entity seals can be opened again, as far as this machine has keys.
 * @throws {HoldfastError} CONFIG_INVALID for a key or recipient that is none, or an identity that opens nothing
 */
export async function probe(sealing: Sealing, keys: Keys): Promise<'opens' | 'no_identity_here' | 'not_encrypted'> {
  if (sealing.scheme === 'none') return 'not_encrypted';
  if ('passphrase' in sealing) return 'opens';
  const text = Buffer.from('holdfast probe');
  const sealed: Uint8Array[] = [];
  try {
    for await (const chunk of seal(Readable.from([text]), sealing, 1)) sealed.push(chunk);
  } catch (cause) {
    throw new HoldfastError('CONFIG_INVALID', 'a recipient in encryption.recipients is not an age public key', {
      hint: 'Make a key pair with age-keygen and write its public key, age1…, into recipients.',
      cause,
    });
  }
  if (keys.identity === undefined) return 'no_identity_here';
  try {
    await assertOpens(Readable.from(sealed), keys);
  } catch (cause) {
    throw new HoldfastError(
      'CONFIG_INVALID',
      'encryption.identity opens nothing that is sealed for encryption.recipients',
      {
        hint: 'Put the public key of the identity among the recipients, or nobody here could restore the next backup.',
        cause,
      },
    );
  }
  return 'opens';
}

/** Gives the public keys of an identity text, so that damage can be told from a wrong key. */
export async function publicKeys(identity: string): Promise<string[]> {
  const { identityToRecipient } = await import('age-encryption');
  return Promise.all(identityLines(identity).map((line) => identityToRecipient(line)));
}

function identitiesOf(keys: Keys): (string | Identity)[] {
  const lines = keys.identity === undefined ? [] : identityLines(keys.identity);
  if (lines.length === 0 && keys.passphrase === undefined) {
    throw new HoldfastError(
      'AUTHENTICATION_FAILED',
      'this backup is encrypted and no key to open it is configured here',
      {
        hint: 'Set encryption.identity (or passphrase) of this entity to a reference such as ${file:/etc/holdfast/age.key}.',
      },
    );
  }
  return keys.passphrase === undefined ? lines : [...lines, passphraseIdentity(keys.passphrase)];
}

function identityLines(text: string): string[] {
  const lines = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
  if (lines.length === 0 || !lines.every((line) => /^AGE-SECRET-KEY-(PQ-)?1[0-9A-Z]+$/.test(line))) {
    throw new HoldfastError('AUTHENTICATION_FAILED', 'encryption.identity does not hold an age secret key', {
      hint: 'Point the reference at a file made by age-keygen.',
    });
  }
  return lines;
}

async function toSealError(
  cause: unknown,
  keys: Keys,
  closedFor: ClosedFor,
  header: Uint8Array | undefined,
): Promise<unknown> {
  if (cause instanceof HoldfastError || isAbort(cause)) return cause;
  const { syscall, message } = (cause ?? {}) as NodeJS.ErrnoException;
  if (syscall !== undefined) return cause;
  if (!/no identity matched/.test(message ?? '')) {
    return damaged('the encrypted content of the backup is damaged or cut off', cause);
  }
  if (await isDamagedHeader(keys, closedFor, header)) {
    return damaged('the header of an encrypted file of the backup is damaged: the right key does not open it', cause);
  }
  return new HoldfastError('AUTHENTICATION_FAILED', 'the key configured here does not open this backup', {
    hint: 'Set encryption.identity (or passphrase) to the key that this backup was sealed for; describe-snapshot shows the recipients.',
    cause,
  });
}

/** A header that no key opens does not say by itself whether the key is another one or the header was changed. */
async function isDamagedHeader(
  { identity }: Keys,
  { recipients, headerSha256 }: ClosedFor,
  header: Uint8Array | undefined,
): Promise<boolean> {
  if (header !== undefined && headerSha256 !== undefined && sha256(header) !== headerSha256) return true;
  if (identity === undefined || recipients === undefined) return false;
  return (await publicKeys(identity)).some((key) => recipients.includes(key));
}
