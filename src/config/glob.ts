import { type Dirent, readdirSync } from 'node:fs';
import { dirname, join, parse, sep } from 'node:path';

const MOST_ENTRIES = 10_000;

/** Tells whether a path holds a wildcard. */
export function isGlob(path: string): boolean {
  return /[*?]/.test(path);
}

/** Matches `*` and `?` within one name, and `**` over any number of names. */
export function globToRegExp(glob: string): RegExp {
  const source = glob
    .split('/')
    .map((name, index, all) => {
      if (name === '**') return index === all.length - 1 ? '.*' : '(?:[^/]+/)*';
      const text = name
        .replace(/[\\^$.+()[\]{}|]/g, '\\$&')
        .replace(/\*+/g, '[^/]*')
        .replaceAll('?', '[^/]');
      return index === all.length - 1 ? text : `${text}/`;
    })
    .join('');
  return new RegExp(`^${source}$`);
}

/** Gives the files that an absolute glob matches, in the order of their names; hidden ones only where the glob names them. */
export function expandGlob(glob: string): string[] {
  let root = glob;
  while (isGlob(root)) root = dirname(root);
  const pattern = globToRegExp(glob.split(sep).join('/'));
  const deep = glob.includes('**');
  const depth = glob.slice(parse(glob).root.length).split(sep).length;
  const found: string[] = [];
  let seen = 0;
  const enter = (directory: string): void => {
    for (const entry of entriesOf(directory)) {
      seen += 1;
      if (seen > MOST_ENTRIES) return;
      const path = join(directory, entry.name);
      if (entry.name.startsWith('.') && !glob.includes(`${sep}.`)) continue;
      const level = path.slice(parse(path).root.length).split(sep).length;
      if (entry.isDirectory() && (deep || level < depth)) enter(path);
      else if (!entry.isDirectory() && pattern.test(path.split(sep).join('/'))) found.push(path);
    }
  };
  enter(root);
  return found.sort();
}

function entriesOf(directory: string): Dirent[] {
  try {
    return readdirSync(directory, { withFileTypes: true });
  } catch {
    // A folder that is not there holds no files.
    return [];
  }
}
