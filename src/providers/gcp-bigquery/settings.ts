import type { SettingChange, SettingFinding } from '../../core/settings.ts';
import { cleanText } from '../../core/text.ts';
import { formatDuration } from '../../core/time.ts';
import { type Comparison, findingsOf } from '../findings.ts';
import { count, type Dataset, timeTravelHours } from './map.ts';
import type { BigQueryEntity } from './provider.ts';

const WRITE = 'update-dataset';

function change(risk: SettingChange['risk'], effect: string): Pick<SettingFinding, 'change'> {
  return { change: { risk, effect, write: WRITE } };
}

/** An expiration in milliseconds; 0 is never, as Google's own absence of it. */
function expiration(
  setting: string,
  what: string,
  declared: number | undefined,
  wire: string | null | undefined,
): Comparison {
  const actual = count(wire) ?? 0;
  const time = (ms: number): string => formatDuration(ms / 1000);
  return {
    setting,
    declared,
    actual,
    otherwise: () => {
      const now = declared as number;
      if (now === 0) return change('change', `${what} made from now on are kept for good, not ${time(actual)}`);
      if (actual > 0 && now > actual) {
        return change('change', `${what} made from now on are deleted after ${time(now)}, not ${time(actual)}`);
      }
      const before = actual === 0 ? ', and are kept for good today' : `, not ${time(actual)}`;
      return change('weaken', `${what} made from now on are deleted after ${time(now)}${before}`);
    },
  };
}

/** Holds what the entity declares against its dataset; an absent window means 168 hours. */
export function settingsFindings(entity: BigQueryEntity, dataset: Dataset): SettingFinding[] {
  const hours = timeTravelHours(dataset);
  const declared = entity.max_time_travel_hours;
  const location = cleanText(dataset.location, 60);
  const isThere = entity.location?.toLowerCase() === location.toLowerCase();
  return findingsOf([
    {
      setting: 'max_time_travel_hours',
      declared,
      actual: hours,
      otherwise: () =>
        (declared as number) > hours
          ? change(
              'change',
              `deleted and changed data can be brought back for ${declared} hours, not ${hours}, from now on`,
            )
          : change(
              'weaken',
              `deleted and changed data can be brought back for ${declared} hours, not ${hours}; the older history of every table goes at once`,
            ),
    },
    expiration(
      'default_table_expiration_ms',
      'tables and snapshots',
      entity.default_table_expiration_ms,
      dataset.defaultTableExpirationMs,
    ),
    expiration(
      'default_partition_expiration_ms',
      'partitions of tables',
      entity.default_partition_expiration_ms,
      dataset.defaultPartitionExpirationMs,
    ),
    {
      setting: 'dataset_description',
      declared: entity.dataset_description,
      actual: dataset.description
        ? cleanText(dataset.description, 16_384)
        : entity.dataset_description === ''
          ? ''
          : null,
      otherwise: () => change('change', 'the dataset is described as declared'),
    },
    {
      setting: 'location',
      declared: entity.location,
      actual: isThere ? entity.location : location || null,
      otherwise: () => ({ note: 'a dataset stays where it was made' }),
    },
  ]);
}
