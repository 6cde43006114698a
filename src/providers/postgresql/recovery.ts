import {
  access,
  constants,
  lchown,
  lstat,
  mkdir,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  statfs,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, normalize } from 'node:path';
import type { z } from 'zod';
import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Recovery } from '../../core/operation.ts';
import type { Plan, PlanDraft } from '../../core/plan.ts';
import type { RecoveryOption } from '../../core/provider.ts';
import type { RestoreJob } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatBytes, formatDuration, parseInstant } from '../../core/time.ts';
import type { Binaries } from '../../postgres/binaries.ts';
import { runChild } from '../../postgres/child.ts';
import { withSession } from '../../postgres/connection.ts';
import { unpackBackup } from '../../postgres/copy.ts';
import {
  type CopyServer,
  copyAccount,
  findServerOf,
  startCopyServer,
  stopAbandoned,
} from '../../postgres/copy-server.ts';
import { whileInUse } from '../../postgres/in-use.ts';
import { isPhysical, LAYOUT, type PhysicalManifest, payloadOf } from '../../postgres/manifest.ts';
import {
  type RecoveryTarget,
  readRecoveryLog,
  recoveryFailure,
  recoverySettings,
  settledSettings,
} from '../../postgres/recovery.ts';
import type { Backup } from '../../postgres/repository.ts';
import { shortId } from '../../postgres/restore.ts';
import { restorePointIn } from '../../postgres/restore-point.ts';
import type { Account } from '../../postgres/tar.ts';
import { assertKeyFits } from '../../postgres/verify.ts';
import { parseLsn, Segments, timelineName } from '../../postgres/wal.ts';
import { type Survey, WalArchive } from '../../postgres/wal-archive.ts';
import {
  type EndReader,
  mergedWindows,
  type RecoveryWindow,
  readSegmentEnd,
  recoveryWindows,
} from '../../postgres/wal-ends.ts';
import { openWalFeed, type WalFeed } from '../../postgres/wal-feed.ts';
import type { Work } from '../../postgres/work.ts';
import type { Host, OwnStep, Scope } from './entity.ts';
import { chainOf, goodPhysical } from './physical.ts';
import { RESTORE_LEDGER, restorableFrom } from './source.ts';
import { openCache } from './wal.ts';

/** How many segments are looked through for a named restore point while a plan is made. */
const POINT_LOOK_BACK = 256;
export interface DirectoryInput {
  readonly snapshot_id?: string | undefined;
  readonly target_directory?: string | undefined;
  readonly restore_timestamp?: string | number | undefined;
  readonly lsn?: string | undefined;
  readonly restore_point?: string | undefined;
  readonly use_latest?: boolean | undefined;
  readonly timeline?: number | undefined;
  readonly tablespace_map?: Readonly<Record<string, string>> | undefined;
  readonly keep_failed?: boolean | undefined;
  /** Another source whose backups this entity may restore; its own when left out. */
  readonly from_source?: string | undefined;
}

export type Physical = Backup<PhysicalManifest>;

/** What the plan decided, as the steps read it. */
interface Decision {
  readonly base: Physical;
  readonly target: RecoveryTarget;
  readonly timeline: number;
  /** The last segment of the archive that may be needed; undefined where the backup's own log is enough. */
  readonly last: string | undefined;
  /** A segment that the archive has in part only, and which is needed. */
  readonly partial: string | undefined;
  readonly warnings: readonly string[];
  readonly unknowns: readonly string[];
}

export interface Reading {
  readonly survey: Survey | undefined;
  readonly reader: EndReader | undefined;
  readonly windows: readonly Reachable[];
}

/** A window with the segment that is still being written, where the archive has that. */
export interface Reachable extends RecoveryWindow {
  readonly base: Physical;
  /** Where the last record begins, and the last commit, with the partial segment. */
  readonly end_lsn: string | null;
  readonly end_at: string | null;
  readonly needs_partial: boolean;
}

/** Restores physical backups into a new data directory, to a moment. The live server is never touched. */
export class DirectoryRestorer {
  /** What a base backup is called in a plan. */
  protected readonly kind: string = 'physical backup';
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  /** Whether a call of `restore` asks for a directory. */
  wants(input: DirectoryInput): boolean {
    return (
      input.target_directory !== undefined ||
      input.restore_timestamp !== undefined ||
      input.lsn !== undefined ||
      input.restore_point !== undefined ||
      input.use_latest !== undefined ||
      input.timeline !== undefined ||
      input.tablespace_map !== undefined
    );
  }

  // --- what can be reached -------------------------------------------------------------------------------------------

  /** Says what there is to recover from, and where it leads. */
  protected async read(
    scope: Scope,
    input: DirectoryInput,
  ): Promise<Reading & { readonly physical: readonly Physical[] }> {
    const { signal } = scope;
    const work = await this.#work(scope, input);
    const physical = goodPhysical(await work.repository.catalogue());
    const archive = new WalArchive(work.repository, this.#host.runtime);
    const survey = await archive.survey();
    const newest = physical[0];
    if (survey === undefined || newest === undefined) return { survey, reader: undefined, windows: [], physical };
    const major = majorOf(newest.manifest);
    const { directory } = await findServerOf(major, this.#host.entity.bin_dir);
    const own = await this.#host.runtime.workDirectory();
    const cache = await openCache(join(own, 'wal-ends.json'));
    const reader: EndReader = { archive, keys: work.keys, binaries: { directory }, directory: own, cache, signal };
    const windows = await this.reachable(survey, physical, reader);
    await cache.save();
    return { survey, reader, windows, physical };
  }

  /** Gives the windows of all backups with what is known of the segment that is still being written. */
  protected async reachable(survey: Survey, physical: readonly Physical[], reader: EndReader): Promise<Reachable[]> {
    const bases = new Map(physical.map((backup) => [backup.manifest.id, backup]));
    const partials = new Map<string, Awaited<ReturnType<typeof readSegmentEnd>>>();
    const windows: Reachable[] = [];
    for (const window of await recoveryWindows(survey, physical, reader)) {
      const { partial } = window;
      if (partial !== undefined && !partials.has(partial)) {
        partials.set(partial, await readSegmentEnd(reader, partial, true));
      }
      const tail = partial === undefined ? undefined : partials.get(partial);
      windows.push({
        ...window,
        base: bases.get(window.backup_id)!,
        end_lsn: tail?.record_lsn ?? window.last_record_lsn,
        end_at: tail?.commit_at ?? window.last_commit_at,
        needs_partial: tail?.record_lsn != null,
      });
    }
    return windows;
  }

  /** Finds the base backup and the target that PostgreSQL gets, and proves that the archive leads there. */
  async #decide(scope: Scope, input: DirectoryInput): Promise<Decision> {
    const { survey, reader, windows, physical } = await this.read(scope, input);
    const named = input.snapshot_id === undefined ? undefined : await this.named(input, physical);
    if (named === undefined && physical.length === 0) {
      throw new HoldfastError('BACKUP_NOT_FOUND', 'there is no physical backup of this server to recover from', {
        hint: 'Logical backups come back into a database: leave target_directory out. Make a physical one with create-snapshot, type: full.',
      });
    }
    const asked = ['restore_timestamp', 'lsn', 'restore_point', 'use_latest'].filter(
      (name) => input[name as keyof DirectoryInput] !== undefined && input[name as keyof DirectoryInput] !== false,
    );
    if (asked.length > 1) {
      throw new HoldfastError(
        'INVALID_PARAMETER',
        `there can be one target only, and these are ${asked.join(' and ')}`,
      );
    }
    if (asked.length === 0) {
      if (named === undefined) {
        throw new HoldfastError('INVALID_PARAMETER', 'neither a backup nor a target was given', {
          hint: 'Give snapshot_id for the end of one backup, or use_latest: true, restore_timestamp, lsn or restore_point.',
        });
      }
      return this.#backupAlone(named, input, [], windows);
    }
    const lines = windows.filter(
      ({ base, timeline }) =>
        (named === undefined || base.manifest.id === named.manifest.id) &&
        (input.timeline === undefined || timeline === input.timeline),
    );
    if (survey === undefined || reader === undefined || lines.length === 0) {
      if (input.use_latest === true && input.timeline === undefined) {
        return this.#backupAlone(
          named ?? (physical[0] as Physical),
          input,
          ['The archive has no write-ahead log after this backup: everything written since is not in it.'],
          windows,
        );
      }
      throw new HoldfastError('INVALID_PARAMETER', 'the archive has no write-ahead log that leads there', {
        hint:
          input.timeline === undefined
            ? 'Without archived log only the end of a backup can be restored: give snapshot_id alone. get-backup-info shows how the log is archived.'
            : `These timelines can be reached: ${[...new Set(windows.map(({ timeline }) => timeline))].join(', ') || 'none'}.`,
      });
    }
    // A newer timeline is where the server went on; what was given up is asked for by its number.
    const context = { scope, survey, reader, windows: onNewestLine(survey, lines) };
    if (input.use_latest === true) return this.#latest(context);
    if (input.lsn !== undefined) return this.#toLsn(context, input.lsn);
    if (input.restore_point !== undefined) return this.#toPoint(context, input.restore_point);
    return this.#toTime(context, input.restore_timestamp as string | number);
  }

