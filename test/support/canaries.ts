import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';

/** What secrets are made of besides letters and digits: everything that an encoder, a parser or a shell may stumble over. */
const SPICES = ['/+=', '%2F&?#', '"quoted"', "it's", '\\n\\', '<b>&amp;', ' two  spaces ', '$`{}', 'üñ€'];

const word = (length: number): string => {
  const letters = 'abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789';
  return [...randomBytes(length)].map((byte) => letters[byte % letters.length]).join('');
};

export type Charset = 'any' | 'lines' | 'visible' | 'url' | 'plain';

/** Where a secret was found that should not be there. */
export interface Leak {
  readonly secret: string;
  readonly form: string;
  readonly where: string;
  readonly around: string;
}

/** Makes secrets that are found again whatever was done to them, and looks for them in all that was seen. */
export class Canaries {
  readonly #cores = new Map<string, string>();
  readonly #seen: { where: string; text: string }[] = [];
  #made = 0;

  /** Makes a secret; each end of it is random enough to be told from anything else. */
  make(name: string, charset: Charset = 'any'): string {
    const [head, tail] = [word(16), word(16)];
    // Eight characters each, so that half of one that was cut is found as well.
    this.watch(name, head.slice(0, 8), tail.slice(-8));
    this.#made += 1;
    const spice = SPICES[this.#made % SPICES.length] as string;
    if (charset === 'plain') return head + tail;
    if (charset === 'visible') return `${head}${['/+=', '%2F&?#', "it's", '$`{}'][this.#made % 4]}${tail}`;
    if (charset === 'url') return `${head}${['-', '~', '!', '*'][this.#made % 4]}${tail}`;
    return charset === 'lines' ? `${head}${spice}\n${tail}` : `${head}${spice}${tail}`;
  }

  /** Looks for these parts of a secret too. */
  watch(name: string, ...cores: readonly string[]): void {
    for (const core of cores) this.#cores.set(core, name);
  }

  /** Keeps something that the program showed. */
  readonly seen = (where: string, text: string): void => {
    this.#seen.push({ where, text });
  };

  /** Keeps every file below a directory, but those that `mine` names. */
  seenFiles(root: string, mine: (path: string) => boolean): void {
    for (const entry of readdirSync(root, { recursive: true, encoding: 'utf8' })) {
      const path = join(root, entry);
      if (mine(entry) || !statSync(path).isFile()) continue;
      this.#seen.push({ where: relative(root, path), text: `${entry}\n${readFileSync(path).toString('latin1')}` });
    }
  }

  /** The whole of what was seen, for a test to see that something was. */
  get text(): string {
    return this.#seen.map(({ text }) => text).join('\n');
  }

  /** The places that hold a text. */
  placesOf(text: string): string[] {
    return this.#seen.filter((piece) => piece.text.includes(text)).map(({ where }) => where);
  }

  /** Every place where a secret, or one end of it, stands in any encoding. */
  leaks(): Leak[] {
    const byHead = new Map<number, { text: string; form: string; secret: string }[]>();
    for (const [core, secret] of this.#cores) {
      for (const [form, text] of formsOf(core)) {
        const head = headOf(text, 0);
        byHead.set(head, [...(byHead.get(head) ?? []), { text, form, secret }]);
      }
    }
    const heads = new Uint8Array(HEADS);
    for (const head of byHead.keys()) heads[head] = 1;
    const found: Leak[] = [];
    // One pass over what was seen, however many secrets there are.
    for (const { text, where } of this.#seen) {
      for (let at = 0; at < text.length; at += 1) {
        const head = headOf(text, at);
        if (heads[head] === 0) continue;
        for (const needle of byHead.get(head) ?? []) {
          if (!text.startsWith(needle.text, at)) continue;
          const around = text.slice(Math.max(0, at - 160), at + needle.text.length + 80);
          found.push({ secret: needle.secret, form: needle.form, where, around });
        }
      }
    }
    return found;
  }
}

const HEADS = 2 ** 20;

function headOf(text: string, at: number): number {
  let hash = 0;
  for (let step = 0; step < 4; step += 1) hash = ((hash << 5) ^ text.charCodeAt(at + step)) & (HEADS - 1);
  return hash;
}

/** A core of letters and digits as it stands in plain, URI-encoded, JSON- and HTML-escaped text, in hex, and in base64 at each offset. */
function formsOf(core: string): [string, string][] {
  const bytes = Buffer.from(core);
  const base64 = [0, 1, 2].map((shift): [string, string] => {
    const text = Buffer.concat([Buffer.alloc(shift), bytes])
      .toString('base64')
      .replace(/=+$/, '');
    return ['base64', text.slice(Math.ceil((shift * 8) / 6), Math.floor(((shift + bytes.length) * 8) / 6))];
  });
  const hex = bytes.toString('hex');
  return [
    ['plain', core],
    ['upper case', core.toUpperCase()],
    ['lower case', core.toLowerCase()],
    ['hex', hex],
    ['hex', hex.toUpperCase()],
    ['utf-16', Buffer.from(core, 'utf16le').toString('latin1')],
    ...base64,
  ];
}
