import type { z } from 'zod';
import type { RecoveryPoint } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import {
  dataOf,
  isLogical,
  type LogicalManifest,
  type Manifest,
  type PhysicalManifest,
  timeOfId,
  typeOf,
} from '../../postgres/manifest.ts';
import type { Backup, Catalogue, Repository } from '../../postgres/repository.ts';

const KINDS = { manual: 'on_demand', safety: 'safety', schedule: 'automated' } as const;

/** Gives a backup as every list shows it. */
export function toRecoveryPoint(
  backup: Backup,
  repository: Repository,
  /** False for an incremental backup that lacks one of those that it rests on. */
  isWhole = true,
): z.input<typeof RecoveryPoint> {
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
    restorable: damage === undefined && isWhole,
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

/**
 * Writes how to restore a backup with the stock commands alone, in its folder; `chain` is what an incremental one is put
 * together from, the full one first.
 */
export function recoverCommand(manifest: Manifest, chain: readonly PhysicalManifest[] = []): string {
  if (manifest.kind === 'physical') return copyCommands(manifest, chain).join(' && ');
  if (manifest.kind === 'logical') return `${openCommand(manifest, '')} | pg_restore --no-owner -d NEW_DATABASE`;
  const unpack = `mkdir -m 700 DUMP && ${openCommand(manifest, '')} | tar -x -C DUMP`;
  return `${unpack} && pg_restore -j 4 --no-owner -d NEW_DATABASE DUMP`;
}

function openCommand(manifest: Manifest, folder: string): string {
  const { name, encoding } = dataOf(manifest);
  return encoding.includes('age')
    ? `age -d ${manifest.encryption.passphrase ? '' : '-i KEY_FILE '}${folder}${name} | zstd -d`
    : `zstd -dc ${folder}${name}`;
}

function copyCommands(manifest: PhysicalManifest, chain: readonly PhysicalManifest[]): string[] {
  const commands: string[] = [];
  const combined = chain.length > 1;
  for (const part of combined ? chain : [manifest]) {
    const data = combined ? `PARTS/${part.id}` : 'NEW_DATA_DIRECTORY';
    const spaces = part.tablespaces ?? [];
    const open = openCommand(part, combined ? `../${part.id}/` : '');
    commands.push(`mkdir -p -m 700 ${data}`);
    if (spaces.length === 0) commands.push(`${open} | tar -x -C ${data}`);
    else {
      commands.push('mkdir -p TARS', `${open} | tar -x -C TARS`, `tar -x -f TARS/base.tar -C ${data}`);
      commands.push(`cp TARS/backup_manifest ${data}/`);
      for (const { oid } of spaces) {
        const place = combined ? `$PWD/PARTS/${part.id}-${oid}` : `NEW_TABLESPACES/${oid}`;
        commands.push(`mkdir -p -m 700 ${place}`, `tar -x -f TARS/${oid}.tar -C ${place}`);
        commands.push(`ln -sfn ${place} ${data}/pg_tblspc/${oid}`);
      }
    }
  }
  if (combined) {
    const moved = (manifest.tablespaces ?? []).map(
      ({ oid }) => ` -T $PWD/PARTS/${manifest.id}-${oid}=NEW_TABLESPACES/${oid}`,
    );
    const parts = chain.map(({ id }) => `PARTS/${id}`).join(' ');
    commands.push(`pg_combinebackup${moved.join('')} -o NEW_DATA_DIRECTORY ${parts}`);
  }
  commands.push('pg_verifybackup NEW_DATA_DIRECTORY');
  // As it came, the map leads to the files that the source works on, and the copy of a standby follows its primary.
  const lines = (manifest.tablespaces ?? []).map(({ oid }) => `${oid} NEW_TABLESPACES/${oid}\\n`);
  if (lines.length > 0) commands.push(`printf '${lines.join('')}' > NEW_DATA_DIRECTORY/tablespace_map`);
  commands.push('rm -f NEW_DATA_DIRECTORY/standby.signal NEW_DATA_DIRECTORY/recovery.signal');
  commands.push("pg_ctl start -D NEW_DATA_DIRECTORY -o '-c archive_mode=off -c port=FREE_PORT'");
  return commands;
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
