import type { Progress } from '../../core/operation.ts';
import { cleanText } from '../../core/text.ts';
import type { Terminal } from './terminal.ts';

const BAR_WIDTH = 24;
/** Plain output says where it stands again after this many percent. */
const PLAIN_STEP = 10;
/** And after this long in any case. */
const PLAIN_MS = 10_000;

/** Writes `[=====     ]  42 % message`. */
export function progressBar(progress: Progress): string {
  const message = cleanText(progress.message);
  if (progress.percent === undefined) return `… ${message}`;
  const percent = Math.min(100, Math.max(0, progress.percent));
  const filled = Math.round((percent / 100) * BAR_WIDTH);
  return `[${'='.repeat(filled)}${' '.repeat(BAR_WIDTH - filled)}] ${String(Math.floor(percent)).padStart(3)} % ${message}`;
}

/** What a message is about: `312 KiB copied` and `1.2 MiB copied` say the same thing at two moments. */
const subject = (text: string): string => text.replace(/\d+(?:\.\d+)?(?: ?(?:[KMGTP]?i?B|bytes|%|ms|s|min|h))?/g, '#');

/**
 * Gives the listener that shows progress on standard error: a bar on a terminal. Elsewhere, in a log that is kept, a line
 * for every new subject, and for the same one when it is ten percent on or ten seconds have gone by.
 */
export function showProgress(
  terminal: Terminal,
  plain: boolean,
  now: () => number = () => performance.now(),
): (progress: Progress) => void {
  let shown: { subject: string; percent: number; at: number } | undefined;
  return (progress) => {
    if (terminal.interactive && !plain) return terminal.status(progressBar(progress));
    const text = cleanText(progress.message);
    const next = { subject: subject(text), percent: progress.percent ?? 0, at: now() };
    const isNew = shown === undefined || next.subject !== shown.subject;
    if (!isNew && shown !== undefined && next.percent < shown.percent + PLAIN_STEP && next.at < shown.at + PLAIN_MS)
      return;
    shown = next;
    terminal.note(progress.percent === undefined ? text : `${text} (${Math.floor(next.percent)} %)`);
  };
}
