import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { CLIENTS, connectClient } from '../support/mcp-clients.ts';

const SERVER = fileURLToPath(new URL('../support/serve-memory-fleet.ts', import.meta.url));
const RESTORE = { entity: 'shop/orders', snapshot_id: 's1' };

describe.each(CLIENTS)('%s over stdio', (kind) => {
  it('lists, reads and gets plan and token where it cannot ask', async () => {
    const client = await connectClient(kind, { node: [SERVER] });
    try {
      expect((await client.tools()).map(({ name }) => name)).toContain('memory_db_restore');
      const read = await client.call('memory_db_list_snapshots', { entity: 'shop/orders' });
      expect(read.structured).toMatchObject({ snapshots: [{ id: 's2' }, { id: 's1' }] });
      const refused = await client.call('memory_db_restore', RESTORE);
      expect(refused.structured).toMatchObject({
        error: { code: 'CONFIRMATION_REQUIRED' },
        confirmation: { token: expect.stringMatching(/^hfc_/), require: 'human' },
      });
    } finally {
      await client.close();
    }
  });

  it('asks the person where it can', async () => {
    const client = await connectClient(kind, { node: [SERVER] }, () => ({
      action: 'accept',
      content: { target: 'memory/orders' },
    }));
    try {
      const answer = await client.call('memory_db_restore', RESTORE);
      expect(answer.structured).toMatchObject({ status: 'succeeded', result: { restored: 's1' } });
    } finally {
      await client.close();
    }
  });

  it('reads resources, fills prompts and completes', async () => {
    const client = await connectClient(kind, { node: [SERVER] });
    try {
      for (const { uri } of await client.resources()) expect(await client.read(uri), uri).toMatch(/^[[#]/);
      await expect(client.read('backup://guide/none')).rejects.toThrow(/not found/i);
      expect(await client.prompt('backup-review', { entity: 'shop/carts' })).toContain('shop/carts');
      expect(await client.complete('quarterly-drill', 'snapshot_id', '', { entity: 'shop/carts' })).toEqual([
        's2',
        's1',
      ]);
    } finally {
      await client.close();
    }
  });

  it('cancels', async () => {
    const client = await connectClient(kind, { node: [SERVER] });
    try {
      const cancel = new AbortController();
      const call = client.call('memory_db_watch', { entity: 'shop/orders' }, { signal: cancel.signal });
      cancel.abort();
      await expect(call).rejects.toThrow();
      // The connection lives on.
      expect((await client.call('backup_list_databases', {})).isError).toBeFalsy();
    } finally {
      await client.close();
    }
  });
});

describe('the process', () => {
  it('answers one modern line without a handshake, writes nothing else to stdout, and ends with stdin', async () => {
    const child = spawn(process.execPath, [SERVER], { stdio: ['pipe', 'pipe', 'inherit'] });
    const lines: string[] = [];
    const reader = createInterface(child.stdout);
    reader.on('line', (line) => lines.push(line));
    const meta = {
      'io.modelcontextprotocol/protocolVersion': '2026-07-28',
      'io.modelcontextprotocol/clientCapabilities': {},
    };
    child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list', params: { _meta: meta } })}\n`);
    await once(reader, 'line');
    child.stdin.end();
    const [code] = await once(child, 'exit');
    expect(code).toBe(0);
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0]!)).toMatchObject({ id: 1, result: { ttlMs: 300_000, cacheScope: 'private' } });
  });
});
