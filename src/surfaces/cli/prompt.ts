import { StringDecoder } from 'node:string_decoder';
import type { CliInput } from './deps.ts';

/** Reads answers, line by line, from standard input; what was typed ahead is kept for the next question. */
export class Prompter {
  readonly #input: CliInput;
  readonly #signal: AbortSignal;
  readonly #decoder = new StringDecoder('utf8');
  #buffer = '';
  #ended = false;
  #interrupted = false;

  constructor(input: CliInput, signal: AbortSignal) {
    this.#input = input;
    this.#signal = signal;
  }

  /** Whether a person can answer here: a terminal that has not been read to its end. */
  get open(): boolean {
    return this.#input.isTTY === true && !this.#ended;
  }

  /** Whether Ctrl-C came as a key, as it does while nothing is echoed. */
  get interrupted(): boolean {
    return this.#interrupted;
  }

  /**
   * Reads one line without its line break; undefined at the end of the input.
   * @throws {DOMException} AbortError once the signal fires
   */
  line(): Promise<string | undefined> {
    return this.#read(() => this.#takeLine());
  }

  /** Reads one line without showing it. */
  async secret(): Promise<string | undefined> {
    this.#input.setRawMode?.(true);
    try {
      return await this.#read(() => this.#takeTyped());
    } finally {
      this.#input.setRawMode?.(false);
    }
  }

  /** Reads everything to the end of the input. */
  async rest(): Promise<string> {
    return (await this.#read(() => (this.#ended ? this.#takeAll() : undefined))) ?? '';
  }

  #read(take: () => string | undefined): Promise<string | undefined> {
    return new Promise((resolve, reject) => {
      const settle = (finish: () => void): void => {
        this.#input.off('data', onData);
        this.#input.off('end', onEnd);
        this.#input.off('close', onEnd);
        this.#input.off('error', onEnd);
        this.#signal.removeEventListener('abort', onAbort);
        this.#input.pause();
        finish();
      };
      const attempt = (): void => {
        try {
          const taken = take();
          if (taken !== undefined || this.#ended) settle(() => resolve(taken));
        } catch (cause) {
          settle(() => reject(cause));
        }
      };
      const onData = (chunk: Buffer | string): void => {
        this.#buffer += typeof chunk === 'string' ? chunk : this.#decoder.write(chunk);
        attempt();
      };
      const onEnd = (): void => {
        this.#ended = true;
        attempt();
      };
      const onAbort = (): void => settle(() => reject(new DOMException('interrupted', 'AbortError')));
      if (this.#signal.aborted) return onAbort();
      this.#signal.addEventListener('abort', onAbort);
      this.#input.on('data', onData);
      this.#input.on('end', onEnd);
      this.#input.on('close', onEnd);
      this.#input.on('error', onEnd);
      if (!this.#input.readable) this.#ended = true;
      attempt();
      if (!this.#ended) this.#input.resume();
    });
  }

  #takeLine(): string | undefined {
    const at = this.#buffer.indexOf('\n');
    if (at < 0) return this.#ended && this.#buffer !== '' ? this.#takeAll() : undefined;
    const line = this.#buffer.slice(0, at).replace(/\r$/, '');
    this.#buffer = this.#buffer.slice(at + 1);
    return line;
  }

  #takeAll(): string {
    const all = this.#buffer;
    this.#buffer = '';
    return all;
  }

  // Without echo the terminal hands over every key as it is, the editing keys included.
  #takeTyped(): string | undefined {
    let typed = '';
    for (const [at, key] of [...this.#buffer].entries()) {
      if (key === '\r' || key === '\n') {
        this.#buffer = [...this.#buffer].slice(at + 1).join('');
        return typed;
      }
      if (key === '\u0003') {
        this.#interrupted = true;
        throw new DOMException('interrupted', 'AbortError');
      }
      if (key === '\u0004' && typed === '') {
        this.#ended = true;
        this.#buffer = '';
        return undefined;
      }
      typed = key === '\u007f' || key === '\b' ? [...typed].slice(0, -1).join('') : typed + key;
    }
    return this.#ended && typed !== '' ? typed : undefined;
  }
}
