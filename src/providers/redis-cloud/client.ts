import type { EntityBase } from '../../core/context.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import { isObject } from '../../core/json.ts';
import type { Progress } from '../../core/operation.ts';
import type { Runtime, SecretRef } from '../../core/runtime.ts';
import { listOf, numberOf, type Wire } from '../../core/wire.ts';
import { type RestSend, restClient } from '../rest.ts';
import {
  type Attempt,
  type Database,
  httpError,
  type SourceType,
  type Task,
  taskError,
  taskStatus,
  toAttempt,
  toDatabase,
  toTask,
} from './map.ts';

export const DEFAULT_ORIGIN = 'https://api.redislabs.com';

export type Tier = 'essentials' | 'pro';

/** Where a database lives; the two tiers have different paths for the same calls. */
export interface Address {
  readonly tier: Tier;
  readonly subscription: number;
  readonly database: number;
}

/** The seconds between two looks at running work: quick at first, then the pace that the account's rate can bear. */
const PAUSES = [1, 2, 3, 5, 8, 13, 20, 30] as const;
/** How often a new task id may answer 404 before it counts as unknown. */
const ABSENT_LOOKS = 5;
/** A status read waits in the account's queue behind other work; after this it is reported as unknown. */
const STATUS_PATIENCE_SECONDS = 90;
const PAGE = 100;
/** Under this share of the 400 requests a minute the pollers slow down, so that other calls still get through. */
const SPARE_REQUESTS = 40;

/** Waits between looks. The limit counts the waits themselves, so that it holds at any speed of time. */
export class Pacer {
  readonly #runtime: Runtime;
  readonly #limitSeconds: number;
  readonly #spare: () => boolean;
  #looks = 0;
  #waited = 0;

  constructor(runtime: Runtime, limitSeconds: number, spare: () => boolean = () => true) {
    this.#runtime = runtime;
    this.#limitSeconds = limitSeconds;
    this.#spare = spare;
  }

  get waitedSeconds(): number {
    return this.#waited;
  }

