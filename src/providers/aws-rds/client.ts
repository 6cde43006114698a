import type {
  AccountQuota,
  CopyDBClusterSnapshotCommandInput,
  CopyDBSnapshotCommandInput,
  CreateDBInstanceCommandInput,
  DBInstance,
  Event,
  ModifyDBClusterCommandInput,
  ModifyDBInstanceCommandInput,
  RDSClient,
  RestoreDBClusterFromSnapshotCommandInput,
  RestoreDBClusterToPointInTimeCommandInput,
  RestoreDBInstanceFromDBSnapshotCommandInput,
  RestoreDBInstanceToPointInTimeCommandInput,
  Tag,
} from '@aws-sdk/client-rds';
import { HoldfastError } from '../../core/errors.ts';
import type { Runtime } from '../../core/runtime.ts';
import { type AwsCredentialFields, awsClientConfig } from '../aws.ts';
import {
  type AutomatedBackup,
  type Database,
  fromAutomatedBackup,
  fromCluster,
  fromClusterSnapshot,
  fromInstance,
  fromSnapshot,
  type Kind,
  type Snapshot,
  TITLE,
  toRdsError,
} from './map.ts';

export type SnapshotType = 'manual' | 'automated' | 'awsbackup';

/** Typed calls of Amazon RDS for one entity. What comes from a caller is checked before it is handed in. */
export interface RdsClient {
  readonly kind: Kind;
  /** The instance or cluster that the entity is. */
  readonly id: string;
  readonly region: string;
  /**
   * Reads the entity's database.
   * @throws {HoldfastError} RESOURCE_NOT_FOUND; NOT_SUPPORTED for an instance that belongs to a cluster
   */
  own(signal: AbortSignal): Promise<Database>;
  /** Reads a database; undefined where RDS says that there is none. */
  find(kind: Kind, id: string, signal: AbortSignal): Promise<Database | undefined>;
  /** Reads an instance in the words of RDS, members of clusters too; undefined where there is none. */
  instance(id: string, signal: AbortSignal): Promise<DBInstance | undefined>;
  /** All snapshots of one type, or manual and automated ones, of the entity's database; unsorted. */
  snapshots(type: SnapshotType | undefined, signal: AbortSignal): Promise<Snapshot[]>;
  /** @throws {HoldfastError} SNAPSHOT_NOT_FOUND */
  snapshot(id: string, signal: AbortSignal, region?: string): Promise<Snapshot>;
  /** Accounts that a manual snapshot is shared with; `all` is everybody. */
  sharedWith(id: string, signal: AbortSignal): Promise<string[]>;
  automatedBackups(signal: AbortSignal): Promise<AutomatedBackup[]>;
  quotas(signal: AbortSignal): Promise<AccountQuota[]>;
  /** What happened to a database in the last two weeks, newest last. */
  events(kind: Kind, id: string, signal: AbortSignal): Promise<Event[]>;
  createSnapshot(id: string, tags: Tag[], signal: AbortSignal): Promise<Snapshot>;
  deleteSnapshot(id: string, signal: AbortSignal): Promise<Snapshot>;
  copySnapshot(copy: SnapshotCopy, signal: AbortSignal): Promise<Snapshot>;
  restore(order: RestoreOrder, signal: AbortSignal): Promise<Database>;
  createMember(input: CreateDBInstanceCommandInput, signal: AbortSignal): Promise<Database>;
  /** Sends one change of the entity's database; what it leaves out stays as it is. */
  modify(change: BackupSettings, signal: AbortSignal): Promise<void>;
  /** Every instance and cluster of the account in the region, members of clusters among them. */
  databases(kind: Kind, signal: AbortSignal): Promise<Database[]>;
  close(): void;
}

/** The backup settings that instances and clusters both take. */
export type BackupSettings = Pick<
  ModifyDBInstanceCommandInput & ModifyDBClusterCommandInput,
  | 'ApplyImmediately'
  | 'BackupRetentionPeriod'
  | 'CopyTagsToSnapshot'
  | 'DeletionProtection'
  | 'PreferredBackupWindow'
  | 'PreferredMaintenanceWindow'
>;

export interface SnapshotCopy {
  /** An id, or an ARN for another region. */
  readonly source: string;
  readonly target: string;
  /** Where the copy goes. */
  readonly region: string;
  readonly kmsKeyId: string | undefined;
  readonly tags: Tag[];
}

