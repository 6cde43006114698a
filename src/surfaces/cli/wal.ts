import type { Command } from 'commander';
import { asHoldfastError, HoldfastError } from '../../core/errors.ts';
import { EXIT } from '../exit-statuses.ts';
import { renderError } from '../render.ts';
import { addCommand, type Cli, programName, renderOptions } from './context.ts';
import type { WalOptions, WalOutcome } from './deps.ts';

/** PostgreSQL takes 1 to 125 from restore_command for "not there" and goes on; above, it stops. */
const FETCH_FAULT = 200;

const CONFIG = `The entities file is found as always; PostgreSQL starts its commands in the data directory, so name the file with
--config there. The account of the server (postgres) must be able to read it, and to write the storage and a
state directory (--state-dir). To archive, only the public keys in encryption.recipients are needed.`;

/** Adds `wal push`, `wal fetch` and `wal receive`. */
export function addWal(program: Command, cli: Cli): void {
  const wal = addCommand(
    program,
    'wal',
    'archive the write-ahead log of a PostgreSQL server, and bring it back',
    [
      'holdfast wal receive --entity my-app/my-db',
      'holdfast wal push --entity my-app/my-db pg_wal/000000010000000000000001',
    ],
    `With a physical backup and the log since, a server can be recovered to any moment. There are two ways to get it:
  receive   streams it from anywhere, needs a role with REPLICATION, nothing on the database host and no restart
  push      is called by archive_command on the database host, for each segment of 16 MB
Whether it works, and from when to when every moment can be reached: get-backup-info; check-wal proves it.`,
  );
  wal.helpCommand(false);
  const entity = (command: Command): Command =>
    command.requiredOption('--entity <namespace/name>', 'the entity of the server, a postgresql/server');

  entity(
    addCommand(
      wal,
      'push',
      'store one file of the log; for archive_command',
      [
        "archive_command = 'holdfast --config /etc/holdfast/holdfast.yaml wal push --entity my-app/my-db %p'",
        'holdfast wal push --entity my-app/my-db pg_wal/000000010000000000000001',
      ],
      `Ends with 0 only when the file is durable in the storage, or was there already with the same content. Other content
under the same name is refused and nothing is replaced: two servers archive into one source.
${CONFIG}`,
    ),
  )
    .argument('<path>', 'the file, %p')
    .argument('[name]', 'its name, %f; the name of the file when left out')
    .action(async (path: string, name: string | undefined, options: { entity: string }) => {
      await run(cli, options.entity, { do: 'push', path, name });
    });

  const fetch = entity(
    addCommand(
      wal,
      'fetch',
      'bring one file of the log back; for restore_command',
      [
        "restore_command = 'holdfast --config /etc/holdfast/holdfast.yaml wal fetch --entity my-app/my-db %f %p'",
        'holdfast wal fetch --entity my-app/my-db 00000002.history /tmp/00000002.history',
      ],
      `Exit statuses are what PostgreSQL expects: 0 with the whole file in place, 1 when the archive does not have it,
${FETCH_FAULT} for a fault (recovery then stops rather than take the end of the archive for the end of the log).
Needs the identity of the entity, which opens what was sealed. The action restore does all of this by itself.
${CONFIG}`,
    ),
  )
    .alias('get')
    .option('--partial', 'also take a segment that was stored while it was being written')
    .argument('<name>', 'the name of the file, %f')
    .argument('<path>', 'where it is to be, %p');
  fetch.action(async (name: string, path: string, options: { entity: string; partial?: boolean }) => {
    try {
      const work = { do: 'fetch' as const, name, path, partial: options.partial === true };
      const { found } = await run(cli, options.entity, work);
      if (found !== true) cli.exit = 1;
    } catch (cause) {
      // Every other status below 126 would say that there is no such file.
      cli.exit = FETCH_FAULT;
      for (const line of renderError(asHoldfastError(cause), renderOptions(cli)).split('\n')) cli.terminal.note(line);
    }
  });

  entity(
    addCommand(
      wal,
      'receive',
      'stream the log into the storage until it is stopped',
      ['holdfast wal receive --entity my-app/my-db', 'holdfast do my-app/my-db/check-wal'],
      `Makes a replication slot (wal.slot) where there is none and runs pg_receivewal into the spool (wal.spool); every
finished segment is sealed, stored and only then removed from there. Interrupt or terminate it to end it: what is
finished is stored first. When the storage fails, the spool keeps everything and it tries again; when the server
restarts, it comes back. It is one process for each entity: run it under systemd or as a Kubernetes Deployment with
one replica, with the spool on a disk that survives. Set max_slot_wal_keep_size on the server: a receiver that stays
away makes the server keep its log.`,
    ),
  ).action(async (options: { entity: string }) => {
    cli.terminal.note(`Receives the write-ahead log of ${options.entity} until it is stopped.`);
    const { stored_segments = 0, left_in_spool = 0 } = await run(cli, options.entity, { do: 'receive' });
    cli.terminal.note(`Stopped; ${stored_segments} segments were stored.`);
    if (left_in_spool > 0) {
      cli.terminal.note(
        `${left_in_spool} finished segments are still in the spool: start it again to store them (${programName(cli)} wal receive --entity ${options.entity}).`,
      );
    }
    cli.exit = EXIT.ok;
  });
}

async function run(cli: Cli, entity: string, work: WalOptions['work']): Promise<WalOutcome> {
  const { json: _json, ...options } = cli.options();
  if (options.sandbox) {
    throw new HoldfastError('NOT_SUPPORTED', 'a sandbox has no write-ahead log to archive', {
      hint: 'Leave --sandbox out.',
    });
  }
  return cli.deps.runWal({ ...options, entity, work, signal: cli.deps.signal });
}
