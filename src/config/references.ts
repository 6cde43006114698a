import { readFileSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { HoldfastError } from '../core/errors.ts';

/** The largest secret or value file that is read. */
export const LARGEST_VALUE_FILE = 64 * 1024;

/** How a variable gets to Holdfast, for hints: clients hand down very few by themselves. */
export const HOW_VARIABLES_ARRIVE =
  'MCP clients pass on only a few variables: name it under "env" in the client\'s entry for holdfast, or use ${file:/path}.';

export type Environment = Readonly<Record<string, string | undefined>>;

/** Something outside the file that a value names. */
export interface Reference {
  readonly kind: 'env' | 'file';
  readonly name: string;
  readonly fallback?: string | undefined;
}

type Part = string | Reference;

const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** Why a value with a `$` cannot be read. */
export interface ReferenceFault {
  readonly message: string;
  readonly suggestion: string;
}

/** Reads a value into literal texts and references: `${env:NAME}`, `${env:NAME:-default}`, `${file:/path}`, `$$` for `$`. */
export function parseReferences(text: string): readonly Part[] | ReferenceFault {
  if (!text.includes('$')) return [text];
  const parts: Part[] = [];
  let literal = '';
  for (let at = 0; at < text.length; at += 1) {
    if (text.startsWith('$$', at)) {
      literal += '$';
      at += 1;
    } else if (text.startsWith('${', at)) {
      const end = text.indexOf('}', at);
      const reference = end === -1 ? undefined : parseReference(text.slice(at + 2, end));
      if (reference === undefined) {
        return {
          message: 'a reference that cannot be read',
          suggestion: 'Write ${env:NAME}, ${env:NAME:-default} or ${file:/path}; write $$ for a plain $.',
        };
      }
      if (literal !== '') parts.push(literal);
      literal = '';
      parts.push(reference);
      at = end;
    } else literal += text[at];
  }
  if (literal !== '' || parts.length === 0) parts.push(literal);
  return parts;
}

function parseReference(inner: string): Reference | undefined {
  const [, kind, rest] = /^(env|file):(.+)$/s.exec(inner) ?? [];
  if (kind === 'file' && rest !== undefined) return { kind, name: rest };
  if (kind !== 'env' || rest === undefined) return undefined;
  const split = rest.indexOf(':-');
  const name = split === -1 ? rest : rest.slice(0, split);
  if (!VARIABLE.test(name)) return undefined;
  return { kind, name, fallback: split === -1 ? undefined : rest.slice(split + 2) };
}

/** Tells whether a text is one well-formed secret reference and nothing else. */
export function isSecretReferenceText(text: string): boolean {
  return isSecretReference(parseReferences(text));
}

/** Tells the same of a text that `parseReferences` has read. */
export function isSecretReference(parts: readonly Part[] | ReferenceFault): boolean {
  if ('message' in parts) return false;
  const [only, ...more] = parts;
  return more.length === 0 && typeof only === 'object' && only.fallback === undefined;
}

/**
 * Gives what a reference stands for now. An empty variable counts as not set.
 * @throws {HoldfastError} CONFIG_INVALID naming the variable or file, never its value
 */
export function readReference(reference: Reference, env: Environment, baseDirectory: string, where: string): string {
  if (reference.kind === 'file') return readValueFile(resolve(baseDirectory, reference.name), reference.name, where);
  const value = env[reference.name] || reference.fallback;
  if (value === undefined) {
    throw new HoldfastError('CONFIG_INVALID', `the variable '${reference.name}' is not set, and ${where} needs it`, {
      hint: `Set ${reference.name} for Holdfast, then start it again. ${HOW_VARIABLES_ARRIVE}`,
      details: { variable: reference.name },
    });
  }
  return value;
}

/** Reads a small text file without the line break at its end. */
export function readValueFile(path: string, name: string, where: string): string {
  const refuse = (problem: string, hint: string): HoldfastError =>
    new HoldfastError('CONFIG_INVALID', `the file '${name}' ${problem}, and ${where} needs it`, {
      hint,
      details: { file: name },
    });
  try {
    const stats = statSync(path);
    if (!stats.isFile()) throw refuse('is no regular file', 'Name a plain text file.');
    if (stats.size > LARGEST_VALUE_FILE)
      throw refuse('is larger than 64 KiB', 'Name a file that holds only the value.');
    return readFileSync(path, 'utf8').replace(/\r?\n$/, '');
  } catch (cause) {
    if (cause instanceof HoldfastError) throw cause;
    const missing = (cause as { code?: unknown }).code === 'ENOENT';
    throw refuse(
      missing ? 'is not there' : 'cannot be read',
      'Create it, readable for the user that Holdfast runs as.',
    );
  }
}
