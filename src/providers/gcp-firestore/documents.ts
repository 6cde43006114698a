import { HoldfastError } from '../../core/errors.ts';
import { type JsonObject, sha256 } from '../../core/json.ts';
import type { Recovery, StepContext } from '../../core/operation.ts';
import type { Alternative, Plan, PlanDraft } from '../../core/plan.ts';
import { cleanText } from '../../core/text.ts';
import { parseInstant } from '../../core/time.ts';
import { lookThrice, recoverySignal } from '../follow.ts';
import {
  type Context,
  earliestMinute,
  type FirestoreStep,
  followWork,
  isConfiguredPlace,
  latestMinute,
  newDatabaseId,
  newestRestorable,
  ownBackups,
  refuseChange,
  tolerate,
} from './backups.ts';
import type { FirestoreClient } from './client.ts';
import {
  checkCollections,
  checkUri,
  type Database,
  hasPitr,
  instant,
  isProtected,
  type OperationKind,
  type OperationView,
  operationError,
  toOperation,
} from './map.ts';
import type { FirestoreEntity } from './provider.ts';
import { readOperation } from './restore.ts';

type In<Input> = StepContext<FirestoreClient, FirestoreEntity, Input>;

export interface ExportInput {
  output_uri_prefix?: string | undefined;
  collection_ids?: string[] | undefined;
  snapshot_time?: string | number | undefined;
}

export interface ImportInput {
  input_uri_prefix: string;
  collection_ids?: string[] | undefined;
  safety_snapshot?: boolean | undefined;
}

// What approval rests on; read again just before the write. The etag may move with the recovery window and stays out.
function databaseFacts(project: string, database: Database, id: string): JsonObject {
  return {
    project,
    database: id,
    uid: cleanText(database.uid, 60),
    type: cleanText(database.type, 40),
    updated_at: instant(database.updateTime) ?? null,
  };
}

/** Gives the moment that an export holds. @throws {HoldfastError} INVALID_PARAMETER, INVALID_STATE */
function momentOf(wanted: string | number | undefined, database: Database, now: Date): string {
  const latest = latestMinute(now);
  const earliest = earliestMinute(database);
  if (wanted === undefined) {
    if (earliest !== undefined && latest < earliest) {
      throw new HoldfastError('INVALID_STATE', 'the database is too young for a consistent export', {
        hint: 'Wait some minutes, then call again.',
      });
    }
    return latest.toISOString();
  }
  const at = parseInstant(wanted, 'snapshot_time');
  const problem =
    at.getTime() % 60_000 !== 0
      ? 'snapshot_time is no whole minute'
      : at > latest || (earliest !== undefined && at < earliest)
        ? 'snapshot_time is outside of the recovery window'
        : undefined;
  if (problem === undefined) return at.toISOString();
  throw new HoldfastError('INVALID_PARAMETER', problem, {
    hint: `Give a whole minute ${earliest === undefined ? 'before' : `from ${earliest.toISOString()} to`} ${latest.toISOString()}, or leave it out.`,
  });
}

// --- exporting -----------------------------------------------------------------------------------------------------

// An export into a place that has one already is refused by Firestore: where no folder is named, each gets its own.
function placeOf(entity: FirestoreEntity, given: string | undefined): { uri: string; isFolder: boolean } {
  if (given === undefined) {
    if (entity.export_uri_prefix === undefined) {
      throw new HoldfastError('INVALID_PARAMETER', 'output_uri_prefix is missing, and the entity names no place', {
        hint: 'Give output_uri_prefix, such as gs://BUCKET/FOLDER, or set export_uri_prefix of the entity.',
      });
    }
    return { uri: checkUri(entity.export_uri_prefix, 'export_uri_prefix'), isFolder: false };
  }
  const uri = checkUri(given, 'output_uri_prefix');
  return {
    uri,
    isFolder: uri.slice('gs://'.length).includes('/') && uri !== entity.export_uri_prefix?.replace(/\/+$/, ''),
  };
}

