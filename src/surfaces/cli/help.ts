import type { Command } from 'commander';
import { ERROR_CODES, type ErrorCode } from '../../core/errors.ts';
import { addCommand, type Cli, EXIT, unknownWord } from './context.ts';

const OWN_STATUSES: readonly (readonly [number, string])[] = [
  [EXIT.ok, 'done; with work that outlives the call: begun, and its id is printed'],
  [EXIT.failed, 'the operation failed without a code of its own'],
  [EXIT.usage, 'wrong command, option or parameter (INVALID_PARAMETER)'],
  [EXIT.unknown, 'the operation ended and nobody can say how: look at the provider'],
  [EXIT.interrupted, 'Ctrl-C; what was begun goes on and its id is printed'],
  [EXIT.terminated, 'SIGTERM, likewise'],
];

/** Lists every exit status with what it means; the error codes come from their one table. */
export function exitStatuses(): { exit: number; meaning: string; codes: ErrorCode[] }[] {
  const rows = new Map(
    OWN_STATUSES.map(([exit, meaning]) => [exit, { exit, meaning, codes: [] as ErrorCode[] }] as const),
  );
  for (const [code, row] of Object.entries(ERROR_CODES) as [ErrorCode, (typeof ERROR_CODES)[ErrorCode]][]) {
    const known = rows.get(row.exit);
    if (known === undefined) rows.set(row.exit, { exit: row.exit, meaning: row.hint, codes: [code] });
    else known.codes.push(code);
  }
  return [...rows.values()].sort((a, b) => a.exit - b.exit);
}

/** Writes the table of exit statuses as plain text. */
export function exitStatusText(): string {
  const lines = exitStatuses().map(({ exit, meaning, codes }) => {
    const names = codes.filter((code) => code !== 'INVALID_PARAMETER').join(', ');
    return `${String(exit).padStart(5)}  ${names === '' ? meaning : `${names}: ${meaning}`}`;
  });
  return ['Exit statuses', '', ...lines].join('\n');
}

/** Adds `help [topic]` and `version`. */
export function addHelp(program: Command, cli: Cli): void {
  const topics = ['exit-codes'];
  addCommand(program, 'help', 'show help for a command or a topic: exit-codes', [
    'holdfast help do',
    'holdfast help exit-codes',
  ])
    .argument('[topic...]', 'a command or a topic')
    .action((words: string[]) => {
      if (words.join(' ') === 'exit-codes') {
        if (cli.options().json) cli.terminal.json({ exit_codes: exitStatuses() });
        else for (const line of exitStatusText().split('\n')) cli.terminal.line(line);
        return;
      }
      let command = program;
      for (const word of words) {
        const next = command.commands.find((candidate) => candidate.name() === word);
        if (next === undefined) {
          const names = command.commands.map((candidate) => candidate.name());
          throw unknownWord('command or topic', word, command === program ? [...names, ...topics] : names);
        }
        command = next;
      }
      command.outputHelp();
    });
  addCommand(program, 'version', 'show the version', ['holdfast version --json']).action(() => showVersion(cli));
}

/** Prints the version. */
export function showVersion(cli: Cli): void {
  if (cli.options().json)
    cli.terminal.json({ name: 'holdfast', version: cli.deps.version, node: process.versions.node });
  else cli.terminal.line(`holdfast ${cli.deps.version}`);
}
