import { createHash } from 'node:crypto';
import { HoldfastError } from '../core/errors.ts';
import type { PermissionState } from '../core/provider.ts';
import type { Runtime } from '../core/runtime.ts';
import { awsClientConfig, readAwsFailure } from '../providers/aws.ts';
import { slim } from '../providers/causes.ts';
import type { S3Config } from './config.ts';
import { isConditionFailed, type StoreFailure, toStoreError } from './failures.ts';
import { exists, notFound } from './keys.ts';
import { type Driver, otherVersion, type Upload, type Writing } from './remote.ts';

const MARK = 'holdfast-write';
const MOST_PARTS = 10_000;

/**
 * Opens a bucket of Amazon S3, or of a store that speaks its protocol.
 * @throws {HoldfastError} CONFIG_INVALID
 */
export async function s3Driver(config: S3Config, runtime: Runtime): Promise<Driver> {
  const sdk = await import('@aws-sdk/client-s3');
  const title = config.endpoint === undefined ? 'Amazon S3' : 'the S3 store';
  const { bucket: Bucket } = config;
  const region = config.region ?? (runtime.credential('AWS_REGION') || runtime.credential('AWS_DEFAULT_REGION'));
  const client = new sdk.S3Client({
    // Every request here may be sent again: a part replaces itself, a deletion too, and an object that was made twice
    // knows its mark. `put` and `delete` have asked for leave before they come here. An upload that is begun twice leaves
    // an empty one behind.
    ...awsClientConfig({ ...config, region: region || 'us-east-1' }, runtime, { title, isRead: () => true }),
    forcePathStyle: config.force_path_style ?? false,
    followRegionRedirects: config.endpoint === undefined,
    // Parts carry their MD5, which every look-alike knows; newer checksums some refuse.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    expectContinueHeader: false,
  });
  const place = `the bucket '${Bucket}'`;

  const failureOf = (cause: unknown): StoreFailure => readAwsFailure(cause);
  const attempt = async <T>(permission: string, request: () => Promise<T>): Promise<T> => {
    try {
      return await request();
    } catch (cause) {
      throw toStoreError(cause, failureOf(cause), { title, place, permission }, slim(cause));
    }
  };
  const created = async <T>(key: string, permission: string, request: () => Promise<T>): Promise<T> => {
    try {
      return await attempt(permission, request);
    } catch (cause) {
      if (isRefusedCondition(cause)) throw exists(key, cause);
      throw cause;
    }
  };

  const encryption = {
    ...(config.server_side_encryption === undefined ? {} : { ServerSideEncryption: config.server_side_encryption }),
    ...(config.kms_key_id === undefined ? {} : { SSEKMSKeyId: config.kms_key_id }),
    ...(config.storage_class === undefined ? {} : { StorageClass: config.storage_class }),
    ContentType: 'application/octet-stream',
  };
  const condition = ({ createOnly }: Writing) => (createOnly ? { IfNoneMatch: '*' } : {});

  async function begin(Key: string, writing: Writing): Promise<Upload> {
    const started = await attempt('s3:PutObject', () =>
      client.send(
        new sdk.CreateMultipartUploadCommand({ Bucket, Key, ...encryption, Metadata: { [MARK]: writing.mark } }),
      ),
    );
    const UploadId = started.UploadId;
    const parts = new Map<number, string | undefined>();
    return {
      async part(number, content, _last, signal) {
        const { ETag } = await attempt('s3:PutObject', () =>
          client.send(
            new sdk.UploadPartCommand({
              Bucket,
              Key,
              UploadId,
              PartNumber: number,
              Body: content,
              ContentMD5: md5(content),
            }),
            { abortSignal: signal },
          ),
        );
        parts.set(number, ETag);
      },
      async complete() {
        const Parts = [...parts].sort(([a], [b]) => a - b).map(([PartNumber, ETag]) => ({ PartNumber, ETag }));
        await created(Key, 's3:PutObject', () =>
          client.send(
            new sdk.CompleteMultipartUploadCommand({
              Bucket,
              Key,
              UploadId,
              MultipartUpload: { Parts },
              ...condition(writing),
            }),
          ),
        );
      },
      abort: () => abort(Key, UploadId),
    };
  }

  async function abort(Key: string, UploadId: string | undefined): Promise<void> {
    await attempt('s3:AbortMultipartUpload', () =>
      client.send(new sdk.AbortMultipartUploadCommand({ Bucket, Key, UploadId })),
    ).catch((cause: unknown) => {
      // It ended otherwise meanwhile.
      if (!(cause instanceof HoldfastError && cause.provider?.code === 'NoSuchUpload')) throw cause;
    });
  }

  async function* uploads(prefix: string) {
    let marker: { KeyMarker?: string; UploadIdMarker?: string } = {};
    for (;;) {
      const page = await attempt('s3:ListBucketMultipartUploads', () =>
        client.send(new sdk.ListMultipartUploadsCommand({ Bucket, Prefix: prefix, ...marker })),
      ).catch((cause: unknown) => {
        // Some look-alikes cannot tell; what they are left with their own rules clean up.
        if (cause instanceof HoldfastError && cause.code === 'NOT_SUPPORTED') return undefined;
        throw cause;
      });
      if (page === undefined) return;
      yield* page.Uploads ?? [];
      if (page.IsTruncated !== true || page.NextKeyMarker === undefined) return;
      marker = {
        KeyMarker: page.NextKeyMarker,
        ...(page.NextUploadIdMarker === undefined ? {} : { UploadIdMarker: page.NextUploadIdMarker }),
      };
    }
  }

  async function storedOf(Key: string, UploadId: string | undefined): Promise<number> {
    let size = 0;
    let PartNumberMarker: string | undefined;
    do {
      const page = await attempt('s3:ListMultipartUploadParts', () =>
        client.send(new sdk.ListPartsCommand({ Bucket, Key, UploadId, PartNumberMarker })),
      );
      for (const part of page.Parts ?? []) size += part.Size ?? 0;
      PartNumberMarker = page.IsTruncated === true ? page.NextPartNumberMarker : undefined;
    } while (PartNumberMarker !== undefined);
    return size;
  }

  const stat: Driver['stat'] = async (Key) => {
    try {
      const found = await client.send(new sdk.HeadObjectCommand({ Bucket, Key }));
      return {
        size_bytes: found.ContentLength ?? 0,
        modified_at: found.LastModified ?? runtime.now(),
        mark: found.Metadata?.[MARK],
      };
    } catch (cause) {
      // HEAD has no body that could say what is missing.
      if (failureOf(cause).status === 404) return undefined;
      throw toStoreError(
        cause,
        failureOf(cause),
        { title, place, permission: 's3:GetObject and s3:ListBucket' },
        slim(cause),
      );
    }
  };

  return {
    title,
    parallel: 4,
    mostParts: MOST_PARTS,

    async store(Key, content, writing) {
      await created(Key, 's3:PutObject', () =>
        client.send(
          new sdk.PutObjectCommand({
            Bucket,
            Key,
            Body: content,
            ContentMD5: md5(content),
            ...encryption,
            Metadata: { [MARK]: writing.mark },
            ...condition(writing),
          }),
        ),
      );
    },

    begin,

    async read(Key, { start, end }, version, signal) {
      const range = `bytes=${start}-${end}`;
      try {
        const got = await client.send(
          new sdk.GetObjectCommand({
            Bucket,
            Key,
            Range: range,
            ...(version === undefined ? {} : { IfMatch: version }),
          }),
          { abortSignal: signal },
        );
        const content = Buffer.from((await got.Body?.transformToByteArray()) ?? []);
        const size = /\/(\d+)$/.exec(got.ContentRange ?? '')?.[1];
        return { content, size: size === undefined ? content.byteLength : Number(size), version: got.ETag ?? '' };
      } catch (cause) {
        const failure = failureOf(cause);
        // Nothing lies in the range: the object is empty, or ends before.
        if (failure.status === 416) {
          const found = await stat(Key);
          if (found === undefined) throw notFound(Key);
          return { content: Buffer.alloc(0), size: found.size_bytes, version: '' };
        }
        if (version !== undefined && isConditionFailed(failure)) throw otherVersion(slim(cause));
        throw toStoreError(cause, failure, { title, place, permission: 's3:GetObject' }, slim(cause));
      }
    },

    stat,

    async *list(prefix) {
      let ContinuationToken: string | undefined;
      do {
        const page = await attempt('s3:ListBucket', () =>
          client.send(new sdk.ListObjectsV2Command({ Bucket, Prefix: prefix, ContinuationToken })),
        );
        for (const { Key, Size, LastModified } of page.Contents ?? []) {
          if (Key !== undefined) yield { key: Key, size_bytes: Size ?? 0, modified_at: LastModified ?? runtime.now() };
        }
        ContinuationToken = page.IsTruncated === true ? page.NextContinuationToken : undefined;
      } while (ContinuationToken !== undefined);
    },

    async remove(Key) {
      await attempt('s3:DeleteObject', () => client.send(new sdk.DeleteObjectCommand({ Bucket, Key })));
    },

    async *unfinished(prefix) {
      for await (const { Key, UploadId, Initiated } of uploads(prefix)) {
        if (Key === undefined) continue;
        yield { key: Key, size_bytes: await storedOf(Key, UploadId), modified_at: Initiated ?? runtime.now() };
      }
    },

    async discardUnfinished(prefix) {
      for await (const { Key, UploadId } of uploads(prefix)) if (Key !== undefined) await abort(Key, UploadId);
    },

    async access(prefix) {
      const may = async (permission: string, request: () => Promise<unknown>): Promise<PermissionState> => {
        try {
          await attempt(permission, request);
          return 'granted';
        } catch (cause) {
          if (!(cause instanceof HoldfastError)) throw cause;
          if (cause.code === 'INSUFFICIENT_PERMISSIONS') return 'refused';
          if (cause.code === 'RESOURCE_NOT_FOUND' && cause.provider?.code !== 'NoSuchBucket') return 'granted';
          throw cause;
        }
      };
      return {
        list: await may('s3:ListBucket', () => client.send(new sdk.ListObjectsV2Command({ Bucket, Prefix: prefix }))),
        // What is not there is said so only to those who may read it.
        read: await may('s3:GetObject', () =>
          client.send(new sdk.GetObjectCommand({ Bucket, Key: `${prefix}holdfast-access`, Range: 'bytes=0-0' })),
        ),
        // S3 tells of neither without doing it.
        write: 'unknown',
        delete: 'unknown',
      };
    },
  };
}

function isRefusedCondition(cause: unknown): boolean {
  return cause instanceof HoldfastError && cause.provider !== undefined && isConditionFailed(cause.provider);
}

function md5(content: Buffer): string {
  return createHash('md5').update(content).digest('base64');
}
