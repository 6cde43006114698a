import { HoldfastError } from '../core/errors.ts';
import { digestOf } from '../core/json.ts';
import { cleanText } from '../core/text.ts';
import { isPhysical, type Manifest, type PhysicalManifest, timeOfId } from './manifest.ts';
import type { Backup, Catalogue, Unfinished } from './repository.ts';

/** The periods that backups are kept for, shortest first. */
export const TIERS = ['hourly', 'daily', 'weekly', 'monthly', 'quarterly', 'yearly'] as const;
export type Tier = (typeof TIERS)[number];

/** How many periods of each length keep a backup, and what else is promised. */
export interface RetentionPolicy extends Readonly<Record<Tier, number>> {
  /** Never fewer good backups of one kind than this. */
  readonly minimum: number;
  /** Days for which every moment stays reachable. */
  readonly pitr_days: number;
}

export const DEFAULT_RETENTION: RetentionPolicy = {
  hourly: 0,
  daily: 7,
  weekly: 4,
  monthly: 3,
  quarterly: 4,
  yearly: 0,
  minimum: 1,
  pitr_days: 0,
};

const DAY_MS = 24 * 3600 * 1000;
/** A safety backup is the way back from a restore, and damage is to be looked at: both wait for a person this long. */
const PATIENCE_MS = 7 * DAY_MS;
/** A directory without a manifest may be one that is being written. */
export const UNFINISHED_FOR_MS = DAY_MS;
/** How far the clocks of a server and of this machine may be apart. */
const SKEW_MS = 5 * 60 * 1000;

/** What becomes of one backup, with every reason for it. */
export interface Fate {
  readonly backup: Backup;
  readonly keep: boolean;
  readonly reasons: readonly string[];
}

export interface RetentionPlan {
  /** Newest first. */
  readonly fates: readonly Fate[];
  /** Directories without a manifest that nobody writes any more. */
  readonly unfinished: readonly Unfinished[];
  /** Which segments of the write-ahead log nothing needs; undefined where none may be deleted. */
  readonly wal: WalFloor | undefined;
  /** Whether so much goes that a person should look. */
  readonly sweeping: boolean;
  readonly warnings: readonly string[];
  /** Stays the same while the same things would be deleted. */
  readonly hash: string;
}

export interface RetentionInput extends Catalogue {
  readonly policy: RetentionPolicy;
  readonly now: Date;
  /** Ids of backups that are being restored or verified. */
  readonly inUse: ReadonlySet<string>;
}

/** Names the UTC period that a moment lies in; names of one tier sort by time. */
export function periodOf(tier: Tier, at: Date): string {
  const iso = at.toISOString();
  switch (tier) {
    case 'hourly':
      return iso.slice(0, 13);
    case 'daily':
      return iso.slice(0, 10);
    case 'weekly': {
      // The week belongs to the year that its Thursday lies in.
      const thursday = new Date(Date.UTC(at.getUTCFullYear(), at.getUTCMonth(), at.getUTCDate()));
      thursday.setUTCDate(thursday.getUTCDate() + 4 - (thursday.getUTCDay() || 7));
      const year = thursday.getUTCFullYear();
      const week = Math.ceil(((thursday.getTime() - Date.UTC(year, 0, 1)) / DAY_MS + 1) / 7);
      return `${year}-W${String(week).padStart(2, '0')}`;
    }
    case 'monthly':
      return iso.slice(0, 7);
    case 'quarterly':
      return `${iso.slice(0, 4)}-Q${Math.floor(at.getUTCMonth() / 3) + 1}`;
    case 'yearly':
      return iso.slice(0, 4);
  }
}

/**
 * Decides what a prune keeps and what it deletes; changes nothing. Calendar days are never counted from now: a backup goes
 * because newer ones have taken its place, so a pause of any length costs nothing.
 * @throws {HoldfastError} INVALID_STATE when the newest backup lies in the future: then the clock is wrong, or was
 */
