import { execFileSync } from 'node:child_process';
import { createHash, generateKeyPairSync, randomBytes, scryptSync } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { ERROR_CODES } from '../../src/core/errors.ts';
import { isObject, type JsonObject } from '../../src/core/json.ts';
import { findBinaries } from '../../src/postgres/binaries.ts';
import type { PrivateServer } from '../../src/postgres/private-server.ts';
import { awsDynamodbSimulator } from '../../src/simulators/aws-dynamodb.ts';
import { awsRdsSimulator } from '../../src/simulators/aws-rds.ts';
import { azureCosmosSimulator, COSMOS_SANDBOX } from '../../src/simulators/azure-cosmos.ts';
import { digitaloceanSimulator } from '../../src/simulators/digitalocean.ts';
import { gcpBigQuerySimulator } from '../../src/simulators/gcp-bigquery.ts';
import { gcpCloudSqlSimulator } from '../../src/simulators/gcp-cloud-sql.ts';
import { FIRESTORE_SANDBOX, gcpFirestoreSimulator } from '../../src/simulators/gcp-firestore.ts';
import { mongodbAtlasSimulator } from '../../src/simulators/mongodb-atlas.ts';
import { NEON_SANDBOX, neonSimulator } from '../../src/simulators/neon.ts';
import { redisCloudSimulator } from '../../src/simulators/redis-cloud.ts';
import { type SimulatorServer, startSimulators } from '../../src/simulators/server.ts';
import {
  FAULT_KINDS,
  type Simulator,
  SimulatorClock,
  type SimulatorRequest,
  type SimulatorResponse,
} from '../../src/simulators/simulator.ts';
import { parametersOf } from '../../src/surfaces/parameters.ts';
import { Canaries } from '../support/canaries.ts';
import { registry } from '../support/guarded-fleet.ts';
import { describePostgres, sql, startTestServer } from '../support/postgres.ts';
import {
  type Finished,
  type RawAnswer,
  REROUTE,
  runProgram,
  type Server,
  serveHttp,
  serveStdio,
} from '../support/program.ts';
import { redisServer, startRedis, type TestRedis } from '../support/redis.ts';

// A canary in every place where a secret can be given or handed out. The real program runs as child processes against
// simulators that tell back all they were told; afterwards no byte that it left anywhere may hold a canary.

const canaries = new Canaries();
let root: string;
let stateDirectory: string;
let configFile: string;
const environment: Record<string, string> = {};

// The file ----------------------------------------------------------------------------------------------------------

const config: Record<string, JsonObject> = {};
let references = 0;

/** Puts a secret outside of the file and gives the reference to it. */
function refer(kind: 'env' | 'file', value: string): string {
  references += 1;
  if (kind === 'env') {
    environment[`CANARY_${references}`] = value;
    return `\${env:CANARY_${references}}`;
  }
  const path = join(root, 'secrets', `canary-${references}`);
  writeFileSync(path, `${value}\n`, { mode: 0o600 });
  return `\${file:${path}}`;
}

/** The secret that a reference stands for. */
function secretBehind(reference: string): string {
  const [, kind, name = ''] = /^\$\{(env|file):(.*)\}$/.exec(reference) ?? [];
  if (kind === undefined) return reference;
  return kind === 'env' ? (environment[name] ?? '') : readFileSync(name, 'utf8').replace(/\n$/, '');
}

const KINDS = ['env', 'file'] as const;
type Kind = (typeof KINDS)[number];

/** Places of an entity type's schema that take a secret reference: `encryption.identity`. */
function secretFields(schema: z.ZodType): string[] {
  const visit = (node: unknown, path: string): string[] => {
    if (!isObject(node)) return [];
    const own = node['secret'] === true && path !== '' ? [path] : [];
    const members = Object.entries(isObject(node['properties']) ? node['properties'] : {});
    const choices = ['anyOf', 'oneOf', 'allOf'].flatMap((key) => (Array.isArray(node[key]) ? node[key] : []));
    return [
      ...own,
      ...members.flatMap(([name, member]) => visit(member, path === '' ? name : `${path}.${name}`)),
      ...choices.flatMap((choice) => visit(choice, path)),
    ];
  };
  return [...new Set(visit(z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }), ''))];
}

