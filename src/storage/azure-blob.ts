import { createHash } from 'node:crypto';
import type { BlockBlobClient, ContainerClient, StoragePipelineOptions } from '@azure/storage-blob';
import { HoldfastError } from '../core/errors.ts';
import { isObject } from '../core/json.ts';
import type { PermissionState } from '../core/provider.ts';
import type { Runtime } from '../core/runtime.ts';
import { azureAuthorizer, azureCloud } from '../providers/azure.ts';
import { findHoldfastError } from '../providers/causes.ts';
import { type AzureBlobConfig, blobOrigin } from './config.ts';
import { isConditionFailed, type StoreFailure, toStoreError } from './failures.ts';
import { exists, notFound } from './keys.ts';
import { type Driver, otherVersion, type Upload, type Writing } from './remote.ts';

const MARK = 'holdfast_write';
/** Marks a blob that is made and deleted at once, only to be rid of the blocks of an upload that failed. */
const VOID = 'holdfast_void';
const MOST_BLOCKS = 50_000;

const READ = 'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read';
const WRITE = 'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write';
const DELETE = 'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete';

/** Requests are repeated by the SDK: a block replaces itself, and a blob that was made twice knows its mark. */
const RETRY = { maxTries: 5, tryTimeoutInMs: 120_000, retryDelayInMs: 250, maxRetryDelayInMs: 10_000 };

/**
 * Opens a container of Azure Blob Storage.
 * @throws {HoldfastError} CONFIG_INVALID, AUTHENTICATION_FAILED
 */
