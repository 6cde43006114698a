import type {
  CreateDBInstanceCommandInput,
  DBCluster,
  DBInstance,
  RestoreDBClusterFromSnapshotCommandInput,
  RestoreDBClusterToPointInTimeCommandInput,
  RestoreDBInstanceFromDBSnapshotCommandInput,
  RestoreDBInstanceToPointInTimeCommandInput,
  Tag,
} from '@aws-sdk/client-rds';
import type { JsonObject, JsonValue } from '../../core/json.ts';
import { cleanText } from '../../core/text.ts';

/** What a caller may set otherwise than the source has it. */
export interface Overrides {
  readonly instance_class?: string | undefined;
  readonly subnet_group?: string | undefined;
  readonly security_group_ids?: readonly string[] | undefined;
  readonly parameter_group?: string | undefined;
  readonly multi_az?: boolean | undefined;
  readonly publicly_accessible?: boolean | undefined;
  readonly deletion_protection?: boolean | undefined;
}

/** Members that both calls of a restore take, so that one set serves a snapshot and a moment. */
type Both<A, B> = { [K in keyof A & keyof B]?: A[K] & B[K] };
export type InstanceSettings = Both<
  RestoreDBInstanceFromDBSnapshotCommandInput,
  RestoreDBInstanceToPointInTimeCommandInput
>;
export type ClusterSettings = Both<RestoreDBClusterFromSnapshotCommandInput, RestoreDBClusterToPointInTimeCommandInput>;
export type MemberSettings = Omit<CreateDBInstanceCommandInput, 'DBInstanceIdentifier' | 'DBClusterIdentifier'>;

/** The settings that a restored database gets, and what it will be without. */
export interface Carried<T> {
  readonly settings: T;
  readonly notCarried: string[];
  readonly warnings: string[];
}

/** Whether a parameter group of one engine version fits another: its family goes by engine and major version. */
export function sameFamily(a: { engine: string; version: string }, b: { engine: string; version: string }): boolean {
  return a.engine === b.engine && majorOf(a.engine, a.version) === majorOf(b.engine, b.version);
}

function majorOf(engine: string, version: string): string {
  const parts = version.split('.');
  const one = /postgres|oracle|sqlserver|db2/.test(engine) && Number(parts[0]) >= 10;
  return parts.slice(0, one ? 1 : 2).join('.');
}

function defined<T extends object>(settings: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined)) as T;
}

const nonEmpty = <T>(list: T[] | undefined): T[] | undefined =>
  list !== undefined && list.length > 0 ? list : undefined;

/** The tags of a source that may be written again: `aws:` is reserved, `holdfast:` is of the one that made it. */
export function ownTags(tags: readonly Tag[] | undefined): Tag[] {
  return (tags ?? [])
    .filter(({ Key = '' }) => Key !== '' && !/^(aws|holdfast):/i.test(Key))
    .slice(0, 45)
    .map(({ Key, Value }) => ({ Key, Value: Value ?? '' }));
}

function groups(memberships: { VpcSecurityGroupId?: string | undefined }[] | undefined): string[] | undefined {
  return nonEmpty(
    (memberships ?? []).map(({ VpcSecurityGroupId }) => VpcSecurityGroupId).filter((id) => id !== undefined),
  );
}

/**
 * Takes over from the source what a restore would otherwise replace by defaults: network, parameter and option groups,
 * security groups, backups, deletion protection. Without a source, and without an override, RDS's defaults hold.
 */
