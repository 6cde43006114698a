import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { builtProgram } from './shared.ts';

const main = join(await builtProgram(), 'dist', 'main.js');
/** What to preload so that token hosts are the test's own and pauses short: for `node: ['--import', REROUTE]`. */
export const REROUTE: string = new URL('./reroute.ts', import.meta.url).href;
const PROTOCOL = '2025-11-25';

export interface Finished {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

export interface ProgramOptions {
  /** The whole environment but PATH and HOME. */
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** Options of node itself. */
  readonly node?: readonly string[];
  /** Told every piece that the program writes: a line of MCP, an answer of HTTP, the whole of a stream at its end. */
  readonly seen?: (where: string, text: string) => void;
}

/** A tool's answer as it stood in the message. */
export interface RawAnswer {
  readonly isError: boolean;
  readonly structured: Record<string, unknown>;
  readonly text: string;
}

/** The program as a server, spoken to in plain JSON-RPC, so that every byte of its answers is seen. */
export interface Server {
  readonly pid: number;
  readonly url: string | undefined;
  call(name: string, args: object): Promise<RawAnswer>;
  request(method: string, params: object): Promise<Record<string, unknown>>;
  stop(): Promise<Finished>;
}

/** What node is started with to run the program. */
export function programArguments(args: readonly string[], { node = [] }: Pick<ProgramOptions, 'node'>): string[] {
  return ['--disable-warning=ExperimentalWarning', ...node, main, ...args];
}

function start(args: readonly string[], options: ProgramOptions): ChildProcessWithoutNullStreams {
  const { env, cwd } = options;
  return spawn(process.execPath, programArguments(args, options), {
    cwd,
    env: { PATH: process.env['PATH'], HOME: cwd, NO_COLOR: '1', ...env },
    stdio: 'pipe',
  });
}

/** Runs one command of the program to its end, without a terminal. */
export async function runProgram(
  args: readonly string[],
  options: ProgramOptions & { readonly stdin?: string },
): Promise<Finished> {
  const child = start(args, options);
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text;
  });
  child.stdin.end(options.stdin ?? '');
  const status = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  const name = `holdfast ${args.slice(0, 2).join(' ')}`;
  options.seen?.(`stdout of ${name}`, out);
  options.seen?.(`stderr of ${name}`, err);
  return { status, out, err };
}

function toAnswer(result: Record<string, unknown>): RawAnswer {
  const content = (result['content'] ?? []) as { text?: string }[];
  return {
    isError: result['isError'] === true,
    structured: (result['structuredContent'] ?? {}) as Record<string, unknown>,
    text: content.map(({ text }) => text ?? '').join('\n'),
  };
}

interface Message {
  readonly id?: number;
  readonly result?: Record<string, unknown>;
  readonly error?: { code: number; message: string };
}

const INITIALIZE = {
  protocolVersion: PROTOCOL,
  capabilities: {},
  clientInfo: { name: 'raw', version: '1.0.0' },
};

/** Starts `serve` on stdio. */
export async function serveStdio(args: readonly string[], options: ProgramOptions): Promise<Server> {
  const child = start(['serve', ...args], options);
  const waiting = new Map<number, (message: Message) => void>();
  let out = '';
  let err = '';
  let last = 0;
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  createInterface({ input: child.stdout }).on('line', (line) => {
    options.seen?.('an MCP message on stdio', line);
    out += `${line}\n`;
    const message = JSON.parse(line) as Message;
    if (message.id !== undefined) waiting.get(message.id)?.(message);
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text;
  });
  const request = async (method: string, params: object): Promise<Record<string, unknown>> => {
    last += 1;
    const id = last;
    const answer = new Promise<Message>((resolve) => waiting.set(id, resolve));
    child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`);
    const gone = ended.then(() => ({ error: { code: 0, message: `the server ended:\n${err}` } }));
    const message = await Promise.race<Message>([answer, gone]);
    if (message.result === undefined) throw new Error(`${method}: ${message.error?.message}`);
    return message.result;
  };
  await request('initialize', INITIALIZE);
  child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', method: 'notifications/initialized' })}\n`);
  return {
    pid: child.pid ?? -1,
    url: undefined,
    request,
    call: async (name, args_) => toAnswer(await request('tools/call', { name, arguments: args_ })),
    stop: async () => {
      child.stdin.end();
      const status = await ended;
      options.seen?.('stderr of serve', err);
      return { status, out, err };
    },
  };
}

/** Starts `serve --http` on a free port of loopback and speaks to it as the holder of a token. */
export async function serveHttp(
  args: readonly string[],
  options: ProgramOptions & { readonly bearer?: string },
): Promise<Server & { url: string }> {
  const child = start(['serve', '--http', '--port', '0', ...args], options);
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  const url = await new Promise<string>((resolve, reject) => {
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      err += text;
      const found = /serves MCP on (\S+)/.exec(err)?.[1];
      if (found !== undefined) resolve(found);
    });
    void ended.then(() => reject(new Error(`serve --http ended:\n${err}`)));
  });
  let last = 0;
  let session: string | undefined;
  const send = async (body: object): Promise<Message> => {
    const response = await fetch(url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
        'mcp-protocol-version': PROTOCOL,
        ...(options.bearer === undefined ? {} : { authorization: `Bearer ${options.bearer}` }),
        ...(session === undefined ? {} : { 'mcp-session-id': session }),
      },
      body: JSON.stringify({ jsonrpc: '2.0', ...body }),
    });
    session = response.headers.get('mcp-session-id') ?? session;
    const text = await response.text();
    options.seen?.('an answer over HTTP', `${JSON.stringify([...response.headers])}\n${text}`);
    const data = text.startsWith('{') ? [text] : [...text.matchAll(/^data: (.*)$/gm)].map(([, line]) => line as string);
    const messages = data.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as Message);
    return messages.find(({ id }) => id !== undefined) ?? {};
  };
  const request = async (method: string, params: object): Promise<Record<string, unknown>> => {
    last += 1;
    const { result, error } = await send({ id: last, method, params });
    if (result === undefined) throw new Error(`${method}: ${error?.message}`);
    return result;
  };
  await request('initialize', INITIALIZE);
  await send({ method: 'notifications/initialized' });
  return {
    pid: child.pid ?? -1,
    url,
    request,
    call: async (name, args_) => toAnswer(await request('tools/call', { name, arguments: args_ })),
    stop: async () => {
      child.kill('SIGTERM');
      const status = await ended;
      options.seen?.('stderr of serve --http', err);
      options.seen?.('stdout of serve --http', out);
      return { status, out, err };
    },
  };
}