/** One restore as RDS takes it. */
export type RestoreOrder =
  | { readonly call: 'RestoreDBInstanceFromDBSnapshot'; readonly input: RestoreDBInstanceFromDBSnapshotCommandInput }
  | { readonly call: 'RestoreDBInstanceToPointInTime'; readonly input: RestoreDBInstanceToPointInTimeCommandInput }
  | { readonly call: 'RestoreDBClusterFromSnapshot'; readonly input: RestoreDBClusterFromSnapshotCommandInput }
  | { readonly call: 'RestoreDBClusterToPointInTime'; readonly input: RestoreDBClusterToPointInTimeCommandInput };

const PAGES = 50;
const isRead = (operation: string): boolean => /^(Describe|List)[A-Z]/.test(operation);

/** Gathers every page: RDS sorts nothing by time, so the newest may be on the last one. */
async function gather<T>(
  page: (marker: string | undefined) => Promise<{ items: T[] | undefined; marker: string | undefined }>,
): Promise<T[]> {
  const all: T[] = [];
  let marker: string | undefined;
  for (let turn = 0; turn < PAGES; turn += 1) {
    const next = await page(marker);
    // An empty list is there all the same; an answer without one says nothing.
    if (next.items === undefined) throw new HoldfastError('PROVIDER_UNAVAILABLE', `${TITLE} answered without its list`);
    all.push(...next.items);
    if (!next.marker) return all;
    marker = next.marker;
  }
  throw new HoldfastError('PROVIDER_UNAVAILABLE', `${TITLE} gives no end of a list`, {
    hint: 'Narrow the list, by type for example.',
  });
}

export interface RdsClientOptions {
  readonly kind: Kind;
  readonly id: string;
  /** Where the database is, and with whose credentials it is reached. */
  readonly access: AwsCredentialFields & { readonly region: string; readonly endpoint?: string | undefined };
  readonly runtime: Runtime;
}

