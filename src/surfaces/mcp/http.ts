import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  hostHeaderValidation,
  NodeStreamableHTTPServerTransport,
  originValidation,
  toNodeHandler,
  toWebRequest,
} from '@modelcontextprotocol/node';
import {
  type AuthInfo,
  createMcpHandler,
  isInitializeRequest,
  isJsonContentType,
  isLegacyRequest,
  legacyStatelessFallback,
  localhostAllowedHostnames,
  type McpServerFactory,
} from '@modelcontextprotocol/server';
import { HoldfastError } from '../../core/errors.ts';
import type { Principal } from '../../core/principal.ts';
import type { Log } from '../../core/runtime.ts';
import { assertSafe, authenticator, type HttpConfig, isLoopback } from './auth.ts';

export interface HttpOptions {
  readonly config: HttpConfig;
  readonly log: Log;
  readonly now?: (() => Date) | undefined;
  /** Bytes; 4 MiB when left out. */
  readonly bodyLimit?: number | undefined;
  /** Milliseconds that requests get to end by themselves at close; 5 seconds when left out. */
  readonly closeGraceMs?: number | undefined;
}

export interface HttpSurface {
  /** `http://127.0.0.1:7311/mcp` */
  readonly url: string;
  /** Sessions of 2025 clients that are open now. */
  sessions(): number;
  /** Takes no more requests, lets running ones end within the grace, then closes everything. */
  close(): Promise<void>;
}

interface Session {
  readonly transport: NodeStreamableHTTPServerTransport;
  readonly owner: string;
  active: number;
  usedAt: number;
}

type Request = IncomingMessage & { auth?: AuthInfo };

const MIB = 1024 * 1024;

/**
 * Serves MCP on `/mcp`: 2026 clients without state, 2025 clients with sessions, and 2025 clients that drop their session
 * header as well as can be done for them (no question to the person, no cancellation).
 * @throws {HoldfastError} CONFIG_INVALID for an address that would let strangers in, or one that cannot be listened on
 */
