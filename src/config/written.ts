import type { z } from 'zod';
import { HoldfastError } from '../core/errors.ts';
import { isObject } from '../core/json.ts';
import { type LocalFault, pathText, schemaFaults, secretFault, unknownKey } from './faults.ts';
import {
  type Environment,
  HOW_VARIABLES_ARRIVE,
  isSecretReference,
  parseReferences,
  type Reference,
  readReference,
} from './references.ts';
import { childSchema, unwrap, walkWritten } from './schema-walk.ts';

type Path = readonly PropertyKey[];

/** A reference with its place: secrets are read by whoever uses them, the others when the whole is resolved. */
export interface LocatedReference extends Reference {
  readonly path: Path;
  readonly secret: boolean;
}

/** Something written in the file together with the schema that it must fit. */
export interface Written<Output = unknown> {
  /** How messages call it: `entity 'shop/carts'`. */
  readonly where: string;
  readonly schema: z.core.$ZodType<Output>;
  /** As written, `$$` made `$` in texts that hold no reference. */
  readonly value: unknown;
  readonly references: readonly LocatedReference[];
  readonly baseDirectory: string;
  /** What the schema made of it; undefined while it waits for a reference. */
  readonly parsed: Output | undefined;
}

/**
 * Checks what is written against its schema without reading anything else. Faults of the schema at values that hold a
 * reference are left for `resolveWritten`, when the values are known.
 */
export function inspectWritten<Output>(
  where: string,
  value: unknown,
  schema: z.core.$ZodType<Output> & { safeParse: z.ZodType<Output>['safeParse'] },
  baseDirectory: string,
): { written: Written<Output>; faults: LocalFault[] } {
  const faults: LocalFault[] = [];
  const references: LocatedReference[] = [];
  let prepared = value;
  // What is written stays as it is, and is copied where something of it has to change.
  const copy = (): unknown => {
    if (prepared === value) prepared = structuredClone(value);
    return prepared;
  };
  walkWritten(value, schema, {
    text: (text, path, secrecy) => {
      const parts = parseReferences(text);
      const isReference = isSecretReference(parts);
      if (isExpression(text)) faults.push(expressionFault(text, path, secrecy === 'always'));
      else if (secrecy === 'always' && !isReference) faults.push(secretFault(path));
      else if ('message' in parts) faults.push({ path, ...parts });
      else {
        const found = parts.filter((part) => typeof part === 'object');
        const secret = secrecy !== 'never' && isReference;
        for (const reference of found) references.push({ ...reference, path, secret });
        if (found.length === 0 && text.includes('$')) setAt(copy(), path, parts.join(''));
      }
    },
    unknown: (path, known) => {
      faults.push(unknownKey(path, known));
      deleteAt(copy(), path);
    },
  });

  const waiting = references.filter((reference) => !reference.secret).map((reference) => reference.path);
  const result = schema.safeParse(prepared);
  if (!result.success) {
    const own = new Set(faults.map((fault) => pathText(fault.path)));
    for (const fault of schemaFaults(result.error.issues, prepared, schema)) {
      if (own.has(pathText(fault.path)) || waiting.some((path) => excuses(path, fault))) continue;
      faults.push(fault);
    }
  }
  const parsed = result.success && waiting.length === 0 && faults.length === 0 ? result.data : undefined;
  return { written: { where, schema, value: prepared, references, baseDirectory, parsed }, faults };
}

/**
 * Gives what was written with its references read, parsed by its schema.
 * @throws {HoldfastError} CONFIG_INVALID naming the variable or file and what needs it
 */
