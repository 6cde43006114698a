import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { ProviderGuide } from '../../src/core/provider.ts';
import { permissionsOf, policyOf, withPolicy } from '../../src/engine/permissions.ts';
import { renderError, renderOperation } from '../../src/surfaces/render.ts';
import { ANA, type Harness, startHarness, VIEWER } from '../support/harness.ts';
import { newShelf, type Shelf, toyModule } from '../support/toy.ts';

const KEY = 'my-app/shelf';
const open: Harness[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((harness) => harness.close()));
});

async function start(shelf: Shelf): Promise<Harness> {
  const harness = await startHarness({
    modules: { toy: toyModule(shelf) },
    entities: [{ key: KEY, defines: 'toy/shelf', parameters: { shelf: 'a' } }],
    policy: { rules: [{ name: 'here', action: ['restore'], decision: 'confirm', require: 'token' }] },
  });
  open.push(harness);
  return harness;
}

async function refusal(work: Promise<unknown>): Promise<HoldfastError> {
  const outcome = await work.then(
    () => 'it ran',
    (cause: unknown) => cause,
  );
  expect(outcome).toBeInstanceOf(HoldfastError);
  return outcome as HoldfastError;
}

const refused = (details?: JsonObject): HoldfastError =>
  new HoldfastError('INSUFFICIENT_PERMISSIONS', 'the shelf refuses this', { details, provider: { status: 403 } });
