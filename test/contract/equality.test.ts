import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AnyAction } from '../../src/core/action.ts';
import { ERROR_CODES, type ErrorCode } from '../../src/core/errors.ts';
import type { JsonObject, JsonValue } from '../../src/core/json.ts';
import { isGuarded } from '../../src/core/risk.ts';
import { type BackupInfo, OperationView } from '../../src/core/schemas.ts';
import type { JournalEntry } from '../../src/simulators/simulator.ts';
import { shellWord, valueText } from '../../src/surfaces/command-line.ts';
import { toolName } from '../../src/surfaces/mcp/tools.ts';
import { parametersOf } from '../../src/surfaces/parameters.ts';
import { type GuardedFleet, registry, startGuardedFleet } from '../support/guarded-fleet.ts';
import { CLIENTS, connectClient, type TestClient } from '../support/mcp-clients.ts';
import { describePostgres } from '../support/postgres.ts';
import { type Finished, programArguments, REROUTE, runProgram, type Server, serveHttp } from '../support/program.ts';

// The same call gives the same answer, whatever the way in: three MCP clients, each on stdio and HTTP, and the command
// line, all of them the real program over one entities file, one state and the same simulators.

let fleet: GuardedFleet;
let root: string;
let http: Server & { url: string };
const clients = new Map<string, TestClient>();
let environment: Record<string, string>;

/** One answer in the words that all surfaces share. */
interface Answer {
  readonly code: string;
  readonly document: JsonObject;
}

const common = (): string[] => ['--config', join(root, 'holdfast.yaml'), '--state-dir', join(root, 'state')];
const options = () => ({
  cwd: root,
  env: environment,
  node: ['--import', REROUTE],
});

let children = 0;
const queue: (() => void)[] = [];
/** Runs a command; two at a time, for a start of the program is the dearest thing here. */
async function holdfast(...args: string[]): Promise<Finished> {
  if (children >= 2) await new Promise<void>((resolve) => queue.push(resolve));
  children += 1;
  try {
    return await runProgram([...args, ...common()], options());
  } finally {
    children -= 1;
    queue.shift()?.();
  }
}

const codeIn = (document: JsonObject): string =>
  String((document['error'] as JsonObject | undefined)?.['code'] ?? 'it ran');

async function onCommandLine(
  action: AnyAction,
  entity: string | undefined,
  input: JsonObject,
  ...flags: string[]
): Promise<Answer> {
  const path = entity === undefined ? action.name : `${entity}/${action.name}`;
  const words = Object.entries(input).map(([key, value]) => `${key}=${valueText(value ?? null)}`);
  const { status, out, err } = await holdfast('do', path, ...words, '--json', ...flags);
  expect(out, `${path} ${words.map(shellWord).join(' ')}\n${err}`).not.toBe('');
  const document = JSON.parse(out) as JsonObject;
  const code = codeIn(document);
  const wanted = code === 'it ran' ? 0 : ERROR_CODES[code as ErrorCode].exit;
  expect(status, `${path}: exit status of ${code}`).toBe(wanted);
  return { code, document };
}

async function overMcp(
  client: TestClient,
  action: AnyAction,
  entity: string | undefined,
  input: JsonObject,
): Promise<Answer> {
  const args = { ...(entity === undefined ? {} : { entity }), ...input };
  const { isError, structured } = await client.call(toolName(action), args);
  const document = structured as JsonObject;
  expect(isError === true, `${toolName(action)} says whether it is an error`).toBe(codeIn(document) !== 'it ran');
  return { code: codeIn(document), document };
}

/** Leaves out of an answer what two equal calls differ in: moments, ages, and ids that are made for each call. */
function normal<T>(value: T): T {
  const text = JSON.stringify(value)
    .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '<time>')
    .replace(/op_[0-9a-f]{20}/g, '<operation>')
    .replace(/hfc_[A-Za-z0-9_-]+/g, '<token>')
    .replace(/(?<![\w-])[0-9A-Z]{4}-[0-9A-Z]{4}(?![\w-])/g, '<code>')
    .replace(/\d+(?:\.\d+)? (?:ms|s|min|h|d)\b(?: \d+ (?:s|min|h)\b)*/g, '<age>')
    .replace(/-(restore|manual)-\d{8}-\d{4}/g, '-$1-<minute>')
    .replace(/-r\d{14}\b/g, '-r<second>')
    .replace(/_\d{8}_\d{6}\b/g, '_<second>')
    .replace(/-20\d{10}\b/g, '-<minute>')
    .replace(/-at-\d{8}T\d{6}Z/g, '-at-<second>')
    // A server of PostgreSQL writes to its log by itself.
    .replace(/"lsn":"[0-9A-F]+\/[0-9A-F]+"/g, '"lsn":"<lsn>"')
    .replace(/"(duration_seconds|duration_ms|percent|duration_estimate)":[\d.]+/g, '"$1":0');
  return JSON.parse(text) as T;
}

