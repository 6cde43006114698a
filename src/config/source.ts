import { readFileSync, statSync } from 'node:fs';
import type { Document, YAMLError } from 'yaml';
import {
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseAllDocuments,
  visit,
  type YAMLMap,
} from 'yaml';
import type { JsonValue } from '../core/json.ts';
import type { ConfigFault } from './faults.ts';

/** The largest entities file that is read. */
export const LARGEST_FILE = 1024 * 1024;

export interface Position {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** One YAML document of a file: its value, and where each part of it stands. */
export interface SourceDocument {
  readonly value: JsonValue;
  /** The place of a value, or of its key; of the nearest part that exists where the path leads nowhere. */
  at(path: readonly PropertyKey[], onKey?: boolean): Position;
}

export interface Source {
  readonly documents: readonly SourceDocument[];
  readonly faults: readonly ConfigFault[];
}

/** Reads a file's bytes as text, or says why it cannot be an entities file. */
export function readText(path: string, shown: string): string | ConfigFault {
  const fault = (message: string, suggestion: string): ConfigFault => ({
    file: shown,
    line: 1,
    column: 1,
    path: '',
    message,
    suggestion,
  });
  try {
    const stats = statSync(path);
    if (!stats.isFile()) return fault('the entities file is no regular file', 'Name a YAML file.');
    if (stats.size > LARGEST_FILE) return fault('the entities file is larger than 1 MiB', 'Split it and use include.');
    return new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(path));
  } catch (cause) {
    if (cause instanceof TypeError) return fault('the entities file is not UTF-8', 'Save it as UTF-8.');
    const missing = (cause as { code?: unknown }).code === 'ENOENT';
    return fault(
      missing ? 'the entities file is not there' : 'the entities file cannot be read',
      missing ? 'Check the path.' : 'Make it readable for the user that Holdfast runs as.',
    );
  }
}

/** Parses YAML into documents with positions. A document with faults of syntax is left out; the others are kept. */
export function parseSource(text: string, shown: string): Source {
  const faults: ConfigFault[] = [];
  const lines = new LineCounter();
  const fault = (offset: number, message: string, suggestion?: string): void => {
    const { line, col } = lines.linePos(offset);
    faults.push({ file: shown, line: Math.max(1, line), column: Math.max(1, col), path: '', message, suggestion });
  };

  if (text.length > LARGEST_FILE) {
    fault(0, 'the entities file is larger than 1 MiB', 'Split it and use include.');
    return { documents: [], faults };
  }
  let parsed: Document.Parsed[];
  try {
    const all = parseAllDocuments(text, { lineCounter: lines, prettyErrors: false, merge: true, logLevel: 'error' });
    parsed = Array.isArray(all) ? (all as Document.Parsed[]) : [];
  } catch {
    fault(0, 'the YAML is nested too deeply to be read', 'Flatten it.');
    return { documents: [], faults };
  }

  const control = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/.exec(text);
  if (control !== null) fault(control.index, 'a control character', 'Remove it; in quotes write it as \\x00.');

  const documents = parsed.flatMap((document): SourceDocument[] => {
    const before = faults.length;
    for (const error of [...document.errors, ...document.warnings].slice(0, 20))
      fault(error.pos[0], ...syntaxText(error));
    const readable = document.errors.every((error) => error.code === 'DUPLICATE_KEY');
    if (!readable || !checkNodes(document, fault)) return [];
    try {
      const value = document.toJS({ maxAliasCount: 100 }) as JsonValue;
      return [{ value, at: (path, onKey = false) => positionOf(document, lines, shown, path, onKey) }];
    } catch {
      if (faults.length === before) fault(document.range[0], 'aliases that expand too far', 'Write the values out.');
      return [];
    }
  });
  return { documents, faults };
}

