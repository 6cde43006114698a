import type { RecoveryOption } from '../../core/provider.ts';
import type { BackupInfo } from '../../core/schemas.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration } from '../../core/time.ts';
import { known } from '../../core/wire.ts';
import { driftOf } from '../findings.ts';
import { scheduleOf, scheduleText, settingFindings } from './declared.ts';
import { type Branch, type NeonOperation, type Project, shown, toPoint } from './map.ts';
import { type Context, freeName, stampOf, windowOf } from './work.ts';

/** The ends of the window are estimated: what is offered stays this far inside. */
const MARGIN_MS = 60_000;
const STALE_DAYS = 7;
const DAY_MS = 86_400_000;
const MOST_BRANCHES = 50;

/** Tells how a project and its branch can be brought back: the history window, snapshots and their schedule. */
export async function backupInfo(context: Context): Promise<BackupInfo> {
  const { client, entity, runtime, signal } = context;
  const [project, branches, snapshots, operations] = await Promise.all([
    client.project(signal),
    client.branches(signal),
    client.snapshots(signal),
    client.operations(signal),
  ]);
  const branch = client.own(branches);
  const schedule = await scheduleOf(context, branch);
  const now = runtime.now();
  const points = snapshots.map((snapshot) => toPoint(snapshot, now));
  const own = points.filter(({ restorable, provider }) => restorable && provider?.['source_branch_id'] === branch.id);
  const newest = own[0] ?? null;
  const window = windowOf(project, branches, branch, now);
  const kept = Math.max(0, ...(schedule ?? []).map(({ retention_seconds }) => retention_seconds ?? 0));
  const retention = Math.max(kept, project.history_seconds);
  return {
    automated: project.history_seconds > 0 || (schedule?.length ?? 0) > 0,
    ...(retention > 0 ? { retention_seconds: retention } : {}),
    ...(schedule === undefined || schedule.length === 0 ? {} : { schedule: scheduleText(schedule) }),
    pitr: {
      enabled: project.history_seconds > 0,
      ...(window === undefined
        ? {}
        : { window: { earliest_at: window.earliest.toISOString(), latest_at: window.latest.toISOString() } }),
    },
    encryption: 'unknown: the API does not tell',
    deletion_protection: branch.protected,
    newest,
    warnings: [
      ...(project.history_seconds === 0 ? ['The history window is off: no moment can be restored.'] : []),
      ...(newest === null ? [`There is no snapshot of the branch '${shown(branch)}'.`] : []),
      ...staleness(newest?.created_at, now),
      ...(schedule?.length === 0 ? ['The snapshot schedule is empty: snapshots are taken by hand only.'] : []),
      ...(schedule === undefined ? ['No snapshot schedule can be read for this branch.'] : []),
      ...(branch.default && !branch.protected ? ['The branch is not protected against deletion.'] : []),
      ...(/^free/.test(project.plan ?? '') ? ['On this plan the history is also cut at 1 GB of changes.'] : []),
      ...projectWarnings(project, branches, operations, now),
      ...driftOf(settingFindings(entity, { project, branch, schedule })),
    ],
    provider: known({
      project_id: project.id,
      project: project.name,
      region: cleanText(project.region, 60),
      pg_version: project.pg_version,
      plan: project.plan === undefined ? undefined : cleanText(project.plan, 40),
      history_retention_seconds: project.history_seconds,
      window: window === undefined ? undefined : 'estimated: Neon names neither end',
      storage_bytes: project.storage_bytes,
      branch: describeBranch(branch),
      branches: branches.slice(0, MOST_BRANCHES).map(describeBranch),
      branches_limit: project.branches_limit,
      snapshots: points.length,
      permission: project.permission === undefined ? undefined : cleanText(project.permission, 40),
    }),
  };
}

/** A branch as answers show it. */
export function describeBranch(branch: Branch): Record<string, unknown> {
  return known({
    id: branch.id,
    name: shown(branch),
    parent_id: branch.parent_id,
    default: branch.default ? true : undefined,
    protected: branch.protected ? true : undefined,
    state: cleanText(branch.state, 40),
    logical_size_bytes: branch.size_bytes,
    created_at: branch.created_at,
    expires_at: branch.expires_at,
    restore_status: branch.restore_status === undefined ? undefined : cleanText(branch.restore_status, 40),
  });
}

