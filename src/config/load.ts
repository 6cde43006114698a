import { existsSync, statSync } from 'node:fs';
import { dirname, isAbsolute, relative, resolve } from 'node:path';
import type { z } from 'zod';
import { HoldfastError } from '../core/errors.ts';
import { isObject } from '../core/json.ts';
import { DEFAULT_POLICY, type PolicyConfig } from '../core/policy.ts';
import { didYouMean } from '../core/text.ts';
import { StorageConfig } from '../storage/config.ts';
import {
  declareEntity,
  type EntityDeclaration,
  type EntityTypes,
  type KnownEntityType,
  takesStore,
} from './entities.ts';
import { type ConfigFault, type LocalFault, pathText, printable, schemaFaults, unknownKey } from './faults.ts';
import { expandGlob, isGlob, matchesWildcards } from './glob.ts';
import { GuardSection, normaliseSection } from './guard-schema.ts';
import { type Environment, parseReferences } from './references.ts';
import { walkWritten } from './schema-walk.ts';
import { type AlertsConfig, AlertsSection, type ServerConfig, ServerSection, TOKEN_COMMAND } from './sections.ts';
import { type Position, parseSource, readText, type SourceDocument } from './source.ts';
import { inspectWritten, type LocatedReference, resolveWritten, type Written } from './written.ts';

export interface LoadOptions {
  /** The entities file. */
  readonly path?: string | undefined;
  /** Its text instead, for tests and the sandbox. */
  readonly text?: string | undefined;
  /** What relative paths start from: the file's own folder when left out. */
  readonly baseDirectory?: string | undefined;
  readonly entityTypes: EntityTypes;
  /** Where `unset` looks; nothing else is read from it. */
  readonly env?: Environment | undefined;
}

/** A place for backups as the file declares it; `resolveStorage` makes it usable. */
export interface StorageDeclaration {
  readonly name: string;
  readonly at: Position;
  readonly written: Written<StorageConfig>;
}

/** What a file says, as far as it could be read. */
export interface ConfigReport {
  readonly baseDirectory: string;
  /** Every file that was read, the main one first. */
  readonly files: readonly string[];
  readonly namespaces: readonly string[];
  readonly entities: readonly EntityDeclaration[];
  /** Undefined where the policy cannot be known for sure: then nothing may run. */
  readonly guard: PolicyConfig | undefined;
  readonly storage: readonly StorageDeclaration[];
  readonly server: ServerConfig | undefined;
  readonly alerts: AlertsConfig | undefined;
  /** In the order of the files, lines and columns. */
  readonly faults: readonly ConfigFault[];
  /** What is allowed but hardly meant, such as a rule that matches no entity. */
  readonly warnings: readonly ConfigFault[];
  /** Variables and files that the file names and that are not there now; no fault before they are used. */
  readonly unset: readonly { readonly what: string; readonly reference: LocatedReference }[];
}

/** What a file says when nothing is wrong with it. */
export interface Config extends ConfigReport {
  readonly guard: PolicyConfig;
  readonly server: ServerConfig;
  readonly alerts: AlertsConfig;
}

/**
 * Reads an entities file with everything that it includes.
 * @throws {HoldfastError} CONFIG_INVALID naming the first fault, with all of them in `details.faults`; with
 * `strict: false` it gives the sound part and the faults instead
 */
export function loadConfig(options: LoadOptions & { strict: false }): ConfigReport;
export function loadConfig(options: LoadOptions & { strict?: true | undefined }): Config;
export function loadConfig(options: LoadOptions & { strict?: boolean | undefined }): ConfigReport {
  const report = read(options);
  if (options.strict !== false) assertSound(report.faults);
  return report;
}

