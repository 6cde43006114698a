import type { Command } from 'commander';
import { asHoldfastError, HoldfastError } from '../../core/errors.ts';
import { isObject, type JsonObject } from '../../core/json.ts';
import { OperationView } from '../../core/schemas.ts';
import type { Engine, Outcome } from '../../engine/api.ts';
import { commandLine, shellWord } from '../command-line.ts';
import { EXIT } from '../exit-statuses.ts';
import { parametersOf } from '../parameters.ts';
import { confirmationOf, renderOutcome } from '../render.ts';
import { describeAction } from './actions.ts';
import { callWithConfirmation } from './confirm.ts';
import {
  addCommand,
  type Cli,
  interruptedExit,
  operationExit,
  principalOf,
  programName,
  renderOptions,
  withEngine,
} from './context.ts';
import { showProgress } from './progress.ts';
import { resolveTarget, type Target } from './target.ts';
import { styled } from './terminal.ts';
import { readInput, readValueFile } from './values.ts';

interface DoOptions {
  dryRun?: boolean;
  token?: string;
  wait?: boolean;
  help?: boolean;
}

const DETAILS = `Paths:
  <namespace>/<entity>/<action>   an action on one database, also find-recovery-options for it
  <action>, backup/<action>       an action across all databases

Parameters:
  key=value                       read by the type of the parameter; holdfast do PATH --help shows them
  key=a,b   key=a key=b           a list; as JSON where an item holds a comma: key='["a,b"]'
  key='{"a": 1}'                  an object
  key=@file   key=-               the value from a file, from standard input (keeps secrets out of the process
                                  list); key=@@text is the text @text

Guarded actions:
  What deletes, replaces or weakens shows its plan first. On a terminal you type the target's name and it goes on.
  Elsewhere, and with --json, it stops with exit status 10, the plan and a token; after holdfast approve CODE repeat
  the same call with --token (or HOLDFAST_TOKEN).`;

/** Adds `do`: any action on any database, in the grammar of the action guide. */
export function addDo(program: Command, cli: Cli): void {
  addCommand(
    program,
    'do',
    'run an action on a database: <namespace>/<entity>/<action> key=value …',
    [
      'holdfast do my-app/my-db/list-snapshots limit=5',
      'holdfast do my-app/my-db/create-snapshot snapshot_id=before-upgrade --wait',
      'holdfast do my-app/my-db/restore snapshot_id=before-upgrade --dry-run',
      'holdfast do my-app/my-db/restore snapshot_id=before-upgrade --token hfc_…',
      'holdfast do find-recovery-options entity=my-app/my-db --json',
    ],
    DETAILS,
  )
    .argument('[path]', 'what to do, and on which database')
    .argument('[parameters...]', 'key=value')
    .option('--dry-run', 'show the plan and what the policy would say; run nothing')
    .option('--token <token>', 'the confirmation token of this very call')
    .option('--wait', 'wait to the end of the work, not only until it can go on by itself')
    .helpOption(false)
    .option('-h, --help', 'show this, or after a path the parameters of that action')
    .action(async (path: string | undefined, words: string[], options: DoOptions, command: Command) => {
      if (path === undefined) {
        if (options.help === true) return command.outputHelp();
        throw new HoldfastError('INVALID_PARAMETER', 'do needs the path of an action', {
          hint: 'For example: holdfast do my-app/my-db/list-snapshots. holdfast list shows the databases.',
        });
      }
      cli.exit = await withEngine(cli, async (engine) => {
        const target = resolveTarget(engine, path);
        if (options.help === true) {
          cli.terminal.text(describeAction(target.action, target.entity));
          return EXIT.ok;
        }
        return runAction(cli, engine, target, words, options);
      });
    });
}

