import type { AnyAction } from '../core/action.ts';
import type { JsonObject, JsonValue } from '../core/json.ts';

/** Gives the example input of an action with its markers (`$newest`, `$entity`) replaced by what the reader is to see. */
export function exampleInput(action: AnyAction, words: Readonly<Record<string, string>>): JsonObject {
  const replaced = (value: JsonValue): JsonValue => {
    if (typeof value === 'string') return words[value] ?? value;
    return Array.isArray(value) ? value.map(replaced) : value;
  };
  return Object.fromEntries(
    Object.entries(action.example).map(([key, value]) => [key, value === undefined ? undefined : replaced(value)]),
  );
}
