import { createHash } from 'node:crypto';
import { isAbsolute, posix, relative, resolve } from 'node:path';
import type { EntityDeclaration } from '../config/entities.ts';
import type { Config } from '../config/load.ts';
import { parseSource, readText } from '../config/source.ts';
import { yamlText } from '../config/yaml-text.ts';
import { ERROR_CODES, HoldfastError } from '../core/errors.ts';
import { isObject, type JsonObject, type JsonValue } from '../core/json.ts';
import type { Schedule } from '../core/schedule.ts';
import { withSundayFirst } from './cron.ts';

export interface KubernetesRequest {
  readonly namespace: string;
  readonly image: string;
  readonly stateClaim?: string | undefined;
  readonly envFrom?: string | undefined;
  readonly tmpSize: string;
  readonly volumeSize: string;
}

export interface Rendered {
  readonly files: { readonly name: string; readonly text: string }[];
  readonly secrets: { readonly name: string; readonly keys: readonly string[]; readonly command: string }[];
  readonly notes: string[];
}

/** Where a pod finds the entities file, what Holdfast keeps, and what it may throw away. */
const CONFIG_DIR = '/etc/holdfast';
const STATE_DIR = '/var/lib/holdfast';
const TMP_DIR = '/tmp';
/** Nobody in particular, and not root. */
const USER = 10_001;
/** How long a run may take where nothing is said, in seconds. */
const USUAL_LIMIT = 21_600;
/** A ConfigMap holds 1 MiB. */
const MOST_CONFIG = 1_000_000;

const LABELS = { 'app.kubernetes.io/name': 'holdfast', 'app.kubernetes.io/managed-by': 'holdfast-schedule-render' };

/**
 * Writes what a cluster needs to make the calls that an entities file schedules, and to receive WAL where an entity says
 * so. Reads the file and nothing that it refers to: no value of a secret is ever near.
 * @throws {HoldfastError} INVALID_PARAMETER for a name or a size that Kubernetes would refuse, CONFIG_INVALID where nothing is scheduled
 */
export function renderKubernetes(config: Config, request: KubernetesRequest): Rendered {
  checkRequest(request);
  const scheduled = config.entities.filter(({ base }) => base.schedules !== undefined);
  const receivers = config.entities.filter((entity) => walOf(entity)?.['method'] === 'receive');
  if (scheduled.length === 0 && receivers.length === 0) {
    throw new HoldfastError('CONFIG_INVALID', 'no entity has a schedule, and none receives WAL', {
      hint: 'Add schedules: { daily: "0 2 * * *" } to an entity.',
    });
  }
  const { map, items } = configMap(config, request.namespace);
  const pods = new Map<EntityDeclaration, PodParts>();
  for (const entity of new Set([...scheduled, ...receivers]))
    pods.set(entity, podParts(entity, config, items, request));

  const objects: JsonObject[] = [...access(request.namespace), map];
  for (const [entity, parts] of pods) {
    for (const claim of parts.claims) objects.push(volumeClaim(claim, request, entity));
  }
  for (const entity of scheduled) {
    for (const schedule of entity.base.schedules ?? [])
      objects.push(cronJob(entity, schedule, pods.get(entity) as PodParts, request));
  }
  for (const entity of receivers) {
    const parts = pods.get(entity) as PodParts;
    objects.push(volumeClaim(walClaim(entity), request, entity), walReceiver(entity, parts, request));
  }
  return {
    files: objects.map((object, index) => ({
      name: fileName(object, index),
      text: `${head(object)}${yamlText(object)}`,
    })),
    secrets: [...pods].flatMap(([entity, parts]) => secretOf(entity, parts, request.namespace)),
    notes: notesOf(scheduled, receivers, pods, request),
  };
}

// Access -------------------------------------------------------------------------------------------------------------

const NAME = 'holdfast';

/** The pods talk to databases and stores, never to Kubernetes: no token is mounted, and the role allows nothing. */
function access(namespace: string): JsonObject[] {
  const metadata = { name: NAME, namespace, labels: LABELS };
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata, automountServiceAccountToken: false },
    { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'Role', metadata, rules: [] },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'RoleBinding',
      metadata,
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: NAME },
      subjects: [{ kind: 'ServiceAccount', name: NAME, namespace }],
    },
    {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata,
      spec: {
        podSelector: { matchLabels: { 'app.kubernetes.io/name': LABELS['app.kubernetes.io/name'] } },
        policyTypes: ['Ingress'],
        ingress: [],
      },
    },
  ];
}

