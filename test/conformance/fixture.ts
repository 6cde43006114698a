import {
  acceptedContent,
  type CallToolResult,
  CLIENT_CAPABILITIES_META_KEY,
  type ClientCapabilities,
  completable,
  createRequestStateCodec,
  fromJsonSchema,
  type InputRequiredResult,
  inputRequired,
  inputResponse,
  type McpRequestContext,
  McpServer,
  ResourceTemplate,
  type ServerContext,
} from '@modelcontextprotocol/server';
import { z } from 'zod';
import { asHoldfastError, HoldfastError } from '../../src/core/errors.ts';
import { errorResult } from '../../src/surfaces/mcp/call.ts';

// The names and answers that the conformance suite looks for, behind our HTTP wiring, with our errors and our kind of
// signed state: what passes here shows that the wiring is right, whatever tools are behind it.

const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==';
const WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=';

const codec = createRequestStateCodec<{ round: number }>({
  key: Buffer.alloc(32, 3),
  ttlSeconds: 300,
  bind: (context) => `${context.mcpReq.method}\0${context.http?.authInfo?.clientId ?? ''}`,
});

type Answer = CallToolResult | InputRequiredResult;
type Requests = NonNullable<Parameters<typeof inputRequired>[0]['inputRequests']>;

const text = (words: string): CallToolResult => ({ content: [{ type: 'text', text: words }] });
const image = { type: 'image', data: PNG, mimeType: 'image/png' } as const;
const sample = (words: string, maxTokens = 100) =>
  inputRequired.createMessage({ messages: [{ role: 'user', content: { type: 'text', text: words } }], maxTokens });
const form = (message: string, properties: Record<string, object>, required: string[] = Object.keys(properties)) =>
  inputRequired.elicit({ message, requestedSchema: { type: 'object', properties, required } as never });
const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20));

/** Asks until every key is answered, then finishes with all answers. */
async function asking(
  context: ServerContext,
  requests: Requests,
  finish: (answers: Record<string, unknown>) => Answer,
  signed = false,
): Promise<Answer> {
  const responses = context.mcpReq.inputResponses ?? {};
  const answered = Object.keys(requests).every((key) => inputResponse(responses, key).kind !== 'missing');
  if (answered && (!signed || context.mcpReq.requestState() !== undefined)) return finish(responses);
  return inputRequired({
    inputRequests: requests,
    ...(signed ? { requestState: await codec.mint({ round: 1 }, context) } : {}),
  });
}

const NAME = { name: { type: 'string' } };
const DEFAULTS = {
  name: { type: 'string', default: 'John Doe' },
  age: { type: 'integer', default: 30 },
  score: { type: 'number', default: 95.5 },
  status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
  verified: { type: 'boolean', default: true },
};
const OPTIONS = ['option1', 'option2', 'option3'];
const titled = (word: string) =>
  ['value1', 'value2', 'value3'].map((name, at) => ({ const: name, title: `${word} ${at + 1}` }));
const ENUMS = {
  untitledSingle: { type: 'string', enum: OPTIONS },
  titledSingle: { type: 'string', oneOf: titled('Option') },
  legacyEnum: {
    type: 'string',
    enum: ['opt1', 'opt2', 'opt3'],
    enumNames: ['Option One', 'Option Two', 'Option Three'],
  },
  untitledMulti: { type: 'array', items: { type: 'string', enum: OPTIONS } },
  titledMulti: { type: 'array', items: { anyOf: titled('Choice') } },
};

type Handler = (context: ServerContext, args: Record<string, unknown>) => Answer | Promise<Answer>;

