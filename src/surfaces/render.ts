import { z } from 'zod';
import type { HoldfastError } from '../core/errors.ts';
import { isObject, type JsonObject } from '../core/json.ts';
import type { FactDifference, Plan, SuggestedCall } from '../core/plan.ts';
import { OperationView, type OperationView as OperationViewType } from '../core/schemas.ts';
import { formatBytes, formatDuration } from '../core/time.ts';
import type { ConfirmationDetails, Outcome } from '../engine/api.ts';

export interface RenderOptions {
  /** Writes a call in the words of the surface: a tool call, a command line, a request. */
  readonly call?: ((call: SuggestedCall) => string) | undefined;
  /** Widest table in characters; a wider one becomes one block a row. 160 when left out. */
  readonly width?: number | undefined;
}

/** Writes any outcome of a call as plain text for a person or a model: complete, without colours, lines ended by `\n` only between them. */
export function renderOutcome(outcome: Outcome, options: RenderOptions = {}): string {
  switch (outcome.kind) {
    case 'result': {
      const operation = OperationView.safeParse(outcome.output);
      return operation.success ? renderOperation(operation.data, options) : renderValue(outcome.output, options);
    }
    case 'operation':
      return renderOperation(outcome.operation, options);
    case 'plan':
      return [renderPlan(outcome.plan, options), '', decisionLine(outcome.decision, outcome.require)].join('\n');
  }
}

function decisionLine(decision: 'allow' | 'confirm' | 'deny', require: string | undefined): string {
  if (decision === 'allow') return 'Nothing was run. Policy would let this call run without a confirmation.';
  if (decision === 'deny') return 'Nothing was run. Policy forbids this call.';
  return `Nothing was run. This call needs a confirmation (${REQUIREMENTS[require ?? ''] ?? require ?? 'human'}).`;
}

const REQUIREMENTS: Record<string, string> = {
  human: 'a person who types the name of the target',
  token: 'the same call again with the token',
  'two-people': 'a person other than the caller, who types the name of the target',
};

/** Writes a plan as a person reads it before deciding: what is lost comes before everything else. */
export function renderPlan(plan: Plan, options: RenderOptions = {}): string {
  const safety = {
    taken: 'taken first, and waited for',
    skipped: 'SKIPPED because the call asks for none',
    impossible: 'impossible',
    not_needed: 'not needed',
  }[plan.safety_snapshot.state];
  const newest = plan.newest_recovery_point;
  const lines = [
    `Plan: ${plan.action}${plan.entity === undefined ? '' : ` on ${plan.entity}`}, risk ${plan.risk}`,
    `Target: ${plan.target}`,
    ...(plan.source === undefined ? [] : [`Source: ${plan.source}`]),
    `Loses: ${plan.loses}`,
    ...(plan.since === undefined ? [] : [`Loses everything written since: ${plan.since}`]),
    ...(Object.keys(plan.blast_radius).length === 0 ? [] : [`Reaches: ${inline(plan.blast_radius)}`]),
    ...(plan.last_restorable === true ? ['Deletes the LAST restorable snapshot of this entity.'] : []),
    ...(newest === undefined
      ? []
      : [`Newest recovery point: ${newest.id === undefined ? '' : `${newest.id}, `}${newest.at}`]),
    `Safety snapshot: ${safety}${plan.safety_snapshot.reason === undefined ? '' : ` (${plan.safety_snapshot.reason})`}`,
    `Undo: ${plan.undo}`,
    ...(plan.duration_estimate === undefined ? [] : [`Takes about: ${formatDuration(plan.duration_estimate)}`]),
    ...plan.warnings.map((warning) => `Warning: ${warning}`),
    ...plan.unknowns.map((unknown) => `Not known: ${unknown}`),
    ...plan.alternatives.map(
      (other) =>
        `Safer way (risk ${other.risk}): ${other.title}${other.call === undefined ? '' : `: ${renderCall(other.call, options)}`}`,
    ),
    `Approval rests on: ${inline(plan.facts)}`,
  ];
  return lines.map(oneLine).join('\n');
}

/** Writes a call that someone can make next. */
export function renderCall(call: SuggestedCall, options: RenderOptions = {}): string {
  if (options.call !== undefined) return options.call(call);
  return `${call.action}${call.entity === undefined ? '' : ` on ${call.entity}`} ${JSON.stringify(call.input)}`;
}

// Refusals that come before anything but reads has left the process.
const NOTHING_RAN: ReadonlySet<string> = new Set([
  'CONFIRMATION_REQUIRED',
  'CONFIRMATION_PENDING',
  'CONFIRMATION_INVALID',
  'CONFIRMATION_EXPIRED',
  'CONFIRMATION_USED',
  'CONFIRMATION_MISMATCH',
  'CONFIRMATION_DENIED',
  'POLICY_DENIED',
  'ENTITY_NOT_FOUND',
]);

