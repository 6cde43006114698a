import { type Dirent, readdirSync } from 'node:fs';
import { join, parse, sep } from 'node:path';

const MOST_ENTRIES = 10_000;

/** Tells whether a path holds a wildcard. */
export function isGlob(path: string): boolean {
  return /[*?]/.test(path);
}

/** Matches `*` (any run of characters) and `?` (any one); everything else stands for itself. Takes time proportional to both lengths. */
export function matchesWildcards(glob: string, text: string): boolean {
  let g = 0;
  let star = -1;
  let retry = 0;
  for (let t = 0; t < text.length; ) {
    if (g < glob.length && glob[g] === '*') {
      star = g;
      retry = t;
      g += 1;
    } else if (g < glob.length && (glob[g] === '?' || glob[g] === text[t])) {
      g += 1;
      t += 1;
    } else if (star !== -1) {
      // The last star takes one character more.
      retry += 1;
      t = retry;
      g = star + 1;
    } else {
      return false;
    }
  }
  return /^\**$/.test(glob.slice(g));
}

/**
 * Gives the files that an absolute glob matches, in the order of their names. `**` stands for any number of folders;
 * hidden names are matched only by a pattern that begins with a dot.
 */
export function expandGlob(glob: string): string[] {
  const { root } = parse(glob);
  const found = new Set<string>();
  let seen = 0;
  const enter = (folder: string, patterns: readonly string[]): void => {
    const [pattern, ...rest] = patterns;
    if (pattern === undefined) return;
    if (!isGlob(pattern) && rest.length > 0) {
      enter(join(folder, pattern), rest);
      return;
    }
    if (pattern === '**') enter(folder, rest);
    for (const entry of entriesOf(folder)) {
      seen += 1;
      if (seen > MOST_ENTRIES) return;
      if (entry.name.startsWith('.') && !pattern.startsWith('.')) continue;
      const path = join(folder, entry.name);
      if (pattern === '**') {
        if (entry.isDirectory()) enter(path, patterns);
        else if (rest.length === 0) found.add(path);
      } else if (matchesWildcards(pattern, entry.name)) {
        if (rest.length > 0) enter(path, rest);
        else if (!entry.isDirectory()) found.add(path);
      }
    }
  };
  enter(root, glob.slice(root.length).split(sep));
  return [...found].sort();
}

function entriesOf(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch {
    // A folder that is not there, or is none, holds no files.
    return [];
  }
}
