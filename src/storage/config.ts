import { isAbsolute } from 'node:path';
import { z } from 'zod';
import { isLoopback, Origin } from '../config/values.ts';
import { SecretReference } from '../core/schemas.ts';
import { AwsRegion, awsCredentialFields } from '../providers/aws.ts';
import { AzureCloudName, azureCloud, azureCredentialFields } from '../providers/azure.ts';
import { googleCredentialFields } from '../providers/google.ts';

const MIB = 1024 * 1024;

const prefix = z
  .string()
  .regex(
    /^[A-Za-z0-9_-][A-Za-z0-9._-]*(?:\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*\/?$/,
    'a folder inside the store, of letters, digits, dots, hyphens and underscores, without a leading slash and without ..',
  )
  .optional();

/** The part of an object that is held in memory, four of them at once; a multiple of 256 KiB, which one cloud asks for. */
const partSize = z
  .number()
  .int()
  .min(5 * MIB)
  .max(512 * MIB)
  .multipleOf(MIB / 4)
  .optional()
  .describe('Bytes of one part, 8 MiB when left out; four are in memory at once');

const Local = z.strictObject({ type: z.literal('local'), path: z.string().refine(isAbsolute, 'an absolute path') });

const S3 = z
  .strictObject({
    type: z.literal('s3'),
    bucket: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, 'the name of a bucket'),
    prefix,
    region: z.union([AwsRegion, z.literal('auto')]).optional(),
    endpoint: Origin.optional().describe('Of a store that speaks S3 and is not AWS'),
    force_path_style: z.boolean().optional().describe('The bucket in the path of the address, not in its host name'),
    ...awsCredentialFields,
    server_side_encryption: z.enum(['AES256', 'aws:kms']).optional(),
    kms_key_id: z
      .string()
      .regex(/^[A-Za-z0-9:/_-]{1,2048}$/, 'the id, ARN or alias of a KMS key')
      .optional(),
    storage_class: z
      .enum(['STANDARD', 'STANDARD_IA', 'ONEZONE_IA', 'INTELLIGENT_TIERING', 'GLACIER_IR'])
      .optional()
      .describe('Only those that are read at once'),
    part_size_bytes: partSize,
  })
  .refine(
    ({ kms_key_id, server_side_encryption }) => kms_key_id === undefined || server_side_encryption === 'aws:kms',
    { error: 'kms_key_id needs server_side_encryption: aws:kms', path: ['kms_key_id'] },
  );

const Gcs = z.strictObject({
  type: z.literal('gcs'),
  bucket: z.string().regex(/^[a-z0-9][a-z0-9._-]{0,221}$/, 'the name of a bucket'),
  prefix,
  endpoint: Origin.optional(),
  ...googleCredentialFields,
  storage_class: z.enum(['STANDARD', 'NEARLINE', 'COLDLINE', 'ARCHIVE']).optional(),
  kms_key_name: z
    .string()
    .regex(/^projects\/[^/\s]+\/locations\/[^/\s]+\/keyRings\/[^/\s]+\/cryptoKeys\/[^/\s]+$/, 'projects/…/cryptoKeys/…')
    .optional(),
  part_size_bytes: partSize,
});

const AzureBlob = z.strictObject({
  type: z.literal('azure-blob'),
  account: z.string().regex(/^[a-z0-9]{1,24}$/, 'the name of a storage account'),
  container: z.string().regex(/^[a-z0-9](?:-?[a-z0-9]){0,62}$/, 'the name of a container'),
  prefix,
  endpoint: Origin.optional(),
  cloud: AzureCloudName.optional(),
  account_key: SecretReference.optional(),
  sas_token: SecretReference.optional(),
  ...azureCredentialFields,
  access_tier: z.enum(['Hot', 'Cool', 'Cold']).optional().describe('Only those that are read at once'),
  encryption_scope: z
    .string()
    .regex(/^[A-Za-z0-9-]{3,63}$/)
    .optional(),
  part_size_bytes: partSize,
});

/** One place where backups of Holdfast's own PostgreSQL engine are kept. */
export const StorageConfig = z.discriminatedUnion('type', [Local, S3, Gcs, AzureBlob]);
export type StorageConfig = z.output<typeof StorageConfig>;

export type S3Config = z.output<typeof S3>;
export type GcsConfig = z.output<typeof Gcs>;
export type AzureBlobConfig = z.output<typeof AzureBlob>;

/** Names a store for people, without credentials: `s3://bucket/prefix`, or its address where that is not the cloud's own. */
export function locationOf(config: StorageConfig): string {
  const below = (name: string): string =>
    [name, config.type === 'local' ? undefined : prefixOf(config)].join('/').replace(/\/$/, '');
  switch (config.type) {
    case 'local':
      return config.path;
    case 's3':
      return `${config.endpoint ?? 's3:/'}/${below(config.bucket)}`;
    case 'gcs':
      return `${config.endpoint ?? 'gs:/'}/${below(config.bucket)}`;
    case 'azure-blob':
      return `${blobOrigin(config)}/${below(config.container)}`;
  }
}

/** The prefix without its last slash; empty where there is none. */
export function prefixOf(config: { readonly prefix?: string | undefined }): string {
  return (config.prefix ?? '').replace(/\/$/, '');
}

/** Tells whether a store is lost together with this machine. */
export function isOnThisMachine(config: StorageConfig): boolean {
  if (config.type === 'local') return true;
  return config.endpoint !== undefined && isLoopback(new URL(config.endpoint).hostname);
}

/** The address of a storage account. Emulators have the name of the account in the path, not in the host name. */
export function blobOrigin({ account, endpoint, cloud }: AzureBlobConfig): string {
  if (endpoint === undefined) return `https://${account}.${azureCloud(cloud).blobs}`;
  return isLoopback(new URL(endpoint).hostname) ? `${endpoint}/${account}` : endpoint;
}

/** How objects are encrypted by the store itself, as configured; undefined where it is left to the store. */
export function encryptionAtRest(config: StorageConfig): string | undefined {
  switch (config.type) {
    case 'local':
      return undefined;
    case 's3':
      return config.server_side_encryption;
    case 'gcs':
      return config.kms_key_name === undefined ? undefined : 'customer-managed key';
    case 'azure-blob':
      return config.encryption_scope === undefined ? undefined : `encryption scope ${config.encryption_scope}`;
  }
}
