import { randomBytes, scryptSync } from 'node:crypto';
import { appendFileSync, mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { PolicyConfig } from '../../src/core/policy.ts';
import { startHarness } from '../support/harness.ts';
import { newShelf, type Shelf, toyModule } from '../support/toy.ts';
import { type RunOptions, run, start } from './cli-support.ts';

// The command line on the real engine, guard, state store and audit trail; every command opens and closes its own.

let stateDirectory: string;
let shelf: Shelf;

beforeEach(() => {
  stateDirectory = mkdtempSync(join(tmpdir(), 'holdfast-cli-engine-'));
  shelf = newShelf();
});

afterEach(async () => {
  await rm(stateDirectory, { recursive: true, force: true });
});

function engineDeps(policy: Partial<PolicyConfig> = {}, user = 'ana'): NonNullable<RunOptions['deps']> {
  return {
    user,
    openEngine: async () => {
      const { engine } = await startHarness({
        modules: { toy: toyModule(shelf) },
        entities: [{ key: 'my-app/shelf', defines: 'toy/shelf', parameters: { shelf: 'a' } }],
        stateDirectory,
        policy,
      });
      return engine;
    },
  };
}

const RESTORE = ['do', 'my-app/shelf/restore', 'snapshot_id=s1', '--wait'];

describe('a guarded restore on the real engine', () => {
  it('writes nothing without approval', async () => {
    const { status, out } = await run([...RESTORE, '--json'], { deps: engineDeps() });
    expect(status).toBe(10);
    const { confirmation, plan } = JSON.parse(out);
    expect(plan).toMatchObject({ target: 'shelf/live', risk: 'overwrite', safety_snapshot: { state: 'taken' } });
    expect((await run([...RESTORE, '--token', confirmation.token], { deps: engineDeps() })).status).toBe(11);
    expect(shelf.writes).toEqual([]);
  });

  it('runs once with the token after approval in another process', async () => {
    const { confirmation } = JSON.parse((await run([...RESTORE, '--json'], { deps: engineDeps() })).out);
    expect((await run(['approvals'], { deps: engineDeps() })).out).toContain(confirmation.code);
    const approve = ['approve', confirmation.code];
    expect((await run([...approve, '--target', 'shelf'], { deps: engineDeps() })).status).toBe(12);
    expect((await run([...approve, '--target', 'shelf/live'], { deps: engineDeps() })).status).toBe(0);
    const token = ['--token', confirmation.token];
    const other = ['do', 'my-app/shelf/restore', 'snapshot_id=s2', ...token];
    shelf.snapshots.set('s2', 'other');
    expect((await run(other, { deps: engineDeps() })).status).toBe(12);
    expect((await run([...RESTORE, ...token], { deps: engineDeps({}, 'ben') })).status).toBe(12);
    expect(shelf.writes).toEqual([]);
    const { status, out } = await run([...RESTORE, ...token], { deps: engineDeps() });
    expect(status).toBe(0);
    expect(out).toContain('succeeded');
    expect(out).toContain('command: holdfast do my-app/shelf/restore snapshot_id=safety');
    expect(shelf.content).toBe('old');
    expect((await run([...RESTORE, ...token], { deps: engineDeps() })).status).toBe(12);
    expect(shelf.writes).toEqual(['safety', 'restore']);
  });

  it('runs for the person at a terminal who types the name', async () => {
    const { status, err } = await run(RESTORE, { deps: engineDeps(), terminal: true, input: 'live\nshelf/live\n' });
    expect(status).toBe(0);
    expect(err).toContain('That is not the name of the target.');
    expect(shelf.writes).toEqual(['safety', 'restore']);
  });

  it('does not run for one who types nothing, and leaves no open question', async () => {
    expect((await run(RESTORE, { deps: engineDeps(), terminal: true, input: '\n' })).status).toBe(35);
    expect((await run(['approvals'], { deps: engineDeps() })).out).toContain('No call waits');
    expect(shelf.writes).toEqual([]);
  });

  it('wants the passphrase of the policy', async () => {
    const salt = randomBytes(16);
    const hash = scryptSync('open sesame', salt, 32, { N: 16, r: 8, p: 1 });
    const deps = engineDeps({
      approver_passphrase_hash: `scrypt$16$8$1$${salt.toString('base64')}$${hash.toString('base64')}`,
    });
    const wrong = await run(RESTORE, { deps, terminal: true, input: 'shelf/live\na\rb\rc\r', open: true });
    expect(wrong.status).toBe(26);
    expect(shelf.writes).toEqual([]);
    const right = await run(RESTORE, { deps, terminal: true, input: 'shelf/live\nopen sesame\r', open: true });
    expect(right.status).toBe(0);
    expect(shelf.writes).toEqual(['safety', 'restore']);
  });

  it('wants another person where policy says two', async () => {
    const policy = { confirm: 'two-people' as const };
    const { status, out } = await run([...RESTORE, '--json'], { deps: engineDeps(policy) });
    expect(status).toBe(10);
    const { confirmation } = JSON.parse(out);
    const approve = ['approve', confirmation.code, '--target', 'shelf/live'];
    expect((await run(approve, { deps: engineDeps(policy) })).status).toBe(15);
    expect((await run(approve, { deps: engineDeps(policy, 'ben') })).status).toBe(0);
    const token = ['--token', confirmation.token];
    expect((await run([...RESTORE, ...token], { deps: engineDeps(policy) })).status).toBe(0);
  });

  it('is void once the target changed after approval, and says what changed', async () => {
    const { confirmation } = JSON.parse((await run([...RESTORE, '--json'], { deps: engineDeps() })).out);
    await run(['approve', confirmation.code, '--target', 'shelf/live'], { deps: engineDeps() });
    shelf.version = 2;
    const { status, err } = await run([...RESTORE, '--token', confirmation.token], { deps: engineDeps() });
    expect(status).toBe(14);
    expect(err).toContain('target.version: 1 -> 2');
    expect(shelf.writes).toEqual([]);
  });

  it('is denied with the reason', async () => {
    const { confirmation } = JSON.parse((await run([...RESTORE, '--json'], { deps: engineDeps() })).out);
    await run(['deny', confirmation.code, '--reason', 'not today'], { deps: engineDeps() });
    const { status, err } = await run([...RESTORE, '--token', confirmation.token], { deps: engineDeps() });
    expect(status).toBe(13);
    expect(err).toContain('not today');
  });

  it('asks nobody where policy forbids, and exits with 15', async () => {
    const { status, err } = await run(RESTORE, { deps: engineDeps({ read_only: true }), terminal: true, open: true });
    expect(status).toBe(15);
    expect(err).not.toContain('Type the name');
  });
});

describe('operations and the audit trail on the real engine', () => {
  it('an operation that another command left is followed to its end', async () => {
    shelf.followRounds = 500;
    const leaving = start(RESTORE, { deps: engineDeps(), terminal: true, input: 'shelf/live\n' });
    await leaving.err.shows('round 2');
    leaving.interrupt();
    expect(await leaving.status).toBe(130);
    const id = /operation (op_[0-9a-f]+)/.exec(leaving.err.text)?.[1] ?? '';
    expect(leaving.err.text).toContain(`Follow it: holdfast operations ${id} --wait`);
    shelf.followRounds = 1;
    expect((await run(['operations'], { deps: engineDeps() })).out).toContain(id);
    const { status, out } = await run(['operations', id, '--wait'], { deps: engineDeps() });
    expect(out).toContain(`Operation ${id}: succeeded`);
    expect(status).toBe(0);
    expect(shelf.writes).toEqual(['safety', 'restore']);
  });

  it('says that there is no such operation', async () => {
    expect((await run(['operations', 'op_none'], { deps: engineDeps() })).status).toBe(21);
  });

  it('verifies the trail of what was done, and finds an edit', async () => {
    await run(RESTORE, { deps: engineDeps(), terminal: true, input: 'shelf/live\n' });
    expect((await run(['audit', 'verify'], { deps: engineDeps() })).status).toBe(0);
    const tail = (await run(['audit', 'tail'], { deps: engineDeps() })).out;
    expect(tail).toMatch(/approved cli:ana my-app\/shelf restore overwrite shelf\/live/);
    expect(tail).toMatch(/intent cli:ana my-app\/shelf restore/);
    appendFileSync(join(stateDirectory, 'audit.jsonl'), '{"event":"read"}\n');
    const { status, out } = await run(['audit', 'verify', '--json'], { deps: engineDeps() });
    expect(status).toBe(34);
    expect(JSON.parse(out).ok).toBe(false);
  });

  it('lists what is configured and refuses what the declared schema lacks', async () => {
    const { status, out } = await run(['list'], { deps: engineDeps() });
    expect(status).toBe(0);
    expect(out).toContain('my-app/shelf');
    const { err, status: refused } = await run(['do', 'my-app/shelf/list-snapshots', 'limit=3'], {
      deps: engineDeps(),
    });
    expect(refused).toBe(2);
    expect(err).toContain("list-snapshots has no parameter 'limit'");
  });
});
