import type { Runtime } from '../core/runtime.ts';
import { isOnThisMachine, locationOf, prefixOf, type StorageConfig } from './config.ts';
import { localStore } from './local.ts';
import { type Driver, remoteStore } from './remote.ts';
import type { ObjectStore } from './storage.ts';

/** Opens a store. Nothing is loaded, read or sent before its first use; secrets are read then. */
export function openStore(config: StorageConfig, runtime: Runtime): ObjectStore {
  if (config.type === 'local') return localStore(config.path);
  const load = async (): Promise<Driver> => {
    switch (config.type) {
      case 's3':
        return (await import('./s3.ts')).s3Driver(config, runtime);
      case 'gcs':
        return (await import('./gcs.ts')).gcsDriver(config, runtime);
      case 'azure-blob':
        return (await import('./azure-blob.ts')).azureBlobDriver(config, runtime);
    }
  };
  return remoteStore(load, runtime, {
    location: locationOf(config),
    sameMachine: isOnThisMachine(config),
    prefix: prefixOf(config),
    partSize: config.part_size_bytes,
  });
}
