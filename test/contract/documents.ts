import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isObject } from '../../src/core/json.ts';

export type Node = Record<string, unknown>;

export interface ApiOperation extends Node {
  operationId: string;
  parameters?: Node[];
  requestBody?: { required?: boolean; content: Record<string, { schema?: Node }> };
  responses: Record<string, { content?: Record<string, { schema?: Node }> }>;
}

/** An OpenAPI 3.0 document as far as the checks need it; every `$ref` outside of schemas is followed. */
export interface ApiDocument extends Node {
  openapi: string;
  info: { title: string; version: string };
  servers?: { url: string }[];
  paths: Record<string, Record<string, ApiOperation>>;
  components: { schemas: Record<string, Node> };
}

export const METHODS = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch'] as const;

/** Reads an official API description, OpenAPI 3.0, Swagger 2.0 or Google discovery, as OpenAPI 3.0. */
export function readDocument(folder: string, file: string): ApiDocument {
  const raw = JSON.parse(readFileSync(join(folder, file), 'utf8')) as Node;
  if (raw['kind'] === 'discovery#restDescription') return fromDiscovery(raw);
  if (raw['swagger'] === '2.0') return inline(fromSwagger(raw));
  return inline(raw as ApiDocument);
}

/** Follows a `$ref` of the same document. */
export function resolve(document: Node, node: Node): Node {
  let found = node;
  for (let hops = 0; typeof found['$ref'] === 'string'; hops += 1) {
    if (hops > 20) throw new Error(`endless reference ${found['$ref']}`);
    const path = found['$ref'].replace(/^#\//, '').split('/');
    found = path.reduce<unknown>(
      (at, part) => (at as Node | undefined)?.[part.replaceAll('~1', '/').replaceAll('~0', '~')],
      document,
    ) as Node;
    if (!isObject(found)) throw new Error(`dangling reference ${path.join('/')}`);
  }
  return found;
}

/** Puts referenced parameters, bodies and responses in place and gives every operation an id, so that the checks see them. */
function inline(document: ApiDocument): ApiDocument {
  const paths: ApiDocument['paths'] = {};
  const ids = new Set<string>();
  for (const [path, item] of Object.entries(document.paths)) {
    const shared = (item['parameters'] as unknown as Node[] | undefined) ?? [];
    for (const method of METHODS) {
      const operation = item[method];
      if (operation === undefined) continue;
      // Where a document gives two operations one id, method and path tell them apart.
      const named = operation.operationId;
      const id = named === undefined || ids.has(named) ? `${method.toUpperCase()} ${path}` : named;
      ids.add(id);
      const body = operation.requestBody && resolve(document, operation.requestBody as unknown as Node);
      paths[path] = {
        ...paths[path],
        [method]: {
          ...operation,
          operationId: id,
          parameters: [...shared, ...(operation.parameters ?? [])].map((parameter) => resolve(document, parameter)),
          ...(body === undefined ? {} : { requestBody: body as unknown as ApiOperation['requestBody'] }),
          responses: Object.fromEntries(
            Object.entries(operation.responses).map(([status, response]) => [
              status,
              resolve(document, response as Node) as ApiOperation['responses'][string],
            ]),
          ),
        } as ApiOperation,
      };
    }
  }
  return { ...document, paths, components: { ...document.components, schemas: document.components?.schemas ?? {} } };
}

/** Turns a Google discovery document into OpenAPI: 64-bit integers stay strings, `required` exists for parameters only. */
function fromDiscovery(raw: Node): ApiDocument {
  const schema = (node: unknown): unknown => {
    if (Array.isArray(node)) return node.map(schema);
    if (!isObject(node)) return node;
    const result: Node = {};
    for (const [key, value] of Object.entries(node)) {
      if (key === '$ref') result[key] = `#/components/schemas/${String(value)}`;
      else if (key === 'type' && value === 'any') continue;
      else if (key === 'format' && value !== 'int32' && value !== 'date-time') continue;
      else if (key === 'properties')
        result[key] = Object.fromEntries(Object.entries(value as Node).map(([name, member]) => [name, schema(member)]));
      else if (['type', 'items', 'enum', 'format', 'pattern', 'additionalProperties', 'readOnly'].includes(key))
        result[key] = schema(value);
    }
    return result;
  };
  const parameter = (name: string, given: Node): Node => {
    const { type, enum: choices, format, repeated } = given;
    const single = schema({ type, enum: choices, format }) as Node;
    return {
      name,
      in: given['location'],
      required: given['location'] === 'path' || given['required'] === true,
      schema: repeated === true ? { type: 'array', items: prune(single) } : prune(single),
    };
  };
  const common = Object.entries((raw['parameters'] ?? {}) as Record<string, Node>).map(([name, value]) =>
    parameter(name, value),
  );
  const json = (reference: unknown) => ({
    'application/json': { schema: { $ref: `#/components/schemas/${(reference as { $ref: string }).$ref}` } },
  });
  const paths: ApiDocument['paths'] = {};
  const visit = (resource: Node): void => {
    for (const method of Object.values((resource['methods'] ?? {}) as Record<string, Node>)) {
      const template = String(method['flatPath'] ?? method['path']).replaceAll('{+', '{');
      const path = `/${String(raw['servicePath'] ?? '')}${template}`;
      const names = [...template.matchAll(/\{(\w+)\}/g)].map(([, name]) => name as string);
      const declared = Object.entries((method['parameters'] ?? {}) as Record<string, Node>)
        .filter(([, value]) => value['location'] !== 'path')
        .map(([name, value]) => parameter(name, value));
      const inPath = names.map((name) => parameter(name, { type: 'string', location: 'path' }));
      const verb = String(method['httpMethod']).toLowerCase();
      paths[path] = {
        ...paths[path],
        [verb]: {
          operationId: String(method['id']),
          parameters: [...inPath, ...declared, ...common],
          ...(method['request'] === undefined
            ? {}
            : { requestBody: { required: true, content: json(method['request']) } }),
          responses: {
            '200': method['response'] === undefined ? {} : { content: json(method['response']) },
            '4XX': {},
            '5XX': {},
          },
        },
      };
    }
    for (const child of Object.values((resource['resources'] ?? {}) as Record<string, Node>)) visit(child);
  };
  visit(raw);
  return {
    openapi: '3.0.3',
    info: { title: String(raw['title']), version: String(raw['version']) },
    paths,
    components: {
      schemas: Object.fromEntries(
        Object.entries((raw['schemas'] ?? {}) as Node).map(([name, value]) => [name, schema(value) as Node]),
      ),
    },
  };
}

/** Turns a Swagger 2.0 document into OpenAPI 3.0: body parameters, definitions and the base path. */
function fromSwagger(raw: Node): ApiDocument {
  const rename = (node: unknown): unknown => {
    if (Array.isArray(node)) return node.map(rename);
    if (!isObject(node)) return node;
    return Object.fromEntries(
      Object.entries(node).map(([key, value]) => [
        key,
        key === '$ref' ? String(value).replace('#/definitions/', '#/components/schemas/') : rename(value),
      ]),
    );
  };
  const document = rename(raw) as Node;
  discriminate(document['definitions'] as Record<string, Node>);
  const base = String(raw['basePath'] ?? '').replace(/\/$/, '');
  const convert = (given: Node): Node => {
    const { name, in: where, required, ...schema } = resolve(document, given);
    return { name, in: where, required: required === true, schema };
  };
  const paths: ApiDocument['paths'] = {};
  for (const [path, item] of Object.entries(document['paths'] as Record<string, Node>)) {
    for (const method of METHODS) {
      const operation = item[method] as Node | undefined;
      if (operation === undefined) continue;
      const all = [...((item['parameters'] ?? []) as Node[]), ...((operation['parameters'] ?? []) as Node[])];
      const body = all.map((parameter) => resolve(document, parameter)).find((parameter) => parameter['in'] === 'body');
      paths[`${base}${path}`] = {
        ...paths[`${base}${path}`],
        [method]: {
          operationId: operation['operationId'] as string,
          parameters: all.map(convert).filter((parameter) => parameter['in'] !== 'body'),
          ...(body === undefined
            ? {}
            : {
                requestBody: {
                  required: body['required'] === true,
                  content: { 'application/json': { schema: body['schema'] as Node } },
                },
              }),
          responses: Object.fromEntries(
            Object.entries(operation['responses'] as Record<string, Node>).map(([status, response]) => {
              const { schema } = resolve(document, response);
              return [status, schema === undefined ? {} : { content: { 'application/json': { schema } } }];
            }),
          ) as ApiOperation['responses'],
        },
      };
    }
  }
  return {
    openapi: '3.0.3',
    info: { title: 'converted', version: '2.0' },
    paths,
    components: { schemas: document['definitions'] as Record<string, Node> },
  };
}

/**
 * Gives a Swagger discriminator, a name alone, the mapping that OpenAPI has: to the schemas that build on its own, or
 * that are called after it, and name their value.
 */
function discriminate(definitions: Record<string, Node>): void {
  for (const [base, schema] of Object.entries(definitions)) {
    if (typeof schema['discriminator'] !== 'string') continue;
    const reference = `#/components/schemas/${base}`;
    const kinds = Object.entries(definitions).filter(([name, { allOf, 'x-ms-discriminator-value': value }]) => {
      if (value === undefined) return false;
      return Array.isArray(allOf) ? allOf.some((part) => (part as Node)['$ref'] === reference) : name.endsWith(base);
    });
    const mapping = kinds.map(([name, kind]) => [
      String(kind['x-ms-discriminator-value']),
      `#/components/schemas/${name}`,
    ]);
    schema['discriminator'] = { propertyName: schema['discriminator'], mapping: Object.fromEntries(mapping) };
  }
}

function prune(node: Node): Node {
  return Object.fromEntries(Object.entries(node).filter(([, value]) => value !== undefined));
}
