import type { EntityBase } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import { isObject } from '../../core/json.ts';
import type { Runtime, SecretRef } from '../../core/runtime.ts';
import { cleanText } from '../../core/text.ts';
import { listOf, numberOf, textOf, type Wire } from '../../core/wire.ts';
import { bearerToken, type RestSend, restClient, unless } from '../rest.ts';
import {
  type About,
  type Backups,
  type Cluster,
  checkId,
  type EngineOptions,
  type FirewallRule,
  refusalError,
  toBackups,
  toCluster,
  toOptions,
  toRules,
} from './map.ts';

const ORIGIN = 'https://api.digitalocean.com';
const READ = 'database:read';
const MAX_PAGES = 100;

/** What the configuration of a PostgreSQL or MySQL cluster says of backups. */
export interface BackupConfig {
  readonly hour: number | undefined;
  readonly minute: number | undefined;
  readonly incremental: { enabled: boolean; full_days: string | undefined } | undefined;
}

/** What names the cluster and the account. */
export interface Address {
  readonly cluster_id?: string | undefined;
  readonly token?: SecretRef | undefined;
}

/** The calls of the DigitalOcean API that backups of managed databases need. */
export class DigitalOceanClient {
  readonly #base: string;
  readonly #send: RestSend<About>;
  readonly #name: string | undefined;
  readonly #declared: string | undefined;
  /** The id behind the name, as far as it was looked up. */
  #found: string | undefined;