export async function azureBlobDriver(config: AzureBlobConfig, runtime: Runtime): Promise<Driver> {
  const title = 'Azure Blob Storage';
  const place = `the container '${config.container}'`;
  const container = await openContainer(config, runtime);
  const blob = (key: string): BlockBlobClient => container.getBlockBlobClient(key);

  const fail = (cause: unknown, permission: string): HoldfastError => {
    const failure = failureOf(cause);
    // The SDK's own sentence may hold the address, and that a signature.
    const kept = new Error(`${failure.status ?? 'no answer'} ${failure.code ?? ''}`.trim());
    return toStoreError(cause, failure, { title, place, permission }, kept);
  };
  const attempt = async <T>(permission: string, request: () => Promise<T>): Promise<T> => {
    try {
      return await request();
    } catch (cause) {
      throw fail(cause, permission);
    }
  };
  const created = async <T>(key: string, request: () => Promise<T>): Promise<T> => {
    try {
      return await request();
    } catch (cause) {
      const failed = fail(cause, WRITE);
      if (isConditionFailed(failureOf(cause))) throw exists(key, failed);
      throw failed;
    }
  };

  const scope = config.encryption_scope === undefined ? {} : { encryptionScope: config.encryption_scope };
  const optionsOf = ({ createOnly, mark }: Writing) => ({
    ...scope,
    ...(config.access_tier === undefined ? {} : { tier: config.access_tier }),
    metadata: { [MARK]: mark },
    conditions: createOnly ? { ifNoneMatch: '*' } : {},
  });

  async function begin(key: string, writing: Writing): Promise<Upload> {
    const target = blob(key);
    const ids = new Map<number, string>();
    return {
      async part(number, content, _last, signal) {
        // Writers of one blob share its blocks: each names its own.
        const id = Buffer.from(`${writing.mark}-${String(number).padStart(6, '0')}`).toString('base64');
        await attempt(WRITE, () =>
          target.stageBlock(id, content, content.byteLength, {
            ...scope,
            transactionalContentMD5: md5(content),
            abortSignal: signal,
          }),
        );
        ids.set(number, id);
      },
      async complete() {
        const list = [...ids].sort(([a], [b]) => a - b).map(([, id]) => id);
        await created(key, () =>
          target.commitBlockList(list, {
            ...optionsOf(writing),
            blobHTTPHeaders: { blobContentType: 'application/octet-stream' },
          }),
        );
      },
      abort: () => discard(key),
    };
  }

  /** Azure has no way to take blocks back but to make the blob and delete it; nobody of ours sees it meanwhile. */
  async function discard(key: string): Promise<void> {
    const target = blob(key);
    try {
      const { etag } = await created(key, () =>
        target.upload('', 0, { ...scope, metadata: { [VOID]: '1' }, conditions: { ifNoneMatch: '*' } }),
      );
      await attempt(DELETE, () => target.deleteIfExists({ conditions: etag === undefined ? {} : { ifMatch: etag } }));
    } catch (cause) {
      if (!(cause instanceof HoldfastError && cause.code === 'RESOURCE_EXISTS')) throw cause;
      // A blob is there: the blocks beside it are seen by nobody, and gone after a week. Azurite says so of blocks alone,
      // and deletes those.
      if (!(await attempt(READ, () => target.exists()))) await attempt(DELETE, () => target.deleteIfExists());
    }
  }

  async function* blobs(prefix: string, includeUncommitedBlobs: boolean) {
    const items = container
      .listBlobsFlat({ prefix, includeMetadata: true, includeUncommitedBlobs })
      [Symbol.asyncIterator]();
    for (;;) {
      const { done, value } = await attempt(READ, () => items.next());
      if (done) return;
      if (value.metadata?.[VOID] === undefined) yield value;
    }
  }

  /** The blobs that have blocks and are none yet: those that only the longer one of two lists names. */
  async function* uncommitted(prefix: string) {
    const finished = blobs(prefix, false);
    let next = await finished.next();
    for await (const item of blobs(prefix, true)) {
      while (!next.done && next.value.name < item.name) next = await finished.next();
      if (next.done || next.value.name !== item.name) yield item;
    }
  }

  const stat: Driver['stat'] = async (key) => {
    try {
      const found = await blob(key).getProperties();
      if (found.metadata?.[VOID] !== undefined) return undefined;
      return {
        size_bytes: found.contentLength ?? 0,
        modified_at: found.lastModified ?? runtime.now(),
        mark: found.metadata?.[MARK],
      };
    } catch (cause) {
      const { status, code } = failureOf(cause);
      if (status === 404 && code !== 'ContainerNotFound') return undefined;
      throw fail(cause, READ);
    }
  };

  return {
    title,
    parallel: 4,
    mostParts: MOST_BLOCKS,

    async store(key, content, writing) {
      await created(key, () =>
        blob(key).upload(content, content.byteLength, {
          ...optionsOf(writing),
          blobHTTPHeaders: { blobContentType: 'application/octet-stream', blobContentMD5: md5(content) },
        }),
      );
    },

    begin,

    async read(key, { start, end }, version, signal) {
      try {
        const answer = await blob(key).download(start, end - start + 1, {
          abortSignal: signal,
          conditions: version === undefined ? {} : { ifMatch: version },
          // The SDK asks for what is left where a connection breaks, of the same version.
          maxRetryRequests: 5,
        });
        const chunks: Uint8Array[] = [];
        for await (const chunk of answer.readableStreamBody ?? []) chunks.push(Buffer.from(chunk));
        if (answer.metadata?.[VOID] !== undefined) throw exists(key);
        const content = Buffer.concat(chunks);
        const size = /\/(\d+)$/.exec(answer.contentRange ?? '')?.[1];
        return { content, size: size === undefined ? content.byteLength : Number(size), version: answer.etag ?? '' };
      } catch (cause) {
        const failure = failureOf(cause);
        // Nothing lies in the range: the blob is empty, or ends before.
        if (failure.status === 416) {
          const found = await stat(key);
          if (found === undefined) throw notFound(key);
          return { content: Buffer.alloc(0), size: found.size_bytes, version: '' };
        }
        if (version !== undefined && isConditionFailed(failure)) throw otherVersion(fail(cause, READ));
        throw fail(cause, READ);
      }
    },

    stat,

    async *list(prefix) {
      for await (const { name, properties } of blobs(prefix, false)) {
        yield { key: name, size_bytes: properties.contentLength ?? 0, modified_at: properties.lastModified };
      }
    },

    async remove(key) {
      await attempt(DELETE, () => blob(key).delete()).catch((cause: unknown) => {
        if (
          !(
            cause instanceof HoldfastError &&
            cause.provider?.status === 404 &&
            cause.provider.code !== 'ContainerNotFound'
          )
        )
          throw cause;
      });
    },

    async *unfinished(prefix) {
      for await (const { name, properties } of uncommitted(prefix)) {
        const blocks = await attempt(READ, () => blob(name).getBlockList('uncommitted'));
        yield {
          key: name,
          size_bytes: (blocks.uncommittedBlocks ?? []).reduce((sum, { size }) => sum + size, 0),
          modified_at: properties.lastModified ?? runtime.now(),
        };
      }
    },

    async discardUnfinished(prefix) {
      for await (const { name } of uncommitted(prefix)) await discard(name);
    },

    async access(prefix) {
      const may = async (request: () => Promise<unknown>): Promise<PermissionState> => {
        try {
          await attempt(READ, request);
          return 'granted';
        } catch (cause) {
          if (!(cause instanceof HoldfastError)) throw cause;
          if (cause.code === 'INSUFFICIENT_PERMISSIONS') return 'refused';
          if (cause.code === 'RESOURCE_NOT_FOUND' && cause.provider?.code !== 'ContainerNotFound') return 'granted';
          throw cause;
        }
      };
      return {
        list: await may(() => container.listBlobsFlat({ prefix }).byPage({ maxPageSize: 1 }).next()),
        read: await may(() => blob(`${prefix}holdfast-access`).getProperties()),
        // Azure tells of neither without doing it.
        write: 'unknown',
        delete: 'unknown',
      };
    },
  };
}