/** The same for answers about what the call itself made, whose ids differ, and what was told on the way. */
function normalMade(value: Answer): Answer {
  const { id } = (value.document['result'] ?? {}) as { id?: string };
  const made = JSON.stringify(value);
  const text = JSON.stringify(normal(JSON.parse(id === undefined ? made : made.replaceAll(id, '<made>'))))
    .replace(/"message":"(?:[^"\\]|\\.)*",/g, '')
    .replace(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, '<uuid>')
    .replace(/\b[0-9A-F]{24}\b/g, '<segment>')
    .replace(/\b[0-9a-f]{24}\b/g, '<object id>')
    .replace(/\b\d{13}\b/g, '<run id>')
    .replace(/\[holdfast[^\]]*\]/g, '[holdfast]')
    .replace(/\d{8}T\d{6}Z?(?:-[a-z0-9]+)+/g, '<backup>')
    .replace(/restored\d+/g, 'restored')
    .replace(/_restored_[0-9a-f]{8}/g, '_restored_<copy>')
    .replace(/"(job_id|operation_name|lsn|switched_lsn|schedule_name|branch_id)":"[^"]*"/g, '"$1":"<$1>"')
    .replace(/"(size_bytes|stored_bytes|plain_bytes|bytes|stored)":\d+/g, '"$1":0');
  return JSON.parse(text) as Answer;
}

type Way = (action: AnyAction, entity: string | undefined, input: JsonObject) => Promise<Answer>;
function ways(): [string, Way][] {
  const mcp = [...clients].map(([name, client]): [string, Way] => [
    name,
    (action, entity, input) => overMcp(client, action, entity, input),
  ]);
  return [...mcp, ['the command line', (action, entity, input) => onCommandLine(action, entity, input)]];
}

/** Makes a call every way and holds the answers against the first one. */
async function same(action: AnyAction, entity: string | undefined, input: JsonObject): Promise<Answer> {
  const answers = await Promise.all(
    ways().map(async ([name, call]) => ({ name, answer: await call(action, entity, input) })),
  );
  const [first] = answers as [(typeof answers)[0], ...typeof answers];
  for (const { name, answer } of answers.slice(1)) {
    const what = `${entity ?? ''} ${action.name} ${JSON.stringify(input)}: ${name} and ${first.name}`;
    expect(normal(answer), what).toEqual(normal(first.answer));
  }
  return (answers.at(-1) as (typeof answers)[0]).answer;
}

async function finish(client: TestClient, answer: Answer): Promise<Answer> {
  let { document } = answer;
  while (document['status'] === 'running' || document['status'] === 'pending') {
    const input = { operation_id: document['operation_id'], timeout_seconds: 30 };
    document = (await client.call('backup_wait_operation', input)).structured as JsonObject;
  }
  return { code: answer.code, document };
}

const newest = new Map<string, string>();
const latest = new Map<string, string>();
let operation = '';

/** The example of an action for one entity, its words in place of what they stand for. */
function exampleFor(action: AnyAction, entity: string): JsonObject {
  const text = JSON.stringify(action.example)
    .replaceAll('$newest', newest.get(entity) ?? '')
    .replaceAll('$latest', latest.get(entity) ?? '')
    .replaceAll('$entity', entity)
    .replaceAll('$operation', operation);
  return JSON.parse(text) as JsonObject;
}

/** Looks for what the examples for an entity speak of: its newest snapshot, where it has a list of them. */
async function findNewest(list: AnyAction | undefined, entity: string): Promise<void> {
  newest.delete(entity);
  if (list === undefined) return;
  const { document } = await onCommandLine(list, entity, {});
  const [first] = (document['snapshots'] as { id: string; restorable: boolean }[]).filter(
    ({ restorable }) => restorable,
  );
  if (first !== undefined) newest.set(entity, first.id);
}

