import { describe, expect, it } from 'vitest';
import { SHARED_ACTIONS } from '../../src/core/provider.ts';
import { collect, findAction } from '../../src/engine/registry.ts';
import * as fleet from '../../tools/fleet.ts';
import * as tools from '../../tools/index.ts';
import { newShelf, toyModule } from '../support/toy.ts';

const toy = toyModule(newShelf());
const shelf = { key: 'my-app/shelf', defines: 'toy/shelf' };

describe('the registry', () => {
  it('has the same order however modules list their exports', () => {
    const turned = Object.fromEntries(Object.entries(toy).reverse());
    const names = (module: object) => collect({ toy: module as never, fleet }).actions.map((action) => action.name);
    expect(names(turned)).toEqual(names(toy));
  });

  it('refuses two actions of one name, and a standard action that nobody answers for', () => {
    expect(() => collect({ toy: { ...toy, again: toy.restore } })).toThrow('two actions of toy are called restore');
    const { listSnapshots: _, ...rest } = toy;
    expect(() => collect({ toy: rest })).toThrow('toy neither has list-snapshots nor says why not');
  });

  it('finds by name and alias, and says what is close', () => {
    const aliased = {
      ...toy,
      createSnapshot: { ...toy.createSnapshot, aliases: ['create-backup'] },
      special: { ...toy.listSnapshots, name: 'special', on: ['toy/box'] },
    };
    const registry = collect({ toy: aliased, fleet });
    expect(findAction(registry, 'create-backup', shelf).name).toBe('create-snapshot');
    expect(findAction(registry, 'plan', shelf).kind).toBe('fleet');
    expect(() => findAction(registry, 'restore', undefined)).toThrow("the action 'restore' needs an entity");
    expect(() => findAction(registry, 'restart', undefined)).toThrow("there is no action 'restart'");
    expect(() => findAction(registry, 'special', shelf)).toThrow('special is not an action of toy/shelf');
    expect(() => findAction(registry, 'get-backup-info', shelf)).toThrow('Toy shelf has no get-backup-info');
  });
});

describe('every provider of the product', () => {
  const product = collect({ ...tools });

  it.each(product.providers)(
    '$id applies declared settings or says why not, and can be read about',
    async (provider) => {
      const { id, settings, cannot, guide } = provider;
      const own = product.actions.filter((action) => action.provider === provider).map(({ name }) => name);
      if (settings === undefined) for (const name of SHARED_ACTIONS) expect(cannot[name], id).toMatch(/\w{3}/);
      else expect(own).toEqual(expect.arrayContaining([...SHARED_ACTIONS]));
      const page = await guide?.();
      expect(page?.behaviour.length, id).toBeGreaterThan(2);
      expect(page?.limits.length, id).toBeGreaterThan(0);
      expect(page?.credentials.length, id).toBeGreaterThan(0);
      // What an action needs is said of each, if only that it is nothing of its own.
      expect(Object.keys(page?.permissions ?? {}), id).toEqual(expect.arrayContaining(own));
      expect(page?.policy([...new Set(Object.values(page.permissions).flat())])).toMatch(/\w{3}/);
    },
  );

  it.each(product.providers)('$id can look through an account', ({ discover }) => {
    expect(discover).toBeTypeOf('function');
  });
});
