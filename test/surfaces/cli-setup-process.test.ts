import { mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { JsonObject } from '../../src/core/json.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import { registry } from '../../src/program/open.ts';
import { awsRdsSimulator, type RdsSimulator } from '../../src/simulators/aws-rds.ts';
import { simulators } from '../../src/simulators/index.ts';
import { type NeonSimulator, neonSimulator } from '../../src/simulators/neon.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import { SimulatorClock } from '../../src/simulators/simulator.ts';
import { describePostgres, sql, startTestServer } from '../support/postgres.ts';
import { type Finished, runProgram } from '../support/program.ts';

// `check` and `init` as processes of their own, against simulators and a real PostgreSQL.

let root: string;
let cwd: string;
let count = 0;

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'holdfast-setup-'));
});
afterAll(() => rm(root, { recursive: true, force: true }));
beforeEach(() => {
  count += 1;
  cwd = mkdtempSync(join(root, `shop-${count}-`));
});

function holdfast(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Finished> {
  return runProgram([...args, '--state-dir', join(root, 'state')], { env, cwd });
}

interface Checked {
  readonly ok: boolean;
  readonly entities: readonly { key: string; access: { state: string; actions: JsonObject[] } }[];
  readonly fixes: readonly JsonObject[];
}
const checked = ({ out }: Finished): Checked => JSON.parse(out) as Checked;

/** An address where nothing listens. */
async function deadOrigin(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${port}`;
}

describe('check against providers', () => {
  let server: SimulatorServer;
  let rds: RdsSimulator;
  let neon: NeonSimulator;

  beforeAll(async () => {
    server = await startSimulators({
      simulators: (clock) => {
        rds = awsRdsSimulator({ clock });
        neon = neonSimulator({ clock });
        return [rds, neon];
      },
    });
  });
  afterAll(() => server.close());
  beforeEach(() => {
    rds.state.denied.clear();
    neon.state.unauthenticated = false;
    server.clearJournal();
  });

  function configure(neonAt = server.origin): void {
    const text = `namespace: shop
orders:
  defines: aws-rds/rds-instance
  region: us-east-1
  db_instance_identifier: orders-postgres
  access_key_id: \${env:KEY}
  secret_access_key: \${env:KEY}
  endpoint: ${server.origin}
branches:
  defines: neon/project
  project_id: spring-example-302709
  branch: main
  api_key: \${env:NEON}
  endpoint: ${neonAt}
`;
    writeFileSync(join(cwd, 'holdfast.yaml'), text);
  }
  const env = { KEY: 'test-credential-1', NEON: 'test-credential-2' };

  it('finds them reached, having read alone, and left a line of every read', async () => {
    configure();
    const { status, out, err } = await holdfast(['check'], env);
    expect({ status, err }).toEqual({ status: 0, err: '' });
    expect(out).toContain(
      'shop/orders aws-rds/rds-instance\n  credential ${env:KEY}: found\n  reachable: get-backup-info',
    );
    expect(out).toMatch(/writes not known: .*create-snapshot.*restore/);
    expect(out).toContain('2 of 2 databases reached, nothing to fix');
    expect(server.journal.length).toBeGreaterThan(3);
    expect(server.writes()).toEqual([]);
    const trail = await holdfast(['audit', 'tail', '--json']);
    expect(trail.out).toContain('"action": "get-backup-info"');
  });

  it('asks nobody with --offline', async () => {
    configure();
    const { status, out } = await holdfast(['check', '--offline'], { KEY: env.KEY });
    expect(status).toBe(0);
    expect(out).toContain('credential ${env:NEON}: NOT FOUND');
    expect(server.journal).toEqual([]);
  });

  it('says which read is refused, and what to give to whom', async () => {
    configure();
    rds.state.denied.add('DescribeDBSnapshots');
    const answer = await holdfast(['check', 'shop/orders', '--json'], env);
    expect(answer.status).toBe(25);
    const { entities, fixes } = checked(answer);
    expect(entities).toHaveLength(1);
    expect(entities[0]?.access.actions).toContainEqual(
      expect.objectContaining({ action: 'list-snapshots', state: 'refused' }),
    );
    expect(fixes).toMatchObject([{ code: 'INSUFFICIENT_PERMISSIONS', entities: ['shop/orders'] }]);
    expect(JSON.stringify(fixes)).toContain('rds:DescribeDBSnapshots');
  });

  it('tells a wrong credential, one that is not there, a name that is none and a silent address apart', async () => {
    configure();
    neon.state.unauthenticated = true;
    const wrong = await holdfast(['check', '--json'], env);
    expect(wrong.status).toBe(26);
    expect(checked(wrong).fixes).toMatchObject([{ code: 'AUTHENTICATION_FAILED', entities: ['shop/branches'] }]);

    const absent = await holdfast(['check', '--json'], { NEON: env.NEON });
    expect(absent.status).toBe(26);
    expect(checked(absent).fixes[0]).toMatchObject({
      what: "the variable 'KEY' is not set",
      entities: ['shop/orders'],
    });

    neon.state.unauthenticated = false;
    const file = join(cwd, 'holdfast.yaml');
    writeFileSync(file, readFileSync(file, 'utf8').replace('orders-postgres', 'orders-postgers'));
    const misspelt = await holdfast(['check', '--json'], env);
    expect(misspelt.status).toBe(22);
    expect(checked(misspelt).entities.map(({ access }) => access.state)).toEqual(['not_found', 'reachable']);

    const dead = await deadOrigin();
    configure(dead);
    const silent = await holdfast(['check'], env);
    expect(silent.status).toBe(29);
    expect(silent.out).toContain('NOT REACHED');
    expect(silent.out).toContain(`Nothing answers properly at ${dead}`);
    expect(silent.out).toContain('1 of 2 databases reached, 1 thing to fix:');
    for (const { out, err } of [wrong, absent, misspelt, silent]) {
      for (const secret of Object.values(env)) expect(out + err).not.toContain(secret);
    }
  }, 60_000);

  it('looks through the whole sandbox', async () => {
    const answer = await holdfast(['check', '--sandbox', '--json']);
    expect(answer.status).toBe(0);
    const { entities } = checked(answer);
    expect(entities.length).toBeGreaterThan(10);
    expect(entities.filter(({ access }) => access.state !== 'reachable')).toEqual([]);
  }, 60_000);
});

describePostgres('check and init against PostgreSQL', () => {
  let server: PrivateServer;
  let env: Record<string, string>;

  beforeAll(async () => {
    server = await startTestServer();
    const { host, port, user, password } = server.connection;
    env = { PGHOST: host, PGPORT: String(port), PGUSER: user, PGPASSWORD: password };
    await sql(
      server.connection,
      'postgres',
      'CREATE DATABASE orders',
      'CREATE DATABASE "Carts ${env:PGPASSWORD}"',
      "CREATE ROLE reader LOGIN PASSWORD 'reader-password' IN ROLE pg_read_all_data",
      'CREATE DATABASE hidden',
      'REVOKE CONNECT ON DATABASE hidden FROM PUBLIC',
    );
  }, 60_000);
  afterAll(() => server.stop());

  const file = (): string => join(cwd, 'holdfast.yaml');
  const init = (args: readonly string[] = [], more: Record<string, string> = {}): Promise<Finished> =>
    holdfast(['init', '--provider', 'postgresql', '--namespace', 'shop', ...args], { ...env, ...more });

  it('writes what the server has, for its owner alone, without a secret, and what it wrote checks', async () => {
    const { status, out } = await init();
    expect(status).toBe(0);
    expect(out).toContain('shop/orders postgresql/server: new');
    const text = readFileSync(file(), 'utf8');
    expect(statSync(file()).mode & 0o777).toBe(0o600);
    expect(text + out).not.toContain(server.connection.password);
    expect(text).toContain('password: ${env:PGPASSWORD}');
    // What a database is called refers to nothing.
    expect(text).toContain('database: Carts $${env:PGPASSWORD}');
    const answer = await holdfast(['check', '--json'], env);
    expect(answer.status).toBe(0);
    expect(checked(answer).entities.map(({ key, access }) => [key, access.state])).toEqual([
      ['shop/carts-env-pgpassword', 'reachable'],
      ['shop/hidden', 'reachable'],
      ['shop/orders', 'reachable'],
    ]);
  });

  it('never writes over a file: prints what is new, adds it when told to, and replaces only by force', async () => {
    const before =
      '# mine\nnamespace: shop\norders:\n  defines: postgresql/server\n  database: orders\n  storage: { type: local, path: /b }\n  encryption: none\n';
    writeFileSync(file(), before, { mode: 0o640 });
    const shown = await init();
    expect(shown.status).toBe(0);
    expect(shown.out).toContain('shop/orders postgresql/server: in the file already');
    expect(shown.out).toContain('hidden:\n  defines: postgresql/server');
    expect(readFileSync(file(), 'utf8')).toBe(before);

    expect((await init(['--append'])).out).toContain('Added to: ');
    const after = readFileSync(file(), 'utf8');
    expect(after.startsWith(`${before}---\n# Written by holdfast init`)).toBe(true);
    expect(statSync(file()).mode & 0o777).toBe(0o640);
    const listed = await holdfast(['list', '--json']);
    expect(JSON.parse(listed.out).entities).toHaveLength(3);

    expect((await init(['--append'])).out).toContain('Nothing is new, and nothing was written.');
    expect(readFileSync(file(), 'utf8')).toBe(after);

    expect((await init(['--force'])).status).toBe(0);
    expect(readFileSync(file(), 'utf8')).not.toContain('# mine');
  });

  it('adds nothing to a file with faults, and replaces it by force', async () => {
    const broken = 'namespace: shop\nguard: { confrim: human }\n';
    writeFileSync(file(), broken);
    const { status, err } = await init(['--append']);
    expect(status).toBe(33);
    expect(err).toContain('confrim');
    expect(readFileSync(file(), 'utf8')).toBe(broken);
    expect((await init(['--force'])).status).toBe(0);
  });

  it('looks where it is told to, with a role of its own', async () => {
    const settings = ['--set', 'user=reader', '--set', 'postgresql.password=${env:READER}'];
    const { status, out } = await init([...settings, '--json'], { READER: 'reader-password' });
    expect(status).toBe(0);
    const report = JSON.parse(out) as { providers: JsonObject[]; entities: JsonObject[]; variables: string[] };
    expect(report.variables).toEqual(['READER']);
    expect(report.providers[0]).toMatchObject({ problems: ['the role may not connect to the database hidden'] });
    expect(report.entities.map(({ key }) => key)).toEqual(['shop/carts-env-pgpassword', 'shop/orders']);

    // The role reads and owns nothing: what it may not do is named, with the statements that allow it.
    const answer = await holdfast(['check', 'shop/orders'], { READER: 'reader-password' });
    expect(answer.status).toBe(25);
    expect(answer.out).toContain('restore: refused, lacks ');
    expect(answer.out).toContain('ALTER ROLE "reader" CREATEDB;');
  });

  it('finds a server by DATABASE_URL, whose password stays where it is', async () => {
    const { host, port, user, password } = server.connection;
    const DATABASE_URL = `postgresql://${user}:${password}@${host}:${port}/orders`;
    // What a URL says no variable changes.
    const variables = { DATABASE_URL, PGPASSWORD: 'of another server', PGPORT: '1' };
    const { status, out } = await holdfast(['init', '--provider', 'postgresql', '--json'], variables);
    expect(status).toBe(0);
    expect(out).toContain('connection_url: ${env:DATABASE_URL}');
    expect(out).not.toContain(password);
    const other = await holdfast(['init', '--provider', 'postgresql'], { DATABASE_URL: 'mysql://a:b@localhost/x' });
    expect(other.status).toBe(26);
  });

  it('says what is wrong with a credential, and writes nothing', async () => {
    const wrong = await init([], { PGPASSWORD: 'wrong-password' });
    expect(wrong.status).toBe(26);
    expect(wrong.out).toContain('PostgreSQL: could not be looked at\n  AUTHENTICATION_FAILED: ');
    const nobody = await holdfast(['init', '--provider', 'postgresql'], { PGHOST: server.connection.host });
    expect(nobody.status).toBe(33);
    expect(nobody.out).toContain('nothing names the user');
    expect(() => statSync(file())).toThrow();
  });
});