export function instanceSettings(
  source: DBInstance | undefined,
  fits: boolean,
  wish: Overrides,
): Carried<InstanceSettings> {
  const parameterGroup = fits ? source?.DBParameterGroups?.[0]?.DBParameterGroupName : undefined;
  const optionGroup = source?.OptionGroupMemberships?.[0]?.OptionGroupName;
  // A gp3 volume with base figures takes none, and its type may not be given without them: it is the default.
  const provisioned = (source?.StorageType ?? '').startsWith('io') || (source?.Iops ?? 0) > 3000;
  const retention = source?.BackupRetentionPeriod ?? 0;
  const settings = defined<InstanceSettings>({
    DBInstanceClass: wish.instance_class ?? source?.DBInstanceClass,
    DBSubnetGroupName: wish.subnet_group ?? source?.DBSubnetGroup?.DBSubnetGroupName,
    VpcSecurityGroupIds: wish.security_group_ids ? [...wish.security_group_ids] : groups(source?.VpcSecurityGroups),
    DBParameterGroupName: wish.parameter_group ?? parameterGroup,
    OptionGroupName: fits && !optionGroup?.startsWith('default:') ? optionGroup : undefined,
    MultiAZ: wish.multi_az ?? source?.MultiAZ,
    // What is not known to be public is made private.
    PubliclyAccessible: wish.publicly_accessible ?? source?.PubliclyAccessible ?? false,
    // Without a source nobody has said that it may be deleted.
    DeletionProtection: wish.deletion_protection ?? source?.DeletionProtection ?? true,
    BackupRetentionPeriod: retention > 0 ? retention : undefined,
    PreferredBackupWindow: retention > 0 ? source?.PreferredBackupWindow : undefined,
    CopyTagsToSnapshot: source?.CopyTagsToSnapshot,
    EnableIAMDatabaseAuthentication: source?.IAMDatabaseAuthenticationEnabled,
    EnableCloudwatchLogsExports: nonEmpty(source?.EnabledCloudwatchLogsExports),
    AutoMinorVersionUpgrade: source?.AutoMinorVersionUpgrade,
    Port: source?.Endpoint?.Port,
    StorageType: source?.StorageType === 'gp3' && !provisioned ? undefined : source?.StorageType,
    Iops: provisioned ? source?.Iops : undefined,
    StorageThroughput: (source?.StorageThroughput ?? 0) > 125 ? source?.StorageThroughput : undefined,
    NetworkType: source?.NetworkType,
    CACertificateIdentifier: source?.CACertificateIdentifier,
    DedicatedLogVolume: source?.DedicatedLogVolume === true ? true : undefined,
    EnableCustomerOwnedIp: source?.CustomerOwnedIpEnabled === true ? true : undefined,
    ProcessorFeatures: wish.instance_class === undefined ? nonEmpty(source?.ProcessorFeatures) : undefined,
    EngineLifecycleSupport: source?.EngineLifecycleSupport,
    LicenseModel: source?.LicenseModel,
  });
  const notCarried = [
    ...commonlyLost(source),
    ...(source?.DomainMemberships?.length ? ['membership in a directory'] : []),
    ...(source?.ReadReplicaDBInstanceIdentifiers?.length ? ['read replicas'] : []),
    ...(source?.MasterUserSecret ? ["the master password's management by Secrets Manager"] : []),
  ];
  return { settings, notCarried, warnings: warningsFor(source !== undefined, fits, wish, settings, retention) };
}

/** The same for a cluster; members are instances of their own. */
export function clusterSettings(
  source: DBCluster | undefined,
  engine: string,
  fits: boolean,
  wish: Overrides,
): Carried<ClusterSettings> {
  const aurora = isAurora(engine);
  const multiAz = !aurora;
  const serverless = source?.ServerlessV2ScalingConfiguration;
  const retention = source?.BackupRetentionPeriod ?? 0;
  const option = source?.DBClusterOptionGroupMemberships?.[0]?.DBClusterOptionGroupName;
  const settings = defined<ClusterSettings>({
    DBClusterInstanceClass: multiAz ? (wish.instance_class ?? source?.DBClusterInstanceClass) : undefined,
    DBSubnetGroupName: wish.subnet_group ?? source?.DBSubnetGroup,
    VpcSecurityGroupIds: wish.security_group_ids ? [...wish.security_group_ids] : groups(source?.VpcSecurityGroups),
    DBClusterParameterGroupName: wish.parameter_group ?? (fits ? source?.DBClusterParameterGroup : undefined),
    OptionGroupName: fits && option !== undefined && !option.startsWith('default:') ? option : undefined,
    // Members of an Aurora cluster say it for themselves.
    PubliclyAccessible: multiAz ? (wish.publicly_accessible ?? source?.PubliclyAccessible ?? false) : undefined,
    DeletionProtection: wish.deletion_protection ?? source?.DeletionProtection ?? true,
    BackupRetentionPeriod: retention > 0 ? retention : undefined,
    PreferredBackupWindow: source?.PreferredBackupWindow,
    CopyTagsToSnapshot: source?.CopyTagsToSnapshot,
    EnableIAMDatabaseAuthentication: source?.IAMDatabaseAuthenticationEnabled,
    EnableCloudwatchLogsExports: nonEmpty(source?.EnabledCloudwatchLogsExports),
    Port: source?.Port,
    StorageType: aurora && source?.StorageType === 'aurora' ? undefined : source?.StorageType,
    Iops: multiAz && (source?.StorageType ?? '').startsWith('io') ? source?.Iops : undefined,
    BacktrackWindow: (source?.BacktrackWindow ?? 0) > 0 ? source?.BacktrackWindow : undefined,
    NetworkType: source?.NetworkType,
    ServerlessV2ScalingConfiguration: serverless,
    EngineLifecycleSupport: source?.EngineLifecycleSupport,
  });
  const notCarried = [
    ...commonlyLost(source),
    ...(source?.GlobalClusterIdentifier ? ['membership in the global database'] : []),
    ...(source?.ReadReplicaIdentifiers?.length ? ['read replicas'] : []),
    ...(source?.CustomEndpoints?.length ? ['custom endpoints'] : []),
    ...(source?.MasterUserSecret ? ["the master password's management by Secrets Manager"] : []),
    ...(source?.HttpEndpointEnabled ? ['the Data API'] : []),
  ];
  return { settings, notCarried, warnings: warningsFor(source !== undefined, fits, wish, settings, retention) };
}