  /** Gives the backup that a call names. */
  protected async named(input: DirectoryInput, physical: readonly Physical[]): Promise<Physical> {
    const id = String(input.snapshot_id);
    const found = physical.find(({ manifest }) => manifest.id === id);
    if (found) return found;
    const backup = await restorableFrom(this.#host, input.from_source).get(id);
    if (!isPhysical(backup)) {
      throw new HoldfastError('INVALID_PARAMETER', 'this is a logical backup, a dump of one database', {
        hint: 'It comes back into a database: give target_database instead of target_directory and a target in time.',
      });
    }
    throw new HoldfastError('INTEGRITY_FAILED', 'this backup, or one that it rests on, is damaged or missing', {
      hint: 'Leave snapshot_id out: the newest good backup before the target is chosen.',
      ...(backup.damage === undefined ? {} : { details: { damage: backup.damage } }),
    });
  }

  #backupAlone(
    base: Physical,
    input: DirectoryInput,
    warnings: readonly string[],
    windows: readonly Reachable[],
  ): Decision {
    const { wal } = base.manifest;
    const isCarried = windows.some(
      (one) => one.base.manifest.id === base.manifest.id && parseLsn(one.to_lsn) >= parseLsn(wal.end_lsn),
    );
    if (!wal.included && !isCarried) {
      throw new HoldfastError(
        'INVALID_PARAMETER',
        'this backup needs the archive to become consistent, and that does not carry it so far',
        {
          hint: 'Give use_latest: true, restore_timestamp, lsn or restore_point as well.',
        },
      );
    }
    if (input.timeline !== undefined && input.timeline !== wal.timeline) {
      throw new HoldfastError('INVALID_PARAMETER', `this backup is on timeline ${wal.timeline}`, {
        hint: 'Leave timeline out, or give a target behind the backup.',
      });
    }
    const { timeline } = wal;
    const last = wal.included ? undefined : wal.end_segment;
    return { base, target: { kind: 'backup' }, timeline, last, partial: undefined, warnings, unknowns: [] };
  }

