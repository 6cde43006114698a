import { expect, it } from 'vitest';
import type { Progress } from '../../src/core/operation.ts';
import { meter } from '../../src/postgres/work.ts';

const MIB = 1024 * 1024;

it('tells done, whole, percent, and the time that is left once it can be told', () => {
  const told: Progress[] = [];
  let now = 0;
  const runtime = { now: () => new Date(now) };
  const seen = meter({ progress: (one: Progress) => told.push(one), runtime } as never, 100 * MIB, 'Data dumped');
  const at = (seconds: number, mebibytes: number): string | undefined => {
    now = seconds * 1000;
    const before = told.length;
    seen(mebibytes * MIB);
    return told.length === before ? undefined : told.at(-1)?.message;
  };
  expect(at(1, 10)).toBe('Data dumped: 10.0 MiB of 100 MiB, 10 %');
  expect(at(1, 10.5)).toBeUndefined();
  expect(at(10, 20)).toBe('Data dumped: 20.0 MiB of 100 MiB, 20 %, about 40 s left');
  expect(at(100, 25)).toBe('Data dumped: 25.0 MiB of 100 MiB, 25 %, about 5 min left');
  // The whole was only an estimate.
  expect(at(400, 130)).toBe('Data dumped: 130 MiB');
  expect(told.map(({ percent }) => percent)).toEqual([10, 20, 25, 99]);
});
