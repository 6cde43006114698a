import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { HoldfastError } from '../core/errors.ts';
import { canonicalJson, sha256 } from '../core/json.ts';
import { cleanText } from '../core/text.ts';
import type { ObjectStore, StoredObject } from '../storage/storage.ts';
import {
  Hold,
  LAYOUT,
  type Manifest,
  parseManifest,
  parseRecord,
  timeOfId,
  Use,
  VERIFY_LEVELS,
  Verification,
} from './manifest.ts';

/** How many small objects are read or deleted at once. */
const AT_ONCE = 8;

/** A directory without a manifest: someone is still writing it, or died while doing so. */
export interface Unfinished {
  readonly id: string;
  readonly files: number;
  readonly size_bytes: number;
  /** When anything was last written there, or the time in its id where that is later. */
  readonly active_at: Date;
}

/** A backup with everything that was found out about it later. */
export interface Backup<M extends Manifest = Manifest> {
  readonly manifest: M;
  /** Oldest first. */
  readonly verifications: readonly Verification[];
  /** Set when a verification failed and none of the same or a higher level has passed since. */
  readonly damage: string | undefined;
  /** When a restore of it was last compared with its inventory and equal. */
  readonly verifiedAt: string | undefined;
  /** Set while somebody keeps it from being deleted. */
  readonly hold: Hold | undefined;
}

export interface SourceFile {
  readonly layout: string;
  readonly name: string;
  readonly system_identifier: string | null;
  readonly created_at: string;
}

export interface Catalogue {
  /** Newest first. */
  readonly backups: readonly Backup[];
  /** Newest first. */
  readonly unfinished: readonly Unfinished[];
  /** Ids whose manifest cannot be read. */
  readonly unreadable: readonly string[];
}

/** Names the folder of one entity's backups; it depends on the entity's key alone, so that it is found when the server is gone. */
export function sourceIdOf(entityKey: string): string {
  const readable = entityKey
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 60);
  return `${readable === '' ? 'source' : readable}-${sha256(entityKey).slice(0, 8)}`;
}

/**
 * The backups of one source in one store. The store is the only truth: the catalogue is the list of manifests in it, so an
 * empty machine sees the same as this one. Deleting begins with the manifest, writing ends with it.
 */
export class Repository {
  readonly store: ObjectStore;
  readonly sourceId: string;
  readonly #root: string;

  constructor(store: ObjectStore, sourceId: string) {
    this.store = store;
    this.sourceId = sourceId;
    this.#root = `${LAYOUT}/${sourceId}`;
  }

  /** The key of a file of a backup. */
  key(id: string, name: string): string {
    return `${this.#root}/backups/${id}/${name}`;
  }

  async source(): Promise<SourceFile | undefined> {
    const bytes = await this.#small(`${this.#root}/source.json`);
    if (bytes === undefined) return undefined;
    try {
      return JSON.parse(bytes.toString('utf8')) as SourceFile;
    } catch {
      return undefined;
    }
  }

  /** Writes what the source is, once. */
  async describeSource(source: SourceFile): Promise<void> {
    await this.store.put(`${this.#root}/source.json`, bytesOf(source), { createOnly: true }).catch((cause) => {
      if (!(cause instanceof HoldfastError && cause.code === 'RESOURCE_EXISTS')) throw cause;
    });
  }

  /** Lists everything, newest first. */
  async catalogue(): Promise<Catalogue> {
    const folders = new Map<string, { names: string[]; verify: string[]; size: number; active: number }>();
    const root = `${this.#root}/backups/`;
    const note = ({ key, size_bytes, modified_at }: StoredObject, finished: boolean): void => {
      const [id, ...rest] = key.slice(root.length).split('/');
      const time = id === undefined ? undefined : timeOfId(id)?.getTime();
      if (id === undefined || time === undefined) return;
      const folder = folders.get(id) ?? { names: [], verify: [], size: 0, active: time };
      const name = rest.join('/');
      folder.names.push(finished ? name : `${name}?`);
      if (finished && name.startsWith('verify/')) folder.verify.push(key);
      folder.size += size_bytes;
      folder.active = Math.max(folder.active, modified_at.getTime());
      folders.set(id, folder);
    };
    for await (const found of this.store.list(root)) note(found, true);
    for await (const found of this.store.unfinished(root)) note(found, false);
    const holds = await this.holds();

    const ids = [...folders.keys()].sort().reverse();
    const backups: (Backup | undefined)[] = [];
    const unfinished: Unfinished[] = [];
    const unreadable: string[] = [];
    await eachOf(ids, async (id, index) => {
      const { names, verify } = folders.get(id)!;
      if (!names.includes('manifest.json')) return;
      try {
        backups[index] = await this.#read(id, verify, holds.get(id));
      } catch (cause) {
        if (!(cause instanceof HoldfastError && cause.code === 'INTEGRITY_FAILED')) throw cause;
        unreadable.push(id);
      }
    });
    for (const id of ids) {
      const { names, size, active } = folders.get(id)!;
      if (names.includes('manifest.json')) continue;
      unfinished.push({ id, files: names.length, size_bytes: size, active_at: new Date(active) });
    }
    return {
      backups: backups.filter((backup) => backup !== undefined),
      unfinished,
      unreadable: unreadable.sort().reverse(),
    };
  }