/** The same places of an entity as it is written, with the kind of the reference. */
function usedFields(value: unknown, path = ''): string[] {
  if (typeof value === 'string') {
    const kind = /^\$\{(env|file):/.exec(value)?.[1];
    return kind === undefined ? [] : [`${path} by ${kind}`];
  }
  if (!isObject(value)) return [];
  return Object.entries(value).flatMap(([name, member]) => usedFields(member, path === '' ? name : `${path}.${name}`));
}

// The providers -----------------------------------------------------------------------------------------------------

const clock = new SimulatorClock();
const atlas = mongodbAtlasSimulator({ clock });
const cloudSql = gcpCloudSqlSimulator({ clock });
const redis = redisCloudSimulator({ clock });
const dynamodb = awsDynamodbSimulator({ clock });
const rds = awsRdsSimulator({ clock });
const cosmos = azureCosmosSimulator({ clock });
const bigQuery = gcpBigQuerySimulator({ clock });
const firestore = gcpFirestoreSimulator({ clock });
const digitalocean = digitaloceanSimulator({ clock });
const neon = neonSimulator({ clock });
const SIMULATORS = [atlas, dynamodb, rds, bigQuery, cloudSql, firestore, cosmos, redis, digitalocean, neon];

/** What a simulator does with the credentials that it gets. */
type Echo = 'off' | 'fields' | 'words' | 'refusal' | 'bare refusal' | 'no JSON' | 'odd types';

interface Site {
  readonly entity: string;
  readonly server: SimulatorServer;
  echo: Echo;
  status: number;
  /** Secrets that its provider knows although they are never sent: those that sign requests or buy tokens. */
  readonly known: string[];
}
const sites: Site[] = [];
const received = new Set<string>();

function credentialsIn(request: SimulatorRequest): string[] {
  const { authorization = '', 'x-api-key': key = '', 'x-api-secret-key': secret = '' } = request.headers;
  const basic = /^Basic (.+)$/.exec(authorization)?.[1];
  const decoded = basic === undefined ? [] : Buffer.from(basic, 'base64').toString('utf8').split(':');
  const uris = isObject(request.json) ? [request.json['importFromUri'] ?? []].flat() : [];
  const signedWith = /Credential=([^/]+)\//.exec(authorization)?.[1] ?? '';
  const session = request.headers['x-amz-security-token'] ?? '';
  const bearer = authorization.replace(/^\w+ /, '');
  const found = [authorization, bearer, ...decoded, signedWith, session, key, secret, ...uris.map(String)];
  const passwords = uris.flatMap((uri) => {
    const url = URL.canParse(String(uri)) ? new URL(String(uri)) : undefined;
    return [url?.password ?? '', decodeURIComponent(url?.password ?? ''), ...(url?.searchParams.values() ?? [])];
  });
  return [...new Set([...found, ...passwords])].filter((text) => text !== '');
}

const TEXTS = /^(description|detail|message|failureReason|error_description|location|planName|user|username|hostname)$/;
const WORDS =
  /^(region|redisVersion|mongo\w*Version|databaseVersion|frequencyType|snapshotType|type|tier|interval|schedule|cloudProvider|regionName|backupKind|name|status|state|stateName)$/;

const XML_TEXTS = /<(Message|DBInstanceStatus|Status|SnapshotType|Engine|EngineVersion|Description)>([^<]*)<\//g;

function tell(value: unknown, text: string, words: boolean): unknown {
  if (typeof value === 'string' && value.startsWith('<')) {
    const told = text.replace(/[&<>]/g, (letter) => `&#${letter.charCodeAt(0)};`);
    return value.replace(XML_TEXTS, (whole, name: string, was: string) =>
      words || name === 'Message' || name === 'Description' ? `<${name}>${was} ${told}</` : whole,
    );
  }
  if (Array.isArray(value)) return value.map((member) => tell(member, text, words));
  if (!isObject(value)) return value;
  const told = Object.entries(value).map(([key, member]): [string, unknown] => [
    key,
    typeof member === 'string' && (TEXTS.test(key) || (words && WORDS.test(key)))
      ? `${member} ${text}`
      : tell(member, text, words),
  ]);
  return { ...Object.fromEntries(told), description: text, failureReason: text, [text]: text };
}

function echoing(simulator: Simulator, site: () => Site): Simulator {
  return {
    provider: simulator.provider,
    matches: (request) => simulator.matches(request),
    ...(simulator.writes === undefined ? {} : { writes: (request) => simulator.writes?.(request) ?? true }),
    async handle(request) {
      const { echo, status, known } = site();
      const given = [...credentialsIn(request), ...known];
      for (const secret of given) received.add(secret);
      const all = given.join(' ; ');
      const safe = encodeURIComponent(all);
      const headers = {
        'x-request-id': safe,
        server: safe,
        'x-goog-request-id': safe,
        'x-amzn-requestid': safe,
        'x-ms-request-id': safe,
        'x-neon-ret-request-id': safe,
        'x-rate-limit-remaining': echo === 'off' ? '400' : safe,
      };
      if (echo === 'refusal' || echo === 'bare refusal') {
        const text = echo === 'refusal' ? `the credential ${all} is not known` : (given.at(-1) ?? '');
        if (simulator === rds) {
          const told = text.replace(/[&<>]/g, (letter) => `&#${letter.charCodeAt(0)};`);
          const error = `<Error><Type>${told}</Type><Code>${told}</Code><Message>${told}</Message></Error>`;
          const xml = `<ErrorResponse>${error}<RequestId>${told}</RequestId></ErrorResponse>`;
          return { status, headers: { ...headers, 'content-type': 'text/xml' }, body: xml };
        }
        const body = {
          __type: text,
          code: text,
          id: text,
          request_id: text,
          errorCode: text,
          reason: text,
          detail: text,
          parameters: [text],
          badRequestDetail: { fields: [{ field: text, description: text }] },
          message: text,
          type: text,
          status: text,
          error:
            simulator.provider === 'redis-cloud'
              ? text
              : {
                  code: status,
                  message: text,
                  status: text,
                  errors: [{ reason: text, message: text, domain: text }],
                  details: [
                    { '@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason: text, metadata: { a: text } },
                  ],
                },
        };
        return { status, headers, body };
      }
      if (echo === 'no JSON') {
        return { status: 200, headers: { ...headers, 'content-type': 'application/json' }, body: `${all} is no JSON` };
      }
      if (echo === 'odd types') {
        const odd = { [all]: all };
        return { status: 200, headers, body: { ...odd, id: odd, name: odd, results: all, items: all, status: odd } };
      }
      const response: SimulatorResponse = await simulator.handle(request);
      if (echo === 'off' || request.url.pathname.includes('/oauth/')) return response;
      // A task of Redis Cloud whose state is no word of its own is waited for, which shows nothing more.
      const words = echo === 'words' && !request.url.pathname.startsWith('/v1/tasks/');
      const body = tell(response.body, all, words);
      return { ...response, headers: { ...response.headers, ...headers }, body };
    },
  };
}

/** Parameters whose secrets are never sent: they sign requests, or buy tokens. */
const KNOWN = [
  'client_id',
  'client_secret',
  'secret_ref',
  'public_key',
  'private_key',
  'secret_access_key',
  'tenant_id',
];

/** Adds an entity with simulators of its own address, so that its rate and its breaker are its own. */
async function simulated(name: string, defines: string, parameters: JsonObject): Promise<void> {
  const site: { current: Site | undefined } = { current: undefined };
  const wrap = (simulator: Simulator): Simulator => echoing(simulator, () => site.current as Site);
  const server = await startSimulators({ simulators: () => SIMULATORS.map(wrap), clock });
  const known = KNOWN.flatMap((field) =>
    typeof parameters[field] === 'string' ? secretBehind(parameters[field]) : [],
  );
  site.current = { entity: `c/${name}`, server, echo: 'off', status: 400, known };
  sites.push(site.current);
  config[name] = { defines, ...parameters, endpoint: server.origin };
}

// Google's and Azure's hosts for tokens: each answer hands out a new canary, and a refusal tells back all that it was told.
let tokenHost: { origin: string; close(): Promise<void> };
let refuseTokens = false;
const tokenRequests: string[] = [];

async function startTokenHost(): Promise<typeof tokenHost> {
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks).toString('utf8');
    tokenRequests.push(`${request.url} ${request.headers.authorization ?? ''} ${body}`);
    response.setHeader('content-type', 'application/json');
    const path = request.url ?? '';
    if (path.includes('/discovery/instance') || path.includes('openid-configuration')) {
      // What Azure's library asks before it asks for a token.
      const tenant = path.includes('/discovery/') ? 'common' : path.split('/')[1];
      const base = `https://login.microsoftonline.com/${tenant}`;
      response.end(
        JSON.stringify({
          tenant_discovery_endpoint: `${base}/v2.0/.well-known/openid-configuration`,
          'api-version': '1.1',
          metadata: [],
          token_endpoint: `${base}/oauth2/v2.0/token`,
          authorization_endpoint: `${base}/oauth2/v2.0/authorize`,
          issuer: `${base}/v2.0`,
          jwks_uri: `${base}/discovery/v2.0/keys`,
        }),
      );
      return;
    }
    if (refuseTokens) {
      const text = `${request.headers.authorization ?? ''} ${body} ${decodeURIComponent(body)}`;
      response.statusCode = 400;
      response.end(JSON.stringify({ error: 'invalid_grant', error_description: text, [text]: text }));
      return;
    }
    const access = canaries.make('an access token of a token host', 'plain');
    const expires = new Date(Date.now() + 3_600_000).toISOString();
    response.end(
      JSON.stringify({
        access_token: access,
        accessToken: access,
        expires_in: 3600,
        expireTime: expires,
        token_type: 'Bearer',
      }),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://127.0.0.1:${port}`,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

function serviceAccount(name: string): string {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const key = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  const lines = key.split('\n').filter((line) => line !== '' && !line.startsWith('-----'));
  canaries.watch(name, ...lines.map((line) => line.slice(0, 30)).filter((line) => line.length === 30));
  const id = canaries.make(`${name}, key id`, 'plain');
  return JSON.stringify({
    type: 'service_account',
    project_id: 'holdfast-sandbox',
    private_key_id: id,
    private_key: key,
    client_email: 'backups@holdfast-sandbox.iam.gserviceaccount.com',
    client_id: '1',
  });
}

function authorizedUser(name: string): string {
  return JSON.stringify({
    type: 'authorized_user',
    client_id: 'user-client',
    client_secret: canaries.make(`${name}, client secret`, 'visible'),
    refresh_token: canaries.make(`${name}, refresh token`, 'visible'),
  });
}

/** A certificate with its key under a password, as far as a client reads it. */
function lockedCertificate(password: string): string {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const key = privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: password });
  const lines = key.toString().split('\n');
  const secret = lines.filter((line) => line.length >= 30 && !line.startsWith('-----'));
  canaries.watch('AZURE_CLIENT_CERTIFICATE_PATH, key', ...secret.map((line) => line.slice(0, 30)));
  const body = randomBytes(300).toString('base64');
  return `${key}-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----\n`;
}

const CLUSTER = { name: 'sandbox-cluster', project_id: '64f0a1b2c3d4e5f607182930' };
const INSTANCE = { name: 'orders-db', project: 'holdfast-sandbox' };
const ESSENTIALS = { subscription_id: 2101, database_id: 51002101 };
const PRO = { subscription_id: 3101, database_id: 51003101 };
const TABLE = { region: 'us-east-1', table_name: 'orders' };
const RDS_INSTANCE = { region: 'us-east-1', db_instance_identifier: 'orders-postgres' };
const RDS_CLUSTER = { region: 'us-east-1', db_cluster_identifier: 'shop-aurora' };
const ACCOUNT = {
  subscription_id: COSMOS_SANDBOX.subscription,
  resource_group_name: COSMOS_SANDBOX.group,
  account_name: COSMOS_SANDBOX.account,
};
const DATASET = { project: 'holdfast-sandbox', dataset: 'analytics', location: 'US' };
const DATABASE = { project: FIRESTORE_SANDBOX.project, database_id: FIRESTORE_SANDBOX.database };
const BRANCH = { project_id: NEON_SANDBOX.project, branch: 'main' };

async function simulatedEntities(kind: Kind, redisUrl: string): Promise<void> {
  const secret = (name: string, charset: Parameters<Canaries['make']>[1] = 'any'): string =>
    refer(kind, canaries.make(`${name} by ${kind}`, charset));
  const cluster = 'mongodb-atlas/cluster';
  await simulated(`atlas-account-${kind}`, cluster, {
    ...CLUSTER,
    client_id: secret('atlas client_id', 'plain'),
    client_secret: secret('atlas client_secret', 'lines'),
  });
  await simulated(`atlas-guide-${kind}`, cluster, {
    ...CLUSTER,
    client_id: 'mdb_sa_id_canary',
    secret_ref: secret('atlas secret_ref'),
  });
  const [publicKey, privateKey] = [
    canaries.make(`atlas public_key by ${kind}`, 'plain'),
    canaries.make(`atlas private_key by ${kind}`),
  ];
  atlas.state.keys.set(publicKey, privateKey);
  await simulated(`atlas-key-${kind}`, cluster, {
    ...CLUSTER,
    public_key: refer(kind, publicKey),
    private_key: refer(kind, privateKey),
  });
  await simulated(`atlas-wrong-key-${kind}`, cluster, {
    ...CLUSTER,
    public_key: refer(kind, publicKey),
    private_key: secret('a wrong atlas private_key'),
  });
  const instance = 'gcp/cloud-sql-instance';
  await simulated(`sql-token-${kind}`, instance, {
    ...INSTANCE,
    access_token: secret('cloud sql access_token', 'visible'),
  });
  await simulated(`sql-json-${kind}`, instance, {
    ...INSTANCE,
    credentials_json: refer(kind, serviceAccount(`cloud sql credentials_json by ${kind}`)),
  });
  await simulated(`sql-file-${kind}`, instance, {
    ...INSTANCE,
    credentials_file: refer(kind, authorizedUser(`cloud sql credentials_file by ${kind}`)),
    ...(kind === 'env' ? {} : { impersonate_service_account: 'restorer@holdfast-sandbox.iam.gserviceaccount.com' }),
  });
  for (const [name, defines, place] of [
    ['bigquery', 'gcp/big-query', DATASET],
    ['firestore', 'gcp/firestore', DATABASE],
  ] as const) {
    await simulated(`${name}-token-${kind}`, defines, {
      ...place,
      access_token: secret(`${name} access_token`, 'visible'),
    });
    await simulated(`${name}-json-${kind}`, defines, {
      ...place,
      credentials_json: refer(kind, serviceAccount(`${name} credentials_json by ${kind}`)),
    });
    await simulated(`${name}-file-${kind}`, defines, {
      ...place,
      credentials_file: refer(kind, authorizedUser(`${name} credentials_file by ${kind}`)),
    });
  }
  for (const [name, defines, place] of [
    ['dynamodb', 'aws-dynamo-db/dynamo-db-table', TABLE],
    ['rds', 'aws-rds/rds-instance', RDS_INSTANCE],
    ['aurora', 'aws-rds/rds-cluster', RDS_CLUSTER],
  ] as const) {
    await simulated(`${name}-${kind}`, defines, {
      ...place,
      access_key_id: secret(`${name} access_key_id`, 'plain'),
      secret_access_key: secret(`${name} secret_access_key`),
      session_token: secret(`${name} session_token`, 'visible'),
    });
  }
  const account = 'azure-cosmosdb/database-account';
  await simulated(`cosmos-token-${kind}`, account, {
    ...ACCOUNT,
    access_token: secret('cosmos access_token', 'visible'),
  });
  await simulated(`cosmos-client-${kind}`, account, {
    ...ACCOUNT,
    tenant_id: secret('cosmos tenant_id', 'plain'),
    client_id: secret('cosmos client_id', 'plain'),
    client_secret: secret('cosmos client_secret'),
  });
  await simulated(`droplet-${kind}`, 'digitalocean-database/database', {
    name: 'orders',
    token: secret('digitalocean token', 'visible'),
  });
  await simulated(`neon-${kind}`, 'neon/project', { ...BRANCH, api_key: secret('neon api_key', 'visible') });
  const keys = () => ({
    access_key: secret('redis access_key', 'visible'),
    secret_key: secret('redis secret_key', 'visible'),
  });
  await simulated(`redis-subscription-${kind}`, 'redis-cloud/essentials-subscription', {
    ...keys(),
    subscription_id: 2101,
  });
  const folder = (name: string): string =>
    refer(kind, `ftp://backup:${canaries.make(`${name} by ${kind}`, 'url')}@files.example.com/backups/`);
  await simulated(`redis-essentials-${kind}`, 'redis-cloud/essentials-database', {
    ...keys(),
    ...ESSENTIALS,
    redis_url: refer(kind, redisUrl),
    periodic_backup_path: folder('redis periodic_backup_path'),
  });
  await simulated(`redis-pro-${kind}`, 'redis-cloud/pro-database', {
    ...keys(),
    ...PRO,
    redis_url: refer(kind, `redis://default:${canaries.make(`a wrong redis_url by ${kind}`, 'url')}@127.0.0.1:1`),
    remote_backup: { active: true, storage_path: folder('redis storage_path') },
  });
}

const bearer = {
  ana: canaries.make('the bearer token of ana', 'plain'),
  stranger: canaries.make('a wrong bearer token', 'plain'),
};
const passphrase = canaries.make('the approver passphrase');

function passphraseHash(): string {
  const salt = randomBytes(16);
  const hash = scryptSync(passphrase, salt, 32, { N: 16_384, maxmem: 2 ** 28 });
  return ['scrypt', 16_384, 8, 1, salt.toString('base64'), hash.toString('base64')].join('$');
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

function writeConfig(): void {
  const document = {
    namespace: 'c',
    guard: { confirm: 'human', approver_passphrase_hash: passphraseHash() },
    server: { tokens: [{ name: 'ana', sha256: sha256(bearer.ana), roles: ['operator'] }] },
    ...config,
  };
  writeFileSync(configFile, JSON.stringify(document, null, 1));
}

// The program -------------------------------------------------------------------------------------------------------

const programOptions = (env: Record<string, string> = environment) => ({
  cwd: root,
  env: {
    HOLDFAST_LOG: 'debug',
    TMPDIR: join(root, 'tmp'),
    HOLDFAST_TEST_TOKEN_HOST: tokenHost.origin,
    HOLDFAST_TEST_PACE: '10',
    ...env,
  },
  node: ['--import', REROUTE],
  seen: canaries.seen,
});
const common = (): string[] => ['--config', configFile, '--state-dir', stateDirectory];
const holdfast = (args: readonly string[], env?: Record<string, string>): Promise<Finished> =>
  runProgram([...args, ...common()], programOptions(env));

const typeOf = (entity: string): string => String(config[entity.slice(2)]?.['defines']);
const actionOn = (entity: string, action: string) =>
  registry.actions.find(({ name, on }) => name === action && on.includes(typeOf(entity)));
const toolOn = (entity: string, action: string): string =>
  `${registry.entityTypes.get(typeOf(entity))!.provider.id}_${action}`.replaceAll('-', '_');
const codeOf = (answer: RawAnswer): string =>
  answer.isError ? String((answer.structured['error'] as JsonObject)['code']) : 'it ran';
const tokens: { token: string; where: string }[] = [];

function tokenIn(answer: RawAnswer, where: string): { token: string; code: string } {
  const confirmation = answer.structured['confirmation'] as { token: string; code: string };
  tokens.push({ token: confirmation.token, where });
  return confirmation;
}

async function finish(server: Server, answer: RawAnswer): Promise<RawAnswer> {
  const operation_id = answer.structured['operation_id'];
  if (typeof operation_id !== 'string') return answer;
  for (;;) {
    const seen = await server.call('backup_wait_operation', { operation_id, timeout_seconds: 60 });
    if (seen.structured['status'] !== 'running' && seen.structured['status'] !== 'pending') return seen;
  }
}

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'hf-canary-'));
  for (const name of ['secrets', 'tmp', 'state']) mkdirSync(join(root, name), { mode: 0o700 });
  stateDirectory = join(root, 'state');
  configFile = join(root, 'holdfast.yaml');
  tokenHost = await startTokenHost();
});

