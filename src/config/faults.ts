import type { z } from 'zod';
import { nearest } from '../core/text.ts';
import { isSecretAt } from './schema-walk.ts';

/** One thing wrong with the entities file. Its words never hold a value from the file, for that may be a secret. */
export interface ConfigFault {
  /** As the person named it: relative to the base directory where it lies inside. */
  readonly file: string;
  /** From 1. */
  readonly line: number;
  /** From 1. */
  readonly column: number;
  /** What it is about: `my-app/prod-postgres.backup_retention_period`, `guard.rules.0.decision`. */
  readonly path: string;
  readonly message: string;
  readonly suggestion?: string | undefined;
}

/** A fault without its place: where it is inside the value that was checked. */
export interface LocalFault {
  readonly path: readonly PropertyKey[];
  /** Whether it is about the key itself and not about its value. */
  readonly onKey?: boolean | undefined;
  /** What a schema says, apart from what is wrong with references, unknown keys and expressions. */
  readonly fromSchema?: 'value' | 'whole' | undefined;
  readonly message: string;
  readonly suggestion?: string | undefined;
}

/** Puts what a schema found wrong into our words, naming the place and never the value. */
export function schemaFaults(
  issues: readonly z.core.$ZodIssue[],
  input: unknown,
  schema: z.core.$ZodType,
): LocalFault[] {
  return issues.flatMap((issue) => toFaults(issue, input, schema));
}

function toFaults(issue: z.core.$ZodIssue, input: unknown, schema: z.core.$ZodType): LocalFault[] {
  const { path } = issue;
  const value = path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown> | undefined)?.[key], input);
  const name = path.length === 0 ? 'this' : `'${pathText(path)}'`;
  const fault = (message: string, suggestion?: string): LocalFault[] => [
    { path, message, suggestion, fromSchema: issue.code === 'custom' ? 'whole' : 'value' },
  ];
  if (value !== undefined && isSecretAt(schema, path)) return [secretFault(path)];
  switch (issue.code) {
    case 'invalid_type':
      if (value === undefined) return fault(`${name} is missing`);
      return fault(
        `${name} must be ${kindOf(issue.expected)}, not ${kindOfValue(value)}`,
        typeAdvice(issue.expected, value),
      );
    case 'invalid_value': {
      const options = issue.values.map(String);
      if (value === undefined) return fault(`${name} is missing`, `Write one of ${options.join(', ')}.`);
      const close = typeof value === 'string' ? nearest(value, options) : [];
      const list = options.length === 1 ? options[0] : `one of ${options.join(', ')}`;
      return fault(`${name} must be ${list}`, close.length === 0 ? undefined : `Did you mean ${close.join(' or ')}?`);
    }
    case 'too_small':
      return fault(`${name} must ${bound(issue.origin, 'at least', issue.minimum, issue.inclusive === false)}`);
    case 'too_big':
      return fault(`${name} must ${bound(issue.origin, 'at most', issue.maximum, issue.inclusive === false)}`);
    case 'not_multiple_of':
      return fault(`${name} must be a multiple of ${issue.divisor}`);
    case 'invalid_format':
      return fault(`${name} ${formatText(issue)}`);
    case 'unrecognized_keys':
      return issue.keys.map((key) => unknownKey([...path, key], []));
    case 'invalid_union':
      return unionFaults(issue, name, input, schema);
    case 'custom':
      return fault(path.length === 0 ? issue.message : `${name}: ${issue.message}`, suggestionOf(issue));
    default:
      return fault(`${name} is not valid`);
  }
}

/** Says that a literal stands where a secret may only be named. */
export function secretFault(path: readonly PropertyKey[]): LocalFault {
  const variable = String(path.at(-1) ?? 'secret')
    .replace(/[^A-Za-z0-9]+/g, '_')
    .toUpperCase();
  return {
    path,
    message: `'${pathText(path)}' must name a secret, not hold it`,
    suggestion: `Write \${env:${variable}} or \${file:/path/to/file}. If a real secret was in this file, replace it at the provider.`,
  };
}

/** Says that a key is not known, with what is close to it. */
export function unknownKey(
  path: readonly PropertyKey[],
  candidates: Iterable<string>,
  suggestion?: string,
): LocalFault {
  const key = String(path.at(-1));
  const all = [...candidates];
  const close = nearest(key.replaceAll('-', '_'), all);
  const advice =
    close.length > 0
      ? `Did you mean ${close.join(' or ')}?`
      : all.length > 0
        ? `There is: ${all.slice(0, 30).join(', ')}${all.length > 30 ? ', …' : ''}.`
        : undefined;
  return { path, onKey: true, message: `unknown parameter '${pathText(path)}'`, suggestion: suggestion ?? advice };
}

