import type { z } from 'zod';
import type { RecoveryPoint } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { dataOf, isLogical, type LogicalManifest, type Manifest, timeOfId, typeOf } from '../../postgres/manifest.ts';
import type { Backup, Catalogue, Repository } from '../../postgres/repository.ts';

const KINDS = { manual: 'on_demand', safety: 'safety', schedule: 'automated' } as const;

/** Gives a backup as every list shows it. */
export function toRecoveryPoint(backup: Backup, repository: Repository): z.input<typeof RecoveryPoint> {
  const { manifest, damage, verifiedAt } = backup;
  const text = [manifest.label, manifest.description].filter((part) => part !== undefined).join(': ');
  return {
    id: manifest.id,
    kind: KINDS[manifest.trigger],
    status: damage === undefined ? 'available' : 'damaged',
    created_at: manifest.finished_at,
    data_at: manifest.snapshot_at,
    size_bytes: manifest.payload.reduce((sum, { bytes }) => sum + bytes, 0),
    encrypted: manifest.encryption.scheme === 'age',
    location: cleanText(`${repository.store.location}/${repository.key(manifest.id, '')}`, 400),
    restorable: damage === undefined,
    ...(text === '' ? {} : { description: cleanText(text) }),
    provider: {
      type: typeOf(manifest),
      database: cleanText(manifest.server.database, 70),
      ...(manifest.kind === 'physical'
        ? { wal_start: manifest.wal.start_lsn, wal_end: manifest.wal.end_lsn, parent_id: manifest.parent_id ?? null }
        : { tables: manifest.inventory.tables, rows: manifest.inventory.rows_total }),
      plain_bytes: dataOf(manifest).plain_bytes,
      verified_at: verifiedAt ?? null,
      ...(damage === undefined ? {} : { damage }),
      ...(backup.hold === undefined ? {} : { held: cleanText(backup.hold.reason) }),
    },
  };
}

/** Gives a directory that is no backup, so that nothing in the storage is hidden. */
export function unfinishedPoint(
  id: string,
  status: 'creating' | 'failed' | 'damaged',
  size?: number,
): z.input<typeof RecoveryPoint> {
  const time = timeOfId(id);
  return {
    id,
    kind: 'unfinished',
    status,
    ...(time === undefined ? {} : { created_at: time.toISOString() }),
    ...(size === undefined ? {} : { size_bytes: size }),
    restorable: false,
  };
}

/** Writes how to restore a backup with the stock commands alone. */
export function recoverCommand(manifest: Manifest): string {
  const { name, encoding } = dataOf(manifest);
  const open = encoding.includes('age')
    ? `age -d ${manifest.encryption.passphrase ? '' : '-i KEY_FILE '}${name} | zstd -d`
    : `zstd -dc ${name}`;
  if (manifest.kind === 'physical') return `${open} | tar -x -C NEW_DATA_DIRECTORY`;
  return `${open} | pg_restore --no-owner -d NEW_DATABASE`;
}

/** Dumps that can be restored, of one database where it is known, newest first. */
export function goodBackups(catalogue: Catalogue, database: string | undefined): Backup<LogicalManifest>[] {
  return catalogue.backups
    .filter(isLogical)
    .filter(
      ({ damage, manifest }) =>
        damage === undefined && (database === undefined || manifest.server.database === database),
    )
    .sort((a, b) => b.manifest.snapshot_at.localeCompare(a.manifest.snapshot_at));
}
