import { Command, CommanderError, Option } from 'commander';
import { asHoldfastError, HoldfastError } from '../../core/errors.ts';
import { EXIT } from '../exit-statuses.ts';
import { renderError } from '../render.ts';
import { addLists } from './actions.ts';
import { addApprovals } from './approvals.ts';
import { addAudit } from './audit.ts';
import { addCatalog } from './catalog.ts';
import { addCheck } from './check.ts';
import {
  type Cli,
  errorDocument,
  exitOf,
  type GlobalOptions,
  LAST_PORT,
  programName,
  renderOptions,
  unknownWord,
  wholeNumber,
} from './context.ts';
import type { CliDeps } from './deps.ts';
import { addDo } from './do.ts';
import { addHelp, showVersion } from './help.ts';
import { addInit } from './init.ts';
import { addOperations } from './operations.ts';
import { Prompter } from './prompt.ts';
import { addSchedule } from './schedule.ts';
import { addServices, serveStdio } from './serve.ts';
import { styled, Terminal } from './terminal.ts';
import { addWal } from './wal.ts';

const HELP_WIDTH = 100;

/**
 * Runs one command line, without the program's own name, and gives its exit status. Everything outside comes in by
 * `deps`; nothing here ends the process.
 */
export async function runCli(argv: readonly string[], deps: CliDeps): Promise<number> {
  const terminal = new Terminal(deps);
  // A reader that goes away (`| head`) ends the output, not the work.
  const ignoreClosedPipe = (fault: NodeJS.ErrnoException): void => {
    if (fault.code !== 'EPIPE') deps.log.error('the output cannot be written', { cause: fault.message });
  };
  deps.stdout.on('error', ignoreClosedPipe);
  deps.stderr.on('error', ignoreClosedPipe);
  const program = new Command('holdfast');
  const cli: Cli = {
    deps,
    terminal,
    prompter: new Prompter(deps.stdin, deps.signal),
    exit: EXIT.ok,
    advice: undefined,
    options: () => globalOptions(program, argv),
  };
  buildProgram(program, cli);
  try {
    await program.parseAsync(argv, { from: 'user' });
    return cli.exit;
  } catch (cause) {
    if (cause instanceof CommanderError && cause.exitCode === 0) return EXIT.ok;
    return reportError(cli, cause instanceof CommanderError ? usageError(cause) : asHoldfastError(cause));
  } finally {
    terminal.clearStatus();
    await terminal.flush();
    deps.stdout.off('error', ignoreClosedPipe);
    deps.stderr.off('error', ignoreClosedPipe);
  }
}

function globalOptions(program: Command, argv: readonly string[]): GlobalOptions {
  const options = program.opts<{
    json?: boolean;
    config?: string;
    stateDir?: string;
    sandbox?: boolean;
    sandboxPort?: number;
  }>();
  return {
    // A fault of the command line itself may be found before its options are read.
    json: options.json === true || argv.includes('--json'),
    config: options.config,
    stateDir: options.stateDir,
    sandbox: options.sandbox === true,
    sandboxPort: options.sandboxPort,
  };
}

/** Fills in the whole grammar. */
function buildProgram(program: Command, cli: Cli): void {
  program
    .description('Look after database backups. What could destroy data is shown first and waits for a person.')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => cli.terminal.line(text.replace(/\n$/, '')),
      // Faults of usage are reported like every other error.
      writeErr: () => {},
      outputError: () => {},
      getOutHelpWidth: () => Math.min(cli.terminal.width, HELP_WIDTH),
      getOutHasColors: () => false,
    })
    .configureHelp({ showGlobalOptions: true })
    .helpCommand(false)
    .helpOption('-h, --help', 'show help')
    .option('--json', 'one JSON document on standard output, errors too')
    .option('--config <file>', 'the entities file (HOLDFAST_CONFIG, else holdfast.yaml here or above)')
    .option('--state-dir <dir>', 'where confirmations, operations and the audit trail are kept')
    .option('--sandbox', 'answer every provider by its simulator; they live as long as the command')
    .addOption(
      new Option('--sandbox-port <n>', 'the same with simulators that several commands share on this port')
        .argParser((text) => wholeNumber('--sandbox-port', text, 1, LAST_PORT))
        .implies({ sandbox: true }),
    )
    .option('-V, --version', 'show the version')
    .allowUnknownOption()
    .allowExcessArguments()
    .addHelpText(
      'after',
      () => `
Examples:
  $ holdfast demo
  $ holdfast list
  $ holdfast do my-app/my-db/list-snapshots
  $ holdfast do my-app/my-db/restore snapshot_id=before-upgrade --dry-run

holdfast help COMMAND shows more; holdfast help exit-codes lists the exit statuses.`,
    )
    .action(async (_options: unknown, command: Command) => start(cli, program, command.args));
  program.commandsGroup('Databases:');
  addDo(program, cli);
  addLists(program, cli);
  addInit(program, cli);
  addCheck(program, cli);
  addCatalog(program, cli);
  program.commandsGroup('Decisions and work:');
  addApprovals(program, cli);
  addOperations(program, cli);
  addAudit(program, cli);
  addSchedule(program, cli);
  program.commandsGroup('Services:');
  addServices(program, cli);
  addWal(program, cli);
  program.commandsGroup('Help:');
  addHelp(program, cli);
}

// What `holdfast` does without a command: an MCP client starts it like this, and so does a curious person.
async function start(cli: Cli, program: Command, words: readonly string[]): Promise<void> {
  const [first] = words;
  if (first?.startsWith('-')) {
    const flags = program.options.flatMap((option) => option.long ?? []);
    throw unknownWord('option', first, [...flags, '--help']);
  }
  if (first !== undefined) {
    const names = program.commands.map((command) => command.name());
    throw unknownWord('command', first, names, 'holdfast help lists the commands.');
  }
  if (program.opts<{ version?: boolean }>().version === true) return showVersion(cli);
  if (cli.deps.stdin.isTTY === true) return program.outputHelp();
  await serveStdio(cli);
}

function usageError(fault: CommanderError): HoldfastError {
  if (fault.code === 'commander.help') {
    return new HoldfastError('INVALID_PARAMETER', 'the command needs a subcommand', {
      hint: 'holdfast help COMMAND lists them.',
    });
  }
  const [message = '', suggestion] = fault.message.replace(/^error: /, '').split('\n');
  const close = /^\((Did you mean .*\?)\)$/.exec(suggestion ?? '')?.[1];
  return new HoldfastError('INVALID_PARAMETER', message.replace(/\.$/, ''), {
    hint: [close, 'holdfast help COMMAND shows what it takes.'].filter((part) => part !== undefined).join(' '),
  });
}

function reportError(cli: Cli, error: HoldfastError): number {
  const { terminal, deps } = cli;
  if (error.code === 'INTERNAL') {
    deps.log.error(error.message, { cause: error.cause instanceof Error ? (error.cause.stack ?? '') : '' });
  }
  if (cli.options().json) terminal.json(errorDocument(error));
  else {
    const [first = '', ...rest] = renderError(error, renderOptions(cli)).split('\n');
    terminal.note(styled('red', error.code), first.slice(error.code.length));
    if (rest.length > 0) terminal.notes(rest.join('\n'));
    if (cli.advice !== undefined) terminal.note(styled('bold', cli.advice));
    const operation = error.details?.['operation_id'];
    if (typeof operation === 'string') terminal.note(`Follow it: ${programName(cli)} operations ${operation} --wait`);
  }
  return exitOf(cli, error);
}
