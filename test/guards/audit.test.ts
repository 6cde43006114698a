import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type AuditTrail, openAudit } from '../../guards/audit.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import type { StateStore } from '../../src/core/state.ts';
import { openSqliteStore } from '../../src/state/sqlite.ts';

let directory: string;
let path: string;
let store: StateStore;
let audit: AuditTrail;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'holdfast-audit-'));
  path = join(directory, 'audit.jsonl');
  store = await openSqliteStore(join(directory, 'state.db'));
  audit = openAudit(path, store, () => new Date('2026-11-21T00:00:00Z'));
});
afterEach(async () => {
  await store.close();
  rmSync(directory, { recursive: true, force: true });
});

const append = (action: string) => audit.append({ event: 'intent', principal: 'ana', action }, true);
const lines = () => readFileSync(path, 'utf8').trimEnd().split('\n');
const rewrite = (edit: (all: string[]) => string[]) => writeFileSync(path, `${edit(lines()).join('\n')}\n`);

describe('the audit trail', () => {
  it('is a chain that verifies', async () => {
    for (const action of ['a', 'b', 'c']) await append(action);
    expect(await audit.verify()).toEqual({ ok: true, records: 3 });
    expect(audit.recent(2).map((line) => line['action'])).toEqual(['c', 'b']);
  });

  it('verifies when it is empty', async () => {
    expect(await audit.verify()).toEqual({ ok: true, records: 0 });
  });

  it.each([
    [
      'an edit',
      (all: string[]) => all.map((line) => line.replace('"action":"b"', '"action":"x"')),
      2,
      'changed after it was written',
    ],
    ['a gap', (all: string[]) => [all[0]!, all[2]!], 2, 'number 3'],
    ['a swap', (all: string[]) => [all[1]!, all[0]!, all[2]!], 1, 'number 2'],
    ['a cut-off end', (all: string[]) => all.slice(0, 2), 3, '3 were written'],
    ['a line that is no JSON', (all: string[]) => [all[0]!, 'oops', all[2]!], 2, 'not JSON'],
  ])('finds %s', async (_, edit, line, problem) => {
    for (const action of ['a', 'b', 'c']) await append(action);
    rewrite(edit);
    const report = await audit.verify();
    expect(report.ok).toBe(false);
    expect(report.fault?.line).toBe(line);
    expect(report.fault?.problem).toContain(problem);
  });

  it('finds a forged end that is hashed correctly', async () => {
    await append('a');
    const forged = openAudit(
      join(directory, 'other.jsonl'),
      await openSqliteStore(join(directory, 'other.db')),
      () => new Date(),
    );
    await forged.append({ event: 'intent', principal: 'mallory', action: 'a' }, true);
    renameSync(join(directory, 'other.jsonl'), path);
    expect((await audit.verify()).ok).toBe(false);
  });

  it('refuses to go on when the file is gone, cut off, replaced by a directory or its directory is gone', async () => {
    await append('a');
    await append('b');
    const whole = readFileSync(path);
    const refused = async () => {
      const error = await append('c').catch((cause: unknown) => cause);
      expect(error).toBeInstanceOf(HoldfastError);
      expect((error as HoldfastError).code).toMatch(/AUDIT_UNAVAILABLE|STATE_UNAVAILABLE/);
      expect(await audit.probe()).toBeInstanceOf(HoldfastError);
    };
    rmSync(path);
    await refused();
    rmSync(path, { force: true });
    mkdirSync(path);
    await refused();
    rmSync(path, { recursive: true });
    writeFileSync(path, whole.subarray(0, 20));
    await refused();
    writeFileSync(path, whole);
    await append('c');
    expect(await audit.verify()).toEqual({ ok: true, records: 3 });
    rmSync(directory, { recursive: true });
    await refused();
  });

  it('takes up the one line that a crash left between file and store', async () => {
    await append('a');
    const head = await store.auditHead();
    await append('b');
    await store.advanceAudit(() => head!, true);
    expect((await audit.verify()).ok).toBe(true);
    await append('c');
    expect(await audit.verify()).toEqual({ ok: true, records: 3 });
  });

  it('keeps one chain with many writers', async () => {
    const others = await Promise.all([1, 2, 3].map(() => openSqliteStore(join(directory, 'state.db'))));
    const trails = others.map((other) => openAudit(path, other, () => new Date()));
    await Promise.all(
      Array.from({ length: 60 }, (_, index) =>
        trails[index % 3]!.append({ event: 'read', principal: 'p', action: `${index}` }, false),
      ),
    );
    expect(await audit.verify()).toEqual({ ok: true, records: 60 });
    await Promise.all(others.map((other) => other.close()));
  });

  it('is readable by its owner only', async () => {
    await append('a');
    expect(statSync(path).mode & 0o077).toBe(0);
  });
});
