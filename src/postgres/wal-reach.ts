import type { PhysicalManifest } from './manifest.ts';
import { formatLsn, parseLsn } from './wal.ts';
import type { Run, Survey } from './wal-archive.ts';

/** A stretch of one timeline on the way to another. */
interface Stretch {
  readonly timeline: number;
  /** The first segment that recovery takes from this timeline. */
  readonly first: number;
  /** The last one; undefined for the timeline that the way ends on. */
  readonly last: number | undefined;
}

/** Segments that are not there, first and last both included. */
export interface Hole {
  readonly timeline: number;
  readonly first_segment: string;
  readonly last_segment: string;
  readonly segments: number;
}

/** How far the log in the archive carries one backup, along one line of timelines. */
export interface Reach {
  readonly backup_id: string;
  /** The timeline that the last segment is on: what recovery_target_timeline must be. */
  readonly timeline: number;
  /** From here on the backup is consistent. */
  readonly from_lsn: string;
  readonly from_at: string;
  /** The end of the last segment without a hole before it: no target may lie behind it. */
  readonly to_lsn: string;
  /** The last such segment in the archive; null where the backup has only the log that it brought along. */
  readonly last_segment: string | null;
  /** The hole that ends it, where there is more behind one. */
  readonly hole?: Hole;
  /** A segment right behind the last one that was stored while it was being written. */
  readonly partial?: string;
}

/**
 * The way from an older timeline to a newer one, by the history file of the newer. Undefined where it does not lead there
 * or the history file is not in the archive.
 */
function wayTo(survey: Survey, from: number, start: bigint, to: number): Stretch[] | undefined {
  const { segments, histories } = survey;
  const first = segments.of(start);
  if (from === to) return [{ timeline: to, first, last: undefined }];
  const history = histories.get(to);
  const at = history?.findIndex(({ timeline }) => timeline === from) ?? -1;
  if (history === undefined || at < 0) return undefined;
  const way: Stretch[] = [];
  let begin = first;
  for (const { timeline, until } of history.slice(at)) {
    // A copy that was consistent only after its timeline had been left is not on this way.
    if (timeline === from && until < start) return undefined;
    // The segment that the switch lies in is taken from the newer timeline, which begins with a copy of it.
    const next = segments.of(until);
    if (next > begin) way.push({ timeline, first: begin, last: next - 1 });
    begin = Math.max(begin, next);
  }
  return [...way, { timeline: to, first: begin, last: undefined }];
}

/** The last segment of a stretch that is there without a hole before it; undefined where its first is missing. */
function lastOf(runs: readonly Run[] | undefined, stretch: Stretch): number | undefined {
  const run = runs?.find(({ first, last }) => first <= stretch.first && stretch.first <= last);
  if (run === undefined) return undefined;
  return stretch.last === undefined ? run.last : Math.min(run.last, stretch.last);
}

