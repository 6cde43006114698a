import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { HoldfastError } from '../core/errors.ts';
import { isObject, type JsonValue } from '../core/json.ts';
import { parseDuration } from '../core/time.ts';
import {
  FAULT_KINDS,
  type Fault,
  type JournalEntry,
  type Simulator,
  SimulatorClock,
  type SimulatorRequest,
  type SimulatorResponse,
} from './simulator.ts';

export interface SimulatorServer {
  /** `http://127.0.0.1:PORT`, the endpoint of every provider. */
  readonly origin: string;
  readonly port: number;
  readonly clock: SimulatorClock;
  /** What was asked so far, oldest first. */
  readonly journal: readonly JournalEntry[];
  /** Journal entries of requests that change something. */
  writes(): JournalEntry[];
  fault(fault: Fault): void;
  clearFaults(): void;
  clearJournal(): void;
  close(): Promise<void>;
}

export interface SimulatorServerOptions {
  readonly simulators: (clock: SimulatorClock) => readonly Simulator[];
  /** 0 or left out: any free port. */
  readonly port?: number;
  readonly clock?: SimulatorClock;
  /** 0 to 1; for repeatable faults. */
  readonly random?: () => number;
  /**
   * Called when a request has arrived, and again when it was handled and is about to be answered; both wait for it. A
   * request that it says to drop goes no further: the caller's connection is reset. One that it says to fail is answered
   * with 500, whatever was done.
   */
  readonly onRequest?: (entry: JournalEntry, phase: RequestPhase) => Promise<RequestVerdict> | RequestVerdict;
}

export type RequestPhase = 'arrived' | 'handled';
export type RequestVerdict = 'go on' | 'drop' | 'fail';

const JOURNAL_LIMIT = 10_000;
const BODY_LIMIT = 4 * 1024 * 1024;

