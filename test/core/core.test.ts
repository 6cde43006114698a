import { describe, expect, it } from 'vitest';
import { asHoldfastError, ERROR_CODES, HoldfastError } from '../../src/core/errors.ts';
import { assertMayWrite, withGrant, withoutGrant } from '../../src/core/grant.ts';
import { canonicalJson, digestOf } from '../../src/core/json.ts';
import { compareFacts } from '../../src/core/plan.ts';
import { atLeast, hasFloor, higherRisk, isGuarded, RISKS } from '../../src/core/risk.ts';
import { SecretReference } from '../../src/core/schemas.ts';
import { cleanText, didYouMean, identifierText, nearest } from '../../src/core/text.ts';
import { formatBytes, formatDuration, parseDuration, parseInstant } from '../../src/core/time.ts';

describe('durations', () => {
  it.each([
    ['90s', 90],
    ['15m', 900],
    ['6h', 21_600],
    ['7d', 604_800],
    ['2w', 1_209_600],
    ['P7D', 604_800],
    ['PT15M', 900],
    ['P1DT2H3M4S', 93_784],
    ['P2W', 1_209_600],
  ])('reads %s', (text, seconds) => expect(parseDuration(text)).toBe(seconds));

  it.each(['', '7', '1.5h', '-1d', '1y', 'P1M', 'P1Y', 'P', 'PT', '1 d', 'Infinity', '9999999999s'])(
    'refuses %j',
    (text) => {
      expect(() => parseDuration(text)).toThrow(HoldfastError);
    },
  );

  it.each([
    [45, '45 s'],
    [60, '1 min'],
    [754, '12 min 34 s'],
    [3600, '1 h'],
    [12_000, '3 h 20 min'],
    [446_400, '5 d 4 h'],
    [-3, '0 s'],
  ])('writes %d seconds for a person', (seconds, text) => expect(formatDuration(seconds)).toBe(text));
});

describe('instants', () => {
  it.each([
    ['2026-11-20T10:30:00Z', '2026-11-20T10:30:00.000Z'],
    ['2026-11-20T11:30:00+01:00', '2026-11-20T10:30:00.000Z'],
    ['2026-11-20 10:30Z', '2026-11-20T10:30:00.000Z'],
    ['1795170600', '2026-11-20T10:30:00.000Z'],
    [1_795_170_600, '2026-11-20T10:30:00.000Z'],
  ])('reads %s', (value, text) => expect(parseInstant(value).toISOString()).toBe(text));

  it('tells milliseconds from seconds', () => {
    expect(() => parseInstant('1795170600000')).toThrow('looks like milliseconds');
  });

  it.each(['yesterday', '2026-11-20', '2026-11-20T10:30:00', '2026-13-40T10:30:00Z', '', '12'])(
    'refuses %j',
    (value) => {
      expect(() => parseInstant(value, 'restore_timestamp')).toThrow('restore_timestamp');
    },
  );
});

it('writes sizes with a binary unit', () => {
  expect([0, 1023, 1024, 1_258_291, 200 * 2 ** 30].map((bytes) => formatBytes(bytes))).toEqual([
    '0 bytes',
    '1023 bytes',
    '1.0 KiB',
    '1.2 MiB',
    '200 GiB',
  ]);
  expect(formatBytes(2048, true)).toBe('2.0 KiB (2048 bytes)');
});

describe('text from outside', () => {
  it('loses what could act on a terminal or hide', () => {
    expect(cleanText('a\u001b[31mred\u001b[0m\r\nb\u202Egnp.exe\u200b\u{e0041}c')).toBe('a [31mred [0m bgnp.exec');
  });

  it('is bounded without cutting a character in two', () => {
    expect(cleanText('👍'.repeat(10), 5)).toBe('👍👍👍👍…');
    expect(cleanText(undefined)).toBe('');
    expect(cleanText(42)).toBe('42');
  });

  it('takes an identifier of a provider whole or not at all', () => {
    expect(identifierText('req-8f1c:77/a.b+c=')).toBe('req-8f1c:77/a.b+c=');
    for (const text of [null, '', 'two words', 'x'.repeat(101), 'a\nb', '%20']) {
      expect(identifierText(text)).toBeUndefined();
    }
  });

  it('is matched to what was probably meant', () => {
    expect(nearest('backup_retention_perod', ['backup_retention_period', 'region'])).toEqual([
      'backup_retention_period',
    ]);
    expect(didYouMean('restor', ['restore', 'list'])).toBe('Did you mean restore?');
    expect(didYouMean('xyzzy', ['restore', 'list'])).toBe('There is: restore, list.');
    expect(didYouMean('x', [])).toBe('');
  });
});

