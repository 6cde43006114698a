import { execFileSync, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { zstdCompressSync } from 'node:zlib';
import { Decrypter, Encrypter, generateIdentity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import { decrypt, encrypt } from '../../src/postgres/age.ts';
import { ahead, pieces } from '../../src/postgres/flow.ts';
import { type ClosedFor, type Sealing, seal, unseal } from '../../src/postgres/seal.ts';
import { compress, decompress } from '../../src/postgres/zstd.ts';

const hasStock = ['age', 'zstd'].every((name) => spawnSync(name, ['--version']).status === 0);
const CHUNK = 65_536;
const SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK];
const sample = randomBytes(3 * CHUNK);
const source = (...parts: Uint8Array[]): Readable => Readable.from(parts.length === 0 ? [Buffer.alloc(0)] : parts);
/** Cuts bytes into pieces of a size. */
const cut = (bytes: Buffer, size: number): Buffer[] =>
  Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size));

let identity: string;
let others: string[];
let recipients: string[];
beforeAll(async () => {
  identity = await generateIdentity();
  others = [await generateIdentity(), await generateIdentity()];
  recipients = await Promise.all([others[0]!, identity, others[1]!].map((each) => identityToRecipient(each)));
});

describe('the age payload', () => {
  it.each(SIZES)('of %i bytes is read by the library, and the library’s by us, in any pieces', async (size) => {
    const plain = sample.subarray(0, size);
    const decrypter = new Decrypter();
    decrypter.addIdentity(identity);
    const encrypter = new Encrypter();
    encrypter.addRecipient(recipients[1]!);
    for (const pieceSize of [1_000, CHUNK, 100_000]) {
      const ours = await buffer(encrypt(source(...cut(plain, pieceSize)), recipients));
      expect(Buffer.from(await decrypter.decrypt(ours)).equals(plain)).toBe(true);
      const theirs = Buffer.from(await encrypter.encrypt(plain));
      expect(ours.length - theirs.length).toBe(2 * 98);
      for (const bytes of [ours, theirs]) {
        expect((await buffer(decrypt(source(...cut(bytes, pieceSize)), [identity]))).equals(plain)).toBe(true);
      }
    }
  });

  it('refuses an empty last chunk behind others, and anything behind the last', async () => {
    const sealed = await buffer(encrypt(source(sample), recipients));
    await expect(buffer(decrypt(source(sealed, Buffer.from('x')), [identity]))).rejects.toThrow();
    await expect(buffer(decrypt(source(sealed, sealed.subarray(-16)), [identity]))).rejects.toThrow();
    // Without the last chunk the one before would have to be the last.
    await expect(buffer(decrypt(source(sealed.subarray(0, -CHUNK - 16)), [identity]))).rejects.toThrow();
  });

  it('gives out no byte of a chunk that is not proven', async () => {
    const sealed = await buffer(encrypt(source(sample), recipients));
    const place = sealed.length - 2 * (CHUNK + 16) + 5;
    sealed[place] = sealed[place]! ^ 1;
    const got: Buffer[] = [];
    await expect(
      (async () => {
        for await (const part of decrypt(source(...cut(sealed, 10_000)), [identity])) got.push(part);
      })(),
    ).rejects.toThrow();
    expect(Buffer.concat(got).equals(sample.subarray(0, CHUNK))).toBe(true);
  });
});