/** What a guard's error carries in its details: all of it when a confirmation was opened, parts of it otherwise. */
export interface CarriedByError {
  readonly plan?: Plan | undefined;
  readonly confirmation?: Partial<ConfirmationDetails['confirmation']> | undefined;
  /** The other details. */
  readonly rest: JsonObject;
}

/** Takes the plan and the confirmation out of an error's details. */
export function carriedBy(error: HoldfastError): CarriedByError {
  const { plan, confirmation, ...rest } = error.details ?? {};
  return {
    ...(isObject(plan) ? { plan: plan as unknown as Plan } : {}),
    ...(isObject(confirmation) ? { confirmation } : {}),
    rest: {
      ...rest,
      ...(plan === undefined || isObject(plan) ? {} : { plan }),
      ...(confirmation === undefined || isObject(confirmation) ? {} : { confirmation }),
    },
  };
}

/** Gives the plan and the confirmation of an error that has just opened one; undefined for every other error. */
export function confirmationOf(error: HoldfastError): ConfirmationDetails | undefined {
  if (error.code !== 'CONFIRMATION_REQUIRED' && error.code !== 'PLAN_CHANGED') return undefined;
  const { plan, confirmation } = carriedBy(error);
  return plan === undefined || confirmation?.id === undefined
    ? undefined
    : { plan, confirmation: confirmation as ConfirmationDetails['confirmation'] };
}

/** Writes an error: what happened, what was left alone, what to do next, and the plan where the error carries one. */
export function renderError(error: HoldfastError, options: RenderOptions = {}): string {
  const { plan, confirmation, rest } = carriedBy(error);
  const { outcome, differences, permissions, policy, ...others } = rest;
  const lines = [`${error.code}: ${error.message}`];
  if (outcome === 'unknown') {
    lines.push('It is NOT known whether the change arrived. Read the state of the target before calling again.');
  } else if (NOTHING_RAN.has(error.code) || (error.code === 'PLAN_CHANGED' && plan !== undefined)) {
    // Without a new plan it is an operation that stopped half-way, after its safety snapshot.
    if (!error.hint.startsWith('Nothing was')) lines.push('Nothing was run; nothing was changed.');
  } else if (outcome === 'not_sent') lines.push('Nothing was changed.');
  else if (outcome !== undefined) lines.push(`Outcome: ${scalar(outcome)}`);
  lines.push(error.hint);
  if (error.retryable) lines.push('The same call may succeed later.');
  if (Array.isArray(differences)) {
    for (const difference of differences as unknown as FactDifference[]) {
      lines.push(`Changed: ${difference.path}: ${scalar(difference.before)} -> ${scalar(difference.after)}`);
    }
  }
  if (inline(others) !== '') lines.push(`Details: ${inline(others)}`);
  if (error.provider !== undefined && inline(error.provider) !== '') lines.push(`Provider: ${inline(error.provider)}`);
  lines.push(...neededLines(permissions, policy));
  const blocks = [lines.map(oneLine).join('\n')];
  if (plan !== undefined) blocks.push(renderPlan(plan, options));
  if (confirmation !== undefined) blocks.push(renderConfirmation(confirmation));
  return blocks.join('\n\n');
}

/** What a refusal says about the permissions that were needed, the policy line by line so that it can be pasted. */
function neededLines(permissions: unknown, policy: unknown): string[] {
  return [
    ...(permissions === undefined ? [] : [`Needs: ${inlineMember(permissions)}`]),
    ...(policy === undefined
      ? []
      : [
          'Policy:',
          ...(typeof policy === 'string' ? policy : inlineMember(policy)).split('\n').map((line) => `  ${line}`),
        ]),
  ];
}

function renderConfirmation(confirmation: NonNullable<CarriedByError['confirmation']>): string {
  const { code, token, require, expires_at, approve_with } = confirmation;
  const facts = [
    ...(code === undefined ? [] : [`code ${code}`]),
    ...(token === undefined ? [] : [`confirmation_token ${token}`]),
    ...(expires_at === undefined ? [] : [`until ${expires_at}`]),
    ...(require === undefined ? [] : [`needs ${REQUIREMENTS[require] ?? require}`]),
  ];
  return [`Confirmation: ${facts.join(', ')}`, ...(approve_with === undefined ? [] : [`Approve with: ${approve_with}`])]
    .map(oneLine)
    .join('\n');
}

