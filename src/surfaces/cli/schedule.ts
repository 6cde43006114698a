import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from 'commander';
import { HoldfastError } from '../../core/errors.ts';
import { EXIT } from '../exit-statuses.ts';
import { renderOutcome, renderTable } from '../render.ts';
import { addCommand, type Cli, inFlight, operationExit, programName, renderOptions, wholeNumber } from './context.ts';
import type { ScheduleDesk, ScheduleView } from './deps.ts';
import { outcomeDocument, withUndoCommand } from './do.ts';
import { showProgress } from './progress.ts';
import { styled } from './terminal.ts';

/** Adds `schedule`: what the clock calls, when, and how that went; and the same for Kubernetes. */
export function addSchedule(program: Command, cli: Cli): void {
  const schedule = addCommand(
    program,
    'schedule',
    'show what runs by the clock, run it now, or write it for Kubernetes',
    ['holdfast schedule list', 'holdfast schedule next', 'holdfast schedule run my-app/my-db daily'],
    'Schedules are declared with each entity (schedules:) and run while holdfast serve does.',
  );
  addCommand(schedule, 'list', 'show every schedule and how it stands', ['holdfast schedule list my-app/my-db --json'])
    .argument('[entity]', '<namespace>/<entity>')
    .action((entity: string | undefined) => withDesk(cli, (desk) => list(cli, desk, entity)));
  addCommand(schedule, 'next', 'show when they are due, in their zone and in UTC', ['holdfast schedule next --count 5'])
    .argument('[entity]', '<namespace>/<entity>')
    .option('--count <n>', 'how many times of each', '3')
    .action((entity: string | undefined, options: { count: string }) =>
      withDesk(cli, async (desk) => next(cli, desk, wholeNumber('--count', options.count, 1, 100) as number, entity)),
    );
  addCommand(
    schedule,
    'run',
    'make a scheduled call now and wait for its end',
    ['holdfast schedule run my-app/my-db daily'],
    'The same call by the same way as when it is due; the exit status says how it ended. Never two of one schedule at once.',
  )
    .argument('<entity>', '<namespace>/<entity>')
    .argument('<name>', 'of the schedule')
    .action((entity: string, name: string) => withDesk(cli, (desk) => run(cli, desk, entity, name)));
  addCommand(
    schedule,
    'render',
    'write CronJobs, service account, role, network policy and references to secrets',
    [
      'holdfast schedule render --kubernetes --namespace backups --image registry.example/holdfast:1 --out k8s',
      'holdfast schedule render --kubernetes --image registry.example/holdfast:1 | kubectl apply -f -',
    ],
    'Values of secrets are never read or written: each reference becomes a key of a Secret that you make.',
  )
    .option('--kubernetes', 'for Kubernetes 1.27 and newer')
    .option('--namespace <name>', 'where the objects go', 'default')
    .option('--image <image>', 'an image with holdfast and the PostgreSQL client in it')
    .option('--out <dir>', 'one file for each object in this directory; else all of them on standard output')
    .option('--state-claim <name>', 'a PersistentVolumeClaim that keeps the state and the audit trail')
    .option('--env-from <secret>', 'a Secret whose every key becomes a variable, such as AWS_ACCESS_KEY_ID')
    .option('--tmp-size <size>', 'limit of the temporary directory', '2Gi')
    .option('--volume-size <size>', 'size of claims for local backups and for WAL that waits', '50Gi')
    .action((options: RenderFlags) => withDesk(cli, (desk) => render(cli, desk, options)));
}

async function withDesk(cli: Cli, work: (desk: ScheduleDesk) => Promise<number>): Promise<void> {
  const { json: _json, ...options } = cli.options();
  const desk = await cli.deps.openSchedules(options);
  try {
    cli.exit = await work(desk);
  } catch (cause) {
    await desk.close().catch(() => undefined);
    throw cause;
  }
  await desk.close();
}

