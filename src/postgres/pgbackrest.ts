import { createWriteStream } from 'node:fs';
import { access, constants, readFile, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { createInterface } from 'node:readline';
import { Duplex, Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { z } from 'zod';
import { HoldfastError } from '../core/errors.ts';
import { cleanText } from '../core/text.ts';
import { findOnPath } from './binaries.ts';
import { type Child, type ChildOptions, runChild, startChild } from './child.ts';
import { copyAccount } from './copy-server.ts';
import { damaged } from './errors.ts';
import { toBackRestError } from './pgbackrest-errors.ts';
import type { Account } from './tar.ts';
import { type Ancestor, HEADER_BYTES, parseHistory, parseSegmentHeader, parseWalName, Segments } from './wal.ts';
import type { Run, Survey } from './wal-archive.ts';
import type { SegmentSource } from './wal-ends.ts';
import { quoteWord } from './wal-feed.ts';

/** The oldest version whose output was measured; annotations, which name our operations, are younger still than most. */
const OLDEST = [2, 45] as const;
const DEFAULT_CONFIG = '/etc/pgbackrest/pgbackrest.conf';
/** Where ssh and what decompresses are looked for. */
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/homebrew/bin';
const LISTING_LIMIT = 64 * 1024 * 1024;
const FRAME = '2.45 is in Debian 12 and newer; apt.postgresql.org and yum.postgresql.org have the newest';

export const LABEL = /^\d{8}-\d{6}F(?:_\d{8}-\d{6}[DI])?$/;
const Segment = z.string().regex(/^[0-9A-F]{24}$/);
const Lsn = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/i);
const Count = z.number().nonnegative();
/** Unix seconds. */
const Seconds = z.number().int().nonnegative().max(8_640_000_000_000);

const BackupRecord = z.looseObject({
  label: z.string().regex(LABEL),
  type: z.enum(['full', 'diff', 'incr']),
  prior: z.string().regex(LABEL).nullish(),
  reference: z.array(z.string().regex(LABEL)).max(10_000).nullish(),
  archive: z.looseObject({ start: Segment.nullish(), stop: Segment.nullish() }),
  lsn: z.looseObject({ start: Lsn.nullish(), stop: Lsn.nullish() }).nullish(),
  timestamp: z.looseObject({ start: Seconds, stop: Seconds }),
  info: z.looseObject({
    size: Count,
    repository: z.looseObject({ delta: Count }),
  }),
  /** Whether pages had wrong checksums when they were copied. */
  error: z.boolean().nullish(),
  annotation: z.record(z.string().max(1000), z.string().max(10_000)).nullish(),
  database: z.looseObject({ id: Count }),
  tablespace: z
    .array(z.looseObject({ oid: z.number().int().positive(), destination: z.string().max(1024) }))
    .max(500)
    .nullish(),
});
/** One backup as pgBackRest describes it. */
export type BackRestBackup = z.infer<typeof BackupRecord>;

const Status = z.looseObject({ code: z.number(), message: z.string().max(1000) });

const StanzaRecord = z.looseObject({
  name: z.string().max(200),
  status: Status.extend({
    lock: z
      .looseObject({
        backup: z
          .looseObject({
            held: z.boolean(),
            size: Count.nullish(),
            'size-cplt': Count.nullish(),
          })
          .nullish(),
      })
      .nullish(),
  }),
  cipher: z.string().max(40).nullish(),
  backup: z.array(BackupRecord).max(100_000).default([]),
  archive: z
    .array(
      z.looseObject({
        database: z.looseObject({ id: Count }),
        id: z.string().regex(/^\d{1,3}(\.\d)?-\d{1,9}$/),
        min: Segment.nullish(),
        max: Segment.nullish(),
      }),
    )
    .max(1000)
    .default([]),
  db: z
    .array(z.looseObject({ id: Count, 'system-id': z.string().regex(/^\d{1,20}$/), version: z.string().max(20) }))
    .max(1000)
    .default([]),
  repo: z.array(z.looseObject({ key: Count, cipher: z.string().max(40).nullish(), status: Status })).default([]),
});

/** What `info` tells about one stanza in one repository. */
export interface Stanza {
  /** `0` all is well, `1` no such stanza, `2` no valid backup, `99` other; the process itself ends with 0 in every case. */
  readonly status: { readonly code: number; readonly message: string };
  /** Newest first. */
  readonly backups: readonly BackRestBackup[];
  /** Of the server as it is now, after all upgrades. */
  readonly archive:
    | { readonly id: string; readonly min: string | undefined; readonly max: string | undefined }
    | undefined;
  readonly database: { readonly id: number; readonly systemIdentifier: string; readonly version: string } | undefined;
  readonly cipher: string;
  /** Whether a backup is being taken at this moment. */
  readonly running: boolean;
}

/** Where pgBackRest is and what it works on. */
export interface BackRestSettings {
  readonly stanza: string;
  readonly config?: string | undefined;
  readonly binary?: string | undefined;
  readonly repo?: number | undefined;
}

/** What a deletion would take. */
export interface Expiry {
  readonly backups: readonly string[];
  /** The stretches of log that go, by archive id. */
  readonly archive: readonly { readonly id: string; readonly start: string; readonly stop: string }[];
}

/** What `verify` said, by its text: its exit status is 0 whatever it finds. */
export interface Verdict {
  /** The ones with a wrong or missing file, whole or in part. */
  readonly invalid: readonly string[];
  readonly valid: readonly string[];
  readonly files: number;
  readonly segments: number;
  readonly invalidSegments: number;
}

/** One stanza in one repository, seen through the pgBackRest program; its repository is never read or written but by it. */
export class PgBackRest implements SegmentSource {
  readonly settings: BackRestSettings;
  readonly #signal: AbortSignal | undefined;
  #size: { readonly id: string; readonly segments: Segments } | undefined;

  constructor(settings: BackRestSettings, signal?: AbortSignal) {
    this.settings = settings;
    this.#signal = signal;
  }

  get config(): string {
    return this.settings.config ?? DEFAULT_CONFIG;
  }

  get repo(): number {
    return this.settings.repo ?? 1;
  }

  // --- the program ---------------------------------------------------------------------------------------------------

  /**
   * Finds the program and its version.
   * @throws {HoldfastError} NOT_SUPPORTED where it is missing or too old
   */
  async program(): Promise<{ readonly file: string; readonly version: string }> {
    const file = await find(this.settings.binary);
    const { mtimeMs, size, ino } = await stat(file);
    const key = JSON.stringify([file, mtimeMs, size, ino]);
    const answer = versions.get(key) ?? (await runChild(file, ['version'], { env: { LC_ALL: 'C' } }, 4096));
    versions.set(key, answer);
    const [, version, major, minor] = /^pgBackRest ((\d+)\.(\d+)\S*)/.exec(answer) ?? [];
    if (version === undefined) throw notInstalled(`${cleanText(file, 200)} is not pgBackRest`);
    if (Number(major) < OLDEST[0] || (Number(major) === OLDEST[0] && Number(minor) < OLDEST[1])) {
      throw notInstalled(`pgBackRest ${cleanText(version, 20)} is older than ${OLDEST.join('.')}`);
    }
    return { file, version };
  }

  /** What stands on the line of every command; the file is always named, so that it lands in restore_command too. */
  options(repo = true): string[] {
    return [
      `--config=${this.config}`,
      `--stanza=${this.settings.stanza}`,
      ...(repo ? [`--repo=${this.repo}`] : []),
      '--log-level-stderr=warn',
    ];
  }

  async #child(
    command: string,
    args: readonly string[],
    signal?: AbortSignal,
    parameters: readonly string[] = [],
  ): Promise<Child> {
    const { file } = await this.program();
    const options = await childOptions(signal ?? this.#signal);
    return startChild(file, [...this.options(), ...args, command, ...parameters], {
      ...options,
      explain: toBackRestError,
    });
  }

  async #run(
    command: string,
    args: readonly string[],
    signal?: AbortSignal,
    parameters: readonly string[] = [],
  ): Promise<string> {
    return bounded(await this.#child(command, ['--log-level-console=off', ...args], signal, parameters));
  }

  // --- reading -------------------------------------------------------------------------------------------------------

  /**
   * Asks for the stanza. A missing stanza, a wrong key and an unreachable repository are answers too: look at `status`.
   * @param set also tells the tablespaces of this backup
   */
  async info(signal?: AbortSignal, set?: string): Promise<Stanza> {
    const args = ['--output=json', ...(set === undefined ? [] : [`--set=${set}`])];
    return parseInfo(await this.#run('info', args, signal), this.settings.stanza);
  }

  /**
   * The same for those who cannot go on without a stanza.
   * @throws {HoldfastError} RESOURCE_NOT_FOUND, AUTHENTICATION_FAILED, PROVIDER_UNAVAILABLE
   */
  async stanza(signal?: AbortSignal, set?: string): Promise<Stanza> {
    const found = await this.info(signal, set);
    const problem = this.problem(found);
    if (problem) throw problem;
    return found;
  }

  /** What the status of a stanza means where it is more than "no backup yet". */
  problem({ status }: Stanza): HoldfastError | undefined {
    const { stanza } = this.settings;
    if (status.code === 0 || status.code === 2) return undefined;
    const said = cleanText(status.message, 300);
    if (status.code === 1) {
      return new HoldfastError(
        'RESOURCE_NOT_FOUND',
        `pgBackRest knows no stanza '${stanza}' in repository ${this.repo}`,
        {
          hint: `Check stanza, config and repo of this entity. A new stanza is made on the database host: pgbackrest --config=${this.config} --stanza=${stanza} stanza-create`,
        },
      );
    }
    if (status.code === 3) {
      return new HoldfastError('INVALID_STATE', 'the stanza is in some repositories only', {
        hint: 'Run pgbackrest stanza-create again; nothing was changed.',
      });
    }
    if (/Crypto|cipher|decrypt|encrypt/i.test(status.message)) {
      return new HoldfastError(
        'AUTHENTICATION_FAILED',
        'pgBackRest cannot decrypt the repository with its passphrase',
        {
          hint: `Check repo${this.repo}-cipher-pass and repo${this.repo}-cipher-type in ${this.config}. Nothing was changed.`,
          cause: new Error(said),
        },
      );
    }
    return new HoldfastError('PROVIDER_UNAVAILABLE', `pgBackRest cannot read repository ${this.repo}: ${said}`, {
      hint: 'Run pgbackrest info by hand as the account that owns it. Nothing was changed.',
    });
  }

  /** Gives the options that pgBackRest itself goes by in deletions, from its file, its defaults left out; no secrets. */
  async expireOptions(signal?: AbortSignal): Promise<Readonly<Record<string, string>>> {
    const said = await bounded(await this.#child('expire', ['--dry-run', '--log-level-console=info'], signal));
    const line = /expire command begin [^:]+: (.*)/.exec(said)?.[1] ?? '';
    const found: Record<string, string> = {};
    for (const [, name = '', value = ''] of line.matchAll(/(?:^| )--([a-z0-9-]+)=("[^"]*"|\S+)/g)) {
      found[name] = value.replace(/^"|"$/g, '');
    }
    return found;
  }

  /** Says what the log in the repository holds, by its listing alone; undefined where it holds none. */
  async survey(archive: { readonly id: string } | undefined, signal?: AbortSignal): Promise<Survey | undefined> {
    if (archive === undefined) return undefined;
    const child = await this.#child('repo-ls', ['--recurse', '--log-level-console=off'], signal, [
      this.#path(archive.id),
    ]);
    const runs = new Map<number, { first: number; last: number }[]>();
    const histories = new Map<number, Ancestor[]>();
    const historyFiles: string[] = [];
    let header: Awaited<ReturnType<PgBackRest['sizeOf']>> | undefined;
    let last: string | undefined;
    let count = 0;
    try {
      for await (const line of createInterface({ input: child.stdout, crlfDelay: Number.POSITIVE_INFINITY })) {
        const file = parseStored(line);
        if (file === undefined) continue;
        if (file.history) historyFiles.push(file.name);
        else if (file.name !== last) {
          header ??= await this.sizeOf(archive.id, line, signal);
          last = file.name;
          count += 1;
          const { timeline, number } = header.segments.parse(file.name);
          const own = runs.get(timeline) ?? [];
          const run = own.at(-1);
          if (run?.last === number - 1) run.last = number;
          else own.push({ first: number, last: number });
          runs.set(timeline, own);
        }
      }
      await child.succeed();
    } finally {
      await child.stop();
    }
    if (header === undefined) return undefined;
    for (const name of historyFiles) {
      const timeline = Number.parseInt(name.slice(0, 8), 16);
      const content = await text(await this.#open(`${this.#path(archive.id)}/${name}`, signal));
      histories.set(timeline, parseHistory(content, timeline));
    }
    const known = [...runs].map(([timeline, own]) => [timeline, own as readonly Run[]] as const);
    return { ...header, runs: new Map(known), histories, partials: [], count, bytes: 0 };
  }

  /** What the first page of a stored segment says: how large all segments are, and whose. */
  async sizeOf(
    id: string,
    file: string,
    signal?: AbortSignal,
  ): Promise<{ readonly segments: Segments; readonly systemIdentifier: string }> {
    const chunks: Buffer[] = [];
    let size = 0;
    const body = await this.#open(`${this.#path(id)}/${file}`, signal);
    for await (const chunk of body as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      size += chunk.length;
      if (size >= HEADER_BYTES) break;
    }
    const { segmentSize, systemIdentifier } = parseSegmentHeader(Buffer.concat(chunks));
    this.#size = { id, segments: new Segments(segmentSize) };
    return { segments: this.#size.segments, systemIdentifier };
  }

  #path(id: string): string {
    return `archive/${this.settings.stanza}/${id}`;
  }

  // --- the log, for those who look for its end -----------------------------------------------------------------------

  async #stored(name: string, signal?: AbortSignal): Promise<string | undefined> {
    const id = this.#size?.id;
    if (id === undefined || !/^[0-9A-F]{24}$/.test(name)) return undefined;
    const folder = `${this.#path(id)}/${name.slice(0, 16)}`;
    const listed = await this.#run('repo-ls', [`--filter=^${name}-`], signal, [folder]);
    const file = listed.split('\n').find((line) => parseStored(line)?.name === name);
    return file === undefined ? undefined : `${folder}/${file}`;
  }

  async has(name: string): Promise<boolean> {
    return (await this.#stored(name)) !== undefined;
  }

  /** pgBackRest keeps no sums apart from its segments. */
  async sumOf(): Promise<undefined> {
    return undefined;
  }

  async get(
    name: string,
    target: string,
    { signal }: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<boolean> {
    const file = await this.#stored(name, signal);
    if (file === undefined) return false;
    const part = `${target}.part`;
    try {
      await pipeline(await this.#open(file, signal), createWriteStream(part, { mode: 0o600, flags: 'wx' }));
      await rename(part, target);
    } finally {
      await rm(part, { force: true });
    }
    return true;
  }

  /** Reads a file of the repository, decrypted by pgBackRest and decompressed here. */
  async #open(path: string, signal?: AbortSignal): Promise<Readable> {
    const child = await this.#child('repo-get', ['--log-level-console=off'], signal, [path]);
    const stored = Readable.from(child.output(), { objectMode: false });
    const inflate = decompressor(path, signal ?? this.#signal);
    if (inflate === undefined) return stored;
    // Whoever reads sees the fault of either.
    pipeline(stored, inflate).catch(() => {});
    return inflate;
  }

  /**
   * Gives one file of the log to a recovery, the way restore_command would.
   * @param data the data directory that recovers, whose control file tells whose log is wanted
   * @returns false where the repository does not have it
   */
  async archiveGet(name: string, target: string, data: string, signal?: AbortSignal): Promise<boolean> {
    const { file } = await this.program();
    const options = await childOptions(signal ?? this.#signal);
    const args = [...this.options(), `--pg1-path=${data}`, '--log-level-console=off', '--no-archive-async'];
    const child = startChild(file, [...args, 'archive-get', name, target], { ...options, explain: toBackRestError });
    child.stdout.resume();
    const { code } = await child.ended;
    if (code === 1) return false;
    await child.succeed();
    return true;
  }

  /** What PostgreSQL itself runs for a file of the log. */
  async restoreCommand(data: string): Promise<string> {
    const { file } = await this.program();
    const words = [file, ...this.options(), `--pg1-path=${data}`, '--no-archive-async', 'archive-get'];
    return `${words.map(quoteWord).join(' ')} %f "%p"`;
  }

  // --- writing -------------------------------------------------------------------------------------------------------

  /**
   * Takes a backup. pgBackRest's own deletion after it is left out: what creates must not delete.
   * @param percent told as often as a file is done
   */
  async backup(
    type: BackRestBackup['type'],
    annotations: Readonly<Record<string, string | undefined>>,
    signal: AbortSignal,
    percent: (percent: number) => void,
  ): Promise<void> {
    const notes = Object.entries(annotations).flatMap(([name, value]) =>
      value === undefined || value === '' ? [] : [`--annotation=${name}=${value}`],
    );
    const args = [`--type=${type}`, '--no-expire-auto', ...notes];
    await this.#followed('backup', args, signal, percent);
  }

  /** Writes a backup into an empty directory of the account that runs this; it does not start anything. */
  async restore(
    label: string,
    data: string,
    args: readonly string[],
    signal: AbortSignal | undefined,
    percent: (percent: number) => void,
  ): Promise<void> {
    await this.#followed('restore', [`--set=${label}`, `--pg1-path=${data}`, ...args], signal, percent);
  }

  async #followed(
    command: 'backup' | 'restore',
    args: readonly string[],
    signal: AbortSignal | undefined,
    percent: (percent: number) => void,
  ): Promise<void> {
    const child = await this.#child(command, ['--log-level-console=detail', ...args], signal);
    let last = -1;
    try {
      for await (const line of createInterface({ input: child.stdout, crlfDelay: Number.POSITIVE_INFINITY })) {
        const done = /(?:backup|restore) file .* \([^()]*?(\d{1,3})(?:\.\d+)?%\)/.exec(line)?.[1];
        if (done === undefined || Number(done) <= last) continue;
        last = Number(done);
        percent(Math.min(99, last));
      }
      await child.succeed();
    } finally {
      await child.stop();
    }
  }

  /**
   * Deletes by pgBackRest's own rules: what its retention has given up, and `set` with all that rests on it.
   * @param dryRun only says what would go
   */
  async expire(set: string | undefined, dryRun: boolean, signal?: AbortSignal): Promise<Expiry> {
    const args = [
      '--log-level-console=info',
      ...(set === undefined ? [] : [`--set=${set}`]),
      ...(dryRun ? ['--dry-run'] : []),
    ];
    return parseExpiry(await bounded(await this.#child('expire', args, signal)));
  }

  /** Reads every file of the stanza in the repository and compares it with its sum. */
  async verify(signal?: AbortSignal): Promise<Verdict> {
    const args = ['--log-level-console=off', '--output=text', '--verbose'];
    return parseVerdict(await bounded(await this.#child('verify', args, signal)));
  }
}

/** Versions by program file, which is asked once. */
const versions = new Map<string, string>();

async function find(binary: string | undefined): Promise<string> {
  const executable = (file: string): Promise<boolean> =>
    access(file, constants.X_OK).then(
      () => true,
      () => false,
    );
  if (binary !== undefined) {
    if (await executable(binary)) return binary;
    throw notInstalled(`pgBackRest is not at ${cleanText(binary, 200)}`);
  }
  const found = await findOnPath('pgbackrest');
  if (found !== undefined) return found;
  throw notInstalled('pgBackRest is not on this machine');
}

function notInstalled(message: string): HoldfastError {
  return new HoldfastError('NOT_SUPPORTED', message, {
    hint: `Install the package pgbackrest (${FRAME}), or name the program in pgbackrest.binary.`,
  });
}

/** The account to run as and exactly this environment: pgBackRest takes options and secrets from its file alone. */
async function childOptions(signal: AbortSignal | undefined): Promise<ChildOptions> {
  const account = await copyAccount();
  const env = {
    LC_ALL: 'C',
    TZ: 'UTC',
    PATH: SYSTEM_PATH,
    // For the keys of ssh, and .pgpass.
    HOME: account === undefined ? homedir() : await homeOf(account),
  };
  return { env, account, signal };
}

async function homeOf({ uid }: Account): Promise<string> {
  const lines = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'));
  return lines.find((line) => Number(line[2]) === uid)?.[5] ?? '/';
}

async function bounded(child: Child): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const chunk of child.output()) {
    size += chunk.length;
    if (size > LISTING_LIMIT)
      throw new HoldfastError('QUOTA_EXCEEDED', 'pgBackRest wrote more than can be kept in memory');
    parts.push(chunk);
  }
  return Buffer.concat(parts).toString('utf8');
}

/** Reads a line of the listing of an archive; undefined for what is neither whole segment nor history. */
function parseStored(path: string): { readonly name: string; readonly history: boolean } | undefined {
  const file = path.slice(path.lastIndexOf('/') + 1);
  const [, segment] = /^([0-9A-F]{24})-[0-9a-f]{40}(?:\.(?:gz|zst|lz4|bz2))?$/.exec(file) ?? [];
  if (segment !== undefined) return { name: segment, history: false };
  return parseWalName(file)?.kind === 'history' ? { name: file, history: true } : undefined;
}

/** What undoes the compression that a file's name tells; undefined for none. */
function decompressor(path: string, signal: AbortSignal | undefined): Duplex | undefined {
  if (path.endsWith('.zst')) return createZstdDecompress();
  if (path.endsWith('.gz')) return createGunzip();
  const program = path.endsWith('.lz4') ? 'lz4' : path.endsWith('.bz2') ? 'bzip2' : undefined;
  if (program === undefined) return undefined;
  const env = { LC_ALL: 'C', PATH: SYSTEM_PATH };
  const child = startChild(program, ['-dc'], {
    env,
    signal,
    stdin: true,
    explain: () => damaged(`${program} cannot decompress a segment of the repository`),
  });
  return Duplex.from({ writable: child.stdin, readable: Readable.from(child.output(), { objectMode: false }) });
}

/**
 * Reads what `info --output=json` wrote, as untrusted input.
 * @throws {HoldfastError} INTEGRITY_FAILED
 */
export function parseInfo(json: string, stanza: string): Stanza {
  let value: unknown;
  try {
    // A system identifier is larger than JavaScript's numbers are exact.
    value = JSON.parse(json.replace(/("system-id"\s*:\s*)(\d+)/g, '$1"$2"'));
  } catch (cause) {
    throw damaged('what pgBackRest tells of its repository is not JSON', cause);
  }
  const parsed = z.array(StanzaRecord).max(1000).safeParse(value);
  if (!parsed.success)
    throw damaged('what pgBackRest tells of its repository does not have the known form', parsed.error);
  const found = parsed.data.find(({ name }) => name === stanza);
  if (found === undefined) {
    return {
      status: { code: 1, message: 'missing stanza path' },
      backups: [],
      archive: undefined,
      database: undefined,
      cipher: 'none',
      running: false,
    };
  }
  const own = found.repo[0];
  const database = [...found.db].sort((a, b) => b.id - a.id)[0];
  const archive = found.archive.find((one) => one.database.id === database?.id);
  return {
    status: own !== undefined && own.status.code !== 0 ? own.status : found.status,
    backups: [...found.backup].sort((a, b) => b.timestamp.stop - a.timestamp.stop || b.label.localeCompare(a.label)),
    archive: archive && { id: archive.id, min: archive.min ?? undefined, max: archive.max ?? undefined },
    database: database && { id: database.id, systemIdentifier: database['system-id'], version: database.version },
    cipher: own?.cipher ?? found.cipher ?? 'none',
    running: found.status.lock?.backup?.held === true,
  };
}

/** Reads what `expire` says that it removes. */
export function parseExpiry(said: string): Expiry {
  const backups = [...said.matchAll(/remove expired backup (\d{8}-\d{6}F(?:_\d{8}-\d{6}[DI])?)\b/g)].map(
    ([, label]) => label!,
  );
  const archive = [
    ...said.matchAll(/: (\d[\d.]*-\d+) remove archive, start = ([0-9A-F]{16,24}), stop = ([0-9A-F]{16,24})/g),
  ].map(([, id, start, stop]) => ({ id: id!, start: start!, stop: stop! }));
  return { backups: [...new Set(backups)], archive };
}

/**
 * Reads what `verify --output=text --verbose` says.
 * @throws {HoldfastError} NOT_SUPPORTED for text without a verdict
 */
export function parseVerdict(said: string): Verdict {
  const invalid: string[] = [];
  const valid: string[] = [];
  let files = 0;
  let segments = 0;
  let invalidSegments = 0;
  for (const line of said.split('\n')) {
    const [, label, status, checked] =
      /backup: (\d{8}-\d{6}F(?:_\d{8}-\d{6}[DI])?), status: ([a-z-]+)(?:, total files checked: (\d+))?/.exec(line) ??
      [];
    if (label !== undefined) {
      (status === 'valid' ? valid : invalid).push(label);
      files += Number(checked ?? 0);
    }
    const [, total, good] = /archiveId: \S+, total WAL checked: (\d+), total valid WAL: (\d+)/.exec(line) ?? [];
    if (total !== undefined) {
      segments += Number(total);
      invalidSegments += Number(total) - Number(good);
    }
  }
  if (!/^\s*status: (ok|error)/m.test(said)) {
    throw new HoldfastError('NOT_SUPPORTED', 'pgBackRest verify gave no verdict that Holdfast can read', {
      hint: 'Its exit status says nothing. Run pgbackrest verify --output=text --verbose by hand and read it.',
      cause: new Error(said.slice(0, 4000)),
    });
  }
  return { invalid, valid, files, segments, invalidSegments };
}