/** Writes an operation: its state, its steps, its result, how to go back. */
export function renderOperation(operation: OperationViewType, options: RenderOptions = {}): string {
  const percent = operation.percent === undefined ? '' : ` (${Math.round(operation.percent)} %)`;
  const lines = [
    `Operation ${operation.operation_id}: ${operation.status}${percent}${operation.sandbox === true ? ' [sandbox]' : ''}`,
    `${operation.action}${operation.entity === '' ? '' : ` on ${operation.entity}`}${operation.target === undefined ? '' : `, target ${operation.target}`}, started ${operation.started_at}${operation.ended_at === undefined ? '' : `, ended ${operation.ended_at}`}`,
    ...operation.steps.map((step) => {
      const share = step.percent === undefined || step.status !== 'running' ? '' : ` ${Math.round(step.percent)} %`;
      return `  ${step.name}: ${step.status}${share}${step.message === undefined ? '' : `, ${step.message}`}`;
    }),
  ].map(oneLine);
  if (operation.result !== undefined) lines.push('Result:', indent(renderValue(operation.result, options)));
  if (operation.error !== undefined) {
    const { code, message, hint, retryable: _retryable, details = {}, ...others } = operation.error;
    const { permissions, policy, ...rest } = details as JsonObject;
    lines.push(oneLine(`Error ${code}: ${message}`), oneLine(hint));
    const told = inline({ ...others, details: rest });
    if (told !== '') lines.push(oneLine(`Details: ${told}`));
    lines.push(...neededLines(permissions, policy).map(oneLine));
  }
  if (operation.undo !== undefined) lines.push('Undo:', indent(renderValue(operation.undo, options)));
  if (operation.status === 'pending' || operation.status === 'running') {
    const next = { action: 'wait-operation', input: { operation_id: operation.operation_id } };
    lines.push(`Not over yet. Next: ${renderCall(next, options)}`);
  }
  return lines.join('\n');
}

/** Writes any JSON value: objects as `key: value` lines, lists of objects as tables, nothing left out. */
export function renderValue(value: unknown, options: RenderOptions = {}): string {
  if (Array.isArray(value)) return renderList(value, options);
  if (!isObject(value)) return scalar(value);
  const entries = Object.entries(value).filter(([, member]) => member !== undefined);
  if (entries.length === 0) return '(nothing)';
  return entries
    .map(([key, member]) => {
      if (Array.isArray(member) && member.length > 0) {
        return member.every((item) => !isObject(item) && !Array.isArray(item))
          ? plainList(key, member)
          : `${key} (${member.length}):\n${indent(renderList(member, options))}`;
      }
      if (isCall(member)) return `${key}: ${renderCall(member, options)}`;
      if (isPlan(member)) return `${key}:\n${indent(renderPlan(member, options))}`;
      if (isObject(member) && Object.keys(member).length > 0) {
        const short = inline(member);
        return isFlat(member) && short.length <= 100
          ? `${key}: ${short}`
          : `${key}:\n${indent(renderValue(member, options))}`;
      }
      return `${key}: ${quantity(key, member)}`;
    })
    .join('\n');
}

function plainList(key: string, items: readonly unknown[]): string {
  const short = items.map(scalar).join(', ');
  // Sentences are read one a line, names on one.
  return short.length <= 100 && !items.some((item) => typeof item === 'string' && item.includes(' '))
    ? `${key}: ${short}`
    : `${key}:\n${items.map((item) => `  - ${scalar(item)}`).join('\n')}`;
}

function renderList(items: readonly unknown[], options: RenderOptions): string {
  if (items.length === 0) return '(none)';
  if (!items.every(isObject))
    return items.map((item) => `- ${isObject(item) ? inline(item) : scalar(item)}`).join('\n');
  return renderTable(items as readonly Record<string, unknown>[], options);
}

/**
 * Writes rows as a table, columns in the order of their first appearance and left out where every row lacks them.
 * Members that are objects or lists follow their row, indented.
 */
