import type { EntityBase } from '../core/context.ts';
import type { JsonObject } from '../core/json.ts';
import type { ConfiguredEntity } from '../engine/engine.ts';
import type { Registry } from '../engine/registry.ts';
import { simulators } from '../simulators/index.ts';
import { startSimulators } from '../simulators/server.ts';

/** How much faster than in earnest waits pass in a sandbox: the simulators' work takes seconds where a provider's takes minutes. */
export const SANDBOX_PACE = 25;

export interface Sandbox {
  /** `http://127.0.0.1:PORT`: the endpoint of every simulated provider, and of the control routes. */
  readonly origin: string;
  /** Whether another process runs it. */
  readonly joined: boolean;
  close(): Promise<void>;
}

/** Starts the simulators on a loopback port; 0 for any free one. */
export async function startSandbox(port: number): Promise<Sandbox> {
  const server = await startSimulators({ simulators: (clock) => simulators.map((create) => create({ clock })), port });
  return { origin: server.origin, joined: false, close: () => server.close() };
}

/** Uses the sandbox that listens on a port already, so that several processes can share one; else starts it there. */
export async function joinOrStartSandbox(port: number): Promise<Sandbox> {
  if (port !== 0) {
    const origin = `http://127.0.0.1:${port}`;
    const running = await fetch(`${origin}/_clock`, { signal: AbortSignal.timeout(1000) }).then(
      async (response) => response.ok && typeof ((await response.json()) as { now?: unknown }).now === 'string',
      () => false,
    );
    if (running) return { origin, joined: true, close: async () => {} };
  }
  return startSandbox(port);
}

/** The namespace `sandbox`: one entity of each type that can be simulated, and a private PostgreSQL where its programs are installed. */
export function sandboxEntities(registry: Registry, origin: string): ConfiguredEntity[] {
  return [...registry.entityTypes].flatMap(([defines, { provider, type }]) => {
    if (type.sandbox === undefined) return [];
    const { name, parameters } = type.sandbox;
    return [sandboxEntity(name, defines, provider.id, origin, async () => type.schema.parse(parameters) as JsonObject)];
  });
}

/** Makes one entity of the namespace `sandbox`. */
export function sandboxEntity(
  name: string,
  defines: string,
  provider: string,
  endpoint: string | undefined,
  parameters: () => Promise<JsonObject>,
): ConfiguredEntity {
  const base: EntityBase = {
    key: `sandbox/${name}`,
    namespace: 'sandbox',
    name,
    defines,
    provider,
    labels: { env: 'sandbox' },
    objectives: {},
    endpoint,
  };
  return {
    base,
    // A parameter such as `name` must not give way to the entity's own: it is found in `parameters`.
    resolve: async () => {
      const parsed = await parameters();
      return { ...parsed, ...base, parameters: parsed };
    },
  };
}

/** What to write as `endpoint:` of each entity type. */
export function sandboxEndpoints(
  registry: Registry,
  origin: string,
): { provider: string; defines: string; url: string }[] {
  return [...registry.entityTypes]
    .filter(([, { type }]) => type.sandbox !== undefined)
    .map(([defines, { provider }]) => ({ provider: provider.id, defines, url: origin }));
}
