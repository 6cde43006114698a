import { HoldfastError } from '../../core/errors.ts';
import type { StepContext } from '../../core/operation.ts';
import type { SettingFinding, SettingsReading } from '../../core/settings.ts';
import { isStill } from '../findings.ts';
import type { BigQueryClient } from './client.ts';
import { count } from './map.ts';
import type { BigQueryEntity } from './provider.ts';
import { settingsFindings } from './settings.ts';
import type { Context } from './tables.ts';

/** Reads the declared settings of the dataset. */
export async function readSettings({ client, entity, signal }: Context): Promise<SettingsReading> {
  const [project, dataset] = await Promise.all([client.project(), client.getDataset(client.dataset, signal)]);
  return {
    target: `${project}.${client.dataset}`,
    identity: { project, dataset: client.dataset, created_ms: count(dataset.creationTime) ?? null },
    findings: settingsFindings(entity, dataset),
  };
}

/**
 * Sends the declared values in one request that holds only for the dataset as it was read.
 * @throws {HoldfastError} PLAN_CHANGED when somebody changed it in between
 */
export async function writeSettings(
  context: StepContext<BigQueryClient, BigQueryEntity, unknown>,
  _write: string,
  findings: readonly SettingFinding[],
): Promise<void> {
  const { client, entity, signal } = context;
  const dataset = await client.getDataset(client.dataset, signal);
  if (!isStill(findings, settingsFindings(entity, dataset)) || !dataset.etag) {
    throw new HoldfastError('PLAN_CHANGED', 'the settings changed after the plan was made; nothing was changed', {
      hint: 'Call again: a new plan shows what they are now.',
    });
  }
  const wanted = new Map(findings.map(({ setting, declared }) => [setting, String(declared)]));
  await client.updateDataset(
    {
      maxTimeTravelHours: wanted.get('max_time_travel_hours'),
      defaultTableExpirationMs: wanted.get('default_table_expiration_ms'),
      defaultPartitionExpirationMs: wanted.get('default_partition_expiration_ms'),
      description: wanted.get('dataset_description'),
    },
    dataset.etag,
    signal,
  );
}

/** Gives the etag of the dataset: it changes with every update. */
export async function settingsMark({ client, signal }: Context): Promise<string | undefined> {
  return (await client.getDataset(client.dataset, signal)).etag ?? undefined;
}
