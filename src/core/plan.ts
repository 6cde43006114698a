import type { JsonObject, JsonValue } from './json.ts';
import type { Risk } from './risk.ts';

/** An exact call that a person or an agent can make next. */
export interface SuggestedCall {
  entity?: string | undefined;
  action: string;
  input: JsonObject;
}

export interface Alternative {
  title: string;
  risk: Risk;
  call?: SuggestedCall | undefined;
}

/** What approval rests on: identities and states, never counters that move by themselves. */
export interface PlanFacts {
  /** The identity and state of what would be changed; read again just before the change, after the safety snapshot too. */
  target: JsonObject;
  /** The identity and state of what it would be changed from. */
  source?: JsonObject | undefined;
  /** Everything else that approval rests on; read again when the token is used. */
  context?: JsonObject | undefined;
}

/** What an action's `plan` finds out by reading only. */
export interface PlanDraft {
  /** Raises the action's declared risk; never lowers it. */
  risk?: Risk | undefined;
  /** Names the target in the words a person would type, `project/instance`; this is what approval asks to type. */
  target: string;
  source?: string | undefined;
  /** What is lost, one sentence; `nothing` where nothing is. */
  loses: string;
  /** RFC 3339 UTC: everything written to the target after this moment is lost. */
  since?: string | undefined;
  /** Sizes, databases, tables, keys, connections, replicas, as far as the provider tells. */
  blast_radius?: JsonObject | undefined;
  newest_recovery_point?: { id?: string | undefined; at: string } | undefined;
  /** Whether a safety snapshot of the target can be taken first; where it cannot, why. */
  safety_snapshot?: { possible: boolean; reason?: string | undefined } | undefined;
  /** Whether this deletes the last restorable snapshot of its entity; then `allow_last` or two people are needed. */
  last_restorable?: boolean | undefined;
  undo: string;
  alternatives?: Alternative[] | undefined;
  /** Seconds. */
  duration_estimate?: number | undefined;
  unknowns?: string[] | undefined;
  warnings?: string[] | undefined;
  facts: PlanFacts;
}

/** A plan bound to one call: what a person sees before deciding. */
export interface Plan {
  action: string;
  entity: string | undefined;
  risk: Risk;
  target: string;
  source?: string | undefined;
  loses: string;
  since?: string | undefined;
  blast_radius: JsonObject;
  newest_recovery_point?: { id?: string | undefined; at: string } | undefined;
  /** `taken`: one is taken first; `skipped`: the call asks for none; `impossible` and `not_needed` say why. */
  safety_snapshot: { state: 'taken' | 'skipped' | 'impossible' | 'not_needed'; reason?: string | undefined };
  last_restorable?: boolean | undefined;
  undo: string;
  alternatives: Alternative[];
  duration_estimate?: number | undefined;
  unknowns: string[];
  warnings: string[];
  facts: PlanFacts;
}

export interface FactDifference {
  path: string;
  before: JsonValue | undefined;
  after: JsonValue | undefined;
}

/** Lists where two sets of facts differ, by dotted path. */
export function compareFacts(before: unknown, after: unknown, path = ''): FactDifference[] {
  if (JSON.stringify(before) === JSON.stringify(after)) return [];
  const bothObjects = [before, after].every(
    (side) => typeof side === 'object' && side !== null && !Array.isArray(side),
  );
  if (!bothObjects) return [{ path, before: before as JsonValue | undefined, after: after as JsonValue | undefined }];
  const left = before as Record<string, unknown>;
  const right = after as Record<string, unknown>;
  return [...new Set([...Object.keys(left), ...Object.keys(right)])]
    .sort()
    .flatMap((key) => compareFacts(left[key], right[key], path === '' ? key : `${path}.${key}`));
}
