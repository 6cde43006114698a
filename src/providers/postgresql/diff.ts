import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { PlanDraft } from '../../core/plan.ts';
import { cleanText } from '../../core/text.ts';
import { chooseBinaries, findBinaries } from '../../postgres/binaries.ts';
import { withSession } from '../../postgres/connection.ts';
import { diffInventories } from '../../postgres/diff.ts';
import { FINGERPRINT_ALGORITHM, type Inventory } from '../../postgres/inventory.ts';
import { assertLogical, type LogicalManifest } from '../../postgres/manifest.ts';
import type { Backup } from '../../postgres/repository.ts';
import { inventoryOf } from '../../postgres/restore.ts';
import { assertReadsEverything, readServer } from '../../postgres/server.ts';
import { checkDatabaseName } from '../../postgres/sql.ts';
import { assertKeyFits, readStoredInventory } from '../../postgres/verify.ts';
import type { Work } from '../../postgres/work.ts';
import type { Host, Scope } from './entity.ts';

/** The statistics hold no table smaller than this, so that each is only counted. */
const COUNT_ALL = -2;

export interface DiffInput {
  readonly snapshot_id: string;
  readonly other_snapshot_id?: string | undefined;
  readonly database?: string | undefined;
}

/** One side of a comparison. */
interface Side {
  readonly inventory: Inventory;
  readonly at: string;
  readonly pgDump: string;
  readonly algorithm: string;
  readonly described: JsonObject;
}

/** Compares a backup with the live database, or with another backup, by its stored inventory: nothing is restored. */
export class Differ {
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  async #backup(id: string): Promise<Backup<LogicalManifest>> {
    return assertLogical(await this.#host.repository().get(id));
  }

  async #database(input: DiffInput): Promise<string> {
    return input.database === undefined ? (await this.#host.connection()).database : checkDatabaseName(input.database);
  }

  /** What a comparison would read. */
  async plan(scope: Scope, input: DiffInput): Promise<PlanDraft> {
    const { manifest } = await this.#backup(input.snapshot_id);
    const shared = { loses: 'nothing', undo: 'not needed', target: this.#host.entity.key };
    const source = { snapshot_id: manifest.id };
    if (input.other_snapshot_id !== undefined) {
      assertOneSide(input);
      const other = await this.#backup(input.other_snapshot_id);
      return { ...shared, facts: { target: { snapshot_id: other.manifest.id }, source } };
    }
    const connection = { ...(await this.#host.connection()), database: await this.#database(input) };
    const server = await withSession(connection, scope.signal, (session) => readServer(session));
    const growth = server.database_size_bytes / Math.max(1, manifest.server.database_size_bytes);
    return {
      ...shared,
      blast_radius: { reads_bytes: server.database_size_bytes, of_database: cleanText(connection.database, 70) },
      duration_estimate: Math.max(1, Math.round((manifest.duration_ms * growth) / 1000)),
      warnings: ['Every row of the live database is read once, about as long as a dump takes.'],
      facts: { target: { database: connection.database, system_identifier: server.system_identifier }, source },
    };
  }

  async diff(scope: Scope, input: DiffInput): Promise<JsonObject> {
    const began = performance.now();
    const work = await this.#host.work(scope);
    const backup = await this.#stored(work, input.snapshot_id);
    const other =
      input.other_snapshot_id === undefined
        ? await this.#live(work, await this.#database(input), backup.inventory.server_major)
        : await this.#stored(work, input.other_snapshot_id);
    const sameMajor = backup.inventory.server_major === other.inventory.server_major;
    const content = sameMajor && backup.algorithm === other.algorithm;
    const text = sameMajor && majorOf(backup.pgDump) === majorOf(other.pgDump);
    const { tables, omitted, ...found } = diffInventories(backup.inventory, other.inventory, { content, text });
    const notes: string[] = [];
    if (!sameMajor) {
      notes.push(
        `Rows were counted, not compared: hashes of PostgreSQL ${backup.inventory.server_major} and ${other.inventory.server_major} are not the same.`,
      );
    } else if (!content) notes.push('Rows were counted, not compared: the backup has fingerprints of another kind.');
    else if (tables.same_count > 0) {
      notes.push(
        `${tables.same_count} tables have as many rows; their content was not compared, being larger than fingerprint_max_rows.`,
      );
    }
    if (!text) {
      notes.push(
        'The schema is compared by its objects, without their definitions and grants: pg_dump has another version.',
      );
    }
    if (omitted > 0) notes.push(`${omitted} more differences are counted and not shown.`);
    notes.push('Foreign tables, materialised views and data of unlogged tables on a standby are not compared.');
    const rows = other.inventory.tables.reduce((sum, table) => sum + BigInt(table.rows), 0n);
    return {
      backup: backup.described,
      other: other.described,
      tables,
      ...(found as unknown as JsonObject),
      notes,
      cost: {
        duration_seconds: Math.round((performance.now() - began) / 100) / 10,
        ...(input.other_snapshot_id === undefined
          ? { tables_read: other.inventory.tables.length, rows_read: Number(rows) }
          : {}),
      },
    };
  }

  async #stored(work: Work, id: string): Promise<Side> {
    const { manifest, damage } = await this.#backup(id);
    await assertKeyFits(work, manifest);
    return {
      inventory: await readStoredInventory(work, manifest),
      at: manifest.snapshot_at,
      pgDump: manifest.tools.pg_dump,
      algorithm: manifest.inventory.fingerprint_algorithm,
      described: {
        snapshot_id: manifest.id,
        database: cleanText(manifest.server.database, 70),
        at: manifest.snapshot_at,
        ...(damage === undefined ? {} : { damage }),
      },
    };
  }

  async #live(work: Work, database: string, backupMajor: number): Promise<Side> {
    const connection = { ...work.connection, database };
    const { bin_dir } = this.#host.entity;
    const server = await withSession(connection, work.signal, async (session) => {
      const facts = await readServer(session);
      await assertReadsEverything(session, facts);
      return facts;
    });
    const binaries = chooseBinaries(await findBinaries(bin_dir), server.major, bin_dir);
    const at = this.#host.runtime.now().toISOString();
    // Hashes that cannot be compared are not worth reading for.
    const maxRows = server.major === backupMajor ? work.maxRows : COUNT_ALL;
    return {
      inventory: await inventoryOf({ ...work, connection, maxRows }, database, binaries, false),
      at,
      pgDump: binaries.version,
      algorithm: FINGERPRINT_ALGORITHM,
      described: { database: cleanText(database, 70), at, live: true },
    };
  }
}

function majorOf(version: string): number {
  return Number.parseInt(version, 10);
}

function assertOneSide({ database }: DiffInput): void {
  if (database === undefined) return;
  throw new HoldfastError('INVALID_PARAMETER', 'give other_snapshot_id or database, not both');
}