async function list(cli: Cli, desk: ScheduleDesk, entity: string | undefined): Promise<number> {
  const schedules = await desk.list(entity);
  const { terminal } = cli;
  if (cli.options().json) {
    terminal.json({ schedules, run_by_serve: desk.runsHere });
    return EXIT.ok;
  }
  if (schedules.length === 0) {
    terminal.line('No entity has a schedule. Add one: schedules: { daily: "0 2 * * *" }');
    return EXIT.ok;
  }
  const rows = schedules.map((schedule) => ({
    schedule: `${schedule.entity} ${schedule.name}`,
    action: schedule.action,
    cron: schedule.timezone === 'UTC' ? schedule.cron : `${schedule.cron} ${schedule.timezone}`,
    state: stateText(schedule),
    last: (schedule.running_since ?? schedule.last?.ended_at)?.replace(/\.\d+Z$/, 'Z') ?? '-',
    failures: schedule.consecutive_failures === 0 ? undefined : schedule.consecutive_failures,
    missed: schedule.missed === 0 ? undefined : schedule.missed,
    next: schedule.enabled ? schedule.next_at?.replace(/\.\d+Z$/, 'Z') : 'not enabled',
  }));
  terminal.text(renderTable(rows, renderOptions(cli)));
  for (const { entity: key, name, last } of schedules) {
    if (last === undefined || last.state === 'succeeded') continue;
    terminal.note(styled('yellow', `${key} ${name}: `), [last.message, last.hint].filter(Boolean).join('. '));
  }
  if (!desk.runsHere)
    terminal.note('Schedules are off here: holdfast serve does not run them (HOLDFAST_SCHEDULER, server.schedules).');
  return EXIT.ok;
}

function stateText({ state, last }: ScheduleView): string {
  if (state === 'never_run') return 'never run';
  return last?.code === undefined || state !== last.state ? state : `${state} ${last.code}`;
}

async function next(cli: Cli, desk: ScheduleDesk, count: number, entity: string | undefined): Promise<number> {
  const due = desk.next(count, entity);
  if (cli.options().json) cli.terminal.json({ due });
  else if (due.length === 0) cli.terminal.line('Nothing is due: no schedule is enabled.');
  else {
    const rows = due.map(({ entity: key, name, action, at, local }) => ({
      at: at.replace(/\.\d+Z$/, 'Z'),
      local,
      schedule: `${key} ${name}`,
      action,
    }));
    cli.terminal.text(renderTable(rows, renderOptions(cli)));
  }
  return EXIT.ok;
}

async function run(cli: Cli, desk: ScheduleDesk, entity: string, name: string): Promise<number> {
  const { json } = cli.options();
  const onProgress = showProgress(cli.terminal, json);
  const outcome = await inFlight(cli, () => desk.run(entity, name, { signal: cli.deps.signal, onProgress }));
  if (json) cli.terminal.json(outcomeDocument(outcome, desk.engine.sandbox));
  else cli.terminal.text(renderOutcome(withUndoCommand(cli, outcome), renderOptions(cli)));
  return outcome.kind === 'operation' ? operationExit(outcome.operation) : EXIT.ok;
}

interface RenderFlags {
  kubernetes?: boolean;
  namespace: string;
  image?: string;
  out?: string;
  stateClaim?: string;
  envFrom?: string;
  tmpSize: string;
  volumeSize: string;
}

async function render(cli: Cli, desk: ScheduleDesk, flags: RenderFlags): Promise<number> {
  if (flags.kubernetes !== true) {
    throw new HoldfastError('INVALID_PARAMETER', 'render needs to know for what', { hint: 'Add --kubernetes.' });
  }
  if (flags.image === undefined) {
    throw new HoldfastError('INVALID_PARAMETER', 'render needs --image', {
      hint: 'Name an image with holdfast and the PostgreSQL client in it; docs/schedules.md shows how to make one.',
    });
  }
  const { namespace, image, out, stateClaim, envFrom, tmpSize, volumeSize } = flags;
  const { files, secrets, notes } = await desk.render({ namespace, image, stateClaim, envFrom, tmpSize, volumeSize });
  const { terminal } = cli;
  if (out !== undefined) {
    await mkdir(out, { recursive: true });
    for (const { name, text } of files) await writeFile(join(out, name), text);
  }
  if (cli.options().json) {
    terminal.json({ files: out === undefined ? files : files.map(({ name }) => join(out, name)), secrets, notes });
    return EXIT.ok;
  }
  if (out === undefined) terminal.text(files.map(({ text }) => text).join('---\n'));
  else for (const { name } of files) terminal.line(join(out, name));
  // Beside the objects and not among them: standard output may go straight to kubectl.
  for (const note of notes) terminal.note(note);
  if (secrets.length > 0)
    terminal.note(styled('bold', 'These Secrets must be there before the first run (commands for bash):'));
  for (const { command } of secrets) terminal.note(command);
  if (out !== undefined) terminal.note(`Then: kubectl apply -f ${out}`);
  else terminal.note(`To apply: ${programName(cli)} schedule render --kubernetes … | kubectl apply -f -`);
  return EXIT.ok;
}
