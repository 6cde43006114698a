import { chmodSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { resolveEntity } from '../../src/config/entities.ts';
import { faultText, loadConfig, resolveStorage } from '../../src/config/load.ts';
import { DEFAULT_POLICY } from '../../src/core/policy.ts';
import { entityTypes, faults, folder, load, refusal, report } from './support.ts';

const entity = (parameters: string): string =>
  `namespace: my-app\ndb:\n  defines: fake/server\n  host: db.internal\n${parameters.replace(/^/gm, '  ')}\n`;

describe('a sound file', () => {
  it('gives every entity of every document, with base fields and parsed parameters', () => {
    const config = load(`
namespace: my-app
db:
  defines: fake/server
  host: db.internal
  port: 5432
  labels: { env: production, tier: 1, pci: true }
  objectives: { rpo: 15m, rto: 1h, min_retention: 14d, drill_every: P90D }
  endpoint: https://10.0.0.5:8443/
---
namespace: shop
orders:
  defines: fake/table
  table_name: orders
`);
    expect(config.namespaces).toEqual(['my-app', 'shop']);
    expect(config.entities.map(({ base }) => base)).toEqual([
      {
        key: 'my-app/db',
        namespace: 'my-app',
        name: 'db',
        defines: 'fake/server',
        provider: 'fake',
        labels: { env: 'production', tier: '1', pci: 'true' },
        objectives: { rpo: 900, rto: 3600, min_retention: 1_209_600, drill_every: 7_776_000 },
        endpoint: 'https://10.0.0.5:8443',
        parameters: { host: 'db.internal', port: 5432 },
      },
      {
        key: 'shop/orders',
        namespace: 'shop',
        name: 'orders',
        defines: 'fake/table',
        provider: 'fake',
        labels: {},
        objectives: {},
        parameters: { table_name: 'orders' },
      },
    ]);
    expect(config.guard).toEqual(DEFAULT_POLICY);
    expect(config.server).toMatchObject({ host: '127.0.0.1', tokens: [] });
    expect(config.alerts.rules.no_restorable_point).toBe(172_800);
  });

  it('keeps a parameter apart from the field of the same name', () => {
    const config = load(entity('name: production-cluster\nprovider: AWS'));
    const resolved = resolveEntity(config.entities[0]!, {});
    expect(resolved).toMatchObject({ key: 'my-app/db', name: 'db', provider: 'fake' });
    expect(resolved.parameters).toMatchObject({ name: 'production-cluster', provider: 'AWS' });
  });

  it('names the parameters that it ignores, and the blocks of the guide', () => {
    const config = load(
      entity('instance_class: big\ntags: { a: b }\npassword_secret: main-db\nconnections: { x: <- y }'),
    );
    expect(config.entities[0]!.ignored).toEqual(['instance_class', 'tags', 'password_secret', 'connections']);
  });

  it('starts with variables missing, and tells which', () => {
    const config = load(entity('password: ${env:PGPASSWORD}\nmode: ${env:MODE}\nname: ${env:NAME:-x}'), {
      MODE: 'logical',
    });
    expect(config.unset.map(({ what, reference }) => [what, reference.name])).toEqual([
      ["entity 'my-app/db'", 'PGPASSWORD'],
    ]);
  });

  it('warns where nothing is declared, and of a rule that matches nothing', () => {
    expect(load('').warnings.map(({ message }) => message)).toEqual(['no database is declared']);
    expect(load(`${entity('')}---\nalerts: {}\n`).warnings).toMatchObject([{ path: 'alerts', line: 7 }]);
    const config = load(`guard: { rules: [{ entity: [my-app/*, my-ap/db], decision: deny }] }\n---\n${entity('')}`);
    expect(config.warnings.map(faultText)).toEqual([
      "holdfast.yaml:1:18: guard.rules.0.entity: the glob 'my-ap/db' matches no entity",
    ]);
  });

  it('merges and repeats by anchors', () => {
    const config = load(
      'namespace: a\nx: &x { defines: fake/server, host: h, port: 1 }\ny:\n  <<: *x\n  port: 2\nz: *x\n',
    );
    expect(config.entities.map(({ base }) => [base.key, base.parameters?.['port']])).toEqual([
      ['a/x', 1],
      ['a/y', 2],
      ['a/z', 1],
    ]);
  });
});

describe('faults', () => {
  it('names a misspelt parameter with its place and what was meant', () => {
    const [fault] = report(entity('backup_retention_peroid: 7')).faults;
    expect(fault).toEqual({
      file: 'holdfast.yaml',
      line: 5,
      column: 3,
      path: 'my-app/db.backup_retention_peroid',
      message: "unknown parameter 'backup_retention_peroid'",
      suggestion: 'Did you mean backup_retention_period?',
    });
  });

  it('names a misspelt parameter inside a parameter, in a schema that would drop it silently', () => {
    const [fault, ...more] = report(entity('remote_backup:\n  active: true\n  intervall: x')).faults;
    expect(fault).toMatchObject({ line: 7, column: 5, suggestion: 'Did you mean interval?' });
    expect(more).toEqual([]);
  });

  it('takes no parameter that it does not know, however far from what it knows', () => {
    expect(faults(entity('zzzzzzzz: 1'))).toEqual([
      "holdfast.yaml:5:3: my-app/db.zzzzzzzz: unknown parameter 'zzzzzzzz'",
    ]);
  });

  it('names a misspelt type', () => {
    const [fault] = report('namespace: a\nb:\n  defines: fake/sever\n').faults;
    expect(fault).toMatchObject({
      line: 3,
      column: 12,
      message: "unknown entity type 'fake/sever'",
      suggestion: 'Did you mean fake/server?',
    });
    expect(faults('namespace: a\nb:\n  defines: constructor\n')).toHaveLength(1);
  });

  it('reports every fault, in the order of the file', () => {
    expect(
      faults(`
namespace: my-app
one:
  defines: fake/server
  port: "5432"
  deletion_protection: yes
  password: hunter2-literal
guard:
  confirm: nobody
Two:
  defines: fake/server
three:
  defines: fake/table
  table_name: ORDERS
`),
    ).toEqual([
      "holdfast.yaml:3:1: my-app/one.host: 'host' is missing",
      "holdfast.yaml:5:9: my-app/one.port: 'port' must be a number, not text",
      "holdfast.yaml:6:24: my-app/one.deletion_protection: 'deletion_protection' must be true or false, not text",
      "holdfast.yaml:7:13: my-app/one.password: 'password' must name a secret, not hold it",
      "holdfast.yaml:9:12: guard.confirm: 'confirm' must be one of human, token, two-people",
      "holdfast.yaml:10:1: 'Two' is no proper name for an entity",
      "holdfast.yaml:14:15: my-app/three.table_name: 'table_name' does not fit: lower-case letters",
    ]);
  });

  it('keeps the sound entities beside the faults when it is not strict', () => {
    const { entities } = report(`${entity('')}bad:\n  defines: fake/server\n`);
    expect(entities.map(({ base }) => base.key)).toEqual(['my-app/db']);
  });

  it('throws the first fault with all of them in its details when it is strict', () => {
    const error = refusal(() => load(entity('prot: 1\nmode: logicel')));
    expect(error.code).toBe('CONFIG_INVALID');
    expect(error.message).toBe("holdfast.yaml:5:3: my-app/db.prot: unknown parameter 'prot' (and 1 more fault)");
    expect(error.hint).toBe('Did you mean port?');
    expect(error.details?.['faults']).toHaveLength(2);
    expect(report(entity('mode: logicel')).faults[0]?.suggestion).toBe('Did you mean logical?');
  });

  it.each([
    ['password: hunter2-literal', 5],
    ['password: "prefix ${env:PW} hunter2-literal"', 5],
    ['password: ${env:PW:-hunter2-literal}', 5],
    ['password: [hunter2-literal]', 5],
    ['password: { value: hunter2-literal }', 5],
    ['remote_backup: { active: true, key: hunter2-literal }', 5],
    ['master_password: hunter2-literal', 5],
    ['tags: { deep: { api_key: hunter2-literal } }', 5],
    ['labels: { x: { hunter2-literal: 1 } }\nport: hunter2-literal', 5],
    ['mode: hunter2-literal', 5],
    ['port: hunter2-literal', 5],
    ['endpoint: https://user:hunter2-literal@host', 5],
    ['objectives: { rpo: hunter2-literal }', 5],
    ['password: !secret hunter2-literal', 5],
    ['password: "hunter2-literal', 6],
    ['password: @hunter2-literal', 5],
    ['password: ${hunter2-literal}', 5],
    ['host2: ${env:hunter2-literal}', 5],
    ['name: ${env:hunter2-literal}', 5],
    ['password: <- secret("hunter2-literal")', 5],
    ['password: *hunter2-literal', 5],
  ])('refuses %j and prints no value', (text, line) => {
    const { faults: found } = report(entity(text));
    expect(found.length).toBeGreaterThan(0);
    expect(found[0]?.line).toBe(line);
    expect(JSON.stringify(found)).not.toContain('hunter2');
    expect(JSON.stringify(refusal(() => load(entity(text))).toJson())).not.toContain('hunter2');
  });

  it('says what to write instead of an expression of the guide', () => {
    const found = report(
      entity(
        'name: <- connection-target("project") entity-state get-member("id")\nport: "<- x"\npassword: <- secret("pw")',
      ),
    );
    expect(found.faults.map(({ message, suggestion }) => [message, suggestion])).toEqual([
      [
        "'name' holds an expression that Holdfast cannot resolve: <- connection-target…",
        'Write the value itself or ${env:NAME}.',
      ],
      ["'port' holds an expression that Holdfast cannot resolve: <- x…", 'Write the value itself or ${env:PORT}.'],
      [
        "'password' holds an expression that Holdfast cannot resolve: <- secret…",
        'Write ${env:PASSWORD} or ${file:/path}.',
      ],
    ]);
  });

  it.each([
    [
      'a duplicate key',
      'namespace: a\nb: { defines: fake/server, host: x }\nb: { defines: fake/server, host: y }',
      3,
      'a key that stands twice',
    ],
    ['a tab', 'namespace: a\nb:\n\tdefines: fake/server', 3, 'a tab'],
    ['a broken bracket', 'namespace: [a', 1, 'bracket'],
    ['an unknown alias', 'namespace: a\nb: *nothing', 2, 'an alias without its anchor'],
    [
      'an alias of itself',
      'namespace: a\nb: &b { defines: fake/server, host: x, tags: *b }',
      2,
      'an alias that holds itself',
    ],
    ['a key that is a mapping', '{ a: 1 }: 2', 1, 'a key that is no plain word'],
    ['a control character', 'namespace: "a\u0007"', 1, 'a control character'],
    ['a list', '- a\n- b', 1, 'must be a mapping'],
    ['a plain word', 'hello', 1, 'must be a mapping'],
    ['an unknown directive', '%FOO bar\n---\nnamespace: a', 1, 'directive'],
  ])('reports %s', (_what, text, line, message) => {
    const found = report(text).faults;
    expect(found.map((fault) => fault.message).join('; ')).toContain(message);
    expect(found.find((fault) => fault.message.includes(message))?.line).toBe(line);
  });

  it('refuses an alias bomb quickly', () => {
    const names = [...'abcdefghij'];
    const bomb = names.map(
      (name, index) =>
        `${name}: &${name} [${
          index === 0
            ? '1'
            : Array(10)
                .fill(`*${names[index - 1]}`)
                .join(', ')
        }]`,
    );
    const began = performance.now();
    expect(faults(bomb.join('\n')).join()).toContain('aliases that expand too far');
    expect(performance.now() - began).toBeLessThan(1000);
  });

  it('refuses nesting without end', () => {
    expect(faults(`a: ${'['.repeat(100_000)}`).length).toBeGreaterThan(0);
  });

  it('does not let a fault in one document hide those of the next', () => {
    expect(faults(`a: [1\n---\n${entity('prot: 1')}`)).toEqual([
      expect.stringContaining('holdfast.yaml:'),
      "holdfast.yaml:7:3: my-app/db.prot: unknown parameter 'prot'",
    ]);
  });

  it.each([
    ['My-App', 'b'],
    ['a/b', 'b'],
    ['-a', 'b'],
    ['a', 'B'],
    ['a', '_b'],
    ['a', 'b c'],
    ['a', 'b/c'],
    ['a', 'x'.repeat(101)],
  ])('refuses the names %s and %s', (namespace, name) => {
    expect(faults(`namespace: ${namespace}\n"${name}":\n  defines: fake/server\n  host: x\n`)).toHaveLength(1);
  });

  it('refuses an entity without a namespace, one without a type, and what is neither', () => {
    expect(faults('b: { defines: fake/server, host: x }')).toEqual([
      "holdfast.yaml:1:1: 'b' stands in a document without a namespace",
    ]);
    expect(faults('namespace: a\nb: { host: x }')).toEqual(["holdfast.yaml:2:1: 'b' has no 'defines'"]);
    expect(faults('namespace: a\nserver: { defines: fake/server, host: x }')).toEqual([
      "holdfast.yaml:2:1: 'server' is the name of a section",
    ]);
    expect(faults('namespace: a\nwhatever: 3')).toEqual([
      "holdfast.yaml:2:1: 'whatever' is neither a section nor an entity",
    ]);
  });

  it('refuses one entity twice, across documents', () => {
    const [fault] = report(`${entity('')}---\n${entity('')}`).faults;
    expect(fault).toMatchObject({
      line: 8,
      message: "the entity 'my-app/db' stands twice",
      suggestion: 'The first is at holdfast.yaml:2; rename one.',
    });
  });

  it('wants labels and objectives written out, for rules rest on them before anything is resolved', () => {
    expect(faults(entity('labels: { env: "${env:STAGE}" }'))).toEqual([
      "holdfast.yaml:5:18: my-app/db.labels.env: 'labels.env' must be written out",
    ]);
  });

  it.each([
    ['http://db.internal:8443', 'must be https'],
    ['https://db.internal/path', 'must be an origin without a path'],
    ['nonsense', 'is no URL'],
    ['file:///etc', 'must be https'],
  ])('refuses the endpoint %s', (endpoint, message) => {
    expect(faults(entity(`endpoint: ${endpoint}`))).toEqual([expect.stringContaining(message)]);
  });

  it.each(['http://127.0.0.1:9000', 'http://localhost:9000', 'http://[::1]:9000', 'https://db.internal'])(
    'takes the endpoint %s',
    (endpoint) => {
      expect(load(entity(`endpoint: ${endpoint}`)).entities[0]!.base.endpoint).toBe(endpoint);
    },
  );
});

describe('the policy fails closed', () => {
  it.each([
    ['an unreadable document', 'a: [1\n---\nnamespace: a'],
    ['a misspelt section', 'gaurd: { read_only: true }'],
    ['a section that stands twice', 'guard: { read_only: true }\n---\nguard: { read_only: false }'],
    ['an unknown key', 'guard: { readonly_: true }'],
    ['a rule that cannot be read', 'guard: { rules: [{ decision: maybe }] }'],
    ['rules that are no list', 'guard: { rules: { decision: deny } }'],
    ['a file that is not there', 'include: missing.yaml'],
    ['a section that is text', 'guard: read-only'],
  ])('gives none after %s', (_what, text) => {
    expect(report(text).guard).toBeUndefined();
    expect(refusal(() => load(text)).code).toBe('CONFIG_INVALID');
  });

  it('gives the policy when only an entity is wrong, for the one who asks what is wrong', () => {
    expect(report(`guard: { read_only: true }\n---\n${entity('prot: 1')}`).guard?.read_only).toBe(true);
  });
});

describe('values from outside', () => {
  const resolve = (parameters: string, env: Record<string, string> = {}) =>
    resolveEntity(load(entity(parameters)).entities[0]!, env);

  it('reads variables, defaults and escapes at first use', () => {
    const config = load(
      entity(
        'name: a-${env:ONE}-$$-${env:TWO:-two}\nmode: ${env:MODE}\nport: ${env:PORT}\ndeletion_protection: ${env:DP}\ndatabases: ["${env:DB}", plain$$]',
      ),
    );
    expect(config.entities[0]!.deferred).toBe(true);
    expect(config.entities[0]!.base.parameters).toBeUndefined();
    const resolved = resolveEntity(config.entities[0]!, {
      ONE: '1',
      MODE: 'logical',
      PORT: '5432',
      DP: 'true',
      DB: 'x',
    });
    expect(resolved.parameters).toEqual({
      host: 'db.internal',
      name: 'a-1-$-two',
      mode: 'logical',
      port: 5432,
      deletion_protection: true,
      databases: ['x', 'plain$'],
    });
    expect(resolved['port']).toBe(5432);
  });

  it('does not read a value twice: what a variable holds is taken as it is', () => {
    expect(resolve('name: ${env:A}', { A: '${env:B} $$ <- x' }).parameters?.['name']).toBe('${env:B} $$ <- x');
  });

  it('leaves secrets unread', () => {
    const config = load(entity('password: ${env:PW}\nuser: ${file:/run/user}'));
    expect(config.entities[0]!.deferred).toBe(false);
    expect(resolveEntity(config.entities[0]!, { PW: 'x' }).parameters).toMatchObject({
      password: { secret: 'env', name: 'PW' },
      user: { secret: 'file', name: '/run/user' },
    });
  });

  it('takes plain text where a secret may stand but need not', () => {
    expect(resolve('user: postgres').parameters?.['user']).toBe('postgres');
    expect(resolve('user: app-${env:STAGE}', { STAGE: 'dev' }).parameters?.['user']).toBe('app-dev');
  });

  it('names the variable, the entity and how variables arrive when one is missing', () => {
    const error = refusal(() => resolve('port: ${env:DB_PORT}'));
    expect(error.code).toBe('CONFIG_INVALID');
    expect(error.message).toBe("the variable 'DB_PORT' is not set, and entity 'my-app/db' ('port') needs it");
    expect(error.hint).toContain('MCP clients');
    expect(error.hint).toContain('"env"');
  });

  it('names the variable, not its value, when it does not fit', () => {
    const error = refusal(() => resolve('port: ${env:DB_PORT}', { DB_PORT: 'hunter2' }));
    expect(error.message).toBe("entity 'my-app/db': 'port' must be a number, not text (from the variable 'DB_PORT')");
    expect(JSON.stringify(error.toJson())).not.toContain('hunter2');
  });

  it('leaves out a parameter whose default is empty', () => {
    expect(resolve('name: ${env:NAME:-}\nendpoint: ${env:ENDPOINT:-}').parameters).toEqual({ host: 'db.internal' });
    expect(resolve('endpoint: ${env:ENDPOINT:-}', { ENDPOINT: 'http://127.0.0.1:1' }).endpoint).toBe(
      'http://127.0.0.1:1',
    );
  });

  it('holds an endpoint from a variable to the same rules', () => {
    expect(refusal(() => resolve('endpoint: ${env:E}', { E: 'http://evil.example' })).message).toContain(
      'must be https',
    );
  });

  it('judges a rule over several parameters once all are known', () => {
    const text = 'namespace: a\nt: { defines: fake/table, table_name: x, low: "${env:LOW}", high: 3 }';
    const declaration = load(text).entities[0]!;
    expect(resolveEntity(declaration, { LOW: '2' })['low']).toBe(2);
    expect(refusal(() => resolveEntity(declaration, { LOW: '9' })).message).toContain('low must not be above high');
  });

  it('does not excuse a fault elsewhere because something waits', () => {
    expect(faults(entity('port: ${env:PORT}\nmode: nonsense\nzzzz: 1'))).toHaveLength(2);
    expect(faults('namespace: a\nb: { defines: fake/server, port: "${env:PORT}" }')).toEqual([
      "holdfast.yaml:2:1: my-app/b.host: 'host' is missing".replace('my-app', 'a'),
    ]);
  });

  it('reads values from files, relative to the entities file', () => {
    const root = folder({
      'holdfast.yaml': entity('name: ${file:values/name}\nmode: ${file:gone}'),
      'values/name': 'from-file\n',
      big: 'x'.repeat(70_000),
    });
    const declaration = loadConfig({ path: join(root, 'holdfast.yaml'), entityTypes }).entities[0]!;
    expect(refusal(() => resolveEntity(declaration, {})).message).toBe(
      "the file 'gone' is not there, and entity 'my-app/db' ('mode') needs it",
    );
    const named = (name: string) =>
      loadConfig({ text: entity(`name: ${name}`), entityTypes, baseDirectory: root }).entities[0]!;
    expect(resolveEntity(named('${file:values/name}'), {}).parameters?.['name']).toBe('from-file');
    expect(refusal(() => resolveEntity(named('${file:big}'), {})).message).toContain('larger than 64 KiB');
    expect(refusal(() => resolveEntity(named('${file:values}'), {})).message).toContain('no regular file');
  });
});

describe('storage', () => {
  it('takes named stores and a single one, with references', () => {
    const config = load(
      'storage:\n  main: { type: s3, bucket: "${env:BUCKET}", secret_access_key: "${env:S3_SECRET}" }\n  near: { type: local, path: /backups }',
    );
    expect(config.storage.map(({ name }) => name)).toEqual(['main', 'near']);
    expect(resolveStorage(config.storage[0]!, { BUCKET: 'b' })).toEqual({
      type: 's3',
      bucket: 'b',
      secret_access_key: { secret: 'env', name: 'S3_SECRET' },
    });
    expect(load('storage: { type: local, path: /b }').storage[0]?.name).toBe('default');
    expect(config.unset.map(({ reference }) => reference.name)).toEqual(['BUCKET', 'S3_SECRET']);
  });

  it('gives an entity the store that it names, or the one called default, wherever the section stands', () => {
    const stores = 'storage: { main: { type: local, path: "${env:ROOT}" }, default: { type: local, path: /d } }';
    const text = `${entity('storage: main')}other: { defines: fake/server, host: x }\nown: { defines: fake/server, host: x, storage: { type: local, path: /own } }\n---\n${stores}`;
    const paths = load(text).entities.map((one) => resolveEntity(one, { ROOT: '/r' }).parameters?.['storage']);
    expect(paths).toEqual(['/r', '/d', '/own'].map((path) => ({ type: 'local', path })));
    const [fault, ...more] = report(`${entity('storage: mian')}storage: { main: { type: local, path: /d } }`).faults;
    expect(fault).toMatchObject({ line: 5, column: 12, suggestion: 'Did you mean main?' });
    expect(more).toEqual([]);
    expect(faults(`${entity('storage: main')}storage: { main: { type: s3, bucket: b } }`).join()).toContain(
      'my-app/db.storage.type',
    );
  });

  it('refuses what is misspelt, a literal secret and a path that leaves the store', () => {
    expect(faults('storage: { main: { type: s3, bucket: b, secret_access_key: literal-key } }')).toEqual([
      expect.stringContaining('must name a secret'),
    ]);
    expect(
      report('storage: { main: { type: azure-blob, account: a, container: c, acount_key: x } }').faults[0]?.suggestion,
    ).toBe('Did you mean account_key?');
    expect(faults('storage: { main: { type: s4, bucket: b } }')).toHaveLength(1);
    expect(faults('storage: { main: { type: local, path: /b, buckett: x } }')).toEqual([
      expect.stringContaining("unknown parameter 'buckett'"),
    ]);
    expect(faults('storage: { main: { type: gcs, bucket: b, prefix: a/../b } }')).toHaveLength(1);
    expect(faults('storage: here')).toHaveLength(1);
  });
});

describe('included files', () => {
  const loadFrom = (root: string) => loadConfig({ path: join(root, 'holdfast.yaml'), entityTypes, strict: false });
  const one = (name: string) => `namespace: a\n${name}: { defines: fake/server, host: x }\n`;

  it('reads globs and paths relative to the file that names them', () => {
    const root = folder({
      'holdfast.yaml': 'include: [databases/*.yaml, extra.yml]\n',
      'databases/b.yaml': one('b'),
      'databases/a.yaml': `${one('a')}include: deep/**/*.yaml\n`,
      'databases/deep/x/y.yaml': one('y'),
      'databases/deep/z.yaml': one('z'),
      'databases/.hidden.yaml': one('hidden'),
      'databases/note.txt': 'no',
      'extra.yml': `guard: { read_only: true }\n---\n${one('extra')}`,
    });
    const config = loadFrom(root);
    expect(config.faults).toEqual([]);
    expect(config.entities.map(({ base }) => base.name).sort()).toEqual(['a', 'b', 'extra', 'y', 'z']);
    expect(config.guard?.read_only).toBe(true);
    expect(config.files).toHaveLength(6);
  });

  it('reads a file once however many include it', () => {
    const root = folder({
      'holdfast.yaml': 'include: [l.yaml, r.yaml]',
      'l.yaml': 'include: both.yaml',
      'r.yaml': 'include: both.yaml',
      'both.yaml': one('b'),
    });
    expect(loadFrom(root).faults).toEqual([]);
    expect(loadFrom(root).entities).toHaveLength(1);
  });

  it('refuses a circle, naming where it closes', () => {
    const root = folder({ 'holdfast.yaml': 'include: a.yaml', 'a.yaml': 'include:\n  - holdfast.yaml' });
    expect(loadFrom(root).faults.map(faultText)).toEqual(['a.yaml:2:5: the included file includes this one']);
    expect(loadFrom(root).guard).toBeUndefined();
  });

  it('does not take a glob over its own folder for a circle', () => {
    const root = folder({ 'holdfast.yaml': 'include: "*.yaml"', 'a.yaml': one('a') });
    expect(loadFrom(root).faults).toEqual([]);
  });

  it('names the file of each fault, in the order in which files are read', () => {
    const root = folder({
      'holdfast.yaml': `include: [sub/a.yaml]\nnamespace: x\nb: { defines: fake/server }`,
      'sub/a.yaml': one('a').replace('host', 'hots'),
    });
    expect(loadFrom(root).faults.map(faultText)).toEqual([
      "holdfast.yaml:3:1: x/b.host: 'host' is missing",
      "sub/a.yaml:2:1: a/a.host: 'host' is missing",
      "sub/a.yaml:2:28: a/a.hots: unknown parameter 'hots'",
    ]);
  });

  it('refuses the same section in two files, and one entity in two', () => {
    const root = folder({
      'holdfast.yaml': `guard: {}\ninclude: a.yaml\n---\n${one('b')}`,
      'a.yaml': `guard: {}\n---\n${one('b')}`,
    });
    expect(
      loadFrom(root)
        .faults.map(({ message }) => message)
        .sort(),
    ).toEqual(["the entity 'a/b' stands twice", "the section 'guard' stands twice"]);
  });

  it.each([
    ['a missing file', 'include: nothing.yaml'],
    ['a number', 'include: 3'],
    ['a mapping', 'include: { a: b }'],
    ['an empty path', 'include: [""]'],
  ])('refuses %s', (_what, text) => {
    expect(loadFrom(folder({ 'holdfast.yaml': text })).faults).toHaveLength(1);
  });
});

describe('the file itself', () => {
  const faultsOf = (content: Uint8Array | string) =>
    loadConfig({
      path: join(folder({ 'holdfast.yaml': content }), 'holdfast.yaml'),
      entityTypes,
      strict: false,
    }).faults.map(faultText);

  it('must be UTF-8; a byte order mark is no fault', () => {
    expect(faultsOf(Buffer.from('namespace: caf\xe9', 'latin1'))).toEqual([
      'holdfast.yaml:1:1: the entities file is not UTF-8',
    ]);
    expect(faultsOf(Buffer.from('namespace: a\n', 'utf16le'))).not.toEqual([]);
    expect(faultsOf(Buffer.from('\ufeffnamespace: a\n', 'utf8'))).toEqual([]);
  });

  it('must not be larger than 1 MiB, nor a folder, nor absent', () => {
    expect(faultsOf(`# ${'x'.repeat(1024 * 1024)}`)).toEqual([
      'holdfast.yaml:1:1: the entities file is larger than 1 MiB',
    ]);
    expect(faults(`# ${'x'.repeat(1024 * 1024)}`)).toHaveLength(1);
    const root = folder({});
    mkdirSync(join(root, 'dir.yaml'));
    symlinkSync(join(root, 'gone'), join(root, 'link.yaml'));
    expect(refusal(() => loadConfig({ path: join(root, 'dir.yaml'), entityTypes })).message).toContain(
      'is no regular file',
    );
    expect(refusal(() => loadConfig({ path: join(root, 'link.yaml'), entityTypes })).message).toContain('is not there');
    expect(refusal(() => loadConfig({ entityTypes })).code).toBe('INTERNAL');
  });

  it('is warned of when everybody can write it', () => {
    const path = join(folder({ 'holdfast.yaml': entity('') }), 'holdfast.yaml');
    chmodSync(path, 0o666);
    expect(loadConfig({ path, entityTypes }).warnings.map(({ suggestion }) => suggestion)).toEqual([
      'Use mode 0644 or 0600.',
    ]);
    chmodSync(path, 0o644);
    expect(loadConfig({ path, entityTypes }).warnings).toEqual([]);
  });

  it('is read with the line ends of any system', () => {
    expect(faultsOf(entity('prot: 1').replaceAll('\n', '\r\n'))).toEqual([
      "holdfast.yaml:5:3: my-app/db.prot: unknown parameter 'prot'",
    ]);
  });
});
