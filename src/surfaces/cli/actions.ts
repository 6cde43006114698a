import type { Command } from 'commander';
import type { Action, AnyAction } from '../../core/action.ts';
import type { EntityBase } from '../../core/context.ts';
import type { Provider } from '../../core/provider.ts';
import { isGuarded } from '../../core/risk.ts';
import type { Engine } from '../../engine/api.ts';
import { exampleLine } from '../command-line.ts';
import { EXIT } from '../exit-statuses.ts';
import { parametersOf, riskText, typeText } from '../parameters.ts';
import { renderTable } from '../render.ts';
import { addCommand, type Cli, renderOptions, unknownWord, withEngine } from './context.ts';
import { actionsOf, fleetActions, resolveTarget } from './target.ts';
import { styled } from './terminal.ts';

const SOME_ENTITY = 'my-app/my-db';

/** Adds `list` and `actions`: what there is, and what can be done with it. */
export function addLists(program: Command, cli: Cli): void {
  addCommand(program, 'list', 'list the configured databases', ['holdfast list', 'holdfast list --json']).action(
    async () => {
      cli.exit = await withEngine(cli, async (engine) => listEntities(cli, engine));
    },
  );
  addCommand(program, 'actions', 'list the actions, or describe one', [
    'holdfast actions',
    'holdfast actions aws-rds',
    'holdfast actions my-app/my-db',
    'holdfast actions my-app/my-db/restore',
  ])
    .argument('[what]', 'a provider, a database, backup (across all databases), or the path of one action')
    .action(async (what: string | undefined) => {
      cli.exit = await withEngine(cli, async (engine) => listActions(cli, engine, what));
    });
}

function listEntities(cli: Cli, engine: Engine): number {
  const rows = engine.entities().map((entity) => ({
    entity: entity.key,
    type: entity.defines,
    provider: entity.provider,
    labels: entity.labels,
    objectives: entity.objectives,
    ...(entity.endpoint === undefined ? {} : { endpoint: entity.endpoint }),
  }));
  const { terminal } = cli;
  if (cli.options().json) {
    terminal.json({ entities: rows, ...(engine.sandbox ? { sandbox: true } : {}) });
    return EXIT.ok;
  }
  if (rows.length === 0) {
    terminal.line(
      'No database is configured. holdfast init looks for yours; holdfast list --sandbox has simulated ones.',
    );
    return EXIT.ok;
  }
  const flat = (record: object): string | undefined =>
    Object.entries(record)
      .map(([key, value]) => `${key}=${value}`)
      .join(' ') || undefined;
  terminal.text(
    renderTable(
      rows.map((row) => ({ ...row, labels: flat(row.labels), objectives: flat(row.objectives) })),
      renderOptions(cli),
    ),
  );
  terminal.note(styled('dim', 'Next: holdfast actions <entity>, holdfast do <entity>/get-backup-info'));
  return EXIT.ok;
}

function listActions(cli: Cli, engine: Engine, what: string | undefined): number {
  if (what !== undefined && what.split('/').length === 3) {
    const { action, entity } = resolveTarget(engine, what);
    if (cli.options().json) cli.terminal.json(actionDocument(action, entity));
    else cli.terminal.text(describeAction(action, entity));
    return EXIT.ok;
  }
  const { actions, entity, provider } = chooseActions(engine, what);
  if (cli.options().json) {
    cli.terminal.json({
      actions: actions.map((action) => actionDocument(action, entity?.key)),
      ...(provider === undefined ? {} : { cannot: provider.cannot }),
    });
    return EXIT.ok;
  }
  for (const [title, group] of Map.groupBy(actions, groupTitle)) {
    cli.terminal.line(styled('bold', title));
    const rows = group.map((action) => ({ action: action.name, risk: riskText(action), what: action.title }));
    for (const line of renderTable(rows, renderOptions(cli)).split('\n')) cli.terminal.line(`  ${line}`);
    cli.terminal.line('');
  }
  for (const [name, reason] of Object.entries(provider?.cannot ?? {})) {
    cli.terminal.line(styled('yellow', `No ${name}: `), reason);
  }
  const sample = entity?.key ?? '<namespace>/<entity>';
  cli.terminal.note(styled('dim', `Next: holdfast do ${sample}/<action> --help`));
  return EXIT.ok;
}

function chooseActions(
  engine: Engine,
  what: string | undefined,
): { actions: readonly AnyAction[]; entity?: EntityBase; provider?: Provider } {
  const all = engine.actions();
  if (what === undefined) return { actions: all };
  if (what === 'backup' || what === 'fleet') return { actions: fleetActions(engine) };
  if (what.includes('/')) {
    const entity = engine.entity(what);
    const actions = actionsOf(engine, entity);
    return { actions, entity, ...(actions[0] === undefined ? {} : { provider: actions[0].provider }) };
  }
  const id = what.replaceAll('_', '-');
  const own = all.filter((action): action is Action => action.kind === 'provider' && action.provider.id === id);
  if (own[0] !== undefined) return { actions: own, provider: own[0].provider };
  // The name of an action, whichever providers have it.
  const named = all.filter((action) => action.name === what || action.aliases.includes(what));
  if (named.length > 0) return { actions: named };
  const known = new Set(all.flatMap((action) => [groupId(action), action.name, ...action.aliases]));
  throw unknownWord('provider, database or action', what, [
    ...known,
    ...engine.entities().map((candidate) => candidate.key),
  ]);
}

function groupId(action: AnyAction): string {
  return action.kind === 'fleet' ? 'backup' : action.provider.id;
}

function groupTitle(action: AnyAction): string {
  return action.kind === 'fleet' ? 'Across all databases (backup)' : `${action.provider.title} (${action.provider.id})`;
}

/** Gives one action as a document: what `--json` prints. */
function actionDocument(action: AnyAction, entity: string | undefined): object {
  return {
    action: action.name,
    provider: groupId(action),
    title: action.title,
    summary: action.summary,
    aliases: action.aliases,
    risk: action.risk,
    up_to: action.upTo,
    parameters: parametersOf(action).map((parameter) => ({
      name: parameter.name,
      type: typeText(parameter.shape),
      required: parameter.required,
      ...(parameter.description === undefined ? {} : { description: parameter.description }),
      ...(parameter.fallback === undefined ? {} : { default: parameter.fallback }),
    })),
    errors: action.errors,
    example: exampleLine(action, entity ?? SOME_ENTITY),
  };
}

/** Describes one action for a person: what it does, its parameters, an example. */
export function describeAction(action: AnyAction, entity: string | undefined): string {
  const parameters = parametersOf(action).map((parameter) => ({
    parameter: parameter.name,
    type: typeText(parameter.shape),
    required: parameter.required,
    description: parameter.description,
  }));
  const guarded = isGuarded(action.upTo) ? ', guarded: it shows its plan and needs a confirmation' : '';
  return [
    `${action.name}: ${action.title}`,
    '',
    action.summary,
    `Risk: ${riskText(action)}${guarded}`,
    ...(action.aliases.length === 0 ? [] : [`Also called: ${action.aliases.join(', ')}`]),
    '',
    ...(parameters.length === 0 ? ['Takes no parameters.'] : [renderTable(parameters)]),
    '',
    `Example: ${exampleLine(action, entity ?? SOME_ENTITY)}`,
  ].join('\n');
}