const TOOLS: Record<string, Handler> = {
  test_simple_text: () => text('This is a simple text response for testing.'),
  test_image_content: () => ({ content: [image] }),
  test_audio_content: () => ({ content: [{ type: 'audio', data: WAV, mimeType: 'audio/wav' }] }),
  test_embedded_resource: () => ({
    content: [
      {
        type: 'resource',
        resource: {
          uri: 'test://embedded-resource',
          mimeType: 'text/plain',
          text: 'This is an embedded resource content.',
        },
      },
    ],
  }),
  test_multiple_content_types: () => ({
    content: [
      { type: 'text', text: 'Multiple content types test:' },
      image,
      {
        type: 'resource',
        resource: {
          uri: 'test://mixed-content-resource',
          mimeType: 'application/json',
          text: '{"test":"data","value":123}',
        },
      },
    ],
  }),
  test_error_handling: () => {
    throw new HoldfastError('INVALID_STATE', 'This tool intentionally returns an error for testing');
  },
  test_tool_with_progress: async (context) => {
    const progressToken = context.mcpReq._meta?.progressToken;
    for (const progress of [0, 50, 100]) {
      if (progressToken !== undefined) {
        await context.mcpReq.notify({
          method: 'notifications/progress',
          params: { progressToken, progress, total: 100 },
        });
      }
      await pause();
    }
    return text('done');
  },
  test_tool_with_logging: async (context) => {
    for (const data of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
      await context.mcpReq.notify({ method: 'notifications/message', params: { level: 'info', data } });
      await pause();
    }
    return text('done');
  },
  test_logging_tool: () => text('nothing is logged to the client'),
  test_sampling: (context, { prompt }) =>
    asking(context, { answer: sample(String(prompt)) }, ({ answer }) =>
      text(`LLM response: ${JSON.stringify(answer)}`),
    ),
  test_elicitation: (context, { message }) =>
    asking(
      context,
      {
        answer: form(String(message), {
          username: { type: 'string', description: "User's response" },
          email: { type: 'string', description: "User's email address" },
        }),
      },
      ({ answer }) => text(`User response: ${JSON.stringify(answer)}`),
    ),
  test_streaming_elicitation: (context) =>
    asking(context, { answer: form('Go on?', { ok: { type: 'boolean' } }) }, () => text('went on')),
  test_elicitation_sep1034_defaults: (context) =>
    asking(context, { answer: form('Defaults', DEFAULTS, []) }, ({ answer }) => text(completed(answer))),
  test_elicitation_sep1330_enums: (context) =>
    asking(context, { answer: form('Enums', ENUMS, []) }, ({ answer }) => text(completed(answer))),
  test_missing_capability: (context) =>
    asking(context, { answer: sample('Only for clients that can sample') }, () => text('sampled')),
  test_input_required_result_elicitation: async (context) => {
    const content = acceptedContent(context.mcpReq.inputResponses, 'user_name', z.object({ name: z.string() }));
    if (content !== undefined) return text(`Hello, ${content.name}!`);
    return inputRequired({ inputRequests: { user_name: form('What is your name?', NAME) } });
  },
  test_input_required_result_sampling: (context) =>
    asking(context, { capital_question: sample('What is the capital of France?') }, (answers) =>
      text(JSON.stringify(answers)),
    ),
  test_input_required_result_list_roots: (context) =>
    asking(context, { client_roots: inputRequired.listRoots() }, (answers) => text(JSON.stringify(answers))),
  test_input_required_result_request_state: (context) =>
    asking(context, { confirm: form('Please confirm', { ok: { type: 'boolean' } }) }, () => text('state-ok'), true),
  test_input_required_result_tampered_state: (context) =>
    asking(context, { confirm: form('Please confirm', { ok: { type: 'boolean' } }) }, () => text('state-ok'), true),
  test_input_required_result_multiple_inputs: (context) =>
    asking(
      context,
      {
        user_name: form('What is your name?', NAME),
        greeting: sample('Generate a greeting', 50),
        client_roots: inputRequired.listRoots(),
      },
      () => text('all three answered'),
      true,
    ),
  test_input_required_result_multi_round: async (context) => {
    const round = context.mcpReq.requestState<{ round: number }>()?.round ?? 0;
    const answered = (key: string) => inputResponse(context.mcpReq.inputResponses, key).kind === 'elicit';
    if (round === 2 && answered('step2')) return text('both steps answered');
    const next = round === 1 && answered('step1') ? 2 : 1;
    const question =
      next === 2
        ? form('Step 2: What is your favorite color?', { color: { type: 'string' } })
        : form('Step 1: What is your name?', NAME);
    return inputRequired({
      inputRequests: { [`step${next}`]: question },
      requestState: await codec.mint({ round: next }, context),
    });
  },
  test_input_required_result_capabilities: (context) => {
    const envelope = context.mcpReq.envelope as Record<string, unknown> | undefined;
    const declared = envelope?.[CLIENT_CAPABILITIES_META_KEY] as ClientCapabilities | undefined;
    const requests: Requests = {
      ...(declared?.elicitation === undefined ? {} : { asked: form('Which?', NAME) }),
      ...(declared?.sampling === undefined ? {} : { sampled: sample('Which?') }),
    };
    return asking(context, requests, () => text('answered'));
  },
};

function completed(answer: unknown): string {
  const { action, content } = answer as { action: string; content?: unknown };
  return `Elicitation completed: action=${action}, content=${JSON.stringify(content ?? {})}`;
}

const STRINGS: Record<string, string> = { test_sampling: 'prompt', test_elicitation: 'message' };

const WIDE_SCHEMA = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  $defs: {
    address: {
      $anchor: 'addressDef',
      type: 'object',
      properties: { street: { type: 'string' }, city: { type: 'string' } },
    },
  },
  properties: {
    name: { type: 'string' },
    address: { $ref: '#/$defs/address' },
    contactMethod: { type: 'string', enum: ['phone', 'email'] },
    phone: { type: 'string' },
    email: { type: 'string' },
  },
  allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
  if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
  // The linter refuses a literal `then`: such an object passes for a promise.
  ...Object.fromEntries([['then', { required: ['phone'] }]]),
  else: { required: ['email'] },
  additionalProperties: false,
};

