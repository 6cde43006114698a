import { execFile, spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { loadAll } from 'js-yaml';
import { Deployment } from 'kubernetes-models/apps/v1';
import { CronJob } from 'kubernetes-models/batch/v1';
import { NetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1';
import { Role, RoleBinding } from 'kubernetes-models/rbac.authorization.k8s.io/v1';
import { ConfigMap, PersistentVolumeClaim, ServiceAccount } from 'kubernetes-models/v1';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import { entityTypes } from '../../src/program/open.ts';
import { type KubernetesRequest, type Rendered, renderKubernetes } from '../../src/schedule/kubernetes.ts';
import { expectGolden } from '../support/golden.ts';
import { runProgram } from '../support/program.ts';

type Json = Record<string, unknown>;
interface Manifest extends Json {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace: string };
}

const MAIN = `# once the password was canary-in-a-comment
include: [more/*.yaml]
namespace: my-app
orders:
  defines: postgresql/server
  host: \${env:ORDERS_HOST:-orders.internal}
  user: holdfast
  password: \${env:ORDERS_PASSWORD}
  database: orders
  ssl_root_cert: /etc/holdfast/db-ca.pem
  storage: { type: local, path: /backups }
  encryption:
    recipients: [age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq]
    identity: \${file:./keys/age-identity}
  scratch_url: \${file:/run/secrets/scratch url}
  wal: { method: receive, spool: /spool }
  schedules:
    daily: true
    weekly: { cron: "0 1 * * 7", timezone: Europe/Lisbon, at_most: 12h, catch_up: false }
    verify: { cron: "0 5 * * 5-7", input: { snapshot_id: $newest, level: restored }, enabled: false }
`;
const MORE = `storage:
  main:
    type: s3
    bucket: shop-backups
    region: eu-west-1
    access_key_id: \${env:S3_ID}
    secret_access_key: \${env:S3_KEY}
namespace: shop
ledger:
  defines: postgresql/server
  database: ledger
  user: holdfast
  storage: main
  encryption: none
  schedules: { monthly: true }
a.very.long.name-of-a-table-that-nobody-would-write-down-by-hand-twice-in-a-row:
  defines: aws-dynamo-db/dynamo-db-table
  region: us-east-1
  table_name: carts
  schedules: { daily: "30 3 * * *" }
quiet:
  defines: aws-dynamo-db/dynamo-db-table
  region: us-east-1
  table_name: quiet
`;
const REQUEST: KubernetesRequest = {
  namespace: 'backups',
  image: 'registry.example/holdfast:1.2.3',
  tmpSize: '2Gi',
  volumeSize: '50Gi',
};

let directory: string;
let rendered: Rendered;
let objects: Manifest[];
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-k8s-'));
  await mkdir(join(directory, 'more'));
  await mkdir(join(directory, 'keys'));
  await writeFile(join(directory, 'holdfast.yaml'), MAIN);
  await writeFile(join(directory, 'more', 'tables.yaml'), MORE);
  await writeFile(join(directory, 'keys', 'age-identity'), 'AGE-SECRET-KEY-canary-in-a-file');
  rendered = render();
  objects = parsed(rendered);
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const ENV = {
  ORDERS_PASSWORD: 'canary-in-a-variable',
  ORDERS_HOST: 'canary-of-a-host',
  S3_ID: 'canary-of-a-key',
  S3_KEY: 'canary-of-its-secret',
};

function render(request: Partial<KubernetesRequest> = {}): Rendered {
  const config = loadConfig({ path: join(directory, 'holdfast.yaml'), entityTypes, env: ENV });
  return renderKubernetes(config, { ...REQUEST, ...request });
}

function parsed({ files }: Rendered): Manifest[] {
  return files.flatMap(({ text }) => loadAll(text) as Manifest[]);
}

const of = (kind: string): Manifest[] => objects.filter((object) => object.kind === kind);
const jobOf = (name: string): Manifest =>
  of('CronJob').find(({ metadata }) => metadata.name === `holdfast-my-app--orders--${name}`) as Manifest;
const at = (value: unknown, ...path: (string | number)[]): unknown =>
  path.reduce<unknown>((inner, key) => (inner as Json)?.[key], value);
const podOf = (object: Manifest): Json =>
  (object.kind === 'CronJob'
    ? at(object, 'spec', 'jobTemplate', 'spec', 'template', 'spec')
    : at(object, 'spec', 'template', 'spec')) as Json;

/** The schemas that Kubernetes publishes (OpenAPI), as validators. */
const MODELS = {
  ConfigMap,
  CronJob,
  Deployment,
  NetworkPolicy,
  PersistentVolumeClaim,
  Role,
  RoleBinding,
  ServiceAccount,
};

/** The fields of what kubectl cannot read locally, by the reference of the Kubernetes API. */
const FIELDS: Readonly<Record<string, readonly string[]>> = {
  ServiceAccount: ['automountServiceAccountToken', 'imagePullSecrets', 'secrets'],
  ConfigMap: ['data', 'binaryData', 'immutable'],
  Role: ['rules'],
  RoleBinding: [
    'roleRef',
    'roleRef.apiGroup',
    'roleRef.kind',
    'roleRef.name',
    'subjects',
    'subjects.kind',
    'subjects.name',
    'subjects.namespace',
  ],
  NetworkPolicy: ['spec', 'spec.podSelector', 'spec.podSelector.matchLabels', 'spec.policyTypes', 'spec.ingress'],
  PersistentVolumeClaim: ['spec', 'spec.accessModes', 'spec.resources', 'spec.resources.requests'],
};
const OPEN = ['data', 'spec.podSelector.matchLabels', 'spec.resources.requests'];

function fieldsOf(value: unknown, path = ''): string[] {
  if (Array.isArray(value)) return value.flatMap((member) => fieldsOf(member, path));
  if (typeof value !== 'object' || value === null || OPEN.includes(path)) return [];
  return Object.entries(value).flatMap(([key, member]) => {
    const inner = path === '' ? key : `${path}.${key}`;
    return [inner, ...fieldsOf(member, inner)];
  });
}

describe('what is rendered for Kubernetes', () => {
  it('fits the schemas that Kubernetes publishes', () => {
    expect(objects.map(({ kind }) => kind).filter((kind) => !(kind in MODELS))).toEqual([]);
    for (const object of objects) {
      const Model = MODELS[object.kind as keyof typeof MODELS] as unknown as {
        apiVersion: string;
        new (data: Json): { validate(): void };
      };
      expect(object.apiVersion).toBe(Model.apiVersion);
      expect(() => new Model(object).validate()).not.toThrow();
    }
    // That they would say so otherwise.
    const job = jobOf('daily');
    const wrong = { ...job, spec: { ...(job['spec'] as Json), concurrencyPolicy: 'Never' } };
    expect(() => new CronJob(wrong as never).validate()).toThrow(/concurrencyPolicy/);
  });

  it('has no field that its kind does not have', () => {
    for (const { apiVersion: _, kind, metadata: __, ...rest } of objects) {
      if (kind === 'CronJob' || kind === 'Deployment') continue;
      expect(
        fieldsOf(rest).filter((field) => FIELDS[kind]?.includes(field) !== true),
        kind,
      ).toEqual([]);
    }
  });

  const kubectl = spawnSync('kubectl', ['version', '--client']).status === 0;
  it.skipIf(!kubectl)(
    'is read by kubectl without a field being lost (skipped where kubectl is not installed)',
    async () => {
      // A local change of kubectl reads the object into its own types and writes it back: what they do not have is gone.
      const roundTrip = async (object: Manifest): Promise<Json> => {
        const file = join(directory, 'object.json');
        await writeFile(file, JSON.stringify(object));
        const args = ['set', 'env', '--local', '-f', file, 'ADDED=1', '-o', 'json'];
        const { stdout } = await promisify(execFile)('kubectl', args);
        return JSON.parse(stdout) as Json;
      };
      for (const object of [...of('CronJob'), ...of('Deployment')]) {
        const expected = structuredClone(object);
        const env = at(podOf(expected), 'containers', 0, 'env') as Json[];
        env.push({ name: 'ADDED', value: '1' });
        expect(await roundTrip(object)).toMatchObject(expected);
      }
      const job = jobOf('daily');
      const lost = (await roundTrip({ ...job, spec: { ...(job['spec'] as Json), timezone: 'UTC' } }))['spec'] as Json;
      expect(lost['timezone']).toBeUndefined();
    },
  );

  it('is what the golden file says', () => {
    expectGolden(
      'test/golden/kubernetes.yaml',
      rendered.files
        .filter(({ name }) => !/weekly|verify|table|ledger/.test(name))
        .map(({ name, text }) => `# ${name}\n${text}`)
        .join('---\n'),
    );
  });

  it('holds each schedule as its CronJob, by the rules for jobs that must not pile up', () => {
    const jobs = of('CronJob').map((job) => [
      job.metadata.name,
      at(job, 'spec', 'schedule'),
      at(job, 'spec', 'timeZone'),
    ]);
    expect(jobs).toEqual([
      ['holdfast-shop--ledger--monthly', '0 3 1 * *', 'UTC'],
      [expect.stringMatching(/^holdfast-shop--a-very-long[a-z-]*-[0-9a-f]{6}$/), '30 3 * * *', 'UTC'],
      ['holdfast-my-app--orders--daily', '0 2 * * *', 'UTC'],
      ['holdfast-my-app--orders--weekly', '0 1 * * 0', 'Europe/Lisbon'],
      ['holdfast-my-app--orders--verify', '0 5 * * 5,6,0', 'UTC'],
    ]);
    for (const job of of('CronJob')) {
      expect(job['spec']).toMatchObject({ concurrencyPolicy: 'Forbid' });
      expect(at(job, 'spec', 'jobTemplate', 'spec')).toMatchObject({ backoffLimit: 1 });
      expect(podOf(job)).toMatchObject({ restartPolicy: 'Never' });
      // What Kubernetes adds to the name of a CronJob for its jobs still fits.
      expect(job.metadata.name.length).toBeLessThanOrEqual(52);
    }
    const spec = (name: string): unknown => jobOf(name)['spec'];
    expect(spec('daily')).toMatchObject({ suspend: false, startingDeadlineSeconds: 3600 });
    expect(spec('weekly')).toMatchObject({ startingDeadlineSeconds: 60 });
    expect(at(spec('weekly'), 'jobTemplate', 'spec', 'activeDeadlineSeconds')).toBe(12 * 3600 + 300);
    expect(spec('verify')).toMatchObject({ suspend: true });
    expect((podOf(jobOf('daily'))['containers'] as Json[])[0]?.['args']).toEqual([
      'schedule',
      'run',
      'my-app/orders',
      'daily',
    ]);
  });

  it('keeps every pod from root, from writing to its image, and from Kubernetes', () => {
    for (const object of [...of('CronJob'), ...of('Deployment')]) {
      const pod = podOf(object);
      expect(pod).toMatchObject({
        serviceAccountName: 'holdfast',
        automountServiceAccountToken: false,
        securityContext: { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } },
      });
      for (const container of pod['containers'] as Json[]) {
        expect(container['securityContext']).toEqual({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        });
        expect(container['resources']).toMatchObject({ requests: { memory: '256Mi' }, limits: {} });
        const volumes = new Set((pod['volumes'] as Json[]).map(({ name }) => name));
        const mounts = container['volumeMounts'] as Json[];
        expect(mounts.filter(({ name }) => !volumes.has(name))).toEqual([]);
      }
      const empty = (pod['volumes'] as Json[]).filter((volume) => 'emptyDir' in volume);
      expect(empty.every((volume) => at(volume, 'emptyDir', 'sizeLimit') !== undefined)).toBe(true);
    }
    expect(of('ServiceAccount')[0]).toMatchObject({ automountServiceAccountToken: false });
    expect(of('Role')[0]).toMatchObject({ rules: [] });
  });

  it('names every reference as a key of a Secret, and mounts it where the file says', () => {
    const pod = podOf(jobOf('daily'));
    const [container] = pod['containers'] as Json[];
    const secret = 'holdfast-my-app--orders';
    expect(container?.['env']).toContainEqual({
      name: 'ORDERS_PASSWORD',
      valueFrom: { secretKeyRef: { name: secret, key: 'ORDERS_PASSWORD' } },
    });
    expect(container?.['env']).toContainEqual({
      name: 'ORDERS_HOST',
      valueFrom: { secretKeyRef: { name: secret, key: 'ORDERS_HOST', optional: true } },
    });
    const config = (pod['volumes'] as Json[]).find(({ name }) => name === 'config');
    expect(at(config, 'projected', 'sources', 1, 'secret')).toEqual({
      name: secret,
      items: [
        { key: 'etc-holdfast-keys-age-identity', path: 'keys/age-identity', mode: 0o440 },
        { key: 'etc-holdfast-db-ca.pem', path: 'db-ca.pem', mode: 0o440 },
      ],
    });
    expect(container?.['volumeMounts']).toContainEqual({
      name: 'secrets',
      mountPath: '/run/secrets/scratch url',
      subPath: 'run-secrets-scratch-url',
      readOnly: true,
    });
    // What a store of the section names belongs to whoever uses it.
    expect(rendered.secrets.map(({ name, keys }) => [name, keys.length])).toEqual([
      ['holdfast-shop--ledger', 2],
      [secret, 5],
    ]);
    expect(rendered.secrets[0]?.command).toContain('--from-file=S3_KEY=<(printf %s "$S3_KEY")');
    expect(rendered.secrets[1]).toMatchObject({
      name: secret,
      keys: [
        'ORDERS_HOST',
        'ORDERS_PASSWORD',
        'etc-holdfast-keys-age-identity',
        'run-secrets-scratch-url',
        'etc-holdfast-db-ca.pem',
      ],
    });
  });

  it.skipIf(!kubectl)(
    'says how each Secret is made, by a command that kubectl takes (skipped without kubectl)',
    async () => {
      const secret = rendered.secrets.find(({ name }) => name.endsWith('orders'));
      // The files of another machine are these here.
      const command = `${secret?.command} --dry-run=client -o json`
        .replace(
          "'run-secrets-scratch-url=/run/secrets/scratch url'",
          `run-secrets-scratch-url=${directory}/holdfast.yaml`,
        )
        .replace('=/etc/holdfast/db-ca.pem', `=${directory}/holdfast.yaml`);
      const { stdout } = await promisify(execFile)('bash', ['-c', command], { env: { ...process.env, ...ENV } });
      const { data } = JSON.parse(stdout) as { data: Record<string, string> };
      expect(Object.keys(data).sort()).toEqual(secret?.keys.toSorted());
      expect(Buffer.from(data['ORDERS_PASSWORD'] ?? '', 'base64').toString()).toBe(ENV.ORDERS_PASSWORD);
    },
  );

  it('holds the entities files, without comments, and they still say the same', async () => {
    const [map] = of('ConfigMap');
    const data = map?.['data'] as Record<string, string>;
    const copy = await mkdtemp(join(tmpdir(), 'holdfast-k8s-copy-'));
    const items = at(podOf(jobOf('daily')), 'volumes', 0, 'projected', 'sources', 0, 'configMap', 'items') as {
      key: string;
      path: string;
    }[];
    for (const { key, path } of items) {
      await mkdir(join(copy, path, '..'), { recursive: true });
      await writeFile(join(copy, path), data[key] ?? '');
    }
    const bases = (folder: string) =>
      loadConfig({ path: join(folder, 'holdfast.yaml'), entityTypes, env: {} }).entities.map(({ base }) => base);
    expect(bases(copy)).toEqual(bases(directory));
    await rm(copy, { recursive: true });
  });

  it('never holds a value of a secret', () => {
    const all = JSON.stringify(rendered);
    expect(all).not.toContain('canary');
    expect(all).toContain('ORDERS_PASSWORD');
  });

  it('receives WAL by a Deployment whose spool outlives its pod', () => {
    const [receiver, ...more] = of('Deployment');
    expect(more).toEqual([]);
    expect(receiver?.['spec']).toMatchObject({ replicas: 1, strategy: { type: 'Recreate' } });
    const pod = podOf(receiver!);
    expect((pod['containers'] as Json[])[0]?.['args']).toEqual(['wal', 'receive', '--entity', 'my-app/orders']);
    expect(pod['volumes']).toContainEqual({
      name: 'state',
      persistentVolumeClaim: { claimName: 'holdfast-my-app--orders-wal' },
    });
    expect((pod['containers'] as Json[])[0]?.['volumeMounts']).toContainEqual({
      name: 'state',
      mountPath: '/spool',
      subPath: 'spool',
    });
    expect(of('PersistentVolumeClaim').map(({ metadata }) => metadata.name)).toEqual([
      'holdfast-my-app--orders-backups',
      'holdfast-my-app--orders-wal',
    ]);
  });

  it('keeps the state where a claim is named, and hands on a Secret of variables', () => {
    const [job] = parsed(render({ stateClaim: 'holdfast-state', envFrom: 'aws' })).filter(
      ({ kind }) => kind === 'CronJob',
    );
    const pod = podOf(job!);
    expect(pod['volumes']).toContainEqual({ name: 'state', persistentVolumeClaim: { claimName: 'holdfast-state' } });
    expect((pod['containers'] as Json[])[0]?.['envFrom']).toEqual([{ secretRef: { name: 'aws' } }]);
  });

  it.each([
    [{ namespace: 'Backups' }, /--namespace/],
    [{ image: 'a b' }, /--image/],
    [{ stateClaim: '../x' }, /--state-claim/],
    [{ tmpSize: '2 GB' }, /--tmp-size/],
    [{ volumeSize: '0Gi' }, /--volume-size/],
  ])('refuses %j', (request, message) => {
    expect(() => render(request)).toThrow(message);
  });

  it('says so where there is nothing to render', () => {
    const config = loadConfig({ text: 'namespace: a\n', entityTypes, baseDirectory: directory });
    expect(() => renderKubernetes(config, REQUEST)).toThrow(/no entity has a schedule/);
  });

  it('refuses a file that a pod could not see', async () => {
    const inner = join(directory, 'inner');
    await mkdir(inner);
    await writeFile(join(inner, 'holdfast.yaml'), `include: [../more/tables.yaml]\n`);
    const config = loadConfig({ path: join(inner, 'holdfast.yaml'), entityTypes, env: {} });
    expect(() => renderKubernetes(config, REQUEST)).toThrow(/outside of the folder/);
  });
});

