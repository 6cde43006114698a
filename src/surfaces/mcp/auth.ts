import { createHash, timingSafeEqual } from 'node:crypto';
import { HoldfastError } from '../../core/errors.ts';
import type { Principal, Role } from '../../core/principal.ts';

/** One bearer token of the `server` section: its hash, never the token. */
export interface HttpToken {
  readonly name: string;
  /** Lower-case hex SHA-256 of the token. */
  readonly sha256: string;
  readonly roles: readonly Role[];
  /** RFC 3339; the token is refused from then on. */
  readonly expires_at?: string | undefined;
}

/** The `server` section of the entities file, as far as HTTP goes. */
export interface HttpConfig {
  /** Address to listen on; 127.0.0.1 when left out. */
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  /** Names that a request may be addressed to, each with any port unless it has one. */
  readonly allowed_hosts?: readonly string[] | undefined;
  /** Origins of pages that may call, beside those under the allowed hosts: `https://console.example`. */
  readonly allowed_origins?: readonly string[] | undefined;
  readonly tokens?: readonly HttpToken[] | undefined;
  readonly max_sessions?: number | undefined;
  readonly session_idle_seconds?: number | undefined;
}

/** Who calls over loopback where no tokens are configured: anyone who can run a program on this machine. */
export const LOCAL_PRINCIPAL: Principal = { id: 'http:local', person: 'local', roles: ['operator'] };

/** Tells whether an address can be reached from this machine only. */
export function isLoopback(host: string): boolean {
  const name = host.replace(/^\[|\]$/g, '').toLowerCase();
  return name === 'localhost' || name === '::1' || /^127(\.\d{1,3}){3}$/.test(name);
}

/**
 * Refuses a configuration that would let strangers in.
 * @throws {HoldfastError} CONFIG_INVALID for an address beyond loopback without tokens or allowed hosts, or a token's hash that is none
 */
export function assertSafe(config: HttpConfig): void {
  const { host = '127.0.0.1', tokens = [], allowed_hosts = [] } = config;
  for (const { name, sha256, expires_at } of tokens) {
    if (!/^[0-9a-f]{64}$/.test(sha256)) {
      throw new HoldfastError('CONFIG_INVALID', `server.tokens '${name}': sha256 is not a SHA-256 in lower-case hex`, {
        hint: 'Write the hash, never the token: printf %s "$TOKEN" | sha256sum.',
      });
    }
    if (expires_at !== undefined && Number.isNaN(Date.parse(expires_at))) {
      throw new HoldfastError('CONFIG_INVALID', `server.tokens '${name}': expires_at is not a timestamp`);
    }
  }
  const names = tokens.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new HoldfastError('CONFIG_INVALID', `server.tokens has two tokens called '${twice}'`);
  if (isLoopback(host)) return;
  const missing = [
    ...(tokens.length === 0 ? ['server.tokens'] : []),
    ...(allowed_hosts.length === 0 ? ['server.allowed_hosts'] : []),
  ];
  if (missing.length > 0) {
    throw new HoldfastError('CONFIG_INVALID', `refusing to listen on ${host} without ${missing.join(' and ')}`, {
      hint: 'Any address but loopback can be reached by others. Add bearer tokens (as hashes) and the host names clients use, or listen on 127.0.0.1.',
    });
  }
}

/** Says who makes a request; undefined for one who may not. Compares hashes in constant time and looks at every token. */
export function authenticator(
  config: HttpConfig,
  now: () => Date,
): (authorization: string | undefined) => Principal | undefined {
  const tokens = (config.tokens ?? []).map((token) => ({
    hash: Buffer.from(token.sha256, 'hex'),
    ends: token.expires_at === undefined ? Number.POSITIVE_INFINITY : Date.parse(token.expires_at),
    principal: { id: `http:${token.name}`, person: token.name, roles: [...token.roles] },
  }));
  if (tokens.length === 0) return () => LOCAL_PRINCIPAL;
  return (authorization) => {
    const given = /^Bearer +([!-~]+) *$/i.exec(authorization ?? '')?.[1];
    if (given === undefined) return undefined;
    const hash = createHash('sha256').update(given).digest();
    let found: Principal | undefined;
    for (const token of tokens) {
      if (timingSafeEqual(token.hash, hash) && token.ends > now().getTime()) found = token.principal;
    }
    return found;
  };
}
