import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './source.ts';

/**
 * Builds the program into a new directory that every account can read, as an installation is, with `bin/holdfast` and
 * `bin/node` in it. Gives the directory: a short path, for sockets may live below it.
 */
export function installForEverybody(prefix: string): string {
  const directory = mkdtempSync(`/tmp/${prefix}`);
  chmodSync(directory, 0o755);
  const outdir = join(directory, 'program', 'dist');
  execFileSync(process.execPath, [join(ROOT, 'scripts', 'build.ts'), `--outdir=${outdir}`], {
    cwd: ROOT,
    stdio: 'ignore',
  });
  copyFileSync(join(ROOT, 'package.json'), join(directory, 'program', 'package.json'));
  mkdirSync(join(directory, 'bin'));
  const node = join(directory, 'bin', 'node');
  copyFileSync(process.execPath, node);
  const holdfast = join(directory, 'bin', 'holdfast');
  writeFileSync(holdfast, `#!/bin/sh\nexec "${node}" "${join(outdir, 'main.js')}" "$@"\n`);
  for (const file of [node, holdfast]) chmodSync(file, 0o755);
  return directory;
}
