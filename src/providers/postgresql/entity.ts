import type { EntityBase } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { Progress, StepContext } from '../../core/operation.ts';
import type { Runtime, SecretRef } from '../../core/runtime.ts';
import type { Connection } from '../../postgres/connection.ts';
import type { BackupRequest } from '../../postgres/dump.ts';
import type { Repository } from '../../postgres/repository.ts';
import type { Keys, Sealing } from '../../postgres/seal.ts';
import type { Work } from '../../postgres/work.ts';
import type { StorageConfig } from '../../storage/config.ts';

export const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;

/** The parameters of one configured PostgreSQL database. */
export interface PostgresEntity {
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  readonly user?: string | undefined;
  readonly password?: SecretRef | undefined;
  readonly database?: string | undefined;
  readonly ssl_mode?: (typeof SSL_MODES)[number] | undefined;
  readonly ssl_root_cert?: string | undefined;
  readonly connection_url?: SecretRef | undefined;
  /** Of the engine holdfast, which cannot do without. */
  readonly storage?: StorageConfig | undefined;
  readonly encryption?:
    | 'none'
    | {
        readonly recipients?: readonly string[] | undefined;
        readonly identity?: SecretRef | undefined;
        readonly passphrase?: SecretRef | undefined;
      }
    | undefined;
  readonly compression_level?: number | undefined;
  readonly bin_dir?: string | undefined;
  readonly verify_on_source?: boolean | undefined;
  readonly scratch_url?: SecretRef | undefined;
  readonly scratch_dir?: string | undefined;
  readonly maintenance_database?: string | undefined;
  readonly source_id?: string | undefined;
  readonly restore_from?: readonly string[] | undefined;
  readonly fingerprint_max_rows?: number | undefined;
  readonly engine?: 'holdfast' | 'pgbackrest' | undefined;
  readonly pgbackrest?:
    | {
        readonly stanza: string;
        readonly config?: string | undefined;
        readonly binary?: string | undefined;
        readonly repo?: number | undefined;
      }
    | undefined;
  readonly wal?: WalSettings | undefined;
  readonly retention?: RetentionSettings | undefined;
  readonly parallel?: number | undefined;
  readonly include_role_passwords?: boolean | undefined;
}

/**
 * Where Holdfast itself keeps the backups of an entity, and how it seals them.
 * @throws {HoldfastError} NOT_SUPPORTED for an entity whose backups are another program's
 */
export function keepingOf({ storage, encryption }: PostgresEntity): {
  readonly storage: StorageConfig;
  readonly encryption: NonNullable<PostgresEntity['encryption']>;
} {
  if (storage !== undefined && encryption !== undefined) return { storage, encryption };
  throw new HoldfastError(
    'NOT_SUPPORTED',
    "the backups of this entity are pgBackRest's: Holdfast keeps no storage of its own for it",
    {
      hint: 'For dumps, comparisons, holds and a write-ahead log kept by Holdfast declare a second entity of this database with engine: holdfast, a storage and encryption.',
    },
  );
}

/** How the write-ahead log reaches the storage. */
export interface WalSettings {
  readonly method: 'receive' | 'archive';
  readonly slot?: string | undefined;
  readonly spool?: string | undefined;
  readonly partial_every_seconds?: number | undefined;
  readonly spool_limit_bytes?: number | undefined;
}

/** How many periods of each length keep a backup. */
export interface RetentionSettings {
  readonly hourly?: number | undefined;
  readonly daily?: number | undefined;
  readonly weekly?: number | undefined;
  readonly monthly?: number | undefined;
  readonly quarterly?: number | undefined;
  readonly yearly?: number | undefined;
  readonly minimum?: number | undefined;
  readonly pitr_days?: number | undefined;
  readonly max_bytes?: number | undefined;
}

/** What reads and plans get: a signal, and perhaps somebody who wants to see progress. */
export interface Scope {
  readonly signal: AbortSignal;
  progress?(progress: Progress): void;
}

/** A step of ours, whatever its action. */
export type OwnStep = Omit<StepContext<unknown, PostgresEntity, unknown>, 'client'>;

/** What the parts of the client know of each other. */
export interface Host {
  readonly entity: PostgresEntity & EntityBase;
  readonly runtime: Runtime;
  connection(): Promise<Connection>;
  repository(): Repository;
  sealing(): Promise<Sealing>;
  keys(): Promise<Keys>;
  work(scope: Scope): Promise<Work>;
  /** Where dumps and copies of servers are unpacked on this machine. */
  scratch(): Promise<string>;
  /** The connection to work on a database from outside it. */
  maintenance(connection: Connection, target: string): Connection;
  newBackup(scope: Scope, id: string, options: BackupOptions): Promise<void>;
}

export type BackupOptions = Pick<BackupRequest, 'trigger' | 'label' | 'description' | 'operationId'> & {
  /** Another database of the same server than the entity's own. */
  readonly database?: string | undefined;
  /** `logical` when left out. */
  readonly type?: BackupType | undefined;
};

/** A dump of one database, or a copy of the server: whole, or what changed since the newest (`incr`) or the newest whole one (`diff`). */
export const BACKUP_TYPES = ['logical', 'full', 'incr', 'diff'] as const;
export type BackupType = (typeof BACKUP_TYPES)[number];
export type PhysicalType = Exclude<BackupType, 'logical'>;
