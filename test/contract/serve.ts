import addFormats from 'ajv-formats';
import { OpenAPIBackend } from 'openapi-backend';
import { isObject } from '../../src/core/json.ts';
import type { Simulator, SimulatorRequest, SimulatorResponse } from '../../src/simulators/simulator.ts';
import { type ApiDocument, type ApiOperation, METHODS, type Node, readDocument, resolve } from './documents.ts';

/** The folder of the official API descriptions, or undefined: then contract tests are skipped. */
export const specDirectory: string | undefined = process.env['HOLDFAST_SPEC_DIR'] || undefined;

/** Ends the title of a contract suite, so that a skipped one says why. */
export const specReason = specDirectory === undefined ? ' (SKIPPED: HOLDFAST_SPEC_DIR is not set)' : '';

export interface ContractOptions {
  /** File name in HOLDFAST_SPEC_DIR: OpenAPI 3.0, Swagger 2.0 or a Google discovery document. */
  readonly document: string;
  /** `METHOD /path` of calls that the document leaves out on purpose, a token request; they are not checked. */
  readonly beside?: readonly RegExp[];
  /** Known differences between the document and the service: faults that match are dropped. Each needs its reason beside it. */
  readonly allow?: readonly RegExp[];
  /** Paths that the service takes and the document spells otherwise, `METHOD /path` to an operation id. */
  readonly aliases?: readonly { readonly when: RegExp; readonly operation: string }[];
  /** Whether a media type fits the declared ones; equality or `*\/*` when left out. */
  readonly mediaType?: (given: string, declared: readonly string[], direction: 'request' | 'answer') => boolean;
  /** Properties of answers that the document does not name are no fault, for documents that leave most of them out. */
  readonly openAnswers?: boolean;
}

/** Holds traffic against an official API description, in both directions. */
export interface Contract {
  /** What did not fit, `operation: request …` or `operation: answer …`; a suite ends with `expect(faults).toEqual([])`. */
  readonly faults: string[];
  /** Ids of the operations that were called. */
  readonly seen: Set<string>;
  /** Ids of all operations of the document. */
  readonly operations: ReadonlySet<string>;
  /** Allowances that nothing needed so far. */
  unusedAllowances(): string[];
  /** Gives the simulator with every request to it and every answer from it checked on the way. */
  wrap(simulator: Simulator): Simulator;
}

interface Route {
  readonly method: string;
  readonly pattern: RegExp;
  readonly template: string;
  readonly literal: number;
  readonly operation: ApiOperation;
}

const FORMATS = ['date-time', 'date', 'uuid', 'email', 'uri', 'int32'] as const;

