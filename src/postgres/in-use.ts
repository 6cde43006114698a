import { HoldfastError } from '../core/errors.ts';
import type { Work } from './work.ts';

/** How long a note of use counts when whoever wrote it died: longer than any restore should take. */
const LEASE_MS = 48 * 3600 * 1000;

/**
 * Does something that reads a backup for long (a restore, a verification, an incremental backup that rests on it) and says
 * so in the storage meanwhile, so that no prune on any machine takes the backup away. A storage that cannot be written does
 * not keep anybody from restoring.
 */
export async function whileInUse<T>(
  { repository, runtime }: Pick<Work, 'repository' | 'runtime'>,
  id: string,
  purpose: string,
  work: () => Promise<T>,
): Promise<T> {
  const now = runtime.now();
  let done = async (): Promise<void> => {};
  try {
    runtime.assertMayWrite('noting that a backup is in use');
    done = await repository.noteUse(
      {
        schema: 'holdfast.pg.use/1',
        backup_id: id,
        purpose,
        since: now.toISOString(),
        expires_at: new Date(now.getTime() + LEASE_MS).toISOString(),
      },
      runtime.random(6).toString('hex'),
    );
  } catch (cause) {
    if (!(cause instanceof HoldfastError) || cause.code === 'INTERNAL') throw cause;
    runtime.log.warn('the use of a backup could not be noted in the storage', { id, code: cause.code });
  }
  try {
    return await work();
  } finally {
    await done().catch((cause: unknown) => {
      runtime.log.warn('a note of use of a backup could not be removed', { id, reason: String(cause) });
    });
  }
}