/** Builds the client of one entity; loads the SDK and sends nothing. */
export async function createRdsClient({ kind, id, access, runtime }: RdsClientOptions): Promise<RdsClient> {
  const sdk = await import('@aws-sdk/client-rds');
  const clients = new Map<string, RDSClient>();
  const at = (region = access.region): RDSClient => {
    const known = clients.get(region);
    if (known !== undefined) return known;
    const config = awsClientConfig({ ...access, region }, runtime, {
      title: TITLE,
      isRead,
      isAnswer: (operation, text) => text.includes(`<${operation}Response`) && text.includes(`</${operation}Response>`),
    });
    const made = new sdk.RDSClient(config);
    clients.set(region, made);
    return made;
  };
  at();

  const call = async <T>(operation: string, send: () => Promise<T>): Promise<T> => {
    try {
      return await send();
    } catch (cause) {
      throw toRdsError(cause, operation, !isRead(operation));
    }
  };
  // An answer without what it is about proves nothing: a write may have been done.
  const given = <T>(value: T | undefined, operation: string): T => {
    if (value !== undefined) return value;
    throw new HoldfastError('PROVIDER_UNAVAILABLE', `${TITLE} answered ${operation} without its result`, {
      details: { outcome: isRead(operation) ? 'not_sent' : 'unknown' },
    });
  };

  const instance = async (name: string, signal: AbortSignal): Promise<DBInstance | undefined> => {
    try {
      const answer = await call('DescribeDBInstances', () =>
        at().send(new sdk.DescribeDBInstancesCommand({ DBInstanceIdentifier: name }), { abortSignal: signal }),
      );
      return given(answer.DBInstances?.[0], 'DescribeDBInstances');
    } catch (cause) {
      if (isMissing(cause, 'DBInstanceNotFound')) return undefined;
      throw cause;
    }
  };
  const find = async (of: Kind, name: string, signal: AbortSignal): Promise<Database | undefined> => {
    if (of === 'instance') {
      const found = await instance(name, signal);
      return found === undefined ? undefined : fromInstance(found);
    }
    try {
      const answer = await call('DescribeDBClusters', () =>
        at().send(new sdk.DescribeDBClustersCommand({ DBClusterIdentifier: name }), { abortSignal: signal }),
      );
      return fromCluster(given(answer.DBClusters?.[0], 'DescribeDBClusters'));
    } catch (cause) {
      if (isMissing(cause, 'DBClusterNotFound')) return undefined;
      throw cause;
    }
  };

  return {
    kind,
    id,
    region: access.region,
    find,
    instance,

    async own(signal) {
      const found = await find(kind, id, signal);
      if (found === undefined) {
        throw new HoldfastError('RESOURCE_NOT_FOUND', `the DB ${kind} ${id} does not exist in ${access.region}`, {
          hint: 'Check the identifier, the region and the account of the credentials. Its snapshots can still be listed and restored.',
        });
      }
      return notAMember(found);
    },

    async snapshots(type, signal) {
      const filter = {
        ...(type === undefined ? {} : { SnapshotType: type }),
        MaxRecords: 100,
      };
      if (kind === 'instance') {
        const found = await gather(async (marker) => {
          const answer = await call('DescribeDBSnapshots', () =>
            at().send(
              new sdk.DescribeDBSnapshotsCommand({
                DBInstanceIdentifier: id,
                ...filter,
                ...(marker === undefined ? {} : { Marker: marker }),
              }),
              { abortSignal: signal },
            ),
          );
          return { items: answer.DBSnapshots, marker: answer.Marker };
        });
        return found.map(fromSnapshot);
      }
      const found = await gather(async (marker) => {
        const answer = await call('DescribeDBClusterSnapshots', () =>
          at().send(
            new sdk.DescribeDBClusterSnapshotsCommand({
              DBClusterIdentifier: id,
              ...filter,
              ...(marker === undefined ? {} : { Marker: marker }),
            }),
            { abortSignal: signal },
          ),
        );
        return { items: answer.DBClusterSnapshots, marker: answer.Marker };
      });
      return found.map(fromClusterSnapshot);
    },

    async snapshot(name, signal, region) {
      if (kind === 'instance') {
        const answer = await call('DescribeDBSnapshots', () =>
          at(region).send(
            new sdk.DescribeDBSnapshotsCommand({
              DBSnapshotIdentifier: name,
              // Those that others share are found by their ARN, and only when asked for.
              ...(name.startsWith('arn:') ? { IncludeShared: true } : {}),
            }),
            { abortSignal: signal },
          ),
        );
        return fromSnapshot(found(answer.DBSnapshots?.[0]));
      }
      const answer = await call('DescribeDBClusterSnapshots', () =>
        at(region).send(
          new sdk.DescribeDBClusterSnapshotsCommand({
            DBClusterSnapshotIdentifier: name,
            ...(name.startsWith('arn:') ? { IncludeShared: true } : {}),
          }),
          { abortSignal: signal },
        ),
      );
      return fromClusterSnapshot(found(answer.DBClusterSnapshots?.[0]));
    },

    async sharedWith(name, signal) {
      if (kind === 'instance') {
        const answer = await call('DescribeDBSnapshotAttributes', () =>
          at().send(new sdk.DescribeDBSnapshotAttributesCommand({ DBSnapshotIdentifier: name }), {
            abortSignal: signal,
          }),
        );
        const result = given(answer.DBSnapshotAttributesResult, 'DescribeDBSnapshotAttributes');
        return accounts(result.DBSnapshotAttributes);
      }
      const answer = await call('DescribeDBClusterSnapshotAttributes', () =>
        at().send(new sdk.DescribeDBClusterSnapshotAttributesCommand({ DBClusterSnapshotIdentifier: name }), {
          abortSignal: signal,
        }),
      );
      const result = given(answer.DBClusterSnapshotAttributesResult, 'DescribeDBClusterSnapshotAttributes');
      return accounts(result.DBClusterSnapshotAttributes);
    },

    async automatedBackups(signal) {
      if (kind === 'cluster') {
        const found = await missingIsNone(() =>
          gather(async (marker) => {
            const answer = await call('DescribeDBClusterAutomatedBackups', () =>
              at().send(
                new sdk.DescribeDBClusterAutomatedBackupsCommand({
                  DBClusterIdentifier: id,
                  ...(marker === undefined ? {} : { Marker: marker }),
                }),
                { abortSignal: signal },
              ),
            );
            return { items: answer.DBClusterAutomatedBackups, marker: answer.Marker };
          }),
        );
        return found.map(({ DBClusterArn, DbClusterResourceId, ...rest }) =>
          fromAutomatedBackup({
            ...(DBClusterArn === undefined ? {} : { DBInstanceArn: DBClusterArn }),
            ...(DbClusterResourceId === undefined ? {} : { DbiResourceId: DbClusterResourceId }),
            Status: rest.Status,
            Engine: rest.Engine,
            EngineVersion: rest.EngineVersion,
            RestoreWindow: rest.RestoreWindow,
          }),
        );
      }
      const found = await missingIsNone(() =>
        gather(async (marker) => {
          const answer = await call('DescribeDBInstanceAutomatedBackups', () =>
            at().send(
              new sdk.DescribeDBInstanceAutomatedBackupsCommand({
                DBInstanceIdentifier: id,
                ...(marker === undefined ? {} : { Marker: marker }),
              }),
              { abortSignal: signal },
            ),
          );
          return { items: answer.DBInstanceAutomatedBackups, marker: answer.Marker };
        }),
      );
      return found.map(fromAutomatedBackup);
    },

    async quotas(signal) {
      const answer = await call('DescribeAccountAttributes', () =>
        at().send(new sdk.DescribeAccountAttributesCommand({}), { abortSignal: signal }),
      );
      return answer.AccountQuotas ?? [];
    },

    async events(of, name, signal) {
      const answer = await call('DescribeEvents', () =>
        at().send(
          new sdk.DescribeEventsCommand({
            SourceType: of === 'instance' ? 'db-instance' : 'db-cluster',
            SourceIdentifier: name,
            // Minutes; RDS keeps events for two weeks.
            Duration: 14 * 24 * 60,
          }),
          { abortSignal: signal },
        ),
      );
      return answer.Events ?? [];
    },

    async createSnapshot(name, tags, signal) {
      if (kind === 'instance') {
        const answer = await call('CreateDBSnapshot', () =>
          at().send(
            new sdk.CreateDBSnapshotCommand({ DBInstanceIdentifier: id, DBSnapshotIdentifier: name, Tags: tags }),
            { abortSignal: signal },
          ),
        );
        return fromSnapshot(given(answer.DBSnapshot, 'CreateDBSnapshot'));
      }
      const answer = await call('CreateDBClusterSnapshot', () =>
        at().send(
          new sdk.CreateDBClusterSnapshotCommand({
            DBClusterIdentifier: id,
            DBClusterSnapshotIdentifier: name,
            Tags: tags,
          }),
          { abortSignal: signal },
        ),
      );
      return fromClusterSnapshot(given(answer.DBClusterSnapshot, 'CreateDBClusterSnapshot'));
    },

    async deleteSnapshot(name, signal) {
      if (kind === 'instance') {
        const answer = await call('DeleteDBSnapshot', () =>
          at().send(new sdk.DeleteDBSnapshotCommand({ DBSnapshotIdentifier: name }), { abortSignal: signal }),
        );
        return fromSnapshot(given(answer.DBSnapshot, 'DeleteDBSnapshot'));
      }
      const answer = await call('DeleteDBClusterSnapshot', () =>
        at().send(new sdk.DeleteDBClusterSnapshotCommand({ DBClusterSnapshotIdentifier: name }), {
          abortSignal: signal,
        }),
      );
      return fromClusterSnapshot(given(answer.DBClusterSnapshot, 'DeleteDBClusterSnapshot'));
    },

    async copySnapshot({ source, target, region, kmsKeyId, tags }, signal) {
      const key = kmsKeyId === undefined ? {} : { KmsKeyId: kmsKeyId };
      if (kind === 'instance') {
        const input: CopyDBSnapshotCommandInput = {
          SourceDBSnapshotIdentifier: source,
          TargetDBSnapshotIdentifier: target,
          Tags: tags,
          ...key,
        };
        const answer = await call('CopyDBSnapshot', () =>
          at(region).send(new sdk.CopyDBSnapshotCommand(input), { abortSignal: signal }),
        );
        return fromSnapshot(given(answer.DBSnapshot, 'CopyDBSnapshot'));
      }
      const input: CopyDBClusterSnapshotCommandInput = {
        SourceDBClusterSnapshotIdentifier: source,
        TargetDBClusterSnapshotIdentifier: target,
        Tags: tags,
        ...key,
      };
      const answer = await call('CopyDBClusterSnapshot', () =>
        at(region).send(new sdk.CopyDBClusterSnapshotCommand(input), { abortSignal: signal }),
      );
      return fromClusterSnapshot(given(answer.DBClusterSnapshot, 'CopyDBClusterSnapshot'));
    },

    restore(order, signal) {
      const options = { abortSignal: signal };
      return call(order.call, async () => {
        switch (order.call) {
          case 'RestoreDBInstanceFromDBSnapshot': {
            const { DBInstance } = await at().send(
              new sdk.RestoreDBInstanceFromDBSnapshotCommand(order.input),
              options,
            );
            return fromInstance(given(DBInstance, order.call));
          }
          case 'RestoreDBInstanceToPointInTime': {
            const { DBInstance } = await at().send(new sdk.RestoreDBInstanceToPointInTimeCommand(order.input), options);
            return fromInstance(given(DBInstance, order.call));
          }
          case 'RestoreDBClusterFromSnapshot': {
            const { DBCluster } = await at().send(new sdk.RestoreDBClusterFromSnapshotCommand(order.input), options);
            return fromCluster(given(DBCluster, order.call));
          }
          case 'RestoreDBClusterToPointInTime': {
            const { DBCluster } = await at().send(new sdk.RestoreDBClusterToPointInTimeCommand(order.input), options);
            return fromCluster(given(DBCluster, order.call));
          }
        }
      });
    },

    async createMember(input, signal) {
      const answer = await call('CreateDBInstance', () =>
        at().send(new sdk.CreateDBInstanceCommand(input), { abortSignal: signal }),
      );
      return fromInstance(given(answer.DBInstance, 'CreateDBInstance'));
    },

    async modify(change, signal) {
      const options = { abortSignal: signal };
      if (kind === 'instance') {
        const answer = await call('ModifyDBInstance', () =>
          at().send(new sdk.ModifyDBInstanceCommand({ DBInstanceIdentifier: id, ...change }), options),
        );
        given(answer.DBInstance, 'ModifyDBInstance');
        return;
      }
      const answer = await call('ModifyDBCluster', () =>
        at().send(new sdk.ModifyDBClusterCommand({ DBClusterIdentifier: id, ...change }), options),
      );
      given(answer.DBCluster, 'ModifyDBCluster');
    },

    async databases(of, signal) {
      const options = { abortSignal: signal };
      const from = (marker: string | undefined) => ({
        MaxRecords: 100,
        ...(marker === undefined ? {} : { Marker: marker }),
      });
      if (of === 'instance') {
        const all = await gather(async (marker) => {
          const answer = await call('DescribeDBInstances', () =>
            at().send(new sdk.DescribeDBInstancesCommand(from(marker)), options),
          );
          return { items: answer.DBInstances, marker: answer.Marker };
        });
        return all.map(fromInstance);
      }
      const all = await gather(async (marker) => {
        const answer = await call('DescribeDBClusters', () =>
          at().send(new sdk.DescribeDBClustersCommand(from(marker)), options),
        );
        return { items: answer.DBClusters, marker: answer.Marker };
      });
      return all.map(fromCluster);
    },

    close() {
      for (const client of clients.values()) client.destroy();
    },
  };
}

