import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import type { JsonObject } from '../core/json.ts';
import type { ConfiguredEntity } from '../engine/engine.ts';
import type { Registry } from '../engine/registry.ts';
import { sandboxEntity } from './sandbox.ts';

const TYPE = 'postgresql/server';
/** The name of the secret that stands for the private server's password. */
export const PRIVATE_PASSWORD = 'SANDBOX_POSTGRESQL_PASSWORD';

export interface SandboxPostgres {
  readonly entities: readonly ConfiguredEntity[];
  password(): string;
  close(): Promise<void>;
}

/**
 * The PostgreSQL of a sandbox: not simulated but real and private. It is started when it is first used, with a small
 * shop in it, and removed at the end.
 */
export function sandboxPostgres(registry: Registry): SandboxPostgres {
  const known = registry.entityTypes.get(TYPE);
  let running: Promise<{ parameters: JsonObject; password: string; stop(): Promise<void> }> | undefined;
  let password = '';

  const start = async () => {
    const { startPrivateServer } = await import('../postgres/private-server.ts');
    const { fillShop } = await import('./shop.ts');
    // A socket lives there, and its path must be short.
    const directory = join(tmpdir(), `holdfast-sandbox-${process.pid}`);
    const server = await startPrivateServer({ directory });
    const { connection } = server;
    password = connection.password;
    const stop = async (): Promise<void> => {
      await server.stop();
      await rm(directory, { recursive: true, force: true });
    };
    await fillShop(connection).catch(async (cause: unknown) => {
      await stop();
      throw cause;
    });
    const parameters = {
      host: connection.host,
      port: connection.port,
      user: connection.user,
      password: `\${env:${PRIVATE_PASSWORD}}`,
      database: 'shop',
      ssl_mode: 'disable',
      storage: { type: 'local', path: join(directory, 'backups') },
      encryption: 'none',
      verify_on_source: true,
    };
    return { parameters, password, stop };
  };

  const parameters = async (): Promise<JsonObject> => {
    running ??= start();
    try {
      return known!.type.schema.parse((await running).parameters) as JsonObject;
    } catch (cause) {
      running = undefined;
      if (cause instanceof HoldfastError) throw cause;
      throw new HoldfastError('NOT_SUPPORTED', 'the private PostgreSQL of the sandbox did not start', { cause });
    }
  };
  return {
    entities: known === undefined ? [] : [sandboxEntity('postgresql', TYPE, known.provider.id, undefined, parameters)],
    password: () => password,
    close: async () => {
      const server = await running?.catch(() => undefined);
      await server?.stop();
    },
  };
}
