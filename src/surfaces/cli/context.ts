import type { Command } from 'commander';
import { ERROR_CODES, type ErrorCode, HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { SuggestedCall } from '../../core/plan.ts';
import type { Principal } from '../../core/principal.ts';
import type { OperationView } from '../../core/schemas.ts';
import { didYouMean } from '../../core/text.ts';
import type { Engine } from '../../engine/api.ts';
import { commandLine, shellWord } from '../command-line.ts';
import { EXIT } from '../exit-statuses.ts';
import { carriedBy, type RenderOptions } from '../render.ts';
import type { CliDeps, EngineOptions } from './deps.ts';
import type { Prompter } from './prompt.ts';
import type { Terminal } from './terminal.ts';

export interface GlobalOptions extends EngineOptions {
  readonly json: boolean;
}

/** What every command gets. */
export interface Cli {
  readonly deps: CliDeps;
  readonly terminal: Terminal;
  readonly prompter: Prompter;
  /** The exit status so far. */
  exit: number;
  /** What to do next, said after the error that ends the command. */
  advice: string | undefined;
  options(): GlobalOptions;
}

export const LAST_PORT = 65_535;

/** Adds a command with its description, what there is to know about it, and examples. */
export function addCommand(
  parent: Command,
  name: string,
  description: string,
  examples: readonly string[],
  details = '',
): Command {
  const command = parent.command(name).description(description).allowExcessArguments(false);
  if (details !== '') command.addHelpText('after', `\n${details}`);
  command.addHelpText('after', `\nExamples:\n${examples.map((example) => `  $ ${example}`).join('\n')}`);
  return command;
}

/** Opens the engine for one command and closes it after, whatever happens. */
export async function withEngine(cli: Cli, work: (engine: Engine) => Promise<number>): Promise<number> {
  const { json: _json, ...options } = cli.options();
  const engine = await cli.deps.openEngine(options);
  let exit: number;
  try {
    exit = await work(engine);
  } catch (cause) {
    // The first fault is the one to tell.
    await engine.close().catch(() => undefined);
    throw cause;
  }
  await engine.close();
  return exit;
}

/** Makes a call; the first Ctrl-C is answered at once, while what is in flight is waited for, so that its end is known. */
export async function inFlight<T>(cli: Cli, call: () => Promise<T>): Promise<T> {
  const { signal } = cli.deps;
  const onAbort = (): void =>
    cli.terminal.note({
      text: 'Stopping: waiting for what is in flight. Ctrl-C again leaves at once.',
      style: 'yellow',
    });
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await call();
  } finally {
    signal.removeEventListener('abort', onAbort);
    cli.terminal.clearStatus();
  }
}

/** The person at this command line; whoever can open the state directory may decide, policy and passphrase permitting. */
export function principalOf(deps: Pick<CliDeps, 'user'>): Principal {
  return { id: `cli:${deps.user}`, person: deps.user, roles: ['viewer', 'operator', 'approver'] };
}

/** How the program is called again so that it finds the same configuration and state: `holdfast --sandbox`. */
export function programName(cli: Cli): string {
  const { config, stateDir, sandbox, sandboxPort } = cli.options();
  return [
    'holdfast',
    ...(config === undefined ? [] : ['--config', shellWord(config)]),
    ...(stateDir === undefined ? [] : ['--state-dir', shellWord(stateDir)]),
    ...(sandboxPort === undefined ? (sandbox ? ['--sandbox'] : []) : ['--sandbox-port', String(sandboxPort)]),
  ].join(' ');
}

/** How rendered text names calls here, and how wide it may be. */
export function renderOptions(cli: Cli): RenderOptions {
  const program = programName(cli);
  return { call: (call: SuggestedCall) => commandLine(call, program), width: cli.terminal.width };
}

/** Gives the exit status of an error. */
export function exitOf(cli: Pick<Cli, 'deps' | 'prompter'>, error: HoldfastError): number {
  const interrupted = cli.deps.signal.aborted || cli.prompter.interrupted;
  if (error.code === 'CANCELLED' && interrupted) return interruptedExit(cli);
  return ERROR_CODES[error.code].exit;
}

/** Gives the exit status of a command that a signal ended. */
export function interruptedExit(cli: Pick<Cli, 'deps'>): number {
  return cli.deps.signal.reason === 'SIGTERM' ? EXIT.terminated : EXIT.interrupted;
}

/** Gives the exit status of an operation: 0 while it goes on and when it succeeded. */
export function operationExit(operation: OperationView): number {
  switch (operation.status) {
    case 'failed': {
      const code = operation.error?.code ?? '';
      return Object.hasOwn(ERROR_CODES, code) ? ERROR_CODES[code as ErrorCode].exit : EXIT.failed;
    }
    case 'cancelled':
      return ERROR_CODES.CANCELLED.exit;
    case 'unknown':
      return EXIT.unknown;
    default:
      return EXIT.ok;
  }
}

/** Gives the document that `--json` prints for an error: plan and confirmation stand beside it. */
export function errorDocument(error: HoldfastError): JsonObject {
  const { plan, confirmation, rest } = carriedBy(error);
  const { details: _details, ...shown } = error.toJson();
  // The id is for the surfaces; a caller needs the token and the code.
  const { id: _id, ...given } = confirmation ?? {};
  return {
    error: { ...shown, ...(Object.keys(rest).length === 0 ? {} : { details: rest }) },
    ...(plan === undefined ? {} : { plan: plan as unknown as JsonObject }),
    ...(confirmation === undefined ? {} : { confirmation: given }),
  };
}

/** Makes the error of a word that no command, topic or parameter has. */
export function unknownWord(what: string, word: string, known: Iterable<string>, hint = ''): HoldfastError {
  return new HoldfastError('INVALID_PARAMETER', `there is no ${what} '${word.slice(0, 80)}'`, {
    hint: [didYouMean(word, known), hint].filter((part) => part !== '').join(' '),
  });
}

/** Reads a whole number of an option. */
export function wholeNumber(name: string, text: string | undefined, least: number, most: number): number | undefined {
  if (text === undefined) return undefined;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw new HoldfastError(
    'INVALID_PARAMETER',
    `${name} '${text.slice(0, 40)}' is not a whole number from ${least} to ${most}`,
  );
}
