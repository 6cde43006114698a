import { type FSWatcher, watch } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { asHoldfastError, HoldfastError, isAbort } from '../core/errors.ts';
import type { JsonObject } from '../core/json.ts';
import type { Runtime } from '../core/runtime.ts';
import { cleanText } from '../core/text.ts';
import { formatBytes } from '../core/time.ts';
import { type Child, runChild, startChild } from './child.ts';
import { type Connection, openSession, type Session } from './connection.ts';
import { toPostgresError } from './errors.ts';
import { parseWalName, Segments, timelineName } from './wal.ts';
import { hashOf, type StoreOptions, type WalArchive } from './wal-archive.ts';
import { withPrograms } from './work.ts';

export interface ReceiveOptions {
  readonly runtime: Pick<Runtime, 'now' | 'random' | 'sleep' | 'log' | 'workDirectory' | 'assertMayWrite'>;
  readonly connection: Connection;
  readonly archive: WalArchive;
  readonly storing: Pick<StoreOptions, 'sealing' | 'level'>;
  /** Directory of pg_receivewal. */
  readonly binDirectory: string;
  readonly slot: string;
  /** Created with mode 0700. What waits here is on the server's own word safe, so it must survive a restart. */
  readonly spool: string;
  readonly partialEverySeconds: number;
  readonly spoolLimitBytes: number;
  /** Where others read how it goes. */
  readonly statusFile: string;
  /** What the source is called in the storage. */
  readonly sourceName: string;
  /** Ends it, once what is finished has been stored or `drainMs` are over. */
  readonly signal: AbortSignal;
  /** How long a storage may take for that before the rest is left in the spool; 20 seconds when left out. */
  readonly drainMs?: number | undefined;
  /** Told when something has happened; for whoever watches. */
  readonly seen?: ((event: 'streaming' | 'stored' | 'partial' | 'disconnected' | 'store_failed') => void) | undefined;
}

/** How a receiver stands, as it last wrote it down. */
export interface ReceiverStatus {
  readonly pid: number;
  readonly host: string;
  readonly source_id: string;
  readonly slot: string;
  readonly state: 'connecting' | 'streaming' | 'stopped';
  readonly started_at: string;
  readonly updated_at: string;
  /** Since this process began. */
  readonly stored_segments: number;
  readonly last_segment: string | null;
  readonly last_stored_at: string | null;
  readonly spool_files: number;
  readonly spool_bytes: number;
  readonly store_failing_since: string | null;
  readonly slot_retained_bytes: number | null;
  readonly slot_wal_status: string | null;
  readonly alarms: readonly string[];
}

/** What a receiver did until it was ended. */
export interface ReceiveSummary {
  readonly stored_segments: number;
  readonly last_segment: string | null;
  /** Files that could not be stored; the next receiver finds them. */
  readonly left_in_spool: number;
}

const TIMELINES_AHEAD = 8;
const LOCK = 'holdfast wal receive ';
const MARKER = '.holdfast-source';
const LOOK_MS = 2000;
const HEARTBEAT_MS = 10_000;
const DRAIN_MS = 20_000;
const STARTING_MS = 250;
const REPEAT_ALARM_MS = 300_000;
const LONGEST_PAUSE_MS = 30_000;

/**
 * Streams the log of a server into its archive until the signal: pg_receivewal writes into the spool, and what it has
 * finished is sealed, stored and only then removed. A store or a server that fails is tried again for ever, with alarms.
 * @throws {HoldfastError} what no waiting mends: INVALID_STATE on a standby, on an older timeline than the archive's, or
 * while another receiver runs; INTEGRITY_FAILED for another server; AUTHENTICATION_FAILED, INSUFFICIENT_PERMISSIONS
 */
export async function receiveWal(options: ReceiveOptions): Promise<ReceiveSummary> {
  return new Receiver(options).run();
}

/** Reads the status that a receiver wrote; undefined where none ever did. */
export async function readReceiverStatus(path: string): Promise<ReceiverStatus | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as ReceiverStatus;
  } catch {
    return undefined;
  }
}

/** A pause that ends early when something happens. */
class Bell {
  #ring = (): void => {};
  #rung = false;

  ring(): void {
    this.#rung = true;
    this.#ring();
  }

  async wait(pause: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const early = new AbortController();
    this.#ring = () => early.abort();
    if (!this.#rung) {
      await pause(early.signal).catch((cause: unknown) => {
        if (!early.signal.aborted) throw cause;
      });
    }
    this.#rung = false;
  }
}

