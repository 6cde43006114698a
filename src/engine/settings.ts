import { z } from 'zod';
import { type Action, defineAction } from '../core/action.ts';
import type { ProviderContext } from '../core/context.ts';
import type { ErrorCode } from '../core/errors.ts';
import { HoldfastError } from '../core/errors.ts';
import { digestOf, type JsonObject, type JsonValue } from '../core/json.ts';
import type { Recovery, Step, StepContext } from '../core/operation.ts';
import type { Plan, PlanDraft } from '../core/plan.ts';
import type { Provider } from '../core/provider.ts';
import { AppliedSettings, SettingsCheck } from '../core/schemas.ts';
import type { ProviderSettings, SettingFinding, SettingsReading } from '../core/settings.ts';
import { didYouMean } from '../core/text.ts';

type Context = ProviderContext<unknown, unknown>;
type Changing = SettingFinding & { readonly change: NonNullable<SettingFinding['change']> };

const ERRORS = [
  'AUTHENTICATION_FAILED',
  'INSUFFICIENT_PERMISSIONS',
  'RESOURCE_NOT_FOUND',
  'NOT_SUPPORTED',
  'RATE_LIMITED',
  'PROVIDER_UNAVAILABLE',
  'TIMEOUT',
] as const satisfies readonly ErrorCode[];

/** Makes the actions on declared settings of one provider: what they share is here, what differs in its `settings`. */
export function settingsActions(provider: Provider): Action[] {
  const { settings } = provider;
  if (settings === undefined) return [];
  const check = defineAction({
    provider,
    name: 'check-settings',
    title: 'Hold the declared backup settings against the provider',
    summary: 'Shows every declared backup parameter, what the provider has, and whether they agree.',
    risk: 'read',
    shared: true,
    input: z.object({}),
    output: SettingsCheck,
    errors: ERRORS,
    source: 'the reads of get-backup-info',
    example: {},
    run: async (context) => report(await settings.read(context)),
  });
  const apply = defineAction({
    provider,
    name: 'apply-settings',
    title: 'Make the backup settings as declared',
    summary: 'Gives backup settings their declared values. What lowers protection shows a plan and waits for a person.',
    risk: 'change',
    upTo: 'weaken',
    shared: true,
    input: z.object({ settings: z.array(z.string()).min(1).optional().describe('only these') }),
    output: AppliedSettings,
    errors: [...ERRORS, 'INVALID_PARAMETER', 'INVALID_STATE', 'PLAN_CHANGED'],
    source: 'the update calls of the provider',
    example: {},
    plan: async (context, { settings: only }) => plan(await settings.read(context), only),
    steps: (_input, made) => steps(settings, made),
    result: (results) => ({
      applied: Object.values(results).flatMap(({ applied }) => (applied ?? []) as never[]),
    }),
  });
  return [check, apply];
}

function report({ target, findings }: SettingsReading): z.input<typeof SettingsCheck> {
  return {
    target,
    in_line: findings.every(({ verdict }) => verdict === 'as_declared'),
    settings: findings.map(({ change, ...finding }) => ({
      ...finding,
      ...(change === undefined ? {} : { to_apply: { risk: change.risk, effect: change.effect } }),
    })),
  };
}

