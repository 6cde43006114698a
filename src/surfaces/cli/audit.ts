import type { Command } from 'commander';
import { ERROR_CODES } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import { cleanText } from '../../core/text.ts';
import { EXIT } from '../exit-statuses.ts';
import { addCommand, type Cli, wholeNumber, withEngine } from './context.ts';
import { styled } from './terminal.ts';

const DEFAULT_LINES = '20';

/** Adds `audit verify` and `audit tail`. */
export function addAudit(program: Command, cli: Cli): void {
  const audit = addCommand(program, 'audit', 'verify or show the audit trail', [
    'holdfast audit verify',
    'holdfast audit tail --lines 50',
  ]);
  addCommand(
    audit,
    'verify',
    'look for any edit, gap or truncation in the audit trail',
    ['holdfast audit verify --json'],
    `Exits with ${ERROR_CODES.INTEGRITY_FAILED.exit} when the chain is broken.`,
  ).action(async () => {
    cli.exit = await withEngine(cli, async (engine) => {
      const report = await engine.verifyAudit();
      const { terminal } = cli;
      if (cli.options().json) terminal.json(report);
      else if (report.ok)
        terminal.line(styled('green', 'Whole: '), `${report.records} records, each bound to the one before.`);
      else {
        const place = report.fault === undefined ? '' : ` at line ${report.fault.line}: ${report.fault.problem}`;
        terminal.line(styled('red', 'BROKEN'), `${place} (${report.records} records read)`);
      }
      return report.ok ? EXIT.ok : ERROR_CODES.INTEGRITY_FAILED.exit;
    });
  });
  addCommand(audit, 'tail', 'show the newest records, newest last', ['holdfast audit tail --lines 5 --json'])
    .option('--lines <n>', 'how many', DEFAULT_LINES)
    .action(async (options: { lines: string }) => {
      const limit = wholeNumber('--lines', options.lines, 1, 10_000) ?? Number(DEFAULT_LINES);
      cli.exit = await withEngine(cli, async (engine) => {
        const records = engine.recentAudit(limit).toReversed();
        if (cli.options().json) cli.terminal.json({ records });
        else if (records.length === 0) cli.terminal.line('The audit trail is empty.');
        else for (const record of records) printRecord(cli, record);
        return EXIT.ok;
      });
    });
}

const SHOWN_FIRST = ['at', 'event', 'principal', 'entity', 'action', 'risk', 'target', 'outcome'];
const LEFT_OUT = ['hash', 'previous', 'sequence', 'input_sha256'];

function printRecord(cli: Cli, record: JsonObject): void {
  const text = (value: unknown): string => cleanText(typeof value === 'object' ? JSON.stringify(value) : value);
  const rest = Object.entries(record)
    .filter(([key, value]) => value !== undefined && !SHOWN_FIRST.includes(key) && !LEFT_OUT.includes(key))
    .map(([key, value]) => `${key}=${text(value)}`);
  const main = SHOWN_FIRST.slice(2)
    .filter((key) => record[key] !== undefined)
    .map((key) => text(record[key]));
  cli.terminal.line(
    styled('dim', `${text(record['at'])} `),
    styled('bold', text(record['event'])),
    ` ${main.join(' ')}`,
    styled('dim', rest.length === 0 ? '' : ` ${rest.join(' ')}`),
  );
}
