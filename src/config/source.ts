import { readFileSync, statSync } from 'node:fs';
import {
  boolCoreTag,
  EVENT_ID,
  type Event,
  floatCoreTag,
  getScalarValue,
  intCoreTag,
  type MappingEvent,
  NOT_RESOLVED,
  nullCoreTag,
  parseEvents,
  SCALAR_STYLE,
  type ScalarEvent,
  type ScalarTagDefinition,
  type SequenceEvent,
  strTag,
  YAMLException,
} from 'js-yaml';
import type { JsonObject, JsonValue } from '../core/json.ts';
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

type Words = readonly [message: string, suggestion?: string];
type Complain = (offset: number, words: Words) => void;

// Our own words: the parser's may quote the file, and the file may hold what should not be in it.
const TOO_LARGE: Words = ['the entities file is larger than 1 MiB', 'Split it and use include.'];
const TOO_DEEP: Words = ['the YAML is nested too deeply to be read', 'Flatten it.'];
const CONTROL: Words = ['a control character', 'Remove it; in quotes write it as \\x00.'];
const DIRECTIVE: Words = ['a YAML directive that is not known', 'Remove the line that begins with %.'];
const TAG: Words = [
  'a YAML tag that is not known here',
  'Remove the tag; name secrets as ${env:NAME} or ${file:/path}.',
];
const TAB: Words = ['a tab in the indentation', 'Indent with spaces.'];
const MISSING_SIGN: Words = ['a quote, a bracket or a colon is missing'];
const SECOND_COLON: Words = ['a second colon in one line', 'Put the value in quotes.'];
const VALUE_BEGIN: Words = ['a value that cannot begin like this', 'Put the value in quotes.'];
const KEY_ALONE: Words = ['a key without its value', 'Write key: value on one line.'];
const INDENTATION: Words = ['indentation that does not fit, or a quote or bracket that is not closed'];
const ESCAPE: Words = [
  'an escape that is not known in double quotes',
  'Use single quotes, or write the backslash twice.',
];
const TWICE: Words = ['a key that stands twice in one mapping', 'Remove or rename one of them.'];
const NO_WORD: Words = ['a key that is no plain word', 'Use text as the key.'];
const NO_ANCHOR: Words = ['an alias without its anchor', 'Define the anchor (&name) earlier in the same document.'];
const CIRCLE: Words = ['an alias that holds itself', 'Write the value out.'];
const EXPANDS: Words = ['aliases that expand too far', 'Write the values out.'];
const NO_MERGE: Words = ['what << merges is no mapping', 'Name a mapping: <<: *name.'];

/** The document can be read in spite of these, so that what else is wrong with it is told as well. */
const PASSABLE: readonly Words[] = [TAG, TWICE, NO_MERGE];
/** How many faults of one document are told. */
const MOST_FAULTS = 20;
const UNPRINTABLE = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u0084\u0086-\u009f\ufffe\uffff]/g;

/** Parses YAML into documents with positions. A document with faults of syntax is left out; the others are kept. */
export function parseSource(text: string, shown: string): Source {
  const faults: ConfigFault[] = [];
  const place = placesIn(text, shown);
  const complain: Complain = (offset, [message, suggestion]) => {
    faults.push({ ...place(offset), path: '', message, suggestion });
  };
  if (text.length > LARGEST_FILE) {
    complain(0, TOO_LARGE);
    return { documents: [], faults };
  }
  const control = text.search(UNPRINTABLE);
  if (control !== -1) complain(control, CONTROL);
  // What stands around it may have faults of its own.
  const printable = control === -1 ? text : text.replace(UNPRINTABLE, ' ');

  const documents = piecesOf(printable, complain).flatMap(([start, end]) =>
    composeDocuments(printable.slice(start, end), (offset, words) => complain(start + offset, words)).map(
      (root): SourceDocument => ({
        value: root.value,
        at: (path, onKey = false) => place(start + (startOf(root, path, onKey) ?? 0)),
      }),
    ),
  );
  return { documents, faults };
}

/** Gives the line and column of an offset. The lines are counted when the first is asked for. */
function placesIn(text: string, file: string): (offset: number) => Position {
  let starts: number[] | undefined;
  return (offset) => {
    starts ??= [0, ...Array.from(text.matchAll(/\r\n?|\n/g), (end) => end.index + end[0].length)];
    let line = 0;
    for (let above = starts.length; above - line > 1; ) {
      const middle = (line + above) >> 1;
      if ((starts[middle] ?? 0) <= offset) line = middle;
      else above = middle;
    }
    return { file, line: line + 1, column: offset - (starts[line] ?? 0) + 1 };
  };
}

