import { beforeAll, describe, expect, it } from 'vitest';
import { type CronReader, loadCron, withSundayFirst } from '../../src/schedule/cron.ts';

let cron: CronReader;
beforeAll(async () => {
  cron = await loadCron();
});

const next = (expression: string, timezone: string, after: string, count: number): string[] =>
  cron
    .times(expression, timezone)
    .next(new Date(after), count)
    .map((at) => at.toISOString().slice(0, 16));
const last = (expression: string, timezone: string, at: string): string | undefined =>
  cron.times(expression, timezone).last(new Date(at))?.toISOString();

describe('when something is due', () => {
  it('counts the due moment itself as past, and one millisecond before as not', () => {
    expect(last('0 2 * * *', 'UTC', '2026-11-21T02:00:00.000Z')).toBe('2026-11-21T02:00:00.000Z');
    expect(last('0 2 * * *', 'UTC', '2026-11-21T01:59:59.999Z')).toBe('2026-11-20T02:00:00.000Z');
  });

  it('runs a time that the clock leaps over at the moment after the leap', () => {
    expect(next('30 2 * * *', 'Europe/Berlin', '2026-03-28T12:00:00Z', 2)).toEqual([
      '2026-03-29T01:00',
      '2026-03-30T00:30',
    ]);
    expect(last('30 2 * * *', 'Europe/Berlin', '2026-03-29T12:00:00Z')).toBe('2026-03-29T01:00:00.000Z');
  });

  it('runs a time that comes twice once, the first time', () => {
    expect(next('30 2 * * *', 'Europe/Berlin', '2026-10-24T12:00:00Z', 2)).toEqual([
      '2026-10-25T00:30',
      '2026-10-26T01:30',
    ]);
    expect(last('30 2 * * *', 'Europe/Berlin', '2026-10-25T12:00:00Z')).toBe('2026-10-25T00:30:00.000Z');
  });

  it('keeps an hourly schedule hourly through both changes', () => {
    const hours = (from: string): number[] =>
      cron
        .times('0 * * * *', 'Europe/Berlin')
        .next(new Date(from), 6)
        .map((at) => at.getTime())
        .map((at, index, all) => (index === 0 ? 3_600_000 : at - all[index - 1]!));
    expect(new Set([...hours('2026-03-28T22:30:00Z'), ...hours('2026-10-24T22:30:00Z')])).toEqual(new Set([3_600_000]));
  });

  it.each(['Europe/Berlin', 'America/Sao_Paulo', 'Australia/Lord_Howe', 'UTC'])(
    'says of every due time of a year in %s that it is the last one at its moment',
    (timezone) => {
      const times = cron.times('15 */7 * * *', timezone);
      const all = times.next(new Date('2018-01-01T00:00:00Z'), 1500);
      expect(all.filter((at) => times.last(at)?.getTime() !== at.getTime())).toEqual([]);
    },
  );

  it('takes the quarters and the weekdays as cron does', () => {
    expect(next('0 1 1 1,4,7,10 *', 'UTC', '2026-03-01T00:00:00Z', 2)).toEqual([
      '2026-04-01T01:00',
      '2026-07-01T01:00',
    ]);
    // The day of the month or the weekday, where both are given.
    expect(next('0 2 1 * MON', 'UTC', '2026-03-29T00:00:00Z', 3)).toEqual([
      '2026-03-30T02:00',
      '2026-04-01T02:00',
      '2026-04-06T02:00',
    ]);
  });
});

describe('an expression', () => {
  it.each(['0 2 * * *', '*/15 8-18/2 1,15 JAN-MAR mon', '0 0 * * 7', '5 4 * * 0-6', '0 2 29 2 *'])(
    '%s is read',
    (text) => {
      expect(cron.fault(text, 'UTC')).toBeUndefined();
    },
  );

  it.each([
    ['0 2 * *', /has 4 fields/],
    ['0 0 2 * * *', /has 6 fields/],
    ['@daily', /nickname/],
    ['60 2 * * *', /minute cannot be read/],
    ['0 24 * * *', /hour cannot be read/],
    ['0 2 0 * *', /day of the month cannot be read/],
    ['0 2 L * *', /day of the month cannot be read/],
    ['0 2 * * MON#2', /weekday cannot be read/],
    ['0 2 * FEBR *', /month cannot be read/],
    ['0 22-5 * * *', /begins after its end/],
    ['0/5 2 * * *', /step of the minute/],
    ['*/0 2 * * *', /step of the minute/],
    ['0 2 30 2 *', /never comes/],
    ['0 2 , * *', /day of the month cannot be read/],
  ])('%s is refused', (text, message) => {
    expect(cron.fault(text, 'UTC')).toMatchObject({ part: 'cron', message: expect.stringMatching(message) });
  });

  it.each(['Mars/Base', '+02:00', 'Local time', ''])('the zone %s is refused', (timezone) => {
    expect(cron.fault('0 2 * * *', timezone)).toMatchObject({ part: 'timezone' });
  });
});

describe('Sunday', () => {
  it.each([
    ['0 2 * * 7', '0 2 * * 0'],
    ['0 2 * * 5-7', '0 2 * * 5,6,0'],
    ['0 2 * * 1-7/2', '0 2 * * 1,3,5,0'],
    ['0 2 * * 0,7', '0 2 * * 0'],
    ['0  2 * * MON-FRI', '0 2 * * MON-FRI'],
    ['0 2 * * *', '0 2 * * *'],
    ['0 2 * * */2', '0 2 * * */2'],
  ])('in %s is written %s for Kubernetes', (text, written) => {
    expect(withSundayFirst(text)).toBe(written);
    expect(next(written, 'UTC', '2026-01-01T00:00:00Z', 20)).toEqual(next(text, 'UTC', '2026-01-01T00:00:00Z', 20));
  });
});