  /**
   * Waits until the next look is due.
   * @throws {HoldfastError} TIMEOUT when the limit is used up
   */
  async next(what: string, signal: AbortSignal): Promise<void> {
    if (this.#waited >= this.#limitSeconds) {
      throw new HoldfastError('TIMEOUT', `${what} was not over after ${this.#limitSeconds} s`, {
        hint: 'It may still be running at Redis Cloud. Look with get-restore-status or get-backup-info.',
      });
    }
    const pause = Math.max(PAUSES[Math.min(this.#looks, PAUSES.length - 1)] as number, this.#spare() ? 0 : 15);
    this.#looks += 1;
    this.#waited += pause;
    await this.#runtime.sleep(pause * 1000, signal);
  }
}

export interface Credentials {
  readonly access_key?: SecretRef | undefined;
  readonly secret_key?: SecretRef | undefined;
}

/** The calls of the Redis Cloud API that backups need. Paths are chosen by method and path: operation names in the API description are misleading. */
export class RedisCloudClient {
  readonly #credentials: Credentials;
  readonly #runtime: Runtime;
  readonly #send: RestSend<string>;
  #keys: Promise<{ access: string; secret: string }> | undefined;
  #remaining = Number.POSITIVE_INFINITY;

  constructor(entity: Credentials & Pick<EntityBase, 'endpoint'>, runtime: Runtime) {
    // The vendor's tools write the address with /v1, ours without; both mean the same.
    const origin = (entity.endpoint ?? DEFAULT_ORIGIN).replace(/\/+$/, '').replace(/\/v1$/, '');
    this.#credentials = entity;
    this.#runtime = runtime;
    this.#send = restClient({
      title: 'Redis Cloud',
      base: origin,
      runtime,
      headers: () => this.#headers(),
      // Databases carry their passwords in clear.
      secrets: /password|passwd|secret/i,
      refuse: ({ status, headers, body, about, writes }) => httpError({ status, headers }, body, about, writes),
      seen: (headers) => {
        const remaining = headers.get('x-rate-limit-remaining') ?? '';
        this.#remaining = /^\d+$/.test(remaining) ? Number(remaining) : Number.POSITIVE_INFINITY;
      },
    });
  }

  /** Waits between looks within a number of seconds, slower when the account's requests run short. */
  pacer(limitSeconds: number): Pacer {
    return new Pacer(this.#runtime, limitSeconds, () => this.#remaining > SPARE_REQUESTS);
  }

  async subscription(tier: Tier, id: number, signal: AbortSignal): Promise<Wire> {
    return this.#get(subscriptionPath(tier, id), 'the subscription', signal);
  }

  async essentialsSubscriptions(signal: AbortSignal): Promise<Wire[]> {
    const answer = await this.#get('/v1/fixed/subscriptions', 'the list of subscriptions', signal);
    return listOf(answer['subscriptions']);
  }

  async proSubscriptions(signal: AbortSignal): Promise<Wire[]> {
    const answer = await this.#get('/v1/subscriptions', 'the list of subscriptions', signal);
    return listOf(answer['subscriptions']);
  }

  async database({ tier, subscription, database }: Address, signal: AbortSignal): Promise<Database> {
    const path = `${subscriptionPath(tier, subscription)}/databases/${segment(database)}`;
    return toDatabase(await this.#get(path, 'the database', signal));
  }

  /** Gives all databases of a subscription, page by page. */
  async databases(tier: Tier, subscription: number, signal: AbortSignal): Promise<Database[]> {
    const found: Database[] = [];
    for (let offset = 0; ; offset += PAGE) {
      let answer: Wire;
      try {
        answer = await this.#get(
          `${subscriptionPath(tier, subscription)}/databases?offset=${offset}&limit=${PAGE}`,
          'the list of databases',
          signal,
        );
      } catch (cause) {
        // The service answers 404 behind the last page.
        if (cause instanceof HoldfastError && cause.code === 'RESOURCE_NOT_FOUND') return found;
        throw cause;
      }
      // Essentials gives one object, Pro a list with one.
      const holder = answer['subscription'];
      const page = listOf(
        Array.isArray(holder) ? listOf(holder)[0]?.['databases'] : isObject(holder) ? holder['databases'] : [],
      );
      found.push(...page.map(toDatabase));
      if (page.length < PAGE) return found;
    }
  }

  /** Gives one task; a new id may be unknown for a moment, and old ones vanish after about ten days. */
  async task(id: string, signal: AbortSignal): Promise<Task> {
    if (!/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id)) {
      throw new HoldfastError('INVALID_PARAMETER', `task_id '${id.slice(0, 40)}' is not a task id`, {
        hint: 'A task id is a UUID, as restore and create-snapshot give it.',
      });
    }
    for (let look = 1; ; look += 1) {
      try {
        return toTask(await this.#get(`/v1/tasks/${segment(id)}`, 'the task', signal));
      } catch (cause) {
        if (!(cause instanceof HoldfastError) || cause.code !== 'RESOURCE_NOT_FOUND') throw cause;
        if (look > ABSENT_LOOKS) {
          throw new HoldfastError('RESOURCE_NOT_FOUND', `Redis Cloud has no task ${id}`, {
            hint: 'Redis Cloud forgets tasks after about ten days. See get-backup-info for the state of the database.',
            provider: cause.provider,
          });
        }
        await this.#runtime.sleep(1000, signal);
      }
    }
  }

  /** Gives the tasks of the last ten days or so. */
  async tasks(signal: AbortSignal): Promise<Task[]> {
    const answer = await this.#get('/v1/tasks', 'the list of tasks', signal);
    return listOf(answer['tasks']).map(toTask);
  }

  /**
   * Waits until a task is processed.
   * @throws {HoldfastError} what the task's error means; TIMEOUT after the given waits
   */
  async settle(
    id: string,
    options: { doing: string; limitSeconds: number; progress?: (progress: Progress) => void },
    signal: AbortSignal,
  ): Promise<Task> {
    const pacer = this.pacer(options.limitSeconds);
    for (;;) {
      const task = await this.task(id, signal);
      const status = taskStatus(task.status);
      if (task.error !== undefined || status === 'failed') throw taskError(task, options.doing);
      if (status === 'succeeded') return task;
      options.progress?.({
        message:
          status === 'pending'
            ? 'Waiting in the queue of the Redis Cloud account, which does one thing at a time'
            : `Redis Cloud is processing ${options.doing}`,
      });
      await pacer.next(options.doing, signal);
    }
  }

  /** Gives the latest backup of a database, or of its copy in one region: the only one that the service tells. */
  async latestBackup(address: Address, region: string | undefined, signal: AbortSignal): Promise<Attempt> {
    const query = region === undefined ? '' : `?regionName=${encodeURIComponent(region)}`;
    return toAttempt(
      await this.#status(`${databasePath(address)}/backup${query}`, 'the backup status', signal),
      'lastBackupTime',
    );
  }

  async latestImport(address: Address, signal: AbortSignal): Promise<Attempt> {
    return toAttempt(
      await this.#status(`${databasePath(address)}/import`, 'the import status', signal),
      'lastImportTime',
    );
  }

  /** Asks for a backup now. A write: sent once. */
  async startBackup(
    address: Address,
    options: { region?: string | undefined; path?: string | undefined },
    signal: AbortSignal,
  ): Promise<Task> {
    const body = {
      ...(options.region === undefined ? {} : { regionName: options.region }),
      ...(options.path === undefined ? {} : { adhocBackupPath: options.path }),
    };
    return this.#start(`${databasePath(address)}/backup`, body, 'the backup', signal);
  }

  /** Asks for an import, which empties the database first. A write: sent once. */
  async startImport(address: Address, type: SourceType, uris: readonly string[], signal: AbortSignal): Promise<Task> {
    return this.#start(
      `${databasePath(address)}/import`,
      { sourceType: type, importFromUri: [...uris] },
      'the import',
      signal,
    );
  }

  /** Gives the plans that an Essentials subscription can be moved to. */
  async plansFor(subscription: number, signal: AbortSignal): Promise<Wire[]> {
    const path = `/v1/fixed/plans/subscriptions/${segment(subscription)}`;
    return listOf((await this.#get(path, 'the list of plans', signal))['plans']);
  }

  /** Moves an Essentials subscription to another plan. A write: sent once. */
  async movePlan(subscription: number, planId: number, signal: AbortSignal): Promise<Task> {
    return this.#start(subscriptionPath('essentials', subscription), { planId }, 'the move', signal, 'PUT');
  }

  /** Changes settings of a database; what is left out stays. A write: sent once. */
  async updateDatabase(address: Address, settings: JsonObject, signal: AbortSignal): Promise<Task> {
    return this.#start(databasePath(address), settings, 'the update', signal, 'PUT');
  }

  /** Changes settings of an Active-Active database and of its regions; what is left out stays. A write: sent once. */
  async updateRegions(address: Address, settings: JsonObject, signal: AbortSignal): Promise<Task> {
    return this.#start(`${databasePath(address)}/regions`, settings, 'the update', signal, 'PUT');
  }

  async #start(
    path: string,
    body: JsonObject,
    doing: string,
    signal: AbortSignal,
    method: 'POST' | 'PUT' = 'POST',
  ): Promise<Task> {
    const task = toTask((await this.#send(method, path, { about: doing, body, signal })).body);
    if (task.id === '') {
      throw new HoldfastError('PROVIDER_UNAVAILABLE', `Redis Cloud took ${doing} without naming a task`, {
        details: { outcome: 'unknown' },
      });
    }
    if (task.error !== undefined) throw taskError(task, doing);
    return task;
  }

  /** Even a status is a task: ask, poll, read its resource. */
  async #status(path: string, doing: string, signal: AbortSignal): Promise<Wire | undefined> {
    const asked = toTask(await this.#get(path, doing, signal));
    const task = await this.settle(asked.id, { doing, limitSeconds: STATUS_PATIENCE_SECONDS }, signal);
    return task.resource;
  }

  async #get(path: string, what: string, signal: AbortSignal): Promise<Wire> {
    return (await this.#send('GET', path, { about: what, signal })).body;
  }

  async #headers(): Promise<Record<string, string>> {
    this.#keys ??= this.#readKeys();
    const { access, secret } = await this.#keys;
    return { 'x-api-key': access, 'x-api-secret-key': secret, 'content-type': 'application/json' };
  }

  async #readKeys(): Promise<{ access: string; secret: string }> {
    const { access_key, secret_key } = this.#credentials;
    const access = access_key
      ? await this.#runtime.secret(access_key)
      : this.#runtime.credential('REDISCLOUD_ACCESS_KEY');
    const secret = secret_key
      ? await this.#runtime.secret(secret_key)
      : this.#runtime.credential('REDISCLOUD_SECRET_KEY');
    if (!access || !secret) {
      const missing = [access ? [] : 'REDISCLOUD_ACCESS_KEY', secret ? [] : 'REDISCLOUD_SECRET_KEY'].flat();
      // The next call looks again: the variable may have been set meanwhile.
      this.#keys = undefined;
      throw new HoldfastError(
        'AUTHENTICATION_FAILED',
        `${missing.join(' and ')} ${missing.length > 1 ? 'are' : 'is'} not set`,
        {
          hint: 'Set the variables, or access_key and secret_key of the entity. An MCP client hands down only variables that are named in the `env` of its configuration.',
        },
      );
    }
    return { access, secret };
  }
}

function subscriptionPath(tier: Tier, id: number): string {
  return tier === 'essentials' ? `/v1/fixed/subscriptions/${segment(id)}` : `/v1/subscriptions/${segment(id)}`;
}

function databasePath({ tier, subscription, database }: Address): string {
  return `${subscriptionPath(tier, subscription)}/databases/${segment(database)}`;
}

function segment(value: string | number): string {
  if (typeof value === 'number' && (!Number.isInteger(value) || value < 1 || value > 0x7fffffff)) {
    throw new HoldfastError('INVALID_PARAMETER', `${value} is not an id of Redis Cloud`);
  }
  return encodeURIComponent(value);
}

/** Tells whether a subscription of Essentials may have backups: a property of its plan. */
export function supportsBackups(subscription: Wire): boolean | undefined {
  const declared = subscription['supportInstantAndDailyBackups'];
  return typeof declared === 'boolean' ? declared : numberOf(subscription['price']) === 0 ? false : undefined;
}
