import { AjvJsonSchemaValidator } from '@modelcontextprotocol/server/validators/ajv';
import { loadAll } from 'js-yaml';
import { describe, expect, it } from 'vitest';
import type { EntityTypes } from '../../src/config/entities.ts';
import { renderExample } from '../../src/config/example.ts';
import { configJsonSchema } from '../../src/config/json-schema.ts';
import { faultText, loadConfig } from '../../src/config/load.ts';
import { collect } from '../../src/engine/registry.ts';
import * as tools from '../../tools/index.ts';
import { entityTypes as fakes } from './support.ts';

const real: EntityTypes = Object.fromEntries(
  [...collect(tools).entityTypes].map(([defines, { provider, type }]) => [defines, { provider: provider.id, type }]),
);

function validator(types: EntityTypes): (text: string) => boolean {
  const validate = new AjvJsonSchemaValidator().getValidator<unknown>(configJsonSchema(types));
  return (text) => loadAll(text).every((document) => validate(document).valid);
}

describe.each([
  ['the fake types', fakes],
  ['every type of every provider', real],
])('the example of %s', (_what, types) => {
  it('loads without a fault and has one entity of each type', () => {
    const report = loadConfig({
      text: renderExample(types),
      entityTypes: types,
      baseDirectory: '/nowhere',
      strict: false,
    });
    expect([...report.faults, ...report.warnings].map(faultText)).toEqual([]);
    expect(report.entities.map(({ base }) => base.defines).sort()).toEqual(Object.keys(types).sort());
    expect(report.guard?.rules.length).toBeGreaterThan(0);
  });

  it('fits the schema for editors', () => {
    expect(validator(types)(renderExample(types))).toBe(true);
  });
});

describe('the schema for editors', () => {
  const fits = validator(fakes);

  it.each([
    'namespace: a\nb: { defines: fake/server, host: h, port: 5432 }',
    'namespace: a\nb: { defines: fake/server, host: h, port: "${env:PORT}", mode: "${env:MODE:-logical}" }',
    'namespace: a\nb: { defines: fake/server, host: h, password: "${env:PW}", user: postgres }',
    'namespace: a\nb: { defines: fake/server, host: h, instance_class: { any: thing }, connections: {} }',
    'namespace: a\nb: { defines: fake/server, host: h, labels: { env: prod, pci: true }, objectives: { rpo: 15m } }',
    'namespace: a\nb: { defines: fake/server, host: h, storage: main }',
    'include: conf.d/*.yaml',
    'guard: { read-only: true, rules: [{ match: { risk: delete }, decision: deny }] }',
    'server: { session-idle: 30m, allowed_hosts: [x] }',
    'storage: { type: local, path: /b }',
    'storage: { main: { type: s3, bucket: b, secret_access_key: "${env:K}" } }',
    'alerts: { webhooks: [{ name: a, kind: slack, url: "${env:U}" }] }',
  ])('takes what the reader takes: %s', (text) => {
    expect(fits(text)).toBe(true);
    expect(
      loadConfig({ text, entityTypes: fakes, strict: false, baseDirectory: '/nowhere' }).faults.filter(
        ({ message }) => !message.includes('store that'),
      ),
    ).toEqual([]);
  });

  it.each([
    'namespace: a\nb: { defines: fake/server }',
    'namespace: a\nb: { defines: fake/server, host: h, prot: 1 }',
    'namespace: a\nb: { defines: fake/server, host: h, port: "5432" }',
    'namespace: a\nb: { defines: fake/sever, host: h }',
    'namespace: a\nb: { host: h }',
    'namespace: a\nb: { defines: fake/server, host: h, password: literal }',
    'namespace: A',
    'guard: { readonly: true }',
    'guard: { rules: [{ decision: maybe }] }',
    'server: { tokens: [{ name: a, token: x, roles: [viewer] }] }',
    'storage: { main: { type: s3, bucket: b, secret_access_key: literal } }',
    'alerts: { webhooks: [{ name: a, kind: slack, url: https://hooks.example }] }',
  ])('refuses what the reader refuses: %s', (text) => {
    expect(fits(text)).toBe(false);
    expect(loadConfig({ text, entityTypes: fakes, strict: false, baseDirectory: '/nowhere' }).faults).not.toEqual([]);
  });
});