/** Says where the export goes; one to a place that is not configured needs a person's leave. */
export async function planExport(context: Context, input: ExportInput): Promise<PlanDraft> {
  const { client, entity, runtime, signal } = context;
  const place = placeOf(entity, input.output_uri_prefix);
  const collections = checkCollections(input.collection_ids);
  const [project, database] = await Promise.all([client.project(), client.getDatabase(client.database, signal)]);
  const moment = momentOf(input.snapshot_time, database, runtime.now());
  const isElsewhere = !isConfiguredPlace(entity, place.uri);
  return {
    // Whoever can name the bucket can carry the whole database out of the project.
    ...(isElsewhere ? { risk: 'weaken' as const } : {}),
    target: `${project}/${client.database}`,
    loses: isElsewhere
      ? `nothing, but a copy of ${collections === undefined ? 'all documents' : 'these collections'} leaves for ${place.uri}, which is not the configured place`
      : 'nothing',
    undo: 'remove the files of the export from the bucket',
    blast_radius: {
      output_uri_prefix: place.uri,
      collections: collections ?? 'all',
      snapshot_time: moment,
    },
    alternatives: isElsewhere
      ? entity.export_uri_prefix === undefined
        ? [{ title: 'Set export_uri_prefix of the entity: exports that go there need no leave', risk: 'change' }]
        : [
            {
              title: 'Export to the configured place',
              risk: 'create',
              call: {
                entity: entity.key,
                action: 'export-documents',
                input: collections === undefined ? {} : { collection_ids: collections },
              },
            },
          ]
      : [],
    warnings: ['Billed as one read of every exported document.'],
    facts: {
      target: databaseFacts(project, database, client.database),
      context: { output_uri_prefix: place.uri, collections: collections ?? 'all' },
    },
  };
}

interface Exporting<Input> {
  readonly prefix: '' | 'safety-';
  readonly place: (entity: FirestoreEntity, input: Input) => { uri: string; isFolder: boolean };
  readonly collections: (input: Input) => string[] | undefined;
  readonly moment: (input: Input) => string | number | undefined;
}

/** The steps that export a consistent copy and wait until it is complete. */
export function exportSteps<Input>({ prefix, place, collections, moment }: Exporting<Input>): FirestoreStep<Input>[] {
  const safety = prefix !== '';
  const begin = safety ? 'safety-snapshot' : 'export';
  return [
    {
      name: begin,
      title: safety ? 'Exporting the present state first' : 'Starting the export',
      kind: 'mutate',
      async run(context) {
        const { client, entity, input, runtime, signal } = context;
        const now = runtime.now();
        const { uri: root, isFolder } = place(entity, input);
        const stamp = now.toISOString().slice(0, 19).replace(/[-:]/g, '');
        const mark = sha256(context.idempotencyKey).slice(0, 8);
        const uri = isFolder ? root : `${root}/${safety ? 'holdfast-safety-' : ''}${stamp}-${mark}`;
        const snapshotTime = momentOf(moment(input), await client.getDatabase(client.database, signal), now);
        const wanted = { uri, snapshot_time: snapshotTime, ...(await knownBefore(context, 'export', uri)) };
        await context.checkpoint(wanted);
        const request = { uri, collections: collections(input), snapshotTime };
        const operation = await client.exportDocuments(request, signal);
        const handle = { ...wanted, operation_name: String(operation.name ?? '') };
        await context.checkpoint(handle);
        return handle;
      },
      recover: (context) => recoverMove(context, 'export'),
    },
    {
      name: safety ? 'safety-wait' : 'wait',
      title: safety ? 'Waiting for the safety export' : 'Waiting for the export',
      kind: 'follow',
      async run(context) {
        const begun = context.results[begin] ?? {};
        const done = await followMove(context, String(begun['operation_name']), 'the export');
        return { output_uri_prefix: cleanText(done.result_uri ?? begun['uri'], 1000), ...moved(done, begun) };
      },
    },
  ];
}

/** The steps of the export before an import: the same collections, into the configured place. */
export function safetySteps(): FirestoreStep<ImportInput>[] {
  return exportSteps<ImportInput>({
    prefix: 'safety-',
    place: (entity) => placeOf(entity, undefined),
    collections: ({ collection_ids }) => checkCollections(collection_ids),
    moment: () => undefined,
  });
}

/** The steps of an export that a caller asked for. */
export function ownExportSteps(): FirestoreStep<ExportInput>[] {
  return exportSteps<ExportInput>({
    prefix: '',
    place: (entity, { output_uri_prefix }) => placeOf(entity, output_uri_prefix),
    collections: ({ collection_ids }) => checkCollections(collection_ids),
    moment: ({ snapshot_time }) => snapshot_time,
  });
}

