import { PassThrough, Writable } from 'node:stream';
import { z } from 'zod';
import { type AnyAction, defineAction, defineFleetAction } from '../../src/core/action.ts';
import type { EntityBase } from '../../src/core/context.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { Plan } from '../../src/core/plan.ts';
import {
  type Discovery,
  defineProvider,
  type PermissionState,
  type Provider,
  type ProviderGuide,
} from '../../src/core/provider.ts';
import { isGuarded } from '../../src/core/risk.ts';
import { ListInput, OperationView, SnapshotList, secretText } from '../../src/core/schemas.ts';
import type { ConfirmationRecord, Requirement } from '../../src/core/state.ts';
import { nearest } from '../../src/core/text.ts';
import type {
  AccessRequest,
  AuditReport,
  Call,
  Decision,
  DiscoveryRequest,
  Engine,
  Outcome,
} from '../../src/engine/api.ts';
import { parseInput } from '../../src/engine/input.ts';
import { collect, findAction } from '../../src/engine/registry.ts';
import type { CliDeps, ConfigReport, InitReport, RunningSandbox, ServeOptions } from '../../src/surfaces/cli/deps.ts';
import { runCli } from '../../src/surfaces/cli/program.ts';

const entityType = { title: 'Test', schema: z.object({}), ignored: [], example: {} };

export const guide: ProviderGuide = {
  behaviour: ['A backup is whole or not there.'],
  limits: ['20 backups.'],
  credentials: ['token of the entity', 'TEST_TOKEN'],
  permissions: {
    '*': ['sql.get'],
    'list-snapshots': ['sql.backups.list'],
    'create-snapshot': ['sql.backups.create'],
    'delete-snapshot': ['sql.backups.delete'],
    restore: ['sql.restore'],
  },
  grant: 'test role',
  policy: (permissions) => ['role: backup', ...permissions.map((name) => `  - ${name}`)].join('\n'),
};

const provider = defineProvider<object, object>({
  id: 'test-sql',
  title: 'Test SQL',
  entityTypes: { 'test/sql': entityType, 'test/cache': entityType },
  cannot: {
    'get-backup-info': 'Ask the console.',
    'describe-snapshot': 'Use list-snapshots.',
    'get-restore-status': 'Use get-operation.',
  },
  limits: { per_second: 1, burst: 1, concurrent: 1, timeout_ms: 1000 },
  connect: async () => ({}),
  recoveryOptions: async () => [],
  guide: async () => guide,
  toError: (cause) => new HoldfastError('INTERNAL', 'no provider is asked here', { cause }),
});

