import {
  acceptedContent,
  type CallToolResult,
  CLIENT_CAPABILITIES_META_KEY,
  type ClientCapabilities,
  type InputRequiredResult,
  inputRequired,
  inputResponse,
  type McpServer,
  type RequestStateCodec,
  type ServerContext,
} from '@modelcontextprotocol/server';
import { z } from 'zod';
import { asHoldfastError, HoldfastError } from '../../core/errors.ts';
import { isObject, type JsonObject } from '../../core/json.ts';
import type { Progress } from '../../core/operation.ts';
import type { Principal } from '../../core/principal.ts';
import type { Log } from '../../core/runtime.ts';
import { cleanText, didYouMean } from '../../core/text.ts';
import type { ConfirmationDetails, Engine, Outcome } from '../../engine/api.ts';
import { carriedBy, confirmationOf, type RenderOptions, renderError, renderOutcome, renderPlan } from '../render.ts';
import type { ToolSet } from '../tool-set.ts';
import { type Tool, writeCall } from './tools.ts';

/** What the signed request state holds between the two rounds of a question; the client can read it. */
export interface AskedState {
  id: string;
}

export interface CallParts {
  readonly engine: Engine;
  /** The tools that the agent was given: next calls are written with them. */
  readonly toolSet: ToolSet;
  readonly codec: RequestStateCodec<AskedState>;
  readonly log: Log;
}

type ToolAnswer = CallToolResult | InputRequiredResult;

const QUESTION = 'confirm';

/** The form that a person fills in: a bare yes is not enough. */
const Answer = z.object({ target: z.string() });

/** Runs one tool call through the engine and writes its answer, asking a person in the middle where the guard wants one. */
export async function callTool(
  parts: CallParts,
  server: McpServer,
  tool: Tool,
  principal: Principal,
  args: JsonObject,
  context: ServerContext,
): Promise<ToolAnswer> {
  const progress = progressOf(context);
  try {
    const call = { ...readArguments(tool, args), principal, action: tool.action.name, signal: context.mcpReq.signal };
    const approved = await decideAnswer(parts.engine, principal, context);
    const outcome = await parts.engine.call({
      ...call,
      ...(approved === undefined ? {} : { token: undefined, confirmationId: approved }),
      onProgress: progress.report,
    });
    return outcomeResult(outcome, renderOptions(parts), parts.engine.sandbox);
  } catch (cause) {
    const error = asHoldfastError(cause);
    // Only our own words go out; whatever else was thrown stays in the log.
    if (error.code === 'INTERNAL') {
      const { cause } = error;
      parts.log.error('a tool call failed', { tool: tool.name, fault: cause instanceof Error ? cause.message : '' });
    }
    const asked = confirmationOf(error);
    if (asked !== undefined && mayAskHere(asked) && canAskForm(server, context)) {
      return question(parts, error, asked, context);
    }
    return errorResult(error, renderOptions(parts));
  } finally {
    progress.end();
  }
}

function readArguments(tool: Tool, args: JsonObject): { entity?: string; token?: string; input: JsonObject } {
  // Where nothing is guarded a token is a parameter that does not exist, and the engine's to refuse.
  const { confirmation_token: token, ...rest } = args;
  const plain = tool.guarded ? rest : args;
  if (tool.guarded && token !== undefined && typeof token !== 'string') {
    throw new HoldfastError('INVALID_PARAMETER', "'confirmation_token' is no string");
  }
  const given = tool.guarded && typeof token === 'string' ? { token } : {};
  // A fleet action's `entity` is a parameter of its own, one that it does not have is the engine's to refuse.
  if (tool.entities === undefined) return { ...given, input: plain };
  const { entity, ...input } = plain;
  if (typeof entity !== 'string') {
    throw new HoldfastError('INVALID_PARAMETER', "'entity' is missing or no string", {
      hint: `Give the entity to act on. ${didYouMean('', tool.entities)}`.trim(),
    });
  }
  // Without this check the engine would run the action of the same name that another provider has.
  if (!tool.entities.has(entity)) {
    throw new HoldfastError('ENTITY_NOT_FOUND', `${tool.name} has no entity '${cleanText(entity, 80)}'`, {
      hint: `${didYouMean(entity, tool.entities)} backup_list_databases shows every entity.`.trim(),
    });
  }
  return { ...given, entity, input };
}