const REASONS: Readonly<Record<string, string>> = {
  ServiceAccount: 'The pods never talk to Kubernetes, so no token is mounted.',
  Role: 'Allows nothing: the pods need nothing of Kubernetes. Here is where to add what a policy of yours asks for.',
  NetworkPolicy:
    'Nobody has to reach these pods. Where they go is not limited: databases and stores are outside of what is known here.',
  ConfigMap: 'The entities file without its comments. Secrets are named in it, never held.',
};

function head({ kind }: JsonObject): string {
  const reason = REASONS[String(kind)];
  return reason === undefined ? '' : `# ${reason}\n`;
}

// The entities file --------------------------------------------------------------------------------------------------

interface ConfigItem {
  readonly key: string;
  readonly path: string;
}

function configMap(config: Config, namespace: string): { map: JsonObject; items: ConfigItem[] } {
  const data: Record<string, string> = {};
  const items = config.files.map((file, index): ConfigItem => {
    const path = relative(config.baseDirectory, file).replaceAll('\\', '/');
    if (path.startsWith('..') || isAbsolute(path)) {
      throw new HoldfastError(
        'CONFIG_INVALID',
        `the included file '${file}' lies outside of the folder of the entities file`,
        {
          hint: 'Move it below that folder: a pod sees that folder only.',
        },
      );
    }
    const key = index === 0 ? 'holdfast.yaml' : `${index}-${path.replaceAll(/[^A-Za-z0-9._-]/g, '_')}`.slice(0, 200);
    data[key] = withoutComments(file);
    return { key, path: index === 0 ? 'holdfast.yaml' : path };
  });
  if (Object.values(data).join('').length > MOST_CONFIG) {
    throw new HoldfastError('CONFIG_INVALID', 'the entities files are too large for a ConfigMap', {
      hint: 'Render the entities of one cluster from a file of their own.',
    });
  }
  const metadata = { name: `${NAME}-config`, namespace, labels: LABELS };
  return { map: { apiVersion: 'v1', kind: 'ConfigMap', metadata, data }, items };
}

// A comment may hold what was once a password.
function withoutComments(file: string): string {
  const text = readText(file, file);
  if (typeof text !== 'string') throw new HoldfastError('CONFIG_INVALID', `the entities file '${file}' cannot be read`);
  return parseSource(text, file)
    .documents.map(({ value }) => yamlText((value ?? {}) as JsonObject))
    .join('---\n');
}

// Pods ---------------------------------------------------------------------------------------------------------------

/** What lies outside of the entities file. A certificate is no secret, but a file that a pod needs all the same. */
type Named = Pick<EntityDeclaration['references'][number], 'kind' | 'name' | 'fallback'>;

interface Claim {
  readonly name: string;
  readonly mountPath: string;
}

interface PodParts {
  readonly secret: string;
  readonly env: JsonObject[];
  readonly volumes: JsonObject[];
  readonly mounts: JsonObject[];
  readonly claims: Claim[];
  /** Keys of the Secret, with how a person gets at their values. */
  readonly keys: ReadonlyMap<
    string,
    { readonly kind: 'env' | 'file'; readonly name: string; readonly optional: boolean }
  >;
}

