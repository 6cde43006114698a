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

/** Whether a schema takes a secret by reference only, a reference or plain text, or no secret. */
export type Secrecy = 'always' | 'either' | 'never';

const known = new WeakMap<Schema, Secrecy>();

/** Tells whether a schema takes a secret by reference, as `SecretReference` does, also inside optional, unions and the like. */
export function secrecyOf(schema: Schema): Secrecy {
  const cached = known.get(schema);
  if (cached !== undefined) return cached;
  const answer = judge(schema);
  known.set(schema, answer);
  return answer;
}

function judge(schema: Schema): Secrecy {
  if (z.globalRegistry.get(schema as z.ZodType)?.['secret'] === true) {
    const probe = z.safeParse(schema, '${env:PROBE}');
    if (probe.success && isObject(probe.data) && probe.data['secret'] === 'env') return 'always';
  }
  // Inside of optional and the like is mostly a schema that many parameters share.
  const inner = peel(schema);
  if (inner !== undefined) return secrecyOf(inner);
  const { def } = (schema as z.core.$ZodTypes)._zod;
  if (def.type !== 'union') return 'never';
  const options = def.options.map((option) => secrecyOf(option));
  if (options.every((option) => option === 'never')) return 'never';
  const takesText = def.options.some(
    (option, index) => options[index] !== 'always' && takes(option, ['string', 'enum', 'literal', 'any', 'unknown']),
  );
  return takesText ? 'either' : 'always';
}

/** Gives the schema of one member of what is written, where it is known. */
export function childSchema(schema: Schema, key: PropertyKey): Schema | undefined {
  const { def } = (unwrap(schema) as z.core.$ZodTypes)._zod;
  switch (def.type) {
    case 'object':
      if (Object.hasOwn(def.shape, key)) return def.shape[String(key)];
      return def.catchall?._zod.def.type === 'never' ? undefined : def.catchall;
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

/** Tells whether nothing but a reference to a secret may stand at a path. */
export function isSecretAt(schema: Schema, path: readonly PropertyKey[]): boolean {
  let current: Schema | undefined = schema;
  for (const key of path) {
    if (current !== undefined && secrecyOf(current) === 'always') return true;
    current = current === undefined ? undefined : childSchema(current, key);
  }
  return current !== undefined && secrecyOf(current) === 'always';
}

const MAPPINGS = ['object', 'record', 'intersection', 'any', 'unknown'];

const keysOf = new WeakMap<Schema, { readonly keys: readonly string[] | undefined }>();

/** The keys that a mapping may have; undefined where it may have any, or where the schema takes no mapping. */
export function knownKeys(schema: Schema): readonly string[] | undefined {
  let cached = keysOf.get(schema);
  if (cached === undefined) {
    cached = { keys: findKeys(schema) };
    keysOf.set(schema, cached);
  }
  return cached.keys;
}

function findKeys(schema: Schema): readonly string[] | undefined {
  const { def } = (unwrap(schema) as z.core.$ZodTypes)._zod;
  switch (def.type) {
    case 'object':
      return def.catchall === undefined || def.catchall._zod.def.type === 'never' ? Object.keys(def.shape) : undefined;
    case 'union': {
      const mappings = def.options.filter((option) => takes(option, MAPPINGS)).map((option) => knownKeys(option));
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

function takes(schema: Schema, types: readonly string[]): boolean {
  const { def } = (unwrap(schema) as z.core.$ZodTypes)._zod;
  return types.includes(def.type) || (def.type === 'union' && def.options.some((option) => takes(option, types)));
}

export interface WalkVisitor {
  text?(text: string, path: readonly PropertyKey[], secrecy: Secrecy): void;
  /** A key that the schema does not know, with those that it does. */
  unknown?(path: readonly PropertyKey[], known: readonly string[]): void;
}

/** The option of a discriminated union that a value chose, where it chose one; else the schema itself. */
function chosen(schema: Schema, value: unknown): Schema {
  const inner = unwrap(schema);
  const { def } = (inner as z.core.$ZodTypes)._zod;
  const key = def.type === 'union' && 'discriminator' in def ? String(def.discriminator) : undefined;
  if (def.type !== 'union' || key === undefined || !isObject(value)) return schema;
  const fits = (option: Schema): boolean => {
    const tag = childSchema(option, key);
    return tag !== undefined && z.safeParse(tag, value[key]).success;
  };
  return def.options.find(fits) ?? schema;
}

/** What a schema leaves open: nothing is known of it, but its texts still count. */
const OPEN = z.unknown();

/** Goes through what is written alongside its schema. What is under an unknown key is not visited. */
export function walkWritten(
  value: unknown,
  whole: Schema,
  visitor: WalkVisitor,
  path: readonly PropertyKey[] = [],
): void {
  const schema = chosen(whole, value);
  const inside = (key: PropertyKey, member: unknown): void => {
    // What is neither text nor holds any has nothing to tell.
    if (typeof member !== 'string' && (typeof member !== 'object' || member === null)) return;
    walkWritten(member, childSchema(schema, key) ?? OPEN, visitor, [...path, key]);
  };
  if (typeof value === 'string') {
    visitor.text?.(value, path, secrecyOf(schema));
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
