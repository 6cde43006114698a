import { Client as ModernClient, StreamableHTTPClientTransport as ModernHttp } from '@modelcontextprotocol/client';
import { StdioClientTransport as ModernStdio } from '@modelcontextprotocol/client/stdio';
import { Client as FirstClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport as FirstStdio } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport as FirstHttp } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';

/** The three clients that are about: the first SDK line, the second as it comes, the second on the newest protocol. */
export const CLIENTS = ['sdk 1', 'sdk 2 by default', 'sdk 2 on 2026-07-28'] as const;
export type ClientKind = (typeof CLIENTS)[number];

export interface Target {
  readonly url?: string;
  readonly headers?: Record<string, string>;
  /** Arguments of a Node process that serves on stdio. */
  readonly node?: readonly string[];
  readonly env?: Record<string, string>;
}

export interface ToolAnswer {
  readonly isError?: boolean | undefined;
  readonly text: string;
  readonly structured: Record<string, unknown>;
  readonly meta: Record<string, unknown> | undefined;
}

export interface ListedTool {
  readonly name: string;
  readonly title?: string | undefined;
  readonly description?: string | undefined;
  readonly inputSchema: Record<string, unknown>;
  readonly outputSchema?: Record<string, unknown> | undefined;
  readonly annotations?: Record<string, unknown> | undefined;
}

export interface ListedResource {
  readonly uri: string;
  readonly title?: string | undefined;
  readonly description?: string | undefined;
  readonly mimeType?: string | undefined;
}

export interface ListedPrompt {
  readonly name: string;
  readonly arguments: readonly { readonly name: string; readonly required: boolean }[];
}

export interface Ask {
  readonly message: string;
}

export type Reply =
  | { action: 'accept'; content: Record<string, string> }
  | { action: 'decline' }
  | { action: 'cancel' };

export interface TestClient {
  readonly instructions: string | undefined;
  tools(): Promise<ListedTool[]>;
  call(
    name: string,
    args: Record<string, unknown>,
    options?: {
      signal?: AbortSignal;
      onprogress?: (progress: { progress: number; total?: number; message?: string }) => void;
    },
  ): Promise<ToolAnswer>;
  read(uri: string): Promise<string>;
  prompt(name: string, args: Record<string, string>): Promise<string>;
  complete(prompt: string, argument: string, value: string, given?: Record<string, string>): Promise<string[]>;
  completeUri(template: string, variable: string, value: string): Promise<string[]>;
  resources(): Promise<ListedResource[]>;
  templates(): Promise<string[]>;
  prompts(): Promise<ListedPrompt[]>;
  close(): Promise<void>;
}

type RawResult = {
  isError?: boolean | undefined;
  content?: unknown;
  structuredContent?: unknown;
  _meta?: Record<string, unknown> | undefined;
};

function toAnswer(result: RawResult): ToolAnswer {
  const content = (result.content ?? []) as { type: string; text?: string }[];
  return {
    isError: result.isError,
    text: content.map((block) => block.text ?? '').join('\n'),
    structured: (result.structuredContent ?? {}) as Record<string, unknown>,
    meta: result._meta,
  };
}

/** Connects a client of one kind; with `answer` it declares that it can ask a person, and asks that function. */
export async function connectClient(
  kind: ClientKind,
  target: Target,
  answer?: (ask: Ask) => Reply | Promise<Reply>,
): Promise<TestClient> {
  const info = { name: 'test', version: '1.0.0' };
  const capabilities = answer === undefined ? {} : { elicitation: {} };
  const stdio = {
    command: process.execPath,
    args: [...(target.node ?? [])],
    env: target.env ?? {},
    stderr: 'inherit' as const,
  };
  const requestInit = target.headers === undefined ? {} : { requestInit: { headers: target.headers } };
  const client =
    kind === 'sdk 1'
      ? new FirstClient(info, { capabilities })
      : new ModernClient(info, {
          capabilities,
          ...(kind === 'sdk 2 on 2026-07-28' ? { versionNegotiation: { mode: { pin: '2026-07-28' } } } : {}),
        });
  if (client instanceof FirstClient) {
    if (answer !== undefined) {
      client.setRequestHandler(ElicitRequestSchema, async (request) => answer({ message: request.params.message }));
    }
    await client.connect(
      target.url === undefined ? new FirstStdio(stdio) : new FirstHttp(new URL(target.url), requestInit),
    );
  } else {
    if (answer !== undefined) {
      client.setRequestHandler('elicitation/create', async (request) => answer({ message: request.params.message }));
    }
    await client.connect(
      target.url === undefined ? new ModernStdio(stdio) : new ModernHttp(new URL(target.url), requestInit),
    );
  }
  const contentsText = (contents: unknown): string =>
    (contents as { text?: string }[]).map(({ text }) => text ?? '').join('\n');
  return {
    get instructions() {
      return client.getInstructions();
    },
    tools: async () => (await client.listTools()).tools as unknown as ListedTool[],
    call: async (name, args, options = {}) => {
      const params = { name, arguments: args };
      const result =
        client instanceof FirstClient
          ? await client.callTool(params, undefined, options as never)
          : await client.callTool(params, options as never);
      return toAnswer(result as RawResult);
    },
    read: async (uri) => contentsText((await client.readResource({ uri })).contents),
    prompt: async (name, args) =>
      (await client.getPrompt({ name, arguments: args })).messages
        .map(({ content }) => (content as { text?: string }).text ?? '')
        .join('\n'),
    complete: async (name, argument, value, given) =>
      (
        await client.complete({
          ref: { type: 'ref/prompt', name },
          argument: { name: argument, value },
          ...(given === undefined ? {} : { context: { arguments: given } }),
        })
      ).completion.values,
    completeUri: async (uri, variable, value) =>
      (await client.complete({ ref: { type: 'ref/resource', uri }, argument: { name: variable, value } })).completion
        .values,
    resources: async () => (await client.listResources()).resources as ListedResource[],
    templates: async () =>
      (await client.listResourceTemplates()).resourceTemplates.map(({ uriTemplate }) => uriTemplate),
    prompts: async () =>
      (await client.listPrompts()).prompts.map(({ name, arguments: given = [] }) => ({
        name,
        arguments: given.map((one) => ({ name: one.name, required: one.required === true })),
      })),
    close: () => client.close(),
  };
}
