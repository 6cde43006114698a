import { describe, expect, it } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import { isSecretName } from '../../src/core/secret-name.ts';
import { cleanText } from '../../src/core/text.ts';
import { createRedactor, MASK } from '../../src/observability/redaction.ts';

/** A small seeded generator (mulberry32), so that a failing case can be run again. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const ALPHABETS = [
  'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789',
  'abc019+/=_-.~!*\'()&?%#@:;$,<>[]{}|^` "\\',
  'äöüßéñ漢字🔑\t\nxyz',
];

function canary(random: () => number): string {
  const letters = [...(ALPHABETS[Math.floor(random() * ALPHABETS.length)] as string)];
  const length = 4 + Math.floor(random() * 40);
  const text = Array.from({ length }, () => letters[Math.floor(random() * letters.length)]).join('');
  // White space at the ends is no part of a secret, and a canary of nothing but spaces none at all.
  return `k${text.trim()}z9`;
}

const FORMS: readonly ((secret: string) => string)[] = [
  (secret) => secret,
  (secret) => encodeURIComponent(secret),
  (secret) => encodeURIComponent(secret).replace(/%[0-9A-F]{2}/g, (code) => code.toLowerCase()),
  (secret) => new URLSearchParams({ q: secret }).toString().slice(2),
  (secret) => JSON.stringify(secret).slice(1, -1),
  (secret) => JSON.stringify(JSON.stringify(secret)).slice(3, -3),
  (secret) => Buffer.from(secret).toString('base64'),
  (secret) => Buffer.from(secret).toString('base64url'),
  (secret) => encodeURIComponent(Buffer.from(secret).toString('base64')),
];

const LEAVES: readonly ((text: string) => unknown)[] = [
  (text) => text,
  (text) => `before ${text} after`,
  (text) => ({ [`key ${text}`]: 'value' }),
  (text) => Object.assign(new Error(`failed: ${text}`), { extra: text }),
  (text) => new HoldfastError('INTERNAL', 'wrapped', { cause: new Error(text) }),
];
const CONTAINERS: readonly ((inner: unknown) => unknown)[] = [
  (inner) => ({ note: inner, other: 1 }),
  (inner) => [null, inner, true],
  (inner) => new Map([['entry', inner]]),
  (inner) => new Set([inner]),
  (inner) => ({ toJSON: () => ({ inner }) }),
];

/** Puts a text somewhere inside a random nest of objects, lists, maps, sets and errors. */
function nest(text: string, random: () => number): unknown {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  let value = pick(LEAVES)(text);
  for (let depth = Math.floor(random() * 8); depth > 0; depth -= 1) value = pick(CONTAINERS)(value);
  return value;
}

