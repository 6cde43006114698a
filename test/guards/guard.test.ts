import { randomBytes, scryptSync } from 'node:crypto';
import { chmodSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { freshToken, isToken, normalCode } from '../../guards/token.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { PolicyConfig } from '../../src/core/policy.ts';
import type { Principal } from '../../src/core/principal.ts';
import type { ConfirmationDetails } from '../../src/engine/api.ts';
import { ANA, BEN, BOSS, type Harness, startHarness, VIEWER } from '../support/harness.ts';
import { newShelf, type Shelf, toyModule } from '../support/toy.ts';

const KEY = 'my-app/shelf';
let shelf: Shelf;
let harness: Harness;
let now: number;

async function begin(policy: Partial<PolicyConfig> = {}, stateDirectory?: string): Promise<void> {
  harness = await startHarness({
    modules: { toy: toyModule(shelf) },
    entities: [
      { key: KEY, defines: 'toy/shelf', parameters: { shelf: 'a' } },
      { key: 'my-app/other', defines: 'toy/shelf', parameters: { shelf: 'b' } },
    ],
    policy,
    now: () => new Date(now),
    ...(stateDirectory === undefined ? {} : { stateDirectory }),
  });
}

beforeEach(() => {
  shelf = newShelf();
  now = Date.parse('2026-11-21T00:00:00Z');
});
afterEach(() => harness.close().catch(() => undefined));

interface Attempt {
  principal?: Principal;
  entity?: string;
  action?: string;
  input?: JsonObject;
  token?: string;
  confirmationId?: string;
}

const attempt = ({
  principal = ANA,
  entity = KEY,
  action = 'restore',
  input = { snapshot_id: 's1' },
  ...rest
}: Attempt = {}) => harness.engine.call({ principal, entity, action, input, ...rest });

async function refused(work: Promise<unknown>): Promise<HoldfastError> {
  const outcome = await work.then(
    () => 'it ran',
    (cause: unknown) => cause,
  );
  expect(outcome).toBeInstanceOf(HoldfastError);
  return outcome as HoldfastError;
}

const code = async (work: Promise<unknown>): Promise<string> => (await refused(work)).code;

async function ask(what: Attempt = {}): Promise<ConfirmationDetails['confirmation']> {
  return ((await refused(attempt(what))).details as unknown as ConfirmationDetails).confirmation;
}

const yes = (confirmation: string, by: Principal = BOSS, extra: object = {}) =>
  harness.engine.approve({ confirmation, by, via: 'terminal', typedTarget: 'shelf/live', ...extra });

describe('a confirmation token', () => {
  beforeEach(() => begin({ confirm: 'token' }));
  afterEach(() => {
    expect(shelf.writes.filter((write) => write === 'restore').length).toBeLessThanOrEqual(1);
  });

  it('has 128 random bits behind a prefix, and a code that people can read out', () => {
    const fresh = freshToken(randomBytes);
    expect(fresh.token).toMatch(/^hfc_[A-Za-z0-9_-]{22}$/);
    expect(fresh.code).toMatch(/^[2-9A-HJKMNP-Z]{4}-[2-9A-HJKMNP-Z]{4}$/);
    expect(isToken(`${fresh.token}x`)).toBe(false);
    expect(normalCode(` ${fresh.code.toLowerCase().replace('-', ' ')} `)).toBe(fresh.code);
  });

  it('is refused when it was invented', async () => {
    for (const token of ['', 'yes', 'hfc_', freshToken(randomBytes).token, `hfc_${'A'.repeat(22)}`])
      expect(await code(attempt({ token }))).toBe('CONFIRMATION_INVALID');
    expect(shelf.writes).toEqual([]);
  });

  it('is refused for another input, entity, action or caller, and still works for its own', async () => {
    shelf.snapshots.set('s2', 'other');
    const { token } = await ask();
    expect(await code(attempt({ token, input: { snapshot_id: 's2' } }))).toBe('CONFIRMATION_MISMATCH');
    expect(await code(attempt({ token, input: { snapshot_id: 's1', safety_snapshot: false } }))).toBe(
      'CONFIRMATION_MISMATCH',
    );
    expect(await code(attempt({ token, entity: 'my-app/other' }))).toBe('CONFIRMATION_MISMATCH');
    expect(await code(attempt({ token, action: 'delete-snapshot' }))).toBe('CONFIRMATION_MISMATCH');
    expect(await code(attempt({ token, principal: BEN }))).toBe('CONFIRMATION_MISMATCH');
    expect(await code(attempt({ token, principal: VIEWER }))).toBe('POLICY_DENIED');
    expect(shelf.writes).toEqual([]);
    await attempt({ token });
    expect(shelf.writes).toEqual(['safety', 'restore']);
  });

  it('is refused after ten minutes', async () => {
    const { token } = await ask();
    now += 600_000;
    expect(await code(attempt({ token }))).toBe('CONFIRMATION_EXPIRED');
    expect(shelf.writes).toEqual([]);
  });

  it('works once when a hundred try at the same moment', async () => {
    const { token } = await ask();
    const outcomes = await Promise.all(
      Array.from({ length: 100 }, () =>
        attempt({ token }).then(
          () => 'ran',
          (cause: HoldfastError) => cause.code,
        ),
      ),
    );
    expect(outcomes.filter((outcome) => outcome === 'ran')).toHaveLength(1);
    expect(outcomes.filter((outcome) => outcome === 'CONFIRMATION_USED')).toHaveLength(99);
  });

  it('is void once the target changed, and the new plan needs its own', async () => {
    const { token } = await ask();
    shelf.version = 2;
    const changed = await refused(attempt({ token }));
    expect(changed.code).toBe('PLAN_CHANGED');
    expect(changed.details).toMatchObject({ differences: [{ path: 'target.version', before: 1, after: 2 }] });
    shelf.version = 1;
    expect(await code(attempt({ token }))).toBe('CONFIRMATION_INVALID');
    shelf.version = 2;
    await attempt({ token: (changed.details as unknown as ConfirmationDetails).confirmation.token });
    expect(shelf.content).toBe('old');
  });

  it('is void once the policy changed', async () => {
    const { token } = await ask();
    const { stateDirectory } = harness;
    await begin({ confirm: 'token', confirmation_ttl_seconds: 60 }, stateDirectory);
    expect(await code(attempt({ token }))).toBe('PLAN_CHANGED');
  });

  it('survives a restart, and so does its use', async () => {
    const { token } = await ask();
    const { stateDirectory } = harness;
    await begin({ confirm: 'token' }, stateDirectory);
    await attempt({ token });
    await begin({ confirm: 'token' }, stateDirectory);
    expect(await code(attempt({ token }))).toBe('CONFIRMATION_USED');
  });

  it('is not stored itself', async () => {
    const { token } = await ask();
    expect(JSON.stringify(await harness.store.confirmations())).not.toContain(token.slice(4));
  });

  it('is not spent, and nothing runs, when the audit file cannot be written', async () => {
    const { token } = await ask();
    const file = join(harness.stateDirectory, 'audit.jsonl');
    rmSync(file);
    expect(await code(attempt({ token }))).toBe('AUDIT_UNAVAILABLE');
    expect(shelf.writes).toEqual([]);
    expect((await harness.store.confirmations())[0]?.state).toBe('approved');
  });

  it('lets nothing through when the state store is gone', async () => {
    const { token } = await ask();
    rmSync(join(harness.stateDirectory, 'state.db'));
    expect(await code(attempt({ token }))).toBe('STATE_UNAVAILABLE');
    expect(await code(attempt())).toBe('STATE_UNAVAILABLE');
    expect(shelf.writes).toEqual([]);
  });
});

describe('approval by a person', () => {
  it('is needed by default: the token is inert until then', async () => {
    await begin();
    const { token, code: short, require } = await ask();
    expect(require).toBe('human');
    expect(await code(attempt({ token }))).toBe('CONFIRMATION_PENDING');
    expect(await code(attempt({ token: short }))).toBe('CONFIRMATION_INVALID');
    await yes(short);
    await attempt({ token });
    expect(shelf.writes).toEqual(['safety', 'restore']);
  });

  it('wants the exact name of the target', async () => {
    await begin();
    const { code: short, token } = await ask();
    for (const typedTarget of ['', 'yes', 'SHELF/LIVE', 'shelf/live ', undefined])
      expect(await code(yes(short, BOSS, { typedTarget }))).toBe('CONFIRMATION_MISMATCH');
    expect(await code(attempt({ token }))).toBe('CONFIRMATION_PENDING');
  });

  it('can be refused, for good', async () => {
    await begin();
    const { code: short, token } = await ask();
    await harness.engine.deny({ confirmation: short, by: BOSS, via: 'terminal', reason: 'not now' });
    expect(await code(attempt({ token }))).toBe('CONFIRMATION_DENIED');
    expect(await code(yes(short))).toBe('CONFIRMATION_DENIED');
    expect(shelf.writes).toEqual([]);
  });

  it('needs the role of an approver', async () => {
    await begin();
    const { code: short } = await ask();
    expect(await code(yes(short, BEN))).toBe('POLICY_DENIED');
    expect(await code(harness.engine.deny({ confirmation: short, by: BEN, via: 'terminal' }))).toBe('POLICY_DENIED');
  });

  it('comes too late after the time is over, and only one of two deciders wins', async () => {
    await begin();
    const first = await ask();
    const results = await Promise.allSettled([
      yes(first.code),
      harness.engine.deny({ confirmation: first.code, by: BOSS, via: 'terminal' }),
    ]);
    expect(results.filter((result) => result.status === 'fulfilled')).toHaveLength(1);
    const second = await ask();
    now += 600_000;
    expect(await code(yes(second.code))).toBe('CONFIRMATION_EXPIRED');
    expect((await harness.engine.confirmations({ states: ['pending'] })).length).toBe(0);
  });

  it('by elicitation counts for the asking caller only', async () => {
    await begin();
    const { id } = await ask();
    const via = 'elicitation';
    expect(await code(yes(id, BEN, { via }))).toBe('POLICY_DENIED');
    await yes(id, ANA, { via });
    await attempt({ confirmationId: id });
    expect(await code(attempt({ confirmationId: id }))).toBe('CONFIRMATION_USED');
  });

  it('by elicitation does not count where policy wants another channel, a second person or a passphrase', async () => {
    const hash = `scrypt$1024$8$1$${Buffer.from('salt').toString('base64')}$${scryptSync('open sesame', Buffer.from('salt'), 32, { N: 1024, r: 8, p: 1 }).toString('base64')}`;
    for (const policy of [
      { approver: 'out-of-band' },
      { confirm: 'two-people' },
      { approver_passphrase_hash: hash },
    ] as Partial<PolicyConfig>[]) {
      await begin(policy);
      const { id } = await ask();
      expect(await code(yes(id, ANA, { via: 'elicitation' }))).toBe('POLICY_DENIED');
      await harness.close();
    }
    await begin({ approver_passphrase_hash: hash });
    const { code: short } = await ask();
    expect(await code(yes(short))).toBe('AUTHENTICATION_FAILED');
    expect(await code(yes(short, BOSS, { passphrase: 'open barley' }))).toBe('AUTHENTICATION_FAILED');
    expect((await yes(short, BOSS, { passphrase: 'open sesame' })).state).toBe('approved');
  });

  it('by the caller is not two people, whatever way they come', async () => {
    await begin({ confirm: 'two-people' });
    const { code: short, token } = await ask();
    const anaAtTheTerminal: Principal = { id: 'cli:ana', person: 'ana', roles: ['operator', 'approver'] };
    expect(await code(yes(short, anaAtTheTerminal))).toBe('POLICY_DENIED');
    await yes(short);
    await attempt({ token });
    expect(shelf.content).toBe('old');
  });

  it('is recorded, and not given when it cannot be', async () => {
    await begin();
    const { code: short, token } = await ask();
    const file = join(harness.stateDirectory, 'audit.jsonl');
    rmSync(file);
    expect(await code(yes(short))).toBe('AUDIT_UNAVAILABLE');
    chmodSync(harness.stateDirectory, 0o700);
    expect(await code(attempt({ token }))).toMatch(/AUDIT_UNAVAILABLE|CONFIRMATION_PENDING/);
    expect(shelf.writes).toEqual([]);
  });
});

describe('policy in front of the guard', () => {
  it('denies with no token that could allow it', async () => {
    await begin({
      confirm: 'token',
      rules: [{ name: 'freeze', risk: ['overwrite'], decision: 'deny', reason: 'change freeze' }],
    });
    const error = await refused(attempt({ token: freshToken(randomBytes).token }));
    expect(error.code).toBe('POLICY_DENIED');
    expect(error.message).toContain('change freeze');
    expect((error.details as JsonObject)['confirmation']).toBeUndefined();
  });

  it('denies an approved call once it turned read-only', async () => {
    await begin({ confirm: 'token' });
    const { token } = await ask();
    const { stateDirectory } = harness;
    await begin({ confirm: 'token', read_only: true }, stateDirectory);
    expect(await code(attempt({ token }))).toBe('POLICY_DENIED');
    expect(shelf.writes).toEqual([]);
  });

  it('cannot switch the confirmation of an overwrite off', async () => {
    await begin({ rules: [{ decision: 'allow' }] });
    expect(await code(attempt())).toBe('CONFIRMATION_REQUIRED');
    shelf.snapshots.set('s2', 'x');
    await attempt({ action: 'delete-snapshot', input: { snapshot_id: 's2' } });
    expect(shelf.writes).toEqual(['delete s2']);
  });
});
