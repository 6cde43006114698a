import { z } from 'zod';

// zod writes and compiles a function for each object schema at its first use. A process checks most of its schemas a few
// times at most: compiling them is a tenth of a start, and megabytes that stay.
z.config({ jitless: true });
