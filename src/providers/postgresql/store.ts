import type { JsonObject } from '../../core/json.ts';
import { cleanText } from '../../core/text.ts';
import { encryptionAtRest, type StorageConfig } from '../../storage/config.ts';
import type { ObjectStore } from '../../storage/storage.ts';

/** Says where backups lie, and what about that place a person should know. */
export async function describeStore(
  config: StorageConfig,
  store: ObjectStore,
): Promise<{ facts: JsonObject; warnings: string[] }> {
  const { atomicCreate } = await store.capabilities();
  const location = cleanText(store.location);
  const atRest = encryptionAtRest(config);
  const storageClass =
    config.type === 's3' || config.type === 'gcs'
      ? config.storage_class
      : config.type === 'azure-blob'
        ? config.access_tier
        : undefined;
  return {
    facts: {
      storage: config.type === 'local' ? `local:${location}` : location,
      create_only: atomicCreate === undefined ? 'unknown' : atomicCreate ? 'by the storage' : 'not kept by the storage',
      ...(atRest === undefined ? {} : { storage_encryption: atRest }),
      ...(storageClass === undefined ? {} : { storage_class: storageClass }),
    },
    warnings: [
      ...(store.sameMachine
        ? [`Backups lie on this machine (${location}): copy them elsewhere, a disk takes both with it.`]
        : []),
      ...(atomicCreate === false
        ? [
            'The storage lets two writers make the same object: only the lock in the database keeps two backups apart. Let no other Holdfast write to this source.',
          ]
        : []),
    ],
  };
}
