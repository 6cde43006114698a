const SECRET_WORDS =
  /(?:^|_)(?:\w*pass(?:word|wd|phrase|code)|pwd|\w*secrets?|\w*token|api_?key|private_?key|access_?key|secret_?key|account_?key|shared_?key|master_?key|encryption_?key|signing_?key|storage_?key|routing_?key|license_?key|credentials?|authorization|auth|cookie|connection_?string|connection_?ur[il]|sas|signature)(?:_|$)/;

/** Endings that turn a secret's name into the name of something about it. */
const ABOUT =
  /(?:_(?:sha\d+|hash|digest|refs?|name|names|arn|id|ids|file|path|at|seconds|count|type|kind|enabled|status|ttl|url|uri|rotation|required|version|length|expiry|expires|pattern)|(?:^|_)(?:next_page|page|next|continuation|client|client_request|idempotency|pagination|sync|cancellation)_token)$/;

const known = new Map<string, boolean>();

/**
 * Tells whether a key (`masterPassword`, `x-api-key`, `PGPASSWORD`) names a secret by its words. Names of things about a
 * secret (`token_sha256`, `secret_ref`, `next_page_token`) do not count.
 */
export function isSecretName(key: string): boolean {
  const cached = known.get(key);
  if (cached !== undefined) return cached;
  const snake = key
    .slice(0, 120)
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .replace(/[^A-Za-z0-9]+/g, '_')
    .toLowerCase();
  const answer = SECRET_WORDS.test(snake) && (!ABOUT.test(snake) || /(?:^|_)connection_ur[il]$/.test(snake));
  // Keys come from outside too, so the memory of them is bounded.
  if (known.size > 5000) known.clear();
  known.set(key, answer);
  return answer;
}
