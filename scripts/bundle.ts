import type { BuildOptions, Plugin } from 'esbuild';

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
  plugins: [englishOnly],
  logLevel: 'warning',
} satisfies BuildOptions;
