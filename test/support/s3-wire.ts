import { createHash } from 'node:crypto';
import { startWire, type WireAnswer, type WireRequest, type WireServer } from './wire.ts';

interface Stored {
  readonly content: Buffer;
  readonly etag: string;
  readonly headers: Readonly<Record<string, string>>;
}

interface Pending {
  readonly key: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly parts: Map<number, Buffer>;
}

export interface S3Wire extends WireServer {
  readonly bucket: string;
  readonly objects: Map<string, Stored>;
  readonly uploads: Map<string, Pending>;
}

const SMALLEST_PART = 5 * 1024 * 1024;

/**
 * Starts one bucket that speaks the S3 protocol by its published description, with what s3rver leaves out: conditional
 * writes, multipart uploads that can be listed and aborted, checksums. Lists come in pages of three.
 * @see Amazon S3 API Reference, 2006-03-01
 */
export async function startS3Wire(bucket: string): Promise<S3Wire> {
  const objects = new Map<string, Stored>();
  const uploads = new Map<string, Pending>();
  let counter = 0;

  const store = (key: string, content: Buffer, headers: Stored['headers']): WireAnswer => {
    counter += 1;
    const etag = `"${createHash('md5').update(content).update(String(counter)).digest('hex')}"`;
    objects.set(key, { content, etag, headers });
    return { status: 200, headers: { etag } };
  };

  const answer = (request: WireRequest): WireAnswer => {
    const { method, url, headers, body } = request;
    if (!String(headers.authorization).startsWith('AWS4-HMAC-SHA256 Credential=')) return refusal(403, 'AccessDenied');
    const hash = String(headers['x-amz-content-sha256']);
    if (/^[0-9a-f]{64}$/.test(hash) && hash !== createHash('sha256').update(body).digest('hex')) {
      return refusal(400, 'XAmzContentSHA256Mismatch');
    }
    const md5 = headers['content-md5'];
    if (md5 !== undefined && md5 !== createHash('md5').update(body).digest('base64')) return refusal(400, 'BadDigest');
    const [, name = '', ...rest] = url.pathname.split('/').map(decodeURIComponent);
    if (name !== bucket) return refusal(404, 'NoSuchBucket');
    const key = rest.join('/');
    const has = (parameter: string): boolean => url.searchParams.has(parameter);
    const uploadId = url.searchParams.get('uploadId') ?? '';

    if (key === '' && method === 'GET') return has('uploads') ? listUploads(url) : list(url);
    if (method === 'POST' && has('uploads')) {
      counter += 1;
      const id = `upload-${counter}`;
      uploads.set(id, { key, headers: kept(headers), parts: new Map() });
      return xml(`<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`);
    }
    if (uploadId !== '') {
      const pending = uploads.get(uploadId);
      if (pending === undefined || pending.key !== key) return refusal(404, 'NoSuchUpload');
      if (method === 'PUT') {
        pending.parts.set(Number(url.searchParams.get('partNumber')), body);
        return { status: 200, headers: { etag: `"${createHash('md5').update(body).digest('hex')}"` } };
      }
      if (method === 'DELETE') {
        uploads.delete(uploadId);
        return { status: 204 };
      }
      if (method === 'GET') {
        const parts = [...pending.parts].map(
          ([number, part]) => `<Part><PartNumber>${number}</PartNumber><Size>${part.byteLength}</Size></Part>`,
        );
        return xml(`<ListPartsResult><IsTruncated>false</IsTruncated>${parts.join('')}</ListPartsResult>`);
      }
      return complete(request, key, uploadId, pending);
    }
    const found = objects.get(key);
    if (method === 'PUT') {
      if (headers['if-none-match'] === '*' && found !== undefined) return refusal(412, 'PreconditionFailed');
      return store(key, body, kept(headers));
    }
    if (method === 'DELETE') {
      objects.delete(key);
      return { status: 204 };
    }
    if (found === undefined) return refusal(404, 'NoSuchKey');
    return give(request, found);
  };

  const complete = (request: WireRequest, key: string, id: string, pending: Pending): WireAnswer => {
    if (request.headers['if-none-match'] === '*' && objects.has(key)) return refusal(412, 'PreconditionFailed');
    const named = [...String(request.body).matchAll(/<PartNumber>(\d+)<\/PartNumber>/g)].map(([, one]) => Number(one));
    const parts = named.map((number) => pending.parts.get(number));
    if (parts.some((part) => part === undefined) || named.some((number, index) => number !== index + 1)) {
      return refusal(400, 'InvalidPart');
    }
    const whole = parts.filter((part) => part !== undefined);
    if (whole.slice(0, -1).some((part) => part.byteLength < SMALLEST_PART)) return refusal(400, 'EntityTooSmall');
    uploads.delete(id);
    const { headers } = store(key, Buffer.concat(whole), pending.headers);
    return xml(`<CompleteMultipartUploadResult><ETag>${headers?.['etag']}</ETag></CompleteMultipartUploadResult>`);
  };

  const list = (url: URL): WireAnswer => {
    const prefix = url.searchParams.get('prefix') ?? '';
    const after = url.searchParams.get('continuation-token') ?? '';
    const keys = [...objects.keys()].filter((key) => key.startsWith(prefix) && key > after).sort();
    const page = keys.slice(0, 3);
    const items = page.map(
      (key) =>
        `<Contents><Key>${key}</Key><Size>${objects.get(key)?.content.byteLength}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>`,
    );
    const more = keys.length > page.length;
    return xml(
      `<ListBucketResult><IsTruncated>${more}</IsTruncated>${more ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : ''}${items.join('')}</ListBucketResult>`,
    );
  };

  const listUploads = (url: URL): WireAnswer => {
    const prefix = url.searchParams.get('prefix') ?? '';
    const [key, id] = [url.searchParams.get('key-marker') ?? '', url.searchParams.get('upload-id-marker') ?? ''];
    const all = [...uploads]
      .map(([uploadId, pending]) => ({ key: pending.key, id: uploadId }))
      .filter((one) => one.key.startsWith(prefix) && `${one.key}\n${one.id}` > `${key}\n${id}`)
      .sort((a, b) => (`${a.key}\n${a.id}` < `${b.key}\n${b.id}` ? -1 : 1));
    const page = all.slice(0, 3);
    const last = page.at(-1);
    const items = page.map(
      (one) =>
        `<Upload><Key>${one.key}</Key><UploadId>${one.id}</UploadId><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>`,
    );
    const more = all.length > page.length;
    return xml(
      `<ListMultipartUploadsResult><IsTruncated>${more}</IsTruncated>${more ? `<NextKeyMarker>${last?.key}</NextKeyMarker><NextUploadIdMarker>${last?.id}</NextUploadIdMarker>` : ''}${items.join('')}</ListMultipartUploadsResult>`,
    );
  };

  const wire = await startWire(answer);
  return Object.assign(wire, { bucket, objects, uploads });
}

