import type { AnyAction } from '../core/action.ts';
import type { JsonValue } from '../core/json.ts';
import type { SuggestedCall } from '../core/plan.ts';
import { exampleInput } from './example.ts';

/** Quotes a word for a POSIX shell where it needs it. */
export function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** Writes a call as the command line that makes it; `program` is how the program is called, with what is always given. */
export function commandLine(call: SuggestedCall, program = 'holdfast'): string {
  const pairs = Object.entries(call.input).filter((pair): pair is [string, JsonValue] => pair[1] !== undefined);
  if (call.action === 'wait-operation' && pairs.length === 1 && pairs[0]?.[0] === 'operation_id') {
    return `${program} operations ${shellWord(String(pairs[0][1]))} --wait`;
  }
  const path = call.entity === undefined ? call.action : `${call.entity}/${call.action}`;
  return [program, 'do', shellWord(path), ...pairs.map(([key, value]) => shellWord(`${key}=${valueText(value)}`))].join(
    ' ',
  );
}

/** Writes a value so that `do` reads the same value back. */
export function valueText(value: JsonValue): string {
  if (typeof value === 'string') return value.startsWith('@') ? `@${value}` : value;
  if (Array.isArray(value))
    return value.length > 0 && value.every(isPlainItem) ? value.join(',') : JSON.stringify(value);
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

function isPlainItem(item: JsonValue): boolean {
  if (typeof item === 'string') return item !== '-' && item === item.trim() && /^[^,[{@"][^,]*$/.test(item);
  return typeof item === 'number' || typeof item === 'boolean';
}

const PLACEHOLDERS: Readonly<Record<string, string>> = {
  $newest: 'SNAPSHOT_ID',
  $latest: 'TIMESTAMP',
  $operation: 'OPERATION_ID',
};

/** Gives the example of an action as a command line for one entity; `$newest` and the like become words to replace. */
export function exampleLine(action: AnyAction, entity: string): string {
  const input = exampleInput(action, { ...PLACEHOLDERS, $entity: entity });
  return commandLine({ entity: action.kind === 'fleet' ? undefined : entity, action: action.name, input });
}