/** Loads an API description and gives the checks; only for suites that run with HOLDFAST_SPEC_DIR set, or with their own folder. */
export async function openContract(options: ContractOptions, folder = specDirectory): Promise<Contract> {
  if (folder === undefined) throw new Error('HOLDFAST_SPEC_DIR is not set');
  const document = readDocument(folder, options.document);
  const root = new URL(document.servers?.[0]?.url ?? '/', 'http://any').pathname.replace(/\/$/, '');
  const routes = routesOf(document, root);
  const [requests, answers] = await Promise.all([
    validator(document, root, 'readOnly'),
    validator(document, root, 'writeOnly'),
  ]);
  const faults: string[] = [];
  const seen = new Set<string>();
  const used = new Set<RegExp>();
  const fits =
    options.mediaType ??
    ((given: string, declared: readonly string[]) => declared.includes(given) || declared.includes('*/*'));

  const report = (fault: string): void => {
    const allowance = options.allow?.find((pattern) => pattern.test(fault));
    if (allowance === undefined) faults.push(fault);
    else used.add(allowance);
  };

  const find = (request: SimulatorRequest): Route | undefined => {
    const call = `${request.method} ${request.url.pathname}`;
    const alias = options.aliases?.find(({ when }) => when.test(call));
    if (alias !== undefined) return routes.find(({ operation }) => operation.operationId === alias.operation);
    return routes.find(({ method, pattern }) => method === request.method && pattern.test(request.url.pathname));
  };

  const checkRequest = (request: SimulatorRequest, { operation, pattern }: Route): void => {
    const where = `${operation.operationId}: request`;
    const query: Record<string, string | string[]> = {};
    for (const name of new Set(request.url.searchParams.keys())) {
      const values = request.url.searchParams.getAll(name);
      query[name] = values.length === 1 ? (values[0] as string) : values;
    }
    // An alias spells the path otherwise, so its parameters cannot be read from it.
    if (pattern.test(request.url.pathname)) {
      const result = requests.validateRequest(
        {
          method: request.method,
          path: request.url.pathname,
          headers: { ...request.headers },
          query,
          ...(request.json === undefined ? {} : { body: request.json }),
        },
        operation.operationId,
      );
      for (const error of result.errors ?? []) report(`${where} ${error.instancePath || '/'} ${describe(error)}`);
    }
    const declared = Object.keys(operation.requestBody?.content ?? {});
    const sent = request.headers['content-type']?.split(';')[0]?.trim();
    if (request.text !== '') {
      if (declared.length === 0) report(`${where} has a body, and the operation takes none`);
      else if (sent === undefined || !fits(sent, declared, 'request'))
        report(`${where} content type ${sent} is not declared`);
      if (request.json === undefined) report(`${where} body is not JSON`);
    }
    const schema = schemaIn(operation.requestBody?.content);
    if (schema !== undefined && request.json !== undefined) {
      for (const fault of strangers(document, schema, request.json, 'readOnly')) report(`${where} body ${fault}`);
    }
  };

  const checkAnswer = (response: SimulatorResponse, { operation }: Route): void => {
    const where = `${operation.operationId}: answer ${response.status}`;
    const declared = declaredFor(operation, response.status);
    if (declared === undefined) {
      report(`${where} is not a declared status`);
      return;
    }
    const types = Object.keys(declared.content ?? {});
    const isEmpty = response.body === undefined || response.body === '';
    if (isEmpty) {
      if (types.length > 0 && response.status !== 204) report(`${where} has no body`);
      return;
    }
    const header = Object.entries(response.headers ?? {}).find(([name]) => name.toLowerCase() === 'content-type')?.[1];
    const type = (header ?? (typeof response.body === 'string' ? 'text/plain' : 'application/json')).split(
      ';',
    )[0] as string;
    if (types.length > 0 && !fits(type, types, 'answer')) report(`${where} content type ${type} is not declared`);
    const body = JSON.parse(JSON.stringify(response.body)) as unknown;
    const result = answers.validateResponse(body, operation.operationId, response.status);
    for (const error of result.errors ?? []) report(`${where} ${error.instancePath || '/'} ${describe(error)}`);
    const schema = schemaIn(declared.content);
    if (schema !== undefined && options.openAnswers !== true) {
      for (const fault of strangers(document, schema, body, 'writeOnly')) report(`${where} body ${fault}`);
    }
  };

  return {
    faults,
    seen,
    operations: new Set(routes.map(({ operation }) => operation.operationId)),
    unusedAllowances: () => (options.allow ?? []).filter((pattern) => !used.has(pattern)).map(String),
    wrap: (simulator) => ({
      provider: simulator.provider,
      matches: (request) => simulator.matches(request),
      ...(simulator.writes === undefined ? {} : { writes: (request) => simulator.writes?.(request) ?? true }),
      ...(simulator.operation === undefined ? {} : { operation: (request) => simulator.operation?.(request) }),
      ...(simulator.dispose === undefined ? {} : { dispose: () => simulator.dispose?.() ?? Promise.resolve() }),
      async handle(request) {
        const call = `${request.method} ${request.url.pathname}`;
        if (options.beside?.some((pattern) => pattern.test(call))) return simulator.handle(request);
        const route = find(request);
        if (route === undefined) {
          report(`${call}: no such operation`);
          return simulator.handle(request);
        }
        seen.add(route.operation.operationId);
        checkRequest(request, route);
        const response = await simulator.handle(request);
        checkAnswer(response, route);
        return response;
      },
    }),
  };
}

function routesOf(document: ApiDocument, root: string): Route[] {
  const routes = Object.entries(document.paths).flatMap(([template, item]) =>
    METHODS.flatMap((method) => {
      const operation = item[method];
      if (operation === undefined) return [];
      const literal = template.replace(/\{[^}]+\}/g, '');
      const source = template
        .split(/(\{[^}]+\})/)
        .map((part) => (part.startsWith('{') ? '[^/]+?' : part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')))
        .join('');
      const pattern = new RegExp(`^${root}${source}/?$`);
      return [{ method: method.toUpperCase(), pattern, template, literal: literal.length, operation }];
    }),
  );
  // `/snapshots/shardedClusters` before `/snapshots/{id}`.
  return routes.sort((a, b) => b.literal - a.literal);
}

/**
 * Builds the schema checks of one direction. What only the other direction carries is not required in this one, and
 * versioned JSON media types count as JSON, which is all that openapi-backend looks at.
 */
async function validator(document: ApiDocument, root: string, absent: 'readOnly' | 'writeOnly') {
  const definition = structuredClone(document) as ApiDocument;
  for (const item of Object.values(definition.paths)) {
    for (const operation of Object.values(item)) {
      if (operation.requestBody !== undefined) asJson(operation.requestBody);
      for (const response of Object.values(operation.responses)) if (response.content !== undefined) asJson(response);
    }
  }
  relax(definition, definition, absent);
  const backend = new OpenAPIBackend({
    definition: definition as never,
    apiRoot: root === '' ? '/' : root,
    quick: true,
    strict: true,
    coerceTypes: true,
    ajvOpts: { strict: false, unicodeRegExp: true, allErrors: true },
    customizeAjv: (ajv) => {
      addFormats.default(ajv, [...FORMATS]);
      return ajv;
    },
  });
  await backend.init();
  return backend.validator;
}

