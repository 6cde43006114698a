import { rm } from 'node:fs/promises';
import type { z } from 'zod';
import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Recovery } from '../../core/operation.ts';
import type { Plan, PlanDraft } from '../../core/plan.ts';
import type { RestoreJob } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatBytes } from '../../core/time.ts';
import type { Binaries } from '../../postgres/binaries.ts';
import { type Session, withSession } from '../../postgres/connection.ts';
import { unpackScratch } from '../../postgres/directory.ts';
import { toPostgresError } from '../../postgres/errors.ts';
import type { Inventory } from '../../postgres/inventory.ts';
import { assertLogical, type LogicalManifest } from '../../postgres/manifest.ts';
import type { Backup, Repository } from '../../postgres/repository.ts';
import {
  applySettings,
  assertFits,
  beforeName,
  createDatabase,
  dropDatabase,
  fillDatabase,
  inventoryOf,
  isLocked,
  missingRoles,
  restoreName,
  shortId,
  swapDatabases,
  swapState,
  withOperationLock,
} from '../../postgres/restore.ts';
import { type DatabaseFacts, readDatabase, readServer, type ServerFacts } from '../../postgres/server.ts';
import { type DatabaseSettings, readSettings } from '../../postgres/settings.ts';
import { checkDatabaseName, ident } from '../../postgres/sql.ts';
import { leftOut, parseTableName, subsetOf, type TableName } from '../../postgres/subset.ts';
import { assertKeyFits, compareWith, readerBinaries, readStoredInventory } from '../../postgres/verify.ts';
import type { Work } from '../../postgres/work.ts';
import type { Host, OwnStep, Scope } from './entity.ts';
import { goodBackups } from './map.ts';
import type { DirectoryRestorer } from './recovery.ts';
import { RESTORE_LEDGER, restorableFrom } from './source.ts';

export interface RestoreInput {
  readonly snapshot_id: string;
  readonly target_database?: string | undefined;
  readonly no_owner?: boolean | undefined;
  readonly tables?: readonly string[] | undefined;
  readonly from_source?: string | undefined;
}

type Phase = 'restore' | 'compare' | 'swap' | 'succeeded' | 'failed';

/** The names that one restore uses. They follow from the call and the operation, so nothing need be remembered to find them. */
interface Names {
  readonly id: string;
  readonly target: string;
  readonly restored: string;
  readonly before: string;
}

/** Restores a backup into a database beside the target, compares it, and only then gives it the target's name. */
export class Restorer {
  readonly #host: Host;
  readonly #directories: Pick<DirectoryRestorer, 'status'>;

  constructor(host: Host, directories: Pick<DirectoryRestorer, 'status'>) {
    this.#host = host;
    this.#directories = directories;
  }

  async #target(input: RestoreInput): Promise<string> {
    return input.target_database === undefined
      ? (await this.#host.connection()).database
      : checkDatabaseName(input.target_database);
  }