/** Gives everywhere that a backup can be recovered to with what the archive holds, the line that goes furthest first. */
export function reachOf(manifest: PhysicalManifest, survey: Survey): Reach[] {
  const { segments, runs, histories, partials } = survey;
  const { wal } = manifest;
  const end = parseLsn(wal.end_lsn);
  const start = segments.parse(wal.start_segment).number;
  // What the backup brought along is not needed from the archive.
  const own = wal.included ? segments.parse(wal.end_segment).number : undefined;
  const found = new Map<string, Reach>();
  for (const to of new Set([wal.timeline, ...runs.keys(), ...histories.keys()])) {
    if (to < wal.timeline) continue;
    const way = wayTo(survey, wal.timeline, end, to);
    if (way === undefined) continue;
    let last = own;
    let timeline = wal.timeline;
    let archived =
      own !== undefined && runs.get(timeline)?.some((run) => run.first <= own && own <= run.last)
        ? segments.name(timeline, own)
        : null;
    let hole: Hole | undefined;
    let partial: string | undefined;
    const whole = way.map((stretch, index) =>
      index === 0
        ? { ...stretch, first: own === undefined ? start : own + 1 }
        : { ...stretch, first: Math.max(stretch.first, (own ?? -1) + 1) },
    );
    for (const stretch of whole) {
      if (stretch.last !== undefined && stretch.last < stretch.first) continue;
      const reached = lastOf(runs.get(stretch.timeline), stretch);
      if (reached !== undefined) {
        last = reached;
        timeline = stretch.timeline;
        archived = segments.name(timeline, reached);
      }
      if (reached !== undefined && reached === stretch.last) continue;
      const missing = reached === undefined ? stretch.first : reached + 1;
      hole = holeAt(survey, stretch, missing, to);
      const next = segments.name(stretch.timeline, missing);
      if (partials.includes(next)) partial = next;
      break;
    }
    if (last === undefined) continue;
    const reach: Reach = {
      backup_id: manifest.id,
      timeline,
      from_lsn: wal.end_lsn,
      from_at: manifest.snapshot_at,
      to_lsn: formatLsn(segments.start(last + 1)),
      last_segment: archived,
      ...(hole === undefined ? {} : { hole }),
      ...(partial === undefined ? {} : { partial }),
    };
    // Lines that part only behind where the log ends are one.
    const key = `${timeline}/${last}`;
    const known = found.get(key);
    if (known?.hole === undefined) found.set(key, reach);
  }
  const position = (reach: Reach): bigint => parseLsn(reach.to_lsn);
  return [...found.values()].sort((a, b) => b.timeline - a.timeline || (position(b) > position(a) ? 1 : -1));
}

/** The hole that begins at a missing segment; undefined where nothing follows: then it has only not come yet. */
function holeAt({ segments, runs }: Survey, stretch: Stretch, missing: number, to: number): Hole | undefined {
  const behind = runs.get(stretch.timeline)?.find(({ first }) => first > missing);
  const next = behind?.first ?? (stretch.last === undefined ? undefined : stretch.last + 1);
  if (next === undefined) return undefined;
  if (behind === undefined && !runs.has(to)) return undefined;
  const last = stretch.last === undefined ? next - 1 : Math.min(next - 1, stretch.last);
  return hole(
    segments.name(stretch.timeline, missing),
    segments.name(stretch.timeline, last),
    stretch.timeline,
    last - missing + 1,
  );
}

function hole(first_segment: string, last_segment: string, timeline: number, segments: number): Hole {
  return { timeline, first_segment, last_segment, segments };
}

/** Gives the holes between the segments of each timeline, oldest first, from a segment number on. */
export function holesIn({ segments, runs }: Survey, from = 0): Hole[] {
  return [...runs].flatMap(([timeline, own]) =>
    own.slice(1).flatMap(({ first }, index) => {
      const begin = Math.max((own[index]?.last ?? first) + 1, from);
      if (begin >= first) return [];
      return [hole(segments.name(timeline, begin), segments.name(timeline, first - 1), timeline, first - begin)];
    }),
  );
}

/**
 * Proves that every segment from one to another is there, along the history of the second's timeline. Empty: no hole. A
 * missing history file leaves the way unknown, and counts as all of it missing.
 */
export function chainBetween(survey: Survey, from: string, to: string): Hole[] {
  const { segments, runs } = survey;
  const begin = segments.parse(from);
  const end = segments.parse(to);
  const way = wayTo(survey, begin.timeline, segments.start(begin.number), end.timeline);
  if (way === undefined) return [hole(from, to, end.timeline, Math.max(1, end.number - begin.number + 1))];
  return way.flatMap(({ timeline, first, last }) => {
    const until = Math.min(last ?? end.number, end.number);
    const holes: Hole[] = [];
    let next = first;
    for (const run of runs.get(timeline) ?? []) {
      if (run.last < next || run.first > until) continue;
      if (run.first > next) {
        holes.push(
          hole(segments.name(timeline, next), segments.name(timeline, run.first - 1), timeline, run.first - next),
        );
      }
      next = run.last + 1;
    }
    if (next <= until) {
      holes.push(hole(segments.name(timeline, next), segments.name(timeline, until), timeline, until - next + 1));
    }
    return holes;
  });
}
