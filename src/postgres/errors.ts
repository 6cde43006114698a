import { type ErrorCode, HoldfastError, isAbort } from '../core/errors.ts';

interface Meaning {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint?: string;
  readonly retryable?: boolean;
}

const UNAVAILABLE: Meaning = {
  code: 'PROVIDER_UNAVAILABLE',
  message: 'the PostgreSQL server did not answer',
  hint: 'Check host, port and that the server runs, then call again.',
};
const LOGIN: Meaning = {
  code: 'AUTHENTICATION_FAILED',
  message: 'the PostgreSQL server refused the login',
  hint: 'Check user and password of this entity and the pg_hba line for this host. MCP clients hand down only variables named in their configuration.',
};
const RIGHTS: Meaning = {
  code: 'INSUFFICIENT_PERMISSIONS',
  message: 'the role lacks a right that this needs',
  hint: 'For backups: GRANT pg_read_all_data TO role; and BYPASSRLS where tables have row security. For restores: CREATEDB and ownership of the target.',
};
const ROW_SECURITY: Meaning = {
  code: 'INSUFFICIENT_PERMISSIONS',
  message: 'row security would hide rows from this role, so a backup would be incomplete',
  hint: 'Run ALTER ROLE … BYPASSRLS as a superuser, or back up with a role that has it.',
};
const LOCKED: Meaning = {
  code: 'INVALID_STATE',
  message: 'a table is locked by another session',
  hint: 'Wait until the ALTER TABLE or migration that holds the lock is over, then call again.',
};
const FULL: Meaning = {
  code: 'QUOTA_EXCEEDED',
  message: 'the PostgreSQL server is out of disk, memory or connections',
};

const NO_REPLICATION: Meaning = {
  code: 'INSUFFICIENT_PERMISSIONS',
  message: 'the server takes no replication connection from this role and host',
  hint: 'Physical backups and write-ahead log need one. Add a line such as "host replication ROLE ADDRESS scram-sha-256" to pg_hba.conf and reload it, and run ALTER ROLE … REPLICATION as a superuser.',
};
const NO_SENDER: Meaning = {
  code: 'QUOTA_EXCEEDED',
  message: 'all senders of the server are taken (max_wal_senders)',
  hint: 'Call again when a standby, receiver or other backup has left, or raise max_wal_senders, which needs a restart.',
};

/** By SQLSTATE, or by its class of two characters. */
const STATES: Readonly<Record<string, Meaning>> = {
  '08': UNAVAILABLE,
  '57P01': UNAVAILABLE,
  '57P02': UNAVAILABLE,
  '57P03': UNAVAILABLE,
  '28': LOGIN,
  '42501': RIGHTS,
  '3D000': {
    code: 'RESOURCE_NOT_FOUND',
    message: 'the database does not exist on this server',
    hint: 'Check database in the entities file and target_database in the call.',
  },
  '42P04': { code: 'RESOURCE_EXISTS', message: 'a database of this name exists already' },
  '55P03': LOCKED,
  '57014': LOCKED,
  '40P01': LOCKED,
  '55006': {
    code: 'INVALID_STATE',
    message: 'the database is in use by other sessions',
    hint: 'Close its sessions, prepared transactions and subscriptions, then call again.',
  },
  '53': FULL,
  '58P01': { code: 'INVALID_STATE', message: 'the PostgreSQL server misses a file that it needs' },
  '25006': { code: 'INVALID_STATE', message: 'the server is read-only', hint: 'Use the primary server for this.' },
  '0A000': { code: 'NOT_SUPPORTED', message: 'this PostgreSQL server does not support what this needs' },
  '22023': { code: 'NOT_SUPPORTED', message: 'the server does not know an encoding, locale or setting of the backup' },
  '42809': { code: 'NOT_SUPPORTED', message: 'the server does not know a locale of the backup' },
  '42704': { code: 'NOT_SUPPORTED', message: 'the server does not know a role, type or setting of the backup' },
  '42P01': { code: 'INVALID_STATE', message: 'a table went away while it was being read' },
};