describe('holdfast schedule render', () => {
  const run = (...args: string[]) =>
    runProgram(['schedule', 'render', ...args, '--state-dir', join(directory, 'state')], { env: ENV, cwd: directory });

  it('writes one file for each object, says which Secrets to make, and its commands are ones that kubectl takes', async () => {
    const out = join(directory, 'k8s');
    const { status, out: text, err } = await run('--kubernetes', '--image', 'holdfast:1', '--out', out);
    expect(status).toBe(0);
    const files = (await readdir(out)).sort();
    expect(files).toHaveLength(objects.length);
    expect(text.trim().split('\n')).toHaveLength(files.length);
    expect(await readFile(join(out, files[0]!), 'utf8')).toContain('kind: ServiceAccount');
    expect(err).toContain('kubectl create secret generic holdfast-my-app--orders --namespace default');
    expect(err + text).not.toContain('canary');
  });

  it('calls commands that there are', async () => {
    const calls = [...of('CronJob'), ...of('Deployment')].map((object) => {
      const [container] = podOf(object)['containers'] as { args: string[] }[];
      return (container?.args ?? []).slice(0, 2).join(' ');
    });
    expect([...new Set(calls)]).toEqual(['schedule run', 'wal receive']);
    const help = await runProgram(['wal', 'receive', '--help'], { env: {}, cwd: directory });
    expect(help.out).toContain('--entity');
  });

  it('writes all objects to standard output and everything else beside it', async () => {
    const { status, out } = await run('--kubernetes', '--image', 'holdfast:1');
    expect(status).toBe(0);
    expect((loadAll(out) as Manifest[]).map(({ kind }) => kind)).toEqual(objects.map(({ kind }) => kind));
  });

  it('needs an image', async () => {
    const { status, err } = await run('--kubernetes');
    expect(status).toBe(2);
    expect(err).toMatch(/render needs --image/);
  });
});