export function planRetention(input: RetentionInput): RetentionPlan {
  const { policy, now, inUse } = input;
  const all = [...input.backups].sort(newestFirst);
  assertClock(input, all);
  const reasons = new Map<string, string[]>(all.map(({ manifest }) => [manifest.id, []]));
  const keep = (id: string, reason: string): void => void reasons.get(id)?.push(reason);
  const faults = faultsOf(all);
  const warnings: string[] = [];

  for (const group of groupsOf(all)) {
    const good = group.filter(({ manifest }) => !faults.has(manifest.id));
    if (good.length === 0) {
      for (const { manifest } of group) keep(manifest.id, 'there is no better one');
      continue;
    }
    keep(good[0]!.manifest.id, 'the newest');
    const verified = good.find(({ verifiedAt }) => verifiedAt !== undefined);
    if (verified) keep(verified.manifest.id, 'the newest that was restored and compared');
    if (policy.minimum > 1) {
      for (const { manifest } of good.slice(0, policy.minimum)) keep(manifest.id, `among the newest ${policy.minimum}`);
    }
    for (const tier of TIERS) {
      const keepers = new Map<string, string>();
      for (const { manifest } of good) {
        const period = periodOf(tier, new Date(manifest.snapshot_at));
        if (!keepers.has(period)) keepers.set(period, manifest.id);
      }
      const periods = [...keepers.keys()].sort().reverse().slice(0, policy[tier]);
      for (const period of periods) keep(keepers.get(period)!, `${tier} ${period}`);
    }
  }

  for (const { manifest, hold } of all) {
    if (hold) keep(manifest.id, `held: ${cleanText(hold.reason, 100)}`);
    if (inUse.has(manifest.id)) keep(manifest.id, 'it is being restored or verified');
    const age = now.getTime() - Date.parse(manifest.finished_at);
    if (manifest.trigger === 'safety' && age < PATIENCE_MS) keep(manifest.id, 'a safety backup younger than 7 days');
    if (faults.has(manifest.id) && age < PATIENCE_MS) keep(manifest.id, 'younger than 7 days, to be looked at');
  }
  for (const id of basesFor(policy.pitr_days, all.filter(isPhysical), faults, now)) {
    keep(id, `for every moment of the last ${policy.pitr_days} days`);
  }
  if (input.unreadable.length > 0) {
    warnings.push(
      `The manifest of ${listed(input.unreadable)} cannot be read: nothing of it is deleted here; delete-snapshot does.`,
    );
    // It could be an incremental one that rests on any that is older.
    const newest = input.unreadable
      .filter((id) => id.includes('-physical-'))
      .sort()
      .at(-1);
    for (const { manifest } of all.filter(isPhysical)) {
      if (newest !== undefined && manifest.id < newest)
        keep(manifest.id, 'one whose manifest is unreadable may rest on it');
    }
  }
  keepParents(all, reasons);

  const fates = all.map((backup): Fate => {
    const { id } = backup.manifest;
    const own = reasons.get(id)!;
    const fault = faults.get(id);
    const why = fault === undefined ? 'newer ones have taken its place in every period' : fault;
    return { backup, keep: own.length > 0, reasons: own.length > 0 ? own : [why] };
  });
  const unfinished = input.unfinished.filter(
    ({ active_at }) => now.getTime() - active_at.getTime() >= UNFINISHED_FOR_MS,
  );
  const wal = input.unreadable.some((id) => id.includes('-physical-'))
    ? undefined
    : walFloor(
        fates.filter(({ keep: kept }) => kept).map(({ backup }) => backup),
        warnings,
      );
  return {
    fates,
    unfinished,
    wal,
    sweeping: isSweeping(fates),
    warnings,
    hash: digestOf({
      delete: fates.filter(({ keep: kept }) => !kept).map(({ backup }) => backup.manifest.id),
      unfinished: unfinished.map(({ id }) => id),
      wal: wal?.floors ?? null,
    }),
  };
}