/** What the client programs write; LC_ALL=C keeps it English. */
const TEXTS: readonly (readonly [RegExp, Meaning])[] = [
  [
    /no pg_hba\.conf entry for replication connection|must be superuser or replication role|permission denied to start WAL sender/,
    NO_REPLICATION,
  ],
  [/number of requested standby connections exceeds/, NO_SENDER],
  [
    // What pg_verifybackup says of a copy, which it has read to its end.
    /checksum mismatch for file|has size \d+ on disk but size|but not (on disk|in the manifest)|manifest (checksum mismatch|has no checksum|ended unexpectedly)|WAL parsing failed|could not parse backup manifest/,
    { code: 'INTEGRITY_FAILED', message: 'the unpacked copy of the server is not what its own list of files says' },
  ],
  [
    /checksum verification failed|checksum error occurred/,
    {
      code: 'INTEGRITY_FAILED',
      message: 'pages of the server itself have wrong checksums: its disk or memory has damaged them',
      hint: 'Nothing of this copy was kept, and older backups are untouched: keep them. The log names the files; take a logical backup of what can still be read, and look at the disk.',
    },
  ],
  [
    /requested WAL segment .* has already been removed|could not find (any )?WAL file/,
    {
      code: 'INVALID_STATE',
      message: 'the server recycled write-ahead log that the copy needed before it had been read',
      hint: 'Nothing of the copy was kept. Raise max_replication_slots by one (a restart) or wal_keep_size (a reload), then call again.',
    },
  ],
  [
    /WAL summar(ies|ization)|summaries for that timeline/,
    {
      code: 'INVALID_STATE',
      message: 'the server does not know all that has changed since the parent backup',
      hint: 'summarize_wal was off in between, or its summaries were removed. Take a backup of type full.',
      retryable: false,
    },
  ],
  [
    /incompatible server version/,
    {
      code: 'NOT_SUPPORTED',
      message: 'pg_basebackup is older than the server',
      hint: 'Install the client programs of the server version, or point bin_dir at them.',
    },
  ],
  [
    /can only write single tablespace to stdout|standby was promoted during online backup|full_page_writes=off was replayed/,
    {
      code: 'INVALID_STATE',
      message: 'the server changed while it was being copied: a new tablespace, a promotion, or full_page_writes off',
      hint: 'Nothing of the copy was kept. Call again.',
    },
  ],
  [/row-level security policy/, ROW_SECURITY],
  [
    /server version mismatch/,
    {
      code: 'NOT_SUPPORTED',
      message: 'the PostgreSQL client programs are older than the server',
      hint: 'Install the client programs of the server version, or point bin_dir at them.',
    },
  ],
  [
    /unsupported version \(\d|unrecognized configuration parameter/,
    {
      code: 'NOT_SUPPORTED',
      message: 'the backup was made with a newer PostgreSQL than the one it should go into',
      hint: 'Restore into a server of the same or a newer major version.',
    },
  ],
  [/canceling statement due to|could not obtain lock|deadlock detected/, LOCKED],
  [/password authentication failed|no pg_hba\.conf entry|no password supplied|authentication failed/, LOGIN],
  [/permission denied|must be (owner|superuser|member)|insufficient privilege/i, RIGHTS],
  [/No space left on device|out of memory|too many clients|remaining connection slots/, FULL],
  [
    /is not available|could not open extension control file/,
    {
      code: 'NOT_SUPPORTED',
      message: 'an extension of the backup is not installed on the server',
      hint: 'Install the extension packages that describe-snapshot lists, then call again.',
    },
  ],
  [
    /role ".*" does not exist/,
    {
      code: 'INVALID_PARAMETER',
      message: 'a role of the backup does not exist on the server',
      hint: 'Create the roles first (globals.sql of the backup has them), or restore with no_owner: true.',
    },
  ],
  [
    /could not connect|connection to server .* failed|could not translate host name|server closed the connection|terminating connection|the database system is/,
    UNAVAILABLE,
  ],
  [/database ".*" does not exist/, STATES['3D000'] as Meaning],
  [
    // It saw no byte at all: that says something about the pipe, nothing about the backup, whose hashes are checked apart.
    /input file is too short \(read 0,/,
    {
      code: 'PROVIDER_UNAVAILABLE',
      message: 'pg_restore got nothing to read',
      hint: 'The backup was not found damaged, and nothing incomplete was kept. Call again; verify-snapshot proves the backup.',
    },
  ],
  [
    /could not read from input file|unexpected end of file|did not find magic string|input file (is too short|does not appear)|could not uncompress|found unexpected block ID|corrupt/i,
    { code: 'INTEGRITY_FAILED', message: 'the content of the backup is damaged' },
  ],
];

const NETWORK = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EPIPE',
]);

