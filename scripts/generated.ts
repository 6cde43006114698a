import { renderExample } from '../src/config/example.ts';
import { configJsonSchema } from '../src/config/json-schema.ts';
import { collect } from '../src/engine/registry.ts';
import { renderActions } from '../src/surfaces/docs/actions.ts';
import * as tools from '../tools/index.ts';

/** Renders every file that is written from the declarations; paths are from the top of the checkout. */
export function renderGenerated(): ReadonlyMap<string, string> {
  const { actions, fleet, providers, entityTypes } = collect(inNameOrder(tools));
  const types = Object.fromEntries(
    [...entityTypes].map(([defines, { provider, type }]) => [defines, { provider: provider.id, type }]),
  );
  return new Map([
    ['docs/actions.md', renderActions([...fleet, ...actions], providers)],
    ['holdfast.example.yaml', renderExample(types)],
    ['holdfast.schema.json', `${JSON.stringify(configJsonSchema(types), null, 2)}\n`],
  ]);
}

/** Node lists what a module exports by name, test runners as it is written: the files must not differ by who writes them. */
function inNameOrder(modules: Readonly<Record<string, object>>): Record<string, Record<string, unknown>> {
  const sorted = (value: object): [string, unknown][] => Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(
    sorted(modules).map(([name, module]) => [name, Object.fromEntries(sorted(module as object))]),
  );
}
