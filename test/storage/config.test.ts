import { describe, expect, it } from 'vitest';
import { resolveEntity } from '../../src/config/entities.ts';
import { loadConfig } from '../../src/config/load.ts';
import { entityTypes } from '../../src/program/open.ts';
import { encryptionAtRest, isOnThisMachine, locationOf, StorageConfig } from '../../src/storage/config.ts';

const env = { name: 'ENV', secret: 'env' };

/** One store of each type, written as in a file, and what becomes of it. */
const STORES: Record<string, { text: string; parsed: object; location: string; atRest?: string }> = {
  local: {
    text: '{ type: local, path: /backups }',
    parsed: { type: 'local', path: '/backups' },
    location: '/backups',
  },
  s3: {
    text: '{ type: s3, bucket: acme, prefix: db/, region: eu-west-1, access_key_id: "${env:ENV}", secret_access_key: "${env:ENV}", server_side_encryption: "aws:kms", kms_key_id: alias/k, storage_class: STANDARD_IA, part_size_bytes: 16777216 }',
    parsed: { type: 's3', access_key_id: env, kms_key_id: 'alias/k', part_size_bytes: 16_777_216 },
    location: 's3://acme/db',
    atRest: 'aws:kms',
  },
  compatible: {
    text: '{ type: s3, bucket: acme, endpoint: "https://minio.internal:9000", force_path_style: true, profile: backups }',
    parsed: { type: 's3', force_path_style: true, profile: 'backups' },
    location: 'https://minio.internal:9000/acme',
  },
  gcs: {
    text: '{ type: gcs, bucket: acme, credentials_file: "${env:ENV}", storage_class: NEARLINE, kms_key_name: projects/p/locations/l/keyRings/r/cryptoKeys/k }',
    parsed: { type: 'gcs', credentials_file: env, storage_class: 'NEARLINE' },
    location: 'gs://acme',
    atRest: 'customer-managed key',
  },
  azure: {
    text: '{ type: azure-blob, account: acme, container: backups, prefix: db, sas_token: "${env:ENV}", access_tier: Cool, encryption_scope: own-keys }',
    parsed: { type: 'azure-blob', sas_token: env, access_tier: 'Cool' },
    location: 'https://acme.blob.core.windows.net/backups/db',
    atRest: 'encryption scope own-keys',
  },
};

describe.each(Object.entries(STORES))('a store of the kind %s', (_kind, { text, parsed, location, atRest }) => {
  it.each([
    [
      'of the section',
      `storage: { main: ${text} }\nnamespace: app\nshop: { defines: postgresql/server, storage: main, encryption: none }`,
    ],
    ['of its own', `namespace: app\nshop: { defines: postgresql/server, storage: ${text}, encryption: none }`],
    ['called default', `storage: ${text}\nnamespace: app\nshop: { defines: postgresql/server, encryption: none }`],
  ])('is what an entity has %s', (_how, file) => {
    const { entities } = loadConfig({ text: file, entityTypes, baseDirectory: '/nowhere' });
    const { storage } = resolveEntity(entities[0]!, {}).parameters as { storage: StorageConfig };
    expect(storage).toMatchObject(parsed);
    expect(locationOf(storage)).toBe(location);
    expect(encryptionAtRest(storage)).toBe(atRest);
    expect(isOnThisMachine(storage)).toBe(location === '/backups');
  });
});

it.each([
  ['a relative path', { type: 'local', path: 'backups' }],
  ['a KMS key without KMS', { type: 's3', bucket: 'b', kms_key_id: 'k' }],
  ['a class that cannot be read at once', { type: 's3', bucket: 'b', storage_class: 'DEEP_ARCHIVE' }],
  ['an offline tier', { type: 'azure-blob', account: 'a', container: 'c', access_tier: 'Archive' }],
  ['plain http beyond this machine', { type: 's3', bucket: 'b', endpoint: 'http://minio.internal:9000' }],
  ['a key written out', { type: 's3', bucket: 'b', secret_access_key: 'literal' }],
  ['a part that S3 would not take', { type: 's3', bucket: 'b', part_size_bytes: 1024 }],
  ['a folder outside', { type: 'gcs', bucket: 'b', prefix: '../x' }],
  ['a prefix with a space', { type: 'gcs', bucket: 'b', prefix: 'a b' }],
])('refuses %s', (_what, config) => {
  expect(StorageConfig.safeParse(config).success).toBe(false);
});

it('counts an emulator on this machine as this machine', () => {
  const config = StorageConfig.parse({ type: 's3', bucket: 'b', endpoint: 'http://127.0.0.1:9000' });
  expect(isOnThisMachine(config)).toBe(true);
});
