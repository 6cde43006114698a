import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { startSimulators } from '../../src/simulators/server.ts';
import type { Simulator, SimulatorResponse } from '../../src/simulators/simulator.ts';
import { type Contract, openContract, specDirectory, specReason } from './serve.ts';

const folder = mkdtempSync(join(tmpdir(), 'holdfast-contract-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const pet = {
  type: 'object',
  required: ['id', 'name'],
  properties: {
    id: { type: 'integer', format: 'int32', readOnly: true },
    name: { type: 'string', minLength: 2 },
    born: { type: 'string', format: 'date-time' },
    friends: { type: 'array', items: { $ref: '#/components/schemas/Pet' } },
    labels: { type: 'object', additionalProperties: { type: 'string' } },
    free: { type: 'object' },
  },
};
const versioned = 'application/vnd.pets.2024-01-01+json';
writeFileSync(
  join(folder, 'pets.json'),
  JSON.stringify({
    openapi: '3.0.3',
    info: { title: 'Pets', version: '1' },
    servers: [{ url: 'https://pets.example/api/v1' }],
    paths: {
      '/pets': {
        get: {
          operationId: 'listPets',
          parameters: [{ $ref: '#/components/parameters/limit' }],
          responses: {
            200: { description: 'ok', content: { 'application/json': { schema: { type: 'array', items: pet } } } },
          },
        },
        post: {
          operationId: 'createPet',
          requestBody: { required: true, content: { [versioned]: { schema: { $ref: '#/components/schemas/Pet' } } } },
          responses: {
            201: { description: 'ok', content: { [versioned]: { schema: { $ref: '#/components/schemas/Pet' } } } },
          },
        },
      },
      '/pets/newest': { get: { operationId: 'newestPet', responses: { 204: { description: 'none' } } } },
      '/pets/{petId}': {
        parameters: [{ name: 'petId', in: 'path', required: true, schema: { type: 'string', pattern: '^[0-9]+$' } }],
        delete: { operationId: 'deletePet', responses: { 204: { description: 'gone' } } },
      },
      '/animals': {
        get: {
          operationId: 'getAnimal',
          responses: {
            200: {
              description: 'ok',
              content: { 'application/json': { schema: { $ref: '#/components/schemas/Animal' } } },
            },
          },
        },
      },
    },
    components: {
      parameters: { limit: { name: 'limit', in: 'query', schema: { type: 'integer', minimum: 1 } } },
      schemas: {
        Pet: pet,
        Animal: {
          type: 'object',
          properties: { kind: { type: 'string' } },
          discriminator: {
            propertyName: 'kind',
            mapping: { cat: '#/components/schemas/Cat', dog: '#/components/schemas/Dog' },
          },
        },
        Cat: {
          allOf: [
            { $ref: '#/components/schemas/Animal' },
            { type: 'object', properties: { lives: { type: 'integer' } } },
          ],
        },
        Dog: {
          allOf: [
            { $ref: '#/components/schemas/Animal' },
            { type: 'object', properties: { tricks: { type: 'integer' } } },
          ],
        },
      },
    },
  }),
);

let reply: SimulatorResponse;
let contract: Contract;

const simulator: Simulator = { provider: 'pets', matches: () => true, handle: () => reply };

async function ask(method: string, path: string, body?: unknown, type = versioned): Promise<void> {
  const server = await startSimulators({ simulators: () => [contract.wrap(simulator)] });
  await fetch(`${server.origin}${path}`, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': type } }),
  }).then((response) => response.text());
  await server.close();
}

