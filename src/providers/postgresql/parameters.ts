import { isAbsolute } from 'node:path';
import { z } from 'zod';
import { SecretReference } from '../../core/schemas.ts';
import { StorageConfig } from '../../storage/config.ts';
import { SSL_MODES } from './entity.ts';

const AbsolutePath = z.string().refine(isAbsolute, 'an absolute path');

const PgBackRest = z
  .object({
    stanza: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$/),
    config: AbsolutePath.optional().describe('Its configuration file; /etc/pgbackrest/pgbackrest.conf when left out'),
    binary: AbsolutePath.optional().describe('pgbackrest itself, where it is not in PATH'),
    repo: z.number().int().min(1).max(256).optional().describe('Which of its repositories; 1 when left out'),
  })
  .strict();

const Wal = z
  .object({
    method: z
      .enum(['receive', 'archive'])
      .describe('`receive`: holdfast wal receive streams it. `archive`: archive_command calls holdfast wal push'),
    slot: z
      .string()
      .regex(/^[a-z0-9_]{1,63}$/)
      .optional()
      .describe('Replication slot of the receiver; holdfast_<source> when left out'),
    spool: AbsolutePath.optional().describe(
      'Where segments wait for their upload; in the state directory when left out',
    ),
    partial_every_seconds: z
      .number()
      .int()
      .min(1)
      .max(3600)
      .optional()
      .describe('How often the segment being written is stored as well; 60 when left out'),
    spool_limit_bytes: z
      .number()
      .int()
      .min(16_777_216)
      .optional()
      .describe('Spool size that raises an alarm; 1 GiB when left out'),
  })
  .strict();

const periods = (fallback: number) =>
  z.number().int().min(0).max(10_000).optional().describe(`${fallback} when left out`);

const Retention = z
  .object({
    hourly: periods(0),
    daily: periods(7),
    weekly: periods(4),
    monthly: periods(3),
    quarterly: periods(4),
    yearly: periods(0),
    minimum: z.number().int().min(1).optional().describe('Never fewer backups than this; 1 when left out'),
    pitr_days: z
      .number()
      .int()
      .min(0)
      .max(3650)
      .optional()
      .describe('Days for which every moment stays reachable; 0 when left out'),
    max_bytes: z
      .number()
      .int()
      .min(1)
      .optional()
      .describe('More than this in the storage is warned of; nothing is deleted for it'),
  })
  .strict();

const Encryption = z.union([
  z.literal('none'),
  z
    .object({
      recipients: z
        .array(z.string().regex(/^age1[0-9a-z]+$/, 'an age public key, age1…; age-keygen makes a pair'))
        .min(1)
        .optional()
        .describe('age public keys; each of their holders can restore'),
      identity: SecretReference.optional().describe('age secret key, needed where backups are verified or restored'),
      passphrase: SecretReference.optional().describe('Instead of recipients'),
    })
    .strict()
    .refine(
      ({ recipients, passphrase }) => (recipients === undefined) !== (passphrase === undefined),
      'give either recipients or passphrase',
    ),
]);

/** The parameters of a `postgresql/server`. */
export const PostgresServer = z
  .object({
    host: z.string().min(1).optional().describe('Host, address or socket directory; localhost when left out'),
    port: z.number().int().min(1).max(65_535).optional(),
    user: z.string().min(1).optional(),
    password: SecretReference.optional().describe('PGPASSWORD when left out'),
    database: z.string().min(1).max(63).optional(),
    ssl_mode: z.enum(SSL_MODES).optional(),
    ssl_root_cert: z.string().refine(isAbsolute, 'an absolute path').optional(),
    connection_url: SecretReference.optional().describe(
      'postgresql:// URL instead of host, user, password and database',
    ),
    storage: StorageConfig.optional().describe('Required unless engine is pgbackrest, which has its own'),
    encryption: Encryption.optional().describe('Required with storage; `none` must be written out'),
    compression_level: z.number().int().min(1).max(19).optional().describe('Of zstd; 3 when left out'),
    bin_dir: z
      .string()
      .refine(isAbsolute, 'an absolute path')
      .optional()
      .describe('Directory of pg_dump and pg_restore'),
    verify_on_source: z
      .boolean()
      .optional()
      .describe('Lets verify-snapshot make and drop a scratch database on this same server'),
    scratch_url: SecretReference.optional().describe('postgresql:// URL of another server for scratch databases'),
    scratch_dir: AbsolutePath.optional().describe(
      'Where copies of the server are unpacked to verify them; a temporary directory when left out',
    ),
    maintenance_database: z
      .string()
      .min(1)
      .max(63)
      .optional()
      .describe('To create and rename from; postgres when left out'),
    source_id: z
      .string()
      .regex(/^[a-z0-9][a-z0-9-]{0,79}$/)
      .optional()
      .describe('Folder of the backups in the storage; made from the name of the entity when left out'),
    restore_from: z
      .array(z.string().regex(/^[a-z0-9][a-z0-9-]{0,79}$/))
      .min(1)
      .max(50)
      .optional()
      .describe('source_id of others in this storage whose backups restore may bring to this server'),
    fingerprint_max_rows: z
      .number()
      .int()
      .min(0)
      .optional()
      .describe('Larger tables are counted, not fingerprinted; 50 million when left out'),
    engine: z.enum(['holdfast', 'pgbackrest']).optional().describe('What takes the backups; holdfast when left out'),
    pgbackrest: PgBackRest.optional(),
    wal: Wal.optional().describe('How the write-ahead log reaches the storage, for point-in-time recovery'),
    retention: Retention.optional().describe('What prune-snapshots keeps'),
    parallel: z
      .number()
      .int()
      .min(2)
      .max(32)
      .optional()
      .describe('Dumps with this many connections through a directory on this machine, instead of streaming'),
    include_role_passwords: z.boolean().optional().describe('Also keeps the hashes of role passwords, encrypted'),
  })
  .strict()
  .superRefine(({ engine, storage, encryption, pgbackrest, wal }, context) => {
    const fault = (name: string, message: string) => context.addIssue({ code: 'custom', path: [name], message });
    if (engine !== 'pgbackrest') {
      if (storage === undefined) fault('storage', 'is required: where Holdfast keeps the backups');
      if (encryption === undefined) fault('encryption', "is required: recipients, a passphrase or 'none'");
      if (pgbackrest !== undefined) fault('pgbackrest', 'needs engine: pgbackrest');
      return;
    }
    if (pgbackrest === undefined) fault('pgbackrest', 'is required with engine: pgbackrest: {stanza: NAME}');
    for (const [name, value] of Object.entries({ storage, encryption, wal })) {
      if (value !== undefined)
        fault(name, 'goes with engine: holdfast; pgBackRest has its own in its configuration file');
    }
  });
