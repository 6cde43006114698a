import { watch } from 'node:fs';
import { chmod, copyFile, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { PhysicalManifest } from '../../src/postgres/manifest.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import { Repository } from '../../src/postgres/repository.ts';
import {
  formatLsn,
  parseHistory,
  parseLsn,
  parseSegmentHeader,
  parseWalName,
  Segments,
} from '../../src/postgres/wal.ts';
import { type Survey, WalArchive } from '../../src/postgres/wal-archive.ts';
import { chainBetween, holesIn, reachOf } from '../../src/postgres/wal-reach.ts';
import type { PostgresClient } from '../../src/providers/postgresql/client.ts';
import { localStore } from '../../src/storage/local.ts';
import { ANA } from '../support/harness.ts';
import {
  describePostgres,
  type PostgresHarness,
  sql,
  startPostgresHarness,
  startTestServer,
  values,
} from '../support/postgres.ts';

const MIB = 2 ** 20;
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

describe('names of the write-ahead log', () => {
  it('tells what PostgreSQL archives from everything else', () => {
    const kinds = [
      '00000001000000A3000000FF',
      '00000001000000A3000000FF.partial',
      '00000002.history',
      '000000010000000000000002.00000028.backup',
      '00000001000000A3000000FG',
      '000000010000000000000002.00000028.backup.bad',
      '00000000.history',
      '../000000010000000000000001',
      'archive_status',
    ].map((name) => parseWalName(name)?.kind);
    expect(kinds).toEqual([
      'segment',
      'partial',
      'history',
      'backup',
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });

  it.each([1, 2, 4, 16, 64, 256, 1024])('counts segments of %i MiB over the end of each log', (mib) => {
    const segments = new Segments(mib * MIB);
    const last = 2 ** 32 / (mib * MIB) - 1;
    expect(segments.name(1, last + 1)).toBe('000000010000000100000000');
    for (const number of [0, last, last + 1, 12_345_678]) {
      expect(segments.parse(segments.name(7, number))).toEqual({ timeline: 7, number });
      expect(segments.of(segments.start(number))).toBe(number);
      expect(segments.of(segments.start(number + 1) - 1n)).toBe(number);
    }
  });

  it('refuses a name that no segment of this size has, and a size that no server has', () => {
    expect(() => new Segments(64 * MIB).parse('000000010000000000000040')).toThrow('is no segment');
    expect(() => new Segments(3 * MIB)).toThrow('is no size');
  });

  it('reads and writes positions as PostgreSQL does', () => {
    expect(formatLsn(parseLsn('16/B374D848'))).toBe('16/B374D848');
    expect(formatLsn(parseLsn('0/0')) + formatLsn(parseLsn('FFFFFFFF/FFFFFFFF'))).toBe('0/0FFFFFFFF/FFFFFFFF');
    expect(() => parseLsn('16-B374')).toThrow('no log sequence number');
  });

  it('reads a history file, and refuses one whose timelines do not ascend', () => {
    const text = '1\t0/3000158\tno recovery target specified\n\n2\t0/5000000\tat restore point "x"\n';
    expect(parseHistory(text, 3)).toEqual([
      { timeline: 1, until: 0x3000158n },
      { timeline: 2, until: 0x5000000n },
    ]);
    expect(() => parseHistory('2\t0/3000158\n1\t0/5000000\n', 3)).toThrow('damaged');
    expect(() => parseHistory(text, 2)).toThrow('damaged');
  });

  it('takes nothing for the header of a segment that is none', () => {
    expect(() => parseSegmentHeader(Buffer.alloc(40))).toThrow('does not begin');
    expect(() => parseSegmentHeader(Buffer.alloc(8, 2))).toThrow('does not begin');
  });
});

describe('how far archived log carries a backup', () => {
  const segments = new Segments(16 * MIB);
  const survey = (runs: Record<number, [number, number][]>, histories: Survey['histories'] = new Map()): Survey => ({
    segments,
    systemIdentifier: '1',
    runs: new Map(
      Object.entries(runs).map(([line, own]) => [Number(line), own.map(([first, last]) => ({ first, last }))]),
    ),
    histories,
    partials: [],
    count: 0,
    bytes: 0,
  });
  const manifest = (start: number, end: number, timeline = 1, included = true) =>
    ({
      id: `backup-${start}`,
      snapshot_at: '2026-11-20T00:00:00.000Z',
      wal: {
        timeline,
        start_lsn: formatLsn(segments.start(start) + 40n),
        end_lsn: formatLsn(segments.start(end) + 256n),
        start_segment: segments.name(timeline, start),
        end_segment: segments.name(timeline, end),
        segment_size: segments.size,
        included,
      },
    }) as unknown as PhysicalManifest;
  const at = (number: number): string => formatLsn(segments.start(number));

  it('ends at the first hole, and names it', () => {
    const [reach] = reachOf(
      manifest(3, 4),
      survey({
        1: [
          [1, 9],
          [12, 20],
        ],
      }),
    );
    expect(reach).toMatchObject({
      from_lsn: '0/4000100',
      to_lsn: at(10),
      last_segment: segments.name(1, 9),
      hole: { first_segment: segments.name(1, 10), last_segment: segments.name(1, 11), segments: 2 },
    });
    expect(
      reachOf(
        manifest(13, 13),
        survey({
          1: [
            [1, 9],
            [12, 20],
          ],
        }),
      )[0],
    ).toMatchObject({ to_lsn: at(21) });
    expect(
      holesIn(
        survey({
          1: [
            [1, 9],
            [12, 20],
          ],
        }),
      ).map((hole) => hole.segments),
    ).toEqual([2]);
    expect(
      holesIn(
        survey({
          1: [
            [1, 9],
            [12, 20],
          ],
        }),
        12,
      ),
    ).toEqual([]);
  });

  it('rests on the log that the backup brought along, and on nothing where it brought none', () => {
    expect(reachOf(manifest(3, 4), survey({}))).toMatchObject([{ to_lsn: at(5), last_segment: null }]);
    expect(reachOf(manifest(3, 4, 1, false), survey({}))).toEqual([]);
    expect(reachOf(manifest(3, 4, 1, false), survey({ 1: [[4, 9]] }))).toEqual([]);
    expect(reachOf(manifest(3, 4, 1, false), survey({ 1: [[3, 9]] }))).toMatchObject([{ to_lsn: at(10) }]);
  });

  it('follows a promotion by the history file, and keeps the line that was left', () => {
    const history = new Map([[2, [{ timeline: 1, until: segments.start(7) + 500n }]]]);
    const found = reachOf(manifest(3, 4), survey({ 1: [[1, 9]], 2: [[7, 15]] }, history));
    expect(found).toMatchObject([
      { timeline: 2, to_lsn: at(16) },
      { timeline: 1, to_lsn: at(10) },
    ]);
    expect(
      chainBetween(survey({ 1: [[1, 9]], 2: [[7, 15]] }, history), segments.name(1, 3), segments.name(2, 15)),
    ).toEqual([]);
  });

  it('does not follow a timeline that parted before the backup was consistent, nor one without its history', () => {
    const early = new Map([[2, [{ timeline: 1, until: segments.start(4) }]]]);
    expect(reachOf(manifest(3, 4), survey({ 1: [[1, 9]], 2: [[4, 15]] }, early))).toMatchObject([{ timeline: 1 }]);
    expect(reachOf(manifest(3, 4), survey({ 1: [[1, 9]], 2: [[7, 15]] }))).toMatchObject([{ timeline: 1 }]);
    expect(chainBetween(survey({ 1: [[1, 9]], 2: [[7, 15]] }), segments.name(1, 3), segments.name(2, 9))).toHaveLength(
      1,
    );
  });

  it('finds every hole of a chain', () => {
    const holes = chainBetween(
      survey({
        1: [
          [1, 3],
          [6, 7],
          [9, 20],
        ],
      }),
      segments.name(1, 2),
      segments.name(1, 12),
    );
    expect(holes.map(({ first_segment, segments: count }) => [first_segment, count])).toEqual([
      [segments.name(1, 4), 2],
      [segments.name(1, 8), 1],
    ]);
  });

  it('takes a year of segments in its stride', () => {
    const runs: [number, number][] = Array.from({ length: 1000 }, (_, index) => [index * 1000, index * 1000 + 998]);
    expect(reachOf(manifest(3, 4), survey({ 1: runs }))[0]).toMatchObject({ to_lsn: at(999) });
    expect(holesIn(survey({ 1: runs }))).toHaveLength(999);
  });
});

describePostgres('archiving', () => {
  let server: PrivateServer;
  let harness: PostgresHarness;
  let archive: WalArchive;
  let folder: string;

  /** Has the server finish a segment and gives its path. */
  const segment = async (): Promise<string> => {
    await sql(server.connection, 'postgres', "SELECT pg_logical_emit_message(true, 'test', 'x')");
    const [name] = await values(server.connection, 'postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
    return join(server.directory, 'data', 'pg_wal', name as string);
  };
  /** What archive_command runs, by way of the engine. */
  const push = (path: string, target: PostgresHarness = harness) =>
    target.engine.service(
      { principal: ANA, entity: 'app/shop', name: 'wal-push', risk: 'create', audited: 'day' },
      ({ client }) => (client as PostgresClient).wal.push(path, undefined),
    );
  const fetch = (name: string, path: string, partial = false) =>
    harness.engine.service(
      { principal: ANA, entity: 'app/shop', name: 'wal-fetch', risk: 'read', audited: 'day' },
      ({ client, signal }) => (client as PostgresClient).wal.fetch(name, path, { partial, signal }),
    );
  const refusal = async (work: Promise<unknown>): Promise<HoldfastError> =>
    work.then(
      () => expect.unreachable('it should have been refused'),
      (cause: HoldfastError) => cause,
    );

  beforeAll(async () => {
    server = await startTestServer({ archive_mode: 'on', archive_command: '/bin/true' });
    await sql(server.connection, 'postgres', 'CREATE DATABASE shop');
    const identity = await generateX25519Identity();
    harness = await startPostgresHarness({
      connection: server.connection,
      database: 'shop',
      parameters: {
        wal: { method: 'archive' },
        encryption: { recipients: [await identityToRecipient(identity)], identity: '${env:AGE_KEY}' },
      },
      secrets: { AGE_KEY: identity },
    });
    folder = await mkdtemp(join(tmpdir(), 'hf-wal-'));
    archive = new WalArchive(new Repository(localStore(harness.storage), (await sourceId()) as string), {
      assertMayWrite: () => {},
      log: quiet,
    });
  });
  const sourceId = async () =>
    harness.engine.service(
      { principal: ANA, entity: 'app/shop', name: 'x', risk: 'read', audited: 'run' },
      async ({ client }) => (client as PostgresClient).repository().sourceId,
    );
  afterAll(async () => {
    await harness?.close();
    await server?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  it('catches an archive_command that says yes and stores nothing', async () => {
    await segment();
    await expect
      .poll(() => values(server.connection, 'postgres', 'SELECT last_archived_wal FROM pg_stat_archiver'))
      .not.toEqual(['null']);
    const check = await harness.call('check-wal', { timeout_seconds: 1 });
    expect(check).toMatchObject({ archived: false, seen_after_seconds: null });
    expect(check['problem']).toMatch(/says yes without storing here/);
    const info = await harness.call('get-backup-info');
    expect(info['warnings']).toContainEqual(expect.stringMatching(/archive_command succeeds without archiving here/));
    expect(info['pitr']).toEqual({ enabled: false });
  });

  it('stores a segment once, sealed, and takes the same again', async () => {
    const path = await segment();
    const name = path.slice(-24);
    expect(await push(path)).toMatchObject({ outcome: 'stored' });
    expect(await push(path)).toMatchObject({ outcome: 'there' });
    const found: string[] = [];
    for await (const { object } of archive.list()) found.push(object.key);
    expect(found).toEqual([expect.stringMatching(new RegExp(`/wal/00000001/${name}\\.zst\\.age$`))]);
    const target = join(folder, 'fetched');
    expect(await fetch(name, target)).toBe(true);
    expect((await readFile(target)).equals(await readFile(path))).toBe(true);
    expect((await readdir(folder)).filter((other) => other.endsWith('.holdfast'))).toEqual([]);
  });

  it('takes up a segment whose writer died between its sum and its content', async () => {
    const path = await segment();
    await push(path);
    const key = `v1/${archive.repository.sourceId}/wal/00000001/${path.slice(-24)}.zst.age`;
    await archive.repository.store.delete(key);
    expect(await push(path)).toMatchObject({ outcome: 'stored' });
    expect(await archive.has(path.slice(-24))).toBe(true);
  });

  it('never replaces a segment by other content', async () => {
    const path = await segment();
    await push(path);
    const other = join(folder, path.slice(-24));
    await copyFile(path, other);
    const bytes = await readFile(other);
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    await writeFile(other, bytes);
    const error = await refusal(push(other));
    expect(error.code).toBe('INTEGRITY_FAILED');
    expect(error.hint).toMatch(/Nothing was replaced/);
    const target = join(folder, 'still');
    await fetch(path.slice(-24), target);
    expect((await readFile(target)).equals(await readFile(path))).toBe(true);
    await rm(other);
  });

  it('refuses a segment of another server, one that is cut off, and one under a wrong name', async () => {
    const path = await segment();
    const own = join(folder, path.slice(-24));
    const altered = async (change: (bytes: Buffer) => Buffer, name = own) => {
      await writeFile(name, change(await readFile(path)));
      const error = await refusal(push(name));
      await rm(name);
      return error;
    };
    const foreign = await altered((bytes) => {
      bytes.writeBigUInt64LE(42n, 24);
      return bytes;
    });
    expect(foreign.code).toBe('INTEGRITY_FAILED');
    expect(foreign.message).toMatch(/belongs to the server with system identifier/);
    expect((await altered((bytes) => bytes.subarray(0, 4096))).message).toMatch(/not all of it/);
    const misnamed = join(folder, '0000000100000000000000EE');
    expect((await altered((bytes) => bytes, misnamed)).message).toMatch(/not the segment that its name says/);
    expect(await archive.has(path.slice(-24))).toBe(false);
    expect((await refusal(push(join(server.directory, 'data', 'PG_VERSION')))).code).toBe('INVALID_PARAMETER');
  });

  it('answers "not there" for what is not, and gives nothing of what is damaged', async () => {
    expect(await fetch('0000000100000000000000DD', join(folder, 'none'))).toBe(false);
    expect(await fetch('00000009.history', join(folder, 'none'))).toBe(false);
    const path = await segment();
    await push(path);
    const stored = join(harness.storage, `v1/${archive.repository.sourceId}/wal/00000001/${path.slice(-24)}.zst.age`);
    const whole = await readFile(stored);
    await truncate(stored, (await stat(stored)).size - 20);
    expect((await refusal(fetch(path.slice(-24), join(folder, 'none')))).code).toBe('INTEGRITY_FAILED');
    await expect(stat(join(folder, 'none'))).rejects.toThrow('ENOENT');
    await writeFile(stored, whole);
  });

  it('archives history and backup files beside the segments, and refuses another history of the same timeline', async () => {
    const history = join(folder, '00000002.history');
    await writeFile(history, '1\t0/7000000\tno recovery target specified\n');
    expect(await push(history)).toMatchObject({ outcome: 'stored' });
    expect(await push(history)).toMatchObject({ outcome: 'there' });
    await writeFile(history, '1\t0/9000000\tno recovery target specified\n');
    expect((await refusal(push(history))).code).toBe('INTEGRITY_FAILED');
    const label = join(folder, '000000010000000000000002.00000028.backup');
    await writeFile(label, 'START WAL LOCATION: 0/2000028\n');
    expect(await push(label)).toMatchObject({ outcome: 'stored' });
    const survey = await archive.survey();
    expect([...(survey?.histories.keys() ?? [])]).toEqual([2]);
    await archive.repository.store.delete(`v1/${archive.repository.sourceId}/wal/00000002/00000002.history`);
  });

  it('puts a partial segment aside until the whole one comes', async () => {
    const path = await segment();
    const partial = join(folder, `${path.slice(-24)}.partial`);
    await copyFile(path, partial);
    const storing = { sealing: { scheme: 'none' as const }, level: 1 };
    await archive.putPartial(partial, storing);
    expect((await archive.survey())?.partials).toEqual([path.slice(-24)]);
    const target = join(folder, 'partial');
    expect(await fetch(path.slice(-24), target)).toBe(false);
    expect(await fetch(path.slice(-24), target, true)).toBe(true);
    await push(path);
    expect((await archive.survey())?.partials).toEqual([]);
    await archive.dropPartial(path.slice(-24));
    expect(await archive.has(`${path.slice(-24)}.partial`)).toBe(false);
    expect(await archive.has(path.slice(-24))).toBe(true);
  });

  it('counts the day in the audit trail, not every segment, and lets policy forbid it', async () => {
    const lines = harness.engine.recentAudit(1000).filter((line) => line['action'] === 'wal-push');
    expect(lines.map(({ event, via }) => [event, via])).toEqual([
      ['intent', expect.stringMatching(/^day \d{4}-\d\d-\d\d$/)],
    ]);
    const days = await readdir(join(harness.stateDirectory, 'services', 'app~shop'));
    const tally = days.find((day) => day.startsWith('wal-push.')) as string;
    const outcomes = (await readFile(join(harness.stateDirectory, 'services', 'app~shop', tally), 'utf8')).split('\n');
    expect(outcomes).toContain('ok');
    expect(outcomes).toContain('INTEGRITY_FAILED');
    // As if yesterday had been the last day of work.
    await writeFile(join(harness.stateDirectory, 'services', 'app~shop', 'wal-push.2026-01-01'), 'ok\nok\nTIMEOUT\n');
    await rm(join(harness.stateDirectory, 'services', 'app~shop', tally));
    await push(await segment());
    const [intent, sum] = harness.engine.recentAudit(10).filter((line) => line['action'] === 'wal-push');
    expect([intent?.['event'], sum?.['outcome'], sum?.['via']]).toEqual([
      'intent',
      '2 ok, 1 TIMEOUT',
      'day 2026-01-01',
    ]);
    const reader = { ...ANA, roles: ['viewer' as const] };
    const denied = await refusal(
      harness.engine.service(
        { principal: reader, entity: 'app/shop', name: 'wal-push', risk: 'create', audited: 'day' },
        async () => 0,
      ),
    );
    expect(denied.code).toBe('POLICY_DENIED');
  });

  it('tells from when to when every moment can be reached, by what the log holds, and sees a hole', async () => {
    await harness.call('create-snapshot', { type: 'full' });
    await sql(server.connection, 'shop', 'CREATE TABLE t AS SELECT 1 AS x');
    const first = await segment();
    // Everything since the backup began, as archive_command would have stored it.
    const folderOfWal = join(server.directory, 'data', 'pg_wal');
    for (const name of (await readdir(folderOfWal)).filter(
      (other) => /^0{7}1[0-9A-F]{16}$/.test(other) && other <= first.slice(-24),
    )) {
      await push(join(folderOfWal, name));
    }
    const info = await harness.call('get-backup-info');
    const pitr = info['pitr'] as { enabled: boolean; window: { earliest_at: string; latest_at: string } };
    expect(pitr.enabled).toBe(true);
    const [commit] = await values(
      server.connection,
      'shop',
      'SELECT to_char(now() AT TIME ZONE \'UTC\', \'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\')',
    );
    expect(pitr.window.latest_at > pitr.window.earliest_at).toBe(true);
    expect(pitr.window.latest_at < String(commit)).toBe(true);
    const lost = await segment();
    const later = await segment();
    await push(later);
    expect(lost < later).toBe(true);
    const holed = await harness.call('get-backup-info');
    expect((holed['pitr'] as typeof pitr).window.latest_at).toBe(pitr.window.latest_at);
    const wal = (holed.provider as JsonObject)['wal'] as JsonObject;
    expect(wal['gap_segments']).toBe(1);
    expect(holed['warnings']).toContainEqual(
      expect.stringMatching(new RegExp(`hole of 1 segments \\(${lost.slice(-24)}`)),
    );
  });

  it('proves archiving end to end once the command is right', async () => {
    // What archive_command does on its server, by the shell: a copy into a folder that is pushed from.
    const spool = await mkdtemp(join(tmpdir(), 'hf-arch-'));
    await chmod(spool, 0o777);
    await sql(
      server.connection,
      'postgres',
      `ALTER SYSTEM SET archive_command = 'cp %p ${spool}/%f.t && mv ${spool}/%f.t ${spool}/%f'`,
      'SELECT pg_reload_conf()',
    );
    const watcher = watch(spool, (_event, name) => {
      if (name !== null && /^[0-9A-F]{24}$/.test(name)) void push(join(spool, name)).catch(() => {});
    });
    try {
      const proof = await harness.call('check-wal', { timeout_seconds: 20 });
      expect(proof).toMatchObject({ archived: true, segment: expect.stringMatching(/^[0-9A-F]{24}$/) });
      expect((proof['gaps'] as JsonObject[]).length).toBe(1);
      expect(await archive.has(String(proof['segment']))).toBe(true);
    } finally {
      watcher.close();
      await rm(spool, { recursive: true, force: true });
    }
  });
});
