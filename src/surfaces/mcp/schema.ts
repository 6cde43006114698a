import { z } from 'zod';
import { isObject, type JsonObject, type JsonValue } from '../../core/json.ts';

/** A JSON Schema as a list of tools shows it. */
export type ListedSchema = JsonObject & { type: 'object'; properties: JsonObject };

// What a model needs to fill in a call. Everything else that zod writes (bounds, patterns, defaults, titles, `$schema`,
// `additionalProperties: false`) is checked by the engine anyway, and every tool would carry it into every conversation.
const INPUT_KEYWORDS = ['description', 'type', 'format', 'enum', 'const', 'properties', 'items', 'required'] as const;
const OUTPUT_KEYWORDS = ['type', 'enum', 'const', 'properties', 'items', 'required'] as const;

/** Gives the smallest true JSON Schema of an input: whatever the schema accepts from a model's hands is valid under it. */
export function listInput(input: z.ZodType): ListedSchema {
  const full = z.toJSONSchema(input, { io: 'input', unrepresentable: 'any' }) as JsonObject;
  const {
    type: _type,
    properties,
    required,
    ...rest
  } = shrink(resolve(full), INPUT_KEYWORDS, Number.POSITIVE_INFINITY);
  return {
    ...rest,
    type: 'object',
    properties: isObject(properties) ? (properties as JsonObject) : {},
    ...(required === undefined ? {} : { required }),
  };
}

/**
 * Gives the shape of an output, members of members at the deepest. Nothing is required at the top: a 2025 client of the
 * first SDK line holds an error's structured content against this schema too, and would throw instead of showing the plan.
 */
export function listOutput(output: z.ZodType): ListedSchema {
  const known = outputs.get(output);
  if (known !== undefined) return known;
  const full = z.toJSONSchema(output, { io: 'output', unrepresentable: 'any' }) as JsonObject;
  const { properties } = shrink(resolve(full), OUTPUT_KEYWORDS, 2);
  const listed: ListedSchema = { type: 'object', properties: isObject(properties) ? (properties as JsonObject) : {} };
  outputs.set(output, listed);
  return listed;
}

// Many tools share a few outputs, and a list is wanted right after the start.
const outputs = new WeakMap<z.ZodType, ListedSchema>();

/** Replaces a reference at the root, which zod writes for a schema that is registered under an id or contains itself. */
function resolve(schema: JsonObject): JsonObject {
  const name = typeof schema['$ref'] === 'string' ? /^#\/\$defs\/(.+)$/.exec(schema['$ref'])?.[1] : undefined;
  const definitions = schema['$defs'];
  const target = name !== undefined && isObject(definitions) ? definitions[name] : undefined;
  return isObject(target) ? (target as JsonObject) : schema;
}

function shrink(schema: JsonObject, keywords: readonly string[], depth: number): JsonObject {
  const choices = schema['anyOf'] ?? schema['oneOf'];
  if (Array.isArray(choices)) return { ...described(schema, keywords), ...choose(choices, keywords, depth) };
  const small: JsonObject = {};
  for (const keyword of keywords) {
    const value = schema[keyword];
    if (value === undefined) continue;
    if (keyword === 'properties' && isObject(value)) {
      if (depth > 0) small[keyword] = shrinkEach(value as JsonObject, keywords, depth - 1);
    } else if (keyword === 'items' && isObject(value)) {
      small[keyword] = shrink(value as JsonObject, keywords, depth);
    } else if (keyword !== 'required' || depth > 0) small[keyword] = value;
  }
  return small;
}

function shrinkEach(properties: JsonObject, keywords: readonly string[], depth: number): JsonObject {
  return Object.fromEntries(
    Object.entries(properties).map(([name, schema]) => [name, shrink(schema as JsonObject, keywords, depth)]),
  );
}

/**
 * Writes a union. One that takes any string is listed as a string where that loses nothing a model needs (an instant
 * may be Unix seconds, in digits too), because clients of some models cannot read unions.
 */
function choose(choices: JsonValue[], keywords: readonly string[], depth: number): JsonObject {
  const shrunk = choices.map((choice) => shrink(choice as JsonObject, keywords, depth));
  const scalars = shrunk.every((choice) => ['string', 'integer', 'number'].includes(String(choice['type'])));
  const text = shrunk.find((choice) => choice['type'] === 'string' && choice['enum'] === undefined);
  if (keywords === INPUT_KEYWORDS && scalars && text !== undefined) return text;
  return { anyOf: shrunk };
}

function described(schema: JsonObject, keywords: readonly string[]): JsonObject {
  const description = schema['description'];
  return typeof description === 'string' && keywords.includes('description') ? { description } : {};
}