/** Looks for the last moment that an entity can go back to. */
async function findLatest(info: AnyAction, entity: string): Promise<void> {
  const { document } = await onCommandLine(info, entity, {});
  latest.set(entity, String((document as unknown as BackupInfo).pitr.window?.latest_at));
}

/** The example's required parameters. */
function leastOf(action: AnyAction): JsonObject {
  const required = parametersOf(action).filter((parameter) => parameter.required);
  return Object.fromEntries(required.map(({ name }) => [name, action.example[name] as JsonValue]));
}

/** The parameters of the example that name something new, which must be another one each time. */
function namesIn({ name, example }: AnyAction): string[] {
  const names =
    name === 'create-snapshot' ? /^snapshot_id$/ : /^(target_(database|id|table|snapshot_id)|new_\w+_name)$/;
  return Object.keys(example).filter((parameter) => names.test(parameter));
}

let named = 0;
function freshName(): string {
  named += 1;
  return `restored${named}`;
}

/** Makes room for what there can be only one of. */
function makeRoom({ name }: AnyAction): void {
  if (name === 'create-backup-schedule') fleet.firestore.schedules.length = 0;
}

/** Whether a request is about one database: others work at the same moment. */
function isAbout({ provider, path, operation = '' }: JournalEntry, key: string): boolean {
  const { defines, parameters } = fleet.entities.find((entity) => entity.key === key)!;
  if (registry.entityTypes.get(defines)?.provider.id !== provider) return false;
  if (provider === 'aws-rds') return operation.includes('Cluster') === key.endsWith('cluster');
  return provider !== 'redis-cloud' || path.includes(`/databases/${String(parameters['database_id'])}/`);
}

/** Everything that a surface shows as one thing; for an action that all providers share, the one across all entities. */
const actions: readonly AnyAction[] = [...registry.fleet, ...registry.actions.filter(({ shared }) => !shared)];
const action = (provider: string, name: string): AnyAction =>
  actions.find((one) => one.name === name && (one.kind === 'fleet' ? 'backup' : one.provider.id) === provider)!;
const rows = actions.flatMap((one): { one: AnyAction; defines: string | undefined; name: string }[] =>
  one.kind === 'fleet'
    ? [{ one, defines: undefined, name: `backup/${one.name}` }]
    : one.on.map((defines) => ({ one, defines, name: `${one.name} on ${defines}` })),
);
const entityOf = (defines: string | undefined): string =>
  fleet.entities.find((entity) => defines === undefined || entity.defines === defines)!.key;
const called = (row: (typeof rows)[0]): [string, string | undefined] => {
  const entity = entityOf(row.defines ?? 'gcp/cloud-sql-instance');
  return [entity, row.defines === undefined ? undefined : entity];
};

describe('every declaration', () => {
  // What says enough by its name, because the provider's own interface has it under that name or every provider has it.
  const EVIDENT = [
    /^(entity|action|input|limit|cursor|status|name|label|description|level|type|size_bytes|confirmation_token)$/,
    /^(retention_days|allow_last|safety_snapshot|no_owner|timestamp|restore_timestamp|\w+_(seconds|at|time)|lsn)$/,
    /^(\w+_(id|ids|arn|name|type|table)|target_(instance|database|cluster|region)|dataset|location|region|frequency)$/,
    /^(instance_class|num_nodes|(subnet|parameter)_group|multi_az|publicly_accessible|public_network_access|deletion_protection)$/,
  ];

  it.each(rows.map(({ one }) => [toolName(one), one] as const))('%s keeps to the form', (name, one) => {
    // Clients put the name of the server before it and allow 64 characters in all.
    expect(name).toMatch(/^[a-z][a-z0-9_]{0,63}$/);
    expect(`mcp__holdfast__${name}`.length).toBeLessThanOrEqual(64);
    expect(one.name).toMatch(/^[a-z]+(-[a-z]+)*$/);
    for (const alias of one.aliases) expect(alias).toMatch(/^[a-z]+(-[a-z]+)*$/);
    expect(one.summary.length).toBeGreaterThan(10);
    expect(one.summary.split(/\s+/).length).toBeLessThanOrEqual(30);
    for (const parameter of parametersOf(one)) {
      expect(parameter.name).toMatch(/^[a-z][a-z0-9]*(_[a-z0-9]+)*$/);
      const explained =
        EVIDENT.some((names) => names.test(parameter.name)) || new RegExp(`\\b${parameter.name}\\b`).test(one.summary);
      if (!explained) expect(parameter.description, parameter.name).toMatch(/^\S.{3,}/);
    }
    for (const code of one.errors) expect(Object.keys(ERROR_CODES)).toContain(code);
    expect(one.input.safeParse({ ...one.example, no_such_parameter: 1 }).success).toBe(false);
    if (one.kind === 'provider' && isGuarded(one.upTo)) expect(one.plan).toBeTypeOf('function');
  });
});