/** Maps what `pg` or the system threw to our codes; the server's own text stays in `cause`. */
export function toPostgresError(cause: unknown): HoldfastError {
  if (cause instanceof HoldfastError) return cause;
  if (isAbort(cause)) return new HoldfastError('CANCELLED', 'the call was cancelled', { cause });
  const { code } = (cause ?? {}) as { code?: unknown };
  const text = cause instanceof Error ? cause.message : '';
  if (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && !NETWORK.has(code)) {
    if (code === '42501' && /row-level security/.test(text)) return make(ROW_SECURITY, { code }, cause);
    const meaning = STATES[code] ?? STATES[code.slice(0, 2)];
    if (meaning) return make(meaning, { code }, cause);
    return new HoldfastError('INVALID_STATE', `the PostgreSQL server refused a statement (SQLSTATE ${code})`, {
      retryable: false,
      hint: 'The log has the details. Nothing that was there before has been replaced.',
      provider: { code },
      cause,
    });
  }
  if (typeof code === 'string' && NETWORK.has(code)) return make(UNAVAILABLE, { code }, cause);
  if (/client password must be a string|password must be/i.test(text)) return make(LOGIN, undefined, cause);
  if (
    /certificate|self.signed|SSL|TLS/i.test(text) ||
    /^(ERR_TLS|ERR_SSL|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_)/.test(String(code))
  ) {
    return new HoldfastError('PROVIDER_UNAVAILABLE', 'the encrypted connection to the PostgreSQL server failed', {
      hint: 'Check ssl_mode and ssl_root_cert of this entity.',
      retryable: false,
      cause,
    });
  }
  if (
    /Connection terminated|timeout exceeded|Client has encountered a connection error|Client was closed/i.test(text)
  ) {
    return make(UNAVAILABLE, undefined, cause);
  }
  return new HoldfastError('INTERNAL', 'an unexpected fault stopped the work on PostgreSQL', { cause });
}

/** Maps a refused replication connection, where the reason is nearly always a missing right. */
export function toReplicationError(cause: unknown): HoldfastError {
  const { code } = (cause ?? {}) as { code?: unknown };
  if (code === '28000' || code === '42501') return make(NO_REPLICATION, { code }, cause);
  if (code === '53300') return make(NO_SENDER, { code }, cause);
  return toPostgresError(cause);
}

/** Maps the failure of a client program, by what it wrote to stderr; the text itself stays in `cause`. */
export function toProgramError(
  program: string,
  exit: { code: number | null; signal: string | null },
  stderr: string,
): HoldfastError {
  const cause = new Error(`${program} ended with ${exit.code ?? exit.signal}: ${stderr}`);
  for (const [pattern, meaning] of TEXTS) {
    if (pattern.test(stderr)) return make(meaning, undefined, cause);
  }
  if (exit.signal !== null) {
    return new HoldfastError('PROVIDER_UNAVAILABLE', `${program} was killed by ${exit.signal} before it had finished`, {
      hint: 'Nothing incomplete was kept. Check memory limits on this machine, then call again.',
      cause,
    });
  }
  return new HoldfastError('INVALID_STATE', `${program} failed with exit status ${exit.code}`, {
    hint: 'The log has what it wrote. Nothing incomplete was kept.',
    retryable: false,
    cause,
  });
}

/** Makes the error for bytes that are not what the manifest or the format says. */
export function damaged(what: string, cause?: unknown): HoldfastError {
  return new HoldfastError('INTEGRITY_FAILED', what, { cause });
}

function make(meaning: Meaning, provider: { code: string } | undefined, cause: unknown): HoldfastError {
  const { code, message, hint, retryable } = meaning;
  return new HoldfastError(code, message, { hint, retryable, provider, cause });
}
