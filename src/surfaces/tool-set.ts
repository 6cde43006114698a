import { HoldfastError } from '../core/errors.ts';

/** Which tools an agent is shown: one for each action, or two through which all of them are reached. */
export type ToolSet = 'all' | 'compact';

/** Gives the set that a word means, all for no word; undefined for any other word. */
export function toolSetNamed(text: string | undefined): ToolSet | undefined {
  if (text === undefined || text === '') return 'all';
  return text === 'all' || text === 'compact' ? text : undefined;
}

/**
 * Gives the set that a word means, all for no word; `from` names the flag or the variable.
 * @throws {HoldfastError} INVALID_PARAMETER for any other word
 */
export function readToolSet(text: string | undefined, from: string): ToolSet {
  const found = toolSetNamed(text);
  if (found !== undefined) return found;
  throw new HoldfastError('INVALID_PARAMETER', `${from} is neither all nor compact`, {
    hint: 'compact lists two tools, find_actions and do_action, in place of one for each action.',
  });
}
