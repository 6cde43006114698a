import { setFlagsFromString } from 'node:v8';
import { z } from 'zod';

// Loaded before everything else: what starts with every client, and mostly waits, should cost little.

// zod writes and compiles a function for each object schema at its first use, and reads this when a schema is made. A
// process checks most of its schemas a few times at most: compiling them is a tenth of a start, and megabytes that stay.
z.config({ jitless: true });

// The space for young objects grows sixteenfold while modules load, and is not given back: 12 MB of a process that waits.
setFlagsFromString('--semi-space-growth-factor=1');

/** Lets memory grow with the work from now on, as it does by default. */
export function growWithWork(): void {
  setFlagsFromString('--semi-space-growth-factor=2');
}
