import { cleanText } from '../core/text.ts';
import type { Session } from './connection.ts';

/** Where a peer becomes a warning. */
export interface LagThresholds {
  readonly seconds: number;
  readonly bytes: number;
}

/** One client that streams the write-ahead log from this server: a standby, a receiver of ours, a subscriber. */
export interface Peer {
  readonly name: string;
  readonly address: string | null;
  /** `streaming`, `catchup`, `startup`, `backup`, `stopping`; null where our role may not see it. */
  readonly state: string | null;
  /** `async`, `sync`, `quorum` or `potential`. */
  readonly sync: string | null;
  /** What the peer has not replayed yet; of one that replays nothing, has not flushed yet. Null where it is not known. */
  readonly lag_bytes: number | null;
  /** Null for a peer that is idle and in step, and for one that does not report it. */
  readonly lag_seconds: number | null;
}

export interface Slot {
  readonly name: string;
  readonly type: string;
  readonly active: boolean;
  /** Write-ahead log that the server keeps for it. Null for a slot that was never used or is lost. */
  readonly retained_bytes: number | null;
  /** `reserved`, `extended`, `unreserved` or `lost`. */
  readonly wal_status: string | null;
  /** What may still be written before the slot is lost; null without a limit. */
  readonly safe_bytes: number | null;
}

/** What a standby knows of itself. */
export interface StandbyView {
  readonly upstream: string | null;
  /** `streaming` and the like; null while no receiver runs. */
  readonly receiver: string | null;
  readonly received_lsn: string | null;
  readonly replayed_lsn: string | null;
  /** Received and not yet replayed. */
  readonly replay_lag_bytes: number | null;
  /** 0 when all that was received is replayed; an idle primary and a dead one look the same from here. */
  readonly replay_lag_seconds: number | null;
  readonly replay_paused: boolean;
}

export interface ReplicationStatus {
  readonly role: 'primary' | 'standby';
  readonly verdict: 'healthy' | 'lagging' | 'broken' | 'none';
  readonly lsn: string | null;
  readonly timeline: number | null;
  readonly wal_level: string;
  readonly peers: Peer[];
  readonly slots: Slot[];
  readonly standby?: StandbyView;
  /** The most that a slot may hold back; null without a limit. */
  readonly slot_limit_bytes: number | null;
  readonly warnings: string[];
}

type Texts = Record<string, string | null>;

const number = (text: string | null | undefined): number | null =>
  text === null || text === undefined ? null : Number(text);
const shown = (text: string | null | undefined): string | null =>
  text === null || text === undefined ? null : cleanText(text, 100);

/**
 * Reads how far every peer of a server is behind, what its slots hold back, and, on a standby, what it has replayed.
 * Null lags of an idle peer are healthy.
 * @see PostgreSQL documentation, pg_stat_replication, pg_replication_slots, pg_stat_wal_receiver
 */
export async function readReplication(session: Session, thresholds: LagThresholds): Promise<ReplicationStatus> {
  const [base] = await session.query<Texts & { standby: boolean; sees_all: boolean }>(`
    SELECT pg_is_in_recovery() AS standby,
      CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_lsn() END::text AS lsn,
      current_setting('wal_level') AS wal_level,
      (SELECT CASE WHEN setting::int8 < 0 THEN NULL ELSE setting::int8 * 1024 * 1024 END::text
       FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS slot_limit,
      pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all`);
  const lsn = base?.['lsn'] ?? null;
  const [control] = await session
    .query<{ timeline: number }>('SELECT timeline_id AS timeline FROM pg_control_checkpoint()')
    .catch(() => []);
  const peers = await session.query<Texts>(
    `SELECT application_name AS name, host(client_addr) AS address, state, sync_state AS sync,
      pg_wal_lsn_diff($1::pg_lsn, coalesce(replay_lsn, flush_lsn, write_lsn, sent_lsn))::text AS lag_bytes,
      extract(epoch FROM replay_lag)::float8::text AS lag_seconds
     FROM pg_stat_replication ORDER BY application_name, pid LIMIT 100`,
    [lsn],
  );
  const slots = await session.query<Texts & { active: boolean }>(
    `SELECT slot_name::text AS name, slot_type AS type, active, wal_status, safe_wal_size::text AS safe_bytes,
      pg_wal_lsn_diff($1::pg_lsn, restart_lsn)::text AS retained_bytes
     FROM pg_replication_slots ORDER BY slot_name LIMIT 200`,
    [lsn],
  );
  const status = {
    role: base?.standby === true ? ('standby' as const) : ('primary' as const),
    lsn,
    timeline: control?.timeline ?? null,
    wal_level: base?.['wal_level'] ?? 'unknown',
    peers: peers.map(
      (peer): Peer => ({
        name: cleanText(peer['name'] ?? '', 100),
        address: peer['address'] ?? null,
        state: shown(peer['state']),
        sync: shown(peer['sync']),
        // A peer may confirm what was written after our look at the end.
        lag_bytes: peer['lag_bytes'] == null ? null : Math.max(0, Number(peer['lag_bytes'])),
        lag_seconds: number(peer['lag_seconds']),
      }),
    ),
    slots: slots.map(
      (slot): Slot => ({
        name: cleanText(slot['name'] ?? '', 70),
        type: cleanText(slot['type'] ?? '', 20),
        active: slot.active,
        retained_bytes: number(slot['retained_bytes']),
        wal_status: shown(slot['wal_status']),
        safe_bytes: number(slot['safe_bytes']),
      }),
    ),
    slot_limit_bytes: number(base?.['slot_limit']),
  };
  const standby = status.role === 'standby' ? await readStandby(session) : undefined;
  return {
    ...status,
    ...(standby === undefined ? {} : { standby }),
    ...judge(status, standby, thresholds, base?.sees_all === true),
  };
}

