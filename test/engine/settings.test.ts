import { afterEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { defineAction } from '../../src/core/action.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import { defineProvider } from '../../src/core/provider.ts';
import { SnapshotList } from '../../src/core/schemas.ts';
import type { SettingFinding } from '../../src/core/settings.ts';
import type { ConfirmationDetails } from '../../src/engine/api.ts';
import * as fleet from '../../tools/fleet.ts';
import { ANA, BOSS, type Harness, startHarness, VIEWER } from '../support/harness.ts';

/** A vault with three settings in two requests, and switches for what may go wrong. */
interface Vault {
  id: string;
  retention: number;
  locked: boolean;
  mode: 'plain' | 'sealed';
  writes: string[];
  /** Called before a request takes effect. */
  before: (() => Promise<void>) | undefined;
  /** Called after it took effect, before its answer. */
  after: (() => Promise<void>) | undefined;
  /** Reads that still give the old values after a request. */
  lag: number;
}

const newVault = (values: Partial<Vault> = {}): Vault => ({
  id: 'v-1',
  retention: 7,
  locked: true,
  mode: 'plain',
  writes: [],
  before: undefined,
  after: undefined,
  lag: 0,
  ...values,
});

interface VaultEntity {
  retention?: number | undefined;
  locked?: boolean | undefined;
  mode?: 'plain' | 'sealed' | undefined;
  seal?: string | undefined;
}

function vaultModule(vaults: Record<string, Vault>) {
  const schema = z.object({
    vault: z.string(),
    retention: z.number().optional(),
    locked: z.boolean().optional(),
    mode: z.enum(['plain', 'sealed']).optional(),
    seal: z.string().optional(),
  });
  const provider = defineProvider<z.output<typeof schema>, { vault: Vault; shown: Vault | undefined }>({
    id: 'vault',
    title: 'Vault',
    entityTypes: { 'vault/box': { title: 'a box', schema, ignored: [], example: { vault: 'a' } } },
    cannot: {
      'get-backup-info': 'none',
      'create-snapshot': 'none',
      'describe-snapshot': 'none',
      'delete-snapshot': 'none',
      restore: 'none',
      'get-restore-status': 'none',
    },
    limits: { per_second: 1000, burst: 1000, concurrent: 100, timeout_ms: 1000 },
    connect: async (entity) => ({ vault: vaults[entity.vault]!, shown: undefined }),
    recoveryOptions: async () => [],
    toError: (cause) => new HoldfastError('PROVIDER_UNAVAILABLE', 'the vault failed', { cause }),
    settings: {
      about: { retention: 'days', locked: 'protection', mode: 'sealed for good', seal: 'set once' },
      patience_seconds: 1,
      read: async ({ client, entity }) => {
        if (client.vault.lag > 0) client.vault.lag -= 1;
        else client.shown = undefined;
        return {
          target: `vault/${entity.vault}`,
          identity: { id: client.vault.id },
          findings: findings(entity, client.shown ?? client.vault),
        };
      },
      write: async ({ client, entity, runtime }, write, group) => {
        runtime.assertMayWrite(write);
        const { vault } = client;
        client.shown = { ...vault };
        await vault.before?.();
        vault.writes.push(`${write}: ${group.map(({ setting }) => setting).join(', ')}`);
        for (const { setting } of group) Object.assign(vault, { [setting]: entity[setting as keyof typeof entity] });
        await vault.after?.();
      },
    },
  });
  const listSnapshots = defineAction({
    provider,
    name: 'list-snapshots',
    title: 'List',
    summary: 'Lists.',
    risk: 'read',
    input: z.object({}),
    output: SnapshotList,
    errors: [],
    source: 'vault',
    example: {},
    run: async () => ({ snapshots: [] }),
  });
  return { listSnapshots };
}

function findings(entity: VaultEntity, { retention, locked, mode }: Vault): SettingFinding[] {
  const all: SettingFinding[] = [];
  if (entity.retention !== undefined) {
    const lower = entity.retention < retention;
    const effect = `keeps ${entity.retention} days, not ${retention}`;
    all.push({
      setting: 'retention',
      declared: entity.retention,
      actual: retention,
      ...(entity.retention === retention
        ? { verdict: 'as_declared' }
        : { verdict: 'differs', change: { risk: lower ? 'weaken' : 'change', effect, write: 'modify' } }),
    });
  }
  if (entity.locked !== undefined) {
    const effect = entity.locked ? 'protects it' : 'lets anyone delete it';
    all.push({
      setting: 'locked',
      declared: entity.locked,
      actual: locked,
      ...(entity.locked === locked
        ? { verdict: 'as_declared' }
        : { verdict: 'differs', change: { risk: entity.locked ? 'change' : 'weaken', effect, write: 'modify' } }),
    });
  }
  if (entity.mode !== undefined) {
    const change = { risk: 'weaken', effect: 'seals it for good', irreversible: true, write: 'seal' } as const;
    all.push({
      setting: 'mode',
      declared: entity.mode,
      actual: mode,
      ...(entity.mode === mode ? { verdict: 'as_declared' } : { verdict: 'differs', change }),
    });
  }
  if (entity.seal !== undefined) {
    all.push({
      setting: 'seal',
      declared: entity.seal,
      actual: null,
      verdict: 'differs',
      note: 'it is set when a box is made',
    });
  }
  return all;
}

const open: Harness[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((harness) => harness.close()));
});

