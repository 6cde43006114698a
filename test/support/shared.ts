import { execFile } from 'node:child_process';
import { access, copyFile, mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { bundleInto } from './bundled.ts';
import { ROOT } from './source.ts';

/** Makes a directory that several test files need, once for the whole run, and gives its path. Whoever comes first makes it. */
async function shared(name: string, make: (directory: string) => Promise<void>): Promise<string> {
  const place = process.env['HOLDFAST_TEST_SHARED'];
  if (place === undefined) throw new Error('run the tests with vitest: its global setup makes the shared directory');
  const made = join(place, name);
  const failed = `${made}.failed`;
  const isThere = (path: string): Promise<boolean> =>
    access(path).then(
      () => true,
      () => false,
    );
  const first = await mkdir(`${made}.lock`).then(
    () => true,
    () => false,
  );
  if (first) {
    try {
      await mkdir(`${made}.making`);
      await make(`${made}.making`);
      await rename(`${made}.making`, made);
    } catch (cause) {
      await writeFile(failed, String(cause));
      throw cause;
    }
  }
  // Another process makes it; files are all that they have in common.
  while (!(await isThere(made))) {
    if (await isThere(failed)) throw new Error(`${name} could not be made: see the test file that made it`);
    await setTimeout(50);
  }
  return made;
}

/** The program as it is published: a folder with `package.json` and `dist/`. It starts in half the time of its sources. */
export function builtProgram(): Promise<string> {
  return shared('program', async (folder) => {
    await copyFile(join(ROOT, 'package.json'), join(folder, 'package.json'));
    const script = join(ROOT, 'scripts', 'build.ts');
    await promisify(execFile)(process.execPath, [script, `--outdir=${join(folder, 'dist')}`], { cwd: ROOT });
  });
}

/** The process that dies in the middle of a call to PostgreSQL, bundled for the same reason. Gives what Node starts. */
export async function postgresVictim(): Promise<string> {
  const folder = await shared('postgres-victim', async (directory) => {
    await bundleInto(directory, new URL('./postgres-victim.ts', import.meta.url));
  });
  return join(folder, 'program.mjs');
}
