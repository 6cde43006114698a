import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as tools from '../../tools/index.ts';
import { type EntityTypes, resolveEntity } from '../config/entities.ts';
import { findConfig, stateDirectory as findStateDirectory } from '../config/find.ts';
import { assertSound, type Config, type ConfigReport, loadConfig } from '../config/load.ts';
import { secretReader } from '../config/secrets.ts';
import { HoldfastError } from '../core/errors.ts';
import { DEFAULT_POLICY } from '../core/policy.ts';
import type { Log } from '../core/runtime.ts';
import type { StateStore } from '../core/state.ts';
import type { Engine } from '../engine/api.ts';
import { type ConfiguredEntity, createEngine } from '../engine/engine.ts';
import { collect, type Registry } from '../engine/registry.ts';
import { createLog, logLevel } from '../observability/log.ts';
import { createRedactor, type Redactor } from '../observability/redaction.ts';
import { beginWork } from './small-start.ts';

export const registry: Registry = collect(tools);

export interface OpenOptions {
  /** `--config`; undefined: the environment or the working directory decides, and none at all is allowed. */
  readonly config: string | undefined;
  /** Reads no entities file, whatever there is: for what has to work beside a broken one. */
  readonly noConfig?: boolean | undefined;
  readonly stateDir: string | undefined;
  readonly sandbox: boolean;
  /** With `sandbox`: the port of the simulators; joined when a sandbox listens there already. 0 or undefined: any free one. */
  readonly sandboxPort?: number | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stderr: NodeJS.WritableStream;
  /** Shared with whoever else writes; a new one when left out. */
  readonly redactor?: Redactor | undefined;
}

export interface Opened {
  readonly engine: Engine;
  readonly log: Log;
  readonly redactor: Redactor;
  readonly config: Config | undefined;
  readonly stateDirectory: string;
  readonly store: StateStore;
  /** Has something done when the engine is closed, before the store is. */
  readonly beforeClose: (work: () => Promise<void>) => void;
  /** Where the simulators listen, in a sandbox. */
  readonly sandboxOrigin: string | undefined;
}

/**
 * Builds everything behind the surfaces. Reads the entities file and opens the state store; contacts no provider.
 * @throws {HoldfastError} CONFIG_INVALID with the first fault of the file, STATE_UNAVAILABLE
 */
export async function open(options: OpenOptions): Promise<Opened> {
  const { env, redactor = createRedactor() } = options;
  const log = createLog({ stream: options.stderr, redactor, level: logLevel(env['HOLDFAST_LOG']) });
  const stateDirectory = findStateDirectory({ flag: options.stateDir, env });
  const config = readConfig(options);
  if (hasSchedules(config)) {
    const { scheduleFaults } = await import('../schedule/check.ts');
    assertSound(await scheduleFaults(config.entities, registry));
  }
  const declared: ConfiguredEntity[] = (config?.entities ?? []).map((declaration) => ({
    base: declaration.base,
    resolve: async () => resolveEntity(declaration, env),
  }));
  const sandbox = options.sandbox ? await openSandbox(options.sandboxPort ?? 0) : undefined;
  const store = openAtFirstUse(async () => {
    const { openSqliteStore } = await import('../state/sqlite.ts');
    return openSqliteStore(join(stateDirectory, 'state.db'));
  });
  const secrets = secretReader({
    env,
    conceal: (value) => redactor.conceal(value),
    log,
    ...(config === undefined ? {} : { baseDirectory: config.baseDirectory }),
  });
  const closing: (() => Promise<void>)[] = sandbox === undefined ? [] : [sandbox.close];
  const engine = createEngine({
    version: VERSION,
    registry,
    entities: sandbox?.entities ?? declared,
    policy: config?.guard ?? DEFAULT_POLICY,
    store,
    stateDirectory,
    sandbox: options.sandbox,
    redactor,
    secrets: sandbox?.secrets ?? secrets,
    log,
    fetch: globalThis.fetch,
    now: () => new Date(),
    sleep: sandbox === undefined ? sleep : (ms, signal) => sleep(ms / sandbox.pace, signal),
    random: randomBytes,
    onCall: beginWork,
    onClose: async () => {
      for (const work of closing) await work();
    },
    ...(sandbox === undefined ? {} : { rateFactor: sandbox.pace }),
  });
  return {
    engine,
    log,
    redactor,
    config,
    stateDirectory,
    store,
    beforeClose: (work) => closing.unshift(work),
    sandboxOrigin: sandbox?.origin,
  };
}

