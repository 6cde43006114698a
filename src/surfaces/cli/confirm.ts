import { asHoldfastError, HoldfastError } from '../../core/errors.ts';
import type { Plan } from '../../core/plan.ts';
import type { Call, ConfirmationDetails, Engine, Outcome } from '../../engine/api.ts';
import { confirmationOf, renderError, renderPlan } from '../render.ts';
import { type Cli, inFlight, principalOf, renderOptions } from './context.ts';
import { styled } from './terminal.ts';

const TRIES = 3;
const PLAN_ROUNDS = 3;

/** Makes a call; where it needs a confirmation and a person sits at this terminal, asks them and goes on. */
export async function callWithConfirmation(cli: Cli, engine: Engine, call: Call): Promise<Outcome> {
  let proof: Pick<Call, 'token' | 'confirmationId'> = { token: call.token };
  for (let round = 1; ; round += 1) {
    try {
      return await inFlight(cli, () => engine.call({ ...call, ...proof }));
    } catch (cause) {
      const error = asHoldfastError(cause);
      const asked = confirmationOf(error);
      // Two people cannot sit here: the second one approves from their own account.
      if (asked === undefined || asked.confirmation.require === 'two-people') throw error;
      if (!canAsk(cli) || round > PLAN_ROUNDS) throw error;
      cli.terminal.notes(describeRefusal(cli, error, asked.plan));
      proof = await confirm(cli, engine, asked);
    }
  }
}

/** Whether a person can be asked here: both ends are a terminal, and nobody wants a document only. */
export function canAsk(cli: Cli): boolean {
  return cli.prompter.open && cli.terminal.interactive && !cli.options().json && !cli.deps.signal.aborted;
}

function describeRefusal(cli: Cli, error: HoldfastError, plan: Plan): string {
  const options = renderOptions(cli);
  if (error.code !== 'PLAN_CHANGED') return renderPlan(plan, options);
  const { differences } = error.details ?? {};
  const changed = new HoldfastError(error.code, error.message, {
    hint: 'Look at the new plan:',
    details: differences === undefined ? undefined : { differences },
  });
  return `${renderError(changed, options)}\n\n${renderPlan(plan, options)}`;
}

async function confirm(
  cli: Cli,
  engine: Engine,
  asked: ConfirmationDetails,
): Promise<Pick<Call, 'token' | 'confirmationId'>> {
  const { confirmation, plan } = asked;
  if (confirmation.require === 'token') {
    // Policy asks nobody; a person who is here is asked all the same.
    await askTarget(cli, plan, async (typed) => {
      if (typed !== plan.target) throw wrongName(plan);
    });
    return { token: confirmation.token };
  }
  try {
    await approveHere(cli, engine, confirmation.id, plan);
  } catch (cause) {
    const error = asHoldfastError(cause);
    // Nobody holds its token: left open, it would only be a question that no one asked.
    if (error.code === 'CANCELLED' || error.code === 'CONFIRMATION_MISMATCH') {
      await engine
        .deny({ confirmation: confirmation.id, by: principalOf(cli.deps), via: 'terminal', reason: 'not confirmed' })
        .catch(() => undefined);
    }
    throw error;
  }
  return { confirmationId: confirmation.id };
}

/**
 * Asks for the target's name, and for the passphrase where policy has one, and records the approval.
 * @throws {HoldfastError} CANCELLED when the person answers nothing, CONFIRMATION_MISMATCH after three wrong names,
 * AUTHENTICATION_FAILED after three wrong passphrases
 */
export async function approveHere(
  cli: Cli,
  engine: Engine,
  confirmation: string,
  plan: Plan,
  given: { passphrase?: string | undefined } = {},
): Promise<void> {
  let { passphrase } = given;
  await askTarget(cli, plan, async (typedTarget) => {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const decision = { confirmation, by: principalOf(cli.deps), via: 'terminal' as const, typedTarget, passphrase };
        await engine.approve(decision);
        return;
      } catch (cause) {
        const error = asHoldfastError(cause);
        if (error.code !== 'AUTHENTICATION_FAILED' || attempt > TRIES || given.passphrase !== undefined) throw error;
        if (attempt > 1) cli.terminal.note(styled('yellow', 'That is not the approver passphrase.'));
        passphrase = await askPassphrase(cli);
      }
    }
  });
}

async function askTarget(cli: Cli, plan: Plan, accept: (typed: string) => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    cli.terminal.ask(
      '\nType the name of the target to go on, nothing to stop. Target ',
      styled('bold', plan.target),
      ': ',
    );
    const typed = (await answer(cli, () => cli.prompter.line()))?.trim();
    if (typed === undefined || typed === '') throw stopped();
    try {
      return await accept(typed);
    } catch (cause) {
      const error = asHoldfastError(cause);
      if (error.code !== 'CONFIRMATION_MISMATCH' || attempt >= TRIES) throw error;
      cli.terminal.note(styled('yellow', 'That is not the name of the target. Nothing was approved.'));
    }
  }
}

async function askPassphrase(cli: Cli): Promise<string> {
  cli.terminal.ask('Approver passphrase: ');
  const typed = await answer(cli, () => cli.prompter.secret());
  cli.terminal.note('');
  if (typed === undefined || typed === '') throw stopped();
  return typed;
}

async function answer(cli: Cli, read: () => Promise<string | undefined>): Promise<string | undefined> {
  const typed = await read().catch((cause: unknown) => {
    cli.terminal.note('');
    const error = asHoldfastError(cause);
    throw error.code === 'CANCELLED' ? stopped() : error;
  });
  // The end of the input leaves the cursor behind the question.
  if (typed === undefined) cli.terminal.note('');
  return typed;
}

function stopped(): HoldfastError {
  return new HoldfastError('CANCELLED', 'nobody confirmed the plan', {
    hint: 'Nothing was run; nothing was changed.',
  });
}

function wrongName(plan: Plan): HoldfastError {
  return new HoldfastError('CONFIRMATION_MISMATCH', `the name that was typed is not the target '${plan.target}'`, {
    hint: 'Nothing was approved. Type the name of the target exactly as the plan shows it.',
  });
}
