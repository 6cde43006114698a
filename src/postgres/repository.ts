import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { HoldfastError } from '../core/errors.ts';
import { canonicalJson, sha256 } from '../core/json.ts';
import { cleanText } from '../core/text.ts';
import type { ObjectStore } from '../storage/storage.ts';
import {
  LAYOUT,
  type Manifest,
  parseManifest,
  parseVerification,
  timeOfId,
  VERIFY_LEVELS,
  type Verification,
} from './manifest.ts';

/** A directory without a manifest: someone is still writing it, or died while doing so. */
export interface Unfinished {
  readonly id: string;
  readonly files: number;
  readonly size_bytes: number;
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
    const bytes = await this.#read(`${this.#root}/source.json`);
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
    const folders = new Map<string, { names: string[]; size: number }>();
    const root = `${this.#root}/backups/`;
    const note = (key: string, size: number, finished: boolean): void => {
      const [id, ...rest] = key.slice(root.length).split('/');
      if (id === undefined || timeOfId(id) === undefined) return;
      const folder = folders.get(id) ?? { names: [], size: 0 };
      folder.names.push(finished ? rest.join('/') : `${rest.join('/')}?`);
      folder.size += size;
      folders.set(id, folder);
    };
    for await (const { key, size_bytes } of this.store.list(root)) note(key, size_bytes, true);
    for await (const { key, size_bytes } of this.store.unfinished(root)) note(key, size_bytes, false);

    const backups: Backup[] = [];
    const unfinished: Unfinished[] = [];
    const unreadable: string[] = [];
    for (const id of [...folders.keys()].sort().reverse()) {
      const { names, size } = folders.get(id)!;
      if (!names.includes('manifest.json')) {
        unfinished.push({ id, files: names.length, size_bytes: size });
        continue;
      }
      try {
        const backup = await this.find(id);
        if (backup) backups.push(backup);
      } catch (cause) {
        if (!(cause instanceof HoldfastError && cause.code === 'INTEGRITY_FAILED')) throw cause;
        unreadable.push(id);
      }
    }
    return { backups, unfinished, unreadable };
  }

  /**
   * Reads one backup; undefined where there is no manifest of this id.
   * @throws {HoldfastError} INTEGRITY_FAILED for a manifest that cannot be read
   */
  async find(id: string): Promise<Backup | undefined> {
    if (timeOfId(id) === undefined) return undefined;
    const bytes = await this.#read(this.key(id, 'manifest.json'));
    if (bytes === undefined) return undefined;
    const manifest = parseManifest(bytes, id);
    if (manifest.source_id !== this.sourceId) {
      throw new HoldfastError('INTEGRITY_FAILED', 'the manifest of this backup belongs to another source');
    }
    const verifications: Verification[] = [];
    for await (const { key } of this.store.list(this.key(id, 'verify/'))) {
      const record = await this.#read(key);
      const parsed = record === undefined ? undefined : parseVerification(record, id);
      if (parsed) verifications.push(parsed);
    }
    verifications.sort((a, b) => a.finished_at.localeCompare(b.finished_at));
    return { manifest, verifications, damage: damageIn(verifications), verifiedAt: verifiedAt(verifications) };
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

  async #read(key: string): Promise<Buffer | undefined> {
    try {
      // One byte more than is allowed, so that a larger one is seen as such.
      return await buffer(await this.store.get(key, { start: 0, end: 1024 * 1024 }));
    } catch (cause) {
      if (cause instanceof HoldfastError && cause.code === 'RESOURCE_NOT_FOUND') return undefined;
      throw cause;
    }
  }
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