  /**
   * Reads one backup; undefined where there is no manifest of this id.
   * @throws {HoldfastError} INTEGRITY_FAILED for a manifest that cannot be read
   */
  async find(id: string): Promise<Backup | undefined> {
    if (timeOfId(id) === undefined) return undefined;
    const verify: string[] = [];
    for await (const { key } of this.store.list(this.key(id, 'verify/'))) verify.push(key);
    return this.#read(id, verify, await this.findHold(id));
  }

  async #read(id: string, verify: readonly string[], hold: Hold | undefined): Promise<Backup | undefined> {
    const bytes = await this.#small(this.key(id, 'manifest.json'));
    if (bytes === undefined) return undefined;
    const manifest = parseManifest(bytes, id);
    if (manifest.source_id !== this.sourceId) {
      throw new HoldfastError('INTEGRITY_FAILED', 'the manifest of this backup belongs to another source');
    }
    const verifications: Verification[] = [];
    for (const key of verify) {
      const record = await this.#small(key);
      const parsed = record === undefined ? undefined : parseRecord(Verification, record, id);
      if (parsed) verifications.push(parsed);
    }
    verifications.sort((a, b) => a.finished_at.localeCompare(b.finished_at));
    return { manifest, verifications, damage: damageIn(verifications), verifiedAt: verifiedAt(verifications), hold };
  }

  /**
   * Reads one backup.
   * @throws {HoldfastError} BACKUP_NOT_FOUND with the newest ids there are
   */
  async get(id: string): Promise<Backup> {
    const backup = await this.find(id);
    if (backup) return backup;
    const { backups } = await this.catalogue();
    throw new HoldfastError('BACKUP_NOT_FOUND', `there is no backup '${cleanText(id, 60)}' of this database`, {
      hint:
        backups.length === 0
          ? 'No backup of this database is in its storage. Make one with create-snapshot.'
          : `The newest are ${backups
              .slice(0, 3)
              .map(({ manifest }) => manifest.id)
              .join(', ')}; list-snapshots shows all.`,
    });
  }

  /** Stores the manifest: from now on the backup exists. */
  async commit(manifest: Manifest): Promise<void> {
    await this.store.put(this.key(manifest.id, 'manifest.json'), bytesOf(manifest), { createOnly: true });
  }

  async addVerification(record: Verification): Promise<void> {
    const time = record.finished_at.replace(/[-:]/g, '').replace('.', '');
    await this.store.put(this.key(record.backup_id, `verify/${time}-${record.level}.json`), bytesOf(record), {
      createOnly: true,
    });
  }

  // --- holds ---------------------------------------------------------------------------------------------------------

  /** Every hold, by the id of its backup. One that cannot be read holds all the same. */
  async holds(): Promise<ReadonlyMap<string, Hold>> {
    const ids: string[] = [];
    for await (const { key } of this.store.list(`${this.#root}/holds/`)) {
      const id = /\/([^/]+)\.json$/.exec(key)?.[1];
      if (id !== undefined && timeOfId(id) !== undefined) ids.push(id);
    }
    const holds = new Map<string, Hold>();
    await eachOf(ids, async (id) => {
      const hold = await this.findHold(id);
      if (hold) holds.set(id, hold);
    });
    return holds;
  }

  async findHold(id: string): Promise<Hold | undefined> {
    if (timeOfId(id) === undefined) return undefined;
    const bytes = await this.#small(this.#holdKey(id));
    if (bytes === undefined) return undefined;
    const unreadable = { schema: 'holdfast.pg.hold/1', backup_id: id, reason: 'unreadable', held_at: '' } as const;
    return parseRecord(Hold, bytes, id) ?? unreadable;
  }

  #holdKey(id: string): string {
    return `${this.#root}/holds/${id}.json`;
  }

  /**
   * Keeps a backup from being deleted until it is released.
   * @throws {HoldfastError} RESOURCE_EXISTS where it is held
   */
  async hold(hold: Hold): Promise<void> {
    await this.store.put(this.#holdKey(hold.backup_id), bytesOf(hold), { createOnly: true });
  }

  /** Idempotent. */
  async release(id: string): Promise<void> {
    await this.store.delete(this.#holdKey(id));
  }

  // --- what is being read --------------------------------------------------------------------------------------------

  /** Notes that a backup is being read, so that no prune takes it away meanwhile; gives the way to take the note back. */
  async noteUse(use: Use, token: string): Promise<() => Promise<void>> {
    const key = `${this.#root}/locks/use-${use.backup_id}-${token}.json`;
    await this.store.put(key, bytesOf(use), { createOnly: true });
    return () => this.store.delete(key);
  }

  /** The ids of backups that are being read now, by whatever machine. A note that cannot be read counts. */
  async inUse(now: Date, id = ''): Promise<ReadonlySet<string>> {
    const used = new Set<string>();
    const root = `${this.#root}/locks/use-`;
    for await (const { key } of this.store.list(`${root}${id}`)) {
      const match = /^(.*)-[0-9a-z]+\.json$/.exec(key.slice(root.length));
      if (match?.[1] === undefined) continue;
      const bytes = await this.#small(key);
      const use = bytes === undefined ? undefined : parseRecord(Use, bytes, match[1]);
      if (bytes !== undefined && (use === undefined || Date.parse(use.expires_at) > now.getTime())) used.add(match[1]);
    }
    return used;
  }

  /** Tells whether anything at all is stored under an id. */
  async hasTraces(id: string): Promise<boolean> {
    if (timeOfId(id) === undefined) return false;
    for await (const _ of this.store.list(this.key(id, ''))) return true;
    for await (const _ of this.store.unfinished(this.key(id, ''))) return true;
    return false;
  }

  /** Removes a backup or what is left of one: the manifest first, so that a half-deleted backup is none. Idempotent. */
  async remove(id: string): Promise<void> {
    await this.store.delete(this.key(id, 'manifest.json'));
    const keys: string[] = [];
    for await (const { key } of this.store.list(this.key(id, ''))) keys.push(key);
    for (const key of keys) await this.store.delete(key);
    await this.store.discardUnfinished(this.key(id, ''));
  }

  async #small(key: string): Promise<Buffer | undefined> {
    try {
      // One byte more than is allowed, so that a larger one is seen as such.
      return await buffer(await this.store.get(key, { start: 0, end: 1024 * 1024 }));
    } catch (cause) {
      if (cause instanceof HoldfastError && cause.code === 'RESOURCE_NOT_FOUND') return undefined;
      throw cause;
    }
  }
}

/** Works on all of a list, a few at a time. */
export async function eachOf<T>(
  items: readonly T[],
  work: (item: T, index: number) => Promise<unknown>,
): Promise<void> {
  const queue = items.entries();
  const lane = async (): Promise<void> => {
    for (const [index, item] of queue) await work(item, index);
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, lane));
}

function bytesOf(value: unknown): AsyncIterable<Uint8Array> {
  return Readable.from([Buffer.from(`${JSON.stringify(JSON.parse(canonicalJson(value)), null, 2)}\n`)]);
}

function damageIn(verifications: readonly Verification[]): string | undefined {
  let damage: Verification | undefined;
  for (const record of verifications) {
    if (!record.passed) damage = record;
    else if (damage && VERIFY_LEVELS.indexOf(record.level) >= VERIFY_LEVELS.indexOf(damage.level)) damage = undefined;
  }
  return damage === undefined ? undefined : cleanText(damage.problem ?? 'a verification failed');
}

function verifiedAt(verifications: readonly Verification[]): string | undefined {
  return verifications.filter(({ level, passed }) => passed && level === 'restored').at(-1)?.finished_at;
}
