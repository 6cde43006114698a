import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import type { DemoOptions } from '../surfaces/cli/deps.ts';
import { fillShop, query } from './shop.ts';

const ENTITY = 'demo/shop';

interface Answer {
  readonly isError: boolean;
  readonly text: string;
  readonly data: Record<string, unknown>;
}

/**
 * Plays the main job for real: a private PostgreSQL, Holdfast over stdio, a real MCP client, a backup, a lost table, the
 * guard, the restore. Prints a transcript; leaves nothing running and nothing on the disk. Gives the exit status.
 */
export async function runDemo(options: DemoOptions): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-demo-'));
  const closing: (() => Promise<unknown>)[] = [() => rm(directory, { recursive: true, force: true })];
  const began = performance.now();
  try {
    await play(directory, options, closing);
    options.print('');
    options.print(
      `Done in ${seconds(began)}. The server is stopped and its files are removed: nothing is left behind.`,
    );
    return 0;
  } catch (cause) {
    if (options.signal.aborted) {
      options.print('Interrupted. Cleaning up.');
      return 130;
    }
    throw cause;
  } finally {
    for (const close of closing.reverse()) await close().catch(() => undefined);
  }
}

async function play(
  directory: string,
  { print, signal }: DemoOptions,
  closing: (() => Promise<unknown>)[],
): Promise<void> {
  let chapter = 0;
  const title = (text: string): void => {
    signal.throwIfAborted();
    chapter += 1;
    print('');
    print(`${chapter}. ${text}`);
  };
  const block = (text: string): void => {
    for (const line of text.trimEnd().split('\n')) print(`   | ${line}`);
  };

  title('A private PostgreSQL with a small shop in it');
  const { startPrivateServer } = await import('../postgres/private-server.ts');
  let at = performance.now();
  // Beside the rest: as root the server runs as another user, who could not pass through a directory of ours.
  const home = await mkdtemp(join(tmpdir(), 'holdfast-demo-pg-'));
  closing.push(() => rm(home, { recursive: true, force: true }));
  const server = await startPrivateServer({ directory: home });
  closing.push(() => server.stop());
  const { connection } = server;
  await fillShop(connection);
  const count = async (table: string): Promise<string> => {
    const rows = await query(connection, 'shop', `SELECT count(*) AS n FROM ${table}`).catch(() => undefined);
    return rows === undefined ? 'gone' : `${Number(rows[0]?.['n'])} rows`;
  };
  const stock = async (): Promise<string> =>
    `customers ${await count('customers')}, orders ${await count('orders')}, order_lines ${await count('order_lines')}`;
  print(`   PostgreSQL ${server.version} on port ${connection.port}: ${await stock()}   (${seconds(at)})`);

  title('Holdfast over stdio, driven by a real MCP client');
  const { generateIdentity, identityToRecipient } = await import('age-encryption');
  const identity = await generateIdentity();
  const secret = (name: string, value: string): Promise<void> =>
    writeFile(join(directory, name), `${value}\n`, { mode: 0o600 });
  await secret('password', connection.password);
  await secret('age-identity', identity);
  const config = join(directory, 'holdfast.yaml');
  const declared = [
    'namespace: demo',
    'shop:',
    '  defines: postgresql/server',
    `  host: ${connection.host}`,
    `  port: ${connection.port}`,
    `  user: ${connection.user}`,
    '  password: ${file:./password}',
    '  database: shop',
    '  ssl_mode: disable',
    `  storage: { type: local, path: ${join(directory, 'backups')} }`,
    '  encryption:',
    `    recipients: [${await identityToRecipient(identity)}]`,
    '    identity: ${file:./age-identity}',
    '  verify_on_source: true',
  ];
  await writeFile(config, `${declared.join('\n')}\n`);
  block(declared.join('\n').replaceAll(directory, '…'));

  const own = [...process.execArgv, process.argv[1] as string];
  const shared = ['--config', config, '--state-dir', join(directory, 'state')];
  at = performance.now();
  const client = await connect([...own, 'serve', ...shared], signal);
  closing.push(() => client.close());
  print(`   Connected; ${await client.tools()} tools   (${seconds(at)})`);

  const call = async (tool: string, input: Record<string, unknown> = {}, quiet = false): Promise<Answer> => {
    signal.throwIfAborted();
    const { confirmation_token: token, ...shown } = input;
    print(
      `   > ${tool} ${JSON.stringify({ ...shown, ...(token === undefined ? {} : { confirmation_token: 'hfc_…' }) })}`,
    );
    const start = performance.now();
    const answer = await client.call(tool, input, (message) => print(`   . ${message}`));
    if (!quiet) block(answer.text.replace(/hfc_[A-Za-z0-9_-]{22}/g, 'hfc_…').replaceAll(directory, '…'));
    print(`   (${seconds(start)})`);
    return answer;
  };
  // An operation that takes longer than its call goes on; its end is waited for.
  const follow = async (answer: Answer): Promise<Answer> => {
    let last = answer;
    while (last.data['status'] === 'running' || last.data['status'] === 'pending') {
      last = await call('backup_wait_operation', { operation_id: last.data['operation_id'] });
    }
    return must(last);
  };

  title('What is there, and how is it protected?');
  must(await call('backup_list_databases'));
  must(await call('postgresql_get_backup_info', { entity: ENTITY }));

  title('Take a backup: dumped, compressed, sealed with age, hashed');
  const taken = await follow(await call('postgresql_create_snapshot', { entity: ENTITY, label: 'before the release' }));
  const snapshot = String((taken.data['result'] as Record<string, unknown>)['id']);

  title('A backup that was never restored is a hope: verify it by restoring into a scratch database');
  await follow(await call('postgresql_verify_snapshot', { entity: ENTITY, snapshot_id: snapshot, level: 'restored' }));

  title('The accident');
  print('   $ psql shop -c "DROP TABLE order_lines CASCADE"');
  await query(connection, 'shop', 'DROP TABLE order_lines CASCADE');
  print(`   ${await stock()}`);

  title('Find every way back');
  must(await call('backup_find_recovery_options', { entity: ENTITY }));

  title('The agent goes for the in-place restore, without a confirmation');
  const refused = await call('postgresql_restore', { entity: ENTITY, snapshot_id: snapshot });
  if (!refused.isError || (refused.data['error'] as { code?: string }).code !== 'CONFIRMATION_REQUIRED') {
    throw new HoldfastError('INTERNAL', 'the guard let an overwrite through without a confirmation');
  }
  const { token, code } = refused.data['confirmation'] as { token: string; code: string };
  const { target } = refused.data['plan'] as { target: string };
  print(`   Refused. Still as it was: ${await stock()}`);

  title('A person looks at the plan and approves it in a terminal, by typing the name of the target');
  print(`   $ holdfast approve ${code} --target ${target}`);
  block(await command([...own, 'approve', code, '--target', target, ...shared], signal));

  title('The same call again, with its token');
  await follow(await call('postgresql_restore', { entity: ENTITY, snapshot_id: snapshot, confirmation_token: token }));
  print(`   ${await stock()}`);
  if ((await count('order_lines')) === 'gone') throw new HoldfastError('INTERNAL', 'the restore brought nothing back');

  title('The token is spent, and everything is on record');
  const again = await call(
    'postgresql_restore',
    { entity: ENTITY, snapshot_id: snapshot, confirmation_token: token },
    true,
  );
  print(`   ${(again.data['error'] as { code?: string } | undefined)?.code}: a token works once`);
  print('   $ holdfast audit verify');
  block(await command([...own, 'audit', 'verify', ...shared], signal));
}