  constructor(entity: Address & Pick<EntityBase, 'endpoint' | 'parameters'>, runtime: Runtime) {
    this.#base = (entity.endpoint ?? ORIGIN).replace(/\/+$/, '');
    // The entity has a name of its own, which must never stand for the cluster's.
    this.#name = textOf(entity.parameters?.['name']);
    this.#declared = entity.cluster_id;
    this.#send = restClient({
      title: 'DigitalOcean',
      base: this.#base,
      runtime,
      headers: bearerToken(runtime, entity.token, { parameter: 'token', variable: 'DIGITALOCEAN_TOKEN' }),
      secrets: /^(uri|password|access_cert|access_key)$/,
      refuse: refusalError,
    });
  }

  /**
   * Gives the cluster that the entity names, by its id or else by its name.
   * @throws {HoldfastError} RESOURCE_NOT_FOUND, CONFIG_INVALID where id and name are of two clusters
   */
  async own(signal: AbortSignal): Promise<Cluster> {
    const name = this.#name;
    const id = this.#declared ?? this.#found;
    // A cluster that was destroyed may have a successor of its name.
    const known = id === undefined ? undefined : await this.#existing(id, signal);
    if (known === undefined) {
      const found = await this.byName(String(name), signal);
      if (found === undefined) {
        throw new HoldfastError('RESOURCE_NOT_FOUND', `DigitalOcean knows no cluster '${cleanText(name, 60)}'`, {
          hint: 'Check name of the entity, and that the token is of the right team.',
        });
      }
      this.#found = found.id;
      return found;
    }
    if (name !== undefined && known.name !== name) {
      throw new HoldfastError('CONFIG_INVALID', 'cluster_id and name of the entity are of two different clusters', {
        hint: 'Correct one of them in the entities file, or keep one alone.',
        details: { cluster_id: known.id, is_called: cleanText(known.name, 60), declared: cleanText(name, 60) },
      });
    }
    return known;
  }

  async #existing(id: string, signal: AbortSignal): Promise<Cluster | undefined> {
    const looked = this.cluster(id, signal);
    return this.#declared === undefined ? unless(looked, 'RESOURCE_NOT_FOUND') : looked;
  }

  async cluster(id: string, signal: AbortSignal): Promise<Cluster> {
    const path = `/v2/databases/${checkId(id, 'cluster_id')}`;
    const wire = await this.#get(path, { what: 'the cluster', scope: READ }, signal);
    return toCluster(isObject(wire['database']) ? wire['database'] : {});
  }

  /** @throws {HoldfastError} INVALID_STATE when several clusters have that name */
  async byName(name: string, signal: AbortSignal): Promise<Cluster | undefined> {
    const found = (await this.clusters(signal)).filter((cluster) => cluster.name === name);
    if (found.length > 1) {
      throw new HoldfastError('INVALID_STATE', `${found.length} clusters are called '${cleanText(name, 60)}'`, {
        hint: 'Set cluster_id of the entity.',
        retryable: false,
        details: { cluster_ids: found.map(({ id }) => id) },
      });
    }
    return found[0];
  }

  /** Lists all clusters. Pages are followed where the answer names a next one on the same host. */
  async clusters(signal: AbortSignal): Promise<Cluster[]> {
    const found: Cluster[] = [];
    let path: string | undefined = '/v2/databases';
    for (let page = 0; path !== undefined; page += 1) {
      if (page >= MAX_PAGES) {
        throw new HoldfastError('PROVIDER_UNAVAILABLE', `DigitalOcean gave more than ${MAX_PAGES} pages of one list`);
      }
      const wire: Wire = await this.#get(path, { what: 'the list of clusters', scope: READ }, signal);
      found.push(...listOf(wire['databases']).map(toCluster));
      path = this.#nextPage(wire);
    }
    return found;
  }

  async backups(id: string, signal: AbortSignal): Promise<Backups> {
    return toBackups(await this.#part(id, 'backups', 'the list of backups', signal));
  }

  async rules(id: string, signal: AbortSignal): Promise<FirewallRule[]> {
    return toRules(await this.#part(id, 'firewall', 'the trusted sources', signal));
  }

  async config(id: string, signal: AbortSignal): Promise<BackupConfig> {
    const wire = await this.#part(id, 'config', 'the configuration', signal);
    const config: Wire = isObject(wire['config']) ? wire['config'] : {};
    const incremental = config['mysql_incremental_backup'];
    return {
      hour: numberOf(config['backup_hour']),
      minute: numberOf(config['backup_minute']),
      incremental: isObject(incremental)
        ? { enabled: incremental['enabled'] === true, full_days: textOf(incremental['full_backup_week_schedule']) }
        : undefined,
    };
  }

  /** What clusters of an engine can be created. */
  async options(engine: string, signal: AbortSignal): Promise<EngineOptions | undefined> {
    return toOptions(await this.#get('/v2/databases/options', { what: 'the options', scope: READ }, signal), engine);
  }

  /** Creates a cluster from a backup. A write: sent once. */
  async create(body: JsonObject, signal: AbortSignal): Promise<Cluster> {
    const about = { what: 'the new cluster', scope: 'database:create' };
    const { body: wire } = await this.#send('POST', '/v2/databases', { about, body, signal });
    const cluster = toCluster(isObject(wire['database']) ? wire['database'] : {});
    if (cluster.id !== '') return cluster;
    throw new HoldfastError('PROVIDER_UNAVAILABLE', 'DigitalOcean took the restore without naming a cluster', {
      details: { outcome: 'unknown' },
    });
  }

  /** Changes members of the configuration of a cluster; those that are left out stay. A write: sent once. */
  async setConfig(id: string, config: JsonObject, signal: AbortSignal): Promise<void> {
    const about = { what: 'the backup configuration', scope: 'database:update' };
    const path = `/v2/databases/${checkId(id, 'cluster_id')}/config`;
    await this.#send('PATCH', path, { about, body: { config }, signal });
  }

  #part(id: string, part: string, what: string, signal: AbortSignal): Promise<Wire> {
    return this.#get(`/v2/databases/${checkId(id, 'cluster_id')}/${part}`, { what, scope: READ }, signal);
  }

  async #get(path: string, about: About, signal: AbortSignal): Promise<Wire> {
    return (await this.#send('GET', path, { about, signal })).body;
  }

  // The token goes where the link points to, so another host is not followed.
  #nextPage(wire: Wire): string | undefined {
    const pages = isObject(wire['links']) ? wire['links']['pages'] : undefined;
    const next = isObject(pages) ? textOf(pages['next']) : undefined;
    if (next === undefined) return undefined;
    const url = URL.canParse(next) ? new URL(next) : undefined;
    if (url?.origin !== new URL(this.#base).origin || url.pathname !== '/v2/databases') {
      throw new HoldfastError('PROVIDER_UNAVAILABLE', 'DigitalOcean named a next page that is not its own');
    }
    return `${url.pathname}${url.search}`;
  }
}
