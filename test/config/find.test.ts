import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { findConfig, stateDirectory } from '../../src/config/find.ts';
import { folder, refusal } from './support.ts';

describe('the entities file', () => {
  it('is the flag’s, else the variable’s, else the nearest upward', () => {
    const root = folder({
      'holdfast.yml': '',
      'flag.yaml': '',
      'env.yaml': '',
      'near/holdfast.yaml': '',
      'near/holdfast.yml': '',
      'near/a/b/x': '',
    });
    const env = { HOLDFAST_CONFIG: join(root, 'env.yaml') };
    expect(findConfig({ flag: 'flag.yaml', env, cwd: root })).toBe(join(root, 'flag.yaml'));
    expect(findConfig({ env, cwd: join(root, 'near') })).toBe(join(root, 'env.yaml'));
    expect(findConfig({ env: {}, cwd: join(root, 'near/a/b') })).toBe(join(root, 'near/holdfast.yaml'));
    expect(findConfig({ env: { HOLDFAST_CONFIG: '' }, cwd: root })).toBe(join(root, 'holdfast.yml'));
  });

  it('is not looked for elsewhere when the one that was named is missing', () => {
    const root = folder({ 'holdfast.yaml': '' });
    expect(refusal(() => findConfig({ flag: 'gone.yaml', env: {}, cwd: root })).message).toContain(
      "--config names is not there: 'gone.yaml'",
    );
    expect(refusal(() => findConfig({ env: { HOLDFAST_CONFIG: 'gone.yaml' }, cwd: root })).message).toContain(
      'HOLDFAST_CONFIG',
    );
  });

  it('may be absent, and then the error says what to do', () => {
    const error = refusal(() => findConfig({ env: {}, cwd: folder({}) }));
    expect(error.code).toBe('CONFIG_INVALID');
    expect(error.hint).toContain('--config');
  });
});

describe('the state directory', () => {
  it('is the flag’s, else the variable’s, else the platform’s', () => {
    const home = folder({});
    const at = (options: object) => stateDirectory({ env: {}, cwd: home, home, platform: 'linux', ...options });
    expect(at({ flag: 'one', env: { HOLDFAST_STATE_DIR: 'two' } })).toBe(join(home, 'one'));
    expect(at({ env: { HOLDFAST_STATE_DIR: 'two' } })).toBe(join(home, 'two'));
    expect(at({ env: { XDG_STATE_HOME: join(home, 'xdg') } })).toBe(join(home, 'xdg/holdfast'));
    expect(at({ env: { XDG_STATE_HOME: 'relative' } })).toBe(join(home, '.local/state/holdfast'));
    expect(at({ platform: 'darwin' })).toBe(join(home, 'Library/Application Support/holdfast'));
    expect(at({ platform: 'win32', env: { LOCALAPPDATA: join(home, 'L') } })).toBe(join(home, 'L', 'holdfast'));
  });

  it('is made for its owner alone, and kept so where it is ours', () => {
    const home = folder({});
    const path = join(home, '.local/state/holdfast');
    mkdirSync(path, { recursive: true, mode: 0o755 });
    stateDirectory({ env: {}, home, platform: 'linux' });
    stateDirectory({ env: {}, flag: join(home, 'new/deep') });
    expect(
      [path, join(home, 'new'), join(home, 'new/deep')].map((folderPath) => statSync(folderPath).mode & 0o777),
    ).toEqual([0o700, 0o700, 0o700]);
  });

  it('is left as it is where the user named one that is there', () => {
    const home = folder({});
    mkdirSync(join(home, 'shared'), { mode: 0o750 });
    stateDirectory({ env: {}, flag: join(home, 'shared') });
    expect(statSync(join(home, 'shared')).mode & 0o777).toBe(0o750);
  });

  it('must be a directory', () => {
    const root = folder({ file: '' });
    expect(refusal(() => stateDirectory({ env: {}, flag: join(root, 'file') })).code).toBe('STATE_UNAVAILABLE');
  });
});
