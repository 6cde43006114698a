import { HoldfastError } from '../core/errors.ts';
import type { Principal } from '../core/principal.ts';
import type { PostgresClient } from '../providers/postgresql/client.ts';
import { POSTGRESQL_SERVER } from '../providers/postgresql/provider.ts';
import type { WalOptions, WalOutcome } from '../surfaces/cli/deps.ts';
import type { Opened } from './open.ts';

/**
 * Does what archive_command, restore_command or a person asks of the write-ahead log of one entity, as policy allows an
 * action `wal-push` or `wal-receive` of risk `create`, or `wal-fetch`, which reads.
 */
export async function runWal(options: WalOptions, { engine }: Opened, user: string): Promise<WalOutcome> {
  const { work, signal } = options;
  try {
    const { key, defines } = engine.entity(options.entity);
    if (defines !== POSTGRESQL_SERVER) {
      throw new HoldfastError(
        'NOT_SUPPORTED',
        `${key} is a ${defines}; only a ${POSTGRESQL_SERVER} has a write-ahead log`,
      );
    }
    const principal: Principal = { id: `cli:${user}`, person: user, roles: ['viewer', 'operator'] };
    const request = {
      principal,
      entity: key,
      name: `wal-${work.do}`,
      risk: work.do === 'fetch' ? ('read' as const) : ('create' as const),
      audited: work.do === 'receive' ? ('run' as const) : ('day' as const),
      signal,
    };
    return await engine.service(request, async ({ client }) => {
      const { wal } = client as PostgresClient;
      switch (work.do) {
        case 'push':
          return { ...(await wal.push(work.path, work.name)) };
        case 'fetch':
          return { found: await wal.fetch(work.name, work.path, { partial: work.partial, signal }) };
        case 'receive':
          return { ...(await wal.receive(signal)) };
      }
    });
  } finally {
    await engine.close();
  }
}