  async #names(step: OwnStep): Promise<Names> {
    const target = await this.#target(step.input as RestoreInput);
    const id = shortId(step.operationId);
    return { id, target, restored: restoreName(target, id), before: beforeName(target, id) };
  }

  #repository({ from_source }: Pick<RestoreInput, 'from_source'>): Repository {
    return restorableFrom(this.#host, from_source);
  }

  async #work(scope: Scope, input: Pick<RestoreInput, 'from_source'>): Promise<Work> {
    return { ...(await this.#host.work(scope)), repository: this.#repository(input) };
  }

  /** A backup that may be restored. */
  async #backup(repository: Repository, id: string): Promise<Backup<LogicalManifest>> {
    const backup = await repository.get(id);
    if (backup.damage !== undefined) {
      throw new HoldfastError('INTEGRITY_FAILED', 'a verification found this backup damaged, so it is not restored', {
        hint: 'Use another backup. If the storage was repaired, run verify-snapshot again first.',
        details: { damage: backup.damage },
      });
    }
    return assertLogical(backup);
  }

  // --- the plan ------------------------------------------------------------------------------------------------------

  async plan(scope: Scope, asked: Omit<RestoreInput, 'snapshot_id'> & Partial<RestoreInput>): Promise<PlanDraft> {
    const host = this.#host;
    const { snapshot_id } = asked;
    if (snapshot_id === undefined) {
      throw new HoldfastError('INVALID_PARAMETER', 'neither a backup nor a moment was given', {
        hint: 'Give snapshot_id (list-snapshots has them); or target_directory with use_latest, restore_timestamp, lsn or restore_point.',
      });
    }
    const input = { ...asked, snapshot_id };
    const target = await this.#target(input);
    const backup = await this.#backup(this.#repository(input), snapshot_id);
    const { manifest } = backup;
    const work = await this.#work(scope, input);
    await assertKeyFits(work, manifest);
    const inventory = await readStoredInventory(work, manifest);
    const warnings = manifest.warnings.map((warning) => `Of the backup: ${cleanText(warning)}.`);
    if (backup.verifiedAt === undefined) {
      warnings.push('This backup has never been restored and compared; this restore compares it before it is used.');
    }
    return withSession(host.maintenance(work.connection, target), scope.signal, async (session) => {
      const server = await readServer(session);
      await assertFits(session, server, manifest);
      await readerBinaries(manifest, host.entity.bin_dir, server.major);
      const current = await readDatabase(session, target);
      const noOwner = await this.#ownership(session, server, inventory.roles, input, current !== undefined, warnings);
      if (!server.role.superuser && !server.role.create_db) {
        throw new HoldfastError('INSUFFICIENT_PERMISSIONS', 'the role may not create databases', {
          hint: 'As a superuser run ALTER ROLE … CREATEDB for the role of this entity.',
        });
      }
      if (current) assertReplaceable(current, server);
      const subset = this.#subset(inventory, input, current !== undefined, warnings);
      const facts = {
        target: {
          database: target,
          oid: current?.oid ?? null,
          owner: current?.owner ?? null,
          system_identifier: server.system_identifier,
        },
        source: {
          snapshot_id: manifest.id,
          source_id: manifest.source_id,
          snapshot_at: manifest.snapshot_at,
          sha256: manifest.payload.map(({ sha256 }) => sha256).join(' '),
        },
        context: {
          no_owner: noOwner,
          server_major: server.major,
          ...(subset === undefined
            ? {}
            : { tables: subset.map(({ schema, name }) => `${ident(schema)}.${ident(name)}`) }),
        },
      };
      const shared = {
        target: `${host.entity.key}:${target}`,
        source: `backup ${manifest.id}${input.from_source === undefined ? '' : ` of ${input.from_source},`} of '${cleanText(manifest.server.database, 70)}' at ${manifest.snapshot_at}`,
        duration_estimate: Math.max(1, Math.round((manifest.duration_ms * 4) / 1000)),
        unknowns: [
          `free disk space on the server: the restore needs about ${formatBytes(Math.round(manifest.server.database_size_bytes * 1.2))} beside what is there`,
        ],
        facts,
      };
      if (!current) {
        return { ...shared, loses: 'nothing: the database is new', undo: `DROP DATABASE ${ident(target)}`, warnings };
      }
      return { ...shared, ...(await this.#overwrite(manifest, current, target, warnings)) };
    });
  }

  /**
   * What a restore of single tables brings. It goes into a new database: one that is there would lose its other tables.
   * @throws {HoldfastError} INVALID_PARAMETER
   */
  #subset(
    inventory: Inventory,
    input: RestoreInput,
    exists: boolean,
    warnings: string[],
  ): readonly TableName[] | undefined {
    if (input.tables === undefined) return undefined;
    if (input.target_database === undefined || exists) {
      const why = exists ? 'it would replace a database by some of its tables' : 'no new database was named';
      throw new HoldfastError('INVALID_PARAMETER', `single tables go into a new database only: ${why}`, {
        hint: 'Give a target_database that does not exist yet, and copy the rows from there. Nothing was changed.',
      });
    }
    const subset = subsetOf(inventory, input.tables);
    for (const part of leftOut(inventory, subset)) warnings.push(`Left out: ${part}.`);
    return subset.tables;
  }

  async #overwrite(
    manifest: LogicalManifest,
    current: DatabaseFacts,
    target: string,
    warnings: string[],
  ): Promise<Partial<PlanDraft> & Pick<PlanDraft, 'loses' | 'undo'>> {
    const { key } = this.#host.entity;
    const newest = goodBackups(await this.#host.repository().catalogue(), target)[0];
    if (manifest.server.database !== target) {
      warnings.unshift(
        `The backup is of the database '${cleanText(manifest.server.database, 70)}', not of the target.`,
      );
    }
    if (current.logical_slots > 0) {
      warnings.push(
        `${current.logical_slots} logical replication slots stay with the old database: subscribers must be set up again.`,
      );
    }
    const beside = `${target.slice(0, 40)}_restored_${manifest.id.slice(0, 8)}`;
    return {
      risk: 'overwrite',
      loses: `everything written to '${cleanText(target, 70)}' after ${manifest.snapshot_at}; all its sessions are ended`,
      since: manifest.snapshot_at,
      blast_radius: {
        database: cleanText(target, 70),
        size_bytes: current.size_bytes,
        connections: current.connections,
        logical_replication_slots: current.logical_slots,
        backup_tables: manifest.inventory.tables,
        backup_rows: manifest.inventory.rows_total,
      },
      ...(newest ? { newest_recovery_point: { id: newest.manifest.id, at: newest.manifest.snapshot_at } } : {}),
      safety_snapshot: { possible: true },
      undo: 'the old database is kept whole under the name <target>_before_<id>, which the result gives; rename it back, or restore the safety snapshot',
      alternatives: [
        {
          title: 'Restore into a new database beside it and look first',
          risk: 'create',
          call: { entity: key, action: 'restore', input: { snapshot_id: manifest.id, target_database: beside } },
        },
        {
          title: 'Prove first that the backup can be restored',
          risk: 'create',
          call: { entity: key, action: 'verify-snapshot', input: { snapshot_id: manifest.id, level: 'restored' } },
        },
      ],
      warnings,
    };
  }

  /** Decides whether owners and grants come with the data. */
  async #ownership(
    session: Session,
    server: ServerFacts,
    roles: readonly string[],
    input: RestoreInput,
    overwrites: boolean,
    warnings: string[],
  ): Promise<boolean> {
    if (input.no_owner === true) {
      warnings.push('Owners and grants are left out: everything will belong to the restoring role.');
      return true;
    }
    const missing = await missingRoles(session, roles);
    const foreign = server.role.superuser ? [] : roles.filter((role) => role !== server.role.name);
    const out = missing.length > 0 ? missing : foreign;
    if (out.length === 0) return false;
    const names = out.slice(0, 10).map((role) => cleanText(role, 70));
    const why =
      missing.length > 0
        ? 'roles that own or may use what is in the backup do not exist on the server'
        : 'only a superuser can give what is in the backup back to its owners';
    // In place a silent loss of grants would lock the applications out of their own data.
    if (overwrites && input.no_owner === undefined) {
      throw new HoldfastError('INVALID_PARAMETER', why, {
        hint: 'Create the roles first (globals.sql of the backup has them) or restore as a superuser; or accept the loss of owners and grants with no_owner: true.',
        details: { roles: names },
      });
    }
    if (input.no_owner === false) {
      throw new HoldfastError('INVALID_PARAMETER', why, {
        hint: 'Create the roles first, restore as a superuser, or leave no_owner out.',
        details: { roles: names },
      });
    }
    warnings.push(`Owners and grants are left out, because ${why}: ${names.join(', ')}.`);
    return true;
  }

  // --- the steps -----------------------------------------------------------------------------------------------------

  /** Step `restore`: fills a new database beside the target. Nothing that existed is touched. */
  async restore(step: OwnStep, plan: Plan): Promise<JsonObject> {
    const host = this.#host;
    const input = step.input as RestoreInput;
    const names = await this.#names(step);
    const work = await this.#work(step, input);
    const { manifest } = await this.#backup(work.repository, input.snapshot_id);
    return withOperationLock(this.#maintenance(work, names), names.id, step.signal, async (session) => {
      const server = await readServer(session);
      const current = await this.#assertTarget(session, names, plan);
      if (await readDatabase(session, names.restored)) {
        throw new HoldfastError('RESOURCE_EXISTS', `the database '${cleanText(names.restored, 70)}' exists already`, {
          hint: 'Look at it and drop it by hand if nobody needs it.',
        });
      }
      const binaries = await readerBinaries(manifest, host.entity.bin_dir, server.major);
      const noOwner = plan.facts.context?.['no_owner'] === true;
      const settings = current
        ? await readSettings(session, names.target)
        : await this.#recordedSettings(work, session, server, manifest, names, noOwner);
      await step.checkpoint({ phase: 'creating' });
      await this.#note(names, input, 'restore');
      let oid: number | undefined;
      try {
        oid = await createDatabase(work, session, names.restored, manifest, server, settings?.owner);
        await step.checkpoint({ phase: 'filling', oid });
        await fillDatabase(work, names.restored, manifest, {
          binaries,
          noOwner,
          scratch: await this.#unpackTo(names),
          jobs: host.entity.parallel,
          tables: input.tables?.map(parseTableName),
        });
        if (settings) await applySettings(work, session, names.restored, settings);
        await step.checkpoint({ phase: 'filled', oid });
      } catch (cause) {
        await this.#dropAfterFailure(work, names, oid);
        await this.#note(names, input, 'failed');
        throw cause;
      }
      return { oid, snapshot_id: manifest.id };
    });
  }

  /**
   * The settings that the backup recorded, for a database that comes back under its own name after it was lost. Roles that
   * are gone, and what only a superuser may set, are left out.
   */
  async #recordedSettings(
    work: Work,
    session: Session,
    server: ServerFacts,
    manifest: LogicalManifest,
    names: Names,
    noOwner: boolean,
  ): Promise<DatabaseSettings | undefined> {
    if (noOwner || manifest.server.database !== names.target) return undefined;
    const { settings } = await readStoredInventory(work, manifest);
    const roles = [
      settings.owner,
      ...(settings.grants ?? []).map(({ grantee }) => grantee),
      ...settings.settings.map(({ role }) => role),
    ];
    const missing = new Set(await missingRoles(session, [...new Set(roles.filter((role) => role !== null))]));
    if (missing.has(settings.owner)) return undefined;
    const known = (role: string | null): boolean => role === null || !missing.has(role);
    return {
      ...settings,
      grants: settings.grants?.filter(({ grantee }) => known(grantee)) ?? null,
      settings: settings.settings.filter(({ role }) => (role === null || server.role.superuser) && known(role)),
    };
  }

  async #unpackTo({ id }: Pick<Names, 'id'>): Promise<string> {
    return unpackScratch(await this.#host.scratch(), id);
  }

  async recoverRestore(step: OwnStep): Promise<Recovery> {
    const { handle } = step;
    if (handle === undefined) return { state: 'not_begun' };
    const names = await this.#names(step);
    await rm(await this.#unpackTo(names), { recursive: true, force: true });
    const work = await this.#host.work(step);
    const oid = numberOf(handle['oid']);
    return withOperationLock(this.#maintenance(work, names), names.id, step.signal, async (session) => {
      const found = await readDatabase(session, names.restored);
      if (handle['phase'] === 'filled' && oid !== undefined && found?.oid === oid) {
        return { state: 'done', result: { oid, snapshot_id: (step.input as RestoreInput).snapshot_id } };
      }
      const dropped = await dropDatabase(work, session, names.restored, oid);
      return { state: 'not_begun', ...(dropped ? { message: 'its temporary database has been dropped' } : {}) };
    });
  }

  /** Step `compare`: holds the filled database against the inventory of the backup. */
  async compare(step: OwnStep, plan: Plan): Promise<JsonObject> {
    const names = await this.#names(step);
    const input = step.input as RestoreInput;
    const work = await this.#work(step, input);
    await this.#note(names, input, 'compare');
    try {
      const { manifest } = await this.#backup(work.repository, input.snapshot_id);
      const expected = await readStoredInventory(work, manifest);
      const binaries = await this.#binaries(manifest, plan);
      const actual = await inventoryOf(work, names.restored, binaries, false);
      if (input.tables === undefined) return compareWith(expected, actual);
      const subset = subsetOf(expected, input.tables);
      const chosen = new Set(subset.tables.map(({ schema, name }) => JSON.stringify([schema, name])));
      const tables = expected.tables.filter(({ schema, name }) => chosen.has(JSON.stringify([schema, name])));
      const { large_objects } = actual;
      return {
        ...compareWith({ ...expected, tables, objects: [], large_objects }, actual),
        left_out: leftOut(expected, subset),
      };
    } catch (cause) {
      await this.#note(names, input, 'failed');
      throw cause;
    }
  }

  #binaries(manifest: LogicalManifest, plan: Plan): Promise<Binaries> {
    const major = numberOf(plan.facts.context?.['server_major']) ?? 0;
    return readerBinaries(manifest, this.#host.entity.bin_dir, major);
  }

  /** Comparing changes nothing, so it can always be done again. */
  async recoverCompare(): Promise<Recovery> {
    return { state: 'not_begun' };
  }

  /** Step `swap`: one transaction gives the new database the target's name, and the old one the name that keeps it. */
  async swap(step: OwnStep, plan: Plan): Promise<JsonObject> {
    const names = await this.#names(step);
    const input = step.input as RestoreInput;
    const work = await this.#host.work(step);
    const maintenance = this.#maintenance(work, names);
    const swap = this.#swapOf(step, names, plan);
    await step.checkpoint({ phase: 'swapping' });
    await this.#note(names, input, 'swap');
    try {
      await withOperationLock(maintenance, names.id, step.signal, async (session) => {
        await this.#assertTarget(session, names, plan);
        await swapDatabases(work, session, maintenance, swap);
      });
    } catch (cause) {
      await this.#note(names, input, 'failed');
      throw cause;
    }
    await this.#note(names, input, 'succeeded');
    return this.#swapResult(names, plan);
  }

  async recoverSwap(step: OwnStep, plan: Plan): Promise<Recovery> {
    const names = await this.#names(step);
    const work = await this.#host.work(step);
    const swap = this.#swapOf(step, names, plan);
    const state = await withOperationLock(this.#maintenance(work, names), names.id, step.signal, (session) =>
      swapState(session, swap),
    );
    if (state === 'done') {
      await this.#note(names, step.input as RestoreInput, 'succeeded');
      return { state: 'done', result: this.#swapResult(names, plan) };
    }
    if (state === 'not_done') return { state: 'not_begun', message: 'the target has not been touched' };
    return {
      state: 'unknown',
      message: 'the databases of this restore have been renamed or dropped by somebody else',
    };
  }

  /** Drops the filled database when the operation does not go on. Never after the swap: then it is the target. */
  async abandon(step: OwnStep, plan: Plan): Promise<string> {
    const names = await this.#names(step);
    const work = { ...(await this.#host.work(step)), signal: undefined };
    const oid = numberOf(step.handle?.['oid']);
    if (step.handle === undefined) return '';
    return withOperationLock(this.#maintenance(work, names), names.id, undefined, async (session) => {
      const target = await readDatabase(session, names.target);
      if (oid !== undefined && target?.oid === oid) return 'the restored database has its name already and stays';
      await this.#note(names, step.input as RestoreInput, 'failed');
      const dropped = await dropDatabase(work, session, names.restored, oid);
      const kept = planOid(plan) === undefined ? '' : '; the target is as it was';
      return dropped ? `the temporary database '${cleanText(names.restored, 70)}' has been dropped${kept}` : '';
    });
  }

  #maintenance(work: Work, names: Names) {
    return this.#host.maintenance(work.connection, names.target);
  }

  #swapOf(step: OwnStep, names: Names, plan: Plan) {
    const restoredOid = numberOf(step.results['restore']?.['oid']);
    if (restoredOid === undefined) throw new HoldfastError('INTERNAL', 'the step restore left no database');
    return {
      target: names.target,
      targetOid: planOid(plan),
      restored: names.restored,
      restoredOid,
      before: names.before,
    };
  }

  #swapResult(names: Names, plan: Plan): JsonObject {
    const kept = planOid(plan) !== undefined;
    return {
      job_id: names.id,
      database: cleanText(names.target, 70),
      ...(kept ? { kept_as: names.before, drop_kept_with: `DROP DATABASE ${ident(names.before)}` } : {}),
    };
  }

  /** Reads the target again, just before something is done, and stops when it is not the one of the plan. */
  async #assertTarget(session: Session, names: Names, plan: Plan): Promise<DatabaseFacts | undefined> {
    const current = await readDatabase(session, names.target);
    if (current?.oid === planOid(plan)) return current;
    if (planOid(plan) === undefined) {
      throw new HoldfastError(
        'RESOURCE_EXISTS',
        `a database '${cleanText(names.target, 70)}' has been created meanwhile`,
        {
          hint: 'Choose another target_database, or make the call again: restoring over it needs approval.',
        },
      );
    }
    throw new HoldfastError('INVALID_STATE', 'the target is not the database that the plan was made for', {
      hint: 'Somebody replaced or dropped it meanwhile. Nothing was changed; make the call again for a new plan.',
      retryable: false,
    });
  }

  async #dropAfterFailure(work: Work, names: Names, oid: number | undefined): Promise<void> {
    const rest = { ...work, signal: undefined };
    // The session of the failed work may be gone, and its own signal fired.
    await withSession(this.#maintenance(work, names), undefined, (session) =>
      dropDatabase(rest, session, names.restored, oid),
    ).catch((cause) => {
      this.#host.runtime.log.warn('a temporary database could not be dropped', { id: names.id, reason: String(cause) });
    });
  }

  async #note(names: Names, input: RestoreInput, phase: Phase): Promise<void> {
    await this.#host.runtime.ledger.add(RESTORE_LEDGER, {
      job_id: names.id,
      target: names.target,
      snapshot_id: input.snapshot_id,
      phase,
      at: this.#host.runtime.now().toISOString(),
    });
  }

  // --- the status ----------------------------------------------------------------------------------------------------

  async status(signal: AbortSignal, jobId: string | undefined): Promise<z.input<typeof RestoreJob>> {
    const notes = await this.#host.runtime.ledger.list(RESTORE_LEDGER, 500);
    const wanted = jobId ?? notes[0]?.['job_id'];
    const own = notes.filter((note) => note['job_id'] === wanted);
    const [latest] = own;
    if (latest === undefined) {
      throw new HoldfastError('RESOURCE_NOT_FOUND', 'no such restore of this database is known', {
        hint:
          jobId === undefined
            ? 'Nothing has been restored through Holdfast yet.'
            : 'Leave job_id out for the newest restore.',
      });
    }
    if (latest['directory'] !== undefined) return this.#directories.status(own);
    const text = (name: string): string => cleanText(latest[name], 130);
    const phase = latest['phase'] as Phase;
    const id = String(latest['job_id']);
    const target = String(latest['target']);
    const job = {
      job_id: id,
      target: cleanText(target, 70),
      started_at: String(own.at(-1)?.['at']),
      provider: { snapshot_id: text('snapshot_id'), phase },
    };
    if (phase === 'failed') return { ...job, status: 'failed', usable: false, ended_at: text('at') };
    try {
      const connection = await this.#host.connection();
      return await withSession(this.#host.maintenance(connection, target), signal, async (session) => {
        if (phase === 'succeeded') {
          const there = (await readDatabase(session, target)) !== undefined;
          return { ...job, status: 'succeeded', usable: there, percent: 100, ended_at: text('at') };
        }
        if (await isLocked(session, id)) return { ...job, status: 'running', usable: false };
        const left = (await readDatabase(session, restoreName(target, id))) !== undefined;
        return { ...job, status: left ? 'running' : 'unknown', usable: false };
      });
    } catch (cause) {
      const { code, message } = toPostgresError(cause);
      if (code === 'CANCELLED') throw cause;
      // Without the server nobody can use the target, whatever became of it.
      const provider = { ...job.provider, problem: `${message} (${code})` };
      return { ...job, status: phase === 'succeeded' ? 'succeeded' : 'unknown', usable: false, provider };
    }
  }
}

