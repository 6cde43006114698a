import { userInfo } from 'node:os';
import type { Principal } from '../core/principal.ts';
import { createLog, logLevel } from '../observability/log.ts';
import { createRedactor } from '../observability/redaction.ts';
import type { CliDeps, ServeOptions } from '../surfaces/cli/deps.ts';
import { toolSetNamed } from '../surfaces/tool-set.ts';
import { hasSchedules, type Opened, open, registry, stateKey, VERSION } from './open.ts';

/** How often a server looks for operations that another process left, in ms. */
const SWEEP_MS = 15_000;

/** Runs the command line of this process. Gives the exit status. */
export async function main(): Promise<number> {
  const controller = new AbortController();
  let interrupts = 0;
  process.on('SIGINT', () => {
    interrupts += 1;
    // Whoever insists gets out at once; what runs is found again by the next process.
    if (interrupts > 1) process.exit(130);
    controller.abort('SIGINT');
  });
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.once(signal, () => controller.abort('SIGTERM'));
  const { env, stdin, stdout, stderr } = process;
  const user = userName();
  // One for all: what the engine learns to mask, the command line's own log masks too.
  const redactor = createRedactor();
  const base = { env, stderr, redactor };
  const deps: CliDeps = {
    version: VERSION,
    openEngine: async (options) => (await open({ ...options, ...base })).engine,
    serve: async (options) => serve(options, await open({ ...options, ...base }), user),
    startSandbox: async ({ port }) => {
      const { sandboxEndpoints, startSandbox } = await import('./sandbox.ts');
      const { origin, close } = await startSandbox(port);
      return { origin, endpoints: sandboxEndpoints(registry, origin), close };
    },
    runDemo: async (options) => (await import('./demo.ts')).runDemo(options),
    runWal: async (options) => (await import('./wal.ts')).runWal(options, await open({ ...options, ...base }), user),
    checkConfig: async (options) => (await import('./check.ts')).checkConfig({ ...options, ...base }),
    lookThrough: async (options) => (await import('./catalog.ts')).lookThrough({ ...options, ...base }),
    openSchedules: async (options) => (await import('./schedules.ts')).openSchedules({ ...options, ...base }),
    init: async (options) => (await import('./init.ts')).init({ ...options, ...base }),
    stdin,
    stdout,
    stderr,
    env,
    signal: controller.signal,
    user,
    log: createLog({ stream: stderr, redactor, level: logLevel(env['HOLDFAST_LOG']) }),
  };
  // How clients start it, thousands of times: without the command line's own weight. What goes wrong is the command line's to tell.
  const plain = plainServe(process.argv.slice(2), env, controller.signal);
  const opened = plain === undefined ? undefined : await open({ ...plain, ...base }).catch(() => undefined);
  if (plain !== undefined && opened !== undefined) {
    await serve(plain, opened, user);
    return 0;
  }
  const { runCli } = await import('../surfaces/cli/program.ts');
  const status = await runCli(process.argv.slice(2), deps);
  // A pipe that is still being read must get the last line; then nothing may keep the process.
  await new Promise<void>((resolve) => stdout.write('', () => resolve()));
  setTimeout(() => process.exit(status), 2000).unref();
  return status;
}

/** Reads `serve` with its plainest options; undefined for anything else. */
function plainServe(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): ServeOptions | undefined {
  const [command, ...rest] = argv;
  if (command !== 'serve') return undefined;
  const found: { config?: string; stateDir?: string; tools?: string | undefined } = { tools: env['HOLDFAST_TOOLS'] };
  for (let index = 0; index < rest.length; index += 2) {
    const value = rest[index + 1];
    if (value === undefined || value.startsWith('-')) return undefined;
    if (rest[index] === '--config') found.config = value;
    else if (rest[index] === '--state-dir') found.stateDir = value;
    else if (rest[index] === '--tools') found.tools = value;
    else return undefined;
  }
  const toolSet = toolSetNamed(found.tools);
  if (toolSet === undefined) return undefined;
  return {
    config: found.config,
    stateDir: found.stateDir,
    sandbox: false,
    transport: 'stdio',
    host: undefined,
    port: undefined,
    toolSet,
    sandboxPort: undefined,
    signal,
  };
}

async function serve(options: ServeOptions, opened: Opened, user: string): Promise<void> {
  const { engine, log, config, stateDirectory, sandboxOrigin } = opened;
  try {
    const { buildServer } = await import('../surfaces/mcp/server.ts');
    const principal: Principal = { id: `stdio:${user}`, person: user, roles: ['operator'] };
    const deps = { engine, principal, stateKey: stateKey(stateDirectory), log, toolSet: options.toolSet };
    const factory = (context: Parameters<typeof buildServer>[1]) => buildServer(deps, context);
    if (sandboxOrigin !== undefined) process.stderr.write(`sandbox: the simulators listen on ${sandboxOrigin}\n`);

    // Nothing that another process left may delay the first answer.
    const sweep = (): void => {
      engine.resume().then(
        (taken) => {
          for (const { operation_id, action, entity } of taken)
            log.info('took over an unfinished operation', { operation_id, action, entity });
        },
        (cause: unknown) => log.warn('looking for unfinished operations failed', { cause: String(cause) }),
      );
    };
    let stopSchedules = (): void => {};
    const schedule = async (): Promise<void> => {
      const { runsSchedules, startSchedules } = await import('./schedules.ts');
      if (options.signal.aborted || !runsSchedules(process.env, config?.server)) return;
      const scheduler = await startSchedules(opened);
      stopSchedules = () => scheduler.stop();
    };
    const first = setTimeout(() => {
      sweep();
      if (!hasSchedules(config) || options.sandbox) return;
      schedule().catch((cause: unknown) => log.error('schedules are not run', { cause: String(cause) }));
    }, 200);
    const timer = setInterval(sweep, SWEEP_MS);
    try {
      const stopped = new Promise<void>((resolve) => {
        if (options.signal.aborted) resolve();
        options.signal.addEventListener('abort', () => resolve(), { once: true });
      });
      if (options.transport === 'stdio') {
        const { serveOnStdio } = await import('../surfaces/mcp/stdio.ts');
        const surface = serveOnStdio(factory, log);
        await Promise.race([surface.closed, stopped]);
        await surface.close();
      } else {
        const { serveHttp } = await import('../surfaces/mcp/http.ts');
        const { server } = config ?? {};
        const surface = await serveHttp(factory, {
          config: {
            ...server,
            ...(options.host === undefined ? {} : { host: options.host }),
            ...(options.port === undefined ? {} : { port: options.port }),
          },
          log,
        });
        process.stderr.write(`holdfast serves MCP on ${surface.url}\n`);
        await stopped;
        await surface.close();
      }
    } finally {
      clearTimeout(first);
      clearInterval(timer);
      stopSchedules();
    }
  } finally {
    await engine.close();
  }
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    // A container may run as a user without a name.
    return `uid-${process.getuid?.() ?? 'unknown'}`;
  }
}