/** Gives the exact call that brings back what an import overwrote. */
export function undoImport(results: Readonly<Record<string, JsonObject>>): JsonObject {
  const uri = results['safety-wait']?.['output_uri_prefix'] ?? results['safety-snapshot']?.['uri'];
  return { action: 'import-documents', input: { input_uri_prefix: String(uri) } };
}

// --- importing -----------------------------------------------------------------------------------------------------

const COUNTED = 10;

/** Looks at the database and at the export and says what an import would replace. */
export async function planImport(context: Context, input: ImportInput): Promise<PlanDraft> {
  const { client, entity, runtime, signal } = context;
  const uri = checkUri(input.input_uri_prefix, 'input_uri_prefix');
  const filter = checkCollections(input.collection_ids);
  const now = runtime.now();
  const [project, database] = await Promise.all([client.project(), client.getDatabase(client.database, signal)]);
  const [backups, operations] = await Promise.all([
    tolerate(() => ownBackups(context, { state: 'exists', database })),
    tolerate(() => client.listOperations(client.database, signal)),
  ]);
  const views = (operations ?? []).map(toOperation);
  const exports = views.filter(
    ({ kind, uri: asked, result_uri }) => kind === 'export' && (result_uri ?? asked) === uri,
  );
  const made = exports.find(({ status }) => status === 'succeeded') ?? exports[0];
  if (made !== undefined) checkExport(made, filter);
  const touched = filter ?? (made !== undefined && made.collection_ids.length > 0 ? made.collection_ids : undefined);
  const counts = await countLive(context, database, touched);
  const running = views.filter(({ status }) => status === 'running');
  const newest = newestRestorable(backups?.points ?? []);
  const [earliest, latest] = [earliestMinute(database), latestMinute(now)];
  const canClone = earliest !== undefined && earliest <= latest;
  const pitr = hasPitr(database);
  const place = entity.export_uri_prefix;
  const alternatives: Alternative[] = [
    { title: 'Import into a new, empty database, compare, then point the application at it', risk: 'create' },
    ...(canClone
      ? [
          {
            title: 'Clone the database as it is into a new one first',
            risk: 'create' as const,
            call: {
              entity: entity.key,
              action: 'restore',
              input: {
                restore_timestamp: latest.toISOString(),
                target_database: newDatabaseId(client.database, now),
              },
            },
          },
        ]
      : []),
    ...(place === undefined
      ? []
      : [
          {
            title: 'Export the present state first',
            risk: 'create' as const,
            call: { entity: entity.key, action: 'export-documents', input: {} },
          },
        ]),
    ...(pitr ? [] : [{ title: 'Switch on point-in-time recovery first', risk: 'change' as const }]),
  ];
  const which =
    touched === undefined ? 'all collections of the export' : touched.map((id) => cleanText(id, 60)).join(', ');
  const back = canClone
    ? `; the whole database as it was can be cloned to a new one with restore_timestamp for ${pitr ? '7 days' : 'one hour only'}`
    : '';
  return {
    target: `${project}/${client.database}`,
    source: uri,
    loses: `the present state of every document that the export has too (${which}): it is replaced; deleted ones come back, others stay, so the result is a mix`,
    ...(made?.snapshot_time === undefined ? {} : { since: made.snapshot_time }),
    blast_radius: {
      type: cleanText(database.type, 40),
      edition: cleanText(database.databaseEdition, 40),
      location: cleanText(database.locationId, 60),
      collections: touched ?? 'all in the export',
      documents_now: counts ?? 'unknown',
      delete_protection: isProtected(database),
      point_in_time_recovery: pitr,
      ...(earliest === undefined ? {} : { earliest_moment: earliest.toISOString() }),
      running_operations: operations === undefined ? 'unknown' : running.length,
      export:
        made === undefined
          ? 'unknown'
          : {
              operation_name: cleanText(made.name, 300),
              consistent: made.snapshot_time !== undefined,
              ...(made.snapshot_time === undefined ? {} : { snapshot_time: made.snapshot_time }),
              ...(made.documents === undefined ? {} : { documents: made.documents }),
            },
    },
    ...(newest?.data_at === undefined ? {} : { newest_recovery_point: { id: newest.id, at: newest.data_at } }),
    safety_snapshot:
      place === undefined
        ? {
            possible: false,
            reason: 'no export_uri_prefix is configured for this entity: there is no place to export to',
          }
        : canClone
          ? { possible: true }
          : { possible: false, reason: 'the database is too young for a consistent export' },
    undo:
      place === undefined
        ? `nothing brings the documents back in place${back}`
        : `import the safety export, as of one to two minutes before: replaced documents come back, documents that this import adds stay${back}`,
    alternatives,
    unknowns: [
      ...(made === undefined ? ['what the export holds, when it was made and whether it is complete'] : []),
      ...(counts === undefined
        ? ['how many documents there are now: the caller may not read data, or the mode has no counts']
        : []),
      ...(operations === undefined ? ['whether another operation is running'] : []),
      ...(backups === undefined ? ['which backups there are'] : backups.notes),
      'how long it takes: it grows with the number of documents',
    ],
    warnings: [
      `THIS WRITES INTO THE LIVE DATABASE ${project}/${client.database}. It cannot be taken back, and cancelling leaves a part imported.`,
      'Listeners see the writes, and triggers may fire. Billed as one write of every imported document.',
      ...(isProtected(database) ? ['Delete protection does not keep documents from being overwritten.'] : []),
      ...(made !== undefined && made.snapshot_time === undefined
        ? ['The export was made without a snapshot time: it is no consistent copy.']
        : []),
      ...(pitr ? [] : ['Point-in-time recovery is off: only the last hour can be gone back to.']),
      ...(filter === undefined ? [] : ['Sub-collections must be named themselves, or they are left out.']),
      ...(running.length === 0 ? [] : [`${running.length} other operation(s) are running on it.`]),
    ],
    facts: {
      target: databaseFacts(project, database, client.database),
      source: { input_uri_prefix: uri, collections: filter ?? 'all' },
    },
  };
}

