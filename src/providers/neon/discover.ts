import type { JsonObject } from '../../core/json.ts';
import type { Discovered, Discovery, DiscoveryContext } from '../../core/provider.ts';
import { cleanText } from '../../core/text.ts';
import { known } from '../../core/wire.ts';
import { type Attempt, attempts, entityName, secretIn } from '../discovery.ts';
import { unless } from '../rest.ts';
import { type Account, accountOf, NeonClient } from './client.ts';
import { scheduleOf } from './declared.ts';
import { type Branch, checkId, type Project, type ScheduleItem } from './map.ts';

/**
 * Looks through the projects that a key can see, or the one that is named; undefined without a key.
 * @throws {HoldfastError} AUTHENTICATION_FAILED where Neon does not take the key
 */
export async function discover({
  access,
  endpoint,
  runtime,
  signal,
}: DiscoveryContext): Promise<Discovery | undefined> {
  const api_key = secretIn(access, 'api_key');
  if (api_key === undefined && runtime.credential('NEON_API_KEY') === undefined) return undefined;
  const problems: string[] = [];
  const attempt = attempts(problems);
  const named = typeof access['project_id'] === 'string' ? checkId(access['project_id'], 'project_id') : undefined;
  const ids =
    named === undefined
      ? await projectsOf(accountOf({ api_key, endpoint }, runtime), attempt, problems, signal)
      : [named];
  const found: Discovered[] = [];
  for (const project_id of ids) {
    const client = new NeonClient({ project_id, api_key, endpoint }, runtime);
    const shown = await attempt(() => lookInto(client, attempt, signal), `the project ${project_id} is not shown`);
    found.push(...(shown ?? []));
  }
  return { looked: named === undefined ? `Neon, ${ids.length} projects` : `Neon project ${named}`, found, problems };
}

/** The projects of every organization of the key, and those that are in none. */
async function projectsOf(
  account: Account,
  attempt: Attempt,
  problems: string[],
  signal: AbortSignal,
): Promise<string[]> {
  const organizations = (await attempt(() => account.organizations(signal), 'the organizations are not shown')) ?? [];
  const ids = new Set<string>();
  for (const organization of [undefined, ...organizations]) {
    const list = account.projects(organization, signal);
    const found = await attempt(
      // A key that is in organizations only must name one.
      () => (organization === undefined ? unless(list, 'INVALID_PARAMETER') : list),
      organization === undefined ? 'projects are not shown' : `projects of ${organization} are not shown`,
    );
    for (const id of found?.ids ?? []) ids.add(id);
    for (const id of found?.unavailable ?? []) problems.push(`Neon could not show the project ${id} in time`);
  }
  return [...ids];
}

/** One entity for the default branch, and one for each other branch that somebody protects. */
async function lookInto(client: NeonClient, attempt: Attempt, signal: AbortSignal): Promise<Discovered[]> {
  const [project, branches] = await Promise.all([client.project(signal), client.branches(signal)]);
  const own = branches.filter((branch) => branch.default || branch.protected);
  const found: Discovered[] = [];
  for (const branch of own) {
    const without = `the snapshot schedule of ${project.id}, branch ${branch.id}, is not shown`;
    const schedule = await attempt(() => scheduleOf({ client, signal }, branch), without);
    found.push(toFound(project, branch, schedule));
  }
  return found;
}

function toFound(project: Project, branch: Branch, schedule: readonly ScheduleItem[] | undefined): Discovered {
  const { history_seconds: history, plan } = project;
  // A name that is not shown as it is, is not told apart either: its id is.
  const name = cleanText(branch.name, 256) === branch.name && branch.name !== '' ? branch.name : branch.id;
  const label = entityName(project.name) === 'database' ? project.id : project.name;
  const declared = schedule?.map(toDeclared);
  const isWhole = declared?.every((item) => item !== undefined) === true;
  return {
    defines: 'neon/project',
    name: entityName(branch.default ? label : `${label}-${name}`),
    parameters: {
      project_id: project.id,
      branch: name,
      history_retention_seconds: history,
      ...(isWhole ? { backup_schedule: declared as JsonObject[] } : {}),
      protected: branch.protected,
    },
    notes: [
      ...(history === 0 ? ['The history window is off: no moment can be restored.'] : []),
      ...(schedule?.length === 0 ? ['No snapshots are taken by themselves.'] : []),
      ...(schedule === undefined ? ['Its snapshot schedule could not be read, or it can have none.'] : []),
      ...(schedule !== undefined && !isWhole ? ['Its snapshot schedule has lines that cannot be declared.'] : []),
      ...(branch.protected ? [] : ['The branch is not protected against deletion.']),
      ...(/^free/.test(plan ?? '') ? ['On this plan the history is also cut at 1 GB of changes.'] : []),
      ...(project.permission === 'CAN_VIEW' ? ['The key may only look at this project: it can restore nothing.'] : []),
    ],
  };
}

const DAYS: Record<string, number> = { daily: 0, weekly: 7, monthly: 31 };

function toDeclared({ frequency, hour, day, retention_seconds }: ScheduleItem): JsonObject | undefined {
  const most = DAYS[frequency];
  if (most === undefined || hour === undefined) return undefined;
  if (most === 0 ? day !== undefined : day === undefined || day < 1 || day > most) return undefined;
  return known({ frequency, hour, day, retention_seconds });
}
