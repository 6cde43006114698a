import { describe, expect, it } from 'vitest';
import type { LogicalManifest, Manifest, PhysicalManifest } from '../../src/postgres/manifest.ts';
import type { Backup, Catalogue } from '../../src/postgres/repository.ts';
import {
  DEFAULT_RETENTION,
  isSpent,
  periodOf,
  planRetention,
  type RetentionPlan,
  type RetentionPolicy,
  type Tier,
} from '../../src/postgres/retention.ts';
import { dice } from '../support/mutating-calls.ts';

const DAY = 24 * 3600 * 1000;
const NOW = new Date('2026-11-20T12:00:00Z');
const NONE: RetentionPolicy = { ...DEFAULT_RETENTION, daily: 0, weekly: 0, monthly: 0, quarterly: 0 };

interface Made {
  readonly kind?: Manifest['kind'];
  readonly database?: string;
  readonly trigger?: Manifest['trigger'];
  readonly damage?: string;
  readonly verified?: boolean;
  readonly held?: string;
  readonly parent?: string;
  readonly snapshotAt?: Date;
  readonly timeline?: number;
  readonly segment?: string;
  readonly system?: string;
}

let serial = 0;

/** A backup that began at a moment, with what is special about it. */
function backup(at: Date | string, made: Made = {}): Backup {
  const start = new Date(at);
  const { kind = 'logical', snapshotAt = start } = made;
  serial += 1;
  const id = `${start.toISOString().replace(/[-:]|\.\d+/g, '')}-${kind}-${serial.toString(36).padStart(6, '0')}`;
  const common = {
    id,
    kind,
    trigger: made.trigger ?? 'schedule',
    snapshot_at: snapshotAt.toISOString(),
    finished_at: start.toISOString(),
    server: { database: made.database ?? 'shop', system_identifier: made.system ?? '7' },
    payload: [{ bytes: 10 }],
  };
  const timeline = made.timeline ?? 1;
  const name = `${timeline.toString(16).toUpperCase().padStart(8, '0')}${(made.segment ?? '10').padStart(16, '0')}`;
  const wal = { timeline, start_segment: name, segment_size: 16 * 1024 * 1024 };
  const manifest =
    kind === 'physical'
      ? ({
          ...common,
          wal,
          ...(made.parent === undefined ? {} : { parent_id: made.parent }),
        } as unknown as PhysicalManifest)
      : (common as unknown as LogicalManifest);
  return {
    manifest,
    verifications: [],
    damage: made.damage,
    verifiedAt: made.verified === true ? start.toISOString() : undefined,
    hold:
      made.held === undefined
        ? undefined
        : { schema: 'holdfast.pg.hold/1', backup_id: id, reason: made.held, held_at: start.toISOString() },
  };
}

interface Given extends Partial<Catalogue> {
  readonly policy?: Partial<RetentionPolicy>;
  readonly now?: Date;
  readonly inUse?: readonly string[];
}

function plan(backups: readonly Backup[], given: Given = {}): RetentionPlan {
  return planRetention({
    backups,
    unfinished: given.unfinished ?? [],
    unreadable: given.unreadable ?? [],
    policy: { ...DEFAULT_RETENTION, ...given.policy },
    now: given.now ?? NOW,
    inUse: new Set(given.inUse ?? []),
  });
}

const idOf = ({ manifest }: Backup): string => manifest.id;
const kept = ({ fates }: RetentionPlan): string[] =>
  fates.filter(({ keep }) => keep).map(({ backup: { manifest } }) => manifest.id);
const deleted = ({ fates }: RetentionPlan): string[] =>
  fates.filter(({ keep }) => !keep).map(({ backup: { manifest } }) => manifest.id);
const why = ({ fates }: RetentionPlan, one: Backup): readonly string[] =>
  fates.find(({ backup: { manifest } }) => manifest.id === idOf(one))!.reasons;
/** One a day, newest first, at 02:30 UTC. */
const daily = (days: number, made: Made = {}, last = new Date('2026-11-20T02:30:00Z')): Backup[] =>
  Array.from({ length: days }, (_, index) => backup(new Date(last.getTime() - index * DAY), made));

