import { rm } from 'node:fs/promises';
import type { z } from 'zod';
import type { EntityBase } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Recovery } from '../../core/operation.ts';
import type { PlanDraft } from '../../core/plan.ts';
import type { RecoveryOption } from '../../core/provider.ts';
import type { Runtime } from '../../core/runtime.ts';
import type { BackupInfo, RecoveryPoint, SnapshotList } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration } from '../../core/time.ts';
import { findBinaries } from '../../postgres/binaries.ts';
import { type Connection, parseConnectionUrl, type Session, withSession } from '../../postgres/connection.ts';
import { unpackScratch } from '../../postgres/directory.ts';
import { preflightBackup, takeLogicalBackup } from '../../postgres/dump.ts';
import { toPostgresError } from '../../postgres/errors.ts';
import {
  assertLogical,
  isLogical,
  isPhysical,
  type LogicalManifest,
  newBackupId,
  timeOfId,
  type Verification,
  type VerifyLevel,
} from '../../postgres/manifest.ts';
import { checkReadable } from '../../postgres/readable.ts';
import { type LagThresholds, type ReplicationStatus, readReplication } from '../../postgres/replication.ts';
import { type Backup, Repository, sourceIdOf } from '../../postgres/repository.ts';
import {
  assertFits,
  createDatabase,
  dropDatabase,
  fillDatabase,
  inventoryOf,
  maintenanceOf,
  ownDatabases,
  shortId,
  verifyName,
  withOperationLock,
} from '../../postgres/restore.ts';
import { UNFINISHED_FOR_MS } from '../../postgres/retention.ts';
import type { Keys, Sealing } from '../../postgres/seal.ts';
import { readServer } from '../../postgres/server.ts';
import { ident } from '../../postgres/sql.ts';
import {
  assertKeyFits,
  checkStored,
  compareWith,
  readerBinaries,
  readStoredInventory,
  verifyBackup,
} from '../../postgres/verify.ts';
import type { Work } from '../../postgres/work.ts';
import { openStore } from '../../storage/open.ts';
import type { ObjectStore } from '../../storage/storage.ts';
import { CatalogueCheck } from './catalogue.ts';
import { Differ } from './diff.ts';
import {
  type BackupOptions,
  type BackupType,
  type Host,
  keepingOf,
  type OwnStep,
  type PostgresEntity,
  type Scope,
} from './entity.ts';
import { goodBackups, recoverCommand, toRecoveryPoint, unfinishedPoint } from './map.ts';
import { goodPhysical, PhysicalBackups } from './physical.ts';
import { DirectoryRestorer } from './recovery.ts';
import { Restorer } from './restore.ts';
import { assertDeletable, noBackupRuns, Retention } from './retention.ts';
import { describeStore } from './store.ts';
import { EntityWal, type WalCheck } from './wal.ts';

const DEFAULT_LEVEL = 3;
const DEFAULT_MAX_ROWS = 50_000_000;

/** One configured database with its backups. Secrets are read at each use and kept nowhere. */
export class PostgresClient implements Host {
  readonly entity: PostgresEntity & EntityBase;
  readonly runtime: Runtime;
  #store: ObjectStore | undefined;
  readonly restorer: Restorer;
  readonly directories: DirectoryRestorer;
  readonly retention: Retention;
  readonly differ: Differ;
  readonly catalogue: CatalogueCheck;
  readonly physical: PhysicalBackups;
  readonly wal: EntityWal;

  constructor(entity: PostgresEntity & EntityBase, runtime: Runtime) {
    this.entity = entity;
    this.runtime = runtime;
    this.directories = new DirectoryRestorer(this);
    this.restorer = new Restorer(this, this.directories);
    this.retention = new Retention(this);
    this.differ = new Differ(this);
    this.catalogue = new CatalogueCheck(this);
    this.physical = new PhysicalBackups(this);
    this.wal = new EntityWal(this);
  }

  get store(): ObjectStore {
    this.#store ??= openStore(keepingOf(this.entity).storage, this.runtime);
    return this.#store;
  }

