import type { ErrorCode } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Progress } from '../../core/operation.ts';
import type { Principal } from '../../core/principal.ts';
import type { Log } from '../../core/runtime.ts';
import type { ScheduleRun } from '../../core/state.ts';
import type { Engine, Outcome } from '../../engine/api.ts';
import type { ToolSet } from '../tool-set.ts';

export interface CliInput extends NodeJS.ReadableStream {
  readonly isTTY?: boolean | undefined;
  setRawMode?(on: boolean): unknown;
}

export interface CliOutput extends NodeJS.WritableStream {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

export interface EngineOptions {
  /** The entities file as given by `--config`; undefined: the environment or the working directory decides. */
  readonly config: string | undefined;
  readonly stateDir: string | undefined;
  /** Every provider answered by its simulator. */
  readonly sandbox: boolean;
  /** Where the simulators listen, shared with whoever runs them there already; undefined: they live and end with this process. */
  readonly sandboxPort: number | undefined;
}

export interface ServeOptions extends EngineOptions {
  readonly transport: 'stdio' | 'http';
  /** `--host` and `--port`; undefined: the entities file or the default decides. */
  readonly host: string | undefined;
  readonly port: number | undefined;
  /** Which tools agents are shown. */
  readonly toolSet: ToolSet;
  /** Ends the service, gracefully. */
  readonly signal: AbortSignal;
}

export interface SandboxOptions {
  /** 0: any free port. */
  readonly port: number;
}

export interface RunningSandbox {
  /** `http://127.0.0.1:PORT` */
  readonly origin: string;
  /** What to write as `endpoint:` of each entity type. */
  readonly endpoints: readonly { readonly provider: string; readonly defines: string; readonly url: string }[];
  close(): Promise<void>;
}

export interface DemoOptions {
  readonly json: boolean;
  readonly signal: AbortSignal;
  /** Writes one line for the person who watches. */
  print(line: string): void;
}

export interface WalOptions extends EngineOptions {
  /** `<namespace>/<name>` */
  readonly entity: string;
  readonly work:
    | { readonly do: 'push'; readonly path: string; readonly name: string | undefined }
    | { readonly do: 'fetch'; readonly name: string; readonly path: string; readonly partial: boolean }
    | { readonly do: 'receive' };
  /** Ends a receiver. */
  readonly signal: AbortSignal;
}

export interface WalOutcome {
  /** Of `push`. */
  readonly outcome?: 'stored' | 'there';
  /** Of `fetch`: whether the archive has it. */
  readonly found?: boolean;
  /** Of `receive`. */
  readonly stored_segments?: number;
  readonly left_in_spool?: number;
}

export interface ConfigFault {
  readonly file?: string | undefined;
  /** From 1. */
  readonly line?: number | undefined;
  readonly column?: number | undefined;
  /** What it is about: `my-app/prod-postgres.backup_retention_period`. */
  readonly path?: string | undefined;
  readonly message: string;
  /** What to write instead. */
  readonly suggestion?: string | undefined;
}

export interface CheckedEntity {
  readonly key: string;
  readonly defines: string;
  /** Parameters that are accepted and have no effect here. */
  readonly ignored: readonly string[];
  /** Where its credentials come from, by name, never their values. */
  readonly credentials: readonly { readonly name: string; readonly found: boolean }[];
}

export interface ConfigReport {
  readonly file: string | undefined;
  readonly faults: readonly ConfigFault[];
  /** What is allowed but hardly meant. */
  readonly warnings: readonly ConfigFault[];
  readonly entities: readonly CheckedEntity[];
  /** Whether the policy of the file denies everything but reading. */
  readonly read_only?: boolean | undefined;
}

export interface InitOptions extends EngineOptions {
  /** Ids of the providers to look at; empty: all. */
  readonly providers: readonly string[];
  /** `key=value` or `provider.key=value`: credentials by reference and scope, by the names that entities have for them. */
  readonly settings: readonly string[];
  readonly namespace: string | undefined;
  /** Writes over an existing file. */
  readonly force: boolean;
  /** Adds to an existing file. */
  readonly append: boolean;
  readonly principal: Principal;
  readonly signal: AbortSignal;
  onProgress(progress: Progress): void;
}

/** What became of the look at one provider. */
export interface LookedAt {
  readonly provider: string;
  readonly title: string;
  readonly state: 'looked' | 'no_credentials' | 'not_possible' | 'failed';
  /** Where it looked. */
  readonly looked?: string | undefined;
  readonly found: number;
  readonly problems: readonly string[];
  /** Where credentials are looked for, in order. */
  readonly credentials: readonly string[];
  /** Why it failed. */
  readonly code?: ErrorCode | undefined;
}

export interface InitReport {
  readonly file: string;
  /** `shown`: the file is there, and was left as it is. */
  readonly outcome: 'written' | 'appended' | 'shown' | 'nothing';
  readonly providers: readonly LookedAt[];
  readonly entities: readonly {
    readonly key: string;
    readonly defines: string;
    readonly notes: readonly string[];
    /** `known`: the file has it already. `left_out`: it could not be declared. */
    readonly state: 'new' | 'known' | 'left_out';
  }[];
  /** Environment variables that the new entities refer to. */
  readonly variables: readonly string[];
  /** What was, or would be, written. */
  readonly text?: string | undefined;
}

/** One schedule and how it stands. Times are RFC 3339 UTC, `…_local` for people. */
export interface ScheduleView {
  readonly entity: string;
  readonly name: string;
  readonly action: string;
  readonly cron: string;
  readonly timezone: string;
  readonly enabled: boolean;
  readonly catch_up: boolean;
  readonly at_most_seconds?: number;
  /** How the last run ended, `running`, or `never_run`. */
  readonly state: ScheduleRun['state'] | 'running' | 'never_run';
  readonly running_since?: string;
  readonly last?: ScheduleRun;
  readonly last_success_at?: string;
  readonly consecutive_failures: number;
  readonly missed: number;
  readonly next_at?: string;
  readonly next_local?: string;
}

export interface DueTime {
  readonly entity: string;
  readonly name: string;
  readonly action: string;
  readonly cron: string;
  readonly timezone: string;
  readonly at: string;
  readonly local: string;
}

export interface KubernetesOptions {
  readonly namespace: string;
  readonly image: string;
  /** Keeps the state, and the audit trail with it, in this PersistentVolumeClaim; else both end with each pod. */
  readonly stateClaim?: string | undefined;
  /** A Secret whose every key becomes a variable: for what the file does not name, such as AWS_ACCESS_KEY_ID. */
  readonly envFrom?: string | undefined;
  /** Of the temporary directory: `2Gi`. */
  readonly tmpSize: string;
  /** Of a claim for local backups or waiting WAL: `50Gi`. */
  readonly volumeSize: string;
}

export interface RenderedKubernetes {
  /** One for each object, in the order in which they are applied. */
  readonly files: readonly { readonly name: string; readonly text: string }[];
  /** The Secrets that must be there, with the command that makes each. */
  readonly secrets: readonly { readonly name: string; readonly keys: readonly string[]; readonly command: string }[];
  readonly notes: readonly string[];
}

/** What the command line does with schedules. */
export interface ScheduleDesk {
  readonly engine: Engine;
  /** Whether a server started with this file and environment would run them. */
  readonly runsHere: boolean;
  /** @throws {HoldfastError} ENTITY_NOT_FOUND */
  list(entity?: string): Promise<ScheduleView[]>;
  next(count: number, entity?: string): DueTime[];
  /** @throws {HoldfastError} whatever the call ends with; INVALID_STATE while it runs elsewhere */
  run(
    entity: string,
    name: string,
    options: { signal: AbortSignal; onProgress: (progress: Progress) => void },
  ): Promise<Outcome>;
  render(options: KubernetesOptions): Promise<RenderedKubernetes>;
  close(): Promise<void>;
}

export interface CatalogueOptions extends EngineOptions {
  /** Whose storage to look through; or `storage`. */
  readonly entity: string | undefined;
  /** A directory or the address of a store: all of it is looked through. */
  readonly storage: string | undefined;
  /** Files with what opens backups. */
  readonly identity: string | undefined;
  readonly passphraseFile: string | undefined;
  readonly principal: Principal;
  readonly signal: AbortSignal;
}

export interface CatalogueOutcome {
  /** As check-catalog gives it. */
  readonly report: JsonObject;
  /** The entities file that a machine needs which has nothing but the storage and the key. */
  readonly entitiesFile: string;
}

/** Everything of the outside world that the command line touches. */
export interface CliDeps {
  readonly version: string;
  openEngine(options: EngineOptions): Promise<Engine>;
  /** Serves until the signal; resolves when all is closed. */
  serve(options: ServeOptions): Promise<void>;
  startSandbox(options: SandboxOptions): Promise<RunningSandbox>;
  /** Gives the exit status. */
  runDemo(options: DemoOptions): Promise<number>;
  /** Archives, fetches or receives the write-ahead log of one entity. */
  runWal(options: WalOptions): Promise<WalOutcome>;
  checkConfig(options: EngineOptions): Promise<ConfigReport>;
  /** Looks through a storage of PostgreSQL backups; reads only. */
  lookThrough(options: CatalogueOptions): Promise<CatalogueOutcome>;
  /**
   * Looks through the accounts whose credentials it finds and writes an entities file of what it sees.
   * @throws {HoldfastError} INVALID_PARAMETER for an option that means nothing, CONFIG_INVALID where the file cannot be written
   */
  init(options: InitOptions): Promise<InitReport>;
  openSchedules(options: EngineOptions): Promise<ScheduleDesk>;
  readonly stdin: CliInput;
  readonly stdout: CliOutput;
  readonly stderr: CliOutput;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted by the first Ctrl-C (reason 'SIGINT') or by SIGTERM (reason 'SIGTERM'). */
  readonly signal: AbortSignal;
  /** The name of the operating system's user. */
  readonly user: string;
  /** Takes what people are not shown: the cause of a fault of ours. Redacts. */
  readonly log: Pick<Log, 'error'>;
}