/** Starts the simulators on one loopback port, with `/_journal`, `/_faults` and `/_clock` beside them. */
export async function startSimulators(options: SimulatorServerOptions): Promise<SimulatorServer> {
  const clock = options.clock ?? new SimulatorClock();
  const simulators = options.simulators(clock);
  const random = options.random ?? Math.random;
  const journal: JournalEntry[] = [];
  let faults: { fault: Fault; left: number }[] = [];
  let sequence = 0;

  const pickFault = (request: SimulatorRequest, { provider, operation, writes }: JournalEntry): Fault | undefined => {
    for (const entry of faults) {
      const { fault } = entry;
      if (entry.left <= 0) continue;
      if (fault.provider !== undefined && fault.provider !== provider) continue;
      if (fault.method !== undefined && fault.method.toUpperCase() !== request.method) continue;
      if (fault.path !== undefined && !request.url.pathname.includes(fault.path)) continue;
      if (fault.operation !== undefined && fault.operation !== operation) continue;
      if (fault.writes !== undefined && fault.writes !== writes) continue;
      if (random() >= (fault.rate ?? 1)) continue;
      entry.left -= 1;
      return fault;
    }
    return undefined;
  };

  const control = (request: SimulatorRequest): SimulatorResponse => {
    const body = isObject(request.json) ? request.json : {};
    const route = `${request.method} ${request.url.pathname}`;
    if (route === 'GET /_journal') {
      const provider = request.url.searchParams.get('provider');
      const writes = request.url.searchParams.get('writes');
      const entries = journal.filter(
        (entry) =>
          (provider === null || entry.provider === provider) && (writes === null || String(entry.writes) === writes),
      );
      return { status: 200, body: { entries } };
    }
    if (route === 'DELETE /_journal') {
      journal.length = 0;
      return { status: 200, body: { entries: [] } };
    }
    if (route === 'GET /_faults') return { status: 200, body: { faults: faults.map(({ fault }) => fault) } };
    if (route === 'DELETE /_faults') {
      faults = [];
      return { status: 200, body: { faults: [] } };
    }
    if (route === 'POST /_faults') {
      const list = Array.isArray(body['faults']) ? body['faults'] : [body];
      const checked = list.map(readFault);
      faults = body['replace'] === true ? checked : [...faults, ...checked];
      return { status: 200, body: { faults: faults.map(({ fault }) => fault) } };
    }
    if (route === 'GET /_clock' || route === 'POST /_clock') {
      if (body['frozen'] === true) clock.freeze();
      if (body['frozen'] === false) clock.run();
      if (typeof body['advance'] === 'string') clock.advance(parseDuration(body['advance']) * 1000);
      if (typeof body['advance_seconds'] === 'number') clock.advance(body['advance_seconds'] * 1000);
      return { status: 200, body: { now: clock.now().toISOString() } };
    }
    return {
      status: 404,
      body: {
        error: 'unknown control',
        routes: ['GET|DELETE /_journal', 'GET|POST|DELETE /_faults', 'GET|POST /_clock'],
        fault_kinds: [...FAULT_KINDS],
      },
    };
  };

  const server = createServer((incoming, outgoing) => {
    answer(incoming, outgoing).catch(() => outgoing.destroy());
  });

  const answer = async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    const request = await readRequest(incoming, origin);
    if (request === undefined) return send(outgoing, { status: 413, body: 'too large' });
    if (request.url.pathname.startsWith('/_')) {
      try {
        return send(outgoing, control(request));
      } catch (cause) {
        return send(outgoing, {
          status: 400,
          body: { error: cause instanceof HoldfastError ? cause.message : 'not understood' },
        });
      }
    }
    const simulator = simulators.find((candidate) => candidate.matches(request));
    if (simulator === undefined)
      return send(outgoing, { status: 404, body: { error: 'no simulated provider has this path' } });
    sequence += 1;
    const operation = simulator.operation?.(request);
    const entry: JournalEntry = {
      sequence,
      at: clock.now().toISOString(),
      provider: simulator.provider,
      method: request.method,
      path: maskText(request.url.pathname + request.url.search),
      ...(operation === undefined ? {} : { operation }),
      writes: simulator.writes?.(request) ?? !['GET', 'HEAD', 'OPTIONS'].includes(request.method),
      status: null,
    };
    if (request.text !== '') entry.body = maskSecrets(request.json ?? '(not JSON)');
    journal.push(entry);
    if (journal.length > JOURNAL_LIMIT) journal.shift();
    const stop = (verdict: RequestVerdict | undefined): boolean => {
      if (verdict === 'drop') resetSocket(incoming.socket);
      if (verdict === 'fail') send(outgoing, { status: 500, body: { error: 'injected fault' } });
      return verdict === 'drop' || verdict === 'fail';
    };
    if (stop(await options.onRequest?.(entry, 'arrived'))) return;

    const fault = pickFault(request, entry);
    if (fault !== undefined) entry.fault = fault.kind;
    if (fault?.kind === 'reset') return resetSocket(incoming.socket);
    if (fault?.kind === '429' || fault?.kind === '503' || fault?.kind === '500') {
      entry.status = Number(fault.kind);
      const headers: Record<string, string> =
        fault.retry_after === undefined ? {} : { 'retry-after': String(fault.retry_after) };
      return send(outgoing, { status: entry.status, headers, body: { error: 'injected fault' } });
    }
    if (fault?.kind === 'slow') await new Promise((resolve) => setTimeout(resolve, fault.delay_ms ?? 500));
    const response = await simulator.handle(request);
    entry.status = response.status;
    if (stop(await options.onRequest?.(entry, 'handled'))) return;
    if (fault?.kind === 'lost') return resetSocket(incoming.socket);
    if (fault?.kind === 'malformed') {
      const isXml = response.headers?.['content-type']?.includes('xml') === true;
      return send(outgoing, {
        ...response,
        headers: isXml ? response.headers : { ...response.headers, 'content-type': 'application/json' },
        body: isXml ? '<broken><in>' : '{"broken": ',
      });
    }
    if (fault?.kind === 'truncated') return truncate(outgoing, response);
    send(outgoing, response);
  };

  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(
        new HoldfastError('INVALID_STATE', `the sandbox cannot listen on port ${options.port ?? 0}`, {
          cause,
          hint: 'Choose another port, or none for any free one.',
        }),
      ),
    );
    server.listen(options.port ?? 0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  const origin = `http://127.0.0.1:${port}`;

  return {
    origin,
    port,
    clock,
    journal,
    writes: () => journal.filter((entry) => entry.writes),
    fault: (fault) => {
      faults.push(readFault(fault));
    },
    clearFaults: () => {
      faults = [];
    },
    clearJournal: () => {
      journal.length = 0;
    },
    close: async () => {
      await Promise.all(simulators.map((simulator) => simulator.dispose?.()));
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function readFault(value: unknown): { fault: Fault; left: number } {
  const fault = value as Fault;
  if (!isObject(value) || !FAULT_KINDS.includes(fault.kind)) {
    throw new HoldfastError('INVALID_PARAMETER', `a fault needs a kind, one of ${FAULT_KINDS.join(', ')}`);
  }
  return { fault, left: fault.times ?? Number.POSITIVE_INFINITY };
}

async function readRequest(incoming: IncomingMessage, origin: string): Promise<SimulatorRequest | undefined> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of incoming) {
    size += (chunk as Buffer).length;
    if (size > BODY_LIMIT) return undefined;
    chunks.push(chunk as Buffer);
  }
  const text = Buffer.concat(chunks).toString('utf8');
  let json: JsonValue | undefined;
  try {
    json = text === '' ? undefined : (JSON.parse(text) as JsonValue);
  } catch {
    json = undefined;
  }
  const headers = Object.fromEntries(
    Object.entries(incoming.headers).map(([name, value]) => [
      name,
      Array.isArray(value) ? value.join(', ') : (value ?? ''),
    ]),
  );
  return { method: incoming.method ?? 'GET', url: new URL(incoming.url ?? '/', origin), headers, text, json };
}

function render(response: SimulatorResponse): { payload: string; headers: Record<string, string> } {
  const isText = typeof response.body === 'string';
  const payload = response.body === undefined ? '' : isText ? (response.body as string) : JSON.stringify(response.body);
  const type: Record<string, string> =
    payload === '' ? {} : { 'content-type': isText ? 'text/plain; charset=utf-8' : 'application/json' };
  return { payload, headers: { ...type, ...response.headers } };
}

function send(outgoing: ServerResponse, response: SimulatorResponse): void {
  const { payload, headers } = render(response);
  outgoing.writeHead(response.status, {
    ...headers,
    ...(response.status === 204 ? {} : { 'content-length': String(Buffer.byteLength(payload)) }),
  });
  outgoing.end(response.status === 204 ? undefined : payload);
}

function truncate(outgoing: ServerResponse, response: SimulatorResponse): void {
  const { payload, headers } = render(response);
  outgoing.writeHead(response.status, { ...headers, 'content-length': String(Buffer.byteLength(payload) + 64) });
  outgoing.write(payload.slice(0, Math.floor(payload.length / 2)), () => resetSocket(outgoing.socket));
}

function resetSocket(socket: Socket | null): void {
  socket?.resetAndDestroy();
}

const SECRET_KEY = /pass(word|wd)?|secret|token|credential|private|api[-_]?key|authorization/i;

/** Masks what a request body may hold of secrets, by key and by the shape of a URI. */
export function maskSecrets(value: JsonValue): JsonValue {
  if (typeof value === 'string') return maskText(value);
  if (Array.isArray(value)) return value.map(maskSecrets);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [
      key,
      SECRET_KEY.test(key) && typeof member === 'string' ? '***' : maskSecrets(member as JsonValue),
    ]),
  );
}

function maskText(text: string): string {
  return text
    .replace(/\b([a-z][a-z0-9+.-]*:\/\/)[^\s/@]*@/gi, '$1***@')
    .replace(/([?&][^=\s&]*(?:sig|signature|token|secret|password|key|credential)[^=\s&]*=)[^&\s]+/gi, '$1***');
}