function plan({ target, identity, findings }: SettingsReading, only: readonly string[] | undefined): PlanDraft {
  const unknown = only?.find((name) => !findings.some(({ setting }) => setting === name));
  if (unknown !== undefined) {
    throw new HoldfastError('INVALID_PARAMETER', `the entity declares no setting '${unknown.slice(0, 60)}'`, {
      hint: didYouMean(
        unknown,
        findings.map(({ setting }) => setting),
      ),
    });
  }
  const wanted = findings.filter(({ setting }) => only?.includes(setting) ?? true);
  const changing = changes(wanted);
  const weakening = changing.filter(({ change }) => change.risk === 'weaken');
  const strengthening = changing.filter(({ change }) => change.risk === 'change');
  const stuck = wanted.filter(({ verdict, change }) => verdict !== 'as_declared' && change === undefined);
  const final = changing.filter(({ change }) => change.irreversible);
  const back = changing.filter(({ change }) => !change.irreversible);
  return {
    ...(weakening.length > 0 ? { risk: 'weaken' as const } : {}),
    target,
    loses: weakening.length === 0 ? 'nothing' : `${weakening.map(({ change }) => change.effect).join('; ')}.`,
    blast_radius: Object.fromEntries(
      changing.map(({ setting, declared, actual, change }) => [
        setting,
        `${actual === undefined ? '' : `from ${inWords(actual)} `}to ${inWords(declared)}: ${change.effect}`,
      ]),
    ),
    undo:
      changing.length === 0
        ? 'not needed: there is nothing to apply'
        : [
            ...final.map(({ setting }) => `${setting} cannot be undone at this provider.`),
            ...(back.length === 0
              ? []
              : [
                  `Declare what was before (${back.map(({ setting, actual }) => `${setting}: ${JSON.stringify(actual ?? null)}`).join(', ')}) and apply again${weakening.length > 0 ? '; what was deleted meanwhile does not come back' : ''}.`,
                ]),
          ].join(' '),
    ...(weakening.length > 0 && strengthening.length > 0
      ? {
          alternatives: [
            {
              title: 'Apply only what does not lower protection',
              risk: 'change' as const,
              call: { action: 'apply-settings', input: { settings: strengthening.map(({ setting }) => setting) } },
            },
          ],
        }
      : {}),
    unknowns: changing
      .filter(({ actual }) => actual === undefined)
      .map(({ setting }) => `what ${setting} is now: the provider does not tell`),
    warnings: stuck.map(
      ({ setting, note }) =>
        `${setting} is not as declared and cannot be applied${note === undefined ? '' : `: ${note}`}.`,
    ),
    facts: {
      target: { ...identity, settings: actualOf(changing) },
      context: {
        declared: Object.fromEntries(changing.map(({ setting, declared }) => [setting, declared])),
        // What a step compares: masking a value in the plan must not look like a change.
        sha256: digestOf(actualOf(changing)),
        writes: Object.fromEntries(changing.map(({ setting, change }) => [setting, change.write])),
      },
    },
  };
}

function inWords(value: JsonValue): string {
  return value === null ? 'none' : typeof value === 'string' ? value : JSON.stringify(value);
}

function changes(findings: readonly SettingFinding[]): Changing[] {
  return findings.filter(
    (finding): finding is Changing => finding.change !== undefined && finding.verdict !== 'as_declared',
  );
}

function actualOf(findings: readonly SettingFinding[]): JsonObject {
  return Object.fromEntries(findings.map(({ setting, actual }) => [setting, actual ?? null]));
}

/** A request and a look at its effect for each group of settings, in the order of the plan. */
function steps(settings: ProviderSettings, { facts }: Plan): Step[] {
  const writes = (facts.context?.['writes'] ?? {}) as Record<string, string>;
  const all = Object.keys(writes);
  return [...new Set(Object.values(writes))].flatMap((write, index): Step[] => {
    const names = all.filter((setting) => writes[setting] === write);
    const before = (facts.target['settings'] ?? {}) as Record<string, JsonValue>;
    return [
      {
        name: write,
        title: `Setting ${names.join(', ')}`,
        kind: 'mutate',
        run: (context) =>
          send(settings, context, { write, names, sha256: index === 0 ? facts.context?.['sha256'] : undefined, all }),
        recover: (context) => recover(settings, context, names),
      },
      {
        name: `${write}-in-force`,
        title: `Waiting until ${names.join(', ')} ${names.length === 1 ? 'is' : 'are'} in force`,
        kind: 'follow',
        run: (context) => settle(settings, context, names, before),
      },
    ];
  });
}

