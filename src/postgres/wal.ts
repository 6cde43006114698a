import { HoldfastError } from '../core/errors.ts';
import { cleanText } from '../core/text.ts';
import { damaged } from './errors.ts';

/** What a file of the write-ahead log archive is, by its name. */
export type WalFile =
  | { readonly kind: 'segment' | 'partial'; readonly name: string; readonly segment: string; readonly timeline: number }
  | { readonly kind: 'history'; readonly name: string; readonly timeline: number }
  | { readonly kind: 'backup'; readonly name: string; readonly timeline: number };

const WAL_FILE = /^([0-9A-F]{8})(?:\.(history)|([0-9A-F]{16})(?:\.(partial)|\.[0-9A-F]{8}\.(backup))?)$/;
const SEGMENT = /^[0-9A-F]{24}$/;
const LSN = /^([0-9A-F]{1,8})\/([0-9A-F]{1,8})$/i;
const LOG = 2n ** 32n;

/** Reads the name of a file as PostgreSQL archives it; undefined for any other name. */
export function parseWalName(name: string): WalFile | undefined {
  const match = WAL_FILE.exec(name);
  if (!match) return undefined;
  const [, line = '', history, rest = '', partial, backup] = match;
  const timeline = Number.parseInt(line, 16);
  if (timeline === 0) return undefined;
  if (history !== undefined) return { kind: 'history', name, timeline };
  if (backup !== undefined) return { kind: 'backup', name, timeline };
  return { kind: partial === undefined ? 'segment' : 'partial', name, segment: `${line}${rest}`, timeline };
}

/**
 * Reads a position in the log, `16/B374D848`.
 * @throws {HoldfastError} INVALID_PARAMETER
 */
export function parseLsn(text: string): bigint {
  const match = LSN.exec(text);
  if (!match) {
    throw new HoldfastError('INVALID_PARAMETER', `'${cleanText(text, 40)}' is no log sequence number`, {
      hint: 'Write it as PostgreSQL does: 16/B374D848.',
    });
  }
  return (BigInt(`0x${match[1]}`) << 32n) + BigInt(`0x${match[2]}`);
}

/** Writes a position in the log as PostgreSQL does. */
export function formatLsn(lsn: bigint): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & (LOG - 1n)).toString(16).toUpperCase()}`;
}

const hex8 = (value: number): string => value.toString(16).toUpperCase().padStart(8, '0');

/**
 * The arithmetic of one server's segments, whose size initdb fixed. Segments are counted from the beginning of the log,
 * whatever their timeline.
 */
export class Segments {
  /** Bytes. */
  readonly size: number;
  readonly #perLog: number;

  /** @throws {HoldfastError} INTEGRITY_FAILED for a size that no server has */
  constructor(size: number) {
    if (!Number.isInteger(Math.log2(size)) || size < 2 ** 20 || size > 2 ** 30) {
      throw damaged(`${size} is no size of a segment of the write-ahead log`);
    }
    this.size = size;
    this.#perLog = 2 ** 32 / size;
  }

  /** The number of the segment that holds a position. */
  of(lsn: bigint): number {
    return Number(lsn / BigInt(this.size));
  }

  /** The first position of a segment. */
  start(number: number): bigint {
    return BigInt(number) * BigInt(this.size);
  }

  name(timeline: number, number: number): string {
    return `${hex8(timeline)}${hex8(Math.floor(number / this.#perLog))}${hex8(number % this.#perLog)}`;
  }

  /**
   * Gives timeline and number of a segment.
   * @throws {HoldfastError} INVALID_PARAMETER for a name that no segment of this size has
   */
  parse(name: string): { timeline: number; number: number } {
    const [timeline = 0, log = 0, segment = 0] = SEGMENT.test(name)
      ? [0, 8, 16].map((at) => Number.parseInt(name.slice(at, at + 8), 16))
      : [];
    if (timeline === 0 || segment >= this.#perLog) {
      throw new HoldfastError('INVALID_PARAMETER', `'${cleanText(name, 40)}' is no segment of ${this.size} bytes`);
    }
    return { timeline, number: log * this.#perLog + segment };
  }
}

/** The name of a timeline's folder, and the beginning of its segments' names. */
export function timelineName(timeline: number): string {
  return hex8(timeline);
}

/** One ancestor of a timeline: it was left at this position. */
export interface Ancestor {
  readonly timeline: number;
  readonly until: bigint;
}

/**
 * Reads a timeline history file: the ancestors, oldest first.
 * @throws {HoldfastError} INTEGRITY_FAILED
 * @see PostgreSQL source, timeline.c, readTimeLineHistory
 */
export function parseHistory(text: string, timeline: number): Ancestor[] {
  const ancestors: Ancestor[] = [];
  for (const line of text.split('\n')) {
    const content = line.trim();
    if (content === '' || content.startsWith('#')) continue;
    const match = /^(\d{1,10})\s+([0-9A-F]{1,8}\/[0-9A-F]{1,8})(?:\s|$)/i.exec(content);
    const last = ancestors.at(-1);
    const number = Number(match?.[1]);
    if (!match || number >= timeline || (last !== undefined && number <= last.timeline)) {
      throw damaged(`the history file of timeline ${timeline} is damaged`);
    }
    ancestors.push({ timeline: number, until: parseLsn(match[2] as string) });
  }
  return ancestors;
}

/** What the first page of a segment says of it. */
export interface SegmentHeader {
  readonly systemIdentifier: string;
  readonly segmentSize: number;
  /** The position of its first byte. */
  readonly start: bigint;
}

/** So many bytes of a segment hold its header. */
export const HEADER_BYTES = 40;

/**
 * Reads the long page header that begins every segment, in the byte order of the server that wrote it.
 * @throws {HoldfastError} INTEGRITY_FAILED for bytes that are no beginning of a segment
 * @see PostgreSQL source, xlog_internal.h, XLogLongPageHeaderData
 */
export function parseSegmentHeader(bytes: Uint8Array): SegmentHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength >= HEADER_BYTES) {
    for (const little of [true, false]) {
      const block = view.getUint32(36, little);
      const long = (view.getUint16(2, little) & 0x0002) !== 0;
      // A block size of the other byte order is far beyond 64 KiB.
      if (!long || block < 1024 || block > 65_536) continue;
      return {
        systemIdentifier: view.getBigUint64(24, little).toString(),
        segmentSize: view.getUint32(32, little),
        start: view.getBigUint64(8, little),
      };
    }
  }
  throw damaged('the file does not begin as a segment of the write-ahead log does');
}