  #to(
    { survey }: { readonly survey: Survey },
    window: Reachable,
    target: RecoveryTarget,
    lsn: bigint | undefined,
    warnings: readonly string[] = [],
    unknowns: readonly string[] = [],
  ): Decision {
    const { segments } = survey;
    // Timelines share the numbers of their segments, so the one that holds the target has the number of its position.
    const whole = window.last_segment;
    const end = segments.of(parseLsn(window.to_lsn)) - 1;
    const wanted = lsn === undefined ? undefined : segments.of(lsn);
    const partial = window.needs_partial && (wanted === undefined || wanted > end) ? window.partial : undefined;
    const last = partial ?? (wanted !== undefined && wanted < end ? segments.name(window.timeline, wanted) : whole);
    const { base, timeline } = window;
    return { base, target, timeline, last: last ?? undefined, partial, warnings, unknowns };
  }

  async #latest(context: Deciding): Promise<Decision> {
    const { windows, survey, scope } = context;
    const window = windows[0] as Reachable;
    await this.#assertNothingBehind(context, window);
    const warnings = [
      `Everything up to ${window.end_lsn ?? window.from_lsn}${window.end_at === null ? '' : `, last commit ${window.end_at}`}, is in the archive; what was written later is not.`,
    ];
    if (window.end_lsn === null || parseLsn(window.end_lsn) < parseLsn(window.from_lsn)) {
      return this.#backupAlone(window.base, {}, warnings, windows);
    }
    scope.signal.throwIfAborted();
    return this.#to({ survey }, window, { kind: 'lsn', lsn: window.end_lsn }, parseLsn(window.end_lsn), warnings);
  }

  #toLsn(context: Deciding, text: string): Decision {
    const { windows } = context;
    const wanted = parseLsn(text.trim());
    const lsn = text.trim().toUpperCase();
    const window = windows.find(
      (one) => parseLsn(one.from_lsn) <= wanted && one.end_lsn !== null && wanted <= parseLsn(one.end_lsn),
    );
    if (window) return this.#to(context, window, { kind: 'lsn', lsn }, wanted);
    const before = windows.find((one) => parseLsn(one.from_lsn) <= wanted);
    throw this.#outside(context, `the position ${lsn}`, before);
  }

  #toTime(context: Deciding, value: string | number): Decision {
    const { windows } = context;
    const at = preciseInstant(value);
    const now = this.#host.runtime.now();
    if (Date.parse(at) > now.getTime()) {
      throw new HoldfastError('INVALID_PARAMETER', 'restore_timestamp lies in the future', {
        hint: `It is ${now.toISOString()} now. For everything there is use use_latest: true.`,
        details: { windows: shownWindows(windows) },
      });
    }
    const reachable = windows.filter(({ base }) => micro(base.manifest.snapshot_at) <= at);
    const window = reachable[0];
    if (window === undefined) throw this.#outside(context, at, undefined);
    // PostgreSQL stops at the first transaction that ended later, so there must be one.
    if (window.end_at !== null && at < micro(window.end_at)) {
      return this.#to(context, window, { kind: 'time', at }, undefined);
    }
    if (window.hole !== undefined) throw this.#outside(context, at, window);
    const capped =
      window.end_at === null ? 'nothing was committed since the backup' : `the last commit is of ${window.end_at}`;
    const warnings = [
      `The archive ends before ${at}: ${capped}. Everything in it is recovered; what was committed between that and ${at} and never archived would be missing. On a running source SELECT pg_switch_wal() archives it.`,
    ];
    if (window.end_lsn === null || parseLsn(window.end_lsn) < parseLsn(window.from_lsn)) {
      return this.#backupAlone(window.base, {}, warnings, windows);
    }
    return this.#to(context, window, { kind: 'lsn', lsn: window.end_lsn }, parseLsn(window.end_lsn), warnings);
  }

  async #toPoint(context: Deciding, name: string): Promise<Decision> {
    const { windows, survey, reader } = context;
    if (name === '' || Buffer.byteLength(name) > 63 || /[\0\n\r]/.test(name)) {
      throw new HoldfastError('INVALID_PARAMETER', 'this is no name of a restore point', {
        hint: 'Give the name that pg_create_restore_point was called with, at most 63 bytes.',
      });
    }
    const { segments, histories } = survey;
    const furthest = windows[0] as Reachable;
    const oldest = Math.min(...windows.map(({ base }) => segments.of(parseLsn(base.manifest.wal.end_lsn))));
    const ancestors = [...(histories.get(furthest.timeline) ?? [])].reverse();
    const lineOf = (number: number): number =>
      ancestors.findLast(({ until }) => number < segments.of(until))?.timeline ?? furthest.timeline;
    const end = segments.of(parseLsn(furthest.to_lsn)) - (furthest.needs_partial ? 0 : 1);
    let lsn: string | undefined;
    let looked = 0;
    for (let number = end; number >= oldest && lsn === undefined && looked < POINT_LOOK_BACK; number -= 1) {
      lsn = await restorePointIn(reader, segments.name(lineOf(number), number), name, furthest.needs_partial);
      looked += 1;
    }
    if (lsn === undefined && end - oldest >= looked) {
      const window = furthest;
      return this.#to(
        context,
        window,
        { kind: 'name', name },
        undefined,
        [],
        [
          `whether the restore point is in the archive: the newest ${looked} segments do not have it after ${window.base.manifest.id}`,
        ],
      );
    }
    if (lsn === undefined) {
      throw new HoldfastError('INVALID_PARAMETER', 'the archive has no restore point of this name', {
        hint: 'The segment that holds it may not have been archived yet: SELECT pg_switch_wal() on the source does it. Or use restore_timestamp or lsn.',
        details: { windows: shownWindows(windows) },
      });
    }
    const at = parseLsn(lsn);
    const window = windows.find((one) => parseLsn(one.from_lsn) <= at);
    if (window === undefined) throw this.#outside(context, `the restore point at ${lsn}`, undefined);
    return this.#to(context, window, { kind: 'name', name }, at);
  }

  /** The one segment that is missing at the end leaves a trace: its sum, which is stored before it. */
  async #assertNothingBehind(context: Deciding, window: Reachable): Promise<void> {
    if (window.hole !== undefined) throw this.#outside(context, 'the newest moment', window);
    const { segments } = context.survey;
    const next = segments.name(window.timeline, segments.of(parseLsn(window.to_lsn)));
    if (window.partial === next || (await context.reader.archive.sumOf(next)) === undefined) return;
    if (await context.reader.archive.has(next)) return;
    throw this.#outside(context, 'the newest moment', {
      ...window,
      hole: { timeline: window.timeline, first_segment: next, last_segment: next, segments: 1 },
    });
  }

  #outside({ windows }: Pick<Deciding, 'windows'>, what: string, before: Reachable | undefined): HoldfastError {
    const details = { windows: shownWindows(windows) };
    const shown = details.windows
      .map(({ from, to, from_lsn, to_lsn }) => `${from} to ${to ?? 'its end'} (${from_lsn} to ${to_lsn ?? 'its end'})`)
      .join('; ');
    if (before?.hole !== undefined) {
      const { first_segment, last_segment, segments } = before.hole;
      return new HoldfastError(
        'INTEGRITY_FAILED',
        `${what} cannot be reached: ${segments === 1 ? `the segment ${first_segment} is` : `${segments} segments from ${first_segment} to ${last_segment} are`} missing in the archive`,
        {
          hint: `Nothing was written. These moments can be reached: ${shown}. Look for the segment in pg_wal of the source, or restore inside of that.`,
          details,
        },
      );
    }
    return new HoldfastError('INVALID_PARAMETER', `${what} is outside of what can be reached`, {
      hint: `Nothing was written. These moments can be reached: ${shown}.`,
      details,
    });
  }

  // --- the plan ------------------------------------------------------------------------------------------------------

  async plan(scope: Scope, input: DirectoryInput): Promise<PlanDraft> {
    const { entity, runtime } = this.#host;
    const of = ['target_database', 'tables', 'no_owner'].filter(
      (name) => name in input && Reflect.get(input, name) !== undefined,
    );
    if (of.length > 0) {
      throw new HoldfastError(
        'INVALID_PARAMETER',
        `${of.join(' and ')} cannot be given for a recovery of the whole server`,
        {
          hint: 'Leave it out; or leave out target_directory and every target in time, and give the snapshot_id of a logical backup. Nothing was written.',
        },
      );
    }
    const directory = await checkTarget(input.target_directory, entity.storage);
    const decision = await this.#decide(scope, input);
    const { base, target } = decision;
    const chain = await this.parts(base, scope, input);
    const account = await copyAccount();
    const parent = dirname(directory);
    await access(parent, constants.W_OK).catch((cause) => {
      throw toDiskError(cause);
    });
    await assertReaches(parent, account);
    const binaries = await findServerOf(majorOf(base.manifest), entity.bin_dir);
    const tablespaces = await checkTablespaces(
      chain.at(-1)?.manifest ?? base.manifest,
      input.tablespace_map,
      directory,
    );
    const sizes = chain.map(({ manifest }) => payloadOf(manifest, 'base').plain_bytes);
    const unpacked = sizes.reduce((sum, size) => sum + size, 0);
    // Incremental backups are unpacked beside the whole that comes of them.
    const needed = Math.ceil((chain.length === 1 ? unpacked : unpacked * 2) * 1.05) + LOG_ROOM;
    const { bavail, bsize } = await statfs(parent);
    if (bavail * bsize < needed) {
      throw new HoldfastError(
        'QUOTA_EXCEEDED',
        `the recovery needs ${formatBytes(needed)}, and ${formatBytes(bavail * bsize)} are free beside target_directory`,
        { hint: 'Nothing was written. Free space there, or choose a target_directory on a larger disk.' },
      );
    }
    const { wal } = base.manifest;
    const segments = new Segments(wal.segment_size);
    const first = wal.start_segment;
    const last = decision.last ?? wal.end_segment;
    const count = segments.parse(last).number - segments.parse(first).number + 1;
    const estimate = await this.#estimate(unpacked, count, base.manifest);
    const warnings = [...decision.warnings];
    if (base.verifiedAt === undefined)
      warnings.push('This backup has never been restored and checked; this restore does it.');
    if (target.kind === 'time') {
      warnings.push('Transactions that ended at this very moment are included; the first that ended later is not.');
    }
    if (decision.partial !== undefined) {
      warnings.push(`The last segment, ${decision.partial}, was archived while it was being written.`);
    }
    return {
      target: directory,
      source: `${this.kind} ${base.manifest.id}, then the log to ${describeTarget(target)} on timeline ${decision.timeline}`,
      loses: 'nothing: the directory is new, and the live server is not touched',
      blast_radius: {
        needed_bytes: needed,
        free_bytes: bavail * bsize,
        wal_first: first,
        wal_last: last,
        wal_segments: count,
        backups: chain.map(({ manifest }) => manifest.id),
      },
      undo: `remove the directory ${directory}`,
      duration_estimate: estimate,
      warnings,
      unknowns: [...decision.unknowns],
      facts: {
        target: { directory },
        source: {
          snapshot_id: base.manifest.id,
          sha256: chain.map(({ manifest }) => payloadOf(manifest, 'base').sha256).join(' '),
        },
        context: {
          target: target as unknown as JsonObject,
          timeline: decision.timeline,
          last: decision.last ?? null,
          partial: decision.partial ?? null,
          server: binaries.version,
          tablespaces: Object.fromEntries(tablespaces),
          version: runtime.version ?? 'unknown',
        },
      },
    };
  }

  async #work(scope: Scope, { from_source }: DirectoryInput): Promise<Work> {
    return { ...(await this.#host.work(scope)), repository: restorableFrom(this.#host, from_source) };
  }

  /** Gives what a backup is put together from, the full one first, and proves that it can be opened. */
  protected async parts(base: Physical, scope: Scope, input: DirectoryInput): Promise<readonly Physical[]> {
    const work = await this.#work(scope, input);
    const chain = await this.#chain(work, base);
    for (const { manifest } of chain) await assertKeyFits(work, manifest);
    return chain;
  }

  async #chain({ repository }: Work, base: Physical): Promise<readonly Physical[]> {
    const { backups } = await repository.catalogue();
    const physical = new Map(backups.filter(isPhysical).map((backup) => [backup.manifest.id, backup]));
    const chain = chainOf(base.manifest, physical);
    if (chain) return chain;
    throw new HoldfastError('INTEGRITY_FAILED', 'a backup that this one rests on is missing');
  }

  /** Seconds, from what earlier recoveries took; else from how long the backup took. */
  async #estimate(bytes: number, segments: number, manifest: PhysicalManifest): Promise<number> {
    const notes = await this.#host.runtime.ledger.list(RESTORE_LEDGER, 200);
    const earlier = notes.find((note) => typeof note['seconds'] === 'number' && typeof note['bytes'] === 'number');
    if (earlier !== undefined) {
      const work = (size: number, count: number): number => size + count * manifest.wal.segment_size;
      const done = work(Number(earlier['bytes']), Number(earlier['segments'] ?? 0));
      return Math.max(1, Math.round((Number(earlier['seconds']) * work(bytes, segments)) / Math.max(1, done)));
    }
    return Math.max(5, Math.round((manifest.duration_ms * 2) / 1000 + segments * 0.3));
  }

  // --- the steps -----------------------------------------------------------------------------------------------------

  async #job(step: OwnStep, plan: Plan): Promise<Job> {
    const { target, source, context = {} } = plan.facts;
    const directory = String(target['directory']);
    const found = await this.find(String(source?.['snapshot_id']), step);
    const id = shortId(step.operationId);
    const binaries = await findServerOf(majorOf(found.manifest), this.#host.entity.bin_dir);
    const text = (name: string): string | undefined =>
      typeof context[name] === 'string' ? (context[name] as string) : undefined;
    return {
      id,
      directory,
      side: join(dirname(directory), `.holdfast-${id}`),
      binaries,
      account: await copyAccount(),
      base: found,
      target: context['target'] as unknown as RecoveryTarget,
      timeline: Number(context['timeline']),
      last: text('last'),
      partial: text('partial'),
      tablespaces: new Map(Object.entries((context['tablespaces'] ?? {}) as Record<string, string>)),
    };
  }

  /** Gives the backup that a plan named. */
  protected async find(id: string, step: OwnStep): Promise<Physical> {
    const { from_source } = step.input as DirectoryInput;
    const found = await restorableFrom(this.#host, from_source).get(id);
    if (!isPhysical(found)) throw new HoldfastError('INTERNAL', 'the backup of the plan is not physical');
    return found;
  }

  /** Makes a data directory of the base backup; gives where it lies, and its size in bytes. */
  protected async fill(step: OwnStep, job: Job, directory: string): Promise<{ data: string; bytes: number }> {
    const work = await this.#work(step, step.input as DirectoryInput);
    const chain = (await this.#chain(work, job.base)).map(({ manifest }) => manifest);
    const { data } = await whileInUse(work, job.base.manifest.id, `restore ${job.id}`, () =>
      unpackBackup(work, chain, directory, this.#host.entity.bin_dir).catch((cause) => {
        throw toDiskError(cause);
      }),
    );
    return { data, bytes: chain.reduce((sum, manifest) => sum + payloadOf(manifest, 'base').plain_bytes, 0) };
  }

  /** Gives one file of the log to a recovery; false where the archive does not have it. */
  protected async fetcher(step: OwnStep, job: Job): Promise<(name: string, path: string) => Promise<boolean>> {
    const work = await this.#work(step, step.input as DirectoryInput);
    const archive = new WalArchive(work.repository, this.#host.runtime);
    return (name, path) =>
      archive.get(name, path, { keys: work.keys, partial: name === job.partial, signal: step.signal });
  }

  /** What a person does with archiving once the copy is in its place. */
  protected archivingSteps(data: string, history: string, timeline: number): string[] {
    const entity = this.#host.entity.key;
    const path = shellWord(`${data}/pg_wal/${history}`);
    return [
      `Where archive_command archives: ALTER SYSTEM RESET archive_mode; restart; then archive the new timeline's history once: holdfast wal push --entity ${entity} ${path} ${history}. The new timeline ${timeline} goes on in the same archive.`,
      'Where holdfast wal receive streams: start it again; it makes its slot anew, since slots are no part of a copy.',
    ];
  }

  /** Step `unpack`: the base backup becomes a directory, each file of it proved by the list that pg_basebackup made. */
  async unpack(step: OwnStep, plan: Plan): Promise<JsonObject> {
    const job = await this.#job(step, plan);
    const { directory, side, account } = job;
    const began = this.#host.runtime.now();
    await step.checkpoint({ phase: 'unpacking', directory, side });
    await this.#note(job, 'unpack');
    this.#host.runtime.assertMayWrite('restoring a backup into a new directory');
    await mkdir(side, { mode: 0o700 }).catch((cause) => {
      throw toDiskError(cause);
    });
    if (account) await lchown(side, account.uid, account.gid);
    await writeFile(join(side, MARK), step.operationId, { mode: 0o600, flag: 'wx' });
    const unpacked = join(side, UNPACKED);
    const { data, bytes } = await this.fill(step, job, unpacked);
    await placeTablespaces(data, join(unpacked, 'tablespaces'), job);
    const auto = join(data, 'postgresql.auto.conf');
    const settings = await readFile(auto, 'utf8').catch(() => '');
    await writeOwn(auto, settledSettings(settings), account);
    await writeOwn(join(data, 'recovery.signal'), '', account);
    // Nobody may have made anything there meanwhile; a directory that is not empty is not replaced.
    await checkTarget(directory, undefined);
    await rename(data, directory);
    return { seconds: this.#since(began), bytes };
  }

  /** Step `recover`: PostgreSQL replays the log to the target and is promoted, with nobody but us connected. */
  async recover(step: OwnStep, plan: Plan): Promise<JsonObject> {
    const job = await this.#job(step, plan);
    const { runtime } = this.#host;
    const began = runtime.now();
    runtime.assertMayWrite('recovering a copy of a server');
    await step.checkpoint({ phase: 'recovering' });
    await this.#note(job, 'recover');
    const segments = new Segments(job.base.manifest.wal.segment_size);
    const from = segments.parse(job.base.manifest.wal.start_segment).number;
    const end = job.last === undefined ? undefined : segments.parse(job.last).number;
    const folder = join(job.side, 'wal');
    await rm(folder, { recursive: true, force: true });
    const feed = await openWalFeed(
      folder,
      {
        fetch: await this.fetcher(step, job),
        next: (name) => {
          if (name.length !== 24) return undefined;
          const { timeline, number } = segments.parse(name);
          return end === undefined || number >= end ? undefined : segments.name(timeline, number + 1);
        },
      },
      { account: job.account, log: runtime.log },
    );
    const progress = setInterval(() => {
      const percent = Math.min(99, Math.floor((feed.served * 100) / Math.max(1, (end ?? from) - from + 1)));
      step.progress({ percent, message: `Replaying the write-ahead log: ${feed.served} segments` });
    }, 500);
    try {
      step.progress({ message: 'Replaying the write-ahead log' });
      const reached = await this.#promoted(job, feed, step.signal);
      return { ...reached, segments: feed.served, seconds: this.#since(began) };
    } finally {
      clearInterval(progress);
      await feed.close();
    }
  }

  async #promoted(job: Job, feed: WalFeed, signal: AbortSignal): Promise<JsonObject> {
    const server = await this.#start(job, recoverySettings(job.target, job.timeline, feed.command));
    try {
      try {
        await server.ready(signal);
      } catch (cause) {
        signal.throwIfAborted();
        if (feed.fault instanceof HoldfastError) throw feed.fault;
        if (!server.exited()) throw cause;
        throw recoveryFailure(job.target, await server.log());
      }
      const reached = await this.#reached(server, job);
      await server.stop('fast');
      return reached;
    } finally {
      await server.stop('immediate');
    }
  }

  #start(job: Job, settings: Readonly<Record<string, string>>): Promise<CopyServer> {
    const superuser = job.base.manifest.server['superuser'];
    return startCopyServer({
      data: job.directory,
      binaries: job.binaries,
      account: job.account,
      superuser: typeof superuser === 'string' ? superuser : 'postgres',
      // Any other database may have been dropped since the backup.
      database: 'template1',
      settings,
    });
  }

  async #reached(server: CopyServer, { base }: Job): Promise<JsonObject> {
    return withSession(server.connection, undefined, async (session) => {
      const [row] = await session.query<{ walfile: string; recovering: boolean; system: string }>(
        'SELECT pg_walfile_name(pg_current_wal_lsn()) AS walfile, pg_is_in_recovery() AS recovering, (SELECT system_identifier::text FROM pg_control_system()) AS system',
      );
      const timeline = Number.parseInt(row?.walfile.slice(0, 8) ?? '', 16);
      if (row?.recovering !== false || !(timeline > base.manifest.wal.timeline)) {
        throw new HoldfastError('INTEGRITY_FAILED', 'the recovered copy was not promoted to a timeline of its own');
      }
      const expected = base.manifest.server.system_identifier;
      if (expected !== null && row.system !== expected) {
        throw new HoldfastError('INTEGRITY_FAILED', 'the recovered copy is of another server than its backup says');
      }
      const log = readRecoveryLog(await server.log());
      return {
        timeline,
        ...(log.redo_done === undefined ? {} : { lsn: log.redo_done }),
        ...(log.last_transaction_at === undefined ? {} : { last_transaction_at: log.last_transaction_at }),
      };
    });
  }

  /** Step `check`: starts the recovered directory once more, as its owner will, and looks at every database. */
  async check(step: OwnStep, plan: Plan): Promise<JsonObject> {
    const job = await this.#job(step, plan);
    const { runtime } = this.#host;
    const began = runtime.now();
    runtime.assertMayWrite('checking a recovered copy');
    await step.checkpoint({ phase: 'checking' });
    await this.#note(job, 'check');
    const server = await this.#start(job, {});
    let databases: JsonObject[];
    try {
      await server.ready(step.signal);
      databases = await withSession(server.connection, step.signal, async (session) => {
        const found = await session.query<{ name: string; size: string }>(
          'SELECT datname::text AS name, pg_database_size(oid)::text AS size FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1',
        );
        return found.map(({ name, size }) => ({ name: cleanText(name, 70), size_bytes: Number(size) }));
      });
      await server.stop('fast');
    } finally {
      await server.stop('immediate');
    }
    for (const name of ['postmaster.opts', 'current_logfiles']) await rm(join(job.directory, name), { force: true });
    const live = await this.#live(step.signal);
    const timeline = Number(step.results['recover']?.['timeline']);
    const steps = swapSteps(job, this.#host.entity.key, live, (data) =>
      this.archivingSteps(data, `${timelineName(timeline)}.history`, timeline),
    );
    await rm(job.side, { recursive: true, force: true });
    const seconds = this.#since(began);
    const { results } = step;
    const phases = Object.fromEntries(
      ['unpack', 'recover'].map((name) => [name, Number(results[name]?.['seconds'] ?? 0)]),
    );
    const total = Object.values(phases).reduce((sum, value) => sum + value, seconds);
    await this.#note(job, 'succeeded', {
      seconds: Math.max(1, Math.round(total)),
      bytes: results['unpack']?.['bytes'] ?? 0,
      segments: results['recover']?.['segments'] ?? 0,
    });
    return {
      job_id: job.id,
      snapshot_id: job.base.manifest.id,
      directory: job.directory,
      reached: { ...results['recover'], seconds: undefined, segments: undefined } as JsonObject,
      databases,
      phases: { ...phases, check: seconds, total },
      steps,
    };
  }

  /** A directory that a recovery could go to: beside the live one, or where large temporary files go. */
  async #besideLive(moment: string, signal: AbortSignal): Promise<string> {
    const { data } = await this.#live(signal);
    const beside = data === undefined ? undefined : dirname(data);
    const parent = beside !== undefined && (await exists(beside)) ? beside : '/var/tmp';
    return join(parent, `recovered-${moment.slice(0, 19).replace(/[-:]/g, '')}Z`);
  }

  /** Where the live server has its data, for the steps that a person takes; unknown where it is down or does not say. */
  async #live(signal: AbortSignal): Promise<{ data?: string; config?: string }> {
    try {
      const connection = await this.#host.connection();
      return await withSession(connection, signal, async (session) => {
        const [row] = await session.query<{ data: string | null; config: string | null }>(
          "SELECT (SELECT setting FROM pg_settings WHERE name = 'data_directory') AS data, (SELECT setting FROM pg_settings WHERE name = 'config_file') AS config",
        );
        return {
          ...(row?.data == null ? {} : { data: cleanText(row.data, 300) }),
          ...(row?.config == null ? {} : { config: cleanText(row.config, 300) }),
        };
      });
    } catch {
      signal.throwIfAborted();
      return {};
    }
  }

  /** Ends what a dead process left running on the copy. What the step makes, it makes anew. */
  async recoverStep(step: OwnStep, plan: Plan): Promise<Recovery> {
    if (step.handle === undefined) return { state: 'not_begun' };
    const job = await this.#job(step, plan);
    if (!(await isOwn(job.side, step.operationId))) return { state: 'not_begun' };
    await stopAbandoned(job.directory, this.#host.entity.bin_dir);
    return { state: 'not_begun' };
  }

  /** Removes a half-unpacked directory, which is provably ours. */
  async recoverUnpack(step: OwnStep, plan: Plan): Promise<Recovery> {
    if (step.handle === undefined) return { state: 'not_begun' };
    const job = await this.#job(step, plan);
    const removed = await this.#discard(job, step.operationId);
    return { state: 'not_begun', ...(removed ? { message: 'the half-restored directory has been removed' } : {}) };
  }

  /** Removes the directory when the restore does not go on, or keeps it to be looked at. */
  async abandon(step: OwnStep, plan: Plan): Promise<string> {
    const job = await this.#job(step, plan);
    if (step.handle === undefined || !(await isOwn(job.side, step.operationId))) return '';
    await this.#note(job, 'failed');
    if ((step.input as DirectoryInput).keep_failed === true) {
      await stopAbandoned(job.directory, this.#host.entity.bin_dir);
      return `the directory '${job.directory}' is kept as it failed, what belongs to it in '${job.side}'; do not start it with archiving on`;
    }
    await this.#discard(job, step.operationId);
    return `the directory '${job.directory}' has been removed; the live server was not touched`;
  }

  async #discard(job: Job, operationId: string): Promise<boolean> {
    if (!(await isOwn(job.side, operationId))) return false;
    await stopAbandoned(job.directory, this.#host.entity.bin_dir);
    this.#host.runtime.assertMayWrite('removing a half-restored directory');
    for (const place of [...job.tablespaces.values(), job.directory, job.side]) {
      await rm(place, { recursive: true, force: true, maxRetries: 5 });
    }
    return true;
  }

  #since(began: Date): number {
    return Math.max(0, this.#host.runtime.now().getTime() - began.getTime()) / 1000;
  }

  async #note(job: Job, phase: string, more: JsonObject = {}): Promise<void> {
    await this.#host.runtime.ledger.add(RESTORE_LEDGER, {
      job_id: job.id,
      target: job.directory,
      directory: job.directory,
      side: job.side,
      snapshot_id: job.base.manifest.id,
      phase,
      at: this.#host.runtime.now().toISOString(),
      ...more,
    });
  }

  // --- the status and the offers -------------------------------------------------------------------------------------

  /** Says how a restore into a directory stands, from its notes, newest first. */
  async status(notes: readonly JsonObject[]): Promise<z.input<typeof RestoreJob>> {
    const [latest] = notes;
    const text = (name: string): string => cleanText(latest?.[name], 300);
    const phase = text('phase');
    const job = {
      job_id: text('job_id'),
      target: text('directory'),
      started_at: String(notes.at(-1)?.['at']),
      provider: { snapshot_id: text('snapshot_id'), phase },
    };
    if (phase === 'failed') return { ...job, status: 'failed', usable: false, ended_at: text('at') };
    if (phase === 'succeeded') {
      const usable = await exists(join(text('directory'), 'PG_VERSION'));
      return { ...job, status: 'succeeded', percent: 100, usable, ended_at: text('at') };
    }
    return { ...job, status: (await exists(String(latest?.['side']))) ? 'running' : 'unknown', usable: false };
  }

  /**
   * Writes how a physical backup is recovered to a moment with stock commands alone, a line each; undefined where no log is
   * archived. `unpacked` are the commands that make a data directory of the backup and start it.
   */
  async byHand({ encryption }: PhysicalManifest, unpacked: string): Promise<string[] | undefined> {
    const repository = this.#host.repository();
    if ((await new WalArchive(repository, this.#host.runtime).source()) === undefined) return undefined;
    const sealed = encryption.scheme === 'age';
    const name = sealed ? '"$w.zst.age"' : '"$w.zst"';
    const open = sealed
      ? `age -d ${encryption.passphrase ? '' : '-i KEY_FILE '}${name} | zstd -dqfo "%p"`
      : `zstd -dqfo "%p" ${name}`;
    return [
      `# WAL_DIRECTORY: a copy of ${cleanText(`${repository.store.location}/${LAYOUT}/${repository.sourceId}/wal`, 400)}; every path absolute, readable by the account of the server.`,
      '# TARGET_LSN: always one, or a missing segment is a silent loss. Of the last record: pg_waldump LAST_SEGMENT | tail -n 1. Or give recovery_target_time.',
      ...(encryption.passphrase ? ['# age asks for the passphrase at each segment: decrypt them beforehand.'] : []),
      'set -e',
      ...unpacked.split(' && ').slice(0, -1),
      'touch NEW_DATA_DIRECTORY/recovery.signal',
      "cat >> NEW_DATA_DIRECTORY/postgresql.auto.conf <<'END'",
      'archive_mode = off',
      `restore_command = 'w=WAL_DIRECTORY/$(echo %f | cut -c1-8)/%f; if [ -e ${name} ]; then ${open}; else cp "$w" "%p"; fi'`,
      "recovery_target_lsn = 'TARGET_LSN'",
      'recovery_target_action = promote',
      'END',
      "pg_ctl start -D NEW_DATA_DIRECTORY -o '-c port=FREE_PORT'",
    ];
  }

  /** Offers a recovery to a moment, or to the newest one, where the archive leads there. */
  async options(signal: AbortSignal, at: Date | undefined): Promise<RecoveryOption[]> {
    const { survey, windows } = await this.read({ signal }, {});
    const { entity } = this.#host;
    const onLine = survey === undefined ? [] : onNewestLine(survey, windows).filter(({ end_at }) => end_at !== null);
    const window = onLine.find(({ from_at }) => at === undefined || Date.parse(from_at) <= at.getTime());
    if (window === undefined) return [];
    const end = String(window.end_at);
    const isInside = at !== undefined && micro(at.toISOString()) < micro(end);
    const moment = isInside ? at.toISOString() : end;
    const until = at ?? this.#host.runtime.now();
    const gap = Math.max(0, Math.round((until.getTime() - Date.parse(moment)) / 1000));
    const [range] = mergedWindows([window]);
    return [
      {
        title: `Recover the server to ${moment} in a new data directory`,
        moment: new Date(moment).toISOString(),
        loses: `nothing of the live server, which is not touched; the copy lacks the last ${gap === 0 ? '0 s' : formatDuration(gap)} before ${until.toISOString()}. Reachable: ${range?.earliest_at ?? window.from_at} to ${range?.latest_at ?? end}`,
        risk: 'create',
        duration_estimate: await this.#estimate(
          payloadOf(window.base.manifest, 'base').plain_bytes,
          1,
          window.base.manifest,
        ),
        call: {
          entity: entity.key,
          action: 'restore',
          input: {
            target_directory: await this.#besideLive(moment, signal),
            ...(isInside ? { restore_timestamp: moment } : { use_latest: true }),
          },
        },
      },
    ];
  }
}

/** Room for segments that are being replayed, and for the checkpoint at the end. */
const LOG_ROOM = 256 * 1024 * 1024;

interface Deciding {
  readonly scope: Scope;
  readonly survey: Survey;
  readonly reader: EndReader;
  readonly windows: readonly Reachable[];
}

export interface Job {
  readonly id: string;
  readonly directory: string;
  readonly side: string;
  readonly binaries: Binaries;
  readonly account: Account | undefined;
  readonly base: Physical;
  readonly target: RecoveryTarget;
  readonly timeline: number;
  readonly last: string | undefined;
  readonly partial: string | undefined;
  readonly tablespaces: ReadonlyMap<string, string>;
}

/**
 * The windows on the newest timeline, and those on its ancestors that end before it left them: there the history is the
 * same. What a restored server gave up is on neither, and is asked for by its number.
 */
function onNewestLine({ histories }: Survey, windows: readonly Reachable[]): Reachable[] {
  const newest = Math.max(...windows.map(({ timeline }) => timeline));
  const ancestors = histories.get(newest) ?? [];
  return windows.filter(
    (one) =>
      one.timeline === newest ||
      ancestors.some(({ timeline, until }) => timeline === one.timeline && parseLsn(one.to_lsn) <= until),
  );
}

const majorOf = (manifest: PhysicalManifest): number => Math.floor(manifest.server.version_num / 10_000);

/** An instant with six digits behind the second, so that two of them compare as text. */
function micro(text: string): string {
  const [, whole = '', fraction = ''] = /^([^.Z]*)(?:\.(\d+))?Z$/.exec(text) ?? [];
  return `${whole}.${fraction.slice(0, 6).padEnd(6, '0')}Z`;
}

/** Reads restore_timestamp in UTC without losing what PostgreSQL can tell apart: microseconds. */
function preciseInstant(value: string | number): string {
  const date = parseInstant(value, 'restore_timestamp');
  const fraction = /\.(\d{1,9})/.exec(String(value))?.[1] ?? '';
  return `${date.toISOString().slice(0, 19)}.${fraction.slice(0, 6).padEnd(6, '0')}Z`;
}

function describeTarget(target: RecoveryTarget): string {
  switch (target.kind) {
    case 'backup':
      return 'the end of the backup';
    case 'time':
      return target.at;
    case 'lsn':
      return `position ${target.lsn}`;
    case 'name':
      return `the restore point '${cleanText(target.name, 70)}'`;
  }
}

interface ShownWindow extends JsonObject {
  from: string;
  to: string | null;
  from_lsn: string;
  to_lsn: string | null;
}

/** The windows as a person reads them: one for each end, beginning with the oldest backup that leads there. */
function shownWindows(windows: readonly Reachable[]): ShownWindow[] {
  const byEnd = new Map<string, ShownWindow>();
  for (const { from_at, end_at, from_lsn, end_lsn, timeline, to_lsn } of windows) {
    const key = `${timeline} ${to_lsn}`;
    const known = byEnd.get(key);
    if (known === undefined || from_at < known.from) {
      byEnd.set(key, { from: from_at, to: end_at, from_lsn, to_lsn: end_lsn, timeline });
    }
  }
  return [...byEnd.values()].sort((a, b) => a.from.localeCompare(b.from)).slice(0, 20);
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/**
 * Makes sure that a target is a new or empty directory, of which nothing else is part.
 * @throws {HoldfastError} INVALID_PARAMETER, RESOURCE_EXISTS
 */
async function checkTarget(
  target: string | undefined,
  storage: { readonly type: string; readonly path?: string | undefined } | undefined,
): Promise<string> {
  const refuse = (message: string, hint: string): never => {
    throw new HoldfastError('INVALID_PARAMETER', message, { hint: `${hint} Nothing was written.` });
  };
  if (target === undefined) {
    return refuse(
      'a recovery needs target_directory',
      'Give the absolute path of a directory that does not exist yet.',
    );
  }
  if (!isAbsolute(target) || target.includes('\0') || /[\n\r]/.test(target)) {
    refuse('target_directory is no absolute path', 'Give the absolute path of a directory on the machine of Holdfast.');
  }
  const path = normalize(target).replace(/\/+$/, '');
  const parent = await realpath(dirname(path)).catch(() =>
    refuse(
      'the parent of target_directory does not exist',
      'Make it first, owned by the account that runs PostgreSQL.',
    ),
  );
  const name = basename(path);
  if (name === '' || name === '..') refuse('target_directory is no name of a directory', 'Choose another one.');
  const directory = join(parent, name);
  for (let at = parent; ; at = dirname(at)) {
    if (await exists(join(at, 'PG_VERSION'))) {
      refuse('target_directory lies inside of a PostgreSQL data directory', 'Choose a directory beside it.');
    }
    if (at === dirname(at)) break;
  }
  if (storage?.type === 'local' && storage.path !== undefined) {
    const store = await realpath(storage.path).catch(() => storage.path as string);
    if (`${directory}/`.startsWith(`${store}/`)) {
      refuse('target_directory lies inside of the storage of the backups', 'Choose a directory elsewhere.');
    }
  }
  const found = await lstat(directory).catch(() => undefined);
  if (found !== undefined && (!found.isDirectory() || (await readdir(directory)).length > 0)) {
    throw new HoldfastError('RESOURCE_EXISTS', 'target_directory exists and is not an empty directory', {
      hint: 'Choose one that does not exist. Nothing was written.',
    });
  }
  if (found !== undefined && found.dev !== (await stat(parent)).dev) {
    refuse('target_directory is where a file system is mounted', 'Choose a directory inside of it.');
  }
  return directory;
}

/** What a disk says that cannot take the copy. */
function toDiskError(cause: unknown): unknown {
  const { code } = cause as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new HoldfastError('QUOTA_EXCEEDED', 'the disk of target_directory is full', {
      hint: 'What had been written was removed; the live server was not touched. Free space, or choose a larger disk.',
      cause,
    });
  }
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') {
    return new HoldfastError('INSUFFICIENT_PERMISSIONS', 'Holdfast may not write beside target_directory', {
      hint: 'Choose a directory whose parent the account of Holdfast may write to. The live server was not touched.',
      cause,
    });
  }
  return cause;
}

