import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { findServerBinaries, unprivilegedAccount } from '../../src/postgres/private-server.ts';
import { installForEverybody } from '../support/installed.ts';
import { describePostgres } from '../support/postgres.ts';
import { ROOT } from '../support/source.ts';

const text = readFileSync(join(ROOT, 'docs', 'postgresql.md'), 'utf8');

describePostgres('the tutorial of docs/postgresql.md', () => {
  let directory: string;

  beforeAll(async () => {
    directory = await installForEverybody('hf-tut-');
  }, 60_000);
  afterAll(() => {
    if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
  });

  it('runs as it stands, and ends with the last good order back in its table', { timeout: 120_000 }, async () => {
    const blocks = [...text.matchAll(/<!-- tutorial -->\n```sh\n([\s\S]*?)```\n(?:\n```\n([\s\S]*?)```\n)?/g)];
    expect(blocks.length).toBe(7);
    const { directory: bin } = await findServerBinaries();
    const account = process.getuid?.() === 0 ? await unprivilegedAccount() : undefined;
    const home = join(directory, 'home');
    mkdirSync(home);
    if (account !== undefined) chownSync(home, account.uid, account.gid);
    const script = join(home, 'tutorial.sh');
    writeFileSync(script, `set -euo pipefail\n${blocks.map(([, block]) => block).join('\n')}`);
    chmodSync(script, 0o644);
    const { status, stdout, stderr } = spawnSync('bash', [script], {
      cwd: home,
      encoding: 'utf8',
      env: { PATH: `${join(directory, 'bin')}:${bin}:/usr/local/bin:/usr/bin:/bin`, HOME: home, LC_ALL: 'C' },
      ...(account ?? {}),
    });
    expect(status, `${stdout}\n${stderr}`).toBe(0);
    const promised = blocks.flatMap(([, , answer]) => (answer === undefined ? [] : [answer.trim()]));
    expect(promised).toEqual(['1001|1001', 'the last good one']);
    for (const answer of promised) expect(stdout.split('\n')).toContain(answer);
    expect(stdout).toMatch(/Nothing was run\./);
    expect(stderr + stdout).not.toMatch(/INTERNAL/);
  });
});