describe('the contract checks', () => {
  beforeEach(async () => {
    contract = await openContract({ document: 'pets.json' }, folder);
    reply = { status: 204 };
  });

  it('lets traffic pass that fits, and remembers the operations', async () => {
    reply = { status: 201, headers: { 'content-type': versioned }, body: { id: 1, name: 'Rex' } };
    await ask('POST', '/api/v1/pets', { name: 'Rex', labels: { any: 'thing' }, free: { a: [1] } });
    reply = { status: 204 };
    await ask('GET', '/api/v1/pets/newest');
    await ask('DELETE', '/api/v1/pets/12');
    expect(contract.faults).toEqual([]);
    expect([...contract.seen].sort()).toEqual(['createPet', 'deletePet', 'newestPet']);
    expect(contract.operations).toEqual(new Set(['listPets', 'createPet', 'newestPet', 'deletePet', 'getAnimal']));
  });

  it.each([
    [
      'a name that the document lacks',
      { name: 'Rex', friends: [{ name: 'Tom', colour: 'red' }] },
      /body \/friends\/0\/colour is not/,
    ],
    ['a property of answers', { name: 'Rex', id: 4 }, /body \/id is readOnly/],
    ['a value that is too short', { name: 'R' }, /requestBody\/name must NOT have fewer/],
    ['a missing property', { born: '2026-01-01T00:00:00Z' }, /required property 'name'/],
    ['a wrong format', { name: 'Rex', born: 'yesterday' }, /requestBody\/born must match format/],
    ['a wrong label', { name: 'Rex', labels: { a: { b: 1 } } }, /labels\/a must be string/],
  ])('reports %s in a request', async (_, body, fault) => {
    reply = { status: 201, headers: { 'content-type': versioned }, body: { id: 1, name: 'Rex' } };
    await ask('POST', '/api/v1/pets', body);
    expect(contract.faults).toEqual([expect.stringMatching(fault)]);
  });

  it('reports wrong media types, bodies that nobody takes, unknown queries, paths and statuses', async () => {
    reply = { status: 201, headers: { 'content-type': versioned }, body: { id: 1, name: 'Rex' } };
    await ask('POST', '/api/v1/pets', { name: 'Rex' }, 'application/json');
    reply = { status: 204 };
    await ask('DELETE', '/api/v1/pets/12', { sure: true });
    await ask('DELETE', '/api/v1/pets/abc');
    await ask('GET', '/api/v1/cats');
    reply = { status: 200, body: [] };
    await ask('GET', '/api/v1/pets?limit=0');
    await ask('GET', '/api/v1/pets?order=up');
    reply = { status: 418, body: {} };
    await ask('GET', '/api/v1/pets');
    expect(contract.faults).toEqual([
      'createPet: request content type application/json is not declared',
      'deletePet: request has a body, and the operation takes none',
      expect.stringMatching(/deletePet: request \/path\/petId must match pattern/),
      'GET /api/v1/cats: no such operation',
      expect.stringMatching(/listPets: request \/query\/limit must be >= 1/),
      expect.stringMatching(/listPets: request \/query must NOT have additional properties/),
      'listPets: answer 418 is not a declared status',
    ]);
  });

  it.each([
    ['a missing body', undefined, /answer 200 has no body/],
    ['a missing property', [{ name: 'Rex' }], /\/0 must have required property 'id'/],
    ['a number out of range', [{ id: 2 ** 40, name: 'Rex' }], /\/0\/id must match format "int32"/],
    ['a name that the document lacks', [{ id: 1, name: 'Rex', tail: 'long' }], /body \/0\/tail is not in the document/],
  ])('reports %s in an answer', async (_, body, fault) => {
    reply = { status: 200, body };
    await ask('GET', '/api/v1/pets');
    expect(contract.faults).toEqual([expect.stringMatching(fault)]);
  });

  it('follows discriminators to the one kind that a value has', async () => {
    reply = { status: 200, body: { kind: 'cat', lives: 9 } };
    await ask('GET', '/api/v1/animals');
    expect(contract.faults).toEqual([]);
    reply = { status: 200, body: { kind: 'cat', tricks: 9 } };
    await ask('GET', '/api/v1/animals');
    expect(contract.faults).toEqual(['getAnimal: answer 200 body /tricks is not in the document']);
  });

  it('drops what is allowed by name and says which allowances nothing needs', async () => {
    contract = await openContract({ document: 'pets.json', allow: [/\/tail is not/, /never/] }, folder);
    reply = { status: 200, body: [{ id: 1, name: 'Rex', tail: 'long' }] };
    await ask('GET', '/api/v1/pets');
    expect(contract.faults).toEqual([]);
    expect(contract.unusedAllowances()).toEqual(['/never/']);
  });
});

describe.skipIf(specDirectory === undefined)(`the official documents${specReason}`, () => {
  it.each([
    ['azure-cosmosdb.openapi.json', 'DatabaseAccounts_Get'],
    ['digitalocean.openapi.json', 'databases_list_backups'],
    ['gcp-bigquery.discovery.json', 'bigquery.tables.get'],
    ['gcp-firestore.discovery.json', 'firestore.projects.databases.exportDocuments'],
    ['gcp-sqladmin.discovery.json', 'sql.instances.restoreBackup'],
    ['mongodb-atlas.openapi.json', 'createGroupClusterBackupRestoreJob'],
    ['neon.openapi.json', 'createSnapshot'],
    ['redis-cloud.openapi.json', 'backupDatabase'],
  ])('%s can be opened and names its operations', async (document, operation) => {
    const opened = await openContract({ document });
    expect(opened.operations).toContain(operation);
  });
});
