import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { ContainerClient, StorageSharedKeyCredential } from '@azure/storage-blob';
import S3rver from 's3rver';
import { HoldfastError } from '../../src/core/errors.ts';
import type { JsonObject } from '../../src/core/json.ts';
import type { Runtime } from '../../src/core/runtime.ts';
import { resilientFetch } from '../../src/resilience/fetch.ts';
import { type GcsWire, startGcsWire } from './gcs-wire.ts';
import { type S3Wire, startS3Wire } from './s3-wire.ts';

/** A store that runs on this machine for tests, as an entity would declare it. */
export interface TestStore<Wire = undefined> {
  readonly parameters: JsonObject;
  readonly secrets: Readonly<Record<string, string>>;
  readonly wire: Wire;
  dispose(): Promise<void>;
}

const BUCKET = 'backups';

/** Starts s3rver: a real server, which knows neither conditions nor the end of a multipart upload. */
export async function startS3rver(): Promise<TestStore> {
  const directory = await mkdtemp(join(tmpdir(), 'hf-s3rver-'));
  const options = { port: 0, address: '127.0.0.1', silent: true, directory, configureBuckets: [{ name: BUCKET }] };
  const server = new S3rver(options);
  const { port } = await server.run();
  return {
    parameters: s3Parameters(`http://127.0.0.1:${port}`),
    secrets: { S3_KEY: 'S3RVER', S3_SECRET: 'S3RVER' },
    wire: undefined,
    async dispose() {
      await server.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Starts our own S3 bucket, with everything that s3rver leaves out. */
export async function startS3(): Promise<TestStore<S3Wire>> {
  const wire = await startS3Wire(BUCKET);
  return {
    parameters: s3Parameters(wire.origin),
    secrets: { S3_KEY: 'AKIATEST', S3_SECRET: 'a-secret-of-the-test' },
    wire,
    dispose: () => wire.kill(),
  };
}

function s3Parameters(endpoint: string): JsonObject {
  return {
    type: 's3',
    bucket: BUCKET,
    region: 'us-east-1',
    endpoint,
    force_path_style: true,
    access_key_id: '${env:S3_KEY}',
    secret_access_key: '${env:S3_SECRET}',
  };
}

/** Starts our own bucket of Cloud Storage. */
export async function startGcs(): Promise<TestStore<GcsWire>> {
  const token = 'ya29.a-token-of-the-test';
  const wire = await startGcsWire(BUCKET, token);
  return {
    parameters: { type: 'gcs', bucket: BUCKET, endpoint: wire.origin, access_token: '${env:GCS_TOKEN}' },
    secrets: { GCS_TOKEN: token },
    wire,
    dispose: () => wire.kill(),
  };
}

const ACCOUNT = 'devstoreaccount1';

/** Starts Azurite, Microsoft's emulator, in memory, with one container. */
export async function startAzurite(): Promise<TestStore> {
  const key = randomBytes(64).toString('base64');
  const program = fileURLToPath(import.meta.resolve('azurite/dist/src/blob/main.js'));
  const options = ['--inMemoryPersistence', '--disableTelemetry', '--skipApiVersionCheck', '--blobPort', '0'];
  const child = spawn(process.execPath, [program, ...options, '--blobHost', '127.0.0.1'], {
    env: { PATH: process.env['PATH'], AZURITE_ACCOUNTS: `${ACCOUNT}:${key}` },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit');
  let port: string | undefined;
  for await (const line of createInterface({ input: child.stdout })) {
    port = /successfully listens on http:\/\/127\.0\.0\.1:(\d+)/.exec(line)?.[1];
    if (port !== undefined) break;
  }
  child.stdout.resume();
  const endpoint = `http://127.0.0.1:${port}`;
  const url = `${endpoint}/${ACCOUNT}/${BUCKET}`;
  await new ContainerClient(url, new StorageSharedKeyCredential(ACCOUNT, key)).create();
  return {
    parameters: { type: 'azure-blob', account: ACCOUNT, container: BUCKET, endpoint, account_key: '${env:AZURE_KEY}' },
    secrets: { AZURE_KEY: key },
    wire: undefined,
    async dispose() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

export interface TestRuntime extends Runtime {
  /** What may be written; false refuses, as outside of a run. */
  mayWrite: boolean;
  readonly warnings: string[];
  /** Everything that was made known as a secret. */
  readonly concealed: Set<string>;
}

/** A runtime with the real resilience, whose pauses take no time. */
export function storeRuntime(
  secrets: Readonly<Record<string, string>>,
  environment: Record<string, string> = {},
): TestRuntime {
  const notes: { kind: string; note: JsonObject }[] = [];
  const quiet = () => {};
  const runtime: TestRuntime = {
    mayWrite: true,
    warnings: [],
    concealed: new Set(),
    fetch: resilientFetch({
      title: 'PostgreSQL',
      limits: { per_second: 10_000, burst: 10_000, concurrent: 8, timeout_ms: 10_000 },
      fetch: globalThis.fetch,
      now: () => Date.now(),
      sleep: async () => {},
      random: () => 0.5,
      base_ms: 1,
    }),
    now: () => new Date(),
    sleep: async () => {},
    random: randomBytes,
    async secret({ name }) {
      const value = secrets[name];
      if (value === undefined) throw new HoldfastError('AUTHENTICATION_FAILED', `the variable '${name}' is not set`);
      runtime.concealed.add(value);
      return value;
    },
    credential: (name) => environment[name],
    conceal: (value) => runtime.concealed.add(value),
    assertMayWrite(what) {
      if (!runtime.mayWrite) throw new HoldfastError('INTERNAL', `${what} was not let`);
    },
    ledger: {
      add: async (kind, note) => {
        notes.unshift({ kind, note });
      },
      list: async (kind) => notes.filter((one) => one.kind === kind).map(({ note }) => note),
    },
    log: { debug: quiet, info: quiet, warn: (message) => runtime.warnings.push(message), error: quiet },
    workDirectory: () => mkdtemp(join(tmpdir(), 'hf-work-')),
  };
  return runtime;
}