describe('canonical JSON', () => {
  it('is the same for equal values and differs for others', () => {
    expect(canonicalJson({ b: 1, a: [undefined, null, { d: 'x', c: true }], e: undefined })).toBe(
      '{"a":[null,null,{"c":true,"d":"x"}],"b":1}',
    );
    expect(digestOf({ a: 1, b: 2 })).toBe(digestOf({ b: 2, a: 1 }));
    expect(digestOf({ a: '1' })).not.toBe(digestOf({ a: 1 }));
    expect(digestOf({ a: [1, 2] })).not.toBe(digestOf({ a: [2, 1] }));
  });
});

it('says where facts differ', () => {
  expect(
    compareFacts(
      { target: { state: 'IDLE', id: 1 }, list: [1] },
      { target: { state: 'BUSY', id: 1, more: true }, list: [2] },
    ),
  ).toEqual([
    { path: 'list', before: [1], after: [2] },
    { path: 'target.more', before: undefined, after: true },
    { path: 'target.state', before: 'IDLE', after: 'BUSY' },
  ]);
  expect(compareFacts({ a: { b: 1 } }, { a: { b: 1 } })).toEqual([]);
});

it('orders risks', () => {
  expect(RISKS.filter(isGuarded)).toEqual(['weaken', 'delete', 'merge', 'overwrite']);
  expect(RISKS.filter(hasFloor)).toEqual(['merge', 'overwrite']);
  expect(higherRisk('create', 'overwrite')).toBe('overwrite');
  expect(higherRisk('delete', 'create')).toBe('delete');
  expect(atLeast('change', 'change')).toBe(true);
});

describe('errors', () => {
  it('carry what their code says unless told otherwise', () => {
    const error = new HoldfastError('RATE_LIMITED', 'too fast', { provider: { status: 429, request_id: 'r' } });
    expect(error.toJson()).toEqual({
      code: 'RATE_LIMITED',
      message: 'too fast',
      hint: ERROR_CODES.RATE_LIMITED.hint,
      retryable: true,
      provider: { status: 429, request_id: 'r' },
    });
    expect(new HoldfastError('RATE_LIMITED', 'x', { retryable: false, hint: 'h' })).toMatchObject({
      retryable: false,
      hint: 'h',
    });
  });

  it('come from anything thrown, without its words', () => {
    expect(asHoldfastError(new Error('password=swordfish')).message).not.toContain('swordfish');
    expect(asHoldfastError(new DOMException('x', 'AbortError')).code).toBe('CANCELLED');
    const own = new HoldfastError('INTERNAL', 'x');
    expect(asHoldfastError(own)).toBe(own);
    expect(asHoldfastError('text').code).toBe('INTERNAL');
  });

  it('have exit statuses that leave room for the shell, and HTTP statuses of errors', () => {
    for (const { exit, http, hint } of Object.values(ERROR_CODES)) {
      expect(exit).toBeGreaterThan(1);
      expect(exit).toBeLessThan(126);
      expect(http).toBeGreaterThanOrEqual(400);
      expect(hint).toMatch(/\.$/);
    }
  });
});

describe('the write gate', () => {
  it('is closed unless opened, and stays open for what the work begins only', async () => {
    expect(() => assertMayWrite('POST /x')).toThrow('POST /x');
    await withGrant({ action: 'a', entity: 'e' }, async () => {
      await Promise.resolve();
      assertMayWrite('inside');
      await withoutGrant(async () => {
        expect(() => assertMayWrite('planning')).toThrow('without a grant');
      });
    });
    expect(() => assertMayWrite('after')).toThrow('without a grant');
  });
});

it('takes secrets by reference only', () => {
  expect(SecretReference.parse('${env:TOKEN}')).toEqual({ secret: 'env', name: 'TOKEN' });
  expect(SecretReference.parse('${file:/run/secret}')).toEqual({ secret: 'file', name: '/run/secret' });
  const refused = SecretReference.safeParse('hunter2');
  expect(refused.success).toBe(false);
  expect(JSON.stringify(refused.error)).not.toContain('hunter2');
});