describe('periods', () => {
  it.each<[Tier, string, string]>([
    ['weekly', '2020-12-31T00:00:00Z', '2020-W53'],
    ['weekly', '2021-01-03T23:59:59Z', '2020-W53'],
    ['weekly', '2021-01-04T00:00:00Z', '2021-W01'],
    ['weekly', '2024-12-30T12:00:00Z', '2025-W01'],
    ['weekly', '2027-01-01T12:00:00Z', '2026-W53'],
    ['monthly', '2026-12-31T23:59:59.999Z', '2026-12'],
    ['quarterly', '2026-03-31T23:59:59Z', '2026-Q1'],
    ['quarterly', '2026-04-01T00:00:00Z', '2026-Q2'],
    ['quarterly', '2026-12-31T23:59:59Z', '2026-Q4'],
    ['hourly', '2026-03-29T01:30:00Z', '2026-03-29T01'],
    ['yearly', '2027-01-01T00:00:00Z', '2027'],
    // Given with an offset, which moves nothing; the day of a change to summer time has no more and no fewer days in UTC.
    ['daily', '2026-03-29T01:59:59+01:00', '2026-03-29'],
    ['daily', '2026-03-29T00:30:00+02:00', '2026-03-28'],
  ])('%s: %s lies in %s', (tier, at, expected) => {
    expect(periodOf(tier, new Date(at))).toBe(expected);
  });

  it('sort by time, in every tier, over any new year', () => {
    const moments = Array.from({ length: 900 }, (_, index) => new Date(Date.UTC(2019, 10, 1) + index * 3 * DAY));
    for (const tier of ['hourly', 'daily', 'weekly', 'monthly', 'quarterly', 'yearly'] as const) {
      const names = moments.map((at) => periodOf(tier, at));
      expect(names).toEqual(names.toSorted());
    }
  });
});