export const VERSION: string = readVersion();

/** The entity types that the providers declare, as the entities file needs them. */
export const entityTypes: EntityTypes = Object.fromEntries(
  [...registry.entityTypes].map(([defines, { provider, type }]) => [defines, { provider: provider.id, type }]),
);

/** Finds the entities file that applies; undefined where there is none and none was asked for. */
export function configPath({ config: flag, env }: Pick<OpenOptions, 'config' | 'env'>): string | undefined {
  try {
    return findConfig({ flag, env });
  } catch (cause) {
    // Without a file there are no entities, and that is what a first start looks like.
    if (flag === undefined && !env['HOLDFAST_CONFIG']) return undefined;
    throw cause;
  }
}

/** Tells whether an entities file has anything that the clock calls: without it nothing of that is loaded. */
export function hasSchedules(config: ConfigReport | undefined): config is ConfigReport {
  return config?.entities.some(({ base }) => base.schedules !== undefined) === true;
}

function readConfig(options: Pick<OpenOptions, 'config' | 'noConfig' | 'env'>): Config | undefined {
  const path = options.noConfig === true ? undefined : configPath(options);
  return path === undefined ? undefined : loadConfig({ path, entityTypes, env: options.env });
}

// Only a sandbox loads the simulators.
async function openSandbox(port: number) {
  const { joinOrStartSandbox, SANDBOX_PACE, sandboxEntities } = await import('./sandbox.ts');
  const { PRIVATE_PASSWORD, sandboxPostgres } = await import('./private-postgres.ts');
  const sandbox = await joinOrStartSandbox(port);
  const postgres = sandboxPostgres(registry);
  return {
    origin: sandbox.origin,
    pace: SANDBOX_PACE,
    entities: [...sandboxEntities(registry, sandbox.origin), ...postgres.entities],
    secrets: {
      secret: async (ref: { name: string }) =>
        ref.name === PRIVATE_PASSWORD ? postgres.password() : 'sandbox-credential',
      credential: () => undefined,
    },
    close: async () => {
      await postgres.close();
      await sandbox.close();
    },
  };
}

/** A start and a list of tools need no state: the store is opened by whoever asks it first, and a failure is theirs. */
function openAtFirstUse(open: () => Promise<StateStore>): StateStore {
  let opened: Promise<StateStore> | undefined;
  const use = async (name: keyof StateStore, parameters: unknown[]): Promise<unknown> => {
    if (opened === undefined && name === 'close') return;
    opened ??= open();
    opened.catch(() => {
      opened = undefined;
    });
    const store = await opened;
    return (Reflect.get(store, name) as (...parameters: unknown[]) => unknown).apply(store, parameters);
  };
  return new Proxy({} as StateStore, {
    // Not a promise, whoever awaits it by mistake.
    get: (_, name) =>
      name === 'then' ? undefined : (...parameters: unknown[]) => use(name as keyof StateStore, parameters),
  });
}

/** The key that signs what clients carry between the rounds of a question; made at first use, shared by every process on this state. */
export function stateKey(stateDirectory: string): Uint8Array {
  const path = join(stateDirectory, 'state.key');
  try {
    writeFileSync(path, randomBytes(32), { flag: 'wx', mode: 0o600 });
  } catch (cause) {
    if ((cause as { code?: unknown }).code !== 'EEXIST')
      throw new HoldfastError('STATE_UNAVAILABLE', 'the state directory cannot be written', { cause });
  }
  return readFileSync(path);
}

function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', abort, { once: true });
  });
}

function readVersion(): string {
  // dist/ and src/program/ lie at different depths below package.json.
  for (const up of ['../package.json', '../../package.json']) {
    const path = new URL(up, import.meta.url);
    if (existsSync(path)) return (JSON.parse(readFileSync(path, 'utf8')) as { version: string }).version;
  }
  return '0.0.0';
}
