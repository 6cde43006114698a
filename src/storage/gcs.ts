import { createHash } from 'node:crypto';
import { HoldfastError } from '../core/errors.ts';
import { isObject } from '../core/json.ts';
import type { PermissionState } from '../core/provider.ts';
import type { Runtime } from '../core/runtime.ts';
import { slim } from '../providers/causes.ts';
import { googleAuthorizer, googleOrigin, readGoogleFailure } from '../providers/google.ts';
import type { GcsConfig } from './config.ts';
import { isConditionFailed, type StoreFailure, toStoreError } from './failures.ts';
import { exists } from './keys.ts';
import { type Driver, otherVersion, type Upload, type Writing } from './remote.ts';

const MARK = 'holdfast-write';
const SCOPE = 'https://www.googleapis.com/auth/devstorage.read_write';

/** An answer that is no success. */
class Refusal extends Error {
  readonly failure: StoreFailure;
  constructor(failure: StoreFailure) {
    super(`HTTP ${failure.status ?? '?'} ${failure.code ?? ''}`.trim());
    this.failure = failure;
  }
}

/**
 * Opens a bucket of Google Cloud Storage, by its JSON API.
 * @throws {HoldfastError} CONFIG_INVALID
 */
export async function gcsDriver(config: GcsConfig, runtime: Runtime): Promise<Driver> {
  const title = 'Google Cloud Storage';
  const place = `the bucket '${config.bucket}'`;
  const origin = googleOrigin(config.endpoint, 'https://storage.googleapis.com');
  const authorizer = googleAuthorizer(config, runtime, { scopes: [SCOPE], origin });
  const bucket = `${origin}/storage/v1/b/${encodeURIComponent(config.bucket)}`;
  const upload = `${origin}/upload/storage/v1/b/${encodeURIComponent(config.bucket)}/o`;
  const objectUrl = (key: string): string => `${bucket}/o/${encodeURIComponent(key)}`;

  /** Sends one request, again where no answer comes: none of them does more the second time. */
  const send = async (url: string, init: RequestInit = {}, passed: readonly number[] = []): Promise<Response> => {
    const { auth } = await authorizer.ready();
    const headers = new Headers(init.headers);
    for (const [name, value] of await auth.getRequestHeaders(url)) headers.set(name, value);
    const answer = await runtime.fetch(url, { ...init, headers, safe: true });
    if (answer.ok || passed.includes(answer.status)) return answer;
    const data: unknown = await answer.json().catch(() => undefined);
    const { reason } = readGoogleFailure({ response: { status: answer.status, data } });
    throw new Refusal({ status: answer.status, code: reason });
  };
  const fail = (cause: unknown, permission: string): HoldfastError =>
    toStoreError(cause, cause instanceof Refusal ? cause.failure : {}, { title, place, permission }, slim(cause));
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
      if (cause instanceof Refusal && isConditionFailed(cause.failure)) throw exists(key, slim(cause));
      throw fail(cause, 'storage.objects.create');
    }
  };

  const metadataOf = (key: string, { mark }: Writing) => ({
    name: key,
    contentType: 'application/octet-stream',
    metadata: { [MARK]: mark },
    ...(config.storage_class === undefined ? {} : { storageClass: config.storage_class }),
  });
  const query = (kind: string, { createOnly }: Writing): string =>
    new URLSearchParams({
      uploadType: kind,
      ...(createOnly ? { ifGenerationMatch: '0' } : {}),
      ...(config.kms_key_name === undefined ? {} : { kmsKeyName: config.kms_key_name }),
    }).toString();

  async function begin(key: string, writing: Writing): Promise<Upload> {
    const hash = createHash('md5');
    const session = await created(key, async () => {
      const answer = await send(`${upload}?${query('resumable', writing)}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json; charset=UTF-8' },
        body: JSON.stringify(metadataOf(key, writing)),
      });
      const address = answer.headers.get('location') ?? '';
      if (!URL.canParse(address) || new URL(address).origin !== origin) {
        throw new HoldfastError('PROVIDER_UNAVAILABLE', `${title} gave no address to upload to`);
      }
      // Whoever has the address may write there.
      runtime.conceal(new URL(address).searchParams.get('upload_id') ?? address);
      return address;
    });
    let offset = 0;
    let finished: unknown;

    /** Sends bytes; with the last ones the object appears, so those wait until all else is known to be well. */
    const put = async (content: Buffer, last: boolean, signal?: AbortSignal): Promise<void> => {
      let rest = content;
      for (;;) {
        const end = offset + rest.byteLength;
        const total = last ? String(end) : '*';
        const range = rest.byteLength === 0 ? `bytes */${total}` : `bytes ${offset}-${end - 1}/${total}`;
        const answer = await send(
          session,
          {
            method: 'PUT',
            headers: { 'content-range': range },
            body: new Uint8Array(rest),
            ...(signal === undefined ? {} : { signal }),
          },
          [308],
        );
        if (answer.status !== 308) {
          finished = await answer.json();
          return;
        }
        const stored = Number(/-(\d+)$/.exec(answer.headers.get('range') ?? '')?.[1] ?? -1) + 1;
        if (stored < offset || stored > end || (stored === offset && rest.byteLength > 0)) {
          throw new HoldfastError('PROVIDER_UNAVAILABLE', `${title} lost its place in an upload`);
        }
        rest = rest.subarray(stored - offset);
        offset = stored;
        if (rest.byteLength === 0 && !last) return;
      }
    };

    let tail: Buffer = Buffer.alloc(0);
    return {
      async part(_number, content, last, signal) {
        hash.update(content);
        if (last) tail = content;
        else await attempt('storage.objects.create', () => put(content, false, signal));
      },
      async complete() {
        await created(key, () => put(tail, true));
        const stored = isObject(finished) ? finished : {};
        if (typeof stored['md5Hash'] !== 'string' || stored['md5Hash'] === hash.digest('base64')) return;
        await attempt('storage.objects.delete', () =>
          send(`${objectUrl(key)}?ifGenerationMatch=${String(stored['generation'])}`, { method: 'DELETE' }, [404, 412]),
        );
        throw new HoldfastError('PROVIDER_UNAVAILABLE', `${title} received other bytes than were sent`, {
          hint: 'The object was removed again. Call again.',
        });
      },
      async abort() {
        await attempt('storage.objects.create', () => send(session, { method: 'DELETE' }, [404, 410, 499]));
      },
    };
  }

  return {
    title,
    // The chunks of one upload come one after the other.
    parallel: 1,

    async store(key, content, writing) {
      const boundary = `holdfast-${writing.mark}`;
      const metadata = {
        ...metadataOf(key, writing),
        md5Hash: createHash('md5').update(content).digest('base64'),
      };
      const body = Buffer.concat([
        Buffer.from(
          `--${boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n${JSON.stringify(metadata)}\r\n--${boundary}\r\ncontent-type: application/octet-stream\r\n\r\n`,
        ),
        content,
        Buffer.from(`\r\n--${boundary}--`),
      ]);
      await created(key, () =>
        send(`${upload}?${query('multipart', writing)}`, {
          method: 'POST',
          headers: { 'content-type': `multipart/related; boundary=${boundary}` },
          body,
        }),
      );
    },

    begin,

    async read(key, { start, end }, version, signal) {
      try {
        const generation = version === undefined ? '' : `&generation=${encodeURIComponent(version)}`;
        const answer = await send(
          `${objectUrl(key)}?alt=media${generation}`,
          { headers: { range: `bytes=${start}-${end}`, 'accept-encoding': 'identity' }, signal },
          [416],
        );
        const found = answer.headers.get('x-goog-generation') ?? '';
        const size = /\/(\d+)$/.exec(answer.headers.get('content-range') ?? '')?.[1];
        if (answer.status === 416) return { content: Buffer.alloc(0), size: Number(size ?? 0), version: found };
        const content = Buffer.from(await answer.arrayBuffer());
        return { content, size: size === undefined ? content.byteLength : Number(size), version: found };
      } catch (cause) {
        if (version !== undefined && cause instanceof Refusal && isConditionFailed(cause.failure)) {
          throw otherVersion(slim(cause));
        }
        throw fail(cause, 'storage.objects.get');
      }
    },

    async stat(key) {
      const answer = await attempt('storage.objects.get', () => send(objectUrl(key), {}, [404]));
      if (answer.status === 404) return undefined;
      const found: unknown = await answer.json();
      const facts = isObject(found) ? found : {};
      const metadata = isObject(facts['metadata']) ? facts['metadata'] : {};
      return {
        size_bytes: Number(facts['size'] ?? 0),
        modified_at: dateOf(facts['updated'], runtime.now()),
        mark: typeof metadata[MARK] === 'string' ? metadata[MARK] : undefined,
      };
    },

    async *list(prefix) {
      let page = '';
      do {
        const search = new URLSearchParams({
          prefix,
          fields: 'items(name,size,updated),nextPageToken',
          ...(page === '' ? {} : { pageToken: page }),
        });
        const answer = await attempt('storage.objects.list', async () => {
          const found: unknown = await (await send(`${bucket}/o?${search}`)).json();
          return isObject(found) ? found : {};
        });
        const items = Array.isArray(answer['items']) ? answer['items'].filter(isObject) : [];
        for (const { name, size, updated } of items) {
          yield { key: String(name), size_bytes: Number(size ?? 0), modified_at: dateOf(updated, runtime.now()) };
        }
        page = typeof answer['nextPageToken'] === 'string' ? answer['nextPageToken'] : '';
      } while (page !== '');
    },

    async remove(key) {
      await attempt('storage.objects.delete', () => send(objectUrl(key), { method: 'DELETE' }, [404]));
    },

    // An upload that is not ended is seen by nobody, and forgotten after a week.
    async *unfinished() {},
    async discardUnfinished() {},

    async access() {
      const search = new URLSearchParams();
      for (const verb of ['list', 'get', 'create', 'delete']) search.append('permissions', `storage.objects.${verb}`);
      const answer = await attempt('storage.objects.list', async () => {
        const found: unknown = await (await send(`${bucket}/iam/testPermissions?${search}`)).json();
        return isObject(found) && Array.isArray(found['permissions']) ? found['permissions'] : [];
      });
      const state = (verb: string): PermissionState =>
        answer.includes(`storage.objects.${verb}`) ? 'granted' : 'refused';
      return { list: state('list'), read: state('get'), write: state('create'), delete: state('delete') };
    },
  };
}

function dateOf(text: unknown, fallback: Date): Date {
  const time = typeof text === 'string' ? Date.parse(text) : Number.NaN;
  return Number.isNaN(time) ? fallback : new Date(time);
}
