import { z } from 'zod';
import { isObject, type JsonObject, type JsonValue } from '../core/json.ts';
import { StorageConfig } from '../storage/config.ts';
import { type EntityTypes, GUIDE_BLOCKS, takesStore } from './entities.ts';
import { GuardInput } from './guard-schema.ts';
import { SchedulesInput } from './schedules.ts';
import { secrecyOf } from './schema-walk.ts';
import { AlertsInput, EntityBaseInput, ServerInput } from './sections.ts';

const SECRET = { $ref: '#/$defs/secret' };
const REFERENCE = { $ref: '#/$defs/reference' };
const NAME = '^[a-z0-9][a-z0-9._-]{0,99}$';

/** Makes the JSON Schema (draft 2020-12) of a whole entities file, for editors. */
export function configJsonSchema(entityTypes: EntityTypes): JsonObject {
  const types = Object.entries(entityTypes);
  const common = propertiesOf(entityPart(EntityBaseInput.omit({ schedules: true })));
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Holdfast entities file',
    type: 'object',
    properties: {
      namespace: { type: 'string', pattern: NAME, description: 'The first part of every entity key below it.' },
      include: {
        description: 'Paths or globs of further files, relative to this one.',
        anyOf: [{ type: 'string' }, { type: 'array', items: { type: 'string' } }],
      },
      guard: withHyphens(toSchema(GuardInput)),
      server: withHyphens(toSchema(ServerInput)),
      alerts: withHyphens(toSchema(AlertsInput)),
      storage: {
        description: 'Places for backups by name, or a single one.',
        anyOf: [
          { $ref: '#/$defs/store' },
          { type: 'object', propertyNames: { pattern: NAME }, additionalProperties: { $ref: '#/$defs/store' } },
        ],
      },
    },
    additionalProperties: { $ref: '#/$defs/entity' },
    $defs: {
      secret: {
        type: 'string',
        pattern: '^\\$\\{(env:[A-Za-z_][A-Za-z0-9_]*|file:[^}]+)\\}$',
        description: 'A reference to a secret: ${env:NAME} or ${file:/path}.',
      },
      reference: {
        type: 'string',
        pattern: '\\$\\{(env|file):[^}]+\\}',
        description: 'A value read at first use: ${env:NAME}, ${env:NAME:-default} or ${file:/path}.',
      },
      store: entityPart(StorageConfig),
      schedules: { description: 'Calls that the clock makes.', ...toSchema(SchedulesInput) },
      entity: {
        type: 'object',
        properties: {
          defines: {
            description: 'What kind of database this is.',
            oneOf: types.map(([defines, { type }]) => ({ const: defines, title: type.title })),
          },
        },
        required: ['defines'],
        allOf: types.map(([defines]) => whenDefines(defines)),
      },
      ...Object.fromEntries(
        types.map(([defines, { type }]) => {
          const own = withStore(entityPart(type.schema), takesStore(type));
          return [
            defNameOf(defines),
            {
              ...own,
              title: type.title,
              properties: {
                defines: { const: defines },
                ...Object.fromEntries(
                  [...GUIDE_BLOCKS, ...type.ignored].map((key) => [
                    key,
                    { description: 'Accepted and not used by Holdfast.' },
                  ]),
                ),
                ...common,
                schedules: { $ref: '#/$defs/schedules' },
                ...propertiesOf(own),
              },
              additionalProperties: false,
            },
          ];
        }),
      ),
    },
  };
}

/** A type with a store may name one of the section `storage`, or take the one called default. */
function withStore(schema: JsonObject, applies: boolean): JsonObject {
  if (!applies) return schema;
  const { storage, ...properties } = propertiesOf(schema);
  const required = (schema['required'] ?? []) as string[];
  return {
    ...schema,
    properties: { ...properties, storage: { anyOf: [{ type: 'string', pattern: NAME }, storage ?? {}] } },
    required: required.filter((key) => key !== 'storage'),
  };
}

function whenDefines(defines: string): JsonObject {
  const condition = { properties: { defines: { const: defines } }, required: ['defines'] };
  // Entries, because an object literal with a member called then looks like a promise.
  return Object.fromEntries([
    ['if', condition],
    ['then', { $ref: `#/$defs/${defNameOf(defines)}` }],
  ]);
}

function defNameOf(defines: string): string {
  return defines.replaceAll('/', '.');
}

function toSchema(schema: z.core.$ZodType): JsonObject {
  const json = z.toJSONSchema(schema, {
    io: 'input',
    target: 'draft-2020-12',
    unrepresentable: 'any',
    override({ zodSchema, jsonSchema }) {
      if (secrecyOf(zodSchema) !== 'always') return;
      for (const key of Object.keys(jsonSchema)) if (key !== 'description') delete jsonSchema[key];
      Object.assign(jsonSchema, SECRET);
    },
  });
  const { $schema: _, ...rest } = json as JsonObject;
  return rest;
}

/** The schema of something in which every value may also be a reference. */
function entityPart(schema: z.core.$ZodType): JsonObject {
  return allowReferences(toSchema(schema)) as JsonObject;
}

const STRUCTURE = ['properties', 'items', 'anyOf', 'oneOf', 'allOf', 'additionalProperties', 'prefixItems'];

function allowReferences(schema: JsonValue | undefined): JsonValue | undefined {
  if (Array.isArray(schema)) return schema.map((member) => allowReferences(member) ?? null);
  if (!isObject(schema)) return schema;
  const node = schema as JsonObject;
  const isPlainText = node['type'] === 'string' && !('pattern' in node) && !('enum' in node) && !('maxLength' in node);
  const isScalar = ['string', 'number', 'integer', 'boolean'].includes(String(node['type'])) || 'enum' in node;
  if (isScalar && !isPlainText && !('const' in node)) {
    const { description, title, default: fallback, ...rest } = node;
    const about = Object.fromEntries(
      Object.entries({ title, description, default: fallback }).filter(([, value]) => value !== undefined),
    );
    return { ...about, anyOf: [rest, REFERENCE] };
  }
  return Object.fromEntries(
    Object.entries(node).map(([key, value]) => {
      if (!STRUCTURE.includes(key)) return [key, value];
      if (key !== 'properties' || !isObject(value)) return [key, allowReferences(value)];
      return [
        key,
        Object.fromEntries(
          Object.entries(value as JsonObject).map(([name, member]) => [name, allowReferences(member)]),
        ),
      ];
    }),
  );
}

/** Lets every key with an underscore be written with a hyphen too. */
function withHyphens(schema: JsonObject): JsonObject {
  return Object.fromEntries(
    Object.entries(schema).map(([key, value]) => {
      if (Array.isArray(value))
        return [key, value.map((member) => (isObject(member) ? withHyphens(member as JsonObject) : member))];
      if (!isObject(value)) return [key, value];
      const inner = withHyphens(value as JsonObject);
      if (key !== 'properties') return [key, inner];
      const spelled = Object.entries(inner).flatMap(([name, member]) =>
        name.includes('_')
          ? [
              [name, member],
              [name.replaceAll('_', '-'), member],
            ]
          : [[name, member]],
      );
      return [key, Object.fromEntries(spelled)];
    }),
  );
}

function propertiesOf(schema: JsonObject): JsonObject {
  return (schema['properties'] ?? {}) as JsonObject;
}