/** Builds the fixture server of one request or connection. */
export function buildFixture(requestContext: McpRequestContext): McpServer {
  const legacy = requestContext.era === 'legacy';
  const server = new McpServer(
    { name: 'holdfast-fixture', version: '1.0.0' },
    {
      // Logging and subscriptions are gone from the modern era; our own server has neither.
      capabilities: {
        tools: { listChanged: false },
        prompts: { listChanged: false },
        resources: { listChanged: false, ...(legacy ? { subscribe: true } : {}) },
        ...(legacy ? { logging: {} } : {}),
      },
      requestState: { verify: codec.verify },
      inputRequired: { maxRounds: 5, roundTimeoutMs: 10_000 },
    },
  );
  for (const [name, handler] of Object.entries(TOOLS)) {
    const parameter = STRINGS[name];
    const inputSchema = z.strictObject(parameter === undefined ? {} : { [parameter]: z.string() });
    server.registerTool(name, { description: name, inputSchema }, async (args, context) => {
      try {
        return await handler(context, args);
      } catch (cause) {
        return errorResult(asHoldfastError(cause));
      }
    });
  }
  const wide = fromJsonSchema<Record<string, unknown>>(WIDE_SCHEMA as never);
  server.registerTool('json_schema_2020_12_tool', { description: 'Wide schema', inputSchema: wide }, () => text('ok'));
  const mirrored = fromJsonSchema<Record<string, unknown>>({
    type: 'object',
    properties: { region: { type: 'string', 'x-mcp-header': 'Region' } },
    required: ['region'],
  } as never);
  server.registerTool('test_mirrored_header', { description: 'Mirrored', inputSchema: mirrored }, () => text('ok'));
  registerResources(server, legacy);
  registerPrompts(server);
  return server;
}

function registerResources(server: McpServer, legacy: boolean): void {
  const plain = { mimeType: 'text/plain' };
  server.registerResource('static-text', 'test://static-text', plain, (uri) => ({
    contents: [{ uri: uri.href, ...plain, text: 'This is the content of the static text resource.' }],
  }));
  server.registerResource('watched-resource', 'test://watched-resource', plain, (uri) => ({
    contents: [{ uri: uri.href, ...plain, text: 'Watched.' }],
  }));
  server.registerResource('static-binary', 'test://static-binary', { mimeType: 'image/png' }, (uri) => ({
    contents: [{ uri: uri.href, mimeType: 'image/png', blob: PNG }],
  }));
  const template = new ResourceTemplate('test://template/{id}/data', { list: undefined });
  server.registerResource('template', template, { mimeType: 'application/json' }, (uri, { id }) => ({
    contents: [
      {
        uri: uri.href,
        mimeType: 'application/json',
        text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${String(id)}` }),
      },
    ],
  }));
  if (legacy) {
    server.server.setRequestHandler('resources/subscribe', () => ({}));
    server.server.setRequestHandler('resources/unsubscribe', () => ({}));
  }
}

function registerPrompts(server: McpServer): void {
  const user = (content: object) => ({ role: 'user', content }) as never;
  const says = (words: string) => user({ type: 'text', text: words });
  server.registerPrompt('test_simple_prompt', { description: 'Simple' }, () => ({
    messages: [says('This is a simple prompt for testing.')],
  }));
  const words = ['paris', 'park', 'party'];
  const argsSchema = z.object({
    arg1: completable(z.string(), (typed) => words.filter((word) => word.startsWith(typed))),
    arg2: z.string(),
  });
  server.registerPrompt('test_prompt_with_arguments', { description: 'Arguments', argsSchema }, ({ arg1, arg2 }) => ({
    messages: [says(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)],
  }));
  const withUri = { description: 'Resource', argsSchema: z.object({ resourceUri: z.string() }) };
  server.registerPrompt('test_prompt_with_embedded_resource', withUri, ({ resourceUri }) => ({
    messages: [
      user({
        type: 'resource',
        resource: { uri: resourceUri, mimeType: 'text/plain', text: 'Embedded resource content for testing.' },
      }),
      says('Please process the embedded resource above.'),
    ],
  }));
  server.registerPrompt('test_prompt_with_image', { description: 'Image' }, () => ({
    messages: [user(image), says('Please analyze the image above.')],
  }));
  server.registerPrompt('test_input_required_result_prompt', { description: 'Asks first' }, (context) => {
    const given = z.object({ context: z.string() });
    const answer = acceptedContent(context.mcpReq.inputResponses, 'user_context', given);
    return answer !== undefined
      ? { messages: [says(`Context: ${answer.context}`)] }
      : inputRequired({
          inputRequests: {
            user_context: form('What context should the prompt use?', { context: { type: 'string' } }),
          },
        });
  });
}