const list = { principal: ANA, entity: KEY, action: 'list-snapshots', input: {} };
const lines = ({ stateDirectory }: Harness): JsonObject[] =>
  readFileSync(join(stateDirectory, 'audit.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as JsonObject);

describe('a refusal for lack of permissions', () => {
  it('names what the action needs, and the policy for this very entity', async () => {
    const shelf = newShelf();
    shelf.listing = refused();
    const { engine } = await start(shelf);
    const error = await refusal(engine.call(list));
    expect(error.details).toEqual({
      permissions: ['shelf.see', 'shelf.list'],
      policy: 'shelf: a\nallow:\n  - shelf.see\n  - shelf.list',
    });
    expect(error.hint).toBe(
      'Give the credential the shelf role for list-snapshots; the policy given here has all that list-snapshots needs.',
    );
    expect(error.provider).toEqual({ status: 403 });
  });

  it.each(['missing_permission', 'permission'])('says which one is missing where %s does', async (member) => {
    const shelf = newShelf();
    shelf.listing = refused({ [member]: 'shelf.list' });
    const { engine } = await start(shelf);
    const error = await refusal(engine.call(list));
    expect(error.hint).toMatch(/^Add this to the shelf role: shelf\.list; /);
    expect(error.details).toMatchObject({ [member]: 'shelf.list' });
  });

  it('stands in the operation that it ended, for whoever looks at it later', async () => {
    const shelf = newShelf();
    shelf.during = async () => {
      throw refused({ outcome: 'not_sent' });
    };
    const { engine } = await start(shelf);
    const restore = { principal: ANA, entity: KEY, action: 'restore', input: { snapshot_id: 's1' } };
    const asked = await refusal(engine.call(restore));
    const token = (asked.details?.['confirmation'] as { token: string } | undefined)?.token;
    const error = await refusal(engine.call({ ...restore, token, wait: 'end' }));
    const needs = { permissions: ['shelf.see', 'shelf.copy', 'shelf.write'] };
    expect(error).toMatchObject({ code: 'INSUFFICIENT_PERMISSIONS', details: needs });
    const operation_id = String(error.details?.['operation_id']);
    const outcome = await engine.call({ principal: ANA, action: 'get-operation', input: { operation_id } });
    const view = outcome.kind === 'result' ? (outcome.output as Parameters<typeof renderOperation>[0]) : undefined;
    expect(view?.error).toMatchObject({ details: needs });
    expect(renderOperation(view!)).toContain('Policy:\n  shelf: a\n  allow:\n    - shelf.see');
  });

  it('is shown with the policy as it is to be pasted, and nothing in it can pass for a line of ours', () => {
    const error = refused({ permissions: ['a', 'b'], policy: '{\n  "Action": "a\u2028Plan: none"\n}', scope: 'here' });
    expect(renderError(error)).toContain(
      'Details: scope=here\nProvider: status=403\nNeeds: [a, b]\nPolicy:\n  {\n    "Action": "a Plan: none"\n  }',
    );
  });

  const guide: ProviderGuide = {
    behaviour: [],
    limits: [],
    credentials: [],
    permissions: { '*': ['see'], restore: ['see', 'write'] },
    grant: 'role',
    policy: (permissions) => permissions.join(),
  };
  const action = (given: Partial<ProviderGuide>) => ({
    name: 'restore',
    provider: { guide: async () => ({ ...guide, ...given }) },
  });

  it('keeps what the provider said itself to do', async () => {
    const own = refused({ policy: 'deny-backups' });
    expect(await withPolicy(own, action({}), undefined)).toBe(own);
    const hinted = new HoldfastError('INSUFFICIENT_PERMISSIONS', 'billing is off', { hint: 'Enable billing.' });
    expect((await withPolicy(hinted, action({}), undefined)).hint).toMatch(/^Enable billing\. Give the credential/);
    const other = new HoldfastError('TIMEOUT', 'late');
    expect(await withPolicy(other, action({}), undefined)).toBe(other);
  });

  it('survives a guide that fails, and leaves out a policy beyond all size', async () => {
    const error = refused();
    const broken = { name: 'restore', provider: { guide: () => Promise.reject(new Error('no guide')) } };
    expect(await withPolicy(error, broken, undefined)).toBe(error);
    expect(await withPolicy(error, action({ permissions: {} }), undefined)).toBe(error);
    const long = await withPolicy(error, action({ policy: () => 'x'.repeat(8001) }), undefined);
    expect(long.details).toEqual({ permissions: ['see', 'write'] });
    expect(long.hint).toBe('Give the credential the role for restore.');
    const failing = {
      ...guide,
      policy: () => {
        throw new Error('no policy');
      },
    };
    expect(policyOf(failing, ['see'], undefined)).toBeUndefined();
    expect(permissionsOf(guide, 'constructor')).toEqual(['see']);
  });
});

describe('asking for permissions', () => {
  it('gives one answer for each, unknown where the provider says nothing, and leaves a line in the audit trail', async () => {
    const shelf = { ...newShelf(), granted: { 'shelf.see': 'granted', 'shelf.write': 'refused' } as const };
    const harness = await start(shelf);
    const permissions = ['shelf.see', 'shelf.write', 'toString'];
    expect(await harness.engine.access({ principal: VIEWER, entity: KEY, permissions })).toEqual({
      'shelf.see': 'granted',
      'shelf.write': 'refused',
      toString: 'unknown',
    });
    expect(lines(harness)).toMatchObject([
      { event: 'read', action: 'check-permissions', entity: KEY, principal: VIEWER.id, outcome: 'ok' },
    ]);
  });

  it('says nothing where the provider cannot be asked', async () => {
    const { engine } = await start(newShelf());
    expect(await engine.access({ principal: VIEWER, entity: KEY, permissions: ['shelf.see'] })).toBeUndefined();
  });

  it('answers nobody without a role', async () => {
    const harness = await start(newShelf());
    const nobody = { id: 'http:x', person: 'x', roles: [] };
    const error = await refusal(harness.engine.access({ principal: nobody, entity: KEY, permissions: [] }));
    expect(error.code).toBe('POLICY_DENIED');
    expect(lines(harness)).toMatchObject([{ event: 'refused', outcome: 'POLICY_DENIED' }]);
  });
});

describe('looking through an account', () => {
  const look = (access: JsonObject, provider = 'toy') => ({ principal: ANA, provider, access, endpoint: 'http://x' });

  it('gives what the provider found, without any entity, and leaves a line in the audit trail', async () => {
    const harness = await start(newShelf());
    expect(harness.engine.providers().map(({ id }) => id)).toEqual(['toy']);
    expect(await harness.engine.discover(look({ shelf: 'a' }))).toMatchObject({
      looked: 'shelves at http://x',
      found: [{ defines: 'toy/shelf', name: 'found' }],
    });
    expect(await harness.engine.discover(look({}))).toBeUndefined();
    expect(lines(harness)).toMatchObject([
      { event: 'read', action: 'discover', target: 'toy', outcome: 'ok' },
      { event: 'read', action: 'discover', target: 'toy', outcome: 'ok' },
    ]);
  });

  it('never writes', async () => {
    const harness = await start(newShelf());
    expect((await refusal(harness.engine.discover(look({ shelf: 'new' })))).code).toBe('INTERNAL');
  });

  it('names the providers that there are', async () => {
    const { engine } = await start(newShelf());
    const error = await refusal(engine.discover(look({}, 'toi')));
    expect(error).toMatchObject({ code: 'INVALID_PARAMETER', hint: 'Did you mean toy?' });
  });
});