describe('retention', () => {
  it('keeps 15 of three years of daily backups with failures and gaps, and a second prune removes none', () => {
    const random = dice('three years');
    let store: Backup[] = [];
    let most = 0;
    const begin = Date.UTC(2023, 10, 20, 2, 30);
    for (let day = 0; day < 3 * 365; day += 1) {
      const now = new Date(begin + day * DAY);
      // Ten days without any in the middle, one in ten missing, one in twenty damaged.
      if (day < 500 || day > 510) {
        if (random() > 0.1) store.push(backup(now, random() < 0.05 ? { damage: 'a bad hash' } : {}));
      }
      const first = plan(store, { now });
      const gone = new Set(deleted(first));
      store = store.filter((one) => !gone.has(idOf(one)));
      const second = plan(store, { now });
      expect(deleted(second), `day ${day}`).toEqual([]);
      const good = store.filter(({ damage }) => damage === undefined);
      most = Math.max(most, good.length);
      if (day > 400) {
        const quarters = new Set(good.map(({ manifest }) => periodOf('quarterly', new Date(manifest.snapshot_at))));
        expect(quarters.size, `quarters on day ${day}`).toBeGreaterThanOrEqual(4);
      }
    }
    expect(most).toBeLessThanOrEqual(15);
    expect(most).toBeGreaterThan(12);
  });

  it('loses nothing to an outage of 30 days, which rules by age would', () => {
    const before = daily(10);
    const now = new Date(NOW.getTime() + 30 * DAY);
    const result = plan(before, { now, policy: { weekly: 0, monthly: 0, quarterly: 0 } });
    expect(kept(result)).toEqual(before.slice(0, 7).map(idOf));
  });

  it('keeps the newest of each period, and says every reason of one that serves several', () => {
    const [early, late] = [backup('2026-11-20T02:00:00Z'), backup('2026-11-20T08:00:00Z')];
    const before = backup('2026-09-30T23:59:00Z');
    const result = plan([early, before, late]);
    expect(deleted(result)).toEqual([idOf(early)]);
    expect(why(result, late)).toEqual([
      'the newest',
      'daily 2026-11-20',
      'weekly 2026-W47',
      'monthly 2026-11',
      'quarterly 2026-Q4',
    ]);
    expect(why(result, before)).toEqual([
      'daily 2026-09-30',
      'weekly 2026-W40',
      'monthly 2026-09',
      'quarterly 2026-Q3',
    ]);
    expect(why(result, early)).toEqual(['newer ones have taken its place in every period']);
  });

  it('counts week 53 as one week of the old year', () => {
    const week53 = [backup('2020-12-31T02:00:00Z'), backup('2021-01-03T02:00:00Z')];
    const next = backup('2021-01-04T02:00:00Z');
    const result = plan([...week53, next], { policy: { ...NONE, weekly: 2 }, now: new Date('2021-01-05T00:00:00Z') });
    expect(kept(result)).toEqual([idOf(next), idOf(week53[1]!)]);
  });

  it('prunes logical and physical backups apart', () => {
    const dumps = daily(3);
    const bases = daily(3, { kind: 'physical' });
    const result = plan([...dumps, ...bases], { policy: { ...NONE, daily: 2 } });
    expect(deleted(result).sort()).toEqual([idOf(dumps[2]!), idOf(bases[2]!)].sort());
  });

  it('does not let a safety backup of another database take the place of any', () => {
    const own = backup('2026-11-19T02:00:00Z');
    const other = backup('2026-11-20T02:00:00Z', { database: 'copy', trigger: 'safety' });
    expect(kept(plan([own, other], { policy: { ...NONE } })).sort()).toEqual([idOf(own), idOf(other)].sort());
  });

  it('never lets a younger damaged one push out the only good one', () => {
    const good = backup('2026-10-01T02:00:00Z');
    const bad = daily(9, { damage: 'a bad hash' });
    const result = plan([good, ...bad], { policy: { ...NONE, daily: 1 } });
    expect(kept(result)).toContain(idOf(good));
    expect(why(result, good)).toContain('the newest');
    // Damage waits a week for a person.
    expect(deleted(result)).toEqual([idOf(bad[7]!), idOf(bad[8]!)]);
    expect(why(result, bad[8]!)).toEqual(['it is damaged']);
  });

  it('deletes nothing where none is good', () => {
    const bad = daily(20, { damage: 'a bad hash' });
    expect(deleted(plan(bad))).toEqual([]);
  });

  it('never counts what is unfinished, and gives it up after 24 hours', () => {
    const one = backup('2026-11-01T00:00:00Z');
    const unfinished = [
      { id: '20261120T110000Z-logical-young0', files: 1, size_bytes: 5, active_at: new Date('2026-11-20T11:00:00Z') },
      { id: '20261118T110000Z-logical-busy00', files: 1, size_bytes: 5, active_at: new Date('2026-11-20T10:00:00Z') },
      { id: '20261118T110000Z-logical-dead00', files: 2, size_bytes: 5, active_at: new Date('2026-11-18T12:00:00Z') },
    ];
    const result = plan([one], { unfinished, policy: NONE });
    expect(kept(result)).toEqual([idOf(one)]);
    expect(result.unfinished.map(({ id }) => id)).toEqual(['20261118T110000Z-logical-dead00']);
  });

  it('keeps the newest that was verified, though newer ones are there', () => {
    const all = daily(5);
    const verified = backup('2026-10-02T02:30:00Z', { verified: true });
    const older = backup('2026-10-01T02:30:00Z', { verified: true });
    const result = plan([...all, verified, older], { policy: { ...NONE, daily: 1 } });
    expect(kept(result)).toEqual([idOf(all[0]!), idOf(verified)]);
    expect(why(result, verified)).toEqual(['the newest that was restored and compared']);
  });

  it('keeps what is held, in use, or a safety backup younger than 7 days', () => {
    const newest = backup('2026-11-20T02:00:00Z');
    const held = backup('2025-01-01T02:00:00Z', { held: 'audit of 2025' });
    const used = backup('2025-01-02T02:00:00Z');
    const young = backup('2026-11-14T02:00:00Z', { trigger: 'safety' });
    const old = backup('2026-11-12T02:00:00Z', { trigger: 'safety' });
    const result = plan([newest, held, used, young, old], { policy: NONE, inUse: [idOf(used)] });
    expect(deleted(result)).toEqual([idOf(old)]);
    expect(why(result, held)).toEqual(['held: audit of 2025']);
    expect(why(result, used)).toEqual(['it is being restored or verified']);
    expect(why(result, young)).toEqual(['a safety backup younger than 7 days']);
  });

  it('keeps never fewer than the minimum, however short the periods', () => {
    const all = daily(6);
    expect(kept(plan(all, { policy: { ...NONE, minimum: 4 } }))).toEqual(all.slice(0, 4).map(idOf));
  });

  it('keeps all that a kept incremental backup rests on, through every link', () => {
    const full = backup('2026-11-01T00:00:00Z', { kind: 'physical' });
    const middle = backup('2026-11-02T00:00:00Z', { kind: 'physical', parent: idOf(full) });
    const top = backup('2026-11-03T00:00:00Z', { kind: 'physical', parent: idOf(middle) });
    const other = backup('2026-11-02T12:00:00Z', { kind: 'physical' });
    const result = plan([full, middle, top, other], { policy: NONE });
    expect(kept(result)).toEqual([idOf(top), idOf(middle), idOf(full)]);
    expect(why(result, full)).toEqual([`${idOf(middle)} rests on it`]);
  });

  it('takes an incremental backup without its parents for none', () => {
    const full = backup('2026-11-01T00:00:00Z', { kind: 'physical' });
    const lost = backup('2026-11-03T00:00:00Z', { kind: 'physical', parent: '20261102T000000Z-physical-gone00' });
    const bad = backup('2026-11-04T00:00:00Z', { kind: 'physical', damage: 'a bad hash' });
    const onBad = backup('2026-11-05T00:00:00Z', { kind: 'physical', parent: idOf(bad) });
    const result = plan([full, lost, bad, onBad], { policy: NONE });
    expect(kept(result)).toEqual([idOf(full)]);
    expect(why(result, onBad)).toEqual(['a backup that it rests on is missing or damaged']);
  });

  it('is not led in circles by manifests that name each other', () => {
    const one = backup('2026-11-01T00:00:00Z', { kind: 'physical' });
    const two = backup('2026-11-02T00:00:00Z', { kind: 'physical', parent: idOf(one) });
    Object.assign(one.manifest, { parent_id: idOf(two) });
    expect(deleted(plan([one, two], { policy: NONE }))).toEqual([]);
  });

  it('keeps the base backups for every moment of the promised days', () => {
    const bases = daily(30, { kind: 'physical' });
    const result = plan(bases, { policy: { ...NONE, pitr_days: 7 } });
    // Those of the seven days, and the one from before, which the first of the moments needs.
    expect(kept(result)).toEqual(bases.slice(0, 8).map(idOf));
    expect(new Date(bases[7]!.manifest.snapshot_at).getTime()).toBeLessThanOrEqual(NOW.getTime() - 7 * DAY);
    expect(why(result, bases[7]!)).toEqual(['for every moment of the last 7 days']);
  });

  it('does not count on a damaged base backup for a moment', () => {
    const good = backup('2026-11-01T00:00:00Z', { kind: 'physical' });
    const bad = backup('2026-11-05T00:00:00Z', { kind: 'physical', damage: 'a bad hash' });
    const newest = backup('2026-11-19T00:00:00Z', { kind: 'physical' });
    expect(kept(plan([good, bad, newest], { policy: { ...NONE, pitr_days: 10 } }))).toEqual([idOf(newest), idOf(good)]);
  });

  it('refuses when the newest backup lies in the future, for then the clock is wrong', () => {
    const all = daily(10);
    const setBack = new Date('2026-11-15T00:00:00Z');
    expect(() => plan(all, { now: setBack })).toThrow(
      expect.objectContaining({ code: 'INVALID_STATE', hint: expect.stringMatching(/^Nothing was deleted/) }),
    );
    // Also where only the server's clock is ahead, or the manifest cannot be read.
    expect(() => plan([backup(NOW, { snapshotAt: new Date(NOW.getTime() + DAY) })])).toThrow('lies in the future');
    expect(() => plan(all, { unreadable: ['20270101T000000Z-logical-abcdef'] })).toThrow('lies in the future');
    expect(() => plan([backup(new Date(NOW.getTime() + 60_000))])).not.toThrow();
  });

  it('goes by the time in the id where a clock was set back in between', () => {
    const first = backup('2026-11-20T01:00:00Z', { snapshotAt: new Date('2026-11-20T09:00:00Z') });
    const second = backup('2026-11-20T02:00:00Z', { snapshotAt: new Date('2026-11-20T02:00:00Z') });
    expect(kept(plan([first, second], { policy: NONE }))).toEqual([idOf(second)]);
  });

  it('leaves what it cannot read, and all physical ones that may be under it', () => {
    const bases = daily(3, { kind: 'physical' });
    const unreadable = ['20261120T030000Z-physical-abcdef'];
    const result = plan(bases, { policy: NONE, unreadable });
    expect(deleted(result)).toEqual([]);
    expect(result.wal).toBeUndefined();
    expect(result.warnings[0]).toContain(unreadable[0]);
    const dumps = daily(3);
    expect(deleted(plan(dumps, { policy: NONE, unreadable: ['20261120T030000Z-logical-abcdef'] }))).toHaveLength(2);
  });

  it.each([
    ['more than half', 11, 5, true],
    ['half', 10, 5, false],
    ['all but one', 2, 1, true],
    ['nothing', 5, 5, false],
    ['nothing, of one', 1, 1, false],
  ])('wants a person to look when it removes %s', (_, count, minimum, sweeping) => {
    expect(plan(daily(count), { policy: { ...NONE, minimum } }).sweeping).toBe(sweeping);
  });

  it('looks at each kind for that', () => {
    const all = [...daily(20), ...daily(3, { kind: 'physical' })];
    const result = plan(all, { policy: { ...NONE, daily: 1, minimum: 20 } });
    expect(result.sweeping).toBe(false);
    const bases = all.slice(20).map((one, index) => (index === 0 ? one : { ...one, damage: 'a bad hash' }));
    const later = new Date(NOW.getTime() + 9 * DAY);
    expect(plan([...all.slice(0, 20), ...bases], { policy: { ...NONE, minimum: 20 }, now: later }).sweeping).toBe(true);
  });

  it('has one hash as long as the same would go, whatever the time', () => {
    const all = daily(10);
    const early = plan(all, { policy: NONE });
    expect(plan(all, { policy: NONE, now: new Date(NOW.getTime() + DAY) }).hash).toBe(early.hash);
    expect(plan([...all, backup('2026-10-01T00:00:00Z')], { policy: NONE }).hash).not.toBe(early.hash);
    expect(plan(all, { policy: NONE, inUse: [idOf(all[3]!)] }).hash).not.toBe(early.hash);
  });

  it('holds what it promises for any store and any policy', () => {
    const random = dice('any store');
    const pick = (most: number): number => Math.floor(random() * (most + 1));
    for (let round = 0; round < 300; round += 1) {
      const store: Backup[] = [];
      for (let index = pick(40); index > 0; index -= 1) {
        const at = new Date(NOW.getTime() - random() * 800 * DAY);
        const kind = random() < 0.4 ? 'physical' : 'logical';
        const older = store.filter(
          ({ manifest }) => manifest.kind === 'physical' && manifest.snapshot_at < at.toISOString(),
        );
        const parent = kind === 'physical' && random() < 0.5 ? older.at(0) : undefined;
        store.push(
          backup(at, {
            kind,
            ...(parent === undefined ? {} : { parent: idOf(parent) }),
            ...(random() < 0.1 ? { damage: 'a bad hash' } : {}),
            ...(random() < 0.1 ? { held: 'because' } : {}),
            verified: random() < 0.2,
            trigger: random() < 0.2 ? 'safety' : 'schedule',
          }),
        );
      }
      const policy = {
        hourly: pick(3),
        daily: pick(7),
        weekly: pick(4),
        monthly: pick(3),
        quarterly: pick(4),
        yearly: pick(2),
        minimum: 1 + pick(3),
        pitr_days: pick(1) * pick(30),
      };
      const first = plan(store, { policy });
      const gone = new Set(deleted(first));
      const left = store.filter((one) => !gone.has(idOf(one)));
      // Idempotent, and never the last good one, the newest verified one, a held one or a parent.
      expect(deleted(plan(left, { policy }))).toEqual([]);
      expect(store.filter(({ hold }) => hold !== undefined).every((one) => !gone.has(idOf(one)))).toBe(true);
      const ids = new Set(left.map(idOf));
      const known = new Set(store.map(idOf));
      for (const { manifest } of left) {
        const parent = manifest.kind === 'physical' ? manifest.parent_id : undefined;
        if (parent !== undefined && known.has(parent)) expect(ids).toContain(parent);
      }
      for (const kind of ['logical', 'physical']) {
        const good = (all: readonly Backup[]): Backup[] =>
          all
            .filter(({ manifest, damage }) => manifest.kind === kind && damage === undefined)
            .filter(({ manifest }) => kind === 'logical' || !('parent_id' in manifest))
            .sort((a, b) => (idOf(a) < idOf(b) ? 1 : -1));
        expect(good(left).length > 0).toBe(good(store).length > 0);
        if (kind === 'logical') expect(good(left)[0]).toBe(good(store)[0]);
        const verified = good(store).find(({ verifiedAt }) => verifiedAt !== undefined);
        if (kind === 'logical' && verified) expect(ids).toContain(idOf(verified));
      }
      // Whatever is kept can be recovered with the write-ahead log that is kept.
      for (const { manifest } of left) {
        if (manifest.kind === 'physical' && first.wal)
          expect(isSpent(first.wal, manifest.wal.start_segment)).toBe(false);
      }
    }
  });
});