describe('registered values', () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])('leaves no canary in any form at any depth (seed %i)', (seed) => {
    const random = seeded(seed);
    const redactor = createRedactor();
    const secrets = Array.from({ length: 20 }, () => canary(random));
    for (const secret of secrets) redactor.conceal(secret);
    for (const secret of secrets) {
      for (const form of FORMS) {
        const shown = form(secret);
        const nested = nest(shown, random);
        const out = JSON.stringify(redactor.redactJson(nested));
        expect(out, `secret ${JSON.stringify(secret)} as ${shown}`).not.toContain(jsonInside(shown));
        expect(redactor.redactText(`a ${shown} b`)).not.toContain(shown);
        expect(out).toContain(MASK);
      }
    }
  });

  it('masks a password inside the base64 of basic authentication, whatever the user name’s length', () => {
    const redactor = createRedactor();
    redactor.conceal('correct-horse-battery');
    for (const user of ['', 'a', 'ab', 'abc', 'abcd']) {
      const encoded = Buffer.from(`${user}:correct-horse-battery`).toString('base64');
      const out = redactor.redactText(`header ${encoded}`);
      expect(out).toContain(MASK);
      expect(Buffer.from(out.slice(7).replaceAll(MASK, ''), 'base64').toString()).not.toContain('horse');
    }
  });

  it('leaves no rest of secrets that overlap', () => {
    const redactor = createRedactor();
    redactor.conceal('abcdef');
    redactor.conceal('defghi');
    redactor.conceal('cde1');
    expect(redactor.redactText('-abcdefghi-')).toBe(`-${MASK}-`);
    expect(redactor.redactText('abcdefabcdef')).toBe(MASK);
  });

  it('does not register values of fewer than four characters', () => {
    const redactor = createRedactor();
    redactor.conceal('abc');
    redactor.conceal('');
    expect(redactor.redactText('abc abc')).toBe('abc abc');
  });

  it('masks each secret of a key file that is JSON, and nothing else of it', () => {
    const redactor = createRedactor();
    const file = {
      type: 'service_account',
      project_id: 'shop-prod',
      private_key: '-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n-----END PRIVATE KEY-----\n',
    };
    redactor.conceal(JSON.stringify(file, null, 2));
    expect(redactor.redactText('project shop-prod, type service_account')).toBe(
      'project shop-prod, type service_account',
    );
    expect(redactor.redactText('line MIIEvQIBADANBgkqhkiG9w0 of the key')).toBe(`line ${MASK} of the key`);
  });

  it('masks the lines of a secret of several lines', () => {
    const redactor = createRedactor();
    redactor.conceal('first-line-of-a-long-secret\nsecond-line-of-a-long-secret\n');
    expect(redactor.redactText('got second-line-of-a-long-secret')).toBe(`got ${MASK}`);
  });

  it('forgets the oldest values that are not used again, and no others', () => {
    const redactor = createRedactor();
    redactor.conceal('kept-by-use-0000');
    redactor.conceal('oldest-of-all-0000');
    for (let count = 0; count < 4000; count += 1) {
      redactor.conceal(`token-number-${count}`);
      redactor.conceal('kept-by-use-0000');
    }
    expect(redactor.redactText('kept-by-use-0000 token-number-17 token-number-3999')).toBe(`${MASK} ${MASK} ${MASK}`);
    expect(redactor.redactText('oldest-of-all-0000')).toBe('oldest-of-all-0000');
  });

  it('masks a value registered after texts without it went through', () => {
    const redactor = createRedactor();
    expect(redactor.redactText('x later-secret')).toBe('x later-secret');
    redactor.conceal('later-secret');
    expect(redactor.redactText('x later-secret')).toBe(`x ${MASK}`);
  });
});

