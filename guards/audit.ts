import { closeSync, existsSync, fstatSync, fsyncSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { HoldfastError } from '../src/core/errors.ts';
import { canonicalJson, isObject, type JsonObject, sha256 } from '../src/core/json.ts';
import type { AuditHead, StateStore } from '../src/core/state.ts';

/** What one line of the audit trail says, besides its place in the chain. */
export interface AuditEntry {
  /** `read`, `refused`, `intent` (written before the provider is called), `result`, `approved`, `denied`, `recovered`. */
  event: 'read' | 'refused' | 'intent' | 'result' | 'approved' | 'denied' | 'recovered';
  principal: string;
  entity?: string | undefined;
  action?: string | undefined;
  risk?: string | undefined;
  /** SHA-256 of the canonical input; the input itself is not kept. */
  input_sha256?: string | undefined;
  decision?: string | undefined;
  rule?: string | undefined;
  confirmation_id?: string | undefined;
  operation_id?: string | undefined;
  target?: string | undefined;
  outcome?: string | undefined;
  provider_request_id?: string | undefined;
  duration_ms?: number | undefined;
  via?: string | undefined;
  sandbox?: true | undefined;
}

export interface AuditTrail {
  /**
   * Appends one line. With `durable` it is on the disk when the promise resolves.
   * @throws {HoldfastError} AUDIT_UNAVAILABLE when it cannot be written or the file does not end where the chain does
   */
  append(entry: AuditEntry, durable: boolean): Promise<void>;
  verify(): Promise<{ ok: boolean; records: number; fault?: { line: number; problem: string } }>;
  /** Says why nothing could be appended now, without appending: undefined when it can. */
  probe(): Promise<HoldfastError | undefined>;
  /** The last lines, newest first. */
  recent(limit: number): JsonObject[];
}

const START = '0'.repeat(64);
const TAIL = 64 * 1024;

/** Opens the audit trail: JSON lines in a file, each with the hash of the one before; the end of the chain is kept in the state store. */
export function openAudit(path: string, store: StateStore, now: () => Date): AuditTrail {
  return {
    async append(entry, durable) {
      await store.advanceAudit((head) => appendLine(path, head, entry, now(), durable), durable);
    },
    async probe() {
      try {
        await whileNobodyAppends(store, (head) => {
          const file = openTrail(path);
          try {
            continueFrom(head, lastLine(file));
          } finally {
            closeSync(file);
          }
        });
        return undefined;
      } catch (cause) {
        return cause instanceof HoldfastError
          ? cause
          : new HoldfastError('AUDIT_UNAVAILABLE', 'the audit file cannot be written', { cause });
      }
    },
    async verify() {
      return whileNobodyAppends(store, (head) => verifyChain(path, head));
    },
    recent(limit) {
      if (!existsSync(path)) return [];
      return readFileSync(path, 'utf8')
        .trimEnd()
        .split('\n')
        .slice(-limit)
        .reverse()
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as JsonObject);
    },
  };
}

// The file and the stored head agree only while no other process is between the two.
async function whileNobodyAppends<T>(store: StateStore, look: (head: AuditHead | undefined) => T): Promise<T> {
  let result: T | undefined;
  await store.advanceAudit((head) => {
    result = look(head);
    return head ?? { sequence: 0, hash: START };
  }, false);
  return result as T;
}

function openTrail(path: string): number {
  try {
    return openSync(path, 'a+', 0o600);
  } catch (cause) {
    throw new HoldfastError('AUDIT_UNAVAILABLE', 'the audit file cannot be written', { cause });
  }
}

function appendLine(
  path: string,
  stored: AuditHead | undefined,
  entry: AuditEntry,
  at: Date,
  durable: boolean,
): AuditHead {
  const file = openTrail(path);
  try {
    const head = continueFrom(stored, lastLine(file));
    const body = { sequence: head.sequence + 1, at: at.toISOString(), ...entry, previous: head.hash };
    const hash = sha256(canonicalJson(body));
    const line = `${JSON.stringify({ ...body, hash })}\n`;
    writeSync(file, line);
    if (durable) fsyncSync(file);
    return { sequence: body.sequence, hash };
  } catch (cause) {
    if (cause instanceof HoldfastError) throw cause;
    throw new HoldfastError('AUDIT_UNAVAILABLE', 'the audit file cannot be written', { cause });
  } finally {
    closeSync(file);
  }
}

// A crash between the line and the stored head leaves one line more than the head knows; anything else was done to the file.
function continueFrom(stored: AuditHead | undefined, last: JsonObject | 'torn' | undefined): AuditHead {
  const head = stored ?? { sequence: 0, hash: START };
  if (last === undefined && head.sequence === 0) return head;
  if (last !== undefined && last !== 'torn') {
    if (last['hash'] === head.hash) return head;
    if (last['previous'] === head.hash && last['sequence'] === head.sequence + 1 && last['hash'] === hashOf(last)) {
      return { sequence: head.sequence + 1, hash: String(last['hash']) };
    }
  }
  throw new HoldfastError('AUDIT_UNAVAILABLE', 'the audit file does not end where its chain does', {
    hint: 'Nothing was run. Run holdfast audit verify, put the audit file back from its copy, or move the whole state directory aside to begin a new trail.',
  });
}

function hashOf(record: JsonObject): string {
  const { hash: _, ...body } = record;
  return sha256(canonicalJson(body));
}

function lastLine(file: number): JsonObject | 'torn' | undefined {
  const { size } = fstatSync(file);
  if (size === 0) return undefined;
  const length = Math.min(size, TAIL);
  const buffer = Buffer.alloc(length);
  readSync(file, buffer, 0, length, size - length);
  if (buffer.at(-1) !== 10) return 'torn';
  const text = buffer.toString('utf8');
  const line = text.slice(text.lastIndexOf('\n', text.length - 2) + 1);
  try {
    const record: unknown = JSON.parse(line);
    return isObject(record) ? (record as JsonObject) : 'torn';
  } catch {
    return 'torn';
  }
}

function verifyChain(
  path: string,
  head: AuditHead | undefined,
): { ok: boolean; records: number; fault?: { line: number; problem: string } } {
  const lines = existsSync(path) ? readFileSync(path, 'utf8').split('\n') : [''];
  const broken = (line: number, problem: string) => ({ ok: false, records: line - 1, fault: { line, problem } });
  if (lines.pop() !== '') return broken(lines.length + 1, 'the last line is not complete');
  let previous = START;
  let beforeLast = START;
  for (const [index, line] of lines.entries()) {
    const number = index + 1;
    let record: JsonObject;
    try {
      record = JSON.parse(line) as JsonObject;
    } catch {
      return broken(number, 'the line is not JSON');
    }
    if (record['sequence'] !== number)
      return broken(number, `the line says that it is number ${String(record['sequence'])}`);
    if (record['previous'] !== previous) return broken(number, 'the line does not continue the one before');
    if (record['hash'] !== hashOf(record)) return broken(number, 'the line was changed after it was written');
    beforeLast = previous;
    previous = String(record['hash']);
  }
  const known = head ?? { sequence: 0, hash: START };
  const ends = known.sequence === lines.length && known.hash === previous;
  const oneAhead = known.sequence === lines.length - 1 && known.hash === beforeLast;
  if (!ends && !oneAhead) {
    return broken(lines.length + 1, `the trail ends after ${lines.length} lines, but ${known.sequence} were written`);
  }
  return { ok: true, records: lines.length };
}
