import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The checkout. */
export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** Source text by path from the top of the checkout, `src/core/time.ts`. */
export type Sources = ReadonlyMap<string, string>;

export interface Import {
  readonly from: string;
  /** A path from the top of the checkout for our own files, else the module's name as written. */
  readonly to: string;
  readonly ours: boolean;
  /** Loaded when the line is reached, so after both files are in place. */
  readonly lazy: boolean;
}

/** Reads every TypeScript file below the given folders. */
export function readSources(...folders: string[]): Sources {
  const sources = new Map<string, string>();
  for (const folder of folders) {
    for (const entry of readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || !entry.name.endsWith('.ts')) continue;
      const path = join(entry.parentPath, entry.name).slice(ROOT.length);
      sources.set(path, readFileSync(join(ROOT, path), 'utf8'));
    }
  }
  return sources;
}

// The formatter fixes how these statements look, which is what makes patterns enough.
const STATIC = /^import\s+(?:type\s+)?[\w$*{}\s,]+?\s+from\s+'([^']+)'/gm;
const BARE = /^import\s+'([^']+)'/gm;
const RE_EXPORT = /^export\s+(?:type\s+)?(?:\*(?:\s+as\s+[\w$]+)?|\{[^}]*\})\s+from\s+'([^']+)'/gm;
const DYNAMIC = /\bimport\(\s*'([^'\n]+)'/g;

/** Finds what every file imports: statements, re-exports, dynamic imports and types. */
export function findImports(sources: Sources): Import[] {
  return [...sources].flatMap(([from, text]) => {
    const code = withoutComments(text);
    return [STATIC, BARE, RE_EXPORT, DYNAMIC].flatMap((pattern) =>
      [...code.matchAll(pattern)].map(([, name = '']) => {
        const ours = name.startsWith('.');
        return { from, to: ours ? normalize(join(dirname(from), name)) : name, ours, lazy: pattern === DYNAMIC };
      }),
    );
  });
}

/** Drops comments that stand on lines of their own, and what is written after code on a line. */
export function withoutComments(text: string): string {
  return text.replace(/^\s*\/\*[\s\S]*?\*\//gm, '').replace(/(^|\s)\/\/ .*$/gm, '$1');
}

/** Drops comments and what stands between single quotes. */
export function withoutWords(text: string): string {
  return withoutComments(text).replace(/'(?:[^'\\\n]|\\.)*'/g, "''");
}