describe('shapes', () => {
  const redactor = createRedactor();
  const masked: readonly [string, string][] = [
    ['postgres://app:pa55w0rd@db.internal:5432/shop', 'pa55w0rd'],
    ['postgres://app:p@ss/w:rd@db.internal/shop', 'ss/w:rd'],
    ['postgres://user@server:pa55w0rd@db/shop', 'pa55w0rd'],
    ['postgres://app:1234/pa55w0rd@db/shop', 'pa55w0rd'],
    ['redis://:onlypass@127.0.0.1:6379', 'onlypass'],
    ['abs://:Zm9v/YmFy+Q==@account/container', 'Zm9v/YmFy+Q=='],
    ['s3://AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI@bucket/path', 'wJalrXUtnFEMI'],
    ['ftp://u:@@host/x', '@@'],
    ['https://ghtokenghtokenghtokenghtoken@example.com/repo', 'ghtokenghtokenghtokenghtoken'],
    ['https://b.s3.amazonaws.com/o?X-Amz-Credential=AKID%2F2026&X-Amz-Signature=deadbeef01&x=1', 'deadbeef01'],
    ['https://b.s3.amazonaws.com/o?X-Amz-Credential=AKID%2F2026&X-Amz-Signature=deadbeef01&x=1', 'AKID%2F2026'],
    ['https://storage.googleapis.com/o?X-Goog-Signature=abc123def', 'abc123def'],
    ['https://a.blob.core.windows.net/c/b?sv=2024&sig=Qm%2Fx%3D&se=2026', 'Qm%2Fx%3D'],
    ['next=https%3A%2F%2Fh%2Fo%3Fsig%3DQm9vbQ', 'Qm9vbQ'],
    ['Authorization: Bearer abc123', 'abc123'],
    ['sent with bearer ZZtop_token_value', 'ZZtop_token_value'],
    ['Authorization: Basic dXNlcjpwYXNz', 'dXNlcjpwYXNz'],
    ['"authorization":"Digest username=joe, response=77aa"', '77aa'],
    ['Cookie: session=abc; other=def', 'def'],
    ['host=h user=u password=hunter2 dbname=d', 'hunter2'],
    ["password='two words' x", 'two words'],
    ['{"password":"qu\\"ote","a":1}', 'ote'],
    ['"{\\"password\\":\\"inner secret\\",\\"a\\":1}"', 'inner secret'],
    ['PGPASSWORD=hunter2 psql', 'hunter2'],
    ['psql --password hunter2 -h x', 'hunter2'],
    ['apiKey: "k-1"', 'k-1'],
    ['client_secret=>"s"', '"s"'],
    ['DefaultEndpointsProtocol=https;AccountKey=Zm9vYmFy==;EndpointSuffix=x', 'Zm9vYmFy'],
    ['-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----', 'MIIabc'],
    ['x -----BEGIN PRIVATE KEY-----\\nMIIabc and the rest is cut off', 'MIIabc'],
    ['key AKIAIOSFODNN7EXAMPLE used', 'AKIAIOSFODNN7EXAMPLE'],
    ['dop_v1_0123456789abcdef0123456789abcdef', '0123456789abcdef'],
    ['eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln', 'eyJzdWIiOiIxIn0'],
    ['post to https://hooks.slack.com/services/T000/B000/XXXXYYYY', 'XXXXYYYY'],
    ['AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQ', 'QQQQQ'],
    ['token hfc_Zm9vYmFyYmF6cXV4 is live', 'hfc_Zm9v'],
  ];
  it.each(masked)('masks in %j', (text, secret) => {
    const out = redactor.redactText(text);
    expect(out).not.toContain(secret);
    expect(out).toContain(MASK);
    expect(redactor.redactText(out)).toBe(out);
  });

  it.each([
    'GET http://127.0.0.1:8080/path/users@example',
    'Bearer tokens and Basic authentication are refused',
    '{"token_sha256":"00ff","secret_ref":"atlas","next_page_token":"p2"}',
    'password: ${env:PGPASSWORD}',
    'a token must be renewed; the secret is kept elsewhere',
    's3://bucket/prefix and arn:aws:rds:us-east-1:123456789012:snapshot:nightly',
    'restored my-app/prod-postgres at 2026-11-21T10:00:00Z (1.2 GiB)',
    'ssh://git@example.com/repo',
  ])('leaves alone %j', (text) => {
    expect(redactor.redactText(text)).toBe(text);
  });

  it('keeps the user and host of an address', () => {
    expect(redactor.redactText('postgres://app:pw1234@db/shop?x=1')).toBe(`postgres://app:${MASK}@db/shop?x=1`);
  });

  it('keeps confirmation tokens only when asked to', () => {
    const answer = { confirmation: { token: 'hfc_Zm9vYmFyYmF6cXV4', code: '7K3Q-F2MD' }, password: 'hfc and more' };
    expect(redactor.redactJson(answer)).toEqual({ confirmation: { token: MASK, code: '7K3Q-F2MD' }, password: MASK });
    expect(redactor.redactJson(answer, { keepConfirmationTokens: true })).toEqual({
      confirmation: { token: 'hfc_Zm9vYmFyYmF6cXV4', code: '7K3Q-F2MD' },
      password: MASK,
    });
  });
});