function checkExport(made: OperationView, filter: readonly string[] | undefined): void {
  if (made.status !== 'succeeded') {
    throw new HoldfastError('INVALID_STATE', `that export is ${made.status}: it is no complete copy`, {
      retryable: made.status === 'running',
      hint: 'Import only what a finished export answered with.',
    });
  }
  const absent = filter?.find((id) => !made.collection_ids.includes(id));
  if (filter === undefined || absent === undefined) return;
  throw new HoldfastError(
    'INVALID_PARAMETER',
    made.collection_ids.length === 0
      ? 'collection_ids works only on an export that was made with collection_ids; this one holds everything'
      : `the export does not hold the collection '${cleanText(absent, 60)}'`,
    {
      hint:
        made.collection_ids.length === 0
          ? 'Leave collection_ids out, or make an export of those collections from a clone.'
          : `It holds ${made.collection_ids
              .slice(0, 20)
              .map((id) => cleanText(id, 60))
              .join(', ')}.`,
    },
  );
}

// Counting costs a read for every thousand documents, and needs leave to read data.
async function countLive(
  { client, signal }: Context,
  database: Database,
  touched: readonly string[] | undefined,
): Promise<JsonObject | undefined> {
  if (database.type !== 'FIRESTORE_NATIVE' || database.firestoreDataAccessMode === 'DATA_ACCESS_MODE_DISABLED') {
    return undefined;
  }
  const all = touched ?? (await tolerate(() => client.collections(signal)));
  if (all === undefined) return undefined;
  const some = all.slice(0, COUNTED);
  const counts = await Promise.all(some.map((id) => tolerate(() => client.countDocuments(id, signal))));
  if (counts.length > 0 && counts.every((count) => count === undefined)) return undefined;
  return {
    ...Object.fromEntries(some.map((id, index) => [cleanText(id, 60), counts[index] ?? 'unknown'])),
    ...(all.length > some.length ? { and_others: all.length - some.length } : {}),
  };
}

/** Starts the import and follows it to its end. */
export function importSteps(plan: Plan): FirestoreStep<ImportInput>[] {
  const uri = String(plan.facts.source?.['input_uri_prefix']);
  return [
    {
      name: 'import',
      title: 'Starting the import',
      kind: 'mutate',
      async run(context) {
        const { client, input, signal } = context;
        const [project, database] = await Promise.all([client.project(), client.getDatabase(client.database, signal)]);
        refuseChange(plan, databaseFacts(project, database, client.database), 'the database', 'imported');
        const wanted = { uri, ...(await knownBefore(context, 'import', uri)) };
        await context.checkpoint(wanted);
        const operation = await client.importDocuments(uri, checkCollections(input.collection_ids), signal);
        const handle = { ...wanted, operation_name: String(operation.name ?? '') };
        await context.checkpoint(handle);
        return handle;
      },
      recover: (context) => recoverMove(context, 'import'),
    },
    {
      name: 'wait',
      title: 'Waiting for the import',
      kind: 'follow',
      async run(context) {
        const begun = context.results['import'] ?? {};
        const done = await followMove(context, String(begun['operation_name']), 'the import');
        return { input_uri_prefix: uri, target: plan.target, ...moved(done, begun) };
      },
    },
  ];
}