function podParts(
  entity: EntityDeclaration,
  config: Config,
  items: readonly ConfigItem[],
  request: KubernetesRequest,
): PodParts {
  const secret = nameOf(entity.base.key);
  const keys = new Map<string, { kind: 'env' | 'file'; name: string; optional: boolean }>();
  const env: JsonObject[] = [];
  const inConfig: JsonObject[] = [];
  const apart: { key: string; path: string }[] = [];
  const certificate = written(entity)['ssl_root_cert'];
  const named: readonly Named[] =
    typeof certificate === 'string' && isAbsolute(certificate)
      ? [...entity.references, { kind: 'file', name: certificate }]
      : entity.references;
  for (const { kind, name, fallback } of named) {
    if (kind === 'env') {
      const optional = fallback !== undefined && keys.get(name)?.optional !== false;
      if (!keys.has(name))
        env.push({ name, valueFrom: { secretKeyRef: { name: secret, key: name, ...(optional ? { optional } : {}) } } });
      keys.set(name, { kind, name, optional });
      continue;
    }
    const path = isAbsolute(name) ? posix.normalize(name) : posix.join(CONFIG_DIR, name);
    const key = path.replace(/^\//, '').replaceAll(/[^A-Za-z0-9._-]/g, '-');
    if (keys.has(key)) continue;
    keys.set(key, { kind, name: resolve(config.baseDirectory, name), optional: false });
    const inside = posix.relative(CONFIG_DIR, path);
    if (inside.startsWith('..')) apart.push({ key, path });
    else inConfig.push({ key, path: inside, mode: 0o440 });
  }
  const volumes: JsonObject[] = [
    {
      name: 'config',
      projected: {
        defaultMode: 0o440,
        sources: [
          { configMap: { name: `${NAME}-config`, items: items.map(({ key, path }) => ({ key, path })) } },
          ...(inConfig.length === 0 ? [] : [{ secret: { name: secret, items: inConfig } }]),
        ],
      },
    },
    { name: 'tmp', emptyDir: { sizeLimit: request.tmpSize } },
    request.stateClaim === undefined
      ? { name: 'state', emptyDir: { sizeLimit: '256Mi' } }
      : { name: 'state', persistentVolumeClaim: { claimName: request.stateClaim } },
  ];
  const mounts: JsonObject[] = [
    { name: 'config', mountPath: CONFIG_DIR, readOnly: true },
    { name: 'tmp', mountPath: TMP_DIR },
    { name: 'state', mountPath: STATE_DIR },
  ];
  if (apart.length > 0) {
    volumes.push({
      name: 'secrets',
      secret: { secretName: secret, defaultMode: 0o440, items: apart.map(({ key }) => ({ key, path: key })) },
    });
    for (const { key, path } of apart) mounts.push({ name: 'secrets', mountPath: path, subPath: key, readOnly: true });
  }
  const claims: Claim[] = [];
  const storage = written(entity)['storage'];
  if (isObject(storage) && storage['type'] === 'local') {
    const claim = { name: `${secret}-backups`, mountPath: String(storage['path']) };
    claims.push(claim);
    volumes.push({ name: 'backups', persistentVolumeClaim: { claimName: claim.name } });
    mounts.push({ name: 'backups', mountPath: claim.mountPath });
  }
  return { secret, env, volumes, mounts, claims, keys };
}

function podSpec(
  parts: PodParts,
  request: KubernetesRequest,
  container: { name: string; args: readonly string[]; memory: string },
  restartPolicy: 'Never' | 'Always',
): JsonObject {
  return {
    serviceAccountName: NAME,
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    restartPolicy,
    terminationGracePeriodSeconds: 60,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: USER,
      runAsGroup: USER,
      fsGroup: USER,
      fsGroupChangePolicy: 'OnRootMismatch',
      seccompProfile: { type: 'RuntimeDefault' },
    },
    containers: [
      {
        name: container.name,
        image: request.image,
        args: [...container.args],
        env: [
          { name: 'HOLDFAST_CONFIG', value: `${CONFIG_DIR}/holdfast.yaml` },
          { name: 'HOLDFAST_STATE_DIR', value: STATE_DIR },
          // Kubernetes is the clock here.
          { name: 'HOLDFAST_SCHEDULER', value: 'off' },
          { name: 'HOME', value: TMP_DIR },
          { name: 'TMPDIR', value: TMP_DIR },
          ...parts.env,
        ],
        ...(request.envFrom === undefined ? {} : { envFrom: [{ secretRef: { name: request.envFrom } }] }),
        resources: {
          requests: { cpu: '250m', memory: '256Mi', 'ephemeral-storage': '64Mi' },
          limits: { memory: container.memory },
        },
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        },
        volumeMounts: parts.mounts,
      },
    ],
    volumes: parts.volumes,
  };
}

// Objects ------------------------------------------------------------------------------------------------------------