const declared = {
  list: defineAction({
    provider,
    name: 'list-snapshots',
    aliases: ['list-backups'],
    title: 'List snapshots',
    summary: 'Lists snapshots, newest first.',
    risk: 'read',
    input: z.object(ListInput),
    output: SnapshotList,
    errors: [],
    source: 'test',
    example: { limit: 5 },
    run: async () => ({ snapshots: [] }),
  }),
  create: defineAction({
    provider,
    name: 'create-snapshot',
    title: 'Take a snapshot',
    summary: 'Takes a snapshot and waits until it can be restored.',
    risk: 'create',
    input: z.object({
      snapshot_id: z.string().optional().describe('Name of the snapshot'),
      size: z.number().optional(),
      copies: z.number().int().default(1),
      encrypted: z.boolean().optional(),
      tables: z.array(z.string()).optional(),
      ports: z.array(z.number().int()).optional(),
      tags: z.record(z.string(), z.string()).optional(),
      rules: z.array(z.object({ name: z.string() })).optional(),
      mode: z.enum(['full', 'incr']).optional(),
      restore_timestamp: z.union([z.string(), z.number().int()]).optional(),
      retention_days: z.number().int().nullable().optional(),
      source_uri: secretText().optional(),
    }),
    output: z.object({ snapshot_id: z.string() }),
    errors: ['QUOTA_EXCEEDED'],
    source: 'test',
    example: { snapshot_id: 'before upgrade' },
    steps: () => [],
    result: () => ({ snapshot_id: 'one' }),
  }),
  remove: defineAction({
    provider,
    name: 'delete-snapshot',
    on: ['test/sql'],
    title: 'Delete a snapshot',
    summary: 'Deletes a snapshot for good.',
    risk: 'delete',
    input: z.object({ snapshot_id: z.string() }),
    output: z.object({ deleted: z.boolean() }),
    errors: ['SNAPSHOT_NOT_FOUND'],
    source: 'test',
    example: { snapshot_id: '$newest' },
    plan: async () => ({ target: 'x', loses: 'x', undo: 'x', facts: { target: {} } }),
    run: async () => ({ deleted: true }),
  }),
  restore: defineAction({
    provider,
    name: 'restore',
    on: ['test/sql'],
    title: 'Restore a snapshot over the database',
    summary: 'Replaces the database with a snapshot.',
    risk: 'create',
    upTo: 'overwrite',
    input: z.object({ snapshot_id: z.string(), source_uri: secretText().optional() }),
    output: z.object({ restored: z.boolean() }),
    errors: ['SNAPSHOT_NOT_FOUND'],
    source: 'test',
    example: { snapshot_id: '$newest' },
    plan: async () => ({ target: 'x', loses: 'x', undo: 'x', facts: { target: {} } }),
    run: async () => ({ restored: true }),
  }),
  assess: defineFleetAction({
    name: 'assess',
    title: 'Hold databases against their objectives',
    summary: 'Assesses every database, or one.',
    input: z.object({ entity: z.string().optional() }),
    output: z.object({ findings: z.array(z.string()) }),
    errors: [],
    example: {},
    run: async () => ({ findings: [] }),
  }),
  databases: defineFleetAction({
    name: 'list-databases',
    title: 'List databases',
    summary: 'Lists every configured database.',
    input: z.object({}),
    output: z.object({ databases: z.array(z.string()) }),
    errors: [],
    example: {},
    run: async () => ({ databases: [] }),
  }),
  operations: defineFleetAction({
    name: 'list-operations',
    title: 'List operations',
    summary: 'Lists operations.',
    input: z.object({}),
    output: z.object({ operations: z.array(OperationView) }),
    errors: [],
    example: {},
    run: async () => ({ operations: [] }),
  }),
  operation: defineFleetAction({
    name: 'get-operation',
    title: 'Show an operation',
    summary: 'Shows an operation.',
    input: z.object({ operation_id: z.string() }),
    output: OperationView,
    errors: [],
    example: { operation_id: 'op_1' },
    run: async () => operationView('running'),
  }),
  wait: defineFleetAction({
    name: 'wait-operation',
    title: 'Wait for an operation',
    summary: 'Waits for an operation.',
    input: z.object({ operation_id: z.string() }),
    output: OperationView,
    errors: [],
    example: { operation_id: 'op_1' },
    run: async () => operationView('succeeded'),
  }),
};

export const registry = collect({ declared });

/** Gives an operation in a state. */
export function operationView(status: OperationView['status'], more: Partial<OperationView> = {}): OperationView {
  return {
    operation_id: 'op_1',
    action: 'create-snapshot',
    entity: 'my-app/my-db',
    status,
    target: 'acme/my-db',
    started_at: '2026-11-21T10:00:00.000Z',
    steps: [{ name: 'snapshot', status }],
    ...more,
  };
}

/** Gives a plan of an overwriting restore. */
export function samplePlan(more: Partial<Plan> = {}): Plan {
  return {
    action: 'restore',
    entity: 'my-app/my-db',
    risk: 'overwrite',
    target: 'acme/my-db',
    loses: 'every write after 2026-11-20T03:00:00Z',
    blast_radius: { size_bytes: 1024 },
    safety_snapshot: { state: 'taken' },
    undo: 'restore the safety snapshot',
    alternatives: [],
    unknowns: [],
    warnings: [],
    facts: { target: { id: 'acme/my-db' } },
    ...more,
  };
}

const DECLARED: readonly Omit<EntityBase, 'namespace' | 'name' | 'provider'>[] = [
  { key: 'my-app/my-db', defines: 'test/sql', labels: { env: 'production' }, objectives: { rpo: 900 } },
  { key: 'my-app/other', defines: 'test/sql', labels: {}, objectives: {} },
  { key: 'shop/carts', defines: 'test/cache', labels: {}, objectives: {}, endpoint: 'http://127.0.0.1:9' },
];

