import { completable, type McpServer, ProtocolError, ProtocolErrorCode } from '@modelcontextprotocol/server';
import { z } from 'zod';
import { asHoldfastError } from '../../core/errors.ts';
import { isObject } from '../../core/json.ts';
import type { Principal } from '../../core/principal.ts';
import type { Engine } from '../../engine/api.ts';
import { type CallParts, renderOptions } from './call.ts';
import { RUNBOOK_LIST } from './runbook-list.ts';
import type { Occasion, RunbookReader } from './runbooks.ts';

/** Milliseconds that a completion waits for a provider: a person is typing. */
const COMPLETION_MS = 2_000;
/** Milliseconds for which the next keystroke gets the same snapshots. */
const COMPLETION_FRESH_MS = 30_000;

/** What the prompts take, by runbook; made once for a caller, since what completes an argument calls as them. */
export type PromptArguments = ReturnType<typeof promptArguments>;

/** Makes the arguments of all prompts, with what completes them. */
export function promptArguments({ engine, log }: Pick<CallParts, 'engine' | 'log'>, principal: Principal) {
  const snapshots = snapshotCompleter(engine, principal, log);
  const keys = (typed: string): string[] =>
    matching(
      engine.entities().map(({ key }) => key),
      typed,
    );
  const entity = completable(z.string().describe('<namespace>/<name>'), keys);
  const anyEntity = completable(
    z.string().describe('<namespace>/<name>; every database when left out'),
    keys,
  ).optional();
  const snapshot_id = completable(
    z.string().describe('A snapshot to use; the best option when left out'),
    (typed, context) => snapshots(context?.arguments?.['entity'], typed),
  ).optional();
  return {
    'lost-data': z.object({
      entity,
      moment: z
        .string()
        .optional()
        .describe('Last good moment, RFC 3339: 2026-11-21T13:59:00Z; the newest when left out'),
      snapshot_id,
    }),
    'point-in-time': z.object({
      entity,
      at: z.string().describe('Moment to get back to, RFC 3339: 2026-11-21T13:59:00Z'),
    }),
    'pre-change-backup': z.object({ entity, change: z.string().describe('What is about to be changed') }),
    'quarterly-drill': z.object({ entity, snapshot_id }),
    'backup-review': z.object({ entity: anyEntity }),
  };
}

/** Registers the prompts of one server: each is a runbook, filled for the database that the person names. */
export function registerPrompts(
  server: McpServer,
  parts: CallParts,
  principal: Principal,
  args: PromptArguments,
): void {
  const reader = readerOf(parts, principal);
  for (const { name, prompt, title, description } of RUNBOOK_LIST) {
    server.registerPrompt(prompt, { title, description, argsSchema: args[name] as z.ZodObject }, (given) =>
      inOurWords(async () => {
        const { renderRequest } = await import('./runbooks.ts');
        const text = renderRequest(reader, name, title, occasionOf(parts.engine, given));
        return { messages: [{ role: 'user' as const, content: { type: 'text' as const, text } }] };
      }),
    );
  }
}

/** Says for whom a runbook is written. */
export function readerOf(parts: CallParts, principal: Principal): RunbookReader {
  return { engine: parts.engine, options: renderOptions(parts), operates: principal.roles.includes('operator') };
}

/** Runs what answers a request outside of a tool; the SDK shows the client the message of whatever is thrown there. */
export async function inOurWords<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    // What the SDK itself says may pass; of everything else only our own words.
    if (cause instanceof ProtocolError) throw cause;
    const { code, message, hint } = asHoldfastError(cause);
    const isTheirs = code === 'ENTITY_NOT_FOUND' || code === 'INVALID_PARAMETER';
    throw new ProtocolError(
      isTheirs ? ProtocolErrorCode.InvalidParams : ProtocolErrorCode.InternalError,
      `${message}. ${hint}`,
    );
  }
}

/** The candidates that hold what was typed. */
export function matching(candidates: readonly string[], typed: string): string[] {
  const part = typed.toLowerCase();
  return candidates.filter((candidate) => candidate.toLowerCase().includes(part));
}

function occasionOf(engine: Engine, given: Readonly<Record<string, unknown>>): Occasion {
  const text = (name: string): string | undefined => {
    const value = given[name];
    return typeof value === 'string' && value.trim() !== '' ? value : undefined;
  };
  const key = text('entity');
  return {
    entity: key === undefined ? undefined : engine.entity(key),
    at: text('at') ?? text('moment'),
    change: text('change'),
    snapshot_id: text('snapshot_id'),
  };
}

/** Completes ids of snapshots by asking the provider, for a short time; none where that fails. */
function snapshotCompleter(
  engine: Engine,
  principal: Principal,
  log: CallParts['log'],
): (entity: string | undefined, typed: string) => Promise<string[]> {
  let last: { entity: string; until: number; ids: Promise<string[]> } | undefined;
  return async (entity, typed) => {
    if (entity === undefined) return [];
    const now = performance.now();
    if (last?.entity !== entity || last.until < now) {
      const ids = snapshotIds(engine, principal, entity).catch((cause: unknown) => {
        log.debug('snapshots could not be completed', { entity, code: asHoldfastError(cause).code });
        if (last?.ids === ids) last = undefined;
        return [];
      });
      last = { entity, until: now + COMPLETION_FRESH_MS, ids };
    }
    return matching(await last.ids, typed);
  };
}

async function snapshotIds(engine: Engine, principal: Principal, entity: string): Promise<string[]> {
  const action = engine.action('list-snapshots', entity);
  const input = 'limit' in action.input.shape ? { limit: 50 } : {};
  const signal = AbortSignal.timeout(COMPLETION_MS);
  const late = new Promise<never>((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
  const outcome = await Promise.race([engine.call({ principal, entity, action: action.name, input, signal }), late]);
  if (outcome.kind !== 'result' || !isObject(outcome.output)) return [];
  const { snapshots } = outcome.output;
  return Array.isArray(snapshots) ? snapshots.flatMap((one) => (isObject(one) ? [String(one['id'])] : [])) : [];
}
