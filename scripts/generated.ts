import { renderExample } from '../src/config/example.ts';
import { configJsonSchema } from '../src/config/json-schema.ts';
import { collect } from '../src/engine/registry.ts';
import { renderActions } from '../src/surfaces/docs/actions.ts';
import * as tools from '../tools/index.ts';

/** Renders every file that is written from the declarations; paths are from the top of the checkout. */
export function renderGenerated(): ReadonlyMap<string, string> {
  const { actions, fleet, providers, entityTypes } = collect(tools);
  const types = Object.fromEntries(
    [...entityTypes].map(([defines, { provider, type }]) => [defines, { provider: provider.id, type }]),
  );
  return new Map([
    ['docs/actions.md', renderActions([...fleet, ...actions], providers)],
    ['holdfast.example.yaml', renderExample(types)],
    ['holdfast.schema.json', `${JSON.stringify(configJsonSchema(types), null, 2)}\n`],
  ]);
}
