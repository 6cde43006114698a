import { asHoldfastError } from '../../core/errors.ts';
import type { JsonObject, JsonValue } from '../../core/json.ts';
import { cleanText } from '../../core/text.ts';
import { type SourceReport, surveyStore } from '../../postgres/catalogue.ts';
import { type Manifest, typeOf } from '../../postgres/manifest.ts';
import { Repository, sourceIdOf } from '../../postgres/repository.ts';
import { assertKeyFits } from '../../postgres/verify.ts';
import type { Work } from '../../postgres/work.ts';
import { type Host, keepingOf, type Scope } from './entity.ts';

const ENTITY_KEY = /^([a-z0-9][a-z0-9._-]{0,99})\/([a-z0-9][a-z0-9._-]{0,99})$/;

/** Says what the storage of an entity holds, down to what is damaged, left over or not Holdfast's. */
export class CatalogueCheck {
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  /** @param all every source in the store, not only the entity's own */
  async check(scope: Scope, all: boolean): Promise<JsonObject> {
    const { runtime } = this.#host;
    const repository = this.#host.repository();
    const { location, sources, foreign, other_layouts } = await surveyStore(
      repository.store,
      runtime.now(),
      all ? undefined : repository.sourceId,
    );
    const work = await this.#work(scope, repository);
    const described: JsonObject[] = [];
    for (const source of sources) described.push(await this.#describe(work, source));
    return {
      location: cleanText(location, 300),
      healthy: sources.every(({ grave_problems }) => grave_problems === 0),
      sources: described,
      foreign: { ...foreign, names: [...foreign.names] },
      other_layouts: { ...other_layouts },
    };
  }

  /** Looking through a storage needs no server, and says what it can without a key. */
  async #work({ signal }: Scope, repository: Repository): Promise<Work> {
    const { runtime } = this.#host;
    const keys = await this.#host.keys().catch((cause) => {
      runtime.log.warn('the key of this entity could not be read', { code: asHoldfastError(cause).code });
      return {};
    });
    const connection = { host: '', port: 0, user: '', database: '', sslMode: 'disable' as const };
    return { runtime, repository, keys, connection, maxRows: 0, signal, progress: () => {} };
  }

  async #describe(work: Work, source: SourceReport): Promise<JsonObject> {
    const { newest, newest_good, problems, unfinished, ...rest } = source;
    const key = newest_good === undefined ? undefined : await this.#key(work, source.source_id, newest_good);
    return {
      ...rest,
      newest: newest === undefined ? null : describeBackup(newest),
      newest_good: newest_good === undefined ? null : describeBackup(newest_good),
      ...(key === undefined ? {} : { key }),
      unfinished: [...unfinished],
      problems: problems.map((problem) => ({ ...problem })),
      entity: newest === undefined ? null : this.#stanza(source, newest_good ?? newest),
    };
  }

  /** Whether the key that this machine has opens a backup; reads a header only. */
  async #key(work: Work, sourceId: string, manifest: Manifest): Promise<string> {
    if (manifest.encryption.scheme === 'none') return 'not_encrypted';
    const { identity, passphrase } = work.keys;
    if ((manifest.encryption.passphrase ? passphrase : identity) === undefined) return 'no_key_here';
    try {
      await assertKeyFits({ ...work, repository: new Repository(work.repository.store, sourceId) }, manifest);
      return 'opens';
    } catch (cause) {
      const { code } = asHoldfastError(cause);
      if (code === 'AUTHENTICATION_FAILED') return 'does_not_open';
      if (code === 'INTEGRITY_FAILED') return 'damaged';
      throw cause;
    }
  }

  /** What an entities file needs so that a machine that knows nothing else can restore from this source. */
  #stanza(source: SourceReport, manifest: Manifest): JsonObject {
    const { storage, encryption } = keepingOf(this.#host.entity);
    const [, namespace = 'restored', name = source.source_id] = ENTITY_KEY.exec(source.name ?? '') ?? [];
    const own = encryption === 'none' ? {} : encryption;
    const sealing: JsonValue =
      manifest.encryption.scheme === 'none'
        ? 'none'
        : manifest.encryption.passphrase
          ? { passphrase: asWritten(own.passphrase ?? { secret: 'env', name: 'HOLDFAST_PASSPHRASE' }) }
          : {
              recipients: [...manifest.encryption.recipients],
              identity: asWritten(own.identity ?? { secret: 'file', name: '/etc/holdfast/age.key' }),
            };
    return {
      namespace,
      name,
      parameters: {
        defines: 'postgresql/server',
        host: 'localhost',
        port: 5432,
        user: 'postgres',
        password: '${env:PGPASSWORD}',
        database: manifest.server.database,
        storage: asWritten(storage),
        encryption: sealing,
        ...(sourceIdOf(`${namespace}/${name}`) === source.source_id ? {} : { source_id: source.source_id }),
      },
    };
  }
}

function describeBackup(manifest: Manifest): JsonObject {
  return {
    snapshot_id: manifest.id,
    type: typeOf(manifest),
    data_at: manifest.snapshot_at,
    database: cleanText(manifest.server.database, 70),
    server_version: cleanText(manifest.server.version, 60),
  };
}

/** Gives parameters as a file writes them: references to secrets as text. */
function asWritten(value: unknown): JsonValue {
  if (Array.isArray(value)) return value.map(asWritten);
  if (typeof value !== 'object' || value === null) return value as JsonValue;
  const { secret, name } = value as { secret?: unknown; name?: unknown };
  if ((secret === 'env' || secret === 'file') && typeof name === 'string') return `\${${secret}:${name}}`;
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return Object.fromEntries(members.map(([key, member]) => [key, asWritten(member)]));
}