function cronJob(
  entity: EntityDeclaration,
  schedule: Schedule,
  parts: PodParts,
  request: KubernetesRequest,
): JsonObject {
  const name = nameOf(`${entity.base.key}/${schedule.name}`, 52);
  const labels = {
    ...LABELS,
    'holdfast/schedule': labelOf(schedule.name),
    'holdfast/entity': labelOf(entity.base.key),
  };
  return {
    apiVersion: 'batch/v1',
    kind: 'CronJob',
    metadata: { name, namespace: request.namespace, labels },
    spec: {
      schedule: withSundayFirst(schedule.cron),
      timeZone: schedule.timezone,
      concurrencyPolicy: 'Forbid',
      // What is later than this is missed; the controller makes up for one, never for many.
      startingDeadlineSeconds: schedule.catch_up ? 3600 : 60,
      suspend: !schedule.enabled,
      successfulJobsHistoryLimit: 3,
      failedJobsHistoryLimit: 3,
      jobTemplate: {
        metadata: { labels },
        spec: {
          backoffLimit: 1,
          activeDeadlineSeconds: (schedule.at_most ?? USUAL_LIMIT) + 300,
          // What the guard refused, and what is wrong in the file, is no other a second time.
          podFailurePolicy: {
            rules: [
              {
                action: 'FailJob',
                onExitCodes: { containerName: 'schedule', operator: 'In', values: FINAL_EXITS },
              },
            ],
          },
          template: {
            metadata: { labels },
            spec: podSpec(
              parts,
              request,
              { name: 'schedule', args: ['schedule', 'run', entity.base.key, schedule.name], memory: '1Gi' },
              'Never',
            ),
          },
        },
      },
    },
  };
}

const FINAL_EXITS: number[] = [
  ...new Set(
    (
      ['CONFIRMATION_REQUIRED', 'POLICY_DENIED', 'CONFIG_INVALID', 'INTEGRITY_FAILED', 'INVALID_PARAMETER'] as const
    ).map((code) => ERROR_CODES[code].exit),
  ),
].sort((a, b) => a - b);

/** WAL that waits for its upload lies on a claim: what was confirmed to the server must outlive the pod. */
function walReceiver(entity: EntityDeclaration, parts: PodParts, request: KubernetesRequest): JsonObject {
  const claim = walClaim(entity);
  const name = claim.name;
  const labels = { ...LABELS, 'holdfast/wal': labelOf(entity.base.key) };
  const spool = walOf(entity)?.['spool'];
  const volumes = parts.volumes.map((volume) =>
    volume['name'] === 'state' ? { name: 'state', persistentVolumeClaim: { claimName: claim.name } } : volume,
  );
  const mounts =
    typeof spool === 'string' ? [...parts.mounts, { name: 'state', mountPath: spool, subPath: 'spool' }] : parts.mounts;
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace: request.namespace, labels },
    spec: {
      replicas: 1,
      // A slot has one reader: the old pod is gone before the new one comes.
      strategy: { type: 'Recreate' },
      selector: { matchLabels: { 'holdfast/wal': labels['holdfast/wal'] } },
      template: {
        metadata: { labels },
        spec: podSpec(
          { ...parts, volumes, mounts },
          request,
          { name: 'wal', args: ['wal', 'receive', '--entity', entity.base.key], memory: '512Mi' },
          'Always',
        ),
      },
    },
  };
}

function walClaim(entity: EntityDeclaration): Claim {
  return { name: `${nameOf(entity.base.key, 50)}-wal`, mountPath: STATE_DIR };
}

function volumeClaim({ name }: Claim, request: KubernetesRequest, entity: EntityDeclaration): JsonObject {
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: {
      name,
      namespace: request.namespace,
      labels: { ...LABELS, 'holdfast/entity': labelOf(entity.base.key) },
    },
    spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: request.volumeSize } } },
  };
}

// What a person has to do --------------------------------------------------------------------------------------------

function secretOf(entity: EntityDeclaration, { secret, keys }: PodParts, namespace: string): Rendered['secrets'] {
  if (keys.size === 0) return [];
  // The values go through pipes and files: an argument could be read in the process list.
  const parts = [...keys].map(([key, { kind, name }]) =>
    kind === 'env' ? `--from-file=${key}=<(printf %s "$${name}")` : `--from-file=${shellWord(`${key}=${name}`)}`,
  );
  const optional = [...keys].filter(([, { optional: may }]) => may).map(([key]) => key);
  const command = [
    ...(optional.length === 0 ? [] : [`# ${optional.join(', ')}: may be left out`]),
    `# ${entity.base.key}`,
    `kubectl create secret generic ${secret} --namespace ${namespace} \\`,
    `  ${parts.join(' \\\n  ')}`,
  ].join('\n');
  return [{ name: secret, keys: [...keys.keys()], command }];
}

