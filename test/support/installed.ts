import { chmodSync, copyFileSync, cpSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { builtProgram } from './shared.ts';

/**
 * Puts the built program into a new directory that every account can read, as an installation is, with `bin/holdfast` and
 * `bin/node` in it. Gives the directory: a short path, for sockets may live below it.
 */
export async function installForEverybody(prefix: string): Promise<string> {
  const directory = mkdtempSync(`/tmp/${prefix}`);
  chmodSync(directory, 0o755);
  cpSync(await builtProgram(), join(directory, 'program'), { recursive: true });
  mkdirSync(join(directory, 'bin'));
  const node = join(directory, 'bin', 'node');
  copyFileSync(process.execPath, node);
  const holdfast = join(directory, 'bin', 'holdfast');
  writeFileSync(holdfast, `#!/bin/sh\nexec "${node}" "${join(directory, 'program', 'dist', 'main.js')}" "$@"\n`);
  for (const file of [node, holdfast]) chmodSync(file, 0o755);
  return directory;
}
