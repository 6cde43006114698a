import { describe, expect, it } from 'vitest';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { Plan } from '../../src/core/plan.ts';
import { renderError, renderOperation, renderOutcome, renderPlan, renderValue } from '../../src/surfaces/render.ts';

const plan: Plan = {
  action: 'restore',
  entity: 'shop/orders',
  risk: 'overwrite',
  target: 'p1/orders',
  source: 'snapshot s1',
  loses: 'every write after 2026-11-20T10:00:00Z',
  since: '2026-11-20T10:00:00Z',
  blast_radius: { size_bytes: 5_368_709_120, databases: ['a', 'b'], open: { connections: 12 } },
  newest_recovery_point: { id: 's9', at: '2026-11-21T02:00:00Z' },
  safety_snapshot: { state: 'taken' },
  undo: 'restore the safety snapshot',
  alternatives: [
    {
      title: 'restore into a new cluster',
      risk: 'create',
      call: { entity: 'shop/orders', action: 'restore', input: { snapshot_id: 's1', target_cluster: 'new' } },
    },
  ],
  duration_estimate: 900,
  unknowns: ['how many clients write now'],
  warnings: ['clients lose their connections'],
  facts: { target: { id: 'p1/orders', state: 'IDLE' }, source: { id: 's1' } },
};

