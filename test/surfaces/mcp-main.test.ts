import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Ask, CLIENTS, connectClient, type Reply } from '../support/mcp-clients.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-main-'));
});

afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

const serve = (state: string, ...more: string[]): string[] => [
  MAIN,
  'serve',
  '--sandbox',
  '--state-dir',
  join(directory, state),
  ...more,
];

// What a person would do: read the plan, find the name, type it.
function typeTheTarget({ message }: Ask): Reply {
  return { action: 'accept', content: { target: /type the name of the target: (.+)$/.exec(message)?.[1] ?? '' } };
}

describe('holdfast serve --sandbox on stdio', () => {
  it.concurrent.each(CLIENTS)(
    'restores for %s once a person has typed the name, and is followed to its end',
    async (kind) => {
      const client = await connectClient(kind, { node: serve(kind.replaceAll(' ', '-')) }, typeTheTarget);
      try {
        const entity = 'sandbox/gcp-cloud-sql';
        expect((await client.tools()).map(({ name }) => name)).toContain('gcp_cloud_sql_restore');
        const list = await client.call('gcp_cloud_sql_list_snapshots', { entity });
        const backup_id = (list.structured['snapshots'] as { id: string }[])[0]!.id;
        const begun = await client.call('gcp_cloud_sql_restore', { entity, backup_id });
        expect(begun.isError, begun.text).toBeFalsy();
        const { operation_id } = begun.structured;
        const ended = await client.call('backup_wait_operation', { operation_id, timeout_seconds: 25 });
        expect(ended.structured, ended.text).toMatchObject({ status: 'succeeded', sandbox: true });
      } finally {
        await client.close();
      }
    },
  );
});

describe('a compact list', () => {
  it.concurrent.each([
    ['--tools', ['--tools', 'compact'], {}],
    ['HOLDFAST_TOOLS', [], { HOLDFAST_TOOLS: 'compact' }],
  ])('is what %s asks for, and its calls go the same way', async (name, flags, env) => {
    const client = await connectClient('sdk 1', { node: serve(`compact ${name}`, ...flags), env }, typeTheTarget);
    try {
      expect((await client.tools()).map((tool) => tool.name)).toEqual(['find_actions', 'do_action']);
      const entity = 'sandbox/gcp-cloud-sql';
      const list = await client.call('do_action', { entity, action: 'list-snapshots' });
      const backup_id = (list.structured['snapshots'] as { id: string }[])[0]!.id;
      const begun = await client.call('do_action', { entity, action: 'restore', input: { backup_id } });
      expect(begun.isError, begun.text).toBeFalsy();
    } finally {
      await client.close();
    }
  });
});

describe('holdfast serve --http', () => {
  it('answers on loopback and ends on SIGTERM', async () => {
    const child = spawn(process.execPath, serve('http', '--http', '--port', '0'), {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const lines = createInterface(child.stderr);
    const url = await new Promise<string>((resolve) => {
      lines.on('line', (line) => {
        const found = /serves MCP on (\S+)/.exec(line)?.[1];
        if (found !== undefined) resolve(found);
      });
    });
    const client = await connectClient('sdk 2 on 2026-07-28', { url });
    expect((await client.call('backup_list_databases', {})).isError).toBeFalsy();
    await client.close();
    child.kill('SIGTERM');
    const [code] = await once(child, 'exit');
    expect(code).toBe(0);
  });
});
