import { type ErrorCode, HoldfastError } from '../../core/errors.ts';
import type { JobStatus, RecoveryPoint, RestoreJob } from '../../core/schemas.ts';
import { cleanText, identifierText } from '../../core/text.ts';
import { booleanOf, instantOf, known, listOf, numberOf, textOf, type Wire } from '../../core/wire.ts';
import { outcomeOf, type RestRefusal } from '../rest.ts';

/** A cluster as the service tells it, its credentials left out. Text is as sent: some of it goes back in a create call. */
export interface Cluster {
  readonly id: string;
  readonly name: string;
  readonly engine: string;
  readonly version: string | undefined;
  readonly semantic_version: string | undefined;
  readonly status: string;
  readonly num_nodes: number | undefined;
  readonly size: string | undefined;
  readonly region: string | undefined;
  readonly storage_size_mib: number | undefined;
  readonly created_at: string | undefined;
  readonly end_of_life: string | undefined;
  readonly end_of_availability: string | undefined;
  readonly tags: readonly string[];
  readonly project_id: string | undefined;
  readonly private_network_uuid: string | undefined;
  readonly host: string | undefined;
  readonly port: number | undefined;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkName(name: string): string {
  if (NAME.test(name)) return name;
  throw new HoldfastError('INVALID_PARAMETER', `new_cluster_name '${cleanText(name, 60)}' is not a cluster name`, {
    hint: 'Use letters, digits and hyphens, a letter or digit first.',
  });
}

/** @throws {HoldfastError} INVALID_PARAMETER */
export function checkId(id: string, parameter: string): string {
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id)) return id.toLowerCase();
  throw new HoldfastError('INVALID_PARAMETER', `${parameter} '${cleanText(id, 60)}' is not the id of a cluster`, {
    hint: 'Cluster ids are UUIDs. restore answers with the id of the cluster that it made.',
  });
}

/** @see DigitalOcean API v2, databases_get_cluster (2026-08-07) */
export function toCluster(wire: Wire): Cluster {
  const connection = (wire['connection'] ?? {}) as Wire;
  return {
    id: textOf(wire['id']) ?? '',
    name: textOf(wire['name']) ?? '',
    engine: textOf(wire['engine']) ?? 'unknown',
    version: textOf(wire['version']),
    semantic_version: textOf(wire['semantic_version']),
    status: textOf(wire['status']) ?? 'unknown',
    num_nodes: numberOf(wire['num_nodes']),
    size: textOf(wire['size']),
    region: textOf(wire['region']),
    storage_size_mib: numberOf(wire['storage_size_mib']),
    created_at: instantOf(wire['created_at']),
    end_of_life: instantOf(wire['version_end_of_life']),
    end_of_availability: instantOf(wire['version_end_of_availability']),
    tags: Array.isArray(wire['tags']) ? wire['tags'].filter((tag): tag is string => typeof tag === 'string') : [],
    project_id: textOf(wire['project_id']),
    private_network_uuid: textOf(wire['private_network_uuid']),
    host: textOf(connection['host']),
    port: numberOf(connection['port']),
  };
}

// --- engines -------------------------------------------------------------------------------------------------------

/** What an engine has. `try`: nobody documents it; the provider's own answer counts. */
export interface Support {
  readonly backups: 'yes' | 'no' | 'try';
  /** `guide`: the vendor's guides describe it, its API does not. */
  readonly point_in_time: 'guide' | 'no' | 'try';
  readonly has_config: boolean;
  readonly why?: string;
}

const NO_BACKUPS = 'has no backups at DigitalOcean';
const ENGINES: Record<string, Support> = {
  pg: { backups: 'yes', point_in_time: 'guide', has_config: true },
  mysql: { backups: 'yes', point_in_time: 'guide', has_config: true },
  mongodb: { backups: 'yes', point_in_time: 'no', has_config: false },
  valkey: { backups: 'no', point_in_time: 'no', has_config: false, why: `Valkey ${NO_BACKUPS}` },
  redis: { backups: 'no', point_in_time: 'no', has_config: false, why: `Caching ${NO_BACKUPS}` },
  kafka: { backups: 'no', point_in_time: 'no', has_config: false, why: `Kafka ${NO_BACKUPS}` },
  opensearch: {
    backups: 'no',
    point_in_time: 'no',
    has_config: false,
    why: 'no backup or restore of OpenSearch is documented at DigitalOcean',
  },
};
// Previews, and whatever comes after this release.
const UNKNOWN_ENGINE: Support = { backups: 'try', point_in_time: 'try', has_config: false };