// --- what both have in common --------------------------------------------------------------------------------------

const MOST_KNOWN = 200;

/** Lists the operations of that kind and place from before: ours is the one that is not among them. */
async function knownBefore(
  { client, signal }: Context,
  kind: OperationKind,
  uri: string,
): Promise<{ known: string[]; listed: boolean }> {
  const operations = await tolerate(() => client.listOperations(client.database, signal));
  const known = (operations ?? [])
    .map(toOperation)
    .filter((operation) => operation.kind === kind && operation.uri === uri)
    .map(({ name }) => name);
  return { known: known.slice(0, MOST_KNOWN), listed: operations !== undefined && known.length <= MOST_KNOWN };
}

async function recoverMove<Input>(context: In<Input>, kind: 'export' | 'import'): Promise<Recovery> {
  const { client, handle } = context;
  if (handle === undefined) return { state: 'not_begun' };
  if (handle['operation_name'] !== undefined) return { state: 'done', result: handle };
  // Without the operations from before, an old one could be taken for ours.
  if (handle['listed'] !== true) {
    return { state: 'unknown', message: `the operations of the database could not be listed before the ${kind}` };
  }
  const known = new Set(handle['known'] as string[]);
  const signal = recoverySignal(context.signal);
  const found = await lookThrice(context, async () => {
    const fresh = (await client.listOperations(client.database, signal))
      .map(toOperation)
      .filter(
        (operation) =>
          operation.kind === kind &&
          operation.uri === handle['uri'] &&
          (kind === 'import' || operation.snapshot_time === handle['snapshot_time']) &&
          !known.has(operation.name),
      );
    return fresh.length === 0 ? undefined : fresh;
  });
  if (found === undefined) return { state: 'not_begun', message: `no ${kind} of that place began` };
  return found.length === 1
    ? { state: 'done', result: { ...handle, operation_name: (found[0] as OperationView).name } }
    : { state: 'unknown', message: `more than one ${kind} of that place began; which one is ours is not known` };
}

async function followMove<Input>(context: In<Input>, name: string, what: string): Promise<OperationView> {
  const { client, signal } = context;
  const project = await client.project();
  return followWork(context, what, async () => {
    const operation = await readOperation(client, name, signal);
    if (operation === undefined) {
      throw new HoldfastError('PROVIDER_UNAVAILABLE', `Firestore does not know the operation of ${what} any more`, {
        retryable: false,
        hint: 'Finished operations are forgotten after some days. Look at the bucket and at the database.',
        details: { outcome: 'unknown', operation_name: cleanText(name, 300) },
      });
    }
    const documents = operation.documents === undefined ? '' : `, ${operation.documents} documents`;
    context.progress({
      message: `${what.replace('the ', '')} is ${operation.status}${documents}`,
      percent: operation.percent,
    });
    if (operation.status === 'failed' || operation.status === 'cancelled') {
      throw operationError(operation, what, project);
    }
    return operation.status === 'succeeded' ? operation : undefined;
  });
}

function moved(done: OperationView, begun: JsonObject): JsonObject {
  const moment = done.snapshot_time ?? begun['snapshot_time'];
  return {
    operation_name: cleanText(done.name, 300),
    ...(moment === undefined ? {} : { snapshot_time: moment }),
    ...(done.collection_ids.length === 0
      ? {}
      : { collection_ids: done.collection_ids.map((id) => cleanText(id, 100)) }),
    ...(done.documents === undefined ? {} : { documents: done.documents }),
    ...(done.bytes === undefined ? {} : { size_bytes: done.bytes }),
    ...(done.started_at === undefined ? {} : { started_at: done.started_at }),
    ...(done.ended_at === undefined ? {} : { ended_at: done.ended_at }),
  };
}
