import { sha256 } from '../src/core/json.ts';

// Without 0, 1, I, L, O and U: read out over a telephone, none is taken for another, and no words appear.
const ALPHABET = '23456789ABCDEFGHJKMNPQRSTVWXYZ';

export interface FreshToken {
  /** `hfc_` and 128 random bits; given out once, never stored. */
  readonly token: string;
  readonly sha256: string;
  /** For people: `7K3Q-F2MD`. Names a confirmation, proves nothing. */
  readonly code: string;
}

/** Makes a confirmation token and its short code from a source of random bytes. */
export function freshToken(random: (bytes: number) => Buffer): FreshToken {
  const token = `hfc_${random(16).toString('base64url')}`;
  const letters: string[] = [];
  while (letters.length < 8) {
    for (const byte of random(16)) {
      // Bytes past the last whole multiple would make the first letters likelier.
      if (byte < ALPHABET.length * Math.floor(256 / ALPHABET.length) && letters.length < 8)
        letters.push(ALPHABET[byte % ALPHABET.length]!);
    }
  }
  return { token, sha256: sha256(token), code: `${letters.slice(0, 4).join('')}-${letters.slice(4).join('')}` };
}

/** Tells whether a text has the form of a confirmation token. */
export function isToken(text: string): boolean {
  return /^hfc_[A-Za-z0-9_-]{22}$/.test(text);
}

/** Brings a code as a person types it into the form in which it is stored. */
export function normalCode(text: string): string {
  const letters = text.toUpperCase().replace(/[^A-Z0-9]/g, '');
  return `${letters.slice(0, 4)}-${letters.slice(4)}`;
}
