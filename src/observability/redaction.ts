import { AsyncLocalStorage } from 'node:async_hooks';
import { isSecretName } from '../core/secret-name.ts';
import { cleanText } from '../core/text.ts';

export const MASK = '***';

/** The shortest value that is masked wherever it stands; shorter ones would blot out ordinary words. */
export const SHORTEST_SECRET = 4;

/** The shortest part of a caller's secret that is masked: whoever calls must not blot out words of a plan. */
export const SHORTEST_GIVEN = 8;

// Old values fall out only long after every token that a provider issues has expired.
const MOST_VALUES = 4000;
// Apart from the others, so that no caller can push a credential out.
const MOST_GIVEN = 200;
const DEEPEST = 40;

export interface RedactOptions {
  /** Leaves `hfc_…` confirmation tokens readable: in the answer to their own caller, never in a log. */
  readonly keepConfirmationTokens?: boolean | undefined;
  /** Leaves readable what is a secret only because a caller said so: to see whether masking that would hide anything else. */
  readonly keepGiven?: boolean | undefined;
}

/** Masks secrets, known by their value or by their shape, in everything that leaves the process. */
export interface Redactor {
  /** Registers a value: from now on it is masked, also URI-encoded, in base64, JSON- or HTML-escaped. Shorter than four characters is ignored. */
  conceal(value: string): void;
  /**
   * Masks values that a caller gave as secrets in everything that this work, and what it starts, writes. Afterwards only
   * those of their credentials stay masked that look like nothing else: a caller must not blot out names and words of
   * other calls. `isPlain` tells what is known to be no secret.
   */
  concealing<T>(values: readonly string[], work: () => T, isPlain?: (part: string) => boolean): T;
  redactText(text: string, options?: RedactOptions): string;
  /** Gives a redacted copy of anything as plain JSON: keys too, errors and cycles included; never throws. */
  redactJson(value: unknown, options?: RedactOptions): unknown;
}

/** Creates a redactor that knows shapes only; `conceal` teaches it values. */
export function createRedactor(): Redactor {
  const own = createVault(MOST_VALUES);
  const given = createVault(MOST_GIVEN);
  const inCall = new AsyncLocalStorage<Vault>();

  const learn = (value: string): void => {
    if (value.length >= SHORTEST_SECRET) own.add(value);
  };

  const redactText = (text: string, options: RedactOptions = {}): string => {
    if (text.length < SHORTEST_SECRET) return text;
    const spans: Span[] = [];
    own.collect(text, spans);
    if (options.keepGiven !== true) {
      given.collect(text, spans);
      inCall.getStore()?.collect(text, spans);
    }
    spansOfShapes(text, spans, options);
    return spans.length === 0 ? text : mask(text, spans);
  };

  const walk = (value: unknown, options: RedactOptions, above: readonly object[]): unknown => {
    if (typeof value === 'string') return redactText(value, options);
    if (value === null || typeof value === 'boolean' || typeof value === 'number') return value;
    if (typeof value === 'bigint') return String(value);
    if (typeof value !== 'object') return undefined;
    if (above.includes(value)) return '[circular]';
    if (above.length >= DEEPEST) return '[too deep]';
    const path = [...above, value];
    if (Array.isArray(value)) return value.map((item) => walk(item, options, path) ?? null);
    if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return `[${value.byteLength} bytes]`;
    if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
    if (value instanceof Map) return walk(Object.fromEntries(value), options, path);
    if (value instanceof Set) return walk([...value], options, path);
    const plain = value instanceof Error ? errorFields(value) : ownJson(value);
    if (typeof plain !== 'object' || plain === null || Array.isArray(plain)) return walk(plain, options, path);
    const copy: Record<string, unknown> = {};
    for (const [key, member] of Object.entries(plain)) {
      // A plain assignment to `__proto__` would lose the member.
      Object.defineProperty(copy, redactText(key, options), {
        value: isSecretName(key) ? masked(key, member, options, path) : walk(member, options, path),
        enumerable: true,
        configurable: true,
        writable: true,
      });
    }
    return copy;
  };

  const masked = (name: string, member: unknown, options: RedactOptions, path: readonly object[]): unknown => {
    if (typeof member === 'string') return isHarmless(name, member, options) ? member : MASK;
    if (Array.isArray(member)) return member.map((item) => masked(name, item, options, path) ?? null);
    return walk(member, options, path);
  };

  return {
    conceal(value) {
      learn(value);
      learn(value.trim());
      for (const part of partsOf(value)) learn(part);
    },
    concealing(values, work, isPlain = () => false) {
      if (values.length === 0) return work();
      const vault = createVault(Number.POSITIVE_INFINITY);
      for (const value of values) {
        if (value.length >= SHORTEST_GIVEN) vault.add(value);
        for (const part of credentialsOf(value)) {
          if (part.length < SHORTEST_GIVEN) continue;
          vault.add(part);
          if (isUnmistakable(part) && !isPlain(part)) given.add(part);
        }
      }
      return inCall.run(vault, work);
    },
    redactText,
    redactJson(value, options = {}) {
      try {
        return walk(value, options, []);
      } catch {
        return '[cannot be shown]';
      }
    },
  };
}