describe('init', () => {
  it('says for every provider where it looks for credentials when there are none', async () => {
    const { status, out } = await holdfast(['init', '--provider', 'postgresql']);
    expect(status).toBe(26);
    expect(out).toContain('PostgreSQL: no credentials were found\n  1. ');
    expect(out).toContain('Nothing was found, and nothing was written.');
    expect(() => statSync(join(cwd, 'holdfast.yaml'))).toThrow();
  });

  it.each<[string[], string]>([
    [['--provider', 'postgres'], 'Did you mean postgresql?'],
    [['--set', 'region'], 'For example: --set region=eu-west-1'],
    [['--set', 'hots=db.internal'], 'Did you mean host'],
    [['--set', 'password=hunter22'], "Write --set password='${env:NAME}'"],
    [['--set', 'postgresql.port=many'], 'has a value that postgresql does not take'],
    [['--namespace', 'My App'], 'Use lower-case letters'],
    [['--config', 'no/such/folder/holdfast.yaml'], 'Make the folder first'],
  ])('refuses %j and says what is meant', async (args, hint) => {
    const { status, out, err } = await holdfast(['init', '--provider', 'postgresql', ...args]);
    expect(out + err).toContain(hint);
    expect(status).not.toBe(0);
    expect(out + err).not.toContain('hunter22');
  });

  it('looks through the simulated accounts, and what it writes works with the same simulators', async () => {
    const simulated = registry.providers.filter(({ entityTypes }) =>
      Object.values(entityTypes).some(({ sandbox }) => sandbox !== undefined),
    );
    const clock = new SimulatorClock();
    const server = await startSimulators({ clock, simulators: () => simulators.map((create) => create({ clock })) });
    try {
      const ids = simulated.flatMap(({ id }) => ['--provider', id]);
      const { status, out } = await holdfast(['init', '--sandbox-port', String(server.port), '--json', ...ids]);
      const report = JSON.parse(out) as {
        outcome: string;
        variables: string[];
        providers: JsonObject[];
        entities: { key: string; defines: string }[];
      };
      expect(report.providers).toEqual(
        simulated.map(({ id }) => expect.objectContaining({ provider: id, state: 'looked' })),
      );
      expect(report.providers.filter(({ found }) => found === 0)).toEqual([]);
      expect({ status, outcome: report.outcome }).toEqual({ status: 0, outcome: 'written' });
      expect(server.writes()).toEqual([]);
      const env = Object.fromEntries(report.variables.map((name) => [name, 'any-credential']));
      // One of each kind: at the providers' real rates all of them take their time.
      const kinds = Map.groupBy(report.entities, ({ defines }) => defines);
      const keys = [...kinds.values()].flatMap(([first]) => first?.key ?? []);
      expect(keys.length).toBeGreaterThan(10);
      const answer = await holdfast(['check', '--json', ...keys], env);
      const reached = ['reachable', 'not_supported'];
      expect(checked(answer).entities.filter(({ access }) => !reached.includes(access.state))).toEqual([]);
      expect(answer.status).toBe(0);
    } finally {
      await server.close();
    }
  }, 120_000);
});
