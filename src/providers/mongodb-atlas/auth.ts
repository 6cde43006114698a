import { createHash } from 'node:crypto';
import { HoldfastError } from '../../core/errors.ts';
import { isObject } from '../../core/json.ts';
import type { Runtime, SecretRef } from '../../core/runtime.ts';
import { refusalError } from './map.ts';

/** The credentials that an entity names; what is left out comes from the environment. */
export interface AtlasCredentials {
  readonly client_id?: SecretRef | string | undefined;
  readonly client_secret?: SecretRef | undefined;
  readonly secret_ref?: SecretRef | undefined;
  readonly public_key?: SecretRef | string | undefined;
  readonly private_key?: SecretRef | undefined;
}

/** Signs requests. One object serves one credential. */
export interface Auth {
  /** Gives the Authorization header. A request that writes gets one that is known to be fresh, for it is sent once. */
  header(method: string, uri: string, writes: boolean, signal: AbortSignal): Promise<string | undefined>;
  /** Takes in a 401 to a request with this header, its try counted from 0; says whether the same read may be tried again. */
  refused(response: Response, header: string | undefined, attempt: number): boolean;
}

/**
 * Finds the credential: what the entity names first, then the environment; a service account before an API key. The
 * project, empty for none, is read for what the first answer says about an API key.
 * @throws {HoldfastError} AUTHENTICATION_FAILED naming what is missing
 */
export async function openAuth(
  given: AtlasCredentials,
  base: string,
  project: string,
  runtime: Runtime,
): Promise<Auth> {
  const read = async (value: SecretRef | string | undefined, variable: string): Promise<string | undefined> => {
    if (value === undefined) return runtime.credential(variable);
    return typeof value === 'string' ? value : runtime.secret(value);
  };
  const secretRef = given.client_secret ?? given.secret_ref;
  const namesKey = given.public_key !== undefined || given.private_key !== undefined;
  const namesAccount = given.client_id !== undefined || secretRef !== undefined;
  if (namesAccount || !namesKey) {
    const id = await read(given.client_id, 'MONGODB_ATLAS_CLIENT_ID');
    const secret = await read(secretRef, 'MONGODB_ATLAS_CLIENT_SECRET');
    if (id && secret) return new BearerAuth(id, secret, base, runtime);
    if (namesAccount) throw missing(id ? 'MONGODB_ATLAS_CLIENT_SECRET' : 'MONGODB_ATLAS_CLIENT_ID');
  }
  const key = await read(given.public_key, 'MONGODB_ATLAS_PUBLIC_KEY');
  const secret = await read(given.private_key, 'MONGODB_ATLAS_PRIVATE_KEY');
  if (key && secret) return new DigestAuth(key, secret, base, project, runtime);
  if (namesKey) throw missing(key ? 'MONGODB_ATLAS_PRIVATE_KEY' : 'MONGODB_ATLAS_PUBLIC_KEY');
  throw missing(
    'MONGODB_ATLAS_CLIENT_ID and MONGODB_ATLAS_CLIENT_SECRET (or MONGODB_ATLAS_PUBLIC_KEY and MONGODB_ATLAS_PRIVATE_KEY)',
  );
}

function missing(variables: string): HoldfastError {
  return new HoldfastError('AUTHENTICATION_FAILED', `no credential for MongoDB Atlas: ${variables} not set`, {
    hint: "Set it, or name it in the entity. MCP clients hand down only the variables named in their configuration's env.",
  });
}

const RENEW_EARLY_MS = 5 * 60_000;

/** A service account: an access token by the client credentials grant, kept until five minutes before its end. */
class BearerAuth implements Auth {
  readonly #basic: string;
  readonly #base: string;
  readonly #runtime: Runtime;
  #token: { value: string; renewAt: number } | undefined;
  #pending: Promise<string> | undefined;

  constructor(id: string, secret: string, base: string, runtime: Runtime) {
    this.#basic = Buffer.from(`${id}:${secret}`).toString('base64');
    this.#base = base;
    this.#runtime = runtime;
    runtime.conceal(this.#basic);
  }

  async header(_method: string, _uri: string, _writes: boolean, signal: AbortSignal): Promise<string> {
    if (this.#token !== undefined && this.#runtime.now().getTime() < this.#token.renewAt) {
      return `Bearer ${this.#token.value}`;
    }
    // Calls at the same moment share one token request, so no caller's signal may end it.
    this.#pending ??= this.#fetchToken().finally(() => {
      this.#pending = undefined;
    });
    return `Bearer ${await unlessAborted(this.#pending, signal)}`;
  }

  refused(_response: Response, header: string | undefined, attempt: number): boolean {
    // Another call may have renewed the token in the meantime.
    if (header === `Bearer ${this.#token?.value}`) this.#token = undefined;
    return attempt === 0;
  }

  async #fetchToken(): Promise<string> {
    const response = await this.#runtime.fetch(`${this.#base}/api/oauth/token`, {
      method: 'POST',
      safe: true,
      headers: {
        authorization: `Basic ${this.#basic}`,
        accept: 'application/json',
        'content-type': 'application/x-www-form-urlencoded',
      },
      body: 'grant_type=client_credentials',
    });
    const body: unknown = await response.json().catch(() => undefined);
    if (!response.ok) {
      // The token endpoint says 400 for a credential that it does not know.
      const status = response.status === 400 || response.status === 403 ? 401 : response.status;
      throw refusalError({
        status,
        body: undefined,
        request_id: undefined,
        retry_after: undefined,
        subject: 'project',
        role: 'Project Read Only',
        writes: false,
      });
    }
    const token = isObject(body) ? body['access_token'] : undefined;
    if (typeof token !== 'string' || token === '') {
      throw new HoldfastError('PROVIDER_UNAVAILABLE', 'MongoDB Atlas gave no access token');
    }
    this.#runtime.conceal(token);
    const seconds = isObject(body) && typeof body['expires_in'] === 'number' ? body['expires_in'] : 3600;
    const lifetime = Math.max(seconds * 1000 - RENEW_EARLY_MS, seconds * 500);
    this.#token = { value: token, renewAt: this.#runtime.now().getTime() + lifetime };
    return token;
  }
}

