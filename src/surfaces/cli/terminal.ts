import { styleText } from 'node:util';
import type { CliDeps, CliOutput } from './deps.ts';

export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan';
export type Piece = string | { readonly text: string; readonly style: Style };

/** Marks a piece of a line with a style; colours appear only where the stream shows them. */
export function styled(style: Style, text: string): Piece {
  return { text, style };
}

/** Takes out of a text whatever a terminal would obey instead of show; line breaks and tabs stay. */
export function printable(text: string): string {
  return text
    .replace(/\r\n/g, '\n')
    .replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029]/g, '')
    .replace(/[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, '');
}

/** Serialises a document so that even a terminal shows it as it is: every control character is escaped. */
export function jsonText(value: unknown): string {
  return (JSON.stringify(value, undefined, 2) ?? 'null').replace(
    /[\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

// What a rendered line begins with, and how it is shown.
const LINE_STYLES: readonly (readonly [RegExp, Style])[] = [
  [/^(Plan|Operation [^:]+):/, 'bold'],
  [/^(Loses|Deletes the LAST|Loses everything written since)\b/, 'red'],
  [/^(Warning|Not known|Not over yet|Changed)\b/, 'yellow'],
  [/^(Safer way|Undo)\b/, 'green'],
  [/^(Approval rests on|Details|Provider):/, 'dim'],
];

const STATUS_STYLES: Readonly<Record<string, Style>> = {
  succeeded: 'green',
  running: 'cyan',
  pending: 'cyan',
  failed: 'red',
  unknown: 'red',
  cancelled: 'yellow',
};

/** Gives one line of rendered text its style. */
export function painted(line: string): Piece[] {
  const status = /^(\s*(?:Operation )?\S+: )(succeeded|running|pending|failed|unknown|cancelled)\b(.*)$/.exec(line);
  if (status) {
    const [, before, word, after] = status as unknown as [string, string, string, string];
    return [before, styled(STATUS_STYLES[word] ?? 'bold', word), after];
  }
  const style = LINE_STYLES.find(([pattern]) => pattern.test(line))?.[1];
  return [style === undefined ? line : styled(style, line)];
}

/** The two output streams. Every text passes through `printable`; only this class adds escape sequences. */
export class Terminal {
  readonly #out: CliOutput;
  readonly #err: CliOutput;
  readonly #outColours: boolean;
  readonly #errColours: boolean;
  #statusShown = false;

  constructor(deps: Pick<CliDeps, 'stdout' | 'stderr' | 'env'>) {
    this.#out = deps.stdout;
    this.#err = deps.stderr;
    const wanted = (deps.env['NO_COLOR'] ?? '') === '' && deps.env['TERM'] !== 'dumb';
    this.#outColours = wanted && this.#out.isTTY === true;
    this.#errColours = wanted && this.#err.isTTY === true;
  }

  /** Whether standard error is a terminal. */
  get interactive(): boolean {
    return this.#err.isTTY === true;
  }

  /** Characters that fit on a line of standard output. */
  get width(): number {
    // A terminal that does not know its size says 0.
    return this.#out.isTTY === true ? this.#out.columns || 80 : 160;
  }

  /** Writes one line to standard output. */
  line(...pieces: readonly Piece[]): void {
    this.clearStatus();
    this.#out.write(`${compose(pieces, this.#outColours)}\n`);
  }

  /** Writes one line to standard error. */
  note(...pieces: readonly Piece[]): void {
    this.clearStatus();
    this.#err.write(`${compose(pieces, this.#errColours)}\n`);
  }

  /** Writes rendered text of several lines to standard output. */
  text(text: string): void {
    for (const line of text.split('\n')) this.line(...painted(line));
  }

  /** Writes rendered text of several lines to standard error. */
  notes(text: string): void {
    for (const line of text.split('\n')) this.note(...painted(line));
  }

  /** Writes one JSON document to standard output. */
  json(value: unknown): void {
    this.clearStatus();
    this.#out.write(`${jsonText(value)}\n`);
  }

  /** Writes a question to standard error and leaves the cursor behind it. */
  ask(...pieces: readonly Piece[]): void {
    this.clearStatus();
    this.#err.write(compose(pieces, this.#errColours));
  }

  /** Shows one line on the terminal that the next one replaces. */
  status(text: string): void {
    if (!this.interactive) return;
    const room = Math.max(20, (this.#err.columns || 80) - 1);
    const points = [...printable(text).replace(/[\n\t]+/g, ' ')];
    const shown = points.length <= room ? points.join('') : `${points.slice(0, room - 1).join('')}…`;
    this.#err.write(`\r\u001b[2K${shown}`);
    this.#statusShown = true;
  }

  /** Takes the replaceable line away. */
  clearStatus(): void {
    if (!this.#statusShown) return;
    this.#err.write('\r\u001b[2K');
    this.#statusShown = false;
  }

  /** Waits until everything written has left the process. */
  async flush(): Promise<void> {
    await Promise.all(
      [this.#out, this.#err].map(
        (stream) =>
          new Promise<void>((resolve) => {
            if (!stream.writable) return resolve();
            stream.write('', () => resolve());
          }),
      ),
    );
  }
}

function compose(pieces: readonly Piece[], colours: boolean): string {
  return pieces
    .map((piece) => {
      if (typeof piece === 'string') return printable(piece);
      const text = printable(piece.text);
      return colours && text !== '' ? styleText(piece.style, text, { validateStream: false }) : text;
    })
    .join('');
}
