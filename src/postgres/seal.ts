import { createCipheriv, createDecipheriv, createHash, randomBytes, scrypt } from 'node:crypto';
import { pipeline, Readable } from 'node:stream';
import * as zlib from 'node:zlib';
import type { Identity, Recipient, Stanza } from 'age-encryption';
import { HoldfastError, isAbort } from '../core/errors.ts';
import { damaged } from './errors.ts';

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

/**
 * Makes sure that this Node can compress with zstd.
 * @throws {HoldfastError} NOT_SUPPORTED before Node 22.15
 */
export function requireZstd(): void {
  if (typeof zlib.createZstdCompress !== 'function') {
    throw new HoldfastError(
      'NOT_SUPPORTED',
      `Node.js ${process.versions.node} has no zstd, which backups are compressed with`,
      {
        hint: 'Run Holdfast with Node.js 22.15 or newer.',
      },
    );
  }
}

/** Compresses with zstd and closes with age; the result opens with `age -d | zstd -d`. */
export async function* seal(
  plain: AsyncIterable<Uint8Array>,
  sealing: Sealing,
  level: number,
): AsyncGenerator<Uint8Array> {
  requireZstd();
  const { ZSTD_c_compressionLevel, ZSTD_c_checksumFlag } = zlib.constants;
  const compressed = through(
    plain,
    zlib.createZstdCompress({ params: { [ZSTD_c_compressionLevel]: level, [ZSTD_c_checksumFlag]: 1 } }),
  );
  if (sealing.scheme === 'none') {
    yield* compressed;
    return;
  }
  const { Encrypter } = await import('age-encryption');
  const encrypter = new Encrypter();
  if ('passphrase' in sealing) encrypter.addRecipient(await passphraseRecipient(sealing.passphrase));
  else for (const recipient of sealing.recipients) encrypter.addRecipient(recipient);
  yield* chunks(await encrypter.encrypt(toWeb(compressed)));
}

/**
 * Opens what `seal` made. Bytes come out once their own chunk is proven; that nothing is missing is proven only at the end.
 * @throws {HoldfastError} AUTHENTICATION_FAILED where no key fits, INTEGRITY_FAILED for damage
 */
export async function* unseal(
  stored: AsyncIterable<Uint8Array>,
  encrypted: boolean,
  keys: Keys,
): AsyncGenerator<Uint8Array> {
  requireZstd();
  try {
    const compressed = encrypted ? chunks(await openAge(stored, keys)) : stored;
    yield* through(compressed, zlib.createZstdDecompress());
  } catch (cause) {
    throw toSealError(cause);
  }
}

/**
 * Makes sure, reading only the header, that one of our keys opens a stored object.
 * @throws {HoldfastError} AUTHENTICATION_FAILED, INTEGRITY_FAILED
 */
export async function assertOpens(stored: AsyncIterable<Uint8Array>, keys: Keys): Promise<void> {
  try {
    const opened = await openAge(stored, keys);
    await opened.cancel().catch(() => {});
  } catch (cause) {
    throw toSealError(cause);
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

async function openAge(stored: AsyncIterable<Uint8Array>, keys: Keys): Promise<ReadableStream<Uint8Array>> {
  const { Decrypter } = await import('age-encryption');
  const decrypter = new Decrypter();
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
  for (const line of lines) decrypter.addIdentity(line);
  if (keys.passphrase !== undefined) decrypter.addIdentity(passphraseIdentity(keys.passphrase));
  return decrypter.decrypt(toWeb(stored));
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

function toSealError(cause: unknown): unknown {
  if (cause instanceof HoldfastError || isAbort(cause)) return cause;
  const { code, syscall, message } = (cause ?? {}) as NodeJS.ErrnoException;
  if (syscall !== undefined) return cause;
  if (/no identity matched/.test(message ?? '')) {
    return new HoldfastError('AUTHENTICATION_FAILED', 'the key configured here does not open this backup', {
      hint: 'Set encryption.identity (or passphrase) to the key that this backup was sealed for; describe-snapshot shows the recipients.',
      cause,
    });
  }
  if (String(code).startsWith('ZSTD_') || String(code).startsWith('Z_')) {
    return damaged('the compressed content of the backup is damaged or cut off', cause);
  }
  return damaged('the encrypted content of the backup is damaged or cut off', cause);
}

/** Sends an iterable through a transform; ending the iteration early ends the source too. */
async function* through(source: AsyncIterable<Uint8Array>, transform: zlib.ZstdCompress | zlib.ZstdDecompress) {
  let fault: unknown;
  // The callback keeps the source's own error: the transform would report only that it was destroyed.
  const done = new Promise<void>((resolve) => {
    pipeline(Readable.from(source, { objectMode: false }), transform, (cause) => {
      fault = cause;
      resolve();
    });
  });
  try {
    for await (const chunk of transform) yield chunk as Uint8Array;
  } catch (cause) {
    await done;
    throw fault ?? cause;
  } finally {
    transform.destroy();
    await done;
  }
}

/** A web stream over an iterable that passes bytes on as they come. */
function toWeb(source: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await iterator.next();
          if (done) controller.close();
          // A Buffer may be a view of a shared pool; age wants plain bytes.
          else controller.enqueue(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
        } catch (cause) {
          controller.error(cause);
        }
      },
      async cancel() {
        await iterator.return?.();
      },
    },
    { highWaterMark: 2 },
  );
}