/** @throws {HoldfastError} CONFIG_INVALID naming the first fault, with all of them in `details.faults` */
export function assertSound(faults: readonly ConfigFault[]): void {
  const [first, ...more] = faults;
  if (first === undefined) return;
  const others = more.length === 0 ? '' : ` (and ${more.length} more ${more.length === 1 ? 'fault' : 'faults'})`;
  throw new HoldfastError('CONFIG_INVALID', `${faultText(first)}${others}`, {
    hint: first.suggestion ?? 'Correct the entities file; holdfast check shows every fault.',
    details: { faults: faults.map((fault) => ({ ...fault })) },
  });
}

/** Writes a fault on one line: `holdfast.yaml:7:3: my-app/db.region: unknown parameter 'regoin'`. */
export function faultText(fault: ConfigFault): string {
  const place = `${fault.file}:${fault.line}:${fault.column}`;
  return fault.path === '' ? `${place}: ${fault.message}` : `${place}: ${fault.path}: ${fault.message}`;
}

/**
 * Gives a place for backups with its references read.
 * @throws {HoldfastError} CONFIG_INVALID naming the variable or file
 */
export function resolveStorage(declaration: StorageDeclaration, env: Environment): StorageConfig {
  return resolveWritten(declaration.written, env);
}

// Reading ------------------------------------------------------------------------------------------------------------

const SECTIONS = ['guard', 'storage', 'alerts', 'server'] as const;
type Section = (typeof SECTIONS)[number];
/** Keys at the top that no entity can have as its name. */
export const RESERVED: readonly string[] = ['namespace', 'include', ...SECTIONS];
const NAME = /^[a-z0-9][a-z0-9._-]{0,99}$/;
const MOST_FILES = 500;

interface Placed {
  readonly value: unknown;
  readonly document: SourceDocument;
}

/** An entity that was found; it is declared once every file is read, for it may name a store of another. */
interface FoundEntity {
  readonly namespace: string;
  readonly name: string;
  readonly defines: string;
  readonly at: Position;
  readonly document: SourceDocument;
  readonly value: Readonly<Record<string, unknown>>;
}

interface State {
  readonly baseDirectory: string;
  readonly entityTypes: EntityTypes;
  readonly files: string[];
  readonly faults: ConfigFault[];
  readonly warnings: ConfigFault[];
  readonly namespaces: Set<string>;
  readonly entities: Map<string, FoundEntity>;
  readonly sections: Map<Section, Placed>;
  /** Whether something could not be read that may have held the policy. */
  uncertain: boolean;
}

function read(options: LoadOptions): ConfigReport {
  const main = options.path === undefined ? undefined : resolve(options.path);
  const baseDirectory = resolve(options.baseDirectory ?? (main === undefined ? '.' : dirname(main)));
  const state: State = {
    baseDirectory,
    entityTypes: options.entityTypes,
    files: [],
    faults: [],
    warnings: [],
    namespaces: new Set(),
    entities: new Map(),
    sections: new Map(),
    uncertain: false,
  };
  if (options.text !== undefined)
    readDocuments(state, options.text, main ?? resolve(baseDirectory, 'holdfast.yaml'), []);
  else if (main !== undefined) readFileInto(state, main, []);
  else throw new HoldfastError('INTERNAL', 'loadConfig was given neither a path nor a text');

  const guard = readSection(state, 'guard', GuardSection, DEFAULT_POLICY);
  const server = readSection(state, 'server', ServerSection, ServerSection.parse({}));
  const alerts = readSection(state, 'alerts', AlertsSection, AlertsSection.parse({}));
  const storage = readStorage(state);
  const entities = [...state.entities.values()].flatMap((found) => declare(state, found) ?? []);
  if (guard !== undefined) warnOfIdleRules(state, guard, entities);
  warnOfAlerts(state);
  if (entities.length === 0 && state.faults.length === 0) {
    const file = shown(state, state.files[0] ?? 'holdfast.yaml');
    state.warnings.push({
      file,
      line: 1,
      column: 1,
      path: '',
      message: 'no database is declared',
      suggestion: 'Add one; holdfast.example.yaml has one of each kind.',
    });
  }
  return {
    baseDirectory,
    files: state.files,
    namespaces: [...state.namespaces],
    entities,
    guard: state.uncertain ? undefined : guard,
    storage,
    server,
    alerts,
    faults: inOrder(state, state.faults),
    warnings: inOrder(state, state.warnings),
    unset: unsetReferences(entities, storage, options.env ?? {}, baseDirectory),
  };
}

