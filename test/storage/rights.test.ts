import { expect, it } from 'vitest';
import { guide } from '../../src/providers/postgresql/guide.ts';
import { storeGrants, WRITING } from '../../src/providers/postgresql/store-rights.ts';
import { StorageConfig } from '../../src/storage/config.ts';
import { openStore } from '../../src/storage/open.ts';
import { refusal } from '../support/s3-wire.ts';
import { startS3, storeRuntime } from '../support/stores.ts';

const ALL = guide.permissions['create-snapshot'] ?? [];

it('writes an IAM policy for the bucket, the folder in it and the key', () => {
  const storage = {
    type: 's3',
    bucket: 'acme-backups',
    prefix: 'holdfast/',
    server_side_encryption: 'aws:kms',
    kms_key_id: 'arn:aws:kms:eu-west-1:123456789012:key/abc',
  };
  const text = guide.policy(ALL, { storage });
  expect(text).toContain('GRANT pg_read_all_data');
  const { Statement } = JSON.parse(text.slice(text.indexOf('{'))) as { Statement: unknown };
  expect(Statement).toEqual([
    {
      Effect: 'Allow',
      Action: ['s3:ListBucket', 's3:ListBucketMultipartUploads'],
      Resource: 'arn:aws:s3:::acme-backups',
    },
    {
      Effect: 'Allow',
      Action: [
        's3:GetObject',
        's3:PutObject',
        's3:AbortMultipartUpload',
        's3:ListMultipartUploadParts',
        's3:DeleteObject',
      ],
      Resource: 'arn:aws:s3:::acme-backups/holdfast/*',
    },
    { Effect: 'Allow', Action: ['kms:GenerateDataKey', 'kms:Decrypt'], Resource: storage.kms_key_id },
  ]);
});

it('names the permissions of a custom role for Google, and the role on the container for Azure', () => {
  expect(guide.policy(WRITING, { storage: { type: 'gcs', bucket: 'acme-backups' } })).toContain(
    '--permissions=storage.objects.list,storage.objects.get,storage.objects.create,storage.objects.delete',
  );
  const azure = { type: 'azure-blob', account: 'acme', container: 'backups' };
  expect(guide.policy(WRITING, { storage: azure })).toMatch(/Data Contributor" --scope .*acme.*containers\/backups$/);
  expect(guide.policy(guide.permissions['list-snapshots'] ?? [], { storage: azure })).toContain('Data Reader"');
});

it('leaves what is no name to whoever pastes it', () => {
  const policy = guide.policy(WRITING, { storage: { type: 'gcs', bucket: 'a; rm -rf /' } });
  expect(policy).toContain('gs://NAME ');
});

it('asks the store by reading alone, and not at all where nothing is about it', async () => {
  const { parameters, secrets, wire, dispose } = await startS3();
  const store = openStore(StorageConfig.parse(parameters), storeRuntime(secrets));
  expect(await storeGrants(store, ['CREATEDB'])).toEqual({});
  expect(wire.requests).toEqual([]);
  wire.fault = ({ url }) => (url.searchParams.has('list-type') ? refusal(403, 'AccessDenied') : undefined);
  expect(await storeGrants(store, WRITING)).toEqual({
    'storage: list': 'refused',
    'storage: read': 'granted',
    'storage: write': 'unknown',
    'storage: delete': 'unknown',
  });
  expect(wire.requests.map(({ method }) => method)).toEqual(['GET', 'GET']);
  await dispose();
});
