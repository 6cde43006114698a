import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import type { DatabaseSync, SQLInputValue } from 'node:sqlite';
import { HoldfastError } from '../core/errors.ts';
import type { JsonObject } from '../core/json.ts';
import type { AuditHead, ConfirmationRecord, OperationRecord, ScheduleRecord, StateStore } from '../core/state.ts';

const SCHEMA = `
CREATE TABLE IF NOT EXISTS confirmations (
  id TEXT PRIMARY KEY, code TEXT NOT NULL UNIQUE, token_sha256 TEXT NOT NULL UNIQUE, state TEXT NOT NULL,
  created_at TEXT NOT NULL, record TEXT NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS confirmations_by_state ON confirmations (state, created_at);
CREATE TABLE IF NOT EXISTS operations (
  id TEXT PRIMARY KEY, entity TEXT NOT NULL, status TEXT NOT NULL, owner TEXT, created_at TEXT NOT NULL, record TEXT NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS operations_by_status ON operations (status, created_at);
CREATE TABLE IF NOT EXISTS locks (name TEXT PRIMARY KEY, owner TEXT NOT NULL, until INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS schedules (key TEXT PRIMARY KEY, version INTEGER NOT NULL, record TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS notes (sequence INTEGER PRIMARY KEY, entity TEXT NOT NULL, kind TEXT NOT NULL, at TEXT NOT NULL, note TEXT NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS notes_by_entity ON notes (entity, kind, sequence);
CREATE TABLE IF NOT EXISTS audit (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL, hash TEXT NOT NULL) STRICT;
`;

type Row = Record<string, unknown>;

/**
 * Opens the state store in a SQLite file (write-ahead log, shared by every process on this machine).
 * @throws {HoldfastError} STATE_UNAVAILABLE
 */
export async function openSqliteStore(path: string, now: () => number = Date.now): Promise<StateStore> {
  const { DatabaseSync } = await withoutExperimentalWarning(() => import('node:sqlite'));
  return attempt('open', () => {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const previous = process.umask(0o077);
    try {
      const database = new DatabaseSync(path, { timeout: 10_000 });
      database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;');
      database.exec(SCHEMA);
      return new SqliteStore(database, path, now);
    } finally {
      process.umask(previous);
    }
  });
}

class SqliteStore implements StateStore {
  readonly #database: DatabaseSync;
  readonly #path: string;
  readonly #inode: number;
  readonly #now: () => number;
  readonly #statements = new Map<string, ReturnType<DatabaseSync['prepare']>>();

  constructor(database: DatabaseSync, path: string, now: () => number) {
    this.#database = database;
    this.#path = path;
    this.#inode = statSync(path).ino;
    this.#now = now;
  }

  // An open SQLite file goes on working after it was deleted, and what it keeps then is lost: the path is looked at before every use.
  #use<T>(what: string, work: () => T): T {
    return attempt(what, () => {
      if (statSync(this.#path).ino !== this.#inode) throw new Error('the file was replaced');
      return work();
    });
  }

  #run(sql: string, ...values: SQLInputValue[]): number {
    return Number(this.#statement(sql).run(...values).changes);
  }

  #rows(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#statement(sql).all(...values) as Row[];
  }

