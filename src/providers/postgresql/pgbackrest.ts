import { createHash } from 'node:crypto';
import { chown, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { z } from 'zod';
import type { EntityBase } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Recovery } from '../../core/operation.ts';
import type { Plan, PlanDraft } from '../../core/plan.ts';
import type { RecoveryOption } from '../../core/provider.ts';
import type { Runtime } from '../../core/runtime.ts';
import type { BackupInfo, RecoveryPoint, SnapshotList } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration } from '../../core/time.ts';
import { withSession } from '../../postgres/connection.ts';
import { checkCopy } from '../../postgres/copy.ts';
import { copyAccount, findServerOf, stopAbandoned } from '../../postgres/copy-server.ts';
import { toPostgresError } from '../../postgres/errors.ts';
import type { VerifyLevel } from '../../postgres/manifest.ts';
import { type BackRestBackup, type Expiry, LABEL, PgBackRest, type Stanza } from '../../postgres/pgbackrest.ts';
import { recoverySettings } from '../../postgres/recovery.ts';
import { shortId } from '../../postgres/restore.ts';
import { assertRoom } from '../../postgres/scratch.ts';
import { parseLsn } from '../../postgres/wal.ts';
import type { Survey } from '../../postgres/wal-archive.ts';
import { mergedWindows } from '../../postgres/wal-ends.ts';
import { chainBetween, type Hole, holesIn, reachOf } from '../../postgres/wal-reach.ts';
import { PostgresClient } from './client.ts';
import type { BackupOptions, BackupType, Host, OwnStep, PostgresEntity, Scope } from './entity.ts';
import { BackRestDirectories, instantOf, physicalOf } from './pgbackrest-restore.ts';
import { Restorer } from './restore.ts';
import { Retention } from './retention.ts';
import type { WalCheck } from './wal.ts';

const VERIFY_LEDGER = 'pgbackrest-verify';
const OPERATION = 'holdfast-operation';
const MOST_NAMED = 50;

interface Verified extends JsonObject {
  snapshot_id: string;
  level: VerifyLevel;
  passed: boolean;
  at: string;
}

/** One configured database whose backups are pgBackRest's: it takes, keeps and deletes them, and Holdfast drives it. */
export class PgBackRestClient extends PostgresClient {
  override readonly directories: BackRestDirectories;
  override readonly restorer: Restorer;
  override readonly retention: BackRestRetention;
  readonly #backRest: PgBackRest;