describe('plan', () => {
  it('shows every fact a person decides on', () => {
    expect(renderPlan(plan)).toBe(
      [
        'Plan: restore on shop/orders, risk overwrite',
        'Target: p1/orders',
        'Source: snapshot s1',
        'Loses: every write after 2026-11-20T10:00:00Z',
        'Loses everything written since: 2026-11-20T10:00:00Z',
        'Reaches: size_bytes=5.0 GiB (5368709120 bytes), databases=[a, b], open.connections=12',
        'Newest recovery point: s9, 2026-11-21T02:00:00Z',
        'Safety snapshot: taken first, and waited for',
        'Undo: restore the safety snapshot',
        'Takes about: 15 min',
        'Warning: clients lose their connections',
        'Not known: how many clients write now',
        'Safer way (risk create): restore into a new cluster: restore on shop/orders {"snapshot_id":"s1","target_cluster":"new"}',
        'Approval rests on: target.id=p1/orders, target.state=IDLE, source.id=s1',
      ].join('\n'),
    );
  });

  it('lets no line break in a value pass for a line of ours', () => {
    const text = renderPlan({ ...plan, loses: 'nothing\nLoses: nothing at all', source: 'a\u2028Risk: read' });
    expect(text.split(/[\n\u2028]/)).toHaveLength(renderPlan(plan).split('\n').length);
  });

  it('says what policy would decide about a dry run', () => {
    const action = { kind: 'fleet', name: 'plan' } as never;
    expect(renderOutcome({ kind: 'plan', action, plan, decision: 'deny' })).toMatch(/forbids this call\.$/);
    expect(renderOutcome({ kind: 'plan', action, plan, decision: 'confirm', require: 'two-people' })).toMatch(
      /needs a confirmation \(a person other than the caller, who/,
    );
  });
});

describe('error', () => {
  it('says what happened, what was left alone and what to do next', () => {
    const error = new HoldfastError('POLICY_DENIED', "policy denies 'restore'");
    expect(renderError(error).split('\n')).toEqual([
      "POLICY_DENIED: policy denies 'restore'",
      'Nothing was run; nothing was changed.',
      error.hint,
    ]);
  });

  it('says it when nobody knows whether a change arrived', () => {
    const error = new HoldfastError('TIMEOUT', 'no answer', { details: { outcome: 'unknown' } });
    expect(renderError(error)).toContain('NOT known whether the change arrived');
  });

  it('shows plan, token and the way to approve of a required confirmation', () => {
    const confirmation = {
      id: 'c1',
      token: 'hfc_x',
      code: '7K3Q-F2MD',
      require: 'human',
      out_of_band: false,
      expires_at: '2026-11-21T10:10:00Z',
      approve_with: 'holdfast approve 7K3Q-F2MD',
    };
    const details = { plan, confirmation } as unknown as JsonObject;
    const text = renderError(new HoldfastError('CONFIRMATION_REQUIRED', 'a person must approve this', { details }));
    expect(text).toContain('Nothing was run');
    expect(text).toContain('Loses: every write after 2026-11-20T10:00:00Z');
    expect(text).toContain('code 7K3Q-F2MD, confirmation_token hfc_x, until 2026-11-21T10:10:00Z');
    expect(text).toContain('holdfast approve 7K3Q-F2MD');
    expect(text).not.toContain('Details:');
  });

  it('shows the plan of a call that policy forbids, and the code of one that still waits', () => {
    const denied = new HoldfastError('POLICY_DENIED', 'no', { details: { rule: 'r1', plan: plan as never } });
    expect(renderError(denied)).toContain('Details: rule=r1\n\nPlan: restore on shop/orders');
    const waiting = new HoldfastError('CONFIRMATION_PENDING', 'waiting', {
      details: { confirmation: { code: '7K3Q-F2MD', approve_with: 'holdfast approve 7K3Q-F2MD' } },
    });
    expect(renderError(waiting)).toMatch(/Confirmation: code 7K3Q-F2MD\nApprove with: holdfast approve 7K3Q-F2MD$/);
  });

  it('lists what differs from the approved plan', () => {
    const differences = [{ path: 'target.state', before: 'IDLE', after: 'DELETING' }];
    const text = renderError(new HoldfastError('PLAN_CHANGED', 'the target changed', { details: { differences } }));
    expect(text).toContain('Changed: target.state: IDLE -> DELETING');
  });
});

describe('values', () => {
  it('writes lists of objects as a table and leaves nothing out', () => {
    const text = renderValue({
      snapshots: [
        { id: 'a', size_bytes: 10, restorable: true, provider: { tier: 'M10', tags: ['x', 'y'] } },
        { id: 'bbbb', restorable: false },
      ],
      notes: ['older ones are gone'],
    });
    expect(text).toBe(
      [
        'snapshots (2):',
        '  id    size_bytes  restorable',
        '  a     10          yes',
        '      provider: tier=M10, tags=[x, y]',
        '  bbbb  -           no',
        'notes:',
        '  - older ones are gone',
      ].join('\n'),
    );
  });

  it('writes suggested calls in the words of the surface, and plans as plans', () => {
    const call = { entity: 'shop/orders', action: 'restore', input: { snapshot_id: 's1' } };
    const options = { call: ({ action }: { action: string }) => `tool_${action}` };
    expect(renderValue({ call, options: [{ title: 'a', call }], input: { ...call, more: 1 } }, options)).toBe(
      [
        'call: tool_restore',
        'options (1):',
        '  title',
        '  a',
        '      call: tool_restore',
        'input:',
        '  entity: shop/orders',
        '  action: restore',
        '  input: snapshot_id=s1',
        '  more: 1',
      ].join('\n'),
    );
    expect(renderValue({ plan })).toContain(
      'plan:\n  Plan: restore on shop/orders, risk overwrite\n  Target: p1/orders',
    );
    expect(renderValue({ plan: { ...plan, warnings: 3 } })).toContain('plan:\n  action: restore');
  });

  it('turns a table that is too wide into blocks', () => {
    const row = { first: 'x'.repeat(30), second: 'y'.repeat(30) };
    expect(renderValue([row], { width: 40 })).toBe(`- first: ${row.first}\n  second: ${row.second}`);
  });

  it('gives sizes and durations for people with the exact figure', () => {
    expect(renderValue({ size_bytes: 1_258_291, retention_seconds: 604_800, pitr: null })).toBe(
      'size_bytes: 1.2 MiB (1258291 bytes)\nretention_seconds: 604800 (7 d)\npitr: -',
    );
  });

  it('answers for empty values', () => {
    expect(renderValue({})).toBe('(nothing)');
    expect(renderValue([])).toBe('(none)');
    expect(renderValue({ list: [], text: '' })).toBe('list: (none)\ntext: (empty)');
  });
});

describe('operation', () => {
  it('shows steps, undo and the next call while it runs', () => {
    const text = renderOperation(
      {
        operation_id: 'op_1',
        action: 'restore',
        entity: 'shop/orders',
        status: 'running',
        percent: 41.7,
        target: 'p1/orders',
        started_at: '2026-11-21T10:00:00Z',
        steps: [
          { name: 'safety-snapshot', status: 'succeeded' },
          { name: 'restore', status: 'running', percent: 40, message: 'copying' },
        ],
        undo: { action: 'restore', input: { snapshot_id: 's10' } },
        sandbox: true,
      },
      { call: (call) => `holdfast ${call.action} ${call.input['operation_id']}` },
    );
    expect(text).toBe(
      [
        'Operation op_1: running (42 %) [sandbox]',
        'restore on shop/orders, target p1/orders, started 2026-11-21T10:00:00Z',
        '  safety-snapshot: succeeded',
        '  restore: running 40 %, copying',
        'Undo:',
        '  action: restore',
        '  input: snapshot_id=s10',
        'Not over yet. Next: holdfast wait-operation op_1',
      ].join('\n'),
    );
  });

  it('shows the error of a failed one without offering to wait', () => {
    const text = renderOperation({
      operation_id: 'op_2',
      action: 'restore',
      entity: 'shop/orders',
      status: 'failed',
      started_at: '2026-11-21T10:00:00Z',
      ended_at: '2026-11-21T10:01:00Z',
      steps: [],
      error: { code: 'QUOTA_EXCEEDED', message: 'no room', hint: 'Free space.', retryable: false },
    });
    expect(text).toContain('Error QUOTA_EXCEEDED: no room\nFree space.');
    expect(text).not.toContain('Next:');
  });
});
