import type { BackupDescription, StreamSpecification, TableDescription } from '@aws-sdk/client-dynamodb';
import { HoldfastError } from '../../core/errors.ts';
import type { JsonObject } from '../../core/json.ts';
import type { Step, StepContext } from '../../core/operation.ts';
import { cleanText } from '../../core/text.ts';
import { lookThrice, recoverySignal } from '../follow.ts';
import type { DynamoDbClient } from './client.ts';
import type { DynamoDbEntity } from './provider.ts';

/** The settings that a restored table comes without and that this API can put on it. */
export const SETTINGS = ['point_in_time_recovery', 'deletion_protection', 'tags', 'ttl', 'stream'] as const;
export type Setting = (typeof SETTINGS)[number];

/** What of the source a restore leaves behind; `unknown` where it could not be read. */
export interface LostSettings {
  /** Days; null for off. */
  readonly point_in_time_recovery: number | null | 'unknown';
  readonly deletion_protection: boolean | 'unknown';
  readonly tags: Readonly<Record<string, string>> | 'unknown';
  /** The attribute; null for off. */
  readonly ttl: string | null | 'unknown';
  /** The view type; null for off. */
  readonly stream: string | null | 'unknown';
  readonly resource_policy: boolean | 'unknown';
  readonly kinesis_streams: readonly string[] | 'unknown';
  readonly contributor_insights: boolean | 'unknown';
  readonly replicas: readonly string[] | 'unknown';
}

// A caller that may restore and not look at everything still gets a plan; it says what is not known.
async function tolerate<T>(read: () => Promise<T>): Promise<T | 'unknown'> {
  try {
    return await read();
  } catch (cause) {
    if (
      cause instanceof HoldfastError &&
      ['INSUFFICIENT_PERMISSIONS', 'RESOURCE_NOT_FOUND', 'INVALID_PARAMETER', 'NOT_SUPPORTED'].includes(cause.code)
    ) {
      return 'unknown';
    }
    throw cause;
  }
}

/** Reads what a restore would leave behind on a table that exists. */
export async function settingsOf(
  client: DynamoDbClient,
  table: TableDescription,
  days: number | undefined | 'unknown',
  signal: AbortSignal,
): Promise<LostSettings> {
  const name = client.table;
  const arn = String(table.TableArn);
  const [tags, ttl, policy, streams, insights] = await Promise.all([
    tolerate(() => client.tags(arn, signal)),
    tolerate(() => client.timeToLive(name, signal)),
    tolerate(() => client.hasPolicy(arn, signal)),
    tolerate(() => client.kinesisStreams(name, signal)),
    tolerate(() => client.hasInsights(name, signal)),
  ]);
  return {
    point_in_time_recovery: days === undefined ? null : days,
    deletion_protection: table.DeletionProtectionEnabled === true,
    tags,
    ttl: ttl === 'unknown' ? ttl : attributeOf(ttl),
    stream: viewOf(table.StreamSpecification),
    resource_policy: policy,
    kinesis_streams: streams,
    contributor_insights: insights,
    replicas: (table.Replicas ?? []).map(({ RegionName }) => cleanText(RegionName, 40)).sort(),
  };
}

/** Gives what a backup of a table that is gone recorded of its settings, and for the rest what the entity declares. */
export function settingsOfBackup(entity: DynamoDbEntity, backup: BackupDescription): LostSettings {
  const features = backup.SourceTableFeatureDetails;
  const pitr = entity.point_in_time_recovery_enabled;
  return {
    point_in_time_recovery: pitr === undefined ? 'unknown' : pitr ? (entity.recovery_period_in_days ?? 35) : null,
    deletion_protection: entity.deletion_protection_enabled ?? 'unknown',
    tags: entity.tags ?? 'unknown',
    ttl: features === undefined ? 'unknown' : attributeOf(features.TimeToLiveDescription ?? {}),
    stream: features === undefined ? 'unknown' : viewOf(features.StreamDescription),
    resource_policy: 'unknown',
    kinesis_streams: 'unknown',
    contributor_insights: 'unknown',
    replicas: 'unknown',
  };
}

function viewOf(stream: StreamSpecification | undefined): string | null {
  return stream?.StreamEnabled === true && stream.StreamViewType !== undefined ? stream.StreamViewType : null;
}

function attributeOf(ttl: {
  TimeToLiveStatus?: string | undefined;
  AttributeName?: string | undefined;
}): string | null {
  return ['ENABLED', 'ENABLING'].includes(ttl.TimeToLiveStatus ?? '') && ttl.AttributeName ? ttl.AttributeName : null;
}

/** Shows the settings as data: names that others wrote are cleaned, tag values stay with the provider. */
export function showSettings(settings: LostSettings): JsonObject {
  const clean = (value: string | null): string | null => (value === null ? null : cleanText(value, 255));
  return {
    ...settings,
    ttl: clean(settings.ttl),
    stream: clean(settings.stream),
    tags: settings.tags === 'unknown' ? 'unknown' : Object.keys(settings.tags).map((key) => cleanText(key, 128)),
    kinesis_streams:
      settings.kinesis_streams === 'unknown' ? 'unknown' : settings.kinesis_streams.map((arn) => cleanText(arn)),
    replicas: settings.replicas === 'unknown' ? 'unknown' : [...settings.replicas],
  };
}