/** PostgreSQL must be able to go through every directory above its own. */
async function assertReaches(parent: string, account: Account | undefined): Promise<void> {
  if (account === undefined) return;
  await runChild('/bin/sh', ['-c', 'cd "$1"', 'sh', parent], { env: { LC_ALL: 'C' }, account }).catch((cause) => {
    throw new HoldfastError(
      'INVALID_PARAMETER',
      'the account that runs PostgreSQL cannot get to the parent of target_directory',
      { hint: 'PostgreSQL does not run as root. Choose a directory that the account postgres can enter.', cause },
    );
  });
}

/** Where each tablespace of a backup goes: asked for, because its old place may belong to the live server. */
async function checkTablespaces(
  manifest: PhysicalManifest,
  map: Readonly<Record<string, string>> = {},
  directory: string,
): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const own = manifest.tablespaces ?? [];
  const missing = own.filter(({ oid, location }) => map[String(oid)] === undefined && map[location] === undefined);
  if (missing.length > 0) {
    throw new HoldfastError('INVALID_PARAMETER', 'the backup has tablespaces, and not all of them have a new place', {
      hint: 'Give tablespace_map with a new, absolute directory for each: its key is the oid or the old location. Nothing was written.',
      details: { tablespaces: missing.map(({ oid, location }) => ({ oid, location: cleanText(location, 300) })) },
    });
  }
  for (const { oid, location } of own) {
    const place = await checkTarget(map[String(oid)] ?? map[location], undefined);
    if (place === directory || `${place}/`.startsWith(`${directory}/`) || [...found.values()].includes(place)) {
      throw new HoldfastError('INVALID_PARAMETER', 'two parts of the copy would lie in one directory');
    }
    found.set(String(oid), place);
  }
  return found;
}

