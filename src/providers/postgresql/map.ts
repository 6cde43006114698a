import type { z } from 'zod';
import type { RecoveryPoint } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { type Manifest, payloadOf, timeOfId } from '../../postgres/manifest.ts';
import type { Backup, Catalogue, Repository } from '../../postgres/repository.ts';

/** How long a backup without a manifest may still be one that is being written. */
export const UNFINISHED_FOR_MS = 24 * 3600 * 1000;

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
      type: manifest.kind,
      database: cleanText(manifest.server.database, 70),
      tables: manifest.inventory.tables,
      rows: manifest.inventory.rows_total,
      plain_bytes: payloadOf(manifest, 'dump').plain_bytes,
      verified_at: verifiedAt ?? null,
      ...(damage === undefined ? {} : { damage }),
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
  const { name, encoding } = payloadOf(manifest, 'dump');
  const open = encoding.includes('age')
    ? `age -d ${manifest.encryption.passphrase ? '' : '-i KEY_FILE '}${name} | zstd -d`
    : `zstd -dc ${name}`;
  return `${open} | pg_restore --no-owner -d NEW_DATABASE`;
}

/** Backups that can be restored, of one database where it is known, newest first. */
export function goodBackups(catalogue: Catalogue, database: string | undefined): Backup[] {
  return catalogue.backups
    .filter(
      ({ damage, manifest }) =>
        damage === undefined && (database === undefined || manifest.server.database === database),
    )
    .sort((a, b) => b.manifest.snapshot_at.localeCompare(a.manifest.snapshot_at));
}
