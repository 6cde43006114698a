import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { HoldfastError } from '../../core/errors.ts';
import type { ConfirmationRecord } from '../../core/state.ts';
import { cleanText } from '../../core/text.ts';
import type { Engine } from '../../engine/api.ts';
import { EXIT } from '../exit-statuses.ts';
import { renderPlan, renderTable, renderValue } from '../render.ts';
import { approveHere, canAsk } from './confirm.ts';
import { addCommand, type Cli, principalOf, renderOptions, unknownWord, withEngine } from './context.ts';
import { styled } from './terminal.ts';

/** How many of the newest confirmations a code is looked for among. */
const RECENT = 1000;

/** Adds `approvals`, `approve` and `deny`: how a person decides about guarded calls. */
export function addApprovals(program: Command, cli: Cli): void {
  addCommand(program, 'approvals', 'list the calls that wait for a decision', [
    'holdfast approvals',
    'holdfast approvals --all --json',
  ])
    .option('--all', 'also those that are decided, used, void or expired')
    .action(async (options: { all?: boolean }) => {
      cli.exit = await withEngine(cli, (engine) => listApprovals(cli, engine, options.all === true));
    });
  addCommand(
    program,
    'approve',
    'show the plan of a guarded call and let it run',
    ['holdfast approve 7K3Q-F2MD', 'holdfast approve 7K3Q-F2MD --target my-app/my-db'],
    'The caller then repeats the very same call with its token. An approval works once, and not at all once the target\nhas changed.',
  )
    .argument('<code>', 'the code that the refused call gave')
    .option('--target <name>', "the target's name as the plan shows it, for scripts; a terminal asks for it")
    .option('--passphrase-file <file>', 'a file with the approver passphrase, where policy wants one')
    .action(async (code: string, options: { target?: string; passphraseFile?: string }) => {
      cli.exit = await withEngine(cli, (engine) => approve(cli, engine, code, options));
    });
  addCommand(program, 'deny', 'say no to a guarded call', [
    "holdfast deny 7K3Q-F2MD --reason 'wrong cluster, ask me first'",
  ])
    .argument('<code>', 'the code that the refused call gave')
    .option('--reason <text>', 'why; the caller is told')
    .action(async (code: string, options: { reason?: string }) => {
      cli.exit = await withEngine(cli, async (engine) => {
        const record = await engine.deny({
          confirmation: code,
          by: principalOf(cli.deps),
          via: 'terminal',
          ...(options.reason === undefined ? {} : { reason: cleanText(options.reason) }),
        });
        report(cli, record, styled('yellow', 'Denied'));
        return EXIT.ok;
      });
    });
}

async function listApprovals(cli: Cli, engine: Engine, all: boolean): Promise<number> {
  const records = await engine.confirmations(all ? {} : { states: ['pending'] });
  const { terminal } = cli;
  if (cli.options().json) {
    terminal.json({ confirmations: records.map(confirmationDocument) });
    return EXIT.ok;
  }
  if (records.length === 0) {
    terminal.line(all ? 'No call has asked for a confirmation yet.' : 'No call waits for a decision.');
    return EXIT.ok;
  }
  const rows = records.map((record) => ({
    code: record.code,
    ...(all ? { state: record.state } : {}),
    risk: record.plan.risk,
    action: record.plan.action,
    entity: record.plan.entity,
    target: record.plan.target,
    caller: record.principal,
    needs: record.require,
    until: record.expires_at,
  }));
  terminal.text(renderTable(rows, renderOptions(cli)));
  if (!all) terminal.note(styled('dim', 'Next: holdfast approve CODE shows the plan and asks; holdfast deny CODE'));
  return EXIT.ok;
}

/** Gives a confirmation as people and scripts may see it: without the token's hash and the digests. */
function confirmationDocument(record: ConfirmationRecord): object {
  const { id: _id, token_sha256: _token, digest: _digest, parts: _parts, ...shown } = record;
  return shown;
}

async function approve(
  cli: Cli,
  engine: Engine,
  code: string,
  options: { target?: string; passphraseFile?: string },
): Promise<number> {
  const record = await findRecord(engine, code);
  const passphrase = options.passphraseFile === undefined ? undefined : await readPassphrase(options.passphraseFile);
  const decision = { confirmation: record.id, by: principalOf(cli.deps), via: 'terminal' as const, passphrase };
  // Whatever is no longer open is refused with its own reason, before anyone is asked.
  if (record.state !== 'pending' || options.target !== undefined) {
    report(cli, await engine.approve({ ...decision, typedTarget: options.target }), styled('green', 'Approved'));
    return EXIT.ok;
  }
  if (!canAsk(cli)) {
    throw new HoldfastError('INVALID_PARAMETER', 'without a terminal the name of the target is needed', {
      hint: 'Read the plan in holdfast approvals --json, then give --target NAME.',
    });
  }
  const { terminal } = cli;
  terminal.notes(renderPlan(record.plan, renderOptions(cli)));
  const asked = [`Asked by: ${record.principal}, at ${record.created_at}`, `Valid until: ${record.expires_at}`];
  terminal.notes([...asked, 'With these parameters:', renderValue(record.input).replace(/^/gm, '  ')].join('\n'));
  await approveHere(cli, engine, record.id, record.plan, { passphrase });
  report(cli, { ...record, state: 'approved' }, styled('green', 'Approved'));
  return EXIT.ok;
}

async function findRecord(engine: Engine, code: string): Promise<ConfirmationRecord> {
  const records = await engine.confirmations({ limit: RECENT });
  const plain = (text: string): string => text.replace(/[^0-9a-z]/gi, '').toUpperCase();
  const found = records.find((record) => record.id === code || plain(record.code) === plain(code));
  if (found !== undefined) return found;
  const pending = records.filter((record) => record.state === 'pending').map((record) => record.code);
  const { hint } = unknownWord('confirmation', code, pending, 'holdfast approvals lists the open ones.');
  throw new HoldfastError('CONFIRMATION_INVALID', `there is no confirmation '${cleanText(code, 40)}'`, { hint });
}

async function readPassphrase(path: string): Promise<string> {
  try {
    return (await readFile(path, 'utf8')).replace(/\r?\n$/, '');
  } catch (cause) {
    throw new HoldfastError('INVALID_PARAMETER', `cannot read the passphrase file '${cleanText(path)}'`, { cause });
  }
}

function report(cli: Cli, record: ConfirmationRecord, word: ReturnType<typeof styled>): void {
  if (cli.options().json) {
    cli.terminal.json({ confirmation: confirmationDocument(record) });
    return;
  }
  const { code, plan, principal } = record;
  cli.terminal.line(word, ` ${code}: ${plan.action} on ${plan.target}, asked by ${principal}.`);
  if (record.state === 'approved') {
    cli.terminal.line(`The caller has until ${record.expires_at} to repeat the very same call with its token.`);
  }
}
