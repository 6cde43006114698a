import { z } from 'zod';
import { isObject } from '../core/json.ts';

type Schema = z.core.$ZodType;

/** Peels one layer that says nothing about the shape of what is written: optional, default, a transform's input side. */
function peel(schema: Schema): Schema | undefined {
  const { def } = (schema as z.core.$ZodTypes)._zod;
  switch (def.type) {
    case 'optional':
    case 'nullable':
    case 'default':
    case 'prefault':
    case 'nonoptional':
    case 'readonly':
    case 'catch':
      return def.innerType;
    case 'pipe':
      return def.in._zod.def.type === 'transform' ? def.out : def.in;
    case 'lazy':
      return def.getter();
    default:
      return undefined;
  }
}

/** Gives the schema of what is written, without optional, default and transform layers. */
export function unwrap(schema: Schema): Schema {
  let current = schema;
  for (let inner = peel(current); inner !== undefined; inner = peel(current)) current = inner;
  return current;
}

const secretReferences = new WeakMap<Schema, boolean>();

/** Tells whether a schema takes a secret by reference only, as `SecretReference` does, also inside optional and the like. */
export function isSecretReference(schema: Schema): boolean {
  const cached = secretReferences.get(schema);
  if (cached !== undefined) return cached;
  let answer = false;
  for (let layer: Schema | undefined = schema; layer !== undefined && !answer; layer = peel(layer)) {
    if (z.globalRegistry.get(layer as z.ZodType)?.['secret'] !== true) continue;
    const probe = z.safeParse(layer, '${env:PROBE}');
    answer = probe.success && isObject(probe.data) && probe.data['secret'] === 'env';
  }
  const inner = unwrap(schema) as z.core.$ZodTypes;
  if (!answer && inner._zod.def.type === 'union')
    answer = inner._zod.def.options.some((option) => isSecretReference(option));
  secretReferences.set(schema, answer);
  return answer;
}

/** Gives the schema of one member of what is written, where it is known. */
export function childSchema(schema: Schema, key: PropertyKey): Schema | undefined {
  const { def } = (unwrap(schema) as z.core.$ZodTypes)._zod;
  switch (def.type) {
    case 'object':
      return Object.hasOwn(def.shape, key) ? def.shape[String(key)] : def.catchall;
    case 'record':
      return def.valueType;
    case 'array':
      return def.element;
    case 'tuple':
      return def.items[Number(key)] ?? def.rest ?? undefined;
    case 'union':
      return def.options.map((option) => childSchema(option, key)).find((child) => child !== undefined);
    case 'intersection':
      return childSchema(def.left, key) ?? childSchema(def.right, key);
    default:
      return undefined;
  }
}

/** Tells whether a secret belongs at a path. */
export function isSecretAt(schema: Schema, path: readonly PropertyKey[]): boolean {
  let current: Schema | undefined = schema;
  for (const key of path) {
    if (current !== undefined && isSecretReference(current)) return true;
    current = current === undefined ? undefined : childSchema(current, key);
  }
  return current !== undefined && isSecretReference(current);
}

/** The keys that a mapping may have; undefined where it may have any, or where the schema takes no mapping. */
export function knownKeys(schema: Schema): string[] | undefined {
  const { def } = (unwrap(schema) as z.core.$ZodTypes)._zod;
  switch (def.type) {
    case 'object':
      return def.catchall === undefined || def.catchall._zod.def.type === 'never' ? Object.keys(def.shape) : undefined;
    case 'union': {
      const mappings = def.options.filter((option) => takesMapping(option)).map((option) => knownKeys(option));
      if (mappings.length === 0 || mappings.includes(undefined)) return undefined;
      return [...new Set(mappings.flatMap((keys) => keys ?? []))];
    }
    case 'intersection': {
      const [left, right] = [knownKeys(def.left), knownKeys(def.right)];
      return left === undefined || right === undefined ? undefined : [...left, ...right];
    }
    default:
      return undefined;
  }
}

function takesMapping(schema: Schema): boolean {
  const { def } = (unwrap(schema) as z.core.$ZodTypes)._zod;
  return ['object', 'record', 'union', 'intersection', 'any', 'unknown'].includes(def.type);
}

export interface WalkVisitor {
  /** A scalar text; `secret` where a secret reference belongs. */
  text?(text: string, path: readonly PropertyKey[], secret: boolean): void;
  /** A key that the schema does not know, with those that it does. */
  unknown?(path: readonly PropertyKey[], known: readonly string[]): void;
}

/** Goes through what is written alongside its schema. What is under an unknown key is not visited. */
export function walkWritten(
  value: unknown,
  schema: Schema,
  visitor: WalkVisitor,
  path: readonly PropertyKey[] = [],
): void {
  const inside = (key: PropertyKey, member: unknown): void => {
    const child = childSchema(schema, key);
    // `unknown` for what the schema leaves open: nothing is known of it, but its texts still count.
    walkWritten(member, child ?? z.unknown(), visitor, [...path, key]);
  };
  if (typeof value === 'string') {
    visitor.text?.(value, path, isSecretReference(schema));
  } else if (Array.isArray(value)) {
    for (const [index, member] of value.entries()) inside(index, member);
  } else if (isObject(value)) {
    const known = knownKeys(schema);
    for (const [key, member] of Object.entries(value)) {
      if (known !== undefined && !known.includes(key)) visitor.unknown?.([...path, key], known);
      else inside(key, member);
    }
  }
}
