import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { type Draft, type DraftSource, draftEntities, isSameDatabase, properName } from '../config/draft.ts';
import { loadConfig } from '../config/load.ts';
import { isSecretReferenceText } from '../config/references.ts';
import { childSchema, secrecyOf } from '../config/schema-walk.ts';
import { asHoldfastError, HoldfastError } from '../core/errors.ts';
import { isObject, type JsonObject } from '../core/json.ts';
import type { Discovered, Provider } from '../core/provider.ts';
import { isSecretName } from '../core/secret-name.ts';
import { cleanText, didYouMean } from '../core/text.ts';
import type { InitOptions, InitReport, LookedAt } from '../surfaces/cli/deps.ts';
import { entityTypes, type OpenOptions, open, registry } from './open.ts';

/** How many providers are looked at at once. */
const AT_ONCE = 4;
/** How long one account may take to be looked through, in ms. */
const LOOK_LIMIT_MS = 120_000;
const NAMESPACE = /^[a-z0-9][a-z0-9._-]{0,99}$/;

/** Parameters of the sandbox's entities that say whose databases to look at, not which. Secrets count as well. */
const SCOPE: readonly string[] = [
  'region',
  'project',
  'project_id',
  'subscription_id',
  'tenant_id',
  'client_id',
  'organization_id',
  'org_id',
];

/** Credentials and scope as the file writes them, by the name of the parameter. */
type Access = Readonly<Record<string, string>>;

interface Look {
  readonly at: LookedAt;
  readonly access: Access;
  readonly found: readonly Discovered[];
}

/**
 * Looks through the accounts whose credentials it finds and writes an entities file of what it sees; an existing one only
 * where it is told to.
 * @throws {HoldfastError} INVALID_PARAMETER, CONFIG_INVALID, CANCELLED
 */
export async function init(
  options: InitOptions & Pick<OpenOptions, 'env' | 'stderr' | 'redactor'>,
): Promise<InitReport> {
  const file = filePath(options);
  const providers = chosenProviders(options.providers);
  const settings = readSettings(options.settings, providers);
  const namespace = options.namespace ?? properName(basename(dirname(file)), 'my-app');
  if (!NAMESPACE.test(namespace)) {
    throw new HoldfastError('INVALID_PARAMETER', `--namespace '${cleanText(namespace, 60)}' is no proper name`, {
      hint: 'Use lower-case letters, digits, dots, hyphens and underscores, beginning with a letter or digit.',
    });
  }
  const before = existsSync(file) && !options.force ? readFileSync(file, 'utf8') : undefined;
  const existing = before === undefined ? [] : declaredIn(file);

  const { config: _config, ...rest } = options;
  const { engine, sandboxOrigin } = await open({ ...rest, config: undefined, noConfig: true });
  let looks: Look[];
  try {
    looks = await lookAround(options, engine, providers, settings, sandboxOrigin);
  } finally {
    await engine.close();
  }
  const isKnown = (found: Discovered): boolean => existing.some((declared) => isSameDatabase(declared, found));
  const draft = draftEntities({
    entityTypes,
    sources: looks.map((look) => sourceOf(look, isKnown)),
    namespace,
    date: new Date().toISOString().slice(0, 10),
    // Without a port of its own the sandbox is gone when this is read.
    endpoint: options.sandboxPort === undefined ? undefined : sandboxOrigin,
    remarks: options.sandbox ? [sandboxRemark(options.sandboxPort)] : [],
    taken: existing.map(({ key }) => key),
  });
  const report = {
    file,
    providers: looks.map(({ at }) => at),
    entities: [
      ...draft.entities.map((entity) => ({ ...entity, state: 'new' as const })),
      ...draft.left_out.map(({ name, defines, why }) => ({
        key: `${namespace}/${name}`,
        defines,
        notes: [why],
        state: 'left_out' as const,
      })),
      ...looks
        .flatMap(({ found }) => found.filter(isKnown))
        .map((found) => ({
          key: existing.find((declared) => isSameDatabase(declared, found))?.key ?? found.name,
          defines: found.defines,
          notes: found.notes.map((note) => cleanText(note)),
          state: 'known' as const,
        })),
    ],
    variables: draft.variables,
  };
  if (draft.entities.length === 0) return { ...report, outcome: 'nothing' };
  return { ...report, outcome: write(options, file, before, draft), text: draft.text };
}

function filePath({ config, env }: Pick<OpenOptions, 'config' | 'env'>): string {
  const chosen = config || env['HOLDFAST_CONFIG'];
  const named = chosen ? resolve(chosen) : undefined;
  const file = named ?? ['holdfast.yaml', 'holdfast.yml'].map((name) => resolve(name)).find(existsSync);
  const path = file ?? resolve('holdfast.yaml');
  if (existsSync(path)) return realpathSync(path);
  if (existsSync(dirname(path))) return path;
  throw new HoldfastError(
    'INVALID_PARAMETER',
    `there is no folder '${cleanText(dirname(path))}' to write the file into`,
    {
      hint: 'Make the folder first, or name another file with --config.',
    },
  );
}

