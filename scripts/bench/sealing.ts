import { startChild } from '../../src/postgres/child.ts';
import { storeSealed } from '../../src/postgres/pack.ts';
import { Repository } from '../../src/postgres/repository.ts';
import { localStore } from '../../src/storage/local.ts';

// What a shell pipeline does and no more, by the code that backs up: the stream of pg_dump compressed, sealed, stored.
const [pgDump = '', storage = '', recipient = ''] = process.argv.slice(2);
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith('PG'))) as Record<
  string,
  string
>;
const dump = startChild(pgDump, ['-Fc', '-Z0', '--no-password'], { env, pieces: true });
await storeSealed(
  { repository: new Repository(localStore(storage), 'bench'), runtime: { assertMayWrite: () => {} } } as never,
  '20261121T000000Z-logical-bench1',
  { name: 'payload.dump', content: 'dump' },
  dump.output(),
  { sealing: { scheme: 'age', recipients: [recipient] }, level: 3, signal: undefined },
);
