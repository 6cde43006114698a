import { isObject } from '../core/json.ts';
import { cleanText } from '../core/text.ts';
import type { ObjectStore, StoredObject } from '../storage/storage.ts';
import { isPhysical, LAYOUT, type Manifest, timeOfId } from './manifest.ts';
import { type Backup, type Catalogue, Repository } from './repository.ts';
import { UNFINISHED_FOR_MS } from './retention.ts';
import { parseWalName } from './wal.ts';

/** How many problems of one source, and how many foreign objects, are named; all are counted. */
const MOST_NAMED = 50;
const SOURCE_ID = /^[a-z0-9][a-z0-9-]{0,79}$/;

/** What can be wrong in a store. Up to `broken_chain` a backup cannot be relied on; the rest costs space or is news. */
export const PROBLEMS = [
  'damaged_manifest',
  'missing_file',
  'wrong_size',
  'damaged',
  'broken_chain',
  'no_source_file',
  'orphan',
  'unlisted_file',
  'stray_hold',
] as const;
export type ProblemKind = (typeof PROBLEMS)[number];

/** Tells whether a backup cannot be relied on because of it. */
export function isGrave(kind: ProblemKind): boolean {
  return PROBLEMS.indexOf(kind) <= PROBLEMS.indexOf('broken_chain');
}

export interface Problem {
  readonly kind: ProblemKind;
  /** The id of a backup or the key of an object. */
  readonly what: string;
  readonly message: string;
}

/** What is stored of one source. */
export interface SourceReport {
  readonly source_id: string;
  /** What `source.json` calls it, the key of its entity; null where that file is missing or says nothing of use. */
  readonly name: string | null;
  readonly backups: number;
  readonly physical: number;
  readonly stored_bytes: number;
  readonly newest: Manifest | undefined;
  /** The newest that nothing is known against. */
  readonly newest_good: Manifest | undefined;
  readonly verified_at: string | null;
  readonly held: number;
  readonly wal_segments: number;
  /** Younger than 24 hours: being written, or its writer died. */
  readonly unfinished: readonly string[];
  readonly problems: readonly Problem[];
  readonly problems_found: number;
  readonly grave_problems: number;
}

export interface StoreReport {
  readonly location: string;
  readonly sources: readonly SourceReport[];
  /** What is not Holdfast's; it is left alone by everything. */
  readonly foreign: { readonly count: number; readonly bytes: number; readonly names: readonly string[] };
  /** Objects of other versions of the layout, by version. */
  readonly other_layouts: Readonly<Record<string, number>>;
}

/** What a source has besides its backups. */
interface Found {
  readonly files: Map<string, Map<string, number>>;
  readonly holds: string[];
  wal: number;
}

/**
 * Looks through a store, or one source of it, by listing it and reading its manifests. It needs no key, no entity and no
 * state of this machine: what it says is what every machine would say.
 */
export async function surveyStore(store: ObjectStore, now: Date, only?: string): Promise<StoreReport> {
  const sources = new Map<string, Found>();
  const foreign = { count: 0, bytes: 0, names: [] as string[] };
  const layouts: Record<string, number> = {};
  for await (const object of store.list(only === undefined ? '' : `${LAYOUT}/${only}/`)) {
    if (place(object, sources, layouts)) continue;
    foreign.count += 1;
    foreign.bytes += object.size_bytes;
    if (foreign.names.length < MOST_NAMED) foreign.names.push(cleanText(object.key, 160));
  }
  // A source of which nothing is finished yet.
  for await (const { key } of store.unfinished(only === undefined ? '' : `${LAYOUT}/${only}/`)) {
    const [layout, id = ''] = key.split('/');
    if (layout === LAYOUT && SOURCE_ID.test(id) && !sources.has(id)) sources.set(id, empty());
  }
  const reports: SourceReport[] = [];
  for (const [id, found] of [...sources].sort(([a], [b]) => (a < b ? -1 : 1))) {
    reports.push(await surveySource(new Repository(store, id), found, now));
  }
  return { location: store.location, sources: reports, foreign, other_layouts: layouts };
}

const empty = (): Found => ({ files: new Map(), holds: [], wal: 0 });

/** Puts an object where it belongs; false for one that is not ours. */
function place(
  { key, size_bytes }: StoredObject,
  sources: Map<string, Found>,
  layouts: Record<string, number>,
): boolean {
  const [layout = '', id = '', folder = '', ...rest] = key.split('/');
  if (rest.length === 0 && id === '' && layout.startsWith('holdfast-probe-')) return true;
  if (layout !== LAYOUT) {
    if (!/^v\d{1,3}$/.test(layout) || !SOURCE_ID.test(id) || folder === '') return false;
    layouts[layout] = (layouts[layout] ?? 0) + 1;
    return true;
  }
  if (!SOURCE_ID.test(id) || folder === '') return false;
  const found = sources.get(id) ?? empty();
  if (!placeIn(found, folder, rest, size_bytes)) return false;
  sources.set(id, found);
  return true;
}

