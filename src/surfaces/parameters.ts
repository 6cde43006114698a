import { z } from 'zod';
import type { AnyAction } from '../core/action.ts';
import { isObject, type JsonValue } from '../core/json.ts';

export type ValueType = 'string' | 'number' | 'integer' | 'boolean' | 'array' | 'object' | 'null';

/** What a JSON Schema lets a value be, as far as reading and describing it needs. */
export interface ValueShape {
  /** Empty: anything. */
  readonly types: ReadonlySet<ValueType>;
  /** The only values allowed, where the schema lists them. */
  readonly values: readonly JsonValue[];
  readonly items: ValueShape | undefined;
}

export interface Parameter {
  readonly name: string;
  readonly required: boolean;
  readonly description: string | undefined;
  readonly fallback: JsonValue | undefined;
  /** Whether its value may hold credentials. */
  readonly secret: boolean;
  readonly shape: ValueShape;
}

/** Says how risky an action is: `create`, or `create to overwrite` where a look at the target decides. */
export function riskText({ risk, upTo }: Pick<AnyAction, 'risk' | 'upTo'>): string {
  return risk === upTo ? risk : `${risk} to ${upTo}`;
}

/** Gives the parameters of an action in the order of their declaration. */
export function parametersOf(action: Pick<AnyAction, 'input'>): Parameter[] {
  const schema: unknown = z.toJSONSchema(action.input, { io: 'input', unrepresentable: 'any' });
  if (!isObject(schema) || !isObject(schema['properties'])) return [];
  const required: unknown[] = Array.isArray(schema['required']) ? schema['required'] : [];
  return Object.entries(schema['properties']).map(([name, property]) => {
    const member = isObject(property) ? property : {};
    return {
      name,
      required: required.includes(name),
      description: typeof member['description'] === 'string' ? member['description'] : undefined,
      fallback: member['default'] as JsonValue | undefined,
      secret: member['secret'] === true,
      shape: shapeOf(member),
    };
  });
}

/** Reads from a JSON Schema what values it takes. */
export function shapeOf(schema: unknown): ValueShape {
  const types = new Set<ValueType>();
  const values: JsonValue[] = [];
  let items: ValueShape | undefined;
  const visit = (node: unknown): void => {
    if (!isObject(node)) return;
    for (const type of [node['type']].flat()) if (typeof type === 'string') types.add(type as ValueType);
    const listed = Array.isArray(node['enum']) ? node['enum'] : 'const' in node ? [node['const']] : [];
    for (const value of listed as JsonValue[]) {
      values.push(value);
      types.add(value === null ? 'null' : (typeof value as ValueType));
    }
    if (node['items'] !== undefined) items = shapeOf(node['items']);
    for (const key of ['anyOf', 'oneOf', 'allOf']) {
      const branches = node[key];
      if (Array.isArray(branches)) branches.forEach(visit);
    }
  };
  visit(schema);
  return { types, values, items };
}

/** Names the type of a value for a person: `integer`, `list of string`, `full | incr | diff`. */
export function typeText(shape: ValueShape): string {
  const rest = [...shape.types].filter((type) => type !== 'null');
  if (shape.values.length > 0 && shape.values.every((value) => typeof value !== 'object')) {
    return shape.values.map(String).join(' | ');
  }
  if (rest.length === 0) return 'any';
  return rest
    .map((type) => (type === 'array' ? `list of ${shape.items === undefined ? 'any' : typeText(shape.items)}` : type))
    .join(' or ');
}