function checkNodes(
  document: Document.Parsed,
  fault: (offset: number, message: string, suggestion?: string) => void,
): boolean {
  let sound = true;
  const refuse = (node: Node, message: string, suggestion: string): void => {
    sound = false;
    fault(node.range?.[0] ?? 0, message, suggestion);
  };
  visit(document, {
    Alias(_key, node, path) {
      const target = node.resolve(document);
      if (target === undefined)
        refuse(node, 'an alias without its anchor', 'Define the anchor (&name) earlier in the same document.');
      else if (path.includes(target)) refuse(node, 'an alias that holds itself', 'Write the value out.');
    },
    Pair(_key, pair) {
      if (isNode(pair.key) && !isScalar(pair.key))
        refuse(pair.key, 'a key that is no plain word', 'Use text as the key.');
    },
  });
  return sound;
}

// Our own words: the library's may quote the file, and the file may hold what should not be in it.
function syntaxText(error: YAMLError): [string, string?] {
  switch (error.code) {
    case 'DUPLICATE_KEY':
      return ['a key that stands twice in one mapping', 'Remove or rename one of them.'];
    case 'TAB_AS_INDENT':
      return ['a tab in the indentation', 'Indent with spaces.'];
    case 'TAG_RESOLVE_FAILED':
      return ['a YAML tag that is not known here', 'Remove the tag; name secrets as ${env:NAME} or ${file:/path}.'];
    case 'MISSING_CHAR':
      return ['a quote, a bracket or a colon is missing'];
    case 'BAD_INDENT':
    case 'BLOCK_IN_FLOW':
      return ['indentation that does not fit, or a bracket that is not closed'];
    case 'BAD_SCALAR_START':
      return ['a value that cannot begin like this', 'Put the value in quotes.'];
    case 'BLOCK_AS_IMPLICIT_KEY':
      return ['a second colon in one line', 'Put the value in quotes.'];
    case 'MULTILINE_IMPLICIT_KEY':
      return ['a key without its value', 'Write key: value on one line.'];
    case 'BAD_DQ_ESCAPE':
      return ['an escape that is not known in double quotes', 'Use single quotes, or write the backslash twice.'];
    case 'BAD_DIRECTIVE':
      return ['a YAML directive that is not known', 'Remove the line that begins with %.'];
    default:
      return ['the YAML cannot be read here'];
  }
}

function positionOf(
  document: Document.Parsed,
  lines: LineCounter,
  file: string,
  path: readonly PropertyKey[],
  onKey: boolean,
): Position {
  let node: unknown = document.contents;
  let key: unknown;
  let whole = true;
  for (const segment of path) {
    const collection = isAlias(node) ? node.resolve(document) : node;
    const next = isMap(collection)
      ? memberOf(collection, segment)
      : isSeq(collection)
        ? { key: undefined, value: collection.items[Number(segment)] }
        : undefined;
    if (next === undefined) {
      // A missing member: its mapping is where to add it, which is best shown by the mapping's own key.
      whole = false;
      break;
    }
    key = next.key;
    node = next.value;
  }
  const showKey = key !== undefined && (onKey || !whole || !isNode(node) || (isScalar(node) && node.source === ''));
  const shown = showKey ? key : node;
  const range = isNode(shown) ? shown.range : isNode(key) ? key.range : undefined;
  const { line, col } = lines.linePos(range?.[0] ?? document.range[0]);
  return { file, line: Math.max(1, line), column: Math.max(1, col) };
}

const membersOf = new WeakMap<YAMLMap, Map<string, { key: unknown; value: unknown }>>();

function memberOf(map: YAMLMap, segment: PropertyKey): { key: unknown; value: unknown } | undefined {
  let members = membersOf.get(map);
  if (members === undefined) {
    const pairs = map.items.flatMap((pair) => (isScalar(pair.key) ? [[String(pair.key.value), pair] as const] : []));
    // Sections accept hyphens for underscores, so a path may spell a key otherwise than the file.
    members = new Map([...pairs.map(([key, pair]) => [key.replaceAll('-', '_'), pair] as const), ...pairs]);
    membersOf.set(map, members);
  }
  return members.get(String(segment));
}
