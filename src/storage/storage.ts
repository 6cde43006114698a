import type { Readable } from 'node:stream';

export interface PutOptions {
  /** Fails with RESOURCE_EXISTS instead of replacing what is there. */
  readonly createOnly?: boolean | undefined;
  /** Bytes of one part, for stores that take parts. */
  readonly partSize?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface StoredObject {
  readonly key: string;
  readonly size_bytes: number;
  readonly modified_at: Date;
}

/** First and last byte, both included. */
export interface ByteRange {
  readonly start: number;
  readonly end?: number | undefined;
}

export interface StoreCapabilities {
  /** Whether `createOnly` is decided by the store itself, so that of two writers one wins. */
  readonly atomicCreate: boolean;
  /** Whether the store is on this machine and is lost with it. */
  readonly sameMachine: boolean;
}

/**
 * A place for objects. Keys are relative, with `/` between segments of `[A-Za-z0-9._-]`; a key that could leave the
 * store is refused with INVALID_PARAMETER by every method. All failures are {HoldfastError}: INSUFFICIENT_PERMISSIONS,
 * RESOURCE_NOT_FOUND, QUOTA_EXCEEDED for a full store, PROVIDER_UNAVAILABLE.
 */
export interface ObjectStore {
  /** Names the place for people, without credentials. */
  readonly location: string;
  readonly capabilities: StoreCapabilities;
  /**
   * Stores a stream as one object. The object appears whole and durable, or not at all: when the stream fails, the signal
   * fires or the process dies, no reader ever sees it. Without `createOnly` it replaces, also whole. Gives the bytes stored.
   * @throws {HoldfastError} RESOURCE_EXISTS with `createOnly`
   */
  put(key: string, body: AsyncIterable<Uint8Array>, options?: PutOptions): Promise<number>;
  /**
   * Opens an object for reading. The reader sees one version, also while it is replaced or deleted.
   * @throws {HoldfastError} RESOURCE_NOT_FOUND
   */
  get(key: string, range?: ByteRange): Promise<Readable>;
  /** Undefined where there is no such object. */
  head(key: string): Promise<StoredObject | undefined>;
  /** Every finished object under a prefix, ordered by key. An object written or deleted meanwhile may be seen or not. */
  list(prefix: string): AsyncIterable<StoredObject>;
  /** Idempotent: deleting what is not there succeeds. */
  delete(key: string): Promise<void>;
  /** What writes that never ended left under a prefix; `key` is the object that was being written. A running write is among them. */
  unfinished(prefix: string): AsyncIterable<StoredObject>;
  /** Removes what writes that never ended left under a prefix. The caller knows that no write runs there. Idempotent. */
  discardUnfinished(prefix: string): Promise<void>;
}