async function start(vaults: Record<string, Vault>, entities: Record<string, VaultEntity>): Promise<Harness> {
  const harness = await startHarness({
    modules: { vault: vaultModule(vaults), fleet },
    entities: Object.entries(entities).map(([name, parameters]) => ({
      key: `my-app/${name}`,
      defines: 'vault/box',
      parameters: { vault: name, ...parameters },
    })),
  });
  open.push(harness);
  return harness;
}

const KEY = 'my-app/a';
const apply = (input = {}) => ({ principal: ANA, entity: KEY, action: 'apply-settings', input, wait: 'end' as const });

async function refusal(work: Promise<unknown>): Promise<HoldfastError> {
  const outcome = await work.then(
    () => 'it ran',
    (cause: unknown) => cause,
  );
  expect(outcome).toBeInstanceOf(HoldfastError);
  return outcome as HoldfastError;
}

const detailsOf = (error: HoldfastError) => error.details as unknown as ConfirmationDetails;

describe('check-settings', () => {
  it('holds what is declared against what there is, and nothing else', async () => {
    const { engine } = await start({ a: newVault() }, { a: { retention: 14, locked: true } });
    expect(await engine.call({ principal: VIEWER, entity: KEY, action: 'check-settings', input: {} })).toMatchObject({
      output: {
        target: 'vault/a',
        in_line: false,
        settings: [
          {
            setting: 'retention',
            declared: 14,
            actual: 7,
            verdict: 'differs',
            to_apply: { risk: 'change', effect: 'keeps 14 days, not 7' },
          },
          { setting: 'locked', declared: true, actual: true, verdict: 'as_declared' },
        ],
      },
    });
  });

  it('looks at all databases at once, and one that cannot be read hides no other', async () => {
    const broken = newVault();
    Object.defineProperty(broken, 'retention', {
      get: () => {
        throw new Error('gone');
      },
    });
    const { engine } = await start({ a: newVault(), b: broken }, { a: { retention: 7 }, b: { retention: 7 } });
    expect(await engine.call({ principal: VIEWER, action: 'check-settings', input: {} })).toMatchObject({
      output: {
        in_line: false,
        databases: [
          { entity: 'my-app/a', in_line: true },
          { entity: 'my-app/b', error: { code: 'PROVIDER_UNAVAILABLE' } },
        ],
      },
    });
  });
});