function readFileInto(state: State, file: string, including: readonly string[]): void {
  const text = readText(file, shown(state, file));
  if (typeof text === 'string') {
    warnOfMode(state, file);
    readDocuments(state, text, file, including);
    return;
  }
  state.files.push(file);
  state.faults.push(text);
  state.uncertain = true;
}

/** Whoever can write this file can change the policy. */
// A section that is read and not acted on would let people believe that somebody watches.
function warnOfAlerts(state: State): void {
  const placed = state.sections.get('alerts');
  if (placed === undefined) return;
  state.warnings.push({
    ...placed.document.at(['alerts'], true),
    path: 'alerts',
    message: 'this version sends no alerts: the section has no effect',
    suggestion: 'Watch the backups by other means until it does.',
  });
}

function warnOfMode(state: State, file: string): void {
  if (process.platform === 'win32' || (statSync(file).mode & 0o002) === 0) return;
  const message = 'every user of this machine can change this file, and the policy with it';
  state.warnings.push({
    file: shown(state, file),
    line: 1,
    column: 1,
    path: '',
    message,
    suggestion: 'Use mode 0644 or 0600.',
  });
}

function readDocuments(state: State, text: string, file: string, including: readonly string[]): void {
  state.files.push(file);
  const source = parseSource(text, shown(state, file));
  state.faults.push(...source.faults);
  if (source.faults.length > 0) state.uncertain = true;
  for (const document of source.documents) readDocument(state, document, file, including);
}

function readDocument(state: State, document: SourceDocument, file: string, including: readonly string[]): void {
  const { value } = document;
  if (value === null) return;
  if (!isObject(value)) {
    refuse(state, document, [], 'the document must be a mapping', 'Begin with namespace: my-app and the entities.');
    return;
  }
  const namespace = namespaceOf(state, document, value['namespace']);
  for (const [key, member] of Object.entries(value)) {
    if (key === 'namespace') continue;
    if (RESERVED.includes(key) && isObject(member) && 'defines' in member) {
      refuse(state, document, [key], `'${key}' is the name of a section`, 'Give the entity another name.', true);
    } else if (key === 'include') readIncludes(state, document, member, file, including);
    else if (isSection(key)) placeSection(state, key, { value: member, document });
    else readEntity(state, document, namespace, key, member);
  }
}

function isSection(key: string): key is Section {
  return SECTIONS.some((section) => section === key);
}

function namespaceOf(state: State, document: SourceDocument, value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value === 'string' && NAME.test(value)) {
    state.namespaces.add(value);
    return value;
  }
  refuse(state, document, ['namespace'], 'the namespace is no proper name', NAME_ADVICE);
  return undefined;
}

const NAME_ADVICE = 'Use lower-case letters, digits, dots, hyphens and underscores, beginning with a letter or digit.';

function readIncludes(
  state: State,
  document: SourceDocument,
  value: unknown,
  file: string,
  including: readonly string[],
): void {
  const chain = [...including, file];
  if (!Array.isArray(value)) readInclude(state, document, ['include'], value, chain);
  else for (const [index, entry] of value.entries()) readInclude(state, document, ['include', index], entry, chain);
}

