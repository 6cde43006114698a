import { z } from 'zod';
import { defineFleetAction, type FleetContext } from '../src/core/action.ts';
import type { EntityBase } from '../src/core/context.ts';
import { asHoldfastError, HoldfastError, isAbort } from '../src/core/errors.ts';
import {
  AppliedSettings,
  ErrorView,
  JobStatus,
  OperationView,
  ProviderFacts,
  SettingsCheck,
  Timestamp,
} from '../src/core/schemas.ts';
import { formatDuration, parseInstant, toTimestamp } from '../src/core/time.ts';

const RiskName = z.string();

const ScheduleRow = z.object({
  name: z.string(),
  action: z.string(),
  cron: z.string(),
  timezone: z.string(),
  /** How the last run ended, `running`, `never_run` or `disabled`. */
  state: z.string(),
  ended_at: Timestamp.optional(),
  problem: z.string().optional(),
  consecutive_failures: z.number().optional(),
});

export const listDatabases = defineFleetAction({
  name: 'list-databases',
  title: 'List the configured databases',
  summary: 'Lists every configured database with its type and the actions it has. Start here.',
  input: z.object({}),
  output: z.object({
    databases: z.array(
      z.object({
        entity: z.string(),
        type: z.string(),
        provider: z.string(),
        labels: z.record(z.string(), z.string()).optional(),
        actions: z.array(z.string()),
        schedules: z.array(ScheduleRow).optional(),
      }),
    ),
  }),
  errors: [],
  example: {},
  async run(context) {
    const { entities, actions } = context;
    return {
      databases: await Promise.all(
        entities().map(async (entity) => ({
          entity: entity.key,
          type: entity.defines,
          provider: entity.provider,
          ...(Object.keys(entity.labels).length === 0 ? {} : { labels: { ...entity.labels } }),
          actions: actions()
            .filter((action) => action.on.includes(entity.defines))
            .map((action) => action.name),
          ...(entity.schedules === undefined ? {} : { schedules: await scheduleRows(context, entity) }),
        })),
      ),
    };
  },
});

function scheduleRows({ schedule }: FleetContext, { key, schedules = [] }: EntityBase) {
  return Promise.all(
    schedules.map(async ({ name, action, cron, timezone, enabled }) => {
      // A list is answered where the state is away, too.
      const { running, last, consecutive_failures = 0 } = (await schedule(key, name).catch(() => undefined)) ?? {};
      return {
        name,
        action,
        cron,
        timezone,
        state: enabled ? (running === undefined ? (last?.state ?? 'never_run') : 'running') : 'disabled',
        ...(last === undefined ? {} : { ended_at: last.ended_at }),
        ...(last?.message === undefined ? {} : { problem: last.message }),
        ...(consecutive_failures === 0 ? {} : { consecutive_failures }),
      };
    }),
  );
}

const SuggestedCall = z.object({ entity: z.string().optional(), action: z.string(), input: ProviderFacts });

export const findRecoveryOptions = defineFleetAction({
  name: 'find-recovery-options',
  title: 'Find every way to get data back',
  summary:
    'Every way back for a database, best first: what it loses, its risk, the exact next call. Data lost? Call this first.',
  input: z.object({
    entity: z.string(),
    at: z.union([z.string(), z.number()]).optional().describe('moment to get back to'),
  }),
  output: z.object({
    entity: z.string(),
    at: Timestamp.optional(),
    options: z.array(
      z.object({
        title: z.string(),
        moment: Timestamp,
        loses: z.string(),
        risk: RiskName,
        duration_estimate: z.number().optional(),
        call: SuggestedCall,
      }),
    ),
    advice: z.string(),
  }),
  errors: ['ENTITY_NOT_FOUND', 'INVALID_PARAMETER'],
  example: { entity: '$entity' },
  async run({ entity: find, recoveryOptions, now }, { entity, at }) {
    const { key } = find(entity);
    const moment = at === undefined ? undefined : parseInstant(at, 'at');
    if (moment !== undefined && moment.getTime() > now().getTime()) {
      throw new HoldfastError('INVALID_PARAMETER', 'at lies in the future', {
        hint: 'Give the last moment at which the data was good.',
      });
    }
    const found = await recoveryOptions(key, moment);
    const options = found.map((option) => ({ ...option, call: { ...option.call, entity: option.call.entity ?? key } }));
    const safe = options.find((option) => option.risk === 'create');
    return {
      entity: key,
      ...(moment === undefined ? {} : { at: toTimestamp(moment) }),
      options,
      advice:
        options.length === 0
          ? 'Holdfast sees no way back for this database: nothing restorable was found. Look for copies outside, and stop whatever overwrites the data.'
          : safe === undefined
            ? 'Every way back writes into something that exists. Look at the plan, and take a snapshot of the present state first.'
            : `Restore beside the live database first ("${safe.title}"), look at it, then decide. Its data is ${formatDuration((now().getTime() - Date.parse(safe.moment)) / 1000)} old.`,
    };
  },
});

