import { describe, expect, it } from 'vitest';
import type { Provider, ProviderGuide } from '../../src/core/provider.ts';
import { collect } from '../../src/engine/registry.ts';
import { azureCosmos } from '../../src/providers/azure-cosmos/provider.ts';
import { digitalocean } from '../../src/providers/digitalocean/provider.ts';
import { neon } from '../../src/providers/neon/provider.ts';
import * as cosmosTools from '../../tools/azure-cosmos.ts';
import * as digitaloceanTools from '../../tools/digitalocean.ts';
import * as neonTools from '../../tools/neon.ts';

const guides = [
  ['Cosmos DB', azureCosmos as Provider, cosmosTools],
  ['Neon', neon as Provider, neonTools],
  ['DigitalOcean', digitalocean as Provider, digitaloceanTools],
] as const;

const allOf = ({ permissions }: ProviderGuide): string[] => [...new Set(Object.values(permissions).flat())];

describe.each(guides)('the guide to %s', (_, provider, module) => {
  it('has the permissions of every action, and of no other', async () => {
    const { permissions } = await provider.guide!();
    const actions = collect({ module }).actions.map(({ name }) => name);
    expect(Object.keys(permissions).sort()).toEqual(['*', ...actions].sort());
  });

  it('says its parts in whole sentences', async () => {
    const { behaviour, limits, credentials } = await provider.guide!();
    for (const sentence of [...behaviour, ...limits]) expect(sentence).toMatch(/^[A-Z0-9].*\.$/);
    expect(credentials.length).toBeGreaterThan(1);
  });
});

describe('the least-privilege policy', () => {
  it('of Cosmos DB is a role definition of exactly these permissions on the subscription', async () => {
    const guide = await azureCosmos.guide!();
    const subscription_id = '5a0db0c5-0000-4000-8000-000000000001';
    const role = JSON.parse(guide.policy(allOf(guide), { subscription_id })) as Record<string, string[]>;
    expect(role).toMatchObject({
      IsCustom: true,
      NotActions: [],
      DataActions: [],
      AssignableScopes: [`/subscriptions/${subscription_id}`],
    });
    expect(role['Actions']).toEqual(allOf(guide).sort());
    expect(role['Actions']!.filter((action) => !/^Microsoft\.DocumentDB\//.test(action))).toEqual([]);
    // Neither keys nor the deletion of accounts, and nothing with a wildcard but the reads of a history.
    expect(role['Actions']!.join()).not.toMatch(/listKeys|\/delete/i);
    expect(role['Actions']!.filter((action) => action.includes('*'))).toEqual([
      'Microsoft.DocumentDB/locations/restorableDatabaseAccounts/*/read',
    ]);
    const reading = guide.policy([...guide.permissions['*']!, ...guide.permissions['check-settings']!]);
    expect((JSON.parse(reading) as { Actions: string[] }).Actions).toEqual([
      'Microsoft.DocumentDB/databaseAccounts/read',
    ]);
  });

  it('of Neon is a key of one project, since keys have no scopes', async () => {
    const { policy, permissions } = await neon.guide!();
    expect(policy(permissions['restore']!, { project_id: 'spring-example-302709' })).toMatch(
      /project-scoped API key for the project spring-example-302709[\s\S]*cannot delete the project/,
    );
    expect(policy(permissions['*']!)).toMatch(/Only reads/);
  });

  it('of DigitalOcean is the scopes of the token, none of which destroys or shows credentials', async () => {
    const guide = await digitalocean.guide!();
    expect(guide.policy(allOf(guide))).toBe(
      'database:create\ndatabase:read\ndatabase:update\nproject:assign_resource\ntag:create\nvpc:read',
    );
  });
});
