import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const directory = mkdtempSync(join(tmpdir(), 'hf-shared-'));

/** Names the place for what several test files share, before the first of them runs. */
export function setup(): void {
  process.env['HOLDFAST_TEST_SHARED'] = directory;
}

export function teardown(): void {
  rmSync(directory, { recursive: true, force: true });
}
