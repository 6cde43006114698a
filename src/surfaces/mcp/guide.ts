import type { Action } from '../../core/action.ts';
import type { EntityBase } from '../../core/context.ts';
import { ERROR_CODES } from '../../core/errors.ts';
import type { SuggestedCall } from '../../core/plan.ts';
import type { Provider, ProviderGuide } from '../../core/provider.ts';
import { isGuarded } from '../../core/risk.ts';
import { formatDuration } from '../../core/time.ts';
import type { Engine } from '../../engine/api.ts';
import { exampleInput } from '../example.ts';
import { cell, table } from '../markdown.ts';
import { riskText } from '../parameters.ts';
import { type RenderOptions, renderCall } from '../render.ts';
import type { ToolSet } from '../tool-set.ts';
import { type CallParts, renderOptions } from './call.ts';
import { toolName } from './tools.ts';

/** What the markers of an action's example stand for, as a model is to read them. */
export const EXAMPLE_WORDS: Readonly<Record<string, string>> = {
  $newest: '<id of a snapshot>',
  $latest: '<moment, RFC 3339 UTC>',
  $operation: '<operation_id>',
};

/** Gives the providers of the configured databases, in the order of their actions. */
export function providersOf(engine: Engine): Provider[] {
  const used = new Set(engine.entities().map(({ provider }) => provider));
  const found = engine.actions().flatMap((action) => (action.kind === 'provider' ? [action.provider] : []));
  return [...new Set(found)].filter(({ id }) => used.has(id));
}

/** Writes what to know of a provider, from its declarations and, where it has one, its guide; Markdown. */
export async function renderGuide(parts: Pick<CallParts, 'engine' | 'toolSet'>, provider: Provider): Promise<string> {
  const { engine, toolSet } = parts;
  const guide = await provider.guide?.();
  const entities = engine.entities().filter((entity) => entity.provider === provider.id);
  const actions = engine
    .actions()
    .filter((action): action is Action => action.kind === 'provider' && action.provider === provider);
  const sections = [
    `# ${provider.title}: what to know before relying on it`,
    ...(engine.sandbox ? ['This is the sandbox: nothing real can be lost.'] : []),
    section('Configured here', databases(entities)),
    section('How it behaves', bullets(guide?.behaviour ?? [])),
    section('Limits', bullets([...(guide?.limits ?? []), ownLimits(provider)])),
    section('What can be done', actionTable(actions, toolSet)),
    section('What cannot be done, and what to use instead', cannotList(provider)),
    section('Settings that an entity can declare', settings(provider)),
    ...(guide === undefined ? [] : access(guide, actions, entities)),
    section('Errors', errorTable(actions)),
    section('From data loss to data, as exact calls', workedExample(entities, actions, renderOptions(parts))),
  ];
  return `${sections.filter((part) => part !== '').join('\n\n')}\n`;
}

function section(title: string, body: string): string {
  return body === '' ? '' : `## ${title}\n\n${body}`;
}

function bullets(lines: readonly string[]): string {
  return lines.map((line) => `- ${line}`).join('\n');
}

function databases(entities: readonly EntityBase[]): string {
  return bullets(entities.map(({ key, defines }) => `\`${key}\` (${defines})`));
}

function ownLimits({ limits }: Provider): string {
  const { per_second, burst, concurrent, timeout_ms } = limits;
  return `Holdfast sends one account at most ${per_second} requests a second (${burst} in a burst) and ${concurrent} at once, and gives a request up after ${formatDuration(timeout_ms / 1000)}.`;
}

function actionTable(actions: readonly Action[], toolSet: ToolSet): string {
  const whole = toolSet === 'all';
  const rows = actions.map((action) => [
    `\`${action.name}\``,
    ...(whole ? [`\`${toolName(action)}\``] : []),
    riskText(action),
    cell(isGuarded(action.upTo) ? `${action.summary} Guarded.` : action.summary),
  ]);
  return table(['action', ...(whole ? ['tool'] : []), 'risk', ''], rows);
}

function cannotList({ cannot }: Provider): string {
  return bullets(Object.entries(cannot).map(([action, reason]) => `\`${action}\`: ${reason}`));
}

function settings({ settings: declared }: Provider): string {
  if (declared === undefined) return '';
  const rows = Object.entries(declared.about).map(([name, about]) => [`\`${name}\``, cell(about)]);
  return `\`check-settings\` holds them against the provider, \`apply-settings\` makes them so.\n\n${table(['parameter', ''], rows)}`;
}

function access(guide: ProviderGuide, actions: readonly Action[], entities: readonly EntityBase[]): string[] {
  const rows = Object.entries(guide.permissions).map(([action, needed]) => [
    action === '*' ? 'all' : `\`${action}\``,
    needed.map((permission) => `\`${cell(permission)}\``).join(', ') || 'nothing',
  ]);
  const names = new Set(actions.map(({ name }) => name));
  const all = Object.entries(guide.permissions)
    .filter(([action]) => action === '*' || names.has(action))
    .flatMap(([, needed]) => needed);
  // A policy names one resource; with several databases it is written for all that the account has.
  const [only, second] = entities;
  const policy = guide.policy([...new Set(all)], second === undefined ? only?.parameters : undefined);
  return [
    section('Credentials', bullets(guide.credentials)),
    section(
      'Permissions',
      [
        table(['action', 'needs'], rows),
        `The least ${guide.grant} for all of the actions above:`,
        `\`\`\`\n${policy.trimEnd()}\n\`\`\``,
      ].join('\n\n'),
    ),
  ];
}

function errorTable(actions: readonly Action[]): string {
  const codes = [...new Set(actions.flatMap(({ errors }) => errors))].sort();
  const rows = codes.map((code) => {
    const { hint, retryable } = ERROR_CODES[code];
    const own = actions.filter(({ errors }) => errors.includes(code));
    const where = own.length === actions.length ? 'all' : own.map(({ name }) => `\`${name}\``).join(', ');
    return [`\`${code}\``, where, cell(retryable ? `${hint} The same call may succeed later.` : hint)];
  });
  const guards =
    'Any guarded action may also answer `CONFIRMATION_REQUIRED` and the other codes of the guard: nothing but reads was sent then.';
  return rows.length === 0 ? guards : `${table(['code', 'of', 'what to do'], rows)}\n\n${guards}`;
}

function workedExample(entities: readonly EntityBase[], actions: readonly Action[], options: RenderOptions): string {
  const restore = actions.find(({ name }) => name === 'restore');
  const entity = entities.find(({ defines }) => restore?.on.includes(defines) === true)?.key;
  if (restore === undefined || entity === undefined) return '';
  const input = exampleInput(restore, EXAMPLE_WORDS);
  const steps: [string, SuggestedCall][] = [
    [
      'Every way back, what each loses, and the exact call for it',
      { entity, action: 'find-recovery-options', input: {} },
    ],
    ['What that call would do; changes nothing', { entity, action: 'plan', input: { action: 'restore', input } }],
    ['The restore; where it asks for a confirmation, show the plan and wait', { entity, action: 'restore', input }],
    ['Until it is over', { action: 'wait-operation', input: { operation_id: '<operation_id of the answer>' } }],
  ];
  const form =
    'The options of step 1 have the input of steps 2 and 3; its form is this. Without a new target a restore may replace the live data: the plan says so.';
  const list = steps.map(([what, call], at) => `${at + 1}. ${what}:\n   \`${renderCall(call, options)}\``).join('\n');
  return `${form}\n\n${list}`;
}
