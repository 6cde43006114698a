import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HoldfastError } from '../../core/errors.ts';
import type { PlanDraft } from '../../core/plan.ts';
import { cleanText } from '../../core/text.ts';
import { type Session, withSession } from '../../postgres/connection.ts';
import { checkPhysicalReadable, checkPhysicalRestored, majorOf, roomFor, verifierOf } from '../../postgres/copy.ts';
import { findServerOf, stopAbandoned } from '../../postgres/copy-server.ts';
import { toPostgresError } from '../../postgres/errors.ts';
import { whileInUse } from '../../postgres/in-use.ts';
import {
  isPhysical,
  type PhysicalManifest,
  typeOf,
  type Verification,
  type VerifyLevel,
} from '../../postgres/manifest.ts';
import { preflightPhysical, takePhysicalBackup } from '../../postgres/physical.ts';
import type { Backup, Catalogue } from '../../postgres/repository.ts';
import { shortId } from '../../postgres/restore.ts';
import { assertRoom, backupScratch } from '../../postgres/scratch.ts';
import { checkStored, verifyBackup } from '../../postgres/verify.ts';
import { WalArchive } from '../../postgres/wal-archive.ts';
import type { Work } from '../../postgres/work.ts';
import type { BackupOptions, Host, OwnStep, PhysicalType, Scope } from './entity.ts';

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
    const request = {
      binDir: entity.bin_dir,
      sealing: await this.#host.sealing(),
      scratch: await this.scratch(),
      findParent: this.#parentOf(type),
    };
    const facts = await withSession(work.connection, scope.signal, (session) =>
      preflightPhysical(session, work, request),
    );
    const base = facts.parent;
    const { server, tablespaces } = facts;
    return {
      target: entity.key,
      loses: 'nothing',
      blast_radius: {
        server_size_bytes: server.database_size_bytes,
        ...(tablespaces.length === 0
          ? {}
          : { tablespaces: tablespaces.length, scratch_bytes: server.database_size_bytes }),
        ...(base === undefined ? {} : { rests_on: base.id }),
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
        target: { server: server.system_identifier, parent: base?.id ?? null },
        context: { pg_basebackup: facts.programVersion },
      },
    };
  }

  /** Why the next physical backup would fail, for a source that has some. */
  async obstacles(session: Session, scope: Scope): Promise<string[]> {
    const request = {
      binDir: this.#host.entity.bin_dir,
      sealing: { scheme: 'none' as const },
      scratch: await this.scratch(),
      findParent: undefined,
    };
    try {
      await preflightPhysical(session, await this.#host.work(scope), request);
      return [];
    } catch (cause) {
      const { code, message, hint } = toPostgresError(cause);
      if (code === 'CANCELLED') throw cause;
      return [`A physical backup would fail now (${code}): ${message}. ${hint}`];
    }
  }

  async take(scope: Scope, id: string, options: BackupOptions & { readonly type: PhysicalType }): Promise<void> {
    const { entity, runtime } = this.#host;
    const { database: _, type, ...request } = options;
    const work = await this.#host.work(scope);
    await takePhysicalBackup(work, {
      ...request,
      id,
      sealing: await this.#host.sealing(),
      findParent: this.#parentOf(type),
      scratch: await this.scratch(),
      level: entity.compression_level ?? 3,
      binDir: entity.bin_dir,
      version: runtime.version ?? 'unknown',
      sourceName: entity.key,
    });
  }

  /** Removes what a backup whose process died left on this machine. */
  async discard(id: string): Promise<void> {
    await rm(backupScratch(await this.scratch(), id), { recursive: true, force: true });
  }

  async planVerify(backup: Physical, level: VerifyLevel): Promise<PlanDraft> {
    const { manifest } = backup;
    const chain = level === 'stored' ? [manifest] : await this.#manifests(backup);
    if (level === 'restored') await findServerOf(majorOf(manifest), this.#host.entity.bin_dir);
    const where = level === 'stored' ? undefined : await this.scratch();
    if (where !== undefined) await assertRoom(where, roomFor(chain), 'A physical backup is unpacked there.');
    return {
      target: manifest.id,
      loses: 'nothing',
      blast_radius: where === undefined ? {} : { scratch_bytes: roomFor(chain), scratch_dir: cleanText(where, 200) },
      undo: where === undefined ? 'not needed' : 'the unpacked copy is removed at the end',
      duration_estimate: Math.max(1, Math.round((manifest.duration_ms * (level === 'restored' ? 4 : 2)) / 1000)),
      facts: { target: { snapshot_id: manifest.id, level } },
    };
  }

  /** Level readable unpacks to the scratch directory, level restored also starts a server on the copy; both remove it. */
  async verify(step: OwnStep, work: Work, backup: Physical, level: VerifyLevel): Promise<Verification> {
    const { manifest } = backup;
    if (level === 'stored') return verifyBackup(work, backup, level, {}, () => checkStored(work, manifest));
    const { bin_dir } = this.#host.entity;
    const chain = await this.#manifests(backup);
    const tools = { pg_verifybackup: (await verifierOf(manifest, bin_dir)).version };
    const directory = join(await this.scratch(), `holdfast-verify-${shortId(step.operationId)}`);
    await step.checkpoint({ copy: directory });
    this.#host.runtime.assertMayWrite('using the scratch directory');
    const check = async (): Promise<Record<string, number>> => {
      try {
        if (level === 'restored') return await checkPhysicalRestored(work, chain, directory, bin_dir);
        return (await checkPhysicalReadable(work, chain, directory, bin_dir)).numbers;
      } finally {
        await rm(directory, { recursive: true, force: true, maxRetries: 5 });
      }
    };
    const used = chain.slice(0, -1).reduce(
      (inner, { id }) =>
        () =>
          whileInUse(work, id, `verification of ${manifest.id}`, inner),
      check,
    );
    return verifyBackup(work, backup, level, tools, used);
  }

  /** Stops and removes what a verification whose process died left. */
  async discardCopy(directory: string): Promise<void> {
    this.#host.runtime.assertMayWrite('using the scratch directory');
    await stopAbandoned(join(directory, 'data'), this.#host.entity.bin_dir);
    await rm(directory, { recursive: true, force: true, maxRetries: 5 });
  }

  /** What a backup is put together from, the full one first; undefined where one of them is missing. */
  async chain(backup: Physical): Promise<Physical[] | undefined> {
    if (backup.manifest.parent_id === undefined) return [backup];
    return chainOf(backup.manifest, physicalOf((await this.#host.repository().catalogue()).backups));
  }

  /** What deleting a physical backup takes away besides its own moment: it is where recoveries to later moments begin. */
  async warningsFor({ manifest }: Physical, catalogue: Catalogue): Promise<string[]> {
    const archive = new WalArchive(this.#host.repository(), this.#host.runtime);
    if ((await archive.source()) === undefined) return [];
    const others = goodPhysical(catalogue).filter((other) => other.manifest.id !== manifest.id);
    const older = others.find((other) => other.manifest.snapshot_at < manifest.snapshot_at);
    if (older) return [`Recoveries to moments after it begin at ${older.manifest.id} then, and take longer.`];
    const next = others.at(-1);
    return [
      next === undefined
        ? 'Write-ahead log is archived, and without this backup no moment can be recovered to.'
        : `Recovery to any moment before ${next.manifest.snapshot_at} becomes impossible: the write-ahead log until then begins at this backup.`,
    ];
  }

  async #manifests(backup: Physical): Promise<PhysicalManifest[]> {
    const chain = await this.chain(backup);
    if (chain) return chain.map((part) => part.manifest);
    throw new HoldfastError('INTEGRITY_FAILED', 'a backup that this incremental one rests on is not in the storage', {
      hint: 'Without it this backup cannot be restored. Use a full backup: list-snapshots shows them.',
    });
  }

  /** Finds what a new incremental backup rests on. */
  #parentOf(type: PhysicalType): (() => Promise<PhysicalManifest>) | undefined {
    if (type === 'full') return undefined;
    return async () => {
      const found = goodPhysical(await this.#host.repository().catalogue()).find(
        ({ manifest }) => type === 'incr' || typeOf(manifest) === 'full',
      );
      if (found) return found.manifest;
      throw new HoldfastError('INVALID_STATE', 'there is no physical backup that an incremental one could rest on', {
        retryable: false,
        hint: 'Take one with type: full first.',
      });
    };
  }
}

/** Physical backups that can be restored with everything that they rest on, newest first. */
export function goodPhysical({ backups }: Pick<Catalogue, 'backups'>): Physical[] {
  const physical = physicalOf(backups);
  return [...physical.values()]
    .filter((backup) => chainOf(backup.manifest, physical)?.every(({ damage }) => damage === undefined))
    .sort((a, b) => b.manifest.snapshot_at.localeCompare(a.manifest.snapshot_at));
}

function physicalOf(backups: readonly Backup[]): Map<string, Physical> {
  return new Map(backups.filter(isPhysical).map((backup) => [backup.manifest.id, backup]));
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
