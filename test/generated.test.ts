import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { renderGenerated } from '../scripts/generated.ts';
import { ROOT } from './support/source.ts';

describe('files written from the declarations', () => {
  it.each([...renderGenerated()])('%s is what npm run generate writes', (path, text) => {
    const file = join(ROOT, path);
    expect(existsSync(file) ? readFileSync(file, 'utf8') : '', `${path} is stale: npm run generate`).toBe(text);
  });
});
