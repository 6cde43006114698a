import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ConfirmationRecord, OperationRecord, StateStore } from '../../src/core/state.ts';
import { openSqliteStore } from '../../src/state/sqlite.ts';

// Every state store passes this one suite; a further store is a further row here.
const STORES: [string, (directory: string) => Promise<StateStore>][] = [
  ['sqlite', (directory) => openSqliteStore(join(directory, 'state.db'))],
];

const confirmation = (id: string): ConfirmationRecord => ({
  id,
  code: `CODE-${id}`,
  token_sha256: `hash-${id}`,
  digest: 'd',
  parts: { action: 'a', entity: 'e', input: 'i', facts: 'f', policy: 'p' },
  plan: {
    action: 'restore',
    entity: 'e',
    risk: 'overwrite',
    target: 't',
    loses: 'all',
    blast_radius: {},
    safety_snapshot: { state: 'taken' },
    undo: 'u',
    alternatives: [],
    unknowns: [],
    warnings: [],
    facts: { target: {} },
  },
  input: {},
  principal: 'ana',
  person: 'ana',
  require: 'human',
  out_of_band: false,
  state: 'pending',
  created_at: '2026-11-21T00:00:00.000Z',
  expires_at: '2026-11-21T00:10:00.000Z',
});

const operation = (id: string, created_at = '2026-11-21T00:00:00.000Z'): OperationRecord => ({
  id,
  action: 'restore',
  provider: 'toy',
  entity: 'e',
  principal: 'ana',
  risk: 'create',
  target: 't',
  input: {},
  plan: confirmation(id).plan,
  status: 'running',
  steps: [],
  created_at,
  updated_at: created_at,
  owner: { id: 'me', host: 'h', pid: 1, lease_until: '2026-11-21T00:10:00.000Z' },
});

describe.each(STORES)('the state store %s', (_, open) => {
  let directory: string;
  let store: StateStore;
  let other: StateStore;
  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'holdfast-state-'));
    store = await open(directory);
    other = await open(directory);
  });
  afterEach(async () => {
    await store.close();
    await other.close();
    rmSync(directory, { recursive: true, force: true });
  });

  it('finds a confirmation by id, code and hash, from another process too', async () => {
    await store.addConfirmation(confirmation('1'));
    expect(await other.confirmation({ id: '1' })).toEqual(confirmation('1'));
    expect((await other.confirmation({ code: 'CODE-1' }))?.id).toBe('1');
    expect((await other.confirmation({ token_sha256: 'hash-1' }))?.id).toBe('1');
    expect(await other.confirmation({ id: 'hash-1' })).toBeUndefined();
  });

  it('moves a confirmation once, whoever tries at the same moment', async () => {
    await store.addConfirmation({ ...confirmation('1'), state: 'approved' });
    const wins = await Promise.all(
      Array.from({ length: 100 }, (_unused, index) =>
        (index % 2 ? store : other).moveConfirmation('1', 'approved', 'consumed'),
      ),
    );
    expect(wins.filter(Boolean)).toHaveLength(1);
    expect(await store.moveConfirmation('1', 'approved', 'consumed')).toBe(false);
  });

  it('lists newest first and by state', async () => {
    await store.addConfirmation(confirmation('1'));
    await store.addConfirmation({ ...confirmation('2'), created_at: '2026-11-21T00:00:01.000Z', state: 'denied' });
    expect((await store.confirmations()).map((record) => record.id)).toEqual(['2', '1']);
    expect((await store.confirmations({ states: ['pending'] })).map((record) => record.id)).toEqual(['1']);
  });

  it('lets only the owner save an operation, and one of many claim it', async () => {
    await store.addOperation(operation('1'));
    const claims = await Promise.all(
      ['a', 'b', 'c'].map((id) => other.claimOperation('1', 'me', { id, host: 'h', pid: 2, lease_until: 'later' })),
    );
    expect(claims.filter(Boolean)).toHaveLength(1);
    await expect(store.saveOperation(operation('1'))).rejects.toMatchObject({ code: 'STATE_UNAVAILABLE' });
    const record = (await store.operation('1'))!;
    await store.saveOperation({ ...record, status: 'succeeded' });
    expect((await other.operations({ statuses: ['succeeded'] })).map(({ id }) => id)).toEqual(['1']);
    expect(await other.operations({ entity: 'another' })).toEqual([]);
  });

  it('holds a lock until it is released or its time is over', async () => {
    expect(await store.lock('l', 'a', 60_000)).toBe(true);
    expect(await other.lock('l', 'b', 60_000)).toBe(false);
    expect(await store.lock('l', 'a', 60_000)).toBe(true);
    await other.unlock('l', 'b');
    expect(await other.lock('l', 'b', 60_000)).toBe(false);
    await store.unlock('l', 'a');
    expect(await other.lock('l', 'b', -1)).toBe(true);
    expect(await store.lock('l', 'a', 60_000)).toBe(true);
  });

  it('keeps notes apart by entity and kind, newest first', async () => {
    await store.addNote('e', 'backup', { n: 1 }, 'now');
    await store.addNote('e', 'backup', { n: 2 }, 'now');
    await store.addNote('e', 'other', { n: 3 }, 'now');
    expect(await other.notes('e', 'backup', 10)).toEqual([{ n: 2 }, { n: 1 }]);
    expect(await other.notes('f', 'backup', 10)).toEqual([]);
  });

  it('says that it is unavailable once its files are gone or were replaced', async () => {
    await store.addConfirmation(confirmation('1'));
    rmSync(directory, { recursive: true });
    await expect(store.confirmation({ id: '1' })).rejects.toMatchObject({ code: 'STATE_UNAVAILABLE' });
    await expect(store.addConfirmation(confirmation('2'))).rejects.toMatchObject({ code: 'STATE_UNAVAILABLE' });
    const replaced = await open(directory);
    await expect(store.confirmation({ id: '1' })).rejects.toMatchObject({ code: 'STATE_UNAVAILABLE' });
    await replaced.close();
  });

  it('can be read by its owner only', () => {
    expect(statSync(join(directory, 'state.db')).mode & 0o077).toBe(0);
  });

  it('changes the record of a schedule for one of many who read the same version', async () => {
    const record = {
      key: 'app/db/daily',
      version: 1,
      cron: '0 2 * * *',
      timezone: 'UTC',
      enabled: true,
      settled_until: '2026-11-21T00:00:00.000Z',
      consecutive_failures: 0,
      missed: 0,
    };
    const first = await Promise.all([store, other, store].map((each) => each.saveSchedule(record, 0)));
    expect(first.filter(Boolean)).toHaveLength(1);
    expect(await other.schedule('app/db/daily')).toEqual(record);
    const second = await Promise.all(
      [store, other].map((each, index) => each.saveSchedule({ ...record, missed: index + 1 }, 1)),
    );
    expect(second.filter(Boolean)).toHaveLength(1);
    expect(await store.schedule('app/db/daily')).toMatchObject({ version: 2, missed: second[0] === true ? 1 : 2 });
    expect(await store.saveSchedule(record, 1)).toBe(false);
    expect(await store.saveSchedule({ ...record, key: 'app/db/none' }, 3)).toBe(false);
    expect(await store.schedule('app/db/none')).toBeUndefined();
  });
});
