import { pathToFileURL } from 'node:url';
import { type BuildOptions, build as bundle, type Plugin } from 'esbuild';

/** Drivers that their packages load only when asked to; nobody here asks. */
const OPTIONAL = ['pg-native', 'pg-cloudflare', 'bufferutil', 'utf-8-validate', 'supports-color', 'cpu-features'];

// Packages in CommonJS call require for Node's own modules. The import's name must be one that the minifier never makes.
const BANNER =
  "import { createRequire as holdfastCreateRequire } from 'node:module'; const require = holdfastCreateRequire(import.meta.url);";

/** zod brings its messages in fifty languages, a fifth of what the program would read at every start; English is used. */
const englishOnly: Plugin = {
  name: 'english-only',
  setup(build) {
    build.onLoad({ filter: /[\\/]zod[\\/]v4[\\/]locales[\\/]index\.js$/ }, () => ({
      contents: "export { default as en } from './en.js';",
    }));
  },
};

/** Whether the bundler reads a file as CommonJS. Asked without running it: ESM for bundlers need not load in Node. */
async function isCommonJs(file: string): Promise<boolean> {
  const alone: Plugin = {
    name: 'alone',
    setup({ onResolve }) {
      onResolve({ filter: /./ }, ({ kind }) => (kind === 'entry-point' ? undefined : { external: true }));
    },
  };
  const { metafile } = await bundle({
    entryPoints: [file],
    bundle: true,
    write: false,
    metafile: true,
    platform: 'node',
    plugins: [alone],
    logLevel: 'silent',
  });
  return Object.values(metafile.inputs)[0]?.format === 'cjs';
}

/**
 * Gives a CommonJS package that is loaded on first use the named exports that Node finds in it. A bundle would have its
 * `default` only, so that code which runs unbundled would break in the published program.
 */
const namedExports: Plugin = {
  name: 'named-exports',
  setup(build) {
    build.onResolve({ filter: /^[^./]/ }, async ({ path, kind, resolveDir, importer, pluginData }) => {
      if (kind !== 'dynamic-import' || path.startsWith('node:') || pluginData === 'resolved') return undefined;
      const found = await build.resolve(path, { kind, resolveDir, importer, pluginData: 'resolved' });
      if (found.errors.length > 0 || found.external || !found.path.includes('node_modules')) return found;
      if (!(await isCommonJs(found.path))) return found;
      const names = Object.keys(await import(pathToFileURL(found.path).href));
      return { path, namespace: 'named-exports', pluginData: { names, resolveDir, file: found.path } };
    });
    build.onLoad({ filter: /./, namespace: 'named-exports' }, ({ pluginData }) => {
      const { names, resolveDir, file } = pluginData as { names: string[]; resolveDir: string; file: string };
      const own = names.filter((name) => /^[A-Za-z_$][\w$]*$/.test(name) && name !== 'default');
      const lines = [
        `const all = require(${JSON.stringify(file)});`,
        'export default all;',
        ...own.map((name, index) => `const n${index} = all.${name}; export { n${index} as ${name} };`),
      ];
      return { contents: lines.join('\n'), loader: 'js', resolveDir };
    });
  },
};

/** How everything of ours is bundled, the published program as well as what the benchmarks compare it with. */
export const BUNDLE = {
  chunkNames: '[name]-[hash]',
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node22.13',
  minify: true,
  banner: { js: BANNER },
  legalComments: 'none',
  sourcemap: false,
  external: OPTIONAL,
  plugins: [englishOnly, namedExports],
  logLevel: 'warning',
} satisfies BuildOptions;
