import { createHash } from 'node:crypto';
import { startWire, type WireAnswer, type WireRequest, type WireServer } from './wire.ts';

interface Stored {
  readonly content: Buffer;
  readonly generation: string;
  readonly resource: Readonly<Record<string, unknown>>;
}

interface Session {
  readonly resource: Readonly<Record<string, unknown>>;
  readonly onlyNew: boolean;
  readonly query: URLSearchParams;
  content: Buffer;
  done: Stored | undefined;
}

export interface GcsWire extends WireServer {
  readonly bucket: string;
  readonly objects: Map<string, Stored>;
  readonly sessions: Map<string, Session>;
  /** What `testPermissions` answers. */
  permissions: readonly string[];
}

const CHUNK = 256 * 1024;

/**
 * Starts one bucket that speaks the JSON API of Cloud Storage by its published description, resumable uploads included.
 * Lists come in pages of three.
 * @see Cloud Storage JSON API v1, "Resumable uploads"
 */
export async function startGcsWire(bucket: string, token: string): Promise<GcsWire> {
  const objects = new Map<string, Stored>();
  const sessions = new Map<string, Session>();
  let counter = 0;

  const store = (resource: Stored['resource'], content: Buffer, query: URLSearchParams): Stored => {
    counter += 1;
    const kms = query.get('kmsKeyName');
    const stored = {
      content,
      generation: String(1000 + counter),
      resource: { ...resource, ...(kms ? { kmsKeyName: kms } : {}) },
    };
    objects.set(String(resource['name']), stored);
    return stored;
  };
  const isTaken = (query: URLSearchParams, name: unknown): boolean =>
    query.get('ifGenerationMatch') === '0' && objects.has(String(name));

  const answer = (request: WireRequest): WireAnswer => {
    const { method, url, headers, body } = request;
    if (headers.authorization !== `Bearer ${token}`) return googleRefusal(401, 'authError');
    const session = sessions.get(url.searchParams.get('upload_id') ?? '');
    if (session !== undefined) return resume(request, session);
    const [, area, ...path] = url.pathname.split('/');
    const places = (area === 'upload' ? path.slice(1) : path).map(decodeURIComponent);
    if (places[2] !== bucket) return googleRefusal(404, 'notFound');
    if (area === 'upload') {
      if (url.searchParams.get('uploadType') === 'multipart') return insert(request);
      const resource = JSON.parse(String(body)) as Stored['resource'];
      if (isTaken(url.searchParams, resource['name'])) return googleRefusal(412, 'conditionNotMet');
      counter += 1;
      const id = `session-${counter}`;
      const onlyNew = url.searchParams.get('ifGenerationMatch') === '0';
      sessions.set(id, { resource, onlyNew, query: url.searchParams, content: Buffer.alloc(0), done: undefined });
      const location = `${wire.origin}${url.pathname}?uploadType=resumable&upload_id=${id}`;
      return { status: 200, headers: { location } };
    }
    if (places[3] === 'iam') {
      const asked = url.searchParams.getAll('permissions');
      return json({ permissions: asked.filter((one) => wire.permissions.includes(one)) });
    }
    const key = places[4];
    if (key === undefined) return list(url.searchParams);
    const found = objects.get(key);
    const wanted = url.searchParams.get('generation') ?? url.searchParams.get('ifGenerationMatch') ?? undefined;
    if (found === undefined || (wanted !== undefined && wanted !== found.generation))
      return googleRefusal(404, 'notFound');
    if (method === 'DELETE') {
      objects.delete(key);
      return { status: 204 };
    }
    return url.searchParams.get('alt') === 'media' ? media(request, found) : json(resourceOf(found));
  };

  const insert = ({ url, headers, body }: WireRequest): WireAnswer => {
    const boundary = /boundary=(.+)$/.exec(headers['content-type'] ?? '')?.[1] ?? '';
    const marker = Buffer.from('\r\n\r\n');
    const first = body.indexOf(marker) + marker.byteLength;
    const between = body.indexOf(`\r\n--${boundary}`, first);
    const second = body.indexOf(marker, between) + marker.byteLength;
    const resource = JSON.parse(String(body.subarray(first, between))) as Stored['resource'];
    const content = body.subarray(second, body.byteLength - Buffer.byteLength(`\r\n--${boundary}--`));
    if (isTaken(url.searchParams, resource['name'])) return googleRefusal(412, 'conditionNotMet');
    const md5 = createHash('md5').update(content).digest('base64');
    if (resource['md5Hash'] !== undefined && resource['md5Hash'] !== md5) return googleRefusal(400, 'invalid');
    return json(resourceOf(store(resource, Buffer.from(content), url.searchParams)));
  };

  const resume = ({ method, url, headers, body }: WireRequest, session: Session): WireAnswer => {
    if (method === 'DELETE') {
      sessions.delete(url.searchParams.get('upload_id') ?? '');
      return { status: 499 };
    }
    if (session.done !== undefined) return json(resourceOf(session.done));
    const [, from, , total] = /^bytes (?:(\d+)-(\d+)|\*)\/(\d+|\*)$/.exec(headers['content-range'] ?? '') ?? [];
    if (total === undefined) return googleRefusal(400, 'invalid');
    const held = session.content.byteLength;
    if (from !== undefined && Number(from) > held) return googleRefusal(400, 'invalid');
    // What is there already is passed over.
    const fresh = from === undefined ? body : body.subarray(held - Number(from));
    // Before the end only whole multiples of 256 KiB are kept.
    const whole = total === '*' ? fresh.byteLength - ((held + fresh.byteLength) % CHUNK) : fresh.byteLength;
    session.content = Buffer.concat([session.content, fresh.subarray(0, Math.max(0, whole))]);
    const size = session.content.byteLength;
    if (total === '*' || Number(total) !== size) {
      return { status: 308, headers: size === 0 ? {} : { range: `bytes=0-${size - 1}` } };
    }
    if (session.onlyNew && objects.has(String(session.resource['name']))) return googleRefusal(412, 'conditionNotMet');
    session.done = store(session.resource, session.content, session.query);
    return json(resourceOf(session.done));
  };

  const list = (query: URLSearchParams): WireAnswer => {
    const prefix = query.get('prefix') ?? '';
    const after = query.get('pageToken') ?? '';
    const keys = [...objects.keys()].filter((key) => key.startsWith(prefix) && key > after).sort();
    const page = keys.slice(0, 3);
    const items = page.map((key) => resourceOf(objects.get(key) as Stored));
    return json({
      ...(items.length > 0 ? { items } : {}),
      ...(keys.length > page.length ? { nextPageToken: page.at(-1) } : {}),
    });
  };

  const resourceOf = ({ resource, content, generation }: Stored): Record<string, unknown> => ({
    ...resource,
    generation,
    size: String(content.byteLength),
    updated: '2026-01-01T00:00:00.000Z',
    md5Hash: createHash('md5').update(content).digest('base64'),
  });

  const wire: GcsWire = Object.assign(await startWire(answer), {
    bucket,
    objects,
    sessions,
    permissions: ['list', 'get', 'create', 'delete'].map((verb) => `storage.objects.${verb}`),
  });
  return wire;
}

function media({ headers }: WireRequest, { content, generation }: Stored): WireAnswer {
  const facts = { 'x-goog-generation': generation, 'content-type': 'application/octet-stream' };
  const [, first = '', last = ''] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? '') ?? [];
  if (first === '') return { status: 200, headers: facts, body: content };
  const all = content.byteLength;
  if (Number(first) >= all) return { status: 416, headers: { 'content-range': `bytes */${all}` } };
  const end = Math.min(last === '' ? all : Number(last), all - 1);
  return {
    status: 206,
    headers: { ...facts, 'content-range': `bytes ${first}-${end}/${all}` },
    body: content.subarray(Number(first), end + 1),
  };
}

function json(value: unknown): WireAnswer {
  return { status: 200, headers: { 'content-type': 'application/json' }, body: JSON.stringify(value) };
}

/** A refusal as Google writes it. */
export function googleRefusal(status: number, reason: string): WireAnswer {
  const error = { code: status, message: 'free text of the store', errors: [{ reason, message: 'free text' }] };
  return { status, headers: { 'content-type': 'application/json' }, body: JSON.stringify({ error }) };
}