const ENTITIES: readonly EntityBase[] = DECLARED.map((entity) => {
  const [namespace = '', name = ''] = entity.key.split('/');
  return { namespace, name, provider: 'test-sql', ...entity };
});

/** An engine in memory that guards, remembers what was asked and answers as a test says. */
export class FakeEngine implements Engine {
  readonly version = '1.2.3';
  sandbox = false;
  closed = 0;
  readonly made: Call[] = [];
  readonly denied: Decision[] = [];
  readonly records: ConfirmationRecord[] = [];
  require: Requirement = 'human';
  passphrase: string | undefined;
  plan = samplePlan();
  audit: AuditReport = { ok: true, records: 12 };
  trail: JsonObject[] = [];
  /** What a call answers once it is let through. */
  answer: (call: Call, action: AnyAction) => Promise<Outcome> = async (_call, action) => ({
    kind: 'result',
    action,
    output: { ok: true },
  });

  actions(): readonly AnyAction[] {
    return [...registry.fleet, ...registry.actions];
  }

  action(name: string, entity?: string): AnyAction {
    return findAction(registry, name, entity === undefined ? undefined : this.entity(entity));
  }

  entities(): readonly EntityBase[] {
    return ENTITIES;
  }

  entitiesOf(action: { on: readonly string[] }): readonly EntityBase[] {
    return ENTITIES.filter((entity) => action.on.includes(entity.defines));
  }

  entity(key: string): EntityBase {
    const found = ENTITIES.find((entity) => entity.key === key);
    if (found === undefined) {
      const keys = ENTITIES.map((entity) => entity.key);
      throw new HoldfastError('ENTITY_NOT_FOUND', `no entity '${key}' is configured`, {
        hint: `Did you mean ${nearest(key, keys).join(' or ')}?`,
      });
    }
    return found;
  }

  /** What the credentials may do; undefined: the provider cannot be asked. */
  granted: (request: AccessRequest) => Record<string, PermissionState> | undefined = () => undefined;
  readonly asked: AccessRequest[] = [];

  providers(): readonly Provider[] {
    return registry.providers;
  }

  async access(request: AccessRequest): Promise<Record<string, PermissionState> | undefined> {
    this.asked.push(request);
    return this.granted(request);
  }

  async discover(_request: DiscoveryRequest): Promise<Discovery | undefined> {
    return undefined;
  }

  service: Engine['service'] = () => Promise.reject(new Error('no service is run here'));

  async call(call: Call): Promise<Outcome> {
    this.made.push(call);
    const action = this.action(call.action, call.entity);
    const input = parseInput(action, call.input);
    if (call.dryRun === true) {
      return { kind: 'plan', action, plan: this.plan, decision: 'confirm', require: this.require };
    }
    if (isGuarded(action.upTo)) this.#admit(call, input as JsonObject);
    return this.answer(call, action);
  }