interface Challenge {
  readonly realm: string;
  readonly nonce: string;
  readonly opaque: string | undefined;
  readonly algorithm: string;
  readonly stale: boolean;
  count: number;
}

const HASHES: Record<string, string> = { MD5: 'md5', 'SHA-256': 'sha256' };

/** An API key pair by HTTP Digest (RFC 7616): MD5 or SHA-256, `qop=auth`, the nonce used again with a rising count. */
class DigestAuth implements Auth {
  readonly #key: string;
  readonly #secret: string;
  readonly #probe: string;
  readonly #runtime: Runtime;
  #challenge: Challenge | undefined;

  constructor(key: string, secret: string, base: string, project: string, runtime: Runtime) {
    this.#key = key;
    this.#secret = secret;
    this.#probe = `${base}/api/atlas/v2/groups${project === '' ? '' : `/${project}`}`;
    this.#runtime = runtime;
  }

  async header(method: string, uri: string, writes: boolean, signal: AbortSignal): Promise<string | undefined> {
    // A write is sent once and must not be the request that meets an old nonce: a read fetches a new one first.
    if (writes) this.#challenge = await this.#fetchChallenge(signal);
    const challenge = this.#challenge;
    if (challenge === undefined) return undefined;
    challenge.count += 1;
    const hash = HASHES[challenge.algorithm.replace(/-sess$/i, '').toUpperCase()] as string;
    const digest = (text: string): string => createHash(hash).update(text).digest('hex');
    const cnonce = this.#runtime.random(16).toString('hex');
    const nc = challenge.count.toString(16).padStart(8, '0');
    let secret = digest(`${this.#key}:${challenge.realm}:${this.#secret}`);
    if (/-sess$/i.test(challenge.algorithm)) secret = digest(`${secret}:${challenge.nonce}:${cnonce}`);
    const response = digest(`${secret}:${challenge.nonce}:${nc}:${cnonce}:auth:${digest(`${method}:${uri}`)}`);
    const quoted = (value: string): string => `"${value.replace(/[\\"]/g, '\\$&')}"`;
    return [
      `Digest username=${quoted(this.#key)}`,
      `realm=${quoted(challenge.realm)}`,
      `nonce=${quoted(challenge.nonce)}`,
      `uri=${quoted(uri)}`,
      `algorithm=${challenge.algorithm}`,
      'qop=auth',
      `nc=${nc}`,
      `cnonce="${cnonce}"`,
      `response="${response}"`,
      ...(challenge.opaque === undefined ? [] : [`opaque=${quoted(challenge.opaque)}`]),
    ].join(', ');
  }

  refused(response: Response, header: string | undefined): boolean {
    const next = readChallenge(response.headers.get('www-authenticate'));
    this.#challenge = next;
    // The first challenge, or one that says that the nonce was old; any other refusal means a wrong key.
    return next !== undefined && (header === undefined || next.stale);
  }

  async #fetchChallenge(signal: AbortSignal): Promise<Challenge> {
    const response = await this.#runtime.fetch(this.#probe, {
      headers: { accept: 'application/vnd.atlas.2025-03-12+json' },
      signal,
    });
    const challenge = readChallenge(response.headers.get('www-authenticate'));
    if (challenge === undefined) {
      throw new HoldfastError('AUTHENTICATION_FAILED', 'MongoDB Atlas offered no digest challenge for the API key', {
        details: { outcome: 'not_sent' },
        hint: 'Use a service account (client_id and client_secret), or check the endpoint of the entity.',
      });
    }
    return challenge;
  }
}

/** Reads the strongest Digest challenge with `qop=auth` and a hash that we have. */
function readChallenge(header: string | null): Challenge | undefined {
  const challenges = (header ?? '')
    .split(/(?:^|,)\s*(?=[A-Za-z-]+\s+[a-z]+=)/)
    .filter((part) => /^Digest\s/i.test(part))
    .flatMap((part): Challenge[] => {
      const fields: Record<string, string> = {};
      for (const [, name, quoted, plain] of part
        .slice(7)
        .matchAll(/([a-z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))/gi)) {
        fields[(name as string).toLowerCase()] = quoted?.replace(/\\(.)/g, '$1') ?? plain ?? '';
      }
      const algorithm = fields['algorithm'] ?? 'MD5';
      const usable =
        HASHES[algorithm.replace(/-sess$/i, '').toUpperCase()] !== undefined &&
        (fields['qop'] ?? '').split(/[\s,]+/).includes('auth');
      if (!usable || fields['realm'] === undefined || fields['nonce'] === undefined) return [];
      const { realm, nonce, opaque } = fields as { realm: string; nonce: string; opaque?: string };
      return [{ realm, nonce, opaque, algorithm, stale: fields['stale']?.toLowerCase() === 'true', count: 0 }];
    });
  return challenges.find(({ algorithm }) => algorithm.toUpperCase().startsWith('SHA-256')) ?? challenges[0];
}

function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}
