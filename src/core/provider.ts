import type { z } from 'zod';
import type { EntityBase, ProviderContext } from './context.ts';
import type { HoldfastError } from './errors.ts';
import type { JsonObject } from './json.ts';
import type { SuggestedCall } from './plan.ts';
import type { Risk } from './risk.ts';
import type { Runtime } from './runtime.ts';
import type { ProviderSettings } from './settings.ts';

export type { EntityBase, ProviderContext } from './context.ts';

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

/** The actions that the engine makes for every provider from its `settings`. */
export const SHARED_ACTIONS = ['check-settings', 'apply-settings'] as const;
export type SharedAction = (typeof SHARED_ACTIONS)[number];

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
  /** What the well-known names of schedules call here, where that is more than a snapshot: `verify`, `prune`. */
  readonly schedules?: Readonly<Record<string, { readonly action: string; readonly input: JsonObject }>>;
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

/** What a person or a model should know of a provider before they rely on it; loaded when somebody asks. */
export interface ProviderGuide {
  /** How backups and restores behave here, one sentence each, the most surprising first. */
  readonly behaviour: readonly string[];
  /** Limits with their figures, one sentence each. */
  readonly limits: readonly string[];
  /** Where credentials are looked for, in order, one line each. */
  readonly credentials: readonly string[];
  /** The permissions that each action needs, by its name; `*` for what all need. The provider's own words. */
  readonly permissions: Readonly<Record<string, readonly string[]>>;
  /** What the provider calls that which grants them: `IAM policy`, `custom role`. */
  readonly grant: string;
  /** Writes the least that grants these permissions, ready to paste: a policy document, a role definition, the name of a role. */
  policy(permissions: readonly string[], entity?: Readonly<Record<string, unknown>>): string;
}

/** What a provider says about one permission of the credentials. */
export type PermissionState = 'granted' | 'refused' | 'unknown';

/** A database that a provider shows us, as the entities file would declare it. */
export interface Discovered {
  /** Entity type. */
  readonly defines: string;
  /** A name for it in the file: lower-case letters, digits and hyphens. */
  readonly name: string;
  /** Identity, the backup settings as they are now, and references to secrets; never a secret. */
  readonly parameters: JsonObject;
  /** What to know of it: not protected, cannot be backed up, could not be read in full. */
  readonly notes: readonly string[];
}

/** What was found with the credentials of one provider. */
export interface Discovery {
  /** Where it looked, for people: `AWS account 123456789012, eu-west-1`. */
  readonly looked: string;
  readonly found: readonly Discovered[];
  /** What it could not look at, and why. */
  readonly problems: readonly string[];
}

export interface DiscoveryContext {
  readonly runtime: Runtime;
  /** Credentials and scope by the names that entities have for them (`region`, `project_id`); empty: the provider's own chain. */
  readonly access: Readonly<Record<string, unknown>>;
  readonly endpoint?: string | undefined;
  readonly signal: AbortSignal;
}

/** One service that keeps databases: how to reach it, what its databases are called, what it cannot do. */
export interface Provider<Entity = unknown, Client = unknown> {
  /** `gcp-cloud-sql`; the MCP prefix is the same with underscores. */
  readonly id: string;
  readonly title: string;
  readonly entityTypes: Readonly<Record<string, EntityType>>;
  /** What this provider has no way to do, with the reason and what to use instead. */
  readonly cannot: Partial<Record<StandardAction | SharedAction, string>>;
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
  /** The declared backup settings; absent where an entity type declares none, and `cannot['check-settings']` says why. */
  readonly settings?: ProviderSettings<Client, Entity>;
  /** What to know of it, from a module of its own. */
  readonly guide?: () => Promise<ProviderGuide>;
  /** Asks, by reading, which of these permissions the credentials have, where the provider can be asked. */
  grants?(
    context: ProviderContext<Client, Entity>,
    permissions: readonly string[],
  ): Promise<Readonly<Record<string, PermissionState>>>;
  /** Looks through the account for databases; undefined where no credentials were found. Reads only. */
  discover?(context: DiscoveryContext): Promise<Discovery | undefined>;
  /** Maps whatever the client threw to our codes. Runs once, at the provider's edge. */
  toError(cause: unknown): HoldfastError;
}

/** Declares a provider with its types inferred from the schemas; the entity is a union over its entity types. */
export function defineProvider<Entity, Client>(provider: Provider<Entity, Client>): Provider<Entity, Client> {
  return provider;
}