type Span = [start: number, end: number];

function mask(text: string, spans: Span[]): string {
  spans.sort((a, b) => a[0] - b[0] || b[1] - a[1]);
  let out = '';
  let copied = 0;
  let end = -1;
  for (const [from, to] of spans) {
    if (from > end) {
      out += text.slice(copied, from) + MASK;
      copied = to;
    }
    end = Math.max(end, to);
    copied = Math.max(copied, to);
  }
  return out + text.slice(copied);
}

/** A secret under a telling key that may stay: empty, a reference to a secret, already masked, or a token that the caller keeps. */
function isHarmless(name: string, text: string, options: RedactOptions): boolean {
  if (text === '' || text === MASK) return true;
  if (name === 'secret' && (text === 'env' || text === 'file')) return true;
  if (/^\$\{(?:env|file):[^}]*\}$/.test(text)) return true;
  return options.keepConfirmationTokens === true && /^hfc_[\w-]+$/.test(text);
}

function ownJson(value: object): unknown {
  return 'toJSON' in value && typeof value.toJSON === 'function' ? (value.toJSON as () => unknown)() : value;
}

function errorFields(error: Error): Record<string, unknown> {
  const fields = Object.fromEntries(
    Object.entries(error).filter(([key]) => !['name', 'message', 'stack'].includes(key)),
  );
  return { name: error.name, message: error.message, ...fields, stack: error.stack, cause: error.cause };
}

// Values ------------------------------------------------------------------------------------------------------------

/** The parts of a secret file that are secrets by themselves: members of a JSON key file, or the long lines of any other. */
function partsOf(value: string): string[] {
  if (!value.includes('\n') && !value.startsWith('{')) return [];
  try {
    return secretMembers(JSON.parse(value));
  } catch {
    return value
      .split(/\r?\n/)
      .map((line) => line.trim())
      .filter((line) => line.length >= 16 && !line.startsWith('-----'));
  }
}

function secretMembers(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, member]) => {
    if (typeof member !== 'string') return secretMembers(member);
    return isSecretName(key) ? [member, ...(member.includes('\n') ? partsOf(member) : [])] : [];
  });
}

/** Values that are looked for, the oldest unused given up when there are too many. */
interface Vault {
  add(value: string): void;
  collect(text: string, spans: Span[]): void;
}

function createVault(most: number): Vault {
  const values = new Map<string, readonly Needle[]>();
  const index = createIndex();
  const heads = createHeads();
  return {
    add(value) {
      const needles = values.get(value);
      // What is used again moves to the end, so that the oldest unused falls out first.
      values.delete(value);
      values.set(value, needles ?? needlesOf(value));
      if (needles !== undefined) return;
      index.add(values.get(value) ?? []);
      heads.add(value);
      if (values.size > most) {
        const [oldest, itsNeedles] = values.entries().next().value as [string, readonly Needle[]];
        values.delete(oldest);
        index.remove(itsNeedles);
        heads.remove(oldest);
      }
    },
    collect(text, spans) {
      if (values.size === 0) return;
      for (const { pattern } of index.candidates(text)) {
        pattern.lastIndex = 0;
        for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
          spans.push([match.index, match.index + match[0].length]);
          // Steps by one character, so that overlapping secrets leave no rest of each other.
          pattern.lastIndex = match.index + 1;
        }
      }
      heads.collect(text, spans);
    },
  };
}