/** One setting to put on the new table: days, a view type, an attribute, tags, or true. */
export type Wanted = { setting: Setting; value: string | number | boolean | Record<string, string> };

/**
 * Gives what has to be put on the new table for the settings that the caller asks for; what the source has off needs
 * nothing.
 * @throws {HoldfastError} INVALID_PARAMETER for a setting whose value is not known
 */
export function wantedSettings(asked: readonly Setting[], settings: LostSettings): Wanted[] {
  return SETTINGS.filter((setting) => asked.includes(setting)).flatMap((setting): Wanted[] => {
    const value = settings[setting];
    if (value === 'unknown') {
      throw new HoldfastError('INVALID_PARAMETER', `reapply: the source's ${setting} is not known`, {
        hint: 'The table is gone, or the credentials may not read it. Declare it in the entities file, or leave it out and set it by hand.',
      });
    }
    if (value === null || value === false) return [];
    if (typeof value !== 'object') return [{ setting, value }];
    // Names beginning with aws: are the service's own.
    const tags = Object.fromEntries(Object.entries(value).filter(([key]) => !key.startsWith('aws:')));
    return Object.keys(tags).length === 0 ? [] : [{ setting, value: tags }];
  });
}

type In = StepContext<DynamoDbClient, DynamoDbEntity, unknown>;

async function isSet({ client }: In, target: string, wanted: Wanted, signal: AbortSignal): Promise<boolean> {
  const { value } = wanted;
  switch (wanted.setting) {
    case 'point_in_time_recovery': {
      const { PointInTimeRecoveryDescription: pitr } = await client.continuousBackups(target, signal);
      return pitr?.PointInTimeRecoveryStatus === 'ENABLED' && pitr.RecoveryPeriodInDays === value;
    }
    case 'deletion_protection':
      return (await client.describeTable(target, signal)).DeletionProtectionEnabled === true;
    case 'stream':
      return (await client.describeTable(target, signal)).StreamSpecification?.StreamViewType === value;
    case 'ttl':
      return attributeOf(await client.timeToLive(target, signal)) === value;
    case 'tags': {
      const arn = String((await client.describeTable(target, signal)).TableArn);
      const tags = await client.tags(arn, signal);
      return Object.entries(value as Record<string, string>).every(([key, text]) => tags[key] === text);
    }
  }
}

async function set({ client, signal }: In, target: string, { setting, value }: Wanted): Promise<void> {
  switch (setting) {
    case 'point_in_time_recovery':
      return client.setPointInTimeRecovery(target, Number(value), signal);
    case 'deletion_protection':
      return client.setDeletionProtection(target, true, signal);
    case 'stream':
      return client.setStream(target, String(value), signal);
    case 'ttl':
      return client.setTimeToLive(target, String(value), signal);
    case 'tags': {
      const arn = String((await client.describeTable(target, signal)).TableArn);
      return client.setTags(arn, value as Record<string, string>, signal);
    }
  }
}

const TRIES = 30;

/**
 * Puts one setting on the new table. The table is there and can be used: a setting that is refused is told in the
 * result and ends nothing.
 */
export function settingStep(target: string, wanted: Wanted): Step<DynamoDbClient, DynamoDbEntity, unknown> {
  const { setting } = wanted;
  return {
    name: `set-${setting.replaceAll('_', '-')}`,
    title: `Setting ${setting} of the new table`,
    kind: 'mutate',
    async run(context) {
      const { runtime, signal } = context;
      await context.checkpoint({ setting });
      for (let turn = 1; ; turn += 1) {
        try {
          if (!(await isSet(context, target, wanted, signal))) await set(context, target, wanted);
          return { setting, applied: true };
        } catch (cause) {
          if (!(cause instanceof HoldfastError) || cause.code === 'CANCELLED' || cause.code === 'INTERNAL') throw cause;
          if (cause.details?.['outcome'] === 'unknown') {
            const seen = await lookThrice(context, async () =>
              (await isSet(context, target, wanted, recoverySignal(signal))) ? true : undefined,
            );
            if (seen === true) return { setting, applied: true };
          }
          // A table that has just been made, or changed, refuses the next change for a while: nothing was done then.
          const busy = ['INVALID_STATE', 'RATE_LIMITED'].includes(cause.code);
          if (!busy || turn >= TRIES) return { setting, applied: false, code: cause.code };
          await runtime.sleep(Math.min(2000 * turn, 20_000), signal);
        }
      }
    },
    async recover(context) {
      const done = await isSet(context, target, wanted, recoverySignal(context.signal));
      return done ? { state: 'done', result: { setting, applied: true } } : { state: 'not_begun' };
    },
  };
}
