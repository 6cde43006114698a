import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { startChild } from './child.ts';
import { formatLsn, parseLsn } from './wal.ts';
import type { EndReader } from './wal-ends.ts';

/**
 * Finds where pg_create_restore_point made a point of this name, in one archived segment: the last one, where there are
 * more. Undefined where the segment has none of this name or is not in the archive.
 */
export async function restorePointIn(
  reader: EndReader,
  segment: string,
  name: string,
  partial = false,
): Promise<string | undefined> {
  const { keys, signal } = reader;
  const folder = await mkdtemp(join(reader.directory, 'wal-point-'));
  try {
    const path = join(folder, segment);
    if (!(await reader.archive.get(segment, path, { keys, signal, partial }))) return undefined;
    const program = join(reader.binaries.directory, 'pg_waldump');
    const child = startChild(program, ['--rmgr=XLOG', path], { env: { LC_ALL: 'C', TZ: 'UTC' }, signal });
    let found: string | undefined;
    try {
      for await (const line of createInterface({ input: child.stdout, crlfDelay: Number.POSITIVE_INFINITY })) {
        // The name comes last and may hold whatever its maker liked.
        const record = /^rmgr: XLOG .*?\blsn: ([0-9A-F]+\/[0-9A-F]+), prev [0-9A-F/]+, desc: RESTORE_POINT (.*)$/.exec(
          line,
        );
        if (record?.[1] !== undefined && record[2] === name) found = formatLsn(parseLsn(record[1]));
      }
      // It ends with a complaint where the next segment would have to be read; what it found stands.
      if ((await child.ended).code === null) await child.succeed();
    } finally {
      await child.stop();
    }
    signal?.throwIfAborted();
    return found;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
