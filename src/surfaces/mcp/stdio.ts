import type { Readable, Writable } from 'node:stream';
import type { McpServerFactory } from '@modelcontextprotocol/server';
import { StdioServerTransport, serveStdio } from '@modelcontextprotocol/server/stdio';
import type { Log } from '../../core/runtime.ts';

export interface StdioSurface {
  /** Settles when the client is gone (its end of stdin closed) or `close` was called. */
  readonly closed: Promise<void>;
  close(): Promise<void>;
}

/** Serves one MCP connection on stdin and stdout; nothing else may write to stdout. */
export function serveOnStdio(
  factory: McpServerFactory,
  log: Log,
  streams: { stdin: Readable; stdout: Writable } = process,
): StdioSurface {
  const transport = new StdioServerTransport(streams.stdin, streams.stdout);
  const handle = serveStdio(factory, {
    transport,
    onerror: (error) => log.debug('MCP over stdio', { fault: error.message }),
  });
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  // A client that goes away closes stdin; a pipe that breaks ends in an error instead.
  streams.stdin.once('end', resolve);
  streams.stdin.once('close', resolve);
  streams.stdout.once('error', () => resolve());
  return {
    closed,
    async close() {
      await handle.close();
      resolve();
    },
  };
}
