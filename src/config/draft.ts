import type { JsonObject, JsonValue } from '../core/json.ts';
import { isObject } from '../core/json.ts';
import { cleanText } from '../core/text.ts';
import type { EntityTypes } from './entities.ts';
import { unusedName } from './example.ts';
import { loadConfig, RESERVED } from './load.ts';
import { isSecretReferenceText } from './references.ts';
import { walkWritten } from './schema-walk.ts';
import { yamlText } from './yaml-text.ts';

/** What was seen of one provider's account. */
export interface DraftSource {
  readonly title: string;
  /** Where it looked; undefined where it did not. */
  readonly looked?: string | undefined;
  /** Why it did not look, or what it could not look at. */
  readonly problems: readonly string[];
  readonly found: readonly {
    readonly defines: string;
    readonly name: string;
    readonly parameters: JsonObject;
    readonly notes: readonly string[];
  }[];
}

export interface DraftOptions {
  readonly entityTypes: EntityTypes;
  readonly sources: readonly DraftSource[];
  readonly namespace: string;
  /** The day, `2026-11-21`. */
  readonly date: string;
  /** Written at every entity: a sandbox, a private endpoint. */
  readonly endpoint?: string | undefined;
  /** What else the first lines have to say, one sentence each. */
  readonly remarks?: readonly string[] | undefined;
  /** `<namespace>/<name>` that are taken. */
  readonly taken?: readonly string[] | undefined;
}

/** An entity of the draft. */
export interface Drafted {
  readonly key: string;
  readonly defines: string;
  readonly notes: readonly string[];
}

export interface Draft {
  /** Documents of an entities file; they load without faults. */
  readonly text: string;
  readonly entities: readonly Drafted[];
  /** What was found and could not be declared, and why. */
  readonly left_out: readonly { readonly name: string; readonly defines: string; readonly why: string }[];
  /** The environment variables that the entities refer to. */
  readonly variables: readonly string[];
}

const LONGEST_NOTE = 300;
const LONGEST_COMMENT = 2000;
/** What stands where a secret was taken out of what a provider said. */
const MASK = '***';
/** How often parameters that do not fit may be left out of one entity. */
const MOST_ROUNDS = 20;

/** Drafts an entities file from what providers showed. What a provider said stands in values and comments only, and refers to nothing. */
export function draftEntities(options: DraftOptions): Draft {
  const { entityTypes, sources, namespace, endpoint } = options;
  const prefix = `${namespace}/`;
  const used = new Set([
    ...RESERVED,
    ...(options.taken ?? []).flatMap((key) => (key.startsWith(prefix) ? [key.slice(prefix.length)] : [])),
  ]);
  const entities: Drafted[] = [];
  const left_out: { name: string; defines: string; why: string }[] = [];
  const variables = new Set<string>();
  const blocks: string[] = [];
  for (const { title, looked, found } of sources) {
    if (found.length === 0) continue;
    blocks.push(comment(looked === undefined ? title : `${title}: ${looked}`));
    for (const { defines, name, parameters, notes } of found) {
      const known = Object.hasOwn(entityTypes, defines) ? entityTypes[defines] : undefined;
      const own = unusedName(properName(name), used);
      const sound =
        known === undefined
          ? { why: `${defines} is no entity type` }
          : fitting(options, own, defines, {
              ...escaped(parameters, known.type.schema),
              ...(endpoint === undefined ? {} : { endpoint }),
            });
      if (sound.value === undefined) {
        used.delete(own);
        left_out.push({ name: own, defines, why: sound.why });
        blocks.push(comment(`Found and left out: ${own}, ${defines}: ${sound.why}`));
        continue;
      }
      const told = [...notes, ...sound.dropped]
        .map((note) => cleanText(note, LONGEST_NOTE))
        .filter((note) => note !== '');
      for (const variable of sound.variables) variables.add(variable);
      entities.push({ key: `${prefix}${own}`, defines, notes: told });
      blocks.push([...told.map((note) => comment(note)), entityText(own, sound.value)].join(''));
    }
  }
  const head = headOf(options, [...variables].sort());
  const text = `${head}\nnamespace: ${namespace}\n\n${blocks.join('\n')}`;
  return { text, entities, left_out, variables: [...variables].sort() };
}

/** Makes a name that a namespace or an entity can have out of any text. */
export function properName(text: string, otherwise = 'database'): string {
  const name = cleanText(text, 80)
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '');
  return name === '' ? otherwise : name;
}