function asJson(holder: { content?: Record<string, { schema?: Node }> }): void {
  const schema = schemaIn(holder.content);
  if (schema === undefined) delete holder.content;
  else holder.content = { 'application/json': { schema } };
}

function schemaIn(content: Record<string, { schema?: Node }> | undefined): Node | undefined {
  return Object.entries(content ?? {}).find(([type]) => /json|\*\/\*/.test(type))?.[1].schema;
}

function relax(document: Node, node: unknown, absent: 'readOnly' | 'writeOnly'): void {
  if (Array.isArray(node)) for (const member of node) relax(document, member, absent);
  if (!isObject(node)) return;
  const { required, properties } = node;
  if (Array.isArray(required) && isObject(properties)) {
    node['required'] = required.filter((name) => {
      const property = properties[String(name)];
      return !isObject(property) || resolve(document, property)[absent] !== true;
    });
  }
  for (const member of Object.values(node)) relax(document, member, absent);
}

function declaredFor(operation: ApiOperation, status: number): ApiOperation['responses'][string] | undefined {
  const { responses } = operation;
  return responses[String(status)] ?? responses[`${Math.floor(status / 100)}XX`] ?? responses['default'];
}

/**
 * Lists what a value has and its schema does not name, through references and compositions: documents seldom forbid
 * additional properties, so validators let a misspelt name pass. Properties of the other direction count too.
 */
function strangers(document: Node, schema: Node, value: unknown, foreign: 'readOnly' | 'writeOnly', at = ''): string[] {
  return walk(document, [schema], value, foreign, at);
}

function walk(
  document: Node,
  schemas: Node[],
  value: unknown,
  foreign: 'readOnly' | 'writeOnly',
  at: string,
): string[] {
  if (Array.isArray(value)) {
    const items = schemas
      .flatMap((schema) => expand(document, schema, value))
      .flatMap((schema) => schema['items'] ?? []);
    if (items.length === 0) return [];
    return value.flatMap((member, index) => walk(document, items as Node[], member, foreign, `${at}/${index}`));
  }
  if (!isObject(value)) return [];
  const parts = schemas.flatMap((schema) => expand(document, schema, value));
  const named = parts.filter((part) => isObject(part['properties']));
  const open = parts.flatMap((part) => part['additionalProperties'] ?? []);
  // A schema that names no property at all describes a free object.
  if (named.length === 0 && !open.some(isObject)) return [];
  return Object.entries(value).flatMap(([name, member]) => {
    const found = named.flatMap((part) => (part['properties'] as Node)[name] ?? []) as Node[];
    if (found.length > 0) {
      const isForeign = found.every(
        (property) => property[foreign] === true || resolve(document, property)[foreign] === true,
      );
      return [
        ...(isForeign ? [`${at}/${name} is ${foreign}`] : []),
        ...walk(document, found, member, foreign, `${at}/${name}`),
      ];
    }
    if (open.includes(true)) return [];
    const free = open.filter(isObject);
    if (free.length > 0) return walk(document, free, member, foreign, `${at}/${name}`);
    return [`${at}/${name} is not in the document`];
  });
}

/** Gives a schema and all that it is composed of; a discriminator that names the value's kind leaves the others out. */
function expand(document: Node, schema: Node, value: unknown, seen = new Set<Node>()): Node[] {
  const found = resolve(document, schema);
  if (seen.has(found)) return [];
  seen.add(found);
  const discriminator = found['discriminator'] as
    | { propertyName: string; mapping?: Record<string, string> }
    | undefined;
  const kind = isObject(value) && discriminator !== undefined ? value[discriminator.propertyName] : undefined;
  const mapped = typeof kind === 'string' ? discriminator?.mapping?.[kind] : undefined;
  const kinds = mapped === undefined ? Object.values(discriminator?.mapping ?? {}) : [mapped];
  const children = [
    ...((found['allOf'] ?? []) as Node[]),
    ...(mapped === undefined ? [...((found['anyOf'] ?? []) as Node[]), ...((found['oneOf'] ?? []) as Node[])] : []),
    ...kinds.map((reference): Node => ({ $ref: reference })),
  ];
  return [found, ...children.flatMap((child) => expand(document, child, value, seen))];
}

function describe(error: { message?: string | undefined; params?: unknown }): string {
  return `${error.message ?? 'does not fit'} ${JSON.stringify(error.params ?? {})}`;
}
