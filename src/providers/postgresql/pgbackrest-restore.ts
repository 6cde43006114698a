import { createHash } from 'node:crypto';
import { chown, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { HoldfastError } from '../../core/errors.ts';
import type { PlanDraft } from '../../core/plan.ts';
import { cleanText } from '../../core/text.ts';
import { withSession } from '../../postgres/connection.ts';
import { findServerOf } from '../../postgres/copy-server.ts';
import { MANIFEST_SCHEMA, type PhysicalManifest } from '../../postgres/manifest.ts';
import type { BackRestBackup, PgBackRest, Stanza } from '../../postgres/pgbackrest.ts';
import type { RecoveryTarget } from '../../postgres/recovery.ts';
import type { Survey } from '../../postgres/wal-archive.ts';
import type { EndReader, RecoveryWindow } from '../../postgres/wal-ends.ts';
import { quoteWord } from '../../postgres/wal-feed.ts';
import type { Host, OwnStep, Scope } from './entity.ts';
import { type DirectoryInput, DirectoryRestorer, type Job, type Physical, type Reading } from './recovery.ts';

/** Restores what pgBackRest holds into a new data directory; the recovery itself is that of our own copies. */
export class BackRestDirectories extends DirectoryRestorer {
  protected override readonly kind = 'pgBackRest backup';
  readonly #host: Host;
  readonly #backRest: (signal: AbortSignal) => PgBackRest;

  constructor(host: Host, backRest: (signal: AbortSignal) => PgBackRest) {
    super(host);
    this.#host = host;
    this.#backRest = backRest;
  }

  /** There is no other restore. */
  override wants(): boolean {
    return true;
  }

  override async plan(scope: Scope, input: DirectoryInput): Promise<PlanDraft> {
    const { target_database, tables } = input as { target_database?: unknown; tables?: unknown };
    if (target_database !== undefined || tables !== undefined) {
      throw new HoldfastError(
        'NOT_SUPPORTED',
        'pgBackRest copies whole servers: there is no restore of a single database',
        {
          hint: 'Give target_directory to restore the server beside the live one, then dump the database from there. Nothing was written.',
        },
      );
    }
    return super.plan(scope, input);
  }

  protected override async read({ signal }: Scope): Promise<Reading & { readonly physical: readonly Physical[] }> {
    const { entity, runtime } = this.#host;
    const archive = this.#backRest(signal);
    const stanza = await archive.stanza(signal);
    const survey = await archive.survey(stanza.archive, signal);
    const physical = physicalOf(stanza, survey);
    if (survey === undefined || physical.length === 0) return { survey, reader: undefined, windows: [], physical };
    const { directory } = await findServerOf(majorOf(stanza), entity.bin_dir);
    const reader: EndReader = {
      archive,
      keys: {},
      binaries: { directory },
      directory: await runtime.workDirectory(),
      signal,
    };
    return { survey, reader, windows: await this.reachable(survey, physical, reader), physical };
  }

  protected override async named({ snapshot_id }: DirectoryInput, physical: readonly Physical[]): Promise<Physical> {
    const id = String(snapshot_id);
    const found = physical.find(({ manifest }) => manifest.id === id);
    if (found) return found;
    throw new HoldfastError('BACKUP_NOT_FOUND', `the stanza has no backup ${cleanText(id, 60)} that can be recovered`, {
      hint: 'list-snapshots shows them. Backups from before an upgrade of PostgreSQL are restored by hand; describe-snapshot shows how.',
    });
  }

  protected override async parts(base: Physical, scope: Scope): Promise<readonly Physical[]> {
    return [await this.find(base.manifest.id, scope)];
  }

  protected override async find(id: string, { signal }: Scope): Promise<Physical> {
    const backRest = this.#backRest(signal);
    // Only asked about one backup it tells the tablespaces.
    const stanza = await backRest.stanza(signal, id);
    const survey = await backRest.survey(stanza.archive, signal);
    const found = await this.named({ snapshot_id: id }, physicalOf(stanza, survey));
    const superuser = await this.#superuser(signal);
    return { ...found, manifest: { ...found.manifest, server: { ...found.manifest.server, superuser } } };
  }

  /** Gives one backup with its tablespaces. */
  async copyOf(id: string, scope: Scope): Promise<PhysicalManifest> {
    return (await this.find(id, scope)).manifest;
  }

  /** Everywhere that the backups lead. */
  async windows(scope: Scope): Promise<readonly RecoveryWindow[]> {
    return (await this.read(scope)).windows;
  }

  /** The role that the server was made with, which alone is certain to be in the copy; asked of the live server. */
  async #superuser(signal: AbortSignal): Promise<string> {
    try {
      return await withSession(await this.#host.connection(), signal, async (session) => {
        const [row] = await session.query<{ name: string }>(
          'SELECT rolname::text AS name FROM pg_roles WHERE oid = 10',
        );
        return row?.name ?? 'postgres';
      });
    } catch {
      signal.throwIfAborted();
      return 'postgres';
    }
  }

  protected override async fill(step: OwnStep, job: Job, directory: string): Promise<{ data: string; bytes: number }> {
    const { base, account, target, timeline, tablespaces } = job;
    const data = join(directory, 'data');
    const spaces = join(directory, 'tablespaces');
    const places = [...tablespaces.keys()].map((oid) => join(spaces, oid));
    for (const path of [directory, data, ...(places.length === 0 ? [] : [spaces, ...places])]) {
      await mkdir(path, { mode: 0o700 });
      if (account) await chown(path, account.uid, account.gid);
    }
    const args = [
      ...targetOptions(target),
      '--target-action=promote',
      // Where the backup ends, it is on one timeline only.
      ...(target.kind === 'backup' ? [] : [`--target-timeline=${timeline}`]),
      '--archive-mode=off',
      ...[...tablespaces.keys()].map((oid) => `--tablespace-map=${oid}=${join(spaces, oid)}`),
    ];
    await this.#backRest(step.signal).restore(base.manifest.id, data, args, step.signal, (percent) =>
      step.progress({ percent, message: 'Restoring the files of the backup' }),
    );
    return { data, bytes: base.manifest.server.database_size_bytes };
  }

  protected override async fetcher(step: OwnStep, job: Job): Promise<(name: string, path: string) => Promise<boolean>> {
    const backRest = this.#backRest(step.signal);
    return (name, path) => backRest.archiveGet(name, path, job.directory, step.signal);
  }

  protected override archivingSteps(data: string, history: string): string[] {
    const { pgbackrest } = this.#host.entity;
    const { config } = this.#backRest(AbortSignal.abort());
    const call = `pgbackrest --config=${quoteWord(config)} --stanza=${pgbackrest?.stanza}`;
    return [
      `ALTER SYSTEM RESET archive_mode; restart; then archive the new timeline's history once: ${call} archive-push ${quoteWord(`${data}/pg_wal/${history}`)}`,
      `Prove that archiving works again: ${call} check`,
    ];
  }
}