describe('values under telling keys', () => {
  const redactor = createRedactor();

  it('masks strings and lists of strings, not numbers, references or what is about a secret', () => {
    expect(
      redactor.redactJson({
        masterPassword: 'x',
        secrets: ['a', 'b'],
        token: 80,
        password: '',
        credentials: { secret: 'env', name: 'PGPASSWORD' },
        passphrase: 'file',
        api_key: '${env:KEY}',
        token_sha256: 'ab',
        deeper: [{ 'x-api-key': 'k' }],
      }),
    ).toEqual({
      masterPassword: MASK,
      secrets: [MASK, MASK],
      token: 80,
      password: '',
      credentials: { secret: 'env', name: 'PGPASSWORD' },
      passphrase: MASK,
      api_key: '${env:KEY}',
      token_sha256: 'ab',
      deeper: [{ 'x-api-key': MASK }],
    });
  });

  it('tells secrets from what only sounds like them', () => {
    const secret = [
      'password',
      'PGPASSWORD',
      'AWS_SECRET_ACCESS_KEY',
      'connection_uri',
      'primaryMasterKey',
      'id_token',
    ];
    const not = ['tokens', 'author', 'kms_key_id', 'key_schema', 'nextPageToken', 'AWS_ACCESS_KEY_ID', 'secret_ref'];
    expect(secret.filter((name) => !isSecretName(name))).toEqual([]);
    expect(not.filter(isSecretName)).toEqual([]);
  });
});

describe('odd values', () => {
  const redactor = createRedactor();

  it('survives cycles, depth, getters that throw, bytes, dates and big numbers', () => {
    const cycle: Record<string, unknown> = {
      bytes: Buffer.from('secret'),
      when: new Date(0),
      big: 10n,
      none: undefined,
    };
    cycle['self'] = cycle;
    expect(redactor.redactJson(cycle)).toEqual({
      bytes: '[6 bytes]',
      when: '1970-01-01T00:00:00.000Z',
      big: '10',
      none: undefined,
      self: '[circular]',
    });
    let deep: unknown = 'password=x1';
    for (let level = 0; level < 200; level += 1) deep = { deep };
    expect(JSON.stringify(redactor.redactJson(deep))).toContain('[too deep]');
    const bad = {
      get broken(): string {
        throw new Error('no');
      },
    };
    expect(redactor.redactJson(bad)).toBe('[cannot be shown]');
  });

  it('keeps a member called __proto__ without touching the prototype', () => {
    const out = redactor.redactJson(JSON.parse('{"__proto__":{"password":"x"}}')) as object;
    expect(Object.getPrototypeOf(out)).toBe(Object.prototype);
    expect(JSON.stringify(out)).toBe(`{"__proto__":{"password":"${MASK}"}}`);
  });

  it.each([
    ['://a:'.repeat(20_000)],
    [`${'://a:'.repeat(20_000)}@`],
    [`${'://localhost:1/'.repeat(8000)}@`],
    ['password='.repeat(12_000)],
    ['-----BEGIN A-----'.repeat(6000)],
    ['-eyJ'.repeat(25_000)],
    [`password="${'\\'.repeat(100_000)}`],
    ['token"'.repeat(15_000)],
    ['a'.repeat(200_000)],
    ['?key='.repeat(20_000)],
  ])('takes no more than a moment over a hostile text (case %#)', (text) => {
    const began = performance.now();
    redactor.redactText(text);
    expect(performance.now() - began).toBeLessThan(2000);
  });
});

function jsonInside(text: string): string {
  return JSON.stringify(text).slice(1, -1);
}

