import type { Readable } from 'node:stream';
import type { PermissionState } from '../core/provider.ts';

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
  /**
   * Whether `createOnly` is decided by the store itself, so that of two writers one wins. Undefined for a store of others
   * that was not yet asked: the first write asks it. Where it is false, `createOnly` only looks first.
   */
  readonly atomicCreate: boolean | undefined;
}

/** What the credentials of a store let us do there, as far as that can be found out without writing. */
export interface StoreAccess {
  readonly list: PermissionState;
  readonly read: PermissionState;
  readonly write: PermissionState;
  readonly delete: PermissionState;
}

/**
 * A place for objects. Keys are relative, with `/` between segments of `[A-Za-z0-9._-]`; a key that could leave the
 * store is refused with INVALID_PARAMETER by every method. All failures are {HoldfastError}: INSUFFICIENT_PERMISSIONS,
 * AUTHENTICATION_FAILED, RESOURCE_NOT_FOUND also for a place that is not there, QUOTA_EXCEEDED for a full store, RATE_LIMITED,
 * PROVIDER_UNAVAILABLE.
 */
export interface ObjectStore {
  /** Names the place for people, without credentials. */
  readonly location: string;
  /** Whether the store is on this machine and is lost with it. */
  readonly sameMachine: boolean;
  /** What the store is known to do. Writes nothing. */
  capabilities(): Promise<StoreCapabilities>;
  /**
   * Finds out what the credentials let us do; reads only.
   * @throws {HoldfastError} RESOURCE_NOT_FOUND where the place is not there
   */
  access(): Promise<StoreAccess>;
  /**
   * Stores a stream as one object. The object appears whole and durable, or not at all: when the stream fails, the signal
   * fires or the process dies, no reader ever sees it. Without `createOnly` it replaces, also whole. Gives the bytes stored.
   * @throws {HoldfastError} RESOURCE_EXISTS with `createOnly`
   */
  put(key: string, body: AsyncIterable<Uint8Array>, options?: PutOptions): Promise<number>;
  /**
   * Opens an object for reading. The reader sees one version, also while it is replaced or deleted; where a store can give
   * the rest of that version no more, the stream fails with INVALID_STATE, which is retryable.
   * @throws {HoldfastError} RESOURCE_NOT_FOUND
   */
  get(key: string, range?: ByteRange): Promise<Readable>;
  /** Undefined where there is no such object. */
  head(key: string): Promise<StoredObject | undefined>;
  /** Every finished object under a prefix, ordered by key. An object written or deleted meanwhile may be seen or not. */
  list(prefix: string): AsyncIterable<StoredObject>;
  /** Idempotent: deleting what is not there succeeds. */
  delete(key: string): Promise<void>;
  /**
   * What writes that never ended left under a prefix; `key` is the object that was being written. A running write is among
   * them once something of it is stored.
   */
  unfinished(prefix: string): AsyncIterable<StoredObject>;
  /** Removes what writes that never ended left under a prefix. The caller knows that no write runs there. Idempotent. */
  discardUnfinished(prefix: string): Promise<void>;
}