export function renderTable(rows: readonly Record<string, unknown>[], options: RenderOptions = {}): string {
  if (rows.length === 0) return '(none)';
  const keys = [...new Set(rows.flatMap((row) => Object.keys(row).filter((key) => row[key] !== undefined)))];
  // A member that is a plain value in some rows stays in its column in the others too.
  const nested = keys.filter((key) => {
    const members = rows.map((row) => row[key]).filter((member) => member !== undefined && member !== null);
    return members.length > 0 && members.every((member) => typeof member === 'object');
  });
  const columns = keys.filter((key) => !nested.includes(key));
  const below = (row: Record<string, unknown>): string[] =>
    nested
      .filter((key) => row[key] !== undefined)
      .map((key) => {
        const member = row[key];
        if (isCall(member)) return `${key}: ${renderCall(member, options)}`;
        if (isPlan(member)) return `${key}:\n${indent(renderPlan(member, options))}`;
        if (isLongList(member)) return `${key}:\n${indent(renderTable(member, options))}`;
        return `${key}: ${Array.isArray(member) ? member.map(inlineMember).join('; ') || '(none)' : inlineMember(member)}`;
      });
  const cells = rows.map((row) => columns.map((key) => inlineMember(row[key])));
  const widths = columns.map((key, at) => Math.max(key.length, ...cells.map((line) => line[at]!.length)));
  const total = widths.reduce((sum, width) => sum + width + 2, 0);
  if (columns.length === 0 || total > (options.width ?? 160)) {
    return rows
      .map((row) =>
        [
          ...columns.filter((key) => row[key] !== undefined).map((key) => `${key}: ${quantity(key, row[key])}`),
          ...below(row),
        ]
          .flatMap((text) => text.split('\n'))
          .map((line, at) => `${at === 0 ? '- ' : '  '}${line}`)
          .join('\n'),
      )
      .join('\n');
  }
  const write = (line: readonly string[]): string =>
    line
      .map((cell, at) => cell.padEnd(widths[at]!))
      .join('  ')
      .trimEnd();
  return [
    write(columns),
    ...cells.flatMap((line, at) => [write(line), ...below(rows[at]!).map((text) => indent(indent(text)))]),
  ].join('\n');
}

/** Whether members of a row are too much for one line. */
function isLongList(value: unknown): value is readonly Record<string, unknown>[] {
  if (!Array.isArray(value) || value.length === 0 || !value.every(isObject)) return false;
  return value.map(inlineMember).join('; ').length > 100;
}

function isCall(value: unknown): value is SuggestedCall {
  if (!isObject(value) || typeof value['action'] !== 'string' || !isObject(value['input'])) return false;
  return Object.keys(value).every((key) => key === 'entity' || key === 'action' || key === 'input');
}

// What `renderPlan` reads: an output of another shape that only looks like a plan is written member by member.
const PlanShape = z.looseObject({
  action: z.string(),
  risk: z.string(),
  target: z.string(),
  loses: z.string(),
  undo: z.string(),
  blast_radius: z.looseObject({}),
  safety_snapshot: z.looseObject({ state: z.enum(['taken', 'skipped', 'impossible', 'not_needed']) }),
  alternatives: z.array(z.looseObject({ title: z.string(), risk: z.string() })),
  unknowns: z.array(z.string()),
  warnings: z.array(z.string()),
  facts: z.looseObject({}),
});

function isPlan(value: unknown): value is Plan {
  return isObject(value) && 'safety_snapshot' in value && PlanShape.safeParse(value).success;
}

function isFlat(record: Record<string, unknown>): boolean {
  return Object.values(record).every((member) => typeof member !== 'object' || member === null);
}

/** Writes an object on one line, nested members by dotted path. */
function inline(record: unknown, path = ''): string {
  if (!isObject(record)) return scalar(record);
  return Object.entries(record)
    .filter(([, member]) => member !== undefined)
    .map(([key, member]) => {
      const name = path === '' ? key : `${path}.${key}`;
      if (isObject(member)) return Object.keys(member).length === 0 ? '' : inline(member, name);
      if (Array.isArray(member)) return `${name}=[${member.map(inlineMember).join(', ')}]`;
      return `${name}=${quantity(key, member)}`;
    })
    .filter((text) => text !== '')
    .join(', ');
}

function inlineMember(member: unknown): string {
  if (Array.isArray(member)) return `[${member.map(inlineMember).join(', ')}]`;
  return isObject(member) ? inline(member) : scalar(member);
}

function quantity(key: string, value: unknown): string {
  if (isObject(value)) return inline(value);
  if (typeof value === 'number' && Number.isFinite(value)) {
    if (key.endsWith('_bytes') && value >= 1024) return formatBytes(value, true);
    if (key === 'duration_estimate') return `${value} s (${formatDuration(value)})`;
    if (key.endsWith('_seconds') && value >= 60) return `${value} (${formatDuration(value)})`;
  }
  return scalar(value);
}

function scalar(value: unknown): string {
  // A dash, because null means "not told" in one place and "none" in another.
  if (value === undefined || value === null) return '-';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value === 'object') return Array.isArray(value) && value.length === 0 ? '(none)' : JSON.stringify(value);
  return value === '' ? '(empty)' : oneLine(String(value));
}

// A line break inside a value could pass for a line of ours.
function oneLine(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').trimEnd();
}

function indent(text: string): string {
  return text.replace(/^/gm, '  ');
}
