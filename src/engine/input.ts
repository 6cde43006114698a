import type { z } from 'zod';
import type { AnyAction } from '../core/action.ts';
import { HoldfastError } from '../core/errors.ts';
import { isObject, type JsonObject, type JsonValue } from '../core/json.ts';
import { didYouMean } from '../core/text.ts';

/**
 * Reads a caller's input by the action's strict schema.
 * @throws {HoldfastError} INVALID_PARAMETER naming every fault, unknown names with what is close; values are not repeated
 */
export function parseInput(action: AnyAction, input: JsonObject): Record<string, unknown> {
  const parsed = action.input.safeParse(input);
  if (parsed.success) return parsed.data;
  const names = Object.keys(action.input.shape);
  const faults = parsed.error.issues.flatMap((issue) => {
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => ({
        parameter: key,
        problem: `${action.name} has no parameter '${key}'`,
        hint: didYouMean(key, names),
      }));
    }
    const parameter = issue.path.join('.');
    const absent = issue.path.length > 0 && at(input, issue.path) === undefined;
    return [
      {
        parameter,
        problem: absent ? `${parameter} is required` : `${parameter || 'the input'}: ${issue.message}`,
        hint: '',
      },
    ];
  });
  const hints = faults.map((fault) => fault.hint).filter((hint) => hint !== '');
  throw new HoldfastError('INVALID_PARAMETER', faults.map((fault) => fault.problem).join('; '), {
    hint: hints.join(' ') || `Parameters of ${action.name}: ${describeParameters(action) || 'none'}.`,
    details: { faults: faults.map(({ parameter, problem }) => ({ parameter, problem })) },
  });
}

/** Names an action's parameters, the required ones marked. */
export function describeParameters(action: AnyAction): string {
  return Object.entries(action.input.shape)
    .map(([name, schema]) => ((schema as z.ZodType).safeParse(undefined).success ? name : `${name} (required)`))
    .join(', ');
}

/** Gives the input as people may see it, parameters marked secret masked, and the texts of those. */
export function maskInput(
  action: AnyAction,
  input: Record<string, unknown>,
): { readonly shown: JsonObject; readonly secrets: readonly string[] } {
  const secrets: string[] = [];
  const shown = Object.fromEntries(
    Object.entries(input).map(([name, value]) => {
      const schema = action.input.shape[name] as z.ZodType | undefined;
      if (!isSecret(schema)) return [name, value as JsonValue];
      for (const text of [value].flat()) if (typeof text === 'string') secrets.push(text);
      return [name, Array.isArray(value) ? value.map(() => '***') : '***'];
    }),
  );
  return { shown, secrets };
}

function isSecret(schema: z.ZodType | undefined): boolean {
  for (let current = schema; current !== undefined; ) {
    if (current.meta()?.['secret'] === true) return true;
    const inner = (
      current as unknown as { def?: { innerType?: z.ZodType; element?: z.ZodType; options?: z.ZodType[] } }
    ).def;
    if (inner?.options?.some((option) => isSecret(option))) return true;
    current = inner?.innerType ?? inner?.element;
  }
  return false;
}

function at(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((inner, key) => (isObject(inner) ? inner[String(key)] : undefined), value);
}
