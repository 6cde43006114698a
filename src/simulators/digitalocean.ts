import { randomUUID } from 'node:crypto';
import { isObject, type JsonObject } from '../core/json.ts';
import type { Simulator, SimulatorOptions, SimulatorRequest, SimulatorResponse } from './simulator.ts';

/** Tables and their row counts, by database: enough to see which moment a cluster holds. */
export type DigitalOceanContent = Record<string, Record<string, number>>;

export interface SimulatedBackup {
  at: number;
  gigabytes: number;
  incremental?: boolean;
}

export interface SimulatedCluster {
  id: string;
  name: string;
  engine: string;
  version: string;
  semanticVersion: string;
  nodes: number;
  size: string;
  region: string;
  storageMib: number;
  createdAt: number;
  /** When it is online; before that it is being made. */
  onlineAt: number;
  /** A word in place of the status that the clock gives. */
  status: string | undefined;
  tags: string[];
  network: string;
  projectId: string;
  rules: { uuid: string; type: string; value: string; description?: string }[];
  config: JsonObject;
  endOfLife: string | undefined;
  endOfAvailability: string | undefined;
  backupHour: number;
  backupMinute: number;
  /** The first of its daily backups; undefined for none. They come with time, and stay seven days. */
  firstBackupAt: number | undefined;
  /** Backups beside the daily ones. */
  moreBackups: SimulatedBackup[];
  /** Percent, while a backup is being taken. */
  backupProgress: string | undefined;
  /** What it holds since a moment, oldest first. */
  history: { at: number; content: DigitalOceanContent }[];
}

/** What tests set up and look at. */
export interface DigitalOceanState {
  readonly clusters: SimulatedCluster[];
  /** Refuses every token. */
  unauthenticated: boolean;
  /** `METHOD part-of-path` to what is answered there. */
  readonly refusals: Map<string, { status: number; id: string; message: string }>;
  /** Clusters that the account may have. */
  limit: number;
  /** Clusters in one page; none are cut off when undefined. */
  pageSize: number | undefined;
  /** Another address in links to the next page. */
  linkOrigin: string | undefined;
  /** Whether the token may see credentials. */
  credentials: boolean;
  /** Whether a new cluster gets the trusted sources of its create call. */
  takesRules: boolean;
  /** Milliseconds that a new cluster answers 404. */
  hiddenMs: number;
  /** Milliseconds until a restored cluster is online. */
  restoreMs: number;
  cluster(name: string): SimulatedCluster;
  content(name: string): DigitalOceanContent;
  backups(name: string): SimulatedBackup[];
}

export interface DigitalOceanSimulator extends Simulator {
  readonly state: DigitalOceanState;
}

export const DIGITALOCEAN_SANDBOX = {
  cluster: '9cc10173-e9ea-4176-9dbc-a4cee4c4ff30',
  drill: '3b1d7f52-0c64-4f7e-9d0a-6f2f0b8a4c11',
} as const;

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const CACHING = ['valkey', 'redis'];
const POINT_IN_TIME = ['pg', 'mysql'];
const WEEK = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'];
const SIZES = ['db-s-1vcpu-1gb', 'db-s-1vcpu-2gb', 'db-s-2vcpu-4gb', 'db-s-4vcpu-8gb'];
const STORAGE: Record<string, number> = {
  'db-s-1vcpu-1gb': 10_240,
  'db-s-1vcpu-2gb': 30_720,
  'db-s-2vcpu-4gb': 61_440,
  'db-s-4vcpu-8gb': 117_760,
};
const REGIONS = ['ams3', 'fra1', 'nyc1', 'nyc3', 'sfo3'];
const VERSIONS: Record<string, string[]> = {
  pg: ['14', '15', '16', '17'],
  mysql: ['8'],
  mongodb: ['6.0', '7.0'],
  valkey: ['8'],
  kafka: ['3.8'],
  opensearch: ['2.19'],
};
const CREATE_FIELDS = [
  'name',
  'engine',
  'version',
  'num_nodes',
  'size',
  'region',
  'storage_size_mib',
  'private_network_uuid',
  'project_id',
  'tags',
  'rules',
  'autoscale',
  'do_settings',
  'backup_restore',
];