/** pgBackRest writes these into the copy as well; the recovery gives them once more, on its command line. */
function targetOptions(target: RecoveryTarget): string[] {
  switch (target.kind) {
    case 'backup':
      return ['--type=immediate'];
    case 'time':
      return ['--type=time', `--target=${target.at.replace('T', ' ').replace('Z', '+00')}`];
    case 'lsn':
      return ['--type=lsn', `--target=${target.lsn}`];
    case 'name':
      return ['--type=name', `--target=${target.name}`];
  }
}

const majorOf = ({ database }: Stanza): number => Number.parseInt(database?.version ?? '0', 10);

/** Gives the moment of a Unix time in seconds. */
export const instantOf = (seconds: number): string => new Date(seconds * 1000).toISOString();

/** Gives the backups of the server as it is now, newest first, in the terms of a recovery. */
export function physicalOf(stanza: Stanza, survey: Survey | undefined): Physical[] {
  const { database } = stanza;
  if (database === undefined || survey === undefined) return [];
  return stanza.backups.flatMap((backup) => {
    const { archive, lsn } = backup;
    if (backup.database.id !== database.id) return [];
    if (archive.start == null || archive.stop == null || lsn?.start == null || lsn.stop == null) return [];
    const wal = {
      timeline: Number.parseInt(archive.start.slice(0, 8), 16),
      start_lsn: lsn.start.toUpperCase(),
      end_lsn: lsn.stop.toUpperCase(),
      start_segment: archive.start,
      end_segment: archive.stop,
      segment_size: survey.segments.size,
      included: false,
    };
    return [
      {
        manifest: manifestOf(stanza, backup, wal),
        damage: undefined,
        verifications: [],
        verifiedAt: undefined,
        hold: undefined,
      },
    ];
  });
}

function manifestOf(stanza: Stanza, backup: BackRestBackup, wal: PhysicalManifest['wal']): PhysicalManifest {
  const { timestamp, info } = backup;
  const major = majorOf(stanza);
  // What pgBackRest says of a backup is what a plan rests on: another backup under the same label says other things.
  const sha256 = createHash('sha256').update(JSON.stringify(backup)).digest('hex');
  return {
    schema: MANIFEST_SCHEMA,
    id: backup.label,
    source_id: '',
    kind: 'physical',
    trigger: 'manual',
    started_at: instantOf(timestamp.start),
    snapshot_at: instantOf(timestamp.stop),
    finished_at: instantOf(timestamp.stop),
    duration_ms: (timestamp.stop - timestamp.start) * 1000,
    tools: { holdfast: '', node: '', zstd_level: 0, pg_basebackup: '' },
    server: {
      version: stanza.database?.version ?? '',
      version_num: major * 10_000,
      system_identifier: stanza.database?.systemIdentifier ?? null,
      in_recovery: false,
      database: 'postgres',
      database_size_bytes: info.size,
      encoding: '',
      collate: '',
      ctype: '',
      extensions: [],
      roles_count: 0,
    },
    payload: [
      {
        name: backup.label,
        bytes: info.repository.delta,
        sha256,
        plain_bytes: info.size,
        plain_sha256: sha256,
        content: 'base',
        encoding: [],
      },
    ],
    encryption: { scheme: 'none', recipients: [], passphrase: false },
    warnings: backup.error === true ? ['pages had wrong checksums when they were copied'] : [],
    wal,
    ...(backup.tablespace == null || backup.tablespace.length === 0
      ? {}
      : { tablespaces: backup.tablespace.map(({ oid, destination }) => ({ oid, location: destination })) }),
  };
}