async function* chunks(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  let complete = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      yield value;
    }
    complete = true;
  } finally {
    if (!complete) await reader.cancel().catch(() => {});
  }
}

// age's scrypt stanza by node:crypto: the library's own scrypt would hold the event loop for seconds.
// @see age-encryption.org/v1, "The scrypt recipient type"
const SCRYPT_LABEL = 'age-encryption.org/v1/scrypt';
const WORK_FACTOR = 18;
const MOST_WORK = 22;

function scryptKey(passphrase: string, salt: Uint8Array, logN: number): Promise<Buffer> {
  const N = 2 ** logN;
  return new Promise((resolve, reject) => {
    scrypt(
      passphrase,
      Buffer.concat([Buffer.from(SCRYPT_LABEL), salt]),
      32,
      { N, r: 8, p: 1, maxmem: 128 * 8 * N + 64 * 1024 * 1024 },
      (cause, key) => (cause ? reject(cause) : resolve(key)),
    );
  });
}

const unpadded = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64').replace(/=+$/, '');
const cipherOptions = { authTagLength: 16 };

async function passphraseRecipient(passphrase: string): Promise<Recipient> {
  const { Stanza } = await import('age-encryption');
  return {
    async wrapFileKey(fileKey) {
      const salt = randomBytes(16);
      const key = await scryptKey(passphrase, salt, WORK_FACTOR);
      const cipher = createCipheriv('chacha20-poly1305', key, Buffer.alloc(12), cipherOptions);
      const body = Buffer.concat([cipher.update(fileKey), cipher.final(), cipher.getAuthTag()]);
      return [new Stanza(['scrypt', unpadded(salt), String(WORK_FACTOR)], new Uint8Array(body))];
    },
  };
}

function passphraseIdentity(passphrase: string): Identity {
  return {
    async unwrapFileKey(stanzas: Stanza[]) {
      const stanza = stanzas.find(({ args }) => args[0] === 'scrypt');
      if (stanza === undefined) return null;
      const [, salt = '', factor = ''] = stanza.args;
      // A hostile header could ask for any amount of memory.
      if (
        stanzas.length !== 1 ||
        stanza.args.length !== 3 ||
        !/^[1-9]\d?$/.test(factor) ||
        Number(factor) > MOST_WORK
      ) {
        throw new Error('invalid scrypt stanza');
      }
      if (stanza.body.length !== 32) throw new Error('invalid scrypt stanza');
      const key = await scryptKey(passphrase, Buffer.from(salt, 'base64'), Number(factor));
      const decipher = createDecipheriv('chacha20-poly1305', key, Buffer.alloc(12), cipherOptions);
      decipher.setAuthTag(stanza.body.subarray(16));
      try {
        return new Uint8Array(Buffer.concat([decipher.update(stanza.body.subarray(0, 16)), decipher.final()]));
      } catch {
        return null;
      }
    },
  };
}
