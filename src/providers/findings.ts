import { digestOf, type JsonValue } from '../core/json.ts';
import type { SettingFinding } from '../core/settings.ts';
import { cleanText } from '../core/text.ts';

/** One parameter of the entities file and what the provider has. */
export interface Comparison {
  readonly setting: string;
  /** undefined: the file does not declare it. */
  readonly declared: JsonValue | undefined;
  /** null for nothing; undefined where the provider does not tell. */
  readonly actual: JsonValue | undefined;
  /** What would make it so, or why that cannot be done; asked only where it is not as declared. */
  readonly otherwise: () => Pick<SettingFinding, 'change' | 'note'>;
}

/** Makes a finding of each parameter that is declared. */
export function findingsOf(comparisons: readonly Comparison[]): SettingFinding[] {
  return comparisons.flatMap(({ setting, declared, actual, otherwise }): SettingFinding[] => {
    if (declared === undefined) return [];
    if (actual === undefined) return [{ setting, declared, verdict: 'unknown', ...otherwise() }];
    if (digestOf(actual) === digestOf(declared)) return [{ setting, declared, actual, verdict: 'as_declared' }];
    return [{ setting, declared, actual, verdict: 'differs', ...otherwise() }];
  });
}

/** Says in one sentence each what is not as declared, for the warnings of `get-backup-info`. */
export function driftOf(findings: readonly SettingFinding[]): string[] {
  const show = (value: JsonValue): string =>
    value === null ? 'unset' : typeof value === 'object' ? JSON.stringify(value) : String(value);
  return findings.flatMap(({ setting, declared, actual, verdict }) =>
    verdict === 'differs'
      ? [`Declared ${setting} is ${cleanText(show(declared), 100)}, actual ${cleanText(show(actual ?? null), 100)}.`]
      : [],
  );
}

/** Tells whether these findings still have the values that they were planned with. */
export function isStill(planned: readonly SettingFinding[], now: readonly SettingFinding[]): boolean {
  return planned.every(({ setting, actual, declared }) => {
    const found = now.find((one) => one.setting === setting);
    return (
      found !== undefined && digestOf([found.actual ?? null, found.declared]) === digestOf([actual ?? null, declared])
    );
  });
}