function chosenProviders(ids: readonly string[]): readonly Provider[] {
  const known = registry.providers.map(({ id }) => id);
  const wanted = ids.map((id) => id.replaceAll('_', '-'));
  const unknown = wanted.find((id) => !known.includes(id));
  if (unknown !== undefined) {
    throw new HoldfastError('INVALID_PARAMETER', `there is no provider '${cleanText(unknown, 60)}'`, {
      hint: didYouMean(unknown, known),
    });
  }
  return registry.providers.filter(({ id }) => wanted.length === 0 || wanted.includes(id));
}

// Credentials and scope -----------------------------------------------------------------------------------------------

/** Reads `--set`: what each provider is given, by its id. */
function readSettings(settings: readonly string[], providers: readonly Provider[]): ReadonlyMap<string, Access> {
  const given = new Map(providers.map(({ id }) => [id, {} as Record<string, string>]));
  for (const setting of settings) {
    const [, only, key = '', value = ''] = /^(?:([a-z0-9-]+)\.)?([a-z][a-z0-9_]*)=(.*)$/s.exec(setting) ?? [];
    if (key === '' || value === '') {
      throw new HoldfastError('INVALID_PARAMETER', 'a --set is not key=value', {
        hint: "For example: --set region=eu-west-1 --set neon.api_key='${env:NEON_KEY}'.",
      });
    }
    const takers = providers.filter((provider) => (only === undefined || provider.id === only) && takes(provider, key));
    if (takers.length === 0) {
      const known = providers.flatMap(parametersOf);
      throw new HoldfastError(
        'INVALID_PARAMETER',
        `no entity of ${only ?? 'these providers'} has a parameter '${cleanText(key, 60)}'`,
        { hint: didYouMean(key, known) },
      );
    }
    for (const provider of takers) {
      if ((isSecret(provider, key) || isSecretName(key)) && !isSecretReferenceText(value)) {
        throw new HoldfastError('INVALID_PARAMETER', `--set ${key} must name the secret, not hold it`, {
          hint: `Write --set ${key}='\${env:NAME}' or '\${file:/path}'. Everyone on this machine can read a command line.`,
        });
      }
      given.get(provider.id)![key] = value;
    }
  }
  return given;
}

function parametersOf(provider: Provider): string[] {
  return Object.values(provider.entityTypes).flatMap(({ schema }) => Object.keys(schema.shape));
}

function takes(provider: Provider, key: string): boolean {
  return parametersOf(provider).includes(key);
}

function isSecret(provider: Provider, key: string): boolean {
  return Object.values(provider.entityTypes).some(({ schema }) => {
    const child = childSchema(schema, key);
    return child !== undefined && secrecyOf(child) === 'always';
  });
}

/** Whose account the sandbox's own entities of a provider are in. */
function sandboxAccess(provider: Provider): Access {
  const types = Object.values(provider.entityTypes).filter(({ sandbox }) => sandbox !== undefined);
  const parameters = types.flatMap(({ sandbox }) => Object.entries(sandbox?.parameters ?? {}));
  return Object.fromEntries(
    parameters.filter(
      (entry): entry is [string, string] =>
        typeof entry[1] === 'string' && (isSecret(provider, entry[0]) || SCOPE.includes(entry[0])),
    ),
  );
}

/** Gives what a provider's `discover` takes: values as its schemas make them. */
function parsedAccess(provider: Provider, access: Access): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(access).map(([key, text]) => {
      for (const { schema } of Object.values(provider.entityTypes)) {
        const child = Object.hasOwn(schema.shape, key) ? schema.shape[key] : undefined;
        for (const value of [text, ...(/^\d{1,15}$/.test(text) ? [Number(text)] : [])]) {
          const parsed = child?.safeParse(value);
          if (parsed?.success === true) return [key, parsed.data];
        }
      }
      throw new HoldfastError('INVALID_PARAMETER', `--set ${key} has a value that ${provider.id} does not take`);
    }),
  );
}

// Looking -------------------------------------------------------------------------------------------------------------