/** Ids tell when a backup began, by the clock of this machine; within a second the moment of the data decides. */
function newestFirst({ manifest: a }: Backup, { manifest: b }: Backup): number {
  const seconds = compare(b.id.slice(0, 16), a.id.slice(0, 16));
  return seconds || compare(b.snapshot_at, a.snapshot_at) || compare(b.id, a.id);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function assertClock({ now, unreadable, unfinished }: RetentionInput, all: readonly Backup[]): void {
  const limit = now.getTime() + SKEW_MS;
  const late = [
    ...all
      .filter(({ manifest }) => Math.max(timeOf(manifest.id), Date.parse(manifest.snapshot_at)) > limit)
      .map(({ manifest }) => manifest.id),
    ...[...unreadable, ...unfinished.map(({ id }) => id)].filter((id) => timeOf(id) > limit),
  ];
  if (late.length === 0) return;
  throw new HoldfastError('INVALID_STATE', `the newest backup lies in the future: ${listed(late)}`, {
    retryable: false,
    hint: 'Nothing was deleted. The clock of this machine or of one that takes backups is wrong, or was: correct it. If the date of the backup is what is wrong, remove it with delete-snapshot.',
    details: { now: now.toISOString(), snapshots: late.slice(0, 10) },
  });
}

const timeOf = (id: string): number => timeOfId(id)?.getTime() ?? 0;

function listed(ids: readonly string[]): string {
  return `${ids.slice(0, 3).join(', ')}${ids.length > 3 ? ` and ${ids.length - 3} more` : ''}`;
}

/** Kinds are pruned apart; so are the databases of one server, of which safety backups may hold others. */
function groupsOf(all: readonly Backup[]): Backup[][] {
  const key = ({ manifest }: Backup): string =>
    manifest.kind === 'physical' ? 'physical' : `logical ${manifest.server.database}`;
  return [...Map.groupBy(all, key).values()];
}

/** What keeps a backup from being restored, by id: damage, or an incremental one without all that it rests on. */
function faultsOf(all: readonly Backup[]): ReadonlyMap<string, string> {
  const faults = new Map<string, string>();
  for (const { manifest, damage } of all) if (damage !== undefined) faults.set(manifest.id, 'it is damaged');
  const known = new Map(all.map(({ manifest }) => [manifest.id, manifest]));
  // A chain is as long as there are backups at most, also where somebody has tied it into a circle.
  const isWhole = (manifest: Manifest, left: number): boolean => {
    if (manifest.kind !== 'physical' || manifest.parent_id === undefined) return true;
    const parent = known.get(manifest.parent_id);
    return parent !== undefined && !faults.has(parent.id) && left > 0 && isWhole(parent, left - 1);
  };
  const broken = all.filter(({ manifest }) => !faults.has(manifest.id) && !isWhole(manifest, all.length));
  for (const { manifest } of broken) faults.set(manifest.id, 'a backup that it rests on is missing or damaged');
  return faults;
}

/**
 * The base backups that point-in-time recovery needs: the newest from before the promised days, and all within them, so
 * that neither a hole in the log nor a damaged base takes a moment away.
 */
function basesFor(
  days: number,
  physical: readonly Backup<PhysicalManifest>[],
  faults: ReadonlyMap<string, string>,
  now: Date,
): string[] {
  if (days === 0) return [];
  const begin = now.getTime() - days * DAY_MS;
  const good = physical.filter(({ manifest }) => !faults.has(manifest.id));
  const within = good.filter(({ manifest }) => Date.parse(manifest.snapshot_at) > begin);
  const before = good.filter(({ manifest }) => Date.parse(manifest.snapshot_at) <= begin);
  before.sort((a, b) => compare(b.manifest.snapshot_at, a.manifest.snapshot_at));
  return [...within, ...before.slice(0, 1)].map(({ manifest }) => manifest.id);
}

/** Keeps what kept incremental backups rest on, damaged or not: only a person decides that a chain is lost. */
function keepParents(all: readonly Backup[], reasons: ReadonlyMap<string, string[]>): void {
  const known = new Map(all.map(({ manifest }) => [manifest.id, manifest]));
  const follow = all.map(({ manifest }) => manifest).filter(({ id }) => reasons.get(id)!.length > 0);
  for (let manifest = follow.pop(); manifest; manifest = follow.pop()) {
    const parent = manifest.kind === 'physical' ? known.get(manifest.parent_id ?? '') : undefined;
    if (parent === undefined) continue;
    const own = reasons.get(parent.id)!;
    const isNew = own.length === 0;
    if (!own.some((reason) => reason.endsWith('rests on it'))) own.push(`${manifest.id} rests on it`);
    if (isNew) follow.push(parent);
  }
}

/** More than half of one kind, or all of it but one. */
function isSweeping(fates: readonly Fate[]): boolean {
  const kinds = Map.groupBy(fates, ({ backup }) => isPhysical(backup));
  return [...kinds.values()].some((kind) => {
    const gone = kind.filter(({ keep }) => !keep).length;
    return gone > 0 && (gone * 2 > kind.length || kind.length - gone <= 1);
  });
}

/** The first segment of each timeline that something kept may need. */
export interface WalFloor {
  /** Numbers of segments, without the timeline, by timeline. */
  readonly floors: readonly { readonly timeline: number; readonly segment: string }[];
}

function walFloor(kept: readonly Backup[], warnings: string[]): WalFloor | undefined {
  const bases = kept.filter(isPhysical).map(({ manifest }) => manifest);
  if (bases.length === 0) return undefined;
  const servers = new Set(bases.map(({ server }) => server.system_identifier));
  const sizes = new Set(bases.map(({ wal }) => wal.segment_size));
  if (servers.size > 1 || sizes.size > 1) {
    // Segments of two servers may have the same names.
    warnings.push(
      'The physical backups are of more than one server, so none of the write-ahead log is deleted until those of the old one are gone.',
    );
    return undefined;
  }
  const timelines = [...new Set(bases.map(({ wal }) => wal.timeline))].sort((a, b) => a - b);
  return {
    floors: timelines.map((timeline) => ({
      timeline,
      // A recovery from an older timeline passes through this one from where it branched off, before its own first base.
      segment: bases
        .filter(({ wal }) => wal.timeline <= timeline)
        .map(({ wal }) => wal.start_segment.slice(8))
        .sort()[0]!,
    })),
  };
}

/** Tells whether nothing that is kept needs a segment, by its name of 24 characters. */
export function isSpent({ floors }: WalFloor, segment: string): boolean {
  const timeline = Number.parseInt(segment.slice(0, 8), 16);
  const floor = floors.findLast((one) => one.timeline <= timeline);
  // Of a timeline before all that is kept, what lies before every base is spent.
  const lowest = floor?.segment ?? floors.map((one) => one.segment).sort()[0];
  return lowest !== undefined && segment.slice(8) < lowest;
}
