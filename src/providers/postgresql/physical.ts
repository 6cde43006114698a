import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { HoldfastError } from '../../core/errors.ts';
import type { PlanDraft } from '../../core/plan.ts';
import { withSession } from '../../postgres/connection.ts';
import { whileInUse } from '../../postgres/in-use.ts';
import { isPhysical, type Manifest, type PhysicalManifest, typeOf } from '../../postgres/manifest.ts';
import { backupScratch, preflightPhysical, takePhysicalBackup } from '../../postgres/physical.ts';
import type { Backup, Catalogue, Repository } from '../../postgres/repository.ts';
import type { BackupOptions, Host, PhysicalType, Scope } from './entity.ts';

type Physical = Backup<PhysicalManifest>;

/** Copies of the whole server: taking them, and what rests on what. */
export class PhysicalBackups {
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  /** Where copies of the server are unpacked, and those with tablespaces collected. */
  async scratch(): Promise<string> {
    const { scratch_dir } = this.#host.entity;
    if (scratch_dir !== undefined) return scratch_dir;
    // PostgreSQL does not run as root, and its account cannot get to a directory of root's.
    return process.getuid?.() === 0 ? tmpdir() : this.#host.runtime.workDirectory();
  }

  async plan(scope: Scope, type: PhysicalType): Promise<PlanDraft> {
    const { entity } = this.#host;
    const work = await this.#host.work(scope);
    const sealing = await this.#host.sealing();
    const parent = type === 'full' ? undefined : (async () => this.#parent(type))();
    // The server may say first that it knows no incremental backups at all.
    parent?.catch(() => {});
    const request = { binDir: entity.bin_dir, sealing, scratch: await this.scratch() };
    const facts = await withSession(work.connection, scope.signal, (session) =>
      preflightPhysical(session, work, { ...request, incremental: type !== 'full' }),
    );
    const base = await parent;
    if (base !== undefined) {
      await withSession(work.connection, scope.signal, (session) =>
        preflightPhysical(session, work, { ...request, parent: base.manifest }),
      );
    }
    const { server, tablespaces } = facts;
    return {
      target: entity.key,
      loses: 'nothing',
      blast_radius: {
        server_size_bytes: server.database_size_bytes,
        ...(tablespaces.length === 0
          ? {}
          : { tablespaces: tablespaces.length, scratch_bytes: server.database_size_bytes }),
        ...(base === undefined ? {} : { rests_on: base.manifest.id }),
      },
      undo: 'delete-snapshot removes the backup',
      warnings: [
        ...(facts.opens === 'no_identity_here'
          ? ['No identity is configured here, so nothing proves that somebody can open this backup.']
          : []),
        ...(tablespaces.length === 0
          ? []
          : ['The server has tablespaces: it is copied to the scratch directory of this machine first.']),
      ],
      facts: {
        target: { server: server.system_identifier, parent: base?.manifest.id ?? null },
        context: { pg_basebackup: facts.programVersion },
      },
    };
  }

  async take(scope: Scope, id: string, options: BackupOptions & { readonly type: PhysicalType }): Promise<void> {
    const { entity, runtime } = this.#host;
    const { database: _, type, ...request } = options;
    const work = await this.#host.work(scope);
    const parent = type === 'full' ? undefined : (await this.#parent(type)).manifest;
    const sealing = await this.#host.sealing();
    const scratch = await this.scratch();
    const take = () =>
      takePhysicalBackup(work, {
        ...request,
        id,
        sealing,
        parent,
        scratch,
        level: entity.compression_level ?? 3,
        binDir: entity.bin_dir,
        version: runtime.version ?? 'unknown',
        sourceName: entity.key,
      });
    await (parent === undefined ? take() : whileInUse(work, parent.id, `incremental backup ${id}`, take));
  }

  /** Removes what a backup whose process died left on this machine. */
  async discard(id: string): Promise<void> {
    await rm(backupScratch(await this.scratch(), id), { recursive: true, force: true });
  }

  /** The backup that a new incremental one rests on. */
  async #parent(type: 'incr' | 'diff'): Promise<Physical> {
    const found = goodPhysical(await this.#host.repository().catalogue()).find(
      ({ manifest }) => type === 'incr' || typeOf(manifest) === 'full',
    );
    if (found) return found;
    throw new HoldfastError('INVALID_STATE', 'there is no physical backup that an incremental one could rest on', {
      retryable: false,
      hint: 'Take one with type: full first.',
    });
  }
}

/** Physical backups that can be restored with everything that they rest on, newest first. */
export function goodPhysical({ backups }: Pick<Catalogue, 'backups'>): Physical[] {
  const physical = new Map(backups.filter(isPhysical).map((backup) => [backup.manifest.id, backup]));
  return [...physical.values()]
    .filter((backup) => chainOf(backup.manifest, physical)?.every(({ damage }) => damage === undefined))
    .sort((a, b) => b.manifest.snapshot_at.localeCompare(a.manifest.snapshot_at));
}

/** A physical backup with all that it rests on, the full one first; undefined where one of them is missing. */
export function chainOf(manifest: PhysicalManifest, physical: ReadonlyMap<string, Physical>): Physical[] | undefined {
  const chain: Physical[] = [];
  for (let id: string | undefined = manifest.id; id !== undefined; ) {
    const backup: Physical | undefined = physical.get(id);
    if (backup === undefined || chain.includes(backup)) return undefined;
    chain.unshift(backup);
    id = backup.manifest.parent_id;
  }
  return chain;
}

/**
 * Makes sure that no other backup rests on one.
 * @throws {HoldfastError} INVALID_STATE naming those that do
 */
export async function assertNoChildren(repository: Repository, { id }: Pick<Manifest, 'id'>): Promise<void> {
  const { backups } = await repository.catalogue();
  const children = backups
    .filter(isPhysical)
    .filter(({ manifest }) => manifest.parent_id === id)
    .map(({ manifest }) => manifest.id);
  if (children.length === 0) return;
  throw new HoldfastError(
    'INVALID_STATE',
    'incremental backups rest on this one and could not be restored without it',
    {
      retryable: false,
      hint: `Delete these first, the newest first: ${children.slice(0, 5).join(', ')}. Nothing was deleted.`,
      details: { children },
    },
  );
}
