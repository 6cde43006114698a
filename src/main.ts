#!/usr/bin/env node
// Kept free of imports that an old Node could not load: its first duty is to say which Node is needed.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import * as nodeModule from 'node:module';
import { constants, homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NEEDED = [22, 13] as const;

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
if (major > NEEDED[0] || (major === NEEDED[0] && minor >= NEEDED[1])) {
  // Compiling the bundle is a third of a start. The cache lies where only this user can write.
  const cache =
    process.env['XDG_CACHE_HOME'] || join(homedir(), process.platform === 'darwin' ? 'Library/Caches' : '.cache');
  nodeModule.enableCompileCache?.(join(cache, 'holdfast', 'compiled'));
  await import('./program/small-start.ts');
  const { main } = await import('./program/program.ts');
  process.exitCode = await main();
} else {
  // A checkout brings its own Node; clients that start it with the host's older one get the right one.
  const own = fileURLToPath(new URL('../node_modules/node/bin/node', import.meta.url));
  if (existsSync(own)) {
    const child = spawn(own, process.argv.slice(1), { stdio: 'inherit' });
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
    child.on('exit', (code, signal) => {
      process.exitCode = code ?? 128 + (constants.signals[signal ?? 'SIGTERM'] ?? 0);
    });
  } else {
    process.stderr.write(`holdfast needs Node.js ${NEEDED.join('.')} or newer; this is ${process.versions.node}\n`);
    process.exitCode = 1;
  }
}