/** `chain` is the file with this include and those that led to it. */
function readInclude(
  state: State,
  document: SourceDocument,
  path: readonly PropertyKey[],
  entry: unknown,
  chain: readonly string[],
): void {
  if (typeof entry !== 'string' || entry === '') {
    refuse(state, document, path, 'include must be a path or a list of paths', 'Write include: [databases/*.yaml].');
    return;
  }
  const file = chain.at(-1) as string;
  const target = resolve(dirname(file), entry);
  if (!isGlob(entry) && !existsSync(target)) {
    refuse(state, document, path, 'the included file is not there', 'Paths are relative to this file.');
    return;
  }
  for (const found of isGlob(entry) ? expandGlob(target) : [target]) {
    if (chain.includes(found)) {
      // A glob over a folder naturally meets the file that holds it; naming it outright is a mistake.
      if (found === file && isGlob(entry)) continue;
      refuse(state, document, path, 'the included file includes this one', 'Remove one of the two.');
    } else if (state.files.length >= MOST_FILES) {
      refuse(state, document, path, `more than ${MOST_FILES} files are included`, 'Include fewer.');
      return;
    } else if (!state.files.includes(found)) {
      readFileInto(state, found, chain);
    }
  }
}

function placeSection(state: State, section: Section, placed: Placed): void {
  const before = state.sections.get(section);
  if (before === undefined) {
    state.sections.set(section, placed);
    return;
  }
  const { file, line } = before.document.at([section], true);
  refuse(
    state,
    placed.document,
    [section],
    `the section '${section}' stands twice`,
    `The first is at ${file}:${line}; keep one.`,
    true,
  );
}

function readEntity(
  state: State,
  document: SourceDocument,
  namespace: string | undefined,
  name: string,
  value: unknown,
): void {
  const fault = (message: string, suggestion: string): void =>
    complain(state, document, [name], message, suggestion, true);
  if (!isObject(value) || !('defines' in value)) {
    const close = didYouMean(name, RESERVED);
    // It may be a misspelt `guard:`, and a policy that is not read is no policy.
    if (close.startsWith('Did you mean'))
      refuse(state, document, [name], `unknown section '${printable(name)}'`, close, true);
    else if (isObject(value))
      fault(`'${printable(name)}' has no 'defines'`, 'Say what it is: defines: postgresql/server.');
    else fault(`'${printable(name)}' is neither a section nor an entity`, `Sections are ${RESERVED.join(', ')}.`);
    return;
  }
  if (!NAME.test(name)) {
    fault(`'${printable(name)}' is no proper name for an entity`, NAME_ADVICE);
    return;
  }
  if (namespace === undefined) {
    // A namespace that is there and wrong has its own fault.
    if (isObject(document.value) && 'namespace' in document.value) return;
    fault(`'${name}' stands in a document without a namespace`, 'Begin each document with namespace: my-app.');
    return;
  }
  const key = `${namespace}/${name}`;
  const at = document.at([name], true);
  const before = state.entities.get(key);
  if (before !== undefined) {
    fault(`the entity '${key}' stands twice`, `The first is at ${before.at.file}:${before.at.line}; rename one.`);
    return;
  }
  const defines = typeof value['defines'] === 'string' ? value['defines'] : '';
  state.entities.set(key, { namespace, name, defines, at, document, value });
}

function declare(state: State, found: FoundEntity): EntityDeclaration | undefined {
  const { namespace, name, defines, document, value } = found;
  const known = entityType(state, defines);
  if (known === undefined) {
    const message = defines === '' ? "'defines' must be an entity type" : `unknown entity type '${printable(defines)}'`;
    complain(state, document, [name, 'defines'], message, didYouMean(defines, Object.keys(state.entityTypes)));
    return undefined;
  }
  const store = storeOf(state, found, known);
  if (store === 'unknown') return undefined;
  const written = store === undefined ? value : { ...value, storage: store };
  const { declaration, faults } = declareEntity({ ...found, baseDirectory: state.baseDirectory }, written, known);
  for (const fault of faults) addFault(state, document, fault, [name], `${namespace}/${name}`);
  if (faults.length > 0) return undefined;
  if (declaration.base.schedules === undefined) return declaration;
  return { ...declaration, place: (path, onKey) => document.at([found.name, ...path], onKey) };
}

