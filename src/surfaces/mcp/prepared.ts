import type { AnyAction } from '../../core/action.ts';
import { OperationView } from '../../core/schemas.ts';
import { type ListedSchema, listInput, listOutput } from './schema.ts';

/** The schemas of an action as a list of tools shows them, before a surface adds parameters of its own. */
export interface ListedSchemas {
  readonly input: ListedSchema;
  readonly output: ListedSchema;
}

/** What the build found them to be, by the name of the action's tool: writing eighty schemas anew is most of a start. */
declare const HOLDFAST_LISTED_SCHEMAS: string | undefined;
const built: Readonly<Record<string, ListedSchemas>> =
  typeof HOLDFAST_LISTED_SCHEMAS === 'string' ? JSON.parse(HOLDFAST_LISTED_SCHEMAS) : {};

/** Gives the listed schemas of an action. */
export function listedSchemas(name: string, action: AnyAction): ListedSchemas {
  return built[name] ?? makeListedSchemas(action);
}

/** Makes them from the action's own schemas. */
export function makeListedSchemas(action: AnyAction): ListedSchemas {
  const answers = action.kind === 'provider' && action.steps !== undefined ? OperationView : action.output;
  return { input: listInput(action.input), output: listOutput(answers) };
}