function staleness(created: string | undefined, now: Date): string[] {
  if (created === undefined) return [];
  const age = now.getTime() - Date.parse(created);
  return age > STALE_DAYS * DAY_MS ? [`The newest snapshot is ${formatDuration(age / 1000)} old.`] : [];
}

function projectWarnings(
  project: Project,
  branches: readonly Branch[],
  operations: readonly NeonOperation[],
  now: Date,
): string[] {
  const recent = operations.filter(
    ({ status, updated_at }) => status === 'failed' && Date.parse(updated_at ?? '') > now.getTime() - DAY_MS,
  );
  const previews = branches.filter(({ restore_status }) => restore_status === 'restored');
  return [
    ...(recent.length > 0 ? [`${recent.length} operations failed within the last day.`] : []),
    ...(previews.length > 0 ? [`${previews.length} restored snapshots are previews that nobody has finalized.`] : []),
    ...(project.permission === 'CAN_VIEW' ? ['The key may only look at this project: it can restore nothing.'] : []),
    ...(project.maintenance_at !== undefined && Date.parse(project.maintenance_at) > now.getTime()
      ? [`Maintenance is announced for ${project.maintenance_at}.`]
      : []),
    ...(project.branches_limit !== undefined && branches.length >= project.branches_limit
      ? ['No branch is left under the limit of the plan: a restore needs one.']
      : []),
  ];
}

/** Every way back: to a new branch first, which loses nothing, then in place. */
export async function recoveryOptions(context: Context, at: Date | undefined): Promise<RecoveryOption[]> {
  const { client, runtime, signal } = context;
  const [project, branches, snapshots] = await Promise.all([
    client.project(signal),
    client.branches(signal),
    client.snapshots(signal),
  ]);
  const branch = client.own(branches);
  const now = runtime.now();
  const wanted = at ?? now;
  const safe: RecoveryOption[] = [];
  const inPlace: RecoveryOption[] = [];
  const name = shown(branch);
  const nothing = 'nothing: the branch stays as it is';
  const offer = (moment: Date, what: string, input: Record<string, string>): void => {
    const iso = moment.toISOString();
    const fresh = freeName(branches, `${cleanText(branch.name, 60)}-at-${stampOf(moment)}`);
    safe.push({
      title: `${what} into the new branch ${fresh}`,
      moment: iso,
      loses: nothing,
      risk: 'create',
      call: { action: 'restore', input: { ...input, new_branch_name: fresh } },
    });
    if (branch.protected) return;
    inPlace.push({
      title: `${what} over the branch '${name}' itself; its present state is kept as another branch`,
      moment: iso,
      loses: `everything written to '${name}' after ${iso}, in all its databases`,
      risk: 'overwrite',
      call: { action: 'restore', input },
    });
  };
  const window = windowOf(project, branches, branch, now);
  const first = (window?.earliest.getTime() ?? 0) + MARGIN_MS;
  const last = (window?.latest.getTime() ?? 0) - MARGIN_MS;
  if (window !== undefined && wanted.getTime() >= first && last >= first) {
    const moment = new Date(Math.floor(Math.min(wanted.getTime(), last) / 1000) * 1000);
    offer(moment, `The moment ${moment.toISOString()}`, { restore_timestamp: moment.toISOString() });
  }
  const usable = snapshots
    .map((snapshot) => toPoint(snapshot, now))
    .filter(({ restorable, provider }) => restorable && provider?.['source_branch_id'] === branch.id);
  for (const point of usable) {
    const moment = point.data_at ?? point.created_at;
    if (moment === undefined || Date.parse(moment) > wanted.getTime() || safe.length > 5) continue;
    offer(new Date(moment), `The snapshot ${point.id}`, { snapshot_id: point.id });
  }
  return [...safe, ...inPlace];
}
