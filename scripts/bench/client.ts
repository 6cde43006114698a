import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { createInterface } from 'node:readline';

/** A program to measure: arguments of Node, its working directory, its environment. */
export interface Program {
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
}

export interface Listed {
  readonly name: string;
  readonly description?: string;
  readonly inputSchema: unknown;
}

const META = {
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientCapabilities': {},
  'io.modelcontextprotocol/clientInfo': { name: 'bench', version: '1' },
};

function message(id: number, method: string, params: Record<string, unknown>): string {
  return JSON.stringify({ jsonrpc: '2.0', id, method, params: { ...params, _meta: META } });
}

/** A server on stdio with as little client as possible before it, so that the client does not count. */
export class StdioServer {
  readonly child: ChildProcess;
  readonly #waiting = new Map<number, (line: string) => void>();
  #next = 1;

  constructor({ args, cwd, env }: Program) {
    const { PATH = '', HOME = '' } = process.env;
    const options = { cwd, env: { PATH, HOME, ...env }, stdio: ['pipe', 'pipe', 'ignore'] as const };
    this.child = spawn(process.execPath, args, { ...options, stdio: [...options.stdio] });
    const { stdout } = this.child;
    if (stdout === null) throw new Error('no pipe');
    createInterface({ input: stdout }).on('line', (line) => {
      const { id } = JSON.parse(line) as { id?: number };
      if (id === undefined) return;
      this.#waiting.get(id)?.(line);
      this.#waiting.delete(id);
    });
  }

  /** @throws when the server ends before it answers, or answers with an error */
  async ask(method: string, params: Record<string, unknown> = {}): Promise<unknown> {
    const id = this.#next;
    this.#next += 1;
    const answer = new Promise<string>((resolve, reject) => {
      this.#waiting.set(id, resolve);
      this.child.once('exit', (code) => reject(new Error(`the server ended with status ${code}`)));
    });
    this.child.stdin?.write(`${message(id, method, params)}\n`);
    const line = await answer;
    this.child.removeAllListeners('exit');
    const { result, error } = JSON.parse(line) as { result?: { isError?: boolean }; error?: unknown };
    if (error !== undefined || result?.isError === true) throw new Error(`${method}: ${line.slice(0, 300)}`);
    return result;
  }

  /** Resident memory in bytes. */
  memory(): number {
    const kib = execFileSync('ps', ['-o', 'rss=', '-p', String(this.child.pid)], { encoding: 'utf8' });
    return Number(kib.trim()) * 1024;
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null) return;
    const gone = once(this.child, 'exit');
    this.child.stdin?.end();
    const timer = setTimeout(() => this.child.kill(), 3000);
    await gone;
    clearTimeout(timer);
  }
}

/** Starts a program that says on stderr where it listens. */
export async function startHttp({ args, cwd, env }: Program): Promise<{ url: string; stop(): Promise<void> }> {
  const child = spawn(process.execPath, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const gone = once(child, 'exit');
  const url = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stderr }).on('line', (line) => {
      const found = /http:\/\/\S+/.exec(line);
      if (found) resolve(found[0]);
    });
    child.once('exit', (code) => reject(new Error(`the server ended with status ${code}`)));
  });
  return {
    url,
    stop: async () => {
      child.kill();
      await gone;
    },
  };
}

/** Calls one tool over and over on some connections at once, and gives the answers a second. */
export async function requestsPerSecond(
  url: string,
  tool: string,
  args: object,
  connections: number,
  ms: number,
): Promise<number> {
  const agent = new Agent({ keepAlive: true, maxSockets: connections });
  const body = message(1, 'tools/call', { name: tool, arguments: args });
  const headers = {
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
    'content-length': Buffer.byteLength(body),
    'mcp-protocol-version': '2026-07-28',
    'mcp-method': 'tools/call',
    'mcp-name': tool,
  };
  const once = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const sent = request(url, { method: 'POST', agent, headers }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part: string) => {
          text += part;
        });
        response.once('end', () => {
          const fine = response.statusCode === 200 && text.includes('"result"') && !text.includes('"isError":true');
          if (fine) resolve();
          else reject(new Error(`${response.statusCode}: ${text.slice(0, 300)}`));
        });
      });
      sent.once('error', reject);
      sent.end(body);
    });
  const end = performance.now() + ms;
  let answers = 0;
  const begun = performance.now();
  await Promise.all(
    Array.from({ length: connections }, async () => {
      while (performance.now() < end) {
        await once();
        answers += 1;
      }
    }),
  );
  const seconds = (performance.now() - begun) / 1000;
  agent.destroy();
  return answers / seconds;
}