const HEAD = 4;
/** How far before a cut its secret is looked for. */
const CUT_REACH = 500;

/** The beginnings of secrets: whoever shortens a text may cut one in two, and the half would be found by nobody. */
function createHeads() {
  const byHead = new Map<string, Set<string>>();
  // The beginning of a URI is where it leads to, which is no secret.
  const formsOf = (value: string): string[] =>
    credentialsOf(value).flatMap((part) => [part, foldedForm(part), encodeURIComponent(part.toWellFormed())]);
  const collectBefore = (text: string, cut: number, spans: Span[]): void => {
    for (let start = Math.max(0, cut - CUT_REACH); start <= cut - HEAD; start += 1) {
      const forms = byHead.get(text.slice(start, start + HEAD));
      if (forms === undefined) continue;
      const rest = text.slice(start, cut);
      for (const form of forms) {
        if (!form.startsWith(rest)) continue;
        spans.push([start, cut]);
        return;
      }
    }
  };
  return {
    add(value: string): void {
      for (const form of formsOf(value)) {
        const same = byHead.get(form.slice(0, HEAD));
        if (same === undefined) byHead.set(form.slice(0, HEAD), new Set([form]));
        else same.add(form);
      }
    },
    remove(value: string): void {
      for (const form of formsOf(value)) byHead.get(form.slice(0, HEAD))?.delete(form);
    },
    collect(text: string, spans: Span[]): void {
      for (let cut = text.indexOf('…'); cut !== -1; cut = text.indexOf('…', cut + 1)) {
        collectBefore(text, cut, spans);
      }
    },
  };
}

/** A value as a text has it whose white space was folded and whose control characters were dropped. */
function foldedForm(value: string): string {
  return cleanText(value, Number.POSITIVE_INFINITY);
}

/** What is secret in a value that a caller gave: the password and the signed query of a URI, as written and decoded; all of anything else. */
function credentialsOf(value: string): string[] {
  if (!value.includes('://')) return [value];
  const spans: Span[] = [];
  collectUserinfo(value, spans);
  collect(QUERY, value, spans, 1);
  return spans.flatMap(([from, to]) => {
    const part = value.slice(from, to);
    try {
      return [part, decodeURIComponent(part)];
    } catch {
      return [part];
    }
  });
}

/** Identifiers that answers are full of: they must not vanish because a caller called one of them a secret. */
const IDENTIFIER =
  /^(?:\d[\d.:TZ+-]*|[0-9a-f]{24}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|op_[0-9a-f]+|\d{8}T\d{6}\S{0,20})$/i;

/** Tells a generated secret from words, names and identifiers that a text may hold for another reason. */
function isUnmistakable(text: string): boolean {
  return (
    text.length >= 16 &&
    new Set(text).size >= 10 &&
    (text.match(/\d/g) ?? []).length >= 2 &&
    (text.match(/[A-Za-z]/g) ?? []).length >= 4 &&
    !IDENTIFIER.test(text)
  );
}

/** One text to look for. */
interface Needle {
  readonly pattern: RegExp;
  /** Four characters that every match holds as they are; absent where there are none. */
  readonly anchor: string | undefined;
}

interface NeedleIndex {
  add(needles: readonly Needle[]): void;
  remove(needles: readonly Needle[]): void;
  /** The needles that may occur in a text, found in one pass however many there are. */
  candidates(text: string): Iterable<Needle>;
}

const ANCHOR = 4;
// 20 bits: the hash below shifts by 5 a character, so that it depends on exactly the last four.
const HASH_MASK = 0xfffff;