describe('apply-settings', () => {
  it('applies what strengthens, one request for settings that go together, and says what changed', async () => {
    const vault = newVault({ locked: false, lag: 0 });
    const { engine } = await start({ a: vault }, { a: { retention: 14, locked: true } });
    expect(await engine.call(apply())).toMatchObject({
      operation: {
        status: 'succeeded',
        result: {
          applied: [
            { setting: 'retention', from: 7, to: 14 },
            { setting: 'locked', from: false, to: true },
          ],
        },
      },
    });
    expect(vault.writes).toEqual(['modify: retention, locked']);
  });

  it('sends nothing where all is as declared', async () => {
    const vault = newVault();
    const { engine } = await start({ a: vault }, { a: { retention: 7 } });
    expect(await engine.call(apply())).toMatchObject({ operation: { status: 'succeeded', result: { applied: [] } } });
    expect(vault.writes).toEqual([]);
  });

  it('waits until what it asked for is in force', async () => {
    const vault = newVault();
    vault.after = async () => {
      vault.lag = 3;
    };
    const { engine } = await start({ a: vault }, { a: { retention: 14 } });
    expect(await engine.call(apply())).toMatchObject({ operation: { status: 'succeeded' } });
    expect(vault.lag).toBe(0);
  });

  it('says so when it does not come into force', async () => {
    const vault = newVault();
    vault.after = async () => {
      vault.retention = 7;
    };
    const { engine } = await start({ a: vault }, { a: { retention: 14 } });
    const error = await refusal(engine.call(apply()));
    expect(error).toMatchObject({ code: 'TIMEOUT' });
    expect(error.message).toContain('retention did not become as declared');
    expect(vault.writes).toHaveLength(1);
  });

  it('guards what lowers protection: the plan says what is lost, what is final, and what could be applied alone', async () => {
    const vault = newVault({ locked: false });
    const { engine } = await start({ a: vault }, { a: { retention: 3, locked: true, mode: 'sealed' } });
    const refused = await refusal(engine.call(apply()));
    expect(refused.code).toBe('CONFIRMATION_REQUIRED');
    const { plan, confirmation } = detailsOf(refused);
    expect(plan).toMatchObject({
      risk: 'weaken',
      target: 'vault/a',
      loses: 'keeps 3 days, not 7; seals it for good.',
      undo: 'mode cannot be undone at this provider. Declare what was before (retention: 7, locked: false) and apply again; what was deleted meanwhile does not come back.',
      blast_radius: { retention: 'from 7 to 3: keeps 3 days, not 7', mode: 'from plain to sealed: seals it for good' },
      alternatives: [
        { risk: 'change', call: { entity: KEY, action: 'apply-settings', input: { settings: ['locked'] } } },
      ],
    });
    expect(vault.writes).toEqual([]);
    await engine.approve({ confirmation: confirmation.id, by: BOSS, via: 'terminal', typedTarget: 'vault/a' });
    const outcome = await engine.call({ ...apply(), token: confirmation.token });
    expect(outcome).toMatchObject({ operation: { status: 'succeeded' } });
    expect(vault.writes).toEqual(['modify: retention, locked', 'seal: mode']);
    expect((await refusal(engine.call({ ...apply(), token: confirmation.token }))).code).toBe('CONFIRMATION_USED');
    // Nothing is left to apply, and so nothing to confirm; another call may carry the spent token about.
    const carried = { principal: ANA, entity: KEY, action: 'check-settings', input: {}, token: confirmation.token };
    expect(await engine.call(carried)).toMatchObject({ output: { in_line: true } });
    expect(await engine.call(apply())).toMatchObject({ operation: { result: { applied: [] } } });
    expect(vault.writes).toHaveLength(2);
  });

  it('applies the named settings alone', async () => {
    const vault = newVault({ locked: false });
    const { engine } = await start({ a: vault }, { a: { retention: 3, locked: true } });
    expect(await engine.call(apply({ settings: ['locked'] }))).toMatchObject({ operation: { status: 'succeeded' } });
    expect(vault).toMatchObject({ locked: true, retention: 7 });
    const unknown = await refusal(engine.call(apply({ settings: ['lock'] })));
    expect(unknown).toMatchObject({ code: 'INVALID_PARAMETER', hint: 'Did you mean locked?' });
  });

  it('voids an approval when a setting changed meanwhile', async () => {
    const vault = newVault();
    const { engine } = await start({ a: vault }, { a: { retention: 3 } });
    const { confirmation } = detailsOf(await refusal(engine.call(apply())));
    await engine.approve({ confirmation: confirmation.id, by: BOSS, via: 'terminal', typedTarget: 'vault/a' });
    vault.retention = 30;
    expect((await refusal(engine.call({ ...apply(), token: confirmation.token }))).code).toBe('PLAN_CHANGED');
    expect(vault.writes).toEqual([]);
  });

  it('never sends a request twice when its answer was lost', async () => {
    const vault = newVault();
    vault.after = async () => {
      throw new HoldfastError('PROVIDER_UNAVAILABLE', 'the line broke', { details: { outcome: 'unknown' } });
    };
    const { engine } = await start({ a: vault }, { a: { retention: 14 } });
    expect(await engine.call(apply())).toMatchObject({ operation: { status: 'succeeded' } });
    expect(vault.writes).toHaveLength(1);
    const other = newVault();
    other.before = vault.after;
    const second = await start({ a: other }, { a: { retention: 14 } });
    const lost = await refusal(second.engine.call(apply()));
    expect(lost.message).toContain('retention is not as declared');
    expect(other.writes).toEqual([]);
  });

  it('says of what it cannot apply why', async () => {
    const { engine } = await start({ a: newVault() }, { a: { seal: 'wax' } });
    expect(await engine.call({ ...apply(), dryRun: true })).toMatchObject({
      plan: { warnings: ['seal is not as declared and cannot be applied: it is set when a box is made.'] },
    });
  });
});

