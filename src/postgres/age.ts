import { createCipheriv, createDecipheriv, hkdfSync, randomBytes, scrypt } from 'node:crypto';
import type { Identity, Recipient, Stanza } from 'age-encryption';

/**
 * The age format. Its header, where the keys are, is the library's; the payload goes through Node's own cipher, which is
 * ten times as fast.
 * @see age-encryption.org/v1
 */
const CHUNK = 64 * 1024;
const TAG = 16;
const NONCE = 16;
/** A header with the limit of recipients is far smaller; what is longer is none. */
const HEADER_LIMIT = 1024 * 1024;
const cipherOptions = { authTagLength: TAG };

/** Closes a stream for recipients: public keys or our own kinds. `header` is called with the header once it is made. */
export async function* encrypt(
  plain: AsyncIterable<Uint8Array>,
  recipients: readonly (string | Recipient)[],
  header?: (bytes: Uint8Array) => void,
): AsyncGenerator<Buffer> {
  const source = plain[Symbol.asyncIterator]();
  try {
    // The source begins while the header is made, which takes as long as the library takes to load.
    const first = source.next();
    first.catch(() => {});
    const { bytes, fileKey } = await makeHeader(recipients);
    header?.(bytes);
    const nonce = randomBytes(NONCE);
    const seal = sealer(payloadKey(fileKey, nonce));
    let head = Buffer.concat([bytes, nonce]);
    const withHead = (sealed: Buffer): Buffer => {
      const whole = head.byteLength === 0 ? sealed : Buffer.concat([head, sealed]);
      head = Buffer.alloc(0);
      return whole;
    };
    for (let next = await first; next.done !== true; next = await source.next()) {
      const sealed = seal(next.value, false);
      if (sealed.byteLength > 0) yield withHead(sealed);
    }
    yield withHead(seal(new Uint8Array(), true));
  } finally {
    await source.return?.();
  }
}

/**
 * Opens what `encrypt` or any other program of the format closed. The bytes of a chunk come out after its tag was proven;
 * that none is missing is proven at the end.
 * @throws {Error} for damage, a cut and trailing bytes; NO_IDENTITY_MATCHED of the library where no identity fits
 */
export async function* decrypt(
  stored: AsyncIterable<Uint8Array>,
  identities: readonly (string | Identity)[],
  header?: (bytes: Uint8Array) => void,
): AsyncGenerator<Buffer> {
  const source = stored[Symbol.asyncIterator]();
  try {
    let { fileKey, rest } = await readHeader(source, identities, header);
    for (; rest.byteLength < NONCE; ) {
      const { done, value } = await source.next();
      if (done) throw new Error('the object ends before its payload');
      rest = Buffer.concat([rest, value]);
    }
    const open = opener(payloadKey(fileKey, rest.subarray(0, NONCE)));
    rest = rest.subarray(NONCE);
    for (;;) {
      const { done, value } = await source.next();
      if (done) break;
      const whole = rest.byteLength === 0 ? value : Buffer.concat([rest, value]);
      const ready = Math.max(0, Math.ceil(whole.byteLength / (CHUNK + TAG)) - 1) * (CHUNK + TAG);
      rest = Buffer.from(whole.subarray(ready));
      if (ready > 0) yield open(whole.subarray(0, ready), false);
    }
    const last = open(rest, true);
    if (last.byteLength > 0) yield last;
  } finally {
    await source.return?.();
  }
}

/** Reads the header alone and makes sure that an identity opens it; the rest of the stream is left. */
export async function assertOpensHeader(
  stored: AsyncIterable<Uint8Array>,
  identities: readonly (string | Identity)[],
  header?: (bytes: Uint8Array) => void,
): Promise<void> {
  const source = stored[Symbol.asyncIterator]();
  try {
    await readHeader(source, identities, header);
  } finally {
    await source.return?.();
  }
}

async function makeHeader(
  recipients: readonly (string | Recipient)[],
): Promise<{ bytes: Uint8Array; fileKey: Uint8Array }> {
  const { Encrypter } = await import('age-encryption');
  const encrypter = new Encrypter();
  for (const recipient of recipients) encrypter.addRecipient(recipient);
  let fileKey: Uint8Array | undefined;
  // A recipient without a stanza: it only takes the key of this file along.
  encrypter.addRecipient({
    wrapFileKey: async (key) => {
      fileKey = new Uint8Array(key);
      return [];
    },
  });
  const sealed = Buffer.from(await encrypter.encrypt(new Uint8Array()));
  const end = headerEnd(sealed);
  if (fileKey === undefined || end === undefined) throw new Error('the age library made no header');
  return { bytes: sealed.subarray(0, end), fileKey };
}

