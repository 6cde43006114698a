import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { openAudit } from '../../guards/audit.ts';
import { type AdmissionRequest, Guard } from '../../guards/guard.ts';
import type { Action, AnyAction, FleetAction, FleetContext } from '../core/action.ts';
import type { EntityBase, ProviderContext } from '../core/context.ts';
import { asHoldfastError, HoldfastError, isAbort } from '../core/errors.ts';
import { assertMayWrite, withGrant, withoutGrant } from '../core/grant.ts';
import { digestOf, type JsonObject } from '../core/json.ts';
import type { Step } from '../core/operation.ts';
import { compareFacts, type Plan, type PlanDraft, type SuggestedCall } from '../core/plan.ts';
import type { PolicyConfig } from '../core/policy.ts';
import type { Principal } from '../core/principal.ts';
import { type Discovery, type PermissionState, type Provider, SHARED_ACTIONS } from '../core/provider.ts';
import { hasFloor, higherRisk, isGuarded } from '../core/risk.ts';
import type { Log, Runtime, SecretRef } from '../core/runtime.ts';
import { scheduleKey } from '../core/schedule.ts';
import type { OperationRecord, StateStore } from '../core/state.ts';
import { didYouMean } from '../core/text.ts';
import { resilientFetch } from '../resilience/fetch.ts';
import type {
  AccessRequest,
  AuditReport,
  Call,
  Decision,
  DiscoveryRequest,
  Engine,
  Outcome,
  ServiceRequest,
} from './api.ts';
import { maskInput, parseInput } from './input.ts';
import { errorOf, OperationRunner, type Script, viewOperation } from './operations.ts';
import { withPolicy } from './permissions.ts';
import { findAction, type Registry } from './registry.ts';
import { Services } from './services.ts';

/** A configured database: what is known of it before its references are resolved, and how to resolve them. */
export interface ConfiguredEntity {
  readonly base: EntityBase;
  /** @throws {HoldfastError} CONFIG_INVALID naming what cannot be resolved */
  resolve(): Promise<EntityBase & Record<string, unknown>>;
}

export interface EngineOptions {
  readonly version: string;
  readonly registry: Registry;
  readonly entities: readonly ConfiguredEntity[];
  readonly policy: PolicyConfig;
  readonly store: StateStore;
  readonly stateDirectory: string;
  readonly sandbox: boolean;
  readonly redactor: {
    conceal(value: string): void;
    concealing<T>(values: readonly string[], work: () => T, isPlain?: (part: string) => boolean): T;
    redactJson(value: unknown, options?: { keepGiven?: boolean }): unknown;
    redactText(text: string): string;
  };
  readonly secrets: { secret(ref: SecretRef): Promise<string>; credential(name: string): string | undefined };
  readonly log: Log;
  readonly fetch: typeof globalThis.fetch;
  readonly now: () => Date;
  /** Waits; a sandbox or a test makes time pass faster. */
  readonly sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
  readonly random: (bytes: number) => Buffer;
  /** How many times the provider's documented rate may be asked; 1 in earnest. */
  readonly rateFactor?: number;
  /** First pause before a repeated read, in ms. */
  readonly retryBaseMs?: number;
  /** How long a call waits for its operation before it answers with the operation's id, in ms. */
  readonly graceMs?: number;
  /** Called at the beginning of every call. */
  readonly onCall?: () => void;
  /** Called at close, after the clients are gone. */
  readonly onClose?: () => Promise<void>;
}

interface Connection {
  readonly entity: EntityBase & Record<string, unknown>;
  readonly client: unknown;
  readonly runtime: Runtime;
}

/** Builds the engine: the one way from a call to a provider. */
export function createEngine(options: EngineOptions): Engine {
  return new HoldfastEngine(options);
}

class HoldfastEngine implements Engine {
  readonly version: string;
  readonly sandbox: boolean;
  readonly #options: EngineOptions;
  readonly #guard: Guard;
  readonly #audit: ReturnType<typeof openAudit>;
  readonly #runner: OperationRunner;
  readonly #services: Services;
  #plain: string | undefined;
  readonly #connections = new Map<string, Promise<Connection>>();
  readonly #fetches = new Map<string, ReturnType<typeof resilientFetch>>();