function headOf({ sources, date, remarks = [] }: DraftOptions, variables: readonly string[]): string {
  const lines = [
    `Written by holdfast init on ${date} from what the credentials show. Read it, keep what you want, then: holdfast check`,
    ...remarks,
    'Secrets never stand in this file.',
    variables.length === 0
      ? 'The credentials come from the chain of each provider.'
      : `It refers to these environment variables: ${variables.join(', ')}`,
    '',
    'Looked at:',
    ...sources.flatMap(({ title, looked, found, problems }) =>
      looked === undefined
        ? [`  ${title}: ${problems.join('; ') || 'nothing'}`]
        : [`  ${title}: ${looked}: ${found.length} found`, ...problems.map((problem) => `    ${problem}`)],
    ),
  ];
  return lines.map((line) => comment(line)).join('');
}

// One line, whatever it holds: what follows a line break would be no comment.
function comment(line: string): string {
  const indent = /^ */.exec(line)?.[0] ?? '';
  return `# ${indent}${cleanText(line, LONGEST_COMMENT)}`.trimEnd().concat('\n');
}

function entityText(name: string, value: JsonObject): string {
  return yamlText({ [name]: value });
}

interface Sound {
  readonly value: JsonObject;
  /** What was left out of it, and why. */
  readonly dropped: readonly string[];
  readonly variables: readonly string[];
}

/** Leaves out of an entity what its schema does not take, as long as the rest is an entity. */
function fitting(
  { entityTypes, namespace }: DraftOptions,
  name: string,
  defines: string,
  parameters: JsonObject,
): Sound | { readonly value?: undefined; readonly why: string } {
  const masked = Object.keys(parameters).filter((key) => JSON.stringify(parameters[key]).includes(MASK));
  const dropped = masked.map((key) => `${key} is left out: it holds a secret.`);
  let rest: JsonObject = Object.fromEntries(Object.entries(parameters).filter(([key]) => !masked.includes(key)));
  for (let round = 0; round < MOST_ROUNDS; round += 1) {
    const value: JsonObject = { defines, ...rest };
    const text = yamlText({ namespace, [name]: value });
    const { faults, entities } = loadConfig({ text, entityTypes, strict: false });
    const [fault] = faults;
    if (fault === undefined) {
      const variables = entities.flatMap(({ references }) =>
        references.flatMap((reference) => (reference.kind === 'env' ? [reference.name] : [])),
      );
      return { value, dropped, variables };
    }
    const parameter = fault.path.slice(`${namespace}/${name}.`.length).split('.')[0] ?? '';
    if (!Object.hasOwn(rest, parameter)) return { why: fault.message };
    dropped.push(`${parameter} is left out: ${fault.message}`);
    const { [parameter]: _, ...others } = rest;
    rest = others;
  }
  return { why: 'too much of it does not fit' };
}

/**
 * Gives parameters as the file has to write them: a `$` that a provider said is a plain one. Only where a secret is
 * named by reference and nothing else can stand, a reference is one.
 */
function escaped(parameters: JsonObject, schema: Parameters<typeof walkWritten>[1]): JsonObject {
  const references = new Set<string>();
  walkWritten(parameters, schema, {
    text: (text, path, secrecy) => {
      if (secrecy === 'always' && isSecretReferenceText(text)) references.add(JSON.stringify(path));
    },
    unknown: () => {},
  });
  const walk = (value: JsonValue, path: readonly PropertyKey[]): JsonValue => {
    if (typeof value === 'string') return references.has(JSON.stringify(path)) ? value : value.replaceAll('$', '$$$$');
    if (Array.isArray(value)) return value.map((member, index) => walk(member, [...path, index]));
    if (!isObject(value)) return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, member]) => [key, walk(member as JsonValue, [...path, key])]),
    );
  };
  return walk(parameters, []) as JsonObject;
}

const IDENTITY = /(?:^|_)(?:id|identifier|name|arn)$|^(?:project|dataset|database|branch)$/;
// Two databases of one name may differ in nothing else; alone they are no identity.
const PLACE = /^(?:host|port|region|location)$/;
const CREDENTIAL = /^(?:client|tenant|access|api|account_key|kms|key)_/;

/**
 * Tells whether an entity of a file is the database that a provider showed: of one type, with every part of its identity
 * and its place that both have, and at least one of the identity.
 */
export function isSameDatabase(
  declared: { readonly defines: string; readonly parameters: Readonly<Record<string, unknown>> },
  found: { readonly defines: string; readonly parameters: Readonly<Record<string, unknown>> },
): boolean {
  if (declared.defines !== found.defines) return false;
  // A URL hides where it leads: whether it is the same place nobody can see here.
  if (String(declared.parameters['connection_url']) !== String(found.parameters['connection_url'])) return false;
  const shared = Object.keys(found.parameters).filter(
    (key) => (IDENTITY.test(key) || PLACE.test(key)) && !CREDENTIAL.test(key) && declared.parameters[key] !== undefined,
  );
  return (
    shared.some((key) => IDENTITY.test(key)) &&
    shared.every((key) => String(declared.parameters[key]) === String(found.parameters[key]))
  );
}