const MARK = 'operation';

/** In the directory beside the target: where the backup is unpacked before it gets its place. */
const UNPACKED = 'unpacked';

async function writeOwn(path: string, text: string, account: Account | undefined): Promise<void> {
  await writeFile(path, text, { mode: 0o600 });
  if (account) await lchown(path, account.uid, account.gid);
}

/**
 * Moves unpacked tablespaces to where they shall lie, and says so in the copy: the server makes its links anew from
 * tablespace_map when it starts.
 */
async function placeTablespaces(data: string, from: string, { tablespaces, account }: Job): Promise<void> {
  if (tablespaces.size === 0) return;
  let map = '';
  for (const [oid, place] of tablespaces) {
    await checkTarget(place, undefined);
    const source = join(from, oid);
    await rename(source, place).catch(async (cause: NodeJS.ErrnoException) => {
      if (cause.code !== 'EXDEV') throw cause;
      await runChild('/bin/cp', ['-pR', source, place], { env: { LC_ALL: 'C' } });
    });
    const link = join(data, 'pg_tblspc', oid);
    await rm(link, { force: true });
    await symlink(place, link);
    if (account) await lchown(link, account.uid, account.gid);
    map += `${oid} ${place.replace(/[\\\n\r]/g, '\\$&')}\n`;
  }
  await writeOwn(join(data, 'tablespace_map'), map, account);
}