  #admit(call: Call, input: JsonObject): void {
    const record = this.records.find(
      (candidate) => candidate.id === call.confirmationId || candidate.token_sha256 === call.token,
    );
    if (record?.state === 'approved') {
      if (record.plan !== this.plan) {
        record.state = 'void';
        throw this.#ask('PLAN_CHANGED', call, input, [{ path: 'target.state', before: 'ready', after: 'busy' }]);
      }
      record.state = 'consumed';
      return;
    }
    if (record?.state === 'pending') throw new HoldfastError('CONFIRMATION_PENDING', 'nobody has decided');
    if (call.token !== undefined) throw new HoldfastError('CONFIRMATION_INVALID', 'never given out');
    throw this.#ask('CONFIRMATION_REQUIRED', call, input);
  }

  #ask(
    code: 'CONFIRMATION_REQUIRED' | 'PLAN_CHANGED',
    call: Call,
    input: JsonObject,
    differences?: JsonObject[],
  ): HoldfastError {
    const number = this.records.length + 1;
    const record: ConfirmationRecord = {
      id: `id-${number}`,
      code: `7K3Q-F2M${number}`,
      token_sha256: `hfc_${number}`,
      digest: 'd',
      parts: { action: '', entity: '', input: '', facts: '', policy: '' },
      plan: this.plan,
      input,
      principal: call.principal.id,
      person: call.principal.person,
      require: this.require,
      out_of_band: false,
      state: this.require === 'token' ? 'approved' : 'pending',
      created_at: '2026-11-21T10:00:00.000Z',
      expires_at: '2026-11-21T10:10:00.000Z',
    };
    this.records.unshift(record);
    return new HoldfastError(code, 'replacing live data needs confirmation', {
      details: {
        plan: this.plan as unknown as JsonObject,
        ...(differences === undefined ? {} : { differences }),
        confirmation: {
          id: record.id,
          token: record.token_sha256,
          code: record.code,
          require: record.require,
          out_of_band: false,
          expires_at: record.expires_at,
          approve_with: `holdfast approve ${record.code}`,
        },
      },
    });
  }

  async confirmations(filter: { states?: readonly string[] } = {}): Promise<ConfirmationRecord[]> {
    return this.records.filter((record) => filter.states === undefined || filter.states.includes(record.state));
  }

  async approve(decision: Decision): Promise<ConfirmationRecord> {
    const record = this.#open(decision);
    if (record.require === 'two-people' && decision.by.person === record.person) {
      throw new HoldfastError('POLICY_DENIED', 'policy wants a second person');
    }
    if (this.passphrase !== undefined && decision.passphrase !== this.passphrase) {
      throw new HoldfastError('AUTHENTICATION_FAILED', 'the approver passphrase is missing or wrong');
    }
    if (decision.typedTarget !== record.plan.target) {
      throw new HoldfastError('CONFIRMATION_MISMATCH', `the name that was typed is not '${record.plan.target}'`);
    }
    return Object.assign(record, { state: 'approved' as const });
  }

  async deny(decision: Decision): Promise<ConfirmationRecord> {
    this.denied.push(decision);
    return Object.assign(this.#open(decision), { state: 'denied' as const });
  }

  #open(decision: Decision): ConfirmationRecord {
    const record = this.records.find((candidate) => [candidate.id, candidate.code].includes(decision.confirmation));
    if (record === undefined)
      throw new HoldfastError('CONFIRMATION_INVALID', 'there is no confirmation with this code');
    if (record.state === 'expired') throw new HoldfastError('CONFIRMATION_EXPIRED', 'it expired');
    if (record.state === 'denied') throw new HoldfastError('CONFIRMATION_DENIED', 'it was denied');
    if (record.state !== 'pending') throw new HoldfastError('CONFIRMATION_USED', 'it was decided before');
    return record;
  }

  async verifyAudit(): Promise<AuditReport> {
    return this.audit;
  }

  recentAudit(limit: number): JsonObject[] {
    return this.trail.slice(0, limit);
  }

  async resume(): Promise<OperationView[]> {
    return [];
  }

  async close(): Promise<void> {
    this.closed += 1;
  }
}

/** A stream that keeps what is written and lets a test wait for it. */
export class Screen extends Writable {
  text = '';
  isTTY: boolean;
  columns = 100;
  #waiting: { part: string; resolve: () => void }[] = [];

  constructor(isTTY: boolean) {
    super({ decodeStrings: false });
    this.isTTY = isTTY;
  }

  override _write(chunk: unknown, _encoding: string, done: () => void): void {
    this.text += String(chunk);
    this.#waiting = this.#waiting.filter(({ part, resolve }) => {
      if (!this.text.includes(part)) return true;
      resolve();
      return false;
    });
    done();
  }

  shows(part: string): Promise<void> {
    if (this.text.includes(part)) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ part, resolve }));
  }
}

/** Standard input of a test. */
export class Keyboard extends PassThrough {
  isTTY: boolean;
  readonly modes: boolean[] = [];

  constructor(isTTY: boolean) {
    super();
    this.isTTY = isTTY;
  }

  setRawMode(on: boolean): this {
    this.modes.push(on);
    return this;
  }
}