describePostgres('the same call, whatever the way in', () => {
  beforeAll(async () => {
    root = mkdtempSync(join(tmpdir(), 'hf-equal-'));
    mkdirSync(join(root, 'state'), { mode: 0o700 });
    fleet = await startGuardedFleet();
    fleet.redis.hiddenLooks = 0;
    const entities = Object.fromEntries(
      fleet.entities.map(({ key, defines, parameters, endpoint }) => [
        key.split('/')[1],
        { defines, ...parameters, ...(endpoint === undefined ? {} : { endpoint }) },
      ]),
    );
    writeFileSync(join(root, 'holdfast.yaml'), JSON.stringify({ namespace: 'sandbox', ...entities }));
    environment = {
      ...fleet.secrets,
      GOOGLE_OAUTH_ACCESS_TOKEN: 'ya29.sandbox-access-token',
      HOLDFAST_TEST_PACE: '10',
    };
    http = await serveHttp(common(), options());
    await Promise.all(
      CLIENTS.flatMap((kind) => [
        connectClient(kind, { url: http.url }).then((client) => clients.set(`${kind} over HTTP`, client)),
        connectClient(kind, {
          node: programArguments(['serve', ...common()], options()),
          env: { ...environment, PATH: process.env['PATH'] ?? '', HOME: root },
        }).then((client) => clients.set(`${kind} over stdio`, client)),
      ]),
    );
    // What the examples speak of: a snapshot of every database, an operation, a restore.
    const made = await Promise.all(
      fleet.entities.map(async ({ key, defines }) => {
        const of = (name: string) => registry.actions.find((one) => one.name === name && one.on.includes(defines));
        const create = of('create-snapshot');
        if (create === undefined) return findNewest(of('list-snapshots'), key);
        const { document, code } = await onCommandLine(create, key, leastOf(create), '--wait');
        expect(code, `${key} ${JSON.stringify(document)}`).toBe('it ran');
        newest.set(key, String((document['result'] as JsonObject)['id']));
        operation = String(document['operation_id']);
      }),
    );
    expect(made.length).toBe(fleet.entities.length);
    const restore = action('postgresql', 'restore');
    const key = entityOf('postgresql/server');
    await onCommandLine(restore, key, { snapshot_id: newest.get(key), target_database: freshName() }, '--wait');
  }, 60_000);

  afterAll(async () => {
    await Promise.all([...clients.values()].map((client) => client.close()));
    await http?.stop();
    await fleet?.close();
    rmSync(root, { recursive: true, force: true });
  });

  it('lists the same tools to every client, and has a row for every tool', async () => {
    const lists = await Promise.all([...clients.values()].map((client) => client.tools()));
    expect(clients.size).toBe(6);
    for (const list of lists) expect(list).toEqual(lists[0]);
    expect(lists[0]!.map(({ name }) => name).sort()).toEqual(actions.map(toolName).sort());
  });

  it('answers every example that reads, and what does not fit is no answer', { timeout: 90_000 }, async () => {
    const reads = rows.filter(({ one }) => one.upTo === 'read');
    expect(reads.length).toBeGreaterThan(20);
    const worked = new Set<AnyAction>();
    await Promise.all(
      reads.map(async (row) => {
        const [entity, on] = called(row);
        const { code, document } = await same(row.one, on, exampleFor(row.one, entity));
        // An example with an id in it fits one database; on another of the same provider it is refused as declared.
        if (code !== 'it ran') return expect(row.one.errors, `${row.name} ${JSON.stringify(document)}`).toContain(code);
        worked.add(row.one);
        expect(row.one.output.safeParse(document).error, row.name).toBeUndefined();
      }),
    );
    expect(reads.filter(({ one }) => !worked.has(one)).map(({ name }) => name)).toEqual([]);
    const everywhere = action('backup', 'find-recovery-options');
    await Promise.all(fleet.entities.map(({ key }) => same(everywhere, undefined, { entity: key })));
    await Promise.all(
      fleet.entities.map(async ({ key, defines }) => {
        const { code, document } = await same(action('backup', 'check-settings'), undefined, { entity: key });
        const declares = registry.actions.some(({ name, on }) => name === 'check-settings' && on.includes(defines));
        expect(code, `${key} ${JSON.stringify(document)}`).toBe(declares ? 'it ran' : 'NOT_SUPPORTED');
        // Nothing is left to do, which can be said any number of times.
        if (document['in_line'] === true) await same(action('backup', 'apply-settings'), undefined, { entity: key });
      }),
    );
  });

  it('refuses alike: wrong names, wrong values, what is not there', { timeout: 90_000 }, async () => {
    const sql = entityOf('gcp/cloud-sql-instance');
    const atlas = entityOf('mongodb-atlas/cluster');
    const postgres = entityOf('postgresql/server');
    const redis = entityOf('redis-cloud/pro-database');
    const wrong: [string, string, string | undefined, JsonObject, string][] = [
      ['gcp-cloud-sql', 'describe-snapshot', sql, { backup_id: '1700000000000' }, 'BACKUP_NOT_FOUND'],
      ['gcp-cloud-sql', 'describe-snapshot', sql, { backup_id: '../../x' }, 'INVALID_PARAMETER'],
      ['gcp-cloud-sql', 'restore', sql, { backup_id: '1700000000000' }, 'BACKUP_NOT_FOUND'],
      ['gcp-cloud-sql', 'list-snapshots', sql, { cursor: 'nonsense' }, 'INVALID_PARAMETER'],
      ['gcp-cloud-sql', 'list-snapshots', sql, { limit: 0 }, 'INVALID_PARAMETER'],
      ['mongodb-atlas', 'describe-snapshot', atlas, { snapshot_id: 'f'.repeat(24) }, 'SNAPSHOT_NOT_FOUND'],
      ['mongodb-atlas', 'restore', atlas, {}, 'INVALID_PARAMETER'],
      ['mongodb-atlas', 'restore', atlas, { restore_timestamp: 'yesterday' }, 'INVALID_PARAMETER'],
      ['mongodb-atlas', 'delete-snapshot', atlas, {}, 'INVALID_PARAMETER'],
      ['postgresql', 'describe-snapshot', postgres, { snapshot_id: 'nothing' }, 'BACKUP_NOT_FOUND'],
      ['postgresql', 'create-snapshot', postgres, { type: 'yearly' }, 'INVALID_PARAMETER'],
      ['redis-cloud', 'restore', redis, { source_type: 'aws-s3', source_uri: 's3://bucket/' }, 'INVALID_PARAMETER'],
      ['redis-cloud', 'create-snapshot', redis, { backup_path: 'http://x/' }, 'INVALID_PARAMETER'],
      ['backup', 'get-operation', undefined, { operation_id: 'op_none' }, 'OPERATION_NOT_FOUND'],
      ['backup', 'find-recovery-options', undefined, { entity: 'sandbox/redis-por' }, 'ENTITY_NOT_FOUND'],
      ['backup', 'find-recovery-options', undefined, { entity: sql, at: '2199-01-01T00:00:00Z' }, 'INVALID_PARAMETER'],
      ['backup', 'plan', undefined, { entity: sql, action: 'restroe' }, 'INVALID_PARAMETER'],
      ['backup', 'check-settings', undefined, { entity: 'sandbox/nothing' }, 'ENTITY_NOT_FOUND'],
      ['backup', 'apply-settings', undefined, { entity: sql, settings: ['no_such'] }, 'INVALID_PARAMETER'],
      ['backup', 'plan', undefined, { entity: redis, action: 'delete-snapshot' }, 'NOT_SUPPORTED'],
    ];
    const before = fleet.provider.writes().length;
    await Promise.all(
      wrong.map(async ([provider, name, entity, input, expected]) => {
        const { code, document } = await same(action(provider, name), entity, input);
        expect(code, `${provider} ${name} ${JSON.stringify(document)}`).toBe(expected);
        expect(document['error']).toMatchObject({ hint: expect.stringMatching(/\S/), retryable: false });
      }),
    );
    expect(fleet.provider.writes().slice(before)).toEqual([]);
  });

  it('refuses every guarded example alike, with a plan, and runs it once it is approved', {
    timeout: 120_000,
  }, async () => {
    const guarded = rows.filter(({ one }) => one.kind === 'provider' && isGuarded(one.upTo));
    expect(guarded.length).toBeGreaterThan(5);
    const ran = new Map<string, string>();
    const runRow = async (row: (typeof rows)[0]): Promise<void> => {
      const [entity, on] = called(row);
      if (row.defines === 'postgresql/server') {
        // A prune took those that were the newest of the day before.
        await findNewest(action('postgresql', 'list-snapshots'), entity);
        const hold = action('postgresql', 'hold-snapshot');
        if (row.one.name === 'release-snapshot') await onCommandLine(hold, on, exampleFor(hold, entity));
      }
      const input = { ...exampleFor(row.one, entity) };
      // Its own snapshot, and no new name: the guarded ways of these two.
      if (row.name.startsWith('restore on postgresql')) delete input['target_database'];
      const writes = () => fleet.provider.writes().filter((entry) => isAbout(entry, entity)).length;
      const dry = await onCommandLine(row.one, on, input, '--dry-run');
      const planned = await overMcp(clients.get('sdk 1 over stdio')!, action('backup', 'plan'), undefined, {
        entity,
        action: row.one.name,
        input,
      });
      expect(normal(planned), row.name).toEqual(normal(dry));
      if (dry.document['decision'] !== 'confirm') return;
      const before = writes();
      const refused = await same(row.one, on, input);
      expect(refused.code, row.name).toBe('CONFIRMATION_REQUIRED');
      expect(writes(), `${row.name} wrote`).toBe(before);
      expect(normal(refused.document['plan']), row.name).toEqual(normal(dry.document['plan']));
      const { token, code } = refused.document['confirmation'] as { token: string; code: string };
      const { target } = refused.document['plan'] as { target: string };
      const approved = await holdfast('approve', code, '--target', target);
      expect(approved.status, approved.err).toBe(0);
      const { code: end, document } = await onCommandLine(row.one, on, input, '--token', token, '--wait');
      expect(end, `${row.name} ${JSON.stringify(document)}`).toBe('it ran');
      const output = 'steps' in document ? OperationView.parse(document).result : document;
      expect(row.one.output.safeParse(output).error, row.name).toBeUndefined();
      ran.set(row.name, end);
    };
    const byEntity = Map.groupBy(guarded, (row) => called(row)[0]);
    // One database does one thing at a time; what deletes comes last.
    await Promise.all(
      [...byEntity.values()].map(async (own) => {
        for (const row of own.toSorted((a, b) => b.name.localeCompare(a.name))) await runRow(row);
      }),
    );
    const always = guarded.filter(({ one }) => isGuarded(one.risk)).map(({ name }) => name);
    expect([...ran.keys()]).toEqual(expect.arrayContaining(always));
  });

  it('does alike what makes something new', { timeout: 120_000 }, async () => {
    const creating = rows.filter(({ one }) => one.risk === 'create');
    expect(creating.length).toBeGreaterThan(4);
    await Promise.all(
      [...Map.groupBy(creating, (row) => called(row)[0])].map(async ([entity, own]) => {
        for (const row of own) {
          if (row.name === 'restore on gcp/cloud-sql-instance') continue;
          const provider = row.one.kind === 'provider' ? row.one.provider.id : '';
          const spoken = JSON.stringify(row.one.example);
          if (spoken.includes('$newest')) await findNewest(action(provider, 'list-snapshots'), entity);
          if (spoken.includes('$latest')) await findLatest(action(provider, 'get-backup-info'), entity);
          const answers: [string, Answer][] = [];
          for (const [name, client] of [...clients, ['the command line', undefined] as const]) {
            const input = exampleFor(row.one, entity);
            for (const parameter of namesIn(row.one)) input[parameter] = freshName();
            makeRoom(row.one);
            const answer =
              client === undefined
                ? await onCommandLine(row.one, entity, input, '--wait')
                : await finish(client, await overMcp(client, row.one, entity, input));
            answers.push([name, normalMade(answer)]);
          }
          for (const [name, answer] of answers.slice(1)) {
            expect.soft(answer, `${row.name}: ${name} and ${answers[0]![0]}`).toEqual(answers[0]![1]);
          }
          const { document: last } = answers[0]![1];
          // What is over when its call is answers with its output itself.
          const isOperation = row.one.kind === 'fleet' || row.one.steps !== undefined;
          const made = isOperation ? last : { status: 'succeeded', result: last };
          expect(made['status'], `${row.name} ${JSON.stringify(last)}`).toBe('succeeded');
          expect(row.one.output.safeParse(made['result']).error, row.name).toBeUndefined();
        }
      }),
    );
  });
});
