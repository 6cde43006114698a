import type { z } from 'zod';
import type { EntityBase } from '../core/context.ts';
import { isObject } from '../core/json.ts';
import type { EntityType } from '../core/provider.ts';
import { isSecretName } from '../core/secret-name.ts';
import { type LocalFault, secretFault, unknownKey } from './faults.ts';
import type { Environment } from './references.ts';
import { readSchedules } from './schedules.ts';
import { childSchema, knownKeys } from './schema-walk.ts';
import { EntityBaseInput } from './sections.ts';
import type { Position } from './source.ts';
import { inspectWritten, isExpression, type LocatedReference, resolveWritten, type Written } from './written.ts';

/** An entity type with the provider that has it. */
export interface KnownEntityType {
  readonly provider: string;
  readonly type: EntityType;
}

/** `defines` -> the entity type. */
export type EntityTypes = Readonly<Record<string, KnownEntityType>>;

/** One entity as the file declares it; `resolveEntity` makes it usable. */
export interface EntityDeclaration {
  /** What is known without resolving anything: `parameters` and `endpoint` are absent while they wait for a reference. */
  readonly base: EntityBase;
  readonly type: EntityType;
  /** Parameters that do not concern backups, as the file names them. */
  readonly ignored: readonly string[];
  /** Everything outside of the file that it names, secrets included. */
  readonly references: readonly LocatedReference[];
  /** Whether something is read at first use only. */
  readonly deferred: boolean;
  readonly at: Position;
  /** The place of a part of it; there only where something is checked after the file was read. */
  readonly place?: ((path: readonly PropertyKey[], onKey?: boolean) => Position) | undefined;
  readonly parameters: Written<Record<string, unknown>>;
  readonly common: Written<CommonFields>;
}

type CommonFields = z.output<typeof EntityBaseInput>;

/** What entity files of the action guide hold besides parameters: accepted everywhere and ignored. */
export const GUIDE_BLOCKS = [
  'connections',
  'depends',
  'metadata',
  'permitted-secrets',
  'permitted_secrets',
  'services',
] as const;

const COMMON = Object.keys(EntityBaseInput.shape);
/** What counts before anything is resolved: an endpoint may wait for a reference. */
const LiteralFields = EntityBaseInput.omit({ endpoint: true });

/** Tells whether a type's parameter `storage` takes a store, so that it may name one of the section `storage` instead. */
export function takesStore(type: EntityType): boolean {
  const schema = childSchema(type.schema, 'storage');
  return schema !== undefined && knownKeys(schema)?.includes('type') === true;
}

/** Checks one entity's declaration; whatever is wrong with it is among the faults. */
export function declareEntity(
  identity: { namespace: string; name: string; defines: string; at: Position; baseDirectory: string },
  value: Readonly<Record<string, unknown>>,
  known: KnownEntityType,
): { declaration: EntityDeclaration; faults: LocalFault[] } {
  const { namespace, name, defines, at, baseDirectory } = identity;
  const { schema, ignored: ignorable } = known.type;
  const key = `${namespace}/${name}`;
  const where = `entity '${key}'`;
  const faults: LocalFault[] = [];
  const own = Object.keys(schema.shape);
  const parameters: Record<string, unknown> = {};
  const common: Record<string, unknown> = {};
  const ignored: string[] = [];
  for (const [parameter, member] of Object.entries(value)) {
    if (parameter === 'defines') continue;
    if (COMMON.includes(parameter)) common[parameter] = member;
    if (own.includes(parameter)) parameters[parameter] = member;
    else if (ignorable.includes(parameter) || GUIDE_BLOCKS.some((block) => block === parameter)) {
      ignored.push(parameter);
      faults.push(...literalSecrets(member, [parameter]));
    } else if (!COMMON.includes(parameter)) {
      // Only parameters that count are suggested; the ignored ones would not help anybody.
      faults.push(unknownKey([parameter], [...own, ...COMMON]));
    }
  }

  const inCommon = inspectWritten<CommonFields>(where, common, EntityBaseInput, baseDirectory);
  const inParameters = inspectWritten(where, parameters, schema, baseDirectory);
  faults.push(...inCommon.faults, ...inParameters.faults);
  for (const { path } of inCommon.written.references) {
    if (path[0] === 'endpoint') continue;
    faults.push({
      path,
      message: `'${path.join('.')}' must be written out`,
      suggestion: 'The guard and the posture rest on it before anything is resolved.',
    });
  }

  const references = [...inCommon.written.references, ...inParameters.written.references];
  const literal = inCommon.written.parsed ?? LiteralFields.safeParse(inCommon.written.value).data;
  const schedules = readSchedules(literal?.schedules ?? [], known.type);
  const base: EntityBase = {
    key,
    namespace,
    name,
    defines,
    provider: known.provider,
    labels: literal?.labels ?? {},
    objectives: literal?.objectives ?? {},
    ...(schedules.length === 0 ? {} : { schedules }),
    ...(inCommon.written.parsed?.endpoint === undefined ? {} : { endpoint: inCommon.written.parsed.endpoint }),
    ...(inParameters.written.parsed === undefined ? {} : { parameters: inParameters.written.parsed }),
  };
  const declaration: EntityDeclaration = {
    base,
    type: known.type,
    ignored,
    references,
    deferred: references.some((reference) => !reference.secret),
    at,
    parameters: inParameters.written,
    common: inCommon.written,
  };
  return { declaration, faults };
}

/**
 * Reads what a declaration refers to, secrets left out, and gives the entity as its provider takes it. Where a parameter
 * and a field of `EntityBase` share a name, the field keeps Holdfast's value and `parameters` has the parameter.
 * @throws {HoldfastError} CONFIG_INVALID naming the variable or file and the entity
 */
export function resolveEntity(declaration: EntityDeclaration, env: Environment): EntityBase & Record<string, unknown> {
  const parameters = resolveWritten(declaration.parameters, env);
  const { endpoint } = resolveWritten(declaration.common, env);
  return { ...parameters, ...declaration.base, ...(endpoint === undefined ? {} : { endpoint }), parameters };
}

/** A secret in plain text does not belong into the file, whether Holdfast uses the parameter or not. */
function literalSecrets(value: unknown, path: readonly string[]): LocalFault[] {
  const key = path.at(-1) ?? '';
  if (typeof value === 'string') {
    const isNamed = value === '' || isExpression(value) || /^\$\{(?:env|file):[^}]+\}$/.test(value);
    // The guide's `password_secret` and the like hold the name of a secret that is kept elsewhere.
    const isName = /(?:password|key|token)_secret$/.test(key);
    return isSecretName(key) && !isName && !isNamed ? [secretFault(path)] : [];
  }
  if (!isObject(value)) return [];
  return Object.entries(value).flatMap(([member, inner]) => literalSecrets(inner, [...path, member]));
}
