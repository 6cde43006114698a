import type { AnyAction } from '../core/action.ts';
import type { JsonObject } from '../core/json.ts';
import type { Progress } from '../core/operation.ts';
import type { Plan } from '../core/plan.ts';
import type { Principal } from '../core/principal.ts';
import type { OperationView } from '../core/schemas.ts';
import type { Requirement } from '../core/state.ts';

/** One call, whatever the surface it came in by. */
export interface Call {
  readonly principal: Principal;
  /** `<namespace>/<name>`; left out for fleet actions. */
  readonly entity?: string | undefined;
  /** Canonical name or alias, kebab-case. */
  readonly action: string;
  /** As the caller gave it, `entity` and `confirmation_token` taken out. */
  readonly input: JsonObject;
  readonly token?: string | undefined;
  /** The id of a confirmation that a surface has just had approved in the same call (elicitation, terminal). Never a caller's argument. */
  readonly confirmationId?: string | undefined;
  /** Makes the plan and the guard's decision, opens nothing, runs nothing. */
  readonly dryRun?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /**
   * `grace` (default): answers when the operation is over or after about two seconds, whichever comes first; work goes on
   * in this process. `detachable`: answers once only steps are left that another process can follow. `end`: answers at the end.
   */
  readonly wait?: 'grace' | 'detachable' | 'end' | undefined;
}

export type Outcome =
  | { readonly kind: 'result'; readonly action: AnyAction; readonly output: unknown }
  | { readonly kind: 'operation'; readonly action: AnyAction; readonly operation: OperationView }
  | {
      readonly kind: 'plan';
      readonly action: AnyAction;
      readonly plan: Plan;
      readonly decision: 'allow' | 'confirm' | 'deny';
      readonly require?: Requirement;
    };

/**
 * What a `CONFIRMATION_REQUIRED` (or `PLAN_CHANGED`) error carries in `details`: everything a surface needs to show the
 * plan and to ask. `confirmation.token` is inert until approved, except where policy requires only a token.
 */
export interface ConfirmationDetails {
  plan: Plan;
  confirmation: {
    id: string;
    token: string;
    code: string;
    require: Requirement;
    out_of_band: boolean;
    expires_at: string;
    approve_with: string;
  };
}
