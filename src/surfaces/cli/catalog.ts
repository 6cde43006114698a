import type { Command } from 'commander';
import { ERROR_CODES, HoldfastError } from '../../core/errors.ts';
import { isObject, type JsonObject } from '../../core/json.ts';
import { cleanText } from '../../core/text.ts';
import { formatBytes } from '../../core/time.ts';
import { EXIT } from '../exit-statuses.ts';
import { addCommand, type Cli, principalOf, programName } from './context.ts';
import type { CatalogueOutcome } from './deps.ts';
import { styled } from './terminal.ts';

const STORAGE = `The storage is that of an entity, or --storage: a directory, s3://BUCKET/PREFIX?region=REGION,
gs://BUCKET/PREFIX or azure-blob://ACCOUNT/CONTAINER/PREFIX; more parameters of storage: go behind the question mark.
No entities file is needed then. Credentials of a cloud are found as they are for an entity.`;

interface Flags {
  readonly storage?: string;
  readonly identity?: string;
  readonly passphraseFile?: string;
}

/** Adds `catalog`: what a storage of PostgreSQL backups holds, on any machine, with nothing but the storage. */
export function addCatalog(program: Command, cli: Cli): void {
  const catalog = addCommand(
    program,
    'catalog',
    'look through a storage of PostgreSQL backups, with or without entities',
    [
      'holdfast catalog doctor my-app/my-db',
      'holdfast catalog rebuild --storage /mnt/backups --identity /root/age.key',
    ],
  );
  const add = (name: string, description: string, examples: readonly string[], details: string): Command =>
    addCommand(catalog, name, description, examples, details)
      .argument('[entity]', '<namespace>/<entity>')
      .option('--storage <place>', 'a storage that no entity names')
      .option('--identity <file>', 'age secret key, to see whether it opens the backups')
      .option('--passphrase-file <file>', 'the same for backups that a passphrase seals');
  add(
    'doctor',
    'find damaged, missing, orphaned and foreign objects in a storage',
    ['holdfast catalog doctor my-app/my-db', 'holdfast catalog doctor --storage /mnt/backups --json'],
    `${STORAGE}

It reads, and removes nothing. Exits with ${ERROR_CODES.INTEGRITY_FAILED.exit} when a backup cannot be relied on.`,
  ).action(async (entity: string | undefined, flags: Flags) => {
    const outcome = await look(cli, entity, flags);
    if (cli.options().json) cli.terminal.json(outcome.report);
    else show(cli, outcome);
    cli.exit = outcome.report['healthy'] === true ? EXIT.ok : ERROR_CODES.INTEGRITY_FAILED.exit;
  });
  add(
    'rebuild',
    'write the entities file that an empty machine needs to restore from a storage',
    ['holdfast catalog rebuild --storage /mnt/backups --identity /root/age.key > holdfast.yaml'],
    `The catalogue itself is in the storage and is read anew at every call: nothing of it can be lost with a machine.

${STORAGE}`,
  ).action(async (entity: string | undefined, flags: Flags) => {
    const outcome = await look(cli, entity, flags);
    if (cli.options().json) cli.terminal.json({ ...outcome.report, entities_file: outcome.entitiesFile });
    else {
      cli.terminal.text(outcome.entitiesFile.trimEnd());
      advise(cli, outcome);
    }
    cli.exit = EXIT.ok;
  });
}

async function look(cli: Cli, entity: string | undefined, flags: Flags): Promise<CatalogueOutcome> {
  if ((entity === undefined) === (flags.storage === undefined)) {
    throw new HoldfastError('INVALID_PARAMETER', 'name an entity or a storage, one of them', {
      hint: `holdfast catalog doctor <namespace>/<entity>, or --storage with a directory or a bucket.`,
    });
  }
  const { json: _json, ...options } = cli.options();
  const outcome = await cli.deps.lookThrough({
    ...options,
    entity,
    storage: flags.storage,
    identity: flags.identity,
    passphraseFile: flags.passphraseFile,
    principal: principalOf(cli.deps),
    signal: cli.deps.signal,
  });
  if (sourcesOf(outcome).length === 0) {
    throw new HoldfastError('RESOURCE_NOT_FOUND', 'nothing of Holdfast is in this storage', {
      hint: `Looked at ${cleanText(outcome.report['location'], 300)}. Check the place and its prefix: backups lie below a folder v1.`,
    });
  }
  return outcome;
}

