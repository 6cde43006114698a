import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { HoldfastError } from '../core/errors.ts';
import type { Binaries } from './binaries.ts';
import { startChild } from './child.ts';
import type { PhysicalManifest } from './manifest.ts';
import type { Backup } from './repository.ts';
import type { Keys } from './seal.ts';
import type { Survey } from './wal-archive.ts';
import { type Reach, reachOf } from './wal-reach.ts';

/** The last that one segment tells. */
export interface SegmentEnd {
  /** Where the last whole record of the segment begins; null where none begins and ends in it. */
  readonly record_lsn: string | null;
  /** The last commit, in the server's own time, with microseconds. */
  readonly commit_at: string | null;
  readonly commit_lsn: string | null;
}

/** Keeps what segments tell, since they never change. */
export interface EndCache {
  get(segment: string): SegmentEnd | undefined;
  set(segment: string, end: SegmentEnd): void;
}

/** A stretch of time and log that a backup can be recovered to, with its end in time. */
export interface RecoveryWindow extends Reach {
  /** Where the last whole record begins: a target for "latest" that is certain to be reached. Null where nothing told. */
  readonly last_record_lsn: string | null;
  /**
   * The last commit inside. A target in time must lie before it: PostgreSQL ends with an error where no later commit
   * follows. Null where it is not known, or nothing was committed since the backup.
   */
  readonly last_commit_at: string | null;
  readonly last_commit_lsn: string | null;
}

/** How many segments without a commit are looked through before the end in time stays unknown. */
const LOOK_BACK = 64;

/** An archive as far as the search for its end needs one. */
export interface SegmentSource {
  /** Writes a segment, whole, to a path; false where the archive does not have it. */
  get(
    name: string,
    target: string,
    options: { readonly keys: Keys; readonly partial?: boolean | undefined; readonly signal?: AbortSignal | undefined },
  ): Promise<boolean>;
  has(name: string): Promise<boolean>;
  /** The sum of a segment where the archive keeps one apart; it is stored before the segment. */
  sumOf(name: string): Promise<string | undefined>;
}