async function readStandby(session: Session): Promise<StandbyView> {
  const [row] = await session.query<Texts & { paused: boolean }>(`
    SELECT r.status AS receiver, r.sender_host || ':' || r.sender_port AS upstream,
      pg_last_wal_receive_lsn()::text AS received, pg_last_wal_replay_lsn()::text AS replayed,
      pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text AS lag_bytes,
      CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
        ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp())::float8 END::text AS lag_seconds,
      pg_is_wal_replay_paused() AS paused
    FROM (SELECT 1) one LEFT JOIN pg_stat_wal_receiver r ON true`);
  return {
    upstream: shown(row?.['upstream']),
    receiver: shown(row?.['receiver']),
    received_lsn: row?.['received'] ?? null,
    replayed_lsn: row?.['replayed'] ?? null,
    replay_lag_bytes: number(row?.['lag_bytes']),
    replay_lag_seconds: number(row?.['lag_seconds']),
    replay_paused: row?.paused === true,
  };
}

/** Says what the figures mean for the person who relies on a standby. */
function judge(
  status: Pick<ReplicationStatus, 'role' | 'peers' | 'slots' | 'slot_limit_bytes'>,
  standby: StandbyView | undefined,
  thresholds: LagThresholds,
  seesAll: boolean,
): Pick<ReplicationStatus, 'verdict' | 'warnings'> {
  const broken: string[] = [];
  const lagging: string[] = [];
  const notes: string[] = [];
  const behind = (bytes: number | null, seconds: number | null): boolean =>
    (bytes ?? 0) > thresholds.bytes || (seconds ?? 0) > thresholds.seconds;
  for (const peer of status.peers) {
    if (!behind(peer.lag_bytes, peer.lag_seconds)) continue;
    lagging.push(`The peer '${peer.name}' is ${lagText(peer.lag_bytes, peer.lag_seconds)} behind.`);
  }
  for (const slot of status.slots) {
    if (slot.wal_status === 'lost') {
      broken.push(`The slot '${slot.name}' is lost: its peer cannot go on and must be made anew.`);
    } else if (slot.wal_status === 'unreserved') {
      broken.push(
        `The slot '${slot.name}' is about to be lost: the log that it needs may be removed at the next checkpoint.`,
      );
    } else if (!slot.active && (slot.retained_bytes ?? 0) > thresholds.bytes) {
      lagging.push(
        `Nobody reads the slot '${slot.name}', which holds back ${slot.retained_bytes} bytes of log${
          status.slot_limit_bytes === null ? ' without a limit (max_slot_wal_keep_size): it can fill the disk' : ''
        }.`,
      );
    }
  }
  if (standby !== undefined) {
    if (standby.receiver === null) {
      broken.push('This standby receives nothing: no WAL receiver runs (it may replay from an archive).');
    }
    if (standby.replay_paused) broken.push('Replay on this standby is paused.');
    if (behind(standby.replay_lag_bytes, standby.replay_lag_seconds)) {
      lagging.push(`This standby has ${lagText(standby.replay_lag_bytes, standby.replay_lag_seconds)} to replay.`);
    }
    if (standby.receiver === 'streaming') {
      notes.push('A primary that is idle and one that is gone look the same from a standby: ask the primary as well.');
    }
  }
  if (!seesAll && status.peers.some(({ state }) => state === null)) {
    notes.push('The role may not see the state of the peers: GRANT pg_monitor to it.');
  }
  const none = standby === undefined && status.peers.length === 0 && status.slots.length === 0;
  if (none) notes.push('Nothing replicates from this server: its backups are the only copies.');
  return {
    verdict: broken.length > 0 ? 'broken' : lagging.length > 0 ? 'lagging' : none ? 'none' : 'healthy',
    warnings: [...broken, ...lagging, ...notes].slice(0, 50),
  };
}

function lagText(bytes: number | null, seconds: number | null): string {
  const parts = [
    ...(bytes === null ? [] : [`${bytes} bytes`]),
    ...(seconds === null ? [] : [`${Math.round(seconds * 10) / 10} s`]),
  ];
  return parts.join(' and ');
}
