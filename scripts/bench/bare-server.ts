import { createServer } from 'node:http';
import { toNodeHandler } from '@modelcontextprotocol/node';
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import { z } from 'zod';
import { createSnapshot, listSnapshots } from './work.ts';

// The yardstick: the same SDK, the same two pieces of work, and nothing else. `one` leaves it with a single tool.
const Read = z.strictObject({ limit: z.number().int().optional() });
const Create = z.strictObject({ description: z.string().optional() });
const one = process.argv.includes('one');

function build(): McpServer {
  const server = new McpServer({ name: 'bare', version: '1.0.0' });
  server.registerTool('list_snapshots', { description: 'Lists the snapshots.', inputSchema: Read }, () =>
    answer(listSnapshots()),
  );
  if (!one) {
    server.registerTool('create_snapshot', { description: 'Takes a snapshot.', inputSchema: Create }, () =>
      answer(createSnapshot()),
    );
  }
  return server;
}

function answer(value: Record<string, unknown>) {
  return { content: [{ type: 'text' as const, text: JSON.stringify(value) }], structuredContent: value };
}

if (process.argv.includes('http')) {
  const handler = toNodeHandler(createMcpHandler(build));
  const server = createServer((request, response) => void handler(request, response));
  server.listen(0, '127.0.0.1', () => {
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    process.stderr.write(`listening on http://127.0.0.1:${port}/mcp\n`);
  });
} else {
  serveStdio(build);
}