  #statement(sql: string): ReturnType<DatabaseSync['prepare']> {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #transaction<T>(work: () => T): T {
    this.#database.exec('BEGIN IMMEDIATE');
    try {
      const result = work();
      this.#database.exec('COMMIT');
      return result;
    } catch (cause) {
      this.#database.exec('ROLLBACK');
      throw cause;
    }
  }

  async addConfirmation(record: ConfirmationRecord): Promise<void> {
    this.#use('write', () =>
      this.#run(
        'INSERT INTO confirmations (id, code, token_sha256, state, created_at, record) VALUES (?, ?, ?, ?, ?, ?)',
        record.id,
        record.code,
        record.token_sha256,
        record.state,
        record.created_at,
        JSON.stringify(record),
      ),
    );
  }

  async confirmation(
    by: { id: string } | { code: string } | { token_sha256: string },
  ): Promise<ConfirmationRecord | undefined> {
    return this.#use('read', () => {
      const [column, value] = Object.entries(by)[0] as [string, string];
      const [row] = this.#rows(`SELECT record FROM confirmations WHERE ${column} = ?`, value);
      return row === undefined ? undefined : parse<ConfirmationRecord>(row);
    });
  }

  async confirmations(filter: { states?: readonly string[]; limit?: number } = {}): Promise<ConfirmationRecord[]> {
    return this.#use('read', () => {
      const states = filter.states ?? [];
      const where = states.length === 0 ? '' : `WHERE state IN (${states.map(() => '?').join(', ')})`;
      return this.#rows(
        `SELECT record FROM confirmations ${where} ORDER BY created_at DESC, rowid DESC LIMIT ?`,
        ...states,
        filter.limit ?? 100,
      ).map((row) => parse<ConfirmationRecord>(row));
    });
  }

  async moveConfirmation(
    id: string,
    from: ConfirmationRecord['state'],
    to: ConfirmationRecord['state'],
    patch: Partial<ConfirmationRecord> = {},
  ): Promise<boolean> {
    return this.#use('write', () =>
      this.#transaction(() => {
        const [row] = this.#rows('SELECT record FROM confirmations WHERE id = ? AND state = ?', id, from);
        if (row === undefined) return false;
        const record = { ...parse<ConfirmationRecord>(row), ...patch, state: to };
        return (
          this.#run(
            'UPDATE confirmations SET state = ?, record = ? WHERE id = ? AND state = ?',
            to,
            JSON.stringify(record),
            id,
            from,
          ) === 1
        );
      }),
    );
  }

  async addOperation(record: OperationRecord): Promise<void> {
    this.#use('write', () =>
      this.#run(
        'INSERT INTO operations (id, entity, status, owner, created_at, record) VALUES (?, ?, ?, ?, ?, ?)',
        record.id,
        record.entity,
        record.status,
        record.owner?.id ?? null,
        record.created_at,
        JSON.stringify(record),
      ),
    );
  }

  async operation(id: string): Promise<OperationRecord | undefined> {
    return this.#use('read', () => {
      const [row] = this.#rows('SELECT record FROM operations WHERE id = ?', id);
      return row === undefined ? undefined : parse<OperationRecord>(row);
    });
  }

  async operations(
    filter: { entity?: string; statuses?: readonly string[]; limit?: number } = {},
  ): Promise<OperationRecord[]> {
    return this.#use('read', () => {
      const conditions: string[] = [];
      const values: SQLInputValue[] = [];
      if (filter.entity !== undefined) {
        conditions.push('entity = ?');
        values.push(filter.entity);
      }
      if (filter.statuses !== undefined) {
        conditions.push(`status IN (${filter.statuses.map(() => '?').join(', ')})`);
        values.push(...filter.statuses);
      }
      const where = conditions.length === 0 ? '' : `WHERE ${conditions.join(' AND ')}`;
      return this.#rows(
        `SELECT record FROM operations ${where} ORDER BY created_at DESC, rowid DESC LIMIT ?`,
        ...values,
        filter.limit ?? 100,
      ).map((row) => parse<OperationRecord>(row));
    });
  }

  async saveOperation(record: OperationRecord): Promise<void> {
    this.#use('write', () => {
      const changed = this.#run(
        'UPDATE operations SET status = ?, owner = ?, record = ? WHERE id = ? AND owner IS ?',
        record.status,
        record.owner?.id ?? null,
        JSON.stringify(record),
        record.id,
        record.owner?.id ?? null,
      );
      if (changed !== 1) throw new Error('the operation belongs to another process now');
    });
  }

  async claimOperation(
    id: string,
    expected: string | undefined,
    owner: NonNullable<OperationRecord['owner']>,
  ): Promise<boolean> {
    return this.#use('write', () =>
      this.#transaction(() => {
        const [row] = this.#rows('SELECT record FROM operations WHERE id = ? AND owner IS ?', id, expected ?? null);
        if (row === undefined) return false;
        const record = { ...parse<OperationRecord>(row), owner };
        return (
          this.#run(
            'UPDATE operations SET owner = ?, record = ? WHERE id = ?',
            owner.id,
            JSON.stringify(record),
            id,
          ) === 1
        );
      }),
    );
  }

  async lock(name: string, owner: string, ttlMs: number): Promise<boolean> {
    return this.#use('write', () => {
      const now = this.#now();
      return (
        this.#run(
          'INSERT INTO locks (name, owner, until) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until WHERE locks.owner = excluded.owner OR locks.until < ?',
          name,
          owner,
          now + ttlMs,
          now,
        ) === 1
      );
    });
  }

  async unlock(name: string, owner: string): Promise<void> {
    this.#use('write', () => this.#run('DELETE FROM locks WHERE name = ? AND owner = ?', name, owner));
  }

  async schedule(key: string): Promise<ScheduleRecord | undefined> {
    return this.#use('read', () => {
      const [row] = this.#rows('SELECT record FROM schedules WHERE key = ?', key);
      return row === undefined ? undefined : parse<ScheduleRecord>(row);
    });
  }

  async saveSchedule(record: ScheduleRecord, expected: number): Promise<boolean> {
    const version = expected + 1;
    const json = JSON.stringify({ ...record, version });
    const [sql, values]: [string, SQLInputValue[]] =
      expected === 0
        ? [
            'INSERT INTO schedules (key, version, record) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING',
            [record.key, version, json],
          ]
        : [
            'UPDATE schedules SET version = ?, record = ? WHERE key = ? AND version = ?',
            [version, json, record.key, expected],
          ];
    return this.#use('write', () => this.#run(sql, ...values) === 1);
  }

  async addNote(entity: string, kind: string, note: JsonObject, at: string): Promise<void> {
    this.#use('write', () =>
      this.#run(
        'INSERT INTO notes (entity, kind, at, note) VALUES (?, ?, ?, ?)',
        entity,
        kind,
        at,
        JSON.stringify(note),
      ),
    );
  }

  async notes(entity: string, kind: string, limit: number): Promise<JsonObject[]> {
    return this.#use('read', () =>
      this.#rows(
        'SELECT note AS record FROM notes WHERE entity = ? AND kind = ? ORDER BY sequence DESC LIMIT ?',
        entity,
        kind,
        limit,
      ).map((row) => parse<JsonObject>(row)),
    );
  }

  async advanceAudit(append: (head: AuditHead | undefined) => AuditHead, durable: boolean): Promise<AuditHead> {
    return this.#use('write', () => {
      if (!durable) this.#database.exec('PRAGMA synchronous = NORMAL');
      try {
        return this.#transaction(() => {
          const head = append(this.#head());
          this.#run(
            'INSERT INTO audit (one, sequence, hash) VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash',
            head.sequence,
            head.hash,
          );
          return head;
        });
      } finally {
        if (!durable) this.#database.exec('PRAGMA synchronous = FULL');
      }
    });
  }

  async auditHead(): Promise<AuditHead | undefined> {
    return this.#use('read', () => this.#head());
  }

  #head(): AuditHead | undefined {
    const [row] = this.#rows('SELECT sequence, hash FROM audit');
    return row === undefined ? undefined : { sequence: Number(row['sequence']), hash: String(row['hash']) };
  }

  async close(): Promise<void> {
    if (this.#database.isOpen) this.#database.close();
  }
}

function parse<T>(row: Row): T {
  return JSON.parse(String(row['record'])) as T;
}

function attempt<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof HoldfastError) throw cause;
    throw new HoldfastError(
      'STATE_UNAVAILABLE',
      `the state store cannot be ${what === 'open' ? 'opened' : what === 'read' ? 'read' : 'written'}`,
      { cause },
    );
  }
}

// Node marks node:sqlite as experimental with a line on stderr that would worry every user at every start.
async function withoutExperimentalWarning<T>(load: () => Promise<T>): Promise<T> {
  const original = process.emitWarning;
  process.emitWarning = ((warning: string | Error, ...rest: unknown[]) => {
    if (String(warning).includes('SQLite')) return;
    (original as (...parameters: unknown[]) => void).call(process, warning, ...rest);
  }) as typeof process.emitWarning;
  try {
    return await load();
  } finally {
    process.emitWarning = original;
  }
}
