import type { SimulatorServer } from '../../src/simulators/server.ts';
import type { JournalEntry } from '../../src/simulators/simulator.ts';

/** A place in the journal: the last entry before it. The journal forgets its oldest entries, so a number would not do. */
export type JournalMark = JournalEntry | undefined;

/** Where the journal ends now. */
export function journalMark({ journal }: SimulatorServer): JournalMark {
  return journal.at(-1);
}

/**
 * What was asked since a mark.
 * @throws {Error} when the journal does not reach back to it
 */
export function journalSince({ journal }: SimulatorServer, mark: JournalMark): readonly JournalEntry[] {
  if (mark === undefined) return journal;
  const at = journal.lastIndexOf(mark);
  if (at < 0) throw new Error(`the journal does not reach back to request ${mark.sequence}`);
  return journal.slice(at + 1);
}
