import type { PermissionState } from '../../core/provider.ts';
import { prefixOf, type StorageConfig } from '../../storage/config.ts';
import type { ObjectStore } from '../../storage/storage.ts';

export const STORE_LIST = 'storage: list';
export const STORE_READ = 'storage: read';
export const STORE_WRITE = 'storage: write';
export const STORE_DELETE = 'storage: delete';

/** What reading the backups of a source needs. */
export const READING = [STORE_LIST, STORE_READ];
/** What storing a file of a source needs; what a failed run left is removed again. */
export const WRITING = [...READING, STORE_WRITE, STORE_DELETE];

/**
 * Finds out which of these rights the credentials of a store have. Reads only; asks the store only where one of them is
 * about it.
 */
export async function storeGrants(
  store: ObjectStore,
  permissions: readonly string[],
): Promise<Record<string, PermissionState>> {
  if (!permissions.some((permission) => WRITING.includes(permission))) return {};
  const { list, read, write, delete: remove } = await store.access();
  return { [STORE_LIST]: list, [STORE_READ]: read, [STORE_WRITE]: write, [STORE_DELETE]: remove };
}

/** Writes the least that grants rights on a store, in the words of its cloud; nothing where none of them is about it. */
export function storePolicy(permissions: readonly string[], storage: unknown): string[] {
  const wanted = WRITING.filter((permission) => permissions.includes(permission));
  if (wanted.length === 0) return [];
  const config = (
    typeof storage === 'object' && storage !== null ? storage : { type: 'local' }
  ) as Partial<StorageConfig>;
  switch (config.type) {
    case 's3':
      return ['-- the IAM policy of the credentials of the storage', s3Policy(wanted, config)];
    case 'gcs':
      return [
        '-- a custom role for the service account of the storage, bound to the bucket',
        `gcloud iam roles create holdfastBackups --project=PROJECT --permissions=${wanted.flatMap(gcsPermissions).join(',')}`,
        `gcloud storage buckets add-iam-policy-binding gs://${word(config.bucket)} --member=serviceAccount:ACCOUNT --role=projects/PROJECT/roles/holdfastBackups`,
      ];
    case 'azure-blob':
      return [
        '-- a role on the container alone, for the identity of the storage',
        `az role assignment create --assignee IDENTITY --role "Storage Blob Data ${wanted.length > 2 || wanted.some((one) => !READING.includes(one)) ? 'Contributor' : 'Reader'}" --scope /subscriptions/SUBSCRIPTION/resourceGroups/GROUP/providers/Microsoft.Storage/storageAccounts/${word(config.account)}/blobServices/default/containers/${word(config.container)}`,
      ];
    default:
      return ['-- and for the account that runs Holdfast: the right to read and write the directory in storage'];
  }
}

function s3Policy(wanted: readonly string[], config: Partial<Extract<StorageConfig, { type: 's3' }>>): string {
  const bucket = `arn:aws:s3:::${word(config.bucket)}`;
  const prefix = word(prefixOf(config), '');
  const actions = wanted.flatMap(
    (permission) =>
      ({
        [STORE_READ]: ['s3:GetObject'],
        [STORE_WRITE]: ['s3:PutObject', 's3:AbortMultipartUpload', 's3:ListMultipartUploadParts'],
        [STORE_DELETE]: ['s3:DeleteObject'],
      })[permission] ?? [],
  );
  const key = config.kms_key_id;
  const statements = [
    ...(wanted.includes(STORE_LIST)
      ? [{ Effect: 'Allow', Action: ['s3:ListBucket', 's3:ListBucketMultipartUploads'], Resource: bucket }]
      : []),
    ...(actions.length > 0
      ? [{ Effect: 'Allow', Action: actions, Resource: `${bucket}/${prefix === '' ? '' : `${prefix}/`}*` }]
      : []),
    ...(config.server_side_encryption === 'aws:kms'
      ? [{ Effect: 'Allow', Action: ['kms:GenerateDataKey', 'kms:Decrypt'], Resource: word(key, 'KEY_ARN') }]
      : []),
  ];
  return JSON.stringify({ Version: '2012-10-17', Statement: statements }, null, 2);
}

function gcsPermissions(permission: string): string[] {
  const verbs: Record<string, string> = {
    [STORE_LIST]: 'list',
    [STORE_READ]: 'get',
    [STORE_WRITE]: 'create',
    [STORE_DELETE]: 'delete',
  };
  return [`storage.objects.${verbs[permission]}`];
}

/** A name as the file has it, which may still be a reference; what has another form is left to whoever pastes it. */
function word(text: unknown, otherwise = 'NAME'): string {
  return typeof text === 'string' && /^[A-Za-z0-9][A-Za-z0-9._:/-]*$/.test(text) ? text : otherwise;
}