function placeIn(found: Found, folder: string, rest: readonly string[], size: number): boolean {
  const [first = '', ...below] = rest;
  switch (folder) {
    case 'source.json':
    case 'wal.json':
      return rest.length === 0;
    case 'backups': {
      if (timeOfId(first) === undefined || below.length === 0) return false;
      const files = found.files.get(first) ?? new Map<string, number>();
      found.files.set(first, files.set(below.join('/'), size));
      return true;
    }
    case 'holds':
      found.holds.push(first.replace(/\.json$/, ''));
      return below.length === 0 && first.endsWith('.json');
    case 'locks':
      return below.length === 0 && first.endsWith('.json');
    case 'wal':
    case 'wal-sha256': {
      const file = parseWalName((below[0] ?? '').replace(/\.zst(\.age)?$/, ''));
      if (file === undefined || below.length !== 1) return false;
      if (folder === 'wal' && file.kind === 'segment') found.wal += 1;
      return true;
    }
    default:
      return false;
  }
}

async function surveySource(repository: Repository, found: Found, now: Date): Promise<SourceReport> {
  const catalogue = await repository.catalogue();
  const problems = [
    ...(await sourceProblems(repository)),
    ...catalogue.unreadable.map((id) => ({
      kind: 'damaged_manifest' as const,
      what: id,
      message: 'its manifest cannot be read, or is of a later version: it is not listed as a backup',
    })),
    ...catalogue.backups.flatMap((backup) => backupProblems(backup, found.files.get(backup.manifest.id), catalogue)),
    ...strayProblems(found, catalogue, now),
  ].sort((a, b) => PROBLEMS.indexOf(a.kind) - PROBLEMS.indexOf(b.kind));
  const grave = new Set(problems.filter(({ kind }) => isGrave(kind)).map(({ what }) => what));
  const all = catalogue.backups
    .map(({ manifest }) => manifest)
    .sort((a, b) => (a.snapshot_at < b.snapshot_at ? 1 : -1));
  const source = await readSource(repository);
  return {
    source_id: repository.sourceId,
    name: source?.name ?? null,
    backups: all.length,
    physical: catalogue.backups.filter(isPhysical).length,
    stored_bytes: all.reduce((sum, { payload }) => sum + payload.reduce((size, { bytes }) => size + bytes, 0), 0),
    newest: all[0],
    newest_good: all.find(({ id }) => !grave.has(id)),
    verified_at:
      catalogue.backups
        .flatMap(({ verifiedAt }) => verifiedAt ?? [])
        .sort()
        .at(-1) ?? null,
    held: catalogue.backups.filter(({ hold }) => hold !== undefined).length,
    wal_segments: found.wal,
    unfinished: catalogue.unfinished.filter(({ active_at }) => isYoung(active_at, now)).map(({ id }) => id),
    problems: problems.slice(0, MOST_NAMED),
    problems_found: problems.length,
    grave_problems: problems.filter(({ kind }) => isGrave(kind)).length,
  };
}

function isYoung(at: Date, now: Date): boolean {
  return now.getTime() - at.getTime() < UNFINISHED_FOR_MS;
}

async function sourceProblems(repository: Repository): Promise<Problem[]> {
  if ((await readSource(repository)) !== undefined) return [];
  const message = 'the file that names this source is missing or unreadable; its backups are not concerned';
  return [{ kind: 'no_source_file', what: `${LAYOUT}/${repository.sourceId}/source.json`, message }];
}

async function readSource(repository: Repository): Promise<{ name: string | null } | undefined> {
  const source: unknown = await repository.source();
  if (!isObject(source)) return undefined;
  const { name } = source;
  return { name: typeof name === 'string' ? cleanText(name, 200) : null };
}

function backupProblems(
  { manifest, damage }: Backup,
  files: ReadonlyMap<string, number> | undefined,
  { backups }: Catalogue,
): Problem[] {
  const { id } = manifest;
  const problems: Problem[] = [];
  for (const { name, bytes } of manifest.payload) {
    const size = files?.get(name);
    if (size === undefined) problems.push({ kind: 'missing_file', what: id, message: `${name} is not there` });
    else if (size !== bytes) {
      problems.push({ kind: 'wrong_size', what: id, message: `${name} has ${size} bytes instead of ${bytes}` });
    }
  }
  if (damage !== undefined) problems.push({ kind: 'damaged', what: id, message: `a verification failed: ${damage}` });
  if (manifest.kind === 'physical' && manifest.parent_id !== undefined) {
    const { parent_id } = manifest;
    if (!backups.some((other) => other.manifest.id === parent_id)) {
      problems.push({ kind: 'broken_chain', what: id, message: `${parent_id}, which it rests on, is not there` });
    }
  }
  const named = new Set(['manifest.json', ...manifest.payload.map(({ name }) => name)]);
  for (const name of files?.keys() ?? []) {
    if (named.has(name) || name.startsWith('verify/')) continue;
    problems.push({ kind: 'unlisted_file', what: id, message: `${cleanText(name, 100)} is not in its manifest` });
  }
  return problems;
}

function strayProblems(found: Found, catalogue: Catalogue, now: Date): Problem[] {
  const known = new Set([...catalogue.backups.map(({ manifest }) => manifest.id), ...catalogue.unreadable]);
  const orphans = catalogue.unfinished.filter(({ active_at }) => !isYoung(active_at, now));
  return [
    ...orphans.map(({ id, files, size_bytes }) => ({
      kind: 'orphan' as const,
      what: id,
      message: `${files} files, ${size_bytes} bytes, of a backup that never finished; prune-snapshots removes them`,
    })),
    ...found.holds
      .filter((id) => !known.has(id))
      .map((id) => ({ kind: 'stray_hold' as const, what: cleanText(id, 60), message: 'a hold without its backup' })),
  ];
}