/** A line that ends a document, whatever stands open before it. */
const MARKER = /(^|[\r\n])(?:(---)(?=[ \t\r\n]|$)|\.\.\.[ \t]*(?:(?<=[ \t])#[^\r\n]*)?(?=[\r\n]|$))/g;
/** Directives stand before the `---` of their document, after comments at most. */
const HAS_DIRECTIVES = /^\ufeff?(?:[ \t]*(?:#[^\r\n]*)?[\r\n])*%/;
const UNKNOWN_DIRECTIVE = /(?<=^|[\r\n])%(?!(?:YAML|TAG)[ \t])/g;

/**
 * Gives where each document begins and ends. They are parsed one by one: the parser stops at the first fault, and a
 * fault in one document must not hide those of the next.
 */
function piecesOf(text: string, complain: Complain): [number, number][] {
  const pieces: [number, number][] = [];
  let start = 0;
  let directives = HAS_DIRECTIVES.test(text);
  for (const { 0: found, 1: lineEnd = '', 2: begins, index } of text.matchAll(MARKER)) {
    const marker = index + lineEnd.length;
    if (begins !== undefined && directives) {
      for (const unknown of text.slice(start, marker).matchAll(UNKNOWN_DIRECTIVE)) {
        complain(start + unknown.index, DIRECTIVE);
      }
      directives = false;
      continue;
    }
    const end = begins === undefined ? index + found.length : marker;
    pieces.push([start, end]);
    start = end;
    directives = begins === undefined && HAS_DIRECTIVES.test(text.slice(end));
  }
  return [...pieces, [start, text.length]];
}

/** Part of a document: a value, where it begins, and what it is made of. */
interface Part {
  readonly value: JsonValue;
  /** Undefined where nothing is written. */
  readonly start: number | undefined;
  /** Characters of text with every alias written out. */
  readonly size: number;
  readonly isAlias?: boolean;
  readonly items?: readonly Part[];
  readonly pairs?: readonly Pair[];
}

interface Pair {
  readonly name: string;
  readonly key: Part;
  readonly value: Part;
}

/** Gives the documents of a text, each unless it has faults of syntax. */
function composeDocuments(text: string, complain: Complain): Part[] {
  let events: Event[];
  try {
    events = parseEvents(text, {});
  } catch (cause) {
    if (!(cause instanceof YAMLException)) throw cause;
    complain(...syntaxFault(cause, text));
    return [];
  }
  let told = 0;
  let sound = true;
  const parts = compose(text, events, (offset, words) => {
    told += 1;
    if (told <= MOST_FAULTS) complain(offset, words);
    if (!PASSABLE.includes(words)) sound = false;
  });
  return sound ? parts : [];
}

/** Makes values of a parser's events: the core schema of YAML 1.2, and `<<`. */
function compose(text: string, events: readonly Event[], refuse: Complain): Part[] {
  /** Undefined while what an anchor names is not at its end. */
  const anchors = new Map<string, Part | undefined>();
  let repeated = 0;
  let next = 0;

  const documents: Part[] = [];
  while (next < events.length) {
    next += 1;
    anchors.clear();
    documents.push(part());
    next += 1;
  }
  return documents;

  function atEnd(): boolean {
    const event = events[next];
    return event === undefined || event.type === EVENT_ID.POP;
  }

  function part(): Part {
    const event = events[next];
    next += 1;
    if (event === undefined || event.type === EVENT_ID.POP || event.type === EVENT_ID.DOCUMENT) return nothing();
    const anchor = event.anchorStart === -1 ? undefined : text.slice(event.anchorStart, event.anchorEnd);
    if (event.type === EVENT_ID.ALIAS) return repeat(anchor ?? '', event.anchorStart - 1);
    if (anchor !== undefined) anchors.set(anchor, undefined);
    const made =
      event.type === EVENT_ID.SCALAR ? scalar(event) : event.type === EVENT_ID.SEQUENCE ? list(event) : mapping(event);
    if (anchor !== undefined) anchors.set(anchor, made);
    return made;
  }

  function nothing(start?: number): Part {
    return { value: null, start, size: 1 };
  }

  function tagOf({ tagStart, tagEnd }: { readonly tagStart: number; readonly tagEnd: number }): string | undefined {
    const tag = tagStart === -1 ? '!' : text.slice(tagStart, tagEnd).replace(/^!<tag:yaml\.org,2002:(.*)>$/, '!!$1');
    return tag === '!' ? undefined : tag;
  }

  function scalar(event: ScalarEvent): Part {
    const source = getScalarValue(text, event);
    const tag = tagOf(event);
    const isPlain = event.style === SCALAR_STYLE.PLAIN && event.tagStart === -1;
    const value = tag === undefined ? (isPlain ? plainValue(source) : source) : tagged(source, tag);
    if (value === NOT_RESOLVED) refuse(event.tagStart, TAG);
    return {
      value: value === NOT_RESOLVED ? source : value,
      start: event.valueStart === -1 ? undefined : scalarStart(text, event),
      size: source.length + 1,
    };
  }

  function list(event: SequenceEvent): Part {
    if ((tagOf(event) ?? '!!seq') !== '!!seq') refuse(event.tagStart, TAG);
    const items: Part[] = [];
    while (!atEnd()) items.push(part());
    next += 1;
    return { value: items.map(({ value }) => value), start: event.start, size: sizeOf(items), items };
  }

  function mapping(event: MappingEvent): Part {
    const { start } = event;
    if ((tagOf(event) ?? '!!map') !== '!!map') refuse(event.tagStart, TAG);
    const value: JsonObject = {};
    const pairs: Pair[] = [];
    const names = new Set<string>();
    const parts: Part[] = [];
    while (!atEnd()) {
      const merges = isMergeKey(text, events[next]);
      const key = part();
      const member = part();
      parts.push(key, member);
      if (merges) {
        merge(value, member, key.start ?? start);
        continue;
      }
      if (key.isAlias === true || key.items !== undefined || key.pairs !== undefined)
        refuse(key.start ?? start, NO_WORD);
      const name = String(key.value ?? '');
      if (names.has(name)) refuse(key.start ?? start, TWICE);
      names.add(name);
      pairs.push({ name, key, value: member });
      setMember(value, name, member.value);
    }
    next += 1;
    return { value, start, size: sizeOf(parts), pairs };
  }

  /** What is merged yields to what the mapping says itself, before or after it. */
  function merge(into: JsonObject, member: Part, start: number): void {
    for (const source of member.items ?? [member]) {
      if (source.pairs === undefined) refuse(source.start ?? start, NO_MERGE);
      else {
        for (const [name, value] of Object.entries(source.value as Record<string, JsonValue>)) {
          if (!Object.hasOwn(into, name)) setMember(into, name, value);
        }
      }
    }
  }

  /** Gives what an alias names: the same value, not a copy. */
  function repeat(name: string, start: number): Part {
    const target = anchors.get(name);
    if (target === undefined) {
      refuse(start, anchors.has(name) ? CIRCLE : NO_ANCHOR);
      return nothing(start);
    }
    // Whoever goes through the values goes through all that is repeated.
    if (repeated <= LARGEST_FILE && repeated + target.size > LARGEST_FILE) refuse(start, EXPANDS);
    repeated += target.size;
    return { ...target, start, isAlias: true };
  }
}

function sizeOf(parts: readonly Part[]): number {
  return parts.reduce((sum, { size }) => sum + size, 1);
}

function isMergeKey(text: string, event: Event | undefined): boolean {
  return (
    event?.type === EVENT_ID.SCALAR &&
    event.style === SCALAR_STYLE.PLAIN &&
    event.tagStart === -1 &&
    text.slice(event.valueStart, event.valueEnd) === '<<'
  );
}

function setMember(object: JsonObject, name: string, value: JsonValue): void {
  // Assigned, this name would set the prototype.
  if (name === '__proto__')
    Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
  else object[name] = value;
}

type Scalar = string | number | boolean | null;
type ScalarTag = ScalarTagDefinition<Scalar>;
const PLAIN_TAGS: readonly ScalarTag[] = [nullCoreTag, boolCoreTag, intCoreTag, floatCoreTag];
const TAGS: ReadonlyMap<string, ScalarTag> = new Map<string, ScalarTag>([
  ['!!str', strTag],
  ['!!null', nullCoreTag],
  ['!!bool', boolCoreTag],
  ['!!int', intCoreTag],
  ['!!float', floatCoreTag],
]);

function plainValue(source: string): Scalar {
  if (/^[^-+.\d~nNtTfF]/.test(source)) return source;
  for (const tag of PLAIN_TAGS) {
    const value = tag.resolve(source, false, tag.tagName);
    if (value !== NOT_RESOLVED) return value;
  }
  return source;
}

function tagged(source: string, name: string): Scalar | typeof NOT_RESOLVED {
  const tag = TAGS.get(name);
  return tag === undefined ? NOT_RESOLVED : tag.resolve(source, true, tag.tagName);
}

/** Where a scalar begins: with its quote or its `|`, which the parser's offset leaves out. */
function scalarStart(text: string, { style, valueStart }: ScalarEvent): number {
  if (style === SCALAR_STYLE.PLAIN) return valueStart;
  if (style === SCALAR_STYLE.SINGLE_QUOTED || style === SCALAR_STYLE.DOUBLE_QUOTED) return valueStart - 1;
  const above = text.slice(0, valueStart).replace(/(?:\r\n?|\n)$/, '');
  const line = lineStart(above, above.length);
  const header = above.slice(line).search(/[|>][-+\d]{0,2}[ \t]*(?:(?<=[ \t])#.*)?$/);
  return header === -1 ? valueStart : line + header;
}

function syntaxFault({ reason, mark }: YAMLException, text: string): [number, Words] {
  const offset = mark?.position ?? 0;
  const sign = text.charAt(offset);
  if (/^nesting/.test(reason)) return [offset, TOO_DEEP];
  if (/^tab /.test(reason)) return [offset, TAB];
  if (/printable|JSON character|null byte/.test(reason)) return [offset, CONTROL];
  if (/escape|hexadecimal/.test(reason)) return [offset, ESCAPE];
  if (/directive|YAML version/.test(reason)) return [offset, DIRECTIVE];
  if (/\btag\b/.test(reason)) return [offset, TAG];
  if (/quoted scalar|flow collection|whitespace character/.test(reason)) return [offset, MISSING_SIGN];
  if (/anchor|alias|node content|line break/.test(reason)) return [offset, VALUE_BEGIN];
  const line = lineStart(text, offset);
  if (/multiline key|':' after/.test(reason)) {
    // The parser stops behind the word, or at the colon of the line below that it took for more of it.
    const end = text.slice(0, sign === ':' ? line : offset).trimEnd().length;
    return [firstOf(text, lineStart(text, end)), KEY_ALONE];
  }
  if (!/indentation|document separator/.test(reason)) return [offset, ['the YAML cannot be read here']];
  if (sign !== '' && '@`%'.includes(sign)) return [offset, VALUE_BEGIN];
  if (sign !== ':') return [offset, INDENTATION];
  if (/:[ \t]/.test(text.slice(line, offset))) return [offset, SECOND_COLON];
  return [firstOf(text, line), /^bad/.test(reason) ? INDENTATION : KEY_ALONE];
}

function lineStart(text: string, offset: number): number {
  const before = text.slice(0, offset);
  return Math.max(before.lastIndexOf('\n'), before.lastIndexOf('\r')) + 1;
}

/** The first sign of a line that is no blank. */
function firstOf(text: string, line: number): number {
  return line + text.slice(line).search(/[^ \t]|$/);
}

/** Gives where a value or its key begins; where the path leads nowhere, the nearest part that is there. */
function startOf(root: Part, path: readonly PropertyKey[], onKey: boolean): number | undefined {
  let part = root;
  let key: Part | undefined;
  let near = root.start;
  let whole = true;
  for (const segment of path) {
    const pair = part.pairs === undefined ? undefined : membersOf(part.pairs).get(String(segment));
    const member = pair?.value ?? part.items?.[Number(segment)];
    if (member === undefined) {
      // A missing member: its mapping is where to add it, which is best shown by the mapping's own key.
      whole = false;
      break;
    }
    key = pair?.key;
    part = member;
    near = part.start ?? key?.start ?? near;
  }
  const showKey = key !== undefined && (onKey || !whole || part.value === '');
  return (showKey ? key?.start : part.start) ?? near;
}

const members = new WeakMap<readonly Pair[], ReadonlyMap<string, Pair>>();

function membersOf(pairs: readonly Pair[]): ReadonlyMap<string, Pair> {
  let known = members.get(pairs);
  if (known === undefined) {
    // Sections accept hyphens for underscores, so a path may spell a key otherwise than the file.
    known = new Map([
      ...pairs.map((pair) => [pair.name.replaceAll('-', '_'), pair] as const),
      ...pairs.map((pair) => [pair.name, pair] as const),
    ]);
    members.set(pairs, known);
  }
  return known;
}