function createIndex(): NeedleIndex {
  const byAnchor = new Map<string, Set<Needle>>();
  const unanchored = new Set<Needle>();
  const bits = new Uint8Array((HASH_MASK + 1) / 8);
  const step = (hash: number, text: string, at: number): number => ((hash << 5) ^ text.charCodeAt(at)) & HASH_MASK;

  return {
    add(needles) {
      for (const needle of needles) {
        if (needle.anchor === undefined) {
          unanchored.add(needle);
          continue;
        }
        let hash = 0;
        for (let at = 0; at < ANCHOR; at += 1) hash = step(hash, needle.anchor, at);
        bits[hash >> 3] = (bits[hash >> 3] as number) | (1 << (hash & 7));
        const same = byAnchor.get(needle.anchor);
        if (same === undefined) byAnchor.set(needle.anchor, new Set([needle]));
        else same.add(needle);
      }
    },
    remove(needles) {
      // Bits stay set: they only say where to look closer.
      for (const needle of needles) {
        if (needle.anchor === undefined) unanchored.delete(needle);
        else byAnchor.get(needle.anchor)?.delete(needle);
      }
    },
    candidates(text) {
      const found = new Set(unanchored);
      let hash = 0;
      for (let at = 0; at < text.length; at += 1) {
        hash = step(hash, text, at);
        if (((bits[hash >> 3] as number) & (1 << (hash & 7))) === 0 || at < ANCHOR - 1) continue;
        for (const needle of byAnchor.get(text.slice(at - ANCHOR + 1, at + 1)) ?? []) found.add(needle);
      }
      return found;
    },
  };
}

/** Finds a value as it is and as it looks encoded. */
function needlesOf(value: string): Needle[] {
  const json = jsonEscape(value);
  const literal = new Set([json, jsonEscape(json), htmlEscape(value), foldedForm(value), ...base64Forms(value)]);
  literal.delete(value);
  const run = (value.match(/[A-Za-z0-9]+/g) ?? []).reduce((a, b) => (b.length > a.length ? b : a), '');
  return [
    { pattern: new RegExp(uriTolerant(value), 'g'), anchor: middle(run) },
    ...[...literal]
      .filter((form) => form.length >= SHORTEST_SECRET)
      .map((form) => ({ pattern: new RegExp(escapeRegExp(form), 'g'), anchor: middle(form) })),
  ];
}

/** The middle, for many tokens begin alike. */
function middle(text: string): string | undefined {
  if (text.length < ANCHOR) return undefined;
  const start = Math.floor((text.length - ANCHOR) / 2);
  return text.slice(start, start + ANCHOR);
}

/** Matches the value with any of its characters percent-encoded, once or twice: encoders do not agree which to encode. */
function uriTolerant(value: string): string {
  return Array.from(value.toWellFormed(), (character) => {
    if (/[A-Za-z0-9]/.test(character)) return character;
    const hex = [...Buffer.from(character)].map((byte) => byte.toString(16).padStart(2, '0'));
    const encoded = hex.map(
      (pair) => `%(?:25)?${pair.replace(/[a-f]/g, (letter) => `[${letter}${letter.toUpperCase()}]`)}`,
    );
    return `(?:${escapeRegExp(character)}|${encoded.join('')}${character === ' ' ? '|\\+' : ''})`;
  }).join('');
}

function jsonEscape(value: string): string {
  return JSON.stringify(value).slice(1, -1);
}

function htmlEscape(value: string): string {
  const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
  return value.replace(/[&<>"']/g, (character) => entities[character] as string);
}

/**
 * The base64 of the value at each of the three places it can have inside a longer text (`user:password`), without the
 * characters at both ends that depend on its neighbours. Short values only whole: their inner parts are no evidence.
 */
function base64Forms(value: string): string[] {
  const bytes = Buffer.from(value, 'utf8');
  const forms = [bytes.toString('base64').replace(/=+$/, '')];
  for (let shift = 0; shift < 3; shift += 1) {
    const text = Buffer.concat([Buffer.alloc(shift), bytes])
      .toString('base64')
      .replace(/=+$/, '');
    const stable = text.slice(Math.ceil((shift * 8) / 6), Math.floor(((shift + bytes.length) * 8) / 6));
    if (stable.length >= 8) forms.push(stable);
  }
  return forms.flatMap((form) => [form, form.replaceAll('+', '-').replaceAll('/', '_'), encodeURIComponent(form)]);
}

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
}

// Shapes ------------------------------------------------------------------------------------------------------------
// Each pattern begins with a fixed word and has bounded runs, so that no text makes it slow.

/** Known beginnings of keys and tokens: AWS, GitHub, Slack, Google, DigitalOcean, Neon, Atlas, age, JSON web tokens. */
const KNOWN_KEYS =
  /\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}\b|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|xox[abeoprs]-[\w-]{10,}|AIza[\w-]{35}|ya29\.[\w.-]{10,}|GOCSPX-[\w-]{10,}|do[opr]_v1_[a-f0-9]{32,}|napi_[a-z0-9]{16,}|npg_[A-Za-z0-9]{8,}|mdb_sa_sk_[\w-]{10,}|AGE-SECRET-KEY-1[0-9A-Z]{20,}|eyJ[\w-]{8,1000}\.[\w-]{4,8000}\.[\w-]{0,4000})/g;
