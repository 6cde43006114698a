import type { Command } from 'commander';
import { HoldfastError } from '../../core/errors.ts';
import { EXIT } from '../exit-statuses.ts';
import { readToolSet, type ToolSet } from '../tool-set.ts';
import { addCommand, type Cli, LAST_PORT, wholeNumber } from './context.ts';
import { styled } from './terminal.ts';

interface ServeFlags {
  http?: boolean;
  host?: string;
  port?: string;
  tools?: string;
}

/** Adds what runs until it is told to stop: `serve`, `sandbox` and `demo`. */
export function addServices(program: Command, cli: Cli): void {
  addCommand(
    program,
    'serve',
    'serve MCP over stdio, or over Streamable HTTP on /mcp',
    ['holdfast serve', 'holdfast serve --sandbox', 'holdfast serve --http --port 8080 --config ops/holdfast.yaml'],
    'An MCP client starts holdfast without arguments: with no terminal on stdin that is holdfast serve.',
  )
    .option('--http', 'serve HTTP instead of stdio')
    .option('--host <address>', 'the address to listen on (127.0.0.1); any other one needs authentication')
    .option('--port <n>', 'the port to listen on (7311); 0: any free one')
    .option('--tools <set>', 'all (one tool an action) or compact (two tools for all); HOLDFAST_TOOLS sets it too')
    .action(async (flags: ServeFlags) => {
      const { json: _json, ...options } = cli.options();
      if (flags.http !== true && (flags.host !== undefined || flags.port !== undefined)) {
        throw new HoldfastError('INVALID_PARAMETER', '--host and --port are about HTTP', { hint: 'Add --http.' });
      }
      await cli.deps.serve({
        ...options,
        transport: flags.http === true ? 'http' : 'stdio',
        host: flags.host,
        port: wholeNumber('--port', flags.port, 0, LAST_PORT),
        toolSet: flags.tools === undefined ? toolSetOf(cli) : readToolSet(flags.tools, '--tools'),
        signal: cli.deps.signal,
      });
    });
  addCommand(program, 'sandbox', 'run the provider simulators alone, for tests of other programs', [
    'holdfast sandbox --port 9400',
    'holdfast sandbox --json',
  ])
    .option('--port <n>', 'the port to listen on; any free one when left out')
    .action(async (flags: { port?: string }) => {
      cli.exit = await runSandbox(cli, wholeNumber('--port', flags.port, 0, LAST_PORT) ?? 0);
    });
  addCommand(
    program,
    'demo',
    'the whole story on a private PostgreSQL: back up, lose a table, be stopped, approve, restore',
    ['holdfast demo'],
  ).action(async () => {
    const { json } = cli.options();
    const print = (line: string): void => (json ? cli.terminal.note(line) : cli.terminal.line(line));
    cli.exit = await cli.deps.runDemo({ json, signal: cli.deps.signal, print });
  });
}

/** Serves MCP over stdio as `holdfast` without a command does when a client starts it. */
export async function serveStdio(cli: Cli): Promise<void> {
  const { json: _json, ...options } = cli.options();
  const rest = { host: undefined, port: undefined, toolSet: toolSetOf(cli), signal: cli.deps.signal };
  await cli.deps.serve({ ...options, transport: 'stdio', ...rest });
}

function toolSetOf({ deps }: Cli): ToolSet {
  return readToolSet(deps.env['HOLDFAST_TOOLS'], 'HOLDFAST_TOOLS');
}

const CONTROLS = [
  { route: 'GET /_journal', what: 'every request so far; ?provider= and ?writes=true narrow it; DELETE empties it' },
  {
    route: 'POST /_faults',
    what: '{"kind": "503", "provider": "…", "times": 2}: inject a fault; GET shows them, DELETE ends them',
  },
  { route: 'POST /_clock', what: '{"advance": "6h"} or {"frozen": true}: move or stop the simulated time' },
];

async function runSandbox(cli: Cli, port: number): Promise<number> {
  const { terminal, deps } = cli;
  const sandbox = await deps.startSandbox({ port });
  try {
    const { origin, endpoints } = sandbox;
    if (cli.options().json) {
      const controls = CONTROLS.map(({ route, what }) => ({ route, url: `${origin}${route.split(' ')[1]}`, what }));
      terminal.json({ origin, endpoints, controls });
    } else {
      terminal.line(styled('bold', 'Sandbox '), origin);
      const width = Math.max(...endpoints.map(({ defines }) => defines.length), 0);
      for (const { defines, url } of endpoints) terminal.line(`  ${defines.padEnd(width)}  endpoint: ${url}`);
      terminal.line(styled('bold', 'Controls'));
      for (const { route, what } of CONTROLS) terminal.line(`  ${route.padEnd(14)} ${what}`);
      terminal.note(styled('dim', 'Runs until Ctrl-C.'));
    }
    if (!deps.signal.aborted) {
      await new Promise((resolve) => deps.signal.addEventListener('abort', resolve, { once: true }));
    }
    return EXIT.ok;
  } finally {
    await sandbox.close();
  }
}
