import type { Command } from 'commander';
import { z } from 'zod';
import { asHoldfastError, HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import { OperationView } from '../../core/schemas.ts';
import type { Engine, Outcome } from '../../engine/api.ts';
import { EXIT } from '../exit-statuses.ts';
import { renderOutcome, renderTable } from '../render.ts';
import { addCommand, type Cli, inFlight, operationExit, principalOf, renderOptions, withEngine } from './context.ts';
import { outcomeDocument, withUndoCommand } from './do.ts';
import { showProgress } from './progress.ts';

const OperationList = z.object({ operations: z.array(OperationView) });

/** Adds `operations`: the work that outlives its call. */
export function addOperations(program: Command, cli: Cli): void {
  addCommand(
    program,
    'operations',
    'list long-running work, show one, or follow it to its end',
    ['holdfast operations', 'holdfast operations op_4f1c --json', 'holdfast operations op_4f1c --wait'],
    'Work whose process is gone is taken up here: followed where the provider goes on, never begun twice.',
  )
    .argument('[id]', 'the id that the call gave')
    .option('--wait', 'follow it to its end; the exit status says how it ended')
    .action(async (id: string | undefined, options: { wait?: boolean }) => {
      cli.exit = await withEngine(cli, (engine) => {
        if (id !== undefined) return options.wait === true ? follow(cli, engine, id) : show(cli, engine, id);
        if (options.wait !== true) return listOperations(cli, engine);
        throw new HoldfastError('INVALID_PARAMETER', '--wait needs the id of an operation', {
          hint: 'holdfast operations lists them.',
        });
      });
    });
}

function ask(cli: Cli, engine: Engine, action: string, input: JsonObject): Promise<Outcome> {
  const { signal } = cli.deps;
  const onProgress = showProgress(cli.terminal, cli.options().json);
  return inFlight(cli, () => engine.call({ principal: principalOf(cli.deps), action, input, signal, onProgress }));
}

function print(cli: Cli, engine: Engine, outcome: Outcome): void {
  if (cli.options().json) cli.terminal.json(outcomeDocument(outcome, engine.sandbox));
  else cli.terminal.text(renderOutcome(withUndoCommand(cli, outcome), renderOptions(cli)));
}

async function listOperations(cli: Cli, engine: Engine): Promise<number> {
  const outcome = await ask(cli, engine, 'list-operations', {});
  const list = outcome.kind === 'result' ? OperationList.safeParse(outcome.output) : undefined;
  if (cli.options().json || list?.success !== true) {
    print(cli, engine, outcome);
    return EXIT.ok;
  }
  const rows = list.data.operations.map((operation) => ({
    operation: operation.operation_id,
    status: operation.status,
    percent: operation.percent === undefined ? undefined : Math.round(operation.percent),
    action: operation.action,
    entity: operation.entity,
    target: operation.target,
    started: toSeconds(operation.started_at),
    ended: toSeconds(operation.ended_at),
  }));
  cli.terminal.text(rows.length === 0 ? 'No operation yet.' : renderTable(rows, renderOptions(cli)));
  return EXIT.ok;
}

function toSeconds(timestamp: string | undefined): string | undefined {
  return timestamp?.replace(/\.\d+Z$/, 'Z');
}

async function show(cli: Cli, engine: Engine, id: string): Promise<number> {
  print(cli, engine, await ask(cli, engine, 'get-operation', { operation_id: id }));
  return EXIT.ok;
}

async function follow(cli: Cli, engine: Engine, id: string): Promise<number> {
  // One wait is bounded, so that an agent's call is; a person waits as long as the work takes.
  for (;;) {
    const outcome = await ask(cli, engine, 'wait-operation', { operation_id: id }).catch((cause: unknown) => {
      const error = asHoldfastError(cause);
      if (error.code !== 'CANCELLED') throw error;
      throw new HoldfastError('CANCELLED', `operation ${id} was left, not stopped`, { details: { operation_id: id } });
    });
    const operation = outcome.kind === 'result' ? OperationView.parse(outcome.output) : undefined;
    if (operation?.status === 'pending' || operation?.status === 'running') continue;
    print(cli, engine, outcome);
    return operation === undefined ? EXIT.ok : operationExit(operation);
  }
}