export async function serveHttp(factory: McpServerFactory, options: HttpOptions): Promise<HttpSurface> {
  const { config, log, now = () => new Date(), bodyLimit = 4 * MIB } = options;
  assertSafe(config);
  const { host = '127.0.0.1', port = 7311 } = config;
  const addressed = addressCheck(config, host);
  const onerror = (error: Error): void => log.debug('MCP over HTTP', { fault: error.message });
  const handler = createMcpHandler(factory, { legacy: 'reject', onerror });
  const modern = toNodeHandler(handler, { onerror });
  const bare = toNodeHandler({ fetch: legacyStatelessFallback(factory, onerror) }, { onerror });
  const principalOf = authenticator(config, now);
  const sessions = new SessionTable(factory, config, now);
  const running = new Set<ServerResponse>();
  let closing = false;

  async function serveMcp(request: Request, response: ServerResponse): Promise<void> {
    if (!addressed(request, response)) return;
    const principal = principalOf(request.headers.authorization);
    if (principal === undefined) {
      response.setHeader('WWW-Authenticate', 'Bearer realm="holdfast", error="invalid_token"');
      return refuse(response, 401, 'a valid bearer token is needed');
    }
    request.auth = authInfoOf(principal);
    const method = request.method ?? '';
    if (method !== 'POST' && method !== 'GET' && method !== 'DELETE') {
      response.setHeader('Allow', 'POST, GET, DELETE');
      return refuse(response, 405, 'method not allowed');
    }
    let body: unknown;
    if (method === 'POST') {
      if (!isJsonContentType(request.headers['content-type'] ?? null)) {
        return refuse(response, 415, 'Content-Type must be application/json');
      }
      const text = await readBody(request, bodyLimit);
      if (text === undefined) {
        response.setHeader('Connection', 'close');
        return refuse(response, 413, `the request body is over ${bodyLimit} bytes`);
      }
      body = parseJson(text);
      if (body === undefined) return refuse(response, 400, 'the request body is not JSON', -32_700);
    }
    if (!(await isLegacyRequest(await toWebRequest(request, body), body))) return modern(request, response, body);
    const id = request.headers['mcp-session-id'];
    if (id !== undefined) {
      const session = sessions.find(String(id), principal);
      // 404 tells the client to begin a new session; another's session looks like none.
      if (session === undefined) return refuse(response, 404, 'there is no such session', -32_001);
      return sessions.serve(session, request, response, body);
    }
    if (isInitializeRequest(body)) return sessions.open(principal, request, response, body);
    if (method === 'POST') return bare(request, response, body);
    refuse(response, 400, 'the Mcp-Session-Id header is missing');
  }

  const server = createServer((request, response) => {
    running.add(response);
    response.once('close', () => running.delete(response));
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    if (closing) {
      response.setHeader('Connection', 'close');
      return refuse(response, 503, 'the server is shutting down');
    }
    if (pathname === '/healthz') {
      response.writeHead(200, { 'Content-Type': 'text/plain' }).end('ok\n');
      return;
    }
    if (pathname === '/mcp') {
      serveMcp(request, response).catch((cause: unknown) => {
        log.error('an MCP request failed', { fault: cause instanceof Error ? cause.message : '' });
        if (!response.headersSent) refuse(response, 500, 'an unexpected fault stopped the request', -32_603);
        else response.destroy();
      });
      return;
    }
    refuse(response, 404, 'there is nothing here; MCP is at /mcp');
  });
  // Node closes a connection after five idle seconds, and a client that sends in that moment loses its request. Balancers
  // keep theirs for a minute.
  server.keepAliveTimeout = 75_000;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const why = cause.code === 'EADDRINUSE' ? 'the port is in use' : (cause.code ?? 'unknown fault');
      reject(new HoldfastError('CONFIG_INVALID', `cannot listen on ${host}:${port}: ${why}`, { cause }));
    });
    server.listen(port, host.replace(/^\[|\]$/g, ''), resolve);
  });
  const address = server.address() as AddressInfo;
  const shownHost = address.family === 'IPv6' ? `[${address.address}]` : address.address;

  return {
    url: `http://${shownHost}:${address.port}/mcp`,
    sessions: () => sessions.size,
    async close() {
      if (closing) return;
      closing = true;
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdleConnections();
      // Standing streams never end by themselves; calls may.
      const calls = [...running].filter((response) => response.req.method === 'POST');
      await Promise.race([Promise.all(calls.map(ended)), timeout(options.closeGraceMs ?? 5_000)]);
      await handler.close();
      await sessions.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

/** The sessions of 2025 clients: each tied to the principal that opened it, their number bounded, idle ones closed. */
class SessionTable {
  readonly #factory: McpServerFactory;
  readonly #sessions = new Map<string, Session>();
  readonly #most: number;
  readonly #idleMs: number;
  readonly #now: () => Date;
  readonly #sweep: NodeJS.Timeout;

  constructor(factory: McpServerFactory, config: HttpConfig, now: () => Date) {
    this.#factory = factory;
    this.#now = now;
    this.#most = config.max_sessions ?? 256;
    this.#idleMs = (config.session_idle_seconds ?? 30 * 60) * 1000;
    this.#sweep = setInterval(() => this.#expire(), Math.min(this.#idleMs, 60_000));
    this.#sweep.unref();
  }

  get size(): number {
    return this.#sessions.size;
  }

  find(id: string, principal: Principal): Session | undefined {
    this.#expire();
    const session = this.#sessions.get(id);
    return session?.owner === principal.id ? session : undefined;
  }

  async serve(session: Session, request: Request, response: ServerResponse, body: unknown): Promise<void> {
    session.active += 1;
    response.once('close', () => {
      session.active -= 1;
      session.usedAt = this.#now().getTime();
    });
    await session.transport.handleRequest(request, response, body);
  }

  async open(principal: Principal, request: Request, response: ServerResponse, body: unknown): Promise<void> {
    this.#expire();
    if (this.#sessions.size >= this.#most && !this.#dropIdlest()) {
      response.setHeader('Retry-After', '60');
      return refuse(response, 503, 'too many sessions are open');
    }
    const transport = new NodeStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => void this.#sessions.set(id, session),
    });
    const session: Session = { transport, owner: principal.id, active: 0, usedAt: this.#now().getTime() };
    const server = await this.#factory({
      era: 'legacy',
      ...(request.auth === undefined ? {} : { authInfo: request.auth }),
    });
    await server.connect(transport);
    const closed = transport.onclose;
    transport.onclose = () => {
      if (transport.sessionId !== undefined) this.#sessions.delete(transport.sessionId);
      closed?.();
    };
    await this.serve(session, request, response, body);
  }

  async close(): Promise<void> {
    clearInterval(this.#sweep);
    await Promise.all([...this.#sessions.values()].map(({ transport }) => transport.close()));
    this.#sessions.clear();
  }

  #expire(): void {
    for (const [id, session] of this.#sessions) {
      if (session.active === 0 && this.#now().getTime() - session.usedAt >= this.#idleMs) this.#drop(id, session);
    }
  }

  #dropIdlest(): boolean {
    const idle = [...this.#sessions].filter(([, session]) => session.active === 0);
    const longest = idle.sort(([, a], [, b]) => a.usedAt - b.usedAt)[0];
    if (longest !== undefined) this.#drop(...longest);
    return longest !== undefined;
  }

  #drop(id: string, session: Session): void {
    this.#sessions.delete(id);
    void session.transport.close();
  }
}

/** Refuses, with 403, what is addressed to another name or comes from a stranger's page: what DNS rebinding looks like. */
function addressCheck(
  config: HttpConfig,
  host: string,
): (request: IncomingMessage, response: ServerResponse) => boolean {
  const allowed = (config.allowed_hosts ?? []).map((name) => name.toLowerCase());
  const withPort = new Set(allowed.filter((name) => /:\d+$/.test(name)));
  const names = [
    ...allowed.filter((name) => !withPort.has(name)),
    ...(isLoopback(host) ? localhostAllowedHostnames() : []),
  ];
  const origins = new Set((config.allowed_origins ?? []).map((origin) => new URL(origin).origin));
  const hostFits = hostHeaderValidation(names);
  // A page that the allowed names serve may call.
  const originFits = originValidation([...names, ...[...withPort].map((name) => name.replace(/:\d+$/, ''))]);
  return (request, response) =>
    (withPort.has((request.headers.host ?? '').toLowerCase()) || hostFits(request, response)) &&
    (origins.has(request.headers.origin ?? '') || originFits(request, response));
}

function authInfoOf(principal: Principal): AuthInfo {
  // The token itself goes no further than the check.
  return { token: '', clientId: principal.id, scopes: [...principal.roles], extra: { principal } };
}

async function readBody(request: IncomingMessage, limit: number): Promise<string | undefined> {
  if (Number(request.headers['content-length'] ?? 0) > limit) return undefined;
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function refuse(response: ServerResponse, status: number, message: string, code = -32_000): void {
  response
    .writeHead(status, { 'Content-Type': 'application/json' })
    .end(JSON.stringify({ jsonrpc: '2.0', error: { code, message }, id: null }));
}

function ended(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    if (response.closed) resolve();
    else response.once('close', () => resolve());
  });
}

function timeout(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}