function notesOf(
  scheduled: readonly EntityDeclaration[],
  receivers: readonly EntityDeclaration[],
  pods: ReadonlyMap<EntityDeclaration, PodParts>,
  request: KubernetesRequest,
): string[] {
  const local = [...pods.values()].some(({ claims }) => claims.length > 0);
  const own = [...pods.keys()].filter((entity) => written(entity)['bin_dir'] !== undefined);
  const idle = scheduled.filter(({ base }) => (base.schedules ?? []).every(({ enabled }) => !enabled));
  return [
    ...(request.stateClaim === undefined
      ? ['State and audit trail end with each pod: --state-claim keeps them. The logs of the pods remain.']
      : []),
    ...(local
      ? [
          'Backups lie on a claim in the same cluster, which the pods of one node share: a store elsewhere survives both.',
        ]
      : []),
    ...(receivers.length > 0
      ? ['WAL receivers run as Deployments; each holds a replication slot while it exists.']
      : []),
    ...own.map(({ base }) => `${base.key} names programs by bin_dir: they must be there in the image.`),
    ...idle.map(({ base }) => `No schedule of ${base.key} is enabled: its CronJobs are suspended.`),
  ];
}

// Names --------------------------------------------------------------------------------------------------------------

/** A name that Kubernetes takes. Where letters had to go, a few of the hash keep two entities apart. */
function nameOf(key: string, most = 56): string {
  // Two hyphens where the slash was, so that `a/b-c` and `a-b/c` stay apart.
  const plain = `${NAME}-${key.replaceAll('/', '--')}`.replaceAll(/[^a-z0-9-]+/g, '-');
  const hash = createHash('sha256').update(key).digest('hex').slice(0, 6);
  if (!/[^a-z0-9/-]|--/.test(key) && plain.length <= most) return plain;
  return `${plain.slice(0, most - 7).replace(/-+$/, '')}-${hash}`;
}

/** The value of a label: at most 63 characters, a letter or digit at both ends. */
function labelOf(text: string): string {
  return text
    .replaceAll(/[^A-Za-z0-9._-]+/g, '.')
    .slice(0, 63)
    .replace(/[^A-Za-z0-9]+$/, '');
}

function fileName({ kind, metadata }: JsonObject, index: number): string {
  const { name } = metadata as { name: string };
  return `${String(index).padStart(3, '0')}-${String(kind).toLowerCase()}-${name}.yaml`;
}

function written(entity: EntityDeclaration): Readonly<Record<string, unknown>> {
  return isObject(entity.parameters.value) ? entity.parameters.value : {};
}

function walOf(entity: EntityDeclaration): Readonly<Record<string, JsonValue>> | undefined {
  const wal = written(entity)['wal'];
  return isObject(wal) ? (wal as JsonObject as Record<string, JsonValue>) : undefined;
}

function shellWord(text: string): string {
  return /^[A-Za-z0-9_./:=@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

function checkRequest({ namespace, image, stateClaim, envFrom, tmpSize, volumeSize }: KubernetesRequest): void {
  const refuse = (option: string, value: string, hint: string): never => {
    throw new HoldfastError('INVALID_PARAMETER', `${option} '${value.slice(0, 80)}' is nothing that Kubernetes takes`, {
      hint,
    });
  };
  const dns = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
  if (!dns.test(namespace)) refuse('--namespace', namespace, 'Lower-case letters, digits and hyphens, 63 at most.');
  if (!/^[A-Za-z0-9][\w.:/@-]{0,254}$/.test(image))
    refuse('--image', image, 'Write it as registry/name:tag or name@digest.');
  for (const [option, name] of [
    ['--state-claim', stateClaim],
    ['--env-from', envFrom],
  ] as const) {
    if (name !== undefined && !/^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/.test(name))
      refuse(option, name, 'Name an object of the namespace.');
  }
  for (const [option, size] of [
    ['--tmp-size', tmpSize],
    ['--volume-size', volumeSize],
  ] as const) {
    if (!/^[1-9]\d{0,8}(?:Ki|Mi|Gi|Ti|k|M|G|T)?$/.test(size)) refuse(option, size, 'Write 512Mi, 2Gi and the like.');
  }
}
