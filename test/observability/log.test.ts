import { Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { createLog, type LogLevel, logLevel, withFields } from '../../src/observability/log.ts';
import { createRedactor } from '../../src/observability/redaction.ts';

function open(level: LogLevel) {
  const lines: string[] = [];
  const stream = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk));
      done();
    },
  });
  const redactor = createRedactor();
  const log = createLog({ stream, redactor, level, now: () => new Date(0) });
  return { lines, log, redactor, stream };
}

describe('the log', () => {
  it('writes one JSON object a line, with time, level and message first', () => {
    const { lines, log } = open('info');
    log.info('began', { entity: 'shop/carts' });
    expect(lines).toEqual([
      '{"time":"1970-01-01T00:00:00.000Z","level":"info","message":"began","entity":"shop/carts"}\n',
    ]);
  });

  it('leaves out what is below its level', () => {
    const { lines, log } = open('warn');
    log.debug('a');
    log.info('b');
    log.warn('c');
    log.error('d');
    expect(lines.map((line) => JSON.parse(line).message)).toEqual(['c', 'd']);
  });

  it('writes nothing at all when silent', () => {
    const { lines, log } = open('silent');
    log.error('a');
    expect(lines).toEqual([]);
  });

  it('redacts messages, field values and field names', () => {
    const { lines, log, redactor } = open('debug');
    redactor.conceal('canary-4711');
    log.error('connecting to postgres://u:canary-4711@h', {
      'the canary-4711': 1,
      deep: [{ token: 'abc', x: 'hfc_abcdefgh' }],
    });
    expect(lines.join('')).not.toMatch(/canary-4711|"abc"|hfc_abc/);
    expect(JSON.parse(lines[0] as string).deep).toEqual([{ token: '***', x: '***' }]);
  });

  it('does not let a field pass for its level or message', () => {
    const { lines, log } = open('debug');
    log.error('real', { level: 'debug', message: 'forged', time: 'never' });
    expect(JSON.parse(lines[0] as string)).toEqual({
      time: '1970-01-01T00:00:00.000Z',
      level: 'error',
      message: 'real',
    });
  });

  it('keeps a message of several lines on one line', () => {
    const { lines, log } = open('debug');
    log.warn('one\n{"level":"error"}');
    expect((lines[0] as string).trimEnd()).not.toContain('\n');
  });

  it('adds fields to every line of a derived log', () => {
    const { lines, log } = open('debug');
    withFields(log, { entity: 'shop/carts' }).warn('slow', { ms: 4 });
    expect(JSON.parse(lines[0] as string)).toMatchObject({ entity: 'shop/carts', ms: 4 });
  });

  it('outlives the stream that it writes to', () => {
    const { log, stream } = open('debug');
    stream.destroy();
    expect(() => log.error('nobody reads this')).not.toThrow();
  });

  it('reads levels without minding case, and falls back for what is none', () => {
    expect([
      logLevel('DEBUG'),
      logLevel(' info '),
      logLevel('loud'),
      logLevel(undefined),
      logLevel('', 'info'),
    ]).toEqual(['debug', 'info', 'warn', 'warn', 'info']);
  });
});