export const plan = defineFleetAction({
  name: 'plan',
  title: 'Show what a call would do',
  summary: 'Dry run of any call that changes something: target, what is lost, risk, undo, safer ways. Changes nothing.',
  input: z.object({ entity: z.string(), action: z.string(), input: z.record(z.string(), z.unknown()).optional() }),
  output: z.object({ decision: z.string(), require: z.string().optional(), plan: ProviderFacts }),
  errors: ['ENTITY_NOT_FOUND', 'INVALID_PARAMETER'],
  example: { entity: '$entity', action: 'create-snapshot', input: {} },
  async run(context, { entity, action, input }) {
    const { key } = context.entity(entity);
    const made = await context.plan(key, action, (input ?? {}) as never);
    return { ...made, plan: { ...made.plan } };
  },
});

export const getOperation = defineFleetAction({
  name: 'get-operation',
  title: 'Look at an operation',
  summary: 'The state of work that a call started: steps, progress, result, how to undo it.',
  input: z.object({ operation_id: z.string() }),
  output: OperationView,
  errors: ['OPERATION_NOT_FOUND'],
  example: { operation_id: '$operation' },
  async run({ operation, view }, { operation_id }) {
    return view(await operation(operation_id));
  },
});

export const waitOperation = defineFleetAction({
  name: 'wait-operation',
  title: 'Wait for an operation',
  summary: 'Waits until an operation is over or the time has passed, with progress. Call again while it is running.',
  input: z.object({
    operation_id: z.string(),
    timeout_seconds: z.number().int().min(1).max(600).optional(),
  }),
  output: OperationView,
  errors: ['OPERATION_NOT_FOUND', 'CANCELLED'],
  example: { operation_id: '$operation', timeout_seconds: 30 },
  async run({ waitOperation: wait, view }, { operation_id, timeout_seconds }) {
    return view(await wait(operation_id, (timeout_seconds ?? 50) * 1000));
  },
});

export const listOperations = defineFleetAction({
  name: 'list-operations',
  title: 'List operations',
  summary: 'Work that calls started, newest first, by entity or status: what runs, what failed.',
  input: z.object({
    entity: z.string().optional(),
    status: JobStatus.optional(),
    limit: z.number().int().min(1).max(500).optional(),
  }),
  output: z.object({ operations: z.array(OperationView) }),
  errors: [],
  example: {},
  async run({ operations, view }, { entity, status, limit }) {
    const records = await operations({
      ...(entity === undefined ? {} : { entity }),
      ...(status === undefined ? {} : { status }),
      limit: limit ?? 20,
    });
    return { operations: records.map(view) };
  },
});

/** The entities that a call is about: the one that it names, else all that declare settings. */
function chosen({ entity: find, entities, actions }: FleetContext, name: string | undefined, action: string): string[] {
  if (name !== undefined) return [find(name).key];
  const able = new Set(actions().flatMap((one) => (one.name === action ? one.on : [])));
  return entities().flatMap(({ key, defines }) => (able.has(defines) ? [key] : []));
}

