/**
 * Makes text from a provider or a database safe to return as data: control characters, bidirectional overrides and
 * zero-width characters are dropped, white space is folded, and the length is bounded.
 */
export function cleanText(text: unknown, maximum = 200): string {
  const folded = String(text ?? '')
    .normalize('NFC')
    .replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ')
    .replace(/[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u{e0000}-\u{e007f}]/gu, '')
    .replace(/\s+/g, ' ')
    .trim();
  const points = [...folded];
  return points.length <= maximum ? folded : `${points.slice(0, maximum - 1).join('')}…`;
}

/** Gives an identifier that a provider put on its answer, a request id; undefined for whatever else stands there. */
export function identifierText(value: unknown): string | undefined {
  return typeof value === 'string' && /^[\w.:/+=@-]{1,100}$/.test(value) ? value : undefined;
}

/** Gives the candidates closest to a word, nearest first, none that is too far off to be a slip. */
export function nearest(word: string, candidates: Iterable<string>, most = 3): string[] {
  const limit = Math.max(2, Math.floor(word.length / 3));
  return [...new Set(candidates)]
    .map((candidate) => ({ candidate, distance: editDistance(word.toLowerCase(), candidate.toLowerCase(), limit) }))
    .filter(({ distance }) => distance <= limit)
    .sort((a, b) => a.distance - b.distance || a.candidate.localeCompare(b.candidate))
    .slice(0, most)
    .map(({ candidate }) => candidate);
}

function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) > limit) return limit + 1;
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length]!;
}

/** Ends a sentence of a message with "did you mean …?" where something close exists, else lists what there is. */
export function didYouMean(word: string, candidates: Iterable<string>): string {
  const all = [...candidates];
  const close = nearest(word, all);
  if (close.length > 0) return `Did you mean ${close.join(' or ')}?`;
  return all.length === 0 ? '' : `There is: ${all.slice(0, 20).join(', ')}${all.length > 20 ? ', …' : ''}.`;
}
