import type { Progress } from '../../core/operation.ts';
import { cleanText } from '../../core/text.ts';
import type { Terminal } from './terminal.ts';

const BAR_WIDTH = 24;
/** Plain output says where it stands again after this many percent. */
const PLAIN_STEP = 10;

/** Writes `[=====     ]  42 % message`. */
export function progressBar(progress: Progress): string {
  const message = cleanText(progress.message);
  if (progress.percent === undefined) return `… ${message}`;
  const percent = Math.min(100, Math.max(0, progress.percent));
  const filled = Math.round((percent / 100) * BAR_WIDTH);
  return `[${'='.repeat(filled)}${' '.repeat(BAR_WIDTH - filled)}] ${String(Math.floor(percent)).padStart(3)} % ${message}`;
}

/** Gives the listener that shows progress on standard error: a bar on a terminal, else a line for every change worth one. */
export function showProgress(terminal: Terminal, plain: boolean): (progress: Progress) => void {
  let message: string | undefined;
  let percent = 0;
  return (progress) => {
    if (terminal.interactive && !plain) return terminal.status(progressBar(progress));
    const now = progress.percent ?? 0;
    const text = cleanText(progress.message);
    if (text === message && now < percent + PLAIN_STEP) return;
    message = text;
    percent = now;
    terminal.note(progress.percent === undefined ? text : `${text} (${Math.floor(now)} %)`);
  };
}