/** The store of the section `storage` that an entity means: by its name, or the one called default where it names none. */
function storeOf(state: State, found: FoundEntity, { type }: KnownEntityType): unknown {
  const named = found.value['storage'];
  if (!takesStore(type) || (named !== undefined && typeof named !== 'string')) return undefined;
  const stores = storesOf(state.sections.get('storage')?.value);
  const store = stores.find(([name]) => name === (named ?? 'default'));
  if (store !== undefined || named === undefined) return store?.[1];
  const names = stores.map(([name]) => name);
  const advice =
    names.length === 0 ? 'Add it to the section storage, or write the store here.' : didYouMean(named, names);
  complain(
    state,
    found.document,
    [found.name, 'storage'],
    "'storage' names a store that the section storage does not have",
    advice,
  );
  return 'unknown';
}

/** The stores that a section holds, as written; one may be written without a name. */
function storesOf(value: unknown): [string, unknown][] {
  if (!isObject(value)) return [];
  return typeof value['type'] === 'string' ? [['default', value]] : Object.entries(value);
}

function entityType(state: State, defines: string): KnownEntityType | undefined {
  return Object.hasOwn(state.entityTypes, defines) ? state.entityTypes[defines] : undefined;
}

// Sections -----------------------------------------------------------------------------------------------------------

function readSection<Output>(
  state: State,
  name: Section,
  schema: z.ZodType<Output>,
  absent: Output,
): Output | undefined {
  const placed = state.sections.get(name);
  if (placed === undefined) return absent;
  const { document } = placed;
  const twice: PropertyKey[][] = [];
  const value = normaliseSection(placed.value ?? {}, twice);
  const faults: LocalFault[] = twice.map((path) => ({
    path,
    onKey: true,
    message: `'${pathText(path)}' stands twice, spelled two ways`,
  }));
  walkWritten(value, schema, {
    unknown: (path, known) => {
      faults.push(name === 'server' && isTokenLiteral(path) ? tokenFault(path) : unknownKey(path, known));
    },
    text: (text, path, secrecy) => {
      const parts = parseReferences(text);
      const names = !('message' in parts) && parts.some((part) => typeof part === 'object');
      if (names && secrecy === 'never' && name !== 'guard') {
        faults.push({
          path,
          message: `'${pathText(path)}' must be written out`,
          suggestion: 'References are possible in entities, storage and secrets only.',
        });
      }
    },
  });
  const own = new Set(faults.map((fault) => pathText(fault.path)));
  const result = schema.safeParse(value);
  if (!result.success) {
    faults.push(...schemaFaults(result.error.issues, value, schema).filter((fault) => !own.has(pathText(fault.path))));
  }
  for (const fault of faults) addFault(state, document, fault, [name], name);
  return result.success && faults.length === 0 ? result.data : undefined;
}

function isTokenLiteral(path: readonly PropertyKey[]): boolean {
  return (
    path.length === 3 &&
    path[0] === 'tokens' &&
    ['token', 'value', 'bearer', 'secret', 'key', 'hash'].includes(String(path[2]))
  );
}

function tokenFault(path: readonly PropertyKey[]): LocalFault {
  return {
    path,
    onKey: true,
    message: `'${pathText(path)}': a token is written as its SHA-256, never itself`,
    suggestion: `Write sha256 with the output of: ${TOKEN_COMMAND}`,
  };
}