describe('the write-ahead log', () => {
  const segment = (timeline: number, number: string): string =>
    `${timeline.toString(16).toUpperCase().padStart(8, '0')}${number.padStart(16, '0')}`;
  const base = (at: string, timeline: number, number: string, more: Made = {}): Backup =>
    backup(at, { kind: 'physical', timeline, segment: number, ...more });

  it('is spent below the first segment of the oldest base that is kept', () => {
    const old = base('2026-11-01T00:00:00Z', 1, '10');
    const { wal } = plan([old, base('2026-11-10T00:00:00Z', 1, '20'), base('2026-11-19T00:00:00Z', 1, '30')], {
      policy: { ...NONE, minimum: 2 },
    });
    expect(isSpent(wal!, segment(1, '1F'))).toBe(true);
    expect(isSpent(wal!, segment(1, '20'))).toBe(false);
    expect(isSpent(wal!, segment(1, '31'))).toBe(false);
  });

  it('is kept on a newer timeline from where an older base leads into it', () => {
    const { wal } = plan([base('2026-11-01T00:00:00Z', 1, '10'), base('2026-11-10T00:00:00Z', 2, '30')], {
      policy: { ...NONE, minimum: 2 },
    });
    // The branch is somewhere between the two: recovery of the first along the second timeline needs all from there.
    expect(isSpent(wal!, segment(2, '20'))).toBe(false);
    expect(isSpent(wal!, segment(2, '0F'))).toBe(true);
    expect(isSpent(wal!, segment(3, '0F'))).toBe(true);
    expect(isSpent(wal!, segment(3, '10'))).toBe(false);
  });

  it('of a timeline that nothing starts from any more is spent before all that is kept', () => {
    const { wal } = plan([base('2026-11-10T00:00:00Z', 2, '30')]);
    expect(isSpent(wal!, segment(1, '2F'))).toBe(true);
    expect(isSpent(wal!, segment(1, '30'))).toBe(false);
  });

  it('is left alone without a base, and while bases of two servers are there', () => {
    expect(plan(daily(3)).wal).toBeUndefined();
    const result = plan(
      [base('2026-11-01T00:00:00Z', 1, '10'), base('2026-11-10T00:00:00Z', 1, '2', { system: '8' })],
      {
        policy: { ...NONE, minimum: 2 },
      },
    );
    expect(result.wal).toBeUndefined();
    expect(result.warnings[0]).toContain('more than one server');
  });

  it('compares numbers beyond the first 4 GiB', () => {
    const { wal } = plan([base('2026-11-10T00:00:00Z', 1, '1000000002')]);
    expect(isSpent(wal!, segment(1, '00000000FF'))).toBe(true);
    expect(isSpent(wal!, segment(1, '1000000001'))).toBe(true);
    expect(isSpent(wal!, segment(1, '1000000003'))).toBe(false);
  });
});
