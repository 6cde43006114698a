import { isObject, type JsonObject } from '../../core/json.ts';
import type { Discovered, Discovery, DiscoveryContext } from '../../core/provider.ts';
import type { SecretRef } from '../../core/runtime.ts';
import { type Attempt, attempts, entityName } from '../discovery.ts';
import type { AtlasCredentials } from './auth.ts';
import { ATLAS_ORIGIN, AtlasClient, objectId } from './client.ts';
import { asDeclared, FREQUENCIES } from './declared.ts';
import { type AtlasSchedule, type Deployment, daysOf } from './map.ts';
import { scheduleOf } from './window.ts';

/** Any of them says that somebody has an account. */
const SIGNS = ['MONGODB_ATLAS_CLIENT_ID', 'MONGODB_ATLAS_PUBLIC_KEY'];

/**
 * Looks through the projects that the credential can see, or the one that is named; undefined without credentials.
 * @throws {HoldfastError} AUTHENTICATION_FAILED where Atlas does not take the credential
 */
export async function discover({
  access,
  endpoint,
  runtime,
  signal,
}: DiscoveryContext): Promise<Discovery | undefined> {
  const credentials = credentialsIn(access);
  const names = Object.values(credentials).some((value) => value !== undefined);
  if (!names && !SIGNS.some((name) => runtime.credential(name))) return undefined;
  const only = typeof access['project_id'] === 'string' ? objectId(access['project_id'], 'project_id') : undefined;
  const base = (endpoint ?? ATLAS_ORIGIN).replace(/\/+$/, '');
  const client = new AtlasClient({ ...credentials, base, project: only ?? '', cluster: '' }, runtime);
  const problems: string[] = [];
  const attempt = attempts(problems);
  const projects =
    only === undefined
      ? ((await attempt(() => client.projects(signal), 'the projects are not shown')) ?? [])
      : [{ id: only, name: only }];
  const found: Discovered[] = [];
  for (const { id, name } of projects) found.push(...(await lookInto(client, { id, name }, attempt, signal)));
  const looked = only === undefined ? `${projects.length} projects of MongoDB Atlas` : `MongoDB Atlas, project ${only}`;
  return { looked, found, problems };
}

function credentialsIn(access: Readonly<Record<string, unknown>>): AtlasCredentials {
  const secret = (name: string): SecretRef | undefined => {
    const value = access[name];
    return isObject(value) && 'secret' in value ? (value as unknown as SecretRef) : undefined;
  };
  const id = (name: string): SecretRef | string | undefined => {
    const value = access[name];
    return typeof value === 'string' ? value : secret(name);
  };
  return {
    client_id: id('client_id'),
    client_secret: secret('client_secret'),
    secret_ref: secret('secret_ref'),
    public_key: id('public_key'),
    private_key: secret('private_key'),
  };
}

async function lookInto(
  client: AtlasClient,
  { id, name }: { readonly id: string; readonly name: string },
  attempt: Attempt,
  signal: AbortSignal,
): Promise<Discovered[]> {
  const without = `clusters of the project '${name}' are not shown`;
  const dedicated = (await attempt(() => client.clusters(id, signal), without)) ?? [];
  const flex = (await attempt(() => client.flexClusters(id, signal), `Flex ${without}`)) ?? [];
  const shown: Discovered[] = [];
  // A Flex cluster may be in both lists.
  const others = dedicated.filter(({ cluster }) => !flex.some((one) => one.cluster === cluster));
  for (const deployment of [...others, ...flex]) {
    const hasSchedule = deployment.kind === 'dedicated' && deployment.backups;
    const schedule = hasSchedule
      ? await attempt(
          () => scheduleOf(client, deployment, signal),
          `the backup schedule of '${deployment.cluster}' is not shown`,
        )
      : undefined;
    shown.push(toDiscovered(deployment, schedule, hasSchedule));
  }
  return shown;
}

function toDiscovered(deployment: Deployment, schedule: AtlasSchedule | undefined, hasSchedule: boolean): Discovered {
  const { kind, backups, pitr, tier, deletion_protection: isProtected } = deployment;
  return {
    defines: 'mongodb-atlas/cluster',
    name: entityName(deployment.cluster),
    parameters: {
      name: deployment.cluster,
      project_id: deployment.project,
      ...(tier === 'unknown' ? {} : { instance_size: tier }),
      backup_enabled: backups,
      pit_enabled: pitr,
      ...(isProtected === null ? {} : { termination_protection_enabled: isProtected }),
      ...(schedule === undefined ? {} : { backup_schedule: scheduleParameters(schedule, pitr) }),
    },
    notes: [
      ...(kind === 'free' ? ['A free cluster: it has no backups.'] : []),
      ...(kind === 'flex' ? ['A Flex cluster: one snapshot a day, the last 8 kept; nothing of it can be set.'] : []),
      ...(kind === 'dedicated' && !backups ? ['Cloud backup is off: there is nothing to restore.'] : []),
      ...(kind === 'dedicated' && backups && !pitr ? ['Point-in-time restore is off: only snapshots are left.'] : []),
      ...(hasSchedule && schedule !== undefined && schedule.items.length === 0
        ? ['The backup schedule has no policy: no snapshots are taken by themselves.']
        : []),
      ...(hasSchedule && schedule === undefined ? ['Its backup schedule could not be read.'] : []),
      ...(isProtected === false ? ['Termination protection is off.'] : []),
      ...(deployment.paused ? ['It is paused: no backups are taken.'] : []),
    ],
  };
}

function scheduleParameters({ hour, minute, window_days, items }: AtlasSchedule, pitr: boolean): JsonObject {
  return {
    ...(hour === undefined ? {} : { reference_hour_of_day: hour }),
    ...(minute === undefined ? {} : { reference_minute_of_hour: minute }),
    ...(pitr && window_days !== undefined ? { restore_window_days: window_days } : {}),
    ...Object.fromEntries(
      FREQUENCIES.flatMap((type) => {
        const own = items.filter((item) => item.type === type);
        // What cannot be declared is left out.
        return own.length === 0 || own.some((item) => Number.isNaN(daysOf(item))) ? [] : [[type, asDeclared(own)]];
      }),
    ),
  };
}