describe('damage', () => {
  const open = async (bytes: Buffer, encrypted: boolean, closedFor: ClosedFor, key = identity): Promise<Buffer[]> => {
    const got: Buffer[] = [];
    try {
      for await (const part of unseal(source(bytes), encrypted, { identity: key }, closedFor))
        got.push(Buffer.from(part));
      return got;
    } catch (cause) {
      if (!(cause instanceof HoldfastError)) throw cause;
      throw Object.assign(cause, { got: Buffer.concat(got) });
    }
  };
  const sealed = async (plain: Uint8Array, sealing: Sealing): Promise<{ bytes: Buffer; closedFor: ClosedFor }> => {
    let headerSha256: string | undefined;
    const bytes = await buffer(
      seal(source(plain), sealing, 3, (header) => {
        headerSha256 = createHash('sha256').update(header).digest('hex');
      }),
    );
    return { bytes, closedFor: { headerSha256 } };
  };
  /** What opening it came to: a code, and whether what came out was right as far as it went. */
  const outcome = async (bytes: Buffer, closedFor: ClosedFor, plain: Buffer): Promise<string> => {
    const failure = await open(bytes, true, closedFor).then(
      () => undefined,
      (cause: HoldfastError & { got: Buffer }) => cause,
    );
    if (failure === undefined) return 'opened';
    const right = failure.got.equals(plain.subarray(0, failure.got.length));
    return right ? failure.code : `${failure.code} after wrong bytes`;
  };
  const flipped = (bytes: Buffer, place: number): Buffer => {
    const bent = Buffer.from(bytes);
    bent[place] = bent[place]! ^ (1 + (place % 255));
    return bent;
  };

  it('of every single byte and every length of a small object is INTEGRITY_FAILED, never a wrong key', async () => {
    const plain = Buffer.from('holdfast '.repeat(20));
    const { bytes, closedFor } = await sealed(plain, { scheme: 'age', recipients: recipients.slice(0, 2) });
    const found = new Set<string>();
    for (let place = 0; place < bytes.length; place += 1)
      found.add(await outcome(flipped(bytes, place), closedFor, plain));
    for (let length = 0; length < bytes.length; length += 1) {
      found.add(await outcome(bytes.subarray(0, length), closedFor, plain));
    }
    found.add(await outcome(Buffer.concat([bytes, bytes.subarray(0, 1)]), closedFor, plain));
    expect([...found]).toEqual(['INTEGRITY_FAILED']);
    expect(await outcome(bytes, closedFor, plain)).toBe('opened');
  });

  it('of headers, boundaries and samples of a large object is INTEGRITY_FAILED, and no wrong byte comes out', async () => {
    const plain = randomBytes(2 * 1024 * 1024 + 5 * CHUNK);
    const { bytes, closedFor } = await sealed(plain, { scheme: 'age', recipients: [recipients[1]!] });
    const header = bytes.indexOf('\n--- ');
    const payload = bytes.indexOf('\n', header + 1) + 1;
    const places = Array.from({ length: 16 }, (_, i) => payload + i);
    for (let edge = payload + 16; edge < bytes.length; edge += CHUNK + 16) places.push(edge - 1, edge, edge + CHUNK);
    places.push(bytes.length - 17, bytes.length - 16, bytes.length - 1);
    const found = new Set<string>();
    for (const place of places.filter((each) => each < bytes.length)) {
      found.add(await outcome(flipped(bytes, place), closedFor, plain));
      found.add(await outcome(bytes.subarray(0, place), closedFor, plain));
    }
    expect([...found]).toEqual(['INTEGRITY_FAILED']);
  });

  it('is told from a wrong key by the recipients as well, and a wrong key from damage by both', async () => {
    const { bytes, closedFor } = await sealed(sample, { scheme: 'age', recipients: [recipients[1]!] });
    const stanza = flipped(bytes, bytes.indexOf('X25519') + 12);
    await expect(open(stanza, true, { recipients })).rejects.toMatchObject({ code: 'INTEGRITY_FAILED' });
    for (const known of [{}, closedFor, { recipients: [recipients[1]!] }]) {
      await expect(open(bytes, true, known, others[0])).rejects.toMatchObject({ code: 'AUTHENTICATION_FAILED' });
    }
  });

  it('of a header closed by passphrase is told from a wrong passphrase', async () => {
    const { bytes, closedFor } = await sealed(sample, { scheme: 'age', passphrase: 'correct horse' });
    const from = bytes.indexOf(' 18\n') + 6;
    await expect(
      buffer(unseal(source(flipped(bytes, from)), true, { passphrase: 'correct horse' }, closedFor)),
    ).rejects.toMatchObject({ code: 'INTEGRITY_FAILED' });
    await expect(buffer(unseal(source(bytes), true, { passphrase: 'wrong horse' }, closedFor))).rejects.toMatchObject({
      code: 'AUTHENTICATION_FAILED',
    });
  }, 60_000);
});