class Receiver {
  readonly #options: ReceiveOptions;
  readonly #bell = new Bell();
  /** Stored, and kept in the spool so that pg_receivewal knows where to go on. */
  readonly #kept = new Set<string>();
  readonly #alarms = new Map<string, { text: string; told: number }>();
  readonly #startedAt: string;
  #segments: Segments | undefined;
  #state: ReceiverStatus['state'] = 'connecting';
  #stored = 0;
  #lastSegment: string | null = null;
  #lastStoredAt: string | null = null;
  #spool = { files: 0, bytes: 0 };
  #failingSince: string | null = null;
  #retained: { bytes: number | null; status: string | null } = { bytes: null, status: null };
  #partialSeen: { name: string; digest: string } | undefined;
  #partialAt = Number.NEGATIVE_INFINITY;
  #hasPartial: string | undefined;
  #draining = false;
  readonly #gaveUp = new AbortController();
  readonly #storing: StoreOptions;

  constructor(options: ReceiveOptions) {
    this.#options = options;
    this.#storing = { ...options.storing, signal: this.#gaveUp.signal };
    this.#startedAt = options.runtime.now().toISOString();
  }

  async run(): Promise<ReceiveSummary> {
    const { signal, runtime } = this.#options;
    runtime.assertMayWrite('receiving the write-ahead log');
    await this.#openSpool();
    // The storing goes on a little after the receiving has ended. A storage that hangs must not keep the process: whoever
    // stops it would kill it in the end, and the spool is as good a place.
    const over = new AbortController();
    let patience: NodeJS.Timeout | undefined;
    const lose = (): void => {
      patience = setTimeout(() => this.#gaveUp.abort(), this.#options.drainMs ?? DRAIN_MS);
    };
    if (signal.aborted) lose();
    else signal.addEventListener('abort', lose, { once: true });
    const storing = this.#storeLoop(over.signal);
    try {
      await this.#receiveLoop(signal);
    } finally {
      this.#draining = true;
      over.abort();
      await storing;
      const may = this.#segments !== undefined && !this.#gaveUp.signal.aborted;
      if (may) await this.#storeAll(true).catch((cause) => this.#storeFailed(cause));
      signal.removeEventListener('abort', lose);
      clearTimeout(patience);
      await this.#measure(await readdir(this.#options.spool));
      this.#state = 'stopped';
      await this.#writeStatus();
    }
    return { stored_segments: this.#stored, last_segment: this.#lastSegment, left_in_spool: this.#spool.files };
  }

  async #openSpool(): Promise<void> {
    const { spool, archive } = this.#options;
    await mkdir(spool, { recursive: true, mode: 0o700 });
    const marker = join(spool, MARKER);
    const { sourceId } = archive.repository;
    await writeFile(marker, `${sourceId}\n`, { flag: 'wx', mode: 0o600 }).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code !== 'EEXIST') throw cause;
    });
    if ((await readFile(marker, 'utf8')).trim() !== sourceId) {
      throw new HoldfastError('CONFIG_INVALID', 'the spool directory belongs to another source', {
        hint: 'Give each entity a directory of its own in wal.spool.',
      });
    }
  }

  // --- receiving -----------------------------------------------------------------------------------------------------

  async #receiveLoop(signal: AbortSignal): Promise<void> {
    let pause = 1000;
    let isFirst = true;
    while (!signal.aborted) {
      const began = performance.now();
      try {
        await this.#receiveOnce(signal, isFirst);
      } catch (cause) {
        if (signal.aborted || isAbort(cause)) break;
        const error = toPostgresError(cause);
        if (isLasting(error, isFirst)) throw error;
        this.#alarm('server', `The log is not being received (${error.code}): ${error.message}. ${error.hint}`);
        this.#options.seen?.('disconnected');
      }
      if (signal.aborted) break;
      isFirst = false;
      this.#state = 'connecting';
      await this.#writeStatus();
      if (performance.now() - began > LONGEST_PAUSE_MS) pause = 1000;
      await this.#options.runtime.sleep(pause, signal).catch(() => {});
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    }
  }

  async #receiveOnce(signal: AbortSignal, isFirst: boolean): Promise<void> {
    const { connection, slot, spool, binDirectory, runtime } = this.#options;
    const session = await openSession(connection, signal);
    try {
      await this.#lock(session, isFirst);
      await this.#prepare(session);
      await withPrograms({ runtime }, connection, async (programs) => {
        const program = join(binDirectory, 'pg_receivewal');
        await runChild(program, [`--slot=${slot}`, '--create-slot', '--if-not-exists', '--no-password'], programs);
        // Without its own loop, so that every interruption is ours to judge.
        const child = startChild(
          program,
          ['-D', spool, `--slot=${slot}`, '--synchronous', '--no-loop', '--no-password', '--status-interval=1'],
          programs,
        );
        child.stdout.resume();
        await this.#untilEnded(child, session, signal);
      });
    } finally {
      await session.close();
    }
  }

  /** Watches the slot until pg_receivewal ends by itself or is told to. */
  async #untilEnded(child: Child, session: Session, signal: AbortSignal): Promise<void> {
    const ended = new AbortController();
    void child.ended.then(() => ended.abort());
    const interrupt = (): void => {
      try {
        // INT ends it after it has written and reported what it got.
        process.kill(child.pid, 'SIGINT');
      } catch {
        // It is gone already.
      }
    };
    signal.addEventListener('abort', interrupt, { once: true });
    if (signal.aborted) interrupt();
    try {
      while (!ended.signal.aborted && !signal.aborted) {
        // A connection that is lost shows at pg_receivewal too, which then ends.
        const isActive = await this.#watchSlot(session).catch(() => false);
        if (isActive && this.#state !== 'streaming') {
          this.#state = 'streaming';
          this.#settle('server');
          this.#options.seen?.('streaming');
        }
        await this.#writeStatus();
        const pause = this.#state === 'streaming' ? HEARTBEAT_MS : STARTING_MS;
        await this.#options.runtime.sleep(pause, AbortSignal.any([ended.signal, signal])).catch(() => {});
      }
      await Promise.race([child.ended, afterGrace()]);
      if (!signal.aborted) {
        await this.#explain(child);
      }
    } finally {
      signal.removeEventListener('abort', interrupt);
      await child.stop();
    }
  }

  async #explain(child: Child): Promise<void> {
    try {
      await child.succeed();
    } catch (cause) {
      const text = String((cause as { cause?: { message?: unknown } }).cause?.message ?? '');
      if (!/has already been removed|has been invalidated|could not find/.test(text)) throw cause;
      await this.#giveUpBroken();
    }
    throw new HoldfastError('PROVIDER_UNAVAILABLE', 'pg_receivewal ended', { hint: 'It is started again.' });
  }

  /** The server does not have any more what comes next: go on with what it has, and say what is lost. */
  async #giveUpBroken(): Promise<void> {
    const { spool, archive } = this.#options;
    for (const name of await readdir(spool)) {
      if (parseWalName(name)?.kind !== 'partial') continue;
      await archive.putPartial(join(spool, name), this.#storing);
      await rm(join(spool, name), { force: true });
    }
    for (const name of this.#kept) await rm(join(spool, name), { force: true });
    this.#kept.clear();
    this.#alarm(
      'gap',
      `The server has removed log that was not received yet: after ${this.#lastSegment ?? 'the last segment in the archive'} there is a hole that nothing can fill. Take a physical backup now: recovery to any moment is possible again from then on.`,
    );
  }

  async #lock(session: Session, isFirst: boolean): Promise<void> {
    const { archive } = this.#options;
    const [row] = await session.query<{ locked: boolean }>(
      'SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS locked',
      [`${LOCK}${archive.repository.sourceId}`],
    );
    if (row?.locked === true) return;
    throw new HoldfastError('INVALID_STATE', 'another receiver takes the write-ahead log of this server already', {
      retryable: !isFirst,
      hint: 'One is enough, and two would work against each other. Stop the other first: get-backup-info shows where it runs.',
    });
  }

  /** Looks at the server before anything is asked of it, and clears away what a receiver that was killed left there. */
  async #prepare(session: Session): Promise<void> {
    const { archive, slot, runtime, sourceName } = this.#options;
    const facts = await readFacts(session);
    if (facts.standby) {
      throw new HoldfastError('INVALID_STATE', 'the server is a standby', {
        retryable: false,
        hint: 'Nothing was received. Point the entity at the primary: what a standby streams ends where it is promoted.',
      });
    }
    if (facts.wal_level === 'minimal') {
      throw new HoldfastError('INVALID_STATE', 'wal_level is minimal: the log does not hold what recovery needs', {
        retryable: false,
        hint: 'Set wal_level = replica and restart the server.',
      });
    }
    await archive.claim(
      { system_identifier: facts.system_identifier, segment_size: facts.segment_size },
      sourceName,
      runtime.now(),
    );
    this.#segments = new Segments(facts.segment_size);
    this.#bell.ring();
    await this.#assertTimeline(facts.timeline);
    if (facts.keep_size < 0) {
      this.#alarm(
        'limit',
        'max_slot_wal_keep_size is not set: should this receiver stay away, its slot fills the disk of the server. Set it to what the disk can spare.',
      );
    } else this.#settle('limit');
    await this.#freeSlot(session, slot);
  }

  async #assertTimeline(timeline: number): Promise<void> {
    const { archive } = this.#options;
    let newest: number | undefined;
    // PostgreSQL numbers them one after the other; a look at the next few tells without listing the archive.
    for (let next = timeline + 1; next <= timeline + TIMELINES_AHEAD; next += 1) {
      if (await archive.has(`${timelineName(next)}.history`)) newest = next;
    }
    if (newest === undefined) return;
    throw new HoldfastError(
      'INVALID_STATE',
      `the server is on timeline ${timeline}, and the archive already has timeline ${newest}`,
      {
        retryable: false,
        hint: 'Nothing was received. Another server was promoted since: point the entity at that one, or, if this one is meant to go on, give it a source_id of its own.',
      },
    );
  }

  async #freeSlot(session: Session, slot: string): Promise<void> {
    const find = async () => {
      const [row] = await session.query<{
        pid: number | null;
        status: string | null;
        name: string | null;
        type: string;
      }>(
        `SELECT s.active_pid AS pid, s.wal_status AS status, r.application_name AS name, s.slot_type AS type
         FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = $1`,
        [slot],
      );
      return row;
    };
    let found = await find();
    if (found?.type === 'logical') {
      throw new HoldfastError('CONFIG_INVALID', `the slot ${slot} is a logical one`, {
        hint: 'Name another in wal.slot.',
      });
    }
    if (found?.pid != null) {
      if (found.name !== 'holdfast') {
        throw new HoldfastError('INVALID_STATE', `another program reads the slot ${slot}`, {
          hint: 'Name another slot in wal.slot, or stop the program that uses this one: pg_stat_replication shows it.',
        });
      }
      // We hold the lock of all receivers of this source: this is the child of one that was killed.
      await session.query('SELECT pg_terminate_backend($1)', [found.pid]);
      for (let tries = 0; tries < 100 && found?.pid != null; tries += 1) {
        await session.query('SELECT pg_sleep(0.05)');
        found = await find();
      }
    }
    if (found?.status === 'lost') {
      this.#options.runtime.log.error('the replication slot was lost, and is made anew', { slot });
      await session.query('SELECT pg_drop_replication_slot($1)', [slot]);
      await this.#giveUpBroken();
    }
  }

  async #watchSlot(session: Session): Promise<boolean> {
    const { slot, spoolLimitBytes } = this.#options;
    const [row] = await session.query<{ bytes: string | null; status: string | null; active: boolean }>(
      `SELECT active, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::text AS bytes, wal_status AS status
       FROM pg_replication_slots WHERE slot_name = $1`,
      [slot],
    );
    const bytes = row?.bytes == null ? null : Number(row.bytes);
    this.#retained = { bytes, status: row?.status ?? null };
    const isMuch = (bytes ?? 0) > spoolLimitBytes || row?.status === 'unreserved' || row?.status === 'lost';
    if (isMuch) {
      this.#alarm(
        'slot',
        `The slot ${slot} holds back ${formatBytes(bytes ?? 0)} of log on the server (${row?.status ?? 'unknown'}).`,
      );
    } else this.#settle('slot');
    return row?.active === true;
  }

  // --- storing -------------------------------------------------------------------------------------------------------

  async #storeLoop(over: AbortSignal): Promise<void> {
    const { spool, runtime } = this.#options;
    let watcher: FSWatcher | undefined;
    try {
      watcher = watch(spool, () => this.#bell.ring());
      watcher.on('error', () => {});
    } catch {
      // The look every two seconds is enough.
    }
    over.addEventListener('abort', () => this.#bell.ring(), { once: true });
    let pause = 0;
    while (!over.aborted) {
      await this.#bell.wait((early) => runtime.sleep(LOOK_MS, early));
      if (over.aborted) break;
      if (this.#segments === undefined) continue;
      try {
        await this.#storeAll(false);
        pause = 0;
        this.#storeWorks();
      } catch (cause) {
        this.#storeFailed(cause);
        pause = Math.min(Math.max(1000, pause * 2), LONGEST_PAUSE_MS);
        await runtime.sleep(pause, over).catch(() => {});
      }
    }
    watcher?.close();
  }

  /** Stores what is finished, oldest first, and the segment being written when its time has come. */
  async #storeAll(isLast: boolean): Promise<void> {
    const { spool, archive } = this.#options;
    const storing = this.#storing;
    const segments = this.#segments as Segments;
    const files = (await readdir(spool)).flatMap((name) => parseWalName(name) ?? []);
    await this.#measure(files.map(({ name }) => name));
    for (const { name } of files.filter(({ kind }) => kind === 'history')) {
      await archive.put(join(spool, name), storing);
      await rm(join(spool, name), { force: true });
    }
    // By position first: a segment goes before that of a later timeline with the same number.
    const byPosition = (a: string, b: string): number =>
      a.slice(8, 24).localeCompare(b.slice(8, 24)) || a.localeCompare(b);
    const ordered = files
      .filter(({ kind }) => kind === 'segment' || kind === 'partial')
      .map(({ name }) => name)
      .sort(byPosition);
    const newest = ordered.at(-1);
    for (const name of ordered.filter((candidate) => candidate.length === 24)) {
      if (!this.#kept.has(name)) {
        await this.#assertNoGap(segments, name);
        await archive.put(join(spool, name), storing);
        if (this.#hasPartial !== undefined) await archive.dropPartial(name);
        if (this.#hasPartial === name) this.#hasPartial = undefined;
        this.#stored += 1;
        this.#lastSegment = name;
        this.#lastStoredAt = this.#options.runtime.now().toISOString();
        this.#kept.add(name);
        this.#options.seen?.('stored');
      }
      // pg_receivewal goes on after the newest file in the spool; the last one stays until there is another.
      if (name === newest) continue;
      await rm(join(spool, name), { force: true });
      this.#kept.delete(name);
    }
    for (const name of ordered.filter((candidate) => candidate.length !== 24)) {
      await this.#storePartial(name, name === newest, isLast);
    }
    await this.#measure(await readdir(spool));
  }

  async #storePartial(name: string, isCurrent: boolean, isLast: boolean): Promise<void> {
    const { spool, archive, partialEverySeconds, runtime } = this.#options;
    const path = join(spool, name);
    const now = runtime.now().getTime();
    if (isCurrent && !isLast && now - this.#partialAt < partialEverySeconds * 1000) return;
    try {
      const digest = await hashOf(path);
      this.#partialAt = now;
      if (this.#partialSeen?.name !== name || this.#partialSeen.digest !== digest) {
        await archive.putPartial(path, this.#storing);
        this.#partialSeen = { name, digest };
        this.#hasPartial = name.slice(0, 24);
        this.#options.seen?.('partial');
      }
      // What a timeline that is over left unfinished stays in the archive under this name.
      if (!isCurrent) await rm(path, { force: true });
    } catch (cause) {
      // It was finished meanwhile; the next look finds the whole one.
      if (await isThere(path)) throw cause;
    }
  }

  /** Says so when the first segment of a run does not join what the archive has. */
  async #assertNoGap(segments: Segments, name: string): Promise<void> {
    const { timeline, number } = segments.parse(name);
    if (this.#stored > 0 || number === 0) return;
    const { archive } = this.#options;
    const before = segments.name(timeline, number - 1);
    let isEmpty = true;
    for await (const { file } of archive.list(timeline)) {
      if (file.kind !== 'segment' || file.name >= name) continue;
      isEmpty = false;
      break;
    }
    if (isEmpty || (await archive.has(before))) return;
    this.#alarm(
      'gap',
      `The archive has a hole before ${name}: take a physical backup now, older ones reach no further than it.`,
    );
  }

  async #measure(names: readonly string[]): Promise<void> {
    const { spool, spoolLimitBytes } = this.#options;
    let files = 0;
    let bytes = 0;
    for (const name of names) {
      if (parseWalName(name) === undefined || this.#kept.has(name)) continue;
      const found = await stat(join(spool, name)).catch(() => undefined);
      if (found === undefined) continue;
      bytes += found.size;
      if (!name.endsWith('.partial')) files += 1;
    }
    this.#spool = { files, bytes };
    if (bytes > spoolLimitBytes) {
      this.#alarm(
        'spool',
        `The spool holds ${files} finished segments, ${formatBytes(bytes)}: more than spool_limit_bytes.`,
      );
    } else this.#settle('spool');
  }

  #storeFailed(cause: unknown): void {
    const error = asHoldfastError(cause);
    const { runtime } = this.#options;
    this.#failingSince ??= runtime.now().toISOString();
    const left = `${this.#spool.files} finished segments wait in the spool and nothing is lost`;
    this.#alarm(
      'store',
      `The storage has taken nothing since ${this.#failingSince} (${error.code}): ${error.message}; ${left}. ${error.hint}`,
    );
    if (error.code === 'INTERNAL') runtime.log.error(error.message, { cause: String(error.cause ?? cause) });
    this.#options.seen?.('store_failed');
    if (!this.#draining) void this.#writeStatus();
  }

  #storeWorks(): void {
    if (this.#failingSince === null) return;
    this.#failingSince = null;
    this.#settle('store');
  }

  // --- telling -------------------------------------------------------------------------------------------------------

  /** Raises an alarm, and repeats it every five minutes while it lasts. */
  #alarm(kind: string, text: string): void {
    const now = this.#options.runtime.now().getTime();
    const known = this.#alarms.get(kind);
    const isDue = known === undefined || now - known.told >= REPEAT_ALARM_MS;
    this.#alarms.set(kind, { text, told: isDue ? now : known.told });
    if (!isDue) return;
    const { log } = this.#options.runtime;
    const fields: JsonObject = { source: this.#options.archive.repository.sourceId };
    if (kind === 'limit') log.warn(text, fields);
    else log.error(text, fields);
  }

  #settle(kind: string): void {
    if (this.#alarms.delete(kind) && kind !== 'limit') {
      this.#options.runtime.log.info('an alarm of the receiver is over', { alarm: kind });
    }
  }

  async #writeStatus(): Promise<void> {
    const { statusFile, archive, slot, runtime } = this.#options;
    const status: ReceiverStatus = {
      pid: process.pid,
      host: hostname(),
      source_id: archive.repository.sourceId,
      slot,
      state: this.#state,
      started_at: this.#startedAt,
      updated_at: runtime.now().toISOString(),
      stored_segments: this.#stored,
      last_segment: this.#lastSegment,
      last_stored_at: this.#lastStoredAt,
      spool_files: this.#spool.files,
      spool_bytes: this.#spool.bytes,
      store_failing_since: this.#failingSince,
      slot_retained_bytes: this.#retained.bytes,
      slot_wal_status: this.#retained.status,
      alarms: [...this.#alarms.values()].map(({ text }) => cleanText(text, 500)),
    };
    const temporary = `${statusFile}.${process.pid}`;
    try {
      await writeFile(temporary, `${JSON.stringify(status)}\n`, { mode: 0o600 });
      await rename(temporary, statusFile);
    } catch (cause) {
      runtime.log.warn('the status of the receiver cannot be written', { cause: String(cause) });
    }
  }
}

