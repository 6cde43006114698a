export interface BucketOptions {
  readonly perSecond: number;
  readonly burst: number;
  readonly now: () => number;
  readonly sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
}

/** A token bucket with a queue in order of arrival; `pause` stops it for as long as a provider's Retry-After asks. */
export class TokenBucket {
  readonly #options: BucketOptions;
  #tokens: number;
  #filledAt: number;
  #pausedUntil = 0;
  #tail: Promise<void> = Promise.resolve();

  constructor(options: BucketOptions) {
    this.#options = options;
    this.#tokens = options.burst;
    this.#filledAt = options.now();
  }

  /** Waits for the next token, first come first served. Rejects with an AbortError; the token then goes to the next. */
  take(signal?: AbortSignal): Promise<void> {
    const turn = this.#tail.then(() => this.#wait(signal));
    this.#tail = turn.catch(() => undefined);
    return turn;
  }

  /** Gives out nothing for this long. */
  pause(ms: number): void {
    this.#pausedUntil = Math.max(this.#pausedUntil, this.#options.now() + ms);
  }

  async #wait(signal: AbortSignal | undefined): Promise<void> {
    for (;;) {
      signal?.throwIfAborted();
      const now = this.#options.now();
      const { perSecond, burst } = this.#options;
      this.#tokens = Math.min(burst, this.#tokens + (Math.max(0, now - this.#filledAt) / 1000) * perSecond);
      this.#filledAt = now;
      const pause = this.#pausedUntil - now;
      if (pause <= 0 && this.#tokens >= 1) {
        this.#tokens -= 1;
        return;
      }
      await this.#options.sleep(Math.max(pause, ((1 - this.#tokens) / perSecond) * 1000, 1), signal);
    }
  }
}