describe('zstd', () => {
  const large = Buffer.concat([Buffer.alloc(3_000_000, 'text '), randomBytes(2_500_000)]);

  it('is made of frames that come back together, in any pieces', async () => {
    const compressed = await buffer(compress(source(...cut(large, 70_001)), 3));
    for (const size of [501, 100_000, compressed.length]) {
      expect((await buffer(decompress(source(...cut(compressed, size))))).equals(large)).toBe(true);
    }
    expect(await buffer(decompress(compress(source(), 3)))).toHaveLength(0);
  });

  it('takes frames of others: without a checksum, repeated blocks, skippable ones', async () => {
    const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
    const bytes = Buffer.concat([zstdCompressSync(Buffer.alloc(400_000)), skippable, zstdCompressSync(large)]);
    const expected = Buffer.concat([Buffer.alloc(400_000), large]);
    expect((await buffer(decompress(source(...cut(bytes, 65_000))))).equals(expected)).toBe(true);
  });

  it('refuses what is cut off inside a frame, is followed by something else, or is nothing', async () => {
    const compressed = await buffer(compress(source(large), 3));
    const broken = [
      ...[0, 1, 4, 5, 9, 200_000, compressed.length - 1].map((length) => compressed.subarray(0, length)),
      Buffer.concat([compressed, Buffer.from('more')]),
    ];
    for (const bytes of broken) {
      await expect(buffer(decompress(source(bytes)))).rejects.toMatchObject({ code: 'INTEGRITY_FAILED' });
    }
  });
});

describe('reading ahead', () => {
  it('gives results in order, works on few at a time, and hands on the failure of the work', async () => {
    let running = 0;
    let most = 0;
    const work = async (item: number): Promise<number> => {
      running += 1;
      most = Math.max(most, running);
      // The later one of two ends first.
      for (let turns = item % 2 === 1 ? 5 : 1; turns > 0; turns -= 1) await new Promise(setImmediate);
      running -= 1;
      if (item === 8) throw new Error('the eighth');
      return item;
    };
    const got: number[] = [];
    await expect(
      (async () => {
        for await (const item of ahead(Readable.from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), work, 2)) got.push(item);
      })(),
    ).rejects.toThrow('the eighth');
    expect(got).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(most).toBe(2);
  });

  it('cuts a stream into pieces of one size and copies what it is given', async () => {
    const lent = Buffer.from('abcd');
    async function* lender(): AsyncGenerator<Buffer> {
      yield lent;
      lent.fill('-');
      yield Buffer.from('efg');
    }
    const got: string[] = [];
    for await (const piece of pieces(lender(), 3)) got.push(piece.toString());
    expect(got).toEqual(['abc', 'def', 'g']);
  });
});

describe.skipIf(!hasStock)(`the stock commands${hasStock ? '' : ' (skipped: age and zstd are not installed)'}`, () => {
  const directory = mkdtempSync(join(tmpdir(), 'hf-age-'));
  afterAll(() => rmSync(directory, { recursive: true }));

  it.each(SIZES)('open %i bytes that we sealed for several, with each key, and we what they sealed', async (size) => {
    const plain = sample.subarray(0, size);
    const sealed = await buffer(seal(source(plain), { scheme: 'age', recipients }, 3));
    writeFileSync(join(directory, 'sealed'), sealed);
    for (const key of [identity, ...others]) {
      writeFileSync(join(directory, 'key'), `${key}\n`, { mode: 0o600 });
      const compressed = execFileSync('age', ['-d', '-i', 'key', 'sealed'], { cwd: directory });
      expect(execFileSync('zstd', ['-d', '-c'], { input: compressed }).equals(plain)).toBe(true);
    }
    const theirs = execFileSync(
      'age',
      recipients.flatMap((each) => ['-r', each]),
      {
        input: execFileSync('zstd', ['-c', '-q', '--check'], { input: plain }),
      },
    );
    expect((await buffer(unseal(source(theirs), true, { identity }))).equals(plain)).toBe(true);
  });

  it('open several frames, and we a stream of one', async () => {
    const large = Buffer.concat([Buffer.alloc(6_000_000, 'text '), sample]);
    const sealed = await buffer(seal(source(large), { scheme: 'none' }, 3));
    expect(execFileSync('zstd', ['-d', '-c'], { input: sealed, maxBuffer: 2e7 }).equals(large)).toBe(true);
    const theirs = execFileSync('zstd', ['-c', '-q', '-9'], { input: large });
    expect((await buffer(unseal(source(theirs), false, {}))).equals(large)).toBe(true);
  });
});