const CONFIRMATION_TOKEN = /\bhfc_[A-Za-z0-9_-]{6,}/g;
const END_OF_URI = /[\s"'<>`]/g;
const USER = /[^\s/:?#"'<>`\\]{0,512}/y;
const QUERY =
  /(?:[?&;]|%3F|%26)(?:x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|sig|signature|awsaccesskeyid|googleaccessid|access_token|refresh_token|id_token|api[_-]?key|client_secret|key|token|secret|password|passwd|pwd|code|auth)(?:=|%3D)([^&\s"'<>#`]{1,4096})/gi;
const SCHEME = /\b(?:Bearer|Basic)\s{1,4}([A-Za-z0-9._~+/=-]{4,8192})/gi;
const PEM = /-----BEGIN [A-Z0-9 ]{1,60}-----/g;
const SLACK_HOOK = /hooks\.slack\.com\/(?:services|workflows)\/([\w/-]{8,200})/g;
const KEY_WORD =
  /(?:pass(?:word|wd|phrase|code)|pwd|secret|token|(?:api|private|access|account|shared|master|encryption|signing|storage|routing)[_-]?key|credentials?|authorization|cookie|connection[_-]?(?:string|ur[il])|signature)/gi;
const AFTER_KEY = /([\w-]{0,40})((?:\\{0,3}["'])?\s{0,4}(?:=>|[:=])\s{0,4}|\s{1,2})/y;
const QUOTED = /(\\{0,3})(["'])/y;
const BARE = /[^\s"'&;<>`\\]*[^\s"'&;<>`,)}\]\\]/y;
const LINE = /[^\r\n"'\\]+/y;

function spansOfShapes(text: string, spans: Span[], options: RedactOptions): void {
  collectUserinfo(text, spans);
  if (text.includes('=') || text.includes('%3')) collect(QUERY, text, spans, 1);
  if (text.includes('hooks.slack.com')) collect(SLACK_HOOK, text, spans, 1);
  if (text.includes('-----BEGIN')) collectPem(text, spans);
  if (!options.keepConfirmationTokens && text.includes('hfc_')) collect(CONFIRMATION_TOKEN, text, spans, 0);
  collect(KNOWN_KEYS, text, spans, 0);
  for (const match of text.matchAll(SCHEME)) {
    if (looksRandom(match[1] as string)) spans.push(groupSpan(match, 1));
  }
  collectNamed(text, spans, options);
}

function collect(pattern: RegExp, text: string, spans: Span[], group: number): void {
  for (const match of text.matchAll(pattern)) spans.push(groupSpan(match, group));
}

function collectUserinfo(text: string, spans: Span[]): void {
  let end = -1;
  let lastAt = -1;
  for (let at = text.indexOf('://'); at !== -1; at = text.indexOf('://', at)) {
    const start = at + 3;
    if (start > end) {
      END_OF_URI.lastIndex = start;
      end = END_OF_URI.exec(text)?.index ?? text.length;
      // Within the run only: a search to the left would go through the whole text.
      const inRun = text.slice(start, end).lastIndexOf('@');
      lastAt = inRun === -1 ? -1 : start + inRun;
    }
    at = start;
    if (lastAt < start) continue;
    USER.lastIndex = start;
    // The user may hold an @ (`user@server:password@host`), and the password ends at the last @, for it may hold one too.
    const user = USER.exec(text)?.[0] ?? '';
    const colon = start + user.length;
    if (text[colon] !== ':') {
      // A user of this length is a token, `https://TOKEN@host`.
      const length = user.indexOf('@');
      if (length >= 20) spans.push([start, start + length]);
    } else if (lastAt > colon + 1 && !isHostAndPort(user, text.slice(colon + 1, lastAt))) {
      spans.push([colon + 1, lastAt]);
      at = lastAt;
    }
  }
}

/** Tells `127.0.0.1:8080/users@example`, where no password is, from `user:1234/x@host`. */
function isHostAndPort(user: string, password: string): boolean {
  return /^\d{1,5}(?:[/?#]|$)/.test(password) && (user.includes('.') || user === 'localhost') && !user.includes('@');
}

/** The span of a group that ends where its match ends. */
function groupSpan(match: RegExpExecArray, group: number): Span {
  const end = match.index + match[0].length;
  return [end - (match[group] as string).length, end];
}

function collectPem(text: string, spans: Span[]): void {
  let covered = 0;
  for (const match of text.matchAll(PEM)) {
    if (match.index < covered) continue;
    const end = /-----END [A-Z0-9 ]{1,60}-----/g;
    end.lastIndex = match.index + match[0].length;
    // A block that does not end is masked to the end of the text.
    covered = end.exec(text) === null ? text.length : end.lastIndex;
    spans.push([match.index, covered]);
  }
}

/** Tells a credential from the next word of a sentence: "Bearer tokens", "Basic authentication". */
function looksRandom(text: string): boolean {
  return text.length >= 16 || /\d|[+/=_~]|[a-z][A-Z]|[A-Z]{2}/.test(text);
}

function collectNamed(text: string, spans: Span[], options: RedactOptions): void {
  let covered = 0;
  for (const match of text.matchAll(KEY_WORD)) {
    if (match.index < covered) continue;
    const wordEnd = match.index + match[0].length;
    AFTER_KEY.lastIndex = wordEnd;
    const after = AFTER_KEY.exec(text);
    if (after === null) continue;
    let begin = match.index;
    while (begin > 0 && match.index - begin < 60 && /[\w-]/.test(text[begin - 1] as string)) begin -= 1;
    const name = text.slice(begin, wordEnd) + after[1];
    // Only an option of a command line has its value after a mere space.
    const isOption = name.startsWith('--');
    if (/^\s+$/.test(after[2] as string) && !isOption) continue;
    if (!isSecretName(name.replace(/^-+/, ''))) continue;
    const span = valueSpan(text, AFTER_KEY.lastIndex, /authorization|cookie/i.test(match[0]));
    if (span === undefined) continue;
    const value = text.slice(span[0], span[1]);
    if (isHarmless(name, value, options) || /^(?:true|false|null|undefined|none|\$\{)/i.test(value)) continue;
    spans.push(span);
    covered = span[1];
  }
}

function valueSpan(text: string, at: number, wholeLine: boolean): Span | undefined {
  QUOTED.lastIndex = at;
  const quoted = QUOTED.exec(text);
  if (quoted !== null) {
    const start = at + quoted[0].length;
    const end = closingQuote(text, start, quoted[1] as string, quoted[2] as string);
    return end > start ? [start, end] : undefined;
  }
  const pattern = wholeLine ? LINE : BARE;
  pattern.lastIndex = at;
  const bare = pattern.exec(text);
  return bare === null ? undefined : [at, at + bare[0].length];
}

/** Finds the quote that has as many backslashes before it as the opening one; without one, the end of the text. */
function closingQuote(text: string, start: number, slashesBefore: string, quote: string): number {
  for (let at = text.indexOf(quote, start); at !== -1; at = text.indexOf(quote, at + 1)) {
    let slashes = 0;
    while (at - slashes > start && text[at - slashes - 1] === '\\') slashes += 1;
    if (slashes === slashesBefore.length || (slashesBefore === '' && slashes % 2 === 0))
      return at - slashesBefore.length;
  }
  return text.length;
}