describe('apply-settings on all databases', () => {
  it('applies what strengthens and leaves what weakens for a person, one by one', async () => {
    const vaults = { a: newVault(), b: newVault(), c: newVault() };
    const { engine } = await start(vaults, { a: { retention: 14 }, b: { retention: 3 }, c: { retention: 7 } });
    const outcome = await engine.call({ principal: ANA, action: 'apply-settings', input: {}, wait: 'end' });
    expect(outcome).toMatchObject({
      output: {
        databases: [
          { entity: 'my-app/a', status: 'succeeded', applied: [{ setting: 'retention', from: 7, to: 14 }] },
          {
            entity: 'my-app/b',
            error: { code: 'CONFIRMATION_REQUIRED', details: { approval_code: expect.any(String) } },
          },
          { entity: 'my-app/c', applied: [] },
        ],
      },
    });
    expect(JSON.stringify(outcome)).not.toContain('hfc_');
    expect([vaults.a.retention, vaults.b.retention]).toEqual([14, 7]);
  });

  it('is the call on one database where it names one, token and all', async () => {
    const vault = newVault();
    const { engine } = await start({ a: vault }, { a: { retention: 3 } });
    const call = { principal: ANA, action: 'apply-settings', input: { entity: KEY }, wait: 'end' as const };
    const { confirmation } = detailsOf(await refusal(engine.call(call)));
    await engine.approve({ confirmation: confirmation.id, by: BOSS, via: 'terminal', typedTarget: 'vault/a' });
    expect(await engine.call({ ...call, token: confirmation.token })).toMatchObject({
      output: { databases: [{ entity: KEY, status: 'succeeded', applied: [{ setting: 'retention', to: 3 }] }] },
    });
  });

  it('takes no confirmation and no choice of settings for all at once', async () => {
    const { engine } = await start({ a: newVault() }, { a: { retention: 3 } });
    const call = { principal: ANA, action: 'apply-settings', input: {} };
    expect((await refusal(engine.call({ ...call, token: 'hfc_x' }))).code).toBe('INVALID_PARAMETER');
    expect((await refusal(engine.call({ ...call, input: { settings: ['retention'] } }))).code).toBe(
      'INVALID_PARAMETER',
    );
  });

  it('changes nothing in a dry run, and nothing for one who only looks', async () => {
    const vault = newVault();
    const { engine } = await start({ a: vault }, { a: { retention: 14 } });
    expect(await engine.call({ principal: ANA, action: 'apply-settings', input: {}, dryRun: true })).toMatchObject({
      output: { databases: [{ entity: KEY, plan: { risk: 'change', loses: 'nothing' } }] },
    });
    expect(await engine.call({ principal: VIEWER, action: 'apply-settings', input: {} })).toMatchObject({
      output: { databases: [{ error: { code: 'POLICY_DENIED' } }] },
    });
    expect(vault.writes).toEqual([]);
  });
});
