import type { Command } from 'commander';
import { ERROR_CODES, HoldfastError } from '../../core/errors.ts';
import { shellWord } from '../command-line.ts';
import { EXIT } from '../exit-statuses.ts';
import { addCommand, type Cli, inFlight, principalOf, programName } from './context.ts';
import type { InitReport, LookedAt } from './deps.ts';
import { progressBar } from './progress.ts';
import { styled } from './terminal.ts';

const DETAILS = `What it does:
  It looks for the credentials of every provider where that provider's own programs look, goes through the accounts by
  reads alone, and writes one entity for every database that it sees, with its backup settings as they are now and
  comments on what is badly protected. Secrets stay where they are: the file refers to them.
  Without --config the file is holdfast.yaml here. One that is there is left as it is, and what is new is printed;
  --append adds it, --force writes the file anew.

What to look at:
  --provider ID        only this provider; several times for several
  --set key=value      credentials and scope by the names that entities have for them: region=eu-west-1,
                       neon.api_key='\${env:NEON_KEY}'; a secret only by reference`;

interface Options {
  readonly provider: string[];
  readonly set: string[];
  readonly namespace?: string;
  readonly append?: boolean;
  readonly force?: boolean;
}

/** Adds `init`: an entities file from what the credentials show. */
export function addInit(program: Command, cli: Cli): void {
  const collect = (value: string, before: string[]): string[] => [...before, value];
  addCommand(
    program,
    'init',
    'write an entities file from what your credentials show',
    [
      'holdfast init',
      'holdfast init --provider aws-rds --set region=eu-west-1 --namespace shop',
      'holdfast init --append',
      'holdfast init --sandbox --config /tmp/try.yaml',
    ],
    DETAILS,
  )
    .option('--provider <id>', 'look at this provider only; repeatable', collect, [])
    .option('--set <key=value>', 'a credential by reference, or a scope; repeatable', collect, [])
    .option('--namespace <name>', "namespace of the entities; the folder's name when left out")
    .option('--append', 'add what is new to an existing file')
    .option('--force', 'write an existing file anew')
    .action(async ({ provider, set, namespace, append = false, force = false }: Options) => {
      if (append && force) {
        throw new HoldfastError('INVALID_PARAMETER', '--append and --force exclude each other', {
          hint: '--append keeps the file and adds to it; --force replaces it.',
        });
      }
      const { json, ...options } = cli.options();
      const { deps, terminal } = cli;
      const report = await inFlight(cli, () =>
        deps.init({
          ...options,
          providers: provider,
          settings: set,
          namespace,
          append,
          force,
          principal: principalOf(deps),
          signal: deps.signal,
          onProgress: (progress) => terminal.status(progressBar(progress)),
        }),
      );
      if (json) terminal.json(report);
      else print(cli, report);
      cli.exit = exitOf(report);
    });
}

function exitOf({ outcome, entities, providers }: InitReport): number {
  if (outcome !== 'nothing' || entities.length > 0) return EXIT.ok;
  const failed = providers.find(({ code }) => code !== undefined)?.code;
  if (failed !== undefined) return ERROR_CODES[failed].exit;
  return providers.some(({ state }) => state === 'looked') ? EXIT.ok : ERROR_CODES.AUTHENTICATION_FAILED.exit;
}

function print(cli: Cli, report: InitReport): void {
  const { terminal } = cli;
  const { file, outcome, entities, providers, variables, text } = report;
  for (const provider of providers) printProvider(cli, provider, outcome === 'nothing' && entities.length === 0);
  terminal.line('');
  for (const { key, defines, notes, state } of entities) {
    const word = {
      new: styled('green', 'new'),
      known: styled('dim', 'in the file already'),
      left_out: styled('yellow', 'left out'),
    }[state];
    terminal.line(styled('bold', key), ` ${defines}: `, word);
    for (const note of state === 'known' ? [] : notes) terminal.line(`  ${note}`);
  }
  if (entities.length > 0) terminal.line('');
  switch (outcome) {
    case 'nothing':
      terminal.line(
        entities.length === 0
          ? 'Nothing was found, and nothing was written.'
          : 'Nothing is new, and nothing was written.',
      );
      return;
    case 'shown':
      for (const line of text?.split('\n') ?? []) terminal.line(line);
      terminal.line(`${file} is there and was left as it is. --append adds what stands above, --force writes it anew.`);
      return;
    default:
      terminal.line(styled('green', outcome === 'written' ? 'Written: ' : 'Added to: '), file);
  }
  if (variables.length > 0) terminal.line(`It refers to: ${variables.join(', ')}`);
  const { sandbox, config } = cli.options();
  // In a sandbox every command has the databases of the sandbox, not those of the file.
  const program = sandbox ? `holdfast --config ${shellWord(config ?? file)}` : programName(cli);
  terminal.note(styled('dim', `Next: look at the file, then: ${program} check`));
}

function printProvider(
  { terminal }: Cli,
  { title, state, looked, found, problems, credentials, code }: LookedAt,
  all: boolean,
): void {
  const words = {
    looked: `${looked ?? ''}: ${found} found`,
    no_credentials: 'no credentials were found',
    not_possible: 'cannot be looked through; declare its databases by hand',
    failed: 'could not be looked at',
  };
  const style = { looked: 'green', no_credentials: 'dim', not_possible: 'dim', failed: 'red' } as const;
  terminal.line(`${title}: `, styled(style[state], words[state]));
  for (const problem of problems) terminal.line('  ', styled('yellow', problem));
  if (!all || (state !== 'no_credentials' && code !== 'AUTHENTICATION_FAILED')) return;
  for (const [index, place] of credentials.entries()) terminal.line(`  ${index + 1}. ${place}`);
}
