import type { Command } from 'commander';
import { ERROR_CODES } from '../../core/errors.ts';
import { EXIT } from '../exit-statuses.ts';
import { addCommand, type Cli } from './context.ts';
import type { ConfigFault, ConfigReport } from './deps.ts';
import { styled } from './terminal.ts';

/** Adds `check`: every fault of the entities file at its place, parameters without effect, credentials by name. */
export function addCheck(program: Command, cli: Cli): void {
  addCommand(program, 'check', 'check the entities file and the credentials that it names; asks no provider', [
    'holdfast check',
    'holdfast check --config ops/holdfast.yaml --json',
  ]).action(async () => {
    const { json, ...options } = cli.options();
    const report = await cli.deps.checkConfig(options);
    if (json) cli.terminal.json({ ok: report.faults.length === 0, ...report });
    else printReport(cli, report);
    cli.exit = report.faults.length === 0 ? EXIT.ok : ERROR_CODES.CONFIG_INVALID.exit;
  });
}

function printReport(cli: Cli, report: ConfigReport): void {
  const { terminal } = cli;
  const found = [
    ...report.faults.map((fault) => ({ fault, kind: styled('red', 'error') })),
    ...report.warnings.map((fault) => ({ fault, kind: styled('yellow', 'warning') })),
  ];
  for (const { fault, kind } of found) {
    terminal.line(styled('bold', `${placeOf(fault, report.file)}: `), kind, ` ${fault.message}`);
    if (fault.suggestion !== undefined && fault.suggestion !== '') terminal.line(`  ${fault.suggestion}`);
  }
  if (found.length > 0) terminal.line('');
  for (const entity of report.entities) {
    terminal.line(styled('bold', entity.key), ` ${entity.defines}`);
    for (const { name, found } of entity.credentials) {
      terminal.line(`  credential ${name}: `, found ? styled('green', 'found') : styled('red', 'NOT FOUND'));
    }
    if (entity.ignored.length > 0) terminal.line(styled('dim', `  no effect here: ${entity.ignored.join(', ')}`));
  }
  if (report.file === undefined && report.faults.length === 0) {
    terminal.line('No entities file was found here or above. Write holdfast.yaml, or name one with --config.');
    return;
  }
  const absent = report.entities.reduce((sum, { credentials }) => sum + credentials.filter((c) => !c.found).length, 0);
  terminal.line(
    report.file === undefined ? 'No entities file' : report.file,
    `: ${report.entities.length} ${report.entities.length === 1 ? 'database' : 'databases'}, `,
    report.faults.length === 0 ? styled('green', 'no faults') : styled('red', countOf(report.faults.length, 'fault')),
    absent === 0 ? '' : styled('yellow', `, ${countOf(absent, 'credential')} not found`),
  );
}

function placeOf(fault: ConfigFault, file: string | undefined): string {
  return [fault.file ?? file ?? 'holdfast.yaml', fault.line, fault.line === undefined ? undefined : fault.column]
    .filter((part) => part !== undefined)
    .join(':');
}

function countOf(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}
