import { expect, it } from 'vitest';
import { showProgress } from '../../src/surfaces/cli/progress.ts';
import type { Terminal } from '../../src/surfaces/cli/terminal.ts';

it('writes into a log what is new, every ten percent and every ten seconds, not every byte', () => {
  const lines: string[] = [];
  let clock = 0;
  const terminal = { interactive: false, note: (line: string) => lines.push(line) } as unknown as Terminal;
  const show = showProgress(terminal, false, () => clock);
  show({ message: 'Copying the server' });
  for (let percent = 1; percent <= 25; percent += 1) show({ message: `${percent / 10} MiB copied`, percent });
  clock = 11_000;
  show({ message: '2.6 MiB copied', percent: 26 });
  show({ message: 'Storing the manifest', percent: 26 });
  expect(lines).toEqual([
    'Copying the server',
    '0.1 MiB copied (1 %)',
    '1.1 MiB copied (11 %)',
    '2.1 MiB copied (21 %)',
    '2.6 MiB copied (26 %)',
    'Storing the manifest (26 %)',
  ]);
});
