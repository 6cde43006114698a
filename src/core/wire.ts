import { isObject } from './json.ts';

/** A JSON object as a provider sent it. */
export type Wire = Readonly<Record<string, unknown>>;

/** Drops members without a value, so that what a provider does not say is absent. */
export function known<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as never;
}

/** Gives a text that is not empty; undefined for anything else. */
export function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** Gives a finite number; undefined for anything else. */
export function numberOf(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined;
}

/** Gives a boolean; undefined for anything else. */
export function booleanOf(value: unknown): boolean | undefined {
  return typeof value === 'boolean' ? value : undefined;
}

/** Gives a provider's instant as RFC 3339 UTC; undefined for none and for one that cannot be read. */
export function instantOf(value: unknown): string | undefined {
  const date = typeof value === 'string' && value !== '' ? new Date(value) : undefined;
  return date === undefined || Number.isNaN(date.getTime()) ? undefined : date.toISOString();
}

/** Gives the objects of a list; an empty one for anything else. */
export function listOf(value: unknown): Wire[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}
