import { HoldfastError } from '../core/errors.ts';

/** The longest name that PostgreSQL keeps, in bytes. */
const NAME_BYTES = 63;

/** Quotes an identifier. */
export function ident(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Quotes a string constant, whatever standard_conforming_strings is. */
export function literal(text: string): string {
  const quoted = `'${text.replaceAll("'", "''").replaceAll('\\', '\\\\')}'`;
  return text.includes('\\') ? ` E${quoted}` : quoted;
}

/**
 * Checks a database name that a caller gave.
 * @throws {HoldfastError} INVALID_PARAMETER
 */
export function checkDatabaseName(name: string): string {
  if (name === '' || Buffer.byteLength(name) > NAME_BYTES || /[\u0000-\u001f\u007f]/.test(name)) {
    throw new HoldfastError('INVALID_PARAMETER', 'a database name must have 1 to 63 bytes and no control characters');
  }
  return name;
}

/** Appends a suffix to a database name, shortening the name at a character's edge so that the whole fits. */
export function suffixed(name: string, suffix: string): string {
  let head = '';
  for (const character of name) {
    if (Buffer.byteLength(head + character + suffix) > NAME_BYTES) break;
    head += character;
  }
  return head + suffix;
}