  constructor(options: EngineOptions) {
    const { store, policy, now, random } = options;
    this.#options = options;
    this.version = options.version;
    this.sandbox = options.sandbox;
    this.#audit = openAudit(join(options.stateDirectory, 'audit.jsonl'), store, now);
    this.#guard = new Guard({ store, audit: this.#audit, policy, now, random });
    this.#services = new Services({
      stateDirectory: options.stateDirectory,
      audit: this.#audit,
      policy,
      log: options.log,
      now,
    });
    this.#runner = new OperationRunner({
      store,
      sandbox: options.sandbox,
      now,
      sleep: options.sleep,
      redact: (value) => this.#redact(value),
      onEnd: (record) => this.#auditOperation(record, 'result'),
      onRecover: (record) => this.#auditOperation(record, 'recovered'),
    });
  }

  actions(): readonly AnyAction[] {
    const used = new Set(this.#options.entities.map(({ base }) => base.defines));
    return [
      ...this.#options.registry.fleet,
      ...this.#options.registry.actions.filter((action) => action.on.some((defines) => used.has(defines))),
    ];
  }

  action(name: string, entity?: string): AnyAction {
    return findAction(this.#options.registry, name, entity === undefined ? undefined : this.entity(entity));
  }

  entities(): readonly EntityBase[] {
    return this.#options.entities.map(({ base }) => base);
  }

  entitiesOf(action: Action): readonly EntityBase[] {
    return this.entities().filter((entity) => action.on.includes(entity.defines));
  }

  entity(key: string): EntityBase {
    return this.#configured(key).base;
  }

  #configured(key: string): ConfiguredEntity {
    const found = this.#options.entities.find(({ base }) => base.key === key);
    if (found === undefined) {
      throw new HoldfastError('ENTITY_NOT_FOUND', `no entity '${key.slice(0, 100)}' is configured`, {
        hint: didYouMean(
          key,
          this.entities().map((entity) => entity.key),
        ),
      });
    }
    return found;
  }

  async call(call: Call): Promise<Outcome> {
    const began = performance.now();
    this.#options.onCall?.();
    let trace: Trace = { principal: call.principal.id, entity: call.entity, action: call.action };
    try {
      const action = this.action(call.action, call.entity);
      trace = { ...trace, action: action.name, risk: action.risk };
      const outcome =
        action.kind === 'fleet' ? await this.#callFleet(action, call) : await this.#callProvider(action, call, trace);
      if (outcome.kind !== 'plan' && action.risk === 'read' && trace.admitted !== true) {
        // A read that cannot be recorded is still answered: at night the answer matters more than its line.
        await this.#audit
          .append(
            { event: 'read', ...auditable(trace), outcome: 'ok', duration_ms: Math.round(performance.now() - began) },
            false,
          )
          .catch((cause: unknown) => {
            this.#options.log.warn('a read was not recorded in the audit trail', { cause: String(cause) });
          });
      }
      return outcome;
    } catch (cause) {
      const error = this.#clean(cause);
      if (trace.admitted !== true) {
        await this.#audit
          .append(
            {
              event: 'refused',
              ...auditable(trace),
              outcome: error.code,
              duration_ms: Math.round(performance.now() - began),
            },
            false,
          )
          .catch(() => undefined);
      }
      throw error;
    }
  }

  async #callFleet(action: FleetAction, call: Call): Promise<Outcome> {
    if (call.principal.roles.length === 0) throw new HoldfastError('POLICY_DENIED', 'this caller has no role');
    const input = parseInput(
      action,
      call.entity === undefined || 'entity' in call.input ? call.input : { ...call.input, entity: call.entity },
    );
    const output = await withoutGrant(() => action.run(this.#fleetContext(call), input));
    return { kind: 'result', action, output: this.#output(action, output) };
  }

  async #callProvider(action: Action, call: Call, trace: Trace): Promise<Outcome> {
    const input = parseInput(action, call.input);
    const { shown, secrets } = maskInput(action, input);
    // The operation that this call starts, and all that both log, are within.
    return this.#options.redactor.concealing(
      secrets,
      async () => {
        try {
          return await this.#callParsed(action, call, trace, input, shown);
        } catch (cause) {
          throw this.#clean(await this.#explained(cause, action, call.entity as string));
        }
      },
      (part) => this.#isPlain(part),
    );
  }

  async #callParsed(
    action: Action,
    call: Call,
    trace: Trace,
    input: Record<string, unknown>,
    shownInput: JsonObject,
  ): Promise<Outcome> {
    const key = call.entity as string;
    trace.input_sha256 = digestOf(input);
    const signal = call.signal ?? new AbortController().signal;
    const { entity, client, runtime } = await this.#connect(key);
    const context: ProviderContext<unknown, unknown> = { client, runtime, signal, entity, caller: call.principal.id };
    const plan = await this.#plan(action, context, input);
    const shownPlan = this.#redact(plan);
    this.#assertShown(plan, shownPlan);
    Object.assign(trace, { risk: plan.risk, target: plan.target });
    const request: AdmissionRequest = {
      principal: call.principal,
      action: `${action.provider.id}/${action.name}`,
      actionName: action.name,
      entity: key,
      labels: entity.labels,
      input,
      shownInput,
      plan: shownPlan,
      allowLast: input['allow_last'] === true,
      token: call.token,
      confirmationId: call.confirmationId,
    };
    if (call.dryRun === true) {
      const verdict = this.#guard.verdict(request);
      return {
        kind: 'plan',
        action,
        plan: request.plan,
        decision: verdict.decision,
        ...(verdict.decision === 'confirm' ? { require: verdict.require } : {}),
      };
    }
    if (call.token !== undefined || call.confirmationId !== undefined) await this.#assertAuditable();
    const admission = await this.#guard.admit(request);
    Object.assign(trace, {
      decision: admission.decision,
      rule: admission.rule,
      confirmation_id: admission.confirmationId,
    });
    return action.run !== undefined
      ? this.#runNow(action, context, input, plan, trace)
      : this.#begin(action, context, input, call, request, trace);
  }

  // The entity as far as it is known: what it refers to may be what is missing.
  async #explained(cause: unknown, action: Action, key: string): Promise<HoldfastError> {
    const connection = await this.#connections.get(key)?.catch(() => undefined);
    const { parameters } = connection?.entity ?? this.entity(key);
    return withPolicy(asHoldfastError(cause), action, parameters);
  }

  /** Whether a text stands in what is configured, and so is no secret, whatever a caller says. */
  #isPlain(part: string): boolean {
    this.#plain ??= JSON.stringify(this.entities());
    return this.#plain.includes(JSON.stringify(part).slice(1, -1));
  }

  // What a caller calls a secret is masked; were it the target's name, nobody could see what they approve.
  #assertShown({ target, facts }: Plan, shown: Plan): void {
    const readable = this.#options.redactor.redactJson({ target, facts }, { keepGiven: true });
    if (digestOf(readable) === digestOf({ target: shown.target, facts: shown.facts })) return;
    throw new HoldfastError('INVALID_PARAMETER', 'a secret parameter holds a name or a state of the target', {
      hint: 'Masking it would hide what the call is about. Use another secret than a name that appears in the plan.',
    });
  }

  // The token is spent by `admit`; spending it and then finding that nothing can be recorded would waste a person's approval.
  async #assertAuditable(): Promise<void> {
    const fault = await this.#audit.probe();
    if (fault !== undefined) throw fault;
  }

  async #runNow(
    action: Action,
    context: ProviderContext<unknown, unknown>,
    input: unknown,
    plan: Plan,
    trace: Trace,
  ): Promise<Outcome> {
    const work = () => action.run!(context, input);
    if (plan.risk === 'read')
      return {
        kind: 'result',
        action,
        output: this.#output(action, await this.#mapped(action.provider, () => withoutGrant(work))),
      };
    await this.#audit.append({ event: 'intent', ...auditable(trace) }, true);
    trace.admitted = true;
    const began = performance.now();
    // Before anything irreversible both lines are on the disk; of the rest the intent is, which is what a crash must not lose.
    const durable = isGuarded(plan.risk);
    // What ran has run: a line that cannot be written any more must not make the caller believe otherwise.
    const record = (outcome: string, provider_request_id?: string) =>
      this.#audit
        .append(
          {
            event: 'result',
            ...auditable(trace),
            outcome,
            provider_request_id,
            duration_ms: Math.round(performance.now() - began),
          },
          durable,
        )
        .catch((cause: unknown) => {
          this.#options.log.error('the result of a call was not recorded in the audit trail', { cause: String(cause) });
        });
    try {
      const output = await this.#mapped(action.provider, () =>
        withGrant({ action: action.name, entity: String(trace.entity) }, work),
      );
      await record('ok');
      return { kind: 'result', action, output: this.#output(action, output) };
    } catch (cause) {
      const error = asHoldfastError(cause);
      await record(error.code, error.provider?.request_id);
      throw error;
    }
  }

  async #begin(
    action: Action,
    context: ProviderContext<unknown, unknown>,
    input: unknown,
    call: Call,
    request: AdmissionRequest,
    trace: Trace,
  ): Promise<Outcome> {
    const id = `op_${randomUUID().replaceAll('-', '').slice(0, 20)}`;
    trace.operation_id = id;
    await this.#audit.append({ event: 'intent', ...auditable(trace) }, true);
    trace.admitted = true;
    const { signal: _, ...rest } = context;
    await this.#runner.begin(
      {
        id,
        action: action.name,
        provider: action.provider.id,
        entity: request.entity,
        principal: call.principal.id,
        risk: request.plan.risk,
        target: request.plan.target,
        input: request.shownInput,
        plan: request.plan,
        ...(trace.confirmation_id === undefined ? {} : { confirmation_id: trace.confirmation_id }),
      },
      this.#script(action, rest, input, request.plan),
    );
    const wait = call.wait ?? 'grace';
    const { signal, onProgress } = call;
    let record: OperationRecord | undefined;
    try {
      record = await this.#runner.wait(id, {
        until: wait === 'detachable' ? 'detachable' : 'end',
        ...(wait === 'grace' ? { timeoutMs: this.#options.graceMs ?? 2000 } : {}),
        ...(signal === undefined ? {} : { signal }),
        ...(onProgress === undefined ? {} : { onProgress }),
      });
    } catch (cause) {
      if (!isAbort(cause) && signal?.aborted !== true) throw cause;
      const interrupted = this.#runner.cancel(id);
      throw new HoldfastError(
        'CANCELLED',
        interrupted ? `operation ${id} was interrupted` : `the call was cancelled; operation ${id} goes on`,
        {
          details: { operation_id: id },
          hint: interrupted
            ? 'What it had begun is cleaned up; look at the operation.'
            : 'It must not be left half-way. Follow it with get-operation.',
        },
      );
    }
    record ??= await this.#options.store.operation(id);
    if (record === undefined)
      throw new HoldfastError('STATE_UNAVAILABLE', `operation ${id} is not in the state store any more`);
    const failure = record.status === 'succeeded' ? undefined : errorOf(record);
    if (failure !== undefined) throw failure;
    return { kind: 'operation', action, operation: viewOperation(record, this.sandbox) };
  }

  /** The steps of an operation in order: the safety snapshot first where one is taken, and a second look at the target after it. */
  #script(
    action: Action,
    context: Omit<ProviderContext<unknown, unknown>, 'signal'>,
    input: unknown,
    plan: Plan,
  ): Script {
    const safety = plan.safety_snapshot.state === 'taken' ? (action.safety?.steps(input, plan) ?? []) : [];
    const recheck: Step = {
      name: 'recheck',
      title: 'Looking at the target again',
      kind: 'follow',
      run: async (step) => {
        const now = await this.#plan(action, { ...context, signal: step.signal }, input);
        const changed = [
          ...compareFacts(plan.facts.target, this.#redact(now.facts.target), 'target'),
          ...compareFacts(plan.facts.source, this.#redact(now.facts.source), 'source'),
        ];
        if (changed.length > 0) {
          throw new HoldfastError(
            'PLAN_CHANGED',
            'the target changed while the safety snapshot was taken; nothing was restored',
            { details: { differences: changed as unknown as JsonObject[] } },
          );
        }
        return {};
      },
    };
    const before = safety.length > 0 ? [...safety, recheck] : [];
    return { action, context, input, own: before.length, steps: [...before, ...action.steps!(input, plan)] };
  }

  async #plan(action: Action, context: ProviderContext<unknown, unknown>, input: unknown): Promise<Plan> {
    const entity = context.entity as EntityBase;
    const draft: PlanDraft =
      action.plan === undefined
        ? {
            target: entity.key,
            loses: 'nothing',
            undo: action.risk === 'read' ? 'not needed' : 'see the provider',
            facts: { target: { entity: entity.key } },
          }
        : await this.#mapped(action.provider, () => withoutGrant(() => action.plan!(context, input)));
    const risk = draft.risk === undefined ? action.risk : higherRisk(action.risk, draft.risk);
    const parameters = input as Record<string, unknown>;
    const {
      safety_snapshot,
      blast_radius = {},
      alternatives = [],
      unknowns = [],
      warnings = [],
      risk: _,
      ...rest
    } = draft;
    const skipped = parameters['safety_snapshot'] === false;
    const possible = safety_snapshot?.possible === true && action.safety !== undefined;
    const state: Plan['safety_snapshot'] = !hasFloor(risk)
      ? { state: 'not_needed' }
      : !possible
        ? { state: 'impossible', reason: safety_snapshot?.reason ?? 'this provider cannot snapshot the target' }
        : skipped
          ? { state: 'skipped', reason: 'the call says safety_snapshot: false' }
          : { state: 'taken' };
    const risks =
      state.state === 'skipped' ? ['No safety snapshot will be taken: there is no way back from this call.'] : [];
    return {
      action: action.name,
      entity: entity.key,
      ...rest,
      risk,
      blast_radius,
      safety_snapshot: state,
      alternatives: alternatives.map((other) =>
        other.call === undefined ? other : { ...other, call: this.#exactCall(entity.key, other.call) },
      ),
      unknowns,
      warnings: [...risks, ...warnings],
    };
  }

  // A provider may leave the entity of a next call to be this one; a call that someone is to make names it.
  #exactCall(entity: string, call: SuggestedCall): SuggestedCall {
    const isOwn = (SHARED_ACTIONS as readonly string[]).includes(call.action);
    const isFleet = !isOwn && this.#options.registry.fleet.some((action) => action.name === call.action);
    return call.entity !== undefined || isFleet ? call : { ...call, entity };
  }

  #connect(key: string): Promise<Connection> {
    let connection = this.#connections.get(key);
    if (connection === undefined) {
      connection = this.#open(key);
      this.#connections.set(key, connection);
      // A missing variable may be there at the next call: failures are not kept.
      connection.catch(() => this.#connections.delete(key));
    }
    return connection;
  }

  async #open(key: string): Promise<Connection> {
    const { base, resolve } = this.#configured(key);
    const provider = this.#provider(base);
    const entity = await resolve();
    const runtime = this.#runtime(entity, provider);
    const client = await this.#mapped(provider, () => withoutGrant(() => provider.connect(entity, runtime)));
    return { entity, client, runtime };
  }

  #provider(entity: EntityBase): Provider {
    const provider = this.#options.registry.entityTypes.get(entity.defines)?.provider;
    if (provider === undefined)
      throw new HoldfastError('CONFIG_INVALID', `${entity.key} is of the unknown type '${entity.defines}'`);
    return provider;
  }

  #runtime(entity: Pick<EntityBase, 'key' | 'endpoint'>, provider: Provider): Runtime {
    const { store, stateDirectory, secrets, redactor, log, now, sleep, random } = this.#options;
    // One account is what shares an address and a provider; it shares one bucket, one breaker, one set of lanes.
    const account = `${provider.id} ${entity.endpoint ?? ''}`;
    let fetch = this.#fetches.get(account);
    if (fetch === undefined) {
      fetch = resilientFetch({
        title: provider.title,
        limits: {
          ...provider.limits,
          per_second: provider.limits.per_second * (this.#options.rateFactor ?? 1),
          burst: provider.limits.burst * (this.#options.rateFactor ?? 1),
        },
        fetch: this.#options.fetch,
        now: () => now().getTime(),
        sleep,
        random: () => random(4).readUInt32BE() / 2 ** 32,
        ...(this.#options.retryBaseMs === undefined ? {} : { base_ms: this.#options.retryBaseMs }),
      });
      this.#fetches.set(account, fetch);
    }
    return {
      version: this.version,
      fetch,
      now,
      sleep,
      random,
      secret: secrets.secret,
      credential: secrets.credential,
      conceal: (value) => redactor.conceal(value),
      assertMayWrite,
      ledger: {
        add: (kind, note) => store.addNote(entity.key, kind, this.#redact(note), now().toISOString()),
        list: (kind, limit = 50) => store.notes(entity.key, kind, limit),
      },
      log,
      workDirectory: async () => {
        const path = join(stateDirectory, 'work', entity.key.replaceAll('/', '~'));
        await mkdir(path, { recursive: true, mode: 0o700 });
        return path;
      },
    };
  }

  async #mapped<T>(provider: Provider, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (cause) {
      if (cause instanceof HoldfastError) throw cause;
      if (isAbort(cause)) throw asHoldfastError(cause);
      throw provider.toError(cause);
    }
  }

  #output(action: AnyAction, output: unknown): unknown {
    const parsed = action.output.safeParse(output);
    if (!parsed.success) {
      throw new HoldfastError('INTERNAL', `${action.name} gave an answer of the wrong shape`, { cause: parsed.error });
    }
    return this.#redact(parsed.data);
  }

  #fleetContext(call: Call): FleetContext {
    return {
      principal: call.principal,
      signal: call.signal ?? new AbortController().signal,
      progress: (progress) => call.onProgress?.(progress),
      entities: () => this.entities(),
      actions: () => this.actions().filter((action): action is Action => action.kind === 'provider'),
      entity: (key) => this.entity(key),
      plan: async (entity, action, input) => {
        const outcome = await this.call({
          principal: call.principal,
          entity,
          action,
          input,
          dryRun: true,
          signal: call.signal,
        });
        if (outcome.kind !== 'plan') {
          throw new HoldfastError('INVALID_PARAMETER', `${action} only reads; it has no plan`, {
            hint: 'Call it directly.',
          });
        }
        const { plan, decision, require } = outcome;
        return { plan, decision, ...(require === undefined ? {} : { require }) };
      },
      confirmed: call.token !== undefined || call.confirmationId !== undefined,
      call: async (entity, action, input) => {
        const { principal, token, confirmationId, dryRun, signal, onProgress, wait } = call;
        const inner = { principal, token, confirmationId, dryRun, signal, onProgress, wait };
        const outcome = await this.call({ ...inner, entity, action, input });
        if (outcome.kind === 'result') return { kind: 'result', output: outcome.output as JsonObject };
        return outcome;
      },
      recoveryOptions: async (key, at) => {
        const { entity, client, runtime } = await this.#connect(key);
        const provider = this.#provider(entity);
        const signal = call.signal ?? new AbortController().signal;
        const context = { client, entity, runtime, signal };
        const options = await this.#mapped(provider, () => provider.recoveryOptions(context, at));
        const took = await this.#durations(entity.key);
        return options.map((option) => {
          const duration_estimate = option.duration_estimate ?? took.get(option.call.action);
          return {
            ...option,
            ...(duration_estimate === undefined ? {} : { duration_estimate }),
            call: this.#exactCall(entity.key, option.call),
          };
        });
      },
      operations: ({ entity, status, limit }) =>
        this.#options.store.operations({
          ...(entity === undefined ? {} : { entity }),
          ...(status === undefined ? {} : { statuses: [status as OperationRecord['status']] }),
          ...(limit === undefined ? {} : { limit }),
        }),
      operation: (id) => this.#operation(id),
      waitOperation: (id, timeoutMs) => this.#waitOperation(id, timeoutMs, call),
      schedule: (entity, name) => this.#options.store.schedule(scheduleKey(entity, name)),
      view: (record) => viewOperation(record, this.sandbox),
      now: this.#options.now,
    };
  }

  /** How long each action last took on an entity, in seconds: the best that is known where the provider does not tell. */
  async #durations(entity: string): Promise<Map<string, number>> {
    const past = await this.#options.store.operations({ entity, statuses: ['succeeded'], limit: 100 });
    const durations = new Map<string, number>();
    for (const { action, created_at, ended_at } of past) {
      if (ended_at === undefined || durations.has(action)) continue;
      durations.set(action, Math.max(1, Math.round((Date.parse(ended_at) - Date.parse(created_at)) / 1000)));
    }
    return durations;
  }

  async #operation(id: string): Promise<OperationRecord> {
    const record = await this.#options.store.operation(id);
    if (record === undefined)
      throw new HoldfastError('OPERATION_NOT_FOUND', `there is no operation '${id.slice(0, 60)}'`);
    if (this.#runner.isOrphan(record)) {
      await this.#adopt(record);
      await this.#runner.wait(id, { until: 'end', timeoutMs: 500 });
      return (await this.#options.store.operation(id)) ?? record;
    }
    return record;
  }

  async #waitOperation(id: string, timeoutMs: number, call: Call): Promise<OperationRecord> {
    const { signal, onProgress } = call;
    let record = await this.#operation(id);
    const own = await this.#runner.wait(id, {
      until: 'end',
      timeoutMs,
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined ? {} : { onProgress }),
    });
    if (own !== undefined) return own;
    const deadline = performance.now() + timeoutMs;
    let shown = '';
    while ((record.status === 'pending' || record.status === 'running') && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 250));
      signal?.throwIfAborted();
      record = await this.#operation(id);
      const step = record.steps.find((candidate) => candidate.status === 'running');
      const line = `${step?.name}: ${step?.message ?? ''}`;
      if (step !== undefined && line !== shown) {
        shown = line;
        onProgress?.({ message: step.message ?? step.name, percent: viewOperation(record, this.sandbox).percent });
      }
    }
    return record;
  }

  async resume(): Promise<ReturnType<typeof viewOperation>[]> {
    const open = await this.#options.store.operations({ statuses: ['pending', 'running'], limit: 1000 });
    const taken: ReturnType<typeof viewOperation>[] = [];
    for (const record of open.filter((candidate) => this.#runner.isOrphan(candidate))) {
      if (await this.#adopt(record)) taken.push(viewOperation(record, this.sandbox));
    }
    return taken;
  }

  async #adopt(record: OperationRecord): Promise<boolean> {
    try {
      const action = this.action(record.action, record.entity);
      if (action.kind !== 'provider' || action.steps === undefined) return false;
      const { entity, client, runtime } = await this.#connect(record.entity);
      const script = this.#script(action, { client, entity, runtime }, record.input, record.plan);
      return await this.#runner.adopt(record, script);
    } catch (cause) {
      this.#options.log.warn('an unfinished operation could not be taken over', {
        operation_id: record.id,
        code: asHoldfastError(cause).code,
      });
      return false;
    }
  }

  providers(): readonly Provider[] {
    return this.#options.registry.providers;
  }

  access({ principal, entity: key, permissions, signal }: AccessRequest): ReturnType<Engine['access']> {
    return this.#look({ principal: principal.id, entity: key, action: 'check-permissions' }, principal, async () => {
      const provider = this.#provider(this.entity(key));
      if (provider.grants === undefined) return undefined;
      const { entity, client, runtime } = await this.#connect(key);
      const context = { client, entity, runtime, signal: signal ?? new AbortController().signal };
      const answer = await this.#mapped(provider, () => withoutGrant(() => provider.grants!(context, permissions)));
      const state = (permission: string): PermissionState =>
        (Object.hasOwn(answer, permission) ? answer[permission] : undefined) ?? 'unknown';
      return Object.fromEntries(permissions.map((permission) => [permission, state(permission)]));
    });
  }

  discover(request: DiscoveryRequest): Promise<Discovery | undefined> {
    const { principal, provider: id, access, endpoint, signal = new AbortController().signal } = request;
    return this.#look({ principal: principal.id, entity: undefined, action: 'discover', target: id }, principal, () => {
      const provider = this.providers().find((candidate) => candidate.id === id);
      if (provider === undefined) {
        throw new HoldfastError('INVALID_PARAMETER', `there is no provider '${id.slice(0, 60)}'`, {
          hint: didYouMean(
            id,
            this.providers().map((candidate) => candidate.id),
          ),
        });
      }
      // No entity can be called this.
      const runtime = this.#runtime({ key: `~discover/${id}`, endpoint }, provider);
      const context = { runtime, access, endpoint, signal };
      return this.#mapped(provider, () => withoutGrant(async () => provider.discover?.(context)));
    });
  }

  async service<T>(
    request: ServiceRequest,
    work: (context: ProviderContext<unknown, unknown>) => Promise<T>,
  ): Promise<T> {
    this.#options.onCall?.();
    try {
      const { entity, client, runtime } = await this.#connect(request.entity);
      const signal = request.signal ?? new AbortController().signal;
      const run = () => work({ client, entity, runtime, signal });
      return await this.#services.run(request, entity.labels, () => this.#mapped(this.#provider(entity), run));
    } catch (cause) {
      throw this.#clean(cause);
    }
  }

  /** Reads on behalf of a surface outside of any action, for a line of the audit trail. */
  async #look<T>(trace: Trace, principal: Principal, work: () => T | Promise<T>): Promise<T> {
    const began = performance.now();
    const record = (event: 'read' | 'refused', outcome: string) =>
      this.#audit
        .append({ event, ...trace, outcome, duration_ms: Math.round(performance.now() - began) }, false)
        .catch((cause: unknown) => {
          this.#options.log.warn('a read was not recorded in the audit trail', { cause: String(cause) });
        });
    try {
      if (principal.roles.length === 0) throw new HoldfastError('POLICY_DENIED', 'this caller has no role');
      const answer = await work();
      await record('read', 'ok');
      return this.#redact(answer);
    } catch (cause) {
      const error = this.#clean(cause);
      await record('refused', error.code);
      throw error;
    }
  }

  confirmations(filter?: Parameters<Engine['confirmations']>[0]): ReturnType<Engine['confirmations']> {
    return this.#guard.confirmations(filter);
  }

  async approve(decision: Decision): ReturnType<Engine['approve']> {
    return this.#guard.approve(decision);
  }

  async deny(decision: Decision): ReturnType<Engine['deny']> {
    return this.#guard.deny(decision);
  }

  async verifyAudit(): Promise<AuditReport> {
    return this.#audit.verify();
  }

  recentAudit(limit: number): JsonObject[] {
    return this.#audit.recent(limit);
  }

  async close(): Promise<void> {
    await this.#runner.close();
    for (const [key, pending] of this.#connections) {
      const connection = await pending.catch(() => undefined);
      if (connection !== undefined)
        await this.#provider(this.entity(key))
          .dispose?.(connection.client)
          .catch(() => undefined);
    }
    await this.#options.onClose?.();
    await this.#options.store.close();
  }

  #redact<T>(value: T): T {
    return this.#options.redactor.redactJson(value) as T;
  }

  #clean(cause: unknown): HoldfastError {
    const error = asHoldfastError(cause);
    if (error.code === 'INTERNAL')
      this.#options.log.error(error.message, { cause: describeCause(error.cause ?? cause) });
    const { redactor } = this.#options;
    const { confirmation, ...details } = (error.details ?? {}) as { confirmation?: JsonObject };
    return new HoldfastError(error.code, redactor.redactText(error.message), {
      hint: redactor.redactText(error.hint),
      retryable: error.retryable,
      // The confirmation holds the token that the caller is to get; the redactor would mask it.
      details:
        error.details === undefined
          ? undefined
          : { ...this.#redact(details), ...(confirmation === undefined ? {} : { confirmation }) },
      provider: error.provider === undefined ? undefined : this.#redact(error.provider),
      cause: error.cause,
    });
  }

  async #auditOperation(record: OperationRecord, event: 'result' | 'recovered'): Promise<void> {
    await this.#audit.append(
      {
        event,
        principal: record.principal,
        entity: record.entity,
        action: record.action,
        risk: record.risk,
        target: record.target,
        operation_id: record.id,
        confirmation_id: record.confirmation_id,
        outcome: record.status === 'succeeded' ? 'ok' : String(record.error?.['code'] ?? record.status),
        provider_request_id: (record.error?.['provider'] as { request_id?: string } | undefined)?.request_id,
        ...(event === 'result' && record.ended_at !== undefined
          ? { duration_ms: Date.parse(record.ended_at) - Date.parse(record.created_at) }
          : {}),
        ...(this.sandbox ? { sandbox: true as const } : {}),
      },
      true,
    );
  }
}

interface Trace {
  principal: Principal['id'];
  entity: string | undefined;
  action: string;
  risk?: string;
  target?: string;
  input_sha256?: string;
  decision?: string;
  rule?: string;
  confirmation_id?: string | undefined;
  operation_id?: string;
  admitted?: boolean;
}

function auditable({ admitted: _, ...trace }: Trace): Omit<Trace, 'admitted'> {
  return trace;
}

function describeCause(cause: unknown): string {
  return cause instanceof Error ? `${cause.name}: ${cause.message}\n${cause.stack ?? ''}` : String(cause);
}