  constructor(entity: PostgresEntity & EntityBase, runtime: Runtime) {
    super(entity, runtime);
    if (entity.pgbackrest === undefined) {
      throw new HoldfastError('CONFIG_INVALID', `the entity ${entity.key} names no stanza of pgBackRest`, {
        hint: 'With engine: pgbackrest give pgbackrest: {stanza: NAME}.',
      });
    }
    const settings = entity.pgbackrest;
    this.#backRest = new PgBackRest(settings);
    this.directories = new BackRestDirectories(this, (signal) => new PgBackRest(settings, signal));
    this.restorer = new Restorer(this, this.directories);
    this.retention = new BackRestRetention(this, this.#backRest);
  }

  // --- reading -------------------------------------------------------------------------------------------------------

  override async info(signal: AbortSignal): Promise<z.input<typeof BackupInfo>> {
    const { version } = await this.#backRest.program();
    const stanza = await this.#backRest.info(signal);
    const problem = this.#backRest.problem(stanza);
    const warnings: string[] = problem ? [`${problem.message}. ${problem.hint}`] : [];
    const survey = problem ? undefined : await this.#backRest.survey(stanza.archive, signal);
    const options = await this.#options(signal, warnings);
    const known = await this.#verifications();
    const server = await this.#server(signal, stanza, survey, warnings);
    const windows = problem ? [] : await this.#windows(signal, warnings);
    const [newest] = stanza.backups;
    const now = this.runtime.now().getTime();
    if (!problem && newest === undefined)
      warnings.push('There is no backup yet. Make one with create-snapshot, type: full.');
    if (newest !== undefined) {
      const age = Math.round(now / 1000 - newest.timestamp.stop);
      if (age > 48 * 3600) warnings.push(`The newest backup is ${formatDuration(age)} old.`);
      if (![...known.values()].some(({ passed }) => passed)) {
        warnings.push('No backup has been verified from here: run verify-snapshot.');
      }
    }
    for (const { label } of stanza.backups.filter(({ error }) => error === true).slice(0, 5)) {
      warnings.push(
        `Pages had wrong checksums when ${label} was taken: look at the disk of the server, and keep older backups.`,
      );
    }
    for (const { snapshot_id } of [...known.values()].filter(({ passed }) => !passed).slice(0, 5)) {
      if (stanza.backups.some(({ label }) => label === snapshot_id))
        warnings.push(`The backup ${snapshot_id} is damaged.`);
    }
    const holes = survey === undefined ? [] : holesIn(survey);
    for (const hole of holes.slice(0, 5)) {
      warnings.push(`The archive has a hole: ${describeHole(hole)}. Backups from before it reach no further.`);
    }
    if (stanza.cipher === 'none') warnings.push('Backups are not encrypted by pgBackRest.');
    if (stanza.running) warnings.push('A backup is being taken at this moment.');
    const merged = mergedWindows(windows);
    const window = merged.at(-1);
    return {
      automated: false,
      pitr: { enabled: window !== undefined, ...(window === undefined ? {} : { window }) },
      encryption: stanza.cipher === 'none' ? 'none' : `pgBackRest, ${cleanText(stanza.cipher, 40)}`,
      deletion_protection: false,
      newest: newest === undefined ? null : this.#point(stanza, newest, known),
      warnings,
      provider: {
        engine: `pgBackRest ${version}`,
        stanza: this.#backRest.settings.stanza,
        config: cleanText(this.#backRest.config, 300),
        repository: this.#backRest.repo,
        status: cleanText(stanza.status.message, 200),
        backups: stanza.backups.length,
        stored_bytes: stanza.backups.reduce((sum, { info }) => sum + info.repository.delta, 0),
        archive_min: stanza.archive?.min ?? null,
        archive_max: stanza.archive?.max ?? null,
        archive_holes: holes.slice(0, MOST_NAMED).map((hole) => ({ ...hole })),
        windows: merged,
        retention: options,
        ...server,
      },
    };
  }

  /** The retention that pgBackRest goes by, in its own words; what it leaves at the default is not there. */
  async #options(signal: AbortSignal, warnings: string[]): Promise<JsonObject> {
    const { repo } = this.#backRest;
    try {
      const all = await this.#backRest.expireOptions(signal);
      if (
        all[`repo${repo}-path`] !== undefined &&
        all[`repo${repo}-host`] === undefined &&
        (all[`repo${repo}-type`] ?? 'posix') === 'posix'
      ) {
        warnings.push(
          `Repository ${repo} lies on this machine (${cleanText(all[`repo${repo}-path`], 200)}): a disk takes both with it. Copy it elsewhere, or use a second repository.`,
        );
      }
      const found = Object.entries(all).filter(([name]) => name.startsWith(`repo${repo}-retention-`));
      if (!found.some(([name]) => name === `repo${repo}-retention-full`)) {
        warnings.push(`repo${repo}-retention-full is not set: pgBackRest never deletes a backup by itself.`);
      }
      return Object.fromEntries(found.map(([name, value]) => [name, cleanText(value, 100)]));
    } catch (cause) {
      signal.throwIfAborted();
      warnings.push(`The retention of pgBackRest is not known: ${toPostgresError(cause).message}.`);
      return {};
    }
  }

  async #windows(signal: AbortSignal, warnings: string[]) {
    try {
      return await this.directories.windows({ signal });
    } catch (cause) {
      signal.throwIfAborted();
      warnings.push(`Until when every moment can be recovered is not known: ${toPostgresError(cause).message}.`);
      return [];
    }
  }