class Refused extends Error {
  readonly response: SimulatorResponse;
  constructor(status: number, id: string, message: string) {
    super(message);
    this.response = { status, body: { id, message, request_id: randomUUID() } };
  }
}

const unprocessable = (message: string): Refused => new Refused(422, 'unprocessable_entity', message);

/** Stands in for the DigitalOcean API v2 as far as managed databases and their backups go. */
export function digitaloceanSimulator({ clock }: SimulatorOptions): DigitalOceanSimulator {
  const now = (): number => clock.now().getTime();
  const iso = (at: number): string => new Date(at).toISOString().replace(/\.\d{3}Z$/, 'Z');

  const backupsOf = (cluster: SimulatedCluster): SimulatedBackup[] => {
    if (CACHING.includes(cluster.engine) || cluster.engine === 'kafka') return [];
    const daily: SimulatedBackup[] = [];
    for (let at = cluster.firstBackupAt ?? Number.POSITIVE_INFINITY; at <= now(); at += DAY) {
      const how = cluster.config['mysql_incremental_backup'];
      const incremental = cluster.engine === 'mysql' && isObject(how) && how['enabled'] === true;
      const day = Math.round((at - (cluster.firstBackupAt ?? 0)) / DAY);
      daily.push({ at, gigabytes: 0.42 + day / 100, ...(incremental ? { incremental: day % 3 !== 0 } : {}) });
    }
    return [...daily, ...cluster.moreBackups]
      .filter(({ at }) => at <= now() && at > now() - 7 * DAY)
      .sort((a, b) => a.at - b.at);
  };

  const contentAt = (cluster: SimulatedCluster, at: number): DigitalOceanContent =>
    structuredClone(cluster.history.findLast((entry) => entry.at <= at)?.content ?? {});

  const clusters = sampleFleet(now());
  const named = (name: string): SimulatedCluster => {
    const found = clusters.find((cluster) => cluster.name === name);
    if (found === undefined) throw new Error(`no simulated cluster ${name}`);
    return found;
  };
  const state: DigitalOceanState = {
    clusters,
    unauthenticated: false,
    refusals: new Map(),
    limit: 10,
    pageSize: undefined,
    linkOrigin: undefined,
    credentials: true,
    takesRules: true,
    hiddenMs: 0,
    restoreMs: 3000,
    cluster: named,
    content: (name) => contentAt(named(name), now()),
    backups: (name) => backupsOf(named(name)),
  };

  const statusOf = (cluster: SimulatedCluster): string =>
    cluster.status ?? (now() < cluster.onlineAt ? 'forking' : 'online');

  const show = (cluster: SimulatedCluster): object => {
    const secret = state.credentials ? `do-sim-${cluster.name}-password` : '';
    const connection = (host: string): object => ({
      uri: secret === '' ? '' : `postgres://doadmin:${secret}@${host}:25060/defaultdb?sslmode=require`,
      database: 'defaultdb',
      host,
      port: 25_060,
      user: 'doadmin',
      password: secret,
      ssl: true,
    });
    const host = `${cluster.name}-do-user-19081923-0.db.ondigitalocean.com`;
    return {
      id: cluster.id,
      name: cluster.name,
      engine: cluster.engine,
      version: cluster.version,
      semantic_version: cluster.semanticVersion,
      num_nodes: cluster.nodes,
      size: cluster.size,
      region: cluster.region,
      status: statusOf(cluster),
      created_at: iso(cluster.createdAt),
      private_network_uuid: cluster.network,
      tags: cluster.tags.length === 0 ? null : cluster.tags,
      db_names: Object.keys(contentAt(cluster, now())),
      connection: connection(host),
      private_connection: connection(`private-${host}`),
      users: [{ name: 'doadmin', role: 'primary', password: secret }],
      maintenance_window: { day: 'saturday', hour: '08:45:12', pending: false },
      project_id: cluster.projectId,
      storage_size_mib: cluster.storageMib,
      ...(cluster.endOfLife === undefined ? {} : { version_end_of_life: cluster.endOfLife }),
      ...(cluster.endOfAvailability === undefined ? {} : { version_end_of_availability: cluster.endOfAvailability }),
    };
  };

  /** The moment of the data that a create call asks for. */
  const restorePoint = (source: SimulatedCluster, given: unknown): number => {
    const backups = backupsOf(source);
    const newest = backups.at(-1);
    if (newest === undefined) throw unprocessable('no backup available for this cluster');
    if (given === undefined) return newest.at;
    const at = typeof given === 'string' ? Date.parse(given) : Number.NaN;
    if (Number.isNaN(at)) throw new Refused(400, 'bad_request', 'backup_created_at is not a valid timestamp');
    if (backups.some((backup) => backup.at === at)) return at;
    const inWindow = at >= (backups[0]?.at ?? 0) && at <= now();
    if (inWindow && POINT_IN_TIME.includes(source.engine)) return at;
    throw unprocessable('the requested backup does not exist');
  };

  const create = (body: unknown): SimulatorResponse => {
    if (!isObject(body)) throw new Refused(400, 'bad_request', 'the body is not a JSON object');
    const stranger = Object.keys(body).find((name) => !CREATE_FIELDS.includes(name));
    if (stranger !== undefined) throw new Refused(400, 'bad_request', `unknown field ${stranger}`);
    const { name, engine, num_nodes: nodes, size, region, backup_restore: restore } = body;
    for (const [field, value] of Object.entries({ name, engine, size, region })) {
      if (typeof value !== 'string' || value === '') throw unprocessable(`${field} is required`);
    }
    if (typeof nodes !== 'number') throw unprocessable('num_nodes is required');
    if (clusters.some((cluster) => cluster.name === name)) throw unprocessable('cluster name is already in use');
    if (clusters.length >= state.limit) throw unprocessable('this would exceed your database limit');
    if (!REGIONS.includes(String(region))) throw unprocessable('invalid region');
    if (!sizesFor(nodes).includes(String(size))) throw unprocessable('invalid size for this number of nodes');
    const source = isObject(restore)
      ? clusters.find((cluster) => cluster.name === restore['database_name'])
      : undefined;
    if (restore !== undefined && source === undefined) throw unprocessable('backup source does not exist');
    if (source !== undefined && (CACHING.includes(source.engine) || source.engine === 'kafka')) {
      throw unprocessable('backup restore is not supported for this engine');
    }
    if (source !== undefined && (source.engine !== engine || Number(body['storage_size_mib']) < source.storageMib)) {
      throw unprocessable('the cluster does not fit its source');
    }
    const version = String(body['version'] ?? VERSIONS[String(engine)]?.at(-1));
    if (source !== undefined && source.version !== version) throw unprocessable('version does not fit the source');
    const at = source === undefined ? now() : restorePoint(source, (restore as JsonObject)['backup_created_at']);
    const rules = state.takesRules && Array.isArray(body['rules']) ? body['rules'].filter(isObject) : [];
    const made: SimulatedCluster = {
      id: randomUUID(),
      name: String(name),
      engine: String(engine),
      version,
      semanticVersion: source?.semanticVersion ?? version,
      nodes,
      size: String(size),
      region: String(region),
      storageMib: Number(body['storage_size_mib'] ?? STORAGE[String(size)]),
      createdAt: now(),
      onlineAt: now() + state.restoreMs,
      status: undefined,
      tags: Array.isArray(body['tags']) ? body['tags'].map(String) : [],
      network: String(body['private_network_uuid'] ?? randomUUID()),
      projectId: String(body['project_id'] ?? clusters[0]?.projectId),
      rules: rules.map((rule) => ({
        uuid: randomUUID(),
        type: String(rule['type']),
        value: String(rule['value']),
        ...(rule['description'] === undefined ? {} : { description: String(rule['description']) }),
      })),
      config: {},
      endOfLife: source?.endOfLife,
      endOfAvailability: source?.endOfAvailability,
      backupHour: source?.backupHour ?? 3,
      backupMinute: source?.backupMinute ?? 20,
      firstBackupAt: now() + DAY,
      moreBackups: [],
      backupProgress: undefined,
      history: [{ at: now(), content: source === undefined ? {} : contentAt(source, at) }],
    };
    clusters.push(made);
    return { status: 201, body: { database: show(made) } };
  };

  const list = ({ url }: SimulatorRequest): SimulatorResponse => {
    const tag = url.searchParams.get('tag_name');
    const all = clusters.filter(({ tags }) => tag === null || tags.includes(tag)).map(show);
    if (state.pageSize === undefined) return { status: 200, body: { databases: all } };
    const page = Number(url.searchParams.get('page') ?? 1);
    const end = page * state.pageSize;
    const next = `${state.linkOrigin ?? url.origin}/v2/databases?page=${page + 1}`;
    return {
      status: 200,
      body: {
        databases: all.slice(end - state.pageSize, end),
        links: end < all.length ? { pages: { next } } : {},
        meta: { total: all.length },
      },
    };
  };

  const ofCluster = (id: string, part: string | undefined): SimulatorResponse => {
    if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id)) throw new Refused(400, 'bad_request', 'invalid uuid');
    const cluster = clusters.find((candidate) => candidate.id === id);
    if (cluster === undefined || (now() < cluster.onlineAt && now() < cluster.createdAt + state.hiddenMs)) {
      throw new Refused(404, 'not_found', 'cluster not found');
    }
    if (part === undefined) return { status: 200, body: { database: show(cluster) } };
    if (part === 'backups') {
      if (CACHING.includes(cluster.engine)) throw unprocessable('backups are not supported for Caching or Valkey');
      return {
        status: 200,
        body: {
          backups: backupsOf(cluster).map(({ at, gigabytes, incremental }) => ({
            created_at: iso(at),
            size_gigabytes: gigabytes,
            ...(incremental === undefined ? {} : { incremental }),
          })),
          scheduled_backup_time: {
            backup_hour: cluster.backupHour,
            backup_minute: cluster.backupMinute,
            backup_interval_hours: 24,
          },
          ...(cluster.backupProgress === undefined ? {} : { backup_progress: cluster.backupProgress }),
        },
      };
    }
    if (part === 'firewall') {
      return {
        status: 200,
        body: {
          rules: cluster.rules.map((rule) => ({ ...rule, cluster_uuid: id, created_at: iso(cluster.createdAt) })),
        },
      };
    }
    if (part === 'config') {
      return {
        status: 200,
        body: { config: { backup_hour: cluster.backupHour, backup_minute: cluster.backupMinute, ...cluster.config } },
      };
    }
    throw new Refused(404, 'not_found', 'the resource you requested could not be found');
  };

  const configure = (id: string, body: unknown): SimulatorResponse => {
    const cluster = clusters.find((candidate) => candidate.id === id);
    if (cluster === undefined) throw new Refused(404, 'not_found', 'cluster not found');
    const config = isObject(body) && isObject(body['config']) ? body['config'] : undefined;
    if (config === undefined) throw new Refused(400, 'bad_request', 'config is required');
    if (!POINT_IN_TIME.includes(cluster.engine)) throw unprocessable('this engine has no such configuration');
    if (statusOf(cluster) !== 'online') throw new Refused(409, 'conflict', 'the cluster is not online');
    const { backup_hour: hour, backup_minute: minute, mysql_incremental_backup: incremental, ...others } = config;
    if (Object.keys(others).length > 0) throw unprocessable('this simulator configures backups only');
    const isIn = (value: unknown, most: number): value is number | undefined =>
      value === undefined || (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= most);
    if (!isIn(hour, 23) || !isIn(minute, 59)) throw unprocessable('the time of the backup is out of range');
    if (incremental !== undefined) {
      if (cluster.engine !== 'mysql' || !isObject(incremental))
        throw unprocessable('only MySQL has incremental backups');
      const days = String(incremental['full_backup_week_schedule'] ?? '').split(',');
      if (incremental['enabled'] === true && !days.every((day) => WEEK.includes(day))) {
        throw unprocessable('full_backup_week_schedule is required');
      }
      cluster.config['mysql_incremental_backup'] = structuredClone(incremental) as JsonObject;
    }
    if (hour !== undefined || minute !== undefined) {
      // Those that were taken stay; the next one is taken at the new time.
      cluster.moreBackups = backupsOf(cluster);
      cluster.backupHour = hour ?? cluster.backupHour;
      cluster.backupMinute = minute ?? cluster.backupMinute;
      const next = new Date(now()).setUTCHours(cluster.backupHour, cluster.backupMinute, 0, 0);
      cluster.firstBackupAt = next > now() ? next : next + DAY;
    }
    return { status: 200 };
  };

  const route = (request: SimulatorRequest): SimulatorResponse => {
    const call = `${request.method} ${request.url.pathname}`;
    for (const [where, { status, id, message }] of state.refusals) {
      const [method = '', part = ''] = where.split(' ');
      if (method === request.method && request.url.pathname.includes(part)) throw new Refused(status, id, message);
    }
    if (call === 'GET /v2/databases') return list(request);
    if (call === 'POST /v2/databases') return create(request.json);
    if (call === 'GET /v2/databases/options') return { status: 200, body: { options: options() } };
    const [, id, part, rest] = /^\/v2\/databases\/([^/]+)(?:\/([^/]+)(\/.*)?)?$/.exec(request.url.pathname) ?? [];
    if (id !== undefined && part === 'config' && rest === undefined && request.method === 'PATCH') {
      return configure(id, request.json);
    }
    if (id !== undefined && rest === undefined && request.method === 'GET') return ofCluster(id, part);
    throw new Refused(404, 'not_found', 'the resource you requested could not be found');
  };

  return {
    provider: 'digitalocean',
    state,
    matches: ({ url }) => /^\/v2\/databases(\/|$)/.test(url.pathname),
    handle(request) {
      try {
        if (!/^Bearer \S+$/.test(request.headers['authorization'] ?? '') || state.unauthenticated) {
          throw new Refused(401, 'unauthorized', 'Unable to authenticate you');
        }
        if (request.text !== '' && !(request.headers['content-type'] ?? '').startsWith('application/json')) {
          throw new Refused(415, 'unsupported_media_type', 'send application/json');
        }
        return route(request);
      } catch (cause) {
        if (cause instanceof Refused) return cause.response;
        throw cause;
      }
    },
  };
}

