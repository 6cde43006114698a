import type { Runtime } from './runtime.ts';
import type { Schedule } from './schedule.ts';

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
  /** What the clock calls; absent where nothing is declared. */
  readonly schedules?: readonly Schedule[] | undefined;
  /**
   * The parameters as the entity type's schema parsed them. A parameter that shares its name with a field above, `name`
   * or `provider`, is found here only: the field holds Holdfast's own value. Absent only where nothing was parsed.
   */
  readonly parameters?: Readonly<Record<string, unknown>> | undefined;
}

/** What an action of a provider works with. */
export interface ProviderContext<Client, Entity> {
  readonly client: Client;
  readonly entity: Entity & EntityBase;
  readonly runtime: Runtime;
  readonly signal: AbortSignal;
  /** Who makes the call, `stdio:ana`; unknown in work that another process took over. */
  readonly caller?: string | undefined;
}
