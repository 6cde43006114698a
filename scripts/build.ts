import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Metafile, type Plugin } from 'esbuild';
import { registry } from '../src/program/open.ts';
import { makeListedSchemas } from '../src/surfaces/mcp/prepared.ts';
import { toolName } from '../src/surfaces/mcp/tools.ts';
import { BUNDLE } from './bundle.ts';
import { noticesFor } from './notices.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
// `--outdir=FOLDER` builds elsewhere, for tests that start the program often.
const OUT = resolve(option('outdir') ?? join(ROOT, 'dist'));
/** Where the program begins once the machine is found fit. */
const START = 'src/program/program.ts';

const begun = performance.now();
const OPTIONS = {
  absWorkingDir: ROOT,
  entryPoints: { main: 'src/main.ts' },
  outdir: OUT,
  ...BUNDLE,
  define: { HOLDFAST_LISTED_SCHEMAS: JSON.stringify(listedSchemas()) },
  metafile: true,
  write: false,
} as const;
const stop = (): never => process.exit(1); // what is wrong is printed already
const split = await build(OPTIONS).catch(stop);
const { outputFiles, metafile, warnings } = await build({
  ...OPTIONS,
  plugins: [...OPTIONS.plugins, together(startFiles(split.metafile), lateFiles(split.metafile))],
}).catch(stop);
if (warnings.length > 0) {
  console.error(`${warnings.length} warnings: a bundle that needs a second look is not shipped`);
  process.exit(1);
}

const files = new Map(outputFiles.map(({ path, contents }) => [relative(OUT, path), contents]));
const notices = noticesFor(ROOT, bundledFiles(metafile));
files.set('THIRD_PARTY_NOTICES.txt', Buffer.from(notices.text));
replaceFolder(OUT, files);
// For whoever asks what is in which chunk: `node scripts/build.ts --metafile=FILE`.
const asked = option('metafile');
if (asked !== undefined) writeFileSync(asked, JSON.stringify(metafile));
chmodSync(join(OUT, 'main.js'), 0o755);
report();

function option(name: string): string | undefined {
  return process.argv.find((argument) => argument.startsWith(`--${name}=`))?.slice(name.length + 3);
}

/** The schemas of all tools, as JSON. */
function listedSchemas(): string {
  const actions = [...registry.fleet, ...registry.actions.filter(({ shared }) => !shared)];
  return JSON.stringify(Object.fromEntries(actions.map((action) => [toolName(action), makeListedSchemas(action)])));
}

/** Our own files that every start loads. */
function startFiles({ outputs }: Metafile): string[] {
  const seen = new Set<string>();
  const visit = (name: string): void => {
    if (seen.has(name)) return;
    seen.add(name);
    for (const { path, kind } of outputs[name]?.imports ?? []) if (kind === 'import-statement') visit(path);
  };
  for (const [name, { entryPoint }] of Object.entries(outputs)) if (entryPoint === START) visit(name);
  const files = [...seen].flatMap((name) => Object.keys(outputs[name]?.inputs ?? {}));
  return files.filter((file) => !file.includes('node_modules') && file !== START);
}

/** Our own files that are loaded by a call of `import`, once the program runs. */
function lateFiles({ outputs }: Metafile): string[] {
  return Object.values(outputs).flatMap(({ entryPoint }) =>
    entryPoint?.startsWith('src/') && ![START, 'src/main.ts', 'src/program/small-start.ts'].includes(entryPoint)
      ? [entryPoint]
      : [],
  );
}

/**
 * Has the bundler keep in one module what every start loads: it would make one of each set of files that the same late
 * files share, some forty, and finding each costs as much as running it. A late file that says that it needs all of them
 * loses nothing: they are there when it comes.
 */
function together(first: readonly string[], late: readonly string[]): Plugin {
  return {
    name: 'together',
    setup({ onLoad, onResolve }) {
      onResolve({ filter: /^holdfast:start$/ }, () => ({ path: 'start', namespace: 'start' }));
      onLoad({ filter: /./, namespace: 'start' }, () => ({
        contents: first.map((file) => `import ${JSON.stringify(join(ROOT, file))};`).join('\n'),
        resolveDir: ROOT,
      }));
      onLoad({ filter: /\.ts$/ }, ({ path }) => {
        const file = relative(ROOT, path);
        const text = readFileSync(path, 'utf8');
        if (first.includes(file)) return { contents: alreadyHere(text, file, first), loader: 'ts' };
        return late.includes(file) ? { contents: `${text}\nimport 'holdfast:start';`, loader: 'ts' } : undefined;
      });
    },
  };
}

/** Turns late imports of what is loaded at every start into what they come to: a promise of what is there. */
function alreadyHere(text: string, file: string, first: readonly string[]): string {
  const names = new Map<string, string>();
  const turned = text.replace(/\bimport\('(\.[^']+)'\)/g, (call, path: string) => {
    if (!first.includes(join(dirname(file), path))) return call;
    const name = names.get(path) ?? `alreadyHere${names.size}`;
    names.set(path, name);
    return `Promise.resolve(${name})`;
  });
  return [...[...names].map(([path, name]) => `import * as ${name} from '${path}';`), turned].join('\n');
}

/** Files of which something is really in the output. */
function bundledFiles({ outputs }: Metafile): string[] {
  const used = new Set<string>();
  for (const { inputs } of Object.values(outputs)) {
    for (const [path, { bytesInOutput }] of Object.entries(inputs)) if (bytesInOutput > 0) used.add(path);
  }
  return [...used];
}

/** Writes only what differs and removes only what is left over: a server that runs from this folder keeps its chunks. */
function replaceFolder(folder: string, wanted: ReadonlyMap<string, Uint8Array>): void {
  mkdirSync(folder, { recursive: true });
  for (const [name, contents] of wanted) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    if (!existsSync(path) || !readFileSync(path).equals(contents)) writeFileSync(path, contents);
  }
  for (const entry of readdirSync(folder)) if (!wanted.has(entry)) rmSync(join(folder, entry), { recursive: true });
}

/** What the entry loads before it answers anything, as against what waits for its provider's first call. */
function report(): void {
  const sizes = [...files].map(([name, { length }]) => ({ name, length }));
  const total = sizes.reduce((sum, { length }) => sum + length, 0);
  const chunks = sizes.filter(({ name }) => name.endsWith('.js')).sort((a, b) => b.length - a.length);
  console.log(`dist: ${chunks.length} modules, ${kilobytes(total)}, ${notices.packages} packages inside`);
  for (const { name, length } of chunks.slice(0, 8)) console.log(`  ${kilobytes(length).padStart(9)}  ${name}`);
  console.log(`built in ${Math.round(performance.now() - begun)} ms`);
}

function kilobytes(bytes: number): string {
  return `${Math.round(bytes / 1000).toLocaleString('en')} kB`;
}