async function openContainer(config: AzureBlobConfig, runtime: Runtime): Promise<ContainerClient> {
  const { account, account_key, sas_token, access_token, client_secret } = config;
  const named = [account_key, sas_token, access_token, client_secret].filter((one) => one !== undefined);
  if (named.length > 1) {
    throw new HoldfastError('CONFIG_INVALID', 'the storage names more than one Azure credential', {
      hint: 'Keep one of account_key, sas_token, access_token and client_secret.',
    });
  }
  const sdk = await import('@azure/storage-blob');
  const url = `${blobOrigin(config)}/${config.container}`;
  const options: StoragePipelineOptions = { retryOptions: RETRY };
  if (account_key !== undefined) {
    const key = (await runtime.secret(account_key)).trim();
    return new sdk.ContainerClient(url, new sdk.StorageSharedKeyCredential(account, key), options);
  }
  if (sas_token !== undefined) {
    const token = (await runtime.secret(sas_token)).trim().replace(/^\?/, '');
    // It appears in addresses in either form.
    for (const one of [token, new URLSearchParams(token).get('sig') ?? '']) {
      if (one !== '') for (const form of [one, encodeURIComponent(one)]) runtime.conceal(form);
    }
    return new sdk.ContainerClient(`${url}?${token}`, new sdk.AnonymousCredential(), options);
  }
  const authorizer = azureAuthorizer(config, runtime, azureCloud(config.cloud), 'https://storage.azure.com');
  const credential = {
    async getToken() {
      const token = (await authorizer.header()).replace(/^Bearer /, '');
      // The authorizer keeps tokens and renews them: this only says when to ask it again.
      return { token, expiresOnTimestamp: Date.now() + 5 * 60_000 };
    },
  };
  return new sdk.ContainerClient(url, credential, options);
}

function failureOf(cause: unknown): StoreFailure {
  const known = findHoldfastError(cause);
  if (known !== undefined) return known.provider ?? {};
  if (!(cause instanceof Error)) return {};
  const shape = cause as { statusCode?: unknown; code?: unknown; details?: unknown; response?: unknown };
  const details = isObject(shape.details) ? shape.details : {};
  const word = [details['errorCode'], shape.code].find(
    (one): one is string => typeof one === 'string' && /^[A-Z][A-Za-z0-9]{2,80}$/.test(one),
  );
  const status = typeof shape.statusCode === 'number' ? shape.statusCode : undefined;
  const request = details['requestId'];
  return {
    status,
    // Without an answer the name is the transport's.
    code: status === undefined ? undefined : word,
    requestId: typeof request === 'string' && /^[A-Za-z0-9-]{1,64}$/.test(request) ? request : undefined,
  };
}

function md5(content: Buffer): Buffer {
  return createHash('md5').update(content).digest();
}
