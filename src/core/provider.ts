import type { z } from 'zod';
import type { HoldfastError } from './errors.ts';
import type { JsonObject } from './json.ts';
import type { SuggestedCall } from './plan.ts';
import type { Risk } from './risk.ts';
import type { Runtime } from './runtime.ts';

/** The actions that every provider has or answers for in its `cannot` table. */
export const STANDARD_ACTIONS = [
  'get-backup-info',
  'create-snapshot',
  'list-snapshots',
  'describe-snapshot',
  'delete-snapshot',
  'restore',
  'get-restore-status',
] as const;
export type StandardAction = (typeof STANDARD_ACTIONS)[number];

/** One kind of configured database: what `defines:` names. */
export interface EntityType<Schema extends z.ZodObject = z.ZodObject> {
  /** One line for the JSON Schema and `holdfast check`. */
  readonly title: string;
  /** The parameters that Holdfast uses: identity, backup settings, credentials. Keys are snake_case. */
  readonly schema: Schema;
  /** Parameters of the guide that do not concern backups: accepted, ignored, listed by `holdfast check`. */
  readonly ignored: readonly string[];
  /** A complete example with secrets by reference, used for holdfast.example.yaml. */
  readonly example: JsonObject;
  /** The parameters of this type's entity in the sandbox; `endpoint` is added. Absent: not in the sandbox. */
  readonly sandbox?: { readonly name: string; readonly parameters: JsonObject };
}

/** What every configured database has, whatever its type. */
export interface EntityBase {
  /** `<namespace>/<name>` */
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  /** Entity type, `mongodb-atlas/cluster`. */
  readonly defines: string;
  readonly provider: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Seconds. */
  readonly objectives: { rpo?: number; rto?: number; min_retention?: number; drill_every?: number };
  /** Where to send requests instead of the provider's own host; an origin, `http://127.0.0.1:9000`. */
  readonly endpoint?: string | undefined;
  /**
   * The parameters as the entity type's schema parsed them. A parameter that shares its name with a field above, `name`
   * or `provider`, is found here only: the field holds Holdfast's own value. Absent only where nothing was parsed.
   */
  readonly parameters?: Readonly<Record<string, unknown>> | undefined;
}

/** One way back that `find-recovery-options` shows. */
export interface RecoveryOption {
  title: string;
  /** RFC 3339 UTC: the moment of the data that this brings back. */
  moment: string;
  loses: string;
  risk: Risk;
  /** Seconds, where known. */
  duration_estimate?: number | undefined;
  call: SuggestedCall;
}

export interface ProviderContext<Client, Entity> {
  readonly client: Client;
  readonly entity: Entity & EntityBase;
  readonly runtime: Runtime;
  readonly signal: AbortSignal;
}

/** One service that keeps databases: how to reach it, what its databases are called, what it cannot do. */
export interface Provider<Entity = unknown, Client = unknown> {
  /** `gcp-cloud-sql`; the MCP prefix is the same with underscores. */
  readonly id: string;
  readonly title: string;
  readonly entityTypes: Readonly<Record<string, EntityType>>;
  /** What this provider has no way to do, with the reason and what to use instead. */
  readonly cannot: Partial<Record<StandardAction, string>>;
  /** Requests per second and at once that one account of this provider is sent at most; timeout of one request in ms. */
  readonly limits: {
    readonly per_second: number;
    readonly burst: number;
    readonly concurrent: number;
    readonly timeout_ms: number;
  };
  /** Loads the SDK and builds a client; sends nothing. The engine keeps the client for later calls. */
  connect(entity: Entity & EntityBase, runtime: Runtime): Promise<Client>;
  dispose?(client: Client): Promise<void>;
  /** Every way back for an entity, best first; with `at`, those that bring back that moment or the newest before it. */
  recoveryOptions(context: ProviderContext<Client, Entity>, at: Date | undefined): Promise<RecoveryOption[]>;
  /** Maps whatever the client threw to our codes. Runs once, at the provider's edge. */
  toError(cause: unknown): HoldfastError;
}

/** Declares a provider with its types inferred from the schemas; the entity is a union over its entity types. */
export function defineProvider<Entity, Client>(provider: Provider<Entity, Client>): Provider<Entity, Client> {
  return provider;
}
