import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { findImports, type Import, ROOT, readSources, type Sources, withoutWords } from './support/source.ts';

/**
 * Who may import whom. A file belongs to the first layer whose path it starts with; `*` is one name, and `$1` in
 * `may` is what it stood for. Every layer may import itself.
 */
const LAYERS: readonly { readonly layer: string; readonly may: readonly string[] | 'anything' }[] = [
  { layer: 'src/core/', may: [] },
  { layer: 'src/resilience/', may: ['src/core/'] },
  { layer: 'src/observability/', may: ['src/core/'] },
  { layer: 'src/simulators/', may: ['src/core/'] },
  { layer: 'src/state/', may: ['src/core/'] },
  { layer: 'guards/', may: ['src/core/'] },
  // The schema of a store belongs to the stores; what a file may say of them is the same everywhere.
  { layer: 'src/config/', may: ['src/core/', 'src/resilience/', 'src/storage/config.ts'] },
  // Stores of a cloud take its credentials as its databases do.
  {
    layer: 'src/storage/',
    may: ['src/core/', 'src/resilience/', 'src/providers/*.ts', 'src/config/values.ts'],
  },
  { layer: 'src/postgres/', may: ['src/core/', 'src/resilience/', 'src/storage/'] },
  {
    layer: 'src/providers/postgresql/',
    may: ['src/core/', 'src/resilience/', 'src/providers/*.ts', 'src/postgres/', 'src/storage/'],
  },
  { layer: 'src/providers/*/', may: ['src/core/', 'src/resilience/', 'src/providers/*.ts'] },
  // Code that several providers share; it knows none of them.
  { layer: 'src/providers/*.ts', may: ['src/core/', 'src/resilience/', 'src/providers/*.ts'] },
  { layer: 'tools/index.ts', may: ['tools/'] },
  { layer: 'tools/postgresql-*.ts', may: ['src/core/', 'src/providers/postgresql/'] },
  { layer: 'tools/*.ts', may: ['src/core/', 'src/providers/$1/'] },
  {
    layer: 'src/engine/',
    may: ['src/core/', 'src/config/', 'src/observability/', 'src/resilience/', 'src/state/', 'tools/', 'guards/'],
  },
  { layer: 'src/schedule/', may: ['src/core/', 'src/config/', 'src/engine/'] },
  // What serves agents knows nothing of the terminal.
  { layer: 'src/surfaces/mcp/', may: ['src/core/', 'src/engine/', 'src/surfaces/*.ts'] },
  { layer: 'src/surfaces/', may: ['src/core/', 'src/engine/'] },
  { layer: 'src/program/', may: 'anything' },
  { layer: 'src/main.ts', may: ['src/program/'] },
  { layer: 'scripts/', may: 'anything' },
  { layer: 'test/', may: 'anything' },
  { layer: 'vitest.config.ts', may: [] },
];

function matches(pattern: string, path: string): RegExpExecArray | null {
  const source = pattern.replace(/[.$]/g, '\\$&').replace('*', '([^/]+)');
  return new RegExp(`^${source}${pattern.endsWith('.ts') ? '$' : ''}`).exec(path);
}

function layerOf(path: string): { layer: string; name: string; may: readonly string[] | 'anything' } | undefined {
  for (const { layer, may } of LAYERS) {
    const match = matches(layer, path);
    if (match) return { layer, name: match[1] ?? '', may };
  }
  return undefined;
}

function crossings(imports: readonly Import[]): string[] {
  const faults: string[] = [];
  for (const { from, to, ours } of imports) {
    if (!ours) continue;
    const layer = layerOf(from);
    if (layer === undefined) {
      faults.push(`${from} belongs to no layer`);
      continue;
    }
    if (layer.may === 'anything') continue;
    const own = layer.layer.replace('*', layer.name);
    const allowed = [own, ...layer.may.map((pattern) => pattern.replace('$1', layer.name))];
    if (!allowed.some((pattern) => matches(pattern, to))) faults.push(`${from} imports ${to}`);
  }
  return faults;
}

/**
 * Every import that leads back to where it came from, as the path it takes. Imports of types count as well; lazy ones do
 * not: a provider's declaration loads its client on the first call, and the client knows the declaration.
 */