/** Whether a cluster comes without instances: those of a Multi-AZ DB cluster are made by RDS, those of Aurora are not. */
export function isAurora(engine: string): boolean {
  return engine.startsWith('aurora');
}

/** What an Aurora member of the source says that its counterpart gets. */
export function memberSettings(
  source: DBInstance | undefined,
  engine: string,
  fits: boolean,
  wish: Overrides,
  tags: Tag[],
): MemberSettings | undefined {
  const instanceClass = wish.instance_class ?? source?.DBInstanceClass;
  if (instanceClass === undefined) return undefined;
  const insights = source?.PerformanceInsightsEnabled === true;
  return defined<MemberSettings>({
    DBInstanceClass: instanceClass,
    Engine: engine,
    DBParameterGroupName: fits ? source?.DBParameterGroups?.[0]?.DBParameterGroupName : undefined,
    PubliclyAccessible: wish.publicly_accessible ?? source?.PubliclyAccessible ?? false,
    AutoMinorVersionUpgrade: source?.AutoMinorVersionUpgrade,
    PromotionTier: source?.PromotionTier,
    CACertificateIdentifier: source?.CACertificateIdentifier,
    EnablePerformanceInsights: insights ? true : undefined,
    PerformanceInsightsKMSKeyId: insights ? source?.PerformanceInsightsKMSKeyId : undefined,
    PerformanceInsightsRetentionPeriod: insights ? source?.PerformanceInsightsRetentionPeriod : undefined,
    Tags: tags,
  } as MemberSettings);
}

function commonlyLost(source: DBInstance | DBCluster | undefined): string[] {
  return [
    'its host name: clients must be pointed to the new endpoint',
    ...(source?.PreferredMaintenanceWindow ? ['the maintenance window'] : []),
    ...(source?.AssociatedRoles?.length ? ['associated IAM roles'] : []),
    ...(source?.PerformanceInsightsEnabled ? ['Performance Insights'] : []),
    ...((source?.MonitoringInterval ?? 0) > 0 ? ['Enhanced Monitoring'] : []),
    'CloudWatch alarms',
  ];
}

function warningsFor(
  known: boolean,
  fits: boolean,
  wish: Overrides,
  settings: InstanceSettings | ClusterSettings,
  retention: number,
): string[] {
  return [
    ...(known
      ? []
      : [
          'The source is gone: its network, security groups and parameter group are not known; what is not given here gets the defaults of the account.',
        ]),
    ...(known && !fits && wish.parameter_group === undefined
      ? ['The source runs another engine version than this recovery point: the default parameter group is used.']
      : []),
    ...(settings.VpcSecurityGroupIds === undefined
      ? ['No security group is known: the default one of the VPC is used.']
      : []),
    ...(settings.PubliclyAccessible === true ? ['The new database can be reached from the internet.'] : []),
    ...(settings.DeletionProtection === false ? ['The new database has no deletion protection.'] : []),
    ...(known && retention === 0
      ? ['The source has automated backups off; the new database gets those of its snapshot, or none.']
      : []),
  ];
}

/** Shows settings row by row, as the plan has them: where they differ from the source's own, by an override, that is what is sent. */
export function shown(settings: object): JsonObject {
  return Object.fromEntries(
    Object.entries(settings)
      .filter(([name]) => name !== 'Tags')
      .map(([name, value]): [string, JsonValue] => [snake(name), plain(value)]),
  );
}

function plain(value: unknown): JsonValue {
  if (typeof value === 'number' || typeof value === 'boolean') return value;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === 'object' && value !== null) return shown(value);
  return cleanText(value, 300);
}

function snake(name: string): string {
  return name
    .replace(/^DB/, 'Db')
    .replace(/DB/g, 'Db')
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .replace(/([A-Z]+)([A-Z][a-z])/g, '$1_$2')
    .toLowerCase();
}