export interface RunOptions {
  engine?: FakeEngine;
  /** Whether both ends are a terminal. */
  terminal?: boolean;
  /** What is typed or piped in. */
  input?: string;
  /** Leaves standard input open after `input`. */
  open?: boolean;
  env?: Record<string, string>;
  deps?: Partial<CliDeps>;
}

export interface Running {
  readonly out: Screen;
  readonly err: Screen;
  readonly keyboard: Keyboard;
  readonly engine: FakeEngine;
  readonly opened: unknown[];
  readonly served: ServeOptions[];
  readonly faults: string[];
  interrupt(reason?: string): void;
  readonly status: Promise<number>;
}

/** Starts a command line in process. */
export function start(argv: readonly string[], options: RunOptions = {}): Running {
  const { engine = new FakeEngine(), terminal = false, input = '', env = {} } = options;
  const out = new Screen(terminal);
  const err = new Screen(terminal);
  const keyboard = new Keyboard(terminal);
  if (input !== '') keyboard.write(input);
  if (options.open !== true) keyboard.end();
  const controller = new AbortController();
  const opened: unknown[] = [];
  const served: ServeOptions[] = [];
  const faults: string[] = [];
  const deps: CliDeps = {
    version: '1.2.3',
    openEngine: async (given) => {
      opened.push(given);
      return engine;
    },
    serve: async (given) => {
      served.push(given);
    },
    startSandbox: async ({ port }) => sampleSandbox(port),
    runDemo: async ({ print }) => {
      print('the agent was stopped');
      return 0;
    },
    checkConfig: async () => SAMPLE_REPORT,
    init: async () => SAMPLE_INIT,
    runWal: async () => ({ outcome: 'stored' }),
    lookThrough: async () => {
      throw new HoldfastError('NOT_SUPPORTED', 'no storage here');
    },
    openSchedules: async () => {
      throw new Error('no schedules in this test');
    },
    stdin: keyboard,
    stdout: out,
    stderr: err,
    env,
    signal: controller.signal,
    user: 'ana',
    log: { error: (message) => faults.push(message) },
    ...options.deps,
  };
  const status = runCli(argv, deps);
  const interrupt = (reason = 'SIGINT'): void => controller.abort(reason);
  return { out, err, keyboard, engine, opened, served, faults, interrupt, status };
}

/** Runs a command line to its end. */
export async function run(
  argv: readonly string[],
  options: RunOptions = {},
): Promise<{ status: number; out: string; err: string; engine: FakeEngine; running: Running }> {
  const running = start(argv, options);
  const status = await running.status;
  return { status, out: running.out.text, err: running.err.text, engine: running.engine, running };
}

export const SAMPLE_REPORT: ConfigReport = {
  file: 'holdfast.yaml',
  faults: [],
  warnings: [],
  entities: [
    {
      key: 'my-app/my-db',
      defines: 'test/sql',
      ignored: ['instance_class'],
      credentials: [
        { name: 'TEST_TOKEN', found: true },
        { name: 'TEST_KEY', found: false },
      ],
    },
  ],
};

export const SAMPLE_INIT: InitReport = {
  file: '/work/holdfast.yaml',
  outcome: 'written',
  providers: [
    {
      provider: 'test-sql',
      title: 'Test SQL',
      state: 'looked',
      looked: 'account acme',
      found: 2,
      problems: ['region b refused'],
      credentials: ['TEST_TOKEN'],
    },
  ],
  entities: [
    { key: 'my-app/orders', defines: 'test/sql', notes: ['not protected'], state: 'new' },
    { key: 'my-app/my-db', defines: 'test/sql', notes: ['fine'], state: 'known' },
  ],
  variables: ['TEST_TOKEN'],
  text: 'namespace: my-app\n\norders:\n  defines: test/sql\n',
};

export const closedSandboxes: number[] = [];

function sampleSandbox(port: number): RunningSandbox {
  const origin = `http://127.0.0.1:${port === 0 ? 41_000 : port}`;
  return {
    origin,
    endpoints: [{ provider: 'test-sql', defines: 'test/sql', url: origin }],
    close: async () => {
      closedSandboxes.push(port);
    },
  };
}
