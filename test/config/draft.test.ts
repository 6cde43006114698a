import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import {
  type DraftOptions,
  type DraftSource,
  draftEntities,
  isSameDatabase,
  properName,
} from '../../src/config/draft.ts';
import type { EntityTypes } from '../../src/config/entities.ts';
import { loadConfig } from '../../src/config/load.ts';
import { SecretReference } from '../../src/core/schemas.ts';

const schema = z
  .object({
    region: z.string(),
    db_name: z.string(),
    password: SecretReference.optional(),
    retention_days: z.number().int().max(35).optional(),
    tags: z.record(z.string(), z.string()).optional(),
  })
  .strict();
const entityTypes: EntityTypes = {
  'test/sql': { provider: 'test-sql', type: { title: 'Test', schema, ignored: [], example: {} } },
};

const found = (parameters: object, more: Partial<DraftSource['found'][number]> = {}): DraftSource['found'][number] => ({
  defines: 'test/sql',
  name: 'orders',
  parameters: { region: 'r1', db_name: 'orders', ...parameters },
  notes: [],
  ...more,
});
const draft = (databases: DraftSource['found'], more: Partial<DraftOptions> = {}) =>
  draftEntities({
    entityTypes,
    sources: [{ title: 'Test SQL', looked: 'account acme', problems: ['region r2 refused'], found: databases }],
    namespace: 'shop',
    date: '2026-11-21',
    ...more,
  });
const load = (text: string) => loadConfig({ text, entityTypes });

describe('a draft of an entities file', () => {
  it('says where it looked, what it refers to and what is badly protected, and loads as it is', () => {
    const made = draft([
      found({ password: '${env:SQL_PASSWORD}', retention_days: 7 }, { notes: ['Point-in-time recovery is off.'] }),
    ]);
    expect(
      made.text,
    ).toBe(`# Written by holdfast init on 2026-11-21 from what the credentials show. Read it, keep what you want, then: holdfast check
# Secrets never stand in this file.
# It refers to these environment variables: SQL_PASSWORD
#
# Looked at:
#   Test SQL: account acme: 1 found
#     region r2 refused

namespace: shop

# Test SQL: account acme

# Point-in-time recovery is off.
orders:
  defines: test/sql
  region: r1
  db_name: orders
  password: \${env:SQL_PASSWORD}
  retention_days: 7
`);
    expect(made).toMatchObject({
      entities: [{ key: 'shop/orders', defines: 'test/sql', notes: ['Point-in-time recovery is off.'] }],
      left_out: [],
      variables: ['SQL_PASSWORD'],
    });
    expect(load(made.text).entities[0]?.base.key).toBe('shop/orders');
  });

  it('gives every database a name of its own, also beside those of the file', () => {
    const made = draft([found({}), found({}, { name: 'Orders!' }), found({}, { name: 'guard' })], {
      taken: ['shop/orders', 'other/orders-2'],
    });
    expect(made.entities.map(({ key }) => key)).toEqual(['shop/orders-2', 'shop/orders-3', 'shop/guard-2']);
    expect(load(made.text).entities).toHaveLength(3);
  });

  it.each([
    ['a reference', '${env:AWS_SECRET_ACCESS_KEY}'],
    ['a file', 'x${file:/etc/passwd}'],
    ['a dollar', '$$ 5'],
    ['lines', 'a\nguard:\n  read_only: false'],
    ['YAML', '*alias &anchor !!js/function "x'],
    ['another document', '---\nnamespace: evil'],
  ])('writes what a provider calls a database as it is, %s among it', (_, name) => {
    const made = draft([found({ db_name: name, tags: { [name]: name } })]);
    const { entities, namespaces } = load(made.text);
    expect(entities[0]?.references).toEqual([]);
    expect(entities[0]?.base.parameters).toMatchObject({ db_name: name, tags: { [name]: name } });
    expect(namespaces).toEqual(['shop']);
  });

  it('lets nothing that a provider said out of a comment', () => {
    const hostile = 'fine\nguard: { confirm: token }\u2028evil:\u0085x: 1';
    const made = draft([found({}, { notes: [hostile] })], {
      sources: [{ title: 'Test', looked: hostile, problems: [hostile], found: [found({}, { notes: [hostile] })] }],
    });
    const { guard, entities } = load(made.text);
    expect(guard.confirm).toBe('human');
    expect(entities).toHaveLength(1);
  });

  it('leaves out a parameter that the file would not take, and says so', () => {
    const made = draft([found({ retention_days: 99, unheard_of: true, password: 'hunter22' })]);
    const [entity] = load(made.text).entities;
    expect(entity?.base.parameters).toEqual({ region: 'r1', db_name: 'orders' });
    expect(made.entities[0]?.notes).toHaveLength(3);
    expect(made.text).toContain('# retention_days is left out: ');
    expect(made.text).not.toContain('hunter22');
  });

  it('writes nothing out of which a secret was taken', () => {
    const made = draft([found({ tags: { path: 'ftp://user:***@host' } }), found({ db_name: '***' })]);
    expect(made.text).not.toContain('***');
    expect(made.entities).toMatchObject([{ key: 'shop/orders', notes: ['tags is left out: it holds a secret.'] }]);
    expect(made.left_out).toMatchObject([{ why: "'db_name' is missing" }]);
  });

  it('leaves out a database that cannot be declared, and says why', () => {
    const made = draft([found({ db_name: 5 }), found({}, { defines: 'test/other', name: 'else' })]);
    expect(made.entities).toEqual([]);
    expect(made.left_out).toEqual([
      { name: 'orders', defines: 'test/sql', why: "'db_name' is missing" },
      { name: 'else', defines: 'test/other', why: 'test/other is no entity type' },
    ]);
    expect(made.text).toContain('# Found and left out: else, test/other: test/other is no entity type');
  });

  it('writes an endpoint at every entity where there is one', () => {
    const made = draft([found({})], { endpoint: 'http://127.0.0.1:9400', remarks: ['These are simulated.'] });
    expect(load(made.text).entities[0]?.base.endpoint).toBe('http://127.0.0.1:9400');
    expect(made.text).toContain('\n# These are simulated.\n');
  });
});