/** Reads the person's answer of round two: gives the id of the confirmation that it approves, undefined in round one. */
async function decideAnswer(engine: Engine, by: Principal, context: ServerContext): Promise<string | undefined> {
  const id = context.mcpReq.requestState<AskedState>()?.id;
  const view = inputResponse(context.mcpReq.inputResponses, QUESTION);
  if (id === undefined || view.kind !== 'elicit') return undefined;
  const decision = { confirmation: id, by, via: 'elicitation' as const };
  if (view.action !== 'accept') {
    const reason = view.action === 'decline' ? 'declined' : 'closed without an answer';
    await engine.deny({ ...decision, reason });
    throw new HoldfastError(
      'CONFIRMATION_DENIED',
      `the person asked ${reason === 'declined' ? reason : `${reason} it`}`,
    );
  }
  const typedTarget = acceptedContent(context.mcpReq.inputResponses, QUESTION, Answer)?.target;
  try {
    await engine.approve({ ...decision, typedTarget });
  } catch (cause) {
    if (!(cause instanceof HoldfastError) || cause.code !== 'CONFIRMATION_MISMATCH') throw cause;
    await engine.deny({ ...decision, reason: 'another name than the target’s was typed' });
    throw new HoldfastError('CONFIRMATION_DENIED', 'the name typed to approve is not the name of the target', {
      hint: 'Ask the person what they meant. The same call asks them again.',
    });
  }
  return id;
}

/** Tells whether an answer in the caller's own client counts. */
function mayAskHere({ confirmation }: ConfirmationDetails): boolean {
  return confirmation.require === 'human' && confirmation.out_of_band === false;
}

/** Tells whether the client can show a form; in the modern era each request says so, before that the handshake did. */
function canAskForm(server: McpServer, context: ServerContext): boolean {
  const envelope = context.mcpReq.envelope as Record<string, unknown> | undefined;
  const capabilities =
    (envelope?.[CLIENT_CAPABILITIES_META_KEY] as ClientCapabilities | undefined) ??
    server.server.getClientCapabilities();
  const elicitation = capabilities?.elicitation;
  // `elicitation: {}` means forms only.
  return elicitation !== undefined && (elicitation.form !== undefined || elicitation.url === undefined);
}

async function question(
  parts: CallParts,
  error: HoldfastError,
  { plan, confirmation }: ConfirmationDetails,
  context: ServerContext,
): Promise<InputRequiredResult> {
  const changed = error.code === 'PLAN_CHANGED' ? 'The target changed after the last answer. The new plan:\n\n' : '';
  return inputRequired({
    inputRequests: {
      [QUESTION]: inputRequired.elicit({
        message: `${changed}${renderPlan(plan, renderOptions(parts))}\n\nTo let this run, type the name of the target: ${plan.target}`,
        requestedSchema: {
          type: 'object',
          properties: { target: { type: 'string', title: 'Name of the target', description: `Type ${plan.target}` } },
          required: ['target'],
        },
      }),
    },
    // The id alone proves nothing: it is signed, bound to this caller, and no tool takes it.
    requestState: await parts.codec.mint({ id: confirmation.id }, context),
  });
}

/** Gives how calls are written in what this agent reads. */
export function renderOptions({ engine, toolSet }: Pick<CallParts, 'engine' | 'toolSet'>): RenderOptions {
  return { call: (call) => writeCall(engine, toolSet, call) };
}

/** Writes an outcome as a tool's result. */
export function outcomeResult(outcome: Outcome, options: RenderOptions, sandbox: boolean): CallToolResult {
  const text = renderOutcome(outcome, options);
  const structured =
    outcome.kind === 'operation'
      ? outcome.operation
      : outcome.kind === 'result'
        ? outcome.output
        : { plan: outcome.plan, decision: outcome.decision, require: outcome.require };
  return {
    content: [{ type: 'text', text: sandbox ? `[sandbox: simulated providers]\n${text}` : text }],
    structuredContent: isObject(structured) ? structured : { result: structured },
    ...(sandbox ? { _meta: { 'holdfast/sandbox': true } } : {}),
  };
}

/** Writes an error as a tool's result, with the plan and the confirmation where it carries them. */
export function errorResult(error: HoldfastError, options: RenderOptions = {}): CallToolResult {
  const { plan, confirmation, rest } = carriedBy(error);
  const { details: _details, ...shown } = error.toJson();
  // The id is for the surfaces; a caller needs the token and the code.
  const { id: _id, ...given } = confirmation ?? {};
  return {
    isError: true,
    content: [{ type: 'text', text: renderError(error, options) }],
    structuredContent: {
      error: { ...shown, ...(Object.keys(rest).length === 0 ? {} : { details: rest }) },
      ...(plan === undefined ? {} : { plan }),
      ...(confirmation === undefined ? {} : { confirmation: given }),
    },
  };
}

/** Sends progress while the call lasts; `progress` rises with every notification, as the protocol demands. */
function progressOf(context: ServerContext): { report: (progress: Progress) => void; end: () => void } {
  const progressToken = context.mcpReq._meta?.progressToken;
  let open = progressToken !== undefined;
  let last = 0;
  let measured = false;
  return {
    report({ percent, message }) {
      // The work may outlive the call, its notifications may not.
      if (!open || progressToken === undefined) return;
      measured ||= percent !== undefined;
      last = percent !== undefined && percent > last ? percent : last + 0.001;
      const params = { progressToken, progress: last, ...(measured ? { total: 100 } : {}), message };
      context.mcpReq.notify({ method: 'notifications/progress', params }).catch(() => {
        open = false;
      });
    },
    end() {
      open = false;
    },
  };
}