async function connect(args: readonly string[], signal: AbortSignal) {
  const { Client } = await import('@modelcontextprotocol/client');
  const { StdioClientTransport } = await import('@modelcontextprotocol/client/stdio');
  const client = new Client({ name: 'holdfast-demo', version: '1.0.0' });
  const transport = new StdioClientTransport({ command: process.execPath, args: [...args], stderr: 'inherit' });
  await client.connect(transport, { signal });
  return {
    tools: async () => (await client.listTools()).tools.length,
    call: async (
      name: string,
      input: Record<string, unknown>,
      onMessage: (message: string) => void,
    ): Promise<Answer> => {
      let shown = { message: '', percent: -100 };
      const result = await client.callTool(
        { name, arguments: input },
        {
          signal,
          timeout: 120_000,
          onprogress: ({ message, progress }) => {
            // A line where something new begins or a good way is done; a terminal full of percents tells nothing.
            const [kind = ''] = (message ?? '').replace(/^[\d.]+ \S+ /, '').split(/ \d/);
            if (kind === shown.message && progress < shown.percent + 25) return;
            shown = { message: kind, percent: progress };
            onMessage(`${message ?? ''} (${Math.round(progress)} %)`);
          },
        },
      );
      const content = result.content as { type: string; text?: string }[];
      return {
        isError: result.isError === true,
        text: content.map((part) => part.text ?? '').join('\n'),
        data: (result.structuredContent ?? {}) as Record<string, unknown>,
      };
    },
    close: () => client.close(),
  };
}

function command(args: readonly string[], signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...args], { stdio: ['ignore', 'pipe', 'inherit'], signal });
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString('utf8');
    });
    child.on('error', reject);
    child.on('close', (status) => {
      if (status === 0) resolve(text);
      else reject(new HoldfastError('INTERNAL', `a command of the demo ended with ${status}`));
    });
  });
}

function must(answer: Answer): Answer {
  if (answer.isError) {
    const { code } = (answer.data['error'] ?? {}) as { code?: string };
    throw new HoldfastError('INTERNAL', `a call of the demo failed with ${code ?? 'an error'}`, {
      hint: 'The lines above say why.',
    });
  }
  return answer;
}

function seconds(since: number): string {
  return `${((performance.now() - since) / 1000).toFixed(2)} s`;
}