afterAll(async () => {
  await Promise.all(sites.map(({ server }) => server.close()));
  await tokenHost?.close();
  rmSync(root, { recursive: true, force: true });
});

describe('secrets of the simulated providers', () => {
  let server: Server;
  let chain: Server;
  let chainKeys: string[];
  /** The environments of what else may prove who an Azure client is. */
  let azureWays: Record<string, string>[];
  let live: TestRedis | undefined;
  const happy = new Map<string, string>();

  beforeAll(async () => {
    atlas.state.snapshotMs = 100;
    atlas.state.restoreMs = 100;
    atlas.state.algorithms = ['SHA-256'];
    redis.state.hiddenLooks = 0;
    Object.assign(redis.state.durations, { backup: 50, import: 50 });
    Object.assign(cloudSql.state.durations, { backup: 50, restore: 50, remove: 20 });
    Object.assign(dynamodb.state.durations, { backup: 50 });
    Object.assign(rds.state.durations, { snapshot: 50 });
    Object.assign(bigQuery.state.durations, { snapshot: 50, pending: 20 });
    neon.state.workMs = 50;
    const redisPassword = canaries.make('redis_url', 'url');
    live = redisServer === undefined ? undefined : await startRedis(['--requirepass', redisPassword]);
    const redisUrl = `redis://default:${redisPassword}@127.0.0.1:${live?.port ?? 1}`;
    for (const kind of KINDS) await simulatedEntities(kind, redisUrl);
    // What the entities leave out comes from the providers' own chains.
    await simulated('chain-atlas', 'mongodb-atlas/cluster', CLUSTER);
    await simulated('chain-sql', 'gcp/cloud-sql-instance', INSTANCE);
    await simulated('chain-redis', 'redis-cloud/pro-database', PRO);
    await simulated('chain-dynamodb', 'aws-dynamo-db/dynamo-db-table', TABLE);
    await simulated('chain-cosmos', 'azure-cosmosdb/database-account', ACCOUNT);
    await simulated('chain-droplet', 'digitalocean-database/database', { name: 'orders' });
    await simulated('chain-neon', 'neon/project', BRANCH);
    writeConfig();
    const file = (name: string, text: string): string => {
      writeFileSync(join(root, 'secrets', name), text, { mode: 0o600 });
      return join(root, 'secrets', name);
    };
    const first = {
      MONGODB_ATLAS_CLIENT_ID: 'mdb_sa_id_chain',
      MONGODB_ATLAS_CLIENT_SECRET: canaries.make('MONGODB_ATLAS_CLIENT_SECRET'),
      REDISCLOUD_ACCESS_KEY: canaries.make('REDISCLOUD_ACCESS_KEY', 'visible'),
      REDISCLOUD_SECRET_KEY: canaries.make('REDISCLOUD_SECRET_KEY', 'visible'),
      AWS_ACCESS_KEY_ID: canaries.make('AWS_ACCESS_KEY_ID', 'plain'),
      AWS_SECRET_ACCESS_KEY: canaries.make('AWS_SECRET_ACCESS_KEY'),
      AWS_SESSION_TOKEN: canaries.make('AWS_SESSION_TOKEN', 'visible'),
      AZURE_TENANT_ID: canaries.make('AZURE_TENANT_ID', 'plain'),
      AZURE_CLIENT_ID: canaries.make('AZURE_CLIENT_ID', 'plain'),
      AZURE_CLIENT_SECRET: canaries.make('AZURE_CLIENT_SECRET'),
      DIGITALOCEAN_TOKEN: canaries.make('DIGITALOCEAN_TOKEN', 'visible'),
      NEON_API_KEY: canaries.make('NEON_API_KEY', 'visible'),
      GOOGLE_APPLICATION_CREDENTIALS: file(
        'adc-account.json',
        serviceAccount('GOOGLE_APPLICATION_CREDENTIALS, account'),
      ),
    };
    const second = {
      MONGODB_ATLAS_PUBLIC_KEY: canaries.make('MONGODB_ATLAS_PUBLIC_KEY', 'plain'),
      MONGODB_ATLAS_PRIVATE_KEY: canaries.make('MONGODB_ATLAS_PRIVATE_KEY'),
      GOOGLE_APPLICATION_CREDENTIALS: file('adc-user.json', authorizedUser('GOOGLE_APPLICATION_CREDENTIALS, user')),
    };
    atlas.state.keys.set(second.MONGODB_ATLAS_PUBLIC_KEY, second.MONGODB_ATLAS_PRIVATE_KEY);
    chainKeys = [second.MONGODB_ATLAS_PUBLIC_KEY, second.MONGODB_ATLAS_PRIVATE_KEY];
    Object.assign(environment, first);
    const knows = (entity: string, ...secrets: string[]) =>
      sites.find((one) => one.entity === entity)?.known.push(...secrets);
    knows('c/chain-atlas', first.MONGODB_ATLAS_CLIENT_SECRET);
    knows('c/chain-dynamodb', first.AWS_SECRET_ACCESS_KEY);
    knows('c/chain-cosmos', first.AZURE_TENANT_ID, first.AZURE_CLIENT_ID, first.AZURE_CLIENT_SECRET);
    const { MONGODB_ATLAS_CLIENT_ID: _id, MONGODB_ATLAS_CLIENT_SECRET: _secret, ...rest } = environment;
    const password = canaries.make('AZURE_CLIENT_CERTIFICATE_PASSWORD', 'visible');
    const { AZURE_CLIENT_SECRET: _azure, ...withoutAzure } = environment;
    azureWays = [
      {
        ...withoutAzure,
        AZURE_CLIENT_CERTIFICATE_PATH: file('azure.pem', lockedCertificate(password)),
        AZURE_CLIENT_CERTIFICATE_PASSWORD: password,
      },
      {
        ...withoutAzure,
        AZURE_FEDERATED_TOKEN_FILE: file('federated', canaries.make('AZURE_FEDERATED_TOKEN_FILE', 'plain')),
      },
    ];
    [server, chain] = await Promise.all([
      serveStdio(common(), programOptions()),
      serveStdio(common(), programOptions({ ...rest, ...second })),
    ]);
  });

  afterAll(async () => {
    await live?.stop();
  });

  it('has a canary in every field of every entity type that takes a secret', () => {
    const wanted = [...registry.entityTypes]
      .filter(([defines]) => defines !== 'postgresql/server')
      .flatMap(([defines, { type }]) =>
        secretFields(type.schema).flatMap((field) => KINDS.map((kind) => `${defines} ${field} by ${kind}`)),
      )
      // The database of a Pro subscription has its place for backups elsewhere.
      .sort();
    const have = new Set(
      Object.values(config).flatMap((entity) =>
        usedFields(entity).map((used) => `${String(entity['defines'])} ${used}`),
      ),
    );
    expect(wanted.length).toBeGreaterThan(20);
    expect(wanted.filter((field) => !have.has(field))).toEqual([]);
  });

  it('has a canary in every variable that a provider looks at by itself', () => {
    const files = readdirSync(join('src', 'providers'), { recursive: true, encoding: 'utf8' });
    const names = files
      .filter((name) => name.endsWith('.ts'))
      .flatMap((name) => [
        ...readFileSync(join('src', 'providers', name), 'utf8').matchAll(/'([A-Z][A-Z0-9]+_[A-Z0-9_]+|PG[A-Z]+)'/g),
      ])
      .map(([, name]) => name as string)
      .filter((name) => /^(MONGODB_ATLAS|REDISCLOUD|PG|GOOGLE|AWS|AZURE|DIGITALOCEAN|NEON)/.test(name))
      // A file of a data directory, not a variable.
      .filter((name) => name !== 'PG_VERSION')
      // These say where, and who; they prove nothing.
      .filter((name) => !/^PG(HOST|PORT|USER|DATABASE|SSLMODE|SSLROOTCERT)$/.test(name))
      .filter((name) => !/^AWS_(DEFAULT_REGION|REGION|PROFILE|\w+_FILE|CONTAINER_CREDENTIALS_\w+_URI)$/.test(name))
      .filter((name) => !['GOOGLE_CLOUD_PROJECT', 'AZURE_SUBSCRIPTION_ID'].includes(name));
    const covered = [
      ...[environment, ...azureWays].flatMap((variables) => Object.keys(variables)),
      'MONGODB_ATLAS_PUBLIC_KEY',
      'MONGODB_ATLAS_PRIVATE_KEY',
      'PGPASSWORD',
    ];
    expect([...new Set(names)].filter((name) => !covered.includes(name))).toEqual([]);
  });

  it('calls everything on the happy path, under faults, refusals and echoes', { timeout: 90_000 }, async () => {
    const redisSites = sites.filter(({ entity }) => entity.includes('redis'));
    const all = sites.map(async (site) => {
      const { entity } = site;
      const through = async (by: Server): Promise<void> => {
        const call = (action: string, input: JsonObject = {}) => by.call(toolOn(entity, action), { entity, ...input });
        const lists = actionOn(entity, 'list-snapshots') !== undefined;
        site.echo = 'off';
        const info = await call('get-backup-info');
        happy.set(entity, codeOf(info));
        for (const echo of ['fields', 'words'] as const) {
          site.echo = echo;
          await call('get-backup-info');
        }
        site.echo = 'fields';
        if (lists) {
          const list = await call('list-snapshots');
          const id = (list.structured['snapshots'] as { id: string }[] | undefined)?.[0]?.id ?? 'none';
          await by.call('backup_find_recovery_options', { entity });
          const describe = actionOn(entity, 'describe-snapshot');
          if (describe !== undefined) await call('describe-snapshot', { [parametersOf(describe)[0]!.name]: id });
        }
        // One request or two each: a provider's documented rate holds here as well.
        const look = () => call(lists ? 'list-snapshots' : 'get-backup-info');
        for (const echo of ['no JSON', 'odd types'] as const) {
          site.echo = echo;
          await look();
        }
        // Each look at Redis Cloud is several requests: its entities share the faults among them.
        const part = redisSites.indexOf(site) % 3;
        const share = <T>(list: readonly T[]): T[] => list.filter((_, at) => part < 0 || at % 3 === part);
        for (const [at, status] of share([400, 401, 403, 404, 409, 412]).entries()) {
          site.status = status;
          site.echo = at % 2 === 0 ? 'refusal' : 'bare refusal';
          await look();
        }
        site.echo = 'off';
        for (const kind of share(FAULT_KINDS)) {
          site.server.fault({ kind, times: 1, delay_ms: 5 });
          await look();
        }
        site.server.clearFaults();
      };
      await through(server);
      if (entity === 'c/chain-atlas') site.known.splice(0, 1, ...chainKeys);
      if (entity === 'c/chain-atlas' || entity === 'c/chain-sql') await through(chain);
    });
    await Promise.all(all);
    // Azure takes a certificate, or a token that its own platform hands out, in place of a client's secret.
    const chained = sites.find(({ entity }) => entity === 'c/chain-cosmos')!;
    for (const way of azureWays) {
      for (const [echo, status] of [
        ['off', 0],
        ['fields', 0],
        ['refusal', ERROR_CODES.AUTHENTICATION_FAILED.exit],
      ] as const) {
        Object.assign(chained, { echo, status: 401 });
        const run = await holdfast(['do', 'c/chain-cosmos/get-backup-info', '--json'], way);
        expect(run.status, run.out).toBe(status);
      }
    }
    chained.echo = 'off';
    const refused = sites.map(({ entity }) => entity).filter((entity) => entity.includes('wrong'));
    expect(Object.fromEntries(happy)).toEqual(
      Object.fromEntries(
        sites.map(({ entity }) => [entity, refused.includes(entity) ? 'AUTHENTICATION_FAILED' : 'it ran']),
      ),
    );
    expect(received.size).toBeGreaterThan(20);
  });

  it('writes, is refused, is approved and restores with echoing answers', { timeout: 60_000 }, async () => {
    const secretUri = (): string =>
      `ftp://importer:${canaries.make('source_uri, password', 'url')}@files.example.com/carts/carts-last-good.rdb.gz`;
    const signed = (): string =>
      `https://backups.example.com/redis-backup.rdb?X-Amz-Signature=${canaries.make('source_uri, signature', 'plain')}`;
    redis.state.files.set('ftp://files.example.com/carts/carts-last-good.rdb.gz', { data: new Map([['cart:1', 'x']]) });
    const site = (entity: string): Site => sites.find((one) => one.entity === entity) as Site;
    const create = async (entity: string, input: JsonObject = {}): Promise<void> => {
      site(entity).echo = 'fields';
      await finish(server, await server.call(toolOn(entity, 'create-snapshot'), { entity, ...input }));
    };
    const restore = async (entity: string, input: JsonObject): Promise<string> => {
      site(entity).echo = 'fields';
      const tool = toolOn(entity, 'restore');
      const call = (extra: JsonObject = {}) => server.call(tool, { entity, ...input, ...extra });
      await server.call('backup_plan', { entity, action: 'restore', input });
      const asked = await call();
      expect(codeOf(asked), asked.text).toBe('CONFIRMATION_REQUIRED');
      const { token, code } = tokenIn(asked, 'an MCP message on stdio');
      const target = String((asked.structured['plan'] as JsonObject)['target']);
      expect(codeOf(await call({ confirmation_token: token }))).toBe('CONFIRMATION_PENDING');
      const wrong = join(root, 'secrets', `wrong-${code}`);
      writeFileSync(wrong, canaries.make('a wrong approver passphrase'), { mode: 0o600 });
      const right = join(root, 'secrets', 'passphrase');
      writeFileSync(right, passphrase, { mode: 0o600 });
      const refused = await holdfast(['approve', code, '--target', target, '--passphrase-file', wrong]);
      expect(refused.status).toBe(ERROR_CODES.AUTHENTICATION_FAILED.exit);
      const approved = await holdfast(['approve', code, '--target', target, '--passphrase-file', right, '--json']);
      expect(approved.status, approved.out + approved.err).toBe(0);
      const ran = await call({ confirmation_token: token });
      const end = await finish(server, ran);
      await call({ confirmation_token: token });
      return ran.isError ? codeOf(ran) : String(end.structured['status']);
    };
    const run = async (entity: string, input: JsonObject): Promise<[string, string]> => {
      await create(entity);
      return [entity, await restore(entity, input)];
    };
    const snapshot = atlas.state.cluster('sandbox-cluster').snapshots.find(({ onDemand }) => onDemand)!.id;
    const backup = cloudSql.state.runs.find(({ instance }) => instance === 'orders-db')!.id;
    const making = [
      ['c/dynamodb-env', {}],
      ['c/rds-file', {}],
      ['c/aurora-env', {}],
      ['c/bigquery-json-env', { source_table: 'orders' }],
      ['c/neon-file', {}],
    ] as const;
    for (const [entity, input] of making) await create(entity, input);
    const results = await Promise.all([
      run('c/atlas-account-env', { snapshot_id: snapshot }),
      run('c/sql-json-file', { backup_id: backup }),
      run('c/redis-essentials-env', { source_type: 'ftp', source_uri: secretUri() }),
      run('c/redis-pro-file', { source_type: 'http', source_uri: [signed()] }),
    ]);
    expect(Object.fromEntries(results)).toEqual({
      'c/redis-pro-file': 'succeeded',
      'c/atlas-account-env': 'succeeded',
      'c/sql-json-file': 'succeeded',
      'c/redis-essentials-env': 'succeeded',
    });
    // A caller who calls the target's name a secret would hide what is to be approved.
    const entity = 'c/redis-pro-env';
    const from = (password: string): JsonObject => ({
      source_type: 'ftp',
      source_uri: `ftp://importer:${encodeURIComponent(password)}@files.example.com/carts/carts-last-good.rdb.gz`,
    });
    const plain = await server.call('backup_plan', { entity, action: 'restore', input: from('none') });
    const { target } = plain.structured['plan'] as { target: string };
    const hidden = await server.call('redis_cloud_restore', { entity, ...from(target) });
    expect(hidden.structured['error']).toMatchObject({
      code: 'INVALID_PARAMETER',
      message: 'a secret parameter holds a name or a state of the target',
    });
    const after = await server.call('backup_plan', { entity, action: 'restore', input: from('none') });
    expect((after.structured['plan'] as JsonObject)['target']).toBe(target);
    const refused = redis.state.deny;
    redis.state.deny = 401;
    cloudSql.state.unauthenticated = true;
    for (const entity of ['c/redis-pro-env', 'c/sql-token-file']) {
      site(entity).echo = 'fields';
      expect(codeOf(await server.call(toolOn(entity, 'get-backup-info'), { entity }))).toBe('AUTHENTICATION_FAILED');
    }
    redis.state.deny = refused;
    cloudSql.state.unauthenticated = false;
  });

  it('is refused tokens by hosts that tell back what they were told', { timeout: 30_000 }, async () => {
    refuseTokens = true;
    atlas.state.refused.add('mdb_sa_id_chain');
    atlas.state.revokeTokens();
    const entities = [
      'c/sql-json-env',
      'c/sql-file-env',
      'c/sql-file-file',
      'c/chain-sql',
      'c/chain-atlas',
      'c/cosmos-client-env',
      'c/chain-cosmos',
      'c/bigquery-json-file',
      'c/firestore-file-env',
    ];
    for (const one of sites) one.echo = 'off';
    const runs = await Promise.all(
      entities.flatMap((entity) => [
        holdfast(['do', `${entity}/get-backup-info`, '--json']),
        holdfast(['do', `${entity}/${entity.includes('cosmos') ? 'list-restorable-accounts' : 'list-snapshots'}`]),
      ]),
    );
    refuseTokens = false;
    atlas.state.refused.clear();
    expect(runs.map(({ status }) => status)).toEqual(runs.map(() => ERROR_CODES.AUTHENTICATION_FAILED.exit));
    expect(tokenRequests.length).toBeGreaterThan(5);
  });

  it('answers on the command line, and over HTTP to the holder of a token', { timeout: 60_000 }, async () => {
    const entity = 'c/sql-token-env';
    for (const one of sites) one.echo = 'fields';
    const secret = canaries.make('source_uri on the command line', 'url');
    const uri = `ftp://importer:${secret}@files.example.com/carts/carts-last-good.rdb.gz`;
    const uriFile = join(root, 'secrets', 'uri');
    writeFileSync(uriFile, uri);
    const guess = canaries.make('a secret given as a confirmation token', 'plain');
    const backup = `backup_id=${cloudSql.state.runs.find(({ instance }) => instance === 'orders-db')!.id}`;
    const [offline, check, told, plain, json, , , , wrongToken] = await Promise.all([
      holdfast(['check', '--offline']),
      holdfast(['check']),
      holdfast(['check', '--json']),
      holdfast(['do', `${entity}/restore`, backup]),
      holdfast(['do', `${entity}/restore`, backup, '--json']),
      holdfast(['do', 'c/redis-pro-env/restore', 'source_type=ftp', `source_uri=@${uriFile}`, '--dry-run']),
      holdfast(['do', 'c/redis-pro-env/restore', 'source_type=aws-s3', `source_uri=${uri}`, '--json']),
      holdfast(['do', 'c/redis-pro-env/restore', `source_type=${secret}`, `source_uri=${uri}`, '--json']),
      holdfast(['do', `${entity}/restore`, backup, '--json'], { ...environment, HOLDFAST_TOKEN: guess }),
    ]);
    expect([offline?.status, plain?.status, json?.status, wrongToken?.status]).toEqual([0, 10, 10, 12]);
    // Two of the entities have a wrong key.
    expect([check?.status, told?.status]).toEqual([26, 26]);
    const inPlain = /hfc_[\w-]+/.exec(plain!.err)![0];
    tokens.push({ token: inPlain, where: 'stderr of holdfast do c/sql-token-env/restore' });
    const { confirmation } = JSON.parse(json!.out) as { confirmation: { token: string; code: string } };
    tokens.push({ token: confirmation.token, where: 'stdout of holdfast do c/sql-token-env/restore' });
    await holdfast(['deny', confirmation.code, '--reason', 'not now']);
    const again = await holdfast(['do', `${entity}/restore`, backup, '--token', confirmation.token, '--json']);
    expect(again.status).toBe(13);
    await Promise.all([
      holdfast(['approvals', '--all', '--json']),
      holdfast(['approvals', '--all']),
      holdfast(['operations']),
      holdfast(['operations', '--json']),
      holdfast(['audit', 'tail', '--lines', '10000', '--json']),
      holdfast(['audit', 'tail', '--lines', '10000']),
      holdfast(['list', '--json']),
    ]);

    // The command line logs faults of ours by itself.
    for (const echo of ['odd types', 'refusal'] as const) {
      for (const one of sites) one.echo = echo;
      await Promise.all(
        ['c/sql-token-file', 'c/redis-pro-file', 'c/atlas-key-env'].map((key) =>
          holdfast(['do', `${key}/get-backup-info`]),
        ),
      );
    }
    for (const one of sites) one.echo = 'fields';

    const http = await serveHttp(common(), { ...programOptions(), bearer: bearer.ana });
    const asked = await http.call('gcp_cloud_sql_restore', { entity, backup_id: backup.slice(10) });
    const { token } = tokenIn(asked, 'an answer over HTTP');
    await http.call('gcp_cloud_sql_restore', { entity, backup_id: backup.slice(10), confirmation_token: token });
    await http.call('gcp_cloud_sql_restore', { entity, backup_id: backup.slice(10), confirmation_token: guess });
    await http.call('redis_cloud_get_backup_info', { entity: 'c/redis-essentials-file' });
    for (const headers of [
      { authorization: `Bearer ${bearer.stranger}` },
      { authorization: `Basic ${Buffer.from(`ana:${bearer.stranger}`).toString('base64')}` },
      { authorization: bearer.stranger, cookie: `session=${bearer.stranger}` },
    ]) {
      const response = await fetch(`${http.url}?access_token=${bearer.stranger}`, {
        method: 'POST',
        headers,
        body: '{}',
      });
      expect(response.status).toBe(401);
      canaries.seen('a refusal over HTTP', `${JSON.stringify([...response.headers])} ${await response.text()}`);
    }
    await http.stop();
  });

  it('left no canary anywhere', { timeout: 60_000 }, async () => {
    const processes = execFileSync('ps', ['-eww', '-o', 'pid,args'], { encoding: 'utf8' }).split('\n');
    canaries.seen(
      'the process list',
      processes.filter((line) => [server.pid, chain.pid].includes(Number.parseInt(line, 10))).join('\n'),
    );
    await Promise.all([server.stop(), chain.stop()]);
    for (const { server: simulators } of sites) canaries.seen('the journal', JSON.stringify(simulators.journal));
    canaries.seenFiles(root, (path) => path.startsWith('secrets'));
    expect(canaries.text).toContain('CONFIRMATION_REQUIRED');
    expect(canaries.placesOf('SQLite format 3')).toEqual(['state/state.db']);
    expect(canaries.leaks()).toEqual([]);
  });

  it('left each confirmation token where it was handed out, and nowhere else', () => {
    expect(tokens.length).toBeGreaterThan(5);
    expect(tokens.map(({ token }) => canaries.placesOf(token))).toEqual(tokens.map(({ where }) => [where]));
    const known = new Set(tokens.map(({ token }) => token));
    const others = [...canaries.text.matchAll(/hfc_[A-Za-z0-9_-]{10,}/g)].filter(([token]) => !known.has(token));
    expect(others.map(([token]) => canaries.placesOf(token))).toEqual([]);
  });
});