/** Reads segments of an archive by pg_waldump. */
export interface EndReader {
  readonly archive: SegmentSource;
  readonly keys: Keys;
  /** Of the server's own major version. */
  readonly binaries: Pick<Binaries, 'directory'>;
  /** A private directory for temporary files. */
  readonly directory: string;
  readonly cache?: EndCache | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Says what one archived segment ends with; undefined where the archive has none of this name.
 * @throws {HoldfastError} NOT_SUPPORTED without pg_waldump; what opening the segment throws
 */
export async function readSegmentEnd(
  reader: EndReader,
  segment: string,
  partial = false,
): Promise<SegmentEnd | undefined> {
  const known = partial ? undefined : reader.cache?.get(segment);
  if (known !== undefined) return known;
  const folder = await mkdtemp(join(reader.directory, 'wal-end-'));
  try {
    const path = join(folder, segment);
    const { keys, signal } = reader;
    if (!(await reader.archive.get(segment, path, { keys, signal, partial }))) return undefined;
    const end = await dumpEnd(join(reader.binaries.directory, 'pg_waldump'), path, signal);
    if (!partial) reader.cache?.set(segment, end);
    return end;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function dumpEnd(program: string, path: string, signal: AbortSignal | undefined): Promise<SegmentEnd> {
  const child = startChild(program, [path], { env: { LC_ALL: 'C', TZ: 'UTC' }, signal });
  let record_lsn: string | null = null;
  let commit_at: string | null = null;
  let commit_lsn: string | null = null;
  try {
    for await (const line of createInterface({ input: child.stdout, crlfDelay: Number.POSITIVE_INFINITY })) {
      const lsn = /\blsn: ([0-9A-F]+\/[0-9A-F]+), prev /.exec(line)?.[1];
      if (lsn === undefined) continue;
      record_lsn = short(lsn);
      const time = /desc: COMMIT(?:_PREPARED)? (?:gid [^:]*: )?(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?) UTC/.exec(
        line,
      );
      if (!time) continue;
      commit_lsn = record_lsn;
      commit_at = `${time[1]}T${time[2]}Z`;
    }
    // It ends with a complaint where the next segment would have to be read; what it found stands.
    const { code } = await child.ended;
    signal?.throwIfAborted();
    if (code === null) await child.succeed();
  } catch (cause) {
    if (!(cause instanceof HoldfastError && cause.code === 'NOT_SUPPORTED')) throw cause;
    throw new HoldfastError(
      'NOT_SUPPORTED',
      'pg_waldump cannot be started, which tells the last commit in the archive',
      {
        hint: "Install the server package of the server's major version (it holds pg_waldump), or name its directory in bin_dir.",
        cause,
      },
    );
  } finally {
    await child.stop();
  }
  return { record_lsn, commit_at, commit_lsn };
}

/** `0/01A2B3C8` as the server itself writes it. */
function short(lsn: string): string {
  return lsn
    .split('/')
    .map((part) => part.replace(/^0+(?=.)/, ''))
    .join('/');
}

/**
 * Gives everywhere that the physical backups can be recovered to, newest backup first. The archive's listing decides what
 * is there, and the records in its last segments decide until when: no clock and no file time does.
 * @param reader leaves the ends in time unknown where it is undefined
 */
export async function recoveryWindows(
  survey: Survey,
  backups: readonly Backup<PhysicalManifest>[],
  reader: EndReader | undefined,
): Promise<RecoveryWindow[]> {
  const windows: RecoveryWindow[] = [];
  // Most backups end at the same segment.
  const ends = new Map<string, Promise<SegmentEnd>>();
  for (const { manifest } of backups) {
    if (manifest.wal.segment_size !== survey.segments.size) continue;
    if (![null, survey.systemIdentifier].includes(manifest.server.system_identifier)) continue;
    for (const reach of reachOf(manifest, survey)) {
      const end = reach.last_segment === null || reader === undefined ? undefined : reach.last_segment;
      if (end !== undefined && !ends.has(end)) ends.set(end, lastCommit(reader as EndReader, survey, reach));
      const last = end === undefined ? undefined : await ends.get(end);
      // A commit from before the backup was consistent says nothing about this window.
      const inside = last?.commit_at != null && Date.parse(last.commit_at) >= Date.parse(manifest.snapshot_at);
      windows.push({
        ...reach,
        last_record_lsn: last?.record_lsn ?? null,
        last_commit_at: inside ? (last?.commit_at ?? null) : null,
        last_commit_lsn: inside ? (last?.commit_lsn ?? null) : null,
      });
    }
  }
  return windows;
}

/** The last commit up to the end of a reach: idle servers archive many segments without one. */
async function lastCommit(reader: EndReader, survey: Survey, reach: Reach): Promise<SegmentEnd> {
  let record_lsn: string | null = null;
  const { segments, histories } = survey;
  const { timeline, number } = segments.parse(reach.last_segment as string);
  const lines = [timeline, ...(histories.get(timeline) ?? []).map((ancestor) => ancestor.timeline).reverse()];
  for (let at = number; at >= 0 && at > number - LOOK_BACK; at -= 1) {
    let end: SegmentEnd | undefined;
    for (const line of lines) end ??= await readSegmentEnd(reader, segments.name(line, at));
    if (end === undefined) break;
    record_lsn ??= end.record_lsn;
    if (end.commit_at !== null) return { ...end, record_lsn };
  }
  return { record_lsn, commit_at: null, commit_lsn: null };
}

/** Joins windows of one timeline that touch, as a person asks for them: from when to when is every moment reachable? */
export function mergedWindows(windows: readonly RecoveryWindow[]): { earliest_at: string; latest_at: string }[] {
  const known = windows
    .flatMap(({ from_at, last_commit_at }) =>
      last_commit_at === null ? [] : [{ earliest_at: from_at, latest_at: last_commit_at }],
    )
    .sort((a, b) => a.earliest_at.localeCompare(b.earliest_at));
  const merged: { earliest_at: string; latest_at: string }[] = [];
  for (const window of known) {
    const last = merged.at(-1);
    if (last === undefined || window.earliest_at > last.latest_at) merged.push({ ...window });
    else if (window.latest_at > last.latest_at) last.latest_at = window.latest_at;
  }
  return merged;
}
