import type { Command } from 'commander';
import { exitStatuses } from '../exit-statuses.ts';
import { addCommand, type Cli, unknownWord } from './context.ts';

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
