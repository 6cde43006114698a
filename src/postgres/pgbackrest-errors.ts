import { type ErrorCode, HoldfastError } from '../core/errors.ts';

interface Meaning {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string;
  readonly retryable?: boolean;
}

const RIGHTS: Meaning = {
  code: 'INSUFFICIENT_PERMISSIONS',
  message: 'pgBackRest may not read or write something that it needs',
  hint: 'It must run as the account that owns its repository, its logs and, on the database host, the data directory. The log of Holdfast names the file.',
};
const UNREACHED: Meaning = {
  code: 'PROVIDER_UNAVAILABLE',
  message: 'pgBackRest cannot reach its repository or a host of it',
  hint: 'Check the repo and host options in its configuration file, then call again; pgbackrest check tells more.',
};
const FILE: Meaning = {
  code: 'CONFIG_INVALID',
  message: 'the configuration of pgBackRest does not fit what was asked',
  hint: 'The log of Holdfast has its words. Check stanza, config and repo of this entity; pgbackrest check tells more.',
};
const OTHER_SERVER: Meaning = {
  code: 'INVALID_STATE',
  message: 'the stanza belongs to another server or another version of it',
  hint: 'After an upgrade of PostgreSQL run pgbackrest stanza-upgrade; otherwise check pg1-path of the stanza. Nothing was written.',
  retryable: false,
};
const SERVER: Meaning = {
  code: 'PROVIDER_UNAVAILABLE',
  message: 'pgBackRest cannot connect to or query the PostgreSQL server',
  hint: 'Check that it runs, and pg1-socket-path, pg1-port and pg1-user in the configuration of pgBackRest.',
};

/** By pgBackRest's own number, which is its exit status unless that is 104, "one of several". */
const CODES: Readonly<Record<number, Meaning>> = {
  26: {
    code: 'INTEGRITY_FAILED',
    message: 'a file of the repository does not have the checksum that pgBackRest has written down',
    hint: 'This backup is damaged. The live server was not touched. Use another one, and run verify-snapshot on it first.',
  },
  27: FILE,
  31: FILE,
  32: FILE,
  33: FILE,
  34: FILE,
  36: FILE,
  37: FILE,
  38: {
    code: 'INVALID_STATE',
    message: 'a PostgreSQL server runs on the directory that pgBackRest should write',
    hint: 'Nothing was written. Choose a new, empty directory.',
    retryable: false,
  },
  39: UNREACHED,
  40: {
    code: 'RESOURCE_EXISTS',
    message: 'the directory that pgBackRest should restore into is not empty',
    hint: 'Choose one that does not exist. Nothing was written.',
  },
  41: RIGHTS,
  44: OTHER_SERVER,
  46: {
    code: 'NOT_SUPPORTED',
    message: 'this pgBackRest does not know the version of PostgreSQL',
    hint: 'Install a newer pgbackrest package on the database host and here.',
  },
  47: RIGHTS,
  49: UNREACHED,
  50: {
    code: 'INVALID_STATE',
    message: 'another backup, expire or stanza command of pgBackRest runs on this stanza',
    hint: 'Nothing was done. Wait for it to end, then call again; get-backup-info says when none is held.',
    retryable: true,
  },
  51: OTHER_SERVER,
  55: {
    code: 'RESOURCE_NOT_FOUND',
    message: 'pgBackRest misses a file: its configuration, the stanza in the repository, or part of a backup',
    hint: 'Check stanza and config of this entity; get-backup-info says whether the stanza is there. The log of Holdfast names the file.',
  },
  56: SERVER,
  57: SERVER,
  58: OTHER_SERVER,
  62: {
    code: 'INVALID_STATE',
    message: 'pgBackRest has been stopped for this stanza',
    hint: 'Somebody ran pgbackrest stop. Run pgbackrest start when its reason is gone.',
    retryable: false,
  },
  75: {
    code: 'INVALID_PARAMETER',
    message:
      'no backup set of pgBackRest fits: none before the target, or it is the last full one and cannot be expired',
    hint: 'Nothing was written. list-snapshots shows the sets; a newer full backup must exist before the last one goes.',
  },
  82: {
    code: 'INVALID_STATE',
    message: 'a segment of the write-ahead log did not reach the repository in time',
    hint: 'archive_command does not deliver: check it with pgbackrest check, and the log of PostgreSQL. Nothing of the backup counts.',
    retryable: true,
  },
  87: {
    code: 'INVALID_STATE',
    message: 'archive_mode is off on the server, so a backup of pgBackRest could never become consistent',
    hint: "Set archive_mode = on (a restart) and archive_command = 'pgbackrest … archive-push %p'.",
    retryable: false,
  },
  95: {
    code: 'AUTHENTICATION_FAILED',
    message: 'pgBackRest cannot decrypt the repository with its passphrase',
    hint: 'Check repo1-cipher-pass and repo1-cipher-type in its configuration. Nothing was changed.',
  },
  101: {
    code: 'PROVIDER_UNAVAILABLE',
    message: 'the encrypted connection of pgBackRest to its repository failed',
    hint: 'Check repo1-storage-host and its certificates. Versions before 2.58 speak no plain HTTP.',
  },
};

const TEXTS: readonly (readonly [RegExp, Meaning])[] = [
  [
    /No space left on device|Disk quota exceeded/,
    {
      code: 'QUOTA_EXCEEDED',
      message: 'a disk is full: that of the repository, or the one to restore to',
      hint: 'Free space, then call again. Older backups are untouched.',
    },
  ],
  [/\b(zst|gz|lz4|bz2|zlib) error: |Data corruption detected/, CODES[26] as Meaning],
  [/Permission denied|AccessDenied|\b403\b|Forbidden/, RIGHTS],
  [/unable to (flush|decrypt)|cipher header|CryptoError/i, CODES[95] as Meaning],
];

/** Says what a failed run of pgBackRest means. What it wrote stays in `cause`. */
export function toBackRestError(exit: { code: number | null; signal: string | null }, stderr: string): HoldfastError {
  const cause = new Error(`pgbackrest ended with ${exit.code ?? exit.signal}: ${stderr}`);
  // Its status 104 stands for several, which the text names.
  const said = [...stderr.matchAll(/ERROR: \[(\d{3})\]/g)].map(([, number]) => Number(number));
  const number = said.find((one) => one !== 104) ?? exit.code ?? 0;
  const meaning = TEXTS.find(([pattern]) => pattern.test(stderr))?.[1] ?? CODES[number];
  if (meaning) {
    const { code, message, hint, retryable } = meaning;
    return new HoldfastError(code, message, { hint, retryable, provider: { code: String(number) }, cause });
  }
  if (exit.signal !== null) {
    return new HoldfastError('PROVIDER_UNAVAILABLE', `pgBackRest was killed by ${exit.signal} before it had finished`, {
      hint: 'What it had written does not count as a backup; its next backup removes or resumes it. Check memory limits, then call again.',
      cause,
    });
  }
  return new HoldfastError('INVALID_STATE', `pgBackRest failed with error ${number}`, {
    hint: 'The log of Holdfast has what it wrote. Older backups are untouched.',
    retryable: false,
    provider: { code: String(number) },
    cause,
  });
}