/** Writes a path with dots. Keys come from the file, so they are bounded. */
export function pathText(path: readonly PropertyKey[]): string {
  return path.map((key) => printable(String(key))).join('.');
}

/** A word from the file that may stand in a message: bounded, on one line. */
export function printable(text: string): string {
  const clean = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ');
  return clean.length <= 80 ? clean : `${clean.slice(0, 79)}…`;
}

// The branch that came closest speaks: the one that got deepest, then the one with the fewest faults.
function unionFaults(
  issue: z.core.$ZodIssueInvalidUnion,
  name: string,
  input: unknown,
  schema: z.core.$ZodType,
): LocalFault[] {
  const branches = issue.errors.map((errors) =>
    errors.map((inner) => ({ ...inner, path: [...issue.path, ...inner.path] })),
  );
  const depth = (branch: readonly z.core.$ZodIssue[]): number =>
    Math.max(0, ...branch.map((inner) => inner.path.length));
  const deepest = Math.max(0, ...branches.map(depth));
  if (deepest <= issue.path.length) {
    const kinds = branches.flat().flatMap((inner) => (inner.code === 'invalid_type' ? [kindOf(inner.expected)] : []));
    const only = branches.filter((branch) => branch.some((inner) => inner.code !== 'invalid_type'));
    // Where every branch wants text, the last one has the most to say: the ones before it take special forms.
    const spokesman = kinds.length === 0 || only.length === 1 ? only.at(-1) : undefined;
    if (spokesman !== undefined) return schemaFaults(spokesman, input, schema);
    const list = [...new Set(kinds)].join(' or ');
    return [
      { path: issue.path, fromSchema: 'value', message: `${name} ${list === '' ? 'is not valid' : `must be ${list}`}` },
    ];
  }
  const best = branches.filter((branch) => depth(branch) === deepest).sort((a, b) => a.length - b.length)[0];
  return schemaFaults(best ?? [], input, schema);
}

function suggestionOf(issue: z.core.$ZodIssueCustom): string | undefined {
  const suggestion = issue.params?.['suggestion'];
  return typeof suggestion === 'string' ? suggestion : undefined;
}

function formatText(issue: z.core.$ZodIssueInvalidStringFormat): string {
  // A schema's own words come first; zod's begin with "Invalid".
  if (!issue.message.startsWith('Invalid ')) return `does not fit: ${issue.message}`;
  if (issue.format === 'regex' && 'pattern' in issue) return `must match ${String(issue.pattern).slice(0, 120)}`;
  return `must be a valid ${issue.format}`;
}

function bound(origin: string, word: string, limit: number | bigint, exclusive: boolean): string {
  const figure = exclusive ? `${word === 'at least' ? 'more than' : 'less than'} ${limit}` : `${word} ${limit}`;
  if (origin === 'string') return limit === 1 && word === 'at least' ? 'not be empty' : `have ${figure} characters`;
  if (origin === 'array' || origin === 'set') return `have ${figure} ${limit === 1 ? 'entry' : 'entries'}`;
  return `be ${figure}`;
}

function kindOf(expected: string): string {
  const kinds: Record<string, string> = {
    string: 'text',
    number: 'a number',
    int: 'a whole number',
    boolean: 'true or false',
    array: 'a list',
    object: 'a mapping',
    record: 'a mapping',
  };
  return kinds[expected] ?? `of type ${expected}`;
}

function kindOfValue(value: unknown): string {
  if (value === null) return 'empty';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a mapping';
  return kindOf(typeof value);
}

function typeAdvice(expected: string, value: unknown): string | undefined {
  if (expected === 'string' && (typeof value === 'number' || typeof value === 'boolean'))
    return 'Put the value in quotes.';
  if (expected === 'boolean' && typeof value === 'string') {
    if (/^(?:yes|on|y)$/i.test(value)) return 'Write true.';
    if (/^(?:no|off|n)$/i.test(value)) return 'Write false.';
    if (/^(?:true|false)$/i.test(value)) return 'Leave out the quotes.';
  }
  if ((expected === 'number' || expected === 'int') && typeof value === 'string' && /^-?\d+(?:\.\d+)?$/.test(value)) {
    return 'Leave out the quotes.';
  }
  if (expected === 'array' && typeof value === 'string') return 'Write a list: [a, b].';
  return undefined;
}
