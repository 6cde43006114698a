import { HoldfastError } from './errors.ts';

const UNIT_SECONDS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };

/**
 * Reads a duration such as `90s`, `15m`, `6h`, `7d`, `2w` or ISO 8601 `P7D`, `PT15M` into whole seconds.
 * @throws {HoldfastError} INVALID_PARAMETER for anything else, fractions, months and years included
 */
export function parseDuration(text: string): number {
  const short = /^(\d{1,9})([smhdw])$/.exec(text);
  if (short) return Number(short[1]) * UNIT_SECONDS[short[2] as string]!;
  const iso = /^P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?$/.exec(text);
  if (iso?.slice(1).some((part) => part !== undefined)) {
    const [weeks, days, hours, minutes, seconds] = iso.slice(1).map((part) => Number(part ?? 0)) as [
      number,
      number,
      number,
      number,
      number,
    ];
    return weeks * 604_800 + days * 86_400 + hours * 3600 + minutes * 60 + seconds;
  }
  throw new HoldfastError('INVALID_PARAMETER', `'${text.slice(0, 40)}' is not a duration`, {
    hint: 'Write durations as 90s, 15m, 6h, 7d, 2w or ISO 8601 such as P7D.',
  });
}

/** Writes whole seconds for a person: `45 s`, `12 min`, `3 h 20 min`, `5 d 4 h`. */
export function formatDuration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min${s % 60 ? ` ${s % 60} s` : ''}`;
  if (s < 86_400)
    return `${Math.floor(s / 3600)} h${Math.floor((s % 3600) / 60) ? ` ${Math.floor((s % 3600) / 60)} min` : ''}`;
  return `${Math.floor(s / 86_400)} d${Math.floor((s % 86_400) / 3600) ? ` ${Math.floor((s % 86_400) / 3600)} h` : ''}`;
}

/** Writes bytes with a binary unit and, from one KiB on, the exact figure: `1.2 MiB (1258291 bytes)`. */
export function formatBytes(bytes: number, exact = false): string {
  if (bytes < 1024) return `${bytes} bytes`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = -1;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const text = `${value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
  return exact ? `${text} (${bytes} bytes)` : text;
}

const RFC3339 = /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?([Zz]|[+-]\d{2}:\d{2})$/;

/**
 * Reads an instant given as RFC 3339 with an offset, or as Unix seconds (9 or 10 digits).
 * @throws {HoldfastError} INVALID_PARAMETER for anything else; 11 digits and more are refused as milliseconds
 */
export function parseInstant(value: string | number, name = 'timestamp'): Date {
  const text = String(value).trim();
  if (/^\d{9,10}$/.test(text)) return new Date(Number(text) * 1000);
  if (/^\d{11,}$/.test(text)) {
    throw new HoldfastError('INVALID_PARAMETER', `${name} '${text.slice(0, 40)}' looks like milliseconds`, {
      hint: 'Give Unix seconds (10 digits) or RFC 3339 such as 2026-11-20T10:30:00Z.',
    });
  }
  const date = RFC3339.test(text) ? new Date(text.replace(' ', 'T')) : new Date(Number.NaN);
  if (Number.isNaN(date.getTime())) {
    throw new HoldfastError('INVALID_PARAMETER', `${name} '${text.slice(0, 40)}' is not a timestamp`, {
      hint: 'Give RFC 3339 with an offset, such as 2026-11-20T10:30:00Z, or Unix seconds.',
    });
  }
  return date;
}

/** Writes an instant as RFC 3339 UTC with milliseconds. */
export function toTimestamp(date: Date): string {
  return date.toISOString();
}
