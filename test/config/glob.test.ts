import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { expandGlob, matchesWildcards } from '../../src/config/glob.ts';
import { folder } from './support.ts';

describe('wildcards', () => {
  it.each([
    ['*', 'my-app/db', true],
    ['my-app/*', 'my-app/db', true],
    ['my-*/d?', 'my-app/db', true],
    ['my-app/db', 'my-app/db', true],
    ['', '', true],
    ['**', 'x', true],
    ['a*b*c', 'a-b-b-c', true],
    ['my-app/d?', 'my-app/d', false],
    ['my-app', 'my-app/db', false],
    ['a.c', 'abc', false],
    ['a*b', 'a-b-c', false],
  ])('%s on %s: %s', (glob, text, expected) => {
    expect(matchesWildcards(glob, text)).toBe(expected);
  });

  it('cannot be made slow', () => {
    const began = performance.now();
    expect(matchesWildcards(`${'*a'.repeat(60)}b`, 'a'.repeat(200))).toBe(false);
    expect(performance.now() - began).toBeLessThan(100);
  });
});

describe('globs over files', () => {
  const root = folder({
    'a.yaml': '',
    'b.yml': '',
    'c/a.yaml': '',
    'c/d/a.yaml': '',
    '.h/a.yaml': '',
    'c/.h.yaml': '',
    'e.yaml/x': '',
  });
  const at = (glob: string): string[] => expandGlob(join(root, glob)).map((path) => path.slice(root.length + 1));

  it.each([
    ['*.yaml', ['a.yaml']],
    ['a.y?ml', ['a.yaml']],
    ['*', ['a.yaml', 'b.yml']],
    ['*/a.yaml', ['c/a.yaml']],
    ['c/*/a.yaml', ['c/d/a.yaml']],
    ['**/a.yaml', ['a.yaml', 'c/a.yaml', 'c/d/a.yaml']],
    ['c/**', ['c/a.yaml', 'c/d/a.yaml']],
    ['.h/*.yaml', ['.h/a.yaml']],
    ['c/.*', ['c/.h.yaml']],
    ['gone/*.yaml', []],
  ])('%s', (glob, expected) => {
    expect(at(glob)).toEqual(expected);
  });
});