interface Send {
  readonly write: string;
  readonly names: readonly string[];
  readonly all: readonly string[];
  /** Digest of the actual values of all settings of the plan; given for the first request only. */
  readonly sha256: JsonValue | undefined;
}

async function send(
  settings: ProviderSettings,
  context: StepContext<unknown, unknown, unknown>,
  { write, names, all, sha256 }: Send,
): Promise<JsonObject> {
  const { findings } = await settings.read(context);
  const planned = changes(findings).filter(({ setting }) => all.includes(setting));
  if (sha256 !== undefined && digestOf(actualOf(planned)) !== sha256) {
    throw new HoldfastError('PLAN_CHANGED', 'the settings changed after the plan was made; nothing was changed', {
      hint: 'Call again: a new plan shows what they are now.',
    });
  }
  const group = planned.filter(({ setting, change }) => names.includes(setting) && change.write === write);
  // Someone, or an earlier request of this plan, has made it so already.
  if (group.length === 0) return {};
  const mark = await settings.mark?.(context);
  await context.checkpoint({ sent: true, ...(mark === undefined ? {} : { mark }) });
  await settings.write(context, write, group);
  return {};
}

async function recover(
  settings: ProviderSettings,
  context: Context & { handle?: JsonObject | undefined },
  names: readonly string[],
): Promise<Recovery> {
  if (context.handle === undefined) return { state: 'not_begun' };
  let open = await openOf(settings, context, names);
  // What providers carry out behind their answer takes a moment to show.
  for (const pause of RECOVERY_LOOKS_MS) {
    if (open.length === 0) return { state: 'done' };
    await context.runtime.sleep(pause, context.signal);
    open = await openOf(settings, context, names);
  }
  if (open.length === 0) return { state: 'done' };
  const { mark } = context.handle;
  if (mark !== undefined && (await settings.mark?.(context)) === mark) {
    return { state: 'not_begun', message: 'the request did not arrive' };
  }
  const word = open.length === 1 ? 'is' : 'are';
  return {
    state: 'unknown',
    message: `the request was begun, and ${open.map(({ setting }) => setting).join(', ')} ${word} not as declared; look at check-settings, then apply again`,
  };
}

async function openOf(
  settings: ProviderSettings,
  context: Context,
  names: readonly string[],
): Promise<SettingFinding[]> {
  const { findings } = await settings.read(context);
  return findings.filter(
    ({ setting, verdict, change }) => names.includes(setting) && verdict !== 'as_declared' && change !== undefined,
  );
}

const LOOK_EVERY_MS = 5_000;
const RECOVERY_LOOKS_MS = [1_000, 2_000, 4_000, 8_000, 15_000];

async function settle(
  settings: ProviderSettings,
  context: StepContext<unknown, unknown, unknown>,
  names: readonly string[],
  before: Readonly<Record<string, JsonValue>>,
): Promise<JsonObject> {
  const until = context.runtime.now().getTime() + (settings.patience_seconds ?? 600) * 1000;
  for (let pause = 500; ; pause = Math.min(pause * 2, LOOK_EVERY_MS)) {
    const open = await openOf(settings, context, names);
    if (open.length === 0) break;
    const words = open.map(({ setting }) => setting).join(', ');
    context.progress({ message: `not yet in force: ${words}` });
    if (context.runtime.now().getTime() >= until) {
      throw new HoldfastError('TIMEOUT', `the provider took the request, but ${words} did not become as declared`, {
        hint: 'The provider may apply it later, in a maintenance window: look at check-settings.',
      });
    }
    await context.runtime.sleep(pause, context.signal);
  }
  const { findings } = await settings.read(context);
  return {
    applied: findings
      .filter(({ setting }) => names.includes(setting))
      .map(({ setting, declared }) => ({ setting, from: before[setting] ?? null, to: declared })),
  };
}