  /** What the live server says of its archiving, held against what the repository has. */
  async #server(
    signal: AbortSignal,
    stanza: Stanza,
    survey: Survey | undefined,
    warnings: string[],
  ): Promise<JsonObject> {
    try {
      return await withSession(await this.connection(), signal, async (session) => {
        const [row] = await session.query<Record<string, string | null>>(ARCHIVING);
        const { version, system, mode, command, last_archived, last_failed, failing, current } = row ?? {};
        const { settings } = this.#backRest;
        if (stanza.database !== undefined && system !== stanza.database.systemIdentifier) {
          warnings.push('The stanza belongs to another server than the one of this entity.');
        }
        const fits =
          /\bpgbackrest\b.*\barchive-push\b/.test(command ?? '') && stanzaIn(command ?? '') === settings.stanza;
        if (mode === 'off') warnings.push('archive_mode is off on the server: nothing is archived.');
        else if (!fits) {
          warnings.push(
            `archive_command does not push to this stanza. It should be: pgbackrest --config=${this.#backRest.config} --stanza=${settings.stanza} archive-push %p`,
          );
        }
        if (failing === 'true') {
          warnings.push(
            `Archiving fails since ${cleanText(last_failed, 40)}; the log fills the disk of the server meanwhile.`,
          );
        }
        const newest = stanza.archive?.max;
        const isSegment = /^[0-9A-F]{24}$/.test(last_archived ?? '');
        const arrived = isSegment && survey !== undefined ? isIn(survey, last_archived as string) : undefined;
        if (arrived === false) {
          warnings.push(
            `The server says that it has archived ${last_archived}, and the repository does not have it: archive_command lies or pushes elsewhere.`,
          );
        }
        const behind =
          survey !== undefined && newest !== undefined && current != null && current.slice(0, 8) === newest.slice(0, 8)
            ? survey.segments.parse(current).number - survey.segments.parse(newest).number - 1
            : undefined;
        if (behind !== undefined && behind > 2)
          warnings.push(`The repository is ${behind} segments behind the server.`);
        return {
          server_version: cleanText(version, 60),
          archive_mode: cleanText(mode, 20),
          archive_command_fits: fits,
          last_archived: last_archived == null ? null : cleanText(last_archived, 60),
          last_archived_is_stored: arrived ?? null,
          segments_behind: behind ?? null,
        };
      });
    } catch (cause) {
      const error = toPostgresError(cause);
      if (error.code === 'CANCELLED') throw error;
      warnings.push(
        `The server did not answer (${error.code}: ${error.message}). What follows is from the repository alone.`,
      );
      return {};
    }
  }

  /** The newest verification of each backup. */
  async #verifications(): Promise<Map<string, Verified>> {
    const notes = (await this.runtime.ledger.list(VERIFY_LEDGER, 1000)) as Verified[];
    const found = new Map<string, Verified>();
    for (const note of notes) if (!found.has(note.snapshot_id)) found.set(note.snapshot_id, note);
    return found;
  }

  #point(stanza: Stanza, backup: BackRestBackup, known: ReadonlyMap<string, Verified>): z.input<typeof RecoveryPoint> {
    const { label, annotation, timestamp } = backup;
    const verified = known.get(label);
    const damaged = verified?.passed === false;
    const described = [annotation?.['label'], annotation?.['description']]
      .filter((part) => part !== undefined)
      .join(': ');
    return {
      id: label,
      kind: annotation?.['trigger'] === 'schedule' ? 'automated' : 'on_demand',
      status: damaged ? 'damaged' : 'available',
      created_at: instantOf(timestamp.stop),
      data_at: instantOf(timestamp.stop),
      size_bytes: backup.info.repository.delta,
      encrypted: stanza.cipher !== 'none',
      restorable: !damaged,
      ...(described === '' ? {} : { description: cleanText(described) }),
      provider: {
        type: backup.type,
        parent_id: backup.prior ?? null,
        wal_start: backup.archive.start ?? null,
        wal_stop: backup.archive.stop ?? null,
        plain_bytes: backup.info.size,
        verified_at: verified?.passed ? verified.at : null,
        ...(backup.error === true ? { page_errors: true } : {}),
      },
    };
  }

  override async list(limit: number, cursor: string | undefined): Promise<z.input<typeof SnapshotList>> {
    if (cursor !== undefined && !LABEL.test(cursor)) {
      throw new HoldfastError('INVALID_PARAMETER', 'this cursor is not of this list', {
        hint: 'Begin again without a cursor.',
      });
    }
    const stanza = await this.#backRest.stanza();
    const known = await this.#verifications();
    const own = (label: string): string => label.slice(-16, -1);
    // By what the last one was, not by position: the list may have grown or shrunk since the page before.
    const sorted = [...stanza.backups].sort((a, b) => own(b.label).localeCompare(own(a.label)));
    const rest = cursor === undefined ? sorted : sorted.filter(({ label }) => own(label) < own(cursor));
    const page = rest.slice(0, limit);
    return {
      snapshots: page.map((backup) => this.#point(stanza, backup, known)),
      ...(rest.length > limit ? { next_cursor: page.at(-1)!.label } : {}),
      ...(stanza.running ? { notes: ['pgBackRest is taking a backup at this moment.'] } : {}),
    };
  }

  async #found(
    id: string,
    signal?: AbortSignal,
  ): Promise<{ readonly stanza: Stanza; readonly backup: BackRestBackup }> {
    const stanza = await this.#backRest.stanza(signal);
    const backup = stanza.backups.find(({ label }) => label === id);
    if (backup) return { stanza, backup };
    throw new HoldfastError('BACKUP_NOT_FOUND', `the stanza has no backup ${cleanText(id, 60)}`, {
      hint: 'list-snapshots shows what there is.',
    });
  }

  override async describe(id: string): Promise<z.input<typeof RecoveryPoint>> {
    const { stanza, backup } = await this.#found(id);
    const point = this.#point(stanza, backup, await this.#verifications());
    const notes = (await this.runtime.ledger.list(VERIFY_LEDGER, 1000)).filter(({ snapshot_id }) => snapshot_id === id);
    const dependants = dependantsOf(stanza, id);
    const call = `pgbackrest --config=${this.#backRest.config} --stanza=${this.#backRest.settings.stanza} --repo=${this.#backRest.repo}`;
    return {
      ...point,
      provider: {
        ...point.provider,
        lsn_start: backup.lsn?.start ?? null,
        lsn_stop: backup.lsn?.stop ?? null,
        started_at: instantOf(backup.timestamp.start),
        rests_on: backup.reference ?? [],
        needed_by: dependants.slice(0, MOST_NAMED),
        annotations: Object.fromEntries(
          Object.entries(backup.annotation ?? {})
            .slice(0, 50)
            .map(([name, value]) => [cleanText(name, 100), cleanText(value, 500)]),
        ),
        verifications: notes,
        without_holdfast: `${call} --set=${id} --pg1-path=NEW_DATA_DIRECTORY --type=immediate --target-action=promote --archive-mode=off restore && pg_ctl start -D NEW_DATA_DIRECTORY -o '-c port=FREE_PORT'`,
      },
    };
  }

  override async recoveryOptions(at: Date | undefined, signal: AbortSignal): Promise<RecoveryOption[]> {
    return this.directories.options(signal, at);
  }

  // --- create-snapshot -----------------------------------------------------------------------------------------------

  override async planBackup(scope: Scope, type?: BackupType): Promise<PlanDraft> {
    const wanted = assertOwnType(type);
    const { version } = await this.#backRest.program();
    const stanza = await this.#backRest.stanza(scope.signal);
    if (stanza.running) throw locked();
    const base = stanza.backups.find((backup) => backup.type === 'full' || wanted === 'incr');
    const effective = base === undefined ? 'full' : wanted;
    return {
      target: this.entity.key,
      loses: 'nothing',
      blast_radius: {
        stanza: this.#backRest.settings.stanza,
        repository: this.#backRest.repo,
        type: effective,
        ...(effective === 'full' || base === undefined ? {} : { rests_on: base.label }),
      },
      undo: 'delete-snapshot removes the backup, unless it becomes the last full one',
      warnings: [
        ...(effective === wanted ? [] : ['There is no full backup yet, so this becomes one.']),
        'pgBackRest deletes nothing after this backup (--no-expire-auto): prune-snapshots does that, guarded.',
      ],
      facts: {
        target: {
          system_identifier: stanza.database?.systemIdentifier ?? null,
          stanza: this.#backRest.settings.stanza,
        },
        context: { pgbackrest: version, type: effective },
      },
    };
  }

  override async takeBackup(step: OwnStep, options: Omit<BackupOptions, 'operationId'>): Promise<JsonObject> {
    const type = assertOwnType(options.type);
    await step.checkpoint({ backrest: step.operationId });
    this.runtime.assertMayWrite('taking a backup with pgBackRest');
    const { operationId } = step;
    const { label, description, trigger } = options;
    const annotations = { label, description, trigger, [OPERATION]: operationId };
    step.progress({ message: `Taking a backup with pgBackRest (${type})` });
    await this.#backRest.backup(type, annotations, step.signal, (percent) =>
      step.progress({ percent, message: `Copying the files of the server (${type})` }),
    );
    const made = await this.#madeBy(operationId, step.signal);
    if (made) return made;
    throw new HoldfastError('INTEGRITY_FAILED', 'pgBackRest ended well, and its repository does not show the backup', {
      hint: 'Look at pgbackrest info and its log. Do not count on this backup.',
    });
  }

  async #madeBy(operationId: string, signal: AbortSignal): Promise<JsonObject | undefined> {
    const stanza = await this.#backRest.stanza(signal);
    const backup = stanza.backups.find(({ annotation }) => annotation?.[OPERATION] === operationId);
    return backup && ({ ...this.#point(stanza, backup, await this.#verifications()) } as JsonObject);
  }

  /** pgBackRest may have gone on when we died: the backup that carries our operation is looked for, once none runs. */
  override async recoverBackup(step: OwnStep): Promise<Recovery> {
    if (step.handle === undefined) return { state: 'not_begun' };
    while ((await this.#backRest.stanza(step.signal)).running) {
      step.progress({ message: 'Waiting for the backup that pgBackRest is taking' });
      await this.runtime.sleep(5000, step.signal);
    }
    const result = await this.#madeBy(step.operationId, step.signal);
    if (result) return { state: 'done', result };
    return { state: 'not_begun', message: 'pgBackRest shows no backup of this operation' };
  }

  // --- delete-snapshot -----------------------------------------------------------------------------------------------

  override async planDelete(scope: Scope, id: string): Promise<PlanDraft> {
    const { stanza, backup } = await this.#found(id, scope.signal);
    const expiry = await this.#expiryOf(id, scope.signal);
    const others = stanza.backups.filter(({ label }) => !expiry.backups.includes(label));
    const dependants = expiry.backups.filter((label) => label !== id);
    const known = await this.#verifications();
    const warnings: string[] = [];
    if (dependants.length > 0) {
      warnings.push(`${dependants.length} backups rest on it and go with it: ${dependants.slice(0, 10).join(', ')}.`);
    }
    for (const { start, stop } of expiry.archive.slice(0, 5)) {
      warnings.push(`The write-ahead log from ${start} to ${stop} goes too, by the retention of pgBackRest.`);
    }
    if (known.get(id)?.passed === true && !others.some(({ label }) => known.get(label)?.passed === true)) {
      warnings.push('No other backup has been verified from here.');
    }
    return {
      target: id,
      loses: `the state of the whole server at ${instantOf(backup.timestamp.stop)}${dependants.length === 0 ? '' : `, and the ${dependants.length} backups that rest on it`}`,
      blast_radius: {
        stored_bytes: stanza.backups
          .filter(({ label }) => expiry.backups.includes(label))
          .reduce((sum, { info }) => sum + info.repository.delta, 0),
        deleting: expiry.backups.slice(0, MOST_NAMED),
        other_restorable: others.length,
      },
      ...(others[0] ? { newest_recovery_point: { id: others[0].label, at: instantOf(others[0].timestamp.stop) } } : {}),
      last_restorable: others.length === 0,
      undo: 'none: pgBackRest removes the files',
      warnings,
      facts: { target: { snapshot_id: id, goes: [...expiry.backups].sort() } },
    };
  }

  async #expiryOf(id: string, signal?: AbortSignal): Promise<Expiry> {
    try {
      return await this.#backRest.expire(id, true, signal);
    } catch (cause) {
      if (!(cause instanceof HoldfastError && cause.provider?.code === '75')) throw cause;
      throw new HoldfastError('INVALID_STATE', `${id} is the last full backup, and pgBackRest does not delete that`, {
        retryable: false,
        hint: 'Nothing was deleted. Take a new one first: create-snapshot, type: full.',
        cause,
      });
    }
  }

  override async remove(id: string): Promise<void> {
    await this.#found(id);
    await this.#expiryOf(id);
    this.runtime.assertMayWrite('deleting a backup with pgBackRest');
    await this.#backRest.expire(id, false);
  }

  // --- verify-snapshot -----------------------------------------------------------------------------------------------

  override async planVerify(scope: Scope, id: string, level: VerifyLevel): Promise<PlanDraft> {
    const { stanza, backup } = await this.#found(id, scope.signal);
    if (level === 'restored') {
      await findServerOf(Number.parseInt(stanza.database?.version ?? '0', 10), this.entity.bin_dir);
      await assertRoom(await this.scratch(), Math.ceil(backup.info.size * 1.1), 'The backup is restored there.');
    }
    return {
      target: id,
      loses: 'nothing',
      blast_radius: level === 'readable' ? { reads: 'every file of the stanza' } : {},
      undo: level === 'restored' ? 'the restored copy is removed at the end' : 'not needed',
      duration_estimate: Math.max(1, (backup.timestamp.stop - backup.timestamp.start) * (level === 'stored' ? 0 : 2)),
      facts: { target: { snapshot_id: id, level } },
    };
  }

  override async verify(step: OwnStep, id: string, level: VerifyLevel): Promise<JsonObject> {
    const { stanza, backup } = await this.#found(id, step.signal);
    const { version } = await this.#backRest.program();
    const began = this.runtime.now();
    const record = async (passed: boolean, problem?: string): Promise<void> =>
      this.runtime.ledger.add(VERIFY_LEDGER, {
        snapshot_id: id,
        level,
        passed,
        at: this.runtime.now().toISOString(),
        ...(problem === undefined ? {} : { problem: cleanText(problem, 300) }),
      });
    let numbers: Record<string, number>;
    try {
      step.progress({ message: 'Looking for holes in the write-ahead log' });
      numbers = await this.#checkChain(stanza, backup, step.signal);
      if (level === 'readable') numbers = { ...numbers, ...(await this.#checkFiles(step, backup)) };
      if (level === 'restored') numbers = { ...numbers, ...(await this.#checkRestored(step, stanza, backup)) };
    } catch (cause) {
      // A hole behind the backup ends its reach; the backup itself is whole.
      if (cause instanceof HoldfastError && cause.code === 'INTEGRITY_FAILED' && cause.details?.['behind'] !== true) {
        await record(false, cause.message);
      }
      throw cause;
    }
    await record(true);
    const finished = this.runtime.now();
    return {
      snapshot_id: id,
      level,
      passed: true,
      finished_at: finished.toISOString(),
      duration_seconds: (finished.getTime() - began.getTime()) / 1000,
      numbers,
      tools: { pgbackrest: version },
    };
  }

  /**
   * Proves by the listing that the log carries the backup to consistency, and from there on to the newest segment: for a
   * missing segment pgBackRest's own verify says nothing.
   */
  async #checkChain(stanza: Stanza, backup: BackRestBackup, signal: AbortSignal): Promise<Record<string, number>> {
    const { label, archive } = backup;
    if (backup.database.id !== stanza.database?.id) {
      throw new HoldfastError('NOT_SUPPORTED', 'this backup is from before an upgrade of PostgreSQL', {
        hint: 'Restore it by hand with the old version; describe-snapshot shows how.',
      });
    }
    const survey = await this.#backRest.survey(stanza.archive, signal);
    if (archive.start == null || archive.stop == null) {
      throw new HoldfastError('NOT_SUPPORTED', 'this backup was taken without waiting for its write-ahead log', {
        hint: 'pgBackRest ran with archive-check off, so nothing proves that it can become consistent. Take another one.',
      });
    }
    const missing =
      survey === undefined ? [wholeOf(archive.start, archive.stop)] : chainBetween(survey, archive.start, archive.stop);
    if (missing[0] !== undefined) {
      throw new HoldfastError(
        'INTEGRITY_FAILED',
        `the write-ahead log that ${label} needs to become consistent has a hole: ${describeHole(missing[0])}`,
        {
          hint: 'This backup cannot be restored; the live server was not touched. Take a new one at once: create-snapshot, type: full.',
          details: { holes: missing.map((hole) => ({ ...hole })) },
        },
      );
    }
    const [manifest] = physicalOf({ ...stanza, backups: [backup] }, survey).map((physical) => physical.manifest);
    const [reach] = survey === undefined || manifest === undefined ? [] : reachOf(manifest, survey);
    const trimmed = Object.keys(await this.#backRest.expireOptions(signal).catch(() => ({}))).some((name) =>
      name.startsWith(`repo${this.#backRest.repo}-retention-archive`),
    );
    if (reach?.hole !== undefined && !trimmed) {
      throw new HoldfastError(
        'INTEGRITY_FAILED',
        `the archive has a hole behind ${label}: ${describeHole(reach.hole)}`,
        {
          hint: `The backup itself can be restored, and recovered to ${reach.to_lsn}; not to any later moment. Look for the segment in pg_wal of the server, and take a new backup.`,
          details: { behind: true, holes: [{ ...reach.hole }] },
        },
      );
    }
    const segments = survey?.segments;
    if (segments === undefined || reach === undefined) return {};
    return {
      wal_segments: segments.of(parseLsn(reach.to_lsn)) - segments.parse(archive.start).number,
    };
  }

  async #checkFiles(step: OwnStep, backup: BackRestBackup): Promise<Record<string, number>> {
    step.progress({ message: 'Reading every file of the stanza' });
    const verdict = await this.#backRest.verify(step.signal);
    const own = [backup.label, ...(backup.reference ?? [])];
    const broken = verdict.invalid.filter((label) => own.includes(label));
    if (broken.length > 0) {
      throw new HoldfastError(
        'INTEGRITY_FAILED',
        `files of ${broken.slice(0, 5).join(', ')} are damaged or missing in the repository`,
        {
          hint: 'This backup cannot be trusted; the live server was not touched. Verify another one, and take a new full backup.',
          details: { invalid: verdict.invalid.slice(0, MOST_NAMED) },
        },
      );
    }
    if (verdict.invalidSegments > 0) {
      throw new HoldfastError(
        'INTEGRITY_FAILED',
        `${verdict.invalidSegments} segments of the write-ahead log are damaged in the repository`,
        {
          hint: 'pgbackrest verify --output=text --verbose names them. Recovery stops before them: take a new full backup.',
          details: { behind: true },
        },
      );
    }
    if (!verdict.valid.includes(backup.label)) {
      throw new HoldfastError('INVALID_STATE', `pgBackRest verify said nothing of ${backup.label}`, {
        hint: 'Nothing is proven. Run pgbackrest verify --output=text --verbose by hand.',
        retryable: false,
      });
    }
    return { files: verdict.files, wal_read: verdict.segments, other_damaged: verdict.invalid.length };
  }

  /** Restores into the scratch directory, recovers to consistency on a private socket and reads every table and index. */
  async #checkRestored(step: OwnStep, stanza: Stanza, { label }: BackRestBackup): Promise<Record<string, number>> {
    const account = await copyAccount();
    const directory = join(await this.scratch(), `holdfast-verify-${shortId(step.operationId)}`);
    const data = join(directory, 'data');
    const base = await this.directories.copyOf(label, step);
    const binaries = await findServerOf(Number.parseInt(stanza.database?.version ?? '0', 10), this.entity.bin_dir);
    await step.checkpoint({ copy: directory });
    this.runtime.assertMayWrite('using the scratch directory');
    const places = (base.tablespaces ?? []).map(({ oid }) => ({ oid, path: join(directory, String(oid)) }));
    try {
      for (const path of [directory, data, ...places.map((place) => place.path)]) {
        await mkdir(path, { mode: 0o700 });
        if (account) await chown(path, account.uid, account.gid);
      }
      const moved = places.map(({ oid, path }) => `--tablespace-map=${oid}=${path}`);
      const args = ['--type=immediate', '--target-action=promote', '--archive-mode=off', ...moved];
      await this.#backRest.restore(label, data, args, step.signal, (percent) =>
        step.progress({ percent, message: 'Restoring into the scratch directory' }),
      );
      const command = await this.#backRest.restoreCommand(data);
      return await checkCopy(step, {
        data,
        binaries,
        account,
        superuser: String(base.server['superuser'] ?? 'postgres'),
        database: 'postgres',
        // The copy is thrown away.
        settings: {
          ...recoverySettings({ kind: 'backup' }, base.wal.timeline, command),
          fsync: 'off',
          full_page_writes: 'off',
        },
      });
    } finally {
      await rm(directory, { recursive: true, force: true, maxRetries: 5 });
    }
  }

  override async recoverVerify(step: OwnStep): Promise<Recovery> {
    const copy = step.handle?.['copy'];
    if (typeof copy !== 'string') return { state: 'not_begun' };
    this.runtime.assertMayWrite('using the scratch directory');
    await stopAbandoned(join(copy, 'data'), this.entity.bin_dir);
    await rm(copy, { recursive: true, force: true, maxRetries: 5 });
    return { state: 'not_begun', message: 'its restored copy has been removed' };
  }

  // --- check-wal -----------------------------------------------------------------------------------------------------

  /** Ends the segment that is being written and waits until the repository has it. */
  override async checkWal(scope: Scope, timeoutSeconds = 30): Promise<WalCheck> {
    const { signal } = scope;
    const stanza = await this.#backRest.stanza(signal);
    const { lsn, segment } = await withSession(await this.connection(), signal, async (session) => {
      this.runtime.assertMayWrite('beginning a new segment of the write-ahead log');
      // Without a record in it a segment is not ended.
      const [row] = await session.query<{ lsn: string; segment: string }>(
        "WITH mark AS MATERIALIZED (SELECT pg_create_restore_point('holdfast check-wal') AS at), ended AS MATERIALIZED (SELECT pg_walfile_name(at) AS segment, pg_switch_wal()::text AS lsn FROM mark) SELECT lsn, segment FROM ended",
      );
      return row!;
    });
    const began = performance.now();
    const seconds = (): number => Math.round((performance.now() - began) / 10) / 100;
    let survey = await this.#backRest.survey(stanza.archive, signal);
    while ((survey === undefined || !isIn(survey, segment)) && seconds() < timeoutSeconds) {
      scope.progress?.({ message: `Waiting for ${segment} in the repository` });
      await this.runtime.sleep(500, signal);
      survey = await this.#backRest.survey((await this.#backRest.stanza(signal)).archive, signal);
    }
    const archived = survey !== undefined && isIn(survey, segment);
    const gaps = survey === undefined ? [] : holesIn(survey);
    return {
      archived,
      segment,
      seen_after_seconds: archived ? seconds() : null,
      ...(archived
        ? {}
        : {
            problem: `${segment} did not reach the repository in ${timeoutSeconds} s. Look at archive_command and the log of the server, and run pgbackrest check.`,
          }),
      switched_lsn: lsn,
      gaps: gaps.slice(0, 20),
      warnings:
        gaps.length === 0 ? [] : ['The archive has holes: backups from before them reach no further. Take a new one.'],
    };
  }
}

