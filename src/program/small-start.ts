import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { z } from 'zod';

// Loaded before everything else: what starts with every client, and mostly waits, should cost little.

z.config({
  // zod writes and compiles a function for each object schema at its first use, and reads this when a schema is made. A
  // process checks most of its schemas a few times at most: compiling them is a tenth of a start, and megabytes that stay.
  jitless: true,
  // Nor does it have to search each schema for circles before that: what is checked here was JSON or YAML, and has none.
  memoizer: { attach: () => {}, guard: () => {}, alloc: (_schema, _payload, empty) => empty },
});

/** How long a start may take, and nothing happen, until it is taken for waiting, in ms. */
const QUIET_MS = 1_000;

// While modules load, the space for young objects grows to 16 MB, and only a collection for lack of memory gives it back.
const quiet = setTimeout(() => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as (options: { type: 'major'; flavor: 'last-resort' }) => void;
  setFlagsFromString('--no-expose-gc');
  collect({ type: 'major', flavor: 'last-resort' });
}, QUIET_MS).unref();

/** Says that there is work to do: memory is left to grow with it. */
export function beginWork(): void {
  clearTimeout(quiet);
}