async function isOwn(side: string, operationId: string): Promise<boolean> {
  const found = await stat(side).catch(() => undefined);
  if (!found) return false;
  const mark = await readFile(join(side, MARK), 'utf8').catch(() => undefined);
  // Killed between the two: the directory is empty, and its name is our operation's.
  return mark === operationId || (mark === undefined && (await readdir(side)).length === 0);
}

/** A path as a person can paste it into a shell. */
function shellWord(path: string): string {
  return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;
}

/** What a person does to put the recovered directory in the place of the live one, in order, every path filled in. */
function swapSteps(
  job: Job,
  entity: string,
  live: { readonly data?: string; readonly config?: string },
  archiving: (data: string) => readonly string[],
): string[] {
  const { directory, binaries } = job;
  const binDir = binaries.directory;
  const major = majorOf(job.base.manifest);
  const data = live.data ?? 'LIVE_DATA_DIRECTORY';
  const kept = `${data}.before-${job.id}`;
  const q = shellWord;
  const debian = /^\/var\/lib\/postgresql\/(\d+)\/([^/]+)$/.exec(data);
  const service = debian ? `postgresql@${debian[1]}-${debian[2]}` : 'postgresql';
  const outside = live.config !== undefined && !live.config.startsWith(`${data}/`);
  return [
    `Look at the copy first: it was recovered and checked, it is stopped, and archive_mode is off in it. PostgreSQL ${major}, programs in ${binDir}.`,
    `Stop the live server: systemctl stop ${service}   (or: ${q(`${binDir}/pg_ctl`)} stop -D ${q(data)} -m fast)`,
    `Keep its directory: mv ${q(data)} ${q(kept)}`,
    `Put the copy in its place: mv ${q(directory)} ${q(data)}`,
    `Give it to the server's account: chown -R postgres: ${q(data)} && chmod 700 ${q(data)}`,
    outside
      ? `Its configuration stays where it is: ${q(live.config as string)}.`
      : `Look through ${q(`${data}/postgresql.conf`)} and pg_hba.conf: they are those of the moment of the backup.`,
    `Start it: systemctl start ${service}   (or: ${q(`${binDir}/pg_ctl`)} start -D ${q(data)})`,
    ...archiving(data),
    `Take a new base backup at once: holdfast do ${entity}/create-snapshot type=full`,
    `When nobody needs it any more: rm -rf ${q(kept)}`,
  ];
}