function give({ method, headers }: WireRequest, { content, etag, headers: stored }: Stored): WireAnswer {
  if (headers['if-match'] !== undefined && headers['if-match'] !== etag) return refusal(412, 'PreconditionFailed');
  const facts = { etag, 'last-modified': 'Thu, 01 Jan 2026 00:00:00 GMT', ...stored };
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? '') ?? [];
  if (method === 'HEAD') return { status: 200, headers: { ...facts, 'content-length': String(content.byteLength) } };
  if (first === undefined) return { status: 200, headers: facts, body: content };
  if (Number(first) >= content.byteLength) return refusal(416, 'InvalidRange');
  const end = Math.min(
    last === '' || last === undefined ? Number.MAX_SAFE_INTEGER : Number(last),
    content.byteLength - 1,
  );
  return {
    status: 206,
    headers: { ...facts, 'content-range': `bytes ${first}-${end}/${content.byteLength}` },
    body: content.subarray(Number(first), end + 1),
  };
}

/** What is kept with an object: metadata, class and encryption. */
function kept(headers: WireRequest['headers']): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) =>
      /^x-amz-(?:meta-|storage-class$|server-side-encryption)/.test(name) ? [[name, String(value)]] : [],
    ),
  );
}

function xml(body: string): WireAnswer {
  return { status: 200, headers: { 'content-type': 'application/xml' }, body: `<?xml version="1.0"?>\n${body}` };
}

/** A refusal as S3 writes it. */
export function refusal(status: number, code: string): WireAnswer {
  return {
    status,
    headers: { 'content-type': 'application/xml', 'x-amz-request-id': 'REQUEST1' },
    body: `<?xml version="1.0"?>\n<Error><Code>${code}</Code><Message>free text of the store</Message><RequestId>REQUEST1</RequestId></Error>`,
  };
}