describePostgres('secrets of PostgreSQL', () => {
  let postgres: PrivateServer;
  let server: Server;
  const started = (): string => join(root, 'started');
  const entities: string[] = [];

  /** Programs that write down how they were started, as every other user of the machine can see it, and go on. */
  async function watchedPrograms(): Promise<string> {
    const [real] = await findBinaries();
    const directory = join(root, 'programs');
    mkdirSync(directory);
    for (const name of ['pg_dump', 'pg_restore', 'pg_dumpall']) {
      const lines = [
        '#!/bin/sh',
        `{ echo "${name}"; tr '\\0' '\\n' </proc/$$/cmdline; tr '\\0' '\\n' </proc/$$/environ; } >>'${started()}'`,
        `exec '${join(real!.directory, name)}' "$@"`,
      ];
      writeFileSync(join(directory, name), `${lines.join('\n')}\n`);
      chmodSync(join(directory, name), 0o755);
    }
    return directory;
  }

  beforeAll(async () => {
    postgres = await startTestServer();
    const { connection } = postgres;
    await sql(connection, 'postgres', 'CREATE DATABASE shop');
    await sql(connection, 'shop', 'CREATE TABLE t (id int PRIMARY KEY)', 'INSERT INTO t SELECT generate_series(1, 50)');
    const bin_dir = await watchedPrograms();
    const roles: string[] = [];
    const role = (name: string, password: string): string => {
      roles.push(`CREATE ROLE ${name} SUPERUSER LOGIN PASSWORD '${password.replaceAll("'", "''")}'`);
      return name;
    };
    const add = (name: string, parameters: JsonObject): void => {
      entities.push(`c/${name}`);
      config[name] = {
        defines: 'postgresql/server',
        storage: { type: 'local', path: join(root, 'backups') },
        encryption: 'none',
        verify_on_source: true,
        bin_dir,
        ...parameters,
      };
    };
    const place = { host: connection.host, port: connection.port, database: 'shop', ssl_mode: 'disable' };
    const url = (user: string, password: string): string =>
      `postgresql://${user}:${encodeURIComponent(password)}@${connection.host}:${connection.port}/shop?sslmode=disable`;
    for (const kind of KINDS) {
      const password = canaries.make(`postgresql password by ${kind}`);
      const login = { ...place, user: role(`by_${kind}`, password), password: refer(kind, password) };
      const identity = await generateX25519Identity();
      canaries.watch(`age identity by ${kind}`, ...(identity.slice(16).match(/.{10}/g) ?? []));
      const recipients = [await identityToRecipient(identity)];
      const inUrl = canaries.make(`postgresql connection_url by ${kind}`);
      const scratch = canaries.make(`postgresql scratch_url by ${kind}`);
      add(`pg-password-${kind}`, {
        ...login,
        encryption: { recipients, identity: refer(kind, identity) },
        scratch_url: refer(kind, url(role(`scratch_${kind}`, scratch), scratch)),
      });
      add(`pg-url-${kind}`, {
        connection_url: refer(kind, url(role(`url_${kind}`, inUrl), inUrl)),
        encryption: { passphrase: refer(kind, canaries.make(`age passphrase by ${kind}`, 'lines')) },
      });
      add(`pg-wrong-${kind}`, {
        ...login,
        password: refer(kind, canaries.make(`a wrong postgresql password by ${kind}`, 'lines')),
      });
    }
    environment['PGPASSWORD'] = canaries.make('PGPASSWORD');
    add('pg-chain', { ...place, user: role('chain', environment['PGPASSWORD']) });
    await sql(connection, 'postgres', ...roles);
    // Its waits are for a real server.
    environment['HOLDFAST_TEST_PACE'] = '1';
    writeConfig();
    server = await serveStdio(common(), programOptions());
  }, 60_000);

  afterAll(async () => {
    await server?.stop();
    await postgres?.stop();
  });

  it('has a canary in every field that takes a secret', () => {
    const { type } = registry.entityTypes.get('postgresql/server')!;
    // Those of a storage need its cloud: test/storage runs them against stores of this machine and looks for leaks.
    const fields = secretFields(type.schema).filter((field) => !field.startsWith('storage.'));
    const wanted = fields.flatMap((field) => KINDS.map((kind) => `${field} by ${kind}`));
    const have = new Set(
      Object.values(config)
        .filter(({ defines }) => defines === 'postgresql/server')
        .flatMap((entity) => usedFields(entity)),
    );
    expect(wanted.length).toBeGreaterThan(5);
    expect(wanted.filter((field) => !have.has(field))).toEqual([]);
  });

  it('backs up, verifies, restores and is refused', { timeout: 90_000 }, async () => {
    const ran = await Promise.all(
      entities.map(async (entity) => {
        const call = async (action: string, input: JsonObject = {}): Promise<RawAnswer> =>
          finish(server, await server.call(toolOn(entity, action), { entity, ...input }));
        await call('get-backup-info');
        const made = await call('create-snapshot', { label: 'canary' });
        const id = (made.structured['result'] as JsonObject | undefined)?.['id'];
        if (typeof id !== 'string') return [entity, codeOf(made)];
        const level = entity.includes('password') ? 'restored' : 'readable';
        // A passphrase is slow to open by design; once is enough.
        if (entity !== 'c/pg-url-file') await call('verify-snapshot', { snapshot_id: id, level });
        // The way of the secrets to a restore does not depend on where they come from.
        const target_database = entity.slice(2).replaceAll('-', '_');
        const last = entity.includes('file') ? made : await call('restore', { snapshot_id: id, target_database });
        await call('describe-snapshot', { snapshot_id: id });
        await server.call('backup_find_recovery_options', { entity });
        const asked = await server.call('postgresql_delete_snapshot', { entity, snapshot_id: id, allow_last: true });
        tokenIn(asked, 'an MCP message on stdio');
        await call('list-snapshots');
        return [entity, last.isError ? last.text : String(last.structured['status'])];
      }),
    );
    expect(Object.fromEntries(ran)).toEqual(
      Object.fromEntries(
        entities.map((entity) => [entity, entity.includes('wrong') ? 'AUTHENTICATION_FAILED' : 'succeeded']),
      ),
    );
    const [one = ''] = entities;
    const { host, port } = postgres.connection;
    const chain = { ...environment, PGHOST: host, PGPORT: String(port), PGUSER: 'chain' };
    const inUrl = { ...environment, DATABASE_URL: secretBehind(String(config['pg-url-env']?.['connection_url'])) };
    const looks = [chain, inUrl, { ...chain, PGUSER: 'by_env' }].map((env) =>
      holdfast(['init', '--provider', 'postgresql', '--json'], env),
    );
    expect((await Promise.all(looks)).map(({ status }) => status)).toEqual([0, 0, 26]);
    await Promise.all([
      holdfast(['check']),
      holdfast(['check', '--json']),
      holdfast(['do', `${one}/get-backup-info`]),
      holdfast(['do', 'c/pg-wrong-env/create-snapshot', '--json']),
      holdfast(['operations', '--json']),
      holdfast(['approvals', '--json']),
      holdfast(['audit', 'tail', '--lines', '10000']),
    ]);
  });

  it('left no canary anywhere, in no file and with no program that was started', { timeout: 30_000 }, async () => {
    await server.stop();
    canaries.seenFiles(root, (path) => path.startsWith('secrets'));
    const programs = readFileSync(started(), 'utf8');
    for (const name of ['pg_dump', 'pg_restore', 'PGPASSFILE=']) expect(programs).toContain(name);
    expect(canaries.leaks()).toEqual([]);
    expect(
      readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((path) => /pgpass|\/pass$/.test(path)),
    ).toEqual([]);
    expect(tokens.map(({ token }) => canaries.placesOf(token))).toEqual(tokens.map(({ where }) => [where]));
  });
});