/** A member has no snapshots and no restores of its own: those of its cluster must not be taken for it. */
function notAMember(database: Database): Database {
  const cluster = database.instance?.DBClusterIdentifier;
  if (cluster === undefined || cluster === '') return database;
  throw new HoldfastError('NOT_SUPPORTED', `the instance ${database.id} is a member of the cluster ${cluster}`, {
    hint: `Backups and restores are those of the cluster. Configure an entity of aws-rds/rds-cluster with db_cluster_identifier: ${cluster}.`,
    details: { db_cluster_identifier: cluster },
  });
}

function found<T>(snapshot: T | undefined): T {
  if (snapshot !== undefined) return snapshot;
  throw new HoldfastError('SNAPSHOT_NOT_FOUND', 'there is no such snapshot in this account and region');
}

function accounts(
  attributes: { AttributeName?: string | undefined; AttributeValues?: string[] | undefined }[] | undefined,
): string[] {
  return attributes?.find(({ AttributeName }) => AttributeName === 'restore')?.AttributeValues ?? [];
}

/** Tells whether RDS itself said that something does not exist; a proxy's 404 proves nothing. */
function isMissing(cause: unknown, code: string): boolean {
  return cause instanceof HoldfastError && cause.provider?.status === 404 && cause.provider.code === code;
}

async function missingIsNone<T>(read: () => Promise<T[]>): Promise<T[]> {
  try {
    return await read();
  } catch (cause) {
    if (cause instanceof HoldfastError && ['BACKUP_NOT_FOUND', 'RESOURCE_NOT_FOUND'].includes(cause.code)) return [];
    throw cause;
  }
}
