import { mkdir, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import { formatBytes } from '../core/time.ts';

/**
 * Makes sure that a directory of this machine has room, before anything is written there.
 * @throws {HoldfastError} QUOTA_EXCEEDED
 */
export async function assertRoom(directory: string, bytes: number, why: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  const { bavail, bsize } = await statfs(directory);
  const free = bavail * bsize;
  const wanted = Math.ceil(bytes * 1.05);
  if (free >= wanted) return;
  throw new HoldfastError(
    'QUOTA_EXCEEDED',
    `the scratch directory has ${formatBytes(free)} free, and ${formatBytes(wanted)} are needed`,
    {
      hint: `${why} Free space there, or set scratch_dir of this entity to a larger disk. Nothing was written.`,
    },
  );
}

/** Names the directory that a backup uses on this machine while it runs. */
export function backupScratch(scratch: string, id: string): string {
  return join(scratch, `holdfast-backup-${id}`);
}
