import { HoldfastError } from '../../core/errors.ts';
import { Repository } from '../../postgres/repository.ts';
import type { Host } from './entity.ts';

/** Where restores, of whatever kind, leave their notes. */
export const RESTORE_LEDGER = 'postgresql-restore';

/**
 * The backups that a restore takes its own from: those of this entity, or of a source that it may bring here.
 * @throws {HoldfastError} INVALID_PARAMETER
 */
export function restorableFrom(host: Pick<Host, 'entity' | 'repository'>, from_source: string | undefined): Repository {
  const own = host.repository();
  if (from_source === undefined || from_source === own.sourceId) return own;
  const allowed = host.entity.restore_from ?? [];
  if (allowed.includes(from_source)) return new Repository(own.store, from_source);
  throw new HoldfastError('INVALID_PARAMETER', 'this entity may not restore backups of that source', {
    hint:
      allowed.length === 0
        ? 'Whoever keeps the entities file can allow it: restore_from lists sources in the same storage whose backups may come here. Nothing was changed.'
        : `restore_from of this entity allows ${allowed.slice(0, 10).join(', ')}. Nothing was changed.`,
  });
}
