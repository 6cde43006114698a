import { createHash, scryptSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { faultText } from '../../src/config/load.ts';
import type { PolicyConfig } from '../../src/core/policy.ts';
import { faults, load, report } from './support.ts';

const guard = (text: string): PolicyConfig => load(`guard:\n${text.replace(/^/gm, '  ')}\n`).guard;
const guardFaults = (text: string): string[] => faults(`guard:\n${text.replace(/^/gm, '  ')}\n`);

describe('the policy', () => {
  it('has safe defaults', () => {
    const defaults = { confirm: 'human', read_only: false, confirmation_ttl_seconds: 600, approver: 'any', rules: [] };
    expect(guard('confirm: human')).toEqual(defaults);
    expect(load('guard:\n').guard).toEqual(defaults);
  });

  it('takes hyphens for underscores, and underscores in the words of requirements', () => {
    expect(guard('read-only: true\nconfirmation-ttl: 15m\nconfirm: two_people\napprover: out_of_band')).toEqual({
      confirm: 'two-people',
      read_only: true,
      confirmation_ttl_seconds: 900,
      approver: 'out-of-band',
      rules: [],
    });
    expect(guard('confirmation_ttl_seconds: 30').confirmation_ttl_seconds).toBe(30);
  });

  it('takes conditions in the rule or under match, one or a list of each', () => {
    const flat = guard(
      'rules:\n  - { entity: my-app/*, action: [restore, delete-*], risk: overwrite, role: operator, principal: "http:*", labels: { env: production, pci: true }, decision: confirm, require: two_people, approver: out-of-band, name: n, reason: r }',
    );
    const apart = guard(
      'rules:\n  - match: { entity: [my-app/*], action: [restore, delete-*], risk: [overwrite], role: [operator], principal: ["http:*"], labels: { env: production, pci: true } }\n    decision: confirm\n    require: two-people\n    approver: out-of-band\n    name: n\n    reason: r',
    );
    expect(flat.rules).toEqual([
      {
        name: 'n',
        entity: ['my-app/*'],
        labels: { env: 'production', pci: 'true' },
        action: ['restore', 'delete-*'],
        risk: ['overwrite'],
        role: ['operator'],
        principal: ['http:*'],
        decision: 'confirm',
        require: 'two-people',
        approver: 'out-of-band',
        reason: 'r',
      },
    ]);
    expect(apart).toEqual(flat);
  });

  it('keeps labels as they are spelled', () => {
    expect(guard('rules: [{ labels: { cost-center: a_b }, decision: deny }]').rules[0]?.labels).toEqual({
      'cost-center': 'a_b',
    });
  });

  it('keeps the order of rules and leaves out what is not written', () => {
    expect(guard('rules: [{ decision: deny, action: restore }, { decision: allow }]').rules).toEqual([
      { decision: 'deny', action: ['restore'] },
      { decision: 'allow' },
    ]);
  });

  it.each([
    ['mon-fri', ['mon', 'tue', 'wed', 'thu', 'fri']],
    ['sat-mon', ['sat', 'sun', 'mon']],
    ['[mon, wed-thu]', ['mon', 'wed', 'thu']],
    ['sun', ['sun']],
  ])('reads the days %s', (days, expected) => {
    expect(
      guard(`rules: [{ hours: { days: ${days}, from: "22:00", to: "06:00" }, decision: deny }]`).rules[0]?.hours,
    ).toEqual({ days: expected, from: '22:00', to: '06:00' });
  });

  it.each([
    ['rules: [{ decision: deny, entitty: "a/*" }]', 'guard.rules.0.entitty', 'entity'],
    ['rules: [{ match: { rsik: delete }, decision: deny }]', 'guard.rules.0.match.rsik', 'risk'],
    ['readonly: true', 'guard.readonly', 'read_only'],
    ['rules: [{ decision: dney }]', 'guard.rules.0.decision', 'deny'],
    ['rules: [{ decision: deny, risk: [delet] }]', 'guard.rules.0.risk.0', 'delete'],
    ['confirm: humans', 'guard.confirm', 'human'],
  ])('suggests what %s means', (text, path, suggestion) => {
    const [fault] = report(`guard:\n  ${text}\n`).faults;
    expect(fault?.path).toBe(path);
    expect(fault?.suggestion).toContain(suggestion);
  });

  it.each([
    ['an empty list, which could never match', 'rules: [{ entity: [], decision: deny }]'],
    ['an empty glob', 'rules: [{ entity: "", decision: deny }]'],
    ['an entity without its namespace', 'rules: [{ entity: prod, decision: deny }]'],
    ['an action in snake_case, which could never match', 'rules: [{ action: delete_snapshot, decision: deny }]'],
    ['a rule without a decision', 'rules: [{ action: restore }]'],
    ['allowing what has a floor', 'rules: [{ risk: [read, overwrite], decision: allow }]'],
    ['allowing it under match', 'rules: [{ match: { risk: merge }, decision: allow }]'],
    ['require beside allow', 'rules: [{ require: token, decision: allow }]'],
    ['approver beside deny', 'rules: [{ approver: any, decision: deny }]'],
    ['one condition in both places', 'rules: [{ action: restore, match: { action: restore }, decision: deny }]'],
    ['one key spelled two ways', 'read_only: true\nread-only: false'],
    ['two lifetimes', 'confirmation_ttl: 10m\nconfirmation_ttl_seconds: 600'],
    ['a lifetime without its unit', 'confirmation_ttl: "10"'],
    ['a lifetime that never ends', 'confirmation_ttl: 52w'],
    ['an unknown day', 'rules: [{ hours: { days: someday, from: "01:00", to: "02:00" }, decision: deny }]'],
    ['an hour that is none', 'rules: [{ hours: { from: "24:00", to: "02:00" }, decision: deny }]'],
    ['a window without width', 'rules: [{ hours: { from: "02:00", to: "02:00" }, decision: deny }]'],
    ['text where a truth value belongs', 'read_only: yes'],
    ['a rule that is text', 'rules: [deny]'],
  ])('refuses %s', (_what, text) => {
    expect(guardFaults(text)).toHaveLength(1);
  });

  it('points at the value inside a rule spelled with hyphens', () => {
    expect(faults('guard:\n  read-only: maybe\n')).toEqual([
      "holdfast.yaml:2:14: guard.read_only: 'read_only' must be true or false, not text",
    ]);
  });

  it('takes the hash of an approver passphrase, never the passphrase', () => {
    const salt = Buffer.from('0123456789abcdef');
    const hash = scryptSync('open sesame', salt, 32, { N: 32_768, maxmem: 2 ** 28 });
    const text = `scrypt$32768$8$1$${salt.toString('base64')}$${hash.toString('base64')}`;
    expect(guard(`approver_passphrase_hash: ${text}`).approver_passphrase_hash).toBe(text);
    for (const wrong of [
      'open sesame',
      text.replace('32768', '1024'),
      text.replace('32768', '32767'),
      text.replace('$8$', '$99$'),
    ]) {
      const { faults: found } = report(`guard: { approver_passphrase_hash: "${wrong}" }`);
      expect(found.map(({ path }) => path)).toEqual(['guard.approver_passphrase_hash']);
      expect(found[0]?.suggestion).toContain('node -e');
      expect(JSON.stringify(found)).not.toContain('sesame');
    }
  });
});

describe('the server section', () => {
  const sha256 = createHash('sha256').update('the token').digest('hex');

  it('has defaults that listen to this machine only', () => {
    expect(load('server: {}').server).toMatchObject({
      host: '127.0.0.1',
      port: 7311,
      allowed_hosts: [],
      allowed_origins: [],
      tokens: [],
    });
  });

  it('takes hashed tokens with roles, hosts, origins and limits', () => {
    const { server } = load(`server:
  host: 0.0.0.0
  port: 8080
  allowed-hosts: [holdfast.example.com, "holdfast.example.com:8080", "[::1]"]
  allowed_origins: [https://app.example.com]
  tokens: [{ name: ci, sha256: ${sha256.toUpperCase()}, roles: [viewer], expires_at: "2027-01-01T00:00:00Z" }]
  max_sessions: 50
  session_idle: 30m`);
    expect(server).toEqual({
      host: '0.0.0.0',
      port: 8080,
      allowed_hosts: ['holdfast.example.com', 'holdfast.example.com:8080', '[::1]'],
      allowed_origins: ['https://app.example.com'],
      tokens: [{ name: 'ci', sha256, roles: ['viewer'], expires_at: '2027-01-01T00:00:00Z' }],
      max_sessions: 50,
      session_idle_seconds: 1800,
      schedules: true,
    });
  });

  it.each([
    ['{ name: ci, token: the-real-token-value, roles: [viewer] }'],
    ['{ name: ci, sha256: the-real-token-value, roles: [viewer] }'],
  ])('refuses a literal token and tells how to hash one: %s', (token) => {
    const { faults: found } = report(`server: { tokens: [${token}] }`);
    expect(found.some(({ suggestion }) => suggestion?.includes('printf %s "$TOKEN" | sha256sum'))).toBe(true);
    expect(JSON.stringify(found)).not.toContain('the-real-token-value');
  });

  it.each([
    ['listening to all without tokens or hosts', 'host: 0.0.0.0', 2],
    ['listening to all without hosts', `host: 0.0.0.0\n  tokens: [{ name: a, sha256: ${sha256}, roles: [viewer] }]`, 1],
    [
      'one token twice',
      `tokens: [{ name: a, sha256: ${sha256}, roles: [viewer] }, { name: b, sha256: ${sha256}, roles: [viewer] }]`,
      1,
    ],
    ['a token without a role', `tokens: [{ name: a, sha256: ${sha256}, roles: [] }]`, 1],
    ['an unknown role', `tokens: [{ name: a, sha256: ${sha256}, roles: [root] }]`, 1],
    [
      'an expiry without a time zone',
      `tokens: [{ name: a, sha256: ${sha256}, roles: [viewer], expires_at: "2027-01-01T00:00:00" }]`,
      1,
    ],
    ['a host with a scheme', 'allowed_hosts: [https://x]', 1],
    ['an origin with a path', 'allowed_origins: [https://x/y]', 1],
    ['a port that is none', 'port: 70000', 1],
    ['a variable, which is not read here', 'host: ${env:HOST}', 1],
    ['an unknown key', 'hosts: [x]', 1],
  ])('refuses %s', (_what, text, count) => {
    expect(report(`server:\n  ${text}\n`).faults.filter(({ path }) => path.startsWith('server'))).toHaveLength(count);
  });
});

describe('the alerts section', () => {
  it('takes webhooks with secrets by reference, and rules', () => {
    const { alerts } = load(`alerts:
  webhooks:
    - { name: ops, kind: slack, url: "\${env:SLACK_URL}", severity: critical }
    - { name: pager, kind: pagerduty, routing-key: "\${file:/run/pd}" }
  check-every: 1m
  rules: { no_restorable_point: 24h, replication_lag: false }`);
    expect(alerts.webhooks).toEqual([
      { name: 'ops', kind: 'slack', url: { secret: 'env', name: 'SLACK_URL' }, severity: 'critical' },
      { name: 'pager', kind: 'pagerduty', routing_key: { secret: 'file', name: '/run/pd' }, severity: 'warning' },
    ]);
    expect(alerts).toMatchObject({
      check_every: 60,
      rules: { no_restorable_point: 86_400, replication_lag: false, failures_in_a_row: 3 },
    });
  });

  it.each([
    ['webhooks: [{ name: a, kind: slack, url: https://hooks.slack.com/services/T0/B0/literal }]', 'must name a secret'],
    ['webhooks: [{ name: a, kind: sms, url: "${env:X}" }]', 'kind'],
    [
      'webhooks: [{ name: a, kind: slack, url: "${env:X}" }, { name: a, kind: slack, url: "${env:X}" }]',
      'stands twice',
    ],
    ['rules: { no_restorable_pont: 24h }', 'unknown parameter'],
    ['rules: { no_restorable_point: true }', 'no_restorable_point'],
  ])('refuses %s', (text, message) => {
    const found = report(`alerts:\n  ${text}\n`).faults.map(faultText);
    expect(found).toEqual([expect.stringContaining(message)]);
    expect(found.join()).not.toContain('B0/literal');
  });
});