/** Gives where the header ends, behind the line that begins with `---`; undefined while it has not come. */
function headerEnd(bytes: Buffer): number | undefined {
  const mac = bytes.indexOf('\n--- ');
  const end = mac < 0 ? -1 : bytes.indexOf('\n', mac + 1);
  return end < 0 ? undefined : end + 1;
}

async function readHeader(
  source: AsyncIterator<Uint8Array>,
  identities: readonly (string | Identity)[],
  seen: ((bytes: Uint8Array) => void) | undefined,
): Promise<{ fileKey: Uint8Array; rest: Uint8Array }> {
  const { Decrypter } = await import('age-encryption');
  let bytes = Buffer.alloc(0);
  let end: number | undefined;
  while (end === undefined && bytes.byteLength < HEADER_LIMIT) {
    const { done, value } = await source.next();
    if (done) break;
    bytes = Buffer.concat([bytes, value]);
    end = headerEnd(bytes);
  }
  if (end === undefined) throw new Error('the object has no age header');
  const header = new Uint8Array(bytes.subarray(0, end));
  seen?.(header);
  const decrypter = new Decrypter();
  for (const identity of identities) decrypter.addIdentity(identity);
  return { fileKey: await decrypter.decryptHeader(header), rest: bytes.subarray(end) };
}

function payloadKey(fileKey: Uint8Array, nonce: Uint8Array): Buffer {
  return Buffer.from(hkdfSync('sha256', fileKey, nonce, 'payload', 32));
}

/** Counts the chunks of a payload: eleven bytes of number, and one that is 1 for the last chunk. */
function counter(): (last: boolean) => Buffer {
  const nonce = Buffer.alloc(12);
  let number = 0;
  return (last) => {
    // Six bytes of numbers are for 16 exabytes.
    nonce.writeUIntBE(number, 5, 6);
    nonce[11] = last ? 1 : 0;
    number += 1;
    return nonce;
  };
}

/** Closes what it is given in chunks; it keeps the last of them back until it knows whether more follow. */
function sealer(key: Buffer): (plain: Uint8Array, last: boolean) => Buffer {
  const nonce = counter();
  const kept = Buffer.alloc(CHUNK);
  let used = 0;
  const sealOne = (parts: readonly Uint8Array[], last: boolean): Buffer[] => {
    const cipher = createCipheriv('chacha20-poly1305', key, nonce(last), cipherOptions);
    const sealed = parts.map((part) => cipher.update(part));
    cipher.final();
    return [...sealed, cipher.getAuthTag()];
  };
  return (plain, last) => {
    const sealed: Buffer[] = [];
    let at = 0;
    // Only a chunk behind which there is more is surely not the last.
    while (used + plain.byteLength - at > CHUNK) {
      const end = at + CHUNK - used;
      const part = plain.subarray(at, end);
      sealed.push(...sealOne(used === 0 ? [part] : [kept.subarray(0, used), part], false));
      used = 0;
      at = end;
    }
    kept.set(plain.subarray(at), used);
    used += plain.byteLength - at;
    if (last) sealed.push(...sealOne([kept.subarray(0, used)], true));
    return Buffer.concat(sealed);
  };
}

/** Opens chunks: whole ones, or the last of the stream. Gives nothing before all of their tags are proven. */
function opener(key: Buffer): (sealed: Uint8Array, last: boolean) => Buffer {
  const nonce = counter();
  let first = true;
  return (sealed, last) => {
    const parts: Buffer[] = [];
    for (let at = 0; at < sealed.byteLength || (last && at === 0); at += CHUNK + TAG) {
      const chunk = sealed.subarray(at, at + CHUNK + TAG);
      const size = chunk.byteLength - TAG;
      if (size < 0) throw new Error('the payload is cut off');
      if (size === 0 && !first) throw new Error('the payload ends with an empty chunk');
      const decipher = createDecipheriv(
        'chacha20-poly1305',
        key,
        nonce(last && at + CHUNK + TAG >= sealed.byteLength),
        cipherOptions,
      );
      decipher.setAuthTag(chunk.subarray(size));
      const part = decipher.update(chunk.subarray(0, size));
      decipher.final();
      parts.push(part);
      first = false;
    }
    return parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts);
  };
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

/** Closes for whoever knows a passphrase. */
export async function passphraseRecipient(passphrase: string): Promise<Recipient> {
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

/** Opens with a passphrase. */
export function passphraseIdentity(passphrase: string): Identity {
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