describe('what a caller gives as a secret', () => {
  const strong = 'Kx7-pQ2v9Tz_Lm4s';
  const uri = `ftp://backup:${strong}@files.example.com/carts.rdb.gz`;

  it('is masked within the call and in what it starts, however short', async () => {
    const redactor = createRedactor();
    const later = redactor.concealing(['hunter2-8', uri], async () => {
      expect(redactor.redactText('with hunter2-8 inside')).toBe(`with ${MASK} inside`);
      await new Promise((resolve) => setImmediate(resolve));
      return redactor.redactText(`still ${uri}, hunter2-8`);
    });
    expect(redactor.redactText('with hunter2-8 inside')).toBe('with hunter2-8 inside');
    expect(await later).toBe(`still ${MASK}, ${MASK}`);
  });

  it('stays masked afterwards where it is a generated credential, decoded too', () => {
    const redactor = createRedactor();
    const encoded = 'ftp://backup:Kx7%2FpQ2v9Tz%2BLm4s@files.example.com/carts.rdb.gz';
    redactor.concealing([uri, encoded], () => undefined);
    expect(redactor.redactText(`530 login of backup with ${strong} refused`)).not.toContain(strong);
    expect(redactor.redactText('530 login of backup with Kx7/pQ2v9Tz+Lm4s refused')).toContain(MASK);
    expect(redactor.redactText('files.example.com/carts.rdb.gz')).toBe('files.example.com/carts.rdb.gz');
  });

  it.each([
    'CONFIRMATION_REQUIRED',
    'sandbox-cluster-of-production',
    '64f0a1b2c3d4e5f607182930',
    '5a3d1c52-0000-4000-8000-000000000001',
    '2026-11-21T01:25:23.000Z',
    '1765968494026',
    'op_0123456789abcdef0123',
  ])('never takes the word or identifier %s out of later calls', (word) => {
    const redactor = createRedactor();
    redactor.concealing([word, `ftp://u:${word}@host/file.rdb`, `https://host/f?sig=${word}`], () => undefined);
    expect(redactor.redactText(`about ${word} here`)).toBe(`about ${word} here`);
  });

  it('never takes what is configured out of later calls', () => {
    const redactor = createRedactor();
    redactor.concealing(
      [uri],
      () => undefined,
      (part) => part === strong,
    );
    expect(redactor.redactText(`target ${strong}`)).toBe(`target ${strong}`);
  });

  it('pushes no credential out, however many are given', () => {
    const redactor = createRedactor();
    redactor.conceal('the-own-credential');
    for (let n = 0; n < 5000; n += 1) redactor.concealing([`ftp://u:Kx7-pQ2v9Tz_Lm${n}@h/f`], () => undefined);
    expect(redactor.redactText('the-own-credential')).toBe(MASK);
  });

  it('can be left readable, to see what masking it would hide', () => {
    const redactor = createRedactor();
    redactor.conceal('the-own-credential');
    redactor.concealing(['carts-production'], () => {
      expect(redactor.redactJson({ a: 'carts-production the-own-credential' }, { keepGiven: true })).toEqual({
        a: `carts-production ${MASK}`,
      });
    });
  });
});

describe('what others make of a secret', () => {
  const secret = 'kA9 two  spaces\nand-a-line-zQ7pL2';

  it('finds one whose white space was folded', () => {
    const redactor = createRedactor();
    redactor.conceal(secret);
    expect(redactor.redactText(`a ${cleanText(secret)} b`)).toBe(`a ${MASK} b`);
  });

  it('finds the half that is left where a text was cut', () => {
    const redactor = createRedactor();
    redactor.conceal('kA9-pQ2v9TzLm4s');
    const long = `the database says that kA9-pQ2v9TzLm4s is wrong`;
    for (let length = 28; length < long.length; length += 1) {
      expect(redactor.redactText(cleanText(long, length)), `cut to ${length}`).not.toContain('kA9-');
    }
    expect(redactor.redactText('kA9-pQ2v is another word')).toBe('kA9-pQ2v is another word');
    redactor.conceal('redis://default:kZ7-xW3y8UnMb5t@cache.internal:6379');
    expect(redactor.redactText('cannot reach redis://default:kZ7-xW…')).not.toContain('kZ7-');
    expect(redactor.redactText('cannot reach redis://default…')).toBe('cannot reach redis://default…');
  });

  it('forgets the halves of what it forgets', () => {
    const redactor = createRedactor();
    redactor.conceal('kA9-pQ2v9TzLm4s');
    for (let n = 0; n < 4000; n += 1) redactor.conceal(`value-number-${n}-of-many`);
    expect(redactor.redactText('kA9-pQ2v…')).toBe('kA9-pQ2v…');
  });
});