/** What one entity's share of a call across all of them failed with; of a call about one entity it is the answer. */
function failureOf(cause: unknown, isOnly: boolean): z.output<typeof ErrorView> {
  if (isOnly || isAbort(cause)) throw cause;
  const { details, ...error } = asHoldfastError(cause).toJson();
  const { confirmation } = (details ?? {}) as { confirmation?: { code?: string; approve_with?: string } };
  // The token of one entity's confirmation is asked for by a call about that entity alone.
  const code = confirmation?.code;
  return { ...error, ...(code === undefined ? {} : { details: { approval_code: code } }) } as z.output<
    typeof ErrorView
  >;
}

export const checkSettings = defineFleetAction({
  name: 'check-settings',
  title: 'Hold declared backup settings against the providers',
  summary: 'Drift of backup settings: declared, actual, verdict, and what applying would do. One database, or all.',
  input: z.object({ entity: z.string().optional() }),
  output: z.object({
    in_line: z.boolean(),
    databases: z.array(z.object({ entity: z.string(), ...SettingsCheck.partial().shape, error: ErrorView.optional() })),
  }),
  errors: ['ENTITY_NOT_FOUND', 'NOT_SUPPORTED'],
  example: {},
  async run(context, { entity }) {
    const keys = chosen(context, entity, 'check-settings');
    const databases = await Promise.all(
      keys.map(async (key) => {
        try {
          const answer = await context.call(key, 'check-settings', {});
          return {
            entity: key,
            ...(answer.kind === 'result' ? (answer.output as z.output<typeof SettingsCheck>) : {}),
          };
        } catch (cause) {
          return { entity: key, error: failureOf(cause, entity !== undefined) };
        }
      }),
    );
    return { in_line: databases.every((one) => 'in_line' in one && one.in_line === true), databases };
  },
});

export const applySettings = defineFleetAction({
  name: 'apply-settings',
  title: 'Make backup settings as declared',
  summary:
    'Gives backup settings their declared values: one database, or all. What lowers protection is planned and waits for a person.',
  risk: 'change',
  upTo: 'weaken',
  input: z.object({ entity: z.string().optional(), settings: z.array(z.string()).min(1).optional() }),
  output: z.object({
    databases: z.array(
      z.object({
        entity: z.string(),
        status: JobStatus.optional(),
        operation_id: z.string().optional(),
        ...AppliedSettings.partial().shape,
        /** What is not as declared and cannot be applied. */
        notes: z.array(z.string()).optional(),
        plan: ProviderFacts.optional(),
        error: ErrorView.optional(),
      }),
    ),
  }),
  errors: ['ENTITY_NOT_FOUND', 'NOT_SUPPORTED', 'INVALID_PARAMETER'],
  example: {},
  async run(context, { entity, settings }) {
    if (entity === undefined && (settings !== undefined || context.confirmed)) {
      throw new HoldfastError(
        'INVALID_PARAMETER',
        `${settings === undefined ? 'a confirmation' : "'settings'"} is about one database, and the call names none`,
        { hint: 'Name the entity.' },
      );
    }
    const databases = [];
    // One after the other: whoever stops it knows what was done.
    for (const key of chosen(context, entity, 'apply-settings')) {
      try {
        // Of many most are as declared: they need no operation that does nothing.
        const { plan: made } =
          entity === undefined ? await context.plan(key, 'apply-settings', {}) : { plan: undefined };
        if (made !== undefined && Object.keys(made.blast_radius).length === 0) {
          databases.push({ entity: key, applied: [], ...(made.warnings.length === 0 ? {} : { notes: made.warnings }) });
          continue;
        }
        const answer = await context.call(key, 'apply-settings', settings === undefined ? {} : { settings });
        if (answer.kind === 'plan') databases.push({ entity: key, plan: { ...answer.plan } });
        if (answer.kind === 'operation') {
          const { operation_id, status, result } = answer.operation;
          databases.push({ entity: key, status, operation_id, ...(result as z.output<typeof AppliedSettings>) });
        }
      } catch (cause) {
        databases.push({ entity: key, error: failureOf(cause, entity !== undefined) });
      }
    }
    return { databases };
  },
});
