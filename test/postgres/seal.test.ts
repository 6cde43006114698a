import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  assertOpens,
  type Keys,
  probe,
  publicKeys,
  type Sealing,
  seal,
  Tally,
  unseal,
} from '../../src/postgres/seal.ts';

const run = promisify(execFile);
const hasStock = ['age', 'zstd'].every((name) => spawnSync(name, ['--version']).status === 0);

// Half of it does not compress, so that there are several chunks of age's 64 KiB.
const noise = Array.from({ length: 5_000 }, (_, i) => createHash('sha256').update(String(i)).digest());
const plain = Buffer.concat([Buffer.alloc(150_000, 'text '), ...noise]);

let identity: string;
let sealing: Extract<Sealing, { recipients: readonly string[] }>;
let sealed: Buffer;
const open = (bytes: Buffer, keys: Keys, encrypted = true): Promise<Buffer> =>
  buffer(unseal(Readable.from([bytes], { objectMode: false }), encrypted, keys));

beforeAll(async () => {
  identity = await generateIdentity();
  sealing = { scheme: 'age', recipients: [await identityToRecipient(identity)] };
  sealed = await buffer(seal(Readable.from([plain.subarray(0, 70_000), plain.subarray(70_000)]), sealing, 3));
});

describe('sealing', () => {
  it('gives back what was sealed, whatever the pieces it comes in', async () => {
    expect((await open(sealed, { identity })).equals(plain)).toBe(true);
    const pieces = Array.from({ length: Math.ceil(sealed.length / 777) }, (_, i) =>
      sealed.subarray(i * 777, (i + 1) * 777),
    );
    expect((await buffer(unseal(Readable.from(pieces), true, { identity }))).equals(plain)).toBe(true);
  });

  it('takes an identity file as age-keygen writes it, with comments', async () => {
    const file = `# created: 2026-11-21\n# public key: age1\n${identity}\n`;
    expect((await open(sealed, { identity: file })).equals(plain)).toBe(true);
    expect(await publicKeys(file)).toEqual(sealing.recipients);
  });

  it('works by passphrase and without encryption', async () => {
    const byWord = await buffer(seal(Readable.from([plain]), { scheme: 'age', passphrase: 'correct horse' }, 3));
    expect((await open(byWord, { passphrase: 'correct horse' })).equals(plain)).toBe(true);
    await expect(open(byWord, { passphrase: 'wrong horse' })).rejects.toMatchObject({ code: 'AUTHENTICATION_FAILED' });
    const bare = await buffer(seal(Readable.from([plain]), { scheme: 'none' }, 3));
    expect((await open(bare, {}, false)).equals(plain)).toBe(true);
  }, 60_000);

  it('refuses the wrong key, no key, and what is no key', async () => {
    const other = await generateIdentity();
    for (const keys of [{ identity: other }, {}, { identity: 'not a key' }]) {
      await expect(open(sealed, keys)).rejects.toMatchObject({ code: 'AUTHENTICATION_FAILED' });
      await expect(assertOpens(Readable.from([sealed]), keys)).rejects.toMatchObject({ code: 'AUTHENTICATION_FAILED' });
    }
    await expect(open(sealed, { identity: other })).rejects.not.toThrow(other);
  });

  it('refuses the object cut off anywhere', async () => {
    const cuts = [0, 1, 100, 200, 250, 65_536, 65_800, sealed.length - 17, sealed.length - 1];
    for (const cut of cuts) {
      await expect(open(sealed.subarray(0, cut), { identity }), `cut at ${cut}`).rejects.toMatchObject({
        code: 'INTEGRITY_FAILED',
      });
    }
  });

  it('refuses a flipped bit anywhere behind the keys of the header', async () => {
    const header = sealed.indexOf('\n--- ') + 5;
    const places = Array.from({ length: 24 }, (_, i) => header + Math.floor(((sealed.length - header - 1) * i) / 23));
    for (const place of places) {
      const bent = Buffer.from(sealed);
      bent[place] = bent[place]! ^ 4;
      await expect(open(bent, { identity }), `bit at ${place}`).rejects.toMatchObject({ code: 'INTEGRITY_FAILED' });
    }
  });

  it('refuses flips and cuts without encryption too', async () => {
    const bare = await buffer(seal(Readable.from([plain]), { scheme: 'none' }, 3));
    for (const cut of [0, 3, 1000, bare.length - 1]) {
      await expect(open(bare.subarray(0, cut), {}, false), `cut at ${cut}`).rejects.toMatchObject({
        code: 'INTEGRITY_FAILED',
      });
    }
    const bent = Buffer.from(bare);
    bent[bare.length - 2_000] = bent[bare.length - 2_000]! ^ 1;
    await expect(open(bent, {}, false)).rejects.toMatchObject({ code: 'INTEGRITY_FAILED' });
  });

  it('passes the failure of its source on, and ends the source when nobody reads on', async () => {
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield plain;
      throw new Error('the source died');
    }
    await expect(buffer(seal(failing(), sealing, 3))).rejects.toThrow('the source died');
    const ended = Promise.withResolvers<string>();
    async function* endless(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield plain.subarray(150_000);
      } finally {
        ended.resolve('ended');
      }
    }
    for await (const _ of seal(endless(), sealing, 3)) break;
    expect(await ended.promise).toBe('ended');
  });

  it('counts and hashes what flows past', async () => {
    const tally = new Tally();
    await buffer(tally.tap(Readable.from([Buffer.from('abc')])));
    expect(tally.bytes).toBe(3);
    expect(tally.sha256).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
  });

  it('proves before a backup that it can be opened again', async () => {
    expect(await probe(sealing, { identity })).toBe('opens');
    expect(await probe(sealing, {})).toBe('no_identity_here');
    expect(await probe({ scheme: 'none' }, {})).toBe('not_encrypted');
    await expect(probe(sealing, { identity: await generateIdentity() })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
    });
    await expect(probe({ scheme: 'age', recipients: ['age1nonsense'] }, {})).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
    });
  });
});

describe.skipIf(!hasStock)(`the stock commands${hasStock ? '' : ' (skipped: age and zstd are not installed)'}`, () => {
  const directory = mkdtempSync(join(tmpdir(), 'hf-seal-'));
  afterAll(() => rmSync(directory, { recursive: true }));

  it('open what Holdfast sealed', async () => {
    writeFileSync(join(directory, 'sealed'), sealed);
    writeFileSync(join(directory, 'key'), `${identity}\n`, { mode: 0o600 });
    const script = 'age -d -i key sealed | zstd -d -c > plain && cmp plain expected';
    writeFileSync(join(directory, 'expected'), plain);
    await run('sh', ['-c', script], { cwd: directory });
  });

  it('seal what Holdfast opens', async () => {
    const { recipients } = sealing;
    const compressed = execFileSync('zstd', ['-c', '-q'], { input: plain });
    const theirs = execFileSync('age', ['-r', recipients[0]!], { input: compressed });
    expect((await open(theirs, { identity })).equals(plain)).toBe(true);
  });
});
