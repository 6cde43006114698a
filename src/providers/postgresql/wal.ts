import { access, constants, readFile, rename, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, join } from 'node:path';
import { asHoldfastError, HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { RecoveryWindow as Span } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { chooseBinaries, findBinaries } from '../../postgres/binaries.ts';
import { type Session, withSession } from '../../postgres/connection.ts';
import type { PhysicalManifest } from '../../postgres/manifest.ts';
import type { Backup } from '../../postgres/repository.ts';
import type { Keys } from '../../postgres/seal.ts';
import { formatLsn, parseLsn, parseWalName, Segments } from '../../postgres/wal.ts';
import { readSegmentHeader, type Stored, type Survey, WalArchive } from '../../postgres/wal-archive.ts';
import {
  type EndCache,
  type EndReader,
  mergedWindows,
  type RecoveryWindow,
  recoveryWindows,
  type SegmentEnd,
} from '../../postgres/wal-ends.ts';
import { type Hole, holesIn } from '../../postgres/wal-reach.ts';
import {
  type ReceiveOptions,
  type ReceiverStatus,
  type ReceiveSummary,
  readFacts,
  readReceiverStatus,
  receiveWal,
} from '../../postgres/wal-receive.ts';
import type { Host, Scope } from './entity.ts';

const DEFAULT_LEVEL = 3;
const DEFAULT_PARTIAL_SECONDS = 60;
const DEFAULT_SPOOL_LIMIT = 2 ** 30;
const DEFAULT_CHECK_SECONDS = 30;
const LOOK_MS = 500;
/** A receiver writes its status every ten seconds. */
const SILENT_MS = 60_000;
const MOST_NAMED = 20;
const CACHED_ENDS = 200;

/** How a server hands its segments to archive_command, by its own account. */
interface Archiver {
  readonly mode: string;
  readonly command: string | null;
  readonly last_archived: string | null;
  readonly last_archived_at: string | null;
  readonly last_failed: string | null;
  readonly failed_count: number;
}

/** What get-backup-info says of the write-ahead log. */
export interface WalInfo {
  readonly enabled: boolean;
  /** The newest stretch of time in which every moment can be recovered to. */
  readonly window: Span | undefined;
  readonly facts: JsonObject | null;
  readonly warnings: readonly string[];
}

/** What check-wal has proven. */
export interface WalCheck {
  /** Whether what the server writes now reaches the storage. */
  readonly archived: boolean;
  readonly segment: string;
  /** Null where it did not come in time. */
  readonly seen_after_seconds: number | null;
  /** What is wrong and what to do, where it did not. */
  readonly problem?: string;
  /** The end of that segment. */
  readonly switched_lsn: string;
  gaps: Hole[];
  warnings: string[];
}

type WalHost = Host & { keys(): Promise<Keys> };

/** The write-ahead log of one entity: into its archive, out of it, and how far it reaches. */
export class EntityWal {
  readonly #host: WalHost;

  constructor(host: WalHost) {
    this.#host = host;
  }

  archive(): WalArchive {
    return new WalArchive(this.#host.repository(), this.#host.runtime);
  }

  // --- what programs call --------------------------------------------------------------------------------------------

  /**
   * Archives one file of the server, for archive_command.
   * @param path `%p`; @param name `%f`, where it is given
   */
  async push(path: string, name: string | undefined): Promise<Stored> {
    const { entity, runtime } = this.#host;
    const own = basename(path);
    if (name !== undefined && name !== own) {
      throw new HoldfastError(
        'INVALID_PARAMETER',
        `the file ${cleanText(own, 60)} is not called ${cleanText(name, 60)}`,
      );
    }
    const file = parseWalName(own);
    const archive = this.archive();
    if (file?.kind === 'segment' || file?.kind === 'partial') {
      const { systemIdentifier, segmentSize } = await readSegmentHeader(path);
      const source = { system_identifier: systemIdentifier, segment_size: segmentSize };
      await archive.claim(source, entity.key, runtime.now());
    }
    return archive.put(path, await this.#storing());
  }

  /** Brings one file of the archive to a path, for restore_command; false where the archive does not have it. */
  async fetch(name: string, path: string, options: { partial: boolean; signal: AbortSignal }): Promise<boolean> {
    return this.archive().get(name, path, { ...options, keys: await this.#host.keys() });
  }

  /** Streams the log into the archive until the signal. */
  async receive(signal: AbortSignal, seen?: ReceiveOptions['seen']): Promise<ReceiveSummary> {
    const { entity, runtime } = this.#host;
    const { wal } = entity;
    if (wal?.method === 'archive') {
      throw new HoldfastError('CONFIG_INVALID', 'wal.method of this entity is archive: its server archives by itself', {
        hint: 'Set wal.method: receive, or leave it to archive_command. Both at once store everything twice over the network.',
      });
    }
    const found = await findBinaries(entity.bin_dir);
    const connection = await this.#host.connection();
    const major = await withSession(connection, signal, async (session) => {
      const [row] = await session.query<{ version: string }>("SELECT current_setting('server_version_num') AS version");
      return Math.floor(Number(row?.version) / 10_000);
    }).catch((cause: unknown) => {
      // It may only be starting: any version that is here can wait for it.
      if (asHoldfastError(cause).code === 'PROVIDER_UNAVAILABLE') return 0;
      throw cause;
    });
    const binaries = chooseBinaries(found, major, entity.bin_dir);
    await access(join(binaries.directory, 'pg_receivewal'), constants.X_OK).catch((cause: unknown) => {
      throw new HoldfastError('NOT_SUPPORTED', `pg_receivewal is not in ${cleanText(binaries.directory)}`, { cause });
    });
    return receiveWal({
      runtime,
      connection,
      archive: this.archive(),
      storing: await this.#storing(),
      binDirectory: binaries.directory,
      slot: this.slot(),
      spool: wal?.spool ?? join(await runtime.workDirectory(), 'wal-spool'),
      partialEverySeconds: wal?.partial_every_seconds ?? DEFAULT_PARTIAL_SECONDS,
      spoolLimitBytes: wal?.spool_limit_bytes ?? DEFAULT_SPOOL_LIMIT,
      statusFile: await this.#statusFile(),
      sourceName: entity.key,
      signal,
      seen,
    });
  }

  /** The replication slot of this entity's receiver. */
  slot(): string {
    const { entity } = this.#host;
    const source = this.#host.repository().sourceId.replace(/[^a-z0-9_]/g, '_');
    // A long id still ends with what tells it from others.
    return entity.wal?.slot ?? `holdfast_${source.length > 54 ? `${source.slice(0, 45)}_${source.slice(-8)}` : source}`;
  }

  async #storing() {
    const sealing = await this.#host.sealing();
    return { sealing, level: this.#host.entity.compression_level ?? DEFAULT_LEVEL };
  }

  async #statusFile(): Promise<string> {
    return join(await this.#host.runtime.workDirectory(), 'wal-receiver.json');
  }

  // --- how far it reaches --------------------------------------------------------------------------------------------

  /**
   * Gives everywhere that these physical backups can be recovered to with what lies in the archive.
   * @param notes gets what could not be found out, for people
   */
  async windows(
    survey: Survey,
    physical: readonly Backup<PhysicalManifest>[],
    scope: Scope,
    notes: string[] = [],
  ): Promise<RecoveryWindow[]> {
    const { entity, runtime } = this.#host;
    const major = Math.floor((physical[0]?.manifest.server.version_num ?? 0) / 10_000);
    let reader: EndReader | undefined;
    const directory = await runtime.workDirectory();
    const cache = await openCache(join(directory, 'wal-ends.json'));
    for (const binaries of await findBinaries(entity.bin_dir)) {
      const isThere = access(join(binaries.directory, 'pg_waldump'), constants.X_OK).then(
        () => true,
        () => false,
      );
      if (binaries.major !== major || !(await isThere)) continue;
      reader = {
        archive: this.archive(),
        keys: await this.#host.keys(),
        binaries,
        directory,
        cache,
        signal: scope.signal,
      };
      break;
    }
    if (reader === undefined) {
      notes.push(
        `Until when the log reaches is known by position only: pg_waldump of PostgreSQL ${major} is not here.`,
      );
    }
    try {
      const windows = await recoveryWindows(survey, physical, reader);
      await cache.save();
      return windows;
    } catch (cause) {
      const error = asHoldfastError(cause);
      if (error.code === 'CANCELLED') throw error;
      notes.push(`Until when the log reaches could not be read (${error.code}): ${error.message}.`);
      return recoveryWindows(survey, physical, undefined);
    }
  }

  /** Says how the log of this entity is kept. The storage is believed, the server's own account is compared with it. */
  async info(scope: Scope, physical: readonly Backup<PhysicalManifest>[]): Promise<WalInfo> {
    const { entity } = this.#host;
    const survey = await this.archive().survey();
    if (survey === undefined && entity.wal === undefined) {
      return { enabled: false, window: undefined, facts: null, warnings: [] };
    }
    const warnings: string[] = [];
    const windows = survey === undefined ? [] : await this.windows(survey, physical, scope, warnings);
    const spans = mergedWindows(windows);
    const newest = survey === undefined ? undefined : newestOf(survey);
    const needed = survey === undefined ? [] : holesIn(survey, oldestNeeded(physical, survey.segments));
    for (const hole of needed.slice(0, 5)) {
      warnings.push(
        `The archived log has a hole of ${hole.segments} segments (${hole.first_segment} to ${hole.last_segment}): backups from before it reach no further.`,
      );
    }
    if (survey === undefined || survey.count === 0)
      warnings.push('No log has been archived yet: check-wal finds out why.');
    else if (physical.length === 0) {
      warnings.push(
        'There is no physical backup, which recovery to a moment begins with: create-snapshot, type: full.',
      );
    }
    const receiver = await readReceiverStatus(await this.#statusFile());
    const isReceiving = receiver !== undefined && isFresh(receiver, this.#host.runtime.now());
    if (entity.wal?.method === 'receive') warnings.push(...receiverWarnings(receiver, isReceiving));
    const server = await withSession(await this.#host.connection(), scope.signal, (session) =>
      this.#compare(session, survey, newest, warnings),
    ).catch((cause: unknown) => {
      if (asHoldfastError(cause).code === 'CANCELLED') throw cause;
      return {};
    });
    return {
      enabled: survey !== undefined && survey.count > 0 && physical.length > 0,
      window: spans.at(-1),
      warnings,
      facts: {
        method: entity.wal?.method ?? 'not declared',
        segments: survey?.count ?? 0,
        stored_bytes: survey?.bytes ?? 0,
        newest_segment: newest?.name ?? null,
        archived_lsn: newest?.lsn ?? null,
        last_commit_at: windows[0]?.last_commit_at ?? null,
        partial_segment: survey?.partials.at(-1) ?? null,
        windows: spans.slice(-MOST_NAMED),
        gap_segments: needed.reduce((sum, { segments }) => sum + segments, 0),
        gaps: needed.slice(0, MOST_NAMED).map(shownHole),
        ...server,
        ...(receiver === undefined ? {} : { receiver: { ...receiver, running: isReceiving } as unknown as JsonObject }),
      },
    };
  }

  /** Compares what the server says of its archiving with what is in the archive. */
  async #compare(
    session: Session,
    survey: Survey | undefined,
    newest: { lsn: string } | undefined,
    warnings: string[],
  ): Promise<JsonObject> {
    const { entity } = this.#host;
    const facts = await readFacts(session);
    if (survey !== undefined && survey.systemIdentifier !== facts.system_identifier) {
      warnings.push(
        `The archive is of another server (system identifier ${survey.systemIdentifier}): after initdb or pg_upgrade give this entity a new source_id.`,
      );
    }
    if (facts.standby) return { server_role: 'standby' };
    const [row] = await session.query<{ lag: string | null }>(
      'SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), $1::pg_lsn)::text AS lag',
      [newest?.lsn ?? null],
    );
    const lag = row?.lag == null ? null : Math.max(0, Number(row.lag));
    const [slot] = await session.query<{ active: boolean; status: string | null; retained: string | null }>(
      `SELECT active, wal_status AS status, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::text AS retained
       FROM pg_replication_slots WHERE slot_name = $1`,
      [this.slot()],
    );
    if (entity.wal?.method === 'receive') {
      if (slot?.active !== true)
        warnings.push('Nothing receives the log now: start holdfast wal receive for this entity.');
      if (slot !== undefined && facts.keep_size < 0) {
        warnings.push('max_slot_wal_keep_size is not set: a receiver that stays away fills the disk of the server.');
      }
      if (slot?.status === 'lost') warnings.push('The slot is lost: log that was not received yet is gone.');
    }
    const archiver = await readArchiver(session);
    if (entity.wal?.method === 'archive') warnings.push(...(await this.#archiverWarnings(archiver)));
    return {
      lag_bytes: lag,
      slot:
        slot === undefined
          ? null
          : {
              name: this.slot(),
              active: slot.active,
              wal_status: slot.status,
              retained_bytes: slot.retained === null ? null : Number(slot.retained),
            },
      archiver: { ...archiver, command: archiver.command === null ? null : cleanText(archiver.command) },
    };
  }

  async #archiverWarnings(archiver: Archiver): Promise<string[]> {
    if (archiver.mode === 'off') return ['archive_mode is off: set it to on, which needs a restart of the server.'];
    const { last_archived: last } = archiver;
    if (last !== null && parseWalName(last)?.kind === 'segment' && !(await this.archive().has(last))) {
      return [
        `The server says that ${last} was archived, and it is not in the storage of this entity: archive_command succeeds without archiving here.`,
      ];
    }
    if (archiver.last_failed !== null && archiver.last_failed > (last ?? '')) {
      return [`The server could not archive ${archiver.last_failed} and keeps it; its log says why.`];
    }
    return [];
  }

  // --- check-wal -----------------------------------------------------------------------------------------------------

  /**
   * Proves that what the server writes now reaches the archive: has it begin a new segment and waits for the old one. Where
   * it does not come, says what the server believes.
   */
  async check(
    scope: Scope,
    physical: readonly Backup<PhysicalManifest>[],
    timeoutSeconds = DEFAULT_CHECK_SECONDS,
  ): Promise<WalCheck> {
    const { runtime } = this.#host;
    const archive = this.archive();
    return withSession(await this.#host.connection(), scope.signal, async (session) => {
      const facts = await readFacts(session);
      if (facts.standby) {
        throw new HoldfastError('INVALID_STATE', 'the server is a standby, which writes no log of its own', {
          retryable: false,
          hint: 'Point the entity at the primary.',
        });
      }
      const source = await archive.source();
      if (source !== undefined && source.system_identifier !== facts.system_identifier) {
        throw new HoldfastError('INTEGRITY_FAILED', 'the archive holds the log of another server', {
          hint: 'Nothing was written. After initdb or pg_upgrade give the entity a new source_id.',
        });
      }
      const segments = new Segments(facts.segment_size);
      const lsn = await this.#switch(session);
      // The answer is where the old segment ends, so the byte before is in it.
      const segment = segments.name(facts.timeline, segments.of(lsn - 1n));
      const began = performance.now();
      const seconds = (): number => Math.round((performance.now() - began) / 10) / 100;
      let problem: string | undefined;
      while (!(await archive.has(segment))) {
        problem = await this.#unattended(session);
        if (problem === undefined && seconds() >= timeoutSeconds) {
          problem = this.#notArchived(segment, timeoutSeconds, await readArchiver(session));
        }
        if (problem !== undefined) break;
        scope.progress?.({ message: `Waiting for ${segment} in the storage` });
        await runtime.sleep(LOOK_MS, scope.signal);
      }
      const isArchived = problem === undefined;
      const seen_after_seconds = isArchived ? seconds() : null;
      const survey = await archive.survey();
      const gaps = survey === undefined ? [] : holesIn(survey, oldestNeeded(physical, survey.segments));
      return {
        archived: isArchived,
        segment,
        seen_after_seconds,
        ...(problem === undefined ? {} : { problem }),
        switched_lsn: formatLsn(lsn),
        gaps: gaps.slice(0, MOST_NAMED),
        warnings: [
          ...(gaps.length === 0
            ? []
            : ['The archive has holes: backups from before them reach no further. Take a new one.']),
          ...(physical.length > 0 ? [] : ['There is no physical backup yet, which recovery to a moment begins with.']),
        ],
      };
    });
  }

  async #switch(session: Session): Promise<bigint> {
    this.#host.runtime.assertMayWrite('beginning a new segment of the write-ahead log');
    try {
      // A segment in which nothing was written is not switched.
      await session.query("SELECT pg_logical_emit_message(true, 'holdfast', 'check-wal')");
      const [row] = await session.query<{ lsn: string }>('SELECT pg_switch_wal()::text AS lsn');
      return parseLsn(row?.lsn ?? '');
    } catch (cause) {
      const error = asHoldfastError(cause);
      if (error.code !== 'INSUFFICIENT_PERMISSIONS') throw error;
      throw new HoldfastError('INSUFFICIENT_PERMISSIONS', 'the role may not begin a new segment of the log', {
        hint: 'As a superuser, in the database of this entity, run GRANT EXECUTE ON FUNCTION pg_switch_wal() TO its role.',
        cause,
      });
    }
  }

  /** What needs no waiting: nobody is there who would archive. */
  async #unattended(session: Session): Promise<string | undefined> {
    const [row] = await session.query<{ mode: string; active: boolean | null }>(
      `SELECT current_setting('archive_mode') AS mode,
         (SELECT active FROM pg_replication_slots WHERE slot_name = $1) AS active`,
      [this.slot()],
    );
    if (row?.mode !== 'off' || row.active === true) return undefined;
    const { wal, key } = this.#host.entity;
    return wal?.method === 'archive'
      ? 'archive_mode is off: set it to on, which needs a restart of the server.'
      : `Nothing archives this server: archive_mode is off, and no receiver reads the slot ${this.slot()}. Run holdfast wal receive --entity ${key}.`;
  }

  #notArchived(segment: string, timeoutSeconds: number, archiver: Archiver): string {
    const { wal, key } = this.#host.entity;
    const believed = archiver.last_archived;
    const why =
      wal?.method === 'receive'
        ? `See that holdfast wal receive --entity ${key} runs and what it logs.`
        : believed !== null && believed >= segment
          ? `The server believes that it archived ${believed}: archive_command says yes without storing here. Set it to: holdfast wal push --entity ${key} %p`
          : archiver.last_failed !== null
            ? `The server failed to archive ${archiver.last_failed}, ${archiver.failed_count} times so far; its log has the reason.`
            : `See that archive_command is: holdfast wal push --entity ${key} %p`;
    return `The segment did not reach the storage within ${timeoutSeconds} s: what is written now cannot be recovered. ${why}`;
  }
}

async function readArchiver(session: Session): Promise<Archiver> {
  const [row] = await session.query<Record<string, string | null>>(
    `SELECT current_setting('archive_mode') AS mode,
       (SELECT setting FROM pg_settings WHERE name = 'archive_command') AS command,
       last_archived_wal AS wal, to_json(last_archived_time)#>>'{}' AS at,
       CASE WHEN last_failed_time > coalesce(last_archived_time, '-infinity') THEN last_failed_wal END AS failed,
       failed_count::text AS failures
     FROM pg_stat_archiver`,
  );
  const at = row?.['at'];
  return {
    mode: row?.['mode'] ?? 'unknown',
    command: row?.['command'] ?? null,
    last_archived: row?.['wal'] ?? null,
    last_archived_at: at == null ? null : new Date(at).toISOString(),
    last_failed: row?.['failed'] ?? null,
    failed_count: Number(row?.['failures'] ?? 0),
  };
}

/** The last segment of the newest timeline, and where it ends. */
function newestOf({ runs, segments }: Survey): { name: string; lsn: string } | undefined {
  const timeline = Math.max(...runs.keys());
  const last = runs.get(timeline)?.at(-1)?.last;
  if (last === undefined) return undefined;
  return { name: segments.name(timeline, last), lsn: formatLsn(segments.start(last + 1)) };
}

/** The first segment that a backup needs; without a backup, every hole counts. */
function oldestNeeded(physical: readonly Backup<PhysicalManifest>[], segments: Segments): number {
  const starts = physical
    .filter(({ manifest }) => manifest.wal.segment_size === segments.size)
    .map(({ manifest }) => segments.parse(manifest.wal.start_segment).number);
  return starts.length === 0 ? 0 : Math.min(...starts);
}

function shownHole({ timeline, first_segment, last_segment, segments }: Hole): JsonObject {
  return { timeline, first_segment, last_segment, segments };
}

function isFresh(status: ReceiverStatus, now: Date): boolean {
  if (status.state === 'stopped' || now.getTime() - Date.parse(status.updated_at) > SILENT_MS) return false;
  if (status.host !== hostname()) return true;
  try {
    process.kill(status.pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function receiverWarnings(status: ReceiverStatus | undefined, isRunning: boolean): string[] {
  if (status === undefined) return [];
  if (isRunning) return status.alarms.map((alarm) => cleanText(alarm, 500));
  return status.state === 'stopped'
    ? [`The receiver was stopped at ${cleanText(status.updated_at, 40)}.`]
    : [`The receiver has said nothing since ${cleanText(status.updated_at, 40)}: it was killed, or its machine was.`];
}

/** What the ends of segments are, from a file; a file that cannot be read is no loss. */
export async function openCache(path: string): Promise<EndCache & { save(): Promise<void> }> {
  const known = new Map<string, SegmentEnd>(
    await readFile(path, 'utf8').then(
      (text) => JSON.parse(text) as [string, SegmentEnd][],
      () => [],
    ),
  );
  let isChanged = false;
  return {
    get: (segment) => known.get(segment),
    set(segment, end) {
      known.set(segment, end);
      isChanged = true;
    },
    async save() {
      if (!isChanged) return;
      const temporary = `${path}.${process.pid}`;
      await writeFile(temporary, JSON.stringify([...known].slice(-CACHED_ENDS)), { mode: 0o600 });
      await rename(temporary, path);
    },
  };
}