/** Says what is known of an engine; one that this release does not know is tried. */
export function supportOf(engine: string): Support {
  return ENGINES[engine] ?? UNKNOWN_ENGINE;
}

/** @throws {HoldfastError} NOT_SUPPORTED for an engine without backups */
export function assertHasBackups(cluster: Cluster): void {
  const { backups, why } = supportOf(cluster.engine);
  if (backups !== 'no') return;
  throw new HoldfastError('NOT_SUPPORTED', String(why), {
    hint: 'Copy its data by the means of the engine itself.',
    details: { engine: cleanText(cluster.engine, 40) },
  });
}

// --- backups -------------------------------------------------------------------------------------------------------

export interface Backup {
  /** As listed; a create call gets it byte for byte. */
  readonly listed: string;
  readonly at: Date;
  readonly size_bytes: number | undefined;
  readonly incremental: boolean | undefined;
}

export interface Backups {
  /** Newest first. */
  readonly all: readonly Backup[];
  /** `03:20 UTC, every 24 h` */
  readonly schedule: string | undefined;
  readonly interval_hours: number | undefined;
  readonly hour: number | undefined;
  readonly minute: number | undefined;
  /** Percent of the backup that is being taken. */
  readonly progress: number | undefined;
}

/** @see DigitalOcean API v2, databases_list_backups (2026-08-07) */
export function toBackups(wire: Wire): Backups {
  const all = listOf(wire['backups']).flatMap((one): Backup[] => {
    const listed = textOf(one['created_at']);
    const at = new Date(listed ?? '');
    if (listed === undefined || Number.isNaN(at.getTime())) return [];
    const gigabytes = numberOf(one['size_gigabytes']);
    const size_bytes = gigabytes === undefined ? undefined : Math.round(gigabytes * 1e9);
    return [{ listed, at, size_bytes, incremental: booleanOf(one['incremental']) }];
  });
  const times = (wire['scheduled_backup_time'] ?? {}) as Wire;
  const hour = numberOf(times['backup_hour']);
  const minute = numberOf(times['backup_minute']);
  const interval = numberOf(times['backup_interval_hours']);
  const progress = Number(wire['backup_progress'] ?? Number.NaN);
  return {
    all: all.sort((a, b) => b.at.getTime() - a.at.getTime()),
    schedule:
      hour === undefined
        ? undefined
        : `${clock(hour, minute ?? 0)} UTC${interval === undefined ? '' : `, every ${interval} h`}`,
    interval_hours: interval,
    hour,
    minute,
    progress: Number.isFinite(progress) ? progress : undefined,
  };
}

/** `03:20` */
export function clock(hour: number, minute: number): string {
  return `${String(hour).padStart(2, '0')}:${String(minute).padStart(2, '0')}`;
}

/** Makes a recovery point of a backup; its moment is its only name. */
export function toPoint(backup: Backup): RecoveryPoint {
  return {
    id: cleanText(backup.listed, 40),
    kind: 'automated',
    status: 'available',
    created_at: backup.at.toISOString(),
    ...(backup.size_bytes === undefined ? {} : { size_bytes: backup.size_bytes }),
    restorable: true,
    ...(backup.incremental === undefined ? {} : { provider: { incremental: backup.incremental } }),
  };
}

export interface FirewallRule {
  readonly type: string;
  readonly value: string;
  readonly description?: string;
}

/** The trusted sources of a cluster, as a create call takes them. */
export function toRules(wire: Wire): FirewallRule[] {
  return listOf(wire['rules']).flatMap((rule) => {
    const [type, value, description] = [textOf(rule['type']), textOf(rule['value']), textOf(rule['description'])];
    if (type === undefined || value === undefined) return [];
    return [{ type, value, ...(description === undefined ? {} : { description }) }];
  });
}

/** What can be created: regions, versions, and sizes by number of nodes. */
export interface EngineOptions {
  readonly regions: readonly string[];
  readonly versions: readonly string[];
  sizes(nodes: number): readonly string[] | undefined;
}