function sizesFor(nodes: number): string[] {
  return nodes === 1 ? SIZES : nodes === 2 || nodes === 3 ? SIZES.slice(1) : [];
}

function options(): object {
  return Object.fromEntries(
    Object.entries(VERSIONS).map(([engine, versions]) => [
      engine,
      {
        regions: REGIONS,
        versions,
        layouts: [1, 2, 3].map((nodes) => ({ num_nodes: nodes, sizes: sizesFor(nodes) })),
      },
    ]),
  );
}

function sampleFleet(now: number): SimulatedCluster[] {
  const network = 'd455e75d-4858-4eec-8c95-da2f0a5f93a7';
  const cluster = (
    given: Pick<SimulatedCluster, 'id' | 'name' | 'engine' | 'version' | 'history'> & Partial<SimulatedCluster>,
  ): SimulatedCluster => ({
    semanticVersion: `${given.version}.3`,
    nodes: 1,
    size: 'db-s-1vcpu-2gb',
    region: 'nyc3',
    storageMib: STORAGE[given.size ?? 'db-s-1vcpu-2gb'] ?? 30_720,
    createdAt: now - 200 * DAY,
    onlineAt: now - 200 * DAY,
    status: undefined,
    tags: [],
    network,
    projectId: '4e1bfbc3-dc3e-41f2-a18f-1b4d7ba71679',
    rules: [],
    config: {},
    endOfLife: undefined,
    endOfAvailability: undefined,
    backupHour: 3,
    backupMinute: 20,
    firstBackupAt: Math.floor((now - 6 * DAY - 5 * HOUR) / 1000) * 1000,
    moreBackups: [],
    backupProgress: undefined,
    ...given,
  });
  const orders: SimulatedCluster['history'] = [
    { at: now - 200 * DAY, content: { defaultdb: { orders: 11_200, customers: 800 } } },
    { at: now - 4 * DAY, content: { defaultdb: { orders: 12_000, customers: 850 } } },
    // Someone dropped the customers an hour ago.
    { at: now - HOUR, content: { defaultdb: { orders: 12_450 } } },
  ];
  return [
    cluster({
      id: DIGITALOCEAN_SANDBOX.cluster,
      name: 'orders',
      engine: 'pg',
      version: '16',
      nodes: 2,
      size: 'db-s-2vcpu-4gb',
      storageMib: 81_920,
      tags: ['production'],
      rules: [
        { uuid: '79f26d28-ea8a-41f2-8ad8-8cfcdd020095', type: 'k8s', value: 'ff2a6c52-5a44-4b63-b99c-0e98e7a63d61' },
        {
          uuid: 'adfe81a8-0fa1-4e2d-973f-06aa5af19b44',
          type: 'ip_addr',
          value: '192.0.2.10',
          description: 'the office',
        },
      ],
      history: orders,
    }),
    cluster({
      id: DIGITALOCEAN_SANDBOX.drill,
      name: 'orders-drill',
      engine: 'pg',
      version: '16',
      size: 'db-s-2vcpu-4gb',
      storageMib: 81_920,
      createdAt: now - DAY,
      onlineAt: now - DAY + 3000,
      firstBackupAt: now + HOUR,
      history: [{ at: now - DAY, content: { defaultdb: { orders: 12_000, customers: 850 } } }],
    }),
    cluster({
      id: 'a2f5c0de-6a4b-4a1e-8a65-2d9cbd0f4a02',
      name: 'catalog',
      engine: 'mysql',
      version: '8',
      config: { mysql_incremental_backup: { enabled: true, full_backup_week_schedule: 'mon,thu' } },
      history: [{ at: now - 200 * DAY, content: { defaultdb: { products: 4200 } } }],
    }),
    // Badly protected: no backup yet, open to every address, a version that is about to end.
    cluster({
      id: 'b7d1e9aa-1f0c-4d7b-9c3e-58a1d2c7e603',
      name: 'legacy-reports',
      engine: 'pg',
      version: '14',
      size: 'db-s-1vcpu-1gb',
      createdAt: now - 6 * HOUR,
      firstBackupAt: undefined,
      endOfLife: new Date(now + 20 * DAY).toISOString().replace(/\.\d{3}Z$/, 'Z'),
      endOfAvailability: new Date(now - 160 * DAY).toISOString().replace(/\.\d{3}Z$/, 'Z'),
      history: [{ at: now - 6 * HOUR, content: { defaultdb: { reports: 12 } } }],
    }),
    cluster({
      id: 'c3a9f4b8-77d2-4b95-b0c1-9e6f5d4c3b04',
      name: 'documents',
      engine: 'mongodb',
      version: '7.0',
      rules: [{ uuid: '11111111-2222-4333-8444-555555555555', type: 'ip_addr', value: '192.0.2.20' }],
      history: [{ at: now - 200 * DAY, content: { app: { documents: 900 } } }],
    }),
    cluster({
      id: 'd4b8e2c6-5f31-4c0d-a7e9-1b2c3d4e5f05',
      name: 'sessions',
      engine: 'valkey',
      version: '8',
      history: [{ at: now - 200 * DAY, content: { cache: { keys: 50 } } }],
    }),
    cluster({
      id: 'e5c7d3b1-4a20-4e9f-96d8-0a1b2c3d4e06',
      name: 'events',
      engine: 'kafka',
      version: '3.8',
      nodes: 3,
      history: [{ at: now - 200 * DAY, content: {} }],
    }),
  ];
}
