import { randomBytes } from 'node:crypto';
import { mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { EntityBase } from '../../src/core/context.ts';
import type { JsonObject } from '../../src/core/json.ts';
import { DEFAULT_POLICY, type PolicyConfig } from '../../src/core/policy.ts';
import type { Principal } from '../../src/core/principal.ts';
import type { Log } from '../../src/core/runtime.ts';
import type { Schedule } from '../../src/core/schedule.ts';
import type { StateStore } from '../../src/core/state.ts';
import type { Engine } from '../../src/engine/api.ts';
import { createEngine } from '../../src/engine/engine.ts';
import { collect, type Registry } from '../../src/engine/registry.ts';
import { createRedactor, type Redactor } from '../../src/observability/redaction.ts';
import { openSqliteStore } from '../../src/state/sqlite.ts';
import * as fleetTools from '../../tools/fleet.ts';

export const ANA: Principal = { id: 'stdio:ana', person: 'ana', roles: ['operator'] };
export const BEN: Principal = { id: 'http:ben', person: 'ben', roles: ['operator'] };
export const BOSS: Principal = { id: 'cli:boss', person: 'boss', roles: ['operator', 'approver'] };
export const VIEWER: Principal = { id: 'http:eve', person: 'eve', roles: ['viewer'] };

export interface HarnessOptions {
  /** Modules of declarations, as `import * as` gives them; the fleet actions are always there. */
  readonly modules: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly entities: readonly {
    readonly key: string;
    readonly defines: string;
    readonly parameters: JsonObject;
    readonly labels?: Record<string, string>;
    readonly endpoint?: string;
    readonly schedules?: readonly Schedule[];
  }[];
  readonly policy?: Partial<PolicyConfig>;
  /** Kept when given; else a fresh one that `close` removes. */
  readonly stateDirectory?: string;
  readonly sandbox?: boolean;
  readonly now?: () => Date;
  readonly graceMs?: number;
  readonly log?: Log;
  /** Values of secrets by name; others are `secret-<name>`. */
  readonly secrets?: Readonly<Record<string, string>>;
}

export interface Harness {
  readonly engine: Engine;
  readonly store: StateStore;
  readonly registry: Registry;
  readonly redactor: Redactor;
  readonly stateDirectory: string;
  close(): Promise<void>;
}

/** An engine as main builds it, with entities given in code, waits that pass a hundred times faster and real everything else. */
export async function startHarness(options: HarnessOptions): Promise<Harness> {
  const stateDirectory = options.stateDirectory ?? mkdtempSync(join(tmpdir(), 'holdfast-harness-'));
  const registry = collect({ fleet: fleetTools, ...options.modules });
  const store = await openSqliteStore(join(stateDirectory, 'state.db'));
  const redactor = createRedactor();
  const engine = createEngine({
    version: '0.0.0-test',
    registry,
    entities: options.entities.map(({ key, defines, parameters, labels = {}, endpoint, schedules }) => {
      const [namespace, name] = key.split('/') as [string, string];
      const known = registry.entityTypes.get(defines);
      if (known === undefined) throw new Error(`no entity type ${defines}`);
      const base: EntityBase = {
        key,
        namespace,
        name,
        defines,
        provider: known.provider.id,
        labels,
        objectives: {},
        endpoint,
        ...(schedules === undefined ? {} : { schedules }),
      };
      return {
        base,
        resolve: async () => {
          const parsed = known.type.schema.parse(parameters) as Record<string, unknown>;
          return { ...parsed, ...base, parameters: parsed };
        },
      };
    }),
    policy: { ...DEFAULT_POLICY, ...options.policy },
    store,
    stateDirectory,
    sandbox: options.sandbox ?? false,
    redactor,
    secrets: {
      secret: async (ref) => {
        const value = options.secrets?.[ref.name] ?? `secret-${ref.name}`;
        redactor.conceal(value);
        return value;
      },
      credential: (name) => options.secrets?.[name],
    },
    log: options.log ?? { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} },
    fetch: globalThis.fetch,
    now: options.now ?? (() => new Date()),
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        signal?.throwIfAborted();
        const timer = setTimeout(resolve, Math.min(ms / 100, 60));
        signal?.addEventListener('abort', () => {
          clearTimeout(timer);
          reject(signal.reason);
        });
      }),
    random: randomBytes,
    rateFactor: 50,
    retryBaseMs: 5,
    graceMs: options.graceMs ?? 2000,
  });
  return {
    engine,
    store,
    registry,
    redactor,
    stateDirectory,
    close: async () => {
      await engine.close();
      if (options.stateDirectory === undefined) await rm(stateDirectory, { recursive: true, force: true });
    },
  };
}