  /** Where the server is, from the URL and the single parameters, which win. */
  async connection(): Promise<Connection> {
    const { entity, runtime } = this;
    const url = entity.connection_url === undefined ? {} : await this.#url(entity.connection_url);
    const password =
      entity.password === undefined
        ? (url.password ?? runtime.credential('PGPASSWORD'))
        : await runtime.secret(entity.password);
    const user = entity.user ?? url.user;
    const database = entity.database ?? url.database;
    if (user === undefined || database === undefined) {
      throw new HoldfastError(
        'CONFIG_INVALID',
        `the entity ${entity.key} names no ${user === undefined ? 'user' : 'database'}`,
        {
          hint: 'Give user and database, or a connection_url that has both.',
        },
      );
    }
    return {
      host: entity.host ?? url.host ?? 'localhost',
      port: entity.port ?? url.port ?? 5432,
      user,
      database,
      password,
      sslMode: entity.ssl_mode ?? url.sslMode ?? 'prefer',
      sslRootCert: entity.ssl_root_cert ?? url.sslRootCert,
    };
  }

  async #url(reference: NonNullable<PostgresEntity['connection_url']>): Promise<Partial<Connection>> {
    const parts = parseConnectionUrl((await this.runtime.secret(reference)).trim());
    if (parts.password !== undefined) this.runtime.conceal(parts.password);
    return parts;
  }

  repository(): Repository {
    const { source_id, key } = this.entity;
    return new Repository(this.store, source_id ?? sourceIdOf(key));
  }

  async keys(): Promise<Keys> {
    const { encryption } = keepingOf(this.entity);
    if (encryption === 'none') return {};
    return {
      identity: encryption.identity === undefined ? undefined : await this.runtime.secret(encryption.identity),
      passphrase: encryption.passphrase === undefined ? undefined : await this.runtime.secret(encryption.passphrase),
    };
  }

  async sealing(): Promise<Sealing> {
    const { encryption } = keepingOf(this.entity);
    if (encryption === 'none') return { scheme: 'none' };
    if (encryption.recipients !== undefined) return { scheme: 'age', recipients: encryption.recipients };
    const { passphrase } = await this.keys();
    if (passphrase === undefined) {
      throw new HoldfastError('CONFIG_INVALID', 'encryption has neither recipients nor passphrase');
    }
    return { scheme: 'age', passphrase };
  }

  async work(scope: Scope): Promise<Work> {
    return { ...this.#base(scope), connection: await this.connection(), keys: await this.keys() };
  }

  #base(scope: Scope): Omit<Work, 'connection' | 'keys'> {
    return {
      runtime: this.runtime,
      repository: this.repository(),
      maxRows: this.entity.fingerprint_max_rows ?? DEFAULT_MAX_ROWS,
      signal: scope.signal,
      progress: (progress) => scope.progress?.(progress),
    };
  }

  scratch(): Promise<string> {
    return this.physical.scratch();
  }

  maintenance(connection: Connection, target: string): Connection {
    return maintenanceOf(connection, this.entity.maintenance_database ?? 'postgres', target);
  }

  // --- reading -------------------------------------------------------------------------------------------------------

  /** Says how this database is backed up. Answers from the storage alone when the server is away. */
  async info(signal: AbortSignal): Promise<z.input<typeof BackupInfo>> {
    const { entity } = this;
    const repository = this.repository();
    const catalogue = await repository.catalogue();
    const warnings: string[] = [];
    let server: JsonObject = {};
    let database: string | undefined;
    try {
      const connection = await this.connection();
      database = connection.database;
      server = await withSession(connection, signal, async (session) => {
        const facts = await this.#serverInfo(session, connection, warnings);
        if (catalogue.backups.some(isPhysical)) warnings.push(...(await this.physical.obstacles(session, { signal })));
        return facts;
      });
    } catch (cause) {
      const error = toPostgresError(cause);
      if (error.code === 'CANCELLED') throw error;
      warnings.push(
        `The server did not answer (${error.code}: ${error.message}). What follows is from the storage alone.`,
      );
    }
    const good = [...goodBackups(catalogue, database), ...goodPhysical(catalogue)].sort((a, b) =>
      b.manifest.snapshot_at.localeCompare(a.manifest.snapshot_at),
    );
    const newest = good[0];
    const now = this.runtime.now().getTime();
    if (newest === undefined) warnings.push('There is no restorable backup. Make one with create-snapshot.');
    else {
      const age = Math.round((now - Date.parse(newest.manifest.snapshot_at)) / 1000);
      if (age > 48 * 3600) warnings.push(`The newest backup is ${formatDuration(age)} old.`);
      if (!good.some(({ verifiedAt }) => verifiedAt !== undefined)) {
        warnings.push('No backup has ever been restored and compared: run verify-snapshot with level restored.');
      }
    }
    const broken = catalogue.backups.filter(({ damage }) => damage !== undefined).map(({ manifest }) => manifest.id);
    for (const id of [...broken, ...catalogue.unreadable].slice(0, 5)) warnings.push(`The backup ${id} is damaged.`);
    for (const { id } of catalogue.unfinished.slice(0, 5)) {
      warnings.push(
        isYoung(id, now)
          ? `The backup ${id} is being written, or its writer died.`
          : `The backup ${id} was never finished; delete-snapshot removes its files.`,
      );
    }
    const { storage, encryption } = keepingOf(entity);
    const stored = await describeStore(storage, this.store);
    warnings.push(...stored.warnings);
    if (encryption === 'none') warnings.push('Backups are not encrypted.');
    else if (encryption.recipients !== undefined && encryption.identity === undefined) {
      warnings.push('No identity is configured here: this machine can write backups but not verify or restore them.');
    }
    const wal = await this.wal.info({ signal }, goodPhysical(catalogue));
    warnings.push(...wal.warnings);
    return {
      automated: (entity.schedules ?? []).some(
        ({ enabled, action }) => enabled && /^create-(?:snapshot|backup)$/.test(action),
      ),
      pitr: { enabled: wal.enabled, ...(wal.window === undefined ? {} : { window: wal.window }) },
      encryption: describeEncryption(encryption),
      deletion_protection: false,
      newest: newest === undefined ? null : toRecoveryPoint(newest, repository),
      warnings,
      provider: {
        ...server,
        ...stored.facts,
        source_id: repository.sourceId,
        backups: catalogue.backups.length,
        stored_bytes: catalogue.backups.reduce(
          (sum, { manifest }) => sum + manifest.payload.reduce((size, { bytes }) => size + bytes, 0),
          0,
        ),
        verified_at: good.find(({ verifiedAt }) => verifiedAt !== undefined)?.verifiedAt ?? null,
        deep_verification: this.#scratchRule(),
        newest_physical: good.find(isPhysical)?.manifest.id ?? null,
        wal: wal.facts,
      },
    };
  }

  async #serverInfo(session: Session, connection: Connection, warnings: string[]): Promise<JsonObject> {
    try {
      await preflightBackup(session, { binDir: this.entity.bin_dir, sealing: { scheme: 'none' } }, { keys: {} });
    } catch (cause) {
      const error = toPostgresError(cause);
      warnings.push(`A backup would fail now (${error.code}): ${error.message}. ${error.hint}`);
    }
    const server = await readServer(session);
    const left = await ownDatabases(session);
    for (const { name, kind } of left.slice(0, 10)) {
      const shown = cleanText(name, 70);
      warnings.push(
        kind === 'before'
          ? `The database '${shown}' is kept from before a restore; when nobody needs it: DROP DATABASE ${cleanText(ident(name), 80)}.`
          : `The temporary database '${shown}' is being filled or was left behind by an interrupted run.`,
      );
    }
    const binaries = await findBinaries(this.entity.bin_dir);
    return {
      server_version: cleanText(server.version, 60),
      database: cleanText(connection.database, 70),
      database_size_bytes: server.database_size_bytes,
      in_recovery: server.in_recovery,
      client_versions: binaries.map(({ version }) => version),
      kept_databases: left.map(({ name }) => cleanText(name, 70)),
    };
  }

  #scratchRule(): string {
    if (this.entity.scratch_url !== undefined) return 'on the server in scratch_url';
    return this.entity.verify_on_source === true
      ? 'in a scratch database on this server'
      : 'not allowed by this entity';
  }

  async list(limit: number, cursor: string | undefined): Promise<z.input<typeof SnapshotList>> {
    const repository = this.repository();
    const catalogue = await repository.catalogue();
    const { backups, unfinished, unreadable } = catalogue;
    const now = this.runtime.now().getTime();
    const whole = new Set(goodPhysical(catalogue).map(({ manifest }) => manifest.id));
    const points = [
      ...backups.map((backup) =>
        toRecoveryPoint(backup, repository, isLogical(backup) || whole.has(backup.manifest.id)),
      ),
      ...unfinished.map((found) =>
        unfinishedPoint(found.id, isYoung(found.id, now) ? 'creating' : 'failed', found.size_bytes),
      ),
      ...unreadable.map((id) => unfinishedPoint(id, 'damaged')),
    ].sort(newestFirst);
    const [id = '', data_at] = (cursor ?? '').split('@');
    if (cursor !== undefined && timeOfId(id) === undefined) {
      throw new HoldfastError('INVALID_PARAMETER', 'this cursor is not of this list', {
        hint: 'Begin again without a cursor.',
      });
    }
    // By what the last one was, not by position: the list may have grown or shrunk since the page before.
    const rest = cursor === undefined ? points : points.filter((point) => newestFirst({ id, data_at }, point) < 0);
    const snapshots = rest.slice(0, limit);
    const last = snapshots.at(-1);
    return {
      snapshots,
      ...(rest.length > limit && last !== undefined ? { next_cursor: `${last.id}@${last.data_at ?? ''}` } : {}),
      ...(unfinished.length > 0
        ? { notes: ['Entries that are creating or failed have no manifest: they are no backups (yet).'] }
        : {}),
    };
  }

  async describe(id: string): Promise<z.input<typeof RecoveryPoint>> {
    const repository = this.repository();
    const backup = await repository.get(id);
    const { manifest, verifications } = backup;
    const chain = isPhysical(backup) ? await this.physical.chain(backup) : [];
    const parts = chain?.map((part) => part.manifest);
    const byHand = parts === undefined ? undefined : recoverCommand(manifest, parts);
    const steps =
      manifest.kind === 'physical' && byHand !== undefined
        ? await this.directories.byHand(manifest, byHand)
        : undefined;
    const point = toRecoveryPoint(
      backup,
      repository,
      isLogical(backup) || (chain?.every(({ damage }) => !damage) ?? false),
    );
    return {
      ...point,
      provider: {
        ...point.provider,
        server: {
          ...manifest.server,
          extensions: manifest.server.extensions.map(
            ({ name, version }) => `${cleanText(name, 70)} ${cleanText(version, 40)}`,
          ),
          database: cleanText(manifest.server.database, 70),
          version: cleanText(manifest.server.version, 60),
        },
        tools: manifest.tools,
        files: manifest.payload.map(({ name, bytes, sha256, plain_bytes, content }) => ({
          name,
          bytes,
          sha256,
          plain_bytes,
          content,
        })),
        recipients: manifest.encryption.recipients,
        warnings: manifest.warnings.map((warning) => cleanText(warning)),
        verifications: verifications.map(({ level, passed, finished_at, duration_ms, problem }) => ({
          level,
          passed,
          finished_at,
          duration_ms,
          ...(problem === undefined ? {} : { problem: cleanText(problem) }),
        })),
        ...(manifest.kind === 'physical' ? { wal: manifest.wal, tablespaces: manifest.tablespaces?.length ?? 0 } : {}),
        ...(chain && chain.length > 1 ? { rests_on: chain.slice(0, -1).map((part) => part.manifest.id) } : {}),
        without_holdfast: byHand ?? 'not possible: a backup that this one rests on is missing',
        ...(steps === undefined ? {} : { recovery_without_holdfast: steps }),
      },
    };
  }

  /** How far every peer is behind, and what the slots hold back. */
  async replication(signal: AbortSignal, thresholds: LagThresholds): Promise<ReplicationStatus> {
    return withSession(await this.connection(), signal, (session) => readReplication(session, thresholds));
  }

  /** Every way back: the newest good backup not after the moment, beside the database first and over it second. */
  async recoveryOptions(at: Date | undefined, signal: AbortSignal): Promise<RecoveryOption[]> {
    const moments = await this.directories.options(signal, at).catch((cause) => {
      const { code, message } = toPostgresError(cause);
      if (code === 'CANCELLED') throw cause;
      // The dumps are a way back still.
      this.runtime.log.warn('whether a moment can be recovered is not known', { code, message });
      return [];
    });
    return [...moments, ...(await this.#databaseOptions(at))];
  }

  async #databaseOptions(at: Date | undefined): Promise<RecoveryOption[]> {
    const { database } = await this.connection().catch(() => ({ database: undefined }));
    const good = goodBackups(await this.repository().catalogue(), database);
    const usable =
      at === undefined ? good : good.filter(({ manifest }) => Date.parse(manifest.snapshot_at) <= at.getTime());
    return usable.slice(0, 3).flatMap(({ manifest }) => {
      const moment = manifest.snapshot_at;
      const what = manifest.trigger === 'safety' ? 'safety backup' : 'backup';
      const shared = { moment, duration_estimate: Math.max(1, Math.round((manifest.duration_ms * 3) / 1000)) };
      const beside = `${manifest.server.database.slice(0, 40)}_restored_${manifest.id.slice(0, 8)}`;
      return [
        {
          ...shared,
          title: `Restore the ${what} of ${moment} into a new database`,
          loses: 'nothing: the database itself is not touched',
          risk: 'create' as const,
          call: {
            entity: this.entity.key,
            action: 'restore',
            input: { snapshot_id: manifest.id, target_database: beside },
          },
        },
        {
          ...shared,
          title: `Restore the ${what} of ${moment} over the database`,
          loses: `everything written after ${moment}; the old database is kept under another name`,
          risk: 'overwrite' as const,
          call: { entity: this.entity.key, action: 'restore', input: { snapshot_id: manifest.id } },
        },
      ];
    });
  }

  async checkWal(scope: Scope, timeoutSeconds: number | undefined): Promise<WalCheck> {
    return this.wal.check(scope, goodPhysical(await this.repository().catalogue()), timeoutSeconds);
  }

  // --- create-snapshot -----------------------------------------------------------------------------------------------

  async planBackup(scope: Scope, type: BackupType = 'logical'): Promise<PlanDraft> {
    if (type !== 'logical') return this.physical.plan(scope, type);
    const connection = await this.connection();
    const sealing = await this.sealing();
    const keys = await this.keys();
    const { server, binaries, opens } = await withSession(connection, scope.signal, (session) =>
      preflightBackup(session, { binDir: this.entity.bin_dir, sealing }, { keys }),
    );
    return {
      target: this.entity.key,
      loses: 'nothing',
      blast_radius: { database_size_bytes: server.database_size_bytes },
      undo: 'delete-snapshot removes the backup',
      warnings:
        opens === 'no_identity_here'
          ? ['No identity is configured here, so nothing proves that somebody can open this backup.']
          : [],
      facts: {
        target: { database: connection.database, system_identifier: server.system_identifier },
        context: { pg_dump: binaries.version },
      },
    };
  }

  /** The one step of create-snapshot and of the safety snapshot: backs up a database of the server. */
  async takeBackup(step: OwnStep, options: Omit<BackupOptions, 'operationId'>): Promise<JsonObject> {
    const logical = this.entity.parallel === undefined ? 'logical' : 'logical_dir';
    const kind = (options.type ?? 'logical') === 'logical' ? logical : 'physical';
    const id = newBackupId(this.runtime.now(), this.runtime.random(6), kind);
    await step.checkpoint({ backup_id: id });
    await this.newBackup(step, id, { ...options, operationId: step.operationId });
    return this.#backupResult(id);
  }

  async newBackup(scope: Scope, id: string, options: BackupOptions): Promise<void> {
    const { database, type = 'logical', ...request } = options;
    if (type !== 'logical') return this.physical.take(scope, id, { ...options, type });
    const own = await this.work(scope);
    const work = database === undefined ? own : { ...own, connection: { ...own.connection, database } };
    await takeLogicalBackup(work, {
      ...request,
      id,
      sealing: await this.sealing(),
      level: this.entity.compression_level ?? DEFAULT_LEVEL,
      binDir: this.entity.bin_dir,
      version: this.runtime.version ?? 'unknown',
      sourceName: this.entity.key,
      parallel:
        this.entity.parallel === undefined ? undefined : { jobs: this.entity.parallel, scratch: await this.scratch() },
      rolePasswords: this.entity.include_role_passwords,
    });
  }

  /** Backs up the database that a restore is about to replace. */
  async takeSafetyBackup(
    step: OwnStep,
    input: { snapshot_id: string; target_database?: string | undefined },
  ): Promise<JsonObject> {
    const database = input.target_database ?? (await this.connection()).database;
    return this.takeBackup(step, {
      trigger: 'safety',
      label: 'safety backup',
      description: `taken before ${input.snapshot_id} was restored over it`,
      database,
    });
  }

  /** Reads the safety backup back, so that the way back is proven before it is needed. */
  async verifySafetyBackup(step: OwnStep): Promise<JsonObject> {
    return this.verify(step, String(step.results['safety-snapshot']?.['id']), 'readable');
  }

  async #backupResult(id: string): Promise<JsonObject> {
    const repository = this.repository();
    return { ...toRecoveryPoint(await repository.get(id), repository) } as JsonObject;
  }

  /** Finds out what became of a backup whose process died; removes what is provably its own and unfinished. */
  async recoverBackup(step: OwnStep): Promise<Recovery> {
    const id = step.handle?.['backup_id'];
    if (typeof id !== 'string') return { state: 'not_begun' };
    const repository = this.repository();
    await this.physical.discard(id);
    if (await repository.find(id)) return { state: 'done', result: await this.#backupResult(id) };
    if (await repository.hasTraces(id)) {
      this.runtime.assertMayWrite('removing an unfinished backup');
      await repository.remove(id);
      return { state: 'not_begun', message: `what there was of the backup ${id} has been removed` };
    }
    return { state: 'not_begun' };
  }

  // --- delete-snapshot -----------------------------------------------------------------------------------------------

  async planDelete(scope: Scope, id: string): Promise<PlanDraft> {
    const repository = this.repository();
    const found = await repository.find(id).catch((cause) => {
      // A manifest that cannot be read is a reason to delete, not a reason to refuse.
      if (cause instanceof HoldfastError && cause.code === 'INTEGRITY_FAILED') return undefined;
      throw cause;
    });
    if (!found) return this.#planRemnants(scope, repository, id);
    const { manifest } = found;
    const { database } = manifest.server;
    const catalogue = await repository.catalogue();
    await assertDeletable(repository, id, catalogue.backups);
    // A dump and a copy of the server each stand for their own kind, and either brings the data back.
    const kind: readonly Backup[] = isPhysical(found) ? goodPhysical(catalogue) : goodBackups(catalogue, database);
    const others = kind.filter((other) => other.manifest.id !== id);
    const either = [...goodBackups(catalogue, database), ...goodPhysical(catalogue)];
    const last = found.damage === undefined && either.every((other) => other.manifest.id === id);
    const verified = others.some(({ verifiedAt }) => verifiedAt !== undefined);
    const newer = others.find((other) => other.manifest.snapshot_at > manifest.snapshot_at);
    const warnings: string[] = [];
    if (last) warnings.push('This is the last restorable backup of this database in this storage.');
    if (!last && found.verifiedAt !== undefined && !verified)
      warnings.push('No other backup has been verified by a restore.');
    if (!last && others.length === 0) {
      warnings.push(
        `This is the last restorable ${isPhysical(found) ? 'physical' : 'logical'} backup in this storage.`,
      );
    }
    if (isPhysical(found)) warnings.push(...(await this.physical.warningsFor(found, catalogue)));
    if (manifest.trigger === 'safety') warnings.push('This is a safety backup: it is the way back from a restore.');
    if ((await repository.inUse(this.runtime.now(), id)).has(id)) {
      warnings.push('It is being restored or verified now, or whoever did so died within the last two days.');
    }
    return {
      target: id,
      loses: `the state of ${isPhysical(found) ? 'the whole server' : `'${cleanText(database, 70)}'`} at ${manifest.snapshot_at}${found.damage === undefined ? '' : ', which is damaged'}`,
      blast_radius: {
        stored_bytes: manifest.payload.reduce((sum, { bytes }) => sum + bytes, 0),
        other_restorable: others.length,
      },
      ...(others[0]
        ? { newest_recovery_point: { id: others[0].manifest.id, at: others[0].manifest.snapshot_at } }
        : {}),
      last_restorable: last,
      undo: 'none: the files are removed',
      alternatives: last
        ? [
            {
              title: 'Make another backup first',
              risk: 'create',
              call: { entity: this.entity.key, action: 'create-snapshot', input: {} },
            },
          ]
        : [],
      warnings,
      unknowns:
        newer === undefined && !last ? ['whether anybody still needs the newest moment, which is this one'] : [],
      facts: { target: { snapshot_id: id, finished_at: manifest.finished_at, last_restorable: last } },
    };
  }

  async #planRemnants(scope: Scope, repository: Repository, id: string): Promise<PlanDraft> {
    if (!(await repository.hasTraces(id))) {
      await repository.get(id);
      throw new HoldfastError('BACKUP_NOT_FOUND', 'there is no such backup');
    }
    if (isYoung(id, this.runtime.now().getTime()) && !(await noBackupRuns(this, scope.signal))) {
      throw new HoldfastError('INVALID_STATE', 'this backup may still be being written', {
        hint: 'Wait for the operation that makes it, or try again when it is 24 hours old.',
      });
    }
    return {
      target: id,
      loses: 'no backup: these are the remains of one that was never finished, or whose manifest is unreadable',
      undo: 'none: the files are removed',
      facts: { target: { snapshot_id: id, unfinished: true } },
    };
  }

  async remove(id: string): Promise<void> {
    const repository = this.repository();
    if (!(await repository.hasTraces(id))) await repository.get(id);
    await assertDeletable(repository, id, []);
    this.runtime.assertMayWrite('deleting a backup');
    await repository.remove(id);
  }

  // --- verify-snapshot -----------------------------------------------------------------------------------------------

  /** Where a deep verification may make its scratch database. */
  async #scratch(): Promise<Connection> {
    const { scratch_url, verify_on_source } = this.entity;
    if (scratch_url !== undefined) {
      const url = await this.#url(scratch_url);
      const { host, user } = url;
      if (host === undefined || user === undefined) {
        throw new HoldfastError('CONFIG_INVALID', 'scratch_url names no host or no user');
      }
      return {
        host,
        user,
        port: url.port ?? 5432,
        database: url.database ?? 'postgres',
        password: url.password,
        sslMode: url.sslMode ?? 'prefer',
        sslRootCert: url.sslRootCert,
      };
    }
    if (verify_on_source === true) return this.connection();
    throw new HoldfastError('NOT_SUPPORTED', 'this entity allows no scratch database, which level restored needs', {
      hint: 'Set verify_on_source: true to allow one on the source server, or scratch_url to name another server; level readable needs neither.',
    });
  }

  async planVerify(_scope: Scope, id: string, level: VerifyLevel): Promise<PlanDraft> {
    const backup = await this.repository().get(id);
    if (isPhysical(backup)) return this.physical.planVerify(backup, level);
    if (level === 'restored') await this.#scratch();
    return {
      target: id,
      loses: 'nothing',
      undo: level === 'restored' ? 'the scratch database is dropped at the end' : 'not needed',
      duration_estimate: Math.max(1, Math.round((backup.manifest.duration_ms * (level === 'restored' ? 4 : 1)) / 1000)),
      facts: { target: { snapshot_id: id, level } },
    };
  }

  async verify(step: OwnStep, id: string, level: VerifyLevel): Promise<JsonObject> {
    const repository = this.repository();
    const found = await repository.get(id);
    if (isPhysical(found)) {
      const work = level === 'stored' ? this.#keyless(step) : await this.work(step);
      return verifiedResult(await this.physical.verify(step, work, found, level));
    }
    const backup = assertLogical(found);
    if (level === 'stored') {
      const work = this.#keyless(step);
      return verifiedResult(await verifyBackup(work, backup, level, {}, () => checkStored(work, backup.manifest)));
    }
    const work = await this.work(step);
    if (level === 'readable') {
      const binaries = await readerBinaries(backup.manifest, this.entity.bin_dir);
      return verifiedResult(
        await verifyBackup(work, backup, level, { pg_restore: binaries.version }, async () =>
          checkReadable(work, backup.manifest, binaries, await this.#unpackTo(step)),
        ),
      );
    }
    return this.#verifyRestored(step, work, backup);
  }

  /** Level stored reads no content, so it works where no key is. */
  #keyless(scope: Scope): Work {
    const none: Connection = { host: '', port: 0, user: '', database: '', sslMode: 'disable' };
    return { ...this.#base(scope), connection: none, keys: {} };
  }

  async #verifyRestored(step: OwnStep, work: Work, backup: Backup<LogicalManifest>): Promise<JsonObject> {
    const { manifest } = backup;
    const scratch = await this.#scratch();
    const at = { ...work, connection: scratch };
    const id = shortId(step.operationId);
    const name = verifyName(id);
    return withOperationLock(this.maintenance(scratch, name), id, step.signal, async (session) => {
      const server = await readServer(session);
      await assertFits(session, server, manifest);
      const binaries = await readerBinaries(manifest, this.entity.bin_dir, server.major);
      await step.checkpoint({ scratch: true });
      let oid: number | undefined;
      try {
        const record = await verifyBackup(
          at,
          backup,
          'restored',
          { pg_restore: binaries.version, server: server.version },
          async () => {
            await checkStored(at, manifest);
            await assertKeyFits(at, manifest);
            const expected = await readStoredInventory(at, manifest);
            oid = await createDatabase(at, session, name, manifest, server, undefined);
            await fillDatabase(at, name, manifest, {
              binaries,
              noOwner: true,
              scratch: await this.#unpackTo(step),
              jobs: this.entity.parallel,
            });
            return compareWith(expected, await inventoryOf(at, name, binaries, false));
          },
        );
        return verifiedResult(record);
      } finally {
        await this.#dropScratch(at, name, id, oid);
      }
    });
  }

  /** Drops the scratch database also after an abort, when the session that made it takes no more statements. */
  async #dropScratch(work: Work, name: string, id: string, oid: number | undefined): Promise<boolean> {
    const rest = { ...work, signal: undefined };
    return withSession(this.maintenance(work.connection, name), undefined, (session) =>
      dropDatabase(rest, session, name, oid),
    ).catch((cause) => {
      this.runtime.log.warn('a scratch database could not be dropped', { id, reason: String(cause) });
      return false;
    });
  }

  async #unpackTo({ operationId }: Pick<OwnStep, 'operationId'>): Promise<string> {
    return unpackScratch(await this.scratch(), shortId(operationId));
  }

  async recoverVerify(step: OwnStep): Promise<Recovery> {
    await rm(await this.#unpackTo(step), { recursive: true, force: true });
    const copy = step.handle?.['copy'];
    if (typeof copy === 'string') {
      await this.physical.discardCopy(copy);
      return { state: 'not_begun', message: 'its unpacked copy has been removed' };
    }
    if (step.handle?.['scratch'] !== true) return { state: 'not_begun' };
    const scratch = await this.#scratch();
    const id = shortId(step.operationId);
    const name = verifyName(id);
    const work = { ...(await this.work({ signal: step.signal })), connection: scratch };
    return withOperationLock(this.maintenance(scratch, name), id, step.signal, async (session) => {
      const dropped = await dropDatabase(work, session, name, undefined);
      return { state: 'not_begun', ...(dropped ? { message: 'its scratch database has been dropped' } : {}) };
    });
  }
}

function isYoung(id: string, now: number): boolean {
  const time = timeOfId(id);
  return time !== undefined && now - time.getTime() < UNFINISHED_FOR_MS;
}

function describeEncryption(encryption: NonNullable<PostgresEntity['encryption']>): string {
  if (encryption === 'none') return 'none';
  if (encryption.passphrase !== undefined) return 'age, by a passphrase';
  const count = encryption.recipients?.length ?? 0;
  return `age, for ${count} recipient${count === 1 ? '' : 's'}`;
}

function verifiedResult(record: Verification): JsonObject {
  const { backup_id, level, passed, finished_at, duration_ms, numbers } = record;
  return {
    snapshot_id: backup_id,
    level,
    passed,
    finished_at,
    duration_seconds: duration_ms / 1000,
    numbers,
    tools: record.tools,
  };
}

type Dated = Pick<z.input<typeof RecoveryPoint>, 'id' | 'data_at'>;

/** Ids tell the second only; within it the moment of the data decides. */
function newestFirst(a: Dated, b: Dated): number {
  const seconds = b.id.slice(0, 16).localeCompare(a.id.slice(0, 16));
  return seconds || (b.data_at ?? '').localeCompare(a.data_at ?? '') || b.id.localeCompare(a.id);
}
