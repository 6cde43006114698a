import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';

/** One request to a stand-in for a cloud. */
export interface WireRequest {
  readonly method: string;
  readonly url: URL;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

export interface WireAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
}

/**
 * What a test lets happen to a request: an answer instead of the store's, a connection that is cut before anything is done,
 * after it was done but before it is answered, or in the middle of the answer.
 */
export type WireFault = WireAnswer | 'cut' | 'cut after' | 'cut in the answer';

export interface WireServer {
  readonly origin: string;
  readonly requests: WireRequest[];
  /** Asked for every request. */
  fault: (request: WireRequest) => WireFault | undefined | Promise<WireFault | undefined>;
  /** Ends it with all connections, as a killed process does. */
  kill(): Promise<void>;
}

/** Starts an HTTP server on loopback that hands each request, read whole, to a function. */
export async function startWire(answer: (request: WireRequest) => WireAnswer): Promise<WireServer> {
  const server = createServer(async (incoming, outgoing) => {
    try {
      const request: WireRequest = {
        method: incoming.method ?? '',
        url: new URL(incoming.url ?? '/', 'http://store'),
        headers: incoming.headers,
        body: await buffer(incoming),
      };
      wire.requests.push(request);
      const fault = await wire.fault(request);
      if (fault === 'cut') {
        incoming.socket.destroy();
        return;
      }
      const { status, headers = {}, body = '' } = typeof fault === 'object' ? fault : answer(request);
      if (fault === 'cut after') {
        incoming.socket.destroy();
        return;
      }
      const bytes = Buffer.from(body);
      outgoing.writeHead(status, { ...headers, 'content-length': headers['content-length'] ?? bytes.byteLength });
      if (fault === 'cut in the answer') {
        outgoing.write(bytes.subarray(0, Math.ceil(bytes.byteLength / 2)), () => incoming.socket.destroy());
        return;
      }
      outgoing.end(request.method === 'HEAD' ? undefined : bytes);
    } catch {
      incoming.socket.destroy();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const wire: WireServer = {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: [],
    fault: () => undefined,
    kill: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return wire;
}