async function lookAround(
  options: InitOptions,
  engine: Awaited<ReturnType<typeof open>>['engine'],
  providers: readonly Provider[],
  settings: ReadonlyMap<string, Access>,
  origin: string | undefined,
): Promise<Look[]> {
  const { principal, signal, onProgress, sandbox } = options;
  const done = new Map<string, Look>();
  const waiting = [...providers];
  const look = async (provider: Provider): Promise<Look> => {
    const { id, title } = provider;
    const access = { ...(sandbox ? sandboxAccess(provider) : {}), ...settings.get(id) };
    const credentials = await provider.guide?.().then(
      (guide) => [...guide.credentials],
      () => [],
    );
    const at = { provider: id, title, found: 0, problems: [], credentials: credentials ?? [] };
    const nothing = { access, found: [] };
    if (provider.discover === undefined) return { ...nothing, at: { ...at, state: 'not_possible' } };
    // What cannot be simulated must not be looked for in earnest.
    if (sandbox && Object.keys(sandboxAccess(provider)).length === 0) {
      return { ...nothing, at: { ...at, state: 'no_credentials' } };
    }
    const limit = AbortSignal.timeout(LOOK_LIMIT_MS);
    try {
      const discovery = await engine.discover({
        principal,
        provider: id,
        access: parsedAccess(provider, access),
        endpoint: origin,
        signal: AbortSignal.any([signal, limit]),
      });
      if (discovery === undefined) return { ...nothing, at: { ...at, state: 'no_credentials' } };
      const { found, problems } = discovery;
      const looked = cleanText(discovery.looked);
      const shown = problems.map((problem) => cleanText(problem, 300));
      return { access, found, at: { ...at, state: 'looked', looked, found: found.length, problems: shown } };
    } catch (cause) {
      if (signal.aborted) throw cause;
      const error = limit.aborted
        ? new HoldfastError('TIMEOUT', `it took longer than ${LOOK_LIMIT_MS / 1000} s`, { cause })
        : asHoldfastError(cause);
      const problems = [`${error.code}: ${error.message}. ${error.hint}`];
      return { ...nothing, at: { ...at, state: 'failed', problems, code: error.code } };
    }
  };
  const work = async (): Promise<void> => {
    for (let provider = waiting.shift(); provider !== undefined; provider = waiting.shift()) {
      onProgress({ message: `looking at ${provider.title}`, percent: (done.size / providers.length) * 100 });
      done.set(provider.id, await look(provider));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return providers.flatMap(({ id }) => done.get(id) ?? []);
}

function sourceOf({ at, access, found }: Look, isKnown: (found: Discovered) => boolean): DraftSource {
  const reason = {
    looked: [],
    no_credentials: ['no credentials were found'],
    not_possible: ['it cannot be looked through'],
    failed: [],
  }[at.state];
  return {
    title: at.title,
    looked: at.looked,
    problems: [...reason, ...at.problems],
    found: found
      .filter((candidate) => !isKnown(candidate))
      .map((candidate) => ({ ...candidate, parameters: withAccess(candidate, access) })),
  };
}

/** What a look was given by hand its databases need as well; where the provider's own chain was used they need nothing. */
function withAccess({ defines, parameters }: Discovered, access: Access): JsonObject {
  const keys = Object.keys(entityTypes[defines]?.type.schema.shape ?? {});
  const missing = Object.entries(access).filter(([key]) => keys.includes(key) && parameters[key] === undefined);
  return { ...parameters, ...Object.fromEntries(missing) };
}

function sandboxRemark(port: number | undefined): string {
  return port === undefined
    ? 'These databases were simulated and are gone: with --sandbox-port N the simulators can stay, and the file works.'
    : `These databases are simulated and there while something runs with --sandbox-port ${port}; any credential will do.`;
}

// The file ------------------------------------------------------------------------------------------------------------

function declaredIn(file: string): { key: string; defines: string; parameters: Record<string, unknown> }[] {
  const { entities } = loadConfig({ path: file, entityTypes, strict: false });
  return entities.map(({ base, parameters }) => ({
    key: base.key,
    defines: base.defines,
    parameters: isObject(parameters.value) ? parameters.value : {},
  }));
}

/** @throws {HoldfastError} CONFIG_INVALID where the whole would not load, or the file cannot be written */
function write(
  { force, append }: InitOptions,
  file: string,
  before: string | undefined,
  draft: Draft,
): 'written' | 'appended' | 'shown' {
  if (before !== undefined && !append) return 'shown';
  const isAddition = before !== undefined && before.trim() !== '';
  const text = isAddition ? `${before.replace(/\n*$/, '\n')}---\n${draft.text}` : draft.text;
  loadConfig({ text, path: file, entityTypes });
  try {
    if (!force && before === undefined) {
      writeFileSync(file, text, { flag: 'wx', mode: 0o600 });
      return 'written';
    }
    const mode = before === undefined ? 0o600 : statSync(file).mode & 0o777;
    replace(file, text, mode);
    return before === undefined ? 'written' : 'appended';
  } catch (cause) {
    throw new HoldfastError('CONFIG_INVALID', `the file '${cleanText(file)}' cannot be written`, {
      hint: 'Nothing was changed. Name a file in a folder that you may write to with --config.',
      cause,
    });
  }
}

// At no moment may there be half a file: servers read it when they start.
function replace(file: string, text: string, mode: number): void {
  const draft = join(dirname(file), `.${basename(file)}.${randomUUID().slice(0, 8)}`);
  try {
    writeFileSync(draft, text, { flag: 'wx', mode });
    renameSync(draft, file);
  } finally {
    rmSync(draft, { force: true });
  }
}