/** The identity of the database that the plan says is there; undefined where the plan says there is none. */
function planOid(plan: Plan): number | undefined {
  return numberOf(plan.facts.target['oid']);
}

function numberOf(value: unknown): number | undefined {
  return typeof value === 'number' ? value : undefined;
}

/** Stops a restore over a database that cannot be replaced, before anything is made. */
function assertReplaceable(current: DatabaseFacts, server: ServerFacts): void {
  const refuse = (message: string, hint: string): never => {
    throw new HoldfastError('INVALID_STATE', message, { hint, retryable: false });
  };
  if (current.template) refuse('the target is a template database', 'Choose another target_database.');
  if (current.prepared_transactions > 0) {
    refuse('the target has prepared transactions', 'Commit or roll them back, then call again.');
  }
  if (current.subscriptions > 0) {
    refuse('the target has enabled subscriptions of logical replication', 'Disable them, then call again.');
  }
  if (!server.role.superuser && !current.ours) {
    throw new HoldfastError('INSUFFICIENT_PERMISSIONS', 'the role does not own the target', {
      hint: 'Restore as the owner of the database or as a superuser.',
    });
  }
  if (!server.role.superuser && !server.role.signal_backend) {
    throw new HoldfastError('INSUFFICIENT_PERMISSIONS', 'the role may not end the sessions that use the target', {
      hint: 'As a superuser run GRANT pg_signal_backend TO the role of this entity.',
    });
  }
}
