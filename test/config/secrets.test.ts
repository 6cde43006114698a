import { execFileSync } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { secretReader } from '../../src/config/secrets.ts';
import type { JsonObject } from '../../src/core/json.ts';
import { folder } from './support.ts';

function reader(env: Record<string, string>, baseDirectory?: string) {
  const concealed: string[] = [];
  const warnings: JsonObject[] = [];
  const silent = () => {};
  const log = {
    debug: silent,
    info: silent,
    error: silent,
    warn: (message: string, fields?: JsonObject) => void warnings.push({ message, ...fields }),
  };
  return {
    concealed,
    warnings,
    ...secretReader({ env, conceal: (value) => void concealed.push(value), baseDirectory, log }),
  };
}

describe('secrets', () => {
  it('reads a variable and conceals its value before handing it on', async () => {
    const { secret, concealed } = reader({ PW: 'hunter2' });
    await expect(secret({ secret: 'env', name: 'PW' })).resolves.toBe('hunter2');
    expect(concealed).toEqual(['hunter2']);
  });

  it.each([{ PW: '' }, {}])('names the variable that is not set, and how clients pass it (%j)', async (env) => {
    await expect(reader(env as Record<string, string>).secret({ secret: 'env', name: 'PW' })).rejects.toMatchObject({
      code: 'AUTHENTICATION_FAILED',
      message: "the variable 'PW' is not set",
      hint: expect.stringContaining('"env"'),
    });
  });

  it('reads a file relative to the entities file, without the line break at its end', async () => {
    const root = folder({ a: 'line one\nline two\r\n', b: 'kept \n\n' });
    chmodSync(join(root, 'a'), 0o600);
    const { secret, concealed, warnings } = reader({}, root);
    await expect(secret({ secret: 'file', name: 'a' })).resolves.toBe('line one\nline two');
    await expect(secret({ secret: 'file', name: join(root, 'b') })).resolves.toBe('kept \n');
    expect(concealed).toEqual(['line one\nline two', 'kept \n']);
    expect(warnings.map(({ file }) => file)).toEqual([join(root, 'b')]);
  });

  it('warns once of a file that others can read', async () => {
    const root = folder({ a: 'hunter2' });
    chmodSync(join(root, 'a'), 0o644);
    const { secret, warnings } = reader({}, root);
    await secret({ secret: 'file', name: 'a' });
    await secret({ secret: 'file', name: 'a' });
    expect(warnings).toEqual([{ message: expect.stringContaining('0600'), file: 'a', mode: '0644' }]);
  });

  it('refuses a file that is absent, empty, too large, a folder or a pipe, naming it', async () => {
    const root = folder({ empty: '\n', big: 'hunter2'.repeat(10_000), 'sub/x': '' });
    execFileSync('/usr/bin/env', ['mkfifo', join(root, 'pipe')]);
    const { secret } = reader({}, root);
    for (const [name, message] of [
      ['gone', "the secret file 'gone' is not there or is empty"],
      ['empty', "the secret file 'empty' is not there or is empty"],
      ['big', "the secret file 'big' is larger than 64 KiB"],
      ['sub', "the secret file 'sub' is no regular file"],
      ['pipe', "the secret file 'pipe' is no regular file"],
    ] as const) {
      await expect(secret({ secret: 'file', name })).rejects.toMatchObject({ code: 'AUTHENTICATION_FAILED', message });
    }
  });

  it('gives variables of a credential chain, concealing all but plain names', () => {
    const env = {
      AWS_SECRET_ACCESS_KEY: 'hunter2',
      AWS_REGION: 'us-east-1',
      AWS_PROFILE: 'default',
      REDISCLOUD_ACCESS_KEY: 'acc',
      GOOGLE_CREDENTIALS: '{"a":1}',
      EMPTY: '',
    };
    const { credential, concealed } = reader(env);
    expect(Object.keys(env).map((name) => credential(name))).toEqual([
      'hunter2',
      'us-east-1',
      'default',
      'acc',
      '{"a":1}',
      undefined,
    ]);
    expect(credential('UNSET')).toBeUndefined();
    expect(concealed).toEqual(['hunter2', 'acc', '{"a":1}']);
  });
});