function readStorage(state: State): StorageDeclaration[] {
  const placed = state.sections.get('storage');
  if (placed === undefined || placed.value === null) return [];
  const { value, document } = placed;
  if (!isObject(value)) {
    refuse(
      state,
      document,
      ['storage'],
      "'storage' must be a mapping of names to stores",
      'Write storage: { main: { type: local, path: /backups } }.',
    );
    return [];
  }
  const flat = typeof value['type'] === 'string';
  return storesOf(value).flatMap(([name, store]) => {
    const prefix = flat ? ['storage'] : ['storage', name];
    const shownAs = `storage.${printable(name)}`;
    if (!NAME.test(name)) {
      complain(state, document, prefix, `'${printable(name)}' is no proper name for a store`, NAME_ADVICE, true);
      return [];
    }
    const { written, faults } = inspectWritten(`storage '${name}'`, store, StorageConfig, state.baseDirectory);
    for (const fault of faults) addFault(state, document, fault, prefix, shownAs);
    return faults.length > 0 ? [] : [{ name, at: document.at(prefix, true), written }];
  });
}

// Faults -------------------------------------------------------------------------------------------------------------

/** A fault that may hide part of the policy. */
function refuse(
  state: State,
  document: SourceDocument,
  path: readonly PropertyKey[],
  message: string,
  suggestion?: string,
  onKey = false,
): void {
  state.uncertain = true;
  complain(state, document, path, message, suggestion, onKey);
}

function complain(
  state: State,
  document: SourceDocument,
  path: readonly PropertyKey[],
  message: string,
  suggestion?: string,
  onKey = false,
): void {
  state.faults.push({ ...document.at(path, onKey), path: '', message, suggestion });
}

function addFault(
  state: State,
  document: SourceDocument,
  fault: LocalFault,
  prefix: readonly PropertyKey[],
  shownAs: string,
): void {
  const inner = pathText(fault.path);
  state.faults.push({
    ...document.at([...prefix, ...fault.path], fault.onKey),
    path: inner === '' ? shownAs : `${shownAs}.${inner}`,
    message: fault.message,
    suggestion: fault.suggestion,
  });
}

function inOrder(state: State, faults: readonly ConfigFault[]): ConfigFault[] {
  const rank = new Map(state.files.map((file, index) => [shown(state, file), index]));
  const order = (fault: ConfigFault): number => rank.get(fault.file) ?? 0;
  return [...faults].sort((a, b) => order(a) - order(b) || a.line - b.line || a.column - b.column);
}

function shown(state: { baseDirectory: string }, file: string): string {
  const inside = relative(state.baseDirectory, file);
  return inside === '' || inside.startsWith('..') || isAbsolute(inside) ? file : inside;
}

/** A rule that matches nothing is most likely misspelt, and the databases that it was meant for are not protected. */
function warnOfIdleRules(state: State, guard: PolicyConfig, entities: readonly EntityDeclaration[]): void {
  const document = state.sections.get('guard')?.document;
  if (document === undefined || entities.length === 0) return;
  guard.rules.forEach((rule, index) => {
    for (const glob of rule.entity ?? []) {
      if (entities.some(({ base }) => matchesWildcards(glob, base.key))) continue;
      state.warnings.push({
        ...document.at(['guard', 'rules', index], false),
        path: `guard.rules.${index}.entity`,
        message: `the glob '${printable(glob)}' matches no entity`,
        suggestion: didYouMean(
          glob,
          entities.map(({ base }) => base.key),
        ),
      });
    }
  });
}

function unsetReferences(
  entities: readonly EntityDeclaration[],
  storage: readonly StorageDeclaration[],
  env: Environment,
  baseDirectory: string,
): { what: string; reference: LocatedReference }[] {
  const all = [
    ...entities.flatMap(({ base, references }) =>
      references.map((reference) => ({ what: `entity '${base.key}'`, reference })),
    ),
    ...storage.flatMap(({ written }) => written.references.map((reference) => ({ what: written.where, reference }))),
  ];
  return all.filter(({ reference }) => {
    if (reference.kind === 'file') return !existsSync(resolve(baseDirectory, reference.name));
    return !env[reference.name] && reference.fallback === undefined;
  });
}
