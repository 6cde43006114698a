import type { ProviderContext } from './context.ts';
import type { JsonObject, JsonValue } from './json.ts';
import type { StepContext } from './operation.ts';

/** What `apply-settings` would do about one parameter. */
export interface SettingChange {
  /**
   * `weaken` where protection gets less or the way back is closed: a lower retention, point-in-time recovery or deletion
   * protection switched off, a shorter tier, a switch that cannot be undone; also where the effect cannot be told.
   */
  readonly risk: 'change' | 'weaken';
  /** One clause, without a full stop: "keeps 7 days of backups, not 14; the older ones are deleted". */
  readonly effect: string;
  /** Whether the provider has no way back. */
  readonly irreversible?: boolean | undefined;
  /** The request that makes it, kebab-case; changes of one request share the word. Requests go in the order of the findings. */
  readonly write: string;
}

/** One declared backup parameter held against what the provider has. */
export interface SettingFinding {
  /** The parameter as the entities file has it, `backup_policy.continuous_tier` where it is nested. */
  readonly setting: string;
  readonly declared: JsonValue;
  /** What the provider has, in the file's words and units; null for nothing, absent where it does not tell. */
  readonly actual?: JsonValue | undefined;
  readonly verdict: 'as_declared' | 'differs' | 'unknown';
  /** What to know of it; why it cannot be applied where it differs and there is no `change`. */
  readonly note?: string | undefined;
  readonly change?: SettingChange | undefined;
}

/** All declared backup parameters of one entity, as they stand. */
export interface SettingsReading {
  /** What a person types to approve a change, as in the plans of the provider's other actions. */
  readonly target: string;
  /** The identity of the target that approval rests on: ids, not names alone. The actual values are added to it. */
  readonly identity: JsonObject;
  /** One for each parameter that is declared; parameters that are not declared are nobody's wish and stay out. */
  readonly findings: readonly SettingFinding[];
}

/** How a provider reads and makes the backup settings that the entities file declares. */
export interface ProviderSettings<Client = unknown, Entity = unknown> {
  /** What each parameter sets and when changing it is `weaken`, one line each, by its name as in the findings. */
  readonly about: Readonly<Record<string, string>>;
  /** Reads only. */
  read(context: ProviderContext<Client, Entity>): Promise<SettingsReading>;
  /**
   * Sends one request, once, that gives the settings of these findings their declared values and leaves all others as they
   * are. It has been looked just before that they still have the values of the plan.
   */
  write(
    context: StepContext<Client, Entity, unknown>,
    write: string,
    findings: readonly SettingFinding[],
  ): Promise<void>;
  /**
   * Gives what changes as soon as the provider has taken a request: an etag, the newest of its operations. It is read
   * before a request, and again when an answer was lost and no effect shows: unchanged, the request never arrived. Without
   * it what became of such a request is unknown.
   */
  mark?(context: ProviderContext<Client, Entity>): Promise<string | undefined>;
  /** Seconds that a change may take to show; 600 when left out. */
  readonly patience_seconds?: number | undefined;
}
