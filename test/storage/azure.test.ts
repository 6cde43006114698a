import { randomBytes } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import {
  ContainerClient,
  ContainerSASPermissions,
  generateBlobSASQueryParameters,
  StorageSharedKeyCredential,
} from '@azure/storage-blob';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import { StorageConfig } from '../../src/storage/config.ts';
import { openStore } from '../../src/storage/open.ts';
import { startAzurite, storeRuntime, type TestRuntime, type TestStore } from '../support/stores.ts';

const MIB = 1024 * 1024;

async function* bytes(...parts: (string | Uint8Array)[]): AsyncIterable<Uint8Array> {
  for (const part of parts) yield typeof part === 'string' ? Buffer.from(part) : part;
}

async function keys(items: AsyncIterable<{ key: string }>): Promise<string[]> {
  const all: string[] = [];
  for await (const { key } of items) all.push(key);
  return all;
}

describe('an Azure store', () => {
  let azurite: TestStore;
  let container: ContainerClient;
  let shared: StorageSharedKeyCredential;
  beforeAll(async () => {
    azurite = await startAzurite();
    const { account, container: name, endpoint } = azurite.parameters as Record<string, string>;
    shared = new StorageSharedKeyCredential(account ?? '', azurite.secrets['AZURE_KEY'] ?? '');
    container = new ContainerClient(`${endpoint}/${account}/${name}`, shared);
  });
  afterAll(() => azurite.dispose());

  const open = (prefix: string, more: JsonObject = {}, runtime: TestRuntime = storeRuntime(azurite.secrets)) =>
    openStore(StorageConfig.parse({ ...azurite.parameters, prefix, ...more }), runtime);

  it('takes the blocks of a write that failed away, and shows them nowhere', async () => {
    const store = open('failed');
    async function* failing(): AsyncIterable<Uint8Array> {
      yield Buffer.alloc(12 * MIB);
      // The first part is stored before the rest is asked for.
      await expect.poll(() => keys(store.unfinished(''))).toEqual(['k']);
      throw new Error('the source died');
    }
    await expect(store.put('k', failing(), { partSize: 5 * MIB })).rejects.toThrow('the source died');
    expect(await keys(store.unfinished(''))).toEqual([]);
    expect(await store.head('k')).toBeUndefined();
    await expect(container.getBlockBlobClient('failed/k').getBlockList('uncommitted')).rejects.toThrow();
  });

  it('shows what a killed writer left, and removes it beside what is whole', async () => {
    const store = open('killed');
    await store.put('a/whole', bytes('x'));
    for (const name of ['a/half', 'b/half']) {
      await container
        .getBlockBlobClient(`killed/${name}`)
        .stageBlock(Buffer.from('0001').toString('base64'), 'half', 4);
    }
    expect(await keys(store.list(''))).toEqual(['a/whole']);
    expect(await keys(store.unfinished(''))).toEqual(['a/half', 'b/half']);
    for await (const { size_bytes } of store.unfinished('a/')) expect(size_bytes).toBe(4);
    await store.discardUnfinished('a/');
    expect(await keys(store.unfinished(''))).toEqual(['b/half']);
    expect(await keys(store.list(''))).toEqual(['a/whole']);
  });

  it('never shows the blob that is made only to be deleted', async () => {
    await container.getBlockBlobClient('void/k').upload('', 0, { metadata: { holdfast_void: '1' } });
    const store = open('void');
    expect(await keys(store.list(''))).toEqual([]);
    expect(await store.head('k')).toBeUndefined();
    await expect(store.get('k')).rejects.toMatchObject({ code: 'RESOURCE_NOT_FOUND' });
  });

  it('fails as retryable where the blob is replaced while it is read', async () => {
    const store = open('replaced');
    await store.put('k', bytes(randomBytes(20 * MIB)));
    const reader = await store.get('k');
    await store.put('k', bytes(randomBytes(20 * MIB)));
    await expect(buffer(reader)).rejects.toMatchObject({ code: 'INVALID_STATE', retryable: true });
  });

  it('works by a shared access signature, and conceals it in every form', async () => {
    const sas = generateBlobSASQueryParameters(
      {
        containerName: container.containerName,
        permissions: ContainerSASPermissions.parse('racwdl'),
        expiresOn: new Date(Date.now() + 3_600_000),
      },
      shared,
    ).toString();
    const runtime = storeRuntime({ SAS: sas });
    const { account_key: _, ...parameters } = azurite.parameters;
    const config = { ...parameters, prefix: 'sas', access_tier: 'Cool', sas_token: '${env:SAS}' };
    const store = openStore(StorageConfig.parse(config), runtime);
    await store.put('k', bytes('x'), { createOnly: true });
    expect(String(await buffer(await store.get('k')))).toBe('x');
    const signature = new URLSearchParams(sas).get('sig') ?? '';
    expect([...runtime.concealed]).toEqual(expect.arrayContaining([sas, signature, encodeURIComponent(signature)]));
    expect((await container.getBlobClient('sas/k').getProperties()).accessTier).toBe('Cool');
    expect(store.location).not.toContain('sig');
  });

  it.each([
    ['a container that is not there', { container: 'nowhere' }, {}, 'RESOURCE_NOT_FOUND'],
    // Azurite calls a wrong signature AuthorizationFailure; Azure says AuthenticationFailed.
    ['a wrong key', {}, { AZURE_KEY: randomBytes(64).toString('base64') }, 'INSUFFICIENT_PERMISSIONS'],
    ['two credentials', { sas_token: '${env:AZURE_KEY}' }, {}, 'CONFIG_INVALID'],
  ])('names %s, without a secret', async (_what, more, secrets, code) => {
    const store = open('faults', more, storeRuntime({ ...azurite.secrets, ...secrets }));
    const failed = (await store.put('k', bytes('x')).catch((cause: unknown) => cause)) as HoldfastError;
    expect(failed).toMatchObject({ code });
    const shown = `${JSON.stringify(failed.toJson())}${String(failed.cause)}`;
    expect(shown).not.toContain(azurite.secrets['AZURE_KEY']);
    expect(shown).not.toMatch(/sig=|Signature/);
  });
});