async function runAction(
  cli: Cli,
  engine: Engine,
  target: Target,
  words: readonly string[],
  options: DoOptions,
): Promise<number> {
  const { json } = cli.options();
  const given = await readInput(target.action, words, {
    readFile: readValueFile,
    readInput: () => cli.prompter.rest(),
  });
  const doubled = Object.keys(target.filled).find((key) => key in given);
  if (doubled !== undefined) {
    throw new HoldfastError('INVALID_PARAMETER', `${doubled} is in the path already`, {
      hint: `Leave ${doubled}= out.`,
    });
  }
  try {
    const outcome = await callWithConfirmation(cli, engine, {
      principal: principalOf(cli.deps),
      entity: target.entity,
      action: target.action.name,
      input: { ...given, ...target.filled },
      token: options.token ?? cli.deps.env['HOLDFAST_TOKEN'],
      dryRun: options.dryRun,
      // Simulators of this process end with it, and their work with them.
      wait: options.wait === true || isPrivateSandbox(cli) ? 'end' : 'detachable',
      signal: cli.deps.signal,
      onProgress: showProgress(cli.terminal, json),
    });
    if (json) cli.terminal.json(outcomeDocument(outcome, engine.sandbox));
    else printOutcome(cli, outcome, engine.sandbox);
    return outcomeExit(cli, outcome);
  } catch (cause) {
    const error = asHoldfastError(cause);
    const asked = confirmationOf(error);
    if (asked !== undefined) {
      const when = asked.confirmation.require === 'token' ? 'To go ahead' : 'After approval';
      cli.advice = isPrivateSandbox(cli)
        ? PRIVATE_SANDBOX
        : `${when}: ${repeatedCommand(cli, target, words, options, asked.confirmation.token)}`;
    }
    throw error;
  }
}

const PRIVATE_SANDBOX =
  'These simulators end with this command. To approve and repeat: holdfast sandbox --port 9400, then --sandbox-port 9400 on every command.';

function isPrivateSandbox(cli: Cli): boolean {
  const { sandbox, sandboxPort } = cli.options();
  return sandbox && sandboxPort === undefined;
}

// The words that were given, so that it is the same call; what may be a secret is not written out again.
function repeatedCommand(
  cli: Cli,
  target: Target,
  words: readonly string[],
  options: DoOptions,
  token: string,
): string {
  const secrets = new Set(
    parametersOf(target.action)
      .filter((parameter) => parameter.secret)
      .map((parameter) => parameter.name),
  );
  const shown = words.map((word) => {
    const key = word.slice(0, word.indexOf('='));
    const isNamed = /^(@[^@]|-$)/.test(word.slice(key.length + 1));
    return secrets.has(key) && !isNamed ? `${key}=***` : shellWord(word);
  });
  const entity = target.entity ?? target.filled['entity'];
  const path = entity === undefined ? target.action.name : `${entity}/${target.action.name}`;
  return [
    programName(cli),
    'do',
    shellWord(path),
    ...shown,
    ...(options.wait === true ? ['--wait'] : []),
    '--token',
    token,
  ].join(' ');
}

/** Gives the document that `--json` prints: the answer itself, the operation itself, or the plan with the decision. */
export function outcomeDocument(outcome: Outcome, sandbox: boolean): unknown {
  const mark = sandbox ? { sandbox: true } : {};
  switch (outcome.kind) {
    case 'result':
      return typeof outcome.output === 'object' && outcome.output !== null && !Array.isArray(outcome.output)
        ? { ...(outcome.output as JsonObject), ...mark }
        : outcome.output;
    case 'operation':
      return { ...outcome.operation, ...mark };
    case 'plan':
      return { plan: outcome.plan, decision: outcome.decision, require: outcome.require, ...mark };
  }
}

function printOutcome(cli: Cli, outcome: Outcome, sandbox: boolean): void {
  const { terminal } = cli;
  terminal.text(renderOutcome(withUndoCommand(cli, outcome), renderOptions(cli)));
  if (sandbox) terminal.line(styled('dim', '[sandbox] Simulators answered; nothing real was read or changed.'));
  if (outcome.kind === 'operation' && isOpen(outcome.operation) && cli.deps.signal.aborted) {
    terminal.note(styled('yellow', 'Left, not stopped: the work goes on without this command.'));
  }
}

/** Gives an outcome in which the way back of an operation stands as what a person would type. */
export function withUndoCommand(cli: Cli, outcome: Outcome): Outcome {
  if (outcome.kind === 'plan') return outcome;
  const read = OperationView.safeParse(outcome.kind === 'operation' ? outcome.operation : outcome.output);
  if (!read.success || read.data.undo === undefined) return outcome;
  const { entity = read.data.entity, action, input, ...more } = read.data.undo;
  if (typeof action !== 'string' || !isObject(input)) return outcome;
  const call = { entity: String(entity), action, input: input as JsonObject };
  const operation = { ...read.data, undo: { command: commandLine(call, programName(cli)), ...more } };
  return { kind: 'operation', action: outcome.action, operation };
}

function outcomeExit(cli: Cli, outcome: Outcome): number {
  if (outcome.kind !== 'operation') return EXIT.ok;
  return cli.deps.signal.aborted && isOpen(outcome.operation) ? interruptedExit(cli) : operationExit(outcome.operation);
}

function isOpen(operation: OperationView): boolean {
  return operation.status === 'pending' || operation.status === 'running';
}