/** Reads the options of one engine; undefined where the service names none. */
export function toOptions(wire: Wire, engine: string): EngineOptions | undefined {
  const own = ((wire['options'] ?? {}) as Wire)[engine] as Wire | undefined;
  if (own === undefined) return undefined;
  const texts = (value: unknown): string[] =>
    Array.isArray(value) ? value.filter((one): one is string => typeof one === 'string') : [];
  const layouts = listOf(own['layouts']);
  return {
    regions: texts(own['regions']),
    versions: texts(own['versions']),
    sizes: (nodes) => {
      const layout = layouts.find((one) => one['num_nodes'] === nodes);
      return layout === undefined ? undefined : texts(layout['sizes']);
    },
  };
}

// --- restored clusters ---------------------------------------------------------------------------------------------

const STATES: Record<string, JobStatus> = {
  creating: 'running',
  forking: 'running',
  resizing: 'running',
  migrating: 'running',
  online: 'succeeded',
};

/** The state of a restore as the cluster that it makes shows it; DigitalOcean has no word for one that failed. */
export function restoreState(cluster: Cluster): JobStatus {
  return STATES[cluster.status] ?? 'unknown';
}

/** Makes a restore job of the cluster that a restore made. */
export function toJob(cluster: Cluster): RestoreJob {
  const status = restoreState(cluster);
  return {
    job_id: cluster.id,
    status,
    target: cleanText(cluster.name, 100),
    ...(cluster.created_at === undefined ? {} : { started_at: cluster.created_at }),
    usable: status === 'succeeded',
    provider: known({
      cluster_id: cluster.id,
      cluster_status: cleanText(cluster.status, 40),
      engine: cleanText(cluster.engine, 40),
      region: cleanText(cluster.region, 40),
      size: cleanText(cluster.size, 60),
      host: cluster.host === undefined ? undefined : cleanText(cluster.host, 200),
      port: cluster.port,
    }),
  };
}

// --- errors --------------------------------------------------------------------------------------------------------

/** What a call is about: its own words, and the token scope that it needs. */
export interface About {
  readonly what: string;
  readonly scope: string;
}

function codeFor(status: number, message: string): ErrorCode {
  if (status === 401) return 'AUTHENTICATION_FAILED';
  if (status === 404) return 'RESOURCE_NOT_FOUND';
  if (status === 429) return 'RATE_LIMITED';
  if (status === 408 || status >= 500) return 'PROVIDER_UNAVAILABLE';
  // The reasons have no codes of their own: the sentence is all there is to tell them apart.
  const isLimit = /\b(limit|quota|exceed)/i.test(message);
  if (status === 403) return isLimit ? 'QUOTA_EXCEEDED' : 'INSUFFICIENT_PERMISSIONS';
  if (status === 409) return 'RESOURCE_EXISTS';
  if (status === 412) return 'INVALID_STATE';
  if (isLimit) return 'QUOTA_EXCEEDED';
  if (/\bname\b.*\b(in use|taken|exists?|unique)\b|already exists/i.test(message)) return 'RESOURCE_EXISTS';
  if (/backup|restore point/i.test(message)) return 'BACKUP_NOT_FOUND';
  return 'INVALID_PARAMETER';
}

/** Makes the error for an answer that refuses; the provider's sentence decides between codes and goes no further. */
export function refusalError({ status, body, headers, about, writes }: RestRefusal<About>): HoldfastError {
  const code = codeFor(status, textOf(body['message']) ?? '');
  const given = textOf(body['id']);
  const reset = Number(headers.get('retry-after') ?? Number.NaN);
  const hints: Partial<Record<ErrorCode, string>> = {
    AUTHENTICATION_FAILED: 'Check the token of this entity, or DIGITALOCEAN_TOKEN; it may have expired.',
    INSUFFICIENT_PERMISSIONS: `Give the token the scope ${about.scope}.`,
    QUOTA_EXCEEDED: 'The account may have ten clusters at first. Remove one that nobody needs, or ask for more.',
    BACKUP_NOT_FOUND: 'Call list-snapshots and use a backup from there.',
  };
  const details = {
    ...outcomeOf(status, writes),
    ...(status === 429 && Number.isFinite(reset) ? { retry_after_seconds: reset } : {}),
  };
  return new HoldfastError(code, `DigitalOcean answered ${status} to ${about.what}`, {
    hint: hints[code],
    provider: known({
      status,
      code: given !== undefined && /^[a-z][a-z0-9_]{1,60}$/.test(given) ? given : undefined,
      request_id: identifierText(textOf(body['request_id']) ?? headers.get('x-request-id')),
    }),
    details: Object.keys(details).length > 0 ? details : undefined,
  });
}