function cycles(imports: readonly Import[]): string[] {
  const next = new Map<string, string[]>();
  for (const { from, to, ours, lazy } of imports) {
    if (ours && !lazy) next.set(from, [...(next.get(from) ?? []), to]);
  }
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (path: string, trail: readonly string[]): void => {
    if (trail.includes(path)) {
      found.push([...trail.slice(trail.indexOf(path)), path].join(' -> '));
      return;
    }
    if (done.has(path)) return;
    for (const to of next.get(path) ?? []) visit(to, [...trail, path]);
    done.add(path);
  };
  for (const path of next.keys()) visit(path, []);
  return found;
}

/** Every place where code matches a pattern, comments and strings aside. */
function places(sources: Sources, pattern: RegExp, except: (path: string) => boolean = () => false): string[] {
  return [...sources].flatMap(([path, text]) => {
    if (except(path)) return [];
    return [...withoutWords(text).matchAll(pattern)].map((match) => `${path}: ${match[0].trim()}`);
  });
}

/** Exported functions and classes without a docstring directly above. Types speak for themselves. */
function undocumented(sources: Sources): string[] {
  const declaration =
    /^export (?:abstract )?(?:(?:async )?function\*? ([\w$]+)|class ([\w$]+)|const ([\w$]+)(?:: [^=\n]+)? = (?:async )?(?:<[^>\n]*>)?\([^\n]*\)(?:: [^\n]+)? =>)/gm;
  return [...sources].flatMap(([path, text]) =>
    [...text.matchAll(declaration)]
      .filter((match) => !/\*\/\s*$/.test(text.slice(0, match.index)) && !isOverload(text, match))
      .map((match) => `${path}: ${match[1] ?? match[2] ?? match[3]}`),
  );
}

/** The signatures of an overloaded function share the docstring of the first. */
function isOverload(text: string, match: RegExpExecArray): boolean {
  return match[1] !== undefined && new RegExp(`^export function ${match[1]}\\b`, 'm').exec(text)?.index !== match.index;
}

const code = readSources('src', 'tools', 'guards');
const everything = new Map([...code, ...readSources('scripts', 'test')]);
const imports = findImports(everything);
const isCli = (path: string): boolean => path.startsWith('src/surfaces/cli/');

describe('the code', () => {
  it('is found at all', () => {
    expect(code.size).toBeGreaterThan(40);
    expect(imports.length).toBeGreaterThan(code.size);
  });

  it('imports only along the layers', () => {
    expect(crossings(imports)).toEqual([]);
  });

  it('names every imported file as it is on disk', () => {
    const missing = findImports(code).filter(({ to, ours }) => ours && !everything.has(to));
    expect(missing.map(({ from, to }) => `${from}: ${to}`)).toEqual([]);
  });

  it('has no import cycles', () => {
    expect(cycles(findImports(code))).toEqual([]);
  });

  it('lets only the program and tests know the simulators', () => {
    const knowing = imports
      .filter(({ to }) => to.startsWith('src/simulators/'))
      .map(({ from }) => from)
      .filter((from) => !/^(src\/(simulators|program)|test|scripts)\//.test(from));
    expect(knowing).toEqual([]);
  });

  it('loads only the Google APIs that it uses, never all of them', () => {
    expect(imports.filter(({ to }) => to === 'googleapis')).toEqual([]);
  });

  it('imports no module under a computed name, which no check and no bundle could see', () => {
    expect(places(code, /\simport\((?!\s*''\s*\))[^)]*\)/g)).toEqual([]);
  });

  it('leaves standard output to the protocol: console is for the command line alone', () => {
    expect(places(code, /\bconsole\.\w+/g, isCli)).toEqual([]);
  });

  it('has no default exports', () => {
    expect(places(code, /^export default\b.*/gm)).toEqual([]);
  });

  it('lets only the engine run an action or lay out its steps', () => {
    const running = /\b(?:\w*action|tool|declaration|spec|candidate|known)\b[?!]?\.(?:run|steps)[?!]?\.?\(/gi;
    expect(places(code, running, (path) => path.startsWith('src/engine/'))).toEqual([]);
  });

  it('reads arguments and environment only where the program is put together', () => {
    const allowed = (path: string): boolean => path === 'src/main.ts' || path.startsWith('src/program/');
    expect(places(code, /\bprocess\.(?:argv|env)\b/g, allowed)).toEqual([]);
  });

  it('says what every exported function and class does', () => {
    expect(undocumented(code)).toEqual([]);
  });

  it('carries no suppressions and nothing unfinished', () => {
    // Put together from halves, so that this file does not find itself.
    const marks = ['\\bTO' + 'DO\\b', '\\bFIX' + 'ME\\b', '@ts-(?:ign' + 'ore|no' + 'check)', 'biome-' + 'ignore'];
    const found = [...everything].flatMap(([path, text]) =>
      [...text.matchAll(new RegExp(marks.join('|'), 'g'))].map((match) => `${path}: ${match[0]}`),
    );
    expect(found).toEqual([]);
  });

  it('needs nothing at run time that is not in the bundle', () => {
    const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
    expect(manifest).not.toHaveProperty('dependencies');
    expect(manifest).not.toHaveProperty('peerDependencies');
    const known = new Set(Object.keys(manifest.devDependencies));
    const foreign = imports
      .filter(({ to, ours }) => !ours && !to.startsWith('node:'))
      .map(({ from, to }) => ({ from, name: /^(?:@[^/]+\/)?[^/]+/.exec(to)?.[0] ?? to }))
      .filter(({ name }) => !known.has(name));
    expect(foreign).toEqual([]);
  });
});