/** What waiting does not mend. Once it has streamed, the server may only be restarting or changing its mind. */
function isLasting(error: HoldfastError, isFirst: boolean): boolean {
  if (error.code === 'PROVIDER_UNAVAILABLE' || error.code === 'QUOTA_EXCEEDED') return false;
  return isFirst || !error.retryable;
}

function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

function afterGrace(): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, 10_000).unref();
  });
}

interface ServerFacts {
  readonly standby: boolean;
  readonly wal_level: string;
  readonly segment_size: number;
  readonly system_identifier: string;
  readonly timeline: number;
  /** Negative: no limit. */
  readonly keep_size: number;
}

/** Reads what an archive has to know of its server. */
export async function readFacts(session: Session): Promise<ServerFacts> {
  const [row] = await session.query<{ standby: boolean; wal_level: string; size: string; keep: string; id: string }>(`
    SELECT pg_is_in_recovery() AS standby, current_setting('wal_level') AS wal_level,
      (SELECT setting FROM pg_settings WHERE name = 'wal_segment_size') AS size,
      (SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS keep,
      (SELECT system_identifier::text FROM pg_control_system()) AS id`);
  // The checkpoint still names the old timeline for a while after a promotion.
  const [line] = row?.standby
    ? await session.query<{ line: string }>('SELECT timeline_id::text AS line FROM pg_control_checkpoint()')
    : await session.query<{ line: string }>(
        "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int8::text AS line",
      );
  return {
    standby: row?.standby === true,
    wal_level: row?.wal_level ?? 'unknown',
    segment_size: Number(row?.size),
    system_identifier: row?.id ?? '',
    timeline: Number(line?.line),
    keep_size: Number(row?.keep ?? -1),
  };
}