export function resolveWritten<Output>(written: Written<Output>, env: Environment): Output {
  if (written.parsed !== undefined) return written.parsed;
  const { where, schema, baseDirectory } = written;
  const value = structuredClone(written.value);
  const waiting = written.references.filter((reference) => !reference.secret);
  const texts = new Map(waiting.map(({ path }) => [pathText(path), path]));
  for (const [name, path] of texts) {
    const parts = parseReferences(String(getAt(written.value, path))) as readonly (string | Reference)[];
    const text = parts
      .map((part) =>
        typeof part === 'string' ? part : readReference(part, env, baseDirectory, `${where} ('${name}')`),
      )
      .join('');
    // An empty default stands for "not given".
    if (text === '' && parts.length === 1) deleteAt(value, path);
    else setAt(value, path, parts.length === 1 ? toScalar(text, schemaAt(schema, path)) : text);
  }
  const result = (schema as z.ZodType<Output>).safeParse(value);
  if (result.success) return result.data;

  const [fault] = schemaFaults(result.error.issues, value, schema);
  const from = waiting.filter(({ path }) => fault !== undefined && excuses(path, fault));
  const sources = (from.length === 0 ? waiting : from).map(
    ({ kind, name }) => `${kind === 'env' ? 'variable' : 'file'} '${name}'`,
  );
  throw new HoldfastError(
    'CONFIG_INVALID',
    `${where}: ${fault?.message ?? 'is not valid'} (from the ${[...new Set(sources)].join(' and the ')})`,
    {
      hint: fault?.suggestion ?? `Give it a value that fits. ${HOW_VARIABLES_ARRIVE}`,
      details: { path: fault === undefined ? '' : pathText(fault.path) },
    },
  );
}

/** Tells whether a value is an expression of the action guide, `<- connection-target("project") …`. */
export function isExpression(text: string): boolean {
  return /^\s*<-/.test(text);
}

function expressionFault(text: string, path: Path, secret: boolean): LocalFault {
  // Only the function's name: an argument may be anything.
  const name = /^\s*<-\s*([a-z][a-z-]{0,40})(?=[\s(]|$)/.exec(text)?.[1];
  const variable = String(path.at(-1) ?? 'value')
    .replace(/[^A-Za-z0-9]+/g, '_')
    .toUpperCase();
  const value = secret ? `\${env:${variable}} or \${file:/path}` : `the value itself or \${env:${variable}}`;
  return {
    path,
    message: `'${pathText(path)}' holds an expression that Holdfast cannot resolve: <- ${name ?? ''}…`,
    suggestion: `Write ${value}.`,
  };
}

function excuses(waiting: Path, fault: LocalFault): boolean {
  if (fault.fromSchema === undefined) return false;
  const [reference, at] = [pathText(waiting), pathText(fault.path)];
  if (at === reference || at.startsWith(`${reference}.`)) return true;
  // A rule over several parameters cannot be judged before all of them are known.
  return fault.fromSchema === 'whole' && (at === '' || reference.startsWith(`${at}.`));
}

function schemaAt(schema: z.core.$ZodType, path: Path): z.core.$ZodType | undefined {
  return path.reduce<z.core.$ZodType | undefined>(
    (inner, key) => (inner === undefined ? undefined : childSchema(inner, key)),
    schema,
  );
}

/** Variables are text: where the schema takes a number or a truth value, a text that is one becomes one. */
function toScalar(text: string, schema: z.core.$ZodType | undefined): unknown {
  if (schema === undefined) return text;
  const { def } = (unwrap(schema) as z.core.$ZodTypes)._zod;
  if (def.type === 'number' && /^-?\d+(?:\.\d+)?$/.test(text)) return Number(text);
  if (def.type === 'boolean' && /^(?:true|false)$/.test(text)) return text === 'true';
  if (def.type !== 'union') return text;
  return def.options.map((option) => toScalar(text, option)).find((value) => typeof value !== 'string') ?? text;
}

function getAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown> | undefined)?.[key], value);
}

function setAt(value: unknown, path: Path, member: unknown): void {
  const holder = getAt(value, path.slice(0, -1));
  const key = path.at(-1);
  if (key !== undefined && (isObject(holder) || Array.isArray(holder)))
    (holder as Record<PropertyKey, unknown>)[key] = member;
}

function deleteAt(value: unknown, path: Path): void {
  const holder = getAt(value, path.slice(0, -1));
  const key = path.at(-1);
  if (key !== undefined && isObject(holder)) delete holder[String(key)];
}