describe('the checks themselves', () => {
  const read = (files: Record<string, string>): Import[] => findImports(new Map(Object.entries(files)));

  it('see every kind of import', () => {
    const text = [
      "import { a,\n  b } from './a.ts';",
      "import type { c } from './c.ts';",
      "import * as d from './d.ts';",
      "import './e.ts';",
      "export * as f from './f.ts';",
      "export { g } from './g.ts';",
      "const h = await import('./h.ts');",
      "type I = import('./i.ts').I;",
      "// import { j } from './j.ts';",
    ].join('\n');
    const found = read({ 'src/core/x.ts': text }).map(({ to }) => to);
    expect(found.sort()).toEqual('acdefghi'.split('').map((name) => `src/core/${name}.ts`));
  });

  it.each([
    ['src/core/x.ts', '../engine/api.ts', 'src/engine/api.ts'],
    ['src/simulators/neon.ts', '../providers/neon/map.ts', 'src/providers/neon/map.ts'],
    ['src/providers/neon/client.ts', '../gcp-firestore/map.ts', 'src/providers/gcp-firestore/map.ts'],
    ['src/providers/neon/client.ts', '../../storage/storage.ts', 'src/storage/storage.ts'],
    ['tools/neon.ts', '../src/providers/postgresql/provider.ts', 'src/providers/postgresql/provider.ts'],
    ['tools/neon.ts', './fleet.ts', 'tools/fleet.ts'],
    ['guards/guard.ts', '../src/engine/api.ts', 'src/engine/api.ts'],
    ['src/surfaces/mcp/x.ts', '../cli/do.ts', 'src/surfaces/cli/do.ts'],
    ['src/surfaces/mcp/x.ts', '../../../tools/index.ts', 'tools/index.ts'],
  ])('refuse %s importing %s', (from, name, to) => {
    expect(crossings(read({ [from]: `import { x } from '${name}';` }))).toEqual([`${from} imports ${to}`]);
  });

  it.each([
    ['src/providers/postgresql/client.ts', '../../storage/storage.ts'],
    ['src/providers/neon/client.ts', '../rest.ts'],
    ['src/providers/neon/client.ts', './map.ts'],
    ['tools/neon.ts', '../src/providers/neon/provider.ts'],
    ['src/surfaces/mcp/x.ts', '../render.ts'],
    ['src/engine/engine.ts', '../../guards/guard.ts'],
  ])('allow %s importing %s', (from, name) => {
    expect(crossings(read({ [from]: `import { x } from '${name}';` }))).toEqual([]);
  });

  it('see a cycle through a third file', () => {
    const round = read({
      'src/core/a.ts': "import { b } from './b.ts';",
      'src/core/b.ts': "import { c } from './c.ts';",
      'src/core/c.ts': "import type { a } from './a.ts';",
    });
    expect(cycles(round)).toEqual(['src/core/a.ts -> src/core/b.ts -> src/core/c.ts -> src/core/a.ts']);
  });

  it('see what has no docstring', () => {
    const text = [
      '/** Does it. */\nexport function told(): void {}',
      'export function untold(): void {}',
      'export class Untold {}',
      'export const arrow = (a: string): string => a;',
      'export const value = make({ run: () => 1 });',
      '/** Either way. */\nexport function twice(a: string): void;\nexport function twice(a: number): void;',
    ].join('\n');
    expect(undocumented(new Map([['x.ts', text]]))).toEqual(['x.ts: untold', 'x.ts: Untold', 'x.ts: arrow']);
  });
});