it('makes a proper name of anything', () => {
  expect(['Prod DB (1)', '__', 'été-9'].map((text) => properName(text))).toEqual(['prod-db-1', 'database', 't-9']);
});

describe('a database of the file and one that was found', () => {
  const same = (declared: object, shown: object): boolean =>
    isSameDatabase(
      { defines: 'test/sql', parameters: { ...declared } },
      { defines: 'test/sql', parameters: { ...shown } },
    );

  it.each<[boolean, object, object]>([
    [true, { region: 'r1', db_name: 'a', retention_days: 7 }, { region: 'r1', db_name: 'a', retention_days: 1 }],
    [true, { project_id: '1', subscription_id: 5 }, { project_id: '1', subscription_id: '5', name: 'x' }],
    [false, { region: 'r1', db_name: 'a' }, { region: 'r2', db_name: 'a' }],
    [false, { region: 'r1' }, { region: 'r1', db_name: 'a' }],
    [false, { client_id: 'c', tenant_id: 't' }, { client_id: 'c', tenant_id: 't' }],
    [false, { database: 'a', host: 'h' }, { database: 'a', connection_url: '${env:URL}' }],
    [true, { database: 'a', connection_url: '${env:URL}' }, { database: 'a', connection_url: '${env:URL}' }],
  ])('%s: %j and %j', (expected, declared, shown) => {
    expect(same(declared, shown)).toBe(expected);
  });

  it('are never the same when they are of two kinds', () => {
    const parameters = { db_name: 'a' };
    expect(isSameDatabase({ defines: 'test/sql', parameters }, { defines: 'test/cache', parameters })).toBe(false);
  });
});
