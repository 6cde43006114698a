import type { Discovered, Discovery, DiscoveryContext } from '../../core/provider.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration } from '../../core/time.ts';
import { entityName } from '../discovery.ts';
import { lookThroughProject } from '../google-discovery.ts';
import { createBigQueryClient } from './client.ts';
import { count, type Dataset, timeTravelHours } from './map.ts';
import { BIGQUERY_ORIGIN, BIGQUERY_SCOPE } from './provider.ts';

/** More datasets of one project are hardly meant to be declared one by one. */
const MOST = 500;
const AT_ONCE = 8;

/** Looks through the datasets of a project; undefined without credentials. */
export function discover(context: DiscoveryContext): Promise<Discovery | undefined> {
  const { signal } = context;
  const api = { origin: BIGQUERY_ORIGIN, scope: BIGQUERY_SCOPE };
  return lookThroughProject(context, api, async (access, attempt, problems) => {
    const client = await createBigQueryClient({ ...access, dataset: '' });
    const ids: string[] = [];
    await attempt(async () => {
      let token: string | undefined;
      do {
        const { items, next } = await client.listDatasets(token, signal);
        ids.push(...items);
        token = next;
      } while (token !== undefined && ids.length <= MOST);
    }, 'not all datasets are shown');
    if (ids.length > MOST) problems.push(`there are more than ${MOST} datasets; the rest was left out`);
    const waiting = ids.slice(0, MOST);
    const found = new Map<string, Discovered>();
    const work = async (): Promise<void> => {
      for (let id = waiting.shift(); id !== undefined; id = waiting.shift()) {
        const own = id;
        const dataset = await attempt(
          () => client.getDataset(own, signal),
          `dataset ${cleanText(own, 100)} is not shown`,
        );
        if (dataset !== undefined) found.set(own, toFound(own, dataset, access.project));
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    return ids.flatMap((id) => found.get(id) ?? []);
  });
}

function toFound(id: string, dataset: Dataset, project: string): Discovered {
  const hours = timeTravelHours(dataset);
  const tables = count(dataset.defaultTableExpirationMs) ?? 0;
  const partitions = count(dataset.defaultPartitionExpirationMs) ?? 0;
  return {
    defines: 'gcp/big-query',
    name: entityName(id),
    parameters: {
      project,
      dataset: id,
      ...(dataset.location ? { location: cleanText(dataset.location, 60) } : {}),
      max_time_travel_hours: hours,
      default_table_expiration_ms: tables,
      default_partition_expiration_ms: partitions,
    },
    notes: [
      `Time travel reaches back ${hours} hours; BigQuery takes no snapshots by itself.`,
      ...(tables > 0 ? [`New tables and snapshots vanish after ${formatDuration(tables / 1000)}.`] : []),
      ...(partitions > 0 ? [`Partitions of new tables vanish after ${formatDuration(partitions / 1000)}.`] : []),
      ...(dataset.type && dataset.type !== 'DEFAULT'
        ? [`It is a dataset of type ${cleanText(dataset.type, 40)}: its tables may not be snapshottable.`]
        : []),
    ],
  };
}
