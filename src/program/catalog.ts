import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { yamlText } from '../config/yaml-text.ts';
import { HoldfastError } from '../core/errors.ts';
import { isObject, type JsonObject } from '../core/json.ts';
import type { Engine } from '../engine/api.ts';
import type { CatalogueOptions, CatalogueOutcome } from '../surfaces/cli/deps.ts';
import { type OpenOptions, open } from './open.ts';

/** Looks through the storage of an entity, or one that no entity names. Reads only. */
export async function lookThrough(
  options: CatalogueOptions & Pick<OpenOptions, 'env' | 'stderr' | 'redactor'>,
): Promise<CatalogueOutcome> {
  if (options.storage === undefined) return report(options, await open(options), String(options.entity), false);
  // An entities file of one entity, so that the storage is checked and opened as every other is.
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-catalog-'));
  try {
    const config = join(directory, 'holdfast.yaml');
    const parameters = {
      defines: 'postgresql/server',
      user: 'nobody',
      database: 'none',
      storage: storageOf(options.storage),
      encryption: encryptionOf(options),
    };
    writeFileSync(config, yamlText({ namespace: 'catalog', looked_through: parameters }), { mode: 0o600 });
    const opened = await open({ ...options, config, sandbox: false });
    return await report(options, opened, 'catalog/looked_through', true);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function report(
  options: CatalogueOptions,
  { engine }: { readonly engine: Engine },
  entity: string,
  everything: boolean,
): Promise<CatalogueOutcome> {
  try {
    const { principal, signal } = options;
    const input = everything ? { all_sources: true } : {};
    const outcome = await engine.call({ principal, entity, action: 'check-catalog', input, signal });
    if (outcome.kind !== 'result') throw new HoldfastError('INTERNAL', 'looking through a storage gave no report');
    const found = outcome.output as JsonObject;
    return { report: found, entitiesFile: entitiesFile(found, options) };
  } finally {
    await engine.close();
  }
}

const HEAD = `# Written by holdfast catalog rebuild from what is in the storage. The storage does not know where a server is:
# correct host, port, user and password before a restore. Nothing here is a secret.
`;

function entitiesFile(found: JsonObject, options: CatalogueOptions): string {
  const sources = Array.isArray(found['sources']) ? (found['sources'] as JsonObject[]) : [];
  const documents = sources.flatMap(({ entity }) => {
    if (!isObject(entity) || !isObject(entity['parameters'])) return [];
    const parameters = { ...(entity['parameters'] as JsonObject) };
    const { encryption } = parameters;
    // Where the key is, as the command line said; the storage does not know.
    if (isObject(encryption) && 'passphrase' in encryption) {
      const file = options.passphraseFile;
      parameters['encryption'] = {
        passphrase: file === undefined ? '${env:HOLDFAST_PASSPHRASE}' : `\${file:${resolve(file)}}`,
      };
    } else if (isObject(encryption) && options.identity !== undefined) {
      parameters['encryption'] = { ...(encryption as JsonObject), identity: `\${file:${resolve(options.identity)}}` };
    }
    return [yamlText({ namespace: String(entity['namespace']), [String(entity['name'])]: parameters })];
  });
  return `${HEAD}${documents.join('---\n')}`;
}

function encryptionOf({ identity, passphraseFile }: CatalogueOptions): JsonObject | 'none' {
  if (identity !== undefined && passphraseFile !== undefined) {
    throw new HoldfastError('INVALID_PARAMETER', 'give --identity or --passphrase-file, not both');
  }
  if (passphraseFile !== undefined) return { passphrase: `\${file:${readable('--passphrase-file', passphraseFile)}}` };
  if (identity === undefined) return 'none';
  return { recipients: [UNUSED], identity: `\${file:${readable('--identity', identity)}}` };
}

/** Nothing is sealed while a storage is looked through; the form wants a recipient beside an identity. */
const UNUSED = 'age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p';

function readable(option: string, file: string): string {
  const path = resolve(file);
  if (existsSync(path) && statSync(path).isFile()) return path;
  throw new HoldfastError('INVALID_PARAMETER', `${option}: there is no file '${file.slice(0, 200)}'`);
}

const SCHEMES: Readonly<Record<string, readonly [type: string, ...names: string[]]>> = {
  's3:': ['s3', 'bucket'],
  'gs:': ['gcs', 'bucket'],
  'azure-blob:': ['azure-blob', 'account', 'container'],
};

/** Reads `--storage`: a directory, or the address of a store with its parameters behind a question mark. */
function storageOf(text: string): JsonObject {
  const url = /^[a-z][a-z0-9-]*:\/\//i.test(text) && URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined) {
    const path = resolve(text);
    if (existsSync(path) && statSync(path).isDirectory()) return { type: 'local', path };
    throw new HoldfastError('INVALID_PARAMETER', `--storage: there is no directory '${text.slice(0, 200)}'`, {
      hint: 'Give a directory, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or azure-blob://ACCOUNT/CONTAINER/PREFIX.',
    });
  }
  const scheme = SCHEMES[url.protocol];
  if (scheme === undefined || url.username !== '' || url.password !== '') {
    throw new HoldfastError('INVALID_PARAMETER', '--storage is no address of a store that Holdfast knows', {
      hint: 'Use s3://, gs:// or azure-blob://, without credentials in it: those come from the environment, or by reference behind the question mark.',
    });
  }
  const [type, ...names] = scheme;
  const parts = [url.host, ...url.pathname.split('/').filter((part) => part !== '')];
  const place = Object.fromEntries(names.map((name, index) => [name, parts[index] ?? '']));
  const prefix = parts.slice(names.length).join('/');
  const more = [...url.searchParams].map(([name, value]) => [name, value === 'true' ? true : value] as const);
  return { type, ...place, ...(prefix === '' ? {} : { prefix }), ...Object.fromEntries(more) };
}
