import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect } from 'vitest';

const ROOT = join(import.meta.dirname, '..', '..');

/**
 * Holds a text against the file that is kept of it, path from the project's root. `UPDATE_GOLDEN=1` writes the file
 * anew; without it an absent file is a failure too.
 */
export function expectGolden(path: string, text: string): void {
  const file = join(ROOT, path);
  if (process.env['UPDATE_GOLDEN'] === '1') {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    return;
  }
  expect(existsSync(file), `${path} is absent; UPDATE_GOLDEN=1 writes it`).toBe(true);
  expect(text, `${path} is stale; look at the difference, then UPDATE_GOLDEN=1 writes it anew`).toBe(
    readFileSync(file, 'utf8'),
  );
}
