import type { Action, AnyAction } from '../core/action.ts';
import type { EntityBase, ProviderContext } from '../core/context.ts';
import type { JsonObject } from '../core/json.ts';
import type { Progress } from '../core/operation.ts';
import type { Plan } from '../core/plan.ts';
import type { Principal } from '../core/principal.ts';
import type { Discovery, PermissionState, Provider } from '../core/provider.ts';
import type { OperationView } from '../core/schemas.ts';
import type { ConfirmationRecord, ConfirmationState, Requirement } from '../core/state.ts';

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

export interface Decision {
  /** The id or the short code of the confirmation. */
  readonly confirmation: string;
  readonly by: Principal;
  /** The channel: elicitation is under the control of the caller's own client, the others are not. */
  readonly via: 'elicitation' | 'terminal' | 'page';
  /** What the person typed; must be the plan's target. */
  readonly typedTarget?: string | undefined;
  readonly passphrase?: string | undefined;
  readonly reason?: string | undefined;
}

/** A question which permissions an entity's credentials have. */
export interface AccessRequest {
  readonly principal: Principal;
  readonly entity: string;
  /** In the provider's own words, as its guide has them. */
  readonly permissions: readonly string[];
  readonly signal?: AbortSignal | undefined;
}

/** A look through the account of one provider, whether anything of it is configured or not. */
export interface DiscoveryRequest {
  readonly principal: Principal;
  /** Its id. */
  readonly provider: string;
  /** Credentials and scope by the names that entities have for them; empty: the provider's own credential chain. */
  readonly access: Readonly<Record<string, unknown>>;
  readonly endpoint?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Work that a program does for an entity by itself, without a call for each piece: an archive_command, a receiver. */
export interface ServiceRequest {
  readonly principal: Principal;
  readonly entity: string;
  /** What policy and audit trail call it: `wal-push`. */
  readonly name: string;
  readonly risk: 'read' | 'create';
  /** `run`: its beginning and its end. `day`: the first of each day and the day's sum, for what comes thousands of times. */
  readonly audited: 'run' | 'day';
  readonly signal?: AbortSignal | undefined;
}

/** The whole of Holdfast behind the surfaces. */
export interface Engine {
  readonly version: string;
  readonly sandbox: boolean;
  /** Actions of the configured providers and the fleet actions, in a stable order. */
  actions(): readonly AnyAction[];
  /** @throws {HoldfastError} INVALID_PARAMETER for a name that no configured provider has, NOT_SUPPORTED from a `cannot` table */
  action(name: string, entity?: string): AnyAction;
  entities(): readonly EntityBase[];
  /** The entities that an action can be called on. */
  entitiesOf(action: Action): readonly EntityBase[];
  /** @throws {HoldfastError} ENTITY_NOT_FOUND */
  entity(key: string): EntityBase;
  call(call: Call): Promise<Outcome>;
  /** Every provider there is, configured or not, in a stable order. */
  providers(): readonly Provider[];
  /**
   * Asks the provider, by reading, which permissions an entity's credentials have; undefined where it cannot be asked.
   * @throws {HoldfastError} what the provider's errors map to, ENTITY_NOT_FOUND, POLICY_DENIED
   */
  access(request: AccessRequest): Promise<Readonly<Record<string, PermissionState>> | undefined>;
  /**
   * Looks through an account for databases, by reading; undefined where no credentials were found or the provider cannot
   * be looked through.
   * @throws {HoldfastError} what the provider's errors map to, INVALID_PARAMETER for an unknown provider, POLICY_DENIED
   */
  discover(request: DiscoveryRequest): Promise<Discovery | undefined>;
  /**
   * Runs work that needs no call, as policy allows an action of this name and risk, with leave to write unless it reads.
   * @throws {HoldfastError} POLICY_DENIED also where policy wants a confirmation; ENTITY_NOT_FOUND; whatever the work ends with
   */
  service<T>(request: ServiceRequest, work: (context: ProviderContext<unknown, unknown>) => Promise<T>): Promise<T>;
  confirmations(filter?: { states?: readonly ConfirmationState[]; limit?: number }): Promise<ConfirmationRecord[]>;
  /** @throws {HoldfastError} CONFIRMATION_INVALID, _EXPIRED, _DENIED, _USED, CONFIRMATION_MISMATCH for a wrong target name, POLICY_DENIED for one who may not decide */
  approve(decision: Decision): Promise<ConfirmationRecord>;
  deny(decision: Decision): Promise<ConfirmationRecord>;
  verifyAudit(): Promise<AuditReport>;
  /** The last lines of the audit trail, newest first. */
  recentAudit(limit: number): JsonObject[];
  /** Looks at every unfinished operation whose process is gone and follows, continues or stops it. Gives those it took over. */
  resume(): Promise<OperationView[]>;
  /** Ends what may end, checkpoints the rest, closes clients and the store. */
  close(): Promise<void>;
}

export interface AuditReport {
  ok: boolean;
  records: number;
  /** The first place where the chain is broken: line number (from 1) and what is wrong. */
  fault?: { line: number; problem: string };
}
