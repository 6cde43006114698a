import { describe, expect, it } from 'vitest';
import { decide, matchesGlob } from '../../guards/policy.ts';
import { DEFAULT_POLICY, type PolicyConfig, type PolicyRule } from '../../src/core/policy.ts';
import { RISKS, type Risk } from '../../src/core/risk.ts';
import { ANA, VIEWER } from '../support/harness.ts';

const monday = new Date('2026-11-23T10:00:00Z');
const ask = (risk: Risk, policy: Partial<PolicyConfig> = {}, extra: object = {}) =>
  decide(
    { ...DEFAULT_POLICY, ...policy },
    {
      principal: ANA,
      entity: 'shop/carts',
      labels: { env: 'production' },
      action: 'restore',
      risk,
      now: monday,
      ...extra,
    },
  );
const rule = (parts: Partial<PolicyRule>): PolicyRule => ({ decision: 'deny', ...parts });

describe('policy', () => {
  it('allows what only reads, creates or changes and asks for the rest', () => {
    expect(RISKS.map((risk) => ask(risk).decision)).toEqual([
      'allow',
      'allow',
      'allow',
      'confirm',
      'confirm',
      'confirm',
      'confirm',
    ]);
  });

  it('never allows merge and overwrite without confirmation, whatever a rule says', () => {
    const rules = [rule({ decision: 'allow' })];
    expect(RISKS.map((risk) => ask(risk, { rules }).decision)).toEqual([
      'allow',
      'allow',
      'allow',
      'allow',
      'allow',
      'confirm',
      'confirm',
    ]);
  });

  it('can make every risk stricter', () => {
    expect(ask('read', { rules: [rule({})] }).decision).toBe('deny');
    expect(ask('overwrite', { rules: [rule({ decision: 'confirm', require: 'two-people' })] }).require).toBe(
      'two-people',
    );
  });

  it('denies a risk that it does not know', () => {
    expect(ask('harmless' as Risk).decision).toBe('deny');
  });

  it('denies everything above read when it is read-only, before any rule', () => {
    const policy = { read_only: true, rules: [rule({ decision: 'allow' })] };
    expect(RISKS.map((risk) => ask(risk, policy).decision)).toEqual([
      'allow',
      ...Array.from({ length: 6 }, () => 'deny'),
    ]);
  });

  it('lets viewers read only, and nobody without a role', () => {
    expect(ask('create', {}, { principal: VIEWER }).decision).toBe('deny');
    expect(ask('read', {}, { principal: VIEWER }).decision).toBe('allow');
    expect(ask('read', {}, { principal: { ...VIEWER, roles: [] } }).decision).toBe('deny');
  });

  it('takes the first rule that matches in all its conditions', () => {
    const rules = [
      rule({ name: 'other entity', entity: ['shop/orders'] }),
      rule({ name: 'other label', labels: { env: 'staging' } }),
      rule({ name: 'other action', action: ['delete-*'] }),
      rule({ name: 'other risk', risk: ['read'] }),
      rule({ name: 'other role', role: ['approver'] }),
      rule({ name: 'other caller', principal: ['http:*'] }),
      rule({
        name: 'this one',
        entity: ['x', 'shop/*'],
        labels: { env: 'production' },
        action: ['re?tore'],
        risk: ['create', 'overwrite'],
        role: ['operator'],
        principal: ['stdio:*'],
        reason: 'freeze',
      }),
    ];
    expect(ask('overwrite', { rules })).toMatchObject({ decision: 'deny', rule: 'this one', reason: 'freeze' });
  });

  it.each([
    ['2026-11-23T09:00:00Z', true],
    ['2026-11-23T08:59:00Z', false],
    ['2026-11-23T17:00:00Z', false],
    ['2026-11-22T10:00:00Z', false],
  ])('keeps to hours of weekdays at %s', (now, within) => {
    const rules = [rule({ hours: { days: ['mon', 'tue', 'wed', 'thu', 'fri'], from: '09:00', to: '17:00' } })];
    expect(ask('create', { rules }, { now: new Date(now) }).decision).toBe(within ? 'deny' : 'allow');
  });

  it.each([
    ['2026-11-27T23:00:00Z', true],
    ['2026-11-28T05:59:00Z', true],
    ['2026-11-28T06:00:00Z', false],
    ['2026-11-28T23:00:00Z', false],
    ['2026-11-27T05:00:00Z', false],
  ])('lets a window run over midnight at %s', (now, within) => {
    const rules = [rule({ hours: { days: ['fri'], from: '22:00', to: '06:00' } })];
    expect(ask('create', { rules }, { now: new Date(now) }).decision).toBe(within ? 'deny' : 'allow');
  });

  it('asks out of band when the policy, the rule or a passphrase wants it', () => {
    expect(ask('delete').outOfBand).toBe(false);
    expect(ask('delete', { approver: 'out-of-band' }).outOfBand).toBe(true);
    expect(ask('delete', { approver_passphrase_hash: 'scrypt$2$8$1$c2FsdA==$aGFzaA==' }).outOfBand).toBe(true);
    expect(ask('delete', { rules: [rule({ decision: 'confirm', approver: 'out-of-band' })] }).outOfBand).toBe(true);
  });

  it('matches globs in time that grows with their length only', () => {
    expect(matchesGlob('prod/*', 'prod/a/b')).toBe(true);
    expect(matchesGlob('prod/?', 'prod/ab')).toBe(false);
    expect(matchesGlob('*', '')).toBe(true);
    expect(matchesGlob('a.c', 'abc')).toBe(false);
    expect(matchesGlob(`${'*a'.repeat(50)}b`, 'a'.repeat(5000))).toBe(false);
  });
});