/** What pgBackRest deletes by its own retention; holds it does not know. */
class BackRestRetention extends Retention {
  readonly #host: Host;
  readonly #backRest: PgBackRest;

  constructor(host: Host, backRest: PgBackRest) {
    super(host);
    this.#host = host;
    this.#backRest = backRest;
  }

  async #decide(signal: AbortSignal): Promise<{ stanza: Stanza; expiry: Expiry; hash: string }> {
    const stanza = await this.#backRest.stanza(signal);
    const expiry = await this.#backRest.expire(undefined, true, signal);
    const all = stanza.backups.map(({ label }) => label).sort();
    const gone = [[...expiry.backups].sort(), expiry.archive, all];
    const hash = createHash('sha256').update(JSON.stringify(gone)).digest('hex').slice(0, 16);
    return { stanza, expiry, hash };
  }

  override async plan(scope: Scope, input: { plan_hash?: string | undefined }): Promise<PlanDraft> {
    const { stanza, expiry, hash } = await this.#decide(scope.signal);
    if (input.plan_hash !== undefined && input.plan_hash !== hash) throw changed(hash);
    const going = stanza.backups.filter(({ label }) => expiry.backups.includes(label));
    const kept = stanza.backups.filter(({ label }) => !expiry.backups.includes(label));
    const sweeping = going.length * 2 > stanza.backups.length || (going.length > 0 && kept.length <= 1);
    const removes = going.length + expiry.archive.length > 0;
    const options = await this.#backRest.expireOptions(scope.signal);
    const retention = Object.fromEntries(Object.entries(options).filter(([name]) => name.includes('-retention-')));
    const moments = going.map(({ timestamp }) => instantOf(timestamp.stop)).sort();
    const describe = ({ label, timestamp, info }: BackRestBackup): JsonObject => ({
      snapshot_id: label,
      data_at: instantOf(timestamp.stop),
      size_bytes: info.repository.delta,
    });
    return {
      target: this.#host.entity.key,
      risk: removes && sweeping ? 'delete' : 'change',
      loses: removes
        ? [
            ...(going.length === 0
              ? []
              : [
                  `${going.length} of ${stanza.backups.length} backups, of moments from ${moments[0]} to ${moments.at(-1)}`,
                ]),
            ...expiry.archive.map(({ start, stop }) => `the write-ahead log from ${start} to ${stop}`),
          ].join('; ')
        : 'nothing: no backup is past the retention of pgBackRest',
      blast_radius: {
        backups: stanza.backups.length,
        delete: going.length,
        delete_bytes: sumOf(going),
        keep: kept.length,
        archive: expiry.archive.map((stretch) => ({ ...stretch })),
        retention,
        plan_hash: hash,
        deleting: going.slice(0, MOST_NAMED).map(describe),
        keeping: kept.slice(0, MOST_NAMED).map(describe),
      },
      ...(kept[0] ? { newest_recovery_point: { id: kept[0].label, at: instantOf(kept[0].timestamp.stop) } } : {}),
      undo: removes ? 'none: pgBackRest removes the files' : 'not needed',
      warnings: [
        ...(sweeping ? ['More than half of the backups, or all but one, would go.'] : []),
        ...(this.#host.entity.retention === undefined
          ? []
          : ['retention of the entity is not used: pgBackRest goes by repo-retention options of its own file.']),
      ],
      facts: { target: { stanza: this.#backRest.settings.stanza, plan_hash: hash }, context: { ...retention } },
    };
  }

  override async prune(step: OwnStep, plan: Plan): Promise<JsonObject> {
    const { stanza, expiry, hash } = await this.#decide(step.signal);
    let begun = step.handle;
    if (begun === undefined) {
      if (hash !== plan.facts.target['plan_hash']) throw changed(hash);
      const going = stanza.backups.filter(({ label }) => expiry.backups.includes(label));
      begun = {
        snapshots: [...expiry.backups],
        freed_bytes: sumOf(going),
        segments: (await this.#backRest.survey(stanza.archive, step.signal))?.count ?? 0,
      };
      await step.checkpoint(begun);
    }
    this.#host.runtime.assertMayWrite('deleting backups with pgBackRest');
    step.progress({ message: `Deleting ${expiry.backups.length} backups with pgBackRest` });
    await this.#backRest.expire(undefined, false, step.signal);
    return this.#result(step, begun);
  }

  async #result(step: OwnStep, begun: JsonObject): Promise<JsonObject> {
    const {
      snapshots = [],
      freed_bytes = 0,
      segments = 0,
    } = begun as {
      snapshots?: string[];
      freed_bytes?: number;
      segments?: number;
    };
    const stanza = await this.#backRest.stanza(step.signal);
    const left = (await this.#backRest.survey(stanza.archive, step.signal))?.count ?? 0;
    return {
      deleted: snapshots.slice(0, MOST_NAMED),
      deleted_count: snapshots.length,
      kept_count: stanza.backups.length,
      unfinished_removed: 0,
      wal_segments_removed: Math.max(0, segments - left),
      freed_bytes,
    };
  }

  override async recover(step: OwnStep): Promise<Recovery> {
    if (step.handle === undefined) return { state: 'not_begun' };
    const { expiry } = await this.#decide(step.signal);
    // pgBackRest takes up where it was interrupted.
    if (expiry.backups.length + expiry.archive.length > 0) return { state: 'not_begun' };
    return { state: 'done', result: await this.#result(step, step.handle) };
  }

  override async hold(): Promise<JsonObject> {
    throw noHolds();
  }

  override async planRelease(): Promise<PlanDraft> {
    throw noHolds();
  }

  override async release(): Promise<JsonObject> {
    throw noHolds();
  }
}

const ARCHIVING = `SELECT current_setting('server_version') AS version,
  (SELECT system_identifier::text FROM pg_control_system()) AS system,
  current_setting('archive_mode') AS mode,
  (SELECT setting FROM pg_settings WHERE name = 'archive_command') AS command,
  last_archived_wal AS last_archived,
  to_char(last_failed_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS last_failed,
  (last_failed_time IS NOT NULL AND (last_archived_time IS NULL OR last_failed_time > last_archived_time))::text AS failing,
  CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_walfile_name(pg_current_wal_lsn()) END AS current
  FROM pg_stat_archiver`;

/** The stanza that a command line names, in either spelling. */
function stanzaIn(command: string): string | undefined {
  return /--stanza(?:=|\s+)["']?([A-Za-z0-9_-]+)/.exec(command)?.[1];
}

function isIn({ segments, runs }: Survey, segment: string): boolean {
  const { timeline, number } = segments.parse(segment);
  return runs.get(timeline)?.some(({ first, last }) => first <= number && number <= last) === true;
}

/** Everything that could not be restored without a backup. */
function dependantsOf(stanza: Stanza, id: string): string[] {
  return stanza.backups.filter(({ reference }) => reference?.includes(id)).map(({ label }) => label);
}

const sumOf = (backups: readonly BackRestBackup[]): number =>
  backups.reduce((sum, { info }) => sum + info.repository.delta, 0);

function describeHole({ first_segment, last_segment, segments }: Hole): string {
  return segments === 1
    ? `${first_segment} is missing`
    : `${segments} segments from ${first_segment} to ${last_segment} are missing`;
}

function wholeOf(first_segment: string, last_segment: string): Hole {
  const timeline = Number.parseInt(first_segment.slice(0, 8), 16);
  return { timeline, first_segment, last_segment, segments: 1 };
}

function assertOwnType(type: BackupType | undefined): BackRestBackup['type'] {
  if (type === 'logical') {
    throw new HoldfastError('NOT_SUPPORTED', 'pgBackRest copies whole servers: it makes no dumps', {
      hint: 'Use type full, diff or incr. For dumps declare a second entity of this database with engine: holdfast.',
    });
  }
  return type ?? 'incr';
}

function locked(): HoldfastError {
  return new HoldfastError('INVALID_STATE', 'pgBackRest is taking a backup of this stanza at this moment', {
    hint: 'Nothing was done. Call again when it has ended.',
    retryable: true,
  });
}

function noHolds(): HoldfastError {
  return new HoldfastError('NOT_SUPPORTED', 'pgBackRest knows no holds', {
    hint: 'What it keeps is in the repo-retention options of its own file; a copy of the backup in a second repository is safe from this one.',
  });
}

function changed(hash: string): HoldfastError {
  return new HoldfastError('PLAN_CHANGED', 'what pgBackRest would delete is not what the plan says any more', {
    hint: 'Nothing was deleted. Look at a new plan (dry run) and call again.',
    details: { plan_hash: hash },
  });
}