function sourcesOf({ report }: CatalogueOutcome): JsonObject[] {
  return Array.isArray(report['sources']) ? ((report['sources'] as unknown[]).filter(isObject) as JsonObject[]) : [];
}

const KEYS: Readonly<Record<string, string>> = {
  opens: 'the key here opens the newest good backup',
  does_not_open: 'the key here does NOT open the newest good backup: another one is needed',
  no_key_here: 'no key was given (--identity): whether it can be opened is not known',
  not_encrypted: 'the backups are not encrypted',
  damaged: 'the header of the newest good backup is damaged',
};

function show(cli: Cli, outcome: CatalogueOutcome): void {
  const { terminal } = cli;
  const { report } = outcome;
  terminal.line(styled('bold', 'Storage: '), cleanText(report['location'], 300));
  for (const source of sourcesOf(outcome)) {
    const newest = isObject(source['newest_good']) ? source['newest_good'] : undefined;
    terminal.line('');
    terminal.line(styled('bold', `${source['name'] ?? 'without a name'}`), ` (${source['source_id']})`);
    terminal.line(
      `  ${source['backups']} backups, ${source['physical']} of them physical, ${formatBytes(Number(source['stored_bytes']))}; ` +
        `${source['held']} held; ${source['wal_segments']} segments of the write-ahead log`,
    );
    terminal.line(
      newest === undefined
        ? styled('red', '  No good backup is here.')
        : `  Newest good: ${newest['snapshot_id']}, ${newest['type']}, data of ${newest['data_at']}, PostgreSQL ${newest['server_version']}`,
    );
    terminal.line(`  Last restored and compared: ${source['verified_at'] ?? 'never'}`);
    const key = KEYS[String(source['key'])];
    if (key !== undefined) terminal.line(`  Key: ${key}`);
    for (const id of source['unfinished'] as string[]) terminal.line(`  Being written, or its writer died: ${id}`);
    const problems = source['problems'] as JsonObject[];
    for (const { kind, what, message } of problems) {
      terminal.line('  ', styled(GRAVE.has(String(kind)) ? 'red' : 'yellow', String(kind)), ` ${what}: ${message}`);
    }
    const more = Number(source['problems_found']) - problems.length;
    if (more > 0) terminal.line(`  … and ${more} more`);
  }
  const foreign = report['foreign'] as { count: number; bytes: number; names: string[] };
  terminal.line('');
  if (foreign.count > 0) {
    terminal.line(
      styled('yellow', `${foreign.count} objects are not Holdfast's`),
      ` (${formatBytes(foreign.bytes)}) and are left alone: ${foreign.names.slice(0, 10).join(', ')}`,
    );
  }
  for (const [layout, count] of Object.entries(report['other_layouts'] as JsonObject)) {
    terminal.line(
      styled('yellow', `${count} objects have the layout ${layout}`),
      ', which this version does not read.',
    );
  }
  terminal.line(
    report['healthy'] === true
      ? styled('green', 'Every backup that is listed has all its files.')
      : styled('red', 'Some backups cannot be relied on: see above. Restore from others; verify-snapshot proves them.'),
  );
}

const GRAVE = new Set(['damaged_manifest', 'missing_file', 'wrong_size', 'damaged', 'broken_chain']);

/** What the person has to do with what was written. */
function advise(cli: Cli, outcome: CatalogueOutcome): void {
  const { terminal } = cli;
  for (const source of sourcesOf(outcome)) {
    const key = KEYS[String(source['key'])];
    const name = `${source['name'] ?? source['source_id']}`;
    terminal.note(styled('bold', name), key === undefined ? ': no good backup is here' : `: ${key}`);
    const [entity, newest] = [source['entity'], source['newest_good']];
    if (!isObject(entity) || !isObject(newest)) continue;
    const call = `${programName(cli)} do ${entity['namespace']}/${entity['name']}/restore`;
    terminal.note(
      `  Put in where the new server is (host, port, user), then: ${call} snapshot_id=${newest['snapshot_id']} target_database=NEW_NAME`,
    );
  }
}
